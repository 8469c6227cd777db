//! A filter of hashes: says of a hash that it is not in the set, or that it may be.
//!
//! Source: Graf, Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters", 2022; three places and one byte a key, so
//! about nine bits a key and one wrong "may be" in 256.

use crate::cursor::{Cursor, put_bytes, put_u32, put_u64};

/// Seeds tried before a set goes without a filter. One in a few fails for small sets, none of a hundred in a row ever does.
const SEEDS_MAX: u64 = 100;

/// The longest segment: beyond it lookups only get slower.
const SEGMENT_MAX: u32 = 1 << 18;

/// A set of hashes, about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    seed: u64,
    /// Places of one segment, a power of two.
    segment: u32,
    /// `(segments + 2) * segment`; empty for the empty set.
    prints: Vec<u8>,
}

impl Filter {
    /// The filter of a set; `None` if no seed works, which does not happen.
    ///
    /// `keys` hold no key twice; where they do, no seed works.
    pub(crate) fn of(keys: &[u64]) -> Option<Self> {
        if keys.is_empty() {
            return Some(Self { seed: 0, segment: 1, prints: Vec::new() });
        }
        let (segment, segments) = layout(keys.len());
        let places = (segments as usize + 2) * segment as usize;
        (1..=SEEDS_MAX).find_map(|number| {
            let mut filter = Self { seed: mix(number), segment, prints: vec![0; places] };
            filter.fill(keys).then_some(filter)
        })
    }

    /// Whether the key may be in the set.
    pub(crate) fn may_hold(&self, key: u64) -> bool {
        if self.prints.is_empty() {
            return false;
        }
        let hash = mix(key ^ self.seed);
        self.places(hash).into_iter().fold(print(hash), |left, place| left ^ self.prints[place]) == 0
    }

    /// The three places of a hash, in three neighbouring segments.
    fn places(&self, hash: u64) -> [usize; 3] {
        let (segment, mask) = (self.segment as usize, u64::from(self.segment - 1));
        let span = (self.prints.len() - 2 * segment) as u64;
        let first = usize::try_from((u128::from(hash) * u128::from(span)) >> 64).unwrap_or(0);
        let within = |shift: u32| usize::try_from(hash >> shift & mask).unwrap_or(0);
        [first, (first + segment) ^ within(18), (first + 2 * segment) ^ within(0)]
    }

    /// Peels the keys off one by one, then sets the prints in the opposite order; false if a core of them is left.
    fn fill(&mut self, keys: &[u64]) -> bool {
        let mut counts = vec![0u32; self.prints.len()];
        let mut sums = vec![0u64; self.prints.len()];
        for key in keys {
            let hash = mix(key ^ self.seed);
            for place in self.places(hash) {
                counts[place] += 1;
                sums[place] ^= hash;
            }
        }
        let mut alone: Vec<usize> = (0..counts.len()).filter(|place| counts[*place] == 1).collect();
        let mut peeled: Vec<(u64, usize)> = Vec::with_capacity(keys.len());
        while let Some(place) = alone.pop() {
            if counts[place] != 1 {
                continue;
            }
            let hash = sums[place];
            peeled.push((hash, place));
            for other in self.places(hash) {
                counts[other] -= 1;
                sums[other] ^= hash;
                if counts[other] == 1 {
                    alone.push(other);
                }
            }
        }
        for (hash, own) in peeled.iter().rev() {
            let others = self.places(*hash).into_iter().filter(|place| place != own);
            self.prints[*own] = others.fold(print(*hash), |left, place| left ^ self.prints[place]);
        }
        peeled.len() == keys.len()
    }

    /// Bytes that it takes in a file.
    pub(crate) fn bytes(&self) -> usize {
        16 + self.prints.len()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.seed);
        put_u32(out, self.segment);
        put_bytes(out, &self.prints);
    }

    pub(crate) fn read(from: &mut Cursor<'_>) -> Result<Self, String> {
        let (seed, segment) = (from.u64()?, from.u32()?);
        let prints = from.bytes()?.to_vec();
        let fits = segment.is_power_of_two() && segment <= SEGMENT_MAX;
        let whole = fits && prints.len() % segment as usize == 0 && prints.len() / segment as usize >= 3;
        if !fits || !(whole || prints.is_empty()) {
            return Err(format!("a filter of {} bytes has segments of {segment}", prints.len()));
        }
        Ok(Self { seed, segment, prints })
    }
}

/// Length and number of segments for so many keys; from the paper.
fn layout(keys: usize) -> (u32, u32) {
    let keys = keys as f64;
    let exponent = (keys.ln() / 3.33f64.ln() + 2.25).floor();
    let segment = (1..=18).take_while(|power| f64::from(*power) <= exponent).last().map_or(1, |power| 1u32 << power);
    let factor = (0.875 + 0.25 * 1e6f64.ln() / keys.max(2.0).ln()).max(1.125);
    let mut segments = 1u32;
    while f64::from(segments + 2) * f64::from(segment) < keys * factor {
        segments += 1;
    }
    (segment.min(SEGMENT_MAX), segments)
}

fn print(hash: u64) -> u8 {
    (hash ^ hash >> 32).to_le_bytes()[0]
}

/// The finalising mix of MurmurHash3.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> u64 {
        mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 77)
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        for count in [0u64, 1, 2, 3, 5, 10, 33, 100, 1_000, 20_000, 150_000] {
            let keys: Vec<u64> = (0..count).map(key).collect();
            let filter = Filter::of(&keys).unwrap();
            assert!(keys.iter().all(|key| filter.may_hold(*key)), "{count} keys");
            let wrong = (count..count + 20_000).filter(|n| filter.may_hold(key(*n))).count();
            assert!(wrong < 200, "{count} keys: {wrong} of 20000 others");
            if count >= 20_000 {
                let bits = filter.bytes() as f64 * 8.0 / count as f64;
                assert!(bits < 10.5, "{count} keys: {bits} bits each");
            }
            let mut bytes = Vec::new();
            filter.write(&mut bytes);
            assert_eq!(Filter::read(&mut Cursor::new(&bytes)).unwrap(), filter);
        }
    }

    #[test]
    fn a_filter_that_none_wrote_is_refused() {
        for (segment, prints) in [(0, 12), (3, 12), (4, 13), (4, 8), (1 << 19, 3 << 19)] {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, 1);
            put_u32(&mut bytes, segment);
            put_bytes(&mut bytes, &vec![0; prints]);
            let said = Filter::read(&mut Cursor::new(&bytes)).unwrap_err();
            assert!(said.contains("a filter of"), "{said}");
        }
    }
}
