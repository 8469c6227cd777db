//! Plain NATS publishes through the front door.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use testkit::eventually;
use types::{ContainerId, Generation, IndexName, KeyRange, RoutingKey, SegmentId};
use wire::{
    coordinator::{SegmentRange, StreamDescription},
    segment_store::{CreateSegment, NewSegment, OwnerRecord, SealSegment, SegmentName, SegmentPlace},
    views::{VIEWS, stream_key},
};

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
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    let tails = stage.client.tails(&index).await.unwrap();
    for segment in &stream.segments {
        let count = tails.offset(segment.segment);
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
    const COUNT: u64 = 500;
    let publish = |n: u64| {
        let producer = producer.clone();
        async move { producer.publish_record("logs.shop", &n.to_string(), Bytes::from(format!("e {n}"))).await.unwrap() }
    };
    let mut places = join_all((0..COUNT).map(publish)).await;
    places.sort_unstable();
    assert_eq!(places, (1..=COUNT).collect::<Vec<_>>());
    let log = stage.log(segment.container).await;
    let frames = log.read(0, 64 << 20).await.unwrap().len() as u64;
    assert!(frames < COUNT / 4, "{frames} frames for {COUNT} publishes");
    let mut reader = stage.client.reader(segment, 0);
    assert_eq!(read(&mut reader, COUNT).await.len() as u64, COUNT);
    assert_eq!(reader.next(Duration::ZERO).await.unwrap(), None);
}

#[actix::test]
async fn lanes_move_with_their_containers_and_nothing_acknowledged_is_lost_or_doubled() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    stage.start("b", TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let stream = stage.stream("shop", 1, 2).await;
    let producer = stage.producer(&index).await;
    let (done, progress) = tokio::sync::watch::channel(0u64);
    const KEYS: u64 = 4;
    const EACH: u64 = 150;
    let producers = (0..KEYS).map(|key| {
        let (producer, done) = (producer.clone(), done.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                let (subject, id) = (format!("logs.shop.key-{key}"), format!("{key}-{n}"));
                let event = Bytes::from(format!("key-{key} {n}"));
                while let Err(problem) = producer.publish_record(&subject, &id, event.clone()).await {
                    assert!(problem.is_transient() || problem.kind == "BusRefused", "{problem}");
                }
                done.send_modify(|count| *count += 1);
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let mut seen = progress;
    seen.wait_for(|count| *count > 50).await.unwrap();
    stage.place(|_| ("b".into(), 2)).await;
    seen.wait_for(|count| *count > 200).await.unwrap();
    stage.place(|n| (if n % 2 == 0 { "a" } else { "b" }.into(), 3)).await;
    seen.wait_for(|count| *count > 350).await.unwrap();
    stage.place(|_| ("b".into(), 4)).await;
    stage.stop("a").await;
    join_all(producers).await.into_iter().for_each(Result::unwrap);
    let tails = stage.client.tails(&index).await.unwrap();
    let mut all = Vec::new();
    for segment in &stream.segments {
        let count = tails.offset(segment.segment);
        all.extend(read(&mut stage.client.reader(*segment, 0), count).await.into_iter().map(|(_, text)| text));
    }
    for key in 0..KEYS {
        let of_key: Vec<_> = all.iter().filter_map(|text| text.strip_prefix(&format!("key-{key} "))).collect();
        let expected: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(of_key, expected, "key {key}");
    }
}

#[actix::test]
async fn a_lane_whose_container_was_taken_over_takes_nothing_more() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let producer = stage.producer(&index).await;
    let lane = stage.lane_of(&producer, "logs.shop").await;
    let elsewhere = |n: &u32| SegmentId { stream: *n, epoch: 0, number: 0 }.container(8).0 != lane;
    let stream = stage.stream("shop", (1..100).find(elsewhere).unwrap(), 1).await;
    let publish = |n: u64| {
        let producer = producer.clone();
        async move { producer.publish_record("logs.shop", &format!("id-{n}"), Bytes::from(format!("e {n}"))).await }
    };
    eventually(LONG, async || publish(0).await.is_ok()).await;
    // The lane's container gets another owner, of which `a` is not told; the segment's container stays.
    let ghost = OwnerRecord { generation: Generation(2), replica: "ghost".parse().unwrap() };
    stage.log(ContainerId(lane)).await.claim(&ghost).await.unwrap();
    // Beyond the time for which a look at the owner record is good.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(publish(1).await.is_err(), "nobody serves the lane");
    stage.place(|_| ("a".into(), 3)).await;
    eventually(LONG, async || publish(2).await.is_ok()).await;
    let seen = read(&mut stage.client.reader(stream.segments[0], 0), 2).await;
    assert_eq!(seen.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["e 0", "e 2"]);
}

/// A stream that a test scales in the coordinator's place.
struct Scaled<'a> {
    stage: &'a Stage,
    stream: StreamDescription,
    /// Segments of all epochs in the order in which they were created.
    all: Vec<SegmentRange>,
}

impl<'a> Scaled<'a> {
    async fn new(stage: &'a Stage, name: &str, number: u32, segments: u32) -> Self {
        let stream = stage.stream(name, number, segments).await;
        let all = stream.segments.clone();
        Self { stage, stream, all }
    }

    async fn seal(&self, segments: &[SegmentRange]) {
        for range in segments {
            let name = SegmentName { segment: range.segment };
            self.stage.bus.call_within::<SealSegment>(&range.container, &name, LONG).await.unwrap();
        }
    }

    /// Creates the segments of the next epoch in the place of others.
    async fn follow(&mut self, ended: &[SegmentRange], ranges: &[KeyRange]) {
        self.stream.epoch += 1;
        for range in ranges {
            let number = u32::try_from(self.all.len()).unwrap();
            let segment = SegmentId { stream: self.stream.stream, epoch: self.stream.epoch, number };
            let created = SegmentRange { segment, container: segment.container(8), range: *range };
            let before = ended.iter().filter(|ended| ended.range.overlaps(*range));
            let predecessors =
                before.map(|range| SegmentPlace { segment: range.segment, container: range.container }).collect();
            let index = self.stream.index.clone();
            let new = NewSegment { segment, index, predecessors, transactional: false, origin: None };
            self.stage.bus.call_within::<CreateSegment>(&created.container, &new, LONG).await.unwrap();
            self.all.push(created);
            self.stream.segments.push(created);
        }
        self.stream.segments.retain(|range| !ended.contains(range));
        self.show().await;
    }

    async fn show(&self) {
        let views = self.stage.bus.bucket(VIEWS, None, 1).await.unwrap();
        views.put(&stream_key(&self.stream.index), wire::encode(&self.stream)).await.unwrap();
    }

    /// Replaces all segments.
    async fn scale(&mut self, count: u32) {
        let ended = self.stream.segments.clone();
        self.seal(&ended).await;
        self.follow(&ended, &KeyRange::split_evenly(count)).await;
    }

    /// Every event of every epoch, the older segments first.
    async fn read(&self) -> Vec<(SegmentRange, String)> {
        let mut all = Vec::new();
        for range in &self.all {
            let count = self.stage.client.describe(*range).await.unwrap().end;
            let events = read(&mut self.stage.client.reader(*range, 0), count).await;
            all.extend(events.into_iter().map(|(_, text)| (*range, text)));
        }
        all
    }
}

#[actix::test]
async fn publishes_go_on_while_the_stream_is_split_and_merged() {
    let mut stage = Stage::empty().await;
    stage.start("a", TAIL_ONLY).await;
    stage.start("b", TAIL_ONLY).await;
    stage.place(|n| (if n % 2 == 0 { "a" } else { "b" }.into(), 1)).await;
    let index: IndexName = "shop".parse().unwrap();
    let mut scaled = Scaled::new(&stage, "shop", 1, 1).await;
    let producer = stage.producer(&index).await;
    let (done, mut progress) = tokio::sync::watch::channel(0u64);
    const KEYS: u64 = 8;
    const EACH: u64 = 100;
    let publish = |key: u64| {
        let (producer, done) = (producer.clone(), done.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                let (subject, id) = (format!("logs.shop.key-{key}"), format!("{key}-{n}"));
                let event = Bytes::from(format!("key-{key} {n}"));
                // Nothing is moved but the segments: no publish may fail.
                producer.publish_record(&subject, &id, event).await.unwrap();
                done.send_modify(|count| *count += 1);
            }
        })
    };
    let producers: Vec<_> = (0..KEYS).map(publish).collect();
    for (after, segments) in [(100, 2), (300, 4), (500, 2)] {
        progress.wait_for(|count| *count > after).await.unwrap();
        scaled.scale(segments).await;
    }
    join_all(producers).await.into_iter().for_each(Result::unwrap);
    let events = scaled.read().await;
    assert_eq!(events.len() as u64, KEYS * EACH, "each once");
    let mut by_key = BTreeMap::<String, Vec<String>>::new();
    let mut epochs = BTreeMap::<u32, u64>::new();
    for (range, text) in events {
        let (key, n) = text.split_once(' ').unwrap();
        assert!(range.range.contains(RoutingKey::new(key).unwrap().hash()), "{key} in {}", range.segment);
        by_key.entry(key.to_owned()).or_default().push(n.to_owned());
        *epochs.entry(range.segment.epoch).or_default() += 1;
    }
    let expected: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
    assert!(by_key.values().all(|numbers| *numbers == expected), "{by_key:?}");
    assert_eq!(epochs.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3], "every epoch took something: {epochs:?}");
}

#[actix::test]
async fn a_publish_to_a_sealed_segment_waits_for_its_successors() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let mut scaled = Scaled::new(&stage, "shop", 1, 1).await;
    let producer = stage.producer(&index).await;
    let publish = |n: u64| {
        let producer = producer.clone();
        async move { producer.publish_record("logs.shop", &format!("id-{n}"), Bytes::from(format!("e {n}"))).await }
    };
    publish(0).await.unwrap();
    let ended = scaled.stream.segments.clone();
    scaled.seal(&ended).await;
    let mut waiting: Vec<_> = (1..4).map(|n| tokio::spawn(publish(n))).collect();
    let early = tokio::time::timeout(Duration::from_millis(500), &mut waiting[0]).await;
    assert!(early.is_err(), "answered before there is a successor: {early:?}");
    scaled.follow(&ended, &KeyRange::split_evenly(2)).await;
    for published in join_all(waiting).await {
        published.unwrap().unwrap();
    }
    let mut texts: Vec<_> = scaled.read().await.into_iter().map(|(_, text)| text).collect();
    texts[1..].sort_unstable();
    assert_eq!(texts, ["e 0", "e 1", "e 2", "e 3"]);
}

#[actix::test]
async fn a_repeat_is_recognised_across_scales() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let mut scaled = Scaled::new(&stage, "shop", 1, 2).await;
    let producer = stage.producer(&index).await;
    const KEYS: u64 = 6;
    let publish_all = || async {
        for key in 0..KEYS {
            let (subject, event) = (format!("logs.shop.key-{key}"), Bytes::from(format!("key-{key}")));
            producer.publish_record(&subject, &format!("id-{key}"), event).await.unwrap();
        }
    };
    publish_all().await;
    for segments in [4, 1] {
        scaled.scale(segments).await;
        publish_all().await;
    }
    let mut texts: Vec<_> = scaled.read().await.into_iter().map(|(_, text)| text).collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..KEYS).map(|key| format!("key-{key}")).collect::<Vec<_>>());
}

#[actix::test]
async fn an_index_that_takes_nothing_more_says_so() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let index: IndexName = "shop".parse().unwrap();
    let mut scaled = Scaled::new(&stage, "shop", 1, 1).await;
    let producer = stage.producer(&index).await;
    let publish = |n: u64| {
        let producer = producer.clone();
        async move { producer.publish_record("logs.shop", &format!("id-{n}"), Bytes::from(format!("e {n}"))).await }
    };
    publish(0).await.unwrap();
    // One publish waits for successors that will never be.
    scaled.seal(&scaled.stream.segments).await;
    let waiting = tokio::spawn(publish(1));
    scaled.stream.sealed = true;
    scaled.show().await;
    for refused in [waiting.await.unwrap().unwrap_err(), publish(2).await.unwrap_err()] {
        assert!(refused.message.contains("shop is sealed"), "{refused}");
    }
    let texts: Vec<_> = scaled.read().await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["e 0"]);
}
