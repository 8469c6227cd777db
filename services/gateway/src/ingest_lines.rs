//! Ingest: a body of NDJSON lines to durable events.

mod append;
mod entry;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload, Query},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{EVENT_BYTES_MAX, IndexName, RoutingKey, SegmentId};
use wire::{
    Problem,
    block::message_id,
    coordinator::{SegmentRange, StreamDescription},
};

pub(crate) use entry::Entry;

use crate::{
    api::Door,
    body::{self, Encoding, apart},
    error::HttpError,
    metrics::{EVENTS, INGEST_BYTES},
};

/// Rejected lines that are listed in an answer.
const REJECTED_LISTED_MAX: usize = 100;
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 256;
/// Lines of one request. Each costs some 64 bytes besides its text, so that a small body of short lines would cost many times its size.
pub(crate) const LINES_MAX: usize = 1 << 20;

/// The query string of an ingest request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// The field whose value is the event's routing key; without it an index keeps one order for all its events.
    routing_key_field: Option<String>,
}

/// `POST /api/v1/indexes/{index}/ingest`: appends each line, which is one JSON object.
///
/// Durable: what is accepted is in Tier 1 before this answers. Order: lines of one routing key, without a key all lines.
/// Bounds: `ingest_body_max` after decompression and 1,048,576 lines, then 413; lines above 1 MiB are rejected one by one; a body
/// that takes a minute to arrive is refused.
/// Errors: 400 when no line was accepted; 409 `StreamSealed`; 429 `QuotaBytes`, `QuotaRate`, and no line is stored. A problem while
/// appending may leave a part of the lines stored: `stored` says how many certainly are; where the outcome is unknown, others may be
/// stored as well. Repeat with the same `Idempotency-Key`.
pub(crate) async fn ingest(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
    payload: Payload,
) -> Result<HttpResponse, HttpError> {
    let index = index.into_inner();
    let entry = Entry::new(&door, door.auth.of(&request).await?, Some(&index))?;
    let stream = entry.stream(&door, &index).await?;
    let key = idempotency_key(&request)?;
    let body_max = usize::try_from(door.config.ingest_body_max.0).unwrap_or(usize::MAX);
    let body = body::read(payload, Encoding::of(&request)?, body_max).await?;
    INGEST_BYTES.add(u64::try_from(body.len()).unwrap_or(0));
    let how = How { field: options.into_inner().routing_key_field, key, index: index.clone(), lines_max: LINES_MAX };
    let repeatable = how.key.is_some();
    let (length, of) = (body.len(), Arc::clone(&stream));
    let lines = apart(length, move || sort_lines(&body, &of, &how)).await??;
    EVENTS.with("rejected").add(lines.rejected_count);
    if lines.accepted == 0 {
        let message = if lines.rejected_count == 0 { "the body holds no lines" } else { "no line was accepted" };
        return Err(HttpError::from(Problem::bad_request("NoLineAccepted", message))
            .with("accepted", 0)
            .with("rejected_count", lines.rejected_count)
            .with("rejected", lines.rejected));
    }
    entry.store(&door, &stream, lines.lines, repeatable).await?;
    let (rejected, rejected_count) = (lines.rejected, lines.rejected_count);
    Ok(HttpResponse::Ok().json(json!({
        "accepted": lines.accepted, "rejected": rejected, "rejected_count": rejected_count,
    })))
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, HttpError> {
    let Some(key) = request.headers().get("idempotency-key") else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX);
    let wrong = || Problem::bad_request("BadIdempotencyKey", "Idempotency-Key must be 1 to 256 visible characters");
    Ok(Some(text.ok_or_else(wrong)?.to_owned()))
}

/// The lines of a body.
struct Lines {
    lines: Vec<Line>,
    accepted: u64,
    rejected: Vec<Value>,
    rejected_count: u64,
}

/// One event on its way in.
pub(crate) struct Line {
    /// By what a repeat is recognised; 0 for nothing.
    pub(crate) id: u128,
    /// The place of its key in the hash space.
    pub(crate) hash: u64,
    /// A part of a larger buffer.
    pub(crate) payload: Bytes,
}

/// Lines that go to one segment, in order.
struct Run {
    segment: SegmentRange,
    lines: Vec<Line>,
}

/// How lines become events.
struct How {
    index: IndexName,
    /// The field with the routing key.
    field: Option<String>,
    /// The idempotency key.
    key: Option<String>,
    lines_max: usize,
}

fn sort_lines(body: &Bytes, stream: &StreamDescription, how: &How) -> Result<Lines, HttpError> {
    let mut lines = Lines { lines: Vec::new(), accepted: 0, rejected: Vec::new(), rejected_count: 0 };
    let id = |line: usize| how.key.as_ref().map_or(0, |key| message_id(&format!("{}/{key}/{line}", how.index)));
    for (number, line) in ingest::lines::split(body, EVENT_BYTES_MAX) {
        if lines.lines.len() >= how.lines_max {
            let message = format!("the body has more than {} lines; send it in parts", how.lines_max);
            return Err(HttpError::too_large(message));
        }
        let keyed = line.map_err(|rejected| rejected.reason).and_then(|payload| {
            let key = how.field.as_deref().map(|field| routing_key(payload, field)).transpose()?.flatten();
            Ok((stream.hash(key.as_ref()), payload))
        });
        match keyed {
            Ok((hash, payload)) => {
                lines.lines.push(Line { id: id(number), hash, payload: body.slice_ref(payload) });
                lines.accepted += 1;
            }
            Err(reason) => {
                lines.rejected_count += 1;
                if lines.rejected.len() < REJECTED_LISTED_MAX {
                    lines.rejected.push(json!({ "line": number, "reason": reason }));
                }
            }
        }
    }
    Ok(lines)
}

/// Lines by the segment that takes their keys.
///
/// Errors: Unavailable `NoSegment` while the stream's description has a gap.
fn by_segment(stream: &StreamDescription, lines: impl IntoIterator<Item = Line>) -> Result<Vec<Run>, Problem> {
    let mut runs: BTreeMap<SegmentId, Run> = BTreeMap::new();
    for line in lines {
        let missing = || Problem::unavailable("NoSegment", "the index has no segment for a line; send again");
        let segment = stream.route_hash(line.hash).ok_or_else(missing)?;
        let run = runs.entry(segment.segment).or_insert_with(|| Run { segment, lines: Vec::new() });
        run.lines.push(line);
    }
    Ok(runs.into_values().collect())
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The value of the field as a routing key; none where the line does not have it.
fn routing_key(line: &[u8], field: &str) -> Result<Option<RoutingKey>, String> {
    let line = ingest::raw::escape(line);
    let object: BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_str(&line).map_err(|error| error.to_string())?;
    let Some(raw) = object.get(field) else { return Ok(None) };
    let text = match serde_json::from_str(raw.get()).map_err(|error| error.to_string())? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    RoutingKey::new(&text).map(Some).map_err(|error| format!("the field {field} cannot be a routing key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lines_are_no_bomb() {
        let (scope, index): (_, IndexName) = ("team".parse().unwrap(), "shop".parse().unwrap());
        let stream = StreamDescription::new((1, types::Timestamp::default()), scope, index.clone(), Vec::new());
        let body = Bytes::from("{}\n".repeat(9) + "x\n\n");
        let how = |lines_max| How { index: index.clone(), field: None, key: None, lines_max };
        let refused = sort_lines(&body, &stream, &how(8)).err().unwrap().to_string();
        assert!(refused.starts_with("413") && refused.contains("more than 8 lines"), "{refused}");
        let lines = sort_lines(&body, &stream, &how(10)).unwrap();
        assert_eq!((lines.accepted, lines.rejected_count), (9, 1));
        assert!(size_of::<Line>() <= 64);
    }

    #[test]
    fn routing_keys_come_from_a_field() {
        for (line, key) in [
            (r#"{"user":"ann"}"#, Some("ann")),
            (r#"{"user":17}"#, Some("17")),
            (r#"{"user":"\u00e4"}"#, Some("ä")),
            (r#"{"user":null}"#, None),
            (r#"{"user":""}"#, None),
            (r#"{"x":1}"#, None),
        ] {
            let found = routing_key(line.as_bytes(), "user").unwrap();
            assert_eq!(found.as_ref().map(RoutingKey::as_str), key, "{line}");
        }
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(600));
        assert!(routing_key(long.as_bytes(), "user").unwrap_err().contains("routing key"));
    }
}
