//! Results and tables as files: Parquet, and one JSON object a line.

use std::sync::Arc;

use arrow::{array::RecordBatch, compute::concat_batches};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use crate::{EngineError, ResultSet};

/// Rows of one row group: what a reader holds at a time.
const GROUP_ROWS: usize = 65_536;

fn failed(error: ParquetError) -> EngineError {
    EngineError::Internal(Box::new(error))
}

impl ResultSet {
    /// Each row as a JSON object with all columns in order, and a line end.
    pub fn to_json_lines(&self) -> Result<Vec<u8>, EngineError> {
        let rows = self.to_json_rows()?;
        let mut out = Vec::with_capacity(rows.iter().map(|row| row.get().len() + 1).sum());
        for row in rows {
            out.extend_from_slice(row.get().as_bytes());
            out.push(b'\n');
        }
        Ok(out)
    }

    /// The rows as a Parquet file.
    pub fn to_parquet(&self) -> Result<Vec<u8>, EngineError> {
        let level = ZstdLevel::try_new(1).map_err(failed)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
        let properties = properties.set_max_row_group_row_count(Some(GROUP_ROWS)).build();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(properties)).map_err(failed)?;
        for batch in &self.batches {
            writer.write(batch).map_err(failed)?;
        }
        writer.into_inner().map_err(failed)
    }
}

/// A table as a Parquet file.
pub fn to_parquet(table: &RecordBatch) -> Result<Vec<u8>, EngineError> {
    ResultSet::new(&table.schema(), vec![table.clone()], false)?.to_parquet()
}

/// The table that a Parquet file holds.
pub fn from_parquet(bytes: Bytes) -> Result<RecordBatch, EngineError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().map_err(failed)?.collect::<Result<_, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_table_comes_back_from_its_file() {
        for rows in [0, 3] {
            let text: ArrayRef = Arc::new(StringArray::from(vec![Some("ä\n"), None, Some("")]).slice(0, rows));
            let number: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(i64::MAX), None]).slice(0, rows));
            let table = RecordBatch::try_from_iter_with_nullable([("t", text, true), ("n", number, true)]).unwrap();
            let bytes = to_parquet(&table).unwrap();
            assert_eq!(&bytes[..4], b"PAR1");
            assert_eq!(from_parquet(bytes.into()).unwrap(), table, "{rows}");
            let result = ResultSet::new(&table.schema(), vec![table], false).unwrap();
            let lines = String::from_utf8(result.to_json_lines().unwrap()).unwrap();
            assert_eq!(lines.lines().count(), rows);
            assert!(rows == 0 || lines.starts_with("{\"t\":\"ä\\n\",\"n\":1}\n"), "{lines}");
        }
        assert!(from_parquet(Bytes::from_static(b"PAR1 but not really")).is_err());
    }
}
