//! Accumulators as columns: one entry per group of a window.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch},
    buffer::NullBuffer,
    datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type},
};

use super::{
    exact::ExactSum,
    spec::{AggregateFunction, AggregateSpec},
};
use crate::{Error, column};

/// What a whole-number sum is stored as: an i128 that every reader of Arrow understands.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// The values of one aggregate's column in one batch.
#[derive(Debug)]
pub(super) enum Values {
    /// Every row counts.
    Rows,
    /// The rows that are not null count.
    Present(Option<NullBuffer>),
    Int(Int64Array),
    Float(Float64Array),
}

impl Values {
    fn has(&self, row: usize) -> bool {
        match self {
            Self::Rows => true,
            Self::Present(nulls) => nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)),
            Self::Int(array) => array.is_valid(row),
            Self::Float(array) => array.is_valid(row),
        }
    }
}

/// What kind of number an aggregate works on; learnt from the first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Int,
    Float,
}

impl Kind {
    /// The kind of the aggregate's column in that batch.
    pub(super) fn learn(spec: &AggregateSpec, batch: &RecordBatch) -> Result<Self, Error> {
        use AggregateFunction as F;
        match (&spec.column, spec.function) {
            (None, _) => Ok(Self::None),
            (Some(name), F::Count) => column::column(batch, name).map(|_| Self::None),
            (Some(name), _) => {
                let float = column::number(column::column(batch, name)?, name)?.data_type() == &DataType::Float64;
                Ok(if float { Self::Float } else { Self::Int })
            }
        }
    }

    /// The values of the aggregate's column, in this kind.
    pub(super) fn read(self, spec: &AggregateSpec, batch: &RecordBatch) -> Result<Values, Error> {
        let Some(name) = &spec.column else { return Ok(Values::Rows) };
        let array = column::column(batch, name)?;
        let learnt = match self {
            Self::None => return Ok(Values::Present(array.logical_nulls())),
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
        };
        let array = column::as_learnt(column::number(array, name)?, &learnt, name)?;
        Ok(match self {
            Self::Float => Values::Float(array.as_primitive::<Float64Type>().clone()),
            _ => Values::Int(array.as_primitive::<Int64Type>().clone()),
        })
    }

    /// The column of results.
    pub(super) fn output(self, spec: &AggregateSpec) -> Field {
        use AggregateFunction as F;
        match (spec.function, self) {
            (F::CountAll | F::Count, _) => Field::new(&spec.name, DataType::Int64, false),
            (F::Avg, _) | (_, Self::Float) => Field::new(&spec.name, DataType::Float64, true),
            _ => Field::new(&spec.name, DataType::Int64, true),
        }
    }

    /// The columns of a snapshot.
    pub(super) fn stored(self, spec: &AggregateSpec) -> Vec<Field> {
        use AggregateFunction as F;
        let field = |part: &str, kind, nullable| Field::new(format!("{}.{part}", spec.name), kind, nullable);
        let count = field("count", DataType::Int64, false);
        match (spec.function, self) {
            (F::CountAll | F::Count, _) => vec![count],
            (F::Sum | F::Avg, Self::Float) => {
                // The rounded sum is for readers; the exact one is what a restore goes on with.
                vec![count, field("sum", DataType::Float64, false), field("exact", DataType::Binary, false)]
            }
            (F::Sum | F::Avg, _) => vec![count, field("sum", WIDE, false)],
            (F::Min | F::Max, Self::Float) => vec![field("value", DataType::Float64, true)],
            (F::Min | F::Max, _) => vec![field("value", DataType::Int64, true)],
        }
    }
}

/// One aggregate over the groups of one window.
#[derive(Debug)]
pub(super) enum Accumulator {
    Count(Vec<i64>),
    IntSum { counts: Vec<i64>, sums: Vec<i128>, mean: bool },
    FloatSum { counts: Vec<i64>, sums: Vec<ExactSum>, mean: bool },
    IntEnd { values: Vec<Option<i64>>, least: bool },
    FloatEnd { values: Vec<Option<f64>>, least: bool },
}

impl Accumulator {
    pub(super) fn new(function: AggregateFunction, kind: Kind) -> Self {
        use AggregateFunction as F;
        let (mean, least) = (function == F::Avg, function == F::Min);
        match (function, kind) {
            (F::CountAll | F::Count, _) => Self::Count(Vec::new()),
            (F::Sum | F::Avg, Kind::Float) => Self::FloatSum { counts: Vec::new(), sums: Vec::new(), mean },
            (F::Sum | F::Avg, _) => Self::IntSum { counts: Vec::new(), sums: Vec::new(), mean },
            (F::Min | F::Max, Kind::Float) => Self::FloatEnd { values: Vec::new(), least },
            (F::Min | F::Max, _) => Self::IntEnd { values: Vec::new(), least },
        }
    }

    pub(super) fn grow(&mut self, groups: usize) {
        match self {
            Self::Count(counts) => counts.resize(groups, 0),
            Self::IntSum { counts, sums, .. } => {
                counts.resize(groups, 0);
                sums.resize(groups, 0);
            }
            Self::FloatSum { counts, sums, .. } => {
                counts.resize(groups, 0);
                sums.resize_with(groups, ExactSum::default);
            }
            Self::IntEnd { values, .. } => values.resize(groups, None),
            Self::FloatEnd { values, .. } => values.resize(groups, None),
        }
    }

    /// Adds the rows from `first` on, one for each entry of `groups`.
    pub(super) fn update(&mut self, groups: &[u32], first: usize, values: &Values) {
        let rows = groups.iter().map(|g| at(*g)).zip(first..).filter(|(_, row)| values.has(*row));
        match (self, values) {
            (Self::Count(counts), _) => rows.for_each(|(g, _)| counts[g] += 1),
            (Self::IntSum { counts, sums, .. }, Values::Int(array)) => rows.for_each(|(g, row)| {
                counts[g] += 1;
                sums[g] += i128::from(array.value(row));
            }),
            (Self::FloatSum { counts, sums, .. }, Values::Float(array)) => rows.for_each(|(g, row)| {
                counts[g] += 1;
                sums[g].add(array.value(row));
            }),
            (Self::IntEnd { values, least }, Values::Int(array)) => rows.for_each(|(g, row)| {
                let new = array.value(row);
                if values[g].is_none_or(|old| if *least { new < old } else { new > old }) {
                    values[g] = Some(new);
                }
            }),
            (Self::FloatEnd { values, least }, Values::Float(array)) => rows.for_each(|(g, row)| {
                let new = array.value(row);
                if values[g].is_none_or(|old| new.total_cmp(&old).is_lt() == *least && new.total_cmp(&old).is_ne()) {
                    values[g] = Some(new);
                }
            }),
            // Values are read in the kind that the accumulator was made for.
            _ => debug_assert!(false, "accumulator and values of different kinds"),
        }
    }

    /// The present count or sum of a group.
    pub(super) fn measure(&self, group: u32) -> f64 {
        match self {
            Self::Count(counts) => counts[at(group)] as f64,
            Self::IntSum { sums, .. } => sums[at(group)] as f64,
            Self::FloatSum { sums, .. } => sums[at(group)].value(),
            Self::IntEnd { .. } | Self::FloatEnd { .. } => f64::NAN,
        }
    }

    /// The results of these groups.
    pub(super) fn finish(&self, groups: &[u32]) -> ArrayRef {
        let groups = groups.iter().map(|g| at(*g));
        match self {
            Self::Count(counts) => Arc::new(groups.map(|g| counts[g]).collect::<Int64Array>()),
            Self::IntSum { counts, sums, mean: true } => Arc::new(
                groups.map(|g| (counts[g] > 0).then(|| sums[g] as f64 / counts[g] as f64)).collect::<Float64Array>(),
            ),
            Self::IntSum { counts, sums, .. } => {
                Arc::new(groups.map(|g| (counts[g] > 0).then(|| saturated(sums[g]))).collect::<Int64Array>())
            }
            Self::FloatSum { counts, sums, mean } => {
                let result = |g: usize| if *mean { sums[g].value() / counts[g] as f64 } else { sums[g].value() };
                Arc::new(groups.map(|g| (counts[g] > 0).then(|| result(g))).collect::<Float64Array>())
            }
            Self::IntEnd { values, .. } => Arc::new(groups.map(|g| values[g]).collect::<Int64Array>()),
            Self::FloatEnd { values, .. } => Arc::new(groups.map(|g| values[g]).collect::<Float64Array>()),
        }
    }

    /// What a snapshot stores of these groups, in the order of [`Kind::stored`].
    pub(super) fn store(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        let each = || groups.iter().map(|g| at(*g));
        let counted = |counts: &[i64]| -> ArrayRef { Arc::new(each().map(|g| counts[g]).collect::<Int64Array>()) };
        Ok(match self {
            Self::Count(counts) => vec![counted(counts)],
            Self::IntSum { counts, sums, .. } => {
                let sums = Decimal128Array::from_iter_values(each().map(|g| sums[g])).with_data_type(WIDE);
                vec![counted(counts), Arc::new(sums)]
            }
            Self::FloatSum { counts, sums, .. } => vec![
                counted(counts),
                Arc::new(each().map(|g| sums[g].value()).collect::<Float64Array>()),
                Arc::new(BinaryArray::from_iter_values(each().map(|g| sums[g].to_bytes()))),
            ],
            Self::IntEnd { .. } | Self::FloatEnd { .. } => vec![self.finish(groups)],
        })
    }

    /// Takes one stored row for the newest group; false if it cannot be read.
    pub(super) fn load(&mut self, stored: &[ArrayRef], row: usize) -> bool {
        let int = |i: usize| stored[i].as_primitive::<Int64Type>().value(row);
        match self {
            Self::Count(counts) => counts.push(int(0)),
            Self::IntSum { counts, sums, .. } => {
                counts.push(int(0));
                sums.push(stored[1].as_primitive::<Decimal128Type>().value(row));
            }
            Self::FloatSum { counts, sums, .. } => {
                let Some(sum) = ExactSum::from_bytes(stored[2].as_binary::<i32>().value(row)) else { return false };
                counts.push(int(0));
                sums.push(sum);
            }
            Self::IntEnd { values, .. } => values.push(stored[0].is_valid(row).then(|| int(0))),
            Self::FloatEnd { values, .. } => {
                let array = stored[0].as_primitive::<Float64Type>();
                values.push(array.is_valid(row).then(|| array.value(row)));
            }
        }
        true
    }
}

fn at(group: u32) -> usize {
    usize::try_from(group).unwrap_or(usize::MAX)
}

fn saturated(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
