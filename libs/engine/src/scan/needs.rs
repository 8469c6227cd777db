//! What a row must have for a filter to let it through, as a chunk's index can tell; never more than the filter asks.

use std::sync::Arc;

use arrow::datatypes::DataType;
use chunk::{Comparison, Predicate, Scalar};
use datafusion::{
    common::ScalarValue,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{
            BinaryExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNullExpr, LikeExpr, Literal,
        },
    },
};
use regex_syntax::hir::{Hir, HirKind, Look};
use types::Timestamp;

/// The column of event times.
pub(crate) const TIME: &str = "_time";

/// Integers up to here are the same as a float.
const FLOAT_EXACT: f64 = 4_503_599_627_370_496.0;

/// How far a cast of a time to a coarser unit moves it at most.
const ROUNDING: std::time::Duration = std::time::Duration::from_secs(1);

/// `None` where the filter says nothing that an index could know.
pub(crate) fn needs(expr: &Arc<dyn PhysicalExpr>) -> Option<Predicate> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return of_binary(binary);
    }
    if let Some(filter) = expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
        return needs(&filter.current().ok()?);
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        if list.negated() {
            return None;
        }
        let column = column(list.expr())?;
        let values = list.list().iter().map(|one| scalar(literal(one)?)).collect::<Option<Vec<_>>>()?;
        return Some(Predicate::OneOf { column, values });
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        if like.negated() {
            return None;
        }
        let any_case = like.case_insensitive();
        let found = like_parts(text(literal(like.pattern())?)?);
        let column = column(like.expr())?;
        return all(found.into_iter().map(|text| Predicate::Contains { column: column.clone(), text, any_case }));
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        // No event is without a time.
        let column = column(null.arg())?;
        return Some(if column == TIME { Predicate::Any(Vec::new()) } else { Predicate::IsNull { column } });
    }
    if let Some(value) = literal(expr) {
        return matches!(value, ScalarValue::Boolean(Some(false) | None)).then(|| Predicate::Any(Vec::new()));
    }
    let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
    match (function.name(), function.args()) {
        ("contains" | "starts_with" | "ends_with", [of, part]) => {
            let text = text(literal(part)?)?.to_owned();
            Some(Predicate::Contains { column: column(of)?, text, any_case: false })
        }
        ("regexp_like", [of, pattern]) => of_regex(of, literal(pattern)?, false),
        _ => None,
    }
}

fn of_binary(binary: &BinaryExpr) -> Option<Predicate> {
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Operator::And => all(needs(left).into_iter().chain(needs(right))),
        Operator::Or => Some(Predicate::Any(vec![needs(left)?, needs(right)?])),
        Operator::RegexMatch => of_regex(left, literal(right)?, false),
        Operator::RegexIMatch => of_regex(left, literal(right)?, true),
        op => match (literal(left), literal(right)) {
            (None, Some(value)) => compare(left, comparison(*op)?, value),
            (Some(value), None) => compare(right, comparison(op.swap()?)?, value),
            _ => None,
        },
    }
}

fn all(parts: impl Iterator<Item = Predicate>) -> Option<Predicate> {
    let mut parts: Vec<Predicate> = parts.collect();
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Predicate::All(parts)),
    }
}

fn comparison(op: Operator) -> Option<Comparison> {
    Some(match op {
        Operator::Eq => Comparison::Equal,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn compare(of: &Arc<dyn PhysicalExpr>, op: Comparison, value: &ScalarValue) -> Option<Predicate> {
    let value = scalar(value)?;
    if let Some(cast) = of.downcast_ref::<CastExpr>() {
        let column = column(cast.expr())?;
        return match (cast.cast_type(), value) {
            // With a zone it would be moved by that.
            (DataType::Timestamp(_, None), Scalar::Time(at)) if column == TIME => Some(around(column, op, at)),
            (DataType::Float64, Scalar::Float(number)) if number.abs() < FLOAT_EXACT => {
                Some(Predicate::Compare { column, op: weakened(op, number), value: Scalar::Float(number) })
            }
            _ => None,
        };
    }
    let column = column(of)?;
    let op = if let Scalar::Float(number) = value { weakened(op, number) } else { op };
    Some(Predicate::Compare { column, op, value })
}

/// There are two zeros, of which a query takes the negative one as the smaller and an index as the same.
fn weakened(op: Comparison, number: f64) -> Comparison {
    match op {
        Comparison::Less if number == 0.0 => Comparison::LessOrEqual,
        Comparison::Greater if number == 0.0 => Comparison::GreaterOrEqual,
        op => op,
    }
}

/// A comparison of a rounded time.
fn around(column: String, op: Comparison, at: Timestamp) -> Predicate {
    let from =
        |at| Predicate::Compare { column: column.clone(), op: Comparison::GreaterOrEqual, value: Scalar::Time(at) };
    let to = |at| Predicate::Compare { column: column.clone(), op: Comparison::LessOrEqual, value: Scalar::Time(at) };
    match op {
        Comparison::Equal => Predicate::All(vec![from(at - ROUNDING), to(at + ROUNDING)]),
        Comparison::Greater | Comparison::GreaterOrEqual => from(at - ROUNDING),
        Comparison::Less | Comparison::LessOrEqual => to(at + ROUNDING),
    }
}

fn column(expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
    expr.downcast_ref::<Column>().map(|column| column.name().to_owned())
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

fn text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

fn scalar(value: &ScalarValue) -> Option<Scalar> {
    let time = |n: i64, factor: i64| Some(Scalar::Time(Timestamp::from_nanos(n.checked_mul(factor)?)));
    match value {
        ScalarValue::Boolean(Some(value)) => Some(Scalar::Bool(*value)),
        ScalarValue::Int64(Some(n)) => Some(Scalar::Int(*n)),
        ScalarValue::Int32(Some(n)) => Some(Scalar::Int(i64::from(*n))),
        ScalarValue::UInt64(Some(n)) => i64::try_from(*n).ok().map(Scalar::Int),
        ScalarValue::Float64(Some(n)) if !n.is_nan() => Some(Scalar::Float(*n)),
        ScalarValue::TimestampNanosecond(Some(n), _) => time(*n, 1),
        ScalarValue::TimestampMicrosecond(Some(n), _) => time(*n, 1_000),
        ScalarValue::TimestampMillisecond(Some(n), _) => time(*n, 1_000_000),
        ScalarValue::TimestampSecond(Some(n), _) => time(*n, 1_000_000_000),
        other => text(other).map(|text| Scalar::Text(text.to_owned())),
    }
}

/// The literal parts of a LIKE pattern.
fn like_parts(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' | '_' => parts.push(String::new()),
            '\\' => parts.last_mut().into_iter().for_each(|part| part.extend(chars.next())),
            c => parts.last_mut().into_iter().for_each(|part| part.push(c)),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn of_regex(of: &Arc<dyn PhysicalExpr>, pattern: &ScalarValue, any_case: bool) -> Option<Predicate> {
    let column = column(of)?;
    let (parts, flagged) = regex_parts(text(pattern)?)?;
    let any_case = any_case || flagged;
    all(parts.into_iter().map(|(text, is_word)| {
        let column = column.clone();
        if is_word {
            Predicate::Word { column, text, any_case }
        } else {
            Predicate::Contains { column, text, any_case }
        }
    }))
}

/// The longest text that is in whatever a regular expression matches, as it is written there.
pub(super) fn regex_part(pattern: &str) -> Option<String> {
    let (parts, any_case) = regex_parts(pattern)?;
    let longest = parts.into_iter().map(|(text, _)| text).max_by_key(String::len);
    longest.filter(|_| !any_case)
}

/// The texts that are in whatever a regular expression matches, each with whether it stands between ends of words; and
/// whether their case does not matter. `None` where the expression is not simple enough to tell.
fn regex_parts(pattern: &str) -> Option<(Vec<(String, bool)>, bool)> {
    let (mut rest, mut any_case) = (pattern, false);
    while let Some((flags, after)) = rest.strip_prefix("(?").and_then(|flagged| flagged.split_once(')')) {
        if !flags.chars().all(|c| matches!(c, 'i' | 's' | 'm' | 'u')) {
            break;
        }
        any_case |= flags.contains('i');
        rest = after;
    }
    let mut parts = Parts::default();
    parts.of(&regex_syntax::parse(rest).ok()?);
    parts.end(false);
    parts.done.retain(|(text, _)| !text.is_empty());
    Some((parts.done, any_case))
}

#[derive(Default)]
struct Parts {
    done: Vec<(String, bool)>,
    open: String,
    begins_word: bool,
}

impl Parts {
    /// What an expression adds; the parser bounds how deep it is.
    fn of(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.open.push_str(text),
                Err(_) => self.end(false),
            },
            HirKind::Concat(all) => all.iter().for_each(|one| self.of(one)),
            HirKind::Capture(group) => self.of(&group.sub),
            HirKind::Repetition(again) if again.min > 0 => {
                self.of(&again.sub);
                self.end(false);
            }
            HirKind::Look(Look::WordUnicode) => self.boundary(),
            HirKind::Repetition(_) | HirKind::Class(_) | HirKind::Look(_) | HirKind::Alternation(_) => self.end(false),
        }
    }

    fn boundary(&mut self) {
        self.end(true);
        self.begins_word = true;
    }

    fn end(&mut self, ends_word: bool) {
        let text = std::mem::take(&mut self.open);
        self.done.push((text, self.begins_word && ends_word));
        self.begins_word = false;
    }
}

/// Whether rows between two instants, both included, can have it; everything but the time is believed.
pub(crate) fn may_lie_in(predicate: &Predicate, first: Timestamp, last: Timestamp) -> bool {
    match predicate {
        Predicate::All(parts) => parts.iter().all(|part| may_lie_in(part, first, last)),
        Predicate::Any(parts) => parts.iter().any(|part| may_lie_in(part, first, last)),
        Predicate::Compare { column, op, value: Scalar::Time(at) } if column == TIME => match op {
            Comparison::Equal => first <= *at && *at <= last,
            Comparison::Less => first < *at,
            Comparison::LessOrEqual => first <= *at,
            Comparison::Greater => last > *at,
            Comparison::GreaterOrEqual => last >= *at,
        },
        Predicate::OneOf { column, values } if column == TIME => values.iter().any(|value| match value {
            Scalar::Time(at) => first <= *at && *at <= last,
            _ => true,
        }),
        _ => true,
    }
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
