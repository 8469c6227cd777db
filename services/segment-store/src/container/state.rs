//! The container's state: what follows from its log, and nothing else.
//!
//! [`State::apply`] is deterministic: whoever applies the same records has the same bytes. Offsets are given here, and
//! duplicates are dropped here, so that neither depends on who owned the container when.

mod adopt;
mod held;
mod segment;
mod transactions;
mod writers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, IndexName, Offset, SegmentId, Timestamp};
use wire::segment_store::{Appended, Merged, SegmentInfo};

pub(crate) use adopt::end_of;
pub use held::{IDS_HELD_MAX, WRITERS_HELD_MAX};
pub use segment::{Piece, Segment};
pub use transactions::{MERGED_MAX, MergedSource, TRANSACTION_BYTES_MAX};
pub use writers::{IDS_TOLD_MAX, WRITERS_MAX, Writer};

use crate::{
    container::{
        frame::{Entry, Frame, Seeds},
        state::writers::last_number,
    },
    error::{Damage, Error},
};

/// Objects that wait for their removal, per container: with some 200 bytes each, 3 MiB of a snapshot.
///
/// At the limit a truncation still moves a segment's start, but the chunks stay until there is room, and chunks are not
/// replaced.
pub const GARBAGE_MAX: usize = 16_384;

/// Deletions remembered per container, so that a creation that was sent before and comes behind is refused: some 30 bytes
/// each. At the limit the older half is forgotten; what a creation brings back then is empty, and no stream names it.
pub const TOMBSTONES_MAX: usize = 16_384;

/// Everything that a container is, as of one record of its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The container.
    pub container: ContainerId,
    /// The newest owner's generation; frames of older ones are ignored.
    pub generation: Generation,
    /// The sequence of the last record applied.
    pub applied_seq: u64,
    /// The number of the last frame applied.
    pub frame_number: u64,
    /// The link of the last frame applied.
    pub previous: u64,
    /// The segments.
    pub segments: BTreeMap<SegmentId, Segment>,
    /// Deleted segments whose objects may still be there.
    pub deleted: BTreeMap<SegmentId, IndexName>,
    /// When segments were deleted, known ones or not; their ids are never used again.
    #[serde(default)]
    pub tombstones: BTreeMap<SegmentId, Timestamp>,
    /// Objects by key that no segment names any more.
    #[serde(default)]
    pub garbage: BTreeMap<String, Garbage>,
    /// Whether truncated chunks wait for room among the garbage.
    #[serde(default)]
    crowded: bool,
    /// How much is remembered in all segments.
    #[serde(skip)]
    total: held::Total,
}

/// An object that no segment names any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// The segment that named it.
    pub segment: SegmentId,
    /// Since when; a reader that was told of it before may still be reading it.
    pub since: Timestamp,
}

/// What one entry of a frame did.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Events were stored, or recognised as stored already.
    Appended {
        /// What the writer is told.
        answer: Appended,
        /// Where new events are; `None` when all were duplicates.
        piece: Option<Piece>,
    },
    /// The segment is there.
    Created,
    /// The segment is sealed; its chunks are left out.
    Sealed(SegmentInfo),
    /// The segment is not there, and its objects are to be swept.
    Deleted,
    /// Events below this offset are in Tier 2.
    Tiered(Offset),
    /// The deleted segment is forgotten.
    Swept,
    /// The segment begins at its start; its chunks are left out.
    Truncated(SegmentInfo),
    /// The events of the source are in the segment.
    Merged(Merged),
    /// The chunk has taken the place of others.
    Replaced,
    /// The objects are forgotten.
    Collected,
    /// The events of an open transaction have this place in the log now.
    Carried(Piece),
    /// Nothing happened.
    Refused(Error),
}

/// What one frame did.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// It was applied: one effect per entry.
    Frame(Vec<Effect>),
    /// It was written by an owner that had been superseded.
    Stale,
    /// It was applied before.
    Known,
}

impl State {
    /// A container whose log is empty.
    pub fn new(container: ContainerId) -> Self {
        Self {
            container,
            generation: Generation::default(),
            applied_seq: 0,
            frame_number: 0,
            previous: 0,
            segments: BTreeMap::new(),
            deleted: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            garbage: BTreeMap::new(),
            crowded: false,
            total: held::Total::default(),
        }
    }

    /// Takes note of an owner record: frames of older generations after it are ignored.
    pub fn apply_owner(&mut self, seq: u64, generation: Generation) {
        if seq > self.applied_seq {
            self.applied_seq = seq;
            self.generation = self.generation.max(generation);
        }
    }

    /// Applies the frame at `seq` of the log.
    ///
    /// Errors: the frame is not the one that must follow; the state is unchanged, and the container must not go on.
    pub fn apply(&mut self, seq: u64, frame: &Frame, link: u64) -> Result<Applied, Damage> {
        if seq <= self.applied_seq {
            return Ok(Applied::Known);
        }
        if frame.container != self.container {
            return Err(Damage::Foreign { seq, found: frame.container });
        }
        if frame.generation < self.generation {
            self.applied_seq = seq;
            return Ok(Applied::Stale);
        }
        if frame.number != self.frame_number + 1 {
            return Err(Damage::Gap { seq, expected_after: self.frame_number, found: frame.number });
        }
        if frame.previous != self.previous {
            return Err(Damage::Chain { seq, number: frame.number });
        }
        self.generation = frame.generation;
        self.applied_seq = seq;
        self.frame_number = frame.number;
        self.previous = link;
        let effects =
            (0u32..).zip(&frame.entries).map(|(place, entry)| self.apply_counted(seq, place, entry)).collect();
        self.keep_bounds(WRITERS_HELD_MAX, IDS_HELD_MAX);
        Ok(Applied::Frame(effects))
    }

    fn apply_counted(&mut self, seq: u64, place: u32, entry: &Entry) -> Effect {
        let (total, before) = (self.held(), self.held_by(entry));
        let effect = self.apply_entry(seq, place, entry);
        let after = self.held_by(entry);
        self.recount(total, before, after);
        effect
    }

    fn apply_entry(&mut self, seq: u64, place: u32, entry: &Entry) -> Effect {
        let done = match entry {
            Entry::Append { segment, .. } => {
                self.segment_mut(*segment).and_then(|s| s.append(*segment, entry, (seq, place)))
            }
            Entry::CreateSegment { segment, index, seeds, transactional } => {
                self.create(*segment, index, seeds, *transactional, seq)
            }
            Entry::Seal { segment } => self.segment_mut(*segment).map(|s| {
                s.sealed = true;
                Effect::Sealed(s.brief(*segment))
            }),
            Entry::Delete { segment, at } => {
                self.delete(*segment, *at);
                Ok(Effect::Deleted)
            }
            Entry::Carry { segment, base, block } => {
                self.segment_mut(*segment).and_then(|s| s.carry(*segment, *base, block, (seq, place)))
            }
            Entry::ChunkCommitted { segment, meta } => {
                self.segment_mut(*segment).and_then(|s| s.commit_chunk(*segment, meta))
            }
            Entry::Swept { segment } => {
                self.deleted.remove(segment);
                Ok(Effect::Swept)
            }
            Entry::Truncate { segment, before, at } => self.truncate(*segment, *before, *at),
            Entry::Merge { segment, source } => self.merge(*segment, *source).map(Effect::Merged),
            Entry::ChunksReplaced { segment, meta, at } => {
                let room = GARBAGE_MAX.saturating_sub(self.garbage.len());
                let container = self.container;
                let replaced = self
                    .segment_mut(*segment)
                    .and_then(|s| s.replace_chunks(*segment, meta, room)?.ok_or(Error::GarbageFull(container)));
                replaced.map(|keys| {
                    self.discard(*segment, keys, *at);
                    Effect::Replaced
                })
            }
            Entry::Describe { segment, origin } => self.describe_as(*segment, origin),
            Entry::Adopt(adoption) => self.adopt(adoption),
            Entry::Collected { keys, at } => {
                for key in keys {
                    self.garbage.remove(key);
                }
                self.make_room(*at);
                Ok(Effect::Collected)
            }
        };
        done.unwrap_or_else(Effect::Refused)
    }

    fn create(
        &mut self,
        segment: SegmentId,
        index: &IndexName,
        seeds: &Seeds,
        transactional: bool,
        seq: u64,
    ) -> Result<Effect, Error> {
        let deleted = self.deleted.contains_key(&segment) || self.tombstones.contains_key(&segment);
        if deleted || (transactional && self.was_merged(segment)) {
            return Err(Error::SegmentDeleted(segment));
        }
        let add = || Segment::new(index.clone(), transactional).seeded(seeds, seq);
        self.segments.entry(segment).or_insert_with(add);
        Ok(Effect::Created)
    }

    /// Also remembered where the segment is not known: its creation may still be under way.
    fn delete(&mut self, segment: SegmentId, at: Timestamp) {
        let gone = self.segments.remove(&segment);
        // A repeat does not put off what is to be removed; a segment that was restored begins anew.
        let since = self.tombstones.entry(segment).or_insert(at);
        if gone.is_some() {
            *since = at;
        }
        self.forget_tombstones();
        let Some(gone) = gone else { return };
        // Of a transaction nothing was ever put.
        if !gone.transactional {
            self.deleted.insert(segment, gone.index);
        }
        // Sweeping a segment removes whatever lies in its folder.
        self.garbage.retain(|_, garbage| garbage.segment != segment);
    }

    fn forget_tombstones(&mut self) {
        if self.tombstones.len() <= TOMBSTONES_MAX {
            return;
        }
        let swept = self.tombstones.iter().filter(|(segment, _)| !self.deleted.contains_key(segment));
        let mut oldest: Vec<_> = swept.map(|(segment, at)| (*at, *segment)).collect();
        oldest.sort_unstable();
        for (_, segment) in oldest.into_iter().take(TOMBSTONES_MAX / 2) {
            self.tombstones.remove(&segment);
        }
    }

    fn truncate(&mut self, segment: SegmentId, before: Offset, at: Timestamp) -> Result<Effect, Error> {
        self.segment_mut(segment)?.truncate(segment, before)?;
        self.make_room(at);
        self.shed(segment, at);
        self.segment(segment).map(|s| Effect::Truncated(s.brief(segment)))
    }

    /// Moves the truncated chunks of a segment to the garbage, as far as there is room.
    fn shed(&mut self, segment: SegmentId, at: Timestamp) {
        let room = GARBAGE_MAX.saturating_sub(self.garbage.len());
        let Some(known) = self.segments.get_mut(&segment) else { return };
        let keys = known.shed(room);
        self.crowded |= known.has_truncated_chunks();
        self.discard(segment, keys, at);
    }

    /// Moves what waited for room to the garbage.
    fn make_room(&mut self, at: Timestamp) {
        if !std::mem::take(&mut self.crowded) {
            return;
        }
        let waiting = self.segments.iter().filter(|(_, s)| s.has_truncated_chunks()).map(|(id, _)| *id);
        let waiting: Vec<_> = waiting.collect();
        waiting.into_iter().for_each(|id| self.shed(id, at));
    }

    fn discard(&mut self, segment: SegmentId, keys: Vec<String>, since: Timestamp) {
        self.garbage.extend(keys.into_iter().map(|key| (key, Garbage { segment, since })));
    }

    /// The segment, or the complaint that it is not here.
    pub fn segment(&self, segment: SegmentId) -> Result<&Segment, Error> {
        self.segments.get(&segment).ok_or(Error::NotHere(segment))
    }

    fn segment_mut(&mut self, segment: SegmentId) -> Result<&mut Segment, Error> {
        self.segments.get_mut(&segment).ok_or(Error::NotHere(segment))
    }

    /// The answer to an append that needs no frame: a certain refusal, or a repeat of what is stored.
    ///
    /// `None` means that only the log can decide.
    pub fn foresee(&self, entry: &Entry) -> Option<Result<Appended, Error>> {
        let Entry::Append { segment, writer, first_event_number, expected_end, block } = entry else { return None };
        let known = match self.segment(*segment) {
            Ok(known) => known,
            Err(unknown) => return Some(Err(unknown)),
        };
        let last = known.last_of(writer);
        match last_number(*first_event_number, block) {
            Err(invalid) => return Some(Err(invalid)),
            Ok(number) if number <= last => return Some(Ok(known.repeat(writer, *first_event_number, block))),
            Ok(_) => {}
        }
        if known.sealed {
            return Some(Err(Error::SegmentSealed(*segment)));
        }
        // The end only grows. What comes before in the same frame may still change whether there is a gap.
        let expected = expected_end.filter(|expected| *expected < known.end && *first_event_number <= last + 1)?;
        let failed = Error::ConditionFailed { segment: *segment, expected, end: known.end };
        known.holds_new(last, *first_event_number, block).then_some(Err(failed))
    }

    /// The log sequence from which the tail can be rebuilt: frames below it hold nothing that is not in Tier 2.
    pub fn tail_seq(&self) -> u64 {
        self.segments.values().filter_map(Segment::oldest_seq).min().unwrap_or(self.applied_seq + 1)
    }

    /// The blocks of open transactions that stand below a sequence of the log and hold it back more than anything else
    /// does: `(sequence, segment, first offset)`, the oldest first.
    pub fn carriable(&self, below: u64) -> Vec<(u64, SegmentId, Offset)> {
        let others = self.segments.values().filter(|s| !s.transactional).filter_map(Segment::oldest_seq).min();
        let below = below.min(others.unwrap_or(u64::MAX));
        let open = self.segments.iter().filter(|(_, s)| s.transactional);
        let pieces = open.flat_map(|(id, s)| s.pieces.iter().map(move |piece| (piece.seq, *id, piece.base)));
        let mut old: Vec<_> = pieces.filter(|(seq, ..)| *seq < below).collect();
        old.sort_unstable();
        old
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "state_epoch_tests.rs"]
mod epoch_tests;

#[cfg(test)]
#[path = "state_model_tests.rs"]
mod model_tests;
