//! Streams that come back from an export or from their chunks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, Offset, ScopeName, SegmentId, Tag, Timestamp};

use super::{RetentionPolicy, ScalingPolicy};

/// The number of a stream, asked for and given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The number that the stream had; `None` asks for a new one. The answer always names one.
    #[serde(default)]
    pub stream: Option<u32>,
    /// Whether the stream is to have a key: it has one when this is answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

/// A stream as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRestore {
    /// Its number; reserved before.
    pub stream: u32,
    /// The tenant.
    pub scope: ScopeName,
    /// The index.
    pub index: IndexName,
    /// When it was created.
    pub created: Timestamp,
    /// Every segment, ended ones included; at most 10 000. Which followed which is told by their epochs and ranges.
    pub segments: Vec<RestoredSegment>,
    /// When epochs were opened, as far as it is known.
    #[serde(default)]
    pub opened: BTreeMap<u32, Timestamp>,
    /// Whether it takes appends no more.
    #[serde(default)]
    pub sealed: bool,
    /// How long events are kept.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// When segments are split and merged.
    #[serde(default)]
    pub scaling: ScalingPolicy,
    /// What goes first when there is too much.
    #[serde(default)]
    pub retention: Option<RetentionPolicy>,
    /// Labels.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whether what it has in object storage is sealed with a key of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

/// A segment of a stream as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredSegment {
    /// The segment; its id names the epoch that created it.
    pub segment: SegmentId,
    /// The container that has adopted it.
    pub container: ContainerId,
    /// Its part of the key space.
    pub range: KeyRange,
    /// Its first offset.
    pub start: Offset,
}
