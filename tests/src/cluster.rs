//! An installation of one process per service, as in a cluster, on one machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bus::{
    Bus, BusOptions, SystemClock,
    keys::{UserSpec, issue_creds},
};
use client::Client;
use store::Objects;
use testkit::{Bucket, Link, NatsCluster, NatsOptions};
use types::{Clock, IndexName};
use wire::views::Role;

use crate::{Answer, Api, Binding, Options, Process, Workdir, eventually, free_port, logboom};

/// How long a process may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a process may take to drain.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);
/// The link of the test's own clients.
const CLIENTS: &str = "clients";

/// Real processes: nats-servers and services; they end with this value.
#[derive(Debug)]
pub struct Cluster {
    /// The nats-servers.
    pub nats: NatsCluster,
    running: BTreeMap<String, Process>,
    probes: BTreeMap<String, u16>,
    /// The brokers' own doors; the first one's is that of `api`.
    brokers: BTreeMap<String, u16>,
    /// The public doors.
    pub api: Api,
    set: Vec<String>,
    objects: PathBuf,
    bucket: Option<Arc<Bucket>>,
    links: BTreeMap<String, Link>,
    /// Replicas that may end by themselves.
    doomed: BTreeSet<String>,
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
        let mut cluster = Self::launch(options).await?;
        cluster.wait_until_all_ready().await?;
        Ok(cluster)
    }

    /// The same without waiting for the services, which are only just started.
    pub async fn launch(options: Options) -> Result<Self> {
        let dir = Workdir::new("cluster")?;
        let (gateway, broker) = (free_port()?, free_port()?);
        let keys = make_keys(&dir)?;
        let nats_options = NatsOptions {
            keyring: Some(serde_json::from_str(&fs::read_to_string(keys.join("keyring.json"))?)?),
            store_dir: options.store_dir,
            sync_interval: options.sync_interval,
            proxied_routes: options.fragile,
            api_queue_max: options.api_queue_max,
            more: options.nats_config,
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
            format!("common.object_store_url={}", location(options.bucket.as_deref(), &objects)),
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
        let mut brokers = BTreeMap::new();
        for name in probes.keys().filter(|name| name.starts_with("broker/")) {
            let port = if brokers.is_empty() { broker } else { free_port()? };
            brokers.insert(name.clone(), port);
        }
        let mut links = BTreeMap::new();
        for name in probes.keys().map(String::as_str).chain([CLIENTS]).filter(|_| options.fragile) {
            links.insert(name.to_owned(), nats.link().await?);
        }
        let (running, bucket, doomed) = (BTreeMap::new(), options.bucket, BTreeSet::new());
        let mut cluster = Self { nats, running, probes, brokers, api, set, objects, bucket, links, doomed, dir };
        for name in cluster.replicas() {
            cluster.spawn(&name)?;
        }
        Ok(cluster)
    }

    /// Waits until every replica takes work.
    pub async fn wait_until_all_ready(&mut self) -> Result<()> {
        for name in self.replicas() {
            self.wait_until_ready(&name).await?;
        }
        Ok(())
    }

    /// Every replica as `<service>/<replica>`.
    pub fn replicas(&self) -> Vec<String> {
        self.probes.keys().cloned().collect()
    }

    /// The public doors with that of one broker among several.
    pub fn broker(&self, name: &str) -> Result<Api> {
        let port = self.brokers.get(name).with_context(|| format!("there is no broker {name}"))?;
        let mut api = self.api.clone();
        api.broker = format!("http://127.0.0.1:{port}");
        Ok(api)
    }

    /// The directory of keys, state and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the installation and leaves its logs and data behind; answers where.
    pub fn keep(mut self) -> PathBuf {
        self.running.clear();
        // Without the link they are found by their own name.
        drop(std::os::unix::fs::symlink(self.nats.keep(), self.dir.path().join("nats")));
        self.dir.keep()
    }

    /// The directory of chunks and snapshots.
    pub fn objects_dir(&self) -> &Path {
        &self.objects
    }

    /// The directory of what a replica keeps locally and can rebuild.
    pub fn local_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    /// The link of a replica to the nats-servers; only in a fragile installation.
    pub fn link(&self, name: &str) -> Result<&Link> {
        self.links.get(name).with_context(|| format!("{name} has no link of its own: the installation is not fragile"))
    }

    /// The link of the test's own clients.
    pub fn clients_link(&self) -> Result<&Link> {
        self.link(CLIENTS)
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Where the test's own clients connect.
    fn clients_url(&self) -> String {
        self.links.get(CLIENTS).map_or_else(|| self.nats.url(), Link::url)
    }

    /// A connection in the platform's account, as a service has it.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        self.bus_at(self.clients_url(), name).await
    }

    /// The same on a link that never fails.
    pub async fn steady_bus(&self, name: &str) -> Result<Bus> {
        self.bus_at(self.nats.url(), name).await
    }

    async fn bus_at(&self, url: String, name: &str) -> Result<Bus> {
        let creds = Some(fs::read_to_string(self.dir.path().join("keys/platform.creds"))?);
        Ok(Bus::connect(BusOptions { url, creds, name: name.to_owned(), ..BusOptions::default() }).await?)
    }

    /// A client of segments, with a connection of its own.
    pub async fn client(&self, name: &str) -> Result<Client> {
        Ok(Client::new(self.bus(name).await?, self.store()?))
    }

    /// Object storage, as a service has it.
    pub fn store(&self) -> Result<Objects> {
        let url = location(self.bucket.as_deref(), &self.objects);
        Ok(match &self.bucket {
            Some(bucket) => Objects::open_s3(&url, bucket.options())?,
            None => Objects::open(&url)?,
        })
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
            nats_url: self.clients_url(),
            subject: wire::subjects::logs(&name),
        })
    }

    /// The process of a replica.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        self.running.get_mut(name).with_context(|| format!("{name} does not run"))
    }

    /// Kills a replica as a crash would.
    pub fn kill9(&mut self, name: &str) -> Result<()> {
        if !self.doomed.remove(name) {
            self.process(name)?.kill9()?;
        }
        // One that was doomed may have died already.
        self.running.remove(name);
        Ok(())
    }

    /// Asks a replica to drain and waits for its end.
    pub async fn terminate(&mut self, name: &str) -> Result<()> {
        let status = self.process(name)?.terminate(DRAINED_WITHIN).await?;
        self.running.remove(name);
        ensure!(status.success(), "{name} was asked to end, and ended with {status}");
        Ok(())
    }

    /// Lets the clock of a replica be wrong by so many seconds from now on, also after a restart; only in a fragile installation.
    pub fn set_clock(&self, name: &str, seconds: i32) -> Result<()> {
        Ok(fs::write(self.clock_file(name), (i64::from(seconds) * 1_000).to_string())?)
    }

    fn clock_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{}.clock", name.replace('/', "-")))
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

    /// Starts a replica, on the data that it had; it is not ready yet.
    pub fn spawn(&mut self, name: &str) -> Result<()> {
        self.spawn_with(name, &[])
    }

    /// The same with settings that let it end by itself sooner or later, which is then no mistake.
    pub fn spawn_doomed(&mut self, name: &str, set: &[String]) -> Result<()> {
        self.spawn_with(name, set)?;
        self.doomed.insert(name.to_owned());
        Ok(())
    }

    /// Whether a replica that was doomed has ended.
    pub fn has_ended(&mut self, name: &str) -> Result<bool> {
        Ok(self.process(name)?.check().is_err())
    }

    fn spawn_with(&mut self, name: &str, set: &[String]) -> Result<()> {
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
        if let Some(port) = self.brokers.get(name) {
            command.args(["--set", &format!("broker.address=127.0.0.1:{port}")]);
        }
        if let Some(link) = self.links.get(name) {
            command.args(["--set", &format!("common.nats_url={}", link.url())]);
            command.env("LB_CLOCK_OFFSET_FILE", self.clock_file(name));
        }
        command.envs(self.bucket.iter().flat_map(|bucket| bucket.environment()));
        let log = self.dir.path().join(format!("{service}-{replica}.log"));
        self.doomed.remove(name);
        self.running.insert(name.to_owned(), Process::spawn(name, &mut command, &log)?);
        Ok(())
    }

    /// Fails if a process has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.nats.check()?;
        let doomed = &self.doomed;
        let mut others = self.running.iter_mut().filter(|(name, _)| !doomed.contains(*name));
        others.try_for_each(|(_, process)| process.check())
    }

    /// What a replica tells about itself, as Prometheus reads it.
    pub async fn metrics(&self, name: &str) -> Result<String> {
        let probe = self.probes.get(name).with_context(|| format!("there is no replica {name}"))?;
        let url = format!("http://127.0.0.1:{probe}/metrics");
        Ok(Answer::of(self.api.bare(reqwest::Method::GET, &url)).await?.text)
    }

    /// The replica that leads a service, once there is one.
    pub async fn leader(&self, service: &str) -> Result<String> {
        let replicas: Vec<_> = self.replicas().into_iter().filter(|name| name.starts_with(service)).collect();
        eventually(&format!("a leader of {service}"), READY_WITHIN, async || {
            for name in &replicas {
                // A replica that was killed answers nothing.
                let metrics = self.metrics(name).await.unwrap_or_default();
                if metrics.lines().any(|line| line.starts_with("lb_host_leader{") && line.ends_with(" 1")) {
                    return Ok(name.clone());
                }
            }
            anyhow::bail!("no replica says that it leads")
        })
        .await
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

/// Where object storage is.
fn location(bucket: Option<&Bucket>, dir: &Path) -> String {
    bucket.map_or_else(|| format!("file://{}", dir.display()), Bucket::url)
}

/// Makes keys and settings with the command that an administrator would use.
fn make_keys(dir: &Workdir) -> Result<PathBuf> {
    let keys = dir.path().join("keys");
    let made = Command::new(logboom()?).args(["keys", "init", "--dir"]).arg(&keys).output()?;
    ensure!(made.status.success(), "logboom keys init: {}", String::from_utf8_lossy(&made.stderr));
    Ok(keys)
}
