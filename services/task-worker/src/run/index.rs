//! Rows of any chain into an index.

use arrow::array::RecordBatch;
use flow::{TIME_COLUMN, WINDOW_START_COLUMN};
use futures::future::{BoxFuture, ready};
use types::SegmentId;

use super::RowSink;
use crate::{
    error::TaskError,
    part::Part,
    sink::{
        IndexSink,
        index::{events_at, routing_keys},
    },
};

/// The index sink behind a chain of any shape.
#[derive(Debug)]
pub(super) struct IndexRows {
    pub(super) sink: IndexSink,
    /// The key columns by which rows meet in a segment.
    pub(super) keys: Vec<String>,
    /// Whether each split has a writer of its own, which keeps its order.
    pub(super) by_split: bool,
}

impl IndexRows {
    async fn append(&mut self, split: Option<u64>, batch: &RecordBatch) -> Result<(), TaskError> {
        let time = batch.column_by_name(TIME_COLUMN).or_else(|| batch.column_by_name(WINDOW_START_COLUMN));
        let events = events_at(time.ok_or(TaskError::Column(TIME_COLUMN))?, batch)?;
        let events = routing_keys(batch, &self.keys)?.into_iter().zip(events).collect();
        self.sink.append(split.filter(|_| self.by_split).map(writer_of), events).await
    }
}

/// The name of a split's writer: as of a segment, which is what its number is made of.
fn writer_of(split: u64) -> SegmentId {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    SegmentId { stream: 0, epoch: half(split >> 32), number: half(split) }
}

impl RowSink for IndexRows {
    fn rows(&mut self, split: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        let batch = batch.clone();
        Box::pin(async move { self.append(split, &batch).await })
    }

    fn barrier<'a>(&'a mut self, _: u64, part: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        // Everything that was appended is acknowledged.
        self.sink.note(part);
        Box::pin(ready(Ok(())))
    }
}
