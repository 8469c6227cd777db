//! How long something is tried again, and what is known at the end.

use std::time::Duration;

use tokio::time::Instant;
use wire::{Code, Outcome, Problem};

/// The pause before the first repeat; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest pause while a container has no owner: it is about to have one, and asking nobody costs little.
const UNOWNED_PAUSE_MAX: Duration = Duration::from_millis(400);

/// The longest pause while a quota is used up: somebody may change the plan meanwhile.
const QUOTA_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Decides whether a failed attempt of something that may be repeated is worth another one.
///
/// ```
/// use std::time::Duration;
/// use client::Patience;
/// use wire::{Outcome, Problem};
///
/// let mut patience = Patience::new(Duration::from_secs(5));
/// let lost = Problem::unavailable("NoAnswer", "the owner is gone").unknown();
/// assert!(patience.pause_after(&lost).is_some());
///
/// // A later refusal does not say what became of the earlier attempt.
/// let refused = Problem::conflict("SegmentSealed", "sealed meanwhile");
/// assert!(patience.pause_after(&refused).is_none());
/// assert_eq!(patience.conclude(refused).outcome, Outcome::Unknown);
/// ```
#[derive(Debug)]
pub struct Patience {
    end: Instant,
    failures: u32,
    unknown: bool,
}

impl Patience {
    /// Begins now and ends after `within`.
    pub fn new(within: Duration) -> Self {
        Self { end: Instant::now() + within, failures: 0, unknown: false }
    }

    /// Ends at the latest after `within` from now.
    pub fn hurry(&mut self, within: Duration) {
        self.end = self.end.min(Instant::now() + within);
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// How long to wait before the next attempt; `None` when there is to be none.
    pub fn pause_after(&mut self, problem: &Problem) -> Option<Duration> {
        self.unknown |= problem.outcome == Outcome::Unknown;
        let pause = backoff(self.failures, problem, rand::random_range(0.0..1.0));
        self.failures += 1;
        (problem.is_transient() && !is_too_much(problem) && pause < self.left()).then_some(pause)
    }

    /// The last problem, with an unknown outcome if any attempt's was.
    pub fn conclude(self, last: Problem) -> Problem {
        if self.unknown { last.unknown() } else { last }
    }
}

/// The pause after so many failures before this one, spread by a roll of 0 to 1.
pub(crate) fn backoff(failures: u32, problem: &Problem, roll: f64) -> Duration {
    let advice = match problem.code {
        // Whoever throttles knows best; whoever was not reached knows nothing.
        Code::Throttled => Duration::from_millis(problem.retry_after_ms.unwrap_or(0)),
        _ => Duration::ZERO,
    };
    if is_over_quota(problem) {
        // Whoever comes earlier is refused again.
        return advice.clamp(PAUSE_MIN, QUOTA_PAUSE_MAX).mul_f64(1.0 + roll.clamp(0.0, 1.0) / 4.0);
    }
    let longest = match problem.kind.as_str() {
        "NoResponders" | "ContainerUnavailable" | "Fenced" => UNOWNED_PAUSE_MAX,
        _ => PAUSE_MAX,
    };
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.min(16));
    doubled.max(advice).min(longest).mul_f64(0.5 + roll.clamp(0.0, 1.0) / 2.0)
}

/// Whether the index has taken what its plan allows: the writer is to wait, however long that takes.
pub(crate) fn is_over_quota(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "QuotaBytes" | "QuotaRate") && !is_too_much(problem)
}

/// Whether it is more than the plan of the index lets pass on any day: no waiting helps, so no time of it is advised.
pub(crate) fn is_too_much(problem: &Problem) -> bool {
    problem.kind == "QuotaBytes" && problem.retry_after_ms.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_time() {
        let mut patience = Patience::new(Duration::from_secs(2));
        let begun = Instant::now();
        let mut repeats = 0;
        while let Some(pause) = patience.pause_after(&Problem::unavailable("Gone", "x")) {
            tokio::time::sleep(pause).await;
            repeats += 1;
        }
        assert!((4..60).contains(&repeats), "{repeats}");
        assert!(begun.elapsed() <= Duration::from_secs(2));
        assert_eq!(patience.conclude(Problem::unavailable("Gone", "x")).outcome, Outcome::NotApplied);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_hurried_and_not_slowed() {
        let mut patience = Patience::new(Duration::from_secs(20));
        patience.hurry(Duration::from_secs(3));
        patience.hurry(Duration::from_secs(9));
        assert_eq!(patience.left(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn advice_of_a_throttling_owner_is_taken() {
        let mut patience = Patience::new(Duration::from_secs(9));
        let throttled = Problem::throttled("Throttled", "x").retry_after_ms(600);
        let pause = patience.pause_after(&throttled).unwrap();
        assert!(pause >= Duration::from_millis(300), "{pause:?}");
    }

    #[test]
    fn a_quota_is_waited_for_as_long_as_it_says_and_looked_at_again_in_between() {
        let pause = |kind, ms, roll| backoff(9, &Problem::throttled(kind, "x").retry_after_ms(ms), roll).as_millis();
        for (ms, shortest, longest) in [(0, 20, 25), (400, 400, 500), (36_000_000, 10_000, 12_500)] {
            for kind in ["QuotaRate", "QuotaBytes"] {
                assert_eq!((pause(kind, ms, 0.0), pause(kind, ms, 1.0)), (shortest, longest));
            }
        }
    }

    #[test]
    fn whoever_has_no_owner_is_asked_more_often() {
        let pause = |problem: Problem| backoff(9, &problem, 1.0);
        assert_eq!(pause(Problem::unavailable("NoResponders", "x")), UNOWNED_PAUSE_MAX);
        assert_eq!(pause(Problem::unavailable("Disconnected", "x")), PAUSE_MAX);
    }

    #[test]
    fn what_is_not_transient_is_not_repeated() {
        let too_much = Problem { retry_after_ms: None, ..Problem::throttled("QuotaBytes", "x") };
        assert!(!is_over_quota(&too_much));
        for problem in [
            too_much,
            Problem::bad_request("Bad", "x"),
            Problem::not_found("UnknownSegment", "x"),
            Problem::internal("x"),
        ] {
            assert_eq!(Patience::new(Duration::from_secs(9)).pause_after(&problem), None, "{}", problem.kind);
        }
    }
}
