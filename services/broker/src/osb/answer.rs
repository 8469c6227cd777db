//! Answers: always a JSON object, errors in the specification's words.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{Code, Problem};

use crate::error::CONCURRENCY;

/// Clients compare these texts letter by letter.
const CONCURRENCY_TEXT: &str = "The Service Broker does not support concurrent requests that mutate the same resource.";
const ASYNC_REQUIRED_TEXT: &str = "This service plan requires client support for asynchronous service operations.";
const REQUIRES_APP_TEXT: &str = "This service supports generation of credentials through binding an application only.";

/// The longest description; the specification recommends 255 characters.
const DESCRIPTION_CHARS_MAX: usize = 255;

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// A JSON object; a body of nothing breaks clients.
    pub(crate) body: String,
}

impl Answer {
    /// An answer with a JSON object.
    pub(crate) fn of(status: u16, body: &Value) -> Self {
        debug_assert!(body.is_object(), "every body is an object");
        Self { status, headers: Vec::new(), body: body.to_string() }
    }

    /// 200 and nothing to say.
    pub(crate) fn done() -> Self {
        Self::of(200, &json!({}))
    }

    /// The same answer with one more header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// An error of a name and a description.
    pub(crate) fn refuse(status: u16, error: &str, description: impl AsRef<str>) -> Self {
        let description: String = description.as_ref().chars().take(DESCRIPTION_CHARS_MAX).collect();
        Self::of(status, &json!({ "error": error, "description": description }))
    }

    pub(crate) fn bad_request(description: impl AsRef<str>) -> Self {
        Self::refuse(400, "BadRequest", description)
    }

    pub(crate) fn not_found(description: impl AsRef<str>) -> Self {
        Self::refuse(404, "NotFound", description)
    }

    pub(crate) fn gone(description: impl AsRef<str>) -> Self {
        Self::refuse(410, "Gone", description)
    }

    pub(crate) fn concurrency() -> Self {
        Self::refuse(422, "ConcurrencyError", CONCURRENCY_TEXT)
    }

    pub(crate) fn async_required() -> Self {
        Self::refuse(422, "AsyncRequired", ASYNC_REQUIRED_TEXT)
    }

    pub(crate) fn requires_app() -> Self {
        Self::refuse(422, "RequiresApp", REQUIRES_APP_TEXT)
    }

    pub(crate) fn maintenance_conflict(description: impl AsRef<str>) -> Self {
        Self::refuse(422, "MaintenanceInfoConflict", description)
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let retry = problem.retry_after_ms.map_or(1, |ms| ms.div_ceil(1000).max(1)).to_string();
        match problem.code {
            _ if problem.kind == CONCURRENCY => Self::concurrency(),
            Code::BadRequest | Code::NotFound | Code::Conflict => {
                Self::refuse(problem.code.status(), &problem.kind, &problem.message)
            }
            Code::Forbidden => Self::refuse(400, &problem.kind, &problem.message),
            Code::Throttled => Self::refuse(429, &problem.kind, &problem.message).header("Retry-After", retry),
            Code::Fenced | Code::Unavailable => Self::refuse(
                503,
                "Unavailable",
                "the broker is changing its leader or a part of the platform does not answer; try again",
            )
            .header("Retry-After", retry),
            // No internals in a description: the log has them.
            Code::Deadline => {
                Self::refuse(504, "Deadline", "the operation takes longer than a request may; it goes on")
            }
            Code::Internal => Self::refuse(500, "Internal", "the broker failed; its log says why"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_become_answers_without_internals() {
        for (problem, status, word) in [
            (Problem::conflict("InstanceDiffers", "other plan"), 409, "other plan"),
            (Problem::conflict(CONCURRENCY, "x"), 422, CONCURRENCY_TEXT),
            (Problem::bad_request("PlanMismatch", "no"), 400, "PlanMismatch"),
            (Problem::throttled("TooManyKeys", "full"), 429, "full"),
            (Problem::unavailable("NotLeader", "10.0.0.1"), 503, "try again"),
            (Problem::new(Code::Deadline, "Deadline", "10.0.0.1"), 504, "goes on"),
            (Problem::internal("stack 0x7f"), 500, "log says why"),
        ] {
            let answer = Answer::from(problem);
            assert_eq!(answer.status, status);
            assert!(answer.body.contains(word), "{}", answer.body);
            assert!(!answer.body.contains("10.0.0.1") && !answer.body.contains("0x7f"), "{}", answer.body);
        }
    }

    #[test]
    fn the_reserved_errors_have_the_exact_texts() {
        for (answer, error, text) in [
            (Answer::async_required(), "AsyncRequired", ASYNC_REQUIRED_TEXT),
            (Answer::requires_app(), "RequiresApp", REQUIRES_APP_TEXT),
            (Answer::concurrency(), "ConcurrencyError", CONCURRENCY_TEXT),
        ] {
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, &body["error"], &body["description"]), (422, &json!(error), &json!(text)));
        }
    }
}
