//! An index as a table: the chunks of all its segments and their tails, cut at one instant.
//!
//! Consistency: the segments are listed first, those of former epochs included; then the start and the end of each are
//! noted. An event is in one segment for ever, so it is seen at most once. A segment is listed only when those that it
//! follows are sealed, and their ends are noted later: so of the events of a key a query sees everything from the first
//! that is not truncated up to one of those that were the last while it was planned, and every event that was
//! acknowledged before it began. What is appended, merged or scaled after that is not seen.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::Int64Type,
};
use engine::{ChunkPiece, Piece, TableSource};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use types::{IndexName, Offset};
use wire::{
    Problem,
    coordinator::{SegmentNode, SegmentRange},
    segment_store::SegmentInfo,
};

use crate::platform::{Platform, all_segments};

/// Segments that are described and whose tails are read at once.
const SEGMENTS_AT_ONCE: usize = 16;
/// How long the tail may let wait for an event that is known to be there: the take-over of a container.
const TAIL_WAIT: Duration = Duration::from_secs(15);
/// What the tails of one query may hold in memory, twice what a store keeps before it throttles writers.
const TAILS_BYTES_MAX: usize = 512 << 20;

/// One index at one instant.
#[derive(Debug)]
pub(crate) struct IndexTable(Vec<Piece>);

impl IndexTable {
    /// Notes the starts and ends of all segments and reads what is not in chunks yet.
    ///
    /// Bounds: `SEGMENTS_MAX`, then BadRequest `TooManySegments`; 512 MiB of tails, then Throttled `TailTooLarge`.
    /// Errors: NotFound `UnknownIndex`; `UnknownSegment` and `Truncated` when something was truncated meanwhile.
    pub(crate) async fn open(platform: &dyn Platform, index: &IndexName) -> Result<Self, Problem> {
        Self::read(platform, &noted(platform, index).await?, &AtomicUsize::new(0)).await
    }

    /// Reads what is not in chunks yet of segments whose ends are noted; `held` counts the bytes of all tails of the query.
    ///
    /// Bounds, errors: as [`Self::open`].
    pub(crate) async fn read(platform: &dyn Platform, segments: &[Noted], held: &AtomicUsize) -> Result<Self, Problem> {
        let open = |segment: Noted| pieces(platform, segment, held);
        let segments = stream::iter(segments.to_vec()).map(open).buffered(SEGMENTS_AT_ONCE);
        let pieces: Vec<Vec<Piece>> = segments.try_collect().await?;
        Ok(Self(pieces.into_iter().flatten().collect()))
    }
}

/// A segment that has rows, and where they begin and end.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    pub(crate) range: SegmentRange,
    pub(crate) info: SegmentInfo,
}

impl Noted {
    /// The bytes that a query of all its rows reads, about: of chunks as they lie there, and of the tail.
    pub(crate) fn bytes(&self) -> u64 {
        let chunks = self.info.chunks.iter().filter(|chunk| chunk.to > self.info.start);
        chunks.map(|chunk| chunk.bytes).sum::<u64>().saturating_add(self.tail_bytes())
    }

    /// The bytes of the tail as it was sent, about.
    pub(crate) fn tail_bytes(&self) -> u64 {
        let SegmentInfo { start, tail_from, end, bytes, .. } = self.info;
        let events = u128::from(end.saturating_sub(tail_from.max(start)));
        u64::try_from(events * u128::from(bytes) / u128::from(end.max(1))).unwrap_or(u64::MAX)
    }
}

/// Notes the starts and ends of all segments of an index that have rows. Bounds, errors: as [`IndexTable::open`].
pub(crate) async fn noted(platform: &dyn Platform, index: &IndexName) -> Result<Vec<Noted>, Problem> {
    let note = |node: SegmentNode| async move {
        let range = node.segment_range();
        platform.describe(range).await.map(|info| Noted { range, info })
    };
    let nodes = stream::iter(all_segments(platform, index).await?);
    let all: Vec<Noted> = nodes.map(note).buffered(SEGMENTS_AT_ONCE).try_collect().await?;
    Ok(all.into_iter().filter(|noted| !noted.info.transactional && noted.info.start < noted.info.end).collect())
}

impl TableSource for IndexTable {
    fn pieces(&self) -> Vec<Piece> {
        self.0.clone()
    }
}

/// Reads one segment's tail; `held` counts the bytes of all tails of the query.
async fn pieces(platform: &dyn Platform, noted: Noted, held: &AtomicUsize) -> Result<Vec<Piece>, Problem> {
    let Noted { range, info } = noted;
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
    let chunks = info.chunks.into_iter().filter(|chunk| chunk.to > info.start).map(|chunk| {
        let from = info.start.max(chunk.from);
        Piece::Chunk(ChunkPiece { chunks: platform.chunks().clone(), segment: range.segment, chunk, from })
    });
    Ok(chunks.chain(tail.into_iter().map(Piece::Rows)).collect())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
