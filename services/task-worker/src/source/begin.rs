//! Where the splits of a source begin: as a checkpoint left them, or behind what they follow.

use std::collections::{BTreeMap, BTreeSet};

use client::SegmentGraph;
use types::{Offset, SegmentId, StreamCut};
use wire::{Problem, coordinator::SegmentRange};

use crate::{chain::SourceSpec, error::TaskError, part::Part, retry::persist, split::Split, task::Context};

/// The subtask's splits: its share of exactly the segments that the cut names.
///
/// A segment may have been read by another subtask before, or follow those of another, so the parts of all of them are looked
/// at.
pub(super) async fn splits(
    context: &Context,
    spec: &SourceSpec,
    cut: &StreamCut,
    parts: &[Part],
) -> Result<Vec<(SegmentRange, Split)>, TaskError> {
    let graph =
        persist("listing the segments of the source index", || context.shared.client.graph(&spec.index)).await?;
    let mine = share(cut, context.id.subtask, context.parallelism);
    let known: BTreeMap<SegmentId, Split> = parts.iter().flat_map(|part| part.splits.clone()).collect();
    let split = |(segment, offset)| {
        let gone = || {
            let message = format_args!("segment {segment} of {} was truncated away before it was read", spec.index);
            TaskError::Call { what: "beginning to read", problem: Problem::not_found("UnknownSegment", message) }
        };
        let node = graph.node(segment).ok_or_else(gone)?;
        Ok((node.segment_range(), begin(spec, &graph, (segment, offset), &known)?))
    };
    mine.into_iter().map(split).collect()
}

/// The subtask's share of a cut.
///
/// By the number, which a segment keeps for ever: so the state of a split is in the part of the same subtask in every attempt.
fn share(cut: &StreamCut, subtask: u32, parallelism: u32) -> BTreeMap<SegmentId, Offset> {
    let mine = cut.0.iter().filter(|(segment, _)| segment.number % parallelism.max(1) == subtask);
    mine.map(|(segment, offset)| (*segment, *offset)).collect()
}

/// A split as a checkpoint left it, which must be where the job's cut says; else at the cut, as late as what it follows.
fn begin(
    spec: &SourceSpec,
    graph: &SegmentGraph,
    (segment, offset): (SegmentId, Offset),
    known: &BTreeMap<SegmentId, Split>,
) -> Result<Split, TaskError> {
    match known.get(&segment) {
        Some(split) if split.offset == offset => Ok(split.clone()),
        Some(split) => Err(TaskError::Cut { segment, cut: offset, checkpoint: split.offset }),
        None => {
            // Of several the one that is behind: what it could still bring was in time for every window that has not closed.
            let before = followed(graph, segment, known).min_by_key(|split| split.watermark());
            Ok(before.map_or_else(|| Split::new(spec, offset), |split| split.followed_at(offset)))
        }
    }
}

/// The known splits that a segment follows, directly or over segments that were empty.
fn followed<'a>(
    graph: &SegmentGraph,
    segment: SegmentId,
    known: &'a BTreeMap<SegmentId, Split>,
) -> impl Iterator<Item = &'a Split> {
    let (mut seen, mut next) = (BTreeSet::from([segment]), vec![segment]);
    let mut found = Vec::new();
    while let Some(segment) = next.pop() {
        for &before in graph.node(segment).into_iter().flat_map(|node| &node.predecessors) {
            match known.get(&before) {
                _ if !seen.insert(before) => {}
                Some(split) => found.push(split),
                None => next.push(before),
            }
        }
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
    use types::{ContainerId, DurationText, KeyRange, Timestamp};
    use wire::coordinator::SegmentNode;

    use super::*;

    fn segment(epoch: u32, number: u32) -> SegmentId {
        SegmentId { stream: 1, epoch, number }
    }

    fn spec() -> SourceSpec {
        SourceSpec {
            index: "shop".parse().unwrap(),
            delay: DurationText(Duration::ZERO),
            max_future_skew: DurationText(Duration::ZERO),
            idle_after: DurationText(Duration::ZERO),
            window: None,
        }
    }

    /// 0 and 1 merge into 2, which is empty and splits into 3 and 4.
    fn graph() -> SegmentGraph {
        let node = |epoch, number, before: &[(u32, u32)]| SegmentNode {
            segment: segment(epoch, number),
            container: ContainerId(0),
            range: KeyRange { first: 0, last: 0 },
            sealed_in: None,
            predecessors: before.iter().map(|(e, n)| segment(*e, *n)).collect(),
            successors: Vec::new(),
        };
        SegmentGraph::new([
            node(0, 0, &[]),
            node(0, 1, &[]),
            node(1, 2, &[(0, 0), (0, 1)]),
            node(2, 3, &[(1, 2)]),
            node(2, 4, &[(1, 2)]),
        ])
    }

    fn read_to(offset: Offset, second: i64) -> Split {
        let mut split = Split::new(&spec(), offset);
        let time = || Arc::new(TimestampNanosecondArray::from(vec![second * 1_000_000_000])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("_time", time()), ("_received", time())]).unwrap();
        split.take(&batch, None).unwrap();
        split
    }

    #[test]
    fn every_segment_is_read_by_one_subtask_and_by_the_same_in_every_epoch() {
        let cut = |segments: &[(u32, u32)]| StreamCut(segments.iter().map(|(e, n)| (segment(*e, *n), 0)).collect());
        let numbers = |cut: &StreamCut, subtask, parallelism| -> Vec<u32> {
            share(cut, subtask, parallelism).keys().map(|s| s.number).collect()
        };
        let before = cut(&[(0, 0), (0, 1), (0, 2), (0, 3)]);
        assert_eq!((numbers(&before, 0, 2), numbers(&before, 1, 2)), (vec![0, 2], vec![1, 3]));
        let behind = cut(&[(1, 4), (0, 2), (0, 3)]);
        assert_eq!((numbers(&behind, 0, 2), numbers(&behind, 1, 2)), (vec![2, 4], vec![3]));
        assert_eq!((numbers(&before, 0, 1), numbers(&before, 7, 8)), (vec![0, 1, 2, 3], vec![]));
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_its_cut_is_refused() {
        let first = segment(0, 0);
        let begin = |offset, known: &BTreeMap<SegmentId, Split>| begin(&spec(), &graph(), (first, offset), known);
        assert_eq!(begin(7, &BTreeMap::new()).unwrap().offset, 7);
        let known = BTreeMap::from([(first, Split::new(&spec(), 7))]);
        assert_eq!(begin(7, &known).unwrap().offset, 7);
        assert!(begin(0, &known).is_err());
    }

    #[test]
    fn a_successor_is_as_late_as_the_slowest_of_what_it_follows() {
        let known = BTreeMap::from([(segment(0, 0), read_to(9, 50)), (segment(0, 1), read_to(3, 20))]);
        let split = begin(&spec(), &graph(), (segment(2, 3), 4), &known).unwrap();
        assert_eq!((split.offset, split.watermark()), (4, Timestamp::from_nanos(20_000_000_000)));
        let fresh = begin(&spec(), &graph(), (segment(2, 3), 4), &BTreeMap::new()).unwrap();
        assert_eq!(fresh.watermark(), Timestamp::MIN);
    }
}
