//! The provisioner's truth: indexes, bindings and revoked user keys. Pure, and free of secrets.

mod decide;
mod order;

use std::{collections::BTreeMap, ops::Bound};

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, Timestamp};
use wire::{
    Service,
    index_provisioner::{BindingDescription, IndexChange, IndexDescription, NewBinding, NewIndex, Reclaim},
};

pub(crate) use self::decide::{asked, changed};
use crate::error::ProvisionerError;

/// Indexes of one installation.
pub const INDEXES_MAX: usize = 100_000;

/// Live bindings and revoked keys together.
///
/// Each revoked key is 70 bytes in the account's JWT, which the NATS servers must take as one message: 5.6 MB in base64 at most, of the
/// 8 MB that they are set up for. A binding takes its place when it is issued, so a revocation never fails for want of room.
pub const KEYS_MAX: usize = 60_000;

/// Bindings that are ended, and keys that are forgotten, by one sweep: some 70 bytes of a journal entry each. The next one goes on.
pub(crate) const SWEPT_MAX: usize = 10_000;

/// The longest life of a binding that has an end: ten years.
pub const TTL_SECONDS_MAX: u64 = 315_360_000;

/// Segments of an index.
pub const SEGMENTS_MAX: u16 = 64;

/// Entries that only a back-end knows, of one index.
pub const BACKEND_OPTIONS_MAX: usize = 16;

/// Characters of the name and of the value of such an entry.
pub const BACKEND_OPTION_CHARS_MAX: usize = 255;

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
    /// What it is being changed to.
    #[serde(default)]
    pub update: Option<IndexDescription>,
    /// Whether it could ever be used. Until then, what stands under its name may be somebody else's.
    #[serde(default = "yes")]
    pub was_live: bool,
}

/// State that was written before anybody looked.
fn yes() -> bool {
    true
}

impl Index {
    /// What it is to be: what it is being changed to, else what it is.
    pub fn wanted(&self) -> &IndexDescription {
        self.update.as_ref().unwrap_or(&self.description)
    }

    /// What becomes of its events: of a change that has not ended, the more careful side.
    pub fn reclaim(&self) -> Reclaim {
        let sides = [self.description.options.reclaim, self.wanted().options.reclaim];
        let careful = [Reclaim::Fail, Reclaim::Retain].into_iter().find(|policy| sides.contains(policy));
        careful.unwrap_or_default()
    }
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// What others see of it; `created` is the instant that its secrets are derived from.
    pub description: BindingDescription,
    /// How long it was to live.
    pub ttl_seconds: Option<u64>,
    /// Its NATS user; empty on back-ends that have none.
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
    /// Begins a change of an index, or finds it made.
    BeginUpdate(IndexChange),
    /// The back-end has made the change.
    EndUpdate(InstanceId),
    /// The back-end will never make the change, and has left everything as it was.
    AbandonUpdate(InstanceId),
    /// Begins the deletion of an index and the revocation of its bindings; with the place of the wish among those of the instance.
    BeginDeletion(InstanceId, u64),
    /// Nothing of the index is left.
    EndDeletion(InstanceId),
    /// The index stays, because events came while it was being deleted; its bindings are gone.
    AbandonDeletion(InstanceId),
    /// Begins a binding, or finds it.
    BeginBinding {
        /// What was asked for.
        new: NewBinding,
        /// The instant that its secrets are derived from.
        issued: Timestamp,
        /// The NATS user derived from it; empty on back-ends that have none.
        public_key: String,
    },
    /// The back-end has prepared the credentials.
    EndBinding(BindingId),
    /// Begins the revocation of a binding.
    BeginRevocation(BindingId),
    /// Nobody can use these bindings any more.
    EndRevocations(Vec<BindingId>),
    /// Begins the revocation of what has come to its end, and forgets revoked keys that ended by themselves.
    Sweep,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Something was wanted of an instance, whether it is there or not; what was wanted before comes too late from now on.
    Ordered {
        /// The instance.
        instance: InstanceId,
        /// The place of the wish among all.
        order: u64,
    },
    /// An index is being created.
    IndexBegun(IndexDescription),
    /// It can be used.
    IndexCreated(InstanceId),
    /// It could not be created, and nothing is left of it.
    IndexAbandoned(InstanceId),
    /// It is being changed to this.
    IndexUpdateBegun(IndexDescription),
    /// It was changed.
    IndexUpdated(InstanceId),
    /// It could not be changed, and is what it was.
    IndexUpdateAbandoned(InstanceId),
    /// It can be used no more, nor can its bindings.
    IndexDeletionBegun(InstanceId),
    /// Nothing of it is left.
    IndexDeleted(InstanceId),
    /// It can be used again, without its bindings.
    IndexDeletionAbandoned(InstanceId),
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
    #[serde(default)]
    orders: order::Orders,
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

    /// The indexes whose instances are behind this one, in the order of their instances.
    pub fn indexes_behind(&self, after: Option<&InstanceId>) -> impl Iterator<Item = &Index> {
        self.indexes.range((behind(after), Bound::Unbounded)).map(|(_, index)| index)
    }

    /// The bindings behind this one, in the order of their ids.
    pub fn bindings_behind(&self, after: Option<&BindingId>) -> impl Iterator<Item = &Binding> {
        self.bindings.range((behind(after), Bound::Unbounded)).map(|(_, binding)| binding)
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

    fn revoke(&mut self, binding: &BindingId, at: Timestamp) {
        if let Some(binding) = self.bindings.get_mut(binding) {
            binding.phase = BindingPhase::Revoking;
            let expires = binding.description.expires;
            if !binding.public_key.is_empty() {
                self.revocations.insert(binding.public_key.clone(), Revocation { at, expires });
            }
        }
    }

    fn remove_index(&mut self, instance: &InstanceId) {
        if let Some(gone) = self.indexes.remove(instance) {
            self.by_index.remove(&gone.description.index);
        }
        self.forget_bindings(instance);
    }

    fn forget_bindings(&mut self, instance: &InstanceId) {
        self.bindings.retain(|_, binding| binding.description.instance != *instance);
    }
}

fn behind<T>(after: Option<&T>) -> Bound<&T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

impl host::ControlState for State {
    const SERVICE: Service = Service::IndexProvisioner;
    type Command = Command;
    type Event = Event;
    type Error = ProvisionerError;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, ProvisionerError> {
        self.decide_on(command, now)
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Ordered { instance, order } => self.orders.note(instance, *order, at),
            Event::IndexBegun(description) => {
                self.by_index.insert(description.index.clone(), description.instance.clone());
                let (description, phase) = (description.clone(), Phase::Creating);
                let index = Index { description: description.clone(), phase, update: None, was_live: false };
                self.indexes.insert(description.instance.clone(), index);
            }
            Event::IndexCreated(id) => {
                if let Some(index) = self.indexes.get_mut(id) {
                    (index.phase, index.was_live) = (Phase::Live, true);
                }
            }
            Event::IndexAbandoned(id) | Event::IndexDeleted(id) => self.remove_index(id),
            Event::IndexUpdateBegun(wanted) => {
                if let Some(index) = self.indexes.get_mut(&wanted.instance) {
                    index.update = Some(wanted.clone());
                }
            }
            Event::IndexUpdated(id) => {
                if let Some(index) = self.indexes.get_mut(id)
                    && let Some(wanted) = index.update.take()
                {
                    index.description = wanted;
                }
            }
            Event::IndexUpdateAbandoned(id) => {
                if let Some(index) = self.indexes.get_mut(id) {
                    index.update = None;
                }
            }
            Event::IndexDeletionAbandoned(id) => {
                if let Some(index) = self.indexes.get_mut(id) {
                    index.phase = Phase::Live;
                }
                self.forget_bindings(id);
            }
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
