//! Who asks, of which indexes, and how a query of LogQL is run for them.

use actix_web::{HttpRequest, web::Data};
use engine::ResultSet;
use parking_lot::Mutex;
use query::{
    Column, ColumnKind, Logql, Plan, Surroundings,
    logql::{Grouping, LogqlRange, Metric, RangeFunction, RangeMetric, VectorFunction, lower_logs, lower_metric},
};
use serde_json::Value;
use types::{IndexName, Timestamp};
use wire::Problem;

use super::{
    answer::{self, CATEGORIZE, Line, Series},
    labels,
    parameters::{Parameters, Span},
};
use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    metrics::{QUERIES, QUERY_TIME},
    sql,
};

/// Loki's tenant, which is an index here; looked at where the token does not say it. Several stand between bars.
const TENANT: &str = "x-scope-orgid";
const FLAGS: &str = "x-loki-response-encoding-flags";

/// One who asks.
pub(super) struct Asker {
    pub(super) door: Data<Door>,
    pub(super) principal: Principal,
    pub(super) indexes: Vec<IndexName>,
    pub(super) parameters: Parameters,
    /// Whether labels shall stand apart from metadata.
    pub(super) categorize: bool,
}

/// What becomes of more points than there may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Most {
    /// They are left out.
    Cut(usize),
    /// The query is refused.
    Refuse(usize),
}

/// Lines that were found.
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    pub(super) stats: Value,
}

impl Asker {
    /// Reads who asks and what is said; a binding's token leads to its index, the admin token needs a tenant.
    pub(super) async fn of(request: &HttpRequest, door: &Data<Door>, form: &[u8]) -> Result<Self, HttpError> {
        let principal = door.auth.of(request).await?;
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let indexes = match &principal {
            Principal::Bound(grant) => vec![grant.index.clone()],
            Principal::Admin => indexes_of(header(TENANT).unwrap_or_default())?,
        };
        for index in &indexes {
            principal.may_read(index)?;
        }
        let parameters = Parameters::read(request.query_string(), form)?;
        let categorize = header(FLAGS).is_some_and(|flags| flags.split(',').any(|flag| flag.trim() == CATEGORIZE));
        Ok(Self { door: Data::clone(door), principal, indexes, parameters, categorize })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.door.clock.now()
    }

    /// The most rows that a query answers.
    pub(super) fn rows_max(&self) -> usize {
        self.door.config.query_rows_max
    }

    /// What the parameter `query` selects; every line where it is missing.
    pub(super) fn selected(&self) -> Result<Plan, HttpError> {
        self.parameters.get("query").map_or_else(|| Ok(Plan::default()), logs_of)
    }

    /// The columns of all indexes together; where two disagree it is text.
    pub(super) async fn columns(&self) -> Result<Vec<Column>, HttpError> {
        let mut all: Vec<Column> = Vec::new();
        for index in &self.indexes {
            let found = sql::columns(&self.door, &self.principal, index).await?;
            add(&mut all, &found);
        }
        Ok(all)
    }

    /// Runs a log query.
    ///
    /// Order: by time, and at one instant by segment and offset; newest first unless `forward`.
    pub(super) async fn lines(
        &self,
        (text, plan): (&str, &Plan),
        span: Span,
        (limit, forward): (usize, bool),
    ) -> Result<Lines, HttpError> {
        let range = self.range(span.start, span.end);
        let seen = Mutex::new(Vec::new());
        let lower = |around: &Surroundings| {
            *seen.lock() = together(around);
            lower_logs(plan, text, &Surroundings { rows_max: limit, ..around.clone() }, &range, forward)
        };
        let result = self.run(sql::answer_plan(&self.door, &self.principal, &self.indexes, text, &lower)).await?;
        let own = seen.into_inner();
        let streams = labels::of_query(&own, &[plan]);
        let found = apart(move || {
            let lines = answer::lines(&result.batches, &own, &streams, limit);
            lines.map(|lines| Lines { stats: answer::stats(&result, lines.len()), lines })
        });
        Ok(found.await?.map_err(unreadable)?)
    }

    /// Runs a metric query; series that the query does not group are apart by the labels of its streams.
    ///
    /// Errors: BadRequest `QueryTooLarge` where there are more points than may be.
    pub(super) async fn series(
        &self,
        (text, metric): (&str, &Metric),
        range: LogqlRange,
        most: Most,
    ) -> Result<(Vec<Series>, Value), HttpError> {
        let plans = plans_of(metric);
        let (Most::Cut(rows_max) | Most::Refuse(rows_max)) = most;
        let lower = |around: &Surroundings| {
            let labels = labels::of_query(&together(around), &plans);
            let range = LogqlRange { labels, ..range.clone() };
            lower_metric(metric, text, &Surroundings { rows_max, ..around.clone() }, &range)
        };
        let result = self.run(sql::answer_plan(&self.door, &self.principal, &self.indexes, text, &lower)).await?;
        let is_cut = result.row_count() > rows_max || result.truncated;
        if is_cut && matches!(most, Most::Refuse(_)) {
            let message = format!(
                "maximum of points ({rows_max}) reached for a single query; choose a longer step or group by fewer labels"
            );
            return Err(Problem::bad_request("QueryTooLarge", message).into());
        }
        let found = apart(move || {
            answer::series(&result).map(|all| {
                let stats = answer::stats(&result, all.iter().map(|one| one.points.len()).sum());
                (all, stats)
            })
        });
        Ok(found.await?.map_err(unreadable)?)
    }

    /// One number for each group of the lines of a span: how many there are, or how many bytes.
    ///
    pub(super) async fn grouped(
        &self,
        function: RangeFunction,
        logs: &Plan,
        span: Span,
        by: Vec<String>,
        most: Most,
    ) -> Result<Vec<Series>, HttpError> {
        let metric = sum_by(function, logs, span.length(), by);
        // A window begins behind its first instant and holds its last.
        let last = Timestamp::from_nanos(span.end.nanos().saturating_sub(1));
        Ok(self.series(("", &metric), self.range(last, last), most).await?.0)
    }

    /// A range of instants without a step.
    pub(super) fn range(&self, start: Timestamp, end: Timestamp) -> LogqlRange {
        LogqlRange { indexes: self.indexes.clone(), start, end, step: std::time::Duration::ZERO, labels: Vec::new() }
    }

    async fn run(&self, query: impl Future<Output = Result<ResultSet, HttpError>>) -> Result<ResultSet, HttpError> {
        let result = query.await;
        QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
        let result = result?;
        QUERY_TIME.observe_duration(result.stats.elapsed);
        Ok(result)
    }
}

/// A sum over the lines of windows, grouped by labels.
pub(super) fn sum_by(function: RangeFunction, logs: &Plan, range: std::time::Duration, by: Vec<String>) -> Metric {
    let (logs, unwrap, quantile, grouping) = (logs.clone(), None, None, None);
    let of = Metric::Range(Box::new(RangeMetric { function, quantile, logs, unwrap, range, offset: 0, grouping }));
    let grouping = Some(Grouping { without: false, labels: by });
    Metric::Aggregate { function: VectorFunction::Sum, count: None, grouping, of: Box::new(of) }
}

/// Reads a query of LogQL.
pub(super) fn read(text: &str) -> Result<Logql, HttpError> {
    query::parse_logql(text).map_err(|found| HttpError::query("InvalidQuery", &found, text))
}

/// Reads a log query.
pub(super) fn logs_of(text: &str) -> Result<Plan, HttpError> {
    match read(text)? {
        Logql::Logs(plan) => Ok(plan),
        Logql::Metric(_) => {
            Err(Problem::bad_request("InvalidQuery", "only log queries are supported here, not metric queries").into())
        }
    }
}

/// Does away from the threads of connections what may take milliseconds.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::internal(format_args!("writing the result ended early: {error}")))
}

fn unreadable(error: arrow::error::ArrowError) -> Problem {
    Problem::internal(format_args!("a result cannot be read: {error}"))
}

fn indexes_of(tenants: &str) -> Result<Vec<IndexName>, HttpError> {
    if tenants.is_empty() {
        return Err(HttpError::unauthorized(
            "no org id: name the log index in X-Scope-OrgID, or use a binding's token",
        ));
    }
    let index = |name: &str| {
        name.parse().map_err(|error| Problem::not_found("UnknownIndex", format_args!("{name:?}: {error}")))
    };
    let mut all: Vec<IndexName> = tenants.split('|').map(index).collect::<Result<_, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Every log query in a metric.
fn plans_of(metric: &Metric) -> Vec<&Plan> {
    match metric {
        Metric::Number(_) | Metric::Vector(_) => Vec::new(),
        Metric::Range(range) => vec![&range.logs],
        Metric::Aggregate { of, .. } => plans_of(of),
        Metric::Binary { left, right, .. } => [plans_of(left), plans_of(right)].concat(),
    }
}

fn together(around: &Surroundings) -> Vec<Column> {
    let mut all = Vec::new();
    around.columns.values().for_each(|columns| add(&mut all, columns));
    all
}

fn add(all: &mut Vec<Column>, more: &[Column]) {
    for column in more {
        match all.iter_mut().find(|known| known.name == column.name) {
            Some(known) if known.kind != column.kind => known.kind = ColumnKind::Text,
            Some(_) => {}
            None => all.push(column.clone()),
        }
    }
}
