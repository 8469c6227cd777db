//! How many different texts there are, where most of them are ids.
//!
//! An id in a text is 32 hexadecimal digits: sixteen bytes, which are told apart by a set of numbers for a fraction of what a
//! set of texts takes. Other texts are counted beside them, as DataFusion counts them.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, StringArray},
    compute::filter,
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::{Column, ExprSchema, ScalarValue, exec_datafusion_err, tree_node::Transformed},
    datasource::source_as_provider,
    error::Result,
    functions_aggregate::count::count_udaf,
    logical_expr::{
        Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, Projection, Signature, Volatility,
        expr::AggregateFunction,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use crate::provider::SourceTable;

/// Bytes of an id in a set, about: they are at most seven eighths full, and at least half of that.
const ENTRY_BYTES: usize = 17;

/// Counts different texts of a table by [`distinct_ids`] where nothing else is asked: DataFusion groups by them, twice.
#[derive(Debug)]
pub(crate) struct DistinctIdsRule;

impl OptimizerRule for DistinctIdsRule {
    fn name(&self) -> &str {
        "distinct_ids"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(count) = &plan else { return Ok(Transformed::no(plan)) };
        Ok(match counted(count)? {
            Some(counted) => Transformed::yes(counted),
            None => Transformed::no(plan),
        })
    }
}

/// The same as a count of different texts, if it is a count of the groups that a table has by a text.
fn counted(count: &Aggregate) -> Result<Option<LogicalPlan>> {
    let (LogicalPlan::Aggregate(groups), [], [of]) =
        (count.input.as_ref(), count.group_expr.as_slice(), count.aggr_expr.as_slice())
    else {
        return Ok(None);
    };
    let ([by], []) = (groups.group_expr.as_slice(), groups.aggr_expr.as_slice()) else { return Ok(None) };
    let Expr::Column(text) = bare(by) else { return Ok(None) };
    let group = Column::from(groups.schema.qualified_field(0));
    let is_text = *groups.input.schema().field_from_column(text)?.data_type() == DataType::Utf8;
    if !is_text || !is_count_of(of, &group) || !reads_table(&groups.input)? {
        return Ok(None);
    }
    let wanted = AggregateUDF::from(DistinctIds::default()).call(vec![Expr::Column(text.clone())]);
    let made = Aggregate::try_new(Arc::clone(&groups.input), Vec::new(), vec![wanted])?;
    let (qualifier, field) = count.schema.qualified_field(0);
    let value = Expr::Column(Column::from(made.schema.qualified_field(0)));
    let named = value.alias_qualified(qualifier.cloned(), field.name());
    Ok(Some(LogicalPlan::Projection(Projection::try_new(vec![named], Arc::new(LogicalPlan::Aggregate(made)))?)))
}

fn bare(expr: &Expr) -> &Expr {
    if let Expr::Alias(alias) = expr { bare(&alias.expr) } else { expr }
}

fn is_count_of(expr: &Expr, column: &Column) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = bare(expr) else { return false };
    let plain = !params.distinct && params.filter.is_none() && params.order_by.is_empty();
    let of = matches!(params.args.as_slice(), [Expr::Column(of)] if of == column);
    func.name() == "count" && of && plain && params.null_treatment.is_none()
}

/// Whether these are rows of a table that is read here.
fn reads_table(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => source_as_provider(&scan.source)?.downcast_ref::<SourceTable>().is_some(),
        LogicalPlan::SubqueryAlias(alias) => reads_table(&alias.input)?,
        LogicalPlan::Projection(projection) => reads_table(&projection.input)?,
        LogicalPlan::Filter(filter) => reads_table(&filter.input)?,
        _ => false,
    })
}

/// `distinct_ids(text)`: how many different texts there are; no text is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DistinctIds {
    signature: Signature,
}

impl Default for DistinctIds {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for DistinctIds {
    fn name(&self) -> &'static str {
        "distinct_ids"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let others = count_udaf().accumulator(AccumulatorArgs { is_distinct: true, ..args })?;
        Ok(Box::new(Distinct { ids: HashSet::default(), others }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let ids = Field::new(format!("{}[ids]", args.name), DataType::LargeBinary, true);
        let others = count_udaf().state_fields(StateFieldsArgs { is_distinct: true, ..args })?;
        Ok([Arc::new(ids)].into_iter().chain(others).collect())
    }
}

/// Mixes a number that is mostly random by itself.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let [low, high] = halves(wide);
        self.0 = low ^ high;
    }

    fn write_u128(&mut self, number: u128) {
        halves(number).into_iter().for_each(|half| self.write_u64(half));
    }
}

fn halves(number: u128) -> [u64; 2] {
    let bytes = number.to_le_bytes();
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1].map(|half| words.get(half).copied().map_or(0, u64::from_le_bytes))
}

#[derive(Debug)]
struct Distinct {
    ids: HashSet<u128, BuildHasherDefault<Mixed>>,
    others: Box<dyn Accumulator>,
}

impl Distinct {
    fn update(&mut self, texts: &StringArray) -> Result<()> {
        let mut last = None;
        let mut is_other = |text: Option<&str>| {
            let Some(text) = text else { return false };
            let Some(id) = id_of(text) else { return true };
            // Lines of one request often lie together.
            if last != Some(id) {
                self.ids.insert(id);
                last = Some(id);
            }
            false
        };
        let others: BooleanArray = texts.iter().map(|text| Some(is_other(text))).collect();
        if others.true_count() == 0 { Ok(()) } else { self.others.update_batch(&[filter(texts, &others)?]) }
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = values.first().and_then(|values| values.as_string_opt());
        self.update(texts.ok_or_else(|| exec_datafusion_err!("distinct_ids() takes a text"))?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let ids = i64::try_from(self.ids.len()).unwrap_or(i64::MAX);
        match self.others.evaluate()? {
            ScalarValue::Int64(others) => Ok(ScalarValue::Int64(Some(ids.saturating_add(others.unwrap_or(0))))),
            other => Err(exec_datafusion_err!("a count is {other}")),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.ids.capacity() * ENTRY_BYTES + self.others.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let ids = self.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        Ok([ScalarValue::LargeBinary(Some(ids))].into_iter().chain(self.others.state()?).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some((ids, others)) = states.split_first() else { return Ok(()) };
        let ids = ids.as_binary_opt::<i64>().ok_or_else(|| exec_datafusion_err!("ids are not bytes"))?;
        for ids in ids.iter().flatten() {
            let (ids, _) = ids.as_chunks::<16>();
            self.ids.extend(ids.iter().map(|id| u128::from_le_bytes(*id)));
        }
        self.others.merge_batch(others)
    }
}

/// A number for a text of 32 hexadecimal digits with small letters: another one for each.
fn id_of(text: &str) -> Option<u128> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (words, []) = text.as_bytes().as_chunks::<8>() else { return None };
    let words: &[[u8; 8]; 4] = words.try_into().ok()?;
    let mut id = 0;
    for word in words {
        // Eight digits at once.
        let word = u64::from_le_bytes(*word);
        let is_letter = (word >> 6) & EACH;
        let digits = (word & (0x0f * EACH)) + 9 * is_letter;
        // What does not give back the same text is no digit; beyond nine, digits are letters.
        let again =
            digits.wrapping_add(0x30 * EACH).wrapping_add((((digits + 6 * EACH) >> 4) & EACH).wrapping_mul(0x27));
        if digits & (0xf0 * EACH) != 0 || again != word {
            return None;
        }
        let pairs = (digits | (digits >> 4)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
        id = (id << 32) | u128::from((fours | (fours >> 16)) & 0xffff_ffff);
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, Rows, run_select};

    #[tokio::test]
    async fn ids_and_other_texts_are_counted_together() {
        let hex = |n: u32| format!("{n:032x}");
        let texts = [hex(1), hex(2), hex(1), String::new(), hex(2).to_uppercase(), hex(0xab), hex(0xab).to_uppercase()];
        let batches = (0..5).map(|n| {
            let own = [None, Some(hex(n)), Some(format!("pod-{}", n % 2))];
            let all: ArrayRef = Arc::new(texts.iter().cloned().map(Some).chain(own).collect::<StringArray>());
            RecordBatch::try_from_iter_with_nullable([("x", all, true)]).unwrap()
        });
        let rows = Arc::new(Rows::new(batches.collect()));
        for (text, count) in [
            // Ids 0 to 4 and 0xab, that one in capitals, nothing, and two pods.
            ("SELECT count(DISTINCT x) AS n FROM shop", 10),
            ("SELECT count(DISTINCT s.x) AS n FROM shop AS s WHERE length(s.x) = 32", 7),
            ("SELECT count(DISTINCT x) AS n FROM shop WHERE x = 'none'", 0),
            ("SELECT count(DISTINCT x) AS n FROM (SELECT x FROM shop WHERE x LIKE 'pod%' LIMIT 50) AS s", 2),
        ] {
            let select = query::parse_select(text).unwrap();
            let tables = vec![("shop".parse().unwrap(), Arc::clone(&rows) as Arc<dyn crate::TableSource>)];
            let found = run_select(&select, tables, Limits::default()).await.unwrap();
            assert_eq!(found.to_json_rows().unwrap()[0].get(), format!(r#"{{"n":{count}}}"#), "{text}");
        }
    }

    #[test]
    fn ids_are_texts_of_digits_of_one_length_and_case() {
        let hex = "0af7651916cd43dd8448eb211c80319c";
        assert!(id_of(hex).is_some());
        assert_eq!(id_of(&"0".repeat(32)), Some(0));
        assert_eq!(id_of(&"f".repeat(32)), Some(u128::MAX));
        for other in [&hex[1..], &format!("{hex}0"), &hex.to_uppercase(), "", "0af76519-16cd-43dd-8448-eb211c80319c"] {
            assert_eq!(id_of(other), None, "{other}");
        }
        // Each byte that is none, in each place.
        for place in 0..32 {
            for byte in (0..128u8).filter(|byte| !byte.is_ascii_digit() && !(b'a'..=b'f').contains(byte)) {
                let mut text = hex.to_owned();
                text.replace_range(place..=place, &char::from(byte).to_string());
                assert_eq!(id_of(&text), None, "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn other_texts_are_other_ids(one in any::<u128>(), place in 0u32..32, digit in 1u128..16) {
            let other = one ^ (digit << (4 * place));
            let id = |number: u128| id_of(&format!("{number:032x}")).unwrap();
            prop_assert_ne!(id(one), id(other));
            prop_assert_eq!(id(one), id(one));
        }
    }
}
