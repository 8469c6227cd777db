//! Appends to and reads from segments, addressed by container.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, IndexName, Offset, ReplicaId, SegmentId, Timestamp, WriterId};

use crate::Empty;

calls! {
    /// Appends one block of events to a segment; durable in Tier 1 when it returns. Repeating it with the same writer and event number appends nothing again. Kinds: `UnknownSegment`, `SegmentSealed`, `EventNumberGap`, `EventTooLarge`, `Fenced`, `Throttled`.
    AppendEvents(Append) -> Appended; "lb.v1.segment-store.container.{container}.append" [ContainerId] @ SegmentStore, Deduplicated
    /// Creates an empty segment; creating it again succeeds.
    CreateSegment(NewSegment) -> Empty; "lb.v1.segment-store.container.{container}.create" [ContainerId] @ SegmentStore, Idempotent
    /// Seals a segment: no append succeeds afterwards; sealing again answers the same.
    SealSegment(SegmentName) -> SegmentInfo; "lb.v1.segment-store.container.{container}.seal" [ContainerId] @ SegmentStore, Idempotent
    /// Deletes a segment and its chunks; deleting what is not there succeeds.
    DeleteSegment(SegmentName) -> Empty; "lb.v1.segment-store.container.{container}.delete" [ContainerId] @ SegmentStore, Idempotent
    /// Describes a segment. Kinds: `UnknownSegment`.
    DescribeSegment(SegmentName) -> SegmentInfo; "lb.v1.segment-store.container.{container}.describe" [ContainerId] @ SegmentStore, Idempotent
    /// Reads events from an offset on: from the tail as columns, or the chunks that hold them. Kinds: `UnknownSegment`, `Truncated`.
    ReadSegment(ReadFrom) -> SegmentRead; "lb.v1.segment-store.container.{container}.read" [ContainerId] @ SegmentStore, Idempotent
    /// Answers the last event number that a writer has in a segment, so that it can send what lies above.
    DescribeWriter(WriterName) -> WriterInfo; "lb.v1.segment-store.container.{container}.writer" [ContainerId] @ SegmentStore, Idempotent
}

/// A block of events to append.
///
/// Events of a writer are numbered from 1 without gaps within a segment: the block holds the numbers
/// `first_event_number .. first_event_number + count`. Numbers at or below the writer's last are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The segment.
    pub segment: SegmentId,
    /// Who writes.
    pub writer: WriterId,
    /// The number of the block's first event.
    pub first_event_number: u64,
    /// The events, see [`crate::block`].
    pub block: Bytes,
}

/// Where a block went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// One offset per event of the block; `None` where it was dropped as a duplicate and its offset is no longer known.
    pub offsets: Vec<Option<Offset>>,
    /// How many events were duplicates.
    pub duplicate_count: u32,
    /// Which events were duplicates, by place in the block.
    #[serde(default)]
    pub duplicates: Vec<u32>,
}

/// A segment to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSegment {
    /// The segment.
    pub segment: SegmentId,
    /// The index that it belongs to; names its chunks.
    pub index: IndexName,
}

/// Names a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentName {
    /// The segment.
    pub segment: SegmentId,
}

/// Names a writer in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterName {
    /// The segment.
    pub segment: SegmentId,
    /// The writer.
    pub writer: WriterId,
}

/// What is known of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterInfo {
    /// The last event number stored; 0 for a writer never seen.
    pub last_event_number: u64,
}

/// One immutable object of Tier 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkMeta {
    /// The object's key.
    pub key: String,
    /// The first offset in it.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
    /// Its size.
    pub bytes: u64,
    /// The earliest event time in it.
    pub time_min: Timestamp,
    /// The latest event time in it.
    pub time_max: Timestamp,
}

/// A segment at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// The segment.
    pub segment: SegmentId,
    /// The index.
    pub index: IndexName,
    /// The first offset still there; grows by truncation only.
    pub start: Offset,
    /// The first offset not yet in Tier 2.
    pub tail_from: Offset,
    /// The next offset to be given.
    pub end: Offset,
    /// Whether it takes appends no more.
    pub sealed: bool,
    /// The chunks that hold `start .. tail_from`, in order.
    pub chunks: Vec<ChunkMeta>,
}

/// A read request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFrom {
    /// The segment.
    pub segment: SegmentId,
    /// The first offset wanted.
    pub from: Offset,
    /// How many bytes of columns to answer at most; the store caps it at 768 KiB, but always answers at least one block.
    pub bytes_max: u32,
    /// How long to wait for an event when there is none: 0 to 10 000 ms.
    pub wait_ms: u32,
}

/// An answer to a read: either chunks to read from Tier 2, or columns from the tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRead {
    /// The first offset answered.
    pub from: Offset,
    /// The offset to ask for next; equal to `from` when there is nothing, or when `chunks` are given.
    pub next: Offset,
    /// The next offset to be given at this instant.
    pub end: Offset,
    /// Whether the segment is sealed, so that `next == end` is its end.
    pub sealed: bool,
    /// Chunks that hold `from` and what follows, at most 64; when given there are no columns.
    #[serde(default)]
    pub chunks: Vec<ChunkMeta>,
    /// One Arrow IPC stream with the rows `from .. next`; empty when there are none.
    #[serde(default)]
    pub columns: Bytes,
}

/// The fence of a container: written by each new owner, conditional on the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The owner's generation.
    pub generation: Generation,
    /// The owner.
    pub replica: ReplicaId,
}
