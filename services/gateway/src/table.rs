//! An index as a table: the chunks of its segments and their tails, cut at one instant.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use async_trait::async_trait;
use client::Client;
use engine::{BatchStream, Chunks, ScanRequest, TableSource};
use futures::{StreamExt, TryStreamExt, stream};
use types::Offset;
use wire::{
    Problem,
    coordinator::{SegmentRange, StreamDescription},
    segment_store::ChunkMeta,
};

/// Chunks of one segment that are fetched and decoded ahead of the query.
const CHUNKS_AHEAD: usize = 2;
/// Footers that are fetched at once for one segment.
const FOOTERS_AT_ONCE: usize = 8;
/// Segments that are described and whose tails are read at once.
const SEGMENTS_AT_ONCE: usize = 8;
/// How long the tail may let wait for an event that is known to be there.
const TAIL_WAIT: Duration = Duration::from_secs(2);
/// What the tails of one query may hold in memory, twice what a store keeps before it throttles writers.
const TAILS_BYTES_MAX: usize = 512 << 20;

/// One index at one instant.
#[derive(Debug)]
pub(crate) struct IndexTable {
    chunks: Chunks,
    segments: Vec<Segment>,
}

/// One segment at that instant.
#[derive(Debug)]
struct Segment {
    start: Offset,
    chunks: Vec<ChunkMeta>,
    tail: Vec<RecordBatch>,
}

impl IndexTable {
    /// Notes the ends of all segments and reads what is not in chunks yet, so that an event acknowledged before is there.
    pub(crate) async fn open(
        client: &Client,
        chunks: &Chunks,
        description: &StreamDescription,
    ) -> Result<Self, Problem> {
        let held = AtomicUsize::new(0);
        let open = |range: SegmentRange| Self::segment(client, range, &held);
        let segments: Vec<Segment> =
            stream::iter(description.segments.clone()).map(open).buffered(SEGMENTS_AT_ONCE).try_collect().await?;
        Ok(Self { chunks: chunks.clone(), segments })
    }

    /// Reads one segment's tail; `held` counts the bytes of all tails of the query.
    async fn segment(client: &Client, range: SegmentRange, held: &AtomicUsize) -> Result<Segment, Problem> {
        let info = client.describe(range).await?;
        let mut tail = Vec::new();
        let mut reader = client.reader(range, info.tail_from.max(info.start));
        while reader.position().offset < info.end {
            match reader.next(TAIL_WAIT).await? {
                Some(batch) => {
                    let bytes = rows_bytes(&batch);
                    if held.fetch_add(bytes, Ordering::Relaxed) + bytes > TAILS_BYTES_MAX {
                        return Err(Problem::throttled(
                            "TailTooLarge",
                            "too many events are not in chunks yet; try again in a moment",
                        ));
                    }
                    tail.extend(before(&batch, info.end));
                }
                None if reader.at_end() => break,
                None => {
                    let at = reader.position().offset;
                    let missing = format!("segment {} does not give offset {at} in time; try again", range.segment);
                    return Err(Problem::unavailable("TailUnreadable", missing));
                }
            }
        }
        Ok(Segment { start: info.start, chunks: info.chunks, tail })
    }
}

/// The bytes of a batch's own rows. Its columns share one buffer, which each of them would count whole.
fn rows_bytes(batch: &RecordBatch) -> usize {
    let column = |c: &ArrayRef| c.to_data().get_slice_memory_size().unwrap_or(usize::MAX / 1024);
    batch.columns().iter().map(column).sum()
}

/// The rows before an offset; rows are in the order of their offsets.
fn before(batch: &RecordBatch, end: Offset) -> Option<RecordBatch> {
    let Some(offsets) = batch.column_by_name("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>()) else {
        return Some(batch.clone());
    };
    let end = i64::try_from(end).unwrap_or(i64::MAX);
    let rows = offsets.values().partition_point(|offset| *offset < end);
    (rows > 0).then(|| batch.slice(0, rows))
}

#[async_trait]
impl TableSource for IndexTable {
    async fn schemas(&self) -> Result<Vec<SchemaRef>, Problem> {
        let all: Vec<ChunkMeta> = self.segments.iter().flat_map(|segment| segment.chunks.clone()).collect();
        let fetch = |chunk: ChunkMeta| {
            let chunks = self.chunks.clone();
            async move { chunks.schema(&chunk).await }
        };
        let mut schemas: Vec<SchemaRef> = stream::iter(all).map(fetch).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        schemas.extend(self.segments.iter().flat_map(|segment| &segment.tail).map(RecordBatch::schema));
        Ok(schemas)
    }

    fn partitions(&self) -> usize {
        self.segments.len().max(1)
    }

    fn scan(&self, partition: usize, request: &ScanRequest) -> BatchStream {
        let Some(segment) = self.segments.get(partition) else { return stream::empty().boxed() };
        let range = request.time_range;
        let wanted = segment.chunks.iter().filter(move |chunk| range.meets(chunk.time_min, chunk.time_max));
        let wanted: Vec<ChunkMeta> = wanted.cloned().collect();
        let (start, columns) = (segment.start, request.columns.clone().map(Arc::new));
        let chunks = self.chunks.clone();
        let read = move |chunk: ChunkMeta| {
            let (chunks, columns) = (chunks.clone(), columns.clone());
            async move {
                let names = columns.as_ref().map(|names| names.as_slice());
                chunks.read(&chunk, start.max(chunk.from), names).await
            }
        };
        let tail = stream::iter(segment.tail.clone().into_iter().map(Ok));
        stream::iter(wanted)
            .map(read)
            .buffered(CHUNKS_AHEAD)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .chain(tail)
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn rows_at_or_after_the_cut_are_left_out() {
        let offsets = Arc::new(Int64Array::from(vec![5, 6, 7])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("_offset", offsets)]).unwrap();
        for (end, rows) in [(5, None), (6, Some(1)), (8, Some(3)), (u64::MAX, Some(3))] {
            assert_eq!(before(&batch, end).map(|b| b.num_rows()), rows, "{end}");
        }
    }
}
