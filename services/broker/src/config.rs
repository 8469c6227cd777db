//! The broker's section of the settings; meaning, unit and bounds stand in `default.toml`.

use actix_web::http::Uri;
use serde::Deserialize;
use settings::{Findings, Secret, Section};
use types::{ByteSize, DurationText};

/// Namespaces that the operator serves one by one: each has three watches of its own.
const OPERATED_MAX: usize = 64;

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
    /// Names of the offerings that are offered, separated by commas; empty is all.
    pub offerings: String,
    /// How often files are looked at again.
    pub reload_interval: DurationText,
    /// How often the provisioner is asked what it has.
    pub reconcile_interval: DurationText,
    /// User name that the platform must present.
    pub username: String,
    /// Password that the platform must present.
    pub password: Secret,
    /// Further credentials, one a line.
    pub credentials: Secret,
    /// Keys that seal secret parameters; the first seals, all open.
    pub sealing_keys: Secret,
    /// Base URL of the gateway as applications reach it.
    pub gateway_url: String,
    /// Host and port of the gateway's gRPC as applications reach it; empty is none.
    pub grpc_public_address: String,
    /// NATS URL as applications reach it.
    pub nats_public_url: String,
    /// How long the audit is kept.
    pub audit_retention: DurationText,
    /// Bytes of the audit that are kept.
    pub audit_bytes_max: ByteSize,
    /// Whether `LogIndex` and `LogBinding` objects of a cluster are served.
    pub operator: bool,
    /// Their namespaces, separated by commas; empty is all.
    pub operator_namespaces: String,
    /// Kubeconfig of the operator; empty is the pod's ServiceAccount.
    pub operator_kubeconfig: String,
    /// The shortest `ttl` of a `LogBinding`.
    pub operator_ttl_min: DurationText,
    /// How long credentials work on after others have taken their place in the Secret.
    pub operator_grace: DurationText,
}

impl Config {
    /// The names of the offerings that are offered; none are all.
    pub(crate) fn offered(&self) -> Vec<String> {
        list(&self.offerings).collect()
    }

    /// The namespaces that the operator serves; none are all.
    pub(crate) fn operated(&self) -> Vec<String> {
        list(&self.operator_namespaces).collect()
    }
}

fn list(names: &str) -> impl Iterator<Item = String> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Whether it is all of a URL between scheme and path: drivers are given it as one.
fn is_host_and_port(address: &str) -> bool {
    let Ok(uri) = format!("http://{address}").parse::<Uri>() else { return false };
    let whole = uri.authority().is_some_and(|authority| authority.as_str() == address);
    // A number may be written with a sign, a port may not.
    let port = uri.port().is_some_and(|port| port.as_u16() > 0 && !port.as_str().starts_with('+'));
    whole && port && !address.contains('@') && uri.host().is_some_and(|host| !host.is_empty())
}

impl Section for Config {
    const NAME: &'static str = "broker";

    fn validate(&self, found: &mut Findings) {
        let socket = self.address.parse::<std::net::SocketAddr>().is_ok();
        found.require(socket, "address", "must be an address and a port, for example 0.0.0.0:7701");
        found.require(!self.username.is_empty(), "username", "must not be empty");
        found.require(!self.username.contains(':'), "username", "must not contain a colon: HTTP basic cannot carry it");
        let hour = std::time::Duration::from_secs(3600);
        found.require(self.audit_retention.0 >= hour, "audit_retention", "must be 1h or more");
        found.require(self.audit_bytes_max.0 >= 1 << 20, "audit_bytes_max", "must be 1MiB or more");
        let (shortest, longest) = (std::time::Duration::from_millis(100), hour);
        let often = (shortest..=longest).contains(&self.reload_interval.0);
        found.require(often, "reload_interval", "must be from 100ms to 1h");
        let often = (shortest..=longest).contains(&self.reconcile_interval.0);
        found.require(often, "reconcile_interval", "must be from 100ms to 1h");
        let namespaces = self.operated().len();
        found.require(namespaces <= OPERATED_MAX, "operator_namespaces", "must be 64 or fewer; leave it empty for all");
        let ttl = (std::time::Duration::from_secs(1)..=24 * hour).contains(&self.operator_ttl_min.0);
        found.require(ttl, "operator_ttl_min", "must be from 1s to 24h");
        found.require(self.operator_grace.0 <= 24 * hour, "operator_grace", "must be 24h or less");
        let http = self.gateway_url.starts_with("http://") || self.gateway_url.starts_with("https://");
        found.require(http, "gateway_url", "must begin with http:// or https://");
        let grpc = self.grpc_public_address.is_empty() || is_host_and_port(&self.grpc_public_address);
        found.require(grpc, "grpc_public_address", "must be a host and a port, for example logs.example.com:4317");
        found.require(
            !self.nats_public_url.is_empty(),
            "nats_public_url",
            "name the servers as applications reach them",
        );
    }
}

#[cfg(test)]
mod tests {
    use settings::{Layers, Settings};

    use super::*;

    fn is_taken(address: &str) -> bool {
        let set = vec![format!("broker.grpc_public_address={address}")];
        let settings = Settings::load(Layers { set, ..Layers::default() }).unwrap();
        match settings.section::<Config>() {
            Ok(_) => true,
            Err(found) => !found.to_string().contains("broker.grpc_public_address"),
        }
    }

    #[test]
    fn the_address_of_grpc_is_a_host_and_a_port() {
        for address in ["", "logs.example.com:4317", "localhost:1", "10.0.0.1:65535", "[::1]:4317", "Logs:4317"] {
            assert!(is_taken(address), "{address}");
        }
        for address in [
            "logs.example.com",
            "h:",
            ":4317",
            "h:0",
            "h:65536",
            "h:+1",
            "h:x",
            "::1:4317",
            "[::1:4317",
            "a b:1",
            "u@h:1",
            "u:p@h:1",
            "h?x:1",
            "h:1?x",
            "h:1#x",
            "h/x:1",
            "h:1/",
            "http://h:1",
        ] {
            assert!(!is_taken(address), "{address}");
        }
    }
}
