//! Continuous texts: one or several `INSERT INTO … SELECT …` over rows that never end.

pub(crate) mod argument;
mod bound;
mod clause;
mod column;
mod group;
mod item;
mod join;
mod kind;
mod over;
mod plan;
mod rank;
mod scope;
mod select;
mod sequence;
mod side;
mod sink;
mod source;
mod table;

use std::ops::ControlFlow;

use sqlparser::{
    ast::{Query, Statement, TableFactor, Visit, Visitor},
    keywords::Keyword,
    tokenizer::{Location, Token, TokenWithSpan},
};

pub use clause::OnError;
pub use kind::{Columns, ValueKind};
pub use plan::{
    Computed, Frame, JoinHow, JoinInput, Measured, MeasuredValue, Node, Order, Output, SequenceStep, StreamPlan,
    Window, WindowKind, Within,
};
pub use sink::Target;
pub use source::{CorruptRows, Declared, Format, Input, NexmarkTable, TimeUnit};

use crate::{
    Diagnostic,
    text::{at, dashed, is_word, misspelt, statement, statements},
};
use clause::{Clauses, name_arguments, take_clauses, take_insert};
use scope::{Rows, Wanted};
use select::Planner;
use table::Patience;

/// Most statements of one text.
pub const STATEMENTS_MAX: usize = 16;

/// One statement without what SQL does not have.
struct Parsed {
    begin: Location,
    target: Option<Target>,
    clauses: Clauses,
    query: Box<Query>,
}

/// Reads a continuous text: statements with `;` between them, each `[INSERT INTO <target>] SELECT … [LATE INTO <target>]
/// [EMIT EVERY INTERVAL '…'] [ON ERROR FAIL | NULL | INTO <target>]`. What it has in common is done once.
///
/// Errors: everything that cannot be computed of rows that never end, with the place, the reason and what to write instead.
pub fn parse_stream(text: &str) -> Result<StreamPlan, Diagnostic> {
    let parsed = statements(text, STATEMENTS_MAX)?.into_iter().map(|tokens| parse(text, tokens));
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    let mut planner =
        Planner { patience: parsed.iter().flat_map(|one| patience(&one.query)).collect(), ..Planner::default() };
    let mut plan = StreamPlan::default();
    let mut on_error: Option<OnError> = None;
    for Parsed { begin, target, clauses, query } in &parsed {
        let output = output(&mut planner, *begin, target.as_ref(), clauses, query)?;
        plan.outputs.push(output);
        if let Some((policy, place)) = &clauses.on_error {
            match &on_error {
                Some(other) if other != policy => {
                    return Err(at(*place, "ON ERROR is one for all statements that are submitted together")
                        .help("say the same in each of them, or submit them one by one"));
                }
                _ => on_error = Some(policy.clone()),
            }
        }
    }
    plan.nodes = planner.nodes;
    plan.on_error = on_error.unwrap_or_default();
    match parsed.first() {
        Some(first) if plan.wants_dead_letters() && !matches!(plan.on_error, OnError::Into(_)) => {
            Err(at(first.begin, "corrupt => 'dead_letter' does not say where such rows go")
                .help("add ON ERROR INTO <index>"))
        }
        _ => Ok(plan),
    }
}

fn parse(text: &str, mut tokens: Vec<TokenWithSpan>) -> Result<Parsed, Diagnostic> {
    let clauses = take_clauses(text, &mut tokens)?;
    let target = take_insert(text, &mut tokens)?;
    let begin = match tokens.first() {
        Some(first) if ["SELECT", "WITH"].iter().any(|word| is_word(Some(first), word)) => first.span.start,
        Some(first) => return Err(no_select(first)),
        None => return Err(Diagnostic::new(1, 1, "the SELECT is missing").help("write INSERT INTO <index> SELECT …")),
    };
    for i in 0..tokens.len() {
        if ["FROM", "JOIN"].iter().any(|word| is_word(tokens.get(i), word)) {
            dashed(&tokens, i + 1)?;
        }
    }
    for i in 0..tokens.len() {
        let function = ["tumble", "hop", "cumulate", "session", "stream", "sequence"];
        if function.iter().any(|name| is_word(tokens.get(i), name))
            && tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen)
        {
            dashed(&tokens, i + 2)?;
        }
    }
    name_arguments(&mut tokens)?;
    // Behind a dot stands the name of a column, whatever it means elsewhere: b.user.
    for i in 1..tokens.len() {
        let dot = tokens[i - 1].token == Token::Period;
        if let Token::Word(word) = &mut tokens[i].token
            && dot
        {
            word.keyword = Keyword::NoKeyword;
        }
    }
    let Statement::Query(query) = statement(text, tokens)? else {
        return Err(at(begin, "a continuous query is one SELECT"));
    };
    Ok(Parsed { begin, target, clauses, query })
}

fn no_select(first: &TokenWithSpan) -> Diagnostic {
    let found = at(first.span.start, format!("a continuous query does not begin with {}", first.token));
    match &first.token {
        Token::Word(word) => match misspelt(word, &["SELECT", "INSERT", "WITH"]) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => found.help("begin with SELECT or INSERT INTO <index> SELECT"),
        },
        _ => found.help("begin with SELECT or INSERT INTO <index> SELECT"),
    }
}

fn output<'a>(
    planner: &mut Planner<'a>,
    begin: Location,
    target: Option<&Target>,
    clauses: &Clauses,
    query: &'a Query,
) -> Result<Output, Diagnostic> {
    planner.emit_every = clauses.emit_every.map(|(every, _)| every);
    let relation = planner.query(query, &Wanted::all())?.settled()?;
    if let (Some(_), Some((_, place))) = (planner.emit_every.take(), clauses.emit_every) {
        return Err(
            at(place, "EMIT EVERY is about windows, and there is none").help("read tumble(…), hop(…) or cumulate(…)")
        );
    }
    if let Some((_, place)) = clauses.emit_every
        && !emits_last(&planner.nodes, relation.node)
    {
        let found = at(
            place,
            "EMIT EVERY is about the windows that are written, with nothing but computed columns behind them",
        );
        return Err(found.help("take HAVING and the queries around the window away"));
    }
    let changes = match relation.rows {
        Rows::Changes(place) => {
            if let Some(target) = target.filter(|target| !target.takes_changes()) {
                return Err(at(
                    place,
                    format!(
                        "this result changes with every row, and {} cannot take back what it has got",
                        target.word()
                    ),
                )
                .help("let windows close it: FROM tumble(…) GROUP BY …, window_start; or INSERT INTO stdout()"));
            }
            true
        }
        _ => false,
    };
    let late_into = clauses.late_into.as_ref().map(|(target, place)| {
        if can_be_late(&planner.nodes, relation.node) {
            Ok(target.clone())
        } else {
            Err(at(*place, "nothing comes too late here: each row is looked at alone").help("take LATE INTO away"))
        }
    });
    if let (None, Some(_)) = (target, &clauses.late_into) {
        return Err(at(begin, "LATE INTO stands behind INSERT INTO <index> SELECT …"));
    }
    Ok(Output { node: relation.node, target: target.cloned(), late_into: late_into.transpose()?, changes })
}

/// Whether the results of a window that come early are written as they are: whoever filters or groups them cannot follow.
fn emits_last(nodes: &[Node], node: usize) -> bool {
    match nodes.get(node) {
        Some(Node::Project { input, .. }) => emits_last(nodes, *input),
        Some(Node::Window { emit_every, .. }) => emit_every.is_some(),
        _ => false,
    }
}

/// Whether a step remembers rows on the way to this one.
fn can_be_late(nodes: &[Node], node: usize) -> bool {
    nodes
        .get(node)
        .is_some_and(|known| known.is_stateful() || known.inputs().iter().any(|input| can_be_late(nodes, *input)))
}

/// What a query says of waiting for rows. What is wrong is told when it is planned.
fn patience(query: &Query) -> Vec<(Input, Patience)> {
    struct Said(Vec<(Input, Patience)>);
    impl Visitor for Said {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let Ok(ident) = table::name(factor)
                && let Ok(found) = table::read(ident, factor)
                && found.patience != Patience::default()
            {
                self.0.push((found.input, found.patience));
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Said(Vec::new());
    let ControlFlow::Continue(()) = query.visit(&mut found) else { return found.0 };
    found.0
}

#[cfg(test)]
mod complaint_tests;
#[cfg(test)]
mod tests;
