//! What the leader does by itself: ends what is over, and looks for what the provisioner has and nothing of ours explains.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bus::Bus;
use host::{Ledger, Turns};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use types::{BindingId, Clock, IndexName, InstanceId};
use wire::{
    Problem,
    index_provisioner::{BindingName, DeleteIndex, InstanceName, RevokeCredentials},
};

use crate::{
    audit::Audit,
    catalog::OWN,
    effects::{CALL_MAX, rules},
    metrics,
    provisioned::{bindings, indexes},
    state::{Command, State},
};

/// How often operations and bindings are looked at whose time may be over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Orphans that one look removes; the next look goes on.
const REMOVALS_MAX: usize = 64;

/// Follows the state while this replica leads.
pub(crate) struct Reconciler {
    pub(crate) ledger: Ledger<State>,
    pub(crate) bus: Bus,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) audit: Audit,
    pub(crate) turns: Turns,
    /// How often the provisioner is asked what it has.
    pub(crate) every: Duration,
}

/// Something that the provisioner has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// With the name under which the alerter may have rules on it.
    Index(InstanceId, Option<IndexName>),
    Binding(InstanceId, BindingId),
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It belongs to something of ours.
    Explained,
    /// It was ours and is over: what created it was late.
    Orphan,
    /// We never heard of it, or long ago. It is told of and left alone: a lost journal must not cost anybody's events.
    Stranger,
}

impl Found {
    fn verdict(&self, state: &State) -> Verdict {
        let (is_there, is_known) = match self {
            Self::Index(id, _) => (state.instance(id).is_some(), state.knows_instance(id)),
            // An instance that ends takes its bindings along.
            Self::Binding(_, id) => (state.has_binding(id), state.knows_binding(id)),
        };
        match (is_there, is_known) {
            (true, _) => Verdict::Explained,
            (false, true) => Verdict::Orphan,
            (false, false) => Verdict::Stranger,
        }
    }
}

impl Reconciler {
    /// Works until the token is cancelled. A look that waits for the provisioner holds up no sweep.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut suspects = BTreeSet::new();
        let sweep = async || self.sweep().await;
        let look = async || match self.look(&suspects).await {
            Ok(found) => suspects = found,
            Err(problem) => tracing::warn!(%problem, "orphans could not be looked for"),
        };
        let working = beside((SWEEP_EVERY.min(self.every), sweep), (self.every, look));
        token.run_until_cancelled(Box::pin(working)).await;
    }

    async fn sweep(&self) {
        let now = self.clock.now();
        let due = |state: &State| {
            let events = state.sweep(now);
            (!events.is_empty()).then(|| events.iter().filter_map(|event| self.audit.swept(state, event)).collect())
        };
        let Some(drafts) = self.ledger.read(due) else { return };
        match self.audit.around_each(drafts, self.ledger.submit(Command::Sweep)).await {
            Ok(events) => tracing::info!(count = events.len(), "operations given up and bindings ended"),
            Err(problem) => tracing::warn!(%problem, "what is over could not be ended; it is tried again"),
        }
    }

    /// Removes what was an orphan at the last look already, and answers with what is one now.
    ///
    /// Two looks, because a creation or a removal may be under way between the provisioner's answer and our state.
    async fn look(&self, suspects: &BTreeSet<Found>) -> Result<BTreeSet<Found>, Problem> {
        let found = self.found().await?;
        let verdicts: Vec<_> = self.ledger.read(|state| found.iter().map(|one| one.verdict(state)).collect());
        let of =
            |wanted: Verdict| found.iter().zip(&verdicts).filter(move |(_, is)| **is == wanted).map(|(one, _)| one);
        metrics::STRANGERS.set(of(Verdict::Stranger).count());
        for stranger in of(Verdict::Stranger).filter(|one| !suspects.contains(one)).take(REMOVALS_MAX) {
            tracing::warn!(?stranger, "provisioner has what no service instance or binding explains; it is left alone");
        }
        for orphan in of(Verdict::Orphan).filter(|one| suspects.contains(one)).take(REMOVALS_MAX) {
            match self.remove(orphan).await {
                Ok(true) => {
                    metrics::ORPHANS.inc();
                    tracing::warn!(?orphan, "orphan removed");
                }
                Ok(false) => {}
                Err(problem) => {
                    tracing::warn!(?orphan, %problem, "orphan could not be removed; the next look tries again")
                }
            }
        }
        Ok(of(Verdict::Orphan).chain(of(Verdict::Stranger)).cloned().collect())
    }

    async fn found(&self) -> Result<Vec<Found>, Problem> {
        let indexes = indexes(&self.bus).await?.into_iter().map(|there| {
            let watched = there.backend == OWN;
            Found::Index(there.instance, watched.then_some(there.index))
        });
        let bindings = bindings(&self.bus).await?.into_iter().map(|b| Found::Binding(b.instance, b.binding));
        Ok(indexes.chain(bindings).collect())
    }

    /// True if it still was an orphan when its turn was taken: a new creation under the same id waits for the same turn. False also if
    /// somebody else works on the instance, which the next look will find in another state.
    async fn remove(&self, orphan: &Found) -> Result<bool, Problem> {
        let (Found::Index(instance, _) | Found::Binding(instance, _)) = orphan;
        let Some(_turn) = self.turns.try_take(instance.as_str()) else { return Ok(false) };
        if !self.ledger.is_leader() || self.ledger.read(|state| orphan.verdict(state)) != Verdict::Orphan {
            return Ok(false);
        }
        match orphan {
            Found::Index(instance, watched) => {
                // Its tombstone, not the state's end: what is made under the same id from now on is behind it.
                let order =
                    self.ledger.read(|state| state.ended_instance(instance).map(|e| e.operation.removal_order()));
                let Some(order) = order else { return Ok(false) };
                // Before the index: without it no look would find what is left of them.
                if let Some(index) = watched {
                    rules::clear(&self.bus, index).await?;
                }
                let name = InstanceName { instance: instance.clone(), order };
                self.bus.call_within::<DeleteIndex>(&(), &name, CALL_MAX).await?;
            }
            Found::Binding(_, binding) => {
                let name = BindingName { binding: binding.clone(), instance: None };
                self.bus.call_within::<RevokeCredentials>(&(), &name, CALL_MAX).await?;
            }
        }
        Ok(true)
    }
}

/// Does two things again and again, for ever, each in its own time: one that takes long holds up only itself.
async fn beside(one: (Duration, impl AsyncFnMut()), other: (Duration, impl AsyncFnMut())) {
    tokio::join!(every(one.0, one.1), every(other.0, other.1));
}

/// Does something again and again, for ever; what takes longer than its time is not made up for.
async fn every(period: Duration, mut work: impl AsyncFnMut()) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_holds_up_no_sweep() {
        let (mut sweeps, mut looks) = (0, 0);
        let sweep = async || sweeps += 1;
        let look = async || {
            looks += 1;
            std::future::pending().await
        };
        let working = beside((SWEEP_EVERY, sweep), (Duration::from_millis(100), look));
        assert!(tokio::time::timeout(SWEEP_EVERY * 9 + SWEEP_EVERY / 2, working).await.is_err(), "it has no end");
        assert_eq!((sweeps, looks), (10, 1));
    }
}
