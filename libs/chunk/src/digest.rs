//! Facts of a row group, gathered while it is written.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType},
};
use types::hash64;

use crate::{
    filter::Filter,
    ids::Form,
    region::Facts,
    text::{GRAMS, Lower, grams, tokens},
};

/// The most values of a column in a row group that are kept as they are.
pub const VALUES_MAX: usize = 256;

/// The most bytes of them.
pub const VALUES_BYTES_MAX: usize = 8 << 10;

/// The most different tokens or ids of a column in a row group; beyond it the column goes without a filter there.
pub const TOKENS_MAX: usize = 1 << 19;

/// Passes a hash on as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A set of hashes that is given up when it is too large.
#[derive(Default)]
struct Keys(HashSet<u64, BuildHasherDefault<Hashed>>);

impl Keys {
    fn add(&mut self, key: u64) {
        // One above the limit is kept, so that it is known to be above it.
        if self.0.len() <= TOKENS_MAX {
            self.0.insert(key);
        }
    }

    fn filter(self) -> Option<Filter> {
        if self.0.len() > TOKENS_MAX {
            return None;
        }
        let mut keys: Vec<u64> = self.0.into_iter().collect();
        keys.sort_unstable();
        Filter::of(&keys)
    }
}

/// What is known of a column over the pieces of a row group, and its rows without a value.
pub(crate) fn facts(pieces: &[RecordBatch], place: usize, form: Option<Form>) -> (u64, Facts) {
    let columns = || pieces.iter().map(|piece| piece.column(place));
    let nulls = columns().map(|column| column.null_count() as u64).sum();
    let of = pieces.first().map(|piece| piece.column(place).data_type().clone());
    let found = match of {
        Some(DataType::Int64) => whole(
            columns().filter_map(|column| column.as_primitive_opt::<Int64Type>()).flat_map(|c| c.iter().flatten()),
        ),
        Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => whole(
            columns()
                .filter_map(|column| column.as_primitive_opt::<TimestampNanosecondType>())
                .flat_map(|column| column.iter().flatten()),
        ),
        Some(DataType::Boolean) => {
            whole(columns().filter_map(|c| c.as_boolean_opt()).flat_map(|c| c.iter().flatten()).map(i64::from))
        }
        Some(DataType::Float64) => decimal(
            columns().filter_map(|column| column.as_primitive_opt::<Float64Type>()).flat_map(|c| c.iter().flatten()),
        ),
        Some(DataType::Utf8) => {
            let texts: Vec<&StringArray> = columns().filter_map(|column| column.as_string_opt::<i32>()).collect();
            text(&texts, form)
        }
        _ => None,
    };
    (nulls, found.unwrap_or(Facts::Nothing))
}

fn whole(values: impl Iterator<Item = i64>) -> Option<Facts> {
    let (min, max) = values.fold((i64::MAX, i64::MIN), |(min, max), value| (min.min(value), max.max(value)));
    (min <= max).then_some(Facts::Whole { min, max })
}

/// Nothing where a value is NaN, which stands nowhere in the order of numbers.
fn decimal(values: impl Iterator<Item = f64>) -> Option<Facts> {
    let mut range: Option<(f64, f64)> = None;
    for value in values {
        if value.is_nan() {
            return None;
        }
        let (min, max) = range.unwrap_or((value, value));
        range = Some((min.min(value), max.max(value)));
    }
    range.map(|(min, max)| Facts::Decimal { min, max })
}

fn text(columns: &[&StringArray], form: Option<Form>) -> Option<Facts> {
    if let Some(form) = form {
        let mut keys = Keys::default();
        let ids = columns.iter().flat_map(|column| column.iter().flatten()).filter_map(|text| form.read(text));
        ids.for_each(|id| keys.add(hash64(&id)));
        return keys.filter().map(Facts::Ids);
    }
    if let Some(values) = values(columns) {
        return Some(Facts::Values(values));
    }
    let mut keys = Keys::default();
    let mut seen = vec![0u64; GRAMS / 64];
    let (mut lower, mut last) = (Lower::default(), None);
    for value in columns.iter().flat_map(|column| column.iter().flatten()) {
        if last == Some(value) {
            continue;
        }
        last = Some(value);
        lower.set(value);
        tokens(lower.bytes(), |token| keys.add(token));
        grams(lower.bytes(), |run| seen[usize::from(run) / 64] |= 1 << (run % 64));
    }
    let grams = (0..=u16::MAX).take(GRAMS).filter(|run| seen[usize::from(*run) / 64] & 1 << (run % 64) != 0).collect();
    Some(Facts::Text { grams, tokens: keys.filter()? })
}

/// All values, if they are few.
fn values(columns: &[&StringArray]) -> Option<Vec<String>> {
    let (mut found, mut bytes, mut last) = (BTreeSet::new(), 0, None);
    for value in columns.iter().flat_map(|column| column.iter().flatten()) {
        if last == Some(value) {
            continue;
        }
        last = Some(value);
        if found.insert(value) {
            bytes += value.len();
            if found.len() > VALUES_MAX || bytes > VALUES_BYTES_MAX {
                return None;
            }
        }
    }
    Some(found.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array};

    use super::*;

    fn of(column: ArrayRef) -> (u64, Facts) {
        let length = column.len();
        let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
        facts(&[batch.slice(0, length / 2), batch.slice(length / 2, length - length / 2)], 0, None)
    }

    fn texts(values: impl Iterator<Item = String>) -> Facts {
        of(Arc::new(values.map(Some).collect::<StringArray>())).1
    }

    #[test]
    fn numbers_have_ends_unless_one_is_none() {
        let floats = |values: Vec<Option<f64>>| of(Arc::new(Float64Array::from(values)));
        assert_eq!(floats(vec![Some(2.0), None, Some(-1.0)]), (1, Facts::Decimal { min: -1.0, max: 2.0 }));
        assert_eq!(floats(vec![Some(2.0), Some(f64::NAN)]), (0, Facts::Nothing));
        assert_eq!(floats(vec![None, None]), (2, Facts::Nothing));
    }

    #[test]
    fn texts_are_kept_while_they_are_few_and_short() {
        let few = |count: usize| texts((0..count * 2).map(|n| format!("{:03}", n % count)));
        assert!(matches!(few(VALUES_MAX), Facts::Values(values) if values.len() == VALUES_MAX && values.is_sorted()));
        assert!(matches!(few(VALUES_MAX + 1), Facts::Text { .. }));
        let long = |bytes: usize| texts(["a", "b"].map(|letter| letter.repeat(bytes / 2)).into_iter());
        assert!(matches!(long(VALUES_BYTES_MAX), Facts::Values(_)));
        assert!(matches!(long(VALUES_BYTES_MAX + 2), Facts::Text { .. }));
    }

    #[test]
    fn a_set_above_its_limit_has_no_filter() {
        let keys = |count: usize| {
            let mut keys = Keys::default();
            (0..count as u64).for_each(|n| keys.add(hash64(&n.to_le_bytes())));
            keys.filter()
        };
        assert!(keys(2_000).is_some());
        assert!(keys(TOKENS_MAX + 1).is_none());
    }
}
