//! Tables whose rows are elsewhere: as they are planned with, and as what fragments answered.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::plan_err,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use types::IndexName;
use wire::Problem;

use super::{Fragment, FragmentRows, Scatter, ipc::fit};
use crate::{EngineError, Stats};

/// A table that a plan is made with; nothing is read of it.
#[derive(Debug)]
pub(super) struct RemoteTable {
    index: IndexName,
    scatter: Arc<dyn Scatter>,
    schema: SchemaRef,
}

impl RemoteTable {
    pub(super) fn new(index: IndexName, scatter: Arc<dyn Scatter>) -> Self {
        let schema = scatter.schema();
        Self { index, scatter, schema }
    }

    pub(super) fn index(&self) -> &IndexName {
        &self.index
    }

    pub(super) fn scatter(&self) -> Arc<dyn Scatter> {
        Arc::clone(&self.scatter)
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What cannot be asked of it keeps the plan from being cut.
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan_err!("the rows of {} are not here", self.index)
    }
}

/// What the fragments of one query have cost, and what went wrong with one.
pub(super) struct Answers {
    so_far: Mutex<(Stats, Option<EngineError>)>,
    scan_bytes: u64,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// None yet; together they may look at so many bytes.
    pub(super) fn new(scan_bytes: u64) -> Self {
        Self { so_far: Mutex::default(), scan_bytes }
    }

    pub(super) fn stats(&self) -> Stats {
        self.so_far.lock().0
    }

    /// The first error of a fragment, in its own words.
    pub(super) fn error(&self) -> Option<EngineError> {
        self.so_far.lock().1.take()
    }

    fn take(&self, answer: Result<FragmentRows, EngineError>) -> Result<FragmentRows> {
        let mut so_far = self.so_far.lock();
        let noted = answer.and_then(|rows| {
            let stats = &mut so_far.0;
            stats.rows_scanned += rows.stats.rows_scanned;
            stats.bytes_scanned += rows.stats.bytes_scanned;
            stats.scan = stats.scan.plus(&rows.stats.scan);
            match rows.answer_bytes {
                Some(bytes) => {
                    stats.fragments.beside += 1;
                    stats.fragments.answer_bytes += bytes;
                }
                None => stats.fragments.here += 1,
            }
            if stats.bytes_scanned <= self.scan_bytes {
                return Ok(rows);
            }
            let message = format!(
                "the query reads more than {} bytes: narrow its time range, or look for something rarer",
                self.scan_bytes
            );
            Err(EngineError::Source(Problem::bad_request("QueryScanTooLarge", message)))
        });
        noted.map_err(|error| {
            let said = DataFusionError::Execution(error.to_string());
            so_far.1.get_or_insert(error);
            said
        })
    }
}

/// What a fragment answers, wherever it runs.
#[derive(Debug)]
pub(super) struct PartsTable {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    schema: SchemaRef,
    fragment: Arc<Fragment>,
    scatter: Arc<dyn Scatter>,
    answers: Arc<Answers>,
}

impl PartsTable {
    pub(super) fn new(
        schema: SchemaRef,
        fragment: Arc<Fragment>,
        scatter: Arc<dyn Scatter>,
        answers: Arc<Answers>,
    ) -> Self {
        Self { parts: Arc::new(Parts { schema, fragment, scatter, answers }) }
    }
}

#[async_trait]
impl TableProvider for PartsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.parts.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts: Arc<dyn PartitionStream> = Arc::clone(&self.parts) as _;
        let schema = Arc::clone(&self.parts.schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![parts], projection, [], false, limit)?))
    }
}

impl PartitionStream for Parts {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, answers) = (Arc::clone(&self.schema), Arc::clone(&self.answers));
        let rows = self.scatter.run(Arc::clone(&self.fragment)).map(move |answer| answers.take(answer));
        let batches = rows.map_ok(move |rows| {
            let schema = Arc::clone(&schema);
            let fitted = rows.batches.into_iter().map(move |batch| fit(&batch, &schema).map_err(DataFusionError::from));
            stream::iter(fitted)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.try_flatten()))
    }
}
