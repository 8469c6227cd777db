//! Scopes, streams, their segments, transactions, reader groups, and where the containers are.

mod group;
mod library;
mod policy;
mod restore;
mod scale;
mod transaction;

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, RoutingKey, ScopeName, SegmentId, StreamCut, Tag, Timestamp};

pub use group::{Consumed, CutKind, GroupConfig, GroupDescription, GroupList, GroupRetention, GroupsOf, NamedGroup};
pub use library::{
    Expected, Item, ItemBody, ItemChange, ItemKind, ItemList, ItemPlace, ItemRemoval, ItemsOf, LIBRARY_TEXT_MAX,
    Lookup, LookupColumn, LookupKind, SavedSearch, TextLanguage, UploadOf, UploadPlace, View,
};
pub use policy::{RetentionChange, RetentionPolicy, ScalingPolicy};
pub use restore::{Reservation, RestoredSegment, StreamRestore};
pub use scale::{EpochPage, EpochRecord, EpochsOf, Scale, SegmentNode, SegmentNodes, SegmentsOf, SuccessorsOf};
pub use transaction::{
    NewTransaction, Transaction, TransactionList, TransactionName, TransactionPhase, TransactionPing, TransactionShare,
    TransactionsOf,
};

pub use crate::page::{PAGE_BYTES_MAX, PAGE_MAX, Page};
use crate::{
    Empty,
    delegation::{Granted, Touched},
    views::Placement,
};

calls! {
    /// Creates the stream of an index with its epoch-0 segments, and its scope if it is not there; repeating it with the same arguments answers the same.
    CreateStream(NewStream) -> StreamDescription; "lb.v1.coordinator.streams.create" [()] @ Coordinator, Idempotent
    /// Describes the stream of an index. NotFound: `UnknownIndex`.
    DescribeStream(StreamName) -> StreamDescription; "lb.v1.coordinator.streams.describe" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())
    /// Lists every stream, or those of a scope or with a tag, in order of creation, in pages.
    ListStreams(StreamsOf) -> StreamList; "lb.v1.coordinator.streams.list" [()] @ Coordinator, Idempotent
    /// Changes policies and tags of a stream.
    UpdateStream(StreamUpdate) -> StreamDescription; "lb.v1.coordinator.streams.update" [()] @ Coordinator, Idempotent
    /// Makes a stream begin at a cut; what lies before is never read again. The cut must cover the key space once. Kinds: `UnknownIndex`, `InvalidCut`.
    TruncateStream(TruncateAt) -> StreamDescription; "lb.v1.coordinator.streams.truncate" [()] @ Coordinator, Idempotent
    /// Ends a stream: no append succeeds afterwards; sealing again answers the same.
    SealStream(StreamName) -> StreamDescription; "lb.v1.coordinator.streams.seal" [()] @ Coordinator, Idempotent
    /// Deletes a stream with all its segments and chunks; deleting what is not there succeeds.
    DeleteStream(StreamName) -> Empty; "lb.v1.coordinator.streams.delete" [()] @ Coordinator, Idempotent

    /// Lists the versions of an encrypted stream's key. Kinds: `UnknownIndex`, `NotEncrypted`, `IndexKeyDestroyed`.
    DescribeIndexKeys(StreamName) -> IndexKeyList; "lb.v1.coordinator.keys.describe" [()] @ Coordinator, Idempotent
    /// Gives an encrypted stream the next version of its key: what is sealed from now on is sealed with it. Kinds: `UnknownIndex`, `NotEncrypted`, `IndexKeyDestroyed`, `TooManyIndexKeys`.
    RotateIndexKey(StreamName) -> IndexKeyList; "lb.v1.coordinator.keys.rotate" [()] @ Coordinator, Never

    /// Takes a stream number for a restore, so that no other stream gets it; a repeat changes nothing. Kinds: `StreamNumberTaken`.
    ReserveStream(Reservation) -> Reservation; "lb.v1.coordinator.streams.reserve" [()] @ Coordinator, Idempotent
    /// Makes a stream of segments that their containers have adopted; a repeat changes nothing. Kinds: `StreamNumberTaken`, `StreamDiffers`, `InvalidRestore`.
    RestoreStream(StreamRestore) -> StreamDescription; "lb.v1.coordinator.streams.restore" [()] @ Coordinator, Idempotent

    /// Replaces segments by others that cover the same keys; answers when the new epoch is open. Repeating it after it was done answers the same. Kinds: `UnknownIndex`, `InvalidScale`, `StreamSealed`.
    ScaleStream(Scale) -> StreamDescription; "lb.v1.coordinator.streams.scale" [()] @ Coordinator, Idempotent
    /// Lists the segments of a stream, sealed ones included, by id, in pages.
    ListSegments(SegmentsOf) -> SegmentNodes; "lb.v1.coordinator.segments.list" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())
    /// Lists what follows a sealed segment, each with everything that it follows. Empty while the segment is open.
    ListSuccessors(SuccessorsOf) -> SegmentNodes; "lb.v1.coordinator.segments.successors" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())
    /// Lists the epochs of a stream in pages.
    ListEpochs(EpochsOf) -> EpochPage; "lb.v1.coordinator.epochs.list" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())

    /// Creates a scope; creating it again succeeds.
    CreateScope(ScopeRef) -> Empty; "lb.v1.coordinator.scopes.create" [()] @ Coordinator, Idempotent
    /// Deletes an empty scope, or, if asked to, one with everything in it. Kinds: `ScopeNotEmpty`.
    DeleteScope(ScopeDeletion) -> Empty; "lb.v1.coordinator.scopes.delete" [()] @ Coordinator, Idempotent
    /// Lists every scope by name, in pages.
    ListScopes(ScopesOf) -> ScopeList; "lb.v1.coordinator.scopes.list" [()] @ Coordinator, Idempotent

    /// Opens a transaction over the present segments. Kinds: `UnknownIndex`, `StreamSealed`, `TooManyTransactions`.
    BeginTransaction(NewTransaction) -> Transaction; "lb.v1.coordinator.transactions.begin" [()] @ Coordinator, Never, Write(|r| (&r.index).into())
    /// Renews a transaction's lease. Kinds: `UnknownTransaction`, `TransactionOver`.
    PingTransaction(TransactionPing) -> Transaction; "lb.v1.coordinator.transactions.ping" [()] @ Coordinator, Idempotent, Write(|r| (&r.index).into())
    /// Makes a transaction's events visible, all or none; answers when they are. Kinds: `UnknownTransaction`, `TransactionOver`.
    CommitTransaction(TransactionName) -> Transaction; "lb.v1.coordinator.transactions.commit" [()] @ Coordinator, Idempotent, Write(|r| (&r.index).into())
    /// Drops a transaction's events. Kinds: `UnknownTransaction`, `TransactionOver`.
    AbortTransaction(TransactionName) -> Transaction; "lb.v1.coordinator.transactions.abort" [()] @ Coordinator, Idempotent, Write(|r| (&r.index).into())
    /// Describes a transaction. Kinds: `UnknownTransaction`.
    DescribeTransaction(TransactionName) -> Transaction; "lb.v1.coordinator.transactions.describe" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())
    /// Lists the transactions of a stream that are open, and the last that ended; the last begun first, in pages.
    ListTransactions(TransactionsOf) -> TransactionList; "lb.v1.coordinator.transactions.list" [()] @ Coordinator, Idempotent, Describe(|r| (&r.index).into())

    /// Creates a reader group; repeating it with the same configuration succeeds. Kinds: `GroupDiffers`, `UnknownIndex`, `InvalidCut`.
    CreateGroup(GroupConfig) -> GroupDescription; "lb.v1.coordinator.groups.create" [()] @ Coordinator, Idempotent
    /// Gives a reader group another configuration and the next generation: its readers begin again.
    ResetGroup(GroupConfig) -> GroupDescription; "lb.v1.coordinator.groups.reset" [()] @ Coordinator, Never
    /// Describes a reader group. Kinds: `UnknownGroup`.
    DescribeGroup(NamedGroup) -> GroupDescription; "lb.v1.coordinator.groups.describe" [()] @ Coordinator, Idempotent
    /// Lists every reader group, or those of a scope, by name, in pages.
    ListGroups(GroupsOf) -> GroupList; "lb.v1.coordinator.groups.list" [()] @ Coordinator, Idempotent
    /// Deletes a reader group; deleting what is not there succeeds.
    DeleteGroup(NamedGroup) -> Empty; "lb.v1.coordinator.groups.delete" [()] @ Coordinator, Idempotent
    /// Tells up to where a subscribing reader group has consumed a stream; a cut before the last one changes nothing. Kinds: `UnknownGroup`, `InvalidCut`.
    ReportConsumed(Consumed) -> Empty; "lb.v1.coordinator.groups.consumed" [()] @ Coordinator, Idempotent

    /// Lists what the library of an index holds, by name, in pages. Kinds: `UnknownIndex`.
    ListItems(ItemsOf) -> ItemList; "lb.v1.coordinator.library.list" [()] @ Coordinator, Idempotent
    /// Describes one item of a library. Kinds: `UnknownIndex`, `UnknownItem`.
    DescribeItem(ItemPlace) -> Item; "lb.v1.coordinator.library.describe" [()] @ Coordinator, Idempotent
    /// Puts an item into a library, or another in its place; what is there already in this form stays as it is. Kinds: `UnknownIndex`, `ItemChanged`, `ItemKindDiffers`, `InvalidItem`, `UploadExpired`, `TooManyItems`.
    PutItem(ItemChange) -> Item; "lb.v1.coordinator.library.put" [()] @ Coordinator, Idempotent
    /// Takes an item out of a library; taking out what is not there succeeds. Kinds: `UnknownIndex`, `ItemChanged`.
    DeleteItem(ItemRemoval) -> Empty; "lb.v1.coordinator.library.delete" [()] @ Coordinator, Idempotent
    /// Says where the table of a lookup may be put into object storage before its item is. Kinds: `UnknownIndex`, `TooManyItems`.
    ReserveUpload(UploadOf) -> UploadPlace; "lb.v1.coordinator.library.reserve" [()] @ Coordinator, Never

    /// Signs what a program outside the platform shows with its calls: which stream its index is. Asked for under its binding's subject, which says who it is. Kinds: `UnknownIndex`.
    GrantDelegation(Empty) -> Granted; "lb.v1.coordinator.delegations.grant" [()] @ Coordinator, Idempotent, Grant(|_| Touched::Nothing)

    /// Answers where every container is.
    DescribePlacement(Empty) -> Placement; "lb.v1.coordinator.placement.describe" [()] @ Coordinator, Idempotent
}

events! {
    /// A container moved to another replica.
    ContainerMoved(Placement); "lb.v1.evt.coordinator.container.{container}.moved" [ContainerId] @ Coordinator
}

/// What a tag begins with that names the service instance which a stream is; only the platform gives such tags.
pub const INSTANCE_TAG_PREFIX: &str = "instance-";

/// A stream to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewStream {
    /// The tenant.
    pub scope: ScopeName,
    /// The index that owns the stream.
    pub index: IndexName,
    /// Segments of epoch 0: 1 to 64.
    pub segment_count: u16,
    /// How long events are kept; `None` keeps them for ever. Shorthand for a policy by time.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// When segments are split and merged.
    #[serde(default)]
    pub scaling: ScalingPolicy,
    /// What goes first when there is too much; overrides `retention_days`.
    #[serde(default)]
    pub retention: Option<RetentionPolicy>,
    /// Labels: at most 16.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whether what it has in object storage is sealed with a key of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

impl NewStream {
    /// A stream that neither scales nor forgets.
    pub fn fixed(scope: ScopeName, index: IndexName, segment_count: u16) -> Self {
        let (retention_days, scaling, retention) = (None, ScalingPolicy::default(), None);
        let (tags, encrypted) = (Vec::new(), false);
        Self { scope, index, segment_count, retention_days, scaling, retention, tags, encrypted }
    }
}

/// Names a stream by its index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamName {
    /// The index.
    pub index: IndexName,
}

/// Which streams to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsOf {
    /// Only of this scope.
    #[serde(default)]
    pub scope: Option<ScopeName>,
    /// Only with this tag.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// Begin behind the stream of this number.
    #[serde(default)]
    pub after: Option<u32>,
    /// At most so many.
    #[serde(default)]
    pub limit: Page,
}

/// Changes of a stream; `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamUpdate {
    /// The index.
    pub index: IndexName,
    /// When segments are split and merged.
    #[serde(default)]
    pub scaling: Option<ScalingPolicy>,
    /// What goes first when there is too much.
    #[serde(default)]
    pub retention: Option<RetentionChange>,
    /// Labels.
    #[serde(default)]
    pub tags: Option<Vec<Tag>>,
}

/// A new beginning of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruncateAt {
    /// The index.
    pub index: IndexName,
    /// The first events that stay.
    pub cut: StreamCut,
}

/// Names a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRef {
    /// The scope.
    pub scope: ScopeName,
}

/// A scope to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeDeletion {
    /// The scope.
    pub scope: ScopeName,
    /// Delete its streams and reader groups too.
    #[serde(default)]
    pub recursive: bool,
}

/// Which scopes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopesOf {
    /// Begin behind this scope, which need not be there.
    #[serde(default)]
    pub after: Option<ScopeName>,
    /// At most so many.
    #[serde(default)]
    pub limit: Page,
}

/// Scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeList {
    /// By name.
    pub scopes: Vec<ScopeName>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
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
    /// When segments are split and merged.
    #[serde(default)]
    pub scaling: ScalingPolicy,
    /// What goes first when there is too much.
    #[serde(default)]
    pub retention: Option<RetentionPolicy>,
    /// Labels.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whether it takes appends no more.
    #[serde(default)]
    pub sealed: bool,
    /// The first events that are still there; a segment that it does not name is there from its beginning.
    #[serde(default)]
    pub head: StreamCut,
    /// Whether what it has in object storage is sealed with a key of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

impl StreamDescription {
    /// A stream in its first epoch that neither scales nor forgets.
    pub fn new(
        (stream, created): (u32, Timestamp),
        scope: ScopeName,
        index: IndexName,
        segments: Vec<SegmentRange>,
    ) -> Self {
        let (epoch, retention_days, scaling, retention) = (0, None, ScalingPolicy::default(), None);
        let (tags, sealed, head, encrypted) = (Vec::new(), false, StreamCut::default(), false);
        Self {
            stream,
            scope,
            index,
            epoch,
            segments,
            created,
            retention_days,
            scaling,
            retention,
            tags,
            sealed,
            head,
            encrypted,
        }
    }

    /// The segment for a routing key; without a key the index name serves as one, which gives the whole index one order.
    pub fn route(&self, key: Option<&RoutingKey>) -> Option<SegmentRange> {
        self.route_hash(self.hash(key))
    }

    /// The place of a key, or of no key, in the hash space.
    pub fn hash(&self, key: Option<&RoutingKey>) -> u64 {
        key.map_or_else(|| types::hash64(self.index.as_str().as_bytes()), RoutingKey::hash)
    }

    /// The present segment for a place in the hash space.
    pub fn route_hash(&self, hash: u64) -> Option<SegmentRange> {
        // They come in order of their ranges, of which a wide stream has ten thousand; nobody promises it, though.
        let near = self.segments.partition_point(|s| s.range.last < hash);
        let near = self.segments.get(near).filter(|s| s.range.contains(hash));
        near.or_else(|| self.segments.iter().find(|s| s.range.contains(hash))).copied()
    }
}

/// The versions of the key of an encrypted stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKeyList {
    /// The stream's number.
    pub stream: u32,
    /// Ascending; the last one seals.
    pub versions: Vec<IndexKeyVersion>,
}

/// One version of a key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKeyVersion {
    /// The version.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The name of the master key by which it is wrapped.
    pub master: String,
}

/// Streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamList {
    /// In order of creation.
    pub streams: Vec<StreamDescription>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_segment_in_whatever_order_they_come() {
        let segment = |number| SegmentId { stream: 1, epoch: 0, number };
        let place = |(number, range)| SegmentRange { segment: segment(number), container: ContainerId(0), range };
        let mut segments: Vec<SegmentRange> = (0..).zip(KeyRange::split_evenly(5)).map(place).collect();
        for _ in 0..segments.len() {
            segments.rotate_left(2);
            segments.swap(0, 3);
            let (scope, index) = ("team".parse().unwrap(), "shop".parse().unwrap());
            let stream = StreamDescription::new((1, Timestamp::default()), scope, index, segments.clone());
            for there in &segments {
                for hash in [there.range.first, there.range.last] {
                    assert_eq!(stream.route_hash(hash), Some(*there), "{hash}");
                }
            }
        }
    }

    #[test]
    fn whoever_asks_without_a_page_gets_the_first() {
        let asked = crate::encode(&crate::Empty {});
        assert_eq!(crate::decode::<ScopesOf>(&asked).unwrap(), ScopesOf::default());
        assert_eq!(crate::decode::<StreamsOf>(&asked).unwrap(), StreamsOf::default());
        assert_eq!(crate::decode::<GroupsOf>(&asked).unwrap(), GroupsOf::default());
        let named = StreamName { index: "shop".parse().unwrap() };
        let all = TransactionsOf::all(named.index.clone());
        assert_eq!(crate::decode::<TransactionsOf>(&crate::encode(&named)).unwrap(), all);
        assert_eq!(all.limit, Page(PAGE_MAX));
    }
}
