//! `logboom standalone` as a child.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bus::{Bus, BusOptions};
use serde_json::Value;
use tokio::time::Instant;
use wire::{
    encode,
    views::{QUOTAS, Quota},
};

use crate::{Api, Process, Workdir, eventually, free_port, logboom, nats_server};

/// How long a start may take; it has to replay what it kept.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a drain may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Every service in one process, on free ports.
#[derive(Debug)]
pub struct Standalone {
    process: Process,
    /// Its public doors.
    pub api: Api,
    /// How long it took from the start of the process until it was ready.
    pub ready_after: Duration,
    data: PathBuf,
    // Last: the directory goes after the process.
    own: Option<Workdir>,
}

impl Standalone {
    /// Starts on fresh data.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with settings of its own (`section.key=value`).
    pub async fn start_with(set: &[&str]) -> Result<Self> {
        let dir = Workdir::new("standalone")?;
        let mut started = Self::start_on(dir.path(), set).await?;
        started.own = Some(dir);
        Ok(started)
    }

    /// Starts on the data of a directory, which stays.
    pub async fn start_on(data: &Path, set: &[&str]) -> Result<Self> {
        let (gateway, broker) = (free_port()?, free_port()?);
        let log = data.join("standalone.log");
        let run = data.join("run.json");
        // What a killed process has left would be read as ready.
        drop(fs::remove_file(&run));
        let mut command = Command::new(logboom()?);
        command.args(["standalone", "--data"]).arg(data).current_dir(data);
        let own = [
            "nats.port=0".to_owned(),
            format!("nats.server_path={}", nats_server()?.display()),
            format!("gateway.address=127.0.0.1:{gateway}"),
            format!("broker.address=127.0.0.1:{broker}"),
            format!("broker.gateway_url=http://127.0.0.1:{gateway}"),
        ];
        for one in own.iter().map(String::as_str).chain(set.iter().copied()) {
            command.args(["--set", one]);
        }
        let begun = Instant::now();
        let mut process = Process::spawn("standalone", &mut command, &log)?;
        while !run.exists() {
            process.check()?;
            if begun.elapsed() > READY_WITHIN {
                bail!("standalone was not ready within {READY_WITHIN:?}:\n{}", process.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ready_after = begun.elapsed();
        let api = api(data, &run)?;
        Ok(Self { process, api, ready_after, data: data.to_owned(), own: None })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A connection as a service of it has one.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        let creds = Some(fs::read_to_string(self.data.join("keys/platform.creds"))?);
        let url = self.api.nats_url.clone();
        Ok(Bus::connect(BusOptions { url, creds, name: name.to_owned(), ..BusOptions::default() }).await?)
    }

    /// Sets the quota of an index, as a change of its plan would.
    pub async fn limit(&self, index: &str, quota: Quota) -> Result<()> {
        let quotas = self.bus("tests/quotas").await?.join_bucket(QUOTAS, 1).await?;
        quotas.put(index, encode(&quota)).await?;
        Ok(())
    }

    /// Asks it to drain and waits for its end; the words are what it printed.
    pub async fn stop(mut self) -> Result<(ExitStatus, String)> {
        let status = self.process.terminate(DRAIN_WITHIN).await?;
        Ok((status, self.process.log()))
    }

    /// The id of its nats-server.
    pub async fn nats_pid(&self) -> Result<u32> {
        let pid = self.process.pid();
        eventually("the nats-server child", Duration::from_secs(1), async || {
            crate::children(pid)?.first().copied().context("standalone has no child")
        })
        .await
    }
}

impl Drop for Standalone {
    /// Ends it at once, and with it the nats-server, which outlives a killed parent.
    fn drop(&mut self) {
        // Once it has ended its id may be another's.
        let running = self.process.check().is_ok();
        let servers = if running { crate::children(self.process.pid()).unwrap_or_default() } else { Vec::new() };
        self.process.end();
        for server in servers {
            // A server that has ended by itself is as good.
            let _ended = Command::new("sh").args(["-c", "kill -KILL \"$0\"", &server.to_string()]).output();
        }
    }
}

fn api(data: &Path, run: &Path) -> Result<Api> {
    let run: Value = serde_json::from_slice(&fs::read(run)?)?;
    let text = |key: &str| run[key].as_str().map(str::to_owned).with_context(|| format!("run.json has no {key}"));
    let secret = |name: &str| fs::read_to_string(data.join("keys").join(name)).with_context(|| format!("no {name}"));
    let (gateway, broker, nats) = (text("gateway_url")?, text("broker_url")?, text("nats_url")?);
    Api::new(&gateway, &broker, &nats, &secret("admin.token")?, &secret("broker.password")?)
}
