//! One installation for all tests that break nothing.

use std::sync::{Arc, Weak};

use client::Client;
use logboom_tests::{Cluster, Options, Streams};
use tokio::sync::Mutex;

/// Minutes of automatic scaling last 200 ms, retention is looked after three times a second.
pub(crate) const HASTE: &[&str] = &[
    "common.lease_ttl=1s",
    "coordinator.member_timeout=1s",
    "coordinator.rebalance_min_interval=100ms",
    "coordinator.autoscale_minute=200ms",
    "coordinator.retention_interval=300ms",
    "segment_store.load_interval=100ms",
    "segment_store.flush_interval=500ms",
    "segment_store.flush_bytes=64KiB",
    "segment_store.garbage_delay=1s",
];

/// An installation that lives as long as a test uses it.
pub(crate) async fn installation() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let started = Arc::new(Cluster::start_with(Options::storage(1, 2).set(HASTE)).await.unwrap());
    *shared = Arc::downgrade(&started);
    started
}

/// A stream of its own on the shared installation.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) streams: Streams,
    pub(crate) cluster: Arc<Cluster>,
}

impl Stage {
    pub(crate) async fn new(index: &str, segments: u16) -> Self {
        let cluster = installation().await;
        let client = cluster.client("gateway/segments").await.unwrap();
        let bus = cluster.bus("gateway/segments").await.unwrap();
        let streams = Streams::create(&bus, index, segments).await.unwrap();
        Self { client, streams, cluster }
    }
}

/// The same on an installation that the test may break.
pub(crate) async fn on(cluster: &Cluster, index: &str, segments: u16) -> (Client, Streams) {
    let client = cluster.client("gateway/segments").await.unwrap();
    let bus = cluster.bus("gateway/segments").await.unwrap();
    (client, Streams::create(&bus, index, segments).await.unwrap())
}
