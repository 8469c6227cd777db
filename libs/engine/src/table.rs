//! What a query reads: tables that consist of chunks and of rows that are in none yet.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use types::{Offset, SegmentId};
use wire::{Problem, segment_store::ChunkMeta};

use crate::Chunks;

/// Batches as they come; a problem ends them.
pub type BatchStream = BoxStream<'static, Result<RecordBatch, Problem>>;

/// Footers that are fetched at once for one table.
const FOOTERS_AT_ONCE: usize = 8;

/// Schemas that a further one is compared with.
const NEIGHBOURS: usize = 4;

/// A part of a table; each of its rows is in one part.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Rows of one chunk.
    Chunk(ChunkPiece),
    /// Rows in memory.
    Rows(RecordBatch),
}

/// The rows of a segment's chunk from an offset on.
#[derive(Debug, Clone)]
pub struct ChunkPiece {
    /// Where it is read.
    pub chunks: Chunks,
    /// The segment that it must be of.
    pub segment: SegmentId,
    /// Which one.
    pub chunk: ChunkMeta,
    /// The first offset that counts; those before it are truncated.
    pub from: Offset,
}

impl Piece {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Self::Chunk(piece) => piece.rows(),
            Self::Rows(batch) => u64::try_from(batch.num_rows()).unwrap_or(u64::MAX),
        }
    }
}

impl ChunkPiece {
    /// How many rows there are from the offset on.
    pub(crate) fn rows(&self) -> u64 {
        self.chunk.to.saturating_sub(self.from.max(self.chunk.from))
    }
}

/// A table at one instant: asking it twice gives the same pieces.
#[async_trait]
pub trait TableSource: fmt::Debug + Send + Sync + 'static {
    /// All of it.
    fn pieces(&self) -> Vec<Piece>;

    /// The schemas of all its pieces; together they are the columns that a query may name. Empty for a table without rows.
    async fn schemas(&self) -> Result<Vec<SchemaRef>, Problem> {
        let (mut schemas, mut unknown): (Vec<SchemaRef>, Vec<ChunkPiece>) = (Vec::new(), Vec::new());
        // Most neighbours are of the same columns, and those of chunks that were seen before have the same schema.
        let mut add = |schema: SchemaRef| {
            if !schemas.iter().rev().take(NEIGHBOURS).any(|known| Arc::ptr_eq(known, &schema) || *known == schema) {
                schemas.push(schema);
            }
        };
        for piece in self.pieces() {
            match piece {
                Piece::Rows(batch) => add(batch.schema()),
                Piece::Chunk(piece) => match piece.chunks.schema_known(&piece.chunk) {
                    Some(schema) => add(schema),
                    None => unknown.push(piece),
                },
            }
        }
        let of = |piece: ChunkPiece| async move { piece.chunks.schema(&piece.chunk).await };
        let found: Vec<SchemaRef> = stream::iter(unknown).map(of).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        found.into_iter().for_each(add);
        Ok(schemas)
    }
}

/// A table of batches in memory.
#[derive(Debug, Clone)]
pub struct Rows(Vec<RecordBatch>);

impl Rows {
    /// A table of these batches, whose schemas may differ.
    pub fn new(batches: Vec<RecordBatch>) -> Self {
        Self(batches)
    }
}

impl TableSource for Rows {
    fn pieces(&self) -> Vec<Piece> {
        self.0.iter().cloned().map(Piece::Rows).collect()
    }
}

/// The bytes of a batch's own rows. Columns that came from one message or were sliced share a buffer, which each of them
/// would count whole.
pub(crate) fn rows_bytes(batch: &RecordBatch) -> usize {
    let own = |column: &arrow::array::ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(own).sum()
}
