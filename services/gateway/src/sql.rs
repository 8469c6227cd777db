//! One-off queries over HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE},
    web::{Bytes, Data, Query},
};
use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema, SchemaRef},
};
use engine::{
    EngineError, Limits, ResultSet, Rows, ScanStats, Scattered, TableSource, Whole, is_counted, run_scattered,
    run_select,
};
use host::{Place, QueryPermit};
use query::{Column, ColumnKind, Diagnostic, Select, Surroundings, TABLES_MAX, TableName};
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
    export::Form,
    language::{Manner, Question},
    library::found::{Found, Ready, Tables},
    metrics::{QUERIES, QUERY_TIME},
    scatter, stream,
    table::{IndexTable, Noted, noted},
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
pub(crate) struct AnswerStats {
    rows_scanned: u64,
    bytes_scanned: u64,
    #[serde(flatten)]
    scan: ScanStats,
    /// Parts of it that ran beside the rows, and those of them that had to run here instead.
    fragments: u64,
    fragments_here: u64,
}

impl AnswerStats {
    pub(crate) fn of(stats: &engine::Stats) -> Self {
        let engine::Stats { rows_scanned, bytes_scanned, scan, fragments, .. } = *stats;
        Self { rows_scanned, bytes_scanned, scan, fragments: fragments.beside, fragments_here: fragments.here }
    }
}

/// `POST /api/v1/query`, once `/sql`: one read-only query, as JSON `{"text": …, "language"?: "sql"|"pipe"|"logql", …}` or as
/// plain text with the rest in the query string.
///
/// Shape: by `format` or `Accept` one of [`Form`], or by `Accept` `application/x-ndjson` ([`stream`](crate::stream)); cut results carry `x-truncated: true`.
/// Bounds: `query_rows_max`, `query_memory`, `query_timeout`, `query_scan`.
pub(crate) async fn sql(
    request: HttpRequest,
    door: Data<Door>,
    manner: Query<Manner>,
    body: Bytes,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let question = question(&request, manner.into_inner(), &body)?;
    if stream::is_asked(&request) {
        return stream::answer(door.as_ref().clone(), principal, question).await;
    }
    let result = question.answer(&door, &principal).await;
    QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
    let result = result?;
    QUERY_TIME.observe_duration(result.stats.elapsed);
    // A result of many MiB takes longer to write than a connection's thread may be held up.
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = question.manner.form.unwrap_or_else(|| Form::accepted(accept));
    let truncated = result.truncated;
    let written = tokio::task::spawn_blocking(move || form.write(&result).unwrap_or_else(|| write(&result))).await;
    let bytes = written
        .map_err(|error| Problem::internal(format_args!("writing the result ended early: {error}")))?
        .map_err(|error| HttpError::engine(error, &question.text))?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CONTENT_TYPE, form.media_type())).insert_header(("x-truncated", truncated.to_string()));
    if let Some(kept) = question.manner.download.as_deref().and_then(|name| form.disposition(name)) {
        answer.insert_header((CONTENT_DISPOSITION, kept));
    }
    Ok(answer.body(bytes))
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

/// The same of a query that may name views and lookups, whose columns come beside.
pub(crate) type LowerOver<'a> =
    dyn Fn(&Surroundings, &BTreeMap<TableName, Vec<Column>>) -> Result<Select, Diagnostic> + Send + Sync + 'a;

/// What is run: a statement, or what becomes one when the columns are known.
enum Asked<'a> {
    Statement(&'a Select),
    Plan(&'a Lower<'a>),
    Over(&'a LowerOver<'a>),
}

/// Runs a text for somebody, who must be allowed to read every index that it names.
///
/// With `EXPLAIN` in front it is run all the same, and the answer is what that took.
pub(crate) async fn answer(door: &Door, principal: &Principal, text: &str) -> Result<ResultSet, HttpError> {
    let explained = explained(text);
    let statement = explained.as_deref().unwrap_or(text);
    let select = query::parse_select(statement).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    let whole = explained.as_ref().map(|_| door.without_stream());
    let door = whole.as_ref().unwrap_or(door);
    let result = answer_select(door, principal, text, &select).await?;
    if explained.is_none() {
        return Ok(result);
    }
    result.explain().map_err(|error| HttpError::engine(error, text))
}

/// Runs what a text was read as for somebody, who must be allowed to read every index that it names.
pub(crate) async fn answer_select(
    door: &Door,
    principal: &Principal,
    text: &str,
    select: &Select,
) -> Result<ResultSet, HttpError> {
    Box::pin(admitted(door, principal, (&select.tables, &select.items), text, Asked::Statement(select))).await
}

/// Whether a text is a query, and somebody may read every index that it names; whether they have what it asks for shows when it runs.
pub(crate) fn check(principal: &Principal, text: &str) -> Result<(), HttpError> {
    let explained = explained(text);
    let statement = explained.as_deref().unwrap_or(text);
    let select = query::parse_select(statement).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    let libraries = select.items.iter().map(|item| &item.index);
    select.tables.iter().chain(libraries).try_for_each(|index| principal.may_read(index))
}

/// The columns of what a text answers to somebody, who must be allowed to read every index that it names: it is planned and not run.
pub(crate) async fn schema(door: &Door, principal: &Principal, text: &str) -> Result<SchemaRef, HttpError> {
    let explained = explained(text);
    let statement = explained.as_deref().unwrap_or(text);
    let select = query::parse_select(statement).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    let select = select.without_rows();
    let result = answer_select(door, principal, text, &select).await?;
    match explained {
        None => Ok(result.schema),
        Some(_) => result.explain().map(|told| told.schema).map_err(|error| HttpError::engine(error, text)),
    }
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
    Box::pin(admitted(door, principal, (indexes, &[]), text, Asked::Plan(lower))).await
}

/// The same of a query that may name views and lookups.
pub(crate) async fn answer_over(
    door: &Door,
    principal: &Principal,
    named: (&[IndexName], &[TableName]),
    text: &str,
    lower: &LowerOver<'_>,
) -> Result<ResultSet, HttpError> {
    Box::pin(admitted(door, principal, named, text, Asked::Over(lower))).await
}

/// A place for a query of somebody, who must be allowed to read every index that it names; it ends when it is dropped.
///
/// Errors: Forbidden; Throttled `QuotaQueries`, `TooManyQueries`.
pub(crate) async fn admit(
    door: &Door,
    principal: &Principal,
    indexes: &[IndexName],
) -> Result<(Vec<QueryPermit>, Place), HttpError> {
    for index in indexes {
        principal.may_read(index)?;
    }
    let open = door.open_queries(principal, indexes).await?;
    let full = || Problem::throttled("TooManyQueries", "too many queries at once; try again in a moment");
    Ok((open, door.selects.wait(indexes.first(), WAIT_MAX).await.ok_or_else(full)?))
}

async fn admitted(
    door: &Door,
    principal: &Principal,
    (named, items): (&[IndexName], &[TableName]),
    text: &str,
    asked: Asked<'_>,
) -> Result<ResultSet, HttpError> {
    // Most queries name none: what looks them up lies apart, so that it takes no stack of theirs.
    let found = Box::pin(Found::of(door, principal, items, text)).await?;
    // Whoever may read a view is not therefore allowed to read what it reads.
    let mut indexes = named.to_vec();
    indexes.extend(found.indexes().into_iter().filter(|index| !named.contains(index)));
    if indexes.len() > TABLES_MAX {
        let found = Diagnostic::new(1, 1, format!("a query reads at most {TABLES_MAX} indexes"));
        return Err(HttpError::query("InvalidQuery", &found, text));
    }
    let indexes = indexes.as_slice();
    let _held = admit(door, principal, indexes).await?;
    let began = Instant::now();
    let mut result = planned(door, indexes, (&asked, &found), began).await;
    if matches!(&result, Err(EngineError::Source(problem)) if plan_is_stale(problem)) {
        result = planned(door, indexes, (&asked, &found), began).await.map_err(|error| match error {
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
    answer_source(door, index, Arc::new(Rows::new(vec![rows])), text, lower).await
}

/// The same of what a source holds; the caller has been [admitted](admit).
pub(crate) async fn answer_source(
    door: &Door,
    index: &IndexName,
    table: Arc<dyn TableSource>,
    text: &str,
    lower: &Lower<'_>,
) -> Result<ResultSet, HttpError> {
    let tables = vec![(index.clone(), table)];
    let columns = columns_of(&tables).await?;
    let around = Surroundings { now: door.clock.now(), columns, rows_max: door.config.query_rows_max };
    let select = lower(&around).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    run(door, select, tables, door.config.query_timeout.0).await.map_err(|error| HttpError::engine(error, text))
}

/// Whether something was named that is there no more: truncated, or its chunk replaced. Only a new plan tells.
pub(crate) fn plan_is_stale(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "Truncated" | "UnknownSegment" | "ChunkUnreadable")
}

/// Notes what the query's indexes hold now, and runs it on that.
async fn planned(
    door: &Door,
    indexes: &[IndexName],
    (asked, found): (&Asked<'_>, &Found),
    began: Instant,
) -> Result<ResultSet, EngineError> {
    let mut indexed = Vec::with_capacity(indexes.len());
    for index in indexes {
        indexed.push((index.clone(), noted(&*door.platform, index).await?));
    }
    // Boxed: what calls this is polled on threads with little stack.
    match Box::pin(by_fragments(door, &indexed, (asked, found), began)).await? {
        Scattered::Answered(result) => Ok(*result),
        Scattered::Whole(why) => Box::pin(by_rows(door, &indexed, (asked, found), began)).await.map(|mut result| {
            result.stats.fragments.whole = Some(why);
            result
        }),
    }
}

/// Runs it beside the rows, where that is worth it and can be done. A streamed answer shows what is found on its way, and
/// so is read here.
async fn by_fragments(
    door: &Door,
    indexed: &[(IndexName, Vec<Noted>)],
    (asked, found): (&Asked<'_>, &Found),
    began: Instant,
) -> Result<Scattered, EngineError> {
    if door.shown.is_some() {
        return Ok(Scattered::Whole(Whole::Streamed));
    }
    if !found.is_empty() {
        return Ok(Scattered::Whole(Whole::Library));
    }
    // Of chunks it reads no more than counters, which is less than asking for them.
    let tails = || indexed.iter().flat_map(|(_, segments)| segments).map(Noted::tail_bytes).sum::<u64>();
    let counted = |select: &Select| is_counted(select) && tails() < door.config.fragments_from.0;
    if matches!(asked, Asked::Statement(select) if counted(select)) {
        return Ok(Scattered::Whole(Whole::Counted));
    }
    let limits = limits(door, left(door, began)?);
    let tables = match scatter::open(door, indexed, limits).await {
        Ok(tables) => tables,
        Err(why) => return Ok(Scattered::Whole(why)),
    };
    let columns = || tables.iter().map(|(index, table)| (index.clone(), columns_in(&table.schema()))).collect();
    let select = asked.select(door, columns, &Ready::default())?;
    // What a pipe counts shows only now.
    if counted(&select) {
        return Ok(Scattered::Whole(Whole::Counted));
    }
    let limits = Limits { timeout: left(door, began)?, ..limits };
    on_threads(door, async move { run_scattered(&select, tables, limits).await })
        .await
        .map_err(|error| asked.placed(error))
}

/// Reads what it needs, and runs it here.
async fn by_rows(
    door: &Door,
    indexed: &[(IndexName, Vec<Noted>)],
    (asked, found): (&Asked<'_>, &Found),
    began: Instant,
) -> Result<ResultSet, EngineError> {
    let mut tables: Tables = Vec::with_capacity(indexed.len());
    for (index, segments) in indexed {
        let table = IndexTable::read(&*door.platform, segments, &AtomicUsize::new(0)).await?;
        tables.push((index.clone(), Arc::new(table)));
    }
    let columns = match asked {
        Asked::Statement(_) => BTreeMap::new(),
        Asked::Plan(_) | Asked::Over(_) => columns_of(&tables).await?,
    };
    let wanted = matches!(asked, Asked::Over(_));
    let ready = Box::pin(found.ready(door, &mut tables, wanted, left(door, began)?)).await?;
    let select = asked.select(door, || columns, &ready)?;
    run(door, select, tables, left(door, began)?).await.map_err(|error| asked.placed(error))
}

impl Asked<'_> {
    /// What went wrong with what was run, in terms of what was asked.
    fn placed(&self, error: EngineError) -> EngineError {
        match (self, error) {
            // The place is in a statement that nobody has written.
            (Self::Plan(_) | Self::Over(_), EngineError::Query(found)) => {
                EngineError::Query(Diagnostic::new(1, 1, found.message))
            }
            (_, error) => error,
        }
    }

    /// What is run, over tables of these columns.
    fn select(
        &self,
        door: &Door,
        columns: impl FnOnce() -> BTreeMap<IndexName, Vec<Column>>,
        ready: &Ready,
    ) -> Result<Select, EngineError> {
        let (now, rows_max) = (door.clock.now(), door.config.query_rows_max);
        let around = || Surroundings { now, columns: columns(), rows_max };
        let mut select = match self {
            Self::Statement(select) => (*select).clone(),
            Self::Plan(lower) => lower(&around()).map_err(EngineError::Query)?,
            Self::Over(lower) => lower(&around(), &ready.columns).map_err(EngineError::Query)?,
        };
        ready.attach(&mut select);
        Ok(select)
    }
}

/// What is left of the time that a query may take.
fn left(door: &Door, began: Instant) -> Result<Duration, EngineError> {
    let allowed = door.config.query_timeout.0;
    let left = allowed.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
    left.ok_or(EngineError::Timeout(allowed))
}

fn limits(door: &Door, timeout: Duration) -> Limits {
    Limits {
        rows_max: door.config.query_rows_max,
        memory_bytes: usize::try_from(door.config.query_memory.0).unwrap_or(usize::MAX),
        timeout,
        scan_bytes: door.config.query_scan.0,
    }
}

/// The columns of each table, of all that it holds together.
pub(crate) async fn columns_of(
    tables: &[(IndexName, Arc<dyn TableSource>)],
) -> Result<BTreeMap<IndexName, Vec<Column>>, Problem> {
    let mut columns = BTreeMap::new();
    for (index, table) in tables {
        let schema = ingest::merge_schemas(table.schemas().await?.iter().map(AsRef::as_ref));
        columns.insert(index.clone(), columns_in(&schema));
    }
    Ok(columns)
}

/// The columns that a schema names.
pub(crate) fn columns_in(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|f| Column { name: f.name().clone(), kind: kind(f.data_type()) }).collect()
}

pub(crate) fn kind(of: &DataType) -> ColumnKind {
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

pub(crate) async fn run(
    door: &Door,
    select: Select,
    tables: Vec<(IndexName, Arc<dyn TableSource>)>,
    timeout: Duration,
) -> Result<ResultSet, EngineError> {
    let limits = limits(door, timeout);
    let shown = door.shown.clone();
    // What it holds while it waits is large, and it is awaited at many depths.
    let work = Box::pin(async move {
        match shown {
            Some(shown) => shown.run(select, tables, limits).await,
            None => run_select(&select, tables, limits).await,
        }
    });
    on_threads(door, work).await
}

/// Runs it on the threads of queries.
async fn on_threads<T: Send + 'static>(
    door: &Door,
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    let task = match bus::origin() {
        Some(origin) => door.queries.spawn(bus::with_origin(origin, work)),
        None => door.queries.spawn(work),
    };
    // A caller that goes away drops this future, and with it the query.
    AbortOnDropHandle::new(task).await.unwrap_or_else(|error| {
        Err(EngineError::Source(Problem::internal(format_args!("the query ended early: {error}"))))
    })
}

/// The answer of the API.
fn write(result: &ResultSet) -> Result<Vec<u8>, EngineError> {
    let answer = Answer {
        columns: result.columns(),
        rows: result.to_json_rows()?,
        row_count: result.row_count(),
        truncated: result.truncated,
        elapsed_ms: u64::try_from(result.stats.elapsed.as_millis()).unwrap_or(u64::MAX),
        stats: AnswerStats::of(&result.stats),
    };
    serde_json::to_vec(&answer).map_err(|error| EngineError::Internal(Box::new(error)))
}
