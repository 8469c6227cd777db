//! What can go wrong with a query, told in terms of its text.

use std::time::Duration;

use datafusion::{common::SchemaError, error::DataFusionError};
use query::{Diagnostic, Select, nearest};
use wire::Problem;

/// Why a query or an expression was not run to its end; nothing was changed by it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The text asks for something that is not there or does not fit.
    #[error(transparent)]
    Query(#[from] Diagnostic),
    /// It took too long.
    #[error("the query did not end within {0:?}: narrow its time range")]
    Timeout(Duration),
    /// It needed too much memory.
    #[error("the query needs more than {0} bytes of memory: narrow its time range or group by fewer values")]
    Memory(usize),
    /// A table could not be read.
    #[error(transparent)]
    Source(#[from] Problem),
    /// A defect.
    #[error("the query failed in a way that it should not")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// Turns DataFusion's error into ours; `locate` finds a name in the text.
pub(crate) fn explain(
    error: &DataFusionError,
    memory_bytes: usize,
    locate: &dyn Fn(&str) -> (u32, u32),
) -> EngineError {
    let place = place(error);
    let (line, column) = place.unwrap_or((1, 1));
    match root(error) {
        DataFusionError::SchemaError(schema, _) => EngineError::Query(schema_complaint(schema, place, locate)),
        DataFusionError::ResourcesExhausted(_) => EngineError::Memory(memory_bytes),
        DataFusionError::External(inner) => match inner.downcast_ref::<Problem>() {
            Some(problem) => EngineError::Source(problem.clone()),
            None if let Some(found) = inner.downcast_ref::<Diagnostic>() => EngineError::Query(found.clone()),
            None => {
                let said = inner.to_string();
                regex_complaint(&said, line, column)
                    .map_or_else(|| EngineError::Internal(said.into()), EngineError::Query)
            }
        },
        DataFusionError::Plan(said)
        | DataFusionError::NotImplemented(said)
        | DataFusionError::Execution(said)
        | DataFusionError::Configuration(said) => {
            let found = regex_complaint(said, line, column);
            EngineError::Query(found.unwrap_or_else(|| text_complaint(said, place, locate)))
        }
        DataFusionError::ArrowError(inner, _) => {
            let said = inner.to_string();
            let found = regex_complaint(&said, line, column);
            EngineError::Query(found.unwrap_or_else(|| Diagnostic::new(line, column, said)))
        }
        DataFusionError::SQL(inner, _) => EngineError::Query(Diagnostic::new(line, column, inner.to_string())),
        other => {
            let said = other.to_string();
            regex_complaint(&said, line, column).map_or_else(|| EngineError::Internal(said.into()), EngineError::Query)
        }
    }
}

/// A complaint about a regular expression, which comes from a crate that is not ours to name; it ends with what is wrong.
fn regex_complaint(said: &str, line: u32, column: u32) -> Option<Diagnostic> {
    // How errors of that crate are shown, and how they are shown inside of others.
    if said.contains("CompiledTooBig") || said.contains("exceeds size limit") {
        let found =
            Diagnostic::new(line, column, "a regular expression is too large once its repetitions are written out");
        return Some(found.help("repeat less in it: x{1000} in something that is repeated counts a thousand times"));
    }
    let why = said.split("regex parse error:").nth(1)?.rsplit("error: ").next()?;
    let why = why.trim().trim_end_matches(['"', ')']);
    Some(Diagnostic::new(line, column, format!("a regular expression cannot be read: {why}")))
}

/// [`explain`] for a query.
pub(crate) fn explain_select(error: &DataFusionError, memory_bytes: usize, select: &Select) -> EngineError {
    explain(error, memory_bytes, &|name| select.locate(name))
}

/// The error below contexts, diagnostics and shared wrappers; of several the first.
fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(all) => all.first().map_or(error, root),
        // Table sources report through arrow streams, which wrap them once more.
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            arrow::error::ArrowError::ExternalError(inner) => inner.downcast_ref().map_or(error, root),
            _ => error,
        },
        DataFusionError::External(inner) => inner.downcast_ref().map_or(error, root),
        other => other,
    }
}

fn place(error: &DataFusionError) -> Option<(u32, u32)> {
    let start = error.diagnostic()?.span?.start;
    Some((u32::try_from(start.line).ok()?, u32::try_from(start.column).ok()?))
}

fn schema_complaint(error: &SchemaError, place: Option<(u32, u32)>, locate: &dyn Fn(&str) -> (u32, u32)) -> Diagnostic {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let (line, column) = place.unwrap_or_else(|| locate(&field.name));
            let found = Diagnostic::new(line, column, format!("there is no column {}", field.name));
            let mut names: Vec<&str> = valid_fields.iter().map(|field| field.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            match nearest(&field.name, names.iter().copied()) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None if names.is_empty() => found,
                None => {
                    let more = if names.len() > 20 { ", …" } else { "" };
                    names.truncate(20);
                    found.help(format!("the columns are {}{more}", names.join(", ")))
                }
            }
        }
        SchemaError::AmbiguousReference { field } => {
            let (line, column) = place.unwrap_or_else(|| locate(&field.name));
            Diagnostic::new(line, column, format!("the column {} is in more than one table", field.name))
                .help(format!("write <table>.{}", field.name))
        }
        other => Diagnostic::new(1, 1, other.to_string()).help("give one of the columns another alias"),
    }
}

/// A complaint in DataFusion's own words, placed at the name that it quotes where it quotes one.
fn text_complaint(said: &str, place: Option<(u32, u32)>, locate: &dyn Fn(&str) -> (u32, u32)) -> Diagnostic {
    let mut lines = said.lines();
    let message = lines.next().unwrap_or_default();
    let message = message.strip_prefix("Error during planning: ").unwrap_or(message).trim_end_matches('.');
    let quoted = message.split('\'').nth(1).or_else(|| message.split('"').nth(1));
    let (line, column) = place.or_else(|| quoted.map(locate)).unwrap_or((1, 1));
    let found = Diagnostic::new(line, column, message);
    match lines.find(|line| line.starts_with("Did you mean")) {
        Some(help) => found.help(format!("d{}", &help[1..])),
        None => found,
    }
}
