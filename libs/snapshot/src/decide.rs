//! The decisions, each a function of facts.

use std::collections::BTreeSet;

use crate::{Manifest, PartInfo, service_and_number};

/// Snapshots that are kept, so that a restore can fall back twice.
pub const KEEP: usize = 3;
/// Snapshots that must be usable before anything is purged: a damaged newest one must not be the end.
pub const PURGE_NEEDS_MIN: usize = 2;
/// Manifests that a restore looks at; [`plan_gc`] keeps far fewer.
pub const MANIFESTS_MAX: usize = 64;

/// From where a state comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore<'a> {
    /// From this snapshot and the log after its position.
    From(&'a Manifest),
    /// From the log alone, which is whole.
    Replay,
    /// Not at all: the log was purged past the newest usable snapshot, or past all if there is none.
    Refuse {
        /// Where the newest usable snapshot stands.
        usable: Option<u64>,
        /// The first event that the log still has.
        first: u64,
    },
}

/// The number for the next snapshot: above every number in use, complete or not.
pub fn next_number<'a>(keys: impl IntoIterator<Item = &'a str>) -> u64 {
    let used = keys.into_iter().filter_map(|key| service_and_number(key).map(|(_, number, _)| number));
    used.max().map_or(1, |highest| highest.saturating_add(1))
}

/// Whether the manifest may be written: exactly its parts were stored, and it does not step back.
///
/// `newest` is the newest manifest that exists.
pub fn may_commit(manifest: &Manifest, stored: &[PartInfo], newest: Option<&Manifest>) -> bool {
    let forward = newest.is_none_or(|newest| manifest.number > newest.number && manifest.position >= newest.position);
    forward && !manifest.parts.is_empty() && manifest.parts == stored
}

/// Chooses the newest snapshot that is usable, given the first event that the log still has (1 if it is whole).
///
/// A snapshot is usable if its parts verify and the log continues where it ends. `verify` is asked for the newest first and never
/// again after the first yes, so it may read the parts.
pub fn pick_restore<'a>(
    manifests: &'a [Manifest],
    mut verify: impl FnMut(&Manifest) -> bool,
    first: u64,
) -> Restore<'a> {
    let mut newest_first: Vec<&Manifest> = manifests.iter().collect();
    newest_first.sort_by_key(|manifest| std::cmp::Reverse(manifest.number));
    match newest_first.into_iter().take(MANIFESTS_MAX).find(|manifest| verify(manifest)) {
        Some(manifest) if manifest.position.saturating_add(1) >= first => Restore::From(manifest),
        None if first <= 1 => Restore::Replay,
        // An event between the snapshot and the log is lost to this replica, unless the log is whole.
        Some(_) if first <= 1 => Restore::Replay,
        usable => Restore::Refuse { usable: usable.map(|manifest| manifest.position), first },
    }
}

/// The keys to delete: all files of snapshots older than the [`KEEP`] newest complete ones, manifests first.
///
/// Incomplete snapshots newer than the oldest kept one stay: somebody may be writing them.
pub fn plan_gc<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    let complete: BTreeSet<u64> = keys
        .iter()
        .filter_map(|key| service_and_number(key))
        .filter(|(.., manifest)| *manifest)
        .map(|(_, n, _)| n)
        .collect();
    let Some(oldest_kept) = complete.iter().rev().nth(KEEP - 1).copied() else { return Vec::new() };
    let mut old: Vec<(bool, &str)> = keys
        .iter()
        .filter_map(|key| service_and_number(key).map(|(_, number, manifest)| (number, manifest, *key)))
        .filter(|(number, ..)| *number < oldest_kept)
        .map(|(_, manifest, key)| (!manifest, key))
        .collect();
    // Without its manifest a snapshot is none: it must not lose a part while it still counts.
    old.sort_unstable();
    old.into_iter().map(|(_, key)| key).collect()
}

/// The first event that must stay in the log, given the snapshots that are kept and verified; `None` if nothing may be purged.
///
/// Everything after the oldest of the [`KEEP`] newest stays, and nothing is purged before [`PURGE_NEEDS_MIN`] of them are usable.
pub fn purge_bound<'a>(usable: impl IntoIterator<Item = &'a Manifest>) -> Option<u64> {
    let mut newest_first: Vec<(u64, u64)> = usable.into_iter().map(|m| (m.number, m.position)).collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    newest_first.truncate(KEEP);
    if newest_first.len() < PURGE_NEEDS_MIN {
        return None;
    }
    newest_first.iter().map(|(_, position)| position.saturating_add(1)).min()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::{FORMAT, part_key};

    fn manifest(number: u64, position: u64) -> Manifest {
        let parts = vec![PartInfo::of("part-0000.lb", &number.to_le_bytes())];
        Manifest { service: "alerter".into(), generation: 1, number, format: FORMAT, position, parts }
    }

    #[test]
    fn only_the_whole_and_the_next_may_commit() {
        let (older, newer) = (manifest(4, 40), manifest(5, 50));
        assert!(may_commit(&newer, &newer.parts, Some(&older)));
        assert!(may_commit(&newer, &newer.parts, None));
        assert!(!may_commit(&newer, &[], None), "a part is missing");
        assert!(!may_commit(&older, &older.parts, Some(&newer)), "steps back");
        assert!(!may_commit(&manifest(6, 49), &manifest(6, 49).parts, Some(&newer)), "position steps back");
        let empty = Manifest { parts: vec![], ..newer };
        assert!(!may_commit(&empty, &[], None), "no parts");
    }

    #[test]
    fn a_restore_takes_the_newest_usable_or_refuses() {
        let all = [manifest(1, 10), manifest(3, 30), manifest(2, 20)];
        let pick = |broken: &[u64], first| match pick_restore(&all, |m| !broken.contains(&m.number), first) {
            Restore::From(manifest) => format!("from {}", manifest.number),
            other => format!("{other:?}"),
        };
        assert_eq!(pick(&[], 11), "from 3");
        assert_eq!(pick(&[3], 11), "from 2");
        assert_eq!(pick(&[3, 2], 11), "from 1");
        assert_eq!(pick(&[3, 2], 12), "Refuse { usable: Some(10), first: 12 }");
        assert_eq!(pick(&[3, 2, 1], 11), "Refuse { usable: None, first: 11 }");
        assert_eq!(pick(&[3, 2, 1], 1), "Replay");
    }

    #[test]
    fn numbers_in_use_are_not_given_again() {
        let (a, b) = (part_key("x", 7, "part-0000.lb"), part_key("x", 6, "manifest.lb"));
        assert_eq!(next_number([a.as_str(), &b, "snap/odd"]), 8);
        assert_eq!(next_number([]), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(u64),
        Write { dies_after: Option<u8> },
        Damage(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..20u64).prop_map(Step::Append),
            4 => prop::option::weighted(0.4, 0..4u8).prop_map(|dies_after| Step::Write { dies_after }),
            1 => any::<prop::sample::Index>().prop_map(Step::Damage),
        ]
    }

    /// A service that writes snapshots, dies anywhere while doing so, deletes, purges; and storage that damages one at a time.
    #[derive(Default)]
    struct World {
        last: u64,
        first: u64,
        objects: BTreeMap<String, Option<Manifest>>,
        damaged: BTreeSet<u64>,
    }

    impl World {
        fn manifests(&self) -> Vec<Manifest> {
            self.objects.values().flatten().cloned().collect()
        }

        fn usable(&self) -> Vec<Manifest> {
            self.manifests().into_iter().filter(|m| !self.damaged.contains(&m.number)).collect()
        }

        fn write(&mut self, dies_after: Option<u8>) {
            let dead = |step| dies_after.is_some_and(|after| step >= after);
            let new = manifest(next_number(self.objects.keys().map(String::as_str)), self.last);
            self.objects.insert(new.part_key(&new.parts[0]), None);
            if dead(1) {
                return;
            }
            let manifests = self.manifests();
            let newest = manifests.iter().max_by_key(|m| m.number);
            assert!(may_commit(&new, &new.parts, newest));
            self.objects.insert(new.key(), Some(new));
            if dead(2) {
                return;
            }
            let keys: Vec<String> = self.objects.keys().cloned().collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            for (done, key) in plan_gc(&keys).into_iter().enumerate() {
                if dead(2 + u8::try_from(done).unwrap_or(u8::MAX)) {
                    return;
                }
                self.objects.remove(key);
            }
            if !dead(3)
                && let Some(bound) = purge_bound(&self.usable())
            {
                self.first = self.first.max(bound);
            }
        }
    }

    proptest! {
        /// Whatever dies wherever, one damaged snapshot is survived, and what is restored reaches the log without a gap.
        #[test]
        fn one_damaged_snapshot_is_always_survived(steps in proptest::collection::vec(step(), 1..60)) {
            let mut world = World { first: 1, ..World::default() };
            for step in steps {
                match step {
                    Step::Append(n) => world.last += n,
                    Step::Write { dies_after } => world.write(dies_after),
                    Step::Damage(which) => {
                        let all = world.manifests();
                        // One at a time: a second one before the next good snapshot is more than was promised.
                        let recovered = all.iter().rev().take(2).all(|m| !world.damaged.contains(&m.number));
                        if !all.is_empty() && recovered && world.damaged.len() < 2 {
                            world.damaged.insert(all[which.index(all.len())].number);
                        }
                    }
                }
                let manifests = world.manifests();
                let restored = pick_restore(&manifests, |m| !world.damaged.contains(&m.number), world.first);
                match restored {
                    Restore::From(m) => prop_assert!(m.position + 1 >= world.first && m.position <= world.last),
                    Restore::Replay => prop_assert_eq!(world.first, 1),
                    Restore::Refuse { .. } => prop_assert!(false, "{:?} {:?}", restored, world.damaged),
                }
            }
        }

        #[test]
        fn gc_keeps_the_newest_complete_and_deletes_manifests_first(numbers in proptest::collection::btree_map(0..40u64, any::<bool>(), 0..20)) {
            let keys: Vec<String> = numbers
                .iter()
                .flat_map(|(n, complete)| {
                    let manifest = complete.then(|| part_key("x", *n, "manifest.lb"));
                    [Some(part_key("x", *n, "part-0000.lb")), manifest].into_iter().flatten()
                })
                .collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let plan = plan_gc(&keys);
            let complete: Vec<u64> = numbers.iter().filter(|(_, c)| **c).map(|(n, _)| *n).collect();
            let kept = &complete[complete.len().saturating_sub(KEEP)..];
            for key in &plan {
                let (_, number, _) = service_and_number(key).unwrap();
                prop_assert!(kept.len() == KEEP && number < kept[0]);
            }
            prop_assert!(plan.is_sorted_by_key(|key| !service_and_number(key).unwrap().2));
            let left = keys.len() - plan.len();
            prop_assert_eq!(left, keys.iter().filter(|k| kept.len() < KEEP || service_and_number(k).unwrap().1 >= kept[0]).count());
        }
    }
}
