//! Who asks, of which indexes, and how a search is run for them: each statement like every other query of theirs.

use std::{collections::BTreeSet, time::Instant};

use actix_web::{HttpRequest, ResponseError, http::StatusCode, web::Data};
use engine::ResultSet;
use parking_lot::Mutex;
use query::{Diagnostic, Surroundings};
use serde_json::Value;
use types::{IndexName, Timestamp};
use wire::Problem;

use super::{
    aggregation::BUCKETS_MAX,
    answer::{self, ANSWERS_BYTES_MAX, Budget, Form, Found, Held},
    buckets::Plan,
    field::Fields,
    gather::{Row, Unanswered, too_many_buckets},
    refused::{self, Refused},
    search::{Counted, Search},
    words::is_like,
};
use crate::{
    api::Door,
    auth::Principal,
    body::apart,
    error::HttpError,
    metrics::{QUERIES, QUERY_TIME},
    platform::askable,
    sql,
};

/// Names and patterns of indexes of one request.
const NAMES_MAX: usize = 1_024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request asks for what is not possible.
    Refused(Refused),
    /// It could not be answered.
    Http(HttpError),
    /// The answers of the request are too large.
    Full,
    /// Writing it takes longer than a query may.
    Late,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unanswered> for Fault {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Refused(refused) => Self::Refused(refused),
            Unanswered::Full => Self::Full,
            Unanswered::Late => Self::Late,
        }
    }
}

impl From<HttpError> for Fault {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Http(problem.into())
    }
}

impl Fault {
    /// As Elasticsearch says it.
    pub(super) fn told(&self) -> (StatusCode, Value) {
        let error = match self {
            Self::Refused(refused) => {
                return (StatusCode::BAD_REQUEST, refused::error(400, refused.kind, &refused.reason));
            }
            Self::Full => {
                let reason = format!(
                    "[request] Data too large: the answers of one request are at most {ANSWERS_BYTES_MAX} bytes; \
                     ask for fewer hits, fields or buckets"
                );
                let status = StatusCode::TOO_MANY_REQUESTS;
                return (status, refused::error(status.as_u16(), "circuit_breaking_exception", &reason));
            }
            Self::Late => {
                let reason =
                    "writing the answer took longer than gateway.query_timeout; ask for fewer hits or patterns";
                let status = StatusCode::GATEWAY_TIMEOUT;
                return (status, refused::error(status.as_u16(), "timeout_exception", reason));
            }
            Self::Http(error) => error,
        };
        let (status, problem) = (error.status_code(), error.problem());
        let kind = match (status.as_u16(), problem.kind.as_str()) {
            (401 | 403, _) => "security_exception",
            (404, _) => "index_not_found_exception",
            (413, _) => "content_too_long_exception",
            (429, _) => "es_rejected_execution_exception",
            (503, _) => "no_shard_available_action_exception",
            (504, _) => "timeout_exception",
            (_, "QueryTooLarge" | "QueryScanTooLarge") => "circuit_breaking_exception",
            (400, _) => "illegal_argument_exception",
            _ => "exception",
        };
        (status, refused::error(status.as_u16(), kind, &problem.to_string()))
    }
}

/// What makes a statement of the columns.
type Make<'a> = dyn Fn(&Fields) -> Result<String, Refused> + Send + Sync + 'a;

/// One who asks.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) door: Data<Door>,
    pub(super) principal: Principal,
}

impl Asker {
    pub(super) async fn of(request: &HttpRequest, door: &Data<Door>) -> Result<Self, Fault> {
        let principal = door.auth.of(request).await?;
        Ok(Self { door: Data::clone(door), principal })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.door.clock.now()
    }

    /// The indexes that a path names: lists, `*`, and `-` for what is left out; without a name all that may be read.
    ///
    /// Errors: one that is named and may not be read, or, unless `lenient`, is not there; more than [`NAMES_MAX`].
    pub(super) async fn indexes(&self, named: Option<&str>, lenient: bool) -> Result<Vec<IndexName>, Fault> {
        let named = named.filter(|named| !matches!(*named, "" | "_all" | "*")).unwrap_or("*");
        if named.split(',').count() > NAMES_MAX {
            return Err(Refused::illegal(format!("more than {NAMES_MAX} names and patterns of indexes")).into());
        }
        let readable = match &self.principal {
            Principal::Bound(grant) => {
                self.principal.may_read(&grant.index)?;
                BTreeSet::from([grant.index.clone()])
            }
            Principal::Admin => askable(&*self.door.platform).await?,
        };
        let mut found = BTreeSet::new();
        for part in named.split(',').map(str::trim) {
            if let Some(pattern) = part.strip_prefix('-') {
                found.retain(|index: &IndexName| !is_like(pattern, index.as_str()));
            } else if part.contains('*') {
                found.extend(readable.iter().filter(|index| is_like(part, index.as_str())).cloned());
            } else {
                match part.parse::<IndexName>() {
                    Ok(index) if readable.contains(&index) => {
                        found.insert(index);
                    }
                    Ok(index) => {
                        self.principal.may_read(&index)?;
                        unless(lenient, part)?;
                    }
                    Err(_) => unless(lenient, part)?,
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Runs a statement that is made of the columns; of no indexes there is no result.
    async fn result(&self, indexes: &[IndexName], make: &Make<'_>) -> Result<Option<ResultSet>, Fault> {
        if indexes.is_empty() {
            return Ok(None);
        }
        let refused = Mutex::new(None);
        let lower = |around: &Surroundings| {
            let made = make(&Fields::of(&around.columns)).and_then(|sql| {
                query::parse_select(&sql)
                    .map_err(|found| Refused::illegal(format!("the request is too large as SQL: {}", found.message)))
            });
            made.map_err(|why| {
                let found = Diagnostic::new(1, 1, why.reason.clone());
                *refused.lock() = Some(why);
                found
            })
        };
        let result = sql::answer_plan(&self.door, &self.principal, indexes, "", &lower).await;
        QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
        if let Some(refused) = refused.into_inner() {
            return Err(refused.into());
        }
        let result = result?;
        QUERY_TIME.observe_duration(result.stats.elapsed);
        if result.truncated {
            let reason =
                "the answer has more rows than gateway.query_rows_max, or more bytes than gateway.query_memory";
            return Err(Refused { kind: "too_many_buckets_exception", reason: reason.to_owned() }.into());
        }
        Ok(Some(result))
    }

    /// The rows of a statement, and what they take.
    async fn rows(&self, indexes: &[IndexName], budget: &Budget, make: &Make<'_>) -> Result<(Vec<Row>, Held), Fault> {
        let Some(result) = self.result(indexes, make).await? else { return Ok((Vec::new(), budget.hold(0)?)) };
        let (bytes, budget) = (answer::bytes_of(&result), budget.clone());
        apart(bytes, move || answer::rows(&result, &budget)).await?
    }

    /// How many events a search finds.
    pub(super) async fn count(&self, indexes: &[IndexName], search: &Search) -> Result<u64, Fault> {
        // One row, which is part of no answer.
        let (rows, _) = self.rows(indexes, &Budget::default(), &|fields| Ok(search.total(fields))).await?;
        Ok(rows.first().and_then(|row| row.get("n")?.as_u64()).unwrap_or(0))
    }

    /// Runs a search. Each part is a query of its own, one after the other.
    ///
    /// Bounds: what is left of the budget, then 429 `circuit_breaking_exception`.
    pub(super) async fn search(
        &self,
        indexes: &[IndexName],
        search: Search,
        form: Form,
        budget: &Budget,
    ) -> Result<Vec<u8>, Fault> {
        let (began, now) = (Instant::now(), self.now());
        let hits = if search.size > 0 { self.result(indexes, &|fields| Ok(search.hits(fields))).await? } else { None };
        let seen = hits.as_ref().map_or(0, ResultSet::row_count);
        let total = match search.count {
            Counted::None => None,
            // Where a page is not full, all have been seen.
            _ if search.is_first_page() && seen < search.size => Some(seen as u64),
            _ => Some(self.count(indexes, &search).await?),
        };
        let mut found =
            Found { hits, total, now, indexes: indexes.len(), levels: vec![], top_hits: vec![], held: vec![], took: 0 };
        if !search.aggregations.is_empty() {
            self.aggregations(indexes, &search, budget, &mut found).await?;
        }
        found.took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (budget, until) = (budget.clone(), Instant::now() + self.door.config.query_timeout.0);
        // A small result may well be a large answer: buckets without rows, marks, patterns of fields.
        let work = move || answer::written(&search, found, form, (&budget, until));
        let written = tokio::task::spawn_blocking(work).await;
        written.map_err(|error| Problem::internal(format_args!("writing the answer ended early: {error}")))?
    }

    async fn aggregations(
        &self,
        indexes: &[IndexName],
        search: &Search,
        budget: &Budget,
        found: &mut Found,
    ) -> Result<(), Fault> {
        let plan = Plan::new(&search.query, &search.aggregations, found.now);
        let mut left = BUCKETS_MAX;
        for level in 0..plan.levels.len() {
            if !plan.asks(level) {
                found.levels.push(Vec::new());
                continue;
            }
            let (rows, held) = self.rows(indexes, budget, &|fields| plan.statement(level, fields)).await?;
            left = left.checked_sub(rows.len()).ok_or_else(too_many_buckets)?;
            found.levels.push(rows);
            found.held.push(held);
        }
        for number in 0..plan.hits.len() {
            let (rows, held) = self.rows(indexes, budget, &|fields| plan.hits_statement(number, fields)).await?;
            found.top_hits.push(rows);
            found.held.push(held);
        }
        Ok(())
    }
}

fn unless(lenient: bool, index: &str) -> Result<(), Fault> {
    if lenient {
        Ok(())
    } else {
        Err(Problem::not_found("UnknownIndex", format_args!("no such index [{index}]")).into())
    }
}
