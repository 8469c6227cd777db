//! Units of the calendar. Pure.

use jiff::{Span, Zoned, civil::Time};

/// A unit of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    pub(super) fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'y' => Self::Year,
            'M' => Self::Month,
            'w' => Self::Week,
            'd' => Self::Day,
            'h' | 'H' => Self::Hour,
            'm' => Self::Minute,
            's' => Self::Second,
            _ => return None,
        })
    }

    /// As SQL's `date_trunc` calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Week => "week",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
        }
    }

    pub(crate) fn span(self, count: i64) -> Option<Span> {
        let span = Span::new();
        match self {
            Self::Year => span.try_years(count),
            Self::Quarter => span.try_months(count.checked_mul(3)?),
            Self::Month => span.try_months(count),
            Self::Week => span.try_weeks(count),
            Self::Day => span.try_days(count),
            Self::Hour => span.try_hours(count),
            Self::Minute => span.try_minutes(count),
            Self::Second => span.try_seconds(count),
        }
        .ok()
    }

    /// The beginning of the unit in which an instant lies.
    pub(crate) fn floor(self, at: &Zoned) -> Option<Zoned> {
        let (date, time) = (at.date(), at.time());
        let clock = |hour, minute, second| Time::new(hour, minute, second, 0).ok();
        let (date, time) = match self {
            Self::Year => (date.first_of_year(), Time::midnight()),
            Self::Quarter => {
                let month = (date.month() - 1) / 3 * 3 + 1;
                (jiff::civil::Date::new(date.year(), month, 1).ok()?, Time::midnight())
            }
            Self::Month => (date.first_of_month(), Time::midnight()),
            Self::Week => {
                let back = i64::from(date.weekday().to_monday_zero_offset());
                (date.checked_sub(Span::new().try_days(back).ok()?).ok()?, Time::midnight())
            }
            Self::Day => (date, Time::midnight()),
            Self::Hour => (date, clock(time.hour(), 0, 0)?),
            Self::Minute => (date, clock(time.hour(), time.minute(), 0)?),
            Self::Second => (date, clock(time.hour(), time.minute(), time.second())?),
        };
        date.to_datetime(time).to_zoned(at.time_zone().clone()).ok()
    }
}
