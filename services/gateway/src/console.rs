//! The console page: files compiled into the program.

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    web::Path,
};
use rust_embed::RustEmbed;
use wire::Problem;

use crate::error::HttpError;

/// Everything comes from here and nothing may be run or loaded from elsewhere, whatever a log line holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/console/dist/"]
struct Files;

/// `GET /`.
pub(crate) async fn page() -> Result<HttpResponse, HttpError> {
    file("index.html")
}

/// `GET /console/{file}`.
pub(crate) async fn asset(name: Path<String>) -> Result<HttpResponse, HttpError> {
    file(&name)
}

fn file(name: &str) -> Result<HttpResponse, HttpError> {
    let found = Files::get(name);
    let file =
        found.ok_or_else(|| Problem::not_found("UnknownPath", format_args!("the console has no file {name}")))?;
    let kind = match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-cache")))
        .insert_header(("content-security-policy", POLICY))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("x-frame-options", "DENY"))
        .body(file.data.into_owned()))
}
