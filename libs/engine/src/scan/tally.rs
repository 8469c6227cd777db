//! Counts of an index by time and severity, without a plan: cells of counters, and rows where a cell does not tell.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
};
use datafusion::{
    common::{DataFusionError, ScalarValue, resources_datafusion_err},
    error::Result,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, lit},
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::{JoinSet, coop::consume_budget};
use types::Severity;
use wire::Problem;

use super::{
    Scan, Scanned,
    counted::{SEVERITY, has_counted_columns},
    counting::{Cells, Counting, SEVERITIES},
    needs::TIME,
    walk::{Walk, external},
};
use crate::{
    Piece,
    counts::{Counts, Key, Of},
    provider::Opened,
};

/// Memory of one count, about.
const COUNT_BYTES: usize = 64;

/// Chunks whose counters are fetched at the same time.
const OPENED_AT_ONCE: usize = 8;

/// Pieces whose rows are read at the same time.
const WALKS_AT_ONCE: usize = 4;

/// Numbers of events by the begin of their span of time, 0 where none are asked for, and by the place of their severity.
type Numbers = BTreeMap<(i64, usize), u64>;

impl Counts {
    /// The answer; `None` where the index is not such that counters are of it.
    pub(crate) async fn answer(
        self,
        table: &Opened,
        scanned: &Arc<Scanned>,
        memory_bytes: usize,
    ) -> Result<Option<RecordBatch>> {
        if !table.schemas.iter().all(|schema| has_counted_columns(schema)) {
            return Ok(None);
        }
        if self.limit == Some(0) {
            return self.rows(&Numbers::new()).map(Some);
        }
        if self.is_of_all() && self.step.is_none() && !self.by_severity {
            let all = table.pieces.iter().map(Piece::rows).sum();
            return self.rows(&Numbers::from([((0, 0), all)])).map(Some);
        }
        let counts = Arc::new(self);
        let Some(mut numbers) = numbers(&counts, table, scanned, memory_bytes).await? else { return Ok(None) };
        if counts.step.is_none() && !counts.by_severity {
            // Of nothing there is one number all the same.
            numbers.entry((0, 0)).or_default();
        }
        counts.rows(&numbers).map(Some)
    }

    /// Counts an event; false where its severity is none that counters know, or its time is at the end of all.
    fn add(&self, numbers: &mut Numbers, nanos: i64, severity: usize, count: u64) -> bool {
        let Some(start) = self.step.map_or(Some(0), |step| step.start(nanos)) else { return false };
        let severity = if self.by_severity { severity } else { 0 };
        *numbers.entry((start, severity)).or_default() += count;
        true
    }

    /// The filter by time, for rows.
    fn filter(&self, table: &SchemaRef) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(TIME, table)?);
        let mut filters: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        for (op, at, none) in [(Operator::GtEq, self.from, i64::MIN), (Operator::LtEq, self.to, i64::MAX)] {
            if at != none {
                let at = lit(ScalarValue::TimestampNanosecond(Some(at), None));
                filters.push(Arc::new(BinaryExpr::new(Arc::clone(&time), op, at)));
            }
        }
        Ok(filters)
    }

    /// The answer's rows, in its order.
    fn rows(&self, numbers: &Numbers) -> Result<RecordBatch> {
        let mut rows: Vec<((i64, usize), u64)> = numbers.iter().map(|(key, count)| (*key, *count)).collect();
        rows.sort_by(|one, other| self.compare(one, other));
        rows.truncate(self.limit.unwrap_or(usize::MAX));
        let text = |severity: usize| SEVERITIES.get(severity).copied().flatten().map(Severity::as_str);
        let column = |(name, of): &(String, Of)| -> (Field, ArrayRef) {
            let (of, values): (DataType, ArrayRef) = match of {
                Of::Time(_) => {
                    let times = rows.iter().map(|((start, _), _)| *start);
                    let of = DataType::Timestamp(TimeUnit::Nanosecond, None);
                    (of, Arc::new(TimestampNanosecondArray::from_iter_values(times)))
                }
                Of::Severity => {
                    let texts: StringArray = rows.iter().map(|((_, severity), _)| text(*severity)).collect();
                    (DataType::Utf8, Arc::new(texts))
                }
                Of::Count => {
                    let counts = rows.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX));
                    (DataType::Int64, Arc::new(Int64Array::from_iter_values(counts)))
                }
            };
            (Field::new(name, of, true), values)
        };
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = self.columns.iter().map(column).unzip();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn compare(&self, one: &((i64, usize), u64), other: &((i64, usize), u64)) -> Ordering {
        let text = |severity: usize| SEVERITIES.get(severity).copied().flatten().map(Severity::as_str);
        let by = |key: &Key| {
            let order = match key.of {
                Of::Time(_) => one.0.0.cmp(&other.0.0),
                Of::Count => one.1.cmp(&other.1),
                Of::Severity => match (text(one.0.1), text(other.0.1)) {
                    (Some(one), Some(other)) => one.cmp(other),
                    (None, None) => Ordering::Equal,
                    // Where nulls stand does not depend on the direction.
                    (own, _) => {
                        return if own.is_none() == key.nulls_first { Ordering::Less } else { Ordering::Greater };
                    }
                },
            };
            if key.descending { order.reverse() } else { order }
        };
        self.order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// `None` where events have severities that counters do not know.
async fn numbers(
    counts: &Arc<Counts>,
    table: &Opened,
    scanned: &Arc<Scanned>,
    memory_bytes: usize,
) -> Result<Option<Numbers>> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let fields = vec![Field::new(TIME, time, false), Field::new(SEVERITY, DataType::Utf8, true)];
    let schema = Arc::new(Schema::new(fields));
    let scan = Scan::new(&schema, Vec::new(), &[0, 1], &counts.filter(&schema)?, Arc::clone(scanned))?;
    let counting = Counting::new(scan, Box::new(Arc::clone(counts)));
    let (mut numbers, mut walks) = (Numbers::new(), VecDeque::new());
    let mut chunks = Vec::new();
    for piece in &table.pieces {
        match piece {
            Piece::Chunk(piece) => chunks.push(piece.clone()),
            rows => walks.push_back(counting.walk(rows.clone())),
        }
    }
    let mut opened = stream::iter(chunks).map(|piece| counting.open(piece)).buffer_unordered(OPENED_AT_ONCE);
    while let Some((cells, walk)) = opened.try_next().await? {
        if !cells.iter().all(|(nanos, severity, count)| counts.add(&mut numbers, *nanos, *severity, *count)) {
            return Ok(None);
        }
        walks.extend(walk);
        bounded(&numbers, memory_bytes)?;
        // Where all is known already nothing is waited for.
        consume_budget().await;
    }
    drop(opened);
    let mut running: JoinSet<Result<Option<Numbers>>> = JoinSet::new();
    loop {
        while running.len() < WALKS_AT_ONCE
            && let Some(walk) = walks.pop_front()
        {
            let counts = Arc::clone(counts);
            running.spawn(async move { counted(&counts, walk, memory_bytes).await });
        }
        let found = match running.join_next().await {
            None => return Ok(Some(numbers)),
            Some(Ok(found)) => found?,
            Some(Err(error)) => {
                return Err(external(Problem::internal(format_args!("reading a chunk ended early: {error}"))));
            }
        };
        let Some(found) = found else { return Ok(None) };
        for (key, count) in found {
            *numbers.entry(key).or_default() += count;
        }
        bounded(&numbers, memory_bytes)?;
    }
}

fn bounded(numbers: &Numbers, memory_bytes: usize) -> Result<(), DataFusionError> {
    if numbers.len().saturating_mul(COUNT_BYTES) > memory_bytes {
        return Err(resources_datafusion_err!("{} counts are too many", numbers.len()));
    }
    Ok(())
}

/// Counts rows.
async fn counted(counts: &Counts, mut walk: Walk, memory_bytes: usize) -> Result<Option<Numbers>> {
    let mut numbers = Numbers::new();
    while let Some(batch) = walk.next().await? {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let severities = batch.column(1).as_string::<i32>();
        for (nanos, severity) in times.values().iter().zip(severities) {
            // A word that is no severity is one of its own.
            let place = SEVERITIES.iter().position(|own| own.map(Severity::as_str) == severity);
            let Some(place) = place else { return Ok(None) };
            if counts.severities[place] && !counts.add(&mut numbers, *nanos, place, 1) {
                return Ok(None);
            }
        }
        bounded(&numbers, memory_bytes)?;
    }
    Ok(Some(numbers))
}

impl Cells for Arc<Counts> {
    fn whole(&self, spans: &[(i64, i64)]) -> Result<BooleanArray> {
        let start = |nanos: i64| self.step.map_or(Some(0), |step| step.start(nanos));
        let whole = spans.iter().map(|(first, last)| {
            let one = start(*first).is_some_and(|begin| start(*last) == Some(begin));
            Some(self.from <= *first && *last <= self.to && one)
        });
        Ok(whole.collect())
    }

    fn severities(&self) -> Result<[bool; 7]> {
        Ok(self.severities)
    }
}
