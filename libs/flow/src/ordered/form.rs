//! The columns of rows that are kept, and the place of each row among all.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array},
    buffer::ScalarBuffer,
    compute::{SortOptions, cast_with_options},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type},
    row::{RowConverter, Rows, SortField},
};

use crate::{
    CHANGE_COLUMN, Error, HASH_COLUMN, OFFSET_COLUMN, ROW_WATERMARK_COLUMN, SPLIT_COLUMN, TIME_COLUMN,
    column::{self, STRICT},
    hash,
};

/// Which columns rows have, learnt from the first batch: fixed from then on.
#[derive(Debug)]
pub(crate) struct RowForm {
    /// The columns as they came but for `_wm`, in plain types; the hash of the key behind them.
    kept: SchemaRef,
    /// The same without the hash.
    shown: SchemaRef,
    keys: Vec<String>,
    /// How contents are compared where rows have no place.
    content: Option<RowConverter>,
}

/// Encodings that keep the buffers of other rows alive are given up for those that are kept.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}

impl RowForm {
    /// The form of the rows of that batch, or of stored ones; `keys` name the key.
    pub(crate) fn learn(keys: &[String], schema: &Schema) -> Result<Self, Error> {
        let never_null = [TIME_COLUMN, SPLIT_COLUMN, OFFSET_COLUMN, CHANGE_COLUMN];
        let field = |field: &Arc<Field>| {
            let nullable = !never_null.contains(&field.name().as_str());
            Field::new(field.name(), plain(field.data_type()), nullable)
        };
        let known =
            schema.fields().iter().filter(|f| ![ROW_WATERMARK_COLUMN, HASH_COLUMN].contains(&f.name().as_str()));
        let mut fields: Vec<Field> = known.map(field).collect();
        let shown = Arc::new(Schema::new(fields.clone()));
        let content = if place_of(&shown)? { None } else { Some(converter(&fields, SortOptions::default())?) };
        fields.push(Field::new(HASH_COLUMN, DataType::UInt64, false));
        Ok(Self { kept: Arc::new(Schema::new(fields)), shown, keys: keys.to_vec(), content })
    }

    /// What is kept, with the hash as the last column.
    pub(crate) fn kept(&self) -> &SchemaRef {
        &self.kept
    }

    /// The columns of rows that are given on.
    pub(crate) fn shown(&self) -> &SchemaRef {
        &self.shown
    }

    /// For an operator whose results cannot follow rows that go again.
    ///
    /// Errors: `Spec` where rows change.
    pub(crate) fn only_appends(&self, operator: &'static str) -> Result<(), Error> {
        match self.shown.field_with_name(CHANGE_COLUMN) {
            Err(_) => Ok(()),
            Ok(_) => {
                let problem =
                    "its input changes, and it takes rows that only come: put it before what changes".to_owned();
                Err(Error::Spec { operator, problem })
            }
        }
    }

    /// The rows of a batch in this form.
    ///
    /// Errors: `NoColumn`, `ColumnType` where the batch differs from the first one by more than an encoding.
    pub(crate) fn read(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let read = |field: &Arc<Field>| -> Result<ArrayRef, Error> {
            let array = column::column(batch, field.name())?;
            if array.data_type() == field.data_type() {
                return Ok(Arc::clone(array));
            }
            if array.null_count() < array.len() && plain(array.data_type()) != *field.data_type() {
                return Err(Error::ColumnType {
                    column: field.name().clone(),
                    found: array.data_type().to_string(),
                    wanted: format!("{} as in the first batch", field.data_type()),
                });
            }
            Ok(cast_with_options(array, field.data_type(), &STRICT)?)
        };
        let mut columns = self.shown.fields().iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        let hashes = match self.keys.as_slice() {
            // Without a key everything goes to the first subtask, whose key groups have this hash's.
            [] => vec![0; batch.num_rows()],
            keys => hash::hashes(batch, keys)?,
        };
        columns.push(Arc::new(UInt64Array::from(hashes)));
        Ok(RecordBatch::try_new(Arc::clone(&self.kept), columns)?)
    }

    /// Kept rows as they are given on.
    pub(crate) fn show(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = rows.columns()[..self.shown.fields().len()].to_vec();
        Ok(RecordBatch::try_new(Arc::clone(&self.shown), columns)?)
    }
}

/// Whether rows have a place.
fn place_of(schema: &Schema) -> Result<bool, Error> {
    let kinds = [(SPLIT_COLUMN, DataType::UInt64), (OFFSET_COLUMN, DataType::Int64)];
    let (mut found, all) = (0, kinds.len());
    for (name, wanted) in kinds {
        match schema.field_with_name(name) {
            Err(_) => {}
            Ok(field) if *field.data_type() == wanted => found += 1,
            Ok(field) => {
                let (found, wanted) = (field.data_type().to_string(), wanted.to_string());
                return Err(Error::ColumnType { column: name.to_owned(), found, wanted });
            }
        }
    }
    Ok(found == all)
}

/// Encodes columns so that their bytes compare as their values do.
///
/// Errors: `ColumnType` names a column whose type has no order.
pub(crate) fn converter(fields: &[Field], options: SortOptions) -> Result<RowConverter, Error> {
    let sort = |field: &Field| SortField::new_with_options(field.data_type().clone(), options);
    let sort: Vec<SortField> = fields.iter().map(sort).collect();
    for (field, one) in fields.iter().zip(&sort) {
        if !RowConverter::supports_fields(std::slice::from_ref(one)) {
            let (column, found) = (field.name().clone(), field.data_type().to_string());
            return Err(Error::ColumnType { column, found, wanted: "a type that has an order".to_owned() });
        }
    }
    Ok(RowConverter::new(sort)?)
}

/// Kept rows with their places.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) rows: RecordBatch,
    pub(crate) times: ScalarBuffer<i64>,
    place: Option<(ScalarBuffer<u64>, ScalarBuffer<i64>)>,
    content: Option<Rows>,
}

impl Placed {
    pub(crate) fn new(form: &RowForm, rows: RecordBatch) -> Result<Self, Error> {
        let times = column::times(&rows, TIME_COLUMN)?;
        let (place, content) = match &form.content {
            Some(converter) => (None, Some(converter.convert_columns(&rows.columns()[..form.shown.fields().len()])?)),
            None => {
                let splits = column::column(&rows, SPLIT_COLUMN)?.as_primitive::<UInt64Type>().values().clone();
                let offsets = column::column(&rows, OFFSET_COLUMN)?.as_primitive::<Int64Type>().values().clone();
                (Some((splits, offsets)), None)
            }
        };
        Ok(Self { rows, times, place, content })
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Time, split and offset of a row; the last two are 0 where there are none.
    pub(crate) fn place(&self, row: usize) -> (i64, u64, i64) {
        let (split, offset) = self.place.as_ref().map_or((0, 0), |(splits, offsets)| (splits[row], offsets[row]));
        (self.times[row], split, offset)
    }

    /// The order of contents, where rows have no place.
    pub(crate) fn by_content(&self, row: usize, other: &Self, at: usize) -> Ordering {
        match (&self.content, &other.content) {
            (Some(mine), Some(others)) => mine.row(row).cmp(&others.row(at)),
            _ => Ordering::Equal,
        }
    }

    /// The order of two rows.
    pub(crate) fn compare(&self, row: usize, other: &Self, at: usize) -> Ordering {
        self.place(row).cmp(&other.place(at)).then_with(|| self.by_content(row, other, at))
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        super::bytes_of(&self.rows) + self.content.as_ref().map_or(0, Rows::size)
    }
}
