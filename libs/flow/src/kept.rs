//! Rows that are kept for others to come: what joins and patterns remember of their inputs.
//!
//! A row comes in, is judged by its own watermark, and waits ([`Pending`]) until the operator's watermark has passed it. Then
//! it goes into the [`Log`], which is in the order of rule 2 of [`row`](crate::row) for ever, and is dropped from its front.
//! Both are batches of columns: joined into larger ones while they are small, frozen for a checkpoint as they lie there, and
//! told from each other by stamps. Which of the two a stored row belongs to is told by its time alone.

mod block;
#[cfg(test)]
pub(crate) mod drive;
mod form;
mod index;
mod log;
mod order;
mod pending;

pub(crate) use block::{Marks, Stored, clock, fired};
pub(crate) use form::{Form, Wanted, inserts_only};
pub(crate) use index::{Index, SameHash};
pub(crate) use log::{Log, Place};
pub(crate) use pending::Pending;

/// The rows of a batch at most: of what is kept, what is stored, and what comes out.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Whether two neighbours are joined: each row is copied at most once per doubling, and there are few batches.
fn joins(before: usize, last: usize) -> bool {
    before <= last.saturating_mul(2) && before + last <= BATCH_ROWS
}

/// Counts what changes, so that a block is stored once as it is.
#[derive(Debug, Default)]
pub(crate) struct Stamps(u64);

impl Stamps {
    /// One that nothing else has.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}
