//! The first rows of each key: top-N and deduplication.

mod changing;
mod entries;
mod first;
mod order;
mod windows;

use serde::{Deserialize, Serialize};
use types::DurationText;

use crate::{ChangelogMode, Error, ordered::RowForm, window::grid};

pub(crate) use changing::RankedRows;
pub(crate) use first::FirstRows;
pub(crate) use windows::TopWindows;

/// The most rows of a key that top-N gives.
pub const TOP_ROWS_MAX: u64 = 10_000;

/// A column to order by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// The column.
    pub column: String,
    /// Largest first.
    #[serde(default)]
    pub descending: bool,
    /// Nulls before everything.
    #[serde(default)]
    pub nulls_first: bool,
}

/// The first `limit` rows of each key. Equal rows are ranked in the order of rule 2 of [`row`](crate::row).
///
/// What changes comes out at a watermark, once for each key that changed since the last one, in the order of keys: with the time of
/// the row, or of the watermark before, if that is later. With a rank, the row of a rank is updated; without one, rows are
/// inserted and deleted. Input that changes (`_change`) is of mode [`ChangelogMode::Retract`]; all of its rows are kept, for any
/// may become one of the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopNSpec {
    /// The key columns.
    #[serde(default)]
    pub keys: Vec<String>,
    /// By what.
    pub order: Vec<SortKey>,
    /// How many.
    pub limit: u64,
    /// The name of the column with the rank, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<String>,
    /// Whether rows come out when their window closes (the input has `window_end`): append only. Else the result changes.
    #[serde(default)]
    pub windowed: bool,
    /// Which changes come out; `Append` for one that is windowed.
    #[serde(default)]
    pub mode: ChangelogMode,
}

/// One row of each key.
///
/// The last one comes out at a watermark, once for each key that changed since the last watermark, in the order of keys, and
/// replaces the one before it, in mode [`ChangelogMode::Retract`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupSpec {
    /// The key columns.
    pub keys: Vec<String>,
    /// Which one: the first in time is append only, the last one changes.
    #[serde(default)]
    pub keep: Keep,
    /// A key is forgotten so long after its row (in event time); `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<DurationText>,
}

/// Which row of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first in time.
    #[default]
    First,
    /// The last in time.
    Last,
}

fn wrong(problem: String) -> Error {
    Error::Spec { operator: "top", problem }
}

/// The name of the rank is not taken.
fn check_rank(rank: Option<&str>, form: &RowForm) -> Result<(), Error> {
    match rank.filter(|rank| form.shown().field_with_name(rank).is_ok()) {
        Some(rank) => Err(wrong(format!("the rank is named {rank:?} as a column of the rows: choose another"))),
        None => Ok(()),
    }
}

impl TopNSpec {
    /// Checks the specification and returns how many rows are given of each key.
    pub fn validate(&self) -> Result<usize, Error> {
        let limit = usize::try_from(self.limit).ok().filter(|_| (1..=TOP_ROWS_MAX).contains(&self.limit));
        let limit = limit.ok_or_else(|| wrong(format!("limit {} is out of range: 1 to {TOP_ROWS_MAX}", self.limit)))?;
        if self.order.is_empty() {
            return Err(wrong("ranks by nothing: give at least one column to order by".into()));
        }
        match (self.windowed, self.mode == ChangelogMode::Append) {
            (true, false) => Err(wrong("of windows only appends: leave the mode out".into())),
            (false, true) => Err(wrong("of everything changes: give the mode upsert or retract".into())),
            _ => Ok(limit),
        }
    }
}

impl DedupSpec {
    /// Checks the specification.
    pub fn validate(&self) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Err(Error::Spec { operator: "dedup", problem: "has no key: give at least one column".into() });
        }
        self.ttl.map_or(Ok(()), |ttl| grid::nanos("ttl", ttl, false).map(|_| ()))
    }
}

#[cfg(test)]
mod tests;
