//! Aggregates as typed columns: one cell per group, that can be added to, merged, stored and shared.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    },
    buffer::NullBuffer,
    compute::cast,
    datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type},
};

use super::{
    chunk::{Chunked, at},
    exact::ExactSum,
    results::Results,
    spec::{AggregateFunction, AggregateSpec},
};
use crate::{Error, INSTANT_TYPE, ValueType, column};

/// What a whole-number sum is stored as: an i128 that every reader of Arrow understands.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// What cells hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Rows,
    Present,
    Sum,
    Least,
    Most,
}

/// One column of cells; several aggregates may read the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellSpec {
    pub(crate) what: What,
    pub(crate) column: Option<String>,
    /// None where only rows are counted.
    pub(crate) kind: Option<ValueType>,
}

impl CellSpec {
    /// The rows of a group.
    pub(crate) const ROWS: Self = Self { what: What::Rows, column: None, kind: None };

    /// What an aggregate needs; of the declared type, or that of the first batch.
    pub(crate) fn learn(spec: &AggregateSpec, batch: &RecordBatch) -> Result<Self, Error> {
        use AggregateFunction as F;
        let what = match spec.function {
            F::CountAll => return Ok(Self::ROWS),
            F::Count => What::Present,
            F::Sum | F::Avg => What::Sum,
            F::Min => What::Least,
            F::Max => What::Most,
        };
        let Some(name) = &spec.column else { return Ok(Self::ROWS) };
        let found = column::column(batch, name)?;
        let kind = match what {
            What::Rows | What::Present => None,
            _ => Some(spec.kind.map_or_else(|| kind_of(found.data_type(), name), Ok)?),
        };
        if what == What::Sum && !matches!(kind, Some(ValueType::Integer | ValueType::Float)) {
            let (found, wanted) = (found.data_type().to_string(), "a number to be summed".to_owned());
            return Err(Error::ColumnType { column: name.clone(), found, wanted });
        }
        Ok(Self { what, column: Some(name.clone()), kind })
    }

    /// The column's values in a batch.
    pub(crate) fn read(&self, batch: &RecordBatch) -> Result<Values, Error> {
        let Some(name) = &self.column else { return Ok(Values::Rows) };
        let array = column::column(batch, name)?;
        let Some(kind) = self.kind else { return Ok(Values::Present(array.logical_nulls())) };
        let learnt = data_type(kind);
        let as_kind = |array: &ArrayRef| -> Result<ArrayRef, Error> {
            let array = match array.data_type() {
                DataType::Dictionary(_, values) => cast(array, values)?,
                _ => Arc::clone(array),
            };
            let array = match kind {
                ValueType::Integer | ValueType::Float if array.data_type() != &learnt => column::number(&array, name)?,
                ValueType::Text => column::key(&array, name)?,
                _ if matches!((array.data_type(), kind), (DataType::Timestamp(..), ValueType::Time)) => {
                    cast(&array, &learnt)?
                }
                _ => array,
            };
            column::as_learnt(array, &learnt, name)
        };
        let array = as_kind(array)?;
        Ok(match kind {
            ValueType::Float => Values::Float(array.as_primitive::<Float64Type>().clone()),
            ValueType::Text => Values::Text(array.as_string::<i32>().clone()),
            ValueType::Integer => Values::Int(array.as_primitive::<Int64Type>().clone()),
            ValueType::Boolean | ValueType::Time => {
                Values::Int(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
        })
    }

    /// Empty cells.
    pub(crate) fn cells(&self) -> Cells {
        use ValueType as V;
        match (self.what, self.kind) {
            (What::Rows | What::Present, _) | (_, None) => Cells::Count(Chunked::default()),
            (What::Sum, Some(V::Float)) => Cells::FloatSum(Chunked::default()),
            (What::Sum, _) => Cells::IntSum(Chunked::default()),
            (_, Some(V::Float)) => Cells::FloatEnd(Chunked::default(), self.what == What::Least),
            (_, Some(V::Text)) => Cells::TextEnd(Chunked::default(), self.what == What::Least),
            _ => Cells::IntEnd(Chunked::default(), self.what == What::Least),
        }
    }

    /// The columns that hold the cells in a block, named after that.
    pub(crate) fn stored(&self, name: &str) -> Vec<Field> {
        let field = |part: &str, kind, nullable| Field::new(format!("{name}.{part}"), kind, nullable);
        let count = || field("count", DataType::Int64, false);
        match self.cells() {
            Cells::Count(_) => vec![count()],
            Cells::IntSum(_) => vec![count(), field("sum", WIDE, false)],
            Cells::FloatSum(_) => vec![count(), field("exact", DataType::Binary, false)],
            Cells::IntEnd(..) => vec![field("value", DataType::Int64, true)],
            Cells::FloatEnd(..) => vec![field("value", DataType::Float64, true)],
            Cells::TextEnd(..) => vec![field("value", DataType::Utf8, true)],
        }
    }
}

fn kind_of(found: &DataType, name: &str) -> Result<ValueType, Error> {
    use DataType as T;
    match found {
        T::Utf8 | T::Utf8View | T::LargeUtf8 => Ok(ValueType::Text),
        T::Timestamp(..) => Ok(ValueType::Time),
        T::Boolean => Ok(ValueType::Boolean),
        T::Float16 | T::Float32 | T::Float64 => Ok(ValueType::Float),
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Null => Ok(ValueType::Integer),
        T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => Ok(ValueType::Integer),
        T::Dictionary(_, values) => kind_of(values, name),
        other => Err(Error::ColumnType {
            column: name.to_owned(),
            found: other.to_string(),
            wanted: "a number, text, boolean or time".to_owned(),
        }),
    }
}

/// How values of a type lie in a batch.
pub(crate) fn data_type(kind: ValueType) -> DataType {
    match kind {
        ValueType::Integer => DataType::Int64,
        ValueType::Float => DataType::Float64,
        ValueType::Text => DataType::Utf8,
        ValueType::Boolean => DataType::Boolean,
        ValueType::Time => INSTANT_TYPE,
    }
}

/// The values of one column of a batch.
#[derive(Debug)]
pub(crate) enum Values {
    Rows,
    Present(Option<NullBuffer>),
    Int(Int64Array),
    Float(Float64Array),
    Text(StringArray),
}

impl Values {
    pub(crate) fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Self::Rows => None,
            Self::Present(nulls) => nulls.as_ref(),
            Self::Int(array) => array.nulls(),
            Self::Float(array) => array.nulls(),
            Self::Text(array) => array.nulls(),
        }
    }
}

/// A sum and of how many values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum<T> {
    sum: T,
    count: i64,
}

/// One column of cells.
#[derive(Debug, Clone)]
pub(crate) enum Cells {
    Count(Chunked<i64>),
    IntSum(Chunked<Sum<i128>>),
    FloatSum(Chunked<Sum<ExactSum>>),
    /// Whole numbers, instants and booleans; the least, or the most.
    IntEnd(Chunked<Option<i64>>, bool),
    FloatEnd(Chunked<Option<f64>>, bool),
    TextEnd(Chunked<Option<Arc<str>>>, bool),
}

fn int_end(cell: &mut Option<i64>, new: i64, least: bool) {
    if cell.is_none_or(|old| if least { new < old } else { new > old }) {
        *cell = Some(new);
    }
}

fn float_end(cell: &mut Option<f64>, new: f64, least: bool) {
    if cell.is_none_or(|old| if least { new.total_cmp(&old).is_lt() } else { new.total_cmp(&old).is_gt() }) {
        *cell = Some(new);
    }
}

/// Whether a text takes the place of the one before.
fn text_wins(cell: Option<&str>, new: &str, least: bool) -> bool {
    cell.is_none_or(|old| if least { new < old } else { new > old })
}

impl Cells {
    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            Self::Count(cells) => cells.grow(groups, &0),
            Self::IntSum(cells) => cells.grow(groups, &Sum::default()),
            Self::FloatSum(cells) => cells.grow(groups, &Sum::default()),
            Self::IntEnd(cells, _) => cells.grow(groups, &None),
            Self::FloatEnd(cells, _) => cells.grow(groups, &None),
            Self::TextEnd(cells, _) => cells.grow(groups, &None),
        }
    }

    /// About how many bytes a cell takes.
    pub(crate) fn cell_bytes(&self) -> usize {
        match self {
            Self::Count(_) => 8,
            Self::IntSum(_) => 32,
            Self::FloatSum(_) => 96,
            Self::IntEnd(..) | Self::FloatEnd(..) => 16,
            Self::TextEnd(..) => 48,
        }
    }

    /// Adds the values of these rows, or of all, to the groups beside them.
    pub(crate) fn update(&mut self, groups: &[u32], rows: Option<&[u32]>, values: &Values) {
        match (values.nulls(), rows) {
            (None, None) => self.add(groups, values, Some),
            (None, Some(rows)) => self.add(groups, values, |place| Some(at(rows[place]))),
            (Some(nulls), None) => self.add(groups, values, |place| nulls.is_valid(place).then_some(place)),
            (Some(nulls), Some(rows)) => self.add(groups, values, |place| {
                let row = at(rows[place]);
                nulls.is_valid(row).then_some(row)
            }),
        }
    }

    fn add(&mut self, groups: &[u32], values: &Values, row: impl Fn(usize) -> Option<usize>) {
        match (self, values) {
            (Self::Count(cells), _) => cells.each(groups, |cell, place| *cell += i64::from(row(place).is_some())),
            (Self::IntSum(cells), Values::Int(array)) => {
                let values = array.values();
                cells.each(groups, |cell, place| {
                    if let Some(row) = row(place) {
                        cell.sum += i128::from(values[row]);
                        cell.count += 1;
                    }
                });
            }
            (Self::FloatSum(cells), Values::Float(array)) => cells.each(groups, |cell, place| {
                if let Some(row) = row(place) {
                    cell.sum.add(array.value(row));
                    cell.count += 1;
                }
            }),
            (Self::IntEnd(cells, least), Values::Int(array)) => {
                let (values, least) = (array.values(), *least);
                cells.each(groups, |cell, place| {
                    if let Some(row) = row(place) {
                        int_end(cell, values[row], least);
                    }
                });
            }
            (Self::FloatEnd(cells, least), Values::Float(array)) => cells.each(groups, |cell, place| {
                if let Some(row) = row(place) {
                    float_end(cell, array.value(row), *least);
                }
            }),
            (Self::TextEnd(cells, least), Values::Text(array)) => cells.each(groups, |cell, place| {
                let Some(new) = row(place).map(|row| array.value(row)) else { return };
                if text_wins(cell.as_deref(), new, *least) {
                    *cell = Some(Arc::from(new));
                }
            }),
            // Values are read in the kind that the cells were made for.
            _ => debug_assert!(false, "cells and values of different kinds"),
        }
    }

    /// Adds cells of others: those of `from` to the groups beside them.
    pub(crate) fn merge(&mut self, groups: &[u32], other: &Self, from: &[u32]) {
        match (self, other) {
            (Self::Count(cells), Self::Count(other)) => {
                cells.each(groups, |cell, place| *cell += other.get(from[place]));
            }
            (Self::IntSum(cells), Self::IntSum(other)) => cells.each(groups, |cell, place| {
                let other = other.get(from[place]);
                cell.sum += other.sum;
                cell.count += other.count;
            }),
            (Self::FloatSum(cells), Self::FloatSum(other)) => cells.each(groups, |cell, place| {
                let other = other.get(from[place]);
                cell.sum.merge(&other.sum);
                cell.count += other.count;
            }),
            (Self::IntEnd(cells, least), Self::IntEnd(other, _)) => cells.each(groups, |cell, place| {
                if let Some(new) = other.get(from[place]) {
                    int_end(cell, *new, *least);
                }
            }),
            (Self::FloatEnd(cells, least), Self::FloatEnd(other, _)) => cells.each(groups, |cell, place| {
                if let Some(new) = other.get(from[place]) {
                    float_end(cell, *new, *least);
                }
            }),
            (Self::TextEnd(cells, least), Self::TextEnd(other, _)) => cells.each(groups, |cell, place| {
                let Some(new) = other.get(from[place]) else { return };
                if text_wins(cell.as_deref(), new, *least) {
                    *cell = Some(Arc::clone(new));
                }
            }),
            _ => debug_assert!(false, "cells of different kinds"),
        }
    }

    /// Empties a cell, so that its group can be another's.
    pub(crate) fn clear(&mut self, group: u32) {
        match self {
            Self::Count(cells) => *cells.get_mut(group) = 0,
            Self::IntSum(cells) => *cells.get_mut(group) = Sum::default(),
            Self::FloatSum(cells) => *cells.get_mut(group) = Sum::default(),
            Self::IntEnd(cells, _) => *cells.get_mut(group) = None,
            Self::FloatEnd(cells, _) => *cells.get_mut(group) = None,
            Self::TextEnd(cells, _) => *cells.get_mut(group) = None,
        }
    }

    /// One cell by itself.
    pub(crate) fn pick(&self, group: u32) -> Self {
        fn one<T: Clone>(cells: &Chunked<T>, group: u32) -> Chunked<T> {
            std::iter::once(cells.get(group).clone()).collect()
        }
        match self {
            Self::Count(cells) => Self::Count(one(cells, group)),
            Self::IntSum(cells) => Self::IntSum(one(cells, group)),
            Self::FloatSum(cells) => Self::FloatSum(one(cells, group)),
            Self::IntEnd(cells, least) => Self::IntEnd(one(cells, group), *least),
            Self::FloatEnd(cells, least) => Self::FloatEnd(one(cells, group), *least),
            Self::TextEnd(cells, least) => Self::TextEnd(one(cells, group), *least),
        }
    }

    /// The rows that a group counts; 0 of other cells.
    pub(crate) fn count(&self, group: u32) -> i64 {
        match self {
            Self::Count(cells) => *cells.get(group),
            _ => 0,
        }
    }

    /// Whether the group's sum is beyond 64 bits.
    pub(crate) fn overflows(&self, group: u32) -> bool {
        matches!(self, Self::IntSum(cells) if i64::try_from(cells.get(group).sum).is_err())
    }

    /// The results of these groups.
    pub(crate) fn results(&self, groups: &[u32]) -> Results {
        let each = || groups.iter().copied();
        match self {
            Self::Count(cells) => Results::Counts(each().map(|g| *cells.get(g)).collect()),
            Self::IntSum(cells) => Results::Ints(each().map(|g| (cells.get(g).sum, cells.get(g).count)).collect()),
            Self::FloatSum(cells) => {
                Results::Floats(each().map(|g| (cells.get(g).sum.value(), cells.get(g).count)).collect())
            }
            Self::IntEnd(cells, _) => Results::IntEnds(each().map(|g| *cells.get(g)).collect()),
            Self::FloatEnd(cells, _) => Results::FloatEnds(each().map(|g| *cells.get(g)).collect()),
            Self::TextEnd(cells, _) => Results::TextEnds(each().map(|g| cells.get(g).clone()).collect()),
        }
    }

    /// Adds the values of all rows one after the other; the results are those right after each row.
    pub(crate) fn running(&mut self, groups: &[u32], values: &Values) -> Results {
        let nulls = values.nulls();
        let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        match (self, values) {
            (Self::Count(cells), _) => {
                let mut counts = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    *cell += i64::from(valid(row));
                    counts.push(*cell);
                });
                Results::Counts(counts)
            }
            (Self::IntSum(cells), Values::Int(array)) => {
                let mut sums = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    if valid(row) {
                        cell.sum += i128::from(array.value(row));
                        cell.count += 1;
                    }
                    sums.push((cell.sum, cell.count));
                });
                Results::Ints(sums)
            }
            (Self::FloatSum(cells), Values::Float(array)) => {
                let mut sums = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    if valid(row) {
                        cell.sum.add(array.value(row));
                        cell.count += 1;
                    }
                    sums.push((cell.sum.value(), cell.count));
                });
                Results::Floats(sums)
            }
            (Self::IntEnd(cells, least), Values::Int(array)) => {
                let mut ends = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    if valid(row) {
                        int_end(cell, array.value(row), *least);
                    }
                    ends.push(*cell);
                });
                Results::IntEnds(ends)
            }
            (Self::FloatEnd(cells, least), Values::Float(array)) => {
                let mut ends = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    if valid(row) {
                        float_end(cell, array.value(row), *least);
                    }
                    ends.push(*cell);
                });
                Results::FloatEnds(ends)
            }
            (Self::TextEnd(cells, least), Values::Text(array)) => {
                let mut ends = Vec::with_capacity(groups.len());
                cells.each(groups, |cell, row| {
                    if valid(row) && text_wins(cell.as_deref(), array.value(row), *least) {
                        *cell = Some(Arc::from(array.value(row)));
                    }
                    ends.push(cell.clone());
                });
                Results::TextEnds(ends)
            }
            // Values are read in the kind that the cells were made for.
            (cells, _) => cells.results(groups),
        }
    }

    /// The results of these groups; null where a sum is beyond 64 bits.
    pub(crate) fn finish(&self, groups: &[u32], mean: bool, kind: Option<ValueType>) -> Result<ArrayRef, Error> {
        self.results(groups).array(mean, kind)
    }

    /// The cells of these groups, in the order of [`CellSpec::stored`].
    pub(crate) fn store(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        let each = || groups.iter().copied();
        Ok(match self {
            Self::Count(cells) => vec![Arc::new(each().map(|g| *cells.get(g)).collect::<Int64Array>())],
            Self::IntSum(cells) => vec![
                Arc::new(each().map(|g| cells.get(g).count).collect::<Int64Array>()),
                Arc::new(Decimal128Array::from_iter_values(each().map(|g| cells.get(g).sum)).with_data_type(WIDE)),
            ],
            Self::FloatSum(cells) => vec![
                Arc::new(each().map(|g| cells.get(g).count).collect::<Int64Array>()),
                Arc::new(BinaryArray::from_iter_values(each().map(|g| cells.get(g).sum.to_bytes()))),
            ],
            Self::IntEnd(..) | Self::FloatEnd(..) | Self::TextEnd(..) => vec![self.finish(groups, false, None)?],
        })
    }

    /// The cells of stored columns, one per row; `None` if they cannot be read.
    pub(crate) fn load(&self, stored: &[ArrayRef]) -> Option<Self> {
        let ints = |i: usize| stored.get(i)?.as_primitive_opt::<Int64Type>();
        Some(match self {
            Self::Count(_) => Self::Count(ints(0)?.values().iter().copied().collect()),
            Self::IntSum(_) => {
                let sums = stored.get(1)?.as_primitive_opt::<Decimal128Type>()?;
                let each = sums.values().iter().zip(ints(0)?.values());
                Self::IntSum(each.map(|(sum, count)| Sum { sum: *sum, count: *count }).collect())
            }
            Self::FloatSum(_) => {
                let exact = stored.get(1)?.as_binary_opt::<i32>()?;
                let each = exact.iter().zip(ints(0)?.values());
                let sum = |(bytes, count): (Option<&[u8]>, &i64)| {
                    Some(Sum { sum: ExactSum::from_bytes(bytes?)?, count: *count })
                };
                Self::FloatSum(each.map(sum).collect::<Option<Vec<_>>>()?.into_iter().collect())
            }
            Self::IntEnd(_, least) => Self::IntEnd(ints(0)?.iter().collect(), *least),
            Self::FloatEnd(_, least) => {
                Self::FloatEnd(stored.first()?.as_primitive_opt::<Float64Type>()?.iter().collect(), *least)
            }
            Self::TextEnd(_, least) => {
                let texts = stored.first()?.as_string_opt::<i32>()?;
                Self::TextEnd(texts.iter().map(|text| text.map(Arc::from)).collect(), *least)
            }
        })
    }

    /// One piece, shared.
    pub(crate) fn only(&self, chunk: usize) -> Self {
        match self {
            Self::Count(cells) => Self::Count(cells.only(chunk)),
            Self::IntSum(cells) => Self::IntSum(cells.only(chunk)),
            Self::FloatSum(cells) => Self::FloatSum(cells.only(chunk)),
            Self::IntEnd(cells, least) => Self::IntEnd(cells.only(chunk), *least),
            Self::FloatEnd(cells, least) => Self::FloatEnd(cells.only(chunk), *least),
            Self::TextEnd(cells, least) => Self::TextEnd(cells.only(chunk), *least),
        }
    }
}
