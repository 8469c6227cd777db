//! An installation in which trials take place one after another, and how it becomes whole again.

use std::{
    path::PathBuf,
    pin::pin,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use client::Client;
use logboom_tests::{Bucket, BucketFaults, Cluster, Options, Tmpfs, Workdir, eventually};
use tokio::time::sleep;

use crate::{
    schedule::{Ground, REPLICAS},
    trial::Outcome,
};

/// How long everything may take to be whole again.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// How long a store has to come to the step at which it dies.
const CRASH_WITHIN: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Object storage of an installation, in MiB.
pub(crate) const OBJECTS_MEBIBYTES: u32 = 256;
/// The disk of JetStream, in MiB.
pub(crate) const JETSTREAM_MEBIBYTES: u32 = 1_024;
/// Requests to JetStream's API that may wait: few, so that a flood is a small one.
const API_QUEUE: u32 = 256;
/// Short leases, small chunks and many snapshots, so that seconds are enough for everything to happen.
const HASTE: [&str; 8] = [
    "common.lease_ttl=1s",
    "common.snapshot_interval=1s",
    "coordinator.member_timeout=1s",
    "coordinator.rebalance_min_interval=100ms",
    "segment_store.flush_interval=300ms",
    "segment_store.flush_bytes=64KiB",
    "segment_store.snapshot_frames=40",
    "common.log_filter=info",
];

/// A running installation and the disks and buckets below it.
pub(crate) struct Arena {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) objects: Option<Tmpfs>,
    pub(crate) jetstream: Option<Tmpfs>,
    pub(crate) bucket: Option<Arc<Bucket>>,
    /// Stores that die by themselves, since when.
    pub(crate) doomed: Vec<(String, Instant)>,
    /// How many have, since it was looked.
    died: u64,
    // Last: the directory goes after what is mounted in it.
    _dir: Workdir,
}

impl Arena {
    pub(crate) async fn start(ground: Ground) -> Result<Self> {
        let dir = Workdir::new("disks")?;
        let disk = |name: &str, mebibytes| Tmpfs::mount(&dir.path().join(name), mebibytes);
        let (mut objects, mut jetstream, mut bucket) = (None, None, None);
        if ground == Ground::Directory {
            objects = disk("objects", OBJECTS_MEBIBYTES);
            jetstream = disk("jetstream", JETSTREAM_MEBIBYTES);
        } else {
            bucket = Some(Bucket::serve().await?);
        }
        let options = Options {
            objects: objects.as_ref().map(|disk| disk.path().to_owned()),
            store_dir: jetstream.as_ref().map(|disk| disk.path().join("n0")),
            bucket: bucket.clone(),
            sync_interval: if ground == Ground::Cluster { "2m" } else { "always" }.to_owned(),
            api_queue_max: API_QUEUE,
            fragile: true,
            ..Options::storage(REPLICAS, REPLICAS)
        };
        let cluster = Cluster::start_with(options.nats(usize::from(ground.nats_count())).set(&HASTE)).await?;
        let client = cluster.client("gateway/chaos").await?;
        Ok(Self { cluster, client, objects, jetstream, bucket, doomed: Vec::new(), died: 0, _dir: dir })
    }

    /// Ends the installation and leaves everything behind; answers where.
    pub(crate) fn keep(self) -> PathBuf {
        let dir = self.cluster.keep();
        for (name, disk) in [("jetstream", &self.jetstream), ("objects", &self.objects)] {
            if let Some(disk) = disk {
                // What cannot be copied is missed by whoever looks for the reason, and by nobody else.
                drop(Command::new("cp").arg("-r").arg(disk.path()).arg(dir.join(name)).output());
            }
        }
        dir
    }

    /// Starts again what has died by itself, as it should.
    pub(crate) fn replace_dead(&mut self) -> Result<()> {
        for (name, since) in std::mem::take(&mut self.doomed) {
            if self.cluster.has_ended(&name)? {
                self.died += 1;
                self.cluster.spawn(&name)?;
            } else {
                self.doomed.push((name, since));
            }
        }
        Ok(())
    }

    /// Waits for what services do, and starts again those that die meanwhile: it may need them.
    pub(crate) async fn with_the_living<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(LOOK_EVERY) => self.replace_dead()?,
            }
        }
    }

    /// Kills a replica; one that was doomed need not die by itself any more.
    pub(crate) fn kill9(&mut self, name: &str) -> Result<()> {
        self.doomed.retain(|(doomed, _)| doomed != name);
        self.cluster.kill9(name)
    }

    /// Waits until every stream of JetStream has all its copies.
    pub(crate) async fn copied(&self) -> Result<()> {
        let nats = &self.cluster.nats;
        if nats.count() == 1 {
            return Ok(());
        }
        eventually("every copy", HEALED_WITHIN, async || nats.all_whole().await).await
    }

    /// Ends what is still to come, and waits until everything works.
    pub(crate) async fn heal(&mut self, outcome: &mut Outcome) -> Result<()> {
        while self.doomed.iter().any(|(_, since)| since.elapsed() < CRASH_WITHIN) {
            self.replace_dead()?;
            sleep(LOOK_EVERY).await;
        }
        (0..std::mem::take(&mut self.died)).for_each(|_| outcome.count("crash at a step", true));
        for (name, _) in std::mem::take(&mut self.doomed) {
            outcome.count("crash at a step", false);
            self.cluster.kill9(&name)?;
            self.cluster.spawn(&name)?;
        }
        if let Some(bucket) = &self.bucket {
            bucket.set(BucketFaults::default());
        }
        self.copied().await?;
        self.cluster.wait_until_all_ready().await
    }
}
