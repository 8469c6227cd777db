//! Chunks of Tier 2 as they are fetched: what stands at their ends once, their bytes in blocks, both kept within a bound.
//!
//! Queries that need the same of a chunk at the same time fetch it once.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use arrow::datatypes::{Fields, SchemaRef};
use bytes::{Bytes, BytesMut};
use chunk::{Opened, Tail};
use futures::{FutureExt, future::try_join_all};
use parking_lot::Mutex;
use store::{KeyError, Objects, StoreError};
use wire::{Problem, segment_store::ChunkMeta};

use crate::{
    cache::Cache,
    flights::{Flight, Flights},
    said::Said,
    turns::{Turn, Turns},
};

/// Schemas that are kept in memory; beyond it the older half is forgotten.
pub const SCHEMAS_KEPT_MAX: usize = 4_096;

/// Bytes of chunks that are kept where nobody says otherwise.
pub const CHUNK_CACHE_BYTES: usize = 256 << 20;

/// What is fetched and kept as one: few requests for what lies together, little that nobody asked for. Chunks of the
/// storage writer are mostly one block.
const BLOCK_BYTES: u64 = 1 << 20;

/// Requests for blocks of one chunk that are under way at once for one reader.
const REQUESTS_AT_ONCE: usize = 4;

/// Blocks that somebody waits for; beyond it those that nobody waits for any more are forgotten.
const COMING_MAX: usize = 8_192;

/// Decoding at the same time, where the number of cores is not known.
const TURNS_DEFAULT: usize = 2;

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
    said: Arc<Said>,
    turns: Turns,
}

struct Kept {
    /// By key; each counts as one.
    schemas: Cache<String, SchemaRef>,
    /// The same schema for all chunks of the same columns.
    known: Cache<Fields, SchemaRef>,
    /// By key and place.
    parts: Cache<(String, Part), Entry>,
    /// What is being fetched: ends by key, blocks by the number of their request.
    ends: Flights<String, Arc<Tail>>,
    blocks: Flights<u64, Bytes>,
    /// Of a block its request; one that all have given up is found to be gone when somebody asks for the block.
    coming: HashMap<(String, u64), Coming>,
    /// How many requests for blocks there were.
    requests: u64,
}

/// The request that brings a block.
#[derive(Debug, Clone, Copy)]
struct Coming {
    /// Its number, which no other one ever has.
    request: u64,
    /// The first block that it brings.
    first: u64,
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

    /// Reads from there and keeps at most so many bytes, and besides a little of what conditions said of them.
    pub fn with_cache(objects: Objects, bytes_max: usize) -> Self {
        let kept = Kept {
            schemas: Cache::new(SCHEMAS_KEPT_MAX),
            known: Cache::new(SCHEMAS_KEPT_MAX),
            parts: Cache::new(bytes_max),
            ends: Flights::default(),
            blocks: Flights::default(),
            coming: HashMap::new(),
            requests: 0,
        };
        let turns = Turns::new(std::thread::available_parallelism().map_or(TURNS_DEFAULT, usize::from));
        Self { objects, kept: Arc::new(Mutex::new(kept)), said: Arc::new(Said::beside(bytes_max)), turns }
    }

    /// What conditions have said of rows of chunks.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// A turn to decode something of so many bytes, for a query of an index.
    pub(crate) async fn turn(&self, index: &Arc<str>, bytes: u64) -> Turn {
        self.turns.take(index, bytes).await
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
        if let Some(schema) = self.schema_known(chunk) {
            return Ok(schema);
        }
        let tail = self.tail(chunk).await?;
        let mut kept = self.kept.lock();
        let own = &tail.info().schema;
        let schema = kept.known.get(own.fields()).unwrap_or_else(|| Arc::clone(own));
        kept.known.put(schema.fields().clone(), Arc::clone(&schema), 1);
        kept.schemas.put(chunk.key.clone(), Arc::clone(&schema), 1);
        Ok(schema)
    }

    /// The same without waiting, where it is known.
    pub(crate) fn schema_known(&self, chunk: &ChunkMeta) -> Option<SchemaRef> {
        self.kept.lock().schemas.get(&chunk.key)
    }

    /// What stands at a chunk's end.
    pub(crate) async fn tail(&self, chunk: &ChunkMeta) -> Result<Arc<Tail>, Problem> {
        let flight = {
            let mut kept = self.kept.lock();
            if let Some(Entry::Tail(tail)) = kept.parts.get(&(chunk.key.clone(), Part::End)) {
                return Ok(tail);
            }
            let (own, chunk) = (self.clone(), chunk.clone());
            kept.ends.join(&chunk.key.clone(), || {
                let opened = async move {
                    let opened = own.open(&chunk).await;
                    own.kept.lock().ends.end(&chunk.key);
                    opened
                };
                opened.boxed()
            })
        };
        flight.await
    }

    async fn open(&self, chunk: &ChunkMeta) -> Result<Arc<Tail>, Problem> {
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
                    self.kept.lock().parts.put((chunk.key.clone(), Part::End), entry, TAIL_FACTOR * length);
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
        let (mut flights, mut fetched_bytes, mut requests) = (BTreeMap::new(), 0, 0);
        let is_old;
        {
            let mut kept = self.kept.lock();
            let mut missing = Vec::new();
            for block in wanted {
                if let Some(Entry::Block(bytes)) = kept.parts.get(&(chunk.key.clone(), Part::Block(block))) {
                    found.insert(block, bytes);
                } else if let Some((coming, flight)) = kept.flight(&chunk.key, block) {
                    flights.insert(coming.request, (coming.first, flight));
                } else {
                    missing.push(block);
                }
            }
            is_old = !missing.is_empty() && tail.info().version < CHECKED_BY_COLUMN;
            // Neighbours come with one request.
            for run in missing.chunk_by(|one, next| one + 1 == *next).filter(|_| !is_old) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let range = first * BLOCK_BYTES..((last + 1) * BLOCK_BYTES).min(chunk.bytes);
                fetched_bytes += range.end - range.start;
                requests += 1;
                let (request, flight) = self.begin(&mut kept, chunk, run, range);
                flights.insert(request, (*first, flight));
            }
        }
        if is_old {
            return self.whole(chunk).await;
        }
        let (firsts, flights): (Vec<u64>, Vec<Flight<Bytes>>) = flights.into_values().unzip();
        let mut landed = Vec::with_capacity(flights.len());
        for some in flights.chunks(REQUESTS_AT_ONCE) {
            landed.extend(try_join_all(some.iter().cloned()).await?);
        }
        let size = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        for (first, bytes) in firsts.into_iter().zip(landed) {
            let parts = (0..bytes.len()).step_by(size).map(|from| bytes.slice(from..bytes.len().min(from + size)));
            found.extend((first..).zip(parts));
        }
        let part = |range: &Range<u64>| {
            let missing = || unreadable(chunk, &format_args!("bytes {} to {} did not come", range.start, range.end));
            piece(&found, range).map(|bytes| (range.start, bytes)).ok_or_else(missing)
        };
        let parts = ranges.iter().map(part).collect::<Result<_, Problem>>()?;
        Ok(Fetched { parts, fetched_bytes, requests })
    }

    /// Begins to fetch a run of blocks, by a request of a new number; whoever waits for it drives it.
    fn begin(&self, kept: &mut Kept, chunk: &ChunkMeta, run: &[u64], range: Range<u64>) -> (u64, Flight<Bytes>) {
        let first = run.first().copied().unwrap_or(0);
        kept.requests += 1;
        let request = kept.requests;
        if kept.coming.len() >= COMING_MAX {
            let blocks = &kept.blocks;
            kept.coming.retain(|_, coming| blocks.get(&coming.request).is_some());
        }
        for block in run {
            kept.coming.insert((chunk.key.clone(), *block), Coming { request, first });
        }
        let (own, chunk, run) = (self.clone(), chunk.clone(), run.to_vec());
        let flight = kept.blocks.join(&request, || {
            let fetched = async move {
                let bytes = own.range(&chunk, range).await;
                if let Ok(bytes) = &bytes {
                    own.keep(&chunk, first, bytes);
                }
                own.kept.lock().end(request, &chunk.key, &run);
                bytes
            };
            fetched.boxed()
        });
        (request, flight)
    }

    /// The whole object, which its seal has been found to be.
    async fn whole(&self, chunk: &ChunkMeta) -> Result<Fetched, Problem> {
        let bytes = self.objects.get(&chunk.key).await.map_err(|error| unfetched(chunk, &error))?;
        chunk::info(&bytes).map_err(|error| damaged(chunk, &error))?;
        self.keep(chunk, 0, &bytes);
        let fetched_bytes = u64::try_from(bytes.len()).unwrap_or(0);
        Ok(Fetched { parts: vec![(0, bytes)], fetched_bytes, requests: 1 })
    }

    /// Keeps the bytes of some blocks that follow one another.
    fn keep(&self, chunk: &ChunkMeta, first: u64, bytes: &Bytes) {
        let size = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        let part = |from: usize| match &bytes[from..bytes.len().min(from + size)] {
            all if all.len() == bytes.len() => bytes.clone(),
            // A slice would keep all of its neighbours for as long as it is kept itself.
            part => Bytes::copy_from_slice(part),
        };
        let parts: Vec<(u64, Bytes)> = (first..).zip((0..bytes.len()).step_by(size).map(part)).collect();
        let mut kept = self.kept.lock();
        for (block, part) in parts {
            let length = part.len();
            kept.parts.put((chunk.key.clone(), Part::Block(block)), Entry::Block(part), length);
        }
    }

    async fn range(&self, chunk: &ChunkMeta, range: Range<u64>) -> Result<Bytes, Problem> {
        self.objects.get_range(&chunk.key, range).await.map_err(|error| unfetched(chunk, &error))
    }
}

impl Kept {
    /// The request that brings a block.
    fn flight(&mut self, key: &str, block: u64) -> Option<(Coming, Flight<Bytes>)> {
        let own = (key.to_owned(), block);
        let coming = *self.coming.get(&own)?;
        let flight = self.blocks.get(&coming.request);
        if flight.is_none() {
            // Nobody waited for it to its end.
            self.coming.remove(&own);
        }
        flight.map(|flight| (coming, flight))
    }

    /// Forgets a request for some blocks that has ended, and nothing of those that bring the same blocks.
    fn end(&mut self, request: u64, key: &str, run: &[u64]) {
        self.blocks.end(&request);
        for block in run {
            let own = (key.to_owned(), *block);
            if self.coming.get(&own).is_some_and(|coming| coming.request == request) {
                self.coming.remove(&own);
            }
        }
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
        let to = usize::try_from((range.end - start).min(BLOCK_BYTES)).ok()?;
        // Less may have come than was asked for.
        (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
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

fn unfetched(chunk: &ChunkMeta, error: &StoreError) -> Problem {
    match error {
        StoreError::Key { source: KeyError::Gone(_), .. } => Problem::not_found("IndexKeyDestroyed", error),
        StoreError::Key { .. } => Problem::unavailable("IndexKeyUnavailable", error),
        StoreError::Sealed { .. } => damaged(chunk, error),
        _ => unreadable(chunk, error),
    }
}

fn unreadable(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("ChunkUnreadable", format_args!("chunk {} cannot be fetched: {error}", chunk.key))
}

pub(crate) fn damaged(chunk: &ChunkMeta, error: &dyn std::fmt::Display) -> Problem {
    Problem::internal(format_args!("chunk {} cannot be read: {error}", chunk.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stored(bytes: &[u8]) -> (Chunks, ChunkMeta, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", directory.path().display())).unwrap();
        objects.put_if_absent("one", Bytes::copy_from_slice(bytes)).await.unwrap();
        let info = chunk::info(&Bytes::copy_from_slice(bytes)).unwrap();
        let meta = ChunkMeta {
            key: "one".to_owned(),
            from: info.first,
            to: info.last + 1,
            bytes: u64::try_from(bytes.len()).unwrap(),
            time_min: info.time_min,
            time_max: info.time_max,
        };
        (Chunks::new(objects), meta, directory)
    }

    #[tokio::test]
    async fn what_several_need_at_once_is_fetched_once() {
        let (chunks, meta, directory) = stored(include_bytes!("../../chunk/testdata/v2.parquet")).await;
        let (one, other) = tokio::join!(chunks.tail(&meta), chunks.tail(&meta));
        let tail = one.unwrap();
        assert!(Arc::ptr_eq(&tail, &other.unwrap()), "one request");
        let whole = tail.ranges(&(0..tail.row_groups()).collect::<Vec<_>>(), None);
        let ask = || chunks.fetch(&meta, &tail, &whole);
        let (one, other, third) = tokio::join!(ask(), ask(), ask());
        let all = [one.unwrap(), other.unwrap(), third.unwrap()];
        assert_eq!(all.iter().map(|fetched| fetched.requests).sum::<u64>(), 1);
        assert!(all.iter().all(|fetched| fetched.parts == all[0].parts && !fetched.parts.is_empty()));
        // From now on it is in memory.
        std::fs::remove_file(directory.path().join("one")).unwrap();
        assert_eq!(ask().await.unwrap().requests, 0);
        assert!(chunks.kept.lock().coming.is_empty());
    }

    #[tokio::test]
    async fn a_request_is_not_taken_for_one_that_was_given_up() {
        let (chunks, meta, _directory) = stored(include_bytes!("../../chunk/testdata/v2.parquet")).await;
        let tail = chunks.tail(&meta).await.unwrap();
        let bytes = 3 * BLOCK_BYTES - 5;
        let body = Bytes::from(vec![7; usize::try_from(bytes).unwrap()]);
        chunks.objects.put_if_absent("large", body.clone()).await.unwrap();
        let large = ChunkMeta { key: "large".to_owned(), bytes, ..meta };
        let (whole, ten) = (0..bytes, 0..10);
        let (all, begin) = (std::slice::from_ref(&whole), std::slice::from_ref(&ten));
        let mut given_up = Box::pin(chunks.fetch(&large, &tail, all));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        // It begins where the other one did, and brings less.
        let mut short = Box::pin(chunks.fetch(&large, &tail, begin));
        assert!(futures::poll!(short.as_mut()).is_pending());
        let whole = chunks.fetch(&large, &tail, all).await.unwrap();
        assert_eq!(whole.parts, [(0, body.clone())]);
        assert_eq!(short.await.unwrap().parts, [(0, body.slice(0..10))]);
        assert!(chunks.kept.lock().coming.is_empty());
    }

    #[test]
    fn a_range_of_which_a_part_is_missing_is_none() {
        let block = Bytes::from(vec![1; usize::try_from(BLOCK_BYTES).unwrap()]);
        let mut found = BTreeMap::from([(0, block.clone()), (1, block.slice(..9))]);
        let over = BLOCK_BYTES - 2..BLOCK_BYTES + 9;
        assert_eq!(piece(&found, &over), Some(block.slice(..11)));
        assert_eq!(piece(&found, &(BLOCK_BYTES..BLOCK_BYTES + 10)), None, "less came than was asked for");
        assert_eq!(piece(&found, &(over.start..over.end + 1)), None);
        found.remove(&1);
        assert_eq!(piece(&found, &over), None);
    }

    #[tokio::test]
    async fn a_request_that_its_first_reader_gave_up_is_finished_by_the_next() {
        let (chunks, meta, directory) = stored(include_bytes!("../../chunk/testdata/v2.parquet")).await;
        let mut first = Box::pin(chunks.tail(&meta));
        drop(futures::poll!(first.as_mut()));
        let mut second = Box::pin(chunks.tail(&meta));
        let polled = futures::poll!(second.as_mut());
        drop(first);
        let tail = match polled {
            std::task::Poll::Ready(tail) => tail,
            std::task::Poll::Pending => second.await,
        };
        let tail = tail.unwrap();
        // One that all gave up is asked again.
        let ranges = tail.ranges(&[0], None);
        let mut given_up = Box::pin(chunks.fetch(&meta, &tail, &ranges));
        drop(futures::poll!(given_up.as_mut()));
        drop(given_up);
        assert!(!chunks.fetch(&meta, &tail, &ranges).await.unwrap().parts.is_empty());
        // What failed is asked again too, and each is told.
        std::fs::remove_file(directory.path().join("one")).unwrap();
        let other = ChunkMeta { key: "two".to_owned(), ..meta };
        let (one, two) = tokio::join!(chunks.tail(&other), chunks.tail(&other));
        assert!(one.is_err() && two.is_err());
        let file = include_bytes!("../../chunk/testdata/v2.parquet");
        chunks.objects.put_if_absent("two", Bytes::from_static(file)).await.unwrap();
        assert!(chunks.tail(&other).await.is_ok());
    }
}
