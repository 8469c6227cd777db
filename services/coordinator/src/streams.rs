//! Carries out what the journal says was begun: creates and deletes the segments of streams.

use std::sync::Arc;

use bus::Bus;
use futures::{StreamExt, TryStreamExt, stream};
use host::Ledger;
use tokio::sync::Mutex;
use types::IndexName;
use wire::{
    Problem,
    coordinator::{NewStream, SegmentRange, StreamDescription},
    segment_store::{CreateSegment, DeleteSegment, NewSegment, SegmentName},
};

use crate::{
    metrics,
    state::{Command, Phase, State, Stream},
    views::Views,
};

/// Calls to segment-store that one creation or deletion has in flight.
const SEGMENT_CALLS_MAX: usize = 16;

/// Streams whose unfinished work is resumed at the same time.
const RESUMED_MAX: usize = 8;

/// Locks that order the work on one index; indexes that share a lock wait for each other.
const TURNS: usize = 64;

/// The work on streams; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Streams {
    bus: Bus,
    ledger: Ledger<State>,
    views: Views,
    turns: Arc<Vec<Mutex<()>>>,
}

impl Streams {
    pub(crate) fn new(bus: Bus, ledger: Ledger<State>, views: Views) -> Self {
        Self { bus, ledger, views, turns: Arc::new((0..TURNS).map(|_| Mutex::new(())).collect()) }
    }

    /// Creates a stream, or finds it; the stream can be used when this returns.
    pub(crate) async fn create(&self, new: NewStream) -> Result<StreamDescription, Problem> {
        let index = new.index.clone();
        let _turn = self.turn(&index).lock().await;
        self.ledger.submit(Command::BeginStream(new)).await?;
        self.finish(&index).await?;
        Ok(self.ledger.read(|state| state.describe(&index))?)
    }

    /// Deletes a stream; nothing of it is left when this returns.
    pub(crate) async fn delete(&self, index: IndexName) -> Result<(), Problem> {
        let _turn = self.turn(&index).lock().await;
        self.ledger.submit(Command::BeginDeletion { index: index.clone() }).await?;
        self.finish(&index).await
    }

    /// Ends what was begun before a crash or in vain; what is being worked on now is left alone.
    pub(crate) async fn resume(&self) {
        let pending: Vec<IndexName> =
            self.ledger.read(|state| state.pending().map(|s| s.description.index.clone()).collect());
        metrics::PENDING.set(pending.len());
        stream::iter(pending).for_each_concurrent(RESUMED_MAX, |index| self.resume_one(index)).await;
        metrics::STREAMS.set(self.ledger.read(|state| state.live().count()));
    }

    async fn resume_one(&self, index: IndexName) {
        let Ok(_turn) = self.turn(&index).try_lock() else { return };
        if let Err(problem) = self.finish(&index).await {
            tracing::warn!(%index, %problem, "stream is neither created nor deleted yet");
        }
    }

    fn turn(&self, index: &IndexName) -> &Mutex<()> {
        let hash = types::hash64(index.as_str().as_bytes());
        &self.turns[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }

    /// Brings a stream to the end of its phase. The caller holds the index's turn.
    async fn finish(&self, index: &IndexName) -> Result<(), Problem> {
        let Some(stream) = self.ledger.read(|state| state.stream(index).cloned()) else { return Ok(()) };
        let result = match stream.phase {
            Phase::Creating => self.build(&stream).await,
            Phase::Deleting => self.tear_down(&stream).await,
            // A repeat: the view may be what failed the first time.
            Phase::Live => self.views.show(&stream.description).await,
        };
        metrics::EFFECTS.with(if result.is_ok() { "done" } else { "failed" }).inc();
        result
    }

    async fn build(&self, stream: &Stream) -> Result<(), Problem> {
        let there = &stream.description;
        self.each_segment(there, |segment| {
            let new = NewSegment {
                segment: segment.segment,
                index: there.index.clone(),
                predecessors: Vec::new(),
                transactional: false,
            };
            async move { self.bus.call::<CreateSegment>(&segment.container, &new).await.map(|_| ()) }
        })
        .await?;
        let end = Command::EndStream { stream: there.stream, index: there.index.clone() };
        self.ledger.submit(end).await?;
        self.views.show(there).await?;
        tracing::info!(index = %there.index, stream = there.stream, segments = there.segments.len(), "stream created");
        Ok(())
    }

    /// The view goes first, so that nobody begins to use what is about to vanish.
    async fn tear_down(&self, stream: &Stream) -> Result<(), Problem> {
        let there = &stream.description;
        self.views.hide(&there.index).await?;
        self.each_segment(there, |segment| {
            let name = SegmentName { segment: segment.segment };
            async move { self.bus.call::<DeleteSegment>(&segment.container, &name).await.map(|_| ()) }
        })
        .await?;
        self.ledger.submit(Command::EndDeletion { stream: there.stream }).await?;
        tracing::info!(index = %there.index, stream = there.stream, "stream deleted");
        Ok(())
    }

    async fn each_segment<F>(&self, there: &StreamDescription, work: impl Fn(SegmentRange) -> F) -> Result<(), Problem>
    where
        F: Future<Output = Result<(), Problem>>,
    {
        stream::iter(there.segments.iter().map(|segment| work(*segment)))
            .buffer_unordered(SEGMENT_CALLS_MAX)
            .try_collect()
            .await
    }
}
