//! Ingest and queries while segments are sealed, replaced and truncated.

use std::sync::atomic::Ordering;

use testing::*;

use super::*;

/// What several tests of scaling need.
pub(super) mod testing {
    use std::collections::BTreeMap;

    use types::{IndexName, KeyRange, RoutingKey, SegmentId};

    use super::*;

    pub(crate) const HALF: u64 = u64::MAX / 2;

    pub(crate) fn range(first: u64, last: u64) -> KeyRange {
        KeyRange { first, last }
    }

    pub(crate) fn present(world: &World) -> Vec<SegmentId> {
        world.fake.segments.description("shop").segments.iter().map(|range| range.segment).collect()
    }

    /// Sends lines `from .. to`, whose keys are the numbers modulo 8.
    pub(crate) async fn send(world: &World, from: u64, to: u64) -> Answer {
        let lines: String = (from..to).map(|i| format!("{{\"user\":\"u{}\",\"i\":{i}}}\n", i % 8)).collect();
        let path = "/api/v1/indexes/shop/ingest?routing_key_field=user";
        ask(world, request("POST", path, "writer").set_payload(lines)).await
    }

    pub(crate) async fn query(world: &World, text: &str) -> Answer {
        let request = request("POST", "/api/v1/sql", "reader").insert_header(("content-type", "text/plain"));
        ask(world, request.set_payload(text.to_owned())).await
    }

    /// The numbers of the lines of each key, as they lie in the segments that followed one another.
    pub(crate) fn by_key(world: &World) -> BTreeMap<String, Vec<u64>> {
        let mut found = BTreeMap::<String, Vec<u64>>::new();
        let shop: IndexName = "shop".parse().unwrap();
        let nodes = world.fake.segments.stream(&shop).unwrap().nodes;
        for (segment, events) in world.fake.segments.events() {
            for event in events {
                let line: Value = serde_json::from_slice(&event.payload).unwrap();
                let user = line["user"].as_str().unwrap().to_owned();
                let node = nodes.iter().find(|node| node.segment == segment).unwrap();
                assert!(node.range.contains(RoutingKey::new(&user).unwrap().hash()), "{user} in {segment}");
                found.entry(user).or_default().push(line["i"].as_u64().unwrap());
            }
        }
        found
    }

    /// Asserts that lines `0 .. count` are there, each once and in the order of its key.
    #[track_caller]
    pub(crate) fn assert_all(world: &World, count: u64) {
        let expected: BTreeMap<_, Vec<u64>> =
            (0..8).map(|key| (format!("u{key}"), (0..count).filter(|i| i % 8 == key).collect())).collect();
        assert_eq!(by_key(world), expected);
    }
}

#[actix_web::test]
async fn lines_of_sealed_segments_go_to_their_successors() {
    let world = world();
    assert_eq!(send(&world, 0, 40).await.status, 200);
    // What is known of the stream stays as it was, while it is split and merged again.
    *world.fake.stale.lock() = Some(world.fake.segments.description("shop"));
    let old = present(&world);
    let thirds = [range(0, HALF / 2), range(HALF / 2 + 1, HALF + 1000), range(HALF + 1001, u64::MAX)];
    let new = world.fake.segments.scale("shop", &old, &thirds);
    assert_eq!(send(&world, 40, 80).await.json()["accepted"], json!(40));
    assert_all(&world, 80);
    world.fake.segments.scale("shop", &new, &[range(0, u64::MAX)]);
    assert_eq!(send(&world, 80, 120).await.status, 200);
    assert_all(&world, 120);
    // A repeat finds what its first attempt left in former segments.
    let keyed = |line: &'static str| {
        let request = request("POST", "/api/v1/indexes/shop/ingest", "writer").insert_header(("idempotency-key", "k"));
        request.set_payload(line)
    };
    assert_eq!(ask(&world, keyed("{\"user\":\"u0\",\"i\":120}")).await.status, 200);
    world.fake.segments.scale("shop", &present(&world), &[range(0, HALF), range(HALF + 1, u64::MAX)]);
    assert_eq!(ask(&world, keyed("{\"user\":\"u0\",\"i\":120}")).await.status, 200);
    assert_eq!(world.fake.segments.events().values().flatten().count(), 121);
}

#[actix_web::test]
async fn a_request_waits_until_there_are_successors() {
    let world = world();
    let old = present(&world);
    old.iter().for_each(|segment| world.fake.segments.seal(*segment));
    let scale = async {
        testkit::eventually(PATIENCE, async || world.fake.looks.load(Ordering::SeqCst) >= 2).await;
        world.fake.segments.scale("shop", &old, &[range(0, u64::MAX)]);
    };
    let (answer, ()) = tokio::join!(send(&world, 0, 16), scale);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_all(&world, 16);
}

#[actix_web::test]
async fn a_segment_that_is_sealed_between_two_blocks_keeps_the_first() {
    let mut world = world();
    let mut config = (*world.door.config).clone();
    config.ingest_body_max = types::ByteSize(8 << 20);
    world.door.config = Arc::new(config);
    let shop = world.fake.segments.description("shop");
    let first = shop.route(None).unwrap();
    *world.fake.seal_after.lock() = Some((first.segment, 2));
    let pad = "x".repeat(200 << 10);
    let lines: String = (0..12).map(|i| format!("{{\"i\":{i},\"pad\":\"{pad}\"}}\n")).collect();
    let path = "/api/v1/indexes/shop/ingest";
    let scale = async {
        testkit::eventually(PATIENCE, async || world.fake.looks.load(Ordering::SeqCst) > 0).await;
        let whole = [range(first.range.first, first.range.last)];
        world.fake.segments.scale("shop", &[first.segment], &whole)
    };
    let (answer, new) = tokio::join!(ask(&world, request("POST", path, "writer").set_payload(lines)), scale);
    assert_eq!(answer.json()["accepted"], json!(12), "{}", answer.text());
    let number =
        |event: &wire::block::BlockEvent| serde_json::from_slice::<Value>(&event.payload).unwrap()["i"].as_u64();
    let events = world.fake.segments.events();
    let numbers: Vec<Vec<_>> = events.values().map(|events| events.iter().filter_map(number).collect()).collect();
    assert_eq!(events.keys().copied().collect::<Vec<_>>(), [first.segment, new[0]]);
    assert_eq!(numbers.concat(), (0..12).collect::<Vec<_>>());
    assert!(!numbers[0].is_empty() && !numbers[1].is_empty(), "{numbers:?}");
}

#[actix_web::test]
async fn an_index_that_takes_nothing_more_says_so() {
    let mut world = world();
    let mut config = (*world.door.config).clone();
    config.ingest_body_max = types::ByteSize(8 << 20);
    world.door.config = Arc::new(config);
    let before = world.fake.segments.description("shop");
    let first = before.route(None).unwrap();
    // It is sealed while a request is stored: what is there already is told.
    *world.fake.seal_after.lock() = Some((first.segment, 1));
    *world.fake.stale.lock() = Some(before);
    let seal = async {
        testkit::eventually(PATIENCE, async || world.fake.looks.load(Ordering::SeqCst) > 0).await;
        world.fake.segments.seal_stream("shop");
    };
    let pad = "x".repeat(300 << 10);
    let lines = format!("{{\"pad\":\"{pad}\"}}\n").repeat(4);
    let path = "/api/v1/indexes/shop/ingest";
    let (answer, ()) = tokio::join!(ask(&world, request("POST", path, "writer").set_payload(lines)), seal);
    assert_eq!((answer.status, answer.kind().as_str()), (409, "StreamSealed"), "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((&error["stored"], &error["outcome"]), (&json!(1), &json!("unknown")), "{error}");
    // Then it is known before anything is sent.
    *world.fake.stale.lock() = None;
    let answer = send(&world, 0, 1).await;
    assert_eq!((answer.status, answer.kind().as_str()), (409, "StreamSealed"));
    assert_eq!(answer.json()["error"]["outcome"], Value::Null);
    // Queries still answer.
    assert_eq!(query(&world, "SELECT count(*) AS n FROM shop").await.json()["rows"], json!([{"n": 1}]));
}

#[actix_web::test]
async fn an_index_that_is_deleted_meanwhile_is_told_as_such() {
    let world = world();
    *world.fake.stale.lock() = Some(world.fake.segments.description("shop"));
    world.fake.segments.streams.lock().clear();
    world.fake.segments.segments.lock().clear();
    let answer = send(&world, 0, 8).await;
    assert_eq!((answer.status, answer.kind().as_str()), (404, "UnknownIndex"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["stored"], json!(0));
}

#[actix_web::test]
async fn a_query_sees_every_epoch_once_and_nothing_that_was_truncated() {
    let world = world();
    send(&world, 0, 40).await;
    let old = present(&world);
    let new = world.fake.segments.scale("shop", &old[..1], &[range(0, HALF / 3), range(HALF / 3 + 1, HALF)]);
    send(&world, 40, 80).await;
    world.fake.segments.scale("shop", &[new[1], old[1]], &[range(HALF / 3 + 1, u64::MAX)]);
    send(&world, 80, 120).await;
    assert_all(&world, 120);
    // Chunks and tails, and a start in the middle of a chunk.
    let events = world.fake.segments.events();
    let (first, second) = (old[0], old[1]);
    let of_first = u64::try_from(events[&first].len()).unwrap();
    assert!(of_first > 8, "{of_first}");
    world.fake.tier(first, 6).await;
    world.fake.tier(second, u64::try_from(events[&second].len()).unwrap()).await;
    let rows = |text: &'static str| async { query(&world, text).await.json()["rows"].clone() };
    let count = "SELECT count(*) AS n FROM shop";
    assert_eq!(rows(count).await, json!([{"n": 120}]));
    world.fake.segments.change(first, |segment| segment.start = 4);
    assert_eq!(rows(count).await, json!([{"n": 116}]));
    let places = "SELECT count(*) AS n FROM (SELECT DISTINCT _segment, _offset FROM shop) AS places";
    assert_eq!(rows(places).await, json!([{"n": 116}]));
    let below = format!("SELECT count(*) AS n FROM shop WHERE _segment = '{first}' AND _offset < 4");
    assert_eq!(query(&world, &below).await.json()["rows"], json!([{"n": 0}]));
    let path = format!("/api/v1/indexes/shop/histogram?from={}&to={}&buckets=1", NOW_MS - 1_000, NOW_MS + 1_000);
    let histogram = ask(&world, request("GET", &path, "reader")).await.json();
    assert_eq!(histogram["buckets"][0]["count"], json!(116), "{histogram}");
    // A segment that was truncated as a whole, and one of an open transaction.
    world.fake.segments.forget("shop", second);
    let left = 116 - events[&second].len();
    assert_eq!(rows(count).await, json!([{"n": left}]));
    world.fake.segments.change(first, |segment| segment.transactional = true);
    assert_eq!(rows(count).await, json!([{"n": left - events[&first].len() + 4}]));
}

#[actix_web::test]
async fn a_query_over_too_many_segments_is_refused() {
    let world = world();
    let nodes = |count: u32| {
        let mut streams = world.fake.segments.streams.lock();
        let stream = streams.get_mut(&"shop".parse().unwrap()).unwrap();
        let mut node = stream.nodes[0].clone();
        stream.nodes = (0..count)
            .map(|number| {
                node.segment.number = number;
                world.fake.segments.segments.lock().entry(node.segment).or_default();
                node.clone()
            })
            .collect();
    };
    nodes(10_000);
    send(&world, 0, 8).await;
    let answer = query(&world, "SELECT count(*) AS n FROM shop").await;
    assert_eq!(answer.json()["rows"], json!([{"n": 8}]), "eleven pages are read");
    nodes(10_001);
    let answer = query(&world, "SELECT count(*) AS n FROM shop").await;
    assert_eq!((answer.status, answer.kind().as_str()), (400, "TooManySegments"));
}

#[actix_web::test]
async fn a_query_plans_again_once_when_something_was_truncated_meanwhile() {
    let world = world();
    send(&world, 0, 40).await;
    let segment = present(&world)[0];
    let events = world.fake.segments.events();
    let chunk = world.fake.tier(segment, 6).await;
    let shop = "shop".parse().unwrap();
    let before = world.fake.segments.describe(&shop, segment).unwrap();
    let left = json!([{"n": 40 - 6}]);
    assert!(events[&segment].len() > 6);
    // The tail was planned from offset 0 on, and then truncated.
    world.fake.segments.change(segment, |known| {
        known.start = 6;
        known.chunks.clear();
    });
    world.fake.objects.delete(&chunk.key).await.unwrap();
    let tail = wire::segment_store::SegmentInfo { tail_from: 0, chunks: vec![], ..before.clone() };
    let count = "SELECT count(i) AS n FROM shop";
    for (stale, kind) in [(tail, "TruncatedMeanwhile"), (before, "ChunkUnreadable")] {
        *world.fake.described_before.lock() = [stale.clone()].into();
        assert_eq!(query(&world, count).await.json()["rows"], left, "{kind}");
        *world.fake.described_before.lock() = [stale.clone(), stale].into();
        let answer = query(&world, count).await;
        assert_eq!((answer.status, answer.kind().as_str()), (503, kind), "{}", answer.text());
        assert!(world.fake.described_before.lock().is_empty());
    }
}
