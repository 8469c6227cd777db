//! The `[alerter]` section.

use serde::Deserialize;
use types::DurationText;

/// Settings of the alerter; meaning, unit and bounds of each stand in `deploy/settings/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Time that a receiver has to answer.
    pub webhook_timeout: DurationText,
    /// Authorities that are believed at receivers besides the system's; empty names none.
    pub webhook_ca: String,
    /// Attempts for one notification.
    pub webhook_attempts_max: u32,
}

impl settings::Section for Config {
    const NAME: &'static str = "alerter";

    fn validate(&self, found: &mut settings::Findings) {
        let ms = u64::try_from(self.webhook_timeout.0.as_millis()).unwrap_or(u64::MAX);
        found.range("webhook_timeout", ms, 100..=60_000);
        found.range("webhook_attempts_max", u64::from(self.webhook_attempts_max), 1..=10_000);
    }
}
