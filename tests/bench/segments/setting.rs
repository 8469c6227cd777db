//! An installation of what keeps streams, and the meter of everything in it.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use client::{Client, EventWriter, WriterOptions};
use logboom_tests::{Cluster, Options, Streams, patiently, usage};
use tokio::time::Instant;
use types::{IndexName, RoutingKey};
use wire::coordinator::{DeleteStream, StreamName};

/// Routing keys of a producer.
const KEYS: usize = 64;

/// One coordinator, some stores, one nats-server that syncs at every write.
pub(crate) struct Setting {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) bus: bus::Bus,
}

impl Setting {
    pub(crate) async fn start(stores: u8, set: &[&str]) -> Result<Self> {
        let cluster = Cluster::start_with(Options::storage(1, stores).set(set)).await?;
        let (client, bus) = (cluster.client("bench").await?, cluster.bus("bench").await?);
        Ok(Self { cluster, client, bus })
    }

    /// A stream, and a writer of it with room for everything that a figure writes at once.
    pub(crate) async fn stream(&self, index: &str, segments: u16) -> Result<EventWriter> {
        Streams::create(&self.bus, index, segments).await?;
        let options = WriterOptions { bytes_max: 64 << 20, ..WriterOptions::new("bench".parse()?) };
        Ok(self.client.event_writer(index.parse()?, options).await?)
    }

    pub(crate) async fn delete(&self, index: &str) -> Result<()> {
        let name = StreamName { index: index.parse::<IndexName>()? };
        patiently::<DeleteStream>(&self.bus, &(), &name).await?;
        Ok(())
    }

    /// CPU time of this process, the stores, the coordinator and the nats-server, and their memory.
    pub(crate) fn used(&mut self) -> Result<(u64, u64)> {
        let mut pids = vec![std::process::id()];
        pids.extend(self.cluster.nats.pid(0));
        for name in self.cluster.replicas() {
            pids.extend(self.cluster.process(&name).map(|process| process.pid()));
        }
        let mut sum = (0, 0);
        for pid in pids {
            let used = usage(pid)?;
            sum = (sum.0 + used.cpu_micros, sum.1 + used.rss_kib);
        }
        Ok(sum)
    }
}

/// Wall and CPU time of everything, this process included.
pub(crate) struct Span {
    begun: Instant,
    cpu: u64,
}

impl Span {
    pub(crate) fn begin(setting: &mut Setting) -> Result<Self> {
        Ok(Self { cpu: setting.used()?.0, begun: Instant::now() })
    }

    /// Wall time, and CPU microseconds.
    pub(crate) fn end(&self, setting: &mut Setting) -> Result<(Duration, f64)> {
        let wall = self.begun.elapsed();
        Ok((wall, (setting.used()?.0 - self.cpu) as f64))
    }
}

pub(crate) fn keys() -> Vec<RoutingKey> {
    (0..KEYS).filter_map(|n| RoutingKey::new(&format!("cart-{n}")).ok()).collect()
}

/// Log lines of exactly `bytes`, a thousand different ones.
pub(crate) fn lines(bytes: usize) -> Vec<Bytes> {
    let line = |n: usize| {
        let head = format!("{{\"level\":\"info\",\"msg\":\"order {n} was paid\",\"fill\":\"");
        let fill = bytes.saturating_sub(head.len() + 2);
        Bytes::from(format!("{head}{}\"}}", "x".repeat(fill)))
    };
    (0..1_000).map(line).collect()
}
