//! The windowed shape: which items are keys, which are aggregates, and that they fit the GROUP BY.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use sqlparser::{
    ast::{
        Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Select, SelectItem,
        Spanned,
    },
    tokenizer::Location,
};

use crate::{
    Diagnostic, OutputColumn,
    continuous::{RESERVED_COLUMNS, named, row_expression},
    nearest,
    text::at,
    tumble::Tumble,
};

/// Most columns of a continuous query.
pub const COLUMNS_MAX: usize = 64;

/// The column that holds the start of a row's window.
pub const WINDOW_START: &str = "window_start";
/// The column that holds the end of a row's window.
pub const WINDOW_END: &str = "window_end";

/// Aggregates of tumbling windows by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windowed {
    /// How long a window lasts; windows begin at multiples of it.
    pub size: Duration,
    /// How far the watermark stays behind the latest event time.
    pub delay: Duration,
    /// The group keys in SELECT order.
    pub keys: Vec<KeyColumn>,
    /// The aggregates in SELECT order, at least one.
    pub aggregates: Vec<Aggregate>,
    /// The output name of the window's start, where it is selected.
    #[serde(default)]
    pub window_start: Option<String>,
    /// The output name of the window's end, where it is selected.
    #[serde(default)]
    pub window_end: Option<String>,
}

impl Windowed {
    pub(crate) fn row_columns(&self) -> Vec<OutputColumn> {
        let keys = self
            .keys
            .iter()
            .map(|key| OutputColumn { name: key.name.clone(), expr: format!("CAST(({}) AS TEXT)", key.expr) });
        let arguments = self.aggregates.iter().filter_map(|aggregate| {
            let argument = aggregate.argument.as_ref()?;
            let expr = match aggregate.function {
                AggregateFunction::Count => format!("CASE WHEN ({argument}) IS NOT NULL THEN CAST(1 AS DOUBLE) END"),
                _ => format!("TRY_CAST(({argument}) AS DOUBLE)"),
            };
            Some(OutputColumn { name: aggregate.name.clone(), expr })
        });
        keys.chain(arguments).collect()
    }
}

/// One group key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its output name.
    pub name: String,
    /// The expression over one row, as SQL.
    pub expr: String,
}

/// One aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Its output name.
    pub name: String,
    /// What it computes.
    pub function: AggregateFunction,
    /// The argument over one row, as SQL; `None` for `count(*)`.
    #[serde(default)]
    pub argument: Option<String>,
}

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregateFunction {
    /// Rows, or rows where the argument is not null.
    Count,
    /// The sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The mean.
    Avg,
}

pub(crate) const FUNCTIONS: [(&str, AggregateFunction); 5] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("avg", AggregateFunction::Avg),
];

/// Aggregates of SQL that a job does not have; named so that the complaint is about them and not about a missing column.
const UNAVAILABLE: [&str; 14] = [
    "mean",
    "median",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "percentile_cont",
];

/// The aggregate that a call names, by lower-case name.
pub(crate) fn aggregate_function(function: &Function) -> Option<String> {
    let name = function.name.to_string().to_lowercase();
    let known = FUNCTIONS.iter().any(|(known, _)| *known == name) || UNAVAILABLE.contains(&name.as_str());
    known.then_some(name)
}

/// Reads items and GROUP BY of a SELECT over a window.
pub(crate) fn read(select: &Select, window: &Tumble, begin: Location) -> Result<Windowed, Diagnostic> {
    let mut keys = Vec::new();
    let mut out = Windowed {
        size: window.size,
        delay: window.delay,
        keys: Vec::new(),
        aggregates: Vec::new(),
        window_start: None,
        window_end: None,
    };
    let mut seen = BTreeSet::new();
    for item in &select.projection {
        let (name, place) = match item {
            SelectItem::UnnamedExpr(Expr::Function(function))
            | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. }
                if aggregate_function(function).is_some() =>
            {
                let alias = match item {
                    SelectItem::ExprWithAlias { alias, .. } => Some(alias),
                    _ => None,
                };
                out.aggregates.push(aggregate(function, alias)?);
                (out.aggregates[out.aggregates.len() - 1].name.clone(), item.span().start)
            }
            item => {
                let (name, expr) = named(item, begin)?;
                match bound(expr) {
                    Some(WINDOW_START) => out.window_start = Some(name.clone()),
                    Some(_) => out.window_end = Some(name.clone()),
                    None => {
                        let (sql, place) = row_expression(expr)?;
                        keys.push((KeyColumn { name: name.clone(), expr: sql }, place));
                    }
                }
                (name, expr.span().start)
            }
        };
        if !seen.insert(name.clone()) {
            return Err(at(place, format!("two columns have the name {name}")).help("give one of them another alias"));
        }
    }
    if out.aggregates.is_empty() {
        return Err(at(begin, "a window needs an aggregate").help("add count(*) AS n to the SELECT list"));
    }
    if seen.len() > COLUMNS_MAX {
        return Err(at(begin, format!("a continuous query has at most {COLUMNS_MAX} columns")));
    }
    group_by(select, &keys, begin)?;
    out.keys = keys.into_iter().map(|(key, _)| key).collect();
    Ok(out)
}

/// Which bound of the window a plain identifier names.
fn bound(expr: &Expr) -> Option<&'static str> {
    let Expr::Identifier(Ident { value, .. }) = expr else { return None };
    [WINDOW_START, WINDOW_END].into_iter().find(|bound| value.eq_ignore_ascii_case(bound))
}

/// Every key is grouped by, everything grouped by is a key, and the window is among it.
fn group_by(select: &Select, keys: &[(KeyColumn, Location)], begin: Location) -> Result<(), Diagnostic> {
    let GroupByExpr::Expressions(groups, modifiers) = &select.group_by else {
        return Err(at(begin, "GROUP BY ALL is not available").help("name the keys and window_start"));
    };
    if !modifiers.is_empty() {
        return Err(at(begin, "ROLLUP, CUBE and TOTALS are not available in a continuous query"));
    }
    let mut windowed = false;
    let mut grouped = BTreeSet::new();
    for group in groups {
        let place = group.span().start;
        if let Some(bound) = bound(group) {
            windowed |= bound == WINDOW_START;
            continue;
        }
        let sql = group.to_string();
        let by_name = |key: &KeyColumn| matches!(group, Expr::Identifier(ident) if ident.value == key.name);
        match keys.iter().position(|(key, _)| by_name(key) || key.expr == sql) {
            Some(i) => {
                grouped.insert(i);
            }
            None => {
                let found = at(place, format!("{sql} is grouped by but not selected"));
                let names = keys.iter().map(|(key, _)| key.name.as_str()).chain([WINDOW_START, WINDOW_END]);
                return Err(match nearest(&sql, names) {
                    Some(meant) => found.help(format!("did you mean {meant}?")),
                    None => found.help(format!("add {sql} to the SELECT list")),
                });
            }
        }
    }
    if let Some((_, (key, place))) = keys.iter().enumerate().find(|(i, _)| !grouped.contains(i)) {
        return Err(at(*place, format!("{} is neither an aggregate nor grouped by", key.name))
            .help(format!("add {} to GROUP BY", key.name)));
    }
    if !windowed {
        let place = groups.first().map_or(begin, |group| group.span().start);
        return Err(at(place, "the window is not grouped by").help("add window_start to GROUP BY"));
    }
    Ok(())
}

fn aggregate(function: &Function, alias: Option<&Ident>) -> Result<Aggregate, Diagnostic> {
    let place = function.name.0.first().map_or(Location { line: 1, column: 1 }, |part| part.span().start);
    let name = function.name.to_string().to_lowercase();
    let Some((_, kind)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
        return Err(at(place, format!("{name} is not available in a continuous query"))
            .help("count, sum, min, max and avg are"));
    };
    let refused = [
        (function.filter.is_some(), "FILTER"),
        (function.over.is_some(), "OVER"),
        (!function.within_group.is_empty(), "WITHIN GROUP"),
        (function.null_treatment.is_some(), "IGNORE NULLS"),
    ];
    if let Some((_, clause)) = refused.iter().find(|(present, _)| *present) {
        return Err(at(place, format!("{clause} is not available in a continuous query")));
    }
    let FunctionArguments::List(list) = &function.args else {
        return Err(at(place, format!("{name} needs its argument in parentheses")));
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(at(place, format!("{name} takes no DISTINCT, ALL or ORDER BY in a continuous query")));
    }
    let argument = match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] | [] if *kind == AggregateFunction::Count => None,
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Some(expr),
        _ => {
            return Err(at(place, format!("{name} takes one argument")).help(format!("write {name}(<column>)")));
        }
    };
    let sql = argument.map(row_expression).transpose()?.map(|(sql, _)| sql);
    let name = match (alias, argument) {
        (Some(alias), _) => alias.value.clone(),
        (None, None) => name,
        (None, Some(Expr::Identifier(column))) => format!("{name}_{}", column.value),
        (None, Some(expr)) => {
            return Err(at(place, format!("the column {name}({expr}) needs a name"))
                .help(format!("write {name}({expr}) AS <name>")));
        }
    };
    if RESERVED_COLUMNS.contains(&name.as_str()) {
        return Err(at(place, format!("{name} is a column of the platform")).help("choose another alias"));
    }
    Ok(Aggregate { name, function: *kind, argument: sql })
}
