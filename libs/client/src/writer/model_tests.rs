//! The plan against containers that lose, repeat and reorder everything, while segments split and merge.
//!
//! Whatever happens: every event that was taken is stored exactly once, those of a key in order through all epochs, and an
//! acknowledgement tells the truth. When faults stop, everything is acknowledged. The same seed gives the same run. Only where a
//! sealed segment is deleted before it could answer for a block, that block is told to be of unknown outcome.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    rc::Rc,
    time::Duration,
};

use proptest::prelude::*;
use types::{ContainerId, KeyRange, Offset, SegmentId, Timestamp, hash64};
use wire::{
    Code, Outcome, Problem,
    block::Block,
    coordinator::SegmentRange,
    segment_store::{Appended, SegmentPlace},
};

use super::super::{
    block::{Contents, Fate},
    plan::{Action, Kind, Limits, Plan, Push, Source},
};
use crate::{
    error::{WriteCause, WriteError},
    spill::{Label, Left, Part, newest_epoch, part_of},
};

/// What each event learned, by its place.
type Learned = Rc<RefCell<BTreeMap<u32, Result<Option<(SegmentId, Offset)>, WriteError>>>>;

#[derive(Debug, Clone, Default)]
struct Seen(Learned);

impl Fate for Seen {
    fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
    fn stored(&self, first: u32, segment: SegmentId, count: u32, offsets: &[Option<Offset>]) {
        for n in 0..count {
            let at = offsets.get(n as usize).copied().flatten().map(|offset| (segment, offset));
            assert!(self.0.borrow_mut().insert(first + n, Ok(at)).is_none(), "acknowledged twice");
        }
    }
    fn failed(&self, first: u32, count: u32, error: &WriteError) {
        for n in 0..count {
            assert!(self.0.borrow_mut().insert(first + n, Err(error.clone())).is_none(), "told twice");
        }
    }
}

/// A container's view of one segment.
#[derive(Debug, Default)]
struct Segment {
    range: Option<KeyRange>,
    sealed: bool,
    /// Deleted: it answers nothing any more, but what it had was stored.
    gone: bool,
    last: u64,
    /// Numbers of events by offset.
    events: Vec<u32>,
    /// Event number to offset.
    offsets: BTreeMap<u64, Offset>,
}

/// A message on its way, or an answer.
#[derive(Debug, Clone)]
enum Flying {
    Request(Action),
    /// A block for whose answer nobody waits any more.
    Stray(SegmentId, u64, Contents),
    Described(SegmentId, Result<u64, Problem>),
    Appended((SegmentId, u64, u64), Result<Appended, Problem>),
    View((u32, u32), Vec<SegmentRange>),
    NoView,
    Spilled((SegmentId, u64, u64), usize, Result<(), String>),
    Divided((SegmentId, u64, u64), Vec<Part>),
}

/// A seeded generator; the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash64(&self.0.to_le_bytes()) % sides
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

struct World {
    dice: Dice,
    plan: Plan<Seen>,
    now: Duration,
    faults: bool,
    /// Sealed segments are deleted now and then.
    truncates: bool,
    /// The program is killed now and then; only one that has one block of a segment under way may have files.
    crashing: bool,
    segments: BTreeMap<SegmentId, Segment>,
    present: Vec<SegmentRange>,
    epoch: u32,
    /// The epoch that the coordinator tells; it lags behind.
    told: (u32, Vec<SegmentRange>),
    number: u32,
    /// The plan said, or an answer means, that there is something to do; else it is left alone until then.
    due: bool,
    wake_at: Option<Duration>,
    flying: Vec<Flying>,
    spilled: BTreeMap<u64, (Label, Contents)>,
    /// Events that were in memory when the program died: nobody was told of them, and they may be gone.
    lost: BTreeSet<u32>,
    written: Vec<(u64, Seen, u32)>,
    log: String,
}

fn lost() -> Problem {
    Problem::new(Code::Deadline, "Deadline", "no answer").unknown()
}

fn gone() -> Problem {
    Problem::not_found("UnknownSegment", "deleted")
}

fn busy() -> Problem {
    Problem::throttled("Throttled", "busy")
}

const KEYS: u64 = 12;

impl World {
    fn new(seed: u64, in_flight_max: usize, (spill, truncates): (bool, bool)) -> Self {
        let limits = Limits {
            bytes_max: 1_500,
            spill_bytes_max: if spill { 6_000 } else { 0 },
            linger: Duration::from_millis(1),
            block_bytes_max: 300,
            in_flight_max,
            give_up_after: Duration::from_secs(1 << 30),
            spill_after: Duration::from_millis(200),
        };
        let plan = Plan::new("shop".parse().unwrap(), "w".parse().unwrap(), Kind::Stream, limits);
        let mut world = Self {
            dice: Dice(seed),
            plan,
            now: Duration::ZERO,
            faults: true,
            truncates,
            crashing: spill && in_flight_max == 1,
            segments: BTreeMap::new(),
            present: vec![],
            epoch: 0,
            told: (0, vec![]),
            number: 0,
            due: true,
            wake_at: None,
            flying: vec![],
            spilled: BTreeMap::new(),
            lost: BTreeSet::new(),
            written: vec![],
            log: String::new(),
        };
        for range in KeyRange::split_evenly(3) {
            world.create(range, 0);
        }
        world.told = (0, world.present.clone());
        world.plan.view((1, 0), world.present.clone(), false, Duration::ZERO);
        world
    }

    fn create(&mut self, range: KeyRange, last: u64) {
        let segment = SegmentId { stream: 1, epoch: self.epoch, number: self.number };
        self.number += 1;
        self.segments.insert(segment, Segment { range: Some(range), last, ..Segment::default() });
        self.present.push(SegmentRange { segment, container: ContainerId(0), range });
    }

    /// Seals one segment and splits it, or two neighbours and merges them.
    fn scale(&mut self) {
        self.present.sort_by_key(|place| place.range);
        let at = usize::try_from(self.dice.roll(self.present.len() as u64)).unwrap();
        let merge = at + 1 < self.present.len() && self.dice.one_in(2);
        let ended: Vec<_> = self.present.drain(at..=at + usize::from(merge)).collect();
        let mut last = 0;
        for place in &ended {
            let segment = self.segments.get_mut(&place.segment).unwrap();
            segment.sealed = true;
            last = last.max(segment.last);
        }
        let (first, end) = (ended[0].range.first, ended[ended.len() - 1].range.last);
        self.epoch += 1;
        if merge || end - first < 4 {
            self.create(KeyRange { first, last: end }, last);
        } else {
            let middle = first + (end - first) / 2;
            self.create(KeyRange { first, last: middle }, last);
            self.create(KeyRange { first: middle + 1, last: end }, last);
        }
        writeln!(self.log, "epoch {} of {:?}", self.epoch, self.present.len()).unwrap();
    }

    /// Deletes a sealed segment, as the truncation of a stream does.
    fn truncate(&mut self) {
        let mut sealed: Vec<_> = self.segments.values_mut().filter(|segment| segment.sealed).collect();
        if !sealed.is_empty() {
            let at = usize::try_from(self.dice.roll(sealed.len() as u64)).unwrap();
            sealed[at].gone = true;
        }
    }

    fn write(&mut self) {
        let key = self.dice.roll(KEYS);
        let number = u32::try_from(self.written.len()).unwrap();
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(4 + usize::try_from(self.dice.roll(60)).unwrap(), 0);
        match self.plan.push(Timestamp::default(), hash64(&key.to_le_bytes()), &payload, self.now).unwrap() {
            Push::Taken { fate, place, wake } => {
                self.due |= wake;
                let fate = fate.clone();
                self.written.push((key, fate, place));
            }
            Push::Full => self.due = true,
        }
        assert!(self.plan.backlog().0 <= 1_500 + 100, "{:?}", self.plan.backlog());
        assert!(self.plan.backlog().1 <= 6_000);
    }

    fn poll(&mut self) {
        if !self.due && self.wake_at.is_none_or(|at| self.now < at) {
            return;
        }
        let (actions, wake) = self.plan.poll(self.now);
        (self.due, self.wake_at) = (false, wake);
        for action in actions {
            match action {
                Action::Release { key } => assert!(self.spilled.remove(&key).is_some(), "released twice"),
                other => self.flying.push(Flying::Request(other)),
            }
        }
    }

    /// Lets one message arrive, or not, or twice.
    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice.roll(self.flying.len() as u64)).unwrap();
        let message = self.flying.swap_remove(at);
        self.due = true;
        writeln!(self.log, "{:?} {message:?}", self.now).unwrap();
        match message {
            Flying::Request(request) => self.request(request),
            Flying::Stray(segment, first, contents) => drop(self.store(segment, first, &contents)),
            Flying::Described(segment, last) => self.plan.described(segment, last, self.now),
            Flying::Appended(name, answer) => self.plan.appended(name, answer, self.now),
            Flying::View(version, segments) => self.plan.view(version, segments, false, self.now),
            Flying::NoView => self.plan.view_failed(busy(), self.now),
            Flying::Spilled(name, bytes, done) => self.plan.spilled(name, (bytes, done), self.now),
            Flying::Divided(name, parts) => self.plan.divided(name, Ok(parts), self.now),
        }
    }

    fn request(&mut self, request: Action) {
        match request {
            Action::Describe { place } => {
                let segment = &self.segments[&place.segment];
                let answer = match (self.faults && self.dice.one_in(4), segment.gone) {
                    (true, _) => Err(lost()),
                    (_, true) => Err(gone()),
                    _ => Ok(segment.last),
                };
                self.flying.push(Flying::Described(place.segment, answer));
            }
            Action::View => {
                let answer = match self.faults && self.dice.one_in(3) {
                    true => Flying::NoView,
                    false => Flying::View((1, self.told.0), self.told.1.clone()),
                };
                self.flying.push(answer);
            }
            Action::Append { place, block, attempt, first, source, .. } => {
                self.append(place, (place.segment, block, attempt), first, source);
            }
            Action::Spill { segment, block, key, label, contents } => {
                let fails = self.faults && self.dice.one_in(8);
                let (bytes, name) = (label.bytes, (segment, block, key));
                if !fails {
                    self.spilled.insert(key, (label, contents));
                }
                let done = if fails { Err("disk full".into()) } else { Ok(()) };
                self.flying.push(Flying::Spilled(name, bytes, done));
            }
            Action::Divide { segment, block, key, among, serial } => {
                let (_, contents) = self.spilled.remove(&key).unwrap();
                let mut parts = Vec::new();
                for (place, serial) in among.into_iter().zip((serial..).step_by(2)) {
                    if let Some((part, contents)) = part_of(&contents, place, serial).unwrap() {
                        self.spilled.insert(part.key, (part.label.clone(), contents));
                        parts.push(part);
                    }
                }
                self.flying.push(Flying::Divided((segment, block, key), parts));
            }
            Action::Release { .. } => unreachable!("handled when it was polled"),
        }
    }

    fn append(&mut self, place: SegmentPlace, name: (SegmentId, u64, u64), first: u64, source: Source) {
        let contents = match &source {
            Source::Memory(contents) => contents.clone(),
            Source::Spilled(key) => match self.spilled.get_mut(key) {
                Some((label, contents)) => {
                    // Before anything is sent.
                    label.first = Some(first);
                    contents.clone()
                }
                // The copy arrives after the block was settled, as a request sent twice.
                None => return,
            },
        };
        if self.faults {
            match self.dice.roll(10) {
                // Never arrives.
                0 => return self.flying.push(Flying::Appended(name, Err(lost()))),
                1 => return self.flying.push(Flying::Appended(name, Err(busy()))),
                // Arrives when its attempt is long over.
                2 => {
                    self.flying.push(Flying::Stray(place.segment, first, contents));
                    return self.flying.push(Flying::Appended(name, Err(lost())));
                }
                _ => {}
            }
        }
        let answer = self.store(place.segment, first, &contents);
        let heard = !(self.faults && self.dice.one_in(8));
        self.flying.push(Flying::Appended(name, if heard { answer } else { Err(lost()) }));
    }

    /// What a container does with a block.
    fn store(&mut self, id: SegmentId, first: u64, contents: &Contents) -> Result<Appended, Problem> {
        let segment = self.segments.get_mut(&id).unwrap();
        if segment.gone {
            return Err(gone());
        }
        let block = Block::open(contents.block.clone()).unwrap();
        let end = first + block.len() as u64 - 1;
        if end > segment.last && segment.sealed {
            return Err(Problem::conflict("SegmentSealed", "sealed"));
        }
        if first > segment.last + 1 {
            return Err(Problem::conflict("EventNumberGap", "gap"));
        }
        let mut appended = Appended { offsets: vec![], duplicate_count: 0, duplicates: vec![] };
        for (number, event) in (first..).zip(block.iter()) {
            if number <= segment.last {
                appended.duplicate_count += 1;
            } else {
                segment.last = number;
                segment.offsets.insert(number, segment.events.len() as u64);
                segment.events.push(u32::from_le_bytes(event.payload[..4].try_into().unwrap()));
            }
            appended.offsets.push(segment.offsets.get(&number).copied());
        }
        Ok(appended)
    }

    /// Kills the program: what was in memory is gone, what was under way arrives now or never. Another one begins with the files.
    fn crash(&mut self) {
        for message in std::mem::take(&mut self.flying) {
            match message {
                _ if self.dice.one_in(2) => {}
                Flying::Stray(segment, first, contents) => drop(self.store(segment, first, &contents)),
                Flying::Request(Action::Append { place, first, source: Source::Memory(contents), .. }) => {
                    drop(self.store(place.segment, first, &contents));
                }
                Flying::Request(Action::Append { place, first, source: Source::Spilled(key), .. }) => {
                    if let Some((label, contents)) = self.spilled.get_mut(&key) {
                        label.first = Some(first);
                        let contents = contents.clone();
                        drop(self.store(place.segment, first, &contents));
                    }
                }
                Flying::Request(Action::Spill { key, label, contents, .. }) => {
                    self.spilled.insert(key, (label, contents));
                }
                _ => {}
            }
        }
        for (event, (_, fate, place)) in (0u32..).zip(&self.written) {
            if !fate.0.borrow().contains_key(place) {
                self.lost.insert(event);
            }
        }
        let left = |(key, (label, _)): (&u64, &(Label, Contents))| Left { key: *key, label: label.clone() };
        let mut left: Vec<Left> = self.spilled.iter().map(left).collect();
        left.sort_by_key(|left| (left.label.first.unwrap_or(u64::MAX), left.label.order));
        let keys: Vec<u64> = left.iter().map(|left| left.key).collect();
        if newest_epoch(&left, 1).is_some_and(|epoch| epoch > self.told.0) {
            // It is waited for.
            self.told = (self.epoch, self.present.clone());
        }
        let limits = self.plan.limits.clone();
        self.plan = Plan::new("shop".parse().unwrap(), "w".parse().unwrap(), Kind::Stream, limits);
        self.plan.view((1, self.told.0), self.told.1.clone(), false, self.now);
        for (key, run) in keys.into_iter().zip(self.plan.restore(left, self.now)) {
            // What was spilled is owed: it has a new fate.
            let block = Block::open(self.spilled[&key].1.block.clone()).unwrap();
            for (place, event) in (run.first..).zip(block.iter()) {
                let event = u32::from_le_bytes(event.payload[..4].try_into().unwrap());
                let written = &mut self.written[event as usize];
                (written.1, written.2) = (run.fate.clone(), place);
                self.lost.remove(&event);
            }
        }
        (self.due, self.wake_at) = (true, None);
        writeln!(self.log, "crash, {} events lost, {} blocks left", self.lost.len(), self.spilled.len()).unwrap();
    }

    fn step(&mut self) {
        if self.crashing && self.dice.one_in(400) {
            self.crash();
        }
        match self.dice.roll(20) {
            0..8 => self.write(),
            8 if self.epoch < 25 => self.scale(),
            9 => self.told = (self.epoch, self.present.clone()),
            10 if self.truncates && self.dice.one_in(4) => self.truncate(),
            10 => {
                self.plan.hurry();
                self.due = true;
            }
            11..13 => self.now += Duration::from_millis(self.dice.roll(120)),
            _ => self.deliver(),
        }
        self.poll();
    }

    /// No more faults: everything must come to an end.
    fn settle(&mut self) {
        self.faults = false;
        self.told = (self.epoch, self.present.clone());
        self.plan.close();
        self.due = true;
        for _ in 0..40_000 {
            self.poll();
            if self.plan.is_idle() && self.flying.is_empty() {
                return;
            }
            assert!(!self.flying.is_empty() || self.wake_at.is_some(), "nothing would ever happen again");
            self.now += Duration::from_millis(1 + self.dice.roll(20));
            self.deliver();
        }
        panic!("no end: {:?} {:?}", self.plan.backlog(), self.flying);
    }

    fn check(&self) {
        let mut stored: Vec<(SegmentId, Offset, u32)> = Vec::new();
        for (id, segment) in &self.segments {
            stored.extend((0u64..).zip(&segment.events).map(|(offset, event)| (*id, offset, *event)));
        }
        let once: BTreeSet<u32> = stored.iter().map(|(_, _, event)| *event).collect();
        assert_eq!(stored.len(), once.len(), "an event is stored twice");
        for (event, (_, fate, place)) in (0u32..).zip(&self.written) {
            // Only what may be in a segment that was deleted may be missing, and its writer is told that nobody knows.
            let told = fate.0.borrow().get(place).cloned();
            let Some(told) = told else {
                assert!(self.lost.contains(&event), "event {event} was forgotten");
                continue;
            };
            match told {
                Ok(_) => assert!(once.contains(&event), "event {event} is missing"),
                Err(error) => {
                    assert!(self.truncates && error.outcome == Outcome::Unknown, "{error}");
                    assert!(matches!(error.cause, WriteCause::SegmentGone(_)), "{error}");
                }
            }
        }
        // Segments of later epochs follow, so the order of ids is that in which a key's events are read.
        let mut last_of_key: BTreeMap<u64, u32> = BTreeMap::new();
        for (id, offset, event) in stored {
            let (key, fate, place) = &self.written[event as usize];
            let range = self.segments[&id].range.unwrap();
            assert!(range.contains(hash64(&key.to_le_bytes())), "event {event} is in a segment of other keys");
            let before = last_of_key.insert(*key, event);
            assert!(before.is_none_or(|before| before < event), "key {key}: {event} behind {before:?}");
            let told = fate.0.borrow().get(place).cloned().and_then(Result::ok).flatten();
            assert!(told.is_none_or(|told| told == (id, offset)), "{event} is at {id} {offset}, told {told:?}");
        }
        assert_eq!(self.plan.backlog(), (0, 0));
        assert!(self.spilled.is_empty(), "the spill file was not drained");
    }
}

fn run(seed: u64, in_flight_max: usize, with: (bool, bool)) -> World {
    let mut world = World::new(seed, in_flight_max, with);
    (0..2_500).for_each(|_| world.step());
    assert!(world.written.len() > 100, "only {} events were written", world.written.len());
    world.settle();
    world.check();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_event_once_and_in_order_whatever_happens(seed: u64, in_flight_max in 1usize..5, with: (bool, bool)) {
        run(seed, in_flight_max, with);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let logs = [1, 2, 3].map(|_| run(42, 3, (true, true)).log);
    assert_eq!(logs[0], logs[1]);
    assert_eq!(logs[1], logs[2]);
    assert_ne!(logs[0], run(43, 3, (true, true)).log);
}

#[test]
fn runs_meet_what_they_are_about() {
    // A model that meets no scale, no repeat and no spill proves nothing.
    let logs: Vec<String> =
        (0..20).map(|seed| run(seed, 1 + usize::try_from(seed).unwrap() % 3, (true, true)).log).collect();
    for met in [
        "SegmentSealed",
        "EventNumberGap",
        "Spilled(",
        "Divided(",
        "duplicate_count: 1",
        "epoch 10 of",
        "UnknownSegment",
        " lost, 5 blocks left",
    ] {
        assert!(logs.iter().any(|log| log.contains(met)), "no run met {met}");
    }
}

/// Runs in which what is in files is divided while its successors end as well.
#[test]
fn what_is_divided_late_is_not_overtaken() {
    for (seed, in_flight_max) in
        [(7_313_825_189_774_572_585, 2), (2_875_859_624_475_587_056, 1), (12_198_405_460_259_742_338, 1)]
    {
        run(seed, in_flight_max, (true, true));
    }
}
