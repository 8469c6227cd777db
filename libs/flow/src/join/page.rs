//! The rows that come out of a join, made column by column.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampNanosecondArray},
    datatypes::{Field, Schema, SchemaRef},
};

use super::{JoinKind, JoinSpec, side::Side};
use crate::{
    Error, INSTANT_TYPE, Out, TIME_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN,
    kept::{BATCH_ROWS, Place},
};

/// One row to come out: its time, and the row of each side, by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) left: Option<u64>,
    pub(super) right: Option<u64>,
}

/// Rows to come out, in order.
#[derive(Debug, Default)]
pub(super) struct Page {
    rows: Vec<Row>,
    /// The window of each, where there are windows.
    windows: Vec<(i64, i64)>,
}

impl Page {
    /// Adds a row, and gives the page on when it is full.
    pub(super) fn push(&mut self, spec: &JoinSpec, sides: &[Side; 2], row: Row, out: &mut Out) -> Result<(), Error> {
        self.rows.push(row);
        if self.rows.len() >= BATCH_ROWS { self.flush(spec, sides, out) } else { Ok(()) }
    }

    /// The same for a row of a window.
    pub(super) fn push_of(
        &mut self,
        spec: &JoinSpec,
        sides: &[Side; 2],
        (row, window): (Row, (i64, i64)),
        out: &mut Out,
    ) -> Result<(), Error> {
        self.windows.push(window);
        self.push(spec, sides, row, out)
    }

    /// Gives the rows on.
    pub(super) fn flush(&mut self, spec: &JoinSpec, sides: &[Side; 2], out: &mut Out) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let instants = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(values)) };
        let mut columns = vec![instants(self.rows.iter().map(|row| row.time).collect())];
        if matches!(spec.kind, JoinKind::Window(_)) {
            columns.push(instants(self.windows.iter().map(|window| window.0).collect()));
            columns.push(instants(self.windows.iter().map(|window| window.1).collect()));
        }
        let numbers: [fn(&Row) -> Option<u64>; 2] = [|row| row.left, |row| row.right];
        for ((side, of), number) in sides.iter().zip([&spec.left, &spec.right]).zip(numbers).take(out_sides(spec)) {
            let places: Vec<Option<Place>> =
                self.rows.iter().map(|row| number(row).map(|seq| side.log.place(seq))).collect();
            for (column, _) in &of.columns {
                columns.push(side.log.gather(column, &places, &side.form.type_of(column))?);
            }
        }
        self.rows.clear();
        self.windows.clear();
        out.rows(RecordBatch::try_new(schema(spec, sides), columns)?);
        Ok(())
    }
}

/// How many sides have columns that come out.
fn out_sides(spec: &JoinSpec) -> usize {
    if spec.how.left_alone() { 1 } else { 2 }
}

fn schema(spec: &JoinSpec, sides: &[Side; 2]) -> SchemaRef {
    let instant = |name: &str| Field::new(name, INSTANT_TYPE, false);
    let mut fields = vec![instant(TIME_COLUMN)];
    if matches!(spec.kind, JoinKind::Window(_)) {
        fields.extend([instant(WINDOW_START_COLUMN), instant(WINDOW_END_COLUMN)]);
    }
    for (side, of) in sides.iter().zip([&spec.left, &spec.right]).take(out_sides(spec)) {
        fields.extend(of.columns.iter().map(|(column, name)| Field::new(name, side.form.type_of(column), true)));
    }
    Arc::new(Schema::new(fields))
}
