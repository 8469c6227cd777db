//! One segment: its events by offset, where they are, and where it begins.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
};

use serde::{Deserialize, Serialize};
use types::{IndexName, Offset, SegmentId, WriterId};
use wire::{
    block::Block,
    segment_store::{Appended, ChunkMeta, SegmentInfo, SegmentOrigin},
};

use super::{
    Effect,
    transactions::{MergedSource, TRANSACTION_BYTES_MAX},
    writers::{Writer, last_number, note_run},
};
use crate::{
    container::{frame::Entry, recent::RecentIds},
    error::Error,
};

/// What an event of an open transaction counts besides its payload: its columns in the block.
const EVENT_COST: u64 = 28;
/// What a block of an open transaction counts besides its events: its place in the state and in the tail.
const PIECE_COST: u64 = 128;

/// One segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The index that it belongs to.
    pub index: IndexName,
    /// The first offset still there; grows by truncation only.
    pub start: Offset,
    /// The first offset that is not in Tier 2; above what was truncated out of the tail.
    pub tail_from: Offset,
    /// The next offset to be given.
    pub end: Offset,
    /// Whether it takes appends no more.
    pub sealed: bool,
    /// The writers by id.
    pub writers: BTreeMap<WriterId, Writer>,
    /// Message ids of late.
    pub ids: RecentIds,
    /// What is in Tier 2, in order; without a hole from `start` on.
    pub chunks: Vec<ChunkMeta>,
    /// Where in the log the events `tail_from .. end` are, in order of offset.
    pub pieces: VecDeque<Piece>,
    /// Payload bytes of all events ever stored, also of truncated ones.
    #[serde(default)]
    pub bytes: u64,
    /// How many of them are truncated: of whole chunks and blocks.
    #[serde(default)]
    pub truncated_bytes: u64,
    /// How many of them lie below `tail_from`.
    #[serde(default)]
    pub(super) tiered_bytes: u64,
    /// How many of them lie below the end of a chunk, by that end.
    #[serde(default)]
    pub(super) bytes_below: BTreeMap<Offset, u64>,
    /// Whether it belongs to an open transaction.
    #[serde(default)]
    pub transactional: bool,
    /// The transactions' segments merged of late, oldest first.
    #[serde(default)]
    pub merged: VecDeque<MergedSource>,
    /// What it is in its stream; `None` if it was created before there was such a thing.
    #[serde(default)]
    pub origin: Option<SegmentOrigin>,
    /// The offsets with which it was made of chunks, if it was.
    #[serde(default)]
    pub(super) adopted: Option<(Offset, Offset)>,
}

/// Events of one block that are in Tier 1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The log sequence of the frame.
    pub seq: u64,
    /// The place of the block in the frame. The frame names the transaction's segment if the events were merged.
    pub entry: u32,
    /// The offset of the first event kept.
    pub base: Offset,
    /// The number of events kept, at least 1.
    pub count: u32,
    /// Places of events in the block that were dropped as duplicates, ascending.
    pub dropped: Vec<u32>,
    /// Payload bytes of the events kept.
    #[serde(default)]
    pub bytes: u64,
}

impl Piece {
    /// The offset after the last event kept.
    pub fn end(&self) -> Offset {
        self.base + u64::from(self.count)
    }
}

#[cfg(test)]
impl Segment {
    /// One with these offsets, and nothing in it.
    pub(crate) fn of_test(index: &str, (start, end): (Offset, Offset), origin: Option<SegmentOrigin>) -> Self {
        Self { start, tail_from: end, end, origin, ..Self::new(index.parse().unwrap(), false) }
    }
}

impl Segment {
    pub(super) fn new(index: IndexName, transactional: bool) -> Self {
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
            bytes: 0,
            truncated_bytes: 0,
            tiered_bytes: 0,
            bytes_below: BTreeMap::new(),
            transactional,
            merged: VecDeque::new(),
            origin: None,
            adopted: None,
        }
    }

    /// The log sequence of the oldest event that is not in Tier 2.
    ///
    /// Merged events may be older than what stands before them, so that every piece counts.
    pub fn oldest_seq(&self) -> Option<u64> {
        self.pieces.iter().map(|piece| piece.seq).min()
    }

    /// The segment as others see it.
    pub fn info(&self, segment: SegmentId) -> SegmentInfo {
        // The first chunk may wait for room among the garbage.
        let first = self.chunks.partition_point(|chunk| chunk.to <= self.start);
        SegmentInfo { chunks: self.chunks[first..].to_vec(), ..self.brief(segment) }
    }

    /// The segment as others see it, without its chunks.
    pub fn brief(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo {
            segment,
            index: self.index.clone(),
            start: self.start,
            tail_from: self.tail_from,
            end: self.end,
            sealed: self.sealed,
            chunks: Vec::new(),
            bytes: self.bytes,
            truncated_bytes: self.truncated_bytes,
            transactional: self.transactional,
        }
    }

    pub(super) fn append(
        &mut self,
        segment: SegmentId,
        entry: &Entry,
        (seq, place): (u64, u32),
    ) -> Result<Effect, Error> {
        let Entry::Append { writer, first_event_number, expected_end, block, .. } = entry else {
            return Err(Error::BadBlock("it is none".into()));
        };
        let first = *first_event_number;
        let last_number = last_number(first, block)?;
        let last = self.last_of(writer);
        if last_number <= last {
            return Ok(Effect::Appended { answer: self.repeat(writer, first, block), piece: None });
        }
        if self.sealed {
            return Err(Error::SegmentSealed(segment));
        }
        if first > last + 1 {
            return Err(Error::EventNumberGap { segment, writer: writer.clone(), expected: last + 1, found: first });
        }
        if let Some(expected) = expected_end.filter(|expected| *expected != self.end)
            && self.holds_new(last, first, block)
        {
            return Err(Error::ConditionFailed { segment, expected, end: self.end });
        }
        self.has_room(segment, block)?;
        let (answer, piece) = self.store(writer, first..=last_number, last, block, (seq, place));
        Ok(Effect::Appended { answer, piece })
    }

    /// Gives offsets to the events of a block that are new; up to `last` the writer's are known.
    fn store(
        &mut self,
        writer: &WriterId,
        numbers: RangeInclusive<u64>,
        last: u64,
        block: &Block,
        (seq, entry): (u64, u32),
    ) -> (Appended, Option<Piece>) {
        let (base, bytes_before) = (self.end, self.bytes);
        let mut answer =
            Appended { offsets: Vec::with_capacity(block.len()), duplicate_count: 0, duplicates: Vec::new() };
        let mut runs = Vec::new();
        let last_number = *numbers.end();
        for ((place, event), number) in (0u32..).zip(block.iter()).zip(numbers) {
            let stored = if number <= last { Some(self.offset_of(writer, number)) } else { self.ids.find(event.id) };
            if let Some(known) = stored {
                answer.offsets.push(known);
                answer.duplicates.push(place);
            } else {
                answer.offsets.push(Some(self.end));
                self.ids.insert(event.id, event.received, Some(self.end));
                note_run(&mut runs, number, self.end);
                self.end += 1;
                self.bytes += u64::try_from(event.payload.len()).unwrap_or(u64::MAX);
            }
        }
        answer.duplicate_count = u32::try_from(answer.duplicates.len()).unwrap_or(u32::MAX);
        self.remember(writer, Writer::new(last_number, seq, runs));
        let count = u32::try_from(self.end - base).unwrap_or(u32::MAX);
        let bytes = self.bytes - bytes_before;
        let piece = (count > 0).then(|| Piece { seq, entry, base, count, dropped: answer.duplicates.clone(), bytes });
        self.pieces.extend(piece.clone());
        (answer, piece)
    }

    /// Whether an open transaction may still take the block; every other segment may.
    fn has_room(&self, segment: SegmentId, block: &Block) -> Result<(), Error> {
        let pieces = u64::try_from(self.pieces.len()).unwrap_or(u64::MAX);
        let block = u64::try_from(block.bytes().len()).unwrap_or(u64::MAX);
        let held = self.bytes + self.end * EVENT_COST + pieces * PIECE_COST + block;
        if self.transactional && held > TRANSACTION_BYTES_MAX {
            return Err(Error::TransactionTooLarge(segment));
        }
        Ok(())
    }

    pub(super) fn commit_chunk(&mut self, segment: SegmentId, meta: &ChunkMeta) -> Result<Effect, Error> {
        let ends_on_a_piece = self.pieces.iter().any(|piece| piece.end() == meta.to);
        if meta.from != self.tail_from || !ends_on_a_piece || self.transactional {
            return Err(Error::ChunkOutOfPlace { segment, expected: self.tail_from, found: meta.from });
        }
        self.leave_tail(meta.to);
        self.tail_from = meta.to;
        self.chunks.push(meta.clone());
        self.bytes_below.insert(meta.to, self.tiered_bytes);
        Ok(Effect::Tiered(meta.to))
    }

    /// Forgets the pieces that end at or below an offset.
    fn leave_tail(&mut self, to: Offset) {
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.end() <= to) {
            self.tiered_bytes += piece.bytes;
        }
    }

    /// Moves the start, and with it the tail, but not the chunks.
    pub(super) fn truncate(&mut self, segment: SegmentId, before: Offset) -> Result<(), Error> {
        if self.transactional {
            return Err(Error::Transactional(segment));
        }
        if before > self.end {
            return Err(Error::BeyondEnd { segment, before, end: self.end });
        }
        self.start = self.start.max(before);
        if self.start > self.tail_from {
            self.leave_tail(self.start);
            // A block of which something stays goes to Tier 2 whole.
            self.tail_from = self.pieces.front().map_or(self.end, |piece| piece.base);
            self.truncated_bytes = self.truncated_bytes.max(self.tiered_bytes);
        }
        Ok(())
    }

    /// Whether there are chunks of which nothing can be read any more.
    pub(super) fn has_truncated_chunks(&self) -> bool {
        self.chunks.first().is_some_and(|chunk| chunk.to <= self.start)
    }

    /// Removes truncated chunks, the oldest first and at most `room`, and answers their keys.
    pub(super) fn shed(&mut self, room: usize) -> Vec<String> {
        let count = self.chunks.partition_point(|chunk| chunk.to <= self.start).min(room);
        let gone: Vec<ChunkMeta> = self.chunks.drain(..count).collect();
        if let Some(last) = gone.last() {
            let below = self.bytes_below.get(&last.to).copied().unwrap_or_default();
            self.truncated_bytes = self.truncated_bytes.max(below);
            self.bytes_below = self.bytes_below.split_off(&(last.to + 1));
        }
        gone.into_iter().map(|chunk| chunk.key).collect()
    }

    /// Puts one chunk in the place of those that exactly cover its offsets, and answers their keys; `None` if they are
    /// more than `room`. A repeat replaces nothing.
    pub(super) fn replace_chunks(
        &mut self,
        segment: SegmentId,
        meta: &ChunkMeta,
        room: usize,
    ) -> Result<Option<Vec<String>>, Error> {
        let first = self.chunks.partition_point(|chunk| chunk.from < meta.from);
        let after = self.chunks.partition_point(|chunk| chunk.to <= meta.to).max(first);
        let covered = &self.chunks[first..after];
        let whole = covered.first().is_some_and(|chunk| chunk.from == meta.from)
            && covered.last().is_some_and(|chunk| chunk.to == meta.to)
            && covered.windows(2).all(|pair| pair[0].to == pair[1].from);
        if !whole {
            return Err(Error::ChunksDiffer { segment, from: meta.from, to: meta.to });
        }
        if matches!(covered, [one] if one.key == meta.key) {
            return Ok(Some(Vec::new()));
        }
        if covered.len() > room {
            return Ok(None);
        }
        let gone: Vec<ChunkMeta> = self.chunks.splice(first..after, [meta.clone()]).collect();
        for chunk in gone.iter().filter(|chunk| chunk.to != meta.to) {
            self.bytes_below.remove(&chunk.to);
        }
        Ok(Some(gone.into_iter().map(|chunk| chunk.key).filter(|key| *key != meta.key).collect()))
    }
}
