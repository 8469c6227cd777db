//! A writer against segments that are sealed, split and merged at any moment, and that may cut an append in two.
//!
//! Whatever happens, and from whichever checkpoint a new attempt begins with whatever batches: every row is stored exactly
//! once, and those of a key in their order. The same seed gives the same run.

use std::cell::RefCell;

use types::{ContainerId, hash64};

use super::*;

const ROWS: u64 = 120;
/// Rows of a block; a segment may be sealed between two blocks of one append.
const BLOCK: usize = 3;
const SEGMENTS_MAX: usize = 40;

/// A seeded generator; the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash64(&self.0.to_le_bytes()) % sides
    }
}

struct Stored {
    node: SegmentNode,
    sealed: bool,
    /// The writer's last number.
    last: u64,
    rows: Vec<u64>,
}

struct World {
    dice: Dice,
    segments: BTreeMap<SegmentId, Stored>,
    epoch: u32,
    /// Calls until the attempt breaks; the last one may have had its effect.
    calls: u64,
}

/// The segments as the writer's calls see them.
struct Store(RefCell<World>);

fn broken() -> TaskError {
    TaskError::Plan("the attempt breaks".to_owned())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self { dice: Dice(seed), segments: BTreeMap::new(), epoch: 0, calls: u64::MAX };
        for range in KeyRange::split_evenly(3) {
            world.create(range, &[]);
        }
        world
    }

    fn create(&mut self, range: KeyRange, before: &[SegmentId]) {
        let overlapping = before.iter().filter(|s| self.segments[s].node.range.overlaps(range));
        let predecessors: Vec<SegmentId> = overlapping.copied().collect();
        let number = u32::try_from(self.segments.len()).unwrap();
        let segment = SegmentId { stream: 1, epoch: self.epoch, number };
        let last = predecessors.iter().map(|s| self.segments[s].last).max().unwrap_or(0);
        for before in &predecessors {
            self.segments.get_mut(before).unwrap().node.successors.push(segment);
        }
        let (container, sealed_in, successors) = (ContainerId(0), None, Vec::new());
        let node = SegmentNode { segment, container, range, sealed_in, predecessors, successors };
        self.segments.insert(segment, Stored { node, sealed: false, last, rows: Vec::new() });
    }

    fn present(&self) -> Vec<SegmentRange> {
        let open = self.segments.values().filter(|s| s.node.successors.is_empty());
        let mut open: Vec<SegmentRange> = open.map(|s| s.node.segment_range()).collect();
        open.sort_unstable_by_key(|s| s.range);
        open
    }

    /// Now and then replaces up to three neighbours by up to three others.
    fn may_scale(&mut self, one_in: u64) {
        if self.segments.len() >= SEGMENTS_MAX || self.dice.roll(one_in) > 0 {
            return;
        }
        let present = self.present();
        let from = usize::try_from(self.dice.roll(u64::try_from(present.len()).unwrap())).unwrap();
        let count = usize::try_from(1 + self.dice.roll(3)).unwrap();
        let ended: Vec<SegmentRange> = present.into_iter().skip(from).take(count).collect();
        let names: Vec<SegmentId> = ended.iter().map(|s| s.segment).collect();
        for name in &names {
            self.segments.get_mut(name).unwrap().sealed = true;
        }
        let whole = KeyRange { first: ended[0].range.first, last: ended[ended.len() - 1].range.last };
        self.epoch += 1;
        let parts = 1 + self.dice.roll(3);
        let step = (whole.last - whole.first) / parts;
        for part in 0..parts {
            let first = whole.first + part * step;
            let last = if part + 1 == parts { whole.last } else { first + step - 1 };
            self.create(KeyRange { first, last }, &names);
        }
    }

    fn call(&mut self) -> Result<(), TaskError> {
        self.may_scale(8);
        self.calls = self.calls.checked_sub(1).ok_or_else(broken)?;
        Ok(())
    }

    fn block(&mut self, segment: SegmentId, first: u64, events: &[Bytes]) -> Option<u64> {
        let stored = self.segments.get_mut(&segment).unwrap();
        assert!(first <= stored.last + 1, "a gap: {first} behind {} of {segment}", stored.last);
        let new = events.iter().zip(first..).filter(|(_, number)| *number > stored.last).map(|(event, _)| row(event));
        let new: Vec<u64> = new.collect();
        if stored.sealed && !new.is_empty() {
            return None;
        }
        stored.last += rows(new.len());
        stored.rows.extend(&new);
        Some(rows(events.len() - new.len()))
    }

    fn graph(&self) -> SegmentGraph {
        SegmentGraph::new(self.segments.values().map(|s| s.node.clone()))
    }
}

fn row(event: &Bytes) -> u64 {
    std::str::from_utf8(event).unwrap().parse().unwrap()
}

/// Rows of few keys, so that each has an order to lose.
fn hash(row: u64) -> u64 {
    hash64(&(hash64(&row.to_le_bytes()) % 12).to_le_bytes())
}

impl Segments for Store {
    async fn append(&self, segment: SegmentRange, first: u64, events: &[Bytes]) -> Result<Option<u64>, TaskError> {
        let mut world = self.0.borrow_mut();
        let (mut known, mut next) = (0, first);
        for block in events.chunks(BLOCK) {
            world.call()?;
            match world.block(segment.segment, next, block) {
                Some(repeated) => known += repeated,
                None => return Ok(None),
            }
            next += rows(block.len());
        }
        Ok(Some(known))
    }

    async fn last(&self, segment: SegmentRange) -> Result<u64, TaskError> {
        let mut world = self.0.borrow_mut();
        world.call()?;
        let stored = &world.segments[&segment.segment];
        assert!(stored.sealed, "what an open segment holds says nothing: {}", segment.segment);
        Ok(stored.last)
    }

    async fn behind(&self, sealed: SegmentId) -> Result<SegmentGraph, TaskError> {
        let mut world = self.0.borrow_mut();
        world.call()?;
        assert!(world.segments[&sealed].sealed);
        Ok(world.graph())
    }
}

/// One attempt from a checkpoint: rows in batches of any size, checkpoints between them, until it ends or breaks.
///
/// Later attempts get more calls, so that a run comes to its end however far it is thrown back.
fn attempt(store: &Store, checkpoints: &mut Vec<(u64, Numbers)>, number: u64) -> bool {
    let from = {
        let mut world = store.0.borrow_mut();
        let count = u64::try_from(checkpoints.len()).unwrap();
        let back = if world.dice.roll(2) == 0 { 0 } else { world.dice.roll(count) };
        world.calls = 5 + world.dice.roll(100 + 10 * number);
        usize::try_from(count - 1 - back).unwrap()
    };
    checkpoints.truncate(from + 1);
    let (mut next, numbers) = checkpoints[from].clone();
    let (graph, present) = (store.0.borrow().graph(), store.0.borrow().present());
    let work = async {
        let mut targets = Targets::restore(store, &numbers, &graph, &present, false).await?;
        while next < ROWS {
            let size = 1 + store.0.borrow_mut().dice.roll(12);
            let batch: Vec<u64> = (next..ROWS.min(next + size)).collect();
            next += rows(batch.len());
            targets.append(store, batch.into_iter().map(|row| (hash(row), Bytes::from(row.to_string())))).await?;
            if store.0.borrow_mut().dice.roll(3) == 0 {
                checkpoints.push((next, targets.numbers()));
            }
        }
        Ok::<(), TaskError>(())
    };
    futures::executor::block_on(work).is_ok()
}

/// How many epochs and attempts a run had.
fn run(seed: u64) -> (u32, u32) {
    let store = Store(RefCell::new(World::new(seed)));
    let first = store.0.borrow().present().iter().map(|s| (s.segment, 0)).collect();
    let mut checkpoints = vec![(0, first)];
    let mut attempts = 1;
    while !attempt(&store, &mut checkpoints, u64::from(attempts)) {
        attempts += 1;
        assert!(attempts < 1_000, "seed {seed}: no attempt comes to an end");
    }
    let world = store.0.into_inner();
    let mut found: Vec<u64> = world.segments.values().flat_map(|s| s.rows.iter().copied()).collect();
    let mut of_keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    // By epoch, and in a segment by offset: the order in which a key is read.
    found.iter().for_each(|row| of_keys.entry(hash(*row)).or_default().push(*row));
    for (key, rows) in of_keys {
        assert!(rows.is_sorted(), "seed {seed}: key {key:x} has {rows:?}");
    }
    found.sort_unstable();
    assert_eq!(found, (0..ROWS).collect::<Vec<_>>(), "seed {seed}");
    (world.epoch, attempts)
}

#[test]
fn every_row_is_stored_once_and_in_order_whatever_is_scaled_and_repeated() {
    let runs: Vec<(u32, u32)> = (0..3_000).map(run).collect();
    let (epochs, attempts) = runs.iter().fold((0, 0), |(e, a), (epochs, attempts)| (e + epochs, a + attempts));
    assert!(epochs > 15_000 && attempts > 6_000, "{epochs} epochs and {attempts} attempts try too little");
    assert_eq!(run(7), run(7), "the same seed gives the same run");
}

fn range(first: u64, last: u64) -> KeyRange {
    KeyRange { first, last }
}

fn named(epoch: u32, number: u32, range: KeyRange) -> SegmentRange {
    SegmentRange { segment: SegmentId { stream: 1, epoch, number }, container: ContainerId(0), range }
}

#[test]
fn what_is_missing_is_replaced_together_with_what_would_share_its_keys() {
    let half = u64::MAX / 2;
    let (left, right) = (named(0, 0, range(0, half)), named(0, 1, range(half + 1, u64::MAX)));
    let of = |targets: &Targets| targets.0.keys().map(|s| s.number).collect::<Vec<_>>();
    let numbers = |segments: Vec<SegmentRange>| segments.iter().map(|s| s.segment.number).collect::<Vec<_>>();
    // Only the right half is missing, and present in two parts.
    let quarter = half + half / 2;
    let parts = [left, named(1, 2, range(half + 1, quarter)), named(1, 3, range(quarter + 1, u64::MAX))];
    let (kept, replacing) = Targets::counting([(left, 5)]).without_gaps(&parts);
    assert_eq!((of(&kept), numbers(replacing)), (vec![0], vec![2, 3]));
    // Its keys are now in one segment with those of the left half.
    let (kept, replacing) = Targets::counting([(left, 5)]).without_gaps(&[named(1, 2, range(0, u64::MAX))]);
    assert_eq!((of(&kept), numbers(replacing)), (vec![], vec![2]));
    // Nothing is missing, though one follows another.
    let whole = [(left, 5), (right, 2), (named(1, 2, range(0, half)), 9)];
    let (kept, replacing) = Targets::counting(whole).without_gaps(&parts);
    assert_eq!((of(&kept), numbers(replacing)), (vec![0, 1, 2], vec![]));
}

#[test]
fn gaps_are_what_no_range_holds() {
    for (ranges, wanted) in [
        (vec![], vec![range(0, u64::MAX)]),
        (vec![range(0, u64::MAX), range(3, 4)], vec![]),
        (vec![range(10, 20), range(0, 4), range(12, 15)], vec![range(5, 9), range(21, u64::MAX)]),
        (vec![range(5, u64::MAX)], vec![range(0, 4)]),
    ] {
        assert_eq!(uncovered(ranges.iter().copied()), wanted, "{ranges:?}");
    }
}
