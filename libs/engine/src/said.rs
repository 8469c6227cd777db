//! What conditions have said of the rows of a row group: chunks never change, so they would say it again.
//!
//! Screens ask about the same rows again and again: for a page of them, for their number, for their histogram, and for all
//! of it once more after a minute.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{array::BooleanBufferBuilder, buffer::BooleanBuffer, datatypes::SchemaRef};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::Volatility,
    physical_expr::{PhysicalExpr, ScalarFunctionExpr},
};
use parking_lot::Mutex;

use crate::cache::Cache;

/// Of the bytes that are kept of chunks, one in so many is for this besides: some hundred row groups to a megabyte.
const SHARE: usize = 16;

/// What an entry takes besides its rows, its key and its conditions.
const ENTRY_BYTES: usize = 128;

/// What a condition takes for each byte of its text, about.
const TEXT_FACTOR: usize = 8;

/// Conditions that all rows must meet, in the order in which they are asked, each with the columns that it is of.
#[derive(Debug)]
pub(crate) struct Question {
    conditions: Vec<(SchemaRef, Arc<dyn PhysicalExpr>)>,
    bytes: usize,
}

impl Question {
    /// `None` where the same rows may be answered otherwise the next time.
    pub(crate) fn of(conditions: Vec<(SchemaRef, Arc<dyn PhysicalExpr>)>) -> Option<Self> {
        let stays = conditions.iter().all(|(_, condition)| stays(condition));
        let texts = conditions.iter().map(|(_, condition)| TEXT_FACTOR * condition.to_string().len());
        let bytes = texts.sum();
        (stays && !conditions.is_empty()).then_some(Self { conditions, bytes })
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.conditions == other.conditions
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.conditions.hash(state);
    }
}

/// Whether an expression says the same of the same row whenever it is asked.
fn stays(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let mut stays = true;
    let walked = expr.apply(|part| {
        stays &= match part.downcast_ref::<ScalarFunctionExpr>() {
            Some(function) => function.fun().signature().volatility == Volatility::Immutable,
            None => !part.is_volatile_node(),
        };
        Ok(if stays { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    stays && walked.is_ok()
}

/// The rows of a row group that meet all conditions of a question.
#[derive(Debug, Clone)]
pub(crate) struct Met {
    rows: usize,
    count: usize,
    which: Which,
}

#[derive(Debug, Clone)]
enum Which {
    /// By their places.
    Few(Arc<[u32]>),
    /// A bit for each row.
    Bits(BooleanBuffer),
}

impl Met {
    pub(crate) fn new(met: BooleanBuffer) -> Self {
        let (rows, count) = (met.len(), met.count_set_bits());
        let places = || met.set_indices().map(u32::try_from).collect::<Result<Arc<[u32]>, _>>();
        let few = if count * size_of::<u32>() * 8 < rows { places().ok() } else { None };
        Self { rows, count, which: few.map_or(Which::Bits(met), Which::Few) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A bit for each row of the row group.
    pub(crate) fn bits(&self) -> BooleanBuffer {
        match &self.which {
            Which::Bits(bits) => bits.clone(),
            Which::Few(places) => {
                let mut bits = BooleanBufferBuilder::new(self.rows);
                bits.append_n(self.rows, false);
                places.iter().for_each(|place| bits.set_bit(*place as usize, true));
                bits.finish()
            }
        }
    }

    fn bytes(&self) -> usize {
        match &self.which {
            Which::Few(places) => size_of_val(places.as_ref()),
            Which::Bits(bits) => bits.len() / 8,
        }
    }
}

/// By chunk and row group.
type Key = (Arc<str>, usize, Arc<Question>);

/// What was said lately, within a bound.
pub(crate) struct Said(Mutex<Cache<Key, Met>>);

impl Said {
    /// Beside so many bytes of chunks.
    pub(crate) fn beside(chunk_bytes: usize) -> Self {
        Self(Mutex::new(Cache::new(chunk_bytes / SHARE)))
    }

    /// What was said of some row groups of a chunk, each with its number.
    pub(crate) fn of(&self, chunk: &str, groups: &[usize], question: &Arc<Question>) -> Vec<(usize, Met)> {
        let chunk: Arc<str> = Arc::from(chunk);
        let mut said = self.0.lock();
        let known = |group: &usize| {
            let met = said.get(&(Arc::clone(&chunk), *group, Arc::clone(question)))?;
            Some((*group, met))
        };
        groups.iter().filter_map(known).collect()
    }

    pub(crate) fn keep(&self, chunk: &str, group: usize, question: &Arc<Question>, met: Met) {
        let bytes = ENTRY_BYTES + chunk.len() + question.bytes + met.bytes();
        self.0.lock().put((Arc::from(chunk), group, Arc::clone(question)), met, bytes);
    }
}

/// Puts together what conditions have said, each of the rows that those before it have left; `None` where one was not asked
/// about all of these.
pub(crate) fn together(rows: usize, said: &[BooleanBuffer]) -> Option<BooleanBuffer> {
    let mut met = BooleanBuffer::new_set(rows);
    let mut left = rows;
    for one in said {
        if left == 0 {
            break;
        }
        if one.len() != left {
            return None;
        }
        met = spread(&met, one);
        left = one.count_set_bits();
    }
    Some(met)
}

/// What is said of the rows that are left, said of all.
pub(crate) fn spread(left: &BooleanBuffer, said: &BooleanBuffer) -> BooleanBuffer {
    if left.len() == said.len() {
        return said.clone();
    }
    let mut all = BooleanBufferBuilder::new(left.len());
    all.append_n(left.len(), false);
    for (place, row) in left.set_indices().enumerate() {
        all.set_bit(row, said.value(place));
    }
    all.finish()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::{
        logical_expr::Operator,
        physical_expr::expressions::{BinaryExpr, Column, lit},
        scalar::ScalarValue,
    };

    use super::*;

    fn bits(of: &[u8]) -> BooleanBuffer {
        of.iter().map(|bit| *bit == 1).collect()
    }

    fn question(of: DataType, value: impl Into<ScalarValue>) -> Arc<Question> {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("a", 0));
        let expr: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(column, Operator::Eq, lit(value.into())));
        let schema = Arc::new(Schema::new(vec![Field::new("a", of, true)]));
        Arc::new(Question::of(vec![(schema, expr)]).unwrap())
    }

    #[test]
    fn each_condition_speaks_of_what_is_left() {
        let all = [bits(&[1, 0, 1, 1, 0]), bits(&[0, 1, 1]), bits(&[1, 0])];
        assert_eq!(together(5, &all), Some(bits(&[0, 0, 1, 0, 0])));
        assert_eq!(together(5, &all[..1]), Some(all[0].clone()));
        // Nothing is asked about no rows.
        assert_eq!(together(2, &[bits(&[0, 0]), bits(&[])]), Some(bits(&[0, 0])));
        assert_eq!(together(5, &[bits(&[1, 0, 1])]), None, "of other rows than there are");
        assert_eq!(together(5, &[bits(&[1, 0, 1, 1, 0]), bits(&[0, 1])]), None);
    }

    #[test]
    fn few_rows_and_many_come_back() {
        for (rows, step) in [(1, 1), (100, 1), (100, 31), (100, 33), (70_000, 100), (70_000, 3), (0, 1)] {
            let some = BooleanBuffer::collect_bool(rows, |row| row % step == 0);
            let met = Met::new(some.clone());
            assert_eq!((met.bits(), met.count()), (some, rows.div_ceil(step)), "{rows} by {step}");
            assert!(met.bytes() <= rows / 8 + 4);
        }
    }

    #[test]
    fn what_was_said_is_of_one_row_group_and_one_question() {
        let said = Said::beside(1 << 20);
        let asked = question(DataType::Int64, 1_i64);
        said.keep("one", 2, &asked, Met::new(bits(&[1, 0])));
        let count = |chunk, groups: &[usize], asked| said.of(chunk, groups, &asked).len();
        assert_eq!(count("one", &[1, 2, 3], Arc::clone(&asked)), 1);
        assert_eq!(count("one", &[2], question(DataType::Int64, 1_i64)), 1, "the same, asked anew");
        assert_eq!(count("two", &[2], Arc::clone(&asked)), 0);
        assert_eq!(count("one", &[1], asked), 0);
        for other in
            [question(DataType::Int64, 2_i64), question(DataType::Int64, 1_i32), question(DataType::Float64, 1_i64)]
        {
            assert_eq!(count("one", &[2], other), 0);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let said = Said::beside(16 * 100_000);
        for value in 0..1_000_i64 {
            said.keep("one", 0, &question(DataType::Int64, value), Met::new(BooleanBuffer::new_set(8_000)));
        }
        let kept = (0..1_000_i64).filter(|value| !said.of("one", &[0], &question(DataType::Int64, *value)).is_empty());
        assert!((1..100).contains(&kept.count()));
    }
}
