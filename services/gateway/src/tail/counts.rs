//! What a tail has seen, and what became of it. Pure.

use std::time::Duration;

use serde::Serialize;

/// Rows since the tail began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Rows that came.
    pub(crate) seen: u64,
    /// Those of them that the reader wants.
    pub(crate) matched: u64,
    /// Those of them that were handed to the connection.
    pub(crate) sent: u64,
    /// Those of them that were not, because the reader was behind.
    pub(crate) dropped: u64,
}

/// What a reader is told once a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rate {
    seen_per_s: f64,
    matched_per_s: f64,
    /// Dropped since it was told the last time.
    dropped_now: u64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// Counts, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) now: Counts,
    last: Counts,
}

impl Told {
    /// What came since it was told the last time, so long ago.
    pub(super) fn rate(&self, since: Duration) -> Rate {
        let seconds = since.as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss, reason = "rows of a second")]
        let per_s = |now: u64, last: u64| ((now - last) as f64 / seconds * 10.0).round() / 10.0;
        Rate {
            seen_per_s: per_s(self.now.seen, self.last.seen),
            matched_per_s: per_s(self.now.matched, self.last.matched),
            dropped_now: self.now.dropped - self.last.dropped,
            counts: self.now,
        }
    }

    /// The reader has been told.
    pub(super) fn told(&mut self) {
        self.last = self.now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_they_were_told() {
        let now = Counts { seen: 100, matched: 10, sent: 8, dropped: 2 };
        let mut told = Told { now, ..Told::default() };
        let rate = told.rate(Duration::from_secs(2));
        assert_eq!((rate.seen_per_s, rate.matched_per_s, rate.dropped_now), (50.0, 5.0, 2));
        // One that did not get through is made up for by the next.
        told.now.dropped = 5;
        assert_eq!(told.rate(Duration::from_secs(1)).dropped_now, 5);
        told.told();
        let rate = told.rate(Duration::from_secs(1));
        assert_eq!((rate.seen_per_s, rate.dropped_now, rate.counts.dropped), (0.0, 0, 5));
        let said = serde_json::to_value(rate).unwrap();
        assert_eq!((said["seen"].as_u64(), said["dropped"].as_u64()), (Some(100), Some(5)));
    }
}
