//! Groups of which only some are wanted, in no order, where the rows come in order after all.
//!
//! DataFusion notes on an aggregate that so many groups are enough while nothing orders them. Rules that run later may bring rows
//! in order to it, by which it is taken for one that wants the first of an order, and fails for want of a direction.

use std::sync::Arc;

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, aggregates::AggregateExec},
};

/// Lets such an aggregate make all of its groups; the limit above it takes those that are wanted.
#[derive(Debug)]
pub(crate) struct OrderedGroupsAreWhole;

impl PhysicalOptimizerRule for OrderedGroupsAreWhole {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = plan.transform_up(|node| {
            let Some(groups) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            let is_noted = groups.limit_options().is_some_and(|limit| limit.descending().is_none());
            let is_of_an_order =
                groups.get_minmax_desc().is_some() || groups.is_unordered_unfiltered_group_by_distinct();
            if !is_noted || is_of_an_order {
                return Ok(Transformed::no(node));
            }
            let whole: Arc<dyn ExecutionPlan> = Arc::new(groups.with_new_limit_options(None));
            Ok(Transformed::yes(whole))
        });
        changed.data()
    }

    fn name(&self) -> &str {
        "ordered_groups_are_whole"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
