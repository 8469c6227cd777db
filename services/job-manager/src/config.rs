//! The `[job_manager]` section.

use serde::Deserialize;
use types::DurationText;

/// Task workers at most, in every setting.
const WORKERS_MAX: u32 = 1_000;

/// Settings of the job manager; meaning, unit and bounds of each stand in `deploy/settings/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Time between two checkpoints of a job.
    pub checkpoint_interval: DurationText,
    /// Time after which an incomplete checkpoint is given up.
    pub checkpoint_timeout: DurationText,
    /// Complete checkpoints of a job that are kept.
    pub checkpoints_kept: u8,
    /// Restarts without a complete checkpoint between them.
    pub restarts_max: u32,
    /// What gives more task workers.
    pub resources: Resources,
    /// Kubeconfig; empty is the pod's ServiceAccount.
    pub resources_kubeconfig: String,
    /// The StatefulSet of the task workers.
    pub resources_stateful_set: String,
    /// Fewest task workers.
    pub resources_workers_min: u32,
    /// Most task workers.
    pub resources_workers_max: u32,
    /// Pause between two changes.
    pub resources_cooldown: DurationText,
    /// Time for which fewer must be wanted.
    pub resources_shrink_after: DurationText,
}

/// What gives the job manager more task workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resources {
    /// Nobody: their number is somebody else's.
    None,
    /// The API server of a Kubernetes cluster.
    Kubernetes,
}

impl settings::Section for Config {
    const NAME: &'static str = "job_manager";

    fn validate(&self, found: &mut settings::Findings) {
        let ms = |d: DurationText| u64::try_from(d.0.as_millis()).unwrap_or(u64::MAX);
        found.range("checkpoint_interval", ms(self.checkpoint_interval), 100..=3_600_000);
        found.range("checkpoint_timeout", ms(self.checkpoint_timeout), 1_000..=3_600_000);
        found.range("checkpoints_kept", usize::from(self.checkpoints_kept), 1..=crate::history::CHECKPOINTS_MAX);
        found.range("restarts_max", self.restarts_max, 0..=1_000_000);
        found.require(!self.resources_stateful_set.is_empty(), "resources_stateful_set", "must not be empty");
        found.range("resources_workers_min", self.resources_workers_min, 1..=WORKERS_MAX);
        found.range("resources_workers_max", self.resources_workers_max, self.resources_workers_min..=WORKERS_MAX);
        found.range("resources_cooldown", ms(self.resources_cooldown), 1_000..=3_600_000);
        found.range("resources_shrink_after", ms(self.resources_shrink_after), 1_000..=86_400_000);
    }
}
