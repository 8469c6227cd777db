//! Counts by time and severity out of the counters that chunks carry.
//!
//! An aggregate that does nothing but count, by severity and by steps of the time that no cell of a counter crosses, is
//! rewritten to a sum over cells: a table of times, severities and how many events there were. A chunk gives its cells where
//! the filters hold for all of a cell, and rows (of which each counts as one) where they do not.

use std::{collections::VecDeque, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    compute::{and, kernels::cmp::not_distinct},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, TableReference, tree_node::Transformed},
    datasource::{provider_as_source, source_as_provider},
    error::Result,
    execution::TaskContext,
    functions_aggregate::expr_fn::sum,
    logical_expr::{
        Aggregate, BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SubqueryAlias,
        TableProviderFilterPushDown, TableScan, TableType, expr::AggregateFunction, expr_rewriter::unnormalize_col,
        lit, utils::split_conjunction, when,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
    physical_expr::PhysicalExpr,
    physical_plan::{
        ExecutionPlan, SendableRecordBatchStream,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::stream;
use types::{IndexName, Severity};

use super::{
    Scan,
    counting::{Cell, Cells, Counting, SEVERITIES},
    filter::{Conjunct, meet_all},
    needs::TIME,
    walk::Walk,
};
use crate::{
    Piece,
    provider::{SourceTable, Tables},
};

/// The column of severities.
pub(crate) const SEVERITY: &str = "severity";

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
pub(super) fn has_counted_columns(schema: &Schema) -> bool {
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
    index: IndexName,
    schema: SchemaRef,
    table: SchemaRef,
    groups: Vec<Expr>,
}

impl Counted {
    fn new(table: &SourceTable, groups: &[Expr]) -> Self {
        let fields = [Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false)];
        let more = [Field::new(SEVERITY, DataType::Utf8, true), Field::new(COUNT, DataType::Int64, false)];
        let schema = Arc::new(Schema::new(fields.into_iter().chain(more).collect::<Vec<_>>()));
        let groups = groups.iter().map(|group| unnormalize_col(bare(group).clone())).collect();
        Self { index: table.index.clone(), schema, table: table.schema(), groups }
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
        let (pieces, scanned) = Tables::of(state, &self.index)?;
        let places = [self.table.index_of(TIME)?, self.table.index_of(SEVERITY)?];
        let rows = Scan::new(&self.table, Vec::new(), &places, &physical(filters, &self.table)?, scanned)?;
        let (on_cells, groups) = (physical(filters, &self.schema)?, physical(&self.groups, &self.schema)?);
        let asked = Asked::new(&self.schema, &on_cells, groups)?;
        let counting = Arc::new(Counting::new(rows, Box::new(asked)));
        let parts = pieces.len().clamp(1, state.config().target_partitions().max(1));
        let parts = (0..parts).map(|part| {
            let pieces = pieces.iter().skip(part).step_by(parts).cloned().collect();
            let (counting, schema) = (Arc::clone(&counting), Arc::clone(&self.schema));
            Arc::new(Part { counting, schema, pieces }) as Arc<dyn PartitionStream>
        });
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts.collect(), projection, [], false, limit)?))
    }
}

/// Filters and groups, asked of cells as if each were an event.
#[derive(Debug)]
struct Asked {
    /// Time, severity, count.
    schema: SchemaRef,
    by_time: Vec<Conjunct>,
    by_severity: Vec<Conjunct>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
}

impl Asked {
    fn new(schema: &SchemaRef, filters: &[Arc<dyn PhysicalExpr>], groups: Vec<Arc<dyn PhysicalExpr>>) -> Result<Self> {
        let conjuncts = Conjunct::all(filters, schema)?;
        let (by_time, by_severity) =
            conjuncts.into_iter().partition(|one| one.view.schema.field_with_name(TIME).is_ok());
        Ok(Self { schema: Arc::clone(schema), by_time, by_severity, groups })
    }

    fn at(&self, times: impl Iterator<Item = i64>) -> Result<RecordBatch> {
        batch(&self.schema, times.map(|time| (time, NO_SEVERITY, 0)))
    }
}

impl Cells for Asked {
    fn whole(&self, spans: &[(i64, i64)]) -> Result<BooleanArray> {
        let firsts = self.at(spans.iter().map(|(first, _)| *first))?;
        let lasts = self.at(spans.iter().map(|(_, last)| *last))?;
        let mut whole = and(&meet_all(&firsts, &self.by_time)?, &meet_all(&lasts, &self.by_time)?)?;
        for group in &self.groups {
            let of = |batch: &RecordBatch| group.evaluate(batch)?.into_array(batch.num_rows());
            whole = and(&whole, &not_distinct(&of(&firsts)?, &of(&lasts)?)?)?;
        }
        Ok(whole)
    }

    fn severities(&self) -> Result<[bool; 7]> {
        let all = batch(&self.schema, (0..SEVERITIES.len()).map(|severity| (0, severity, 0)))?;
        let met = meet_all(&all, &self.by_severity)?;
        Ok(std::array::from_fn(|severity| met.value(severity)))
    }
}

/// The place of events without a severity.
const NO_SEVERITY: usize = SEVERITIES.len() - 1;

/// Cells as rows.
fn batch(schema: &SchemaRef, cells: impl Iterator<Item = Cell>) -> Result<RecordBatch> {
    let (mut times, mut severities, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for (time, severity, count) in cells {
        times.push(time);
        severities.push(SEVERITIES.get(severity).copied().flatten().map(Severity::as_str));
        counts.push(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times)),
        Arc::new(StringArray::from(severities)),
        Arc::new(Int64Array::from(counts)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A part of a table of cells.
struct Part {
    counting: Arc<Counting>,
    schema: SchemaRef,
    pieces: Vec<Piece>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (counting, schema) = (Arc::clone(&self.counting), Arc::clone(&self.schema));
        let count = Count { counting, schema, pieces: self.pieces.clone().into(), rows: None };
        let batches =
            stream::try_unfold(count, |mut count| async move { Ok(count.next().await?.map(|batch| (batch, count))) });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// One part that is being read.
struct Count {
    counting: Arc<Counting>,
    schema: SchemaRef,
    pieces: VecDeque<Piece>,
    rows: Option<Walk>,
}

impl Count {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(batch) = rows.next().await? {
                    let mut columns = batch.columns().to_vec();
                    columns.push(Arc::new(Int64Array::from(vec![1; batch.num_rows()])));
                    return Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?));
                }
                self.rows = None;
            }
            let cells = match self.pieces.pop_front() {
                None => return Ok(None),
                Some(Piece::Chunk(piece)) => {
                    let (cells, rows) = self.counting.open(piece).await?;
                    self.rows = rows;
                    cells
                }
                Some(rows) => {
                    self.rows = Some(self.counting.walk(rows));
                    continue;
                }
            };
            if !cells.is_empty() {
                return batch(&self.schema, cells.into_iter()).map(Some);
            }
        }
    }
}
