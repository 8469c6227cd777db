//! Instants as Elasticsearch writes them: date math, formats, time zones. Pure.

mod unit;

use jiff::{
    Span, Zoned,
    civil::DateTime,
    tz::{Offset, TimeZone},
};
use serde_json::Value;
use types::Timestamp;

use super::refused::Refused;

pub(crate) use unit::Unit;

const MILLI: i64 = 1_000_000;
/// The longest text that is read as an instant.
const TEXT_BYTES_MAX: usize = 256;

/// What a text denotes: the nanosecond in which it begins, and the one behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// A form of instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    Millis,
    Seconds,
    /// `strict_date_optional_time`; with all nanoseconds or to the millisecond.
    Iso {
        nanos: bool,
    },
    /// Letters as Java's `DateTimeFormatter` has them.
    Pattern(Vec<Token>),
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A letter with a meaning, and how often it stands there.
    Letter(char, usize),
    Plain(char),
}

impl Format {
    /// The forms that a text names, `a||b`.
    pub(crate) fn all(text: &str) -> Result<Vec<Self>, Refused> {
        text.split("||").map(Self::of).collect()
    }

    /// What is read where nothing else is said.
    pub(crate) fn defaults() -> Vec<Self> {
        vec![Self::Iso { nanos: false }, Self::Millis]
    }

    fn of(text: &str) -> Result<Self, Refused> {
        Ok(match text {
            "epoch_millis" => Self::Millis,
            "epoch_second" => Self::Seconds,
            "strict_date_optional_time"
            | "date_optional_time"
            | "iso8601"
            | "strict_date_time"
            | "date_time"
            | "use_field_mapping" => Self::Iso { nanos: false },
            "strict_date_optional_time_nanos" => Self::Iso { nanos: true },
            "date" | "strict_date" => Self::Pattern(tokens("yyyy-MM-dd")?),
            pattern => Self::Pattern(tokens(pattern)?),
        })
    }

    /// The instant in this form.
    pub(crate) fn shown(&self, nanos: i64, zone: &TimeZone) -> String {
        let millis = nanos.div_euclid(MILLI);
        match self {
            Self::Millis => return millis.to_string(),
            Self::Seconds => return millis.div_euclid(1_000).to_string(),
            Self::Iso { .. } | Self::Pattern(_) => {}
        }
        let Some(at) = zoned(nanos, zone) else { return millis.to_string() };
        match self {
            Self::Pattern(tokens) => tokens.iter().map(|token| written(token, &at)).collect(),
            Self::Iso { nanos: true } if nanos.rem_euclid(MILLI) != 0 => {
                format!("{}{}", at.strftime("%Y-%m-%dT%H:%M:%S%.9f"), zone_text(&at))
            }
            _ => format!("{}{}", at.strftime("%Y-%m-%dT%H:%M:%S%.3f"), zone_text(&at)),
        }
    }
}

/// To the millisecond, in UTC.
pub(crate) fn iso(nanos: i64) -> String {
    Format::Iso { nanos: false }.shown(nanos, &TimeZone::UTC)
}

fn zone_text(at: &Zoned) -> String {
    let seconds = at.offset().seconds();
    if seconds == 0 {
        return "Z".to_owned();
    }
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

fn tokens(pattern: &str) -> Result<Vec<Token>, Refused> {
    let unknown = || Refused::illegal(format!("Invalid format: [{pattern}]: it is not supported here"));
    if pattern.is_empty() || pattern.len() > TEXT_BYTES_MAX {
        return Err(unknown());
    }
    let mut all: Vec<Token> = Vec::new();
    let mut quoted = false;
    for c in pattern.chars() {
        if c == '\'' {
            quoted = !quoted;
        } else if quoted || !c.is_ascii_alphabetic() {
            all.push(Token::Plain(c));
        } else if let Some(Token::Letter(_, count)) =
            all.last_mut().filter(|t| matches!(t, Token::Letter(l, _) if *l == c))
        {
            *count += 1;
        } else if "yuMdHmsSXZ".contains(c) {
            all.push(Token::Letter(c, 1));
        } else {
            return Err(unknown());
        }
    }
    Ok(all)
}

fn written(token: &Token, at: &Zoned) -> String {
    match token {
        Token::Plain(c) => c.to_string(),
        Token::Letter('y' | 'u', 2) => format!("{:02}", at.year().rem_euclid(100)),
        Token::Letter('y' | 'u', width) => format!("{:0width$}", at.year()),
        Token::Letter('M', width) => format!("{:0width$}", at.month()),
        Token::Letter('d', width) => format!("{:0width$}", at.day()),
        Token::Letter('H', width) => format!("{:0width$}", at.hour()),
        Token::Letter('m', width) => format!("{:0width$}", at.minute()),
        Token::Letter('s', width) => format!("{:0width$}", at.second()),
        Token::Letter('S', width) => {
            let digits = format!("{:09}", at.subsec_nanosecond());
            digits.chars().chain("0".chars().cycle()).take(*width).collect()
        }
        Token::Letter(..) => zone_text(at),
    }
}

/// The time zone that a name or an offset gives.
pub(crate) fn zone(text: &str) -> Result<TimeZone, Refused> {
    let unknown = || Refused::illegal(format!("Unknown time-zone ID: {text}"));
    if matches!(text, "UTC" | "Z" | "utc" | "GMT") {
        return Ok(TimeZone::UTC);
    }
    if let Some(seconds) = offset_seconds(text) {
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(unknown());
    }
    TimeZone::get(text).map_err(|_| unknown())
}

/// `+01:00`, `-0530`, `+1`.
fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = if digits.len() > 2 { digits.split_at(digits.len() - 2) } else { (digits.as_str(), "0") };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

pub(crate) fn zoned(nanos: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(jiff::Timestamp::from_nanosecond(i128::from(nanos)).ok()?.to_zoned(zone.clone()))
}

pub(crate) fn nanos(at: &Zoned) -> Option<i64> {
    i64::try_from(at.timestamp().as_nanosecond()).ok()
}

/// Reads an instant of a request: a number or a text in one of the forms, `now`, with date math behind.
pub(crate) fn read(value: &Value, formats: &[Format], zone: &TimeZone, now: Timestamp) -> Result<Extent, Refused> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(Refused::parsing(format!("failed to parse date field [{value}]"))),
    };
    let wrong = || {
        let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
        Refused::parsing(format!("failed to parse date field [{shown}] with the formats of the request"))
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong());
    }
    if let Some(math) = text.strip_prefix("now") {
        return math_of(math, now.nanos(), zone).ok_or_else(wrong);
    }
    let (anchor, math) = text.split_once("||").unwrap_or((&text, ""));
    let found = formats.iter().find_map(|format| one(anchor, format, zone)).ok_or_else(wrong)?;
    if math.is_empty() { Ok(found) } else { math_of(math, found.start, zone).ok_or_else(wrong) }
}

fn one(text: &str, format: &Format, zone: &TimeZone) -> Option<Extent> {
    match format {
        Format::Millis => epoch(text, MILLI),
        Format::Seconds => epoch(text, 1_000 * MILLI),
        Format::Iso { .. } => optional_time(text, zone),
        Format::Pattern(tokens) => by_pattern(text, tokens, zone),
    }
}

fn epoch(text: &str, unit: i64) -> Option<Extent> {
    if let Ok(whole) = text.parse::<i64>() {
        let start = whole.checked_mul(unit)?;
        return Some(Extent { start, end: start.checked_add(MILLI)? });
    }
    let number: f64 = text.parse().ok()?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a float is as exact as it came")]
    let start = (number.is_finite() && number.abs() < 1e15).then_some((number * (unit / MILLI) as f64) as i64)?;
    let start = start.checked_mul(MILLI)?;
    Some(Extent { start, end: start.checked_add(MILLI)? })
}

/// `yyyy[-MM[-dd[THH[:mm[:ss[.fraction]]]]]][zone]`: what is left out makes it longer.
fn optional_time(text: &str, zone: &TimeZone) -> Option<Extent> {
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let digits = |text: &str, width: usize| {
        (text.len() == width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i16>().ok())?
    };
    let small = |text: &str| i8::try_from(digits(text, 2)?).ok();
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let (month, day) = (parts.next(), parts.next());
    if parts.next().is_some() || (!time.is_empty() && day.is_none()) {
        return None;
    }
    let (clock, given) = match time.find(['Z', '+', '-']) {
        Some(at) => (&time[..at], Some(self::zone(&time[at..]).ok()?)),
        None => (time, None),
    };
    let mut clock = clock.split(':');
    let hour = clock.next().filter(|hour| !hour.is_empty());
    let (minute, second) = (clock.next(), clock.next());
    if clock.next().is_some() || (hour.is_none() && (minute.is_some() || given.is_some())) {
        return None;
    }
    let (second, fraction) = match second.map(|second| second.split_once(['.', ',']).unwrap_or((second, ""))) {
        Some((second, fraction)) => (Some(second), fraction),
        None => (None, ""),
    };
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let subsecond: i32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let read = |part: Option<&str>, default: i8| part.map_or(Some(default), small);
    let (month_of, day_of) = (read(month, 1)?, read(day, 1)?);
    let (hour_of, minute_of, second_of) = (read(hour, 0)?, read(minute, 0)?, read(second, 0)?);
    let start = DateTime::new(year, month_of, day_of, hour_of, minute_of, second_of, subsecond).ok()?;
    let length = match () {
        () if fraction.len() > 3 => Span::new().nanoseconds(1),
        () if !fraction.is_empty() => Span::new().milliseconds(1),
        () if second.is_some() => Span::new().seconds(1),
        () if minute.is_some() => Span::new().minutes(1),
        () if hour.is_some() => Span::new().hours(1),
        () if day.is_some() => Span::new().days(1),
        () if month.is_some() => Span::new().months(1),
        () => Span::new().years(1),
    };
    extent(start, length, given.as_ref().unwrap_or(zone))
}

fn extent(start: DateTime, length: Span, zone: &TimeZone) -> Option<Extent> {
    let start = start.to_zoned(zone.clone()).ok()?;
    let end = start.checked_add(length).ok()?;
    Some(Extent { start: nanos(&start)?, end: nanos(&end)? })
}

fn by_pattern(text: &str, tokens: &[Token], zone: &TimeZone) -> Option<Extent> {
    let (mut rest, mut given) = (text, None);
    let (mut year, mut numbers, mut subsecond) = (1970_i16, [1_i8, 1, 0, 0, 0], 0_i32);
    let mut length = Span::new().years(1);
    for token in tokens {
        let (letter, width) = match token {
            Token::Plain(c) => {
                rest = rest.strip_prefix(*c)?;
                continue;
            }
            Token::Letter(letter, width) => (*letter, *width),
        };
        if matches!(letter, 'X' | 'Z') {
            let end = rest.find(|c: char| !"Z+-:0123456789".contains(c)).unwrap_or(rest.len());
            given = Some(self::zone(&rest[..end]).ok()?);
            rest = &rest[end..];
            continue;
        }
        let most = if width == 1 { 4 } else { width };
        let end = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if end == 0 || (width > 1 && end != width) {
            return None;
        }
        let (digits, after) = rest.split_at(end);
        rest = after;
        let place = match letter {
            'M' => (0, Span::new().months(1)),
            'd' => (1, Span::new().days(1)),
            'H' => (2, Span::new().hours(1)),
            'm' => (3, Span::new().minutes(1)),
            's' => (4, Span::new().seconds(1)),
            'S' => {
                (subsecond, length) = (format!("{digits:0<9.9}").parse().ok()?, Span::new().milliseconds(1));
                continue;
            }
            _ => {
                let read: i16 = digits.parse().ok()?;
                year = if width == 2 { 2000 + read } else { read };
                continue;
            }
        };
        numbers[place.0] = digits.parse().ok()?;
        length = place.1;
    }
    let [month, day, hour, minute, second] = numbers;
    let start = DateTime::new(year, month, day, hour, minute, second, subsecond).ok()?;
    if rest.is_empty() { extent(start, length, given.as_ref().unwrap_or(zone)) } else { None }
}

/// `+1d-2h/d` behind an instant.
fn math_of(math: &str, from: i64, zone: &TimeZone) -> Option<Extent> {
    let mut at = zoned(from, zone)?;
    let mut rest = math;
    let mut rounded = None;
    while let Some(op) = rest.chars().next() {
        rest = rest.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = if digits == 0 || op == '/' { 1 } else { rest[..digits].parse().ok()? };
        rest = &rest[digits..];
        let letter = rest.chars().next()?;
        let unit = Unit::of(letter)?;
        rest = &rest[letter.len_utf8()..];
        let span = unit.span(count)?;
        rounded = None;
        at = match op {
            '+' => at.checked_add(span).ok()?,
            '-' => at.checked_sub(span).ok()?,
            '/' if digits == 0 => {
                rounded = Some(span);
                unit.floor(&at)?
            }
            _ => return None,
        };
    }
    let start = nanos(&at)?;
    let end = match rounded {
        Some(span) => nanos(&at.checked_add(span).ok()?)?,
        None => start.checked_add(MILLI)?,
    };
    Some(Extent { start, end })
}

/// An instant in SQL.
pub(crate) fn sql(nanos: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    format!("TIMESTAMP '{}'", at.strftime("%Y-%m-%d %H:%M:%S%.f"))
}

#[cfg(test)]
#[path = "moment_tests.rs"]
mod tests;
