//! Sessions: windows of a key that last while its rows come.
//!
//! What is kept is one entry per open session, not its rows: a row joins every session that it is near enough to, and joins
//! them to each other. Which rows meet does not depend on the order in which they come, and neither does the result.

mod phases;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampNanosecondArray, UInt32Array},
    compute::take_record_batch,
    datatypes::Field,
};
use types::Timestamp;

use super::{
    BATCH_ROWS, Phase, TIME_COLUMN, WindowPlan, WindowShape,
    chunk::{CHUNK, Chunked, at, number},
    grid,
    groups::{CLOCK_TABLE, Clock, Groups, Layout, own_rows, written},
    table::Table,
};
use crate::{Error, Frozen, INSTANT_TYPE, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock, column, row};

/// The table of sessions; a piece of it has its number behind that.
const TABLE: &str = "sessions";
/// The first and the last row of a session, in stored rows.
const SPAN: [&str; 2] = ["_first", "_last"];
/// Keys without sessions are dropped when they are more than the others, and more than this.
const DEAD_KEYS_MIN: usize = 1_024;
/// Bytes of a session beside its key and its aggregates.
const SESSION_BYTES: usize = 96;

/// One place for a session.
#[derive(Debug, Clone, Copy)]
struct Session {
    key: u32,
    first: i64,
    last: i64,
    /// What its place in the queue says, which is at most its end.
    due: i64,
    open: bool,
}

/// Sessions as an operator.
#[derive(Debug)]
pub(crate) struct SessionOperator {
    name: String,
    plan: WindowPlan,
    gap: i64,
    groups: KeyGroups,
    state_bytes_max: usize,
    layout: Option<Arc<Layout>>,
    /// Keys by number, and cells by session: the two are not the same here.
    state: Option<Groups>,
    sessions: Chunked<Session>,
    /// Of each key its open sessions.
    of_key: Vec<Vec<u32>>,
    free: Vec<u32>,
    places: usize,
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    fired: i64,
    edition: u64,
}

/// The gap in nanoseconds.
pub(super) fn gap_of(plan: &WindowPlan) -> Result<i64, Error> {
    let WindowShape::Session { gap } = plan.shape else {
        return Err(Error::Window("only a session has a gap".to_owned()));
    };
    if !plan.lateness.0.is_zero() {
        return Err(Error::Window("a session has no lateness, for a late row could join two that are over".to_owned()));
    }
    grid::nanos("gap", gap, false)
}

/// What the rows of one batch do to sessions, before their values are added.
#[derive(Debug, Default)]
struct Joined {
    /// Of each row its session.
    of_row: Vec<u32>,
    /// Which session went into which.
    into: HashMap<u32, u32>,
    /// The same, in order.
    order: Vec<(u32, u32)>,
}

impl Joined {
    /// The session in which one has ended up.
    fn now(&self, mut session: u32) -> u32 {
        while let Some(into) = self.into.get(&session) {
            session = *into;
        }
        session
    }
}

impl SessionOperator {
    /// No sessions.
    pub(crate) fn new(plan: WindowPlan, setting: Setting) -> Result<Self, Error> {
        plan.validate()?;
        Ok(Self {
            gap: gap_of(&plan)?,
            plan,
            name: setting.name,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            layout: None,
            state: None,
            sessions: Chunked::default(),
            of_key: Vec::new(),
            free: Vec::new(),
            places: 0,
            queue: BinaryHeap::new(),
            fired: i64::MIN,
            edition: 0,
        })
    }

    fn layout(&mut self, learn: impl FnOnce(&WindowPlan) -> Result<Layout, Error>) -> Result<Arc<Layout>, Error> {
        if let Some(layout) = &self.layout {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(learn(&self.plan)?);
        self.state = Some(Groups::new(&layout));
        Ok(Arc::clone(self.layout.insert(layout)))
    }

    fn end_of(&self, session: Session) -> i64 {
        session.last.saturating_add(self.gap)
    }

    fn open(&mut self, key: u32, first: i64, last: i64) -> u32 {
        let due = last.saturating_add(self.gap);
        let session = Session { key, first, last, due, open: true };
        let place = match self.free.pop() {
            Some(place) => {
                *self.sessions.get_mut(place) = session;
                place
            }
            None => {
                self.sessions.push(session);
                self.places += 1;
                number(self.places - 1)
            }
        };
        self.queue.push(Reverse((due, place)));
        self.of_key[at(key)].push(place);
        place
    }

    /// The session that rows from the first to the last of a span join, having joined those that they are near to.
    fn join(&mut self, key: u32, (first, last): (i64, i64), joined: &mut Joined) -> u32 {
        let near = |session: &Session| {
            last >= session.first.saturating_sub(self.gap) && first <= session.last.saturating_add(self.gap)
        };
        let mut found: Option<u32> = None;
        let mut i = 0;
        while let Some(place) = self.of_key[at(key)].get(i).copied() {
            let session = *self.sessions.get(place);
            if !near(&session) {
                i += 1;
                continue;
            }
            match found {
                None => {
                    found = Some(place);
                    if first < session.first || last > session.last {
                        let session = self.sessions.get_mut(place);
                        (session.first, session.last) = (session.first.min(first), session.last.max(last));
                    }
                    i += 1;
                }
                Some(into) => {
                    self.of_key[at(key)].swap_remove(i);
                    self.sessions.get_mut(place).open = false;
                    let target = self.sessions.get_mut(into);
                    (target.first, target.last) = (target.first.min(session.first), target.last.max(session.last));
                    joined.into.insert(place, into);
                    joined.order.push((into, place));
                }
            }
        }
        found.unwrap_or_else(|| self.open(key, first, last))
    }

    /// Brings the cells to where the sessions are.
    fn settle(&mut self, joined: &mut Joined) {
        let Some(state) = &mut self.state else { return };
        state.cells.iter_mut().for_each(|cells| cells.grow(self.places));
        if !joined.into.is_empty() {
            let now: Vec<u32> = joined.of_row.iter().map(|session| joined.now(*session)).collect();
            joined.of_row = now;
        }
        for (into, from) in &joined.order {
            let into = joined.now(*into);
            for cells in &mut state.cells {
                let moved = cells.pick(*from);
                cells.merge(&[into], &moved, &[0]);
                cells.clear(*from);
            }
            self.free.push(*from);
        }
        let mut touched: Vec<u32> = joined.order.iter().map(|(_, from)| *from).collect();
        touched.extend(&joined.of_row);
        touch(state, self.places, &touched, self.edition);
    }

    /// Adds rows to their sessions, and gives on those that are late.
    fn add(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let layout = self.layout(|plan| Layout::learn(plan, batch))?;
        let (input, times) = (layout.read(batch)?, column::times(batch, TIME_COLUMN)?);
        let watermarks = row::row_watermarks(batch)?;
        let in_time = |row: &u32| {
            let watermark = watermarks.as_ref().map_or(self.fired, |all| all[at(*row)].max(self.fired));
            row::in_time_for_order(times[at(*row)], watermark)
        };
        let (rows, late): (Vec<u32>, Vec<u32>) = (0..number(batch.num_rows())).partition(in_time);
        if !late.is_empty() {
            out.late(take_record_batch(batch, &UInt32Array::from(late))?);
        }
        self.edition += 1;
        let mut keys = Vec::new();
        let Some(state) = &mut self.state else { return Ok(()) };
        state.table.groups(&input.keyed, Some(&rows), &mut keys);
        self.of_key.resize_with(state.table.len(), Vec::new);
        let mut joined = Joined::default();
        for (row, key) in rows.iter().zip(&keys) {
            let session = self.join(*key, (times[at(*row)], times[at(*row)]), &mut joined);
            joined.of_row.push(session);
        }
        self.settle(&mut joined);
        if let Some(state) = &mut self.state {
            for (cells, values) in state.cells.iter_mut().zip(&input.values) {
                cells.update(&joined.of_row, Some(&rows), values);
            }
        }
        Ok(())
    }

    fn check_bytes(&self) -> Result<(), Error> {
        let (bytes, limit) = (self.bytes(), self.state_bytes_max);
        if bytes > limit {
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        Ok(())
    }

    /// Forgets keys that have no sessions any more.
    fn forget_keys(&mut self) {
        let Some(state) = &mut self.state else { return };
        let open = self.of_key.iter().filter(|sessions| !sessions.is_empty()).count();
        if self.of_key.len() - open < open.max(DEAD_KEYS_MIN) {
            return;
        }
        let Some(layout) = &self.layout else { return };
        let mut table = Table::new(&layout.form);
        let mut of_key = Vec::with_capacity(open);
        for (key, sessions) in std::mem::take(&mut self.of_key).into_iter().enumerate() {
            if sessions.is_empty() {
                continue;
            }
            let new = table.same(&state.table, number(key), true).unwrap_or(u32::MAX);
            sessions.iter().for_each(|place| self.sessions.get_mut(*place).key = new);
            of_key.push(sessions);
        }
        (state.table, self.of_key) = (table, of_key);
    }

    /// The sessions that are over, in the order of `(end, key)`.
    fn over(&mut self, until: i64) -> Vec<u32> {
        let mut over: Vec<u32> = Vec::new();
        while let Some(Reverse((due, place))) = self.queue.peek().copied() {
            // Another row may come at exactly `until`, and one that lies exactly the gap behind still joins.
            if due >= until {
                break;
            }
            self.queue.pop();
            let session = *self.sessions.get(place);
            let end = self.end_of(session);
            if !session.open || session.due != due {
                continue;
            }
            if end >= until {
                self.sessions.get_mut(place).due = end;
                self.queue.push(Reverse((end, place)));
                continue;
            }
            self.sessions.get_mut(place).open = false;
            over.push(place);
        }
        let Some(state) = &self.state else { return over };
        over.sort_unstable_by(|a, b| {
            let (a, b) = (self.sessions.get(*a), self.sessions.get(*b));
            self.end_of(*a).cmp(&self.end_of(*b)).then_with(|| state.table.compare(a.key, b.key))
        });
        over
    }
}

fn touch(state: &mut Groups, places: usize, touched: &[u32], edition: u64) {
    state.editions.resize(places.div_ceil(CHUNK), edition);
    touched.iter().for_each(|place| state.editions[super::chunk::chunk_of(*place)] = edition);
}

impl Operator for SessionOperator {
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
            Phase::Global => self.add_parts(batch, out)?,
        }
        self.check_bytes()
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let until = watermark.nanos();
        if until <= self.fired {
            return Ok(());
        }
        self.fired = until;
        let over = self.over(until);
        let (Some(layout), false) = (self.layout.clone(), over.is_empty()) else { return Ok(()) };
        self.edition += 1;
        let Some(state) = &mut self.state else { return Ok(()) };
        for part in over.chunks(BATCH_ROWS) {
            let sessions: Vec<Session> = part.iter().map(|place| *self.sessions.get(*place)).collect();
            let keys: Vec<u32> = sessions.iter().map(|session| session.key).collect();
            let window = |row: usize| (sessions[row].first, sessions[row].last.saturating_add(self.gap));
            out_rows(out, &self.name, state, &layout, (&keys, part), &window)?;
        }
        for place in &over {
            let key = self.sessions.get(*place).key;
            self.of_key[at(key)].retain(|other| other != place);
            state.cells.iter_mut().for_each(|cells| cells.clear(*place));
            self.free.push(*place);
        }
        touch(state, self.places, &over, self.edition);
        self.forget_keys();
        Ok(())
    }

    /// A session that ends at the watermark has not come out yet, and its row's time is before that.
    fn hold(&self, watermark: Timestamp) -> Timestamp {
        if watermark == Timestamp::MAX || self.plan.phase == Phase::Local {
            return watermark;
        }
        Timestamp::from_nanos(watermark.nanos().saturating_sub(1))
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        if self.plan.phase == Phase::Local {
            return Ok(Vec::new());
        }
        let content = Arc::new(Clock(Timestamp::from_nanos(self.fired)));
        let (table, groups, edition) = (CLOCK_TABLE.to_owned(), self.groups, self.fired.cast_unsigned());
        let mut blocks = vec![StateBlock { table, groups, time: None, edition, content }];
        let (Some(layout), Some(state)) = (&self.layout, &self.state) else { return Ok(blocks) };
        for chunk in 0..self.places.div_ceil(CHUNK) {
            let table = format!("{TABLE}-{chunk}");
            let cells = state.cells.iter().map(|cells| cells.only(chunk)).collect();
            let groups = Groups { table: state.table.shared(), cells, editions: Vec::new() };
            let sessions = self.sessions.only(chunk);
            let content = Arc::new(Piece { layout: Arc::clone(layout), table: table.clone(), groups, sessions });
            let (groups, edition) = (self.groups, state.editions[chunk]);
            blocks.push(StateBlock { table, groups, time: None, edition, content });
        }
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        let (clocks, pieces): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.table == CLOCK_TABLE);
        self.fired = Clock::of_all(clocks)?;
        self.edition += 1;
        for block in pieces {
            let (schema, batches) = own_rows(&block.bytes, self.groups)?;
            let stored = Layout::of_stored(&self.plan, &schema)?;
            let layout = self.layout(|_| Ok(stored))?;
            for batch in batches {
                self.load(&batch, &layout)?;
            }
        }
        self.check_bytes()
    }

    fn bytes(&self) -> usize {
        let Some(state) = &self.state else { return 0 };
        let cells: usize = state.cells.iter().map(super::cells::Cells::cell_bytes).sum();
        state.table.bytes() + (self.places - self.free.len()) * (SESSION_BYTES + cells)
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let (Some(layout), Some(state)) = (&self.layout, &self.state) else { return Ok(None) };
        let open = (0..number(self.places)).filter(|place| self.sessions.get(*place).open);
        let shown: Vec<u32> = open.skip(skip).take(limit).collect();
        let keys: Vec<u32> = shown.iter().map(|place| self.sessions.get(*place).key).collect();
        let window = |row: usize| {
            let session = *self.sessions.get(shown[row]);
            (session.first, self.end_of(session))
        };
        Ok(Some(state.rows(layout, (&keys, &shown), &window, None)?))
    }
}

fn out_rows(
    out: &mut Out,
    name: &str,
    state: &Groups,
    layout: &Layout,
    groups: (&[u32], &[u32]),
    window: &dyn Fn(usize) -> (i64, i64),
) -> Result<(), Error> {
    let batch = state.rows(layout, groups, window, Some((name, out)))?;
    out.rows(batch);
    Ok(())
}

impl SessionOperator {
    /// Takes stored sessions, which are apart from each other.
    fn load(&mut self, batch: &RecordBatch, layout: &Layout) -> Result<(), Error> {
        let [firsts, lasts] = phases::spans(batch)?;
        let (keyed, loaded) = (layout.form.read(batch)?, layout.load(batch)?);
        let mut keys = Vec::new();
        let Some(state) = &mut self.state else { return Ok(()) };
        state.table.groups(&keyed, None, &mut keys);
        self.of_key.resize_with(state.table.len(), Vec::new);
        let each = keys.iter().enumerate();
        let places: Vec<u32> = each.map(|(row, key)| self.open(*key, firsts.value(row), lasts.value(row))).collect();
        let Some(state) = &mut self.state else { return Ok(()) };
        let rows: Vec<u32> = (0..number(batch.num_rows())).collect();
        for (cells, other) in state.cells.iter_mut().zip(&loaded) {
            cells.grow(self.places);
            cells.merge(&places, other, &rows);
        }
        touch(state, self.places, &places, self.edition);
        Ok(())
    }
}

/// A piece of the sessions on its way to storage.
#[derive(Debug)]
struct Piece {
    layout: Arc<Layout>,
    table: String,
    groups: Groups,
    sessions: Chunked<Session>,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let fields: Vec<Field> = SPAN.iter().map(|name| Field::new(*name, INSTANT_TYPE, false)).collect();
        let schema = self.layout.stored(&self.table, &fields);
        let open = || (0u32..).zip(self.sessions.iter()).filter(|(_, session)| session.open);
        let instants = |of: fn(&Session) -> i64| -> ArrayRef {
            Arc::new(TimestampNanosecondArray::from_iter_values(open().map(|(_, session)| of(session))))
        };
        let before = vec![instants(|session| session.first), instants(|session| session.last)];
        let (keys, places): (Vec<u32>, Vec<u32>) = open().map(|(place, session)| (session.key, place)).unzip();
        written(&schema, &[self.groups.stored(&schema, before, (&keys, &places))?])
    }

    fn bytes(&self) -> usize {
        let cells: usize = self.groups.cells.iter().map(super::cells::Cells::cell_bytes).sum();
        self.sessions.iter().count() * (SESSION_BYTES + cells)
    }
}
