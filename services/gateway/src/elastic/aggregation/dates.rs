//! `date_histogram`. Pure.

use jiff::{SignedDuration, tz::TimeZone};
use serde_json::{Map, Value};

use super::{
    super::{
        clause::Reading,
        moment::{self, Format, Unit},
        refused::{Refused, count, flag, known, object, text},
    },
    By, Dates, MILLI, Order, Step, field, order,
};

pub(super) fn dates(reading: &Reading, members: &Map<String, Value>) -> Result<Dates, Refused> {
    let names = [
        "field",
        "fixed_interval",
        "calendar_interval",
        "interval",
        "time_zone",
        "offset",
        "min_doc_count",
        "order",
        "extended_bounds",
        "hard_bounds",
        "format",
        "keyed",
        "missing",
        "script",
    ];
    known(members, &names, "date_histogram")?;
    let field = field(members, "date_histogram")?;
    if !field.is_time() {
        let shown = members.get("field").map(ToString::to_string).unwrap_or_default();
        let reason = format!(
            "Field [{}] is not supported for aggregation [date_histogram]: it is no date",
            shown.trim_matches('"')
        );
        return Err(Refused::illegal(reason));
    }
    let given = |name: &str| members.get(name).map(|value| text(value, name)).transpose();
    let step = match (given("fixed_interval")?, given("calendar_interval")?, given("interval")?) {
        (Some(fixed), None, None) => Step::Fixed(fixed_nanos(&fixed)?),
        (None, Some(calendar), None) => Step::Calendar(calendar_unit(&calendar).ok_or_else(|| no_interval(&calendar))?),
        (None, None, Some(any)) => match calendar_unit(&any) {
            Some(unit) => Step::Calendar(unit),
            None => Step::Fixed(fixed_nanos(&any)?),
        },
        (None, None, None) => {
            return Err(Refused::illegal("Invalid interval specified, must be non-null and non-empty"));
        }
        _ => return Err(Refused::illegal("Cannot use two of [fixed_interval], [calendar_interval] and [interval]")),
    };
    let zone = given("time_zone")?.map_or(Ok(TimeZone::UTC), |zone| moment::zone(&zone))?;
    let format = given("format")?.map_or_else(|| Ok(Format::defaults()), |format| Format::all(&format))?;
    let bounds = |name: &str| -> Result<Option<(i64, i64)>, Refused> {
        let Some(bounds) = members.get(name).filter(|bounds| !bounds.is_null()) else { return Ok(None) };
        let bounds = object(bounds, name)?;
        let mut formats = format.clone();
        formats.extend(Format::defaults());
        let read = |end: &str| match bounds.get(end) {
            Some(value) => Ok(moment::read(value, &formats, &zone, reading.now)?.start),
            None => Err(Refused::absent(&format!("{name} without {end}"))),
        };
        let (min, max) = (read("min")?, read("max")?);
        if min > max {
            return Err(Refused::parsing(format!("[{name}.min] cannot be greater than [{name}.max]")));
        }
        Ok(Some((min, max)))
    };
    let offset = given("offset")?.map_or(Ok(0), |offset| {
        let (sign, span) = match offset.strip_prefix('-') {
            Some(span) => (-1, span),
            None => (1, offset.strip_prefix('+').unwrap_or(&offset)),
        };
        if span == "0" { Ok(0) } else { fixed_nanos(span).map(|nanos| sign * nanos) }
    })?;
    Ok(Dates {
        field,
        step,
        offset,
        least: members.get("min_doc_count").map_or(Ok(0), |least| count(least, "min_doc_count"))? as u64,
        order: order(members, Order { by: By::Key, descending: false })?,
        bounds: bounds("extended_bounds")?,
        hard: bounds("hard_bounds")?,
        format: format.first().cloned().unwrap_or(Format::Millis),
        keyed: members.get("keyed").map_or(Ok(false), |keyed| flag(keyed, "keyed"))?,
        zone,
    })
}

fn no_interval(given: &str) -> Refused {
    Refused::illegal(format!("The supplied interval [{given}] could not be parsed as a calendar interval"))
}

fn fixed_nanos(given: &str) -> Result<i64, Refused> {
    let wrong =
        || Refused::illegal(format!("failed to parse setting [fixed_interval] with value [{given}] as a time value"));
    let digits = given.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = given.split_at(digits);
    let unit = match unit {
        "ms" => MILLI,
        "s" => 1_000 * MILLI,
        "m" => 60_000 * MILLI,
        "h" => 3_600_000 * MILLI,
        "d" => 86_400_000 * MILLI,
        _ => return Err(wrong()),
    };
    let nanos = match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(unit),
        Err(_) => {
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let unit = SignedDuration::from_nanos(unit).as_secs_f64();
            let span = SignedDuration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
            i64::try_from(span.as_nanos()).ok()
        }
    };
    nanos.filter(|nanos| *nanos >= MILLI).map(|nanos| nanos / MILLI * MILLI).ok_or_else(wrong)
}

fn calendar_unit(given: &str) -> Option<Unit> {
    Some(match given {
        "1m" | "minute" => Unit::Minute,
        "1h" | "hour" => Unit::Hour,
        "1d" | "day" => Unit::Day,
        "1w" | "week" => Unit::Week,
        "1M" | "month" => Unit::Month,
        "1q" | "quarter" => Unit::Quarter,
        "1y" | "year" => Unit::Year,
        "1s" | "second" => Unit::Second,
        _ => return None,
    })
}
