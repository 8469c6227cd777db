//! Answers whose rows are shown while the query runs: one JSON object a line.
//!
//! Shape: `{"columns": […]}` once and first, any number of `{"rows": […]}`, `{"partial": {"rows": […]}}` and
//! `{"progress": {…}}`, and last `{"end": {…}}` or `{"error": {…}}`. Rows are final and in their order; those of a partial
//! answer take the place of all before them, and are replaced by what follows. What goes wrong before the first line is an
//! answer like any other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::to_bytes,
    http::header::{ACCEPT, CONTENT_TYPE},
    web::Bytes,
};
use engine::{End, EngineError, Limits, Part, ResultSet, TableSource, run_select_stream};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use query::Select;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use types::IndexName;
use wire::Problem;

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    language::Question,
    metrics::{QUERIES, QUERY_TIME},
    sql::{AnswerStats, plan_is_stale},
};

const NDJSON: &str = "application/x-ndjson";

/// Rows of one line.
const LINE_ROWS_MAX: usize = 500;

/// Lines that wait for the connection; beyond it the query waits.
const LINES_MAX: usize = 8;

/// Where the rows of a query go while it runs; clones are of the same answer.
#[derive(Clone)]
pub(crate) struct Shown {
    lines: mpsc::Sender<Bytes>,
    columns: Arc<AtomicBool>,
    rows: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Shown {
    fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (lines, taken) = mpsc::channel(LINES_MAX);
        let flag = Arc::<AtomicBool>::default;
        (Self { lines, columns: flag(), rows: flag(), ended: flag() }, taken)
    }

    /// Runs a query and shows its rows; what is left to be answered has none.
    pub(crate) async fn run(
        self,
        select: Select,
        tables: Vec<(IndexName, Arc<dyn TableSource>)>,
        limits: Limits,
    ) -> Result<ResultSet, EngineError> {
        let mut parts = std::pin::pin!(run_select_stream(select, tables, limits));
        while let Some(part) = parts.next().await {
            match part {
                Ok(Part::End(end)) => {
                    self.end(&end).await?;
                    let schema = Arc::new(arrow::datatypes::Schema::empty());
                    let (truncated, stats) = (end.truncated, end.stats);
                    return Ok(ResultSet { schema, batches: Vec::new(), truncated, stats });
                }
                Ok(part) => self.part(part).await?,
                // It would be run again, and show its rows twice.
                Err(EngineError::Source(problem)) if self.rows.load(Relaxed) && plan_is_stale(&problem) => {
                    let why = format!("the query could not be finished: {}; run it again", problem.message);
                    return Err(EngineError::Source(Problem::unavailable("TruncatedMeanwhile", why)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(EngineError::Source(Problem::internal("the query ended without an end")))
    }

    async fn part(&self, part: Part) -> Result<(), EngineError> {
        match part {
            Part::Columns(columns) => {
                if !self.columns.swap(true, Relaxed) {
                    self.line("columns", &columns).await?;
                }
            }
            Part::Rows(rows) => self.rows(&rows).await?,
            Part::Partial(rows) => self.line("partial", &json!({ "rows": rows.to_json_rows()? })).await?,
            Part::Progress(progress) => self.line("progress", &progress).await?,
            Part::End(end) => self.end(&end).await?,
        }
        Ok(())
    }

    async fn rows(&self, result: &ResultSet) -> Result<(), EngineError> {
        self.rows.store(true, Relaxed);
        for rows in result.to_json_rows()?.chunks(LINE_ROWS_MAX) {
            self.line("rows", &rows).await?;
        }
        Ok(())
    }

    async fn end(&self, end: &End) -> Result<(), EngineError> {
        self.ended.store(true, Relaxed);
        let elapsed_ms = u64::try_from(end.stats.elapsed.as_millis()).unwrap_or(u64::MAX);
        let stats = serde_json::to_value(AnswerStats::of(&end.stats)).unwrap_or_default();
        let end = json!({
            "row_count": end.row_count, "truncated": end.truncated, "elapsed_ms": elapsed_ms, "stats": stats,
        });
        self.line("end", &end).await
    }

    /// A result that was answered as a whole.
    async fn whole(&self, result: &ResultSet) -> Result<(), EngineError> {
        self.part(Part::Columns(result.columns())).await?;
        self.rows(result).await?;
        let (row_count, truncated, stats) = (result.row_count(), result.truncated, result.stats);
        self.end(&End { row_count, truncated, stats }).await
    }

    async fn line<T: Serialize + ?Sized>(&self, member: &'static str, value: &T) -> Result<(), EngineError> {
        let line = line(member, value).map_err(|error| EngineError::Internal(Box::new(error)))?;
        // Where nobody takes it the answer is about to be dropped, and the query with it.
        drop(self.lines.send(line).await);
        Ok(())
    }
}

/// One member and the end of the line.
fn line<T: Serialize + ?Sized>(member: &'static str, value: &T) -> Result<Bytes, serde_json::Error> {
    let mut line = format!("{{\"{member}\":").into_bytes();
    serde_json::to_writer(&mut line, value)?;
    line.extend_from_slice(b"}\n");
    Ok(line.into())
}

/// Whether an answer is to be streamed.
pub(crate) fn is_asked(request: &HttpRequest) -> bool {
    request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains(NDJSON))
}

/// `POST /api/v1/query` with `Accept: application/x-ndjson`.
///
/// Bounds: those of any query; a client that reads slowly slows its query, whose time goes on. A client that goes away
/// stops the query.
pub(crate) async fn answer(door: Door, principal: Principal, question: Question) -> Result<HttpResponse, HttpError> {
    let (shown, lines) = Shown::new();
    let door = Door { shown: Some(shown.clone()), ..door };
    let origin = bus::origin();
    let asked = async move { finished(&door, &principal, &question, shown).await };
    let asked: BoxFuture<'static, _> = match origin {
        Some(origin) => bus::with_origin(origin, asked).boxed(),
        None => asked.boxed(),
    };
    let mut lines = Box::pin(both(lines, asked));
    let first = match lines.next().await {
        Some(Said::Line(line)) => line,
        Some(Said::Failed(error)) => return Err(error),
        None => return Err(Problem::internal("the query ended without an answer").into()),
    };
    let rest = lines.then(|said| async move {
        match said {
            Said::Line(line) => Ok::<_, actix_web::Error>(line),
            Said::Failed(error) => told(&error).await,
        }
    });
    let body = stream::iter([Ok(first)]).chain(rest);
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, NDJSON)).streaming(body))
}

/// What comes of a query: lines, and last what went wrong with it.
enum Said {
    Line(Bytes),
    Failed(HttpError),
}

/// The lines, and the query that makes them, driven by whoever takes them; dropped, the query ends.
fn both(lines: mpsc::Receiver<Bytes>, asked: BoxFuture<'static, Result<(), HttpError>>) -> impl Stream<Item = Said> {
    let failed = Arc::<Mutex<Option<HttpError>>>::default();
    let noted = Arc::clone(&failed);
    let asked = asked.map(move |done| *noted.lock() = done.err());
    let lines = stream::unfold(lines, |mut lines| async move { lines.recv().await.map(|line| (line, lines)) });
    let lines = stream::select(lines.map(Said::Line), asked.into_stream().filter_map(|()| async { None }));
    lines.chain(
        stream::once(async move { failed.lock().take() }).filter_map(|failed| async { failed.map(Said::Failed) }),
    )
}

async fn finished(door: &Door, principal: &Principal, question: &Question, shown: Shown) -> Result<(), HttpError> {
    let result = question.answer(door, principal).await;
    QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
    let result = result?;
    QUERY_TIME.observe_duration(result.stats.elapsed);
    if !shown.ended.load(Relaxed) {
        shown.whole(&result).await.map_err(|error| HttpError::engine(error, &question.text))?;
    }
    Ok(())
}

/// What went wrong as the last line: what it would be as an answer of its own.
async fn told(error: &HttpError) -> Result<Bytes, actix_web::Error> {
    let body = to_bytes(error.error_response().into_body()).await.unwrap_or_default();
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let inner = told.get("error").cloned().unwrap_or_else(|| json!({ "message": error.to_string() }));
    Ok(line("error", &inner)?)
}
