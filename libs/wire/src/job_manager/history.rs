//! What became of a job's checkpoints and attempts, and how its tasks do.

use serde::{Deserialize, Serialize};
use types::Timestamp;

use crate::task_worker::TaskFigures;

/// The most checkpoints, and the most exceptions, that are remembered of a job; older ones are forgotten.
pub const HISTORY_MAX: usize = 100;

/// What one task's part of a checkpoint cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFigures {
    /// From the order at the sources to the first barrier at the task.
    #[serde(default)]
    pub start_delay_us: u64,
    /// From the first barrier to the last.
    #[serde(default)]
    pub align_us: u64,
    /// In which the task stood still.
    #[serde(default)]
    pub sync_us: u64,
    /// Beside the task.
    #[serde(default)]
    pub async_us: u64,
    /// The whole state.
    #[serde(default)]
    pub bytes: u64,
    /// Of it what was not stored before.
    #[serde(default)]
    pub new_bytes: u64,
}

/// How a checkpoint ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointOutcome {
    /// It is being taken.
    Running,
    /// It is complete.
    Complete,
    /// It was given up; the text says why.
    Lost(String),
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRun {
    /// Its number.
    pub number: u64,
    /// The savepoint that it is.
    #[serde(default)]
    pub savepoint: Option<String>,
    /// When it was ordered.
    pub began: Timestamp,
    /// When it was complete or given up.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: CheckpointOutcome,
    /// Its size; of one that is being taken or was given up what came in.
    #[serde(default)]
    pub bytes: u64,
    /// By task.
    #[serde(default)]
    pub tasks: Vec<SubtaskFigures>,
}

/// What a checkpoint cost one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskFigures {
    /// `<vertex>-<subtask>`.
    pub task: String,
    /// What it cost.
    pub figures: CheckpointFigures,
}

/// The last checkpoints of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointHistory {
    /// Newest first, [`HISTORY_MAX`] at most.
    pub checkpoints: Vec<CheckpointRun>,
    /// Complete ones since the job was submitted.
    #[serde(default)]
    pub completed: u64,
    /// Lost ones since the job was submitted.
    #[serde(default)]
    pub lost: u64,
}

/// What kind of thing ended an attempt; it decides whether trying again can help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The query or its data: an error under `fail`, state above its budget. The same would come again, so the job is given up.
    User,
    /// Something around the job.
    #[default]
    System,
    /// A worker was lost.
    WorkerLost,
}

/// What ended an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobException {
    /// When.
    pub at: Timestamp,
    /// The attempt.
    pub attempt: u32,
    /// The task that said so, `<vertex>-<subtask>`.
    #[serde(default)]
    pub task: Option<String>,
    /// Where it ran.
    #[serde(default)]
    pub worker: Option<String>,
    /// What kind of thing it was.
    #[serde(default)]
    pub cause: Cause,
    /// For people.
    pub reason: String,
}

/// What ended attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExceptions {
    /// Newest first, [`HISTORY_MAX`] at most.
    pub exceptions: Vec<JobException>,
}

/// How the tasks of a job did over the last minute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFigures {
    /// By task and time, oldest first, 60 at most of each task.
    pub figures: Vec<TaskFigures>,
}
