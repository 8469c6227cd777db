//! A chunk back to batches.

use std::ops::Range;

use arrow::array::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use types::{Offset, SegmentId};

use crate::{
    ChunkInfo, Error,
    info::{open, plain},
};

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
    let (info, footer) = open(&bytes)?;
    wanted.map_or(Ok(()), |wanted| check(&info, from, wanted))?;
    if from > info.last {
        return Ok(Vec::new());
    }
    let skipped = usize::try_from(from.saturating_sub(info.first)).unwrap_or(usize::MAX);
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer)
        .with_batch_size(READ_BATCH_ROWS)
        .with_offset(skipped);
    if let Some(rows_max) = rows_max {
        builder = builder.with_limit(rows_max);
    }
    if let Some(names) = projection {
        let wanted = |place: &usize| names.contains(info.schema.field(*place).name());
        let mask = ProjectionMask::roots(builder.parquet_schema(), (0..info.schema.fields().len()).filter(wanted));
        builder = builder.with_projection(mask);
    }
    let reader = builder.build()?;
    reader
        .map(|batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let schema = plain(batch.schema_ref());
            Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
        })
        .collect()
}
