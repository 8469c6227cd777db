//! From a SELECT to steps.

use std::time::Duration;

use sqlparser::{
    ast::{
        Distinct, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr, Spanned,
        TableAlias, TableFactor, TableWithJoins,
    },
    tokenizer::Location,
};

use super::{
    item::{Item, items},
    kind::ValueKind,
    plan::Node,
    scope::{Column, Relation, Rows, Wanted, conjuncts, row_sql},
    source::Input,
    table::{self, Patience},
};
use crate::{
    DELAY_DEFAULT, Diagnostic, OutputColumn, WINDOW_END, WINDOW_START, text::at, windowed::aggregate_function,
};

/// Most tables and subqueries of a text, those of a WITH as often as they are named.
const RELATIONS_MAX: usize = 64;

/// Makes the steps of statements.
#[derive(Debug, Default)]
pub(crate) struct Planner<'a> {
    pub(crate) nodes: Vec<Node>,
    /// What the text says of waiting, by input.
    pub(crate) patience: Vec<(Input, Patience)>,
    /// What `EMIT EVERY` says, until a window has taken it.
    pub(crate) emit_every: Option<Duration>,
    pub(crate) with: Vec<(&'a Ident, &'a Query)>,
    pub(crate) relations: usize,
}

impl<'a> Planner<'a> {
    /// The place of a step; one that computes the same is the same.
    pub(crate) fn push(&mut self, node: Node) -> usize {
        self.nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        })
    }

    /// The rows for which all of some conditions are true.
    pub(crate) fn filtered(&mut self, input: usize, conditions: &[Expr]) -> Result<usize, Diagnostic> {
        let parts = conditions.iter().map(row_sql).collect::<Result<Vec<_>, _>>()?;
        match parts.as_slice() {
            [] => Ok(input),
            [one] => Ok(self.push(Node::Filter { input, predicate: one.clone() })),
            all => Ok(self.push(Node::Filter { input, predicate: format!("({})", all.join(") AND (")) })),
        }
    }

    /// The columns of a SELECT list over rows.
    pub(crate) fn projected(&mut self, relation: Relation<'a>, list: &[Item]) -> Result<Relation<'a>, Diagnostic> {
        let mut columns = Vec::with_capacity(list.len());
        let mut shown = Vec::with_capacity(list.len());
        for item in list {
            columns.push(OutputColumn { name: item.name.clone(), expr: row_sql(&item.expr)? });
            shown.push(Column { name: item.name.clone(), kind: relation.kind_of(&item.expr) });
        }
        let called = |name: &Option<String>| {
            let name = name.as_ref()?;
            let of = |item: &&Item| matches!(&item.expr, Expr::Identifier(ident) if ident.value == *name);
            list.iter().find(of).map(|item| item.name.clone())
        };
        let rows = match relation.rows {
            Rows::Results { window, start, end } => Rows::Results { window, start: called(&start), end: called(&end) },
            other => other,
        };
        let node = self.push(Node::Project { input: relation.node, columns });
        Ok(Relation { node, names: Vec::new(), columns: shown, open: false, joined: false, rows })
    }

    /// The rows of a query.
    pub(crate) fn query(&mut self, query: &'a Query, wanted: &Wanted) -> Result<Relation<'a>, Diagnostic> {
        let Query { with, body, order_by, limit_clause, fetch, .. } = query;
        let ends = "rows never end";
        if let Some(order) = order_by {
            return Err(at(order.span().start, format!("ORDER BY is not possible in a continuous query: {ends}"))
                .help("for the first rows of each window or key: row_number() OVER (PARTITION BY … ORDER BY …)"));
        }
        if let Some(limit) = limit_clause {
            return Err(at(limit.span().start, format!("LIMIT is not possible in a continuous query: {ends}"))
                .help("for the first rows of each window or key: row_number() OVER (PARTITION BY … ORDER BY …)"));
        }
        if let Some(fetch) = fetch {
            return Err(at(fetch.span().start, format!("FETCH is not possible in a continuous query: {ends}")));
        }
        let known = self.with.len();
        if let Some(with) = with {
            if with.recursive {
                return Err(at(with.span().start, "recursive queries are not available"));
            }
            self.with.extend(with.cte_tables.iter().map(|cte| (&cte.alias.name, &*cte.query)));
        }
        let found = match &**body {
            SetExpr::Select(select) => self.select(select, wanted),
            SetExpr::Query(inner) => self.query(inner, wanted),
            other => {
                Err(at(other.span().start, "a continuous query is one SELECT, without UNION, EXCEPT or INTERSECT")
                    .help("write one INSERT for each part, with ; between them: they may go to the same place"))
            }
        };
        self.with.truncate(known);
        found
    }

    fn select(&mut self, select: &'a Select, outer: &Wanted) -> Result<Relation<'a>, Diagnostic> {
        refused(select)?;
        let (mut relation, done) = self.from(select, outer)?;
        let mut conditions = Vec::new();
        for part in select.selection.iter().flat_map(conjuncts).filter(|_| !done) {
            let part = relation.expr(part)?;
            if matches!(relation.rows, Rows::Windowed(_)) && names(&part, &[WINDOW_START, WINDOW_END]) {
                return Err(at(part.span().start, "WHERE looks at rows before they are in a window")
                    .help("say it in HAVING, or in a query around this one"));
            }
            conditions.push(part);
        }
        if matches!(relation.rows, Rows::Ranked(_)) {
            let mut shown = Wanted::default();
            shown.note(&select.projection, &relation.names, false);
            shown.note(&select.group_by, &relation.names, false);
            shown.note(&select.having, &relation.names, false);
            let rank = match &relation.rows {
                Rows::Ranked(ranking) => {
                    outer_shows(select, outer, &ranking.rank) || shown.names.contains_key(&ranking.rank)
                }
                _ => false,
            };
            relation = self.ranked(relation, &mut conditions, rank)?;
        }
        relation.node = self.filtered(relation.node, &conditions)?;
        if matches!(relation.rows, Rows::Sequence(_)) {
            return self.sequence(select, relation);
        }
        let has = |test: &dyn Fn(&Expr) -> bool| select.projection.iter().any(|item| of_item(item).is_some_and(test));
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let aggregates = grouped || select.having.is_some() || has(&|expr| calls(expr, false));
        let over = has(&|expr| calls(expr, true));
        let wanted = uses(select, &relation.names).and(&self.through(select, outer));
        if aggregates && over {
            return Err(
                at(select.span().start, "OVER and GROUP BY in one SELECT").help("put one of them into a query inside")
            );
        }
        if aggregates {
            return self.grouped(select, relation, &wanted);
        }
        if let [SelectItem::Wildcard(_)] = select.projection.as_slice()
            && !relation.joined
            && !matches!(relation.rows, Rows::Windowed(_))
        {
            return Ok(relation);
        }
        let list = items(&select.projection, &relation, &self.through(select, outer))?;
        if over {
            return self.over(list, relation, &wanted);
        }
        if let Rows::Windowed(_) = relation.rows {
            return Err(at(select.span().start, "rows of a window are neither grouped nor ranked here")
                .help("GROUP BY …, window_start, window_end, or read stream(…) instead of the window"));
        }
        self.projected(relation, &list)
    }

    /// What a `*` lets through to the query around it.
    fn through(&self, select: &Select, outer: &Wanted) -> Wanted {
        if select.projection.iter().any(is_star) { outer.clone() } else { Wanted::default() }
    }

    /// The rows of FROM, and whether WHERE has been seen to.
    fn from(&mut self, select: &'a Select, outer: &Wanted) -> Result<(Relation<'a>, bool), Diagnostic> {
        let through = self.through(select, outer);
        match select.from.as_slice() {
            [TableWithJoins { relation, joins }] if joins.is_empty() => {
                let wanted = uses(select, &called(relation)).and(&through);
                Ok((self.relation(relation, &wanted)?, false))
            }
            [TableWithJoins { relation, joins }] => match joins.as_slice() {
                [join] => self.join(select, relation, join, &through),
                [_, more, ..] => Err(at(more.relation.span().start, "a continuous query joins two tables")
                    .help("join two of them in a query inside, and its rows with the third")),
                [] => Err(at(select.span().start, "FROM is missing")),
            },
            [] => Err(at(select.span().start, "FROM is missing: a continuous query reads something")
                .help("write SELECT … FROM <index>")),
            [_, second, ..] => {
                Err(at(second.relation.span().start, "a comma between tables would pair every row with every other")
                    .help(
                        "write a JOIN b ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '1 minute'",
                    ))
            }
        }
    }

    /// The rows of one table or subquery.
    pub(crate) fn relation(&mut self, factor: &'a TableFactor, wanted: &Wanted) -> Result<Relation<'a>, Diagnostic> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return Err(at(factor.span().start, format!("a continuous query reads at most {RELATIONS_MAX} tables")));
        }
        if let TableFactor::Derived { subquery, lateral: false, alias, .. } = factor {
            no_columns(alias.as_ref())?;
            let found = self.query(subquery, wanted)?;
            return Ok(Relation { names: called(factor), ..found });
        }
        let ident = table::name(factor)?;
        let plain = matches!(factor, TableFactor::Table { args: None, .. });
        if let Some(place) = self.with.iter().rposition(|(name, _)| plain && name.value == ident.value) {
            // It sees what stands before it.
            let later = self.with.split_off(place);
            let found = match later.first() {
                Some((_, query)) => self.query(query, wanted),
                None => Err(at(ident.span.start, format!("{ident} is not there"))),
            };
            self.with.extend(later);
            return Ok(Relation { names: called(factor), ..found? });
        }
        if let TableFactor::Table { alias, .. } = factor {
            no_columns(alias.as_ref())?;
        }
        let found = table::read(ident, factor)?;
        let said = self.patience.iter().filter(|(input, _)| *input == found.input).map(|(_, patience)| *patience);
        let Patience { delay, idle } = found.patience.or_longest(said);
        let declared = found.input.columns();
        let open = declared.is_empty();
        let mut columns: Vec<Column> =
            declared.into_iter().map(|(name, kind)| Column { name, kind: Some(kind) }).collect();
        let rows = match (found.window, found.sequence) {
            (Some(window), _) => {
                let bound = |name: &str| Column { name: name.to_owned(), kind: Some(ValueKind::Time) };
                columns.extend([bound(WINDOW_START), bound(WINDOW_END)]);
                Rows::Windowed(window)
            }
            (None, Some(sequence)) => Rows::Sequence(sequence),
            (None, None) => Rows::Plain,
        };
        let node = self.push(Node::Read { input: found.input, delay: delay.unwrap_or(DELAY_DEFAULT), idle });
        Ok(Relation { node, names: called(factor), columns, open, joined: false, rows })
    }
}

/// Whether a `*` lets a column through that the query around it uses.
fn outer_shows(select: &Select, outer: &Wanted, column: &str) -> bool {
    select.projection.iter().any(is_star) && (outer.all || outer.names.contains_key(column))
}

/// What a SELECT uses of a table of those names.
pub(crate) fn uses(select: &Select, names: &[String]) -> Wanted {
    let joins: Vec<&JoinConstraint> =
        select.from.iter().flat_map(|table| &table.joins).filter_map(|join| constraint(&join.join_operator)).collect();
    let joined = !joins.is_empty();
    let mut found = Wanted::default();
    found.note(&select.projection, names, joined);
    found.note(&select.selection, names, joined);
    found.note(&select.group_by, names, joined);
    found.note(&select.having, names, joined);
    joins.into_iter().for_each(|constraint| found.note(constraint, names, joined));
    found
}

pub(crate) fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(on) | J::Inner(on) | J::Left(on) | J::LeftOuter(on) | J::Right(on) | J::RightOuter(on) => Some(on),
        J::FullOuter(on) | J::LeftSemi(on) | J::Semi(on) | J::LeftAnti(on) | J::Anti(on) => Some(on),
        _ => None,
    }
}

/// By which names a table is known: its alias, or an index by its own.
pub(crate) fn called(factor: &TableFactor) -> Vec<String> {
    match factor {
        TableFactor::Derived { alias: Some(alias), .. } | TableFactor::Table { alias: Some(alias), .. } => {
            vec![alias.name.value.clone()]
        }
        TableFactor::Table { name, .. } => {
            name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn is_star(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

fn no_columns(alias: Option<&TableAlias>) -> Result<(), Diagnostic> {
    match alias.filter(|alias| !alias.columns.is_empty()) {
        Some(alias) => Err(at(alias.name.span.start, "an alias of a table names no columns").help("name them with AS")),
        None => Ok(()),
    }
}

fn of_item(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Whether an aggregate is called in an expression, or, with `over`, anything with OVER.
fn calls(expr: &Expr, over: bool) -> bool {
    sqlparser::ast::visit_expressions(expr, |inner| match inner {
        Expr::Function(function) if over && function.over.is_some() => std::ops::ControlFlow::Break(()),
        Expr::Function(function) if !over && function.over.is_none() && aggregate_function(function).is_some() => {
            std::ops::ControlFlow::Break(())
        }
        _ => std::ops::ControlFlow::Continue(()),
    })
    .is_break()
}

/// Whether an expression has one of these names.
pub(crate) fn names(expr: &Expr, of: &[&str]) -> bool {
    sqlparser::ast::visit_expressions(expr, |inner| match inner {
        Expr::Identifier(ident) if of.contains(&ident.value.as_str()) => std::ops::ControlFlow::Break(()),
        _ => std::ops::ControlFlow::Continue(()),
    })
    .is_break()
}

/// Complains about clauses that a job does not have.
fn refused(select: &Select) -> Result<(), Diagnostic> {
    let begin = select.span().start;
    if let Some(Distinct::Distinct | Distinct::All | Distinct::On(_)) = &select.distinct {
        return Err(at(begin, "DISTINCT would have to remember every row for ever")
            .help("GROUP BY the columns and window_start, or keep the first row of each key by row_number()"));
    }
    let refused: [(bool, &str, Location); 5] = [
        (select.into.is_some(), "INTO", begin),
        (select.qualify.is_some(), "QUALIFY", select.qualify.as_ref().map_or(begin, |expr| expr.span().start)),
        (!select.lateral_views.is_empty(), "LATERAL VIEW", begin),
        (!select.named_window.is_empty(), "WINDOW", begin),
        (select.top.is_some(), "TOP", begin),
    ];
    match refused.iter().find(|(present, ..)| *present) {
        Some((_, clause, place)) => Err(at(*place, format!("{clause} is not available in a continuous query"))),
        None => Ok(()),
    }
}
