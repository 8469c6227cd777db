//! Where a key belongs: 64-bit hash, key group, subtask; and the scatter of a batch over subtasks.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{cast, take_record_batch},
    datatypes::{DataType, Float64Type, Int64Type},
};

use crate::{Error, column};

/// The number of key groups: the top 8 bits of a key's hash name its group, for ever.
///
/// A key group never changes when a job is rescaled; only the range of groups of a subtask does.
pub const KEY_GROUPS: u16 = 256;

const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Mixes the bits so that the top ones (key group) are as good as the low ones (hash table).
fn finish(mut h: u64) -> u64 {
    h = (h ^ (h >> 32)).wrapping_mul(FACTOR);
    h = (h ^ (h >> 32)).wrapping_mul(FACTOR);
    h ^ (h >> 32)
}

fn step(h: u64, value: u64) -> u64 {
    (h.rotate_left(29) ^ value).wrapping_mul(FACTOR)
}

fn text(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut h = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    for word in words {
        h = step(h ^ (h >> 31), u64::from_le_bytes(*word));
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(h ^ (h >> 31), u64::from_le_bytes(last))
}

fn fold(out: &mut [u64], array: &dyn Array, value: impl Fn(usize) -> u64) {
    for (row, h) in out.iter_mut().enumerate() {
        *h = step(*h, if array.is_null(row) { NULL } else { value(row) });
    }
}

/// The hashes of rows whose keys were already brought to key types.
pub(crate) fn of_columns(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>, Error> {
    let mut out = vec![SEED; rows];
    for array in keys {
        match array.data_type() {
            DataType::Utf8 => {
                let values = array.as_string::<i32>();
                fold(&mut out, values, |row| text(values.value(row).as_bytes()));
            }
            DataType::Boolean => {
                let values = array.as_boolean();
                fold(&mut out, values, |row| u64::from(values.value(row)) + 1);
            }
            DataType::Float64 => {
                let values = array.as_primitive::<Float64Type>();
                fold(&mut out, values, |row| values.value(row).to_bits());
            }
            _ => {
                let values = cast(array, &DataType::Int64)?;
                let values = values.as_primitive::<Int64Type>();
                fold(&mut out, values, |row| values.value(row).cast_unsigned());
            }
        }
    }
    out.iter_mut().for_each(|h| *h = finish(*h));
    Ok(out)
}

/// The stable hash of each row's key; the same on every machine, in every process.
///
/// Shape: keys are text, whole numbers, booleans, floats or timestamps; null is a key like any other.
pub fn hashes<S: AsRef<str>>(batch: &RecordBatch, key_columns: &[S]) -> Result<Vec<u64>, Error> {
    let keys = key_columns
        .iter()
        .map(|name| column::key(column::column(batch, name.as_ref())?, name.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    of_columns(&keys, batch.num_rows())
}

/// The key group of a hash: its top 8 bits.
pub fn key_group(hash: u64) -> u8 {
    hash.to_be_bytes()[0]
}

/// The subtask that owns a key group; the groups of a subtask are contiguous.
///
/// Bounds: `parallelism` is 1 to [`KEY_GROUPS`].
pub fn subtask_of(group: u8, parallelism: usize) -> usize {
    usize::from(group) * parallelism / usize::from(KEY_GROUPS)
}

/// The key groups of one subtask, the inverse of [`subtask_of`].
pub fn key_groups_of(subtask: usize, parallelism: usize) -> Range<u16> {
    let edge = |i: usize| (i * usize::from(KEY_GROUPS)).div_ceil(parallelism.max(1));
    let group = |i: usize| u16::try_from(edge(i)).unwrap_or(KEY_GROUPS).min(KEY_GROUPS);
    group(subtask)..group(subtask + 1)
}

/// Splits a batch by key over `outputs` subtasks; each row goes to exactly one, in its order; `None` where none goes.
///
/// A counting scatter: one pass to count, one to place, one `take` per output; never a sort. A batch whose rows all
/// belong to one subtask is passed on as it is. Without key columns everything goes to subtask 0.
/// Errors: `Parallelism` if `outputs` is not 1 to [`KEY_GROUPS`]; `NoColumn`, `ColumnType`.
pub fn scatter<S: AsRef<str>>(
    batch: &RecordBatch,
    key_columns: &[S],
    outputs: usize,
) -> Result<Vec<Option<RecordBatch>>, Error> {
    if outputs == 0 || outputs > usize::from(KEY_GROUPS) {
        return Err(Error::Parallelism { found: outputs });
    }
    let mut out = vec![None; outputs];
    let rows = batch.num_rows();
    if rows == 0 {
        return Ok(out);
    }
    if outputs == 1 || key_columns.is_empty() {
        out[0] = Some(batch.clone());
        return Ok(out);
    }
    let targets: Vec<usize> =
        hashes(batch, key_columns)?.into_iter().map(|h| subtask_of(key_group(h), outputs)).collect();
    let mut counts = vec![0usize; outputs];
    targets.iter().for_each(|&t| counts[t] += 1);
    if counts[targets[0]] == rows {
        out[targets[0]] = Some(batch.clone());
        return Ok(out);
    }
    let mut next: Vec<usize> = counts
        .iter()
        .scan(0, |sum, &n| {
            *sum += n;
            Some(*sum - n)
        })
        .collect();
    let starts = next.clone();
    let mut places = vec![0u32; rows];
    for (row, &target) in (0u32..).zip(&targets) {
        places[next[target]] = row;
        next[target] += 1;
    }
    let places = UInt32Array::from(places);
    for (target, &count) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        out[target] = Some(take_record_batch(batch, &places.slice(starts[target], count))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, StringViewArray};
    use proptest::prelude::*;

    use super::*;

    fn batch(keys: Vec<Option<String>>) -> RecordBatch {
        let rows: Int64Array = (0..i64::try_from(keys.len()).unwrap()).collect();
        RecordBatch::try_from_iter([
            ("k", Arc::new(StringArray::from(keys)) as ArrayRef),
            ("row", Arc::new(rows) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn the_hash_never_changes() {
        // Checkpoints are split by it. The view is another encoding of the same text.
        let keys = vec![Some("cart-17"), None, Some(""), Some("a longer key than eight bytes")];
        let plain = batch(keys.iter().map(|k| k.map(str::to_owned)).collect());
        let view = RecordBatch::try_from_iter([("k", Arc::new(StringViewArray::from(keys)) as ArrayRef)]).unwrap();
        let found = hashes(&plain, &["k"]).unwrap();
        assert_eq!(found, hashes(&view, &["k"]).unwrap());
        assert_eq!(found, GOLDEN);
    }

    const GOLDEN: [u64; 4] = [3712103109275615616, 12694145541039616898, 10207247316656666384, 10329286278258876443];

    #[test]
    fn groups_are_contiguous_and_even() {
        let keys = batch((0..25_600).map(|i| Some(format!("key-{i}"))).collect());
        let mut seen = [0u32; 256];
        hashes(&keys, &["k"]).unwrap().into_iter().for_each(|h| seen[usize::from(key_group(h))] += 1);
        assert!(seen.iter().all(|&n| (50..200).contains(&n)), "{seen:?}");
        for parallelism in [1, 2, 3, 7, 64, 255, 256] {
            let mut next = 0;
            for subtask in 0..parallelism {
                let range = key_groups_of(subtask, parallelism);
                assert_eq!(range.start, next);
                assert!(!range.is_empty());
                assert!(
                    range.clone().all(|g| subtask_of(u8::try_from(g).unwrap(), parallelism) == subtask),
                    "{parallelism} {subtask}"
                );
                next = range.end;
            }
            assert_eq!(next, KEY_GROUPS);
        }
    }

    #[test]
    fn a_number_of_outputs_is_checked() {
        for outputs in [0, 257] {
            assert!(matches!(scatter(&batch(vec![None]), &["k"], outputs), Err(Error::Parallelism { .. })));
        }
    }

    proptest! {
        #[test]
        fn scatter_keeps_every_row_once_and_in_order(
            keys in prop::collection::vec(prop::option::of("[a-e]{0,2}"), 0..200), outputs in 1usize..20,
        ) {
            let whole = batch(keys.clone());
            let parts = scatter(&whole, &["k"], outputs).unwrap();
            prop_assert_eq!(parts.len(), outputs);
            let mut seen = vec![0; keys.len()];
            let mut home = std::collections::HashMap::new();
            for (target, part) in parts.iter().enumerate() {
                let Some(part) = part else { continue };
                prop_assert!(part.num_rows() > 0);
                let rows = part.column(1).as_primitive::<Int64Type>().values().to_vec();
                prop_assert!(rows.windows(2).all(|w| w[0] < w[1]));
                for (i, row) in rows.iter().enumerate() {
                    let row = usize::try_from(*row).unwrap();
                    seen[row] += 1;
                    let k = part.column(0).as_string::<i32>();
                    let k = (!k.is_null(i)).then(|| k.value(i).to_owned());
                    prop_assert_eq!(&k, &keys[row]);
                    prop_assert_eq!(*home.entry(k).or_insert(target), target);
                }
            }
            prop_assert!(seen.iter().all(|&n| n == 1));
        }
    }
}
