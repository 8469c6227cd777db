//! Ingest: a body of NDJSON lines to durable events.

mod append;

use std::{collections::BTreeMap, fmt, io::Read, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload, Query},
};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use types::{EVENT_BYTES_MAX, IndexName, RoutingKey, SegmentId};
use wire::{
    Outcome, Problem,
    block::message_id,
    coordinator::{SegmentRange, StreamDescription},
};

use crate::{
    api::Door,
    error::HttpError,
    metrics::{EVENTS, INGEST_BYTES},
};

/// Rejected lines that are listed in an answer.
const REJECTED_LISTED_MAX: usize = 100;
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 256;
/// How long a body may take to arrive: it holds one of few places meanwhile.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// Lines of one request. Each costs some 64 bytes besides its text, so that a small body of short lines would cost many times its size.
const LINES_MAX: usize = 1 << 20;
/// Bodies above it are taken apart elsewhere: at 100 MB/s this keeps the other connections of a thread waiting for a millisecond.
const APART_BYTES_MIN: usize = 128 << 10;

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
    let principal = door.auth.of(&request).await?;
    principal.may_write(&index)?;
    let _place = door.ingests.take(Some(&index)).ok_or_else(|| {
        Problem::throttled("TooManyIngests", "too many ingest requests at once; try again in a moment")
    })?;
    let stream = door.platform.stream(&index).await?;
    if stream.sealed {
        return Err(append::sealed(&index).into());
    }
    let key = idempotency_key(&request)?;
    let body_max = usize::try_from(door.config.ingest_body_max.0).unwrap_or(usize::MAX);
    let body = body(&request, payload, body_max).await?;
    INGEST_BYTES.add(u64::try_from(body.len()).unwrap_or(0));
    let how = How { field: options.into_inner().routing_key_field, key, index: index.clone(), lines_max: LINES_MAX };
    let repeatable = how.key.is_some();
    let lines = taken_apart(body, Arc::clone(&stream), how).await?;
    EVENTS.with("rejected").add(lines.rejected_count);
    if lines.accepted == 0 {
        let message = if lines.rejected_count == 0 { "the body holds no lines" } else { "no line was accepted" };
        return Err(HttpError::from(Problem::bad_request("NoLineAccepted", message))
            .with("accepted", 0)
            .with("rejected_count", lines.rejected_count)
            .with("rejected", lines.rejected));
    }
    let bytes: u64 = lines.lines.iter().map(|line| to_u64(line.payload.len())).sum();
    let runs = by_segment(&stream, lines.lines)?;
    let taken = door.take(&principal, &index, (lines.accepted, bytes))?;
    let ended = append::append(&door, &index, runs).await;
    let stored = ended.tally.lines;
    EVENTS.with("accepted").add(stored);
    if repeatable {
        // Without a key nobody else can have stored them before.
        taken.give_back(0, ended.tally.repeated_bytes);
    }
    if let Some(problem) = ended.problem {
        if problem.outcome == Outcome::NotApplied {
            taken.give_back(lines.accepted - stored, bytes - ended.tally.bytes);
        }
        let part = stored > 0 && problem.outcome == Outcome::NotApplied;
        let problem = if part { problem.unknown() } else { problem };
        return Err(HttpError::from(problem).with("stored", stored));
    }
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

/// A body as it was sent: no more than `max` bytes of it, and not longer than [`BODY_WITHIN`].
async fn raw<E: fmt::Display>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    max: usize,
) -> Result<BytesMut, HttpError> {
    let until = Instant::now() + BODY_WITHIN;
    let late = |_| {
        let message = format!("the body did not arrive within {} s: send it in parts", BODY_WITHIN.as_secs());
        Problem::bad_request("BodyUnreadable", message)
    };
    let mut raw = BytesMut::new();
    while let Some(part) = timeout_at(until, payload.next()).await.map_err(late)? {
        let part = part.map_err(|error| Problem::bad_request("BodyUnreadable", error))?;
        if raw.len() + part.len() > max {
            return Err(too_large(max));
        }
        raw.extend_from_slice(&part);
    }
    Ok(raw)
}

fn too_large(max: usize) -> HttpError {
    HttpError::too_large(format_args!("the body is larger than {max} bytes; send it in parts"))
}

/// The decompressed body, never more than `max` bytes of it.
async fn body(request: &HttpRequest, payload: Payload, max: usize) -> Result<Bytes, HttpError> {
    let raw = raw(payload, max).await?;
    let encoding =
        request.headers().get("content-encoding").and_then(|value| value.to_str().ok()).unwrap_or("identity");
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(raw.freeze()),
        "gzip" | "x-gzip" => {
            // Hundreds of MiB may come out of one MiB, which no thread that serves connections may wait for.
            let unpacked = tokio::task::spawn_blocking(move || gunzip(&raw, max)).await;
            match unpacked.map_err(|error| Problem::internal(format_args!("decompression ended early: {error}")))? {
                Ok(Some(bytes)) => Ok(bytes.into()),
                Ok(None) => Err(too_large(max)),
                Err(error) => {
                    Err(Problem::bad_request("BodyUnreadable", format_args!("the body is not gzip: {error}")).into())
                }
            }
        }
        other => {
            Err(HttpError::unsupported(format_args!("Content-Encoding {other:?} is not supported; use gzip or none")))
        }
    }
}

/// The unpacked bytes; `None` where they are more than `max`.
fn gunzip(packed: &[u8], max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(packed).take(limit).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= max).then_some(unpacked))
}

/// The lines of a body.
struct Lines {
    lines: Vec<Line>,
    accepted: u64,
    rejected: Vec<Value>,
    rejected_count: u64,
}

struct Line {
    id: u128,
    /// The place of its key in the hash space.
    hash: u64,
    /// A part of the body.
    payload: Bytes,
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

/// The lines of a body, small ones at once and others where no connection waits for it.
async fn taken_apart(body: Bytes, stream: Arc<StreamDescription>, how: How) -> Result<Lines, HttpError> {
    if body.len() < APART_BYTES_MIN {
        return sort_lines(&body, &stream, &how);
    }
    let sorted = tokio::task::spawn_blocking(move || sort_lines(&body, &stream, &how)).await;
    sorted.map_err(|error| Problem::internal(format_args!("reading the lines ended early: {error}")))?
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
    let object: BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
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
    use std::io::Write;

    use super::*;

    #[test]
    fn unpacking_stops_at_the_bound() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![b'x'; 1 << 20]).unwrap();
        let packed = packer.finish().unwrap();
        assert!(packed.len() < 4_096);
        assert_eq!(gunzip(&packed, 1 << 20).unwrap().unwrap().len(), 1 << 20);
        assert!(gunzip(&packed, (1 << 20) - 1).unwrap().is_none());
        assert!(gunzip(b"not gzip", 10).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_minute_to_arrive() {
        let part = |text: &'static str| Ok::<_, String>(Bytes::from_static(text.as_bytes()));
        let whole = futures::stream::iter([part("ab"), part("cd")]);
        assert_eq!(raw(whole.boxed(), 4).await.unwrap(), "abcd");
        let begun = Instant::now();
        // A byte now and then keeps no place for ever.
        let slow = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, String>(Bytes::from_static(b"x")), ()))
        });
        let refused = raw(slow.boxed(), 1 << 20).await.unwrap_err().to_string();
        assert!(refused.contains("BodyUnreadable") && refused.contains("within 60 s"), "{refused}");
        assert_eq!(begun.elapsed(), BODY_WITHIN);
    }

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
