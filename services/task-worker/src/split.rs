//! One split of a source: where it stands, and which of its rows are late. Pure.

use arrow::{
    array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch},
    buffer::ScalarBuffer,
    compute::filter_record_batch,
    datatypes::{DataType, TimeUnit, TimestampNanosecondType},
};
use flow::{SplitWatermark, TIME_COLUMN, window_end};
use serde::{Deserialize, Serialize};
use types::{DurationText, Offset, Timestamp};

use crate::{chain::SourceSpec, error::TaskError};

pub(crate) const RECEIVED_COLUMN: &str = "_received";

/// Where a split stands; a checkpoint stores exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Split {
    /// The next offset to read.
    pub(crate) offset: Offset,
    watermark: SplitWatermark,
}

impl Split {
    /// A split of which no row was read.
    pub(crate) fn new(spec: &SourceSpec, offset: Offset) -> Self {
        let watermark = SplitWatermark::new(spec.delay.0).with_max_future_skew(spec.max_future_skew.0);
        Self { offset, watermark }
    }

    /// The split that goes on where this one ended: what is late for the one is late for the other.
    pub(crate) fn followed_at(&self, offset: Offset) -> Self {
        Self { offset, watermark: self.watermark.clone() }
    }

    /// Takes the next rows of the split and returns those that are not late.
    ///
    /// Order: all rows of the split, in offset order, before any filter; how they are cut into batches changes nothing.
    pub(crate) fn take(&mut self, batch: &RecordBatch, window: Option<DurationText>) -> Result<RecordBatch, TaskError> {
        let (times, received) = (instants(batch, TIME_COLUMN)?, instants(batch, RECEIVED_COLUMN)?);
        let rows = times.iter().zip(received.iter());
        let rows = rows.map(|(time, received)| (Timestamp::from_nanos(*time), Timestamp::from_nanos(*received)));
        let Some(size) = window else {
            rows.for_each(|(time, received)| self.watermark.observe(time, received));
            return Ok(batch.clone());
        };
        let before = self.watermark.late_rows();
        let mut in_time = BooleanBufferBuilder::new(batch.num_rows());
        for (time, received) in rows {
            in_time.append(!self.watermark.late(time, received, window_end(time, size)));
        }
        if self.watermark.late_rows() == before {
            return Ok(batch.clone());
        }
        Ok(filter_record_batch(batch, &BooleanArray::new(in_time.finish(), None))?)
    }

    /// Takes the next rows as [`Split::take`] does and answers the watermark before each of them, by which others judge lateness.
    pub(crate) fn mark(&mut self, batch: &RecordBatch) -> Result<Vec<i64>, TaskError> {
        let (times, received) = (instants(batch, TIME_COLUMN)?, instants(batch, RECEIVED_COLUMN)?);
        let mut before = Vec::with_capacity(times.len());
        for (time, received) in times.iter().zip(received.iter()) {
            before.push(self.watermark.watermark().nanos());
            self.watermark.observe(Timestamp::from_nanos(*time), Timestamp::from_nanos(*received));
        }
        Ok(before)
    }

    /// Rows too far in the future to move the watermark, so far.
    pub(crate) fn skewed(&self) -> u64 {
        self.watermark.skewed_rows()
    }

    /// The watermark after the rows taken so far.
    pub(crate) fn watermark(&self) -> Timestamp {
        self.watermark.watermark()
    }
}

/// The instants of a column that every row has.
pub(crate) fn instants(batch: &RecordBatch, name: &'static str) -> Result<ScalarBuffer<i64>, TaskError> {
    let column = batch.column_by_name(name).ok_or(TaskError::Column(name))?;
    if !matches!(column.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)) || column.null_count() > 0 {
        return Err(TaskError::Column(name));
    }
    Ok(column.as_primitive::<TimestampNanosecondType>().values().clone())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use arrow::{
        array::{ArrayRef, Int64Array, TimestampNanosecondArray},
        datatypes::Int64Type,
    };
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn spec() -> SourceSpec {
        SourceSpec {
            index: "shop".parse().unwrap(),
            delay: DurationText(Duration::from_secs(2)),
            max_future_skew: DurationText(Duration::from_secs(300)),
            idle_after: DurationText(Duration::from_secs(2)),
            window: Some(DurationText(Duration::from_secs(10))),
        }
    }

    /// Rows of (time, received) in seconds; `n` numbers them.
    fn rows(events: &[(i64, i64)]) -> RecordBatch {
        let times = |pick: fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(events.iter().map(|e| Some(pick(e) * SECOND)).collect::<TimestampNanosecondArray>())
        };
        let numbers: Int64Array = (0..i64::try_from(events.len()).unwrap()).collect();
        RecordBatch::try_from_iter([
            ("_time", times(|e| e.0)),
            ("_received", times(|e| e.1)),
            ("n", Arc::new(numbers) as ArrayRef),
        ])
        .unwrap()
    }

    fn kept(split: &mut Split, batch: &RecordBatch) -> Vec<i64> {
        let kept = split.take(batch, spec().window).unwrap();
        kept.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_behind_their_window_are_dropped_and_a_broken_clock_moves_nothing() {
        let mut split = Split::new(&spec(), 0);
        // Watermarks after each row: 10, 10, 10 (an hour ahead), 10.
        let events = [(12, 12), (9, 12), (3_600, 12), (11, 12)];
        assert_eq!(kept(&mut split, &rows(&events)), [0, 2, 3]);
        assert_eq!(split.watermark(), Timestamp::from_nanos(10 * SECOND));
    }

    #[test]
    fn without_a_window_nothing_is_late() {
        let mut split = Split::new(&spec(), 0);
        assert_eq!(split.take(&rows(&[(100, 100), (1, 100)]), None).unwrap().num_rows(), 2);
    }

    #[test]
    fn marks_are_what_lateness_is_judged_by() {
        let events = [(12, 12), (9, 12), (3_600, 12), (15, 12)];
        let (mut split, mut other) = (Split::new(&spec(), 0), Split::new(&spec(), 0));
        let seconds: Vec<i64> = split.mark(&rows(&events)).unwrap().iter().map(|w| w / SECOND).collect();
        assert_eq!(seconds, [i64::MIN / SECOND, 10, 10, 10]);
        other.take(&rows(&events), None).unwrap();
        assert_eq!((split.watermark(), split.skewed()), (other.watermark(), 1));
    }

    #[test]
    fn rows_without_times_are_an_error() {
        let mut split = Split::new(&spec(), 0);
        let bare = rows(&[(1, 1)]).project(&[0, 2]).unwrap();
        assert!(matches!(split.take(&bare, None), Err(TaskError::Column("_received"))));
    }

    proptest! {
        /// A replay reads other batches, and may begin at any checkpoint; it must drop exactly the same rows.
        #[test]
        fn lateness_does_not_depend_on_batches_or_restarts(
            events in prop::collection::vec((0i64..60, 0i64..60), 1..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            restart in any::<prop::sample::Index>(),
        ) {
            let whole = rows(&events);
            let mut at_once = Split::new(&spec(), 0);
            let wanted = kept(&mut at_once, &whole);

            let mut edges: Vec<usize> = cuts.iter().map(|c| c.index(events.len())).collect();
            edges.extend([0, events.len()]);
            edges.sort_unstable();
            let mut split = Split::new(&spec(), 0);
            let mut found = Vec::new();
            for (i, edge) in edges.windows(2).enumerate() {
                if i == restart.index(edges.len()) {
                    split = wire::decode(&wire::encode(&split)).unwrap();
                }
                found.extend(kept(&mut split, &whole.slice(edge[0], edge[1] - edge[0])));
            }
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(split.watermark(), at_once.watermark());
        }
    }
}
