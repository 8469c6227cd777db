//! What the job manager knows, and how it decides. Pure: no clock, no socket.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use serde::{Deserialize, Serialize};
use types::{JobId, ReplicaId, Timestamp};
use wire::{
    Problem,
    job_manager::{CheckpointHistory, JobList, JobStatus, JobsOf, NewJob, Savepoint},
};

pub use crate::{
    command::{Command, Event, PlannedJob},
    job::{Checkpoint, Job},
};
use crate::{
    error::Error,
    history::{Board, Failure, History},
    plan::Plan,
    restart::{self, Verdict},
};

mod stopping;

pub use stopping::Stop;
pub(crate) use stopping::savepoint_key;

/// Most jobs that are not cancelled; beyond it `SubmitJob` is refused.
pub const JOBS_MAX: usize = 10_000;
/// Cancelled jobs that are remembered, so that a list shows what was.
pub const CANCELLED_MAX: usize = 100;
/// Savepoints that a job can have; beyond it one more is refused until another is deleted.
pub(crate) const SAVEPOINTS_MAX: usize = 20;
/// Checkpoint numbers taken in advance with one event, so that no two leaders use one number.
pub const CHECKPOINTS_RESERVED: u64 = 1_000;

/// Everything durable of the job manager.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    submissions: u64,
    /// By `<job>/<name>`; they outlive their jobs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) savepoints: BTreeMap<String, Savepoint>,
}

impl host::ControlState for State {
    const SERVICE: wire::Service = wire::Service::JobManager;
    type Command = Command;
    type Event = Event;
    type Error = Error;

    fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Event>, Error> {
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
            Command::Fail { job, attempt, failure, restarts_max } => Ok(match self.current(&job, attempt) {
                Some(known) => vec![fail(known, failure, restarts_max, now)],
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
            Command::Complete { job, attempt, checkpoint, began } => Ok(match self.current(&job, attempt) {
                Some(known) if known.begins_at() < checkpoint.number => {
                    vec![Event::Checkpointed { job, checkpoint, began: Some(began) }]
                }
                _ => Vec::new(),
            }),
            command => Ok(self.decide_stop(command)),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Submitted { new, graph, sink, source, start, starts, restored } => {
                self.submissions += 1;
                let job = Job {
                    new: NewJob::clone(new),
                    graph: graph.clone(),
                    sink: sink.clone(),
                    source: source.clone(),
                    start: start.clone(),
                    starts: starts.clone(),
                    status: JobStatus::Scheduling,
                    attempt: 0,
                    execution: None,
                    workers: BTreeMap::new(),
                    checkpoint: restored.clone(),
                    reserved: 0,
                    failures: 0,
                    failed_at: Vec::new(),
                    not_before: at,
                    history: History::default(),
                    failure: None,
                    submitted: at,
                    order: self.submissions,
                    generation: 0,
                    stop: None,
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
            Event::Running { job } => self.update(job, |j| {
                j.status = if j.stop.is_some() { JobStatus::Stopping } else { JobStatus::Running };
            }),
            Event::AttemptFailed { job, reason, cause, task, worker, pause_ms } => self.update(job, |j| {
                let (reason, task, worker) = (reason.clone(), *task, worker.clone());
                j.failed(Failure { cause: *cause, reason, task, worker }, at);
                j.again();
                j.not_before = at + Duration::from_millis(*pause_ms);
            }),
            Event::Replanned { job, reason: _ } => self.update(job, Job::again),
            Event::GivenUp { job, reason, cause, task, worker } => self.update(job, |j| {
                let (reason, task, worker) = (reason.clone(), *task, worker.clone());
                j.failed(Failure { cause: *cause, reason, task, worker }, at);
                j.status = JobStatus::Failed;
            }),
            Event::Reserved { job, until } => self.update(job, |j| j.reserved = *until),
            Event::Checkpointed { job, checkpoint, began } => {
                self.update(job, |j| j.completed(checkpoint, *began, at));
            }
            event => self.apply_stop(event),
        }
    }
}

/// What a failure of the running attempt makes happen.
fn fail(known: &Job, failure: Failure, restarts_max: u32, now: Timestamp) -> Event {
    let job = known.new.job.clone();
    let verdict = restart::decide(&known.new.options.restart, restarts_max, failure.cause, known.past(), now);
    let Failure { cause, reason, task, worker } = failure;
    match verdict {
        Verdict::Again(pause) => {
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            Event::AttemptFailed { job, reason, cause, task, worker, pause_ms }
        }
        Verdict::GiveUp(why) => {
            Event::GivenUp { job, reason: format!("{reason} (given up: {why})"), cause, task, worker }
        }
    }
}

impl State {
    fn submit(&self, (new, planned): (NewJob, PlannedJob)) -> Result<Vec<Event>, Error> {
        match self.live(&new.job) {
            Some(known) if known.new.text == new.text && known.new.sink == new.sink => {
                // A suspended job goes on from its savepoint.
                let suspended = known.status == JobStatus::Suspended;
                return Ok(if suspended { vec![Event::Resumed { job: new.job }] } else { Vec::new() });
            }
            Some(_) => return Err(Error::JobDiffers(new.job)),
            None => {}
        }
        if self.jobs.values().filter(|j| j.is_live()).count() >= JOBS_MAX {
            return Err(Error::TooManyJobs);
        }
        let Plan { graph, sink, source, also: _ } = planned.plan;
        Ok(vec![Event::Submitted {
            new: Box::new(new),
            graph,
            sink,
            source,
            start: planned.start,
            starts: planned.starts,
            restored: planned.restored,
        }])
    }

    /// A job, whatever became of it.
    pub(crate) fn job(&self, job: &JobId) -> Result<&Job, Error> {
        self.jobs.get(job).ok_or_else(|| Error::UnknownJob(job.clone()))
    }

    /// The last checkpoints of a job.
    pub(crate) fn checkpoints(&self, job: &JobId, board: &Board) -> Result<CheckpointHistory, Error> {
        let known = self.job(job)?;
        let named = |number| {
            let mut of_job = self.savepoints.values().filter(|s| s.name.job == *job && s.checkpoint == number);
            of_job.next().map(|savepoint| savepoint.name.name.clone())
        };
        Ok(known.history.shown(board, named))
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
        let live = self.jobs.values().filter(|job| job.status.wants_slots());
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

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
