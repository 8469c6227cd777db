//! Segments are begun after everything that they follow, each once, whatever was scaled, truncated or cut off meanwhile.

use proptest::prelude::*;
use types::ContainerId;

use super::*;

const MIDDLE: u64 = u64::MAX / 2;

fn id(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 1, epoch, number }
}

fn node(segment: SegmentId, (first, last): (u64, u64), predecessors: &[SegmentId]) -> SegmentNode {
    SegmentNode {
        segment,
        container: ContainerId(0),
        range: KeyRange { first, last },
        sealed_in: None,
        predecessors: predecessors.to_vec(),
        successors: Vec::new(),
    }
}

fn ids(ranges: &[SegmentRange]) -> Vec<SegmentId> {
    ranges.iter().map(|range| range.segment).collect()
}

fn cut(positions: &[(SegmentId, Offset)]) -> StreamCut {
    StreamCut(positions.iter().copied().collect())
}

/// Two segments, of which the first is split, and one half of it is merged with the second.
fn merged() -> Vec<SegmentNode> {
    let quarter = MIDDLE / 2;
    vec![
        node(id(0, 0), (0, MIDDLE), &[]),
        node(id(0, 1), (MIDDLE + 1, u64::MAX), &[]),
        node(id(1, 2), (0, quarter), &[id(0, 0)]),
        node(id(1, 3), (quarter + 1, MIDDLE), &[id(0, 0)]),
        node(id(2, 4), (quarter + 1, u64::MAX), &[id(0, 1), id(1, 3)]),
    ]
}

#[test]
fn a_merged_segment_waits_for_all_that_it_follows() {
    let nodes = merged();
    let (mut walk, arranged) = Walk::open(&nodes, &StreamCut::default()).unwrap();
    assert_eq!((ids(&arranged.begun), arranged.lost), (vec![id(0, 0), id(0, 1)], vec![]));
    walk.reached(id(0, 1), 7);
    assert_eq!(ids(&walk.ended(id(0, 1), &nodes[4..])), [], "the half of the first one was not even begun");
    assert_eq!(ids(&walk.ended(id(0, 0), &nodes[2..4])), [id(1, 2), id(1, 3)]);
    assert_eq!(walk.cut(), cut(&[(id(0, 1), 7), (id(1, 2), 0), (id(1, 3), 0)]), "what waits stays in the cut");
    assert_eq!(ids(&walk.ended(id(1, 3), &nodes[4..])), [id(2, 4)]);
    assert_eq!(walk.cut(), cut(&[(id(1, 2), 0), (id(2, 4), 0)]));
    // The stream is sealed whole.
    assert!(walk.ended(id(2, 4), &[]).is_empty());
    assert_eq!(walk.cut(), cut(&[(id(1, 2), 0), (id(2, 4), 0)]), "a tail may still be begun there");
}

#[test]
fn a_cut_is_gone_on_from_and_what_it_leaves_out_begins_where_it_can() {
    let nodes = merged();
    for (at, begun) in [
        (vec![], vec![id(0, 0), id(0, 1)]),
        (vec![(id(0, 0), 5)], vec![id(0, 0), id(0, 1)]),
        (vec![(id(0, 1), 5), (id(1, 2), 1), (id(1, 3), 1)], vec![id(0, 1), id(1, 2), id(1, 3)]),
        (vec![(id(1, 2), 1)], vec![id(1, 2), id(0, 1), id(1, 3)]),
        (vec![(id(1, 2), 1), (id(2, 4), 1)], vec![id(1, 2), id(2, 4)]),
        (vec![(id(2, 4), 1)], vec![id(2, 4), id(1, 2)]),
    ] {
        let (_, arranged) = Walk::open(&nodes, &cut(&at)).unwrap();
        assert_eq!((ids(&arranged.begun), arranged.lost), (begun, vec![]), "{at:?}");
    }
}

#[test]
fn what_was_truncated_is_told_and_its_successors_are_read() {
    let mut nodes = merged();
    nodes.drain(..2);
    nodes[0].predecessors.clear();
    nodes[1].predecessors.clear();
    nodes[2].predecessors = vec![id(1, 3)];
    let (mut walk, arranged) = Walk::open(&nodes, &cut(&[(id(0, 0), 5), (id(0, 1), 6)])).unwrap();
    assert_eq!(ids(&arranged.begun), [id(1, 2), id(1, 3)]);
    let lost: Vec<_> = arranged.lost.iter().map(|position| (position.segment, position.offset)).collect();
    assert_eq!(lost, [(id(0, 0), 5), (id(0, 1), 6)]);
    // Then also the one for which the last one waits.
    nodes.remove(1);
    nodes[1].predecessors.clear();
    walk.reached(id(1, 3), 9);
    let arranged = walk.arrange(&nodes).unwrap();
    assert_eq!(
        (ids(&arranged.begun), arranged.lost),
        (vec![id(2, 4)], vec![Position { segment: id(1, 3), offset: 9 }])
    );
    assert!(!walk.holds(id(1, 3)) && walk.holds(id(2, 4)));
}

#[test]
fn a_graph_with_a_hole_is_refused() {
    let nodes = [node(id(0, 0), (0, MIDDLE), &[])];
    assert_eq!(Walk::open(&nodes, &StreamCut::default()).map(|_| ()), Err(Gap));
    assert!(covers([KeyRange { first: 0, last: MIDDLE }, KeyRange { first: 5, last: u64::MAX }].into_iter()));
    assert!(!covers([KeyRange { first: 1, last: u64::MAX }].into_iter()));
    assert!(!covers([KeyRange { first: 0, last: 3 }, KeyRange { first: 5, last: u64::MAX }].into_iter()));
}

/// A stream that scales, and a tail of it.
struct Run {
    nodes: Vec<SegmentNode>,
    ends: BTreeMap<SegmentId, Offset>,
    open: Vec<SegmentRange>,
    epoch: u32,
    next_number: u32,
    walk: Walk,
    reading: BTreeSet<SegmentId>,
    seen: BTreeSet<(SegmentId, Offset)>,
    /// The last that was read of some keys.
    last: BTreeMap<u64, (SegmentId, Offset)>,
}

const SAMPLES: u64 = 16;

impl Run {
    fn new() -> Self {
        let nodes = vec![node(id(0, 0), (0, u64::MAX), &[])];
        let open = vec![nodes[0].segment_range()];
        let (walk, arranged) = Walk::open(&nodes, &StreamCut::default()).unwrap();
        let reading = ids(&arranged.begun).into_iter().collect();
        let (ends, seen, last) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { nodes, ends, open, epoch: 0, next_number: 1, walk, reading, seen, last }
    }

    fn end(&self, segment: SegmentId) -> Offset {
        self.ends.get(&segment).copied().unwrap_or(0)
    }

    fn append(&mut self, which: usize) {
        *self.ends.entry(self.open[which % self.open.len()].segment).or_insert(0) += 1;
    }

    /// Replaces some neighbours by others, whose borders need not be theirs.
    fn scale(&mut self, which: usize, count: usize, parts: u32) {
        let at = which % self.open.len();
        let ended: Vec<SegmentRange> = self.open[at..(at + count).min(self.open.len())].to_vec();
        let (first, last) = (ended[0].range.first, ended[ended.len() - 1].range.last);
        self.epoch += 1;
        let parts = u64::from(parts).min((last - first).saturating_add(1));
        let width = (last - first) / parts;
        let created: Vec<SegmentNode> = (0..parts)
            .map(|i| {
                let to = if i + 1 == parts { last } else { first + width * (i + 1) - 1 };
                let range = KeyRange { first: first + width * i, last: to };
                let before = ended.iter().filter(|segment| segment.range.overlaps(range));
                let predecessors: Vec<SegmentId> = before.map(|segment| segment.segment).collect();
                self.next_number += 1;
                node(id(self.epoch, self.next_number), (range.first, range.last), &predecessors)
            })
            .collect();
        for node in &mut self.nodes {
            if ended.iter().any(|segment| segment.segment == node.segment) {
                node.sealed_in = Some(self.epoch);
            }
        }
        self.open.splice(at..at + ended.len(), created.iter().map(SegmentNode::segment_range));
        self.nodes.extend(created);
    }

    /// Forgets everything that was sealed before an epoch.
    fn truncate(&mut self, epoch: u32) {
        self.nodes.retain(|node| node.sealed_in.is_none_or(|sealed| sealed > epoch));
        let listed: BTreeSet<SegmentId> = self.nodes.iter().map(|node| node.segment).collect();
        self.nodes.iter_mut().for_each(|node| node.predecessors.retain(|before| listed.contains(before)));
    }

    /// Reads one event, or the end, of one of the segments that are being read.
    fn read(&mut self, which: usize) {
        let Some(segment) = self.reading.iter().nth(which % self.reading.len().max(1)).copied() else { return };
        let Some(node) = self.nodes.iter().find(|node| node.segment == segment).cloned() else {
            self.reading.remove(&segment);
            let arranged = self.walk.arrange(&self.nodes).unwrap();
            self.reading.extend(ids(&arranged.begun));
            return;
        };
        let at = self.walk.offset(segment);
        if at < self.end(segment) {
            assert!(self.seen.insert((segment, at)), "{segment}:{at} was read twice");
            for sample in (0..SAMPLES).map(|i| i * (u64::MAX / (SAMPLES - 1))) {
                if node.range.contains(sample) {
                    let before = self.last.insert(sample, (segment, at));
                    assert!(before < Some((segment, at)), "{segment}:{at} was read after {before:?}");
                }
            }
            self.walk.reached(segment, at + 1);
        } else if node.sealed_in.is_some() {
            self.reading.remove(&segment);
            let follows = |node: &&SegmentNode| node.predecessors.contains(&segment);
            let successors: Vec<SegmentNode> = self.nodes.iter().filter(follows).cloned().collect();
            let mut begun = ids(&self.walk.ended(segment, &successors));
            if begun.is_empty() {
                begun = ids(&self.walk.arrange(&self.nodes).unwrap().begun);
            }
            self.reading.extend(begun);
        }
    }

    /// The reader goes, and comes back with the id of the last event.
    fn reopen(&mut self) {
        let (walk, arranged) = Walk::open(&self.nodes, &self.walk.cut()).unwrap();
        self.walk = walk;
        self.reading = ids(&arranged.begun).into_iter().collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_read_once_and_in_the_order_of_its_key(
        steps in prop::collection::vec((0u8..14, any::<u8>()), 1..300),
    ) {
        let mut run = Run::new();
        for (step, dice) in steps {
            let which = usize::from(dice);
            match step {
                0 => run.scale(which, 1, 2 + u32::from(dice % 2)),
                1 => run.scale(which, 2 + which % 2, 1 + u32::from(dice % 3)),
                2 if dice < 64 => run.truncate(run.epoch / 2),
                3 if dice < 128 => run.reopen(),
                4..=7 => run.append(which),
                _ => run.read(which),
            }
        }
        for round in 0..10_000 {
            run.read(round);
        }
        for node in &run.nodes {
            for at in 0..run.end(node.segment) {
                prop_assert!(run.seen.contains(&(node.segment, at)), "{}:{} was never read", node.segment, at);
            }
        }
        let open: BTreeSet<SegmentId> = run.open.iter().map(|segment| segment.segment).collect();
        prop_assert_eq!(&run.reading, &open);
        prop_assert_eq!(run.walk.cut().0.into_keys().collect::<BTreeSet<_>>(), open);
    }
}
