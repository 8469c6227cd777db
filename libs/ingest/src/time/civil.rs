//! Civil dates and times of day.

use types::Timestamp;

pub(super) const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Nanoseconds since 1970 of a civil date and a time of day; nothing if the date does not exist or does not fit.
pub(super) fn civil(year: i64, month: i64, day: i64, nanos_of_day: i64) -> Option<i64> {
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
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
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
pub(super) fn yearless(month: i64, day: i64, nanos_of_day: i64, received: Timestamp) -> Option<i64> {
    let latest = received.nanos().saturating_add(DAY_SECONDS * NANOS);
    let (year, _, _) = civil_from_days(received.nanos().div_euclid(DAY_SECONDS * NANOS));
    // Nine years back: 29 February is at most eight years away.
    (year - 8..=year + 1).rev().find_map(|year| civil(year, month, day, nanos_of_day).filter(|&nanos| nanos <= latest))
}

/// Nanoseconds of a time of day; second 60 is a leap second.
pub(super) fn of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3_600 + minute * 60 + second) * NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_read_what_they_write() {
        for days in (-1_000_000..1_000_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
    }
}
