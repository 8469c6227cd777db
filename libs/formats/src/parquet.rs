//! Parquet: row groups of the columns that are asked for, and a writer.
//!
//! The footer says where each column of each row group lies, and only those bytes are asked for. A position is the number of a row, and a
//! reader that begins behind the front reads no row group before it. Values become what the layout says: whole numbers of any width,
//! instants of any unit, texts in any encoding. A value that does not fit, such as a whole number above 63 bits, makes its row corrupt; a
//! column of a kind that never fits is refused when the file is opened.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray},
    buffer::ScalarBuffer,
    compute::{CastOptions, cast_with_options, filter},
    datatypes::{DataType, Int64Type, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    file::{properties::WriterProperties, reader::ChunkReader},
};

use crate::{Error, Fault, FaultKind, Kind, Layout, Rows, Unit, instant::Day};

/// The longest footer that is read: it is held in memory while the file is open.
pub const FOOTER_BYTES_MAX: u64 = 64 << 20;
/// The length of a footer and the sign behind it, which end every file.
const TAIL_BYTES: u64 = 8;
/// A row group is written at so many rows or bytes, whichever comes first.
const GROUP_ROWS: usize = 1 << 20;
const GROUP_BYTES: usize = 64 << 20;

/// Reads the rows of one file.
///
/// Bounds: besides the footer, one page of each column and one batch are in memory.
pub struct Parquet {
    name_of: Vec<String>,
    layout: Layout,
    batches: ParquetRecordBatchReader,
    /// For each column of the layout its place in a batch.
    places: Vec<usize>,
    next: u64,
}

impl std::fmt::Debug for Parquet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parquet").field("columns", &self.name_of).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Parquet {
    /// A reader of what `input` holds, from that row on, which gives up to `rows_max` rows at once.
    ///
    /// Errors: `Parquet` if it is none or ends before that row; `Schema` if a column is missing or cannot become what the layout says.
    pub fn open<R: ChunkReader + 'static>(input: R, layout: Layout, from: u64, rows_max: usize) -> Result<Self, Error> {
        footer(&input)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(input)?;
        let schema = Arc::clone(builder.schema());
        let mut roots = Vec::with_capacity(layout.columns.len());
        for column in &layout.columns {
            let at = schema.index_of(&column.name).map_err(|_| {
                let names: Vec<&str> = schema.fields().iter().take(100).map(|field| field.name().as_str()).collect();
                Error::Schema(format!("{:?} is not among the columns {}", column.name, names.join(", ")))
            })?;
            let found = schema.field(at).data_type();
            if !fits(found, column.kind) {
                let problem = format!("{:?} is of type {found}, which never is {}", column.name, column.kind.word());
                return Err(Error::Schema(problem));
            }
            roots.push(at);
        }
        let (groups, skipped) = groups(builder.metadata().row_groups().iter().map(|group| group.num_rows()), from)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
        let batches = builder
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(skipped)
            .with_batch_size(rows_max.max(1))
            .build()?;
        // A batch has the columns in the order of the file.
        let places = roots.iter().map(|root| roots.iter().filter(|other| *other < root).count()).collect();
        let name_of = layout.columns.iter().map(|column| column.name.clone()).collect();
        Ok(Self { name_of, layout, batches, places, next: from })
    }

    /// The row behind those that were given out.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next rows; nothing at the end. Offsets are the numbers of rows.
    ///
    /// Errors: `Parquet` where the file is damaged.
    pub fn read(&mut self) -> Result<Option<Rows>, Error> {
        let Some(batch) = self.batches.next() else { return Ok(None) };
        let rows = self.rows(&batch?)?;
        Ok(Some(rows))
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<Rows, Error> {
        let first = self.next;
        self.next += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        let mut found = Vec::with_capacity(self.places.len());
        let mut faults: Vec<Option<Fault>> = vec![None; batch.num_rows()];
        for (column, place) in self.layout.columns.iter().zip(&self.places) {
            let from = batch.column(*place);
            let to = converted(from, column.kind, self.layout.unit)?;
            let timed = self.layout.timed && found.is_empty();
            if to.null_count() > if timed { 0 } else { from.null_count() } {
                for row in (0..to.len()).filter(|row| to.is_null(*row) && (timed || from.is_valid(*row))) {
                    let known = faults.get_mut(row).filter(|fault| fault.is_none());
                    if let Some(fault) = known {
                        *fault = Some(self.fault(batch, first, row, column.name.as_str(), from, timed, column.kind));
                    }
                }
            }
            found.push(to);
        }
        let columns = self.layout.sources().filter_map(|source| found.get(source).cloned()).collect();
        let number =
            |row: usize| i64::try_from(first).unwrap_or(i64::MAX).saturating_add(i64::try_from(row).unwrap_or(0));
        if faults.iter().all(Option::is_none) {
            // Only now the columns hold no null that the schema forbids.
            let offsets: ScalarBuffer<i64> = (0..batch.num_rows()).map(number).collect();
            let batch = RecordBatch::try_new(Arc::clone(self.layout.schema()), columns)?;
            return Ok(Rows { batch, offsets, faults: Vec::new() });
        }
        let good: BooleanArray = faults.iter().map(|fault| Some(fault.is_none())).collect();
        let offsets =
            faults.iter().enumerate().filter(|(_, fault)| fault.is_none()).map(|(row, _)| number(row)).collect();
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column: &ArrayRef| filter(column, &good)).collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(self.layout.schema()), columns)?;
        Ok(Rows { batch, offsets, faults: faults.into_iter().flatten().collect() })
    }

    #[allow(clippy::too_many_arguments, reason = "a value, and all that is said of it")]
    fn fault(
        &self,
        batch: &RecordBatch,
        first: u64,
        row: usize,
        name: &str,
        from: &ArrayRef,
        timed: bool,
        kind: Kind,
    ) -> Fault {
        let offset = first.saturating_add(u64::try_from(row).unwrap_or(u64::MAX));
        let problem = match from.is_null(row) {
            true => format!("{name:?} is missing or null"),
            false => format!("{name:?} is {}, not {}", shown(from, row), kind.word()),
        };
        let schema = batch.schema();
        let values = schema.fields().iter().zip(batch.columns());
        let values = values.map(|(field, column)| format!("{}={}", field.name(), shown(column, row)));
        let text = values.collect::<Vec<_>>().join(", ");
        let kind = if timed { FaultKind::Undated } else { FaultKind::Corrupt };
        Fault::new(offset, kind, problem, text.as_bytes())
    }
}

/// That the file ends as one, and has no footer that would fill the memory.
fn footer<R: ChunkReader>(input: &R) -> Result<(), Error> {
    let none = |problem: String| Error::Parquet(parquet::errors::ParquetError::General(problem));
    let length = input.len();
    if length < TAIL_BYTES {
        return Err(none(format!("it has {length} bytes, fewer than the end of any Parquet file")));
    }
    let tail = input.get_bytes(length - TAIL_BYTES, 8)?;
    let footer = tail.first_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    if tail.get(4..) == Some(b"PAR1") && footer > FOOTER_BYTES_MAX {
        return Err(none(format!("its footer has {footer} bytes: up to {FOOTER_BYTES_MAX} are read")));
    }
    Ok(())
}

/// The row groups from the one that holds a row on, and how many rows of it come before.
fn groups(rows: impl Iterator<Item = i64>, from: u64) -> Result<(Vec<usize>, usize), Error> {
    let (mut kept, mut begin, mut skipped) = (Vec::new(), 0u64, 0);
    for (number, rows) in rows.enumerate() {
        let end = begin.saturating_add(u64::try_from(rows).unwrap_or(0));
        if end > from {
            if kept.is_empty() {
                skipped = usize::try_from(from.saturating_sub(begin)).unwrap_or(usize::MAX);
            }
            kept.push(number);
        }
        begin = end;
    }
    if begin < from {
        let problem = format!("it was read up to row {from} and has {begin}: files do not change while they are read");
        return Err(Error::Parquet(parquet::errors::ParquetError::General(problem)));
    }
    Ok((kept, skipped))
}

/// Whether values of a type can become those of a kind.
fn fits(from: &DataType, kind: Kind) -> bool {
    if let DataType::Dictionary(_, values) = from {
        return fits(values, kind);
    }
    let text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match kind {
        Kind::Integer => from.is_integer(),
        Kind::Float => from.is_numeric(),
        Kind::Boolean => *from == DataType::Boolean,
        Kind::Text => {
            let bytes = matches!(from, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
            text || bytes || from.is_numeric() || from.is_temporal() || *from == DataType::Boolean
        }
        Kind::Time => {
            let instant = matches!(from, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
            text || instant || from.is_integer()
        }
    }
}

/// The values as those of a kind; null where one does not fit.
fn converted(from: &ArrayRef, kind: Kind, unit: Unit) -> Result<ArrayRef, Error> {
    let as_type = |to: &DataType| cast_with_options(from, to, &CastOptions { safe: true, ..CastOptions::default() });
    if let DataType::Dictionary(_, values) = from.data_type() {
        return converted(&as_type(values)?, kind, unit);
    }
    if kind != Kind::Time {
        return Ok(as_type(&kind.data_type())?);
    }
    Ok(match from.data_type() {
        kind if kind.is_integer() => {
            let counts = as_type(&DataType::Int64)?;
            let counts = counts.as_primitive::<Int64Type>().iter();
            Arc::new(counts.map(|count| unit.nanos(count?)).collect::<TimestampNanosecondArray>())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let (texts, mut day) = (as_type(&DataType::Utf8)?, Day::default());
            let texts = texts.as_string::<i32>().iter();
            Arc::new(texts.map(|text| day.instant(text?.as_bytes())).collect::<TimestampNanosecondArray>())
        }
        // Whatever zone it is shown in, an instant is one.
        _ => as_type(&kind.data_type())?,
    })
}

fn shown(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let text = ArrayFormatter::try_new(column.as_ref(), &options).map(|formatter| formatter.value(row).to_string());
    let mut text = text.unwrap_or_default();
    text.truncate(text.floor_char_boundary(256));
    text
}

/// Writes a file, zstd-compressed, in row groups of up to 2²⁰ rows or 64 MiB.
pub struct ParquetWriter<W: Write + Send>(ArrowWriter<W>);

impl<W: Write + Send> std::fmt::Debug for ParquetWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetWriter").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl<W: Write + Send> ParquetWriter<W> {
    /// A writer of rows of that schema.
    ///
    /// Errors: `Parquet` if a type cannot be written.
    pub fn new(to: W, schema: SchemaRef) -> Result<Self, Error> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by("logboom".to_owned());
        Ok(Self(ArrowWriter::try_new(to, schema, Some(properties.build()))?))
    }

    /// Takes rows. Bounds: those of a row group are in memory.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        Ok(self.0.write(batch)?)
    }

    /// The bytes of the file as far as they are known; those of the rows in memory are estimated.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.0.bytes_written().saturating_add(self.0.in_progress_size())).unwrap_or(u64::MAX)
    }

    /// Writes what is left and the footer, without which the file is none.
    pub fn finish(self) -> Result<W, Error> {
        Ok(self.0.into_inner()?)
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
