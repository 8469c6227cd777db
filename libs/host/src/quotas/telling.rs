//! What this replica has still to tell of what it let in. Pure.
//!
//! Indexes are dealt into parts by their names, and each part has two entries: one with all indexes of the part, and one with the news,
//! which are those that changed since. The news are told again and again while they are few; once they are half of the part, all of
//! it is told and there are none. So the cost of telling goes with what changes, and whoever reads both entries knows everything.

use std::collections::{BTreeMap, BTreeSet};

use types::{IndexName, hash64};

/// Parts. The number is part of the format.
pub(super) const PARTS: u8 = 16;
/// What one telling may send, unless a single part has more: what is left waits for the next one.
pub(super) const TELL_BYTES_MAX: usize = 256 << 10;

/// What is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) part: u8,
    /// The indexes that are news; `None` tells all of the part.
    pub(super) news: Option<BTreeSet<IndexName>>,
    change: u64,
}

/// What changed and was not told, by part.
#[derive(Debug)]
pub(super) struct Telling {
    parts: Vec<Part>,
    /// The part that comes first next time, so that none waits for ever.
    next: u8,
}

#[derive(Debug, Default)]
struct Part {
    /// The last change of every index that changed since all of the part was told. Bounds: as many as have a quota.
    news: BTreeMap<IndexName, u64>,
    /// Changes so far, and how many of them were told.
    changes: u64,
    told: u64,
    /// Indexes of which there is anything to tell.
    count: usize,
}

pub(super) fn part_of(index: &IndexName) -> u8 {
    u8::try_from(hash64(index.as_str().as_bytes()) % u64::from(PARTS)).unwrap_or(0)
}

impl Default for Telling {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::default()).collect(), next: 0 }
    }
}

impl Telling {
    /// Begins a look at all indexes; each of which there is anything to tell is then [`seen`](Self::seen).
    pub(super) fn look(&mut self) {
        self.parts.iter_mut().for_each(|part| part.count = 0);
    }

    /// There is something to tell of the index, and whether it changed.
    pub(super) fn seen(&mut self, index: &IndexName, changed: bool) {
        let part = &mut self.parts[usize::from(part_of(index))];
        part.count += 1;
        if changed {
            part.changes += 1;
            part.news.insert(index.clone(), part.changes);
        }
    }

    /// What is to be told next, if anything is. It stays due until it [is told](Self::told).
    pub(super) fn due(&self) -> Option<Due> {
        let mut order = (0..PARTS).map(|n| (self.next + n) % PARTS);
        let part = order.find(|part| self.parts[usize::from(*part)].changes > self.parts[usize::from(*part)].told)?;
        let there = &self.parts[usize::from(part)];
        let few = 2 * there.news.len() < there.count;
        let news = few.then(|| there.news.keys().cloned().collect());
        Some(Due { part, news, change: there.changes })
    }

    /// Takes note of what was told; what changed meanwhile is still to be told.
    pub(super) fn told(&mut self, due: &Due) {
        let part = &mut self.parts[usize::from(due.part)];
        part.told = due.change;
        if due.news.is_none() {
            part.news.retain(|_, change| *change > due.change);
        }
        self.next = (due.part + 1) % PARTS;
    }
}

#[cfg(test)]
mod tests {
    use wire::views::{Usage, Usages};

    use super::*;

    const INDEXES: usize = 10_000;

    fn name(n: usize) -> IndexName {
        // As long as the names that are made up for instances.
        format!("i-{n:034}").parse().unwrap()
    }

    /// Bytes and messages of one telling, as the loop of the service sends them; how many indexes were in them.
    fn tell(telling: &mut Telling, names: &[IndexName]) -> (usize, usize, BTreeSet<IndexName>) {
        let (mut bytes, mut messages, mut told) = (0, 0, BTreeSet::new());
        while bytes < TELL_BYTES_MAX
            && let Some(due) = telling.due()
        {
            let of_part = names.iter().filter(|name| part_of(name) == due.part);
            let wanted = of_part.filter(|name| due.news.as_ref().is_none_or(|news| news.contains(*name)));
            // A day's worth of what a busy index has.
            let usage = Usage { day: 20_000, bytes: 1 << 40, events: 1 << 32, queries: 1 };
            let indexes = wanted.map(|name| (name.clone(), usage)).collect();
            let usages = Usages { since: 1_790_000_000_000_000_000, indexes };
            bytes += wire::encode(&usages).len();
            messages += 1;
            told.extend(usages.indexes.into_keys());
            telling.told(&due);
        }
        (bytes, messages, told)
    }

    fn change(telling: &mut Telling, names: &[IndexName], changed: impl Fn(usize) -> bool) {
        telling.look();
        names.iter().enumerate().for_each(|(n, name)| telling.seen(name, changed(n)));
    }

    #[test]
    fn the_cost_goes_with_what_changes_and_has_a_bound() {
        let names: Vec<IndexName> = (0..INDEXES).map(name).collect();
        let mut telling = Telling::default();
        // All of them are busy, second after second: some parts a second, and every index once in some seconds.
        let mut first_told = BTreeSet::new();
        let mut seconds = 0;
        while first_told.len() < INDEXES {
            change(&mut telling, &names, |_| true);
            let (bytes, messages, told) = tell(&mut telling, &names);
            assert!(bytes < 2 * TELL_BYTES_MAX && messages <= usize::from(PARTS), "{bytes} in {messages}");
            first_told.extend(told);
            seconds += 1;
        }
        assert!(seconds <= 5, "{seconds} s until everybody has heard of every index");
        // They are silent, and the last changes of all are told.
        while telling.due().is_some() {
            tell(&mut telling, &names);
        }
        // One in a hundred is busy: 100 of 10,000.
        for _ in 0..10 {
            change(&mut telling, &names, |n| n % 100 == 0);
            let (bytes, messages, told) = tell(&mut telling, &names);
            assert_eq!(told.len(), INDEXES / 100);
            assert!(bytes <= 100 * 128 && messages <= usize::from(PARTS), "{bytes} in {messages}");
        }
        // Nothing happens: nothing is told.
        change(&mut telling, &names, |_| false);
        assert_eq!(tell(&mut telling, &names).0, 0);
    }

    #[test]
    fn whoever_reads_both_entries_of_a_part_knows_everything() {
        let names: Vec<IndexName> = (0..200).map(name).collect();
        let mut telling = Telling::default();
        let mut truth = vec![0u32; names.len()];
        // What lies in the bucket: by part, of all and of news.
        let mut bucket: BTreeMap<(u8, bool), BTreeMap<IndexName, u32>> = BTreeMap::new();
        for round in 0..60usize {
            let busy = |n: usize| (n * 7 + round * 13).is_multiple_of(3 + round % 17);
            telling.look();
            for (n, name) in names.iter().enumerate() {
                truth[n] += u32::from(busy(n));
                if truth[n] > 0 {
                    telling.seen(name, busy(n));
                }
            }
            while let Some(due) = telling.due() {
                let of_part = names.iter().zip(&truth).filter(|(name, count)| part_of(name) == due.part && **count > 0);
                let wanted = of_part.filter(|(name, _)| due.news.as_ref().is_none_or(|news| news.contains(*name)));
                let entry = wanted.map(|(name, count)| (name.clone(), *count)).collect();
                bucket.insert((due.part, due.news.is_none()), entry);
                telling.told(&due);
            }
            for (name, count) in names.iter().zip(&truth).filter(|(_, count)| **count > 0) {
                let entries = [true, false].map(|whole| bucket.get(&(part_of(name), whole)));
                let known = entries.into_iter().flatten().filter_map(|entry| entry.get(name)).max();
                assert_eq!(known, Some(count), "{name} in round {round}");
            }
        }
    }

    #[test]
    fn what_changes_while_it_is_told_is_told_again_and_what_fails_stays_due() {
        let mut telling = Telling::default();
        let one = name(1);
        telling.look();
        telling.seen(&one, true);
        let due = telling.due().unwrap();
        assert_eq!(telling.due(), Some(due.clone()), "it was not told");
        telling.look();
        telling.seen(&one, true);
        telling.told(&due);
        let again = telling.due().unwrap();
        assert_eq!(again.part, due.part);
        telling.told(&again);
        assert_eq!(telling.due(), None);
    }
}
