//! What is asked of the state, and what happens because of it.

use serde::{Deserialize, Serialize};
use types::{BindingId, InstanceId};
use wire::views::Role;

use super::{BindingRequest, Change, InstanceRequest, Wanted};
use crate::osb::Identity;

/// An instance to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstance {
    /// As it was asked for.
    pub request: InstanceRequest,
    /// What it stands for.
    pub wanted: Wanted,
    /// On whose behalf.
    pub identity: Option<Identity>,
    /// The version of `maintenance_info` that its plan has.
    pub maintenance: Option<String>,
    /// What the platform says around it, as canonical JSON.
    pub context: Option<String>,
    /// Seconds after which its creation is given up.
    pub seconds_max: Option<u64>,
}

/// A binding to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBind {
    /// As it was asked for.
    pub request: BindingRequest,
    /// What its bearer may do.
    pub role: Role,
    /// How long it lives.
    pub ttl_seconds: Option<u64>,
    /// On whose behalf.
    pub identity: Option<Identity>,
    /// Seconds after which its creation is given up.
    pub seconds_max: Option<u64>,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begins an instance, or finds it.
    Provision {
        /// Its id.
        id: InstanceId,
        /// What it is.
        new: Box<NewInstance>,
    },
    /// Begins to change an instance, or finds it changed or changing so.
    Update {
        /// Its id.
        id: InstanceId,
        /// What `Instance::seen` said when it was decided what it is to become.
        seen: String,
        /// What it is to become.
        to: Box<Change>,
        /// On whose behalf.
        identity: Option<Identity>,
        /// Seconds after which the change is given up.
        seconds_max: Option<u64>,
    },
    /// Begins a binding, or finds it.
    Bind {
        /// Its id.
        id: BindingId,
        /// What it is.
        new: Box<NewBind>,
    },
    /// Begins a binding that is to take the place of another one, or finds it.
    Rotate {
        /// Its id.
        id: BindingId,
        /// Its instance.
        instance: InstanceId,
        /// The one that it is a copy of.
        predecessor: BindingId,
        /// On whose behalf.
        identity: Option<Identity>,
        /// Seconds after which its creation is given up.
        seconds_max: Option<u64>,
    },
    /// Begins to end an instance; wins over whatever is under way.
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
        /// The kind of the refusal; empty where it tells the platform nothing.
        kind: String,
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
    /// Live bindings have lost their credentials to a deletion of their instance that did not take place.
    LoseBindings {
        /// The instance.
        instance: InstanceId,
        /// The bindings.
        bindings: Vec<BindingId>,
    },
    /// An instance whose update failed is again what it was before.
    EndRestore {
        /// The instance.
        id: InstanceId,
        /// The operation that failed.
        token: String,
    },
    /// Takes up what was begun on an instance and its bindings now, whatever pause its failures have earned.
    Retry(InstanceId),
    /// Forgets an instance with its bindings.
    Abandon {
        /// The instance.
        id: InstanceId,
        /// Also if it can be used.
        force: bool,
    },
    /// Ends bindings whose time is over, and gives up operations that take longer than their plan allows.
    Sweep,
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
        /// The version of `maintenance_info` that its plan has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maintenance: Option<String>,
        /// What the platform says around it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
        /// Seconds after which it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_max: Option<u64>,
    },
    /// An instance is being changed; until that ends it is what it was.
    UpdateBegun {
        /// The instance.
        id: InstanceId,
        /// The number of the operation.
        number: u64,
        /// What it is to become.
        to: Change,
        /// On whose behalf.
        identity: Option<Identity>,
        /// Seconds after which it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_max: Option<u64>,
    },
    /// The platform says something else around an instance.
    ContextUpdated {
        /// The instance.
        id: InstanceId,
        /// What it says, as canonical JSON.
        context: String,
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
        /// Seconds after which it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_max: Option<u64>,
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
        /// Why it failed. What failed to begin is not there; what failed to change or to end is what it was.
        failure: Option<String>,
        /// Whether the same may be asked for again.
        #[serde(default)]
        repeatable: bool,
        /// The kind of the refusal.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        kind: String,
    },
    /// The operation on a binding ended.
    BindingEnded {
        /// The binding.
        id: BindingId,
        /// Why it failed; what failed to begin is not there.
        failure: Option<String>,
    },
    /// A provisioning took too long; what there may be of it is being removed.
    InstanceGivenUp {
        /// The instance.
        id: InstanceId,
        /// Why.
        reason: String,
    },
    /// A binding took too long; what there may be of it is being removed.
    BindingGivenUp {
        /// The binding.
        id: BindingId,
        /// Why.
        reason: String,
    },
    /// An instance whose update failed is again what it was before.
    InstanceRestored {
        /// The instance.
        id: InstanceId,
    },
    /// An operator wants to see what is under way on an instance tried again.
    Retried {
        /// The instance.
        id: InstanceId,
    },
    /// An operator has made the broker forget an instance with its bindings.
    InstanceAbandoned {
        /// The instance.
        id: InstanceId,
    },
}
