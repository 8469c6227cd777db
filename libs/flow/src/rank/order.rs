//! Rows by key, by what they are ranked by, and by their place.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::SortOptions,
    row::{RowConverter, Rows, SortField},
};

use crate::{
    Error, SortKey, TopNSpec, column,
    ordered::{Placed, RowForm},
};

/// How rows are ranked, for the columns that they have.
#[derive(Debug)]
pub(crate) struct Ranking {
    pub(crate) form: Arc<RowForm>,
    keys: Vec<String>,
    order: Vec<SortKey>,
    key_rows: Option<RowConverter>,
    order_rows: RowConverter,
}

fn values(rows: &RecordBatch, name: &str) -> Result<ArrayRef, Error> {
    column::key(column::column(rows, name)?, name)
}

impl Ranking {
    pub(crate) fn learn(spec: &TopNSpec, form: &Arc<RowForm>) -> Result<Self, Error> {
        super::check_rank(spec.rank.as_deref(), form)?;
        form.only_appends("top")?;
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        let field = |name: &String, options| -> Result<SortField, Error> {
            Ok(SortField::new_with_options(values(&empty, name)?.data_type().clone(), options))
        };
        let by_key = |name| field(name, SortOptions::default());
        let by_order = |key: &SortKey| {
            field(&key.column, SortOptions { descending: key.descending, nulls_first: key.nulls_first })
        };
        let keys = spec.keys.iter().map(by_key).collect::<Result<Vec<_>, _>>()?;
        let order = spec.order.iter().map(by_order).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            form: Arc::clone(form),
            keys: spec.keys.clone(),
            order: spec.order.clone(),
            key_rows: if keys.is_empty() { None } else { Some(RowConverter::new(keys)?) },
            order_rows: RowConverter::new(order)?,
        })
    }

    /// Kept rows, ready to be compared.
    pub(crate) fn read(&self, rows: RecordBatch) -> Result<Ranked, Error> {
        let keys = self.keys.iter().map(|name| values(&rows, name)).collect::<Result<Vec<_>, _>>()?;
        let order = self.order.iter().map(|key| values(&rows, &key.column)).collect::<Result<Vec<_>, _>>()?;
        let keys = self.key_rows.as_ref().map(|converter| converter.convert_columns(&keys)).transpose()?;
        let order = self.order_rows.convert_columns(&order)?;
        let placed = Placed::new(&self.form, rows)?;
        let bytes = placed.bytes() + keys.as_ref().map_or(0, Rows::size) + order.size();
        Ok(Ranked { placed, keys, order, bytes })
    }
}

/// Rows with all by which they are compared.
#[derive(Debug)]
pub(crate) struct Ranked {
    pub(crate) placed: Placed,
    keys: Option<Rows>,
    order: Rows,
    pub(crate) bytes: usize,
}

impl Ranked {
    pub(crate) fn by_key(&self, row: usize, other: &Self, at: usize) -> Ordering {
        match (&self.keys, &other.keys) {
            (Some(mine), Some(others)) => mine.row(row).cmp(&others.row(at)),
            _ => Ordering::Equal,
        }
    }

    /// Within one key: the better row is the smaller one.
    pub(crate) fn by_rank(&self, row: usize, other: &Self, at: usize) -> Ordering {
        let order = self.order.row(row).cmp(&other.order.row(at));
        order.then_with(|| self.placed.compare(row, &other.placed, at))
    }
}
