//! How tasks do.

use serde::{Deserialize, Serialize};
use types::{JobId, ReplicaId, Timestamp};

/// How one task does. Counts and times grow from its attempt's begin; a rate is the difference of two reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The task's number in the execution graph.
    pub task: u32,
    /// When it was read off.
    pub at: Timestamp,
    /// Time in which it computed.
    #[serde(default)]
    pub busy_us: u64,
    /// Time in which it waited for rows.
    #[serde(default)]
    pub idle_us: u64,
    /// Time in which it waited for those that take its rows, or for the barriers of other inputs.
    #[serde(default)]
    pub backpressured_us: u64,
    /// Rows that it took.
    #[serde(default)]
    pub rows_in: u64,
    /// Rows that it gave on.
    #[serde(default)]
    pub rows_out: u64,
    /// Bytes that it took, as they lie in memory.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes that it gave on.
    #[serde(default)]
    pub bytes_out: u64,
    /// Its watermark; absent before the first.
    #[serde(default)]
    pub watermark: Option<Timestamp>,
    /// Rows that came too late.
    #[serde(default)]
    pub late: u64,
    /// Rows too far in the future to move the watermark.
    #[serde(default)]
    pub skewed: u64,
    /// Rows that could not be read or computed, whatever the policy made of them.
    #[serde(default)]
    pub faults: u64,
    /// One of them, for people.
    #[serde(default)]
    pub fault: Option<String>,
    /// Bytes of state in memory.
    #[serde(default)]
    pub state_bytes: u64,
    /// Bytes of state on disk.
    #[serde(default)]
    pub spilled_bytes: u64,
    /// Where it was found when it was looked at: stack (`operator;phase`) and how often.
    #[serde(default)]
    pub stacks: Vec<(String, u32)>,
}

/// How the tasks of one worker do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFigures {
    /// The worker.
    pub replica: ReplicaId,
    /// Its tasks.
    #[serde(default)]
    pub tasks: Vec<TaskFigures>,
}
