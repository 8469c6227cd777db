//! What every task knows of itself and of the worker around it.

use std::sync::Arc;

use bus::{Bucket, Bus};
use client::Client;
use exchange::{ChannelId, Exchange};
use flow::{Channel, TaskId, Uid};
use store::Objects;
use tokio::{sync::watch, time::Instant};
use types::{JobId, ReplicaId};
use wire::{
    job_manager::{Cause, TaskReport, TaskStatus},
    task_worker::BarrierKind,
};

use crate::{error::TaskError, metrics::Board, name::Submitted, sink::Posts};

/// What the tasks of a worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) replica: ReplicaId,
    pub(crate) bus: Bus,
    pub(crate) members: Bucket,
    pub(crate) objects: Objects,
    pub(crate) client: Client,
    pub(crate) exchange: Exchange,
    /// Below which jobs read and write files; empty: nowhere.
    pub(crate) files_dir: std::path::PathBuf,
    /// The connection on which jobs read and write streams of JetStream, if they may.
    pub(crate) jetstream: Option<Bus>,
    /// Where jobs may post rows to.
    pub(crate) posts: Arc<Posts>,
    pub(crate) board: Board,
}

impl Shared {
    /// The connection for streams and subjects of jobs.
    ///
    /// Errors: `Source`, with the setting to set.
    pub(crate) fn jetstream(&self, what: &str) -> Result<&Bus, TaskError> {
        let problem = "jobs of this worker read and write no streams of JetStream: set task_worker.jetstream_creds";
        self.jetstream.as_ref().ok_or_else(|| TaskError::Source { what: what.to_owned(), problem: problem.to_owned() })
    }
}

/// A barrier that a source is to emit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) checkpoint: u64,
    pub(crate) kind: BarrierKind,
    /// When the worker got it.
    pub(crate) came: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// One task of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) shared: Shared,
    pub(crate) submitted: Submitted,
    pub(crate) attempt: u32,
    /// Its place among the tasks of the execution graph.
    pub(crate) number: u32,
    pub(crate) id: TaskId,
    pub(crate) uid: Uid,
    /// Subtasks of its vertex.
    pub(crate) parallelism: u32,
    /// `<job>/<vertex>-<subtask>`, for people.
    pub(crate) label: String,
    /// The last committed checkpoint, as far as the job manager told.
    pub(crate) commits: watch::Receiver<u64>,
}

impl Context {
    /// Tells the job manager what became of the task, without waiting for it.
    pub(crate) fn report(&self, status: TaskStatus) {
        let (job, attempt, task) = (self.submitted.job.clone(), self.attempt, self.number);
        crate::report::tell(&self.shared.bus, TaskReport { job, attempt, task, status, cause: Cause::default() });
    }
}

/// A channel's name in the exchange.
pub(crate) fn channel_id(job: &JobId, attempt: u32, channel: &Channel) -> ChannelId {
    ChannelId { job: job.clone(), attempt, edge: channel.edge, from: channel.from.subtask, to: channel.to.subtask }
}
