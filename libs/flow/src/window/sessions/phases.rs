//! Sessions in two phases: before the edge rows become parts of sessions, batch by batch, and behind it parts become sessions.
//!
//! A part joins what it is near to as a row does, for its rows are near to each other.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray},
    datatypes::{Field, TimestampNanosecondType},
};

use super::super::{
    BATCH_ROWS, TIME_COLUMN,
    chunk::{Chunked, at, number},
    groups::{Groups, Layout, damaged},
};
use super::{Joined, SPAN, SessionOperator, TABLE};
use crate::{Error, INSTANT_TYPE, Out, row};

/// The spans of parts, or of stored sessions.
pub(super) fn spans(batch: &RecordBatch) -> Result<[&TimestampNanosecondArray; 2], Error> {
    let instants = |name: &str| {
        let array = batch.column_by_name(name).and_then(|a| a.as_primitive_opt::<TimestampNanosecondType>());
        array.ok_or_else(|| damaged(format!("{name} is missing")))
    };
    Ok([instants(SPAN[0])?, instants(SPAN[1])?])
}

impl SessionOperator {
    /// Gives all sessions on as parts, and is empty then. A part has the time of its last row.
    pub(super) fn hand_on(&mut self, out: &mut Out) -> Result<(), Error> {
        let (Some(layout), Some(state)) = (&self.layout, &self.state) else { return Ok(()) };
        let fields = [TIME_COLUMN, SPAN[0], SPAN[1]].map(|name| Field::new(name, INSTANT_TYPE, false));
        let schema = layout.stored(TABLE, &fields);
        let open: Vec<u32> = (0..number(self.places)).filter(|place| self.sessions.get(*place).open).collect();
        for places in open.chunks(BATCH_ROWS) {
            let sessions: Vec<_> = places.iter().map(|place| *self.sessions.get(*place)).collect();
            let keys: Vec<u32> = sessions.iter().map(|session| session.key).collect();
            let lasts: ArrayRef =
                Arc::new(TimestampNanosecondArray::from_iter_values(sessions.iter().map(|session| session.last)));
            let firsts = TimestampNanosecondArray::from_iter_values(sessions.iter().map(|session| session.first));
            let before = vec![Arc::clone(&lasts), Arc::new(firsts), lasts];
            out.rows(state.stored(&schema, before, (&keys, places))?);
        }
        self.state = Some(Groups::new(layout));
        self.sessions = Chunked::default();
        self.of_key.clear();
        self.free.clear();
        self.places = 0;
        self.queue.clear();
        Ok(())
    }

    /// Takes parts from before the edge.
    pub(super) fn add_parts(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let layout = self.layout(|plan| Layout::of_stored(plan, &batch.schema()))?;
        let ([firsts, lasts], keyed, loaded) = (spans(batch)?, layout.form.read(batch)?, layout.load(batch)?);
        let in_time = |row: &u32| row::in_time_for_order(lasts.value(at(*row)), self.fired);
        let (rows, late): (Vec<u32>, Vec<u32>) = (0..number(batch.num_rows())).partition(in_time);
        let count = |row: &u32| loaded.first().map_or(0, |cells| u64::try_from(cells.count(*row)).unwrap_or(0));
        out.count_late(late.iter().map(count).sum());
        self.edition += 1;
        let Some(state) = &mut self.state else { return Ok(()) };
        let mut keys = Vec::new();
        state.table.groups(&keyed, Some(&rows), &mut keys);
        self.of_key.resize_with(state.table.len(), Vec::new);
        let mut joined = Joined::default();
        for (row, key) in rows.iter().zip(&keys) {
            let span = (firsts.value(at(*row)), lasts.value(at(*row)));
            let session = self.join(*key, span, &mut joined);
            joined.of_row.push(session);
        }
        self.settle(&mut joined);
        let Some(state) = &mut self.state else { return Ok(()) };
        for (cells, loaded) in state.cells.iter_mut().zip(&loaded) {
            cells.merge(&joined.of_row, loaded, &rows);
        }
        Ok(())
    }
}
