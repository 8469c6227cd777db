//! The order of rows in a chunk, and the way back to the order of offsets.
//!
//! Lines of one program resemble each other, so rows lie by program and time: messages take a third less so, and a row
//! group holds few programs. `_offset` stays a column; a reader who needs the order of offsets puts the rows back by it.

use std::collections::{HashMap, hash_map::Entry};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::interleave_record_batch,
    datatypes::{Int64Type, TimestampNanosecondType},
};
use types::Offset;

use crate::{Error, READ_BATCH_ROWS};

/// Columns that name the program a line comes from, the best first.
pub const KEY_COLUMNS: [&str; 16] = [
    "service",
    "service.name",
    "service_name",
    "app",
    "app.kubernetes.io/name",
    "application",
    "kubernetes.container_name",
    "kubernetes_container_name",
    "k8s.container.name",
    "container_name",
    "container",
    "program",
    "syslog_identifier",
    "job",
    "unit",
    "process",
];

/// The most values of a column by which rows are sorted; one with more names something finer than programs.
pub const KEYS_MAX: usize = 4_096;

/// The most memory of rows that are sorted; larger chunks keep the order of offsets.
pub const SORT_BYTES_MAX: usize = 1 << 30;

/// Rows in the order in which they are to lie.
pub(crate) struct Order {
    /// The column by which they are sorted first.
    pub(crate) key: String,
    /// Batch and row.
    places: Vec<(usize, usize)>,
}

impl Order {
    /// The order for rows that come in the order of offsets; `None` if that one is as good.
    pub(crate) fn choose(batches: &[&RecordBatch]) -> Option<Self> {
        // Of slices only what they show: several may be of one batch.
        let columns = batches.iter().flat_map(|batch| batch.columns());
        let bytes = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
        if bytes > SORT_BYTES_MAX {
            return None;
        }
        KEY_COLUMNS.iter().find_map(|key| Some(Self { key: (*key).to_owned(), places: sorted(batches, key)? }))
    }

    /// So many rows from the given one on.
    pub(crate) fn rows(&self, batches: &[&RecordBatch], from: usize, rows: usize) -> Result<RecordBatch, Error> {
        let places = self.places.get(from..).unwrap_or(&[]);
        Ok(interleave_record_batch(batches, &places[..rows.min(places.len())])?)
    }
}

/// A row of a program: its time, its batch and its place there.
type Row = (i64, u32, u32);

/// Rows by the value of the key, in the order of offsets.
#[derive(Default)]
struct Programs<'a> {
    places: HashMap<Option<&'a str>, usize>,
    rows: Vec<(Option<&'a str>, Vec<Row>)>,
}

impl<'a> Programs<'a> {
    /// Where the rows of a value are; `None` where it would be one value too many.
    fn place(&mut self, value: Option<&'a str>) -> Option<usize> {
        match self.places.entry(value) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if self.rows.len() == KEYS_MAX => None,
            Entry::Vacant(new) => {
                self.rows.push((value, Vec::new()));
                Some(*new.insert(self.rows.len() - 1))
            }
        }
    }
}

/// Batch and row, by key, then time, then offset; nulls first. `None` where the column does not tell rows apart.
fn sorted(batches: &[&RecordBatch], key: &str) -> Option<Vec<(usize, usize)>> {
    let mut programs = Programs::default();
    for (number, batch) in (0u32..).zip(batches) {
        let column = batch.column_by_name(key)?.as_string_opt::<i32>()?;
        let times = batch.column_by_name("_time")?.as_primitive_opt::<TimestampNanosecondType>()?;
        let mut at = None;
        for ((row, value), time) in (0u32..).zip(column.iter()).zip(times.values()) {
            // Neighbours often are of one program.
            let place = match at {
                Some((known, place)) if known == value => place,
                _ => programs.place(value)?,
            };
            at = Some((value, place));
            programs.rows[place].1.push((*time, number, row));
        }
    }
    let mut rows = programs.rows;
    if rows.len() < 2 {
        return None;
    }
    rows.sort_unstable_by_key(|(value, _)| *value);
    // Events of one program mostly come in the order of time.
    rows.iter_mut().for_each(|(_, rows)| rows.sort_by_key(|(time, _, _)| *time));
    let all = rows.into_iter().flat_map(|(_, rows)| rows);
    Some(all.map(|(_, batch, row)| (batch as usize, row as usize)).collect())
}

/// The rows with the offsets `from .. to` in the order of offsets, out of batches in any order.
///
/// Errors: `Gap` if one of them is not there, or there twice.
pub(crate) fn restore(batches: &[RecordBatch], from: Offset, to: Offset) -> Result<Vec<RecordBatch>, Error> {
    const NONE: (usize, usize) = (usize::MAX, 0);
    let rows = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let had: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if had != rows {
        let found = i64::try_from(from + had as u64).unwrap_or(i64::MAX);
        return Err(Error::Gap { expected: to, found });
    }
    let mut places = vec![NONE; rows];
    for (number, batch) in batches.iter().enumerate() {
        let offsets = batch.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let offsets = offsets.ok_or(Error::Column { batch: number, column: "_offset", expected: "Int64" })?;
        for (row, offset) in offsets.values().iter().enumerate() {
            let place = u64::try_from(*offset).ok().and_then(|offset| usize::try_from(offset.checked_sub(from)?).ok());
            match place.and_then(|place| places.get_mut(place)) {
                Some(place) if *place == NONE => *place = (number, row),
                _ => return Err(Error::Gap { expected: from, found: *offset }),
            }
        }
    }
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    places.chunks(READ_BATCH_ROWS).map(|places| Ok(interleave_record_batch(&batches, places)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_made_for_one_value_too_many() {
        let values: Vec<String> = (1..=KEYS_MAX).map(|n| n.to_string()).collect();
        let mut programs = Programs::default();
        assert_eq!(programs.place(None), Some(0));
        for (n, value) in (1..).zip(&values) {
            assert_eq!(programs.place(Some(value)), (n < KEYS_MAX).then_some(n), "value {n}");
        }
        assert_eq!(programs.place(Some("1")), Some(1), "known ones are found");
        assert_eq!((programs.rows.len(), programs.places.len()), (KEYS_MAX, KEYS_MAX));
    }
}
