//! What the job manager knows, and how it decides. Pure: no clock, no socket.

use std::{collections::BTreeMap, ops::Bound};

use flow::{ExecutionGraph, JobGraph, TaskId};
use serde::{Deserialize, Serialize};
use types::{IndexName, JobId, ReplicaId, StreamCut, Timestamp};
use wire::{
    Problem,
    job_manager::{JobDescription, JobList, JobStatus, JobsOf, NewJob, PartRef, Sink},
};

use crate::{error::Error, plan::Plan};

/// Most jobs that are not cancelled; beyond it `SubmitJob` is refused.
pub const JOBS_MAX: usize = 10_000;
/// Cancelled jobs that are remembered, so that a list shows what was.
pub const CANCELLED_MAX: usize = 100;
/// Checkpoint numbers taken in advance with one event, so that no two leaders use one number.
pub const CHECKPOINTS_RESERVED: u64 = 1_000;
/// Longest failure text kept.
const FAILURE_CHARS_MAX: usize = 1_000;

/// Everything durable of the job manager.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    submissions: u64,
}

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub(crate) new: NewJob,
    pub(crate) graph: JobGraph,
    pub(crate) sink: Sink,
    pub(crate) source: IndexName,
    /// Where the job began to read.
    pub(crate) start: StreamCut,
    pub(crate) status: JobStatus,
    pub(crate) attempt: u32,
    /// The running attempt, with its placement.
    pub(crate) execution: Option<ExecutionGraph>,
    /// When each of its workers started: a worker that starts again has lost its tasks.
    pub(crate) workers: BTreeMap<ReplicaId, Timestamp>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Numbers up to here may have been used.
    pub(crate) reserved: u64,
    /// Failures since the last complete checkpoint.
    pub(crate) failures: u32,
    failure: Option<String>,
    submitted: Timestamp,
    /// The number of this submission: names what must not be mixed up with another job of the same id.
    pub(crate) order: u64,
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(crate) number: u64,
    pub(crate) parts: Vec<(TaskId, PartRef)>,
    pub(crate) cut: StreamCut,
}

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
        /// Why, for people.
        reason: String,
        /// Failures without a complete checkpoint between them before the job is given up.
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
    },
}

/// A plan with its beginning.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    pub(crate) plan: Plan,
    pub(crate) start: StreamCut,
}

/// One durable step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A job exists from now on.
    Submitted {
        /// As asked for.
        new: NewJob,
        /// As planned.
        graph: JobGraph,
        /// Where rows go.
        sink: Sink,
        /// What is read.
        source: IndexName,
        /// Where it begins.
        start: StreamCut,
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
    },
}

impl host::ControlState for State {
    const SERVICE: wire::Service = wire::Service::JobManager;
    type Command = Command;
    type Event = Event;
    type Error = Error;

    fn decide(&self, command: Command, _now: Timestamp) -> Result<Vec<Event>, Error> {
        match command {
            Command::Submit(submitted) => self.submit(*submitted),
            Command::Cancel(job) => Ok(match self.live(&job) {
                Some(_) => vec![Event::Cancelled { job }],
                None => Vec::new(),
            }),
            Command::Place(job, execution, workers) => Ok(match self.live(&job) {
                Some(known) if execution.attempt == known.attempt + 1 && known.execution.is_none() => {
                    vec![Event::Placed { job, execution: *execution, workers }]
                }
                _ => Vec::new(),
            }),
            Command::Run(job, attempt) => Ok(match self.current(&job, attempt) {
                Some(known) if known.status != JobStatus::Running => vec![Event::Running { job }],
                _ => Vec::new(),
            }),
            Command::Fail { job, attempt, reason, restarts_max } => Ok(match self.current(&job, attempt) {
                Some(known) if known.failures >= restarts_max => vec![Event::GivenUp { job, reason }],
                Some(_) => vec![Event::AttemptFailed { job, reason }],
                None => Vec::new(),
            }),
            Command::Replan { job, attempt, reason } => Ok(match self.current(&job, attempt) {
                Some(_) => vec![Event::Replanned { job, reason }],
                None => Vec::new(),
            }),
            Command::Reserve(job) => Ok(match self.live(&job) {
                Some(known) => {
                    let until = known.reserved + CHECKPOINTS_RESERVED;
                    vec![Event::Reserved { job, until }]
                }
                None => Vec::new(),
            }),
            Command::Complete { job, attempt, checkpoint } => Ok(match self.current(&job, attempt) {
                Some(known) if known.checkpoint.as_ref().is_none_or(|c| c.number < checkpoint.number) => {
                    vec![Event::Checkpointed { job, checkpoint }]
                }
                _ => Vec::new(),
            }),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Submitted { new, graph, sink, source, start } => {
                self.submissions += 1;
                let job = Job {
                    new: new.clone(),
                    graph: graph.clone(),
                    sink: sink.clone(),
                    source: source.clone(),
                    start: start.clone(),
                    status: JobStatus::Scheduling,
                    attempt: 0,
                    execution: None,
                    workers: BTreeMap::new(),
                    checkpoint: None,
                    reserved: 0,
                    failures: 0,
                    failure: None,
                    submitted: at,
                    order: self.submissions,
                };
                self.jobs.insert(new.job.clone(), job);
            }
            Event::Cancelled { job } => {
                self.update(job, |j| {
                    j.status = JobStatus::Cancelled;
                    j.execution = None;
                });
                self.forget_old();
            }
            Event::Placed { job, execution, workers } => self.update(job, |j| {
                j.attempt = execution.attempt;
                j.workers = workers.clone();
                j.execution = Some(execution.clone());
            }),
            Event::Running { job } => self.update(job, |j| j.status = JobStatus::Running),
            Event::AttemptFailed { job, reason } => self.update(job, |j| {
                j.status = JobStatus::Restarting;
                j.execution = None;
                j.failures += 1;
                j.failure = Some(reason.chars().take(FAILURE_CHARS_MAX).collect());
            }),
            Event::Replanned { job, reason: _ } => self.update(job, |j| {
                j.status = JobStatus::Restarting;
                j.execution = None;
            }),
            Event::GivenUp { job, reason } => self.update(job, |j| {
                j.status = JobStatus::Failed;
                j.execution = None;
                j.failure = Some(reason.chars().take(FAILURE_CHARS_MAX).collect());
            }),
            Event::Reserved { job, until } => self.update(job, |j| j.reserved = *until),
            Event::Checkpointed { job, checkpoint } => self.update(job, |j| {
                j.checkpoint = Some(checkpoint.clone());
                j.failures = 0;
            }),
        }
    }
}

impl State {
    fn submit(&self, (new, planned): (NewJob, PlannedJob)) -> Result<Vec<Event>, Error> {
        match self.live(&new.job) {
            Some(known) if known.new.text == new.text && known.new.sink == new.sink => return Ok(Vec::new()),
            Some(_) => return Err(Error::JobDiffers(new.job)),
            None => {}
        }
        if self.jobs.values().filter(|j| j.is_live()).count() >= JOBS_MAX {
            return Err(Error::TooManyJobs);
        }
        let Plan { graph, sink, source } = planned.plan;
        Ok(vec![Event::Submitted { new, graph, sink, source, start: planned.start }])
    }

    /// A job that is neither cancelled nor given up.
    pub(crate) fn live(&self, job: &JobId) -> Option<&Job> {
        self.jobs.get(job).filter(|j| j.is_live())
    }

    /// A live job whose running attempt is this one.
    pub(crate) fn current(&self, job: &JobId, attempt: u32) -> Option<&Job> {
        self.live(job).filter(|j| j.attempt == attempt && j.execution.is_some())
    }

    /// Slots that all live jobs want, with or without having them.
    pub(crate) fn wanted_slots(&self) -> u32 {
        let live = self.jobs.values().filter(|job| job.is_live());
        live.fold(0, |all, job| all.saturating_add(job.graph.slots()))
    }

    /// Slots taken on each worker.
    pub(crate) fn used_slots(&self) -> BTreeMap<ReplicaId, u32> {
        let mut used = BTreeMap::new();
        for execution in self.jobs.values().filter(|j| j.is_live()).filter_map(|j| j.execution.as_ref()) {
            let mut slots: Vec<(u32, &ReplicaId)> = execution.tasks.iter().map(|t| (t.slot, &t.worker)).collect();
            slots.sort_unstable();
            slots.dedup();
            for (_, worker) in slots {
                *used.entry(worker.clone()).or_insert(0) += 1;
            }
        }
        used
    }

    fn update(&mut self, job: &JobId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(job) {
            change(job);
        }
    }

    fn forget_old(&mut self) {
        let mut ended: Vec<(u64, JobId)> =
            self.jobs.values().filter(|j| !j.is_live()).map(|j| (j.order, j.new.job.clone())).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(CANCELLED_MAX);
        for (_, job) in ended.into_iter().take(surplus) {
            self.jobs.remove(&job);
        }
    }

    /// A page of jobs as people see them, by id.
    pub(crate) fn page(&self, wanted: &JobsOf) -> Result<JobList, Problem> {
        let after = wanted.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.jobs.range::<JobId, _>((after, Bound::Unbounded));
        let (jobs, more) = wanted.limit.fill(behind.map(|(_, job)| job.describe()))?;
        Ok(JobList { jobs, more })
    }
}

impl Job {
    /// Whether it is neither cancelled nor given up.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.status, JobStatus::Cancelled | JobStatus::Failed)
    }

    /// Where an attempt begins: at the last checkpoint, else where the job began.
    pub(crate) fn begin(&self) -> (StreamCut, Vec<(TaskId, PartRef)>) {
        match &self.checkpoint {
            Some(checkpoint) => (checkpoint.cut.clone(), checkpoint.parts.clone()),
            None => (self.start.clone(), Vec::new()),
        }
    }

    /// The job as people see it.
    pub(crate) fn describe(&self) -> JobDescription {
        let tasks = self.execution.iter().flat_map(|e| &e.tasks);
        JobDescription {
            job: self.new.job.clone(),
            text: self.new.text.clone(),
            sink: self.sink.clone(),
            source: self.source.clone(),
            status: self.status,
            attempt: self.attempt,
            parallelism: u16::try_from(self.graph.slots()).unwrap_or(u16::MAX),
            checkpoint: self.checkpoint.as_ref().map(|c| c.number),
            cut: self.checkpoint.as_ref().map_or_else(|| self.start.clone(), |c| c.cut.clone()),
            submitted: self.submitted,
            failure: self.failure.clone(),
            tasks: tasks.map(|t| (t.id.to_string(), t.worker.to_string())).collect(),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
