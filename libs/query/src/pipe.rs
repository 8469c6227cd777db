//! The pipe language: search first, then one step behind each `|`.
//!
//! ```text
//! index:shop since:1h error or warn -healthcheck status>=500 | stats count, p95(latency) by service | sort -count
//! ```
//!
//! A search is a list of tests that must all hold. `a or b` binds less than standing side by side, `-a` and `not a` negate,
//! parentheses group. A test is a word (`foo`), a phrase (`"a b"`), the begin of a word (`foo*`), a part (`*foo*`), any of
//! them without regard to case (`i(foo)`), a regular expression (`~"re"`), or one of a field: `f=v f!=v f<v f<=v f>v f>=v
//! f=v* f=* f~"re" f!~"re" f:word f in (a, b) f in 10.0.0.0/8 f in [query]`. Texts stand in `"` or `'`, where `\"` and `\\`
//! are escapes; names of fields with odd characters stand in backticks. Settings stand among the tests: `index:a,b`,
//! `since:1h`, `since:2026-11-22T05:00:00Z`, `until:5m`.

mod argument;
mod command;
mod complete;
mod cursor;
mod member;
mod rarer;
mod search;
mod step;
mod term;

use crate::{Diagnostic, TEXT_BYTES_MAX, plan::Plan};

pub use command::Command;
pub use complete::{Completion, CompletionKind, Known, complete};
pub use cursor::name_text;
pub(crate) use cursor::{Cursor, field_text, position, quoted};

/// Most steps of one query.
pub const STEPS_MAX: usize = 32;
/// Most tests of all searches and operators of all expressions of one text.
pub const TESTS_MAX: usize = 256;
/// Most fields, values or aggregates of one list.
pub const LIST_MAX: usize = 1_000;
/// How deep parentheses, negations and queries inside queries may nest together.
pub const DEPTH_MAX: usize = 32;

/// Reads a query of the pipe language.
///
/// Bounds: [`TEXT_BYTES_MAX`](crate::TEXT_BYTES_MAX), [`STEPS_MAX`], [`TESTS_MAX`], [`LIST_MAX`], [`DEPTH_MAX`].
/// Errors: everything that is no query, with the place and what to write instead.
pub fn parse_pipe(text: &str) -> Result<Plan, Diagnostic> {
    if text.len() > TEXT_BYTES_MAX {
        let found = format!("the text has {} bytes, {TEXT_BYTES_MAX} are the most a query may have", text.len());
        return Err(Diagnostic::new(1, 1, found));
    }
    let mut cursor = Cursor::new(text);
    let plan = cursor.plan()?;
    match cursor.next() {
        None => Ok(plan),
        Some(c) => Err(cursor.complaint(format!("{c} closes nothing")).help("take it away, or put it in quotes")),
    }
}

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;
