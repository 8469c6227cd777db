//! The block in which events travel from a front door or client to a segment container, and lie in Tier 1.
//!
//! Columns, little endian: `version u8 = 1 | count u32 | received i64 × count | id u128 × count | length u32 × count |
//! payloads`. An id of 0 means none. Blocks hold 1 to [`EVENTS_MAX`] events.

use bytes::{BufMut, Bytes, BytesMut};
use types::{EVENT_BYTES_MAX, Timestamp};

/// Most events in one block: what a lane gathers in one round trip.
pub const EVENTS_MAX: usize = 65_536;

const VERSION: u8 = 1;
const HEAD: usize = 5;
const PER_EVENT: usize = 8 + 16 + 4;

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Another version or not a block.
    #[error("block version {0} is not known")]
    Version(u8),
    /// The counts do not fit the bytes.
    #[error("block of {bytes} bytes is damaged: {why}")]
    Damaged {
        /// Size given.
        bytes: usize,
        /// What does not fit.
        why: &'static str,
    },
}

/// One event inside a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEvent {
    /// When a front door received it.
    pub received: Timestamp,
    /// A producer's message id, hashed to 128 bits; 0 for none.
    pub id: u128,
    /// The event.
    pub payload: Bytes,
}

/// Gathers events into a block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    received: Vec<i64>,
    ids: Vec<u128>,
    lengths: Vec<u32>,
    payloads: BytesMut,
}

impl BlockBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; false when it does not fit ([`EVENTS_MAX`] events, 1 MiB each) and nothing was added.
    pub fn push(&mut self, received: Timestamp, id: u128, payload: &[u8]) -> bool {
        let Ok(length) = u32::try_from(payload.len()) else { return false };
        if self.lengths.len() >= EVENTS_MAX || payload.len() > EVENT_BYTES_MAX {
            return false;
        }
        self.received.push(received.nanos());
        self.ids.push(id);
        self.lengths.push(length);
        self.payloads.extend_from_slice(payload);
        true
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Size of the finished block.
    pub fn bytes(&self) -> usize {
        HEAD + self.len() * PER_EVENT + self.payloads.len()
    }

    /// The block; the builder is empty afterwards.
    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes());
        out.put_u8(VERSION);
        out.put_u32_le(u32::try_from(self.len()).unwrap_or(u32::MAX));
        self.received.drain(..).for_each(|x| out.put_i64_le(x));
        self.ids.drain(..).for_each(|x| out.put_u128_le(x));
        self.lengths.drain(..).for_each(|x| out.put_u32_le(x));
        out.put_slice(&self.payloads);
        self.payloads.clear();
        out.freeze()
    }
}

/// A checked block.
#[derive(Debug, Clone)]
pub struct Block {
    bytes: Bytes,
    count: usize,
}

impl Block {
    /// Checks that every column and payload lies inside the bytes.
    pub fn open(bytes: Bytes) -> Result<Self, BlockError> {
        let damaged = |why| BlockError::Damaged { bytes: bytes.len(), why };
        if bytes.len() < HEAD {
            return Err(damaged("shorter than its head"));
        }
        if bytes[0] != VERSION {
            return Err(BlockError::Version(bytes[0]));
        }
        let count = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if count == 0 || count > EVENTS_MAX {
            return Err(damaged("holds no events or too many"));
        }
        let payloads = HEAD + count * PER_EVENT;
        if bytes.len() < payloads {
            return Err(damaged("shorter than its columns"));
        }
        let block = Self { bytes, count };
        let total: usize = (0..count).map(|i| block.length(i)).sum();
        if (0..count).any(|i| block.length(i) > EVENT_BYTES_MAX) {
            return Err(BlockError::Damaged { bytes: block.bytes.len(), why: "an event is larger than 1 MiB" });
        }
        if payloads + total != block.bytes.len() {
            return Err(BlockError::Damaged { bytes: block.bytes.len(), why: "lengths do not add up" });
        }
        Ok(block)
    }

    /// Number of events, at least 1.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Always false: a block holds at least one event.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The encoded block.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[at..at + N]);
        out
    }

    fn length(&self, i: usize) -> usize {
        u32::from_le_bytes(self.word(HEAD + self.count * 24 + i * 4)) as usize
    }

    /// The producer's message id of event `i`.
    pub fn id(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.word(HEAD + self.count * 8 + i * 16))
    }

    /// When event `i` was received.
    pub fn received(&self, i: usize) -> Timestamp {
        Timestamp::from_nanos(i64::from_le_bytes(self.word(HEAD + i * 8)))
    }

    /// The events in order; payloads share the block's memory.
    pub fn iter(&self) -> impl Iterator<Item = BlockEvent> + '_ {
        let mut at = HEAD + self.count * PER_EVENT;
        (0..self.count).map(move |i| {
            let end = at + self.length(i);
            let payload = self.bytes.slice(at..end);
            at = end;
            BlockEvent { received: self.received(i), id: self.id(i), payload }
        })
    }
}

/// Hashes a producer's message id to the 128 bits that a block carries; never 0.
pub fn message_id(text: &str) -> u128 {
    let first = types::hash64(text.as_bytes());
    let mut salted = first.to_le_bytes().to_vec();
    salted.extend_from_slice(text.as_bytes());
    ((u128::from(first) << 64) | u128::from(types::hash64(&salted))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Bytes {
        let mut b = BlockBuilder::new();
        assert!(b.push(Timestamp::from_nanos(1), 7, b"one"));
        assert!(b.push(Timestamp::from_nanos(2), 0, b""));
        assert!(!b.push(Timestamp::from_nanos(3), 0, &vec![0; EVENT_BYTES_MAX + 1]));
        assert_eq!(b.bytes(), HEAD + 2 * PER_EVENT + 3);
        b.finish()
    }

    #[test]
    fn a_block_reads_what_it_writes() {
        let events: Vec<_> = Block::open(block()).unwrap().iter().collect();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].id, &events[0].payload[..]), (7, &b"one"[..]));
        assert_eq!((events[1].received.nanos(), events[1].payload.len()), (2, 0));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = block();
        for cut in 0..good.len() {
            assert!(Block::open(good.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut other = good.to_vec();
        other[0] = 9;
        assert_eq!(Block::open(other.into()).unwrap_err(), BlockError::Version(9));
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(Block::open(longer.into()).is_err());
    }
}
