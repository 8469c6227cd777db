//! What a window computes, as plain data.

use serde::{Deserialize, Serialize};
use types::{DurationText, Timestamp};

use super::{EARLY_COLUMN, TIME_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN};
use crate::{Error, ValueType};

/// Keyed tumbling windows: aligned to the epoch, each `size` long, one output row per window and key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowSpec {
    /// The key columns; none for one group over everything.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The output columns besides window and key.
    pub aggregates: Vec<AggregateSpec>,
    /// The length of a window.
    pub size: DurationText,
    /// Rows before the end of the window, for alerts that cannot wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<EarlyFire>,
}

/// One aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateSpec {
    /// What is computed.
    pub function: AggregateFunction,
    /// Of which column; none for [`AggregateFunction::CountAll`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The name of the output column.
    pub name: String,
    /// The type of the column, where the plan knows it; else that of the first batch. Whole numbers are summed exactly, and
    /// a result beyond 64 bits is a fault (`Overflow`) of its row; floats are summed exactly and rounded once; `Min` and
    /// `Max` are of every type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ValueType>,
}

/// What an aggregate computes. Nulls are skipped, as in SQL; without any value the result is null, a count is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregateFunction {
    /// Rows: Int64.
    CountAll,
    /// Rows where the column is not null: Int64.
    Count,
    /// Exact sum; Int64 (at the ends of its range where it would pass them) or Float64 (rounded once).
    Sum,
    /// Smallest value; of floats, in the total order, NaN last.
    Min,
    /// Largest value.
    Max,
    /// Exact sum divided by the number of values: Float64.
    Avg,
}

/// When a group is reported before its window ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyFire {
    /// Which aggregate, by its place; it is a count or a sum.
    pub aggregate: usize,
    /// How it is compared.
    pub op: EarlyOp,
    /// With what.
    pub threshold: f64,
}

/// How an aggregate is compared with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyOp {
    /// Greater.
    Above,
    /// Greater or equal.
    AtLeast,
}

impl EarlyFire {
    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.op {
            EarlyOp::Above => value > self.threshold,
            EarlyOp::AtLeast => value >= self.threshold,
        }
    }
}

impl AggregateSpec {
    /// `count(*)` under that name.
    pub fn count_all(name: &str) -> Self {
        Self { function: AggregateFunction::CountAll, column: None, name: name.to_owned(), kind: None }
    }

    /// A function of a column under that name.
    pub fn of(function: AggregateFunction, column: &str, name: &str) -> Self {
        Self { function, column: Some(column.to_owned()), name: name.to_owned(), kind: None }
    }
}

impl WindowSpec {
    /// Checks the specification and returns the window's length in nanoseconds.
    pub fn validate(&self) -> Result<i64, Error> {
        let wrong = |problem: String| Err(Error::Window(problem));
        let size = i64::try_from(self.size.0.as_nanos()).unwrap_or(i64::MAX);
        // Whole milliseconds, since that is what the written form of a duration can say.
        if size <= 0 || size == i64::MAX || size % 1_000_000 != 0 {
            return wrong(format!("size {:?} is out of range: whole milliseconds, 1ms to 292 years", self.size.0));
        }
        if self.aggregates.is_empty() {
            return wrong("computes nothing: give at least one aggregate".into());
        }
        for aggregate in &self.aggregates {
            if aggregate.column.is_none() != (aggregate.function == AggregateFunction::CountAll) {
                return wrong(format!("{:?}: every function but count_all needs a column", aggregate.name));
            }
        }
        let reserved = [WINDOW_START_COLUMN, WINDOW_END_COLUMN, EARLY_COLUMN, TIME_COLUMN];
        let names: Vec<&str> =
            self.keys.iter().map(String::as_str).chain(self.aggregates.iter().map(|a| a.name.as_str())).collect();
        for (i, name) in names.iter().enumerate() {
            if reserved.contains(name) {
                return wrong(format!("{name:?} is a name of the window's own: choose another"));
            }
            if names[..i].contains(name) {
                return wrong(format!("{name:?} names two output columns"));
            }
        }
        if let Some(early) = &self.early {
            use AggregateFunction::{Count, CountAll, Sum};
            let function = self.aggregates.get(early.aggregate).map(|a| a.function);
            if !matches!(function, Some(CountAll | Count | Sum)) {
                return wrong("early firing needs a count or a sum".into());
            }
            if early.threshold.is_nan() {
                return wrong("the threshold of early firing is not a number".into());
            }
        }
        Ok(size)
    }

    /// The end of the window that an instant falls into.
    pub fn end_of(&self, time: Timestamp) -> Timestamp {
        window_end(time, self.size)
    }
}

/// The first instant of the window that an instant falls into; windows are aligned to the Unix epoch.
pub fn window_start(time: Timestamp, size: DurationText) -> Timestamp {
    Timestamp::from_nanos(start_of(time.nanos(), nanos(size)))
}

/// The first instant after the window that an instant falls into.
pub fn window_end(time: Timestamp, size: DurationText) -> Timestamp {
    Timestamp::from_nanos(window_start(time, size).nanos().saturating_add(nanos(size)))
}

fn nanos(size: DurationText) -> i64 {
    i64::try_from(size.0.as_nanos()).unwrap_or(i64::MAX).max(1)
}

pub(super) fn start_of(time: i64, size: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(size))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Spoil = Box<dyn Fn(&mut WindowSpec)>;

    fn spec() -> WindowSpec {
        WindowSpec {
            keys: vec!["k".into()],
            aggregates: vec![AggregateSpec::count_all("n")],
            size: DurationText(Duration::from_secs(10)),
            early: None,
        }
    }

    #[test]
    fn windows_are_aligned_to_the_epoch() {
        let size = DurationText(Duration::from_nanos(10));
        for (time, start, end) in [(0, 0, 10), (9, 0, 10), (10, 10, 20), (-1, -10, 0), (-10, -10, 0)] {
            let time = Timestamp::from_nanos(time);
            assert_eq!((window_start(time, size).nanos(), window_end(time, size).nanos()), (start, end), "{time}");
        }
        assert_eq!(window_end(Timestamp::MAX, size), Timestamp::MAX);
        assert!(window_start(Timestamp::MIN, size) <= window_end(Timestamp::MIN, size));
    }

    #[test]
    fn each_rule_is_named() {
        let early = |aggregate, threshold| Some(EarlyFire { aggregate, op: EarlyOp::Above, threshold });
        let cases: Vec<(&str, Spoil)> = vec![
            ("out of range", Box::new(|s| s.size = DurationText(Duration::ZERO))),
            ("out of range", Box::new(|s| s.size = DurationText(Duration::MAX))),
            ("whole milliseconds", Box::new(|s| s.size = DurationText(Duration::from_micros(1_500)))),
            ("computes nothing", Box::new(|s| s.aggregates.clear())),
            ("needs a column", Box::new(|s| s.aggregates[0].function = AggregateFunction::Sum)),
            ("needs a column", Box::new(|s| s.aggregates[0].column = Some("x".into()))),
            ("own", Box::new(|s| s.aggregates[0].name = "window_end".into())),
            ("two output columns", Box::new(|s| s.aggregates[0].name = "k".into())),
            ("count or a sum", Box::new(move |s| s.early = early(1, 1.0))),
            ("not a number", Box::new(move |s| s.early = early(0, f64::NAN))),
        ];
        for (wanted, spoil) in cases {
            let mut spoiled = spec();
            assert!(spoiled.validate().is_ok());
            spoil(&mut spoiled);
            let found = spoiled.validate().unwrap_err().to_string();
            assert!(found.contains(wanted), "{found:?} does not say {wanted:?}");
        }
    }
}
