//! Reader groups: their existence and what they have consumed. What their readers hold is theirs to write down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{GroupName, IndexName, ScopeName, StreamCut, Timestamp};

use super::Page;

/// Whether a group holds back retention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRetention {
    /// No.
    #[default]
    None,
    /// Yes, up to its last complete checkpoint.
    AtCheckpoint,
    /// Yes, up to the cut that its user reports.
    Manual,
}

/// Where a bound of a group's reading stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutKind {
    /// The beginning as it is at the time of reading, or no end.
    #[default]
    Unbounded,
    /// The end as it was when the group was created or reset.
    Tail,
    /// Given.
    At(StreamCut),
}

/// What a group reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// The group.
    pub group: GroupName,
    /// Its scope.
    pub scope: ScopeName,
    /// The indexes that it reads, 1 to 16, each with where it begins.
    pub from: BTreeMap<IndexName, CutKind>,
    /// Where it ends, for each index that has an end.
    #[serde(default)]
    pub to: BTreeMap<IndexName, CutKind>,
    /// Time between automatic checkpoints; 0 is none.
    pub checkpoint_ms: u64,
    /// Whether it holds back retention.
    #[serde(default)]
    pub retention: GroupRetention,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// What it reads; cuts of kind `Tail` are given by now.
    pub config: GroupConfig,
    /// Grows with every reset.
    pub generation: u64,
    /// When it was created.
    pub created: Timestamp,
    /// What it has consumed, where it reported it.
    #[serde(default)]
    pub consumed: BTreeMap<IndexName, StreamCut>,
}

/// Names a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedGroup {
    /// The group.
    pub group: GroupName,
}

/// Which groups to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsOf {
    /// Only of this scope.
    #[serde(default)]
    pub scope: Option<ScopeName>,
    /// Begin behind this group, which need not be there.
    #[serde(default)]
    pub after: Option<GroupName>,
    /// At most so many.
    #[serde(default)]
    pub limit: Page,
}

/// Groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    /// By name.
    pub groups: Vec<GroupDescription>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

/// What a group has consumed of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    /// The group.
    pub group: GroupName,
    /// The group's generation at the time.
    pub generation: u64,
    /// The index.
    pub index: IndexName,
    /// Everything before it.
    pub cut: StreamCut,
}
