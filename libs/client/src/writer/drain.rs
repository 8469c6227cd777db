//! Where events go that cannot wait in memory, or not for their segment, and how they come back after a crash. Pure.

use std::time::Duration;

use types::SegmentId;
use wire::{Problem, block::Block as Sealed, coordinator::SegmentRange};

use super::{
    block::{Block, Fate, Payload, Run},
    lane::{Lane, Numbering},
    plan::{Action, Plan},
};
use crate::{
    error::{WriteCause, WriteError},
    spill::{Label, Left, Part},
};

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
        match front.payload {
            // What is in a file is divided there, so that at no moment two files or none have an event.
            Payload::Spilling(_) | Payload::Dividing(_) => return false,
            Payload::Spilled(key) => {
                front.payload = Payload::Dividing(key);
                let (block, among) = (front.id, self.segments.clone());
                // What went there before is ordered before it.
                among.iter().for_each(|next| self.close_open_of(next.segment));
                let serial = self.take_serials(2 * u64::try_from(among.len()).unwrap_or(u64::MAX));
                self.actions.push(Action::Divide { segment, block, key, among, serial });
                return false;
            }
            Payload::Memory(_) => lane.progress_at = now,
        }
        if let Some(block) = lane.queue.pop_front() {
            self.divide(segment, block, now);
        }
        true
    }

    fn close_open_of(&mut self, segment: SegmentId) {
        let id = self.next_serial();
        if let Some(lane) = self.lanes.get_mut(&segment).filter(|lane| !lane.open.is_empty()) {
            lane.close_open(id);
        }
    }

    /// Whether a later segment of the same keys ended as well before its queue was empty: what is there came from here, and is
    /// older than what is left here.
    pub(super) fn is_behind_another(&self, segment: SegmentId) -> bool {
        let Some(lane) = self.lanes.get(&segment) else { return false };
        let mut later = self.lanes.range(segment..).skip(1).map(|(_, later)| later);
        later.any(|later| later.ended && !later.is_empty() && later.place.range.overlaps(lane.place.range))
    }

    /// Gives every event of a block in memory to the segment that has its key now.
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
        let mut places = block.places();
        for (at, event) in events.iter().enumerate() {
            let to = contents.hash(at).and_then(|hash| {
                let next = self.segments.iter().find(|next| next.range.contains(hash))?;
                Some((hash, next.segment))
            });
            let (Some((hash, segment)), Some(whose)) = (to, places.next()) else {
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

    /// The answer to [`Action::Divide`].
    pub(crate) fn divided(
        &mut self,
        (segment, id, key): (SegmentId, u64, u64),
        parts: Result<Vec<Part>, String>,
        now: Duration,
    ) {
        let parts = match parts {
            Ok(parts) => parts,
            Err(reason) => return self.fail(&WriteError::not_applied(WriteCause::Spill(reason))),
        };
        let front = self.lanes.get_mut(&segment).and_then(|lane| {
            let divided = lane.queue.front().is_some_and(|block| block.id == id);
            lane.progress_at = now;
            divided.then(|| lane.queue.pop_front()).flatten()
        });
        let Some(block) = front else {
            // The writer failed meanwhile, and everybody was told.
            return self.actions.extend(parts.into_iter().map(|part| Action::Release { key: part.key }));
        };
        debug_assert!(matches!(block.payload, Payload::Dividing(divided) if divided == key));
        self.disk -= u64::try_from(block.bytes).unwrap_or(u64::MAX);
        let whose: Vec<(S, u32)> = block.places().map(|(fate, place)| (fate.clone(), place)).collect();
        for part in parts {
            let mut runs: Vec<Run<S>> = Vec::new();
            for (fate, place) in part.places.iter().filter_map(|at| whose.get(*at as usize)) {
                Run::add(&mut runs, fate, *place);
            }
            self.put_back(part.key, part.label, runs, now);
        }
    }

    /// Takes over what an earlier process left, before anything newer; to be called when the stream is known.
    pub(crate) fn restore(&mut self, left: Vec<Left>, now: Duration) -> Vec<Run<S>> {
        let mut all = Vec::with_capacity(left.len());
        for Left { key, label } in left {
            self.serial_is_at_least(key.max(label.order));
            let run = Run { fate: S::default(), first: 0, count: label.count };
            all.push(run.clone());
            self.put_back(key, label, vec![run], now);
        }
        // What comes now of the keys of a segment that ended waits behind what is there, of several behind the oldest: that one
        // is empty last.
        for lane in self.lanes.values().rev().filter(|lane| lane.ended) {
            self.routes.give(lane.place.range, lane.segment());
        }
        all
    }

    /// Adds a block that is in a file to the end of its segment's queue, also of a segment that ended.
    fn put_back(&mut self, key: u64, label: Label, runs: Vec<Run<S>>, now: Duration) {
        let Label { order, place, first, count, bytes } = label;
        let ended = !self.segments.iter().any(|present| present.segment == place.segment);
        self.close_open_of(place.segment);
        let fresh = || Lane { ended, ..Lane::new(place, Numbering::Unknown) };
        let lane = self.lanes.entry(place.segment).or_insert_with(fresh);
        if lane.is_empty() {
            lane.progress_at = now;
        }
        lane.queue.push_back(Block::spilled(order, key, (count, bytes), first, runs));
        self.disk += u64::try_from(bytes).unwrap_or(u64::MAX);
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
            let place: SegmentRange = lane.place;
            let block = &mut lane.queue[at];
            let bytes = u64::try_from(block.bytes).unwrap_or(u64::MAX);
            if self.disk + bytes > self.limits.spill_bytes_max {
                return;
            }
            let Payload::Memory(contents) = block.payload.clone() else { return };
            block.payload = Payload::Spilling(contents.clone());
            self.disk += bytes;
            self.spilling += block.bytes;
            // Its number counts only if it was sent under it.
            let first = block.first.filter(|_| block.unknown);
            let label = Label { order: block.id, place, first, count: block.count, bytes: block.bytes };
            self.actions.push(Action::Spill { segment, block: block.id, key, label, contents });
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
            // The writer failed meanwhile, and everybody was told.
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

    /// A block that was to be sent cannot be read from its spill file any more, or its number not be written there.
    pub(crate) fn unreadable(&mut self, (segment, id, attempt): (SegmentId, u64, u64), reason: String) {
        let blocks = self.lanes.get_mut(&segment).into_iter().flat_map(|lane| lane.queue.iter_mut());
        // This attempt was never sent.
        blocks.filter(|b| b.id == id && b.flight == Some(attempt)).for_each(|block| {
            block.failed(&Problem::unavailable("SpillUnreadable", &reason));
        });
        self.fail(&WriteError::not_applied(WriteCause::Spill(reason)));
    }
}
