//! What somebody wants of the coordinator, and what happened.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, IndexName, KeyRange, ScopeName, SegmentId, StreamCut};
use wire::coordinator::{NewStream, Reservation, StreamRestore, StreamUpdate};

use super::{Changed, graph::Scaling};
use crate::{
    groups, library,
    placement::{Changes, Store},
    retention, transactions,
};

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes down the number of containers at the first start, and checks it at every later one.
    Install {
        /// `common.container_count`.
        container_count: u16,
    },
    /// Begins a leadership.
    Lead,
    /// Creates a scope, or finds it.
    CreateScope {
        /// The scope.
        scope: ScopeName,
    },
    /// Begins the deletion of a scope.
    BeginScopeDeletion {
        /// The scope.
        scope: ScopeName,
        /// Also if there is something in it.
        recursive: bool,
    },
    /// All streams of the scope are deleted.
    EndScopeDeletion {
        /// The scope.
        scope: ScopeName,
    },
    /// Begins a stream, or finds it.
    BeginStream(NewStream),
    /// The same of a stream that is no service instance's, unless its scope is full.
    BeginStreamBeside {
        /// The stream.
        new: NewStream,
        /// So many streams its scope may hold.
        most: u64,
    },
    /// All segments of the stream are created.
    EndStream {
        /// The stream.
        stream: u32,
        /// Its index.
        index: IndexName,
    },
    /// Takes a stream number for a restore.
    ReserveStream(Reservation),
    /// Makes a stream of segments that are there, or finds it.
    RestoreStream(StreamRestore),
    /// Changes policies and tags.
    UpdateStream(StreamUpdate),
    /// Begins to replace segments, or finds that it was begun or done.
    BeginScale {
        /// The index.
        index: IndexName,
        /// Segments that end.
        seal: Vec<SegmentId>,
        /// Ranges of those that begin.
        ranges: Vec<KeyRange>,
        /// Where they are, one for each range; `None` leaves it to the hash of their ids.
        containers: Option<Vec<ContainerId>>,
        /// Whether the commit of a transaction needs it; others wait for the commit.
        for_commit: bool,
    },
    /// All segments of the begun epoch are there, and those that it replaces are sealed.
    EndScale {
        /// The stream.
        stream: u32,
        /// The epoch.
        epoch: u32,
    },
    /// Begins to take away what lies before a cut.
    BeginTruncation {
        /// The index.
        index: IndexName,
        /// The first events that stay.
        cut: StreamCut,
    },
    /// The stores have taken it away.
    EndTruncation {
        /// The stream.
        stream: u32,
        /// Which truncation.
        number: u64,
    },
    /// Begins to end a stream.
    BeginSeal {
        /// Its index.
        index: IndexName,
    },
    /// All its segments are sealed.
    EndSeal {
        /// The stream.
        stream: u32,
    },
    /// Begins the deletion of a stream.
    BeginDeletion {
        /// Its index.
        index: IndexName,
    },
    /// All segments of the stream are deleted.
    EndDeletion {
        /// The stream.
        stream: u32,
    },
    /// Looks at the living stores and places containers.
    Place {
        /// The living stores.
        stores: Vec<Store>,
        /// Shortest time between two moves for the sake of balance.
        rebalance_min_interval: Duration,
    },
    /// About transactions.
    Transactions(transactions::Command),
    /// About reader groups.
    Groups(groups::Command),
    /// About remembered cuts.
    Retention(retention::Command),
    /// About libraries.
    Library(library::Command),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The installation has this many containers for ever.
    Installed {
        /// A power of two.
        container_count: u16,
    },
    /// A replica leads. What former leaders have sent and stores have not done yet is void.
    LeaderBegan {
        /// Its generation, given once.
        generation: Generation,
    },
    /// A stream has a number; its segments are being created. Its scope is there.
    StreamBegun {
        /// Its number, never used again.
        stream: u32,
        /// What was asked for.
        new: NewStream,
    },
    /// No other stream gets this number.
    StreamReserved {
        /// The number.
        stream: u32,
    },
    /// A stream is back with all its segments, and can be used.
    StreamRestored {
        /// As it was.
        restore: StreamRestore,
    },
    /// A stream can be used.
    StreamCreated {
        /// The stream.
        stream: u32,
    },
    /// A stream can be used no more.
    StreamDeletionBegun {
        /// The stream.
        stream: u32,
    },
    /// Nothing of the stream is left.
    StreamDeleted {
        /// The stream.
        stream: u32,
    },
    /// Containers have new owners.
    ContainersPlaced(Changes),
    /// There is a scope.
    ScopeCreated {
        /// The scope.
        scope: ScopeName,
    },
    /// A scope takes nothing new; what is in it is being deleted.
    ScopeDeletionBegun {
        /// The scope.
        scope: ScopeName,
    },
    /// Nothing of the scope is left.
    ScopeDeleted {
        /// The scope.
        scope: ScopeName,
    },
    /// A stream has other policies or tags.
    StreamUpdated {
        /// The stream.
        stream: u32,
        /// How it is now.
        changed: Changed,
    },
    /// Segments are being replaced; the numbers of the new ones are taken.
    ScaleBegun {
        /// The stream.
        stream: u32,
        /// Which by which.
        scaling: Scaling,
    },
    /// The begun epoch is open.
    EpochOpened {
        /// The stream.
        stream: u32,
        /// The epoch.
        epoch: u32,
    },
    /// Nothing before the cut is ever read again; the stores have still to take it away.
    StreamTruncated {
        /// The stream.
        stream: u32,
        /// The head.
        cut: StreamCut,
    },
    /// The stores have taken away what lies before the head.
    TruncationEnded {
        /// The stream.
        stream: u32,
        /// Which truncation.
        number: u64,
    },
    /// The segments of a stream are being sealed for good.
    SealBegun {
        /// The stream.
        stream: u32,
    },
    /// A stream takes appends no more.
    StreamSealed {
        /// The stream.
        stream: u32,
    },
    /// About transactions.
    Transactions(transactions::Event),
    /// About reader groups.
    Groups(groups::Event),
    /// About remembered cuts.
    Retention(retention::Event),
    /// About libraries.
    Library(library::Event),
}
