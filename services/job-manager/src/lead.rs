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
use tokio_util::sync::CancellationToken;
use types::JobId;
use wire::{
    Empty, Problem, Service,
    job_manager::{CancelJob, DescribeJob, ListJobs, ReportCheckpoint, ReportTask, SubmitJob},
    views::MEMBERS,
};

use crate::{
    actor::Desk,
    config::Config,
    driver::{Driver, REPORTS_MAX, Report},
    manifest, metrics,
    state::State,
};

/// How often jobs and drivers are compared even if nobody calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The running drivers and the way to reach them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drivers {
    reports: Arc<Mutex<BTreeMap<JobId, mpsc::Sender<Report>>>>,
    changed: Arc<Notify>,
}

impl Drivers {
    /// Says that jobs changed.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Hands a report to the driver of its job; a job that is over has none, and its tasks may forget it.
    pub(crate) fn tell(&self, job: &JobId, report: Report) -> Result<Empty, Problem> {
        let Some(sender) = self.reports.lock().get(job).cloned() else { return Ok(Empty {}) };
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
        ];
        tracing::info!("job manager leads");
        // Drivers end with this guard, also when the future is dropped.
        let stop = token.child_token();
        let _guard = stop.clone().drop_guard();
        let mut running: BTreeMap<JobId, (u64, tokio::task::JoinHandle<()>)> = BTreeMap::new();
        while !token.is_cancelled() {
            self.compare(&mut running, &members, &stop).await;
            tokio::select! {
                () = token.cancelled() => {}
                () = self.drivers.changed.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        drop(open);
        Ok(())
    }

    /// Starts a driver for each live job without one, and clears up after those that are over.
    async fn compare(
        &self,
        running: &mut BTreeMap<JobId, (u64, tokio::task::JoinHandle<()>)>,
        members: &bus::Bucket,
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
            self.drivers.reports.lock().remove(&job);
            if live.get(&job) != Some(&submission) {
                manifest::forget_all(&self.host.objects, manifest::Place { job: &job, submission }).await;
            }
        }
        for (job, submission) in live {
            if running.contains_key(&job) {
                continue;
            }
            let (sender, reports) = mpsc::channel(REPORTS_MAX);
            self.drivers.reports.lock().insert(job.clone(), sender);
            let driver = Driver {
                job: job.clone(),
                ledger: self.ledger.clone(),
                bus: self.host.bus.clone(),
                members: members.clone(),
                objects: self.host.objects.clone(),
                client: self.client.clone(),
                placed: None,
                config: self.config.clone(),
                reports,
                stop: stop.clone(),
            };
            running.insert(job, (submission, tokio::spawn(driver.run())));
        }
    }
}
