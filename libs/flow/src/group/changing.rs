//! Aggregates from which rows can be taken away again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array, Int64Builder, ListArray, ListBuilder,
        StringBuilder,
    },
    datatypes::{DataType, Decimal128Type, Field, Int64Type},
};

use crate::{
    ValueType as V,
    over::totals::{FloatTotal, IntTotal},
    window::{
        cells::{CellSpec, Values, What},
        chunk::Chunked,
        exact::ExactSum,
        results::Results,
    },
};

/// Whole-number sums are stored as an i128 that every reader of Arrow understands.
const WIDE: DataType = DataType::Decimal128(38, 0);
/// Bytes of a value that the ends of a group remember.
const VALUE_BYTES: usize = 32;

/// How often each value is there; one that was taken away before it came counts less than never.
type Bag<T> = BTreeMap<T, i64>;

/// What the values of a bag are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    least: bool,
    float: bool,
}

/// One column of cells.
#[derive(Debug, Clone)]
pub(crate) enum Changing {
    Count(Chunked<i64>),
    Int(Chunked<IntTotal>),
    Float(Chunked<FloatTotal>),
    /// Whole numbers, instants, booleans, and floats by their total order.
    Ends(Chunked<Bag<i64>>, End),
    TextEnds(Chunked<Bag<Arc<str>>>, bool),
}

/// Floats as whole numbers in their total order; it is its own inverse.
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn float(key: i64) -> f64 {
    f64::from_bits(ordered(key).cast_unsigned())
}

/// Changes how often a value is there; answers by how many the bag grew.
fn change<T: Ord>(bag: &mut Bag<T>, value: T, times: i64) -> isize {
    match bag.entry(value) {
        Entry::Vacant(place) => {
            place.insert(times);
            1
        }
        Entry::Occupied(mut place) => {
            *place.get_mut() += times;
            if *place.get() != 0 {
                return 0;
            }
            place.remove();
            -1
        }
    }
}

fn end<T>(bag: &Bag<T>, least: bool) -> Option<&T> {
    let there = |(value, count): (_, &i64)| (*count > 0).then_some(value);
    if least { bag.iter().find_map(there) } else { bag.iter().rev().find_map(there) }
}

impl Changing {
    pub(crate) fn new(cell: &CellSpec) -> Self {
        let least = cell.what == What::Least;
        match (cell.what, cell.kind) {
            (What::Rows | What::Present, _) | (_, None) => Self::Count(Chunked::default()),
            (What::Sum, Some(V::Float)) => Self::Float(Chunked::default()),
            (What::Sum, _) => Self::Int(Chunked::default()),
            (_, Some(V::Text)) => Self::TextEnds(Chunked::default(), least),
            (_, kind) => Self::Ends(Chunked::default(), End { least, float: kind == Some(V::Float) }),
        }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            Self::Count(cells) => cells.grow(groups, &0),
            Self::Int(cells) => cells.grow(groups, &IntTotal::default()),
            Self::Float(cells) => cells.grow(groups, &FloatTotal::default()),
            Self::Ends(cells, _) => cells.grow(groups, &Bag::new()),
            Self::TextEnds(cells, _) => cells.grow(groups, &Bag::new()),
        }
    }

    /// Adds values to the groups beside them, or takes them away, as `signs` say: 1 or -1. Answers by how many bytes it grew.
    pub(crate) fn update(&mut self, groups: &[u32], signs: &[i64], values: &Values) -> isize {
        let nulls = values.nulls();
        let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        let mut grown = 0;
        match (self, values) {
            (Self::Count(cells), _) => cells.each(groups, |cell, row| {
                *cell += if valid(row) { signs[row] } else { 0 };
            }),
            (Self::Int(cells), Values::Int(array)) => cells.each(groups, |cell, row| {
                if valid(row) {
                    cell.add(array.value(row), signs[row]);
                }
            }),
            (Self::Float(cells), Values::Float(array)) => cells.each(groups, |cell, row| {
                if valid(row) {
                    cell.add(array.value(row), signs[row]);
                }
            }),
            (Self::Ends(cells, _), Values::Int(array)) => cells.each(groups, |cell, row| {
                if valid(row) {
                    grown += change(cell, array.value(row), signs[row]);
                }
            }),
            (Self::Ends(cells, _), Values::Float(array)) => cells.each(groups, |cell, row| {
                if valid(row) {
                    grown += change(cell, ordered(array.value(row).to_bits().cast_signed()), signs[row]);
                }
            }),
            (Self::TextEnds(cells, _), Values::Text(array)) => cells.each(groups, |cell, row| {
                if valid(row) {
                    grown += change(cell, Arc::from(array.value(row)), signs[row]);
                }
            }),
            // Values are read in the kind that the cells were made for.
            _ => debug_assert!(false, "cells and values of different kinds"),
        }
        grown * VALUE_BYTES.cast_signed()
    }

    /// The results of these groups.
    pub(crate) fn results(&self, groups: &[u32]) -> Results {
        let each = || groups.iter().copied();
        match self {
            Self::Count(cells) => Results::Counts(each().map(|g| *cells.get(g)).collect()),
            Self::Int(cells) => Results::Ints(each().map(|g| (cells.get(g).sum, cells.get(g).count)).collect()),
            Self::Float(cells) => Results::Floats(each().map(|g| (cells.get(g).value(), cells.get(g).count)).collect()),
            Self::Ends(cells, End { least, float: false }) => {
                Results::IntEnds(each().map(|g| end(cells.get(g), *least).copied()).collect())
            }
            Self::Ends(cells, End { least, .. }) => {
                Results::FloatEnds(each().map(|g| end(cells.get(g), *least).map(|key| float(*key))).collect())
            }
            Self::TextEnds(cells, least) => {
                Results::TextEnds(each().map(|g| end(cells.get(g), *least).cloned()).collect())
            }
        }
    }

    /// Empties a cell.
    pub(crate) fn clear(&mut self, group: u32) {
        match self {
            Self::Count(cells) => *cells.get_mut(group) = 0,
            Self::Int(cells) => *cells.get_mut(group) = IntTotal::default(),
            Self::Float(cells) => *cells.get_mut(group) = FloatTotal::default(),
            Self::Ends(cells, _) => cells.get_mut(group).clear(),
            Self::TextEnds(cells, _) => cells.get_mut(group).clear(),
        }
    }

    pub(crate) fn kept(&self, groups: &[u32]) -> Self {
        match self {
            Self::Count(cells) => Self::Count(cells.kept(groups)),
            Self::Int(cells) => Self::Int(cells.kept(groups)),
            Self::Float(cells) => Self::Float(cells.kept(groups)),
            Self::Ends(cells, end) => Self::Ends(cells.kept(groups), *end),
            Self::TextEnds(cells, least) => Self::TextEnds(cells.kept(groups), *least),
        }
    }

    pub(crate) fn only(&self, piece: usize) -> Self {
        match self {
            Self::Count(cells) => Self::Count(cells.only(piece)),
            Self::Int(cells) => Self::Int(cells.only(piece)),
            Self::Float(cells) => Self::Float(cells.only(piece)),
            Self::Ends(cells, end) => Self::Ends(cells.only(piece), *end),
            Self::TextEnds(cells, least) => Self::TextEnds(cells.only(piece), *least),
        }
    }

    /// About how many bytes a cell takes beside the values of its bag.
    pub(crate) fn cell_bytes(&self) -> usize {
        match self {
            Self::Count(_) => 8,
            Self::Int(_) => 32,
            Self::Float(_) => 120,
            Self::Ends(..) | Self::TextEnds(..) => 24,
        }
    }

    /// Bytes of all values in bags.
    pub(crate) fn bag_bytes(&self) -> usize {
        VALUE_BYTES
            * match self {
                Self::Ends(cells, _) => cells.iter().map(BTreeMap::len).sum(),
                Self::TextEnds(cells, _) => cells.iter().map(BTreeMap::len).sum(),
                _ => 0,
            }
    }

    /// The columns that hold the cells in a block, named after that.
    pub(crate) fn stored(&self, name: &str) -> Vec<Field> {
        let field = |part: &str, kind| Field::new(format!("{name}.{part}"), kind, false);
        let count = |part: &str| field(part, DataType::Int64);
        let list = |part: &str, kind| field(part, DataType::List(Arc::new(Field::new_list_field(kind, true))));
        match self {
            Self::Count(_) => vec![count("count")],
            Self::Int(_) => vec![count("count"), field("sum", WIDE)],
            Self::Float(_) => {
                vec![count("count"), field("exact", DataType::Binary), count("nan"), count("up"), count("down")]
            }
            Self::Ends(..) => vec![list("values", DataType::Int64), list("times", DataType::Int64)],
            Self::TextEnds(..) => vec![list("values", DataType::Utf8), list("times", DataType::Int64)],
        }
    }

    /// The cells of these groups, in the order of [`Changing::stored`].
    pub(crate) fn store(&self, groups: &[u32]) -> Vec<ArrayRef> {
        fn ints<T: Clone>(cells: &Chunked<T>, groups: &[u32], of: impl Fn(&T) -> i64) -> ArrayRef {
            Arc::new(groups.iter().map(|group| of(cells.get(*group))).collect::<Int64Array>())
        }
        fn times<T: Clone>(cells: &Chunked<Bag<T>>, groups: &[u32]) -> ArrayRef {
            let mut list = ListBuilder::new(Int64Builder::new());
            groups.iter().for_each(|group| list.append_value(cells.get(*group).values().map(|times| Some(*times))));
            Arc::new(list.finish())
        }
        match self {
            Self::Count(cells) => vec![ints(cells, groups, |count| *count)],
            Self::Int(cells) => {
                let sums = groups.iter().map(|group| cells.get(*group).sum);
                let sums = Decimal128Array::from_iter_values(sums).with_data_type(WIDE);
                vec![ints(cells, groups, |total| total.count), Arc::new(sums)]
            }
            Self::Float(cells) => {
                let exact = groups.iter().map(|group| cells.get(*group).sum.to_bytes());
                vec![
                    ints(cells, groups, |total| total.count),
                    Arc::new(BinaryArray::from_iter_values(exact)),
                    ints(cells, groups, |total| total.nan),
                    ints(cells, groups, |total| total.up),
                    ints(cells, groups, |total| total.down),
                ]
            }
            Self::Ends(cells, _) => {
                let mut list = ListBuilder::new(Int64Builder::new());
                groups.iter().for_each(|group| list.append_value(cells.get(*group).keys().map(|key| Some(*key))));
                vec![Arc::new(list.finish()), times(cells, groups)]
            }
            Self::TextEnds(cells, _) => {
                let mut list = ListBuilder::new(StringBuilder::new());
                groups.iter().for_each(|group| list.append_value(cells.get(*group).keys().map(|key| Some(&**key))));
                vec![Arc::new(list.finish()), times(cells, groups)]
            }
        }
    }

    /// Puts stored cells in the places of these groups; `None` if they cannot be read.
    pub(crate) fn load(&mut self, groups: &[u32], stored: &[ArrayRef]) -> Option<()> {
        let ints = |place: usize| stored.get(place)?.as_primitive_opt::<Int64Type>();
        let lists = |place: usize| stored.get(place)?.as_list_opt::<i32>();
        match self {
            Self::Count(cells) => {
                let counts = ints(0)?;
                cells.each(groups, |cell, row| *cell = counts.value(row));
            }
            Self::Int(cells) => {
                let (counts, sums) = (ints(0)?, stored.get(1)?.as_primitive_opt::<Decimal128Type>()?);
                cells.each(groups, |cell, row| *cell = IntTotal { sum: sums.value(row), count: counts.value(row) });
            }
            Self::Float(cells) => {
                let (counts, nans, ups, downs) = (ints(0)?, ints(2)?, ints(3)?, ints(4)?);
                let exact = stored.get(1)?.as_binary_opt::<i32>()?;
                let sums = exact.iter().map(|bytes| ExactSum::from_bytes(bytes?)).collect::<Option<Vec<_>>>()?;
                cells.each(groups, |cell, row| {
                    let (count, nan, up, down) = (counts.value(row), nans.value(row), ups.value(row), downs.value(row));
                    *cell = FloatTotal { sum: sums[row].clone(), count, nan, up, down };
                });
            }
            Self::Ends(cells, _) => {
                let bags = bags(lists(0)?, lists(1)?, |values| {
                    Some(values.as_primitive_opt::<Int64Type>()?.values().to_vec())
                })?;
                cells.each(groups, |cell, row| cell.clone_from(&bags[row]));
            }
            Self::TextEnds(cells, _) => {
                let bags = bags(lists(0)?, lists(1)?, |values| {
                    Some(values.as_string_opt::<i32>()?.iter().flatten().map(Arc::from).collect())
                })?;
                cells.each(groups, |cell, row| cell.clone_from(&bags[row]));
            }
        }
        Some(())
    }
}

/// Stored bags.
fn bags<T: Ord>(
    values: &ListArray,
    times: &ListArray,
    read: impl Fn(&ArrayRef) -> Option<Vec<T>>,
) -> Option<Vec<Bag<T>>> {
    let bag = |row: usize| {
        let (values, times) = (read(&values.value(row))?, times.value(row));
        let times = times.as_primitive_opt::<Int64Type>()?;
        (values.len() == times.len()).then(|| values.into_iter().zip(times.values().iter().copied()).collect())
    };
    (0..values.len().min(times.len())).map(bag).collect()
}
