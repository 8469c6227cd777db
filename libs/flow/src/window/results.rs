//! Results of aggregates, before they become a column.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray},
    compute::cast,
};

use crate::{Error, INSTANT_TYPE, ValueType};

/// One column of results; sums beside the number of their values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Results {
    Counts(Vec<i64>),
    Ints(Vec<(i128, i64)>),
    Floats(Vec<(f64, i64)>),
    /// Whole numbers, instants and booleans.
    IntEnds(Vec<Option<i64>>),
    FloatEnds(Vec<Option<f64>>),
    TextEnds(Vec<Option<Arc<str>>>),
}

impl Results {
    /// Whether that sum is beyond 64 bits.
    pub(crate) fn overflows(&self, row: usize) -> bool {
        matches!(self, Self::Ints(sums) if sums.get(row).is_some_and(|(sum, _)| i64::try_from(*sum).is_err()))
    }

    /// The column of the sums or their means; null where there is no value, or a sum is beyond 64 bits.
    pub(crate) fn array(&self, mean: bool, kind: Option<ValueType>) -> Result<ArrayRef, Error> {
        Ok(match self {
            Self::Counts(counts) => Arc::new(Int64Array::from(counts.clone())),
            Self::Ints(sums) if mean => {
                let mean = |(sum, count): &(i128, i64)| (*count > 0).then(|| *sum as f64 / *count as f64);
                Arc::new(sums.iter().map(mean).collect::<Float64Array>())
            }
            Self::Ints(sums) => {
                let sum = |(sum, count): &(i128, i64)| i64::try_from(*sum).ok().filter(|_| *count > 0);
                Arc::new(sums.iter().map(sum).collect::<Int64Array>())
            }
            Self::Floats(sums) => {
                let of = |sum: f64, count: i64| if mean { sum / count as f64 } else { sum };
                let result = |(sum, count): &(f64, i64)| (*count > 0).then(|| of(*sum, *count));
                Arc::new(sums.iter().map(result).collect::<Float64Array>())
            }
            Self::IntEnds(ends) => {
                let ints: Int64Array = ends.iter().copied().collect();
                match kind {
                    Some(ValueType::Time) => cast(&ints, &INSTANT_TYPE)?,
                    Some(ValueType::Boolean) => {
                        Arc::new(ints.iter().map(|v| v.map(|v| v != 0)).collect::<BooleanArray>())
                    }
                    _ => Arc::new(ints),
                }
            }
            Self::FloatEnds(ends) => Arc::new(ends.iter().copied().collect::<Float64Array>()),
            Self::TextEnds(ends) => Arc::new(ends.iter().map(Option::as_deref).collect::<StringArray>()),
        })
    }
}
