//! Rows of windows before they end: by the clock, and where a threshold is crossed.
//!
//! Both must know what has been told of a key: by the clock as rows that change, where only what differs is told again; of a
//! threshold that it was crossed, once. After a restore it is known *that* something was told, not what: it is told again.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int8Array, RecordBatch, UInt64Array},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    row::RowConverter,
};
use types::Timestamp;

use super::super::{
    BATCH_ROWS, EARLY_COLUMN, EarlyFire, Emit, Phase, WindowPlan, WindowShape,
    chunk::{Chunked, number},
    grid::nanos,
    groups::{Groups, Input, Layout, own_rows, written},
    results::Results,
    table::{KeyForm, Table},
};
use super::PaneOperator;
use crate::{
    CHANGE_COLUMN, Change, Error, Frozen, HASH_COLUMN, KeyGroups, Out, StateBlock, StoredBlock,
    ordered::{converter, stored_schema},
};

/// The table of keys of which something was told; the window is the block's time.
pub(super) const TOLD_TABLE: &str = "told";

/// The keys of one window of which something was told, and what: nothing where that is not known any more.
#[derive(Debug)]
struct Told {
    table: Table,
    rows: Chunked<Box<[u8]>>,
    edition: u64,
}

/// What is told before windows end.
#[derive(Debug, Default)]
pub(super) struct Early {
    every: Option<i64>,
    /// When the clock is due.
    due: Option<i64>,
    threshold: Option<EarlyFire>,
    /// By the ends of windows.
    told: BTreeMap<i64, Told>,
    rows: Option<RowConverter>,
    edition: u64,
    bytes: usize,
}

/// Where early rows are possible, so far.
pub(crate) fn validate(plan: &WindowPlan) -> Result<(), Error> {
    let wrong = |problem: &str| Err(Error::Window(problem.to_owned()));
    if let Emit::Every(period) = plan.emit {
        nanos("the period of rows by the clock", period, false)?;
        if plan.early.is_some() {
            return wrong("rows come early by the clock or by a threshold: leave one of them out");
        }
    }
    match plan.early {
        Some(_) if !matches!(plan.shape, WindowShape::Tumble { .. }) => {
            wrong("a threshold is crossed in windows that tumble only: use `emit every` for others")
        }
        Some(_) if plan.phase != Phase::Whole => wrong("a threshold is crossed row by row, and not in two phases"),
        _ => Ok(()),
    }
}

impl Early {
    pub(super) fn new(plan: &WindowPlan) -> Result<Self, Error> {
        validate(plan)?;
        let every = match plan.emit {
            Emit::Every(period) if plan.phase != Phase::Local => Some(nanos("period", period, false)?),
            _ => None,
        };
        Ok(Self { every, threshold: plan.early, ..Self::default() })
    }

    pub(super) fn threshold(&self) -> Option<EarlyFire> {
        self.threshold
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The columns of output rows.
    pub(super) fn output(&self, layout: &Layout) -> SchemaRef {
        let field = match (self.every, self.threshold) {
            (Some(_), _) => Field::new(CHANGE_COLUMN, DataType::Int8, false),
            (None, Some(_)) => Field::new(EARLY_COLUMN, DataType::Boolean, false),
            (None, None) => return Arc::clone(layout.output()),
        };
        let fields = layout.output().fields().iter().map(|field| field.as_ref().clone());
        Arc::new(Schema::new(fields.chain([field]).collect::<Vec<_>>()))
    }

    /// Rows of one window as they are given on: as changes, or marked by whether they are early.
    pub(super) fn shown(
        &mut self,
        layout: &Layout,
        end: i64,
        batch: RecordBatch,
        early: bool,
    ) -> Result<RecordBatch, Error> {
        let last: ArrayRef;
        let batch = match (self.every, self.threshold) {
            (None, None) => return Ok(batch),
            (None, Some(_)) => {
                last = Arc::new(BooleanArray::from(vec![early; batch.num_rows()]));
                batch
            }
            (Some(_), _) => {
                let changes = self.changes(layout, end, &batch)?;
                let differs: BooleanArray = changes.iter().map(|change| Some(change.is_some())).collect();
                last = Arc::new(changes.iter().flatten().map(|change| change.code()).collect::<Int8Array>());
                filter_record_batch(&batch, &differs)?
            }
        };
        let columns = batch.columns().iter().cloned().chain([last]).collect();
        Ok(RecordBatch::try_new(self.output(layout), columns)?)
    }

    fn of_window<'a>(told: &'a mut BTreeMap<i64, Told>, form: &Arc<KeyForm>, end: i64) -> &'a mut Told {
        told.entry(end).or_insert_with(|| Told { table: Table::new(form), rows: Chunked::default(), edition: 0 })
    }

    /// What each row is to what was told before; none where it is the same.
    fn changes(&mut self, layout: &Layout, end: i64, batch: &RecordBatch) -> Result<Vec<Option<Change>>, Error> {
        if self.rows.is_none() {
            let fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
            self.rows = Some(converter(&fields, Default::default())?);
        }
        let Some(converter) = &self.rows else { return Ok(Vec::new()) };
        let rows = converter.convert_columns(batch.columns())?;
        let told = Self::of_window(&mut self.told, &layout.form, end);
        let before = told.table.bytes();
        let mut numbers = Vec::new();
        told.table.groups(&layout.form.read(batch)?, None, &mut numbers);
        let mut known = told.rows.iter().count();
        let mut changes = Vec::with_capacity(numbers.len());
        self.edition += 1;
        told.edition = self.edition;
        for (row, key) in rows.iter().zip(numbers) {
            let new: Box<[u8]> = row.data().into();
            if usize::try_from(key).is_ok_and(|key| key == known) {
                known += 1;
                self.bytes += new.len();
                told.rows.push(new);
                changes.push(Some(Change::Insert));
                continue;
            }
            let old = told.rows.get_mut(key);
            if *old == new {
                changes.push(None);
                continue;
            }
            self.bytes = (self.bytes + new.len()).saturating_sub(old.len());
            *old = new;
            changes.push(Some(Change::UpdateAfter));
        }
        self.bytes += told.table.bytes() - before;
        Ok(changes)
    }

    /// Whether a group's key crosses the threshold in that window for the first time.
    pub(super) fn crosses(&mut self, layout: &Layout, groups: &Groups, group: u32, end: i64) -> bool {
        let Some(fire) = self.threshold else { return false };
        let value = match layout.one_result(groups, fire.aggregate, group) {
            Some(Results::Counts(counts)) => counts.first().map(|count| *count as f64),
            Some(Results::Ints(sums)) => sums.first().filter(|(_, count)| *count > 0).map(|(sum, _)| *sum as f64),
            Some(Results::Floats(sums)) => sums.first().filter(|(_, count)| *count > 0).map(|(sum, _)| *sum),
            _ => None,
        };
        if !value.is_some_and(|value| fire.holds(value)) {
            return false;
        }
        let told = Self::of_window(&mut self.told, &layout.form, end);
        let known = told.table.len();
        let before = told.table.bytes();
        let new = told.table.same(&groups.table, group, true) == Some(number(known));
        if new {
            self.edition += 1;
            told.edition = self.edition;
            told.rows.push(Box::default());
            self.bytes += told.table.bytes() - before;
        }
        new
    }

    /// Windows that are over will not be told of again.
    pub(super) fn forget(&mut self, until: i64, lateness: i64) {
        let before = self.told.len();
        self.told.retain(|end, _| end.saturating_add(lateness) > until);
        if self.told.len() < before {
            let of = |told: &Told| told.table.bytes() + told.rows.iter().map(|row| row.len()).sum::<usize>();
            self.bytes = self.told.values().map(of).sum();
        }
    }

    pub(super) fn snapshot(&self, groups: KeyGroups) -> Vec<StateBlock> {
        let block = |(end, told): (&i64, &Told)| {
            let table = told.table.shared();
            StateBlock {
                table: TOLD_TABLE.to_owned(),
                groups,
                time: Some(Timestamp::from_nanos(*end)),
                edition: told.edition,
                content: Arc::new(Keys(table)),
            }
        };
        self.told.iter().map(block).collect()
    }

    pub(super) fn restore(&mut self, block: &StoredBlock, groups: KeyGroups, names: &[String]) -> Result<(), Error> {
        let Some(end) = block.time.map(Timestamp::nanos) else { return Ok(()) };
        let (_, batches) = own_rows(&block.bytes, groups)?;
        for batch in batches {
            let form = Arc::new(KeyForm::learn(names, &batch)?);
            self.edition += 1;
            let told = Self::of_window(&mut self.told, &form, end);
            let mut numbers = Vec::new();
            told.table.groups(&form.read(&batch)?, None, &mut numbers);
            told.edition = self.edition;
            told.rows.grow(told.table.len(), &Box::default());
            self.bytes += told.table.bytes();
        }
        Ok(())
    }
}

/// Keys on their way to storage.
#[derive(Debug)]
struct Keys(Table);

impl Frozen for Keys {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let all: Vec<u32> = (0..number(self.0.len())).collect();
        let hashes: UInt64Array = all.iter().map(|key| self.0.hash(*key)).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(hashes)];
        columns.extend(self.0.columns(&all)?);
        let hash = Field::new(HASH_COLUMN, DataType::UInt64, false);
        let keys = self.0.form().columns().iter().map(|(name, kind)| Field::new(name, kind.clone(), true));
        let schema = stored_schema(&Schema::new(std::iter::once(hash).chain(keys).collect::<Vec<_>>()), TOLD_TABLE, "");
        written(&schema, &[RecordBatch::try_new(Arc::clone(&schema), columns)?])
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl PaneOperator {
    /// Adds rows of one window one by one, so that what an early row shows does not depend on where a batch was cut.
    pub(super) fn add_one_by_one(
        early: &mut Early,
        (name, layout, window): (&str, &Layout, (i64, i64)),
        groups: &mut Groups,
        (input, rows, edition): (&Input, &[u32], u64),
        out: &mut Out,
    ) -> Result<(), Error> {
        let mut of_row = Vec::with_capacity(1);
        for row in rows {
            groups.add(input, Some(&[*row]), &mut of_row, edition);
            for group in &of_row {
                if early.crosses(layout, groups, *group, window.1) {
                    let batch = groups.rows(layout, (&[*group], &[*group]), &|_| window, Some((name, out)))?;
                    out.rows(early.shown(layout, window.1, batch, true)?);
                }
            }
        }
        Ok(())
    }

    /// Tells what open windows hold by now, if the clock is due; answers when it is due again.
    pub(super) fn tell_open(&mut self, now: i64, out: &mut Out) -> Result<Option<Timestamp>, Error> {
        let Some(every) = self.early.every else { return Ok(None) };
        let due = *self.early.due.get_or_insert(now.saturating_add(every));
        if now < due {
            return Ok(Some(Timestamp::from_nanos(due)));
        }
        let next = now.saturating_add(every);
        self.early.due = Some(next);
        let Some(layout) = self.layout.clone() else { return Ok(Some(Timestamp::from_nanos(next))) };
        let mut ends = std::collections::BTreeSet::new();
        for class in self.panes.keys() {
            self.grid.firings(*class, self.fired, i64::MAX, |firing| {
                if !firing.second {
                    ends.insert(firing.end);
                }
            });
        }
        for end in ends {
            let window = (self.grid.start(end), end);
            let Some(result) = self.so_far(window) else { continue };
            for part in result.table.in_key_order().chunks(BATCH_ROWS) {
                let batch = result.rows(&layout, (part, part), &|_| window, None)?;
                out.rows(self.early.shown(&layout, end, batch, true)?);
            }
        }
        self.check_bytes()?;
        Ok(Some(Timestamp::from_nanos(next)))
    }

    /// What an open window holds.
    fn so_far(&self, (start, end): (i64, i64)) -> Option<Groups> {
        let taken = self.panes.iter().filter(|(class, _)| (start..end).contains(&class.pane) && class.first <= end);
        let mut taken = taken.map(|(_, groups)| groups);
        let mut result = taken.next()?.clone();
        taken.for_each(|groups| result.merge(groups, true));
        Some(result)
    }
}
