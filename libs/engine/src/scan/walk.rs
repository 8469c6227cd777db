//! One part of a scan: piece after piece, row group after row group.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{BooleanBufferBuilder, RecordBatch, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::Schema,
    error::ArrowError,
};
use bytes::Bytes;
use chunk::{Filter, Keep, READ_BATCH_ROWS, Read, Tail};
use datafusion::error::{DataFusionError, Result};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use types::{Offset, Timestamp};
use wire::Problem;

use super::{
    Scan,
    filter::{Conjunct, meet_all},
    needs::{TIME, may_lie_in},
};
use crate::{
    ChunkPiece, Piece,
    chunks::damaged,
    said::{Met, Question, together},
    table::rows_bytes,
};

/// Bytes of a chunk, each with their place in it.
pub(super) type Parts = Vec<(u64, Bytes)>;

/// What is asked of rows before the conditions, and after them.
pub(super) type Around<'a> = (Option<Filter<'a>>, Option<Filter<'a>>);

/// The rows of some pieces, in their order.
pub(super) struct Walk {
    scan: Arc<Scan>,
    pieces: VecDeque<Piece>,
    open: Option<Begun>,
    /// The next chunk, fetched while this one is decoded; dropped, it is given up.
    coming: Option<JoinSet<Result<Option<Begun>>>>,
    ready: VecDeque<RecordBatch>,
    rows_left: Option<usize>,
}

/// A chunk of which some row groups are left to read.
struct Begun {
    chunk: OpenChunk,
    groups: VecDeque<usize>,
    /// The bytes of all of them; `None` where each is fetched when it is its turn, because the next may not be needed.
    parts: Option<Parts>,
}

/// A chunk of which some rows are wanted.
#[derive(Debug)]
pub(super) struct OpenChunk {
    pub(super) piece: ChunkPiece,
    pub(super) tail: Arc<Tail>,
    /// Row groups that may hold some.
    pub(super) groups: Vec<usize>,
    /// Of some of them which rows meet the conditions that stay, as was found before.
    met: BTreeMap<usize, Met>,
}

impl Walk {
    pub(super) fn new(scan: Arc<Scan>, pieces: impl Iterator<Item = Piece>, rows_max: Option<usize>) -> Self {
        let pieces = pieces.collect();
        Self { scan, pieces, open: None, coming: None, ready: VecDeque::new(), rows_left: rows_max }
    }

    /// The next rows; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut again = false;
        while self.rows_left != Some(0) {
            // A filter that lets nothing through must not keep a query from ending when it is told to.
            if std::mem::replace(&mut again, true) {
                tokio::task::yield_now().await;
            }
            if let Some(batch) = self.ready.pop_front() {
                if batch.num_rows() == 0 {
                    continue;
                }
                let Some(left) = &mut self.rows_left else { return Ok(Some(batch)) };
                let batch = batch.slice(0, batch.num_rows().min(*left));
                *left -= batch.num_rows();
                return Ok(Some(batch));
            }
            if let Some(open) = &mut self.open {
                match open.groups.pop_front() {
                    Some(group) => {
                        let rows = self.scan.group(&open.chunk, group, open.parts.as_ref(), (None, None)).await?;
                        self.ready.extend(rows);
                    }
                    None => self.open = None,
                }
                continue;
            }
            if let Some(coming) = self.coming.take() {
                self.open = fetched(coming).await?;
            } else {
                match self.pieces.pop_front() {
                    Some(Piece::Chunk(piece)) => {
                        self.open = Arc::clone(&self.scan).begin(piece, self.rows_left.is_none()).await?;
                    }
                    Some(Piece::Rows(batch)) => self.ready.extend(self.scan.rows(&batch)?),
                    None => return Ok(None),
                }
            }
            self.look_ahead();
        }
        Ok(None)
    }

    /// Begins to fetch the chunk that is next; with a limit, the rows before it may make it needless.
    fn look_ahead(&mut self) {
        if self.rows_left.is_none()
            && let Some(Piece::Chunk(piece)) = self.pieces.front().cloned()
        {
            self.pieces.pop_front();
            self.coming.insert(JoinSet::new()).spawn(Arc::clone(&self.scan).begin(piece, true));
        }
    }
}

async fn fetched(mut coming: JoinSet<Result<Option<Begun>>>) -> Result<Option<Begun>> {
    match coming.join_next().await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) => Err(external(Problem::internal(format_args!("fetching a chunk ended early: {error}")))),
        None => Ok(None),
    }
}

pub(super) fn external(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

impl Scan {
    /// The rows of a batch in memory that are wanted.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let rows = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        self.scanned.look(rows, u64::try_from(rows_bytes(batch)).unwrap_or(u64::MAX)).map_err(external)?;
        let met = meet_all(batch, &self.conditions)?;
        let kept = match met.true_count() {
            0 => return Ok(None),
            all if all == batch.num_rows() => batch.clone(),
            _ => filter_record_batch(batch, &met)?,
        };
        self.out(&kept).map(Some)
    }

    fn out(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(self.view.of(batch)?.with_schema(Arc::clone(&self.schema))?)
    }

    /// Opens a chunk; with all that is needed of it, or without.
    async fn begin(self: Arc<Self>, piece: ChunkPiece, all: bool) -> Result<Option<Begun>> {
        let Some(chunk) = self.open(piece).await? else { return Ok(None) };
        let parts = if all { Some(self.fetch(&chunk, &chunk.groups).await?) } else { None };
        Ok(Some(Begun { groups: chunk.groups.iter().copied().collect(), chunk, parts }))
    }

    /// Finds out which row groups of a chunk are to be read; `None` if none.
    pub(super) async fn open(&self, piece: ChunkPiece) -> Result<Option<OpenChunk>> {
        let (first, last) = (piece.chunk.time_min, piece.chunk.time_max);
        self.scanned.note(|stats| {
            stats.chunks += 1;
            stats.chunk_bytes += piece.chunk.bytes;
        });
        if self.needs.as_ref().is_some_and(|needs| !may_lie_in(needs, first, last)) {
            self.scanned.note(|stats| stats.chunks_by_time += 1);
            self.scanned.done(piece.chunk.bytes, true);
            return Ok(None);
        }
        if self.narrowed().is_some_and(|needs| !may_lie_in(&needs, first, last)) {
            self.scanned.note(|stats| stats.chunks_by_order += 1);
            self.scanned.done(piece.chunk.bytes, true);
            return Ok(None);
        }
        let tail = piece.chunks.tail(&piece.chunk).await.map_err(external)?;
        check(&piece, &tail)?;
        let all = 0..tail.row_groups();
        let may = |group: &usize| self.needs.as_ref().is_none_or(|needs| tail.may_match(*group, needs));
        let groups: Vec<usize> = all.clone().filter(may).collect();
        let skipped = u64::try_from(all.len() - groups.len()).unwrap_or(0);
        self.scanned.note(|stats| {
            stats.row_groups += u64::try_from(all.len()).unwrap_or(0);
            stats.row_groups_by_index += skipped;
            stats.chunks_by_index += u64::from(groups.is_empty());
        });
        let mut chunk = OpenChunk { piece, tail, groups, met: BTreeMap::new() };
        self.remember(&mut chunk);
        self.scanned.done(chunk.piece.chunk.bytes.saturating_sub(chunk.share() * chunk.count()), true);
        Ok(if chunk.groups.is_empty() { None } else { Some(chunk) })
    }

    /// Leaves out the row groups of which no row has met the conditions before.
    fn remember(&self, chunk: &mut OpenChunk) {
        let Some(question) = self.question.as_ref().filter(|_| chunk.is_whole()) else { return };
        let asked: Vec<usize> = chunk.groups.iter().copied().filter(|group| self.is_of_times(chunk, *group)).collect();
        let said = chunk.piece.chunks.said();
        chunk.met = said.of(&chunk.piece.chunk.key, &asked, question).into_iter().collect();
        let before = chunk.groups.len();
        chunk.groups.retain(|group| chunk.met.get(group).is_none_or(|met| met.count() > 0));
        let left_out = u64::try_from(before - chunk.groups.len()).unwrap_or(0);
        self.scanned.note(|stats| stats.row_groups_by_memory += left_out);
    }

    /// Whether all rows of a row group are of times that are asked for.
    fn is_of_times(&self, chunk: &OpenChunk, group: usize) -> bool {
        let (first, last) = chunk.times(group);
        let fixed = self.conditions.iter().take(self.fixed);
        fixed.filter(|one| one.is_of_time()).all(|one| one.is_met_between(first, last))
    }

    /// How many rows a row group has, where no more than that is wanted and it is known.
    fn count(&self, chunk: &OpenChunk, group: usize) -> Option<usize> {
        let only = self.wanted.as_ref().is_some_and(Vec::is_empty) && self.conditions.len() == self.fixed;
        chunk.met.get(&group).filter(|_| only).map(Met::count)
    }

    /// What is read of a row group; `None` for all columns.
    fn columns(&self, chunk: &OpenChunk, group: usize) -> Option<&[String]> {
        if chunk.met.contains_key(&group) { self.columns_of_met.as_deref() } else { self.columns.as_deref() }
    }

    async fn fetch(&self, chunk: &OpenChunk, groups: &[usize]) -> Result<Parts> {
        let read = groups.iter().copied().filter(|group| self.count(chunk, *group).is_none());
        let (met, others): (Vec<usize>, Vec<usize>) = read.partition(|group| chunk.met.contains_key(group));
        let mut parts = Vec::new();
        for groups in [met, others] {
            let Some(first) = groups.first() else { continue };
            let ranges = chunk.tail.ranges(&groups, self.columns(chunk, *first));
            let piece = &chunk.piece;
            let fetched = piece.chunks.fetch(&piece.chunk, &chunk.tail, &ranges).await.map_err(external)?;
            self.scanned.note(|stats| {
                stats.chunk_bytes_fetched += fetched.fetched_bytes;
                stats.requests += fetched.requests;
            });
            parts.extend(fetched.parts);
        }
        Ok(parts)
    }

    /// The wanted rows of one row group: those that meet all conditions, and what is asked before and after these.
    pub(super) async fn group(
        &self,
        open: &OpenChunk,
        group: usize,
        parts: Option<&Parts>,
        around: Around<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let (piece, tail) = (&open.piece, &open.tail);
        if let Some(needs) = self.narrowed() {
            let (first, last) = open.times(group);
            if !may_lie_in(&needs, first, last) || !tail.may_match(group, &needs) {
                self.scanned.note(|stats| stats.row_groups_by_order += 1);
                self.scanned.done(open.share(), false);
                return Ok(Vec::new());
            }
        }
        if let Some(count) = self.count(open, group) {
            self.scanned.note(|stats| stats.row_groups_by_memory += 1);
            self.scanned.done(open.share(), false);
            return self.counted(count);
        }
        let ranges = tail.ranges(&[group], self.columns(open, group));
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.scanned.note(|stats| {
            stats.row_groups_read += 1;
            stats.chunk_bytes_read += bytes;
        });
        self.scanned.look(tail.rows(group), bytes).map_err(external)?;
        let fetched;
        let parts = match parts {
            Some(parts) => parts,
            None => {
                fetched = self.fetch(open, &[group]).await?;
                &fetched
            }
        };
        // The threads are shared fairly between indexes; nothing is waited for while one is held.
        let turn = piece.chunks.turn(self.scanned.index(), bytes).await;
        let rows = self.decode(open, group, parts, around);
        drop(turn);
        self.scanned.done(open.share(), false);
        rows
    }

    /// So many rows without a column.
    fn counted(&self, count: usize) -> Result<Vec<RecordBatch>> {
        let parts = (0..count).step_by(READ_BATCH_ROWS).map(|from| {
            let options = RecordBatchOptions::new().with_row_count(Some(READ_BATCH_ROWS.min(count - from)));
            self.out(&RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
        });
        parts.collect()
    }

    fn decode(
        &self,
        open: &OpenChunk,
        group: usize,
        parts: &Parts,
        (first, last): Around<'_>,
    ) -> Result<Vec<RecordBatch>> {
        // A filter that fails does so inside of the decoder, which would make a defect of the chunk of it.
        let failed: Arc<Mutex<Option<DataFusionError>>> = Arc::default();
        let met = open.met.get(&group);
        // What is said of all rows is worth keeping.
        let is_of_all = met.is_none() && first.is_none() && open.is_whole() && self.is_of_times(open, group);
        let question = self.question.as_ref().filter(|_| is_of_all);
        let said: Noted = Arc::default();
        let (from, to) = open.times(group);
        let asked = self.conditions.iter().zip(&self.looked_at).enumerate().filter_map(|(place, (one, columns))| {
            let is_fixed = place < self.fixed;
            let is_met = is_fixed && (met.is_some() || one.is_met_between(from, to));
            let noted = question.filter(|_| is_fixed).map(|_| &said);
            (!is_met).then(|| Filter { columns, keep: keeper(one.clone(), &failed, noted) })
        });
        let filters = first.into_iter().chain(asked).chain(last).collect();
        let (run, rows) = (open.run(), met.map(Met::bits));
        let read = Read { groups: &[group], run, rows, columns: self.wanted.as_deref(), filters };
        let batches = open.tail.read(parts, read);
        if let Some(error) = failed.lock().take() {
            return Err(error);
        }
        let batches = batches.map_err(|error| external(damaged(&open.piece.chunk, &error)))?;
        if let Some(question) = question {
            open.keep(group, question, &said);
        }
        batches.iter().map(|batch| self.out(batch)).collect()
    }
}

/// What conditions say of the rows that are left, one condition after the other.
type Noted = Arc<Mutex<Vec<BooleanBufferBuilder>>>;

impl OpenChunk {
    /// The first and the last time in a row group.
    pub(super) fn times(&self, group: usize) -> (Timestamp, Timestamp) {
        let zone = self.tail.zone(group, TIME).map(|zone| (zone.min, zone.max));
        match zone {
            Some((chunk::Scalar::Time(min), chunk::Scalar::Time(max))) => (min, max),
            _ => (self.piece.chunk.time_min, self.piece.chunk.time_max),
        }
    }

    /// Bytes of the chunk for each of its row groups.
    pub(super) fn share(&self) -> u64 {
        self.piece.chunk.bytes / u64::try_from(self.tail.row_groups().max(1)).unwrap_or(1)
    }

    fn count(&self) -> u64 {
        u64::try_from(self.groups.len()).unwrap_or(0)
    }

    /// The offsets that count.
    fn run(&self) -> Range<Offset> {
        self.piece.from.max(self.piece.chunk.from)..self.piece.chunk.to
    }

    /// Whether these are all that it has.
    fn is_whole(&self) -> bool {
        self.run().start <= self.tail.info().first
    }

    /// Keeps what was said of all rows of a row group.
    fn keep(&self, group: usize, question: &Arc<Question>, said: &Noted) {
        let said: Vec<BooleanBuffer> = said.lock().iter_mut().map(BooleanBufferBuilder::finish).collect();
        let rows = usize::try_from(self.tail.rows(group)).unwrap_or(usize::MAX);
        if let Some(met) = together(rows, &said) {
            self.piece.chunks.said().keep(&self.piece.chunk.key, group, question, Met::new(met));
        }
    }
}

fn keeper(one: Conjunct, failed: &Arc<Mutex<Option<DataFusionError>>>, noted: Option<&Noted>) -> Keep {
    let failed = Arc::clone(failed);
    let noted = noted.map(|noted| {
        let mut all = noted.lock();
        all.push(BooleanBufferBuilder::new(0));
        (Arc::clone(noted), all.len() - 1)
    });
    Box::new(move |batch| match one.meets(&batch) {
        Ok(met) => {
            if let Some((noted, place)) = &noted
                && let Some(own) = noted.lock().get_mut(*place)
            {
                own.append_buffer(met.values());
            }
            Ok(met)
        }
        Err(error) => {
            *failed.lock() = Some(error);
            Err(ArrowError::ComputeError("a filter failed".to_owned()))
        }
    })
}

/// Whether this is the chunk that it was named for.
pub(super) fn check(piece: &ChunkPiece, tail: &Tail) -> Result<()> {
    let (chunk, info) = (&piece.chunk, tail.info());
    let begins = info.first <= piece.from.max(chunk.from);
    if info.segment == piece.segment && begins && info.last.checked_add(1) == Some(chunk.to) {
        return Ok(());
    }
    let found = format!("events {} to {} of segment {}", info.first, info.last, info.segment);
    let named = format!("events {} to {} of segment {}", chunk.from, chunk.to.saturating_sub(1), piece.segment);
    Err(external(damaged(chunk, &format_args!("it holds {found} and was named for {named}"))))
}
