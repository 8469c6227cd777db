//! Orders to one task worker.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{JobId, ReplicaId};

use crate::Empty;

calls! {
    /// Starts the worker's tasks of one attempt; older attempts of the job end first; an attempt that runs already is left alone. Kinds: `NoSlots`, `BadPlan`, `WorkerRestarted`.
    DeployTasks(Deployment) -> Empty; "lb.v1.task-worker.worker.{replica}.deploy" [ReplicaId] @ TaskWorker, Idempotent
    /// Ends the worker's tasks of a job up to an attempt.
    CancelTasks(AttemptName) -> Empty; "lb.v1.task-worker.worker.{replica}.cancel" [ReplicaId] @ TaskWorker, Idempotent
    /// Makes the worker's source tasks emit a barrier.
    TriggerCheckpoint(Barrier) -> Empty; "lb.v1.task-worker.worker.{replica}.checkpoint" [ReplicaId] @ TaskWorker, Idempotent
}

/// What a worker is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The whole execution graph, encoded by `flow`; the worker starts the tasks placed on itself.
    pub graph: Bytes,
    /// The state to begin from, one entry per task that has some.
    #[serde(default)]
    pub restore: Vec<Restore>,
    /// The stream cut to begin from.
    pub cut: types::StreamCut,
    /// Which submission of this job id it is: a job that is cancelled and submitted again is another one, with writers and state of its own.
    pub submission: u64,
    /// When the worker that is meant started; a worker that was restarted since refuses with `WorkerRestarted`.
    pub worker_started: types::Timestamp,
}

/// State of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The task's number in the execution graph.
    pub task: u32,
    /// Its part.
    pub part: crate::job_manager::PartRef,
}

/// Names an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptName {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The submission that it belongs to: an order about an older one must not touch its namesake.
    #[serde(default)]
    pub submission: u64,
}

/// A barrier to emit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// The submission that it belongs to.
    #[serde(default)]
    pub submission: u64,
}
