//! What the doors of other log stores share: who sends, where to, and what an outcome means to an agent.

mod elastic;
mod hec;
mod jsonline;
mod loki;
mod otlp;

pub(crate) use elastic::{root, said};
pub(crate) use otlp::export;

use std::fmt;

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header::RETRY_AFTER},
    web::ServiceConfig,
};
use bytes::Bytes;
use futures::Stream;
use ring::digest::{Context, SHA256};
use types::IndexName;
use wire::{Problem, coordinator::StreamDescription};

use super::event::{Batch, BodyError, Bounds, Event, Identity};
use crate::{
    api::Door,
    auth::Principal,
    body::{self, BodyFault, Encoding, apart},
    error::HttpError,
    ingest_lines::{Entry, LINES_MAX, Line},
    metrics::{EVENTS, INGEST_BYTES},
};

/// Labels are repeated in each event: all events of a body are together at most so many times as large as a body may be.
const GROWTH_MAX: usize = 2;

/// The routes of all doors.
pub(crate) fn routes(config: &mut ServiceConfig) {
    loki::routes(config);
    hec::routes(config);
    otlp::routes(config);
    jsonline::routes(config);
    crate::elastic::routes(config);
    // The last: it takes all paths that begin with an underscore.
    elastic::routes(config);
}

/// One who sends, and to where, as far as the request has said it.
struct Sender {
    principal: Principal,
    index: Option<IndexName>,
}

impl Sender {
    /// The token of a binding leads to its index, whatever an agent calls that; only the admin token needs a name.
    fn new(principal: Principal, named: Option<&str>) -> Result<Self, HttpError> {
        let index = match &principal {
            Principal::Bound(grant) => Some(grant.index.clone()),
            Principal::Admin => named.map(index_named).transpose()?,
        };
        Ok(Self { principal, index })
    }
}

fn index_named(name: &str) -> Result<IndexName, HttpError> {
    name.parse().map_err(|error| Problem::not_found("UnknownIndex", format_args!("{name:?}: {error}")).into())
}

/// What became of a body.
struct Translated<T> {
    batch: Batch,
    /// An index that the body names.
    index: Option<String>,
    more: T,
}

/// A body whose events are durable.
struct Delivered<T> {
    index: IndexName,
    /// What was refused; its events are gone.
    batch: Batch,
    /// The same for equal bodies of one sender: a number from which ids of events are counted.
    first_id: u128,
    more: T,
}

/// Reads a body, translates it and stores its events.
///
/// Durable: the events are in Tier 1 before this returns. Order: of events with one key, without a key all.
/// Bounds: `ingest_body_max` after decompression, 1,048,576 events, twice `ingest_body_max` of events, then 413.
async fn deliver<T: Send + 'static, E: fmt::Display>(
    door: &Door,
    sender: Sender,
    (payload, encoding): (impl Stream<Item = Result<Bytes, E>> + Unpin, Encoding),
    translate: impl FnOnce(Bytes, Bounds) -> Result<Translated<T>, BodyError> + Send + 'static,
) -> Result<Delivered<T>, HttpError> {
    let salt = match &sender.principal {
        Principal::Admin => String::new(),
        Principal::Bound(grant) => grant.binding.to_string(),
    };
    let entry = Entry::new(door, sender.principal, sender.index.as_ref())?;
    let body_max = usize::try_from(door.config.ingest_body_max.0).unwrap_or(usize::MAX);
    let body = body::read(payload, encoding, body_max).await.map_err(unread)?;
    INGEST_BYTES.add(u64::try_from(body.len()).unwrap_or(u64::MAX));
    let bounds = Bounds { events_max: LINES_MAX, bytes_max: body_max.saturating_mul(GROWTH_MAX) };
    let length = body.len();
    let work = move || (first_id(&salt, &body), translate(body, bounds));
    let (first_id, translated) = apart(length, work).await?;
    let Translated { mut batch, index, more } = translated.map_err(refused)?;
    EVENTS.with("rejected").add(batch.refused_count);
    let index = match (sender.index, index) {
        (Some(index), _) => index,
        (None, Some(name)) => index_named(&name)?,
        (None, None) => {
            return Err(Problem::not_found("UnknownIndex", "name the log index, or use a binding's token").into());
        }
    };
    if !batch.events.is_empty() {
        let stream = entry.stream(door, &index).await?;
        let (lines, repeatable) = lines(std::mem::take(&mut batch.events), &stream, first_id);
        entry.store(door, &stream, lines, repeatable).await?;
    }
    Ok(Delivered { index, batch, first_id, more })
}

/// A body that breaks off may arrive another time; nobody who drops refused bodies may learn otherwise.
pub(crate) fn unread(fault: BodyFault) -> HttpError {
    if fault.may_pass() { Problem::unavailable("BodyUnreadable", fault).into() } else { fault.into() }
}

fn refused(error: BodyError) -> HttpError {
    match error {
        BodyError::Malformed(why) => Problem::bad_request("MalformedBody", why).into(),
        BodyError::TooMuch(why) => HttpError::too_large(why),
    }
}

fn first_id(salt: &str, body: &[u8]) -> u128 {
    let mut hash = Context::new(&SHA256);
    hash.update(salt.as_bytes());
    hash.update(&[0]);
    hash.update(body);
    hash.finish().as_ref().iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte))
}

/// Events as the one way in takes them, and whether some have ids.
fn lines(events: Vec<Event>, stream: &StreamDescription, first_id: u128) -> (Vec<Line>, bool) {
    let mut repeatable = false;
    let line = |(number, event): (u128, Event)| {
        let id = match event.identity {
            Identity::None => 0,
            Identity::Dated => first_id.wrapping_add(number).max(1),
            Identity::Named(id) => id,
        };
        repeatable |= id != 0;
        Line { id, hash: stream.hash(event.key.as_deref()), payload: event.payload }
    };
    let lines = (0..).zip(events).map(line).collect();
    (lines, repeatable)
}

/// The status by which agents decide: what may pass later is 429 or 503, and nothing else is.
pub(crate) fn status(error: &HttpError) -> StatusCode {
    match error.status_code() {
        StatusCode::PRECONDITION_FAILED => StatusCode::SERVICE_UNAVAILABLE,
        status if status.is_server_error() => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    }
}

/// An answer that says when to come again, where that helps.
fn answer(status: StatusCode) -> HttpResponseBuilder {
    let mut answer = HttpResponse::build(status);
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            answer.insert_header((RETRY_AFTER, "1"));
        }
        StatusCode::UNAUTHORIZED => {
            answer.insert_header(("www-authenticate", "Bearer realm=\"logboom\""));
        }
        _ => {}
    }
    answer
}

#[cfg(test)]
pub(crate) mod testing {
    //! Bodies of clients, for tests of whole requests.

    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;

    use crate::doors::loki;

    /// One line as promtail sends it, not yet packed.
    pub(crate) fn push_request(labels: &str, seconds: u64, line: &str) -> Vec<u8> {
        loki::tests::push_request(labels, &[(seconds, 5, line.as_bytes(), &[])])
    }

    /// One record as exporters send it.
    pub(crate) fn export_request(nanos: u64, text: &str) -> ExportLogsServiceRequest {
        let body = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
        let record = LogRecord { time_unix_nano: nanos, body, ..LogRecord::default() };
        let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![resource] }
    }

    /// The same, as it travels.
    pub(crate) fn otlp_request(nanos: u64, text: &str) -> Vec<u8> {
        export_request(nanos, text).encode_to_vec()
    }
}
