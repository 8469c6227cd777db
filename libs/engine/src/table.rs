//! What a query reads: tables that hand in batches.

use std::fmt;

use arrow::{
    array::{Array, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use wire::Problem;

use crate::TimeRange;

/// Batches as they come; a problem ends them.
pub type BatchStream = BoxStream<'static, Result<RecordBatch, Problem>>;

/// What a query needs of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRequest {
    /// The columns; `None` for every one. Batches may hold more, and lack those that they do not have.
    pub columns: Option<Vec<String>>,
    /// The event times that can matter. Rows outside may be left out or given, as it is cheaper.
    pub time_range: TimeRange,
}

/// A table at one instant: asking it twice gives the same rows.
#[async_trait]
pub trait TableSource: fmt::Debug + Send + Sync + 'static {
    /// The schemas of all its batches; together they are the columns that a query may name. Empty for a table without rows.
    async fn schemas(&self) -> Result<Vec<SchemaRef>, Problem>;

    /// Into how many parts it is divided that may be read at the same time; at least 1.
    fn partitions(&self) -> usize;

    /// The rows of one part, each once.
    fn scan(&self, partition: usize, request: &ScanRequest) -> BatchStream;
}

/// A table of batches in memory.
#[derive(Debug, Clone)]
pub struct Rows(Vec<RecordBatch>);

impl Rows {
    /// A table of these batches, whose schemas may differ.
    pub fn new(batches: Vec<RecordBatch>) -> Self {
        Self(batches)
    }
}

#[async_trait]
impl TableSource for Rows {
    async fn schemas(&self) -> Result<Vec<SchemaRef>, Problem> {
        Ok(self.0.iter().map(RecordBatch::schema).collect())
    }

    fn partitions(&self) -> usize {
        1
    }

    fn scan(&self, _partition: usize, _request: &ScanRequest) -> BatchStream {
        futures::stream::iter(self.0.clone().into_iter().map(Ok)).boxed()
    }
}

/// The bytes of a batch's own rows. Columns that came from one message or were sliced share a buffer, which each of them
/// would count whole.
pub(crate) fn rows_bytes(batch: &RecordBatch) -> usize {
    let own = |column: &arrow::array::ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(own).sum()
}
