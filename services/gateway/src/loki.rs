//! Loki's reading side, so that Grafana and logcli ask here unmodified; lines come in by `doors/loki.rs`.
//!
//! A query of LogQL becomes one of ours and runs like every other ([`ask`]); the answers have the shapes and the words of
//! Loki ([`answer`]). What a label is, [`labels`] says.

mod answer;
mod ask;
mod fields;
pub(crate) mod labels;
mod parameters;
mod patterns;
mod queries;
mod series;
mod tail;

use actix_web::{
    HttpResponse, Route,
    http::{
        Method, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    web::{self, ServiceConfig},
};
use serde_json::{Value, json};

use crate::error::HttpError;

/// The version that is claimed: Grafana switches features on by it.
const VERSION: &str = "3.6.0";

/// The routes of queries.
pub(crate) fn routes(config: &mut ServiceConfig) {
    let mut both = |path: &str, route: fn() -> Route| {
        let path = format!("/loki/api/v1/{path}");
        config.route(&path, route().method(Method::GET));
        config.route(&path, route().method(Method::POST));
    };
    both("query_range", || web::route().to(queries::range));
    both("query", || web::route().to(queries::instant));
    both("labels", || web::route().to(series::names));
    both("label", || web::route().to(series::names));
    both("label/{name}/values", || web::route().to(series::values));
    both("series", || web::route().to(series::series));
    both("index/stats", || web::route().to(series::stats));
    both("index/volume", || web::route().to(series::volume));
    both("index/volume_range", || web::route().to(series::volume_range));
    both("detected_labels", || web::route().to(series::detected_labels));
    both("detected_fields", || web::route().to(fields::fields));
    both("detected_field/{name}/values", || web::route().to(fields::values));
    both("patterns", || web::route().to(fields::patterns));
    both("tail", || web::route().to(tail::tail));
    both("status/buildinfo", || web::route().to(build_info));
}

/// `GET /loki/api/v1/status/buildinfo`
async fn build_info() -> HttpResponse {
    let revision = concat!("logboom-", env!("CARGO_PKG_VERSION"));
    HttpResponse::Ok().json(json!({
        "version": VERSION, "revision": revision, "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

/// An answer, or a refusal in plain words as Loki's are.
fn said(found: Result<Value, HttpError>) -> HttpResponse {
    match found {
        Ok(value) => HttpResponse::Ok().json(value),
        Err(error) => refused(&error),
    }
}

fn refused(error: &HttpError) -> HttpResponse {
    let status = actix_web::ResponseError::status_code(error);
    let mut answer = HttpResponse::build(status);
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            answer.insert_header((RETRY_AFTER, "1"));
        }
        StatusCode::UNAUTHORIZED => {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"logboom\""));
        }
        _ => {}
    }
    answer.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(words(error))
}

/// What is wrong, with its place where it is a query.
fn words(error: &HttpError) -> String {
    let message = &error.problem().message;
    let (line, column, help) = (error.member("line"), error.member("column"), error.member("help"));
    let help = help.and_then(Value::as_str).map_or_else(String::new, |help| format!("; {help}"));
    match (line, column) {
        (Some(line), Some(column)) => format!("parse error at line {line}, col {column}: {message}{help}\n"),
        _ => format!("{message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use query::Diagnostic;

    use super::*;

    #[test]
    fn refusals_are_plain_words_with_a_place() {
        let found = Diagnostic::new(1, 5, "expected a text").help("quote it");
        let error = HttpError::query("InvalidQuery", &found, "{a=b}");
        assert_eq!(words(&error), "parse error at line 1, col 5: expected a text; quote it\n");
        let answer = refused(&wire::Problem::throttled("TooManyQueries", "too many").into());
        assert_eq!((answer.status().as_u16(), answer.headers().get("retry-after").is_some()), (429, true));
    }
}
