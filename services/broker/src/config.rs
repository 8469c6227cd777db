//! The broker's section of the settings; meaning, unit and bounds stand in `default.toml`.

use serde::Deserialize;
use settings::{Findings, Secret, Section};

/// `[broker]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the Open Service Broker API.
    pub address: String,
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Catalog file; empty is the built-in catalog.
    pub catalog_path: String,
    /// User name that the platform must present.
    pub username: String,
    /// Password that the platform must present.
    pub password: Secret,
    /// Base URL of the gateway as applications reach it.
    pub gateway_url: String,
    /// NATS URL as applications reach it.
    pub nats_public_url: String,
}

impl Section for Config {
    const NAME: &'static str = "broker";

    fn validate(&self, found: &mut Findings) {
        let socket = self.address.parse::<std::net::SocketAddr>().is_ok();
        found.require(socket, "address", "must be an address and a port, for example 0.0.0.0:7701");
        found.require(!self.username.is_empty(), "username", "must not be empty");
        found.require(!self.username.contains(':'), "username", "must not contain a colon: HTTP basic cannot carry it");
        let http = self.gateway_url.starts_with("http://") || self.gateway_url.starts_with("https://");
        found.require(http, "gateway_url", "must begin with http:// or https://");
        found.require(
            !self.nats_public_url.is_empty(),
            "nats_public_url",
            "name the servers as applications reach them",
        );
    }
}
