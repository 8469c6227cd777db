//! Compaction, the work: reads the chunks that [`plan`] names, writes them as one, and lets the log replace them.
//!
//! Readers that were told the old chunks still find them: they are garbage, which stays for a while.
//!
//! Bounds: one merge at a time, of at most [`MERGE_MAX`] objects, a quarter of
//! `chunk_bytes_max` of them together, 128 MiB in memory, and [`CELLS_MAX`] cells of all columns of any; all computing is off the service's thread.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Bound,
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use chunk::Origin;
use tracing::{debug, error};
use types::SegmentId;
use wire::segment_store::ChunkMeta;

use crate::{
    container::{
        columns::{CELLS_MAX, Chunk, unite},
        compaction::{MERGE_MAX, Part, Rule, plan},
        frame::Entry,
        state::{GARBAGE_MAX, Segment, State},
        tier2::{Home, Tier2},
    },
    crash,
    error::Error,
    metrics,
};

/// Rows of a chunk: eight row groups.
const ROWS_MAX: u64 = 8 * 65_536;
/// What the inputs of a merge may take in memory; one that is larger alone is left as it is.
const DECODED_BYTES_MAX: usize = 128 << 20;
/// Segments looked at per round besides those that changed.
const LOOKS_MAX: usize = 256;
/// Chunks remembered as not to be touched; beyond it they are forgotten and looked at again.
const SOLID_MAX: usize = 10_000;

/// Compacts the segments of one container.
pub(crate) struct Compactor {
    tier2: Tier2,
    rule: Rule,
    /// Chunks that are left as they are: unreadable, or large in memory.
    solid: HashSet<String>,
    /// Segments that got a chunk.
    changed: BTreeSet<SegmentId>,
    /// Where the walk through all segments is.
    at: Option<SegmentId>,
}

/// Neighbouring chunks to merge.
#[derive(Debug)]
struct Job {
    segment: SegmentId,
    home: Home,
    chunks: Vec<ChunkMeta>,
}

/// What came of reading and joining chunks.
#[derive(Debug)]
struct Merged {
    chunk: Chunk,
    /// How many of the inputs it holds, from the first on.
    used: usize,
}

/// Why chunks were not merged.
#[derive(Debug)]
enum Fault {
    /// An input is too large in memory to be joined with the next.
    Large(usize),
    /// An input cannot be read.
    Unreadable(usize, String),
    /// The result cannot be written.
    Result(String),
}

impl Compactor {
    pub(crate) fn new(tier2: Tier2) -> Self {
        let rule = Rule { rows_max: ROWS_MAX, bytes_max: tier2.container.limits.chunk_bytes_max / 4 };
        Self { tier2, rule, solid: HashSet::new(), changed: BTreeSet::new(), at: None }
    }

    /// Takes note that a segment got a chunk.
    pub(crate) fn note(&mut self, segment: SegmentId) {
        self.changed.insert(segment);
    }

    /// Does one merge, if one is due; says whether it did.
    pub(crate) async fn step(&mut self) -> Result<bool, Error> {
        let Some(job) = self.find() else { return Ok(false) };
        let mut inputs = Vec::with_capacity(job.chunks.len());
        for meta in &job.chunks {
            let why = match self.tier2.get(&meta.key).await {
                Ok(Some(bytes)) => {
                    inputs.push((meta.clone(), bytes));
                    continue;
                }
                Ok(None) => "the object is gone".to_owned(),
                Err(Error::Sealed(why)) => why,
                Err(error) => return Err(error),
            };
            self.leave_out(&meta.key, &why);
            return Ok(true);
        }
        let segment = job.segment;
        let origin = self.tier2.container.origin(segment);
        match self.tier2.host.cpu(move || merge(segment, origin.as_ref(), inputs, CELLS_MAX)).await {
            Ok(merged) => self.replace(&job, merged).await?,
            Err(Fault::Large(at)) => drop(self.solid.insert(job.chunks[at].key.clone())),
            Err(Fault::Unreadable(at, why)) => self.leave_out(&job.chunks[at].key, &why),
            Err(Fault::Result(why)) => self.leave_out(&job.chunks[0].key, &why),
        }
        Ok(true)
    }

    fn find(&mut self) -> Option<Job> {
        if self.solid.len() > SOLID_MAX {
            self.solid.clear();
        }
        let container = self.tier2.container.clone();
        let books = container.books.read();
        if books.state.garbage.len() + MERGE_MAX > GARBAGE_MAX {
            return None;
        }
        while let Some(segment) = self.changed.first().copied() {
            match self.job(&books.state, segment) {
                // It stays until nothing is left to do.
                Some(job) => return Some(job),
                None => drop(self.changed.remove(&segment)),
            }
        }
        for _ in 0..LOOKS_MAX {
            let after = self.at.map_or(Bound::Unbounded, Bound::Excluded);
            self.at = books.state.segments.range((after, Bound::Unbounded)).next().map(|(segment, _)| *segment);
            let job = self.at.and_then(|segment| self.job(&books.state, segment));
            if job.is_some() {
                return job;
            }
            if self.at.is_none() {
                break;
            }
        }
        None
    }

    fn job(&self, state: &State, segment: SegmentId) -> Option<Job> {
        let known = state.segments.get(&segment)?;
        let parts: Vec<Part> = known.chunks.iter().map(|chunk| self.part(known, chunk)).collect();
        let closed = known.sealed && known.tail_from == known.end;
        let range = plan(&parts, closed, self.rule)?;
        Some(Job { segment, home: Home::of(known), chunks: known.chunks[range].to_vec() })
    }

    fn part(&self, segment: &Segment, chunk: &ChunkMeta) -> Part {
        // What begins below the start goes as a whole soon.
        let solid = chunk.from < segment.start || self.solid.contains(&chunk.key);
        Part::of(chunk, solid)
    }

    async fn replace(&mut self, job: &Job, merged: Merged) -> Result<(), Error> {
        let (tier2, segment) = (&self.tier2, job.segment);
        let Merged { chunk, used } = merged;
        let key = tier2.fresh_key(&job.home, segment, chunk.from);
        let meta = chunk.meta(key);
        match tier2.put(&meta.key, chunk.bytes).await {
            Err(Error::Sealed(why)) => {
                self.leave_out(&job.chunks[0].key, &why);
                return Ok(());
            }
            put => put?,
        }
        crash::point("after_compaction_put");
        let entry = Entry::ChunksReplaced { segment, meta: meta.clone(), at: tier2.container.clock.now() };
        if !tier2.commit(segment, &meta.key, &entry).await? {
            // The segment was truncated or deleted meanwhile.
            return Ok(());
        }
        crash::point("after_replaced");
        metrics::COMPACTIONS.inc();
        metrics::COMPACTED_CHUNKS.add(u64::try_from(used).unwrap_or(u64::MAX));
        debug!(%segment, from = meta.from, to = meta.to, chunks = used, bytes = meta.bytes, "chunks merged");
        if used < job.chunks.len() {
            // Memory was the limit, not the size: it would be read again and again.
            self.solid.insert(meta.key);
        }
        Ok(())
    }

    fn leave_out(&mut self, key: &str, why: &str) {
        error!(container = %self.tier2.container.id, key, why, "chunk cannot be compacted: restore the object from a copy");
        metrics::UNREADABLE_CHUNKS.inc();
        self.solid.insert(key.to_owned());
    }
}

/// Joins as many chunks, from the first on, as memory allows: at least two.
fn merge(
    segment: SegmentId,
    origin: Option<&Origin>,
    inputs: Vec<(ChunkMeta, Bytes)>,
    cells_max: usize,
) -> Result<Merged, Fault> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    // Columns that some have not are there in the others, empty.
    let (mut columns, mut rows) = (BTreeSet::new(), 0);
    let from = inputs.first().map_or(0, |(meta, _)| meta.from);
    let (mut used, mut decoded) = (0, 0);
    for (at, (meta, bytes)) in inputs.into_iter().enumerate() {
        let unreadable = |e: chunk::Error| Fault::Unreadable(at, e.to_string());
        let found = chunk::info(&bytes).map_err(unreadable)?;
        if (found.segment, found.first, found.last + 1) != (segment, meta.from, meta.to) {
            // Whole, and in the place of another.
            let chunk::ChunkInfo { segment, first, last, .. } = found;
            return Err(Fault::Unreadable(at, format!("it holds the events {first} to {last} of segment {segment}")));
        }
        columns.extend(found.schema.fields().iter().map(|field| field.name().clone()));
        rows += usize::try_from(found.rows).unwrap_or(usize::MAX);
        if rows.saturating_mul(columns.len()) > cells_max && at > 0 {
            break;
        }
        let read = chunk::read(bytes).map_err(unreadable)?;
        decoded += read.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        if decoded > DECODED_BYTES_MAX && at > 0 {
            break;
        }
        batches.extend(read);
        used = at + 1;
    }
    if used < 2 {
        return Err(Fault::Large(0));
    }
    let chunk = unite(segment, origin, from, batches).map_err(|e| Fault::Result(e.to_string()))?;
    Ok(Merged { chunk, used })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampNanosecondArray},
        datatypes::Int64Type,
    };
    use types::Timestamp;

    use super::*;

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    /// Ten rows with a column of their own.
    fn input(number: u64) -> (ChunkMeta, Bytes) {
        let (from, to) = (number * 10, number * 10 + 10);
        let each = || (from..to).map(|n| i64::try_from(n).unwrap());
        let text = |text: &str| Arc::new(StringArray::from(vec![text; 10])) as ArrayRef;
        // Later events have earlier times, and lie before others of their program.
        let times = TimestampNanosecondArray::from_iter_values(each().map(|n| 1_000 - n));
        let rows = RecordBatch::try_from_iter([
            ("_time", Arc::new(times) as ArrayRef),
            ("_received", Arc::new(TimestampNanosecondArray::from_iter_values(each()))),
            ("_msg", text("m")),
            ("severity", text("info")),
            ("_segment", text(&SEGMENT.to_string())),
            ("_offset", Arc::new(Int64Array::from_iter_values(each()))),
            (&format!("own-{number}"), Arc::new(Int64Array::from_iter_values(each()))),
            ("service", Arc::new(each().map(|n| Some(["a", "b"][usize::from(n % 3 == 0)])).collect::<StringArray>())),
        ]);
        let chunk = chunk::write(SEGMENT, from, &[rows.unwrap()]).unwrap();
        let (time_min, time_max) = (Timestamp::MIN, Timestamp::MAX);
        let meta = ChunkMeta { key: String::new(), from, to, bytes: chunk.bytes.len() as u64, time_min, time_max };
        (meta, chunk.bytes)
    }

    #[test]
    fn merged_chunks_give_back_the_order_of_events() {
        let merged = merge(SEGMENT, None, (0..4).map(input).collect(), CELLS_MAX).unwrap();
        assert_eq!((merged.used, merged.chunk.from, merged.chunk.to), (4, 0, 40));
        assert_eq!(chunk::info(&merged.chunk.bytes).unwrap().order.as_deref(), Some("service"));
        let read = chunk::read(merged.chunk.bytes).unwrap();
        let offsets: Vec<_> = read.iter().flat_map(|b| b["_offset"].as_primitive::<Int64Type>().values()).collect();
        assert!(offsets.into_iter().copied().eq(0..40));
    }

    #[test]
    fn chunks_with_many_columns_between_them_are_merged_as_far_as_memory_is_for() {
        // One has eight columns, each further one brings another: 80, 180, 300 and 440 cells.
        for (cells, used) in [(440, Some(4)), (439, Some(3)), (180, Some(2)), (179, None)] {
            let merged = merge(SEGMENT, None, (0..4).map(input).collect(), cells);
            assert_eq!(merged.as_ref().ok().map(|merged| merged.used), used, "{cells}: {merged:?}");
            assert!(merged.is_ok() || matches!(merged, Err(Fault::Large(0))));
        }
    }
}
