//! Where a reader stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SegmentId;

/// The number of an event within its segment, from 0, given when the event is applied.
pub type Offset = u64;

/// One place in one segment: the next event to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// The next offset to read.
    pub offset: Offset,
}

/// Positions that together cover the key space of a stream once; what readers, jobs and alerts checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCut(pub BTreeMap<SegmentId, Offset>);

impl StreamCut {
    /// The next offset to read in the segment; 0 where the cut does not name it.
    pub fn offset(&self, segment: SegmentId) -> Offset {
        self.0.get(&segment).copied().unwrap_or(0)
    }
}
