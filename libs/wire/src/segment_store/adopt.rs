//! Segments made of chunks that are there already, and objects that nothing names.

use serde::{Deserialize, Serialize};
use types::{IndexName, KeyRange, Offset, ScopeName, SegmentId};

use super::ChunkMeta;

/// What a segment is in its stream, as far as a stream cannot be rebuilt from its chunks without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOrigin {
    /// The tenant.
    pub scope: ScopeName,
    /// The segment's part of the key space.
    pub range: KeyRange,
    /// Whether its chunks are sealed with a key of its stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

/// A segment to be made of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The segment.
    pub segment: SegmentId,
    /// The index that it belongs to.
    pub index: IndexName,
    /// What it is in its stream.
    #[serde(default)]
    pub origin: Option<SegmentOrigin>,
    /// Its first offset, also where there is no chunk.
    pub start: Offset,
    /// Whether it takes appends no more.
    pub sealed: bool,
    /// Payload bytes of its events, as far as they are known.
    pub bytes: u64,
    /// Its events from `start` on, without a hole; each lies in the folder of the segment. At most 10 000.
    pub chunks: Vec<ChunkMeta>,
}

/// A page of garbage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageOf {
    /// Begin behind this key.
    #[serde(default)]
    pub after: Option<String>,
    /// At most so many, 1 to 1 000.
    pub limit: u32,
}

/// Objects that wait for their removal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbagePage {
    /// By key.
    pub keys: Vec<String>,
    /// Whether there are more.
    pub more: bool,
    /// Deleted segments whose objects may still be there; on the first page only.
    #[serde(default)]
    pub deleted: Vec<SegmentId>,
}

/// Objects to put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The segment in whose folder they are.
    pub segment: SegmentId,
    /// Their keys, at most 1 000.
    pub keys: Vec<String>,
}

/// What was put aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The keys that are now below `quarantine/`; the others may still be named, or were not there.
    pub moved: Vec<String>,
}
