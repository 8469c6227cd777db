//! Transactions: a segment out of sight, whose events become those of another one at once.

use serde::{Deserialize, Serialize};
use types::{Offset, SegmentId};
use wire::{block::Block, segment_store::Merged};

use super::{
    Effect, State,
    segment::{Piece, Segment},
};
use crate::error::Error;

/// Bytes of an open transaction in one segment: it stays in memory and in Tier 1 until it is merged.
pub const TRANSACTION_BYTES_MAX: u64 = 64 << 20;

/// Merged sources that a segment remembers, so that a repeat is recognised; the oldest are forgotten.
pub const MERGED_MAX: usize = 1_024;

/// A transaction's segment that was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedSource {
    /// The segment that is gone.
    pub source: SegmentId,
    /// The offset that its first event got, or would have got.
    pub from: Offset,
}

impl State {
    /// Adds all events of `source` to the end of `into`, at once and in order; a repeat changes nothing.
    ///
    /// A sealed segment says so before the source is looked for: whoever merges elsewhere instead learns there whether
    /// that was done already.
    pub(super) fn merge(&mut self, into: SegmentId, source: SegmentId) -> Result<Merged, Error> {
        let parent = self.segment(into)?;
        if let Some(known) = parent.merged.iter().find(|known| known.source == source) {
            return Ok(Merged { from: known.from, count: 0, repeated: true });
        }
        if parent.transactional {
            return Err(Error::Transactional(into));
        }
        if parent.sealed {
            return Err(Error::SegmentSealed(into));
        }
        if !self.segment(source)?.transactional {
            return Err(Error::NotTransactional(source));
        }
        let Some(shadow) = self.segments.remove(&source) else { return Err(Error::NotHere(source)) };
        self.segment_mut(into).map(|parent| parent.absorb(source, shadow))
    }

    /// Whether a transaction's segment was merged into a segment of its stream.
    pub(super) fn was_merged(&self, source: SegmentId) -> bool {
        let first = SegmentId { stream: source.stream, epoch: 0, number: 0 };
        let of_stream = self.segments.range(first..).take_while(|(id, _)| id.stream == source.stream);
        of_stream.flat_map(|(_, segment)| &segment.merged).any(|known| known.source == source)
    }
}

impl Segment {
    /// Takes note that a block of an open transaction was written to the log again, at this sequence and place.
    pub(super) fn carry(
        &mut self,
        segment: SegmentId,
        base: Offset,
        block: &Block,
        (seq, entry): (u64, u32),
    ) -> Result<Effect, Error> {
        if !self.transactional {
            return Err(Error::NotTransactional(segment));
        }
        let at = self.pieces.partition_point(|piece| piece.base < base);
        let whole =
            |piece: &&mut Piece| piece.base == base && piece.count as usize + piece.dropped.len() == block.len();
        let Some(piece) = self.pieces.get_mut(at).filter(whole) else {
            return Err(Error::BadBlock(format!("segment {segment} has no block of {} events at {base}", block.len())));
        };
        (piece.seq, piece.entry) = (seq, entry);
        Ok(Effect::Carried(piece.clone()))
    }

    fn absorb(&mut self, source: SegmentId, shadow: Self) -> Merged {
        let from = self.end;
        // Nothing of an open transaction is truncated or in Tier 2: its pieces are all its events, from offset 0 on.
        self.pieces.extend(shadow.pieces.into_iter().map(|piece| Piece { base: piece.base + from, ..piece }));
        for (id, received, offset) in shadow.ids.iter() {
            if let (None, Some(offset)) = (self.ids.find(id), offset) {
                self.ids.insert(id, received, Some(offset + from));
            }
        }
        self.end += shadow.end;
        self.bytes += shadow.bytes;
        if self.merged.len() >= MERGED_MAX {
            self.merged.pop_front();
        }
        self.merged.push_back(MergedSource { source, from });
        Merged { from, count: shadow.end, repeated: false }
    }
}
