//! What the job manager is told of a task, beside the task, which does not wait for it.

use std::time::Duration;

use bus::Bus;
use tracing::{info, warn};
use wire::job_manager::{ReportTask, TaskReport};

use crate::retry::persist;

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
