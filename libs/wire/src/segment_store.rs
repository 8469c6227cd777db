//! Appends to and reads from segments, addressed by container.

mod adopt;
mod fragment;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, IndexName, Offset, ReplicaId, SegmentId, Timestamp, WriterId};

pub use adopt::{Adoption, GarbageOf, GarbagePage, Quarantine, Quarantined, SegmentOrigin};
pub use fragment::{
    FRAGMENT_BYTES_MAX, FRAGMENT_PART_BYTES_MAX, FRAGMENT_RUNS_MAX, FRAGMENT_TEXT_MAX, Fragment, FragmentAnswer,
    FragmentPart, RowColumns, RowRun, RowsOf,
};

use crate::Empty;

calls! {
    /// Appends one block of events to a segment; durable in Tier 1 when it returns. Repeating it with the same writer and event number appends nothing again. Kinds: `UnknownSegment`, `SegmentSealed`, `EventNumberGap`, `ConditionFailed`, `EventTooLarge`, `Fenced`, `Throttled`.
    AppendEvents(Append) -> Appended; "lb.v1.segment-store.container.{container}.append" [ContainerId] @ SegmentStore, Deduplicated, Write(|r| r.segment.into())
    /// Creates an empty segment; creating it again succeeds. What writers have in its predecessors is copied, so that a repeat is recognised after a scale.
    CreateSegment(NewSegment) -> Empty; "lb.v1.segment-store.container.{container}.create" [ContainerId] @ SegmentStore, Idempotent
    /// Seals a segment: no append succeeds afterwards; sealing again answers the same.
    SealSegment(SegmentName) -> SegmentInfo; "lb.v1.segment-store.container.{container}.seal" [ContainerId] @ SegmentStore, Idempotent
    /// Makes a segment begin later: events below the offset are never read again, and their chunks go. The start only grows. Kinds: `UnknownSegment`, `BeyondEnd`.
    TruncateSegment(Truncate) -> SegmentInfo; "lb.v1.segment-store.container.{container}.truncate" [ContainerId] @ SegmentStore, Idempotent
    /// Adds all events of a transaction's segment to the end of another one of the same container, at once and in order; the source is gone afterwards. Repeating it merges nothing again. Kinds: `UnknownSegment`, `SegmentSealed`.
    MergeSegment(Merge) -> Merged; "lb.v1.segment-store.container.{container}.merge" [ContainerId] @ SegmentStore, Deduplicated
    /// Deletes a segment and its chunks; deleting what is not there succeeds.
    DeleteSegment(SegmentName) -> Empty; "lb.v1.segment-store.container.{container}.delete" [ContainerId] @ SegmentStore, Idempotent
    /// Describes a segment. Kinds: `UnknownSegment`.
    DescribeSegment(SegmentName) -> SegmentInfo; "lb.v1.segment-store.container.{container}.describe" [ContainerId] @ SegmentStore, Idempotent, Describe(|r| r.segment.into())
    /// Reads events from an offset on: from the tail as columns, or the chunks that hold them. Kinds: `UnknownSegment`, `Truncated`.
    ReadSegment(ReadFrom) -> SegmentRead; "lb.v1.segment-store.container.{container}.read" [ContainerId] @ SegmentStore, Idempotent, Read(|r| r.segment.into())
    /// Answers the last event number that a writer has in a segment, so that it can send what lies above.
    DescribeWriter(WriterName) -> WriterInfo; "lb.v1.segment-store.container.{container}.writer" [ContainerId] @ SegmentStore, Idempotent, Describe(|r| r.segment.into())
    /// Answers everything by which a segment recognises repeats: for the owners of its successors.
    DescribeWriters(SegmentName) -> WriterTable; "lb.v1.segment-store.container.{container}.writers" [ContainerId] @ SegmentStore, Idempotent
    /// Describes a container: its owner, its log, its tail.
    DescribeContainer(Empty) -> ContainerInfo; "lb.v1.segment-store.container.{container}.inspect" [ContainerId] @ SegmentStore, Idempotent
    /// Lists the segments of a container by id, in pages.
    ListContainerSegments(PageOf) -> SegmentPage; "lb.v1.segment-store.container.{container}.segments" [ContainerId] @ SegmentStore, Idempotent
    /// Moves every event of a container to Tier 2 and writes a snapshot, whatever the flush rule says.
    FlushContainer(Empty) -> ContainerInfo; "lb.v1.segment-store.container.{container}.flush" [ContainerId] @ SegmentStore, Idempotent
    /// Creates a segment of chunks that are in object storage already, as a restore does; a repeat changes nothing. Kinds: `SegmentDiffers`, `SegmentDeleted`, `InvalidRestore`, `ChunkMissing`.
    AdoptSegment(Adoption) -> SegmentInfo; "lb.v1.segment-store.container.{container}.adopt" [ContainerId] @ SegmentStore, Idempotent
    /// Lists the objects of a container that nothing names any more and that wait for their removal, in pages.
    ListGarbage(GarbageOf) -> GarbagePage; "lb.v1.segment-store.container.{container}.garbage" [ContainerId] @ SegmentStore, Idempotent
    /// Moves objects of a segment that no state names, nor ever will, below `quarantine/`; others stay. Kinds: `UnknownSegment`.
    QuarantineObjects(Quarantine) -> Quarantined; "lb.v1.segment-store.container.{container}.quarantine" [ContainerId] @ SegmentStore, Idempotent
    /// Answers the columns of rows of segments that the container's replica owns, those of the tail included. Kinds: `ContainerUnavailable`, `Truncated`, `InvalidFragment`.
    DescribeRows(RowsOf) -> RowColumns; "lb.v1.segment-store.container.{container}.columns" [ContainerId] @ SegmentStore, Idempotent
    /// Begins a fragment of a query over rows of segments that the container's replica owns, and answers what it has after a while. Kinds: `ContainerUnavailable`, `Truncated`, `InvalidFragment`, `FragmentTooLarge`, `Throttled`.
    RunFragment(Fragment) -> FragmentAnswer; "lb.v1.segment-store.container.{container}.fragment" [ContainerId] @ SegmentStore, Idempotent
    /// Answers a part of a fragment's result, or that it still runs. Kinds: `UnknownFragment`, and those of `RunFragment`.
    ReadFragment(FragmentPart) -> FragmentAnswer; "lb.v1.segment-store.container.{container}.fragment-part" [ContainerId] @ SegmentStore, Idempotent
}

events! {
    /// How much the segments of a container have taken so far; told every few seconds while something is appended.
    ContainerLoaded(ContainerLoad); "lb.v1.evt.segment-store.container.{container}.loaded" [ContainerId] @ SegmentStore
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
    /// Append only if this is the next offset to be given; a repeat of what is stored succeeds all the same.
    #[serde(default)]
    pub expected_end: Option<Offset>,
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
    /// The sealed segments whose keys it takes over.
    #[serde(default)]
    pub predecessors: Vec<SegmentPlace>,
    /// Whether it is a transaction's: its events stay out of Tier 2 and out of sight until they are merged.
    #[serde(default)]
    pub transactional: bool,
    /// What it is in its stream; its chunks say so from then on.
    #[serde(default)]
    pub origin: Option<SegmentOrigin>,
}

/// A segment and the container that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentPlace {
    /// The segment.
    pub segment: SegmentId,
    /// Its container.
    pub container: ContainerId,
}

/// A new start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncate {
    /// The segment.
    pub segment: SegmentId,
    /// The first offset that stays; at most the segment's end.
    pub before: Offset,
}

/// A transaction's segment to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Where to.
    pub segment: SegmentId,
    /// The transaction's segment; a segment of the same container.
    pub source: SegmentId,
}

/// Where merged events went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The offset of the first, or where it would be.
    pub from: Offset,
    /// How many; 0 for an empty source, and for a repeat.
    pub count: u64,
    /// Whether they had been merged before.
    pub repeated: bool,
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

/// The last event number of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterLast {
    /// The writer.
    pub writer: WriterId,
    /// Its last event number.
    pub last: u64,
}

/// By what a segment recognises repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterTable {
    /// Writers by id.
    pub writers: Vec<WriterLast>,
    /// Message ids of late with time of receipt in nanoseconds and offset, oldest first: `id u128 | received i64 | offset u64`, little endian.
    pub ids: Bytes,
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
    /// The chunks that hold `start .. tail_from`, in order; the first may begin before `start`.
    pub chunks: Vec<ChunkMeta>,
    /// Payload bytes of all events ever stored, also of truncated ones.
    #[serde(default)]
    pub bytes: u64,
    /// How many of them are truncated, about: counted in whole chunks.
    #[serde(default)]
    pub truncated_bytes: u64,
    /// Whether it belongs to an open transaction.
    #[serde(default)]
    pub transactional: bool,
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

/// A page of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageOf {
    /// Begin behind this segment.
    #[serde(default)]
    pub after: Option<SegmentId>,
    /// At most so many, 1 to 1 000.
    pub limit: u32,
}

/// Segments of a container; their chunks are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPage {
    /// In order of their ids.
    pub segments: Vec<SegmentInfo>,
    /// Whether there are more.
    pub more: bool,
}

/// A container at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// The container.
    pub container: ContainerId,
    /// Its owner.
    pub replica: ReplicaId,
    /// The owner's generation.
    pub generation: Generation,
    /// What is wrong with its log; `None` while it takes appends.
    pub damage: Option<String>,
    /// The sequence of the last record applied.
    pub applied_seq: u64,
    /// The number of the last frame.
    pub frame_number: u64,
    /// How many segments it has.
    pub segment_count: u64,
    /// How many chunks they have.
    pub chunk_count: u64,
    /// Bytes of events that are not in Tier 2.
    pub tail_bytes: u64,
    /// Bytes in its log, about.
    pub log_bytes: u64,
    /// Objects that nothing names any more and that wait for their removal.
    pub garbage_count: u64,
}

/// How much the segments of a container have taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLoad {
    /// The container.
    pub container: ContainerId,
    /// The teller's generation; of two tellers the one with the smaller one is stale.
    pub generation: Generation,
    /// When it was measured.
    pub at: Timestamp,
    /// Segments that took anything since the last time; of the rest nothing is known but that they were idle.
    pub segments: Vec<SegmentLoad>,
}

/// How much a segment has taken since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentLoad {
    /// The segment.
    pub segment: SegmentId,
    /// Events.
    pub events: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// The fence of a container: written by each new owner, conditional on the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The owner's generation.
    pub generation: Generation,
    /// The owner.
    pub replica: ReplicaId,
}
