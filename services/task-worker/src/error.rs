//! What ends a task, and what the doors refuse.

use types::{JobId, Timestamp};
use wire::Problem;

/// Why a task cannot go on; every one of them ends the attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The execution graph asks for what this worker cannot run.
    #[error("the plan cannot run: {0}")]
    Plan(String),
    /// A channel to or from another task.
    #[error(transparent)]
    Exchange(#[from] exchange::Error),
    /// A rule of the stream engine.
    #[error(transparent)]
    Flow(#[from] flow::Error),
    /// An expression.
    #[error(transparent)]
    Expression(#[from] engine::EngineError),
    /// A column operation.
    #[error("rows cannot be handled: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Rows without a column that every row of an index has.
    #[error("rows have no usable column {0:?}: it is a timestamp in nanoseconds and never null")]
    Column(&'static str),
    /// Another service.
    #[error("{what} failed: {problem}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The answer.
        problem: Problem,
    },
    /// What a source reads or a sink writes besides an index.
    #[error("{what}: {problem}")]
    Source {
        /// The file, or what was to be done.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Stored state that is not what the checkpoint says.
    #[error("state {key} cannot be restored: {problem}")]
    Part {
        /// The object.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint that ended elsewhere than the job begins.
    #[error("segment {segment} begins at offset {cut}, but its checkpoint ended at {checkpoint}")]
    Cut {
        /// The segment.
        segment: types::SegmentId,
        /// Where the job says to begin.
        cut: types::Offset,
        /// Where the stored state ends.
        checkpoint: types::Offset,
    },
    /// A task that ended without an answer.
    #[error("a task was lost: {0}")]
    Lost(#[from] tokio::task::JoinError),
    /// A worker of the attempt that nobody knows.
    #[error("task worker {0} is not among the members: it is gone or has no exchange")]
    UnknownPeer(types::ReplicaId),
}

impl TaskError {
    /// What is wrong with what is read or written, with its reasons.
    pub(crate) fn source(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Source { what: what.to_owned(), problem: told(error) }
    }

    /// Whether this is only the echo of what ended another task, which the job manager hears from there.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(self, Self::Exchange(exchange::Error::Peer { .. } | exchange::Error::Closed { .. }))
    }

    /// The whole chain of reasons, for people.
    pub(crate) fn reason(&self) -> String {
        told(self)
    }
}

/// An error with its whole chain of reasons, for people.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A refusal of an order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The order is meant for a process that is no more.
    #[error("the worker started at {is}, the order is meant for the one that started at {meant}: place the tasks anew")]
    WorkerRestarted {
        /// When this process started.
        is: Timestamp,
        /// Which one was meant.
        meant: Timestamp,
    },
    /// The graph cannot be read or run.
    #[error("{0}")]
    BadPlan(String),
    /// Too few slots are free.
    #[error("{needed} slots are needed and {free} of {slots} are free: place the tasks elsewhere")]
    NoSlots {
        /// Wanted.
        needed: usize,
        /// Free.
        free: usize,
        /// In all.
        slots: u16,
    },
    /// The attempt ended here, or a newer one was deployed.
    #[error("attempt {attempt} of job {job} is over on this worker: begin a new one")]
    AttemptOver {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// This release does not do that.
    #[error("not built: {0}")]
    NotBuilt(&'static str),
    /// Earlier barriers still wait.
    #[error("{limit} barriers wait already in a source of job {job}", limit = crate::attempt::BARRIERS_MAX)]
    TooManyBarriers {
        /// The job.
        job: JobId,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::WorkerRestarted { .. } => Self::conflict("WorkerRestarted", error),
            Error::BadPlan(_) => Self::bad_request("BadPlan", error),
            Error::NoSlots { .. } => Self::conflict("NoSlots", error),
            Error::AttemptOver { .. } => Self::conflict("AttemptOver", error),
            Error::NotBuilt(_) => Self::bad_request("NotBuilt", error),
            Error::TooManyBarriers { .. } => Self::throttled("TooManyBarriers", error),
        }
    }
}
