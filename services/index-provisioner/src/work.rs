//! Carries out what the journal says was begun: creates, changes and deletes indexes, issues and revokes credentials.

mod revocation;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
};

use futures::{StreamExt, stream};
use host::Ledger;
use tokio::time::timeout;
use types::{BindingId, Clock, InstanceId};
use wire::{
    Code, Outcome, Problem,
    index_provisioner::{
        BindingName, Credentials, IndexChange, IndexDescription, InstanceName, NewBinding, NewIndex, Reclaim,
    },
};

use self::{revocation::revoke_all, turns::Turns};
use crate::{
    backend::{Backend, Found, STEP_MAX, unavailable},
    error::ProvisionerError,
    metrics,
    mint::{Mint, derived_name, plain},
    state::{Binding, BindingPhase, Command, Index, OWN, Phase, State, asked, changed},
};

/// Instances of one back-end whose unfinished work is resumed at the same time.
const RESUMED_MAX: usize = 8;

/// The work on indexes and bindings; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Work {
    ledger: Ledger<State>,
    /// By name.
    backends: Arc<BTreeMap<&'static str, Arc<dyn Backend>>>,
    mint: Mint,
    clock: Arc<dyn Clock>,
    default_segments: u16,
    turns: Turns,
}

impl Work {
    pub(crate) fn new(
        ledger: Ledger<State>,
        backends: BTreeMap<&'static str, Arc<dyn Backend>>,
        mint: Mint,
        clock: Arc<dyn Clock>,
        default_segments: u16,
    ) -> Self {
        Self { ledger, backends: Arc::new(backends), mint, clock, default_segments, turns: Turns::default() }
    }

    /// The back-ends of this installation.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &'static str> {
        self.backends.keys().copied()
    }

    /// Creates the index of an instance, or finds it; it can be used when this returns.
    pub(crate) async fn create_index(&self, mut new: NewIndex) -> Result<IndexDescription, Problem> {
        let instance = new.instance.clone();
        let index = match new.index.take() {
            Some(name) => name,
            None => derived_name(&instance).map_err(Problem::internal)?,
        };
        if new.segment_count == 0 {
            new.segment_count = self.default_segments;
        }
        let _turn = self.turns.take(&instance).await;
        let Some(backend) = self.backends.get(new.backend.as_str()) else {
            let there = self.backends().collect::<Vec<_>>().join(", ");
            return Err(ProvisionerError::UnknownBackend { asked: new.backend, there }.into());
        };
        backend.check(None, &asked(new.clone(), index.clone(), self.clock.now()))?;
        self.ledger.submit(Command::BeginIndex { new, index }).await?;
        self.finish(&instance).await?;
        self.described(&instance, "created")
    }

    /// Changes the index of an instance; the change holds when this returns, and if it is refused nothing is changed.
    pub(crate) async fn update_index(&self, change: IndexChange) -> Result<IndexDescription, Problem> {
        let instance = change.instance.clone();
        let _turn = self.turns.take(&instance).await;
        // What can be refused is refused before it is journaled; what was begun already passed this.
        if let Some(there) = self.index(&instance).filter(|index| index.phase == Phase::Live) {
            let before = &there.description;
            self.backend(&there)?.check(Some(before), &changed(before, &change))?;
        }
        self.ledger.submit(Command::BeginUpdate(change)).await?;
        self.finish(&instance).await?;
        self.described(&instance, "changed")
    }

    /// Ends the index of an instance with its bindings, as its reclaim policy says; it is done when this returns.
    pub(crate) async fn delete_index(&self, name: InstanceName) -> Result<(), Problem> {
        let InstanceName { instance, order } = name;
        let _turn = self.turns.take(&instance).await;
        if let Some(index) = self.index(&instance).filter(|index| index.phase == Phase::Live)
            && index.reclaim() == Reclaim::Fail
        {
            let backend = self.backend(&index)?;
            if bounded("look", backend.holds_events(index.wanted())).await? {
                return Err(ProvisionerError::NotEmpty(index.description.index).into());
            }
        }
        self.ledger.submit(Command::BeginDeletion(instance.clone(), order)).await?;
        self.finish(&instance).await
    }

    /// Issues the credentials of a binding; they work when this returns.
    pub(crate) async fn issue(&self, new: NewBinding) -> Result<Credentials, Problem> {
        let _turn = self.turns.take(&new.instance).await;
        let (id, issued) = (new.binding.clone(), self.clock.now());
        let has_user = self.index(&new.instance).is_some_and(|index| index.description.backend == OWN);
        let public_key = if has_user { self.mint.key(&id, issued)?.public } else { String::new() };
        self.ledger.submit(Command::BeginBinding { new, issued, public_key }).await?;
        let values = self.finish_binding(&id).await?;
        values.map(|values| Credentials { values }).ok_or_else(|| {
            Problem::unavailable("BeingRevoked", format_args!("service binding {id} was revoked while it was issued"))
        })
    }

    /// Revokes the credentials of a binding; nobody can use them when this returns.
    pub(crate) async fn revoke(&self, name: BindingName) -> Result<(), Problem> {
        let id = name.binding;
        let known = self.ledger.read(|state| state.binding(&id).map(|b| b.description.instance.clone()));
        // One that is not known may be just about to be issued, in the turn of its instance.
        let _turn = match known.or(name.instance) {
            Some(instance) => Some(self.turns.take(&instance).await),
            None => None,
        };
        self.ledger.submit(Command::BeginRevocation(id.clone())).await?;
        self.finish_binding(&id).await.map(|_| ())
    }

    /// Revokes what has come to its end, and counts.
    pub(crate) async fn sweep(&self) {
        if let Err(problem) = self.ledger.submit_own(Command::Sweep).await {
            tracing::warn!(%problem, "bindings were not looked through");
        }
        self.ledger.read(|state| {
            metrics::INDEXES.set(state.indexes().count());
            metrics::BINDINGS.set(state.bindings().count());
        });
    }

    /// Ends what was begun on a back-end before a crash or in vain. What keeps failing is tried with growing pauses.
    pub(crate) async fn resume(&self, backend: &str) {
        let pending: BTreeSet<InstanceId> = self.ledger.read(|state| {
            let unfinished = |index: &&Index| index.phase != Phase::Live || index.update.is_some();
            let indexes = state.indexes().filter(unfinished).map(|i| i.description.instance.clone());
            let bindings = state.bindings().filter(|b| b.phase != BindingPhase::Live);
            let all = indexes.chain(bindings.map(|b| b.description.instance.clone()));
            all.filter(|id| state.index(id).is_some_and(|i| i.description.backend == backend)).collect()
        });
        metrics::UNFINISHED.with(backend).set(pending.len());
        let due = self.turns.due(backend, &pending);
        let work = |instance| self.resume_one(backend, instance);
        stream::iter(due).for_each_concurrent(RESUMED_MAX, work).await;
    }

    /// What is being worked on now is left alone.
    async fn resume_one(&self, backend: &str, instance: InstanceId) {
        let Some(_turn) = self.turns.try_take(&instance) else { return };
        let work = async {
            self.finish(&instance).await?;
            let Some(index) = self.index(&instance) else { return Ok(()) };
            self.revoke_begun(self.backend(&index)?, &index.description).await?;
            let bindings: Vec<BindingId> = self.ledger.read(|state| {
                let unfinished = state.bindings_of(&instance).filter(|b| b.phase == BindingPhase::Issuing);
                unfinished.map(|b| b.description.binding.clone()).collect()
            });
            for binding in bindings {
                self.finish_binding(&binding).await?;
            }
            Ok::<(), Problem>(())
        };
        let count = || self.ledger.read(|state| state.bindings_of(&instance).count());
        let before = count();
        if let Err(problem) = work.await {
            if count() < before {
                tracing::info!(%instance, %problem, "service instance gets on");
                return self.turns.got_on(backend, &instance);
            }
            let pause = self.turns.failed(backend, &instance);
            tracing::warn!(%instance, %problem, ?pause, "service instance still has unfinished work");
        }
    }

    fn index(&self, instance: &InstanceId) -> Option<Index> {
        self.ledger.read(|state| state.index(instance).cloned())
    }

    fn described(&self, instance: &InstanceId, done: &str) -> Result<IndexDescription, Problem> {
        let there = self.index(instance).map(|index| index.description);
        there.ok_or_else(|| {
            Problem::unavailable("NotReady", format_args!("the index was deleted while it was being {done}"))
        })
    }

    fn backend(&self, index: &Index) -> Result<&dyn Backend, Problem> {
        let name = index.description.backend.as_str();
        let missing =
            || unavailable(format_args!("this replica has no back-end {name:?}: put it back into its settings"));
        self.backends.get(name).map(|backend| &**backend).ok_or_else(missing)
    }

    /// Brings an index to the end of its phase. The caller holds the instance's turn.
    async fn finish(&self, instance: &InstanceId) -> Result<(), Problem> {
        let Some(index) = self.index(instance) else { return Ok(()) };
        match (index.phase, &index.update) {
            (Phase::Live, None) => Ok(()),
            (Phase::Live, Some(wanted)) => {
                let updated = bounded("update", self.backend(&index)?.update(wanted)).await;
                if updated.as_ref().is_err_and(is_final) {
                    self.ledger.submit(Command::AbandonUpdate(instance.clone())).await?;
                }
                updated?;
                self.ledger.submit(Command::EndUpdate(instance.clone())).await?;
                tracing::info!(%instance, index = %wanted.index, "index changed");
                Ok(())
            }
            (Phase::Creating, _) => {
                let created = bounded("create", self.backend(&index)?.create(&index.description)).await;
                if created.as_ref().is_err_and(is_final) {
                    self.ledger.submit(Command::AbandonIndex(instance.clone())).await?;
                }
                created?;
                self.ledger.submit(Command::EndIndex(instance.clone())).await?;
                tracing::info!(%instance, index = %index.description.index, "index created");
                Ok(())
            }
            (Phase::Deleting, _) => self.finish_deletion(instance, &index).await,
        }
    }

    async fn finish_deletion(&self, instance: &InstanceId, index: &Index) -> Result<(), Problem> {
        let backend = self.backend(index)?;
        let mut doomed = index.wanted().clone();
        doomed.options.reclaim = index.reclaim();
        let bindings = self.revoke_begun(backend, &doomed).await?;
        let ours = index.was_live || bounded("look", backend.describe(&doomed)).await? == Found::Ours;
        if ours {
            // Nobody could write to what was never ready: events in it were there before, and are not ours to delete.
            if !index.was_live {
                let held = bounded("look", backend.holds_events(&doomed)).await?;
                let keep = held || doomed.options.adopt;
                doomed.options.reclaim = if keep { Reclaim::Retain } else { Reclaim::Delete };
            }
            let deleted = bounded("delete", backend.delete(&doomed)).await;
            if deleted.as_ref().is_err_and(|problem| problem.kind == "NotEmpty") {
                self.ledger.submit(Command::AbandonDeletion(instance.clone())).await?;
            }
            deleted?;
        }
        self.ledger.submit(Command::EndDeletion(instance.clone())).await?;
        let reclaim = doomed.options.reclaim;
        tracing::info!(%instance, index = %doomed.index, bindings, ?reclaim, "index ended");
        Ok(())
    }

    /// Revokes every binding of an index whose revocation has begun, and says how many. The caller holds the instance's turn.
    async fn revoke_begun(&self, backend: &dyn Backend, index: &IndexDescription) -> Result<usize, Problem> {
        let left = |count| {
            let begun = |b: &&Binding| b.phase == BindingPhase::Revoking;
            self.ledger.read(|state| state.bindings_of(&index.instance).filter(begun).take(count).cloned().collect())
        };
        let revoked = |ids| async move { self.ledger.submit(Command::EndRevocations(ids)).await.map(drop) };
        revoke_all(backend, index, left, revoked).await
    }

    /// Brings a binding to the end of its phase and returns its credentials if it has any. The caller holds the turn.
    async fn finish_binding(&self, id: &BindingId) -> Result<Option<BTreeMap<String, String>>, Problem> {
        let found = self.ledger.read(|state| {
            let binding = state.binding(id)?;
            Some((state.index(&binding.description.instance)?.clone(), binding.clone()))
        });
        let Some((index, binding)) = found else { return Ok(None) };
        let backend = self.backend(&index)?;
        match binding.phase {
            BindingPhase::Issuing | BindingPhase::Live => {
                let issued = bounded("issue", backend.issue(&index.description, &binding)).await;
                if binding.phase == BindingPhase::Issuing && issued.as_ref().is_err_and(is_final) {
                    // Nobody has seen them; what there is of them goes with the next sweep.
                    self.ledger.submit(Command::BeginRevocation(id.clone())).await?;
                }
                let mut values = plain(&binding.description);
                values.extend(issued?);
                if binding.phase == BindingPhase::Issuing {
                    let ended = self.ledger.submit(Command::EndBinding(id.clone())).await;
                    if ended.is_err() || !self.is_bound(&binding) {
                        self.take_back(backend, &index.description, &binding).await;
                    }
                    ended?;
                }
                Ok(self.is_bound(&binding).then_some(values))
            }
            BindingPhase::Revoking => {
                bounded("revoke", backend.revoke(&index.description, std::slice::from_ref(&binding))).await?;
                self.ledger.submit(Command::EndRevocations(vec![id.clone()])).await?;
                tracing::info!(binding = %id, index = %index.description.index, "credentials revoked");
                Ok(None)
            }
        }
    }

    /// Whether a binding of this instant can be used, or will be.
    fn is_bound(&self, binding: &Binding) -> bool {
        self.ledger.read(|state| {
            let there = state.binding(&binding.description.binding);
            there.is_some_and(|b| b.description == binding.description && b.phase != BindingPhase::Revoking)
        })
    }

    /// Revokes what this replica issued after another leader had revoked it: nobody else knows of it any more.
    async fn take_back(&self, backend: &dyn Backend, index: &IndexDescription, binding: &Binding) {
        // Our own store takes nothing that is late.
        if index.backend == OWN {
            return;
        }
        let id = &binding.description.binding;
        let taken = async {
            self.ledger.whole().await?;
            if self.is_bound(binding) {
                return Ok(());
            }
            tracing::warn!(binding = %id, "credentials were issued after their revocation, and are taken back");
            bounded("revoke", backend.revoke(index, std::slice::from_ref(binding))).await
        };
        if let Err(problem) = taken.await {
            tracing::error!(binding = %id, %problem, "credentials that were issued late may not be revoked");
        }
    }
}

/// Whether trying again cannot help and nothing happened.
fn is_final(problem: &Problem) -> bool {
    problem.outcome == Outcome::NotApplied && !problem.is_transient() && problem.code != Code::Internal
}

/// One step of a back-end, within its time, counted.
async fn bounded<T>(effect: &'static str, step: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = |_| Err(unavailable(format_args!("the step {effect:?} did not end within {STEP_MAX:?}")));
    let result = timeout(STEP_MAX, step).await.unwrap_or_else(late);
    let counter = if result.is_ok() { &metrics::EFFECTS } else { &metrics::FAILURES };
    counter.with(effect).inc();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{foreign, refused, unfinished};

    #[test]
    fn only_what_cannot_succeed_is_given_up() {
        for (problem, ends) in [
            (refused("no"), true),
            (foreign("theirs"), true),
            (Problem::bad_request("NotUpdatable", "fixed"), true),
            (unavailable("503"), false),
            (unfinished("202"), false),
            (Problem::throttled("TooManyStreams", "full"), false),
            (Problem::internal("defect"), false),
            (refused("perhaps").unknown(), false),
        ] {
            assert_eq!(is_final(&problem), ends, "{problem:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_does_not_end_is_cut_off() {
        let problem = bounded::<()>("create", std::future::pending()).await.unwrap_err();
        assert_eq!((problem.kind.as_str(), is_final(&problem)), ("BackendUnavailable", false));
    }
}
