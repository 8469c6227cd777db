//! How many events go in, and what each costs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream::StorageType};
use ingest::sample::Generator;
use logboom_tests::{NatsCluster, Publisher, Standalone};
use testkit::NatsOptions;
use types::Timestamp;

use crate::figure::{Cost, Figure, Figures, Goal, Meter};

/// Events of one run; enough for some seconds.
const EVENTS: usize = 50_000;
/// Publishes that wait for their acknowledgement at once: what a usual client does.
const WINDOW: usize = 256;
/// The size of one event.
const EVENT_BYTES: usize = 300;
/// Routing keys.
const KEYS: usize = 16;
/// Lines of one HTTP request.
const LINES: usize = 2_000;

/// One event of exactly so many bytes.
fn line_of(number: usize, bytes: usize) -> String {
    let head = format!("{{\"level\":\"info\",\"service\":\"cart\",\"msg\":\"order {number} was paid\",\"fill\":\"");
    let tail = "\"}";
    let fill = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(fill))
}

fn line(number: usize) -> String {
    line_of(number, EVENT_BYTES)
}

/// `prefix` numbers the ids of one run.
fn events(subject: impl Fn(usize) -> String, prefix: &str) -> Vec<(String, String, String)> {
    (0..EVENTS).map(|n| (subject(n), format!("{prefix}-{n}"), line(n))).collect()
}

/// The front door with JetStream publishes, against a plain JetStream stream of one replica in the same server.
pub(crate) async fn publish(figures: &mut Figures) -> Result<()> {
    let mut up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    let door = up.api.bind("bench", "write").await?.publisher().await?;
    let plain = plain_stream(&up).await?;
    // Both once before they are measured: the first events open files and learn columns.
    for (publisher, subject) in [(&door, "logs.bench.warm"), (&plain, "peer.warm")] {
        let warm = (0..1_000).map(|n| (subject.to_owned(), format!("warm-{n}"), line(n)));
        publisher.all(WINDOW, warm.collect::<Vec<_>>()).await?;
    }
    let peer = measure(&mut up, &plain, events(|n| format!("peer.k{}", n % KEYS), "peer")).await?;
    let ours = measure(&mut up, &door, events(|n| format!("logs.bench.k{}", n % KEYS), "ours")).await?;
    let count = up.api.count("SELECT count(*) AS n FROM bench").await?;
    ensure!(count == i64::try_from(EVENTS)? + 1_000, "{count} events are there");
    let rate = |cost: Cost| EVENTS as f64 / cost.wall.as_secs_f64();
    let micros = |cost: Cost| (cost.logboom_micros + cost.nats_micros) / EVENTS as f64;
    figures.add("publish", &Figure::new("JetStream publishes, window 256", rate(ours), "events/s").peer(rate(peer)));
    figures.add("publish", &Figure::new("CPU of logboom and nats-server", micros(ours), "µs/event").peer(micros(peer)));
    Ok(())
}

/// The same with events of 200 bytes, also against a nats-server that syncs as JetStream does by default: every two minutes.
pub(crate) async fn against_plain(figures: &mut Figures) -> Result<()> {
    let mut up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    let door = up.api.bind("bench", "write").await?.publisher().await?;
    let synced = plain_stream(&up).await?;
    let lazy_server =
        NatsCluster::start_with(1, NatsOptions { sync_interval: "2m".to_owned(), ..NatsOptions::default() }).await?;
    let lazy = plain_stream_at(&lazy_server.url(), &lazy_server.platform_creds()?).await?;
    let mut rates = Vec::new();
    for (publisher, subject) in [(&synced, "peer"), (&lazy, "peer"), (&door, "logs.bench")] {
        let small = |prefix: &str, from: usize, count: usize| -> Vec<_> {
            let all = from..from + count;
            all.map(|n| (format!("{subject}.k{}", n % KEYS), format!("{prefix}-{n}"), line_of(n, 200))).collect()
        };
        publisher.all(WINDOW, small("warm", 0, 1_000)).await?;
        let cost = measure(&mut up, publisher, small("small", 1_000, EVENTS)).await?;
        rates.push(EVENTS as f64 / cost.wall.as_secs_f64());
    }
    for (name, peer, goal) in [("sync always", rates[0], 20.0), ("default sync", rates[1], 0.8)] {
        let figure = Figure::new(format!("publish 200 B against JetStream, {name}"), rates[2], "events/s");
        figures.add("segments", &figure.peer(peer).goal(Goal::AtLeast(goal * peer)));
    }
    Ok(())
}

async fn measure(up: &mut Standalone, publisher: &Publisher, events: Vec<(String, String, String)>) -> Result<Cost> {
    let meter = Meter::start(up).await?;
    publisher.all(WINDOW, events).await?;
    meter.stop()
}

/// A file stream of one replica, in the platform's account: what a user of JetStream alone would have.
async fn plain_stream(up: &Standalone) -> Result<Publisher> {
    let creds = std::fs::read_to_string(up.data().join("keys/platform.creds"))?;
    plain_stream_at(&up.api.nats_url, &creds).await
}

async fn plain_stream_at(url: &str, creds: &str) -> Result<Publisher> {
    let client = async_nats::ConnectOptions::with_credentials(creds)?.connect(url).await?;
    let config = jetstream::stream::Config {
        name: "PEER".to_owned(),
        subjects: vec!["peer.>".to_owned()],
        storage: StorageType::File,
        num_replicas: 1,
        ..jetstream::stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.context("the plain stream")?;
    Ok(Publisher::new(client))
}

/// NDJSON over HTTP, one request after the other on one connection.
pub(crate) async fn ingest(figures: &mut Figures) -> Result<()> {
    let mut up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    let binding = up.api.bind("bench", "write").await?;
    let body = |part: usize| {
        let lines: Vec<String> = (0..LINES).map(|n| line(part * LINES + n)).collect();
        lines.join("\n")
    };
    up.api.ingest("bench", &binding.token, body(0)).await?.ok()?;
    let parts = EVENTS / LINES;
    let meter = Meter::start(&mut up).await?;
    for part in 0..parts {
        let answer = up.api.ingest("bench", &binding.token, body(part)).await?.ok()?;
        ensure!(answer["accepted"] == LINES, "a request was answered {answer}");
    }
    let cost = meter.stop()?;
    let count = parts * LINES;
    figures.add(
        "ingest",
        &Figure::new("NDJSON lines, 2000 a request", count as f64 / cost.wall.as_secs_f64(), "events/s"),
    );
    let micros = (cost.logboom_micros + cost.nats_micros) / count as f64;
    // 15 CPU seconds for 5 million lines.
    figures.add("ingest", &Figure::new("CPU of logboom and nats-server", micros, "µs/event").goal(Goal::AtMost(3.0)));
    Ok(())
}

/// Mixed logs of five kinds of software, for suites that read them.
pub(crate) async fn samples(
    up: &Standalone,
    index: &str,
    start: jiff::Timestamp,
    span: Duration,
    count: u64,
) -> Result<()> {
    let publisher = up.api.bind(index, "write").await?.publisher().await?;
    let start = Timestamp::from_nanos(i64::try_from(start.as_nanosecond())?);
    let events = Generator::new(1, start, span, count).enumerate().map(|(number, sample)| {
        (format!("logs.{index}.{}", sample.software), format!("sample-{number}"), sample.payload)
    });
    publisher.all(WINDOW, events).await
}
