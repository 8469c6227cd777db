//! One attempt while it runs: its workers are watched, and barriers begin its checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flow::{Ack, CheckpointLimits, Checkpoints, ExecutionGraph, OperatorSpec, TaskId};
use futures::future::BoxFuture;
use tokio::{task::JoinHandle, time};
use tracing::warn;
use types::{Clock, IndexName, ReplicaId, StreamCut, Timestamp};
use wire::{
    Problem,
    job_manager::{CheckpointReport, JobStatus, PartRef, TaskReport, TaskStatus},
    task_worker::{Barrier, BarrierKind, TriggerCheckpoint},
};

use super::{Driver, End, Report, TICK, workers_of};
use crate::{
    history::Failure,
    metrics::CHECKPOINTS_LOST,
    state::{CHECKPOINTS_RESERVED, Command, Job, Stop},
};

/// How long a worker may take to hand a barrier to its sources.
const TRIGGER_WITHIN: Duration = Duration::from_secs(2);

/// What a task gave to a checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) part: Option<PartRef>,
    pub(super) cut: StreamCut,
    pub(super) splits: BTreeMap<String, u64>,
    pub(super) blocks: Vec<String>,
}

/// The way of a barrier to the workers: whether it came everywhere.
type Triggering = BoxFuture<'static, Result<(), (ReplicaId, Problem)>>;

/// One attempt while it runs.
pub(super) struct Running<'a> {
    pub(super) execution: &'a ExecutionGraph,
    workers: BTreeMap<ReplicaId, Timestamp>,
    pub(super) submission: u64,
    /// The indexes that it reads, by vertex.
    pub(super) indexes: Vec<(u32, IndexName)>,
    /// Whether a source came to the end of a segment, so that each checkpoint is followed by a look for successors.
    pub(super) ended: bool,
    reserved: u64,
    pub(super) checkpoints: Checkpoints<Part>,
    /// The least time between two checkpoints that nobody asked for.
    interval: Duration,
    /// When the last checkpoint ended.
    pub(super) quiet_since: Option<Timestamp>,
    /// When the barriers of the running checkpoint were sent, what follows them, and which savepoint it will be.
    pub(super) began: Timestamp,
    pub(super) kind: BarrierKind,
    pub(super) named: Option<String>,
    triggering: Option<(u64, Triggering)>,
    /// The last part of each task, which stands for it when it has ended.
    last: BTreeMap<TaskId, Part>,
    finished: BTreeSet<TaskId>,
    /// Removes old checkpoints, beside everything but barriers.
    pub(super) cleaning: Option<JoinHandle<()>>,
    /// The blocks that kept checkpoints name, as far as this attempt knows them.
    pub(super) blocks: BTreeMap<u64, Vec<String>>,
}

impl Running<'_> {
    fn task(&self, number: u32) -> Option<&flow::Task> {
        usize::try_from(number).ok().and_then(|number| self.execution.tasks.get(number))
    }

    fn head(&self, task: TaskId) -> Option<&OperatorSpec> {
        let vertex = usize::try_from(task.vertex).ok();
        vertex.and_then(|vertex| self.execution.graph.vertices.get(vertex)).and_then(|v| v.operators.first())
    }

    pub(super) fn is_cleaning(&self) -> bool {
        self.cleaning.as_ref().is_some_and(|cleaning| !cleaning.is_finished())
    }

    fn is_stopping(&self) -> bool {
        self.checkpoints.running().is_some() && matches!(self.kind, BarrierKind::Stop | BarrierKind::Drain)
    }

    /// The barrier on its way, once it has come everywhere or cannot; for ever if there is none.
    async fn triggered(&mut self) -> (u64, Result<(), (ReplicaId, Problem)>) {
        let Some((number, way)) = &mut self.triggering else { return std::future::pending().await };
        let (number, came) = (*number, way.await);
        self.triggering = None;
        (number, came)
    }

    /// The barrier that is due, and the savepoint that its checkpoint will be.
    fn due(&self, stop: Option<&Stop>, wish: Option<&String>, now: Timestamp) -> Option<(BarrierKind, Option<String>)> {
        match (stop, wish) {
            (Some(Stop::Suspend(name)), _) => Some((BarrierKind::Stop, Some(name.clone()))),
            (Some(Stop::Drain(name)), _) => Some((BarrierKind::Drain, Some(name.clone()))),
            (Some(Stop::Rescale(_)), _) => Some((BarrierKind::Stop, None)),
            (None, Some(name)) => Some((BarrierKind::Savepoint, Some(name.clone()))),
            (None, None) => {
                let waited = self.quiet_since.is_none_or(|since| now.since(since) >= self.interval);
                waited.then_some((BarrierKind::Checkpoint, None))
            }
        }
    }
}

impl Driver {
    /// Runs one attempt to its end.
    pub(super) async fn attempt(&mut self, job: &Job, execution: &ExecutionGraph) -> End {
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
        let mut running = self.running(job, execution, first, taken_over);
        if taken_over && job.begins_at() > 0 {
            // Whoever led before may not have told it any more.
            self.tell_commit(&running, job.begins_at());
        }
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                () = self.stop.cancelled() => return End::Over,
                _ = tick.tick() => self.look(&mut running).await,
                (number, came) = running.triggered() => self.came(&mut running, number, came),
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

    fn running<'a>(&self, job: &Job, execution: &'a ExecutionGraph, first: u64, taken_over: bool) -> Running<'a> {
        // The pause is kept here: a savepoint does not wait for it.
        let limits = CheckpointLimits { pause: Duration::ZERO, timeout: self.config.checkpoint_timeout.0 };
        let interval = job.new.options.checkpoint_interval.unwrap_or(self.config.checkpoint_interval).0;
        let of_attempt = workers_of(execution);
        let started = of_attempt.iter().filter_map(|w| job.workers.get_key_value(w)).map(|(w, s)| (w.clone(), *s));
        Running {
            execution,
            workers: started.collect(),
            submission: job.order,
            indexes: job.indexes(),
            // Whoever led before may have been told.
            ended: taken_over,
            reserved: first + CHECKPOINTS_RESERVED,
            checkpoints: Checkpoints::new(execution.tasks.iter().map(|t| t.id), limits, first),
            interval,
            quiet_since: None,
            began: Timestamp::MIN,
            kind: BarrierKind::Checkpoint,
            named: None,
            triggering: None,
            last: BTreeMap::new(),
            finished: BTreeSet::new(),
            cleaning: None,
            blocks: job.checkpoint.iter().map(|checkpoint| (checkpoint.number, checkpoint.blocks.clone())).collect(),
        }
    }

    /// Looks at the job, its workers and its checkpoint.
    async fn look(&self, running: &mut Running<'_>) -> Result<(), End> {
        let stop = self.ledger.read(|s| s.current(&self.job, running.execution.attempt).map(|job| job.stop.clone()));
        let Some(stop) = stop else {
            self.end_tasks(running.execution, running.submission).await;
            return Err(End::Over);
        };
        if let Some((worker, presence)) = self.workers.missing(&running.workers) {
            return Err(End::lost(&worker, presence));
        }
        let now = bus::SystemClock.now();
        if let Some(stopped) = running.checkpoints.tick(now) {
            self.lost(running, &stopped.to_string())?;
        }
        let number = running.checkpoints.next_epoch();
        if number > running.reserved {
            let Ok(_) = self.ledger.submit(Command::Reserve(self.job.clone())).await else { return Err(End::Over) };
            running.reserved += CHECKPOINTS_RESERVED;
        }
        // Blocks that nobody names are removed only while nothing new can come to name them.
        if running.checkpoints.running().is_some() || running.is_cleaning() {
            return Ok(());
        }
        let wish = self.wishes.lock().first().cloned();
        let Some((kind, named)) = running.due(stop.as_ref(), wish.as_ref(), now) else { return Ok(()) };
        if running.checkpoints.trigger(number, now).is_ok() {
            (running.began, running.kind, running.named) = (now, kind, named);
            self.board.lock().begin(number, now);
            running.triggering = Some((number, self.trigger(running, number)));
        }
        Ok(())
    }

    /// Sends a barrier to all workers at once.
    fn trigger(&self, running: &Running<'_>, number: u64) -> Triggering {
        let barrier = Barrier {
            job: self.job.clone(),
            attempt: running.execution.attempt,
            checkpoint: number,
            submission: running.submission,
            kind: running.kind,
        };
        let calls = workers_of(running.execution).into_iter().map(|worker| {
            let (bus, barrier) = (self.bus.clone(), barrier.clone());
            async move {
                let triggered = bus.call_within::<TriggerCheckpoint>(&worker, &barrier, TRIGGER_WITHIN).await;
                triggered.map(drop).map_err(|problem| (worker, problem))
            }
        });
        let all = futures::future::try_join_all(calls.collect::<Vec<_>>());
        Box::pin(async move { all.await.map(drop) })
    }

    fn came(&self, running: &mut Running<'_>, number: u64, came: Result<(), (ReplicaId, Problem)>) -> Result<(), End> {
        let Err((worker, problem)) = came else { return Ok(()) };
        self.workers.told(&worker, &problem);
        match running.checkpoints.abort(number, bus::SystemClock.now()) {
            Some(_) => self.lost(running, &format!("worker {worker} did not begin it: {problem}")),
            None => Ok(()),
        }
    }

    /// Takes that the running checkpoint is given up; a stop ends with it, for some sources may have ended at its barrier.
    pub(super) fn lost(&self, running: &mut Running<'_>, reason: &str) -> Result<(), End> {
        let now = bus::SystemClock.now();
        CHECKPOINTS_LOST.inc();
        warn!(job = %self.job, reason, "checkpoint given up");
        self.board.lock().lose(now, reason);
        running.quiet_since = Some(now);
        if let Some(wish) = running.named.take() {
            self.wishes.lock().remove(&wish);
        }
        match running.kind {
            BarrierKind::Stop | BarrierKind::Drain => Err(End::StopLost(reason.to_owned())),
            BarrierKind::Checkpoint | BarrierKind::Savepoint => Ok(()),
        }
    }

    async fn take(&self, running: &mut Running<'_>, report: Report) -> Result<(), End> {
        match report {
            Report::Task(report) if report.attempt == running.execution.attempt => self.told(running, report).await,
            Report::Checkpoint(report) if report.attempt == running.execution.attempt => {
                self.part(running, report).await
            }
            Report::Task(_) | Report::Checkpoint(_) => Ok(()),
        }
    }

    async fn told(&self, running: &mut Running<'_>, report: TaskReport) -> Result<(), End> {
        let task = running.task(report.task).map(|task| (task.id, task.worker.clone()));
        match report.status {
            TaskStatus::Failed(reason) => {
                let (task, worker) = task.unzip();
                Err(End::Failed(Failure { cause: report.cause, reason, task, worker }))
            }
            TaskStatus::Running => Ok(()),
            TaskStatus::EndOfSplit => {
                running.ended = true;
                Ok(())
            }
            TaskStatus::Finished => match task {
                Some((task, _)) => self.task_ended(running, task).await,
                None => Ok(()),
            },
        }
    }

    /// A task ended: its last part stands for it in every later checkpoint; when all have, the job is finished.
    async fn task_ended(&self, running: &mut Running<'_>, task: TaskId) -> Result<(), End> {
        let index = running.head(task).is_some_and(|head| head.index_read().is_some());
        if index && !running.is_stopping() {
            // An index has no end. Workers of older releases say so at the end of a segment.
            running.ended = true;
            return Ok(());
        }
        running.finished.insert(task);
        let last = running.last.get(&task).cloned().unwrap_or_default();
        if let Ack::Complete(permit) = running.checkpoints.finish(task, last) {
            self.commit(running, permit).await?;
        }
        match running.finished.len() == running.execution.tasks.len() && !running.is_stopping() {
            true => Err(End::Finished),
            false => Ok(()),
        }
    }

    async fn part(&self, running: &mut Running<'_>, report: CheckpointReport) -> Result<(), End> {
        let Some(task) = running.task(report.task).map(|task| task.id) else { return Ok(()) };
        let mut figures = report.figures;
        // A part without blocks is the whole state.
        figures.bytes = figures.bytes.max(report.part.as_ref().map_or(0, |part| part.bytes));
        self.board.lock().part(report.checkpoint, task, figures);
        let CheckpointReport { part, cut, splits, blocks, .. } = report;
        let part = Part { part, cut, splits, blocks };
        running.last.insert(task, part.clone());
        match running.checkpoints.ack(task, report.checkpoint, part) {
            Ack::Complete(permit) => self.commit(running, permit).await,
            Ack::Waiting { .. } | Ack::Stale => Ok(()),
        }
    }
}
