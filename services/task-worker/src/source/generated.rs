//! Rows made up from a seed: row `n` of a split is the same in every attempt, so the number of the next row is the position.

use std::{sync::Arc, time::Duration};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::DataType;
use flow::TIME_COLUMN;
use formats::{Layout, Rows as Read};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::pulled::{PIECE_ROWS, Place, Reader, Share, Split};
use crate::error::TaskError;

/// Event time of the first row: 2026-01-01.
const BEGIN_NANOS: i64 = 1_767_225_600_000_000_000;
/// Rows in a second of event time, where no pace is given.
const RATE: u64 = 1_000;
/// Different values of a column of whole numbers or texts.
const VALUES: u64 = 1_000;

/// How many rows, and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) seed: u64,
    pub(super) rows: Option<u64>,
    pub(super) per_second: Option<u64>,
    pub(super) splits: u32,
}

/// The subtask's share of the splits.
pub(super) fn splits(share: Share, pace: Pace, layout: &Layout, known: &[(String, Place)]) -> Vec<Split> {
    let mine = (0..pace.splits.max(1)).filter(|number| share.has(*number));
    mine.map(|number| {
        let name = format!("{number:010}");
        let place = known.iter().find(|(known, _)| *known == name).map(|(_, place)| *place).unwrap_or_default();
        let reader = Generator::new(pace, number, layout, place.position);
        let reader: Option<Box<dyn Reader>> = if place.ended { None } else { Some(Box::new(reader)) };
        Split { name, number: u64::from(number), place, reader }
    })
    .collect()
}

/// Makes the rows of one split.
#[derive(Debug)]
struct Generator {
    layout: Layout,
    seed: u64,
    split: u64,
    splits: u64,
    /// The next row of the split.
    next: u64,
    /// Rows of the split.
    rows: u64,
    per_second: Option<u64>,
    began: (Instant, u64),
}

impl Generator {
    fn new(pace: Pace, split: u32, layout: &Layout, next: u64) -> Self {
        let (splits, split) = (u64::from(pace.splits.max(1)), u64::from(split));
        // What does not divide goes to the first ones.
        let rows = pace.rows.map_or(u64::MAX, |rows| rows / splits + u64::from(split < rows % splits));
        let (layout, seed, per_second) = (layout.clone(), pace.seed, pace.per_second.filter(|rate| *rate > 0));
        Self { layout, seed, split, splits, next, rows, per_second, began: (Instant::now(), next) }
    }

    async fn piece(&mut self) -> Result<Option<(Read, u64)>, TaskError> {
        if self.next >= self.rows {
            return Ok(None);
        }
        let mut count = (self.rows - self.next).min(PIECE_ROWS as u64);
        if let Some(rate) = self.per_second {
            // A tenth of a second of rows at once.
            count = count.min((rate / self.splits / 10).max(1));
            let given = (self.next - self.began.1 + count).saturating_mul(self.splits);
            let due = Duration::from_nanos(
                (u128::from(given) * 1_000_000_000 / u128::from(rate)).try_into().unwrap_or(u64::MAX),
            );
            tokio::time::sleep_until(self.began.0 + due).await;
        }
        let rows = self.make(count)?;
        self.next += count;
        let bytes = rows.batch.get_array_memory_size();
        Ok(Some((rows, crate::metrics::rows(bytes))))
    }

    fn make(&self, count: u64) -> Result<Read, TaskError> {
        let rows: Vec<u64> = (self.next..self.next + count).collect();
        let offsets: Vec<i64> = rows.iter().map(|row| i64::try_from(*row).unwrap_or(i64::MAX)).collect();
        let schema = Arc::clone(self.layout.schema());
        let columns = (0u64..).zip(schema.fields()).map(|(column, field)| self.column(column, field, &rows)).collect();
        let batch = RecordBatch::try_new(schema, columns)?;
        Ok(Read { batch, offsets: offsets.into(), faults: Vec::new() })
    }

    fn column(&self, column: u64, field: &arrow::datatypes::Field, rows: &[u64]) -> ArrayRef {
        let value = |row: &u64| self.value(column, *row);
        let small = |row: &u64| i64::try_from(value(row) % VALUES).unwrap_or(0);
        match field.data_type() {
            DataType::Timestamp(..) if field.name() == TIME_COLUMN => {
                Arc::new(rows.iter().map(|row| Some(self.time(*row))).collect::<TimestampNanosecondArray>())
            }
            DataType::Timestamp(..) => {
                Arc::new(rows.iter().map(|row| Some(BEGIN_NANOS + small(row))).collect::<TimestampNanosecondArray>())
            }
            DataType::Float64 => {
                Arc::new(rows.iter().map(|row| Some(small(row) as f64 / 8.0)).collect::<Float64Array>())
            }
            DataType::Boolean => Arc::new(rows.iter().map(|row| Some(value(row) % 2 == 0)).collect::<BooleanArray>()),
            DataType::Utf8 => Arc::new(
                rows.iter().map(|row| Some(format!("{}-{}", field.name(), small(row)))).collect::<StringArray>(),
            ),
            _ => Arc::new(rows.iter().map(|row| Some(small(row))).collect::<Int64Array>()),
        }
    }

    /// Splits take turns, so that together they are in order.
    fn time(&self, row: u64) -> i64 {
        let number = u128::from(row) * u128::from(self.splits) + u128::from(self.split);
        let rate = u128::from(self.per_second.unwrap_or(RATE));
        BEGIN_NANOS.saturating_add(i64::try_from(number * 1_000_000_000 / rate).unwrap_or(i64::MAX))
    }

    /// splitmix64 of all that names a value.
    fn value(&self, column: u64, row: u64) -> u64 {
        let mut z = [self.split, column, row].iter().fold(self.seed, |state, part| {
            (state ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_add(1)
        });
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Reader for Generator {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(self.piece())
    }

    fn position(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use formats::{Column, Kind, Unit};

    use super::*;

    async fn rows(generator: &mut Generator) -> RecordBatch {
        let mut all = Vec::new();
        while let Some((rows, _)) = generator.piece().await.unwrap() {
            all.push(rows.batch);
        }
        concat_batches(generator.layout.schema(), &all).unwrap()
    }

    #[tokio::test]
    async fn a_row_is_the_same_wherever_reading_begins() {
        let kinds =
            [("k", Kind::Integer), ("v", Kind::Float), ("t", Kind::Text), ("b", Kind::Boolean), ("at", Kind::Time)];
        let layout =
            Layout::new(kinds.map(|(name, kind)| Column::new(name, kind)).to_vec(), Some("_time"), Unit::Millis);
        let layout = layout.unwrap();
        let pace = Pace { seed: 7, rows: Some(20_001), per_second: None, splits: 2 };
        let whole = rows(&mut Generator::new(pace, 0, &layout, 0)).await;
        assert_eq!(whole.num_rows(), 10_001);
        assert_eq!(rows(&mut Generator::new(pace, 1, &layout, 0)).await.num_rows(), 10_000);
        let rest = rows(&mut Generator::new(pace, 0, &layout, 9_000)).await;
        assert_eq!(rest, whole.slice(9_000, 1_001));
        let other = rows(&mut Generator::new(Pace { seed: 8, ..pace }, 0, &layout, 0)).await;
        assert_ne!(other.column(1), whole.column(1));
        assert_eq!(other.column(0), whole.column(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept() {
        let layout = Layout::new(vec![Column::new("k", Kind::Integer)], Some("_time"), Unit::Millis).unwrap();
        let pace = Pace { seed: 7, rows: Some(1_000), per_second: Some(100), splits: 1 };
        let begin = Instant::now();
        rows(&mut Generator::new(pace, 0, &layout, 0)).await;
        assert_eq!(begin.elapsed().as_secs(), 10);
    }
}
