//! Joins of two tables: by equal columns, and in time.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, Select, SelectItem, Spanned, TableFactor,
        visit_expressions,
    },
    tokenizer::Location,
};

use super::{
    bound::{Bounds, Times},
    column::{Needed, Role, typed},
    group::{bounds, plain},
    kind::ValueKind,
    plan::{JoinHow, JoinInput, Node, Window, WindowKind, Within},
    scope::{Column, Relation, Rows, Wanted, conjuncts, named},
    select::{Planner, called, constraint, uses},
    side::{alike, local, of_side, pair, sides_of},
};
use crate::{Diagnostic, OutputColumn, WINDOW_END, WINDOW_START, text::at};

const IN_TIME: &str = "add AND b._time BETWEEN a._time AND a._time + INTERVAL '1 minute', or join windows of one size by their \
                       window_start and window_end";

/// What the conditions of a join come to.
#[derive(Default)]
struct Conditions {
    /// Of one side, as that side knows its columns.
    own: [Vec<Expr>; 2],
    /// Equal columns, each as its side knows it.
    keys: Vec<([Expr; 2], Location)>,
    /// Whether windows begin and end together.
    windows: [bool; 2],
    times: Bounds,
    /// What is left to be seen of a pair.
    rest: Vec<Expr>,
}

impl<'a> Planner<'a> {
    /// The rows of a join, and whether WHERE has been seen to.
    pub(crate) fn join(
        &mut self,
        select: &'a Select,
        first: &'a TableFactor,
        join: &'a Join,
        through: &Wanted,
    ) -> Result<(Relation<'a>, bool), Diagnostic> {
        let place = join.relation.span().start;
        let (how, on) = how(join, place)?;
        let names = [self.name(first)?, self.name(&join.relation)?];
        if names[0] == names[1] {
            return Err(
                at(place, format!("both tables are called {}", names[0])).help("give one of them an alias: AS b")
            );
        }
        let mut sides = Vec::with_capacity(2);
        for (factor, name) in [first, &join.relation].into_iter().zip(&names) {
            let wanted = uses(select, std::slice::from_ref(name)).and(through);
            let relation = self.relation(factor, &wanted)?.settled()?;
            joinable(&relation, factor.span().start)?;
            starred(select, &relation, through)?;
            sides.push((relation, wanted));
        }
        let [left, right] = <[_; 2]>::try_from(sides).map_err(|_| at(place, "a join has two tables"))?;
        let sides = [left, right];
        let both = both(&names, &sides);
        let inner = how == JoinHow::Inner;
        let mut found = Conditions::default();
        for part in conjuncts(on) {
            self.condition(both.expr(part)?, (&names, &sides, how), &mut found)?;
        }
        if inner {
            for part in select.selection.iter().flat_map(conjuncts) {
                self.condition(both.expr(part)?, (&names, &sides, how), &mut found)?;
            }
        }
        let (within, raw) = within(&sides, &mut found, on.span().start)?;
        if let (false, Some(rest)) = (inner, found.rest.first()) {
            return Err(at(rest.span().start, "only an inner join has a condition besides equal columns and times")
                .help("put it into a query around this one"));
        }
        let relation = self.joined((names, sides, both), (how, within, raw), found, (select, through))?;
        Ok((relation, inner))
    }

    fn name(&self, factor: &TableFactor) -> Result<String, Diagnostic> {
        let missing = || at(factor.span().start, "a joined table has a name").help("write … AS a JOIN … AS b");
        called(factor).into_iter().next().ok_or_else(missing)
    }

    /// Sorts one condition in.
    fn condition(
        &mut self,
        part: Expr,
        (names, sides, how): (&[String; 2], &[(Relation<'a>, Wanted); 2], JoinHow),
        found: &mut Conditions,
    ) -> Result<(), Diagnostic> {
        let of = sides_of(&part, names);
        if of != [true, true] {
            let side = usize::from(of[1]);
            let may = match how {
                JoinHow::Inner | JoinHow::Semi => true,
                JoinHow::Left | JoinHow::Anti => side == 1,
                JoinHow::Right => side == 0,
                JoinHow::Full => false,
            };
            if !may {
                return Err(at(
                    part.span().start,
                    format!("a condition about {} alone would not leave out its rows here", names[side]),
                )
                .help("put it into a subquery, or into WHERE"));
            }
            found.own[side].push(local(part, &names[side]));
            return Ok(());
        }
        let times = Times { names, rows: [&sides[0].0.rows, &sides[1].0.rows] };
        if let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = &part {
            if let Some(bound) = times.same_bound(left, right) {
                found.windows[bound] = true;
                // Of results the bounds are columns, by which rows meet.
                if matches!(sides[0].0.rows, Rows::Results { .. }) {
                    found.keys.push((pair(left, right, names), part.span().start));
                }
                return Ok(());
            }
            let (l, r) = (sides_of(left, names), sides_of(right, names));
            if times.term(left).is_none() && l != r && l != [true, true] && r != [true, true] {
                found.keys.push((pair(left, right, names), part.span().start));
                return Ok(());
            }
        }
        if !found.times.take(&part, &times) {
            found.rest.push(part);
        }
        Ok(())
    }

    fn joined(
        &mut self,
        (names, sides, both): ([String; 2], [(Relation<'a>, Wanted); 2], Relation<'a>),
        (how, within, raw): (JoinHow, Within, Option<Window>),
        found: Conditions,
        (select, through): (&Select, &Wanted),
    ) -> Result<Relation<'a>, Diagnostic> {
        let mut needed = [Needed::default(), Needed::default()];
        let mut keys = [Vec::new(), Vec::new()];
        for (pair, place) in &found.keys {
            let mut typed = [
                typed(&sides[0].0, &pair[0], Role::Key, &sides[0].1, *place)?,
                typed(&sides[1].0, &pair[1], Role::Key, &sides[1].1, *place)?,
            ];
            alike(&mut typed, *place)?;
            for (side, typed) in typed.into_iter().enumerate() {
                keys[side].push(needed[side].any(&plain(&pair[side]), typed));
            }
        }
        let mut columns = Vec::new();
        let mut inputs = Vec::with_capacity(2);
        let alone = matches!(how, JoinHow::Semi | JoinHow::Anti);
        let own = found.own;
        for (side, ((relation, wanted), own)) in sides.iter().zip(own).enumerate() {
            let shown = shown(select, &names[side], through, &found.rest, how != JoinHow::Inner);
            let (mut out, mut types) = (Vec::new(), Vec::new());
            for column in both.columns.iter().filter(|_| side == 0 || !alone) {
                let Some(name) = of_side(&column.name, &names[side]) else { continue };
                let bound = raw.is_some() && [WINDOW_START, WINDOW_END].contains(&name);
                if bound || !(shown.names.contains_key(name) || (shown.all && name != "_time")) {
                    continue;
                }
                let place = Location { line: 1, column: 1 };
                let typed = typed(relation, &named(name), Role::Value, wanted, place)?;
                columns.push(Column { name: column.name.clone(), kind: typed.1 });
                types.extend(typed.1);
                out.push((needed[side].any(name, typed), column.name.clone()));
            }
            let node = self.filtered(relation.node, &own)?;
            let needed = std::mem::take(&mut needed[side]);
            let node = match needed.is_all_of(relation) {
                true => node,
                false => self.push(Node::Project { input: node, columns: needed.columns() }),
            };
            inputs.push(JoinInput { node, keys: std::mem::take(&mut keys[side]), columns: out, types });
        }
        let [left, mut right] =
            <[_; 2]>::try_from(inputs).map_err(|_| at(Location { line: 1, column: 1 }, "a join has two tables"))?;
        if left.node == right.node {
            // The same rows twice: a step of its own, so that the two inputs can be told apart.
            let columns = needed_again(&right);
            right.node = self.push(Node::Project { input: right.node, columns });
        }
        let mut node = self.push(Node::Join { left, right, within, how });
        if let Some(window) = raw {
            node = self.with_bounds(node, &window, &names, &mut columns);
        }
        let rows = result_rows(&sides, &names, within, raw, &columns);
        let node = self.filtered(node, &found.rest)?;
        Ok(Relation { node, names: names.to_vec(), columns, open: false, joined: true, rows })
    }

    /// The bounds of the window of a pair, which its time tells.
    fn with_bounds(&mut self, node: usize, window: &Window, names: &[String; 2], columns: &mut Vec<Column>) -> usize {
        let Some((start, end)) = bounds(window, true) else { return node };
        let kept = columns.iter().map(|c| OutputColumn { name: c.name.clone(), expr: named(&c.name).to_string() });
        let mut all: Vec<OutputColumn> = kept.collect();
        for name in names {
            for (bound, sql) in [(WINDOW_START, &start), (WINDOW_END, &end)] {
                all.push(OutputColumn { name: format!("{name}.{bound}"), expr: sql.clone() });
                columns.push(Column { name: format!("{name}.{bound}"), kind: Some(ValueKind::Time) });
            }
        }
        self.push(Node::Project { input: node, columns: all })
    }
}

fn how(join: &Join, place: Location) -> Result<(JoinHow, &Expr), Diagnostic> {
    use JoinOperator as J;
    let how = match &join.join_operator {
        J::Join(_) | J::Inner(_) => JoinHow::Inner,
        J::Left(_) | J::LeftOuter(_) => JoinHow::Left,
        J::Right(_) | J::RightOuter(_) => JoinHow::Right,
        J::FullOuter(_) => JoinHow::Full,
        J::LeftSemi(_) | J::Semi(_) => JoinHow::Semi,
        J::LeftAnti(_) | J::Anti(_) => JoinHow::Anti,
        _ => {
            return Err(at(
                place,
                "a continuous query has JOIN, LEFT JOIN, RIGHT JOIN, FULL JOIN, SEMI JOIN and ANTI JOIN",
            )
            .help(IN_TIME));
        }
    };
    match constraint(&join.join_operator) {
        Some(JoinConstraint::On(on)) => Ok((how, on)),
        _ => Err(at(place, "a join needs ON")
            .help("write JOIN … ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '1 minute'")),
    }
}

fn joinable(relation: &Relation<'_>, place: Location) -> Result<(), Diagnostic> {
    let late = |window: &Window| !window.lateness.is_zero();
    let found = match &relation.rows {
        Rows::Plain => return Ok(()),
        Rows::Windowed(window) | Rows::Results { window, .. } if late(window) => {
            at(place, "a window with lateness answers twice, and both answers would be joined")
                .help("take the lateness away")
        }
        Rows::Windowed(Window { kind: WindowKind::Session, .. }) => {
            at(place, "sessions of two tables have no window in common").help("take tumble, hop or cumulate")
        }
        Rows::Windowed(_) | Rows::Results { .. } => return Ok(()),
        Rows::Changes(_) => at(place, "results that change cannot be joined").help("group them by window_start too"),
        Rows::Last | Rows::Ranked(_) => {
            at(place, "what was ranked cannot be joined").help("join first, and rank what comes of it")
        }
        Rows::Sequence(_) => at(place, "put sequence(…) into a subquery with its GROUP BY"),
    };
    Err(found)
}

/// A `*` over an index has no list of columns.
fn starred(select: &Select, relation: &Relation<'_>, through: &Wanted) -> Result<(), Diagnostic> {
    let is_star = |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    match select.projection.iter().find(is_star) {
        Some(star) if relation.open && through.all => {
            Err(at(star.span().start, "* is not possible here: an index has no list of columns")
                .help("name the columns one by one"))
        }
        _ => Ok(()),
    }
}

/// Both tables' columns as `<table>.<column>`.
fn both<'a>(names: &[String; 2], sides: &[(Relation<'a>, Wanted); 2]) -> Relation<'a> {
    let mut columns = Vec::new();
    for (name, (relation, wanted)) in names.iter().zip(sides) {
        let mut own: Vec<Column> = relation.columns.clone();
        own.push(Column { name: "_time".to_owned(), kind: Some(ValueKind::Time) });
        if relation.open {
            let more = wanted.names.keys().filter(|wanted| !own.iter().any(|column| column.name == **wanted));
            let more: Vec<Column> = more.map(|name| Column { name: name.clone(), kind: relation.kind(name) }).collect();
            own.extend(more);
        }
        columns.extend(own.into_iter().map(|column| Column { name: format!("{name}.{}", column.name), ..column }));
    }
    Relation { node: 0, names: names.to_vec(), columns, open: false, joined: true, rows: Rows::Plain }
}

/// In which way pairs meet in time, and the windows of rows that were not in one yet.
fn within(
    sides: &[(Relation<'_>, Wanted); 2],
    found: &mut Conditions,
    place: Location,
) -> Result<(Within, Option<Window>), Diagnostic> {
    let [start, end] = found.windows;
    let same = |one: &Window, other: &Window| {
        let tells = match one.kind {
            WindowKind::Cumulate { .. } => end,
            _ => start || end,
        };
        one == other && tells
    };
    match (&sides[0].0.rows, &sides[1].0.rows) {
        (Rows::Windowed(one), Rows::Windowed(other)) if same(one, other) => Ok((Within::Window(*one), Some(*one))),
        (Rows::Windowed(_), _) | (_, Rows::Windowed(_)) => {
            Err(at(place, "windows are joined by their bounds, and are the same on both sides")
                .help("write ON a.key = b.key AND a.window_start = b.window_start AND a.window_end = b.window_end"))
        }
        (Rows::Results { window: one, .. }, Rows::Results { window: other, .. })
            if same(one, other) && one.kind != WindowKind::Session =>
        {
            // Results of one window have its last instant as their time.
            let size = one.pane().unwrap_or(one.size);
            Ok((Within::Window(Window { kind: WindowKind::Tumble, size, ..*one }), None))
        }
        _ => {
            let missing = |what: &str| {
                at(place, format!("without {what} every row would have to be kept for ever")).help(IN_TIME)
            };
            let (lower_ms, upper_ms) = found.times.milliseconds(place, missing)?;
            found.rest.append(&mut found.times.rest);
            Ok((Within::Interval { lower_ms, upper_ms }, None))
        }
    }
}

/// What a SELECT shows of one table, and what is left to be seen of pairs.
fn shown(select: &Select, name: &str, through: &Wanted, rest: &[Expr], outer: bool) -> Wanted {
    let names = [name.to_owned()];
    let mut found = through.clone();
    found.note(&select.projection, &names, true);
    found.note(&select.group_by, &names, true);
    found.note(&select.having, &names, true);
    if outer {
        found.note(&select.selection, &names, true);
    }
    for expr in rest {
        let ControlFlow::<()>::Continue(()) = visit_expressions(expr, |inner| {
            if let Expr::Identifier(ident) = inner
                && let Some(own) = of_side(&ident.value, name)
            {
                found.names.entry(own.to_owned()).or_default();
            }
            ControlFlow::Continue(())
        }) else {
            continue;
        };
    }
    found
}

fn needed_again(input: &JoinInput) -> Vec<OutputColumn> {
    let mut all: Vec<&String> = input.keys.iter().chain(input.columns.iter().map(|(column, _)| column)).collect();
    all.sort();
    all.dedup();
    all.retain(|name| *name != "_time");
    all.into_iter().map(|name| OutputColumn { name: name.clone(), expr: named(name).to_string() }).collect()
}

/// What pairs stand for.
fn result_rows<'a>(
    sides: &[(Relation<'a>, Wanted); 2],
    names: &[String; 2],
    within: Within,
    raw: Option<Window>,
    columns: &[Column],
) -> Rows<'a> {
    let known = |name: String| Some(name).filter(|name| columns.iter().any(|column| column.name == *name));
    match (&sides[0].0.rows, within, raw) {
        (Rows::Results { window, start, end }, Within::Window(_), _) => {
            let called = |bound: &Option<String>| known(format!("{}.{}", names[0], bound.as_ref()?));
            Rows::Results { window: *window, start: called(start), end: called(end) }
        }
        (_, _, Some(window)) => Rows::Results {
            window,
            start: known(format!("{}.{WINDOW_START}", names[0])),
            end: known(format!("{}.{WINDOW_END}", names[0])),
        },
        _ => Rows::Plain,
    }
}
