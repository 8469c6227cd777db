//! A table source as DataFusion sees it: one schema, projection and time range pushed down.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{
        ExecutionPlan, SendableRecordBatchStream,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::StreamExt;

use crate::{
    ScanRequest, TableSource,
    table::rows_bytes,
    time_range::{TimeRange, of_filter},
};

/// What the scans of a query have read.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// One table of one query.
#[derive(Debug)]
pub(crate) struct SourceTable {
    source: Arc<dyn TableSource>,
    schema: SchemaRef,
    scanned: Arc<Scanned>,
}

impl SourceTable {
    /// Learns the columns of the source.
    pub(crate) async fn open(source: Arc<dyn TableSource>, scanned: Arc<Scanned>) -> Result<Self, wire::Problem> {
        let schemas = source.schemas().await?;
        let schema = Arc::new(ingest::merge_schemas(schemas.iter().map(AsRef::as_ref)));
        Ok(Self { source, schema, scanned })
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact: a source leaves out chunks by their time range, and the rows inside are filtered afterwards.
        Ok(filters
            .iter()
            .map(|filter| match of_filter(filter) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(places) => Arc::new(self.schema.project(places)?),
            None => Arc::clone(&self.schema),
        };
        // A schema that was cut at the column limit folds the columns it lacks into one, so it needs every column.
        let cut = !self.schema.metadata().is_empty();
        let columns = (!cut).then(|| projected.fields().iter().map(|field| field.name().clone()).collect());
        let request = ScanRequest { columns, time_range: TimeRange::of_filters(filters) };
        let parts = (0..self.source.partitions().max(1))
            .map(|partition| {
                Arc::new(Part {
                    source: Arc::clone(&self.source),
                    partition,
                    request: request.clone(),
                    whole: cut.then(|| Arc::clone(&self.schema)),
                    schema: Arc::clone(&projected),
                    scanned: Arc::clone(&self.scanned),
                }) as Arc<dyn PartitionStream>
            })
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(projected, parts, None, [], false, limit)?))
    }
}

/// One part of one scan.
struct Part {
    source: Arc<dyn TableSource>,
    partition: usize,
    request: ScanRequest,
    /// The whole schema, where batches must be brought to it before they are projected.
    whole: Option<SchemaRef>,
    schema: SchemaRef,
    scanned: Arc<Scanned>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("partition", &self.partition).field("request", &self.request).finish()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (whole, schema) = (self.whole.clone(), Arc::clone(&self.schema));
        let scanned = Arc::clone(&self.scanned);
        let batches = self.source.scan(self.partition, &self.request).map(move |batch| {
            let batch = batch.map_err(|problem| DataFusionError::External(Box::new(problem)))?;
            scanned.rows.fetch_add(u64::try_from(batch.num_rows()).unwrap_or(0), Ordering::Relaxed);
            scanned.bytes.fetch_add(u64::try_from(rows_bytes(&batch)).unwrap_or(0), Ordering::Relaxed);
            fit(&batch, whole.as_ref(), &schema)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn fit(batch: &RecordBatch, whole: Option<&SchemaRef>, schema: &SchemaRef) -> Result<RecordBatch> {
    let external = |error: ingest::Error| DataFusionError::External(Box::new(error));
    match whole {
        None => ingest::conform(batch, schema).map_err(external),
        Some(whole) => {
            let batch = ingest::conform(batch, whole).map_err(external)?;
            let places: Vec<usize> =
                schema.fields().iter().map(|field| whole.index_of(field.name())).collect::<Result<_, _>>()?;
            Ok(batch.project(&places)?)
        }
    }
}
