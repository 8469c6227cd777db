//! row_number(): the first rows of each key or window.

use sqlparser::{
    ast::{BinaryOperator, Expr, Spanned, Value, ValueWithSpan},
    tokenizer::Location,
};

use super::{
    column::{Needed, Role, typed},
    group::{bounds, plain},
    item::Item,
    kind::ValueKind,
    over::{Call, keys},
    plan::{Node, Order, WindowKind},
    scope::{Column, Ranking, Relation, Rows, Wanted, named},
    select::{Planner, names},
};
use crate::{Diagnostic, OutputColumn, WINDOW_END, WINDOW_START, text::at};

/// Most rows of a ranking.
const ROWS_MAX: u64 = 10_000;

const RANK: &str = "write row_number() OVER (PARTITION BY <key> ORDER BY <column> DESC) AS rank";

impl<'a> Planner<'a> {
    /// The rows of a SELECT list with a rank, of which the query around it says how many it wants.
    pub(crate) fn ranking(
        &mut self,
        list: &[Item],
        call: &Call<'_>,
        relation: Relation<'a>,
        wanted: &Wanted,
    ) -> Result<Relation<'a>, Diagnostic> {
        let place = call.item.place;
        if call.spec.window_frame.is_some() {
            return Err(at(place, "row_number() has no frame").help(RANK));
        }
        let mut needed = Needed::default();
        let partition = call.spec.partition_by.iter().map(|key| relation.expr(key)).collect::<Result<Vec<_>, _>>()?;
        let has = |name: &Option<String>| {
            name.as_ref()
                .is_some_and(|name| partition.iter().any(|key| matches!(key, Expr::Identifier(i) if i.value == *name)))
        };
        let mut times = Vec::new();
        let windowed = match &relation.rows {
            Rows::Windowed(window) => {
                let Some((start, end)) = bounds(window, false) else {
                    return Err(at(place, "rows themselves are ranked in tumbling windows only").help(
                        "group by key, window_start and window_end in a query inside, and rank what comes of it",
                    ));
                };
                debug_assert_eq!(window.kind, WindowKind::Tumble);
                if !window.lateness.is_zero() {
                    return Err(at(place, "a ranking takes no late rows").help("take the lateness away"));
                }
                times = vec![(WINDOW_START.to_owned(), start), (WINDOW_END.to_owned(), end)];
                if !has(&Some(WINDOW_END.to_owned())) && !has(&Some(WINDOW_START.to_owned())) {
                    return Err(at(place, "the window is not among what it is partitioned by")
                        .help("add window_start, window_end to PARTITION BY"));
                }
                true
            }
            Rows::Results { window, .. } if !window.lateness.is_zero() => {
                let found = "a window with lateness answers twice, and a ranking would take both answers";
                return Err(at(place, found).help("take the lateness away"));
            }
            Rows::Results { window, start, end }
                if has(end) || (has(start) && !matches!(window.kind, WindowKind::Cumulate { .. })) =>
            {
                // The ranking looks for the end under this name.
                times = vec![(WINDOW_END.to_owned(), "_time + INTERVAL '1 nanosecond'".to_owned())];
                true
            }
            Rows::Plain | Rows::Results { .. } | Rows::Changes(_) => false,
            _ => return Err(at(place, "these rows cannot be ranked")),
        };
        for (name, sql) in times {
            let selected = relation.columns.iter().any(|column| column.name == name)
                && !matches!(relation.rows, Rows::Windowed(_));
            let sql = if selected { format!("\"{name}\"") } else { sql };
            needed.put(&name, (sql, Some(ValueKind::Time)));
        }
        let keys = keys(call.spec, &relation, wanted, &mut needed)?;
        let order = order(call, &relation, wanted, &mut needed)?;
        for item in list.iter().filter(|item| item.name != call.item.name) {
            let typed = match &item.expr {
                Expr::Identifier(ident) if needed.kind(&ident.value).is_some() && ident.value == item.name => continue,
                expr => typed(&relation, expr, Role::Value, wanted, item.place)?,
            };
            needed.put(&item.name, typed);
        }
        let rank = call.item.name.clone();
        if needed.shown().any(|(name, _)| *name == rank) {
            return Err(at(place, format!("{rank} is the name of a column already")).help("choose another alias"));
        }
        let mut columns: Vec<Column> = needed.shown().map(|(name, kind)| Column { name: name.clone(), kind }).collect();
        columns.push(Column { name: rank.clone(), kind: Some(ValueKind::Integer) });
        let node = self.push(Node::Project { input: relation.node, columns: needed.columns() });
        let changes = matches!(relation.rows, Rows::Changes(_));
        let ranking = Ranking { keys, order, rank, windowed, place };
        if changes && windowed {
            return Err(at(ranking.place, "results that change cannot be ranked by window"));
        }
        Ok(Relation { node, names: relation.names, columns, open: false, joined: false, rows: Rows::Ranked(ranking) })
    }

    /// The rows of a ranking that the query around it asks for; takes what says so out of its conditions. `shown`: whether
    /// the rank itself is used for more than that.
    pub(crate) fn ranked(
        &mut self,
        relation: Relation<'a>,
        conditions: &mut Vec<Expr>,
        shown: bool,
    ) -> Result<Relation<'a>, Diagnostic> {
        let Rows::Ranked(Ranking { keys, order, rank, windowed, place }) = relation.rows else { return Ok(relation) };
        let said = conditions.iter().enumerate().find_map(|(at, part)| Some((at, limit(part, &rank)?)));
        let Some((said, (limit, only))) = said else {
            let found = at(place, "a rank without end: rows would never be final");
            return Err(found.help(format!("say how many in the query around it: WHERE {rank} <= 3")));
        };
        let condition = conditions.remove(said);
        if limit == 0 || limit > ROWS_MAX {
            return Err(at(condition.span().start, format!("the first rows are from 1 to {ROWS_MAX}")));
        }
        if only && limit > 1 {
            conditions.push(condition);
        }
        let shown = shown || conditions.iter().any(|part| names(part, &[&rank]));
        let input = relation.node;
        let by_time = match order.as_slice() {
            [one] if one.column == "_time" && limit == 1 && !windowed && !keys.is_empty() => Some(one.descending),
            _ => None,
        };
        let (node, rows) = match by_time {
            Some(last) => {
                let rows = if last { Rows::Changes(place) } else { Rows::Plain };
                (Node::Deduplicate { input, keys, last }, rows)
            }
            None => {
                let rank = shown.then(|| rank.clone());
                let rows = if windowed { Rows::Last } else { Rows::Changes(place) };
                (Node::Top { input, keys, order, limit, rank, windowed }, rows)
            }
        };
        let mut node = self.push(node);
        if by_time.is_some() && shown {
            let kept = relation.columns.iter().filter(|column| column.name != rank);
            let kept =
                kept.map(|column| OutputColumn { name: column.name.clone(), expr: named(&column.name).to_string() });
            let first = OutputColumn { name: rank.clone(), expr: "CAST(1 AS BIGINT)".to_owned() };
            node = self.push(Node::Project { input: node, columns: kept.chain([first]).collect() });
        }
        let columns = relation.columns.into_iter().filter(|column| shown || column.name != rank).collect();
        Ok(Relation { node, names: relation.names, columns, open: false, joined: false, rows })
    }
}

fn order(
    call: &Call<'_>,
    relation: &Relation<'_>,
    wanted: &Wanted,
    needed: &mut Needed,
) -> Result<Vec<Order>, Diagnostic> {
    if call.spec.order_by.is_empty() {
        return Err(at(call.item.place, "a rank goes by an order").help(RANK));
    }
    let one = |by: &sqlparser::ast::OrderByExpr| {
        let expr = relation.expr(&by.expr)?;
        let descending = by.options.asc == Some(false);
        let nulls_first = by.options.nulls_first.unwrap_or(false);
        let column = match &expr {
            Expr::Identifier(ident) if ident.value == "_time" => "_time".to_owned(),
            expr => {
                let place: Location = by.span().start;
                needed.any(&plain(expr), typed(relation, expr, Role::Rank, wanted, place)?)
            }
        };
        Ok(Order { column, descending, nulls_first })
    };
    call.spec.order_by.iter().map(one).collect()
}

/// How many rows a condition asks for, and whether it asks for the last of them only.
fn limit(condition: &Expr, rank: &str) -> Option<(u64, bool)> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
    let Expr::BinaryOp { left, op, right } = condition else { return None };
    let number = |expr: &Expr| match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => number.parse::<u64>().ok(),
        _ => None,
    };
    let is_rank = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if ident.value == rank);
    let (op, number) = match (is_rank(left), is_rank(right)) {
        (true, false) => (op.clone(), number(right)?),
        (false, true) => {
            let turned = match op {
                Gt => Lt,
                GtEq => LtEq,
                Eq => Eq,
                _ => return None,
            };
            (turned, number(left)?)
        }
        _ => return None,
    };
    match op {
        LtEq => Some((number, false)),
        Lt => Some((number.saturating_sub(1), false)),
        Eq => Some((number, true)),
        _ => None,
    }
}
