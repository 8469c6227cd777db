//! The service's settings section.

use std::time::Duration;

use serde::Deserialize;
use settings::{Findings, Secret, Section};
use types::{ByteSize, DurationText};

/// Section `[gateway]`; the meaning, unit and bounds of each field stand in `default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of queries, ingest and the console.
    pub address: String,
    /// Address of the probes; read by the host.
    pub probe_address: String,
    /// Largest body of one ingest request after decompression.
    pub ingest_body_max: ByteSize,
    /// Time after which a query is stopped.
    pub query_timeout: DurationText,
    /// Memory that one query may use.
    pub query_memory: ByteSize,
    /// Rows that one query answers at most.
    pub query_rows_max: usize,
    /// Bytes that one query looks at, at most.
    pub query_scan: ByteSize,
    /// Memory for parts of chunks that were read.
    pub chunk_cache: ByteSize,
    /// Bytes of an index from which its queries run in fragments beside the rows.
    pub fragments_from: ByteSize,
    /// Token that opens everything without a binding.
    pub admin_token: Secret,
    /// Address of syslog over UDP; empty is off.
    pub syslog_udp_address: String,
    /// Address of syslog over TCP; empty is off.
    pub syslog_tcp_address: String,
    /// Address of syslog over TLS; empty is off.
    pub syslog_tls_address: String,
    /// Token for messages of syslog that carry none.
    pub syslog_token: Secret,
    /// Address of gRPC: OTLP and Flight SQL; empty is off.
    pub otlp_grpc_address: String,
}

impl Section for Config {
    const NAME: &'static str = "gateway";

    fn validate(&self, found: &mut Findings) {
        found.require(!self.address.is_empty(), "address", "name an address, for example 127.0.0.1:7700");
        found.range("ingest_body_max", self.ingest_body_max, ByteSize(64 << 10)..=ByteSize(1 << 30));
        let timeout = DurationText(Duration::from_millis(100))..=DurationText(Duration::from_secs(3_600));
        found.range("query_timeout", self.query_timeout, timeout);
        found.range("query_memory", self.query_memory, ByteSize(16 << 20)..=ByteSize(1 << 40));
        found.range("query_rows_max", self.query_rows_max, 1..=10_000_000);
        found.range("query_scan", self.query_scan, ByteSize(1 << 20)..=ByteSize(1 << 50));
        found.range("fragments_from", self.fragments_from, ByteSize(0)..=ByteSize(1 << 50));
        found.range("chunk_cache", self.chunk_cache, ByteSize(1 << 20)..=ByteSize(1 << 40));
    }
}

#[cfg(test)]
mod tests {
    use settings::{Layers, Settings};

    use super::*;

    #[test]
    fn the_defaults_are_valid_and_bounds_are_told() {
        let section = Settings::load(Layers::default()).unwrap().section::<Config>().unwrap();
        assert_eq!((section.query_rows_max, section.ingest_body_max), (100_000, ByteSize(32 << 20)));
        let set = ["gateway.query_rows_max=0", "gateway.query_timeout=1ms", "gateway.address="].map(str::to_owned);
        let wrong = Settings::load(Layers { set: set.to_vec(), ..Layers::default() }).unwrap();
        let found = wrong.section::<Config>().unwrap_err().to_string();
        for key in ["gateway.query_rows_max", "gateway.query_timeout", "gateway.address"] {
            assert!(found.contains(key), "{found}");
        }
    }
}
