//! Carries out what is asked of streams and scopes: each begins with an event, has its effects, and ends with an event.

mod keys;
mod restore;
mod room;
mod shown;
mod work;

use std::{collections::BTreeSet, sync::Arc};

use bus::{Bucket, Bus};
use futures::{StreamExt, TryStreamExt, stream};
use host::{Host, IndexKeyring, Ledger};
use parking_lot::Mutex as Cell;
use tokio::sync::{Mutex, MutexGuard};
use types::{Clock, ContainerId, IndexName, KeyRange, Offset, ScopeName, SegmentId, StreamCut};
use wire::{
    Problem,
    coordinator::{NewStream, Scale, StreamDescription, StreamUpdate},
    segment_store::{DescribeSegment, SegmentName, SegmentPlace},
};

use crate::{
    error::CoordinatorError,
    metrics,
    state::{Command, ScopePhase, State, graph::CutError},
    stores::Stores,
    views::Views,
};

/// Calls to segment-store that one piece of work has in flight.
const SEGMENT_CALLS_MAX: usize = 16;

/// Streams whose unfinished work is resumed at the same time.
const RESUMED_MAX: usize = 8;

/// Locks that order the work on one index; indexes that share a lock wait for each other.
const TURNS: usize = 64;

/// The work on streams; only a leader uses it. Clones share it.
#[derive(Clone)]
pub(crate) struct Streams {
    bus: Bus,
    stores: Stores,
    ledger: Ledger<State>,
    views: Views,
    /// Users' synchronizers and tables, which go with their scope.
    documents: [Bucket; 2],
    /// What the plans of service instances allow.
    quotas: Bucket,
    /// The keys of encrypted streams.
    keys: IndexKeyring,
    clock: Arc<dyn Clock>,
    turns: Arc<Vec<Mutex<()>>>,
    /// Scopes are deleted one at a time.
    scope_turn: Arc<Mutex<()>>,
    /// Indexes whose view may be older than the truth. Bounds: one row per stream.
    unshown: Arc<Cell<BTreeSet<IndexName>>>,
}

impl Streams {
    pub(crate) fn new(
        host: &Host,
        ledger: Ledger<State>,
        views: Views,
        documents: [Bucket; 2],
        quotas: Bucket,
    ) -> Self {
        let (bus, keys, clock) = (host.bus.clone(), host.index_keys.clone(), host.clock.clone());
        let (turns, stores) = (Arc::new((0..TURNS).map(|_| Mutex::new(())).collect()), Stores::new(bus.clone()));
        let (scope_turn, unshown) = (Arc::default(), Arc::default());
        Self { bus, stores, ledger, views, documents, quotas, keys, clock, turns, scope_turn, unshown }
    }

    /// The way to segment-store.
    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Creates a stream, or finds it; the stream can be used when this returns. Refused while its scope is full.
    pub(crate) async fn create(&self, new: NewStream) -> Result<StreamDescription, Problem> {
        self.check_master(new.encrypted)?;
        let index = new.index.clone();
        let begin = self.creation(new).await?;
        self.change(&index, begin).await
    }

    /// Changes policies and tags.
    pub(crate) async fn update(&self, update: StreamUpdate) -> Result<StreamDescription, Problem> {
        let index = update.index.clone();
        self.change(&index, Command::UpdateStream(update)).await
    }

    /// Replaces segments by others; the new epoch is open and shown when this returns. Refused while a commit is on its way.
    pub(crate) async fn scale(&self, scale: Scale) -> Result<StreamDescription, Problem> {
        let Scale { index, seal, ranges } = scale;
        let begin = Command::BeginScale { index: index.clone(), seal, ranges, containers: None, for_commit: false };
        self.change(&index, begin).await
    }

    /// Replaces segments on behalf of a commit, for which it does not wait; in the given containers, one for each range, or by hash.
    pub(crate) async fn scale_to(
        &self,
        index: &IndexName,
        seal: Vec<SegmentId>,
        ranges: Vec<KeyRange>,
        containers: Option<Vec<ContainerId>>,
    ) -> Result<StreamDescription, Problem> {
        let begin = Command::BeginScale { index: index.clone(), seal, ranges, containers, for_commit: true };
        self.change(index, begin).await
    }

    /// Makes a stream begin at a cut; what lies before is gone when this returns, and never read again once it is journaled.
    pub(crate) async fn truncate(&self, index: &IndexName, cut: StreamCut) -> Result<StreamDescription, Problem> {
        // An end only grows, so what is checked here stays true; journaled first, a cut that is too long could never be carried out.
        self.check_ends(index, &cut).await?;
        self.change(index, Command::BeginTruncation { index: index.clone(), cut }).await
    }

    /// Ends a stream; every segment is sealed when this returns.
    pub(crate) async fn seal(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        self.change(index, Command::BeginSeal { index: index.clone() }).await
    }

    /// Deletes a stream; nothing of it is left when this returns.
    pub(crate) async fn delete(&self, index: &IndexName) -> Result<(), Problem> {
        let _turn = self.turn(index).lock().await;
        self.ledger.submit(Command::BeginDeletion { index: index.clone() }).await?;
        self.finish(index).await
    }

    /// Deletes a scope; nothing of it is left when this returns.
    pub(crate) async fn delete_scope(&self, scope: ScopeName, recursive: bool) -> Result<(), Problem> {
        let _turn = self.scope_turn.lock().await;
        self.ledger.submit(Command::BeginScopeDeletion { scope: scope.clone(), recursive }).await?;
        if self.ledger.read(|state| state.scope(&scope)).is_some() { self.finish_scope(&scope).await } else { Ok(()) }
    }

    /// Ends what was begun on a stream.
    pub(crate) async fn settle(&self, index: &IndexName) -> Result<(), Problem> {
        let _turn = self.turn(index).lock().await;
        self.finish(index).await
    }

    /// Keeps others from changing a stream.
    pub(crate) async fn hold(&self, index: &IndexName) -> MutexGuard<'_, ()> {
        self.turn(index).lock().await
    }

    /// Ends what was begun before a crash or in vain; what is being worked on now is left alone.
    pub(crate) async fn resume(&self) {
        let (pending, scopes) = self.ledger.read(|state| {
            let pending: BTreeSet<_> = state.pending().map(|s| s.summary().index.clone()).collect();
            let scopes = state.scopes(None).filter(|(_, phase)| *phase == ScopePhase::Deleting);
            (pending, scopes.map(|(scope, _)| scope.clone()).collect::<Vec<_>>())
        });
        metrics::PENDING.set(pending.len());
        let unshown = self.unshown.lock().clone();
        let indexes = pending.union(&unshown).cloned();
        stream::iter(indexes).for_each_concurrent(RESUMED_MAX, |index| self.resume_one(index)).await;
        if let Ok(_turn) = self.scope_turn.try_lock() {
            for scope in scopes {
                if let Err(problem) = self.finish_scope(&scope).await {
                    tracing::warn!(%scope, %problem, "scope is not deleted yet");
                }
            }
        }
    }

    async fn resume_one(&self, index: IndexName) {
        let Ok(_turn) = self.turn(&index).try_lock() else { return };
        if let Err(problem) = self.finish(&index).await {
            tracing::warn!(%index, %problem, "work on a stream is not ended yet");
        }
    }

    fn turn(&self, index: &IndexName) -> &Mutex<()> {
        let hash = types::hash64(index.as_str().as_bytes());
        &self.turns[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }

    /// Ends what is on its way, journals something new, and ends that too.
    async fn change(&self, index: &IndexName, begin: Command) -> Result<StreamDescription, Problem> {
        let _turn = self.turn(index).lock().await;
        if self.ledger.read(|state| state.live_stream(index).is_ok_and(|stream| stream.is_pending())) {
            self.finish(index).await?;
        }
        self.unshown.lock().insert(index.clone());
        self.ledger.submit(begin).await?;
        self.finish(index).await?;
        Ok(self.ledger.read(|state| state.describe(index))?)
    }

    async fn check_ends(&self, index: &IndexName, cut: &StreamCut) -> Result<(), Problem> {
        let grown = |state: &State| {
            let graph = state.live_stream(index)?.graph();
            let cut = graph.resolve(cut)?;
            let grown = cut.0.into_iter().filter(|(segment, offset)| *offset > graph.head().offset(*segment));
            let grown = grown.filter_map(|(segment, offset)| Some((graph.place(segment)?, offset)));
            Ok::<Vec<(SegmentPlace, Offset)>, CoordinatorError>(grown.collect())
        };
        let grown = self.ledger.look(grown).await?;
        let checks = grown.into_iter().map(|(place, offset)| async move {
            let name = SegmentName { segment: place.segment };
            let end = self.bus.call::<DescribeSegment>(&place.container, &name).await?.end;
            let beyond = CutError::BeyondEnd { segment: place.segment, end, offset };
            if offset <= end { Ok(()) } else { Err(CoordinatorError::from(beyond).into()) }
        });
        stream::iter(checks).buffer_unordered(SEGMENT_CALLS_MAX).try_collect().await
    }

    /// Empties a scope and ends it. The caller holds the scopes' turn.
    async fn finish_scope(&self, scope: &ScopeName) -> Result<(), Problem> {
        let indexes: Vec<IndexName> =
            self.ledger.read(|state| state.streams_in(scope).map(|s| s.summary().index.clone()).collect());
        stream::iter(indexes)
            .map(|index| async move { self.delete(&index).await })
            .buffer_unordered(RESUMED_MAX)
            .try_collect::<()>()
            .await?;
        for bucket in &self.documents {
            for (key, _) in bucket.list(&format!("{scope}.")).await? {
                bucket.delete(&key).await?;
            }
        }
        self.ledger.submit(Command::EndScopeDeletion { scope: scope.clone() }).await?;
        tracing::info!(%scope, "scope deleted");
        Ok(())
    }
}
