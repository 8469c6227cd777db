//! How far the two rows of a pair may lie apart.

use sqlparser::{
    ast::{BinaryOperator, Expr},
    tokenizer::Location,
};

use super::{argument, plan::WindowKind, scope::Rows};
use crate::{Diagnostic, SIZE_MAX, text::at};

/// Nanoseconds of a millisecond.
const MILLI: i64 = 1_000_000;

/// What tells times among the columns of two tables.
pub(crate) struct Times<'t, 'a> {
    pub(crate) names: &'t [String; 2],
    pub(crate) rows: [&'t Rows<'a>; 2],
}

/// The bounds of `right._time - left._time`, in nanoseconds, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    lower: Option<i64>,
    upper: Option<i64>,
    /// What the bounds do not say exactly.
    pub(crate) rest: Vec<Expr>,
}

impl Times<'_, '_> {
    fn column<'e>(&self, expr: &'e Expr) -> Option<(usize, &'e str)> {
        let Expr::Identifier(ident) = expr else { return None };
        let of =
            |(side, name): (usize, &String)| Some((side, ident.value.strip_prefix(name.as_str())?.strip_prefix('.')?));
        self.names.iter().enumerate().find_map(of)
    }

    /// The side of an expression that is its `_time` plus some nanoseconds.
    pub(crate) fn term(&self, expr: &Expr) -> Option<(usize, i64)> {
        match expr {
            Expr::Nested(inner) => self.term(inner),
            Expr::BinaryOp { left, op, right } => {
                let sign = match op {
                    BinaryOperator::Plus => 1,
                    BinaryOperator::Minus => -1,
                    _ => return None,
                };
                let (side, offset) = self.term(left)?;
                let (span, _) = argument::interval(right, "a time").ok()?;
                let span = i64::try_from(span.as_nanos()).ok()?;
                Some((side, offset.checked_add(sign * span)?))
            }
            _ => {
                let (side, column) = self.column(expr)?;
                if column == "_time" {
                    return Some((side, 0));
                }
                let Rows::Results { window, start, end } = self.rows[side] else { return None };
                // The time of a result is its window's last instant.
                if end.as_deref() == Some(column) {
                    return Some((side, 1));
                }
                let size = i64::try_from(window.size.as_nanos()).ok()?;
                let begins = matches!(window.kind, WindowKind::Tumble | WindowKind::Hop { .. });
                (begins && start.as_deref() == Some(column)).then_some((side, 1 - size))
            }
        }
    }

    /// Whether both are the begin (0) or both the end (1) of a window, of either side one.
    pub(crate) fn same_bound(&self, left: &Expr, right: &Expr) -> Option<usize> {
        let bound = |expr: &Expr| {
            let (side, column) = self.column(expr)?;
            let place = match self.rows[side] {
                Rows::Windowed(_) => [crate::WINDOW_START, crate::WINDOW_END].iter().position(|bound| *bound == column),
                Rows::Results { start, end, .. } => {
                    [start, end].iter().position(|bound| bound.as_deref() == Some(column))
                }
                _ => None,
            };
            Some((side, place?))
        };
        let ((one, bound), (other, same)) = (bound(left)?, bound(right)?);
        (one != other && bound == same).then_some(bound)
    }
}

impl Bounds {
    /// Takes a condition, if it bounds the time between the two rows.
    pub(crate) fn take(&mut self, part: &Expr, times: &Times<'_, '_>) -> bool {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
        let found = match part {
            Expr::Nested(inner) => return self.take(inner, times),
            Expr::Between { expr, negated: false, low, high } => self
                .compare(expr, &GtEq, low, times)
                .and_then(|low| Some(low & self.compare(expr, &LtEq, high, times)?)),
            Expr::BinaryOp { left, op: op @ (Eq | Gt | GtEq | Lt | LtEq), right } => {
                self.compare(left, op, right, times)
            }
            _ => None,
        };
        if found == Some(false) {
            self.rest.push(part.clone());
        }
        found.is_some()
    }

    /// Whether a comparison of two times is said exactly by the bounds; `None` if it is none.
    fn compare(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr, times: &Times<'_, '_>) -> Option<bool> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
        let ((one, from), (other, to)) = (times.term(left)?, times.term(right)?);
        if one == other {
            return None;
        }
        // `right._time - left._time` compared with this.
        let (op, span) = match (one, op) {
            (0, Gt) => (Lt, from.checked_sub(to)?),
            (0, GtEq) => (LtEq, from.checked_sub(to)?),
            (0, Lt) => (Gt, from.checked_sub(to)?),
            (0, LtEq) => (GtEq, from.checked_sub(to)?),
            (0, _) => (Eq, from.checked_sub(to)?),
            (_, op) => (op.clone(), to.checked_sub(from)?),
        };
        if matches!(op, Gt | GtEq | Eq) {
            self.lower = Some(self.lower.map_or(span, |known| known.max(span)));
        }
        if matches!(op, Lt | LtEq | Eq) {
            self.upper = Some(self.upper.map_or(span, |known| known.min(span)));
        }
        Some(matches!(op, GtEq | LtEq | Eq) && span % MILLI == 0)
    }

    /// Both bounds in whole milliseconds, outwards.
    pub(crate) fn milliseconds(
        &self,
        place: Location,
        missing: impl Fn(&str) -> Diagnostic,
    ) -> Result<(i64, i64), Diagnostic> {
        let (lower, upper) = match (self.lower, self.upper) {
            (None, None) => return Err(missing("a bound in time")),
            (None, Some(_)) => return Err(missing("a lower bound in time")),
            (Some(_), None) => return Err(missing("an upper bound in time")),
            (Some(lower), Some(upper)) => (lower, upper),
        };
        if lower > upper {
            return Err(at(place, "no two rows can lie so in time: the upper bound is below the lower one"));
        }
        let (lower, upper) =
            (lower.div_euclid(MILLI), upper.div_euclid(MILLI) + i64::from(upper.rem_euclid(MILLI) > 0));
        let most = i64::try_from(SIZE_MAX.as_millis()).unwrap_or(i64::MAX);
        if lower < -most || upper > most {
            return Err(at(place, format!("rows of a pair lie at most {} days apart", SIZE_MAX.as_secs() / 86_400)));
        }
        Ok((lower, upper))
    }
}
