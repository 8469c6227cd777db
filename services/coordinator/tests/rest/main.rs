//! The REST interface over HTTP, on a real nats-server, with a segment-store of a few lines behind the coordinator.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod access;
mod health;
#[path = "../doors/stage.rs"]
#[allow(dead_code, reason = "the stage is shared with the tests of the doors, which use more of it")]
mod stage;
mod streams;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use bus::Door;
use coordinator::{Coordinator, password_line};
use host::{Host, InProcess, start_in_process};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use testkit::World;

use stage::{Shared, caller, store_doors};

pub(crate) const PASSWORD: &str = "open sesame";

/// Coordinators with a REST interface, and somebody who asks them.
pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) host: Host,
    pub(crate) store: Shared,
    pub(crate) passwords: PathBuf,
    client: Client,
    replicas: Vec<(InProcess, String)>,
    _doors: Vec<Door>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn start() -> Result<Self> {
        // A second test finds it installed already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let world = World::start().await?;
        let host = caller(&world).await?;
        let (store, doors) = store_doors(&host).await?;
        let dir = tempfile::tempdir()?;
        let passwords = dir.path().join("passwords");
        std::fs::write(&passwords, password_line("root", PASSWORD, "prn::*,READ_UPDATE")?)?;
        let client = Client::builder().no_proxy().build()?;
        let replicas = Vec::new();
        let mut fixture = Self { world, host, store, passwords, client, replicas, _doors: doors, _dir: dir };
        fixture.add_replica("a", true).await?;
        Ok(fixture)
    }

    pub(crate) async fn add_replica(&mut self, name: &str, with_passwords: bool) -> Result<()> {
        self.add_replica_with(name, with_passwords, &[]).await
    }

    pub(crate) async fn add_replica_with(&mut self, name: &str, with_passwords: bool, more: &[&str]) -> Result<()> {
        let address = format!("127.0.0.1:{}", std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let mut set = vec!["common.lease_ttl=1s".to_owned(), format!("coordinator.rest_address={address}")];
        if with_passwords {
            set.push(format!("coordinator.rest_password_file=file:{}", self.passwords.display()));
        }
        let set: Vec<&str> = set.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let replica = start_in_process::<Coordinator>(&self.world.settings(name, &set)?, None).await?;
        self.replicas.push((replica, format!("http://{address}")));
        Ok(())
    }

    /// Stops the replica that was started last.
    pub(crate) async fn stop_last(&mut self) -> Result<()> {
        let (replica, _) = self.replicas.pop().unwrap();
        Ok(replica.stop().await?)
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for (replica, _) in self.replicas {
            replica.stop().await?;
        }
        Ok(())
    }

    /// Asks a replica; the answer is `null` where there is no body.
    pub(crate) async fn ask_as(
        &self,
        (replica, user): (usize, Option<(&str, &str)>),
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.replicas[replica].1));
        if let Some((user, password)) = user {
            request = request.basic_auth(user, Some(password));
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.timeout(Duration::from_secs(30)).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.ask_as((0, Some(("root", PASSWORD))), method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, Value::Null).await
    }

    /// Waits until the leader's doors are open.
    pub(crate) async fn with_scope(&self, scope: &str) {
        testkit::eventually(stage::SOON, async || {
            let (status, _) = self.ask(Method::POST, "/scopes", json!({ "scopeName": scope })).await;
            [201, 409].contains(&status)
        })
        .await;
    }
}

/// A stream to create.
pub(crate) fn stream(name: &str, segments: u16) -> Value {
    json!({ "streamName": name, "scalingPolicy": { "type": "FIXED_NUM_SEGMENTS", "minSegments": segments } })
}
