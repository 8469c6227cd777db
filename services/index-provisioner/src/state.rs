//! The provisioner's truth: indexes, bindings and revoked user keys. Pure, and free of secrets.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, Timestamp};
use wire::{
    Service,
    index_provisioner::{BindingDescription, IndexDescription, NewBinding, NewIndex},
};

use crate::error::ProvisionerError;

/// Indexes of one installation.
pub const INDEXES_MAX: usize = 100_000;

/// Live bindings and revoked keys together.
///
/// Each revoked key is 70 bytes in the account's JWT, which the NATS servers must take as one message: 1.4 MB in base64 at most.
/// A binding takes its place when it is issued, so a revocation never fails for want of room.
pub const KEYS_MAX: usize = 15_000;

/// The longest life of a binding that has an end: ten years.
pub const TTL_SECONDS_MAX: u64 = 315_360_000;

/// Segments of an index.
pub const SEGMENTS_MAX: u16 = 64;

/// The name of our own back-end.
pub const OWN: &str = "own";

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The back-end creates it.
    Creating,
    /// It can be used.
    Live,
    /// Its bindings are being revoked and it is being deleted.
    Deleting,
}

/// How far a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindingPhase {
    /// The back-end prepares its credentials.
    Issuing,
    /// It can be used.
    Live,
    /// It can be used no more, and the back-end is being told.
    Revoking,
}

/// A log index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// What others see of it.
    pub description: IndexDescription,
    /// How far it is.
    pub phase: Phase,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// What others see of it; `created` is the instant that its secrets are derived from.
    pub description: BindingDescription,
    /// How long it was to live.
    pub ttl_seconds: Option<u64>,
    /// Its NATS user.
    pub public_key: String,
    /// How far it is.
    pub phase: BindingPhase,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begins an index, or finds it. Name and number of segments are decided already.
    BeginIndex {
        /// What was asked for.
        new: NewIndex,
        /// Its name.
        index: IndexName,
    },
    /// The back-end has created the index.
    EndIndex(InstanceId),
    /// The back-end will never create it.
    AbandonIndex(InstanceId),
    /// Begins the deletion of an index and the revocation of its bindings.
    BeginDeletion(InstanceId),
    /// Nothing of the index is left.
    EndDeletion(InstanceId),
    /// Begins a binding, or finds it.
    BeginBinding {
        /// What was asked for.
        new: NewBinding,
        /// The instant that its secrets are derived from.
        issued: Timestamp,
        /// The NATS user derived from it.
        public_key: String,
    },
    /// The back-end has prepared the credentials.
    EndBinding(BindingId),
    /// Begins the revocation of a binding.
    BeginRevocation(BindingId),
    /// Nobody can use the binding any more.
    EndRevocation(BindingId),
    /// Begins the revocation of what has come to its end, and forgets revoked keys that ended by themselves.
    Sweep,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An index is being created.
    IndexBegun(IndexDescription),
    /// It can be used.
    IndexCreated(InstanceId),
    /// It could not be created, and nothing is left of it.
    IndexAbandoned(InstanceId),
    /// It can be used no more, nor can its bindings.
    IndexDeletionBegun(InstanceId),
    /// Nothing of it is left.
    IndexDeleted(InstanceId),
    /// A binding is being issued.
    BindingBegun {
        /// The binding.
        description: BindingDescription,
        /// How long it was to live.
        ttl_seconds: Option<u64>,
        /// Its NATS user.
        public_key: String,
    },
    /// It can be used.
    BindingIssued(BindingId),
    /// It can be used no more.
    RevocationBegun(BindingId),
    /// Nothing of it is left but its revoked key.
    BindingRevoked(BindingId),
    /// Revoked keys whose tokens have ended by themselves.
    RevocationsForgotten(Vec<String>),
}

/// A user key that servers must refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Revocation {
    at: Timestamp,
    expires: Option<Timestamp>,
}

/// The provisioner's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    indexes: BTreeMap<InstanceId, Index>,
    by_index: BTreeMap<IndexName, InstanceId>,
    bindings: BTreeMap<BindingId, Binding>,
    revocations: BTreeMap<String, Revocation>,
}

impl State {
    /// The index of an instance in whatever phase.
    pub fn index(&self, instance: &InstanceId) -> Option<&Index> {
        self.indexes.get(instance)
    }

    /// A binding in whatever phase.
    pub fn binding(&self, binding: &BindingId) -> Option<&Binding> {
        self.bindings.get(binding)
    }

    /// Every index.
    pub fn indexes(&self) -> impl Iterator<Item = &Index> {
        self.indexes.values()
    }

    /// Every binding.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// The bindings of an instance.
    pub fn bindings_of<'a>(&'a self, instance: &'a InstanceId) -> impl Iterator<Item = &'a Binding> {
        self.bindings.values().filter(move |b| b.description.instance == *instance)
    }

    /// The revoked user keys and since when.
    pub fn revocations(&self) -> Vec<(String, Timestamp)> {
        self.revocations.iter().map(|(key, revocation)| (key.clone(), revocation.at)).collect()
    }

    fn begin_index(&self, new: NewIndex, index: IndexName, now: Timestamp) -> Result<Vec<Event>, ProvisionerError> {
        if new.backend != OWN {
            return Err(ProvisionerError::UnknownBackend(new.backend));
        }
        if !(1..=SEGMENTS_MAX).contains(&new.segment_count) {
            return Err(ProvisionerError::SegmentCount(new.segment_count));
        }
        let description = IndexDescription {
            instance: new.instance,
            scope: new.scope,
            index,
            backend: new.backend,
            segment_count: new.segment_count,
            retention_days: new.retention_days,
            created: now,
        };
        let Some(there) = self.indexes.get(&description.instance) else {
            if self.by_index.contains_key(&description.index) {
                return Err(ProvisionerError::IndexNameTaken(description.index));
            }
            if self.indexes.len() >= INDEXES_MAX {
                return Err(ProvisionerError::TooManyIndexes(INDEXES_MAX));
            }
            return Ok(vec![Event::IndexBegun(description)]);
        };
        if there.phase == Phase::Deleting {
            return Err(ProvisionerError::NotReady(description.instance));
        }
        let same = IndexDescription { created: there.description.created, ..description.clone() };
        if there.description != same {
            return Err(ProvisionerError::InstanceDiffers(description.instance));
        }
        Ok(Vec::new())
    }

    fn begin_binding(
        &self,
        new: NewBinding,
        issued: Timestamp,
        public_key: String,
    ) -> Result<Vec<Event>, ProvisionerError> {
        if let Some(ttl) = new.ttl_seconds
            && !(1..=TTL_SECONDS_MAX).contains(&ttl)
        {
            return Err(ProvisionerError::TtlSeconds(ttl));
        }
        if let Some(there) = self.bindings.get(&new.binding) {
            let same = there.description.instance == new.instance
                && there.description.role == new.role
                && there.ttl_seconds == new.ttl_seconds;
            return match there.phase {
                _ if !same => Err(ProvisionerError::BindingDiffers(new.binding)),
                BindingPhase::Revoking => Err(ProvisionerError::BeingRevoked(new.binding)),
                BindingPhase::Issuing | BindingPhase::Live => Ok(Vec::new()),
            };
        }
        let index = match self.indexes.get(&new.instance) {
            None => return Err(ProvisionerError::UnknownInstance(new.instance)),
            Some(index) if index.phase != Phase::Live => return Err(ProvisionerError::NotReady(new.instance)),
            Some(index) => index.description.index.clone(),
        };
        if self.bindings.len() + self.revocations.len() >= KEYS_MAX {
            return Err(ProvisionerError::TooManyKeys(KEYS_MAX));
        }
        let description = BindingDescription {
            binding: new.binding,
            instance: new.instance,
            index,
            role: new.role,
            created: issued,
            expires: new.ttl_seconds.map(|ttl| issued + Duration::from_secs(ttl)),
        };
        Ok(vec![Event::BindingBegun { description, ttl_seconds: new.ttl_seconds, public_key }])
    }

    fn sweep(&self, now: Timestamp) -> Vec<Event> {
        let over = |expires: Option<Timestamp>| expires.is_some_and(|end| end <= now);
        let ended = self.bindings.values().filter(|b| b.phase == BindingPhase::Live && over(b.description.expires));
        let mut events: Vec<Event> = ended.map(|b| Event::RevocationBegun(b.description.binding.clone())).collect();
        let keys: Vec<String> =
            self.revocations.iter().filter(|(_, r)| over(r.expires)).map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            events.push(Event::RevocationsForgotten(keys));
        }
        events
    }

    fn revoke(&mut self, binding: &BindingId, at: Timestamp) {
        if let Some(binding) = self.bindings.get_mut(binding) {
            binding.phase = BindingPhase::Revoking;
            let expires = binding.description.expires;
            self.revocations.insert(binding.public_key.clone(), Revocation { at, expires });
        }
    }

    fn remove_index(&mut self, instance: &InstanceId) {
        if let Some(gone) = self.indexes.remove(instance) {
            self.by_index.remove(&gone.description.index);
        }
        self.bindings.retain(|_, binding| binding.description.instance != *instance);
    }

    fn index_in(&self, instance: &InstanceId, phase: Phase) -> bool {
        self.indexes.get(instance).is_some_and(|index| index.phase == phase)
    }

    fn binding_in(&self, binding: &BindingId, phase: BindingPhase) -> bool {
        self.bindings.get(binding).is_some_and(|there| there.phase == phase)
    }
}

/// The event if the condition holds, else nothing: a repeat changes nothing.
fn once(holds: bool, event: Event) -> Vec<Event> {
    if holds { vec![event] } else { Vec::new() }
}

impl host::ControlState for State {
    const SERVICE: Service = Service::IndexProvisioner;
    type Command = Command;
    type Event = Event;
    type Error = ProvisionerError;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, ProvisionerError> {
        Ok(match command {
            Command::BeginIndex { new, index } => return self.begin_index(new, index, now),
            Command::BeginBinding { new, issued, public_key } => return self.begin_binding(new, issued, public_key),
            Command::EndIndex(id) => once(self.index_in(&id, Phase::Creating), Event::IndexCreated(id)),
            Command::AbandonIndex(id) => once(self.index_in(&id, Phase::Creating), Event::IndexAbandoned(id)),
            Command::BeginDeletion(id) => {
                let there = self.indexes.get(&id).is_some_and(|index| index.phase != Phase::Deleting);
                once(there, Event::IndexDeletionBegun(id))
            }
            Command::EndDeletion(id) => once(self.index_in(&id, Phase::Deleting), Event::IndexDeleted(id)),
            Command::EndBinding(id) => once(self.binding_in(&id, BindingPhase::Issuing), Event::BindingIssued(id)),
            Command::BeginRevocation(id) => {
                let there = self.bindings.get(&id).is_some_and(|b| b.phase != BindingPhase::Revoking);
                once(there, Event::RevocationBegun(id))
            }
            Command::EndRevocation(id) => once(self.binding_in(&id, BindingPhase::Revoking), Event::BindingRevoked(id)),
            Command::Sweep => self.sweep(now),
        })
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::IndexBegun(description) => {
                self.by_index.insert(description.index.clone(), description.instance.clone());
                let index = Index { description: description.clone(), phase: Phase::Creating };
                self.indexes.insert(description.instance.clone(), index);
            }
            Event::IndexCreated(id) => {
                if let Some(index) = self.indexes.get_mut(id) {
                    index.phase = Phase::Live;
                }
            }
            Event::IndexAbandoned(id) | Event::IndexDeleted(id) => self.remove_index(id),
            Event::IndexDeletionBegun(id) => {
                if let Some(index) = self.indexes.get_mut(id) {
                    index.phase = Phase::Deleting;
                }
                let bindings: Vec<_> = self.bindings_of(id).map(|b| b.description.binding.clone()).collect();
                bindings.iter().for_each(|binding| self.revoke(binding, at));
            }
            Event::BindingBegun { description, ttl_seconds, public_key } => {
                let binding = Binding {
                    description: description.clone(),
                    ttl_seconds: *ttl_seconds,
                    public_key: public_key.clone(),
                    phase: BindingPhase::Issuing,
                };
                self.bindings.insert(description.binding.clone(), binding);
            }
            Event::BindingIssued(id) => {
                if let Some(binding) = self.bindings.get_mut(id) {
                    binding.phase = BindingPhase::Live;
                }
            }
            Event::RevocationBegun(id) => self.revoke(id, at),
            Event::BindingRevoked(id) => {
                self.bindings.remove(id);
            }
            Event::RevocationsForgotten(keys) => keys.iter().for_each(|key| {
                self.revocations.remove(key);
            }),
        }
    }
}

#[cfg(test)]
mod tests;
