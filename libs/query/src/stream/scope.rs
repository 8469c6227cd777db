//! Rows on their way: which columns they have, what a name means among them, and what windows they stand for.

use std::{collections::BTreeMap, ops::ControlFlow};

use sqlparser::{
    ast::{
        BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned, Value, ValueWithSpan,
        Visit, Visitor, visit_expressions, visit_expressions_mut,
    },
    tokenizer::{Location, Span},
};

use super::{
    kind::{ValueKind, kind_of},
    plan::{Order, Window},
    table::Sequence,
};
use crate::{
    Diagnostic, WINDOW_END, WINDOW_START,
    continuous::RESERVED_COLUMNS,
    nearest,
    text::{at, dotted},
    windowed::aggregate_function,
};

/// A column, and its type where it is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Option<ValueKind>,
}

/// What rows stand for.
#[derive(Debug)]
pub(crate) enum Rows<'a> {
    /// Themselves.
    Plain,
    /// Themselves, to be put into windows yet.
    Windowed(Window),
    /// Results of windows; where their bounds are, if anywhere.
    Results { window: Window, start: Option<String>, end: Option<String> },
    /// To be ranked yet.
    Ranked(Ranking),
    /// To be searched for sequences yet.
    Sequence(Sequence<'a>),
    /// What was ranked: nothing that goes by time can follow.
    Last,
    /// Changes of a result, and what makes it change.
    Changes(Location),
}

/// What `row_number()` says.
#[derive(Debug)]
pub(crate) struct Ranking {
    pub(crate) keys: Vec<String>,
    pub(crate) order: Vec<Order>,
    pub(crate) rank: String,
    pub(crate) windowed: bool,
    pub(crate) place: Location,
}

/// Rows of a step.
#[derive(Debug)]
pub(crate) struct Relation<'a> {
    pub(crate) node: usize,
    /// By which names its columns may be told apart from others'.
    pub(crate) names: Vec<String>,
    pub(crate) columns: Vec<Column>,
    /// Whether rows may have other columns too.
    pub(crate) open: bool,
    /// Whether columns are called `<table>.<column>`.
    pub(crate) joined: bool,
    pub(crate) rows: Rows<'a>,
}

impl Relation<'_> {
    /// The type of a column.
    pub(crate) fn kind(&self, name: &str) -> Option<ValueKind> {
        match name {
            "_time" | "_received" => Some(ValueKind::Time),
            _ => self.columns.iter().find(|column| column.name == name).and_then(|column| column.kind),
        }
    }

    /// The type of an expression over it.
    pub(crate) fn kind_of(&self, expr: &Expr) -> Option<ValueKind> {
        kind_of(expr, &|name| self.kind(name))
    }

    /// Whether rows can have that column.
    pub(crate) fn has(&self, name: &str) -> bool {
        let reserved = RESERVED_COLUMNS.contains(&name) && self.open;
        name == "_time" || reserved || self.open || self.columns.iter().any(|column| column.name == name)
    }

    /// The expression with every name as the rows have it.
    pub(crate) fn expr(&self, expr: &Expr) -> Result<Expr, Diagnostic> {
        let mut out = expr.clone();
        let found = visit_expressions_mut(&mut out, |inner| {
            let meant = match inner {
                Expr::CompoundIdentifier(parts) => self.compound(parts),
                Expr::Identifier(ident) => self.plain(ident),
                _ => return ControlFlow::Continue(()),
            };
            match meant {
                Ok(meant) => {
                    *inner = meant;
                    ControlFlow::Continue(())
                }
                Err(found) => ControlFlow::Break(Box::new(found)),
            }
        });
        match found {
            ControlFlow::Break(found) => Err(*found),
            ControlFlow::Continue(()) => Ok(out),
        }
    }

    fn compound(&self, parts: &[Ident]) -> Result<Expr, Diagnostic> {
        let Some((first, rest)) = parts.split_first() else { return Ok(dotted(parts)) };
        let of_table = !rest.is_empty() && self.names.contains(&first.value);
        let span = parts.iter().map(|part| part.span).reduce(|a, b| a.union(&b)).unwrap_or_else(Span::empty);
        if self.joined {
            if !of_table {
                let found = at(first.span.start, format!("{} is not one of the joined tables", first.value));
                return Err(found.help(format!("they are {}", self.names.join(" and "))));
            }
            return self.known(dotted(parts), span.start);
        }
        match (of_table, rest) {
            (true, [only]) => self.plain(only),
            (true, _) => self.known(dotted(rest), span.start),
            (false, _) => self.known(dotted(parts), span.start),
        }
    }

    fn plain(&self, ident: &Ident) -> Result<Expr, Diagnostic> {
        let place = ident.span.start;
        if !self.joined {
            let bound = [WINDOW_START, WINDOW_END].into_iter().find(|bound| ident.value.eq_ignore_ascii_case(bound));
            let expr = match bound.filter(|_| matches!(self.rows, Rows::Windowed(_))) {
                Some(bound) => at_place(bound, ident.span),
                None => Expr::Identifier(ident.clone()),
            };
            return self.known(expr, place);
        }
        // Resolved already.
        if self.columns.iter().any(|column| column.name == ident.value) {
            return Ok(Expr::Identifier(ident.clone()));
        }
        let of = |column: &&Column| column.name.split_once('.').is_some_and(|(_, name)| name == ident.value);
        let meant: Vec<&Column> = self.columns.iter().filter(of).collect();
        match meant.as_slice() {
            [one] if !self.open => Ok(at_place(&one.name, ident.span)),
            _ => Err(at(place, format!("which table has {}?", ident.value)).help(format!(
                "write {}.{}",
                self.names.first().map_or("table", String::as_str),
                ident.value
            ))),
        }
    }

    fn known(&self, expr: Expr, place: Location) -> Result<Expr, Diagnostic> {
        let Expr::Identifier(Ident { value, .. }) = &expr else { return Ok(expr) };
        if self.has(value) {
            return Ok(expr);
        }
        let found = at(place, format!("there is no column {value}"));
        let names = || self.columns.iter().map(|column| column.name.as_str());
        Err(match nearest(value, names()) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => found.help(format!("there are {}", names().take(20).collect::<Vec<_>>().join(", "))),
        })
    }

    /// Refuses rows of which something is still to be said.
    pub(crate) fn settled(self) -> Result<Self, Diagnostic> {
        match &self.rows {
            Rows::Ranked(ranking) => Err(at(ranking.place, "a rank without end: rows would never be final")
                .help(format!("say how many in a query around it: SELECT … FROM (…) WHERE {} <= 3", ranking.rank))),
            _ => Ok(self),
        }
    }
}

/// A column by its name, as an expression.
pub(crate) fn named(name: &str) -> Expr {
    Expr::Identifier(Ident::with_quote('"', name))
}

fn at_place(name: &str, span: Span) -> Expr {
    Expr::Identifier(Ident { value: name.to_owned(), quote_style: Some('"'), span })
}

/// The expression as SQL, if it looks at one row only.
pub(crate) fn row_sql(expr: &Expr) -> Result<String, Diagnostic> {
    let found = visit_expressions(expr, |inner| {
        let place = inner.span().start;
        let found = match inner {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                at(place, "a subquery inside an expression would have to be asked again for every row")
                    .help("join it within a time: JOIN … ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '1 minute'")
            }
            Expr::Function(function) if function.over.is_some() => at(place, "OVER stands in the SELECT list only"),
            Expr::Function(function) if aggregate_function(function).is_some() => {
                at(place, format!("the aggregate {} cannot stand here: this looks at single rows", function.name))
                    .help("GROUP BY, and say HAVING about what comes of it")
            }
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Box::new(found))
    });
    match found {
        ControlFlow::Break(found) => Err(*found),
        ControlFlow::Continue(()) => Ok(expr.to_string()),
    }
}

/// The parts of an expression that all must be true.
pub(crate) fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut parts = conjuncts(left);
            parts.extend(conjuncts(right));
            parts
        }
        Expr::Nested(inner) if matches!(**inner, Expr::BinaryOp { op: BinaryOperator::And, .. }) => conjuncts(inner),
        other => vec![other],
    }
}

/// Which columns of a table are used, and whether as numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) all: bool,
    pub(crate) names: BTreeMap<String, bool>,
}

impl Wanted {
    /// Every column.
    pub(crate) fn all() -> Self {
        Self { all: true, names: BTreeMap::new() }
    }

    /// Whether a column is reckoned with.
    pub(crate) fn is_number(&self, name: &str) -> bool {
        self.names.get(name).copied().unwrap_or(false)
    }

    /// Those of both.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.all |= other.all;
        for (name, number) in &other.names {
            *self.names.entry(name.clone()).or_default() |= number;
        }
        self
    }

    /// Adds what an expression uses of a table; `joined` tells whether others have columns too.
    pub(crate) fn note<V: Visit>(&mut self, expr: &V, names: &[String], joined: bool) {
        let ControlFlow::<()>::Continue(()) = expr.visit(&mut Uses { wanted: self, names, joined }) else { return };
    }
}

struct Uses<'u> {
    wanted: &'u mut Wanted,
    names: &'u [String],
    joined: bool,
}

impl Uses<'_> {
    fn name(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(ident) => Some(ident.value.clone()),
            Expr::Nested(inner) => self.name(inner),
            Expr::CompoundIdentifier(parts) => {
                let all: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
                match all.split_first() {
                    Some((first, rest)) if self.names.iter().any(|name| name == first) => Some(rest.join(".")),
                    _ if self.joined => None,
                    _ => Some(all.join(".")),
                }
            }
            _ => None,
        }
    }

    fn use_of(&mut self, expr: &Expr, number: bool) {
        if let Some(name) = self.name(expr) {
            *self.wanted.names.entry(name).or_default() |= number;
        }
    }
}

impl Visitor for Uses<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.use_of(expr, false),
            Expr::BinaryOp { left, op: Plus | Minus | Multiply | Divide | Modulo, right }
                if !is_interval(left) && !is_interval(right) =>
            {
                self.use_of(left, true);
                self.use_of(right, true);
            }
            Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } => {
                self.use_of(left, is_number(right));
                self.use_of(right, is_number(left));
            }
            Expr::Between { expr, low, high, .. } => self.use_of(expr, is_number(low) || is_number(high)),
            Expr::Function(function) => {
                let adds = ["sum", "avg", "min", "max"]
                    .iter()
                    .any(|name| function.name.to_string().eq_ignore_ascii_case(name));
                if let FunctionArguments::List(list) = &function.args
                    && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice()
                {
                    self.use_of(argument, adds);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_interval(expr: &Expr) -> bool {
    matches!(expr, Expr::Interval(_))
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => is_number(expr),
        other => matches!(other, Expr::Value(ValueWithSpan { value: Value::Number(..), .. })),
    }
}
