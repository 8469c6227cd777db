//! Which segment takes which keys at this moment, as far as a writer has come. Pure.

use types::{KeyRange, SegmentId};
use wire::coordinator::SegmentRange;

/// The key space, each part of which goes to one segment.
///
/// It follows the stream's description with a delay: a part moves to a successor only when nothing of its keys is left in
/// the segment before, so that new events queue behind old ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Routes(Vec<Route>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    range: KeyRange,
    segment: SegmentId,
}

impl Routes {
    /// The routes of a description.
    pub(super) fn new(view: &[SegmentRange]) -> Self {
        let mut routes: Vec<_> = view.iter().map(|s| Route { range: s.range, segment: s.segment }).collect();
        routes.sort_unstable_by_key(|route| route.range.first);
        Self(routes)
    }

    /// The segment for a place in the hash space; `None` only while the description has a gap.
    pub(super) fn find(&self, hash: u64) -> Option<SegmentId> {
        let behind = self.0.partition_point(|route| route.range.first <= hash);
        self.0[..behind].last().filter(|route| route.range.contains(hash)).map(|route| route.segment)
    }

    /// Every segment named, some more than once.
    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.0.iter().map(|route| route.segment)
    }

    /// Gives the parts of a segment that ended to those that have them in the view.
    pub(super) fn replace(&mut self, ended: SegmentId, view: &[SegmentRange]) {
        let mut routes = Vec::with_capacity(self.0.len() + view.len());
        for route in &self.0 {
            if route.segment != ended {
                routes.push(*route);
                continue;
            }
            for next in view.iter().filter(|next| next.range.overlaps(route.range)) {
                let first = route.range.first.max(next.range.first);
                let last = route.range.last.min(next.range.last);
                routes.push(Route { range: KeyRange { first, last }, segment: next.segment });
            }
        }
        routes.sort_unstable_by_key(|route| route.range.first);
        self.0 = routes;
    }

    /// Gives a range to a segment, whoever had it.
    pub(super) fn give(&mut self, range: KeyRange, segment: SegmentId) {
        let mut routes = vec![Route { range, segment }];
        for route in self.0.iter().filter(|route| !route.range.overlaps(range)) {
            routes.push(*route);
        }
        for route in self.0.iter().filter(|route| route.range.overlaps(range)) {
            if route.range.first < range.first {
                let left = KeyRange { first: route.range.first, last: range.first - 1 };
                routes.push(Route { range: left, ..*route });
            }
            if route.range.last > range.last {
                let right = KeyRange { first: range.last + 1, last: route.range.last };
                routes.push(Route { range: right, ..*route });
            }
        }
        routes.sort_unstable_by_key(|route| route.range.first);
        self.0 = routes;
    }
}

#[cfg(test)]
mod tests {
    use types::ContainerId;

    use super::*;

    fn segment(number: u32, range: KeyRange) -> SegmentRange {
        SegmentRange { segment: SegmentId { stream: 1, epoch: 0, number }, container: ContainerId(0), range }
    }

    fn view(numbers: &[u32]) -> Vec<SegmentRange> {
        let ranges = KeyRange::split_evenly(u32::try_from(numbers.len()).unwrap());
        numbers.iter().zip(ranges).map(|(n, range)| segment(*n, range)).collect()
    }

    #[test]
    fn a_merge_comes_in_force_part_by_part() {
        let (before, after) = (view(&[0, 1]), view(&[2]));
        let mut routes = Routes::new(&before);
        let found = |routes: &Routes| [0, u64::MAX].map(|hash| routes.find(hash).unwrap().number);
        assert_eq!(found(&routes), [0, 1]);
        routes.replace(before[1].segment, &after);
        assert_eq!(found(&routes), [0, 2]);
        routes.replace(before[0].segment, &after);
        assert_eq!(found(&routes), [2, 2]);
        // Both parts belong to the merged segment, and both leave it.
        routes.replace(after[0].segment, &view(&[3, 4, 5]));
        assert_eq!(found(&routes), [3, 5]);
        assert!(Routes::default().find(7).is_none());
    }

    #[test]
    fn every_place_has_one_segment_after_any_scale() {
        let mut routes = Routes::new(&view(&[0, 1, 2]));
        let next = view(&[7, 8, 9, 10, 11]);
        for ended in [1, 0, 2] {
            routes.replace(SegmentId { stream: 1, epoch: 0, number: ended }, &next);
            let ranges: Vec<_> = routes.0.iter().map(|route| route.range).collect();
            assert!(KeyRange::cover_once(&ranges), "{ranges:?}");
        }
        // A part of two of them goes to another one, and back.
        let all = routes.clone();
        let third = u64::MAX / 3;
        let (range, other) =
            (KeyRange { first: third, last: 2 * third }, SegmentId { stream: 1, epoch: 9, number: 99 });
        routes.give(range, other);
        assert_eq!(
            [third - 1, third, 2 * third, 2 * third + 1].map(|at| routes.find(at) == Some(other)),
            [false, true, true, false]
        );
        routes.replace(other, &next);
        for hash in (0..=60).map(|n| u64::MAX / 60 * n) {
            assert_eq!(routes.find(hash), all.find(hash));
        }
        for range in &next {
            assert_eq!(routes.find(range.range.first), Some(range.segment));
            assert_eq!(routes.find(range.range.last), Some(range.segment));
        }
    }
}
