//! `facet(text, keep)`: how often a field has which value, as an aggregate of SQL.

use std::collections::HashMap;

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{DataType, FieldRef, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

use crate::Figures;

/// Different values of one field that are counted; others are not told apart any more.
pub const FACET_VALUES_MAX: usize = 10_000;
/// Bytes of the values of one field that are counted.
const BYTES_MAX: usize = 1 << 20;
/// The longest value that is counted.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// What an entry of the table takes besides its text, about.
const ENTRY_BYTES: usize = 48;

/// What is told about one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facet {
    /// How many rows have the field.
    pub rows: u64,
    /// How many different values it has; at least, where it is not complete.
    pub distinct: u64,
    /// Whether every value was counted.
    pub is_complete: bool,
    /// The commonest values, with how many rows have each; where it is not complete, at least so many.
    pub values: Vec<(String, u64)>,
}

impl Facet {
    /// Reads the value of the aggregate.
    pub fn read(column: &ArrayRef, row: usize) -> Option<Self> {
        let Figures { texts, numbers } = Figures::read(column, row)?;
        let [rows, distinct, left, counts @ ..] = numbers.as_slice() else { return None };
        let whole = |number: &i64| u64::try_from(*number).unwrap_or_default();
        let values = texts.into_iter().zip(counts.iter().map(whole)).collect();
        Some(Self { rows: whole(rows), distinct: whole(distinct), is_complete: *left == 0, values })
    }
}

/// The aggregate `facet(text, keep)`, which [`Facet::read`] reads: the commonest so many values and their counts.
///
/// Bounds: [`FACET_VALUES_MAX`] values and 1 MiB of them, each at most 1 KiB long; what finds no room counts as a row, and
/// the answer says that it is not complete.
pub(crate) fn facet() -> AggregateUDF {
    let signature = Signature::exact(vec![DataType::Utf8, DataType::Int64], Volatility::Immutable);
    AggregateUDF::from(FacetOf { signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FacetOf {
    signature: Signature,
}

impl AggregateUDFImpl for FacetOf {
    fn name(&self) -> &'static str {
        "facet"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(Figures::data_type())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Counting>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(Figures::state_fields(args.name))
    }
}

#[derive(Debug, Default)]
struct Counting {
    rows: u64,
    /// Rows whose value found no room.
    left: u64,
    values: HashMap<Box<str>, u64>,
    bytes: usize,
    keep: usize,
}

impl Counting {
    fn count(&mut self, value: &str, rows: u64) {
        if let Some(count) = self.values.get_mut(value) {
            *count += rows;
            return;
        }
        let has_room = self.values.len() < FACET_VALUES_MAX
            && value.len() <= VALUE_BYTES_MAX
            && self.bytes + value.len() <= BYTES_MAX;
        if has_room {
            self.bytes += value.len();
            self.values.insert(value.into(), rows);
        } else {
            self.left += rows;
        }
    }

    /// The commonest values, the smaller one first where two are equally common.
    fn figures(&self, keep: usize) -> Figures {
        let mut values: Vec<(&str, u64)> = self.values.iter().map(|(value, count)| (&**value, *count)).collect();
        values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        values.truncate(keep);
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let distinct = u64::try_from(self.values.len()).unwrap_or(u64::MAX);
        let head = [self.rows, distinct, self.left].map(number);
        let counts = values.iter().map(|(_, count)| number(*count));
        Figures {
            numbers: head.into_iter().chain(counts).collect(),
            texts: values.iter().map(|(value, _)| (*value).to_owned()).collect(),
        }
    }
}

impl Accumulator for Counting {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let wrong = || exec_datafusion_err!("facet() takes a text and a number");
        let [texts, keep] = values else { return Err(wrong()) };
        let (texts, keep) = texts.as_string_opt::<i32>().zip(keep.as_primitive_opt::<Int64Type>()).ok_or_else(wrong)?;
        if let Some(keep) = keep.values().first() {
            self.keep = usize::try_from(*keep).unwrap_or_default();
        }
        for text in texts.iter().flatten() {
            self.rows += 1;
            self.count(text, 1);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.figures(self.keep).value()
    }

    fn size(&self) -> usize {
        self.bytes + self.values.capacity() * ENTRY_BYTES
    }

    /// All values, and at the end of the numbers how many are kept.
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut figures = self.figures(usize::MAX);
        figures.numbers.push(i64::try_from(self.keep).unwrap_or(i64::MAX));
        figures.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for Figures { texts, numbers } in Figures::parts(states)? {
            let [rows, _, left, counts @ .., keep] = numbers.as_slice() else { continue };
            let whole = |number: &i64| u64::try_from(*number).unwrap_or_default();
            self.rows += whole(rows);
            self.left += whole(left);
            self.keep = self.keep.max(usize::try_from(*keep).unwrap_or_default());
            texts.iter().zip(counts).for_each(|(text, count)| self.count(text, whole(count)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn part(values: &[Option<String>], keep: i64) -> Counting {
        let mut part = Counting::default();
        let keep = Arc::new(Int64Array::from(vec![keep; values.len()]));
        part.update_batch(&[Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>()), keep]).unwrap();
        part
    }

    fn merged(parts: &[&[Option<String>]], keep: i64) -> Facet {
        let mut whole = Counting::default();
        for values in parts {
            let state = part(values, keep).state().unwrap();
            let state: Vec<ArrayRef> = state.iter().map(|value| value.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        Facet::read(&whole.evaluate().unwrap().to_array().unwrap(), 0).unwrap()
    }

    #[test]
    fn what_finds_no_room_is_said() {
        let value = |i: usize| Some(format!("v{i}"));
        let many: Vec<_> = (0..FACET_VALUES_MAX + 5).map(value).chain([value(3), None]).collect();
        let found = merged(&[&many], 2);
        let distinct = u64::try_from(FACET_VALUES_MAX).unwrap();
        assert_eq!((found.rows, found.distinct, found.is_complete), (distinct + 6, distinct, false));
        assert_eq!(found.values, [("v3".to_owned(), 2), ("v0".to_owned(), 1)]);
        let long = vec![Some("x".repeat(VALUE_BYTES_MAX + 1)), value(1)];
        let found = merged(&[&long, &[None]], 9);
        assert_eq!((found.rows, found.distinct, found.is_complete), (2, 1, false));
        assert_eq!(merged(&[], 9), Facet { is_complete: true, ..Facet::default() });
    }

    proptest! {
        /// However rows are spread over parts, each value is counted once.
        #[test]
        fn parts_are_the_whole(values in prop::collection::vec(prop::option::of("[a-e]{0,2}"), 0..60), cut in 0_usize..60) {
            let (first, second) = values.split_at(cut.min(values.len()));
            let found = merged(&[second, first], 1_000);
            let mut expected = HashMap::<&str, u64>::new();
            values.iter().flatten().for_each(|value| *expected.entry(value).or_default() += 1);
            prop_assert_eq!(found.rows, expected.values().sum::<u64>());
            prop_assert!(found.is_complete);
            prop_assert_eq!(found.distinct, u64::try_from(expected.len()).unwrap());
            let counted: HashMap<&str, u64> = found.values.iter().map(|(value, count)| (value.as_str(), *count)).collect();
            prop_assert_eq!(counted, expected);
            prop_assert!(found.values.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
        }
    }
}
