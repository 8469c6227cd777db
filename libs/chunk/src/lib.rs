//! The Tier-2 file: consecutive events of one segment as one valid Parquet file; bytes in, bytes out.
//!
//! Owns the layout ([`write()`]), its reading back ([`read`], [`read_range`]), the summary in the footer ([`ChunkInfo`]),
//! the seal that finds every damaged or missing byte before a decoder sees it, and how copies in exports and archives are called
//! ([`copy_name`], [`part`]).
//! Deliberately does not know: object storage, names of the objects of an installation, how events become columns, queries.
//!
//! Any Parquet reader takes the file as it is. What is ours in it:
//! - The seal, in the gap after Parquet's leading magic that other readers skip: `LBCHUNK1`, the length of the file
//!   (8 bytes, little endian) and the CRC-32C (4 bytes, little endian) of all bytes but these four.
//! - Key-value metadata of the footer: `logboom.version`, `logboom.segment`, `logboom.first`, `logboom.last`,
//!   `logboom.time_min`, `logboom.time_max` (nanoseconds since 1970) and `logboom.counters` (JSON); where it is known,
//!   `logboom.index`, `logboom.scope` and `logboom.range` (two hashes in hexadecimal): where the segment belongs. Chunks of
//!   before lack these three, and so do those of segments that were created before.
//!
//! ```
//! use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
//! use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
//! use std::sync::Arc;
//! use types::SegmentId;
//!
//! let time = || DataType::Timestamp(TimeUnit::Nanosecond, None);
//! let schema = Arc::new(Schema::new(vec![
//!     Field::new("_time", time(), false),
//!     Field::new("severity", DataType::Utf8, true),
//!     Field::new("_segment", DataType::Utf8, false),
//!     Field::new("_offset", DataType::Int64, false),
//! ]));
//! let batch = RecordBatch::try_new(schema, vec![
//!     Arc::new(TimestampNanosecondArray::from(vec![5, 7])),
//!     Arc::new(StringArray::from(vec![Some("error"), None])),
//!     Arc::new(StringArray::from(vec!["1-0-0", "1-0-0"])),
//!     Arc::new(Int64Array::from(vec![40, 41])),
//! ])?;
//! let chunk = chunk::write(SegmentId { stream: 1, epoch: 0, number: 0 }, 40, &[batch.clone()])?;
//! assert_eq!(chunk::info(&chunk.bytes)?, chunk.meta);
//! assert_eq!(chunk::read(chunk.bytes.clone())?, [batch.clone()]);
//! assert_eq!(chunk::read_range(chunk.bytes, 41, None)?, [batch.slice(1, 1)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod copy;
mod counters;
mod encode;
mod info;
mod origin;
mod read;
mod seal;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use types::{Offset, SegmentId};

pub use copy::{copied_range, copies_of, copy_name, part};
pub use counters::{CELLS_MAX, Counters};
pub use encode::{Encoded, ROW_GROUP_ROWS, write, write_of};
pub use info::{ChunkInfo, VERSION, info};
pub use origin::Origin;
pub use read::{READ_BATCH_ROWS, read, read_range, read_rows, read_run};

/// Says why a chunk could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to write.
    #[error("a chunk holds at least one event: all batches are empty")]
    Empty,
    /// A column that every chunk needs is absent, nullable in fact, or of another type.
    #[error("batch {batch} needs a column {column:?} of {expected} without nulls")]
    Column {
        /// Which of the given batches, from 0.
        batch: usize,
        /// The column.
        column: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
    /// The batches do not have one schema.
    #[error("batch {batch} has other columns than the first one: conform all batches to one schema before writing")]
    Schema {
        /// Which of the given batches, from 0.
        batch: usize,
    },
    /// A row belongs to another segment.
    #[error("the event at offset {offset} is of segment {found:?}, the chunk of {expected}")]
    Segment {
        /// The event's offset.
        offset: Offset,
        /// What its `_segment` says.
        found: String,
        /// The chunk's segment.
        expected: SegmentId,
    },
    /// The offsets are not consecutive.
    #[error("offset {found} stands where {expected} belongs: a chunk holds consecutive events in order")]
    Gap {
        /// The offset that belongs there.
        expected: Offset,
        /// The offset that stands there.
        found: i64,
    },
    /// The bytes are no chunk at all.
    #[error("not a chunk: {0}")]
    Foreign(&'static str),
    /// Bytes are missing or were added.
    #[error("the chunk is {found} bytes long and was written with {expected}: fetch it again, else restore the object")]
    Length {
        /// The length that the seal states.
        expected: u64,
        /// The length of the bytes given.
        found: u64,
    },
    /// A byte was changed.
    #[error(
        "the chunk's checksum is {found:08x} and was written as {expected:08x}: fetch it again, else restore the object"
    )]
    Checksum {
        /// The checksum that the seal states.
        expected: u32,
        /// The checksum of the bytes given.
        found: u32,
    },
    /// A later version of the program wrote the chunk.
    #[error("the chunk has version {found}, this program reads up to {VERSION}: upgrade it")]
    Version {
        /// The version that the footer states.
        found: String,
    },
    /// The footer's summary is absent or contradicts the rest.
    #[error("the chunk's footer has no valid {key:?}: {reason}")]
    Summary {
        /// The key of the footer.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Parquet could not encode or decode.
    #[error("parquet failed on the chunk")]
    Parquet(#[from] ParquetError),
    /// Arrow could not build a batch.
    #[error("arrow failed on the chunk")]
    Arrow(#[from] ArrowError),
}
