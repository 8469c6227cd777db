//! What stands in a spill file, and which part of a file that a crash cut off is whole. Pure.
//!
//! A file begins with [`MAGIC`]; then come frames of `length u32 | CRC32C u32 | entry`, little endian. Everything that concerns a
//! block stands in the file of the block, so that a file can go when nothing in it is needed, whatever the others hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::coordinator::SegmentRange;

use crate::writer::Contents;

/// The first bytes of a file; the digit is the version of its form.
pub(super) const MAGIC: &[u8; 8] = b"LBSPILL1";
/// Length and checksum.
const HEAD: usize = 8;

/// What the writer has to know of a block to go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// Its place among the blocks of its segment: the smallest goes first.
    #[serde(rename = "o")]
    pub(crate) order: u64,
    /// The segment that is to take it.
    #[serde(rename = "p")]
    pub(crate) place: SegmentRange,
    /// The number of its first event, if it may have been sent.
    #[serde(rename = "f")]
    pub(crate) first: Option<u64>,
    /// How many events it has.
    #[serde(rename = "c")]
    pub(crate) count: u32,
    /// What it counts against the bounds.
    #[serde(rename = "b")]
    pub(crate) bytes: usize,
}

/// A block in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(rename = "k")]
    pub(super) key: u64,
    #[serde(rename = "l")]
    pub(super) label: Label,
    #[serde(rename = "h")]
    hashes: Bytes,
    #[serde(rename = "e")]
    block: Bytes,
}

impl Record {
    pub(super) fn new(key: u64, label: Label, contents: &Contents) -> Self {
        Self { key, label, hashes: contents.hashes.clone(), block: contents.block.clone() }
    }

    pub(super) fn into_contents(self) -> Contents {
        Contents { block: self.block, hashes: self.hashes }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A block left memory.
    Block(Record),
    /// It is about to be sent under this number.
    Number { key: u64, first: u64 },
    /// It is not needed any more.
    Done { key: u64 },
    /// Its events are in these blocks from now on: all at once, so that none is there twice and none is missing.
    Divided { key: u64, into: Vec<Record> },
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) at: usize,
}

/// The frame of an entry.
pub(super) fn frame(entry: &Entry) -> Vec<u8> {
    let body = wire::encode(entry);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The entry of a frame that begins here, and its length; `None` if it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Option<(Entry, usize)> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (length, crc) = (word(0)? as usize, word(4)?);
    let body = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    let whole = !body.is_empty() && crc32c::crc32c(body) == crc;
    let entry = whole.then(|| wire::decode(body).ok())??;
    Some((entry, HEAD + length))
}

/// A block that a file still holds: where its frame is, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: u64,
    pub(super) label: Label,
}

/// What a file holds, and how much of it is whole: behind that is the tail that a crash cut off.
///
/// Errors: it is damaged where no crash can have been the cause, because something follows.
pub(super) fn replay(bytes: &[u8]) -> Result<(BTreeMap<u64, Found>, usize), Damaged> {
    let mut found = BTreeMap::new();
    if !bytes.starts_with(MAGIC) {
        return if MAGIC.starts_with(bytes) { Ok((found, 0)) } else { Err(Damaged { at: 0 }) };
    }
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let Some((entry, length)) = parse(&bytes[at..]) else {
            return if is_torn(&bytes[at..]) { Ok((found, at)) } else { Err(Damaged { at }) };
        };
        let begin = u64::try_from(at).unwrap_or(u64::MAX);
        let mut add = |record: Record| {
            found.insert(record.key, Found { at: begin, label: record.label });
        };
        match entry {
            Entry::Block(record) => add(record),
            Entry::Divided { key, into } => {
                into.into_iter().for_each(add);
                found.remove(&key);
            }
            Entry::Number { key, first } => {
                if let Some(found) = found.get_mut(&key) {
                    found.label.first = Some(first);
                }
            }
            Entry::Done { key } => drop(found.remove(&key)),
        }
        at += length;
    }
    Ok((found, at))
}

/// Whether a frame that is not whole is the last thing that was written.
fn is_torn(rest: &[u8]) -> bool {
    let Some(length) = rest.get(..4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes) else { return true };
    // Where a file had grown before what it is to hold was written, there are zeros.
    rest.len() <= HEAD.saturating_add(length as usize) || rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use testkit::Golden;

    use super::*;

    /// A writer that is started again with a newer release goes on with what the older one left.
    #[test]
    fn golden_entries_are_read_for_ever() {
        let mut golden = Golden::open("spill");
        golden.check::<Entry>("Entry");
        golden.covers::<Entry>("Entry");
        golden.close();
        let done = frame(&Entry::Done { key: 7 });
        assert_eq!(parse(&done), Some((Entry::Done { key: 7 }, done.len())));
        assert_eq!(done[..4], [12, 0, 0, 0], "length, checksum, entry");
        assert_eq!(MAGIC, b"LBSPILL1");
    }
}
