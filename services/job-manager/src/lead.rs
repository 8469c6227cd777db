//! What a leading job manager does besides answering: it keeps one driver running per live job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use bus::Doors;
use client::Client;
use host::{Host, Ledger};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use types::JobId;
use wire::{
    Empty, Problem, Service,
    job_manager::{
        CancelJob, DeleteSavepoint, DescribeJob, ExplainJob, ListJobs, ListSavepoints, ReportCheckpoint, ReportTask,
        RescaleJob, Savepoint, ShowCheckpoints, ShowExceptions, ShowPlan, StopJob, SubmitJob, TakeSavepoint,
    },
    views::MEMBERS,
};

use crate::{
    actor::Desk,
    config::Config,
    driver::{Driver, REPORTS_MAX, Report},
    history::Board,
    manifest, metrics,
    state::{SAVEPOINTS_MAX, State},
    workers::Workers,
};

/// How often jobs and drivers are compared even if nobody calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The running drivers and the way to reach them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drivers {
    open: Arc<Mutex<BTreeMap<JobId, Open>>>,
    changed: Arc<Notify>,
}

/// A running driver.
#[derive(Debug)]
struct Open {
    reports: mpsc::Sender<Report>,
    board: Arc<Mutex<Board>>,
    wishes: Arc<Mutex<BTreeSet<String>>>,
}

impl Drivers {
    /// Says that jobs changed.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// What the driver of a job shows of its checkpoints.
    pub(crate) fn board(&self, job: &JobId) -> Board {
        let board = self.open.lock().get(job).map(|open| Arc::clone(&open.board));
        board.map(|board| board.lock().clone()).unwrap_or_default()
    }

    /// Asks the driver of a job for a savepoint; a job that does not run has none, and the caller asks again.
    pub(crate) fn wish(&self, job: &JobId, savepoint: &str) {
        let wishes = self.open.lock().get(job).map(|open| Arc::clone(&open.wishes));
        if let Some(wishes) = wishes {
            let mut wishes = wishes.lock();
            if wishes.len() < SAVEPOINTS_MAX {
                wishes.insert(savepoint.to_owned());
            }
        }
    }

    /// Hands a report to the driver of its job; a job that is over has none, and its tasks may forget it.
    pub(crate) fn tell(&self, job: &JobId, report: Report) -> Result<Empty, Problem> {
        let Some(sender) = self.open.lock().get(job).map(|open| open.reports.clone()) else { return Ok(Empty {}) };
        match sender.try_send(report) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(Empty {}),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Problem::throttled(
                "TooManyReports",
                format_args!("{REPORTS_MAX} reports of job {job} wait already"),
            )),
        }
    }
}

/// Everything that leading needs.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) ledger: Ledger<State>,
    pub(crate) drivers: Drivers,
    pub(crate) desk: Addr<Desk>,
    pub(crate) client: Client,
}

impl Leader {
    /// Leads until the token is cancelled.
    pub(crate) async fn lead(self, token: CancellationToken) {
        while !token.is_cancelled() {
            if let Err(problem) = self.serve(&token).await {
                tracing::error!(%problem, "job manager cannot take up its work");
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn serve(&self, token: &CancellationToken) -> Result<(), Problem> {
        let host = &self.host;
        let members = host.bus.bucket(MEMBERS, Some(host.common.lease_ttl.0), host.common.journal_replicas).await?;
        let doors = Doors::new(&host.bus, Service::JobManager, &host.replica);
        let open = [
            doors.open::<SubmitJob>(None, self.desk.clone().recipient()).await?,
            doors.open::<CancelJob>(None, self.desk.clone().recipient()).await?,
            doors.open::<DescribeJob>(None, self.desk.clone().recipient()).await?,
            doors.open::<ListJobs>(None, self.desk.clone().recipient()).await?,
            doors.open::<ReportTask>(None, self.desk.clone().recipient()).await?,
            doors.open::<ReportCheckpoint>(None, self.desk.clone().recipient()).await?,
            doors.open::<ShowCheckpoints>(None, self.desk.clone().recipient()).await?,
            doors.open::<ShowExceptions>(None, self.desk.clone().recipient()).await?,
            doors.open::<ExplainJob>(None, self.desk.clone().recipient()).await?,
            doors.open::<ShowPlan>(None, self.desk.clone().recipient()).await?,
            doors.open::<TakeSavepoint>(None, self.desk.clone().recipient()).await?,
            doors.open::<DeleteSavepoint>(None, self.desk.clone().recipient()).await?,
            doors.open::<ListSavepoints>(None, self.desk.clone().recipient()).await?,
            doors.open::<StopJob>(None, self.desk.clone().recipient()).await?,
            doors.open::<RescaleJob>(None, self.desk.clone().recipient()).await?,
        ];
        let unbuilt = crate::orders::open(&doors).await?;
        tracing::info!("job manager leads");
        // Drivers and the watch end with these guards, also when the future is dropped.
        let stop = token.child_token();
        let _guard = stop.clone().drop_guard();
        let workers = Workers::default();
        let _watching = AbortOnDropHandle::new(tokio::spawn(workers.clone().watch(host.bus.clone(), members)));
        let mut running: BTreeMap<JobId, (u64, tokio::task::JoinHandle<()>)> = BTreeMap::new();
        while !token.is_cancelled() {
            self.compare(&mut running, &workers, &stop).await;
            tokio::select! {
                () = token.cancelled() => {}
                () = self.drivers.changed.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        drop((open, unbuilt));
        Ok(())
    }

    /// Starts a driver for each live job without one, and clears up after those that are over.
    async fn compare(
        &self,
        running: &mut BTreeMap<JobId, (u64, tokio::task::JoinHandle<()>)>,
        workers: &Workers,
        stop: &CancellationToken,
    ) {
        let live: BTreeMap<JobId, u64> = self
            .ledger
            .read(|state| state.jobs.values().filter(|j| j.is_live()).map(|j| (j.new.job.clone(), j.order)).collect());
        metrics::JOBS.set(live.len());
        let ended: BTreeSet<JobId> =
            running.iter().filter(|(_, (_, task))| task.is_finished()).map(|(j, _)| j.clone()).collect();
        for job in ended {
            let Some((submission, _)) = running.remove(&job) else { continue };
            self.drivers.open.lock().remove(&job);
            if live.get(&job) != Some(&submission) {
                self.forget(manifest::Place { job: &job, submission }).await;
            }
        }
        for (job, submission) in live {
            let wanted = self.ledger.read(|state| state.live(&job).is_some_and(|job| job.status.wants_slots()));
            if running.contains_key(&job) || !wanted {
                continue;
            }
            let (sender, reports) = mpsc::channel(REPORTS_MAX);
            let (board, wishes) = (Arc::<Mutex<Board>>::default(), Arc::<Mutex<BTreeSet<String>>>::default());
            let open = Open { reports: sender, board: Arc::clone(&board), wishes: Arc::clone(&wishes) };
            self.drivers.open.lock().insert(job.clone(), open);
            let driver = Driver {
                job: job.clone(),
                ledger: self.ledger.clone(),
                bus: self.host.bus.clone(),
                workers: workers.clone(),
                objects: self.host.objects.clone(),
                client: self.client.clone(),
                placed: None,
                config: self.config.clone(),
                reports,
                board,
                wishes,
                stop: stop.clone(),
            };
            running.insert(job, (submission, tokio::spawn(driver.run())));
        }
    }

    /// Removes what a submission that is over has stored, but for its savepoints.
    async fn forget(&self, place: manifest::Place<'_>) {
        let folder = place.prefix();
        let pinned: Vec<Savepoint> = self.ledger.read(|state| {
            state.savepoints.values().filter(|savepoint| savepoint.manifest.starts_with(&folder)).cloned().collect()
        });
        let objects = &self.host.objects;
        manifest::forget(objects, place, u64::MAX, &pinned.iter().map(|savepoint| savepoint.checkpoint).collect())
            .await;
        let mut named = BTreeSet::new();
        for savepoint in pinned {
            match manifest::load(objects, &savepoint.manifest).await {
                Ok(checkpoint) => named.extend(checkpoint.blocks),
                // Better too much stays than too little.
                Err(problem) => return tracing::warn!(%problem, job = %place.job, "manifest of a savepoint not read"),
            }
        }
        manifest::forget_blocks(objects, place, &named).await;
        if named.is_empty() {
            manifest::forget_ended(objects, place).await;
        }
    }
}
