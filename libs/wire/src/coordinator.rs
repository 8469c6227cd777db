//! Streams, their segments and where the containers are.

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, RoutingKey, ScopeName, SegmentId, Timestamp};

use crate::{Empty, views::Placement};

calls! {
    /// Creates the stream of an index with its epoch-0 segments; repeating it with the same arguments answers the same.
    CreateStream(NewStream) -> StreamDescription; "lb.v1.coordinator.streams.create" [()] @ Coordinator, Idempotent
    /// Describes the stream of an index. NotFound: `UnknownIndex`.
    DescribeStream(StreamName) -> StreamDescription; "lb.v1.coordinator.streams.describe" [()] @ Coordinator, Idempotent
    /// Lists every stream.
    ListStreams(Empty) -> StreamList; "lb.v1.coordinator.streams.list" [()] @ Coordinator, Idempotent
    /// Deletes a stream with all its segments and chunks; deleting what is not there succeeds.
    DeleteStream(StreamName) -> Empty; "lb.v1.coordinator.streams.delete" [()] @ Coordinator, Idempotent
    /// Answers where every container is.
    DescribePlacement(Empty) -> Placement; "lb.v1.coordinator.placement.describe" [()] @ Coordinator, Idempotent
}

events! {
    /// A container moved to another replica.
    ContainerMoved(Placement); "lb.v1.evt.coordinator.container.{container}.moved" [ContainerId] @ Coordinator
}

/// A stream to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewStream {
    /// The tenant.
    pub scope: ScopeName,
    /// The index that owns the stream.
    pub index: IndexName,
    /// Segments of epoch 0: 1 to 64.
    pub segment_count: u16,
    /// How long events are kept; `None` keeps them for ever.
    #[serde(default)]
    pub retention_days: Option<u32>,
}

/// Names a stream by its index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamName {
    /// The index.
    pub index: IndexName,
}

/// One segment and the keys that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRange {
    /// The segment.
    pub segment: SegmentId,
    /// Its container.
    pub container: ContainerId,
    /// Its part of the key space.
    pub range: KeyRange,
}

/// A stream and its present segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDescription {
    /// The stream's number.
    pub stream: u32,
    /// The tenant.
    pub scope: ScopeName,
    /// The index.
    pub index: IndexName,
    /// The number of the segment set.
    pub epoch: u32,
    /// The segments; their ranges cover the key space once.
    pub segments: Vec<SegmentRange>,
    /// When it was created.
    pub created: Timestamp,
    /// How long events are kept.
    #[serde(default)]
    pub retention_days: Option<u32>,
}

impl StreamDescription {
    /// The segment for a routing key; without a key the index name serves as one, which gives the whole index one order.
    pub fn route(&self, key: Option<&RoutingKey>) -> Option<SegmentRange> {
        let hash = key.map_or_else(|| types::hash64(self.index.as_str().as_bytes()), RoutingKey::hash);
        self.segments.iter().find(|s| s.range.contains(hash)).copied()
    }
}

/// Every stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamList {
    /// In order of creation.
    pub streams: Vec<StreamDescription>,
}
