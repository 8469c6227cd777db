//! Batches to a chunk.

use std::collections::HashSet;

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampNanosecondType},
};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use types::{Offset, SegmentId, Timestamp};

use crate::{ChunkInfo, Counters, Error, Origin, VERSION, info::plain, seal};

/// Rows of one row group: what a reader decodes or skips as one.
pub const ROW_GROUP_ROWS: usize = 65_536;

/// Values looked at to tell whether a column repeats itself.
const SAMPLE_VALUES: usize = 4_096;

/// One written chunk.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The file.
    pub bytes: Bytes,
    /// Its summary, as [`info`](crate::info()) reads it back.
    pub meta: ChunkInfo,
}

/// Writes consecutive events of one segment as one chunk; equal input gives equal bytes.
///
/// Shape: rows stay in offset order; batches of one schema with at least `_time` (`Timestamp(Nanosecond)`), `severity`
/// (`Utf8`), `_segment` (`Utf8`) and `_offset` (`Int64`); empty batches are left out, the schema's metadata is dropped.
/// Errors: `Empty`, `Column`, `Schema`, `Segment`, `Gap` for batches that are not that; nothing is written then.
pub fn write(segment: SegmentId, first: Offset, batches: &[RecordBatch]) -> Result<Encoded, Error> {
    write_of(segment, None, first, batches)
}

/// As [`write()`]; the footer says besides where the segment belongs, so that its stream can be rebuilt from chunks alone.
pub fn write_of(
    segment: SegmentId,
    origin: Option<&Origin>,
    first: Offset,
    batches: &[RecordBatch],
) -> Result<Encoded, Error> {
    let meta = ChunkInfo { origin: origin.cloned(), ..summarise(segment, first, batches)? };
    let properties = properties(&meta.schema, batches, &meta)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), meta.schema.clone(), Some(properties))?;
    writer.write_all(&seal::blank()).map_err(|error| Error::Parquet(error.into()))?;
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        let plain = RecordBatch::try_new(meta.schema.clone(), batch.columns().to_vec())?;
        writer.write(&plain)?;
    }
    let mut file = writer.into_inner()?;
    seal::close(&mut file);
    Ok(Encoded { bytes: file.into(), meta })
}

/// Checks every row against the contract and gathers the summary.
fn summarise(segment: SegmentId, first: Offset, batches: &[RecordBatch]) -> Result<ChunkInfo, Error> {
    let name = segment.to_string();
    let mut schema = None;
    let mut counters = Counters::default();
    let (mut time_min, mut time_max) = (Timestamp::MAX, Timestamp::MIN);
    let mut next = first;
    for (number, batch) in batches.iter().enumerate().filter(|(_, batch)| batch.num_rows() > 0) {
        let own = plain(batch.schema_ref());
        match &schema {
            None => schema = Some(own),
            Some(known) if *known == own => {}
            Some(_) => return Err(Error::Schema { batch: number }),
        }
        let columns = Required::of(batch, number)?;
        for row in 0..batch.num_rows() {
            let offset = columns.offset.value(row);
            if Offset::try_from(offset) != Ok(next) {
                return Err(Error::Gap { expected: next, found: offset });
            }
            if columns.segment.value(row) != name {
                let found = columns.segment.value(row).to_owned();
                return Err(Error::Segment { offset: next, found, expected: segment });
            }
            next += 1;
            let time = Timestamp::from_nanos(columns.time.value(row));
            (time_min, time_max) = (time_min.min(time), time_max.max(time));
            let severity = columns.severity.is_valid(row).then(|| columns.severity.value(row));
            counters.add(time, severity.and_then(|word| word.parse().ok()));
        }
    }
    let schema = schema.ok_or(Error::Empty)?;
    let rows = next - first;
    let last = next - 1;
    let origin = None;
    Ok(ChunkInfo { version: VERSION, segment, first, last, rows, time_min, time_max, schema, counters, origin })
}

/// The columns that every chunk has.
struct Required<'a> {
    time: &'a TimestampNanosecondArray,
    severity: &'a StringArray,
    segment: &'a StringArray,
    offset: &'a Int64Array,
}

impl<'a> Required<'a> {
    fn of(batch: &'a RecordBatch, number: usize) -> Result<Self, Error> {
        let fault = |column, expected| Error::Column { batch: number, column, expected };
        let column = |name| batch.column_by_name(name);
        let full = |name| column(name).filter(|array| array.null_count() == 0);
        let time = full("_time").and_then(|array| array.as_primitive_opt::<TimestampNanosecondType>());
        let offset = full("_offset").and_then(|array| array.as_primitive_opt::<Int64Type>());
        Ok(Self {
            time: time.ok_or_else(|| fault("_time", "Timestamp(Nanosecond)"))?,
            // The one of them that may be null.
            severity: column("severity")
                .and_then(|array| array.as_string_opt())
                .ok_or_else(|| fault("severity", "Utf8, or null,"))?,
            segment: full("_segment")
                .and_then(|array| array.as_string_opt())
                .ok_or_else(|| fault("_segment", "Utf8"))?,
            offset: offset.ok_or_else(|| fault("_offset", "Int64"))?,
        })
    }
}

/// zstd 1 throughout: higher levels gain little on typed columns and cost a third of the speed.
fn properties(schema: &Schema, batches: &[RecordBatch], meta: &ChunkInfo) -> Result<WriterProperties, Error> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_key_value_metadata(Some(meta.pairs()?));
    for (place, field) in schema.fields().iter().enumerate() {
        let path = ColumnPath::new(vec![field.name().clone()]);
        let dictionary = repeats(field, place, batches);
        builder = builder.set_column_dictionary_enabled(path.clone(), dictionary);
        let whole = matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _));
        if whole && !dictionary {
            builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        if field.name() == "_offset"
            && let Ok(column_idx) = i32::try_from(place)
        {
            let sorted = SortingColumn { column_idx, descending: false, nulls_first: false };
            builder = builder.set_sorting_columns(Some(vec![sorted]));
        }
    }
    Ok(builder.build())
}

/// Whether a dictionary pays: in a sample spread over the batches a value occurs four times on average.
fn repeats(field: &Field, place: usize, batches: &[RecordBatch]) -> bool {
    let per_batch = SAMPLE_VALUES.div_ceil(batches.len().max(1));
    let mut seen = 0usize;
    match field.data_type() {
        DataType::Utf8 => {
            let mut distinct = HashSet::new();
            for values in batches.iter().filter_map(|batch| batch.column(place).as_string_opt::<i32>()) {
                let sample = values.iter().step_by((values.len() / per_batch).max(1)).flatten();
                distinct.extend(sample.inspect(|_| seen += 1));
            }
            distinct.len() * 4 <= seen
        }
        DataType::Int64 => {
            let mut distinct = HashSet::new();
            for values in batches.iter().filter_map(|batch| batch.column(place).as_primitive_opt::<Int64Type>()) {
                let sample = values.iter().step_by((values.len() / per_batch).max(1)).flatten();
                distinct.extend(sample.inspect(|_| seen += 1));
            }
            distinct.len() * 4 <= seen
        }
        _ => false,
    }
}
