//! Timestamps: a table of layouts, read by hand-written scanners.

use types::Timestamp;

/// How far into a line a timestamp is looked for: past the address and user of an access line.
const PROBE_BYTES_MAX: usize = 128;

const DAY_SECONDS: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// A timestamp found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time: Timestamp,
    /// Where it begins.
    pub(crate) start: usize,
    /// The first byte after it.
    pub(crate) end: usize,
    /// Whether it is `Mon dd hh:mm:ss`, the mark of a syslog line.
    pub(crate) syslog: bool,
}

/// Finds the first timestamp near the beginning of a line.
///
/// Layouts that could be something else (epochs, two-digit dates) count only where nothing but punctuation precedes.
pub(crate) fn find(text: &[u8], received: Timestamp) -> Option<Stamp> {
    let mut leading = true;
    for start in 0..text.len().min(PROBE_BYTES_MAX) {
        let byte = text[start];
        if byte.is_ascii_alphanumeric() {
            let opens = start == 0 || b" \t[(<>|\"'=:,".contains(&text[start - 1]);
            if opens && let Some((time, length, syslog)) = at(&text[start..], leading, received) {
                return Some(Stamp { time, start, end: start + length, syslog });
            }
            leading = false;
        } else if byte == b'\n' {
            return None;
        }
    }
    None
}

/// Reads a text that is a timestamp and nothing else.
pub(crate) fn whole(text: &str, received: Timestamp) -> Option<Timestamp> {
    let bytes = text.trim().as_bytes();
    let (time, length, _) = at(bytes, true, received)?;
    (length == bytes.len()).then_some(time)
}

/// Reads a number of seconds, milliseconds, microseconds or nanoseconds since 1970; the magnitude tells which.
pub(crate) fn epoch(number: i64) -> Option<Timestamp> {
    let factor = match number {
        100_000_000..=9_200_000_000 => NANOS,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        100_000_000_000_000_000.. => 1,
        _ => return None,
    };
    number.checked_mul(factor).map(Timestamp::from_nanos)
}

/// Reads a fractional epoch; kept to the microsecond, which is as far as a float of today's seconds goes.
pub(crate) fn epoch_float(number: f64) -> Option<Timestamp> {
    let micros = match number {
        1e8..=9.2e9 => number * 1e6,
        1e11..1e14 => number * 1e3,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "between 1e14 and 1e17, and rounded")]
    let micros = micros.round() as i64;
    Some(Timestamp::from_nanos(micros.checked_mul(1_000)?))
}

/// Nanoseconds since 1970 of a civil date and a time of day; nothing if the date does not exist or does not fit.
fn civil(year: i64, month: i64, day: i64, nanos_of_day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || !(1970..=2261).contains(&year) {
        return None;
    }
    (days_from_civil(year, month, day) * DAY_SECONDS).checked_mul(NANOS)?.checked_add(nanos_of_day)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, years beginning in March.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01; the mirror of [`days_from_civil`].
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// The instant of a date without a year: the latest one that is at most a day ahead of `received`.
fn yearless(month: i64, day: i64, nanos_of_day: i64, received: Timestamp) -> Option<i64> {
    let latest = received.nanos().saturating_add(DAY_SECONDS * NANOS);
    let (year, _, _) = civil_from_days(received.nanos().div_euclid(DAY_SECONDS * NANOS));
    // Nine years back: 29 February is at most eight years away.
    (year - 8..=year + 1).rev().find_map(|year| civil(year, month, day, nanos_of_day).filter(|&nanos| nanos <= latest))
}

/// Reads a timestamp at the very beginning: the instant, its length, whether its layout is syslog's.
fn at(bytes: &[u8], leading: bool, received: Timestamp) -> Option<(Timestamp, usize, bool)> {
    let mut cursor = Cursor { bytes, at: 0 };
    let first = *bytes.first()?;
    let mut syslog = false;
    let nanos = if first.is_ascii_digit() {
        cursor.numeric(leading, received)?
    } else if let Some(month) = cursor.name(&MONTHS) {
        syslog = true;
        cursor.syslog(month, received)?
    } else if cursor.name(&WEEKDAYS).is_some() {
        cursor.weekday()?
    } else if leading && matches!(first, b'I' | b'W' | b'E' | b'F' | b'D') {
        cursor.klog(received)?
    } else {
        return None;
    };
    let ends = !cursor.peek().is_some_and(|b| b.is_ascii_alphanumeric());
    ends.then_some((Timestamp::from_nanos(nanos), cursor.at, syslog))
}

/// Reads forward; a method that returns nothing may leave the cursor anywhere.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, any_of: &[u8]) -> Option<u8> {
        let byte = self.peek().filter(|b| any_of.contains(b))?;
        self.at += 1;
        Some(byte)
    }

    fn digits(&self) -> usize {
        self.bytes[self.at..].iter().take(20).take_while(|b| b.is_ascii_digit()).count()
    }

    /// A number of exactly so many digits, whatever follows.
    fn number(&mut self, width: usize) -> Option<i64> {
        let digits = self.bytes.get(self.at..self.at + width)?;
        self.at += width;
        digits.iter().try_fold(0i64, |n, b| {
            let digit = b.is_ascii_digit().then(|| i64::from(b - b'0'))?;
            n.checked_mul(10)?.checked_add(digit)
        })
    }

    fn name(&mut self, names: &[&[u8; 3]]) -> Option<i64> {
        let word = self.bytes.get(self.at..self.at + 3)?;
        let place = names.iter().position(|name| word == name.as_slice())?;
        self.at += 3;
        i64::try_from(place + 1).ok()
    }

    /// `dd`, ` d` or `d`.
    fn day(&mut self) -> Option<i64> {
        let padded = self.skip(b" ").is_some();
        let width = if padded { 1 } else { self.digits().min(2) };
        if width == 0 { None } else { self.number(width) }
    }

    /// `hh:mm:ss` with an optional fraction after `.` or `,`: nanoseconds of the day.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        self.skip(b":")?;
        let minute = self.number(2)?;
        self.skip(b":")?;
        let second = self.number(2)?;
        let whole = of_day(hour, minute, second)?;
        Some(whole + self.fraction())
    }

    fn fraction(&mut self) -> i64 {
        let start = self.at;
        if self.skip(b".,").is_none() {
            return 0;
        }
        let width = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if width == 0 {
            self.at = start;
            return 0;
        }
        let mut nanos = 0;
        for place in 0..9 {
            let digit = if place < width { self.bytes[self.at + place] - b'0' } else { 0 };
            nanos = nanos * 10 + i64::from(digit);
        }
        self.at += width;
        nanos
    }

    /// An optional zone as nanoseconds to subtract; without one, or with a name other than UTC, zero.
    fn zone(&mut self) -> i64 {
        let start = self.at;
        let spaced = self.skip(b" ").is_some();
        let rest = &self.bytes[self.at..];
        let named = [&b"UTC"[..], b"GMT", b"Z", b"z"].into_iter().find(|name| rest.starts_with(name));
        if let Some(name) = named.filter(|name| !rest.get(name.len()).is_some_and(u8::is_ascii_alphanumeric)) {
            self.at += name.len();
            return 0;
        }
        self.offset(spaced).unwrap_or_else(|| {
            self.at = start;
            0
        })
    }

    /// `+hh:mm`, `+hhmm` or, where nothing precedes, `+hh`.
    fn offset(&mut self, spaced: bool) -> Option<i64> {
        let sign = if self.skip(b"+-")? == b'-' { -1 } else { 1 };
        let width = self.digits();
        let hours = self.number(2)?;
        let minutes = match width {
            4 => self.number(2)?,
            2 if self.skip(b":").is_some() && self.digits() == 2 => self.number(2)?,
            2 if !spaced && self.bytes[self.at - 1] != b':' => 0,
            _ => return None,
        };
        (hours <= 18 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60) * NANOS)
    }

    /// The layouts that begin with a digit, told apart by the length of the first number and what follows it.
    fn numeric(&mut self, leading: bool, received: Timestamp) -> Option<i64> {
        match (self.digits(), self.bytes.get(self.digits()).copied()) {
            (4, Some(b'-' | b'/')) => self.year_first(),
            (2, Some(b'/' | b'-' | b' ')) if self.bytes.get(3).is_some_and(u8::is_ascii_alphabetic) => self.day_first(),
            (2, Some(b'/')) if leading => {
                let (year, _, month, _, day) =
                    (self.number(2)?, self.skip(b"/")?, self.number(2)?, self.skip(b"/")?, self.number(2)?);
                self.skip(b" ")?;
                civil(2000 + year, month, day, self.clock()?)
            }
            (2, Some(b'-' | b'.')) if leading => {
                let (month, _, day) = (self.number(2)?, self.skip(b"-.")?, self.number(2)?);
                self.skip(b" ")?;
                yearless(month, day, self.clock()?, received)
            }
            (6, Some(b' ')) if leading => {
                let (year, month, day) = (self.number(2)?, self.number(2)?, self.number(2)?);
                self.skip(b" ")?;
                civil(2000 + year, month, day, self.compact()?)
            }
            (8, Some(b'T' | b'-' | b' ')) if leading => {
                let (year, month, day) = (self.number(4)?, self.number(2)?, self.number(2)?);
                self.skip(b"T- ")?;
                let time = if self.digits() == 6 { self.compact()? } else { self.clock()? };
                civil(year, month, day, time)?.checked_sub(self.zone())
            }
            (width @ (10 | 13 | 16 | 19), _) if leading || self.dotted_date_follows(width) => {
                let whole = epoch(self.number(width)?)?.nanos();
                let fraction = if width == 10 { self.fraction() } else { 0 };
                whole.checked_add(fraction)
            }
            _ => None,
        }
    }

    /// Whether ` yyyy.mm.dd` follows the number, as in the logs of IBM's supercomputers after a label.
    fn dotted_date_follows(&self, width: usize) -> bool {
        let mut cursor = Cursor { bytes: self.bytes, at: self.at + width };
        cursor.skip(b" ").is_some()
            && cursor.digits() == 4
            && cursor.number(4).is_some()
            && cursor.skip(b".").is_some()
            && cursor.digits() == 2
    }

    /// `hhmmss`.
    fn compact(&mut self) -> Option<i64> {
        if self.digits() != 6 {
            return None;
        }
        let whole = of_day(self.number(2)?, self.number(2)?, self.number(2)?)?;
        Some(whole + self.fraction())
    }

    /// `2026-01-02T03:04:05.123Z`, `2026-01-02 03:04:05,123`, `2026/01/02 03:04:05`.
    fn year_first(&mut self) -> Option<i64> {
        let year = self.number(4)?;
        let separator = self.skip(b"-/")?;
        let month = self.number(2)?;
        self.skip(&[separator])?;
        let day = self.number(2)?;
        self.skip(b"Tt ")?;
        let time = self.clock()?;
        civil(year, month, day, time)?.checked_sub(self.zone())
    }

    /// `10/Oct/2000:13:55:36 -0700`, `02-Jan-2026 03:04:05`, `02 Jan 2026 03:04:05`.
    fn day_first(&mut self) -> Option<i64> {
        let day = self.number(2)?;
        let separator = self.skip(b"/- ")?;
        let month = self.name(&MONTHS)?;
        self.skip(&[separator])?;
        let year = self.number(4)?;
        self.skip(b": ")?;
        let time = self.clock()?;
        civil(year, month, day, time)?.checked_sub(self.zone())
    }

    /// `Jan  2 03:04:05` and, with a year, `Jan  2 2026 03:04:05`; the month is read already.
    fn syslog(&mut self, month: i64, received: Timestamp) -> Option<i64> {
        self.skip(b" ")?;
        let day = self.day()?;
        self.skip(b" ")?;
        if self.digits() == 4 {
            let year = self.number(4)?;
            self.skip(b" ")?;
            return civil(year, month, day, self.clock()?);
        }
        yearless(month, day, self.clock()?, received)
    }

    /// `Sun Dec 04 04:47:44.123 2005` and `Sun, 04 Dec 2005 04:47:44 GMT`; the weekday is read already.
    fn weekday(&mut self) -> Option<i64> {
        if self.skip(b",").is_some() {
            self.skip(b" ")?;
            return self.day_first();
        }
        self.skip(b" ")?;
        let month = self.name(&MONTHS)?;
        self.skip(b" ")?;
        let day = self.day()?;
        self.skip(b" ")?;
        let time = self.clock()?;
        let zone = self.zone();
        self.skip(b" ")?;
        civil(self.number(4)?, month, day, time)?.checked_sub(zone)
    }

    /// `I0102 03:04:05.123456`.
    fn klog(&mut self, received: Timestamp) -> Option<i64> {
        self.at += 1;
        if self.digits() != 4 {
            return None;
        }
        let (month, day) = (self.number(2)?, self.number(2)?);
        self.skip(b" ")?;
        yearless(month, day, self.clock()?, received)
    }
}

/// Nanoseconds of the day; second 60 is a leap second.
fn of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3_600 + minute * 60 + second) * NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-01-02 03:04:05 UTC.
    const T: i64 = 1_767_323_045;

    fn check(text: &str, nanos: Option<i64>) {
        // Received 2026-01-10 00:00:00 UTC.
        let received = Timestamp::from_millis(1_768_003_200_000);
        assert_eq!(find(text.as_bytes(), received).map(|s| s.time.nanos()), nanos, "{text:?}");
    }

    #[test]
    fn layouts() {
        let whole = Some(T * NANOS);
        let millis = Some(T * NANOS + 123_000_000);
        for text in [
            "2026-01-02T03:04:05Z hello",
            "2026-01-02T04:04:05+01:00 hello",
            "2026-01-01T20:04:05-0700",
            "2026-01-02 03:04:05 hello",
            "2026-01-02 03:04:05 - 12 items",
            "2026-01-02 03:04:05, Info CBS",
            "2026-01-02 04:04:05 +0100 x",
            "2026/01/02 03:04:05 [error] 1#0",
            "26/01/02 03:04:05 INFO storage",
            "260102 030405 148 INFO dfs",
            "[2026-01-02 03:04:05] hello",
            "host app 2026-01-02T03:04:05Z embedded",
            "10.0.0.1 - bob [01/Jan/2026:20:04:05 -0700] \"GET / HTTP/1.1\" 200 1",
            "Jan  2 03:04:05 host sshd[1]: x",
            "Jan 02 03:04:05 host sshd[1]: x",
            "Jan  2 2026 03:04:05 asa: x",
            "[Fri Jan 02 03:04:05 2026] [error] x",
            "Fri, 02 Jan 2026 03:04:05 GMT",
            "02-Jan-2026 03:04:05 main",
            "20260102-03:04:05|x",
            "20260102T030405Z x",
            "1767323045 x",
            "- 1767323045 2026.01.02 R02",
            "APPREAD 1767323045 2026.01.02 R02",
            "1767323045000",
            "1767323045000000 x",
            "1767323045000000000 x",
            "nova.log.1.2017-05-16_13:53:08 2026-01-02 03:04:05 25746 INFO",
        ] {
            check(text, whole);
        }
        for text in [
            "2026-01-02T03:04:05.123Z",
            "2026-01-02 03:04:05,123 INFO x",
            "2026-01-02 03:04:05.123 UTC [12] LOG:  x",
            "I0102 03:04:05.123000       1 main.go:1] x",
            "01-02 03:04:05.123  1702  2395 D WindowManager: x",
            "1:M 02 Jan 2026 03:04:05.123 * Ready",
            "[Fri Jan 02 03:04:05.123000 2026] [core:error]",
            "1767323045.123 x",
        ] {
            check(text, millis);
        }
        check("2026-01-02T03:04:05.123456789123Z", Some(T * NANOS + 123_456_789));
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "hello world",
            "2026-13-02 03:04:05",
            "2026-02-30 03:04:05",
            "2026-01-02 25:04:05",
            "2026-01-02",
            "order 1767323045 shipped",
            "12345678901 x",
            "v1767323045",
            "May the force be with you",
            "Sun is shining",
            "I0102",
            "4111-11",
            "a 2026-01-02T03:04:05Zulu",
        ] {
            check(text, None);
        }
        let far = format!("{}2026-01-02T03:04:05Z", "x ".repeat(80));
        check(&far, None);
    }

    #[test]
    fn a_missing_year_is_the_latest_that_is_not_ahead() {
        let at = |received: &str, text: &str| {
            let received = whole(received, Timestamp::default()).unwrap();
            find(text.as_bytes(), received).map(|s| s.time)
        };
        let is = |text: &str| whole(text, Timestamp::default());
        assert_eq!(at("2026-01-01T00:00:05Z", "Dec 31 23:59:59 h"), is("2025-12-31T23:59:59Z"));
        assert_eq!(at("2025-12-31T23:59:59Z", "Jan  1 00:00:01 h"), is("2026-01-01T00:00:01Z"));
        assert_eq!(at("2026-06-01T00:00:00Z", "Jul  1 00:00:01 h"), is("2025-07-01T00:00:01Z"));
        assert_eq!(at("2026-06-01T00:00:00Z", "Feb 29 00:00:01 h"), is("2024-02-29T00:00:01Z"));
    }

    #[test]
    fn days_read_what_they_write() {
        for days in (-1_000_000..1_000_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
    }

    #[test]
    fn a_number_that_is_too_large_is_no_time() {
        for text in ["9999999999999999999", "9223372036854775808 x", "18446744073709551616"] {
            let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
            assert_eq!(cursor.number(cursor.digits().min(20)), None, "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(epoch(T), Some(Timestamp::from_nanos(T * NANOS)));
        assert_eq!(epoch(T * 1_000), epoch(T));
        assert_eq!(epoch(T * 1_000_000), epoch(T));
        assert_eq!(epoch(T * NANOS), epoch(T));
        assert_eq!(epoch_float(1_767_323_045.5), Some(Timestamp::from_nanos(T * NANOS + NANOS / 2)));
        for odd in [0, 7, -1, 99_999_999, 50_000_000_000] {
            assert_eq!(epoch(odd), None, "{odd}");
        }
        for odd in [f64::NAN, f64::INFINITY, -1.0, 3.5] {
            assert_eq!(epoch_float(odd), None, "{odd}");
        }
    }
}
