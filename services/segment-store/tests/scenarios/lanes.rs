//! Plain NATS publishes through the front door.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use testkit::eventually;
use types::{IndexName, RoutingKey};

use crate::stage::{LONG, Stage, TAIL_ONLY, read};

#[actix::test]
async fn a_plain_publish_is_acknowledged_as_jetstream_would() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let stream = stage.stream("shop", 1, 4).await;
    let producer = stage.producer(&index).await;
    let segment = stream.route(None).unwrap();
    for n in 0..5u64 {
        let event = Bytes::from(format!("{{\"msg\":\"e {n}\"}}"));
        assert_eq!(producer.publish_record("logs.shop", &format!("id-{n}"), event).await.unwrap(), n + 1);
    }
    let again = producer.publish_record("logs.shop", "id-2", Bytes::from_static(b"e 2")).await.unwrap();
    assert_eq!(again, 3, "a repeat is answered with the place of the first");
    let seen = read(&mut stage.client.reader(segment, 0), 5).await;
    assert_eq!(seen, (0..5).map(|n| (n, format!("e {n}"))).collect::<Vec<_>>());
    assert_eq!(stage.client.tails(&index).await.unwrap().offset(segment.segment), 5);
}

#[actix::test]
async fn events_of_a_key_stay_in_order_whoever_owns_the_container() {
    let mut stage = Stage::empty().await;
    stage.start("a", TAIL_ONLY).await;
    stage.start("b", TAIL_ONLY).await;
    stage.place(|n| (if n % 2 == 0 { "a" } else { "b" }.into(), 1)).await;
    let index: IndexName = "shop".parse().unwrap();
    let stream = stage.stream("shop", 1, 4).await;
    let producer = stage.producer(&index).await;
    const KEYS: u64 = 12;
    const EACH: u64 = 30;
    let publish = |key: u64| {
        let producer = producer.clone();
        async move {
            for n in 0..EACH {
                let event = Bytes::from(format!("key-{key} {n}"));
                producer.publish_record(&format!("logs.shop.key-{key}"), &format!("{key}-{n}"), event).await.unwrap();
            }
        }
    };
    join_all((0..KEYS).map(publish)).await;
    let mut seen = std::collections::BTreeMap::<String, Vec<String>>::new();
    let tails = stage.client.tails(&index).await.unwrap();
    for segment in &stream.segments {
        let count = tails.offset(segment.segment) as usize;
        for (_, text) in read(&mut stage.client.reader(*segment, 0), count).await {
            let (key, n) = text.split_once(' ').unwrap();
            assert_eq!(stream.route(Some(&RoutingKey::new(key).unwrap())).unwrap(), *segment);
            seen.entry(key.to_owned()).or_default().push(n.to_owned());
        }
    }
    let all: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
    assert_eq!(seen.len() as u64, KEYS);
    assert!(seen.values().all(|events| *events == all), "{seen:?}");
}

#[actix::test]
async fn an_index_that_does_not_exist_is_refused() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    stage.stream("shop", 1, 1).await;
    let other: IndexName = "other".parse().unwrap();
    let producer = stage.producer(&other).await;
    let refused = producer.publish_record("logs.other", "id", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(refused.message.contains("other does not exist"), "{refused}");
    // The index appears, and the same door takes it.
    stage.stream("other", 2, 1).await;
    let publish = || producer.publish_record("logs.other", "id", Bytes::from_static(b"x"));
    eventually(LONG, async || publish().await.is_ok()).await;
}

#[actix::test]
async fn many_producers_share_frames() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let producer = stage.producer(&index).await;
    const COUNT: usize = 500;
    let publish = |n: usize| {
        let producer = producer.clone();
        async move { producer.publish_record("logs.shop", &n.to_string(), Bytes::from(format!("e {n}"))).await.unwrap() }
    };
    let mut places = join_all((0..COUNT).map(publish)).await;
    places.sort_unstable();
    assert_eq!(places, (1..=COUNT as u64).collect::<Vec<_>>());
    let log = stage.log(segment.container).await;
    let frames = log.read(0, 64 << 20).await.unwrap().len();
    assert!(frames < COUNT / 4, "{frames} frames for {COUNT} publishes");
    let mut reader = stage.client.reader(segment, 0);
    assert_eq!(read(&mut reader, COUNT).await.len(), COUNT);
    assert_eq!(reader.next(Duration::ZERO).await.unwrap(), None);
}
