//! What was taken on a day of UTC.

use std::time::Duration;

use types::Timestamp;

const DAY_NANOS: i64 = 86_400 * 1_000_000_000;

/// The day of UTC, counted from 1970.
pub const fn day_of(at: Timestamp) -> i64 {
    at.nanos().div_euclid(DAY_NANOS)
}

/// How long until the next day of UTC begins.
pub fn until_next_day(at: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(DAY_NANOS - at.nanos().rem_euclid(DAY_NANOS)).unwrap_or(0))
}

/// Counters of two days, so that a clock that goes back over midnight finds the day that it left.
///
/// Bounds: two days; a third one takes the place of the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days([(i64, u64); 2]);

impl Default for Days {
    fn default() -> Self {
        // Earlier than any day, so that the first two find room.
        Self([(i64::MIN, 0); 2])
    }
}

impl Days {
    /// What was counted on a day.
    pub fn on(&self, day: i64) -> u64 {
        self.0.iter().find(|known| known.0 == day).map_or(0, |known| known.1)
    }

    /// Counts more on a day.
    pub fn add(&mut self, day: i64, count: u64) {
        let slot = self.slot(day);
        *slot = slot.saturating_add(count);
    }

    /// Counts less on a day; of a day that is given up there is nothing to take from.
    pub fn subtract(&mut self, day: i64, count: u64) {
        if let Some(known) = self.0.iter_mut().find(|known| known.0 == day) {
            known.1 = known.1.saturating_sub(count);
        }
    }

    fn slot(&mut self, day: i64) -> &mut u64 {
        let earlier = usize::from(self.0[0].0 > self.0[1].0);
        let at = self.0.iter().position(|known| known.0 == day).unwrap_or(earlier);
        if self.0[at].0 != day {
            self.0[at] = (day, 0);
        }
        &mut self.0[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_of_utc() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        for (seconds, day, left) in [(0, 0, 86_400), (86_399, 0, 1), (86_400, 1, 86_400), (-1, -1, 1)] {
            assert_eq!((day_of(at(seconds)), until_next_day(at(seconds)).as_secs()), (day, left), "{seconds}");
        }
    }

    #[test]
    fn a_clock_that_comes_back_finds_its_day() {
        let mut days = Days::default();
        days.add(9, 5);
        days.add(10, 1);
        days.add(9, 2);
        assert_eq!((days.on(9), days.on(10), days.on(11)), (7, 1, 0));
        // Far ahead, and back: only the earlier day is given up.
        days.add(100, 3);
        assert_eq!((days.on(9), days.on(10), days.on(100)), (0, 1, 3));
        days.add(11, 4);
        assert_eq!((days.on(11), days.on(100)), (4, 3));
        days.subtract(11, 9);
        assert_eq!(days.on(11), 0);
        days.subtract(9, 1);
        assert_eq!((days.on(9), days.on(11), days.on(100)), (0, 0, 3), "a day that is given up takes no other's place");
    }
}
