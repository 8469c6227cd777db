//! The broker: with the whole installation behind it, and alone with as many instances as a large platform has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::Event;
use data_encoding::BASE64;
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use logboom_tests::{Api, Cluster, Options, StandIn, Standalone, eventually, usage};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::figure::{Figure, Figures, Goal};

const SUITE: &str = "broker";
/// Instances that are provisioned one after the other, each with a binding.
const PROVISIONED: usize = 200;
/// Connections that are cut, one after the other.
const CUT: usize = 60;
/// Connections that ask for the catalog.
const CONNECTIONS: usize = 32;
/// How long they ask.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// Instances of the broker that is measured alone, each with two bindings; a build for debugging would take an hour for more.
const INSTANCES: usize = if cfg!(debug_assertions) { 500 } else { 10_000 };
/// Requests in flight while they are made.
const CREATIONS: usize = 64;
/// What a figure gives up after.
const WITHIN: Duration = Duration::from_secs(60);

/// Every figure of the broker.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let up = Standalone::start().await?;
    own_store(&up.api, figures).await?;
    cut(&up.api, figures).await?;
    catalog(&up.api, figures).await?;
    drop(up);
    many(figures).await
}

/// Ids of offering and plan, as bodies and queries have them.
struct Ids {
    service: String,
    plan: String,
}

impl Ids {
    async fn of(api: &Api) -> Result<Self> {
        let (service, plan) = api.plan().await?;
        Ok(Self { service, plan })
    }

    async fn provision(&self, api: &Api, name: &str) -> Result<u16> {
        let body = json!({
            "service_id": self.service, "plan_id": self.plan, "organization_guid": "org", "space_guid": "space",
            "parameters": { "index": name, "segments": 1 },
        });
        let answer = api.osb(Method::PUT, &format!("/v2/service_instances/{name}"), Some(&body)).await?;
        ensure!(matches!(answer.status, 200 | 201), "provision answered {}: {}", answer.status, answer.text);
        Ok(answer.status)
    }

    async fn bind(&self, api: &Api, name: &str, binding: &str) -> Result<()> {
        let body = json!({ "service_id": self.service, "plan_id": self.plan, "parameters": { "role": "write" } });
        let path = format!("/v2/service_instances/{name}/service_bindings/{binding}");
        let answer = api.osb(Method::PUT, &path, Some(&body)).await?;
        ensure!(answer.status == 201, "bind answered {}: {}", answer.status, answer.text);
        Ok(())
    }
}

/// A platform that does one thing after the other.
async fn own_store(api: &Api, figures: &mut Figures) -> Result<()> {
    let ids = Ids::of(api).await?;
    let (mut provisions, mut binds) = (Vec::new(), Vec::new());
    for n in 0..PROVISIONED {
        let name = format!("bench-{n}");
        let begun = Instant::now();
        ids.provision(api, &name).await?;
        provisions.push(begun.elapsed());
        let begun = Instant::now();
        ids.bind(api, &name, &format!("bench-binding-{n}")).await?;
        binds.push(begun.elapsed());
    }
    figures.add_durations(SUITE, "provision, own store", &provisions, Some(Goal::AtMost(100.0)))?;
    figures.add_durations(SUITE, "bind", &binds, Some(Goal::AtMost(50.0)))
}

/// From the unbind request on its way to the connection's end at the application.
async fn cut(api: &Api, figures: &mut Figures) -> Result<()> {
    api.provision("cut", 1).await?;
    let mut durations = Vec::new();
    for _ in 0..CUT {
        let binding = api.bind("cut", "write").await?;
        let (tell, told) = oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let options = binding.options()?.event_callback(move |event| {
            let first = matches!(event, Event::Disconnected).then(|| tell.lock().unwrap().take()).flatten();
            // Who was cut off comes back and is cut off again; only the first time counts.
            let _heard = first.map(|tell| tell.send(Instant::now()));
            async {}
        });
        let client = options.connect(&binding.nats_url).await?;
        client.publish("logs.cut", "it works".into()).await?;
        client.flush().await?;
        let begun = Instant::now();
        api.unbind(&binding).await?;
        let ended = timeout(WITHIN, told).await.context("the connection was not cut")??;
        durations.push(ended.saturating_duration_since(begun));
    }
    figures.add_durations(SUITE, "unbind sent to connection cut", &durations, Some(Goal::AtMost(100.0)))
}

/// Plain HTTP on connections that stay: a client of a few lines, so that the broker's own cost is seen.
async fn catalog(api: &Api, figures: &mut Figures) -> Result<()> {
    let address = api.broker.trim_start_matches("http://").to_owned();
    let secret = BASE64.encode(format!("admin:{}", api.broker_password).as_bytes());
    let request = format!(
        "GET /v2/catalog HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {secret}\r\nX-Broker-API-Version: 2.17\r\n\r\n"
    );
    let begun = Instant::now();
    let asking = (0..CONNECTIONS).map(|_| tokio::spawn(ask(address.clone(), request.clone(), begun + ASKED_FOR)));
    let mut count = 0;
    for asked in try_join_all(asking).await? {
        count += asked?;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let name = format!("catalog, {CONNECTIONS} connections, one request each at a time");
    figures.add(SUITE, &Figure::new(name, rate, "req/s").goal(Goal::AtLeast(20_000.0)));
    Ok(())
}

/// Asks on one connection; answers how often.
async fn ask(address: String, request: String, until: Instant) -> Result<usize> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut count, mut answer) = (0, vec![0; 256 << 10]);
    while Instant::now() < until {
        stream.write_all(request.as_bytes()).await?;
        let (mut filled, mut whole) = (0, usize::MAX);
        while filled < whole {
            let read = stream.read(&mut answer[filled..]).await?;
            ensure!(read > 0, "the broker closed the connection");
            filled += read;
            if whole == usize::MAX {
                whole = length_of(&answer[..filled])?.unwrap_or(whole);
                ensure!(whole == usize::MAX || whole <= answer.len(), "the catalog is larger than this client takes");
            }
        }
        count += 1;
    }
    Ok(count)
}

/// Bytes of a whole answer, once its head is there.
fn length_of(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head])?.to_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "the catalog was refused: {text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
    Ok(Some(head + 4 + length.trim().parse::<usize>()?))
}

/// Two brokers and nothing behind them but a stand-in for the provisioner, which answers at once.
async fn many(figures: &mut Figures) -> Result<()> {
    let mut cluster = Cluster::launch(Options::brokers(2)).await?;
    let stand_in = StandIn::start(&cluster.steady_bus("stand-in").await?).await?;
    cluster.wait_until_all_ready().await?;
    let leader = cluster.leader("broker").await?;
    let (api, ids) = (cluster.broker(&leader)?, Ids::of(&cluster.api).await?);
    let begun = Instant::now();
    stream::iter(0..INSTANCES)
        .map(|n| {
            let (api, ids) = (&api, &ids);
            async move {
                let name = format!("many-{n}");
                ids.provision(api, &name).await?;
                ids.bind(api, &name, &format!("one-{n}")).await?;
                ids.bind(api, &name, &format!("two-{n}")).await
            }
        })
        .buffer_unordered(CREATIONS)
        .try_collect::<()>()
        .await?;
    let rate = (3 * INSTANCES) as f64 / begun.elapsed().as_secs_f64();
    let held = format!("{INSTANCES} instances, {} bindings", 2 * INSTANCES);
    figures.add(SUITE, &Figure::new(format!("{held}: made"), rate, "req/s"));
    let mut most = 0;
    for name in cluster.replicas() {
        most = most.max(usage(cluster.process(&name)?.pid())?.rss_kib);
    }
    let memory = Figure::new(format!("{held}: memory of a replica"), most as f64 / 1024.0, "MiB");
    figures.add(SUITE, &memory.goal(Goal::AtMost(300.0)));
    restarts(&mut cluster, &leader, &held, figures).await?;
    failover(&mut cluster, &ids, &held, figures).await?;
    ensure!(stand_in.with(|made| made.indexes.len()) == INSTANCES, "nothing was lost or made twice");
    Ok(())
}

/// A follower that crashed: with the state that it kept, and with nothing.
async fn restarts(cluster: &mut Cluster, leader: &str, held: &str, figures: &mut Figures) -> Result<()> {
    let follower = cluster.replicas().into_iter().find(|name| name != leader).context("there is one replica only")?;
    for (what, forgets) in [("restart to ready", false), ("restart to ready, local state lost", true)] {
        cluster.kill9(&follower)?;
        if forgets {
            std::fs::remove_dir_all(cluster.local_dir(&follower))?;
        }
        let begun = Instant::now();
        cluster.restart(&follower).await?;
        let figure = Figure::new(format!("{held}: {what}"), begun.elapsed().as_secs_f64(), "s");
        figures.add(SUITE, &figure.goal(Goal::AtMost(3.0)));
    }
    Ok(())
}

/// kill -9 of the leader until the other replica answers a platform's repeat and begins something new.
async fn failover(cluster: &mut Cluster, ids: &Ids, held: &str, figures: &mut Figures) -> Result<()> {
    let leader = cluster.leader("broker").await?;
    let survivor = cluster.replicas().into_iter().find(|name| *name != leader).context("there is one replica only")?;
    let api = cluster.broker(&survivor)?;
    cluster.kill9(&leader)?;
    let begun = Instant::now();
    eventually("the other replica leads", WITHIN, async || {
        ensure!(ids.provision(&api, "many-0").await? == 200, "it was there");
        Ok(())
    })
    .await?;
    let figure = Figure::new(format!("{held}: kill -9 of the leader to the next"), begun.elapsed().as_secs_f64(), "s");
    figures.add(SUITE, &figure.goal(Goal::AtMost(3.0)));
    Ok(())
}
