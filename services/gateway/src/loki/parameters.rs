//! What a request says: Loki's parameters, from the query string or a form. Pure.

use std::time::Duration;

use actix_web::web::Query;
use types::{DurationText, Timestamp};
use wire::Problem;

/// How far back a query looks where nothing else is said.
const SPAN_DEFAULT: Duration = Duration::from_secs(3_600);
/// Points of a series where no step is given.
const POINTS_DEFAULT: u64 = 250;
/// Lines of an answer where no limit is given.
pub(super) const LINES_DEFAULT: usize = 100;
/// Digits of a whole number up to which it is seconds; with more it is nanoseconds.
const SECONDS_DIGITS_MAX: usize = 10;

/// The parameters of one request, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// A part of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first instant.
    pub(super) start: Timestamp,
    /// The instant behind the last.
    pub(super) end: Timestamp,
}

impl Span {
    pub(super) fn length(self) -> Duration {
        self.end.since(self.start)
    }
}

impl Parameters {
    /// Reads a query string and, for a POST, the form in its body.
    pub(super) fn read(query: &str, form: &[u8]) -> Result<Self, Problem> {
        let wrong = |error: &dyn std::fmt::Display| Problem::bad_request("MalformedRequest", error);
        let form = std::str::from_utf8(form).map_err(|error| wrong(&error))?;
        let mut all = Vec::new();
        for text in [query, form] {
            let pairs = Query::<Vec<(String, String)>>::from_query(text).map_err(|error| wrong(&error))?;
            all.extend(pairs.into_inner());
        }
        Ok(Self(all))
    }

    /// The first that is called so and is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(&[name]).into_iter().next()
    }

    /// All that are called by one of the names and are not empty.
    pub(super) fn all(&self, names: &[&str]) -> Vec<&str> {
        let called = self.0.iter().filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        called.map(|(_, value)| value.as_str()).collect()
    }

    /// The query, which must be there.
    pub(super) fn query(&self) -> Result<&str, Problem> {
        self.get("query").ok_or_else(|| Problem::bad_request("MalformedRequest", "the parameter query is missing"))
    }

    /// The last hour, unless `start` and `end`, or `since`, say otherwise.
    pub(super) fn span(&self, now: Timestamp) -> Result<Span, Problem> {
        let end = self.time("end")?.unwrap_or(now);
        let since = self.get("since").map(|text| duration(text).ok_or_else(|| no_duration("since", text)));
        let start = match self.time("start")? {
            Some(start) => start,
            None => end - since.transpose()?.unwrap_or(SPAN_DEFAULT),
        };
        if end < start {
            return Err(Problem::bad_request(
                "BadTimeRange",
                "end timestamp must not be before or equal to start time",
            ));
        }
        Ok(Span { start, end })
    }

    /// An instant.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let read = |text: &str| {
            instant(text).ok_or_else(|| {
                let message = format!("cannot parse {text:?} to a valid timestamp");
                Problem::bad_request("BadTime", format_args!("could not parse '{name}' parameter: {message}"))
            })
        };
        self.get(name).map(read).transpose()
    }

    /// The distance between points, so that there are some 250 where it is not given.
    pub(super) fn step(&self, span: Span) -> Result<Duration, Problem> {
        let Some(text) = self.get("step") else {
            return Ok(Duration::from_secs((span.length().as_secs() / POINTS_DEFAULT).max(1)));
        };
        match seconds(text).or_else(|| duration(text)) {
            Some(step) if !step.is_zero() => Ok(step),
            Some(_) => {
                let message = "zero or negative query resolution step widths are not accepted. Try a positive integer";
                Err(Problem::bad_request("BadTime", message))
            }
            None => Err(no_duration("step", text)),
        }
    }

    /// A count from 1 to a bound.
    pub(super) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default.min(max)) };
        let wrong = |message: String| Problem::bad_request("MalformedRequest", message);
        match text.parse::<usize>() {
            Ok(0) | Err(_) => Err(wrong(format!("{name} must be a positive value, not {text:?}"))),
            Ok(count) if count > max => Err(wrong(format!(
                "max entries limit per query exceeded, {name} > max_entries_limit ({count} > {max})"
            ))),
            Ok(count) => Ok(count),
        }
    }

    /// Whether the oldest lines are wanted first.
    pub(super) fn forward(&self) -> Result<bool, Problem> {
        match self.get("direction").map(str::to_ascii_lowercase).as_deref() {
            None | Some("backward") => Ok(false),
            Some("forward") => Ok(true),
            Some(other) => Err(Problem::bad_request("MalformedRequest", format_args!("invalid direction '{other}'"))),
        }
    }
}

fn no_duration(name: &str, text: &str) -> Problem {
    Problem::bad_request("BadTime", format_args!("cannot parse {name} {text:?} to a valid duration"))
}

/// Nanoseconds, seconds with or without decimals, or RFC 3339.
fn instant(text: &str) -> Option<Timestamp> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > SECONDS_DIGITS_MAX {
        return text.parse().ok().map(Timestamp::from_nanos);
    }
    if let Some(since) = seconds(text) {
        return i64::try_from(since.as_nanos()).ok().map(Timestamp::from_nanos);
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

/// Seconds, exactly: a float of 64 bits would lose the nanoseconds of our time.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(decimals) && !whole.is_empty() {
        let nanos: String = decimals.chars().chain("000000000".chars()).take(9).collect();
        return Some(Duration::new(whole.parse().ok()?, nanos.parse().ok()?));
    }
    // Go writes large numbers with an exponent.
    if text.contains(['e', 'E']) { Duration::try_from_secs_f64(text.parse().ok()?).ok() } else { None }
}

/// `1h30m`, `15000ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |letters| digits + letters);
        let part: DurationText = rest[..letters].parse().ok()?;
        total = total.checked_add(part.0)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Parameters {
        Parameters::read(query, b"").unwrap()
    }

    #[test]
    fn times_come_in_every_form_that_clients_send() {
        for (text, nanos) in [
            ("1767323045123456789", 1_767_323_045_123_456_789),
            ("1767323045", 1_767_323_045_000_000_000),
            ("1767323045.123", 1_767_323_045_123_000_000),
            ("1.767323045e9", 1_767_323_045_000_000_000),
            ("2026-01-02T03:04:05.000000001Z", 1_767_323_045_000_000_001),
            ("2026-01-02T04:04:05%2B01:00", 1_767_323_045_000_000_000),
        ] {
            let at = read(&format!("start={text}")).time("start").unwrap();
            assert_eq!(at, Some(Timestamp::from_nanos(nanos)), "{text}");
        }
        for bad in ["yesterday", "-5", "99999999999999999999", "1.x", "e"] {
            assert!(read(&format!("start={bad}")).time("start").is_err(), "{bad}");
        }
        assert_eq!(read("start=").time("start").unwrap(), None);
    }

    #[test]
    fn spans_and_steps_have_defaults() {
        let now = Timestamp::from_millis(100_000_000);
        let hour = read("").span(now).unwrap();
        assert_eq!((hour.end, hour.length()), (now, Duration::from_secs(3_600)));
        assert_eq!(read("").step(hour).unwrap(), Duration::from_secs(14));
        assert_eq!(read("since=1h30m&end=9000").span(now).unwrap().start, Timestamp::from_millis(3_600_000));
        assert!(read("start=10&end=9").span(now).is_err());
        assert!(read("start=10&end=10").span(now).is_ok());
        for (step, millis) in [("60", 60_000), ("0.5", 500), ("15000ms", 15_000), ("1m30s", 90_000), ("1d", 86_400_000)]
        {
            assert_eq!(read(&format!("step={step}")).step(hour).unwrap(), Duration::from_millis(millis), "{step}");
        }
        for bad in ["0", "-1", "x", "5y", "0s"] {
            assert!(read(&format!("step={bad}")).step(hour).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest_is_read_as_grafana_and_logcli_write_it() {
        let form =
            Parameters::read("limit=7", b"query=%7Bapp%3D%22a+b%22%7D&direction=FORWARD&match[]=x&match=y").unwrap();
        assert_eq!(form.query().unwrap(), "{app=\"a b\"}");
        assert!(form.forward().unwrap() && !read("direction=backward").forward().unwrap());
        assert!(read("direction=up").forward().is_err());
        assert_eq!(form.all(&["match", "match[]"]), ["x", "y"]);
        assert_eq!(form.count("limit", LINES_DEFAULT, 50).unwrap(), 7);
        assert_eq!(read("").count("limit", LINES_DEFAULT, 50).unwrap(), 50);
        for bad in ["limit=0", "limit=-1", "limit=x", "limit=51"] {
            assert!(read(bad).count("limit", LINES_DEFAULT, 50).is_err(), "{bad}");
        }
        assert!(read("a=1").query().is_err());
        assert!(Parameters::read("", b"\xff").is_err());
    }
}
