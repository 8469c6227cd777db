//! Carries out the operations that the journal shows as begun: calls to the provisioner, repeated until they end.

use std::{sync::Arc, time::Duration};

use bus::Bus;
use host::Ledger;
use tokio::sync::Mutex;
use types::{BindingId, InstanceId};
use wire::{
    Code, Outcome, Problem,
    index_provisioner::{
        BindingName, CreateIndex, DeleteIndex, IndexChange, InstanceName, IssueCredentials, NewBinding, NewIndex,
        RevokeCredentials, UpdateIndex,
    },
};

use crate::{
    desk::new_binding,
    metrics,
    state::{Command, Phase, State, Wanted},
};

/// How long the provisioner may take for one call before it is repeated.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(8);

/// What the provisioner says when an index must not be deleted because it holds events.
const NOT_EMPTY: &str = "NotEmpty";

/// Locks that order the work on one instance; instances that share a lock wait for each other.
const TURNS: usize = 64;

/// One call to make.
pub(crate) enum Work {
    Create { id: InstanceId, token: String, wanted: Wanted },
    Update { id: InstanceId, token: String, wanted: Wanted },
    Restore { id: InstanceId, token: String, wanted: Wanted },
    Delete { id: InstanceId, token: String },
    Issue { token: String, new: NewBinding },
    Revoke { id: BindingId, instance: InstanceId, token: String },
}

/// Everything that was begun and not ended, by operation and how often an operator has asked for another attempt at it.
pub(crate) fn pending(state: &State) -> Vec<(String, Work)> {
    let mut work = Vec::new();
    for (id, instance) in state.instances() {
        if instance.phase == Phase::Live && !instance.restores() {
            continue;
        }
        let token = instance.operation.token.clone();
        let name = |work: &str| state.effect(id, work);
        let (id, wanted) = (id.clone(), instance.wanted.clone());
        match (instance.phase, &instance.change) {
            (Phase::Live, _) if instance.restores() => {
                work.push((name(&format!("{token}-restore")), Work::Restore { id, token, wanted }));
            }
            (Phase::Live, _) | (Phase::Updating, None) => {}
            (Phase::Beginning, _) => work.push((name(&token), Work::Create { id, token, wanted })),
            (Phase::Updating, Some(to)) => {
                work.push((name(&token), Work::Update { id, token, wanted: to.wanted.clone() }));
            }
            (Phase::Ending, _) => {
                let token = instance.operation.removal_token();
                work.push((name(&token), Work::Delete { id, token }));
            }
        }
    }
    for (id, binding) in state.bindings() {
        let instance = &binding.request.instance;
        // Bindings wait until their instance is made; those of an instance that ends are revoked together with it.
        let is_usable = |phase| matches!(phase, Phase::Live | Phase::Updating);
        if binding.phase == Phase::Live || state.instance(instance).is_none_or(|i| !is_usable(i.phase)) {
            continue;
        }
        match binding.phase {
            Phase::Live | Phase::Updating => {}
            Phase::Beginning => {
                let token = binding.operation.token.clone();
                work.push((state.effect(instance, &token), Work::Issue { token, new: new_binding(id, binding) }));
            }
            Phase::Ending => {
                let (instance, token) = (instance.clone(), binding.operation.removal_token());
                work.push((state.effect(&instance, &token), Work::Revoke { id: id.clone(), instance, token }));
            }
        }
    }
    metrics::OPERATIONS.set(work.len());
    metrics::INSTANCES.set(state.instances().count());
    metrics::BINDINGS.set(state.bindings().count());
    work
}

/// Makes the calls.
#[derive(Clone)]
pub(crate) struct Effects {
    bus: Bus,
    ledger: Ledger<State>,
    turns: Turns,
}

/// Who works on an instance; clones share it.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Vec<Mutex<()>>>);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(Arc::new((0..TURNS).map(|_| Mutex::new(())).collect()))
    }

    pub(crate) fn of(&self, instance: &InstanceId) -> &Mutex<()> {
        let hash = types::hash64(instance.as_str().as_bytes());
        &self.0[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }
}

impl Effects {
    pub(crate) fn new(bus: Bus, ledger: Ledger<State>, turns: Turns) -> Self {
        Self { bus, ledger, turns }
    }

    /// Does one piece of work and answers with the command that records its end.
    ///
    /// Work on one instance goes one after the other: a deletion begins when the creation before it has ended, so nothing is left.
    /// Errors: what is worth another attempt.
    pub(crate) async fn run(&self, work: Work) -> Result<Command, Problem> {
        match work {
            Work::Create { id, token, wanted } => {
                let _turn = self.turns.of(&id).lock().await;
                let new = NewIndex {
                    instance: id.clone(),
                    scope: wanted.scope,
                    index: Some(wanted.index),
                    backend: wanted.backend,
                    segment_count: wanted.segment_count,
                    retention_days: wanted.retention_days,
                    options: wanted.options,
                };
                let current = |state: &State| in_phase(state, &id, &token, Phase::Beginning);
                let call = self.bus.call_within::<CreateIndex>(&(), &new, CALL_MAX);
                let failure = self.unless_superseded(call, current).await?;
                Ok(Command::EndInstance { id, token, failure })
            }
            Work::Update { id, token, wanted } => {
                let _turn = self.turns.of(&id).lock().await;
                let current = |state: &State| in_phase(state, &id, &token, Phase::Updating);
                let change = index_change(&id, wanted);
                let call = self.bus.call_within::<UpdateIndex>(&(), &change, CALL_MAX);
                let failure = self.unless_superseded(call, current).await?;
                Ok(Command::EndInstance { id, token, failure })
            }
            Work::Restore { id, token, wanted } => {
                let _turn = self.turns.of(&id).lock().await;
                let current = |state: &State| in_phase(state, &id, &token, Phase::Live);
                let change = index_change(&id, wanted);
                let call = self.bus.call_within::<UpdateIndex>(&(), &change, CALL_MAX);
                if let Some(reason) = self.unless_superseded(call, current).await? {
                    // What it was before was once taken, so this back-end changes nothing, half or whole.
                    tracing::error!(instance = %id, reason, "instance cannot be made again what it was before a failed update");
                }
                Ok(Command::EndRestore { id, token })
            }
            Work::Delete { id, token } => {
                let _turn = self.turns.of(&id).lock().await;
                let name = InstanceName { instance: id.clone() };
                let failure = match self.bus.call_within::<DeleteIndex>(&(), &name, CALL_MAX).await {
                    Ok(_) => None,
                    // The only refusal that ends a deletion; anything else is repeated until it succeeds.
                    Err(problem) if problem.kind == NOT_EMPTY => Some(problem.message),
                    Err(problem) => return Err(problem),
                };
                Ok(Command::EndInstance { id, token, failure })
            }
            Work::Issue { token, new } => {
                let _turn = self.turns.of(&new.instance).lock().await;
                let current = |state: &State| {
                    let there = state.binding(&new.instance, &new.binding);
                    there.is_some_and(|b| b.operation.token == token && b.phase == Phase::Beginning)
                };
                let call = self.bus.call_within::<IssueCredentials>(&(), &new, CALL_MAX);
                let failure = self.unless_superseded(call, current).await?;
                Ok(Command::EndBinding { id: new.binding, token, failure })
            }
            Work::Revoke { id, instance, token } => {
                let _turn = self.turns.of(&instance).lock().await;
                let name = BindingName { binding: id.clone(), instance: Some(instance.clone()) };
                self.bus.call_within::<RevokeCredentials>(&(), &name, CALL_MAX).await?;
                Ok(Command::EndBinding { id, token, failure: None })
            }
        }
    }

    /// Waits for a call that begins something, but not when its opposite was asked for meanwhile: a deletion must not wait for a
    /// creation that cannot succeed. The provisioner works on one instance in the order in which it is asked.
    async fn unless_superseded<T>(
        &self,
        call: impl Future<Output = Result<T, Problem>>,
        current: impl Fn(&State) -> bool,
    ) -> Result<Option<String>, Problem> {
        let mut changes = self.ledger.changes();
        let superseded = async {
            loop {
                changes.mark_unchanged();
                if !self.ledger.read(&current) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            // Looked at first: a call whose turn comes too late must not even be sent.
            biased;
            // The state ignores the end of an operation that is no longer the last one.
            () = superseded => Ok(None),
            result = call => failure(result),
        }
    }
}

fn in_phase(state: &State, id: &InstanceId, token: &str, phase: Phase) -> bool {
    state.instance(id).is_some_and(|there| there.operation.token == token && there.phase == phase)
}

fn index_change(id: &InstanceId, wanted: Wanted) -> IndexChange {
    IndexChange { instance: id.clone(), retention_days: wanted.retention_days, options: wanted.options }
}

/// Why the call will never succeed; an error if it is worth another attempt.
fn failure<T>(result: Result<T, Problem>) -> Result<Option<String>, Problem> {
    match result {
        Ok(_) => Ok(None),
        Err(problem) => {
            let again = problem.is_transient() || problem.outcome == Outcome::Unknown || problem.code == Code::Internal;
            if again { Err(problem) } else { Ok(Some(problem.message)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_succeed_ends_an_operation() {
        for (problem, ends) in [
            (Problem::conflict("IndexNameTaken", "taken"), true),
            (Problem::bad_request("SegmentCount", "65"), true),
            (Problem::not_found("UnknownInstance", "none"), true),
            (Problem::unavailable("NoResponders", "none"), false),
            (Problem::throttled("TooManyKeys", "full"), false),
            (Problem::internal("defect"), false),
            (Problem::new(Code::Deadline, "Deadline", "late").unknown(), false),
        ] {
            assert_eq!(failure::<()>(Err(problem.clone())).is_ok(), ends, "{problem:?}");
        }
    }
}
