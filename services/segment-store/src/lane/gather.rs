//! Which events of a lane wait for which segment, and which block goes next. Pure.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use types::{IndexName, SegmentId, Timestamp, WriterId};
use wire::{
    block::{BlockBuilder, EVENTS_MAX},
    coordinator::SegmentRange,
    segment_store::Append,
};

/// A block is closed at this size: a full frame of the default settings.
const BLOCK_BYTES_MAX: usize = 512 << 10;
/// What an event counts besides its payload.
const EVENT_OVERHEAD: usize = 128;
/// Segments remembered without an event that waits; beyond it one gets a new writer when it is needed again.
const IDLE_MAX: usize = 4_096;

/// Who waits for an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    /// Where to; `None` for at most once.
    pub(crate) reply: Option<String>,
    /// Whether the producer named its message, so that it can be told of a duplicate.
    pub(crate) has_id: bool,
}

/// An event that is not appended yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) payload: Bytes,
    pub(crate) received: Timestamp,
    pub(crate) id: u128,
    pub(crate) ask: Ask,
}

/// A block on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) index: IndexName,
    pub(crate) segment: SegmentRange,
    pub(crate) append: Append,
    pub(crate) asks: Vec<Ask>,
    /// What it counts against the lane's bound.
    pub(crate) bytes: usize,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    /// Its events have their numbers.
    Stored(u64),
    /// Certainly nothing of it is there: its numbers are free.
    NotStored,
    /// It may be there or still arrive: its writer must never write again, else a later block with the same numbers
    /// would be taken for a repeat and lost.
    Unknown,
}

/// The events of one lane by segment.
pub(crate) struct Gather {
    prefix: String,
    writers: u64,
    bytes_max: usize,
    bytes: usize,
    queues: HashMap<SegmentId, Queue>,
    /// Segments with events and no block in flight.
    ready: VecDeque<SegmentId>,
}

struct Queue {
    index: IndexName,
    segment: SegmentRange,
    writer: WriterId,
    next_number: u64,
    in_flight: bool,
    waiting: VecDeque<Waiting>,
}

impl Gather {
    /// Begins empty; `prefix` is a token that no other gather ever had.
    pub(crate) fn new(prefix: String, bytes_max: usize) -> Self {
        Self { prefix, writers: 0, bytes_max, bytes: 0, queues: HashMap::new(), ready: VecDeque::new() }
    }

    /// Takes an event, or gives it back if the lane is full.
    pub(crate) fn push(&mut self, index: &IndexName, segment: SegmentRange, event: Waiting) -> Result<(), Waiting> {
        let cost = cost(&event);
        if self.bytes + cost > self.bytes_max {
            return Err(event);
        }
        if !self.queues.contains_key(&segment.segment) {
            if self.queues.len() >= IDLE_MAX {
                self.queues.retain(|_, queue| queue.in_flight || !queue.waiting.is_empty());
            }
            let writer = self.new_writer();
            let queue = Queue {
                index: index.clone(),
                segment,
                writer,
                next_number: 1,
                in_flight: false,
                waiting: VecDeque::new(),
            };
            self.queues.insert(segment.segment, queue);
        }
        if let Some(queue) = self.queues.get_mut(&segment.segment) {
            if !queue.in_flight && queue.waiting.is_empty() {
                self.ready.push_back(segment.segment);
            }
            queue.waiting.push_back(event);
            self.bytes += cost;
        }
        Ok(())
    }

    /// Whether a block could go.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next block; its segment is in flight until [`Gather::done`].
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let queue = self.queues.get_mut(&self.ready.pop_front()?)?;
        queue.in_flight = true;
        let mut block = BlockBuilder::new();
        let mut asks = Vec::new();
        let mut bytes = 0;
        while let Some(event) = queue.waiting.front() {
            let full = block.len() >= EVENTS_MAX || block.bytes() + event.payload.len() > BLOCK_BYTES_MAX;
            if full && !block.is_empty() {
                break;
            }
            let Some(event) = queue.waiting.pop_front() else { break };
            bytes += cost(&event);
            // The size was checked at the door, and the count just now.
            let taken = block.push(event.received, event.id, &event.payload);
            debug_assert!(taken, "a block takes an event that the door let in");
            asks.push(event.ask);
        }
        let append = Append {
            segment: queue.segment.segment,
            writer: queue.writer.clone(),
            first_event_number: queue.next_number,
            block: block.finish(),
            expected_end: None,
        };
        Some(Batch { index: queue.index.clone(), segment: queue.segment, append, asks, bytes })
    }

    /// Takes note of what became of a block.
    pub(crate) fn done(&mut self, segment: SegmentId, bytes: usize, fate: Fate) {
        self.bytes -= bytes;
        let fresh = (fate == Fate::Unknown).then(|| self.new_writer());
        let Some(queue) = self.queues.get_mut(&segment) else { return };
        match (fate, fresh) {
            (Fate::Stored(count), _) => queue.next_number += count,
            (_, Some(fresh)) => (queue.writer, queue.next_number) = (fresh, 1),
            _ => {}
        }
        queue.in_flight = false;
        if !queue.waiting.is_empty() {
            self.ready.push_back(segment);
        }
    }

    /// Gives up everything that waits; answers who is to be told.
    pub(crate) fn abandon(self) -> impl Iterator<Item = Ask> {
        self.queues.into_values().flat_map(|queue| queue.waiting).map(|event| event.ask)
    }

    fn new_writer(&mut self) -> WriterId {
        self.writers += 1;
        let id = format!("{}-{}", self.prefix, self.writers);
        id.parse().expect("numbers and dashes make a token")
    }
}

fn cost(event: &Waiting) -> usize {
    event.payload.len() + EVENT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use types::{ContainerId, KeyRange};
    use wire::block::Block;

    use super::*;

    fn range(number: u32) -> SegmentRange {
        let segment = SegmentId { stream: 1, epoch: 0, number };
        SegmentRange { segment, container: ContainerId(0), range: KeyRange { first: 0, last: u64::MAX } }
    }

    fn event(text: &str) -> Waiting {
        let ask = Ask { reply: Some(text.to_owned()), has_id: false };
        Waiting { payload: Bytes::copy_from_slice(text.as_bytes()), received: Timestamp::default(), id: 0, ask }
    }

    fn gather(bytes_max: usize) -> (Gather, IndexName) {
        (Gather::new("lane-0-1-7".into(), bytes_max), "shop".parse().unwrap())
    }

    fn texts(batch: &Batch) -> Vec<String> {
        let block = Block::open(batch.append.block.clone()).unwrap();
        block.iter().map(|e| String::from_utf8(e.payload.to_vec()).unwrap()).collect()
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
        for (fate, number, same) in [(Fate::NotStored, 1, true), (Fate::Unknown, 1, false), (Fate::Stored(1), 2, true)]
        {
            let (mut gather, index) = gather(1 << 20);
            gather.push(&index, range(0), event("a")).unwrap();
            let first = gather.next_batch().unwrap();
            gather.push(&index, range(0), event("b")).unwrap();
            gather.done(first.segment.segment, first.bytes, fate);
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
        assert_eq!(gather.abandon().count(), 1);
    }

    #[test]
    fn large_events_make_blocks_of_their_own() {
        let (mut gather, index) = gather(8 << 20);
        let large = "x".repeat(BLOCK_BYTES_MAX);
        gather.push(&index, range(0), event(&large)).unwrap();
        gather.push(&index, range(0), event("small")).unwrap();
        let batch = gather.next_batch().unwrap();
        assert_eq!(batch.asks.len(), 1);
        gather.done(batch.segment.segment, batch.bytes, Fate::Stored(1));
        assert_eq!(texts(&gather.next_batch().unwrap()), ["small"]);
    }

    proptest! {
        #[test]
        fn every_event_leaves_once_in_order(steps in prop::collection::vec((0u32..3, 0u8..4), 1..200)) {
            let (mut gather, index) = gather(usize::MAX / 2);
            let mut sent: BTreeMap<SegmentId, Vec<String>> = BTreeMap::new();
            let mut seen: BTreeMap<SegmentId, Vec<String>> = BTreeMap::new();
            let mut flying: Vec<Batch> = Vec::new();
            let mut land = |gather: &mut Gather, batch: Batch| {
                seen.entry(batch.segment.segment).or_default().extend(texts(&batch));
                gather.done(batch.segment.segment, batch.bytes, Fate::Stored(batch.asks.len() as u64));
            };
            for (n, (segment, action)) in steps.into_iter().enumerate() {
                match action {
                    0 => flying.extend(gather.next_batch()),
                    1 if !flying.is_empty() => {
                        let batch = flying.remove(n % flying.len());
                        land(&mut gather, batch);
                    }
                    _ => {
                        let text = n.to_string();
                        sent.entry(range(segment).segment).or_default().push(text.clone());
                        gather.push(&index, range(segment), event(&text)).unwrap();
                    }
                }
            }
            flying.into_iter().for_each(|batch| land(&mut gather, batch));
            while let Some(batch) = gather.next_batch() {
                land(&mut gather, batch);
            }
            prop_assert_eq!(seen, sent);
            prop_assert_eq!((gather.bytes, gather.has_ready()), (0, false));
        }
    }
}
