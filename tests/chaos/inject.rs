//! How each fault is done and undone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use logboom_tests::{Backup, BucketFaults, Link, Streams, Tmpfs, Way, eventually};
use tokio::time::sleep;

use crate::{
    arena::{Arena, HEALED_WITHIN, JETSTREAM_MEBIBYTES, OBJECTS_MEBIBYTES},
    fault::{Break, Fault, Fleet, Harm, Outage, Victim},
    promise::Promises,
    schedule::REPLICAS,
    traffic::Traffic,
    trial::truncate,
};

/// A write to a slow disk, and what a process gets done between two of them.
const STUCK: Duration = Duration::from_millis(500);
const BETWEEN: Duration = Duration::from_millis(50);
/// Requests of a flood: several times what may wait.
const FLOOD: usize = 3_000;
/// How long connections are cut in the middle of a recovery.
const BLINK: Duration = Duration::from_millis(50);
/// How long a request waits in a slow bucket.
const SLOW_BUCKET: Duration = Duration::from_millis(700);

impl Arena {
    /// Lets one thing go wrong and heals it. False if this machine does not allow it or it found nothing to strike; `None` if
    /// that is only known later.
    pub(crate) async fn inject(
        &mut self,
        fault: Fault,
        streams: &Streams,
        traffic: &Traffic,
        promises: &mut Promises,
    ) -> Result<Option<bool>> {
        let ms = Duration::from_millis;
        let mut done = true;
        match fault {
            Fault::Kill { victim, down_ms } => self.kill(victim, ms(down_ms)).await?,
            Fault::KillServers { but, down_ms } => self.kill_servers(but, ms(down_ms)).await?,
            Fault::Pause { victim, for_ms } | Fault::Zombie { victim, for_ms } => {
                self.pause(victim, ms(for_ms)).await?;
            }
            Fault::Stutter { victim, for_ms } => {
                let begun = Instant::now();
                while begun.elapsed() < ms(for_ms) {
                    self.pause(victim, STUCK).await?;
                    sleep(BETWEEN).await;
                }
            }
            Fault::Crash { store, point, passing } => {
                self.doom(store, point, passing)?;
                return Ok(None);
            }
            Fault::CutInRecovery { store, after_ms } => self.cut_in_recovery(store, ms(after_ms)).await?,
            Fault::Roll { fleet } => self.roll(fleet).await?,
            Fault::Link { victim, how, for_ms } => break_link(self.link(victim)?, how, ms(for_ms)).await,
            Fault::Part { container, way, for_ms } => self.part(container, way, ms(for_ms)).await?,
            Fault::StepDown { container } => {
                let stream = format!("T1_{container}");
                // In the middle of an election there is nobody to step down.
                eventually("a leader", HEALED_WITHIN, async || self.cluster.nats.step_down(&stream).await).await?;
            }
            Fault::PowerLoss { node, lost_ms } => self.power_loss(usize::from(node), ms(lost_ms)).await?,
            Fault::LoseDisk { node } => {
                self.copied().await?;
                self.cluster.nats.wipe(usize::from(node))?;
                self.cluster.nats.restart(usize::from(node)).await?;
                self.copied().await?;
            }
            Fault::DamageBlock { node, container, short } => done = self.damage(node, container, short).await?,
            Fault::JetStreamFull { for_ms } => done = self.fill_jetstream(ms(for_ms)).await?,
            Fault::FloodApi { node } => {
                done = self.cluster.nats.flood_api(usize::from(node), FLOOD).await?;
            }
            Fault::Reload => self.cluster.nats.reload_tenants().await?,
            Fault::Local { coordinator, harm, for_ms } => done = self.harm(coordinator, harm, ms(for_ms)).await?,
            Fault::Clock { victim, seconds, for_ms } => {
                let name = victim.replica().context("a service has a clock")?;
                self.cluster.set_clock(&name, seconds)?;
                sleep(ms(for_ms)).await;
                self.cluster.set_clock(&name, 0)?;
            }
            Fault::ObjectsReadOnly { for_ms } => {
                let Some(disk) = &self.objects else { return Ok(Some(false)) };
                disk.read_only().await?;
                sleep(ms(for_ms)).await;
                disk.writable()?;
            }
            Fault::ObjectsFull { for_ms } => {
                let Some(disk) = &self.objects else { return Ok(Some(false)) };
                disk.fill().await?;
                sleep(ms(for_ms)).await;
                disk.resize(OBJECTS_MEBIBYTES)?;
            }
            Fault::Bucket { how, for_ms } => {
                let bucket = self.bucket.as_ref().context("the trial has a bucket")?;
                bucket.set(outage(how));
                sleep(ms(for_ms)).await;
                bucket.set(BucketFaults::default());
            }
            Fault::Split { pick } => drop(self.with_the_living(streams.split(pick)).await?),
            Fault::Merge { pick } => drop(self.with_the_living(streams.merge(pick)).await?),
            Fault::Truncate => self.with_the_living(truncate(streams, traffic, promises)).await?,
        }
        Ok(Some(done))
    }

    fn link(&self, victim: Victim) -> Result<&Link> {
        match victim.replica() {
            Some(name) => self.cluster.link(&name),
            None => self.cluster.clients_link(),
        }
    }

    async fn kill(&mut self, victim: Victim, down: Duration) -> Result<()> {
        match (victim, victim.replica()) {
            (Victim::Nats(n), _) => {
                self.cluster.nats.kill(usize::from(n))?;
                sleep(down).await;
                self.cluster.nats.restart(usize::from(n)).await
            }
            (_, Some(name)) => {
                self.kill9(&name)?;
                sleep(down).await;
                // Whether it is ready is asked when all is over: the next fault does not wait for it.
                self.cluster.spawn(&name)
            }
            (_, None) => Ok(()),
        }
    }

    async fn kill_servers(&mut self, but: Option<u8>, down: Duration) -> Result<()> {
        let nats = &mut self.cluster.nats;
        let all: Vec<usize> = (0..nats.count()).filter(|n| Some(*n) != but.map(usize::from)).collect();
        all.iter().try_for_each(|n| nats.kill(*n))?;
        sleep(down).await;
        for n in all {
            nats.restart(n).await?;
        }
        Ok(())
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

    /// Starts a store that will die at a step, while the trial goes on.
    fn doom(&mut self, store: u8, point: &str, passing: u8) -> Result<()> {
        let name = Victim::Store(store).replica().context("a store has a name")?;
        self.kill9(&name)?;
        self.cluster.spawn_doomed(&name, &[format!("segment_store.crash_point={point}:{passing}")])?;
        self.doomed.push((name, Instant::now()));
        Ok(())
    }

    /// The owner of some containers dies; whoever takes them over loses its connections while it reads their logs.
    async fn cut_in_recovery(&mut self, store: u8, after: Duration) -> Result<()> {
        let name = Victim::Store(store).replica().context("a store has a name")?;
        self.kill9(&name)?;
        self.cluster.spawn(&name)?;
        sleep(after).await;
        let links = (0..REPLICAS).map(|n| self.link(Victim::Store(n))).collect::<Result<Vec<_>>>()?;
        links.iter().for_each(|link| link.cut());
        sleep(BLINK).await;
        links.iter().for_each(|link| link.mend());
        Ok(())
    }

    async fn roll(&mut self, fleet: Fleet) -> Result<()> {
        let replica = |n| match fleet {
            Fleet::Coordinators => Victim::Coordinator(n).replica(),
            Fleet::Stores => Victim::Store(n).replica(),
            // Installations of streams alone have none of the last two.
            Fleet::Nats | Fleet::TaskWorkers | Fleet::JobManagers => None,
        };
        for name in (0..REPLICAS).filter_map(replica) {
            let doomed = self.doomed.iter().any(|(doomed, _)| *doomed == name);
            // One that was doomed cannot be asked: it may die any moment.
            if doomed {
                self.kill9(&name)?
            } else {
                self.cluster.terminate(&name).await?
            }
            self.cluster.restart(&name).await?;
        }
        for n in (0..self.cluster.nats.count()).filter(|_| fleet == Fleet::Nats) {
            self.cluster.nats.terminate(n).await?;
            self.cluster.nats.restart(n).await?;
            self.copied().await?;
        }
        Ok(())
    }

    /// Parts the leader of a container's log from the other servers; clients still reach it.
    async fn part(&self, container: u16, way: Option<Way>, how_long: Duration) -> Result<()> {
        let (nats, stream) = (&self.cluster.nats, format!("T1_{container}"));
        let leader = eventually("a leader", HEALED_WITHIN, async || {
            nats.leader_of(&stream).await?.context("nobody leads in the middle of an election")
        })
        .await?;
        for one in [Way::Out, Way::Back].into_iter().filter(|one| way.is_none_or(|way| way == *one)) {
            nats.hold_routes(leader, one);
        }
        sleep(how_long).await;
        nats.mend_routes();
        Ok(())
    }

    /// The machine of a nats-server loses its power: what was not synced is gone.
    async fn power_loss(&mut self, node: usize, lost: Duration) -> Result<()> {
        if self.cluster.nats.count() > 1 {
            return self.forget(node, lost).await;
        }
        // Alone, it syncs before it answers. So nobody is told of anything from here on, and what it writes is lost again.
        self.cluster.links().for_each(|link| link.hold(Way::Back));
        let backup = self.cluster.nats.backup(node)?;
        sleep(lost).await;
        self.cluster.nats.kill(node)?;
        self.cluster.links().for_each(Link::cut);
        backup.put_back()?;
        self.cluster.nats.restart(node).await?;
        self.cluster.links().for_each(Link::mend);
        Ok(())
    }

    /// One of three forgets what it answered for, as one that syncs now and then does. It stays away until the others have
    /// elected leaders without it: a machine boots for longer than that, and its vote is one that it has forgotten.
    async fn forget(&mut self, node: usize, lost: Duration) -> Result<()> {
        self.copied().await?;
        let nats = &mut self.cluster.nats;
        let backup = nats.backup(node)?;
        sleep(lost).await;
        nats.kill(node)?;
        backup.put_back()?;
        let nats = &self.cluster.nats;
        eventually("the others lead", HEALED_WITHIN, async || {
            for stream in nats.streams().await? {
                let leader = nats.leader_of(&stream).await?;
                ensure!(leader.is_some_and(|leader| leader != node), "{stream} is led by {leader:?}");
            }
            Ok(())
        })
        .await?;
        self.cluster.nats.restart(node).await?;
        self.copied().await
    }

    async fn damage(&mut self, node: u8, container: u16, short: bool) -> Result<bool> {
        self.copied().await?;
        let (node, stream) = (usize::from(node), format!("T1_{container}"));
        let nats = &mut self.cluster.nats;
        nats.kill(node)?;
        let block = if short { nats.shorten_block(node, &stream) } else { nats.corrupt_block(node, &stream) };
        if !nats.restart_harmed(node, HEALED_WITHIN).await? {
            println!("chaos: nats-server {node} fell over the damaged block, and has an empty disk now");
        }
        // A log that was never written to has no block to damage.
        Ok(block.is_ok())
    }

    async fn fill_jetstream(&mut self, how_long: Duration) -> Result<bool> {
        let Some(disk) = &self.jetstream else { return Ok(false) };
        let failed = |log: &str| log.matches("no space left on device").count();
        let before = failed(&self.cluster.nats.log(0));
        disk.fill().await?;
        sleep(how_long).await;
        disk.resize(JETSTREAM_MEBIBYTES)?;
        let noticed = failed(&self.cluster.nats.log(0)) > before;
        self.cluster.nats.restart(0).await?;
        Ok(noticed)
    }

    /// A coordinator comes back to a local state that is not what it left.
    async fn harm(&mut self, coordinator: u8, harm: Harm, how_long: Duration) -> Result<bool> {
        let name = Victim::Coordinator(coordinator).replica().context("a coordinator has a name")?;
        let dir = self.cluster.local_dir(&name);
        if harm == Harm::Older {
            self.cluster.pause(&name)?;
            let backup = Backup::take(&dir);
            self.cluster.resume(&name)?;
            sleep(how_long).await;
            self.kill9(&name)?;
            backup?.put_back()?;
            self.cluster.spawn(&name)?;
            return Ok(true);
        }
        self.kill9(&name)?;
        match harm {
            Harm::Deleted => fs::remove_dir_all(&dir)?,
            Harm::Corrupt => corrupt(&dir)?,
            _ => {
                let disk = Tmpfs::mount(&dir, 1);
                if let Some(disk) = &disk {
                    if harm == Harm::Full { disk.fill().await? } else { disk.read_only().await? }
                }
                self.cluster.restart(&name).await?;
                sleep(how_long).await;
                self.kill9(&name)?;
                let mounted = disk.is_some();
                drop(disk);
                self.cluster.spawn(&name)?;
                return Ok(mounted);
            }
        }
        self.cluster.spawn(&name)?;
        Ok(true)
    }
}

pub(crate) async fn break_link(link: &Link, how: Break, how_long: Duration) {
    match how {
        Break::Cut => link.cut(),
        Break::Silent => [Way::Out, Way::Back].into_iter().for_each(|way| link.hold(way)),
        Break::OneWay(way) => link.hold(way),
        Break::LoseAnswers => link.hold(Way::Back),
        Break::Slow { ms } => link.slow(Duration::from_millis(ms)),
    }
    sleep(how_long).await;
    if how == Break::LoseAnswers {
        link.cut();
    }
    link.mend();
}

fn outage(how: Outage) -> BucketFaults {
    let none = BucketFaults::default();
    match how {
        Outage::Busy => BucketFaults { busy_every: 1, ..none },
        Outage::ReadOnly => BucketFaults { read_only: true, ..none },
        Outage::Silent => BucketFaults { silent_every: 2, ..none },
        Outage::Slow => BucketFaults { delay: SLOW_BUCKET, ..none },
        Outage::Pages => BucketFaults { page: 2, busy_every: 5, ..none },
    }
}

/// Gives every file other bytes in its middle.
fn corrupt(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            corrupt(&path)?;
            continue;
        }
        let mut bytes = fs::read(&path)?;
        let (from, to) = (bytes.len() / 3, bytes.len() / 2);
        bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0xA5);
        fs::write(&path, bytes)?;
    }
    Ok(())
}
