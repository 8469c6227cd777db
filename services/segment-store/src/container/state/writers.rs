//! By what a segment recognises repeats: writers' event numbers, and message ids.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use types::{Offset, WriterId};
use wire::{
    block::Block,
    segment_store::{Appended, WriterLast, WriterTable},
};

use super::segment::Segment;
use crate::{container::frame::Seeds, error::Error};

/// Writers remembered per segment; beyond it the one silent for the longest is forgotten. If it comes back, its next
/// append is refused as a gap and never stored twice, unless its whole life was one block.
pub const WRITERS_MAX: usize = 10_000;

/// Message ids that a segment hands on to its successors, the newest: 30 seconds of 500 events a second, and half a
/// MiB of an answer.
pub const IDS_TOLD_MAX: usize = 16_384;

/// Stretches of offsets remembered of a writer's last block, so that a repeat is answered with the same offsets.
const RUNS_MAX: usize = 16;

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
pub(super) struct Run {
    number: u64,
    offset: Offset,
    count: u64,
}

impl Writer {
    pub(super) fn new(last: u64, seq: u64, runs: Vec<Run>) -> Self {
        Self { last, seq, runs }
    }

    /// The log sequence of its last append.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }
}

impl Segment {
    /// The last event number of a writer; 0 for one never seen.
    pub fn last_of(&self, writer: &WriterId) -> u64 {
        self.writers.get(writer).map_or(0, |known| known.last)
    }

    /// The segment with what its predecessors know, as of the log sequence at which it is created.
    pub(super) fn seeded(mut self, seeds: &Seeds, seq: u64) -> Self {
        for (writer, last) in seeds.writers.iter().take(WRITERS_MAX) {
            self.writers.insert(writer.clone(), Writer::new(*last, seq, Vec::new()));
        }
        for (id, received) in &seeds.ids {
            if self.ids.find(*id).is_none() {
                self.ids.insert(*id, *received, None);
            }
        }
        self
    }

    /// What a successor needs to know; the message ids are the newest [`IDS_TOLD_MAX`].
    pub fn table(&self) -> WriterTable {
        let writers =
            self.writers.iter().map(|(writer, known)| WriterLast { writer: writer.clone(), last: known.last });
        let mut ids = BytesMut::new();
        let skipped = self.ids.len().saturating_sub(IDS_TOLD_MAX);
        for (id, received, offset) in self.ids.iter().skip(skipped) {
            ids.put_u128_le(id);
            ids.put_i64_le(received.nanos());
            ids.put_u64_le(offset.unwrap_or(u64::MAX));
        }
        WriterTable { writers: writers.collect(), ids: ids.freeze() }
    }

    pub(super) fn remember(&mut self, writer: &WriterId, as_of: Writer) {
        if self.writers.len() >= WRITERS_MAX && !self.writers.contains_key(writer) {
            let oldest = self.writers.iter().min_by_key(|(_, w)| w.seq).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.writers.remove(&id));
        }
        self.writers.insert(writer.clone(), as_of);
    }

    /// The offset of an event that the writer sent before, as long as it is known.
    pub(super) fn offset_of(&self, writer: &WriterId, number: u64) -> Option<Offset> {
        let runs = &self.writers.get(writer)?.runs;
        runs.iter()
            .find(|run| (run.number..run.number + run.count).contains(&number))
            .map(|run| run.offset + (number - run.number))
    }

    /// Whether any event of a block, numbered from `first`, would be stored, if the writer's last number is `last`.
    pub(super) fn holds_new(&self, last: u64, first: u64, block: &Block) -> bool {
        (first..).zip(0..block.len()).any(|(number, at)| number > last && self.ids.find(block.id(at)).is_none())
    }

    /// The answer to a block that is stored already.
    pub(super) fn repeat(&self, writer: &WriterId, first: u64, block: &Block) -> Appended {
        let numbers = (first..).zip(0..block.len());
        let offsets = numbers
            .map(|(number, at)| self.offset_of(writer, number).or_else(|| self.ids.find(block.id(at)).flatten()));
        let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
        Appended { offsets: offsets.collect(), duplicate_count: count, duplicates: (0..count).collect() }
    }
}

/// The number of a block's last event.
pub(super) fn last_number(first: u64, block: &Block) -> Result<u64, Error> {
    let count = u64::try_from(block.len()).unwrap_or(u64::MAX);
    if first == 0 {
        return Err(Error::BadBlock("event numbers begin with 1".into()));
    }
    first.checked_add(count - 1).ok_or_else(|| Error::BadBlock("event numbers overflow".into()))
}

/// Extends the runs of a block by one event, as long as there is room.
pub(super) fn note_run(runs: &mut Vec<Run>, number: u64, offset: Offset) {
    if let Some(run) = runs.last_mut().filter(|run| run.number + run.count == number) {
        run.count += 1;
    } else if runs.len() < RUNS_MAX {
        runs.push(Run { number, offset, count: 1 });
    }
}
