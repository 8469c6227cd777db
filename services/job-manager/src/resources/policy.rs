//! Decides how many task workers there should be. Pure.

use std::time::Duration;

use types::Timestamp;

/// Between what, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Pause between two changes.
    pub(crate) cooldown: Duration,
    /// Time for which fewer must be wanted.
    pub(crate) shrink_after: Duration,
}

/// What there is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Slots that all live jobs want, with or without having them.
    pub(crate) slots_wanted: u32,
    /// Slots of one worker; 0 while no worker is known.
    pub(crate) slots_each: u32,
    /// Workers that were asked for.
    pub(crate) workers: u32,
    /// Workers up to the last one that runs a task: those behind it are idle.
    pub(crate) busy: u32,
}

/// Remembers since when fewer would do, and when it last changed something.
#[derive(Debug)]
pub(crate) struct Policy {
    limits: Limits,
    changed: Option<Timestamp>,
    /// Since when, and how many were needed at most since then.
    fewer: Option<(Timestamp, u32)>,
}

impl Policy {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, changed: None, fewer: None }
    }

    /// The number of workers to ask for now, if it is another one. [`Policy::done`] tells that it was asked for.
    pub(crate) fn decide(&mut self, seen: &Seen, now: Timestamp) -> Option<u32> {
        let Limits { min, max, cooldown, shrink_after } = self.limits;
        // Without a single worker nobody knows what one can do.
        let needed = if seen.slots_each == 0 { seen.workers } else { seen.slots_wanted.div_ceil(seen.slots_each) };
        let needed = needed.clamp(min, max);
        let kept = needed.max(seen.busy);
        let wanted = if kept >= seen.workers {
            self.fewer = None;
            needed.max(seen.workers)
        } else {
            let (since, most) = self.fewer.map_or((now, kept), |(since, most)| (since, most.max(kept)));
            self.fewer = Some((since, most));
            if now.since(since) >= shrink_after { most.min(seen.workers) } else { seen.workers }
        };
        let is_cooling = self.changed.is_some_and(|changed| now.since(changed) < cooldown);
        (wanted != seen.workers && !is_cooling).then_some(wanted)
    }

    /// The decided number was asked for.
    pub(crate) fn done(&mut self, now: Timestamp) {
        self.changed = Some(now);
        self.fewer = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { min: 1, max: 10, cooldown: Duration::from_secs(60), shrink_after: Duration::from_secs(600) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn seen(slots_wanted: u32, workers: u32, busy: u32) -> Seen {
        Seen { slots_wanted, slots_each: 8, workers, busy }
    }

    #[test]
    fn more_is_asked_for_at_once() {
        for (case, wanted) in [
            (seen(0, 1, 0), None),
            (seen(8, 1, 1), None),
            (seen(9, 1, 1), Some(2)),
            (seen(33, 2, 2), Some(5)),
            (seen(1_000, 2, 2), Some(10)),
            (seen(1_000, 10, 10), None),
            (seen(0, 0, 0), Some(1)),
            (Seen { slots_each: 0, ..seen(100, 2, 0) }, None),
            (Seen { slots_each: 0, ..seen(100, 0, 0) }, Some(1)),
        ] {
            assert_eq!(Policy::new(LIMITS).decide(&case, at(0)), wanted, "{case:?}");
        }
    }

    #[test]
    fn a_change_is_followed_by_a_pause() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(policy.decide(&seen(9, 1, 1), at(0)), Some(2));
        // Not told that it was done: it is tried again.
        assert_eq!(policy.decide(&seen(9, 1, 1), at(1)), Some(2));
        policy.done(at(1));
        assert_eq!(policy.decide(&seen(17, 2, 2), at(60)), None);
        assert_eq!(policy.decide(&seen(17, 2, 2), at(61)), Some(3));
    }

    #[test]
    fn fewer_only_after_a_while_and_never_below_a_task() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(0)), None);
        // For a moment four were needed: so many stay.
        assert_eq!(policy.decide(&seen(32, 5, 4), at(300)), None);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(599)), None);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(600)), Some(4));
        policy.done(at(600));
        // The last worker has a task: nothing can go.
        assert_eq!(policy.decide(&seen(8, 4, 4), at(700)), None);
        assert_eq!(policy.decide(&seen(8, 4, 4), at(5_000)), None);
        // From now on it is idle.
        assert_eq!(policy.decide(&seen(8, 4, 1), at(5_001)), None);
        assert_eq!(policy.decide(&seen(8, 4, 1), at(5_601)), Some(1));
    }

    #[test]
    fn a_wish_for_as_many_as_there_are_begins_the_while_again() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(0)), None);
        assert_eq!(policy.decide(&seen(40, 5, 5), at(599)), None);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(600)), None);
        assert_eq!(policy.decide(&seen(8, 5, 2), at(1_200)), Some(2));
    }

    proptest! {
        /// However demand moves: the number stays within its limits, no busy worker goes, and changes keep their distance.
        #[test]
        fn limits_hold(steps in prop::collection::vec((0_u32..200, 0_u32..12, 1_i64..400), 1..60)) {
            let mut policy = Policy::new(LIMITS);
            let (mut workers, mut now, mut changed) = (1, 0, None::<i64>);
            for (slots, busy, pause) in steps {
                now += pause;
                let busy = busy.min(workers);
                if let Some(wanted) = policy.decide(&seen(slots, workers, busy), at(now)) {
                    prop_assert!((LIMITS.min..=LIMITS.max).contains(&wanted), "{wanted}");
                    prop_assert!(wanted >= busy && wanted != workers);
                    prop_assert!(changed.is_none_or(|before| now - before >= 60));
                    policy.done(at(now));
                    (workers, changed) = (wanted, Some(now));
                }
            }
        }
    }
}
