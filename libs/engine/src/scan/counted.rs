//! Counts by time and severity out of the counters that chunks carry.
//!
//! An aggregate that does nothing but count, by severity and by steps of the time that no cell of a counter crosses, is
//! rewritten to a sum over cells: a table of times, severities and how many events there were. A chunk gives its cells where
//! the filters hold for all of a cell, and rows (of which each counts as one) where they do not.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, TableReference, tree_node::Transformed},
    datasource::{provider_as_source, source_as_provider},
    error::Result,
    functions_aggregate::expr_fn::sum,
    logical_expr::{
        Aggregate, BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SubqueryAlias,
        TableProviderFilterPushDown, TableScan, TableType, expr::AggregateFunction, expr_rewriter::unnormalize_col,
        lit, utils::split_conjunction, when,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
    physical_plan::{ExecutionPlan, streaming::StreamingTableExec},
};

use super::{Scan, Scanned, counting::Counting, needs::TIME};
use crate::{Piece, provider::SourceTable};

/// The column of severities.
pub(super) const SEVERITY: &str = "severity";

/// How many events a row stands for.
const COUNT: &str = "_count";

/// Rewrites counts to sums over counters.
#[derive(Debug)]
pub(crate) struct CountersRule;

impl OptimizerRule for CountersRule {
    fn name(&self) -> &str {
        "counters"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        Ok(match of_counters(aggregate)? {
            Some(counted) => Transformed::yes(counted),
            None => Transformed::no(plan),
        })
    }
}

fn of_counters(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let (scan, alias) = match aggregate.input.as_ref() {
        LogicalPlan::TableScan(scan) => (scan, None),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::TableScan(scan) => (scan, Some(&alias.alias)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let groups = &aggregate.group_expr;
    // Without either the number of rows is known anyway.
    let only_rows = groups.is_empty() && scan.filters.is_empty();
    let counts = !aggregate.aggr_expr.is_empty() && aggregate.aggr_expr.iter().all(is_count);
    if only_rows || !counts || scan.fetch.is_some() || !groups.iter().all(is_by_cell) {
        return Ok(None);
    }
    if !scan.filters.iter().flat_map(split_conjunction).all(is_of_cells) {
        return Ok(None);
    }
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<SourceTable>().filter(|table| has_counted_columns(&table.schema()))
    else {
        return Ok(None);
    };
    sum_of(aggregate, scan, alias, Counted::new(table, groups)).map(Some)
}

fn sum_of(
    aggregate: &Aggregate,
    scan: &TableScan,
    alias: Option<&TableReference>,
    counted: Counted,
) -> Result<LogicalPlan> {
    let source = provider_as_source(Arc::new(counted));
    let cells = LogicalPlanBuilder::scan_with_filters(scan.table_name.clone(), source, None, scan.filters.clone())?;
    let mut cells = cells.build()?;
    if let Some(alias) = alias {
        cells = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(cells), alias.clone())?);
    }
    let count = Expr::Column(Column::new(Some(alias.unwrap_or(&scan.table_name).clone()), COUNT));
    let groups = aggregate.group_expr.clone();
    let sums = Aggregate::try_new(Arc::new(cells), groups.clone(), vec![sum(count)])?;
    let total = Expr::Column(Column::from(sums.schema.qualified_field(groups.len())));
    // Of no cells there is one sum all the same, which is null.
    let total = if groups.is_empty() { when(total.clone().is_null(), lit(0_i64)).otherwise(total)? } else { total };
    let columns = aggregate.schema.iter().enumerate().map(|(place, (of, field))| {
        let own = || Expr::Column(Column::from((of, field)));
        if place < groups.len() { own() } else { total.clone().alias_qualified(of.cloned(), field.name()) }
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(sums)))?))
}

/// Whether times and severities are what counters count.
fn has_counted_columns(schema: &Schema) -> bool {
    let of = |name| schema.field_with_name(name).map(Field::data_type).ok();
    of(TIME) == Some(&DataType::Timestamp(TimeUnit::Nanosecond, None)) && of(SEVERITY) == Some(&DataType::Utf8)
}

fn bare(expr: &Expr) -> &Expr {
    if let Expr::Alias(alias) = expr { bare(&alias.expr) } else { expr }
}

fn named(expr: &Expr, name: &str) -> bool {
    matches!(bare(expr), Expr::Column(column) if column.name == name)
}

fn is_literal(expr: &Expr) -> bool {
    matches!(bare(expr), Expr::Literal(..))
}

/// `count(*)`, or of what is never null.
fn is_count(expr: &Expr) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = bare(expr) else { return false };
    let [arg] = params.args.as_slice() else { return false };
    let counts = match bare(arg) {
        Expr::Literal(value, _) => !value.is_null(),
        other => named(other, TIME),
    };
    let plain = !params.distinct && params.filter.is_none() && params.order_by.is_empty();
    func.name() == "count" && counts && plain && params.null_treatment.is_none()
}

/// A group that is the severity, or that never falls while the time rises.
fn is_by_cell(expr: &Expr) -> bool {
    match bare(expr) {
        Expr::ScalarFunction(function) => match (function.func.name(), function.args.as_slice()) {
            ("date_bin", [step, time]) => is_literal(step) && named(time, TIME),
            ("date_bin", [step, time, origin]) => is_literal(step) && named(time, TIME) && is_literal(origin),
            ("date_trunc", [unit, time]) => is_literal(unit) && named(time, TIME),
            _ => false,
        },
        other => named(other, SEVERITY),
    }
}

/// A filter by the severity alone, or one that the times of one span meet.
fn is_of_cells(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    let only = |name: &str| columns.len() == 1 && columns.iter().all(|column| column.name == name);
    let is_span = match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            use Operator::{Eq, Gt, GtEq, Lt, LtEq};
            let ends = (named(left, TIME) && is_literal(right)) || (is_literal(left) && named(right, TIME));
            matches!(op, Eq | Lt | LtEq | Gt | GtEq) && ends
        }
        Expr::Between(between) => {
            !between.negated && named(&between.expr, TIME) && is_literal(&between.low) && is_literal(&between.high)
        }
        _ => false,
    };
    is_span || only(SEVERITY)
}

/// An index as cells: a time, a severity, and how many events.
#[derive(Debug)]
struct Counted {
    schema: SchemaRef,
    table: SchemaRef,
    pieces: Vec<Piece>,
    groups: Vec<Expr>,
    scanned: Arc<Scanned>,
}

impl Counted {
    fn new(table: &SourceTable, groups: &[Expr]) -> Self {
        let fields = [Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false)];
        let more = [Field::new(SEVERITY, DataType::Utf8, true), Field::new(COUNT, DataType::Int64, false)];
        let schema = Arc::new(Schema::new(fields.into_iter().chain(more).collect::<Vec<_>>()));
        let groups = groups.iter().map(|group| unnormalize_col(bare(group).clone())).collect();
        let (pieces, scanned) = table.read();
        Self { schema, table: table.schema(), pieces, groups, scanned }
    }
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They were looked at before the aggregate became one of cells.
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let physical = |all: &[Expr], of: &SchemaRef| {
            let of = DFSchema::try_from(Arc::clone(of))?;
            all.iter().map(|one| state.create_physical_expr(one.clone(), &of)).collect::<Result<Vec<_>>>()
        };
        let places = [self.table.index_of(TIME)?, self.table.index_of(SEVERITY)?];
        let on_rows = physical(filters, &self.table)?;
        let rows = Scan::new(&self.table, Vec::new(), &places, &on_rows, Arc::clone(&self.scanned))?;
        let (on_cells, groups) = (physical(filters, &self.schema)?, physical(&self.groups, &self.schema)?);
        let counting = Arc::new(Counting::new(Arc::clone(&self.schema), rows, &on_cells, groups)?);
        let parts = self.pieces.len().clamp(1, state.config().target_partitions().max(1));
        let parts = (0..parts).map(|part| {
            let pieces = self.pieces.iter().skip(part).step_by(parts).cloned().collect();
            Counting::part(&counting, pieces)
        });
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts.collect(), projection, [], false, limit)?))
    }
}
