//! One index: its limits, what this replica let in, and what it heard of the others.
//!
//! Every replica lets in what fits by what it knows, and tells the others afterwards what that was. What they let in is charged to
//! the same bucket and counted in the same day. So nobody has to be asked before an event passes: for as long as the telling takes,
//! each replica may use the whole quota; what was too much is a debt of all of them, and over longer times the quota holds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use types::Timestamp;

use crate::{Days, Rate, day_of, until_next_day};

/// Replicas of which is remembered what they let in of one index; beyond it the one heard of longest ago is forgotten.
pub const MEMBERS_MAX: usize = 64;
/// How long open queries of another replica count after it told of them: it may have died with them.
pub const QUERIES_HEARD_FOR: Duration = Duration::from_secs(10);

/// What the users of an index may take, all of them together; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes on a day of UTC.
    pub bytes_per_day: Option<u64>,
    /// Events in a second, on the average.
    pub events_per_second: Option<u32>,
    /// Queries at the same time.
    pub queries: Option<u16>,
}

/// What somebody wants to publish, all of it or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    /// Events.
    pub events: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// What one process tells of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// When the process began; 0 where it does not say.
    pub since: i64,
    /// A day of UTC, counted from 1970.
    pub day: i64,
    /// Payload bytes on that day.
    pub bytes: u64,
    /// Events since it began to count.
    pub events: u64,
    /// Queries that are open.
    pub queries: u32,
}

/// Why something may not pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The day is used up.
    #[error("takes {limit} bytes on a day of UTC")]
    Bytes {
        /// What it takes.
        limit: u64,
        /// Until the next day.
        wait: Duration,
    },
    /// No day takes so much at once: it never passes.
    #[error("takes {limit} bytes on a day of UTC, and these are {bytes}")]
    Never {
        /// What it takes.
        limit: u64,
        /// What was to pass.
        bytes: u64,
    },
    /// It comes too fast.
    #[error("takes {limit} events a second")]
    Rate {
        /// What it takes.
        limit: u32,
        /// Until it may pass, if nothing else passes before.
        wait: Duration,
    },
    /// Too much is open.
    #[error("answers {limit} queries at the same time")]
    Queries {
        /// What it answers.
        limit: u16,
    },
}

struct Heard {
    told: Told,
    at: Timestamp,
}

/// Decides what passes of one index.
pub struct Meter {
    limits: Limits,
    rate: Rate,
    bytes: Days,
    /// Events that passed, as others are told: it only grows.
    events: u64,
    /// Events that others were told of and that came to nothing; the next ones are not told again.
    credit: u64,
    queries: u32,
    others: BTreeMap<Arc<str>, Heard>,
    changed: bool,
}

impl Meter {
    /// Nothing was taken yet.
    pub fn new(limits: Limits, now: Timestamp) -> Self {
        let rate = Rate::new(limits.events_per_second.unwrap_or(0), now);
        let (bytes, others) = (Days::default(), BTreeMap::new());
        Self { limits, rate, bytes, events: 0, credit: 0, queries: 0, others, changed: false }
    }

    /// Changes the limits; what was taken stays taken.
    pub fn set(&mut self, limits: Limits, now: Timestamp) {
        match (self.limits.events_per_second, limits.events_per_second) {
            // What passed while there was no limit is no debt.
            (None, Some(rate)) => self.rate = Rate::new(rate, now),
            (Some(_), Some(rate)) => self.rate.set(rate, now),
            (_, None) => {}
        }
        self.limits = limits;
    }

    /// Lets events pass, all together.
    ///
    /// Errors: `Bytes`, `Never`, `Rate`; then nothing is counted.
    pub fn take(&mut self, take: Take, now: Timestamp) -> Result<(), Refusal> {
        let day = day_of(now);
        match self.limits.bytes_per_day {
            Some(limit) if take.bytes > limit => return Err(Refusal::Never { limit, bytes: take.bytes }),
            Some(limit) if self.bytes_on(day).saturating_add(take.bytes) > limit => {
                return Err(Refusal::Bytes { limit, wait: until_next_day(now) });
            }
            _ => {}
        }
        if let Some(limit) = self.limits.events_per_second {
            self.rate.take(take.events, now).map_err(|wait| Refusal::Rate { limit, wait })?;
        }
        self.bytes.add(day, take.bytes);
        let told = take.events.min(self.credit);
        self.credit -= told;
        self.events = self.events.saturating_add(take.events - told);
        self.changed = true;
        Ok(())
    }

    /// Takes note that what passed at a time came to nothing after all: it is given back to the day of that time.
    pub fn give_back(&mut self, take: Take, taken: Timestamp) {
        self.rate.give_back(take.events);
        self.bytes.subtract(day_of(taken), take.bytes);
        self.credit = self.credit.saturating_add(take.events);
        self.changed = true;
    }

    /// Queries that are open at all replicas, as far as they told of late.
    pub fn open_everywhere(&self, now: Timestamp) -> u32 {
        let fresh = self.others.values().filter(|heard| now.since(heard.at) < QUERIES_HEARD_FOR);
        fresh.fold(self.queries, |sum, heard| sum.saturating_add(heard.told.queries))
    }

    /// Opens a query, of `besides` more that are known otherwise. Errors: `Queries`.
    pub fn open(&mut self, besides: u32, now: Timestamp) -> Result<(), Refusal> {
        let open = self.open_everywhere(now).saturating_add(besides);
        if let Some(limit) = self.limits.queries.filter(|limit| open >= u32::from(*limit)) {
            return Err(Refusal::Queries { limit });
        }
        self.queries += 1;
        self.changed = true;
        Ok(())
    }

    /// Closes a query.
    pub fn close(&mut self) {
        self.queries = self.queries.saturating_sub(1);
        self.changed = true;
    }

    /// Queries that are open here.
    pub fn queries(&self) -> u32 {
        self.queries
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Payload bytes that all replicas let in on a day.
    pub fn bytes_on(&self, day: i64) -> u64 {
        let theirs = self.others.values().filter(|heard| heard.told.day == day);
        theirs.fold(self.bytes.on(day), |sum, heard| sum.saturating_add(heard.told.bytes))
    }

    /// Takes in what another replica tells. What it let in before it was first heard of is no debt; what its process told before
    /// what is known already changes nothing.
    pub fn hear(&mut self, who: &Arc<str>, told: Told, now: Timestamp) {
        match self.others.get(who) {
            Some(known) if is_older(&told, &known.told) => return,
            // A new process counts from nothing; one that does not say when it began is known by a number that shrinks.
            Some(known) if told.since != known.told.since || told.events < known.told.events => {
                self.rate.charge(told.events, now);
            }
            Some(known) => self.rate.charge(told.events - known.told.events, now),
            None if self.others.len() >= MEMBERS_MAX => {
                let longest = self.others.iter().min_by_key(|(_, heard)| heard.at).map(|(who, _)| who.clone());
                longest.map(|who| self.others.remove(&who));
            }
            None => {}
        }
        self.others.insert(who.clone(), Heard { told, at: now });
    }

    /// Forgets another replica that told nothing on this day.
    pub fn forget(&mut self, who: &str, now: Timestamp) {
        if self.others.get(who).is_some_and(|heard| heard.told.day < day_of(now)) {
            self.others.remove(who);
        }
    }

    /// Goes on where a former process of this replica ended; hearing of that twice changes nothing.
    pub fn resume(&mut self, told: Told) {
        self.bytes.add(told.day, told.bytes.saturating_sub(self.bytes.on(told.day)));
    }

    /// What the others are to be told.
    pub fn tell(&self, now: Timestamp) -> Told {
        let day = day_of(now);
        Told { since: 0, day, bytes: self.bytes.on(day), events: self.events, queries: self.queries }
    }

    /// Whether there is something to tell since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

/// Whether this was told before what is known: by a process that ended since, or by the same one when it had less.
fn is_older(told: &Told, known: &Told) -> bool {
    told.since < known.since || (told.since == known.since && told.since != 0 && told.events < known.events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn limits(bytes: u64, events: u32, queries: u16) -> Limits {
        Limits { bytes_per_day: Some(bytes), events_per_second: Some(events), queries: Some(queries) }
    }

    fn event(bytes: u64) -> Take {
        Take { events: 1, bytes }
    }

    #[test]
    fn a_day_takes_its_bytes_and_the_next_one_begins_anew() {
        let mut meter = Meter::new(limits(100, 1_000, 1), at(0));
        let night = at(DAY - 2_000);
        assert_eq!(meter.take(event(60), night), Ok(()));
        let never = Err(Refusal::Never { limit: 100, bytes: 101 });
        assert_eq!((meter.take(event(101), night), meter.take(event(101), at(DAY))), (never, never), "no day has room");
        let wait = Duration::from_secs(2);
        assert_eq!(meter.take(event(41), night), Err(Refusal::Bytes { limit: 100, wait }));
        assert_eq!(meter.take(event(40), night), Ok(()), "what was refused is not counted");
        assert_eq!(meter.take(event(100), at(DAY)), Ok(()));
        // The clock is set back over midnight: the old day is still used up, and the new one is not forgotten.
        assert!(meter.take(event(1), night).is_err());
        assert!(meter.take(event(1), at(DAY + 1)).is_err());
    }

    #[test]
    fn what_came_to_nothing_is_given_back() {
        let mut meter = Meter::new(limits(100, 1, 1), at(0));
        let both = Take { events: 2, bytes: 100 };
        for _ in 0..5 {
            assert_eq!(meter.take(both, at(0)), Ok(()));
            assert!(meter.take(event(0), at(0)).is_err());
            meter.give_back(both, at(0));
        }
    }

    #[test]
    fn what_came_to_nothing_over_midnight_is_given_back_to_its_day() {
        let mut meter = Meter::new(limits(100, 1_000, 1), at(0));
        let (evening, morning) = (at(DAY - 1), at(DAY));
        meter.take(event(70), evening).unwrap();
        meter.take(event(60), morning).unwrap();
        meter.give_back(event(70), evening);
        assert_eq!((meter.bytes_on(0), meter.bytes_on(1)), (0, 60), "the new day is as full as it was");
        meter.take(event(1), at(2 * DAY)).unwrap();
        meter.give_back(event(70), evening);
        assert_eq!((meter.bytes_on(1), meter.bytes_on(2)), (60, 1), "a day that is over takes no other's place");
    }

    #[test]
    fn what_a_process_told_before_changes_nothing() {
        let (mut meter, other): (_, Arc<str>) = (Meter::new(limits(1_000, 10, 4), at(0)), "gateway.b".into());
        let told = |since, events, bytes| Told { since, day: 0, bytes, events, queries: 0 };
        meter.hear(&other, told(5, 0, 0), at(0));
        meter.hear(&other, told(5, 15, 150), at(0));
        for older in [told(5, 3, 30), told(4, 400, 900)] {
            meter.hear(&other, older, at(0));
            assert_eq!(meter.bytes_on(0), 150, "{older:?}");
        }
        assert_eq!(
            meter.take(Take { events: 5, bytes: 0 }, at(0)),
            Ok(()),
            "fifteen of twenty were charged, and no more"
        );
        // The next process counts from nothing, and may have let in more than the last one by the time it is heard of.
        meter.hear(&other, told(6, 20, 170), at(0));
        let wait = Duration::from_millis(2_100);
        assert_eq!(meter.take(event(1), at(0)), Err(Refusal::Rate { limit: 10, wait }));
        assert_eq!(meter.bytes_on(0), 170);
    }

    #[test]
    fn what_comes_to_nothing_again_and_again_is_told_once() {
        let now = Timestamp::from_millis(0);
        let mut meter = Meter::new(limits(1_000, 10, 1), now);
        for _ in 0..1_000 {
            meter.take(event(1), now).unwrap();
            meter.give_back(event(1), now);
        }
        assert_eq!((meter.tell(now).events, meter.tell(now).bytes), (1, 0));
        meter.take(event(1), now).unwrap();
        meter.take(event(1), now).unwrap();
        assert_eq!(meter.tell(now).events, 2, "the one that was told before stands for the first of these");
    }

    #[test]
    fn what_others_let_in_is_a_debt_of_all() {
        let (mut meter, other): (_, Arc<str>) = (Meter::new(limits(1_000, 10, 4), at(0)), "gateway.b".into());
        let told = |bytes, events, queries| Told { since: 0, day: 0, bytes, events, queries };
        meter.hear(&other, told(100, 5_000, 0), at(0));
        assert_eq!(meter.take(Take { events: 20, bytes: 0 }, at(0)), Ok(()), "what was before is no debt");
        meter.hear(&other, told(950, 5_030, 3), at(0));
        let wait = Duration::from_millis(3_100);
        assert_eq!(meter.take(event(1), at(0)), Err(Refusal::Rate { limit: 10, wait }));
        assert_eq!(meter.take(event(50), at(3_100)), Ok(()));
        assert!(matches!(meter.take(event(1), at(9_000)), Err(Refusal::Bytes { .. })));
        // It was started anew and counts from nothing; its bytes of the day it has found again.
        meter.hear(&other, told(950, 7, 3), at(9_000));
        assert_eq!(meter.bytes_on(0), 1_000);
        // Its queries count while it tells of them.
        assert_eq!(meter.open(0, at(9_000)), Ok(()));
        assert_eq!(meter.open(0, at(9_000)), Err(Refusal::Queries { limit: 4 }));
        assert_eq!(meter.open(0, at(20_000)), Ok(()));
        assert_eq!(meter.open(2, at(20_000)), Err(Refusal::Queries { limit: 4 }));
        meter.close();
        assert_eq!((meter.queries(), meter.open(2, at(20_000))), (1, Ok(())));
        meter.forget("gateway.b", at(DAY - 1));
        assert_eq!(meter.bytes_on(0), 1_000, "what it let in counts as long as its day");
        meter.forget("gateway.b", at(DAY));
        assert_eq!(meter.bytes_on(0), 50);
    }

    #[test]
    fn a_process_goes_on_where_the_one_before_ended() {
        let mut before = Meter::new(limits(100, 10, 1), at(0));
        before.take(event(70), at(5)).unwrap();
        assert!(before.take_changed() && !before.take_changed());
        let mut after = Meter::new(limits(100, 10, 1), at(6));
        after.resume(before.tell(at(5)));
        after.resume(before.tell(at(5)));
        assert!(after.take(event(31), at(6)).is_err());
        assert!(after.take(event(30), at(6)).is_ok());
    }

    #[test]
    fn no_more_replicas_are_remembered_than_the_bound() {
        let mut meter = Meter::new(limits(1 << 40, 10, 1), at(0));
        for n in 0..200 {
            meter.hear(&format!("r-{n}").into(), Told { day: 0, bytes: 1, ..Told::default() }, at(n));
        }
        assert_eq!(meter.bytes_on(0), u64::try_from(MEMBERS_MAX).unwrap());
    }

    proptest! {
        /// Replicas that tell each other every second: over all of them no stretch has more than its share, one burst, and what each
        /// other one may let in before it hears.
        #[test]
        fn replicas_share_a_quota(
            members in 1usize..5,
            per_second in 1u32..40,
            asks in prop::collection::vec((0i64..100, 0usize..5, 1u64..20), 50..400),
        ) {
            let names: Vec<Arc<str>> = (0..members).map(|n| format!("r-{n}").into()).collect();
            let limits = Limits { events_per_second: Some(per_second), ..Limits::default() };
            let mut meters: Vec<Meter> = (0..members).map(|_| Meter::new(limits, at(0))).collect();
            let tell = |meters: &mut Vec<Meter>, now: i64| {
                for from in 0..members {
                    let told = meters[from].tell(at(now));
                    for to in (0..members).filter(|to| *to != from) {
                        meters[to].hear(&names[from], told, at(now));
                    }
                }
            };
            tell(&mut meters, 0);
            let (mut now, mut told, mut passed) = (0i64, 0i64, 0u64);
            for (pause, who, events) in asks {
                now += pause;
                if now - told >= 1_000 {
                    told = now;
                    tell(&mut meters, now);
                }
                let events = events.min(u64::from(2 * per_second));
                if meters[who % members].take(Take { events, bytes: 1 }, at(now)).is_ok() {
                    passed += events;
                }
                let (rate, seconds) = (u64::from(per_second), u64::try_from(now).unwrap() / 1_000 + 1);
                let unheard = (u64::try_from(members).unwrap() - 1) * 4 * rate;
                prop_assert!(passed <= rate * seconds + 2 * rate + unheard, "{passed} in {now} ms");
            }
        }
    }
}
