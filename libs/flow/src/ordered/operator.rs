//! Operators that work on rows in order.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, take_record_batch},
    datatypes::{Schema, SchemaRef},
};
use types::Timestamp;

use super::{Pending, RowForm, StoredRows, own_of, pending::PENDING_TABLE, stored_schema};
use crate::{
    Error, HIDDEN_COLUMNS, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock, TIME_COLUMN, column, row,
    window::{
        chunk::{at, number},
        groups::{CLOCK_TABLE, Clock},
    },
};

/// The table that says which columns rows have.
const FORM_TABLE: &str = "form";

/// What an operator does with rows in order, and what it keeps of those that it has seen.
pub(crate) trait InOrder: std::fmt::Debug + Send {
    /// Learns which columns the rows have, once, before the first of them.
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        let _ = form;
        Ok(())
    }

    /// Which rows are worth waiting for: others can change nothing any more. `None`: all.
    fn wanted(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, Error> {
        let _ = rows;
        Ok(None)
    }

    /// Works on rows that stand behind all before.
    fn rows(&mut self, rows: &RecordBatch, out: &mut Out) -> Result<(), Error>;

    /// All rows before `until` have been worked on; the watermark was `from`.
    fn passed(&mut self, from: i64, until: i64, out: &mut Out) -> Result<(), Error>;

    /// Whether the order matters at all. Otherwise every row is worked on as it comes, and none is late.
    fn waits(&self) -> bool {
        true
    }

    /// Which columns are needed beside `_time` and the hidden ones; `None`: all.
    fn columns(&self) -> Option<Vec<String>> {
        None
    }

    /// Blocks of what is kept, with the specification in `what`.
    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error>;

    /// Takes stored rows of its own key groups, having learnt.
    fn restore(&mut self, table: &str, rows: &RecordBatch) -> Result<(), Error>;

    /// Bytes of what is kept.
    fn bytes(&self) -> usize;

    /// Rows for people.
    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let (_, _) = (skip, limit);
        Ok(None)
    }
}

/// Rule 2: the rows that are in time, where windows or orders have gone on up to `fired`; late ones are given on.
pub(crate) fn judged(
    batch: &RecordBatch,
    fired: i64,
    also: impl Fn(usize, i64) -> bool,
    out: &mut Out,
) -> Result<RecordBatch, Error> {
    let (times, watermarks) = (column::times(batch, TIME_COLUMN)?, row::row_watermarks(batch)?);
    let in_time = |row: &u32| {
        let row = at(*row);
        let watermark = watermarks.as_ref().map_or(fired, |all| all[row].max(fired));
        row::in_time_for_order(times[row], watermark) && also(row, watermark)
    };
    let (rows, late): (Vec<u32>, Vec<u32>) = (0..number(batch.num_rows())).partition(in_time);
    if late.is_empty() {
        return Ok(batch.clone());
    }
    out.late(take_record_batch(batch, &UInt32Array::from(late))?);
    Ok(take_record_batch(batch, &UInt32Array::from(rows))?)
}

/// Rows that wait, and what is done with them.
#[derive(Debug)]
pub(crate) struct Ordered<W> {
    name: String,
    keys: Vec<String>,
    /// The specification, as blocks name it.
    what: String,
    groups: KeyGroups,
    state_bytes_max: usize,
    form: Option<Arc<RowForm>>,
    pending: Pending,
    fired: i64,
    work: W,
}

impl<W: InOrder> Ordered<W> {
    /// Nothing waits.
    pub(crate) fn new(keys: &[String], what: String, work: W, setting: Setting) -> Self {
        Self {
            name: setting.name,
            keys: keys.to_vec(),
            what,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            form: None,
            pending: Pending::default(),
            fired: i64::MIN,
            work,
        }
    }

    fn form(&mut self, schema: &SchemaRef) -> Result<Arc<RowForm>, Error> {
        if let Some(form) = &self.form {
            return Ok(Arc::clone(form));
        }
        let wanted = self.work.columns();
        let needed = |name: &String| {
            let hidden = name == TIME_COLUMN || HIDDEN_COLUMNS.contains(&name.as_str());
            hidden || wanted.as_ref().is_none_or(|wanted| wanted.contains(name))
        };
        let fields = schema.fields().iter().filter(|field| needed(field.name())).cloned();
        let form = Arc::new(RowForm::learn(&self.keys, &Schema::new(fields.collect::<Vec<_>>()))?);
        self.work.learn(&form)?;
        Ok(Arc::clone(self.form.insert(form)))
    }

    fn check_bytes(&self) -> Result<(), Error> {
        let (bytes, limit) = (self.bytes(), self.state_bytes_max);
        if bytes > limit {
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        Ok(())
    }
}

impl<W: InOrder> Operator for Ordered<W> {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let form = self.form(&batch.schema())?;
        if !self.work.waits() {
            self.work.rows(&form.read(batch)?, out)?;
            return self.check_bytes();
        }
        let rows = form.read(&judged(batch, self.fired, |_, _| true, out)?)?;
        let rows = match self.work.wanted(&rows)? {
            Some(wanted) => filter_record_batch(&rows, &wanted)?,
            None => rows,
        };
        self.pending.push(&form, rows)?;
        self.check_bytes()
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let until = watermark.nanos();
        if until <= self.fired {
            return Ok(());
        }
        let from = std::mem::replace(&mut self.fired, until);
        let Self { pending, work, .. } = self;
        pending.drain(until, |rows| work.rows(rows, out))?;
        self.work.passed(from, until, out)?;
        self.check_bytes()
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        let content = Arc::new(Clock(Timestamp::from_nanos(self.fired)));
        let (table, groups, edition) = (CLOCK_TABLE.to_owned(), self.groups, self.fired.cast_unsigned());
        let mut blocks = vec![StateBlock { table, groups, time: None, edition, content }];
        if let Some(form) = &self.form {
            // No rows, but what they look like, from which everything else follows.
            let (table, schema) = (FORM_TABLE.to_owned(), stored_schema(form.kept(), FORM_TABLE, &self.what));
            let content = Arc::new(StoredRows { rows: RecordBatch::new_empty(Arc::clone(&schema)), schema });
            blocks.push(StateBlock { table, groups, time: None, edition: 0, content });
            blocks.extend(self.pending.snapshot(form, self.groups, &self.what));
        }
        blocks.extend(self.work.snapshot(self.groups, &self.what)?);
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        let (clocks, mut tables): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.table == CLOCK_TABLE);
        self.fired = Clock::of_all(clocks)?;
        tables.sort_by_key(|block| block.table != FORM_TABLE);
        for block in tables {
            let (schema, rows) = own_of(block, self.groups, &self.what)?;
            let waiting = block.table.starts_with(PENDING_TABLE);
            if waiting || block.table == FORM_TABLE {
                self.form(&schema)?;
            }
            for rows in rows {
                match &self.form {
                    Some(form) if waiting => {
                        let rows = RecordBatch::try_new(Arc::clone(form.kept()), rows.columns().to_vec())?;
                        self.pending.push(form, rows)?;
                    }
                    _ => self.work.restore(&block.table, &rows)?,
                }
            }
        }
        self.check_bytes()
    }

    fn bytes(&self) -> usize {
        self.pending.bytes() + self.work.bytes()
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        self.work.view(skip, limit)
    }
}
