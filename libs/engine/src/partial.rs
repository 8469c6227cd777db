//! Aggregates that are shown before they are whole.
//!
//! A plan that groups in two steps, first what is at hand and then all of that, is run in parts: the first step over some
//! pieces of the table at a time, newest first, the second over what all parts so far have given. What the last second step
//! gives is the answer. Nothing is read twice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    catalog::memory::MemorySourceConfig,
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_plan::{
        ExecutionPlan, InputOrderMode,
        aggregates::{AggregateExec, AggregateMode},
        execute_stream,
        execution_plan::reset_plan_states,
    },
};
use futures::TryStreamExt;

use crate::{Piece, scan::ScanExec, table::rows_bytes};

/// Rows of an answer that is shown before it is whole; one with more is not.
pub(crate) const PARTIAL_ROWS_MAX: usize = 1_000;

/// Groups that are held of the parts before the rest is read as one part, which does with less.
const GROUPS_MAX: usize = 50_000;

/// A part that takes less than this is followed by one of twice as many pieces.
const PART_SHORT: Duration = Duration::from_millis(250);

/// Steps that do the same with a row whichever rows come beside it.
const ROW_BY_ROW: [&str; 6] = [
    "FilterExec",
    "ProjectionExec",
    "RepartitionExec",
    "CoalescePartitionsExec",
    "CoalesceBatchesExec",
    "CooperativeExec",
];

/// A plan in two steps over one table.
pub(crate) struct Partial {
    plan: Arc<dyn ExecutionPlan>,
    first: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// Newest last.
    pieces: Vec<Piece>,
    groups: Vec<RecordBatch>,
    groups_count: usize,
    part: usize,
    memory: MemoryReservation,
}

impl Partial {
    /// `None` for a plan that is not of this kind, or reads so little that nothing would be gained.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> Option<Self> {
        let first = first_step(plan)?;
        let mut pieces = scan(&first)?.pieces().to_vec();
        let at_once = task.session_config().target_partitions().max(1);
        if pieces.len() <= at_once {
            return None;
        }
        pieces.sort_by_key(|piece| match piece {
            Piece::Chunk(piece) => piece.chunk.time_max.nanos(),
            Piece::Rows(_) => i64::MAX,
        });
        let memory = MemoryConsumer::new("groups of parts").register(task.memory_pool());
        let (plan, task) = (Arc::clone(plan), Arc::clone(task));
        Some(Self { plan, first, task, pieces, groups: Vec::new(), groups_count: 0, part: at_once, memory })
    }

    /// The columns of the answer.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Whether all was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Reads some more.
    pub(crate) async fn read(&mut self) -> Result<()> {
        let began = Instant::now();
        let count = if self.groups_count > GROUPS_MAX { usize::MAX } else { self.part };
        let pieces = self.pieces.split_off(self.pieces.len().saturating_sub(count));
        let first = with_scan(&self.first, |scan| scan.of_pieces(pieces.clone()))?;
        let groups: Vec<RecordBatch> = execute_stream(first, Arc::clone(&self.task))?.try_collect().await?;
        for batch in groups.into_iter().filter(|batch| batch.num_rows() > 0) {
            self.groups_count += batch.num_rows();
            self.memory.try_grow(rows_bytes(&batch))?;
            self.groups.push(batch);
        }
        if began.elapsed() < PART_SHORT {
            self.part = self.part.saturating_mul(2);
        }
        Ok(())
    }

    /// The answer of what was read.
    pub(crate) fn answer(&self) -> Result<datafusion::execution::SendableRecordBatchStream> {
        let schema = self.first.schema();
        let groups = MemorySourceConfig::try_new_exec(std::slice::from_ref(&self.groups), schema, None)?;
        let first = &self.first;
        let plan = Arc::clone(&self.plan).transform_down(|node| {
            Ok(if Arc::ptr_eq(&node, first) {
                Transformed::yes(Arc::clone(&groups) as _)
            } else {
                Transformed::no(node)
            })
        });
        // A sort remembers what was the last of its rows, and lets nothing pass behind it the next time.
        execute_stream(reset_plan_states(plan.data()?)?, Arc::clone(&self.task))
    }

    /// Whether the answer may be small enough to be shown.
    pub(crate) fn may_show(&self) -> bool {
        self.groups_count <= GROUPS_MAX
    }
}

/// The lowest step that groups what is at hand, where everything below and above it has one input.
fn first_step(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let (mut node, mut found, mut above) = (Arc::clone(plan), None, None);
    loop {
        if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            let in_no_order = *aggregate.input_order_mode() == InputOrderMode::Linear;
            // Between the steps rows only change their places: in an order they would have to be merged.
            found = (*aggregate.mode() == AggregateMode::Partial && in_no_order && above == Some(true))
                .then(|| Arc::clone(&node));
            above = Some(in_no_order);
        } else if !matches!(node.name(), "RepartitionExec" | "CoalescePartitionsExec" | "CooperativeExec") {
            above = None;
        }
        let next = match node.children().as_slice() {
            [] => return found,
            [one] => Arc::clone(one),
            _ => return None,
        };
        node = next;
    }
}

/// The scan below a step that groups, where nothing between them needs more than one row at a time: windows, orders and limits
/// are of all rows, not of those of a part.
fn scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&ScanExec> {
    match plan.children().as_slice() {
        [] => plan.downcast_ref::<ScanExec>().filter(|scan| scan.is_of_all()),
        [one] if plan.is::<AggregateExec>() || is_row_by_row(plan) => scan(one),
        _ => None,
    }
}

fn is_row_by_row(plan: &Arc<dyn ExecutionPlan>) -> bool {
    ROW_BY_ROW.contains(&plan.name()) && plan.fetch().is_none()
}

fn with_scan(plan: &Arc<dyn ExecutionPlan>, change: impl Fn(&ScanExec) -> ScanExec) -> Result<Arc<dyn ExecutionPlan>> {
    let changed = Arc::clone(plan).transform_down(|node| {
        Ok(match node.downcast_ref::<ScanExec>() {
            Some(scan) => Transformed::yes(Arc::new(change(scan)) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    });
    changed.data()
}
