//! The SELECT list: what each column is called and how it is computed.

use std::collections::BTreeSet;

use sqlparser::{
    ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, Spanned},
    tokenizer::Location,
};

use super::scope::{Relation, Wanted, named};
use crate::{
    AggregateFunction, COLUMNS_MAX, Diagnostic,
    continuous::RESERVED_COLUMNS,
    text::at,
    windowed::{FUNCTIONS, aggregate_function},
};

/// One column of a SELECT list.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) name: String,
    /// With every name as the rows have it.
    pub(crate) expr: Expr,
    pub(crate) place: Location,
}

/// Reads a SELECT list; a `*` stands for the columns that rows have, or those of them that are wanted.
pub(crate) fn items(list: &[SelectItem], relation: &Relation<'_>, wanted: &Wanted) -> Result<Vec<Item>, Diagnostic> {
    let mut found = Vec::new();
    for item in list {
        let place = item.span().start;
        match item {
            SelectItem::UnnamedExpr(expr) => {
                found.push(Item { name: plain_name(expr, relation)?, expr: relation.expr(expr)?, place });
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                check_alias(alias, expr)?;
                found.push(Item { name: alias.value.clone(), expr: relation.expr(expr)?, place });
            }
            SelectItem::Wildcard(_) => star(None, list, relation, wanted, place, &mut found)?,
            SelectItem::QualifiedWildcard(table, _) => {
                let table = table.to_string();
                let table = table.trim_end_matches(".*").trim_matches('"').to_owned();
                if !relation.names.contains(&table) {
                    return Err(at(place, format!("{table} is not one of the tables")));
                }
                star(Some(&table), list, relation, wanted, place, &mut found)?;
            }
            SelectItem::ExprWithAliases { .. } => return Err(at(place, "a column has one name")),
        }
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = found.iter().find(|item| !seen.insert(&item.name)) {
        return Err(
            at(twice.place, format!("two columns have the name {}", twice.name)).help("give one of them another alias")
        );
    }
    if found.is_empty() || found.len() > COLUMNS_MAX {
        let place = list.first().map_or(Location { line: 1, column: 1 }, |item| item.span().start);
        return Err(at(place, format!("a continuous query has from 1 to {COLUMNS_MAX} columns")));
    }
    Ok(found)
}

fn star(
    table: Option<&str>,
    list: &[SelectItem],
    relation: &Relation<'_>,
    wanted: &Wanted,
    place: Location,
    found: &mut Vec<Item>,
) -> Result<(), Diagnostic> {
    let given = |name: &str| {
        list.iter().any(|item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value == name))
    };
    let prefix = table.filter(|_| relation.joined).map(|table| format!("{table}."));
    let mut add = |column: &str| {
        if column.starts_with('_') || prefix.as_ref().is_some_and(|prefix| !column.starts_with(prefix.as_str())) {
            return;
        }
        let short = if relation.joined { column.split_once('.').map_or(column, |(_, short)| short) } else { column };
        if !short.starts_with('_') && !given(short) {
            found.push(Item { name: short.to_owned(), expr: named(column), place });
        }
    };
    if !relation.open {
        relation.columns.iter().for_each(|column| add(&column.name));
        return Ok(());
    }
    if wanted.all {
        return Err(
            at(place, "* is not possible here: an index has no list of columns").help("name the columns one by one")
        );
    }
    wanted.names.keys().for_each(|name| add(name));
    Ok(())
}

fn check_alias(alias: &Ident, expr: &Expr) -> Result<(), Diagnostic> {
    let same = matches!(expr, Expr::Identifier(ident) if ident.value == alias.value);
    if RESERVED_COLUMNS.contains(&alias.value.as_str()) && !same {
        return Err(
            at(alias.span.start, format!("{} is a column of the platform", alias.value)).help("choose another alias")
        );
    }
    Ok(())
}

/// The name of a column without an alias.
fn plain_name(expr: &Expr, relation: &Relation<'_>) -> Result<String, Diagnostic> {
    let join = |parts: &[Ident]| parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
    match expr {
        Expr::Identifier(ident) => Ok(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => Ok(match parts.split_first() {
            Some((table, rest)) if relation.names.contains(&table.value) => join(rest),
            _ => join(parts),
        }),
        Expr::Function(function) if function.over.is_none() && aggregate_function(function).is_some() => {
            let name = function.name.to_string().to_lowercase();
            match argument(function) {
                None => Ok(name),
                Some(Expr::Identifier(column)) => Ok(format!("{name}_{}", column.value)),
                Some(_) => Err(nameless(expr)),
            }
        }
        other => Err(nameless(other)),
    }
}

fn nameless(expr: &Expr) -> Diagnostic {
    at(expr.span().start, format!("the column {expr} needs a name")).help(format!("write {expr} AS <name>"))
}

/// The one argument of a call.
pub(crate) fn argument(function: &Function) -> Option<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Some(expr),
            _ => None,
        },
        _ => None,
    }
}

/// What an aggregate computes, and of what; nothing stands for `count(*)`.
pub(crate) fn aggregate(function: &Function) -> Result<(AggregateFunction, Option<&Expr>), Diagnostic> {
    let place = function.span().start;
    let name = function.name.to_string().to_lowercase();
    let Some((_, kind)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
        return Err(at(place, format!("{name} is not available in a continuous query"))
            .help("count, sum, min, max and avg are"));
    };
    let refused = [
        (function.filter.is_some(), "FILTER"),
        (!function.within_group.is_empty(), "WITHIN GROUP"),
        (function.null_treatment.is_some(), "IGNORE NULLS"),
    ];
    if let Some((_, clause)) = refused.iter().find(|(present, _)| *present) {
        let found = at(place, format!("{clause} is not available in a continuous query"));
        return Err(found.help(format!("write {name}(CASE WHEN … THEN … END)")));
    }
    let FunctionArguments::List(list) = &function.args else {
        return Err(at(place, format!("{name} needs its argument in parentheses")));
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(at(place, format!("{name} takes no DISTINCT, ALL or ORDER BY in a continuous query"))
            .help("group by the column in a query inside this one"));
    }
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] | [] if *kind == AggregateFunction::Count => {
            Ok((*kind, None))
        }
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Ok((*kind, Some(expr))),
        _ => Err(at(place, format!("{name} takes one argument")).help(format!("write {name}(<column>)"))),
    }
}
