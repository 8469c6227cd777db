//! The hidden columns of rows on their way, and the rule by which they make results a function of the input alone.
//!
//! | column | type | what it says |
//! |---|---|---|
//! | `_time` | `Timestamp(Nanosecond)`, never null | the event time |
//! | `_wm` | `Timestamp(Nanosecond)`, never null | the watermark of the row's split *before* the row |
//! | `_split` | `UInt64`, never null | the split, the same number at every parallelism and in every attempt |
//! | `_offset` | `Int64`, never null | the row's place in its split |
//! | `_change` | `Int8`, never null | what the row does to a result that changes, see [`Change`](crate::Change) |
//!
//! A watermark `w` says: what comes from now on has `_time >= w`, or is late. So:
//!
//! 1. **Windows over panes** (tumbling, hop, cumulate) use a row for those of its windows that end after its `_wm`
//!    (`end > _wm`); a row for which none is left is late. A window fires when the operator's watermark has reached its end
//!    (`end <= w`). With a lateness `L` it fires a second time at `end + L` if rows with `end <= _wm < end + L` changed
//!    it. The first result holds exactly the rows with `_wm < end`, whatever had arrived by then.
//! 2. **Operators that depend on order** (session, over, top-N, dedup, joins, patterns) take a row iff `_time >= _wm`, else it
//!    is late. They keep what they took, and at a watermark `w` work on the rows with `_time < w` in the order
//!    (`_time`, input, `_split`, `_offset`).
//! 3. A row is judged once, by its own split's watermark, and never by the operator's: that depends on how inputs
//!    interleave. An operator's watermark is the least of the splits', so what is on time by its split is on time there. The
//!    one exception is an input that was idle: a row that comes behind what has fired is late, and counted as such.
//! 4. A batch without `_wm` is on time as a whole. That is what operators give on when they fire: such rows have the
//!    `_time` of their window's last instant (`end` - 1 ns) and come before the watermark that made them.
//! 5. Where `_split` and `_offset` are absent, ties of `_time` are broken by the content of the rows, column by column in
//!    the order of the schema, of those columns that the operator reads; rows that are equal throughout may change places
//!    without anybody noticing.
//! 6. `_split` is: of an index `epoch << 32 | number` of the segment; of files [`types::hash64`] of the file's path below
//!    the directory of files, with the byte offset of the row as `_offset`; of a JetStream stream 0 and the sequence; of
//!    generators the number of the split and of the row. Two sources are told apart by their input.
//!
//! Filters and projections hand these columns on as they are, whether they are named or not. Sinks drop all but `_time`. A
//! source adds those that the plan asks of it ([`Hidden`](crate::Hidden)): none of them is free.

use arrow::{
    array::{AsArray, RecordBatch},
    buffer::ScalarBuffer,
    datatypes::{DataType, TimeUnit, TimestampNanosecondType},
};

use crate::{Error, TIME_COLUMN, column};

/// The watermark of the row's split before the row.
pub const ROW_WATERMARK_COLUMN: &str = "_wm";
/// The row's split.
pub const SPLIT_COLUMN: &str = "_split";
/// The row's place in its split.
pub const OFFSET_COLUMN: &str = "_offset";
/// What the row does to a result that changes.
pub const CHANGE_COLUMN: &str = "_change";

/// The columns that filters and projections hand on and sinks drop; `_time` is not among them.
pub const HIDDEN_COLUMNS: [&str; 4] = [ROW_WATERMARK_COLUMN, SPLIT_COLUMN, OFFSET_COLUMN, CHANGE_COLUMN];

/// The type of instants in rows.
pub const INSTANT_TYPE: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// The event times of a batch, in nanoseconds.
pub fn row_times(batch: &RecordBatch) -> Result<ScalarBuffer<i64>, Error> {
    column::times(batch, TIME_COLUMN)
}

/// The watermark of each row's split before it, in nanoseconds; `None` where the batch is on time as a whole.
pub fn row_watermarks(batch: &RecordBatch) -> Result<Option<ScalarBuffer<i64>>, Error> {
    match batch.column_by_name(ROW_WATERMARK_COLUMN) {
        None => Ok(None),
        Some(array) if *array.data_type() == INSTANT_TYPE && array.null_count() == 0 => {
            Ok(Some(array.as_primitive::<TimestampNanosecondType>().values().clone()))
        }
        Some(array) => Err(Error::ColumnType {
            column: ROW_WATERMARK_COLUMN.to_owned(),
            found: array.data_type().to_string(),
            wanted: "a timestamp in nanoseconds, never null".to_owned(),
        }),
    }
}

/// Rule 1: whether a window that ends at `end` still takes a row with that watermark.
pub fn in_time_for_window(row_watermark: i64, end: i64) -> bool {
    end > row_watermark
}

/// Rule 2: whether an operator that depends on order takes a row.
pub fn in_time_for_order(time: i64, row_watermark: i64) -> bool {
    time >= row_watermark
}

/// The batch without what only the engine needs; `_time` stays.
pub fn without_hidden(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let schema = batch.schema();
    let kept = |i: &usize| !HIDDEN_COLUMNS.contains(&schema.field(*i).name().as_str());
    let kept: Vec<usize> = (0..batch.num_columns()).filter(kept).collect();
    Ok(batch.project(&kept)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn a_window_and_an_order_agree_on_what_a_watermark_says() {
        // A row of the last instant of a window and the window's end stand for each other.
        for (time, watermark) in [(9, 8), (9, 9), (9, 10), (9, 11)] {
            assert_eq!(
                in_time_for_window(watermark, time + 1),
                in_time_for_order(time, watermark),
                "{time} {watermark}"
            );
        }
    }

    #[test]
    fn hidden_columns_are_read_and_dropped() {
        let instants = || Arc::new(TimestampNanosecondArray::from(vec![1, 2])) as ArrayRef;
        let n = || Arc::new(Int64Array::from(vec![3, 4])) as ArrayRef;
        let batch =
            RecordBatch::try_from_iter([("_time", instants()), ("_wm", instants()), ("_offset", n()), ("n", n())]);
        let batch = batch.unwrap();
        assert_eq!(row_watermarks(&batch).unwrap().unwrap().to_vec(), [1, 2]);
        let shown = without_hidden(&batch).unwrap();
        assert_eq!((shown.num_columns(), row_watermarks(&shown).unwrap()), (2, None));
        let wrong = RecordBatch::try_from_iter([("_wm", n())]).unwrap();
        assert!(matches!(row_watermarks(&wrong), Err(Error::ColumnType { .. })));
    }
}
