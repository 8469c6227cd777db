//! The coordinator's truth: scopes, streams, their segments, and who owns which container. Pure.

mod decide;
mod event;
pub mod graph;
mod restore;
mod stream;

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{Generation, IndexName, KeyRange, ScopeName, SegmentId, Timestamp};
use wire::{
    Service,
    coordinator::{NewStream, SegmentRange, StreamDescription},
    views::Placement,
};

use crate::{
    error::CoordinatorError,
    groups::Groups,
    library::Libraries,
    placement::{Placed, Store},
    retention::Retained,
    transactions::Transactions,
};
use graph::Graph;

pub use event::{Command, Event};
pub(crate) use stream::is_of_instance;
pub use stream::{Changed, Phase, Stream, Truncation};

/// Streams of one installation: each costs a row here and a view.
pub const STREAMS_MAX: usize = 100_000;

/// Segments with which a stream begins.
pub const SEGMENTS_MAX: u16 = 64;

/// Scopes of one installation.
pub const SCOPES_MAX: usize = 100_000;

/// Labels of one stream.
pub const TAGS_MAX: usize = 16;

/// How far a scope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScopePhase {
    /// It can be used.
    Live,
    /// What is in it is being deleted.
    Deleting,
}

/// The coordinator's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct State {
    /// 0 until installed.
    container_count: u16,
    next_stream: u32,
    streams: BTreeMap<u32, Stream>,
    by_index: BTreeMap<IndexName, u32>,
    placed: Placed,
    scopes: BTreeMap<ScopeName, ScopePhase>,
    transactions: Transactions,
    groups: Groups,
    retention: Retained,
    library: Libraries,
    /// The generation of the last leader.
    leader: Generation,
}

/// The state as it is stored. Its first form knew no scopes but those of its streams.
#[derive(Deserialize)]
struct Kept {
    container_count: u16,
    next_stream: u32,
    streams: BTreeMap<u32, Stream>,
    by_index: BTreeMap<IndexName, u32>,
    placed: Placed,
    #[serde(default)]
    scopes: Option<BTreeMap<ScopeName, ScopePhase>>,
    #[serde(default)]
    transactions: Transactions,
    #[serde(default)]
    groups: Groups,
    #[serde(default)]
    retention: Retained,
    #[serde(default)]
    library: Libraries,
    #[serde(default)]
    leader: Generation,
}

impl From<Kept> for State {
    fn from(kept: Kept) -> Self {
        let Kept { container_count, next_stream, streams, by_index, placed, scopes, leader, .. } = kept;
        let (transactions, groups, retention, library) = (kept.transactions, kept.groups, kept.retention, kept.library);
        let implied = || streams.values().map(|s| (s.summary().scope.clone(), ScopePhase::Live)).collect();
        let scopes = scopes.unwrap_or_else(implied);
        Self {
            container_count,
            next_stream,
            streams,
            by_index,
            placed,
            scopes,
            transactions,
            groups,
            retention,
            library,
            leader,
        }
    }
}

impl State {
    /// The number of containers; 0 until it is installed.
    pub fn container_count(&self) -> u16 {
        self.container_count
    }

    /// The stream of an index in whatever phase.
    pub fn stream(&self, index: &IndexName) -> Option<&Stream> {
        self.streams.get(self.by_index.get(index)?)
    }

    /// A stream by its number in whatever phase.
    pub fn stream_of(&self, number: u32) -> Option<&Stream> {
        self.streams.get(&number)
    }

    /// The stream of an index if it can be used.
    pub fn live_stream(&self, index: &IndexName) -> Result<&Stream, CoordinatorError> {
        let live = self.stream(index).filter(|stream| stream.phase() == Phase::Live);
        live.ok_or_else(|| CoordinatorError::UnknownIndex(index.clone()))
    }

    /// The description of a stream that can be used.
    pub fn describe(&self, index: &IndexName) -> Result<StreamDescription, CoordinatorError> {
        self.live_stream(index).map(Stream::describe)
    }

    /// The segments of a stream that can be used.
    pub fn graph(&self, index: &IndexName) -> Option<&Graph> {
        self.live_stream(index).ok().map(Stream::graph)
    }

    /// The streams that can be used, in order of creation.
    pub fn live(&self) -> impl Iterator<Item = &Stream> {
        self.live_behind(None)
    }

    /// The streams that can be used and were created after the one of a number, in order of creation.
    pub fn live_behind(&self, after: Option<u32>) -> impl Iterator<Item = &Stream> {
        let behind = self.streams.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, stream)| stream);
        behind.filter(|stream| stream.phase() == Phase::Live)
    }

    /// The highest number that a stream ever had; `None` before the first.
    pub fn newest_stream(&self) -> Option<u32> {
        self.next_stream.checked_sub(1)
    }

    /// The streams on which something was begun and not ended.
    pub fn pending(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values().filter(|stream| stream.is_pending())
    }

    /// Every scope by name, and how far it is; those behind a name.
    pub fn scopes(&self, after: Option<&ScopeName>) -> impl Iterator<Item = (&ScopeName, ScopePhase)> {
        let behind = self.scopes.range::<ScopeName, _>((after.map_or(Unbounded, Excluded), Unbounded));
        behind.map(|(scope, phase)| (scope, *phase))
    }

    /// How far a scope is.
    pub fn scope(&self, scope: &ScopeName) -> Option<ScopePhase> {
        self.scopes.get(scope).copied()
    }

    /// The streams of a scope in whatever phase.
    pub fn streams_in<'a>(&'a self, scope: &'a ScopeName) -> impl Iterator<Item = &'a Stream> {
        self.streams.values().filter(move |stream| stream.summary().scope == *scope)
    }

    /// Transactions.
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Reader groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Remembered cuts.
    pub fn retention(&self) -> &Retained {
        &self.retention
    }

    /// Libraries.
    pub fn library(&self) -> &Libraries {
        &self.library
    }

    /// Where every container is.
    pub fn placement(&self) -> Placement {
        self.placed.view(self.container_count)
    }

    fn first_graph(&self, stream: u32, new: &NewStream, at: Timestamp) -> Graph {
        let ranges = KeyRange::split_evenly(u32::from(new.segment_count));
        let segments = (0..).zip(ranges).map(|(number, range)| {
            let segment = SegmentId { stream, epoch: 0, number };
            SegmentRange { segment, container: segment.container(self.container_count), range }
        });
        Graph::first(stream, segments.collect(), at)
    }

    fn change(&mut self, stream: u32, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            change(stream);
        }
    }

    fn forget(&mut self, stream: u32, at: Timestamp) {
        let Some(gone) = self.streams.remove(&stream) else { return };
        let index = &gone.summary().index;
        self.by_index.remove(index);
        self.groups.forget_stream(index);
        self.transactions.forget(stream);
        self.retention.forget(stream);
        self.library.forget(stream, at);
    }

    fn place(&self, stores: &[Store], interval: Duration, now: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        if self.container_count == 0 {
            return Err(CoordinatorError::NotInstalled);
        }
        let may_rebalance = self.placed.rebalanced().is_none_or(|last| now.since(last) >= interval);
        let changes = self.placed.plan(self.container_count, stores, may_rebalance);
        Ok(if changes.is_empty() { Vec::new() } else { vec![Event::ContainersPlaced(changes)] })
    }
}

/// Events of one of the rooms as events of the journal.
fn wrapped<E>(events: Vec<E>, wrap: impl Fn(E) -> Event) -> Vec<Event> {
    events.into_iter().map(wrap).collect()
}

impl host::ControlState for State {
    const SERVICE: Service = Service::Coordinator;
    type Command = Command;
    type Event = Event;
    type Error = CoordinatorError;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        match command {
            Command::Install { container_count } => match self.container_count {
                0 => Ok(vec![Event::Installed { container_count }]),
                installed if installed == container_count => Ok(Vec::new()),
                installed => Err(CoordinatorError::ContainerCountChanged { installed, wanted: container_count }),
            },
            Command::Lead => Ok(vec![Event::LeaderBegan { generation: Generation(self.leader.0 + 1) }]),
            Command::CreateScope { scope } => self.create_scope(scope),
            Command::BeginScopeDeletion { scope, recursive } => self.begin_scope_deletion(scope, recursive),
            Command::EndScopeDeletion { scope } => Ok(self.end_scope_deletion(scope)),
            Command::BeginStream(new) => self.begin_stream(new),
            Command::BeginStreamBeside { new, most } => self.begin_stream_beside(new, most),
            Command::EndStream { stream, index } => self.end_stream(stream, index),
            Command::ReserveStream(wanted) => self.reserve_stream(wanted),
            Command::RestoreStream(restore) => self.restore_stream(restore),
            Command::UpdateStream(update) => self.update_stream(update),
            Command::BeginScale { index, seal, ranges, containers, for_commit } => {
                self.begin_scale(&index, &seal, &ranges, containers.as_deref(), for_commit)
            }
            Command::EndScale { stream, epoch } => Ok(self.end_scale(stream, epoch)),
            Command::BeginTruncation { index, cut } => self.begin_truncation(&index, &cut),
            Command::EndTruncation { stream, number } => Ok(self.end_truncation(stream, number)),
            Command::BeginSeal { index } => self.begin_seal(&index),
            Command::EndSeal { stream } => Ok(self.end_seal(stream)),
            Command::BeginDeletion { index } => Ok(self.begin_deletion(&index)),
            Command::EndDeletion { stream } => Ok(self.end_deletion(stream)),
            Command::Place { stores, rebalance_min_interval } => self.place(&stores, rebalance_min_interval, now),
            Command::Transactions(command) => {
                Ok(wrapped(self.transactions.decide(self, command, now)?, Event::Transactions))
            }
            Command::Groups(command) => Ok(wrapped(self.groups.decide(self, command, now)?, Event::Groups)),
            Command::Retention(command) => Ok(wrapped(self.retention.decide(self, command, now)?, Event::Retention)),
            Command::Library(command) => Ok(wrapped(self.library.decide(self, command, now)?, Event::Library)),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Installed { container_count } => self.container_count = *container_count,
            Event::LeaderBegan { generation } => self.leader = *generation,
            Event::StreamBegun { stream, new } => {
                let graph = self.first_graph(*stream, new, at);
                self.streams.insert(*stream, Stream::begun(graph, new, at));
                self.by_index.insert(new.index.clone(), *stream);
                self.scopes.entry(new.scope.clone()).or_insert(ScopePhase::Live);
                self.next_stream = stream + 1;
            }
            Event::StreamReserved { stream } => self.next_stream = self.next_stream.max(stream + 1),
            Event::StreamRestored { restore } => self.take_back(restore, at),
            Event::StreamCreated { stream } => self.change(*stream, |s| s.phase = Phase::Live),
            Event::StreamDeletionBegun { stream } => self.change(*stream, |s| s.phase = Phase::Deleting),
            Event::StreamDeleted { stream } => self.forget(*stream, at),
            Event::ContainersPlaced(changes) => self.placed.apply(changes, at),
            Event::ScopeCreated { scope } => drop(self.scopes.insert(scope.clone(), ScopePhase::Live)),
            Event::ScopeDeletionBegun { scope } => drop(self.scopes.insert(scope.clone(), ScopePhase::Deleting)),
            Event::ScopeDeleted { scope } => {
                self.scopes.remove(scope);
                self.groups.forget_scope(scope);
            }
            Event::StreamUpdated { stream, changed } => self.change(*stream, |s| s.update(changed)),
            Event::ScaleBegun { stream, scaling } => self.change(*stream, |s| s.graph.begin(scaling)),
            Event::EpochOpened { stream, epoch } => self.change(*stream, |s| s.graph.open(*epoch, at)),
            Event::StreamTruncated { stream, cut } => self.change(*stream, |s| s.truncate(cut)),
            Event::TruncationEnded { stream, number } => {
                self.change(*stream, |s| drop(s.truncation.take_if(|truncation| truncation.number == *number)));
            }
            Event::SealBegun { stream } => self.change(*stream, |s| s.sealing = true),
            Event::StreamSealed { stream } => self.change(*stream, |s| {
                (s.sealing, s.description.sealed) = (false, true);
            }),
            Event::Transactions(event) => self.transactions.apply(event, at),
            Event::Groups(event) => self.groups.apply(event, at),
            Event::Retention(event) => self.retention.apply(event, at),
            Event::Library(event) => self.library.apply(event, at),
        }
    }
}

#[cfg(test)]
#[path = "state/state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "state/replica_tests.rs"]
mod replica_tests;
