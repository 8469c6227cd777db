//! An installation of one process per service, as in a cluster, on one machine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bus::{
    Bus, BusOptions, SystemClock,
    keys::{UserSpec, issue_creds},
};
use client::Client;
use store::Objects;
use testkit::{NatsCluster, NatsOptions};
use types::{Clock, IndexName};
use wire::{Service, views::Role};

use crate::{Answer, Api, Binding, Process, Workdir, eventually, free_port, logboom};

/// How long a process may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

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
    /// Where chunks and snapshots are kept instead of the installation's directory.
    pub objects: Option<PathBuf>,
    /// Which services run, and how many replicas of each: `a`, `b`, …
    pub services: Vec<(Service, u8)>,
}

impl Default for Options {
    /// Everything once, with two segment-stores and two task-workers.
    fn default() -> Self {
        let two = |service| matches!(service, Service::SegmentStore | Service::TaskWorker);
        let services = Service::ALL.into_iter().map(|service| (service, 1 + u8::from(two(service)))).collect();
        let (set, store_dir, objects) = (Vec::new(), None, None);
        Self { set, nats_count: 1, store_dir, sync_interval: "always".to_owned(), objects, services }
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

/// Real processes: nats-servers and services; they end with this value.
#[derive(Debug)]
pub struct Cluster {
    /// The nats-servers.
    pub nats: NatsCluster,
    running: BTreeMap<String, Process>,
    probes: BTreeMap<String, u16>,
    /// The public doors.
    pub api: Api,
    set: Vec<String>,
    objects: PathBuf,
    // Last: the directory goes after the processes.
    dir: Workdir,
}

impl Cluster {
    /// Starts an installation with two segment-stores and two task-workers.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// The same with differences.
    pub async fn start_with(options: Options) -> Result<Self> {
        let dir = Workdir::new("cluster")?;
        let (gateway, broker) = (free_port()?, free_port()?);
        let keys = make_keys(&dir)?;
        let nats_options = NatsOptions {
            keyring: Some(serde_json::from_str(&fs::read_to_string(keys.join("keyring.json"))?)?),
            store_dir: options.store_dir,
            sync_interval: options.sync_interval,
        };
        let nats = NatsCluster::start_with(options.nats_count, nats_options).await?;
        let secret = |name: &str| fs::read_to_string(keys.join(name));
        let api = Api::new(
            &format!("http://127.0.0.1:{gateway}"),
            &format!("http://127.0.0.1:{broker}"),
            &nats.url(),
            &secret("admin.token")?,
            &secret("broker.password")?,
        )?;
        let objects = options.objects.unwrap_or_else(|| dir.path().join("objects"));
        let mut set = vec![
            format!("common.nats_url={}", api.nats_url),
            format!("broker.nats_public_url={}", api.nats_url),
            format!("common.journal_replicas={}", options.nats_count),
            format!("common.data_dir={}", dir.path().join("state").display()),
            format!("common.object_store_url=file://{}", objects.display()),
            "common.log_format=text".to_owned(),
            format!("gateway.address=127.0.0.1:{gateway}"),
            format!("broker.address=127.0.0.1:{broker}"),
            format!("broker.gateway_url={}", api.gateway),
        ];
        set.extend(options.set);
        let mut probes = BTreeMap::new();
        for (service, count) in options.services {
            for replica in (b'a'..).take(usize::from(count)).map(char::from) {
                probes.insert(format!("{service}/{replica}"), free_port()?);
            }
        }
        let mut cluster = Self { nats, running: BTreeMap::new(), probes, api, set, objects, dir };
        for name in cluster.replicas() {
            cluster.spawn(&name)?;
        }
        for name in cluster.replicas() {
            cluster.wait_until_ready(&name).await?;
        }
        Ok(cluster)
    }

    /// Every replica as `<service>/<replica>`.
    pub fn replicas(&self) -> Vec<String> {
        self.probes.keys().cloned().collect()
    }

    /// The directory of keys, state and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the installation and leaves its logs and data behind; answers where.
    pub fn keep(mut self) -> PathBuf {
        self.running.clear();
        self.dir.keep()
    }

    /// The directory of chunks and snapshots.
    pub fn objects_dir(&self) -> &Path {
        &self.objects
    }

    /// A connection in the platform's account, as a service has it.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        let creds = Some(fs::read_to_string(self.dir.path().join("keys/platform.creds"))?);
        Ok(Bus::connect(BusOptions { url: self.nats.url(), creds, name: name.to_owned(), inbox_prefix: None }).await?)
    }

    /// A client of segments, with a connection of its own.
    pub async fn client(&self, name: &str) -> Result<Client> {
        Ok(Client::new(self.bus(name).await?, self.store()?))
    }

    /// Object storage, as a service has it.
    pub fn store(&self) -> Result<Objects> {
        Ok(Objects::open(&format!("file://{}", self.objects.display()))?)
    }

    /// Credentials that publish to an index; made from the seed, so that no provisioner needs to run. They open no HTTP.
    pub fn binding(&self, index: &str) -> Result<Binding> {
        let (name, id) = (index.parse::<IndexName>()?, "tests".parse()?);
        let seed = &self.nats.keyring().tenants_seed;
        let creds = issue_creds(|key| UserSpec::binding(&name, &id, Role::Write, key), seed, SystemClock.now())?;
        Ok(Binding {
            id: id.to_string(),
            index: index.to_owned(),
            token: String::new(),
            creds,
            inbox_prefix: wire::subjects::inbox_prefix(&id),
            nats_url: self.nats.url(),
            subject: wire::subjects::logs(&name),
        })
    }

    /// The process of a replica.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        self.running.get_mut(name).with_context(|| format!("{name} does not run"))
    }

    /// Kills a replica as a crash would.
    pub fn kill9(&mut self, name: &str) -> Result<()> {
        self.process(name)?.kill9()?;
        self.running.remove(name);
        Ok(())
    }

    /// Stops a replica in its tracks: its connections stay open, its leases run out.
    pub fn pause(&mut self, name: &str) -> Result<()> {
        self.process(name)?.signal("STOP")
    }

    /// Lets a stopped replica go on with whatever it was doing.
    pub fn resume(&mut self, name: &str) -> Result<()> {
        self.process(name)?.signal("CONT")
    }

    /// Starts a replica again, on the same data, and waits until it is ready.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.spawn(name)?;
        self.wait_until_ready(name).await
    }

    /// Waits until a replica has ended by itself, which is then no mistake; false if it still runs after `within`.
    pub async fn ends_within(&mut self, name: &str, within: Duration) -> Result<bool> {
        let ended = self.process(name)?.wait(within).await.is_ok();
        if ended {
            self.running.remove(name);
        }
        Ok(ended)
    }

    /// Starts a replica, on the data that it had; it is not ready yet.
    pub fn spawn(&mut self, name: &str) -> Result<()> {
        self.spawn_with(name, &[])
    }

    /// The same with settings that hold for this start only.
    pub fn spawn_with(&mut self, name: &str, set: &[String]) -> Result<()> {
        let (service, replica) = name.split_once('/').context("a replica is named <service>/<replica>")?;
        let probe = self.probes.get(name).with_context(|| format!("there is no replica {name}"))?;
        let mut command = Command::new(logboom()?);
        command.arg(service).arg("--settings").arg(self.dir.path().join("keys/logboom.toml"));
        command.current_dir(self.dir.path());
        for set in self.set.iter().chain(set) {
            command.args(["--set", set]);
        }
        command.args(["--set", &format!("common.replica={replica}")]);
        command.args(["--set", &format!("{}.probe_address=127.0.0.1:{probe}", service.replace('-', "_"))]);
        let log = self.dir.path().join(format!("{service}-{replica}.log"));
        self.running.insert(name.to_owned(), Process::spawn(name, &mut command, &log)?);
        Ok(())
    }

    /// Fails if a process has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.nats.check()?;
        self.running.values_mut().try_for_each(Process::check)
    }

    /// Waits until a replica's probe says that it takes work.
    pub async fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.probes[name]);
        let api = self.api.clone();
        let process = self.process(name)?;
        let ready = eventually(&format!("{name} is ready"), READY_WITHIN, async || {
            process.check()?;
            let answer = Answer::of(api.bare(reqwest::Method::GET, &url)).await?;
            ensure!(answer.status == 200, "{}", answer.text);
            Ok(())
        })
        .await;
        ready.with_context(|| format!("last words of {name}:\n{}", process.last_words()))
    }
}

/// Makes keys and settings with the command that an administrator would use.
fn make_keys(dir: &Workdir) -> Result<PathBuf> {
    let keys = dir.path().join("keys");
    let made = Command::new(logboom()?).args(["keys", "init", "--dir"]).arg(&keys).output()?;
    ensure!(made.status.success(), "logboom keys init: {}", String::from_utf8_lossy(&made.stderr));
    Ok(keys)
}
