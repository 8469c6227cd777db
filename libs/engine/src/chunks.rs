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
use types::{Offset, SegmentId};
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

    /// The rows of a segment's chunk from an offset on, with the named columns or with all.
    pub async fn read(
        &self,
        segment: SegmentId,
        chunk: &ChunkMeta,
        from: Offset,
        columns: Option<&[String]>,
    ) -> Result<Vec<RecordBatch>, Problem> {
        let bytes = self.objects.get(&chunk.key).await.map_err(|error| unreadable(chunk, &error))?;
        let columns = columns.map(<[String]>::to_vec);
        let (key, run) = (chunk.key.clone(), from..chunk.to);
        // Decoding takes milliseconds of CPU for each MiB, which would hold up every other task of the thread.
        tokio::task::spawn_blocking(move || chunk::read_run(bytes, segment, run, columns.as_deref()))
            .await
            .map_err(|error| Problem::internal(format_args!("reading chunk {key} ended early: {error}")))?
            .map_err(|error| Problem::internal(format_args!("chunk {key} cannot be read: {error}")))
    }
}

fn unreadable(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("ChunkUnreadable", format_args!("chunk {} cannot be fetched: {error}", chunk.key))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};
    use types::Timestamp;

    use super::*;

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    async fn stored(columns: usize) -> (tempfile::TempDir, Chunks, ChunkMeta) {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", directory.path().display())).unwrap();
        let ints = || Arc::new(Int64Array::from(vec![0, 1])) as ArrayRef;
        let mut batch: Vec<(String, ArrayRef)> = vec![
            ("_time".into(), Arc::new(TimestampNanosecondArray::from(vec![5, 7]))),
            ("severity".into(), Arc::new(StringArray::from(vec!["info", "warn"]))),
            ("_segment".into(), Arc::new(StringArray::from(vec!["1-0-0", "1-0-0"]))),
            ("_offset".into(), ints()),
        ];
        batch.extend((0..columns).map(|i| (format!("a_rather_long_column_name_{i}"), ints())));
        let batch = RecordBatch::try_from_iter(batch).unwrap();
        let encoded = chunk::write(SEGMENT, 0, &[batch]).unwrap();
        let meta = ChunkMeta {
            key: "c/1".into(),
            from: 0,
            to: 2,
            bytes: u64::try_from(encoded.bytes.len()).unwrap(),
            time_min: Timestamp::from_nanos(5),
            time_max: Timestamp::from_nanos(7),
        };
        objects.put_if_absent("c/1", encoded.bytes).await.unwrap();
        (directory, Chunks::new(objects), meta)
    }

    #[tokio::test]
    async fn the_footer_alone_tells_the_columns_however_long_it_is() {
        // The second one's footer is longer than the first guess.
        for columns in [1, 900] {
            let (directory, chunks, meta) = stored(columns).await;
            assert_eq!(chunks.schema(&meta).await.unwrap().fields().len(), 4 + columns);
            drop(directory);
            assert_eq!(chunks.schema(&meta).await.unwrap().fields().len(), 4 + columns, "remembered");
            assert_eq!(chunks.read(SEGMENT, &meta, 0, None).await.unwrap_err().kind, "ChunkUnreadable");
        }
    }

    #[tokio::test]
    async fn rows_are_read_by_column_from_an_offset_on() {
        let (_directory, chunks, meta) = stored(1).await;
        let names = ["_offset".to_owned(), "no_such".to_owned()];
        let rows = chunks.read(SEGMENT, &meta, 1, Some(&names)).await.unwrap();
        assert_eq!((rows[0].num_rows(), rows[0].num_columns()), (1, 1));
        let schema = chunks.read(SEGMENT, &meta, 0, None).await.unwrap()[0].schema();
        assert_eq!(schema, chunks.schema(&meta).await.unwrap(), "the footer and the rows agree");
    }

    #[test]
    fn remembered_schemas_are_bounded() {
        let mut kept = Kept::default();
        let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::empty());
        for i in 0..3 * SCHEMAS_KEPT_MAX {
            kept.put(&i.to_string(), Arc::clone(&schema));
            kept.get("0");
        }
        assert!(kept.young.len() + kept.old.len() <= SCHEMAS_KEPT_MAX);
        assert!(kept.get("0").is_some(), "what is used stays");
    }
}
