//! OVER: aggregates of each row over the rows before it.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        Expr, Function, Ident, Spanned, Value, ValueWithSpan, WindowFrame, WindowFrameBound, WindowFrameUnits,
        WindowSpec, WindowType, visit_expressions,
    },
    tokenizer::Location,
};

use super::{
    argument,
    column::{Needed, Role, typed},
    group::{plain, result, role},
    item::{Item, aggregate},
    plan::{Computed, Frame, Node},
    scope::{Column, Relation, Rows, Wanted, named},
    select::Planner,
};
use crate::{Diagnostic, text::at};

/// Most rows of a frame.
const ROWS_MAX: u64 = 1_000_000;

const FRAME: &str =
    "write ROWS BETWEEN 3 PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW";

/// A call with OVER that is a column of its own.
pub(crate) struct Call<'i> {
    pub(crate) item: &'i Item,
    function: &'i Function,
    pub(crate) spec: &'i WindowSpec,
}

fn call(item: &Item) -> Result<Option<Call<'_>>, Diagnostic> {
    if let Expr::Function(function) = &item.expr
        && let Some(over) = &function.over
    {
        return match over {
            WindowType::WindowSpec(spec) => Ok(Some(Call { item, function, spec })),
            WindowType::NamedWindow(name) => Err(at(name.span.start, "named windows are not available")
                .help("write what it says in parentheses: OVER (PARTITION BY … ORDER BY …)")),
        };
    }
    Ok(None)
}

impl<'a> Planner<'a> {
    /// A SELECT list with OVER.
    pub(crate) fn over(
        &mut self,
        list: Vec<Item>,
        relation: Relation<'a>,
        wanted: &Wanted,
    ) -> Result<Relation<'a>, Diagnostic> {
        let calls = list.iter().map(call).collect::<Result<Vec<_>, _>>()?;
        let calls: Vec<Call<'_>> = calls.into_iter().flatten().collect();
        let Some(first) = calls.first() else {
            let place = list.first().map_or(Location { line: 1, column: 1 }, |item| item.place);
            return Err(at(place, "what has OVER is a column of its own")
                .help("give it a name here, and reckon with it in a query around this one"));
        };
        let number = |call: &&Call<'_>| call.function.name.to_string().eq_ignore_ascii_case("row_number");
        match calls.iter().find(number) {
            Some(only) if calls.len() == 1 => self.ranking(&list, only, relation, wanted),
            Some(more) => {
                Err(at(more.item.place, "row_number() stands alone").help("put the other OVER into a query inside"))
            }
            None => {
                let other = calls.iter().find(|call| call.spec.to_string() != first.spec.to_string());
                match other {
                    Some(other) => Err(at(other.item.place, "every OVER of one SELECT says the same")
                        .help("put the other one into a query inside")),
                    None => self.running(&list, &calls, relation, wanted),
                }
            }
        }
    }

    fn running(
        &mut self,
        list: &[Item],
        calls: &[Call<'_>],
        relation: Relation<'a>,
        wanted: &Wanted,
    ) -> Result<Relation<'a>, Diagnostic> {
        let Some(first) = calls.first() else { return Ok(relation) };
        let place = first.item.place;
        match &relation.rows {
            Rows::Plain => {}
            Rows::Windowed(_) => {
                return Err(at(place, "OVER goes by the rows before, not by windows").help("read stream(…) instead"));
            }
            _ => return Err(at(place, "OVER needs rows that come by time, one by one")),
        }
        by_time(first.spec, place)?;
        let frame = frame(first.spec, place)?;
        let mut needed = Needed::default();
        let keys = keys(first.spec, &relation, wanted, &mut needed)?;
        let mut out: Vec<Item> = Vec::new();
        for item in list.iter().filter(|item| !calls.iter().any(|call| call.item.name == item.name)) {
            needed_of(&item.expr, item.place, &relation, wanted, &mut needed)?;
        }
        let mut aggregates = Vec::new();
        for call in calls {
            let (function, argument) = aggregate(call.function)?;
            let (column, kind) = match argument {
                None => (None, None),
                Some(argument) => {
                    let role = role(function, relation.kind_of(argument));
                    let typed = typed(&relation, argument, role, wanted, call.item.place)?;
                    let kind = typed.1;
                    (Some(needed.any(&format!("{} of it", plain(argument)), typed)), kind)
                }
            };
            aggregates.push(Computed { name: call.item.name.clone(), function, column, kind });
        }
        for item in list {
            let own = calls.iter().any(|call| call.item.name == item.name);
            let expr = if own { named(&item.name) } else { item.expr.clone() };
            out.push(Item { expr, ..item.clone() });
        }
        let mut columns: Vec<Column> = needed.shown().map(|(name, kind)| Column { name: name.clone(), kind }).collect();
        if let Some(twice) = aggregates.iter().find(|a| columns.iter().any(|column| column.name == a.name)) {
            return Err(
                at(place, format!("{} is the name of a column already", twice.name)).help("choose another alias")
            );
        }
        columns.extend(aggregates.iter().map(|a| Column { name: a.name.clone(), kind: result(a) }));
        let input = self.push(Node::Project { input: relation.node, columns: needed.columns() });
        let node = self.push(Node::Over { input, keys, aggregates, frame });
        let rows = Relation { node, names: Vec::new(), columns, open: false, joined: false, rows: Rows::Plain };
        self.projected(rows, &out)
    }
}

/// The columns of a partition, each under the name that it has there.
pub(crate) fn keys(
    spec: &WindowSpec,
    relation: &Relation<'_>,
    wanted: &Wanted,
    needed: &mut Needed,
) -> Result<Vec<String>, Diagnostic> {
    let mut keys = Vec::new();
    for key in &spec.partition_by {
        let expr = relation.expr(key)?;
        let name = plain(&expr);
        needed.put(&name, typed(relation, &expr, Role::Key, wanted, key.span().start)?);
        if !keys.contains(&name) {
            keys.push(name);
        }
    }
    Ok(keys)
}

/// The columns that an expression uses, under their own names.
pub(crate) fn needed_of(
    expr: &Expr,
    place: Location,
    relation: &Relation<'_>,
    wanted: &Wanted,
    needed: &mut Needed,
) -> Result<(), Diagnostic> {
    let mut found: Vec<Ident> = Vec::new();
    let ControlFlow::<()>::Continue(()) = visit_expressions(expr, |inner| {
        if let Expr::Identifier(ident) = inner {
            found.push(ident.clone());
        }
        ControlFlow::Continue(())
    }) else {
        return Ok(());
    };
    for ident in found.into_iter().filter(|ident| ident.value != "_time") {
        let name = ident.value.clone();
        needed.put(&name, typed(relation, &Expr::Identifier(ident), Role::Value, wanted, place)?);
    }
    Ok(())
}

fn by_time(spec: &WindowSpec, place: Location) -> Result<(), Diagnostic> {
    let time = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if ident.value == "_time");
    match spec.order_by.as_slice() {
        [one] if time(&one.expr) && one.options.asc != Some(false) => Ok(()),
        [other, ..] => Err(at(other.span().start, "running aggregates go by time").help("write ORDER BY _time")),
        [] => Err(at(place, "running aggregates go by time").help("write OVER (PARTITION BY <key> ORDER BY _time)")),
    }
}

fn frame(spec: &WindowSpec, place: Location) -> Result<Frame, Diagnostic> {
    let wrong = |message: &str| Err(at(place, message).help(FRAME));
    let Some(WindowFrame { units, start_bound, end_bound }) = &spec.window_frame else { return Ok(Frame::Unbounded) };
    if !matches!(end_bound, None | Some(WindowFrameBound::CurrentRow)) {
        return wrong("a frame ends with the row itself: what follows it has not come yet");
    }
    match (units, start_bound) {
        (WindowFrameUnits::Groups, _) => wrong("frames are of ROWS or of RANGE"),
        (_, WindowFrameBound::Following(_)) => wrong("a frame begins before the row"),
        (_, WindowFrameBound::Preceding(None)) => Ok(Frame::Unbounded),
        (WindowFrameUnits::Rows, WindowFrameBound::CurrentRow) => Ok(Frame::Rows(0)),
        (WindowFrameUnits::Range, WindowFrameBound::CurrentRow) => wrong("a frame of RANGE has a length"),
        (WindowFrameUnits::Rows, WindowFrameBound::Preceding(Some(number))) => {
            let number = match &**number {
                Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => number.parse::<u64>().ok(),
                _ => None,
            };
            match number.filter(|number| *number <= ROWS_MAX) {
                Some(number) => Ok(Frame::Rows(number)),
                None => Err(at(place, format!("a frame has up to {ROWS_MAX} rows")).help(FRAME)),
            }
        }
        (WindowFrameUnits::Range, WindowFrameBound::Preceding(Some(span))) => {
            Ok(Frame::Range(argument::interval(span, "the length of the frame")?.0))
        }
    }
}
