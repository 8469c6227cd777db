//! The bytes of what a restore brings: segments made of chunks, and what a segment is in its stream.
//!
//! Layout, little endian: origin = `scope text | first u64 | last u64`, and whether it is encrypted is told by what it is part of; adoption = `index text | flags u8 (1 sealed,
//! 2 with origin, 4 encrypted) | origin? | start u64 | bytes u64 | count u32 | chunks`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use types::{KeyRange, SegmentId};
use wire::segment_store::{Adoption, SegmentOrigin};

use super::{
    FrameError,
    entry::{put_meta, take_meta},
    put_text, take, take_text,
};

const SEALED: u8 = 1;
const WITH_ORIGIN: u8 = 2;
const ENCRYPTED: u8 = 4;

/// Size of an origin, at most.
pub(super) fn origin_bytes(origin: &SegmentOrigin) -> usize {
    1 + origin.scope.as_str().len() + 16
}

/// Size of an adoption without its segment, at most.
pub(super) fn raw_bytes(adoption: &Adoption) -> usize {
    let chunks: usize = adoption.chunks.iter().map(|chunk| 2 + chunk.key.len() + 40).sum();
    1 + adoption.index.as_str().len() + 1 + adoption.origin.as_ref().map_or(0, origin_bytes) + 8 + 8 + 4 + chunks
}

pub(super) fn put_origin(out: &mut BytesMut, origin: &SegmentOrigin) {
    put_text(out, origin.scope.as_str());
    out.put_u64_le(origin.range.first);
    out.put_u64_le(origin.range.last);
}

pub(super) fn take_origin(body: &mut Bytes, encrypted: bool) -> Result<SegmentOrigin, FrameError> {
    let scope = take_text(body)?.parse().map_err(|_| FrameError::Malformed("a scope has no valid name"))?;
    let mut ends = take(body, 16)?;
    Ok(SegmentOrigin { scope, range: KeyRange { first: ends.get_u64_le(), last: ends.get_u64_le() }, encrypted })
}

pub(super) fn put(out: &mut BytesMut, adoption: &Adoption) {
    put_text(out, adoption.index.as_str());
    let sealed = if adoption.sealed { SEALED } else { 0 };
    let encrypted = adoption.origin.as_ref().is_some_and(|origin| origin.encrypted);
    let described = if adoption.origin.is_some() { WITH_ORIGIN } else { 0 };
    out.put_u8(sealed | described | if encrypted { ENCRYPTED } else { 0 });
    if let Some(origin) = &adoption.origin {
        put_origin(out, origin);
    }
    out.put_u64_le(adoption.start);
    out.put_u64_le(adoption.bytes);
    // At most 10 000.
    out.put_u32_le(u32::try_from(adoption.chunks.len()).unwrap_or(u32::MAX));
    adoption.chunks.iter().for_each(|chunk| put_meta(out, chunk));
}

pub(super) fn take_adoption(body: &mut Bytes, segment: SegmentId) -> Result<Adoption, FrameError> {
    let index = take_text(body)?.parse().map_err(|_| FrameError::Malformed("an index has no valid name"))?;
    let flags = take(body, 1)?.get_u8();
    let origin = if flags & WITH_ORIGIN != 0 { Some(take_origin(body, flags & ENCRYPTED != 0)?) } else { None };
    let mut numbers = take(body, 8 + 8 + 4)?;
    let (start, bytes) = (numbers.get_u64_le(), numbers.get_u64_le());
    let chunks = (0..numbers.get_u32_le()).map(|_| take_meta(body)).collect::<Result<_, _>>()?;
    Ok(Adoption { segment, index, origin, start, sealed: flags & SEALED != 0, bytes, chunks })
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, Generation, Timestamp};
    use wire::segment_store::ChunkMeta;

    use super::*;
    use crate::container::frame::{Entry, Frame};

    const SEGMENT: SegmentId = SegmentId { stream: 7, epoch: 1, number: 2 };

    /// The kinds that came with export and restore.
    fn restore_kinds() -> Frame {
        let range = KeyRange { first: 1 << 63, last: u64::MAX };
        let origin = SegmentOrigin { scope: "team".parse().unwrap(), range, encrypted: false };
        let meta = |from: u64, to| ChunkMeta {
            key: format!("chunks/shop/7-1-2/{from:020}-R-0000002a.parquet"),
            from,
            to,
            bytes: 1234,
            time_min: Timestamp::from_nanos(-1),
            time_max: Timestamp::from_nanos(9),
        };
        let adoption = Adoption {
            segment: SEGMENT,
            index: "shop".parse().unwrap(),
            origin: Some(origin.clone()),
            start: 5,
            sealed: true,
            bytes: 77,
            chunks: vec![meta(5, 8), meta(8, 20)],
        };
        let (index, chunks) = ("web".parse().unwrap(), Vec::new());
        let empty = Adoption { segment: SEGMENT, index, origin: None, start: 0, sealed: false, bytes: 0, chunks };
        Frame {
            container: ContainerId(5),
            generation: Generation(3),
            number: 44,
            previous: 0x0102_0304_0506_0708,
            entries: vec![
                Entry::Describe { segment: SEGMENT, origin },
                Entry::Adopt(Box::new(adoption)),
                Entry::Adopt(Box::new(empty)),
            ],
        }
    }

    fn same(a: &Frame, b: &Frame) -> bool {
        format!("{a:?}") == format!("{b:?}")
    }

    #[test]
    fn what_is_written_is_read_and_never_larger_than_said() {
        let frame = restore_kinds();
        assert!(same(&frame, &Frame::decode(&frame.encode().bytes).unwrap().0));
        for entry in &frame.entries {
            let mut raw = BytesMut::new();
            entry.put(&mut raw);
            assert!(raw.len() <= entry.raw_bytes(), "{entry:?}: {} > {}", raw.len(), entry.raw_bytes());
            assert_eq!(raw[0], if matches!(entry, Entry::Describe { .. }) { 15 } else { 16 });
        }
    }

    #[test]
    fn what_is_encrypted_says_so_in_bytes_of_its_own() {
        let mut frame = restore_kinds();
        for entry in &mut frame.entries {
            match entry {
                Entry::Describe { origin, .. } => origin.encrypted = true,
                Entry::Adopt(adoption) => adoption.origin.iter_mut().for_each(|origin| origin.encrypted = true),
                _ => {}
            }
        }
        assert!(same(&frame, &Frame::decode(&frame.encode().bytes).unwrap().0));
        let mut raw = BytesMut::new();
        frame.entries[0].put(&mut raw);
        assert_eq!(raw[0], 17);
        assert_eq!(&raw[13..18], b"\x04team");
        raw.clear();
        frame.entries[1].put(&mut raw);
        assert_eq!(&raw[13..19], b"\x04shop\x07", "sealed, with origin, encrypted");
    }

    #[test]
    fn a_frame_that_was_ever_written_is_read_for_ever() {
        let (frame, _) = Frame::decode(include_bytes!("../../../tests/golden/frame-restore.bin")).unwrap();
        assert!(same(&frame, &restore_kinds()), "{frame:?}");
    }
}
