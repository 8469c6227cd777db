//! What a reader makes of bytes.

use std::fmt;

use arrow::{array::RecordBatch, buffer::ScalarBuffer};

/// The longest line that is read; a longer one is a fault and is gone over without being kept.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a row that its fault shows.
pub const FAULT_TEXT_BYTES_MAX: usize = 65_536;

/// What a reader made of the front of its input.
#[derive(Debug)]
pub struct Taken {
    /// How many bytes: the next call is given what is behind them. 0: more is needed, or nothing is left.
    pub bytes: usize,
    /// The rows in them.
    pub rows: Rows,
}

/// Rows, and those that could not be read.
#[derive(Debug)]
pub struct Rows {
    /// In the order of the input; of the layout's schema.
    pub batch: RecordBatch,
    /// Where each row of the batch begins, from the begin of the file.
    pub offsets: ScalarBuffer<i64>,
    /// What could not be read, in the order of the input; these rows are not in the batch.
    pub faults: Vec<Fault>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It is not of the format, or a value is not of its column's type.
    Corrupt,
    /// Its event time is missing or is none.
    Undated,
    /// It is longer than [`LINE_BYTES_MAX`].
    TooLong,
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins, from the begin of the file.
    pub offset: u64,
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// The fault, for people.
    pub problem: String,
    /// The row as far as [`FAULT_TEXT_BYTES_MAX`], with a sign for each byte that is no text.
    pub text: String,
}

impl Fault {
    /// The fault of a row with those bytes.
    pub(crate) fn new(offset: u64, kind: FaultKind, problem: String, row: &[u8]) -> Self {
        let shown = &row[..row.len().min(FAULT_TEXT_BYTES_MAX)];
        Self { offset, kind, problem, text: String::from_utf8_lossy(shown).into_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Corrupt => "corrupt row",
            FaultKind::Undated => "row without event time",
            FaultKind::TooLong => "row too long",
        };
        write!(f, "{kind} at byte {}: {}", self.offset, self.problem)
    }
}
