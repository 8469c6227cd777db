//! OVER: each row with aggregates of those before it.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef},
};

use super::frames::{Extent, Frames, stored_kind};
use crate::{
    Error, FaultKind, Frozen, INSTANT_TYPE, KeyGroups, Out, OverSpec, StateBlock, TIME_COLUMN, Verdict, column,
    ordered::{InOrder, Keys, KeysPiece, RowForm, StoredRows, stored_schema},
    window::{
        cells::{CellSpec, Cells, Values},
        groups::{damaged, result_field, shared, stored_name},
        results::Results,
        table::KeyForm,
    },
};

/// The table of what is kept; a piece of it has its number behind that.
const TABLE: &str = "over";
/// How often keys are looked for whose frames are empty, as a part of their length.
const SWEEPS: i64 = 4;

/// What is kept of the rows before.
#[derive(Debug)]
enum Kept {
    /// Of all: what they come to.
    All(Vec<Cells>),
    /// Of some: these rows.
    Frames(Frames),
}

/// What follows from the columns of rows.
#[derive(Debug)]
struct State {
    form: Arc<RowForm>,
    cells: Vec<CellSpec>,
    /// Of each aggregate its cells, and whether it is their mean.
    results: Vec<(usize, bool)>,
    output: SchemaRef,
    keys: Keys,
    kept: Kept,
}

/// OVER as work on rows in order.
#[derive(Debug)]
pub(crate) struct OverRows {
    name: String,
    spec: OverSpec,
    extent: Option<Extent>,
    state: Option<State>,
    numbers: Vec<u32>,
}

impl OverRows {
    pub(crate) fn new(spec: &OverSpec, name: &str) -> Result<Self, Error> {
        let extent = spec.extent()?;
        Ok(Self { name: name.to_owned(), spec: spec.clone(), extent, state: None, numbers: Vec::new() })
    }

    /// Tells which sums are beyond 64 bits; answers which rows are left.
    fn faults(&self, batch: &RecordBatch, results: &[Results], out: &mut Out) -> Result<Option<BooleanArray>, Error> {
        let Some(state) = &self.state else { return Ok(None) };
        let mut left: Option<Vec<bool>> = None;
        for ((place, mean), aggregate) in state.results.iter().zip(&self.spec.aggregates) {
            for row in (0..batch.num_rows()).filter(|row| !mean && results[*place].overflows(*row)) {
                let detail = format!("{:?} is beyond 64 bits", aggregate.name);
                if out.fault(FaultKind::Overflow, &detail, &self.name, batch, row)? == Verdict::Gone {
                    left.get_or_insert_with(|| vec![true; batch.num_rows()])[row] = false;
                }
            }
        }
        Ok(left.map(BooleanArray::from))
    }
}

impl InOrder for OverRows {
    fn learn(&mut self, form: &Arc<RowForm>) -> Result<(), Error> {
        form.only_appends("over")?;
        let empty = RecordBatch::new_empty(Arc::clone(form.kept()));
        let each = self.spec.aggregates.iter().map(|aggregate| CellSpec::learn(aggregate, &empty));
        let (cells, results) = shared(Vec::new(), &self.spec.aggregates, &each.collect::<Result<Vec<_>, Error>>()?);
        let mut output: Vec<Field> = form.shown().fields().iter().map(|field| field.as_ref().clone()).collect();
        for (aggregate, (place, mean)) in self.spec.aggregates.iter().zip(&results) {
            if form.shown().field_with_name(&aggregate.name).is_ok() {
                return Err(super::wrong(format!("{:?} is a column of the rows: choose another name", aggregate.name)));
            }
            output.push(result_field(aggregate, &cells[*place], *mean));
        }
        let kept = match self.extent {
            None => Kept::All(cells.iter().map(CellSpec::cells).collect()),
            Some(extent) => Kept::Frames(Frames::new(extent, &cells)),
        };
        let keys = Keys::new(KeyForm::learn(&self.spec.keys, &empty)?);
        let output = Arc::new(Schema::new(output));
        self.state = Some(State { form: Arc::clone(form), cells, results, output, keys, kept });
        Ok(())
    }

    fn rows(&mut self, rows: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let values = state.cells.iter().map(|cell| cell.read(rows)).collect::<Result<Vec<_>, Error>>()?;
        let times = column::times(rows, TIME_COLUMN)?;
        state.keys.numbers(&state.keys.form.read(rows)?, &mut self.numbers, i64::MIN);
        state.keys.since.each(&self.numbers, |since, row| *since = times[row]);
        state.keys.touch(&self.numbers);
        let len = state.keys.table.len();
        let results: Vec<Results> = match &mut state.kept {
            Kept::All(cells) => {
                let each = cells.iter_mut().zip(&values).map(|(cells, values)| {
                    cells.grow(len);
                    cells.running(&self.numbers, values)
                });
                each.collect()
            }
            Kept::Frames(frames) => frames.rows(&self.numbers, len, &times, &values),
        };
        let mut columns = state.form.show(rows)?.columns().to_vec();
        for (place, mean) in &state.results {
            columns.push(results[*place].array(*mean, state.cells[*place].kind)?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&state.output), columns)?;
        let batch = match self.faults(&batch, &results, out)? {
            Some(left) => filter_record_batch(&batch, &left)?,
            None => batch,
        };
        out.rows(batch);
        Ok(())
    }

    fn passed(&mut self, _: i64, until: i64, _: &mut Out) -> Result<(), Error> {
        let (Some(state), Some(Extent::Nanos(before))) = (&mut self.state, self.extent) else { return Ok(()) };
        if !state.keys.sweeps(until, before / SWEEPS) {
            return Ok(());
        }
        let alive = state.keys.forget(|since| *since < until.saturating_sub(before));
        if let (Some(alive), Kept::Frames(frames)) = (alive, &mut state.kept) {
            *frames = frames.kept(&alive);
        }
        Ok(())
    }

    fn snapshot(&mut self, groups: KeyGroups, what: &str) -> Result<Vec<StateBlock>, Error> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let mut fields = state.keys.fields();
        match &state.kept {
            Kept::All(_) => {
                fields.extend(state.cells.iter().enumerate().flat_map(|(n, cell)| cell.stored(&stored_name(n, cell))));
            }
            Kept::Frames(_) => {
                fields.push(Field::new(TIME_COLUMN, INSTANT_TYPE, false));
                fields.extend(state.cells.iter().enumerate().filter_map(|(n, cell)| stored_field(n, cell)));
            }
        }
        let schema = Schema::new(fields);
        let content = |keys, piece, table: &str| -> Arc<dyn Frozen> {
            let kept = match &state.kept {
                Kept::All(cells) => Kept::All(cells.iter().map(|cells| cells.only(piece)).collect()),
                Kept::Frames(frames) => Kept::Frames(frames.only(piece)),
            };
            Arc::new(Piece { keys, kept, schema: stored_schema(&schema, table, what) })
        };
        Ok(state.keys.blocks(TABLE, groups, content))
    }

    fn restore(&mut self, _: &str, rows: &RecordBatch) -> Result<(), Error> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let numbers = state.keys.load(rows)?;
        let len = state.keys.table.len();
        match &mut state.kept {
            Kept::All(cells) => {
                let all: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
                for ((place, cell), cells) in state.cells.iter().enumerate().zip(cells) {
                    let name = stored_name(place, cell);
                    let fields = cell.stored(&name);
                    let stored = fields.iter().map(|field| rows.column_by_name(field.name()).cloned());
                    let stored: Option<Vec<ArrayRef>> = stored.collect();
                    let loaded = stored.and_then(|stored| cell.cells().load(&stored));
                    let loaded = loaded.ok_or_else(|| damaged(format!("{name:?} cannot be read")))?;
                    cells.grow(len);
                    cells.merge(&numbers, &loaded, &all);
                }
            }
            Kept::Frames(frames) => {
                let values = state.cells.iter().enumerate().map(|(place, cell)| stored_values(place, cell, rows));
                let values = values.collect::<Result<Vec<_>, Error>>()?;
                frames.rows(&numbers, len, &column::times(rows, TIME_COLUMN)?, &values);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let Some(state) = &self.state else { return 0 };
        let kept = match &state.kept {
            Kept::All(cells) => cells.iter().map(Cells::cell_bytes).sum::<usize>() * state.keys.table.len(),
            Kept::Frames(frames) => frames.bytes(),
        };
        state.keys.bytes() + kept
    }
}

fn stored_field(place: usize, cell: &CellSpec) -> Option<Field> {
    stored_kind(cell).map(|kind| Field::new(stored_name(place, cell), kind, true))
}

/// The values of a cell in stored rows.
fn stored_values(place: usize, cell: &CellSpec, rows: &RecordBatch) -> Result<Values, Error> {
    let Some(field) = stored_field(place, cell) else { return Ok(Values::Rows) };
    let array = column::column(rows, field.name())?;
    if array.data_type() != field.data_type() {
        return Err(damaged(format!("{:?} is {}", field.name(), array.data_type())));
    }
    Ok(match field.data_type() {
        DataType::Boolean => Values::Present(array.nulls().cloned()),
        DataType::Float64 => Values::Float(array.as_primitive::<Float64Type>().clone()),
        DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
        _ => Values::Int(array.as_primitive::<Int64Type>().clone()),
    })
}

/// A piece of what is kept on its way to storage.
#[derive(Debug)]
struct Piece {
    keys: KeysPiece,
    kept: Kept,
    schema: SchemaRef,
}

impl Frozen for Piece {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let columns = match &self.kept {
            Kept::All(cells) => {
                let all = self.keys.all();
                let mut columns = self.keys.columns(&all)?;
                for cells in cells {
                    columns.extend(cells.store(&all)?);
                }
                columns
            }
            Kept::Frames(frames) => {
                let (keys, times, values) = frames.stored();
                let mut columns = self.keys.columns(&keys)?;
                columns.push(Arc::new(TimestampNanosecondArray::from(times)));
                columns.extend(values);
                columns
            }
        };
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        StoredRows { schema: Arc::clone(&self.schema), rows }.encode()
    }

    fn bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::All(cells) => cells.iter().map(Cells::cell_bytes).sum::<usize>() * self.keys.table.len(),
            Kept::Frames(frames) => frames.bytes(),
        };
        self.keys.bytes() + kept
    }
}
