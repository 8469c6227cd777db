//! The columns of a table of records, and how batches of different inferred schemas become one table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, new_null_array},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit},
};
use serde_json::{Map, Value as Json};

use crate::fields::REST_COLUMN;

/// The most columns of a batch or a table, the base columns and [`REST_COLUMN`] included.
pub const COLUMNS_MAX: usize = 1_000;

/// The columns that every batch has, in this order; inferred columns follow, sorted by name.
pub const BASE_COLUMNS: [&str; 6] = ["_time", "_received", "_msg", "severity", "_segment", "_offset"];

/// The mark of a schema that left columns out for [`COLUMNS_MAX`]: [`conform`] moves them to [`REST_COLUMN`].
const OVERFLOW: &str = "logboom.overflow";

/// Says why a batch does not fit a schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The column cannot be turned into the type that the schema asks for.
    #[error("column {column:?} cannot become {to}: merge the batch's schema into the table's first")]
    Type {
        /// The column.
        column: String,
        /// The type asked for.
        to: DataType,
        /// What arrow said.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// The batch lacks a column that the schema declares as never null.
    #[error("the batch has no column {column:?}, which the schema declares as never null")]
    Missing {
        /// The column.
        column: String,
    },
    /// The columns do not form a batch.
    #[error("the columns do not form a batch of the schema")]
    Batch(#[from] arrow::error::ArrowError),
}

/// The schema of [`BASE_COLUMNS`]: what a table without a single event has.
///
/// Times are `Timestamp(Nanosecond)` without a zone and mean UTC; `_offset` is `Int64`.
pub fn base_schema() -> Schema {
    Schema::new(base_fields().to_vec())
}

pub(crate) fn base_fields() -> [Field; 6] {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let types = [time.clone(), time, DataType::Utf8, DataType::Utf8, DataType::Utf8, DataType::Int64];
    let mut types = types.into_iter();
    BASE_COLUMNS.map(|name| Field::new(name, types.next().unwrap_or(DataType::Utf8), name == "severity"))
}

/// The type that holds the values of both: whole and decimal numbers meet in `Float64`, all else in `Utf8`.
pub(crate) fn wider(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        _ if a == b => a.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// Makes the schema that holds every given one: base columns first, then inferred columns sorted by name.
///
/// Bounds: [`COLUMNS_MAX`]; columns first seen beyond it are left out, [`REST_COLUMN`] is in, and [`conform`] moves
/// their values there. To keep a table's columns, give its present schema first.
pub fn merge_schemas<'a>(schemas: impl IntoIterator<Item = &'a Schema>) -> Schema {
    let mut inferred: BTreeMap<String, DataType> = BTreeMap::new();
    let mut base = base_fields();
    let mut overflow = false;
    for schema in schemas {
        overflow |= schema.metadata().contains_key(OVERFLOW);
        for field in schema.fields() {
            if let Some(place) = BASE_COLUMNS.iter().position(|name| name == field.name()) {
                let wide = wider(base[place].data_type(), field.data_type());
                let nullable = base[place].is_nullable() || field.is_nullable();
                base[place] = Field::new(field.name(), wide, nullable);
            } else if let Some(known) = inferred.get_mut(field.name()) {
                *known = wider(known, field.data_type());
            } else if field.name() == REST_COLUMN || room(&inferred) {
                inferred.insert(field.name().clone(), field.data_type().clone());
            } else {
                overflow = true;
            }
        }
    }
    let mut metadata = HashMap::new();
    if overflow {
        inferred.insert(REST_COLUMN.to_owned(), DataType::Utf8);
        metadata.insert(OVERFLOW.to_owned(), "1".to_owned());
    }
    let inferred = inferred.into_iter().map(|(name, of)| Field::new(name, of, true));
    Schema::new_with_metadata(base.into_iter().chain(inferred).collect::<Vec<_>>(), metadata)
}

/// Whether one more inferred column fits, a place being kept for [`REST_COLUMN`].
fn room(inferred: &BTreeMap<String, DataType>) -> bool {
    let named = inferred.len() - usize::from(inferred.contains_key(REST_COLUMN));
    BASE_COLUMNS.len() + 1 + named < COLUMNS_MAX
}

/// Brings a batch to the schema: columns are cast or added as nulls, in the schema's order.
///
/// Columns that the schema lacks are left out, as for a projection; only under a schema that [`merge_schemas`] cut at
/// [`COLUMNS_MAX`] do they move to [`REST_COLUMN`], so give that one whole and project afterwards.
/// Errors: `Type` and `Missing` where the schema was not made to hold this batch.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) => widen(column, field.data_type()).map_err(|source| Error::Type {
                column: field.name().clone(),
                to: field.data_type().clone(),
                source,
            })?,
            None if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
            None => return Err(Error::Missing { column: field.name().clone() }),
        };
        columns.push(column);
    }
    if schema.metadata().contains_key(OVERFLOW)
        && let Ok(place) = schema.index_of(REST_COLUMN)
    {
        columns[place] = fold(batch, schema, &columns[place]);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Adds the values of the columns that the schema lacks to the rest column.
fn fold(batch: &RecordBatch, schema: &Schema, rest: &ArrayRef) -> ArrayRef {
    let batch_schema = batch.schema();
    let left_out: Vec<(&str, &ArrayRef)> = (batch_schema.fields().iter().zip(batch.columns()))
        .filter(|(field, _)| schema.index_of(field.name()).is_err())
        .map(|(field, column)| (field.name().as_str(), column))
        .collect();
    let Some(rest) = rest.as_string_opt::<i32>().filter(|_| !left_out.is_empty()) else { return Arc::clone(rest) };
    let folded = (0..batch.num_rows()).map(|row| {
        let own = rest.is_valid(row).then(|| rest.value(row));
        let more = left_out.iter().filter_map(|(name, column)| Some(((*name).to_owned(), json_at(column, row)?)));
        add_rest(own, more)
    });
    Arc::new(folded.collect::<StringArray>())
}

/// Adds members to the text of a rest object; nothing if there is nothing to say.
pub(crate) fn add_rest(own: Option<&str>, more: impl Iterator<Item = (String, Json)>) -> Option<String> {
    let mut more = more.peekable();
    if more.peek().is_none() {
        return own.map(str::to_owned);
    }
    let mut object: Map<String, Json> = own.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    object.extend(more);
    Some(Json::Object(object).to_string())
}

fn json_at(column: &ArrayRef, row: usize) -> Option<Json> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        _ => arrow::util::display::array_value_to_string(column, row).ok()?.into(),
    })
}

/// Casts to a type that holds every value, with numbers written as [`float_text`] does wherever they become text.
pub(crate) fn widen(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    Ok(match (column.data_type(), to) {
        (from, to) if from == to => Arc::clone(column),
        (DataType::Int64, DataType::Float64) => {
            let wide: Float64Array = column.as_primitive::<Int64Type>().unary(|n| n as f64);
            Arc::new(wide)
        }
        (DataType::Float64, DataType::Utf8) => {
            let texts = column.as_primitive::<Float64Type>().iter().map(|n| n.map(float_text));
            Arc::new(texts.collect::<StringArray>())
        }
        (from, to) if inferred(from) && inferred(to) && wider(from, to) != *to => {
            return Err(arrow::error::ArrowError::CastError(format!("values of {from} could be lost in {to}")));
        }
        (_, to) => cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })?,
    })
}

fn inferred(of: &DataType) -> bool {
    matches!(of, DataType::Int64 | DataType::Float64 | DataType::Boolean | DataType::Utf8)
}

/// A decimal number as text, always with a point or an exponent: `1.0`, `0.25`, `1e300`.
pub(crate) fn float_text(number: f64) -> String {
    format!("{number:?}")
}
