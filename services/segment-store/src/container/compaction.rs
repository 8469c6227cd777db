//! Compaction, the decision: which neighbouring chunks of a segment become one.
//!
//! A segment that trickles writes a chunk per flush interval. Chunks are sorted into tiers by their rows, in powers of
//! [`FAN`]. Towards the end of a segment that still grows, tiers only fall, and no tier holds [`FAN`] chunks; what lies
//! between two full chunks, or before the end of a sealed segment, is merged as far as it fits.
//!
//! Chunks of two days are not merged, so that a question about a day does not read a year of a trickle, and retention drops
//! whole chunks soon. Where days do not go up (old lines come late), or a chunk has lines of several days, they are: else their
//! chunks would have no bound. What lies before the end of a day is merged only where that doubles the chunk of each row:
//! clocks that differ end a day again and again around midnight. A segment with more than [`DAYS_MAX`] chunks is merged
//! as if it had no days, until it has no more than that: times that rise by a day with each chunk are no reason for any number of them.
//!
//! Bounds: a merge lifts each of its rows into a higher tier, but for the rows of a chunk that arrived above its
//! neighbours (once), and for the last merge (once); before the end of a day it at least doubles the chunk of each row. So a row
//! is rewritten at most `log_8(rows_max) + 2` times, eight or nine by the defaults, for a segment that trickles for ever,
//! and at most `log_2(rows_max)` times, nineteen by the defaults, for the ends of days. A chunk whose lines lie further apart
//! than a day joins what was kept apart by days: it may be rewritten once for each of the days before it.
//! A segment has at most `7 * log_8(rows_max)` chunks beside the full ones, at most one between two of those, and the
//! chunks that days keep apart: `DAYS_MAX` together. Bytes bound a merge too; where merging shrinks chunks
//! much more than by half, a closing merge may be repeated with what follows.

use std::ops::Range;

use wire::segment_store::ChunkMeta;

/// Chunks of one tier that become one of the next.
pub(crate) const FAN: usize = 8;
/// Chunks merged at once: more than a segment has in all tiers, so that this cuts only what never was compacted.
pub(crate) const MERGE_MAX: usize = 64;
/// Chunks of a segment, at most, for which days are looked at.
pub(crate) const DAYS_MAX: usize = 1_024;

/// How large a chunk may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Rows of one chunk, at most.
    pub(crate) rows_max: u64,
    /// Bytes of the chunks that become one, at most.
    pub(crate) bytes_max: u64,
}

/// A chunk, as far as compaction looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    /// Events in it.
    pub(crate) rows: u64,
    /// Size of its object.
    pub(crate) bytes: u64,
    /// It is left as it is: its beginning is truncated, or it could not be read, or it is large in memory.
    pub(crate) solid: bool,
    /// The day of its last event since 1970; `None` where its events lie further apart than a day.
    pub(crate) day: Option<i64>,
}

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

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
    /// What compaction looks at of a chunk.
    pub(crate) fn of(chunk: &ChunkMeta, solid: bool) -> Self {
        let (first, last) = (chunk.time_min.nanos(), chunk.time_max.nanos());
        let day = last.checked_sub(first).filter(|span| *span <= DAY).map(|_| last.div_euclid(DAY));
        Self { rows: chunk.to - chunk.from, bytes: chunk.bytes, solid, day }
    }

    /// Whether a day ends between this one and the next.
    fn is_before(&self, next: &Self) -> bool {
        self.day.zip(next.day).is_some_and(|(day, next)| day < next)
    }

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
    let by_day = parts.len() <= DAYS_MAX;
    let mut at = 0;
    while at < parts.len() {
        if rule.is_full(&parts[at]) {
            at += 1;
            continue;
        }
        let together = |pair: &&[Part]| !(rule.is_full(&pair[1]) || by_day && pair[0].is_before(&pair[1]));
        let length = 1 + parts[at..].windows(2).take_while(together).count();
        let run = &parts[at..at + length];
        let last = || match parts.get(at + length) {
            Some(next) if !rule.is_full(next) => day_end(run, rule),
            None if !closed => None,
            _ => (length > 1).then(|| 0..from_left(run, rule)),
        };
        if let Some(found) = tiers(run, rule).or_else(last) {
            return Some(at + found.start..at + found.end);
        }
        at += length;
    }
    None
}

/// The longest end of a run in which no chunk is larger than the others together: more of the same day may still come.
fn day_end(run: &[Part], rule: Rule) -> Option<Range<usize>> {
    let (mut sum, mut largest, mut start) = (0_u64, 0, None);
    for (at, part) in run.iter().enumerate().rev() {
        sum = sum.saturating_add(part.rows);
        largest = largest.max(part.rows);
        if largest <= sum - largest && at + 1 < run.len() {
            start = Some(at);
        }
    }
    start.map(|start| start..start + from_left(&run[start..], rule))
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
#[path = "compaction_tests.rs"]
mod tests;
