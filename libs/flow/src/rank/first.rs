//! The first row of each key.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::TimestampNanosecondType,
};

use crate::{
    DedupSpec, Error, KeyGroups, Out, StateBlock, TIME_COLUMN, column,
    ordered::{InOrder, Keys, RowForm, StoredKeys},
    window::{
        chunk::at,
        grid,
        table::{KeyForm, Keyed},
    },
};

/// The table of keys with the times of their rows.
const TABLE: &str = "first";

/// How often keys are looked for that can be forgotten, as a part of their time to live.
const SWEEPS: i64 = 4;

/// Deduplication that keeps the first row: what it knows of a key is the time of that row.
#[derive(Debug)]
pub(crate) struct FirstRows {
    names: Vec<String>,
    ttl: Option<i64>,
    form: Option<Arc<RowForm>>,
    keys: Option<Keys>,
    /// Of each row the number of its key.
    numbers: Vec<u32>,
}

impl FirstRows {
    pub(crate) fn new(spec: &DedupSpec) -> Result<Self, Error> {
        let ttl = spec.ttl.map(|ttl| grid::nanos("ttl", ttl, false)).transpose()?;
        Ok(Self { names: spec.keys.clone(), ttl, form: None, keys: None, numbers: Vec::new() })
    }

    /// Whether a key is forgotten, so long after its row.
    fn over(ttl: Option<i64>, since: i64, now: i64) -> bool {
        ttl.is_some_and(|ttl| now >= since.saturating_add(ttl))
    }

    fn keyed(keys: &Keys, rows: &RecordBatch) -> Result<Keyed, Error> {
        keys.form.read(rows)
    }
}

fn times(rows: &RecordBatch) -> Result<&[i64], Error> {
    let times = column::column(rows, TIME_COLUMN)?.as_primitive_opt::<TimestampNanosecondType>();
    Ok(times.map_or(&[], |times| times.values()))
}

impl InOrder for FirstRows {
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        form.only_appends("dedup")?;
        self.form = Some(Arc::clone(form));
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        self.keys = Some(Keys::new(KeyForm::learn(&self.names, &empty)?));
        Ok(())
    }

    fn wanted(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, Error> {
        let Some(keys) = self.keys.as_ref().filter(|keys| keys.table.len() > 0) else { return Ok(None) };
        let (keyed, times) = (Self::keyed(keys, rows)?, times(rows)?);
        let wanted = |(row, time): (usize, &i64)| {
            let known = keys.table.lookup(&keyed, row);
            Some(known.is_none_or(|key| Self::over(self.ttl, *keys.since.get(key), *time)))
        };
        Ok(Some(times.iter().enumerate().map(wanted).collect()))
    }

    fn rows(&mut self, rows: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let (Some(form), Some(keys)) = (&self.form, &mut self.keys) else { return Ok(()) };
        let (keyed, times) = (Self::keyed(keys, rows)?, times(rows)?);
        let before = keys.table.len();
        keys.numbers(&keyed, &mut self.numbers, i64::MAX);
        let mut next = before;
        let mut first = Vec::with_capacity(rows.num_rows());
        let ttl = self.ttl;
        let mut changed = Vec::new();
        for (key, time) in self.numbers.iter().zip(times) {
            // New keys are numbered by their first rows.
            let new = at(*key) == next;
            next += usize::from(new);
            let is_first = new || Self::over(ttl, *keys.since.get(*key), *time);
            if is_first {
                *keys.since.get_mut(*key) = *time;
                changed.push(*key);
            }
            first.push(Some(is_first));
        }
        if changed.is_empty() {
            return Ok(());
        }
        keys.touch(&changed);
        out.rows(form.show(&filter_record_batch(rows, &first.into_iter().collect())?)?);
        Ok(())
    }

    fn passed(&mut self, _: i64, until: i64, _: &mut Out) -> Result<(), Error> {
        if let (Some(keys), Some(ttl)) = (&mut self.keys, self.ttl)
            && keys.sweeps(until, ttl / SWEEPS)
        {
            keys.forget(|since| Self::over(Some(ttl), *since, until));
        }
        Ok(())
    }

    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error> {
        let Some(keys) = &self.keys else { return Ok(Vec::new()) };
        let fields = keys.fields();
        let content = |piece, _: usize, table: &str| -> Arc<dyn crate::Frozen> {
            Arc::new(StoredKeys::new(piece, fields.clone(), table, what))
        };
        Ok(keys.blocks(TABLE, groups, content))
    }

    fn restore(&mut self, _: &str, rows: &RecordBatch) -> Result<(), Error> {
        self.keys.as_mut().map_or(Ok(()), |keys| keys.load(rows).map(|_| ()))
    }

    fn bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, Keys::bytes)
    }
}
