//! A small control service and processes that can be killed, for the tests beside it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this module")]

use std::{collections::BTreeMap, time::Duration};

use host::{ControlState, Host, Ledger, StartError};
use serde::{Deserialize, Serialize};
use testkit::{World, eventually};
use tokio::runtime::Runtime;
use types::Timestamp;
use wire::Problem;

/// What is counted, and what is begun and not ended.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub sum: i64,
    pub log: Vec<(i64, Timestamp)>,
    pub begun: BTreeMap<String, i64>,
    pub ended: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Add(i64),
    Begin(String, i64),
    End(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Added(i64),
    Begun(String, i64),
    Ended(String),
}

impl ControlState for Tally {
    const SERVICE: wire::Service = wire::Service::Alerter;
    type Command = Command;
    type Event = Event;
    type Error = Problem;

    fn decide(&self, command: Command, _now: Timestamp) -> Result<Vec<Event>, Problem> {
        match command {
            Command::Add(0) => Ok(vec![]),
            Command::Add(n) if n < 0 => Err(Problem::bad_request("Negative", n)),
            Command::Add(n) => Ok(vec![Event::Added(n), Event::Added(0)]),
            Command::Begin(id, n) => Ok(vec![Event::Begun(id, n)]),
            Command::End(id) if self.begun.contains_key(&id) => Ok(vec![Event::Ended(id)]),
            Command::End(_) => Ok(vec![]),
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Added(n) => {
                self.sum += n;
                self.log.push((*n, at));
            }
            Event::Begun(id, n) => drop(self.begun.insert(id.clone(), *n)),
            Event::Ended(id) => {
                if let Some(n) = self.begun.remove(id) {
                    self.ended.insert(id.clone(), n);
                }
            }
        }
    }
}

/// A replica with threads of its own, so that it can die without a word.
pub struct Process {
    runtime: Option<Runtime>,
    pub host: Host,
    pub ledger: Ledger<Tally>,
}

impl Process {
    pub async fn start(world: &World, replica: &str, set: &[&str]) -> Result<Self, StartError> {
        let common = world.common(replica, set).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let started = runtime.spawn(async move {
            let host = Host::connect(Tally::SERVICE, common).await?;
            let ledger = Ledger::<Tally>::start(&host).await?;
            Ok::<_, StartError>((host, ledger))
        });
        match started.await.unwrap() {
            Ok((host, ledger)) => Ok(Self { runtime: Some(runtime), host, ledger }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// A replica that leads.
    pub async fn leader(world: &World, replica: &str, set: &[&str]) -> Self {
        let process = Self::start(world, replica, set).await.unwrap();
        process.leads().await;
        process
    }

    pub async fn leads(&self) {
        eventually(Duration::from_secs(5), async || self.ledger.is_leader()).await;
    }

    pub async fn add(&self, n: i64) {
        let (ledger, expected) = (self.ledger.clone(), vec![Event::Added(n), Event::Added(0)]);
        assert_eq!(ledger.submit(Command::Add(n)).await.unwrap(), expected);
    }

    pub fn state(&self) -> Tally {
        self.ledger.read(Tally::clone)
    }

    pub fn seq(&self) -> u64 {
        *self.ledger.changes().borrow()
    }

    pub async fn reaches(&self, seq: u64) {
        eventually(Duration::from_secs(5), async || self.seq() >= seq).await;
    }

    /// Tasks that are begun while this lives belong to the process and die with it.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.as_ref().unwrap().enter()
    }

    /// Stands still as by SIGSTOP until the answer is dropped.
    pub fn pause(&self) -> std::sync::mpsc::SyncSender<()> {
        let (go_on, paused) = std::sync::mpsc::sync_channel::<()>(1);
        let (holds, held) = std::sync::mpsc::sync_channel::<()>(1);
        // Its only thread waits here; the answer that comes is that nobody can send any more.
        self.runtime.as_ref().unwrap().spawn(async move {
            holds.send(()).unwrap();
            paused.recv().unwrap_err()
        });
        held.recv().unwrap();
        go_on
    }

    /// Dies as by kill -9: no drain, no farewell, connections cut.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends in good order.
    pub async fn drain(self) {
        let host = self.host.clone();
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move { host.drain().await }).await.unwrap();
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
