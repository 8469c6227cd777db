//! Columns as operators see them: found by name, and brought to the few types that keys and values have.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Float64Type, TimeUnit},
};

use crate::Error;

/// A cast that fails where it would lose a value; the default one would make it null.
pub(crate) const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// The column of that name.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Error> {
    batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::NoColumn { column: name.to_owned(), known: known.join(", ") }
    })
}

fn wrong(name: &str, found: &DataType, wanted: &str) -> Error {
    Error::ColumnType { column: name.to_owned(), found: found.to_string(), wanted: wanted.to_owned() }
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
    Ok(cast_with_options(array, to, &STRICT)?)
}

/// The column as a key: Utf8, Int64, Boolean, Float64 or a timestamp, with one form for equal numbers.
pub(crate) fn key(array: &ArrayRef, name: &str) -> Result<ArrayRef, Error> {
    use DataType as T;
    match array.data_type() {
        T::Utf8 | T::Int64 | T::Boolean | T::Timestamp(..) => Ok(Arc::clone(array)),
        T::Float64 => Ok(Arc::new(one_zero(array.as_primitive::<Float64Type>()))),
        T::Utf8View | T::LargeUtf8 | T::Null => cast(array, &T::Utf8),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => cast(array, &T::Int64),
        T::Float16 | T::Float32 => key(&cast(array, &T::Float64)?, name),
        T::Dictionary(_, values) => key(&cast(array, values)?, name),
        other => Err(wrong(name, other, "a text, whole number, boolean, float or timestamp key")),
    }
}

/// Keys are compared by their bits, so -0.0 and every NaN get the bits of 0.0 and of one NaN.
fn one_zero(array: &Float64Array) -> Float64Array {
    array.unary(|x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 })
}

/// The column as Int64 or Float64.
pub(crate) fn number(array: &ArrayRef, name: &str) -> Result<ArrayRef, Error> {
    use DataType as T;
    match array.data_type() {
        T::Int64 | T::Float64 => Ok(Arc::clone(array)),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 | T::Null => {
            cast(array, &T::Int64)
        }
        T::Float16 | T::Float32 => cast(array, &T::Float64),
        T::Dictionary(_, values) => number(&cast(array, values)?, name),
        other => Err(wrong(name, other, "a number")),
    }
}

/// Brings a key or number to the type that the first batch had.
pub(crate) fn as_learnt(array: ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef, Error> {
    let found = array.data_type();
    if found == to {
        return Ok(array);
    }
    // An all-null column has no type of its own, and a whole number fits a float; nothing else changes on the way.
    if array.null_count() == array.len() || (*found == DataType::Int64 && *to == DataType::Float64) {
        return cast(&array, to);
    }
    Err(wrong(name, found, &format!("{to} as in the first batch")))
}

/// The event times in nanoseconds, none of them null.
pub(crate) fn times(batch: &RecordBatch, name: &'static str) -> Result<arrow::buffer::ScalarBuffer<i64>, Error> {
    let array = column(batch, name)?;
    if !matches!(array.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)) {
        return Err(wrong(name, array.data_type(), "Timestamp(Nanosecond)"));
    }
    if let Some(row) = array.nulls().and_then(|nulls| (0..array.len()).find(|&row| nulls.is_null(row))) {
        return Err(Error::NullTime { column: name, row });
    }
    Ok(array.as_primitive::<arrow::datatypes::TimestampNanosecondType>().values().clone())
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, StringArray, StringViewArray, UInt64Array};

    use super::*;

    #[test]
    fn keys_have_few_types() {
        let dictionary: DictionaryArray<arrow::datatypes::Int32Type> = vec!["a", "b"].into_iter().collect();
        let cases: Vec<(ArrayRef, DataType)> = vec![
            (Arc::new(StringArray::from(vec!["a"])), DataType::Utf8),
            (Arc::new(StringViewArray::from(vec!["a"])), DataType::Utf8),
            (Arc::new(dictionary), DataType::Utf8),
            (Arc::new(Int32Array::from(vec![1])), DataType::Int64),
            (Arc::new(UInt64Array::from(vec![1])), DataType::Int64),
        ];
        for (array, wanted) in cases {
            assert_eq!(key(&array, "k").unwrap().data_type(), &wanted);
        }
        let too_large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert!(key(&too_large, "k").is_err(), "a value that does not fit must not become null");
        let binary: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![b"a".as_slice()]));
        assert!(matches!(key(&binary, "k"), Err(Error::ColumnType { .. })));
    }

    #[test]
    fn equal_floats_are_one_key() {
        let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let array: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, odd_nan, -f64::NAN]));
        let keys = key(&array, "k").unwrap();
        let bits: Vec<u64> = keys.as_primitive::<Float64Type>().values().iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits[0], bits[1]);
        assert!(bits[3] == bits[2] && bits[4] == bits[2]);
    }
}
