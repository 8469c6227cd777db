//! Sequences of rows of one key, as data.

use serde::{Deserialize, Serialize};
use types::DurationText;

mod operator;
mod plan;
mod runs;
#[cfg(test)]
mod tests;

pub(crate) use operator::PatternOperator;

/// The most steps of a pattern.
pub const PATTERN_STEPS_MAX: usize = 16;

/// A sequence of steps of one key within a time, in the order of rule 2 of [`row`](crate::row).
///
/// Conditions are boolean columns that a projection in front computes; they are not handed on.
///
/// A run begins with each row that the first step takes. It takes every row that it can: one that its step can take once more
/// goes there rather than to the next step, and where both can, both are tried and the first way to a match wins. Of the runs
/// of a key the earliest that comes to a match has it, and none has an answer before those that began earlier. A match that
/// could still grow, or that waits for an absent row, is one when its time is over.
///
/// Output: `_time`, the keys, the measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternSpec {
    /// The key columns; none for one sequence over everything.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The steps, in order.
    pub steps: Vec<PatternStep>,
    /// From the first row to the last at most.
    pub within: DurationText,
    /// Where the search goes on after a match.
    #[serde(default)]
    pub after: AfterMatch,
    /// Whether rows that the run does not take may lie between; else they end it.
    #[serde(default = "yes")]
    pub gaps: bool,
    /// The output columns besides the keys; `_time` is that of the last row.
    pub measures: Vec<Measure>,
}

fn yes() -> bool {
    true
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternStep {
    /// Its name.
    pub name: String,
    /// The boolean column that says whether a row matches; null is false.
    pub condition: String,
    /// How often at least.
    #[serde(default = "once")]
    pub least: u32,
    /// How often at most.
    #[serde(default = "once")]
    pub most: u32,
    /// That no such row comes between the step before and the one behind; at the end: within the time.
    #[serde(default)]
    pub absent: bool,
}

fn once() -> u32 {
    1
}

/// Where the search goes on after a match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterMatch {
    /// Behind its last row.
    #[default]
    PastLast,
    /// Behind its first row.
    NextRow,
}

/// One output column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Its name.
    pub name: String,
    /// Of which step.
    pub step: String,
    /// Which value.
    pub value: MeasureValue,
}

/// Which value of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureValue {
    /// Of a column, in the first row of the step.
    First(String),
    /// Of a column, in the last row of the step.
    Last(String),
    /// How many rows matched the step.
    Count,
}
