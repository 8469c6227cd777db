//! The work on a stream that its state shows as begun and not ended: found in the state, carried out, and ended with an event.

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use types::IndexName;
use wire::{
    Problem,
    coordinator::{SegmentRange, StreamDescription},
    segment_store::{
        CreateSegment, DeleteSegment, NewSegment, SealSegment, SegmentName, SegmentOrigin, SegmentPlace, Truncate,
        TruncateSegment,
    },
};

use super::{SEGMENT_CALLS_MAX, Streams};
use crate::{
    metrics,
    state::{Command, Phase, State, Stream, Truncation},
    stores::Led,
};

/// Pieces of work that one call ends in a row: a stream never has more than one of each kind.
const PIECES_MAX: usize = 8;

/// A piece of work. Every effect of it may be repeated.
enum Work {
    /// Creates the first segments.
    Build { stream: u32, create: Vec<(SegmentPlace, NewSegment)> },
    /// Deletes everything.
    TearDown { stream: u32, delete: Vec<SegmentPlace> },
    /// Seals what ends, and then creates what begins: a new segment begins with what writers have in the sealed ones.
    Scale { stream: u32, epoch: u32, seal: Vec<SegmentPlace>, create: Vec<(SegmentPlace, NewSegment)> },
    /// Takes away what lies before the head.
    Truncate { stream: u32, truncation: Truncation, truncate: Vec<(SegmentPlace, Truncate)> },
    /// Seals every present segment.
    Seal { stream: u32, seal: Vec<SegmentPlace> },
}

impl Work {
    /// What metrics call it.
    fn name(&self) -> &'static str {
        match self {
            Self::Build { .. } => "create",
            Self::TearDown { .. } => "delete",
            Self::Scale { .. } => "scale",
            Self::Truncate { .. } => "truncate",
            Self::Seal { .. } => "seal",
        }
    }
}

/// The next piece of work on an index.
fn next(state: &State, index: &IndexName) -> Option<Work> {
    let there = state.stream(index)?;
    let (stream, graph) = (there.summary().stream, there.graph());
    let present = || graph.present().map(|s| SegmentPlace { segment: s.segment, container: s.container });
    match there.phase() {
        Phase::Creating => {
            let create = graph.present().map(|begun| beginning(there, begun, Vec::new())).collect();
            return Some(Work::Build { stream, create });
        }
        Phase::Deleting => {
            let mut delete = there.places();
            delete.extend(state.transactions().shadows(stream));
            return Some(Work::TearDown { stream, delete });
        }
        Phase::Live => {}
    }
    if let Some(scaling) = graph.scaling() {
        let seal = scaling.seal.iter().filter_map(|segment| graph.place(*segment)).collect();
        return Some(Work::Scale { stream, epoch: scaling.epoch, seal, create: beginnings(there) });
    }
    if let Some(truncation) = there.truncation() {
        let truncate = truncation.loss.truncate.iter().filter_map(|(segment, before)| {
            Some((graph.place(*segment)?, Truncate { segment: *segment, before: *before }))
        });
        return Some(Work::Truncate { stream, truncate: truncate.collect(), truncation: truncation.clone() });
    }
    there.is_sealing().then(|| Work::Seal { stream, seal: present().collect() })
}

fn beginnings(stream: &Stream) -> Vec<(SegmentPlace, NewSegment)> {
    let begun = stream.graph().beginnings().into_iter();
    begun.map(|(begun, predecessors)| beginning(stream, &begun, predecessors)).collect()
}

fn beginning(stream: &Stream, begun: &SegmentRange, predecessors: Vec<SegmentPlace>) -> (SegmentPlace, NewSegment) {
    let SegmentRange { segment, container, range } = *begun;
    let StreamDescription { index, scope, encrypted, .. } = stream.summary();
    let origin = Some(SegmentOrigin { scope: scope.clone(), range, encrypted: *encrypted });
    let new = NewSegment { segment, index: index.clone(), predecessors, transactional: false, origin };
    (SegmentPlace { segment, container }, new)
}

impl Streams {
    /// Ends everything that was begun on a stream, and shows it as it is. The caller holds the index's turn.
    pub(super) async fn finish(&self, index: &IndexName) -> Result<(), Problem> {
        for _ in 0..PIECES_MAX {
            let led = self.stores.led();
            let Some(work) = self.ledger.read(|state| next(state, index)) else { return self.show(index).await };
            self.unshown.lock().insert(index.clone());
            let (name, begun) = (work.name(), Instant::now());
            let result = self.carry_out(index, work, &led).await;
            match &result {
                Ok(()) => metrics::EFFECT_SECONDS.with(name).observe_duration(begun.elapsed()),
                Err(_) => metrics::EFFECT_FAILURES.with(name).inc(),
            }
            result?;
        }
        Err(Problem::unavailable("StreamBusy", format_args!("the stream of index {index} changes all the time")))
    }

    fn count_epoch(&self, stream: u32, epoch: u32) {
        let record = self.ledger.read(|state| {
            let record = state.stream_of(stream)?.graph().epochs(epoch).next()?;
            Some((record.splits, record.merges))
        });
        let (splits, merges) = record.unwrap_or_default();
        metrics::EPOCHS.inc();
        metrics::SPLITS.add(splits.into());
        metrics::MERGES.add(merges.into());
    }

    async fn carry_out(&self, index: &IndexName, work: Work, led: &Led) -> Result<(), Problem> {
        match work {
            Work::Build { stream, create } => {
                self.make_key(stream).await?;
                self.create_all(led, create).await?;
                self.ledger.submit(Command::EndStream { stream, index: index.clone() }).await?;
                tracing::info!(%index, stream, "stream created");
            }
            Work::TearDown { stream, delete } => {
                // The view goes first, so that nobody begins to use what is about to vanish.
                self.views.hide(index, stream).await?;
                self.delete_all(led, delete).await?;
                self.destroy_keys(stream).await?;
                self.ledger.submit(Command::EndDeletion { stream }).await?;
                tracing::info!(%index, stream, "stream deleted");
            }
            Work::Scale { stream, epoch, seal, create } => {
                let (ended, begun) = (seal.len(), create.len());
                self.seal_all(led, seal).await?;
                self.create_all(led, create).await?;
                self.ledger.submit(Command::EndScale { stream, epoch }).await?;
                self.count_epoch(stream, epoch);
                tracing::info!(%index, stream, epoch, ended, begun, "epoch opened");
            }
            Work::Truncate { stream, truncation, truncate } => {
                // Readers learn of the new head before what lies before it goes.
                self.show(index).await?;
                let (shortened, deleted) = (truncate.len(), truncation.loss.delete.len());
                self.each(truncate, |(place, truncate)| async move {
                    led.call::<TruncateSegment>(place.container, &truncate).await.map(drop)
                })
                .await?;
                self.delete_all(led, truncation.loss.delete).await?;
                self.ledger.submit(Command::EndTruncation { stream, number: truncation.number }).await?;
                tracing::info!(%index, stream, shortened, deleted, "stream truncated");
            }
            Work::Seal { stream, seal } => {
                self.seal_all(led, seal).await?;
                self.ledger.submit(Command::EndSeal { stream }).await?;
                tracing::info!(%index, stream, "stream sealed");
            }
        }
        Ok(())
    }

    async fn create_all(&self, led: &Led, create: Vec<(SegmentPlace, NewSegment)>) -> Result<(), Problem> {
        self.each(
            create,
            |(place, new)| async move { led.call::<CreateSegment>(place.container, &new).await.map(drop) },
        )
        .await
    }

    async fn seal_all(&self, led: &Led, seal: Vec<SegmentPlace>) -> Result<(), Problem> {
        self.each(seal, |place| async move {
            let name = SegmentName { segment: place.segment };
            led.call::<SealSegment>(place.container, &name).await.map(drop)
        })
        .await
    }

    async fn delete_all(&self, led: &Led, delete: Vec<SegmentPlace>) -> Result<(), Problem> {
        self.each(delete, |place| async move {
            let name = SegmentName { segment: place.segment };
            led.call::<DeleteSegment>(place.container, &name).await.map(drop)
        })
        .await
    }

    async fn each<T, F>(&self, items: Vec<T>, work: impl Fn(T) -> F) -> Result<(), Problem>
    where
        F: Future<Output = Result<(), Problem>>,
    {
        stream::iter(items.into_iter().map(work)).buffer_unordered(SEGMENT_CALLS_MAX).try_collect().await
    }
}
