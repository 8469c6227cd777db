//! Chunks of Tier 2 as they are fetched: what stands at their ends once, their bytes in blocks, both kept within a bound.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::datatypes::SchemaRef;
use bytes::{Bytes, BytesMut};
use chunk::{Opened, Tail};
use parking_lot::Mutex;
use store::Objects;
use wire::{Problem, segment_store::ChunkMeta};

use crate::cache::Cache;

/// Schemas that are kept in memory; beyond it the older half is forgotten.
pub const SCHEMAS_KEPT_MAX: usize = 4_096;

/// Bytes of chunks that are kept where nobody says otherwise.
pub const CHUNK_CACHE_BYTES: usize = 256 << 20;

/// What is fetched and kept as one: few requests for what lies together, little that nobody asked for. Chunks of the
/// storage writer are mostly one block.
const BLOCK_BYTES: u64 = 1 << 20;

/// How often more of a chunk's end is fetched than was guessed: the chunk says how much, so twice is a damaged one.
const ENDS_MAX: usize = 3;

/// A chunk's end takes about twice its bytes once it is read.
const TAIL_FACTOR: usize = 2;

/// The first version of which each column carries a checksum; older ones are checked as a whole.
const CHECKED_BY_COLUMN: u32 = 2;

/// Reads chunks from object storage and remembers parts of them, which never change; clones share them.
#[derive(Clone)]
pub struct Chunks {
    objects: Objects,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    /// By key; each counts as one.
    schemas: Cache<String, SchemaRef>,
    /// By key and place.
    parts: Cache<(String, Part), Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    End,
    Block(u64),
}

#[derive(Clone)]
enum Entry {
    Tail(Arc<Tail>),
    Block(Bytes),
}

/// Bytes of a chunk.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// Each with its place in the object.
    pub(crate) parts: Vec<(u64, Bytes)>,
    /// How many of them came from object storage, not from memory.
    pub(crate) fetched_bytes: u64,
    /// In how many requests.
    pub(crate) requests: u64,
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// Reads from there and keeps [`CHUNK_CACHE_BYTES`].
    pub fn new(objects: Objects) -> Self {
        Self::with_cache(objects, CHUNK_CACHE_BYTES)
    }

    /// Reads from there and keeps at most so many bytes.
    pub fn with_cache(objects: Objects, bytes_max: usize) -> Self {
        let kept = Kept { schemas: Cache::new(SCHEMAS_KEPT_MAX), parts: Cache::new(bytes_max) };
        Self { objects, kept: Arc::new(Mutex::new(kept)) }
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> &Arc<impl Sized> {
        &self.kept
    }

    #[cfg(test)]
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The columns of a chunk; fetches its end the first time.
    pub async fn schema(&self, chunk: &ChunkMeta) -> Result<SchemaRef, Problem> {
        if let Some(schema) = self.kept.lock().schemas.get(&chunk.key) {
            return Ok(schema);
        }
        let schema = Arc::clone(&self.tail(chunk).await?.info().schema);
        self.kept.lock().schemas.put(chunk.key.clone(), Arc::clone(&schema), 1);
        Ok(schema)
    }

    /// What stands at a chunk's end.
    pub(crate) async fn tail(&self, chunk: &ChunkMeta) -> Result<Arc<Tail>, Problem> {
        let key = (chunk.key.clone(), Part::End);
        if let Some(Entry::Tail(tail)) = self.kept.lock().parts.get(&key) {
            return Ok(tail);
        }
        let mut wanted = chunk::tail_bytes(chunk.bytes);
        for _ in 0..ENDS_MAX {
            let wanted_now = wanted.min(chunk.bytes);
            let end = self.range(chunk, chunk.bytes - wanted_now..chunk.bytes).await?;
            let length = end.len();
            match Tail::open(end, chunk.bytes).map_err(|error| damaged(chunk, &error))? {
                Opened::Tail(tail) => {
                    let tail = Arc::<Tail>::from(tail);
                    if tail.info().version < CHECKED_BY_COLUMN {
                        // Nothing else proves what its end says.
                        self.whole(chunk).await?;
                    }
                    let entry = Entry::Tail(Arc::clone(&tail));
                    self.kept.lock().parts.put(key, entry, TAIL_FACTOR * length);
                    return Ok(tail);
                }
                Opened::Needs(more) => wanted = more,
            }
        }
        Err(damaged(chunk, &format_args!("its end asks for more than {wanted} bytes")))
    }

    /// Bytes of a chunk: one piece for each of the ranges, which ascend, or the whole.
    pub(crate) async fn fetch(
        &self,
        chunk: &ChunkMeta,
        tail: &Tail,
        ranges: &[Range<u64>],
    ) -> Result<Fetched, Problem> {
        let mut wanted: Vec<u64> = ranges.iter().flat_map(blocks).collect();
        wanted.dedup();
        let mut found: BTreeMap<u64, Bytes> = BTreeMap::new();
        {
            let mut kept = self.kept.lock();
            for block in &wanted {
                if let Some(Entry::Block(bytes)) = kept.parts.get(&(chunk.key.clone(), Part::Block(*block))) {
                    found.insert(*block, bytes);
                }
            }
        }
        wanted.retain(|block| !found.contains_key(block));
        if !wanted.is_empty() && tail.info().version < CHECKED_BY_COLUMN {
            return self.whole(chunk).await;
        }
        let (mut fetched_bytes, mut requests) = (0, 0);
        // Neighbours come with one request.
        for run in wanted.chunk_by(|one, next| one + 1 == *next) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = first * BLOCK_BYTES..((last + 1) * BLOCK_BYTES).min(chunk.bytes);
            fetched_bytes += range.end - range.start;
            requests += 1;
            let bytes = self.range(chunk, range).await?;
            found.extend(self.keep(chunk, *first, &bytes));
        }
        let pieces = ranges.iter().filter_map(|range| Some((range.start, piece(&found, range)?)));
        Ok(Fetched { parts: pieces.collect(), fetched_bytes, requests })
    }

    /// The whole object, which its seal has been found to be.
    async fn whole(&self, chunk: &ChunkMeta) -> Result<Fetched, Problem> {
        let bytes = self.objects.get(&chunk.key).await.map_err(|error| unreadable(chunk, &error))?;
        chunk::info(&bytes).map_err(|error| damaged(chunk, &error))?;
        drop(self.keep(chunk, 0, &bytes));
        let fetched_bytes = u64::try_from(bytes.len()).unwrap_or(0);
        Ok(Fetched { parts: vec![(0, bytes)], fetched_bytes, requests: 1 })
    }

    /// Keeps the bytes of some blocks that follow one another.
    fn keep(&self, chunk: &ChunkMeta, first: u64, bytes: &Bytes) -> Vec<(u64, Bytes)> {
        let size = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        let part = |from: usize| match &bytes[from..bytes.len().min(from + size)] {
            all if all.len() == bytes.len() => bytes.clone(),
            // A slice would keep all of its neighbours for as long as it is kept itself.
            part => Bytes::copy_from_slice(part),
        };
        let parts: Vec<(u64, Bytes)> = (first..).zip((0..bytes.len()).step_by(size).map(part)).collect();
        let mut kept = self.kept.lock();
        for (block, part) in &parts {
            kept.parts.put((chunk.key.clone(), Part::Block(*block)), Entry::Block(part.clone()), part.len());
        }
        parts
    }

    async fn range(&self, chunk: &ChunkMeta, range: Range<u64>) -> Result<Bytes, Problem> {
        self.objects.get_range(&chunk.key, range).await.map_err(|error| unreadable(chunk, &error))
    }
}

/// The blocks that hold a range.
fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

/// The bytes of a range out of its blocks; copied only where it goes over the end of one.
fn piece(found: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Option<Bytes> {
    let part = |block: u64| {
        let start = block * BLOCK_BYTES;
        let bytes = found.get(&block)?;
        let from = usize::try_from(range.start.saturating_sub(start)).ok()?;
        let to = usize::try_from(range.end - start).ok()?.min(bytes.len());
        Some(bytes.slice(from.min(to)..to))
    };
    let blocks = blocks(range);
    if blocks.end - blocks.start == 1 {
        return part(blocks.start);
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(range.end - range.start).ok()?);
    for block in blocks {
        whole.extend_from_slice(&part(block)?);
    }
    Some(whole.freeze())
}

fn unreadable(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("ChunkUnreadable", format_args!("chunk {} cannot be fetched: {error}", chunk.key))
}

pub(crate) fn damaged(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::internal(format_args!("chunk {} cannot be read: {error}", chunk.key))
}
