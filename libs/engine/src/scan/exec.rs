//! A scan as DataFusion runs it.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{Statistics, config::ConfigOptions, internal_err, stats::Precision, tree_node::TreeNodeRecursion},
    error::Result,
    execution::TaskContext,
    physical_expr::{
        EquivalenceProperties, PhysicalExpr,
        expressions::{Column, DynamicFilterPhysicalExpr, DynamicFilterTracking, PhysicalSortExpr},
    },
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        ReplaceChildrenOptions, SendableRecordBatchStream, SortOrderPushdownResult,
        coop::make_cooperative,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::stream;

use super::{
    Scan,
    sorted::{Order, Sorted},
    walk::Walk,
};
use crate::Piece;

/// A scan in some parts that are read at the same time.
#[derive(Debug, Clone)]
pub(crate) struct ScanExec {
    scan: Arc<Scan>,
    properties: Arc<PlanProperties>,
    limit: Option<usize>,
}

impl ScanExec {
    /// In at most so many parts; each gives at most `limit` rows.
    pub(crate) fn new(scan: Scan, parts_max: usize, limit: Option<usize>) -> Self {
        let parts = scan.pieces.len().clamp(1, parts_max.max(1));
        let properties = properties(EquivalenceProperties::new(Arc::clone(&scan.schema)), parts);
        Self { scan: Arc::new(scan), properties, limit }
    }

    /// The same with its rows in order; then it is one part, and reads several things at the same time by itself.
    fn sorted(&self, order: Order, by: &[PhysicalSortExpr]) -> Self {
        let orders = EquivalenceProperties::new_with_orderings(Arc::clone(&self.scan.schema), [by.to_vec()]);
        Self { scan: Arc::new(self.scan.ordered(order)), properties: properties(orders, 1), limit: self.limit }
    }

    /// What it reads.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.scan.pieces
    }

    /// Whether it gives every row that passes, in any order.
    pub(crate) fn is_of_all(&self) -> bool {
        self.limit.is_none() && self.scan.order.is_none()
    }

    /// The same of some of the pieces.
    pub(crate) fn of_pieces(&self, pieces: Vec<Piece>) -> Self {
        let parts = self.properties.partitioning.partition_count();
        Self::new(Scan { pieces, ..self.scan.as_ref().clone() }, parts, self.limit)
    }

    fn of(&self, scan: Scan) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { scan: Arc::new(scan), ..self.clone() })
    }
}

/// Whether the filters that change in it are of columns as they are. Of one by `b` and by `a + b` the columns get their new
/// places one after the other: the `b` in `a + b` has its own when that is looked for, and is not found.
fn is_of_columns(filter: &Arc<dyn PhysicalExpr>) -> bool {
    let own = filter.is::<DynamicFilterPhysicalExpr>();
    filter.children().into_iter().all(|child| if own { child.is::<Column>() } else { is_of_columns(child) })
}

fn properties(orders: EquivalenceProperties, parts: usize) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        orders,
        Partitioning::UnknownPartitioning(parts),
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.scan.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "Scan: pieces={}, columns=[{}]", self.scan.pieces.len(), names.join(", "))?;
        if !self.scan.conditions.is_empty() {
            write!(f, ", conditions={}", self.scan.conditions.len())?;
        }
        if let Some(order) = &self.scan.order {
            write!(f, ", order={order}")?;
        }
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "Scan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut next = TreeNodeRecursion::Continue;
        for expr in &self.scan.dynamic {
            next = next.visit_sibling(|| f(expr))?;
        }
        Ok(next)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a scan has no inputs") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if let Some(order) = &self.scan.order {
            let sorted = Sorted::new(Arc::clone(&self.scan), Arc::clone(order), self.limit, &task);
            let batches = stream::try_unfold(sorted, |mut sorted| async move {
                Ok(sorted.next().await?.map(|batch| (batch, sorted)))
            });
            let batches = RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), batches);
            return Ok(make_cooperative(Box::pin(batches)));
        }
        let parts = self.properties.partitioning.partition_count();
        let pieces = self.scan.pieces.iter().skip(partition).step_by(parts).cloned();
        let walk = Walk::new(Arc::clone(&self.scan), pieces, self.limit);
        let batches =
            stream::try_unfold(walk, |mut walk| async move { Ok(walk.next().await?.map(|batch| (batch, walk))) });
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), batches))))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut known = Statistics::new_unknown(&self.scan.schema);
        let rows = usize::try_from(self.scan.rows_count()).unwrap_or(usize::MAX);
        let plain = self.scan.conditions.is_empty() && self.limit.is_none();
        if args.partition().is_none() {
            known.num_rows = if plain { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        }
        Ok(Arc::new(known))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        // Rows that a limit has cut are in no order yet.
        let found = if self.limit.is_none() { Order::of(order, &self.scan) } else { None };
        Ok(match found {
            Some(found) => SortOrderPushdownResult::Exact { inner: Arc::new(self.sorted(found, order)) },
            None => SortOrderPushdownResult::Unsupported,
        })
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters = result.parent_filters.into_iter().map(|one| one.filter);
        let filters: Vec<Arc<dyn PhysicalExpr>> = filters.collect();
        // Whoever made them checks the rows again, so that they may be looked at when it pays, and as they are then.
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; filters.len()]);
        if phase != FilterPushdownPhase::Post || self.limit.is_some() {
            return Ok(answer);
        }
        let changes = |one: &Arc<dyn PhysicalExpr>| DynamicFilterTracking::classify(one).contains_dynamic_filter();
        let dynamic: Vec<_> = filters.into_iter().filter(|one| changes(one) && is_of_columns(one)).collect();
        if dynamic.is_empty() {
            return Ok(answer);
        }
        let dynamic = self.scan.dynamic.iter().cloned().chain(dynamic).collect();
        Ok(answer.with_updated_node(self.of(self.scan.narrowed_by(dynamic)?)))
    }
}
