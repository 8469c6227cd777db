//! How many events there were over time, by severity.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use serde::{Deserialize, Serialize};
use types::{IndexName, Timestamp};
use wire::Problem;

use crate::{api::Door, error::HttpError, sql};

/// Buckets of one answer.
const BUCKETS_MAX: u32 = 1_000;
const BUCKETS_DEFAULT: u32 = 60;
/// What is shown when no time is given.
const SPAN_DEFAULT_MS: i64 = 15 * 60 * 1_000;
/// Severity of events that have none.
const NO_SEVERITY: &str = "none";

/// The query string: times are RFC 3339 or milliseconds since 1970.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    from: Option<String>,
    to: Option<String>,
    buckets: Option<u32>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Bucket {
    start: String,
    count: u64,
    severities: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Row {
    bucket: String,
    severity: Option<String>,
    n: u64,
}

/// Equal buckets over a span of time, whole milliseconds each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grid {
    from_ms: i64,
    width_ms: i64,
    count: i64,
}

impl Grid {
    fn new(from: Timestamp, to: Timestamp, buckets: u32) -> Result<Self, Problem> {
        let wrong = |message: &str| Problem::bad_request("BadTimeRange", message);
        if buckets == 0 || buckets > BUCKETS_MAX {
            return Err(wrong("buckets must be from 1 to 1000"));
        }
        let span = to.millis().saturating_sub(from.millis());
        if span <= 0 {
            return Err(wrong("from must lie before to"));
        }
        let width_ms = (span / i64::from(buckets) + i64::from(span % i64::from(buckets) != 0)).max(1);
        let count = span / width_ms + i64::from(span % width_ms != 0);
        Ok(Self { from_ms: from.millis(), width_ms, count })
    }

    fn start(self, i: i64) -> Result<String, Problem> {
        rfc3339(self.from_ms.saturating_add(self.width_ms.saturating_mul(i)))
    }
}

/// `GET /api/v1/indexes/{index}/histogram?from&to&buckets`: counts per bucket and severity, empty buckets included.
pub(crate) async fn histogram(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
) -> Result<HttpResponse, HttpError> {
    let index = index.into_inner();
    let principal = door.auth.of(&request).await?;
    principal.may_read(&index)?;
    let to = options.to.as_deref().map_or(Ok(door.clock.now()), instant)?;
    let from = options.from.as_deref().map_or(Ok(Timestamp::from_millis(to.millis() - SPAN_DEFAULT_MS)), instant)?;
    let grid = Grid::new(from, to, options.buckets.unwrap_or(BUCKETS_DEFAULT))?;
    let text = format!(
        "SELECT date_bin(INTERVAL '{} milliseconds', _time, TIMESTAMP '{}') AS bucket, severity, count(*) AS n \
         FROM \"{index}\" WHERE _time >= TIMESTAMP '{}' AND _time < TIMESTAMP '{}' GROUP BY 1, 2 ORDER BY 1, 2",
        grid.width_ms,
        plain(&grid.start(0)?),
        plain(&grid.start(0)?),
        plain(&rfc3339(to.millis())?),
    );
    let result = sql::answer(&door, &principal, &text).await?;
    let rows = result.to_json_rows().map_err(|error| HttpError::engine(error, &text))?;
    let rows: Result<Vec<Row>, _> = rows.iter().map(|row| serde_json::from_str(row.get())).collect();
    let rows =
        rows.map_err(|error| Problem::internal(format_args!("a row of the histogram cannot be read: {error}")))?;
    if result.truncated {
        // Counts that leave something out are worse than none.
        let message = "the events have too many severities to count them by bucket: ask for fewer buckets";
        return Err(Problem::bad_request("QueryTooLarge", message).into());
    }
    Ok(HttpResponse::Ok().json(serde_json::json!({
        "from": grid.start(0)?,
        "to": rfc3339(to.millis())?,
        "bucket_ms": grid.width_ms,
        "buckets": fill(grid, rows)?,
    })))
}

/// SQL's timestamps without a zone are UTC.
fn plain(rfc3339: &str) -> String {
    rfc3339.trim_end_matches('Z').replace('T', " ")
}

fn fill(grid: Grid, rows: Vec<Row>) -> Result<Vec<Bucket>, Problem> {
    let mut by_start: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
    for row in rows {
        let start = instant(&row.bucket)?.millis();
        let severity = row.severity.unwrap_or_else(|| NO_SEVERITY.to_owned());
        *by_start.entry(start).or_default().entry(severity).or_default() += row.n;
    }
    let bucket = |i: i64| {
        let severities = by_start.remove(&(grid.from_ms + grid.width_ms * i)).unwrap_or_default();
        Ok(Bucket { start: grid.start(i)?, count: severities.values().sum(), severities })
    };
    (0..grid.count).map(bucket).collect()
}

/// Reads RFC 3339 or milliseconds since 1970.
pub(crate) fn instant(text: &str) -> Result<Timestamp, Problem> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(millis));
    }
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|at| Timestamp::from_millis(at.as_millisecond())).map_err(|error| {
        Problem::bad_request(
            "BadTime",
            format_args!("{text:?} is neither RFC 3339 nor milliseconds since 1970: {error}"),
        )
    })
}

fn rfc3339(millis: i64) -> Result<String, Problem> {
    let at = jiff::Timestamp::from_millisecond(millis);
    at.map(|at| at.to_string()).map_err(|error| Problem::bad_request("BadTime", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_span() {
        let at = Timestamp::from_millis;
        for (from, to, buckets, width, count) in
            [(0, 60_000, 60, 1_000, 60), (0, 100, 60, 2, 50), (0, 10, 1_000, 1, 10), (500, 1_000, 3, 167, 3)]
        {
            let grid = Grid::new(at(from), at(to), buckets).unwrap();
            assert_eq!((grid.width_ms, grid.count), (width, count), "{from}..{to}/{buckets}");
        }
        assert!(Grid::new(at(5), at(5), 10).is_err());
        assert!(Grid::new(at(0), at(5), 0).is_err());
        assert!(Grid::new(at(0), at(5), 1_001).is_err());
        let ages = Grid::new(Timestamp::MIN, Timestamp::MAX, 10).unwrap();
        assert!(ages.start(0).is_ok() && ages.start(9).is_ok(), "the whole range of times is in the calendar");
    }

    #[test]
    fn empty_buckets_are_there() {
        let grid = Grid { from_ms: 0, width_ms: 1_000, count: 3 };
        let row = |bucket: &str, severity: Option<&str>, n| Row {
            bucket: bucket.into(),
            severity: severity.map(str::to_owned),
            n,
        };
        let rows = vec![row("1970-01-01T00:00:01Z", Some("error"), 2), row("1970-01-01T00:00:01Z", None, 1)];
        let filled = fill(grid, rows).unwrap();
        assert_eq!(filled.iter().map(|b| b.count).collect::<Vec<_>>(), [0, 3, 0]);
        assert_eq!(filled[1].severities, BTreeMap::from([("error".to_owned(), 2), ("none".to_owned(), 1)]));
    }

    #[test]
    fn times_are_read_in_two_ways() {
        assert_eq!(instant("1500").unwrap(), Timestamp::from_millis(1_500));
        assert_eq!(instant("1970-01-01T01:00:00+01:00").unwrap(), Timestamp::from_millis(0));
        assert!(instant("yesterday").is_err());
    }
}
