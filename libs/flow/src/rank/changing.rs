//! The first rows of each key as they change: top-N over everything, and deduplication by the last row.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::entries::{Encoded, Encoding, Entry};
use crate::{
    Change, ChangelogMode, DedupSpec, Error, Frozen, KeyGroups, Out, SortKey, StateBlock, TopNSpec,
    group::{Step, give},
    ordered::{InOrder, Keys, KeysPiece, RowForm, StoredRows, stored_schema},
    window::{
        chunk::{Chunked, at, number},
        grid,
        table::KeyForm,
    },
};

/// The table of rows; a piece of it has its number behind that.
const TABLE: &str = "ranked";
/// Keys without rows are looked for when they may be so many, and half of all.
const EMPTY_MIN: usize = 1_024;
/// How often keys are looked for that can be forgotten, as a part of their time to live.
const SWEEPS: i64 = 4;
/// The instant of a key without rows.
const NEVER: i64 = i64::MIN;

/// The rows of a key by rank.
type List = BTreeMap<Arc<[u8]>, Entry>;

/// What is ranked how.
#[derive(Debug, Clone)]
struct Ranks {
    keys: Vec<String>,
    order: Vec<SortKey>,
    /// Of rows that are equal, the last one is the first.
    last: bool,
    limit: usize,
    /// The name of the rank.
    rank: Option<String>,
    /// Whether what stands at one rank is replaced, or rows come and go.
    replaces: bool,
    mode: ChangelogMode,
    ttl: Option<i64>,
}

/// What follows from the columns of rows.
#[derive(Debug)]
struct State {
    encoding: Arc<Encoding>,
    keys: Keys,
    lists: Chunked<List>,
}

/// The ranked rows of each key as work on rows in order.
#[derive(Debug)]
pub(crate) struct RankedRows {
    ranks: Ranks,
    state: Option<State>,
    numbers: Vec<u32>,
    /// The keys that have changed at this watermark, and the first rows that they had.
    changed: Vec<u32>,
    before: Vec<Vec<Entry>>,
    /// Of each key its place among those, from 1.
    place: Vec<u32>,
    /// Numbers rows.
    clock: u64,
    sort: Vec<u8>,
    empty: usize,
    bytes: usize,
}

impl RankedRows {
    /// Top-N over everything.
    pub(crate) fn top(spec: &TopNSpec) -> Result<Self, Error> {
        Ok(Self::new(Ranks {
            keys: spec.keys.clone(),
            order: spec.order.clone(),
            last: false,
            limit: spec.validate()?,
            rank: spec.rank.clone(),
            replaces: spec.rank.is_some(),
            mode: spec.mode,
            ttl: None,
        }))
    }

    /// Deduplication by the last row.
    pub(crate) fn last(spec: &DedupSpec) -> Result<Self, Error> {
        Ok(Self::new(Ranks {
            keys: spec.keys.clone(),
            order: Vec::new(),
            last: true,
            limit: 1,
            rank: None,
            replaces: true,
            mode: ChangelogMode::Retract,
            ttl: spec.ttl.map(|ttl| grid::nanos("ttl", ttl, false)).transpose()?,
        }))
    }

    fn new(ranks: Ranks) -> Self {
        Self {
            ranks,
            state: None,
            numbers: Vec::new(),
            changed: Vec::new(),
            before: Vec::new(),
            place: Vec::new(),
            clock: 0,
            sort: Vec::new(),
            empty: 0,
            bytes: 0,
        }
    }

    /// Takes a row to its key, or one away from it.
    fn take(&mut self, key: u32, rows: &Encoded, row: usize) {
        let Some(state) = &mut self.state else { return };
        let (limit, all) = (self.ranks.limit, state.encoding.changes());
        let time = rows.times[row];
        let forgotten = self.ranks.ttl.is_some_and(|ttl| {
            let since = *state.keys.since.get(key);
            since != NEVER && time >= since.saturating_add(ttl)
        });
        let known = state.lists.get(key);
        self.clock += 1;
        rows.sort(row, self.clock, &mut self.sort);
        // Most rows are no better than those that are known.
        let beyond = !all && !forgotten && known.len() >= limit;
        if beyond && known.last_key_value().is_some_and(|(worst, _)| **worst <= *self.sort) {
            return;
        }
        self.place.resize(state.keys.table.len(), 0);
        let place = &mut self.place[at(key)];
        if *place == 0 {
            self.changed.push(key);
            self.before.push(known.values().take(limit).cloned().collect());
            *place = number(self.changed.len());
        }
        let list = state.lists.get_mut(key);
        if forgotten {
            self.bytes = self.bytes.saturating_sub(list.values().map(Entry::bytes).sum());
            list.clear();
            self.before[at(*place) - 1].clear();
        }
        let gone = if rows.takes(row) {
            // Its place is another than that of the row that it takes away.
            let (order, content) = (rows.order(row), rows.content(row));
            let ranked_so = list.range::<[u8], _>((Bound::Included(order), Bound::Unbounded));
            let mut ranked_so = ranked_so.take_while(|(sort, _)| sort.starts_with(order));
            ranked_so.find(|(_, entry)| *entry.row == *content).map(|(sort, _)| Arc::clone(sort))
        } else {
            let entry = rows.entry(row, &self.sort);
            self.bytes += entry.bytes();
            list.insert(Arc::clone(&entry.sort), entry);
            list.last_key_value().filter(|_| !all && list.len() > limit).map(|(worst, _)| Arc::clone(worst))
        };
        let gone = gone.and_then(|sort| list.remove(&sort));
        self.bytes = self.bytes.saturating_sub(gone.map_or(0, |entry| entry.bytes()));
        // Of rows of which the last counts, the first one is the newest.
        let newest = list.first_key_value().map(|(_, first)| if self.ranks.last { first.time } else { 0 });
        *state.keys.since.get_mut(key) = newest.unwrap_or(NEVER);
    }

    /// The steps from what one key had to what it has.
    fn steps<'a>(&self, old: &'a [Entry], new: &[&'a Entry], mut each: impl FnMut(&'a Entry, usize, Change)) {
        if !self.ranks.replaces {
            let stays = |entry: &Entry| new.binary_search_by(|known| known.sort.cmp(&entry.sort)).is_ok();
            let known = |entry: &Entry| old.binary_search_by(|known| known.sort.cmp(&entry.sort)).is_ok();
            for (rank, entry) in old.iter().enumerate().filter(|(_, entry)| !stays(entry)) {
                each(entry, rank, Change::Delete);
            }
            for (rank, entry) in new.iter().enumerate().filter(|(_, entry)| !known(entry)) {
                each(entry, rank, Change::Insert);
            }
            return;
        }
        for rank in 0..old.len().max(new.len()) {
            match (old.get(rank), new.get(rank)) {
                (None, Some(new)) => each(new, rank, Change::Insert),
                (Some(old), None) => each(old, rank, Change::Delete),
                (Some(old), Some(new)) if old.sort != new.sort => {
                    if self.ranks.mode == ChangelogMode::Retract {
                        each(old, rank, Change::UpdateBefore);
                    }
                    each(new, rank, Change::UpdateAfter);
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, from: i64, out: &mut Out) -> Result<(), Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut order: Vec<usize> = (0..self.changed.len()).collect();
        order.sort_unstable_by(|a, b| state.keys.table.compare(self.changed[*a], self.changed[*b]));
        let (mut entries, mut ranks, mut steps) = (Vec::new(), Vec::new(), Vec::<Step>::new());
        for place in order {
            let list = state.lists.get(self.changed[place]);
            let new: Vec<&Entry> = list.values().take(self.ranks.limit).collect();
            self.steps(&self.before[place], &new, |entry, rank, change| {
                steps.push(((0, steps.len()), change));
                entries.push(entry);
                ranks.push(i64::try_from(rank + 1).unwrap_or(i64::MAX));
            });
        }
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = state.encoding.show(&entries, from)?;
        if let Some(rank) = &self.ranks.rank {
            let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
            fields.push(Field::new(rank, DataType::Int64, false));
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(ranks)));
            batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        }
        give(&[&batch], &steps, out)
    }

    fn sweep(&mut self, until: i64) {
        let Some(state) = &mut self.state else { return };
        let mostly_empty = self.empty >= EMPTY_MIN.max(state.keys.table.len() / 2);
        let due = self.ranks.ttl.is_some_and(|ttl| state.keys.sweeps(until, ttl / SWEEPS));
        if !mostly_empty && !due {
            return;
        }
        self.empty = 0;
        let over = |since: i64| self.ranks.ttl.is_some_and(|ttl| until >= since.saturating_add(ttl));
        if let Some(alive) = state.keys.forget(|since| *since == NEVER || over(*since)) {
            state.lists = state.lists.kept(&alive);
            self.bytes = state.lists.iter().flat_map(BTreeMap::values).map(Entry::bytes).sum();
            self.place = vec![0; alive.len()];
        }
    }
}

impl InOrder for RankedRows {
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        super::check_rank(self.ranks.rank.as_deref(), form)?;
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        let encoding = Arc::new(Encoding::learn(form, &self.ranks.order, self.ranks.last)?);
        let keys = Keys::new(KeyForm::learn(&self.ranks.keys, &empty)?);
        self.state = Some(State { encoding, keys, lists: Chunked::default() });
        Ok(())
    }

    fn rows(&mut self, rows: &RecordBatch, _: &mut Out) -> Result<(), Error> {
        let mut numbers = std::mem::take(&mut self.numbers);
        let Some(state) = &mut self.state else { return Ok(()) };
        state.keys.numbers(&state.keys.form.read(rows)?, &mut numbers, NEVER);
        state.lists.grow(state.keys.table.len(), &List::new());
        let encoded = state.encoding.read(rows)?;
        numbers.iter().enumerate().for_each(|(row, key)| self.take(*key, &encoded, row));
        self.numbers = numbers;
        Ok(())
    }

    fn passed(&mut self, from: i64, until: i64, out: &mut Out) -> Result<(), Error> {
        self.tell(from, out)?;
        if let Some(state) = &mut self.state {
            state.keys.touch(&self.changed);
            self.empty += self.changed.iter().filter(|key| state.lists.get(**key).is_empty()).count();
        }
        self.changed.iter().for_each(|key| self.place[at(*key)] = 0);
        self.changed.clear();
        self.before.clear();
        self.sweep(until);
        Ok(())
    }

    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let content = |keys, piece, table: &str| -> Arc<dyn Frozen> {
            let schema = stored_schema(state.encoding.stored(), table, what);
            Arc::new(Piece { keys, lists: state.lists.only(piece), encoding: Arc::clone(&state.encoding), schema })
        };
        Ok(state.keys.blocks(TABLE, groups, content))
    }

    fn restore(&mut self, _: &str, rows: &RecordBatch) -> Result<(), Error> {
        self.rows(rows, &mut Out::default())?;
        // What was stored has been told.
        if let Some(state) = &mut self.state {
            state.keys.touch(&self.changed);
        }
        self.changed.iter().for_each(|key| self.place[at(*key)] = 0);
        self.changed.clear();
        self.before.clear();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes + self.state.as_ref().map_or(0, |state| state.keys.bytes())
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let Some(state) = &self.state else { return Ok(None) };
        let keys = state.keys.table.in_key_order().into_iter();
        let first = keys.flat_map(|key| state.lists.get(key).values().take(self.ranks.limit));
        let shown: Vec<&Entry> = first.skip(skip).take(limit).collect();
        Ok(Some(state.encoding.show(&shown, NEVER)?))
    }
}

/// A piece of the rows on its way to storage.
#[derive(Debug)]
struct Piece {
    keys: KeysPiece,
    lists: Chunked<List>,
    encoding: Arc<Encoding>,
    schema: SchemaRef,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let each =
            || (0u32..).zip(self.lists.iter()).flat_map(|(key, list)| list.values().map(move |entry| (key, entry)));
        let entries: Vec<&Entry> = each().map(|(_, entry)| entry).collect();
        let hashes = each().map(|(key, _)| self.keys.table.hash(key)).collect();
        let rows = self.encoding.store(&entries, hashes, &self.schema)?;
        StoredRows { schema: Arc::clone(&self.schema), rows }.encode()
    }

    fn bytes(&self) -> usize {
        self.lists.iter().flat_map(BTreeMap::values).map(Entry::bytes).sum()
    }
}
