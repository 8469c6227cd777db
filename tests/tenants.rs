//! Tenants of one real installation: what their quotas refuse at each door, and what one feels of another.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, shows what it saw, and starts processes"
)]

use std::time::Duration;

use anyhow::ensure;
use bus::BusOptions;
use client::{BindingCredentials, Client, WriterOptions};
use logboom_tests::{Answer, Binding, Flood, Standalone, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;
use types::RoutingKey;
use wire::views::{Quota, Role};

const LONG: Duration = Duration::from_secs(30);

async fn installation(index: &str) -> (Standalone, Binding) {
    let up = Standalone::start().await.unwrap();
    up.api.provision(index, 2).await.unwrap();
    let binding = up.api.bind(index, "admin").await.unwrap();
    (up, binding)
}

async fn count(up: &Standalone, index: &str) -> u64 {
    let count = up.api.count(&format!("SELECT count(*) AS n FROM {index}")).await.unwrap();
    u64::try_from(count).unwrap()
}

#[tokio::test]
async fn every_door_refuses_what_the_plan_does_not_allow() {
    let (up, binding) = installation("shop").await;
    let publisher = binding.publisher().await.unwrap();
    publisher.until_acked("logs.shop", "first", "{\"msg\":\"first\"}").await.unwrap();
    up.limit("shop", Quota { bytes_per_day: Some(30), queries: Some(1), ..Quota::default() }).await.unwrap();

    // A plain publisher with JetStream's client: the acknowledgement is an error that names the quota.
    let mut taken = 1;
    let told = eventually("a refusal over NATS", LONG, async || {
        match publisher.once("logs.shop", &format!("n-{taken}"), "{\"msg\":\"more\"}").await {
            Ok(_) => {
                taken += 1;
                anyhow::bail!("it was taken")
            }
            Err(error) => Ok(format!("{error:#}")),
        }
    })
    .await
    .unwrap();
    assert!(told.contains("QuotaBytes: log index shop takes 30 bytes on a day of UTC: try again in "), "{told}");
    // Whoever does not wait for an answer is refused as well, and nobody is told.
    for _ in 0..100 {
        publisher.client().publish("logs.shop", "{\"msg\":\"nobody listens\"}".into()).await.unwrap();
    }
    publisher.client().flush().await.unwrap();
    // The same day counts at the other door.
    let refused = eventually("a refusal over HTTP", LONG, async || {
        let answer = up.api.ingest("shop", &binding.token, "{\"msg\":\"a line of more than thirty bytes\"}\n").await?;
        ensure!(answer.status != 200, "it was taken");
        Ok(answer)
    })
    .await
    .unwrap();
    assert_eq!((refused.status, refused.kind()), (429, "QuotaBytes"), "{}", refused.text);

    // One tail, and no query beside it.
    let tail = up.api.gateway(Method::GET, "/api/v1/indexes/shop/tail", &binding.token);
    let mut tail = tail.send().await.unwrap();
    assert!(tail.chunk().await.unwrap().is_some(), "the tail is open");
    let query =
        || up.api.gateway(Method::POST, "/api/v1/sql", &binding.token).json(&json!({"sql": "SELECT _msg FROM shop"}));
    let refused = query().send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let refused: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["kind"], "QuotaQueries", "{refused}");
    let second = up.api.gateway(Method::GET, "/api/v1/indexes/shop/tail", &binding.token);
    assert_eq!(Answer::of(second).await.unwrap().kind(), "QuotaQueries");
    drop(tail);
    eventually("the query is answered once the tail is gone", LONG, async || {
        let answer = Answer::of(query()).await?;
        ensure!(answer.status == 200, "{}", answer.text);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(count(&up, "shop").await, taken, "what was refused is not there");
}

#[tokio::test]
async fn a_writer_waits_for_its_quota_and_loses_nothing() {
    const EVENTS: u64 = 500;
    let (up, binding) = installation("shop").await;
    up.limit("shop", Quota { events_per_second: Some(100), ..Quota::default() }).await.unwrap();
    let credentials = BindingCredentials {
        nats_url: binding.nats_url.clone(),
        nats_creds: binding.creds.clone(),
        index: "shop".parse().unwrap(),
        role: Role::Admin,
        inbox_prefix: binding.inbox_prefix.clone(),
    };
    let options = BusOptions { name: "tests/tenants".to_owned(), ..BusOptions::default() };
    let client = Client::connect_with_binding(&credentials, options).await.unwrap();
    let mut options = WriterOptions::new("importer".parse().unwrap());
    // Small blocks, so that several have to wait; the writer would have given up long before all were taken.
    (options.block_bytes_max, options.give_up_after) = (1 << 10, Duration::from_secs(1));
    let writer = client.event_writer("shop".parse().unwrap(), options).await.unwrap();
    let begun = Instant::now();
    for n in 0..EVENTS {
        let key = RoutingKey::new(&format!("cart-{}", n % 20)).unwrap();
        let _receipt = writer.write(Some(&key), format!("{{\"msg\":\"event {n}\"}}").into()).await.unwrap();
    }
    writer.close().await.unwrap();
    let waited = begun.elapsed();
    assert_eq!(count(&up, "shop").await, EVENTS);
    let distinct = up.api.count("SELECT count(DISTINCT _msg) AS n FROM shop").await.unwrap();
    assert_eq!(u64::try_from(distinct).unwrap(), EVENTS, "each once");
    // A burst of 200 at once; the last block may be paid for later.
    assert!(waited > Duration::from_millis(1_500), "500 events at 100 a second took {waited:?}");
}

/// The figure itself is a bench's (`just bench tenants`); here it only must not be out of all proportion.
#[tokio::test]
async fn a_flood_does_not_slow_down_another_tenant() {
    let seen = Flood::measure(400).await.unwrap();
    let (alone, beside) = (Flood::p99(&seen.alone), Flood::p99(&seen.beside));
    println!(
        "p99 of the quiet tenant: {alone:?} alone, {beside:?} beside a flood of {} events, of which {} were refused",
        seen.sent, seen.refused
    );
    assert!(beside < alone * 20 + Duration::from_millis(500), "{alone:?} alone, {beside:?} beside the flood");
    assert!(seen.refused > seen.taken, "{seen:?}");
}
