//! Sums from which values can be taken away again.

use crate::window::exact::ExactSum;

/// A sum of whole numbers, and of how many.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct IntTotal {
    pub(crate) sum: i128,
    pub(crate) count: i64,
}

impl IntTotal {
    /// Adds a value so often, which may be less than never.
    pub(crate) fn add(&mut self, value: i64, times: i64) {
        self.sum += i128::from(value) * i128::from(times);
        self.count += times;
    }
}

/// An exact sum of floats. What is not finite is counted, for it could not be taken away from a sum.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FloatTotal {
    pub(crate) sum: ExactSum,
    pub(crate) count: i64,
    pub(crate) nan: i64,
    pub(crate) up: i64,
    pub(crate) down: i64,
}

impl FloatTotal {
    /// Adds a value once, or takes it away: `times` is 1 or -1.
    pub(crate) fn add(&mut self, value: f64, times: i64) {
        self.count += times;
        match value {
            _ if value.is_nan() => self.nan += times,
            f64::INFINITY => self.up += times,
            f64::NEG_INFINITY => self.down += times,
            _ if times < 0 => self.sum.add(-value),
            _ => self.sum.add(value),
        }
    }

    /// The sum, rounded once.
    pub(crate) fn value(&self) -> f64 {
        match (self.nan > 0, self.up > 0, self.down > 0) {
            (true, ..) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => self.sum.value(),
        }
    }
}
