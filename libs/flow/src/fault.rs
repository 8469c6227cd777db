//! Rows that cannot be read or computed: what becomes of them, and how that is told.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use serde::{Deserialize, Serialize};

use crate::{Error, HIDDEN_COLUMNS, INSTANT_TYPE, TIME_COLUMN};

/// The most bytes of a row that its dead letter shows.
pub const DEAD_ROW_BYTES_MAX: usize = 65_536;

/// What becomes of a row that cannot be computed. One per job; whatever it is, every such row is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorPolicy {
    /// The job fails with a named error, and is not tried again.
    Fail,
    /// The value is null. Graphs of older releases, which say nothing, mean this.
    #[default]
    Null,
    /// The row leaves by the port [`Port::DeadLetter`](crate::Port::DeadLetter) and is not worked on further.
    DeadLetter,
}

/// What was wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It is not of the format of its source.
    Corrupt,
    /// It has no usable event time.
    Undated,
    /// A number was divided by zero.
    DivisionByZero,
    /// A whole number left the range of 64 bits.
    Overflow,
    /// A value does not have the declared type.
    Conversion,
    /// A function of the user ended with an error.
    Trap,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "corrupt row",
            Self::Undated => "row without event time",
            Self::DivisionByZero => "division by zero",
            Self::Overflow => "integer overflow",
            Self::Conversion => "value of another type",
            Self::Trap => "function failed",
        })
    }
}

/// The columns of dead letters, the same for every operator, so that any sink can take them:
/// `_time` (null where the row has none), `_error` (what kind), `_detail`, `_operator`, `_row` (JSON text of the row, or the
/// text as it was read).
pub fn dead_letter_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        Field::new(TIME_COLUMN, INSTANT_TYPE, true),
        text("_error"),
        text("_detail"),
        text("_operator"),
        text("_row"),
    ]))
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event time in nanoseconds.
    pub time: Option<i64>,
    /// What kind of fault it was.
    pub kind: FaultKind,
    /// The fault, for people.
    pub detail: String,
    /// The operator that found it.
    pub operator: String,
    /// The row.
    pub row: String,
}

impl DeadLetter {
    /// Letters as rows; the text of each row is cut at [`DEAD_ROW_BYTES_MAX`].
    pub fn rows(letters: &[Self]) -> Result<RecordBatch, Error> {
        let texts = |of: &dyn Fn(&Self) -> String| -> ArrayRef {
            Arc::new(letters.iter().map(|letter| Some(of(letter))).collect::<StringArray>())
        };
        let times: TimestampNanosecondArray = letters.iter().map(|letter| letter.time).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times),
            texts(&|letter| letter.kind.to_string()),
            texts(&|letter| letter.detail.clone()),
            texts(&|letter| letter.operator.clone()),
            texts(&|letter| letter.row[..letter.row.floor_char_boundary(DEAD_ROW_BYTES_MAX)].to_owned()),
        ];
        Ok(RecordBatch::try_new(dead_letter_schema(), columns)?)
    }

    /// The letter of a row of a batch.
    pub fn of(kind: FaultKind, detail: &str, operator: &str, batch: &RecordBatch, row: usize) -> Result<Self, Error> {
        let time = batch
            .column_by_name(TIME_COLUMN)
            .filter(|array| matches!(array.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)))
            .filter(|array| !array.is_null(row))
            .map(|array| array.as_primitive::<TimestampNanosecondType>().value(row));
        let mut shown = serde_json::Map::new();
        let options = FormatOptions::default();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            if HIDDEN_COLUMNS.contains(&field.name().as_str()) || array.is_null(row) {
                continue;
            }
            let text = ArrayFormatter::try_new(array, &options)?.value(row).to_string();
            shown.insert(field.name().clone(), text.into());
        }
        let row = serde_json::Value::Object(shown).to_string();
        Ok(Self { time, kind, detail: detail.to_owned(), operator: operator.to_owned(), row })
    }
}
