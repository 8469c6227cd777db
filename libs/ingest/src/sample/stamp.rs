//! Times as the kinds of software print them.

use types::Timestamp;

use crate::time::civil_from_days;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A broken-down time, UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: i64,
}

impl Civil {
    pub(super) fn of(time: Timestamp) -> Self {
        let (seconds, nanos) = (time.nanos().div_euclid(1_000_000_000), time.nanos().rem_euclid(1_000_000_000));
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        Self { year, month, day, hour: of_day / 3_600, minute: of_day / 60 % 60, second: of_day % 60, nanos }
    }

    fn date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn clock(self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }

    fn millis(self) -> i64 {
        self.nanos / 1_000_000
    }

    /// `2026-01-02T03:04:05.123456789Z`.
    pub(super) fn rfc3339_nanos(self) -> String {
        format!("{}T{}.{:09}Z", self.date(), self.clock(), self.nanos)
    }

    /// `2026-01-02T03:04:05.123Z`.
    pub(super) fn rfc3339_millis(self) -> String {
        format!("{}T{}.{:03}Z", self.date(), self.clock(), self.millis())
    }

    /// `2026-01-02 03:04:05` with the milliseconds after the given mark.
    pub(super) fn plain_millis(self, mark: char) -> String {
        format!("{} {}{mark}{:03}", self.date(), self.clock(), self.millis())
    }

    /// `02/Jan/2026:03:04:05 +0000`.
    pub(super) fn common(self) -> String {
        let month = usize::try_from(self.month - 1).map_or("Jan", |place| MONTHS[place]);
        format!("{:02}/{month}/{:04}:{} +0000", self.day, self.year, self.clock())
    }
}
