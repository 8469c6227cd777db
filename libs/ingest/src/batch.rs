//! Records to column batches.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
        TimestampNanosecondBuilder,
    },
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema},
};
use types::{Offset, SegmentId, Timestamp};

use crate::{
    RawEvent, Record, Value,
    fields::{REST_COLUMN, to_json},
    parse,
    schema::{BASE_COLUMNS, COLUMNS_MAX, add_rest, base_fields, float_text, widen, wider},
};

/// The most rows of one batch.
pub const BATCH_ROWS_MAX: usize = 1 << 20;

/// The text after which a batch is full: 1 GiB, half of what the 32-bit offsets of a text column reach.
///
/// The other half is room for the last record and for numbers that a mixed column turns into text (24 bytes a row).
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// The cells, absent ones included, after which a batch is full: 64 Mi of 8 bytes are 512 MiB however sparse it is.
pub const BATCH_CELLS_MAX: usize = 1 << 26;

/// Inferred columns of one batch: all but the base columns and the rest column.
const INFERRED_MAX: usize = COLUMNS_MAX - BASE_COLUMNS.len() - 1;

/// Builds one batch of consecutive events of one segment.
///
/// Shape: the base columns of [`base_schema`](crate::base_schema), then inferred columns sorted by name, typed `Int64`,
/// `Float64`, `Boolean` or `Utf8`. A column with whole and decimal numbers is `Float64`; any other mixture is `Utf8`
/// with the values as text.
/// Bounds: [`COLUMNS_MAX`] columns, or fewer ([`with_inferred_max`](Self::with_inferred_max)); fields that would open another
/// one go to [`REST_COLUMN`]. A cell takes up to eight bytes beside its text, also where it is empty.
///
/// ```
/// use ingest::{BatchBuilder, RawEvent, parse};
/// use types::{SegmentId, Timestamp};
///
/// let received = Timestamp::from_millis(1_767_322_800_000);
/// let mut builder = BatchBuilder::new(SegmentId { stream: 1, epoch: 0, number: 0 }, 40);
/// for payload in [&b"{\"n\":1}"[..], b"{\"n\":2.5,\"ok\":true}"] {
///     assert!(builder.push(&parse(RawEvent { payload, received }), received));
/// }
/// let batch = builder.finish();
/// assert_eq!(batch.num_rows(), 2);
/// assert_eq!(batch.schema().field_with_name("n")?.data_type(), &arrow::datatypes::DataType::Float64);
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    segment: SegmentId,
    first: Offset,
    rows: usize,
    bytes: usize,
    time: TimestampNanosecondBuilder,
    received: TimestampNanosecondBuilder,
    message: StringBuilder,
    severity: StringBuilder,
    /// Inferred columns in the order in which they were first seen.
    columns: Vec<(String, Column)>,
    /// Where a column of a name is.
    places: HashMap<String, usize>,
    /// How many of them there may be.
    inferred_max: usize,
    /// The columns of the fields of the row before: mostly the next row has the same ones.
    row: Vec<usize>,
    rest: StringBuilder,
    rest_used: bool,
}

impl BatchBuilder {
    /// Begins a batch whose first event has the given offset.
    pub fn new(segment: SegmentId, first_offset: Offset) -> Self {
        Self {
            segment,
            first: first_offset,
            rows: 0,
            bytes: 0,
            time: TimestampNanosecondBuilder::new(),
            received: TimestampNanosecondBuilder::new(),
            message: StringBuilder::new(),
            severity: StringBuilder::new(),
            columns: Vec::new(),
            places: HashMap::new(),
            inferred_max: INFERRED_MAX,
            row: Vec::new(),
            rest: StringBuilder::new(),
            rest_used: false,
        }
    }

    /// Lets the batch have at most so many inferred columns, where so many rows of [`COLUMNS_MAX`] would take too much memory.
    #[must_use]
    pub fn with_inferred_max(self, inferred_max: usize) -> Self {
        Self { inferred_max: inferred_max.min(INFERRED_MAX), ..self }
    }

    /// The events taken so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the batch takes no further event: [`BATCH_ROWS_MAX`], [`BATCH_BYTES_MAX`] or [`BATCH_CELLS_MAX`] is
    /// reached.
    pub fn is_full(&self) -> bool {
        let cells = self.rows * (BASE_COLUMNS.len() + self.columns.len());
        self.rows >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX || cells >= BATCH_CELLS_MAX
    }

    /// Appends a record at the next offset; `false` if the batch was full and did not take it.
    #[must_use = "false means that the record was not taken: finish this batch and begin another"]
    pub fn push(&mut self, record: &Record<'_>, received: Timestamp) -> bool {
        if self.is_full() {
            return false;
        }
        self.time.append_value(record.time.nanos());
        self.received.append_value(received.nanos());
        self.message.append_value(&record.message);
        self.severity.append_option(record.severity.map(|s| s.as_str()));
        self.bytes += record.message.len();
        let mut own_rest = None;
        let mut more = Vec::new();
        let before = std::mem::take(&mut self.row);
        for (place, (name, value)) in record.fields.iter().enumerate() {
            self.bytes += name.len();
            if let Value::Text(text) = value {
                self.bytes += text.len();
                if name == REST_COLUMN {
                    own_rest = Some(text.as_ref());
                    continue;
                }
            }
            match self.column(name, value, before.get(place).copied()) {
                Some(at) => {
                    self.columns[at].1.push(value, self.rows);
                    self.row.push(at);
                }
                None => more.push((name.to_string(), to_json(value.clone()))),
            }
        }
        if own_rest.is_some() || !more.is_empty() {
            self.rest_used = true;
        }
        self.rest.append_option(add_rest(own_rest, more.into_iter()));
        self.rows += 1;
        true
    }

    /// Understands events and appends them until the batch is full: one that it does not take is left where it stands.
    pub fn extend<'a>(&mut self, events: impl IntoIterator<Item = RawEvent<'a>>) {
        let mut events = events.into_iter();
        while !self.is_full()
            && let Some(event) = events.next()
        {
            let taken = self.push(&parse(event), event.received);
            debug_assert!(taken, "a batch that is not full takes a record");
        }
    }

    /// The place of a field's column, which is opened if it is new; nothing if it cannot have one.
    fn column(&mut self, name: &str, value: &Value<'_>, guess: Option<usize>) -> Option<usize> {
        if let Some(at) = guess.filter(|at| self.columns[*at].0 == name) {
            return Some(at);
        }
        if let Some(at) = self.places.get(name) {
            return Some(*at);
        }
        if self.columns.len() >= self.inferred_max || BASE_COLUMNS.contains(&name) {
            return None;
        }
        let at = self.columns.len();
        self.columns.push((name.to_owned(), Column::of(value)));
        self.places.insert(name.to_owned(), at);
        Some(at)
    }

    /// Closes the batch.
    pub fn finish(mut self) -> RecordBatch {
        let segment = self.segment.to_string();
        let mut segments = StringBuilder::with_capacity(self.rows, self.rows * segment.len());
        let mut offsets = Int64Builder::with_capacity(self.rows);
        for offset in (self.first..).take(self.rows) {
            segments.append_value(&segment);
            // Offsets count events; the signed range is out of reach.
            offsets.append_value(i64::try_from(offset).unwrap_or(i64::MAX));
        }
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            Arc::new(self.received.finish()),
            Arc::new(self.message.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(segments.finish()),
            Arc::new(offsets.finish()),
        ];
        let mut inferred: Vec<(String, ArrayRef)> =
            self.columns.into_iter().map(|(name, column)| (name, column.finish(self.rows))).collect();
        if self.rest_used {
            inferred.push((REST_COLUMN.to_owned(), Arc::new(self.rest.finish())));
        }
        inferred.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut fields = base_fields().to_vec();
        for (name, array) in inferred {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .expect("every column was padded to the same number of rows")
    }
}

/// Understands events and builds their batch.
///
/// Takes events until the batch is full, see [`BatchBuilder::is_full`]: one that yields more rows than that is left
/// where it stands, so pass `&mut iterator` and begin the next batch at `first_offset` plus the rows of this one.
pub fn to_batch<'a>(
    segment: SegmentId,
    first_offset: Offset,
    events: impl IntoIterator<Item = RawEvent<'a>>,
) -> RecordBatch {
    let mut builder = BatchBuilder::new(segment, first_offset);
    builder.extend(events);
    builder.finish()
}

/// One inferred column; rows without a value are filled in when the next value or the end comes.
#[derive(Debug)]
enum Column {
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

/// The same statement for whichever builder it is.
macro_rules! each {
    ($column:expr, $builder:pat => $body:expr) => {
        match $column {
            Column::Int($builder) => $body,
            Column::Float($builder) => $body,
            Column::Bool($builder) => $body,
            Column::Text($builder) => $body,
        }
    };
}

fn type_of(value: &Value<'_>) -> DataType {
    match value {
        Value::Bool(_) => DataType::Boolean,
        Value::Int(_) => DataType::Int64,
        Value::Float(_) => DataType::Float64,
        Value::Text(_) => DataType::Utf8,
    }
}

impl Column {
    fn of(value: &Value<'_>) -> Self {
        Self::empty(&type_of(value))
    }

    fn empty(of: &DataType) -> Self {
        match of {
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Int(_) => DataType::Int64,
            Self::Float(_) => DataType::Float64,
            Self::Bool(_) => DataType::Boolean,
            Self::Text(_) => DataType::Utf8,
        }
    }

    fn pad(&mut self, rows: usize) {
        use arrow::array::ArrayBuilder as _;
        each!(self, builder => {
            let missing = rows.saturating_sub(builder.len());
            builder.append_nulls(missing);
        });
    }

    fn push(&mut self, value: &Value<'_>, row: usize) {
        self.pad(row);
        match (&mut *self, value) {
            (Self::Int(builder), Value::Int(number)) => builder.append_value(*number),
            (Self::Float(builder), Value::Float(number)) => builder.append_value(*number),
            (Self::Float(builder), Value::Int(number)) => builder.append_value(*number as f64),
            (Self::Bool(builder), Value::Bool(flag)) => builder.append_value(*flag),
            (Self::Text(builder), Value::Text(text)) => builder.append_value(text),
            (Self::Text(builder), Value::Int(number)) => builder.append_value(number.to_string()),
            (Self::Text(builder), Value::Float(number)) => builder.append_value(float_text(*number)),
            (Self::Text(builder), Value::Bool(flag)) => builder.append_value(if *flag { "true" } else { "false" }),
            _ => {
                // Happens at most twice a column: whole numbers to decimal ones to text.
                let to = wider(&self.data_type(), &type_of(value));
                let narrow = std::mem::replace(self, Self::empty(&to));
                self.refill(&narrow.finish(row), &to);
                self.push(value, row);
            }
        }
    }

    fn refill(&mut self, narrow: &ArrayRef, to: &DataType) {
        let wide = widen(narrow, to).expect("numbers and booleans have a text, whole numbers are decimal ones");
        match self {
            Self::Int(builder) => builder.extend(wide.as_primitive::<Int64Type>()),
            Self::Float(builder) => builder.extend(wide.as_primitive::<Float64Type>()),
            Self::Bool(builder) => builder.extend(wide.as_boolean()),
            Self::Text(builder) => builder.extend(wide.as_string::<i32>()),
        }
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        each!(self, mut builder => Arc::new(builder.finish()) as ArrayRef)
    }
}
