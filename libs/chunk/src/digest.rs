//! Facts of a row group, gathered while it is written.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray},
    compute::{max, min},
    datatypes::{
        DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType,
    },
};
use types::hash64;

use crate::{
    filter::Filter,
    layout::nanos_in,
    region::Facts,
    text::{Runs, scan},
};

/// The most values of a column in a row group that are kept as they are.
pub const VALUES_MAX: usize = 256;

/// The most bytes of them.
pub const VALUES_BYTES_MAX: usize = 8 << 10;

/// The most different tokens or ids of a column in a row group; beyond it the column goes without a filter there.
pub const TOKENS_MAX: usize = 1 << 19;

/// Hashes remembered to be in a set: those that come again soon, as words of a template do, are not looked up there.
const RECENT: usize = 1 << 12;

/// Takes hashes as they are, and texts eight bytes at a time. Who makes texts whose hashes meet slows down sets of
/// [`VALUES_MAX`] texts, and nothing else.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Hashes = BuildHasherDefault<Hashed>;

/// A set of hashes that is given up when it is too large.
struct Keys {
    all: HashSet<u64, Hashes>,
    recent: Vec<u64>,
}

impl Default for Keys {
    fn default() -> Self {
        // No place holds a key that belongs there: the first one is not 0, and the others are not at home in place 0.
        let mut recent = vec![0; RECENT];
        recent[0] = 1;
        Self { all: HashSet::default(), recent }
    }
}

impl Keys {
    fn add(&mut self, key: u64) {
        let place = usize::try_from(key % RECENT as u64).unwrap_or(0);
        // One above the limit is kept, so that it is known to be above it.
        if self.recent[place] != key && self.all.len() <= TOKENS_MAX {
            self.recent[place] = key;
            self.all.insert(key);
        }
    }

    fn filter(self) -> Option<Filter> {
        if self.all.len() > TOKENS_MAX {
            return None;
        }
        let mut keys: Vec<u64> = self.all.into_iter().collect();
        keys.sort_unstable();
        Filter::of(&keys)
    }
}

/// What is known of a column over the pieces of a row group, as they lie, and its rows without a value.
pub(crate) fn facts(pieces: &[RecordBatch], place: usize) -> (u64, Facts) {
    let columns: Vec<&ArrayRef> = pieces.iter().map(|piece| piece.column(place)).collect();
    let nulls = columns.iter().map(|column| column.null_count() as u64).sum();
    let found = match columns.first().map(|column| column.data_type()) {
        Some(DataType::Int64) => whole::<Int64Type>(&columns, 1),
        Some(DataType::Timestamp(unit @ TimeUnit::Nanosecond, _)) => {
            whole::<TimestampNanosecondType>(&columns, nanos_in(*unit))
        }
        Some(DataType::Timestamp(unit @ TimeUnit::Microsecond, _)) => {
            whole::<TimestampMicrosecondType>(&columns, nanos_in(*unit))
        }
        Some(DataType::Timestamp(unit @ TimeUnit::Millisecond, _)) => {
            whole::<TimestampMillisecondType>(&columns, nanos_in(*unit))
        }
        Some(DataType::Boolean) => {
            let flags = columns.iter().filter_map(|column| column.as_boolean_opt());
            ends(flags.flat_map(|flags| flags.iter().flatten()).map(i64::from))
        }
        Some(DataType::Float64) => decimal(
            columns
                .iter()
                .filter_map(|column| column.as_primitive_opt::<Float64Type>())
                .flat_map(|c| c.iter().flatten()),
        ),
        Some(DataType::Utf8) => text(&columns.iter().filter_map(|column| column.as_string_opt()).collect::<Vec<_>>()),
        Some(DataType::FixedSizeBinary(_)) => {
            ids(columns.iter().filter_map(|column| column.as_fixed_size_binary_opt()))
        }
        _ => None,
    };
    (nulls, found.unwrap_or(Facts::Nothing))
}

/// The ends of a column that counts in so many of what facts count in.
fn whole<T: ArrowPrimitiveType<Native = i64>>(columns: &[&ArrayRef], factor: i64) -> Option<Facts> {
    let arrays = columns.iter().filter_map(|column| column.as_primitive_opt::<T>());
    ends(arrays.flat_map(|array| [min(array), max(array)]).flatten().map(|value| value.saturating_mul(factor)))
}

fn ends(values: impl Iterator<Item = i64>) -> Option<Facts> {
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

fn ids<'a>(columns: impl Iterator<Item = &'a FixedSizeBinaryArray>) -> Option<Facts> {
    let mut keys = Keys::default();
    columns.flat_map(|column| column.iter().flatten()).for_each(|id| keys.add(hash64(id)));
    keys.filter().map(Facts::Ids)
}

fn text(columns: &[&StringArray]) -> Option<Facts> {
    if let Some(values) = values(columns) {
        return Some(Facts::Values(values));
    }
    let (mut keys, mut runs, mut last) = (Keys::default(), Runs::default(), None);
    for value in columns.iter().flat_map(|column| column.iter().flatten()) {
        if last == Some(value) {
            continue;
        }
        last = Some(value);
        scan(value, &mut runs, |token| keys.add(token));
    }
    Some(Facts::Text { grams: runs.iter().collect(), tokens: keys.filter()? })
}

/// All values, if they are few.
fn values(columns: &[&StringArray]) -> Option<Vec<String>> {
    let (mut found, mut bytes, mut last) = (HashSet::<&str, Hashes>::default(), 0, None);
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
    let mut found: Vec<String> = found.into_iter().map(str::to_owned).collect();
    found.sort_unstable();
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array};

    use super::*;

    fn of(column: ArrayRef) -> (u64, Facts) {
        let length = column.len();
        let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
        facts(&[batch.slice(0, length / 2), batch.slice(length / 2, length - length / 2)], 0)
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
        let mut keys_0 = Keys::default();
        [0, 1, RECENT as u64, 0].into_iter().for_each(|key| keys_0.add(key));
        assert_eq!(keys_0.all.len(), 3, "also those that look like an empty place");
        assert!(keys(TOKENS_MAX + 1).is_none());
    }
}
