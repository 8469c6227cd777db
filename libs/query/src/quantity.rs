//! Values with units and instants, as people write them in a query: `5s`, `1h30m`, `10MB`, `2026-11-22T05:00:00Z`.

use std::{fmt::Write, time::Duration};

use types::Timestamp;

const SPANS: [(&str, u64); 9] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The longest span: a century, so that no sum of an instant and a span leaves the calendar.
const SPAN_NANOS_MAX: u128 = 100 * 366 * 86_400_000_000_000;

/// Digits of one number, before and after its point together.
const DIGITS_MAX: usize = 18;

/// Splits a number from the front of a text: its digits without the point, how many stood behind it, and the rest.
fn number(text: &str) -> Option<(u128, u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || digits.len() > DIGITS_MAX || fraction.contains('.') || digits.ends_with('.') {
        return None;
    }
    Some((format!("{whole}{fraction}").parse().ok()?, u32::try_from(fraction.len()).ok()?, rest))
}

/// `amount * factor`, where it is a whole number.
fn times(amount: u128, decimals: u32, factor: u64) -> Option<u128> {
    let (product, divisor) = (amount.checked_mul(u128::from(factor))?, 10u128.pow(decimals));
    product.is_multiple_of(divisor).then_some(product / divisor)
}

/// Reads `250ms`, `1.5h`, `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0u128);
    while !rest.is_empty() {
        let (amount, decimals, after) = number(rest)?;
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (_, factor) = SPANS.iter().find(|(name, _)| *name == &after[..letters])?;
        total = total.checked_add(times(amount, decimals, *factor)?)?;
        rest = &after[letters..];
    }
    (!text.is_empty() && total <= SPAN_NANOS_MAX).then(|| u64::try_from(total).ok().map(Duration::from_nanos)).flatten()
}

/// Writes what [`duration`] reads: `1h30m`.
pub(crate) fn duration_text(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (name, factor) in SPANS.iter().filter(|(name, _)| *name != "µs") {
        if rest >= *factor {
            out.push_str(&format!("{}{name}", rest / factor));
            rest %= factor;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Reads `10MB` (10^7) and `10MiB` (10 * 2^20).
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (amount, decimals, unit) = number(text)?;
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    u64::try_from(times(amount, decimals, *factor)?).ok().filter(|size| i64::try_from(*size).is_ok())
}

/// Writes what [`bytes`] reads.
pub(crate) fn bytes_text(size: u64) -> String {
    let whole = |factor: u64| size >= factor && size.is_multiple_of(factor);
    let (name, factor) = SIZES.iter().find(|(_, factor)| whole(*factor)).copied().unwrap_or(("B", 1));
    format!("{}{name}", size / factor)
}

/// Reads a date or RFC 3339: `2026-11-22`, `2026-11-22T05:00`, `2026-11-22T05:00:00.123+01:00`; without a zone it is UTC.
pub(crate) fn instant(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|b| wanted.contains(b));
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    if !is(4, b"-") || !is(7, b"-") || !(1678..=2261).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    if day < 1 || days_of(if month == 12 { year + 1 } else { year }, month % 12 + 1, 1) <= days_of(year, month, day) {
        return None;
    }
    let mut seconds = days_of(year, month, day) * 86_400;
    let (mut nanos, mut at) = (0, 10);
    if is(at, b"Tt ") {
        let (hour, minute) = (digits(11, 13)?, digits(14, 16)?);
        if !is(13, b":") || hour > 23 || minute > 59 {
            return None;
        }
        seconds += hour * 3_600 + minute * 60;
        at = 16;
        if is(at, b":") {
            let second = digits(17, 19).filter(|s| *s < 60)?;
            seconds += second;
            at = 19;
            if is(at, b".") {
                let rest = &text[20..];
                let long = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                if long == 0 || long > 9 {
                    return None;
                }
                nanos = format!("{:0<9}", &rest[..long]).parse().ok()?;
                at = 20 + long;
            }
        }
        if is(at, b"+-") {
            let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
            if !is(at + 3, b":") || hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = hours * 3_600 + minutes * 60;
            seconds -= if is(at, b"+") { ahead } else { -ahead };
            at += 6;
        } else if is(at, b"Zz") {
            at += 1;
        }
    }
    (at == text.len()).then(|| seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp::from_nanos))?
}

/// Writes what [`instant`] reads, in UTC, with as many decimals as needed.
pub(crate) fn instant_text(at: Timestamp) -> String {
    let mut out = sql_text(at).replace(' ', "T");
    if out.contains('.') {
        out.truncate(out.trim_end_matches('0').trim_end_matches('.').len());
    }
    out.push('Z');
    out
}

/// The instant as SQL writes it in a `TIMESTAMP` literal.
pub(crate) fn sql_text(at: Timestamp) -> String {
    let (seconds, nanos) = (at.nanos().div_euclid(1_000_000_000), at.nanos().rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let mut out = String::new();
    let written =
        write!(out, "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
    debug_assert!(written.is_ok(), "writing to a String does not fail");
    if nanos > 0 {
        out.push_str(&format!(".{nanos:09}"));
    }
    out
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the odd day is its last; 719 468 days lie between 0000-03-01 and 1970-01-01.
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date so many days after 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + days.div_euclid(146_097) * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_what_they_write() {
        for (text, nanos, written) in [
            ("5s", 5_000_000_000, "5s"),
            ("1h30m", 5_400_000_000_000, "1h30m"),
            ("1.5h", 5_400_000_000_000, "1h30m"),
            ("7d", 604_800_000_000_000, "1w"),
            ("250ms", 250_000_000, "250ms"),
            ("10µs", 10_000, "10us"),
            ("0s", 0, "0s"),
        ] {
            let span = duration(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((span.as_nanos(), duration_text(span).as_str()), (nanos, written), "{text}");
            assert_eq!(duration(written), Some(span));
        }
        for bad in ["", "5", "s", "5x", "1.5.5s", "5.s", "0.1ns", "1s2", "-1s", "99999999999w", "9999999999999999999s"]
        {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_what_they_write() {
        for (text, size, written) in [
            ("10MB", 10_000_000, "10MB"),
            ("1.5KB", 1_500, "1500B"),
            ("2MiB", 2 << 20, "2MiB"),
            ("10mb", 10_000_000, "10MB"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
            assert_eq!((bytes_text(size).as_str(), bytes(written)), (written, Some(size)));
        }
        for bad in ["", "10", "MB", "1.5B", "10XB", "99999999999999TB"] {
            assert_eq!(bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn instants_read_what_they_write() {
        for (text, nanos, written) in [
            ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
            ("2026-11-22T05:00:00Z", 1_795_323_600_000_000_000, "2026-11-22T05:00:00Z"),
            ("2026-11-22T06:00+01:00", 1_795_323_600_000_000_000, "2026-11-22T05:00:00Z"),
            ("2000-02-29T23:59:59.25", 951_868_799_250_000_000, "2000-02-29T23:59:59.25Z"),
            ("1969-12-31T23:59:59.000000001Z", -999_999_999, "1969-12-31T23:59:59.000000001Z"),
        ] {
            assert_eq!(instant(text).map(Timestamp::nanos), Some(nanos), "{text}");
            assert_eq!(instant_text(Timestamp::from_nanos(nanos)), written);
            assert_eq!(instant(written).map(Timestamp::nanos), Some(nanos));
        }
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-01-01T25:00",
            "2026-01-01T00:00:00+1",
            "9999-01-01",
            "2026-1-1",
            "äöü-ä-öß",
        ] {
            assert_eq!(instant(bad), None, "{bad:?}");
        }
        for nanos in [i64::MIN, i64::MAX, 1] {
            let at = Timestamp::from_nanos(nanos);
            assert!(sql_text(at).len() >= 29, "{}", sql_text(at));
        }
    }
}
