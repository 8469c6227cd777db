//! What a container remembers of writers and message ids in all its segments together, and its bound.
//!
//! Per segment there are bounds as well; without this one, ten thousand segments could each come near theirs.

use types::Timestamp;

use super::{Segment, State};
use crate::container::frame::Entry;

/// Writers remembered per container, in all its segments: some 200 bytes each. At the limit a quarter is forgotten, those
/// silent for the longest; one that comes back is refused as a gap, as where a segment forgets it.
pub const WRITERS_HELD_MAX: usize = 131_072;

/// Message ids remembered per container, in all its segments: some 80 bytes each. At the limit a quarter is forgotten,
/// those received first.
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

    /// Forgets what is oldest as long as there is too much.
    pub(super) fn keep_bounds(&mut self, writers_max: usize, ids_max: usize) {
        let Held { writers, ids } = self.held();
        if writers > writers_max {
            let seqs = self.segments.values().flat_map(|s| s.writers.values().map(|writer| writer.seq()));
            let (cut, ties) = cut(seqs.collect(), writers_max);
            let stays = |seq: u64| seq > cut || (seq == cut && ties);
            self.segments.values_mut().for_each(|s| s.writers.retain(|_, writer| stays(writer.seq())));
        }
        if ids > ids_max {
            let times = self.segments.values().flat_map(|s| s.ids.iter().map(|(_, received, _)| received));
            let (cut, ties): (Timestamp, bool) = cut(times.collect(), ids_max);
            let stays = |at: Timestamp| at > cut || (at == cut && ties);
            self.segments.values_mut().for_each(|s| s.ids.retain(stays));
        }
        if writers > writers_max || ids > ids_max {
            self.total = Total(Some(Held::of(self.segments.values())));
        }
    }
}

/// The least of the newest three quarters of `max`, and whether everything that is equal to it may stay as well.
fn cut<T: Ord + Copy>(mut all: Vec<T>, max: usize) -> (T, bool) {
    let first = all.len() - max / 4 * 3;
    let (_, cut, _) = all.select_nth_unstable(first);
    let cut = *cut;
    let kept = all.iter().filter(|one| **one >= cut).count();
    (cut, kept <= max)
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, WriterId};

    use super::*;
    use crate::container::state::Writer;

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
    fn what_came_at_once_goes_at_once_where_it_is_too_much() {
        assert_eq!(cut(vec![5; 9], 8), (5, false));
        assert_eq!(cut(vec![1, 2, 5, 5, 5, 5, 5, 5, 5], 8), (5, true));
    }
}
