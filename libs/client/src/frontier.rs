//! Which segments may be read: a successor only after everything that it follows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use types::{ContainerId, Offset, SegmentId, StreamCut};
use wire::{coordinator::SegmentNode, segment_store::SegmentPlace};

/// A segment that was read to its end and still stands for its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    #[serde(rename = "e")]
    end: Offset,
    #[serde(rename = "s")]
    successors: Vec<SegmentId>,
}

/// A segment that may not be read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Awaited {
    #[serde(rename = "c")]
    container: ContainerId,
    #[serde(rename = "p")]
    outstanding: BTreeSet<SegmentId>,
}

/// The edge between what was read and what may be read next.
///
/// Successors become readable together with all that share a predecessor with them, directly or over others. With that,
/// readable segments and finished ones that are remembered here always form a cut: a reader can stop at any moment, and
/// start from there again without a gap and without a repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frontier {
    done: BTreeMap<SegmentId, Done>,
    future: BTreeMap<SegmentId, Awaited>,
}

impl Frontier {
    /// A segment was read to its end; gives the segments that may be read now. Without successors it is the last of its keys.
    pub(crate) fn complete(
        &mut self,
        segment: SegmentId,
        end: Offset,
        successors: &[SegmentNode],
    ) -> Vec<SegmentPlace> {
        let names = successors.iter().map(|node| node.segment).collect();
        self.done.insert(segment, Done { end, successors: names });
        for node in successors {
            let outstanding = node.predecessors.iter().filter(|p| !self.done.contains_key(p)).copied().collect();
            let new = Awaited { container: node.container, outstanding };
            self.future.entry(node.segment).or_insert(new).outstanding.remove(&segment);
        }
        self.release(segment)
    }

    /// The scale that a finished segment was part of is behind, once all that took part in it is.
    fn release(&mut self, from: SegmentId) -> Vec<SegmentPlace> {
        let (mut before, mut behind) = (BTreeSet::from([from]), BTreeSet::new());
        let mut next = vec![from];
        while let Some(segment) = next.pop() {
            let Some(done) = self.done.get(&segment) else { continue };
            for &successor in &done.successors {
                let Some(awaited) = self.future.get(&successor) else { continue };
                if !awaited.outstanding.is_empty() {
                    return Vec::new();
                }
                if behind.insert(successor) {
                    let sharing = self.done.iter().filter(|(_, d)| d.successors.contains(&successor));
                    next.extend(sharing.map(|(s, _)| *s).filter(|s| before.insert(*s)));
                }
            }
        }
        if behind.is_empty() {
            return Vec::new();
        }
        self.done.retain(|segment, _| !before.contains(segment));
        let place = |segment: SegmentId| {
            let awaited = self.future.remove(&segment)?;
            Some(SegmentPlace { segment, container: awaited.container })
        };
        behind.into_iter().filter_map(place).collect()
    }

    /// The finished segments that still stand for their keys, with their ends.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (SegmentId, Offset)> {
        self.done.iter().map(|(segment, done)| (*segment, done.end))
    }

    /// Whether a segment is finished.
    pub(crate) fn is_done(&self, segment: SegmentId) -> bool {
        self.done.contains_key(&segment)
    }

    /// Whether segments are known that may not be read yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.future.is_empty()
    }

    /// Everything of a stream goes but what stands in the cut.
    pub(crate) fn keep(&mut self, stream: u32, cut: &StreamCut) {
        let kept = |segment: &SegmentId| segment.stream != stream || cut.0.contains_key(segment);
        self.done.retain(|segment, _| kept(segment));
        let named: BTreeSet<SegmentId> = self.done.values().flat_map(|d| d.successors.iter().copied()).collect();
        self.future.retain(|s, _| s.stream != stream || (!cut.0.contains_key(s) && named.contains(s)));
    }

    /// How many names it holds.
    pub(crate) fn size(&self) -> usize {
        let edges = self.done.values().map(|d| d.successors.len() + 1);
        edges.sum::<usize>() + self.future.values().map(|a| a.outstanding.len() + 1).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use types::KeyRange;

    use super::*;
    use crate::testing::{graph, segment};

    fn names(places: &[SegmentPlace]) -> Vec<u32> {
        places.iter().map(|place| place.segment.number).collect()
    }

    #[test]
    fn a_merge_waits_for_both_and_a_split_gives_both() {
        let (graph, mut frontier) = (graph(), Frontier::default());
        let node = |epoch, number| graph.node(segment(epoch, number)).unwrap().clone();
        assert!(frontier.complete(segment(0, 1), 7, &[node(1, 3)]).is_empty());
        assert!(frontier.is_waiting() && frontier.ends().eq([(segment(0, 1), 7)]));
        assert_eq!(names(&frontier.complete(segment(0, 0), 2, &[node(1, 3)])), [3]);
        assert_eq!(frontier, Frontier::default());
        assert_eq!(names(&frontier.complete(segment(1, 3), 2, &[node(2, 4), node(2, 5)])), [4, 5]);
        assert_eq!(frontier, Frontier::default());
        assert!(frontier.complete(segment(2, 4), 9, &[]).is_empty());
        assert!(!frontier.is_waiting() && frontier.is_done(segment(2, 4)));
    }

    #[test]
    fn successors_that_share_a_predecessor_come_together_so_that_there_is_always_a_cut() {
        // 0, 1 and 2 are replaced by 3 and 4; both take keys of 1.
        let node = |number, predecessors: &[u32]| SegmentNode {
            segment: segment(1, number),
            container: ContainerId(0),
            range: KeyRange { first: 0, last: 0 },
            sealed_in: None,
            predecessors: predecessors.iter().map(|n| segment(0, *n)).collect(),
            successors: vec![],
        };
        let (left, right) = (node(3, &[0, 1]), node(4, &[1, 2]));
        let mut frontier = Frontier::default();
        assert!(frontier.complete(segment(0, 0), 1, std::slice::from_ref(&left)).is_empty());
        assert!(frontier.complete(segment(0, 1), 2, &[left, right.clone()]).is_empty(), "4 waits, and 3 with it");
        assert!(frontier.ends().eq([(segment(0, 0), 1), (segment(0, 1), 2)]));
        assert_eq!(names(&frontier.complete(segment(0, 2), 3, &[right])), [3, 4]);
        assert_eq!(frontier, Frontier::default());
    }
}
