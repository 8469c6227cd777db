//! Instants as texts: RFC 3339, read digit by digit because a row is to cost nanoseconds.

/// The day that was read last: times come in order, more or less, so the next one is most often of the same day.
#[derive(Debug, Clone, Default)]
pub(crate) struct Day {
    text: [u8; 10],
    nanos: i64,
}

/// A day in nanoseconds.
const DAY: i64 = 86_400_000_000_000;
/// A second.
const SECOND: i64 = 1_000_000_000;

impl Day {
    /// Nanoseconds since the epoch of a text like `2026-01-01T00:00:12.345Z`; digits behind the ninth of a second are dropped, and a
    /// leap second is the one before it.
    pub(crate) fn instant(&mut self, text: &[u8]) -> Option<i64> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        if *date != self.text {
            self.nanos = days(date)?.checked_mul(DAY)?;
            self.text = *date;
        }
        let (clock, rest) = rest.split_first_chunk::<9>()?;
        if !matches!(clock[0], b'T' | b't' | b' ') || clock[3] != b':' || clock[6] != b':' {
            return None;
        }
        let (hour, minute) = (two(clock[1], clock[2])?, two(clock[4], clock[5])?);
        let second = two(clock[7], clock[8])?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = (hour * 60 + minute) * 60 + second.min(59);
        let (fraction, zone) = fraction(rest)?;
        let offset = offset(zone)?;
        self.nanos.checked_add(seconds * SECOND + fraction)?.checked_sub(offset * SECOND)
    }
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// Nanoseconds of a fraction, and what is behind it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let mut nanos = 0;
    for &byte in digits.iter().take(9) {
        nanos = nanos * 10 + i64::from(byte - b'0');
    }
    const SCALE: [i64; 10] = [1, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    Some((nanos * SCALE[count.min(9)], rest))
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h, i, b':', m, n] => {
            let (hours, minutes) = (two(h, i)?, two(m, n)?);
            let seconds = (hours * 60 + minutes) * 60;
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since the epoch (after Howard Hinnant's `days_from_civil`).
fn days(date: &[u8; 10]) -> Option<i64> {
    let [a, b, c, d, b'-', e, f, b'-', g, h] = *date else { return None };
    let (year, month, day) = (two(a, b)? * 100 + two(c, d)?, two(e, f)?, two(g, h)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_3339_says_is_read_and_nothing_else() {
        let mut day = Day::default();
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01 00:00:01.5z", Some(1_500_000_000)),
            ("2026-01-01T00:00:12.345Z", Some(1_767_225_612_345_000_000)),
            ("2026-01-01T00:00:12.345678912999Z", Some(1_767_225_612_345_678_912)),
            ("2026-01-01T02:30:12+02:30", Some(1_767_225_612_000_000_000)),
            ("2025-12-31T23:00:12-01:00", Some(1_767_225_612_000_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000)),
            ("1969-12-31T23:59:59Z", Some(-1_000_000_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799_000_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:00:00", None),
            ("2023-01-01T00:00:00.Z", None),
            ("2023-01-01T00:00:00+0100", None),
            ("9999-01-01T00:00:00Z", None),
            ("0000-01-01T00:00:00Z", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(day.instant(text.as_bytes()), wanted, "{text}");
            assert_eq!(Day::default().instant(text.as_bytes()), wanted, "{text}, first");
        }
    }
}
