//! A rule's condition, checked against its query.

use query::{Shape, parse_condition, parse_continuous};
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
        let continuous = parse_continuous(&rule.query).map_err(|d| Error::InvalidQuery(d.render(&rule.query)))?;
        let parsed =
            parse_condition(&rule.condition).map_err(|d| Error::InvalidCondition(d.render(&rule.condition)))?;
        if continuous.source != rule.index {
            return Err(Error::InvalidQuery(format!(
                "the query reads {}, but the rule watches {}",
                continuous.source, rule.index
            )));
        }
        if continuous.insert_into.is_some() {
            return Err(Error::InvalidQuery("a rule's query has no INSERT INTO: its rows go to the rule".to_owned()));
        }
        let Shape::Windowed(windowed) = continuous.shape else {
            return Err(Error::InvalidQuery(
                "a rule needs a windowed query: SELECT …, count(*) AS n FROM tumble(index, INTERVAL '10 seconds') GROUP BY …"
                    .to_owned(),
            ));
        };
        let names: Vec<&str> = windowed.aggregates.iter().map(|a| a.name.as_str()).collect();
        let Some(aggregate) = windowed.aggregates.iter().find(|a| a.name == parsed.column) else {
            return Err(Error::InvalidCondition(format!(
                "the query has no aggregate {:?}; it has {}",
                parsed.column,
                names.join(", ")
            )));
        };
        let grows = aggregate.function == query::AggregateFunction::Count;
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
