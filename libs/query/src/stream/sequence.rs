//! `sequence(…)`: rows of a key that follow one another.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Select, SelectItem, Spanned, Value,
        ValueWithSpan, VisitMut, VisitorMut, visit_expressions,
    },
    tokenizer::Location,
};

use super::{
    column::{Needed, Role, typed},
    group::plain,
    item::Item,
    kind::ValueKind,
    plan::{Measured, MeasuredValue, Node, SequenceStep},
    scope::{Column, Relation, Rows, Wanted, named, row_sql},
    select::Planner,
    table::Sequence,
};
use crate::{
    COLUMNS_MAX, Diagnostic, nearest,
    text::{at, joined},
};

/// Most steps.
const STEPS_MAX: usize = 16;
/// Most rows of one step.
const TIMES_MAX: u64 = 1_000;

/// The times of the first and of the last row.
const TIMES: [&str; 2] = ["first_time", "last_time"];
const SHAPE: &str = "the keys of GROUP BY, first_time, last_time, a.column (of the first row of a step), last(a.column) and count(a) can be selected";

/// A SELECT list over a sequence that is being read.
struct Reading<'r, 'a> {
    relation: &'r Relation<'a>,
    steps: &'r [SequenceStep],
    keys: &'r [Item],
    needed: &'r mut Needed,
    measures: Vec<Measured>,
    columns: Vec<Column>,
}

impl VisitorMut for Reading<'_, '_> {
    type Break = Box<Diagnostic>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.meant(expr) {
            Ok(Some(name)) => {
                *expr = named(&name);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(found) => ControlFlow::Break(Box::new(found)),
        }
    }
}

impl Reading<'_, '_> {
    fn meant(&mut self, expr: &Expr) -> Result<Option<String>, Diagnostic> {
        if let Some(key) = self.keys.iter().find(|key| key.expr == *expr) {
            return Ok(Some(key.name.clone()));
        }
        match expr {
            Expr::Identifier(ident) => {
                let ends = self.ends();
                match (TIMES.iter().position(|name| ident.value.eq_ignore_ascii_case(name)), ends) {
                    (Some(0), Some((first, _))) => {
                        self.measure(TIMES[0], first, MeasuredValue::First("_time".to_owned()), Some(ValueKind::Time))
                    }
                    (Some(_), Some((_, last))) => {
                        self.measure(TIMES[1], last, MeasuredValue::Last("_time".to_owned()), Some(ValueKind::Time))
                    }
                    _ => return Ok(None),
                }
                .map(Some)
            }
            Expr::CompoundIdentifier(parts) => {
                let Some((step, column)) = self.of_step(parts) else { return Ok(None) };
                self.column(&format!("{step}.{column}"), &step, &column, false, parts).map(Some)
            }
            Expr::Function(function) => {
                let name = function.name.to_string().to_lowercase();
                let FunctionArguments::List(list) = &function.args else { return Ok(None) };
                let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() else {
                    return Ok(None);
                };
                match (name.as_str(), argument) {
                    ("count", Expr::Identifier(ident)) => match self.step(&ident.value) {
                        Some(step) => self
                            .measure(&format!("count({step})"), step, MeasuredValue::Count, Some(ValueKind::Integer))
                            .map(Some),
                        None => Err(at(ident.span.start, format!("there is no step {}", ident.value)).help(SHAPE)),
                    },
                    ("first" | "last", Expr::CompoundIdentifier(parts)) => match self.of_step(parts) {
                        Some((step, column)) => {
                            let last = name == "last";
                            self.column(&format!("{name}({step}.{column})"), &step, &column, last, parts).map(Some)
                        }
                        None => Ok(None),
                    },
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// The first and the last step that a row stands for.
    fn ends(&self) -> Option<(String, String)> {
        let mut rows = self.steps.iter().filter(|step| !step.absent).map(|step| &step.name);
        let first = rows.next()?;
        Some((first.clone(), rows.next_back().unwrap_or(first).clone()))
    }

    fn step(&self, name: &str) -> Option<String> {
        self.steps.iter().find(|step| !step.absent && step.name == name.to_lowercase()).map(|step| step.name.clone())
    }

    fn of_step(&self, parts: &[Ident]) -> Option<(String, String)> {
        let (step, rest) = parts.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let column = rest.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        Some((self.step(&step.value)?, column))
    }

    fn column(
        &mut self,
        name: &str,
        step: &str,
        column: &str,
        last: bool,
        parts: &[Ident],
    ) -> Result<String, Diagnostic> {
        let place = parts.first().map_or(Location { line: 1, column: 1 }, |part| part.span.start);
        let (column, kind) = if column == "_time" {
            (column.to_owned(), Some(ValueKind::Time))
        } else {
            let expr = self.relation.expr(&Expr::Identifier(Ident {
                value: column.to_owned(),
                quote_style: Some('"'),
                span: parts.first().map_or_else(sqlparser::tokenizer::Span::empty, |part| part.span),
            }))?;
            let typed = typed(self.relation, &expr, Role::Value, &Wanted::default(), place)?;
            let kind = typed.1;
            (self.needed.any(column, typed), kind)
        };
        let value = if last { MeasuredValue::Last(column) } else { MeasuredValue::First(column) };
        self.measure(name, step.to_owned(), value, kind)
    }

    fn measure(
        &mut self,
        name: &str,
        step: String,
        value: MeasuredValue,
        kind: Option<ValueKind>,
    ) -> Result<String, Diagnostic> {
        if !self.measures.iter().any(|known| known.name == name) {
            self.measures.push(Measured { name: name.to_owned(), step, value });
            self.columns.push(Column { name: name.to_owned(), kind });
        }
        Ok(name.to_owned())
    }
}

impl<'a> Planner<'a> {
    /// A SELECT over a sequence.
    pub(crate) fn sequence(&mut self, select: &'a Select, relation: Relation<'a>) -> Result<Relation<'a>, Diagnostic> {
        let Relation { node, names, columns, open, joined, rows } = relation;
        let Rows::Sequence(Sequence { within, overlap, gaps, steps }) = rows else {
            return Err(at(select.span().start, "there is no sequence here"));
        };
        let relation = Relation { node, names, columns, open, joined, rows: Rows::Plain };
        let mut needed = Needed::default();
        let keys = keys(select, &relation, &mut needed)?;
        let begin = select.span().start;
        let steps = read_steps(&relation, &steps, begin, &mut needed)?;
        let mut out: Vec<Item> = Vec::new();
        let mut reading = Reading {
            relation: &relation,
            steps: &steps,
            keys: &keys,
            needed: &mut needed,
            measures: Vec::new(),
            columns: Vec::new(),
        };
        for item in &select.projection {
            let place = item.span().start;
            let (name, expr) = match item {
                SelectItem::ExprWithAlias { expr, alias } => (alias.value.clone(), expr),
                SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
                    (plain(expr), expr)
                }
                SelectItem::UnnamedExpr(expr) => {
                    return Err(
                        at(place, format!("the column {expr} needs a name")).help(format!("write {expr} AS <name>"))
                    );
                }
                _ => return Err(at(place, "* is not possible over a sequence").help(SHAPE)),
            };
            let mut expr = expr.clone();
            if let ControlFlow::Break(found) = expr.visit(&mut reading) {
                return Err(*found);
            }
            if out.iter().any(|other| other.name == name) {
                return Err(
                    at(place, format!("two columns have the name {name}")).help("give one of them another alias")
                );
            }
            out.push(Item { name, expr, place });
        }
        let Reading { mut measures, columns: measured, .. } = reading;
        let mut columns: Vec<Column> =
            keys.iter().map(|key| Column { name: key.name.clone(), kind: needed.kind(&key.name) }).collect();
        columns.extend(measured);
        out.iter().try_for_each(|item| known(item, &columns))?;
        if out.is_empty() || out.len() > COLUMNS_MAX {
            return Err(at(begin, format!("a continuous query has from 1 to {COLUMNS_MAX} columns")));
        }
        if let (true, Some(first)) = (measures.is_empty(), steps.first()) {
            let (name, step) = (TIMES[0].to_owned(), first.name.clone());
            measures.push(Measured { name, step, value: MeasuredValue::First("_time".to_owned()) });
        }
        let input = self.push(Node::Project { input: relation.node, columns: needed.columns() });
        let keys = keys.into_iter().map(|key| key.name).collect();
        let node = self.push(Node::Sequence { input, keys, steps, within, overlap, gaps, measures });
        let found = Relation { node, names: Vec::new(), columns, open: false, joined: false, rows: Rows::Plain };
        self.projected(found, &out)
    }
}

fn keys(select: &Select, relation: &Relation<'_>, needed: &mut Needed) -> Result<Vec<Item>, Diagnostic> {
    if let Some(having) = &select.having {
        return Err(
            at(having.span().start, "a sequence has no HAVING").help("put the condition into a query around it")
        );
    }
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return Err(at(select.group_by.span().start, "GROUP BY ALL is not available").help("name the keys"));
    };
    let mut keys: Vec<Item> = Vec::new();
    for group in groups {
        let place = group.span().start;
        let expr = relation.expr(group)?;
        let name = plain(&expr);
        needed.put(&name, typed(relation, &expr, Role::Key, &Wanted::default(), place)?);
        keys.push(Item { name, expr: group.clone(), place });
    }
    Ok(keys)
}

fn read_steps(
    relation: &Relation<'_>,
    given: &[(String, Location, &Expr)],
    begin: Location,
    needed: &mut Needed,
) -> Result<Vec<SequenceStep>, Diagnostic> {
    if given.is_empty() || given.len() > STEPS_MAX {
        return Err(at(begin, format!("a sequence has from 1 to {STEPS_MAX} steps"))
            .help("write sequence(<index>, INTERVAL '1 minute', a => <condition>, b => <condition>)"));
    }
    let mut steps = Vec::with_capacity(given.len());
    for (place_in, (name, place, expr)) in given.iter().enumerate() {
        let (condition, least, most, absent) = often(expr)?;
        if absent && place_in == 0 {
            return Err(at(*place, "a sequence begins with a row that is there"));
        }
        let sql = row_sql(&relation.expr(condition)?)?;
        let column = format!("{name}?");
        needed.put(&column, (sql, Some(ValueKind::Boolean)));
        steps.push(SequenceStep { name: name.clone(), condition: column, least, most, absent });
    }
    Ok(steps)
}

/// `condition`, `times(condition, 2)`, `times(condition, 2, 5)` or `absent(condition)`.
fn often(expr: &Expr) -> Result<(&Expr, u32, u32, bool), Diagnostic> {
    let Expr::Function(function) = expr else { return Ok((expr, 1, 1, false)) };
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return Ok((expr, 1, 1, false)) };
    let of = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let condition = match list.args.first() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(condition))) => condition,
        _ => return Ok((expr, 1, 1, false)),
    };
    let numbers: Option<Vec<u64>> = list.args.iter().skip(1).map(|argument| number(&of(argument)?)).collect();
    let wrong = || {
        at(function.span().start, format!("{name} tells how often: from 1 to {TIMES_MAX}"))
            .help("write times(<condition>, 2), times(<condition>, 2, 5) or absent(<condition>)")
    };
    match (name.as_str(), numbers.as_deref()) {
        ("absent", Some([])) => Ok((condition, 1, 1, true)),
        ("times", Some([least])) if (1..=TIMES_MAX).contains(least) => {
            let least = u32::try_from(*least).map_err(|_| wrong())?;
            Ok((condition, least, least, false))
        }
        ("times", Some([least, most])) if *least >= 1 && least <= most && *most <= TIMES_MAX => {
            let number = |n: u64| u32::try_from(n).map_err(|_| wrong());
            Ok((condition, number(*least)?, number(*most)?, false))
        }
        ("times" | "absent", _) => Err(wrong()),
        _ => Ok((expr, 1, 1, false)),
    }
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => number.parse().ok(),
        _ => None,
    }
}

/// Complains about what is neither a key nor of a step.
fn known(item: &Item, columns: &[Column]) -> Result<(), Diagnostic> {
    let found = visit_expressions(&item.expr, |inner| match inner {
        Expr::Identifier(ident) if !columns.iter().any(|column| column.name == ident.value) => {
            ControlFlow::Break(ident.clone())
        }
        Expr::CompoundIdentifier(parts) => ControlFlow::Break(joined(parts)),
        _ => ControlFlow::Continue(()),
    });
    let ControlFlow::Break(ident) = found else { return Ok(()) };
    let place = if ident.span.start.line == 0 { item.place } else { ident.span.start };
    let found = at(place, format!("{} is neither grouped by nor of a step", ident.value));
    Err(match nearest(&ident.value, columns.iter().map(|column| column.name.as_str()).chain(TIMES)) {
        Some(meant) => found.help(format!("did you mean {meant}?")),
        None => found.help(SHAPE),
    })
}
