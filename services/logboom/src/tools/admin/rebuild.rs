//! A stream from nothing but its chunks: which of them hold it, what is missing, and which segment followed which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use types::{KeyRange, Offset, ScopeName, SegmentId, Timestamp};

/// A chunk that was read and found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) segment: SegmentId,
    pub(super) from: Offset,
    /// The offset after its last.
    pub(super) to: Offset,
    pub(super) bytes: u64,
    pub(super) time_min: Timestamp,
    pub(super) time_max: Timestamp,
    /// What its footer says of its segment.
    pub(super) origin: Option<(ScopeName, KeyRange)>,
}

/// Events of a segment that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The chunk; `None` for events that no chunk holds.
    pub(super) chunk: Option<Found>,
    pub(super) from: Offset,
    pub(super) to: Offset,
}

/// A segment that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rebuilt {
    pub(super) segment: SegmentId,
    pub(super) range: KeyRange,
    pub(super) start: Offset,
    pub(super) sealed: bool,
    pub(super) parts: Vec<Part>,
}

impl Rebuilt {
    /// Runs of events that no chunk holds.
    pub(super) fn gaps(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.chunk.is_none())
    }
}

/// What comes of the chunks of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) segments: Vec<Rebuilt>,
    /// Segments of which no chunk is left, and which must have been there.
    pub(super) invented: Vec<SegmentId>,
    /// The tenants that the chunks name.
    pub(super) scopes: BTreeSet<ScopeName>,
}

/// Puts the chunks of one stream together; `told` says the ranges of segments whose chunks do not.
///
/// Errors: segments whose range nobody says, chunks that contradict each other; in words.
pub(super) fn rebuild(found: Vec<Found>, told: &BTreeMap<SegmentId, KeyRange>) -> Result<Outcome, String> {
    let mut by_segment: BTreeMap<SegmentId, Vec<Found>> = BTreeMap::new();
    for chunk in found {
        by_segment.entry(chunk.segment).or_default().push(chunk);
    }
    let scopes = by_segment.values().flatten().filter_map(|chunk| chunk.origin.as_ref().map(|o| o.0.clone())).collect();
    let ranges = ranges(&by_segment, told)?;
    let mut history = History::new(&ranges);
    history.replay()?;
    let mut segments = Vec::new();
    for (segment, range) in &history.ranges {
        let chunks = by_segment.remove(segment).unwrap_or_default();
        let root = !history.followers.contains(segment);
        let (start, parts) = cover(chunks, root);
        let sealed = !history.present.iter().any(|(_, present)| present == segment);
        segments.push(Rebuilt { segment: *segment, range: *range, start, sealed, parts });
    }
    Ok(Outcome { segments, invented: history.invented, scopes })
}

/// The chunks that hold a segment once, the longest first where several hold the same; where there is none, a gap.
///
/// A segment that follows others begins with its first event; one that follows nothing may have been truncated.
fn cover(mut chunks: Vec<Found>, root: bool) -> (Offset, Vec<Part>) {
    chunks.sort_by(|a, b| (a.from, b.to, &a.key).cmp(&(b.from, a.to, &b.key)));
    let start = if root { chunks.first().map_or(0, |chunk| chunk.from) } else { 0 };
    let mut parts: Vec<Part> = Vec::new();
    let mut next = start;
    let mut rest = chunks.into_iter().peekable();
    loop {
        // Of all that hold the next event the one that reaches farthest: it was merged last.
        let mut best: Option<Found> = None;
        while let Some(chunk) = rest.next_if(|chunk| chunk.from <= next) {
            if chunk.to > best.as_ref().map_or(next, |best| best.to) {
                best = Some(chunk);
            }
        }
        match (best, rest.peek()) {
            (Some(chunk), _) => {
                let (from, to) = (next, chunk.to);
                next = to;
                parts.push(Part { chunk: Some(chunk), from, to });
            }
            (None, Some(chunk)) => {
                let to = chunk.from;
                parts.push(Part { chunk: None, from: next, to });
                next = to;
            }
            (None, None) => return (start, parts),
        }
    }
}

fn ranges(
    chunks: &BTreeMap<SegmentId, Vec<Found>>,
    told: &BTreeMap<SegmentId, KeyRange>,
) -> Result<BTreeMap<SegmentId, KeyRange>, String> {
    let mut ranges = told.clone();
    let mut silent = Vec::new();
    for (segment, chunks) in chunks.iter().filter(|(segment, _)| !told.contains_key(segment)) {
        let said: BTreeSet<KeyRange> = chunks.iter().filter_map(|chunk| chunk.origin.as_ref().map(|o| o.1)).collect();
        match said.len() {
            0 => silent.push(*segment),
            1 => ranges.extend(said.into_iter().map(|range| (*segment, range))),
            _ => {
                return Err(format!(
                    "chunks of segment {segment} name different ranges: say the right one with --range"
                ));
            }
        }
    }
    // A stream begins with segments of equal size, numbered by their keys.
    if !silent.is_empty() && silent.iter().all(|segment| segment.epoch == 0) && ranges.keys().all(|s| s.epoch > 0) {
        let count = silent.last().map_or(0, |segment| segment.number + 1);
        let even = KeyRange::split_evenly(count);
        let place = |segment: &SegmentId| usize::try_from(segment.number).ok().and_then(|n| even.get(n)).copied();
        ranges.extend(silent.iter().filter_map(|segment| Some((*segment, place(segment)?))));
        return Ok(ranges);
    }
    if silent.is_empty() {
        return Ok(ranges);
    }
    let names: Vec<String> = silent.iter().map(ToString::to_string).collect();
    Err(format!(
        "the chunks of {} do not say which keys they hold, as those of older releases: say it with --range SEGMENT=FIRST-LAST, as \
         `logboom admin segments` showed it",
        names.join(", ")
    ))
}

/// The epochs of a stream, played again.
struct History {
    ranges: BTreeMap<SegmentId, KeyRange>,
    /// Segments that nothing has followed yet, by range.
    present: BTreeSet<(KeyRange, SegmentId)>,
    /// Segments that follow others.
    followers: BTreeSet<SegmentId>,
    invented: Vec<SegmentId>,
    /// Where segments are placed that must have been there before all others.
    first_epoch: u32,
}

impl History {
    fn new(ranges: &BTreeMap<SegmentId, KeyRange>) -> Self {
        let first_epoch = ranges.keys().next().map_or(0, |segment| segment.epoch);
        let (present, followers, invented) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Self { ranges: ranges.clone(), present, followers, invented, first_epoch }
    }

    fn replay(&mut self) -> Result<(), String> {
        let mut epochs: BTreeMap<u32, Vec<(KeyRange, SegmentId)>> = BTreeMap::new();
        for (segment, range) in &self.ranges {
            epochs.entry(segment.epoch).or_default().push((*range, *segment));
        }
        for (epoch, mut created) in epochs {
            created.sort_unstable();
            if let Some(pair) = created.windows(2).find(|pair| pair[0].0.overlaps(pair[1].0)) {
                return Err(format!("segments {} and {} of epoch {epoch} share keys", pair[0].1, pair[1].1));
            }
            let fresh: Vec<KeyRange> = created.iter().map(|(range, _)| *range).collect();
            let meets = |range: &KeyRange| fresh.iter().any(|new| new.overlaps(*range));
            let ended: Vec<(KeyRange, SegmentId)> =
                self.present.iter().filter(|(range, _)| meets(range)).copied().collect();
            let old: Vec<KeyRange> = ended.iter().map(|(range, _)| *range).collect();
            for (range, segment) in &created {
                if old.iter().all(|before| !before.overlaps(*range)) {
                    continue;
                }
                self.followers.insert(*segment);
                // What it follows besides left no chunk.
                for missing in minus(*range, &old) {
                    self.invent(self.first_epoch, missing);
                }
            }
            for gone in &ended {
                self.present.remove(gone);
                // What followed besides has no chunk yet, or none any more.
                for missing in minus(gone.0, &fresh) {
                    let segment = self.invent(epoch, missing);
                    self.followers.insert(segment);
                    self.present.insert((missing, segment));
                }
            }
            self.present.extend(created);
        }
        let whole = KeyRange { first: 0, last: u64::MAX };
        let covered: Vec<KeyRange> = self.present.iter().map(|(range, _)| *range).collect();
        for missing in minus(whole, &covered) {
            let segment = self.invent(self.first_epoch, missing);
            self.present.insert((missing, segment));
        }
        Ok(())
    }

    /// A segment without events, under a number that fits its place if there is one.
    fn invent(&mut self, epoch: u32, range: KeyRange) -> SegmentId {
        let stream = self.ranges.keys().next().map_or(0, |segment| segment.stream);
        let (mut low, mut high) = (None, None);
        for (segment, other) in &self.ranges {
            let before = segment.epoch < epoch || (segment.epoch == epoch && other.last < range.first);
            let bound = if before { &mut low } else { &mut high };
            let number = segment.number;
            *bound =
                Some(bound.map_or(number, |known: u32| if before { known.max(number) } else { known.min(number) }));
        }
        let taken: BTreeSet<u32> = self.ranges.keys().map(|segment| segment.number).collect();
        let from = low.map_or(0, |low| low + 1);
        let fits = (from..high.unwrap_or(u32::MAX)).find(|number| !taken.contains(number));
        let number = fits.unwrap_or_else(|| taken.last().map_or(0, |last| last + 1));
        let segment = SegmentId { stream, epoch, number };
        self.ranges.insert(segment, range);
        self.invented.push(segment);
        segment
    }
}

/// The parts of a range that none of these covers; they are sorted and do not overlap.
fn minus(range: KeyRange, covered: &[KeyRange]) -> Vec<KeyRange> {
    let mut left = Vec::new();
    let mut next = Some(range.first);
    for other in covered.iter().filter(|other| other.overlaps(range)) {
        let Some(first) = next else { break };
        if other.first > first {
            left.push(KeyRange { first, last: other.first - 1 });
        }
        next = other.last.checked_add(1).filter(|next| *next <= range.last);
    }
    left.extend(next.map(|first| KeyRange { first, last: range.last }));
    left
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
