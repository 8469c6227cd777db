//! Aggregates of a row over the rows before it.

use serde::{Deserialize, Serialize};
use types::DurationText;

use crate::AggregateSpec;

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
