//! One part of a scan: piece after piece, row group after row group.

use std::{collections::VecDeque, sync::Arc};

use arrow::{array::RecordBatch, compute::filter_record_batch, error::ArrowError};
use bytes::Bytes;
use chunk::{Filter, Keep, Read, Tail};
use datafusion::error::{DataFusionError, Result};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use types::Timestamp;
use wire::Problem;

use super::{
    Order, Scan,
    filter::{Conjunct, meet_all},
    needs::{TIME, may_lie_in},
};
use crate::{ChunkPiece, Piece, chunks::damaged, table::rows_bytes};

/// The rows of some pieces, in their order.
pub(super) struct Walk {
    scan: Arc<Scan>,
    pieces: VecDeque<Piece>,
    open: Option<Opened>,
    /// The next chunk, fetched while this one is decoded; dropped, it is given up.
    coming: Option<JoinSet<Result<Option<Opened>>>>,
    ready: VecDeque<RecordBatch>,
    rows_left: usize,
}

/// A chunk of which some row groups are left to read.
struct Opened {
    piece: ChunkPiece,
    tail: Arc<Tail>,
    groups: VecDeque<usize>,
    /// The bytes of all of them; `None` where each is fetched when it is its turn, because the next may not be needed.
    parts: Option<Vec<(u64, Bytes)>>,
}

impl Walk {
    pub(super) fn new(scan: Arc<Scan>, pieces: impl Iterator<Item = Piece>, rows_max: Option<usize>) -> Self {
        let (pieces, rows_left) = (pieces.collect(), rows_max.unwrap_or(usize::MAX));
        Self { scan, pieces, open: None, coming: None, ready: VecDeque::new(), rows_left }
    }

    /// The next rows; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut again = false;
        while self.rows_left > 0 {
            // A filter that lets nothing through must not keep a query from ending when it is told to.
            if std::mem::replace(&mut again, true) {
                tokio::task::yield_now().await;
            }
            if let Some(batch) = self.ready.pop_front() {
                if batch.num_rows() == 0 {
                    continue;
                }
                let batch = batch.slice(0, batch.num_rows().min(self.rows_left));
                self.rows_left -= batch.num_rows();
                return Ok(Some(batch));
            }
            if let Some(open) = &mut self.open {
                match open.groups.pop_front() {
                    Some(group) => self.ready = self.scan.group(open, group).await?,
                    None => self.open = None,
                }
                continue;
            }
            if let Some(coming) = self.coming.take() {
                self.open = fetched(coming).await?;
            } else {
                match self.pieces.pop_front() {
                    Some(Piece::Chunk(piece)) => self.open = Arc::clone(&self.scan).open(piece).await?,
                    Some(Piece::Rows(batch)) => self.ready.extend(self.scan.rows(&batch)?),
                    None => return Ok(None),
                }
            }
            self.look_ahead();
        }
        Ok(None)
    }

    /// Begins to fetch the chunk that is next; in an order, the rows before it may make it needless.
    fn look_ahead(&mut self) {
        if self.scan.order.is_none()
            && let Some(Piece::Chunk(piece)) = self.pieces.front().cloned()
        {
            self.pieces.pop_front();
            self.coming.insert(JoinSet::new()).spawn(Arc::clone(&self.scan).open(piece));
        }
    }
}

async fn fetched(mut coming: JoinSet<Result<Option<Opened>>>) -> Result<Option<Opened>> {
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
    fn rows(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
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

    /// Finds out which row groups of a chunk are to be read, and fetches what is needed of them; `None` if of none.
    async fn open(self: Arc<Self>, piece: ChunkPiece) -> Result<Option<Opened>> {
        let (first, last) = (piece.chunk.time_min, piece.chunk.time_max);
        self.scanned.note(|stats| {
            stats.chunks += 1;
            stats.chunk_bytes += piece.chunk.bytes;
        });
        if self.needs.as_ref().is_some_and(|needs| !may_lie_in(needs, first, last)) {
            self.scanned.note(|stats| stats.chunks_by_time += 1);
            return Ok(None);
        }
        if self.is_behind(first, last) {
            self.scanned.note(|stats| stats.chunks_by_order += 1);
            return Ok(None);
        }
        let tail = piece.chunks.tail(&piece.chunk).await.map_err(external)?;
        check(&piece, &tail)?;
        let all = 0..tail.row_groups();
        let may = |group: &usize| self.needs.as_ref().is_none_or(|needs| tail.may_match(*group, needs));
        let mut groups: Vec<usize> = all.clone().filter(may).collect();
        let skipped = u64::try_from(all.len() - groups.len()).unwrap_or(0);
        self.scanned.note(|stats| {
            stats.row_groups += u64::try_from(all.len()).unwrap_or(0);
            stats.row_groups_by_index += skipped;
            stats.chunks_by_index += u64::from(groups.is_empty());
        });
        if groups.is_empty() {
            return Ok(None);
        }
        let parts = match self.order {
            Some(order) => {
                groups.sort_by_key(|group| order.key(times(&tail, *group, &piece)));
                None
            }
            None => Some(self.fetch(&piece, &tail, &groups).await?),
        };
        Ok(Some(Opened { piece, tail, groups: groups.into(), parts }))
    }

    /// Whether rows of these times come too late for what is wanted now.
    fn is_behind(&self, first: Timestamp, last: Timestamp) -> bool {
        self.narrowed().is_some_and(|needs| !may_lie_in(&needs, first, last))
    }

    async fn fetch(&self, piece: &ChunkPiece, tail: &Tail, groups: &[usize]) -> Result<Vec<(u64, Bytes)>> {
        let ranges = tail.ranges(groups, self.columns.as_deref());
        let fetched = piece.chunks.fetch(&piece.chunk, tail, &ranges).await.map_err(external)?;
        self.scanned.note(|stats| {
            stats.chunk_bytes_fetched += fetched.fetched_bytes;
            stats.requests += fetched.requests;
        });
        Ok(fetched.parts)
    }

    /// The wanted rows of one row group.
    async fn group(&self, open: &Opened, group: usize) -> Result<VecDeque<RecordBatch>> {
        let (piece, tail) = (&open.piece, &open.tail);
        if let Some(needs) = self.narrowed() {
            let (first, last) = times(tail, group, piece);
            if !may_lie_in(&needs, first, last) || !tail.may_match(group, &needs) {
                self.scanned.note(|stats| stats.row_groups_by_order += 1);
                return Ok(VecDeque::new());
            }
        }
        let ranges = tail.ranges(&[group], self.columns.as_deref());
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.scanned.note(|stats| {
            stats.row_groups_read += 1;
            stats.chunk_bytes_read += bytes;
        });
        self.scanned.look(tail.rows(group), bytes).map_err(external)?;
        let fetched;
        let parts = match &open.parts {
            Some(parts) => parts,
            None => {
                fetched = self.fetch(piece, tail, &[group]).await?;
                &fetched
            }
        };
        self.decode(open, group, parts)
    }

    fn decode(&self, open: &Opened, group: usize, parts: &[(u64, Bytes)]) -> Result<VecDeque<RecordBatch>> {
        // A filter that fails does so inside of the decoder, which would make a defect of the chunk of it.
        let failed: Arc<Mutex<Option<DataFusionError>>> = Arc::default();
        let named = self.conditions.iter().zip(&self.looked_at);
        let filters = named.map(|(one, columns)| Filter { columns, keep: keeper(one.clone(), &failed) }).collect();
        let run = open.piece.from.max(open.piece.chunk.from)..open.piece.chunk.to;
        let read = Read { groups: &[group], run, columns: self.wanted.as_deref(), filters };
        let batches = open.tail.read(parts, read);
        if let Some(error) = failed.lock().take() {
            return Err(error);
        }
        let batches = batches.map_err(|error| external(damaged(&open.piece.chunk, &error)))?;
        batches.iter().map(|batch| self.out(batch)).collect()
    }
}

fn keeper(one: Conjunct, failed: &Arc<Mutex<Option<DataFusionError>>>) -> Keep {
    let failed = Arc::clone(failed);
    Box::new(move |batch| {
        one.meets(&batch).map_err(|error| {
            *failed.lock() = Some(error);
            ArrowError::ComputeError("a filter failed".to_owned())
        })
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

/// The first and the last time in a row group.
fn times(tail: &Tail, group: usize, piece: &ChunkPiece) -> (Timestamp, Timestamp) {
    let zone = tail.zone(group, TIME).map(|zone| (zone.min, zone.max));
    match zone {
        Some((chunk::Scalar::Time(min), chunk::Scalar::Time(max))) => (min, max),
        _ => (piece.chunk.time_min, piece.chunk.time_max),
    }
}

impl Order {
    /// Sorts what is wanted first to the front.
    pub(super) fn key(self, (first, last): (Timestamp, Timestamp)) -> i64 {
        match self {
            Self::OldestFirst => first.nanos(),
            // All bits turned over: the largest is the smallest, and none overflows.
            Self::NewestFirst => !last.nanos(),
        }
    }
}
