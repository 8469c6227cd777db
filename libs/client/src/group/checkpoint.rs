//! Checkpoints of a group: a named barrier that every reader passes. Pure.
//!
//! A reader passes a checkpoint before its assignment changes again. So a checkpoint holds each segment exactly once, from the
//! reader that had it when the checkpoint began, and its places form a cut.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use types::{IndexName, Offset, ReaderId, SegmentId, StreamCut, Timestamp};

use super::state::{GroupError, GroupState, Place, Seat};

/// Checkpoints under way at a time.
pub const CHECKPOINTS_MAX: usize = 3;
/// Complete checkpoints that are remembered for those who asked for them.
const COMPLETED_MAX: usize = 4;

/// Who wants a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A person or program, by name; readers hand it to their users.
    Asked,
    /// Time; readers hand it to their users.
    Automatic,
    /// A question for positions; users do not see it.
    Silent,
}

/// A checkpoint under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Readers that have not passed it.
    needed: BTreeSet<ReaderId>,
    places: BTreeMap<SegmentId, Offset>,
}

/// A checkpoint that every reader passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Completed {
    number: u64,
    name: String,
    kind: Kind,
    places: BTreeMap<SegmentId, Offset>,
}

impl GroupState {
    /// Begins a checkpoint and gives its number; without readers it is complete at once.
    pub(crate) fn begin_checkpoint(&mut self, name: &str, kind: Kind, now: Timestamp) -> Result<u64, GroupError> {
        if self.checkpoints.iter().any(|c| c.name == name) {
            return Err(GroupError::CheckpointExists(name.to_owned()));
        }
        if self.checkpoints.len() >= CHECKPOINTS_MAX {
            return Err(GroupError::TooManyCheckpoints);
        }
        self.last_checkpoint += 1;
        if kind == Kind::Automatic {
            self.automatic_at = now;
        }
        let free = self.unassigned.iter().map(|(segment, place)| (*segment, place.offset));
        self.checkpoints.push(Checkpoint {
            number: self.last_checkpoint,
            name: name.to_owned(),
            kind,
            needed: self.readers.keys().cloned().collect(),
            places: free.chain(self.frontier.ends()).collect(),
        });
        self.settle();
        Ok(self.last_checkpoint)
    }

    /// Begins an automatic checkpoint if it is time for one.
    pub(crate) fn begin_automatic(&mut self, now: Timestamp) {
        // Either way: the last one may have been begun by a reader whose clock is far ahead.
        let apart = now.since(self.automatic_at).max(self.automatic_at.since(now));
        let due = self.checkpoint_ms > 0 && apart.as_millis() >= u128::from(self.checkpoint_ms);
        let running = self.checkpoints.iter().any(|c| c.kind == Kind::Automatic);
        if due && !running && self.checkpoints.len() < CHECKPOINTS_MAX {
            let name = format!("auto-{}", self.last_checkpoint + 1);
            // A name that somebody else took is free again with the next checkpoint.
            self.begin_checkpoint(&name, Kind::Automatic, now).ok();
        }
    }

    /// The first checkpoint that a reader has not passed.
    pub(crate) fn pending(&self, seat: &Seat) -> Option<&Checkpoint> {
        self.held(seat)?;
        self.checkpoints.iter().find(|c| c.needed.contains(&seat.reader))
    }

    /// A reader passes a checkpoint at its positions; passing it again changes nothing.
    pub(crate) fn pass(
        &mut self,
        seat: &Seat,
        number: u64,
        positions: &BTreeMap<SegmentId, Offset>,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.report(seat, positions, now)?;
        let held = self.member(seat)?.segments.clone();
        let pending = self.checkpoints.iter_mut().find(|c| c.number == number && c.needed.contains(&seat.reader));
        if let Some(checkpoint) = pending {
            checkpoint.pass(&seat.reader, &held);
        }
        self.settle();
        Ok(())
    }

    /// Where a complete checkpoint stands; `None` if it is not, or no more, known.
    pub(crate) fn checkpoint_cuts(&self, number: u64) -> Option<BTreeMap<IndexName, StreamCut>> {
        let completed = self.completed.iter().find(|c| c.number == number)?;
        Some(self.by_index(completed.places.iter().map(|(segment, offset)| (*segment, *offset))))
    }

    /// Whether a checkpoint is under way.
    pub(crate) fn is_under_way(&self, number: u64) -> bool {
        self.checkpoints.iter().any(|c| c.number == number)
    }

    /// The last complete checkpoint that users saw.
    pub(crate) fn last_completed(&self) -> Option<(u64, &str, BTreeMap<IndexName, StreamCut>)> {
        let last = self.completed.iter().rev().find(|c| c.kind != Kind::Silent)?;
        Some((last.number, &last.name, self.checkpoint_cuts(last.number)?))
    }

    /// Refuses while a checkpoint is to be passed.
    pub(super) fn passed(&self, seat: &Seat) -> Result<(), GroupError> {
        match self.pending(seat) {
            Some(checkpoint) => Err(GroupError::CheckpointFirst(checkpoint.name.clone())),
            None => Ok(()),
        }
    }

    /// A reader that goes passes everything at once.
    pub(super) fn pass_all(&mut self, reader: &ReaderId, held: &BTreeMap<SegmentId, Place>) {
        for checkpoint in self.checkpoints.iter_mut().filter(|c| c.needed.contains(reader)) {
            checkpoint.pass(reader, held);
        }
        self.settle();
    }

    /// Checkpoints that everybody passed are complete.
    fn settle(&mut self) {
        let (complete, under_way) =
            std::mem::take(&mut self.checkpoints).into_iter().partition(|c| c.needed.is_empty());
        self.checkpoints = under_way;
        let complete: Vec<Checkpoint> = complete;
        for Checkpoint { number, name, kind, places, .. } in complete {
            self.completed.push_back(Completed { number, name, kind, places });
        }
        while self.completed.len() > COMPLETED_MAX {
            // What users saw outlives questions for positions.
            let last = self.completed.iter().rposition(|c| c.kind != Kind::Silent);
            self.completed.remove(usize::from(last == Some(0)));
        }
    }
}

impl Checkpoint {
    fn pass(&mut self, reader: &ReaderId, held: &BTreeMap<SegmentId, Place>) {
        self.needed.remove(reader);
        self.places.extend(held.iter().map(|(segment, place)| (*segment, place.offset)));
    }
}
