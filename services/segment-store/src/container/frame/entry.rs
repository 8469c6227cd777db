//! One change of a container, and its bytes in a frame.
//!
//! Layout, little endian: `tag u8 | stream u32 | epoch u32 | number u32 | what the tag says`. A tag keeps its meaning and
//! its layout for ever; an entry that is as it was before a field came is written with the tag that it had then.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use types::{IndexName, Offset, SegmentId, Timestamp, WriterId};
use wire::{
    block::Block,
    segment_store::{Adoption, ChunkMeta, SegmentOrigin},
};

use crate::container::frame::{FrameError, adopted, put_text, take, take_text, text};

/// Keys of one [`Entry::Collected`], at most: about 150 KiB of a frame.
pub const COLLECTED_MAX: usize = 1_000;

/// Bytes of an append entry besides its writer and block.
const APPEND_OVERHEAD: usize = HEAD + 1 + 8 + 4 + 8;
/// Tag and segment.
const HEAD: usize = 1 + 12;
/// What has no segment of its own names this one, which no stream has.
const NO_SEGMENT: SegmentId = SegmentId { stream: 0, epoch: 0, number: 0 };

/// One change of a container.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Adds the events of a block.
    Append {
        /// Where to.
        segment: SegmentId,
        /// Who writes.
        writer: WriterId,
        /// The writer's number of the first event.
        first_event_number: u64,
        /// Only if this is the next offset to be given.
        expected_end: Option<Offset>,
        /// The events.
        block: Block,
    },
    /// Adds an empty segment.
    CreateSegment {
        /// The segment.
        segment: SegmentId,
        /// The index that it belongs to.
        index: IndexName,
        /// By what it recognises what its predecessors have.
        seeds: Seeds,
        /// Whether it belongs to a transaction.
        transactional: bool,
    },
    /// Ends a segment.
    Seal {
        /// The segment.
        segment: SegmentId,
    },
    /// Removes a segment; its objects are removed afterwards.
    Delete {
        /// The segment.
        segment: SegmentId,
        /// When it was asked for: from then on its objects are garbage. [`Timestamp::MIN`] where nobody wrote it down.
        at: Timestamp,
    },
    /// Writes a block of an open transaction to the log once more, so that the log may forget where it was before.
    Carry {
        /// The transaction's segment.
        segment: SegmentId,
        /// The offset of the block's first event that was kept.
        base: Offset,
        /// The block as it was.
        block: Block,
    },
    /// Events moved to Tier 2.
    ChunkCommitted {
        /// The segment.
        segment: SegmentId,
        /// The object that holds them.
        meta: ChunkMeta,
    },
    /// No object of a deleted segment is left.
    Swept {
        /// The segment.
        segment: SegmentId,
    },
    /// Makes a segment begin later.
    Truncate {
        /// The segment.
        segment: SegmentId,
        /// The first offset that stays.
        before: Offset,
        /// When it was asked for: from then on what goes is garbage.
        at: Timestamp,
    },
    /// Adds all events of a transaction's segment to the end of another one.
    Merge {
        /// Where to.
        segment: SegmentId,
        /// The transaction's segment, which is gone afterwards.
        source: SegmentId,
    },
    /// One chunk takes the place of those that exactly cover its offsets.
    ChunksReplaced {
        /// The segment.
        segment: SegmentId,
        /// The new chunk.
        meta: ChunkMeta,
        /// When: from then on the old ones are garbage.
        at: Timestamp,
    },
    /// Objects that nothing named are gone.
    Collected {
        /// Their keys, at most [`COLLECTED_MAX`].
        keys: Vec<String>,
        /// When: what becomes garbage because there is room again is garbage from then on.
        at: Timestamp,
    },
    /// Says what a segment is in its stream.
    Describe {
        /// The segment.
        segment: SegmentId,
        /// What it is.
        origin: SegmentOrigin,
    },
    /// Adds a segment made of chunks that are there.
    Adopt(Box<Adoption>),
}

/// By what a new segment recognises repeats of what its predecessors have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seeds {
    /// The last event number of each writer, by writer.
    pub writers: Vec<(WriterId, u64)>,
    /// Message ids of late with their times of receipt, oldest first.
    pub ids: Vec<(u128, Timestamp)>,
}

impl Seeds {
    /// Whether there is nothing to recognise.
    pub fn is_empty(&self) -> bool {
        self.writers.is_empty() && self.ids.is_empty()
    }
}

impl Entry {
    /// Adds an empty segment without predecessors.
    pub fn create(segment: SegmentId, index: IndexName) -> Self {
        Self::CreateSegment { segment, index, seeds: Seeds::default(), transactional: false }
    }

    /// Size in a frame before compression, at most.
    pub fn raw_bytes(&self) -> usize {
        match self {
            Self::Append { writer, block, .. } => APPEND_OVERHEAD + writer.as_str().len() + block.bytes().len(),
            Self::ChunkCommitted { meta, .. } | Self::ChunksReplaced { meta, .. } => 64 + meta.key.len(),
            Self::CreateSegment { seeds, .. } => {
                let writers: usize = seeds.writers.iter().map(|(writer, _)| 1 + writer.as_str().len() + 8).sum();
                96 + writers + seeds.ids.len() * (16 + 8)
            }
            Self::Collected { keys, .. } => HEAD + 8 + 4 + keys.iter().map(|key| 2 + key.len()).sum::<usize>(),
            Self::Seal { .. } | Self::Swept { .. } => HEAD,
            Self::Delete { .. } => HEAD + 8,
            Self::Truncate { .. } | Self::Merge { .. } => HEAD + 16,
            Self::Carry { block, .. } => HEAD + 8 + 4 + block.bytes().len(),
            Self::Describe { origin, .. } => HEAD + adopted::origin_bytes(origin),
            Self::Adopt(adoption) => HEAD + adopted::raw_bytes(adoption),
        }
    }

    /// The segment that it changes; `None` for what concerns the whole container.
    pub fn segment(&self) -> Option<SegmentId> {
        match self {
            Self::Append { segment, .. }
            | Self::CreateSegment { segment, .. }
            | Self::Seal { segment }
            | Self::Delete { segment, .. }
            | Self::Carry { segment, .. }
            | Self::ChunkCommitted { segment, .. }
            | Self::Swept { segment }
            | Self::Truncate { segment, .. }
            | Self::Merge { segment, .. }
            | Self::ChunksReplaced { segment, .. }
            | Self::Describe { segment, .. } => Some(*segment),
            Self::Adopt(adoption) => Some(adoption.segment),
            Self::Collected { .. } => None,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Append { expected_end: None, .. } => 1,
            Self::CreateSegment { seeds, transactional: false, .. } if seeds.is_empty() => 2,
            Self::Seal { .. } => 3,
            Self::Delete { at: Timestamp::MIN, .. } => 4,
            Self::ChunkCommitted { .. } => 5,
            Self::Swept { .. } => 6,
            Self::Append { .. } => 7,
            Self::CreateSegment { .. } => 8,
            Self::Truncate { .. } => 9,
            Self::Merge { .. } => 10,
            Self::ChunksReplaced { .. } => 11,
            Self::Collected { .. } => 12,
            Self::Delete { .. } => 13,
            Self::Carry { .. } => 14,
            Self::Describe { origin, .. } if origin.encrypted => 17,
            Self::Describe { .. } => 15,
            Self::Adopt(_) => 16,
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        let tag = self.tag();
        out.put_u8(tag);
        put_segment(out, self.segment().unwrap_or(NO_SEGMENT));
        match self {
            Self::Append { writer, first_event_number, expected_end, block, .. } => {
                put_text(out, writer.as_str());
                out.put_u64_le(*first_event_number);
                if let Some(expected) = expected_end {
                    out.put_u64_le(*expected);
                }
                out.put_u32_le(length(block.bytes().len()));
                out.put_slice(block.bytes());
            }
            Self::CreateSegment { index, seeds, transactional, .. } => {
                put_text(out, index.as_str());
                if tag == 8 {
                    out.put_u8(u8::from(*transactional));
                    put_seeds(out, seeds);
                }
            }
            Self::ChunkCommitted { meta, .. } => put_meta(out, meta),
            Self::Truncate { before, at, .. } => {
                out.put_u64_le(*before);
                out.put_i64_le(at.nanos());
            }
            Self::Merge { source, .. } => put_segment(out, *source),
            Self::ChunksReplaced { meta, at, .. } => {
                put_meta(out, meta);
                out.put_i64_le(at.nanos());
            }
            Self::Collected { keys, at } => {
                out.put_i64_le(at.nanos());
                out.put_u32_le(length(keys.len()));
                keys.iter().for_each(|key| put_key(out, key));
            }
            Self::Delete { at, .. } if tag == 13 => out.put_i64_le(at.nanos()),
            Self::Carry { base, block, .. } => {
                out.put_u64_le(*base);
                out.put_u32_le(length(block.bytes().len()));
                out.put_slice(block.bytes());
            }
            Self::Describe { origin, .. } => adopted::put_origin(out, origin),
            Self::Adopt(adoption) => adopted::put(out, adoption),
            Self::Seal { .. } | Self::Delete { .. } | Self::Swept { .. } => {}
        }
    }

    pub(super) fn take(body: &mut Bytes) -> Result<Self, FrameError> {
        let tag = take(body, 1)?.get_u8();
        let segment = take_segment(body)?;
        Ok(match tag {
            1 | 7 => take_append(body, segment, tag == 7)?,
            2 | 8 => take_create(body, segment, tag == 8)?,
            3 => Self::Seal { segment },
            4 => Self::Delete { segment, at: Timestamp::MIN },
            5 => Self::ChunkCommitted { segment, meta: take_meta(body)? },
            6 => Self::Swept { segment },
            9 => Self::Truncate { segment, before: take(body, 8)?.get_u64_le(), at: take_time(body)? },
            10 => Self::Merge { segment, source: take_segment(body)? },
            11 => Self::ChunksReplaced { segment, meta: take_meta(body)?, at: take_time(body)? },
            12 => {
                let at = take_time(body)?;
                let count = take(body, 4)?.get_u32_le();
                let keys = (0..count).map(|_| take_key(body)).collect::<Result<_, _>>()?;
                Self::Collected { keys, at }
            }
            13 => Self::Delete { segment, at: take_time(body)? },
            14 => Self::Carry { segment, base: take(body, 8)?.get_u64_le(), block: take_block(body)? },
            15 | 17 => Self::Describe { segment, origin: adopted::take_origin(body, tag == 17)? },
            16 => Self::Adopt(Box::new(adopted::take_adoption(body, segment)?)),
            _ => return Err(FrameError::Malformed("an entry is of a kind that this release does not know")),
        })
    }
}

fn take_append(body: &mut Bytes, segment: SegmentId, conditional: bool) -> Result<Entry, FrameError> {
    let writer = take_writer(body)?;
    let first_event_number = take(body, 8)?.get_u64_le();
    let expected_end = if conditional { Some(take(body, 8)?.get_u64_le()) } else { None };
    let block = take_block(body)?;
    Ok(Entry::Append { segment, writer, first_event_number, expected_end, block })
}

fn take_block(body: &mut Bytes) -> Result<Block, FrameError> {
    let length = take(body, 4)?.get_u32_le() as usize;
    Ok(Block::open(take(body, length)?)?)
}

fn take_create(body: &mut Bytes, segment: SegmentId, seeded: bool) -> Result<Entry, FrameError> {
    let index = take_text(body)?.parse().map_err(|_| FrameError::Malformed("an index has no valid name"))?;
    let transactional = seeded && take(body, 1)?.get_u8() != 0;
    let seeds = if seeded { take_seeds(body)? } else { Seeds::default() };
    Ok(Entry::CreateSegment { segment, index, seeds, transactional })
}

fn take_writer(body: &mut Bytes) -> Result<WriterId, FrameError> {
    take_text(body)?.parse().map_err(|_| FrameError::Malformed("a writer id is no token"))
}

fn put_seeds(out: &mut BytesMut, seeds: &Seeds) {
    out.put_u32_le(length(seeds.writers.len()));
    for (writer, last) in &seeds.writers {
        put_text(out, writer.as_str());
        out.put_u64_le(*last);
    }
    out.put_u32_le(length(seeds.ids.len()));
    for (id, received) in &seeds.ids {
        out.put_u128_le(*id);
        out.put_i64_le(received.nanos());
    }
}

fn take_seeds(body: &mut Bytes) -> Result<Seeds, FrameError> {
    let mut seeds = Seeds::default();
    for _ in 0..take(body, 4)?.get_u32_le() {
        seeds.writers.push((take_writer(body)?, take(body, 8)?.get_u64_le()));
    }
    for _ in 0..take(body, 4)?.get_u32_le() {
        seeds.ids.push((take(body, 16)?.get_u128_le(), take_time(body)?));
    }
    Ok(seeds)
}

pub(super) fn put_meta(out: &mut BytesMut, meta: &ChunkMeta) {
    put_key(out, &meta.key);
    out.put_u64_le(meta.from);
    out.put_u64_le(meta.to);
    out.put_u64_le(meta.bytes);
    out.put_i64_le(meta.time_min.nanos());
    out.put_i64_le(meta.time_max.nanos());
}

pub(super) fn take_meta(body: &mut Bytes) -> Result<ChunkMeta, FrameError> {
    let key = take_key(body)?;
    let mut numbers = take(body, 40)?;
    Ok(ChunkMeta {
        key,
        from: numbers.get_u64_le(),
        to: numbers.get_u64_le(),
        bytes: numbers.get_u64_le(),
        time_min: Timestamp::from_nanos(numbers.get_i64_le()),
        time_max: Timestamp::from_nanos(numbers.get_i64_le()),
    })
}

fn put_key(out: &mut BytesMut, key: &str) {
    // Keys are ours and have about 150 bytes.
    out.put_u16_le(u16::try_from(key.len()).unwrap_or(u16::MAX));
    out.put_slice(key.as_bytes());
}

fn take_key(body: &mut Bytes) -> Result<String, FrameError> {
    let length = usize::from(take(body, 2)?.get_u16_le());
    text(&take(body, length)?)
}

fn put_segment(out: &mut BytesMut, segment: SegmentId) {
    out.put_u32_le(segment.stream);
    out.put_u32_le(segment.epoch);
    out.put_u32_le(segment.number);
}

fn take_segment(body: &mut Bytes) -> Result<SegmentId, FrameError> {
    let mut fixed = take(body, 12)?;
    Ok(SegmentId { stream: fixed.get_u32_le(), epoch: fixed.get_u32_le(), number: fixed.get_u32_le() })
}

fn take_time(body: &mut Bytes) -> Result<Timestamp, FrameError> {
    Ok(Timestamp::from_nanos(take(body, 8)?.get_i64_le()))
}

fn length(count: usize) -> u32 {
    // A frame's body has at most 4 MiB.
    u32::try_from(count).unwrap_or(u32::MAX)
}
