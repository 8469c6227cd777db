//! A scan as DataFusion runs it.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{Statistics, config::ConfigOptions, internal_err, stats::Precision, tree_node::TreeNodeRecursion},
    error::Result,
    execution::TaskContext,
    physical_expr::{
        EquivalenceProperties, PhysicalExpr,
        expressions::{Column, DynamicFilterTracking, PhysicalSortExpr},
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

use super::{Order, Scan, needs::TIME, walk::Walk};

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
        let properties = properties(&scan.schema, parts);
        Self { scan: Arc::new(scan), properties, limit }
    }

    fn of(&self, scan: Scan) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { scan: Arc::new(scan), ..self.clone() })
    }
}

fn properties(schema: &SchemaRef, parts: usize) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
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
        if let Some(order) = self.scan.order {
            write!(f, ", order={order:?}")?;
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

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
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
        let by_time = order
            .first()
            .filter(|first| first.expr.downcast_ref::<Column>().is_some_and(|column| column.name() == TIME));
        Ok(match by_time {
            Some(first) => {
                let order = if first.options.descending { Order::NewestFirst } else { Order::OldestFirst };
                SortOrderPushdownResult::Inexact { inner: self.of(self.scan.ordered(order)) }
            }
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
        let dynamic: Vec<_> = filters.into_iter().filter(changes).collect();
        if dynamic.is_empty() {
            return Ok(answer);
        }
        let dynamic = self.scan.dynamic.iter().cloned().chain(dynamic).collect();
        Ok(answer.with_updated_node(self.of(self.scan.narrowed_by(dynamic)?)))
    }
}
