//! Kept rows on their way to storage and back.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch, not},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use types::Timestamp;

use super::{Form, Log, Pending, Stamps, form::times, order::in_order, pending::bytes_of};
use crate::{
    Error, Frozen, KeyGroups, StateBlock, StoredBlock,
    window::groups::{CLOCK_TABLE, Clock, damaged, own_rows, written},
};

/// The version of the blocks; a reader refuses another.
const BLOCK_VERSION: &str = "1";

const TABLE: &str = "lb.table";
const VERSION: &str = "lb.version";
const WHAT: &str = "lb.operator";
/// The mark of a row, in stored rows.
const MARK: &str = "_mark";

/// What marks are to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// They are stored.
    Kept,
    /// A marked row is not needed any more, and left out.
    Gone,
}

/// How rows of one input are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// The name of the input.
    pub(crate) table: &'a str,
    /// The operator as data: other state is refused.
    pub(crate) what: &'a str,
    pub(crate) marks: Marks,
    pub(crate) groups: KeyGroups,
}

/// Rows of one block.
#[derive(Debug)]
struct Block {
    schema: SchemaRef,
    batch: RecordBatch,
    marks: Option<Arc<Vec<bool>>>,
    keep: Marks,
}

impl Frozen for Block {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let mark = |row: usize| self.marks.as_ref().is_some_and(|marks| marks.get(row).copied().unwrap_or(false));
        let marks: BooleanArray = (0..self.batch.num_rows()).map(|row| Some(mark(row))).collect();
        let batch = match self.keep {
            Marks::Gone => filter_record_batch(&self.batch, &not(&marks)?)?,
            Marks::Kept => self.batch.clone(),
        };
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if self.keep == Marks::Kept {
            columns.push(Arc::new(marks));
        }
        written(&self.schema, &[RecordBatch::try_new(Arc::clone(&self.schema), columns)?])
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.batch)
    }
}

/// Up to where the operator has come, as a block of its own.
pub(crate) fn clock(fired: i64, groups: KeyGroups) -> StateBlock {
    let content = Arc::new(Clock(Timestamp::from_nanos(fired)));
    // The clock is its own edition: it only goes on.
    StateBlock { table: CLOCK_TABLE.to_owned(), groups, time: None, edition: fired.cast_unsigned(), content }
}

impl Stored<'_> {
    /// The rows of an input as blocks. What an input looks like is stored even where it has no rows.
    pub(crate) fn freeze(self, form: &Form, pending: &Pending, log: &Log) -> Vec<StateBlock> {
        let Some(kept) = form.kept() else { return Vec::new() };
        let mut fields: Vec<Field> = kept.fields().iter().map(|field| field.as_ref().clone()).collect();
        if self.marks == Marks::Kept {
            fields.push(Field::new(MARK, DataType::Boolean, false));
        }
        let metadata = [(TABLE, self.table), (VERSION, BLOCK_VERSION), (WHAT, self.what)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata.into()));
        let block = |batch: &RecordBatch, marks: Option<&Arc<Vec<bool>>>, edition| {
            let content =
                Block { schema: Arc::clone(&schema), batch: batch.clone(), marks: marks.cloned(), keep: self.marks };
            let (table, groups) = (self.table.to_owned(), self.groups);
            StateBlock { table, groups, time: None, edition, content: Arc::new(content) }
        };
        let mut blocks = vec![block(&RecordBatch::new_empty(Arc::clone(kept)), None, 0)];
        blocks.extend(log.batches().map(|(batch, marks, stamp)| block(batch, Some(marks), stamp)));
        blocks.extend(pending.batches().map(|(batch, stamp)| block(batch, None, stamp)));
        blocks
    }

    /// Takes the rows of an input back that are of these key groups: those before `fired` into the log, with their marks, the
    /// others to wait.
    ///
    /// Errors: `Snapshot` if a block is of another operator.
    pub(crate) fn load(
        self,
        blocks: &[StoredBlock],
        fired: i64,
        (form, pending, log): (&mut Form, &mut Pending, &mut Log),
        stamps: &mut Stamps,
    ) -> Result<(), Error> {
        let mut all = Vec::new();
        for block in blocks.iter().filter(|block| block.table == self.table) {
            let (schema, batches) = own_rows(&block.bytes, self.groups)?;
            self.check(&schema)?;
            let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| schema.field(*i).name() != MARK).collect();
            form.learn_stored(&schema.project(&kept)?)?;
            all.extend(batches);
        }
        let Some(first) = all.first() else { return Ok(()) };
        let rows = in_order(concat_batches(&first.schema(), &all)?, form.placed())?;
        let marks: Vec<bool> = match rows.column_by_name(MARK).and_then(|marks| marks.as_boolean_opt()) {
            Some(marks) => marks.iter().map(|mark| mark.unwrap_or(false)).collect(),
            None => vec![false; rows.num_rows()],
        };
        let Some(kept) = form.kept() else { return Ok(()) };
        let columns = rows.columns().iter().take(kept.fields().len()).cloned().collect();
        let rows = RecordBatch::try_new(Arc::clone(kept), columns)?;
        let had = times(&rows)?.partition_point(|time| *time < fired);
        log.push(form, &rows.slice(0, had), Some(&marks[..had]), stamps)?;
        pending.push(rows.slice(had, rows.num_rows() - had), stamps)
    }

    fn check(&self, schema: &Schema) -> Result<(), Error> {
        let text = |key: &str| schema.metadata().get(key).ok_or_else(|| damaged(format!("{key} is missing")));
        let version = text(VERSION)?;
        if version != BLOCK_VERSION {
            return Err(damaged(format!("version {version} is not {BLOCK_VERSION}: restore it with its own release")));
        }
        if text(WHAT)? != self.what {
            return Err(damaged("was taken under another specification: pin the old one or start afresh"));
        }
        Ok(())
    }
}

/// The instant up to which the blocks' owner had come, and whether every other one is of those tables.
pub(crate) fn fired(blocks: &[StoredBlock], tables: &[&str]) -> Result<i64, Error> {
    let (clocks, others): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.table == CLOCK_TABLE);
    match others.iter().find(|block| !tables.contains(&block.table.as_str())) {
        Some(other) => Err(damaged(format!("table {:?} belongs to no operator here", other.table))),
        None => Clock::of_all(clocks),
    }
}
