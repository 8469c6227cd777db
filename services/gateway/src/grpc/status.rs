//! What goes wrong, as gRPC says it.

use std::time::Duration;

use actix_web::ResponseError;
use tonic::{Code, Status};

use crate::{
    doors::{http::status as agents_status, protobuf::rpc_status},
    error::HttpError,
};

/// How much is told of what is wrong: all headers together have a bound, at the other end too.
const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// When to come again where nothing else is known, as over HTTP.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// To exporters of logs, which repeat what is unavailable and drop what is refused with anything else; and what is exhausted only
/// beside a hint, which not all of them read.
pub(crate) fn for_agents(error: &HttpError) -> Status {
    let code = match agents_status(error).as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::FailedPrecondition,
        415 => Code::Unimplemented,
        429 | 503 => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    said(code, error, error.problem().to_string())
}

/// To those who ask; with the place in their text, where there is one.
pub(crate) fn for_queries(error: &HttpError) -> Status {
    let code = match error.status_code().as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::FailedPrecondition,
        412 => Code::Aborted,
        413 | 429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        500 => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut message = error.problem().to_string();
    if let Some(rendered) = error.member("rendered").and_then(serde_json::Value::as_str) {
        message = format!("{}: {}", error.problem().kind, rendered.trim_end());
    }
    said(code, error, message)
}

fn said(code: Code, error: &HttpError, mut message: String) -> Status {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    let retry = matches!(code, Code::Unavailable | Code::ResourceExhausted)
        .then(|| error.problem().retry_after_ms.map_or(RETRY_DEFAULT, Duration::from_millis));
    match retry {
        // The message once: the bound of all headers is that of both together.
        Some(retry) => Status::with_details(code, message, rpc_status(code as i32, "", Some(retry)).into()),
        None => Status::new(code, message),
    }
}

#[cfg(test)]
mod tests {
    use query::Diagnostic;
    use wire::Problem;

    use super::*;

    #[test]
    fn exporters_repeat_what_may_pass() {
        for (error, code) in [
            (Problem::throttled("Busy", "x").into(), Code::Unavailable),
            (Problem::internal("x").into(), Code::Unavailable),
            (Problem::bad_request("Wrong", "x").into(), Code::InvalidArgument),
            (HttpError::too_large("x"), Code::InvalidArgument),
            (HttpError::unsupported("x"), Code::Unimplemented),
            (HttpError::unauthorized("x"), Code::Unauthenticated),
        ] {
            let status = for_agents(&error);
            assert_eq!(status.code(), code, "{error}");
            assert_eq!(status.details().is_empty(), code != Code::Unavailable, "{error}");
        }
    }

    #[test]
    fn queries_are_told_where() {
        let found = Diagnostic::new(1, 8, "there is no column naem").help("did you mean name?");
        let status = for_queries(&HttpError::query("InvalidQuery", &found, "SELECT naem FROM shop"));
        assert_eq!(status.code(), Code::InvalidArgument);
        for words in ["InvalidQuery", "SELECT naem FROM shop", "^", "did you mean name?"] {
            assert!(status.message().contains(words), "{status:?}");
        }
        let throttled = for_queries(&Problem::throttled("TooManyQueries", "x").into());
        assert!(throttled.code() == Code::ResourceExhausted && !throttled.details().is_empty());
    }

    #[test]
    fn messages_have_a_bound() {
        let long = for_queries(&Problem::bad_request("Wrong", "\u{e4}".repeat(5_000)).into());
        assert!(long.message().len() <= MESSAGE_BYTES_MAX && long.message().ends_with('\u{e4}'));
    }
}
