//! Arguments of table functions and sinks: by place, by name, durations and texts.

use std::{collections::VecDeque, time::Duration};

use sqlparser::{
    ast::{Expr, FunctionArg, FunctionArgExpr, Interval, Spanned, Value, ValueWithSpan},
    tokenizer::Location,
};

use crate::{Diagnostic, nearest, text::at};

/// The arguments of one call that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Arguments<'a> {
    function: String,
    place: Location,
    shape: &'static str,
    unnamed: VecDeque<&'a Expr>,
    named: Vec<(String, Location, &'a Expr)>,
}

impl<'a> Arguments<'a> {
    /// Of a call at a place; `shape` says how such a call is written.
    pub(crate) fn of(
        function: &str,
        place: Location,
        list: &'a [FunctionArg],
        shape: &'static str,
    ) -> Result<Self, Diagnostic> {
        let mut found =
            Self { function: function.to_owned(), place, shape, unnamed: VecDeque::new(), named: Vec::new() };
        for argument in list {
            let (name, value) = match argument {
                FunctionArg::Named { name, arg, .. } => (Some((name.value.to_lowercase(), name.span.start)), arg),
                FunctionArg::ExprNamed { name, arg, .. } => {
                    (Some((name.to_string().to_lowercase(), name.span().start)), arg)
                }
                FunctionArg::Unnamed(arg) => (None, arg),
            };
            let FunctionArgExpr::Expr(value) = value else {
                return Err(at(place, format!("{function} takes no *")).help(shape));
            };
            match name {
                Some((name, at_name)) if found.named.iter().any(|(other, ..)| *other == name) => {
                    return Err(at(at_name, format!("{name} is given twice")));
                }
                Some((name, at_name)) => found.named.push((name, at_name, value)),
                None if !found.named.is_empty() => {
                    return Err(
                        at(value.span().start, "an argument without a name stands before those with one").help(shape)
                    );
                }
                None => found.unnamed.push_back(value),
            }
        }
        Ok(found)
    }

    /// The next argument by place.
    pub(crate) fn next(&mut self, what: &str) -> Result<&'a Expr, Diagnostic> {
        let missing = || at(self.place, format!("{} needs {what}", self.function)).help(self.shape);
        self.unnamed.pop_front().ok_or_else(missing)
    }

    /// The next argument by place, which is a duration within bounds.
    pub(crate) fn next_interval(&mut self, what: &str, bounds: (Duration, Duration)) -> Result<Duration, Diagnostic> {
        let found = self.next(what)?;
        let (given, place) = interval(found, what)?;
        bounded(place, what, given, bounds)
    }

    /// An argument by name.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a Expr> {
        let place = self.named.iter().position(|(known, ..)| known == name)?;
        Some(self.named.remove(place).2)
    }

    /// A duration by name.
    pub(crate) fn interval(
        &mut self,
        name: &str,
        what: &str,
        bounds: (Duration, Duration),
    ) -> Result<Option<Duration>, Diagnostic> {
        let Some(found) = self.take(name) else { return Ok(None) };
        let (given, place) = interval(found, what)?;
        bounded(place, what, given, bounds).map(Some)
    }

    /// A text by name, and where it stands.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<(String, Location)>, Diagnostic> {
        self.take(name).map(|found| text(found, name)).transpose()
    }

    /// True or false by name.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Diagnostic> {
        match self.take(name) {
            None => Ok(None),
            Some(Expr::Value(ValueWithSpan { value: Value::Boolean(given), .. })) => Ok(Some(*given)),
            Some(other) => Err(at(other.span().start, format!("{name} is true or false, not {other}"))),
        }
    }

    /// A whole number by name, and where it stands.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<(u64, Location)>, Diagnostic> {
        let Some(found) = self.take(name) else { return Ok(None) };
        let place = found.span().start;
        let given = match found {
            Expr::Value(ValueWithSpan { value: Value::Number(given, _), .. }) => given.parse().ok(),
            _ => None,
        };
        given
            .map(|given| Some((given, place)))
            .ok_or_else(|| at(place, format!("{name} is a whole number, not {found}")))
    }

    /// A whole number by name, from 1 to a most.
    pub(crate) fn count(&mut self, name: &str, most: u32) -> Result<Option<u32>, Diagnostic> {
        let Some((given, place)) = self.number(name)? else { return Ok(None) };
        match u32::try_from(given).ok().filter(|given| (1..=most).contains(given)) {
            Some(given) => Ok(Some(given)),
            None => Err(at(place, format!("{name} is from 1 to {most}"))),
        }
    }

    /// What is left of the arguments by name, in order.
    pub(crate) fn rest(&mut self) -> Vec<(String, Location, &'a Expr)> {
        std::mem::take(&mut self.named)
    }

    /// Complains about what nobody took.
    pub(crate) fn end(self, names: &[&str]) -> Result<(), Diagnostic> {
        if let Some(left) = self.unnamed.front() {
            let found = at(left.span().start, format!("{} does not take {left} here", self.function));
            return Err(found.help(self.shape));
        }
        let Some((name, place, _)) = self.named.first() else { return Ok(()) };
        let found = at(*place, format!("{} has no argument {name}", self.function));
        Err(match nearest(name, names.iter().copied()) {
            Some(meant) => found.help(format!("did you mean {}?", spoken(meant))),
            None => found.help(self.shape),
        })
    }
}

/// A name as people write it.
fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

/// The text of a literal, and where it stands.
pub(crate) fn text(expr: &Expr, what: &str) -> Result<(String, Location), Diagnostic> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) => Ok((text.clone(), span.start)),
        other => Err(at(other.span().start, format!("{what} is a text in single quotes, not {other}"))),
    }
}

/// `INTERVAL '10 seconds'` or `INTERVAL '10' SECOND`, and where its value stands.
pub(crate) fn interval(expr: &Expr, what: &str) -> Result<(Duration, Location), Diagnostic> {
    let Expr::Interval(Interval { value, leading_field, leading_precision: None, last_field: None, .. }) = expr else {
        return Err(at(expr.span().start, format!("expected INTERVAL '…' for {what}, found {expr}")));
    };
    let (mut given, place) = text(value, what)?;
    if let Some(unit) = leading_field {
        given = format!("{given} {unit}");
    }
    let found = duration(&given).ok_or_else(|| {
        at(place, format!("{given:?} is not a duration"))
            .help("write a number and one of milliseconds, seconds, minutes, hours, days")
    })?;
    Ok((found, place))
}

fn bounded(
    place: Location,
    what: &str,
    given: Duration,
    (min, max): (Duration, Duration),
) -> Result<Duration, Diagnostic> {
    if given < min || given > max {
        let what = what.trim_start_matches("the ");
        return Err(at(place, format!("{what} lasts from {min:?} to {} days", max.as_secs() / 86_400)));
    }
    Ok(given)
}

pub(crate) fn factor_ms(unit: &str) -> Option<f64> {
    Some(match unit.to_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
        "h" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return None,
    })
}

/// Reads `10 seconds`, `1.5s`, `1 minute 30 seconds`; whole milliseconds, less than a thousand years.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += number * factor_ms(&rest[..letters])?;
        rest = rest[letters..].trim_start();
    }
    (total.is_finite() && total < 3.2e13 && total.fract() == 0.0).then(|| Duration::from_secs_f64(total / 1_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10 seconds", Some(10_000)),
            ("10s", Some(10_000)),
            ("1 minute 30 seconds", Some(90_000)),
            ("1.5 s", Some(1_500)),
            ("250ms", Some(250)),
            ("2 DAYS", Some(172_800_000)),
            ("", None),
            ("10", None),
            ("ten seconds", None),
            ("-1 s", None),
            ("1 month", None),
            ("0.1 ms", None),
            ("99999999999999999999 days", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text:?}");
        }
    }
}
