//! The section that every service shares.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use types::DurationText;

use crate::{Findings, Secret, SecretRef, Section};

/// Format of the log lines of the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What every service shares; the meaning, unit and bounds of each field stand in `default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// NATS servers: one URL or several separated by commas.
    pub nats_url: String,
    /// Credentials of the platform account.
    pub nats_creds: Secret,
    /// Credentials of the tenants account.
    pub tenants_creds: Secret,
    /// Certificate chain of this process; empty listens without TLS.
    pub tls_certificate: String,
    /// Where the certificate's key is.
    pub tls_key: Secret,
    /// The authorities that this process trusts; empty is those of the system.
    pub tls_ca: String,
    /// How often these files are looked at.
    pub tls_reload_interval: DurationText,
    /// Name of this replica; empty takes the host name, else a random one.
    pub replica: String,
    /// Directory of the rebuildable local state.
    pub data_dir: PathBuf,
    /// Object storage as written; [`Common::object_store`] fills in the default.
    pub object_store_url: String,
    /// Master keys, which wrap the keys of encrypted indexes.
    pub encryption_keys: Secret,
    /// Format of the service's own log lines.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// OTLP/gRPC endpoint for traces; empty is off.
    pub otlp_endpoint: String,
    /// JetStream replicas of journals and durable logs.
    pub journal_replicas: u8,
    /// Longest time between two snapshots while the journal moves.
    pub snapshot_interval: DurationText,
    /// Journal events between two snapshots.
    pub snapshot_events: u64,
    /// Whether a service whose journal is new goes on from the newest snapshot of the one before it.
    pub recover_from_snapshot: bool,
    /// Life of a lease without renewal.
    pub lease_ttl: DurationText,
    /// Segment containers of the installation.
    pub container_count: u32,
}

impl Common {
    /// Where objects are stored: the setting, else `objects` below the data directory as a `file:` URL.
    pub fn object_store(&self) -> String {
        match self.object_store_url.as_str() {
            "" => format!("file://{}", self.data_dir.join("objects").display()),
            url => url.to_owned(),
        }
    }

    /// The OTLP endpoint; `None` is off.
    pub fn otlp_endpoint(&self) -> Option<&str> {
        Some(self.otlp_endpoint.as_str()).filter(|url| !url.is_empty())
    }
}

impl Section for Common {
    const NAME: &'static str = "common";

    fn validate(&self, found: &mut Findings) {
        let ms = |n| DurationText(Duration::from_millis(n));
        let token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        found.require(!self.nats_url.is_empty(), "nats_url", "name at least one server, for example nats://nats:4222");
        found.require(self.replica.chars().all(token), "replica", "use only letters, digits, _ and -");
        found.require(!self.data_dir.as_os_str().is_empty(), "data_dir", "name a directory");
        let pair = self.tls_certificate.is_empty() == self.tls_key.reference().is_none();
        found.require(pair, "tls_certificate", "goes with common.tls_key: set both, or neither");
        let is_file = !matches!(self.tls_key.reference(), Some(SecretRef::Env(_)));
        found.require(is_file, "tls_key", "must be file:PATH: it is read again when it changes");
        if !(ms(100)..=ms(3_600_000)).contains(&self.tls_reload_interval) {
            found.add("tls_reload_interval", "must be from 100ms to 1h");
        }
        let url = &self.object_store_url;
        let known = url.is_empty() || url.starts_with("file://") || url.starts_with("s3://");
        found.require(known, "object_store_url", "must be file:///path or s3://bucket/prefix");
        let odd = [1, 3, 5].contains(&self.journal_replicas);
        found.require(odd, "journal_replicas", "must be 1, 3 or 5");
        found.require(self.snapshot_interval >= ms(1_000), "snapshot_interval", "must be at least 1s");
        found.range("snapshot_events", self.snapshot_events, 1..=10_000_000);
        if !(ms(1_000)..=ms(60_000)).contains(&self.lease_ttl) {
            found.add("lease_ttl", "must be from 1s to 60s");
        }
        let fits = self.container_count.is_power_of_two() && self.container_count <= 1024;
        found.require(fits, "container_count", "must be a power of two from 1 to 1024");
    }
}
