//! Whether and when a job begins again after a failure. Pure.

use std::time::Duration;

use types::{DurationText, Timestamp};
use wire::job_manager::{Cause, RestartPolicy};

use crate::error::Error;

/// Failures of a job that are remembered: no rule counts more.
pub(crate) const FAILURES_REMEMBERED: usize = 100;
/// The longest pause that can be asked for.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// The first pause of a job that leaves it to the service.
const SERVICE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause of a job that leaves it to the service.
const SERVICE_MAX: Duration = Duration::from_secs(5);

/// What is known of the failures of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failures<'a> {
    /// Failures since the last complete checkpoint, this one not counted.
    pub(crate) in_row: u32,
    /// When the last of all failures were, ascending, this one not counted.
    pub(crate) recent: &'a [Timestamp],
}

/// What happens after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The job begins again after a pause.
    Again(Duration),
    /// The job is given up; why.
    GiveUp(&'static str),
}

/// Refuses what cannot be kept.
pub(crate) fn check(policy: &RestartPolicy) -> Result<(), Error> {
    let must = |holds: bool, why: String| if holds { Ok(()) } else { Err(Error::InvalidRestart(why)) };
    let most = DurationText(PAUSE_MAX);
    let short = |what, pause: &DurationText| must(pause.0 <= PAUSE_MAX, format!("{what} is {pause}: at most {most}"));
    match policy {
        RestartPolicy::Service | RestartPolicy::None => Ok(()),
        RestartPolicy::Fixed { delay, .. } => short("delay", delay),
        RestartPolicy::Exponential { first, max, .. } => {
            short("max", max)?;
            let ordered = !first.0.is_zero() && first.0 <= max.0;
            must(ordered, format!("first is {first}: more than nothing, and at most max, which is {max}"))
        }
        RestartPolicy::FailureRate { failures, delay, .. } => {
            short("delay", delay)?;
            let counted = usize::try_from(*failures).is_ok_and(|failures| failures < FAILURES_REMEMBERED);
            must(counted, format!("failures is {failures}: at most {}", FAILURES_REMEMBERED - 1))
        }
    }
}

/// What happens after a failure now; `restarts_max` is for jobs that leave it to the service.
pub(crate) fn decide(
    policy: &RestartPolicy,
    restarts_max: u32,
    cause: Cause,
    past: Failures<'_>,
    now: Timestamp,
) -> Verdict {
    const OFTEN: &str = "it failed too often without a complete checkpoint between";
    if cause == Cause::User {
        return Verdict::GiveUp("it would fail again in the same way");
    }
    let doubled = |first: Duration, max: Duration, quiet: Duration| {
        let doublings = streak(past.recent, quiet, now).min(31);
        Verdict::Again(first.saturating_mul(1 << doublings).min(max))
    };
    match policy {
        RestartPolicy::None => Verdict::GiveUp("it asked for no restart"),
        RestartPolicy::Service if past.in_row >= restarts_max => Verdict::GiveUp(OFTEN),
        RestartPolicy::Service => doubled(SERVICE_FIRST, SERVICE_MAX, SERVICE_MAX * 2),
        RestartPolicy::Fixed { attempts, .. } if past.in_row >= *attempts => Verdict::GiveUp(OFTEN),
        RestartPolicy::Fixed { delay, .. } => Verdict::Again(delay.0),
        RestartPolicy::Exponential { first, max, reset_after } => doubled(first.0, max.0, reset_after.0),
        RestartPolicy::FailureRate { failures, interval, delay } => {
            let lately = past.recent.iter().filter(|at| now.since(**at) < interval.0).count();
            match usize::try_from(*failures).is_ok_and(|failures| lately < failures) {
                true => Verdict::Again(delay.0),
                false => Verdict::GiveUp("it failed too often in the interval of its restart policy"),
            }
        }
    }
}

/// Failures before this one without a quiet time between any two.
fn streak(recent: &[Timestamp], quiet: Duration, now: Timestamp) -> u32 {
    let mut later = now;
    let mut count = 0;
    for at in recent.iter().rev() {
        if later.since(*at) >= quiet {
            break;
        }
        (later, count) = (*at, count + 1);
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(ms: u64) -> DurationText {
        DurationText(Duration::from_millis(ms))
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn policies() -> impl Strategy<Value = RestartPolicy> {
        prop_oneof![
            Just(RestartPolicy::None),
            Just(RestartPolicy::Service),
            (0u32..20, 0u64..5_000).prop_map(|(attempts, delay)| RestartPolicy::Fixed { attempts, delay: text(delay) }),
            (1u64..500, 0u64..5_000, 0u64..20_000).prop_map(|(first, more, reset)| {
                let (first, max) = (text(first), text(first + more));
                RestartPolicy::Exponential { first, max, reset_after: text(reset) }
            }),
            (0u32..20, 0u64..20_000, 0u64..5_000).prop_map(|(failures, interval, delay)| {
                RestartPolicy::FailureRate { failures, interval: text(interval), delay: text(delay) }
            }),
        ]
    }

    #[test]
    fn each_policy_says_when() {
        let fixed = RestartPolicy::Fixed { attempts: 2, delay: text(300) };
        let doubling = RestartPolicy::Exponential { first: text(100), max: text(1_000), reset_after: text(5_000) };
        let rate = RestartPolicy::FailureRate { failures: 2, interval: text(1_000), delay: text(50) };
        let service = RestartPolicy::Service;
        for (policy, in_row, recent, now, wanted) in [
            (&RestartPolicy::None, 0, vec![], 0, None),
            (&service, 0, vec![], 0, Some(100)),
            (&service, 9, vec![0, 0, 0, 0, 0, 0, 0, 0, 0], 0, Some(5_000)),
            (&service, 10, vec![], 0, None),
            (&fixed, 0, vec![], 0, Some(300)),
            (&fixed, 1, vec![0], 10, Some(300)),
            (&fixed, 2, vec![0, 10], 20, None),
            (&doubling, 0, vec![], 0, Some(100)),
            (&doubling, 1, vec![0], 200, Some(200)),
            (&doubling, 2, vec![0, 200], 400, Some(400)),
            (&doubling, 90, vec![0, 200, 400, 600, 800], 900, Some(1_000)),
            // A checkpoint between them does not make the pause short again; only time does.
            (&doubling, 0, vec![0, 200], 400, Some(400)),
            (&doubling, 0, vec![0, 200], 5_200, Some(100)),
            (&rate, 0, vec![], 0, Some(50)),
            (&rate, 50, vec![0, 500], 1_000, Some(50)),
            (&rate, 0, vec![100, 500], 1_000, None),
        ] {
            let recent: Vec<Timestamp> = recent.into_iter().map(at).collect();
            let found = match decide(policy, 10, Cause::System, Failures { in_row, recent: &recent }, at(now)) {
                Verdict::Again(pause) => Some(pause),
                Verdict::GiveUp(_) => None,
            };
            let wanted = wanted.map(Duration::from_millis);
            assert_eq!(found, wanted, "{policy:?} after {in_row} in a row at {recent:?}, now {now}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (policy, says) in [
            (RestartPolicy::Fixed { attempts: 1, delay: text(7_200_000) }, "delay is 2h: at most 1h"),
            (RestartPolicy::Exponential { first: text(0), max: text(9), reset_after: text(1) }, "first is"),
            (RestartPolicy::Exponential { first: text(10), max: text(9), reset_after: text(1) }, "first is"),
            (
                RestartPolicy::FailureRate { failures: 100, interval: text(1), delay: text(1) },
                "failures is 100: at most 99",
            ),
        ] {
            let refused = check(&policy).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    proptest! {
        /// A user's failure ends every job, whose else it was makes no difference, and no pause is longer than the policy's longest.
        #[test]
        fn causes_and_pauses_hold_for_every_policy(
            policy in policies(), in_row in 0u32..30, gaps in prop::collection::vec(0i64..4_000, 0..30),
        ) {
            check(&policy).unwrap();
            let mut now = 0;
            let recent: Vec<Timestamp> = gaps.iter().map(|gap| { now += gap; at(now) }).collect();
            let past = Failures { in_row, recent: &recent };
            let found = |cause| decide(&policy, 10, cause, past, at(now + 1));
            prop_assert!(matches!(found(Cause::User), Verdict::GiveUp(_)));
            prop_assert_eq!(found(Cause::System), found(Cause::WorkerLost));
            if let Verdict::Again(pause) = found(Cause::System) {
                let (least, most) = match policy {
                    RestartPolicy::Service => (SERVICE_FIRST, SERVICE_MAX),
                    RestartPolicy::None => (Duration::MAX, Duration::ZERO),
                    RestartPolicy::Fixed { delay, .. } | RestartPolicy::FailureRate { delay, .. } => (delay.0, delay.0),
                    RestartPolicy::Exponential { first, max, .. } => (first.0, max.0),
                };
                prop_assert!(least <= pause && pause <= most);
            }
        }

        /// A job that fails at once whenever it begins is given up by every policy that counts, after as many restarts as it allows.
        #[test]
        fn a_loop_of_failures_ends(attempts in 0u32..50, which in 0u8..3) {
            let policy = match which {
                0 => RestartPolicy::Fixed { attempts, delay: text(10) },
                1 => RestartPolicy::Service,
                _ => RestartPolicy::FailureRate { failures: attempts, interval: text(3_600_000), delay: text(10) },
            };
            let (mut now, mut recent, mut in_row) = (at(0), Vec::new(), 0u32);
            let next = |in_row, recent: &[Timestamp], now| {
                decide(&policy, attempts, Cause::System, Failures { in_row, recent }, now)
            };
            while let Verdict::Again(pause) = next(in_row, &recent, now) {
                recent.push(now);
                now = now + pause;
                in_row += 1;
                prop_assert!(in_row <= attempts);
            }
            prop_assert_eq!(in_row, attempts);
        }

        /// More failures never make a policy more patient.
        #[test]
        fn giving_up_is_for_good(
            policy in policies(), in_row in 0u32..30, gaps in prop::collection::vec(0i64..4_000, 1..30),
        ) {
            let mut now = 0;
            let recent: Vec<Timestamp> = gaps.iter().map(|gap| { now += gap; at(now) }).collect();
            let fewer = Failures { in_row, recent: &recent[1..] };
            let more = Failures { in_row: in_row + 1, recent: &recent };
            if matches!(decide(&policy, 10, Cause::System, fewer, at(now)), Verdict::GiveUp(_)) {
                prop_assert!(matches!(decide(&policy, 10, Cause::System, more, at(now)), Verdict::GiveUp(_)));
            }
        }
    }
}
