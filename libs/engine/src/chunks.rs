//! Chunks of Tier 2 as batches: their columns from the footer alone, their rows by column.

use std::{collections::HashMap, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parking_lot::Mutex;
use parquet::{
    arrow::parquet_to_arrow_schema,
    file::{
        FOOTER_SIZE,
        metadata::{FooterTail, ParquetMetaDataReader},
    },
};
use store::Objects;
use types::Offset;
use wire::{Problem, segment_store::ChunkMeta};

/// Schemas that are kept in memory; beyond it the older half is forgotten.
pub const SCHEMAS_KEPT_MAX: usize = 4_096;

/// What is fetched first of a chunk's end: the footer of a chunk with some hundred columns.
const FOOTER_GUESS: u64 = 64 << 10;

/// Reads chunks from object storage and remembers their schemas, which never change.
#[derive(Clone)]
pub struct Chunks {
    objects: Objects,
    schemas: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    young: HashMap<String, SchemaRef>,
    old: HashMap<String, SchemaRef>,
}

impl Kept {
    fn get(&mut self, key: &str) -> Option<SchemaRef> {
        if let Some(schema) = self.young.get(key) {
            return Some(Arc::clone(schema));
        }
        let schema = self.old.remove(key)?;
        self.put(key, Arc::clone(&schema));
        Some(schema)
    }

    fn put(&mut self, key: &str, schema: SchemaRef) {
        if self.young.len() >= SCHEMAS_KEPT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_owned(), schema);
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// Reads from there.
    pub fn new(objects: Objects) -> Self {
        Self { objects, schemas: Arc::default() }
    }

    /// The columns of a chunk; fetches its footer the first time.
    pub async fn schema(&self, chunk: &ChunkMeta) -> Result<SchemaRef, Problem> {
        if let Some(schema) = self.schemas.lock().get(&chunk.key) {
            return Ok(schema);
        }
        let damaged = |error: parquet::errors::ParquetError| {
            Problem::internal(format_args!("the footer of chunk {} cannot be read: {error}", chunk.key))
        };
        let mut wanted = chunk.bytes.min(FOOTER_GUESS);
        let mut end = self.tail(chunk, wanted).await?;
        let mark = end.len().checked_sub(FOOTER_SIZE).map(|at| &end[at..]);
        let mark: [u8; FOOTER_SIZE] = mark
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Problem::internal(format_args!("chunk {} is shorter than a footer", chunk.key)))?;
        let length = FooterTail::try_new(&mark).map_err(damaged)?.metadata_length();
        let needed = u64::try_from(length + FOOTER_SIZE).unwrap_or(u64::MAX);
        if needed > wanted {
            wanted = needed.min(chunk.bytes);
            end = self.tail(chunk, wanted).await?;
        }
        let from = end.len().saturating_sub(length + FOOTER_SIZE);
        let metadata = ParquetMetaDataReader::decode_metadata(&end[from..end.len() - FOOTER_SIZE]).map_err(damaged)?;
        let file = metadata.file_metadata();
        let schema =
            Arc::new(parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).map_err(damaged)?);
        // What stands in the footer besides the columns differs from chunk to chunk and is no part of a table's schema.
        let schema = Arc::new(schema.as_ref().clone().with_metadata(HashMap::new()));
        self.schemas.lock().put(&chunk.key, Arc::clone(&schema));
        Ok(schema)
    }

    async fn tail(&self, chunk: &ChunkMeta, bytes: u64) -> Result<bytes::Bytes, Problem> {
        let range = chunk.bytes - bytes..chunk.bytes;
        self.objects.get_range(&chunk.key, range).await.map_err(|error| unreadable(chunk, &error))
    }

    /// The rows of a chunk from an offset on, with the named columns or with all.
    pub async fn read(
        &self,
        chunk: &ChunkMeta,
        from: Offset,
        columns: Option<&[String]>,
    ) -> Result<Vec<RecordBatch>, Problem> {
        let bytes = self.objects.get(&chunk.key).await.map_err(|error| unreadable(chunk, &error))?;
        let columns = columns.map(<[String]>::to_vec);
        let key = chunk.key.clone();
        // Decoding takes milliseconds of CPU for each MiB, which would hold up every other task of the thread.
        tokio::task::spawn_blocking(move || chunk::read_range(bytes, from, columns.as_deref()))
            .await
            .map_err(|error| Problem::internal(format_args!("reading chunk {key} ended early: {error}")))?
            .map_err(|error| Problem::internal(format_args!("chunk {key} cannot be read: {error}")))
    }
}

fn unreadable(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("ChunkUnreadable", format_args!("chunk {} cannot be fetched: {error}", chunk.key))
}
