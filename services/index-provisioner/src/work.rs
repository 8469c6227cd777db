//! Carries out what the journal says was begun: creates and deletes indexes, issues and revokes credentials.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use host::Ledger;
use tokio::sync::Mutex;
use types::{BindingId, Clock, InstanceId};
use wire::{
    Code, Outcome, Problem,
    index_provisioner::{Credentials, IndexDescription, NewBinding, NewIndex},
};

use crate::{
    backend::Backend,
    metrics,
    mint::{Mint, derived_name},
    state::{Binding, BindingPhase, Command, Index, Phase, State},
};

/// Instances whose unfinished work is resumed at the same time.
const RESUMED_MAX: usize = 8;

/// Locks that order the work on one instance; instances that share a lock wait for each other.
const TURNS: usize = 64;

/// The work on indexes and bindings; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Work {
    ledger: Ledger<State>,
    /// By name; the state knows which names exist.
    backends: BTreeMap<&'static str, Arc<dyn Backend>>,
    mint: Mint,
    clock: Arc<dyn Clock>,
    default_segments: u16,
    turns: Arc<Vec<Mutex<()>>>,
}

impl Work {
    pub(crate) fn new(
        ledger: Ledger<State>,
        backends: BTreeMap<&'static str, Arc<dyn Backend>>,
        mint: Mint,
        clock: Arc<dyn Clock>,
        default_segments: u16,
    ) -> Self {
        let turns = Arc::new((0..TURNS).map(|_| Mutex::new(())).collect());
        Self { ledger, backends, mint, clock, default_segments, turns }
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
        let _turn = self.turn(&instance).lock().await;
        self.ledger.submit(Command::BeginIndex { new, index }).await?;
        self.finish(&instance).await?;
        let there = self.ledger.read(|state| state.index(&instance).map(|i| i.description.clone()));
        there.ok_or_else(|| Problem::unavailable("NotReady", "the index was deleted while it was being created"))
    }

    /// Deletes the index of an instance with its bindings; nothing of them is left when this returns.
    pub(crate) async fn delete_index(&self, instance: InstanceId) -> Result<(), Problem> {
        let _turn = self.turn(&instance).lock().await;
        self.ledger.submit(Command::BeginDeletion(instance.clone())).await?;
        self.finish(&instance).await
    }

    /// Issues the credentials of a binding; they work when this returns.
    pub(crate) async fn issue(&self, new: NewBinding) -> Result<Credentials, Problem> {
        let _turn = self.turn(&new.instance).lock().await;
        let (id, issued) = (new.binding.clone(), self.clock.now());
        let public_key = self.mint.key(&id, issued)?.public;
        self.ledger.submit(Command::BeginBinding { new, issued, public_key }).await?;
        let values = self.finish_binding(&id).await?;
        values.map(|values| Credentials { values }).ok_or_else(|| {
            Problem::unavailable("BeingRevoked", format_args!("service binding {id} was revoked while it was issued"))
        })
    }

    /// Revokes the credentials of a binding; nobody can use them when this returns.
    pub(crate) async fn revoke(&self, id: BindingId) -> Result<(), Problem> {
        let instance = self.ledger.read(|state| state.binding(&id).map(|b| b.description.instance.clone()));
        let Some(instance) = instance else { return Ok(()) };
        let _turn = self.turn(&instance).lock().await;
        self.ledger.submit(Command::BeginRevocation(id.clone())).await?;
        self.finish_binding(&id).await.map(|_| ())
    }

    /// Ends what was begun before a crash or in vain, and revokes what has come to its end.
    pub(crate) async fn sweep(&self) {
        if let Err(problem) = self.ledger.submit(Command::Sweep).await {
            tracing::warn!(%problem, "bindings were not looked through");
        }
        let pending: BTreeSet<InstanceId> = self.ledger.read(|state| {
            metrics::INDEXES.set(state.indexes().count());
            metrics::BINDINGS.set(state.bindings().count());
            let indexes = state.indexes().filter(|i| i.phase != Phase::Live).map(|i| i.description.instance.clone());
            let bindings = state.bindings().filter(|b| b.phase != BindingPhase::Live);
            indexes.chain(bindings.map(|b| b.description.instance.clone())).collect()
        });
        stream::iter(pending).for_each_concurrent(RESUMED_MAX, |instance| self.resume(instance)).await;
    }

    /// What is being worked on now is left alone.
    async fn resume(&self, instance: InstanceId) {
        let Ok(_turn) = self.turn(&instance).try_lock() else { return };
        let work = async {
            self.finish(&instance).await?;
            let bindings: Vec<BindingId> = self.ledger.read(|state| {
                let unfinished = state.bindings_of(&instance).filter(|b| b.phase != BindingPhase::Live);
                unfinished.map(|b| b.description.binding.clone()).collect()
            });
            for binding in bindings {
                self.finish_binding(&binding).await?;
            }
            Ok::<(), Problem>(())
        };
        if let Err(problem) = work.await {
            tracing::warn!(%instance, %problem, "service instance still has unfinished work");
        }
    }

    fn turn(&self, instance: &InstanceId) -> &Mutex<()> {
        let hash = types::hash64(instance.as_str().as_bytes());
        &self.turns[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }

    fn backend(&self, index: &Index) -> Result<&Arc<dyn Backend>, Problem> {
        let name = index.description.backend.as_str();
        self.backends.get(name).ok_or_else(|| {
            Problem::unavailable("UnknownBackend", format_args!("this replica has no back-end {name:?}"))
        })
    }

    /// Brings an index to the end of its phase. The caller holds the instance's turn.
    async fn finish(&self, instance: &InstanceId) -> Result<(), Problem> {
        let Some(index) = self.ledger.read(|state| state.index(instance).cloned()) else { return Ok(()) };
        match index.phase {
            Phase::Live => Ok(()),
            Phase::Creating => {
                let created = self.backend(&index)?.create(&index.description).await;
                if let Err(problem) = counted("create", created) {
                    if is_final(&problem) {
                        self.ledger.submit(Command::AbandonIndex(instance.clone())).await?;
                    }
                    return Err(problem);
                }
                self.ledger.submit(Command::EndIndex(instance.clone())).await?;
                tracing::info!(%instance, index = %index.description.index, "index created");
                Ok(())
            }
            Phase::Deleting => {
                let backend = self.backend(&index)?;
                let bindings: Vec<Binding> = self.ledger.read(|state| state.bindings_of(instance).cloned().collect());
                counted("revoke", backend.revoke(&bindings).await)?;
                counted("delete", backend.delete(&index.description).await)?;
                self.ledger.submit(Command::EndDeletion(instance.clone())).await?;
                tracing::info!(%instance, index = %index.description.index, bindings = bindings.len(), "index deleted");
                Ok(())
            }
        }
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
                let values = counted("issue", backend.issue(&index.description, &binding).await)?;
                self.ledger.submit(Command::EndBinding(id.clone())).await?;
                Ok(Some(values))
            }
            BindingPhase::Revoking => {
                counted("revoke", backend.revoke(std::slice::from_ref(&binding)).await)?;
                self.ledger.submit(Command::EndRevocation(id.clone())).await?;
                tracing::info!(binding = %id, index = %index.description.index, "credentials revoked");
                Ok(None)
            }
        }
    }
}

/// Whether trying again cannot help and nothing happened.
fn is_final(problem: &Problem) -> bool {
    problem.outcome == Outcome::NotApplied && !problem.is_transient() && problem.code != Code::Internal
}

fn counted<T>(effect: &'static str, result: Result<T, Problem>) -> Result<T, Problem> {
    let counter = if result.is_ok() { &metrics::EFFECTS } else { &metrics::FAILURES };
    counter.with(effect).inc();
    result
}
