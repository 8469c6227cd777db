//! Continuous queries: what a job computes, as plain data.

use std::{collections::BTreeSet, convert::Infallible, ops::ControlFlow};

use serde::{Deserialize, Serialize};
use sqlparser::{
    ast::{
        Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Spanned, Statement, TableFactor, TableWithJoins,
        visit_expressions, visit_expressions_mut,
    },
    tokenizer::{Location, TokenWithSpan},
};
use types::IndexName;

use crate::{
    COLUMNS_MAX, Diagnostic, Windowed,
    text::{at, dashed, dotted, index_at, index_name, is_word, misspelt, statement, tokens},
    tumble, windowed,
};

/// A continuous query that has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuous {
    /// The index named by `INSERT INTO`.
    #[serde(default)]
    pub insert_into: Option<IndexName>,
    /// The index that it reads.
    pub source: IndexName,
    /// The predicate on source rows, as SQL.
    #[serde(default)]
    pub filter: Option<String>,
    /// What becomes of the rows.
    pub shape: Shape,
}

/// Columns that the platform gives to every row; a query may select them, but not give their names to something else.
pub const RESERVED_COLUMNS: [&str; 4] = ["_time", "_received", "_segment", "_offset"];

impl Continuous {
    /// The columns that a source must compute for each row, besides [`RESERVED_COLUMNS`]; none stands for every column.
    ///
    /// For a window these are the keys, then under each aggregate's output name its argument. Their types never vary,
    /// whatever the rows hold: keys are text, arguments are 64-bit floats, null where a value is no number; the
    /// argument of `count(x)` is 1 or null, and `count(*)` has none. Whole numbers are therefore exact up to 2^53.
    pub fn row_columns(&self) -> Vec<OutputColumn> {
        match &self.shape {
            Shape::Windowed(window) => window.row_columns(),
            Shape::Stateless { columns } => columns.clone(),
        }
    }
}

/// What a continuous query does with its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Aggregates of tumbling windows.
    Windowed(Windowed),
    /// One row out for each row in.
    Stateless {
        /// The columns; none stands for `*`: every column as it is.
        columns: Vec<OutputColumn>,
    },
}

/// One computed column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputColumn {
    /// Its name.
    pub name: String,
    /// The expression, as SQL.
    pub expr: String,
}

/// Reads `[INSERT INTO <index>] SELECT … FROM tumble(<index>, INTERVAL '…' [, watermark delay INTERVAL '…']) [WHERE …]
/// GROUP BY <keys>, window_start[, window_end]`, or without a window `[INSERT INTO <index>] SELECT … FROM <index> [WHERE …]`.
///
/// Errors: everything else, with the place and what to write instead.
pub fn parse_continuous(text: &str) -> Result<Continuous, Diagnostic> {
    let mut tokens = tokens(text)?;
    let insert_into = take_insert(&mut tokens)?;
    let begin = match tokens.first() {
        Some(first) if is_word(Some(first), "SELECT") => first.span.start,
        Some(first) => return Err(no_select(first)),
        None => return Err(Diagnostic::new(1, 1, "the SELECT is missing")),
    };
    for i in 0..tokens.len() {
        if is_word(tokens.get(i), "FROM") {
            dashed(&tokens, i + 1)?;
        }
    }
    let window = tumble::take(&mut tokens)?;
    let mut statement = statement(text, tokens)?;
    let ControlFlow::<Infallible>::Continue(()) = visit_expressions_mut(&mut statement, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            *expr = dotted(parts);
        }
        ControlFlow::Continue(())
    });
    let select = plain_select(statement, begin)?;
    let source = source(&select, begin)?;
    let filter = select.selection.as_ref().map(row_expression).transpose()?.map(|(sql, _)| sql);
    let shape = match window {
        Some(window) => Shape::Windowed(windowed::read(&select, &window, begin)?),
        None => stateless(&select, begin)?,
    };
    Ok(Continuous { insert_into, source, filter, shape })
}

fn no_select(first: &TokenWithSpan) -> Diagnostic {
    let found = at(first.span.start, format!("a continuous query does not begin with {}", first.token));
    match &first.token {
        sqlparser::tokenizer::Token::Word(word) => match misspelt(word, &["SELECT", "INSERT"]) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => found.help("begin with SELECT or INSERT INTO <index> SELECT"),
        },
        _ => found.help("begin with SELECT or INSERT INTO <index> SELECT"),
    }
}

pub(crate) fn take_insert(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<IndexName>, Diagnostic> {
    if !is_word(tokens.first(), "INSERT") {
        return Ok(None);
    }
    if !is_word(tokens.get(1), "INTO") {
        let place = tokens.get(1).map_or(tokens[0].span.end, |t| t.span.start);
        return Err(at(place, "INTO is missing").help("write INSERT INTO <index> SELECT …"));
    }
    let (index, _) = index_at(tokens, 2)?;
    tokens.drain(..3);
    Ok(Some(index))
}

/// The one plain SELECT inside, with every clause refused that a job does not have.
fn plain_select(statement: Statement, begin: Location) -> Result<Box<Select>, Diagnostic> {
    let Statement::Query(query) = statement else { return Err(at(begin, "a continuous query is one SELECT")) };
    let Query { with, body, order_by, limit_clause, fetch, .. } = *query;
    let refused = [
        (with.is_some(), "WITH"),
        (order_by.is_some(), "ORDER BY"),
        (limit_clause.is_some(), "LIMIT"),
        (fetch.is_some(), "FETCH"),
    ];
    if let Some((_, clause)) = refused.iter().find(|(present, _)| *present) {
        return Err(at(begin, format!("{clause} is not possible in a continuous query: its rows never end")));
    }
    let SetExpr::Select(select) = *body else {
        return Err(at(begin, "a continuous query is one SELECT, without UNION, EXCEPT or INTERSECT"));
    };
    if let Some(having) = &select.having {
        return Err(at(having.span().start, "HAVING is not available in a continuous query")
            .help("insert all rows into an index and filter there, or use an alert rule with a condition"));
    }
    let refused = [
        (select.distinct.is_some(), "DISTINCT"),
        (select.into.is_some(), "INTO"),
        (select.qualify.is_some(), "QUALIFY"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.top.is_some(), "TOP"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, clause)) => Err(at(begin, format!("{clause} is not available in a continuous query"))),
        None => Ok(select),
    }
}

fn source(select: &Select, begin: Location) -> Result<IndexName, Diagnostic> {
    let one = "a continuous query reads one index";
    let [TableWithJoins { relation, joins }] = select.from.as_slice() else { return Err(at(begin, one)) };
    if let Some(join) = joins.first() {
        return Err(at(join.relation.span().start, format!("{one}; joins are not available")));
    }
    let TableFactor::Table { name, alias, args: None, .. } = relation else {
        return Err(at(relation.span().start, format!("{one}; subqueries and other functions are not available")));
    };
    if let Some(alias) = alias {
        return Err(at(alias.name.span.start, "an alias is not needed: a continuous query reads one index"));
    }
    match name.0.as_slice() {
        [part] if part.as_ident().is_some() => part.as_ident().map_or_else(|| Err(at(begin, one)), index_name),
        _ => Err(at(relation.span().start, format!("{name} is not an index: an index name has no schema"))),
    }
}

/// The SQL of an expression over one row, and where it stands; aggregates and subqueries are refused.
pub(crate) fn row_expression(expr: &Expr) -> Result<(String, Location), Diagnostic> {
    let place = expr.span().start;
    let found = visit_expressions(expr, |inner| match inner {
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
            ControlFlow::Break(at(place, "subqueries are not available in a continuous query"))
        }
        Expr::Function(function) if function.over.is_some() => {
            ControlFlow::Break(at(inner.span().start, "OVER is not available in a continuous query"))
        }
        Expr::Function(function) if windowed::aggregate_function(function).is_some() => ControlFlow::Break(
            at(inner.span().start, format!("the aggregate {} cannot stand inside an expression here", function.name))
                .help("give each aggregate a column of its own; WHERE sees single rows"),
        ),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(found) => Err(found),
        ControlFlow::Continue(()) => Ok((expr.to_string(), place)),
    }
}

/// The name and expression of an item; what is no plain column needs an alias.
pub(crate) fn named(item: &SelectItem, begin: Location) -> Result<(String, &Expr), Diagnostic> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            let same = matches!(expr, Expr::Identifier(ident) if ident.value == alias.value);
            if RESERVED_COLUMNS.contains(&alias.value.as_str()) && !same {
                return Err(at(alias.span.start, format!("{} is a column of the platform", alias.value))
                    .help("choose another alias"));
            }
            Ok((alias.value.clone(), expr))
        }
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => match item {
            SelectItem::UnnamedExpr(expr) => Ok((ident.value.clone(), expr)),
            _ => Err(at(begin, "an expression is expected")),
        },
        SelectItem::UnnamedExpr(expr) => {
            Err(at(expr.span().start, format!("the column {expr} needs a name"))
                .help(format!("write {expr} AS <name>")))
        }
        other => Err(at(other.span().start, format!("{other} is not possible among other columns"))
            .help("name the columns one by one")),
    }
}

fn stateless(select: &Select, begin: Location) -> Result<Shape, Diagnostic> {
    if !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()) {
        return Err(at(select.group_by.span().start, "GROUP BY needs a window: rows never end")
            .help("write FROM tumble(<index>, INTERVAL '10 seconds') and GROUP BY …, window_start"));
    }
    if let [SelectItem::Wildcard(_)] = select.projection.as_slice() {
        return Ok(Shape::Stateless { columns: Vec::new() });
    }
    let mut seen = BTreeSet::new();
    let mut columns = Vec::new();
    for item in &select.projection {
        if let SelectItem::UnnamedExpr(Expr::Function(function))
        | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } = item
            && windowed::aggregate_function(function).is_some()
        {
            return Err(at(item.span().start, format!("{} needs a window: rows never end", function.name))
                .help("write FROM tumble(<index>, INTERVAL '10 seconds') and GROUP BY window_start"));
        }
        let (name, expr) = named(item, begin)?;
        let (expr, place) = row_expression(expr)?;
        if !seen.insert(name.clone()) {
            return Err(at(place, format!("two columns have the name {name}")));
        }
        columns.push(OutputColumn { name, expr });
    }
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        return Err(at(begin, format!("a continuous query has from 1 to {COLUMNS_MAX} columns")));
    }
    Ok(Shape::Stateless { columns })
}

#[cfg(test)]
mod tests;
