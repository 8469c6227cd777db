//! The segments of a stream that comes back: which followed which is told by their epochs and ranges alone.

use std::collections::{BTreeMap, BTreeSet};

use types::{KeyRange, SegmentId, StreamCut};
use wire::coordinator::{RestoredSegment, SegmentRange, StreamRestore};

use super::{Graph, NUMBERS_MAX, Scaling, joined};

/// Segments of a stream that can come back: their list goes into one entry of the journal.
pub const RESTORED_SEGMENTS_MAX: usize = 10_000;

/// Why segments make no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// [`RESTORED_SEGMENTS_MAX`].
    #[error("it has {0} segments, and 1 to {RESTORED_SEGMENTS_MAX} are possible")]
    Count(usize),
    /// A segment of another stream, named twice, of a transaction, or in a container that there is not.
    #[error("segment {0} is of another stream, named twice, of a transaction, or in a container that there is not")]
    Segment(SegmentId),
    /// Two segments of an epoch share keys.
    #[error("segments of epoch {0} share keys")]
    Overlap(u32),
    /// A key has no segment in the end.
    #[error("the segments that nothing follows do not cover the key space once")]
    Cover,
    /// A segment in the middle has lost its beginning.
    #[error("segment {0} begins at a later offset although it follows others")]
    Start(SegmentId),
    /// Where the stream begins is not one place of every key.
    #[error("the segments that follow nothing do not cover the key space once")]
    Head,
}

impl Graph {
    /// The graph of segments as they were.
    pub(crate) fn restored(restore: &StreamRestore, container_count: u16) -> Result<Self, RestoreError> {
        let count = restore.segments.len();
        if !(1..=RESTORED_SEGMENTS_MAX).contains(&count) {
            return Err(RestoreError::Count(count));
        }
        let mut epochs: BTreeMap<u32, Vec<SegmentRange>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for RestoredSegment { segment, container, range, .. } in restore.segments.iter().copied() {
            let ours = segment.stream == restore.stream && segment.number < NUMBERS_MAX;
            if !ours || container.0 >= container_count || !named.insert(segment) {
                return Err(RestoreError::Segment(segment));
            }
            epochs.entry(segment.epoch).or_default().push(SegmentRange { segment, container, range });
        }
        let mut graph = Self::first(restore.stream, Vec::new(), restore.created);
        graph.records.clear();
        for (epoch, mut created) in epochs {
            created.sort_unstable_by_key(|s| s.range);
            let ranges: Vec<KeyRange> = created.iter().map(|s| s.range).collect();
            joined(&ranges).ok_or(RestoreError::Overlap(epoch))?;
            let seal = graph.met_by(&created);
            graph.begin(&Scaling { epoch, seal, created });
            graph.open(epoch, restore.opened.get(&epoch).copied().unwrap_or(restore.created));
        }
        let present: Vec<KeyRange> = graph.present().map(|s| s.range).collect();
        if !KeyRange::cover_once(&present) {
            return Err(RestoreError::Cover);
        }
        graph.head = graph.beginning(restore)?;
        Ok(graph)
    }

    /// The present segments that share a key with one of these, by range.
    fn met_by(&self, created: &[SegmentRange]) -> Vec<SegmentId> {
        let mut met = BTreeMap::new();
        for begun in created {
            let after = self.present.range(begun.range.first..=begun.range.last);
            let before = self.present.range(..begun.range.first).next_back();
            for (first, there) in before.into_iter().chain(after).filter(|(_, there)| there.range.overlaps(begun.range))
            {
                met.insert(*first, there.segment);
            }
        }
        met.into_values().collect()
    }

    /// Where the stream begins: empty if it has everything that it ever had.
    fn beginning(&self, restore: &StreamRestore) -> Result<StreamCut, RestoreError> {
        let mut roots = BTreeMap::new();
        let mut ranges = Vec::new();
        for RestoredSegment { segment, range, start, .. } in &restore.segments {
            if self.nodes.get(segment).is_some_and(|node| node.predecessors.is_empty()) {
                roots.insert(*segment, *start);
                ranges.push(*range);
            } else if *start > 0 {
                return Err(RestoreError::Start(*segment));
            }
        }
        if !KeyRange::cover_once(&ranges) {
            return Err(RestoreError::Head);
        }
        let whole = roots.iter().all(|(segment, start)| segment.epoch == 0 && *start == 0);
        Ok(StreamCut(if whole { BTreeMap::new() } else { roots }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::{ContainerId, Timestamp};

    use super::*;

    fn restore_of(graph: &Graph) -> StreamRestore {
        let segments = graph.nodes(None).map(|node| RestoredSegment {
            segment: node.segment,
            container: node.container,
            range: node.range,
            start: graph.head().offset(node.segment),
        });
        StreamRestore {
            stream: graph.stream(),
            scope: "team".parse().unwrap(),
            index: "shop".parse().unwrap(),
            created: Timestamp::from_nanos(1),
            segments: segments.collect(),
            opened: graph.epochs(0).map(|record| (record.epoch, record.at)).collect(),
            sealed: false,
            retention_days: None,
            scaling: Default::default(),
            retention: None,
            tags: Vec::new(),
            encrypted: false,
        }
    }

    fn begun(segments: u32) -> Graph {
        let ranges = (0..).zip(KeyRange::split_evenly(segments)).map(|(number, range)| SegmentRange {
            segment: SegmentId { stream: 3, epoch: 0, number },
            container: ContainerId(1),
            range,
        });
        Graph::first(3, ranges.collect(), Timestamp::from_nanos(1))
    }

    /// Splits the segment at a place, or merges it with the next one, or both its neighbours into three.
    fn scale(graph: &mut Graph, place: usize, kind: u8) {
        let present: Vec<SegmentRange> = graph.present().copied().collect();
        let place = place % present.len();
        let ended = &present[place..(place + usize::from(kind % 3)).min(present.len() - 1) + 1];
        let (first, last) = (ended[0].range.first, ended[ended.len() - 1].range.last);
        let middle = first + (last - first) / 2;
        let ranges = match kind % 3 {
            _ if last - first < 8 => return,
            1 => vec![KeyRange { first, last }],
            _ => vec![KeyRange { first, last: middle }, KeyRange { first: middle + 1, last }],
        };
        let seal: Vec<SegmentId> = ended.iter().map(|s| s.segment).collect();
        let scaling = graph.plan(&seal, &ranges, |_, _| ContainerId(2)).unwrap();
        let at = Timestamp::from_nanos(i64::from(scaling.epoch) + 1);
        graph.begin(&scaling);
        graph.open(scaling.epoch, at);
    }

    proptest! {
        #[test]
        fn any_history_comes_back_from_epochs_and_ranges_alone(
            first in 1u32..5,
            scales in prop::collection::vec((0usize..50, 0u8..3), 0..12),
            cut in prop::option::of(0usize..12),
        ) {
            let mut graph = begun(first);
            for (n, (place, kind)) in scales.into_iter().enumerate() {
                scale(&mut graph, place, kind);
                if cut == Some(n) {
                    let head = graph.present().map(|s| (s.segment, 0));
                    let head = StreamCut(head.collect());
                    if let Some(head) = graph.plan_truncation(&head).unwrap() {
                        graph.truncate(&head);
                    }
                }
            }
            let back = Graph::restored(&restore_of(&graph), 8).unwrap();
            prop_assert_eq!((back.epoch, back.next_number), (graph.epoch, graph.next_number));
            prop_assert_eq!(back.nodes(None).collect::<Vec<_>>(), graph.nodes(None).collect::<Vec<_>>());
            prop_assert_eq!(back.present().collect::<Vec<_>>(), graph.present().collect::<Vec<_>>());
            prop_assert_eq!(back.head_cut(), graph.head_cut());
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let whole = restore_of(&begun(2));
        let change = |f: &dyn Fn(&mut StreamRestore)| {
            let mut changed = whole.clone();
            f(&mut changed);
            Graph::restored(&changed, 8).unwrap_err()
        };
        let first = whole.segments[0].segment;
        let later = SegmentId { epoch: 1, number: 2, ..first };
        assert_eq!(change(&|r| r.segments.clear()), RestoreError::Count(0));
        assert_eq!(change(&|r| r.segments[1] = r.segments[0]), RestoreError::Segment(first));
        assert_eq!(change(&|r| r.segments[0].container = ContainerId(8)), RestoreError::Segment(first));
        assert_eq!(change(&|r| r.segments[0].range.last += 1), RestoreError::Overlap(0));
        assert_eq!(change(&|r| r.segments.truncate(1)), RestoreError::Cover);
        let follow = |r: &mut StreamRestore, start| {
            r.segments.push(RestoredSegment { segment: later, start, ..r.segments[0] });
        };
        assert_eq!(change(&|r| follow(r, 5)), RestoreError::Start(later));
        assert_eq!(
            change(&|r| {
                follow(r, 0);
                r.segments[2].range.last -= 1;
            }),
            RestoreError::Cover,
            "what ends is followed for every key"
        );
    }
}
