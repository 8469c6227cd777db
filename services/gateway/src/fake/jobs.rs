//! What is known of jobs besides that they run.

use parking_lot::Mutex;
use serde_json::json;
use types::{JobId, Timestamp};
use wire::{
    Problem,
    job_manager::{CheckpointHistory, JobDescription, JobExceptions, JobPlan, Savepoint, SavepointName},
};

use crate::fake::{Fake, NOW_MS};

/// Of every job the same.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) checkpoints: Mutex<CheckpointHistory>,
    pub(crate) exceptions: Mutex<JobExceptions>,
    pub(crate) savepoints: Mutex<Vec<Savepoint>>,
}

impl Orders {
    /// Two vertices, one edge.
    pub(crate) fn plan(&self) -> JobPlan {
        let graph = json!({
            "vertices": [
                {"uid": "0123456789abcdef", "name": "source", "parallelism": 2, "operators": [{"source": {"index": "shop", "delay": "5s"}}]},
                {"uid": "fedcba9876543210", "name": "window", "parallelism": 2, "operators": [{"sink_index": {"index": "sums"}}]},
            ],
            "edges": [{"from": 0, "to": 1, "partition": {"hash": {"columns": ["service"]}}}],
        });
        JobPlan { graph: graph.to_string(), text: "0 source x2\n1 window x2\n".to_owned() }
    }

    /// The savepoint of that name.
    pub(crate) fn take(&self, name: &SavepointName) -> Savepoint {
        let mut savepoints = self.savepoints.lock();
        if let Some(known) = savepoints.iter().find(|known| known.name == *name) {
            return known.clone();
        }
        let taken = Timestamp::from_millis(NOW_MS);
        let savepoint = Savepoint { name: name.clone(), checkpoint: 7, taken, bytes: 12, manifest: "m".to_owned() };
        savepoints.push(savepoint.clone());
        savepoint
    }
}

impl Fake {
    pub(super) fn change_job(
        &self,
        job: &JobId,
        change: impl FnOnce(&mut JobDescription),
    ) -> Result<JobDescription, Problem> {
        let mut jobs = self.jobs.lock();
        let known = jobs.iter_mut().find(|known| known.job == *job);
        let known = known.ok_or_else(|| Problem::not_found("UnknownJob", format_args!("there is no job {job}")))?;
        change(known);
        Ok(known.clone())
    }
}
