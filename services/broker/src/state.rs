//! The broker's truth: service instances, service bindings and their operations. Pure, and free of secrets.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, ScopeName, Timestamp};
use wire::{Service, views::Role};

use crate::{error::BrokerError, osb::Identity};

mod operation;

pub use operation::{Ended, Kind, Operation, Tombstones};

/// Service instances of one installation.
pub const INSTANCES_MAX: usize = 100_000;
/// Service bindings of one installation.
pub const BINDINGS_MAX: usize = 100_000;
/// How long the result of an operation on what is no longer there is remembered.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Such results at most, for instances and for bindings each; the oldest goes first.
pub const TOMBSTONES_MAX: usize = 10_000;

/// How far an instance or a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is being provisioned or bound.
    Beginning,
    /// It can be used.
    Live,
    /// It is being deprovisioned or unbound.
    Ending,
}

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
}

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// As it was asked for.
    pub request: InstanceRequest,
    /// What it stands for.
    pub wanted: Wanted,
    /// How far it is.
    pub phase: Phase,
    /// The last operation on it.
    pub operation: Operation,
    /// On whose behalf it was asked for.
    pub identity: Option<Identity>,
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

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begins an instance, or finds it.
    Provision {
        /// Its id.
        id: InstanceId,
        /// As it was asked for.
        request: InstanceRequest,
        /// What it stands for.
        wanted: Wanted,
        /// On whose behalf.
        identity: Option<Identity>,
    },
    /// Begins a binding, or finds it.
    Bind {
        /// Its id.
        id: BindingId,
        /// As it was asked for.
        request: BindingRequest,
        /// What its bearer may do.
        role: Role,
        /// How long it lives.
        ttl_seconds: Option<u64>,
        /// On whose behalf.
        identity: Option<Identity>,
    },
    /// Begins to end an instance; wins over a provisioning that is under way.
    Deprovision(InstanceId),
    /// Begins to end a binding of an instance; wins over a binding that is under way.
    Unbind(InstanceId, BindingId),
    /// The work of an operation on an instance is done, or will never be.
    EndInstance {
        /// The instance.
        id: InstanceId,
        /// The operation.
        token: String,
        /// Why it will never be.
        failure: Option<String>,
    },
    /// The work of an operation on a binding is done, or will never be.
    EndBinding {
        /// The binding.
        id: BindingId,
        /// The operation.
        token: String,
        /// Why it will never be.
        failure: Option<String>,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An instance is being provisioned.
    ProvisionBegun {
        /// The instance.
        id: InstanceId,
        /// The number of the operation.
        number: u64,
        /// As it was asked for.
        request: InstanceRequest,
        /// What it stands for.
        wanted: Wanted,
        /// On whose behalf.
        identity: Option<Identity>,
    },
    /// A binding is being made.
    BindBegun {
        /// The binding.
        id: BindingId,
        /// The number of the operation.
        number: u64,
        /// As it was asked for.
        request: BindingRequest,
        /// What its bearer may do.
        role: Role,
        /// How long it lives.
        ttl_seconds: Option<u64>,
        /// On whose behalf.
        identity: Option<Identity>,
    },
    /// An instance is being deprovisioned.
    DeprovisionBegun {
        /// The instance.
        id: InstanceId,
        /// The number of the operation.
        number: u64,
    },
    /// A binding is being unbound.
    UnbindBegun {
        /// The binding.
        id: BindingId,
        /// The number of the operation.
        number: u64,
    },
    /// The operation on an instance ended.
    InstanceEnded {
        /// The instance.
        id: InstanceId,
        /// Why it failed; what failed to begin is not there.
        failure: Option<String>,
    },
    /// The operation on a binding ended.
    BindingEnded {
        /// The binding.
        id: BindingId,
        /// Why it failed; what failed to begin is not there.
        failure: Option<String>,
    },
}

/// The broker's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The number of the next operation.
    next: u64,
    instances: BTreeMap<InstanceId, Instance>,
    by_index: BTreeMap<IndexName, InstanceId>,
    bindings: BTreeMap<BindingId, Binding>,
    ended_instances: Tombstones<InstanceId>,
    ended_bindings: Tombstones<BindingId>,
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

    fn provision(
        &self,
        id: InstanceId,
        request: InstanceRequest,
        wanted: Wanted,
        identity: Option<Identity>,
    ) -> Result<Vec<Event>, BrokerError> {
        if let Some(there) = self.instances.get(&id) {
            return match there.phase {
                Phase::Ending => Err(BrokerError::Busy(id.to_string())),
                _ if there.request != request => Err(BrokerError::InstanceDiffers(id)),
                Phase::Beginning | Phase::Live => Ok(Vec::new()),
            };
        }
        if self.by_index.contains_key(&wanted.index) {
            return Err(BrokerError::IndexNameTaken(wanted.index));
        }
        if self.instances.len() >= INSTANCES_MAX {
            return Err(BrokerError::TooManyInstances(INSTANCES_MAX));
        }
        Ok(vec![Event::ProvisionBegun { id, number: self.next, request, wanted, identity }])
    }

    fn bind(
        &self,
        id: BindingId,
        request: BindingRequest,
        role: Role,
        ttl_seconds: Option<u64>,
        identity: Option<Identity>,
    ) -> Result<Vec<Event>, BrokerError> {
        if let Some(there) = self.bindings.get(&id) {
            return match there.phase {
                _ if there.request != request => Err(BrokerError::BindingDiffers(id)),
                Phase::Ending => Err(BrokerError::Busy(id.to_string())),
                Phase::Beginning | Phase::Live => Ok(Vec::new()),
            };
        }
        let Some(instance) = self.instances.get(&request.instance) else {
            return Err(BrokerError::UnknownInstance(request.instance));
        };
        if (&instance.request.service_id, &instance.request.plan_id) != (&request.service_id, &request.plan_id) {
            return Err(BrokerError::PlanMismatch(request.instance));
        }
        if instance.phase != Phase::Live {
            return Err(BrokerError::Busy(request.instance.to_string()));
        }
        if self.bindings.len() >= BINDINGS_MAX {
            return Err(BrokerError::TooManyBindings(BINDINGS_MAX));
        }
        Ok(vec![Event::BindBegun { id, number: self.next, request, role, ttl_seconds, identity }])
    }

    fn begun(&mut self, number: u64, kind: Kind, at: Timestamp) -> Operation {
        self.next = number + 1;
        Operation::new(kind, number, at)
    }

    fn instance_ended(&mut self, id: &InstanceId, failure: Option<String>, at: Timestamp) {
        let Some(there) = self.instances.get_mut(id) else { return };
        if there.phase == Phase::Beginning && failure.is_none() {
            there.phase = Phase::Live;
            there.operation.ended = true;
            return;
        }
        let operation = there.operation.clone();
        self.by_index.remove(&there.wanted.index);
        self.instances.remove(id);
        self.ended_instances.insert(id.clone(), Ended { operation, failure, at });
        // Whoever deprovisions an instance wants its bindings gone too; the provisioner has revoked them.
        let gone: Vec<BindingId> = self
            .bindings
            .iter()
            .filter(|(_, b)| b.request.instance == *id)
            .map(|(binding, _)| binding.clone())
            .collect();
        gone.iter().for_each(|binding| self.binding_gone(binding, None, at));
    }

    fn binding_ended(&mut self, id: &BindingId, failure: Option<String>, at: Timestamp) {
        match self.bindings.get_mut(id) {
            Some(there) if there.phase == Phase::Beginning && failure.is_none() => {
                there.phase = Phase::Live;
                there.operation.ended = true;
            }
            _ => self.binding_gone(id, failure, at),
        }
    }

    fn binding_gone(&mut self, id: &BindingId, failure: Option<String>, at: Timestamp) {
        if let Some(there) = self.bindings.remove(id) {
            self.ended_bindings.insert(id.clone(), Ended { operation: there.operation, failure, at });
        }
    }
}

impl host::ControlState for State {
    const SERVICE: Service = Service::Broker;
    type Command = Command;
    type Event = Event;
    type Error = BrokerError;

    fn decide(&self, command: Command, _now: Timestamp) -> Result<Vec<Event>, BrokerError> {
        let number = self.next;
        let pending =
            |operation: Option<&Operation>, token: &str| operation.is_some_and(|o| !o.ended && o.token == token);
        Ok(match command {
            Command::Provision { id, request, wanted, identity } => {
                return self.provision(id, request, wanted, identity);
            }
            Command::Bind { id, request, role, ttl_seconds, identity } => {
                return self.bind(id, request, role, ttl_seconds, identity);
            }
            Command::Deprovision(id) => match self.instances.get(&id) {
                Some(there) if there.phase != Phase::Ending => vec![Event::DeprovisionBegun { id, number }],
                _ => Vec::new(),
            },
            Command::Unbind(instance, id) => match self.binding(&instance, &id) {
                Some(there) if there.phase != Phase::Ending => vec![Event::UnbindBegun { id, number }],
                _ => Vec::new(),
            },
            Command::EndInstance { id, token, failure } => {
                let there = self.instances.get(&id).map(|i| &i.operation);
                if pending(there, &token) { vec![Event::InstanceEnded { id, failure }] } else { Vec::new() }
            }
            Command::EndBinding { id, token, failure } => {
                let there = self.bindings.get(&id).map(|b| &b.operation);
                if pending(there, &token) { vec![Event::BindingEnded { id, failure }] } else { Vec::new() }
            }
        })
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::ProvisionBegun { id, number, request, wanted, identity } => {
                let operation = self.begun(*number, Kind::Provision, at);
                self.ended_instances.remove(id);
                self.by_index.insert(wanted.index.clone(), id.clone());
                let instance = Instance {
                    request: request.clone(),
                    wanted: wanted.clone(),
                    phase: Phase::Beginning,
                    operation,
                    identity: identity.clone(),
                };
                self.instances.insert(id.clone(), instance);
            }
            Event::BindBegun { id, number, request, role, ttl_seconds, identity } => {
                let operation = self.begun(*number, Kind::Bind, at);
                self.ended_bindings.remove(id);
                let binding = Binding {
                    request: request.clone(),
                    role: *role,
                    ttl_seconds: *ttl_seconds,
                    phase: Phase::Beginning,
                    operation,
                    identity: identity.clone(),
                };
                self.bindings.insert(id.clone(), binding);
            }
            Event::DeprovisionBegun { id, number } => {
                let operation = self.begun(*number, Kind::Deprovision, at);
                if let Some(instance) = self.instances.get_mut(id) {
                    (instance.phase, instance.operation) = (Phase::Ending, operation);
                }
            }
            Event::UnbindBegun { id, number } => {
                let operation = self.begun(*number, Kind::Unbind, at);
                if let Some(binding) = self.bindings.get_mut(id) {
                    (binding.phase, binding.operation) = (Phase::Ending, operation);
                }
            }
            Event::InstanceEnded { id, failure } => self.instance_ended(id, failure.clone(), at),
            Event::BindingEnded { id, failure } => self.binding_ended(id, failure.clone(), at),
        }
    }
}

#[cfg(test)]
mod tests;
