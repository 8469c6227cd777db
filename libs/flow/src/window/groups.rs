//! Groups with their aggregates, in columns, and the batches made of them.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, UInt64Array},
    buffer::Buffer,
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use serde::{Deserialize, Serialize};
use types::Timestamp;

use super::{
    AggregateFunction, AggregateSpec, Phase, TIME_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN, WindowPlan,
    WindowShape,
    cells::{CellSpec, Cells, Values, What, data_type},
    chunk::{CHUNK, chunk_of, number},
    results::Results,
    table::{KeyForm, Keyed, Table},
};
use crate::{
    DeadLetter, Error, FaultKind, Frozen, HASH_COLUMN, INSTANT_TYPE, KeyGroups, Out, StoredBlock, ValueType, Verdict,
    key_group,
};

/// The version of the blocks; a reader refuses a newer one.
const BLOCK_VERSION: u32 = 1;

const TABLE: &str = "lb.table";
const VERSION: &str = "lb.version";
const WHAT: &str = "lb.window";

pub(crate) fn damaged(what: impl Into<String>) -> Error {
    Error::Snapshot(what.into())
}

/// What a block says of the windows that it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Origin {
    keys: Vec<String>,
    aggregates: Vec<AggregateSpec>,
    shape: WindowShape,
    lateness: types::DurationText,
    kinds: Vec<Option<ValueType>>,
}

impl Origin {
    fn of(plan: &WindowPlan, cells: &[CellSpec]) -> Self {
        Self {
            keys: plan.keys.clone(),
            aggregates: plan.aggregates.clone(),
            shape: plan.shape,
            lateness: plan.lateness,
            kinds: cells.iter().map(|cell| cell.kind).collect(),
        }
    }
}

/// What the first batch taught, or a stored block: fixed from then on.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) form: Arc<KeyForm>,
    pub(crate) cells: Vec<CellSpec>,
    /// Of each aggregate its cells, and whether it is their mean.
    results: Vec<(usize, bool)>,
    names: Vec<String>,
    output: SchemaRef,
    stored: Vec<Field>,
    origin: String,
}

/// One batch, read in those types.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) keyed: Keyed,
    pub(crate) values: Vec<Values>,
}

impl Layout {
    pub(crate) fn learn(plan: &WindowPlan, batch: &RecordBatch) -> Result<Self, Error> {
        let each =
            plan.aggregates.iter().map(|spec| CellSpec::learn(spec, batch)).collect::<Result<Vec<_>, Error>>()?;
        Self::of(plan, KeyForm::learn(&plan.keys, batch)?, &each)
    }

    /// For aggregates whose cells are those.
    fn of(plan: &WindowPlan, form: KeyForm, each: &[CellSpec]) -> Result<Self, Error> {
        // Rows that turn out to be late behind the edge are counted as rows.
        let rows = if plan.phase == Phase::Whole { Vec::new() } else { vec![CellSpec::ROWS] };
        let (cells, results) = shared(rows, &plan.aggregates, each);
        let instant = |name: &str| Field::new(name, INSTANT_TYPE, false);
        let key_fields = || form.columns().iter().map(|(name, kind)| Field::new(name, kind.clone(), true));
        let mut output = vec![instant(TIME_COLUMN), instant(WINDOW_START_COLUMN), instant(WINDOW_END_COLUMN)];
        output.extend(key_fields());
        for (aggregate, (place, mean)) in plan.aggregates.iter().zip(&results) {
            output.push(result_field(aggregate, &cells[*place], *mean));
        }
        let mut stored = vec![Field::new(HASH_COLUMN, DataType::UInt64, false)];
        stored.extend(key_fields());
        for (place, cell) in cells.iter().enumerate() {
            stored.extend(cell.stored(&stored_name(place, cell)));
        }
        let origin = serde_json::to_string(&Origin::of(plan, &cells)).map_err(|e| damaged(e.to_string()))?;
        let names = plan.aggregates.iter().map(|a| a.name.clone()).collect();
        Ok(Self { form: Arc::new(form), cells, results, names, output: Arc::new(Schema::new(output)), stored, origin })
    }

    /// The layout of stored rows, or of rows of another phase: their keys and cells as they lie there.
    ///
    /// Errors: `Snapshot` if the block is of other windows.
    pub(crate) fn of_stored(plan: &WindowPlan, schema: &Schema) -> Result<Self, Error> {
        let text = |key: &str| schema.metadata().get(key).ok_or_else(|| damaged(format!("{key} is missing")));
        let version = text(VERSION)?;
        if *version != BLOCK_VERSION.to_string() {
            return Err(damaged(format!("version {version} is not {BLOCK_VERSION}: restore it with its own release")));
        }
        let origin: Origin = serde_json::from_str(text(WHAT)?).map_err(|e| damaged(e.to_string()))?;
        let key = |name: &String| {
            let field = schema.field_with_name(name).map_err(|_| damaged(format!("column {name:?} is missing")))?;
            Ok((name.clone(), field.data_type().clone()))
        };
        let form = KeyForm::new(plan.keys.iter().map(key).collect::<Result<_, Error>>()?)?;
        // The kinds of all cells in order, of which each aggregate has the first that fits.
        let mut kinds = origin.kinds.iter();
        let mut known: Vec<CellSpec> = Vec::new();
        if plan.phase != Phase::Whole {
            kinds.next();
            known.push(CellSpec::ROWS);
        }
        let mut each = Vec::new();
        for aggregate in &plan.aggregates {
            let (what, column) = (what_of(aggregate.function), aggregate.column.clone());
            let before = known.iter().find(|cell| cell.what == what && cell.column == column);
            let cell = match before {
                Some(cell) => cell.clone(),
                None => {
                    let kind = *kinds.next().ok_or_else(|| damaged("aggregates are missing"))?;
                    known.push(CellSpec { what, column, kind });
                    known[known.len() - 1].clone()
                }
            };
            each.push(cell);
        }
        let layout = Self::of(plan, form, &each)?;
        if origin != Origin::of(plan, &layout.cells) {
            return Err(damaged("was taken under another specification: pin the old one or start afresh"));
        }
        Ok(layout)
    }

    pub(crate) fn read(&self, batch: &RecordBatch) -> Result<Input, Error> {
        let values = self.cells.iter().map(|cell| cell.read(batch)).collect::<Result<Vec<_>, Error>>()?;
        Ok(Input { keyed: self.form.read(batch)?, values })
    }

    /// The cells of stored rows, one group per row.
    pub(crate) fn load(&self, batch: &RecordBatch) -> Result<Vec<Cells>, Error> {
        let load = |(place, cell): (usize, &CellSpec)| {
            let name = stored_name(place, cell);
            let columns: Option<Vec<ArrayRef>> =
                cell.stored(&name).iter().map(|field| batch.column_by_name(field.name()).cloned()).collect();
            columns
                .and_then(|columns| cell.cells().load(&columns))
                .ok_or_else(|| damaged(format!("the cells of {name:?} cannot be read")))
        };
        self.cells.iter().enumerate().map(load).collect()
    }

    /// The schema of stored rows, behind columns of the caller's.
    pub(crate) fn stored(&self, table: &str, before: &[Field]) -> SchemaRef {
        let metadata = [(TABLE, table), (VERSION, &BLOCK_VERSION.to_string()), (WHAT, &self.origin)];
        let metadata: HashMap<String, String> = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let fields: Vec<Field> = before.iter().chain(&self.stored).cloned().collect();
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }

    pub(crate) fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// What one aggregate of one group comes to.
    pub(crate) fn one_result(&self, groups: &Groups, aggregate: usize, group: u32) -> Option<Results> {
        self.results.get(aggregate).map(|(place, _)| groups.cells[*place].results(&[group]))
    }
}

fn what_of(function: AggregateFunction) -> What {
    use AggregateFunction as F;
    match function {
        F::CountAll => What::Rows,
        F::Count => What::Present,
        F::Sum | F::Avg => What::Sum,
        F::Min => What::Least,
        F::Max => What::Most,
    }
}

/// Aggregates that need the same cells share them: all cells behind the `first`, and of each aggregate where its cells are and
/// whether it is their mean.
pub(crate) fn shared(
    first: Vec<CellSpec>,
    aggregates: &[AggregateSpec],
    each: &[CellSpec],
) -> (Vec<CellSpec>, Vec<(usize, bool)>) {
    let mut cells = first;
    let mut results = Vec::with_capacity(each.len());
    for (aggregate, cell) in aggregates.iter().zip(each) {
        let place = cells.iter().position(|known| known == cell).unwrap_or(cells.len());
        if place == cells.len() {
            cells.push(cell.clone());
        }
        results.push((place, aggregate.function == AggregateFunction::Avg));
    }
    (cells, results)
}

/// The column of an aggregate's results.
pub(crate) fn result_field(aggregate: &AggregateSpec, cell: &CellSpec, mean: bool) -> Field {
    let kind = match cell.kind {
        None => DataType::Int64,
        Some(_) if mean => DataType::Float64,
        Some(kind) => data_type(kind),
    };
    Field::new(&aggregate.name, kind, cell.kind.is_some())
}

/// The name of the cells in stored rows.
pub(crate) fn stored_name(place: usize, cell: &CellSpec) -> String {
    let what = match cell.what {
        What::Rows => "rows",
        What::Present => "present",
        What::Sum => "sum",
        What::Least => "min",
        What::Most => "max",
    };
    format!("{place}.{what}.{}", cell.column.as_deref().unwrap_or_default())
}

/// Groups of one pane, window or operator.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    pub(crate) table: Table,
    pub(crate) cells: Vec<Cells>,
    /// When each piece changed last.
    pub(crate) editions: Vec<u64>,
}

impl Groups {
    pub(crate) fn new(layout: &Layout) -> Self {
        let cells = layout.cells.iter().map(CellSpec::cells).collect();
        Self { table: Table::new(&layout.form), cells, editions: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        let cells: usize = self.cells.iter().map(Cells::cell_bytes).sum();
        self.table.bytes() + cells * self.len()
    }

    /// Adds these rows of a batch, or all.
    pub(crate) fn add(&mut self, input: &Input, rows: Option<&[u32]>, groups: &mut Vec<u32>, edition: u64) {
        self.table.groups(&input.keyed, rows, groups);
        let len = self.table.len();
        for (cells, values) in self.cells.iter_mut().zip(&input.values) {
            cells.grow(len);
            cells.update(groups, rows, values);
        }
        self.touch(groups, edition);
    }

    /// Adds these rows of cells, whose keys stand beside them.
    pub(crate) fn add_cells(&mut self, keyed: &Keyed, loaded: &[Cells], rows: &[u32], edition: u64) {
        let mut groups = Vec::with_capacity(rows.len());
        self.table.groups(keyed, Some(rows), &mut groups);
        let len = self.table.len();
        for (cells, other) in self.cells.iter_mut().zip(loaded) {
            cells.grow(len);
            cells.merge(&groups, other, rows);
        }
        self.touch(&groups, edition);
    }

    /// Adds other groups; only to those that are here already, unless `insert`.
    pub(crate) fn merge(&mut self, other: &Self, insert: bool) {
        let (mut groups, mut from) = (Vec::with_capacity(other.len()), Vec::with_capacity(other.len()));
        for group in 0..number(other.len()) {
            if let Some(mine) = self.table.same(&other.table, group, insert) {
                groups.push(mine);
                from.push(group);
            }
        }
        let len = self.table.len();
        for (cells, other) in self.cells.iter_mut().zip(&other.cells) {
            cells.grow(len);
            cells.merge(&groups, other, &from);
        }
    }

    pub(crate) fn touch(&mut self, groups: &[u32], edition: u64) {
        self.editions.resize(self.table.len().div_ceil(CHUNK), edition);
        groups.iter().for_each(|group| self.editions[chunk_of(*group)] = edition);
    }

    /// The output rows of these groups, each with its key and its window; a sum beyond 64 bits is a fault, of which `out` knows
    /// what becomes, and else null.
    pub(crate) fn rows(
        &self,
        layout: &Layout,
        (keys, groups): (&[u32], &[u32]),
        window: &dyn Fn(usize) -> (i64, i64),
        faults: Option<(&str, &mut Out)>,
    ) -> Result<RecordBatch, Error> {
        let batch = self.finished(layout, (keys, groups), window)?;
        let Some((operator, out)) = faults else { return Ok(batch) };
        let mut gone: Option<Vec<bool>> = None;
        for ((place, mean), name) in layout.results.iter().zip(&layout.names) {
            if *mean || layout.cells[*place].what != What::Sum {
                continue;
            }
            for (row, _) in groups.iter().enumerate().filter(|(_, group)| self.cells[*place].overflows(**group)) {
                let detail = format!("{name:?} is beyond 64 bits");
                let mut letter = DeadLetter::of(FaultKind::Overflow, &detail, operator, &batch, row)?;
                letter.time = Some(window(row).1.saturating_sub(1));
                if out.dead(letter)? == Verdict::Gone {
                    gone.get_or_insert_with(|| vec![false; groups.len()])[row] = true;
                }
            }
        }
        match gone {
            None => Ok(batch),
            Some(gone) => Ok(filter_record_batch(&batch, &gone.into_iter().map(|gone| Some(!gone)).collect())?),
        }
    }

    fn finished(
        &self,
        layout: &Layout,
        (keys, groups): (&[u32], &[u32]),
        window: &dyn Fn(usize) -> (i64, i64),
    ) -> Result<RecordBatch, Error> {
        let instants = |of: &dyn Fn((i64, i64)) -> i64| -> ArrayRef {
            Arc::new(TimestampNanosecondArray::from_iter_values((0..groups.len()).map(|row| of(window(row)))))
        };
        let mut columns = vec![instants(&|(_, end)| end.saturating_sub(1)), instants(&|w| w.0), instants(&|w| w.1)];
        columns.extend(self.table.columns(keys)?);
        for (place, mean) in &layout.results {
            columns.push(self.cells[*place].finish(groups, *mean, layout.cells[*place].kind)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&layout.output), columns)?)
    }

    /// Stored rows of these groups, each with its key, behind columns of the caller's.
    pub(crate) fn stored(
        &self,
        schema: &SchemaRef,
        before: Vec<ArrayRef>,
        (keys, groups): (&[u32], &[u32]),
    ) -> Result<RecordBatch, Error> {
        let mut columns = before;
        let hashes = keys.iter().map(|key| self.table.hash(*key));
        columns.push(Arc::new(hashes.collect::<UInt64Array>()));
        columns.extend(self.table.columns(keys)?);
        for cells in &self.cells {
            columns.extend(cells.store(groups)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// One piece, shared, to be written.
    pub(crate) fn only(&self, chunk: usize) -> Self {
        let cells = self.cells.iter().map(|cells| cells.only(chunk)).collect();
        Self { table: self.table.only(chunk), cells, editions: Vec::new() }
    }
}

/// A piece of groups on its way to storage, with columns of its owner's before it.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) groups: Groups,
    pub(crate) layout: Arc<Layout>,
    pub(crate) table: String,
    /// Columns of one instant per group, before the others.
    pub(crate) before: Vec<(&'static str, Vec<i64>)>,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let fields: Vec<Field> = self.before.iter().map(|(name, _)| Field::new(*name, INSTANT_TYPE, false)).collect();
        let schema = self.layout.stored(&self.table, &fields);
        let groups: Vec<u32> = (0..number(self.groups.len())).collect();
        let before = self
            .before
            .iter()
            .map(|(_, values)| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(values.clone())) });
        let batch = self.groups.stored(&schema, before.collect(), (&groups, &groups))?;
        written(&schema, &[batch])
    }

    fn bytes(&self) -> usize {
        self.groups.bytes()
    }
}

pub(crate) fn written(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// Up to when windows have fired, as a block of its own: a few hundred bytes that change at every checkpoint.
#[derive(Debug)]
pub(crate) struct Clock(pub(crate) Timestamp);

/// The table of [`Clock`].
pub(crate) const CLOCK_TABLE: &str = "clock";
const FIRED: &str = "lb.fired";

impl Frozen for Clock {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let metadata = [
            (TABLE, CLOCK_TABLE.to_owned()),
            (VERSION, BLOCK_VERSION.to_string()),
            (FIRED, self.0.nanos().to_string()),
        ];
        // In one order, for the name of the block is made of its bytes.
        let field = Field::new(FIRED, INSTANT_TYPE, false);
        let schema = Schema::new_with_metadata(vec![field], metadata.map(|(k, v)| (k.to_owned(), v)).into());
        let fired = TimestampNanosecondArray::from(vec![self.0.nanos()]);
        let schema = Arc::new(schema);
        written(&schema, &[RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(fired)])?])
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

impl Clock {
    /// What the stored ones of several subtasks say; nothing has fired if there is none.
    ///
    /// Errors: `Snapshot` if they differ, for then they are not of one checkpoint.
    pub(crate) fn of_all(blocks: Vec<&StoredBlock>) -> Result<i64, Error> {
        let fired = blocks.iter().map(|block| Self::read(&block.bytes)).collect::<Result<Vec<i64>, Error>>()?;
        if fired.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(damaged("its parts had fired up to different watermarks: they are of different checkpoints"));
        }
        Ok(fired.first().copied().unwrap_or(i64::MIN))
    }

    fn read(bytes: &Buffer) -> Result<i64, Error> {
        let reader = StreamReader::try_new(bytes.as_slice(), None)?;
        let fired = reader.schema().metadata().get(FIRED).and_then(|text| text.parse().ok());
        fired.ok_or_else(|| damaged(format!("{FIRED} is missing")))
    }
}

/// The stored rows of a block that belong to these key groups.
pub(crate) fn own_rows(bytes: &Buffer, groups: KeyGroups) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
    let reader = StreamReader::try_new(bytes.as_slice(), None)?;
    let schema = reader.schema();
    let mut own = Vec::new();
    for batch in reader {
        let batch = batch?;
        let hashes = hashes_of(&batch)?;
        let keep = hashes.iter().map(|hash| Some(groups.has(key_group(*hash)))).collect();
        let batch = filter_record_batch(&batch, &keep)?;
        if batch.num_rows() > 0 {
            own.push(batch);
        }
    }
    Ok((schema, own))
}

fn hashes_of(batch: &RecordBatch) -> Result<Vec<u64>, Error> {
    let array = batch.column_by_name(HASH_COLUMN).and_then(|array| array.as_primitive_opt::<UInt64Type>());
    array.map(|array| array.values().to_vec()).ok_or_else(|| damaged(format!("{HASH_COLUMN} is missing")))
}
