//! The task of any graph: a chain of operators between a source or edges and a sink or edges.
//!
//! The loop owns when things happen: rows, then the watermark behind them, barriers between batches, the end. What they
//! mean is the operators', the source's and the sink's. It never gives up a send half way, so nothing is selected over it.

mod index;
mod open;
mod plan;
mod stage;
mod task;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flow::DeadLetter;
use futures::future::{BoxFuture, ready};
use types::{StreamCut, Timestamp};
use wire::job_manager::SourceCut;

pub(crate) use open::{open, own};
pub(crate) use plan::Free;

use crate::{error::TaskError, part::Part};

/// What a source gives.
#[derive(Debug)]
pub(crate) enum Fed {
    /// The next rows of a split.
    Rows(Rows),
    /// The least watermark of its splits rose; it is given behind the rows that led to it.
    Watermark(Timestamp),
    /// Nothing for a while: the source holds no watermark back until it speaks again.
    Idle,
    /// Nothing will follow.
    End,
}

/// Rows of one split.
#[derive(Debug)]
pub(crate) struct Rows {
    /// With `_time`, the columns of the plan and the hidden ones that it asked for.
    pub(crate) batch: RecordBatch,
    /// The split, as in `_split`.
    pub(crate) split: u64,
    /// What could not be read.
    pub(crate) dead: Vec<DeadLetter>,
    /// Rows that were read for it, whatever became of them.
    pub(crate) read: u64,
    /// Bytes that were read for it.
    pub(crate) bytes: u64,
}

/// Up to where a source has read, for the job manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Of an index.
    pub(crate) index: StreamCut,
    /// Of anything else.
    pub(crate) splits: BTreeMap<String, u64>,
}

/// What a source counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceCounts {
    /// Rows that were late for everything behind it.
    pub(crate) late: u64,
    /// Rows too far in the future to move the watermark.
    pub(crate) skewed: u64,
    /// Rows that could not be read.
    pub(crate) faults: u64,
    /// The first of them, for people.
    pub(crate) fault: Option<String>,
}

/// Where rows come from.
pub(crate) trait RowSource: std::fmt::Debug + Send {
    /// Waits for the next thing. Cancel safe: what it has not returned counts as not read. Not called behind [`Fed::End`].
    fn next(&mut self) -> BoxFuture<'_, Result<Fed, TaskError>>;

    /// Writes the positions down, up to exactly what was returned.
    fn note(&self, part: &mut Part) -> Cut;

    /// What it counted so far.
    fn counts(&self) -> SourceCounts;
}

/// Where rows go.
pub(crate) trait RowSink: std::fmt::Debug + Send {
    /// Takes rows, of one split if the chain begins with a source and keeps no state.
    fn rows(&mut self, split: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>>;

    /// When it returns, everything before is durable, or held back and named in the part.
    fn barrier<'a>(&'a mut self, checkpoint: u64, part: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>>;

    /// Publishes what was held back for that checkpoint and for older ones; repeated.
    fn committed(&mut self, checkpoint: u64) -> BoxFuture<'_, Result<(), TaskError>> {
        let _ = checkpoint;
        Box::pin(ready(Ok(())))
    }

    /// Whether something waits for a commit.
    fn holds_back(&self) -> bool {
        false
    }

    /// Whether it wants the hidden columns.
    fn takes_hidden(&self) -> bool {
        false
    }
}

/// From where a source or a sink goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin<'a> {
    /// The checkpointed parts of all subtasks of the vertex, whatever their number was; none for a fresh start.
    pub(crate) parts: &'a [Part],
    /// Where the job says that the source begins.
    pub(crate) cut: Option<&'a SourceCut>,
}
