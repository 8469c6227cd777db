//! `tail`: the last lines of a query, and then those that come, over a websocket.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{HeaderName, UPGRADE},
    web::{Data, Payload},
};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, Session};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use query::{Plan, Surroundings, logql::LogqlRange, logql::lower_logs};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use types::{Offset, Position, StreamCut, Timestamp};
use wire::Problem;

use super::{
    answer::{self, Line},
    ask::{Asker, apart, logs_of},
    labels,
    parameters::{LINES_DEFAULT, Span},
    refused,
};
use crate::{
    api::Door,
    auth::token_of,
    error::HttpError,
    sql,
    tail::{Form, Rate, Reader, Tail},
};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// Times of events that a tail shows: all that a calendar of our times has.
const ALL: Span =
    Span { start: Timestamp::from_millis(-9_200_000_000_000), end: Timestamp::from_millis(9_200_000_000_000) };

/// `GET /loki/api/v1/tail`: at most `limit` lines since `start`, by default an hour ago, and then every line that comes.
///
/// Order: the first lines by time, then as they become durable. Nothing is dropped for a slow reader: it slows its own tail;
/// only what was truncated before it was sent is told as dropped.
/// Bounds: as every live tail.
pub(super) async fn tail(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let receive = match opened(&request, &door).await {
        Ok(receive) => receive,
        Err(error) => return refused(&error),
    };
    match actix_ws::handle(&request, payload) {
        Ok((answer, session, heard)) => {
            drop(actix_web::rt::spawn(talk(receive, session, heard)));
            answer
        }
        Err(error) => refused(&Problem::bad_request("MalformedRequest", error).into()),
    }
}

async fn opened(request: &HttpRequest, door: &Data<Door>) -> Result<mpsc::Receiver<Frame>, HttpError> {
    let asker = Asker::of(request, door, b"").await?;
    let header = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let wrong = |message: &str| Problem::bad_request("MalformedRequest", message);
    let is_upgrade = header(&UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    if !is_upgrade || header(&KEY).is_none() {
        return Err(wrong("a tail is a websocket: send the headers of its handshake").into());
    }
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
    tail.run(cut, Frames { door, text, plan, range, categorize, before }).await
}

/// Whether a place lies before a cut, by which the segments are known that took events then.
fn is_before(place: Position, cut: &StreamCut) -> bool {
    match cut.0.get(&place.segment) {
        Some(offset) => place.offset < *offset,
        // A later epoch had not begun; a former one was over.
        None => cut.0.keys().any(|segment| place.segment.epoch < segment.epoch),
    }
}

/// What is written to a client.
enum Frame {
    Text(String),
    Ping,
    Close(CloseReason),
}

/// Writes to the client, and hears what it says: it may ping, close, or go.
async fn talk(mut receive: mpsc::Receiver<Frame>, mut session: Session, mut heard: MessageStream) {
    let reason = loop {
        let written = tokio::select! {
            frame = receive.recv() => match frame {
                Some(Frame::Text(text)) => session.text(text).await,
                Some(Frame::Ping) => session.ping(b"").await,
                Some(Frame::Close(reason)) => break reason,
                None => return,
            },
            said = heard.recv() => match said {
                Some(Ok(Message::Ping(ping))) => session.pong(&ping).await,
                Some(Ok(Message::Close(_))) => break CloseCode::Normal.into(),
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => break because(CloseCode::Policy, &error.to_string()),
                None => return,
            },
        };
        if written.is_err() {
            return;
        }
    };
    // Who is gone need not be told.
    drop(session.close(Some(reason)).await);
}

/// Why a connection is closed.
fn because(code: CloseCode, reason: &str) -> CloseReason {
    CloseReason { code, description: Some(reason.to_owned()).filter(|reason| !reason.is_empty()) }
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
    fn frame(&self, lines: Vec<Line>) -> Option<Frame> {
        let some = !lines.is_empty();
        some.then(|| frame(&json!({ "streams": answer::streams(lines, self.categorize) })))
    }
}

fn frame(value: &Value) -> Frame {
    Frame::Text(value.to_string())
}

#[async_trait(?Send)]
impl Form for Frames {
    type Part = Frame;

    fn opened(&mut self) -> Option<Frame> {
        let before = std::mem::take(&mut self.before);
        self.frame(before)
    }

    async fn rows(&mut self, rows: &RecordBatch, _: &StreamCut) -> Result<Option<Frame>, Problem> {
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

    /// Loki's clients know no such thing.
    fn rate(&mut self, _: &Rate, _: &StreamCut) -> Option<Frame> {
        None
    }

    fn truncated(&mut self, from: Position, start: Option<Offset>, _: &StreamCut) -> Frame {
        let mut labels = json!({ "reason": "truncated", "segment": from.segment.to_string() });
        if let Some(start) = start {
            labels["count"] = start.saturating_sub(from.offset).to_string().into();
        }
        let now = self.door.clock.now().nanos().to_string();
        frame(&json!({ "streams": [], "dropped_entries": [{ "timestamp": now, "labels": labels }] }))
    }

    fn ended(&mut self, kind: &str, message: &str) -> Frame {
        let code = match kind {
            "EndOfIndex" => CloseCode::Normal,
            "TokenEnded" => CloseCode::Policy,
            _ => CloseCode::Error,
        };
        Frame::Close(because(code, message))
    }

    fn quiet(&mut self) -> Frame {
        Frame::Ping
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
