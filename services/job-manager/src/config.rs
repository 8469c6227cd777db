//! The `[job_manager]` section.

use serde::Deserialize;
use types::DurationText;

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
    /// Restarts without a complete checkpoint between them.
    pub restarts_max: u32,
}

impl settings::Section for Config {
    const NAME: &'static str = "job_manager";

    fn validate(&self, found: &mut settings::Findings) {
        let ms = |d: DurationText| u64::try_from(d.0.as_millis()).unwrap_or(u64::MAX);
        found.range("checkpoint_interval", ms(self.checkpoint_interval), 100..=3_600_000);
        found.range("checkpoint_timeout", ms(self.checkpoint_timeout), 1_000..=3_600_000);
        found.range("restarts_max", self.restarts_max, 0..=1_000_000);
    }
}
