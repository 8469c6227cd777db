//! Calls: a request, its deadline, its repeats and its one answer.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use tokio::time::{Instant, sleep};
use types::{Clock, Timestamp};
use wire::{Call, Code, Outcome, Problem, Retry, header, subject_of};

use crate::{
    Bus, SystemClock,
    connect::AskError,
    headers, origin,
    origin::{fresh_id, leader},
};

/// How long a call may take in all, repeats included, unless the caller says otherwise.
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before the first repeat; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// The part of a repeatable call's time that the first attempt leaves for another one.
const RESERVE_MAX: Duration = Duration::from_millis(750);

impl Bus {
    /// Calls and waits for the reply, at most [`CALL_DEADLINE`] in all.
    ///
    /// Repeats by itself only as the call's `RETRY` allows, with the same request id.
    /// Errors: no responders and a connection that is down -> `Unavailable`, not applied; time-out -> `Deadline`,
    /// unknown.
    pub async fn call<C: Call>(&self, key: &C::Key, request: &C::Request) -> Result<C::Reply, Problem> {
        self.call_within::<C>(key, request, CALL_DEADLINE).await
    }

    /// Calls and waits for the reply, at most as long as given in all; never longer than the origin's deadline.
    pub async fn call_within<C: Call>(
        &self,
        key: &C::Key,
        request: &C::Request,
        within: Duration,
    ) -> Result<C::Reply, Problem> {
        match self.delegate() {
            None => self.exchange::<C>(&subject_of::<C>(key), None, request, within).await,
            // Boxed: it would make every call of the platform's own as large.
            Some(delegate) => Box::pin(self.call_outside::<C>(delegate, key, request, within)).await,
        }
    }

    /// One call under one subject, with the delegation that its caller shows.
    pub(crate) async fn exchange<C: Call>(
        &self,
        subject: &str,
        delegation: Option<&str>,
        request: &C::Request,
        within: Duration,
    ) -> Result<C::Reply, Problem> {
        let body = bytes::Bytes::from(wire::encode(request));
        let mut plan = Plan::new(C::RETRY, within);
        let request_id = origin().map_or_else(fresh_id, |o| o.request_id);
        loop {
            let until = plan.attempt_until();
            let mut headers = self.call_headers(C::NAME, &request_id, until);
            if let Some(token) = delegation {
                headers::set(&mut headers, header::DELEGATION, token);
            }
            let answer = self.ask(subject, Some(headers), body.clone(), until).await;
            let problem = match answer {
                Ok(message) => match decode_answer::<C>(&message) {
                    Ok(reply) => return Ok(reply),
                    Err(problem) => problem,
                },
                Err(error) => problem_of(error, subject),
            };
            match plan.pause_after(&problem) {
                Some(pause) => sleep(pause).await,
                None => return Err(plan.conclude(problem)),
            }
        }
    }

    fn call_headers(&self, name: &str, request_id: &str, until: Instant) -> HeaderMap {
        let within = until.saturating_duration_since(Instant::now());
        let deadline = SystemClock.now() + within;
        let mut map = HeaderMap::new();
        // The clock of a program outside is its own affair.
        if self.delegate().is_some() {
            headers::set(&mut map, header::WITHIN, &within.as_millis().to_string());
        }
        headers::set(&mut map, header::DEADLINE, &deadline.nanos().to_string());
        headers::set(&mut map, header::CALLER, self.name());
        headers::set(&mut map, header::SCHEMA, &format!("{name}/1"));
        headers::set(&mut map, header::REQUEST_ID, request_id);
        if let Some(leader) = leader() {
            headers::set(&mut map, header::LEADER, &leader.to_string());
        }
        if let Some(traceparent) = origin().and_then(|o| o.traceparent) {
            headers::set(&mut map, header::TRACEPARENT, &traceparent);
        }
        map
    }
}

/// When to try and when to stop.
struct Plan {
    retry: Retry,
    end: Instant,
    reserve: Duration,
    pause: Duration,
    /// An earlier attempt may have had its effect, whatever a later one says.
    unknown: bool,
}

impl Plan {
    fn new(retry: Retry, within: Duration) -> Self {
        let within = origin().map_or(within, |o| within.min(remaining(o.deadline)));
        let reserve = if retry == Retry::Never { Duration::ZERO } else { (within / 8).min(RESERVE_MAX) };
        Self { retry, end: Instant::now() + within, reserve, pause: PAUSE_MIN, unknown: false }
    }

    /// The first attempts leave a reserve, so that an answer that never comes can be asked for once more.
    fn attempt_until(&self) -> Instant {
        let early = self.end - self.reserve;
        if Instant::now() < early { early } else { self.end }
    }

    fn pause_after(&mut self, problem: &Problem) -> Option<Duration> {
        self.unknown |= problem.outcome == Outcome::Unknown;
        let repeatable = self.retry != Retry::Never && matches!(problem.code, Code::Unavailable | Code::Deadline);
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        (repeatable && Instant::now() + pause < self.end).then_some(pause)
    }

    fn conclude(&self, problem: Problem) -> Problem {
        if self.unknown { problem.unknown() } else { problem }
    }
}

/// How much time is left until an instant.
pub(crate) fn remaining(deadline: Timestamp) -> Duration {
    deadline.since(SystemClock.now())
}

fn decode_answer<C: Call>(message: &Message) -> Result<C::Reply, Problem> {
    let Some(status) = headers::get(message.headers.as_ref(), header::SERVICE_ERROR_CODE) else {
        return wire::decode(&message.payload)
            .map_err(|p| Problem::internal(format_args!("the reply of {} cannot be read: {}", C::NAME, p.message)));
    };
    Err(wire::decode::<Problem>(&message.payload).unwrap_or_else(|_| foreign_problem(status, message)))
}

/// An ADR-32 error of something that does not speak our bodies.
fn foreign_problem(status: &str, message: &Message) -> Problem {
    const CODES: [Code; 9] = [
        Code::BadRequest,
        Code::Forbidden,
        Code::NotFound,
        Code::Conflict,
        Code::Fenced,
        Code::Throttled,
        Code::Internal,
        Code::Unavailable,
        Code::Deadline,
    ];
    let code = CODES.into_iter().find(|c| c.status().to_string() == status).unwrap_or(Code::Internal);
    let text = headers::get(message.headers.as_ref(), header::SERVICE_ERROR).unwrap_or("no text was given");
    let problem = Problem::new(code, "ServiceError", text);
    if code.status() >= 500 { problem.unknown() } else { problem }
}

fn problem_of(error: AskError, subject: &str) -> Problem {
    match error {
        AskError::NotSent(reason) => Problem::unavailable("Disconnected", format_args!("{subject}: {reason}")),
        AskError::NoResponders => Problem::unavailable("NoResponders", format_args!("nobody serves {subject}")),
        AskError::TimedOut => {
            Problem::new(Code::Deadline, "Deadline", format_args!("{subject}: no reply in time")).unknown()
        }
        AskError::Lost => Problem::unavailable("Disconnected", format_args!("{subject}: {}", AskError::Lost)).unknown(),
        AskError::Refused(reason) => Problem::bad_request("NotSendable", format_args!("{subject}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_the_call_allows_is_repeated() {
        let lost = Problem::new(Code::Deadline, "Deadline", "x").unknown();
        let gone = Problem::unavailable("NoResponders", "x");
        let wrong = Problem::bad_request("Wrong", "x");
        for (retry, problem, repeats) in [
            (Retry::Idempotent, &gone, true),
            (Retry::Deduplicated, &lost, true),
            (Retry::Idempotent, &wrong, false),
            (Retry::Never, &gone, false),
            (Retry::Never, &lost, false),
        ] {
            let mut plan = Plan::new(retry, CALL_DEADLINE);
            assert_eq!(plan.pause_after(problem).is_some(), repeats, "{retry:?} {}", problem.kind);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_attempt_stays_unknown() {
        let mut plan = Plan::new(Retry::Idempotent, CALL_DEADLINE);
        plan.pause_after(&Problem::new(Code::Deadline, "Deadline", "x").unknown());
        let last = plan.conclude(Problem::unavailable("NoResponders", "x"));
        assert_eq!((last.code, last.outcome), (Code::Unavailable, Outcome::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_end_with_the_deadline() {
        let mut plan = Plan::new(Retry::Idempotent, Duration::from_millis(500));
        let mut count = 0;
        while let Some(pause) = plan.pause_after(&Problem::unavailable("NoResponders", "x")) {
            sleep(pause).await;
            count += 1;
            assert!(count < 50);
        }
        assert!(count >= 3 && Instant::now() <= plan.end);
    }
}
