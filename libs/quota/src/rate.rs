//! Events a second, on the average.

use std::time::Duration;

use types::Timestamp;

/// The burst: so many seconds of the rate at once, after as much silence.
pub const BURST_SECONDS: u32 = 2;
/// The debt that is remembered: an hour of the rate. Whoever owes more has sent what was not asked for.
const DEBT_SECONDS_MAX: i128 = 3_600;
/// What an event counts: levels are billionths of it, so that no nanosecond is lost however often it is asked.
const EVENT: i128 = 1_000_000_000;
/// How long somebody is told to wait who may send nothing at all.
const NEVER: Duration = Duration::from_secs(3_600);

/// A token bucket: what may pass in a second, and twice as much after two seconds of silence.
///
/// More events at once than the burst pass when the bucket is full, and are paid for before the next ones. So in any time
/// no more passes than the rate allows in it, one burst, and what one such ask has above a burst.
/// Units: events. Bounds: a debt of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    /// In billionths; below zero it is a debt.
    level: i128,
    at: Timestamp,
}

impl Rate {
    /// A full bucket.
    pub fn new(per_second: u32, now: Timestamp) -> Self {
        let mut rate = Self { per_second, level: 0, at: now };
        rate.level = rate.burst();
        rate
    }

    /// The rate.
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Changes the rate; what was saved up stays as far as the new burst has room, debts stay.
    pub fn set(&mut self, per_second: u32, now: Timestamp) {
        self.fill(now);
        self.per_second = per_second;
        self.level = self.level.min(self.burst());
    }

    /// Lets events pass all together, or says how long to wait before they may.
    pub fn take(&mut self, events: u64, now: Timestamp) -> Result<(), Duration> {
        self.fill(now);
        if events == 0 {
            return Ok(());
        }
        if self.per_second == 0 {
            return Err(NEVER);
        }
        let missing = (i128::from(events) * EVENT).min(self.burst()) - self.level;
        if missing > 0 {
            let per_second = i128::from(self.per_second);
            return Err(Duration::from_nanos(
                u64::try_from((missing + per_second - 1) / per_second).unwrap_or(u64::MAX),
            ));
        }
        self.charge(events, now);
        Ok(())
    }

    /// Takes note of events that passed elsewhere.
    pub fn charge(&mut self, events: u64, now: Timestamp) {
        self.fill(now);
        let floor = -DEBT_SECONDS_MAX * EVENT * i128::from(self.per_second);
        self.level = (self.level - i128::from(events) * EVENT).max(floor);
    }

    /// Takes note that events which passed came to nothing.
    pub fn give_back(&mut self, events: u64) {
        self.level = (self.level + i128::from(events) * EVENT).min(self.burst());
    }

    fn burst(&self) -> i128 {
        i128::from(self.per_second) * i128::from(BURST_SECONDS) * EVENT
    }

    /// Time that passed twice on a clock that was set back counts twice: that is worth one burst at most.
    fn fill(&mut self, now: Timestamp) {
        let passed = i128::try_from(now.since(self.at).as_nanos()).unwrap_or(0);
        self.level = (self.level + passed * i128::from(self.per_second)).min(self.burst());
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn whoever_is_told_to_wait_may_send_then() {
        for (per_second, events) in [(1, 1), (3, 2), (7, 14), (1_000, 999), (u32::MAX, 1_000_000)] {
            let mut rate = Rate::new(per_second, at(0));
            while rate.take(events, at(0)).is_ok() {}
            let wait = rate.take(events, at(0)).unwrap_err();
            let then = at(0) + wait;
            assert!(rate.take(events, then - Duration::from_nanos(1)).is_err(), "{per_second} {events}");
            assert_eq!(rate.take(events, then), Ok(()), "{per_second} {events}");
        }
    }

    #[test]
    fn more_than_a_burst_at_once_is_paid_for_afterwards() {
        let mut rate = Rate::new(10, at(0));
        assert_eq!(rate.take(1, at(0)), Ok(()));
        assert_eq!(rate.take(120, at(0)), Err(Duration::from_millis(100)), "only from a full bucket");
        assert_eq!(rate.take(120, at(100)), Ok(()));
        assert_eq!(rate.take(1, at(100)), Err(Duration::from_millis(10_100)));
        assert_eq!(rate.take(1, at(10_200)), Ok(()));
    }

    #[test]
    fn nothing_passes_at_a_rate_of_nothing() {
        let mut rate = Rate::new(0, at(0));
        assert_eq!(rate.take(0, at(0)), Ok(()));
        assert_eq!(rate.take(1, at(0)), Err(NEVER));
        assert_eq!(rate.take(1, at(1_000_000)), Err(NEVER));
    }

    #[test]
    fn a_change_keeps_what_fits() {
        let mut rate = Rate::new(100, at(0));
        rate.set(1, at(0));
        assert_eq!((rate.take(2, at(0)), rate.take(1, at(0))), (Ok(()), Err(Duration::from_secs(1))));
        rate.set(100, at(0));
        assert_eq!(rate.take(1, at(0)), Err(Duration::from_millis(10)), "a better plan begins where the old one stood");
    }

    proptest! {
        /// In no stretch of time passes more than its share and one burst.
        #[test]
        fn no_stretch_has_more_than_its_share_and_a_burst(
            per_second in 1u32..50,
            steps in prop::collection::vec((0i64..400, 1u64..80), 1..200),
        ) {
            let mut rate = Rate::new(per_second, at(0));
            let burst = u64::from(per_second * BURST_SECONDS);
            let (mut now, mut passed) = (0, Vec::new());
            for (pause, events) in steps {
                now += pause;
                let events = events.min(burst);
                if rate.take(events, at(now)).is_ok() {
                    passed.push((now, events));
                }
            }
            for first in 0..passed.len() {
                let mut sum = 0;
                for &(then, events) in &passed[first..] {
                    sum += events;
                    let share = u64::try_from(then - passed[first].0).unwrap() * u64::from(per_second);
                    prop_assert!(sum * 1_000 <= share + burst * 1_000, "{sum} events in {} ms", then - passed[first].0);
                }
            }
        }

        /// Whatever a clock does, silence of two seconds afterwards is worth a burst, and nothing else is.
        #[test]
        fn a_clock_that_jumps_harms_nobody(
            per_second in 1u32..50,
            jumps in prop::collection::vec((-100_000i64..100_000, 1u64..80), 1..100),
        ) {
            let mut rate = Rate::new(per_second, at(0));
            let burst = u64::from(per_second * BURST_SECONDS);
            let mut now = 0;
            for (jump, events) in jumps {
                now += jump;
                let before = rate.clone();
                let fits = rate.take(events.min(burst), at(now)).is_ok();
                // A step back by itself gives nothing.
                prop_assert!(jump > 0 || fits == (before.level >= i128::from(events.min(burst)) * EVENT));
                prop_assert!(rate.level <= rate.burst());
            }
            prop_assert!(rate.take(burst, at(now + 1_000 * i64::from(BURST_SECONDS))).is_ok());
        }
    }
}
