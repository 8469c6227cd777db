//! What is decided about bindings, and what comes of it.

use types::{BindingId, InstanceId, Timestamp};

use super::{
    BINDINGS_MAX, Binding, BindingRequest, Ended, Event, Instance, NewBind, Phase, State,
    operation::{Failure, Operation},
    work_token,
};
use crate::{error::BrokerError, osb::Identity};

/// What is remembered of a binding that a refused deletion has cost its credentials.
const REVOKED: &str =
    "its credentials were revoked for a deletion of the service instance, which was then refused; bind again";

impl State {
    pub(super) fn bind(&self, id: BindingId, new: NewBind, now: Timestamp) -> Result<Vec<Event>, BrokerError> {
        if let Some(there) = self.bindings.get(&id) {
            return self.repeated(id, there, there.request == new.request, now);
        }
        let request = &new.request;
        let instance = self.bindable(&request.instance)?;
        let plan = &request.plan_id;
        let is_plan = instance.plan_id() == plan || instance.change.as_ref().is_some_and(|to| to.plan_id == *plan);
        if instance.request.service_id != request.service_id || !is_plan {
            return Err(BrokerError::PlanMismatch(request.instance.clone()));
        }
        self.bind_begun_event(id, new)
    }

    pub(super) fn rotate(
        &self,
        id: BindingId,
        instance: &InstanceId,
        predecessor: BindingId,
        (identity, seconds_max): (Option<Identity>, Option<u64>),
        now: Timestamp,
    ) -> Result<Vec<Event>, BrokerError> {
        if let Some(there) = self.bindings.get(&id) {
            let same = there.request.instance == *instance && there.request.predecessor.as_ref() == Some(&predecessor);
            return self.repeated(id, there, same, now);
        }
        self.bindable(instance)?;
        let Some(old) = self.usable_binding(instance, &predecessor, now) else {
            return Err(BrokerError::PredecessorUnusable(predecessor));
        };
        let request = BindingRequest { predecessor: Some(predecessor), ..old.request.clone() };
        self.bind_begun_event(
            id,
            NewBind { request, role: old.role, ttl_seconds: old.ttl_seconds, identity, seconds_max },
        )
    }

    /// Whether an instance is going, and takes its bindings along. Their credentials are asked for no more: those that the
    /// provisioner has revoked already would be made anew, and nobody would revoke them.
    pub(crate) fn is_ending(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|there| there.phase == Phase::Ending)
    }

    /// A binding whose credentials may be told.
    pub(crate) fn usable_binding(&self, instance: &InstanceId, id: &BindingId, now: Timestamp) -> Option<&Binding> {
        let usable = |there: &&Binding| there.phase == Phase::Live && !there.is_over(now) && !self.is_ending(instance);
        self.binding(instance, id).filter(usable)
    }

    /// A request for a binding that is there.
    fn repeated(&self, id: BindingId, there: &Binding, same: bool, now: Timestamp) -> Result<Vec<Event>, BrokerError> {
        match there.phase {
            _ if !same => Err(BrokerError::BindingDiffers(id)),
            Phase::Ending => Err(BrokerError::Busy(id.to_string())),
            _ if self.is_ending(&there.request.instance) => Err(BrokerError::Busy(there.request.instance.to_string())),
            // Its credentials must not be asked for again: they would be new ones.
            _ if there.is_over(now) => Err(BrokerError::Busy(id.to_string())),
            Phase::Beginning | Phase::Live | Phase::Updating => Ok(Vec::new()),
        }
    }

    /// An instance that is being made or changed takes bindings, which wait for that.
    fn bindable(&self, id: &InstanceId) -> Result<&Instance, BrokerError> {
        match self.instances.get(id) {
            None => Err(BrokerError::UnknownInstance(id.clone())),
            Some(there) if there.phase == Phase::Ending => Err(BrokerError::Busy(id.to_string())),
            Some(there) => Ok(there),
        }
    }

    fn bind_begun_event(&self, id: BindingId, new: NewBind) -> Result<Vec<Event>, BrokerError> {
        if self.bindings.len() >= BINDINGS_MAX {
            return Err(BrokerError::TooManyBindings(BINDINGS_MAX));
        }
        let NewBind { request, role, ttl_seconds, identity, seconds_max } = new;
        Ok(vec![Event::BindBegun { id, number: self.next, request, role, ttl_seconds, identity, seconds_max }])
    }

    pub(super) fn unbind(&self, instance: &InstanceId, id: BindingId) -> Vec<Event> {
        // What was given up is being removed already, but under the token of its creation.
        let ends = |there: &Binding| there.phase == Phase::Ending && there.operation.kind.is_end();
        match self.binding(instance, &id) {
            Some(there) if !ends(there) => {
                self.ending(instance, &id, Event::UnbindBegun { id: id.clone(), number: self.next })
            }
            _ => Vec::new(),
        }
    }

    /// What becomes of a binding that takes longer than it may.
    pub(super) fn binding_late(&self, instance: &InstanceId, id: &BindingId, now: Timestamp) -> Vec<Event> {
        match self.bindings.get(id) {
            Some(there) if there.phase == Phase::Beginning && there.operation.is_late(now) => {
                let reason = there.operation.too_long();
                self.ending(instance, id, Event::BindingGivenUp { id: id.clone(), reason })
            }
            _ => Vec::new(),
        }
    }

    /// The end of a binding begins. It is over at once while its instance is still being made: nobody was asked for credentials yet.
    fn ending(&self, instance: &InstanceId, id: &BindingId, begins: Event) -> Vec<Event> {
        let is_made = self.instances.get(instance).is_none_or(Instance::was_made);
        let over = (!is_made).then(|| Event::BindingEnded { id: id.clone(), failure: None });
        [begins].into_iter().chain(over).collect()
    }

    /// Live bindings whose credentials were revoked for a deletion that did not take place.
    pub(super) fn lose_bindings(&self, instance: &InstanceId, bindings: Vec<BindingId>) -> Vec<Event> {
        let is_live = |id: &BindingId| self.binding(instance, id).is_some_and(|there| there.phase == Phase::Live);
        let lost = bindings.into_iter().filter(is_live);
        lost.map(|id| Event::BindingEnded { id, failure: Some(REVOKED.to_owned()) }).collect()
    }

    pub(super) fn end_binding(&self, id: BindingId, token: &str, failure: Option<String>) -> Vec<Event> {
        match self.bindings.get(&id) {
            Some(there) if work_token(there.phase, &there.operation).is_some_and(|work| work == token) => {
                vec![Event::BindingEnded { id, failure }]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn bind_begun(&mut self, id: &BindingId, new: NewBind, operation: Operation) {
        self.ended_bindings.remove(id);
        let NewBind { request, role, ttl_seconds, identity, .. } = new;
        let binding = Binding { request, role, ttl_seconds, phase: Phase::Beginning, operation, identity };
        self.index.bound(&binding.request.instance, id);
        self.bindings.insert(id.clone(), binding);
    }

    pub(super) fn unbind_begun(&mut self, id: &BindingId, operation: Operation) {
        if let Some(binding) = self.bindings.get_mut(id) {
            (binding.phase, binding.operation) = (Phase::Ending, operation);
        }
    }

    pub(super) fn binding_ended(&mut self, id: &BindingId, failure: Option<String>, at: Timestamp) {
        match self.bindings.get_mut(id) {
            Some(there) if there.phase == Phase::Beginning && failure.is_none() => {
                there.phase = Phase::Live;
                there.operation.end(None);
            }
            _ => self.binding_gone(id, failure, at),
        }
    }

    pub(super) fn binding_given_up(&mut self, id: &BindingId, reason: &str) {
        if let Some(there) = self.bindings.get_mut(id) {
            there.phase = Phase::Ending;
            there.operation.end(Some(Failure { reason: reason.to_owned(), repeatable: false, kind: String::new() }));
        }
    }

    pub(super) fn binding_gone(&mut self, id: &BindingId, failure: Option<String>, at: Timestamp) {
        if let Some(there) = self.bindings.remove(id) {
            self.index.unbound(&there.request.instance, id);
            let failure = there.operation.failure.clone().map(|failure| failure.reason).or(failure);
            self.ended_bindings.insert(id.clone(), Ended { operation: there.operation, failure, at });
        }
    }
}
