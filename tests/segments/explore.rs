//! Looking at a stream as it comes and as it was, by people who are slower than it, across a scale.

use std::time::Duration;

use logboom_tests::{Answer, Api, Cluster, Options, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpSocket,
    time::timeout,
};
use wire::Service;

use crate::{
    numbered::LONG,
    shared::{HASTE, on},
};

const KEYS: i64 = 16;
const AT_ONCE: i64 = 250;

/// Sends events `from .. to`, whose keys are the numbers modulo [`KEYS`].
async fn send(api: &Api, from: i64, to: i64, filler: &str) {
    let mut at = from;
    while at < to {
        let end = to.min(at + AT_ONCE);
        let lines = (at..end).map(|n| json!({ "msg": filler, "n": n, "key": format!("k{}", n % KEYS) }).to_string());
        let body = lines.collect::<Vec<_>>().join("\n");
        let path = "/api/v1/indexes/look/ingest?routing_key_field=key";
        Answer::of(api.gateway(Method::POST, path, &api.admin_token).body(body)).await.unwrap().ok().unwrap();
        at = end;
    }
}

async fn around(api: &Api, n: i64) -> Vec<i64> {
    let found = api.sql(&format!("SELECT _segment, _offset FROM look WHERE n = {n}")).await.unwrap();
    let (segment, offset) = (found.text(0, "_segment").unwrap(), found.number(0, "_offset").unwrap());
    let path = format!("/api/v1/indexes/look/context?segment={segment}&offset={offset}&before=3&after=3&same=key");
    let answer = api.ask(Method::GET, &path, None).await.unwrap().ok().unwrap();
    answer["rows"].as_array().unwrap().iter().map(|row| row["row"]["n"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn what_a_slow_reader_misses_is_counted_and_context_goes_across_a_scale() {
    let services = [(Service::Coordinator, 1), (Service::SegmentStore, 1), (Service::Gateway, 1)].to_vec();
    let cluster = Cluster::start_with(Options { services, ..Options::default() }.set(HASTE)).await.unwrap();
    let (_client, streams) = on(&cluster, "look", 2).await;
    let api = &cluster.api;
    send(api, 0, 400, "short").await;
    streams.split(0).await.unwrap();
    send(api, 400, 800, "short").await;
    for n in [380, 399, 400, 415] {
        let expected: Vec<i64> = (-3..=3).map(|step| n + step * KEYS).collect();
        assert_eq!(around(api, n).await, expected, "around {n}");
    }
    eventually("the first events lie in chunks", LONG, async || {
        let stats = api.try_sql("SELECT count(*) AS n FROM look WHERE n < 400").await?.ok()?["stats"].clone();
        anyhow::ensure!(stats["chunks"].as_i64() > Some(0), "{stats}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(around(api, 400).await, (-3..=3).map(|step| 400 + step * KEYS).collect::<Vec<_>>());

    // A reader with a small window takes nothing while ten megabytes come.
    let request = api.gateway(Method::GET, "/", "").build().unwrap();
    let url = request.url();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let address = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let head = format!(
        "GET /api/v1/indexes/look/tail?slow=drop&query=n%3E%3D1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        api.admin_token
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::with_capacity(1_024, socket).lines();
    let mut next = async || -> String {
        timeout(Duration::from_secs(20), lines.next_line()).await.expect("it says something").unwrap().unwrap()
    };
    while !next().await.contains("tail of look") {}
    send(api, 800, 11_000, &"x".repeat(1_000)).await;
    let (mut event, mut rows, mut rate) = (String::new(), Vec::new(), Value::Null);
    while rate["seen"] != json!(10_200) {
        let line = next().await;
        if let Some(name) = line.strip_prefix("event: ") {
            event = name.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            match event.as_str() {
                "row" => rows.push(data["n"].as_i64().unwrap()),
                "rate" => rate = data,
                other => panic!("{other}: {data}"),
            }
        }
    }
    let count = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert!(rows.len() == count && rows.iter().all(|n| (1_000..11_000).contains(n)), "each at most once");
    let told = ["matched", "sent", "dropped"].map(|name| rate[name].as_u64().unwrap());
    assert_eq!((told[0], told[1]), (10_000, u64::try_from(count).unwrap()), "{rate}");
    assert_eq!(told[1] + told[2], told[0], "{rate}");
    assert!(told[2] > 0, "it was slow: {rate}");
}
