//! What the readers of a group share: who reads which segment, and from where. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, Offset, ReaderId, SegmentId, StreamCut, Timestamp};
use wire::{Problem, coordinator::SegmentNode, segment_store::SegmentPlace};

use super::checkpoint::{Checkpoint, Completed};
use crate::{SegmentGraph, frontier::Frontier, silence::said_after};

/// Readers of a group.
pub const GROUP_READERS_MAX: usize = 256;
/// Segments that a group reads at a time, with those that wait for their predecessors: what fits into one document of 1 MiB
/// with every checkpoint that it holds.
pub const GROUP_SEGMENTS_MAX: usize = 3_500;

/// Why the shared state did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A reader of this name is there.
    #[error("reader {0} is in the group: take another name, or declare it offline first")]
    ReaderExists(ReaderId),
    /// The reader is not in the group.
    #[error("reader {0} is not in the group: it was declared offline, or closed; its segments went to others")]
    ReaderOffline(ReaderId),
    /// [`GROUP_READERS_MAX`] are there.
    #[error("the group has {max} readers already", max = GROUP_READERS_MAX)]
    TooManyReaders,
    /// More than [`GROUP_SEGMENTS_MAX`].
    #[error("the group would read more than {max} segments at a time: read its streams with several groups",
        max = GROUP_SEGMENTS_MAX)]
    TooManySegments,
    /// A checkpoint has to be passed before the assignment of a reader changes.
    #[error("checkpoint {0:?} must be passed first")]
    CheckpointFirst(String),
    /// A checkpoint of this name is under way.
    #[error("checkpoint {0:?} is under way already")]
    CheckpointExists(String),
    /// Too many are under way.
    #[error("{max} checkpoints are under way: wait for one of them, or declare dead readers offline",
        max = super::CHECKPOINTS_MAX)]
    TooManyCheckpoints,
    /// A segment that the reader does not have.
    #[error("segment {0} is not this reader's")]
    NotHeld(SegmentId),
}

impl From<GroupError> for Problem {
    fn from(error: GroupError) -> Self {
        let kind = match error {
            GroupError::ReaderExists(_) => "ReaderExists",
            GroupError::ReaderOffline(_) => "ReaderOffline",
            GroupError::TooManyReaders => return Self::throttled("TooManyReaders", error),
            GroupError::TooManySegments => return Self::throttled("TooManySegments", error),
            GroupError::TooManyCheckpoints => return Self::throttled("TooManyCheckpoints", error),
            GroupError::CheckpointFirst(_) => "CheckpointFirst",
            GroupError::CheckpointExists(_) => "CheckpointExists",
            GroupError::NotHeld(_) => "NotHeld",
        };
        Self::conflict(kind, error)
    }
}

/// Where a segment is and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    #[serde(rename = "c")]
    pub(crate) container: ContainerId,
    #[serde(rename = "o")]
    pub(crate) offset: Offset,
}

/// A reader: two processes that take one name after the other are told apart by the session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    pub(crate) reader: ReaderId,
    pub(crate) session: u64,
}

/// A reader of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) session: u64,
    pub(super) last_seen: Timestamp,
    pub(super) segments: BTreeMap<SegmentId, Place>,
}

/// What a group begins with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) generation: u64,
    /// The indexes by the numbers of their streams.
    pub(crate) indexes: BTreeMap<u32, IndexName>,
    pub(crate) checkpoint_ms: u64,
    pub(crate) reports: bool,
    pub(crate) start: Vec<(SegmentPlace, Offset)>,
    pub(crate) ends: BTreeMap<SegmentId, Offset>,
    pub(crate) now: Timestamp,
}

/// How many segments a reader may take, or has to give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Take so many.
    Take(usize),
    /// Give so many away.
    Give(usize),
    /// Neither.
    Fair,
}

/// The document of a group.
///
/// Invariants: a segment that is not finished is with one reader, or unassigned, or waits for its predecessors; the places of
/// all of a stream's segments here form a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupState {
    pub(crate) generation: u64,
    pub(crate) indexes: BTreeMap<u32, IndexName>,
    /// Time between automatic checkpoints; 0 is none.
    pub(crate) checkpoint_ms: u64,
    /// Whether complete checkpoints hold back retention.
    pub(crate) reports: bool,
    pub(super) readers: BTreeMap<ReaderId, Member>,
    pub(super) unassigned: BTreeMap<SegmentId, Place>,
    pub(super) frontier: Frontier,
    pub(super) ends: BTreeMap<SegmentId, Offset>,
    /// Those under way, in the order in which they began.
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) completed: VecDeque<Completed>,
    pub(super) last_checkpoint: u64,
    pub(super) automatic_at: Timestamp,
}

impl GroupState {
    /// A group without readers.
    pub(crate) fn new(setup: Setup) -> Result<Self, GroupError> {
        let mut state = Self {
            generation: setup.generation,
            indexes: setup.indexes,
            checkpoint_ms: setup.checkpoint_ms,
            reports: setup.reports,
            readers: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            frontier: Frontier::default(),
            ends: setup.ends,
            checkpoints: Vec::new(),
            completed: VecDeque::new(),
            last_checkpoint: 0,
            automatic_at: setup.now,
        };
        for (place, offset) in setup.start {
            state.open(place, offset);
        }
        state.fits()?;
        Ok(state)
    }

    /// A reader comes.
    pub(crate) fn join(&mut self, seat: &Seat, now: Timestamp) -> Result<(), GroupError> {
        if self.readers.contains_key(&seat.reader) {
            return Err(GroupError::ReaderExists(seat.reader.clone()));
        }
        if self.readers.len() >= GROUP_READERS_MAX {
            return Err(GroupError::TooManyReaders);
        }
        let member = Member { session: seat.session, last_seen: now, segments: BTreeMap::new() };
        self.readers.insert(seat.reader.clone(), member);
        Ok(())
    }

    /// The segments of a reader; `None` if it is not in the group.
    pub(crate) fn held(&self, seat: &Seat) -> Option<&BTreeMap<SegmentId, Place>> {
        self.readers.get(&seat.reader).filter(|m| m.session == seat.session).map(|m| &m.segments)
    }

    /// What a reader's fair share asks of it: all have as many segments, or one more.
    pub(crate) fn share(&self, reader: &ReaderId) -> Share {
        let Some(held) = self.readers.get(reader).map(|m| m.segments.len()) else { return Share::Fair };
        let all = self.unassigned.len() + self.readers.values().map(|m| m.segments.len()).sum::<usize>();
        let (least, rest) = (all / self.readers.len(), all % self.readers.len());
        let others = self.readers.iter().filter(|(name, m)| *name != reader && m.segments.len() > least);
        let fair = if others.count() < rest { least + 1 } else { least };
        match held {
            held if held < fair && !self.unassigned.is_empty() => Share::Take((fair - held).min(self.unassigned.len())),
            held if held > fair => Share::Give(held - fair),
            _ => Share::Fair,
        }
    }

    /// A reader takes what is its share, lowest ids first.
    pub(crate) fn acquire(&mut self, seat: &Seat) -> Result<(), GroupError> {
        self.passed(seat)?;
        let Share::Take(count) = self.share(&seat.reader) else { return Ok(()) };
        let taken: Vec<SegmentId> = self.unassigned.keys().take(count).copied().collect();
        for segment in taken {
            if let Some(place) = self.unassigned.remove(&segment) {
                self.member(seat)?.segments.insert(segment, place);
            }
        }
        Ok(())
    }

    /// A reader gives away what is above its share, highest ids first, at its positions.
    pub(crate) fn release(
        &mut self,
        seat: &Seat,
        positions: &BTreeMap<SegmentId, Offset>,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.passed(seat)?;
        self.report(seat, positions, now)?;
        let Share::Give(count) = self.share(&seat.reader) else { return Ok(()) };
        for _ in 0..count {
            let Some((segment, place)) = self.member(seat)?.segments.pop_last() else { break };
            self.unassigned.insert(segment, place);
        }
        Ok(())
    }

    /// A reader tells how far it is, and that it lives; positions do not go back.
    pub(crate) fn report(
        &mut self,
        seat: &Seat,
        positions: &BTreeMap<SegmentId, Offset>,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        let member = self.member(seat)?;
        member.last_seen = said_after(Some(member.last_seen), now);
        for (segment, place) in &mut member.segments {
            place.offset = place.offset.max(positions.get(segment).copied().unwrap_or(0));
        }
        Ok(())
    }

    /// A reader has read a segment to its end; what follows becomes readable once everything before it was read.
    pub(crate) fn complete(
        &mut self,
        seat: &Seat,
        segment: SegmentId,
        end: Offset,
        successors: &[SegmentNode],
    ) -> Result<(), GroupError> {
        self.passed(seat)?;
        self.member(seat)?.segments.remove(&segment).ok_or(GroupError::NotHeld(segment))?;
        let successors = if self.ends.contains_key(&segment) { &[] } else { successors };
        for place in self.frontier.complete(segment, end, successors) {
            self.open(place, 0);
        }
        self.fits()
    }

    /// A reader goes, by itself or because it is dead: its segments are free at the positions given, else at those it told last.
    /// False if it was not there.
    pub(crate) fn offline(&mut self, reader: &ReaderId, positions: Option<&BTreeMap<SegmentId, Offset>>) -> bool {
        let Some(member) = self.readers.remove(reader) else { return false };
        let given = |segment: &SegmentId| positions.and_then(|positions| positions.get(segment).copied());
        let mut segments = member.segments;
        for (segment, place) in &mut segments {
            place.offset = given(segment).unwrap_or(place.offset);
        }
        self.pass_all(reader, &segments);
        self.unassigned.extend(segments);
        true
    }

    /// When each reader said something last, by its own clock.
    pub(crate) fn last_seen(&self) -> impl Iterator<Item = (&ReaderId, Timestamp)> {
        self.readers.iter().map(|(reader, member)| (reader, member.last_seen))
    }

    /// The readers that did not say anything since an instant, as far as clocks agree.
    pub(crate) fn silent_since(&self, then: Timestamp) -> Vec<ReaderId> {
        self.readers.iter().filter(|(_, m)| m.last_seen < then).map(|(name, _)| name.clone()).collect()
    }

    /// A stream begins later: everything before the head is left out. Checkpoints under way are given up.
    pub(crate) fn rebase(&mut self, stream: u32, graph: &SegmentGraph, head: &StreamCut) -> Result<bool, GroupError> {
        let present = self.cut(stream);
        let next = graph.join(&present, head);
        if next == present {
            return Ok(false);
        }
        let kept = |segment: &SegmentId| segment.stream != stream || next.0.contains_key(segment);
        self.unassigned.retain(|segment, _| kept(segment));
        self.readers.values_mut().for_each(|m| m.segments.retain(|segment, _| kept(segment)));
        self.frontier.keep(stream, &next);
        self.checkpoints.clear();
        let ends = StreamCut(self.ends.iter().filter(|(s, _)| s.stream == stream).map(|(s, o)| (*s, *o)).collect());
        for (&segment, &offset) in &next.0 {
            let held = self.readers.values_mut().find_map(|m| m.segments.get_mut(&segment));
            if let Some(place) = held.or_else(|| self.unassigned.get_mut(&segment)) {
                place.offset = offset;
            } else if let (false, Some(node)) = (self.frontier.is_done(segment), graph.node(segment)) {
                if !ends.0.is_empty() && graph.is_behind(segment, &ends) {
                    self.frontier.complete(segment, offset, &[]);
                } else {
                    self.open(SegmentPlace { segment, container: node.container }, offset);
                }
            }
        }
        self.fits()?;
        Ok(true)
    }

    /// Where the group stands in each index, as far as its readers told.
    pub(crate) fn cuts(&self) -> BTreeMap<IndexName, StreamCut> {
        self.by_index(self.places())
    }

    /// Where the group stands in a stream.
    pub(crate) fn cut(&self, stream: u32) -> StreamCut {
        StreamCut(self.places().filter(|(segment, _)| segment.stream == stream).collect())
    }

    /// The index of a segment.
    pub(crate) fn index(&self, segment: SegmentId) -> Option<&IndexName> {
        self.indexes.get(&segment.stream)
    }

    /// Where reading of a segment ends, if it does.
    pub(crate) fn end(&self, segment: SegmentId) -> Option<Offset> {
        self.ends.get(&segment).copied()
    }

    /// Whether everything was read up to the ends.
    pub(crate) fn is_finished(&self) -> bool {
        self.open_count() == 0 && !self.frontier.is_waiting()
    }

    /// How many segments can be read now.
    pub(crate) fn open_count(&self) -> usize {
        self.unassigned.len() + self.readers.values().map(|m| m.segments.len()).sum::<usize>()
    }

    /// The readers and what they have.
    pub(crate) fn assignment(&self) -> BTreeMap<ReaderId, BTreeMap<SegmentId, Offset>> {
        let offsets = |m: &Member| m.segments.iter().map(|(segment, place)| (*segment, place.offset)).collect();
        self.readers.iter().map(|(name, member)| (name.clone(), offsets(member))).collect()
    }

    /// Every segment that stands for its keys, with how far it was read.
    pub(super) fn places(&self) -> impl Iterator<Item = (SegmentId, Offset)> {
        let held = self.readers.values().flat_map(|m| &m.segments);
        held.chain(&self.unassigned).map(|(segment, place)| (*segment, place.offset)).chain(self.frontier.ends())
    }

    pub(super) fn by_index(&self, places: impl Iterator<Item = (SegmentId, Offset)>) -> BTreeMap<IndexName, StreamCut> {
        let mut cuts: BTreeMap<IndexName, StreamCut> = BTreeMap::new();
        for (segment, offset) in places {
            if let Some(index) = self.index(segment) {
                cuts.entry(index.clone()).or_default().0.insert(segment, offset);
            }
        }
        cuts
    }

    pub(super) fn member(&mut self, seat: &Seat) -> Result<&mut Member, GroupError> {
        let member = self.readers.get_mut(&seat.reader).filter(|m| m.session == seat.session);
        member.ok_or_else(|| GroupError::ReaderOffline(seat.reader.clone()))
    }

    /// A segment becomes readable, unless the group reads nothing of it.
    fn open(&mut self, place: SegmentPlace, offset: Offset) {
        if self.end(place.segment).is_some_and(|end| offset >= end) {
            self.frontier.complete(place.segment, offset, &[]);
        } else {
            self.unassigned.insert(place.segment, Place { container: place.container, offset });
        }
    }

    fn fits(&self) -> Result<(), GroupError> {
        let known: BTreeSet<SegmentId> = self.ends.keys().copied().collect();
        let size = self.open_count() + self.frontier.size() + known.len();
        if size > GROUP_SEGMENTS_MAX { Err(GroupError::TooManySegments) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
