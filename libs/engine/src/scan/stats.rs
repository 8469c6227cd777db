//! What the scans of a query have looked at and left out, and why.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wire::Problem;

use crate::Piece;

/// What became of the chunks and row groups of a query's tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScanStats {
    /// Chunks of all tables; one that is read by two scans counts twice.
    pub chunks: u64,
    /// Those left out because no row in them can be of a time that the query asks for.
    pub chunks_by_time: u64,
    /// Those left out because their index knows that no row in them can pass the filters.
    pub chunks_by_index: u64,
    /// Those left out because enough later (or earlier) rows were found.
    pub chunks_by_order: u64,
    /// Those whose counters answered, so that no more of them than the edges was read.
    pub chunks_counted: u64,
    /// Row groups of the chunks that were opened.
    pub row_groups: u64,
    /// Those left out because the index knows that no row in them can pass the filters.
    pub row_groups_by_index: u64,
    /// Those that were not read because the same was asked of them before: no row passed, or no more than their number is wanted.
    pub row_groups_by_memory: u64,
    /// Those left out because enough later (or earlier) rows were found.
    pub row_groups_by_order: u64,
    /// Those that were read.
    pub row_groups_read: u64,
    /// Bytes of all chunks.
    pub chunk_bytes: u64,
    /// Bytes of columns that were decoded, as they lie in the chunks.
    pub chunk_bytes_read: u64,
    /// Bytes that came from object storage and not from memory; what stands at the ends of chunks is not counted.
    pub chunk_bytes_fetched: u64,
    /// In how many requests.
    pub requests: u64,
}

/// How far a query is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Chunks that were read or left out.
    pub chunks: u64,
    /// Chunks of all tables.
    pub chunks_total: u64,
    /// Bytes of chunks that were read or left out.
    pub bytes: u64,
    /// All of them.
    pub bytes_total: u64,
    /// Rows that were looked at.
    pub rows_scanned: u64,
}

/// Totals of a query, shared by its scans.
#[derive(Debug)]
pub(crate) struct Scanned {
    so_far: Mutex<Totals>,
    bytes_max: u64,
    /// For whom the threads are used.
    index: Arc<str>,
}

/// Rows and bytes besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) scan: ScanStats,
    progress: Progress,
}

impl Scanned {
    /// Nothing yet; the query may look at so many bytes, and its turns are those of this index.
    pub(crate) fn new(bytes_max: u64, index: &str) -> Self {
        Self { so_far: Mutex::default(), bytes_max, index: Arc::from(index) }
    }

    /// Whose turns it takes.
    pub(crate) fn index(&self) -> &Arc<str> {
        &self.index
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut ScanStats)) {
        change(&mut self.so_far.lock().scan);
    }

    /// Something that is to be read.
    pub(crate) fn expect(&self, piece: &Piece) {
        let progress = &mut self.so_far.lock().progress;
        if let Piece::Chunk(piece) = piece {
            progress.chunks_total += 1;
            progress.bytes_total += piece.chunk.bytes;
        }
    }

    /// So much of what is to be read is done, and of a chunk the rest.
    pub(crate) fn done(&self, bytes: u64, ends: bool) {
        let progress = &mut self.so_far.lock().progress;
        progress.bytes += bytes;
        progress.chunks += u64::from(ends);
    }

    /// Rows that are about to be looked at, of so many bytes.
    ///
    /// Errors: `QueryScanTooLarge` at the bound.
    pub(crate) fn look(&self, rows: u64, bytes: u64) -> Result<(), Problem> {
        let mut so_far = self.so_far.lock();
        so_far.rows += rows;
        so_far.bytes += bytes;
        if so_far.bytes <= self.bytes_max {
            return Ok(());
        }
        let message = format!(
            "the query reads more than {} bytes: narrow its time range, or look for something rarer",
            self.bytes_max
        );
        Err(Problem::bad_request("QueryScanTooLarge", message))
    }

    pub(crate) fn totals(&self) -> Totals {
        *self.so_far.lock()
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        let totals = self.totals();
        let Progress { chunks, chunks_total, bytes, bytes_total, .. } = totals.progress;
        // A table that is named twice is read twice.
        let (chunks, bytes) = (chunks.min(chunks_total), bytes.min(bytes_total));
        Progress { chunks, chunks_total, bytes, bytes_total, rows_scanned: totals.rows }
    }
}
