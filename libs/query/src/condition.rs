//! A rule's condition: one column of its query against a number.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::{
    Diagnostic,
    text::{at, tokens},
};

/// How a value is compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
}

impl Comparison {
    /// How it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
        }
    }

    fn of(token: &Token) -> Option<Self> {
        Some(match token {
            Token::Gt => Self::Above,
            Token::GtEq => Self::AtLeast,
            Token::Lt => Self::Below,
            Token::LtEq => Self::AtMost,
            Token::Eq | Token::DoubleEq => Self::Equal,
            Token::Neq => Self::NotEqual,
            _ => return None,
        })
    }
}

/// A threshold on a column of a rule's query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The column, an output name of the query.
    pub column: String,
    /// The comparison.
    pub op: Comparison,
    /// The number; never NaN.
    pub threshold: f64,
}

impl Condition {
    /// Whether the value meets the condition; NaN never does.
    pub fn holds(&self, value: f64) -> bool {
        match self.op {
            Comparison::Above => value > self.threshold,
            Comparison::AtLeast => value >= self.threshold,
            Comparison::Below => value < self.threshold,
            Comparison::AtMost => value <= self.threshold,
            Comparison::Equal => value == self.threshold,
            Comparison::NotEqual => !value.is_nan() && value != self.threshold,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.column, self.op.as_str(), self.threshold)
    }
}

/// Reads `<column> <comparison> <number>`, for example `n > 100`.
///
/// Errors: anything else, with the place.
pub fn parse_condition(text: &str) -> Result<Condition, Diagnostic> {
    const SHAPE: &str = "a condition is a column, one of > >= < <= = != and a number, for example n > 100";
    let tokens = tokens(text)?;
    let mut rest = tokens.iter();
    let missing = |what: &str| {
        let end = tokens.last().map_or(1, |t| t.span.end.column);
        Diagnostic::new(1, u32::try_from(end).unwrap_or(u32::MAX), format!("{what} is missing")).help(SHAPE)
    };
    let wrong = |found: &TokenWithSpan, wanted: &str| {
        at(found.span.start, format!("expected {wanted}, found {}", found.token)).help(SHAPE)
    };
    let column = match rest.next() {
        Some(TokenWithSpan { token: Token::Word(word), .. }) => word.value.clone(),
        Some(other) => return Err(wrong(other, "a column")),
        None => return Err(missing("the column")),
    };
    let token = rest.next().ok_or_else(|| missing("the comparison"))?;
    let op = Comparison::of(&token.token).ok_or_else(|| wrong(token, "one of > >= < <= = !="))?;
    let mut token = rest.next().ok_or_else(|| missing("the number"))?;
    let negative = token.token == Token::Minus;
    if negative {
        token = rest.next().ok_or_else(|| missing("the number"))?;
    }
    let Token::Number(digits, _) = &token.token else { return Err(wrong(token, "a number")) };
    let number: f64 = digits.parse().map_err(|_| wrong(token, "a number"))?;
    if let Some(more) = rest.next() {
        return Err(wrong(more, "nothing more"));
    }
    Ok(Condition { column, op, threshold: if negative { -number } else { number } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_read_and_hold() {
        for (text, below, same, above) in [
            ("n > 100", false, false, true),
            ("n>=100", false, true, true),
            ("n < 100", true, false, false),
            ("n <= 1e2", true, true, false),
            ("n = 100.0", false, true, false),
            ("n == 100", false, true, false),
            ("n != 100", true, false, true),
            ("n <> 100", true, false, true),
        ] {
            let condition = parse_condition(text).unwrap();
            let held = [99.9, 100.0, 100.1].map(|value| condition.holds(value));
            assert_eq!(held, [below, same, above], "{text}");
            assert!(!condition.holds(f64::NAN), "{text}");
            assert_eq!(parse_condition(&condition.to_string()).unwrap(), condition);
        }
        assert_eq!(parse_condition("x > -2.5").unwrap().threshold, -2.5);
        assert_eq!(parse_condition("\"p 95\" > 1").unwrap().column, "p 95");
    }

    #[test]
    fn complaints_point_at_the_place() {
        for (text, column, words) in [
            ("", 1, "empty"),
            ("n", 2, "comparison is missing"),
            ("n >", 4, "number is missing"),
            ("n ~ 1", 3, "expected one of"),
            ("n > x", 5, "expected a number, found x"),
            ("n > 1 AND m > 2", 7, "expected nothing more, found AND"),
            ("5 < n", 1, "expected a column"),
        ] {
            let found = parse_condition(text).unwrap_err();
            assert!(found.column == column && found.message.contains(words), "{text}: {found}");
        }
    }
}
