//! Names, texts and numbers as SQL writes them.

use std::time::Duration;

use types::Timestamp;

use crate::quantity::sql_text;

/// A name of a column or table.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text.
pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An instant.
pub(crate) fn timestamp(at: Timestamp) -> String {
    format!("TIMESTAMP '{}'", sql_text(at))
}

/// A finite number; SQL has no exponent without digits before it, and a sign must not meet another.
pub(crate) fn number(number: f64) -> String {
    if number < 0.0 { format!("({number:?})") } else { format!("{number:?}") }
}

/// A whole number.
pub(crate) fn integer(number: i64) -> String {
    if number < 0 { format!("({number})") } else { number.to_string() }
}

/// Nanoseconds of a span.
pub(crate) fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// A span as an interval.
pub(crate) fn interval(span: Duration) -> String {
    let nanos = nanos(span);
    if nanos % 1_000_000 == 0 {
        format!("INTERVAL '{} milliseconds'", nanos / 1_000_000)
    } else {
        format!("INTERVAL '{nanos} nanoseconds'")
    }
}

/// The seconds of a span.
pub(crate) fn seconds(span: Duration) -> String {
    number(span.as_secs_f64())
}
