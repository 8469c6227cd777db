//! Several real nats-servers that keep every stream on three disks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bus::{
    SystemClock,
    keys::{self, ClusterSpec, Keyring, ServerSpec},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use types::Clock;

use crate::{
    nats::{LANE_COUNT, MAX_PAYLOAD},
    port::free_port,
    question, secrets,
    server::{Server, roomy},
};

/// Elections take 4 to 9 s (JetStream's own time-outs, which no setting changes), and a first one may fail.
const FORMED_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the first start is tried with other ports, when another process has taken one meanwhile.
const START_ATTEMPTS: u32 = 3;

/// How a cluster differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// The keys; fresh ones if there are none.
    pub keyring: Option<Keyring>,
    /// Where server 0 keeps JetStream's files instead of its own directory.
    pub store_dir: Option<PathBuf>,
    /// When JetStream syncs its files; empty is every two minutes.
    pub sync_interval: String,
}

/// nats-servers in operator mode with JetStream, on loopback, numbered from 0; they end with this value.
///
/// One server is a cluster too, without routes and elections.
pub struct NatsCluster {
    servers: Vec<Server>,
    routes: Vec<u16>,
    keyring: Keyring,
    options: NatsOptions,
    // Last: the directory goes after the servers.
    dir: TempDir,
}

impl std::fmt::Debug for NatsCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsCluster").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl NatsCluster {
    /// Starts servers with fresh keys and waits until JetStream takes requests.
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(count, NatsOptions::default()).await
    }

    /// The same with differences.
    pub async fn start_with(count: usize, options: NatsOptions) -> Result<Self> {
        let keyring = match &options.keyring {
            Some(keyring) => keyring.clone(),
            None => Keyring::generate(SystemClock.now())?,
        };
        for attempt in 1.. {
            match Self::begin(count, keyring.clone(), options.clone()).await {
                Ok(cluster) => {
                    cluster.formed().await?;
                    return Ok(cluster);
                }
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(error) => tracing::warn!(%error, "nats cluster starts again on other ports"),
            }
        }
        bail!("a cluster is started at least once")
    }

    async fn begin(count: usize, keyring: Keyring, options: NatsOptions) -> Result<Self> {
        ensure!(count > 0, "a cluster has at least one server");
        let dir = tempfile::Builder::new().prefix("lb-nats-").tempdir()?;
        secrets::write(&keyring, dir.path())?;
        let server = |n: usize| {
            let own = dir.path().join(format!("n{n}"));
            let store = options.store_dir.clone().filter(|_| n == 0).unwrap_or_else(|| own.join("jetstream"));
            Server::new(own, store, free_port()?)
        };
        let servers = (0..count).map(server).collect::<Result<Vec<_>>>()?;
        let routes = (0..count).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let mut cluster = Self { servers, routes, keyring, options, dir };
        for n in 0..count {
            cluster.restart(n).await?;
        }
        Ok(cluster)
    }

    /// How many servers there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// Where clients connect: every server, separated by commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// Where clients of one server connect.
    pub fn url_of(&self, n: usize) -> String {
        self.servers[n].url()
    }

    /// Text of the credentials of the platform account.
    pub fn platform_creds(&self) -> Result<String> {
        let path = self.secret_path("platform.creds");
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The keys of operator and accounts.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A file with a secret: `platform.creds`, `tenants.creds`, `system.creds`, `operator.seed` or `tenants.seed`.
    pub fn secret_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server's process id, while it runs.
    pub fn pid(&self, n: usize) -> Option<u32> {
        self.servers[n].pid()
    }

    /// A server's log so far.
    pub fn log(&self, n: usize) -> String {
        self.servers[n].log()
    }

    /// Kills a server as if its machine had crashed, but for what the operating system still writes.
    pub fn kill(&mut self, n: usize) -> Result<()> {
        self.servers[n].kill()
    }

    /// Kills a server and deletes everything that its JetStream stored, as if its disk was lost.
    pub fn wipe(&mut self, n: usize) -> Result<()> {
        self.servers[n].wipe()
    }

    /// Stops a server in its tracks; connections stay open and nothing answers.
    pub fn pause(&mut self, n: usize) -> Result<()> {
        self.servers[n].pause()
    }

    /// Lets a stopped server go on.
    pub fn resume(&mut self, n: usize) -> Result<()> {
        self.servers[n].resume()
    }

    /// Fails if a server has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Server::check)
    }

    /// Starts a server again, on the same port and files; kills it first if it runs. Returns when it listens.
    pub async fn restart(&mut self, n: usize) -> Result<()> {
        let spec = ServerSpec {
            name: format!("n{n}"),
            address: "127.0.0.1".to_owned(),
            port: 0,
            store_dir: self.servers[n].store_dir().display().to_string(),
            resolver_dir: self.dir.path().join(format!("n{n}/resolver")).display().to_string(),
            sync_interval: Some(self.options.sync_interval.clone())
                .filter(|text| !text.is_empty())
                .unwrap_or("2m".to_owned()),
            max_payload: MAX_PAYLOAD,
            lane_count: LANE_COUNT,
            ports_dir: None,
        };
        let address = |port: u16| format!("127.0.0.1:{port}");
        let cluster = (self.servers.len() > 1).then(|| ClusterSpec {
            name: "test".to_owned(),
            listen: address(self.routes[n]),
            routes: self.routes.iter().copied().map(address).collect(),
            password: "between-servers-of-one-test".to_owned(),
        });
        let keyring = &self.keyring;
        self.servers[n]
            .start(|ports, port| {
                let spec = ServerSpec { port, ports_dir: Some(ports.to_owned()), ..spec };
                let text = keys::server_config(keyring, &spec)?;
                Ok(roomy(&text) + &cluster.as_ref().map(keys::cluster_config).unwrap_or_default())
            })
            .await
    }

    /// Waits until JetStream takes requests, which in a cluster needs an election.
    pub async fn formed(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let asked = self.ask("$JS.API.INFO", &json!({})).await;
            match asked.and_then(|answer| accepted(&answer)) {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > FORMED_MAX => return Err(error.context("JetStream is not ready")),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// The server that leads a stream of the platform's account; `None` during an election.
    pub async fn leader_of(&self, stream: &str) -> Result<Option<usize>> {
        let info = self.describe(stream).await?;
        if self.servers.len() == 1 {
            return Ok(Some(0));
        }
        let leader = info["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('n'));
        Ok(leader.and_then(|number| number.parse().ok()))
    }

    /// Whether every copy of a stream has everything.
    pub async fn is_whole(&self, stream: &str) -> Result<bool> {
        let info = self.describe(stream).await?;
        let copies = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
        Ok(copies.len() + 1 == self.servers.len()
            && info["cluster"]["leader"].is_string()
            && copies.iter().all(|copy| copy["current"] == true && copy["offline"] != true))
    }

    /// Makes a stream's leader give its place to another.
    pub async fn step_down(&self, stream: &str) -> Result<()> {
        accepted(&self.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), &json!({})).await?)
    }

    /// Names of the streams of the platform's account.
    pub async fn streams(&self) -> Result<Vec<String>> {
        let answer = self.ask("$JS.API.STREAM.NAMES", &json!({})).await?;
        accepted(&answer)?;
        let names = answer["streams"].as_array().into_iter().flatten();
        Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Turns over one byte in the middle of the last block of one copy of a stream, and answers which file it was in.
    ///
    /// Errors: the server must be down, else what it has in memory hides the damage.
    pub fn corrupt_block(&self, n: usize, stream: &str) -> Result<PathBuf> {
        ensure!(self.servers[n].pid().is_none(), "server {n} runs: kill it first");
        let mut blocks = Vec::new();
        find_blocks(self.servers[n].store_dir(), &Path::new("streams").join(stream).join("msgs"), &mut blocks)?;
        blocks.sort();
        let block = blocks.pop().with_context(|| format!("server {n} has no block of {stream}"))?;
        let mut bytes = fs::read(&block)?;
        ensure!(!bytes.is_empty(), "{} is empty", block.display());
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(&block, bytes)?;
        Ok(block)
    }

    async fn describe(&self, stream: &str) -> Result<Value> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await?;
        accepted(&info)?;
        Ok(info)
    }

    /// Asks the first server that answers.
    async fn ask(&self, subject: &str, body: &Value) -> Result<Value> {
        let creds = self.platform_creds()?;
        let mut last = None;
        for server in self.servers.iter().filter(|server| server.answers()) {
            match question::ask(server.port(), &creds, subject, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no server runs")))
    }
}

fn accepted(answer: &Value) -> Result<()> {
    ensure!(answer["error"].is_null(), "JetStream says {}", answer["error"]);
    Ok(())
}

/// Files `*.blk` in a directory that ends with `below`.
fn find_blocks(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_blocks(&path, below, found)?;
        } else if path.extension().is_some_and(|end| end == "blk") && path.parent().is_some_and(|p| p.ends_with(below))
        {
            found.push(path);
        }
    }
    Ok(())
}
