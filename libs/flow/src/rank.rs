//! The first rows of each key: top-N and deduplication.

use serde::{Deserialize, Serialize};
use types::DurationText;

use crate::ChangelogMode;

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
