//! Queries of an index that two segment stores own, of which none answers a fragment.

use std::sync::atomic::Ordering::SeqCst;

use types::{ByteSize, SegmentId};
use wire::Problem;

use super::*;
use crate::{Config, fake::stores::FakeStores};

/// Thirty events of two segments, all of them in chunks.
async fn large() -> World {
    let mut world = world();
    let config = Config { fragments_from: ByteSize(1), ..Config::clone(&world.door.config) };
    world.door.config = Arc::new(config);
    assert!(world.fake.stores.set(FakeStores::new(world.fake.segments.clone())).is_ok());
    let line = |i: i32| format!("{{\"n\":{i},\"host\":\"h{}\",\"severity\":\"info\",\"msg\":\"m{i}\"}}\n", i % 3);
    let request = request("POST", "/api/v1/indexes/shop/ingest?routing_key_field=msg", "writer");
    let body = (0..30).map(line).collect::<String>();
    assert_eq!(ask(&world, request.set_payload(body)).await.status, 200);
    let ends: Vec<(SegmentId, usize)> = {
        let segments = world.fake.segments.segments.lock();
        segments.iter().filter(|(id, _)| id.stream == 1).map(|(id, segment)| (*id, segment.events.len())).collect()
    };
    assert!(ends.iter().all(|(_, count)| *count > 0), "both stores have some: {ends:?}");
    for (segment, count) in ends {
        world.fake.tier(segment, count.try_into().unwrap()).await;
    }
    world
}

async fn query(world: &World, language: &str, text: &str) -> Value {
    let body = json!({"text": text, "language": language}).to_string();
    let answer = ask(world, request("POST", "/api/v1/query", "reader").set_payload(body)).await;
    assert_eq!(answer.status, 200, "{text}: {}", answer.text());
    answer.json()
}

/// How many fragments the stores were asked for.
fn asked(world: &World) -> u32 {
    world.fake.stores.get().unwrap().asked.swap(0, SeqCst)
}

/// Why whole rows were read.
async fn why(world: &World, language: &str, text: &str) -> String {
    let told = query(world, language, text).await;
    let row = told["rows"].as_array().unwrap().iter().find(|row| row["what"] == "fragments").cloned();
    row.unwrap_or_else(|| panic!("{told}"))["why"].as_str().unwrap().to_owned()
}

const BY_HOST: &str = "SELECT host, count(*) AS c, sum(n) AS s FROM shop GROUP BY host ORDER BY host";

fn by_host() -> Value {
    json!([{"host": "h0", "c": 10, "s": 135}, {"host": "h1", "c": 10, "s": 145}, {"host": "h2", "c": 10, "s": 155}])
}

#[actix_web::test]
async fn fragments_that_no_store_answers_run_here() {
    let world = large().await;
    let answer = query(&world, "sql", BY_HOST).await;
    assert_eq!(answer["rows"], by_host());
    let stats = &answer["stats"];
    assert_eq!((&stats["fragments"], &stats["fragments_here"]), (&json!(0), &json!(2)), "{stats}");
    assert_eq!(asked(&world), 2);
}

#[actix_web::test]
async fn one_fragment_that_is_too_large_gives_up_all() {
    let world = large().await;
    let problem = Problem::bad_request("FragmentTooLarge", "it answers too many rows");
    *world.fake.stores.get().unwrap().problem.lock() = problem;
    let answer = query(&world, "sql", BY_HOST).await;
    assert_eq!(answer["rows"], by_host());
    let stats = &answer["stats"];
    assert_eq!((&stats["fragments"], &stats["fragments_here"]), (&json!(0), &json!(0)), "{stats}");
    assert!(asked(&world) > 0);
    let why = why(&world, "sql", &format!("EXPLAIN {BY_HOST}")).await;
    assert!(why.contains("a fragment of it needed too much memory, or answered too much"), "{why}");
}

#[actix_web::test]
async fn what_counters_answer_is_asked_of_no_store_in_any_language() {
    let world = large().await;
    for (language, text) in [
        ("sql", "EXPLAIN SELECT severity, count(*) AS n FROM shop GROUP BY severity"),
        ("pipe", "index:shop since:36500d | stats count by severity | explain"),
    ] {
        let why = why(&world, language, text).await;
        assert!(why.contains("the counters of its chunks answer it"), "{text}: {why}");
        assert_eq!(asked(&world), 0, "{text}");
    }
}
