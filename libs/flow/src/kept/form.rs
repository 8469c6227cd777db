//! What is kept of the rows of an input: the columns that the operator reads, in the types of the first batch.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array},
    buffer::{NullBuffer, ScalarBuffer},
    compute::{cast, take_record_batch},
    datatypes::{DataType, Field, Int8Type, Schema, SchemaRef, UInt64Type},
    row::{RowConverter, Rows, SortField},
};

use crate::{
    CHANGE_COLUMN, Error, HASH_COLUMN, OFFSET_COLUMN, Out, SPLIT_COLUMN, TIME_COLUMN, column, hash, row,
    window::chunk::{at, number},
};

/// What an operator wants of an input.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The key columns.
    pub(crate) keys: Vec<String>,
    /// The other columns that it reads.
    pub(crate) columns: Vec<String>,
    /// The types of some, to which they are cast.
    pub(crate) types: BTreeMap<String, DataType>,
}

impl Wanted {
    /// The type in which a column is kept. A key is never cast, for others have its hash.
    fn kind(&self, name: &String, found: &DataType) -> DataType {
        let told = self.types.get(name).filter(|_| !self.keys.contains(name));
        told.cloned().unwrap_or_else(|| plain(found))
    }
}

/// What is kept of an input's rows.
#[derive(Debug)]
pub(crate) struct Form {
    wanted: Wanted,
    learnt: Option<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    /// `_hash`, `_time`, the place in the split if rows have one, and the columns in the order of the input.
    kept: SchemaRef,
    keys: Vec<usize>,
    key_types: Vec<DataType>,
    converter: RowConverter,
    placed: bool,
}

/// The keys of kept rows.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Comparable rows; of one input or of two with the same types.
    pub(crate) rows: Rows,
    /// Which of them have a null in them.
    pub(crate) nulls: Option<NullBuffer>,
}

/// Refuses rows that change others, for an operator that cannot take anything back.
pub(crate) fn inserts_only(batch: &RecordBatch, operator: &str) -> Result<(), Error> {
    let Some(changes) = batch.column_by_name(CHANGE_COLUMN) else { return Ok(()) };
    let inserts = changes.as_primitive_opt::<Int8Type>().is_some_and(|codes| codes.values().iter().all(|c| *c == 0));
    if inserts {
        return Ok(());
    }
    Err(Error::ColumnType {
        column: CHANGE_COLUMN.to_owned(),
        found: "a row that changes another".to_owned(),
        wanted: format!("inserts only, for a {operator} cannot take back what it gave on"),
    })
}

/// The type in which a column is kept: an encoding that holds on to the buffers of other rows is given up.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}

impl Learnt {
    fn of(wanted: &Wanted, kept: Schema) -> Result<Self, Error> {
        let place = |name: &String| kept.index_of(name).map_err(Error::from);
        let keys = wanted.keys.iter().map(place).collect::<Result<Vec<usize>, Error>>()?;
        let key_types = keys.iter().zip(&wanted.keys).map(|(place, name)| key_type(kept.field(*place), name));
        let key_types = key_types.collect::<Result<Vec<DataType>, Error>>()?;
        // One constant key where there is none.
        let types = if key_types.is_empty() { [DataType::Boolean].as_slice() } else { key_types.as_slice() };
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let placed = kept.field_with_name(OFFSET_COLUMN).is_ok();
        Ok(Self { kept: Arc::new(kept), keys, key_types, converter, placed })
    }

    fn key_columns(&self, wanted: &Wanted, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, Error> {
        self.keys.iter().zip(&wanted.keys).map(|(place, name)| column::key(&columns[*place], name)).collect()
    }
}

/// What a column of that type is as a key.
fn key_type(field: &Field, name: &str) -> Result<DataType, Error> {
    let empty = arrow::array::new_empty_array(field.data_type());
    Ok(column::key(&empty, name)?.data_type().clone())
}

impl Form {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, learnt: None }
    }

    /// What rows are kept as, once a batch was seen.
    pub(crate) fn kept(&self) -> Option<&SchemaRef> {
        self.learnt.as_ref().map(|learnt| &learnt.kept)
    }

    /// The types of the keys, once a batch was seen.
    pub(crate) fn key_types(&self) -> Option<&[DataType]> {
        self.learnt.as_ref().map(|learnt| learnt.key_types.as_slice())
    }

    /// Whether rows tell their place in their split.
    pub(crate) fn placed(&self) -> bool {
        self.learnt.as_ref().is_some_and(|learnt| learnt.placed)
    }

    /// The type of a column; text, which a column of nulls is, too, while nobody has told it.
    pub(crate) fn type_of(&self, name: &str) -> DataType {
        let kept = self.kept().and_then(|kept| kept.field_with_name(name).ok());
        let kept = kept.map(|field| field.data_type().clone());
        kept.or_else(|| self.wanted.types.get(name).cloned()).unwrap_or(DataType::Utf8)
    }

    /// Takes stored rows for the first batch.
    pub(crate) fn learn_stored(&mut self, schema: &Schema) -> Result<(), Error> {
        if self.learnt.is_none() {
            let kept = Schema::new(schema.fields().clone());
            self.learnt = Some(Learnt::of(&self.wanted, kept)?);
        }
        Ok(())
    }

    fn learn(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let schema = batch.schema();
        let mut fields = vec![Field::new(HASH_COLUMN, DataType::UInt64, false)];
        fields.push(Field::new(TIME_COLUMN, column::column(batch, TIME_COLUMN)?.data_type().clone(), false));
        if schema.index_of(SPLIT_COLUMN).is_ok() && schema.index_of(OFFSET_COLUMN).is_ok() {
            fields.push(Field::new(SPLIT_COLUMN, DataType::UInt64, false));
            fields.push(Field::new(OFFSET_COLUMN, DataType::Int64, false));
        }
        let all = || self.wanted.keys.iter().chain(&self.wanted.columns);
        for name in all() {
            column::column(batch, name)?;
        }
        for field in schema.fields() {
            let name = field.name();
            if all().any(|wanted| wanted == name) && !fields.iter().any(|known| known.name() == name) {
                fields.push(Field::new(name, self.wanted.kind(name, field.data_type()), true));
            }
        }
        self.learnt = Some(Learnt::of(&self.wanted, Schema::new(fields))?);
        Ok(())
    }

    /// Judges the rows of a batch, gives those on that are late, and answers the others as they are kept.
    ///
    /// Errors: `NoColumn`, `ColumnType`, `NullTime`.
    pub(crate) fn read(&mut self, batch: &RecordBatch, fired: i64, out: &mut Out) -> Result<RecordBatch, Error> {
        if self.learnt.is_none() {
            self.learn(batch)?;
        }
        let times = column::times(batch, TIME_COLUMN)?;
        let watermarks = row::row_watermarks(batch)?;
        let in_time = |row: usize| {
            let watermark = watermarks.as_ref().map_or(fired, |all| all[row].max(fired));
            row::in_time_for_order(times[row], watermark)
        };
        let kept = self.keep(batch)?;
        if (0..times.len()).all(in_time) {
            return Ok(kept);
        }
        let (rows, late): (Vec<u32>, Vec<u32>) = (0..number(times.len())).partition(|row| in_time(at(*row)));
        out.late(take_record_batch(batch, &UInt32Array::from(late))?);
        Ok(take_record_batch(&kept, &UInt32Array::from(rows))?)
    }

    fn keep(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let Some(learnt) = &self.learnt else { return Ok(batch.clone()) };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(learnt.kept.fields().len());
        columns.push(Arc::new(UInt64Array::from(vec![0; batch.num_rows()])));
        for field in learnt.kept.fields().iter().skip(1) {
            let array = column::column(batch, field.name())?;
            let kind = self.wanted.kind(field.name(), array.data_type());
            let array = if kind == *array.data_type() { Arc::clone(array) } else { cast(array, &kind)? };
            columns.push(column::as_learnt(array, field.data_type(), field.name())?);
        }
        if !learnt.keys.is_empty() {
            let keys = learnt.key_columns(&self.wanted, &columns)?;
            columns[0] = Arc::new(UInt64Array::from(hash::of_columns(&keys, batch.num_rows())?));
        }
        Ok(RecordBatch::try_new(Arc::clone(&learnt.kept), columns)?)
    }

    /// The keys of kept rows.
    pub(crate) fn keys(&self, kept: &RecordBatch) -> Result<Keys, Error> {
        let Some(learnt) = &self.learnt else { return Err(Error::Snapshot("rows of no known type".to_owned())) };
        if learnt.keys.is_empty() {
            let same: ArrayRef = Arc::new(BooleanArray::from(vec![false; kept.num_rows()]));
            return Ok(Keys { rows: learnt.converter.convert_columns(&[same])?, nulls: None });
        }
        let keys = learnt.key_columns(&self.wanted, kept.columns())?;
        let nulls = keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.nulls()));
        Ok(Keys { rows: learnt.converter.convert_columns(&keys)?, nulls })
    }
}

/// The times of kept rows.
pub(super) fn times(kept: &RecordBatch) -> Result<ScalarBuffer<i64>, Error> {
    column::times(kept, TIME_COLUMN)
}

/// The hashes of kept rows.
pub(super) fn hashes(kept: &RecordBatch) -> Result<ScalarBuffer<u64>, Error> {
    let array = column::column(kept, HASH_COLUMN)?.as_primitive_opt::<UInt64Type>();
    array.map(|array| array.values().clone()).ok_or_else(|| Error::Snapshot(format!("{HASH_COLUMN} is no hash")))
}
