//! Work on rows in the one order of rule 2 of [`row`](crate::row), whatever the order in which they come.
//!
//! Rows that are in time wait until the watermark has passed them; then they are worked on by `(_time, _split, _offset)`, or by
//! content where they have no place. What comes out therefore depends on the rows alone. Rows are sorted once, batch by batch,
//! as they come, and runs are merged as they go: each row is copied twice and its key hashed once.

mod form;
mod keys;
mod operator;
mod pending;
mod store;

pub(crate) use form::{Placed, RowForm, converter};
pub(crate) use keys::{Keys, KeysPiece, StoredKeys};
pub(crate) use operator::{InOrder, Ordered, judged};
use pending::Pending;
pub(crate) use store::{StoredRows, own_of, stored_schema};
use store::{bytes_of, due_to_forget};

/// The rows of one output batch, about what fits the second-level cache.
pub(crate) const PAGE_ROWS: usize = 8_192;
