//! An index as a table: the chunks of all its segments and their tails, cut at one instant.
//!
//! Consistency: the segments are listed first, those of former epochs included; then the start and the end of each are
//! noted. An event is in one segment for ever, so it is seen at most once. A segment is listed only when those that it
//! follows are sealed, and their ends are noted later: so of the events of a key a query sees everything from the first
//! that is not truncated up to one of those that were the last while it was planned, and every event that was
//! acknowledged before it began. What is appended, merged or scaled after that is not seen.

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
use engine::{BatchStream, Chunks, ScanRequest, TableSource, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use types::{IndexName, Offset, SegmentId};
use wire::{
    Problem,
    coordinator::{SegmentNode, SegmentRange},
    segment_store::ChunkMeta,
};

use crate::platform::{Platform, all_segments};

/// Chunks of one segment that are fetched and decoded ahead of the query.
const CHUNKS_AHEAD: usize = 2;
/// Footers that are fetched at once for one query.
const FOOTERS_AT_ONCE: usize = 8;
/// Segments that are described and whose tails are read at once.
const SEGMENTS_AT_ONCE: usize = 16;
/// Segments, or groups of them, that a query may read at the same time.
const PARTITIONS_MAX: usize = 64;
/// How long the tail may let wait for an event that is known to be there: the take-over of a container.
const TAIL_WAIT: Duration = Duration::from_secs(15);
/// What the tails of one query may hold in memory, twice what a store keeps before it throttles writers.
const TAILS_BYTES_MAX: usize = 512 << 20;

/// One index at one instant.
#[derive(Debug)]
pub(crate) struct IndexTable {
    chunks: Chunks,
    segments: Vec<Arc<Segment>>,
}

/// One segment at that instant.
#[derive(Debug)]
struct Segment {
    segment: SegmentId,
    start: Offset,
    chunks: Vec<ChunkMeta>,
    tail: Vec<RecordBatch>,
}

impl IndexTable {
    /// Notes the starts and ends of all segments and reads what is not in chunks yet.
    ///
    /// Bounds: `SEGMENTS_MAX`, then BadRequest `TooManySegments`; 512 MiB of tails, then Throttled `TailTooLarge`.
    /// Errors: NotFound `UnknownIndex`; `UnknownSegment` and `Truncated` when something was truncated meanwhile.
    pub(crate) async fn open(platform: &dyn Platform, index: &IndexName) -> Result<Self, Problem> {
        let held = &AtomicUsize::new(0);
        let open = |node: SegmentNode| Segment::open(platform, node.segment_range(), held);
        let nodes = stream::iter(all_segments(platform, index).await?);
        let segments: Vec<Option<Segment>> = nodes.map(open).buffered(SEGMENTS_AT_ONCE).try_collect().await?;
        let segments = segments.into_iter().flatten().map(Arc::new).collect();
        Ok(Self { chunks: platform.chunks().clone(), segments })
    }
}

impl Segment {
    /// Notes one segment's ends and reads its tail, `None` if it holds nothing that may be seen; `held` counts the bytes of
    /// all tails of the query.
    async fn open(platform: &dyn Platform, range: SegmentRange, held: &AtomicUsize) -> Result<Option<Self>, Problem> {
        let info = platform.describe(range).await?;
        if info.transactional || info.start >= info.end {
            return Ok(None);
        }
        let mut tail = Vec::new();
        let mut at = info.tail_from.max(info.start);
        if at < info.end {
            let mut rows = platform.follow(range, at);
            while at < info.end {
                let Ok(Some(batch)) = timeout(TAIL_WAIT, rows.next()).await else {
                    let missing = format!("segment {} does not give offset {at} in time; try again", range.segment);
                    return Err(Problem::unavailable("TailUnreadable", missing));
                };
                let batch = batch?;
                let bytes = rows_bytes(&batch);
                if held.fetch_add(bytes, Ordering::Relaxed) + bytes > TAILS_BYTES_MAX {
                    let message = "too many events are not in chunks yet; try again in a moment";
                    return Err(Problem::throttled("TailTooLarge", message));
                }
                at += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
                tail.extend(before(&batch, info.end));
            }
        }
        let chunks = info.chunks.into_iter().filter(|chunk| chunk.to > info.start).collect();
        Ok(Some(Self { segment: range.segment, start: info.start, chunks, tail }))
    }

    /// Its rows of a time, from its chunks and then from its tail.
    fn rows(&self, chunks: Chunks, range: TimeRange, columns: Option<Arc<Vec<String>>>) -> BatchStream {
        let wanted = self.chunks.iter().filter(|chunk| range.meets(chunk.time_min, chunk.time_max));
        let wanted: Vec<ChunkMeta> = wanted.cloned().collect();
        let (segment, start) = (self.segment, self.start);
        let read = move |chunk: ChunkMeta| {
            let (chunks, columns) = (chunks.clone(), columns.clone());
            async move {
                let names = columns.as_ref().map(|names| names.as_slice());
                chunks.read(segment, &chunk, start.max(chunk.from), names).await
            }
        };
        let tail = stream::iter(self.tail.clone().into_iter().map(Ok));
        stream::iter(wanted)
            .map(read)
            .buffered(CHUNKS_AHEAD)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .chain(tail)
            .boxed()
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
        self.segments.len().clamp(1, PARTITIONS_MAX)
    }

    fn scan(&self, partition: usize, request: &ScanRequest) -> BatchStream {
        let of_partition = self.segments.iter().skip(partition).step_by(self.partitions());
        let segments: Vec<Arc<Segment>> = of_partition.cloned().collect();
        let (range, columns) = (request.time_range, request.columns.clone().map(Arc::new));
        let chunks = self.chunks.clone();
        let rows = move |segment: Arc<Segment>| segment.rows(chunks.clone(), range, columns.clone());
        stream::iter(segments).flat_map(rows).boxed()
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
