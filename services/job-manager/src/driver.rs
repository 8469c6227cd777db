//! Drives one job while this replica leads: place, deploy, checkpoint, and begin again when something breaks.

use std::{collections::BTreeMap, time::Duration};

use bus::Bus;
use client::Client;
use flow::{Ack, CheckpointLimits, Checkpoints, ExecutionGraph, FreeSlots, OperatorSpec, TaskId};
use host::Ledger;
use store::Objects;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{Clock, IndexName, JobId, ReplicaId, StreamCut, Timestamp};
use wire::{
    Problem, Service,
    job_manager::{CheckpointReport, JobStatus, PartRef, TaskReport, TaskStatus},
    task_worker::{AttemptName, Barrier, CancelTasks, DeployTasks, Deployment, Restore, TriggerCheckpoint},
    views::Member,
};

use crate::{
    config::Config,
    manifest,
    metrics::{ATTEMPTS_FAILED, CHECKPOINTS_COMPLETED, CHECKPOINTS_LOST},
    state::{Checkpoint, Command, Job, State},
};

/// How often members are looked at and checkpoints are considered.
const TICK: Duration = Duration::from_millis(200);
/// How long to wait for slots before looking again; waiting is no failure.
const SLOTS_PAUSE: Duration = Duration::from_millis(300);
/// The longest pause between two attempts; the first is 100 ms and each doubles.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a worker may take to start its tasks: it fetches their state first.
const DEPLOY_WITHIN: Duration = Duration::from_secs(10);
/// Reports waiting for one job; beyond it a report is refused and the task repeats it.
pub(crate) const REPORTS_MAX: usize = 4_096;

/// What a task told.
#[derive(Debug)]
pub(crate) enum Report {
    Task(TaskReport),
    Checkpoint(CheckpointReport),
}

/// Why an attempt ended.
enum End {
    /// Something broke.
    Failed(String),
    /// Nothing broke, but another attempt is needed; the text says why.
    Anew(String),
    /// The job is cancelled, or this replica leads no more.
    Over,
}

type Part = (Option<PartRef>, StreamCut);

/// Drives one job.
pub(crate) struct Driver {
    pub(crate) job: JobId,
    pub(crate) ledger: Ledger<State>,
    pub(crate) bus: Bus,
    pub(crate) members: bus::Bucket,
    pub(crate) objects: Objects,
    pub(crate) client: Client,
    /// The attempt that this driver placed.
    pub(crate) placed: Option<u32>,
    pub(crate) config: Config,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) stop: CancellationToken,
}

impl Driver {
    /// Runs until the job is over or this replica leads no more.
    pub(crate) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let Some(job) = self.live() else { break };
            let outcome = match job.execution.clone() {
                None => self.place(&job).await,
                Some(execution) => match self.attempt(&job, &execution).await {
                    End::Over => break,
                    End::Failed(reason) => self.fail(&job, &execution, reason).await,
                    End::Anew(reason) => self.replan(&job, &execution, reason).await,
                },
            };
            if let Err(problem) = outcome {
                warn!(job = %self.job, %problem, "job step not recorded");
                self.pause(SLOTS_PAUSE).await;
            }
        }
    }

    fn live(&self) -> Option<Job> {
        self.ledger.read(|state| state.live(&self.job).cloned())
    }

    /// Waits, or less when this replica leads no more.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn workers(&self) -> Result<BTreeMap<ReplicaId, Member>, Problem> {
        let prefix = format!("{}.", Service::TaskWorker);
        let entries = self.members.list(&prefix).await?;
        let members = entries.iter().filter_map(|(_, entry)| wire::decode::<Member>(&entry.value).ok());
        Ok(members.map(|m| (m.replica.clone(), m)).collect())
    }

    async fn place(&mut self, job: &Job) -> Result<(), Problem> {
        let workers = self.workers().await?;
        let used = self.ledger.read(State::used_slots);
        let offers: Vec<FreeSlots> = workers
            .values()
            .map(|w| FreeSlots {
                worker: w.replica.clone(),
                free: u32::from(w.slots).saturating_sub(used.get(&w.replica).copied().unwrap_or(0)),
            })
            .collect();
        match ExecutionGraph::place(job.graph.clone(), job.attempt + 1, &offers) {
            Ok(execution) => {
                let started = workers.into_iter().map(|(replica, w)| (replica, w.started)).collect();
                let attempt = execution.attempt;
                self.ledger.submit(Command::Place(self.job.clone(), Box::new(execution), started)).await?;
                self.placed = Some(attempt);
            }
            Err(error) => {
                info!(job = %self.job, %error, "job waits for slots");
                self.pause(SLOTS_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn fail(&mut self, job: &Job, execution: &ExecutionGraph, reason: String) -> Result<(), Problem> {
        warn!(job = %self.job, attempt = execution.attempt, %reason, "attempt failed");
        ATTEMPTS_FAILED.inc();
        self.end_tasks(execution, job.order).await;
        let restarts_max = self.config.restarts_max;
        let command = Command::Fail { job: self.job.clone(), attempt: execution.attempt, reason, restarts_max };
        self.ledger.submit(command).await?;
        let doubled = Duration::from_millis(100).saturating_mul(1 << job.failures.min(10));
        self.pause(doubled.min(RESTART_PAUSE_MAX)).await;
        Ok(())
    }

    /// Ends an attempt that did not fail, so that the next one begins at once.
    async fn replan(&mut self, job: &Job, execution: &ExecutionGraph, reason: String) -> Result<(), Problem> {
        info!(job = %self.job, attempt = execution.attempt, %reason, "attempt ends");
        self.end_tasks(execution, job.order).await;
        self.ledger.submit(Command::Replan { job: self.job.clone(), attempt: execution.attempt, reason }).await?;
        Ok(())
    }

    /// Ends the tasks of an attempt on every worker that still answers; the next deployment ends the rest.
    async fn end_tasks(&self, execution: &ExecutionGraph, submission: u64) {
        let name = AttemptName { job: self.job.clone(), attempt: execution.attempt, submission };
        let calls = workers_of(execution).into_iter().map(|worker| {
            let name = name.clone();
            async move {
                let ended = self.bus.call_within::<CancelTasks>(&worker, &name, Duration::from_secs(1)).await;
                if let Err(problem) = ended {
                    info!(%worker, %problem, "worker did not confirm the end of its tasks");
                }
            }
        });
        futures::future::join_all(calls).await;
    }

    /// The cut from which an attempt begins, with the segments that there are now; tries until the coordinator is there.
    async fn beginning(&self, job: &Job, cut: &StreamCut, attempt: u32) -> Result<StreamCut, End> {
        loop {
            match self.client.advance(&job.source, cut).await {
                Ok(cut) => return Ok(cut),
                Err(problem) if problem.is_transient() => {
                    info!(job = %self.job, %problem, "segments of the source not known; the job waits");
                    self.pause(SLOTS_PAUSE).await;
                }
                Err(problem) => return Err(End::Failed(format!("the source index cannot be read: {problem}"))),
            }
            if self.stop.is_cancelled() || self.ledger.read(|s| s.current(&self.job, attempt).is_none()) {
                return Err(End::Over);
            }
        }
    }

    async fn deploy(&self, job: &Job, execution: &ExecutionGraph) -> Result<(), End> {
        let (cut, parts) = job.begin();
        let cut = self.beginning(job, &cut, execution.attempt).await?;
        let number = |id: &TaskId| execution.tasks.iter().position(|t| t.id == *id);
        let restore: Vec<Restore> = parts
            .into_iter()
            .filter_map(|(id, part)| Some(Restore { task: u32::try_from(number(&id)?).ok()?, part }))
            .collect();
        let graph = bytes::Bytes::from(wire::encode(execution));
        let calls = workers_of(execution).into_iter().map(|worker| {
            let deployment = Deployment {
                job: self.job.clone(),
                attempt: execution.attempt,
                graph: graph.clone(),
                restore: restore.clone(),
                cut: cut.clone(),
                submission: job.order,
                worker_started: job.workers.get(&worker).copied().unwrap_or_default(),
            };
            async move { self.bus.call_within::<DeployTasks>(&worker, &deployment, DEPLOY_WITHIN).await }
        });
        let deployed = futures::future::try_join_all(calls).await.map(drop);
        deployed.map_err(|problem| End::Failed(format!("tasks could not be started: {problem}")))
    }

    /// Runs one attempt to its end.
    async fn attempt(&mut self, job: &Job, execution: &ExecutionGraph) -> End {
        let taken_over = self.placed != Some(execution.attempt);
        if taken_over && job.status != JobStatus::Running {
            // Some of its tasks may run, from a cut that nobody knows any more; all must begin with the same segments.
            return End::Anew("its leader changed while the tasks were started".to_owned());
        }
        if let Err(end) = self.deploy(job, execution).await {
            return end;
        }
        if job.status != JobStatus::Running
            && let Err(problem) = self.ledger.submit(Command::Run(self.job.clone(), execution.attempt)).await
        {
            warn!(job = %self.job, %problem, "running attempt not recorded");
        }
        // The first number of a fresh range: no leader before this one can have used it.
        let first = job.reserved;
        if self.ledger.submit(Command::Reserve(self.job.clone())).await.is_err() {
            return End::Over;
        }
        let limits =
            CheckpointLimits { pause: self.config.checkpoint_interval.0, timeout: self.config.checkpoint_timeout.0 };
        let tasks = execution.tasks.iter().map(|t| t.id);
        let mut running = Running {
            execution,
            workers: job.workers.clone(),
            submission: job.order,
            source: job.source.clone(),
            // Whoever led before may have been told.
            ended: taken_over,
            reserved: first + crate::state::CHECKPOINTS_RESERVED,
            checkpoints: Checkpoints::new(tasks, limits, first),
        };
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                () = self.stop.cancelled() => return End::Over,
                _ = tick.tick() => self.look(&mut running).await,
                report = self.reports.recv() => match report {
                    Some(report) => self.take(&mut running, report).await,
                    None => return End::Over,
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Looks at the job, its workers and its checkpoint.
    async fn look(&self, running: &mut Running<'_>) -> Result<(), End> {
        if self.ledger.read(|s| s.current(&self.job, running.execution.attempt).is_none()) {
            self.end_tasks(running.execution, running.submission).await;
            return Err(End::Over);
        }
        if let Ok(members) = self.workers().await {
            for worker in workers_of(running.execution) {
                let started = running.workers.get(&worker);
                match members.get(&worker) {
                    None => return Err(End::Failed(format!("worker {worker} is gone"))),
                    Some(m) if Some(&m.started) != started => {
                        return Err(End::Failed(format!("worker {worker} was restarted")));
                    }
                    Some(_) => {}
                }
            }
        }
        let now = bus::SystemClock.now();
        if let Some(stopped) = running.checkpoints.tick(now) {
            CHECKPOINTS_LOST.inc();
            warn!(job = %self.job, %stopped, "checkpoint not complete in time");
        }
        let number = running.checkpoints.next_epoch();
        if number > running.reserved {
            let Ok(_) = self.ledger.submit(Command::Reserve(self.job.clone())).await else { return Err(End::Over) };
            running.reserved += crate::state::CHECKPOINTS_RESERVED;
        }
        if running.checkpoints.trigger(number, now).is_ok() {
            self.trigger(running, number, now).await;
        }
        Ok(())
    }

    async fn trigger(&self, running: &mut Running<'_>, number: u64, now: Timestamp) {
        let barrier = Barrier {
            job: self.job.clone(),
            attempt: running.execution.attempt,
            checkpoint: number,
            submission: running.submission,
        };
        for worker in workers_of(running.execution) {
            let triggered = self.bus.call_within::<TriggerCheckpoint>(&worker, &barrier, Duration::from_secs(2)).await;
            if let Err(problem) = triggered {
                warn!(job = %self.job, %worker, %problem, "checkpoint not triggered");
                running.checkpoints.abort(number, now);
                return;
            }
        }
    }

    async fn take(&self, running: &mut Running<'_>, report: Report) -> Result<(), End> {
        match report {
            Report::Task(report) if report.attempt == running.execution.attempt => match report.status {
                TaskStatus::Failed(reason) => Err(End::Failed(reason)),
                TaskStatus::Running => Ok(()),
                TaskStatus::Finished => {
                    running.ended |= running.is_source(report.task);
                    Ok(())
                }
            },
            Report::Checkpoint(report) if report.attempt == running.execution.attempt => {
                let task = usize::try_from(report.task).ok().and_then(|i| running.execution.tasks.get(i));
                let Some(task) = task else { return Ok(()) };
                let part: Part = (report.part, report.cut);
                if let Ack::Complete(permit) = running.checkpoints.ack(task.id, report.checkpoint, part) {
                    self.commit(running, permit).await?;
                }
                Ok(())
            }
            Report::Task(_) | Report::Checkpoint(_) => Ok(()),
        }
    }

    /// Manifest first, then the journal: what the journal names is complete in storage.
    async fn commit(&self, running: &mut Running<'_>, permit: flow::CommitPermit<Part>) -> Result<(), End> {
        let mut cut = StreamCut::default();
        let mut parts = Vec::new();
        for (task, (part, read)) in permit.parts() {
            cut.0.extend(read.0.iter().map(|(s, o)| (*s, *o)));
            parts.extend(part.clone().map(|p| (*task, p)));
        }
        let checkpoint = Checkpoint { number: permit.epoch(), parts, cut };
        let place = manifest::Place { job: &self.job, submission: running.submission };
        if let Err(error) = manifest::store(&self.objects, place, &checkpoint).await {
            warn!(job = %self.job, %error, "checkpoint manifest not stored");
            running.checkpoints.abort(permit.epoch(), bus::SystemClock.now());
            CHECKPOINTS_LOST.inc();
            return Ok(());
        }
        let (number, cut) = (checkpoint.number, checkpoint.cut.clone());
        let command = Command::Complete { job: self.job.clone(), attempt: running.execution.attempt, checkpoint };
        if let Err(problem) = self.ledger.submit(command).await {
            warn!(job = %self.job, %problem, "checkpoint not recorded");
            return Err(End::Over);
        }
        running.checkpoints.committed(permit, bus::SystemClock.now());
        CHECKPOINTS_COMPLETED.inc();
        manifest::forget_older(&self.objects, place, number).await;
        if running.ended { self.look_ahead(running, &cut).await } else { Ok(()) }
    }

    /// Ends the attempt if there are segments behind a complete checkpoint; else the next checkpoint looks again.
    async fn look_ahead(&self, running: &Running<'_>, cut: &StreamCut) -> Result<(), End> {
        match self.client.advance(&running.source, cut).await {
            Ok(advanced) if advanced.0.keys().any(|segment| !cut.0.contains_key(segment)) => Err(End::Anew(format!(
                "index {} was scaled: the job goes on with the successors of its segments",
                running.source
            ))),
            Ok(_) => Ok(()),
            Err(problem) => {
                info!(job = %self.job, %problem, "what follows the source's segments is not known");
                Ok(())
            }
        }
    }
}

/// One attempt while it runs.
struct Running<'a> {
    execution: &'a ExecutionGraph,
    workers: BTreeMap<ReplicaId, Timestamp>,
    submission: u64,
    source: IndexName,
    /// Whether a source came to the end of a segment, so that each checkpoint is followed by a look for successors.
    ended: bool,
    reserved: u64,
    checkpoints: Checkpoints<Part>,
}

impl Running<'_> {
    fn is_source(&self, task: u32) -> bool {
        let task = usize::try_from(task).ok().and_then(|task| self.execution.tasks.get(task));
        let vertex = task.and_then(|task| usize::try_from(task.id.vertex).ok());
        let vertex = vertex.and_then(|vertex| self.execution.graph.vertices.get(vertex));
        vertex.and_then(|vertex| vertex.operators.first()).is_some_and(|o| matches!(o, OperatorSpec::Source { .. }))
    }
}

fn workers_of(execution: &ExecutionGraph) -> Vec<ReplicaId> {
    let mut workers: Vec<ReplicaId> = execution.tasks.iter().map(|t| t.worker.clone()).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}
