//! What lies in the durable log and in object storage.

use bytes::{BufMut, Bytes, BytesMut};
use snapshot::Manifest;
use wire::block::Block;

use crate::{
    container::frame::{Frame, RAW_BYTES_MAX},
    damage::damaged,
};

/// Frames with every kind of entry, as releases wrote them.
const FRAMES: [&[u8]; 4] = [
    include_bytes!("../../../services/segment-store/tests/golden/frame-1.bin"),
    include_bytes!("../../../services/segment-store/tests/golden/frame-2.bin"),
    include_bytes!("../../../services/segment-store/tests/golden/frame-3.bin"),
    include_bytes!("../../../services/segment-store/tests/golden/frame-restore.bin"),
];
/// Chunks of every version.
const CHUNKS: [&[u8]; 2] = [
    include_bytes!("../../../libs/chunk/testdata/v1.parquet"),
    include_bytes!("../../../libs/chunk/testdata/v2.parquet"),
];

/// Bytes of a frame before its body: magic, version, container, generation, number, previous, entries, raw size.
const HEAD: usize = 4 + 1 + 2 + 8 + 8 + 8 + 4 + 4;
const CRC: usize = 4;

/// Bytes of the durable log: as they are, and as the entries of a frame whose head and checksum are right.
pub fn frame_decode(data: &[u8]) {
    drop(Frame::decode(data));
    drop(Manifest::decode(data));
    if let Ok(block) = Block::open(Bytes::copy_from_slice(data)) {
        assert_eq!(block.iter().count(), block.len());
    }
    let [which, entries, orders @ ..] = data else { return };
    let good = FRAMES[usize::from(*which) % FRAMES.len()];
    let body = &good[HEAD..good.len() - CRC];
    let body = zstd::bulk::decompress(body, RAW_BYTES_MAX).expect("a golden frame is whole");
    let (frame, _) = Frame::decode(good).expect("a golden frame is read");
    let count = u32::try_from(frame.entries.len()).unwrap_or(0).wrapping_add(u32::from(*entries));
    let Ok((frame, _)) = Frame::decode(&framed(good, &damaged(&body, orders), count)) else { return };
    let encoded = frame.encode();
    let (again, link) = Frame::decode(&encoded.bytes).expect("what was written is read");
    assert!(link == encoded.link && format!("{again:?}") == format!("{frame:?}"), "and is the same");
}

/// A frame with the head of another one, these entries and a checksum that is right.
fn framed(good: &[u8], raw: &[u8], entries: u32) -> Bytes {
    let mut out = BytesMut::from(&good[..HEAD - 8]);
    out.put_u32_le(entries);
    out.put_u32_le(u32::try_from(raw.len()).unwrap_or(u32::MAX));
    out.put_slice(&zstd::bulk::compress(raw, 1).expect("zstd compresses any bytes"));
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.freeze()
}

/// A chunk with damage: every changed byte is found before a decoder sees it. Its end opened by itself is refused or is as it was.
pub fn chunk_read(data: &[u8]) {
    for good in CHUNKS {
        for bytes in [data.to_vec(), damaged(good, data)] {
            let is_whole = CHUNKS.contains(&bytes.as_slice());
            let bytes = Bytes::from(bytes);
            assert_eq!(chunk::info(&bytes).is_ok(), is_whole);
            assert_eq!(chunk::read(bytes.clone()).is_ok(), is_whole);
            let opened = chunk::Tail::open(bytes.clone(), bytes.len() as u64);
            assert!(!is_whole || matches!(opened, Ok(chunk::Opened::Tail(_))));
        }
    }
}
