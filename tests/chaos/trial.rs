//! One seed: a stream of its own, its faults under load, and the debts afterwards.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use client::Client;
use logboom_tests::{Cluster, Options, Streams, Tmpfs, Walker, Workdir, eventually};
use tokio::time::sleep;
use types::KeyRange;

use crate::{
    promise::Promises,
    schedule::{Fault, REPLICAS, Schedule, Victim},
    traffic::Traffic,
};

/// How long everything may take to be whole again.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// How long a store has to come to the step at which it dies.
const CRASH_WITHIN: Duration = Duration::from_secs(4);
/// Traffic before the first fault and after the last.
const CALM: Duration = Duration::from_millis(500);
/// Object storage of an installation, in MiB.
const OBJECTS_MEBIBYTES: u32 = 256;
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

/// An installation in which trials take place one after another.
pub(crate) struct Arena {
    pub(crate) cluster: Cluster,
    client: Client,
    disk: Option<Tmpfs>,
    // Last: the directory goes after what is mounted in it.
    _dir: Workdir,
}

/// What a trial came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Faults by kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Kinds that this machine does not allow, or that found nothing to strike.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    pub(crate) acknowledged: u64,
    pub(crate) transactions: usize,
    /// For an acknowledgement.
    pub(crate) longest_wait_ms: u64,
    pub(crate) broken: Vec<String>,
    /// When the last fault was over, when everything was whole, and when everything was read and judged.
    pub(crate) struck: Duration,
    pub(crate) healed: Duration,
    pub(crate) took: Duration,
}

impl Arena {
    pub(crate) async fn start(nats_count: usize) -> Result<Self> {
        let dir = Workdir::new("objects")?;
        let disk = Tmpfs::mount(&dir.path().join("objects"), OBJECTS_MEBIBYTES);
        let options = Options {
            objects: disk.as_ref().map(|disk| disk.path().to_owned()),
            ..Options::storage(REPLICAS, REPLICAS)
        };
        let cluster = Cluster::start_with(options.nats(nats_count).set(&HASTE)).await?;
        let client = cluster.client("gateway/chaos").await?;
        Ok(Self { cluster, client, disk, _dir: dir })
    }

    /// Runs one schedule; an error is a broken promise too, of the kind that nothing passes any more.
    pub(crate) async fn run(&mut self, schedule: &Schedule) -> Outcome {
        let begun = Instant::now();
        let mut outcome = Outcome::default();
        if let Err(error) = self.trial(schedule, &mut outcome).await {
            outcome.broken.push(format!("{error:#}"));
        }
        outcome.took = begun.elapsed();
        outcome
    }

    async fn trial(&mut self, schedule: &Schedule, outcome: &mut Outcome) -> Result<()> {
        let begun = Instant::now();
        let bus = self.cluster.bus("gateway/chaos").await?;
        let index = format!("trial-{}", schedule.seed);
        let streams = Streams::create(&bus, &index, 2).await.context("a stream for the trial")?;
        let binding = self.cluster.binding(&index)?;
        let traffic = Traffic::start(&binding, &self.client, &streams, schedule.seed).await?;
        let mut promises = Promises::default();
        sleep(CALM).await;
        for (number, step) in schedule.steps.iter().enumerate() {
            sleep(step.after).await;
            let kind = step.fault.kind();
            let done = self.inject(step.fault, &streams, &traffic, &mut promises).await;
            let done = done.with_context(|| format!("step {number}: {:?}", step.fault))?;
            *if done { &mut outcome.faults } else { &mut outcome.skipped }.entry(kind).or_default() += 1;
            self.cluster.check().with_context(|| format!("after step {number}: {:?}", step.fault))?;
        }
        outcome.struck = begun.elapsed();
        sleep(CALM).await;
        self.whole().await.context("everything is whole again")?;
        outcome.healed = begun.elapsed();
        let longest = traffic.longest.clone();
        let (live, shared) = traffic.finish(&mut promises).await?;
        outcome.longest_wait_ms = longest.millis();
        let again = Walker::from_head(&self.client, &streams).await?.read_all().await.context("read again")?;
        outcome.acknowledged = promises.count();
        outcome.transactions = promises.transactions.len();
        outcome.broken = promises.broken(&live, &again, &shared);
        streams.check_epochs().await?;
        let head = streams.describe().await?.head;
        ensure!(
            promises.head.0.iter().all(|(segment, offset)| head.offset(*segment) >= *offset),
            "the stream was cut off at {:?}, and says that it begins at {head:?}",
            promises.head
        );
        let publisher = binding.publisher().await?;
        let subject = format!("{}.fresh", binding.subject);
        publisher.until_acked(&subject, "fresh", "{\"msg\":\"fresh 0\"}").await.context("a fresh event")?;
        let mut walker = Walker::from_head(&self.client, &streams).await?;
        walker.read_until(|seen| seen.iter().any(|one| one.text == "fresh 0")).await.context("a fresh event")?;
        self.cluster.check()
    }

    /// Lets one thing go wrong and heals it; false if this machine does not allow it.
    async fn inject(
        &mut self,
        fault: Fault,
        streams: &Streams,
        traffic: &Traffic,
        promises: &mut Promises,
    ) -> Result<bool> {
        let ms = Duration::from_millis;
        match fault {
            Fault::Kill { victim, down_ms } => self.kill(victim, ms(down_ms)).await?,
            Fault::Pause { victim, for_ms } | Fault::Zombie { victim, for_ms } => {
                self.pause(victim, ms(for_ms)).await?
            }
            Fault::Crash { store, point, passing } => return self.crash(store, point, passing).await,
            Fault::StepDown { container } => {
                let stream = format!("T1_{container}");
                // In the middle of an election there is nobody to step down.
                eventually("a leader", HEALED_WITHIN, async || self.cluster.nats.step_down(&stream).await).await?;
            }
            Fault::LoseDisk { node } => {
                self.copied().await?;
                self.cluster.nats.wipe(usize::from(node))?;
                self.cluster.nats.restart(usize::from(node)).await?;
                self.copied().await?;
            }
            Fault::DamageBlock { node, container } => {
                self.copied().await?;
                self.cluster.nats.kill(usize::from(node))?;
                // A log that was never written to has no block to damage.
                let damaged = self.cluster.nats.corrupt_block(usize::from(node), &format!("T1_{container}")).is_ok();
                self.cluster.nats.restart(usize::from(node)).await?;
                self.copied().await?;
                return Ok(damaged);
            }
            Fault::ObjectsReadOnly { for_ms } => {
                let Some(disk) = &self.disk else { return Ok(false) };
                disk.read_only().await?;
                sleep(ms(for_ms)).await;
                disk.writable()?;
            }
            Fault::ObjectsFull { for_ms } => {
                let Some(disk) = &self.disk else { return Ok(false) };
                disk.fill().await?;
                sleep(ms(for_ms)).await;
                disk.resize(OBJECTS_MEBIBYTES)?;
            }
            Fault::Split { pick } => drop(streams.split(pick).await?),
            Fault::Merge { pick } => drop(streams.merge(pick).await?),
            Fault::Truncate => truncate(streams, traffic, promises).await?,
        }
        Ok(true)
    }

    async fn kill(&mut self, victim: Victim, down: Duration) -> Result<()> {
        match (victim, victim.replica()) {
            (Victim::Nats(n), _) => {
                self.cluster.nats.kill(usize::from(n))?;
                sleep(down).await;
                self.cluster.nats.restart(usize::from(n)).await
            }
            (_, Some(name)) => {
                self.cluster.kill9(&name)?;
                sleep(down).await;
                // Whether it is ready is asked when all is over: the next fault does not wait for it.
                self.cluster.spawn(&name)
            }
            (_, None) => Ok(()),
        }
    }

    /// Starts a store that will die at a step; false if the trial does not bring it there in time.
    async fn crash(&mut self, store: u8, point: &str, passing: u8) -> Result<bool> {
        let Some(name) = Victim::Store(store).replica() else { return Ok(false) };
        self.cluster.kill9(&name)?;
        self.cluster.spawn_with(&name, &[format!("segment_store.crash_point={point}:{passing}")])?;
        let died = self.cluster.ends_within(&name, CRASH_WITHIN).await?;
        if !died {
            self.cluster.kill9(&name)?;
        }
        self.cluster.spawn(&name)?;
        Ok(died)
    }

    async fn pause(&mut self, victim: Victim, how_long: Duration) -> Result<()> {
        match (victim, victim.replica()) {
            (Victim::Nats(n), _) => {
                self.cluster.nats.pause(usize::from(n))?;
                sleep(how_long).await;
                self.cluster.nats.resume(usize::from(n))
            }
            (_, Some(name)) => {
                self.cluster.pause(&name)?;
                sleep(how_long).await;
                self.cluster.resume(&name)
            }
            (_, None) => Ok(()),
        }
    }

    /// Waits until every stream of JetStream has all its copies.
    async fn copied(&self) -> Result<()> {
        let nats = &self.cluster.nats;
        if nats.count() == 1 {
            return Ok(());
        }
        eventually("every copy", HEALED_WITHIN, async || {
            for stream in nats.streams().await? {
                ensure!(nats.is_whole(&stream).await?, "{stream} is not whole");
            }
            Ok(())
        })
        .await
    }

    async fn whole(&mut self) -> Result<()> {
        self.copied().await?;
        for name in self.cluster.replicas() {
            self.cluster.wait_until_ready(&name).await?;
        }
        Ok(())
    }
}

/// Cuts the stream off where the witness stands, so that nothing is lost that was not seen.
async fn truncate(streams: &Streams, traffic: &Traffic, promises: &mut Promises) -> Result<()> {
    let (cut, past) = {
        let standing = traffic.standing.lock();
        (standing.cut.clone(), standing.past.clone())
    };
    let nodes = streams.nodes().await?;
    let ranges: Vec<KeyRange> = nodes.iter().filter(|n| cut.0.contains_key(&n.segment)).map(|n| n.range).collect();
    ensure!(KeyRange::cover_once(&ranges), "{cut:?} of the witness does not cover the key space once: {ranges:?}");
    streams.truncate(cut.clone()).await?;
    promises.head = cut;
    promises.forgotten = past;
    Ok(())
}
