//! The order of rule 2 within an input: `_time`, `_split`, `_offset`; or `_time` and the content.

use arrow::{
    array::{Array, AsArray, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{Int64Type, UInt64Type},
    row::{RowConverter, Rows, SortField},
};

use super::form::times;
use crate::{
    Error, HASH_COLUMN, OFFSET_COLUMN, SPLIT_COLUMN, column,
    window::chunk::{at, number},
};

fn taken(batch: RecordBatch, rows: Vec<u32>) -> Result<RecordBatch, Error> {
    if rows.iter().is_sorted() {
        return Ok(batch);
    }
    Ok(take_record_batch(&batch, &UInt32Array::from(rows))?)
}

/// The rows by time alone; those of one time stay as they came.
pub(super) fn by_time(batch: RecordBatch) -> Result<RecordBatch, Error> {
    let times = times(&batch)?;
    if times.is_sorted() {
        return Ok(batch);
    }
    let mut rows: Vec<(i64, u32)> = times.iter().copied().zip(0u32..).collect();
    rows.sort_unstable();
    taken(batch, rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows in their order; those that nothing tells apart stay as they came.
pub(super) fn in_order(batch: RecordBatch, placed: bool) -> Result<RecordBatch, Error> {
    let times = times(&batch)?;
    if placed {
        let wrong = |name: &str| Error::ColumnType {
            column: name.to_owned(),
            found: "something else".to_owned(),
            wanted: "UInt64 for the split and Int64 for the place in it, never null".to_owned(),
        };
        let splits = column::column(&batch, SPLIT_COLUMN)?.as_primitive_opt::<UInt64Type>();
        let offsets = column::column(&batch, OFFSET_COLUMN)?.as_primitive_opt::<Int64Type>();
        let splits = splits.ok_or_else(|| wrong(SPLIT_COLUMN))?.values();
        let offsets = offsets.ok_or_else(|| wrong(OFFSET_COLUMN))?.values();
        let places = times.iter().zip(splits.iter()).zip(offsets.iter()).zip(0u32..);
        let mut rows: Vec<(i64, u64, i64, u32)> = places.map(|(((t, s), o), row)| (*t, *s, *o, row)).collect();
        if rows.is_sorted() {
            return Ok(batch);
        }
        rows.sort_unstable();
        return taken(batch, rows.into_iter().map(|(.., row)| row).collect());
    }
    let batch = by_time(batch)?;
    let times = self::times(&batch)?;
    if times.windows(2).all(|pair| pair[0] < pair[1]) {
        return Ok(batch);
    }
    let content = content(&batch)?;
    let mut rows: Vec<u32> = (0..number(times.len())).collect();
    rows.sort_by(|a, b| {
        let (a, b) = (at(*a), at(*b));
        times[a].cmp(&times[b]).then_with(|| content.row(a).cmp(&content.row(b)))
    });
    taken(batch, rows)
}

/// What rows hold, comparable; columns whose types have no order tell nothing apart.
fn content(batch: &RecordBatch) -> Result<Rows, Error> {
    let schema = batch.schema();
    let ordered = |field: &SortField| RowConverter::supports_fields(std::slice::from_ref(field));
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(batch.columns()).filter(|(f, _)| f.name() != HASH_COLUMN) {
        let sort = SortField::new(field.data_type().clone());
        if ordered(&sort) && !array.is_empty() {
            fields.push(sort);
            columns.push(array.clone());
        }
    }
    Ok(RowConverter::new(fields)?.convert_columns(&columns)?)
}
