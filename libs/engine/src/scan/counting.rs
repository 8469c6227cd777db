//! Chunks as cells of their counters, and as rows where a cell does not tell.

use std::{collections::VecDeque, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    compute::{and, kernels::cmp::not_distinct},
    datatypes::SchemaRef,
};
use chunk::Counters;
use datafusion::{
    common::ScalarValue,
    error::Result,
    execution::TaskContext,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, lit},
    },
    physical_plan::{SendableRecordBatchStream, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;
use types::{Severity, Timestamp};

use super::{
    Scan,
    filter::{Conjunct, meet_all},
    needs::{TIME, may_lie_in},
    walk::{Walk, check, external},
};
use crate::{ChunkPiece, Piece};

/// Spans of time of one chunk of which rows are read besides its counters; with more, all rows are read.
const EDGES_MAX: usize = 8;

const MINUTE: i64 = 60_000_000_000;

/// In the order of [`Counters::cells`].
const SEVERITIES: [Option<Severity>; 7] = [
    Some(Severity::Trace),
    Some(Severity::Debug),
    Some(Severity::Info),
    Some(Severity::Warn),
    Some(Severity::Error),
    Some(Severity::Fatal),
    None,
];

/// What is counted.
#[derive(Debug)]
pub(super) struct Counting {
    /// Time, severity, count.
    schema: SchemaRef,
    /// Times and severities of rows, with all filters.
    rows: Scan,
    by_time: Vec<Conjunct>,
    by_severity: Vec<Conjunct>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
}

/// What the counters of a chunk tell.
struct Told {
    cells: RecordBatch,
    /// First and last instants of the spans of which they do not tell.
    edges: Vec<(i64, i64)>,
}

impl Counting {
    /// Of filters by time or by severity, and of groups over a table of cells.
    pub(super) fn new(
        schema: SchemaRef,
        rows: Scan,
        filters: &[Arc<dyn PhysicalExpr>],
        groups: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        let conjuncts = Conjunct::all(filters, &schema)?;
        let (by_time, by_severity) =
            conjuncts.into_iter().partition(|one| one.view.schema.field_with_name(TIME).is_ok());
        Ok(Self { schema, rows, by_time, by_severity, groups })
    }

    /// A part of the pieces.
    pub(super) fn part(counting: &Arc<Self>, pieces: Vec<Piece>) -> Arc<dyn PartitionStream> {
        Arc::new(Part { counting: Arc::clone(counting), pieces })
    }

    /// The cells of a chunk, and the rows that are to be read of it besides.
    async fn open(&self, piece: ChunkPiece) -> Result<(Option<RecordBatch>, Option<Walk>)> {
        let chunk = &piece.chunk;
        let outside = self.rows.needs.as_ref().is_some_and(|needs| !may_lie_in(needs, chunk.time_min, chunk.time_max));
        let told = if outside {
            None
        } else {
            let tail = piece.chunks.tail(chunk).await.map_err(external)?;
            check(&piece, &tail)?;
            // Counters count what was truncated too.
            let is_whole = piece.from <= tail.info().first && chunk.from == tail.info().first;
            if is_whole { self.tell(&tail.info().counters)? } else { None }
        };
        let Some(Told { cells, edges }) = told else { return Ok((None, Some(self.walk(Piece::Chunk(piece))))) };
        self.rows.scanned.note(|stats| {
            stats.chunks_counted += 1;
            if edges.is_empty() {
                stats.chunks += 1;
                stats.chunk_bytes += chunk.bytes;
            }
        });
        if edges.is_empty() {
            return Ok((Some(cells), None));
        }
        let narrowed = self.rows.also(self.within(&edges)?)?;
        Ok((Some(cells), Some(Walk::new(Arc::new(narrowed), [Piece::Chunk(piece)].into_iter(), None))))
    }

    fn walk(&self, piece: Piece) -> Walk {
        Walk::new(Arc::new(self.rows.clone()), [piece].into_iter(), None)
    }

    /// `None` where too little would be gained.
    fn tell(&self, counters: &Counters) -> Result<Option<Told>> {
        let step = i64::from(counters.step_minutes).saturating_mul(MINUTE);
        let spans = counters.cells.keys().map(|number| {
            let first = number.checked_mul(step)?;
            Some((first, first.checked_add(step - 1)?))
        });
        // The ends of time are no cells.
        let Some(spans) = spans.collect::<Option<Vec<(i64, i64)>>>() else { return Ok(None) };
        let firsts = self.at(spans.iter().map(|(first, _)| *first))?;
        let lasts = self.at(spans.iter().map(|(_, last)| *last))?;
        let mut whole = and(&meet_all(&firsts, &self.by_time)?, &meet_all(&lasts, &self.by_time)?)?;
        for group in &self.groups {
            let of = |batch: &RecordBatch| group.evaluate(batch)?.into_array(batch.num_rows());
            whole = and(&whole, &not_distinct(&of(&firsts)?, &of(&lasts)?)?)?;
        }
        let wanted = self.severities()?;
        let (mut cells, mut edges) = (Cells::default(), Vec::<(i64, i64)>::new());
        for (place, ((first, last), counts)) in spans.iter().zip(counters.cells.values()).enumerate() {
            let counts = counts.iter().zip(SEVERITIES).enumerate();
            let counts = counts.filter(|(i, (count, _))| **count > 0 && wanted.value(*i)).map(|(_, found)| found);
            if whole.value(place) {
                counts.for_each(|(count, severity)| cells.push(*first, severity, *count));
            } else if counts.count() > 0 && self.may_hold(*first, *last) {
                match edges.last_mut() {
                    Some((_, end)) if *end == first.saturating_sub(1) => *end = *last,
                    _ => edges.push((*first, *last)),
                }
            }
        }
        let pays = edges.is_empty() || (!cells.counts.is_empty() && edges.len() <= EDGES_MAX);
        if pays { Ok(Some(Told { cells: cells.finish(&self.schema)?, edges })) } else { Ok(None) }
    }

    fn may_hold(&self, first: i64, last: i64) -> bool {
        let at = Timestamp::from_nanos;
        self.rows.needs.as_ref().is_none_or(|needs| may_lie_in(needs, at(first), at(last)))
    }

    /// Cells at these times, only to ask filters and groups about.
    fn at(&self, times: impl Iterator<Item = i64>) -> Result<RecordBatch> {
        let mut cells = Cells::default();
        times.for_each(|time| cells.push(time, None, 0));
        cells.finish(&self.schema)
    }

    /// Which severities pass the filters.
    fn severities(&self) -> Result<BooleanArray> {
        let mut cells = Cells::default();
        SEVERITIES.into_iter().for_each(|severity| cells.push(0, severity, 0));
        meet_all(&cells.finish(&self.schema)?, &self.by_severity)
    }

    /// The filter that a row's time is in one of the spans.
    fn within(&self, spans: &[(i64, i64)]) -> Result<Arc<dyn PhysicalExpr>> {
        let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(TIME, &self.rows.table)?);
        let compared = |op, nanos: i64| -> Arc<dyn PhysicalExpr> {
            let at = lit(ScalarValue::TimestampNanosecond(Some(nanos), None));
            Arc::new(BinaryExpr::new(Arc::clone(&time), op, at))
        };
        let joined = |one, op, other| -> Arc<dyn PhysicalExpr> { Arc::new(BinaryExpr::new(one, op, other)) };
        let spans = spans.iter().map(|(first, last)| {
            joined(compared(Operator::GtEq, *first), Operator::And, compared(Operator::LtEq, *last))
        });
        Ok(spans.reduce(|one, other| joined(one, Operator::Or, other)).unwrap_or_else(|| lit(false)))
    }
}

/// Cells that are being gathered.
#[derive(Default)]
struct Cells {
    times: Vec<i64>,
    severities: Vec<Option<&'static str>>,
    counts: Vec<i64>,
}

impl Cells {
    fn push(&mut self, time: i64, severity: Option<Severity>, count: u64) {
        self.times.push(time);
        self.severities.push(severity.map(Severity::as_str));
        self.counts.push(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn finish(self, schema: &SchemaRef) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(self.times)),
            Arc::new(StringArray::from(self.severities)),
            Arc::new(Int64Array::from(self.counts)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// A part of a table of cells.
struct Part {
    counting: Arc<Counting>,
    pieces: Vec<Piece>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.counting.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let counting = Arc::clone(&self.counting);
        let count = Count { counting, pieces: self.pieces.clone().into(), rows: None };
        let batches =
            stream::try_unfold(count, |mut count| async move { Ok(count.next().await?.map(|batch| (batch, count))) });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.counting.schema), batches))
    }
}

/// One part that is being read.
struct Count {
    counting: Arc<Counting>,
    pieces: VecDeque<Piece>,
    rows: Option<Walk>,
}

impl Count {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(batch) = rows.next().await? {
                    let mut columns = batch.columns().to_vec();
                    columns.push(Arc::new(Int64Array::from(vec![1; batch.num_rows()])));
                    return Ok(Some(RecordBatch::try_new(Arc::clone(&self.counting.schema), columns)?));
                }
                self.rows = None;
            }
            let cells = match self.pieces.pop_front() {
                None => return Ok(None),
                Some(Piece::Chunk(piece)) => {
                    let (cells, rows) = self.counting.open(piece).await?;
                    self.rows = rows;
                    cells
                }
                Some(rows) => {
                    self.rows = Some(self.counting.walk(rows));
                    None
                }
            };
            if let Some(cells) = cells.filter(|cells| cells.num_rows() > 0) {
                return Ok(Some(cells));
            }
        }
    }
}
