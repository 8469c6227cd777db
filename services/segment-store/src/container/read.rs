//! Reads: chunks for what is in Tier 2, columns for the tail, a parked request where there is nothing yet.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use types::Offset;
use wire::segment_store::{ChunkMeta, ReadFrom, SegmentRead};

use crate::{
    container::{Container, columns, tail::TailBlock},
    error::Error,
};

/// The most bytes of columns in one answer.
const ANSWER_BYTES_MAX: u32 = 768 << 10;
/// The most chunks in one answer.
const CHUNKS_MAX: usize = 64;
/// The longest that a read is parked.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What the books say about an offset at one instant.
struct Look {
    end: Offset,
    sealed: bool,
    found: Found,
}

enum Found {
    Chunks(Vec<ChunkMeta>),
    Blocks(Vec<Arc<TailBlock>>),
    Nothing,
}

impl Container {
    /// Answers a read: at least one event where there is one, else after the wait nothing.
    ///
    /// Bounds: 768 KiB of columns (a single larger event is answered alone), 64 chunks, parked for at most 10 s.
    pub async fn read(&self, request: ReadFrom) -> Result<SegmentRead, Error> {
        let until = Instant::now() + Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        let wake = self.wake(&request)?;
        loop {
            let woken = wake.notified();
            tokio::pin!(woken);
            // From here on no change is missed, although the look comes first.
            woken.as_mut().enable();
            let Look { end, sealed, found } = self.look(&request)?;
            let nothing = SegmentRead {
                from: request.from,
                next: request.from,
                end,
                sealed,
                chunks: Vec::new(),
                columns: <_>::default(),
            };
            match found {
                Found::Chunks(chunks) => return Ok(SegmentRead { chunks, ..nothing }),
                Found::Blocks(blocks) => {
                    let answer = self.answer(&request, blocks).await?;
                    return Ok(SegmentRead { next: answer.next, columns: answer.columns, ..nothing });
                }
                Found::Nothing if sealed || self.draining.load(Ordering::Relaxed) || Instant::now() >= until => {
                    return Ok(nothing);
                }
                Found::Nothing => {
                    // Running into the time-out is an answer like any other.
                    tokio::time::timeout_at(until, woken).await.ok();
                }
            }
        }
    }

    fn wake(&self, request: &ReadFrom) -> Result<Arc<Notify>, Error> {
        drop(self.readable()?);
        let mut books = self.books.write();
        if books.state.segment(request.segment)?.transactional {
            return Err(Error::Transactional(request.segment));
        }
        Ok(books.tail.wake(request.segment))
    }

    fn look(&self, request: &ReadFrom) -> Result<Look, Error> {
        let books = self.readable()?;
        let segment = books.state.segment(request.segment)?;
        let from = request.from;
        if from < segment.start {
            return Err(Error::Truncated { segment: request.segment, from, start: segment.start });
        }
        let found = if from < segment.tail_from {
            let first = segment.chunks.partition_point(|chunk| chunk.to <= from);
            Found::Chunks(segment.chunks.iter().skip(first).take(CHUNKS_MAX).cloned().collect())
        } else if from < segment.end {
            let blocks = books.tail.blocks(request.segment, from, u64::from(capped(request)));
            if blocks.is_empty() {
                // Only a container whose log is damaged has a hole here.
                return Err(self.unavailable("events between Tier 2 and the tail are lost"));
            }
            Found::Blocks(blocks)
        } else {
            Found::Nothing
        };
        Ok(Look { end: segment.end, sealed: segment.sealed, found })
    }

    async fn answer(&self, request: &ReadFrom, blocks: Vec<Arc<TailBlock>>) -> Result<columns::Answer, Error> {
        let (segment, from, bytes_max) = (request.segment, request.from, capped(request));
        if let Some(known) = self.answers.get(segment, from, bytes_max) {
            return Ok(known);
        }
        let made = tokio::task::spawn_blocking(move || columns::answer(segment, from, &blocks, bytes_max)).await;
        let answer = made.map_err(|e| Error::Columns(e.to_string()))??;
        self.answers.put(segment, from, bytes_max, answer.clone());
        Ok(answer)
    }
}

pub(crate) fn capped(request: &ReadFrom) -> u32 {
    request.bytes_max.clamp(1, ANSWER_BYTES_MAX)
}
