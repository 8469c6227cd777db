//! Live tail: rows as they become durable, in a form of the reader's, here as server-sent events.

mod counts;
mod events;
mod filter;
mod out;
mod steps;
mod walk;

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    web::{Bytes, Data, Path, Query},
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use host::{Place, QueryPermit};
use query::Sieve;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::task::AbortOnDropHandle;
use types::{IndexName, Offset, Position, SegmentId, StreamCut};
use wire::{Problem, coordinator::SegmentRange};

use crate::{
    api::Door,
    auth::{Principal, token_of},
    error::HttpError,
    explore::sieve_of,
    language::Language,
    metrics::TAILS,
    platform::all_segments,
    sql,
    tail::{
        counts::Told,
        events::{Events, read_id},
        filter::{Filter, Passed},
        out::{Out, Room},
        steps::{Step, Whose, steps},
        walk::{Arranged, Gap, Walk},
    },
};

pub(crate) use counts::Rate;

/// Answers that wait for a slow reader; then the segments are read no further until it catches up.
const BUFFER_MAX: usize = 16;
/// Rows of one answer.
const ROWS_AT_ONCE: usize = 256;
/// How often the reader is told how much came, and what of it was dropped.
const RATE_EVERY: Duration = Duration::from_secs(1);
/// Silence after which a comment is sent, so that proxies and dead peers are noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the token is looked at again: a revocation ends the tail within a second.
const CHECK_EVERY: Duration = Duration::from_millis(400);
/// Segments whose first offset is asked for at once.
const STARTS_AT_ONCE: usize = 16;

/// The query string of a tail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// `latest` (default), `earliest`, or the id of an event to go on after.
    from: Option<String>,
    /// The token, for readers that cannot set headers.
    token: Option<String>,
    /// Which rows, and what of them; steps that look at one row at a time.
    query: Option<String>,
    /// The language of the query, by default the pipe language.
    language: Option<Language>,
    #[serde(default)]
    slow: Slow,
}

/// What becomes of rows for which the reader is too slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Slow {
    /// The log waits for the reader.
    #[default]
    Wait,
    /// They are dropped and counted.
    Drop,
}

/// `GET /api/v1/indexes/{index}/tail?query=…`: one `row` event per row, whose data is the row as JSON, and once a second `rate`.
///
/// Order: per segment, and per routing key whatever segments follow one another. Each batch's last event has an id, the
/// positions after it; sent back as `Last-Event-ID` it goes on there, and repeats at most the rows of the batch that was
/// cut off. Rows that were truncated before they were sent are named by an event `truncated`.
/// Bounds: 256 tails at once, and the index's quota of queries, then 429. A slow reader slows its own tail and nothing is
/// dropped, or with `slow=drop` what does not fit into its buffer is, and `rate` says how much. One that takes nothing for
/// 30 s while rows wait is cut off; its last id says where to go on.
pub(crate) async fn tail(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
) -> Result<HttpResponse, HttpError> {
    let index = index.into_inner();
    let token = token_of(&request).or_else(|| options.token.clone());
    let token = token.ok_or_else(|| HttpError::unauthorized("send the header `Authorization: Bearer <token>`"))?;
    let principal = door.auth.check(&token).await?;
    principal.may_read(&index)?;
    let sieve = sieve_of(options.query.as_deref(), options.language, &index)?;
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let from = last.or(options.from.as_deref()).unwrap_or("latest");
    let filter = filter(&door, &principal, &index, sieve).await?;
    let reader = Reader { principal, token, index: index.clone() };
    let tail = Tail::open(&door, reader).await?;
    let cut = match from {
        "latest" => door.platform.tails(&index).await?,
        "earliest" => StreamCut::default(),
        id => read_id(id)?,
    };
    let receive = Tail { filter, slow: options.slow, ..tail }.run(cut, Events(index)).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CONTENT_ENCODING, HeaderValue::from_static("identity")))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body(receive)))
}

/// What a query asks of rows that come from now on.
async fn filter(
    door: &Door,
    principal: &Principal,
    index: &IndexName,
    sieve: Sieve,
) -> Result<Option<Arc<Filter>>, HttpError> {
    if sieve.is_everything() {
        return Ok(None);
    }
    let (known, text) = (sql::columns(door, principal, index).await?, sieve.text().to_owned());
    let filter = Filter::new(sieve, &known, door.clock.now());
    Ok(filter.map_err(|found| HttpError::query("InvalidQuery", &found, &text))?.map(Arc::new))
}

fn body(mut receive: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Bytes, actix_web::Error>> {
    futures::stream::poll_fn(move |context| receive.poll_recv(context).map(|part| part.map(Ok)))
}

/// How a tail is written for its reader.
#[async_trait(?Send)]
pub(crate) trait Form: 'static {
    /// What is handed to the connection at once.
    type Part: 'static;
    /// What is said first, where the reader could not know else that the tail is open.
    fn opened(&mut self) -> Option<Self::Part>;
    /// Rows, and the positions after them; `None` where the reader wants none of them.
    async fn rows(&mut self, rows: &RecordBatch, after: &StreamCut) -> Result<Option<Self::Part>, Problem>;
    /// How much came; `None` where the reader is not told.
    fn rate(&mut self, rate: &Rate, after: &StreamCut) -> Option<Self::Part>;
    /// Rows that are gone and were not sent; without a start the whole segment is.
    fn truncated(&mut self, from: Position, start: Option<Offset>, after: &StreamCut) -> Self::Part;
    /// Why the tail ends.
    fn ended(&mut self, kind: &str, message: &str) -> Self::Part;
    /// A sign of life.
    fn quiet(&mut self) -> Self::Part;
}

/// Who reads a tail.
pub(crate) struct Reader {
    pub(crate) principal: Principal,
    pub(crate) token: String,
    pub(crate) index: IndexName,
}

/// The right to one tail.
pub(crate) struct Tail {
    door: Door,
    reader: Reader,
    held: (Vec<QueryPermit>, Place),
    filter: Option<Arc<Filter>>,
    slow: Slow,
}

impl Tail {
    /// Errors: Throttled `TooManyTails`, `QuotaQueries`.
    pub(crate) async fn open(door: &Door, reader: Reader) -> Result<Self, HttpError> {
        let open = door.open_queries(&reader.principal, [&reader.index]).await?;
        let place = door
            .tails
            .take(Some(&reader.index))
            .ok_or_else(|| Problem::throttled("TooManyTails", "too many live tails at once; try again in a moment"))?;
        Ok(Self { door: door.clone(), reader, held: (open, place), filter: None, slow: Slow::Wait })
    }

    /// Reads from a cut on until the reader goes, which it does by dropping what is answered.
    pub(crate) async fn run<F: Form>(self, cut: StreamCut, form: F) -> Result<mpsc::Receiver<F::Part>, HttpError> {
        let Self { door, reader: Reader { index, token, .. }, held, filter, slow } = self;
        let nodes = all_segments(&*door.platform, &index).await?;
        let (walk, arranged) = Walk::open(&nodes, &cut).map_err(bad_position)?;
        let (send, receive) = mpsc::channel(BUFFER_MAX);
        let (steps, out) = (SelectAll::new(), Out { send, slow, stop: door.stop.clone(), full_since: None });
        let feed = Feed { door, index, token, form, filter, walk, steps, out, told: Told::default() };
        drop(actix_web::rt::spawn(async move {
            TAILS.add(1);
            feed.run(arranged, &cut).await;
            TAILS.add(-1);
            drop(held);
        }));
        Ok(receive)
    }
}

/// One open tail.
struct Feed<F: Form> {
    door: Door,
    index: IndexName,
    token: String,
    form: F,
    filter: Option<Arc<Filter>>,
    walk: Walk,
    steps: SelectAll<BoxStream<'static, Step>>,
    out: Out<F::Part>,
    told: Told,
}

impl<F: Form> Feed<F> {
    /// Sends rows until the reader goes, the token ends, the segments end or the service stops.
    async fn run(mut self, arranged: Arranged, cut: &StreamCut) {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = interval_at(Instant::now() + RATE_EVERY, RATE_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut quiet_since, mut told_at) = (Instant::now(), Instant::now());
        let mut sent = match self.form.opened() {
            Some(part) => self.out.say(part).await,
            None => true,
        };
        sent = sent && self.go_on(arranged, cut).await;
        let stop = self.door.stop.clone();
        while sent {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.out.send.closed() => return,
                step = self.steps.next() => {
                    sent = match step {
                        Some(step) => self.step(step).await,
                        None => self.end("EndOfIndex", "the index takes no more events, and all were sent").await,
                    };
                    quiet_since = Instant::now();
                }
                _ = beats.tick() => {
                    if self.tell(told_at.elapsed()) {
                        (quiet_since, told_at) = (Instant::now(), Instant::now());
                    }
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
                        let part = self.form.quiet();
                        sent = self.out.say(part).await;
                    }
                }
            }
        }
    }

    /// Tells how much came, unless the reader is behind: the next time then makes up for it.
    fn tell(&mut self, since: Duration) -> bool {
        let rate = self.told.rate(since);
        let Some(part) = self.form.rate(&rate, &self.walk.cut()) else { return false };
        let told = self.out.send.try_send(part).is_ok();
        if told {
            self.told.told();
        }
        told
    }

    async fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Rows(segment, batch) => self.rows(segment, &batch).await,
            Step::Failed(segment, problem) if problem.kind == "Truncated" => self.skip(segment).await,
            Step::Failed(segment, problem) => self.fail(segment.segment, &problem).await,
            Step::Ended(segment, Err(problem)) => {
                // Whatever becomes of it, nothing of it was missed.
                self.walk.ended(segment, &[]);
                self.fail(segment, &problem).await
            }
            Step::Ended(segment, Ok(successors)) => {
                let begun = self.walk.ended(segment, &successors);
                if begun.is_empty() && !successors.is_empty() {
                    // They wait for others; one of those may have been truncated since they were listed.
                    return self.rearrange(None).await;
                }
                begun.into_iter().for_each(|segment| self.read(segment, 0));
                true
            }
        }
    }

    /// Goes on where a truncated segment begins now.
    async fn skip(&mut self, segment: SegmentRange) -> bool {
        let from = self.walk.offset(segment.segment);
        match self.door.platform.describe(segment).await {
            Ok(info) if info.start > from => {
                self.walk.reached(segment.segment, info.start);
                self.read(segment, info.start);
                self.say_truncated(Position { segment: segment.segment, offset: from }, Some(info.start)).await
            }
            Ok(info) => {
                let message = format!("offset {from} cannot be read, although the segment begins at {}", info.start);
                self.end("Internal", &message).await
            }
            Err(problem) => self.fail(segment.segment, &problem).await,
        }
    }

    /// Ends the tail, unless the problem is only that the segment was truncated as a whole.
    async fn fail(&mut self, segment: SegmentId, problem: &Problem) -> bool {
        match problem.kind.as_str() {
            "UnknownSegment" => self.rearrange(Some((segment, problem))).await,
            _ => self.end(&problem.kind, &problem.message).await,
        }
    }

    /// Looks at the whole index again, because a segment is gone or others wait for one that is.
    async fn rearrange(&mut self, gone: Option<(SegmentId, &Problem)>) -> bool {
        let nodes = match all_segments(&*self.door.platform, &self.index).await {
            Ok(nodes) => nodes,
            Err(problem) => return self.end(&problem.kind, &problem.message).await,
        };
        let arranged = match self.walk.arrange(&nodes) {
            Ok(arranged) => arranged,
            Err(gap) => return self.end("BadPosition", &gap.to_string()).await,
        };
        match gone {
            Some((segment, problem)) if self.walk.holds(segment) => self.end(&problem.kind, &problem.message).await,
            _ => self.go_on(arranged, &StreamCut::default()).await,
        }
    }

    /// Says what is lost, and reads what has begun: where the cut says, else from the first event that is there.
    async fn go_on(&mut self, arranged: Arranged, cut: &StreamCut) -> bool {
        for position in arranged.lost {
            if !self.say_truncated(position, None).await {
                return false;
            }
        }
        let platform = Arc::clone(&self.door.platform);
        let starts = stream::iter(arranged.begun).map(|segment| {
            let (platform, known) = (Arc::clone(&platform), cut.0.get(&segment.segment).copied());
            async move {
                match known {
                    Some(offset) => (segment, offset),
                    // What cannot be described now is told by reading it.
                    None => (segment, platform.describe(segment).await.map_or(0, |info| info.start)),
                }
            }
        });
        let starts: Vec<(SegmentRange, Offset)> = starts.buffered(STARTS_AT_ONCE).collect().await;
        for (segment, from) in starts {
            self.walk.reached(segment.segment, from);
            self.read(segment, from);
        }
        true
    }

    fn read(&mut self, segment: SegmentRange, from: Offset) {
        let rows = self.door.platform.follow(segment, from);
        let whose = Whose { platform: Arc::clone(&self.door.platform), index: self.index.clone(), segment };
        self.steps.push(steps(whose, rows));
    }

    /// Says that rows are gone that were not sent; without a start the whole segment is.
    async fn say_truncated(&mut self, from: Position, start: Option<Offset>) -> bool {
        let part = self.form.truncated(from, start, &self.walk.cut());
        self.out.say(part).await
    }

    /// Sends the rows of a batch that the reader wants, in parts.
    async fn rows(&mut self, segment: SegmentId, batch: &RecordBatch) -> bool {
        let end = after(batch).unwrap_or_else(|| self.walk.offset(segment) + to_u64(batch.num_rows()));
        let passed = match self.passed(batch).await {
            Ok(passed) => passed,
            Err(problem) => return self.end(&problem.kind, &problem.message).await,
        };
        let count = passed.rows.num_rows();
        self.told.now.seen += to_u64(batch.num_rows());
        self.told.now.matched += to_u64(count);
        let mut from = 0;
        while from < count {
            let part = passed.rows.slice(from, ROWS_AT_ONCE.min(count - from));
            from += part.num_rows();
            let last = passed.offsets.get(from - 1).filter(|_| from < count);
            self.walk.reached(segment, last.map_or(end, |last| last + 1));
            if !self.hand_over(&part).await {
                return false;
            }
        }
        self.walk.reached(segment, end);
        true
    }

    async fn passed(&self, batch: &RecordBatch) -> Result<Passed, Problem> {
        let Some(filter) = &self.filter else { return Ok(Passed::all(batch)) };
        let (filter, batch) = (Arc::clone(filter), batch.clone());
        let work = self.door.queries.spawn(async move { filter.apply(&batch) });
        let ended = AbortOnDropHandle::new(work).await;
        ended.map_err(|error| Problem::internal(format_args!("the filter of a tail ended early: {error}")))?
    }

    /// Hands rows to the connection, or counts them where it has no room and they are not waited for.
    async fn hand_over(&mut self, rows: &RecordBatch) -> bool {
        let count = to_u64(rows.num_rows());
        let room = match self.out.room().await {
            Room::Yes(room) => room,
            Room::No => {
                self.told.now.dropped += count;
                // A log that is read without end must let others go on.
                tokio::task::yield_now().await;
                return true;
            }
            Room::Never => return false,
        };
        let written = self.form.rows(rows, &self.walk.cut()).await;
        match written {
            Ok(Some(part)) => room.send(part),
            Ok(None) => {}
            Err(problem) => {
                drop(room);
                return self.end(&problem.kind, &problem.message).await;
            }
        }
        self.told.now.sent += count;
        true
    }

    /// Says what became of all rows, and why the tail ends; false, so that it does.
    async fn end(&mut self, kind: &str, message: &str) -> bool {
        if let Some(part) = self.form.rate(&self.told.rate(RATE_EVERY), &self.walk.cut()) {
            self.out.say(part).await;
        }
        let part = self.form.ended(kind, message);
        self.out.say(part).await;
        false
    }
}

fn bad_position(gap: Gap) -> Problem {
    Problem::bad_request("BadPosition", gap)
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The offset after the last row.
fn after(batch: &RecordBatch) -> Option<u64> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let offsets = batch.column_by_name("_offset")?.as_primitive_opt::<Int64Type>()?;
    u64::try_from(*offsets.values().last()?).ok().map(|last| last + 1)
}
