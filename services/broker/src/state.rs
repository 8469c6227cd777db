//! The broker's truth: service instances, service bindings and their operations. Pure, and free of secrets.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, ScopeName, Timestamp};
use wire::{Service, index_provisioner::IndexOptions, views::Role};

pub use wire::broker::Phase;

use crate::{alerts::DefaultRule, error::BrokerError, osb::Identity};

mod bindings;
mod command;
mod index;
mod instances;
mod operation;
mod tools;

pub use command::{Command, Event, NewBind, NewInstance};
pub use operation::{Ended, Failure, Kind, Operation, Tombstones};

/// Service instances of one installation.
pub const INSTANCES_MAX: usize = 100_000;
/// Service bindings of one installation.
pub const BINDINGS_MAX: usize = 100_000;
/// How long the result of an operation on what is no longer there is remembered.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Such results at most, for instances and for bindings each; the oldest goes first.
pub const TOMBSTONES_MAX: usize = 10_000;

/// What one sweep ends or gives up, so that its journal entry stays small.
pub const SWEEP_MAX: usize = 1_000;

/// What a provision request is compared by: a repeat must not differ in any of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRequest {
    /// The offering.
    pub service_id: String,
    /// The plan.
    pub plan_id: String,
    /// The platform's organization.
    pub organization_guid: String,
    /// The platform's space.
    pub space_guid: String,
    /// Canonical JSON.
    pub parameters: String,
}

/// What the provisioner is to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The tenant.
    pub scope: ScopeName,
    /// The name.
    pub index: IndexName,
    /// The back-end.
    pub backend: String,
    /// Segments; 0 leaves it to the provisioner.
    pub segment_count: u16,
    /// Days to keep events.
    pub retention_days: Option<u32>,
    /// Everything else.
    #[serde(default)]
    pub options: IndexOptions,
    /// Its default alert rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<DefaultRule>,
}

/// What an instance is to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The plan.
    pub plan_id: String,
    /// Canonical JSON.
    pub parameters: String,
    /// The version of `maintenance_info`.
    #[serde(default)]
    pub maintenance: Option<String>,
    /// What the platform says around it, as canonical JSON; `None` says nothing new.
    #[serde(default)]
    pub context: Option<String>,
    /// What it stands for.
    pub wanted: Wanted,
}

impl Change {
    /// Whether both become the same, whatever is said around them.
    fn is_same(&self, other: &Self) -> bool {
        (&self.plan_id, &self.parameters, &self.maintenance) == (&other.plan_id, &other.parameters, &other.maintenance)
    }
}

/// What an instance is by now, where that is not what was asked for at first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The plan, after an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// Canonical JSON, after an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// The version of `maintenance_info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// What the platform says around it, as canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// As it was asked for at first; a repeat is compared with this, whatever was updated since.
    pub request: InstanceRequest,
    /// What it stands for.
    pub wanted: Wanted,
    /// How far it is.
    pub phase: Phase,
    /// The last operation on it.
    pub operation: Operation,
    /// On whose behalf it was asked for.
    pub identity: Option<Identity>,
    /// What it is by now.
    #[serde(default)]
    pub terms: Terms,
    /// What it is becoming, while it is updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Box<Change>>,
    /// Whether half a failed update may have to be undone.
    #[serde(default)]
    restoring: bool,
    /// Whether it never could be used yet.
    #[serde(default)]
    unmade: bool,
    /// Whether the alerter may have rules of it.
    #[serde(default)]
    alerted: bool,
}

impl Instance {
    /// The plan that it has now.
    pub fn plan_id(&self) -> &str {
        self.terms.plan_id.as_ref().unwrap_or(&self.request.plan_id)
    }

    /// The parameters that it has now, as canonical JSON.
    pub fn parameters(&self) -> &str {
        self.terms.parameters.as_ref().unwrap_or(&self.request.parameters)
    }

    /// Names what it is now, for whoever makes a change of it; empty while that may change.
    pub(crate) fn seen(&self) -> String {
        if self.phase == Phase::Live { self.operation.token.clone() } else { String::new() }
    }

    /// Whether it could ever be used: before, nobody asks for credentials of its bindings.
    pub(crate) fn was_made(&self) -> bool {
        !self.unmade && self.phase != Phase::Beginning
    }

    /// Whether it must be made again what it was before an update that failed.
    pub fn restores(&self) -> bool {
        self.restoring && self.phase == Phase::Live
    }

    /// Whether the alerter may have rules of it: those that it has, that it is to have, or that half an update has made.
    pub(crate) fn is_alerted(&self) -> bool {
        self.alerted
    }

    fn is_already(&self, to: &Change) -> bool {
        (self.plan_id(), self.parameters()) == (to.plan_id.as_str(), to.parameters.as_str())
            && self.terms.maintenance == to.maintenance
    }

    fn become_changed(&mut self, change: Change) {
        let Change { plan_id, parameters, maintenance, context, wanted } = change;
        let context = context.or(self.terms.context.take());
        self.terms = Terms { plan_id: Some(plan_id), parameters: Some(parameters), maintenance, context };
        (self.alerted, self.wanted, self.restoring) = (!wanted.alerts.is_empty(), wanted, false);
    }
}

/// What a bind request is compared by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRequest {
    /// The instance.
    pub instance: InstanceId,
    /// The offering.
    pub service_id: String,
    /// The plan.
    pub plan_id: String,
    /// Canonical JSON.
    pub parameters: String,
    /// The binding whose place it takes, if it was made by a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<BindingId>,
}

/// A service binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// As it was asked for.
    pub request: BindingRequest,
    /// What its bearer may do.
    pub role: Role,
    /// How long it lives.
    pub ttl_seconds: Option<u64>,
    /// How far it is.
    pub phase: Phase,
    /// The last operation on it.
    pub operation: Operation,
    /// On whose behalf it was asked for.
    pub identity: Option<Identity>,
}

impl Binding {
    /// When it ends by itself. Counted from the request, so never later than its credentials, which are issued after it.
    pub fn expires(&self) -> Option<Timestamp> {
        let ttl = self.ttl_seconds.filter(|_| self.operation.kind == Kind::Bind)?;
        Some(self.operation.begun + Duration::from_secs(ttl))
    }

    /// Whether its time is over and nobody has ended it yet.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.phase == Phase::Live && self.expires().is_some_and(|end| end <= now)
    }
}

/// The work that a phase is about; `None` if there is none.
fn work_token(phase: Phase, operation: &Operation) -> Option<String> {
    match phase {
        Phase::Live => None,
        Phase::Beginning | Phase::Updating => Some(operation.token.clone()),
        Phase::Ending => Some(operation.removal_token()),
    }
}

/// The broker's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "index::Stored")]
pub struct State {
    /// The number of the next operation.
    next: u64,
    instances: BTreeMap<InstanceId, Instance>,
    by_index: BTreeMap<IndexName, InstanceId>,
    bindings: BTreeMap<BindingId, Binding>,
    ended_instances: Tombstones<InstanceId>,
    ended_bindings: Tombstones<BindingId>,
    /// How often operators have asked for another attempt; one entry for an instance at most.
    retries: BTreeMap<InstanceId, u32>,
    #[serde(skip)]
    index: index::Index,
}

impl State {
    /// An instance in whatever phase.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// A binding of an instance in whatever phase.
    pub fn binding(&self, instance: &InstanceId, id: &BindingId) -> Option<&Binding> {
        self.bindings.get(id).filter(|binding| binding.request.instance == *instance)
    }

    /// The last operation on an instance that is no longer there.
    pub fn ended_instance(&self, id: &InstanceId) -> Option<&Ended> {
        self.ended_instances.get(id)
    }

    /// The last operation on a binding that is no longer there.
    pub fn ended_binding(&self, id: &BindingId) -> Option<&Ended> {
        self.ended_bindings.get(id)
    }

    /// Every instance.
    pub fn instances(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.instances.iter()
    }

    /// Every binding.
    pub fn bindings(&self) -> impl Iterator<Item = (&BindingId, &Binding)> {
        self.bindings.iter()
    }

    /// Whether there is an instance of this id, in any phase, or was one not long ago.
    pub(crate) fn knows_instance(&self, id: &InstanceId) -> bool {
        self.instances.contains_key(id) || self.ended_instances.get(id).is_some()
    }

    /// As [`State::knows_instance`], for a binding of whatever instance.
    pub(crate) fn knows_binding(&self, id: &BindingId) -> bool {
        self.bindings.contains_key(id) || self.ended_bindings.get(id).is_some()
    }

    /// Whether a binding of whatever instance is there, in any phase.
    pub(crate) fn has_binding(&self, id: &BindingId) -> bool {
        self.bindings.contains_key(id)
    }

    /// Whether bindings of an instance are there, in any phase.
    pub(crate) fn is_bound(&self, instance: &InstanceId) -> bool {
        self.binding_count(instance) > 0
    }

    /// How many instances and bindings there are, in any phase.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.instances.len(), self.bindings.len())
    }

    /// What [`Command::Sweep`] makes happen, about [`SWEEP_MAX`] at a time; the rest comes with the next one.
    pub(crate) fn sweep(&self, now: Timestamp) -> Vec<Event> {
        let late = self.pending().flat_map(|(_, items)| items).flat_map(|(instance, binding)| match binding {
            None => self
                .instances
                .get(instance)
                .and_then(|there| Self::given_up(instance, there, now))
                .into_iter()
                .collect(),
            Some(id) => self.binding_late(instance, id, now),
        });
        let over = self.bindings.iter().filter(|(_, b)| b.is_over(now));
        let numbered = (self.next..).zip(over).map(|(number, (id, _))| Event::UnbindBegun { id: id.clone(), number });
        late.chain(numbered).take(SWEEP_MAX).collect()
    }

    fn begun(&mut self, kind: Kind, number: u64, at: Timestamp, seconds_max: Option<u64>) -> Operation {
        self.next = number + 1;
        Operation::new(kind, number, at, seconds_max)
    }
}

impl host::ControlState for State {
    const SERVICE: Service = Service::Broker;
    type Command = Command;
    type Event = Event;
    type Error = BrokerError;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, BrokerError> {
        match command {
            Command::Provision { id, new } => self.provision(id, *new),
            Command::Update { id, seen, to, identity, seconds_max } => {
                self.update(id, &seen, *to, identity, seconds_max)
            }
            Command::Bind { id, new } => self.bind(id, *new, now),
            Command::Rotate { id, instance, predecessor, identity, seconds_max } => {
                self.rotate(id, &instance, predecessor, (identity, seconds_max), now)
            }
            Command::Deprovision(id) => Ok(self.deprovision(id)),
            Command::Unbind(instance, id) => Ok(self.unbind(&instance, id)),
            Command::EndInstance { id, token, failure, kind } => Ok(self.end_instance(id, &token, failure, kind)),
            Command::EndBinding { id, token, failure } => Ok(self.end_binding(id, &token, failure)),
            Command::LoseBindings { instance, bindings } => Ok(self.lose_bindings(&instance, bindings)),
            Command::EndRestore { id, token } => Ok(self.end_restore(id, &token)),
            Command::Sweep => Ok(self.sweep(now)),
            Command::Retry(id) => self.retry(id),
            Command::Abandon { id, force } => self.abandon(id, force),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        let item = self.item_of(event);
        self.happened(event.clone(), at);
        item.into_iter().for_each(|item| self.note(item));
    }
}

impl State {
    fn happened(&mut self, event: Event, at: Timestamp) {
        match event {
            Event::ProvisionBegun { id, number, request, wanted, identity, maintenance, context, seconds_max } => {
                let operation = self.begun(Kind::Provision, number, at, seconds_max);
                let new = NewInstance { request, wanted, identity, maintenance, context, seconds_max };
                self.provision_begun(&id, new, operation);
            }
            Event::UpdateBegun { id, number, to, identity: _, seconds_max } => {
                let operation = self.begun(Kind::Update, number, at, seconds_max);
                self.update_begun(&id, to, operation);
            }
            Event::ContextUpdated { id, context } => {
                if let Some(there) = self.instances.get_mut(&id) {
                    there.terms.context = Some(context);
                }
            }
            Event::BindBegun { id, number, request, role, ttl_seconds, identity, seconds_max } => {
                let operation = self.begun(Kind::Bind, number, at, seconds_max);
                self.bind_begun(&id, NewBind { request, role, ttl_seconds, identity, seconds_max }, operation);
            }
            Event::DeprovisionBegun { id, number } => {
                let operation = self.begun(Kind::Deprovision, number, at, None);
                self.deprovision_begun(&id, operation);
            }
            Event::UnbindBegun { id, number } => {
                let operation = self.begun(Kind::Unbind, number, at, None);
                self.unbind_begun(&id, operation);
            }
            Event::InstanceEnded { id, failure, repeatable, kind } => {
                let failure = failure.map(|reason| Failure { reason, repeatable, kind });
                self.instance_ended(&id, failure, at);
            }
            Event::BindingEnded { id, failure } => self.binding_ended(&id, failure, at),
            Event::InstanceGivenUp { id, reason } => self.instance_given_up(&id, &reason),
            Event::BindingGivenUp { id, reason } => self.binding_given_up(&id, &reason),
            Event::Retried { id } => self.retried(&id),
            Event::InstanceAbandoned { id } => self.abandoned(&id, at),
            Event::InstanceRestored { id } => {
                if let Some(there) = self.instances.get_mut(&id) {
                    (there.restoring, there.alerted) = (false, !there.wanted.alerts.is_empty());
                }
            }
        }
    }
}

#[cfg(test)]
mod history;
#[cfg(test)]
mod tests;
