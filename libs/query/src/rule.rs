//! A rule: a windowed continuous query, and a condition over one of its aggregates.

use types::IndexName;

use crate::{AggregateFunction, Condition, Continuous, Diagnostic, Shape, nearest, parse_condition, parse_continuous};

/// A rule that has been read: its condition fits its query.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The index that the query reads.
    pub source: IndexName,
    /// What the column of the condition computes.
    pub function: AggregateFunction,
    /// The condition.
    pub condition: Condition,
}

/// Which of the two texts of a rule is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The query.
    #[error("the query of the rule: {0}")]
    Query(Diagnostic),
    /// The condition.
    #[error("the condition of the rule: {0}")]
    Condition(Diagnostic),
}

/// Reads the two texts of a rule.
///
/// Errors: what either of them cannot be, with the place; a condition over a column that is no aggregate of the query.
pub fn parse_rule(query: &str, condition: &str) -> Result<Rule, RuleError> {
    let read = parse_continuous(query).map_err(RuleError::Query)?;
    Rule::of(&read, condition)
}

impl Rule {
    /// The same for a query that has been read.
    pub fn of(read: &Continuous, condition: &str) -> Result<Self, RuleError> {
        let wrong = |message: &str, help: &str| RuleError::Query(Diagnostic::new(1, 1, message).help(help));
        let Shape::Windowed(window) = &read.shape else {
            let help = "write SELECT count(*) AS n FROM tumble(<index>, INTERVAL '10 seconds') GROUP BY window_start";
            return Err(wrong("a rule needs a query with windows", help));
        };
        if read.insert_into.is_some() {
            return Err(wrong("the rows of a rule's query go to the rule, not into an index", "leave out INSERT INTO"));
        }
        let condition = parse_condition(condition).map_err(RuleError::Condition)?;
        if let Some(aggregate) = window.aggregates.iter().find(|aggregate| aggregate.name == condition.column) {
            return Ok(Self { source: read.source.clone(), function: aggregate.function, condition });
        }
        let names = || window.aggregates.iter().map(|aggregate| aggregate.name.as_str());
        let found = Diagnostic::new(1, 1, format!("the query has no aggregate {}", condition.column));
        Err(RuleError::Condition(match nearest(&condition.column, names()) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => found.help(format!("the aggregates are {}", names().collect::<Vec<_>>().join(", "))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "SELECT service, avg(ms) AS slow, count(*) AS n FROM tumble(shop, INTERVAL '1 minute') \
                         GROUP BY service, window_start";

    #[test]
    fn a_condition_is_about_an_aggregate_of_its_query() {
        let rule = parse_rule(QUERY, "slow > 250").unwrap();
        assert_eq!((rule.source.as_str(), rule.function), ("shop", AggregateFunction::Avg));
        assert!(rule.condition.holds(251.0) && !rule.condition.holds(250.0));
    }

    #[test]
    fn complaints_say_which_text_is_wrong() {
        for (query, condition, words) in [
            ("SELECT x FROM shop", "n > 1", "the query of the rule: a rule needs a query with windows"),
            ("SELEC", "n > 1", "the query of the rule: "),
            (&format!("INSERT INTO b {QUERY}"), "n > 1", "the query of the rule: the rows of a rule's query go to"),
            (QUERY, "n >", "the condition of the rule: the number is missing (line 1, column 4)"),
            (QUERY, "slo > 1", "the condition of the rule: the query has no aggregate slo (line"),
            (QUERY, "service > 1", "the condition of the rule: the query has no aggregate service (line"),
        ] {
            let found = parse_rule(query, condition).unwrap_err().to_string();
            assert!(found.starts_with(words), "{query} / {condition}: {found}");
        }
        let Err(RuleError::Condition(found)) = parse_rule(QUERY, "slo > 1") else { panic!("slo is no aggregate") };
        assert_eq!(found.help.as_deref(), Some("did you mean slow?"));
    }
}
