//! Random lives of a container against a model that knows nothing of logs: what was acknowledged is read once, in order,
//! and whoever recovers, from whichever snapshot, is the same byte for byte.

use std::collections::BTreeSet;

use proptest::prelude::*;
use types::WriterId;
use wire::{
    block::{Block, BlockBuilder},
    segment_store::ChunkMeta,
};

use super::*;
use crate::container::books::{Books, Record};

const CONTAINER: ContainerId = ContainerId(3);
const STREAM: u32 = 1;
const SHADOWS: u32 = 0x8000_0000;

/// An event as it was sent.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    writer: u32,
    number: u64,
    id: u128,
}

impl Event {
    fn payload(&self) -> String {
        format!("{}:{}:{}", self.writer, self.number, self.id)
    }
}

/// What a segment should be.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Every event ever stored, by offset.
    events: Vec<Event>,
    start: u64,
    sealed: bool,
    open: bool,
    last: BTreeMap<u32, u64>,
    ids: BTreeSet<u128>,
    merged: Vec<SegmentId>,
}

/// What an append should do.
#[derive(Debug, PartialEq)]
enum Expected {
    /// Which events are new.
    Taken(Vec<bool>),
    Refused(&'static str),
}

impl Model {
    fn append(&mut self, events: &[Event], condition: Option<u64>) -> Expected {
        let (first, writer) = (events[0].number, events[0].writer);
        let last = self.last.get(&writer).copied().unwrap_or_default();
        let known = |ids: &BTreeSet<u128>, e: &Event| e.number <= last || (e.id != 0 && ids.contains(&e.id));
        if events.iter().all(|e| e.number <= last) {
            return Expected::Taken(vec![false; events.len()]);
        }
        if self.sealed {
            return Expected::Refused("SegmentSealed");
        }
        if first > last + 1 {
            return Expected::Refused("EventNumberGap");
        }
        let nothing_new = events.iter().all(|e| known(&self.ids, e));
        if condition.is_some_and(|end| end != self.events.len() as u64) && !nothing_new {
            return Expected::Refused("ConditionFailed");
        }
        let mut new = Vec::new();
        for event in events {
            new.push(!known(&self.ids, event));
            if !known(&self.ids, event) {
                self.events.push(event.clone());
                self.ids.extend(Some(event.id).filter(|id| *id != 0));
            }
        }
        self.last.insert(writer, events[events.len() - 1].number);
        Expected::Taken(new)
    }
}

/// A record of the log.
enum Logged {
    Owner(Generation),
    Frame(Vec<u8>),
}

/// A container, its log and object storage, and what they should hold.
struct World {
    log: Vec<Logged>,
    books: Books,
    generation: u64,
    objects: BTreeMap<String, (u64, Vec<String>)>,
    snapshots: Vec<Vec<u8>>,
    model: BTreeMap<SegmentId, Model>,
    next: u32,
    time: i64,
}

fn id(number: u32) -> SegmentId {
    SegmentId { stream: STREAM, epoch: 0, number }
}

fn bytes_of(state: &State) -> Vec<u8> {
    rmp_serde::to_vec_named(state).unwrap()
}

fn decoded(seq: u64, bytes: &[u8]) -> Record {
    let (frame, link) = Frame::decode(bytes).unwrap();
    Record { seq, bytes: bytes.len() as u64, frame, link }
}

impl World {
    fn new() -> Self {
        let (log, objects, snapshots, model) = <_>::default();
        let (books, generation, next, time) = (Books::new(CONTAINER, 1 << 30), 0, 0, 0);
        let mut world = Self { log, books, generation, objects, snapshots, model, next, time };
        world.take_over();
        (0..2).for_each(|_| world.create(&[]));
        world
    }

    fn now(&mut self) -> Timestamp {
        self.time += 1;
        Timestamp::from_nanos(self.time)
    }

    fn take_over(&mut self) {
        self.generation += 1;
        let generation = Generation(self.generation);
        self.log.push(Logged::Owner(generation));
        self.books.state.apply_owner(self.log.len() as u64, generation);
    }

    fn commit(&mut self, entries: Vec<Entry>) -> Vec<Effect> {
        let foreseen = (entries.len() == 1).then(|| self.books.state.foresee(&entries[0])).flatten();
        let State { container, frame_number, previous, .. } = self.books.state;
        let frame =
            Frame { container, generation: Generation(self.generation), number: frame_number + 1, previous, entries };
        let bytes = frame.encode().bytes.to_vec();
        let record = decoded(self.log.len() as u64 + 1, &bytes);
        self.log.push(Logged::Frame(bytes));
        let effects = self.books.apply(&record, Timestamp::MIN).unwrap().unwrap();
        match (foreseen, &effects[0]) {
            (Some(Ok(said)), Effect::Appended { answer, piece: None }) => assert_eq!(&said, answer),
            (Some(Err(said)), Effect::Refused(why)) => assert_eq!(&said, why),
            (None, _) => {}
            (foreseen, effect) => panic!("foresaw {foreseen:?}, happened {effect:?}"),
        }
        effects
    }

    fn one(&mut self, entry: Entry) -> Effect {
        self.commit(vec![entry]).remove(0)
    }

    /// A segment that exists, by any number.
    fn pick(&self, n: usize, wanted: impl Fn(&Model) -> bool) -> Option<SegmentId> {
        let all: Vec<_> = self.model.iter().filter(|(_, m)| wanted(m)).map(|(id, _)| *id).collect();
        all.get(n % all.len().max(1)).copied()
    }

    fn create(&mut self, predecessors: &[SegmentId]) {
        let mut model = Model::default();
        let mut seeds = Seeds::default();
        for predecessor in predecessors {
            let before = &self.model[predecessor];
            for (writer, last) in &before.last {
                let known = model.last.entry(*writer).or_default();
                *known = (*known).max(*last);
            }
            model.ids.extend(&before.ids);
        }
        seeds.writers.extend(model.last.iter().map(|(n, last)| (writer(*n), *last)));
        seeds.ids.extend(model.ids.iter().map(|id| (*id, Timestamp::from_nanos(0))));
        let segment = id(self.next);
        self.next += 1;
        let entry = Entry::CreateSegment { segment, index: "shop".parse().unwrap(), seeds, transactional: false };
        assert_eq!(self.one(entry), Effect::Created);
        self.model.insert(segment, model);
    }

    fn begin(&mut self) {
        let segment = id(SHADOWS + self.next);
        self.next += 1;
        let (index, seeds) = ("shop".parse().unwrap(), Seeds::default());
        assert_eq!(self.one(Entry::CreateSegment { segment, index, seeds, transactional: true }), Effect::Created);
        self.model.insert(segment, Model { open: true, ..Model::default() });
    }

    /// Appends as one frame.
    fn append(&mut self, n: usize, sends: &[Send]) {
        let mut entries = Vec::new();
        let mut expected = Vec::new();
        for send in sends {
            let Some(segment) = self.pick(n + send.other, |_| true) else { return };
            let Some(model) = self.model.get_mut(&segment) else { return };
            let next = model.last.get(&send.writer).copied().unwrap_or_default() + 1;
            let first = next.saturating_add_signed(send.shift.into()).max(1);
            let events: Vec<_> = (first..)
                .zip(&send.ids)
                .map(|(number, id)| Event { writer: send.writer, number, id: (*id).into() })
                .collect();
            let condition = send.condition.map(|shift| (model.events.len() as u64).saturating_add_signed(shift.into()));
            let mut block = BlockBuilder::new();
            for event in &events {
                assert!(block.push(Timestamp::from_nanos(0), event.id, event.payload().as_bytes()));
            }
            entries.push(Entry::Append {
                segment,
                writer: writer(send.writer),
                first_event_number: first,
                expected_end: condition,
                block: Block::open(block.finish()).unwrap(),
            });
            let from = model.events.len() as u64;
            expected.push((segment, from, model.append(&events, condition), events));
        }
        let effects = self.commit(entries);
        for (effect, (segment, from, expected, events)) in effects.iter().zip(expected) {
            self.check_append(segment, from, effect, expected, &events);
        }
    }

    fn check_append(&self, segment: SegmentId, from: u64, effect: &Effect, expected: Expected, events: &[Event]) {
        let new = match (expected, effect) {
            (Expected::Taken(new), Effect::Appended { answer, .. }) => (new, answer),
            (Expected::Refused(kind), Effect::Refused(why)) => {
                assert_eq!(wire::Problem::from(why.clone()).kind, kind);
                return;
            }
            (expected, effect) => panic!("expected {expected:?}, happened {effect:?}"),
        };
        let (new, answer) = new;
        let mut next = from;
        assert_eq!(answer.offsets.len(), events.len());
        for ((place, offset), (new, event)) in (0u32..).zip(&answer.offsets).zip(new.iter().zip(events)) {
            assert_eq!(answer.duplicates.contains(&place), !new);
            match *offset {
                Some(offset) if *new => {
                    assert_eq!(offset, next, "offsets have no holes");
                    next += 1;
                }
                Some(offset) => {
                    let stored = &self.model[&segment].events[index(offset)];
                    let same = (stored.writer, stored.number) == (event.writer, event.number);
                    assert!(same || (event.id != 0 && stored.id == event.id), "{stored:?} is not {event:?}");
                }
                None => assert!(!new, "a new event has an offset"),
            }
        }
    }

    /// Moves the first pieces of the tail to an object, as the storage writer does.
    fn tier(&mut self, segment: SegmentId, pieces: usize) {
        let Some(known) = self.books.state.segments.get(&segment) else { return };
        let from = known.tail_from;
        let Some(piece) = known.pieces.get(pieces.min(known.pieces.len().saturating_sub(1))) else { return };
        let to = piece.end();
        let blocks = self.books.tail.blocks(segment, from, u64::MAX);
        let taken = blocks.iter().take_while(|block| block.end() <= to);
        let payloads = taken.flat_map(|b| b.events().map(|e| text(&e.payload)).collect::<Vec<_>>());
        let payloads: Vec<_> = payloads.collect();
        assert_eq!(payloads.len() as u64, to - from, "the tail has what the state says");
        let meta = self.put(segment, from, payloads);
        assert_eq!(self.one(Entry::ChunkCommitted { segment, meta }), Effect::Tiered(to));
    }

    fn put(&mut self, segment: SegmentId, from: u64, payloads: Vec<String>) -> ChunkMeta {
        let time = self.now();
        let key = format!("{segment}/{from}/{}", time.nanos());
        let (to, bytes) = (from + payloads.len() as u64, 1);
        self.objects.insert(key.clone(), (from, payloads));
        ChunkMeta { key, from, to, bytes, time_min: time, time_max: time }
    }

    /// Writes the oldest blocks of open transactions to the log again.
    fn carry(&mut self, count: usize) {
        for (_, segment, base) in self.books.state.carriable(u64::MAX).into_iter().take(count) {
            let block = self.books.tail.block(segment, base).unwrap();
            let seq = self.log.len() as u64 + 1;
            let effect = self.one(Entry::Carry { segment, base, block });
            assert!(matches!(effect, Effect::Carried(piece) if (piece.seq, piece.entry, piece.base) == (seq, 0, base)));
        }
    }

    fn compact(&mut self, segment: SegmentId, first: usize, count: usize) {
        let Some(known) = self.books.state.segments.get(&segment) else { return };
        let Some(first) = first.checked_rem(known.chunks.len()) else { return };
        let chunks: Vec<_> = known.chunks.iter().skip(first).take(count + 1).cloned().collect();
        let payloads = chunks.iter().flat_map(|c| self.objects[&c.key].1.clone()).collect();
        let meta = self.put(segment, chunks[0].from, payloads);
        let at = self.now();
        assert_eq!(self.one(Entry::ChunksReplaced { segment, meta, at }), Effect::Replaced);
    }

    fn collect(&mut self, count: usize) {
        let keys: Vec<String> = self.books.state.garbage.keys().take(count).cloned().collect();
        keys.iter().for_each(|key| assert!(self.objects.remove(key).is_some(), "{key} was there"));
        let at = self.now();
        assert_eq!(self.one(Entry::Collected { keys, at }), Effect::Collected);
    }

    fn truncate(&mut self, segment: SegmentId, percent: u64) {
        let at = self.now();
        let end = self.model[&segment].events.len() as u64;
        let before = end * percent / 100;
        let effect = self.one(Entry::Truncate { segment, before, at });
        let Some(model) = self.model.get_mut(&segment) else { return };
        match effect {
            Effect::Refused(Error::BeyondEnd { .. }) => assert!(before > end),
            Effect::Refused(Error::Transactional(_)) => assert!(model.open),
            Effect::Truncated(info) => {
                model.start = model.start.max(before);
                assert_eq!(info.start, model.start);
            }
            other => panic!("{other:?}"),
        }
    }

    fn merge(&mut self, into: SegmentId, source: SegmentId) {
        let effect = self.one(Entry::Merge { segment: into, source });
        let parent = self.model[&into].clone();
        match effect {
            Effect::Refused(Error::SegmentSealed(_)) => assert!(parent.sealed),
            Effect::Merged(merged) => {
                let shadow = self.model.remove(&source).unwrap();
                let (from, count) = (parent.events.len() as u64, shadow.events.len() as u64);
                assert_eq!(merged, Merged { from, count, repeated: false });
                let parent = self.model.get_mut(&into).unwrap();
                parent.events.extend(shadow.events);
                parent.ids.extend(shadow.ids);
                parent.merged.push(source);
                let again = self.one(Entry::Merge { segment: into, source });
                assert_eq!(again, Effect::Merged(Merged { from, count: 0, repeated: true }));
            }
            other => panic!("{other:?}"),
        }
    }

    /// What another owner has that begins with a snapshot, when everything is purged that may be.
    fn recovered(&self, snapshot: &[u8]) -> Books {
        let mut books = Books::new(CONTAINER, 1 << 30);
        books.restore(rmp_serde::from_slice(snapshot).unwrap());
        let (restored, after) = (books.state.applied_seq, books.state.tail_seq());
        let purged = self.books.state.tail_seq().min(restored + 1);
        let places = books.places();
        for (seq, record) in (1u64..).zip(&self.log).filter(|(seq, _)| *seq >= after.max(purged)) {
            match record {
                Logged::Owner(generation) => books.state.apply_owner(seq, *generation),
                Logged::Frame(bytes) if seq <= restored => books.refill(&decoded(seq, bytes), &places, Timestamp::MIN),
                Logged::Frame(bytes) => drop(books.apply(&decoded(seq, bytes), Timestamp::MIN).unwrap()),
            }
        }
        assert_eq!(books.holes(), None);
        books
    }

    /// Every event from the start on, as a reader gets them: objects, then the tail.
    fn read(&self, books: &Books, segment: SegmentId) -> Vec<String> {
        let known = &books.state.segments[&segment];
        let mut seen = Vec::new();
        let mut next = known.start;
        for chunk in &known.info(segment).chunks {
            let (from, payloads) = &self.objects[&chunk.key];
            assert_eq!((chunk.from, chunk.to), (*from, from + payloads.len() as u64));
            assert!(chunk.from <= next && next < chunk.to, "chunks have no holes");
            seen.extend(payloads[index(next - from)..].iter().cloned());
            next = chunk.to;
        }
        assert!(next >= known.tail_from, "nothing lies between Tier 2 and the tail");
        for block in books.tail.blocks(segment, next, u64::MAX) {
            assert!(block.base() <= next && next < block.end(), "the tail has no holes");
            seen.extend(block.events().skip(index(next - block.base())).map(|e| text(&e.payload)));
            next = block.end();
        }
        assert_eq!(next, known.end);
        seen
    }

    fn check(&self, books: &Books) {
        assert_eq!(books.state.segments.keys().collect::<Vec<_>>(), self.model.keys().collect::<Vec<_>>());
        for (segment, model) in &self.model {
            let known = &books.state.segments[segment];
            assert_eq!((known.start, known.end), (model.start, model.events.len() as u64));
            let expected: Vec<_> = model.events[index(model.start)..].iter().map(Event::payload).collect();
            assert_eq!(self.read(books, *segment), expected, "{segment}");
            let bytes: usize = model.events.iter().map(|e| e.payload().len()).sum();
            assert_eq!(known.bytes, bytes as u64);
            let truncated: usize = model.events[..index(model.start)].iter().map(|e| e.payload().len()).sum();
            assert!(known.truncated_bytes <= truncated as u64, "only what is truncated counts");
            if model.start == known.end {
                assert_eq!(known.truncated_bytes, known.bytes, "and all of it in the end");
            }
            if known.transactional {
                assert!(known.chunks.is_empty(), "an open transaction is not in Tier 2");
            }
        }
        let named = books.state.segments.values().flat_map(|s| s.chunks.iter().map(|c| &c.key));
        let named: BTreeSet<_> = named.chain(books.state.garbage.keys()).collect();
        assert!(named.iter().all(|key| self.objects.contains_key(*key)), "what is named is there");
        let of_segments = self.objects.keys().filter(|key| {
            let segment = key.split('/').next().unwrap().parse().unwrap();
            self.model.contains_key(&segment)
        });
        assert!(of_segments.into_iter().all(|key| named.contains(key)), "what is not named is garbage");
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

fn writer(n: u32) -> WriterId {
    format!("w{n}").parse().unwrap()
}

/// One block of a writer: `shift` events from what it should send next.
#[derive(Debug, Clone)]
struct Send {
    other: usize,
    writer: u32,
    shift: i8,
    ids: Vec<u8>,
    condition: Option<i8>,
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, Vec<Send>),
    Seal(usize),
    /// A successor of up to two sealed segments.
    Scale(usize, usize),
    Begin,
    Merge(usize, usize),
    Abort(usize),
    Delete(usize),
    Truncate(usize, u64),
    Tier(usize, usize),
    Compact(usize, usize, usize),
    Carry(usize),
    Collect(usize),
    Snapshot,
    /// Another owner begins with one of the snapshots.
    TakeOver(usize),
}

fn send() -> impl Strategy<Value = Send> {
    let ids = prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => 1u8..40], 1..6);
    let shift = prop_oneof![6 => Just(0i8), 2 => -6i8..0, 1 => 1i8..3];
    let condition = prop_oneof![4 => Just(None), 2 => Just(Some(0i8)), 1 => (-2i8..3).prop_map(Some)];
    (0usize..4, 0u32..4, shift, ids, condition).prop_map(|(other, writer, shift, ids, condition)| Send {
        other,
        writer,
        shift,
        ids,
        condition,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0usize..12;
    prop_oneof![
        20 => (n.clone(), prop::collection::vec(send(), 1..4)).prop_map(|(n, sends)| Step::Append(n, sends)),
        1 => n.clone().prop_map(Step::Seal),
        2 => (n.clone(), n.clone()).prop_map(|(a, b)| Step::Scale(a, b)),
        2 => Just(Step::Begin),
        3 => (n.clone(), n.clone()).prop_map(|(a, b)| Step::Merge(a, b)),
        1 => n.clone().prop_map(Step::Abort),
        1 => n.clone().prop_map(Step::Delete),
        3 => (n.clone(), 0u64..110).prop_map(|(n, percent)| Step::Truncate(n, percent)),
        8 => (n.clone(), 0usize..6).prop_map(|(n, pieces)| Step::Tier(n, pieces)),
        4 => (n.clone(), 0usize..6, 0usize..4).prop_map(|(n, first, count)| Step::Compact(n, first, count)),
        3 => (1usize..4).prop_map(Step::Carry),
        2 => (0usize..6).prop_map(Step::Collect),
        2 => Just(Step::Snapshot),
        2 => n.prop_map(Step::TakeOver),
    ]
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Append(n, sends) => self.append(n, &sends),
            Step::Seal(n) => {
                let Some(segment) = self.pick(n, |m| !m.open) else { return };
                assert!(matches!(self.one(Entry::Seal { segment }), Effect::Sealed(info) if info.sealed));
                self.model.get_mut(&segment).unwrap().sealed = true;
            }
            Step::Scale(a, b) => {
                let mut before: Vec<_> = [a, b].iter().filter_map(|n| self.pick(*n, |m| m.sealed)).collect();
                before.dedup();
                self.create(&before);
            }
            Step::Begin => self.begin(),
            Step::Merge(a, b) => {
                let (into, source) = (self.pick(a, |m| !m.open), self.pick(b, |m| m.open));
                if let (Some(into), Some(source)) = (into, source) {
                    self.merge(into, source);
                }
            }
            Step::Abort(n) => self.delete(n, true),
            Step::Delete(n) => self.delete(n, false),
            Step::Truncate(n, percent) => {
                if let Some(segment) = self.pick(n, |_| true) {
                    self.truncate(segment, percent);
                }
            }
            Step::Tier(n, pieces) => {
                if let Some(segment) = self.pick(n, |m| !m.open) {
                    self.tier(segment, pieces);
                }
            }
            Step::Compact(n, first, count) => {
                if let Some(segment) = self.pick(n, |m| !m.open) {
                    self.compact(segment, first, count);
                }
            }
            Step::Carry(count) => self.carry(count),
            Step::Collect(count) => self.collect(count),
            Step::Snapshot => self.snapshots.push(bytes_of(&self.books.state)),
            Step::TakeOver(n) => {
                let Some(snapshot) = n.checked_rem(self.snapshots.len()).map(|n| &self.snapshots[n]) else { return };
                let books = self.recovered(snapshot);
                assert_eq!(bytes_of(&books.state), bytes_of(&self.books.state), "byte for byte");
                self.books = books;
                self.take_over();
            }
        }
    }

    fn delete(&mut self, n: usize, open: bool) {
        let Some(segment) = self.pick(n, |m| m.open == open) else { return };
        let at = self.now();
        assert_eq!(self.one(Entry::Delete { segment, at }), Effect::Deleted);
        self.model.remove(&segment);
        let prefix = format!("{segment}/");
        self.objects.retain(|key, _| !key.starts_with(&prefix));
        assert_eq!(self.one(Entry::Swept { segment }), Effect::Swept);
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_event_is_read_once_by_every_owner(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        world.snapshots.push(bytes_of(&State::new(CONTAINER)));
        for step in steps {
            world.step(step);
        }
        world.check(&world.books);
        for snapshot in &world.snapshots {
            let books = world.recovered(snapshot);
            prop_assert_eq!(bytes_of(&books.state), bytes_of(&world.books.state), "byte for byte");
            world.check(&books);
        }
    }
}
