//! Chunks as cells of their counters, and as rows where a cell does not tell.

use std::{fmt, sync::Arc};

use arrow::array::BooleanArray;
use chunk::Counters;
use datafusion::{
    common::ScalarValue,
    error::Result,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, lit},
    },
};
use types::{Severity, Timestamp};

use super::{
    Scan,
    needs::{TIME, may_lie_in},
    walk::{Walk, check, external},
};
use crate::{ChunkPiece, Piece};

/// Spans of time of one chunk of which rows are read besides its counters; with more, all rows are read.
const EDGES_MAX: usize = 8;

const MINUTE: i64 = 60_000_000_000;

/// In the order of [`Counters::cells`].
pub(crate) const SEVERITIES: [Option<Severity>; 7] = [
    Some(Severity::Trace),
    Some(Severity::Debug),
    Some(Severity::Info),
    Some(Severity::Warn),
    Some(Severity::Error),
    Some(Severity::Fatal),
    None,
];

/// What is asked of cells.
pub(super) trait Cells: fmt::Debug + Send + Sync + 'static {
    /// Of each span, by its first and last instant, whether the answer is one for all events in it.
    fn whole(&self, spans: &[(i64, i64)]) -> Result<BooleanArray>;

    /// Which of [`SEVERITIES`] are counted.
    fn severities(&self) -> Result<[bool; 7]>;
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Counting {
    /// Times and severities of rows, with all filters.
    rows: Scan,
    cells: Box<dyn Cells>,
}

/// So many events from an instant on: it, the place of their severity in [`SEVERITIES`], their number.
pub(super) type Cell = (i64, usize, u64);

/// What the counters of a chunk tell.
struct Told {
    cells: Vec<Cell>,
    /// First and last instants of the spans of which they do not tell.
    edges: Vec<(i64, i64)>,
}

impl Counting {
    /// Of rows that pass filters by time and by severity.
    pub(super) fn new(rows: Scan, cells: Box<dyn Cells>) -> Self {
        Self { rows, cells }
    }

    /// The cells of a chunk, and the rows that are to be read of it besides.
    pub(super) async fn open(&self, piece: ChunkPiece) -> Result<(Vec<Cell>, Option<Walk>)> {
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
        let Some(Told { cells, edges }) = told else { return Ok((Vec::new(), Some(self.walk(Piece::Chunk(piece))))) };
        self.rows.scanned.note(|stats| {
            stats.chunks_counted += 1;
            if edges.is_empty() {
                stats.chunks += 1;
                stats.chunk_bytes += chunk.bytes;
            }
        });
        if edges.is_empty() {
            self.rows.scanned.done(chunk.bytes, true);
            return Ok((cells, None));
        }
        let narrowed = self.rows.also(self.within(&edges)?)?;
        Ok((cells, Some(Walk::new(Arc::new(narrowed), [Piece::Chunk(piece)].into_iter(), None))))
    }

    pub(super) fn walk(&self, piece: Piece) -> Walk {
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
        let (whole, wanted) = (self.cells.whole(&spans)?, self.cells.severities()?);
        let (mut cells, mut edges) = (Vec::new(), Vec::<(i64, i64)>::new());
        for (place, ((first, last), counts)) in spans.iter().zip(counters.cells.values()).enumerate() {
            let mut counts = counts.iter().enumerate().filter(|(severity, count)| **count > 0 && wanted[*severity]);
            if whole.value(place) {
                cells.extend(counts.map(|(severity, count)| (*first, severity, *count)));
            } else if counts.next().is_some() && self.may_hold(*first, *last) {
                match edges.last_mut() {
                    Some((_, end)) if *end == first.saturating_sub(1) => *end = *last,
                    _ => edges.push((*first, *last)),
                }
            }
        }
        let pays = edges.is_empty() || (!cells.is_empty() && edges.len() <= EDGES_MAX);
        Ok(pays.then_some(Told { cells, edges }))
    }

    fn may_hold(&self, first: i64, last: i64) -> bool {
        let at = Timestamp::from_nanos;
        self.rows.needs.as_ref().is_none_or(|needs| may_lie_in(needs, at(first), at(last)))
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
