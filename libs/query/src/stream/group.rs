//! GROUP BY: windows where rows are put into some, else results that change.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use sqlparser::{
    ast::{Expr, GroupByExpr, Ident, Select, Spanned, Value, ValueWithSpan, VisitMut, VisitorMut, visit_expressions},
    tokenizer::Location,
};

use super::{
    column::{Needed, Role, typed},
    item::{Item, aggregate, items},
    kind::ValueKind,
    plan::{Computed, Node, Window, WindowKind},
    scope::{Column, Relation, Rows, Wanted, named},
    select::Planner,
};
use crate::{
    AggregateFunction, Diagnostic, WINDOW_END, WINDOW_START, nearest,
    text::{at, expression, tokens},
    windowed::aggregate_function,
};

/// A span of time as SQL.
pub(crate) fn interval(span: Duration) -> String {
    format!("INTERVAL '{} milliseconds'", span.as_millis())
}

/// Begin and end of a row's window as SQL over its `_time`, where it has one; of a result of windows that is their last instant.
pub(crate) fn bounds(window: &Window, result: bool) -> Option<(String, String)> {
    let size = interval(window.size);
    let begin = format!("date_bin({size}, _time)");
    // The type stays what it was: nanoseconds.
    let last = "_time + INTERVAL '1 nanosecond'".to_owned();
    match window.kind {
        WindowKind::Tumble => Some((begin.clone(), format!("{begin} + {size}"))),
        WindowKind::Hop { .. } if result => Some((format!("{last} - {size}"), last)),
        WindowKind::Cumulate { .. } if result => Some((begin, last)),
        _ => None,
    }
}

/// A grouping that is being read.
struct Grouping<'r, 'a> {
    relation: &'r Relation<'a>,
    wanted: &'r Wanted,
    keys: Vec<Item>,
    /// The bounds of the window, as rows call them, and what stands for them behind the aggregates.
    bounds: Vec<(String, Expr)>,
    needed: Needed,
    aggregates: Vec<Computed>,
    /// What an aggregate that stands alone is to be called.
    alias: Option<String>,
}

impl VisitorMut for Grouping<'_, '_> {
    type Break = Box<Diagnostic>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some(key) = self.keys.iter().find(|key| key.expr == *expr) {
            *expr = named(&key.name);
            return ControlFlow::Continue(());
        }
        if let Expr::Identifier(ident) = expr
            && let Some((_, meant)) = self.bounds.iter().find(|(name, _)| *name == ident.value)
        {
            *expr = meant.clone();
            return ControlFlow::Continue(());
        }
        match self.computed(expr) {
            Ok(Some(name)) => *expr = named(&name),
            Ok(None) => {}
            Err(found) => return ControlFlow::Break(Box::new(found)),
        }
        ControlFlow::Continue(())
    }
}

impl Grouping<'_, '_> {
    /// The column of an aggregate, if it is one.
    fn computed(&mut self, expr: &Expr) -> Result<Option<String>, Diagnostic> {
        let Expr::Function(function) = expr else { return Ok(None) };
        if function.over.is_some() || aggregate_function(function).is_none() {
            return Ok(None);
        }
        let (kind, argument) = aggregate(function)?;
        let (column, of) = match argument {
            None => (None, None),
            Some(argument) => {
                let role = role(kind, self.relation.kind_of(argument));
                let typed = typed(self.relation, argument, role, self.wanted, function.span().start)?;
                let of = typed.1;
                let name = if role == Role::Presence { format!("{argument} is there") } else { plain(argument) };
                (Some(self.needed.any(&name, typed)), of)
            }
        };
        let same = |known: &&Computed| known.function == kind && known.column == column;
        if let Some(known) = self.aggregates.iter().find(same) {
            return Ok(Some(known.name.clone()));
        }
        let wanted = self.alias.take().unwrap_or_else(|| plain(expr));
        let taken = |name: &str| {
            self.keys.iter().any(|key| key.name == name)
                || self.aggregates.iter().any(|known| known.name == name)
                || [WINDOW_START, WINDOW_END].contains(&name)
        };
        let mut name = wanted.clone();
        while taken(&name) {
            name.push_str(" of it");
        }
        self.aggregates.push(Computed { name: name.clone(), function: kind, column, kind: of });
        Ok(Some(name))
    }
}

/// What the argument of an aggregate is for.
pub(crate) fn role(function: AggregateFunction, kind: Option<ValueKind>) -> Role {
    match (function, kind) {
        (AggregateFunction::Count, _) => Role::Presence,
        (AggregateFunction::Min | AggregateFunction::Max, _) => Role::Rank,
        _ => Role::Number,
    }
}

/// The type of an aggregate's result.
pub(crate) fn result(computed: &Computed) -> Option<ValueKind> {
    match computed.function {
        AggregateFunction::Count => Some(ValueKind::Integer),
        AggregateFunction::Avg => Some(ValueKind::Float),
        AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max => computed.kind,
    }
}

/// An expression as the name of a column: without the quotes of one that is a name already.
pub(crate) fn plain(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    }
}

impl<'a> Planner<'a> {
    /// The groups of a SELECT.
    pub(crate) fn grouped(
        &mut self,
        select: &'a Select,
        relation: Relation<'a>,
        wanted: &Wanted,
    ) -> Result<Relation<'a>, Diagnostic> {
        let list = items(&select.projection, &relation, &Wanted::all())?;
        let groups = groups(select, &relation, &list)?;
        let begin = select.group_by.span().start;
        let begin = if begin.line == 0 { select.span().start } else { begin };
        let own = own_bounds(&relation);
        let is_bound = |expr: &Expr| own.iter().any(|name| matches!(expr, Expr::Identifier(i) if i.value == *name));
        let (by_bounds, by_keys): (Vec<Item>, Vec<Item>) = groups.into_iter().partition(|group| is_bound(&group.expr));
        let by = |place: usize| {
            own.get(place).is_some_and(|name| {
                by_bounds.iter().any(|g| matches!(&g.expr, Expr::Identifier(i) if i.value == *name))
            })
        };
        let window = windows(&relation, (by(0), by(1)), begin)?;
        if window.is_none()
            && let Some(bound) = by_bounds.first()
        {
            return Err(at(bound.place, "these rows have no windows any more"));
        }
        let mut grouping = Grouping {
            relation: &relation,
            wanted,
            keys: Vec::new(),
            bounds: Vec::new(),
            needed: Needed::default(),
            aggregates: Vec::new(),
            alias: None,
        };
        for key in by_keys {
            let typed = typed(&relation, &key.expr, Role::Key, wanted, key.place)?;
            grouping.needed.put(&key.name, typed);
            grouping.keys.push(key);
        }
        let mut start = named(WINDOW_START);
        if let Some(window) = &window {
            grouping.bounds = shown_bounds(&relation, window, &own)?;
            start = grouping.bounds.iter().find(|(name, _)| *name == own[0]).map_or(start, |(_, meant)| meant.clone());
        }
        let mut list = list;
        for item in &mut list {
            grouping.alias = matches!(item.expr, Expr::Function(_)).then(|| item.name.clone());
            fold(&mut grouping, &mut item.expr)?;
        }
        grouping.alias = None;
        let mut having = select.having.as_ref().map(|having| relation.expr(having)).transpose()?;
        if let Some(having) = &mut having {
            fold(&mut grouping, having)?;
        }
        let Grouping { keys, needed, mut aggregates, .. } = grouping;
        let mut columns: Vec<Column> =
            keys.iter().map(|key| Column { name: key.name.clone(), kind: needed.kind(&key.name) }).collect();
        columns.extend(aggregates.iter().map(|known| Column { name: known.name.clone(), kind: result(known) }));
        let time = |name: &str| Column { name: name.to_owned(), kind: Some(ValueKind::Time) };
        if window.is_some() {
            columns.extend([time(WINDOW_START), time(WINDOW_END)]);
        }
        for item in list.iter().map(|item| (&item.expr, item.place)).chain(having.iter().map(|h| (h, h.span().start))) {
            only(item.0, item.1, &columns)?;
        }
        if aggregates.is_empty() {
            // A group of nothing but keys: that there are rows is all that it says.
            let name = "rows of it".to_owned();
            aggregates.push(Computed { name, function: AggregateFunction::Count, column: None, kind: None });
        }
        let key_names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
        let node = self.push(Node::Project { input: relation.node, columns: needed.columns() });
        let (node, rows) = match window {
            Some(over) => {
                let emit_every = self.emit_every.take();
                let pane = Window { kind: over.kind, ..over };
                let window = if matches!(relation.rows, Rows::Results { .. }) { again(pane) } else { pane };
                let node = self.push(Node::Window { input: node, keys: key_names, aggregates, window, emit_every });
                let bound = |name: &str| Some(name.to_owned());
                let rows = match emit_every {
                    Some(_) => Rows::Changes(begin),
                    None => Rows::Results { window: over, start: bound(WINDOW_START), end: bound(WINDOW_END) },
                };
                (node, rows)
            }
            None => (self.push(Node::Group { input: node, keys: key_names, aggregates }), Rows::Changes(begin)),
        };
        let node = self.filtered(node, having.as_slice())?;
        let out = Relation { node, names: Vec::new(), columns, open: false, joined: false, rows };
        let mut found = self.projected(out, &list)?;
        if let Rows::Results { start: named @ None, .. } = &mut found.rows {
            *named = list.iter().find(|item| item.expr == start).map(|item| item.name.clone());
        }
        Ok(found)
    }
}

/// The window over results of windows: they have one end in each pane of those.
fn again(window: Window) -> Window {
    match window.pane() {
        Some(size) => Window { kind: WindowKind::Tumble, size, ..window },
        None => window,
    }
}

/// What rows call the bounds of their windows: begin, end.
fn own_bounds(relation: &Relation<'_>) -> Vec<String> {
    match &relation.rows {
        Rows::Windowed(_) => vec![WINDOW_START.to_owned(), WINDOW_END.to_owned()],
        // A bound that was not selected has a name that nothing can have.
        Rows::Results { start, end, .. } => [start, end].map(|name| name.clone().unwrap_or_default()).to_vec(),
        _ => Vec::new(),
    }
}

/// Behind the aggregates the bounds are the window's own, or reckoned from its end.
fn shown_bounds(relation: &Relation<'_>, window: &Window, own: &[String]) -> Result<Vec<(String, Expr)>, Diagnostic> {
    let mut shown = vec![named(WINDOW_START), named(WINDOW_END)];
    if matches!(relation.rows, Rows::Results { .. })
        && !matches!(window.kind, WindowKind::Tumble)
        && let Some((start, _)) = bounds(window, true)
    {
        shown[0] = expression(&start, tokens(&start)?)?;
    }
    Ok(own.iter().filter(|name| !name.is_empty()).cloned().zip(shown).collect())
}

/// Which windows rows are grouped by; nothing for all rows of a key.
fn windows(relation: &Relation<'_>, by: (bool, bool), begin: Location) -> Result<Option<Window>, Diagnostic> {
    let cumulates = |window: &Window| matches!(window.kind, WindowKind::Cumulate { .. });
    let wrong = |message: &str, help: &str| Err(at(begin, message).help(help));
    match &relation.rows {
        Rows::Windowed(window) if by.1 || (by.0 && !cumulates(window)) => Ok(Some(*window)),
        Rows::Windowed(window) if cumulates(window) => {
            wrong("the window is not grouped by", "add window_start and window_end to GROUP BY")
        }
        Rows::Windowed(_) => wrong("the window is not grouped by", "add window_start to GROUP BY"),
        Rows::Results { window, .. } if !window.lateness.is_zero() => wrong(
            "a window with lateness answers twice, and what follows would count both answers",
            "take the lateness away",
        ),
        Rows::Results { window, .. } if by.0 || by.1 => match window.kind {
            WindowKind::Session => {
                wrong("sessions of different keys have no window in common", "take tumble, hop or cumulate")
            }
            WindowKind::Cumulate { .. } if !by.1 => {
                wrong("windows that grow begin together", "add window_end to GROUP BY")
            }
            _ => Ok(Some(*window)),
        },
        Rows::Last => wrong(
            "what was ranked cannot be grouped: its rows come by rank, not by time",
            "group first, and rank what comes of it",
        ),
        Rows::Plain | Rows::Results { .. } | Rows::Changes(_) => Ok(None),
        Rows::Ranked(_) | Rows::Sequence(_) => {
            wrong("these rows cannot be grouped here", "group in a query around this one")
        }
    }
}

/// What a SELECT groups by, each under the name that it has in the result.
fn groups(select: &Select, relation: &Relation<'_>, list: &[Item]) -> Result<Vec<Item>, Diagnostic> {
    let GroupByExpr::Expressions(groups, modifiers) = &select.group_by else {
        return Err(at(select.group_by.span().start, "GROUP BY ALL is not available").help("name the columns"));
    };
    if !modifiers.is_empty() {
        let place = select.group_by.span().start;
        return Err(at(place, "ROLLUP, CUBE and TOTALS are not available in a continuous query"));
    }
    let mut found: Vec<Item> = Vec::new();
    for group in groups {
        let place = group.span().start;
        if matches!(group, Expr::Value(ValueWithSpan { value: Value::Number(..), .. })) {
            return Err(at(place, "GROUP BY a number").help("name the column"));
        }
        if let Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) = group {
            return Err(at(place, "ROLLUP, CUBE and GROUPING SETS are not available in a continuous query"));
        }
        let declared = |ident: &Ident| relation.columns.iter().any(|column| column.name == ident.value);
        let by_name = |item: &&Item| matches!(group, Expr::Identifier(i) if i.value == item.name && !declared(i));
        let expr = match list.iter().find(by_name) {
            Some(item) if !has_aggregate(&item.expr) => item.expr.clone(),
            _ => relation.expr(group)?,
        };
        let name = list.iter().find(|item| item.expr == expr).map_or_else(|| plain(&expr), |item| item.name.clone());
        if found.iter().any(|other| other.expr == expr) {
            continue;
        }
        found.push(Item { name, expr, place });
    }
    Ok(found)
}

fn has_aggregate(expr: &Expr) -> bool {
    visit_expressions(expr, |inner| match inner {
        Expr::Function(function) if aggregate_function(function).is_some() => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

fn fold<V: VisitorMut<Break = Box<Diagnostic>>>(visitor: &mut V, expr: &mut Expr) -> Result<(), Diagnostic> {
    match expr.visit(visitor) {
        ControlFlow::Break(found) => Err(*found),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Complains about a column that is neither an aggregate nor grouped by.
fn only(expr: &Expr, place: Location, columns: &[Column]) -> Result<(), Diagnostic> {
    let known: BTreeSet<&str> = columns.iter().map(|column| column.name.as_str()).chain(["_time"]).collect();
    let found = visit_expressions(expr, |inner| match inner {
        Expr::Identifier(ident) if !known.contains(ident.value.as_str()) => ControlFlow::Break(ident.clone()),
        _ => ControlFlow::Continue(()),
    });
    let ControlFlow::Break(ident) = found else { return Ok(()) };
    let place = if ident.span.start.line == 0 { place } else { ident.span.start };
    let found = at(place, format!("{} is neither an aggregate nor grouped by", ident.value));
    Err(match nearest(&ident.value, known.iter().copied().filter(|name| *name != "_time")) {
        Some(meant) => found.help(format!("did you mean {meant}?")),
        None => found.help(format!("add {} to GROUP BY", ident.value)),
    })
}
