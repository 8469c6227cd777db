//! Rows with those of a table.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    buffer::NullBuffer,
    compute::take,
    datatypes::{DataType, Field, FieldRef, Schema},
    row::{RowConverter, Rows, SortField},
};

use super::{JoinKind, JoinSpec, JoinType, check::broken};
use crate::{
    Error, HIDDEN_COLUMNS, Operator, Out, Setting, TIME_COLUMN, column, hash,
    kept::{BATCH_ROWS, Index},
    window::{
        cells,
        chunk::{at, number},
    },
};

/// The rows of a lookup table, found by their keys. Shared by all subtasks of a worker, and replaced as a whole.
#[derive(Debug)]
pub struct LookupTable {
    columns: Vec<ArrayRef>,
    types: Vec<DataType>,
    keys: Rows,
    converter: RowConverter,
    index: Index,
    bytes: usize,
}

/// Gives the table as it is now.
///
/// Called once for each batch: whoever fetches the table does so elsewhere, and swaps it here.
pub trait Lookup: fmt::Debug + Send {
    /// The newest rows of the table.
    ///
    /// Errors: end the attempt.
    fn table(&mut self) -> Result<Arc<LookupTable>, Error>;
}

/// A table that never changes.
impl Lookup for Arc<LookupTable> {
    fn table(&mut self) -> Result<Self, Error> {
        Ok(Self::clone(self))
    }
}

fn key_columns(names: &[String], batch: &RecordBatch) -> Result<(Vec<ArrayRef>, Option<NullBuffer>), Error> {
    let keys =
        names.iter().map(|name| column::key(column::column(batch, name)?, name)).collect::<Result<Vec<_>, _>>()?;
    let nulls = keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.nulls()));
    Ok((keys, nulls))
}

impl LookupTable {
    /// The rows of a table for a lookup join; of rows of one key all are found, in their order.
    ///
    /// Errors: `NoColumn`, `ColumnType`; `Spec` if the join is none with a table.
    pub fn new(spec: &JoinSpec, rows: &RecordBatch) -> Result<Self, Error> {
        spec.validate()?;
        if spec.right.keys.is_empty() {
            return Err(broken("looks rows up by no key: name one"));
        }
        let (keys, nulls) = key_columns(&spec.right.keys, rows)?;
        let types: Vec<DataType> = keys.iter().map(|key| key.data_type().clone()).collect();
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let mut index = Index::default();
        for (hash, row) in hash::of_columns(&keys, rows.num_rows())?.into_iter().zip(0u32..) {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at(row))) {
                index.push(hash, u64::from(row));
            }
        }
        let typed = |(place, (name, _)): (usize, &(String, String))| {
            let array = column::column(rows, name)?;
            Ok(match spec.right.types.get(place) {
                Some(kind) => arrow::compute::cast(array, &cells::data_type(*kind))?,
                None => Arc::clone(array),
            })
        };
        let columns = spec.right.columns.iter().enumerate().map(typed).collect::<Result<Vec<ArrayRef>, Error>>()?;
        let keys = converter.convert_columns(&keys)?;
        let of_columns: usize = columns.iter().map(|column| column.get_array_memory_size()).sum();
        let bytes = of_columns + keys.size() + index.bytes();
        Ok(Self { columns, types, keys, converter, index, bytes })
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A join of the rows of one input with those of a table, each at once: no state, no lateness, and hidden columns are handed
/// on, as a projection does.
#[derive(Debug)]
pub struct LookupJoin {
    name: String,
    spec: JoinSpec,
    lookup: Box<dyn Lookup>,
    state_bytes_max: usize,
}

impl LookupJoin {
    /// The operator.
    ///
    /// Errors: `Spec` if the specification is not one of a lookup, or breaks a rule.
    pub fn new(spec: JoinSpec, setting: Setting, lookup: Box<dyn Lookup>) -> Result<Self, Error> {
        spec.validate()?;
        if !matches!(spec.kind, JoinKind::Lookup { .. }) {
            return Err(broken("joins two inputs, and no table"));
        }
        Ok(Self { name: setting.name, spec, lookup, state_bytes_max: setting.state_bytes_max })
    }

    /// Of each row to come out the row of the batch, and that of the table.
    fn pairs(&self, table: &LookupTable, batch: &RecordBatch) -> Result<Vec<(u32, Option<u32>)>, Error> {
        let (keys, nulls) = key_columns(&self.spec.left.keys, batch)?;
        for ((key, kind), name) in keys.iter().zip(&table.types).zip(&self.spec.left.keys) {
            // Nulls equal nothing, whatever their type is.
            if key.data_type() != kind && key.null_count() < key.len() {
                let (found, wanted) = (key.data_type().to_string(), format!("{kind} as in the table"));
                return Err(Error::ColumnType { column: name.clone(), found, wanted });
            }
        }
        let same = keys.iter().zip(&table.types).all(|(key, kind)| key.data_type() == kind);
        let hashes = hash::of_columns(&keys, batch.num_rows())?;
        let keys = if same { Some(table.converter.convert_columns(&keys)?) } else { None };
        let how = self.spec.how;
        let mut pairs = Vec::with_capacity(batch.num_rows());
        for row in 0..number(batch.num_rows()) {
            let own = keys.as_ref().filter(|_| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at(row))));
            let own = own.map(|keys| (keys.row(at(row)), hashes[at(row)]));
            let found = own.into_iter().flat_map(|(key, hash)| {
                let rows = table.index.from(hash, |_| false).filter_map(|found| u32::try_from(found).ok());
                rows.filter(move |found| table.keys.row(at(*found)).data() == key.data())
            });
            let before = pairs.len();
            match how {
                JoinType::Semi | JoinType::Anti => {
                    let some = found.into_iter().next().is_some();
                    pairs.extend((some == (how == JoinType::Semi)).then_some((row, None)));
                }
                _ => pairs.extend(found.map(|found| (row, Some(found)))),
            }
            if how == JoinType::Left && pairs.len() == before {
                pairs.push((row, None));
            }
        }
        Ok(pairs)
    }

    fn rows(
        &self,
        table: &LookupTable,
        batch: &RecordBatch,
        pairs: &[(u32, Option<u32>)],
    ) -> Result<RecordBatch, Error> {
        let lefts: UInt32Array = pairs.iter().map(|(left, _)| *left).collect();
        let rights: UInt32Array = pairs.iter().map(|(_, right)| *right).collect();
        let schema = batch.schema();
        let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for name in std::iter::once(TIME_COLUMN).chain(HIDDEN_COLUMNS) {
            if let (Some(array), Ok(field)) = (batch.column_by_name(name), schema.field_with_name(name)) {
                fields.push(Arc::new(field.clone()));
                columns.push(take(array, &lefts, None)?);
            }
        }
        let mut add = |name: &str, array: ArrayRef| {
            fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
            columns.push(array);
        };
        for (place, (column, name)) in self.spec.left.columns.iter().enumerate() {
            let array = take(column::column(batch, column)?, &lefts, None)?;
            add(
                name,
                match self.spec.left.types.get(place) {
                    Some(kind) => arrow::compute::cast(&array, &cells::data_type(*kind))?,
                    None => array,
                },
            );
        }
        if !self.spec.how.left_alone() {
            for ((_, name), array) in self.spec.right.columns.iter().zip(&table.columns) {
                add(name, take(array, &rights, None)?);
            }
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

impl Operator for LookupJoin {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let table = self.lookup.table()?;
        if table.bytes > self.state_bytes_max {
            let (bytes, limit) = (table.bytes, self.state_bytes_max);
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        for pairs in self.pairs(&table, batch)?.chunks(BATCH_ROWS) {
            out.rows(self.rows(&table, batch, pairs)?);
        }
        Ok(())
    }
}
