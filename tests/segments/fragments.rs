//! Queries that run beside the rows: by two stores, and by one that dies in the middle of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Answer, Api, Cluster, Options, event, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use wire::Service;

use crate::{
    numbered::LONG,
    shared::{HASTE, on},
};

const EVENTS: i64 = 3_000;

fn options() -> Options {
    let services = [(Service::Coordinator, 1), (Service::SegmentStore, 2), (Service::Gateway, 1)].to_vec();
    // Chunks of what is more than a little, and a tail that stays where it is.
    let set = ["gateway.fragments_from=0B", "segment_store.flush_interval=1h"];
    Options { services, ..Options::default() }.set(HASTE).set(&set)
}

async fn ingest(api: &Api) {
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    for part in 0..10 {
        let lines = (0..EVENTS).filter(|n| n % 10 == part).map(|n| {
            let level = if n % 5 == 0 { "error" } else { "info" };
            let at = start + SignedDuration::from_millis(n * 10);
            event(
                at,
                &format!("svc-{}", n % 8),
                level,
                &format!("order {n} counted"),
                json!({ "amount": n, "key": format!("k{}", n % 64) }),
            )
        });
        let body = lines.collect::<Vec<_>>().join("\n");
        let path = "/api/v1/indexes/beside/ingest?routing_key_field=key";
        let request = api.gateway(Method::POST, path, &api.admin_token).header("content-type", "application/x-ndjson");
        Answer::of(request.body(body)).await.unwrap().ok().unwrap();
    }
}

/// The answer with what it cost.
async fn ask(api: &Api, sql: &str) -> Value {
    api.try_sql(sql).await.unwrap().ok().unwrap()
}

/// What each query must answer, in fragments or not.
async fn check(api: &Api) -> Vec<Value> {
    let mut stats = Vec::new();
    let mut check = async |sql: &str, rows: Value| {
        let answer = ask(api, sql).await;
        assert_eq!(answer["rows"], rows, "{sql}: {answer}");
        stats.push(answer["stats"].clone());
    };
    let all = json!([{ "n": EVENTS, "s": EVENTS * (EVENTS - 1) / 2, "lo": 0, "hi": EVENTS - 1 }]);
    check("SELECT count(*) AS n, sum(amount) AS s, min(amount) AS lo, max(amount) AS hi FROM beside", all).await;
    let by_service: Vec<Value> = (0..8)
        .map(|service| {
            let own: Vec<i64> = (0..EVENTS).filter(|n| n % 8 == service && n % 5 == 0).collect();
            let (n, sum) = (own.len(), own.iter().sum::<i64>());
            json!({ "service": format!("svc-{service}"), "n": n, "a": sum as f64 / n as f64 })
        })
        .collect();
    let text = "SELECT service, count(*) AS n, avg(amount) AS a FROM beside WHERE severity = 'error' GROUP BY service ORDER BY service";
    check(text, json!(by_service)).await;
    let last: Vec<Value> = (EVENTS - 3..EVENTS).rev().map(|n| json!({ "amount": n })).collect();
    check("SELECT amount FROM beside ORDER BY _time DESC LIMIT 3", json!(last)).await;
    check("SELECT amount FROM beside WHERE _msg = 'order 1234 counted' LIMIT 5", json!([{ "amount": 1234 }])).await;
    stats
}

async fn metric(cluster: &Cluster, store: &str) -> u64 {
    let text = cluster.metrics(store).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("lb_segment_store_fragments_total{outcome=\"answered\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn queries_run_beside_the_rows_and_survive_a_store_that_dies() {
    let mut cluster = Cluster::start_with(options()).await.unwrap();
    let (client, streams) = on(&cluster, "beside", 8).await;
    ingest(&cluster.api).await;
    for stats in check(&cluster.api).await {
        assert_eq!((&stats["fragments"], &stats["fragments_here"]), (&json!(2), &json!(0)), "{stats}");
    }
    for store in ["segment-store/a", "segment-store/b"] {
        assert!(metric(&cluster, store).await >= 4, "{store} has run fragments");
    }
    let told = cluster.api.sql("EXPLAIN SELECT severity, count(*) FROM beside GROUP BY severity").await.unwrap();
    assert_eq!((told.text(0, "what").unwrap().as_str(), told.number(0, "count").unwrap()), ("fragments", 2));
    let told = cluster.api.sql("EXPLAIN SELECT median(amount) FROM beside").await.unwrap();
    assert_eq!(told.number(0, "count").unwrap(), 0);
    assert!(told.text(0, "why").unwrap().contains("only count, sum, min, max and avg"), "{told:?}");

    // One of them dies when it has begun its next fragment.
    cluster.kill9("segment-store/b").unwrap();
    cluster.spawn_doomed("segment-store/b", &["segment_store.crash_point=fragment_begun:1".to_owned()]).unwrap();
    cluster.wait_until_ready("segment-store/b").await.unwrap();
    eventually("all containers are served, some of them by it", LONG, async || {
        client.tails(&streams.index).await?;
        let placed = cluster.api.ask(Method::GET, "/api/v1/placement", None).await?.ok()?;
        let own = placed["assignments"].as_array().into_iter().flatten().filter(|one| one["replica"] == "b").count();
        anyhow::ensure!(own > 0, "b owns nothing yet: {placed}");
        Ok(())
    })
    .await
    .unwrap();
    let mut fragments = 0;
    while !cluster.has_ended("segment-store/b").unwrap() {
        let answer = ask(&cluster.api, "SELECT count(*) AS n, sum(amount) AS s FROM beside").await;
        assert_eq!(answer["rows"], json!([{ "n": EVENTS, "s": EVENTS * (EVENTS - 1) / 2 }]), "{answer}");
        fragments = ["fragments", "fragments_here"].iter().filter_map(|name| answer["stats"][name].as_i64()).sum();
    }
    // The one that died with it ran where its containers went, or in the gateway.
    assert_eq!(fragments, 2, "both came to their end");
    eventually("one store answers all", Duration::from_secs(60), async || {
        let answer = cluster.api.try_sql("SELECT count(*) AS n FROM beside").await?.ok()?;
        anyhow::ensure!(answer["rows"] == json!([{ "n": EVENTS }]), "{answer}");
        Ok(())
    })
    .await
    .unwrap();
    check(&cluster.api).await;
    cluster.check().unwrap();
}
