//! Aggregates as parts that are computed beside the rows, and as what makes one of them again.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, ScalarValue},
    error::Result,
    functions_aggregate::{
        count::count_udaf,
        expr_fn::{count_distinct, max, min, sum},
        sum::sum_udaf,
    },
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable, Operator, binary_expr, cast,
        expr::{AggregateFunction, AggregateFunctionParams},
        lit, when,
    },
};

/// What different values are counted of, at most, beside other aggregates: a fragment answers a row for each combination.
const SETS_MAX: usize = 2;

/// How the parts of an aggregate become the aggregate; the numbers are places in the list of all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// Of a set, by its place among the groups of a fragment, how many values it has.
    Distinct(usize),
    Count(usize),
    Sum(usize),
    Min(usize),
    Max(usize),
    /// A sum of numbers and their count.
    Average(usize, usize),
}

/// The parts of all aggregates of one node, each once.
#[derive(Debug)]
pub(super) struct Parts {
    /// The groups of the node, and behind them what different values are counted of: a fragment groups by all.
    pub(super) groups: Vec<Expr>,
    pub(super) all: Vec<Expr>,
    sets: usize,
}

fn place(all: &mut Vec<Expr>, one: Expr) -> usize {
    all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

impl Parts {
    /// None yet, of a node with these groups.
    pub(super) fn new(groups: Vec<Expr>) -> Self {
        Self { groups, all: Vec::new(), sets: 0 }
    }

    fn place(&mut self, part: Expr) -> usize {
        place(&mut self.all, part)
    }

    /// Counts different values; `None` where those would be too many sets.
    fn set(&mut self, of: &Expr) -> Option<Merge> {
        let known = self.groups.len();
        let place = place(&mut self.groups, of.clone());
        self.sets += self.groups.len() - known;
        (self.sets <= SETS_MAX).then_some(Merge::Distinct(place))
    }

    /// Takes an aggregate apart; `None` where its parts do not make it.
    pub(super) fn split(&mut self, aggregate: &Expr, schema: &DFSchema) -> Result<Option<Merge>> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = aggregate else { return Ok(None) };
        let plain = params.order_by.is_empty() && params.null_treatment.is_none();
        let [arg] = params.args.as_slice() else { return Ok(None) };
        if !plain {
            return Ok(None);
        }
        if params.distinct {
            let counted = func.name() == "count" && params.filter.is_none() && has_order(&arg.get_type(schema)?);
            return Ok(if counted { self.set(arg) } else { None });
        }
        let of = aggregate.get_type(schema)?;
        let sums = matches!(of, DataType::Int64 | DataType::UInt64 | DataType::Float64);
        Ok(match func.name() {
            "count" => Some(Merge::Count(self.place(aggregate.clone()))),
            "sum" if sums => Some(Merge::Sum(self.place(aggregate.clone()))),
            "min" if has_order(&of) => Some(Merge::Min(self.place(aggregate.clone()))),
            "max" if has_order(&of) => Some(Merge::Max(self.place(aggregate.clone()))),
            "avg" if of == DataType::Float64 && arg.get_type(schema)? == DataType::Float64 => {
                let total = self.place(same(sum_udaf(), params));
                Some(Merge::Average(total, self.place(same(count_udaf(), params))))
            }
            _ => None,
        })
    }
}

/// Another aggregate of the same rows.
fn same(func: Arc<AggregateUDF>, params: &AggregateFunctionParams) -> Expr {
    let AggregateFunctionParams { args, filter, .. } = params.clone();
    Expr::AggregateFunction(AggregateFunction::new_udf(func, args, false, filter, Vec::new(), None))
}

/// Types of which the least of the least is the least, without a doubt.
fn has_order(of: &DataType) -> bool {
    of.is_primitive() || matches!(of, DataType::Utf8 | DataType::Boolean)
}

impl Merge {
    /// The aggregates over the groups of fragments and the parts, whose columns are given by place.
    pub(super) fn aggregates(self, group: &dyn Fn(usize) -> Expr, part: &dyn Fn(usize) -> Expr) -> Vec<Expr> {
        match self {
            Self::Distinct(place) => vec![count_distinct(group(place))],
            Self::Count(place) | Self::Sum(place) => vec![sum(part(place))],
            Self::Min(place) => vec![min(part(place))],
            Self::Max(place) => vec![max(part(place))],
            Self::Average(total, count) => vec![sum(part(total)), sum(part(count))],
        }
    }

    /// The value of the aggregate from [`Self::aggregates`].
    pub(super) fn value(self, merged: &[Expr]) -> Result<Expr> {
        Ok(match (self, merged) {
            // Of no rows at all there is a count all the same.
            (Self::Count(_), [count]) => when(count.clone().is_not_null(), count.clone()).otherwise(lit(0_i64))?,
            // Of no numbers the sum is null, and with it the average.
            (Self::Average(..), [total, count]) => {
                binary_expr(total.clone(), Operator::Divide, cast(count.clone(), DataType::Float64))
            }
            (_, [one, ..]) => one.clone(),
            (_, []) => Expr::Literal(ScalarValue::Null, None),
        })
    }
}
