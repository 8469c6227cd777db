//! Aggregates of a row over the rows before it.

mod frames;
mod rows;
pub(crate) mod totals;

use serde::{Deserialize, Serialize};
use types::DurationText;

use self::frames::Extent;
use crate::{AggregateFunction, AggregateSpec, Error, window::grid};

pub(crate) use rows::OverRows;

/// The most rows before a row that its frame may have.
pub const FRAME_ROWS_MAX: u64 = 1_000_000;

/// Adds to each row aggregates over a frame that ends with it, in the order of rule 2 of [`row`](crate::row).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverSpec {
    /// The key columns; none for one partition.
    #[serde(default)]
    pub keys: Vec<String>,
    /// What is added, as columns behind the input's.
    pub aggregates: Vec<AggregateSpec>,
    /// Which rows count.
    pub frame: Frame,
}

/// Which rows count, the row itself among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// All before it.
    Unbounded,
    /// So many before it.
    Rows(u64),
    /// Those whose time is at most that much before its own.
    Range(DurationText),
}

fn wrong(problem: String) -> Error {
    Error::Spec { operator: "over", problem }
}

impl OverSpec {
    /// Checks the specification.
    pub fn validate(&self) -> Result<(), Error> {
        self.extent().map(|_| ())
    }

    /// Which rows stay in a frame; `None`: all.
    fn extent(&self) -> Result<Option<Extent>, Error> {
        if self.aggregates.is_empty() {
            return Err(wrong("computes nothing: give at least one aggregate".into()));
        }
        for (place, aggregate) in self.aggregates.iter().enumerate() {
            if aggregate.column.is_none() != (aggregate.function == AggregateFunction::CountAll) {
                return Err(wrong(format!("{:?}: every function but count_all needs a column", aggregate.name)));
            }
            if self.aggregates[..place].iter().any(|other| other.name == aggregate.name) {
                return Err(wrong(format!("{:?} names two output columns", aggregate.name)));
            }
        }
        match self.frame {
            Frame::Unbounded => Ok(None),
            Frame::Rows(rows) if rows > FRAME_ROWS_MAX => {
                Err(wrong(format!("a frame of {rows} rows is too long: {FRAME_ROWS_MAX} at most")))
            }
            Frame::Rows(rows) => Ok(Some(Extent::Rows(usize::try_from(rows).unwrap_or(usize::MAX)))),
            Frame::Range(length) => Ok(Some(Extent::Nanos(grid::nanos("range", length, true)?))),
        }
    }
}

#[cfg(test)]
mod tests;
