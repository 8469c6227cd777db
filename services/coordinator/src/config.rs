//! The coordinator's section of the settings; meaning, unit and bounds stand in `default.toml`.

use std::time::Duration;

use serde::Deserialize;
use settings::{Findings, Secret, SecretRef, Section};
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
    /// How long the table of a lookup stays that no item names any more.
    pub library_delay: DurationText,
    /// How long a delegation of a program outside the platform holds.
    pub delegation_lifetime: DurationText,
    /// Address of the REST interface; empty is off.
    pub rest_address: String,
    /// Users of the REST interface and what they may do; empty lets nobody in.
    pub rest_password_file: Secret,
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
        found.require(within(self.library_delay, 1_000, 86_400_000), "library_delay", "must be from 1s to 24h");
        found.require(
            within(self.delegation_lifetime, 10_000, 3_600_000),
            "delegation_lifetime",
            "must be from 10s to 1h",
        );
        let socket = self.rest_address.is_empty() || self.rest_address.parse::<std::net::SocketAddr>().is_ok();
        found.require(socket, "rest_address", "must be an address and a port, for example 0.0.0.0:7703, or empty");
        let file = !matches!(self.rest_password_file.reference(), Some(SecretRef::Env(_)));
        found.require(file, "rest_password_file", "must be file:PATH: it is read again when it changes");
        let served = self.rest_password_file.reference().is_none() || !self.rest_address.is_empty();
        found.require(served, "rest_password_file", "is read by the REST interface only: set rest_address too");
    }
}
