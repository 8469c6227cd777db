//! Running one query within limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use datafusion::{error::DataFusionError, execution::SendableRecordBatchStream};
use futures::TryStreamExt;
use query::Select;
use types::IndexName;

use crate::{
    EngineError, ResultSet, Stats, TableSource, counts::Counts, error::explain_select, plans::Ready, provider::Tables,
    scan::Scanned, table::rows_bytes,
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
    let asked = Asked::new(select, limits);
    let work = async {
        let fail = |error: DataFusionError| explain_select(&error, limits.memory_bytes, select);
        match asked.begin(&tables).await? {
            Begun::Counted(rows) => collected(&rows, limits).map_err(fail),
            Begun::Planned(ready) => collect(ready.run().map_err(fail)?, limits).await.map_err(fail),
        }
    };
    let mut result =
        tokio::time::timeout(limits.timeout, work).await.map_err(|_| EngineError::Timeout(limits.timeout))??;
    result.stats = asked.stats();
    Ok(result)
}

/// A query that is run once.
pub(crate) struct Asked<'a> {
    select: &'a Select,
    limits: Limits,
    began: Instant,
    pub(crate) scanned: Arc<Scanned>,
}

/// How its rows come.
pub(crate) enum Begun {
    /// All of them, out of counters.
    Counted(RecordBatch),
    /// By a plan.
    Planned(Ready),
}

impl<'a> Asked<'a> {
    /// Begins now.
    pub(crate) fn new(select: &'a Select, limits: Limits) -> Self {
        // As where it waits for its place.
        let index = select.tables.first().map_or("", IndexName::as_str);
        Self { select, limits, began: Instant::now(), scanned: Arc::new(Scanned::new(limits.scan_bytes, index)) }
    }

    /// Learns what the tables are, and begins to read.
    pub(crate) async fn begin(&self, tables: &[(IndexName, Arc<dyn TableSource>)]) -> Result<Begun, EngineError> {
        let (select, memory_bytes) = (self.select, self.limits.memory_bytes);
        let fail = |error: DataFusionError| explain_select(&error, memory_bytes, select);
        let tables = Tables::open(tables, Arc::clone(&self.scanned)).await?;
        if let [table] = tables.all()
            && select.items.is_empty()
            && let Some(counts) = Counts::of(select, &table.schemas)
            && let Some(rows) = counts.answer(table, &self.scanned, memory_bytes).await.map_err(fail)?
        {
            return Ok(Begun::Counted(rows));
        }
        Ready::new(select, tables, memory_bytes).await.map(Begun::Planned).map_err(fail)
    }

    /// What it has cost so far.
    pub(crate) fn stats(&self) -> Stats {
        let totals = self.scanned.totals();
        let (rows_scanned, bytes_scanned, scan) = (totals.rows, totals.bytes, totals.scan);
        Stats { rows_scanned, bytes_scanned, elapsed: self.began.elapsed(), scan, ..Stats::default() }
    }
}

/// Rows up to a limit.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) rows: usize,
    pub(crate) truncated: bool,
}

impl Cut {
    /// What of the next rows is within the limit; `None` where there is nothing more to take.
    pub(crate) fn take(&mut self, batch: &RecordBatch, rows_max: usize) -> Option<RecordBatch> {
        let room = rows_max.saturating_sub(self.rows);
        self.truncated |= batch.num_rows() > room;
        let taken = batch.slice(0, batch.num_rows().min(room));
        self.rows += taken.num_rows();
        (taken.num_rows() > 0).then_some(taken)
    }
}

pub(crate) async fn collect(
    mut stream: SendableRecordBatchStream,
    limits: Limits,
) -> Result<ResultSet, DataFusionError> {
    let schema = stream.schema();
    let (mut cut, mut batches, mut bytes) = (Cut::default(), Vec::new(), 0);
    while !cut.truncated
        && let Some(batch) = stream.try_next().await?
    {
        let Some(taken) = cut.take(&batch, limits.rows_max) else { continue };
        bytes += rows_bytes(&taken);
        batches.push(taken);
        cut.truncated |= bytes > limits.memory_bytes;
    }
    Ok(ResultSet::new(&schema, batches, cut.truncated)?)
}

fn collected(batch: &RecordBatch, limits: Limits) -> Result<ResultSet, DataFusionError> {
    let mut cut = Cut::default();
    let batches = cut.take(batch, limits.rows_max).into_iter().collect();
    Ok(ResultSet::new(&batch.schema(), batches, cut.truncated)?)
}

#[cfg(test)]
mod tests;
