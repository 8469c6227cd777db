//! Plans of statements, kept for as long as the same is asked of the same columns.
//!
//! A plan says nothing of what is read: its tables find that in the session that it is run in ([`Tables`]). So the same
//! statement is understood once while the columns of its indexes stay the same, which is most of the work for an answer that
//! reads little.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{
        TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    execution::{SendableRecordBatchStream, SessionState, TaskContext},
    logical_expr::{Expr, LogicalPlan, Volatility},
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::SessionContext,
    sql::parser::Statement,
};
use parking_lot::Mutex;
use query::Select;
use types::IndexName;

use crate::{
    cache::Cache,
    provider::{SourceTable, Tables},
    session::{planning, state, task},
};

/// Memory of plans that are kept, about; beyond it those that were not asked for lately are forgotten.
const PLANS_BYTES_MAX: usize = 32 << 20;

/// What a plan takes for each byte of its text, and besides for each column of each of its steps.
const TEXT_FACTOR: usize = 64;
const COLUMN_BYTES: usize = 256;

static PLANS: LazyLock<Mutex<Cache<Key, Arc<LogicalPlan>>>> = LazyLock::new(|| Mutex::new(Cache::new(PLANS_BYTES_MAX)));

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    text: String,
    /// A text may be asked for its rows and for its columns only.
    rows: bool,
    tables: Vec<(IndexName, SchemaRef)>,
}

impl Key {
    /// What it takes together with its plan, about.
    fn bytes(&self, plan: &LogicalPlan) -> Result<usize> {
        let mut columns: usize = self.tables.iter().map(|(_, schema)| schema.fields().len()).sum();
        plan.apply_with_subqueries(|node| {
            // A step without columns takes something too.
            columns += 1 + node.schema().fields().len();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(TEXT_FACTOR * self.text.len() + COLUMN_BYTES * columns)
    }
}

/// The statement as DataFusion understands it, over the tables of a session.
pub(crate) async fn logical(context: &SessionContext, select: &Select) -> Result<LogicalPlan> {
    crate::views::register(context, select).await?;
    let statement = Statement::Statement(Box::new(select.statement().clone()));
    context.state().statement_to_plan(statement).await
}

/// The best plan for a statement over these tables.
pub(crate) async fn planned(select: &Select, tables: &Tables) -> Result<Arc<LogicalPlan>> {
    let key = Key { text: select.text.clone(), rows: select.rows, tables: tables.schemas().collect() };
    // What a name means in a library may change while the text does not.
    let is_whole = select.items.is_empty();
    if is_whole && let Some(plan) = PLANS.lock().get(&key) {
        return Ok(plan);
    }
    let context = planning();
    for (index, schema) in &key.tables {
        let table = SourceTable::new(index.clone(), Arc::clone(schema));
        context.register_table(TableReference::bare(index.as_str()), Arc::new(table))?;
    }
    let plan = logical(&context, select).await?;
    let stays = stays(&plan)?;
    let plan = Arc::new(context.state().optimize(&plan)?);
    if is_whole && stays {
        let bytes = key.bytes(&plan)?;
        PLANS.lock().put(key, Arc::clone(&plan), bytes);
    }
    Ok(plan)
}

/// Whether a plan means the same whenever it is run: the time of day becomes a constant of it.
fn stays(plan: &LogicalPlan) -> Result<bool> {
    let mut stays = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(function) = part {
                    stays &= function.func.signature().volatility == Volatility::Immutable;
                }
                Ok(if stays { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    })?;
    Ok(stays)
}

/// How the rows are had, and the state in which that was planned.
pub(crate) async fn physical(plan: &LogicalPlan, tables: Tables) -> Result<(Arc<dyn ExecutionPlan>, SessionState)> {
    let mut state = state();
    state.config_mut().set_extension(Arc::new(tables));
    let planner = Arc::clone(state.query_planner());
    let plan = planner.create_physical_plan(plan, &state).await?;
    Ok((plan, state))
}

/// A statement that is about to be run.
pub(crate) struct Ready {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) task: Arc<TaskContext>,
}

impl Ready {
    /// Plans it.
    pub(crate) async fn new(select: &Select, tables: Tables, memory_bytes: usize) -> Result<Self> {
        let plan = planned(select, &tables).await?;
        let (plan, state) = physical(&plan, tables).await?;
        Ok(Self { plan, task: task(&state, memory_bytes)? })
    }

    /// Its rows as they are found.
    pub(crate) fn run(self) -> Result<SendableRecordBatchStream> {
        execute_stream(self.plan, self.task)
    }
}

#[cfg(test)]
mod tests {
    use query::parse_select;

    use super::*;
    use crate::{Rows, TableSource, scan::Scanned};

    async fn tables() -> Tables {
        let shop: Arc<dyn TableSource> = Arc::new(Rows::new(Vec::new()));
        let scanned = Arc::new(Scanned::new(u64::MAX, "shop"));
        Tables::open(&[("shop".parse().unwrap(), shop)], scanned).await.unwrap()
    }

    #[tokio::test]
    async fn a_text_is_understood_once_unless_it_asks_for_the_time() {
        for (text, kept) in [
            ("SELECT _msg FROM shop WHERE severity = 'kept'", true),
            ("SELECT _msg FROM shop WHERE _time > now()", false),
            ("SELECT _msg FROM shop WHERE _time > (SELECT max(_time) FROM shop WHERE _time < now())", false),
            ("SELECT random() AS x FROM shop", false),
            ("SELECT count(*) AS kept, date_trunc('day', _time) AS day FROM shop GROUP BY 2", true),
        ] {
            let select = parse_select(text).unwrap();
            let first = planned(&select, &tables().await).await.unwrap();
            let again = planned(&select, &tables().await).await.unwrap();
            assert_eq!(Arc::ptr_eq(&first, &again), kept, "{text}");
        }
    }

    #[tokio::test]
    async fn a_query_without_rows_is_another_plan() {
        // Nothing that somebody writes makes one of the other.
        for text in ["SELECT _msg FROM shop WHERE severity = 'none'", "SELECT _msg FROM shop\n-- without rows"] {
            let select = parse_select(text).unwrap();
            let none = planned(&select.clone().without_rows(), &tables().await).await.unwrap();
            let all = planned(&select, &tables().await).await.unwrap();
            assert!(all != none, "{text}: {all}");
        }
    }

    #[tokio::test]
    async fn a_plan_weighs_what_its_steps_weigh() {
        let mut weights = Vec::new();
        for count in [1, 12] {
            let names: Vec<String> = (0..count).map(|n| format!("shop AS s{n}")).collect();
            let select = parse_select(&format!("SELECT s0._msg FROM {}", names.join(", "))).unwrap();
            let tables = tables().await;
            let plan = planned(&select, &tables).await.unwrap();
            let key = Key { text: String::new(), rows: true, tables: Vec::new() };
            weights.push(key.bytes(&plan).unwrap());
        }
        assert!(weights[1] >= 12 * weights[0], "{weights:?}");
    }
}
