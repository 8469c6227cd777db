//! Several real nats-servers that keep every stream on three disks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bus::{
    Bus, BusOptions, SystemClock,
    keys::{self, AccountSpec, Keyring, ServerSpec},
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use types::Clock;

use crate::{
    Backup, Link, Way, damage,
    links::Routes,
    nats::{LANE_COUNT, MAX_PAYLOAD},
    port::free_port,
    question, secrets,
    server::{FILE_STORE_MAX, Server, with_queue},
};

/// Elections take 4 to 9 s (JetStream's own time-outs, which no setting changes), and a first one may fail.
const FORMED_MAX: Duration = Duration::from_secs(60);
/// How long servers may take to read what another one passes on.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
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
    /// Whether servers reach each other through links that a test may cut, and tell nobody of a way around them.
    pub proxied_routes: bool,
    /// Requests to JetStream's API that wait at once, before the server drops them all; 0 is its own 10 000.
    pub api_queue_max: u32,
    /// Lines for the configuration of every server, after all others.
    pub more: String,
}

/// nats-servers in operator mode with JetStream, on loopback, numbered from 0; they end with this value.
///
/// One server is a cluster too, without routes and elections.
pub struct NatsCluster {
    servers: Vec<Server>,
    routes: Routes,
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
        let routes = Routes::open(count, options.proxied_routes).await?;
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

    /// Lets the directory of all files and logs stay when this value goes; answers where it is.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
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
            max_file_store: FILE_STORE_MAX,
            sync_interval: Some(self.options.sync_interval.clone())
                .filter(|text| !text.is_empty())
                .unwrap_or("2m".to_owned()),
            max_payload: MAX_PAYLOAD,
            lane_count: LANE_COUNT,
            ports_dir: None,
            tls: None,
        };
        let more = self.routes.config(n)? + &self.options.more;
        let api_queue_max = self.options.api_queue_max;
        let keyring = &self.keyring;
        self.servers[n]
            .start(|ports, port| {
                let spec = ServerSpec { port, ports_dir: Some(ports.to_owned()), ..spec };
                let text = keys::server_config(keyring, &spec)?;
                Ok(with_queue(&text, api_queue_max) + &more)
            })
            .await
    }

    /// Waits until JetStream takes requests and can place copies on all servers, which in a cluster needs an election.
    pub async fn formed(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.complete().await {
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
        Ok(number(&info["cluster"]["leader"]))
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

    /// A way for one client to every server that a test may cut.
    pub async fn link(&self) -> Result<Link> {
        Link::open(self.servers.iter().map(Server::port)).await
    }

    /// Holds back what a server sends to the others ([`Way::Out`]) or what they send to it; only with `proxied_routes`.
    pub fn hold_routes(&self, n: usize, way: Way) {
        self.routes.hold(n, way);
    }

    /// Lets servers reach each other again.
    pub fn mend_routes(&self) {
        self.routes.mend();
    }

    /// Starts a server over files that were harmed, and waits until every stream is whole.
    ///
    /// Some releases fall over what they find (a panic while a stream is restored). Then it gets an empty disk, as its
    /// operator would give it one, and the answer is false.
    pub async fn restart_harmed(&mut self, n: usize, whole_within: Duration) -> Result<bool> {
        let begun = Instant::now();
        let mut stood = true;
        let mut started = self.restart(n).await;
        loop {
            if let Err(error) = started.and_then(|()| self.servers[n].check()) {
                ensure!(stood && self.log(n).contains("panic: "), "{error:#}");
                stood = false;
                self.wipe(n)?;
                self.restart(n).await?;
            }
            match self.all_whole().await {
                Ok(()) => return Ok(stood),
                Err(error) => ensure!(begun.elapsed() < whole_within, "not whole after {whole_within:?}: {error:#}"),
            }
            sleep(LOOK_EVERY).await;
            started = Ok(());
        }
    }

    /// Fails if a stream of the platform's account lacks a copy.
    pub async fn all_whole(&self) -> Result<()> {
        for stream in self.streams().await? {
            ensure!(self.is_whole(&stream).await?, "{stream} is not whole");
        }
        Ok(())
    }

    /// Turns over one byte in the middle of the last block of one copy of a stream, and answers which file it was in.
    ///
    /// Errors: the server must be down, else what it has in memory hides the damage.
    pub fn corrupt_block(&self, n: usize, stream: &str) -> Result<PathBuf> {
        self.ensure_down(n)?;
        damage::flip(self.servers[n].store_dir(), stream)
    }

    /// Cuts the second half off the last block of one copy of a stream; as [`NatsCluster::corrupt_block`] otherwise.
    pub fn shorten_block(&self, n: usize, stream: &str) -> Result<PathBuf> {
        self.ensure_down(n)?;
        damage::shorten(self.servers[n].store_dir(), stream)
    }

    fn ensure_down(&self, n: usize) -> Result<()> {
        ensure!(self.servers[n].pid().is_none(), "server {n} runs: kill it first");
        Ok(())
    }

    /// What JetStream has written at a server, as it is at one instant: the server is stopped while it is copied.
    pub fn backup(&mut self, n: usize) -> Result<Backup> {
        self.pause(n)?;
        let backup = Backup::take(self.servers[n].store_dir());
        self.resume(n)?;
        backup
    }

    /// Asks a server to end as an upgrade does, and waits for it.
    pub async fn terminate(&mut self, n: usize) -> Result<()> {
        self.servers[n].terminate().await
    }

    /// The server that leads JetStream as a whole: it says where streams are created. `None` during its election.
    pub async fn meta_leader(&self) -> Result<Option<usize>> {
        Ok(number(&self.meta().await?["leader"]))
    }

    /// What the leader of JetStream as a whole says about the servers.
    async fn meta(&self) -> Result<Value> {
        let creds = fs::read_to_string(self.secret_path("system.creds"))?;
        // Nobody else answers this.
        let answer = self.ask_as(&creds, "$SYS.REQ.SERVER.PING.JSZ", &json!({ "leader_only": true })).await?;
        Ok(answer["data"]["meta_cluster"].clone())
    }

    /// Fails until every server is known to the one that says where streams are created, which else finds no place for copies.
    async fn complete(&self) -> Result<()> {
        accepted(&self.ask("$JS.API.INFO", &json!({})).await?)?;
        if self.count() > 1 {
            let meta = self.meta().await?;
            let others = meta["replicas"].as_array().into_iter().flatten().filter(|other| other["offline"] != true);
            ensure!(others.count() + 1 == self.count(), "the leader does not know all others: {meta}");
        }
        Ok(())
    }

    /// Gives the servers the tenants' account once more, mappings and all, as every revocation does; nobody of a test is revoked.
    pub async fn reload_tenants(&self) -> Result<()> {
        let creds = Some(fs::read_to_string(self.secret_path("system.creds"))?);
        let options = BusOptions { url: self.url(), creds, name: "testkit/system".to_owned(), ..BusOptions::default() };
        let (system, now) = (Bus::connect(options).await?, SystemClock.now());
        let account = keys::public_key(&self.keyring.tenants_seed)?;
        let nobody = KeyPair::new_user().public_key();
        let spec = AccountSpec::tenants(account, LANE_COUNT, vec![(nobody, now)]);
        system.push_account_claims(&keys::account_jwt(&spec, &self.keyring.operator_seed, now)?).await?;
        system.close().await;
        Ok(())
    }

    /// Sends a server so many requests to JetStream's API at once that others, to which it passes them on, drop all that wait;
    /// answers whether one of their logs says so. A server that is alone has no such queue.
    pub async fn flood_api(&self, n: usize, requests: usize) -> Result<bool> {
        let dropped = || {
            let others = (0..self.count()).filter(|other| *other != n);
            others.map(|other| self.log(other).matches("limit reached, dropping").count()).sum::<usize>()
        };
        let before = dropped();
        question::flood(self.servers[n].port(), &self.platform_creds()?, "$JS.API.STREAM.LIST", requests).await?;
        let begun = Instant::now();
        while dropped() == before && begun.elapsed() < NOTICED_WITHIN {
            sleep(LOOK_EVERY).await;
        }
        Ok(dropped() > before)
    }

    async fn describe(&self, stream: &str) -> Result<Value> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await?;
        accepted(&info)?;
        Ok(info)
    }

    async fn ask(&self, subject: &str, body: &Value) -> Result<Value> {
        self.ask_as(&self.platform_creds()?, subject, body).await
    }

    /// Asks the first server that answers.
    async fn ask_as(&self, creds: &str, subject: &str, body: &Value) -> Result<Value> {
        let mut last = None;
        for server in self.servers.iter().filter(|server| server.answers()) {
            match question::ask(server.port(), creds, subject, body).await {
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

/// The number of a server by its name.
fn number(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix('n')?.parse().ok()
}
