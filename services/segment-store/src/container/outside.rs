//! What is different for programs outside the platform: whom nobody has to believe, and who have no object storage.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bus::SystemClock;
use bytes::Bytes;
use host::Quotas;
use moka::sync::Cache;
use store::Objects;
use tokio::sync::{Mutex, Semaphore};
use types::{Clock, ContainerId, Timestamp};
use wire::{
    Outcome, Problem,
    block::Block,
    segment_store::{Append, Appended, ChunkMeta, ReadFrom, SegmentRead},
};

use crate::{
    container::{Container, columns, read::capped, tier2::failed},
    error::Error,
    lane::to_u64,
};

/// Chunks kept, so that a reader who goes through one fetches it once.
const CHUNKS_BYTES_MAX: u64 = 64 << 20;
/// Chunks read at the same time; who comes meanwhile waits, no longer than its deadline.
const READS_MAX: usize = 2;
/// Rows decoded for one answer.
const ROWS_MAX: usize = 8_192;
/// Times in a row that a named chunk may be gone before somebody else should be asked.
const GONE_MAX: usize = 3;

/// How the names of the platform's own writers begin: of lanes, and of jobs' sinks. Whoever used one up could have its next events
/// taken for repeats.
const OWN_WRITERS: [&str; 2] = ["lane-", "job-"];

/// What only programs outside need of a replica.
pub(crate) struct Outside {
    pub(crate) lender: Lender,
    /// What the users of an index may still publish.
    pub(crate) quotas: Quotas,
}

/// Refuses a block that says what only a front door knows, or that comes under the name of one; answers its events and their
/// bytes.
///
/// The message ids of all segments of a container share one memory, in which those received last stay: whoever chose the time of
/// receipt could have everybody else's forgotten. Numbered events need no ids.
fn check(append: &Append) -> Result<(u64, u64), Error> {
    if OWN_WRITERS.iter().any(|prefix| append.writer.as_str().starts_with(prefix)) {
        return Err(Error::BadBlock(format!("writer {} has a name that belongs to the platform", append.writer)));
    }
    let block = Block::open(append.block.clone()).map_err(|e| Error::BadBlock(e.to_string()))?;
    if (0..block.len()).any(|i| block.id(i) != 0) {
        return Err(Error::BadBlock("message ids are for what comes through a front door".to_owned()));
    }
    let bytes: usize = block.iter().map(|event| event.payload.len()).sum();
    Ok((to_u64(block.len()), to_u64(bytes)))
}

/// Payload bytes of the events of a block that were there before.
fn repeated_bytes(block: Bytes, appended: &Appended) -> u64 {
    let Ok(block) = Block::open(block) else { return 0 };
    let repeats = (0u32..).zip(block.iter()).filter(|(place, _)| appended.duplicates.binary_search(place).is_ok());
    repeats.map(|(_, event)| to_u64(event.payload.len())).sum()
}

/// Reads chunks for others; clones share its memory.
///
/// Bounds: 64 MiB of chunks, two of them decoded at a time, 8,192 rows and what a read may answer of each.
#[derive(Clone)]
pub(crate) struct Lender {
    objects: Objects,
    chunks: Cache<String, Bytes>,
    /// One reader of a stream at a time waits for a place, so that no tenant's readers keep out another's.
    turns: Arc<parking_lot::Mutex<HashMap<u32, Weak<Mutex<()>>>>>,
    places: Arc<Semaphore>,
}

impl Lender {
    pub(crate) fn new(objects: Objects) -> Self {
        let weigh = |_: &String, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let chunks = Cache::builder().weigher(weigh).max_capacity(CHUNKS_BYTES_MAX).build();
        Self { objects, chunks, turns: Arc::default(), places: Arc::new(Semaphore::new(READS_MAX)) }
    }

    fn turn(&self, stream: u32) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock();
        // As many stay as there are requests at the doors.
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&stream).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Mutex::new(()));
        turns.insert(stream, Arc::downgrade(&turn));
        turn
    }

    /// The rows of a chunk from an offset in it; `None` when its object is gone. Waits no longer than the deadline.
    async fn rows(
        &self,
        request: &ReadFrom,
        chunk: &ChunkMeta,
        (container, deadline): (ContainerId, Timestamp),
    ) -> Result<Option<columns::Answer>, Error> {
        let turn = self.turn(request.segment.stream);
        let waited = async {
            let turn = turn.lock().await;
            (turn, self.places.clone().acquire_owned().await)
        };
        let late = |_| Error::Deadline(container);
        let (_turn, permit) = tokio::time::timeout(deadline.since(SystemClock.now()), waited).await.map_err(late)?;
        let permit = permit.map_err(|e| Error::Columns(e.to_string()))?;
        let bytes = match self.chunks.get(&chunk.key) {
            Some(known) => known,
            None => match self.objects.get(&chunk.key).await {
                Ok(bytes) => {
                    self.chunks.insert(chunk.key.clone(), bytes.clone());
                    bytes
                }
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(failed(error)),
            },
        };
        let (from, bytes_max) = (request.from, capped(request));
        let (segment, run) = (request.segment, from..chunk.to);
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let damaged = |e: &dyn std::fmt::Display| Error::Columns(e.to_string());
            let batches = chunk::read_rows(bytes, segment, run, ROWS_MAX).map_err(|e| damaged(&e))?;
            let first = batches.first().ok_or_else(|| damaged(&format_args!("a chunk does not hold offset {from}")))?;
            columns::fit(first, from, bytes_max)
        });
        reading.await.map_err(|e| Error::Columns(e.to_string()))?.map(Some)
    }
}

impl Container {
    /// Appends what a writer outside the platform sends. Errors: those of [`Container::append`]; `OverQuota`, not applied.
    pub(crate) async fn append_outside(
        &self,
        request: Append,
        quotas: &Quotas,
        deadline: Timestamp,
    ) -> Result<Appended, Error> {
        let (events, bytes) = check(&request)?;
        let index = self.books.read().state.segments.get(&request.segment).map(|segment| segment.index.clone());
        // Of a segment that is not here the append itself says what is known.
        let Some(index) = index else { return self.append(request, deadline).await };
        let taken = quotas.take(&index, events, bytes)?;
        let block = request.block.clone();
        let answer = self.append(request, deadline).await;
        match &answer {
            Ok(appended) if appended.duplicates.is_empty() => {}
            // A writer repeats what it has no answer to: what was there before was paid for when it came first.
            Ok(appended) => quotas.give_back(&index, [(0, repeated_bytes(block, appended), taken)]),
            Err(error) if Problem::from(error.clone()).outcome == Outcome::NotApplied => {
                quotas.give_back(&index, [(events, bytes, taken)]);
            }
            Err(_) => {}
        }
        answer
    }

    /// Answers a read with columns, also of what is in Tier 2. Bounds: as [`Container::read`].
    pub(crate) async fn read_inline(
        &self,
        request: ReadFrom,
        lender: &Lender,
        deadline: Timestamp,
    ) -> Result<SegmentRead, Error> {
        for _ in 0..GONE_MAX {
            let read = self.read(request.clone()).await?;
            let Some(chunk) = read.chunks.first() else { return Ok(read) };
            if let Some(columns::Answer { next, columns }) = lender.rows(&request, chunk, (self.id, deadline)).await? {
                return Ok(SegmentRead { next, columns, chunks: Vec::new(), ..read });
            }
            // Replaced or truncated since it was named: the books know better by now.
        }
        Err(self.unavailable("a chunk of the segment is gone"))
    }
}

#[cfg(test)]
mod tests {
    use types::SegmentId;
    use wire::block::BlockBuilder;

    use super::*;

    #[test]
    fn only_a_front_door_gives_message_ids_and_only_the_platform_has_its_names() {
        let cases = [
            ("w", &[0, 0][..], true),
            ("w", &[0, 7], false),
            ("w", &[1], false),
            ("lane-3-1-9", &[0], false),
            ("job-sums-1", &[0], false),
            ("jobs", &[0], true),
        ];
        for (name, ids, taken) in cases {
            let mut block = BlockBuilder::new();
            assert!(ids.iter().all(|id| block.push(Timestamp::MAX, *id, b"event")));
            let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
            let (writer, first_event_number, block) = (name.parse().unwrap(), 1, block.finish());
            let append = Append { segment, writer, first_event_number, block, expected_end: None };
            assert_eq!(check(&append).is_ok(), taken, "{name} {ids:?}");
        }
    }
}
