//! What the job manager is told of a task, beside the task, which does not wait for it.

use std::time::Duration;

use bus::{Bus, SystemClock};
use tracing::{info, warn};
use types::{Clock, ReplicaId};
use wire::{
    job_manager::{ReportTask, TaskReport},
    task_worker::{FiguresTold, WorkerFigures},
};

use crate::{metrics::Board, retry::persist};

/// Between two reports of figures.
const FIGURES_EACH: Duration = Duration::from_secs(1);

/// How long a report is repeated; afterwards the job manager learns it when it deploys the attempt again.
const REPORT_WITHIN: Duration = Duration::from_secs(300);

/// Reports in the background.
pub(crate) fn tell(bus: &Bus, report: TaskReport) {
    let bus = bus.clone();
    drop(tokio::spawn(async move {
        let reported = persist("reporting a task", || bus.call::<ReportTask>(&(), &report));
        match tokio::time::timeout(REPORT_WITHIN, reported).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => info!(job = %report.job, error = %error.reason(), "task report is not wanted"),
            Err(_) => warn!(job = %report.job, "task report given up"),
        }
    }));
}

/// Tells the figures of all tasks each second, while there are any, until it is dropped.
pub(crate) async fn figures(bus: Bus, replica: ReplicaId, board: Board) {
    let mut each = tokio::time::interval(FIGURES_EACH);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        let tasks = board.read(SystemClock.now());
        if !tasks.is_empty() {
            bus.tell::<FiguresTold>(&replica, &WorkerFigures { replica: replica.clone(), tasks }).await;
        }
    }
}
