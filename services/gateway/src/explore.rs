//! Ways to look at an index without knowing what to ask: patterns, facets, comparisons, and what lies around an event.
//!
//! Each looks at the events that a query lets through which looks at one event at a time ([`query::Sieve`]), within a span
//! of time, and asks for its figures in SQL: with the admission, the limits and the end of every other query.

mod compare;
mod context;
mod facets;
mod patterns;
mod significance;

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, web};
use engine::ResultSet;
use parking_lot::Mutex;
use query::{Diagnostic, Sieve, Sifted, Surroundings};
use serde::{Deserialize, Serialize};
use types::{IndexName, Timestamp};
use wire::Problem;

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    histogram::{moment, rfc3339},
    language::Language,
    sql,
};

/// How far back is looked where no time is said.
const SPAN_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// The routes below an index.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/indexes/{index}/context", web::get().to(context::context))
        .route("/indexes/{index}/patterns", web::post().to(patterns::patterns))
        .route("/indexes/{index}/facets", web::post().to(facets::facets))
        .route("/indexes/{index}/compare", web::post().to(compare::compare));
}

/// Which events of an index a query means, by default one of the pipe language; without a text all of them.
pub(crate) fn sieve_of(text: Option<&str>, language: Option<Language>, index: &IndexName) -> Result<Sieve, HttpError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Sieve::everything(index)) };
    let read = match language.unwrap_or(Language::Pipe) {
        Language::Pipe => Sieve::pipe(text, index),
        Language::Sql => Sieve::sql(text, index),
        Language::Logql => Sieve::logql(text, index),
    };
    read.map_err(|found| HttpError::query("InvalidQuery", &found, text))
}

/// What is said of the events in every request.
#[derive(Debug, Clone, Default, Deserialize)]
struct Which {
    query: Option<String>,
    language: Option<Language>,
}

/// A span of time as a request says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanText {
    from: Option<String>,
    to: Option<String>,
}

/// A span of time: from, included, to, not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    from: Timestamp,
    to: Timestamp,
}

/// A span of time as an answer says it, and how many events were looked at.
#[derive(Debug, Serialize)]
struct PeriodSaid {
    from: String,
    to: String,
    rows: u64,
}

impl Period {
    /// What is said, by default the last 15 minutes.
    fn of(said: &SpanText, now: Timestamp) -> Result<Self, Problem> {
        let to = said.to.as_deref().map_or(Ok(now), |text| moment(text, now))?;
        let from = said.from.as_deref().map_or(Ok(to - SPAN_DEFAULT), |text| moment(text, now))?;
        if from >= to {
            return Err(Problem::bad_request("BadTimeRange", "from must lie before to"));
        }
        Ok(Self { from, to })
    }

    fn length(self) -> Duration {
        self.to.since(self.from)
    }

    /// The one of the same length that ends where this begins.
    fn before(self) -> Self {
        Self { from: self.from - self.length(), to: self.from }
    }

    fn said(self, rows: u64) -> Result<PeriodSaid, Problem> {
        Ok(PeriodSaid { from: rfc3339(self.from.millis())?, to: rfc3339(self.to.millis())?, rows })
    }
}

/// Somebody who looks at events of an index.
struct Explorer {
    door: Door,
    principal: Principal,
    index: IndexName,
    sieve: Sieve,
}

/// What is asked of the events that are looked at, as SQL.
type Over<'a> = dyn Fn(&Sifted) -> Result<String, Diagnostic> + Send + Sync + 'a;

impl Explorer {
    async fn of(request: &HttpRequest, door: &Door, index: IndexName, which: &Which) -> Result<Self, HttpError> {
        let principal = door.auth.of(request).await?;
        principal.may_read(&index)?;
        let sieve = sieve_of(which.query.as_deref(), which.language, &index)?;
        Ok(Self { door: door.clone(), principal, index, sieve })
    }

    /// Asks something of the events of a span of time.
    async fn ask(&self, period: Period, over: &Over<'_>) -> Result<ResultSet, HttpError> {
        events(&self.door, &self.principal, (&self.index, &self.sieve), Some((period.from, period.to)), over).await
    }

    /// The same, together with the fields of the events.
    async fn ask_fields(&self, period: Period, over: &Over<'_>) -> Result<(ResultSet, Arc<Sifted>), HttpError> {
        let seen = Mutex::new(None);
        let noted = |sifted: &Sifted| {
            *seen.lock() = Some(Arc::new(sifted.clone()));
            over(sifted)
        };
        let result = self.ask(period, &noted).await?;
        let seen = seen.into_inner().ok_or_else(|| Problem::internal("a query ran that was not written"))?;
        Ok((result, seen))
    }
}

/// Asks something of events, for somebody who must be allowed to read the index.
pub(crate) async fn events(
    door: &Door,
    principal: &Principal,
    (index, sieve): (&IndexName, &Sieve),
    span: Option<(Timestamp, Timestamp)>,
    over: &Over<'_>,
) -> Result<ResultSet, HttpError> {
    let lower = |around: &Surroundings| sieve.select(around, span, &|sifted| over(sifted));
    sql::answer_plan(door, principal, std::slice::from_ref(index), sieve.text(), &lower).await
}

/// The whole numbers of a column in a result's only row.
fn number(result: &ResultSet, column: &str) -> u64 {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let batch = result.batches.iter().find(|batch| batch.num_rows() > 0);
    let column = batch.and_then(|batch| batch.column_by_name(column));
    let number = column.and_then(|column| column.as_primitive_opt::<Int64Type>()).map(|column| column.value(0));
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

/// A part of a whole, four places behind the point.
#[allow(clippy::cast_precision_loss, reason = "counts of events, for people")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e6).round() / 1e6 }
}

/// The complaint about a column that the query took away.
fn needs(sifted: &Sifted, columns: &[&str]) -> Result<(), Diagnostic> {
    match columns.iter().find(|column| sifted.column(column).is_none()) {
        None => Ok(()),
        Some(missing) => Err(Diagnostic::new(1, 1, format!("the field {missing} is needed here"))
            .help(format!("keep {missing} among the fields"))),
    }
}

/// A number within its bounds, or the default.
fn bounded(name: &str, said: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    match said.unwrap_or(default) {
        number if (1..=max).contains(&number) => Ok(number),
        _ => Err(Problem::bad_request("MalformedRequest", format_args!("{name} must be from 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_have_one_before() {
        let now = Timestamp::from_millis(10_000_000);
        let of = |from: Option<&str>, to: Option<&str>| {
            Period::of(&SpanText { from: from.map(str::to_owned), to: to.map(str::to_owned) }, now)
        };
        let at = Timestamp::from_millis;
        assert_eq!(of(None, None).unwrap(), Period { from: at(9_100_000), to: now });
        let hour = of(Some("-1h"), Some("now-30m")).unwrap();
        assert_eq!(hour, Period { from: at(6_400_000), to: at(8_200_000) });
        assert_eq!(hour.before(), Period { from: at(4_600_000), to: at(6_400_000) });
        assert!(of(Some("now"), Some("-1h")).is_err());
        assert!(of(Some("5"), Some("5")).is_err());
    }

    #[test]
    fn shares_and_bounds() {
        assert_eq!((share(1, 3), share(0, 0), share(5, 5)), (0.333_333, 0.0, 1.0));
        assert_eq!(bounded("limit", None, 5, 10).unwrap(), 5);
        assert!(bounded("limit", Some(0), 5, 10).is_err() && bounded("limit", Some(11), 5, 10).is_err());
    }
}
