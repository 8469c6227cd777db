//! How results that change are told: what was, what is, and which rows lead from one to the other.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int8Array, RecordBatch, TimestampNanosecondArray},
    compute::{cast, interleave_record_batch},
    datatypes::{DataType, Field, Schema},
    row::{RowConverter, SortField},
};

use super::rows::State;
use crate::{
    CHANGE_COLUMN, Change, ChangelogMode, DeadLetter, Error, FaultKind, Out, ordered::PAGE_ROWS,
    window::results::Results,
};

/// What was told of some groups.
#[derive(Debug)]
pub(crate) struct Told {
    /// Whether anything was.
    pub(crate) shown: Vec<bool>,
    /// The columns of aggregates.
    pub(crate) columns: Vec<ArrayRef>,
}

/// Rows of groups as they are told, but for the change: each with the time of its last row, or of the watermark before, if that
/// is later.
pub(super) fn told(state: &State, groups: &[u32], columns: Vec<ArrayRef>, from: i64) -> Result<RecordBatch, Error> {
    let times = groups.iter().map(|group| (*state.keys.since.get(*group)).max(from));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(times));
    let mut all = vec![cast(&times, state.output.field(0).data_type())?];
    all.extend(state.keys.table.columns(groups)?);
    all.extend(columns);
    Ok(RecordBatch::try_new(Arc::clone(&state.output), all)?)
}

/// Tells how groups changed, in order; answers how many have no rows any more.
pub(super) fn tell(
    state: &mut State,
    (groups, before): (&[u32], Told),
    (mode, from): (ChangelogMode, i64),
    (operator, gone): (&str, bool),
    out: &mut Out,
) -> Result<usize, Error> {
    let results = state.columns.results(groups);
    let after = Told { shown: state.shown(&results, gone), columns: state.arrays(&results)? };
    let steps = steps(mode, &before, &after)?;
    let (old, new) = (told(state, groups, before.columns, from)?, told(state, groups, after.columns, from)?);
    faults(state, &results, &new, operator, out)?;
    give(&[&old, &new], &steps, out)?;
    let Some(Results::Counts(rows)) = results.first() else { return Ok(0) };
    let empty = groups.iter().zip(rows).filter(|(_, rows)| **rows == 0);
    let empty: Vec<u32> = empty.map(|(group, _)| *group).collect();
    empty.iter().for_each(|group| *state.keys.since.get_mut(*group) = i64::MIN);
    state.keys.touch(&empty);
    Ok(empty.len())
}

/// Sums beyond 64 bits of groups that have rows.
fn faults(state: &State, results: &[Results], new: &RecordBatch, operator: &str, out: &mut Out) -> Result<(), Error> {
    let Some(Results::Counts(rows)) = results.first() else { return Ok(()) };
    for (aggregate, (place, _)) in state.results.iter().enumerate().filter(|(_, (_, mean))| !mean) {
        for row in (0..rows.len()).filter(|row| rows[*row] > 0 && results[*place].overflows(*row)) {
            let column = state.output.fields().len() - state.results.len() + aggregate;
            let detail = format!("{:?} is beyond 64 bits", state.output.field(column).name());
            out.dead(DeadLetter::of(FaultKind::Overflow, &detail, operator, new, row)?)?;
        }
    }
    Ok(())
}

/// Which row of which batch (0: what was, 1: what is) comes, and as what.
pub(crate) type Step = ((usize, usize), Change);

/// The rows that lead from what was to what is.
pub(crate) fn steps(mode: ChangelogMode, before: &Told, after: &Told) -> Result<Vec<Step>, Error> {
    let fields = after.columns.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let (old, new) = (converter.convert_columns(&before.columns)?, converter.convert_columns(&after.columns)?);
    let mut steps = Vec::with_capacity(after.shown.len());
    for (row, shown) in before.shown.iter().zip(&after.shown).enumerate() {
        match shown {
            (false, true) => steps.push(((1, row), Change::Insert)),
            (true, false) => steps.push(((0, row), Change::Delete)),
            (true, true) if old.row(row) != new.row(row) => {
                if mode == ChangelogMode::Retract {
                    steps.push(((0, row), Change::UpdateBefore));
                }
                steps.push(((1, row), Change::UpdateAfter));
            }
            _ => {}
        }
    }
    Ok(steps)
}

/// Gives these rows on with their changes, in batches that hold both halves of an update.
pub(crate) fn give(batches: &[&RecordBatch], steps: &[Step], out: &mut Out) -> Result<(), Error> {
    let Some(schema) = batches.first().map(|batch| batch.schema()) else { return Ok(()) };
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(CHANGE_COLUMN, DataType::Int8, false));
    let schema = Arc::new(Schema::new(fields));
    let mut rest = steps;
    while !rest.is_empty() {
        let mut end = rest.len().min(PAGE_ROWS);
        if rest[end - 1].1 == Change::UpdateBefore {
            end = (end + 1).min(rest.len());
        }
        let (page, behind) = rest.split_at(end);
        let places: Vec<(usize, usize)> = page.iter().map(|(place, _)| *place).collect();
        let mut columns = interleave_record_batch(batches, &places)?.columns().to_vec();
        columns.push(Arc::new(page.iter().map(|(_, change)| change.code()).collect::<Int8Array>()));
        out.rows(RecordBatch::try_new(Arc::clone(&schema), columns)?);
        rest = behind;
    }
    Ok(())
}
