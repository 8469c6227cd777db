//! Timestamps: a table of layouts, looked for near the beginning of a line.

mod civil;
mod cursor;
mod layouts;

use types::Timestamp;

use self::{civil::NANOS, layouts::LAYOUTS};
pub(crate) use self::{civil::civil_from_days, layouts::Kind};

/// How far into a line a timestamp may begin.
const PROBE_BYTES_MAX: usize = 64;

/// How far into a line a timestamp is pinned: past `[`, `- ` and their kin, before any word.
const PINNED_BYTES_MAX: usize = 4;

/// What may stand right before a timestamp.
const OPENERS: &[u8] = b" \t[(<>|\"'=:,";

/// A timestamp found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time: Timestamp,
    /// Where it begins.
    pub(crate) start: usize,
    /// The first byte after it.
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

/// The layout and place of a source's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    layout: u8,
    start: u8,
}

impl Pin {
    pub(crate) fn layout(self) -> &'static str {
        LAYOUTS[usize::from(self.layout)].name
    }

    /// Reads the timestamp where it stood before; what [`search`] would find, or nothing.
    fn read(self, text: &[u8], received: Timestamp) -> Option<Stamp> {
        let start = usize::from(self.start);
        let (head, rest) = text.split_at_checked(start)?;
        let nothing_before = head.iter().all(|b| !b.is_ascii_alphanumeric() && *b != b'\n');
        if !nothing_before || head.last().is_some_and(|b| !OPENERS.contains(b)) {
            return None;
        }
        let layout = &LAYOUTS[usize::from(self.layout)];
        let (time, length) = layout.read_pinned(rest, received)?;
        Some(Stamp { time, start, end: start + length, kind: layout.kind })
    }
}

/// Finds the first timestamp near the beginning of a line, first where `pin` says, and pins it.
///
/// Layouts that could be something else (epochs, two-digit dates) count only where nothing but punctuation precedes.
pub(crate) fn find(text: &[u8], received: Timestamp, pin: &mut Option<Pin>) -> Option<Stamp> {
    if let Some(stamp) = pin.and_then(|pin| pin.read(text, received)) {
        return Some(stamp);
    }
    let (stamp, layout) = search(text, received)?;
    if stamp.start <= PINNED_BYTES_MAX
        && let Ok(start) = u8::try_from(stamp.start)
    {
        *pin = Some(Pin { layout, start });
    }
    Some(stamp)
}

/// Finds the date and time of day with which a message begins.
///
/// Numbers since 1970 are none here: a message beside other fields may well begin with a count.
pub(crate) fn leading(text: &[u8], received: Timestamp, pin: &mut Option<Pin>) -> Option<Stamp> {
    let stamp = find(text, received, pin)?;
    (stamp.start <= PINNED_BYTES_MAX && text[stamp.start..stamp.end].contains(&b':')).then_some(stamp)
}

fn search(text: &[u8], received: Timestamp) -> Option<(Stamp, u8)> {
    let mut leading = true;
    for start in 0..text.len().min(PROBE_BYTES_MAX) {
        let byte = text[start];
        if byte.is_ascii_alphanumeric() {
            let opens = start == 0 || OPENERS.contains(&text[start - 1]);
            if opens && let Some((time, length, layout)) = layouts::at(&text[start..], leading, received) {
                let kind = LAYOUTS[usize::from(layout)].kind;
                return Some((Stamp { time, start, end: start + length, kind }, layout));
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
    let (time, length, _) = layouts::at(bytes, true, received)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-01-02 03:04:05 UTC.
    const T: i64 = 1_767_323_045;

    fn check(text: &str, nanos: Option<i64>) {
        // Received 2026-01-10 00:00:00 UTC.
        let received = Timestamp::from_millis(1_768_003_200_000);
        let mut pin = None;
        let found = find(text.as_bytes(), received, &mut pin);
        assert_eq!(found.map(|s| s.time.nanos()), nanos, "{text:?}");
        if pin.is_some() {
            assert_eq!(find(text.as_bytes(), received, &mut pin), found, "{text:?} where it is pinned");
        }
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
            "2026-01-02-03.04.05 R02-M1",
            "2026.01.02 03:04:05: x",
            "260102  3:04:05 [Note] x",
            "01/02/2026 03:04:05 x",
            "01/02/2026, 3:04:05 AM x",
            "02.01.2026 03:04:05 x",
            "Jan 02, 2026 3:04:05 AM c.e.Main run",
            "Jan 2, 2026, 3:04:05 AM x",
            "Fri Jan  2 03:04:05 UTC 2026: x",
            "Friday 2026-01-02 03:04:05 x",
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
            find(text.as_bytes(), received, &mut None).map(|s| s.time)
        };
        let is = |text: &str| whole(text, Timestamp::default());
        assert_eq!(at("2026-01-01T00:00:05Z", "Dec 31 23:59:59 h"), is("2025-12-31T23:59:59Z"));
        assert_eq!(at("2025-12-31T23:59:59Z", "Jan  1 00:00:01 h"), is("2026-01-01T00:00:01Z"));
        assert_eq!(at("2026-06-01T00:00:00Z", "Jul  1 00:00:01 h"), is("2025-07-01T00:00:01Z"));
        assert_eq!(at("2026-06-01T00:00:00Z", "Feb 29 00:00:01 h"), is("2024-02-29T00:00:01Z"));
    }

    #[test]
    fn every_layout_is_read_and_pinned() {
        let received = Timestamp::from_millis(1_768_003_200_000);
        let mut read = [false; LAYOUTS.len()];
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02 03:04:05",
            "2026/01/02 03:04:05",
            "2026.01.02 03:04:05",
            "2026-01-02-03.04.05",
            "20260102 030405",
            "260102 030405",
            "26/01/02 03:04:05",
            "02/Jan/2026:03:04:05 +0000",
            "02-Jan-2026 03:04:05",
            "02 Jan 2026 03:04:05",
            "13/12/2025 03:04:05",
            "02.01.2026 03:04:05",
            "01-02 03:04:05",
            "01.02 03:04:05",
            "Jan  2 03:04:05",
            "Jan  2 2026 03:04:05",
            "Jan 2, 2026 11:04:05 PM",
            "Fri Jan 02 03:04:05 2026",
            "Fri, 02 Jan 2026 03:04:05 GMT",
            "E0102 03:04:05",
            "1767323045 2026.01.02",
            "1767323045",
            "1767323045000",
            "1767323045000000",
            "1767323045000000000",
        ] {
            for line in [format!("{text} said"), format!("[{text}] said"), format!("- {text} said")] {
                let mut pin = None;
                let found = find(line.as_bytes(), received, &mut pin).unwrap();
                let pin = pin.unwrap();
                read[usize::from(pin.layout)] = true;
                assert_eq!(pin.read(line.as_bytes(), received), Some(found), "{line:?}");
                // A line that does not fit is searched as ever.
                let other = b"x 2020-02-03T04:05:06Z y";
                assert_eq!(find(other, received, &mut Some(pin)), find(other, received, &mut None), "after {line:?}");
            }
        }
        let unread: Vec<_> =
            LAYOUTS.iter().zip(read).filter(|(_, read)| !read).map(|(layout, _)| layout.name).collect();
        assert_eq!(unread, [""; 0]);
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
