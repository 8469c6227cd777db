//! Group aggregates: what each key comes to, and how that changed since it was last told.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array},
    compute::{concat, take},
    datatypes::{DataType, Field, Int8Type, Schema, SchemaRef},
};

use super::{changes::Told, columns::Columns};
use crate::{
    CHANGE_COLUMN, Change, Error, ErrorPolicy, Frozen, GroupSpec, HASH_COLUMN, KeyGroups, Out, StateBlock, TIME_COLUMN,
    column,
    ordered::{InOrder, Keys, KeysPiece, RowForm, StoredRows, stored_schema},
    window::{
        cells::CellSpec,
        chunk::{at, number},
        grid,
        groups::{damaged, result_field, shared},
        results::Results,
        table::KeyForm,
    },
};

/// The table of groups; a piece of it has its number behind that.
const TABLE: &str = "groups";
/// The table of what was told of groups that have changed since.
const CHANGED_TABLE: &str = "changed";
/// Whether something was told at all, in stored rows.
const SHOWN_COLUMN: &str = "_shown";
/// How often keys are looked for that can be forgotten, as a part of their time to live.
const SWEEPS: i64 = 4;
/// Groups without rows are looked for when they may be so many, and half of all.
const EMPTY_MIN: usize = 1_024;
/// About how many bytes one remembered result takes.
const BEFORE_BYTES: usize = 24;
/// The instant of a group without rows.
const NEVER: i64 = i64::MIN;

/// What follows from the columns of rows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) keys: Keys,
    pub(super) cells: Vec<CellSpec>,
    /// Of each aggregate its cells, and whether it is their mean.
    pub(super) results: Vec<(usize, bool)>,
    pub(super) columns: Columns,
    /// The columns of what is told, but for the change.
    pub(super) output: SchemaRef,
    changes: bool,
    changed: Changed,
}

/// The groups that have changed since they were last told, in the order in which they did.
#[derive(Debug, Default)]
struct Changed {
    groups: Vec<u32>,
    /// Of each group its place among them, from 1.
    place: Vec<u32>,
    /// Whether something had been told of it, and what: columns of results, part by part.
    shown: Vec<bool>,
    before: Vec<Vec<ArrayRef>>,
    edition: u64,
}

/// Group aggregates as work on rows; only with a time to live does their order matter.
#[derive(Debug)]
pub(crate) struct GroupRows {
    name: String,
    spec: GroupSpec,
    ttl: Option<i64>,
    /// Whether a sum beyond 64 bits takes the whole row with it.
    gone: bool,
    state: Option<State>,
    numbers: Vec<u32>,
    /// Groups that lost their last row, at most.
    empty: usize,
    bag_bytes: isize,
}

impl GroupRows {
    pub(crate) fn new(spec: &GroupSpec, name: &str, errors: ErrorPolicy) -> Result<Self, Error> {
        spec.validate()?;
        let ttl = spec.ttl.map(|ttl| grid::nanos("ttl", ttl, false)).transpose()?;
        let gone = errors == ErrorPolicy::DeadLetter;
        let (name, spec) = (name.to_owned(), spec.clone());
        Ok(Self { name, spec, ttl, gone, state: None, numbers: Vec::new(), empty: 0, bag_bytes: 0 })
    }

    /// Adds rows to their groups, or takes them away.
    fn apply(&mut self, rows: &RecordBatch, numbers: &[u32]) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        state.note(numbers, self.gone)?;
        let values = state.cells.iter().map(|cell| cell.read(rows)).collect::<Result<Vec<_>, Error>>()?;
        let signs = if state.changes { signs(rows)? } else { Vec::new() };
        self.bag_bytes += state.columns.update(numbers, &signs, &values);
        Ok(())
    }

    /// The same where keys are forgotten on the way.
    fn apply_in_time(&mut self, rows: &RecordBatch, numbers: &[u32], ttl: i64) -> Result<(), Error> {
        let times = column::times(rows, TIME_COLUMN)?;
        let mut start = 0;
        for (row, (group, time)) in numbers.iter().zip(times.iter().copied()).enumerate() {
            let Some(state) = &mut self.state else { return Ok(()) };
            let since = state.keys.since.get_mut(*group);
            let before = std::mem::replace(since, time);
            if before == NEVER || time < before.saturating_add(ttl) {
                continue;
            }
            self.apply(&rows.slice(start, row - start), &numbers[start..row])?;
            start = row;
            if let Some(state) = &mut self.state {
                state.forget(*group);
            }
        }
        self.apply(&rows.slice(start, rows.num_rows() - start), &numbers[start..])
    }

    /// Forgets groups whose time is over or that have no rows, if they are many.
    fn sweep(&mut self, until: i64) {
        let Some(state) = &mut self.state else { return };
        let mostly_empty = self.empty >= EMPTY_MIN.max(state.keys.table.len() / 2);
        let due = self.ttl.is_some_and(|ttl| state.keys.sweeps(until, ttl / SWEEPS));
        if !mostly_empty && !due {
            return;
        }
        self.empty = 0;
        let over = |since: i64| self.ttl.is_some_and(|ttl| until >= since.saturating_add(ttl));
        if let Some(alive) = state.keys.forget(|since| *since == NEVER || over(*since)) {
            state.columns = state.columns.kept(&state.cells, &alive);
            state.changed.place = vec![0; alive.len()];
            self.bag_bytes = state.columns.bag_bytes().cast_signed();
        }
    }
}

/// What rows do: 1 adds, -1 takes away.
fn signs(rows: &RecordBatch) -> Result<Vec<i64>, Error> {
    let wrong = |found: String| Error::ColumnType {
        column: CHANGE_COLUMN.to_owned(),
        found,
        wanted: "the code of a change, never null".to_owned(),
    };
    let array = column::column(rows, CHANGE_COLUMN)?;
    let codes = array.as_primitive_opt::<Int8Type>().filter(|codes| codes.null_count() == 0);
    let codes = codes.ok_or_else(|| wrong(array.data_type().to_string()))?;
    let sign = |code: &i8| match Change::of(*code) {
        Some(change) => Ok(if change.adds() { 1 } else { -1 }),
        None => Err(wrong(format!("code {code}"))),
    };
    codes.values().iter().map(sign).collect()
}

impl State {
    /// Whether groups have something to show, from the results of all cells.
    pub(super) fn shown(&self, results: &[Results], gone: bool) -> Vec<bool> {
        let Some(Results::Counts(rows)) = results.first() else { return Vec::new() };
        let sums = || self.results.iter().filter(|(_, mean)| !mean).map(|(place, _)| &results[*place]);
        let one = |(row, count): (usize, &i64)| *count > 0 && !(gone && sums().any(|sums| sums.overflows(row)));
        rows.iter().enumerate().map(one).collect()
    }

    /// The columns of aggregates, from the results of all cells.
    pub(super) fn arrays(&self, results: &[Results]) -> Result<Vec<ArrayRef>, Error> {
        self.results.iter().map(|(place, mean)| results[*place].array(*mean, self.cells[*place].kind)).collect()
    }

    /// Remembers what was told of groups before they change.
    fn note(&mut self, numbers: &[u32], gone: bool) -> Result<(), Error> {
        let known = self.changed.groups.len();
        self.changed.place.resize(self.keys.table.len(), 0);
        for group in numbers {
            let place = &mut self.changed.place[at(*group)];
            if *place == 0 {
                self.changed.groups.push(*group);
                *place = number(self.changed.groups.len());
            }
        }
        self.keys.touch(numbers);
        let fresh = &self.changed.groups[known..];
        if !fresh.is_empty() {
            let results = self.columns.results(fresh);
            let (shown, before) = (self.shown(&results, gone), self.arrays(&results)?);
            self.changed.shown.extend(shown);
            self.changed.before.push(before);
            self.changed.edition += 1;
        }
        Ok(())
    }

    /// A group whose time is over begins anew, as if nothing had been told of it.
    fn forget(&mut self, group: u32) {
        self.columns.clear(group);
        let place = self.changed.place.get(at(group)).map_or(0, |place| at(*place));
        // One that has not changed yet is noted by the row that follows, with nothing to show.
        if let Some(shown) = self.changed.shown.get_mut(place.wrapping_sub(1)) {
            *shown = false;
        }
    }

    /// What was told of the changed groups, as columns.
    fn before(&self) -> Result<Vec<ArrayRef>, Error> {
        let column = |place: usize| {
            let parts: Vec<&dyn Array> = self.changed.before.iter().map(|part| part[place].as_ref()).collect();
            Ok(concat(&parts)?)
        };
        (0..self.results.len()).map(column).collect()
    }

    /// The changed groups by key, with what was told of them; nothing has changed then.
    fn take_changed(&mut self) -> Result<Option<(Vec<u32>, Told)>, Error> {
        if self.changed.groups.is_empty() {
            return Ok(None);
        }
        let mut order: Vec<u32> = (0..number(self.changed.groups.len())).collect();
        let group = |place: &u32| self.changed.groups[at(*place)];
        order.sort_unstable_by(|a, b| self.keys.table.compare(group(a), group(b)));
        let groups: Vec<u32> = order.iter().map(group).collect();
        let shown = order.iter().map(|place| self.changed.shown[at(*place)]).collect();
        let places = UInt32Array::from(order);
        let before = self.before()?.iter().map(|array| take(array, &places, None)).collect::<Result<Vec<_>, _>>()?;
        groups.iter().for_each(|group| self.changed.place[at(*group)] = 0);
        self.changed.groups.clear();
        self.changed.shown.clear();
        self.changed.before.clear();
        Ok(Some((groups, Told { shown, columns: before })))
    }

    fn changed_schema(&self) -> Schema {
        let keys = self.keys.form.columns().iter().map(|(name, kind)| Field::new(name, kind.clone(), true));
        let first =
            [Field::new(HASH_COLUMN, DataType::UInt64, false), Field::new(SHOWN_COLUMN, DataType::Boolean, false)];
        let skipped = 1 + self.keys.form.columns().len();
        let results = self.output.fields()[skipped..].iter().map(|field| field.as_ref().clone().with_nullable(true));
        Schema::new(first.into_iter().chain(keys).chain(results).collect::<Vec<_>>())
    }

    /// What was told of changed groups, to be stored.
    fn changed_rows(&self, what: &str) -> Result<Option<StoredRows>, Error> {
        let groups = &self.changed.groups;
        if groups.is_empty() {
            return Ok(None);
        }
        let hashes: UInt64Array = groups.iter().map(|group| self.keys.table.hash(*group)).collect();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(hashes), Arc::new(BooleanArray::from(self.changed.shown.clone()))];
        columns.extend(self.keys.table.columns(groups)?);
        columns.extend(self.before()?);
        let schema = stored_schema(&self.changed_schema(), CHANGED_TABLE, what);
        Ok(Some(StoredRows { rows: RecordBatch::try_new(Arc::clone(&schema), columns)?, schema }))
    }

    fn load_changed(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let mut numbers = Vec::new();
        self.keys.numbers(&self.keys.form.read(rows)?, &mut numbers, NEVER);
        self.columns.grow(self.keys.table.len());
        self.keys.touch(&numbers);
        self.changed.place.resize(self.keys.table.len(), 0);
        let shown = rows.column_by_name(SHOWN_COLUMN).and_then(|array| array.as_boolean_opt());
        let shown = shown.ok_or_else(|| damaged(format!("{SHOWN_COLUMN} is missing")))?;
        for group in &numbers {
            self.changed.groups.push(*group);
            self.changed.place[at(*group)] = number(self.changed.groups.len());
        }
        self.changed.shown.extend(shown.values().iter());
        self.changed.before.push(rows.columns()[rows.num_columns() - self.results.len()..].to_vec());
        self.changed.edition += 1;
        Ok(())
    }
}

impl InOrder for GroupRows {
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        let each = self.spec.aggregates.iter().map(|aggregate| CellSpec::learn(aggregate, &empty));
        let each = each.collect::<Result<Vec<_>, Error>>()?;
        let (cells, results) = shared(vec![CellSpec::ROWS], &self.spec.aggregates, &each);
        let keys = Keys::new(KeyForm::learn(&self.spec.keys, &empty)?);
        let time = column::column(&empty, TIME_COLUMN)?.data_type().clone();
        let mut output = vec![Field::new(TIME_COLUMN, time, false)];
        output.extend(keys.form.columns().iter().map(|(name, kind)| Field::new(name, kind.clone(), true)));
        for (aggregate, (place, mean)) in self.spec.aggregates.iter().zip(&results) {
            output.push(result_field(aggregate, &cells[*place], *mean));
        }
        let changes = form.shown().field_with_name(CHANGE_COLUMN).is_ok();
        let (columns, output) = (Columns::new(&cells, changes), Arc::new(Schema::new(output)));
        self.state = Some(State { keys, cells, results, columns, output, changes, changed: Changed::default() });
        Ok(())
    }

    fn waits(&self) -> bool {
        self.ttl.is_some()
    }

    fn columns(&self) -> Option<Vec<String>> {
        let of = self.spec.aggregates.iter().filter_map(|aggregate| aggregate.column.clone());
        Some(self.spec.keys.iter().cloned().chain(of).collect())
    }

    fn rows(&mut self, rows: &RecordBatch, _: &mut Out) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let mut numbers = std::mem::take(&mut self.numbers);
        state.keys.numbers(&state.keys.form.read(rows)?, &mut numbers, NEVER);
        state.columns.grow(state.keys.table.len());
        match self.ttl {
            Some(ttl) => self.apply_in_time(rows, &numbers, ttl)?,
            None => {
                let times = column::times(rows, TIME_COLUMN)?;
                state.keys.since.each(&numbers, |since, row| *since = times[row].max(*since));
                self.apply(rows, &numbers)?;
            }
        }
        self.numbers = numbers;
        Ok(())
    }

    fn passed(&mut self, from: i64, until: i64, out: &mut Out) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        if let Some((groups, told)) = state.take_changed()? {
            self.empty +=
                super::changes::tell(state, (&groups, told), (self.spec.mode, from), (&self.name, self.gone), out)?;
        }
        self.sweep(until);
        Ok(())
    }

    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let mut fields = state.keys.fields();
        fields.extend(state.columns.fields(&state.cells));
        let schema = Schema::new(fields);
        let content = |keys, piece, table: &str| -> Arc<dyn Frozen> {
            Arc::new(Piece { keys, columns: state.columns.only(piece), schema: stored_schema(&schema, table, what) })
        };
        let mut blocks = state.keys.blocks(TABLE, groups, content);
        if let Some(rows) = state.changed_rows(what)? {
            let (table, edition) = (CHANGED_TABLE.to_owned(), state.changed.edition);
            blocks.push(StateBlock { table, groups, time: None, edition, content: Arc::new(rows) });
        }
        Ok(blocks)
    }

    fn restore(&mut self, table: &str, rows: &RecordBatch) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        if table == CHANGED_TABLE {
            return state.load_changed(rows);
        }
        let numbers = state.keys.load(rows)?;
        state.columns.grow(state.keys.table.len());
        state.columns.load(&state.cells, &numbers, rows)?;
        self.bag_bytes = state.columns.bag_bytes().cast_signed();
        Ok(())
    }

    fn bytes(&self) -> usize {
        let Some(state) = &self.state else { return 0 };
        let before = state.changed.groups.len() * state.results.len() * BEFORE_BYTES;
        let cells = state.keys.table.len() * state.columns.group_bytes();
        state.keys.bytes() + cells + before + usize::try_from(self.bag_bytes).unwrap_or(0)
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let Some(state) = &self.state else { return Ok(None) };
        let all = state.keys.table.in_key_order();
        let shown = state.shown(&state.columns.results(&all), self.gone);
        let there = all.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(group, _)| group);
        let groups: Vec<u32> = there.skip(skip).take(limit).collect();
        let columns = state.arrays(&state.columns.results(&groups))?;
        Ok(Some(super::changes::told(state, &groups, columns, NEVER)?))
    }
}

/// A piece of groups on its way to storage.
#[derive(Debug)]
struct Piece {
    keys: KeysPiece,
    columns: Columns,
    schema: SchemaRef,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let all = self.keys.all();
        let mut columns = self.keys.columns(&all)?;
        columns.extend(self.columns.store(&all)?);
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        StoredRows { schema: Arc::clone(&self.schema), rows }.encode()
    }

    fn bytes(&self) -> usize {
        self.keys.bytes() + self.keys.all().len() * self.columns.group_bytes() + self.columns.bag_bytes()
    }
}
