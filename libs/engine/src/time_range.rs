//! Which event times a query can need, read from its filters.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};
use types::Timestamp;

/// The column of event times.
const TIME: &str = "_time";

/// Event times from `from` to `to`, both included; empty where `from > to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first instant.
    pub from: Timestamp,
    /// The last instant.
    pub to: Timestamp,
}

impl TimeRange {
    /// Every instant.
    pub const ALL: Self = Self { from: Timestamp::MIN, to: Timestamp::MAX };

    /// Whether a row between the two instants, both included, can be in the range.
    pub fn meets(self, first: Timestamp, last: Timestamp) -> bool {
        first <= self.to && self.from <= last
    }

    fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    fn or(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// What the filters, all of which must hold, leave of all instants; never less than what they let through.
    pub(crate) fn of_filters(filters: &[Expr]) -> Self {
        filters.iter().filter_map(of_filter).fold(Self::ALL, Self::and)
    }
}

/// The range outside of which the filter is not true; `None` where it says nothing about the time.
pub(crate) fn of_filter(filter: &Expr) -> Option<TimeRange> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (of_filter(left), of_filter(right)) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (one, other) => one.or(other),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some(of_filter(left)?.or(of_filter(right)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if is_time(left) {
                bound(*op, nanos(right)?)
            } else if is_time(right) {
                bound(op.swap()?, nanos(left)?)
            } else {
                None
            }
        }
        Expr::Between(between) if !between.negated && is_time(&between.expr) => {
            Some(TimeRange { from: nanos(&between.low)?, to: nanos(&between.high)? })
        }
        Expr::InList(InList { expr, list, negated: false }) if is_time(expr) => {
            let ranges = list.iter().map(|one| nanos(one).map(|at| TimeRange { from: at, to: at }));
            ranges.collect::<Option<Vec<_>>>()?.into_iter().reduce(TimeRange::or)
        }
        _ => None,
    }
}

fn is_time(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == TIME,
        // A cast to a time zone or a coarser unit keeps the order, and rounds by less than the slack of `bound`.
        Expr::Cast(cast) => {
            matches!(cast.field.data_type(), arrow::datatypes::DataType::Timestamp(..)) && is_time(&cast.expr)
        }
        Expr::Alias(alias) => is_time(&alias.expr),
        _ => false,
    }
}

/// The range of a comparison, widened by a second because casts to coarser units round.
fn bound(op: Operator, at: Timestamp) -> Option<TimeRange> {
    let slack = std::time::Duration::from_secs(1);
    Some(match op {
        Operator::Eq | Operator::IsNotDistinctFrom => TimeRange { from: at - slack, to: at + slack },
        Operator::Gt | Operator::GtEq => TimeRange { from: at - slack, to: Timestamp::MAX },
        Operator::Lt | Operator::LtEq => TimeRange { from: Timestamp::MIN, to: at + slack },
        _ => return None,
    })
}

fn nanos(expr: &Expr) -> Option<Timestamp> {
    let Expr::Literal(value, _) = expr else { return None };
    let (value, factor) = match value {
        ScalarValue::TimestampNanosecond(Some(n), _) => (*n, 1),
        ScalarValue::TimestampMicrosecond(Some(n), _) => (*n, 1_000),
        ScalarValue::TimestampMillisecond(Some(n), _) => (*n, 1_000_000),
        ScalarValue::TimestampSecond(Some(n), _) => (*n, 1_000_000_000),
        _ => return None,
    };
    Some(Timestamp::from_nanos(value.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn at(seconds: i64) -> Expr {
        Expr::Literal(ScalarValue::TimestampSecond(Some(seconds), None), None)
    }

    fn time() -> Expr {
        col("_time")
    }

    #[test]
    fn filters_leave_a_range() {
        let seconds = |range: TimeRange| {
            let whole = |t: Timestamp, rest: i64| match t {
                Timestamp::MIN | Timestamp::MAX => None,
                t => Some((t.nanos() + rest) / 1_000_000_000),
            };
            (whole(range.from, 1_000_000_000), whole(range.to, -1_000_000_000))
        };
        for (filters, expected) in [
            (vec![], (None, None)),
            (vec![time().gt(at(5))], (Some(5), None)),
            (vec![at(5).lt(time())], (Some(5), None)),
            (vec![time().gt_eq(at(5)), time().lt(at(9))], (Some(5), Some(9))),
            (vec![time().gt(at(5)).and(time().lt(at(9))).and(col("a").eq(lit(1)))], (Some(5), Some(9))),
            (vec![time().eq(at(5)).or(time().eq(at(9)))], (Some(5), Some(9))),
            (vec![time().gt(at(5)).or(col("a").eq(lit(1)))], (None, None)),
            (vec![time().not_eq(at(5))], (None, None)),
            (vec![col("other").gt(at(5))], (None, None)),
            (vec![time().gt(col("other"))], (None, None)),
        ] {
            assert_eq!(seconds(TimeRange::of_filters(&filters)), expected, "{filters:?}");
        }
        let between = TimeRange::of_filters(&[time().between(at(5), at(9))]);
        assert!(between.meets(Timestamp::from_millis(9_000), Timestamp::MAX));
        assert!(!between.meets(Timestamp::from_millis(9_001), Timestamp::MAX));
        assert!(!between.meets(Timestamp::MIN, Timestamp::from_millis(4_999)));
    }
}
