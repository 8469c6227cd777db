//! Files and messages to column batches, and back.
//!
//! Owns the formats that a job reads and writes besides an index: lines of JSON (with a scanner that learns the shape of
//! the lines and falls back where one differs), separated values and Parquet, the writers of the last two, and the rows of
//! Nexmark, which are made up from a seed. Deliberately does not know where bytes come from, what a watermark is, or what
//! becomes of a row that cannot be read: it is handed bytes, and says which rows they hold and which ones it could not read,
//! each with its place.
//!
//! ```
//! use formats::{Column, Kind, Layout, Ndjson, Unit};
//!
//! let columns = vec![Column::new("k", Kind::Integer), Column::new("name", Kind::Text)];
//! let mut lines = Ndjson::new(Layout::new(columns, Some("time"), Unit::Millis)?, 0);
//! let text = br#"{"time": "2026-01-01T00:00:12.345Z", "k": 17, "name": "cart", "unused": [1]}
//! {"time": "soon", "k": 18}
//! {"time": 1767225612345, "k": 1"#;
//! // The last line may go on, so it is not read before the end of the text is known.
//! let taken = lines.read(text, false, 100)?;
//! assert_eq!((taken.rows.batch.num_rows(), taken.rows.faults.len()), (1, 1));
//! let rest = lines.read(&text[taken.bytes..], true, 100)?;
//! assert_eq!(rest.rows.faults[0].to_string().split(':').next(), Some("corrupt row at byte 103"));
//! # Ok::<(), formats::Error>(())
//! ```

mod columns;
mod csv;
mod csv_writer;
mod instant;
mod layout;
mod ndjson;
mod nexmark;
mod parquet;
mod rows;

pub use self::parquet::{FOOTER_BYTES_MAX, Parquet, ParquetWriter};
pub use csv::Csv;
pub use csv_writer::CsvWriter;
pub use layout::{Column, Kind, Layout, TIME_COLUMN, Unit};
pub use ndjson::Ndjson;
pub use nexmark::{Nexmark, Table};
pub use rows::{FAULT_TEXT_BYTES_MAX, Fault, FaultKind, LINE_BYTES_MAX, Rows, Taken};

/// What is wrong with what a reader is asked for; what is wrong with a row is a [`Fault`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The declared columns do not fit the format.
    #[error("columns: {0}")]
    Schema(String),
    /// A column operation failed.
    #[error("column operation failed")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The file is no Parquet file, or a damaged one.
    #[error("not readable as Parquet")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}
