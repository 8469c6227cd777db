//! Rows to an alert rule, in order, one call at a time.
//!
//! What the rule decides must not depend on how many windows fire at once: rows of different windows go in different calls,
//! and a watermark is told before the rows of a window that begins behind it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use flow::{EARLY_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN, WindowSpec, window_start};
use tokio::time::{Instant, sleep_until};
use types::{RuleId, Timestamp};
use wire::alerter::{Observation, ObserveRows, ObservedRow};

use crate::{error::TaskError, retry::persist, split::instants, task::Context};

/// Between two calls that only tell a watermark.
const WATERMARK_PAUSE: Duration = Duration::from_millis(200);
/// Rows of one call.
const ROWS_MAX: usize = 500;
/// Bytes of the labels and values of one call, about; one row may be larger.
const BYTES_MAX: usize = 256 << 10;

/// Tells the rows of one subtask.
#[derive(Debug)]
pub(crate) struct AlertSink {
    context: Arc<Context>,
    rule: RuleId,
    spec: WindowSpec,
    /// The watermark that the rule knows.
    told: Timestamp,
    /// The watermark up to which all rows are told.
    risen: Timestamp,
    /// When a watermark alone may be told again.
    next: Instant,
}

impl AlertSink {
    /// A sink of a window's rows.
    pub(crate) fn new(context: Arc<Context>, rule: RuleId, spec: WindowSpec) -> Self {
        Self { context, rule, spec, told: Timestamp::MIN, risen: Timestamp::MIN, next: Instant::now() }
    }

    /// Tells rows of windows that are still open.
    pub(crate) async fn early(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let mut rows = observed(batch, &self.spec)?;
        while !rows.is_empty() {
            let behind = rows.split_off(fitting(&rows));
            self.tell(rows, self.risen).await?;
            rows = behind;
        }
        Ok(())
    }

    /// Tells the rows of windows that closed, and that all windows up to the watermark have.
    pub(crate) async fn fired(&mut self, batches: &[RecordBatch], watermark: Timestamp) -> Result<(), TaskError> {
        let mut rows = Vec::new();
        for batch in batches {
            rows.extend(observed(batch, &self.spec)?);
        }
        if !rows.is_empty() {
            for (watermark, rows) in observations(rows, self.told, watermark) {
                self.tell(rows, watermark).await?;
            }
        }
        self.risen = self.risen.max(watermark);
        Ok(())
    }

    /// Waits until a watermark alone is to be told; for ever if there is none.
    pub(crate) async fn due(&self) {
        // Only the end of a window means anything to a rule.
        if window_start(self.risen, self.spec.size) > window_start(self.told, self.spec.size) {
            sleep_until(self.next).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Tells the watermark alone.
    pub(crate) async fn tell_watermark(&mut self) -> Result<(), TaskError> {
        self.tell(Vec::new(), self.risen).await
    }

    async fn tell(&mut self, rows: Vec<ObservedRow>, watermark: Timestamp) -> Result<(), TaskError> {
        let observation = Observation {
            rule: self.rule.clone(),
            attempt: self.context.attempt,
            subtask: self.context.id.subtask,
            watermark,
            rows,
        };
        let bus = &self.context.shared.bus;
        persist("telling the alerter", || bus.call::<ObserveRows>(&(), &observation)).await?;
        self.told = self.told.max(watermark);
        self.next = Instant::now() + WATERMARK_PAUSE;
        Ok(())
    }
}

/// How many of the first rows go in one call, at least one.
fn fitting(rows: &[ObservedRow]) -> usize {
    let size = |row: &ObservedRow| {
        64 + row.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>()
            + row.values.keys().map(|k| k.len() + 16).sum::<usize>()
    };
    let sums = rows.iter().take(ROWS_MAX).scan(0, |sum, row| {
        *sum += size(row);
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= BYTES_MAX).count().max(1).min(rows.len())
}

/// The calls that tell rows of closed windows, in order: what each tells and the watermark that holds after it.
///
/// `rows` are in the order of their windows' ends; `told` is known, and all windows up to `watermark` are closed.
fn observations(rows: Vec<ObservedRow>, told: Timestamp, watermark: Timestamp) -> Vec<(Timestamp, Vec<ObservedRow>)> {
    let mut calls = Vec::new();
    let mut known = told;
    let mut rest = rows;
    while let Some((start, end)) = rest.first().map(|row| (row.window_start, row.window_end)) {
        // Windows before this one had no rows, or they are told: a rule has to weigh that first.
        if start > known {
            match calls.last_mut() {
                Some((after, _)) => *after = start,
                None => calls.push((start, Vec::new())),
            }
            known = start;
        }
        let mut window = rest;
        rest = window.split_off(window.iter().take_while(|row| row.window_end == end).count());
        while !window.is_empty() {
            let behind = window.split_off(fitting(&window));
            calls.push((known, window));
            window = behind;
        }
    }
    if let Some((after, _)) = calls.last_mut() {
        *after = watermark.max(known);
    }
    calls
}

/// The rows of a window as a rule sees them: a key that is null is no label, a value that is null is not a number.
fn observed(batch: &RecordBatch, spec: &WindowSpec) -> Result<Vec<ObservedRow>, TaskError> {
    let (starts, ends) = (instants(batch, WINDOW_START_COLUMN)?, instants(batch, WINDOW_END_COLUMN)?);
    let options = FormatOptions::default();
    let column = |name: &String| {
        batch.column_by_name(name).ok_or_else(|| TaskError::Plan(format!("a window gave no column {name:?}")))
    };
    let mut labels = Vec::with_capacity(spec.keys.len());
    for name in &spec.keys {
        let array = column(name)?;
        labels.push((name, array, ArrayFormatter::try_new(array, &options)?));
    }
    let mut values = Vec::with_capacity(spec.aggregates.len());
    for aggregate in &spec.aggregates {
        let array = cast(column(&aggregate.name)?, &DataType::Float64)?;
        values.push((&aggregate.name, array.as_primitive::<Float64Type>().clone()));
    }
    let early = batch.column_by_name(EARLY_COLUMN).map(|array| array.as_boolean());
    let row = |row: usize| ObservedRow {
        window_start: Timestamp::from_nanos(starts[row]),
        window_end: Timestamp::from_nanos(ends[row]),
        labels: labels
            .iter()
            .filter(|(_, array, _)| array.is_valid(row))
            .map(|(name, _, text)| ((*name).clone(), text.value(row).to_string()))
            .collect::<BTreeMap<_, _>>(),
        values: values
            .iter()
            .map(|(name, array)| ((*name).clone(), if array.is_valid(row) { array.value(row) } else { f64::NAN }))
            .collect(),
        early: early.is_some_and(|early| early.value(row)),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use flow::{AggregateFunction, AggregateSpec};
    use types::DurationText;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn row(start: i64, k: &str) -> ObservedRow {
        ObservedRow {
            window_start: at(start),
            window_end: at(start + 10),
            labels: [("k".to_owned(), k.to_owned())].into(),
            values: BTreeMap::new(),
            early: false,
        }
    }

    fn shape(calls: &[(Timestamp, Vec<ObservedRow>)]) -> Vec<(i64, Vec<i64>)> {
        let start = |row: &ObservedRow| row.window_start.millis() / 1_000;
        calls.iter().map(|(after, rows)| (after.millis() / 1_000, rows.iter().map(start).collect())).collect()
    }

    #[test]
    fn windows_that_close_together_are_told_one_by_one() {
        // Told up to 12, inside the first window: its rows go at once. Window 20 is empty, which is said with the rows of 10.
        let rows = vec![row(10, "a"), row(10, "b"), row(30, "a"), row(40, "a")];
        let found = observations(rows, at(12), at(55));
        assert_eq!(shape(&found), [(30, vec![10, 10]), (40, vec![30]), (55, vec![40])]);
        // Told up to 12, but the next rows begin at 30: that 20 and 30 have closed is said first.
        assert_eq!(shape(&observations(vec![row(30, "a")], at(12), at(41))), [(30, vec![]), (41, vec![30])]);
        assert_eq!(shape(&observations(vec![row(10, "a")], at(12), at(20))), [(20, vec![10])]);
    }

    /// Weighs calls as a rule does whose condition holds in every row: what fires and what resolves, and in which window.
    fn weigh(calls: &[(Timestamp, Vec<ObservedRow>)]) -> Vec<(String, i64, bool)> {
        let mut held: BTreeMap<String, i64> = BTreeMap::new();
        let mut events = Vec::new();
        for (after, rows) in calls {
            for row in rows {
                let end = row.window_end.millis() / 1_000;
                if held.insert(row.labels["k"].clone(), end).is_none() {
                    events.push((row.labels["k"].clone(), end, true));
                }
            }
            for (label, end) in held.extract_if(.., |_, end| *end + 10 <= after.millis() / 1_000) {
                events.push((label, end + 10, false));
            }
        }
        events
    }

    #[test]
    fn what_a_rule_decides_does_not_depend_on_how_many_windows_close_at_once() {
        let rows = vec![row(10, "a"), row(20, "a"), row(20, "b"), row(50, "a")];
        let together = weigh(&observations(rows.clone(), at(5), at(60)));
        let mut calls = Vec::new();
        let mut told = at(5);
        for end in (20..=60).step_by(10) {
            let closed: Vec<_> = rows.iter().filter(|r| r.window_end == at(end)).cloned().collect();
            match closed.is_empty() {
                true => calls.push((at(end), closed)),
                false => calls.extend(observations(closed, told, at(end))),
            }
            told = at(end);
        }
        let event = |k: &str, end, fires| (k.to_owned(), end, fires);
        let mut wanted = vec![event("a", 20, true), event("b", 30, true), event("a", 40, false), event("b", 40, false)];
        wanted.push(event("a", 60, true));
        assert_eq!((weigh(&calls), together), (wanted.clone(), wanted));
    }

    #[test]
    fn a_large_window_goes_in_pieces_and_closes_with_the_last() {
        let rows: Vec<_> = (0..ROWS_MAX * 2 + 1).map(|i| row(10, &i.to_string())).collect();
        let found = observations(rows, at(12), at(25));
        assert_eq!(
            found.iter().map(|(after, rows)| (*after, rows.len())).collect::<Vec<_>>(),
            [(at(12), ROWS_MAX), (at(12), ROWS_MAX), (at(25), 1)]
        );
        let heavy: Vec<_> = (0..4).map(|_| row(10, &"x".repeat(BYTES_MAX / 2))).collect();
        assert_eq!(observations(heavy, at(12), at(25)).len(), 4);
    }

    #[test]
    fn rows_become_labels_and_values() {
        let spec = WindowSpec {
            keys: vec!["k".into(), "code".into()],
            aggregates: vec![AggregateSpec::count_all("n"), AggregateSpec::of(AggregateFunction::Avg, "x", "mean")],
            size: DurationText(Duration::from_secs(10)),
            early: None,
        };
        let time = |t: i64| Arc::new(TimestampNanosecondArray::from(vec![t * 1_000_000_000; 2])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("window_start", time(10)),
            ("window_end", time(20)),
            ("k", Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef),
            ("code", Arc::new(Int64Array::from(vec![200, 500]))),
            ("n", Arc::new(Int64Array::from(vec![3, 4]))),
            ("mean", Arc::new(Float64Array::from(vec![Some(1.5), None]))),
            ("_early", Arc::new(BooleanArray::from(vec![true, false]))),
        ])
        .unwrap();
        let found = observed(&batch, &spec).unwrap();
        assert_eq!((found[0].window_start, found[0].window_end, found[0].early), (at(10), at(20), true));
        assert_eq!(found[0].labels, [("k".into(), "a".into()), ("code".into(), "200".into())].into());
        assert_eq!(found[0].values, [("n".into(), 3.0), ("mean".into(), 1.5)].into());
        assert_eq!(found[1].labels, [("code".into(), "500".into())].into());
        assert!(found[1].values["mean"].is_nan() && !found[1].early);
    }
}
