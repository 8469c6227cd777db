//! The filters of a scan, evaluated on whatever columns a batch has.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::{and, filter_record_batch, prep_null_mask_filter},
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal},
        split_conjunction,
        utils::{collect_columns, reassign_expr_columns},
    },
};
use ingest::REST_COLUMN;
use types::Timestamp;

use super::{needs::TIME, pattern::Pattern};
use crate::said::spread;

/// Rows are cut down between two filters when at most one in so many is left: copying them costs too.
const NARROW: usize = 4;

/// Some columns of a table, whatever a batch calls them.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The whole schema, where the batch must be brought to it first: a table that was cut at the column limit folds the
    /// columns that it lacks into one.
    whole: Option<SchemaRef>,
    pub(crate) schema: SchemaRef,
}

impl View {
    /// The columns at these places of a table's schema.
    pub(crate) fn new(table: &SchemaRef, places: &[usize]) -> Result<Self> {
        let schema = Arc::new(table.project(places)?.with_metadata(Default::default()));
        let folds = !table.metadata().is_empty() && schema.index_of(REST_COLUMN).is_ok();
        Ok(Self { whole: folds.then(|| Arc::clone(table)), schema })
    }

    /// The columns that a batch must have, where it has them; `None` for all that it has.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        let names = || self.schema.fields().iter().map(|field| field.name().clone()).collect();
        self.whole.is_none().then(names)
    }

    /// The batch with these columns: cast where the table's are wider, null where the batch has none.
    pub(crate) fn of(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let external = |error: ingest::Error| DataFusionError::External(Box::new(error));
        let Some(whole) = &self.whole else { return ingest::conform(batch, &self.schema).map_err(external) };
        let batch = ingest::conform(batch, whole).map_err(external)?;
        let fields = self.schema.fields().iter();
        let places: Vec<usize> = fields.map(|field| whole.index_of(field.name())).collect::<Result<_, _>>()?;
        let rows = batch.project(&places)?;
        Ok(rows.with_schema(Arc::clone(&self.schema))?)
    }
}

/// One condition that all rows must meet.
#[derive(Debug, Clone)]
pub(crate) struct Conjunct {
    pub(crate) view: View,
    expr: Arc<dyn PhysicalExpr>,
    pattern: Option<Pattern>,
    /// How the time must stand to which one, where that is all of it.
    time: Option<(Operator, i64)>,
    cost: u8,
}

impl Conjunct {
    /// The conditions of a filter over a table, the cheapest first.
    pub(crate) fn all(filters: &[Arc<dyn PhysicalExpr>], table: &SchemaRef) -> Result<Vec<Self>> {
        let parts = filters.iter().flat_map(|filter| split_conjunction(filter));
        let mut all = parts.map(|part| Self::new(part, table)).collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|one| one.cost);
        Ok(all)
    }

    fn new(expr: &Arc<dyn PhysicalExpr>, table: &SchemaRef) -> Result<Self> {
        let named = collect_columns(expr).into_iter();
        let mut places =
            named.map(|column| Ok(table.index_of(column.name())?)).collect::<Result<Vec<usize>, DataFusionError>>()?;
        places.sort_unstable();
        let view = View::new(table, &places)?;
        let cost = cost(expr, &view.schema);
        let pattern = Pattern::of(expr);
        let time = of_time(expr);
        let expr = reassign_expr_columns(Arc::clone(expr), &view.schema)?;
        Ok(Self { view, expr, pattern, time, cost })
    }

    /// Whether it asks for nothing but a time.
    pub(crate) fn is_of_time(&self) -> bool {
        self.time.is_some()
    }

    /// Whether every row meets it that is of a time between two, both included.
    pub(crate) fn is_met_between(&self, first: Timestamp, last: Timestamp) -> bool {
        self.time.is_some_and(|(op, at)| match op {
            Operator::Lt => last.nanos() < at,
            Operator::LtEq => last.nanos() <= at,
            Operator::Gt => first.nanos() > at,
            Operator::GtEq => first.nanos() >= at,
            _ => false,
        })
    }

    /// What it asks, and of which columns; `None` where other columns of a batch matter too.
    pub(crate) fn asked(&self) -> Option<(SchemaRef, Arc<dyn PhysicalExpr>)> {
        self.view.whole.is_none().then(|| (Arc::clone(&self.view.schema), Arc::clone(&self.expr)))
    }

    /// Which rows meet it; a null is no.
    pub(crate) fn meets(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let rows = self.view.of(batch)?;
        if let Some(pattern) = &self.pattern
            && let [column] = rows.columns()
            && let Some(texts) = column.as_string_opt::<i32>()
        {
            return Ok(pattern.meets(texts));
        }
        let met = self.expr.evaluate(&rows)?.into_array(rows.num_rows())?;
        let met = met.as_boolean();
        Ok(if met.null_count() > 0 { prep_null_mask_filter(met) } else { met.clone() })
    }
}

/// A comparison of the time with a constant, which stands on its right.
fn of_time(expr: &Arc<dyn PhysicalExpr>) -> Option<(Operator, i64)> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    let constant = |side: &Arc<dyn PhysicalExpr>| match side.downcast_ref::<Literal>()?.value() {
        ScalarValue::TimestampNanosecond(Some(at), None) => Some(*at),
        _ => None,
    };
    let is_time = |side: &Arc<dyn PhysicalExpr>| side.downcast_ref::<Column>().is_some_and(|of| of.name() == TIME);
    match (binary.left(), binary.right()) {
        (left, right) if is_time(left) => Some((*binary.op(), constant(right)?)),
        (left, right) if is_time(right) => Some((binary.op().swap()?, constant(left)?)),
        _ => None,
    }
}

/// Which rows of a batch meet all conditions, each looked at only where those before it left enough.
pub(crate) fn meet_all(batch: &RecordBatch, conjuncts: &[Conjunct]) -> Result<BooleanArray> {
    let mut met = BooleanArray::from(vec![true; batch.num_rows()]);
    // The rows of the batch that are left in `rows`, where it was cut down.
    let (mut rows, mut left): (RecordBatch, Option<BooleanArray>) = (batch.clone(), None);
    for one in conjuncts {
        let now = one.meets(&rows)?;
        met = match &left {
            Some(left) => BooleanArray::new(spread(left.values(), now.values()), None),
            None => and(&met, &now)?,
        };
        let count = met.true_count();
        if count == 0 {
            break;
        }
        if count * NARROW <= rows.num_rows() {
            rows = filter_record_batch(batch, &met)?;
            left = Some(met.clone());
        } else if left.is_some() {
            rows = filter_record_batch(&rows, &now)?;
            left = Some(met.clone());
        }
    }
    Ok(met)
}

/// How dear a look at one row is: constants and numbers, then whole texts, patterns, and functions last.
fn cost(expr: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> u8 {
    if expr.downcast_ref::<Literal>().is_some() {
        return 0;
    }
    if let Some(column) = expr.downcast_ref::<Column>() {
        let of = schema.field_with_name(column.name()).map(|field| field.data_type());
        return if of.is_ok_and(DataType::is_primitive) { 1 } else { 2 };
    }
    let own = if expr.downcast_ref::<LikeExpr>().is_some() {
        4
    } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
        if matches!(binary.op(), RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch) { 5 } else { 1 }
    } else if expr.downcast_ref::<InListExpr>().is_some()
        || expr.downcast_ref::<IsNullExpr>().is_some()
        || expr.downcast_ref::<IsNotNullExpr>().is_some()
    {
        1
    } else {
        6
    };
    expr.children().into_iter().map(|child| cost(child, schema)).fold(own, u8::max)
}
