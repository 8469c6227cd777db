//! Running one query within limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    common::TableReference, error::DataFusionError, execution::SendableRecordBatchStream, prelude::SessionContext,
    sql::parser::Statement,
};
use futures::TryStreamExt;
use query::Select;
use types::IndexName;

use crate::{
    EngineError, ResultSet, Stats, TableSource,
    error::explain_select,
    provider::SourceTable,
    scan::{CountersRule, Scanned},
    session::session,
    table::rows_bytes,
};

/// What one query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows that it answers at most; the result says that it was cut.
    pub rows_max: usize,
    /// Memory for its operators, and again as much for its result.
    pub memory_bytes: usize,
    /// Time until it is stopped.
    pub timeout: Duration,
    /// Bytes of chunks and of rows in memory that it looks at.
    pub scan_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows_max: 100_000, memory_bytes: 512 << 20, timeout: Duration::from_secs(30), scan_bytes: u64::MAX }
    }
}

/// Runs a query over exactly the given tables.
///
/// Bounds: `limits`; a result is cut at `rows_max` rows or `memory_bytes` bytes and says so. Dropping the future stops
/// the query. Run it on threads of its own: planning a deeply nested text takes stack, and operators take the CPU.
/// Errors: `Query` with the place in the text, `Timeout`, `Memory`, `Source`, of which `QueryScanTooLarge` is the query's own.
pub async fn run_select(
    select: &Select,
    tables: Vec<(IndexName, Arc<dyn TableSource>)>,
    limits: Limits,
) -> Result<ResultSet, EngineError> {
    let began = Instant::now();
    let scanned = Arc::new(Scanned::new(limits.scan_bytes));
    let work = async {
        let fail = |error: DataFusionError| explain_select(&error, limits.memory_bytes, select);
        let context = session(limits.memory_bytes).map_err(fail)?;
        context.add_optimizer_rule(Arc::new(CountersRule));
        for (index, source) in tables {
            let table = SourceTable::open(&*source, Arc::clone(&scanned)).await?;
            context.register_table(TableReference::bare(index.as_str()), Arc::new(table)).map_err(fail)?;
        }
        let stream = start(&context, select).await.map_err(fail)?;
        collect(stream, limits).await.map_err(fail)
    };
    let mut result =
        tokio::time::timeout(limits.timeout, work).await.map_err(|_| EngineError::Timeout(limits.timeout))??;
    let totals = scanned.totals();
    result.stats =
        Stats { rows_scanned: totals.rows, bytes_scanned: totals.bytes, elapsed: began.elapsed(), scan: totals.scan };
    Ok(result)
}

pub(crate) async fn start(
    context: &SessionContext,
    select: &Select,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let statement = Statement::Statement(Box::new(select.statement().clone()));
    let plan = context.state().statement_to_plan(statement).await?;
    context.execute_logical_plan(plan).await?.execute_stream().await
}

async fn collect(mut stream: SendableRecordBatchStream, limits: Limits) -> Result<ResultSet, DataFusionError> {
    let schema = stream.schema();
    let (mut batches, mut rows, mut bytes, mut truncated) = (Vec::new(), 0, 0, false);
    while let Some(batch) = stream.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        if rows == limits.rows_max {
            truncated = true;
            break;
        }
        let room = limits.rows_max - rows;
        let taken = if batch.num_rows() > room { batch.slice(0, room) } else { batch.clone() };
        truncated = taken.num_rows() < batch.num_rows();
        rows += taken.num_rows();
        bytes += rows_bytes(&taken);
        batches.push(taken);
        truncated |= bytes > limits.memory_bytes;
        if truncated {
            break;
        }
    }
    Ok(ResultSet::new(&schema, batches, truncated)?)
}

#[cfg(test)]
mod tests;
