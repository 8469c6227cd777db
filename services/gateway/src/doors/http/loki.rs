//! Loki's push, and its readiness.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, Data, Payload, ServiceConfig},
};

use super::{Sender, Translated, answer, deliver, status};
use crate::{
    api::Door,
    body::Encoding,
    doors::{
        event::Batch,
        loki::{Form, events},
    },
    error::HttpError,
};

/// Loki's tenant, which is an index here; looked at where the token does not say it.
const TENANT: &str = "x-scope-orgid";

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/loki/api/v1/push", web::post().to(push))
        .route("/api/prom/push", web::post().to(push))
        .route("/ready", web::get().to(ready));
}

/// `GET /ready`: agents ask before they send.
async fn ready(door: Data<Door>) -> HttpResponse {
    if door.platform.is_connected() && !door.stop.is_cancelled() {
        answer(StatusCode::OK).body("ready\n")
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE).body("not ready\n")
    }
}

/// `POST /loki/api/v1/push`: 204 when all lines are durable. There is no partial success: where a line is refused the others are
/// stored and the answer is 400, as in Loki.
async fn push(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    match pushed(&request, &door, payload).await {
        Ok(batch) => match batch.refused.first() {
            None => answer(StatusCode::NO_CONTENT).finish(),
            Some(refused) => {
                let (count, why) = (batch.refused_count, &refused.why);
                answer(StatusCode::BAD_REQUEST)
                    .body(format!("{count} lines were refused, the others are stored: {why}\n"))
            }
        },
        Err(error) => answer(status(&error)).body(format!("{}\n", error.problem())),
    }
}

async fn pushed(request: &HttpRequest, door: &Door, payload: Payload) -> Result<Batch, HttpError> {
    let tenant = request.headers().get(TENANT).and_then(|value| value.to_str().ok());
    let sender = Sender::new(door.auth.of(request).await?, tenant)?;
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    // A protocol buffer is always one block of snappy, whether the headers say so or not.
    let (form, encoding) =
        if is_json { (Form::Json, Encoding::of(request)?) } else { (Form::Protobuf, Encoding::Snappy) };
    let translate =
        move |body: bytes::Bytes, bounds| Ok(Translated { batch: events(&body, form, bounds)?, index: None, more: () });
    deliver(door, sender, (payload, encoding), translate).await.map(|delivered| delivered.batch)
}
