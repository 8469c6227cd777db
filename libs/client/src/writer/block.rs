//! Events on their way: gathered into a block, numbered, and remembered until their fate is known. Pure.

use std::time::Duration;

use bytes::Bytes;
use types::{Offset, SegmentId, Timestamp};
use wire::{
    block::{BlockBuilder, EVENTS_MAX},
    segment_store::Appended,
};

use crate::{Attempts, error::WriteError};

/// What an event takes besides its payload: its columns in the block, and the hash of its key.
pub(crate) const EVENT_OVERHEAD: usize = 8 + 16 + 4 + 8;

/// What learns the fate of events that were gathered together; cheap to clone, clones are the same.
pub(crate) trait Fate: Clone + Default {
    /// Whether both are the same.
    fn same(&self, other: &Self) -> bool;
    /// Events are stored; `offsets` has one entry for each, or none at all where they are not known.
    fn stored(&self, first: u32, segment: SegmentId, count: u32, offsets: &[Option<Offset>]);
    /// Events were given up.
    fn failed(&self, first: u32, count: u32, error: &WriteError);
}

/// Events `first .. first + count` of those that a fate was promised for.
#[derive(Debug, Clone)]
pub(super) struct Run<S> {
    pub(super) fate: S,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// A block and the hashes of its keys, as they leave memory together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The encoded block.
    pub(crate) block: Bytes,
    /// One hash for each event, eight bytes each, little endian: by these the events find other segments.
    pub(crate) hashes: Bytes,
}

impl Contents {
    /// The hash of event `i`; `None` if there are fewer.
    pub(crate) fn hash(&self, i: usize) -> Option<u64> {
        let word = self.hashes.get(i * 8..i * 8 + 8)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}

/// Where the bytes of a block are.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Memory(Contents),
    /// In memory, while a copy goes to the spill file; it is not sent meanwhile, so that the file knows every number under which
    /// it may be stored.
    Spilling(Contents),
    Spilled(u64),
    /// In the spill file, while it is divided among successors there.
    Dividing(u64),
}

/// A closed block.
#[derive(Debug)]
pub(super) struct Block<S> {
    pub(super) id: u64,
    pub(super) count: u32,
    /// What it counts against the writer's memory.
    pub(super) bytes: usize,
    pub(super) payload: Payload,
    pub(super) runs: Vec<Run<S>>,
    /// The number of its first event, once it has one.
    pub(super) first: Option<u64>,
    /// The attempt that is under way.
    pub(super) flight: Option<u64>,
    pub(super) attempts: u32,
    /// How long the next attempt waits for its answer.
    pub(super) waits: Attempts,
    /// Some attempt may have been applied, or may still be.
    pub(super) unknown: bool,
    /// Its segment is sealed and does not have it.
    pub(super) refused: bool,
    /// Nothing unacknowledged was before it when it was last sent.
    pub(super) led: bool,
    /// Came before the one before it.
    pub(super) early: bool,
}

impl<S: Fate> Run<S> {
    /// Adds one more event to those that come one after another.
    pub(super) fn add(runs: &mut Vec<Self>, fate: &S, place: u32) {
        match runs.last_mut() {
            Some(run) if run.first + run.count == place && run.fate.same(fate) => run.count += 1,
            _ => runs.push(Self { fate: fate.clone(), first: place, count: 1 }),
        }
    }
}

impl<S: Fate> Block<S> {
    /// A block whose bytes are in a file; one that has a number may be stored under it.
    pub(super) fn spilled(
        id: u64,
        key: u64,
        (count, bytes): (u32, usize),
        first: Option<u64>,
        runs: Vec<Run<S>>,
    ) -> Self {
        Self {
            id,
            count,
            bytes,
            payload: Payload::Spilled(key),
            runs,
            first,
            flight: None,
            attempts: u32::from(first.is_some()),
            waits: Attempts::default(),
            unknown: first.is_some(),
            refused: false,
            led: false,
            early: false,
        }
    }

    /// Whose its events are, one after another.
    pub(super) fn places(&self) -> impl Iterator<Item = (&S, u32)> {
        self.runs.iter().flat_map(|run| (run.first..run.first + run.count).map(|at| (&run.fate, at)))
    }

    pub(super) fn in_memory(&self) -> usize {
        match self.payload {
            Payload::Memory(_) | Payload::Spilling(_) => self.bytes,
            Payload::Spilled(_) | Payload::Dividing(_) => 0,
        }
    }

    /// Whether it is certain that its segment does not have it and never will.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.flight.is_none() && (self.refused || !self.unknown)
    }

    pub(super) fn tell_stored(&self, segment: SegmentId, appended: &Appended) {
        let whole = appended.offsets.len() == self.count as usize;
        let mut at = 0;
        for run in &self.runs {
            let next = at + run.count as usize;
            let offsets = if whole { &appended.offsets[at..next] } else { &[] };
            run.fate.stored(run.first, segment, run.count, offsets);
            at = next;
        }
    }

    pub(super) fn tell_failed(&self, error: &WriteError) {
        self.runs.iter().for_each(|run| run.fate.failed(run.first, run.count, error));
    }
}

/// The block to which events are still added.
#[derive(Debug)]
pub(super) struct Filling<S> {
    builder: BlockBuilder,
    hashes: Vec<u8>,
    runs: Vec<Run<S>>,
    /// The fate of the events that begin here, and how many they are.
    own: Option<(S, u32)>,
    pub(super) bytes: usize,
    /// When its first event came.
    pub(super) since: Duration,
}

impl<S: Fate> Default for Filling<S> {
    fn default() -> Self {
        let builder = BlockBuilder::new();
        Self { builder, hashes: Vec::new(), runs: Vec::new(), own: None, bytes: 0, since: Duration::ZERO }
    }
}

impl<S: Fate> Filling<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Whether another event of that size belongs into the same block.
    pub(super) fn fits(&self, length: usize, block_bytes_max: usize) -> bool {
        let room = self.builder.len() < EVENTS_MAX && self.bytes + length + EVENT_OVERHEAD <= block_bytes_max;
        room || self.is_empty()
    }

    /// Adds an event that begins here and answers whose fate it shares, at which place.
    ///
    /// Its size was checked before, and that it fits.
    pub(super) fn push(&mut self, received: Timestamp, hash: u64, payload: &[u8], now: Duration) -> (&S, u32) {
        self.add(received, hash, payload, now);
        let (fate, count) = self.own.get_or_insert_with(|| (S::default(), 0));
        let place = *count;
        *count += 1;
        Run::add(&mut self.runs, fate, place);
        (fate, place)
    }

    /// Adds an event that began elsewhere.
    pub(super) fn carry(&mut self, received: Timestamp, hash: u64, payload: &[u8], whose: (&S, u32), now: Duration) {
        self.add(received, hash, payload, now);
        let (fate, place) = whose;
        Run::add(&mut self.runs, fate, place);
    }

    fn add(&mut self, received: Timestamp, hash: u64, payload: &[u8], now: Duration) {
        if self.is_empty() {
            self.since = now;
        }
        let taken = self.builder.push(received, 0, payload);
        debug_assert!(taken, "a block takes an event that was let in");
        self.hashes.extend_from_slice(&hash.to_le_bytes());
        self.bytes += payload.len() + EVENT_OVERHEAD;
    }

    /// The block; empty afterwards. Its buffers stay for the next one.
    pub(super) fn close(&mut self, id: u64) -> Block<S> {
        let count = u32::try_from(self.builder.len()).unwrap_or(u32::MAX);
        let contents = Contents { block: self.builder.finish(), hashes: Bytes::copy_from_slice(&self.hashes) };
        self.hashes.clear();
        self.own = None;
        Block {
            id,
            count,
            bytes: std::mem::take(&mut self.bytes),
            payload: Payload::Memory(contents),
            runs: std::mem::take(&mut self.runs),
            first: None,
            flight: None,
            attempts: 0,
            waits: Attempts::default(),
            unknown: false,
            refused: false,
            led: false,
            early: false,
        }
    }

    /// Whose the events are.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run<S>> {
        self.runs.iter()
    }
}
