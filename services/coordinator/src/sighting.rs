//! Which replicas of segment-store are alive, from the entries that they renew.

use std::{collections::BTreeMap, time::Duration};

use types::{ReplicaId, Timestamp};
use wire::{Service, views::Member};

use crate::placement::Store;

/// When each entry was last seen to change.
///
/// Bounds: one row per living replica; rows of those that are gone are dropped with the next look.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    changed: BTreeMap<ReplicaId, (u64, Timestamp)>,
}

impl Sightings {
    /// The stores that are alive: their entry is there and changed within `timeout`.
    ///
    /// An entry seen for the first time counts as changed now, so a new leader is patient once.
    pub(crate) fn living(&mut self, entries: Vec<(u64, Member)>, now: Timestamp, timeout: Duration) -> Vec<Store> {
        let mut stores = Vec::new();
        let mut changed = BTreeMap::new();
        for (revision, member) in entries.into_iter().filter(|(_, m)| m.service == Service::SegmentStore) {
            let since = match self.changed.get(&member.replica) {
                Some((last, since)) if *last == revision => *since,
                _ => now,
            };
            if now.since(since) <= timeout {
                stores.push(Store { replica: member.replica.clone(), started: member.started });
            }
            changed.insert(member.replica, (revision, since));
        }
        self.changed = changed;
        stores.sort();
        stores
    }

    /// Forgets everything: while nothing could be read, silence proves nothing.
    pub(crate) fn forget(&mut self) {
        self.changed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(service: Service, name: &str) -> Member {
        let started = Timestamp::from_nanos(7);
        Member {
            service,
            replica: name.parse().unwrap(),
            started,
            exchange_address: None,
            slots: 0,
            unready: <_>::default(),
        }
    }

    #[test]
    fn a_silent_replica_is_gone_and_a_renewed_one_is_back() {
        let mut sightings = Sightings::default();
        let store = |revision| vec![(revision, member(Service::SegmentStore, "a"))];
        for (at, entries, alive) in [
            (0, store(1), 1),
            (2_900, store(1), 1),
            (3_100, store(1), 0),
            (3_200, store(2), 1),
            (3_300, vec![], 0),
            (3_400, vec![(9, member(Service::TaskWorker, "w"))], 0),
            (3_500, store(2), 1),
        ] {
            let now = Timestamp::from_millis(at);
            assert_eq!(sightings.living(entries, now, Duration::from_secs(3)).len(), alive, "at {at}");
        }
    }

    #[test]
    fn silence_is_measured_anew_after_trouble() {
        let mut sightings = Sightings::default();
        let entries = || vec![(1, member(Service::SegmentStore, "a"))];
        let timeout = Duration::from_secs(3);
        sightings.living(entries(), Timestamp::from_millis(0), timeout);
        sightings.forget();
        assert_eq!(sightings.living(entries(), Timestamp::from_millis(9_000), timeout).len(), 1);
    }
}
