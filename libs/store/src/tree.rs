//! One sled directory: a base, the entries applied since, and proof that both are what was written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sled::{Batch, Db, Mode};

use crate::local::LocalState;

/// Larger values are split: sled keeps values above about this size in files of their own.
const PART_BYTES_MAX: usize = 64 * 1024;
/// sled's default of 1 GiB is for a database; this is a few thousand small rows.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Base parts written in one batch before the batch that names them: 4 MiB of memory.
const BASE_PARTS_PER_BATCH: usize = 64;
/// First byte of every value.
const VERSION: u8 = 1;
const META: &[u8] = b"m";
const BASE: u8 = b'b';
const ENTRY: u8 = b'e';

/// Why a directory cannot be trusted any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{what} is damaged or missing")]
    Value { what: String },
    #[error("value has {bytes} bytes, which is more than can be kept")]
    TooLarge { bytes: usize },
}

impl Damage {
    fn of(what: impl Into<String>) -> Self {
        Self::Value { what: what.into() }
    }

    /// Whether another owner has the directory open; it is then not ours to move aside.
    pub(crate) fn is_locked(&self) -> bool {
        let text = self.to_string();
        text.contains("could not acquire lock") || text.contains("WouldBlock")
    }
}

/// What the directory holds; it changes in the same batch as the values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Meta {
    base_seq: u64,
    base_bytes: u64,
    base_parts: u32,
    applied: u64,
    entry_count: u64,
}

pub(crate) struct Tree {
    db: Db,
    dir: PathBuf,
    meta: Meta,
}

impl Tree {
    /// Creates a directory with a base and entries; it counts as complete only once everything is on disk.
    pub(crate) fn create(dir: &Path, seq: u64, base: &[u8], entries: &[(u64, Vec<u8>)]) -> Result<Self, Damage> {
        let db = open(dir)?;
        let parts: Vec<&[u8]> = base.chunks(PART_BYTES_MAX).collect();
        let count = u32::try_from(parts.len()).map_err(|_| Damage::TooLarge { bytes: base.len() })?;
        let numbered: Vec<_> = (0..count).zip(parts).collect();
        for some in numbered.chunks(BASE_PARTS_PER_BATCH) {
            let mut batch = Batch::default();
            for (number, part) in some {
                insert(&mut batch, &base_key(*number), part);
            }
            db.apply_batch(batch)?;
        }
        let base_bytes = u64::try_from(base.len()).unwrap_or(u64::MAX);
        let meta = Meta { base_seq: seq, base_bytes, base_parts: count, applied: seq, entry_count: 0 };
        // The meta value comes last and makes the directory complete, so the parts must be on disk before it.
        db.flush()?;
        let mut tree = Self { db, dir: dir.to_owned(), meta };
        let mut batch = Batch::default();
        insert(&mut batch, META, &meta.encode());
        tree.db.apply_batch(batch)?;
        for (seq, entry) in entries {
            tree.apply(*seq, entry)?;
        }
        tree.flush()?;
        Ok(tree)
    }

    /// Opens a directory; `None` if it was never completed.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, Damage> {
        let db = open(dir)?;
        let Some(value) = db.get(META)? else { return Ok(None) };
        let meta = Meta::decode(check(META, &value)?)?;
        Ok(Some(Self { db, dir: dir.to_owned(), meta }))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn applied(&self) -> u64 {
        self.meta.applied
    }

    pub(crate) fn entry_count(&self) -> u64 {
        self.meta.entry_count
    }

    pub(crate) fn flush(&self) -> Result<(), Damage> {
        self.db.flush()?;
        Ok(())
    }

    /// Adds an entry and the fact that it was applied in one batch.
    pub(crate) fn apply(&mut self, seq: u64, entry: &[u8]) -> Result<(), Damage> {
        let too_large = |_| Damage::TooLarge { bytes: entry.len() };
        let mut parts: Vec<&[u8]> = entry.chunks(PART_BYTES_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = u16::try_from(parts.len() - 1).map_err(too_large)?;
        let mut batch = Batch::default();
        for (part, left) in parts.iter().zip((0..=last).rev()) {
            let mut payload = left.to_le_bytes().to_vec();
            payload.extend_from_slice(part);
            insert(&mut batch, &entry_key(seq, last - left), &payload);
        }
        let meta = Meta { applied: seq, entry_count: self.meta.entry_count + 1, ..self.meta };
        insert(&mut batch, META, &meta.encode());
        self.db.apply_batch(batch)?;
        self.meta = meta;
        Ok(())
    }

    /// Everything, verified.
    pub(crate) fn load(&self) -> Result<LocalState, Damage> {
        let meta = self.meta;
        let mut base = Vec::new();
        for number in 0..meta.base_parts {
            let key = base_key(number);
            let value = self.db.get(key)?.ok_or_else(|| Damage::of(format!("base part {number}")))?;
            base.extend_from_slice(check(&key, &value)?);
        }
        if u64::try_from(base.len()).ok() != Some(meta.base_bytes) {
            return Err(Damage::of("the base"));
        }
        let entries = self.entries()?;
        let last = entries.last_key_value().map_or(meta.base_seq, |(seq, _)| *seq);
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let ascending = entries.first_key_value().is_none_or(|(seq, _)| *seq > meta.base_seq);
        if last != meta.applied || count != meta.entry_count || !ascending {
            return Err(Damage::of("the list of entries"));
        }
        Ok(LocalState { base_seq: meta.base_seq, base, entries: entries.into_iter().collect() })
    }

    fn entries(&self) -> Result<BTreeMap<u64, Vec<u8>>, Damage> {
        let mut entries = BTreeMap::new();
        let mut open: Option<(u64, u16, Vec<u8>)> = None;
        for row in self.db.scan_prefix([ENTRY]) {
            let (key, value) = row?;
            let (seq, part) = entry_of(&key)?;
            let damaged = || Damage::of(format!("entry {seq} part {part}"));
            let payload = check(&key, &value)?;
            let (left, bytes) = payload.split_first_chunk::<2>().ok_or_else(damaged)?;
            let left = u16::from_le_bytes(*left);
            let mut whole = match open.take() {
                Some((begun, expected, whole)) if begun == seq && expected == left && part > 0 => whole,
                None if part == 0 => Vec::new(),
                _ => return Err(damaged()),
            };
            whole.extend_from_slice(bytes);
            if left == 0 {
                entries.insert(seq, whole);
            } else {
                open = Some((seq, left - 1, whole));
            }
        }
        match open {
            Some((seq, ..)) => Err(Damage::of(format!("the end of entry {seq}"))),
            None => Ok(entries),
        }
    }
}

impl Meta {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(36);
        for number in [self.base_seq, self.base_bytes, u64::from(self.base_parts), self.applied, self.entry_count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let damaged = || Damage::of("the meta value");
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [base_seq, base_bytes, base_parts, applied, entry_count] = numbers else { return Err(damaged()) };
        if !rest.is_empty() {
            return Err(damaged());
        }
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        Ok(Self {
            base_seq: number(base_seq),
            base_bytes: number(base_bytes),
            base_parts: u32::try_from(number(base_parts)).map_err(|_| damaged())?,
            applied: number(applied),
            entry_count: number(entry_count),
        })
    }
}

fn open(dir: &Path) -> Result<Db, Damage> {
    let config = sled::Config::new()
        .path(dir)
        .mode(Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        // The journal replays what was not flushed, so nothing but a rebase ever waits for the disk.
        .flush_every_ms(None);
    Ok(config.open()?)
}

fn base_key(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [BASE, a, b, c, d]
}

fn entry_key(seq: u64, part: u16) -> [u8; 11] {
    let mut key = [ENTRY; 11];
    key[1..9].copy_from_slice(&seq.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

fn entry_of(key: &[u8]) -> Result<(u64, u16), Damage> {
    let parsed = key.get(1..).and_then(|rest| {
        let (seq, part) = rest.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*seq), u16::from_be_bytes(part.try_into().ok()?)))
    });
    parsed.ok_or_else(|| Damage::of("the key of an entry"))
}

/// The checksum covers the key too, so that values cannot change places.
fn sum(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

fn insert(batch: &mut Batch, key: &[u8], payload: &[u8]) {
    let mut value = Vec::with_capacity(5 + payload.len());
    value.push(VERSION);
    value.extend_from_slice(&sum(key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    batch.insert(key, value);
}

fn check<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damage> {
    let parsed = value
        .split_first_chunk::<5>()
        .filter(|([version, crc @ ..], payload)| *version == VERSION && u32::from_le_bytes(*crc) == sum(key, payload));
    parsed.map(|(_, payload)| payload).ok_or_else(|| Damage::of(format!("value of key {key:02x?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u64) -> Vec<(u64, Vec<u8>)> {
        (1..=count).map(|n| (100 + n, vec![u8::try_from(n % 251).unwrap(); 10])).collect()
    }

    #[test]
    fn large_values_are_split_and_joined() {
        let dir = tempfile::tempdir().unwrap();
        let base: Vec<u8> = (0..200_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let tree = Tree::create(dir.path(), 7, &base, &[(8, base.clone()), (9, Vec::new())]).unwrap();
        let state = tree.load().unwrap();
        assert_eq!(state, LocalState { base_seq: 7, base: base.clone(), entries: vec![(8, base), (9, Vec::new())] });
    }

    #[test]
    fn a_changed_missing_or_moved_value_is_noticed() {
        type Harm = fn(&Db);
        let harms: [(&str, Harm); 6] = [
            ("changed", |db| {
                let mut value = db.get(entry_key(102, 0)).unwrap().unwrap().to_vec();
                value[8] ^= 1;
                db.insert(entry_key(102, 0), value).unwrap();
            }),
            ("moved", |db| {
                let value = db.get(entry_key(102, 0)).unwrap().unwrap();
                db.insert(entry_key(101, 0), value).unwrap();
            }),
            ("middle missing", |db| drop(db.remove(entry_key(102, 0)).unwrap())),
            ("last missing", |db| drop(db.remove(entry_key(103, 0)).unwrap())),
            ("base missing", |db| drop(db.remove(base_key(0)).unwrap())),
            ("wrong version", |db| {
                let mut value = db.get(base_key(0)).unwrap().unwrap().to_vec();
                value[0] = 9;
                db.insert(base_key(0), value).unwrap();
            }),
        ];
        for (name, harm) in harms {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::create(dir.path(), 100, b"base", &entries(3)).unwrap();
            assert_eq!(tree.load().unwrap().entries, entries(3));
            harm(&tree.db);
            assert!(matches!(tree.load(), Err(Damage::Value { .. })), "{name}");
        }
    }
}
