//! Epochs: which segments followed which.

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, SegmentId, Timestamp};

use crate::coordinator::SegmentRange;

/// Segments to replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The index.
    pub index: IndexName,
    /// Present segments that end; at least one.
    pub seal: Vec<SegmentId>,
    /// Ranges of the new ones; together they cover what the ended ones cover, once.
    pub ranges: Vec<KeyRange>,
}

/// A segment with its neighbours in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentNode {
    /// The segment.
    pub segment: SegmentId,
    /// Its container.
    pub container: ContainerId,
    /// Its part of the key space.
    pub range: KeyRange,
    /// The epoch whose opening sealed it; `None` while it takes appends, and in a stream that was sealed whole.
    pub sealed_in: Option<u32>,
    /// What it follows; those must be read to their ends first. Truncated ones are left out.
    pub predecessors: Vec<SegmentId>,
    /// What follows it.
    pub successors: Vec<SegmentId>,
}

impl SegmentNode {
    /// Where its keys go.
    pub fn segment_range(&self) -> SegmentRange {
        SegmentRange { segment: self.segment, container: self.container, range: self.range }
    }
}

/// Which segments to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsOf {
    /// The index.
    pub index: IndexName,
    /// Begin behind this segment.
    #[serde(default)]
    pub after: Option<SegmentId>,
    /// At most so many, 1 to 1 000.
    pub limit: u32,
}

/// Segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentNodes {
    /// In order of their ids.
    pub segments: Vec<SegmentNode>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

/// Whose successors to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessorsOf {
    /// The index.
    pub index: IndexName,
    /// The segment.
    pub segment: SegmentId,
}

/// Which epochs to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochsOf {
    /// The index.
    pub index: IndexName,
    /// The first.
    pub from: u32,
    /// At most so many, 1 to 1 000.
    pub limit: u32,
}

/// What changed when an epoch opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: u32,
    /// When it opened.
    pub at: Timestamp,
    /// Segments that ended.
    pub sealed: Vec<SegmentId>,
    /// Segments that began.
    pub created: Vec<SegmentRange>,
    /// How many of the ended segments have more than one successor.
    pub splits: u32,
    /// How many of the new segments have more than one predecessor.
    pub merges: u32,
}

/// Epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPage {
    /// Ascending.
    pub epochs: Vec<EpochRecord>,
    /// Whether there are more.
    pub more: bool,
}
