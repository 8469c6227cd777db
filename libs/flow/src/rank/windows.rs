//! The first rows of each key and window, when the window closes.
//!
//! Rows of a window are kept as they came, and thrown out in bulk when they are twice as many as were left the last time: what
//! remains are the first `limit` of each key. A row is so compared a few times in all, whatever the limit is.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray, UInt32Array},
    compute::{cast, interleave_record_batch, take_record_batch},
    datatypes::{DataType, Field, Schema},
};
use types::Timestamp;

use super::order::{Ranked, Ranking};
use crate::{
    Error, KeyGroups, Operator, Out, Setting, StateBlock, StoredBlock, TIME_COLUMN, TopNSpec, WINDOW_END_COLUMN,
    column,
    ordered::{PAGE_ROWS, RowForm, StoredRows, judged, own_of, stored_schema},
    window::{
        chunk::{at, number},
        groups::{CLOCK_TABLE, Clock},
    },
};

/// The table of rows; a part of a window has its number behind that.
const TABLE: &str = "top";
/// Rows of a window are not thrown out before they are so many.
const ROWS_MIN: usize = 1_024;
/// Batches of a window are put together when they are more.
const PARTS_MAX: usize = 32;

/// Top-N of windows as an operator.
#[derive(Debug)]
pub(crate) struct TopWindows {
    name: String,
    spec: TopNSpec,
    limit: usize,
    what: String,
    groups: KeyGroups,
    state_bytes_max: usize,
    ranking: Option<Arc<Ranking>>,
    /// By their ends.
    windows: BTreeMap<i64, Window>,
    fired: i64,
    /// Numbers parts.
    clock: u64,
    bytes: usize,
}

/// The rows of one window.
#[derive(Debug, Default)]
struct Window {
    parts: Vec<(u64, Ranked)>,
    rows: usize,
    /// How many rows were left the last time.
    left: usize,
}

/// A row by its part and its place there, with its rank.
type Place = (u32, u32, i64);

impl Window {
    /// The first rows of each key in order.
    fn first(&self, limit: usize) -> Vec<Place> {
        let mut all: Vec<(u32, u32)> = Vec::with_capacity(self.rows);
        for (part, (_, ranked)) in (0u32..).zip(&self.parts) {
            all.extend((0..number(ranked.placed.len())).map(|row| (part, row)));
        }
        let of = |part: u32| &self.parts[at(part)].1;
        all.sort_unstable_by(|a, b| {
            let (mine, other) = (of(a.0), of(b.0));
            let (row, place) = (at(a.1), at(b.1));
            mine.by_key(row, other, place).then_with(|| mine.by_rank(row, other, place))
        });
        let mut first = Vec::new();
        let (mut before, mut rank): (Option<(u32, u32)>, usize) = (None, 0);
        for (part, row) in all {
            let same = before.is_some_and(|(p, r)| of(p).by_key(at(r), of(part), at(row)).is_eq());
            rank = if same { rank + 1 } else { 1 };
            before = Some((part, row));
            if rank <= limit {
                first.push((part, row, i64::try_from(rank).unwrap_or(i64::MAX)));
            }
        }
        first
    }

    fn gather(&self, places: &[Place]) -> Result<RecordBatch, Error> {
        let batches: Vec<&RecordBatch> = self.parts.iter().map(|(_, part)| &part.placed.rows).collect();
        let places: Vec<(usize, usize)> = places.iter().map(|(part, row, _)| (at(*part), at(*row))).collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.bytes).sum()
    }
}

impl TopWindows {
    /// No windows.
    pub(crate) fn new(spec: TopNSpec, what: String, setting: Setting) -> Result<Self, Error> {
        Ok(Self {
            limit: spec.validate()?,
            spec,
            name: setting.name,
            what,
            groups: setting.key_groups.into(),
            state_bytes_max: setting.state_bytes_max,
            ranking: None,
            windows: BTreeMap::new(),
            fired: i64::MIN,
            clock: 0,
            bytes: 0,
        })
    }

    fn ranking(&mut self, schema: &Schema) -> Result<Arc<Ranking>, Error> {
        if let Some(ranking) = &self.ranking {
            return Ok(Arc::clone(ranking));
        }
        let form = Arc::new(RowForm::learn(&self.spec.keys, schema)?);
        Ok(Arc::clone(self.ranking.insert(Arc::new(Ranking::learn(&self.spec, &form)?))))
    }

    /// Adds kept rows to their windows.
    fn add(&mut self, ranking: &Ranking, rows: RecordBatch) -> Result<(), Error> {
        let ends = column::times(&rows, WINDOW_END_COLUMN)?;
        let mut of_window = BTreeMap::<i64, Vec<u32>>::new();
        for (row, end) in (0u32..).zip(ends.iter()) {
            of_window.entry(*end).or_default().push(row);
        }
        let one = of_window.len() == 1;
        for (end, places) in of_window {
            let rows = if one { rows.clone() } else { take_record_batch(&rows, &UInt32Array::from(places))? };
            let part = ranking.read(rows)?;
            self.clock += 1;
            let window = self.windows.entry(end).or_default();
            let before = window.bytes();
            window.rows += part.placed.len();
            window.parts.push((self.clock, part));
            if window.rows > ROWS_MIN.max(window.left * 2) || window.parts.len() > PARTS_MAX {
                let first = window.first(self.limit);
                let rows = ranking.read(window.gather(&first)?)?;
                (window.rows, window.left) = (first.len(), first.len());
                window.parts = vec![(self.clock, rows)];
            }
            self.bytes = (self.bytes + window.bytes()).saturating_sub(before);
        }
        if self.bytes > self.state_bytes_max {
            let (bytes, limit) = (self.bytes, self.state_bytes_max);
            return Err(Error::StateTooLarge { operator: self.name.clone(), bytes, limit });
        }
        Ok(())
    }

    /// Rows as they are given on: with the time of their window, and their ranks.
    fn shown(&self, form: &RowForm, rows: &RecordBatch, places: &[Place], end: i64) -> Result<RecordBatch, Error> {
        let rows = form.show(rows)?;
        let schema = rows.schema();
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns = rows.columns().to_vec();
        let (time, field) =
            schema.column_with_name(TIME_COLUMN).ok_or_else(|| super::wrong("rows have no time".into()))?;
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![end.saturating_sub(1); rows.num_rows()]));
        columns[time] = cast(&times, field.data_type())?;
        if let Some(rank) = &self.spec.rank {
            fields.push(Field::new(rank, DataType::Int64, false));
            columns.push(Arc::new(places.iter().map(|(_, _, rank)| *rank).collect::<Int64Array>()));
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

impl Operator for TopWindows {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let ranking = self.ranking(&batch.schema())?;
        let ends = column::times(batch, WINDOW_END_COLUMN)?;
        let rows = judged(batch, self.fired, |row, watermark| ends[row] > watermark, out)?;
        self.add(&ranking, ranking.form.read(&rows)?)
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Out) -> Result<(), Error> {
        self.fired = self.fired.max(watermark.nanos());
        while let Some(oldest) = self.windows.first_entry().filter(|entry| *entry.key() <= self.fired) {
            let (end, window) = oldest.remove_entry();
            self.bytes = self.bytes.saturating_sub(window.bytes());
            let Some(ranking) = &self.ranking else { break };
            for page in window.first(self.limit).chunks(PAGE_ROWS) {
                out.rows(self.shown(&ranking.form, &window.gather(page)?, page, end)?);
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<StateBlock>, Error> {
        let content = Arc::new(Clock(Timestamp::from_nanos(self.fired)));
        let (table, groups, edition) = (CLOCK_TABLE.to_owned(), self.groups, self.fired.cast_unsigned());
        let mut blocks = vec![StateBlock { table, groups, time: None, edition, content }];
        let Some(ranking) = &self.ranking else { return Ok(blocks) };
        for (end, window) in &self.windows {
            for (id, part) in &window.parts {
                let table = format!("{TABLE}-{id}");
                let schema = stored_schema(ranking.form.kept(), &table, &self.what);
                let content = Arc::new(StoredRows { schema, rows: part.placed.rows.clone() });
                let time = Some(Timestamp::from_nanos(*end));
                blocks.push(StateBlock { table, groups, time, edition: *id, content });
            }
        }
        Ok(blocks)
    }

    fn restore(&mut self, blocks: &[StoredBlock]) -> Result<(), Error> {
        let (clocks, tables): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.table == CLOCK_TABLE);
        self.fired = Clock::of_all(clocks)?;
        for block in tables {
            let (schema, batches) = own_of(block, self.groups, &self.what)?;
            let ranking = self.ranking(&schema)?;
            for rows in batches {
                let rows = RecordBatch::try_new(Arc::clone(ranking.form.kept()), rows.columns().to_vec())?;
                self.add(&ranking, rows)?;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn view(&self, skip: usize, limit: usize) -> Result<Option<RecordBatch>, Error> {
        let Some(ranking) = &self.ranking else { return Ok(None) };
        let (mut skip, mut left, mut shown) = (skip, limit, Vec::new());
        for (end, window) in &self.windows {
            let first = window.first(self.limit);
            let part = &first[skip.min(first.len())..first.len().min(skip.saturating_add(left))];
            skip = skip.saturating_sub(first.len());
            left -= part.len();
            if !part.is_empty() {
                shown.push(self.shown(&ranking.form, &window.gather(part)?, part, *end)?);
            }
        }
        let Some(first) = shown.first() else {
            return Ok(Some(RecordBatch::new_empty(Arc::clone(ranking.form.shown()))));
        };
        Ok(Some(arrow::compute::concat_batches(&first.schema(), &shown)?))
    }
}
