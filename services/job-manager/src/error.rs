//! What the job manager refuses, and how that crosses the wire.

use types::{IndexName, JobId};
use wire::{Problem, job_manager::SavepointName};

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
    /// A restart policy that cannot be kept.
    #[error("the restart policy cannot be kept: {0}")]
    InvalidRestart(String),
    /// A savepoint that cannot be.
    #[error("there can be no such savepoint: {0}")]
    InvalidSavepoint(String),
    /// No such savepoint.
    #[error("job {} has no savepoint {}", .0.job, .0.name)]
    UnknownSavepoint(SavepointName),
    /// It is being taken.
    #[error("the savepoint of job {0} is not complete yet; ask again")]
    SavepointPending(JobId),
    /// The job has as many as it may.
    #[error("job {0} has {most} savepoints already; delete one first", most = crate::state::SAVEPOINTS_MAX)]
    TooManySavepoints(JobId),
    /// A job still begins with its state.
    #[error("job {0} began with this savepoint and has no checkpoint of its own yet")]
    SavepointInUse(JobId),
    /// State of a savepoint that the new plan has no place for.
    #[error(
        "the savepoint holds state that no operator of this plan takes over: {0}; allow it to be dropped, or pin the operator's uid"
    )]
    StateWithoutOperator(String),
    /// The job stands still.
    #[error("job {0} is suspended; submit it again to let it go on")]
    JobSuspended(JobId),
    /// The job has ended.
    #[error("job {0} is over")]
    JobOver(JobId),
    /// It is being stopped for another reason.
    #[error("job {0} is being stopped already; wait until it stands")]
    JobStopping(JobId),
    /// A parallelism that no job can have.
    #[error("parallelism {0} is out of range: 1 to {1}")]
    InvalidParallelism(u16, u16),
    /// No such job.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// This release does not do that.
    #[error("not built: {0}")]
    NotBuilt(&'static str),
    /// The installation runs as many jobs as it may.
    #[error("there are {} jobs already; cancel some first", crate::state::JOBS_MAX)]
    TooManyJobs,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidQuery(_) => Self::bad_request("InvalidQuery", error),
            Error::InvalidPlan(_) => Self::bad_request("InvalidPlan", error),
            Error::InvalidSavepoint(_) => Self::bad_request("InvalidSavepoint", error),
            Error::UnknownSavepoint(_) => Self::not_found("UnknownSavepoint", error),
            Error::SavepointPending(_) => Self::unavailable("SavepointPending", error),
            Error::TooManySavepoints(_) => Self::conflict("TooManySavepoints", error),
            Error::SavepointInUse(_) => Self::conflict("SavepointInUse", error),
            Error::StateWithoutOperator(_) => Self::conflict("StateWithoutOperator", error),
            Error::JobSuspended(_) => Self::conflict("JobSuspended", error),
            Error::JobOver(_) => Self::conflict("JobOver", error),
            Error::JobStopping(_) => Self::conflict("JobStopping", error),
            Error::InvalidParallelism(..) => Self::bad_request("InvalidParallelism", error),
            Error::InvalidRestart(_) => Self::bad_request("InvalidRestart", error),
            Error::NoSink => Self::bad_request("NoSink", error),
            Error::FeedsItself(_) => Self::bad_request("FeedsItself", error),
            Error::JobDiffers(_) => Self::conflict("JobDiffers", error),
            Error::UnknownJob(_) => Self::not_found("UnknownJob", error),
            Error::NotBuilt(_) => Self::bad_request("NotBuilt", error),
            Error::TooManyJobs => Self::conflict("TooManyJobs", error),
        }
    }
}
