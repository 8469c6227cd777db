//! The live state of a task.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::JobId;

/// The most rows of one answer.
pub const STATE_ROWS_MAX: u32 = 8_192;

/// Which state to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateOf {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The submission that it belongs to.
    pub submission: u64,
    /// The task's number in the execution graph.
    pub task: u32,
    /// The operator's name in its vertex; empty: the first one with state.
    #[serde(default)]
    pub operator: String,
    /// How many rows were taken already.
    #[serde(default)]
    pub skip: u64,
    /// How many at most, up to [`STATE_ROWS_MAX`].
    pub limit: u32,
}

/// Rows of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRows {
    /// An Arrow IPC stream.
    pub rows: Bytes,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}
