//! The events of Nexmark: the number of the next row of a split is its position.

use arrow::buffer::ScalarBuffer;
use flow::{NexmarkTable, SourceSpec};
use formats::{Column, Layout, Nexmark, Rows as Read, Table, Unit};
use futures::future::BoxFuture;

use super::{
    open::kind,
    pulled::{PIECE_ROWS, Place, Reader, Share, Split},
};
use crate::{error::TaskError, metrics::rows};

/// The column of the event time.
const TIME: &str = "dateTime";

/// Which events, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Events {
    pub(super) table: NexmarkTable,
    pub(super) seed: u64,
    pub(super) events: Option<u64>,
    pub(super) rate: u64,
    pub(super) splits: u32,
}

/// The subtask's share of the splits.
pub(super) fn splits(
    share: Share,
    spec: &SourceSpec,
    events: Events,
    known: &[(String, Place)],
) -> Result<Vec<Split>, TaskError> {
    let (table, layout) = columns(spec, events.table)?;
    let mine = (0..events.splits.max(1)).filter(|number| share.has(*number));
    let split = |number: u32| {
        let name = format!("{number:010}");
        let place = known.iter().find(|(known, _)| *known == name).map(|(_, place)| *place).unwrap_or_default();
        let Events { seed, events, rate, splits, .. } = events;
        let made = Nexmark::new(table, layout.clone(), seed, (events, rate), (number, splits));
        let made = made.map_err(|error| TaskError::Plan(crate::error::told(&error)))?;
        let reader: Box<dyn Reader> = Box::new(Made { made, next: place.position });
        let reader = Some(reader).filter(|_| !place.ended);
        Ok(Split { name, number: u64::from(number), place, reader })
    };
    mine.map(split).collect()
}

/// The columns that the job uses: of the declared ones, or of all that there are.
fn columns(spec: &SourceSpec, table: NexmarkTable) -> Result<(Table, Layout), TaskError> {
    if let Some(column) = spec.time.column.as_deref().filter(|column| !matches!(*column, TIME | flow::TIME_COLUMN)) {
        return Err(TaskError::Plan(format!("the event time of nexmark is {TIME}, not {column}")));
    }
    let table = match table {
        NexmarkTable::Person => Table::Person,
        NexmarkTable::Auction => Table::Auction,
        NexmarkTable::Bid => Table::Bid,
    };
    let declared: Vec<Column> = match spec.schema.is_empty() {
        true => table.columns(),
        false => spec.schema.iter().map(|column| Column::new(&column.name, kind(column.kind))).collect(),
    };
    let used = |name: &str| spec.columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column == name));
    // The event time comes under the name that it has everywhere.
    let used = declared.into_iter().filter(|column| column.name != flow::TIME_COLUMN && used(&column.name)).collect();
    let layout = Layout::new(used, Some(TIME), Unit::Millis);
    Ok((table, layout.map_err(|error| TaskError::Plan(error.to_string()))?))
}

/// Makes the rows of one split.
#[derive(Debug)]
struct Made {
    made: Nexmark,
    next: u64,
}

impl Made {
    fn piece(&mut self) -> Result<Option<(Read, u64)>, TaskError> {
        let batch = self.made.batch(self.next, PIECE_ROWS).map_err(|error| TaskError::source("nexmark", &error))?;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let first = i64::try_from(self.next).unwrap_or(i64::MAX);
        let offsets: ScalarBuffer<i64> = (0i64..).map(|row| first.saturating_add(row)).take(batch.num_rows()).collect();
        self.next += rows(batch.num_rows());
        let bytes = rows(batch.get_array_memory_size());
        Ok(Some((Read { batch, offsets, faults: Vec::new() }, bytes)))
    }
}

impl Reader for Made {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(std::future::ready(self.piece()))
    }

    fn position(&self) -> u64 {
        self.next
    }
}
