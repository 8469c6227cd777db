//! Live tail: rows as they become durable, as server-sent events.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    web::{Bytes, Data, Path, Query},
};
use futures::{Stream, StreamExt, stream::SelectAll};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use types::{IndexName, SegmentId, StreamCut};
use wire::{Problem, coordinator::SegmentRange};

use crate::{api::Door, auth::bearer, error::HttpError, metrics::TAILS};

/// Answers that wait for a slow reader; then the segments are read no further until it catches up.
const BUFFER_MAX: usize = 16;
/// Rows of one answer.
const ROWS_AT_ONCE: usize = 256;
/// Silence after which a comment is sent, so that proxies and dead peers are noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the token is looked at again: a revocation ends the tail within a second.
const CHECK_EVERY: Duration = Duration::from_millis(400);

/// The query string of a tail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// `latest` (default), `earliest`, or the id of an event to go on after.
    from: Option<String>,
    /// The token, for readers that cannot set headers.
    token: Option<String>,
}

/// `GET /api/v1/indexes/{index}/tail`: one `row` event per row, whose data is the row as JSON.
///
/// Order: per segment. Each batch's last event has an id, the positions after it; sent back as `Last-Event-ID` it goes on
/// there, and repeats at most the rows of the batch that was cut off.
/// Bounds: 256 tails at once, then 429; a slow reader slows its own tail, nothing is dropped.
pub(crate) async fn tail(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
) -> Result<HttpResponse, HttpError> {
    let index = index.into_inner();
    let token = bearer(&request).or_else(|| options.token.clone());
    let token = token.ok_or_else(|| HttpError::unauthorized("send the header `Authorization: Bearer <token>`"))?;
    door.auth.check(&token).await?.may_read(&index)?;
    let permit = Arc::clone(&door.tail_permits)
        .try_acquire_owned()
        .map_err(|_| Problem::throttled("TooManyTails", "too many live tails at once; try again in a moment"))?;
    let stream = door.platform.stream(&index).await?;
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let cut = match last.or(options.from.as_deref()).unwrap_or("latest") {
        "latest" => door.platform.tails(&index).await?,
        "earliest" => StreamCut::default(),
        id => read_id(id)?,
    };
    let segments: Vec<SegmentRange> = stream.segments.clone();
    let (send, receive) = mpsc::channel(BUFFER_MAX);
    let feed = Feed { door: Door::clone(&door), index, token, cut, send };
    drop(actix_web::rt::spawn(async move {
        TAILS.add(1);
        feed.run(segments).await;
        TAILS.add(-1);
        drop(permit);
    }));
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CONTENT_ENCODING, HeaderValue::from_static("identity")))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body(receive)))
}

fn body(mut receive: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Bytes, actix_web::Error>> {
    futures::stream::poll_fn(move |context| receive.poll_recv(context).map(|part| part.map(Ok)))
}

/// One open tail.
struct Feed {
    door: Door,
    index: IndexName,
    token: String,
    cut: StreamCut,
    send: mpsc::Sender<Bytes>,
}

impl Feed {
    /// Sends rows until the reader goes, the token ends, the segments end or the service stops.
    async fn run(mut self, segments: Vec<SegmentRange>) {
        let mut rows = SelectAll::new();
        for segment in segments {
            let batches = self.door.platform.follow(segment, self.cut.offset(segment.segment));
            rows.push(batches.map(move |batch| (segment.segment, batch)));
        }
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet_since = Instant::now();
        // Said at once, so that a reader knows that the tail is open although nothing happens.
        let mut sent = self.send(&format!(": tail of {}\n\n", self.index)).await;
        let stop = self.door.stop.clone();
        while sent {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.send.closed() => return,
                next = rows.next() => {
                    sent = match next {
                        Some((segment, Ok(batch))) => self.rows(segment, &batch).await,
                        Some((_, Err(problem))) => self.end(&problem.kind, &problem.message).await,
                        None => self.end("EndOfIndex", "the index has no open segment any more").await,
                    };
                    quiet_since = Instant::now();
                }
                _ = ticks.tick() => {
                    let allowed = match self.door.auth.check(&self.token).await {
                        Ok(principal) => principal.may_read(&self.index),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = allowed {
                        sent = self.end("TokenEnded", &error.to_string()).await;
                    } else if quiet_since.elapsed() >= HEARTBEAT {
                        quiet_since = Instant::now();
                        sent = self.send(": still here\n\n").await;
                    }
                }
            }
        }
    }

    /// Sends the rows of a batch in parts; the last one of each part carries the id.
    async fn rows(&mut self, segment: SegmentId, batch: &arrow::array::RecordBatch) -> bool {
        let mut from = 0;
        while from < batch.num_rows() {
            let count = ROWS_AT_ONCE.min(batch.num_rows() - from);
            let part = batch.slice(from, count);
            let lines = match engine::json_rows(&part) {
                Ok(lines) => lines,
                Err(error) => return self.end("Internal", &error.to_string()).await,
            };
            *self.cut.0.entry(segment).or_insert(0) =
                after(&part).unwrap_or_else(|| self.cut.offset(segment) + to_u64(count));
            let mut text = String::new();
            for (i, line) in lines.iter().enumerate() {
                if i + 1 == lines.len() {
                    text.push_str(&format!("id: {}\n", write_id(&self.cut)));
                }
                text.push_str("event: row\ndata: ");
                text.push_str(&String::from_utf8_lossy(line));
                text.push_str("\n\n");
            }
            if !self.send(&text).await {
                return false;
            }
            from += count;
        }
        true
    }

    /// Says why the tail ends; false, so that it does.
    async fn end(&mut self, kind: &str, message: &str) -> bool {
        let said = serde_json::json!({ "kind": kind, "message": message });
        self.send(&format!("event: end\ndata: {said}\n\n")).await;
        false
    }

    async fn send(&self, text: &str) -> bool {
        self.send.send(Bytes::copy_from_slice(text.as_bytes())).await.is_ok()
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The offset after the last row.
fn after(batch: &arrow::array::RecordBatch) -> Option<u64> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let offsets = batch.column_by_name("_offset")?.as_primitive_opt::<Int64Type>()?;
    u64::try_from(*offsets.values().last()?).ok().map(|last| last + 1)
}

/// Positions as an event id: `<segment>:<offset>` separated by commas.
fn write_id(cut: &StreamCut) -> String {
    cut.0.iter().map(|(segment, offset)| format!("{segment}:{offset}")).collect::<Vec<_>>().join(",")
}

fn read_id(id: &str) -> Result<StreamCut, Problem> {
    let one = |part: &str| {
        let (segment, offset) = part.split_once(':')?;
        Some((segment.parse::<SegmentId>().ok()?, offset.parse::<u64>().ok()?))
    };
    let cut = id.split(',').map(one).collect::<Option<_>>().map(StreamCut);
    cut.ok_or_else(|| {
        Problem::bad_request("BadPosition", "from is `latest`, `earliest` or the id of an event of a tail")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        for id in ["1-0-0:17", "1-0-0:17,1-0-1:0"] {
            assert_eq!(write_id(&read_id(id).unwrap()), id);
        }
        for bad in ["", "x", "1-0-0", "1-0-0:x", "1-0-0:1,"] {
            assert!(read_id(bad).is_err(), "{bad}");
        }
    }
}
