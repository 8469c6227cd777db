//! Copies of chunks, in exports and archives: what they are called, and how a part of one is made.
//!
//! A name says which events the copy holds, so that whoever copies needs no notes of his own: he lists what is there and goes
//! on behind it.

use bytes::Bytes;
use types::{Offset, SegmentId};

use crate::{ChunkInfo, Encoded, Error, read_range, write_of};

/// The folder of a segment's copies below `home`, which is empty or ends with a slash.
pub fn copies_of(home: &str, segment: SegmentId) -> String {
    format!("{home}{segment}/")
}

/// The name of the copy that holds the events `from .. to`, in the folder of its segment; by name is by offset.
pub fn copy_name(from: Offset, to: Offset) -> String {
    format!("{from:020}-{to:020}.parquet")
}

/// Which events the copy of this key holds, the last one not included; `None` for a name that no copy has.
pub fn copied_range(key: &str) -> Option<(Offset, Offset)> {
    let (from, to) = key.rsplit('/').next()?.strip_suffix(".parquet")?.split_once('-')?;
    let range = (from.parse().ok()?, to.parse().ok()?);
    (range.0 < range.1 && key.ends_with(&copy_name(range.0, range.1))).then_some(range)
}

/// The events `from .. to` of a chunk as a chunk; the same bytes where that is all of it.
///
/// `info` is what [`info`](crate::info()) says of the bytes. Errors: as [`read_range`] and [`write_of`]; `Gap` for events that it
/// does not hold.
pub fn part(bytes: Bytes, info: &ChunkInfo, (from, to): (Offset, Offset)) -> Result<Encoded, Error> {
    if (info.first, info.last + 1) == (from, to) {
        return Ok(Encoded { bytes, meta: info.clone() });
    }
    if from < info.first || to > info.last + 1 {
        return Err(Error::Gap { expected: from, found: i64::try_from(info.first).unwrap_or(i64::MAX) });
    }
    let mut left = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut batches = Vec::new();
    for batch in read_range(bytes, from, None)? {
        let rows = left.min(batch.num_rows());
        batches.push(batch.slice(0, rows));
        left -= rows;
    }
    write_of(info.segment, info.origin.as_ref(), from, &batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_copy_holds() {
        let segment = SegmentId { stream: 3, epoch: 1, number: 2 };
        let key = format!("{}{}", copies_of("chunks/shop/", segment), copy_name(5, 70));
        assert_eq!(key, "chunks/shop/3-1-2/00000000000000000005-00000000000000000070.parquet");
        assert_eq!(copied_range(&key), Some((5, 70)));
        for foreign in [
            "",
            "chunks/shop/3-1-2/",
            "notes.txt",
            "5-70.parquet",
            "00000000000000000070-00000000000000000005.parquet",
            "00000000000000000005-00000000000000000005.parquet",
            "00000000000000000005-G1-uuid.parquet",
            "00000000000000000005-00000000000000000070.parquet.tmp",
        ] {
            assert_eq!(copied_range(foreign), None, "{foreign}");
        }
        let mut names: Vec<String> = [(100, 200), (0, 9), (9, 100)].map(|(from, to)| copy_name(from, to)).into();
        names.sort();
        assert_eq!(names.iter().filter_map(|n| copied_range(n)).map(|r| r.0).collect::<Vec<_>>(), [0, 9, 100]);
    }
}
