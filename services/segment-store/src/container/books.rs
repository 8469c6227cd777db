//! The books of a container: state, tail and log size, changed together under one lock.

use std::collections::{HashMap, VecDeque};

use types::{ContainerId, SegmentId, Timestamp};

use crate::{
    container::{
        frame::{Entry, Frame},
        state::{Applied, Effect, State},
        tail::Tail,
    },
    error::Damage,
    metrics,
};

/// Whether a container takes requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// Not yet: its log is being read.
    Recovering,
    /// Yes.
    Serving,
    /// Only reads: its log is damaged.
    ReadOnly(Damage),
    /// No more: stopped, or another owner took over.
    Over,
}

/// The state, the events that belong to it, and whether they may be used.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) state: State,
    pub(crate) tail: Tail,
    pub(crate) phase: Phase,
    pub(crate) log: LogSize,
}

/// A record of the log, decoded.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) bytes: u64,
    pub(crate) frame: Frame,
    pub(crate) link: u64,
}

/// By log sequence and place of a block in its frame: the segment that has its events now, and which of its pieces.
pub(crate) type Places = HashMap<(u64, u32), (SegmentId, usize)>;

impl Books {
    /// Nothing yet; the log is counted as one of `log_bytes_max`.
    pub(crate) fn new(container: ContainerId, log_bytes_max: u64) -> Self {
        let (state, tail) = (State::new(container), Tail::default());
        Self { state, tail, phase: Phase::Recovering, log: LogSize::new(log_bytes_max) }
    }

    /// Applies a record to state and tail; `None` if it changes nothing because it is stale or known.
    pub(crate) fn apply(&mut self, record: &Record, now: Timestamp) -> Result<Option<Vec<Effect>>, Damage> {
        let effects = match self.state.apply(record.seq, &record.frame, record.link)? {
            Applied::Frame(effects) => effects,
            Applied::Stale | Applied::Known => return Ok(None),
        };
        self.log.add(record.seq, record.bytes);
        for (entry, effect) in record.frame.entries.iter().zip(&effects) {
            if let Some(segment) = entry.segment() {
                self.follow(segment, entry, effect, now);
            }
        }
        Ok(Some(effects))
    }

    /// Does to the tail what an entry did to the state, and wakes who waits for it.
    fn follow(&mut self, segment: SegmentId, entry: &Entry, effect: &Effect, now: Timestamp) {
        match (entry, effect) {
            (Entry::Append { block, .. }, Effect::Appended { answer, piece }) => {
                metrics::DUPLICATES.add(answer.duplicate_count.into());
                if let Some(piece) = piece {
                    metrics::APPENDED_EVENTS.add(piece.count.into());
                    self.tail.push(segment, piece, block.clone(), now);
                    self.tail.notify(segment);
                }
            }
            (_, Effect::Created) => self.withhold(segment),
            (Entry::Carry { block, .. }, Effect::Carried(piece)) => {
                // Only a replay that began behind its former place finds it missing.
                self.tail.carry(segment, piece, block.clone(), now);
            }
            (Entry::Merge { source, .. }, Effect::Merged(merged)) if !merged.repeated => {
                self.tail.merge(segment, *source, merged.from, now);
                self.tail.notify(segment);
            }
            (_, Effect::Tiered(to)) => self.tail.drop_below(segment, *to),
            (_, Effect::Truncated(info)) => {
                self.tail.drop_below(segment, info.tail_from);
                self.tail.notify(segment);
            }
            (_, Effect::Sealed(_)) => self.tail.notify(segment),
            (_, Effect::Deleted) => self.tail.remove(segment),
            _ => {}
        }
    }

    fn withhold(&mut self, segment: SegmentId) {
        if self.state.segments.get(&segment).is_some_and(|s| s.transactional) {
            self.tail.withhold(segment);
        }
    }

    /// Begins with the state of a snapshot; its tail is put back from the log.
    pub(crate) fn restore(&mut self, state: State) {
        self.state = state;
        let open: Vec<_> = self.state.segments.iter().filter(|(_, s)| s.transactional).map(|(id, _)| *id).collect();
        open.into_iter().for_each(|segment| self.tail.withhold(segment));
    }

    /// Where the events of the state's tail belong.
    ///
    /// The record of a merged event names the transaction's segment; the place of its block in the log is what stays.
    pub(crate) fn places(&self) -> Places {
        let pieces = self.state.segments.iter().flat_map(|(id, s)| s.pieces.iter().enumerate().map(|p| (*id, p)));
        pieces.map(|(id, (at, piece))| ((piece.seq, piece.entry), (id, at))).collect()
    }

    /// Puts back into the tail what a record holds that the restored state names as not yet in Tier 2.
    pub(crate) fn refill(&mut self, record: &Record, places: &Places, now: Timestamp) {
        self.log.add(record.seq, record.bytes);
        for (place, entry) in (0u32..).zip(&record.frame.entries) {
            let (Entry::Append { block, .. } | Entry::Carry { block, .. }) = entry else { continue };
            let Some((segment, at)) = places.get(&(record.seq, place)) else { continue };
            let piece = self.state.segments.get(segment).and_then(|s| s.pieces.get(*at));
            if let Some(piece) = piece {
                self.tail.put_back(*segment, piece, block.clone(), now);
            }
        }
    }

    /// What is wrong after a recovery: events that are nowhere.
    pub(crate) fn holes(&self) -> Option<Damage> {
        let missing =
            |id, segment| self.tail.missing(id, segment).map(|from| Damage::TailMissing { segment: id, from });
        self.state.segments.iter().find_map(|(id, segment)| missing(*id, segment))
    }
}

/// How much the records of the log take, about.
#[derive(Debug)]
pub(crate) struct LogSize {
    /// Bytes of one step.
    step: u64,
    /// `(last sequence, bytes)` of consecutive frames, oldest first.
    steps: VecDeque<(u64, u64)>,
    held: u64,
    written: u64,
}

/// Steps in which a full log is counted.
const STEPS: u64 = 4_096;

impl LogSize {
    fn new(bytes_max: u64) -> Self {
        Self { step: (bytes_max / STEPS).max(1), steps: VecDeque::new(), held: 0, written: 0 }
    }

    fn add(&mut self, seq: u64, payload_bytes: u64) {
        let bytes = payload_bytes + bus::RECORD_OVERHEAD_BYTES;
        self.held += bytes;
        self.written += bytes;
        match self.steps.back_mut() {
            Some(step) if step.1 < self.step => *step = (seq, step.1 + bytes),
            _ => self.steps.push_back((seq, bytes)),
        }
    }

    /// Takes note of a purge.
    pub(crate) fn purged_below(&mut self, seq: u64) {
        while let Some((_, bytes)) = self.steps.front().copied().filter(|(last, _)| *last < seq) {
            self.held -= bytes;
            self.steps.pop_front();
        }
    }

    /// The sequence below which every record has at least `bytes` of others behind it; 0 if there is none.
    pub(crate) fn behind(&self, bytes: u64) -> u64 {
        let mut seen = 0;
        for (last, of_step) in self.steps.iter().rev() {
            if seen >= bytes {
                return last + 1;
            }
            seen += of_step;
        }
        0
    }

    /// Bytes of records before a sequence, in whole steps.
    pub(crate) fn below(&self, seq: u64) -> u64 {
        self.steps.iter().take_while(|(last, _)| *last < seq).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes in the log.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Bytes ever counted; only grows.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 1 << 20;

    #[test]
    fn a_purge_takes_whole_steps() {
        let mut log = LogSize::new(STEPS * STEP);
        (1..=10).for_each(|seq| log.add(seq, STEP / 2 - bus::RECORD_OVERHEAD_BYTES));
        assert_eq!(log.held(), 5 * STEP);
        log.purged_below(2);
        assert_eq!(log.held(), 5 * STEP, "the first step ends with 2");
        log.purged_below(5);
        assert_eq!((log.held(), log.written()), (3 * STEP, 5 * STEP));
        assert_eq!((log.below(6), log.below(7), log.below(11)), (0, STEP, 3 * STEP));
    }

    #[test]
    fn what_stands_far_behind_is_known_by_its_sequence() {
        let mut log = LogSize::new(STEPS * STEP);
        (1..=10).for_each(|seq| log.add(seq, STEP / 2 - bus::RECORD_OVERHEAD_BYTES));
        for (bytes, below) in
            [(0, 11), (1, 9), (STEP, 9), (2 * STEP, 7), (4 * STEP, 3), (4 * STEP + 1, 0), (9 * STEP, 0)]
        {
            assert_eq!(log.behind(bytes), below, "{bytes}");
        }
    }
}
