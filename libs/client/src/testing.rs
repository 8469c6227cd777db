//! Graphs for the unit tests of this crate.

use types::{ContainerId, KeyRange, SegmentId};
use wire::coordinator::SegmentNode;

use crate::SegmentGraph;

/// A segment of stream 1.
pub(crate) fn segment(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 1, epoch, number }
}

/// Three segments; the first two merge into number 3, which splits into 4 and 5.
pub(crate) fn graph() -> SegmentGraph {
    let third = u64::MAX / 3;
    let range = |first, last| KeyRange { first, last };
    let node = |epoch, number, range, before: &[(u32, u32)], behind: &[(u32, u32)]| SegmentNode {
        segment: segment(epoch, number),
        container: ContainerId(3),
        range,
        sealed_in: (!behind.is_empty()).then_some(epoch + 1),
        predecessors: before.iter().map(|(e, n)| segment(*e, *n)).collect(),
        successors: behind.iter().map(|(e, n)| segment(*e, *n)).collect(),
    };
    SegmentGraph::new([
        node(0, 0, range(0, third), &[], &[(1, 3)]),
        node(0, 1, range(third + 1, 2 * third), &[], &[(1, 3)]),
        node(0, 2, range(2 * third + 1, u64::MAX), &[], &[]),
        node(1, 3, range(0, 2 * third), &[(0, 0), (0, 1)], &[(2, 4), (2, 5)]),
        node(2, 4, range(0, third), &[(1, 3)], &[]),
        node(2, 5, range(third + 1, 2 * third), &[(1, 3)], &[]),
    ])
}
