//! Aggregates over all rows of a key, whose results change.

use serde::{Deserialize, Serialize};
use types::DurationText;

use crate::{AggregateSpec, ChangelogMode};

/// One result per key that follows its rows. Input may change (`_change`); output does, as `mode` says.
///
/// A result comes out at a watermark, once per key that changed since the last one, in the order of keys.
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
