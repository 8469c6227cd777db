//! One file of rows while it is written.

use std::{fs::File, io::Write};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use flow::FileFormat;
use formats::{CsvWriter, ParquetWriter};
use tokio::task::{JoinError, spawn_blocking};

use super::plain::lines;
use crate::{
    error::{TaskError, told},
    metrics::rows,
};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;

/// How rows become bytes.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    Lines,
    Csv { writer: CsvWriter, header: bool },
    Parquet,
}

/// A file, and what is not written yet.
#[derive(Debug)]
pub(super) enum Writer {
    Text { encoding: Encoding, file: File, gathered: Vec<u8>, bytes: u64 },
    Parquet(Box<ParquetWriter<File>>),
}

impl Encoding {
    /// Errors: `Plan` for a delimiter that cannot be one.
    pub(super) fn new(format: &FileFormat) -> Result<Self, TaskError> {
        Ok(match format {
            FileFormat::Ndjson => Self::Lines,
            FileFormat::Parquet => Self::Parquet,
            FileFormat::Csv { delimiter, header } => {
                let writer = CsvWriter::new(*delimiter).map_err(|error| TaskError::Plan(error.to_string()))?;
                Self::Csv { writer, header: *header }
            }
        })
    }

    /// The end of names.
    pub(super) fn ending(&self) -> &'static str {
        match self {
            Self::Lines => "ndjson",
            Self::Csv { .. } => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// Whether all rows of a file have the same columns.
    pub(super) fn has_schema(&self) -> bool {
        !matches!(self, Self::Lines)
    }

    fn encode(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Csv { writer, .. } => writer.rows(batch, out).map_err(|error| told(&error)),
            Self::Lines | Self::Parquet => {
                out.extend_from_slice(&lines(batch).map_err(|error| told(&error))?);
                Ok(())
            }
        }
    }
}

impl Writer {
    /// Begins a file of rows of that schema. Blocks.
    pub(super) fn new(file: File, encoding: &Encoding, schema: SchemaRef) -> Result<Self, String> {
        let mut gathered = Vec::new();
        match encoding {
            Encoding::Parquet => {
                let writer = ParquetWriter::new(file, schema).map_err(|error| told(&error))?;
                return Ok(Self::Parquet(Box::new(writer)));
            }
            Encoding::Csv { writer, header: true } => writer.names(&schema, &mut gathered),
            Encoding::Csv { .. } | Encoding::Lines => {}
        }
        let bytes = rows(gathered.len());
        Ok(Self::Text { encoding: encoding.clone(), file, gathered, bytes })
    }

    /// Takes rows. What blocks is done beside the tasks.
    pub(super) async fn take(self, batch: RecordBatch) -> Result<Result<Self, String>, JoinError> {
        match self {
            Self::Text { encoding, file, mut gathered, mut bytes } => {
                let before = gathered.len();
                if let Err(problem) = encoding.encode(&batch, &mut gathered) {
                    return Ok(Err(problem));
                }
                bytes += rows(gathered.len() - before);
                let writer = Self::Text { encoding, file, gathered, bytes };
                if writer.gathered() < GATHERED_BYTES {
                    return Ok(Ok(writer));
                }
                spawn_blocking(move || writer.write()).await
            }
            Self::Parquet(mut writer) => {
                let written = move || {
                    writer.write(&batch).map_err(|error| told(&error))?;
                    Ok(Self::Parquet(writer))
                };
                spawn_blocking(written).await
            }
        }
    }

    /// Bytes of the file so far.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Text { bytes, .. } => *bytes,
            Self::Parquet(writer) => writer.bytes(),
        }
    }

    fn gathered(&self) -> usize {
        match self {
            Self::Text { gathered, .. } => gathered.len(),
            Self::Parquet(_) => 0,
        }
    }

    fn write(mut self) -> Result<Self, String> {
        if let Self::Text { file, gathered, .. } = &mut self {
            file.write_all(gathered).map_err(|error| error.to_string())?;
            gathered.clear();
        }
        Ok(self)
    }

    /// Writes what is left, and gives the file to be synced. Blocks.
    pub(super) fn finish(self) -> Result<File, String> {
        match self.write()? {
            Self::Text { file, .. } => Ok(file),
            Self::Parquet(writer) => writer.finish().map_err(|error| told(&error)),
        }
    }
}
