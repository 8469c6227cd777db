//! How many events there were over time, by severity.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use engine::ResultSet;
use query::{Diagnostic, Sieve, Sifted};
use serde::{Deserialize, Serialize};
use types::{DurationText, IndexName, Timestamp};
use wire::Problem;

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    explore::{events, sieve_of},
    language::Language,
    sql,
};

/// Buckets of one answer.
const BUCKETS_MAX: u32 = 1_000;
/// Buckets at most where the number is not said.
const BUCKETS_DEFAULT: i64 = 60;
/// How long a bucket may last where their number is not said, in milliseconds: what people count in, and from a
/// minute on what the counters of chunks can tell.
const WIDTHS_MS: [i64; 24] = [
    1,
    10,
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    604_800_000,
    2_592_000_000,
];
/// What is shown when no time is given.
const SPAN_DEFAULT_MS: i64 = 15 * 60 * 1_000;
/// Severity of events that have none.
const NO_SEVERITY: &str = "none";

/// The query string: times as [`moment`] reads them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    from: Option<String>,
    to: Option<String>,
    /// How many; without it they last a round time.
    buckets: Option<u32>,
    /// Which events, in steps that look at one at a time.
    query: Option<String>,
    /// The language of the query, by default the pipe language.
    language: Option<Language>,
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
pub(crate) struct Grid {
    pub(crate) from_ms: i64,
    pub(crate) width_ms: i64,
    pub(crate) count: i64,
}

impl Grid {
    /// Round buckets that begin at multiples of their width.
    fn round(from: Timestamp, to: Timestamp) -> Result<Self, Problem> {
        let span = to.millis().saturating_sub(from.millis());
        if span <= 0 {
            return Err(Problem::bad_request("BadTimeRange", "from must lie before to"));
        }
        let last = WIDTHS_MS[WIDTHS_MS.len() - 1];
        let wide = || (span / BUCKETS_DEFAULT / last + 1).saturating_mul(last);
        let width_ms = WIDTHS_MS.into_iter().find(|width| span / width <= BUCKETS_DEFAULT).unwrap_or_else(wide);
        let from_ms = from.millis().saturating_sub(from.millis().rem_euclid(width_ms));
        let span = to.millis().saturating_sub(from_ms);
        Ok(Self { from_ms, width_ms, count: span / width_ms + i64::from(span % width_ms != 0) })
    }

    /// So many buckets from the begin of the span on.
    pub(crate) fn new(from: Timestamp, to: Timestamp, buckets: u32) -> Result<Self, Problem> {
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

/// `GET /api/v1/indexes/{index}/histogram?from&to&buckets&query`: counts per bucket and severity, empty buckets included.
///
/// Without a query the counters of chunks answer, but for the minutes at the edges; `stats` says so.
pub(crate) async fn histogram(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
) -> Result<HttpResponse, HttpError> {
    let index = index.into_inner();
    let principal = door.auth.of(&request).await?;
    principal.may_read(&index)?;
    let sieve = sieve_of(options.query.as_deref(), options.language, &index)?;
    let now = door.clock.now();
    let to = options.to.as_deref().map_or(Ok(now), |text| moment(text, now))?;
    let from = Timestamp::from_millis(to.millis() - SPAN_DEFAULT_MS);
    let from = options.from.as_deref().map_or(Ok(from), |text| moment(text, now))?;
    let grid = match options.buckets {
        Some(buckets) => Grid::new(from, to, buckets)?,
        None => Grid::round(from, to)?,
    };
    let result = counted(&door, &principal, (&index, &sieve), (from, to), grid).await?;
    let rows = result.to_json_rows().map_err(|error| HttpError::engine(error, sieve.text()))?;
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
        "stats": sql::AnswerStats::of(&result.stats),
    })))
}

/// Counts by bucket and severity.
async fn counted(
    door: &Door,
    principal: &Principal,
    (index, sieve): (&IndexName, &Sieve),
    (from, to): (Timestamp, Timestamp),
    grid: Grid,
) -> Result<ResultSet, HttpError> {
    let origin = plain(&grid.start(0)?);
    let bucket = format!("date_bin(INTERVAL '{} milliseconds', \"_time\", TIMESTAMP '{origin}')", grid.width_ms);
    let by = "GROUP BY 1, 2 ORDER BY 1, 2";
    if sieve.is_everything() {
        let (from, to) = (plain(&rfc3339(from.millis())?), plain(&rfc3339(to.millis())?));
        let text = format!(
            "SELECT {bucket} AS bucket, severity, count(*) AS n FROM \"{index}\" \
             WHERE _time >= TIMESTAMP '{from}' AND _time < TIMESTAMP '{to}' {by}"
        );
        return sql::answer(door, principal, &text).await;
    }
    let over = |sifted: &Sifted| {
        if sifted.column("_time").is_none() {
            let found = Diagnostic::new(1, 1, "the field _time is needed here");
            return Err(found.help("keep _time among the fields"));
        }
        let severity = sifted.text_of("severity");
        Ok(format!("SELECT {bucket} AS bucket, {severity} AS severity, count(*) AS n FROM {} {by}", sifted.from))
    };
    events(door, principal, (index, sieve), Some((from, to)), &over).await
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

/// Reads RFC 3339, milliseconds since 1970, or what is said of now: `now`, `now-15m`, `-1h`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let back = text.strip_prefix("now").unwrap_or(text);
    if back.is_empty() && !text.is_empty() {
        return Ok(now);
    }
    let ago = back.strip_prefix('-').and_then(|span| span.parse::<DurationText>().ok());
    match ago {
        Some(ago) => Ok(now - ago.0),
        None => instant(text),
    }
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

/// Nanoseconds since 1970 as RFC 3339.
pub(crate) fn rfc3339_nanos(nanos: i64) -> Result<String, Problem> {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanos));
    at.map(|at| at.to_string()).map_err(|error| Problem::bad_request("BadTime", error))
}

/// Milliseconds since 1970 as RFC 3339.
pub(crate) fn rfc3339(millis: i64) -> Result<String, Problem> {
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
    fn round_buckets_begin_at_multiples_of_their_width() {
        let at = Timestamp::from_millis;
        for (from, to, expected) in [
            (0, 60_000, (0, 1_000, 60)),
            (61_500, 961_500, (60_000, 15_000, 61)),
            (0, 3_600_000, (0, 60_000, 60)),
            (30_000, 86_430_000, (0, 1_800_000, 49)),
            (-1, 10, (-1, 1, 11)),
            (0, 365 * 86_400_000, (0, 604_800_000, 53)),
            (0, 600 * 30 * 86_400_000, (0, 11 * 2_592_000_000, 55)),
        ] {
            let grid = Grid::round(at(from), at(to)).unwrap();
            assert_eq!((grid.from_ms, grid.width_ms, grid.count), expected, "{from}..{to}");
        }
        assert!(Grid::round(at(5), at(5)).is_err());
        let ages = Grid::round(Timestamp::MIN, Timestamp::MAX).unwrap();
        assert!(ages.count <= 62, "{}", ages.count);
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
    fn times_are_read() {
        assert_eq!(instant("1500").unwrap(), Timestamp::from_millis(1_500));
        assert_eq!(instant("1970-01-01T01:00:00+01:00").unwrap(), Timestamp::from_millis(0));
        assert!(instant("yesterday").is_err());
        let now = Timestamp::from_millis(10_000_000);
        for (text, millis) in [("now", 10_000_000), ("now-15m", 9_100_000), ("-1h", 6_400_000), ("-1500", -1_500)] {
            assert_eq!(moment(text, now).unwrap(), Timestamp::from_millis(millis), "{text}");
        }
        for bad in ["", "now+1h", "now-", "-1x", "later"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
