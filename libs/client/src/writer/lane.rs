//! The events of a writer for one segment, in order. Pure.

use std::{collections::VecDeque, time::Duration};

use types::{SegmentId, hash64};
use wire::{Outcome, Problem, coordinator::SegmentRange};

use super::block::{Block, Fate, Filling, Payload};
use crate::patience::backoff;

/// What the writer knows of the segment's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbering {
    /// To be asked for.
    Unknown,
    /// Asked for.
    Asked,
    /// The number of the next event.
    Next(u64),
}

/// How often something failed in a row, and when it may be tried again.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    failures: u32,
    pub(super) retry_at: Duration,
    pub(super) last: Option<Problem>,
}

impl Trouble {
    /// Takes note of a failure; `salt` spreads writers that fail together.
    pub(super) fn note(&mut self, problem: Problem, salt: u64, now: Duration) {
        let mut seed = salt.to_le_bytes().to_vec();
        seed.extend_from_slice(&self.failures.to_le_bytes());
        // 32 bits of the hash as a fraction.
        let roll = f64::from(u32::try_from(hash64(&seed) >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        self.retry_at = now + backoff(self.failures, &problem, roll);
        self.failures += 1;
        self.last = Some(problem);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The queue of one segment.
#[derive(Debug)]
pub(super) struct Lane<S> {
    pub(super) place: SegmentRange,
    pub(super) numbering: Numbering,
    /// Closed blocks; those at the front have numbers.
    pub(super) queue: VecDeque<Block<S>>,
    pub(super) open: Filling<S>,
    /// The segment said that it takes no more, or that it is not there.
    pub(super) refused: bool,
    /// The stream's description does not name the segment any more.
    pub(super) ended: bool,
    /// What is open goes as soon as it can.
    pub(super) hurry: bool,
    /// Nothing is sent until the numbers are asked for again.
    pub(super) renumber: bool,
    pub(super) trouble: Trouble,
    /// When something was last acknowledged, or the first event came.
    pub(super) progress_at: Duration,
}

impl<S: Fate> Lane<S> {
    pub(super) fn new(place: SegmentRange, numbering: Numbering) -> Self {
        Self {
            place,
            numbering,
            queue: VecDeque::new(),
            open: Filling::default(),
            refused: false,
            ended: false,
            hurry: false,
            renumber: false,
            trouble: Trouble::default(),
            progress_at: Duration::ZERO,
        }
    }

    pub(super) fn segment(&self) -> SegmentId {
        self.place.segment
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.open.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queue.iter().filter(|block| block.flight.is_some()).count()
    }

    /// Whether nothing new goes to the segment.
    pub(super) fn is_ending(&self) -> bool {
        self.refused || self.ended
    }

    /// Closes what is open, as block `id`.
    pub(super) fn close_open(&mut self, id: u64) {
        self.hurry = false;
        let block = self.open.close(id);
        self.queue.push_back(block);
    }

    /// Whether what is open could go at once if it were closed.
    pub(super) fn could_send_open(&self, in_flight_max: usize) -> bool {
        !self.open.is_empty()
            && !self.is_ending()
            && !self.renumber
            && matches!(self.numbering, Numbering::Next(_))
            && self.queue.len() < in_flight_max
            && self.queue.iter().all(|block| block.flight.is_some())
    }

    /// The block that goes next, by its place in the queue.
    ///
    /// Blocks go in order. To a segment that ended only those go of which it is not known whether it has them: it answers
    /// for certain, because its last number does not change any more.
    pub(super) fn sendable(&self, now: Duration, in_flight_max: usize) -> Option<usize> {
        if now < self.trouble.retry_at || (self.renumber && !self.is_ending()) {
            return None;
        }
        let mut flying = 0;
        for (at, block) in self.queue.iter().enumerate() {
            if block.flight.is_some() {
                flying += 1;
                if flying >= in_flight_max {
                    return None;
                }
                continue;
            }
            if matches!(block.payload, Payload::Spilling(_)) {
                return None;
            }
            if self.is_ending() {
                return (block.unknown && !block.refused).then_some(at);
            }
            let in_turn = !block.early || at == 0;
            return (in_turn && matches!(self.numbering, Numbering::Next(_))).then_some(at);
        }
        None
    }

    /// Gives the block its numbers, unless it has them.
    pub(super) fn number(&mut self, at: usize) -> Option<u64> {
        let block = self.queue.get_mut(at)?;
        if let Some(first) = block.first {
            return Some(first);
        }
        let Numbering::Next(next) = self.numbering else { return None };
        block.first = Some(next);
        self.numbering = Numbering::Next(next + u64::from(block.count));
        Some(next)
    }

    /// Takes note of the last number that the segment has: new blocks are numbered behind it, and behind those that have numbers.
    pub(super) fn known_last(&mut self, last: u64) {
        let numbered = self.queue.iter().filter_map(|block| Some(block.first? + u64::from(block.count)));
        self.numbering = Numbering::Next(numbered.max().unwrap_or(0).max(last + 1));
    }

    /// Nothing that is numbered from `at` on is in the segment, which is sealed: what has a higher number than an event that
    /// a sealed segment does not have is not there either.
    pub(super) fn refuse_from(&mut self, at: usize) {
        self.refused = true;
        for block in self.queue.iter_mut().skip(at).filter(|block| block.first.is_some()) {
            (block.refused, block.flight, block.unknown) = (true, None, false);
        }
    }

    /// Forgets all numbers, once nothing is under way; false if some block may be stored under its number.
    pub(super) fn forget_numbers(&mut self) -> bool {
        if self.in_flight() > 0 {
            return true;
        }
        if self.queue.iter().any(|block| block.unknown) {
            return false;
        }
        self.queue.iter_mut().for_each(|block| (block.first, block.early, block.attempts) = (None, false, 0));
        (self.renumber, self.numbering) = (false, Numbering::Unknown);
        true
    }

    /// Whether it has had no answer for so long.
    pub(super) fn is_stalled(&self, now: Duration, after: Duration) -> bool {
        !self.is_empty() && now.saturating_sub(self.progress_at) >= after
    }

    /// The newest block that could leave memory.
    pub(super) fn spillable(&self) -> Option<usize> {
        self.queue.iter().rposition(|block| block.flight.is_none() && matches!(block.payload, Payload::Memory(_)))
    }

    pub(super) fn in_memory(&self) -> usize {
        self.open.bytes + self.queue.iter().map(Block::in_memory).sum::<usize>()
    }
}

impl<S> Block<S> {
    /// Takes note of an attempt that failed in a way that may pass.
    pub(super) fn failed(&mut self, problem: &Problem) {
        self.flight = None;
        self.waits.note(problem);
        self.unknown |= problem.outcome == Outcome::Unknown;
    }
}
