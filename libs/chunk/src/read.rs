//! A chunk back to batches.

use std::ops::Range;

use arrow::array::RecordBatch;
use bytes::Bytes;
use types::{Offset, SegmentId};

use crate::{ChunkInfo, Comparison, Error, Predicate, Read, Scalar, Tail, info::open, layout::show, order::restore};

const OFFSET: &str = "_offset";

/// The most rows of one batch read back.
pub const READ_BATCH_ROWS: usize = 8_192;

/// Reads all rows of a chunk, in offset order.
///
/// Bounds: batches of at most [`READ_BATCH_ROWS`]. Errors: as [`info`](crate::info()), and `Parquet`.
pub fn read(bytes: Bytes) -> Result<Vec<RecordBatch>, Error> {
    read_range(bytes, 0, None)
}

/// Reads the rows from the given offset on; of them only the named columns, in the order of the chunk.
///
/// Names that the chunk does not have are skipped: columns are inferred, so another chunk may have them. An offset
/// past the chunk gives no batch; one before it all rows. Bounds, errors: as [`read`].
pub fn read_range(bytes: Bytes, from: Offset, projection: Option<&[String]>) -> Result<Vec<RecordBatch>, Error> {
    decode(bytes, from, None, None, projection)
}

/// The same of a chunk that somebody named as the one that holds a run of a segment's events to the end of the run.
///
/// Errors: besides, `Segment` and `Gap` for a chunk of another segment or of other offsets.
pub fn read_run(
    bytes: Bytes,
    segment: SegmentId,
    run: Range<Offset>,
    projection: Option<&[String]>,
) -> Result<Vec<RecordBatch>, Error> {
    decode(bytes, run.start, Some((segment, run.end)), None, projection)
}

/// Reads at most so many rows of such a run, from its beginning on. Bounds, errors: as [`read_run`].
pub fn read_rows(
    bytes: Bytes,
    segment: SegmentId,
    run: Range<Offset>,
    rows_max: usize,
) -> Result<Vec<RecordBatch>, Error> {
    decode(bytes, run.start, Some((segment, run.end)), Some(rows_max), None)
}

/// Whether this is the chunk of a run that it was named for.
fn check(info: &ChunkInfo, from: Offset, (segment, to): (SegmentId, Offset)) -> Result<(), Error> {
    if info.segment != segment {
        return Err(Error::Segment { offset: info.first, found: info.segment.to_string(), expected: segment });
    }
    let other = |expected, found: Offset| Error::Gap { expected, found: i64::try_from(found).unwrap_or(i64::MAX) };
    match info.last + 1 {
        _ if from < info.first => Err(other(from, info.first)),
        end if end != to => Err(other(to, end)),
        _ => Ok(()),
    }
}

fn decode(
    bytes: Bytes,
    from: Offset,
    wanted: Option<(SegmentId, Offset)>,
    rows_max: Option<usize>,
    projection: Option<&[String]>,
) -> Result<Vec<RecordBatch>, Error> {
    let tail = open(&bytes)?;
    let info = tail.info();
    wanted.map_or(Ok(()), |wanted| check(info, from, wanted))?;
    if from > info.last {
        return Ok(Vec::new());
    }
    let from = from.max(info.first);
    if !tail.is_ordered() {
        return put_back(&tail, bytes, from, rows_max, projection);
    }
    let skipped = usize::try_from(from - info.first).unwrap_or(usize::MAX);
    let mut builder = tail.builder(bytes, projection).with_offset(skipped);
    if let Some(rows_max) = rows_max {
        builder = builder.with_limit(rows_max);
    }
    builder.build()?.map(|batch| Ok(show(&batch?, &info.forms)?)).collect()
}

/// Rows of a chunk that lie in another order, in the order of offsets.
fn put_back(
    tail: &Tail,
    bytes: Bytes,
    from: Offset,
    rows_max: Option<usize>,
    projection: Option<&[String]>,
) -> Result<Vec<RecordBatch>, Error> {
    let end = tail.info().last.saturating_add(1);
    let to = rows_max.map_or(end, |rows| end.min(from.saturating_add(rows as u64)));
    let mut names = projection.map(<[String]>::to_vec);
    let added = names.as_mut().filter(|names| names.iter().all(|name| name != OFFSET));
    let is_added = added.map(|names| names.push(OFFSET.to_owned())).is_some();
    let groups: Vec<usize> = (0..tail.row_groups()).filter(|group| meets(tail, *group, from..to)).collect();
    let what = Read { groups: &groups, run: from..to, rows: None, columns: names.as_deref(), filters: Vec::new() };
    let rows = restore(&tail.decode(bytes, what)?, from, to)?;
    if !is_added {
        return Ok(rows);
    }
    let without = |batch: RecordBatch| {
        let others = (0..batch.num_columns()).filter(|place| batch.schema_ref().field(*place).name() != OFFSET);
        Ok(batch.project(&others.collect::<Vec<_>>())?)
    };
    rows.into_iter().map(without).collect()
}

/// Whether a row group can have one of the offsets.
fn meets(tail: &Tail, group: usize, run: Range<Offset>) -> bool {
    let bound = |op, offset| {
        let value = Scalar::Int(i64::try_from(offset).unwrap_or(i64::MAX));
        Predicate::Compare { column: OFFSET.to_owned(), op, value }
    };
    let both = vec![bound(Comparison::GreaterOrEqual, run.start), bound(Comparison::Less, run.end)];
    tail.may_match(group, &Predicate::All(both))
}
