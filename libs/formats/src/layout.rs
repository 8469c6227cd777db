//! Which columns rows have.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::Error;

/// The column of the event time; it comes first where a layout has one.
pub const TIME_COLUMN: &str = "_time";

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Int64`.
    Integer,
    /// `Float64`.
    Float,
    /// `Utf8`. A value that is no text is shown as it was written.
    Text,
    /// `Boolean`.
    Boolean,
    /// `Timestamp(Nanosecond)`, of RFC 3339 text or a number of the layout's unit.
    Time,
}

impl Kind {
    /// The type in batches.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Integer => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
        }
    }

    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Integer => "a whole number of 64 bits",
            Self::Float => "a number",
            Self::Text => "text",
            Self::Boolean => "true or false",
            Self::Time => "a time as of RFC 3339 or a number",
        }
    }
}

/// What a number counts where a time is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    #[default]
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl Unit {
    /// A count of it in nanoseconds, if those can be said.
    pub(crate) fn nanos(self, count: i64) -> Option<i64> {
        count.checked_mul(match self {
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        })
    }
}

/// A column by the name under which the format has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
}

impl Column {
    /// A column.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind }
    }
}

/// The columns that are read; what else rows have is left out.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Names as in the format; the event time, if any, first.
    pub(crate) columns: Vec<Column>,
    /// Whether the first column is the event time, which every row must have.
    pub(crate) timed: bool,
    pub(crate) unit: Unit,
    pub(crate) schema: SchemaRef,
}

impl Layout {
    /// Columns, and the name of the one that holds the event time, which is given as [`TIME_COLUMN`] in front of them. It may be
    /// one of the columns too.
    ///
    /// Errors: `Schema` if there are no columns, two have one name, or the event time is declared as something else.
    pub fn new(columns: Vec<Column>, time: Option<&str>, unit: Unit) -> Result<Self, Error> {
        for (place, column) in columns.iter().enumerate() {
            let name = &column.name;
            if columns[..place].iter().any(|before| before.name == *name) {
                return Err(Error::Schema(format!("{name:?} is there twice")));
            }
            if Some(name.as_str()) == time && column.kind != Kind::Time {
                return Err(Error::Schema(format!("{name:?} is the event time: declare it as a time")));
            }
            if time.is_some() && name == TIME_COLUMN && time != Some(TIME_COLUMN) {
                return Err(Error::Schema(format!(
                    "{TIME_COLUMN:?} is the name of the event time: name another column"
                )));
            }
        }
        let shown = columns.iter().filter(|column| column.name != TIME_COLUMN || time.is_none());
        let mut fields: Vec<Field> = shown.map(|c| Field::new(&c.name, c.kind.data_type(), true)).collect();
        if time.is_some() {
            fields.insert(0, Field::new(TIME_COLUMN, Kind::Time.data_type(), false));
        }
        if fields.is_empty() {
            return Err(Error::Schema("there are none: declare at least one".to_owned()));
        }
        let read = columns.into_iter().filter(|column| Some(column.name.as_str()) != time);
        let columns: Vec<Column> = time.map(|name| Column::new(name, Kind::Time)).into_iter().chain(read).collect();
        Ok(Self { columns, timed: time.is_some(), unit, schema: Arc::new(Schema::new(fields)) })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// For each column of the schema the one that is read for it: the event time can be asked for twice.
    pub(crate) fn sources(&self) -> impl Iterator<Item = usize> {
        self.schema.fields().iter().map(|field| {
            if self.timed && field.name() == TIME_COLUMN {
                return 0;
            }
            self.columns.iter().position(|column| column.name == *field.name()).unwrap_or(0)
        })
    }
}
