//! `tail`: the last lines of a query, and then those that come, over a websocket.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{HeaderName, UPGRADE},
    },
    web::{Bytes, Data, Payload},
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{Stream, StreamExt, stream};
use query::{Plan, Surroundings, logql::LogqlRange, logql::lower_logs};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use types::{Offset, Position, StreamCut, Timestamp};
use wire::Problem;

use super::{
    answer::{self, Line},
    ask::{Asker, apart, logs_of},
    frames::{self, Said},
    labels,
    parameters::{LINES_DEFAULT, Span},
    refused,
};
use crate::{
    api::Door,
    auth::token_of,
    error::HttpError,
    sql,
    tail::{Form, Reader, Tail},
};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// Why a connection is closed, as the protocol numbers it.
const CLOSED_NORMALLY: u16 = 1_000;
const CLOSED_BY_POLICY: u16 = 1_008;
const CLOSED_BY_ERROR: u16 = 1_011;
/// Times of events that a tail shows: all that a calendar of our times has.
const ALL: Span =
    Span { start: Timestamp::from_millis(-9_200_000_000_000), end: Timestamp::from_millis(9_200_000_000_000) };

/// `GET /loki/api/v1/tail`: at most `limit` lines since `start`, by default an hour ago, and then every line that comes.
///
/// Order: the first lines by time, then as they become durable. Nothing is dropped for a slow reader: it slows its own tail;
/// only what was truncated before it was sent is told as dropped.
/// Bounds: as every live tail.
pub(super) async fn tail(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    match opened(&request, &door).await {
        Ok((accept, receive)) => HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS)
            .upgrade("websocket")
            .insert_header(("sec-websocket-accept", accept))
            .streaming(talk(receive, payload)),
        Err(error) => refused(&error),
    }
}

async fn opened(request: &HttpRequest, door: &Data<Door>) -> Result<(String, mpsc::Receiver<Bytes>), HttpError> {
    let asker = Asker::of(request, door, b"").await?;
    let header = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let wrong = |message: &str| Problem::bad_request("MalformedRequest", message);
    let is_upgrade = header(&UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    let Some(key) = header(&KEY).filter(|_| is_upgrade) else {
        return Err(wrong("a tail is a websocket: send the headers of its handshake").into());
    };
    let [index] = asker.indexes.as_slice() else {
        return Err(wrong("a tail is of one log index: name one in X-Scope-OrgID").into());
    };
    let text = asker.parameters.query()?.to_owned();
    let (plan, index) = (logs_of(&text)?, index.clone());
    let limit = asker.parameters.count("limit", LINES_DEFAULT, asker.rows_max())?;
    let start = asker.parameters.span(asker.now())?.start;
    let token = token_of(request).unwrap_or_default();
    let cut = door.platform.tails(&index).await?;
    let mut before = asker.lines((&text, &plan), Span { start, ..ALL }, (limit, false)).await?.lines;
    // What came after the cut will be read from there.
    before.retain(|line| line.place.is_none_or(|place| is_before(place, &cut)));
    before.reverse();
    // Behind the query, which counts by itself: a quota of one allows a tail.
    let tail = Tail::open(door, Reader { principal: asker.principal.clone(), token, index: index.clone() }).await?;
    let range = LogqlRange { indexes: vec![index], ..asker.range(ALL.start, ALL.end) };
    let (door, categorize) = (Door::clone(door), asker.categorize);
    let receive = tail.run(cut, Frames { door, text, plan, range, categorize, before }).await?;
    Ok((frames::accept(key), receive))
}

/// Whether a place lies before a cut, by which the segments are known that took events then.
fn is_before(place: Position, cut: &StreamCut) -> bool {
    match cut.0.get(&place.segment) {
        Some(offset) => place.offset < *offset,
        // A later epoch had not begun; a former one was over.
        None => cut.0.keys().any(|segment| place.segment.epoch < segment.epoch),
    }
}

/// What is written to the client, and what it says: it may ping, close, or go.
fn talk(receive: mpsc::Receiver<Bytes>, payload: Payload) -> impl Stream<Item = Result<Bytes, actix_web::Error>> {
    let state = Some((receive, payload, Vec::new()));
    stream::unfold(state, |state| async move {
        let (mut receive, mut payload, mut heard) = state?;
        loop {
            match frames::take(&mut heard) {
                Ok(Some(Said::Ping(ping))) => {
                    return Some((Ok(frames::pong(&ping).into()), Some((receive, payload, heard))));
                }
                Ok(Some(Said::Other)) => continue,
                Ok(Some(Said::Close)) => return Some((Ok(frames::close(CLOSED_NORMALLY, "").into()), None)),
                Err(malformed) => {
                    return Some((Ok(frames::close(CLOSED_BY_POLICY, &malformed.to_string()).into()), None));
                }
                Ok(None) => {}
            }
            tokio::select! {
                part = receive.recv() => return part.map(|part| (Ok(part), Some((receive, payload, heard)))),
                said = payload.next() => match said {
                    Some(Ok(bytes)) => heard.extend_from_slice(&bytes),
                    Some(Err(_)) | None => return None,
                },
            }
        }
    })
}

/// A tail in Loki's frames.
struct Frames {
    door: Door,
    text: String,
    plan: Plan,
    range: LogqlRange,
    categorize: bool,
    /// The lines from before the tail began.
    before: Vec<Line>,
}

impl Frames {
    /// Lines, where there are any.
    fn frame(&self, lines: Vec<Line>) -> Option<Bytes> {
        let some = !lines.is_empty();
        some.then(|| frame(&json!({ "streams": answer::streams(lines, self.categorize) })))
    }
}

fn frame(value: &Value) -> Bytes {
    frames::text(value.to_string().as_bytes()).into()
}

#[async_trait(?Send)]
impl Form for Frames {
    fn opened(&mut self) -> Option<Bytes> {
        let before = std::mem::take(&mut self.before);
        self.frame(before)
    }

    async fn rows(&mut self, rows: &RecordBatch, _: &StreamCut) -> Result<Option<Bytes>, Problem> {
        let (plan, text, range, count) = (&self.plan, &self.text, &self.range, rows.num_rows());
        let seen = parking_lot::Mutex::new(Vec::new());
        let lower = |around: &Surroundings| {
            *seen.lock() = around.columns.values().flatten().cloned().collect();
            lower_logs(plan, text, &Surroundings { rows_max: count, ..around.clone() }, range, true)
        };
        let index = range.indexes.first().ok_or_else(|| Problem::internal("a tail without an index"))?;
        let found = sql::answer_rows(&self.door, index, rows.clone(), text, &lower).await;
        let found = found.map_err(|error| error.problem().clone())?;
        if found.row_count() == 0 {
            return Ok(None);
        }
        let own = seen.into_inner();
        let streams = labels::of_query(&own, &[plan]);
        let lines = apart(move || answer::lines(&found.batches, &own, &streams, count)).await?;
        let lines = lines.map_err(|error| Problem::internal(format_args!("a row cannot be read: {error}")))?;
        Ok(self.frame(lines))
    }

    fn truncated(&mut self, from: Position, start: Option<Offset>, _: &StreamCut) -> Bytes {
        let mut labels = json!({ "reason": "truncated", "segment": from.segment.to_string() });
        if let Some(start) = start {
            labels["count"] = start.saturating_sub(from.offset).to_string().into();
        }
        let now = self.door.clock.now().nanos().to_string();
        frame(&json!({ "streams": [], "dropped_entries": [{ "timestamp": now, "labels": labels }] }))
    }

    fn ended(&mut self, kind: &str, message: &str) -> Bytes {
        let code = match kind {
            "EndOfIndex" => CLOSED_NORMALLY,
            "TokenEnded" => CLOSED_BY_POLICY,
            _ => CLOSED_BY_ERROR,
        };
        frames::close(code, message).into()
    }

    fn quiet(&mut self) -> Bytes {
        frames::ping().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_parts_what_was_from_what_comes() {
        let place = |segment: &str, offset| Position { segment: segment.parse().unwrap(), offset };
        let cut = StreamCut([("1-1-1".parse().unwrap(), 5), ("1-2-2".parse().unwrap(), 0)].into());
        for (at, expected) in [
            (place("1-1-1", 4), true),
            (place("1-1-1", 5), false),
            (place("1-2-2", 0), false),
            (place("1-0-0", 99), true),
            (place("1-3-3", 0), false),
        ] {
            assert_eq!(is_before(at, &cut), expected, "{at:?}");
        }
    }
}
