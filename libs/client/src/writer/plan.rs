//! What a writer does next: which block goes where, and what becomes of it. Pure: time, answers and files are handed in.
//!
//! Events wait in a queue per segment, in blocks. A block has its numbers from the moment that it is first sent, and goes
//! again under the same numbers until its segment answers for certain. When a segment is sealed, its queue is settled first
//! (every block of unknown fate is asked for once more, and a sealed segment knows), and what it does not have goes by the
//! hash of its key to the successors, in order, before anything newer of the same keys.

use std::{collections::BTreeMap, time::Duration};

use types::{EVENT_BYTES_MAX, IndexName, SegmentId, Timestamp, WriterId};
use wire::{coordinator::SegmentRange, segment_store::SegmentPlace};

use super::{
    block::{Contents, EVENT_OVERHEAD, Fate, Payload, Run},
    lane::{Lane, Numbering, Trouble},
    routes::Routes,
};
use crate::{
    error::{WriteCause, WriteError},
    spill::Label,
};

/// The bounds of a writer.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of events in memory, from which on writes wait.
    pub(crate) bytes_max: usize,
    /// Bytes of events in the spill file.
    pub(crate) spill_bytes_max: u64,
    /// How long an event waits for others.
    pub(crate) linger: Duration,
    /// Bytes of a block.
    pub(crate) block_bytes_max: usize,
    /// Blocks of a segment under way at once.
    pub(crate) in_flight_max: usize,
    /// How long nothing helps before everything is given up.
    pub(crate) give_up_after: Duration,
    /// How long a segment does not answer before its events leave memory.
    pub(crate) spill_after: Duration,
}

/// Where the segments come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A stream, whose segments are replaced by others.
    Stream,
    /// A transaction, whose segments are its own and end with it.
    Transaction,
}

/// The bytes of a block to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Here they are.
    Memory(Contents),
    /// In the spill file, which is to know the number before the block is sent.
    Spilled(u64),
}

/// Something to do; whatever is answered is handed to the method of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask for the last number: [`Plan::described`].
    Describe { place: SegmentPlace },
    /// Append a block, and wait so long for an answer: [`Plan::appended`].
    Append { place: SegmentPlace, block: u64, attempt: u64, first: u64, source: Source, within: Duration },
    /// Describe the stream or transaction: [`Plan::view`], [`Plan::fail`] or [`Plan::view_failed`].
    View,
    /// Put a block into the spill file: [`Plan::spilled`].
    Spill { segment: SegmentId, block: u64, key: u64, label: Label, contents: Contents },
    /// Divide a block in the spill file, naming the parts by the numbers from `serial` on: [`Plan::divided`].
    Divide { segment: SegmentId, block: u64, key: u64, among: Vec<SegmentRange>, serial: u64 },
    /// The spill file needs this no more.
    Release { key: u64 },
}

/// What became of an event that was offered.
#[derive(Debug)]
pub(crate) enum Push<'a, S> {
    /// Taken: its fate, its place there, and whether [`Plan::poll`] has something new to do.
    Taken { fate: &'a S, place: u32, wake: bool },
    /// Not taken: wait until [`Plan::has_room`].
    Full,
}

/// The state of a writer.
#[derive(Debug)]
pub(crate) struct Plan<S> {
    pub(super) index: IndexName,
    pub(super) writer: WriterId,
    pub(super) kind: Kind,
    pub(super) limits: Limits,
    /// The stream's number and its epoch, and its segments.
    pub(super) version: Option<(u32, u32)>,
    pub(super) segments: Vec<SegmentRange>,
    pub(super) routes: Routes,
    pub(super) lanes: BTreeMap<SegmentId, Lane<S>>,
    /// Bytes of events in memory.
    pub(super) memory: usize,
    /// Bytes of events that are being copied to the spill file.
    pub(super) spilling: usize,
    pub(super) spills: usize,
    /// Bytes of events in the spill file, or on their way there.
    pub(super) disk: u64,
    pub(super) spill_retry_at: Duration,
    serial: u64,
    pub(super) viewing: bool,
    pub(super) view_trouble: Trouble,
    pub(super) stream_sealed: bool,
    closed: bool,
    pub(super) failed: Option<WriteError>,
    pub(super) actions: Vec<Action>,
}

impl<S: Fate> Plan<S> {
    pub(crate) fn new(index: IndexName, writer: WriterId, kind: Kind, limits: Limits) -> Self {
        Self {
            index,
            writer,
            kind,
            limits,
            version: None,
            segments: Vec::new(),
            routes: Routes::default(),
            lanes: BTreeMap::new(),
            memory: 0,
            spilling: 0,
            spills: 0,
            disk: 0,
            spill_retry_at: Duration::ZERO,
            serial: 0,
            viewing: false,
            view_trouble: Trouble::default(),
            stream_sealed: false,
            closed: false,
            failed: None,
            actions: Vec::new(),
        }
    }

    /// Takes an event whose key has this hash.
    ///
    /// Errors: nothing is taken: the event is too large, the writer is closed or failed, the stream is sealed.
    pub(crate) fn push(
        &mut self,
        received: Timestamp,
        hash: u64,
        payload: &[u8],
        now: Duration,
    ) -> Result<Push<'_, S>, WriteError> {
        if payload.len() > EVENT_BYTES_MAX {
            return Err(WriteError::not_applied(WriteCause::EventTooLarge { bytes: payload.len() }));
        }
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        if !self.has_room() {
            return Ok(Push::Full);
        }
        let Some(segment) = self.routes.find(hash) else { return Ok(Push::Full) };
        let id = self.serial + 1;
        let in_flight_max = self.limits.in_flight_max;
        let block_bytes_max = self.limits.block_bytes_max;
        let Some(lane) = self.lane(segment, now) else { return Ok(Push::Full) };
        let mut wake = lane.is_empty();
        if !lane.open.fits(payload.len(), block_bytes_max) {
            lane.close_open(id);
            wake |= lane.in_flight() < in_flight_max;
            self.serial = id;
        }
        self.memory += payload.len() + EVENT_OVERHEAD;
        wake |= self.serial == id && self.is_pressed();
        // Borrowed again, because a block was counted in between.
        let Some(lane) = self.lanes.get_mut(&segment) else { return Ok(Push::Full) };
        wake |= lane.open.is_empty();
        let (fate, place) = lane.open.push(received, hash, payload, now);
        Ok(Push::Taken { fate, place, wake })
    }

    /// Why nothing is taken any more.
    pub(crate) fn refusal(&self) -> Option<WriteError> {
        if let Some(error) = &self.failed {
            return Some(WriteError::not_applied(error.cause.clone()));
        }
        let cause = match (self.closed, self.stream_sealed) {
            (true, _) => WriteCause::Closed,
            (_, true) => WriteCause::StreamSealed(self.index.clone()),
            _ => return None,
        };
        Some(WriteError::not_applied(cause))
    }

    /// What ended the writer, if something did.
    pub(crate) fn failure(&self) -> Option<&WriteError> {
        self.failed.as_ref()
    }

    /// Whether another event may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.memory < self.limits.bytes_max
    }

    /// Whether it is time to let events leave memory.
    pub(super) fn is_pressed(&self) -> bool {
        self.limits.spill_bytes_max > 0 && self.memory - self.spilling > self.limits.bytes_max / 4 * 3
    }

    /// Bytes of events in memory, and in the spill file.
    pub(crate) fn backlog(&self) -> (usize, u64) {
        (self.memory, self.disk)
    }

    /// Takes no more events; what was taken is still sent.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.hurry();
    }

    /// Sends what is open as soon as it can be.
    pub(crate) fn hurry(&mut self) {
        self.lanes.values_mut().filter(|lane| !lane.open.is_empty()).for_each(|lane| lane.hurry = true);
    }

    /// Whether nothing waits any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.values().all(Lane::is_empty)
    }

    /// Everything that waits.
    pub(crate) fn waiting(&self) -> Vec<Run<S>> {
        let of_lane = |lane: &Lane<S>| {
            let closed = lane.queue.iter().flat_map(|block| block.runs.iter());
            closed.chain(lane.open.runs()).cloned().collect::<Vec<_>>()
        };
        self.lanes.values().flat_map(of_lane).collect()
    }

    /// The queue of a segment; a new one if the description names it.
    pub(super) fn lane(&mut self, segment: SegmentId, now: Duration) -> Option<&mut Lane<S>> {
        if !self.lanes.contains_key(&segment) {
            let place = self.segments.iter().find(|place| place.segment == segment)?;
            // A transaction's segment and its writer were made for one another.
            let numbering = match self.kind {
                Kind::Stream => Numbering::Unknown,
                Kind::Transaction => Numbering::Next(1),
            };
            self.lanes.insert(segment, Lane::new(*place, numbering));
        }
        let lane = self.lanes.get_mut(&segment)?;
        if lane.is_empty() {
            lane.progress_at = now;
        }
        Some(lane)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// So many numbers; the first of them.
    pub(super) fn take_serials(&mut self, count: u64) -> u64 {
        let first = self.serial + 1;
        self.serial += count;
        first
    }

    /// What was named before keeps its names.
    pub(super) fn serial_is_at_least(&mut self, serial: u64) {
        self.serial = self.serial.max(serial);
    }

    /// What is to be done now, and when to ask again although nothing happened.
    pub(crate) fn poll(&mut self, now: Duration) -> (Vec<Action>, Option<Duration>) {
        if self.failed.is_none() {
            self.give_up(now);
            self.drain_ended(now);
            let segments: Vec<_> = self.lanes.keys().copied().collect();
            segments.into_iter().for_each(|segment| self.advance(segment, now));
            self.ask_for_view(now);
            self.spill(now);
        }
        (std::mem::take(&mut self.actions), self.wake_at(now))
    }

    fn give_up(&mut self, now: Duration) {
        let waited = self.limits.give_up_after;
        let stuck = self.lanes.values().find(|lane| lane.is_stalled(now, waited));
        if let Some(lane) = stuck {
            let last = lane.trouble.last.clone().or_else(|| self.view_trouble.last.clone());
            self.fail(&WriteError::not_applied(WriteCause::GaveUp { waited, last }));
        }
    }

    /// Sends what a segment can take.
    fn advance(&mut self, segment: SegmentId, now: Duration) {
        let Limits { in_flight_max, linger, .. } = self.limits;
        loop {
            let id = self.serial + 1;
            let Some(lane) = self.lanes.get_mut(&segment) else { return };
            let place = SegmentPlace { segment, container: lane.place.container };
            if lane.numbering == Numbering::Unknown && !lane.is_empty() && !lane.is_ending() {
                if now >= lane.trouble.retry_at {
                    lane.numbering = Numbering::Asked;
                    self.actions.push(Action::Describe { place });
                }
                return;
            }
            let due = lane.hurry || now >= lane.open.since + linger;
            if lane.could_send_open(in_flight_max) && due {
                lane.close_open(id);
                self.serial = id;
                continue;
            }
            let Some(at) = lane.sendable(now, in_flight_max) else { return };
            let Some(first) = lane.number(at) else { return };
            let block = &mut lane.queue[at];
            (block.flight, block.early, block.attempts) = (Some(id), false, block.attempts + 1);
            block.led = at == 0;
            self.serial = id;
            let source = match &block.payload {
                Payload::Memory(contents) | Payload::Spilling(contents) => Source::Memory(contents.clone()),
                Payload::Spilled(key) | Payload::Dividing(key) => Source::Spilled(*key),
            };
            let (block, within) = (block.id, block.waits.within());
            self.actions.push(Action::Append { place, block, attempt: id, first, source, within });
        }
    }

    fn ask_for_view(&mut self, now: Duration) {
        let wanted = self.lanes.values().any(|lane| lane.refused && !lane.ended);
        if wanted && !self.viewing && now >= self.view_trouble.retry_at {
            self.viewing = true;
            self.actions.push(Action::View);
        }
    }

    fn wake_at(&self, now: Duration) -> Option<Duration> {
        let Limits { in_flight_max, linger, give_up_after, spill_after, .. } = self.limits;
        let mut wake: Option<Duration> = None;
        let mut at = |time: Duration| wake = Some(wake.map_or(time, |known| known.min(time)));
        for lane in self.lanes.values().filter(|lane| !lane.is_empty()) {
            at(lane.progress_at + give_up_after);
            if self.limits.spill_bytes_max > 0 && now < lane.progress_at + spill_after {
                at(lane.progress_at + spill_after);
            }
            if lane.could_send_open(in_flight_max) {
                at(lane.open.since + linger);
            }
            if now < lane.trouble.retry_at {
                at(lane.trouble.retry_at);
            }
            if lane.refused && !lane.ended && !self.viewing {
                at(self.view_trouble.retry_at);
            }
        }
        if now < self.spill_retry_at {
            at(self.spill_retry_at);
        }
        wake
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
