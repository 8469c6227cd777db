//! What would have to be looked for in the state, kept beside it: what is under way, and which bindings an instance has.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use types::{BindingId, IndexName, InstanceId};

use super::{Binding, Event, Instance, Phase, State, Tombstones};

/// An instance, or one of its bindings.
pub(crate) type Item = (InstanceId, Option<BindingId>);

/// Found from the rest of the state and not stored.
///
/// Bounds: one entry for each binding, and one for each instance and binding with something under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// What has not ended, by back-end; no set is empty. What was wanted first comes first: by name, who makes short names without
    /// end would hold up everybody behind them.
    pending: BTreeMap<String, BTreeSet<(u64, Item)>>,
    /// The turn of each of them.
    turns: BTreeMap<Item, u64>,
    /// Bindings by instance; no set is empty.
    bindings: BTreeMap<InstanceId, BTreeSet<BindingId>>,
}

impl Index {
    pub(super) fn bound(&mut self, instance: &InstanceId, id: &BindingId) {
        self.bindings.entry(instance.clone()).or_default().insert(id.clone());
    }

    pub(super) fn unbound(&mut self, instance: &InstanceId, id: &BindingId) {
        if let Some(all) = self.bindings.get_mut(instance) {
            all.remove(id);
            if all.is_empty() {
                self.bindings.remove(instance);
            }
        }
        self.set((instance.clone(), Some(id.clone())), None);
    }

    /// Notes on which back-end something is under way and whose turn it is, if anything is.
    fn set(&mut self, item: Item, now: Option<(&str, u64)>) {
        if let Some(turn) = self.turns.remove(&item) {
            let known = (turn, item.clone());
            self.pending.retain(|_, items| {
                items.remove(&known);
                !items.is_empty()
            });
        }
        if let Some((backend, turn)) = now {
            self.turns.insert(item.clone(), turn);
            self.pending.entry(backend.to_owned()).or_default().insert((turn, item));
        }
    }
}

impl Instance {
    fn is_pending(&self) -> bool {
        self.phase != Phase::Live || self.restores()
    }
}

impl State {
    /// What was begun and has not ended, by back-end, in the order in which it was wanted.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&str, impl ExactSizeIterator<Item = &Item>)> {
        self.index.pending.iter().map(|(backend, items)| (backend.as_str(), items.iter().map(|(_, item)| item)))
    }

    /// The bindings of an instance, in any phase.
    pub(crate) fn bindings_of<'a>(&'a self, id: &InstanceId) -> impl Iterator<Item = (&'a BindingId, &'a Binding)> {
        let ids = self.index.bindings.get(id).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.bindings.get(id)?)))
    }

    /// How many bindings an instance has, in any phase.
    pub(crate) fn binding_count(&self, id: &InstanceId) -> usize {
        self.index.bindings.get(id).map_or(0, BTreeSet::len)
    }

    /// What an event is about; asked before it is applied, since a binding may be gone afterwards.
    pub(super) fn item_of(&self, event: &Event) -> Option<Item> {
        Some(match event {
            Event::ProvisionBegun { id, .. }
            | Event::UpdateBegun { id, .. }
            | Event::ContextUpdated { id, .. }
            | Event::DeprovisionBegun { id, .. }
            | Event::InstanceEnded { id, .. }
            | Event::InstanceGivenUp { id, .. }
            | Event::InstanceRestored { id }
            | Event::Retried { id }
            | Event::InstanceAbandoned { id } => (id.clone(), None),
            Event::BindBegun { id, request, .. } => (request.instance.clone(), Some(id.clone())),
            Event::UnbindBegun { id, .. } | Event::BindingEnded { id, .. } | Event::BindingGivenUp { id, .. } => {
                (self.owner(id)?.clone(), Some(id.clone()))
            }
        })
    }

    /// Notes whether something is under way on an item now.
    pub(super) fn note(&mut self, item: Item) {
        let now = self.instances.get(&item.0).and_then(|there| {
            let operation = match &item.1 {
                None => there.is_pending().then_some(&there.operation),
                Some(id) => self.binding(&item.0, id).filter(|b| b.phase != Phase::Live).map(|b| &b.operation),
            };
            Some((there.wanted.backend.as_str(), operation?.order()))
        });
        self.index.set(item, now);
    }
}

/// The state as it is stored.
#[derive(Deserialize)]
pub(super) struct Stored {
    next: u64,
    instances: BTreeMap<InstanceId, Instance>,
    by_index: BTreeMap<IndexName, InstanceId>,
    bindings: BTreeMap<BindingId, Binding>,
    ended_instances: Tombstones<InstanceId>,
    ended_bindings: Tombstones<BindingId>,
    #[serde(default)]
    retries: BTreeMap<InstanceId, u32>,
}

impl From<Stored> for State {
    fn from(stored: Stored) -> Self {
        let Stored { next, instances, by_index, bindings, ended_instances, ended_bindings, retries } = stored;
        let index = Index::default();
        let mut state = Self { next, instances, by_index, bindings, ended_instances, ended_bindings, retries, index };
        let owners = state.bindings.iter().map(|(id, there)| (there.request.instance.clone(), Some(id.clone())));
        let items: Vec<Item> = state.instances.keys().map(|id| (id.clone(), None)).chain(owners).collect();
        for item in items {
            if let Some(id) = &item.1 {
                state.index.bound(&item.0, id);
            }
            state.note(item);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use host::ControlState;

    use super::*;
    use crate::state::{Command, tests::*};

    fn pending(state: &State) -> Vec<String> {
        let name = |(instance, binding): &Item| match binding {
            Some(binding) => format!("{instance}/{binding}"),
            None => instance.to_string(),
        };
        state.pending().flat_map(|(backend, items)| items.map(move |i| format!("{backend} {}", name(i)))).collect()
    }

    #[test]
    fn what_was_wanted_first_comes_first_whatever_its_name_is() {
        let mut state = live();
        for name in ["z", "b", "a"] {
            run(&mut state, bind("i", name, "p")).unwrap();
        }
        assert_eq!(pending(&state), ["own i/z", "own i/b", "own i/a"]);
        end_binding(&mut state, "i", "b");
        run(&mut state, bind("i", "0", "p")).unwrap();
        assert_eq!(pending(&state), ["own i/z", "own i/a", "own i/0"]);
        let read: State = wire::decode(&wire::encode(&state)).unwrap();
        assert_eq!(pending(&read), pending(&state), "it is found again");
    }

    #[test]
    fn what_is_under_way_is_known_by_its_back_end() {
        let mut state = live();
        assert!(pending(&state).is_empty());
        let Command::Provision { id: other, mut new } = provision("j", "bank", "p") else { unreachable!() };
        new.wanted.backend = "splunk".into();
        run(&mut state, Command::Provision { id: other, new }).unwrap();
        run(&mut state, bind("i", "b", "p")).unwrap();
        run(&mut state, bind("i", "c", "p")).unwrap();
        assert_eq!(pending(&state), ["own i/b", "own i/c", "splunk j"]);
        assert_eq!((state.binding_count(&id("i")), state.binding_count(&id("j"))), (2, 0));
        end_binding(&mut state, "i", "b");
        run(&mut state, Command::Deprovision(id("i"))).unwrap();
        assert_eq!(pending(&state), ["own i/c", "own i", "splunk j"]);
        let read: State = wire::decode(&wire::encode(&state)).unwrap();
        assert_eq!(pending(&read), pending(&state), "it is found again");
        end(&mut state, "i", None);
        end(&mut state, "j", None);
        assert_eq!(state.index, Index::default(), "nothing is left of what is gone or done");
    }

    /// As the versions before stored it; it must be read for ever.
    #[test]
    fn a_state_of_a_former_version_still_reads() {
        let mut state = live();
        run(&mut state, bind("i", "b", "p")).unwrap();
        run(&mut state, Command::Deprovision(id("i"))).unwrap();
        let text = serde_json::to_string(&state).unwrap();
        let old = text.replace("\"ending\"", "\"Ending\"").replace("\"beginning\"", "\"Beginning\"");
        assert!(old != text && !old.contains("\"index\":{\"pending"));
        assert_eq!(serde_json::from_str::<State>(&old).unwrap(), state);
        let _: fn(&mut State, &Event, types::Timestamp) = State::apply;
    }
}
