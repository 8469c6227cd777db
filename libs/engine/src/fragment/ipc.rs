//! Schemas and rows as Arrow IPC streams.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::EngineError;

/// A stream without rows.
pub fn schema_to_ipc(schema: &Schema) -> Result<Vec<u8>, EngineError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// The schema of a stream.
pub fn schema_of(stream: &[u8]) -> Result<SchemaRef, EngineError> {
    Ok(StreamReader::try_new(stream, None)?.schema())
}

/// The rows of a stream.
pub fn batches_of(stream: &[u8]) -> Result<Vec<RecordBatch>, EngineError> {
    let batches: Result<Vec<_>, ArrowError> = StreamReader::try_new(stream, None)?.collect();
    Ok(batches?)
}

/// The columns of a batch as those of a table of the same width, by their places.
pub(super) fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.num_columns() != schema.fields().len() {
        let (found, wanted) = (batch.num_columns(), schema.fields().len());
        return Err(ArrowError::SchemaError(format!(
            "a fragment answered {found} columns where {wanted} were asked for"
        )));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        arrow::compute::cast(column, field.data_type())
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
