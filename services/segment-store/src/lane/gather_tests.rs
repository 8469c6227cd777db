//! Blocks of a lane: one in flight per segment, numbers used once, order per key through any scale.

use proptest::prelude::*;
use types::{ContainerId, KeyRange};

use super::*;

fn range(number: u32) -> SegmentRange {
    let segment = SegmentId { stream: 1, epoch: 0, number };
    SegmentRange { segment, container: ContainerId(0), range: KeyRange { first: 0, last: u64::MAX } }
}

fn keyed(text: &str, hash: u64) -> Waiting {
    let ask = Ask { reply: Some(text.to_owned()), has_id: false };
    Waiting { payload: Bytes::copy_from_slice(text.as_bytes()), received: Timestamp::default(), id: 0, hash, ask }
}

fn event(text: &str) -> Waiting {
    keyed(text, 0)
}

fn index() -> IndexName {
    "shop".parse().unwrap()
}

fn gather(bytes_max: usize) -> (Gather, IndexName) {
    (Gather::new("lane-0-1-7".into(), bytes_max), index())
}

fn texts(batch: &Batch) -> Vec<String> {
    let block = Block::open(batch.append.block.clone()).unwrap();
    block.iter().map(|e| String::from_utf8(e.payload.to_vec()).unwrap()).collect()
}

/// An epoch of a stream: its segments are numbered from `number` on.
fn view(epoch: u32, number: u32, ranges: &[KeyRange]) -> StreamDescription {
    let segment = |(n, range): (u32, &KeyRange)| SegmentRange {
        segment: SegmentId { stream: 1, epoch, number: number + n },
        container: ContainerId(0),
        range: *range,
    };
    let segments = (0..).zip(ranges).map(segment).collect();
    let mut view = StreamDescription::new((1, Timestamp::default()), "team".parse().unwrap(), index(), segments);
    view.epoch = epoch;
    view
}

fn sealed(batch: Batch) -> (SegmentId, usize, Fate) {
    (batch.segment.segment, batch.bytes, Fate::Sealed(reopen(batch.append.block, batch.sent)))
}

#[test]
fn one_block_of_a_segment_is_in_flight_and_the_rest_gathers() {
    let (mut gather, index) = gather(1 << 20);
    gather.push(&index, range(0), event("a")).unwrap();
    let first = gather.next_batch().unwrap();
    gather.push(&index, range(0), event("b")).unwrap();
    gather.push(&index, range(0), event("c")).unwrap();
    gather.push(&index, range(1), event("other")).unwrap();
    assert_eq!(texts(&gather.next_batch().unwrap()), ["other"]);
    assert!(gather.next_batch().is_none(), "the first block is in flight");
    gather.done(first.segment.segment, first.bytes, Fate::Stored(1));
    let second = gather.next_batch().unwrap();
    assert_eq!(texts(&second), ["b", "c"]);
    assert_eq!((first.append.first_event_number, second.append.first_event_number), (1, 2));
    assert_eq!(first.append.writer, second.append.writer);
}

#[test]
fn numbers_are_used_again_only_where_that_is_safe() {
    for (fate, number, same) in [(Fate::NotStored, 1, true), (Fate::Unknown, 1, false), (Fate::Stored(1), 2, true)] {
        let (mut gather, index) = gather(1 << 20);
        gather.push(&index, range(0), event("a")).unwrap();
        let first = gather.next_batch().unwrap();
        gather.push(&index, range(0), event("b")).unwrap();
        gather.done(first.segment.segment, first.bytes, fate.clone());
        let second = gather.next_batch().unwrap();
        assert_eq!(second.append.first_event_number, number, "{fate:?}");
        assert_eq!(second.append.writer == first.append.writer, same, "{fate:?}");
    }
}

#[test]
fn a_full_lane_gives_back_and_goes_on_when_there_is_room() {
    let (mut gather, index) = gather(2 * (EVENT_OVERHEAD + 1));
    gather.push(&index, range(0), event("a")).unwrap();
    gather.push(&index, range(0), event("b")).unwrap();
    assert_eq!(gather.push(&index, range(0), event("c")).unwrap_err(), event("c"));
    let batch = gather.next_batch().unwrap();
    assert!(gather.push(&index, range(0), event("c")).is_err(), "what is in flight counts");
    gather.done(batch.segment.segment, batch.bytes, Fate::Stored(2));
    gather.push(&index, range(0), event("c")).unwrap();
    assert_eq!(gather.abandon().collect::<Vec<_>>(), [(index, [event("c")].into())]);
}

#[test]
fn large_events_make_blocks_of_their_own() {
    let (mut gather, index) = gather(8 << 20);
    let large = "x".repeat(BLOCK_BYTES_MAX);
    gather.push(&index, range(0), event(&large)).unwrap();
    gather.push(&index, range(0), event("small")).unwrap();
    let batch = gather.next_batch().unwrap();
    assert_eq!(batch.sent.len(), 1);
    gather.done(batch.segment.segment, batch.bytes, Fate::Stored(1));
    assert_eq!(texts(&gather.next_batch().unwrap()), ["small"]);
}

#[test]
fn a_sealed_segment_gives_its_events_to_its_successors_in_order() {
    let (mut gather, index) = gather(1 << 20);
    let (low, high) = (0, u64::MAX);
    let old = view(0, 0, &KeyRange::split_evenly(1));
    let new = view(1, 1, &KeyRange::split_evenly(2));
    gather.push(&index, old.segments[0], keyed("low 1", low)).unwrap();
    gather.push(&index, old.segments[0], keyed("high 1", high)).unwrap();
    let batch = gather.next_batch().unwrap();
    let bytes = gather.bytes;
    gather.push(&index, old.segments[0], keyed("low 2", low)).unwrap();
    // The new view is known before the block comes back: what follows waits behind it.
    gather.push(&index, new.segments[0], keyed("low 3", low)).unwrap();
    assert!(!gather.has_ready());
    let (segment, sent, fate) = sealed(batch);
    assert_eq!(sent, bytes);
    gather.done(segment, sent, fate);
    assert!(gather.has_sealed() && !gather.has_ready());
    assert!(gather.settle(&index, Some(&old)).is_empty(), "the view still holds the segment");
    assert_eq!(gather.sealed_indexes().len(), 1);
    assert!(gather.settle(&index, Some(&new)).is_empty());
    assert!(!gather.has_sealed());
    let (first, second) = (gather.next_batch().unwrap(), gather.next_batch().unwrap());
    assert_eq!((first.segment, texts(&first)), (new.segments[0], vec!["low 1".into(), "low 2".into(), "low 3".into()]));
    assert_eq!((second.segment, texts(&second)), (new.segments[1], vec!["high 1".to_owned()]));
    assert_eq!((first.append.first_event_number, second.append.first_event_number), (1, 1));
    gather.done(new.segments[0].segment, first.bytes, Fate::Stored(3));
    gather.done(new.segments[1].segment, second.bytes, Fate::Stored(1));
    assert_eq!(gather.bytes, 0);
}

#[test]
fn events_without_a_successor_are_refused() {
    let new = view(1, 1, &KeyRange::split_evenly(2));
    let mut over = new.clone();
    over.sealed = true;
    let mut again = new.clone();
    again.stream = 2;
    let hole = view(1, 1, &KeyRange::split_evenly(2)[1..]);
    for (view, why) in [
        (None, Lost::Deleted),
        (Some(&again), Lost::Deleted),
        (Some(&over), Lost::Sealed),
        (Some(&hole), Lost::NoSegment),
    ] {
        let (mut gather, index) = gather(1 << 20);
        gather.push(&index, range(0), event("sent")).unwrap();
        let batch = gather.next_batch().unwrap();
        gather.push(&index, range(0), event("waits")).unwrap();
        assert!(gather.settle(&index, view).is_empty(), "what is in flight may still be stored");
        let (segment, bytes, fate) = sealed(batch);
        gather.done(segment, bytes, fate);
        let told = gather.settle(&index, view);
        assert_eq!(told, [(event("sent"), why), (event("waits"), why)], "whole, so that they can be given back");
        assert_eq!((gather.bytes, gather.has_sealed(), gather.has_ready()), (0, false, false));
    }
}

#[test]
fn events_wait_for_successors_only_so_long() {
    let (mut gather, index) = gather(1 << 20);
    let at = |ms, text: &str| Waiting { received: Timestamp::from_millis(ms), ..event(text) };
    gather.push(&index, range(0), at(10, "early")).unwrap();
    let (segment, bytes, fate) = sealed(gather.next_batch().unwrap());
    gather.push(&index, range(1), at(1, "of an open segment")).unwrap();
    gather.done(segment, bytes, fate);
    gather.push(&index, range(0), at(20, "late")).unwrap();
    assert!(gather.expire(Timestamp::from_millis(9)).is_empty());
    assert_eq!(gather.expire(Timestamp::from_millis(19)), [(index.clone(), at(10, "early"))]);
    assert!(gather.has_sealed());
    assert_eq!(gather.expire(Timestamp::MAX), [(index.clone(), at(20, "late"))]);
    assert!(!gather.has_sealed());
    // The segment may be asked again, by a writer of its own.
    gather.push(&index, range(0), event("next")).unwrap();
    let open = gather.next_batch().unwrap();
    gather.done(open.segment.segment, open.bytes, Fate::Stored(1));
    let again = gather.next_batch().unwrap();
    assert_eq!(texts(&again), ["next"]);
    assert_ne!(again.append.writer, open.append.writer);
}

#[test]
fn segments_that_were_followed_are_forgotten() {
    let (mut gather, index) = gather(1 << 20);
    for epoch in 0..50 {
        let view = view(epoch, epoch, &KeyRange::split_evenly(1));
        gather.push(&index, view.segments[0], event("e")).unwrap();
        let batch = gather.next_batch().unwrap();
        gather.done(batch.segment.segment, batch.bytes, Fate::Stored(1));
    }
    assert_eq!(gather.queues.len(), 1);
}

/// Keys of the simulation; their hashes are spread over the whole space.
const KEYS: u64 = 6;

fn hash_of(key: u64) -> u64 {
    key * (u64::MAX / (KEYS - 1))
}

/// What the segment store and the coordinator would hold.
struct Truth {
    /// What the coordinator knows; the lane's view is a copy of some earlier instant.
    now: StreamDescription,
    sealed: BTreeSet<SegmentId>,
    last: BTreeMap<(SegmentId, WriterId), u64>,
    /// Keys and numbers of events in the order in which they were stored.
    stored: Vec<(u64, u64)>,
    next_number: u32,
}

impl Truth {
    fn new() -> Self {
        let now = view(0, 0, &KeyRange::split_evenly(1));
        Self { now, sealed: BTreeSet::new(), last: BTreeMap::new(), stored: Vec::new(), next_number: 1 }
    }

    /// Splits a segment, or merges it with its neighbour.
    fn scale(&mut self, which: usize, split: bool) {
        let at = which % self.now.segments.len();
        let ended = if split { 1 } else { 2.min(self.now.segments.len() - at) };
        let (first, last) = (self.now.segments[at].range.first, self.now.segments[at + ended - 1].range.last);
        let middle = first + (last - first) / 2;
        let ranges = match split && middle < last {
            true => vec![KeyRange { first, last: middle }, KeyRange { first: middle + 1, last }],
            false => vec![KeyRange { first, last }],
        };
        let created = view(self.now.epoch + 1, self.next_number, &ranges).segments;
        self.next_number += u32::try_from(created.len()).unwrap();
        self.now.epoch += 1;
        self.sealed.extend(self.now.segments.splice(at..at + ended, created).map(|ended| ended.segment));
    }

    /// Applies a block as a container would; false if the segment is sealed.
    fn apply(&mut self, batch: &Batch) -> bool {
        let append = &batch.append;
        if self.sealed.contains(&append.segment) {
            return false;
        }
        let last = self.last.entry((append.segment, append.writer.clone())).or_insert(0);
        assert_eq!(append.first_event_number, *last + 1, "a gap, or numbers used twice");
        *last += u64::try_from(batch.sent.len()).unwrap();
        for text in texts(batch) {
            let (key, n) = text.split_once(' ').unwrap();
            let (key, n) = (key.parse().unwrap(), n.parse().unwrap());
            assert!(batch.segment.range.contains(hash_of(key)), "an event in a segment that does not take its key");
            self.stored.push((key, n));
        }
        true
    }
}

/// A lane between producers and the truth.
struct Run {
    gather: Gather,
    view: StreamDescription,
    truth: Truth,
    flying: Vec<Batch>,
    pushed: u64,
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

impl Run {
    fn push(&mut self, key: u64) {
        let route = self.view.route_hash(hash_of(key)).unwrap();
        let event = keyed(&format!("{key} {}", self.pushed), hash_of(key));
        let event = Waiting { received: Timestamp::from_millis(i64::try_from(self.pushed).unwrap()), ..event };
        self.pushed += 1;
        self.gather.push(&index(), route, event).unwrap();
    }

    fn land(&mut self, which: usize, dice: u8) {
        if self.flying.is_empty() {
            return;
        }
        let batch = self.flying.remove(which % self.flying.len());
        let (segment, bytes, count) = (batch.segment.segment, batch.bytes, batch.sent.len());
        let fate = match dice % 8 {
            0 => {
                self.refused.extend(texts(&batch));
                Fate::NotStored
            }
            dice @ (1 | 2) => {
                // An answer was lost: on its way to or from the segment.
                let stored = dice == 1 && self.truth.apply(&batch);
                if !stored {
                    self.unknown.extend(texts(&batch));
                }
                Fate::Unknown
            }
            _ if self.truth.apply(&batch) => Fate::Stored(u64::try_from(count).unwrap()),
            _ => sealed(batch).2,
        };
        let settles = matches!(fate, Fate::Sealed(_));
        self.gather.done(segment, bytes, fate);
        if settles {
            self.settle();
        }
    }

    fn look(&mut self) {
        self.view = self.truth.now.clone();
        if self.gather.has_sealed() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        assert!(self.gather.settle(&index(), Some(&self.view)).is_empty());
    }

    fn expire(&mut self) {
        let at = Timestamp::from_millis(i64::try_from(self.pushed).unwrap() - 20);
        self.refused.extend(self.gather.expire(at).into_iter().map(|(_, event)| event.ask.reply.unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Through any scale, whatever becomes of blocks and however old the lane's view is.
    #[test]
    fn every_event_leaves_once_and_in_the_order_of_its_key(
        steps in prop::collection::vec((0u8..12, any::<u8>()), 1..400),
    ) {
        let truth = Truth::new();
        let (flying, refused, unknown) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let gather = gather(usize::MAX / 2).0;
        let mut run = Run { gather, view: truth.now.clone(), truth, flying, pushed: 0, refused, unknown };
        for (step, dice) in steps {
            match step {
                0 | 1 => run.flying.extend(run.gather.next_batch()),
                2..=4 => run.land(usize::from(dice / 8), dice),
                5 => run.truth.scale(usize::from(dice / 2), dice % 2 == 0),
                6 => run.look(),
                7 if dice < 16 => run.expire(),
                _ => run.push(u64::from(dice) % KEYS),
            }
        }
        // Nothing fails any more.
        run.look();
        for _ in 0..1_000 {
            run.flying.extend(run.gather.next_batch());
            run.land(0, 7);
        }
        prop_assert_eq!((run.gather.bytes, run.gather.has_ready(), run.gather.has_sealed()), (0, false, false));
        let mut seen = BTreeSet::new();
        let mut last = BTreeMap::new();
        for (key, n) in &run.truth.stored {
            prop_assert!(last.insert(*key, *n).is_none_or(|before| before < *n), "key {} is out of order at {}", key, n);
            seen.insert(format!("{key} {n}"));
        }
        prop_assert_eq!(seen.len(), run.truth.stored.len(), "an event was stored twice");
        prop_assert!(seen.is_disjoint(&run.refused) && seen.is_disjoint(&run.unknown));
        prop_assert_eq!(seen.len() + run.refused.len() + run.unknown.len(), usize::try_from(run.pushed).unwrap());
    }
}
