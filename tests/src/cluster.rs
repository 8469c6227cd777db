//! An installation of one process per service, as in a cluster, on one machine.

use std::{collections::BTreeMap, fs, net::TcpStream, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};
use wire::Service;

use crate::{Answer, Api, Process, Workdir, eventually, free_port, logboom, nats_server};

/// How long a process may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How an installation differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings of every service (`section.key=value`).
    pub set: Vec<String>,
    /// Where JetStream keeps its files instead of the installation's directory.
    pub store_dir: Option<PathBuf>,
    /// Lines for the `jetstream` block of `nats.conf`.
    pub jetstream: String,
    /// Services of which one replica is enough; by default segment-store and task-worker have two.
    pub one_each: bool,
}

/// Real processes: a nats-server and every service; they end with this value.
#[derive(Debug)]
pub struct Cluster {
    nats: Option<Process>,
    running: BTreeMap<String, Process>,
    probes: BTreeMap<String, u16>,
    /// The public doors.
    pub api: Api,
    nats_port: u16,
    set: Vec<String>,
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
        let (nats_port, gateway, broker) = (free_port()?, free_port()?, free_port()?);
        make_keys(&dir, nats_port, &options)?;
        let secret = |name: &str| fs::read_to_string(dir.path().join("keys").join(name));
        let api = Api::new(
            &format!("http://127.0.0.1:{gateway}"),
            &format!("http://127.0.0.1:{broker}"),
            &format!("nats://127.0.0.1:{nats_port}"),
            &secret("admin.token")?,
            &secret("broker.password")?,
        )?;
        let mut set = vec![
            format!("common.data_dir={}", dir.path().join("state").display()),
            "common.log_format=text".to_owned(),
            format!("gateway.address=127.0.0.1:{gateway}"),
            format!("broker.address=127.0.0.1:{broker}"),
            format!("broker.gateway_url={}", api.gateway),
        ];
        set.extend(options.set);
        let mut probes = BTreeMap::new();
        for service in Service::ALL {
            let two = matches!(service, Service::SegmentStore | Service::TaskWorker) && !options.one_each;
            for replica in if two { &["a", "b"][..] } else { &["a"] } {
                probes.insert(format!("{service}/{replica}"), free_port()?);
            }
        }
        let mut cluster = Self { nats: None, running: BTreeMap::new(), probes, api, nats_port, set, dir };
        cluster.restart_nats().await?;
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
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
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

    /// Starts a replica again, on the same data, and waits until it is ready.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.spawn(name)?;
        self.wait_until_ready(name).await
    }

    /// Kills the nats-server as a crash would.
    pub fn kill9_nats(&mut self) -> Result<()> {
        let mut nats = self.nats.take().context("nats-server does not run")?;
        nats.kill9()
    }

    /// Starts the nats-server, again on the same data, and waits until it listens.
    pub async fn restart_nats(&mut self) -> Result<()> {
        let config = self.dir.path().join("keys/nats.conf");
        let mut command = Command::new(nats_server()?);
        command.arg("--config").arg(config);
        let mut nats = Process::spawn("nats-server", &mut command, &self.dir.path().join("nats.log"))?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.nats_port)).is_err() {
            nats.check()?;
            ensure!(begun.elapsed() < READY_WITHIN, "nats-server does not listen:\n{}", nats.last_words());
            sleep(Duration::from_millis(10)).await;
        }
        self.nats = Some(nats);
        Ok(())
    }

    /// Fails if a process has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.nats.iter_mut().chain(self.running.values_mut()).try_for_each(Process::check)
    }

    /// Changes a line of `nats.conf`, for the next start of the nats-server.
    pub fn edit_nats(&self, from: &str, to: &str) -> Result<()> {
        let path = self.dir.path().join("keys/nats.conf");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "nats.conf does not say {from:?}");
        Ok(fs::write(path, text.replacen(from, to, 1))?)
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

    fn spawn(&mut self, name: &str) -> Result<()> {
        let (service, replica) = name.split_once('/').context("a replica is named <service>/<replica>")?;
        let probe = self.probes.get(name).with_context(|| format!("there is no replica {name}"))?;
        let mut command = Command::new(logboom()?);
        command.arg(service).arg("--settings").arg(self.dir.path().join("keys/logboom.toml"));
        command.current_dir(self.dir.path());
        for set in &self.set {
            command.args(["--set", set]);
        }
        command.args(["--set", &format!("common.replica={replica}")]);
        command.args(["--set", &format!("{}.probe_address=127.0.0.1:{probe}", service.replace('-', "_"))]);
        let log = self.dir.path().join(format!("{service}-{replica}.log"));
        self.running.insert(name.to_owned(), Process::spawn(name, &mut command, &log)?);
        Ok(())
    }
}

/// Makes keys and the server's configuration with the command that an administrator would use.
fn make_keys(dir: &Workdir, port: u16, options: &Options) -> Result<()> {
    let keys = dir.path().join("keys");
    let made =
        Command::new(logboom()?).args(["keys", "init", "--port", &port.to_string(), "--dir"]).arg(&keys).output()?;
    ensure!(made.status.success(), "logboom keys init: {}", String::from_utf8_lossy(&made.stderr));
    let conf = keys.join("nats.conf");
    let mut text = fs::read_to_string(&conf)?;
    if let Some(store) = &options.store_dir {
        let line =
            text.lines().find(|line| line.trim().starts_with("store_dir:")).context("nats.conf: no store_dir")?;
        text = text.replacen(line, &format!("  store_dir: \"{}\"", store.display()), 1);
    }
    if !options.jetstream.is_empty() {
        text = text.replacen("jetstream {\n", &format!("jetstream {{\n{}\n", options.jetstream), 1);
    }
    Ok(fs::write(conf, text)?)
}
