//! Drives one job while this replica leads: places it, runs its attempts, and begins again when something breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus::Bus;
use client::Client;
use flow::{ExecutionGraph, FreeSlots};
use host::Ledger;
use parking_lot::Mutex;
use store::Objects;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{Clock, JobId, ReplicaId, Timestamp};
use wire::{
    Problem,
    job_manager::{Cause, CheckpointReport, TaskReport},
    task_worker::{AttemptName, CancelTasks},
};

use crate::{
    config::Config,
    history::{Board, Failure},
    metrics::ATTEMPTS_FAILED,
    state::{Command, Job, State},
    workers::{Presence, Workers},
};

mod attempt;
mod deploy;
mod keeping;
mod stopping;

pub(crate) use stopping::rescaled;

/// How often members are looked at and checkpoints are considered.
const TICK: Duration = Duration::from_millis(200);
/// How long to wait for slots before looking again; waiting is no failure.
const SLOTS_PAUSE: Duration = Duration::from_millis(300);
/// How long the next attempt waits for the old tasks to end. Who has not answered by then is avoided; whatever still runs there ends
/// when it is told, and what it writes meanwhile is dropped as a repeat.
const END_WAIT: Duration = Duration::from_millis(300);
/// How long a worker is told to end its tasks.
const END_WITHIN: Duration = Duration::from_secs(5);
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
    Failed(Failure),
    /// Nothing broke, but another attempt is needed; the text says why.
    Anew(String),
    /// A worker has fewer slots than was believed; waiting for them is no failure.
    Waits(String),
    /// The job stands at its stop-savepoint.
    Stopped,
    /// The job could not be stopped at a savepoint.
    StopLost(String),
    /// Every task came to its end.
    Finished,
    /// The job is cancelled, or this replica leads no more.
    Over,
}

impl End {
    fn failed(cause: Cause, reason: impl Into<String>) -> Self {
        Self::Failed(Failure::new(cause, reason))
    }

    fn lost(worker: &ReplicaId, presence: Presence) -> Self {
        let what = match presence {
            Presence::Restarted => "was restarted",
            Presence::Silent => "does not answer any more",
            Presence::Gone | Presence::Here => "is gone",
        };
        Self::Failed(Failure::new(Cause::WorkerLost, format!("worker {worker} {what}")).on(worker))
    }
}

/// Drives one job.
pub(crate) struct Driver {
    pub(crate) job: JobId,
    pub(crate) ledger: Ledger<State>,
    pub(crate) bus: Bus,
    pub(crate) workers: Workers,
    pub(crate) objects: Objects,
    pub(crate) client: Client,
    /// The attempt that this driver placed.
    pub(crate) placed: Option<u32>,
    pub(crate) config: Config,
    pub(crate) reports: mpsc::Receiver<Report>,
    /// What it shows of its checkpoints.
    pub(crate) board: Arc<Mutex<Board>>,
    /// Savepoints that are asked for, by name; an empty one is named after its checkpoint.
    pub(crate) wishes: Arc<Mutex<BTreeSet<String>>>,
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
                    End::Stopped => self.stopped(&job, &execution).await,
                    End::StopLost(reason) => self.stop_lost(&job, &execution, reason).await,
                    End::Finished => self.finished(&job, &execution).await,
                    End::Failed(failure) => self.fail(&job, &execution, failure).await,
                    End::Anew(reason) => self.replan(&job, &execution, reason).await,
                    End::Waits(reason) => {
                        let replanned = self.replan(&job, &execution, reason).await;
                        self.pause(SLOTS_PAUSE).await;
                        replanned
                    }
                },
            };
            if let Err(problem) = outcome {
                warn!(job = %self.job, %problem, "job step not recorded");
                self.pause(SLOTS_PAUSE).await;
            }
        }
    }

    fn live(&self) -> Option<Job> {
        self.ledger.read(|state| state.live(&self.job).filter(|job| job.status.wants_slots()).cloned())
    }

    /// Waits, or less when this replica leads no more.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn place(&mut self, job: &Job) -> Result<(), Problem> {
        let early = job.not_before.since(bus::SystemClock.now());
        if !early.is_zero() {
            // Not all of it at once: the job may be cancelled meanwhile.
            self.pause(early.min(SLOTS_PAUSE)).await;
            return Ok(());
        }
        let Some((workers, slow)) = self.workers.usable() else {
            self.pause(TICK / 4).await;
            return Ok(());
        };
        let used = self.ledger.read(State::used_slots);
        let offer = |worker: &wire::views::Member| FreeSlots {
            worker: worker.replica.clone(),
            free: u32::from(worker.slots).saturating_sub(used.get(&worker.replica).copied().unwrap_or(0)),
        };
        let offers: Vec<FreeSlots> = workers.values().map(offer).collect();
        let swift: Vec<FreeSlots> = offers.iter().filter(|o| !slow.contains(&o.worker)).cloned().collect();
        let place = |offers: &[FreeSlots]| ExecutionGraph::place(job.graph.clone(), job.attempt + 1, offers);
        match place(&swift).or_else(|_| place(&offers)) {
            Ok(execution) => {
                let started: BTreeMap<ReplicaId, Timestamp> =
                    workers.into_iter().map(|(replica, w)| (replica, w.started)).collect();
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

    async fn fail(&mut self, job: &Job, execution: &ExecutionGraph, failure: Failure) -> Result<(), Problem> {
        let Failure { reason, cause, .. } = &failure;
        warn!(job = %self.job, attempt = execution.attempt, %reason, ?cause, "attempt failed");
        self.board.lock().lose(bus::SystemClock.now(), reason);
        ATTEMPTS_FAILED.inc();
        self.end_tasks(execution, job.order).await;
        let restarts_max = self.config.restarts_max;
        let (job, attempt) = (self.job.clone(), execution.attempt);
        self.ledger.submit(Command::Fail { job, attempt, failure, restarts_max }).await?;
        Ok(())
    }

    /// Ends an attempt that did not fail, so that the next one begins at once.
    async fn replan(&mut self, job: &Job, execution: &ExecutionGraph, reason: String) -> Result<(), Problem> {
        info!(job = %self.job, attempt = execution.attempt, %reason, "attempt ends");
        self.board.lock().lose(bus::SystemClock.now(), &reason);
        self.end_tasks(execution, job.order).await;
        self.ledger.submit(Command::Replan { job: self.job.clone(), attempt: execution.attempt, reason }).await?;
        Ok(())
    }

    /// Ends the tasks of an attempt on every worker that still answers. Returns when all have answered, or soon: what follows does not
    /// wait for the dead, and the next deployment ends the rest.
    async fn end_tasks(&self, execution: &ExecutionGraph, submission: u64) {
        let name = AttemptName { job: self.job.clone(), attempt: execution.attempt, submission };
        let workers = workers_of(execution);
        let telling = workers.iter().map(|worker| {
            let (name, worker, known, bus) = (name.clone(), worker.clone(), self.workers.clone(), self.bus.clone());
            // On their own, so that they go on when the wait is over.
            tokio::spawn(async move {
                // Once quickly, for what it says of the worker.
                let mut ended = bus.call_within::<CancelTasks>(&worker, &name, END_WAIT).await;
                if let Err(problem) = &ended {
                    known.told(&worker, problem);
                    ended = bus.call_within::<CancelTasks>(&worker, &name, END_WITHIN).await;
                }
                if let Err(problem) = ended {
                    info!(%worker, %problem, "worker did not confirm the end of its tasks");
                }
                worker
            })
        });
        let mut telling: futures::stream::FuturesUnordered<_> = telling.collect();
        let mut open: BTreeSet<ReplicaId> = workers.into_iter().collect();
        let all = async {
            while let Some(told) = futures::StreamExt::next(&mut telling).await {
                if let Ok(worker) = told {
                    open.remove(&worker);
                }
            }
        };
        drop(time::timeout(END_WAIT + END_WAIT / 3, all).await);
        for worker in open {
            self.workers.owes_an_answer(&worker);
        }
    }
}

fn workers_of(execution: &ExecutionGraph) -> Vec<ReplicaId> {
    let mut workers: Vec<ReplicaId> = execution.tasks.iter().map(|t| t.worker.clone()).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}
