//! Carries out what is decided of transactions: opens them, merges what is committed, drops what is aborted, ends what is forgotten.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use host::{Host, Ledger};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};
use types::{IndexName, SegmentId, Timestamp, TransactionId};
use wire::{
    Problem,
    coordinator::{NewTransaction, Scale, StreamDescription, Transaction, TransactionShare},
    segment_store::{CreateSegment, DeleteSegment, Merge, MergeSegment, NewSegment, SegmentName},
};

use crate::{
    CoordinatorError, State, metrics,
    state::{Command as StateCommand, Event as StateEvent},
    stores::Led,
    streams::Streams,
    transactions::{Command, Event, Live, Present, Step, Wish, shadow_place},
};

/// Calls to segment-store that one transaction has in flight.
const SEGMENT_CALLS_MAX: usize = 16;

/// Indexes whose transactions are resumed at the same time.
const RESUMED_MAX: usize = 8;

/// Locks that order the work on the transactions of one index; indexes that share a lock wait for each other.
const TURNS: usize = 64;

/// Steps of one commit: six, and as many again for what is found done.
const STEPS_MAX: usize = 12;

/// How often the leader looks for leases that ended; the shortest lease is a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A pause of the leader that counts as its own fault: writers could not ping it.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How much further than a steady clock the time of day may go between two looks.
const JUMP_MAX: Duration = Duration::from_secs(1);

/// The work on transactions; only a leader uses it. Clones share it.
///
/// Order: one piece of work on the transactions of an index at a time, in the order in which it was asked for. A scale takes its turn
/// here too, so that it waits for a commit, and the next commit for it.
#[derive(Clone)]
pub(crate) struct Commits {
    host: Host,
    ledger: Ledger<State>,
    streams: Streams,
    turns: Arc<Vec<Mutex<()>>>,
}

impl Commits {
    pub(crate) fn new(host: &Host, ledger: Ledger<State>, streams: Streams) -> Self {
        let turns = Arc::new((0..TURNS).map(|_| Mutex::new(())).collect());
        Self { host: host.clone(), ledger, streams, turns }
    }

    /// Opens a transaction; it takes events when this returns.
    pub(crate) async fn begin(&self, new: NewTransaction) -> Result<Transaction, Problem> {
        let NewTransaction { index, lease_ms } = new;
        let _turn = self.turn(&index).await;
        self.settle(&index).await?;
        // The stream must not be deleted while segments are created for it: they would stay.
        let _hold = self.streams.hold(&index).await;
        let led = self.streams.stores().led();
        let events = self.submit(&index, Wish::Begin { lease_ms }).await?;
        let begun = events.iter().find_map(|event| match event {
            StateEvent::Transactions(Event::Begun { transaction, shares, .. }) => Some((*transaction, shares)),
            _ => None,
        });
        let (transaction, shares) =
            begun.ok_or_else(|| Problem::internal("a transaction was begun without an event"))?;
        let opened = async {
            self.create_shadows(&led, &index, shares).await?;
            self.submit(&index, Wish::Open(transaction)).await
        };
        if let Err(problem) = opened.await {
            // Nobody knows it; what its lease would end later ends now.
            if let Err(later) = self.submit(&index, Wish::Abort(transaction)).await {
                tracing::warn!(%index, %transaction, problem = %later, "transaction that was not opened waits for the end of its lease");
            }
            return Err(problem);
        }
        self.describe(&index, transaction).await
    }

    /// Gives a transaction its next lease.
    pub(crate) async fn ping(
        &self,
        index: &IndexName,
        transaction: TransactionId,
        lease_ms: u32,
    ) -> Result<Transaction, Problem> {
        self.submit(index, Wish::Ping { transaction, lease_ms }).await?;
        self.describe(index, transaction).await
    }

    /// Makes a transaction's events visible; they are when this returns, and will be if it fails after the decision.
    pub(crate) async fn commit(&self, index: &IndexName, transaction: TransactionId) -> Result<Transaction, Problem> {
        let begun = Instant::now();
        let _turn = self.turn(index).await;
        self.settle(index).await?;
        self.submit(index, Wish::Commit(transaction)).await?;
        self.end_commit(index).await.map_err(Problem::unknown)?;
        metrics::COMMIT_SECONDS.observe_duration(begun.elapsed());
        self.describe(index, transaction).await
    }

    /// Drops a transaction's events. Once that is decided it is only a matter of time, which the caller need not wait for.
    pub(crate) async fn abort(&self, index: &IndexName, transaction: TransactionId) -> Result<Transaction, Problem> {
        let _turn = self.turn(index).await;
        self.submit(index, Wish::Abort(transaction)).await?;
        self.end_aborts(index).await;
        self.describe(index, transaction).await
    }

    /// Replaces segments by others, after a commit that is on its way.
    pub(crate) async fn scale(&self, scale: Scale) -> Result<StreamDescription, Problem> {
        let _turn = self.turn(&scale.index).await;
        self.settle(&scale.index).await?;
        self.streams.scale(scale).await
    }

    /// Ends a stream, after a commit that is on its way; open transactions are aborted.
    pub(crate) async fn seal(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        let _turn = self.turn(index).await;
        self.settle(index).await?;
        let sealed = self.streams.seal(index).await?;
        self.end_aborts(index).await;
        Ok(sealed)
    }

    /// A transaction as others see it.
    pub(crate) async fn describe(&self, index: &IndexName, transaction: TransactionId) -> Result<Transaction, Problem> {
        let described = |state: &State| {
            let stream = state.live_stream(index)?.graph().stream();
            Ok::<_, CoordinatorError>(state.transactions().describe(stream, transaction)?)
        };
        self.ledger.look(described).await
    }

    /// Ends what was decided before a crash or in vain; what is being worked on now is left alone.
    pub(crate) async fn resume(&self) {
        let pending: Vec<IndexName> = self.ledger.read(|state| {
            metrics::TRANSACTIONS.set(state.transactions().live_count());
            let live = |index: &&IndexName| state.live_stream(index).is_ok();
            state.transactions().pending().filter(live).cloned().collect()
        });
        stream::iter(pending).for_each_concurrent(RESUMED_MAX, |index| self.resume_one(index)).await;
    }

    async fn resume_one(&self, index: IndexName) {
        let Ok(_turn) = self.lock_of(&index).try_lock() else { return };
        if let Err(problem) = self.settle(&index).await {
            tracing::warn!(%index, %problem, "a transaction is not committed yet");
        }
        self.end_aborts(&index).await;
    }

    /// Ends leases, for ever. The first thing that a new leader does is to renew them all: writers could not ping while there was none.
    pub(crate) async fn expire_for_ever(&self) {
        let begun = Instant::now();
        let mut pace = Pace::new(self.host.clock.now(), begun.elapsed());
        let mut renew = true;
        loop {
            renew |= !pace.steady(self.host.clock.now(), begun.elapsed());
            let command = if renew { Command::Renew } else { Command::Expire };
            if !renew && self.ledger.read(|state| state.transactions().live_count() == 0) {
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
            match self.ledger.submit_own(StateCommand::Transactions(command)).await {
                Ok(events) => {
                    renew = false;
                    let aborted =
                        events.iter().filter(|e| matches!(e, StateEvent::Transactions(Event::Aborting { .. })));
                    let aborted = u64::try_from(aborted.inspect(|event| count(event)).count()).unwrap_or(u64::MAX);
                    metrics::LEASES_EXPIRED.add(aborted);
                    if aborted > 0 {
                        tracing::info!(aborted, "leases of transactions expired");
                        self.resume().await;
                    }
                }
                Err(problem) => {
                    renew = true;
                    tracing::warn!(%problem, "leases of transactions wait");
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn lock_of(&self, index: &IndexName) -> &Mutex<()> {
        let hash = types::hash64(index.as_str().as_bytes());
        &self.turns[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }

    async fn turn(&self, index: &IndexName) -> MutexGuard<'_, ()> {
        self.lock_of(index).lock().await
    }

    async fn submit(&self, index: &IndexName, wish: Wish) -> Result<Vec<StateEvent>, Problem> {
        let command = Command::Of { index: index.clone(), wish };
        let events = self.ledger.submit(StateCommand::Transactions(command)).await?;
        events.iter().for_each(count);
        Ok(events)
    }

    /// Ends a scale and a commit that were begun and not ended. The caller holds the index's turn.
    async fn settle(&self, index: &IndexName) -> Result<(), Problem> {
        if self.ledger.read(|state| state.graph(index).is_some_and(|graph| graph.scaling().is_some())) {
            self.streams.settle(index).await?;
        }
        self.end_commit(index).await
    }

    /// Brings the commit that was decided to its end, if there is one. The caller holds the index's turn.
    async fn end_commit(&self, index: &IndexName) -> Result<(), Problem> {
        for _ in 0..STEPS_MAX {
            let led = self.streams.stores().led();
            let next = self.ledger.read(|state| next_step(state, index));
            let Some((transaction, step)) = next else { return Ok(()) };
            let result = self.take(index, transaction, step, &led).await;
            metrics::COMMIT_STEPS.with(if result.is_ok() { "done" } else { "failed" }).inc();
            result?;
        }
        Err(Problem::unavailable(
            "CommitInProgress",
            format_args!("a commit of index {index} is not done yet; try again"),
        ))
    }

    async fn take(&self, index: &IndexName, transaction: TransactionId, step: Step, led: &Led) -> Result<(), Problem> {
        match step {
            Step::Wait => self.streams.settle(index).await,
            Step::Plan(_) => self.submit(index, Wish::Roll(transaction)).await.map(drop),
            Step::Open(roll) => {
                tracing::info!(%index, %transaction, parts = roll.shares.len(), "epoch is opened for a transaction of an earlier one");
                let (containers, ranges) = roll.shares.iter().map(|share| (share.container, share.range)).unzip();
                self.streams.scale_to(index, roll.seal, ranges, Some(containers)).await.map(drop)
            }
            Step::TakeUp(_) => self.submit(index, Wish::EndRoll(transaction)).await.map(drop),
            Step::Merge { parts, rolled } => {
                self.merge(led, index, transaction, parts).await?;
                let end = if rolled { Wish::EndMerge(transaction) } else { Wish::EndCommit(transaction) };
                self.submit(index, end).await.map(drop)
            }
            Step::Restore { seal, ranges } => self.streams.scale_to(index, seal, ranges, None).await.map(drop),
            Step::End => self.submit(index, Wish::EndCommit(transaction)).await.map(drop),
        }
    }

    async fn merge(
        &self,
        led: &Led,
        index: &IndexName,
        transaction: TransactionId,
        parts: Vec<(TransactionShare, SegmentId)>,
    ) -> Result<(), Problem> {
        let merges = parts.into_iter().map(|(share, segment)| async move {
            let merge = Merge { segment, source: share.shadow };
            let merged = led.call::<MergeSegment>(share.container, &merge).await;
            let merged = merged.map_err(|problem| lost(problem, transaction, &share))?;
            Ok::<u64, Problem>(if merged.repeated { 0 } else { merged.count })
        });
        let counts: Vec<u64> = stream::iter(merges).buffer_unordered(SEGMENT_CALLS_MAX).try_collect().await?;
        tracing::debug!(%index, %transaction, events = counts.iter().sum::<u64>(), "transaction merged");
        Ok(())
    }

    /// Deletes the segments of aborted transactions. What fails is tried again later: nobody waits for it.
    async fn end_aborts(&self, index: &IndexName) {
        let led = self.streams.stores().led();
        let aborting: Vec<Live> = self.ledger.read(|state| {
            let Some(graph) = state.graph(index) else { return Vec::new() };
            state.transactions().aborting(graph.stream()).cloned().collect()
        });
        for live in aborting {
            if let Err(problem) = self.end_abort(&led, index, &live).await {
                tracing::warn!(%index, transaction = %live.transaction, %problem, "segments of an aborted transaction stay for now");
            }
        }
    }

    async fn end_abort(&self, led: &Led, index: &IndexName, live: &Live) -> Result<(), Problem> {
        let deletions = live.shares.iter().map(shadow_place).map(|place| async move {
            let name = SegmentName { segment: place.segment };
            led.call::<DeleteSegment>(place.container, &name).await.map(drop)
        });
        stream::iter(deletions).buffer_unordered(SEGMENT_CALLS_MAX).try_collect::<()>().await?;
        self.submit(index, Wish::EndAbort(live.transaction)).await.map(drop)
    }

    async fn create_shadows(&self, led: &Led, index: &IndexName, shares: &[TransactionShare]) -> Result<(), Problem> {
        let creations = shares.iter().map(shadow_place).map(|place| async move {
            let (segment, index) = (place.segment, index.clone());
            let new = NewSegment { segment, index, predecessors: Vec::new(), transactional: true, origin: None };
            led.call::<CreateSegment>(place.container, &new).await.map(drop)
        });
        stream::iter(creations).buffer_unordered(SEGMENT_CALLS_MAX).try_collect().await
    }
}

fn count(event: &StateEvent) {
    let what = match event {
        StateEvent::Transactions(Event::Begun { .. }) => "begun",
        StateEvent::Transactions(Event::Committed(_)) => "committed",
        StateEvent::Transactions(Event::Aborting { .. }) => "aborted",
        _ => return,
    };
    metrics::TRANSACTION_ENDS.with(what).inc();
}

/// The owner of a container is sure of what it has: a part that is not there comes back only with the container's log.
fn lost(problem: Problem, transaction: TransactionId, share: &TransactionShare) -> Problem {
    if problem.kind != "UnknownSegment" {
        return problem;
    }
    let TransactionShare { shadow, container, .. } = share;
    let message = format_args!(
        "transaction {transaction} is to be committed, and container {container} has lost its part {shadow} ({}); bring the container's log back, or delete the stream",
        problem.message
    );
    Problem::conflict("TransactionPartLost", message).unknown()
}

fn next_step(state: &State, index: &IndexName) -> Option<(TransactionId, Step)> {
    let stream = state.live_stream(index).ok()?;
    let live = state.transactions().committing(stream.graph().stream())?;
    let segments: Vec<_> = stream.graph().present().copied().collect();
    Some((live.transaction, live.step(Present::of(stream, &segments))?))
}

/// Tells whether the time of day went as it should since the last look.
#[derive(Debug)]
struct Pace {
    wall: Timestamp,
    steady: Duration,
}

impl Pace {
    fn new(wall: Timestamp, steady: Duration) -> Self {
        Self { wall, steady }
    }

    /// `false` when the time of day leapt, or when this process stood still: then a lease that seems to have ended may be nobody's fault.
    fn steady(&mut self, wall: Timestamp, steady: Duration) -> bool {
        let (passed, counted) = (wall.since(self.wall), steady.saturating_sub(self.steady));
        (self.wall, self.steady) = (wall, steady);
        counted <= PAUSE_MAX && passed <= counted + JUMP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_and_a_pause_are_nobodys_fault() {
        let at = |ms: u64| (Timestamp::from_millis(i64::try_from(ms).unwrap()), Duration::from_millis(ms));
        let mut pace = Pace::new(at(1_000).0, at(1_000).1);
        for (wall, counted, expected, why) in [
            (1_200, 1_200, true, "as it should"),
            (1_900, 1_500, true, "a clock that is being corrected"),
            (3_601_700, 1_700, false, "the time of day leapt by an hour"),
            (3_601_900, 1_900, true, "from there on it goes"),
            (2_100, 2_100, true, "back again: leases last longer, which harms nobody"),
            (9_100, 9_100, false, "the process stood still"),
            (9_300, 9_300, true, "and goes on"),
        ] {
            assert_eq!(pace.steady(at(wall).0, at(counted).1), expected, "{why}");
        }
    }
}
