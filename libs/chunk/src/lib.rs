//! The Tier-2 file: consecutive events of one segment as one valid Parquet file; bytes in, bytes out.
//!
//! Owns the layout ([`write()`]), its reading back ([`read`], [`read_range`]), the summary in the footer ([`ChunkInfo`]),
//! the index of its row groups and how a reader opens it with one read of the end ([`Tail`]), the seal that finds every
//! damaged or missing byte before a decoder sees it, and how copies in exports and archives are called ([`copy_name`], [`part`]).
//! Deliberately does not know: object storage, names of the objects of an installation, how events become columns, queries.
//!
//! Any Parquet reader takes the file as it is. What is ours in it:
//! - The seal, in the gap after Parquet's leading magic that other readers skip: `LBCHUNK1`, the length of the file
//!   (8 bytes, little endian) and the CRC-32C (4 bytes, little endian) of all bytes but these four.
//! - The order of rows. Where a column names the program ([`KEY_COLUMNS`]), rows lie by it, then by `_time` and `_offset`, and
//!   the column `_offset` gives back the order of events. Else they lie in that order.
//! - Columns of which every value is a 128-bit id lie as sixteen bytes; readers here get their text back. Columns of times
//!   lie in milliseconds or microseconds where that says all of them; readers here get nanoseconds.
//! - The index region between the last row group and the footer: for each row group the least and greatest numbers and times,
//!   few values of a column as they are, a filter of tokens and a set of runs of three characters of other texts, a filter of
//!   ids, and a checksum of each column; and for the chunk, counters per minute and severity.
//! - Key-value metadata of the footer: `logboom.version`, `logboom.segment`, `logboom.first`, `logboom.last`,
//!   `logboom.time_min`, `logboom.time_max` (nanoseconds since 1970), `logboom.region` (where the region is, `start-end`);
//!   where there are any, `logboom.order` (the column by which rows lie) and `logboom.ids` (columns of ids and how these are
//!   written, JSON); where it is known, `logboom.index`, `logboom.scope` and `logboom.range` (two hashes in hexadecimal): where
//!   the segment belongs. Chunks of before lack these three, and so do those of segments that were created before.
//!
//! Version 2 has all times in nanoseconds. So has version 1, which has no region, keeps the order of events and ids as text,
//! and has its counters in the footer as JSON (`logboom.counters`). Both are read for ever.
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
mod cursor;
mod digest;
mod encode;
mod filter;
mod ids;
mod info;
mod layout;
mod order;
mod origin;
mod parts;
mod predicate;
mod read;
mod region;
mod seal;
mod tail;
mod text;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use types::{Offset, SegmentId};

pub use copy::{copied_range, copies_of, copy_name, part};
pub use counters::{CELLS_MAX, Counters};
pub use digest::{TOKENS_MAX, VALUES_BYTES_MAX, VALUES_MAX};
pub use encode::{Encoded, ROW_GROUP_ROWS, THOROUGH_ROWS, write, write_of};
pub use info::{ChunkInfo, VERSION, info};
pub use order::{KEY_COLUMNS, KEYS_MAX, SORT_BYTES_MAX};
pub use origin::Origin;
pub use predicate::{Comparison, Predicate, Scalar};
pub use read::{READ_BATCH_ROWS, read, read_range, read_rows, read_run};
pub use region::REGION_BYTES_MAX;
pub use tail::{Filter, Keep, Opened, Read, Tail, Zone, tail_bytes};

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
    /// A byte was changed in a part of a chunk that was read by itself.
    #[error("the {part} of the chunk is damaged: {why}: fetch it again, else restore the object")]
    Damaged {
        /// Which part.
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes of a chunk were asked for that were not handed in.
    #[error("the bytes {from} to {to} of the chunk were not handed in: fetch all ranges that it named")]
    Missing {
        /// The first of them.
        from: u64,
        /// The one behind the last.
        to: u64,
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
