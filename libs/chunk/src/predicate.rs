//! What a reader looks for, and whether a row group may have it.

use std::cmp::Ordering;

use arrow::datatypes::DataType;
use types::{Timestamp, hash64};

use crate::{
    ids::Form,
    region::{Column, Facts},
    text::{Lower, grams, tokens},
};

/// A value that columns are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A whole number.
    Int(i64),
    /// A decimal number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// An instant.
    Time(Timestamp),
}

/// How a value of a column stands to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What rows must have to matter. A row without a value meets nothing but `IsNull`.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Each of them.
    All(Vec<Predicate>),
    /// One of them.
    Any(Vec<Predicate>),
    /// A value that stands so to the given one.
    Compare {
        /// The column.
        column: String,
        /// How.
        op: Comparison,
        /// To what.
        value: Scalar,
    },
    /// One of the values.
    OneOf {
        /// The column.
        column: String,
        /// The values.
        values: Vec<Scalar>,
    },
    /// A text with the given one anywhere in it.
    Contains {
        /// The column.
        column: String,
        /// The part.
        text: String,
        /// Whether the case of letters does not matter.
        any_case: bool,
    },
    /// A text with the given one in it, where no character of a word stands next to one of its letters or digits at its ends.
    Word {
        /// The column.
        column: String,
        /// The word or phrase.
        text: String,
        /// Whether the case of letters does not matter.
        any_case: bool,
    },
    /// No value.
    IsNull {
        /// The column.
        column: String,
    },
}

/// A column of a row group.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) column: &'a Column,
    /// Rows of the row group.
    pub(crate) rows: u64,
    pub(crate) of: &'a DataType,
    /// How its values are written, if they are ids.
    pub(crate) form: Option<Form>,
}

impl Predicate {
    /// Whether a row may meet it; `of` finds the columns, and those it does not find have no values.
    pub(crate) fn may_match<'a>(&self, of: &dyn Fn(&str) -> Option<Found<'a>>) -> bool {
        let any = |column: &String, test: &dyn Fn(Found<'a>) -> bool| {
            of(column).is_some_and(|found| found.column.nulls < found.rows && test(found))
        };
        match self {
            Self::All(all) => all.iter().all(|one| one.may_match(of)),
            Self::Any(several) => several.iter().any(|one| one.may_match(of)),
            Self::Compare { column, op, value } => any(column, &|found| may_compare(found, *op, value)),
            Self::OneOf { column, values } => {
                any(column, &|found| values.iter().any(|value| may_compare(found, Comparison::Equal, value)))
            }
            Self::Contains { column, text, any_case } => {
                any(column, &|found| may_contain(found, text, *any_case, false))
            }
            Self::Word { column, text, any_case } => any(column, &|found| may_contain(found, text, *any_case, true)),
            Self::IsNull { column } => of(column).is_none_or(|found| found.column.nulls > 0),
        }
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    /// Whether it can hold of something between two values, by how these stand to the value compared with.
    fn holds_between(self, min: Option<Ordering>, max: Option<Ordering>) -> bool {
        let (Some(min), Some(max)) = (min, max) else { return true };
        match self {
            Self::Equal => min.is_le() && max.is_ge(),
            Self::Less | Self::LessOrEqual => self.holds(min),
            Self::Greater | Self::GreaterOrEqual => self.holds(max),
        }
    }
}

fn may_compare(found: Found<'_>, op: Comparison, value: &Scalar) -> bool {
    let within = |min: i64, max: i64, value: i64| op.holds_between(Some(min.cmp(&value)), Some(max.cmp(&value)));
    match (&found.column.facts, value, found.of) {
        (Facts::Whole { min, max }, Scalar::Int(value), DataType::Int64) => within(*min, *max, *value),
        (Facts::Whole { min, max }, Scalar::Time(value), DataType::Timestamp(..)) => within(*min, *max, value.nanos()),
        (Facts::Whole { min, max }, Scalar::Bool(value), DataType::Boolean) => within(*min, *max, i64::from(*value)),
        // Whole numbers are rounded to decimal ones before they are compared, which keeps their order.
        (Facts::Whole { min, max }, Scalar::Float(value), DataType::Int64) => {
            op.holds_between(decimal(*min as f64, *value), decimal(*max as f64, *value))
        }
        (Facts::Decimal { min, max }, Scalar::Float(value), _) => {
            op.holds_between(decimal(*min, *value), decimal(*max, *value))
        }
        (Facts::Decimal { min, max }, Scalar::Int(value), _) => {
            op.holds_between(decimal(*min, *value as f64), decimal(*max, *value as f64))
        }
        (Facts::Values(values), Scalar::Text(value), _) => values.iter().any(|own| op.holds(own.as_str().cmp(value))),
        (facts @ Facts::Text { .. }, Scalar::Text(value), _) if op == Comparison::Equal => {
            let lower = Lower::of(value);
            has(facts, lower.bytes(), lower.bytes())
        }
        (Facts::Ids(filter), Scalar::Text(value), _) if op == Comparison::Equal => {
            let holds = |form: Form| form.read(value).is_some_and(|id| filter.may_hold(hash64(&id)));
            found.form.is_none_or(holds)
        }
        _ => true,
    }
}

/// How a bound stands to a value; `None` where it depends on who compares: NaN, and zeros of two signs.
fn decimal(bound: f64, value: f64) -> Option<Ordering> {
    if bound == 0.0 && value == 0.0 { None } else { bound.partial_cmp(&value) }
}

fn may_contain(found: Found<'_>, text: &str, any_case: bool, word: bool) -> bool {
    match &found.column.facts {
        // Characters outside ASCII have cases that `Lower` does not know.
        Facts::Values(_) if any_case && !text.is_ascii() => true,
        Facts::Values(values) if any_case => {
            let wanted = Lower::of(text);
            values.iter().any(|value| contains(Lower::of(value).bytes(), wanted.bytes()))
        }
        Facts::Values(values) => values.iter().any(|value| value.contains(text)),
        Facts::Text { .. } => {
            let lower = Lower::of(text);
            has(&found.column.facts, if word { lower.bytes() } else { lower.inner() }, lower.bytes())
        }
        _ => true,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Whether the facts have all tokens of the one text and all runs of the other.
fn has(facts: &Facts, whole: &[u8], part: &[u8]) -> bool {
    let Facts::Text { grams: known, tokens: filter } = facts else { return true };
    let mut all = true;
    grams(part, |run| all = all && known.binary_search(&run).is_ok());
    if all {
        tokens(whole, |token| all = all && filter.may_hold(token));
    }
    all
}
