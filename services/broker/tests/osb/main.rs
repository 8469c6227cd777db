//! The Open Service Broker API over HTTP, on a real nats-server, with a provisioner of a few lines behind it.
//!
//! Numbers in comments are those of the conformance checklist.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod alerts;
mod audit;
mod authority;
#[path = "../shared/behind.rs"]
mod behind;
mod bindings;
mod conformance;
mod fuzz;
mod instances;
mod operations;
mod protocol;
mod secrets;
mod updates;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use broker::Broker;
use bus::Door;
use host::{Host, InProcess, start_in_process};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::{Proxy, World};
use wire::Service;

use crate::behind::Backend;

pub(crate) const SERVICE: &str = "0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10";
pub(crate) const SMALL: &str = "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01";
pub(crate) const STANDARD: &str = "8c7d1f64-90c2-4b0e-b1d3-6e4c9a2f5b02";
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A broker replica with a platform that talks to it.
pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) backend: Arc<Mutex<Backend>>,
    replicas: Vec<(InProcess, String)>,
    /// The way to NATS of the replicas that can be cut off, by name.
    ways: BTreeMap<String, Proxy>,
    set: Vec<String>,
    client: Client,
    pub(crate) host: Host,
    _doors: Vec<Door>,
}

/// A path of the API.
pub(crate) fn instance(id: &str) -> String {
    format!("/v2/service_instances/{id}")
}

pub(crate) fn binding(instance: &str, id: &str) -> String {
    format!("/v2/service_instances/{instance}/service_bindings/{id}")
}

/// The query that DELETE needs.
pub(crate) fn ids(plan: &str) -> String {
    format!("?service_id={SERVICE}&plan_id={plan}")
}

pub(crate) fn provision_body(parameters: Value) -> Value {
    json!({
        "service_id": SERVICE, "plan_id": SMALL, "organization_guid": "org", "space_guid": "space",
        "parameters": parameters, "context": { "platform": "kubernetes", "namespace": "n" }, "maintenance_info": {},
    })
}

pub(crate) fn bind_body(parameters: Value) -> Value {
    json!({ "service_id": SERVICE, "plan_id": SMALL, "parameters": parameters, "bind_resource": {} })
}

impl Fixture {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(None, &[]).await
    }

    /// With a catalog of its own, and settings.
    pub(crate) async fn start_with(catalog: Option<&str>, set: &[&str]) -> Result<Self> {
        let mut fixture = Self::empty(catalog, set).await?;
        fixture.add_replica("a").await?;
        Ok(fixture)
    }

    /// Without a replica yet.
    pub(crate) async fn empty(catalog: Option<&str>, set: &[&str]) -> Result<Self> {
        // A second test finds it installed already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let world = World::start().await?;
        let host = Host::connect(Service::IndexProvisioner, world.common("test", &[])?).await?;
        let backend = Arc::<Mutex<Backend>>::default();
        let doors = behind::doors(&host, &backend).await?;
        let client = Client::builder().no_proxy().build()?;
        let mut set: Vec<String> = set.iter().map(|&one| one.to_owned()).collect();
        if let Some(catalog) = catalog {
            std::fs::create_dir_all(world.data_dir())?;
            let path = world.data_dir().with_file_name("catalog.yaml");
            std::fs::write(&path, catalog)?;
            set.extend([format!("broker.catalog_path={}", path.display()), "broker.offerings=".to_owned()]);
            let keys = world.data_dir().with_file_name("sealing-keys");
            std::fs::write(&keys, format!("k1:{}\n", data_encoding::BASE64.encode(&[7; 32])))?;
            set.push(format!("broker.sealing_keys=file:{}", keys.display()));
        }
        let (replicas, ways) = (Vec::new(), BTreeMap::new());
        Ok(Self { world, backend, replicas, ways, set, client, host, _doors: doors })
    }

    pub(crate) async fn add_replica(&mut self, name: &str) -> Result<()> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("broker.address=127.0.0.1:{port}");
        let mut set = vec!["common.lease_ttl=1s", &address, "broker.gateway_url=http://logs.example.org/"];
        set.extend(self.set.iter().map(String::as_str));
        let nats = self.ways.get(name).map(|way| format!("common.nats_url=nats://127.0.0.1:{}", way.port()));
        set.extend(nats.iter().map(String::as_str));
        let settings = self.world.settings(name, &set)?;
        let replica = start_in_process::<Broker>(&settings, None).await?;
        self.replicas.push((replica, format!("http://127.0.0.1:{port}")));
        Ok(())
    }

    /// Adds a replica that can be cut off.
    pub(crate) async fn add_mortal(&mut self, name: &str) -> Result<()> {
        let url = self.world.nats.url();
        let port = url.rsplit(':').next().unwrap_or_default().trim_end_matches('/').parse()?;
        self.ways.insert(name.to_owned(), Proxy::open(port).await?);
        self.add_replica(name).await
    }

    /// Cuts a replica off from everything in the middle of what it does: for the others it is dead, and does not know it.
    pub(crate) fn cut(&self, name: &str) {
        self.ways[name].cut();
    }

    pub(crate) async fn stop_replica(&mut self, number: usize) -> Result<()> {
        Ok(self.replicas.remove(number).0.stop().await?)
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.ways.values().for_each(Proxy::mend);
        while !self.replicas.is_empty() {
            self.stop_replica(0).await?;
        }
        Ok(())
    }

    /// Where a replica listens.
    pub(crate) fn url(&self, replica: usize) -> &str {
        &self.replicas[replica].1
    }

    /// A request with nothing but method and path.
    pub(crate) fn bare(&self, replica: usize, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("{}{path}", self.replicas[replica].1))
    }

    /// A request of a platform that speaks 2.17.
    pub(crate) fn request(&self, replica: usize, method: &str, path: &str) -> RequestBuilder {
        let request = self.bare(replica, method, path);
        request.basic_auth("admin", Some("open sesame")).header("X-Broker-API-Version", "2.17")
    }

    /// Asks a replica once; `None` while no leader is known.
    pub(crate) async fn try_at(
        &self,
        replica: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let mut request = self.request(replica, method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        Some(answer(request).await).filter(|(status, _)| *status != 503)
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.ask_at(0, method, path, body).await
    }

    /// Asks a replica; what it answers while no leader is known is asked again, as a platform would.
    pub(crate) async fn ask_at(&self, replica: usize, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        for _ in 0..100 {
            if let Some(answer) = self.try_at(replica, method, path, body).await {
                return answer;
            }
        }
        panic!("{method} {path}: no leader was found");
    }
}

/// Sends a request; every answer must be a JSON object (9, 10).
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert!(body.is_object(), "{body}");
    if status >= 400 {
        for key in ["error", "description"] {
            let text = body[key].as_str().unwrap_or_default();
            assert!(!text.is_empty() && text.chars().count() <= 255, "{status}: {body}");
        }
    }
    (status, body)
}
