//! Carries out the operations that the journal shows as begun: calls to the provisioner, repeated until they end.

pub(crate) mod rules;

use std::{collections::BTreeSet, time::Duration};

use bus::Bus;
use host::{Free, Ledger};
use types::{BindingId, IndexName, InstanceId};
use wire::{
    Code, Outcome, Problem,
    index_provisioner::{
        BindingName, CreateIndex, DeleteIndex, IndexChange, IndexOptions, InstanceName, IssueCredentials, NewBinding,
        NewIndex, Reclaim, RevokeCredentials, UpdateIndex,
    },
};

use crate::{
    audit::Audit,
    catalog::OWN,
    desk::{Handover, new_binding},
    metrics,
    provisioned::bindings,
    state::{Command, Instance, Phase, SWEEP_MAX, State, Wanted},
};

/// How long the provisioner may take for one call before it is repeated.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(8);

/// What the provisioner says when an index must not be deleted: because it holds events, or others are archived into it. These are the
/// only refusals that end a deletion; anything else is repeated until it succeeds.
const MUST_STAY: [&str; 2] = ["NotEmpty", "ArchiveInUse"];

/// One call to make.
pub(crate) enum Work {
    Create(Step, Wanted),
    Update(Step, Wanted),
    Restore(Step, Wanted),
    Delete {
        step: Step,
        index: IndexName,
        /// Whether its users may have made rules on it.
        watched: bool,
    },
    Issue {
        token: String,
        new: NewBinding,
    },
    Revoke {
        id: BindingId,
        instance: InstanceId,
        token: String,
    },
}

/// Which work on an instance it is.
pub(crate) struct Step {
    id: InstanceId,
    /// The operation.
    token: String,
    /// Its place among everything that is wanted of the instance.
    order: u64,
    /// Whether the alerter may have rules of the instance.
    alerted: bool,
}

/// Offers everything that was begun and not ended: by operation and how often an operator has asked for another attempt at it.
///
/// Each back-end has places of its own, so one that hangs holds up nobody but itself. Work on one instance goes one after the other.
pub(crate) fn look(state: &State, free: &mut Free<'_, Work>) {
    let mut count = 0;
    for (backend, items) in state.pending() {
        count += items.len();
        for (id, binding) in items {
            if !free.has_place(backend) {
                break;
            }
            if !free.has_turn(id.as_str()) {
                continue;
            }
            let found = state.instance(id).and_then(|there| match binding {
                None => of_instance(id, there),
                Some(binding) => of_binding(state, id, there, binding),
            });
            if let Some((token, work)) = found {
                free.offer(backend, id.as_str(), state.effect(id, &token), work);
            }
        }
    }
    let (instances, bindings) = state.counts();
    metrics::OPERATIONS.set(count);
    metrics::INSTANCES.set(instances);
    metrics::BINDINGS.set(bindings);
}

fn of_instance(id: &InstanceId, there: &Instance) -> Option<(String, Work)> {
    let (operation, wanted) = (&there.operation, &there.wanted);
    let step =
        |token: &str, order: u64| Step { id: id.clone(), token: token.to_owned(), order, alerted: there.is_alerted() };
    let (token, now, undone) = (&operation.token, operation.order(), operation.undo_order());
    match (there.phase, &there.change) {
        (Phase::Live, _) if there.restores() => {
            Some((format!("{token}-restore"), Work::Restore(step(token, undone), wanted.clone())))
        }
        (Phase::Live, _) | (Phase::Updating, None) => None,
        (Phase::Beginning, _) => Some((token.clone(), Work::Create(step(token, now), wanted.clone()))),
        (Phase::Updating, Some(to)) => Some((token.clone(), Work::Update(step(token, now), to.wanted.clone()))),
        (Phase::Ending, _) => {
            let token = operation.removal_token();
            // Before it is made its name may be that of somebody else's index.
            let watched = there.was_made() && wanted.backend == OWN;
            let step = step(&token, operation.removal_order());
            Some((token, Work::Delete { step, index: wanted.index.clone(), watched }))
        }
    }
}

/// Bindings wait until their instance is made; those of an instance that ends are revoked together with it.
fn of_binding(state: &State, instance: &InstanceId, owner: &Instance, id: &BindingId) -> Option<(String, Work)> {
    let there = state.binding(instance, id)?;
    match there.phase {
        _ if !matches!(owner.phase, Phase::Live | Phase::Updating) => None,
        Phase::Live | Phase::Updating => None,
        Phase::Beginning => {
            let token = there.operation.token.clone();
            Some((token.clone(), Work::Issue { token, new: new_binding(id, there) }))
        }
        Phase::Ending => {
            let (instance, token) = (instance.clone(), there.operation.removal_token());
            Some((token.clone(), Work::Revoke { id: id.clone(), instance, token }))
        }
    }
}

impl Step {
    /// The command that records its end.
    fn ended(self, failure: Option<String>, kind: &str) -> Command {
        Command::EndInstance { id: self.id, token: self.token, failure, kind: kind.to_owned() }
    }
}

/// Makes the calls.
#[derive(Clone)]
pub(crate) struct Effects {
    pub(crate) bus: Bus,
    pub(crate) ledger: Ledger<State>,
    pub(crate) audit: Audit,
    pub(crate) handover: Handover,
}

impl Effects {
    /// Does one piece of work and answers with the command that records its end; `None` if its opposite was asked for meanwhile.
    ///
    /// Errors: what is worth another attempt.
    pub(crate) async fn run(&self, work: Work) -> Result<Option<Command>, Problem> {
        match work {
            Work::Create(step, wanted) => self.create(step, wanted).await,
            Work::Update(step, wanted) => {
                let Some(ended) = self.change(&step, wanted, Phase::Updating).await else { return Ok(None) };
                Ok(Some(step.ended(ended?.err(), "")))
            }
            Work::Restore(step, wanted) => {
                let Some(ended) = self.change(&step, wanted, Phase::Live).await else { return Ok(None) };
                if let Err(reason) = ended? {
                    // What it was before was once taken, so this back-end changes nothing, half or whole.
                    tracing::error!(instance = %step.id, reason, "instance cannot be made again what it was before a failed update");
                }
                Ok(Some(Command::EndRestore { id: step.id, token: step.token }))
            }
            Work::Delete { step, index, watched } => self.delete(step, &index, watched).await.map(Some),
            Work::Issue { token, new } => self.issue(token, new).await,
            Work::Revoke { id, instance, token } => {
                let name = BindingName { binding: id.clone(), instance: Some(instance) };
                self.bus.call_within::<RevokeCredentials>(&(), &name, CALL_MAX).await?;
                Ok(Some(Command::EndBinding { id, token, failure: None }))
            }
        }
    }

    async fn create(&self, step: Step, wanted: Wanted) -> Result<Option<Command>, Problem> {
        let Step { id, token, order, .. } = &step;
        let Wanted { scope, index, backend, segment_count, retention_days, options, alerts } = wanted;
        let new = NewIndex {
            instance: id.clone(),
            scope,
            index: Some(index.clone()),
            backend,
            segment_count,
            retention_days,
            options,
            order: *order,
        };
        let current = |state: &State| in_phase(state, id, token, Phase::Beginning);
        let call = self.bus.call_within::<CreateIndex>(&(), &new, CALL_MAX);
        let Some(made) = self.unless_superseded(call, current).await else { return Ok(None) };
        let mut failure = made?.err();
        if failure.is_none() && step.alerted {
            let settled = rules::settle(&self.bus, id, &index, &alerts);
            let Some(settled) = self.unless_superseded(settled, current).await else { return Ok(None) };
            failure = settled?.err();
            if failure.is_some() {
                self.take_back(&step, &index, new).await?;
            }
        }
        Ok(Some(step.ended(failure, "")))
    }

    /// Removes an index that was made a moment ago and cannot have its rules. Nobody had credentials for it; what it adopted stays.
    ///
    /// The rules go first: once the index is changed its creation cannot be repeated, and with that nobody comes here again.
    async fn take_back(&self, step: &Step, index: &IndexName, made: NewIndex) -> Result<(), Problem> {
        rules::settle(&self.bus, &step.id, index, &[]).await?;
        if made.options.adopt {
            let options = IndexOptions { reclaim: Reclaim::Retain, ..made.options };
            let change = IndexChange {
                instance: step.id.clone(),
                retention_days: made.retention_days,
                options,
                order: made.order,
            };
            self.bus.call_within::<UpdateIndex>(&(), &change, CALL_MAX).await?;
        }
        let name = InstanceName { instance: step.id.clone(), order: made.order + 1 };
        self.bus.call_within::<DeleteIndex>(&(), &name, CALL_MAX).await.map(drop)
    }

    async fn change(&self, step: &Step, wanted: Wanted, phase: Phase) -> Option<Tried<()>> {
        let Wanted { index, retention_days, options, alerts, .. } = wanted;
        let change = IndexChange { instance: step.id.clone(), retention_days, options, order: step.order };
        let call = async {
            self.bus.call_within::<UpdateIndex>(&(), &change, CALL_MAX).await?;
            if step.alerted { rules::settle(&self.bus, &step.id, &index, &alerts).await } else { Ok(()) }
        };
        self.unless_superseded(call, |state| in_phase(state, &step.id, &step.token, phase)).await
    }

    /// The rules go behind the index: a deletion that is refused leaves them as they are, and nobody has credentials to make more.
    async fn delete(&self, step: Step, index: &IndexName, watched: bool) -> Result<Command, Problem> {
        let name = InstanceName { instance: step.id.clone(), order: step.order };
        match self.bus.call_within::<DeleteIndex>(&(), &name, CALL_MAX).await {
            Ok(_) if watched => rules::clear(&self.bus, index).await?,
            Ok(_) if step.alerted => rules::settle(&self.bus, &step.id, index, &[]).await?,
            Ok(_) => {}
            Err(problem) if MUST_STAY.contains(&problem.kind.as_str()) => {
                self.lose_bindings(&step.id).await?;
                return Ok(step.ended(Some(problem.message), &problem.kind));
            }
            Err(problem) => return Err(problem),
        }
        Ok(step.ended(None, ""))
    }

    /// The credentials go to the request that waits for them, if one does here; nowhere else are they kept.
    async fn issue(&self, token: String, new: NewBinding) -> Result<Option<Command>, Problem> {
        let call = self.bus.call_within::<IssueCredentials>(&(), &new, CALL_MAX);
        let current = |state: &State| {
            let ends = state.instance(&new.instance).is_none_or(|owner| owner.phase == Phase::Ending);
            let there = state.binding(&new.instance, &new.binding);
            !ends && there.is_some_and(|b| b.operation.token == token && b.phase == Phase::Beginning)
        };
        let Some(ended) = self.unless_superseded(call, current).await else { return Ok(None) };
        let failure = match ended? {
            Ok(credentials) => {
                self.handover.give(&new.binding, &token, credentials);
                None
            }
            Err(reason) => Some(reason),
        };
        Ok(Some(Command::EndBinding { id: new.binding, token, failure }))
    }

    /// Ends the bindings that a refused deletion has cost their credentials: these have to be dead before the last look for events.
    ///
    /// Which ones they are the provisioner knows, whichever attempt of ours has revoked them.
    async fn lose_bindings(&self, id: &InstanceId) -> Result<(), Problem> {
        let live = |state: &State| {
            let live = state.bindings_of(id).filter(|(_, there)| there.phase == Phase::Live);
            live.map(|(binding, _)| binding.clone()).collect::<BTreeSet<_>>()
        };
        let live = self.ledger.read(live);
        if live.is_empty() {
            return Ok(());
        }
        let there = bindings(&self.bus).await?;
        let kept = there.into_iter().filter(|there| there.instance == *id).map(|there| there.binding).collect();
        let lost: Vec<BindingId> = live.difference(&kept).cloned().collect();
        for some in lost.chunks(SWEEP_MAX) {
            let draft = |binding: &BindingId| self.audit.lost(id, binding);
            let command = Command::LoseBindings { instance: id.clone(), bindings: some.to_vec() };
            self.audit.around_each(some.iter().map(draft).collect(), self.ledger.submit(command)).await?;
            tracing::warn!(instance = %id, count = some.len(), "bindings lost their credentials to a refused deletion");
        }
        Ok(())
    }

    /// Waits for a call that begins something, but not when its opposite was asked for meanwhile: a deletion must not wait for a
    /// creation that cannot succeed. The provisioner works on one instance in the order in which it is asked.
    async fn unless_superseded<T>(
        &self,
        call: impl Future<Output = Result<T, Problem>>,
        current: impl Fn(&State) -> bool,
    ) -> Option<Tried<T>> {
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
            // Looked at first: a call that comes too late must not even be sent.
            biased;
            () = superseded => None,
            result = call => Some(tried(result)),
        }
    }
}

fn in_phase(state: &State, id: &InstanceId, token: &str, phase: Phase) -> bool {
    state.instance(id).is_some_and(|there| there.operation.token == token && there.phase == phase)
}

/// How a call ended: done, or why it will never be; an error is worth another attempt.
type Tried<T> = Result<Result<T, String>, Problem>;

fn tried<T>(result: Result<T, Problem>) -> Tried<T> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(problem) => {
            let again = problem.is_transient() || problem.outcome == Outcome::Unknown || problem.code == Code::Internal;
            if again { Err(problem) } else { Ok(Err(problem.message)) }
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
            assert_eq!(tried::<()>(Err(problem.clone())).is_ok(), ends, "{problem:?}");
        }
    }
}
