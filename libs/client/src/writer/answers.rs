//! What a writer learns from the answers that it gets. Pure.

use std::{collections::BTreeSet, time::Duration};

use types::SegmentId;
use wire::{Code, Outcome, Problem, coordinator::SegmentRange, segment_store::Appended};

use super::{
    block::{Block, Fate, Payload},
    lane::{Lane, Numbering},
    plan::{Action, Kind, Plan},
    routes::Routes,
};
use crate::{
    error::{WriteCause, WriteError},
    patience::{is_over_quota, is_too_much},
};

impl<S: Fate> Plan<S> {
    /// Takes note of the stream's segments; an older description than the present one changes nothing.
    pub(crate) fn view(&mut self, version: (u32, u32), segments: Vec<SegmentRange>, sealed: bool, now: Duration) {
        self.viewing = false;
        self.stream_sealed |= sealed && self.version.is_none_or(|known| version >= known);
        if self.version.is_some_and(|known| version <= known) {
            let unchanged = Problem::unavailable("NoNewEpoch", "the stream's description still names a sealed segment");
            self.view_trouble.note(unchanged, u64::from(version.1), now);
        } else {
            self.view_trouble.clear();
            if self.version.is_none() {
                self.routes = Routes::new(&segments);
            }
            self.version = Some(version);
            self.segments = segments;
            for lane in self.lanes.values_mut() {
                lane.ended = !self.segments.iter().any(|place| place.segment == lane.place.segment);
            }
            self.retire_idle();
        }
        if self.stream_sealed && self.lanes.values().any(|lane| lane.refused && !lane.ended) {
            self.fail(&WriteError::not_applied(WriteCause::StreamSealed(self.index.clone())));
        }
    }

    /// Routes past segments that ended and have nothing waiting.
    fn retire_idle(&mut self) {
        let named = |segment| self.segments.iter().any(|place| place.segment == segment);
        // What was here may be in a queue that ended as well: then new events still come behind it by coming here.
        let behind: BTreeSet<_> =
            self.lanes.keys().copied().filter(|segment| self.is_behind_another(*segment)).collect();
        let mut ended: Vec<_> = self.routes.segments().filter(|segment| !named(*segment)).collect();
        ended.dedup();
        ended.retain(|segment| !behind.contains(segment));
        for segment in ended {
            if self.lanes.get(&segment).is_none_or(Lane::is_empty) {
                self.lanes.remove(&segment);
                self.routes.replace(segment, &self.segments);
            }
        }
        // A queue that the routes never came to name.
        self.lanes.retain(|segment, lane| !(lane.ended && lane.is_empty()) || behind.contains(segment));
    }

    /// The description could not be had.
    pub(crate) fn view_failed(&mut self, problem: Problem, now: Duration) {
        self.viewing = false;
        if is_gone(&problem) {
            return self.fail(&WriteError::not_applied(WriteCause::StreamGone(self.index.clone())));
        }
        if !may_pass(&problem) {
            return self.fail(&WriteError::not_applied(WriteCause::Refused(problem)));
        }
        self.view_trouble.note(problem, 0, now);
    }

    /// The answer to [`Action::Describe`].
    pub(crate) fn described(&mut self, segment: SegmentId, last: Result<u64, Problem>, now: Duration) {
        let Some(lane) = self.lanes.get_mut(&segment).filter(|lane| lane.numbering == Numbering::Asked) else { return };
        lane.numbering = Numbering::Unknown;
        match last {
            Ok(last) => {
                lane.trouble.clear();
                lane.known_last(last);
            }
            Err(problem) if problem.kind == "UnknownSegment" => lane.refused = true,
            Err(problem) if may_pass(&problem) => lane.trouble.note(problem, salt(segment), now),
            Err(problem) => self.fail(&WriteError::not_applied(WriteCause::Refused(problem))),
        }
    }

    /// The answer to [`Action::Append`]; one to an attempt that is no longer under way changes nothing.
    pub(crate) fn appended(
        &mut self,
        (segment, id, attempt): (SegmentId, u64, u64),
        answer: Result<Appended, Problem>,
        now: Duration,
    ) {
        let Some(lane) = self.lanes.get_mut(&segment) else { return };
        let flies = |block: &Block<S>| block.id == id && block.flight == Some(attempt);
        let Some(at) = lane.queue.iter().position(flies) else { return };
        match answer {
            Ok(appended) => return self.stored(segment, at, &appended, now),
            Err(problem) => match problem.kind.as_str() {
                "SegmentSealed" => lane.refuse_from(at),
                "UnknownSegment" if lane.queue[at].unknown && self.kind == Kind::Transaction => {
                    // It ended, and whoever is asked for its segments says how.
                    lane.refused = true;
                    lane.queue[at].failed(&problem);
                    lane.trouble.note(problem, salt(segment), now);
                }
                "UnknownSegment" if lane.queue[at].unknown => return self.lost(segment, at),
                "UnknownSegment" => {
                    (lane.refused, lane.queue[at].refused, lane.queue[at].flight) = (true, true, None);
                }
                "EventNumberGap" => {
                    // Whether one before it was under way, or the segment forgot what was acknowledged.
                    (lane.queue[at].early, lane.queue[at].flight) = (true, None);
                    lane.renumber |= lane.queue[at].led;
                }
                _ if may_pass(&problem) => {
                    lane.queue[at].failed(&problem);
                    if is_over_quota(&problem) {
                        // It is there and says how long to wait: that is no reason to give up.
                        lane.progress_at = now;
                    }
                    lane.trouble.note(problem, salt(segment), now);
                }
                _ => {
                    lane.queue[at].failed(&problem);
                    return self.fail(&WriteError::not_applied(WriteCause::Refused(problem)));
                }
            },
        }
        let lane = self.lanes.get_mut(&segment);
        if lane.is_some_and(|lane| lane.renumber && !lane.is_ending() && !lane.forget_numbers()) {
            self.fail(&WriteError::not_applied(WriteCause::NumbersMissing(segment)));
        }
    }

    fn stored(&mut self, segment: SegmentId, at: usize, appended: &Appended, now: Duration) {
        let Some(lane) = self.lanes.get_mut(&segment) else { return };
        if lane.queue[at].attempts == 1 && appended.duplicate_count > 0 {
            // It was sent once only, so the repeat is not ours: events of somebody else bear these numbers.
            lane.queue[at].flight = None;
            let writer = self.writer.clone();
            return self.fail(&WriteError::not_applied(WriteCause::WriterIdInUse { writer, segment }));
        }
        lane.trouble.clear();
        lane.progress_at = now;
        if let Some(block) = lane.queue.remove(at) {
            block.tell_stored(segment, appended);
            self.release(&block.payload, block.bytes);
        }
    }

    /// A block may have been stored in a segment that is gone.
    fn lost(&mut self, segment: SegmentId, at: usize) {
        let Some(lane) = self.lanes.get_mut(&segment) else { return };
        lane.refused = true;
        if let Some(block) = lane.queue.remove(at) {
            block.tell_failed(&WriteError::unknown(WriteCause::SegmentGone(segment)));
            self.release(&block.payload, block.bytes);
        }
    }

    /// Gives back what a block took.
    pub(super) fn release(&mut self, payload: &Payload, bytes: usize) {
        match payload {
            Payload::Memory(_) => self.memory -= bytes,
            Payload::Spilling(_) => {
                // The copy is released when it comes back and finds no block: only who fails has one.
                self.memory -= bytes;
                self.spilling -= bytes;
            }
            Payload::Spilled(key) | Payload::Dividing(key) => {
                self.disk -= u64::try_from(bytes).unwrap_or(u64::MAX);
                self.actions.push(Action::Release { key: *key });
            }
        }
    }

    /// Ends the writer: everything that waits fails, as possibly stored where it was sent and not refused.
    pub(crate) fn fail(&mut self, error: &WriteError) {
        if self.failed.is_some() {
            return;
        }
        let mut outcome_of_all = error.outcome;
        for mut lane in std::mem::take(&mut self.lanes).into_values() {
            if !lane.open.is_empty() {
                lane.close_open(0);
            }
            for block in lane.queue {
                let unknown = !block.is_elsewhere();
                let outcome = if unknown { Outcome::Unknown } else { Outcome::NotApplied };
                outcome_of_all = if unknown { outcome } else { outcome_of_all };
                block.tell_failed(&WriteError { outcome, cause: error.cause.clone() });
                self.release(&block.payload, block.bytes);
            }
        }
        self.failed = Some(WriteError { outcome: outcome_of_all, cause: error.cause.clone() });
    }
}

/// Whether the stream is not there any more.
pub(super) fn is_gone(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "UnknownIndex" | "StreamDeleted")
}

/// Whether trying again later can help; a read-only container may be repaired.
fn may_pass(problem: &Problem) -> bool {
    (problem.is_transient() && !is_too_much(problem)) || problem.code == Code::Internal
}

fn salt(segment: SegmentId) -> u64 {
    (u64::from(segment.stream) << 32) | u64::from(segment.number)
}
