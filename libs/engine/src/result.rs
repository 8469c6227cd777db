//! Results, and how they are written.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    json::writer::LineDelimited,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::EngineError;

/// What a query cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that its tables gave.
    pub rows_scanned: u64,
    /// Bytes of columns that its tables gave.
    pub bytes_scanned: u64,
    /// From its begin to its last row.
    pub elapsed: Duration,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResultColumn {
    /// Its name, unique in the result.
    pub name: String,
    /// Its type: `text`, `integer`, `number`, `boolean`, `timestamp`, else Arrow's name.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The rows that a query answered.
#[derive(Debug, Clone)]
pub struct ResultSet {
    /// The columns; names are unique, a repeated one gets `_2`, `_3`, ….
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Whether there were more rows than a query answers.
    pub truncated: bool,
    /// What it cost.
    pub stats: Stats,
}

impl ResultSet {
    pub(crate) fn new(schema: &Schema, batches: Vec<RecordBatch>, truncated: bool) -> Result<Self, ArrowError> {
        let schema = Arc::new(unique(schema));
        let batches = batches.into_iter().map(|batch| dress(&batch, &schema)).collect::<Result<_, _>>()?;
        Ok(Self { schema, batches, truncated, stats: Stats::default() })
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The columns with their types in plain words.
    pub fn columns(&self) -> Vec<ResultColumn> {
        let fields = self.schema.fields().iter();
        fields.map(|field| ResultColumn { name: field.name().clone(), kind: kind(field.data_type()) }).collect()
    }

    /// Each row as a JSON object with all columns in order; times are RFC 3339 in UTC.
    pub fn to_json_rows(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        let mut rows = Vec::with_capacity(self.row_count());
        for batch in &self.batches {
            for line in lines(batch, true)? {
                let text = String::from_utf8(line).map_err(|error| EngineError::Internal(Box::new(error)))?;
                rows.push(RawValue::from_string(text).map_err(|error| EngineError::Internal(Box::new(error)))?);
            }
        }
        Ok(rows)
    }

    /// The rows as CSV with a header line; null is an empty field, times are RFC 3339 in UTC.
    pub fn to_csv(&self) -> Result<Vec<u8>, EngineError> {
        let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
        if self.batches.is_empty() {
            writer.write(&RecordBatch::new_empty(Arc::clone(&self.schema)))?;
        }
        for batch in &self.batches {
            writer.write(batch)?;
        }
        Ok(writer.into_inner())
    }

    /// The rows as one Arrow IPC stream.
    pub fn to_ipc_stream(&self) -> Result<Vec<u8>, EngineError> {
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &self.schema)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        Ok(writer.into_inner()?)
    }
}

/// Each row of a batch as one JSON object, encoded; null members are left out, times are RFC 3339 in UTC.
pub fn json_rows(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, EngineError> {
    let schema = Arc::new(unique(&batch.schema()));
    lines(&dress(batch, &schema)?, false)
}

fn lines(batch: &RecordBatch, nulls: bool) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(nulls).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    // No text in JSON holds a bare line end, so lines are rows.
    Ok(writer.into_inner().split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The schema with unique names, and with times that say they are UTC.
fn unique(schema: &Schema) -> Schema {
    let mut seen = BTreeSet::new();
    let fields = schema.fields().iter().map(|field| {
        let mut name = field.name().clone();
        let mut number = 1;
        while !seen.insert(name.clone()) {
            number += 1;
            name = format!("{}_{number}", field.name());
        }
        let of = match field.data_type() {
            DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some("+00:00".into())),
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        Field::new(name, of, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn dress(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let fit = |(column, field): (&ArrayRef, &Arc<Field>)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(fit).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn kind(of: &DataType) -> String {
    match of {
        DataType::Utf8 => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        of if of.is_integer() => "integer".to_owned(),
        of if of.is_floating() => "number".to_owned(),
        other => other.to_string(),
    }
}
