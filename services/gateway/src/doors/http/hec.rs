//! Splunk's HTTP event collector.

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::StatusCode,
    web::{self, Data, Payload, Query, ServiceConfig},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Sender, Translated, answer, deliver, status};
use crate::{
    api::Door,
    auth::{self, Principal},
    body::{self, Encoding},
    doors::{
        event::{BodyError, Bounds},
        hec::{self, Code, Defaults, Taken},
    },
    error::HttpError,
};

/// The longest name of a channel.
const CHANNEL_BYTES_MAX: usize = 128;
/// The largest question about acknowledgements: some ten thousand numbers.
const ACKS_BYTES_MAX: usize = 256 << 10;

pub(super) fn routes(config: &mut ServiceConfig) {
    for path in ["", "/event", "/event/1.0"] {
        config.route(&format!("/services/collector{path}"), web::post().to(event));
    }
    for path in ["/raw", "/raw/1.0"] {
        config.route(&format!("/services/collector{path}"), web::post().to(raw));
    }
    for path in ["/health", "/health/1.0"] {
        config.route(&format!("/services/collector{path}"), web::get().to(health));
    }
    config.route("/services/collector/ack", web::post().to(ack));
}

/// The query string; what else it holds is ignored, as Splunk does.
#[derive(Debug, Clone, Default, Deserialize)]
struct Options {
    token: Option<String>,
    channel: Option<String>,
    host: Option<String>,
    source: Option<String>,
    sourcetype: Option<String>,
    index: Option<String>,
    time: Option<String>,
}

/// An answer by Splunk's numbers.
#[derive(Debug)]
struct Said {
    code: Code,
    /// Where the code's own would mislead.
    status: Option<StatusCode>,
    more: Map<String, Value>,
}

impl From<Code> for Said {
    fn from(code: Code) -> Self {
        Self { code, status: None, more: Map::new() }
    }
}

impl Said {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// What is wrong with a request that came with a token.
    fn of(error: &HttpError) -> Self {
        let (code, exact) = match status(error).as_u16() {
            401 | 403 => (Code::InvalidToken, None),
            404 | 409 => (Code::IncorrectIndex, None),
            413 => (Code::InvalidData, Some(StatusCode::PAYLOAD_TOO_LARGE)),
            // Splunk has no other word for too much, and some clients repeat nothing else.
            429 | 503 => (Code::Busy, None),
            _ => (Code::InvalidData, None),
        };
        Self { status: exact, ..code.into() }.with("detail", error.problem().to_string())
    }

    fn response(self) -> HttpResponse {
        let (code, status, text) = self.code.said();
        let status =
            self.status.or_else(|| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut body = json!({ "text": text, "code": code });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
        }
        answer(status).json(body)
    }
}

fn said(result: Result<Said, Said>) -> HttpResponse {
    result.unwrap_or_else(|refusal| refusal).response()
}

/// Who sends: by header, or by the query string.
async fn principal(request: &HttpRequest, door: &Door, options: &Options) -> Result<Principal, Said> {
    let token = match auth::token_of(request) {
        Some(token) => token,
        None if request.headers().contains_key("authorization") => return Err(Code::InvalidAuthorization.into()),
        None => options.token.clone().ok_or(Code::TokenRequired)?,
    };
    door.auth.check(&token).await.map_err(|error| Said::of(&error))
}

/// The channel whose events are to be acknowledged.
fn channel(request: &HttpRequest, options: &Options) -> Result<Option<String>, Said> {
    let header = request.headers().get("x-splunk-request-channel");
    let given = match header.map(|value| value.to_str()) {
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => return Err(Code::InvalidChannel.into()),
        None => options.channel.clone(),
    };
    let wrong = |name: &String| name.is_empty() || name.len() > CHANNEL_BYTES_MAX;
    if given.as_ref().is_some_and(wrong) { Err(Code::InvalidChannel.into()) } else { Ok(given) }
}

async fn event(request: HttpRequest, door: Data<Door>, options: Query<Options>, payload: Payload) -> HttpResponse {
    said(taken(&request, &door, options.into_inner(), payload, hec::events).await)
}

async fn raw(request: HttpRequest, door: Data<Door>, options: Query<Options>, payload: Payload) -> HttpResponse {
    said(taken(&request, &door, options.into_inner(), payload, hec::raw).await)
}

/// 200 when everything is durable, with an `ackId` where a channel is named.
async fn taken(
    request: &HttpRequest,
    door: &Door,
    options: Options,
    payload: Payload,
    read: fn(&[u8], &Defaults, Bounds) -> Result<Taken, BodyError>,
) -> Result<Said, Said> {
    let principal = principal(request, door, &options).await?;
    let channel = channel(request, &options)?;
    let sender = Sender::new(principal, options.index.as_deref()).map_err(|error| Said::of(&error))?;
    let encoding = Encoding::of(request).map_err(|fault| Said::of(&fault.into()))?;
    let Options { host, source, sourcetype, index, time, .. } = options;
    let defaults = Defaults { host, source, sourcetype, index, time };
    let translate = move |body: bytes::Bytes, bounds| {
        let Taken { batch, index, bad } = read(&body, &defaults, bounds)?;
        let is_empty = batch.events.is_empty() && bad.is_none();
        Ok(Translated { batch, index, more: (is_empty, bad) })
    };
    let delivered = deliver(door, sender, (payload, encoding), translate).await.map_err(|error| Said::of(&error))?;
    match delivered.more {
        (true, _) => Err(Code::NoData.into()),
        (false, Some((number, code))) => Err(Said::from(code).with("invalid-event-number", number)),
        (false, None) if channel.is_some() => Ok(Said::from(Code::Success).with("ackId", ack_id())),
        (false, None) => Ok(Code::Success.into()),
    }
}

/// A number that nobody else is given: 53 random bits, which every client reads exactly.
fn ack_id() -> u64 {
    let random = uuid::Uuid::new_v4().as_u128() & ((1 << 53) - 1);
    u64::try_from(random).unwrap_or(0)
}

/// `POST /services/collector/ack`, `{"acks": [n]}`.
///
/// A number is given only with an answer that everything is durable, so that whoever knows one may be told at once, by any replica.
async fn ack(request: HttpRequest, door: Data<Door>, options: Query<Options>, payload: Payload) -> HttpResponse {
    match acked(&request, &door, &options, payload).await {
        Ok(acks) => answer(StatusCode::OK).json(json!({ "acks": acks })),
        Err(refusal) => refusal.response(),
    }
}

async fn acked(
    request: &HttpRequest,
    door: &Door,
    options: &Options,
    payload: Payload,
) -> Result<Map<String, Value>, Said> {
    #[derive(Deserialize)]
    struct Asked {
        acks: Vec<u64>,
    }
    principal(request, door, options).await?;
    if channel(request, options)?.is_none() {
        return Err(Code::ChannelMissing.into());
    }
    let encoding = Encoding::of(request).map_err(|fault| Said::of(&fault.into()))?;
    let body = body::read(payload, encoding, ACKS_BYTES_MAX).await.map_err(|fault| Said::of(&fault.into()))?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| Said::from(Code::InvalidData))?;
    Ok(asked.acks.into_iter().map(|ack| (ack.to_string(), true.into())).collect())
}

/// `GET /services/collector/health`; a token that comes with it is looked at.
async fn health(request: HttpRequest, door: Data<Door>, options: Query<Options>) -> HttpResponse {
    if !door.platform.is_connected() || door.stop.is_cancelled() {
        return Said::from(Code::Busy).response();
    }
    let token = auth::token_of(&request).or_else(|| options.token.clone());
    match token {
        Some(token) => match door.auth.check(&token).await {
            Ok(_) => Said::from(Code::Healthy).response(),
            // Here, and only here, a wrong token is 400.
            Err(error) if error.status_code().is_client_error() => {
                Said { status: Some(StatusCode::BAD_REQUEST), ..Code::InvalidToken.into() }.response()
            }
            Err(error) => Said::of(&error).response(),
        },
        None => Said::from(Code::Healthy).response(),
    }
}
