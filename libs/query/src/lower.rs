//! Plans as SQL, for everything that SQL can say.
//!
//! A plan becomes one `WITH "P1" AS (…), "P2" AS (…) SELECT …`. The names of its stages are capital, which names of
//! indexes never are. Every name stands in `"`, every text in `'`, both doubled inside, so no text of a query ever becomes
//! SQL. What a step needs to know of the columns it reads is known, because the caller gives the columns of every index.

mod aggregate;
mod continuous;
mod library;
mod neighbour;
mod predicate;
mod quote;
mod rows;
mod source;
mod step;
mod table;
mod term;

use std::collections::BTreeMap;

use types::{IndexName, Timestamp};

use crate::{
    Diagnostic, Select, SieveStage, TableName,
    logql::Unit,
    nearest, parse_select,
    pipe::position,
    plan::{Plan, Step},
};

pub use continuous::{Ongoing, lower_continuous};
pub use library::{lower_over, lower_view};
pub(crate) use predicate::escaped;
pub(crate) use quote::{name, text, timestamp};
pub(crate) use rows::{Out, Rows};
pub(crate) use step::template;

/// Most stages of one query: as many tables as a statement may name.
const STAGES_MAX: usize = 30;

/// A column of an index as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: ColumnKind,
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    Text,
    /// Whole numbers of 64 bits.
    Integer,
    /// Floating-point numbers.
    Number,
    /// True or false.
    Boolean,
    /// Instants.
    Time,
    /// Anything else; its text is used.
    Other,
}

/// What a plan meets where it runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// When it runs: `since:1h` counts from here.
    pub now: Timestamp,
    /// The columns of every index that it reads.
    pub columns: BTreeMap<IndexName, Vec<Column>>,
    /// The most rows that are wanted; one more is asked for, so that it shows when there are more.
    pub rows_max: usize,
}

/// A statement that answers the plan; `text` is what the plan was read from, complaints point into it.
///
/// Order: events are newest first unless `sort` says otherwise, groups are by their keys.
/// Errors: a field or an index that is not there; `not yet here: …` for steps that SQL cannot say, which are `expand
/// follow alert into export create explain`; too many stages.
pub fn lower(plan: &Plan, text: &str, around: &Surroundings) -> Result<Select, Diagnostic> {
    let mut lowering = Lowering::new(text, around, false);
    let rows = lowering.rows_of(plan)?;
    let last = rows.last(around.rows_max.saturating_add(1));
    lowering.select(&last)
}

/// A plan on its way to SQL.
pub(crate) struct Lowering<'a> {
    text: &'a str,
    pub(crate) around: &'a Surroundings,
    stages: Vec<String>,
    /// Whether fields are labels of LogQL: one that is not there is null, and dots may be written as `_`.
    labels: bool,
    /// What is gathered instead of stages of a statement, where single events are looked at.
    one_by_one: Option<Vec<SieveStage>>,
    /// The columns of the views and lookups that may be read.
    tables: BTreeMap<TableName, Vec<Column>>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(text: &'a str, around: &'a Surroundings, labels: bool) -> Self {
        Self { text, around, stages: Vec::new(), labels, one_by_one: None, tables: BTreeMap::new() }
    }

    /// The rows that the plan gives.
    pub(crate) fn rows_of(&mut self, plan: &Plan) -> Result<Rows, Diagnostic> {
        self.rows_until(plan, plan.steps.len(), 0)
    }

    /// The rows before a step, for a span of time moved back by so many nanoseconds.
    fn rows_until(&mut self, plan: &Plan, end: usize, back: i64) -> Result<Rows, Diagnostic> {
        let rows = self.source(plan, back)?;
        self.through(rows, plan, end, back)
    }

    /// The rows of a plan of which the given conditions hold besides its own.
    pub(crate) fn rows_from(&mut self, plan: &Plan, within: Vec<String>) -> Result<Rows, Diagnostic> {
        let mut rows = self.source(plan, 0)?;
        rows.filters.extend(within);
        self.through(rows, plan, plan.steps.len(), 0)
    }

    /// What the search and the steps before one of them make of rows.
    fn through(&mut self, mut rows: Rows, plan: &Plan, end: usize, back: i64) -> Result<Rows, Diagnostic> {
        self.filter(&mut rows, &plan.search)?;
        for (i, step) in plan.steps[..end].iter().enumerate() {
            match step {
                Step::Compare(span) => {
                    let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
                    let before = self.rows_until(plan, i, back.saturating_add(span))?;
                    self.compare(&mut rows, before, span)?;
                }
                Step::Context { before, after } => {
                    let source = self.source(plan, back)?;
                    self.context(&mut rows, source, *before, *after)?;
                }
                step => self.step(&mut rows, step)?,
            }
        }
        Ok(rows)
    }

    /// What a plan of steps that look at one event at a time does to each.
    pub(crate) fn one_by_one(mut self, plan: &Plan) -> Result<Vec<SieveStage>, Diagnostic> {
        self.one_by_one = Some(Vec::new());
        let mut rows = self.rows_of(plan)?;
        self.settle(&mut rows, None)?;
        Ok(self.one_by_one.unwrap_or_default())
    }

    /// A new stage, and the name under which others read it.
    pub(crate) fn stage(&mut self, sql: &str) -> Result<String, Diagnostic> {
        if self.stages.len() == STAGES_MAX {
            return Err(Diagnostic::new(1, 1, format!("the query takes more than {STAGES_MAX} stages as SQL"))
                .help("use fewer steps that follow one another"));
        }
        let stage = format!("\"P{}\"", self.stages.len() + 1);
        self.stages.push(format!("{stage} AS ({sql})"));
        Ok(stage)
    }

    /// The whole statement, read back as one.
    pub(crate) fn select(self, last: &str) -> Result<Select, Diagnostic> {
        let with = if self.stages.is_empty() { String::new() } else { format!("WITH {} ", self.stages.join(", ")) };
        let sql = format!("{with}{last}");
        parse_select(&sql).map_err(|found| {
            Diagnostic::new(1, 1, format!("the query is too large as SQL: {}", found.message))
                .help("use fewer tests and steps")
        })
    }

    /// A complaint at the place where the text first says this word.
    pub(crate) fn complaint(&self, word: &str, message: impl Into<String>) -> Diagnostic {
        complaint_in(self.text, word, message)
    }

    pub(crate) fn not_yet(&self, command: &str) -> Diagnostic {
        self.complaint(command, format!("not yet here: {command}"))
    }

    /// A label as text.
    pub(crate) fn label_text(&self, rows: &Rows, label: &str) -> Result<String, Diagnostic> {
        Ok(self.column(rows, label)?.text())
    }

    /// The number that a label holds, null where it holds none.
    pub(crate) fn label_number(&self, rows: &Rows, label: &str, unit: Unit) -> Result<String, Diagnostic> {
        let column = self.column(rows, label)?;
        let (sql, factor) = match unit {
            Unit::Number => (column.numeric(), 1.0),
            Unit::Duration => column.seconds(Some(label)),
            Unit::Bytes => column.bytes(Some(label)),
        };
        Ok(if factor == 1.0 { sql } else { format!("{sql} / {factor:?}") })
    }

    fn no_field<'n>(&self, field: &str, names: impl Iterator<Item = &'n str>) -> Diagnostic {
        let found = self.complaint(field, format!("there is no field {field}"));
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        match nearest(field, names.iter().copied()) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => {
                let more = if names.len() > 20 { ", …" } else { "" };
                names.truncate(20);
                found.help(format!("the fields are {}{more}", names.join(", ")))
            }
        }
    }
}

/// A complaint at the place where a text first says this word.
pub(crate) fn complaint_in(text: &str, word: &str, message: impl Into<String>) -> Diagnostic {
    let (line, column) = place_of(text, word).map_or((1, 1), |at| position(text, at));
    Diagnostic::new(line, column, message)
}

/// Where a text first says this word.
pub(crate) fn place_of(text: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back().is_some_and(part);
        let after = text[at + word.len()..].chars().next().is_some_and(part);
        !word.is_empty() && !before && !after
    })
}

#[cfg(test)]
mod tests;
