//! A small random number generator, the same on every machine for ever.

/// SplitMix64: one multiplication chain over a counter.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below the bound, which is at least 1; the bias of small bounds is far below what logs show.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or(0)]
    }
}

/// The longest list that [`Zipf`] draws from.
const RANKS_MAX: usize = 32;

/// Draws early items far more often than late ones: item `k` has the weight `1 / (k + 1)`.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// Sums of weights, in units of a millionth.
    sums: [u64; RANKS_MAX],
}

impl Default for Zipf {
    fn default() -> Self {
        let (mut sums, mut sum) = ([0; RANKS_MAX], 0);
        for (slot, rank) in sums.iter_mut().zip(1u64..) {
            sum += 1_000_000 / rank;
            *slot = sum;
        }
        Self { sums }
    }
}

impl Zipf {
    pub(super) fn pick<T: Copy>(&self, rng: &mut Rng, items: &[T]) -> T {
        debug_assert!(items.len() <= RANKS_MAX, "a longer list would never show its end");
        let ranks = items.len().min(RANKS_MAX);
        let draw = rng.below(self.sums[ranks - 1]);
        items[self.sums[..ranks].iter().position(|sum| draw < *sum).unwrap_or(0)]
    }
}
