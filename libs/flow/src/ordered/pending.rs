//! Rows that wait for the watermark to pass them.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::{interleave_record_batch, take_record_batch},
};

use super::{PAGE_ROWS, Placed, RowForm, StoredRows, stored_schema};
use crate::{
    Error, KeyGroups, StateBlock,
    window::chunk::{at, number},
};

/// The table of waiting rows; a run has its number behind that.
pub(crate) const PENDING_TABLE: &str = "pending";

/// The most runs: beyond that the shorter ones become one, so that a few rows of the future do not hold whole batches.
const RUNS_MAX: usize = 64;

/// Rows of one batch in order, of which the first have gone.
#[derive(Debug)]
struct Run {
    id: u64,
    rows: Placed,
    next: usize,
    bytes: usize,
    edition: u64,
}

/// One row that has been passed: its place, its run, and where it is there.
type Passed = ((i64, u64, i64), u32, u32);

/// Rows that wait, as sorted runs.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    runs: Vec<Run>,
    /// Numbers runs and editions.
    clock: u64,
    bytes: usize,
}

impl Pending {
    /// Takes rows in the form of the others.
    pub(crate) fn push(&mut self, form: &RowForm, rows: RecordBatch) -> Result<(), Error> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = Placed::new(form, rows)?;
        let sorted = (1..rows.len()).all(|row| rows.compare(row - 1, &rows, row).is_le());
        let rows = if sorted {
            rows
        } else {
            let mut order: Vec<u32> = (0..number(rows.len())).collect();
            order.sort_by(|a, b| rows.compare(at(*a), &rows, at(*b)));
            Placed::new(form, take_record_batch(&rows.rows, &UInt32Array::from(order))?)?
        };
        self.add(rows);
        if self.runs.len() > RUNS_MAX {
            self.merge(form)?;
        }
        Ok(())
    }

    fn add(&mut self, rows: Placed) {
        self.clock += 1;
        let bytes = rows.bytes();
        self.bytes += bytes;
        self.runs.push(Run { id: self.clock, rows, next: 0, bytes, edition: self.clock });
    }

    /// Makes one run of the shorter half.
    fn merge(&mut self, form: &RowForm) -> Result<(), Error> {
        self.runs.sort_by_key(|run| std::cmp::Reverse(run.rows.len() - run.next));
        let short = self.runs.split_off(self.runs.len() / 2);
        let kept = std::mem::replace(&mut self.runs, short);
        let rows = self.gather(&self.passed(i64::MAX))?;
        self.runs = kept;
        self.bytes = self.runs.iter().map(|run| run.bytes).sum();
        self.add(Placed::new(form, rows)?);
        Ok(())
    }

    /// The rows that a watermark has passed, in order: all of them, if it is the last.
    fn passed(&self, until: i64) -> Vec<Passed> {
        let mut order: Vec<Passed> = Vec::new();
        for (number_of, run) in (0u32..).zip(&self.runs) {
            order.extend((run.next..end_of(run, until)).map(|row| (run.rows.place(row), number_of, number(row))));
        }
        // Sorted runs one behind the other, which is what a stable sort is good at.
        order.sort_by(|a, b| {
            let by_content = || self.runs[at(a.1)].rows.by_content(at(a.2), &self.runs[at(b.1)].rows, at(b.2));
            a.0.cmp(&b.0).then_with(by_content)
        });
        order
    }

    /// Some of them as a batch.
    fn gather(&self, order: &[Passed]) -> Result<RecordBatch, Error> {
        if let [first, ..] = order
            && order.iter().zip(0u32..).all(|(row, n)| row.1 == first.1 && row.2 == first.2 + n)
        {
            return Ok(self.runs[at(first.1)].rows.rows.slice(at(first.2), order.len()));
        }
        let batches: Vec<&RecordBatch> = self.runs.iter().map(|run| &run.rows.rows).collect();
        let places: Vec<(usize, usize)> = order.iter().map(|row| (at(row.1), at(row.2))).collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    /// Calls with all rows that a watermark has passed, page by page in order, and lets go of them.
    pub(crate) fn drain(
        &mut self,
        until: i64,
        mut each: impl FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let order = self.passed(until);
        if order.is_empty() {
            return Ok(());
        }
        for page in order.chunks(PAGE_ROWS) {
            each(&self.gather(page)?)?;
        }
        self.clock += 1;
        for run in &mut self.runs {
            let end = end_of(run, until);
            if end > run.next {
                (run.next, run.edition) = (end, self.clock);
            }
        }
        self.runs.retain(|run| run.next < run.rows.len());
        self.bytes = self.runs.iter().map(|run| run.bytes).sum();
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// One block for each run.
    pub(crate) fn snapshot(&self, form: &RowForm, groups: KeyGroups, what: &str) -> Vec<StateBlock> {
        let block = |run: &Run| {
            let table = format!("{PENDING_TABLE}-{}", run.id);
            let schema = stored_schema(form.kept(), &table, what);
            let rows = run.rows.rows.slice(run.next, run.rows.len() - run.next);
            let content = Arc::new(StoredRows { schema, rows });
            StateBlock { table, groups, time: None, edition: run.edition, content }
        };
        self.runs.iter().map(block).collect()
    }
}

fn end_of(run: &Run, until: i64) -> usize {
    match until {
        // Nothing follows, not even at the last instant.
        i64::MAX => run.rows.len(),
        until => run.next + run.rows.times[run.next..].partition_point(|time| *time < until),
    }
}
