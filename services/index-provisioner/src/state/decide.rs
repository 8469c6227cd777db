//! What indexes and bindings allow.

use std::time::Duration;

use types::{BindingId, IndexName, InstanceId, Timestamp};
use wire::index_provisioner::{BindingDescription, IndexChange, IndexDescription, IndexOptions, NewBinding, NewIndex};

use super::{
    BACKEND_OPTION_CHARS_MAX, BACKEND_OPTIONS_MAX, BindingPhase, Command, Event, INDEXES_MAX, KEYS_MAX, OWN, Phase,
    SEGMENTS_MAX, SWEPT_MAX, State, TTL_SECONDS_MAX,
};
use crate::{backend::s3, error::ProvisionerError};

/// Indexes that a refusal names.
const USERS_NAMED_MAX: usize = 5;

/// The index that a request asks for.
pub(crate) fn asked(new: NewIndex, index: IndexName, created: Timestamp) -> IndexDescription {
    let NewIndex { instance, scope, index: _, backend, segment_count, retention_days, options, order: _ } = new;
    IndexDescription { instance, scope, index, backend, segment_count, retention_days, options, created }
}

/// What an index is after a change.
pub(crate) fn changed(there: &IndexDescription, change: &IndexChange) -> IndexDescription {
    // Whether it was adopted is history, and whether it is encrypted was decided for good.
    let (adopt, encryption) = (there.options.adopt, there.options.encryption);
    let options = IndexOptions { adopt, encryption, ..change.options.clone() };
    IndexDescription { retention_days: change.retention_days, options, ..there.clone() }
}

impl State {
    pub(super) fn decide_on(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, ProvisionerError> {
        Ok(match command {
            Command::BeginIndex { new, index } => {
                let ordered = self.ordered(&new.instance, new.order, now)?;
                ordered.into_iter().chain(self.begin_index(asked(new, index, now))?).collect()
            }
            Command::BeginUpdate(change) => {
                let ordered = self.ordered(&change.instance, change.order, now)?;
                ordered.into_iter().chain(self.begin_update(&change)?).collect()
            }
            Command::BeginBinding { new, issued, public_key } => return self.begin_binding(new, issued, public_key),
            Command::EndIndex(id) => once(self.index_in(&id, Phase::Creating), Event::IndexCreated(id)),
            Command::AbandonIndex(id) => once(self.index_in(&id, Phase::Creating), Event::IndexAbandoned(id)),
            Command::EndUpdate(id) => once(self.is_updating(&id), Event::IndexUpdated(id)),
            Command::AbandonUpdate(id) => once(self.is_updating(&id), Event::IndexUpdateAbandoned(id)),
            Command::BeginDeletion(id, order) => {
                let ordered = self.ordered(&id, order, now)?;
                let there = self.indexes.get(&id).is_some_and(|index| index.phase != Phase::Deleting);
                if there {
                    self.check_unused(&id)?;
                }
                ordered.into_iter().chain(once(there, Event::IndexDeletionBegun(id))).collect()
            }
            Command::EndDeletion(id) => once(self.index_in(&id, Phase::Deleting), Event::IndexDeleted(id)),
            Command::AbandonDeletion(id) => {
                let deleting = self.indexes.get(&id).is_some_and(|i| i.phase == Phase::Deleting && i.was_live);
                once(deleting, Event::IndexDeletionAbandoned(id))
            }
            Command::EndBinding(id) => once(self.binding_in(&id, BindingPhase::Issuing), Event::BindingIssued(id)),
            Command::BeginRevocation(id) => {
                let there = self.bindings.get(&id).is_some_and(|b| b.phase != BindingPhase::Revoking);
                once(there, Event::RevocationBegun(id))
            }
            Command::EndRevocations(ids) => {
                let revoking = ids.into_iter().filter(|id| self.binding_in(id, BindingPhase::Revoking));
                revoking.map(Event::BindingRevoked).collect()
            }
            Command::Sweep => self.sweep(now),
        })
    }

    /// Takes note of the place of a wish among all of its instance; refuses one that comes behind a later one.
    ///
    /// A broker that leads no more may still send what it began: a creation of what was deleted since, or a deletion of what was made
    /// anew. So the order is kept of what is gone too.
    fn ordered(&self, instance: &InstanceId, order: u64, now: Timestamp) -> Result<Option<Event>, ProvisionerError> {
        match self.orders.of(instance, now) {
            _ if order == 0 => Ok(None),
            Some(last) if order < last => Err(ProvisionerError::Superseded(instance.clone())),
            Some(last) if order == last => Ok(None),
            _ => Ok(Some(Event::Ordered { instance: instance.clone(), order })),
        }
    }

    fn begin_index(&self, wanted: IndexDescription) -> Result<Vec<Event>, ProvisionerError> {
        if !(1..=SEGMENTS_MAX).contains(&wanted.segment_count) {
            return Err(ProvisionerError::SegmentCount(wanted.segment_count));
        }
        check(&wanted)?;
        let Some(there) = self.indexes.get(&wanted.instance) else {
            if self.by_index.contains_key(&wanted.index) {
                return Err(ProvisionerError::IndexNameTaken(wanted.index));
            }
            if self.indexes.len() >= INDEXES_MAX {
                return Err(ProvisionerError::TooManyIndexes(INDEXES_MAX));
            }
            self.check_archive(&wanted)?;
            return Ok(vec![Event::IndexBegun(wanted)]);
        };
        if there.phase == Phase::Deleting {
            return Err(ProvisionerError::NotReady(wanted.instance));
        }
        let same = IndexDescription { created: there.description.created, ..wanted.clone() };
        if there.description != same {
            return Err(ProvisionerError::InstanceDiffers(wanted.instance));
        }
        Ok(Vec::new())
    }

    fn begin_update(&self, change: &IndexChange) -> Result<Vec<Event>, ProvisionerError> {
        let there = match self.indexes.get(&change.instance) {
            None => return Err(ProvisionerError::UnknownInstance(change.instance.clone())),
            Some(index) if index.phase != Phase::Live => {
                return Err(ProvisionerError::NotReady(change.instance.clone()));
            }
            Some(index) => index,
        };
        let wanted = changed(&there.description, change);
        check(&wanted)?;
        match &there.update {
            Some(begun) if *begun == wanted => Ok(Vec::new()),
            // The back-end may be half-way: one change is ended before the next begins.
            Some(_) => Err(ProvisionerError::BeingUpdated(change.instance.clone())),
            None if there.description == wanted => Ok(Vec::new()),
            None => {
                self.check_archive(&wanted)?;
                Ok(vec![Event::IndexUpdateBegun(wanted)])
            }
        }
    }

    /// Whether the bucket is there into which an index is to be archived. Whose name it is in another scope is not told.
    fn check_archive(&self, wanted: &IndexDescription) -> Result<(), ProvisionerError> {
        let Some(archive) = &wanted.options.archive_to else { return Ok(()) };
        if wanted.backend != OWN {
            return Err(ProvisionerError::NotArchivable(wanted.backend.clone()));
        }
        let named = self.by_index.get(archive).and_then(|id| self.indexes.get(id));
        let fits = named.is_some_and(|there| {
            let is = &there.description;
            there.phase == Phase::Live && is.backend == s3::NAME && is.scope == wanted.scope
        });
        let missing = || ProvisionerError::NoArchive { archive: archive.clone(), scope: wanted.scope.clone() };
        if fits { Ok(()) } else { Err(missing()) }
    }

    /// Whether no index is archived into one that is to be deleted: its name may be another tenant's bucket the next moment.
    fn check_unused(&self, id: &InstanceId) -> Result<(), ProvisionerError> {
        let Some(index) = self.indexes.get(id).filter(|index| index.description.backend == s3::NAME) else {
            return Ok(());
        };
        let archive = &index.description.index;
        let names = |d: &IndexDescription| d.options.archive_to.as_ref() == Some(archive);
        let users = self.indexes.values().filter(|user| names(&user.description) || names(user.wanted()));
        let users: Vec<&str> = users.take(USERS_NAMED_MAX).map(|user| user.description.index.as_str()).collect();
        if users.is_empty() {
            return Ok(());
        }
        Err(ProvisionerError::ArchiveInUse { archive: archive.clone(), users: users.join(", ") })
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
        let begun = ended.map(|b| Event::RevocationBegun(b.description.binding.clone()));
        let mut events: Vec<Event> = begun.take(SWEPT_MAX).collect();
        let forgotten = self.revocations.iter().filter(|(_, r)| over(r.expires)).map(|(key, _)| key.clone());
        let keys: Vec<String> = forgotten.take(SWEPT_MAX).collect();
        if !keys.is_empty() {
            events.push(Event::RevocationsForgotten(keys));
        }
        events
    }

    fn index_in(&self, instance: &InstanceId, phase: Phase) -> bool {
        self.indexes.get(instance).is_some_and(|index| index.phase == phase)
    }

    fn is_updating(&self, instance: &InstanceId) -> bool {
        self.indexes.get(instance).is_some_and(|index| index.phase == Phase::Live && index.update.is_some())
    }

    fn binding_in(&self, binding: &BindingId, phase: BindingPhase) -> bool {
        self.bindings.get(binding).is_some_and(|there| there.phase == phase)
    }
}

/// What holds on every back-end.
fn check(index: &IndexDescription) -> Result<(), ProvisionerError> {
    let refuse = |rule: &'static str| Err(ProvisionerError::Options(rule));
    if index.retention_days == Some(0) {
        return refuse("events are kept for at least one day; leave retention_days out to keep them for ever");
    }
    if index.options.bytes_max == Some(0) {
        return refuse("at least one byte is kept; leave max_bytes out to set no limit");
    }
    if index.options.encryption && index.backend != OWN {
        return refuse("only an index of the back-end own can have a key of its own; leave encryption out");
    }
    let long = |text: &String| text.chars().count() > BACKEND_OPTION_CHARS_MAX;
    let entries = &index.options.backend;
    if entries.len() > BACKEND_OPTIONS_MAX || entries.iter().any(|(name, value)| long(name) || long(value)) {
        return refuse("options of the back-end are at most 16, of at most 255 characters each");
    }
    Ok(())
}

/// The event if the condition holds, else nothing: a repeat changes nothing.
fn once(holds: bool, event: Event) -> Vec<Event> {
    if holds { vec![event] } else { Vec::new() }
}
