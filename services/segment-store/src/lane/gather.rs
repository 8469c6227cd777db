//! Which events of a lane wait for which segment, and which block goes next. Pure.
//!
//! When a stream scales, segments end and others take over their keys. All events of one key that are not durable yet are
//! always in one queue: an event joins the oldest queue that holds anything and takes its key, so that it overtakes
//! nothing that came before it. A sealed segment gives its block back to the front of its queue, which then sends nothing
//! more; as soon as the stream's view names the successors, its events go over to them by the hashes of their keys. So a
//! successor's block never holds a key for which an older segment's queue still holds an event.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use bytes::Bytes;
use types::{IndexName, SegmentId, Timestamp, WriterId};
use wire::{
    block::{Block, BlockBuilder, EVENTS_MAX},
    coordinator::{SegmentRange, StreamDescription},
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
    /// The place of its key in the hash space: which segment of a later epoch takes it.
    pub(crate) hash: u64,
    pub(crate) ask: Ask,
}

/// What is remembered of an event while its block is on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) hash: u64,
    pub(crate) ask: Ask,
}

/// A block on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) index: IndexName,
    pub(crate) segment: SegmentRange,
    pub(crate) append: Append,
    pub(crate) sent: Vec<Sent>,
    /// What it counts against the lane's bound.
    pub(crate) bytes: usize,
}

/// What became of a block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// Its events have their numbers.
    Stored(u64),
    /// Certainly nothing of it is there: its numbers are free.
    NotStored,
    /// It may be there or still arrive: its writer must never write again, else a later block with the same numbers
    /// would be taken for a repeat and lost.
    Unknown,
    /// The segment takes nothing more and certainly has nothing of it: here are its events again, see [`reopen`].
    Sealed(Vec<Waiting>),
}

/// Why an event that waited for the successors of a segment has nowhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The stream is gone.
    Deleted,
    /// The stream as a whole takes nothing more.
    Sealed,
    /// The stream's view has no segment for its key.
    NoSegment,
}

/// The events of one lane by segment.
pub(crate) struct Gather {
    prefix: String,
    writers: u64,
    bytes_max: usize,
    bytes: usize,
    /// By segment, hence by stream and, within it, the oldest first.
    queues: BTreeMap<SegmentId, Queue>,
    /// Open segments with events and no block in flight.
    ready: VecDeque<SegmentId>,
    /// Sealed segments with events.
    sealed: BTreeSet<SegmentId>,
}

struct Queue {
    index: IndexName,
    segment: SegmentRange,
    writer: WriterId,
    next_number: u64,
    in_flight: bool,
    /// Nothing is sent any more: the segment's successors are awaited.
    sealed: bool,
    waiting: VecDeque<Waiting>,
}

impl Queue {
    fn holds_anything(&self) -> bool {
        self.in_flight || !self.waiting.is_empty()
    }
}

impl Gather {
    /// Begins empty; `prefix` is a token that no other gather ever had.
    pub(crate) fn new(prefix: String, bytes_max: usize) -> Self {
        let (queues, ready, sealed) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        Self { prefix, writers: 0, bytes_max, bytes: 0, queues, ready, sealed }
    }

    /// Takes an event for the segment that the stream's view names, or gives it back if the lane is full.
    pub(crate) fn push(&mut self, index: &IndexName, segment: SegmentRange, event: Waiting) -> Result<(), Waiting> {
        let cost = cost(&event);
        if self.bytes + cost > self.bytes_max {
            return Err(event);
        }
        self.bytes += cost;
        self.place(index, segment, event);
        Ok(())
    }

    /// Whether a block could go.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether events wait for the successors of their segment.
    pub(crate) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The indexes whose events wait for successors.
    pub(crate) fn sealed_indexes(&self) -> BTreeSet<IndexName> {
        self.sealed.iter().filter_map(|segment| self.queues.get(segment)).map(|queue| queue.index.clone()).collect()
    }

    /// The next block; its segment is in flight until [`Gather::done`].
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let queue = self.queues.get_mut(&self.ready.pop_front()?)?;
        queue.in_flight = true;
        let mut block = BlockBuilder::new();
        let mut sent = Vec::new();
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
            sent.push(Sent { hash: event.hash, ask: event.ask });
        }
        let append = Append {
            segment: queue.segment.segment,
            writer: queue.writer.clone(),
            first_event_number: queue.next_number,
            block: block.finish(),
            expected_end: None,
        };
        Some(Batch { index: queue.index.clone(), segment: queue.segment, append, sent, bytes })
    }

    /// Takes note of what became of a block.
    pub(crate) fn done(&mut self, segment: SegmentId, bytes: usize, fate: Fate) {
        if !matches!(fate, Fate::Sealed(_)) {
            self.bytes -= bytes;
        }
        let fresh = (fate == Fate::Unknown).then(|| self.new_writer());
        let Some(queue) = self.queues.get_mut(&segment) else { return };
        queue.in_flight = false;
        match fate {
            Fate::Stored(count) => queue.next_number += count,
            Fate::NotStored => {}
            Fate::Unknown => {
                if let Some(fresh) = fresh {
                    (queue.writer, queue.next_number) = (fresh, 1);
                }
            }
            Fate::Sealed(events) => {
                events.into_iter().rev().for_each(|event| queue.waiting.push_front(event));
                queue.sealed = true;
                self.sealed.insert(segment);
            }
        }
        if !queue.sealed && !queue.waiting.is_empty() {
            self.ready.push_back(segment);
        }
    }

    /// Moves the events of segments that the stream holds no more to those that took over their keys; answers those that are
    /// to be refused because there is none. What is in flight stays until it is [`Gather::done`].
    pub(crate) fn settle(&mut self, index: &IndexName, view: Option<&StreamDescription>) -> Vec<(Waiting, Lost)> {
        let held = |segment: &SegmentId| {
            view.is_some_and(|view| !view.sealed && view.segments.iter().any(|range| range.segment == *segment))
        };
        let of_index = self.queues.iter().filter(|(_, queue)| queue.index == *index && !queue.in_flight);
        let over: Vec<SegmentId> = of_index.map(|(segment, _)| *segment).filter(|segment| !held(segment)).collect();
        let mut lost = Vec::new();
        for segment in over {
            for event in self.remove(segment) {
                let why = match view {
                    Some(view) if view.stream == segment.stream && view.sealed => Lost::Sealed,
                    Some(view) if view.stream == segment.stream => match view.route_hash(event.hash) {
                        Some(route) => {
                            self.place(index, route, event);
                            continue;
                        }
                        None => Lost::NoSegment,
                    },
                    _ => Lost::Deleted,
                };
                self.bytes -= cost(&event);
                lost.push((event, why));
            }
        }
        lost
    }

    /// Gives up the events that came no later than `at` and still wait for successors; answers them with their indexes.
    pub(crate) fn expire(&mut self, at: Timestamp) -> Vec<(IndexName, Waiting)> {
        let mut late = Vec::new();
        for segment in self.sealed.clone() {
            let Some(queue) = self.queues.get_mut(&segment) else { continue };
            let (expired, kept) = queue.waiting.drain(..).partition::<VecDeque<_>, _>(|event| event.received <= at);
            queue.waiting = kept;
            self.bytes -= expired.iter().map(cost).sum::<usize>();
            late.extend(expired.into_iter().map(|event| (queue.index.clone(), event)));
            if queue.waiting.is_empty() {
                self.remove(segment);
            }
        }
        late
    }

    /// Gives up everything that waits; answers it by index.
    pub(crate) fn abandon(self) -> impl Iterator<Item = (IndexName, VecDeque<Waiting>)> {
        let held = self.queues.into_values().filter(|queue| !queue.waiting.is_empty());
        held.map(|queue| (queue.index, queue.waiting))
    }

    /// Puts an event behind what is there of its key, else into the queue of the segment named.
    fn place(&mut self, index: &IndexName, route: SegmentRange, event: Waiting) {
        let before =
            |(_, queue): &(&SegmentId, &Queue)| queue.holds_anything() && queue.segment.range.contains(event.hash);
        let older = self.queues.range(older_than(route.segment)).find(before);
        let segment = older.map_or(route, |(_, queue)| queue.segment);
        if !self.queues.contains_key(&segment.segment) {
            self.open(index, segment);
        }
        let Some(queue) = self.queues.get_mut(&segment.segment) else { return };
        if !queue.holds_anything() && !queue.sealed {
            self.ready.push_back(segment.segment);
        }
        queue.waiting.push_back(event);
    }

    fn open(&mut self, index: &IndexName, segment: SegmentRange) {
        // What it takes over from gets no event any more.
        let older = self.queues.range(older_than(segment.segment));
        let followed =
            older.filter(|(_, queue)| !queue.holds_anything() && queue.segment.range.overlaps(segment.range));
        for id in followed.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.queues.remove(&id);
        }
        if self.queues.len() >= IDLE_MAX {
            self.queues.retain(|_, queue| queue.holds_anything());
        }
        let queue = Queue {
            index: index.clone(),
            segment,
            writer: self.new_writer(),
            next_number: 1,
            in_flight: false,
            sealed: false,
            waiting: VecDeque::new(),
        };
        self.queues.insert(segment.segment, queue);
    }

    /// Forgets a segment that has nothing in flight; answers what waited for it.
    fn remove(&mut self, segment: SegmentId) -> VecDeque<Waiting> {
        self.sealed.remove(&segment);
        self.ready.retain(|ready| *ready != segment);
        self.queues.remove(&segment).map(|queue| queue.waiting).unwrap_or_default()
    }

    fn new_writer(&mut self) -> WriterId {
        self.writers += 1;
        let id = format!("{}-{}", self.prefix, self.writers);
        id.parse().expect("numbers and dashes make a token")
    }
}

/// The events of a block that was sent, as they were before.
pub(crate) fn reopen(block: Bytes, sent: Vec<Sent>) -> Vec<Waiting> {
    let block = Block::open(block).expect("a block that was built here");
    let events = block.iter().zip(sent);
    events
        .map(|(event, Sent { hash, ask })| Waiting {
            payload: event.payload,
            received: event.received,
            id: event.id,
            hash,
            ask,
        })
        .collect()
}

/// Segments of the same stream and earlier epochs: everything that the segment can have followed.
fn older_than(segment: SegmentId) -> Range<SegmentId> {
    let first = SegmentId { epoch: 0, number: 0, ..segment };
    first..SegmentId { number: 0, ..segment }
}

fn cost(event: &Waiting) -> usize {
    event.payload.len() + EVENT_OVERHEAD
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
