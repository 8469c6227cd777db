//! Orders to one task worker.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{JobId, ReplicaId};

use crate::{Empty, job_manager::SourceCut};

mod figures;
mod state;

pub use figures::{TaskFigures, WorkerFigures};
pub use state::{STATE_ROWS_MAX, StateOf, StateRows};

calls! {
    /// Starts the worker's tasks of one attempt; older attempts of the job end first; an attempt that runs already is left alone. Kinds: `NoSlots`, `BadPlan`, `WorkerRestarted`.
    DeployTasks(Deployment) -> Empty; "lb.v1.task-worker.worker.{replica}.deploy" [ReplicaId] @ TaskWorker, Idempotent
    /// Ends the worker's tasks of a job up to an attempt.
    CancelTasks(AttemptName) -> Empty; "lb.v1.task-worker.worker.{replica}.cancel" [ReplicaId] @ TaskWorker, Idempotent
    /// Makes the worker's source tasks emit a barrier.
    TriggerCheckpoint(Barrier) -> Empty; "lb.v1.task-worker.worker.{replica}.checkpoint" [ReplicaId] @ TaskWorker, Idempotent
    /// Tells that a checkpoint is committed: sinks of two phases publish what they held back for it and for older ones. Repeated after every start of an attempt, so publishing again must change nothing. Kinds: `AttemptOver`, `NotBuilt`.
    CommitCheckpoint(Commit) -> Empty; "lb.v1.task-worker.worker.{replica}.commit" [ReplicaId] @ TaskWorker, Idempotent
    /// Rows of the live state of one task, as Arrow IPC. Kinds: `AttemptOver`, `NotBuilt`.
    ReadState(StateOf) -> StateRows; "lb.v1.task-worker.worker.{replica}.state" [ReplicaId] @ TaskWorker, Idempotent
}

events! {
    /// How the tasks of a worker do; told every second while there are any.
    FiguresTold(WorkerFigures); "lb.v1.evt.task-worker.worker.{replica}.figures" [ReplicaId] @ TaskWorker
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
    /// Where each source begins, by its vertex; `cut` holds for a source of an index that is not named here.
    #[serde(default)]
    pub cuts: std::collections::BTreeMap<u32, SourceCut>,
    /// Grows with every change of parallelism: part of the names of writers and transactions, which count anew in each.
    #[serde(default)]
    pub generation: u32,
    /// The checkpoint from which it begins, which is committed: sinks publish what they held back for it before anything else. 0: none.
    #[serde(default)]
    pub checkpoint: u64,
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
    /// What follows it.
    #[serde(default)]
    pub kind: BarrierKind,
}

/// What follows a barrier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarrierKind {
    /// The job goes on.
    #[default]
    Checkpoint,
    /// The job goes on; every block is stored anew, so that the savepoint needs no object of another checkpoint.
    Savepoint,
    /// Nothing: sources end behind the barrier, and so does everything that they feed. Open windows stay open in the state.
    Stop,
    /// Nothing, and before the barrier sources tell the last watermark, so that every window closes.
    Drain,
}

/// A committed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The submission that it belongs to.
    pub submission: u64,
    /// The checkpoint's number.
    pub checkpoint: u64,
}
