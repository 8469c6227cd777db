//! The types of keys and values, and the batches made of them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, TimestampNanosecondArray},
    buffer::ScalarBuffer,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    row::{RowConverter, Rows, SortField},
};

use super::{
    EARLY_COLUMN, TIME_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN, WindowSpec,
    accumulator::{Accumulator, Kind, Values},
    block::Block,
};
use crate::{Error, column, hash};

/// The instant type of windows.
pub(super) const INSTANT: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Whether a group has fired early, in a snapshot.
pub(super) const FIRED_COLUMN: &str = "_early_fired";

/// What the first batch taught: fixed from then on, and stored with the state.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) converter: RowConverter,
    pub(super) output: SchemaRef,
    pub(super) stored: SchemaRef,
    keys: Vec<(String, DataType)>,
    aggregates: Vec<(super::AggregateFunction, Kind)>,
}

/// One batch, read in those types.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) times: ScalarBuffer<i64>,
    pub(super) keys: Rows,
    pub(super) hashes: Vec<u64>,
    pub(super) values: Vec<Values>,
}

impl Layout {
    pub(super) fn learn(spec: &WindowSpec, batch: &RecordBatch) -> Result<Self, Error> {
        let keys = spec
            .keys
            .iter()
            .map(|name| Ok(column::key(column::column(batch, name)?, name)?.data_type().clone()))
            .collect::<Result<Vec<DataType>, Error>>()?;
        let kinds = spec.aggregates.iter().map(|a| Kind::learn(a, batch)).collect::<Result<Vec<_>, Error>>()?;
        Self::of(spec, keys, &kinds)
    }

    pub(super) fn of(spec: &WindowSpec, keys: Vec<DataType>, kinds: &[Kind]) -> Result<Self, Error> {
        // One constant key where there is none: everything is one group.
        let sort: Vec<SortField> = match keys.len() {
            0 => vec![SortField::new(DataType::Boolean)],
            _ => keys.iter().cloned().map(SortField::new).collect(),
        };
        let window = [Field::new(WINDOW_START_COLUMN, INSTANT, false), Field::new(WINDOW_END_COLUMN, INSTANT, false)];
        let key_fields: Vec<Field> =
            spec.keys.iter().zip(&keys).map(|(name, kind)| Field::new(name, kind.clone(), true)).collect();
        let mut output: Vec<Field> = window.iter().chain(&key_fields).cloned().collect();
        output.extend(spec.aggregates.iter().zip(kinds).map(|(a, kind)| kind.output(a)));
        if spec.early.is_some() {
            output.push(Field::new(EARLY_COLUMN, DataType::Boolean, false));
        }
        let mut stored: Vec<Field> = window[..1].iter().chain(&key_fields).cloned().collect();
        stored.push(Field::new(FIRED_COLUMN, DataType::Boolean, false));
        stored.extend(spec.aggregates.iter().zip(kinds).flat_map(|(a, kind)| kind.stored(a)));
        Ok(Self {
            converter: RowConverter::new(sort)?,
            output: Arc::new(Schema::new(output)),
            stored: Arc::new(Schema::new(stored)),
            keys: spec.keys.iter().cloned().zip(keys).collect(),
            aggregates: spec.aggregates.iter().zip(kinds).map(|(a, kind)| (a.function, *kind)).collect(),
        })
    }

    pub(super) fn accumulators(&self) -> Vec<Accumulator> {
        self.aggregates.iter().map(|(function, kind)| Accumulator::new(*function, *kind)).collect()
    }

    pub(super) fn read(&self, spec: &WindowSpec, batch: &RecordBatch) -> Result<Input, Error> {
        let keys = self
            .keys
            .iter()
            .map(|(name, kind)| column::as_learnt(column::key(column::column(batch, name)?, name)?, kind, name))
            .collect::<Result<Vec<ArrayRef>, Error>>()?;
        let values = spec
            .aggregates
            .iter()
            .zip(&self.aggregates)
            .map(|(a, (_, kind))| kind.read(a, batch))
            .collect::<Result<Vec<Values>, Error>>()?;
        let (hashes, keys) = self.rows_of(keys, batch.num_rows())?;
        Ok(Input { times: column::times(batch, TIME_COLUMN)?, keys, hashes, values })
    }

    /// The hashes and comparable rows of key columns.
    pub(super) fn rows_of(&self, mut keys: Vec<ArrayRef>, rows: usize) -> Result<(Vec<u64>, Rows), Error> {
        if keys.is_empty() {
            keys.push(Arc::new(BooleanArray::from(vec![false; rows])));
        }
        Ok((hash::of_columns(&keys, rows)?, self.converter.convert_columns(&keys)?))
    }

    /// The key columns of groups; none where there is no key.
    fn keys_of(&self, block: &Block, groups: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        block.keys(&self.converter, groups)
    }

    /// The output rows of these groups of the window from `start`.
    pub(super) fn rows(
        &self,
        start: i64,
        size: i64,
        block: &Block,
        groups: &[u32],
        early: bool,
    ) -> Result<RecordBatch, Error> {
        let instant = |t: i64| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![t; groups.len()])) };
        let mut columns = vec![instant(start), instant(start.saturating_add(size))];
        columns.extend(self.keys_of(block, groups)?);
        columns.extend(block.accumulators().iter().map(|a| a.finish(groups)));
        if columns.len() < self.output.fields().len() {
            columns.push(Arc::new(BooleanArray::from(vec![early; groups.len()])));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }

    /// The snapshot rows of these groups of the window from `start`.
    pub(super) fn store(&self, start: i64, block: &Block, groups: &[u32]) -> Result<RecordBatch, Error> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(vec![start; groups.len()]))];
        columns.extend(self.keys_of(block, groups)?);
        columns.push(Arc::new(groups.iter().map(|g| Some(block.fired(*g))).collect::<BooleanArray>()));
        for accumulator in block.accumulators() {
            columns.extend(accumulator.store(groups)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.stored), columns)?)
    }
}
