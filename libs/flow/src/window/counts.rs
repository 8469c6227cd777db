//! Windows by count: each so many rows of a key, in their order.
//!
//! A window is one place for cells, as a session is: rows of a batch that belong to several windows of a key go to several places,
//! and are added in one pass.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampNanosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
};

use super::{
    BATCH_ROWS, Emit, Phase, TIME_COLUMN, WindowPlan, WindowShape,
    cells::Cells,
    chunk::{CHUNK, Chunked, at, chunk_of, number},
    groups::{Groups, Layout, damaged},
};
use crate::{
    Error, Frozen, INSTANT_TYPE, KeyGroups, Out, StateBlock, column,
    ordered::{InOrder, RowForm, StoredRows, stored_schema},
};

/// The table of open windows; a piece of it has its number behind that.
const TABLE: &str = "counts";
/// The first row of a window, and how many there are, in stored rows.
const FIRST_COLUMN: &str = "_first";
const ROWS_COLUMN: &str = "_rows";
/// Keys without windows are dropped when they are more than the others, and more than this.
const DEAD_KEYS_MIN: usize = 1_024;
/// Bytes of a window beside its key and its aggregates.
const WINDOW_BYTES: usize = 40;
/// No window is open.
const NONE: u32 = u32::MAX;

/// One place for a window; it is empty if it has no rows.
#[derive(Debug, Clone, Default)]
struct Window {
    key: u32,
    first: i64,
    rows: u64,
}

/// What follows from the columns of rows.
#[derive(Debug)]
struct State {
    layout: Arc<Layout>,
    /// Keys by number, and cells by window: the two are not the same here.
    groups: Groups,
    windows: Chunked<Window>,
    places: usize,
    free: Vec<u32>,
    /// Of each key its open window.
    open: Vec<u32>,
}

/// Windows by count as work on rows in order. A window that never gets its last row gives nothing.
#[derive(Debug)]
pub(crate) struct CountRows {
    name: String,
    plan: WindowPlan,
    rows: u64,
    state: Option<State>,
    edition: u64,
    numbers: Vec<u32>,
}

/// The rows of a window by count.
pub(super) fn rows_of(plan: &WindowPlan) -> Result<u64, Error> {
    let wrong = |problem: &str| Err(Error::Window(problem.to_owned()));
    match plan.shape {
        WindowShape::Count { rows: 0 } => wrong("a count of 0 rows is no window: give at least 1"),
        _ if !plan.lateness.0.is_zero() => wrong("a window by count has no lateness, for it does not end by time"),
        _ if plan.phase != Phase::Whole => {
            wrong("a window by count has one phase, for it depends on the order of rows")
        }
        _ if plan.emit != Emit::OnClose || plan.early.is_some() => {
            wrong("a window by count gives rows at its end only")
        }
        WindowShape::Count { rows } => Ok(rows),
        _ => wrong("only a count has rows"),
    }
}

impl State {
    /// The window that a row goes to, and whether it is the last one of it.
    fn place(&mut self, key: u32, time: i64, rows: u64) -> (u32, bool) {
        let open = self.open[at(key)];
        let place = if open != NONE {
            self.windows.get_mut(open).rows += 1;
            open
        } else {
            let window = Window { key, first: time, rows: 1 };
            let place = self.free.pop().unwrap_or_else(|| {
                self.places += 1;
                number(self.places - 1)
            });
            self.windows.grow(self.places, &Window::default());
            *self.windows.get_mut(place) = window;
            place
        };
        let last = self.windows.get(place).rows == rows;
        self.open[at(key)] = if last { NONE } else { place };
        (place, last)
    }

    fn touch(&mut self, places: &[u32], edition: u64) {
        self.groups.editions.resize(self.places.div_ceil(CHUNK), edition);
        places.iter().for_each(|place| self.groups.editions[chunk_of(*place)] = edition);
    }

    /// Forgets keys that have no window, if they are many.
    fn forget_keys(&mut self) {
        let windows = self.places - self.free.len();
        if self.open.len() - windows < windows.max(DEAD_KEYS_MIN) {
            return;
        }
        let alive: Vec<u32> = (0..number(self.open.len())).filter(|key| self.open[at(*key)] != NONE).collect();
        self.groups.table = self.groups.table.kept(&alive);
        self.open = alive.iter().map(|key| self.open[at(*key)]).collect();
        for (key, place) in (0u32..).zip(&self.open) {
            self.windows.get_mut(*place).key = key;
        }
    }
}

impl CountRows {
    pub(crate) fn new(plan: &WindowPlan, name: &str) -> Result<Self, Error> {
        plan.validate()?;
        let (name, rows) = (name.to_owned(), rows_of(plan)?);
        Ok(Self { name, rows, plan: plan.clone(), state: None, edition: 0, numbers: Vec::new() })
    }
}

impl InOrder for CountRows {
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        form.only_appends("window by count")?;
        let layout = Arc::new(Layout::learn(&self.plan, &RecordBatch::new_empty(Arc::clone(form.kept())))?);
        let groups = Groups::new(&layout);
        let (windows, free, open) = (Chunked::default(), Vec::new(), Vec::new());
        self.state = Some(State { layout, groups, windows, places: 0, free, open });
        Ok(())
    }

    fn columns(&self) -> Option<Vec<String>> {
        let of = self.plan.aggregates.iter().filter_map(|aggregate| aggregate.column.clone());
        Some(self.plan.keys.iter().cloned().chain(of).collect())
    }

    fn rows(&mut self, rows: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let layout = Arc::clone(&state.layout);
        let (input, times) = (layout.read(rows)?, column::times(rows, TIME_COLUMN)?);
        state.groups.table.groups(&input.keyed, None, &mut self.numbers);
        state.open.resize(state.groups.table.len(), NONE);
        let (mut of_row, mut full) = (Vec::with_capacity(times.len()), Vec::new());
        for (key, time) in self.numbers.iter().zip(times.iter()) {
            let (place, last) = state.place(*key, *time, self.rows);
            of_row.push(place);
            if last {
                full.push((place, time.saturating_add(1)));
            }
        }
        for (cells, values) in state.groups.cells.iter_mut().zip(&input.values) {
            cells.grow(state.places);
            cells.update(&of_row, None, values);
        }
        self.edition += 1;
        state.touch(&of_row, self.edition);
        for part in full.chunks(BATCH_ROWS) {
            let places: Vec<u32> = part.iter().map(|(place, _)| *place).collect();
            let keys: Vec<u32> = places.iter().map(|place| state.windows.get(*place).key).collect();
            let window = |row: usize| (state.windows.get(places[row]).first, part[row].1);
            let faults = Some((self.name.as_str(), &mut *out));
            let batch = state.groups.rows(&layout, (&keys, &places), &window, faults)?;
            out.rows(batch);
        }
        for (place, _) in full {
            *state.windows.get_mut(place) = Window::default();
            state.groups.cells.iter_mut().for_each(|cells| cells.clear(place));
            state.free.push(place);
        }
        Ok(())
    }

    fn passed(&mut self, _: i64, _: i64, _: &mut Out) -> Result<(), Error> {
        if let Some(state) = &mut self.state {
            state.forget_keys();
        }
        Ok(())
    }

    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let first = Field::new(FIRST_COLUMN, INSTANT_TYPE, false);
        let before = [first, Field::new(ROWS_COLUMN, DataType::Int64, false)];
        let mut blocks = Vec::new();
        for piece in 0..state.places.div_ceil(CHUNK) {
            let table = format!("{TABLE}-{piece}");
            let fields = state.layout.stored(&table, &before).fields().clone();
            let cells = state.groups.cells.iter().map(|cells| cells.only(piece)).collect();
            let content = Arc::new(Piece {
                groups: Groups { table: state.groups.table.shared(), cells, editions: Vec::new() },
                windows: state.windows.only(piece),
                schema: stored_schema(&Schema::new(fields), &table, what),
            });
            blocks.push(StateBlock { table, groups, time: None, edition: state.groups.editions[piece], content });
        }
        Ok(blocks)
    }

    fn restore(&mut self, _: &str, rows: &RecordBatch) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let missing = |name: &str| damaged(format!("{name} is missing"));
        let firsts = rows.column_by_name(FIRST_COLUMN).and_then(|a| a.as_primitive_opt::<TimestampNanosecondType>());
        let counts = rows.column_by_name(ROWS_COLUMN).and_then(|a| a.as_primitive_opt::<Int64Type>());
        let (firsts, counts) =
            (firsts.ok_or_else(|| missing(FIRST_COLUMN))?, counts.ok_or_else(|| missing(ROWS_COLUMN))?);
        let (keyed, loaded) = (state.layout.form.read(rows)?, state.layout.load(rows)?);
        state.groups.table.groups(&keyed, None, &mut self.numbers);
        state.open.resize(state.groups.table.len(), NONE);
        let mut places = Vec::with_capacity(rows.num_rows());
        for (row, key) in self.numbers.iter().enumerate() {
            let (place, _) = state.place(*key, firsts.value(row), u64::MAX);
            state.windows.get_mut(place).rows = u64::try_from(counts.value(row)).unwrap_or(1);
            places.push(place);
        }
        let all: Vec<u32> = (0..number(rows.num_rows())).collect();
        for (cells, loaded) in state.groups.cells.iter_mut().zip(&loaded) {
            cells.grow(state.places);
            cells.merge(&places, loaded, &all);
        }
        self.edition += 1;
        state.touch(&places, self.edition);
        Ok(())
    }

    fn bytes(&self) -> usize {
        let Some(state) = &self.state else { return 0 };
        let cells: usize = state.groups.cells.iter().map(Cells::cell_bytes).sum();
        state.groups.table.bytes() + (state.places - state.free.len()) * (WINDOW_BYTES + cells)
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let Some(state) = &self.state else { return Ok(None) };
        let open = (0..number(state.places)).filter(|place| state.windows.get(*place).rows > 0);
        let shown: Vec<u32> = open.skip(skip).take(limit).collect();
        let keys: Vec<u32> = shown.iter().map(|place| state.windows.get(*place).key).collect();
        let window = |row: usize| {
            let first = state.windows.get(shown[row]).first;
            (first, first.saturating_add(1))
        };
        Ok(Some(state.groups.rows(&state.layout, (&keys, &shown), &window, None)?))
    }
}

/// A piece of the open windows on its way to storage.
#[derive(Debug)]
struct Piece {
    groups: Groups,
    windows: Chunked<Window>,
    schema: SchemaRef,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let open = || (0u32..).zip(self.windows.iter()).filter(|(_, window)| window.rows > 0);
        let firsts = TimestampNanosecondArray::from_iter_values(open().map(|(_, window)| window.first));
        let rows: Int64Array = open().map(|(_, window)| i64::try_from(window.rows).unwrap_or(i64::MAX)).collect();
        let before: Vec<ArrayRef> = vec![Arc::new(firsts), Arc::new(rows)];
        let (keys, places): (Vec<u32>, Vec<u32>) = open().map(|(place, window)| (window.key, place)).unzip();
        let rows = self.groups.stored(&self.schema, before, (&keys, &places))?;
        StoredRows { schema: Arc::clone(&self.schema), rows }.encode()
    }

    fn bytes(&self) -> usize {
        let cells: usize = self.groups.cells.iter().map(Cells::cell_bytes).sum();
        self.windows.iter().count() * (WINDOW_BYTES + cells)
    }
}
