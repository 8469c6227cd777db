//! Options of a job, savepoints, stopping, another parallelism.

use serde::{Deserialize, Serialize};
use types::{DurationText, JobId, Timestamp};

/// How a job is run; everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOptions {
    /// What follows a failure.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// The least time between two checkpoints; absent: the service's setting.
    #[serde(default)]
    pub checkpoint_interval: Option<DurationText>,
    /// The savepoint to begin from.
    #[serde(default)]
    pub restore: Option<RestoreFrom>,
}

/// What follows a failure. Waiting for slots is none, and neither is a change of leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// As the service is set: a pause that doubles, given up after a number of failures without a checkpoint between them.
    #[default]
    Service,
    /// The first failure ends the job.
    None,
    /// The same pause, a number of times.
    Fixed {
        /// Failures that are survived.
        attempts: u32,
        /// The pause.
        delay: DurationText,
    },
    /// A pause that doubles.
    Exponential {
        /// The first pause.
        first: DurationText,
        /// The longest.
        max: DurationText,
        /// A run of that length counts as healthy: the pause is the first one again.
        reset_after: DurationText,
    },
    /// Given up when failures come too often.
    FailureRate {
        /// Failures that are survived in each interval.
        failures: u32,
        /// The interval.
        interval: DurationText,
        /// The pause.
        delay: DurationText,
    },
}

/// A savepoint to begin from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFrom {
    /// Which one.
    pub savepoint: SavepointName,
    /// Whether state that no operator of the new plan takes may be left behind; else that is an error which names it.
    #[serde(default)]
    pub drop_state: bool,
}

/// Names a savepoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SavepointName {
    /// The job that it was taken of; it outlives the job.
    pub job: JobId,
    /// Its name: 1 to 64 of `a-z`, `0-9`, `-`.
    pub name: String,
}

/// A savepoint to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointOf {
    /// Its name; `name` empty: the checkpoint's number.
    pub savepoint: SavepointName,
}

/// A savepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Its name.
    pub name: SavepointName,
    /// The checkpoint that it is.
    pub checkpoint: u64,
    /// When it was complete.
    pub taken: Timestamp,
    /// Its size.
    pub bytes: u64,
    /// The object that holds its manifest.
    pub manifest: String,
}

/// Whose savepoints to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointsOf {
    /// The job.
    pub job: JobId,
}

/// Savepoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoints {
    /// Oldest first.
    pub savepoints: Vec<Savepoint>,
}

/// A job to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOf {
    /// The job, and the name of the savepoint; `name` empty: the checkpoint's number.
    pub savepoint: SavepointName,
    /// Whether every window closes first; the job is finished then and cannot go on.
    #[serde(default)]
    pub drain: bool,
}

/// Another parallelism for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescaleOf {
    /// The job.
    pub job: JobId,
    /// Subtasks per vertex: 1 to 64.
    pub parallelism: u16,
}

/// What a job would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPlan {
    /// The job graph as JSON.
    pub graph: String,
    /// The execution graph, the state of each operator and advice, as text for people.
    pub text: String,
}
