//! Rows with the version of a key that was valid at their time.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, UInt64Array},
    compute::max,
    datatypes::{Field, Int8Type, Int64Type, Schema},
};

use super::{JoinType, operator::State, page::Row, side::Side};
use crate::{CHANGE_COLUMN, Change, Error, OFFSET_COLUMN, Out, SPLIT_COLUMN, kept::Stamps};

/// The index of the right side holds of each key the version that is valid now.
#[derive(Debug, Default)]
pub(super) struct Temporal {
    /// How many changes came that have no place in a split: theirs is the order in which they come, which a key's rows keep on
    /// their way.
    arrived: i64,
}

fn wrong_change(found: String) -> Error {
    let wanted = "Int8 codes of changes, never null".to_owned();
    Error::ColumnType { column: CHANGE_COLUMN.to_owned(), found, wanted }
}

impl Temporal {
    /// The rows of the right side, with what each does, and a place where changes have none.
    pub(super) fn versions(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let schema = batch.schema();
        let rows = batch.num_rows();
        let (mut fields, mut columns) = (schema.fields().to_vec(), batch.columns().to_vec());
        let mut add = |name: &str, array: ArrayRef| {
            fields.push(Arc::new(Field::new(name, array.data_type().clone(), false)));
            columns.push(array);
        };
        match batch.column_by_name(CHANGE_COLUMN).map(|array| (array, array.as_primitive_opt::<Int8Type>())) {
            None => add(CHANGE_COLUMN, Arc::new(Int8Array::from(vec![Change::Insert.code(); rows]))),
            Some((_, Some(codes))) if codes.null_count() == 0 => {
                if let Some(code) = codes.values().iter().find(|code| Change::of(**code).is_none()) {
                    return Err(wrong_change(format!("the code {code} of a later release")));
                }
                if schema.index_of(SPLIT_COLUMN).is_err() && schema.index_of(OFFSET_COLUMN).is_err() {
                    let last = self.arrived.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
                    add(SPLIT_COLUMN, Arc::new(UInt64Array::from(vec![0; rows])));
                    add(OFFSET_COLUMN, Arc::new(Int64Array::from_iter_values(self.arrived..last)));
                    self.arrived = last;
                }
            }
            Some((array, _)) => return Err(wrong_change(array.data_type().to_string())),
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    pub(super) fn step(&mut self, state: &mut State, until: i64, out: &mut Out) -> Result<(), Error> {
        let State { sides, page, spec, stamps, .. } = state;
        let [left_side, right_side] = &mut *sides;
        let lefts = left_side.advance(until, stamps)?;
        let mut rights = right_side.advance(until, stamps)?.peekable();
        for left in lefts {
            let own = sides[0].log.place(left);
            let time = sides[0].log.time(own);
            while let Some(right) = rights.next_if(|right| sides[1].log.time(sides[1].log.place(*right)) <= time) {
                apply(&mut sides[1], right, stamps)?;
            }
            let version = sides[1].partners(&sides[0], own, (i64::MIN, i64::MAX)).next();
            let row = Row { time, left: Some(left), right: version };
            match (spec.how, version) {
                (JoinType::Anti, None) | (JoinType::Left | JoinType::Full, _) => page.push(spec, sides, row, out)?,
                (JoinType::Inner | JoinType::Right, Some(_)) => page.push(spec, sides, row, out)?,
                (JoinType::Semi, Some(_)) => page.push(spec, sides, Row { right: None, ..row }, out)?,
                (JoinType::Inner | JoinType::Right | JoinType::Semi, None) | (JoinType::Anti, Some(_)) => {}
            }
        }
        rights.try_for_each(|right| apply(&mut sides[1], right, stamps))
    }

    /// Finds out from the stored rows which versions are valid.
    pub(super) fn resume(&mut self, state: &mut State) -> Result<(), Error> {
        let State { sides: [_, side], stamps, .. } = state;
        for batch in side.pending.batches().map(|(batch, _)| batch).chain(side.log.batches().map(|(batch, ..)| batch)) {
            let last =
                batch.column_by_name(OFFSET_COLUMN).and_then(|array| max(array.as_primitive_opt::<Int64Type>()?));
            self.arrived = self.arrived.max(last.map_or(0, |last| last.saturating_add(1)));
        }
        (side.log.first()..side.log.next()).try_for_each(|seq| apply(side, seq, stamps))
    }
}

/// Drops what has met, and versions that are not valid any more.
pub(super) fn drop(state: &mut State) -> Result<(), Error> {
    let State { sides: [left, right], stamps, .. } = state;
    left.drop_before(left.log.next());
    right.log.sweep(&right.form, stamps)
}

/// A row of the right side has its turn.
fn apply(side: &mut Side, seq: u64, stamps: &mut Stamps) -> Result<(), Error> {
    let place = side.log.place(seq);
    let codes = side
        .log
        .column(place, CHANGE_COLUMN)
        .and_then(|(array, row)| Some((array.as_primitive_opt::<Int8Type>()?, row)));
    let code = codes.map(|(codes, row)| codes.value(row)).ok_or_else(|| wrong_change("missing".to_owned()))?;
    let change = Change::of(code).ok_or_else(|| wrong_change(format!("the code {code} of a later release")))?;
    if change == Change::UpdateBefore {
        // What replaces it comes right behind it.
        side.log.mark(place, stamps);
        return Ok(());
    }
    let before = side.partners(side, place, (i64::MIN, i64::MAX)).next();
    if let Some(before) = before {
        let place = side.log.place(before);
        side.index.remove(side.log.hash(place), before);
        side.log.mark(place, stamps);
    }
    if change == Change::Delete || side.log.null_key(place) {
        side.log.mark(place, stamps);
    } else {
        side.enter(seq);
    }
    Ok(())
}
