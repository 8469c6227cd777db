//! Chunks made anew: a part of one, one of a segment with another number, and one for events that are lost. CPU only.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use bytes::Bytes;
use chunk::{ChunkInfo, Encoded, Origin};
use ingest::{BATCH_ROWS_MAX, RawEvent, to_batch};
use types::{Offset, SegmentId, Timestamp};

/// What stands in the place of an event that is lost.
const LOST: &[u8] = b"{\"msg\":\"lost: no chunk held this event when the index was restored\",\"lost\":true}";

/// Events that one chunk of lost ones stands for.
pub(super) const LOST_ROWS_MAX: u64 = 1 << 19;

/// A chunk of some other one's events.
pub(super) struct Recast {
    pub(super) bytes: Bytes,
    pub(super) time_min: Timestamp,
    pub(super) time_max: Timestamp,
}

impl Recast {
    fn of(Encoded { bytes, meta }: Encoded) -> Self {
        Self { bytes, time_min: meta.time_min, time_max: meta.time_max }
    }
}

/// The events `from .. to` of a chunk as those of a segment; the same bytes where that is what the chunk is.
pub(super) fn recast(
    bytes: Bytes,
    info: &ChunkInfo,
    segment: SegmentId,
    origin: Option<&Origin>,
    (from, to): (Offset, Offset),
) -> anyhow::Result<Recast> {
    let whole = (info.first, info.last + 1) == (from, to);
    let part = chunk::part(bytes, info, (from, to))?;
    if info.segment == segment && (whole || origin.is_none()) {
        return Ok(Recast::of(part));
    }
    let batches = chunk::read(part.bytes)?;
    let batches: Vec<RecordBatch> = batches.iter().map(|batch| renamed(batch, segment)).collect::<Result<_, _>>()?;
    Ok(Recast::of(chunk::write_of(segment, origin.or(info.origin.as_ref()), from, &batches)?))
}

fn renamed(batch: &RecordBatch, segment: SegmentId) -> anyhow::Result<RecordBatch> {
    let place = batch.schema_ref().index_of("_segment").context("a chunk has a column _segment")?;
    let name = segment.to_string();
    let names: ArrayRef = Arc::new(StringArray::from(vec![name.as_str(); batch.num_rows()]));
    let mut columns = batch.columns().to_vec();
    columns[place] = names;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// A chunk of events that say that they are lost, at the time of their neighbours.
///
/// Bounds: at most [`LOST_ROWS_MAX`] events.
pub(super) fn lost(
    segment: SegmentId,
    origin: Option<&Origin>,
    (from, to): (Offset, Offset),
    at: Timestamp,
) -> anyhow::Result<Recast> {
    let mut batches = Vec::new();
    let mut next = from;
    while next < to {
        let rows = usize::try_from(to - next)?.min(BATCH_ROWS_MAX);
        let event = RawEvent { payload: LOST, received: at };
        let batch = to_batch(segment, next, std::iter::repeat_n(event, rows));
        next += u64::try_from(batch.num_rows())?;
        batches.push(batch);
    }
    Ok(Recast::of(chunk::write_of(segment, origin, from, &batches)?))
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, datatypes::Int64Type};
    use types::KeyRange;

    use super::*;

    const SEGMENT: SegmentId = SegmentId { stream: 3, epoch: 1, number: 2 };

    fn origin() -> Origin {
        let range = KeyRange::split_evenly(2)[1];
        Origin { index: "shop".parse().unwrap(), scope: "team".parse().unwrap(), range }
    }

    fn some(from: Offset, count: usize) -> Encoded {
        let texts: Vec<String> = (0..count).map(|n| format!("{{\"msg\":\"e {n}\",\"n\":{n}}}")).collect();
        let events = texts.iter().map(|text| RawEvent { payload: text.as_bytes(), received: Timestamp::from_nanos(7) });
        chunk::write_of(SEGMENT, Some(&origin()), from, &[to_batch(SEGMENT, from, events)]).unwrap()
    }

    fn numbers(bytes: &Bytes) -> Vec<(i64, i64)> {
        let batches = chunk::read(bytes.clone()).unwrap();
        let of = |batch: &RecordBatch, name: &str| batch[name].as_primitive::<Int64Type>().values().to_vec();
        batches.iter().flat_map(|b| of(b, "_offset").into_iter().zip(of(b, "n")).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn a_part_keeps_its_offsets_and_the_whole_its_bytes() {
        let Encoded { bytes, meta } = some(100, 10);
        let same = recast(bytes.clone(), &meta, SEGMENT, None, (100, 110)).unwrap();
        assert_eq!(same.bytes, bytes);
        let part = recast(bytes.clone(), &meta, SEGMENT, None, (103, 106)).unwrap();
        assert_eq!(numbers(&part.bytes), [(103, 3), (104, 4), (105, 5)]);
        let info = chunk::info(&part.bytes).unwrap();
        assert_eq!((info.first, info.last, info.origin), (103, 105, Some(origin())));
        let other = SegmentId { stream: 9, ..SEGMENT };
        let renumbered = recast(bytes, &meta, other, None, (100, 110)).unwrap();
        assert_eq!(chunk::info(&renumbered.bytes).unwrap().segment, other);
        assert_eq!(numbers(&renumbered.bytes).len(), 10);
    }

    #[test]
    fn what_is_lost_says_so_in_its_place() {
        let made = lost(SEGMENT, Some(&origin()), (5, 25_000), Timestamp::from_nanos(77)).unwrap();
        let info = chunk::info(&made.bytes).unwrap();
        assert_eq!((info.first, info.last, made.time_min), (5, 24_999, Timestamp::from_nanos(77)));
        let batches = chunk::read(made.bytes).unwrap();
        assert!(batches.iter().all(|batch| batch["lost"].as_boolean().iter().all(|lost| lost == Some(true))));
        assert!(batches[0]["_msg"].as_string::<i32>().value(0).starts_with("lost:"));
    }
}
