//! The provisioner's section of the settings; meaning, unit and bounds stand in `default.toml`.

use serde::Deserialize;
use settings::{Findings, Secret, Section};

/// `[index_provisioner]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Seed of the NATS operator, which signs account changes.
    pub operator_seed: Secret,
    /// Seed of the tenants account, which signs user credentials.
    pub account_seed: Secret,
    /// Credentials of the NATS system account.
    pub system_creds: Secret,
    /// Key from which user keys and tokens are derived.
    pub binding_secret: Secret,
    /// Segments of a new index when nobody names a number.
    pub default_segments: u16,
}

impl Section for Config {
    const NAME: &'static str = "index_provisioner";

    fn validate(&self, found: &mut Findings) {
        let fits = self.default_segments.is_power_of_two() && self.default_segments <= 64;
        found.require(fits, "default_segments", "must be a power of two from 1 to 64");
    }
}
