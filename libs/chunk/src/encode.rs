//! Batches to a chunk.

use std::{collections::HashSet, hash::Hash, ops::Range};

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampNanosecondType},
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use types::{Offset, SegmentId, Timestamp};

use crate::{
    ChunkInfo, Counters, Error, Origin, REGION_BYTES_MAX, VERSION,
    counters::Tally,
    digest,
    ids::Forms,
    info::{self, plain},
    layout,
    order::Order,
    region::{self, Column, Facts, Group, Region},
    seal,
};

/// Rows of one row group: what a reader decodes or skips as one.
pub const ROW_GROUP_ROWS: usize = 65_536;

/// Rows from which a chunk is the work of several merges and stays: its texts are worth a third of the writing more.
pub const THOROUGH_ROWS: u64 = 2 * ROW_GROUP_ROWS as u64;

/// zstd for them.
const THOROUGH_LEVEL: i32 = 8;

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
/// Shape: rows come in offset order; batches of one schema with at least `_time` (`Timestamp(Nanosecond)`), `severity`
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
    let mut meta = ChunkInfo { origin: origin.cloned(), ..summarise(segment, first, batches)? };
    let rows: Vec<&RecordBatch> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
    let order = Order::choose(&rows);
    meta.order = order.as_ref().map(|order| order.key.clone());
    let (laid, forms) = layout::lay(&meta.schema, &rows)?;
    meta.forms = forms;
    let Some(stored) = laid.first().map(RecordBatch::schema) else { return Err(Error::Empty) };
    // Parquet's own types say all of ours; Arrow's copy of the schema would say it again.
    let options = ArrowWriterOptions::new().with_properties(properties(&meta, &rows)?).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), stored, options)?;
    writer.write_all(&seal::blank()).map_err(|error| Error::Parquet(error.into()))?;
    let mut groups = Vec::new();
    let mut left = REGION_BYTES_MAX;
    let laid: Vec<&RecordBatch> = laid.iter().collect();
    let count = laid.iter().map(|batch| batch.num_rows()).sum();
    for from in (0..count).step_by(ROW_GROUP_ROWS) {
        let pieces = match &order {
            Some(order) => vec![order.rows(&laid, from, ROW_GROUP_ROWS)?],
            None => slices(&laid, from, ROW_GROUP_ROWS),
        };
        groups.push(digest(&pieces, &mut left));
        for piece in &pieces {
            writer.write(piece)?;
        }
        writer.flush()?;
    }
    let (file, place) = close(writer, groups, &meta.counters)?;
    Ok(Encoded { bytes: sealed(file, place), meta })
}

/// Adds region and footer.
fn close(
    mut writer: ArrowWriter<Vec<u8>>,
    mut groups: Vec<Group>,
    counters: &Counters,
) -> Result<(Vec<u8>, Range<usize>), Error> {
    let failed = |error: std::io::Error| Error::Parquet(error.into());
    writer.sync().map_err(failed)?;
    for (group, written) in groups.iter_mut().zip(writer.flushed_row_groups()) {
        for (column, written) in group.columns.iter_mut().zip(written.columns()) {
            let (start, length) = written.byte_range();
            let range = usize::try_from(start).ok().zip(usize::try_from(start + length).ok());
            column.checksum = range.and_then(|(start, end)| writer.inner().get(start..end)).map_or(0, crc32c::crc32c);
        }
    }
    let region = Region { groups, counters: counters.clone() }.write();
    let place = writer.bytes_written()..writer.bytes_written() + region.len();
    writer.write_all(&region).map_err(failed)?;
    writer.append_key_value_metadata(info::region_pair(&place));
    Ok((writer.into_inner()?, place))
}

/// Fills in what only a complete file knows.
fn sealed(mut file: Vec<u8>, region: Range<usize>) -> Bytes {
    region::close(&mut file, region);
    seal::close(&mut file);
    file.into()
}

/// So many rows from the given one on, as they come.
fn slices(batches: &[&RecordBatch], from: usize, rows: usize) -> Vec<RecordBatch> {
    let (mut skipped, mut left) = (from, rows);
    let mut out = Vec::new();
    for batch in batches {
        let start = skipped.min(batch.num_rows());
        let length = left.min(batch.num_rows() - start);
        skipped -= start;
        left -= length;
        if length > 0 {
            out.push(batch.slice(start, length));
        }
    }
    out
}

fn digest(pieces: &[RecordBatch], left: &mut usize) -> Group {
    let columns = (0..pieces.first().map_or(0, RecordBatch::num_columns)).map(|place| {
        let (nulls, mut facts) = digest::facts(pieces, place);
        if facts.bytes() > *left {
            facts = Facts::Nothing;
        }
        *left = left.saturating_sub(facts.bytes());
        Column { checksum: 0, nulls, facts }
    });
    let columns = columns.collect();
    Group { rows: pieces.iter().map(|piece| piece.num_rows() as u64).sum(), columns }
}

/// Checks every row against the contract and gathers the summary.
fn summarise(segment: SegmentId, first: Offset, batches: &[RecordBatch]) -> Result<ChunkInfo, Error> {
    let name = segment.to_string();
    let mut schema = None;
    let mut tally = Tally::default();
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
        let mut known = (None, None);
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
            let word = columns.severity.is_valid(row).then(|| columns.severity.value(row));
            if known.0 != word {
                known = (word, word.and_then(|word| word.parse().ok()));
            }
            tally.add(time, known.1);
        }
    }
    let schema = schema.ok_or(Error::Empty)?;
    let rows = next - first;
    let last = next - 1;
    Ok(ChunkInfo {
        version: VERSION,
        segment,
        first,
        last,
        rows,
        time_min,
        time_max,
        schema,
        counters: tally.finish(),
        origin: None,
        order: None,
        forms: Forms::new(),
    })
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

/// zstd 1 where higher levels gain little: on typed columns, and on chunks that will be merged anyway.
fn properties(meta: &ChunkInfo, rows: &[&RecordBatch]) -> Result<WriterProperties, Error> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(sorting(meta))
        .set_key_value_metadata(Some(meta.pairs()?));
    for (place, field) in meta.schema.fields().iter().enumerate() {
        let path = ColumnPath::new(vec![field.name().clone()]);
        let is_id = meta.forms.contains_key(field.name());
        // An id comes again in the rows beside it, where compression finds it, and seldom elsewhere.
        let dictionary = !is_id && repeats(field, place, rows);
        builder = builder.set_column_dictionary_enabled(path.clone(), dictionary);
        if is_id || (*field.data_type() == DataType::Utf8 && !dictionary) {
            // The least and the greatest of all kinds of texts leave out nothing.
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
        let whole = matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _));
        if whole && !dictionary {
            builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        } else if *field.data_type() == DataType::Utf8 && !dictionary && !is_id && meta.rows >= THOROUGH_ROWS {
            builder = builder.set_column_compression(path, Compression::ZSTD(ZstdLevel::try_new(THOROUGH_LEVEL)?));
        }
    }
    Ok(builder.build())
}

/// The order of rows as Parquet's readers are told of it.
fn sorting(meta: &ChunkInfo) -> Option<Vec<SortingColumn>> {
    let names = meta.order.as_deref().into_iter().chain(meta.order.as_ref().map(|_| "_time")).chain(["_offset"]);
    let columns = names.map(|name| {
        let column_idx = i32::try_from(meta.schema.index_of(name).ok()?).ok()?;
        Some(SortingColumn { column_idx, descending: false, nulls_first: true })
    });
    columns.collect()
}

/// Whether a dictionary pays: in a sample spread over the batches a value occurs four times on average.
fn repeats(field: &Field, place: usize, batches: &[&RecordBatch]) -> bool {
    let per_batch = SAMPLE_VALUES.div_ceil(batches.len().max(1));
    let columns = batches.iter().map(|batch| batch.column(place));
    match field.data_type() {
        DataType::Utf8 => {
            repeated(columns.filter_map(|c| c.as_string_opt::<i32>()).map(|c| (c.len(), c.iter())), per_batch)
        }
        DataType::Int64 => {
            repeated(columns.filter_map(|c| c.as_primitive_opt::<Int64Type>()).map(|c| (c.len(), c.iter())), per_batch)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => repeated(
            columns.filter_map(|c| c.as_primitive_opt::<TimestampNanosecondType>()).map(|c| (c.len(), c.iter())),
            per_batch,
        ),
        _ => false,
    }
}

fn repeated<V: Eq + Hash>(
    columns: impl Iterator<Item = (usize, impl Iterator<Item = Option<V>>)>,
    per_batch: usize,
) -> bool {
    let (mut seen, mut distinct) = (0usize, HashSet::new());
    for (length, values) in columns {
        let sample = values.step_by((length / per_batch).max(1)).flatten();
        distinct.extend(sample.inspect(|_| seen += 1));
    }
    distinct.len() * 4 <= seen
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    #[test]
    fn facts_above_the_limit_of_the_region_are_left_out() {
        let rows = RecordBatch::try_from_iter([
            ("_time", Arc::new(TimestampNanosecondArray::from(vec![1, 2])) as ArrayRef),
            ("severity", Arc::new(StringArray::from(vec!["info", "a severity that takes some room"]))),
            ("_segment", Arc::new(StringArray::from(vec!["1-0-0", "1-0-0"]))),
            ("_offset", Arc::new(Int64Array::from(vec![0, 1]))),
        ]);
        let pieces = [rows.unwrap()];
        for (room, known) in [(1 << 20, 4), (50, 3), (17, 1), (0, 0)] {
            let mut left = room;
            let group = digest(&pieces, &mut left);
            let count = group.columns.iter().filter(|column| column.facts != Facts::Nothing).count();
            assert_eq!((count, group.rows), (known, 2), "room for {room} bytes");
            assert!(left <= room);
        }
    }
}
