//! Which replica of segment-store owns which container: a pure decision with as few moves as balance allows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, ReplicaId, Timestamp};
use wire::views::{Assignment, Placement};

/// A living replica of segment-store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Store {
    /// Its name.
    pub replica: ReplicaId,
    /// When its process started: a restarted process has lost what it owned.
    pub started: Timestamp,
}

/// Who owns one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    pub store: Store,
    /// Fences every earlier owner.
    pub generation: Generation,
}

/// A container that gets an owner, or the same one anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// The container.
    pub container: ContainerId,
    /// Its new owner.
    pub owner: Owner,
}

/// One decision about placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Containers that get an owner.
    pub placed: Vec<Placing>,
    /// Containers that lose theirs because no store is alive.
    pub vacated: Vec<ContainerId>,
    /// Whether a container was taken from a living owner for the sake of balance.
    pub rebalanced: bool,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.vacated.is_empty()
    }
}

/// Where every container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    version: u64,
    owners: BTreeMap<ContainerId, Owner>,
    /// The last generation ever given, kept also while a container has no owner: a number never returns.
    generations: BTreeMap<ContainerId, Generation>,
    rebalanced: Option<Timestamp>,
}

impl Placed {
    /// When a container was last moved for balance.
    pub fn rebalanced(&self) -> Option<Timestamp> {
        self.rebalanced
    }

    /// Carries out a decision.
    pub fn apply(&mut self, changes: &Changes, at: Timestamp) {
        self.version += 1;
        for container in &changes.vacated {
            self.owners.remove(container);
        }
        for placing in &changes.placed {
            self.generations.insert(placing.container, placing.owner.generation);
            self.owners.insert(placing.container, placing.owner.clone());
        }
        if changes.rebalanced {
            self.rebalanced = Some(at);
        }
    }

    /// The view that others read.
    pub fn view(&self, container_count: u16) -> Placement {
        let assignments = self.owners.iter().map(|(container, owner)| Assignment {
            container: *container,
            replica: owner.store.replica.clone(),
            generation: owner.generation,
        });
        Placement { version: self.version, container_count, assignments: assignments.collect() }
    }

    /// Decides what has to change so that living stores own every container.
    ///
    /// A container of a store that is gone moves at once, to the store with the fewest; one whose store restarted stays there with
    /// a new generation; if `may_rebalance`, containers then move from the fullest to the emptiest store until they differ by one.
    /// Bounds: as many steps as there are containers.
    pub fn plan(&self, container_count: u16, stores: &[Store], may_rebalance: bool) -> Changes {
        if stores.is_empty() {
            return Changes { vacated: self.owners.keys().copied().collect(), ..Changes::default() };
        }
        let mut held: BTreeMap<&Store, Vec<ContainerId>> = stores.iter().map(|s| (s, Vec::new())).collect();
        let mut orphans = Vec::new();
        for container in (0..container_count).map(ContainerId) {
            let replica = self.owners.get(&container).map(|owner| &owner.store.replica);
            match stores.iter().find(|s| Some(&s.replica) == replica).and_then(|s| held.get_mut(s)) {
                Some(list) => list.push(container),
                None => orphans.push(container),
            }
        }
        for container in orphans {
            if let Some(list) = held.values_mut().min_by_key(|list| list.len()) {
                list.push(container);
            }
        }
        let rebalanced = may_rebalance && balance(&mut held, container_count);
        let mut placed = Vec::new();
        for (store, containers) in held {
            for container in containers {
                if self.owners.get(&container).is_none_or(|owner| owner.store != *store) {
                    placed.push(self.placing(container, store));
                }
            }
        }
        placed.sort_by_key(|p| p.container);
        Changes { placed, vacated: Vec::new(), rebalanced }
    }

    fn placing(&self, container: ContainerId, store: &Store) -> Placing {
        let last = self.generations.get(&container).copied().unwrap_or_default();
        Placing { container, owner: Owner { store: store.clone(), generation: Generation(last.0 + 1) } }
    }
}

/// Moves containers from the fullest to the emptiest store; says whether any moved.
fn balance(held: &mut BTreeMap<&Store, Vec<ContainerId>>, container_count: u16) -> bool {
    let mut moved = false;
    // Every step brings one container to its final store, so this many are enough.
    for _ in 0..container_count {
        let most = held.iter().max_by_key(|(_, list)| list.len()).map(|(s, list)| (*s, list.len()));
        let least = held.iter().min_by_key(|(_, list)| list.len()).map(|(s, list)| (*s, list.len()));
        let (Some((from, most)), Some((to, least))) = (most, least) else { return moved };
        if most <= least + 1 {
            return moved;
        }
        let container = held.get_mut(from).and_then(Vec::pop);
        if let (Some(container), Some(list)) = (container, held.get_mut(to)) {
            list.push(container);
            moved = true;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(number: u8, started: i64) -> Store {
        Store { replica: format!("store-{number}").parse().unwrap(), started: Timestamp::from_nanos(started) }
    }

    fn loads(placed: &Placed, stores: &[Store]) -> Vec<usize> {
        stores.iter().map(|s| placed.owners.values().filter(|o| o.store.replica == s.replica).count()).collect()
    }

    #[test]
    fn a_restarted_store_keeps_its_containers_under_a_new_generation() {
        let mut placed = Placed::default();
        let changes = placed.plan(4, &[store(0, 1)], true);
        assert_eq!(changes.placed.len(), 4);
        placed.apply(&changes, Timestamp::from_nanos(1));
        assert!(placed.plan(4, &[store(0, 1)], true).is_empty());
        let changes = placed.plan(4, &[store(0, 2)], true);
        assert!(
            !changes.rebalanced && changes.placed.iter().all(|p| p.owner.generation == Generation(2)),
            "{changes:?}"
        );
    }

    #[test]
    fn without_permission_a_new_store_waits_but_orphans_do_not() {
        let mut placed = Placed::default();
        placed.apply(&placed.plan(8, &[store(0, 1)], true), Timestamp::from_nanos(1));
        let both = [store(0, 1), store(1, 1)];
        assert!(placed.plan(8, &both, false).is_empty());
        let changes = placed.plan(8, &both, true);
        assert_eq!((changes.placed.len(), changes.rebalanced), (4, true));
        let changes = placed.plan(8, &both[1..], false);
        assert_eq!((changes.placed.len(), changes.rebalanced), (8, false));
    }

    #[test]
    fn a_generation_never_returns_after_everybody_was_gone() {
        let mut placed = Placed::default();
        placed.apply(&placed.plan(1, &[store(0, 1)], true), Timestamp::from_nanos(1));
        let changes = placed.plan(1, &[], true);
        assert_eq!(changes.vacated, vec![ContainerId(0)]);
        placed.apply(&changes, Timestamp::from_nanos(2));
        assert!(placed.view(1).assignments.is_empty());
        assert_eq!(placed.plan(1, &[store(0, 1)], true).placed[0].owner.generation, Generation(2));
    }

    #[test]
    fn the_largest_placement_fits_into_one_message() {
        let stores: Vec<Store> = (0..8)
            .map(|n| Store { replica: format!("{n}{}", "x".repeat(127)).parse().unwrap(), started: Timestamp::MIN })
            .collect();
        let mut placed = Placed::default();
        placed.apply(&placed.plan(1_024, &stores, true), Timestamp::MIN);
        let bytes = wire::encode(&placed.view(1_024)).len();
        assert!(placed.owners.len() == 1_024 && bytes < 1 << 20, "{bytes}");
    }

    proptest! {
        #[test]
        fn every_history_keeps_the_rules(
            exponent in 0u32..6,
            steps in prop::collection::vec((prop::collection::vec(prop::option::of(1i64..4), 6), any::<bool>()), 1..20),
        ) {
            let count = 1u16 << exponent;
            let mut placed = Placed::default();
            for (time, (alive, may_rebalance)) in steps.into_iter().enumerate() {
                let stores: Vec<Store> = (0u8..).zip(alive).filter_map(|(n, s)| s.map(|s| store(n, s))).collect();
                let before = placed.clone();
                let surviving = loads(&before, &stores);
                let changes = placed.plan(count, &stores, may_rebalance);
                if changes.is_empty() && time > 0 && !stores.is_empty() {
                    prop_assert_eq!(placed.owners.len(), usize::from(count));
                }
                placed.apply(&changes, Timestamp::from_nanos(i64::try_from(time).unwrap()));
                // All or none are placed, and only on living processes.
                let expected = if stores.is_empty() { 0 } else { usize::from(count) };
                prop_assert_eq!(placed.owners.len(), expected);
                prop_assert!(placed.owners.values().all(|o| stores.contains(&o.store)));
                // A generation grows by one exactly when something about the owner changed.
                for (container, owner) in &placed.owners {
                    let last = before.generations.get(container).copied().unwrap_or_default();
                    let same = before.owners.get(container).is_some_and(|o| o.store == owner.store);
                    prop_assert_eq!(owner.generation.0, last.0 + u64::from(!same));
                }
                if stores.is_empty() {
                    continue;
                }
                let moved = before.owners.iter().filter(|(c, o)| {
                    let stays = placed.owners[c].store.replica == o.store.replica;
                    !stays && stores.iter().any(|s| s.replica == o.store.replica)
                }).count();
                prop_assert_eq!(changes.rebalanced, moved > 0);
                if !may_rebalance {
                    prop_assert_eq!(moved, 0);
                    continue;
                }
                let after = loads(&placed, &stores);
                prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{:?}", after);
                // No plan that balances moves fewer: everything above the even share has to go, but for the remainder.
                let (share, rest) = (usize::from(count) / stores.len(), usize::from(count) % stores.len());
                let above: usize = surviving.iter().map(|n| n.saturating_sub(share)).sum();
                let spared = surviving.iter().filter(|n| **n > share).count().min(rest);
                prop_assert_eq!(moved, above - spared);
                prop_assert!(placed.plan(count, &stores, true).is_empty());
            }
        }
    }
}
