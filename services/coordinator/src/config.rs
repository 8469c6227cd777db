//! The coordinator's section of the settings; meaning, unit and bounds stand in `default.toml`.

use std::time::Duration;

use serde::Deserialize;
use settings::{Findings, Section};
use types::DurationText;

/// `[coordinator]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Silence after which a segment-store replica counts as gone.
    pub member_timeout: DurationText,
    /// Shortest time between two rebalancings.
    pub rebalance_min_interval: DurationText,
    /// How often streams are kept within their retention policies.
    pub retention_interval: DurationText,
    /// How long a minute of the rules of automatic scaling lasts.
    pub autoscale_minute: DurationText,
}

impl Section for Config {
    const NAME: &'static str = "coordinator";

    fn validate(&self, found: &mut Findings) {
        let within = |value: DurationText, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&value.0)
        };
        found.require(within(self.member_timeout, 1_000, 60_000), "member_timeout", "must be from 1s to 60s");
        let fits = within(self.rebalance_min_interval, 100, 3_600_000);
        found.require(fits, "rebalance_min_interval", "must be from 100ms to 1h");
        let fits = within(self.retention_interval, 100, 86_400_000);
        found.require(fits, "retention_interval", "must be from 100ms to 24h");
        found.require(within(self.autoscale_minute, 60, 3_600_000), "autoscale_minute", "must be from 60ms to 1h");
    }
}
