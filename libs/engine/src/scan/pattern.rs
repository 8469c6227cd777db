//! Conditions that look for something in a text of one column, answered for all texts of a batch at once.
//!
//! The texts of a batch lie one behind the other. What must be in each of those that are looked for is searched in all of
//! them together: most rows are never looked at by themselves.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray, BooleanBufferBuilder, StringArray},
    buffer::BooleanBuffer,
};
use datafusion::{
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, Column, LikeExpr, Literal},
    },
};
use memchr::memmem::Finder;
use regex::Regex;

use super::needs::regex_part;

/// What a text must have, or must not.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// A part of every text that has it.
    part: Option<Finder<'static>>,
    /// What it must match besides: made once and not for each batch.
    regex: Option<Regex>,
    negated: bool,
}

impl Pattern {
    /// `None` for everything else, and for what is no regular expression: the expression says so itself.
    pub(super) fn of(expr: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            let (any_case, negated) = match binary.op() {
                Operator::RegexMatch => (false, false),
                Operator::RegexIMatch => (true, false),
                Operator::RegexNotMatch => (false, true),
                Operator::RegexNotIMatch => (true, true),
                _ => return None,
            };
            let pattern = text(binary.left(), binary.right())?;
            let regex = if any_case { Regex::new(&format!("(?i){pattern}")) } else { Regex::new(pattern) };
            let part = if any_case { None } else { regex_part(pattern) };
            return Some(Self { part: part.as_deref().map(finder), regex: Some(regex.ok()?), negated });
        }
        if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            let part = text(like.expr(), like.pattern())?.strip_prefix('%')?.strip_suffix('%')?;
            if like.case_insensitive() || part.is_empty() || part.contains(['%', '_', '\\']) {
                return None;
            }
            return Some(Self { part: Some(finder(part)), regex: None, negated: like.negated() });
        }
        let function = expr.downcast_ref::<ScalarFunctionExpr>().filter(|function| function.name() == "contains")?;
        let [of, part] = function.args() else { return None };
        let part = text(of, part).filter(|part| !part.is_empty())?;
        Some(Self { part: Some(finder(part)), regex: None, negated: false })
    }

    /// Which texts it is so of; of no text it is not.
    pub(super) fn meets(&self, texts: &StringArray) -> BooleanArray {
        let matches = |row: usize| self.regex.as_ref().is_none_or(|regex| regex.is_match(texts.value(row)));
        let met = match &self.part {
            None => BooleanBuffer::collect_bool(texts.len(), |row| texts.is_valid(row) && matches(row)),
            Some(part) => {
                let mut met = BooleanBufferBuilder::new(texts.len());
                met.append_n(texts.len(), false);
                each_with(texts, part, |row| met.set_bit(row, matches(row)));
                met.finish()
            }
        };
        let met = if self.negated { !&met } else { met };
        BooleanArray::new(texts.nulls().map_or_else(|| met.clone(), |nulls| &met & nulls.inner()), None)
    }
}

/// The text that a column is compared with.
fn text<'a>(of: &Arc<dyn PhysicalExpr>, value: &'a Arc<dyn PhysicalExpr>) -> Option<&'a str> {
    of.downcast_ref::<Column>()?;
    value.downcast_ref::<Literal>()?.value().try_as_str().flatten()
}

fn finder(part: &str) -> Finder<'static> {
    Finder::new(part).into_owned()
}

/// Tells each row of which the text has the part, in order; also some without a value, of which nobody knows the bytes.
fn each_with(texts: &StringArray, part: &Finder<'_>, mut tell: impl FnMut(usize)) {
    let place = |offset: &i32| usize::try_from(*offset).unwrap_or(0);
    let (ends, bytes) = (texts.value_offsets().get(1..).unwrap_or(&[]), texts.value_data());
    let mut at = texts.value_offsets().first().map_or(0, place);
    let end = ends.last().map_or(at, place);
    let mut row = 0;
    while let Some(found) = bytes.get(at..end).and_then(|rest| part.find(rest)) {
        let found = at + found;
        row += ends[row..].partition_point(|end| place(end) <= found);
        let Some(ends_at) = ends.get(row).map(place) else { return };
        if found + part.needle().len() <= ends_at {
            tell(row);
            at = ends_at;
        } else {
            // It begins in one text and ends in another.
            at = found + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::{like, lit};
    use proptest::prelude::*;

    use super::*;

    fn meets(pattern: &Pattern, texts: &StringArray) -> Vec<bool> {
        pattern.meets(texts).iter().map(|met| met.unwrap()).collect()
    }

    fn regex(pattern: &str, op: Operator) -> Pattern {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("a", 0));
        let expr: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(column, op, lit(pattern)));
        Pattern::of(&expr).unwrap()
    }

    #[test]
    fn what_every_match_has_is_looked_for_first() {
        for (pattern, op, part) in [
            ("blk_-?[0-9]+ of size [0-9]{8}", Operator::RegexMatch, Some(" of size ")),
            (r"\bConnection broken\b", Operator::RegexNotMatch, Some("Connection broken")),
            ("a|b", Operator::RegexMatch, None),
            ("broken", Operator::RegexIMatch, None),
            ("(?i)broken", Operator::RegexMatch, None),
        ] {
            let found = regex(pattern, op);
            assert_eq!(found.part.as_ref().map(Finder::needle), part.map(str::as_bytes), "{pattern}");
        }
    }

    #[test]
    fn only_plain_likes_are_parts() {
        let of = |pattern: &str| {
            let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("a", 0));
            Pattern::of(&like(false, false, column, lit(pattern), &schema).unwrap())
        };
        assert!(of("%ab%").is_some());
        for other in ["ab", "%ab", "ab%", "%%", "%a%b%", "%a_b%", r"%a\%%", "%", ""] {
            assert!(of(other).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn all_texts_at_once_are_as_each_by_itself(
            texts in prop::collection::vec(prop::option::of("[abé]{0,6}"), 0..20),
            part in "[abé]{1,3}",
            from in 0usize..4,
        ) {
            let all: StringArray = texts.iter().collect();
            let from = from.min(texts.len());
            let all = all.slice(from, all.len() - from);
            for negated in [false, true] {
                let own = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(&part) != negated);
                let expected: Vec<bool> = texts[from..].iter().map(own).collect();
                let plain = Pattern { part: Some(finder(&part)), regex: None, negated };
                prop_assert_eq!(&meets(&plain, &all), &expected);
                let op = if negated { Operator::RegexNotMatch } else { Operator::RegexMatch };
                prop_assert_eq!(&meets(&regex(&part, op), &all), &expected);
                let optional = regex(&format!("b?{part}a*"), op);
                prop_assert_eq!(&meets(&optional, &all), &expected);
                prop_assert_eq!(&meets(&Pattern { part: None, ..optional }, &all), &expected);
            }
        }
    }
}
