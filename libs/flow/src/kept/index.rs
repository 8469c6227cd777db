//! From the hash of a key to its rows.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

/// A hasher of what is a hash already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SameHash(u64);

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        // The table takes its tags from the top bits, and those are equal within a key group.
        self.0 = hash.rotate_left(32);
    }
}

/// Bytes of a hash in the index, with the first of its rows.
const HASH_BYTES: usize = 56;
/// Bytes of each further row.
const ROW_BYTES: usize = 8;

/// The rows of each hash, in order. Keys that share one are to be told apart by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Index {
    rows: HashMap<u64, Of, BuildHasherDefault<SameHash>>,
    len: usize,
}

/// Most keys have one row.
#[derive(Debug)]
enum Of {
    One(u64),
    Many(VecDeque<u64>),
}

impl Index {
    /// Adds a row behind all others of its hash.
    pub(crate) fn push(&mut self, hash: u64, seq: u64) {
        self.len += 1;
        match self.rows.get_mut(&hash) {
            None => {
                self.rows.insert(hash, Of::One(seq));
            }
            Some(Of::Many(all)) => all.push_back(seq),
            Some(of @ Of::One(_)) => {
                if let Of::One(first) = *of {
                    *of = Of::Many(VecDeque::from([first, seq]));
                }
            }
        }
    }

    /// Takes a row out; it is the first of its hash where rows go in order.
    pub(crate) fn remove(&mut self, hash: u64, seq: u64) {
        let empty = match self.rows.get_mut(&hash) {
            None => return,
            Some(Of::One(only)) if *only != seq => return,
            Some(Of::One(_)) => {
                self.len -= 1;
                true
            }
            Some(Of::Many(all)) => {
                if let Some(place) = all.iter().position(|other| *other == seq) {
                    all.remove(place);
                    self.len -= 1;
                }
                all.is_empty()
            }
        };
        if empty {
            self.rows.remove(&hash);
        }
    }

    /// The rows of that hash from the first on for which `before` is false, which it is for all behind it.
    pub(crate) fn from(&self, hash: u64, before: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
        let (one, many) = match self.rows.get(&hash) {
            None => (None, None),
            Some(Of::One(only)) => (Some(*only).filter(|seq| !before(*seq)), None),
            Some(Of::Many(all)) => (None, Some(all.range(all.partition_point(|seq| before(*seq))..))),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * HASH_BYTES + self.len * ROW_BYTES
    }
}
