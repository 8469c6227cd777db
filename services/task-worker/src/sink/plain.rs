//! Sinks without any promise: a new attempt may give them rows again.

use std::io::Write;

use arrow::array::RecordBatch;
use futures::future::{BoxFuture, ready};

use crate::{error::TaskError, part::Part, run::RowSink};

/// Takes rows and forgets them; they are counted by the task.
#[derive(Debug)]
pub(super) struct Blackhole;

impl RowSink for Blackhole {
    fn rows(&mut self, _: Option<u64>, _: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        Box::pin(ready(Ok(())))
    }

    fn barrier<'a>(&'a mut self, _: u64, _: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(ready(Ok(())))
    }
}

/// Writes rows as lines of JSON to the standard output of the worker.
#[derive(Debug)]
pub(super) struct Stdout;

/// Rows as lines of JSON.
pub(super) fn lines(batch: &RecordBatch) -> Result<Vec<u8>, TaskError> {
    let mut text = Vec::new();
    for row in engine::json_rows(batch)? {
        text.extend_from_slice(&row);
        text.push(b'\n');
    }
    Ok(text)
}

fn print(batch: &RecordBatch) -> Result<(), TaskError> {
    let wrong = |e: std::io::Error| TaskError::Source { what: "standard output".to_owned(), problem: e.to_string() };
    let text = lines(batch)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(wrong)
}

impl RowSink for Stdout {
    fn rows(&mut self, _: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        Box::pin(ready(print(batch)))
    }

    fn barrier<'a>(&'a mut self, _: u64, _: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(ready(Ok(())))
    }
}
