//! Carries out the operations that the journal shows as begun: calls to the provisioner, repeated until they end.

use std::{sync::Arc, time::Duration};

use bus::Bus;
use host::Ledger;
use tokio::sync::Mutex;
use types::{BindingId, InstanceId};
use wire::{
    Code, Outcome, Problem,
    index_provisioner::{
        BindingName, CreateIndex, DeleteIndex, InstanceName, IssueCredentials, NewBinding, NewIndex, RevokeCredentials,
    },
};

use crate::{
    desk::new_binding,
    metrics,
    state::{Command, Phase, State, Wanted},
};

/// How long the provisioner may take for one call before it is repeated.
const CALL_MAX: Duration = Duration::from_secs(8);

/// Locks that order the work on one instance; instances that share a lock wait for each other.
const TURNS: usize = 64;

/// One call to make.
pub(crate) enum Work {
    Create { id: InstanceId, token: String, wanted: Wanted },
    Delete { id: InstanceId, token: String },
    Issue { token: String, new: NewBinding },
    Revoke { id: BindingId, instance: InstanceId, token: String },
}

/// Everything that was begun and not ended, by operation.
pub(crate) fn pending(state: &State) -> Vec<(String, Work)> {
    let mut work = Vec::new();
    for (id, instance) in state.instances() {
        let token = instance.operation.token.clone();
        match instance.phase {
            Phase::Live => continue,
            Phase::Beginning => {
                let wanted = instance.wanted.clone();
                work.push((token.clone(), Work::Create { id: id.clone(), token, wanted }));
            }
            Phase::Ending => work.push((token.clone(), Work::Delete { id: id.clone(), token })),
        }
    }
    for (id, binding) in state.bindings() {
        let instance = &binding.request.instance;
        // The bindings of an instance that ends are revoked together with it.
        if state.instance(instance).is_none_or(|i| i.phase != Phase::Live) {
            continue;
        }
        let token = binding.operation.token.clone();
        match binding.phase {
            Phase::Live => continue,
            Phase::Beginning => work.push((token.clone(), Work::Issue { token, new: new_binding(id, binding) })),
            Phase::Ending => {
                let instance = instance.clone();
                work.push((token.clone(), Work::Revoke { id: id.clone(), instance, token }));
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
    turns: Arc<Vec<Mutex<()>>>,
}

impl Effects {
    pub(crate) fn new(bus: Bus, ledger: Ledger<State>) -> Self {
        Self { bus, ledger, turns: Arc::new((0..TURNS).map(|_| Mutex::new(())).collect()) }
    }

    /// Does one piece of work and answers with the command that records its end.
    ///
    /// Work on one instance goes one after the other: a deletion begins when the creation before it has ended, so nothing is left.
    /// Errors: what is worth another attempt.
    pub(crate) async fn run(&self, work: Work) -> Result<Command, Problem> {
        match work {
            Work::Create { id, token, wanted } => {
                let _turn = self.turn(&id).lock().await;
                let new = NewIndex {
                    instance: id.clone(),
                    scope: wanted.scope,
                    index: Some(wanted.index),
                    backend: wanted.backend,
                    segment_count: wanted.segment_count,
                    retention_days: wanted.retention_days,
                };
                let current = |state: &State| state.instance(&id).is_some_and(|i| i.operation.token == token);
                let call = self.bus.call_within::<CreateIndex>(&(), &new, CALL_MAX);
                let failure = self.unless_superseded(call, current).await?;
                Ok(Command::EndInstance { id, token, failure })
            }
            Work::Delete { id, token } => {
                let _turn = self.turn(&id).lock().await;
                let name = InstanceName { instance: id.clone() };
                self.bus.call_within::<DeleteIndex>(&(), &name, CALL_MAX).await?;
                Ok(Command::EndInstance { id, token, failure: None })
            }
            Work::Issue { token, new } => {
                let _turn = self.turn(&new.instance).lock().await;
                let current = |state: &State| {
                    state.binding(&new.instance, &new.binding).is_some_and(|b| b.operation.token == token)
                };
                let call = self.bus.call_within::<IssueCredentials>(&(), &new, CALL_MAX);
                let failure = self.unless_superseded(call, current).await?;
                Ok(Command::EndBinding { id: new.binding, token, failure })
            }
            Work::Revoke { id, instance, token } => {
                let _turn = self.turn(&instance).lock().await;
                let name = BindingName { binding: id.clone() };
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
            result = call => failure(result),
            // The state ignores the end of an operation that is no longer the last one.
            () = superseded => Ok(None),
        }
    }

    fn turn(&self, instance: &InstanceId) -> &Mutex<()> {
        let hash = types::hash64(instance.as_str().as_bytes());
        &self.turns[usize::try_from(hash % TURNS as u64).unwrap_or(0)]
    }
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
