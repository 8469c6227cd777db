//! A group in a stream that scales, with readers that come, read, die and pass checkpoints, in any order.

use std::time::Duration;

use proptest::prelude::*;
use types::KeyRange;

use super::*;
use crate::group::checkpoint::Kind;

/// Events of each segment of the model.
const EVENTS: Offset = 5;
const READERS: u8 = 4;

fn now() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn seat(reader: u8) -> Seat {
    Seat { reader: format!("r{reader}").parse().unwrap(), session: u64::from(reader) + 1 }
}

#[derive(Debug, Clone)]
enum Op {
    Join(u8),
    Acquire(u8),
    Release(u8),
    /// Reads so many events of the reader's segment of this number.
    Read(u8, u8, u64),
    Complete(u8, u8),
    Report(u8),
    /// Dies; its position is known, or it is not.
    Offline(u8, bool),
    Checkpoint(u8),
    Pass(u8),
    /// Splits (or merges) at a present segment.
    Scale(u8, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let reader = || 0..READERS;
    prop_oneof![
        2 => reader().prop_map(Op::Join),
        4 => reader().prop_map(Op::Acquire),
        2 => reader().prop_map(Op::Release),
        8 => (reader(), 0..4u8, 1..4u64).prop_map(|(r, s, n)| Op::Read(r, s, n)),
        6 => (reader(), 0..4u8).prop_map(|(r, s)| Op::Complete(r, s)),
        1 => reader().prop_map(Op::Report),
        1 => (reader(), any::<bool>()).prop_map(|(r, known)| Op::Offline(r, known)),
        1 => (0..3u8).prop_map(Op::Checkpoint),
        3 => reader().prop_map(Op::Pass),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(at, merge)| Op::Scale(at, merge)),
    ]
}

/// The stream as it is, and what the readers did.
struct Model {
    state: GroupState,
    nodes: BTreeMap<SegmentId, SegmentNode>,
    present: Vec<SegmentId>,
    epoch: u32,
    /// What each living reader has read of its segments.
    positions: BTreeMap<u8, BTreeMap<SegmentId, Offset>>,
    /// The next offset of each segment that nobody was given, but for what a dead reader may have taken along.
    given: BTreeMap<SegmentId, Offset>,
    /// Where each segment was when its reader passed a checkpoint, or when it began without one.
    expected: BTreeMap<u64, BTreeMap<SegmentId, Offset>>,
}

impl Model {
    fn new(count: u32) -> Self {
        let ranges = KeyRange::split_evenly(count);
        let id = |number| SegmentId { stream: 1, epoch: 0, number };
        let node = |(number, range): (u32, &KeyRange)| SegmentNode {
            segment: id(number),
            container: ContainerId(0),
            range: *range,
            sealed_in: None,
            predecessors: vec![],
            successors: vec![],
        };
        let nodes: BTreeMap<_, _> = (0..).zip(&ranges).map(node).map(|node| (node.segment, node)).collect();
        let start = nodes.keys().map(|s| (SegmentPlace { segment: *s, container: ContainerId(0) }, 0)).collect();
        let setup = Setup {
            generation: 1,
            indexes: [(1, "shop".parse().unwrap())].into(),
            checkpoint_ms: 0,
            reports: false,
            start,
            ends: BTreeMap::new(),
            now: now(),
        };
        let present = nodes.keys().copied().collect();
        let state = GroupState::new(setup).unwrap();
        let (positions, given, expected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { state, nodes, present, epoch: 0, positions, given, expected }
    }

    fn positions(&self, reader: u8) -> BTreeMap<SegmentId, Offset> {
        self.positions.get(&reader).cloned().unwrap_or_default()
    }

    /// A reader looks at the document, as the driver does after each change.
    fn look(&mut self, reader: u8) {
        let Some(held) = self.state.held(&seat(reader)) else {
            self.positions.remove(&reader);
            return;
        };
        let known = self.positions.remove(&reader).unwrap_or_default();
        let now = held.iter().map(|(s, place)| (*s, known.get(s).copied().unwrap_or(place.offset)));
        self.positions.insert(reader, now.collect());
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join(r) => drop(self.state.join(&seat(r), now())),
            Op::Acquire(r) => drop(self.state.acquire(&seat(r))),
            Op::Release(r) => drop(self.state.release(&seat(r), &self.positions(r), now())),
            Op::Read(r, at, count) => self.read(r, at, count),
            Op::Complete(r, at) => self.complete(r, at),
            Op::Report(r) => drop(self.state.report(&seat(r), &self.positions(r), now())),
            Op::Offline(r, known) => self.offline(r, known),
            Op::Checkpoint(name) => {
                let free: BTreeMap<_, _> = self.state.unassigned.iter().map(|(s, p)| (*s, p.offset)).collect();
                if let Ok(number) = self.state.begin_checkpoint(&format!("c{name}"), Kind::Asked, now()) {
                    self.expected.insert(number, free.into_iter().chain(self.state.frontier.ends()).collect());
                }
            }
            Op::Pass(r) => {
                let Some(number) = self.state.pending(&seat(r)).map(|c| c.number) else { return };
                let positions = self.positions(r);
                self.state.pass(&seat(r), number, &positions, now()).unwrap();
                self.expected.get_mut(&number).unwrap().extend(positions);
            }
            Op::Scale(at, merge) => self.scale(at, merge),
        }
        (0..READERS).for_each(|r| self.look(r));
    }

    fn read(&mut self, r: u8, at: u8, count: u64) {
        // A reader hands out a checkpoint before any further event.
        if self.state.pending(&seat(r)).is_some() {
            return;
        }
        let segment = self.positions(r).keys().nth(usize::from(at)).copied();
        let Some(segment) = segment else { return };
        for before in &self.nodes[&segment].predecessors {
            assert_eq!(self.given.get(before), Some(&EVENTS), "{segment} is read before the end of {before}");
        }
        let offset = self.positions.get_mut(&r).unwrap().get_mut(&segment).unwrap();
        let given = self.given.entry(segment).or_insert(0);
        assert_eq!(*offset, *given, "{segment}: a gap or a repeat");
        *offset = (*offset + count).min(EVENTS);
        *given = *offset;
    }

    fn complete(&mut self, r: u8, at: u8) {
        let ended = |(s, o): &(&SegmentId, &Offset)| **o == EVENTS && !self.nodes[s].successors.is_empty();
        let positions = self.positions(r);
        let Some((segment, _)) = positions.iter().filter(ended).nth(usize::from(at)) else { return };
        let node = &self.nodes[segment];
        let successors: Vec<_> = node.successors.iter().map(|s| self.nodes[s].clone()).collect();
        self.state.complete(&seat(r), *segment, EVENTS, &successors).ok();
    }

    fn offline(&mut self, r: u8, known: bool) {
        let positions = self.positions(r);
        let passing: Vec<u64> = self.state.checkpoints_needing(&seat(r).reader);
        let told = self.state.held(&seat(r)).cloned().unwrap_or_default();
        self.state.offline(&seat(r).reader, known.then_some(&positions));
        for (segment, place) in told {
            let offset = if known { positions[&segment] } else { place.offset };
            for number in &passing {
                self.expected.get_mut(number).unwrap().insert(segment, offset);
            }
            // Only here an event may be given to two readers: what the dead one read and did not tell.
            self.given.insert(segment, offset);
        }
    }

    fn scale(&mut self, at: u8, merge: bool) {
        if self.epoch >= 12 {
            return;
        }
        let at = usize::from(at) % self.present.len();
        let sealed: Vec<SegmentId> = self.present[at..].iter().take(if merge { 2 } else { 1 }).copied().collect();
        let (first, last) = (self.nodes[&sealed[0]].range.first, self.nodes[&sealed[sealed.len() - 1]].range.last);
        let middle = first + (last - first) / 3;
        let ranges = match (merge, sealed.len()) {
            (true, 2) if self.epoch.is_multiple_of(2) => vec![KeyRange { first, last }],
            _ => vec![KeyRange { first, last: middle }, KeyRange { first: middle + 1, last }],
        };
        self.epoch += 1;
        let next = u32::try_from(self.nodes.len()).unwrap();
        let mut created = Vec::new();
        for (number, range) in (next..).zip(ranges) {
            let segment = SegmentId { stream: 1, epoch: self.epoch, number };
            let before = sealed.iter().filter(|s| self.nodes[s].range.overlaps(range));
            let predecessors: Vec<SegmentId> = before.copied().collect();
            for p in &predecessors {
                self.nodes.get_mut(p).unwrap().successors.push(segment);
            }
            let (container, sealed_in, successors) = (ContainerId(1), None, vec![]);
            self.nodes.insert(segment, SegmentNode { segment, container, range, sealed_in, predecessors, successors });
            created.push(segment);
        }
        self.present.splice(at..at + sealed.len(), created);
    }

    fn check(&self) {
        let held = self.state.readers.values().flat_map(|m| m.segments.keys());
        let all: Vec<SegmentId> = held.chain(self.state.unassigned.keys()).copied().collect();
        let once: BTreeSet<SegmentId> = all.iter().copied().collect();
        assert_eq!(all.len(), once.len(), "a segment is at one place");
        let graph = SegmentGraph::new(self.nodes.values().cloned());
        assert_eq!(graph.check(&self.state.cut(1)), Ok(()));
        for (number, expected) in &self.expected {
            if let Some(cuts) = self.state.checkpoint_cuts(*number) {
                let cut = &cuts[&"shop".parse().unwrap()];
                assert_eq!((graph.check(cut), &cut.0), (Ok(()), expected), "checkpoint {number}");
            }
        }
        for reader in self.state.readers.keys() {
            assert!(self.state.share(reader) != Share::Take(0) && self.state.share(reader) != Share::Give(0));
        }
    }

    /// The state without the times at which readers spoke: those change for ever.
    fn still(&self) -> GroupState {
        let mut state = self.state.clone();
        state.readers.values_mut().for_each(|member| member.last_seen = Timestamp::default());
        state
    }

    /// Everybody who lives does what a driver does, until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..400 {
            let before = (self.still(), self.positions.clone());
            for r in 0..READERS {
                self.apply(Op::Pass(r));
                self.apply(Op::Release(r));
                self.apply(Op::Acquire(r));
                for at in 0..40 {
                    self.apply(Op::Read(r, at, EVENTS));
                }
                self.apply(Op::Complete(r, 0));
            }
            self.check();
            if before == (self.still(), self.positions.clone()) {
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.state);
    }
}

impl GroupState {
    fn checkpoints_needing(&self, reader: &ReaderId) -> Vec<u64> {
        let session = self.readers.get(reader).map_or(0, |m| m.session);
        let seat = Seat { reader: reader.clone(), session };
        let mut rest = self.clone();
        let mut found = Vec::new();
        while let Some(number) = rest.pending(&seat).map(|c| c.number) {
            found.push(number);
            rest.pass(&seat, number, &BTreeMap::new(), now()).unwrap();
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The invariants hold after every step; at rest everything was read, once, in order, and the readers have equal shares.
    #[test]
    fn every_event_goes_to_one_reader_in_order(count in 1..5u32, ops in proptest::collection::vec(op(), 1..120)) {
        let mut model = Model::new(count);
        for op in ops {
            model.apply(op);
            model.check();
        }
        if model.state.readers.is_empty() {
            model.apply(Op::Join(0));
        }
        model.settle();
        let present: BTreeMap<SegmentId, Offset> = model.present.iter().map(|s| (*s, EVENTS)).collect();
        prop_assert!(model.nodes.keys().all(|s| model.given.get(s) == Some(&EVENTS)), "{:?}", model.given);
        let held = model.state.readers.values().map(|m| m.segments.len());
        let (least, most) = (held.clone().min().unwrap(), held.max().unwrap());
        prop_assert!(most - least <= 1 && model.state.unassigned.is_empty());
        prop_assert!(model.state.checkpoints.is_empty());
        let mut told = model.state.clone();
        for r in 0..READERS {
            told.report(&seat(r), &model.positions(r), now()).ok();
        }
        prop_assert_eq!(told.cut(1).0, present);
    }
}

#[test]
fn a_full_document_with_every_checkpoint_fits_into_a_message() {
    let id = |number: usize| SegmentId {
        stream: u32::MAX,
        epoch: u32::MAX,
        number: u32::MAX - u32::try_from(number).unwrap(),
    };
    let place = |number| SegmentPlace { segment: id(number), container: ContainerId(u16::MAX) };
    let setup = |count: usize| Setup {
        generation: u64::MAX,
        indexes: [(u32::MAX, "x".repeat(63).parse().unwrap())].into(),
        checkpoint_ms: 1,
        reports: true,
        start: (0..count).map(|n| (place(n), u64::MAX)).collect(),
        ends: BTreeMap::new(),
        now: now(),
    };
    assert_eq!(GroupState::new(setup(GROUP_SEGMENTS_MAX + 1)), Err(GroupError::TooManySegments));
    let mut state = GroupState::new(setup(GROUP_SEGMENTS_MAX)).unwrap();
    for n in 0..8 {
        state.begin_checkpoint(&format!("c{n}"), Kind::Asked, now()).unwrap();
    }
    let reader = |n: usize| Seat { reader: format!("{n:0>128}").parse().unwrap(), session: u64::MAX };
    for n in 0..GROUP_READERS_MAX {
        state.join(&reader(n), now()).unwrap();
        state.acquire(&reader(n)).unwrap();
    }
    assert_eq!(state.join(&reader(999), now()), Err(GroupError::TooManyReaders));
    for n in 0..super::super::CHECKPOINTS_MAX {
        state.begin_checkpoint(&format!("d{n}"), Kind::Asked, now()).unwrap();
        for r in 1..GROUP_READERS_MAX {
            state.pass(&reader(r), state.last_checkpoint, &BTreeMap::new(), now()).unwrap();
        }
    }
    assert_eq!(state.begin_checkpoint("e", Kind::Asked, now()), Err(GroupError::TooManyCheckpoints));
    let bytes = wire::encode(&state).len();
    // A reader that passes nothing adds its name to each checkpoint.
    let names = GROUP_READERS_MAX * super::super::CHECKPOINTS_MAX * 130;
    assert!((800_000..super::super::GROUP_BYTES_MAX - names).contains(&bytes), "{bytes}");
    assert_eq!(wire::decode::<GroupState>(&wire::encode(&state)), Ok(state));
}

#[test]
fn a_dead_reader_is_told_from_one_that_took_its_name() {
    let mut model = Model::new(2);
    let (old, new) = (seat(0), Seat { session: 99, ..seat(0) });
    model.state.join(&old, now()).unwrap();
    assert_eq!(model.state.join(&new, now()), Err(GroupError::ReaderExists(new.reader.clone())));
    assert_eq!(model.state.silent_since(now()), []);
    assert_eq!(model.state.silent_since(now() + Duration::from_secs(1)), std::slice::from_ref(&old.reader));
    assert!(model.state.offline(&old.reader, None) && !model.state.offline(&old.reader, None));
    model.state.join(&new, now()).unwrap();
    model.state.acquire(&new).unwrap();
    let offline = Err(GroupError::ReaderOffline(old.reader.clone()));
    assert_eq!(model.state.report(&old, &BTreeMap::new(), now()), offline);
    assert_eq!(model.state.complete(&old, model.present[0], 0, &[]), offline);
    assert_eq!((model.state.held(&old), model.state.held(&new).unwrap().len()), (None, 2));
}

#[test]
fn a_bounded_group_stops_at_its_ends_and_a_later_head_is_taken_over() {
    let graph = crate::testing::graph();
    let at = |epoch, number| crate::testing::segment(epoch, number);
    let place = |epoch, number| graph.place(at(epoch, number)).unwrap();
    let setup = Setup {
        generation: 1,
        indexes: [(1, "shop".parse().unwrap())].into(),
        checkpoint_ms: 0,
        reports: false,
        start: vec![(place(0, 0), 3), (place(0, 1), 0), (place(0, 2), 0)],
        ends: [(at(1, 3), 5), (at(0, 2), 0)].into(),
        now: now(),
    };
    let mut state = GroupState::new(setup).unwrap();
    state.join(&seat(0), now()).unwrap();
    state.acquire(&seat(0)).unwrap();
    assert_eq!(state.held(&seat(0)).unwrap().len(), 2, "of 0-2 nothing is to be read");

    let mut skipped = state.clone();
    let head = StreamCut([(at(1, 3), 2), (at(0, 2), 0)].into());
    assert_eq!(skipped.rebase(1, &graph, &head), Ok(true));
    assert_eq!(skipped.rebase(1, &graph, &head), Ok(false));
    assert_eq!(skipped.cut(1), head);
    skipped.acquire(&seat(0)).unwrap();
    skipped.complete(&seat(0), at(1, 3), 5, &[]).unwrap();
    assert!(skipped.is_finished());
    let behind = StreamCut([(at(2, 4), 1), (at(2, 5), 0), (at(0, 2), 7)].into());
    assert_eq!(skipped.rebase(1, &graph, &behind), Ok(true));
    assert!(skipped.is_finished(), "the head lies behind the end");

    let nodes = [graph.node(at(1, 3)).unwrap().clone()];
    state.complete(&seat(0), at(0, 0), 9, &nodes).unwrap();
    state.complete(&seat(0), at(0, 1), 9, &nodes).unwrap();
    state.acquire(&seat(0)).unwrap();
    assert_eq!(state.cut(1).offset(at(1, 3)), 0);
    assert!(!state.is_finished());
    state.complete(&seat(0), at(1, 3), 5, &[]).unwrap();
    assert!(state.is_finished());
    graph.check(&state.cut(1)).unwrap();
}
