//! What the job manager refuses, and how that crosses the wire.

use types::{IndexName, JobId};
use wire::Problem;

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a continuous query.
    #[error("{0}")]
    InvalidQuery(String),
    /// The plan breaks a rule of the engine.
    #[error("the query cannot run: {0}")]
    InvalidPlan(#[from] flow::Error),
    /// Neither the text nor the request says where rows go.
    #[error("say where the rows go: INSERT INTO <index> SELECT …")]
    NoSink,
    /// A job must not read what it writes.
    #[error("the job reads and writes {0}: it would feed itself for ever; write to another index")]
    FeedsItself(IndexName),
    /// The id is taken by a job with another text.
    #[error("job {0} exists with another text; cancel it first, or choose another id")]
    JobDiffers(JobId),
    /// No such job.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// The installation runs as many jobs as it may.
    #[error("there are {} jobs already; cancel some first", crate::state::JOBS_MAX)]
    TooManyJobs,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidQuery(_) => Self::bad_request("InvalidQuery", error),
            Error::InvalidPlan(_) => Self::bad_request("InvalidPlan", error),
            Error::NoSink => Self::bad_request("NoSink", error),
            Error::FeedsItself(_) => Self::bad_request("FeedsItself", error),
            Error::JobDiffers(_) => Self::conflict("JobDiffers", error),
            Error::UnknownJob(_) => Self::not_found("UnknownJob", error),
            Error::TooManyJobs => Self::conflict("TooManyJobs", error),
        }
    }
}
