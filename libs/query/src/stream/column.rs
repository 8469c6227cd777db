//! The columns that a step needs, each computed once and of one type whatever the rows hold.

use sqlparser::{ast::Expr, tokenizer::Location};

use super::{
    kind::ValueKind,
    scope::{Relation, Wanted, named, row_sql},
};
use crate::{Diagnostic, OutputColumn, text::at};

/// What a column is for, which says what it is where nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Rows meet by it: text.
    Key,
    /// It is reckoned with: a float.
    Number,
    /// It comes out again: a float if it is reckoned with somewhere, else text.
    Value,
    /// Whether it is there.
    Presence,
    /// It orders rows: a float.
    Rank,
}

/// The projection in front of a step.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    columns: Vec<(OutputColumn, Option<ValueKind>)>,
}

/// An expression over rows as SQL with a type that never varies.
pub(crate) fn typed(
    relation: &Relation<'_>,
    expr: &Expr,
    role: Role,
    wanted: &Wanted,
    place: Location,
) -> Result<(String, Option<ValueKind>), Diagnostic> {
    let sql = row_sql(expr)?;
    let known = relation.kind_of(expr);
    let float = || (format!("TRY_CAST(({sql}) AS DOUBLE)"), Some(ValueKind::Float));
    let text = || (format!("CAST(({sql}) AS TEXT)"), Some(ValueKind::Text));
    Ok(match (role, known) {
        (Role::Number, Some(kind)) if !matches!(kind, ValueKind::Integer | ValueKind::Float) => {
            let found = at(place, format!("{sql} is {}, and no number", kind.sql().to_lowercase()));
            return Err(found.help(format!("write CAST({sql} AS DOUBLE)")));
        }
        (Role::Presence, None) => {
            (format!("CASE WHEN ({sql}) IS NOT NULL THEN CAST(1 AS DOUBLE) END"), Some(ValueKind::Float))
        }
        // What is reckoned may have fewer bits than a column that says so.
        (_, Some(kind @ (ValueKind::Integer | ValueKind::Float))) if !matches!(expr, Expr::Identifier(_)) => {
            (format!("CAST(({sql}) AS {})", kind.sql()), Some(kind))
        }
        (_, Some(kind)) => (sql, Some(kind)),
        (Role::Key, None) => text(),
        (Role::Number | Role::Rank, None) => float(),
        (Role::Value, None) => {
            let number = matches!(expr, Expr::Identifier(ident) if wanted.is_number(&ident.value));
            if number { float() } else { text() }
        }
    })
}

impl Needed {
    /// A column under any name; one that is there with the same value serves.
    pub(crate) fn any(&mut self, name: &str, (sql, kind): (String, Option<ValueKind>)) -> String {
        // It goes with every row.
        if matches!(sql.as_str(), "_time" | "\"_time\"") {
            return "_time".to_owned();
        }
        if let Some((known, _)) = self.columns.iter().find(|(column, _)| column.expr == sql) {
            return known.name.clone();
        }
        let taken = |name: &str| self.columns.iter().any(|(column, _)| column.name == name);
        let mut free = name.to_owned();
        let mut number = 2_u32;
        while taken(&free) {
            free = format!("{name} {number}");
            number += 1;
        }
        self.columns.push((OutputColumn { name: free.clone(), expr: sql }, kind));
        free
    }

    /// A column under that name, unless there is one already.
    pub(crate) fn put(&mut self, name: &str, (sql, kind): (String, Option<ValueKind>)) {
        if !self.columns.iter().any(|(column, _)| column.name == name) {
            self.columns.push((OutputColumn { name: name.to_owned(), expr: sql }, kind));
        }
    }

    /// The type of a column that was put.
    pub(crate) fn kind(&self, name: &str) -> Option<ValueKind> {
        self.columns.iter().find(|(column, _)| column.name == name).and_then(|(_, kind)| *kind)
    }

    /// Names and types.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&String, Option<ValueKind>)> {
        self.columns.iter().map(|(column, kind)| (&column.name, *kind))
    }

    /// Whether these are all columns of the rows, as they are.
    pub(crate) fn is_all_of(&self, relation: &Relation<'_>) -> bool {
        let same = |column: &OutputColumn| {
            let quoted = named(&column.name).to_string();
            (column.expr == column.name || column.expr == quoted)
                && relation.columns.iter().any(|known| known.name == column.name)
        };
        !relation.open
            && relation.columns.len() == self.columns.len()
            && self.columns.iter().all(|(column, _)| same(column))
    }

    /// The columns; at least one, since a projection without any would keep all.
    pub(crate) fn columns(mut self) -> Vec<OutputColumn> {
        if self.columns.is_empty() {
            self.put("_", ("true".to_owned(), Some(ValueKind::Boolean)));
        }
        self.columns.into_iter().map(|(column, _)| column).collect()
    }
}
