//! From the text of a continuous query to a job graph. Pure.

mod classic;
mod explain;
mod operator;
mod stream;

use flow::{JobGraph, OperatorSpec, Vertex};
use query::{Continuous, Shape, parse_continuous, parse_stream};
use types::{DurationText, IndexName};
use wire::job_manager::{NewJob, Sink};

use crate::error::Error;

pub(crate) use explain::explained;

/// A planned job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) graph: JobGraph,
    pub(crate) sink: Sink,
    /// The first index that is read.
    pub(crate) source: Option<IndexName>,
    /// The indexes that are written besides `sink`.
    pub(crate) also: Vec<IndexName>,
}

/// A split without rows and without lag for this long holds no watermark back.
const IDLE_AFTER: DurationText = DurationText(std::time::Duration::from_secs(2));

/// Plans a job; `parallelism` is that of the source, at most one subtask per segment.
pub(crate) fn plan(job: &NewJob, parallelism: u16) -> Result<Plan, Error> {
    let parallelism = u32::from(parallelism.max(1));
    let classic = match parse_continuous(&job.text) {
        Ok(read) if !is_movable(&read, job) => return classic::plan(read, job, parallelism),
        other => other.ok(),
    };
    match (parse_stream(&job.text), classic) {
        (Ok(read), _) => stream::plan(&read, job, parallelism),
        (Err(_), Some(read)) => classic::plan(read, job, parallelism),
        (Err(diagnostic), None) => Err(Error::InvalidQuery(diagnostic.render(&job.text))),
    }
}

/// Whether the windows are better those whose state can be cut for another parallelism; only alert rules want rows before a
/// window closes.
fn is_movable(read: &Continuous, job: &NewJob) -> bool {
    let into_index = read.insert_into.is_some() || matches!(job.sink, Some(Sink::Index(_)));
    matches!(read.shape, Shape::Windowed(_)) && into_index && job.early.is_none()
}

fn vertex(name: &str, operators: Vec<OperatorSpec>, parallelism: u32) -> Vertex {
    Vertex { uid: flow::Uid::default(), name: name.to_owned(), operators, parallelism }
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
