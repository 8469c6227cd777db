//! The `[task_worker]` section.

use std::net::SocketAddr;

use serde::Deserialize;
use settings::Secret;

/// Settings of the task worker; meaning, unit and bounds of each stand in `deploy/settings/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the probes; empty is off.
    pub probe_address: String,
    /// Tasks that run at the same time; one slot holds one subtask of each vertex of a job.
    pub slots: u16,
    /// Address that the exchange listens on.
    pub exchange_address: String,
    /// Address that other workers are told; empty is the bound one.
    pub exchange_advertise: String,
    /// The directory below which jobs read and write files; empty is none.
    pub files_dir: String,
    /// Credentials with which jobs read and write streams of JetStream; none: they may not.
    pub jetstream_creds: Secret,
    /// URL prefixes, separated by commas, below which jobs may post rows; empty is none.
    pub http_prefixes: String,
    /// Authorities that are believed there besides the system's; empty names none.
    pub http_ca: String,
    /// The directory of secrets that headers of jobs may name; empty is none.
    pub http_headers_dir: String,
}

impl Config {
    /// Where the exchange listens, and what others are told where that differs.
    ///
    /// Errors: the text that is no address.
    pub(crate) fn addresses(&self) -> Result<(SocketAddr, Option<SocketAddr>), String> {
        let read = |text: &str| {
            text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is not an address like 10.0.0.7:7702"))
        };
        let advertise = self.exchange_advertise.as_str();
        Ok((read(&self.exchange_address)?, (!advertise.is_empty()).then(|| read(advertise)).transpose()?))
    }
}

impl settings::Section for Config {
    const NAME: &'static str = "task_worker";

    fn validate(&self, found: &mut settings::Findings) {
        found.range("slots", self.slots, 1..=256);
        let shape = "must be ip:port, for example 10.0.0.7:7702";
        let bound = self.exchange_address.parse::<SocketAddr>();
        found.require(bound.is_ok(), "exchange_address", shape);
        let told = self.exchange_advertise.parse::<SocketAddr>();
        found.require(self.exchange_advertise.is_empty() || told.is_ok(), "exchange_advertise", shape);
        if let Err(problem) = crate::sink::prefixes(&self.http_prefixes) {
            found.require(false, "http_prefixes", &problem);
        }
        let reachable = !self.exchange_advertise.is_empty() || !bound.is_ok_and(|a| a.ip().is_unspecified());
        found.require(reachable, "exchange_advertise", "name the address under which others reach exchange_address");
    }
}

#[cfg(test)]
mod tests {
    use settings::{Layers, Settings};

    use super::*;

    fn read(set: &[&str]) -> Result<Config, settings::Findings> {
        let set = set.iter().map(|&one| one.to_owned()).collect();
        Settings::load(Layers { set, ..Layers::default() })?.section()
    }

    #[test]
    fn the_defaults_are_valid_and_complete() {
        let config = read(&[]).unwrap();
        assert_eq!(config.slots, 8);
        assert_eq!(config.addresses().unwrap().1, None);
    }

    #[test]
    fn an_address_that_nobody_can_reach_is_found() {
        for (set, wrong) in [
            (vec!["task_worker.exchange_address=0.0.0.0:7702"], "exchange_advertise"),
            (vec!["task_worker.exchange_address=here"], "exchange_address"),
            (vec!["task_worker.exchange_advertise=pod-1"], "exchange_advertise"),
            (vec!["task_worker.slots=0"], "slots"),
            (vec!["task_worker.http_prefixes=https://a/, hooks"], "http_prefixes"),
            (vec!["task_worker.http_prefixes=ftp://a/"], "http_prefixes"),
        ] {
            let found = read(&set).unwrap_err().to_string();
            assert!(found.contains(wrong), "{found}");
        }
        let set = ["task_worker.exchange_address=0.0.0.0:7702", "task_worker.exchange_advertise=10.0.0.7:7702"];
        assert!(read(&set).unwrap().addresses().unwrap().1.is_some());
    }
}
