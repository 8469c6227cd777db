//! Running a query by fragments.

use std::{sync::Arc, time::Instant};

use datafusion::{
    common::TableReference, error::DataFusionError, execution::SendableRecordBatchStream, logical_expr::LogicalPlan,
    physical_plan::execute_stream, prelude::SessionContext,
};
use futures::TryStreamExt;
use query::{Select, parse_select};
use types::IndexName;

use super::{
    Scatter, Whole,
    ask::Ask,
    cut::cut,
    remote::{Answers, RemoteTable},
};
use crate::{
    EngineError, Limits, ResultSet, Stats, error::explain_select, plans::logical, session::session, table::rows_bytes,
};

/// What became of a query over tables whose rows are elsewhere.
#[derive(Debug)]
pub enum Scattered {
    /// Its answer.
    Answered(Box<ResultSet>),
    /// It has no answer: it needs whole rows.
    Whole(Whole),
}

/// Runs a query by fragments, if it can be cut into some.
///
/// Bounds: `limits`, as for [`run_select`](crate::run_select), hold for what is done here with the answers; the bytes that are
/// looked at are counted as answers come. What fragments hold where they run is bounded there: by the store, and by
/// [`Scatter::run`]. The first that is too large gives up all others. Dropping the future stops the query.
/// Errors: as [`run_select`](crate::run_select), and those of the fragments.
pub async fn run_scattered(
    select: &Select,
    tables: Vec<(IndexName, Arc<dyn Scatter>)>,
    limits: Limits,
) -> Result<Scattered, EngineError> {
    let began = Instant::now();
    let answers = Arc::new(Answers::new(limits.scan_bytes));
    let work = async {
        let fail = |error: DataFusionError| {
            answers.error().unwrap_or_else(|| explain_select(&error, limits.memory_bytes, select))
        };
        let context = session(limits.memory_bytes).map_err(fail)?;
        for (index, scatter) in tables {
            let name = TableReference::bare(index.as_str().to_owned());
            context.register_table(name, Arc::new(RemoteTable::new(index, scatter))).map_err(fail)?;
        }
        let state = context.state();
        let plan = planned(&context, select).await.map_err(fail)?;
        let cut = match cut(plan, &answers).map_err(fail)? {
            Ok(cut) => cut,
            Err(why) => return Ok(Scattered::Whole(why)),
        };
        for (ask, text) in &cut.asks {
            if !says(&context, text, ask).await {
                return Ok(Scattered::Whole(Whole::Text));
            }
        }
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&cut.plan, &state).await.map_err(fail)?;
        let stream = execute_stream(physical, context.task_ctx()).map_err(fail)?;
        collect(stream, limits).await.map(|result| Scattered::Answered(Box::new(result))).map_err(fail)
    };
    let done = tokio::time::timeout(limits.timeout, work).await.map_err(|_| EngineError::Timeout(limits.timeout))?;
    Ok(match done.or_else(given_up)? {
        Scattered::Answered(result) => {
            let stats = Stats { elapsed: began.elapsed(), ..answers.stats() };
            Scattered::Answered(Box::new(ResultSet { stats, ..*result }))
        }
        whole => whole,
    })
}

/// A fragment that was too large: whole rows are read one after the other.
fn given_up(error: EngineError) -> Result<Scattered, EngineError> {
    match error {
        EngineError::Source(problem) if problem.kind == "FragmentTooLarge" => Ok(Scattered::Whole(Whole::TooLarge)),
        other => Err(other),
    }
}

async fn collect(mut stream: SendableRecordBatchStream, limits: Limits) -> Result<ResultSet, DataFusionError> {
    let schema = stream.schema();
    let (mut batches, mut rows, mut bytes, mut truncated) = (Vec::new(), 0, 0, false);
    while let Some(batch) = stream.try_next().await? {
        let taken = batch.slice(0, batch.num_rows().min(limits.rows_max - rows));
        truncated = taken.num_rows() < batch.num_rows() || bytes > limits.memory_bytes;
        if taken.num_rows() > 0 {
            rows += taken.num_rows();
            bytes += rows_bytes(&taken);
            batches.push(taken);
        }
        if truncated {
            break;
        }
    }
    Ok(ResultSet::new(&schema, batches, truncated)?)
}

async fn planned(context: &SessionContext, select: &Select) -> Result<LogicalPlan, DataFusionError> {
    let plan = logical(context, select).await?;
    context.state().optimize(&plan)
}

/// Whether a text, planned again, asks for exactly this.
async fn says(context: &SessionContext, text: &str, ask: &Ask) -> bool {
    let Ok(select) = parse_select(text) else { return false };
    let Ok(plan) = planned(context, &select).await else { return false };
    let read = Ask::of(&plan).ok().flatten();
    if read.as_ref() != Some(ask) {
        tracing::debug!(text, ?read, ?ask, "fragment is not what its text says");
        return false;
    }
    true
}
