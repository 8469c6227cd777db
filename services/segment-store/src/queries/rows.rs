//! The rows of a fragment: chunks by the books of their containers, and the tail as columns.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::{
    array::{Int64Array, RecordBatch},
    compute::{filter_record_batch, kernels::cmp::lt},
    error::ArrowError,
};
use engine::{ChunkPiece, Chunks, Piece};
use futures::{StreamExt, TryStreamExt, stream};
use ingest::BASE_COLUMNS;
use moka::sync::Cache;
use store::Objects;
use types::{IndexName, Offset, SegmentId};
use wire::{
    Problem,
    segment_store::{ChunkMeta, RowRun},
};

use crate::{
    container::{
        Container,
        columns::{self, CELLS_MAX},
        tail::TailBlock,
    },
    error::Error,
    lane::to_u64,
    tenure::Owned,
};

/// Memory for tails as columns, all containers together: queries ask for the same rows again and again.
const TAILS_BYTES_MAX: u64 = 64 << 20;

/// Events that are not in Tier 2 and are read for one request, of all its segments together; what a container keeps before
/// it throttles writers is of this order. As columns they take twice that at most.
const READ_BYTES_MAX: u64 = 256 << 20;

/// Ends of chunks that are fetched at once for one question about columns.
const ENDS_AT_ONCE: usize = 8;

/// Events of a tail that become columns at once: the fewer, the more columns they may have.
const EVENTS_MAX: usize = 65_536;

/// What reads rows.
pub(super) struct Reader {
    pub(super) owned: Owned,
    pub(super) chunks: Chunks,
    pub(super) objects: Objects,
    pub(super) tails: Tails,
}

/// Bytes of tails that one request may read yet.
struct Left {
    blocks: u64,
    columns: u64,
}

impl Default for Left {
    fn default() -> Self {
        Self { blocks: READ_BYTES_MAX, columns: 2 * READ_BYTES_MAX }
    }
}

/// What is left behind that many bytes. Errors: BadRequest `FragmentTooLarge`.
fn take(left: u64, bytes: u64) -> Result<u64, Error> {
    let why = "too many events of its rows are not in chunks yet";
    left.checked_sub(bytes).ok_or_else(|| Error::Fragment(Problem::bad_request("FragmentTooLarge", why)))
}

/// Where the rows of a run are at one instant.
struct Found {
    /// The generation of the container's owner.
    generation: u64,
    chunks: Vec<ChunkMeta>,
    /// From this offset on they are in the tail.
    tail_from: Offset,
    blocks: Vec<Arc<TailBlock>>,
}

impl Reader {
    /// All rows of the runs, each in one piece.
    pub(super) async fn pieces(&self, index: &IndexName, runs: &[RowRun]) -> Result<Vec<Piece>, Error> {
        let (mut pieces, mut left) = (Vec::new(), Left::default());
        for run in runs {
            let container = self.owned.get(run.container).ok_or_else(|| elsewhere(run))?;
            let found = find(&container, index, run, &mut left)?;
            for chunk in found.chunks {
                let from = run.from.max(chunk.from);
                if chunk.to > run.to {
                    pieces.extend(self.cut(run.segment, &chunk, from..run.to).await?);
                    continue;
                }
                let chunks = self.chunks.clone();
                pieces.push(Piece::Chunk(ChunkPiece { chunks, segment: run.segment, chunk, from }));
            }
            let tail = self.tail(run, (found.generation, found.tail_from), found.blocks, &mut left).await?;
            pieces.extend(tail.into_iter().map(Piece::Rows));
        }
        Ok(pieces)
    }

    /// The columns of the runs; of chunks only ends are read, and a chunk that goes on behind its run tells those of all its
    /// rows.
    pub(super) async fn schemas(&self, index: &IndexName, runs: &[RowRun]) -> Result<Vec<SchemaRef>, Error> {
        let (mut schemas, mut chunks, mut left) = (Vec::new(), Vec::new(), Left::default());
        for run in runs {
            let container = self.owned.get(run.container).ok_or_else(|| elsewhere(run))?;
            let found = find(&container, index, run, &mut left)?;
            chunks.extend(found.chunks);
            let tail = self.tail(run, (found.generation, found.tail_from), found.blocks, &mut left).await?;
            schemas.extend(tail.iter().map(RecordBatch::schema));
        }
        let chunks = stream::iter(chunks).map(|chunk| async move { self.chunks.schema(&chunk).await });
        let of_chunks: Vec<SchemaRef> = chunks.buffered(ENDS_AT_ONCE).try_collect().await.map_err(Error::Fragment)?;
        schemas.extend(of_chunks);
        Ok(schemas)
    }

    /// The rows of a run that are in the tail.
    async fn tail(
        &self,
        run: &RowRun,
        (generation, from): (u64, Offset),
        blocks: Vec<Arc<TailBlock>>,
        left: &mut Left,
    ) -> Result<Vec<RecordBatch>, Error> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let (tails, of, at) = (self.tails.clone(), (run.segment, generation), from..run.to);
        let read = tokio::task::spawn_blocking(move || tails.rows(of, at, &blocks, CELLS_MAX)).await;
        let rows = read.map_err(|error| Error::Columns(error.to_string()))??;
        left.columns = take(left.columns, rows.iter().map(|rows| to_u64(rows.get_array_memory_size())).sum())?;
        Ok(rows)
    }

    /// The beginning of a chunk that was written since the fragment was planned.
    async fn cut(
        &self,
        segment: SegmentId,
        chunk: &ChunkMeta,
        run: std::ops::Range<Offset>,
    ) -> Result<Vec<Piece>, Error> {
        let gone = |error: &dyn std::fmt::Display| {
            Error::Fragment(Problem::unavailable("ChunkUnreadable", format_args!("chunk {}: {error}", chunk.key)))
        };
        let bytes = self.objects.get(&chunk.key).await.map_err(|error| gone(&error))?;
        let whole = run.start..chunk.to;
        let read = tokio::task::spawn_blocking(move || chunk::read_run(bytes, segment, whole, None)).await;
        let batches = read.map_err(|error| Error::Columns(error.to_string()))?.map_err(|error| gone(&error))?;
        let cut = batches.iter().map(|batch| before(batch, run.end));
        cut.map(|batch| Ok(Piece::Rows(batch.map_err(|error| Error::Columns(error.to_string()))?))).collect()
    }
}

/// The rows before an offset, in whatever order they are.
fn before(batch: &RecordBatch, end: Offset) -> Result<RecordBatch, ArrowError> {
    let column = batch.column_by_name("_offset");
    let offsets = column.ok_or_else(|| ArrowError::SchemaError("a chunk has no column _offset".to_owned()))?;
    let end = Int64Array::new_scalar(i64::try_from(end).unwrap_or(i64::MAX));
    filter_record_batch(batch, &lt(offsets, &end)?)
}

fn elsewhere(run: &RowRun) -> Error {
    Error::Unavailable { container: run.container, why: "it is another replica's".to_owned() }
}

/// The blocks that begin before an offset, as far as they may be read.
fn wanted(mut blocks: Vec<Arc<TailBlock>>, to: Offset, left: &mut Left) -> Result<Vec<Arc<TailBlock>>, Error> {
    blocks.retain(|block| block.base() < to);
    left.blocks = take(left.blocks, blocks.iter().map(|block| block.bytes()).sum())?;
    Ok(blocks)
}

/// Looks a run up in the books: its chunks and its part of the tail at one instant.
fn find(container: &Container, index: &IndexName, run: &RowRun, left: &mut Left) -> Result<Found, Error> {
    let books = container.readable()?;
    // Whether there is no such segment is not for this door to say: the gateway asks who is certain.
    let segment = books.state.segment(run.segment).map_err(|_| container.unavailable("it has no such segment"))?;
    if segment.transactional {
        return Err(Error::Transactional(run.segment));
    }
    if segment.index != *index {
        return Err(container.unavailable("the segment is of another index"));
    }
    if run.from < segment.start {
        return Err(Error::Truncated { segment: run.segment, from: run.from, start: segment.start });
    }
    if run.to > segment.end {
        return Err(container.unavailable("its owner here has not got so far"));
    }
    let chunks = segment.chunks.iter().filter(|chunk| chunk.to > run.from && chunk.from < run.to);
    let chunks = chunks.cloned().collect();
    let tail_from = run.from.max(segment.tail_from);
    let mut blocks = Vec::new();
    if tail_from < run.to {
        blocks = wanted(books.tail.blocks(run.segment, tail_from, u64::MAX), run.to, left)?;
        let mut next = tail_from;
        for block in &blocks {
            if block.base() > next {
                break;
            }
            next = next.max(block.end());
        }
        if next < run.to {
            return Err(container.unavailable("events between Tier 2 and the tail are not here"));
        }
    }
    Ok(Found { generation: container.generation.0, chunks, tail_from, blocks })
}

/// Tails as columns, as far as they were asked for of late, by segment and generation of its owner: a segment that was
/// deleted and comes back has another one.
#[derive(Clone)]
pub(super) struct Tails(Cache<(SegmentId, u64), Arc<Vec<Rows>>>);

/// Consecutive rows.
#[derive(Debug, Clone)]
struct Rows {
    from: Offset,
    batch: RecordBatch,
}

impl Rows {
    fn to(&self) -> Offset {
        self.from + to_u64(self.batch.num_rows())
    }

    /// Cells of the inferred columns, the empty ones included.
    fn cells(&self) -> usize {
        self.batch.num_rows() * self.batch.num_columns().saturating_sub(BASE_COLUMNS.len() + 1)
    }
}

impl Tails {
    pub(super) fn new() -> Self {
        let weigh = |_: &(SegmentId, u64), rows: &Arc<Vec<Rows>>| {
            let bytes: usize = rows.iter().map(|rows| rows.batch.get_array_memory_size()).sum();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().weigher(weigh).max_capacity(TAILS_BYTES_MAX).build())
    }

    /// The rows of a run, of which `blocks` hold all; only what was not asked for before is understood now.
    ///
    /// Errors: they have more than so many cells, empty ones included.
    fn rows(
        &self,
        of: (SegmentId, u64),
        run: std::ops::Range<Offset>,
        blocks: &[Arc<TailBlock>],
        cells_max: usize,
    ) -> Result<Vec<RecordBatch>, Error> {
        let mut known: Vec<Rows> = self.0.get(&of).map(|rows| rows.to_vec()).unwrap_or_default();
        known.retain(|rows| rows.to() > run.start);
        if known.first().is_some_and(|first| first.from > run.start) {
            known.clear();
        }
        let mut next = known.last().map_or(run.start, Rows::to);
        if next < run.end {
            let mut cells: usize = known.iter().map(Rows::cells).sum();
            let offsets = blocks.iter().flat_map(|block| (block.base()..).zip(block.events()));
            let wanted = offsets.filter(|(offset, _)| (next..run.end).contains(offset)).map(|(_, event)| event);
            let events: Vec<_> = wanted.collect();
            for events in events.chunks(EVENTS_MAX) {
                for batch in columns::batches(of.0, next, events, cells_max) {
                    let rows = Rows { from: next, batch };
                    next = rows.to();
                    cells += rows.cells();
                    known.push(rows);
                }
                if cells > cells_max {
                    let why = "the tail of a segment has too many different fields for its events";
                    return Err(Error::Fragment(Problem::bad_request("FragmentTooLarge", why)));
                }
            }
            self.0.insert(of, Arc::new(known.clone()));
        }
        let cut = |rows: Rows| {
            let (from, to) = (rows.from.max(run.start), rows.to().min(run.end));
            let place = |offset: Offset| usize::try_from(offset - rows.from).unwrap_or(usize::MAX);
            (from < to).then(|| rows.batch.slice(place(from), place(to) - place(from)))
        };
        Ok(known.into_iter().filter_map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use types::Timestamp;
    use wire::block::{Block, BlockBuilder};

    use super::*;
    use crate::container::{state, tail::Tail};

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    /// Events of which each has a field of its own.
    fn blocks(events: std::ops::Range<u32>) -> Vec<Arc<TailBlock>> {
        let mut builder = BlockBuilder::new();
        for n in events.clone() {
            assert!(builder.push(Timestamp::from_millis(1), 0, format!("{{\"field-{n}\":{n}}}").as_bytes()));
        }
        let (base, count) = (u64::from(events.start), events.end - events.start);
        let mut tail = Tail::default();
        let piece = state::Piece { seq: 1, base, count, ..state::Piece::default() };
        tail.push(SEGMENT, &piece, Block::open(builder.finish()).unwrap(), Timestamp::MIN);
        tail.blocks(SEGMENT, base, u64::MAX)
    }

    #[test]
    fn the_tails_of_a_request_have_a_bound_together() {
        let (one, two) = (blocks(0..10), blocks(10..20));
        let bytes: u64 = one.iter().chain(&two).map(|block| block.bytes()).sum();
        let mut left = Left { blocks: bytes, columns: 0 };
        assert_eq!(wanted(one.clone(), 10, &mut left).unwrap().len(), 1);
        assert!(wanted(two.clone(), 10, &mut left).unwrap().is_empty(), "behind its end nothing is read");
        assert_eq!((wanted(two.clone(), 11, &mut left).unwrap().len(), left.blocks), (1, 0));
        let mut left = Left { blocks: bytes - 1, columns: 0 };
        wanted(one, 10, &mut left).unwrap();
        let more = wanted(two, 20, &mut left).unwrap_err();
        assert_eq!(Problem::from(more).kind, "FragmentTooLarge");
    }

    #[test]
    fn a_tail_has_no_more_cells_than_a_chunk() {
        let tails = Tails::new();
        // Ten events may have five columns; the other five fields go to the rest.
        let read = tails.rows((SEGMENT, 1), 0..10, &blocks(0..10), 50).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].num_rows(), read[0].num_columns()), (10, BASE_COLUMNS.len() + 5 + 1));
        // What is known counts.
        let more = tails.rows((SEGMENT, 1), 0..12, &blocks(10..12), 50).unwrap_err();
        assert_eq!(Problem::from(more).kind, "FragmentTooLarge");
        let more = tails.rows((SEGMENT, 1), 0..12, &blocks(10..12), 60).unwrap();
        assert_eq!(more.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
    }
}
