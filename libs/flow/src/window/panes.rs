//! Tumbling, hopping and cumulating windows over panes that they share.
//!
//! A row is added once, to its pane: the piece of time between two ends of windows. A window's result is made of its panes
//! when it fires, and panes go when their last window is done. Rows that come late for some windows of their pane and in time
//! for others have a group of their own beside it (see [`Class`]), so that what a window holds depends on the rows' own
//! watermarks alone, and never on when they came by.

mod early;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, UInt32Array},
    compute::take_record_batch,
    datatypes::{Field, TimestampNanosecondType},
};
use types::Timestamp;

use super::{
    BATCH_ROWS, Pages, Phase, TIME_COLUMN, WindowPlan,
    cells::Cells,
    chunk::{CHUNK, number},
    grid::{Class, Firing, Grid},
    groups::{CLOCK_TABLE, Clock, Groups, Layout, Piece, damaged, own_rows},
    running::Running,
    split::Split,
};
use early::{Early, TOLD_TABLE};

pub(super) use early::validate;

use crate::{Error, INSTANT_TYPE, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock, column, row};

/// The table of panes; a piece of one has its class and number behind that.
const TABLE: &str = "panes";
/// The columns of a class in stored rows, and in those between the two phases.
const CLASS: [&str; 3] = ["_pane", "_first", "_again"];

/// Windows by time as an operator, in any of the three phases.
#[derive(Debug)]
pub(crate) struct PaneOperator {
    name: String,
    plan: WindowPlan,
    grid: Grid,
    groups: KeyGroups,
    state_bytes_max: usize,
    layout: Option<Arc<Layout>>,
    panes: BTreeMap<Class, Groups>,
    /// Windows have fired up to this.
    fired: i64,
    /// No firing is due before that.
    due: i64,
    edition: u64,
    running: Running,
    split: Split,
    early: Early,
    scratch: Vec<u32>,
    bytes: usize,
}

impl PaneOperator {
    /// Empty windows.
    pub(crate) fn new(plan: WindowPlan, setting: Setting) -> Result<Self, Error> {
        plan.validate()?;
        Ok(Self {
            grid: Grid::new(&plan)?,
            early: Early::new(&plan)?,
            plan,
            name: setting.name,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            layout: None,
            panes: BTreeMap::new(),
            fired: i64::MIN,
            due: i64::MAX,
            edition: 0,
            running: Running::default(),
            split: Split::default(),
            scratch: Vec::new(),
            bytes: 0,
        })
    }

    fn layout(&mut self, learn: impl FnOnce(&WindowPlan) -> Result<Layout, Error>) -> Result<Arc<Layout>, Error> {
        if let Some(layout) = &self.layout {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(learn(&self.plan)?);
        Ok(Arc::clone(self.layout.insert(layout)))
    }

    /// The groups of a class, which are then due.
    fn of_class<'a>(
        panes: &'a mut BTreeMap<Class, Groups>,
        due: &mut i64,
        (grid, fired, layout): (&Grid, i64, &Layout),
        class: Class,
    ) -> &'a mut Groups {
        panes.entry(class).or_insert_with(|| {
            *due = grid.next(class, fired).map_or(*due, |next| next.min(*due));
            Groups::new(layout)
        })
    }

    fn check_bytes(&self) -> Result<(), Error> {
        let (bytes, limit) = (self.bytes(), self.state_bytes_max);
        if bytes > limit {
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        Ok(())
    }

    /// Adds rows to their panes, and gives on those that are late.
    fn add(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let layout = self.layout(|plan| Layout::learn(plan, batch))?;
        let (input, times) = (layout.read(batch)?, column::times(batch, TIME_COLUMN)?);
        let watermarks = row::row_watermarks(batch)?;
        self.split.split(&self.grid, &times, watermarks.as_deref(), self.fired);
        self.edition += 1;
        for (class, rows) in self.split.parts() {
            let context = (&self.grid, self.fired, &*layout);
            let groups = Self::of_class(&mut self.panes, &mut self.due, context, class);
            let before = groups.bytes();
            let end = class.pane.saturating_add(self.grid.pane);
            match self.early.threshold() {
                // Windows that tumble are their panes; what comes behind their ends is never early.
                Some(_) if class.first == end => {
                    let all: Vec<u32> = (0..number(batch.num_rows())).collect();
                    let (window, added) = ((class.pane, end), (&input, rows.unwrap_or(&all), self.edition));
                    let context = (self.name.as_str(), &*layout, window);
                    Self::add_one_by_one(&mut self.early, context, groups, added, out)?;
                }
                _ => groups.add(&input, rows, &mut self.scratch, self.edition),
            }
            self.bytes += groups.bytes() - before;
        }
        if !self.split.late().is_empty() {
            let late = UInt32Array::from(self.split.late().to_vec());
            out.late(take_record_batch(batch, &late)?);
        }
        Ok(())
    }

    /// Adds rows of the local phase, or of stored blocks: cells by class and key. Answers how many rows are late by now, which
    /// those that were stored are not: they are as they were, also where windows have fired since they came.
    fn add_cells(&mut self, batch: &RecordBatch, layout: &Layout, stored: bool) -> Result<u64, Error> {
        let instants = |name: &str| {
            let array = batch.column_by_name(name).and_then(|a| a.as_primitive_opt::<TimestampNanosecondType>());
            array.ok_or_else(|| damaged(format!("{name} is missing")))
        };
        let [panes, firsts, agains] = CLASS;
        let (panes, firsts, agains) = (instants(panes)?, instants(firsts)?, instants(agains)?);
        let (keyed, loaded) = (layout.form.read(batch)?, layout.load(batch)?);
        let (mut late, mut by_class) = (0, BTreeMap::<Class, Vec<u32>>::new());
        for row in 0..batch.num_rows() {
            let class = Class { pane: panes.value(row), first: firsts.value(row), again: agains.value(row) };
            let still = if stored { Some(class) } else { self.grid.still(class, self.fired) };
            match still {
                Some(class) => by_class.entry(class).or_default().push(number(row)),
                None => late += rows_of(&loaded, number(row)),
            }
        }
        for (class, rows) in by_class {
            let context = (&self.grid, self.fired, layout);
            let groups = Self::of_class(&mut self.panes, &mut self.due, context, class);
            let before = groups.bytes();
            groups.add_cells(&keyed, &loaded, &rows, self.edition);
            self.bytes += groups.bytes() - before;
        }
        Ok(late)
    }

    /// Gives everything on to the phase behind the edge, and is empty then.
    fn hand_on(&mut self, out: &mut Out) -> Result<(), Error> {
        let Some(layout) = &self.layout else { return Ok(()) };
        let mut pages = Pages::default();
        let before = std::iter::once(TIME_COLUMN).chain(CLASS);
        let before: Vec<Field> = before.map(|name| Field::new(name, INSTANT_TYPE, false)).collect();
        let schema = layout.stored(TABLE, &before);
        for (class, groups) in std::mem::take(&mut self.panes) {
            let all: Vec<u32> = (0..number(groups.len())).collect();
            for part in all.chunks(BATCH_ROWS) {
                let instants =
                    |value: i64| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![value; part.len()])) };
                let time = class.pane.saturating_add(self.grid.pane - 1);
                let before = [time, class.pane, class.first, class.again].map(instants).to_vec();
                pages.push(groups.stored(&schema, before, (part, part))?, &schema)?;
            }
        }
        self.bytes = 0;
        pages.finish(&schema)?.into_iter().for_each(|batch| out.rows(batch));
        Ok(())
    }

    /// The result of one firing: `None` if there is none.
    fn result(&mut self, firing: Firing) -> Option<Groups> {
        let (start, end) = (self.grid.start(firing.end), firing.end);
        let class = |pane| Class { pane, first: i64::MIN, again: i64::MIN };
        let of_window = self.panes.range(class(start)..class(end));
        if firing.second {
            // The keys that late rows changed, with all of their rows.
            let taken = of_window.filter(|(class, _)| class.again <= end);
            let (late, first): (Vec<_>, Vec<_>) = taken.partition(|(class, _)| class.first > end);
            let mut parts = late.into_iter();
            let mut result = parts.next()?.1.clone();
            parts.for_each(|(_, groups)| result.merge(groups, true));
            first.into_iter().for_each(|(_, groups)| result.merge(groups, false));
            return Some(result);
        }
        let mut late = Vec::new();
        let mut whole = Vec::new();
        for (class, groups) in of_window.filter(|(class, _)| class.first <= end) {
            let in_time = class.first == class.pane + self.grid.pane;
            if in_time { whole.push((class.pane, groups)) } else { late.push(groups) }
        }
        let result = self.running.merged(start, end, &whole);
        late.into_iter().fold(result, |result, groups| {
            Some(match result {
                None => groups.clone(),
                Some(mut result) => {
                    result.merge(groups, true);
                    result
                }
            })
        })
    }

    fn fire(&mut self, until: i64, out: &mut Out) -> Result<(), Error> {
        let Some(layout) = self.layout.clone() else { return Ok(()) };
        let mut firings = std::collections::BTreeSet::new();
        for class in self.panes.keys() {
            self.grid.firings(*class, self.fired, until, |firing| {
                firings.insert(firing);
            });
        }
        let mut pages = Pages::default();
        let output = self.early.output(&layout);
        for firing in firings {
            let Some(result) = self.result(firing) else { continue };
            let window = (self.grid.start(firing.end), firing.end);
            for part in result.table.in_key_order().chunks(BATCH_ROWS) {
                let batch = result.rows(&layout, (part, part), &|_| window, Some((&self.name, out)))?;
                pages.push(self.early.shown(&layout, firing.end, batch, false)?, &output)?;
            }
            // What cannot be needed any more makes room for what follows.
            while let Some(oldest) = self.panes.first_entry().filter(|e| self.grid.over(e.key().pane) < firing.instant)
            {
                self.bytes = self.bytes.saturating_sub(oldest.remove().bytes());
            }
        }
        pages.finish(&output)?.into_iter().for_each(|batch| out.rows(batch));
        self.early.forget(until, self.grid.lateness);
        self.panes.retain(|class, groups| {
            let kept = self.grid.over(class.pane) > until;
            self.bytes = self.bytes.saturating_sub(if kept { 0 } else { groups.bytes() });
            kept
        });
        if self.panes.is_empty() {
            self.running = Running::default();
        }
        Ok(())
    }
}

fn rows_of(loaded: &[Cells], row: u32) -> u64 {
    loaded.first().map_or(0, |cells| u64::try_from(cells.count(row)).unwrap_or(0))
}

impl Operator for PaneOperator {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.plan.phase {
            Phase::Whole => self.add(batch, out)?,
            Phase::Local => {
                self.add(batch, out)?;
                // At once: nothing has to be flushed before a barrier, and batches are large where it pays.
                return self.hand_on(out);
            }
            Phase::Global => {
                let layout = self.layout(|plan| Layout::of_stored(plan, &batch.schema()))?;
                self.edition += 1;
                let late = self.add_cells(batch, &layout, false)?;
                out.count_late(late);
            }
        }
        self.check_bytes()
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let until = watermark.nanos();
        if until <= self.fired {
            return Ok(());
        }
        if self.due <= until {
            self.fire(until, out)?;
            self.due = self.panes.keys().filter_map(|class| self.grid.next(*class, until)).min().unwrap_or(i64::MAX);
        }
        self.fired = until;
        Ok(())
    }

    fn timer(&mut self, now: Timestamp, out: &mut Out) -> Result<Option<Timestamp>, Error> {
        self.tell_open(now.nanos(), out)
    }

    fn hold(&self, watermark: Timestamp) -> Timestamp {
        if watermark == Timestamp::MAX || self.plan.phase == Phase::Local {
            return watermark;
        }
        Timestamp::from_nanos(watermark.nanos().saturating_sub(self.grid.lateness))
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        if self.plan.phase == Phase::Local {
            return Ok(Vec::new());
        }
        let clock = Arc::new(Clock(Timestamp::from_nanos(self.fired)));
        // The clock is its own edition: it only goes on.
        let edition = self.fired.cast_unsigned();
        let (table, groups) = (CLOCK_TABLE.to_owned(), self.groups);
        let mut blocks = vec![StateBlock { table, groups, time: None, edition, content: clock }];
        blocks.extend(self.early.snapshot(self.groups));
        let Some(layout) = &self.layout else { return Ok(blocks) };
        for (class, pane) in &self.panes {
            for chunk in 0..pane.len().div_ceil(CHUNK) {
                let table = format!("{TABLE}-{}-{}-{chunk}", class.first, class.again);
                let groups = pane.only(chunk);
                let each = |value: i64| vec![value; groups.len()];
                let before = CLASS.into_iter().zip([class.pane, class.first, class.again].map(each)).collect();
                let piece = Piece { groups, layout: Arc::clone(layout), table: table.clone(), before };
                blocks.push(StateBlock {
                    table,
                    groups: self.groups,
                    time: Some(Timestamp::from_nanos(class.pane)),
                    edition: pane.editions[chunk],
                    content: Arc::new(piece),
                });
            }
        }
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        let (clocks, panes): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.table == CLOCK_TABLE);
        self.fired = Clock::of_all(clocks)?;
        self.edition += 1;
        for block in panes {
            if block.table == TOLD_TABLE {
                self.early.restore(block, self.groups, &self.plan.keys)?;
                continue;
            }
            let (schema, batches) = own_rows(&block.bytes, self.groups)?;
            let stored = Layout::of_stored(&self.plan, &schema)?;
            let layout = self.layout(|_| Ok(stored))?;
            for batch in batches {
                self.add_cells(&batch, &layout, true)?;
            }
        }
        self.check_bytes()
    }

    fn bytes(&self) -> usize {
        self.bytes + self.early.bytes()
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let Some(layout) = &self.layout else { return Ok(None) };
        let mut rows = vec![RecordBatch::new_empty(Arc::clone(layout.output()))];
        let (mut skip, mut left) = (skip, limit);
        for (class, pane) in &self.panes {
            let groups = pane.table.in_key_order();
            let shown = &groups[skip.min(groups.len())..groups.len().min(skip.saturating_add(left))];
            let window = (class.pane, class.pane.saturating_add(self.grid.pane));
            rows.push(pane.rows(layout, (shown, shown), &|_| window, None)?);
            skip = skip.saturating_sub(groups.len());
            left -= shown.len();
            if left == 0 {
                break;
            }
        }
        Ok(Some(arrow::compute::concat_batches(layout.output(), &rows)?))
    }
}
