//! What the alerter refuses, and how that crosses the wire.

use types::RuleId;
use wire::Problem;

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rule's query is not a windowed continuous query.
    #[error("{0}")]
    InvalidQuery(String),
    /// The rule's condition does not fit its query.
    #[error("{0}")]
    InvalidCondition(String),
    /// The installation holds as many rules as it may.
    #[error("there are {} rules already; delete some first", crate::state::RULES_MAX)]
    TooManyRules,
    /// Somebody else's rule has the name: nobody replaces what watches another index.
    #[error("rule {0} is there and watches another index; choose another name, or delete it first if it is yours")]
    RuleTaken(RuleId),
    /// The rule's id leaves no room for the names derived from it.
    #[error("the rule id {0} is too long: use at most 96 characters")]
    NameTooLong(RuleId),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::InvalidQuery(_) => "InvalidQuery",
            Error::InvalidCondition(_) => "InvalidCondition",
            Error::TooManyRules => return Self::conflict("TooManyRules", error),
            Error::RuleTaken(_) => return Self::conflict("RuleTaken", error),
            Error::NameTooLong(_) => "NameTooLong",
        };
        Self::bad_request(kind, error)
    }
}
