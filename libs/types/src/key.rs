//! Routing keys and the hash space they fall into.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Invalid;

/// The longest routing key in bytes.
pub const ROUTING_KEY_BYTES_MAX: usize = 512;

/// What keeps events in order: all events of one key go, in order, to one segment at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingKey(String);

impl RoutingKey {
    /// Checks the length (1 to 512 bytes); any characters are allowed.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > ROUTING_KEY_BYTES_MAX {
            return Err(Invalid::new("routing key", text, "1 to 512 bytes"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's place in the hash space; the same on every machine and for ever.
    pub fn hash(&self) -> u64 {
        hash64(self.0.as_bytes())
    }
}

impl Serialize for RoutingKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoutingKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// A stable 64-bit hash: FNV-1a, then a finalising mix so that the top bits are as good as the low ones.
pub fn hash64(bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for &b in bytes {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// A range of the hash space, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first hash in the range.
    pub first: u64,
    /// The last hash in the range.
    pub last: u64,
}

impl KeyRange {
    /// Splits the whole hash space into `count` ranges that cover it once.
    pub fn split_evenly(count: u32) -> Vec<Self> {
        let count = u128::from(count.max(1));
        let edge = |i: u128| (i << 64) / count;
        (0..count)
            .map(|i| Self {
                first: u64::try_from(edge(i)).unwrap_or(u64::MAX),
                last: u64::try_from(edge(i + 1) - 1).unwrap_or(u64::MAX),
            })
            .collect()
    }

    /// Whether the ranges together hold every hash once.
    pub fn cover_once(ranges: &[Self]) -> bool {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let ends_fit = |w: &[Self]| w[0].last.checked_add(1) == Some(w[1].first);
        let whole = |all: &[Self]| all[0].first == 0 && all[all.len() - 1].last == u64::MAX;
        !sorted.is_empty()
            && whole(&sorted)
            && sorted.windows(2).all(ends_fit)
            && sorted.iter().all(|r| r.first <= r.last)
    }

    /// Whether the two share a hash.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the hash falls into the range.
    pub fn contains(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_space_once() {
        for count in [1, 2, 3, 7, 64] {
            let ranges = KeyRange::split_evenly(count);
            assert_eq!((ranges[0].first, ranges[ranges.len() - 1].last), (0, u64::MAX));
            assert!(ranges.windows(2).all(|w| w[0].last + 1 == w[1].first), "{count}");
        }
    }

    #[test]
    fn a_gap_or_an_overlap_does_not_cover() {
        let ranges = KeyRange::split_evenly(4);
        assert!(KeyRange::cover_once(&ranges));
        assert!(!KeyRange::cover_once(&[]));
        assert!(!KeyRange::cover_once(&ranges[1..]));
        assert!(!KeyRange::cover_once(&[ranges[0], ranges[1], ranges[3]]));
        assert!(!KeyRange::cover_once(&[ranges[0], ranges[0], ranges[1], ranges[2], ranges[3]]));
        assert!(ranges[0].overlaps(ranges[0]) && !ranges[0].overlaps(ranges[1]));
    }

    #[test]
    fn the_hash_never_changes() {
        // Stored segments depend on it.
        assert_eq!(hash64(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash64(b"cart-17"), RoutingKey::new("cart-17").unwrap().hash());
    }
}
