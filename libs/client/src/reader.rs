//! Exact reading: one cursor through Tier 2 and the tail.

pub(crate) mod set;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, ipc::reader::StreamReader};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;
use types::{Offset, Position};
use wire::{
    Problem,
    segment_store::{ChunkMeta, ReadFrom, ReadSegment, SegmentPlace, SegmentRead},
};

use crate::{Client, Patience};

/// Columns asked for at once; the segment store answers no more.
const READ_BYTES_MAX: u32 = 768 << 10;
/// The longest that one request is parked at the segment store.
const PARK_MAX: Duration = Duration::from_secs(10);
/// How long transient failures are repeated beyond the wait: a take-over of the container.
pub(crate) const GRACE: Duration = Duration::from_secs(15);
/// Pause after an empty answer that came before its time.
const EARLY_PAUSE: Duration = Duration::from_millis(50);
/// Times in a row that a named chunk may be gone before that is a defect.
const GONE_MAX: u32 = 3;

/// Reads one segment: every event once, in the order of offsets, whether it is in Tier 2, in the tail, or moves meanwhile.
///
/// The cursor alone decides what is read: the segment store answers for an offset either with the chunks that hold it or with
/// its columns, never with both, so that an event that moves to Tier 2 between two reads is neither missed nor repeated.
pub struct SegmentReader {
    client: Client,
    segment: SegmentPlace,
    /// The offset after the last event given out.
    position: Offset,
    /// The offset after the last event in `queued`.
    cursor: Offset,
    queued: VecDeque<RecordBatch>,
    /// Chunks that hold the cursor and what follows, as the segment store named them.
    chunks: VecDeque<ChunkMeta>,
    sealed_end: bool,
    /// What is read of chunks; nothing for all of it.
    columns: Option<Arc<[String]>>,
}

impl SegmentReader {
    pub(crate) fn new(client: Client, segment: SegmentPlace, from: Offset) -> Self {
        let (queued, chunks) = (VecDeque::new(), VecDeque::new());
        Self { client, segment, position: from, cursor: from, queued, chunks, sealed_end: false, columns: None }
    }

    /// The same, reading of chunks only the named columns, with what else it takes to know an event. Those that come from the tail,
    /// or have another shape, may bring others besides.
    #[must_use]
    pub fn with_columns(self, columns: Vec<String>) -> Self {
        Self { columns: Some(columns.into()), ..self }
    }

    /// The next events; `None` when none came within `wait`, or when the segment is sealed and read to its end.
    ///
    /// Cancel safe. Bounds: transient failures are repeated for 15 s beyond the wait.
    /// Errors: NotFound `UnknownSegment`, `Truncated`; whatever is transient and lasts.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<RecordBatch>, Problem> {
        let until = Instant::now() + wait;
        let mut patience = Patience::new(wait + GRACE);
        let mut gone = 0;
        loop {
            if let Some(batch) = self.queued.pop_front() {
                self.position += rows(&batch);
                return Ok(Some(batch));
            }
            let step = if let Some(chunk) = self.chunks.front().cloned() {
                self.read_chunk(&chunk, &mut gone).await
            } else {
                self.ask(until).await
            };
            match step {
                Ok(true) => {}
                Ok(false) if self.sealed_end || Instant::now() >= until => return Ok(None),
                // Answered before its time, as a store does that is about to end.
                Ok(false) => tokio::time::sleep(EARLY_PAUSE).await,
                Err(problem) => match patience.pause_after(&problem) {
                    Some(pause) => {
                        debug!(segment = %self.segment.segment, cursor = self.cursor, %problem, "read repeated");
                        tokio::time::sleep(pause).await;
                    }
                    None => return Err(problem),
                },
            }
        }
    }

    /// The offset after the last event given out; where a later reader goes on.
    pub fn position(&self) -> Position {
        Position { segment: self.segment.segment, offset: self.position }
    }

    /// Whether the segment is sealed and every event was given out.
    pub fn at_end(&self) -> bool {
        self.sealed_end && self.queued.is_empty()
    }

    /// Fetches one chunk; true if the cursor or the plan moved.
    async fn read_chunk(&mut self, chunk: &ChunkMeta, gone: &mut u32) -> Result<bool, Problem> {
        if !(chunk.from..chunk.to).contains(&self.cursor) {
            self.chunks.clear();
            return Ok(true);
        }
        let Some(bytes) = self.client.chunk(&chunk.key).await? else {
            // Replaced or truncated since it was named: whoever named it knows better now.
            *gone += 1;
            self.chunks.clear();
            if *gone > GONE_MAX {
                return Err(Problem::internal(format_args!("chunk {} is named and does not exist", chunk.key)));
            }
            return Ok(true);
        };
        let (segment, run) = (self.segment.segment, self.cursor..chunk.to);
        let columns = self.columns.clone();
        let decoded =
            tokio::task::spawn_blocking(move || chunk::read_run(bytes, segment, run, columns.as_deref())).await;
        let damaged = |e: &dyn std::fmt::Display| Problem::internal(format_args!("chunk {}: {e}", chunk.key));
        self.queued.extend(decoded.map_err(|e| damaged(&e))?.map_err(|e| damaged(&e))?);
        self.cursor = chunk.to;
        self.chunks.pop_front();
        Ok(true)
    }

    /// Asks the segment store what is at the cursor; true if there was something.
    async fn ask(&mut self, until: Instant) -> Result<bool, Problem> {
        let park = until.saturating_duration_since(Instant::now()).min(PARK_MAX);
        let request = ReadFrom {
            segment: self.segment.segment,
            from: self.cursor,
            bytes_max: READ_BYTES_MAX,
            wait_ms: u32::try_from(park.as_millis()).unwrap_or(u32::MAX),
        };
        let within = park + bus::CALL_DEADLINE;
        let read = self.client.ask::<ReadSegment>(self.segment.container, &request, within).await?;
        let SegmentRead { from, next, end, sealed, chunks, columns } = read;
        if from != self.cursor {
            return Err(Problem::internal(format_args!("asked for offset {}, answered from {from}", self.cursor)));
        }
        // Beyond the end stands who read an index that was restored from less.
        self.sealed_end = sealed && next >= end && chunks.is_empty();
        if !chunks.is_empty() {
            self.chunks = chunks.into();
            return Ok(true);
        }
        if next == from {
            return Ok(false);
        }
        let batches = decode(&columns).map_err(|e| Problem::internal(format_args!("columns cannot be read: {e}")))?;
        if batches.iter().map(rows).sum::<u64>() != next - from {
            return Err(Problem::internal(format_args!("columns do not hold the offsets {from} to {next}")));
        }
        self.queued.extend(batches);
        self.cursor = next;
        Ok(true)
    }
}

fn decode(columns: &Bytes) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    StreamReader::try_new(&columns[..], None)?.collect()
}

fn rows(batch: &RecordBatch) -> u64 {
    u64::try_from(batch.num_rows()).unwrap_or(u64::MAX)
}
