//! A rule's condition, checked against its query.

use query::{RuleError, parse_rule};
use wire::{
    alerter::{ObservedRow, Rule},
    job_manager::EarlyFire,
};

use crate::error::Error;

/// A condition that fits its query.
#[derive(Debug)]
pub(crate) struct Condition {
    parsed: query::Condition,
    /// Set when the value can only grow within a window, so that the row that crosses decides.
    early: Option<EarlyFire>,
}

impl Condition {
    /// Reads query and condition of a rule; errors carry a caret picture.
    pub(crate) fn of(rule: &Rule) -> Result<Self, Error> {
        let read = parse_rule(&rule.query, &rule.condition).map_err(|wrong| match wrong {
            RuleError::Query(found) => Error::InvalidQuery(found.render(&rule.query)),
            RuleError::Condition(found) => Error::InvalidCondition(found.render(&rule.condition)),
        })?;
        if read.source != rule.index {
            return Err(Error::InvalidQuery(format!(
                "the query reads {}, but the rule watches {}",
                read.source, rule.index
            )));
        }
        let (parsed, grows) = (read.condition, read.function == query::AggregateFunction::Count);
        let or_equal = match parsed.op {
            query::Comparison::Above => Some(false),
            query::Comparison::AtLeast => Some(true),
            _ => None,
        };
        let early = or_equal.filter(|_| grows).map(|or_equal| EarlyFire {
            column: parsed.column.clone(),
            or_equal,
            threshold: parsed.threshold,
        });
        Ok(Self { parsed, early })
    }

    /// How the job may tell rows before their window closes.
    pub(crate) fn early(&self) -> Option<EarlyFire> {
        self.early.clone()
    }

    /// The value that decides; a group without any value has none, and then the condition does not hold.
    pub(crate) fn value(&self, row: &ObservedRow) -> Option<f64> {
        row.values.get(&self.parsed.column).copied().filter(|value| !value.is_nan())
    }

    /// Whether the condition holds for a value.
    pub(crate) fn holds(&self, value: f64) -> bool {
        self.parsed.holds(value)
    }
}
