//! Expressions over one of two tables.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{Expr, Ident, visit_expressions, visit_expressions_mut},
    tokenizer::Location,
};

use super::kind::ValueKind;
use crate::{Diagnostic, text::at};

/// A column of one table as that table knows it.
pub(crate) fn of_side<'c>(column: &'c str, table: &str) -> Option<&'c str> {
    column.strip_prefix(table)?.strip_prefix('.')
}

pub(crate) fn sides_of(expr: &Expr, names: &[String; 2]) -> [bool; 2] {
    let mut found = [false, false];
    let ControlFlow::<()>::Continue(()) = visit_expressions(expr, |inner| {
        if let Expr::Identifier(Ident { value, .. }) = inner {
            for (side, name) in names.iter().enumerate() {
                found[side] |= of_side(value, name).is_some();
            }
        }
        ControlFlow::Continue(())
    }) else {
        return found;
    };
    found
}

/// The expression as one side knows its columns.
pub(crate) fn local(mut expr: Expr, table: &str) -> Expr {
    let ControlFlow::<()>::Continue(()) = visit_expressions_mut(&mut expr, |inner| {
        if let Expr::Identifier(ident) = inner
            && let Some(own) = of_side(&ident.value, table)
        {
            let own = own.to_owned();
            ident.value = own;
            ident.quote_style = Some('"');
        }
        ControlFlow::Continue(())
    }) else {
        return expr;
    };
    expr
}

/// Both sides of an equality, the left table's first.
pub(crate) fn pair(left: &Expr, right: &Expr, names: &[String; 2]) -> [Expr; 2] {
    let (left, right) = if sides_of(left, names)[0] { (left, right) } else { (right, left) };
    [local(left.clone(), &names[0]), local(right.clone(), &names[1])]
}

/// Brings two keys to one type.
pub(crate) fn alike(typed: &mut [(String, Option<ValueKind>); 2], place: Location) -> Result<(), Diagnostic> {
    use ValueKind::{Float, Integer, Text};
    let (left, right) = (typed[0].1, typed[1].1);
    if left == right {
        return Ok(());
    }
    let to = match (left, right) {
        (Some(Integer | Float), Some(Integer | Float)) => Float,
        // What an index holds is known as text only.
        (Some(Text), Some(_)) | (Some(_), Some(Text)) => Text,
        _ => {
            return Err(
                at(place, "the two columns are of different types").help("write CAST(… AS …) around one of them")
            );
        }
    };
    for (sql, kind) in typed.iter_mut().filter(|(_, kind)| *kind != Some(to)) {
        *sql = format!("CAST(({sql}) AS {})", to.sql());
        *kind = Some(to);
    }
    Ok(())
}
