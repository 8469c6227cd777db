//! How a count that only grows has grown of late.

use std::{collections::VecDeque, time::Duration};

use types::Timestamp;

/// Points kept per minute: what a segment's owner tells more often than every 20 s is summed up.
pub(super) const POINTS_PER_MINUTE: u32 = 3;

/// Points kept: 20 minutes, one before them, and the last one, which still moves.
const POINTS_MAX: usize = 62;

/// The points of a count that only grows.
#[derive(Debug)]
pub(super) struct Series {
    /// When the segment was first seen with a known count.
    since: Timestamp,
    /// Oldest first; empty while nothing was told of a segment whose first count is unknown.
    points: VecDeque<(Timestamp, u64)>,
}

impl Series {
    /// A count that is 0 now.
    pub(super) fn from_zero(now: Timestamp) -> Self {
        Self { since: now, points: VecDeque::from([(now, 0)]) }
    }

    /// A count of which nothing is known but that it does not grow until something is told.
    pub(super) fn unknown(now: Timestamp) -> Self {
        Self { since: now, points: VecDeque::new() }
    }

    /// How long the count has been watched.
    pub(super) fn seen(&self, now: Timestamp) -> Duration {
        now.since(self.since)
    }

    /// Takes in a count; points closer than `slot` are one.
    ///
    /// A count that is smaller than one that was told before comes from somebody who knows less: it says nothing.
    pub(super) fn add(&mut self, count: u64, now: Timestamp, slot: Duration) {
        let Some((last_at, last)) = self.points.back() else {
            // The first count tells how much came before the watch, not how much came now.
            self.since = now;
            self.points.push_back((now, count));
            return;
        };
        if count <= *last {
            return;
        }
        // A last point that is too close to the one before it moves on.
        let before = self.points.len().checked_sub(2).and_then(|place| self.points.get(place));
        if before.is_some_and(|(at, _)| last_at.since(*at) < slot) {
            self.points.pop_back();
        }
        self.points.push_back((now, count));
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// The growth per second over a time that ends now; `None` if the count was not watched for so long.
    pub(super) fn rate(&self, over: Duration, now: Timestamp) -> Option<f64> {
        if self.seen(now) < over || over.is_zero() {
            return None;
        }
        let Some((_, last)) = self.points.back() else { return Some(0.0) };
        let grown = super::as_rate(*last) - self.at(now - over);
        Some(grown / over.as_secs_f64())
    }

    /// The count at an instant; between two points it grew evenly, so that what was told late is not taken for a leap.
    fn at(&self, instant: Timestamp) -> f64 {
        let later = self.points.partition_point(|(at, _)| *at <= instant);
        let count = |place: usize| self.points.get(place).map_or((instant, 0.0), |(at, n)| (*at, super::as_rate(*n)));
        if later == 0 {
            return count(0).1;
        }
        if later == self.points.len() {
            return count(later - 1).1;
        }
        let ((from, low), (to, high)) = (count(later - 1), count(later));
        let part = instant.since(from).as_secs_f64() / to.since(from).as_secs_f64();
        low + (high - low) * part
    }
}
