//! How columns lie in the file where readers get something else: ids as sixteen bytes, times in the coarsest unit that says
//! every one of them.
//!
//! Most programs state milliseconds or microseconds. As nanoseconds, the distance of two times has up to twenty bits that say
//! nothing and that no compression finds, because packed numbers do not begin at bytes.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray},
    compute::cast,
    datatypes::{
        ArrowTimestampType, DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType,
    },
    error::ArrowError,
};

use crate::{
    Error,
    ids::{self, Forms, ID_BYTES},
};

/// Columns that every chunk has as texts.
const TEXTS: [&str; 3] = ["_msg", "_segment", "severity"];

/// The batches as they lie, and the columns that lie as ids.
pub(crate) fn lay(schema: &Schema, rows: &[&RecordBatch]) -> Result<(Vec<RecordBatch>, Forms), Error> {
    let mut forms = Forms::new();
    let mut fields: Vec<FieldRef> = Vec::with_capacity(schema.fields().len());
    // By column, then by batch.
    let mut laid: Vec<Vec<ArrayRef>> = Vec::with_capacity(schema.fields().len());
    for (place, field) in schema.fields().iter().enumerate() {
        let columns: Vec<&ArrayRef> = rows.iter().map(|batch| batch.column(place)).collect();
        let other = match field.data_type() {
            DataType::Utf8 if !TEXTS.contains(&field.name().as_str()) => packed(&columns, field, &mut forms),
            DataType::Timestamp(TimeUnit::Nanosecond, None) => coarse(&columns),
            _ => None,
        };
        let columns = other.unwrap_or_else(|| columns.into_iter().cloned().collect());
        let of = columns.first().map_or(field.data_type(), |column| column.data_type()).clone();
        fields.push(Arc::new(Field::new(field.name(), of, field.is_nullable())));
        laid.push(columns);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = |number: usize| {
        let columns = laid.iter().map(|columns| Arc::clone(&columns[number])).collect();
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    };
    Ok(((0..rows.len()).map(batch).collect::<Result<_, Error>>()?, forms))
}

fn packed(columns: &[&ArrayRef], field: &Field, forms: &mut Forms) -> Option<Vec<ArrayRef>> {
    let texts: Vec<&StringArray> = columns.iter().filter_map(|column| column.as_string_opt()).collect();
    let (form, ids) = ids::pack(&texts)?;
    forms.insert(field.name().clone(), form);
    Some(ids)
}

/// Times in milliseconds or microseconds, if these say all of them.
fn coarse(columns: &[&ArrayRef]) -> Option<Vec<ArrayRef>> {
    let times: Vec<&TimestampNanosecondArray> = columns.iter().filter_map(|column| column.as_primitive_opt()).collect();
    let all = |divisor: i64| times.iter().all(|times| times.iter().flatten().all(|time| time % divisor == 0));
    let divide = |divisor: i64| move |time: i64| time / divisor;
    let (micro, milli) = (nanos_in(TimeUnit::Microsecond), nanos_in(TimeUnit::Millisecond));
    if !all(micro) {
        return None;
    }
    let is_milli = all(milli);
    let divided = times.iter().map(|times| match is_milli {
        true => Arc::new(times.unary::<_, TimestampMillisecondType>(divide(milli))) as ArrayRef,
        false => Arc::new(times.unary::<_, TimestampMicrosecondType>(divide(micro))) as ArrayRef,
    });
    Some(divided.collect())
}

/// Nanoseconds in a unit of time.
pub(crate) const fn nanos_in(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The schema as readers get it.
pub(crate) fn shown_schema(stored: &Schema, forms: &Forms) -> SchemaRef {
    let fields = stored.fields().iter().map(|field| {
        let of = match field.data_type() {
            DataType::FixedSizeBinary(ID_BYTES) if forms.contains_key(field.name()) => DataType::Utf8,
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
            DataType::Dictionary(_, of) => of.as_ref().clone(),
            _ => return Arc::clone(field),
        };
        Arc::new(Field::new(field.name(), of, field.is_nullable()))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A batch as readers get it: ids and codes as text, times in nanoseconds, a schema without metadata.
pub(crate) fn show(batch: &RecordBatch, forms: &Forms) -> Result<RecordBatch, ArrowError> {
    let schema = shown_schema(batch.schema_ref(), forms);
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
        Ok(match (column.data_type(), forms.get(field.name())) {
            (DataType::FixedSizeBinary(ID_BYTES), Some(form)) => ids::unpack(column.as_fixed_size_binary(), *form)?,
            (DataType::Timestamp(TimeUnit::Millisecond, _), _) => fine::<TimestampMillisecondType>(column)?,
            (DataType::Timestamp(TimeUnit::Microsecond, _), _) => fine::<TimestampMicrosecondType>(column)?,
            (DataType::Dictionary(_, of), _) => cast(column, of)?,
            _ => Arc::clone(column),
        })
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns.collect::<Result<_, ArrowError>>()?, &options)
}

fn fine<T: ArrowTimestampType>(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let nanos = nanos_in(T::UNIT);
    let beyond = || ArrowError::ComputeError("a time lies outside of what nanoseconds since 1970 reach".to_owned());
    let multiplied = column
        .as_primitive::<T>()
        .try_unary::<_, TimestampNanosecondType, _>(|time| time.checked_mul(nanos).ok_or_else(beyond))?;
    Ok(Arc::new(multiplied))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(times: &[&[Option<i64>]]) -> (DataType, Vec<RecordBatch>, Vec<RecordBatch>) {
        let batch = |times: &&[Option<i64>]| {
            let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(times.to_vec()));
            RecordBatch::try_from_iter_with_nullable([("t", times, true)]).unwrap()
        };
        let given: Vec<_> = times.iter().map(batch).collect();
        let (laid, forms) = lay(given[0].schema_ref(), &given.iter().collect::<Vec<_>>()).unwrap();
        let shown = laid.iter().map(|batch| show(batch, &forms).unwrap()).collect();
        (laid[0].schema().field(0).data_type().clone(), given, shown)
    }

    #[test]
    fn times_lie_in_the_coarsest_unit_that_says_all_of_them() {
        for (times, unit) in [
            (&[&[Some(3_000_000), None][..], &[Some(-5_000_000)]][..], TimeUnit::Millisecond),
            (&[&[Some(3_000_000)], &[Some(-5_001_000)]], TimeUnit::Microsecond),
            (&[&[Some(3_000_000)], &[Some(1)]], TimeUnit::Nanosecond),
            (&[&[None]], TimeUnit::Millisecond),
            (&[&[Some(i64::MIN), Some(i64::MAX)]], TimeUnit::Nanosecond),
            (&[&[Some(i64::MIN / 1_000_000 * 1_000_000), Some(0)]], TimeUnit::Millisecond),
        ] {
            let (of, given, shown) = units(times);
            assert_eq!((of, shown), (DataType::Timestamp(unit, None), given), "{times:?}");
        }
    }

    #[test]
    fn a_time_that_none_wrote_is_refused() {
        let times: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![i64::MAX]));
        let batch = RecordBatch::try_from_iter([("t", times)]).unwrap();
        assert!(show(&batch, &Forms::new()).unwrap_err().to_string().contains("outside of what nanoseconds"));
    }

    proptest! {
        #[test]
        fn every_time_comes_back(
            times in prop::collection::vec(prop::option::of(any::<i64>()), 0..20),
            unit in prop::sample::select(vec![1i64, 1_000, 1_000_000]),
        ) {
            let times: Vec<_> = times.into_iter().map(|time| time.map(|time| time / unit * unit)).collect();
            let (_, given, shown) = units(&[&times]);
            prop_assert_eq!(shown, given);
        }
    }
}
