//! What a container remembers of writers and message ids in all its segments together, and its bound.
//!
//! Per segment there are bounds as well; without this one, ten thousand segments could each come near theirs.

use std::collections::BTreeMap;

use types::IndexName;

use super::{Segment, State, Writer};
use crate::container::frame::Entry;

/// Writers remembered per container, in all its segments: some 200 bytes each. At the limit a quarter is forgotten, of the
/// indexes that have the most, so that nobody's many writers cost others theirs; in an index those silent for the longest.
/// One that comes back is refused as a gap, as where a segment forgets it.
pub const WRITERS_HELD_MAX: usize = 131_072;

/// Message ids remembered per container, in all its segments: some 80 bytes each. At the limit a quarter is forgotten, of
/// the indexes that have the most; in an index those received first.
pub const IDS_HELD_MAX: usize = 1 << 20;

/// How much is remembered in some segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    writers: usize,
    ids: usize,
}

impl Held {
    fn of<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Self {
        segments.into_iter().fold(Self::default(), |held, segment| Self {
            writers: held.writers + segment.writers.len(),
            ids: held.ids + segment.ids.len(),
        })
    }

    fn replace(self, before: Self, after: Self) -> Self {
        Self { writers: self.writers + after.writers - before.writers, ids: self.ids + after.ids - before.ids }
    }
}

/// The count over all segments; it follows from them, and is counted anew where it is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total(Option<Held>);

impl PartialEq for Total {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl State {
    /// What the segments hold that an entry may change.
    pub(super) fn held_by(&self, entry: &Entry) -> Held {
        let source = if let Entry::Merge { source, .. } = entry { Some(*source) } else { None };
        Held::of(entry.segment().into_iter().chain(source).filter_map(|segment| self.segments.get(&segment)))
    }

    /// What all segments hold.
    pub(super) fn held(&self) -> Held {
        self.total.0.unwrap_or_else(|| Held::of(self.segments.values()))
    }

    /// Takes note of what an entry changed.
    pub(super) fn recount(&mut self, total: Held, before: Held, after: Held) {
        self.total = Total(Some(total.replace(before, after)));
    }

    /// Forgets what is oldest where there is the most, as long as there is too much.
    pub(super) fn keep_bounds(&mut self, writers_max: usize, ids_max: usize) {
        let Held { writers, ids } = self.held();
        if writers > writers_max {
            for (index, keep) in self.crowded(writers_max / 4 * 3, |s| s.writers.len()) {
                let stays = newest(self.of(&index).flat_map(|s| s.writers.values().map(Writer::seq)).collect(), keep);
                self.of_mut(&index).for_each(|s| s.writers.retain(|_, writer| stays(writer.seq())));
            }
        }
        if ids > ids_max {
            for (index, keep) in self.crowded(ids_max / 4 * 3, |s| s.ids.len()) {
                let times = self.of(&index).flat_map(|s| s.ids.iter().map(|(_, received, _)| received));
                let stays = newest(times.collect(), keep);
                self.of_mut(&index).for_each(|s| s.ids.retain(&stays));
            }
        }
        if writers > writers_max || ids > ids_max {
            self.total = Total(Some(Held::of(self.segments.values())));
        }
    }

    fn of<'a>(&'a self, index: &'a IndexName) -> impl Iterator<Item = &'a Segment> {
        self.segments.values().filter(move |segment| segment.index == *index)
    }

    fn of_mut<'a>(&'a mut self, index: &'a IndexName) -> impl Iterator<Item = &'a mut Segment> {
        self.segments.values_mut().filter(move |segment| segment.index == *index)
    }

    /// The indexes that have more than an equal share of `room`, and how much each may keep: what the others leave free of
    /// their shares is divided among them.
    fn crowded(&self, room: usize, count: impl Fn(&Segment) -> usize) -> Vec<(IndexName, usize)> {
        let mut counts = BTreeMap::<&IndexName, usize>::new();
        for segment in self.segments.values() {
            *counts.entry(&segment.index).or_default() += count(segment);
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| *count);
        let (mut left, mut share) = (room, 0);
        let modest = (0..counts.len()).take_while(|at| {
            share = left / (counts.len() - at);
            left -= counts[*at].1.min(share);
            counts[*at].1 <= share
        });
        let modest = modest.count();
        counts.into_iter().skip(modest).map(|(index, _)| (index.clone(), share)).collect()
    }
}

/// What belongs to the newest `keep`; of what came at once with the first of them, nothing if it does not all fit.
fn newest<T: Ord + Copy>(mut all: Vec<T>, keep: usize) -> impl Fn(T) -> bool {
    let first = all.len() - keep.min(all.len());
    let least = if first < all.len() { Some(*all.select_nth_unstable(first).1) } else { None };
    let ties = least.is_some_and(|least| all.iter().filter(|one| **one >= least).count() <= keep);
    move |one| least.is_some_and(|least| one > least || (one == least && ties))
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, Timestamp, WriterId};

    use super::*;

    fn writer(n: u64) -> WriterId {
        format!("w{n}").parse().unwrap()
    }

    /// Two segments with writers and ids of the times 0 to 15, in turns.
    fn state() -> State {
        let mut state = State::new(ContainerId(0));
        for n in 0..16u64 {
            let id = types::SegmentId { stream: 1, epoch: 0, number: u32::try_from(n % 2).unwrap() };
            let segment = state.segments.entry(id).or_insert_with(|| Segment::new("shop".parse().unwrap(), false));
            segment.writers.insert(writer(n), Writer::new(1, n, Vec::new()));
            segment.ids.insert(u128::from(n) + 1, Timestamp::from_nanos(i64::try_from(n).unwrap()), Some(n));
        }
        state
    }

    fn left(state: &State) -> (Vec<u64>, Vec<i64>) {
        let mut writers: Vec<_> = state.segments.values().flat_map(|s| s.writers.values().map(Writer::seq)).collect();
        let mut ids: Vec<_> = state.segments.values().flat_map(|s| s.ids.iter().map(|(_, at, _)| at.nanos())).collect();
        writers.sort_unstable();
        ids.sort_unstable();
        (writers, ids)
    }

    #[test]
    fn what_is_oldest_in_all_segments_is_forgotten_a_quarter_at_once() {
        let mut state = state();
        state.keep_bounds(16, 16);
        assert_eq!(left(&state).0.len(), 16);
        state.keep_bounds(12, 16);
        assert_eq!(left(&state), ((7..16).collect(), (0..16).collect()));
        state.keep_bounds(12, 8);
        assert_eq!(left(&state), ((7..16).collect(), (10..16).collect()));
        assert_eq!(state.held(), Held { writers: 9, ids: 6 });
        for segment in state.segments.values() {
            let ids: Vec<_> = segment.ids.iter().collect();
            assert!(ids.iter().all(|(id, _, offset)| segment.ids.find(*id) == Some(*offset)), "{ids:?}");
        }
    }

    #[test]
    fn many_writers_of_one_index_cost_another_none() {
        let mut state = state();
        let quiet = types::SegmentId { stream: 2, epoch: 0, number: 0 };
        let segment = state.segments.entry(quiet).or_insert_with(|| Segment::new("quiet".parse().unwrap(), false));
        segment.writers.insert(writer(0), Writer::new(1, 0, Vec::new()));
        segment.ids.insert(1, Timestamp::from_nanos(-9), Some(0));
        state.keep_bounds(12, 12);
        assert_eq!(left(&state), ([0].into_iter().chain(8..16).collect(), [-9].into_iter().chain(8..16).collect()));
        assert_eq!(state.held(), Held { writers: 9, ids: 9 });
    }

    #[test]
    fn what_came_at_once_goes_at_once_where_it_is_too_much() {
        let kept = |all: &[u64], keep| {
            let stays = newest(all.to_vec(), keep);
            all.iter().filter(|one| stays(**one)).count()
        };
        assert_eq!(kept(&[5; 9], 8), 0);
        assert_eq!(kept(&[1, 2, 5, 5, 5, 5, 5, 5, 5], 7), 7);
        assert_eq!(kept(&[1, 2, 5, 5, 5, 5, 5, 5, 5], 8), 8);
        assert_eq!(kept(&[1, 2, 3], 0), 0);
        assert_eq!(kept(&[1, 2, 3], 5), 3);
    }
}
