//! Single expressions over one row: what stands in `WHERE` and in the columns of a job.

use std::{collections::BTreeSet, convert::Infallible, ops::ControlFlow};

use sqlparser::ast::{Expr, visit_expressions, visit_expressions_mut};

use crate::{
    Diagnostic,
    continuous::row_expression,
    text::{dotted, expression, tokens},
};

/// An expression over one row that has been read but not yet typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The expression as SQL; dotted field names are one quoted identifier each.
    pub sql: String,
    /// The columns that it reads.
    pub columns: BTreeSet<String>,
}

/// Reads one expression over one row.
///
/// Errors: what is no expression, and aggregates, window functions and subqueries.
pub fn parse_expression(text: &str) -> Result<Expression, Diagnostic> {
    let mut expr = expression(text, tokens(text)?)?;
    let ControlFlow::<Infallible>::Continue(()) = visit_expressions_mut(&mut expr, |inner| {
        if let Expr::CompoundIdentifier(parts) = inner {
            *inner = dotted(parts);
        }
        ControlFlow::Continue(())
    });
    let (sql, _) = row_expression(&expr)?;
    let mut columns = BTreeSet::new();
    let ControlFlow::<Infallible>::Continue(()) = visit_expressions(&expr, |inner| {
        if let Expr::Identifier(ident) = inner {
            columns.insert(ident.value.clone());
        }
        ControlFlow::Continue(())
    });
    Ok(Expression { sql, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_tell_their_columns() {
        for (text, sql, columns) in [
            ("severity = 'error'", "severity = 'error'", vec!["severity"]),
            ("http.status >= 500 and a", "\"http.status\" >= 500 AND a", vec!["a", "http.status"]),
            ("CASE WHEN x THEN y ELSE z.w END", "CASE WHEN x THEN y ELSE \"z.w\" END", vec!["x", "y", "z.w"]),
            ("1 + 1", "1 + 1", vec![]),
        ] {
            let read = parse_expression(text).unwrap();
            assert_eq!(
                (read.sql.as_str(), read.columns.iter().map(String::as_str).collect::<Vec<_>>()),
                (sql, columns)
            );
        }
        for bad in ["", "a b", "count(*) > 1", "a IN (SELECT 1)", "SELECT 1", "a, b"] {
            assert!(parse_expression(bad).is_err(), "{bad}");
        }
    }
}
