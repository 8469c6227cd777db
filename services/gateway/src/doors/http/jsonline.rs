//! VictoriaLogs' door for lines of JSON.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, Data, Payload, Query, ServiceConfig},
};
use serde::Deserialize;

use super::{Sender, Translated, answer, deliver, status};
use crate::{
    api::Door,
    body::Encoding,
    doors::{
        event::Batch,
        jsonline::{Fields, events},
    },
    error::HttpError,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/insert/jsonline", web::post().to(jsonline));
}

/// The query string; what else it holds is ignored, as VictoriaLogs does.
#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(rename = "_msg_field")]
    message: Option<String>,
    #[serde(rename = "_time_field")]
    time: Option<String>,
    #[serde(rename = "_stream_fields")]
    stream: Option<String>,
    #[serde(rename = "ignore_fields")]
    ignored: Option<String>,
}

/// `POST /insert/jsonline`: 200 when all lines are durable. Where a line is refused the others are stored and the answer is 400.
async fn jsonline(request: HttpRequest, door: Data<Door>, options: Query<Options>, payload: Payload) -> HttpResponse {
    match stored(&request, &door, &options, payload).await {
        Ok(batch) => match batch.refused.first() {
            None => answer(StatusCode::OK).finish(),
            Some(refused) => {
                let (count, number, why) = (batch.refused_count, refused.number, &refused.why);
                answer(StatusCode::BAD_REQUEST)
                    .body(format!("{count} lines were refused, the others are stored; line {number}, from 0: {why}\n"))
            }
        },
        Err(error) => answer(status(&error)).body(format!("{}\n", error.problem())),
    }
}

async fn stored(request: &HttpRequest, door: &Door, options: &Options, payload: Payload) -> Result<Batch, HttpError> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let sender = Sender::new(door.auth.of(request).await?, header("x-scope-orgid"))?;
    let said = |parameter: &'_ Option<String>, name: &str, otherwise: &str| {
        parameter.as_deref().or_else(|| header(name)).unwrap_or(otherwise).to_owned()
    };
    let fields = Fields::new(
        &said(&options.message, "vl-msg-field", "_msg"),
        &said(&options.time, "vl-time-field", "_time"),
        &said(&options.stream, "vl-stream-fields", ""),
        &said(&options.ignored, "vl-ignore-fields", ""),
    );
    let encoding = Encoding::of(request)?;
    let translate = move |body: bytes::Bytes, bounds| {
        Ok(Translated { batch: events(&body, &fields, bounds)?, index: None, more: () })
    };
    Ok(deliver(door, sender, (payload, encoding), translate).await?.batch)
}
