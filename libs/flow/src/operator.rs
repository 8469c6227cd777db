//! What an operator is: rows and watermarks in, rows out, state that can be frozen, cut by key and put together again.
//!
//! Pure and synchronous: it is called by function call, knows no clock and no thread, and never waits. What it gives on it
//! hands to [`Out`]; whoever runs it (see [`Chain`](crate::Chain)) sends that on before the next call.

use std::ops::Range;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use types::Timestamp;

use crate::{
    DeadLetter, Error, ErrorPolicy, FaultKind,
    state::{Spill, StateBlock, StoredBlock},
};

/// The way by which rows leave an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The results.
    #[default]
    Main,
    /// Rows that came too late, as they came in, hidden columns included.
    Late,
    /// Rows that could not be read or computed, see [`DeadLetter`].
    DeadLetter,
}

impl Port {
    /// Whether it is [`Port::Main`].
    pub fn is_main(&self) -> bool {
        *self == Self::Main
    }
}

/// What is given to an operator when it is made.
#[derive(Debug)]
pub struct Setting {
    /// Its name in its vertex, which its state keeps: see [`Vertex::operator_names`](crate::Vertex::operator_names).
    pub name: String,
    /// The key groups whose rows it gets; an operator without keys has all of them.
    pub key_groups: Range<u16>,
    /// What becomes of rows that cannot be computed.
    pub errors: ErrorPolicy,
    /// The most bytes of state that it may hold, spilled ones included; beyond it `StateTooLarge`.
    pub state_bytes_max: usize,
    /// Where it may put state that does not fit memory.
    pub spill: Option<Box<dyn Spill>>,
}

impl Setting {
    /// For an operator that has all keys, with no room to spill.
    pub fn alone(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            key_groups: 0..crate::KEY_GROUPS,
            errors: ErrorPolicy::default(),
            state_bytes_max: usize::MAX,
            spill: None,
        }
    }
}

/// One operator of a chain.
///
/// Order of calls: `restore` first or never; then `process`, `watermark` and `timer` in any order; `snapshot` between
/// them; `end` last. Watermarks only rise. After an error the operator is thrown away with its attempt.
pub trait Operator: std::fmt::Debug + Send {
    /// Takes rows of one input: its number is that of the edge among [`JobGraph::edges_into`](crate::JobGraph::edges_into)
    /// for the first operator of a chain, and 0 for the others.
    fn process(&mut self, input: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error>;

    /// Takes the watermark, the least over all inputs, and gives on what it completes. The watermark itself is passed on by
    /// the caller, behind those rows, as [`Operator::hold`] says.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        let (_, _) = (watermark, out);
        Ok(())
    }

    /// What may be told to those behind when the input's watermark is that: less, if rows with earlier times can still
    /// come out. It rises with its argument.
    fn hold(&self, watermark: Timestamp) -> Timestamp {
        watermark
    }

    /// Takes the time of day, and answers when it wants it again; `None`: never. For what is not deterministic by nature
    /// (early results, state that ends by the clock); such rows may only go where numbers do not count (`emit every`).
    fn timer(&mut self, now: Timestamp, out: &mut Out) -> Result<Option<Timestamp>, Error> {
        let (_, _) = (now, out);
        Ok(None)
    }

    /// A barrier is about to be passed on: what is given goes before it, and a snapshot follows. For what keeps no state of
    /// its own in checkpoints.
    fn barrier(&mut self, out: &mut Out) -> Result<(), Error> {
        let _ = out;
        Ok(())
    }

    /// All inputs have ended, after a last watermark of [`Timestamp::MAX`].
    fn end(&mut self, out: &mut Out) -> Result<(), Error> {
        let _ = out;
        Ok(())
    }

    /// The whole state, frozen: blocks that are shared with the operator, which copies one before it changes it again.
    ///
    /// Bounds: O(blocks), no row is touched; blocks are encoded by others, later. A block with the same name and edition
    /// as in the last snapshot is not looked at again.
    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        Ok(Vec::new())
    }

    /// Takes stored blocks before the first row. They may hold rows of key groups that are others' now, which are left out,
    /// and come from several subtasks.
    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        match blocks.first() {
            None => Ok(()),
            Some(block) => Err(Error::Snapshot(format!("table {:?} belongs to no operator here", block.table))),
        }
    }

    /// Bytes of state in memory.
    fn bytes(&self) -> usize {
        0
    }

    /// Bytes of state that were spilled.
    fn spilled_bytes(&self) -> usize {
        0
    }

    /// Moves state out until no more than `bytes` are in memory, or nothing is left to move.
    fn shrink(&mut self, bytes: usize) -> Result<(), Error> {
        let _ = bytes;
        Ok(())
    }

    /// Rows of the live state for people, `limit` at most behind the first `skip`, in a stable order; `None`: it has none to show.
    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let (_, _) = (skip, limit);
        Ok(None)
    }
}

/// What became of a row that could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its value is null; go on with it.
    Null,
    /// It went to the dead letters; leave it out.
    Gone,
}

/// What operators counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that came too late.
    pub late: u64,
    /// Rows that could not be computed, whatever became of them.
    pub faults: u64,
    /// The first of them, for people.
    pub fault: Option<String>,
}

/// Takes what an operator gives on, in order.
#[derive(Debug, Default)]
pub struct Out {
    rows: Vec<(Port, RecordBatch)>,
    errors: ErrorPolicy,
    keep_late: bool,
    counts: Counts,
}

impl Out {
    /// For operators under that policy; late rows are kept if somebody takes them, and counted in any case.
    pub fn new(errors: ErrorPolicy, keep_late: bool) -> Self {
        Self { errors, keep_late, ..Self::default() }
    }

    /// Gives rows on.
    pub fn rows(&mut self, batch: RecordBatch) {
        self.push(Port::Main, batch);
    }

    /// Tells that rows are late.
    pub fn late(&mut self, batch: RecordBatch) {
        self.counts.late += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        if self.keep_late {
            self.push(Port::Late, batch);
        }
    }

    /// Counts late rows that are not at hand any more.
    pub(crate) fn count_late(&mut self, rows: u64) {
        self.counts.late += rows;
    }

    /// Tells that a row of a batch could not be computed, and learns what to do with it.
    ///
    /// Errors: `Fault` where the policy is to fail.
    pub fn fault(
        &mut self,
        kind: FaultKind,
        detail: &str,
        operator: &str,
        batch: &RecordBatch,
        row: usize,
    ) -> Result<Verdict, Error> {
        if self.count(kind, detail, operator)? == Verdict::Gone {
            let letter = DeadLetter::of(kind, detail, operator, batch, row)?;
            self.push(Port::DeadLetter, DeadLetter::rows(&[letter])?);
            return Ok(Verdict::Gone);
        }
        Ok(Verdict::Null)
    }

    /// The same of something that is no row of a batch: text of a source, or a result.
    pub fn dead(&mut self, letter: DeadLetter) -> Result<Verdict, Error> {
        let verdict = self.count(letter.kind, &letter.detail, &letter.operator)?;
        if verdict == Verdict::Gone {
            self.push(Port::DeadLetter, DeadLetter::rows(&[letter])?);
        }
        Ok(verdict)
    }

    fn count(&mut self, kind: FaultKind, detail: &str, operator: &str) -> Result<Verdict, Error> {
        self.counts.faults += 1;
        self.counts.fault.get_or_insert_with(|| format!("{operator}: {kind}: {detail}"));
        match self.errors {
            ErrorPolicy::Fail => Err(Error::Fault { operator: operator.to_owned(), kind, detail: detail.to_owned() }),
            ErrorPolicy::Null => Ok(Verdict::Null),
            ErrorPolicy::DeadLetter => Ok(Verdict::Gone),
        }
    }

    pub(crate) fn push(&mut self, port: Port, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rows.push((port, batch));
        }
    }

    /// Takes what was given on so far, in order.
    pub fn take(&mut self) -> Vec<(Port, RecordBatch)> {
        std::mem::take(&mut self.rows)
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
