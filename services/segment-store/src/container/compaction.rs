//! Compaction, the decision: which neighbouring chunks of a segment become one.
//!
//! A segment that trickles writes a chunk per flush interval. Chunks are sorted into tiers by their rows, in powers of
//! [`FAN`]. Towards the end of a segment that still grows, tiers only fall, and no tier holds [`FAN`] chunks; what lies
//! between two full chunks, or before the end of a sealed segment, is merged as far as it fits.
//!
//! Bounds: a merge lifts each of its rows into a higher tier, but for the rows of a chunk that arrived above its
//! neighbours (once), and for the last merge (once). So a row is rewritten at most `log_8(rows_max) + 2` times: eight or
//! nine times by the defaults, for a segment that trickles for ever. A segment has at most `7 * log_8(rows_max)` chunks
//! beside the full ones, and at most one between two of those. Bytes bound a merge too; where merging shrinks chunks
//! much more than by half, a closing merge may be repeated with what follows.

use std::ops::Range;

/// Chunks of one tier that become one of the next.
pub(crate) const FAN: usize = 8;
/// Chunks merged at once: more than a segment has in all tiers, so that this cuts only what never was compacted.
pub(crate) const MERGE_MAX: usize = 64;

/// How large a chunk may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Rows of one chunk, at most.
    pub(crate) rows_max: u64,
    /// Bytes of the chunks that become one, at most.
    pub(crate) bytes_max: u64,
}

/// A chunk, as far as compaction looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Events in it.
    pub(crate) rows: u64,
    /// Size of its object.
    pub(crate) bytes: u64,
    /// It is left as it is: its beginning is truncated, or it could not be read, or it is large in memory.
    pub(crate) solid: bool,
}

impl Rule {
    /// Whether it stays as it is; any two others fit together.
    fn is_full(self, part: &Part) -> bool {
        part.solid || part.rows.saturating_mul(2) > self.rows_max || part.bytes.saturating_mul(2) > self.bytes_max
    }

    fn fits(self, sum: &Part) -> bool {
        sum.rows <= self.rows_max && sum.bytes <= self.bytes_max
    }
}

impl Part {
    fn tier(&self) -> u32 {
        self.rows.max(1).ilog(FAN as u64)
    }

    fn add(&mut self, other: &Part) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The next neighbours to merge, at least two; `None` when nothing is to be done.
///
/// `closed` says that nothing will follow the last part.
pub(crate) fn plan(parts: &[Part], closed: bool, rule: Rule) -> Option<Range<usize>> {
    let mut at = 0;
    while at < parts.len() {
        if rule.is_full(&parts[at]) {
            at += 1;
            continue;
        }
        let length = parts[at..].iter().take_while(|part| !rule.is_full(part)).count();
        let run = &parts[at..at + length];
        let ended = closed || at + length < parts.len();
        let last = || (ended && length > 1).then(|| 0..from_left(run, rule));
        if let Some(found) = tiers(run, rule).or_else(last) {
            return Some(at + found.start..at + found.end);
        }
        at += length;
    }
    None
}

/// What breaks the order of tiers: a tier that rises, or one that is complete.
fn tiers(run: &[Part], rule: Rule) -> Option<Range<usize>> {
    let mut alike = 1;
    for at in 1..run.len() {
        let (before, here) = (run[at - 1].tier(), run[at].tier());
        if here > before {
            return Some(from_right(run, at, rule));
        }
        alike = if here == before { alike + 1 } else { 1 };
        if alike == FAN {
            let start = at + 1 - FAN;
            return Some(start..start + from_left(&run[start..=at], rule));
        }
    }
    None
}

/// How many from the first on fit together; at least two.
fn from_left(run: &[Part], rule: Rule) -> usize {
    let mut sum = run[0];
    let more = run[1..].iter().take(MERGE_MAX - 1).take_while(|part| {
        sum.add(part);
        rule.fits(&sum)
    });
    1 + more.count()
}

/// A chunk and all before it that are of a lower tier than they are together.
fn from_right(run: &[Part], last: usize, rule: Rule) -> Range<usize> {
    let (mut start, mut sum) = (last, run[last]);
    while start > 0 && last - start < MERGE_MAX - 1 && run[start - 1].tier() < sum.tier() {
        let mut more = sum;
        more.add(&run[start - 1]);
        if !rule.fits(&more) {
            break;
        }
        (start, sum) = (start - 1, more);
    }
    start..last + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { rows_max: 1 << 19, bytes_max: 1 << 30 };

    /// A chunk of a simulated segment: its rows, each with how often it was rewritten.
    #[derive(Debug, Clone)]
    struct Chunk {
        from: u64,
        rewritten: Vec<u32>,
    }

    fn part(chunk: &Chunk) -> Part {
        let rows = chunk.rewritten.len() as u64;
        Part { rows, bytes: rows * 10, solid: false }
    }

    /// Merges until nothing is planned; answers how many merges that took.
    fn settle(chunks: &mut Vec<Chunk>, closed: bool, rule: Rule) -> usize {
        let mut merges = 0;
        loop {
            let parts: Vec<Part> = chunks.iter().map(part).collect();
            let Some(range) = plan(&parts, closed, rule) else { return merges };
            assert!(range.len() >= 2 && range.len() <= MERGE_MAX, "{range:?}");
            let inputs: Vec<Chunk> = chunks.drain(range.clone()).collect();
            let mut merged = Chunk { from: inputs[0].from, rewritten: Vec::new() };
            for input in inputs {
                assert_eq!(input.from, merged.from + merged.rewritten.len() as u64, "out of order");
                merged.rewritten.extend(input.rewritten.iter().map(|n| n + 1));
            }
            assert!(merged.rewritten.len() as u64 <= rule.rows_max);
            chunks.insert(range.start, merged);
            merges += 1;
        }
    }

    fn arrive(chunks: &mut Vec<Chunk>, rows: usize) {
        let from = chunks.last().map_or(0, |c| c.from + c.rewritten.len() as u64);
        chunks.push(Chunk { from, rewritten: vec![0; rows] });
    }

    fn parts(rows: &[u64]) -> Vec<Part> {
        rows.iter().map(|&rows| Part { rows, bytes: 0, solid: false }).collect()
    }

    #[test]
    fn what_is_merged_is_said_by_the_tiers() {
        /// Rows of chunks, whether the segment is closed, what is merged.
        type Case = (&'static [u64], bool, Option<Range<usize>>);
        let cases: &[Case] = &[
            (&[], true, None),
            (&[5], true, None),
            (&[5; 7], false, None),
            (&[5; 8], false, Some(0..8)),
            (&[5, 5], true, Some(0..2)),
            (&[100, 5, 5], false, None),
            (&[5, 5, 100], false, Some(0..3)),
            (&[100, 5, 5, 100], false, Some(1..4)),
            (&[400, 100, 5, 412], false, Some(2..4)),
            (&[400, 100, 5, 510], false, Some(0..4)),
            (&[5, 400_000, 5, 5, 400_000, 5, 5], false, Some(2..4)),
            (&[5, 400_000, 5, 400_000, 5, 5], false, None),
            (&[5, 400_000, 5, 400_000, 5, 5], true, Some(4..6)),
            (&[200_000, 200_000, 200_000], true, Some(0..2)),
        ];
        for (rows, closed, expected) in cases {
            assert_eq!(plan(&parts(rows), *closed, RULE), *expected, "{rows:?} closed: {closed}");
        }
    }

    #[test]
    fn a_solid_chunk_parts_its_neighbours() {
        let mut some = parts(&[5, 5, 5, 5]);
        some[1].solid = true;
        assert_eq!(plan(&some, true, RULE), Some(2..4));
        some[2].solid = true;
        assert_eq!(plan(&some, true, RULE), None);
    }

    #[test]
    fn bytes_bound_a_merge() {
        let wide = |bytes| Part { rows: 3, bytes, solid: false };
        let rule = Rule { bytes_max: 1_000, ..RULE };
        assert_eq!(plan(&[wide(400), wide(400), wide(400)], true, rule), Some(0..2));
        assert_eq!(plan(&[wide(501), wide(400), wide(501)], true, rule), None, "full ones stay");
    }

    #[test]
    fn a_trickle_for_days_stays_within_its_bounds() {
        let mut chunks = Vec::new();
        for _ in 0..60_000 {
            arrive(&mut chunks, 10);
            settle(&mut chunks, false, RULE);
        }
        assert!(chunks.len() <= 7 * 7 + 2, "{} chunks", chunks.len());
        let most = chunks.iter().flat_map(|c| &c.rewritten).max().copied();
        assert!(most <= Some(8), "{most:?}");
        settle(&mut chunks, true, RULE);
        assert!(chunks.len() <= 3, "{} chunks of 600 000 rows", chunks.len());
    }

    proptest! {
        #[test]
        fn any_segment_converges_in_order_with_few_chunks_and_few_rewrites(
            sizes in prop::collection::vec(prop_oneof![5 => 1usize..20, 2 => 20usize..900, 1 => 900usize..5_000], 1..250),
            settle_every in 1usize..40,
            rows_max in prop_oneof![Just(4_096u64), Just(1 << 19)],
        ) {
            let rule = Rule { rows_max, ..RULE };
            let mut chunks = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                arrive(&mut chunks, *size);
                if n % settle_every == 0 {
                    settle(&mut chunks, false, rule);
                }
            }
            let tiers = (rows_max / 2).ilog(8) as usize + 1;
            settle(&mut chunks, false, rule);
            let full = chunks.iter().filter(|c| rule.is_full(&part(c))).count();
            prop_assert!(chunks.len() <= 2 * full + 7 * tiers, "{} chunks, {full} full", chunks.len());
            settle(&mut chunks, true, rule);
            let full = chunks.iter().filter(|c| rule.is_full(&part(c))).count();
            prop_assert!(chunks.len() <= 2 * full + 1, "{} chunks, {full} full", chunks.len());
            let rows: usize = sizes.iter().sum();
            prop_assert!((full as u64) * rows_max / 2 <= rows as u64, "a full chunk is more than half full");
            prop_assert_eq!(chunks.iter().map(|c| c.rewritten.len()).sum::<usize>(), rows);
            let most = chunks.iter().flat_map(|c| &c.rewritten).max().copied().unwrap_or(0);
            prop_assert!(most as usize <= tiers + 2, "a row was rewritten {} times", most);
        }

        /// Sizes as an object has them: much of a small one is its footer, so that merging shrinks.
        #[test]
        fn it_ends_whatever_the_sizes(sizes in prop::collection::vec((1u64..100_000, 1u64..2_000_000, any::<bool>()), 0..300), closed: bool) {
            let rule = Rule { rows_max: 1 << 19, bytes_max: 4 << 20 };
            let mut all: Vec<Part> = sizes.iter().map(|&(rows, bytes, solid)| Part { rows, bytes, solid: solid && rows % 7 == 0 }).collect();
            let before = all.len();
            let mut merges = 0;
            while let Some(range) = plan(&all, closed, rule) {
                let mut sum = Part { rows: 0, bytes: 0, solid: false };
                for part in all.drain(range.clone()) {
                    prop_assert!(!part.solid, "a solid chunk is never merged");
                    sum.add(&part);
                }
                prop_assert!(rule.fits(&sum));
                sum.bytes = sum.bytes / 3 + 4_000;
                all.insert(range.start, sum);
                merges += 1;
            }
            prop_assert!(merges < before.max(1));
        }
    }
}
