//! A scan whose rows come in the order of their times, newest or oldest first.
//!
//! What may hold the next row is read first: chunks, then row groups, by the best time that is known of them. A row is given
//! as soon as nothing that is still to be read can hold one before it. With a limit no more rows are held than are wanted, and
//! the worst of them says what needs no reading; the other columns of a row group are decoded for those rows alone that may be
//! among them.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::{SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, TimeUnit, TimestampNanosecondType},
};
use chunk::{Filter, Keep};
use datafusion::{
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::expressions::{Column, PhysicalSortExpr},
};
use tokio::task::JoinSet;
use types::Timestamp;
use wire::Problem;

use super::{
    Scan,
    needs::TIME,
    times,
    walk::{OpenChunk, external},
};
use crate::{ChunkPiece, Piece, session::BATCH_ROWS, table::rows_bytes};

/// With a limit, one more row group is read at the same time after each so many: the first ones mostly have all that is
/// wanted.
const RAMP: usize = 4;

/// Rows that come too late are forgotten when there are more by this share of those that are wanted.
const FORGET_SHARE: usize = 8;

/// An order by time first.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    newest_first: bool,
    /// Columns of the scan.
    keys: Vec<(usize, SortOptions)>,
    time: usize,
}

impl Order {
    /// The order that is asked for, if the scan can keep it: by columns as they are, the time first.
    pub(super) fn of(by: &[PhysicalSortExpr], scan: &Scan) -> Option<Self> {
        let keys = by.iter().map(|key| Some((key.expr.downcast_ref::<Column>()?.index(), key.options)));
        let keys: Vec<(usize, SortOptions)> = keys.collect::<Option<_>>()?;
        let (time, options) = *keys.first()?;
        let field = scan.schema.fields().get(time)?;
        let is_time = field.name() == TIME && *field.data_type() == DataType::Timestamp(TimeUnit::Nanosecond, None);
        // Every event has a time; rows that are none may not.
        let timed = |piece: &Piece| match piece {
            Piece::Chunk(_) => true,
            Piece::Rows(rows) => rows.column_by_name(TIME).is_some_and(|column| {
                column.null_count() == 0 && column.as_primitive_opt::<TimestampNanosecondType>().is_some()
            }),
        };
        let order = Self { newest_first: options.descending, keys, time };
        (is_time && scan.pieces.iter().all(timed)).then_some(order)
    }

    /// The greater the sooner.
    fn rank(&self, nanos: i64) -> i64 {
        // All bits turned over: the largest is the smallest, and none overflows.
        if self.newest_first { nanos } else { !nanos }
    }

    fn best(&self, (first, last): (Timestamp, Timestamp)) -> i64 {
        self.rank(if self.newest_first { last.nanos() } else { first.nanos() })
    }

    /// The ranks of rows.
    fn ranks<'a>(&'a self, rows: &'a RecordBatch, time: usize) -> impl Iterator<Item = i64> + 'a {
        let times = rows.column(time).as_primitive_opt::<TimestampNanosecondType>();
        times.into_iter().flat_map(|times| times.values().iter().map(|nanos| self.rank(*nanos)))
    }

    fn sort(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |(place, options): &(usize, SortOptions)| SortColumn {
            values: Arc::clone(rows.column(*place)),
            options: Some(*options),
        };
        let columns: Vec<SortColumn> = self.keys.iter().map(column).collect();
        Ok(take_record_batch(rows, &lexsort_to_indices(&columns, None)?)?)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.newest_first { "newest first" } else { "oldest first" })
    }
}

/// Something to read.
struct Item {
    rank: i64,
    what: What,
}

enum What {
    Chunk(ChunkPiece),
    Group(Arc<OpenChunk>, usize),
    Rows(RecordBatch),
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// What came of it.
enum Done {
    Opened(Option<Arc<OpenChunk>>),
    Rows(Vec<RecordBatch>),
}

/// A scan that is being read in order.
pub(super) struct Sorted {
    scan: Arc<Scan>,
    order: Arc<Order>,
    waiting: BinaryHeap<Item>,
    /// Dropped, they are given up.
    running: JoinSet<Result<(u64, Done)>>,
    /// Their ranks by number.
    ranks: BTreeMap<u64, i64>,
    begun: u64,
    ended: usize,
    at_once_max: usize,
    /// Rows before which others may come.
    found: Vec<RecordBatch>,
    ready: VecDeque<RecordBatch>,
    rows_left: Option<usize>,
    /// Rows that were left when some were forgotten last.
    kept: usize,
    /// Rows of lower ranks are not wanted.
    least: Arc<AtomicI64>,
    memory: MemoryReservation,
}

impl Sorted {
    pub(super) fn new(scan: Arc<Scan>, order: Arc<Order>, limit: Option<usize>, task: &TaskContext) -> Self {
        let items = scan.pieces.iter().cloned().map(|piece| match piece {
            Piece::Chunk(piece) => {
                Item { rank: order.best((piece.chunk.time_min, piece.chunk.time_max)), what: What::Chunk(piece) }
            }
            Piece::Rows(rows) => Item { rank: order.best(times(&rows)), what: What::Rows(rows) },
        });
        Self {
            waiting: items.collect(),
            running: JoinSet::new(),
            ranks: BTreeMap::new(),
            begun: 0,
            ended: 0,
            at_once_max: task.session_config().target_partitions().max(1),
            found: Vec::new(),
            ready: VecDeque::new(),
            rows_left: limit,
            kept: 0,
            least: Arc::new(AtomicI64::new(i64::MIN)),
            memory: MemoryConsumer::new("rows in order").register(task.memory_pool()),
            scan,
            order,
        }
    }

    /// The next rows; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.rows_left == Some(0) {
                self.leave_out_all();
                return Ok(None);
            }
            self.begin();
            let next = self.ranks.values().max().copied().max(self.waiting.peek().map(|item| item.rank));
            self.give(next)?;
            if !self.ready.is_empty() {
                continue;
            }
            match self.running.join_next().await {
                Some(Ok(done)) => {
                    let (number, done) = done?;
                    self.ranks.remove(&number);
                    self.ended += 1;
                    self.take(done)?;
                }
                Some(Err(error)) => {
                    return Err(external(Problem::internal(format_args!("reading a chunk ended early: {error}"))));
                }
                None => return Ok(None),
            }
        }
    }

    /// Begins to read what comes first.
    fn begin(&mut self) {
        let at_once = if self.rows_left.is_some() { 1 + self.ended / RAMP } else { usize::MAX };
        while self.running.len() < at_once.min(self.at_once_max) {
            let least = self.least.load(Relaxed);
            if self.waiting.peek().is_none_or(|item| item.rank < least) {
                self.leave_out_all();
                return;
            }
            let Some(item) = self.waiting.pop() else { return };
            let (number, scan, reader) = (self.begun, Arc::clone(&self.scan), self.reader());
            self.begun += 1;
            self.ranks.insert(number, item.rank);
            self.running.spawn(async move { Ok((number, read(&scan, item.what, reader).await?)) });
        }
    }

    /// What is left is not needed.
    fn leave_out_all(&mut self) {
        for item in std::mem::take(&mut self.waiting) {
            let scanned = &self.scan.scanned;
            match item.what {
                What::Chunk(piece) => {
                    scanned.note(|stats| {
                        stats.chunks += 1;
                        stats.chunk_bytes += piece.chunk.bytes;
                        stats.chunks_by_order += 1;
                    });
                    scanned.done(piece.chunk.bytes, true);
                }
                What::Group(chunk, _) => {
                    scanned.note(|stats| stats.row_groups_by_order += 1);
                    scanned.done(chunk.share(), false);
                }
                What::Rows(_) => {}
            }
        }
    }

    fn reader(&self) -> Reader {
        Reader { order: Arc::clone(&self.order), least: Arc::clone(&self.least), rows_max: self.rows_left }
    }

    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Opened(None) => {}
            Done::Opened(Some(chunk)) => {
                let item = |group: &usize| Item {
                    rank: self.order.best(chunk.times(*group)),
                    what: What::Group(Arc::clone(&chunk), *group),
                };
                self.waiting.extend(chunk.groups.iter().map(item));
            }
            Done::Rows(rows) => {
                self.found.extend(rows.into_iter().filter(|batch| batch.num_rows() > 0));
                self.forget()?;
                let bytes = self.found.iter().map(rows_bytes).sum();
                self.memory.try_resize(bytes)?;
            }
        }
        Ok(())
    }

    /// Forgets rows that come too late.
    fn forget(&mut self) -> Result<()> {
        let Some(left) = self.rows_left else { return Ok(()) };
        let count: usize = self.found.iter().map(RecordBatch::num_rows).sum();
        // Finding the least of them takes a look at each: not for every few more.
        if count < left.max(self.kept + left / FORGET_SHARE) {
            return Ok(());
        }
        let ranks = self.found.iter().flat_map(|batch| self.order.ranks(batch, self.order.time));
        let mut ranks: Vec<i64> = ranks.collect();
        let (_, least, _) = ranks.select_nth_unstable_by_key(left - 1, |rank| Reverse(*rank));
        let least = *least;
        self.least.fetch_max(least, Relaxed);
        let mut kept = Vec::with_capacity(self.found.len());
        for batch in std::mem::take(&mut self.found) {
            let (wanted, _) = self.split(batch, |rank| rank >= least)?;
            kept.extend(wanted);
        }
        self.kept = kept.iter().map(RecordBatch::num_rows).sum();
        self.found = kept;
        Ok(())
    }

    /// The rows of which it is so, and the others.
    fn split(
        &self,
        batch: RecordBatch,
        is: impl Fn(i64) -> bool,
    ) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
        let of: BooleanBuffer = self.order.ranks(&batch, self.order.time).map(is).collect();
        Ok(match of.count_set_bits() {
            0 => (None, Some(batch)),
            all if all == batch.num_rows() => (Some(batch), None),
            _ => {
                let others = filter_record_batch(&batch, &BooleanArray::new(!&of, None))?;
                (Some(filter_record_batch(&batch, &BooleanArray::new(of, None))?), Some(others))
            }
        })
    }

    /// Makes ready what comes before everything of the given rank, which is still to be read.
    fn give(&mut self, next: Option<i64>) -> Result<()> {
        let is_before = |rank: i64| next.is_none_or(|next| rank > next);
        let mut given = Vec::new();
        for batch in std::mem::take(&mut self.found) {
            let (before, others) = self.split(batch, is_before)?;
            given.extend(before);
            self.found.extend(others);
        }
        if given.is_empty() {
            return Ok(());
        }
        let sorted = self.order.sort(&concat_batches(&self.scan.schema, &given)?)?;
        let count = sorted.num_rows().min(self.rows_left.unwrap_or(usize::MAX));
        if let Some(left) = &mut self.rows_left {
            *left -= count;
        }
        let parts = (0..count).step_by(BATCH_ROWS).map(|from| sorted.slice(from, BATCH_ROWS.min(count - from)));
        self.ready.extend(parts);
        self.memory.try_resize(self.found.iter().map(rows_bytes).sum::<usize>() + rows_bytes(&sorted))?;
        Ok(())
    }
}

/// Reads one thing.
async fn read(scan: &Scan, what: What, reader: Reader) -> Result<Done> {
    Ok(match what {
        What::Chunk(piece) => Done::Opened(scan.open(piece).await?.map(Arc::new)),
        What::Rows(rows) => Done::Rows(scan.rows(&rows)?.into_iter().collect()),
        What::Group(chunk, group) => {
            if reader.order.best(chunk.times(group)) < reader.least.load(Relaxed) {
                scan.scanned.note(|stats| stats.row_groups_by_order += 1);
                scan.scanned.done(chunk.share(), false);
                return Ok(Done::Rows(Vec::new()));
            }
            let time = [TIME.to_owned()];
            // A time is decoded for less than most of what conditions ask for.
            let first = reader.not_late().map(|keep| Filter { columns: &time, keep });
            let last = reader.keep(chunk.tail.rows(group)).map(|keep| Filter { columns: &time, keep });
            Done::Rows(scan.group(&chunk, group, None, (first, last)).await?)
        }
    })
}

/// Tells of the rows of one row group which may be among those that are wanted.
struct Reader {
    order: Arc<Order>,
    least: Arc<AtomicI64>,
    rows_max: Option<usize>,
}

impl Reader {
    /// Those that do not come too late, as far as is known now; `None` where nothing is.
    fn not_late(&self) -> Option<Keep> {
        let (order, least) = (Arc::clone(&self.order), self.least.load(Relaxed));
        let keep = move |batch: RecordBatch| {
            let kept: BooleanBuffer = order.ranks(&batch, 0).map(|rank| rank >= least).collect();
            Ok(BooleanArray::new(kept, None))
        };
        (least != i64::MIN).then(|| Box::new(keep) as Keep)
    }

    /// `None` where all may.
    fn keep(self, rows: u64) -> Option<Keep> {
        let rows_max = self.rows_max?;
        if u64::try_from(rows_max).unwrap_or(u64::MAX) >= rows && self.least.load(Relaxed) == i64::MIN {
            return None;
        }
        // The best so far, the least of them first.
        let mut best: BinaryHeap<Reverse<i64>> = BinaryHeap::new();
        Some(Box::new(move |batch: RecordBatch| {
            let least = self.least.load(Relaxed);
            let mut keep = |rank: i64| {
                if rank < least {
                    return false;
                }
                if best.len() == rows_max {
                    match best.peek() {
                        Some(Reverse(worst)) if rank < *worst => return false,
                        _ => drop(best.pop()),
                    }
                }
                best.push(Reverse(rank));
                true
            };
            let kept: BooleanBuffer = self.order.ranks(&batch, 0).map(&mut keep).collect();
            Ok(BooleanArray::new(kept, None))
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampNanosecondArray};

    use super::*;

    /// Of a row group no more rows are decoded whole than may be among the wanted ones.
    #[test]
    fn few_rows_of_a_group_are_kept() {
        let order = Order { newest_first: true, keys: vec![(0, SortOptions::default())], time: 0 };
        let least = Arc::new(AtomicI64::new(i64::MIN));
        let reader = |rows_max| Reader { order: Arc::new(order.clone()), least: Arc::clone(&least), rows_max };
        let batch = |times: &[i64]| {
            let times = TimestampNanosecondArray::from(times.to_vec());
            RecordBatch::try_from_iter([(TIME, Arc::new(times) as ArrayRef)]).unwrap()
        };
        assert!(reader(None).keep(100).is_none() && reader(Some(100)).keep(100).is_none(), "all are wanted");
        let mut keep = reader(Some(2)).keep(100).unwrap();
        let mut kept = |times: &[i64]| keep(batch(times)).unwrap().values().set_indices().collect::<Vec<_>>();
        assert_eq!(kept(&[5, 9, 7, 1, 8, 8]), [0, 1, 2, 4, 5], "the best two so far, with those of equal times");
        assert_eq!(kept(&[7, 6, 10, 3]), [2]);
        least.store(20, Relaxed);
        assert_eq!(reader(Some(50)).keep(10).unwrap()(batch(&[19, 20, 21])).unwrap().true_count(), 2);
    }
}
