//! What came with epochs and transactions: conditions, seeds, truncation, garbage, merging.

use bytes::Bytes;
use types::WriterId;
use wire::{
    block::{Block, BlockBuilder},
    segment_store::ChunkMeta,
};

use super::{
    tests::{Owner, SEGMENT, answer, append, block_of, chunk, segment, writer},
    *,
};

const SHADOW: SegmentId = SegmentId { number: 0x8000_0001, ..SEGMENT };

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn on(expected: Offset, entry: Entry) -> Entry {
    match entry {
        Entry::Append { segment, writer, first_event_number, block, .. } => {
            Entry::Append { segment, writer, first_event_number, expected_end: Some(expected), block }
        }
        other => panic!("{other:?} depends on nothing"),
    }
}

fn begin(shadow: SegmentId) -> Entry {
    let (index, seeds) = ("shop".parse().unwrap(), Seeds::default());
    Entry::CreateSegment { segment: shadow, index, seeds, transactional: true }
}

fn truncate(before: Offset, nanos: i64) -> Entry {
    Entry::Truncate { segment: SEGMENT, before, at: at(nanos) }
}

fn replace(from: Offset, to: Offset, key: &str) -> Entry {
    Entry::ChunksReplaced { segment: SEGMENT, meta: ChunkMeta { key: key.into(), ..chunk(from, to) }, at: at(50) }
}

fn commit(from: Offset, to: Offset) -> Entry {
    Entry::ChunkCommitted { segment: SEGMENT, meta: chunk(from, to) }
}

fn keys(state: &State) -> Vec<&str> {
    state.segments[&SEGMENT].chunks.iter().map(|c| c.key.as_str()).collect()
}

/// A segment of eight events of 5 bytes: two each in chunks 0 to 2, 2 to 4 and 4 to 6, and two in the tail.
fn with_chunks() -> (Owner, Vec<super::tests::Record>) {
    let (mut owner, mut log) = Owner::with_segment();
    for n in 0..4 {
        owner.write(&mut log, vec![append(SEGMENT, &writer(0), n * 2 + 1, &[0, 0])]);
    }
    owner.write(&mut log, vec![commit(0, 2), commit(2, 4), commit(4, 6)]);
    (owner, log)
}

#[test]
fn a_condition_is_checked_only_for_what_is_new() {
    let (mut owner, mut log) = Owner::with_segment();
    let first = on(0, append(SEGMENT, &writer(0), 1, &[7, 8]));
    let effects = owner.write(
        &mut log,
        vec![
            first.clone(),
            on(0, append(SEGMENT, &writer(1), 1, &[0])),
            first.clone(),
            on(9, append(SEGMENT, &writer(1), 1, &[8])),
            on(2, append(SEGMENT, &writer(1), 2, &[0])),
        ],
    );
    assert_eq!(answer(&effects[0]).offsets, [Some(0), Some(1)]);
    let failed = Error::ConditionFailed { segment: SEGMENT, expected: 0, end: 2 };
    assert_eq!(effects[1], Effect::Refused(failed));
    assert_eq!(answer(&effects[2]).duplicate_count, 2, "a repeat succeeds");
    assert_eq!(answer(&effects[3]).offsets, [Some(1)], "by its message id too");
    assert_eq!(answer(&effects[4]).offsets, [Some(2)]);
    let late = on(1, append(SEGMENT, &writer(0), 3, &[0]));
    let failed = Error::ConditionFailed { segment: SEGMENT, expected: 1, end: 3 };
    assert_eq!(owner.state.foresee(&late), Some(Err(failed)));
    assert_eq!(owner.state.foresee(&on(4, append(SEGMENT, &writer(0), 3, &[0]))), None, "the end may still come to it");
}

#[test]
fn a_successor_recognises_what_its_predecessors_have() {
    let (mut owner, mut log) = Owner::with_segment();
    let seeds = Seeds { writers: vec![(writer(0), 5), (writer(1), 2)], ids: vec![(77, at(1)), (78, at(2))] };
    let create = Entry::CreateSegment {
        segment: segment(1),
        index: "shop".parse().unwrap(),
        seeds: seeds.clone(),
        transactional: false,
    };
    owner.write(&mut log, vec![create.clone()]);
    let effects = owner.write(
        &mut log,
        vec![
            append(segment(1), &writer(0), 4, &[0, 0, 0, 78]),
            append(segment(1), &writer(1), 4, &[0]),
            append(segment(1), &writer(1), 3, &[77]),
            append(segment(1), &writer(2), 1, &[77, 99]),
        ],
    );
    assert_eq!(answer(&effects[0]).offsets, [None, None, Some(0), None], "what is elsewhere has no offset here");
    assert_eq!(answer(&effects[0]).duplicates, [0, 1, 3]);
    assert!(matches!(&effects[1], Effect::Refused(Error::EventNumberGap { expected: 3, .. })), "{:?}", effects[1]);
    assert_eq!((answer(&effects[2]).duplicate_count, answer(&effects[3]).duplicates.clone()), (1, vec![0]));
    let table = owner.state.segments[&segment(1)].table();
    let last: Vec<_> = table.writers.iter().map(|w| (w.writer.as_str(), w.last)).collect();
    assert_eq!(last, [("writer-0", 7), ("writer-1", 3), ("writer-2", 2)]);
    assert_eq!(table.ids.len(), 3 * 32, "77, 78 and 99");
    owner.write(&mut log, vec![create]);
    assert_eq!(owner.state.segments[&segment(1)].end, 2, "creating again changes nothing");
}

#[test]
fn a_truncation_takes_whole_chunks_and_blocks() {
    let (mut owner, mut log) = with_chunks();
    let effects = owner.write(&mut log, vec![truncate(3, 10), truncate(1, 11), truncate(9, 12)]);
    let Effect::Truncated(info) = &effects[0] else { panic!("{effects:?}") };
    assert_eq!((info.start, info.tail_from, info.end, info.bytes, info.truncated_bytes), (3, 6, 8, 40, 10));
    assert!(matches!(&effects[1], Effect::Truncated(info) if info.start == 3), "the start only grows");
    assert_eq!(effects[2], Effect::Refused(Error::BeyondEnd { segment: SEGMENT, before: 9, end: 8 }));
    assert_eq!(keys(&owner.state), ["c2", "c4"]);
    let garbage: Vec<_> = owner.state.garbage.iter().map(|(key, g)| (key.as_str(), g.segment, g.since)).collect();
    assert_eq!(garbage, [("c0", SEGMENT, at(10))]);
    // Into the tail, in the middle of a block: it stays whole.
    owner.write(&mut log, vec![truncate(7, 20)]);
    let known = &owner.state.segments[&SEGMENT];
    assert_eq!((known.start, known.tail_from, known.pieces.len(), known.truncated_bytes), (7, 6, 1, 30));
    assert_eq!(owner.state.garbage.len(), 3);
    owner.write(&mut log, vec![truncate(8, 30)]);
    let known = &owner.state.segments[&SEGMENT];
    assert_eq!((known.start, known.tail_from, known.pieces.len(), known.truncated_bytes), (8, 8, 0, 40));
    assert_eq!(owner.state.tail_seq(), owner.state.applied_seq + 1);
    let effects = owner.write(&mut log, vec![commit(6, 8), append(SEGMENT, &writer(0), 9, &[0]), commit(8, 9)]);
    assert!(matches!(effects[0], Effect::Refused(Error::ChunkOutOfPlace { .. })), "it is truncated already");
    assert_eq!((answer(&effects[1]).offsets.clone(), &effects[2]), (vec![Some(8)], &Effect::Tiered(9)));
}

#[test]
fn chunks_are_replaced_by_one_that_covers_them_exactly() {
    let (mut owner, mut log) = with_chunks();
    let differ = |from, to| Effect::Refused(Error::ChunksDiffer { segment: SEGMENT, from, to });
    let wrong =
        owner.write(&mut log, vec![replace(1, 4, "x"), replace(0, 3, "x"), replace(4, 8, "x"), replace(0, 0, "x")]);
    assert_eq!(wrong, [differ(1, 4), differ(0, 3), differ(4, 8), differ(0, 0)]);
    let effects = owner.write(&mut log, vec![replace(0, 4, "big"), replace(0, 4, "big")]);
    assert_eq!(effects, [Effect::Replaced, Effect::Replaced], "again is fine");
    assert_eq!(keys(&owner.state), ["big", "c4"]);
    assert_eq!(owner.state.garbage.keys().collect::<Vec<_>>(), ["c0", "c2"]);
    let collected = Entry::Collected { keys: vec!["c0".into(), "unknown".into()], at: at(60) };
    assert_eq!(owner.write(&mut log, vec![collected]), [Effect::Collected]);
    assert_eq!(owner.state.garbage.keys().collect::<Vec<_>>(), ["c2"]);
    owner.write(&mut log, vec![truncate(4, 70)]);
    assert_eq!(owner.state.segments[&SEGMENT].truncated_bytes, 20);
    owner.write(&mut log, vec![Entry::Delete { segment: SEGMENT, at: Timestamp::MIN }]);
    assert!(owner.state.garbage.is_empty(), "its folder is swept");
}

#[test]
fn garbage_is_bounded_and_what_waits_for_room_goes_later() {
    let (mut owner, mut log) = with_chunks();
    let other = Garbage { segment: segment(9), since: at(0) };
    owner.state.garbage = (0..GARBAGE_MAX - 1).map(|n| (format!("g{n}"), other)).collect();
    let effects = owner.write(&mut log, vec![replace(0, 4, "big"), truncate(5, 10)]);
    assert_eq!(effects[0], Effect::Refused(Error::GarbageFull(ContainerId(0))));
    let known = &owner.state.segments[&SEGMENT];
    assert_eq!((known.start, keys(&owner.state)), (5, vec!["c2", "c4"]), "one goes, the other waits");
    assert_eq!(known.info(SEGMENT).chunks.len(), 1, "nobody is told of it");
    assert_eq!(owner.state.garbage.len(), GARBAGE_MAX);
    owner.write(&mut log, vec![Entry::Collected { keys: vec!["g1".into()], at: at(20) }]);
    assert_eq!((keys(&owner.state), owner.state.garbage["c2"].since), (vec!["c4"], at(20)));
    assert!(!owner.state.crowded);
}

#[test]
fn a_merge_gives_a_transaction_the_next_offsets_once() {
    let (mut owner, mut log) = Owner::with_segment();
    owner.write(&mut log, vec![append(SEGMENT, &writer(0), 1, &[0, 5]), begin(SHADOW)]);
    owner.write(&mut log, vec![append(SHADOW, &writer(0), 1, &[6, 0, 6])]);
    let shadow_seq = owner.state.applied_seq;
    owner.write(&mut log, vec![append(SEGMENT, &writer(0), 3, &[0]), append(SHADOW, &writer(1), 1, &[0])]);
    owner.write(&mut log, vec![commit(0, 2)]);
    owner.write(&mut log, vec![commit(2, 3)]);
    assert_eq!(owner.state.tail_seq(), shadow_seq, "what is open holds the log");
    let merge = Entry::Merge { segment: SEGMENT, source: SHADOW };
    let effects = owner.write(&mut log, vec![merge.clone(), merge.clone(), append(SEGMENT, &writer(0), 4, &[6, 0])]);
    assert_eq!(effects[0], Effect::Merged(Merged { from: 3, count: 3, repeated: false }));
    assert_eq!(effects[1], Effect::Merged(Merged { from: 3, count: 0, repeated: true }));
    assert_eq!(
        answer(&effects[2]).offsets,
        [Some(3), Some(6)],
        "its message ids and the next offset are the segment's"
    );
    let known = &owner.state.segments[&SEGMENT];
    let bases: Vec<_> = known.pieces.iter().map(|p| (p.base, p.count, p.dropped.clone())).collect();
    assert_eq!(bases, [(3, 2, vec![2]), (5, 1, vec![]), (6, 1, vec![0])]);
    assert_eq!((known.end, known.bytes), (7, 35));
    assert_eq!(owner.state.tail_seq(), shadow_seq);
    assert!(!owner.state.segments.contains_key(&SHADOW));
    let late = owner.write(&mut log, vec![append(SHADOW, &writer(0), 1, &[0]), begin(SHADOW)]);
    assert_eq!(late[0], Effect::Refused(Error::NotHere(SHADOW)));
    assert_eq!(late[1], Effect::Refused(Error::SegmentDeleted(SHADOW)), "what is merged does not come back");
}

#[test]
fn what_cannot_be_merged_says_so() {
    let (mut owner, mut log) = Owner::with_segment();
    let merge = |segment, source| Entry::Merge { segment, source };
    let other = SegmentId { number: 0x8000_0002, ..SEGMENT };
    let create = Entry::create(segment(1), "shop".parse().unwrap());
    owner.write(&mut log, vec![create, begin(SHADOW), begin(other)]);
    let effects = owner.write(
        &mut log,
        vec![
            merge(SEGMENT, segment(1)),
            merge(other, SHADOW),
            merge(SEGMENT, segment(9)),
            merge(segment(9), SHADOW),
            merge(SEGMENT, other),
            Entry::Seal { segment: SEGMENT },
            merge(SEGMENT, SHADOW),
            merge(SEGMENT, other),
            Entry::Truncate { segment: SHADOW, before: 0, at: at(0) },
        ],
    );
    let refused: Vec<_> =
        effects.iter().map(|e| if let Effect::Refused(why) = e { Some(why.clone()) } else { None }).collect();
    assert_eq!(
        refused,
        [
            Some(Error::NotTransactional(segment(1))),
            Some(Error::Transactional(other)),
            Some(Error::NotHere(segment(9))),
            Some(Error::NotHere(segment(9))),
            None,
            None,
            Some(Error::SegmentSealed(SEGMENT)),
            None,
            Some(Error::Transactional(SHADOW)),
        ]
    );
    assert_eq!(effects[4], Effect::Merged(Merged { from: 0, count: 0, repeated: false }), "an empty one");
    assert_eq!(effects[7], Effect::Merged(Merged { from: 0, count: 0, repeated: true }), "sealed or not");
    assert!(owner.state.segments.contains_key(&SHADOW), "what was refused is still there");
}

#[test]
fn a_transaction_is_bounded() {
    let (mut owner, mut log) = Owner::with_segment();
    owner.write(&mut log, vec![begin(SHADOW)]);
    let payload = Bytes::from(vec![0u8; 1 << 20]);
    let mut builder = BlockBuilder::new();
    (0..2).for_each(|_| assert!(builder.push(at(0), 0, &payload)));
    let block = Block::open(builder.finish()).unwrap();
    let big = |to: SegmentId, writer: WriterId| {
        let block = block.clone();
        Entry::Append { segment: to, writer, first_event_number: 1, expected_end: None, block }
    };
    // Not through frames: it is the state that counts.
    let mut taken = 0;
    let refused = loop {
        match owner.state.apply_entry(9, 0, &big(SHADOW, writer(taken))) {
            Effect::Appended { .. } => taken += 1,
            other => break other,
        }
    };
    assert_eq!((taken, refused), (31, Effect::Refused(Error::TransactionTooLarge(SHADOW))), "64 MiB less its columns");
    let repeat = owner.state.apply_entry(9, 0, &big(SHADOW, writer(0)));
    assert_eq!(answer(&repeat).duplicate_count, 2);
    (0..40)
        .for_each(|n| assert_eq!(answer(&owner.state.apply_entry(9, 0, &big(SEGMENT, writer(n)))).duplicate_count, 0));
}

#[test]
fn merged_sources_are_remembered_up_to_a_bound() {
    let (mut owner, mut log) = Owner::with_segment();
    let shadow = |n: usize| SegmentId { number: 0x8000_0000 + u32::try_from(n).unwrap(), ..SEGMENT };
    for n in 0..=MERGED_MAX {
        owner.write(&mut log, vec![begin(shadow(n)), Entry::Merge { segment: SEGMENT, source: shadow(n) }]);
    }
    assert_eq!(owner.state.segments[&SEGMENT].merged.len(), MERGED_MAX);
    let again = |n| Entry::Merge { segment: SEGMENT, source: shadow(n) };
    let effects = owner.write(&mut log, vec![again(1), again(0)]);
    assert!(matches!(&effects[0], Effect::Merged(merged) if merged.repeated));
    assert_eq!(effects[1], Effect::Refused(Error::NotHere(shadow(0))));
}

/// The shapes of the first release: what a snapshot of it holds.
mod former {
    use std::collections::{BTreeMap, VecDeque};

    use serde::Serialize;
    use types::{ContainerId, Generation, IndexName, Offset, SegmentId, WriterId};
    use wire::segment_store::ChunkMeta;

    use crate::container::recent::RecentIds;

    #[derive(Serialize)]
    pub(super) struct State {
        pub(super) container: ContainerId,
        pub(super) generation: Generation,
        pub(super) applied_seq: u64,
        pub(super) frame_number: u64,
        pub(super) previous: u64,
        pub(super) segments: BTreeMap<SegmentId, Segment>,
        pub(super) deleted: BTreeMap<SegmentId, IndexName>,
    }

    #[derive(Serialize)]
    pub(super) struct Segment {
        pub(super) index: IndexName,
        pub(super) start: Offset,
        pub(super) tail_from: Offset,
        pub(super) end: Offset,
        pub(super) sealed: bool,
        pub(super) writers: BTreeMap<WriterId, Writer>,
        pub(super) ids: RecentIds,
        pub(super) chunks: Vec<ChunkMeta>,
        pub(super) pieces: VecDeque<Piece>,
    }

    #[derive(Serialize)]
    pub(super) struct Writer {
        pub(super) last: u64,
        pub(super) seq: u64,
        pub(super) runs: Vec<Run>,
    }

    #[derive(Serialize)]
    pub(super) struct Run {
        pub(super) number: u64,
        pub(super) offset: Offset,
        pub(super) count: u64,
    }

    #[derive(Serialize)]
    pub(super) struct Piece {
        pub(super) seq: u64,
        pub(super) entry: u32,
        pub(super) base: Offset,
        pub(super) count: u32,
        pub(super) dropped: Vec<u32>,
    }
}

#[test]
fn a_snapshot_of_the_former_shape_is_read() {
    let piece = former::Piece { seq: 3, entry: 1, base: 2, count: 1, dropped: vec![0] };
    let run = former::Run { number: 4, offset: 2, count: 1 };
    let segment = former::Segment {
        index: "shop".parse().unwrap(),
        start: 0,
        tail_from: 2,
        end: 3,
        sealed: false,
        writers: [(writer(0), former::Writer { last: 4, seq: 3, runs: vec![run] })].into(),
        ids: Default::default(),
        chunks: vec![chunk(0, 2)],
        pieces: [piece].into(),
    };
    let former = former::State {
        container: ContainerId(0),
        generation: Generation(1),
        applied_seq: 3,
        frame_number: 2,
        previous: 9,
        segments: [(SEGMENT, segment)].into(),
        deleted: [(super::tests::segment(5), "shop".parse().unwrap())].into(),
    };
    let mut state: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&former).unwrap()).unwrap();
    assert_eq!((state.garbage.len(), state.tail_seq(), state.deleted.len()), (0, 3, 1));
    let frame = Frame {
        container: ContainerId(0),
        generation: Generation(1),
        number: 3,
        previous: 9,
        entries: vec![append(SEGMENT, &writer(0), 4, &[0, 0]), commit(2, 3), truncate(3, 7)],
    };
    let Applied::Frame(effects) = state.apply(4, &frame, 0).unwrap() else { panic!("it follows") };
    assert_eq!(answer(&effects[0]).offsets, [Some(2), Some(3)]);
    let Effect::Truncated(info) = &effects[2] else { panic!("{effects:?}") };
    assert_eq!((info.start, info.end, info.bytes, info.truncated_bytes), (3, 4, 5, 0), "bytes are counted from now on");
    assert_eq!(state.garbage.len(), 2);
}

#[test]
fn a_carried_transaction_holds_the_log_no_more_and_merges_as_if_it_had_stayed() {
    let (mut owner, mut log) = Owner::with_segment();
    owner.write(&mut log, vec![begin(SHADOW), append(SHADOW, &writer(0), 1, &[6, 0, 6])]);
    let first = owner.state.applied_seq;
    owner.write(&mut log, vec![append(SHADOW, &writer(0), 4, &[0]), append(SEGMENT, &writer(0), 1, &[0])]);
    let second = owner.state.applied_seq;
    assert_eq!(
        owner.state.carriable(u64::MAX),
        [(first, SHADOW, 0)],
        "the rest stands no deeper than the segment's own"
    );
    owner.write(&mut log, vec![commit(0, 1)]);
    assert_eq!(owner.state.carriable(u64::MAX), [(first, SHADOW, 0), (second, SHADOW, 2)]);
    assert_eq!(owner.state.carriable(second), [(first, SHADOW, 0)]);
    let carry = |base, ids: &[u128]| Entry::Carry { segment: SHADOW, base, block: block_of(ids) };
    let effects = owner.write(
        &mut log,
        vec![
            carry(0, &[6, 0, 6]),
            carry(1, &[0]),
            carry(2, &[0, 0]),
            Entry::Carry { segment: SEGMENT, base: 0, block: block_of(&[0]) },
            Entry::Carry { segment: segment(9), base: 0, block: block_of(&[0]) },
            carry(2, &[0]),
        ],
    );
    let kinds: Vec<_> = effects.iter().map(|effect| matches!(effect, Effect::Carried(_))).collect();
    assert_eq!(kinds, [true, false, false, false, false, true], "{effects:?}");
    assert_eq!(owner.state.tail_seq(), owner.state.applied_seq);
    let effects = owner.write(&mut log, vec![Entry::Merge { segment: SEGMENT, source: SHADOW }]);
    assert_eq!(effects, [Effect::Merged(Merged { from: 1, count: 3, repeated: false })]);
    let pieces: Vec<_> = owner.state.segments[&SEGMENT].pieces.iter().map(|p| (p.base, p.count, p.entry)).collect();
    assert_eq!(pieces, [(1, 2, 0), (3, 1, 5)]);
    assert!(owner.state.carriable(u64::MAX).is_empty());
}

#[test]
fn a_creation_that_comes_behind_a_deletion_is_refused() {
    let (mut owner, mut log) = Owner::with_segment();
    let index = || "shop".parse().unwrap();
    let never = segment(7);
    let effects =
        owner.write(&mut log, vec![Entry::Delete { segment: never, at: at(5) }, Entry::create(never, index())]);
    assert_eq!(effects, [Effect::Deleted, Effect::Refused(Error::SegmentDeleted(never))]);
    assert!(owner.state.deleted.is_empty(), "there is nothing to sweep");
    // What was there is refused also after its objects are gone.
    let swept = Entry::Swept { segment: SEGMENT };
    let delete = |second| Entry::Delete { segment: SEGMENT, at: at(second) };
    let effects = owner.write(&mut log, vec![delete(6), delete(9), swept, Entry::create(SEGMENT, index())]);
    assert_eq!(effects[3], Effect::Refused(Error::SegmentDeleted(SEGMENT)));
    assert_eq!(owner.state.tombstones[&SEGMENT], at(6), "a repeat puts nothing off");
    owner.write(&mut log, vec![begin(SHADOW), Entry::Delete { segment: SHADOW, at: at(7) }, begin(SHADOW)]);
    assert!(
        !owner.state.segments.contains_key(&SHADOW) && owner.state.deleted.is_empty(),
        "nothing of it was ever put"
    );
}

#[test]
fn deletions_are_remembered_up_to_a_bound_and_those_with_objects_always() {
    let mut state = State::new(ContainerId(0));
    state.deleted.insert(segment(0), "shop".parse().unwrap());
    for n in 0..=u32::try_from(TOMBSTONES_MAX).unwrap() {
        state.delete(segment(n), at(n.into()));
    }
    assert_eq!(state.tombstones.len(), TOMBSTONES_MAX / 2 + 1);
    let oldest = state.tombstones.keys().take(2).copied().collect::<Vec<_>>();
    assert_eq!(oldest, [segment(0), segment(u32::try_from(TOMBSTONES_MAX / 2 + 1).unwrap())]);
}
