//! The frame: what one append to the durable log holds.
//!
//! Layout, little endian: `"LBFR" | version u8 = 1 | container u16 | generation u64 | number u64 | previous u64 |
//! entries u32 | raw u32 | body | crc32c u32`. The body is zstd-compressed, `raw` is its size before; the checksum
//! covers everything before it. `previous` is the [link](Encoded::link) of the frame before, so that a missing,
//! repeated or exchanged frame is seen although every frame by itself is whole.

mod adopted;
mod entry;

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use types::{ContainerId, Generation};
use wire::block::BlockError;
use zstd::bulk::Compressor;

pub use entry::{COLLECTED_MAX, Entry, Seeds};

/// Largest body before compression: a full frame of 1 MiB and one block of 2 MiB that came last, rounded up.
pub const RAW_BYTES_MAX: usize = 4 << 20;

const MAGIC: [u8; 4] = *b"LBFR";
const VERSION: u8 = 1;
const HEAD: usize = 4 + 1 + 2 + 8 + 8 + 8 + 4 + 4;
const CRC: usize = 4;
/// The fastest level: frames are written once and read only by recovery.
const ZSTD_LEVEL: i32 = 1;

/// Entries that are appended together.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The container.
    pub container: ContainerId,
    /// The generation of the owner that wrote it.
    pub generation: Generation,
    /// Counts the container's frames from 1.
    pub number: u64,
    /// The link of the frame before; 0 for the first.
    pub previous: u64,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// A frame as bytes.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// What goes to the log.
    pub bytes: Bytes,
    /// What the next frame names as `previous`.
    pub link: u64,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame, or one of a later release.
    #[error("frame version {0} is not known: run at least the release that wrote it")]
    Version(u8),
    /// The checksum does not match.
    #[error(
        "frame of {bytes} bytes has checksum {found:08x} instead of {expected:08x}: repair it from a replica of the log"
    )]
    Checksum {
        /// Size given.
        bytes: usize,
        /// What the bytes say.
        expected: u32,
        /// What they are.
        found: u32,
    },
    /// The checksum matches and yet the content makes no sense.
    #[error("frame is malformed: {0}")]
    Malformed(&'static str),
    /// A block inside is damaged.
    #[error("a block in the frame is damaged")]
    Block(#[from] BlockError),
}

impl Frame {
    /// The frame as bytes; entries must stay below [`RAW_BYTES_MAX`] together.
    pub fn encode(&self) -> Encoded {
        let raw_size = self.entries.iter().map(Entry::raw_bytes).sum();
        let mut raw = BytesMut::with_capacity(raw_size);
        self.entries.iter().for_each(|entry| entry.put(&mut raw));
        debug_assert!(raw.len() <= RAW_BYTES_MAX, "a frame of {} bytes cannot be read again", raw.len());
        let body = compress(&raw);
        let mut out = BytesMut::with_capacity(HEAD + body.len() + CRC);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u16_le(self.container.0);
        out.put_u64_le(self.generation.0);
        out.put_u64_le(self.number);
        out.put_u64_le(self.previous);
        out.put_u32_le(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        out.put_u32_le(u32::try_from(raw.len()).unwrap_or(u32::MAX));
        out.put_slice(&body);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        let link = link(&out[..HEAD], crc);
        Encoded { bytes: out.freeze(), link }
    }

    /// Checks and reads a frame; also answers its link.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u64), FrameError> {
        if bytes.len() < HEAD + CRC || bytes[..4] != MAGIC {
            return Err(FrameError::Malformed("it is shorter than a frame or begins otherwise"));
        }
        let (content, mut tail) = bytes.split_at(bytes.len() - CRC);
        let (expected, found) = (tail.get_u32_le(), crc32c::crc32c(content));
        if expected != found {
            return Err(FrameError::Checksum { bytes: bytes.len(), expected, found });
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        let mut head = &content[5..HEAD];
        let container = ContainerId(head.get_u16_le());
        let generation = Generation(head.get_u64_le());
        let (number, previous) = (head.get_u64_le(), head.get_u64_le());
        let (count, raw) = (head.get_u32_le(), head.get_u32_le() as usize);
        if raw > RAW_BYTES_MAX {
            return Err(FrameError::Malformed("its body is larger than any frame"));
        }
        let body = zstd::bulk::decompress(&content[HEAD..], raw)
            .map_err(|_| FrameError::Malformed("its body cannot be decompressed"))?;
        if body.len() != raw {
            return Err(FrameError::Malformed("its body has another size than it says"));
        }
        let mut body = Bytes::from(body);
        let entries = (0..count).map(|_| Entry::take(&mut body)).collect::<Result<Vec<_>, _>>()?;
        if !body.is_empty() || entries.is_empty() {
            return Err(FrameError::Malformed("its entries do not fill its body"));
        }
        Ok((Self { container, generation, number, previous, entries }, link(&content[..HEAD], found)))
    }
}

thread_local! {
    /// Making a context costs more than compressing a small frame with it.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).expect("a level from 1 to 22 is valid"));
}

fn compress(raw: &[u8]) -> Vec<u8> {
    // Compression into a buffer that zstd sizes itself cannot fail for want of room.
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(raw)).expect("zstd compresses any bytes")
}

fn link(head: &[u8], crc: u32) -> u64 {
    let mut bytes = [0; HEAD + CRC];
    bytes[..HEAD].copy_from_slice(head);
    bytes[HEAD..].copy_from_slice(&crc.to_le_bytes());
    types::hash64(&bytes)
}

fn put_text(out: &mut BytesMut, text: &str) {
    // Tokens have at most 128 bytes.
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

fn take(body: &mut Bytes, length: usize) -> Result<Bytes, FrameError> {
    if body.len() < length {
        return Err(FrameError::Malformed("an entry is cut off"));
    }
    Ok(body.split_to(length))
}

fn take_text(body: &mut Bytes) -> Result<String, FrameError> {
    let length = usize::from(take(body, 1)?.get_u8());
    text(&take(body, length)?)
}

fn text(bytes: &[u8]) -> Result<String, FrameError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::Malformed("a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::{SegmentId, Timestamp};
    use wire::{
        block::{Block, BlockBuilder},
        segment_store::ChunkMeta,
    };

    use super::*;

    const SEGMENT: SegmentId = SegmentId { stream: 7, epoch: 1, number: 2 };

    fn block(payloads: &[Vec<u8>]) -> Block {
        let mut builder = BlockBuilder::new();
        for (n, payload) in payloads.iter().enumerate() {
            assert!(builder.push(Timestamp::from_nanos(1_000 + n as i64), n as u128, payload));
        }
        Block::open(builder.finish()).unwrap()
    }

    fn meta() -> ChunkMeta {
        ChunkMeta {
            key: "chunks/shop/7-1-2/00000000000000000000-G3-u.parquet".into(),
            from: 0,
            to: 2,
            bytes: 1234,
            time_min: Timestamp::from_nanos(-1),
            time_max: Timestamp::from_nanos(9),
        }
    }

    /// The kinds of the first release, as they were.
    fn first_kinds() -> Frame {
        Frame {
            container: ContainerId(5),
            generation: Generation(3),
            number: 42,
            previous: 0x0102_0304_0506_0708,
            entries: vec![
                Entry::create(SEGMENT, "shop".parse().unwrap()),
                Entry::Append {
                    segment: SEGMENT,
                    writer: "lane-5-3-9".parse().unwrap(),
                    first_event_number: 1,
                    expected_end: None,
                    block: block(&[b"one".to_vec(), Vec::new()]),
                },
                Entry::ChunkCommitted { segment: SEGMENT, meta: meta() },
                Entry::Seal { segment: SEGMENT },
                Entry::Delete { segment: SEGMENT, at: Timestamp::MIN },
                Entry::Swept { segment: SEGMENT },
            ],
        }
    }

    /// The kinds that came with epochs and transactions.
    fn second_kinds() -> Frame {
        let at = Timestamp::from_nanos(77);
        let shadow = SegmentId { number: 0x8000_0001, ..SEGMENT };
        let seeds = Seeds {
            writers: vec![("w-1".parse().unwrap(), 9), ("w-2".parse().unwrap(), u64::MAX)],
            ids: vec![(1, Timestamp::from_nanos(-5)), (u128::MAX, at)],
        };
        let index = "shop".parse().unwrap();
        Frame {
            number: 43,
            entries: vec![
                Entry::Append {
                    segment: SEGMENT,
                    writer: "w-1".parse().unwrap(),
                    first_event_number: 10,
                    expected_end: Some(41),
                    block: block(&[b"two".to_vec()]),
                },
                Entry::CreateSegment { segment: SEGMENT, index, seeds, transactional: false },
                Entry::CreateSegment {
                    segment: shadow,
                    index: "shop".parse().unwrap(),
                    seeds: Seeds::default(),
                    transactional: true,
                },
                Entry::Truncate { segment: SEGMENT, before: 12, at },
                Entry::Merge { segment: SEGMENT, source: shadow },
                Entry::ChunksReplaced { segment: SEGMENT, meta: meta(), at },
                Entry::Collected { keys: vec![meta().key, "other".into()], at },
            ],
            ..first_kinds()
        }
    }

    /// The kinds that came with deletions that wait and transactions that are carried.
    fn third_kinds() -> Frame {
        let at = Timestamp::from_nanos(78);
        let shadow = SegmentId { number: 0x8000_0001, ..SEGMENT };
        Frame {
            number: 44,
            entries: vec![
                Entry::Delete { segment: SEGMENT, at },
                Entry::Carry { segment: shadow, base: 7, block: block(&[b"three".to_vec()]) },
            ],
            ..first_kinds()
        }
    }

    fn every_kind() -> Frame {
        let mut frame = first_kinds();
        frame.entries.extend(second_kinds().entries);
        frame.entries.extend(third_kinds().entries);
        frame
    }

    fn same(a: &Frame, b: &Frame) -> bool {
        // Blocks compare by their bytes, which Debug prints.
        format!("{a:?}") == format!("{b:?}")
    }

    #[test]
    fn every_kind_reads_what_it_writes() {
        let frame = every_kind();
        let encoded = frame.encode();
        let (back, link) = Frame::decode(&encoded.bytes).unwrap();
        assert!(same(&frame, &back), "{back:?}");
        assert_eq!(link, encoded.link);
    }

    #[test]
    fn any_single_damage_is_seen() {
        let good = every_kind().encode().bytes;
        for cut in 0..good.len() {
            assert!(Frame::decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            assert!(Frame::decode(&bad).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn a_later_version_says_so() {
        let mut later = every_kind().encode().bytes.to_vec();
        later[4] = 2;
        let end = later.len() - CRC;
        let crc = crc32c::crc32c(&later[..end]).to_le_bytes();
        later[end..].copy_from_slice(&crc);
        assert_eq!(Frame::decode(&later).unwrap_err(), FrameError::Version(2));
    }

    #[test]
    fn a_frame_that_was_ever_written_is_read_for_ever() {
        let golden = include_bytes!("../../tests/golden/frame-1.bin");
        let (frame, link) = Frame::decode(golden).unwrap();
        assert!(same(&frame, &first_kinds()), "{frame:?}");
        assert_eq!(link, 0x34f0_7e2c_4b93_e955, "the chain of stored frames hangs on it");
        let golden = include_bytes!("../../tests/golden/frame-2.bin");
        let (frame, link) = Frame::decode(golden).unwrap();
        assert!(same(&frame, &second_kinds()), "{frame:?}");
        assert_eq!(link, 0x53e7_16d1_7626_dbf0, "the chain of stored frames hangs on it");
        let golden = include_bytes!("../../tests/golden/frame-3.bin");
        let (frame, link) = Frame::decode(golden).unwrap();
        assert!(same(&frame, &third_kinds()), "{frame:?}");
        assert_eq!(link, 0xf117_6099_76a7_7870, "the chain of stored frames hangs on it");
    }

    #[test]
    fn what_says_nothing_new_is_written_as_before() {
        let tag = |entry: &Entry| {
            let mut raw = BytesMut::new();
            entry.put(&mut raw);
            raw[0]
        };
        assert_eq!(first_kinds().entries.iter().map(tag).collect::<Vec<_>>(), [2, 1, 5, 3, 4, 6]);
        assert_eq!(second_kinds().entries.iter().map(tag).collect::<Vec<_>>(), [7, 8, 8, 9, 10, 11, 12]);
        assert_eq!(third_kinds().entries.iter().map(tag).collect::<Vec<_>>(), [13, 14]);
    }

    #[test]
    fn the_size_is_never_said_too_small() {
        for entry in every_kind().entries {
            let mut raw = BytesMut::new();
            entry.put(&mut raw);
            assert!(raw.len() <= entry.raw_bytes(), "{entry:?}: {} > {}", raw.len(), entry.raw_bytes());
        }
    }

    proptest! {
        #[test]
        fn blocks_survive(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40), number in 1u64..) {
            let entry = Entry::Append { segment: SEGMENT, writer: "w".parse().unwrap(), first_event_number: number, expected_end: None, block: block(&payloads) };
            let frame = Frame { container: ContainerId(0), generation: Generation(1), number: 1, previous: 0, entries: vec![entry.clone(), entry] };
            let encoded = frame.encode();
            let (back, _) = Frame::decode(&encoded.bytes).unwrap();
            prop_assert!(same(&frame, &back));
        }

        #[test]
        fn bytes_that_are_no_frame_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            prop_assert!(Frame::decode(&bytes).is_err());
            bytes.splice(0..0, MAGIC);
            prop_assert!(Frame::decode(&bytes).is_err());
        }
    }
}
