//! Keyed tumbling event-time windows over column batches.
//!
//! State is one ordered map of window start to a block of columns: key rows, hashes, one accumulator column per
//! aggregate. A batch is cut into runs of rows of one window; within a run each accumulator column is updated in one
//! loop. Windows need no timers: the map is ordered by their end.

mod accumulator;
mod block;
pub(crate) mod cells;
pub(crate) mod chunk;
mod counts;
pub(crate) mod exact;
pub(crate) mod grid;
pub(crate) mod groups;
mod layout;
mod operator;
mod panes;
mod plan;
pub(crate) mod results;
mod running;
mod sessions;
mod snapshot;
mod spec;
mod split;
pub(crate) mod table;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches};
use types::Timestamp;

use self::{block::Block, layout::Input, layout::Layout};
use crate::Error;

pub(crate) use counts::CountRows;
pub use operator::TumblingOperator;
pub(crate) use panes::PaneOperator;
pub use plan::{Emit, Phase, WindowPlan, WindowShape};
pub(crate) use sessions::SessionOperator;
pub use snapshot::SNAPSHOT_VERSION;
pub use spec::{AggregateFunction, AggregateSpec, EarlyFire, EarlyOp, WindowSpec, window_end, window_start};

/// The event time of a row, `Timestamp(Nanosecond)`.
pub const TIME_COLUMN: &str = "_time";
/// The first instant of the window in an output row.
pub const WINDOW_START_COLUMN: &str = "window_start";
/// The first instant after the window in an output row.
pub const WINDOW_END_COLUMN: &str = "window_end";
/// True in rows that were fired before the end of their window; there only if the specification asks for such rows.
pub const EARLY_COLUMN: &str = "_early";

/// The most groups in all open windows of one subtask: about 100 MB with a few aggregates.
pub const GROUPS_MAX: usize = 1_000_000;

/// The most bytes that the keys of all open windows of one subtask take.
pub const KEY_BYTES_MAX: usize = 256 << 20;

/// The rows of one output or snapshot batch, about what fits the second-level cache.
const BATCH_ROWS: usize = 8_192;

/// The state of one window subtask.
///
/// Order: windows fire in `(window_end, key)` order, nulls first, whatever the interleaving and the size of the
/// batches that came in; their values do not depend on it either, because sums are exact. Bounds: [`GROUPS_MAX`] and
/// [`KEY_BYTES_MAX`], then an error, for dropping rows would make a wrong result look right.
#[derive(Debug)]
pub struct TumblingState {
    spec: WindowSpec,
    size: i64,
    layout: Option<Arc<Layout>>,
    windows: BTreeMap<i64, Block>,
    watermark: Timestamp,
    late_rows: u64,
    groups: usize,
    key_bytes: usize,
    groups_max: usize,
}

impl TumblingState {
    /// Empty state; the types of keys and values are those of the first batch and hold from then on.
    pub fn new(spec: WindowSpec) -> Result<Self, Error> {
        Ok(Self {
            size: spec.validate()?,
            spec,
            layout: None,
            windows: BTreeMap::new(),
            watermark: Timestamp::MIN,
            late_rows: 0,
            groups: 0,
            key_bytes: 0,
            groups_max: GROUPS_MAX,
        })
    }

    /// The same with a smaller bound than [`GROUPS_MAX`], for a worker with little memory.
    pub fn with_groups_max(self, groups_max: usize) -> Self {
        Self { groups_max: groups_max.min(GROUPS_MAX), ..self }
    }

    /// Adds rows, and returns those groups whose early threshold they crossed, marked by [`EARLY_COLUMN`].
    ///
    /// An early row holds the aggregates as they were right after the row that crossed; once per (window, key).
    /// Order: early rows come in the order of arrival, which is *not* the same in a replay. They are for sinks that
    /// know a row by its window and key, never for a sink that numbers rows.
    /// Late rows, whose window has fired, are counted and dropped.
    /// Errors: `TooManyGroups`, `TooManyKeyBytes`, `NoColumn`, `ColumnType`, `NullTime`. The state is then to be
    /// thrown away: part of the batch may be in it.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>, Error> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let layout = self.layout(batch)?;
        let input = layout.read(&self.spec, batch)?;
        let mut early = Vec::new();
        let mut row = 0;
        while row < input.times.len() {
            let start = spec::start_of(input.times[row], self.size);
            let end = start.saturating_add(self.size);
            let same = |t: &i64| (start..end).contains(t) || spec::start_of(*t, self.size) == start;
            let run = row..row + input.times[row..].iter().take_while(|t| same(t)).count();
            row = run.end;
            if end <= self.watermark.nanos() {
                self.late_rows += u64::try_from(run.len()).unwrap_or(u64::MAX);
            } else {
                self.add(&layout, &input, start, run, &mut early)?;
            }
        }
        if early.is_empty() {
            return Ok(None);
        }
        Ok(Some(concat_batches(&layout.output, &early)?))
    }

    /// Takes the operator's watermark and returns the rows of all windows that end at or before it.
    ///
    /// Batches have at most 8192 rows; together they are in `(window_end, key)` order. A watermark that is not newer
    /// than the last one returns nothing.
    pub fn advance(&mut self, watermark: Timestamp) -> Result<Vec<RecordBatch>, Error> {
        self.watermark = self.watermark.max(watermark);
        let mut out = Pages::default();
        while let Some(entry) = self.windows.first_entry() {
            let start = *entry.key();
            if start.saturating_add(self.size) > self.watermark.nanos() {
                break;
            }
            let block = entry.remove();
            self.groups -= block.len();
            self.key_bytes -= block.key_bytes();
            let Some(layout) = &self.layout else { break };
            for part in block.in_key_order().chunks(BATCH_ROWS) {
                out.push(layout.rows(start, self.size, &block, part, false)?, &layout.output)?;
            }
        }
        match &self.layout {
            Some(layout) => out.finish(&layout.output),
            None => Ok(Vec::new()),
        }
    }

    /// The watermark up to which windows have fired.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Rows dropped because their window had fired; 0 if lateness is decided at the source and no input was idle.
    pub fn late_rows(&self) -> u64 {
        self.late_rows
    }

    /// Groups in all open windows.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Open windows.
    pub fn open_windows(&self) -> usize {
        self.windows.len()
    }

    /// What is computed.
    pub fn spec(&self) -> &WindowSpec {
        &self.spec
    }

    fn layout(&mut self, batch: &RecordBatch) -> Result<Arc<Layout>, Error> {
        if let Some(layout) = &self.layout {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::learn(&self.spec, batch)?);
        Ok(Arc::clone(self.layout.insert(layout)))
    }

    fn add(
        &mut self,
        layout: &Layout,
        input: &Input,
        start: i64,
        run: Range<usize>,
        early: &mut Vec<RecordBatch>,
    ) -> Result<(), Error> {
        let block = self.windows.entry(start).or_insert_with(|| Block::new(layout));
        let mut groups = Vec::with_capacity(run.len());
        for row in run.clone() {
            let (hash, key) = (input.hashes[row], input.keys.row(row));
            let group = match block.find(hash, key) {
                Some(group) => group,
                None if self.groups >= self.groups_max => {
                    return Err(Error::TooManyGroups { limit: self.groups_max });
                }
                None if self.key_bytes + key.as_ref().len() > KEY_BYTES_MAX => {
                    return Err(Error::TooManyKeyBytes { limit: KEY_BYTES_MAX });
                }
                None => {
                    self.groups += 1;
                    self.key_bytes += key.as_ref().len();
                    block.insert(hash, key)
                }
            };
            groups.push(group);
        }
        block.grow();
        let Some(fire) = &self.spec.early else {
            block.update(&groups, run.start, &input.values);
            return Ok(());
        };
        // Row by row, so that what an early row shows does not depend on where a batch was cut.
        for (row, group) in run.zip(groups) {
            block.update(&[group], row, &input.values);
            if block.fire_once(group, fire) {
                early.push(layout.rows(start, self.size, block, &[group], true)?);
            }
        }
        Ok(())
    }
}

/// Puts small outputs together into batches of a useful size.
#[derive(Default)]
struct Pages {
    done: Vec<RecordBatch>,
    open: Vec<RecordBatch>,
    open_rows: usize,
}

impl Pages {
    fn push(&mut self, batch: RecordBatch, schema: &arrow::datatypes::SchemaRef) -> Result<(), Error> {
        if self.open_rows + batch.num_rows() > BATCH_ROWS {
            self.close(schema)?;
        }
        self.open_rows += batch.num_rows();
        self.open.push(batch);
        Ok(())
    }

    fn close(&mut self, schema: &arrow::datatypes::SchemaRef) -> Result<(), Error> {
        match self.open.len() {
            0 => {}
            1 => self.done.append(&mut self.open),
            _ => self.done.push(concat_batches(schema, &self.open)?),
        }
        self.open.clear();
        self.open_rows = 0;
        Ok(())
    }

    fn finish(mut self, schema: &arrow::datatypes::SchemaRef) -> Result<Vec<RecordBatch>, Error> {
        self.close(schema)?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;
