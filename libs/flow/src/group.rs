//! Aggregates over all rows of a key, whose results change.

mod changes;
mod changing;
mod columns;
mod rows;

use serde::{Deserialize, Serialize};
use types::DurationText;

use crate::{AggregateFunction, AggregateSpec, CHANGE_COLUMN, ChangelogMode, Error, TIME_COLUMN, window::grid};

pub(crate) use changes::{Step, give};
pub(crate) use rows::GroupRows;

/// One result per key that follows its rows. Input may change (`_change`); output does, as `mode` says.
///
/// A result comes out at a watermark, once per key that changed since the last one, in the order of keys: with the time of the
/// key's last row, or of the watermark before, if that is later. A key without rows is deleted. Changing input is of mode
/// [`ChangelogMode::Retract`]. Every row counts, for none can be too late for all of time; but with a `ttl` the order of rows
/// matters, and rule 2 of [`row`](crate::row) holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// The key columns; none for one group over everything.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The output columns besides the keys.
    pub aggregates: Vec<AggregateSpec>,
    /// Which changes come out; `Append` is not possible.
    pub mode: ChangelogMode,
    /// A key without rows for that long (in event time) is forgotten; `None`: never. State goes by whole buckets of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<DurationText>,
}

impl GroupSpec {
    /// Checks the specification.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Spec { operator: "group", problem });
        if self.mode == ChangelogMode::Append {
            return wrong("results change: give the mode upsert or retract".into());
        }
        if self.aggregates.is_empty() {
            return wrong("computes nothing: give at least one aggregate".into());
        }
        let mut names: Vec<&str> = vec![TIME_COLUMN, CHANGE_COLUMN];
        names.extend(self.keys.iter().map(String::as_str));
        for aggregate in &self.aggregates {
            if aggregate.column.is_none() != (aggregate.function == AggregateFunction::CountAll) {
                return wrong(format!("{:?}: every function but count_all needs a column", aggregate.name));
            }
            if names.contains(&aggregate.name.as_str()) {
                return wrong(format!("{:?} names two output columns", aggregate.name));
            }
            names.push(&aggregate.name);
        }
        self.ttl.map_or(Ok(()), |ttl| grid::nanos("ttl", ttl, false).map(|_| ()))
    }
}

#[cfg(test)]
mod tests;
