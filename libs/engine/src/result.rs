//! Results, and how they are written.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    json::writer::LineDelimited,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{EngineError, FragmentStats, ScanStats};

/// What a query cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that were looked at: those of the row groups and of the batches that could not be left out.
    pub rows_scanned: u64,
    /// Bytes of their columns: of chunks as they lie there, of rows in memory as they are.
    pub bytes_scanned: u64,
    /// From its begin to its last row.
    pub elapsed: Duration,
    /// What was read of chunks and what not.
    pub scan: ScanStats,
    /// What of it ran beside the rows, and what not.
    pub fragments: FragmentStats,
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

    /// What the query cost, as a result of its own: what, how often, how many bytes, and why.
    pub fn explain(&self) -> Result<Self, EngineError> {
        let Stats { rows_scanned, bytes_scanned, elapsed, scan, fragments } = self.stats;
        let rows = u64::try_from(self.row_count()).unwrap_or(u64::MAX);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let told: [(&str, u64, Option<u64>, &str); 13] = [
            ("chunks", scan.chunks, Some(scan.chunk_bytes), "of the indexes that are read"),
            ("chunks left out", scan.chunks_by_time, None, "no event in them is of the time that is asked for"),
            ("chunks left out", scan.chunks_by_index, None, "their index says that nothing in them passes the filters"),
            ("chunks left out", scan.chunks_by_order, None, "enough rows were found that come before theirs"),
            ("chunks counted", scan.chunks_counted, None, "their counters answer, but for the edges of the time"),
            ("row groups", scan.row_groups, None, "of the chunks that were opened"),
            (
                "row groups left out",
                scan.row_groups_by_index,
                None,
                "the index says that nothing in them passes the filters",
            ),
            ("row groups left out", scan.row_groups_by_memory, None, "the same was asked of them before"),
            ("row groups left out", scan.row_groups_by_order, None, "enough rows were found that come before theirs"),
            (
                "row groups read",
                scan.row_groups_read,
                Some(scan.chunk_bytes_read),
                "of them the columns that are named",
            ),
            ("requests to storage", scan.requests, Some(scan.chunk_bytes_fetched), "what else was read was in memory"),
            ("rows looked at", rows_scanned, Some(bytes_scanned), "of chunks, and of what is in none yet"),
            ("rows found", rows, None, "by the query"),
        ];
        let told = fragments.told().into_iter().chain(told);
        let told = told.chain([("milliseconds", millis, None, "from the begin to the last row")]);
        let told: Vec<_> = told.collect();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let columns: [(&str, ArrayRef); 4] = [
            ("what", Arc::new(told.iter().map(|row| Some(row.0)).collect::<StringArray>())),
            ("count", Arc::new(told.iter().map(|row| Some(number(row.1))).collect::<Int64Array>())),
            ("bytes", Arc::new(told.iter().map(|row| row.2.map(number)).collect::<Int64Array>())),
            ("why", Arc::new(told.iter().map(|row| Some(row.3)).collect::<StringArray>())),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
        let stats = self.stats;
        Ok(Self { stats, ..Self::new(&batch.schema(), vec![batch], false)? })
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
