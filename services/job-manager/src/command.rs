//! What the job manager can be asked to do, and what its journal then holds.

use std::collections::BTreeMap;

use flow::{ExecutionGraph, JobGraph, TaskId};
use serde::{Deserialize, Serialize};
use types::{IndexName, JobId, ReplicaId, StreamCut, Timestamp};
use wire::job_manager::{Cause, NewJob, Savepoint, Sink};

use crate::{history::Failure, job::Checkpoint, plan::Plan, state::Stop};

/// What the job manager can be asked to do.
#[derive(Debug)]
pub enum Command {
    /// Start a planned job at a stream cut.
    Submit(Box<(NewJob, PlannedJob)>),
    /// End a job.
    Cancel(JobId),
    /// An attempt is placed.
    Place(JobId, Box<ExecutionGraph>, BTreeMap<ReplicaId, Timestamp>),
    /// All tasks of an attempt run.
    Run(JobId, u32),
    /// An attempt failed.
    Fail {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// Failures without a complete checkpoint between them before a job is given up that asks for no rule of its own.
        restarts_max: u32,
    },
    /// An attempt came to the end of segments; the next one begins with their successors. No failure.
    Replan {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Why, for people.
        reason: String,
    },
    /// Take more checkpoint numbers.
    Reserve(JobId),
    /// A checkpoint's manifest is stored.
    Complete {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: Checkpoint,
        /// When its barriers were sent.
        began: Timestamp,
    },
    /// Stop a job; it goes on to stop if it was told so already.
    Stop(JobId, Stop),
    /// A checkpoint is a savepoint from now on.
    Keep(Savepoint),
    /// A savepoint is no more.
    Drop(String),
    /// The job stands at its stop-savepoint with nothing running: what `Stop` asked for is done. The graph is the one of
    /// the new parallelism where that was asked for.
    Stopped {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The graph from now on.
        graph: Option<Box<JobGraph>>,
    },
    /// The job could not be stopped at a savepoint; it goes on as before.
    StopLost {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Why, for people.
        reason: String,
    },
    /// Every task has ended, and the last checkpoint covers all.
    Finish(JobId, u32),
    /// A suspended job goes on.
    Resume(JobId),
}

/// A plan with its beginning.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    pub(crate) plan: Plan,
    pub(crate) start: StreamCut,
    /// Where it begins in each index, where there are several.
    pub(crate) starts: BTreeMap<u32, StreamCut>,
    /// The state of a savepoint.
    pub(crate) restored: Option<Checkpoint>,
}

/// One durable step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A job exists from now on.
    Submitted {
        /// As asked for.
        new: Box<NewJob>,
        /// As planned.
        graph: JobGraph,
        /// Where rows go.
        sink: Sink,
        /// The first index that is read.
        #[serde(default)]
        source: Option<IndexName>,
        /// Where it begins there.
        start: StreamCut,
        /// Where it begins in each index, by the vertex that reads it; without an entry `start` holds.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        starts: BTreeMap<u32, StreamCut>,
        /// The state with which it begins, of a savepoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restored: Option<Checkpoint>,
    },
    /// A job ends.
    Cancelled {
        /// The job.
        job: JobId,
    },
    /// A new attempt is placed.
    Placed {
        /// The job.
        job: JobId,
        /// The attempt.
        execution: ExecutionGraph,
        /// When each worker started.
        workers: BTreeMap<ReplicaId, Timestamp>,
    },
    /// All tasks of the attempt run.
    Running {
        /// The job.
        job: JobId,
    },
    /// The attempt failed; the job begins again.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
        /// Whose failure it was.
        #[serde(default)]
        cause: Cause,
        /// The task that told it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The worker that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<ReplicaId>,
        /// How long the job waits before it begins again, in milliseconds.
        #[serde(default)]
        pause_ms: u64,
    },
    /// The attempt ended where its segments did; the job goes on with what follows them.
    Replanned {
        /// The job.
        job: JobId,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// The job is given up.
    GivenUp {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
        /// Whose failure it was.
        #[serde(default)]
        cause: Cause,
        /// The task that told it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The worker that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<ReplicaId>,
    },
    /// Checkpoint numbers up to here may be used.
    Reserved {
        /// The job.
        job: JobId,
        /// The last one.
        until: u64,
    },
    /// A checkpoint is complete.
    Checkpointed {
        /// The job.
        job: JobId,
        /// The checkpoint.
        checkpoint: Checkpoint,
        /// When its barriers were sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        began: Option<Timestamp>,
    },
    /// The job is being stopped.
    Stopping {
        /// The job.
        job: JobId,
        /// Why.
        stop: Stop,
    },
    /// The job could not be stopped; it goes on from its last checkpoint.
    StopLost {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The job stands still at its last checkpoint.
    Suspended {
        /// The job.
        job: JobId,
    },
    /// The job goes on from its last checkpoint.
    Resumed {
        /// The job.
        job: JobId,
    },
    /// The job goes on from its last checkpoint with another parallelism; its writers count anew under the generation.
    Rescaled {
        /// The job.
        job: JobId,
        /// The new one.
        generation: u32,
        /// What is run from now on; vertices and uids as before.
        graph: JobGraph,
    },
    /// The job came to its end.
    Finished {
        /// The job.
        job: JobId,
    },
    /// A savepoint is kept.
    Savepointed {
        /// The savepoint.
        savepoint: Savepoint,
    },
    /// A savepoint is no more.
    SavepointDropped {
        /// `<job>/<name>`.
        key: String,
    },
}
