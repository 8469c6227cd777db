//! How an installation of processes differs from the usual one.

use std::{path::PathBuf, sync::Arc};

use testkit::Bucket;
use wire::Service;

/// How an installation differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Settings of every service (`section.key=value`).
    pub set: Vec<String>,
    /// nats-servers: 1, or 3 that keep everything three times.
    pub nats_count: usize,
    /// Where the first nats-server keeps JetStream's files instead of its own directory.
    pub store_dir: Option<PathBuf>,
    /// When JetStream syncs its files.
    pub sync_interval: String,
    /// Requests to JetStream's API that wait at once, before the server drops them all; 0 is its own 10 000.
    pub api_queue_max: u32,
    /// Lines for the configuration of every nats-server.
    pub nats_config: String,
    /// Where chunks and snapshots are kept instead of the installation's directory.
    pub objects: Option<PathBuf>,
    /// A bucket for chunks and snapshots instead of any directory.
    pub bucket: Option<Arc<Bucket>>,
    /// Whether every network link may be cut and every service's clock be set wrong.
    pub fragile: bool,
    /// Which services run, and how many replicas of each: `a`, `b`, …
    pub services: Vec<(Service, u8)>,
}

impl Default for Options {
    /// Everything once, with two segment-stores and two task-workers.
    fn default() -> Self {
        let two = |service| matches!(service, Service::SegmentStore | Service::TaskWorker);
        let services = Service::ALL.into_iter().map(|service| (service, 1 + u8::from(two(service)))).collect();
        Self {
            set: Vec::new(),
            nats_count: 1,
            store_dir: None,
            sync_interval: "always".to_owned(),
            api_queue_max: 0,
            nats_config: String::new(),
            objects: None,
            bucket: None,
            fragile: false,
            services,
        }
    }
}

impl Options {
    /// Every service once.
    pub fn one_each() -> Self {
        Self { services: Service::ALL.into_iter().map(|service| (service, 1)).collect(), ..Self::default() }
    }

    /// Only what keeps streams: so many coordinators and segment-stores.
    pub fn storage(coordinators: u8, stores: u8) -> Self {
        let services = vec![(Service::Coordinator, coordinators), (Service::SegmentStore, stores)];
        Self { services, ..Self::default() }
    }

    /// Only so many brokers; what stands behind them is the test's.
    pub fn brokers(count: u8) -> Self {
        Self { services: vec![(Service::Broker, count)], ..Self::default() }
    }

    /// With these settings.
    pub fn set(mut self, set: &[&str]) -> Self {
        self.set.extend(set.iter().map(|&one| one.to_owned()));
        self
    }

    /// With so many nats-servers.
    pub fn nats(mut self, count: usize) -> Self {
        self.nats_count = count;
        self
    }
}
