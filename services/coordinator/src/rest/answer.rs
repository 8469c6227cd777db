//! What goes wrong, as the REST interface says it.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde_json::json;
use wire::{Code, Outcome, Problem};

/// An answer that is not a success.
///
/// Shape: `{"kind", "code", "message", "lb_code"}`; `lb_code` only where the kind has a page, `outcome` only where it is not known.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    /// No credentials, or wrong ones.
    pub(crate) fn unauthorized(message: impl fmt::Display) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, problem: Problem::new(Code::Forbidden, "Unauthorized", message) }
    }

    /// What has to be done first was not: Pravega's 412.
    pub(crate) fn precondition(kind: &str, message: impl fmt::Display) -> Self {
        Self { status: StatusCode::PRECONDITION_FAILED, problem: Problem::conflict(kind, message) }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let status = match problem.kind.as_str() {
            "ScopeNotEmpty" => StatusCode::PRECONDITION_FAILED,
            _ => StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        Self { status, problem }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.problem)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let problem = &self.problem;
        let code = match self.status {
            StatusCode::UNAUTHORIZED => "Unauthorized".to_owned(),
            _ => format!("{:?}", problem.code),
        };
        let mut body = json!({ "kind": problem.kind, "code": code, "message": problem.message });
        if let Some(lb_code) = problem.lb_code() {
            body["lb_code"] = lb_code.into();
        }
        if problem.outcome == Outcome::Unknown {
            body["outcome"] = "unknown".into();
        }
        let mut answer = HttpResponse::build(self.status);
        if let Some(ms) = problem.retry_after_ms {
            answer.insert_header(("retry-after", ms.div_ceil(1_000).max(1).to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer.insert_header(("www-authenticate", "Basic realm=\"logboom\", charset=\"UTF-8\""));
        }
        answer.json(body)
    }
}

/// What actix itself refuses (a malformed query string or JSON body), in the same shape.
pub(crate) fn malformed(error: impl fmt::Display) -> actix_web::Error {
    Refusal::from(Problem::bad_request("MalformedRequest", error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_interface() {
        for (refusal, status) in [
            (Refusal::unauthorized("x"), 401),
            (Problem::new(Code::Forbidden, "RoleTooWeak", "x").into(), 403),
            (Problem::not_found("UnknownIndex", "x").into(), 404),
            (Problem::conflict("StreamDiffers", "x").into(), 409),
            (Problem::conflict("ScopeNotEmpty", "x").into(), 412),
            (Refusal::precondition("NotSealed", "x"), 412),
            (Problem::throttled("Throttled", "x").into(), 429),
            (Problem::unavailable("NotLeader", "x").into(), 503),
        ] {
            assert_eq!(refusal.error_response().status().as_u16(), status, "{refusal}");
        }
    }
}
