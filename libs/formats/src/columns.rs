//! Columns while they are filled, row by row.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
};

use crate::{Error, Fault, Kind, Layout, Rows, Unit, instant::Day};

/// The columns of one batch.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) layout: Layout,
    pub(crate) filled: Vec<Filling>,
    pub(crate) day: Day,
    /// Whole rows.
    pub(crate) rows: usize,
    offsets: Vec<i64>,
    pub(crate) faults: Vec<Fault>,
}

/// One column.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) values: Values,
    /// Whether each value is there; empty as long as all are.
    valid: Vec<bool>,
}

#[derive(Debug)]
pub(crate) enum Values {
    Integer(Vec<i64>),
    Float(Vec<f64>),
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    Boolean(Vec<bool>),
    Time(Vec<i64>),
}

impl Filling {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Integer => Values::Integer(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Text => Values::Text { ends: vec![0], bytes: Vec::new() },
            Kind::Boolean => Values::Boolean(Vec::new()),
            Kind::Time => Values::Time(Vec::new()),
        };
        Self { values, valid: Vec::new() }
    }

    fn kind(&self) -> Kind {
        match self.values {
            Values::Integer(_) => Kind::Integer,
            Values::Float(_) => Kind::Float,
            Values::Text { .. } => Kind::Text,
            Values::Boolean(_) => Kind::Boolean,
            Values::Time(_) => Kind::Time,
        }
    }

    /// A value was pushed.
    pub(crate) fn there(&mut self) {
        if !self.valid.is_empty() {
            self.valid.push(true);
        }
    }

    /// Pushes a null behind `rows` values.
    pub(crate) fn null(&mut self, rows: usize) {
        if self.valid.is_empty() {
            self.valid.resize(rows, true);
        }
        self.valid.push(false);
        match &mut self.values {
            Values::Integer(values) | Values::Time(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Text { ends, bytes } => ends.push(end(bytes)),
            Values::Boolean(values) => values.push(false),
        }
    }

    /// Pushes a text.
    pub(crate) fn text(&mut self, text: &[u8]) {
        if let Values::Text { ends, bytes } = &mut self.values {
            bytes.extend_from_slice(text);
            ends.push(end(bytes));
        }
        self.there();
    }

    /// Takes a row back that was begun.
    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Integer(values) | Values::Time(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows),
            Values::Text { ends, bytes } => {
                ends.truncate(rows + 1);
                let end = ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
                bytes.truncate(end);
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Error> {
        let valid = std::mem::take(&mut self.valid);
        let nulls = (!valid.is_empty()).then(|| NullBuffer::from(valid));
        Ok(match std::mem::replace(self, Self::new(self.kind())).values {
            Values::Integer(values) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            Values::Time(values) => Arc::new(TimestampNanosecondArray::try_new(values.into(), nulls)?),
            Values::Float(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Text { ends, bytes } => {
                Arc::new(StringArray::try_new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), nulls)?)
            }
        })
    }
}

/// The end of what is in a text column. Bounds: a batch is made of less than 2 GiB of input, as `read` sees to.
fn end(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).unwrap_or(i32::MAX)
}

/// A value of a row before it has a type.
#[derive(Debug, Clone)]
pub(crate) enum Raw<'a> {
    Null,
    /// Without quotes and escapes.
    Text(Cow<'a, str>),
    /// A number, truth value, array or object as it was written; or the text of a format that knows only texts.
    Written(&'a str),
}

impl Columns {
    pub(crate) fn new(layout: Layout) -> Self {
        let filled = layout.columns.iter().map(|column| Filling::new(column.kind)).collect();
        Self { layout, filled, day: Day::default(), rows: 0, offsets: Vec::new(), faults: Vec::new() }
    }

    /// Rows and faults so far.
    pub(crate) fn len(&self) -> usize {
        self.rows + self.faults.len()
    }

    /// The row that begins at `offset` is whole.
    pub(crate) fn row(&mut self, offset: u64) {
        self.rows += 1;
        self.offsets.push(i64::try_from(offset).unwrap_or(i64::MAX));
    }

    /// Takes back what was pushed of a row that is not whole.
    pub(crate) fn undo(&mut self) {
        let rows = self.rows;
        self.filled.iter_mut().for_each(|column| column.truncate(rows));
    }

    /// Whether the column is the event time, which no row may lack.
    pub(crate) fn is_time(&self, column: usize) -> bool {
        column == 0 && self.layout.timed
    }

    /// Pushes a value; what is wrong with it else.
    pub(crate) fn push(&mut self, column: usize, raw: &Raw<'_>) -> Result<(), String> {
        let (rows, unit) = (self.rows, self.layout.unit);
        let required = self.is_time(column);
        let filling = &mut self.filled[column];
        if matches!(raw, Raw::Null) {
            if required {
                return Err(format!("{:?} is missing or null", self.layout.columns[column].name));
            }
            filling.null(rows);
            return Ok(());
        }
        let kind = filling.kind();
        match (&mut filling.values, raw) {
            (Values::Text { .. }, Raw::Text(text)) => {
                filling.text(text.as_bytes());
                return Ok(());
            }
            (Values::Text { .. }, Raw::Written(text)) => {
                filling.text(text.as_bytes());
                return Ok(());
            }
            (Values::Integer(values), Raw::Written(text)) if let Ok(value) = text.parse() => values.push(value),
            (Values::Float(values), Raw::Written(text)) if let Some(value) = float(text) => values.push(value),
            (Values::Boolean(values), Raw::Written(text @ ("true" | "false"))) => values.push(*text == "true"),
            (Values::Time(values), raw) if let Some(value) = time(raw, unit, &mut self.day) => values.push(value),
            _ => {
                let (name, shown) = (&self.layout.columns[column].name, shown(raw));
                return Err(format!("{name:?} is {shown}, not {}", kind.word()));
            }
        }
        filling.there();
        Ok(())
    }

    /// The batch; what follows begins anew.
    pub(crate) fn finish(&mut self) -> Result<Rows, Error> {
        let read = self.filled.iter_mut().map(Filling::finish).collect::<Result<Vec<_>, _>>()?;
        let columns = self.layout.sources().map(|source| Arc::clone(&read[source])).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.layout.schema), columns)?;
        self.rows = 0;
        let offsets = ScalarBuffer::from(std::mem::take(&mut self.offsets));
        Ok(Rows { batch, offsets, faults: std::mem::take(&mut self.faults) })
    }
}

/// A number that is one: too large is none, and neither are words that Rust knows.
fn float(text: &str) -> Option<f64> {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+' || c == '.');
    text.parse().ok().filter(|value: &f64| number && value.is_finite())
}

fn time(raw: &Raw<'_>, unit: Unit, day: &mut Day) -> Option<i64> {
    match raw {
        Raw::Null => None,
        Raw::Text(text) => day.instant(text.as_bytes()),
        Raw::Written(text) => match text.parse() {
            Ok(count) => unit.nanos(count),
            Err(_) => day.instant(text.as_bytes()),
        },
    }
}

fn shown(raw: &Raw<'_>) -> String {
    let text = match raw {
        Raw::Null => "null",
        Raw::Text(text) => text.as_ref(),
        Raw::Written(text) => text,
    };
    let short = &text[..text.floor_char_boundary(64)];
    if matches!(raw, Raw::Text(_)) { format!("{short:?}") } else { short.to_owned() }
}
