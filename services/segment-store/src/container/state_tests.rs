use proptest::prelude::*;
use types::WriterId;
use wire::{
    block::{Block, BlockBuilder},
    segment_store::ChunkMeta,
};

use super::*;

pub(super) const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

pub(super) fn segment(number: u32) -> SegmentId {
    SegmentId { number, ..SEGMENT }
}

pub(super) fn writer(number: u32) -> WriterId {
    format!("writer-{number}").parse().unwrap()
}

pub(super) fn block_of(ids: &[u128]) -> Block {
    let mut builder = BlockBuilder::new();
    for (n, id) in ids.iter().enumerate() {
        assert!(builder.push(Timestamp::from_nanos(n as i64), *id, b"event"));
    }
    Block::open(builder.finish()).unwrap()
}

pub(super) fn append(to: SegmentId, by: &WriterId, first: u64, ids: &[u128]) -> Entry {
    Entry::Append {
        segment: to,
        writer: by.clone(),
        first_event_number: first,
        expected_end: None,
        block: block_of(ids),
    }
}

pub(super) fn chunk(from: Offset, to: Offset) -> ChunkMeta {
    let time = Timestamp::from_nanos(0);
    ChunkMeta { key: format!("c{from}"), from, to, bytes: 1, time_min: time, time_max: time }
}

/// One owner with its own copy of the state, writing to a log that all share.
pub(super) struct Owner {
    pub(super) state: State,
    pub(super) generation: Generation,
}

#[derive(Clone)]
pub(super) enum Record {
    Owner(Generation),
    Frame(Frame),
}

fn replay(state: &mut State, log: &[Record]) {
    for (seq, record) in (1u64..).zip(log) {
        match record {
            Record::Owner(generation) => state.apply_owner(seq, *generation),
            Record::Frame(frame) => {
                state.apply(seq, frame, frame.encode().link).unwrap();
            }
        }
    }
}

impl Owner {
    pub(super) fn claim(log: &mut Vec<Record>, generation: u64) -> Self {
        log.push(Record::Owner(Generation(generation)));
        let mut state = State::new(ContainerId(0));
        replay(&mut state, log);
        Self { state, generation: Generation(generation) }
    }

    pub(super) fn frame(&self, entries: Vec<Entry>) -> Frame {
        let State { container, frame_number, previous, .. } = self.state;
        Frame { container, generation: self.generation, number: frame_number + 1, previous, entries }
    }

    pub(super) fn write(&mut self, log: &mut Vec<Record>, entries: Vec<Entry>) -> Vec<Effect> {
        let frame = self.frame(entries);
        log.push(Record::Frame(frame.clone()));
        match self.state.apply(log.len() as u64, &frame, frame.encode().link).unwrap() {
            Applied::Frame(effects) => effects,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn with_segment() -> (Self, Vec<Record>) {
        let mut log = Vec::new();
        let mut owner = Self::claim(&mut log, 1);
        owner.write(&mut log, vec![Entry::create(SEGMENT, "shop".parse().unwrap())]);
        (owner, log)
    }
}

pub(super) fn answer(effect: &Effect) -> &Appended {
    match effect {
        Effect::Appended { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeat_is_answered_with_the_same_offsets_and_stored_once() {
    let (mut owner, mut log) = Owner::with_segment();
    let first = append(SEGMENT, &writer(0), 1, &[0, 7, 0]);
    let effects = owner.write(&mut log, vec![first.clone(), first.clone()]);
    assert_eq!(answer(&effects[0]).offsets, [Some(0), Some(1), Some(2)]);
    assert_eq!(answer(&effects[1]).offsets, [Some(0), Some(1), Some(2)]);
    assert_eq!((answer(&effects[0]).duplicate_count, answer(&effects[1]).duplicate_count), (0, 3));
    assert_eq!(owner.state.foresee(&first), Some(Ok(answer(&effects[1]).clone())), "a repeat needs no frame");
    let overlap = owner.write(&mut log, vec![append(SEGMENT, &writer(0), 3, &[0, 0])]);
    assert_eq!(answer(&overlap[0]).offsets, [Some(2), Some(3)]);
    assert_eq!(answer(&overlap[0]).duplicates, [0]);
    assert_eq!(owner.state.segments[&SEGMENT].end, 4);
}

#[test]
fn a_message_id_is_stored_once_whoever_sends_it() {
    let (mut owner, mut log) = Owner::with_segment();
    let entries = vec![append(SEGMENT, &writer(0), 1, &[5, 5, 6]), append(SEGMENT, &writer(1), 1, &[6, 8])];
    let effects = owner.write(&mut log, entries);
    assert_eq!(answer(&effects[0]).offsets, [Some(0), Some(0), Some(1)]);
    assert_eq!(answer(&effects[1]).offsets, [Some(1), Some(2)]);
    assert_eq!(answer(&effects[1]).duplicates, [0]);
    let Effect::Appended { piece: Some(piece), .. } = &effects[1] else { panic!("{effects:?}") };
    assert_eq!((piece.base, piece.count, &piece.dropped[..]), (2, 1, &[0u32][..]));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (mut owner, mut log) = Owner::with_segment();
    owner.write(&mut log, vec![append(SEGMENT, &writer(0), 1, &[0])]);
    let before = owner.state.segments.clone();
    let effects = owner.write(
        &mut log,
        vec![
            append(SEGMENT, &writer(0), 3, &[0]),
            append(SEGMENT, &writer(1), 2, &[0]),
            append(segment(9), &writer(0), 1, &[0]),
            append(SEGMENT, &writer(2), 0, &[0]),
            append(SEGMENT, &writer(2), u64::MAX, &[0, 0]),
            Entry::Seal { segment: segment(9) },
            Entry::ChunkCommitted { segment: SEGMENT, meta: chunk(1, 2) },
            Entry::ChunkCommitted { segment: SEGMENT, meta: chunk(0, 9) },
        ],
    );
    assert!(effects.iter().all(|e| matches!(e, Effect::Refused(_))), "{effects:?}");
    assert_eq!(owner.state.segments, before);
    let gap = Error::EventNumberGap { segment: SEGMENT, writer: writer(0), expected: 2, found: 3 };
    assert_eq!(effects[0], Effect::Refused(gap));
}

#[test]
fn a_sealed_segment_still_knows_repeats() {
    let (mut owner, mut log) = Owner::with_segment();
    let stored = append(SEGMENT, &writer(0), 1, &[0]);
    let effects = owner.write(
        &mut log,
        vec![stored.clone(), Entry::Seal { segment: SEGMENT }, stored, append(SEGMENT, &writer(0), 2, &[0])],
    );
    assert_eq!(answer(&effects[2]).duplicate_count, 1);
    assert_eq!(effects[3], Effect::Refused(Error::SegmentSealed(SEGMENT)));
    assert_eq!(owner.state.foresee(&append(SEGMENT, &writer(3), 1, &[0])), Some(Err(Error::SegmentSealed(SEGMENT))));
    assert!(matches!(&effects[1], Effect::Sealed(info) if info.sealed && info.end == 1));
}

#[test]
fn a_deleted_segment_does_not_come_back() {
    let (mut owner, mut log) = Owner::with_segment();
    let create = Entry::create(SEGMENT, "shop".parse().unwrap());
    let delete = Entry::Delete { segment: SEGMENT, at: Timestamp::MIN };
    let effects = owner.write(&mut log, vec![delete.clone(), create, delete, Entry::Swept { segment: SEGMENT }]);
    assert_eq!(effects[0], Effect::Deleted);
    assert_eq!(effects[1], Effect::Refused(Error::SegmentDeleted(SEGMENT)));
    assert_eq!(effects[2], Effect::Deleted);
    assert!(owner.state.segments.is_empty() && owner.state.deleted.is_empty());
}

#[test]
fn chunks_free_the_log_from_the_front() {
    let (mut owner, mut log) = Owner::with_segment();
    owner.write(&mut log, vec![append(SEGMENT, &writer(0), 1, &[0, 0])]);
    owner.write(&mut log, vec![append(SEGMENT, &writer(0), 3, &[0])]);
    assert_eq!(owner.state.tail_seq(), 3);
    owner.write(&mut log, vec![Entry::ChunkCommitted { segment: SEGMENT, meta: chunk(0, 2) }]);
    assert_eq!((owner.state.tail_seq(), owner.state.segments[&SEGMENT].tail_from), (4, 2));
    owner.write(&mut log, vec![Entry::ChunkCommitted { segment: SEGMENT, meta: chunk(2, 3) }]);
    assert_eq!(owner.state.tail_seq(), owner.state.applied_seq + 1);
}

#[test]
fn writers_are_bounded() {
    let mut segment = Segment::new("shop".parse().unwrap(), false);
    for n in 0..=u32::try_from(WRITERS_MAX).unwrap() {
        segment.append(SEGMENT, &append(SEGMENT, &writer(n), 1, &[0]), (n.into(), 0)).unwrap();
    }
    assert_eq!(segment.writers.len(), WRITERS_MAX);
    let forgotten = segment.append(SEGMENT, &append(SEGMENT, &writer(0), 2, &[0]), (99_999, 0));
    assert!(matches!(forgotten, Err(Error::EventNumberGap { expected: 1, .. })), "{forgotten:?}");
}

#[test]
fn a_log_that_is_not_what_was_written_stops_the_container() {
    let (mut owner, mut log) = Owner::with_segment();
    let good = owner.state.clone();
    let link = |frame: &Frame| frame.encode().link;
    let frame = owner.frame(vec![Entry::Seal { segment: SEGMENT }]);
    for (change, expected) in [
        (Frame { number: 3, ..frame.clone() }, Damage::Gap { seq: 3, expected_after: 1, found: 3 }),
        (Frame { number: 1, ..frame.clone() }, Damage::Gap { seq: 3, expected_after: 1, found: 1 }),
        (Frame { previous: 1, ..frame.clone() }, Damage::Chain { seq: 3, number: 2 }),
        (Frame { container: ContainerId(9), ..frame.clone() }, Damage::Foreign { seq: 3, found: ContainerId(9) }),
    ] {
        assert_eq!(owner.state.apply(3, &change, link(&change)), Err(expected));
        assert_eq!(owner.state, good, "damage changes nothing");
    }
    assert_eq!(owner.state.apply(2, &frame, link(&frame)), Ok(Applied::Known));
    owner.write(&mut log, vec![Entry::Seal { segment: SEGMENT }]);
}

#[test]
fn a_zombie_cannot_be_heard() {
    let (mut zombie, mut log) = Owner::with_segment();
    let mut owner = Owner::claim(&mut log, 2);
    zombie.write(&mut log, vec![append(SEGMENT, &writer(0), 1, &[0])]);
    let ghost = match log.last() {
        Some(Record::Frame(frame)) => frame.clone(),
        _ => panic!("the zombie wrote a frame"),
    };
    assert_eq!(owner.state.apply(log.len() as u64, &ghost, ghost.encode().link), Ok(Applied::Stale));
    owner.write(&mut log, vec![append(SEGMENT, &writer(1), 1, &[0])]);
    let mut third = State::new(ContainerId(0));
    replay(&mut third, &log);
    assert_eq!(third, owner.state);
    assert!(!third.segments[&SEGMENT].writers.contains_key(&writer(0)));
}

#[derive(Debug, Clone)]
enum Step {
    /// A writer repeats, continues or skips: `shift` events from what it should send next.
    Append {
        segment: u32,
        writer: u32,
        shift: i8,
        ids: Vec<u8>,
    },
    Seal(u32),
    Delete(u32),
    Create(u32),
    Tier(u32),
    /// A new owner claims; the old one still writes once.
    TakeOver,
    /// Everybody forgets and restores from a snapshot.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = prop::collection::vec(0u8..12, 1..6);
    prop_oneof![
        12 => (0u32..3, 0u32..3, -3i8..3, ids).prop_map(|(segment, writer, shift, ids)| Step::Append { segment, writer, shift, ids }),
        1 => (0u32..3).prop_map(Step::Seal),
        1 => (0u32..3).prop_map(Step::Delete),
        1 => (0u32..3).prop_map(Step::Create),
        2 => (0u32..3).prop_map(Step::Tier),
        1 => Just(Step::TakeOver),
        1 => Just(Step::Restore),
    ]
}

/// What a reader of the segment would see: `(writer, number)` by offset, rebuilt from the log by pieces alone.
type Seen = BTreeMap<SegmentId, Vec<(WriterId, u64)>>;

fn note(seen: &mut Seen, entries: &[Entry], effects: &[Effect]) {
    for (entry, effect) in entries.iter().zip(effects) {
        match (entry, effect) {
            (
                Entry::Append { segment, writer, first_event_number, block, .. },
                Effect::Appended { answer, piece: Some(piece) },
            ) => {
                let events = seen.entry(*segment).or_default();
                assert_eq!(piece.base, events.len() as u64, "offsets have no holes");
                let kept = (0..u32::try_from(block.len()).unwrap()).filter(|place| !piece.dropped.contains(place));
                for place in kept {
                    assert_eq!(answer.offsets[place as usize], Some(events.len() as u64));
                    events.push((writer.clone(), first_event_number + u64::from(place)));
                }
                assert_eq!(piece.base + u64::from(piece.count), events.len() as u64);
            }
            (Entry::Delete { segment, .. }, Effect::Deleted) => {
                seen.remove(segment);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn whoever_replays_has_the_same_state_and_nothing_is_stored_twice(steps in prop::collection::vec(step(), 1..80)) {
        let mut log = Vec::new();
        let mut owner = Owner::claim(&mut log, 1);
        let mut seen = Seen::new();
        let index: IndexName = "shop".parse().unwrap();
        owner.write(&mut log, (0..3).map(|n| Entry::create(segment(n), index.clone())).collect());
        for step in steps {
            let entry = match step {
                Step::Append { segment: number, writer: by, shift, ids } => {
                    let known = owner.state.segments.get(&segment(number)).and_then(|s| s.writers.get(&writer(by)));
                    let next = known.map_or(1, |w| w.last + 1);
                    let ids: Vec<u128> = ids.into_iter().map(u128::from).collect();
                    append(segment(number), &writer(by), next.saturating_add_signed(i64::from(shift)), &ids)
                }
                Step::Seal(number) => Entry::Seal { segment: segment(number) },
                Step::Delete(number) => Entry::Delete { segment: segment(number), at: Timestamp::MIN },
                Step::Create(number) => Entry::create(segment(number), index.clone()),
                Step::Tier(number) => {
                    let Some(s) = owner.state.segments.get(&segment(number)) else { continue };
                    let Some(piece) = s.pieces.get(s.pieces.len() / 2) else { continue };
                    let meta = chunk(s.tail_from, piece.base + u64::from(piece.count));
                    Entry::ChunkCommitted { segment: segment(number), meta }
                }
                Step::TakeOver => {
                    let mut zombie = owner;
                    owner = Owner::claim(&mut log, zombie.generation.0 + 1);
                    prop_assert_eq!(&owner.state.segments, &zombie.state.segments);
                    zombie.write(&mut log, vec![append(segment(0), &writer(0), 1, &[1])]);
                    let Some(Record::Frame(ghost)) = log.last().cloned() else { unreachable!() };
                    prop_assert_eq!(owner.state.apply(log.len() as u64, &ghost, ghost.encode().link), Ok(Applied::Stale));
                    continue;
                }
                Step::Restore => {
                    let bytes = rmp_serde::to_vec_named(&owner.state).unwrap();
                    let restored: State = rmp_serde::from_slice(&bytes).unwrap();
                    prop_assert_eq!(&restored, &owner.state);
                    owner.state = restored;
                    continue;
                }
            };
            let foreseen = owner.state.foresee(&entry);
            let entries = vec![entry];
            let effects = owner.write(&mut log, entries.clone());
            match (foreseen, &effects[0]) {
                (Some(Ok(said)), Effect::Appended { answer, piece: None }) => prop_assert_eq!(&said, answer),
                (Some(Err(said)), Effect::Refused(why)) => prop_assert_eq!(&said, why),
                (None, _) => {}
                (foreseen, effect) => prop_assert!(false, "foresaw {:?}, happened {:?}", foreseen, effect),
            }
            note(&mut seen, &entries, &effects);
        }
        let mut replica = State::new(ContainerId(0));
        replay(&mut replica, &log);
        prop_assert_eq!(&replica, &owner.state);
        let bytes = |state: &State| rmp_serde::to_vec_named(state).unwrap();
        prop_assert_eq!(bytes(&replica), bytes(&owner.state), "byte for byte");
        for (id, events) in &seen {
            let state = &replica.segments[id];
            prop_assert_eq!(state.end, events.len() as u64);
            prop_assert_eq!(state.pieces.iter().map(|p| u64::from(p.count)).sum::<u64>(), state.end - state.tail_from);
            for by in (0..3).map(writer) {
                let numbers: Vec<u64> = events.iter().filter(|(w, _)| *w == by).map(|(_, n)| *n).collect();
                prop_assert!(numbers.windows(2).all(|w| w[0] < w[1]), "order and once: {:?}", numbers);
            }
        }
    }
}
