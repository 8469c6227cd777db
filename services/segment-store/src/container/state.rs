//! The container's state: what follows from its log, and nothing else.
//!
//! [`State::apply`] is deterministic: whoever applies the same records has the same bytes. Offsets are given here, and
//! duplicates are dropped here, so that neither depends on who owned the container when.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use types::{ContainerId, Generation, IndexName, Offset, SegmentId, WriterId};
use wire::{
    block::Block,
    segment_store::{Appended, ChunkMeta, SegmentInfo},
};

use crate::{
    container::{
        frame::{Entry, Frame},
        recent::RecentIds,
    },
    error::{Damage, Error},
};

/// Writers remembered per segment; beyond it the one silent for the longest is forgotten. If it comes back, its next
/// append is refused as a gap and never stored twice, unless its whole life was one block.
pub const WRITERS_MAX: usize = 10_000;

/// Stretches of offsets remembered of a writer's last block, so that a repeat is answered with the same offsets.
const RUNS_MAX: usize = 16;

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
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The index that it belongs to.
    pub index: IndexName,
    /// The first offset still there.
    pub start: Offset,
    /// The first offset that is not in Tier 2.
    pub tail_from: Offset,
    /// The next offset to be given.
    pub end: Offset,
    /// Whether it takes appends no more.
    pub sealed: bool,
    /// The writers by id.
    pub writers: BTreeMap<WriterId, Writer>,
    /// Message ids of late.
    pub ids: RecentIds,
    /// What is in Tier 2, in order.
    pub chunks: Vec<ChunkMeta>,
    /// Where in the log the events `tail_from .. end` are, in order.
    pub pieces: VecDeque<Piece>,
}

/// What is known of a writer in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Its last event number.
    pub last: u64,
    /// The log sequence of its last append.
    seq: u64,
    /// The offsets of its last block.
    runs: Vec<Run>,
}

/// Consecutive event numbers with consecutive offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    number: u64,
    offset: Offset,
    count: u64,
}

/// Events of one block that are in Tier 1 only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The log sequence of the frame.
    pub seq: u64,
    /// The place of the block in the frame.
    pub entry: u32,
    /// The offset of the first event kept.
    pub base: Offset,
    /// The number of events kept, at least 1.
    pub count: u32,
    /// Places of events in the block that were dropped as duplicates, ascending.
    pub dropped: Vec<u32>,
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
    /// The segment is sealed.
    Sealed(SegmentInfo),
    /// The segment is not there, and its objects are to be swept.
    Deleted,
    /// Events below this offset are in Tier 2.
    Tiered(Offset),
    /// The deleted segment is forgotten.
    Swept,
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
        let effects = (0u32..).zip(&frame.entries).map(|(place, entry)| self.apply_entry(seq, place, entry)).collect();
        Ok(Applied::Frame(effects))
    }

    fn apply_entry(&mut self, seq: u64, place: u32, entry: &Entry) -> Effect {
        let done = match entry {
            Entry::Append { segment, writer, first_event_number, block } => (self.segment_mut(*segment))
                .and_then(|s| s.append(*segment, writer, *first_event_number, block, (seq, place))),
            Entry::CreateSegment { segment, index } => self.create(*segment, index),
            Entry::Seal { segment } => self.segment_mut(*segment).map(|s| {
                s.sealed = true;
                Effect::Sealed(s.info(*segment))
            }),
            Entry::Delete { segment } => {
                if let Some(gone) = self.segments.remove(segment) {
                    self.deleted.insert(*segment, gone.index);
                }
                Ok(Effect::Deleted)
            }
            Entry::ChunkCommitted { segment, meta } => {
                self.segment_mut(*segment).and_then(|s| s.commit_chunk(*segment, meta))
            }
            Entry::Swept { segment } => {
                self.deleted.remove(segment);
                Ok(Effect::Swept)
            }
        };
        done.unwrap_or_else(Effect::Refused)
    }

    fn create(&mut self, segment: SegmentId, index: &IndexName) -> Result<Effect, Error> {
        if self.deleted.contains_key(&segment) {
            return Err(Error::SegmentDeleted(segment));
        }
        self.segments.entry(segment).or_insert_with(|| Segment::new(index.clone()));
        Ok(Effect::Created)
    }

    /// The segment, or the complaint that it is not here.
    pub fn segment(&self, segment: SegmentId) -> Result<&Segment, Error> {
        self.segments.get(&segment).ok_or(Error::UnknownSegment(segment))
    }

    fn segment_mut(&mut self, segment: SegmentId) -> Result<&mut Segment, Error> {
        self.segments.get_mut(&segment).ok_or(Error::UnknownSegment(segment))
    }

    /// The answer to an append that needs no frame: a certain refusal, or a repeat of what is stored.
    ///
    /// `None` means that only the log can decide.
    pub fn foresee(&self, entry: &Entry) -> Option<Result<Appended, Error>> {
        let Entry::Append { segment, writer, first_event_number, block } = entry else { return None };
        let known = match self.segment(*segment) {
            Ok(known) => known,
            Err(unknown) => return Some(Err(unknown)),
        };
        let last = known.writers.get(writer).map_or(0, |w| w.last);
        match last_number(*first_event_number, block) {
            Err(invalid) => return Some(Err(invalid)),
            Ok(number) if number <= last => return Some(Ok(known.repeat(writer, *first_event_number, block))),
            Ok(_) => {}
        }
        known.sealed.then_some(Err(Error::SegmentSealed(*segment)))
    }

    /// The log sequence from which the tail can be rebuilt: frames below it hold nothing that is not in Tier 2.
    pub fn tail_seq(&self) -> u64 {
        let first = self.segments.values().filter_map(|s| s.pieces.front()).map(|piece| piece.seq).min();
        first.unwrap_or(self.applied_seq + 1)
    }
}

/// The number of a block's last event.
fn last_number(first: u64, block: &Block) -> Result<u64, Error> {
    let count = u64::try_from(block.len()).unwrap_or(u64::MAX);
    if first == 0 {
        return Err(Error::BadBlock("event numbers begin with 1".into()));
    }
    first.checked_add(count - 1).ok_or_else(|| Error::BadBlock("event numbers overflow".into()))
}

impl Segment {
    fn new(index: IndexName) -> Self {
        Self {
            index,
            start: 0,
            tail_from: 0,
            end: 0,
            sealed: false,
            writers: BTreeMap::new(),
            ids: RecentIds::default(),
            chunks: Vec::new(),
            pieces: VecDeque::new(),
        }
    }

    /// The segment as others see it.
    pub fn info(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo {
            segment,
            index: self.index.clone(),
            start: self.start,
            tail_from: self.tail_from,
            end: self.end,
            sealed: self.sealed,
            chunks: self.chunks.clone(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        }
    }

    fn append(
        &mut self,
        segment: SegmentId,
        writer: &WriterId,
        first: u64,
        block: &Block,
        (seq, entry): (u64, u32),
    ) -> Result<Effect, Error> {
        let last_number = last_number(first, block)?;
        let last = self.writers.get(writer).map_or(0, |w| w.last);
        if last_number <= last {
            return Ok(Effect::Appended { answer: self.repeat(writer, first, block), piece: None });
        }
        if self.sealed {
            return Err(Error::SegmentSealed(segment));
        }
        if first > last + 1 {
            return Err(Error::EventNumberGap { segment, writer: writer.clone(), expected: last + 1, found: first });
        }
        let base = self.end;
        let mut answer =
            Appended { offsets: Vec::with_capacity(block.len()), duplicate_count: 0, duplicates: Vec::new() };
        let mut runs: Vec<Run> = Vec::new();
        for (place, number) in (0u32..).zip(first..=last_number) {
            let at = place as usize;
            let (id, received) = (block.id(at), block.received(at));
            let stored =
                if number <= last { Some(self.offset_of(writer, number)) } else { self.ids.offset_of(id).map(Some) };
            if let Some(known) = stored {
                answer.offsets.push(known);
                answer.duplicates.push(place);
                continue;
            }
            answer.offsets.push(Some(self.end));
            self.ids.insert(id, received, self.end);
            note_run(&mut runs, number, self.end);
            self.end += 1;
        }
        answer.duplicate_count = u32::try_from(answer.duplicates.len()).unwrap_or(u32::MAX);
        self.remember(writer, Writer { last: last_number, seq, runs });
        let count = u32::try_from(self.end - base).unwrap_or(u32::MAX);
        let piece = (count > 0).then(|| Piece { seq, entry, base, count, dropped: answer.duplicates.clone() });
        self.pieces.extend(piece.clone());
        Ok(Effect::Appended { answer, piece })
    }

    fn remember(&mut self, writer: &WriterId, as_of: Writer) {
        if self.writers.len() >= WRITERS_MAX && !self.writers.contains_key(writer) {
            let oldest = self.writers.iter().min_by_key(|(_, w)| w.seq).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.writers.remove(&id));
        }
        self.writers.insert(writer.clone(), as_of);
    }

    /// The offset of an event that the writer sent before, as long as it is known.
    fn offset_of(&self, writer: &WriterId, number: u64) -> Option<Offset> {
        let runs = &self.writers.get(writer)?.runs;
        runs.iter()
            .find(|run| (run.number..run.number + run.count).contains(&number))
            .map(|run| run.offset + (number - run.number))
    }

    fn repeat(&self, writer: &WriterId, first: u64, block: &Block) -> Appended {
        let numbers = (first..).zip(0..block.len());
        let offsets =
            numbers.map(|(number, at)| self.offset_of(writer, number).or_else(|| self.ids.offset_of(block.id(at))));
        let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
        Appended { offsets: offsets.collect(), duplicate_count: count, duplicates: (0..count).collect() }
    }

    fn commit_chunk(&mut self, segment: SegmentId, meta: &ChunkMeta) -> Result<Effect, Error> {
        let ends_on_a_piece = self.pieces.iter().any(|piece| piece.base + u64::from(piece.count) == meta.to);
        if meta.from != self.tail_from || !ends_on_a_piece {
            return Err(Error::ChunkOutOfPlace { segment, expected: self.tail_from, found: meta.from });
        }
        while self.pieces.front().is_some_and(|piece| piece.base < meta.to) {
            self.pieces.pop_front();
        }
        self.tail_from = meta.to;
        self.chunks.push(meta.clone());
        Ok(Effect::Tiered(meta.to))
    }
}

/// Extends the runs of a block by one event, as long as there is room.
fn note_run(runs: &mut Vec<Run>, number: u64, offset: Offset) {
    if let Some(run) = runs.last_mut().filter(|run| run.number + run.count == number) {
        run.count += 1;
    } else if runs.len() < RUNS_MAX {
        runs.push(Run { number, offset, count: 1 });
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
