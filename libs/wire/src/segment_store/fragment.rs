//! Parts of queries that run beside the rows they read.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, Offset, SegmentId};

/// The most bytes that one fragment answers, all parts together; what is more is read as rows by who asks.
pub const FRAGMENT_BYTES_MAX: usize = 4 << 20;

/// The most bytes of one part: what a message of NATS carries everywhere.
pub const FRAGMENT_PART_BYTES_MAX: usize = 768 << 10;

/// The most runs of rows that one fragment reads.
pub const FRAGMENT_RUNS_MAX: usize = 4_096;

/// The most bytes of a fragment's text.
pub const FRAGMENT_TEXT_MAX: usize = 64 << 10;

/// Rows of one segment, by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRun {
    /// The container that owns the segment; its replica must be the one that is asked.
    pub container: ContainerId,
    /// The segment.
    pub segment: SegmentId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last; these rows are there already.
    pub to: Offset,
}

/// Rows of which the columns are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsOf {
    /// The index that all segments belong to.
    pub index: IndexName,
    /// Which rows; at most [`FRAGMENT_RUNS_MAX`].
    pub runs: Vec<RowRun>,
}

/// The columns of some rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowColumns {
    /// An Arrow IPC stream without rows: its schema is that of all of them together.
    pub schema: Bytes,
}

/// A part of a query: a text, and the rows that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Chosen by who asks; asking again under the same id begins nothing again.
    pub id: String,
    /// The index, which is the only table of the text.
    pub index: IndexName,
    /// One `SELECT`; at most [`FRAGMENT_TEXT_MAX`].
    pub text: String,
    /// The columns that the text may name, as an Arrow IPC stream without rows; those of all rows of the query, so that
    /// every fragment of it understands them alike.
    pub schema: Bytes,
    /// Which rows; at most [`FRAGMENT_RUNS_MAX`].
    pub runs: Vec<RowRun>,
    /// Bytes that it may look at.
    pub scan_bytes: u64,
    /// Time that it may take.
    pub within_ms: u32,
    /// How long this request may wait for the answer: up to 2 000 ms.
    pub wait_ms: u32,
}

/// Asks for a part of a fragment's answer; nobody who asks for 5 s ends the fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentPart {
    /// The fragment.
    pub id: String,
    /// Which part, from 0 on.
    pub part: u32,
    /// How long to wait for it: up to 2 000 ms.
    pub wait_ms: u32,
}

/// A part of a fragment's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentAnswer {
    /// Whether it has come to its end; if not, everything else is empty, and it is to be asked again.
    pub ready: bool,
    /// Bytes of one Arrow IPC stream; all parts together are the stream.
    #[serde(default)]
    pub part: Bytes,
    /// How many parts there are.
    #[serde(default)]
    pub parts: u32,
    /// Rows that were looked at.
    #[serde(default)]
    pub rows_scanned: u64,
    /// Bytes of their columns.
    #[serde(default)]
    pub bytes_scanned: u64,
    /// What was read and what was left out, by the names that statistics of a query have.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}
