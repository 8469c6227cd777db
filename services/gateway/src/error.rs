//! What goes wrong, as HTTP says it; the only place where a `Problem` becomes a status.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use engine::EngineError;
use query::Diagnostic;
use serde_json::{Map, Value, json};
use wire::{Code, Problem};

/// An answer that is not a success.
///
/// Shape: `{"error": {"code", "kind", "message", …}}`, where `code` is the status' name in camel case.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    problem: Problem,
    more: Map<String, Value>,
}

impl HttpError {
    /// No token, or one that is not known.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..Problem::new(Code::Forbidden, "Unauthorized", message).into() }
    }

    /// A body above its bound.
    pub(crate) fn too_large(message: impl fmt::Display) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Problem::bad_request("BodyTooLarge", message).into() }
    }

    /// A body in an encoding that is not understood.
    pub(crate) fn unsupported(message: impl fmt::Display) -> Self {
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..Problem::bad_request("Unsupported", message).into() }
    }

    /// A text that cannot be read or run, with its place.
    pub(crate) fn query(kind: &str, found: &Diagnostic, text: &str) -> Self {
        Self::from(Problem::bad_request(kind, &found.message))
            .with("line", found.line)
            .with("column", found.column)
            .with("help", found.help.clone())
            .with("rendered", found.render(text))
    }

    /// A query that did not come to its end.
    pub(crate) fn engine(error: EngineError, text: &str) -> Self {
        match error {
            EngineError::Query(found) => Self::query("InvalidQuery", &found, text),
            EngineError::Timeout(_) => Problem::new(Code::Deadline, "QueryTimeout", error).into(),
            EngineError::Memory(_) => Problem::bad_request("QueryTooLarge", error).into(),
            EngineError::Source(problem) => problem.into(),
            EngineError::Internal(ref source) => {
                tracing::error!(%source, "query failed by a defect");
                Problem::internal(format_args!("{error}: {source}")).into()
            }
        }
    }

    /// What is wrong.
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// One of the members besides the problem.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        self.more.get(name)
    }

    /// The same answer with one more member; null members are left out.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.more.insert(name.to_owned(), value);
        }
        self
    }
}

impl From<Problem> for HttpError {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, problem, more: Map::new() }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.problem)
    }
}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let code = match self.status {
            StatusCode::UNAUTHORIZED => "Unauthorized".to_owned(),
            StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLarge".to_owned(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType".to_owned(),
            _ => format!("{:?}", self.problem.code),
        };
        let mut error = json!({ "code": code, "kind": self.problem.kind, "message": self.problem.message });
        if let Value::Object(members) = &mut error {
            members.extend(self.more.clone());
            if self.problem.outcome == wire::Outcome::Unknown {
                members.insert("outcome".to_owned(), "unknown".into());
            }
        }
        let mut answer = HttpResponse::build(self.status);
        if let Some(ms) = self.problem.retry_after_ms {
            answer.insert_header(("retry-after", ms.div_ceil(1_000).max(1).to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer.insert_header(("www-authenticate", "Bearer realm=\"logboom\""));
        }
        answer.json(json!({ "error": error }))
    }
}

/// What actix itself refuses (a malformed path, query string or JSON body), in the same shape.
pub(crate) fn malformed(error: impl fmt::Display) -> actix_web::Error {
    HttpError::from(Problem::bad_request("MalformedRequest", error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        for (code, status) in [
            (Code::BadRequest, 400),
            (Code::Forbidden, 403),
            (Code::NotFound, 404),
            (Code::Conflict, 409),
            (Code::Fenced, 412),
            (Code::Throttled, 429),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
            (Code::Deadline, 504),
        ] {
            assert_eq!(HttpError::from(Problem::new(code, "X", "x")).status_code().as_u16(), status);
        }
        assert_eq!(HttpError::unauthorized("x").error_response().status(), 401);
        assert_eq!(HttpError::too_large("x").error_response().status(), 413);
        let busy = HttpError::from(Problem::throttled("Busy", "x")).error_response();
        assert_eq!(busy.headers().get("retry-after").unwrap(), "1");
    }
}
