//! One input of a join: rows that wait, rows that others can meet, and the way from a key to those.

use std::{collections::BTreeMap, ops::Range};

use arrow::array::RecordBatch;

use super::JoinSide;
use crate::{
    Error, Out,
    kept::{Form, Index, Log, Pending, Place, Stamps, Wanted},
    window::cells,
};

#[derive(Debug)]
pub(super) struct Side {
    pub(super) form: Form,
    pub(super) pending: Pending,
    pub(super) log: Log,
    pub(super) index: Index,
}

impl Side {
    /// No rows; `more` are columns that are read and do not come out.
    pub(super) fn new(spec: &JoinSide, comes_out: bool, more: &[&str]) -> Self {
        let columns = spec.columns.iter().filter(|_| comes_out).map(|(column, _)| column.clone());
        let typed = spec.columns.iter().zip(&spec.types);
        let types: BTreeMap<_, _> =
            typed.map(|((column, _), kind)| (column.clone(), cells::data_type(*kind))).collect();
        let columns = columns.chain(more.iter().map(|name| (*name).to_owned())).collect();
        let form = Form::new(Wanted { keys: spec.keys.clone(), columns, types });
        Self { form, pending: Pending::default(), log: Log::default(), index: Index::default() }
    }

    /// Takes the rows that are in time.
    pub(super) fn take(
        &mut self,
        batch: &RecordBatch,
        fired: i64,
        stamps: &mut Stamps,
        out: &mut Out,
    ) -> Result<(), Error> {
        let rows = self.form.read(batch, fired, out)?;
        self.pending.push(rows, stamps)
    }

    /// Moves the rows before that instant into the log; answers their numbers. They are not in the index yet.
    pub(super) fn advance(&mut self, until: i64, stamps: &mut Stamps) -> Result<Range<u64>, Error> {
        match self.pending.ready(until, self.form.placed(), stamps)? {
            Some(rows) => self.log.push(&self.form, &rows, None, stamps),
            None => Ok(self.log.next()..self.log.next()),
        }
    }

    /// Lets a row be met. A key with a null equals nothing.
    pub(super) fn enter(&mut self, seq: u64) {
        let place = self.log.place(seq);
        if !self.log.null_key(place) {
            self.index.push(self.log.hash(place), seq);
        }
    }

    /// The rows here, entered, that a row of the other side meets, in order, from an instant to another.
    pub(super) fn partners(&self, other: &Side, row: Place, (from, to): (i64, i64)) -> impl Iterator<Item = u64> {
        let null = other.log.null_key(row);
        let (hash, key) = (other.log.hash(row), other.log.key(row));
        let found = self.index.from(hash, move |seq| null || self.log.time(self.log.place(seq)) < from);
        let placed = found.map(|seq| (seq, self.log.place(seq)));
        let near = placed.take_while(move |(_, place)| self.log.time(*place) <= to);
        near.filter(move |(_, place)| self.log.key(*place) == key).map(|(seq, _)| seq)
    }

    /// Drops the rows before that one, as far as whole batches go.
    pub(super) fn drop_before(&mut self, seq: u64) {
        let index = &mut self.index;
        self.log.drop_before(seq, |hash, seq| index.remove(hash, seq));
    }
}
