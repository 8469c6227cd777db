//! Where events go that cannot wait in memory, or not for their segment. Pure.

use std::time::Duration;

use types::SegmentId;
use wire::{Problem, block::Block as Sealed};

use super::{
    block::{Block, Contents, Fate, Payload},
    plan::{Action, Plan},
};
use crate::error::{WriteCause, WriteError};

/// Blocks that a successor may have waiting when the next one is read from the spill file for it, so that dividing a long
/// spill among successors takes no more memory than sending it.
const AHEAD_MAX: usize = 2;
/// Blocks that are copied to the spill file at once.
const SPILLS_MAX: usize = 4;
/// The pause after the spill file could not be written.
const SPILL_PAUSE: Duration = Duration::from_secs(1);

impl<S: Fate> Plan<S> {
    /// Moves what waits for segments that ended to their successors, as far as it is known not to be stored.
    pub(super) fn drain_ended(&mut self, now: Duration) {
        let ended: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.ended).map(|(segment, _)| *segment).collect();
        ended.into_iter().for_each(|segment| while self.drain_one(segment, now) {});
    }

    /// Moves the first block; false when it cannot go yet, or when there is none left.
    fn drain_one(&mut self, segment: SegmentId, now: Duration) -> bool {
        if self.is_behind_another(segment) {
            return false;
        }
        let id = self.next_serial();
        let Some(lane) = self.lanes.get_mut(&segment) else { return false };
        if lane.queue.is_empty() && !lane.open.is_empty() {
            lane.close_open(id);
        }
        let Some(front) = lane.queue.front_mut() else {
            // Only now do new events of these keys go elsewhere: they are behind everything that was here.
            self.lanes.remove(&segment);
            self.routes.replace(segment, &self.segments);
            return false;
        };
        if !front.is_elsewhere() {
            return false;
        }
        let front = match front.payload {
            Payload::Loading(_) => return false,
            Payload::Spilled(key) => {
                let block = front.id;
                if self.successors_have_room(segment) {
                    self.set_payload(segment, block, Payload::Loading(key));
                    self.actions.push(Action::Load { segment, block, key });
                }
                return false;
            }
            Payload::Memory(_) | Payload::Spilling(_) => {
                lane.progress_at = now;
                lane.queue.pop_front()
            }
        };
        if let Some(mut block) = front {
            if let Payload::Spilling(contents) = block.payload {
                self.spilling -= block.bytes;
                block.payload = Payload::Memory(contents);
            }
            self.divide(segment, block, now);
        }
        true
    }

    /// Whether a later segment of the same keys ended as well before its queue was empty: what is there came from here, and is
    /// older than what is left here.
    fn is_behind_another(&self, segment: SegmentId) -> bool {
        let Some(lane) = self.lanes.get(&segment) else { return false };
        let mut later = self.lanes.range(segment..).skip(1).map(|(_, later)| later);
        later.any(|later| later.ended && !later.is_empty() && later.place.range.overlaps(lane.place.range))
    }

    fn successors_have_room(&self, segment: SegmentId) -> bool {
        let next = self.segments.iter().filter(|next| self.routes.overlap(segment, next.range));
        next.filter_map(|next| self.lanes.get(&next.segment)).all(|lane| lane.queue.len() < AHEAD_MAX)
    }

    /// Gives every event of a block to the segment that has its key now.
    fn divide(&mut self, from: SegmentId, block: Block<S>, now: Duration) {
        let Payload::Memory(contents) = &block.payload else { return };
        let damaged = |why: &dyn std::fmt::Display| WriteCause::Spill(format!("a block cannot be read: {why}"));
        let events = match Sealed::open(contents.block.clone()) {
            Ok(events) if events.len() == block.count as usize => events,
            other => {
                let why = other.err().map_or_else(|| "it holds other events".to_owned(), |error| error.to_string());
                return self.fail_block(block, damaged(&why));
            }
        };
        let mut places = block.runs.iter().flat_map(|run| (run.first..run.first + run.count).map(|at| (&run.fate, at)));
        for (at, event) in events.iter().enumerate() {
            let hash = contents.hash(at);
            let segment = self.segments.iter().find(|next| next.range.contains(hash)).map(|next| next.segment);
            let (Some(segment), Some(whose)) = (segment, places.next()) else {
                debug_assert!(false, "segments cover every key, and every event has a fate (block from {from})");
                continue;
            };
            let id = self.next_serial();
            let block_bytes_max = self.limits.block_bytes_max;
            let Some(lane) = self.lane(segment, now) else { continue };
            if !lane.open.fits(event.payload.len(), block_bytes_max) {
                lane.close_open(id);
            }
            // What it takes was counted when it first came, and still is.
            lane.open.carry(event.received, hash, &event.payload, whose, now);
            lane.hurry = true;
        }
    }

    fn fail_block(&mut self, block: Block<S>, cause: WriteCause) {
        let error = WriteError::not_applied(cause);
        block.tell_failed(&error);
        self.release(&block.payload, block.bytes);
        self.fail(&error);
    }

    /// Lets blocks of segments that do not answer leave memory.
    pub(super) fn spill(&mut self, now: Duration) {
        while self.is_pressed() && now >= self.spill_retry_at && self.spills < SPILLS_MAX {
            let Some((segment, at)) = self.spillable(now) else { return };
            let key = self.next_serial();
            let Some(lane) = self.lanes.get_mut(&segment) else { return };
            let block = &mut lane.queue[at];
            let bytes = u64::try_from(block.bytes).unwrap_or(u64::MAX);
            if self.disk + bytes > self.limits.spill_bytes_max {
                return;
            }
            let Payload::Memory(contents) = block.payload.clone() else { return };
            block.payload = Payload::Spilling(contents.clone());
            self.disk += bytes;
            self.spilling += block.bytes;
            self.actions.push(Action::Spill { segment, block: block.id, key, bytes: block.bytes, contents });
            self.spills += 1;
        }
    }

    /// The block that leaves memory next: the newest of the segment that keeps the most there.
    fn spillable(&mut self, now: Duration) -> Option<(SegmentId, usize)> {
        let after = self.limits.spill_after;
        let stalled = self.lanes.values().filter(|lane| lane.is_stalled(now, after));
        if let Some(lane) = stalled.filter(|lane| lane.spillable().is_some()).max_by_key(|lane| lane.in_memory()) {
            return lane.spillable().map(|at| (lane.segment(), at));
        }
        // Nothing is closed: what is open goes, if it is worth it.
        let share = self.limits.bytes_max / 4 / self.lanes.len().max(1);
        let worth = share.min(self.limits.block_bytes_max / 4);
        let id = self.next_serial();
        let mut open = self.lanes.values_mut().filter(|lane| lane.is_stalled(now, after));
        let lane = open.find(|lane| !lane.open.is_empty() && lane.open.bytes >= worth)?;
        lane.close_open(id);
        Some((lane.segment(), lane.queue.len() - 1))
    }

    /// The answer to [`Action::Spill`].
    pub(crate) fn spilled(
        &mut self,
        (segment, id, key): (SegmentId, u64, u64),
        (bytes, done): (usize, Result<(), String>),
        now: Duration,
    ) {
        self.spills -= 1;
        let block = self.lanes.get_mut(&segment).and_then(|lane| lane.queue.iter_mut().find(|block| block.id == id));
        if block.is_some() {
            self.spilling -= bytes;
        }
        match (block, done) {
            (Some(block), Ok(())) => {
                block.payload = Payload::Spilled(key);
                self.memory -= bytes;
                return;
            }
            // It was acknowledged or moved meanwhile.
            (None, Ok(())) => self.actions.push(Action::Release { key }),
            (block, Err(reason)) => {
                tracing::warn!(%reason, "spill file not written, writers wait for memory");
                self.spill_retry_at = now + SPILL_PAUSE;
                if let Some(block) = block
                    && let Payload::Spilling(contents) = &block.payload
                {
                    block.payload = Payload::Memory(contents.clone());
                }
            }
        }
        self.disk -= u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// The answer to [`Action::Load`].
    pub(crate) fn loaded(&mut self, (segment, id, key): (SegmentId, u64, u64), read: Result<Contents, String>) {
        let block = self.lanes.get_mut(&segment).and_then(|lane| lane.queue.iter().find(|block| block.id == id));
        let Some(bytes) = block.map(|block| block.bytes) else { return };
        match read {
            Ok(contents) => {
                self.set_payload(segment, id, Payload::Memory(contents));
                self.memory += bytes;
                self.disk -= u64::try_from(bytes).unwrap_or(u64::MAX);
                self.actions.push(Action::Release { key });
            }
            Err(reason) => self.fail(&WriteError::not_applied(WriteCause::Spill(reason))),
        }
    }

    /// A block that was to be sent cannot be read from the spill file any more.
    pub(crate) fn unreadable(&mut self, (segment, id, attempt): (SegmentId, u64, u64), reason: String) {
        let blocks = self.lanes.get_mut(&segment).into_iter().flat_map(|lane| lane.queue.iter_mut());
        // This attempt was never sent.
        blocks.filter(|b| b.id == id && b.flight == Some(attempt)).for_each(|block| {
            block.failed(&Problem::unavailable("SpillUnreadable", &reason));
        });
        self.fail(&WriteError::not_applied(WriteCause::Spill(reason)));
    }

    fn set_payload(&mut self, segment: SegmentId, id: u64, payload: Payload) {
        let lane = self.lanes.get_mut(&segment);
        if let Some(block) = lane.and_then(|lane| lane.queue.iter_mut().find(|block| block.id == id)) {
            block.payload = payload;
        }
    }
}
