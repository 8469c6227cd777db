//! What is decided about instances, and what comes of it.

use types::{BindingId, InstanceId, Timestamp};

use super::{
    Change, Ended, Event, INSTANCES_MAX, Instance, Kind, NewInstance, Phase, State, Terms,
    operation::{Failure, Operation},
    work_token,
};
use crate::{error::BrokerError, osb::Identity};

impl State {
    pub(super) fn provision(&self, id: InstanceId, new: NewInstance) -> Result<Vec<Event>, BrokerError> {
        if let Some(there) = self.instances.get(&id) {
            return match there.phase {
                Phase::Ending => Err(BrokerError::Busy(id.to_string())),
                _ if there.request != new.request => Err(BrokerError::InstanceDiffers(id)),
                Phase::Beginning | Phase::Live | Phase::Updating => Ok(Vec::new()),
            };
        }
        if self.by_index.contains_key(&new.wanted.index) {
            return Err(BrokerError::IndexNameTaken(new.wanted.index));
        }
        if self.instances.len() >= INSTANCES_MAX {
            return Err(BrokerError::TooManyInstances(INSTANCES_MAX));
        }
        let NewInstance { request, wanted, identity, maintenance, context, seconds_max } = new;
        let number = self.next;
        Ok(vec![Event::ProvisionBegun { id, number, request, wanted, identity, maintenance, context, seconds_max }])
    }

    pub(super) fn update(
        &self,
        id: InstanceId,
        seen: &str,
        to: Change,
        identity: Option<Identity>,
        seconds_max: Option<u64>,
    ) -> Result<Vec<Event>, BrokerError> {
        let Some(there) = self.instances.get(&id) else { return Err(BrokerError::UnknownInstance(id)) };
        match (there.phase, &there.change) {
            (Phase::Updating, Some(change)) if change.is_same(&to) => return Ok(Vec::new()),
            (Phase::Live, _) if there.operation.token == seen => {}
            _ => return Err(BrokerError::Busy(id.to_string())),
        }
        if !there.is_already(&to) {
            return Ok(vec![Event::UpdateBegun { id, number: self.next, to, identity, seconds_max }]);
        }
        Ok(match to.context {
            Some(context) if there.terms.context.as_ref() != Some(&context) => {
                vec![Event::ContextUpdated { id, context }]
            }
            _ => Vec::new(),
        })
    }

    pub(super) fn deprovision(&self, id: InstanceId) -> Vec<Event> {
        // What was given up is being removed already, but under the token of its creation.
        let ends = |there: &Instance| there.phase == Phase::Ending && there.operation.kind == Kind::Deprovision;
        match self.instances.get(&id) {
            Some(there) if !ends(there) => vec![Event::DeprovisionBegun { id, number: self.next }],
            _ => Vec::new(),
        }
    }

    pub(super) fn end_instance(
        &self,
        id: InstanceId,
        token: &str,
        failure: Option<String>,
        kind: String,
    ) -> Vec<Event> {
        match self.instances.get(&id) {
            Some(there) if work_token(there.phase, &there.operation).is_some_and(|work| work == token) => {
                // Whoever asks for a deletion again may have more luck; a change that was refused will be refused again.
                let repeatable = there.operation.kind == Kind::Deprovision;
                vec![Event::InstanceEnded { id, failure, repeatable, kind }]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn end_restore(&self, id: InstanceId, token: &str) -> Vec<Event> {
        match self.instances.get(&id) {
            Some(there) if there.restores() && there.operation.token == token => vec![Event::InstanceRestored { id }],
            _ => Vec::new(),
        }
    }

    /// What became of an instance that takes longer than it may.
    pub(super) fn given_up(id: &InstanceId, there: &Instance, now: Timestamp) -> Option<Event> {
        let reason = there.operation.is_late(now).then(|| there.operation.too_long())?;
        let id = id.clone();
        match there.phase {
            Phase::Beginning => Some(Event::InstanceGivenUp { id, reason }),
            Phase::Updating => {
                Some(Event::InstanceEnded { id, failure: Some(reason), repeatable: true, kind: String::new() })
            }
            Phase::Live | Phase::Ending => None,
        }
    }

    pub(super) fn provision_begun(&mut self, id: &InstanceId, new: NewInstance, operation: Operation) {
        self.ended_instances.remove(id);
        self.by_index.insert(new.wanted.index.clone(), id.clone());
        let terms = Terms { plan_id: None, parameters: None, maintenance: new.maintenance, context: new.context };
        let instance = Instance {
            request: new.request,
            alerted: !new.wanted.alerts.is_empty(),
            wanted: new.wanted,
            phase: Phase::Beginning,
            operation,
            identity: new.identity,
            terms,
            change: None,
            restoring: false,
            unmade: true,
        };
        self.instances.insert(id.clone(), instance);
    }

    pub(super) fn update_begun(&mut self, id: &InstanceId, to: Change, operation: Operation) {
        if let Some(there) = self.instances.get_mut(id) {
            there.alerted |= !to.wanted.alerts.is_empty();
            (there.phase, there.operation, there.change) = (Phase::Updating, operation, Some(Box::new(to)));
        }
    }

    pub(super) fn deprovision_begun(&mut self, id: &InstanceId, operation: Operation) {
        if let Some(there) = self.instances.get_mut(id) {
            // Should the deletion be refused, half an update may have happened.
            there.restoring |= there.change.take().is_some();
            (there.phase, there.operation) = (Phase::Ending, operation);
        }
    }

    pub(super) fn instance_ended(&mut self, id: &InstanceId, failure: Option<Failure>, at: Timestamp) {
        let Some(there) = self.instances.get_mut(id) else { return };
        match (there.phase, failure) {
            (Phase::Beginning, None) => {
                (there.phase, there.unmade) = (Phase::Live, false);
                there.operation.end(None);
            }
            (Phase::Updating, failure) => {
                there.phase = Phase::Live;
                match (there.change.take(), &failure) {
                    (Some(change), None) => there.become_changed(*change),
                    _ => there.restoring = true,
                }
                there.operation.end(failure);
            }
            // It can be used as before, unless it never could.
            (Phase::Ending, Some(failure)) if there.operation.kind == Kind::Deprovision && !there.unmade => {
                there.phase = Phase::Live;
                there.operation.end(Some(failure));
            }
            (Phase::Beginning, Some(failure)) => self.instance_gone(id, Some(failure.reason), at),
            // What was given up has its reason already; what was never made and may not be deleted was somebody's before.
            (Phase::Ending, _) => {
                let failure = there.operation.failure.as_ref().map(|failure| failure.reason.clone());
                self.instance_gone(id, failure, at);
            }
            (Phase::Live, _) => {}
        }
    }

    pub(super) fn instance_gone(&mut self, id: &InstanceId, failure: Option<String>, at: Timestamp) {
        let Some(gone) = self.instances.remove(id) else { return };
        self.by_index.remove(&gone.wanted.index);
        self.retries.remove(id);
        let of_bindings =
            failure.as_ref().map(|reason| format!("its service instance could not be provisioned: {reason}"));
        self.ended_instances.insert(id.clone(), Ended { operation: gone.operation, failure, at });
        // Whoever deprovisions an instance wants its bindings gone too; the provisioner has revoked them.
        let bindings: Vec<BindingId> = self.bindings_of(id).map(|(binding, _)| binding.clone()).collect();
        bindings.iter().for_each(|binding| self.binding_gone(binding, of_bindings.clone(), at));
    }

    pub(super) fn instance_given_up(&mut self, id: &InstanceId, reason: &str) {
        if let Some(there) = self.instances.get_mut(id) {
            there.phase = Phase::Ending;
            there.operation.end(Some(Failure { reason: reason.to_owned(), repeatable: false, kind: String::new() }));
        }
    }
}
