//! One-off queries over HTTP.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, CONTENT_TYPE},
    web::{Bytes, Data, Query},
};
use arrow::{array::RecordBatch, datatypes::DataType};
use engine::{EngineError, Limits, ResultSet, Rows, ScanStats, TableSource, run_select};
use query::{Column, ColumnKind, Diagnostic, Select, Surroundings, TABLES_MAX};
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
    language::{Manner, Question},
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

/// How long a query waits for others to end.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long it is believed which columns an index has, where nothing is read from it.
pub(crate) const COLUMNS_TTL: Duration = Duration::from_secs(10);
/// Indexes whose columns are remembered; beyond it the least used are forgotten.
pub(crate) const COLUMNS_KEPT_MAX: u64 = 256;

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(alias = "sql")]
    text: String,
    #[serde(flatten)]
    manner: Manner,
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
    #[serde(flatten)]
    scan: ScanStats,
}

/// `POST /api/v1/query`, once `/sql`: one read-only query, as JSON `{"text": …, "language"?: "sql"|"pipe"|"logql", …}` or as
/// plain text with the rest in the query string.
///
/// Shape: by `Accept` JSON, `text/csv` or `application/vnd.apache.arrow.stream`; cut results carry `x-truncated: true`.
/// Bounds: `query_rows_max`, `query_memory`, `query_timeout`, `query_scan`.
pub(crate) async fn sql(
    request: HttpRequest,
    door: Data<Door>,
    manner: Query<Manner>,
    body: Bytes,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let question = question(&request, manner.into_inner(), &body)?;
    let result = question.answer(&door, &principal).await;
    QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
    let result = result?;
    QUERY_TIME.observe_duration(result.stats.elapsed);
    // A result of many MiB takes longer to write than a connection's thread may be held up.
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let truncated = result.truncated;
    let written = tokio::task::spawn_blocking(move || write(&result, &accept)).await;
    let (kind, bytes) = written
        .map_err(|error| Problem::internal(format_args!("writing the result ended early: {error}")))?
        .map_err(|error| HttpError::engine(error, &question.text))?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header(("x-truncated", truncated.to_string()))
        .body(bytes))
}

fn question(request: &HttpRequest, manner: Manner, body: &[u8]) -> Result<Question, HttpError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = |error: &dyn std::fmt::Display| Problem::bad_request("MalformedRequest", error);
    // A search may begin with a brace too, but only where it says that it is LogQL.
    let braced = || manner.reads_objects() && body.trim_ascii_start().starts_with(b"{");
    if kind.starts_with("application/json") || (!kind.starts_with("text/") && braced()) {
        let body: Body = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
        return Ok(Question { text: body.text, manner: body.manner.or(manner) });
    }
    let text = std::str::from_utf8(body).map_err(|error| wrong(&error))?.to_owned();
    Ok(Question { text, manner })
}

/// What a language makes of the columns that its indexes have now; places of a complaint are in the text.
pub(crate) type Lower<'a> = dyn Fn(&Surroundings) -> Result<Select, Diagnostic> + Send + Sync + 'a;

/// What is run: a statement, or what becomes one when the columns are known.
enum Asked<'a> {
    Statement(&'a Select),
    Plan(&'a Lower<'a>),
}

/// Runs a text for somebody, who must be allowed to read every index that it names.
///
/// With `EXPLAIN` in front it is run all the same, and the answer is what that took.
pub(crate) async fn answer(door: &Door, principal: &Principal, text: &str) -> Result<ResultSet, HttpError> {
    let explained = explained(text);
    let statement = explained.as_deref().unwrap_or(text);
    let select = query::parse_select(statement).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    let result = admitted(door, principal, &select.tables, text, Asked::Statement(&select)).await?;
    if explained.is_none() {
        return Ok(result);
    }
    result.explain().map_err(|error| HttpError::engine(error, text))
}

/// The statement behind `EXPLAIN`, each word at its place.
fn explained(text: &str) -> Option<String> {
    const WORD: &str = "EXPLAIN";
    let begins = text.len() - text.trim_start().len();
    let word = text.get(begins..begins + WORD.len()).filter(|word| word.eq_ignore_ascii_case(WORD))?;
    let rest = text[begins + word.len()..].strip_prefix(char::is_whitespace)?;
    Some(format!("{}{} {rest}", &text[..begins], " ".repeat(WORD.len())))
}

/// Runs what `lower` makes of the indexes' columns for somebody, who must be allowed to read every one of them.
///
/// Bounds: as many indexes as one statement may read.
pub(crate) async fn answer_plan(
    door: &Door,
    principal: &Principal,
    indexes: &[IndexName],
    text: &str,
    lower: &Lower<'_>,
) -> Result<ResultSet, HttpError> {
    if indexes.len() > TABLES_MAX {
        let found = Diagnostic::new(1, 1, format!("a query reads at most {TABLES_MAX} indexes"));
        return Err(HttpError::query("InvalidQuery", &found, text));
    }
    admitted(door, principal, indexes, text, Asked::Plan(lower)).await
}

async fn admitted(
    door: &Door,
    principal: &Principal,
    indexes: &[IndexName],
    text: &str,
    asked: Asked<'_>,
) -> Result<ResultSet, HttpError> {
    for index in indexes {
        principal.may_read(index)?;
    }
    let _open = door.open_queries(principal, indexes).await?;
    let full = || Problem::throttled("TooManyQueries", "too many queries at once; try again in a moment");
    let _place = door.selects.wait(indexes.first(), WAIT_MAX).await.ok_or_else(full)?;
    let began = Instant::now();
    let mut result = planned(door, indexes, &asked, began).await;
    if matches!(&result, Err(EngineError::Source(problem)) if plan_is_stale(problem)) {
        result = planned(door, indexes, &asked, began).await.map_err(|error| match error {
            EngineError::Source(problem) if matches!(problem.kind.as_str(), "Truncated" | "UnknownSegment") => {
                let message = "events were truncated while the query read them, twice: run it again";
                EngineError::Source(Problem::unavailable("TruncatedMeanwhile", message))
            }
            other => other,
        });
    }
    result.map_err(|error| HttpError::engine(error, text))
}

/// Runs what `lower` makes of rows that are at hand, as if they were all that the index holds.
pub(crate) async fn answer_rows(
    door: &Door,
    index: &IndexName,
    rows: RecordBatch,
    text: &str,
    lower: &Lower<'_>,
) -> Result<ResultSet, HttpError> {
    let table: Arc<dyn TableSource> = Arc::new(Rows::new(vec![rows]));
    let tables = vec![(index.clone(), table)];
    let columns = columns_of(&tables).await?;
    let around = Surroundings { now: door.clock.now(), columns, rows_max: door.config.query_rows_max };
    let select = lower(&around).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    run(door, select, tables, door.config.query_timeout.0).await.map_err(|error| HttpError::engine(error, text))
}

/// Whether something was named that is there no more: truncated, or its chunk replaced. Only a new plan tells.
fn plan_is_stale(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "Truncated" | "UnknownSegment" | "ChunkUnreadable")
}

/// Notes what the query's indexes hold now, and runs it on that.
async fn planned(
    door: &Door,
    indexes: &[IndexName],
    asked: &Asked<'_>,
    began: Instant,
) -> Result<ResultSet, EngineError> {
    let mut tables: Vec<(IndexName, Arc<dyn TableSource>)> = Vec::with_capacity(indexes.len());
    for index in indexes {
        tables.push((index.clone(), Arc::new(IndexTable::open(&*door.platform, index).await?)));
    }
    let select = match asked {
        Asked::Statement(select) => (*select).clone(),
        Asked::Plan(lower) => {
            let columns = columns_of(&tables).await?;
            let around = Surroundings { now: door.clock.now(), columns, rows_max: door.config.query_rows_max };
            lower(&around).map_err(EngineError::Query)?
        }
    };
    let allowed = door.config.query_timeout.0;
    let Some(left) = allowed.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
        return Err(EngineError::Timeout(allowed));
    };
    let result = run(door, select, tables, left).await;
    match asked {
        Asked::Statement(_) => result,
        // The place is in a statement that nobody has written.
        Asked::Plan(_) => result.map_err(|error| match error {
            EngineError::Query(found) => EngineError::Query(Diagnostic::new(1, 1, found.message)),
            other => other,
        }),
    }
}

/// The columns of each table, of all that it holds together.
async fn columns_of(tables: &[(IndexName, Arc<dyn TableSource>)]) -> Result<BTreeMap<IndexName, Vec<Column>>, Problem> {
    let mut columns = BTreeMap::new();
    for (index, table) in tables {
        let schema = ingest::merge_schemas(table.schemas().await?.iter().map(AsRef::as_ref));
        let of = schema.fields().iter().map(|f| Column { name: f.name().clone(), kind: kind(f.data_type()) }).collect();
        columns.insert(index.clone(), of);
    }
    Ok(columns)
}

fn kind(of: &DataType) -> ColumnKind {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
        DataType::Dictionary(_, values) => kind(values),
        DataType::Boolean => ColumnKind::Boolean,
        DataType::Timestamp(..) => ColumnKind::Time,
        of if of.is_integer() => ColumnKind::Integer,
        of if of.is_floating() => ColumnKind::Number,
        _ => ColumnKind::Other,
    }
}

/// The columns of an index, for somebody who must be allowed to read it; up to [`COLUMNS_TTL`] old.
pub(crate) async fn columns(
    door: &Door,
    principal: &Principal,
    index: &IndexName,
) -> Result<Arc<Vec<Column>>, HttpError> {
    principal.may_read(index)?;
    if let Some(known) = door.columns.get(index) {
        return Ok(known);
    }
    let table: Arc<dyn TableSource> = Arc::new(IndexTable::open(&*door.platform, index).await?);
    let found = columns_of(&[(index.clone(), table)]).await?.remove(index).unwrap_or_default();
    let found = Arc::new(found);
    door.columns.insert(index.clone(), Arc::clone(&found));
    Ok(found)
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
        scan_bytes: door.config.query_scan.0,
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
        stats: AnswerStats {
            rows_scanned: result.stats.rows_scanned,
            bytes_scanned: result.stats.bytes_scanned,
            scan: result.stats.scan,
        },
    };
    let bytes = serde_json::to_vec(&answer).map_err(|error| EngineError::Internal(Box::new(error)))?;
    Ok(("application/json", bytes))
}
