//! When a segment takes too much it is split; when neighbours take too little they are merged. Pure, but for the loop in `watch`.

mod series;
pub(crate) mod watch;

#[cfg(test)]
mod autoscale_tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use types::{ContainerId, Generation, IndexName, KeyRange, SegmentId, Timestamp};
use wire::{
    coordinator::{Scale, ScalingPolicy, SegmentRange},
    segment_store::ContainerLoad,
};

use crate::graph::SEGMENTS_PRESENT_MAX;
use series::Series;

/// Decisions of one look; the rest waits for the next, so that a load on everything does not become thousands of scales at once.
const SCALES_AT_ONCE_MAX: usize = 16;

/// Segments whose load is watched, about 1 KiB each; the streams that were created last are left out beyond it, and scale by hand only.
pub const WATCHED_MAX: usize = 200_000;

/// How many minutes must have been seen of a segment before anything is decided about it, and how long it is left alone afterwards.
const COOL_DOWN_MINUTES: u32 = 10;

/// A rate over so many minutes splits a segment when it is above so many times the target.
const TOO_HOT: [(u32, f64); 3] = [(2, 5.0), (5, 2.0), (10, 1.0)];

/// A segment may be merged when its rates over all these many minutes are below so many times the target.
const COLD: [(u32, f64); 4] = [(2, 1.0), (5, 1.0), (10, 1.0), (20, 0.5)];

/// A stream whose policy is not fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// Its index.
    pub index: IndexName,
    /// The policy.
    pub policy: ScalingPolicy,
    /// Its present segments by range.
    pub present: Vec<SegmentRange>,
}

/// A policy that is not fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Aim {
    /// Whether bytes count, or events.
    bytes: bool,
    /// Per second and segment.
    target: u64,
    factor: u16,
    min_segments: u16,
}

impl Aim {
    fn of(policy: ScalingPolicy) -> Option<Self> {
        match policy {
            ScalingPolicy::Fixed => None,
            ScalingPolicy::EventRate { target, factor, min_segments } => {
                Some(Self { bytes: false, target, factor, min_segments })
            }
            ScalingPolicy::DataRate { target_kib, factor, min_segments } => {
                Some(Self { bytes: true, target: target_kib.saturating_mul(1_024), factor, min_segments })
            }
        }
    }
}

/// What is known of the load of segments, and what follows from it.
///
/// Nothing of it is journaled: a new leader begins to watch anew, and decides when it has seen enough.
/// Bounds: [`WATCHED_MAX`] present segments of streams whose policy is not fixed; others are not watched.
#[derive(Debug)]
pub struct Autoscaler {
    minute: Duration,
    segments: BTreeMap<SegmentId, Watched>,
    /// The newest owner of each container that was heard of.
    owners: BTreeMap<ContainerId, Generation>,
}

#[derive(Debug)]
struct Watched {
    bytes: bool,
    series: Series,
    muted_until: Timestamp,
}

impl Autoscaler {
    /// Begins to watch; `minute` is how long a minute of the rules lasts.
    pub fn new(minute: Duration) -> Self {
        Self { minute, segments: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// Says which streams there are to watch, and answers for how many segments there is no room; what is not named is forgotten.
    pub fn watch(&mut self, streams: &[Scaled], now: Timestamp) -> usize {
        let mut named = BTreeSet::new();
        let mut left_out = 0;
        for stream in streams {
            let Some(aim) = Aim::of(stream.policy) else { continue };
            if named.len() + stream.present.len() > WATCHED_MAX {
                left_out += stream.present.len();
                continue;
            }
            let newest = stream.present.first().and_then(|there| self.newest_of(there.segment.stream));
            for there in &stream.present {
                named.insert(there.segment);
                // A segment that opened while its stream was watched begins empty; another one may have taken much before.
                let fresh = newest.is_some_and(|newest| there.segment > newest);
                let watched = self.segments.entry(there.segment).or_insert_with(|| Watched::new(aim.bytes, now, fresh));
                if watched.bytes != aim.bytes {
                    *watched = Watched::new(aim.bytes, now, false);
                }
            }
        }
        self.segments.retain(|segment, _| named.contains(segment));
        left_out
    }

    fn newest_of(&self, stream: u32) -> Option<SegmentId> {
        let last = SegmentId { stream, epoch: u32::MAX, number: u32::MAX };
        let (newest, _) = self.segments.range(..=last).next_back()?;
        (newest.stream == stream).then_some(*newest)
    }

    /// Takes in what the owner of a container tells; a stale owner is not heard.
    pub fn take(&mut self, load: &ContainerLoad, now: Timestamp) {
        let newest = self.owners.entry(load.container).or_insert(load.generation);
        if load.generation < *newest {
            return;
        }
        *newest = load.generation;
        let slot = self.minute / series::POINTS_PER_MINUTE;
        for told in &load.segments {
            if let Some(watched) = self.segments.get_mut(&told.segment) {
                watched.series.add(if watched.bytes { told.bytes } else { told.events }, now, slot);
            }
        }
    }

    /// Decides which segments are split and merged; each that is named is left alone for a while then.
    ///
    /// Source: Pravega, `AutoScaleProcessor.report`.
    pub fn decide(&mut self, streams: &[Scaled], now: Timestamp) -> Vec<Scale> {
        let mut decided = Vec::new();
        for stream in streams {
            let Some(aim) = Aim::of(stream.policy) else { continue };
            let scale = self.split(stream, aim, now).or_else(|| self.merge(stream, aim, now));
            let Some(scale) = scale else { continue };
            let until = now + self.minute * COOL_DOWN_MINUTES;
            for segment in &scale.seal {
                if let Some(watched) = self.segments.get_mut(segment) {
                    watched.muted_until = until;
                }
            }
            decided.push(scale);
            if decided.len() >= SCALES_AT_ONCE_MAX {
                break;
            }
        }
        decided
    }

    /// How many segments are watched.
    pub fn watched_count(&self) -> usize {
        self.segments.len()
    }

    /// The segment's load, unless it is too young or was decided about not long ago.
    fn ready(&self, segment: SegmentId, now: Timestamp) -> Option<&Series> {
        let watched = self.segments.get(&segment)?;
        let seen = watched.series.seen(now) >= self.minute * COOL_DOWN_MINUTES;
        (seen && watched.muted_until <= now).then_some(&watched.series)
    }

    /// Events or bytes per second over so many minutes; `None` if the segment was not seen for so long.
    fn rate(&self, series: &Series, minutes: u32, now: Timestamp) -> Option<f64> {
        series.rate(self.minute * minutes, now)
    }

    fn split(&self, stream: &Scaled, aim: Aim, now: Timestamp) -> Option<Scale> {
        let (mut seal, mut ranges) = (Vec::new(), Vec::new());
        // What does not fit any more is left as it is: a scale to more than there can be would be refused whole.
        let mut room = u64::try_from(SEGMENTS_PRESENT_MAX.saturating_sub(stream.present.len())).unwrap_or(u64::MAX);
        for there in &stream.present {
            let Some(count) = self.ready(there.segment, now).and_then(|series| self.splits(series, aim, now)) else {
                continue;
            };
            let parts = parts_of(there.range, count.min(room + 1));
            if parts.len() > 1 {
                room -= u64::try_from(parts.len() - 1).unwrap_or(room).min(room);
                seal.push(there.segment);
                ranges.extend(parts);
            }
        }
        (!seal.is_empty()).then(|| Scale { index: stream.index.clone(), seal, ranges })
    }

    /// Into how many segments this one is to be split.
    fn splits(&self, series: &Series, aim: Aim, now: Timestamp) -> Option<u64> {
        let target = as_rate(aim.target);
        let rates = TOO_HOT.map(|(minutes, times)| (self.rate(series, minutes, now), times));
        let hot = rates.iter().any(|(rate, times)| rate.is_some_and(|rate| rate > times * target));
        let highest = rates.iter().filter_map(|(rate, _)| *rate).fold(0.0, f64::max);
        let most = u64::from(aim.factor.max(2));
        // Counting up needs no cast of a float, and ends with the factor.
        let wanted = || (2..most).find(|count| as_rate(*count) * target >= highest).unwrap_or(most);
        hot.then(wanted)
    }

    fn merge(&self, stream: &Scaled, aim: Aim, now: Timestamp) -> Option<Scale> {
        let mut spare = stream.present.len().saturating_sub(usize::from(aim.min_segments.max(1)));
        let (mut seal, mut ranges) = (Vec::new(), Vec::new());
        let mut waiting: Option<&SegmentRange> = None;
        for there in &stream.present {
            if spare == 0 {
                break;
            }
            if !self.ready(there.segment, now).is_some_and(|series| self.is_cold(series, aim, now)) {
                waiting = None;
                continue;
            }
            match waiting.take() {
                Some(before) => {
                    seal.extend([before.segment, there.segment]);
                    ranges.push(KeyRange { first: before.range.first, last: there.range.last });
                    spare -= 1;
                }
                None => waiting = Some(there),
            }
        }
        (!seal.is_empty()).then(|| Scale { index: stream.index.clone(), seal, ranges })
    }

    fn is_cold(&self, series: &Series, aim: Aim, now: Timestamp) -> bool {
        let target = as_rate(aim.target);
        let below =
            |(minutes, times): (u32, f64)| self.rate(series, minutes, now).is_some_and(|rate| rate < times * target);
        COLD.into_iter().all(below)
    }
}

impl Watched {
    fn new(bytes: bool, now: Timestamp, fresh: bool) -> Self {
        let series = if fresh { Series::from_zero(now) } else { Series::unknown(now) };
        Self { bytes, series, muted_until: Timestamp::MIN }
    }
}

/// Rates are compared with each other, so that what a float leaves out of a count beyond 2^53 does not matter.
fn as_rate(count: u64) -> f64 {
    count as f64
}

/// Splits a range evenly; into fewer parts where it has fewer keys.
fn parts_of(range: KeyRange, count: u64) -> Vec<KeyRange> {
    let keys = u128::from(range.last - range.first) + 1;
    let count = u128::from(count.max(1)).min(keys);
    let edge = |part: u128| range.first + u64::try_from(keys * part / count).unwrap_or(u64::MAX);
    (0..count)
        .map(|part| KeyRange {
            first: edge(part),
            last: if part + 1 == count { range.last } else { edge(part + 1) - 1 },
        })
        .collect()
}
