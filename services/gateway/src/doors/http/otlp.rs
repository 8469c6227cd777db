//! OpenTelemetry's logs over HTTP, and what both of its transports share.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::CONTENT_TYPE},
    web::{self, Data, Payload, ServiceConfig},
};
use bytes::Bytes;
use futures::Stream;

use super::{Sender, Translated, answer, deliver, status};
use crate::{
    api::Door,
    auth::Principal,
    body::Encoding,
    doors::otlp::{self, Form},
    error::HttpError,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/logs", web::post().to(logs)).route("/otlp/v1/logs", web::post().to(logs));
}

/// `POST /v1/logs`: 200 when all records that were not refused are durable. Nothing temporary is answered with 500, which exporters
/// drop.
async fn logs(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    let (form, kind) = match kind.split(';').next().map(|kind| kind.trim().to_ascii_lowercase()).as_deref() {
        Some("application/json") => (Form::Json, "application/json"),
        _ => (Form::Protobuf, "application/x-protobuf"),
    };
    let (status, body) = match stored(&request, &door, payload, form).await {
        Ok(response) => (StatusCode::OK, response),
        Err(error) => (status(&error), otlp::status(form, rpc_code(status(&error)), &error.problem().to_string())),
    };
    answer(status).insert_header((CONTENT_TYPE, kind)).body(body)
}

async fn stored(request: &HttpRequest, door: &Door, payload: Payload, form: Form) -> Result<Vec<u8>, HttpError> {
    let named = request.headers().get("x-scope-orgid").and_then(|value| value.to_str().ok());
    let principal = door.auth.of(request).await?;
    export(door, (principal, named), (payload, Encoding::of(request)?), form).await
}

/// Stores the records of a request; answers the body of its response when all that were not refused are durable.
pub(crate) async fn export<E: std::fmt::Display>(
    door: &Door,
    (principal, named): (Principal, Option<&str>),
    body: (impl Stream<Item = Result<Bytes, E>> + Unpin, Encoding),
    form: Form,
) -> Result<Vec<u8>, HttpError> {
    let sender = Sender::new(principal, named)?;
    let translate =
        move |body: Bytes, bounds| Ok(Translated { batch: otlp::events(&body, form, bounds)?, index: None, more: () });
    let delivered = deliver(door, sender, body, translate).await?;
    Ok(otlp::response(form, &delivered.batch))
}

/// The code of `google.rpc` that goes with a status.
fn rpc_code(status: StatusCode) -> i32 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 9,
        429 => 8,
        503 => 14,
        _ => 3,
    }
}
