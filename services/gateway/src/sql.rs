//! One-off queries over HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, CONTENT_TYPE},
    web::{Bytes, Data},
};
use engine::{EngineError, Limits, ResultSet, TableSource, run_select};
use query::Select;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;
use types::IndexName;
use wire::Problem;

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    metrics::{QUERIES, QUERY_TIME},
    table::IndexTable,
};

/// Stack of a thread that runs queries: twice what planning the deepest text takes.
const STACK_BYTES: usize = 16 << 20;
/// Threads that run queries, at most.
const THREADS_MAX: usize = 8;

/// The threads on which queries run, apart from those that serve connections.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("query")
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
}

#[derive(Debug, Deserialize)]
struct Body {
    sql: String,
}

#[derive(Serialize)]
struct Answer {
    columns: Vec<engine::ResultColumn>,
    rows: Vec<Box<RawValue>>,
    row_count: usize,
    truncated: bool,
    elapsed_ms: u64,
    stats: AnswerStats,
}

#[derive(Serialize)]
struct AnswerStats {
    rows_scanned: u64,
    bytes_scanned: u64,
}

/// `POST /api/v1/sql`: one read-only query, as JSON `{"sql": …}` or as plain text.
///
/// Shape: by `Accept` JSON, `text/csv` or `application/vnd.apache.arrow.stream`; cut results carry `x-truncated: true`.
/// Bounds: `query_rows_max`, `query_memory`, `query_timeout`.
pub(crate) async fn sql(request: HttpRequest, door: Data<Door>, body: Bytes) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let text = text(&request, &body)?;
    let result = answer(&door, &principal, &text).await;
    QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
    let result = result?;
    QUERY_TIME.observe_duration(result.stats.elapsed);
    // A result of many MiB takes longer to write than a connection's thread may be held up.
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let truncated = result.truncated;
    let written = tokio::task::spawn_blocking(move || write(&result, &accept)).await;
    let (kind, bytes) = written
        .map_err(|error| Problem::internal(format_args!("writing the result ended early: {error}")))?
        .map_err(|error| HttpError::engine(error, &text))?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header(("x-truncated", truncated.to_string()))
        .body(bytes))
}

fn text(request: &HttpRequest, body: &[u8]) -> Result<String, HttpError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = |error: &dyn std::fmt::Display| Problem::bad_request("MalformedRequest", error);
    if kind.starts_with("application/json") || (!kind.starts_with("text/") && body.trim_ascii_start().starts_with(b"{"))
    {
        return Ok(serde_json::from_slice::<Body>(body).map_err(|error| wrong(&error))?.sql);
    }
    Ok(std::str::from_utf8(body).map_err(|error| wrong(&error))?.to_owned())
}

/// Runs a text for somebody, who must be allowed to read every index that it names.
pub(crate) async fn answer(door: &Door, principal: &Principal, text: &str) -> Result<ResultSet, HttpError> {
    let select = query::parse_select(text).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    for index in &select.tables {
        principal.may_read(index)?;
    }
    let _open = door.open_queries(principal, &select.tables).await?;
    let _place = door
        .selects
        .take(select.tables.first())
        .ok_or_else(|| Problem::throttled("TooManyQueries", "too many queries at once; try again in a moment"))?;
    let began = Instant::now();
    let mut result = planned(door, &select, began).await;
    if matches!(&result, Err(EngineError::Source(problem)) if plan_is_stale(problem)) {
        result = planned(door, &select, began).await.map_err(|error| match error {
            EngineError::Source(problem) if matches!(problem.kind.as_str(), "Truncated" | "UnknownSegment") => {
                let message = "events were truncated while the query read them, twice: run it again";
                EngineError::Source(Problem::unavailable("TruncatedMeanwhile", message))
            }
            other => other,
        });
    }
    result.map_err(|error| HttpError::engine(error, text))
}

/// Whether something was named that is there no more: truncated, or its chunk replaced. Only a new plan tells.
fn plan_is_stale(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "Truncated" | "UnknownSegment" | "ChunkUnreadable")
}

/// Notes what the query's indexes hold now, and runs it on that.
async fn planned(door: &Door, select: &Select, began: Instant) -> Result<ResultSet, EngineError> {
    let mut tables: Vec<(IndexName, Arc<dyn TableSource>)> = Vec::with_capacity(select.tables.len());
    for index in &select.tables {
        tables.push((index.clone(), Arc::new(IndexTable::open(&*door.platform, index).await?)));
    }
    let allowed = door.config.query_timeout.0;
    match allowed.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        Some(left) => run(door, select.clone(), tables, left).await,
        None => Err(EngineError::Timeout(allowed)),
    }
}

async fn run(
    door: &Door,
    select: Select,
    tables: Vec<(IndexName, Arc<dyn TableSource>)>,
    timeout: Duration,
) -> Result<ResultSet, EngineError> {
    let limits = Limits {
        rows_max: door.config.query_rows_max,
        memory_bytes: usize::try_from(door.config.query_memory.0).unwrap_or(usize::MAX),
        timeout,
    };
    let work = async move { run_select(&select, tables, limits).await };
    let task = match bus::origin() {
        Some(origin) => door.queries.spawn(bus::with_origin(origin, work)),
        None => door.queries.spawn(work),
    };
    // A caller that goes away drops this future, and with it the query.
    AbortOnDropHandle::new(task).await.unwrap_or_else(|error| {
        Err(EngineError::Source(Problem::internal(format_args!("the query ended early: {error}"))))
    })
}

fn write(result: &ResultSet, accept: &str) -> Result<(&'static str, Vec<u8>), EngineError> {
    if accept.contains("text/csv") {
        return Ok(("text/csv; charset=utf-8", result.to_csv()?));
    }
    if accept.contains("application/vnd.apache.arrow.stream") {
        return Ok(("application/vnd.apache.arrow.stream", result.to_ipc_stream()?));
    }
    let answer = Answer {
        columns: result.columns(),
        rows: result.to_json_rows()?,
        row_count: result.row_count(),
        truncated: result.truncated,
        elapsed_ms: u64::try_from(result.stats.elapsed.as_millis()).unwrap_or(u64::MAX),
        stats: AnswerStats { rows_scanned: result.stats.rows_scanned, bytes_scanned: result.stats.bytes_scanned },
    };
    let bytes = serde_json::to_vec(&answer).map_err(|error| EngineError::Internal(Box::new(error)))?;
    Ok(("application/json", bytes))
}
