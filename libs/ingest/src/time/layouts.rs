//! The table of layouts. No two of them read the same bytes differently, so that their order does not matter.

use types::Timestamp;

use super::{
    civil::{civil, yearless},
    cursor::{Cursor, MONTHS, WEEKDAYS},
    epoch,
};

/// One way to write a time.
pub(super) struct Layout {
    /// Its pattern.
    pub(super) name: &'static str,
    opens: Opens,
    /// Whether it is believed after other words; else only where nothing but punctuation precedes it.
    anywhere: bool,
    pub(super) kind: Kind,
    /// Nanoseconds since 1970; a date without a year is the latest that is not ahead of the time of receipt.
    read: fn(&mut Cursor<'_>, Timestamp) -> Option<i64>,
}

/// What the layout says of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// The mark of a syslog line of RFC 3164.
    Syslog,
    /// The head of a klog line.
    Klog,
}

/// How a layout begins.
#[derive(Clone, Copy)]
enum Opens {
    /// So many digits, then one of these bytes, or any if there are none.
    Digits(usize, &'static [u8]),
    Month,
    Weekday,
    /// A letter and four digits.
    Letter,
}

/// How a text begins.
enum Opening {
    Digits(usize, Option<u8>),
    Month,
    Weekday,
    Letter,
}

use Kind::{Klog, Plain, Syslog};
use Opens::{Digits, Letter, Month, Weekday};

const fn row(
    name: &'static str,
    opens: Opens,
    anywhere: bool,
    kind: Kind,
    read: fn(&mut Cursor<'_>, Timestamp) -> Option<i64>,
) -> Layout {
    Layout { name, opens, anywhere, kind, read }
}

pub(super) static LAYOUTS: [Layout; 26] = [
    row("yyyy-mm-ddThh:mm:ss", Digits(4, b"-"), true, Plain, |c, _| year_first(c, b'-', b"Tt")),
    row("yyyy-mm-dd hh:mm:ss", Digits(4, b"-"), true, Plain, |c, _| year_first(c, b'-', b" ")),
    row("yyyy/mm/dd hh:mm:ss", Digits(4, b"/"), true, Plain, |c, _| year_first(c, b'/', b" T")),
    row("yyyy.mm.dd hh:mm:ss", Digits(4, b"."), true, Plain, |c, _| year_first(c, b'.', b" ")),
    row("yyyy-mm-dd-hh.mm.ss", Digits(4, b"-"), true, Plain, |c, _| db2(c)),
    row("yyyymmdd hhmmss", Digits(8, b"T- "), false, Plain, |c, _| compact(c)),
    row("yymmdd hhmmss", Digits(6, b" "), false, Plain, |c, _| short_compact(c)),
    row("yy/mm/dd hh:mm:ss", Digits(2, b"/"), false, Plain, |c, _| short_year_first(c)),
    row("dd/Mon/yyyy:hh:mm:ss", Digits(2, b"/"), true, Plain, |c, _| day_month_year(c, b'/')),
    row("dd-Mon-yyyy hh:mm:ss", Digits(2, b"-"), true, Plain, |c, _| day_month_year(c, b'-')),
    row("dd Mon yyyy hh:mm:ss", Digits(2, b" "), true, Plain, |c, _| day_month_year(c, b' ')),
    row("mm/dd/yyyy hh:mm:ss", Digits(2, b"/"), false, Plain, |c, _| numbers_then_year(c, b'/')),
    row("dd.mm.yyyy hh:mm:ss", Digits(2, b"."), false, Plain, |c, _| numbers_then_year(c, b'.')),
    row("mm-dd hh:mm:ss", Digits(2, b"-"), false, Plain, |c, received| month_day(c, b'-', received)),
    row("mm.dd hh:mm:ss", Digits(2, b"."), false, Plain, |c, received| month_day(c, b'.', received)),
    row("Mon dd hh:mm:ss", Month, true, Syslog, month_first),
    row("Mon dd yyyy hh:mm:ss", Month, true, Syslog, |c, _| month_first_with_year(c)),
    row("Mon dd, yyyy hh:mm:ss AM", Month, true, Plain, |c, _| month_comma_year(c)),
    row("Www Mon dd hh:mm:ss yyyy", Weekday, true, Plain, |c, _| weekday(c)),
    row("Www, dd Mon yyyy hh:mm:ss", Weekday, true, Plain, |c, _| weekday_comma(c)),
    row("Lmmdd hh:mm:ss", Letter, false, Klog, klog),
    row("label seconds yyyy.mm.dd", Digits(10, b" "), true, Plain, |c, _| labelled(c)),
    row("seconds since 1970", Digits(10, b""), false, Plain, |c, _| seconds(c)),
    row("milliseconds since 1970", Digits(13, b""), false, Plain, |c, _| whole_epoch(c, 13)),
    row("microseconds since 1970", Digits(16, b""), false, Plain, |c, _| whole_epoch(c, 16)),
    row("nanoseconds since 1970", Digits(19, b""), false, Plain, |c, _| whole_epoch(c, 19)),
];

/// Reads a timestamp at the very beginning: the instant, its length, its layout's place in [`LAYOUTS`].
pub(super) fn at(bytes: &[u8], leading: bool, received: Timestamp) -> Option<(Timestamp, usize, u8)> {
    let opening = Opening::of(bytes)?;
    let rows = (0u8..).zip(&LAYOUTS).filter(|(_, layout)| layout.opens(&opening) && (leading || layout.anywhere));
    rows.into_iter().find_map(|(place, layout)| {
        let (time, length) = layout.whole(bytes, received)?;
        Some((time, length, place))
    })
}

impl Opening {
    fn of(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let mut cursor = Cursor { bytes, at: 0 };
        if first.is_ascii_digit() {
            let width = cursor.digits();
            return Some(Self::Digits(width, bytes.get(width).copied()));
        }
        if matches!(first, b'I' | b'W' | b'E' | b'F' | b'D') && bytes.get(1).is_some_and(u8::is_ascii_digit) {
            return Some(Self::Letter);
        }
        if !first.is_ascii_uppercase() {
            return None;
        }
        match (cursor.name(&MONTHS), cursor.name(&WEEKDAYS)) {
            (Some(_), _) => Some(Self::Month),
            (_, Some(_)) => Some(Self::Weekday),
            _ => None,
        }
    }
}

impl Layout {
    fn opens(&self, opening: &Opening) -> bool {
        match (self.opens, opening) {
            (Digits(width, next), Opening::Digits(found, after)) => {
                width == *found && (next.is_empty() || after.is_some_and(|byte| next.contains(&byte)))
            }
            (Month, Opening::Month) | (Weekday, Opening::Weekday) | (Letter, Opening::Letter) => true,
            _ => false,
        }
    }

    /// Reads the layout at the beginning if it opens there, where nothing but punctuation precedes.
    pub(super) fn read_pinned(&self, bytes: &[u8], received: Timestamp) -> Option<(Timestamp, usize)> {
        if self.opens(&Opening::of(bytes)?) { self.whole(bytes, received) } else { None }
    }

    fn whole(&self, bytes: &[u8], received: Timestamp) -> Option<(Timestamp, usize)> {
        let mut cursor = Cursor { bytes, at: 0 };
        let nanos = (self.read)(&mut cursor, received)?;
        let ends = !cursor.peek().is_some_and(|b| b.is_ascii_alphanumeric());
        ends.then_some((Timestamp::from_nanos(nanos), cursor.at))
    }
}

/// `2026-01-02T03:04:05.123Z`, `2026-01-02 03:04:05,123`, `2026/01/02 03:04:05`.
fn year_first(c: &mut Cursor<'_>, separator: u8, then: &[u8]) -> Option<i64> {
    let (year, month, day) = year_month_day(c, separator)?;
    c.skip(then)?;
    let time = c.clock()?;
    civil(year, month, day, time)?.checked_sub(c.zone())
}

fn year_month_day(c: &mut Cursor<'_>, separator: u8) -> Option<(i64, i64, i64)> {
    let year = c.number(4)?;
    c.skip(&[separator])?;
    let month = c.number(2)?;
    c.skip(&[separator])?;
    Some((year, month, c.number(2)?))
}

/// `2026-01-02-03.04.05.123456`.
fn db2(c: &mut Cursor<'_>) -> Option<i64> {
    let (year, month, day) = year_month_day(c, b'-')?;
    c.skip(b"-")?;
    let hour = c.number(2)?;
    civil(year, month, day, c.clock_from(hour, b'.')?)
}

/// `20260102T030405Z`, `20260102-03:04:05`.
fn compact(c: &mut Cursor<'_>) -> Option<i64> {
    let (year, month, day) = (c.number(4)?, c.number(2)?, c.number(2)?);
    c.skip(b"T- ")?;
    let time = if c.digits() == 6 { c.compact()? } else { c.clock()? };
    civil(year, month, day, time)?.checked_sub(c.zone())
}

/// `260102 030405`, `260102  3:04:05`.
fn short_compact(c: &mut Cursor<'_>) -> Option<i64> {
    let (year, month, day) = (c.number(2)?, c.number(2)?, c.number(2)?);
    c.skip(b" ")?;
    let time = match c.digits() {
        6 => c.compact()?,
        2 => c.clock()?,
        _ => {
            c.skip(b" ")?;
            let hour = c.number(1)?;
            c.clock_from(hour, b':')?
        }
    };
    civil(2000 + year, month, day, time)
}

/// `26/01/02 03:04:05`.
fn short_year_first(c: &mut Cursor<'_>) -> Option<i64> {
    let year = c.number(2)?;
    c.skip(b"/")?;
    let month = c.number(2)?;
    c.skip(b"/")?;
    let day = c.number(2)?;
    c.skip(b" ")?;
    civil(2000 + year, month, day, c.clock()?)
}

/// `10/Oct/2000:13:55:36 -0700`, `02-Jan-2026 03:04:05`, `02 Jan 2026 03:04:05`.
fn day_month_year(c: &mut Cursor<'_>, separator: u8) -> Option<i64> {
    let day = c.number(2)?;
    c.skip(&[separator])?;
    let month = c.name(&MONTHS)?;
    c.skip(&[separator])?;
    let year = c.number(4)?;
    c.skip(b": ")?;
    let time = c.clock()?;
    civil(year, month, day, time)?.checked_sub(c.zone())
}

/// `01/02/2026 03:04:05` with the month first, `02.01.2026 03:04:05` with the day first; the other way round where only
/// that is a date.
fn numbers_then_year(c: &mut Cursor<'_>, separator: u8) -> Option<i64> {
    let first = c.number(2)?;
    c.skip(&[separator])?;
    let second = c.number(2)?;
    c.skip(&[separator])?;
    let year = c.number(4)?;
    c.skip(b" ,")?;
    c.skip(b" ");
    let time = c.clock_of_any_hours()?;
    let (month, day) = if separator == b'/' { (first, second) } else { (second, first) };
    civil(year, month, day, time).or_else(|| civil(year, day, month, time))
}

/// `01-02 03:04:05.123`, `01.02 03:04:05`.
fn month_day(c: &mut Cursor<'_>, separator: u8, received: Timestamp) -> Option<i64> {
    let month = c.number(2)?;
    c.skip(&[separator])?;
    let day = c.number(2)?;
    c.skip(b" ")?;
    yearless(month, day, c.clock()?, received)
}

/// `Jan  2 03:04:05`.
fn month_first(c: &mut Cursor<'_>, received: Timestamp) -> Option<i64> {
    let (month, day) = month_and_day(c)?;
    yearless(month, day, c.clock()?, received)
}

/// `Jan  2 2026 03:04:05`.
fn month_first_with_year(c: &mut Cursor<'_>) -> Option<i64> {
    let (month, day) = month_and_day(c)?;
    let year = c.number(4)?;
    c.skip(b" ")?;
    civil(year, month, day, c.clock()?)
}

fn month_and_day(c: &mut Cursor<'_>) -> Option<(i64, i64)> {
    let month = c.name(&MONTHS)?;
    c.skip(b" ")?;
    let day = c.day()?;
    c.skip(b" ")?;
    Some((month, day))
}

/// `Jan 02, 2026 3:04:05 AM`, `Jan 2, 2026, 3:04:05 AM`.
fn month_comma_year(c: &mut Cursor<'_>) -> Option<i64> {
    let month = c.name(&MONTHS)?;
    c.skip(b" ")?;
    let day = c.day()?;
    c.skip(b",")?;
    c.skip(b" ")?;
    let year = c.number(4)?;
    c.skip(b",");
    c.skip(b" ")?;
    civil(year, month, day, c.clock_of_any_hours()?)
}

/// `Sun Dec 04 04:47:44.123 2005`, `Sun Dec  4 04:47:44 UTC 2005`.
fn weekday(c: &mut Cursor<'_>) -> Option<i64> {
    c.name(&WEEKDAYS)?;
    c.skip(b" ")?;
    let (month, day) = month_and_day(c)?;
    let time = c.clock()?;
    let zone = c.zone();
    c.skip(b" ")?;
    civil(c.number(4)?, month, day, time)?.checked_sub(zone)
}

/// `Sun, 04 Dec 2005 04:47:44 GMT`.
fn weekday_comma(c: &mut Cursor<'_>) -> Option<i64> {
    c.name(&WEEKDAYS)?;
    c.skip(b",")?;
    c.skip(b" ")?;
    let separator = if c.bytes.get(c.at + 2) == Some(&b'-') { b'-' } else { b' ' };
    day_month_year(c, separator)
}

/// `I0102 03:04:05.123456`.
fn klog(c: &mut Cursor<'_>, received: Timestamp) -> Option<i64> {
    c.at += 1;
    if c.digits() != 4 {
        return None;
    }
    let (month, day) = (c.number(2)?, c.number(2)?);
    c.skip(b" ")?;
    yearless(month, day, c.clock()?, received)
}

/// `1117838570 2005.06.03`: seconds that a dotted date confirms, after a label.
fn labelled(c: &mut Cursor<'_>) -> Option<i64> {
    let time = epoch(c.number(10)?)?.nanos();
    let mut next = Cursor { bytes: c.bytes, at: c.at };
    next.skip(b" ")?;
    year_month_day(&mut next, b'.')?;
    Some(time)
}

/// `1767323045`, `1767323045.123`.
fn seconds(c: &mut Cursor<'_>) -> Option<i64> {
    let whole = epoch(c.number(10)?)?.nanos();
    whole.checked_add(c.fraction())
}

fn whole_epoch(c: &mut Cursor<'_>, width: usize) -> Option<i64> {
    Some(epoch(c.number(width)?)?.nanos())
}
