//! Streams that scale by themselves, up and down; a minute lasts 200 ms here.

use std::time::Duration;

use anyhow::ensure;
use client::Client;
use logboom_tests::{Seen, Streams, eventually, patiently};
use tokio::time::sleep;
use wire::coordinator::{ScalingPolicy, StreamUpdate, UpdateStream};

use crate::{
    numbered::{Background, Counts, LONG, assert_exact, event, in_order, key, read, witness},
    shared::Stage,
};

async fn by_rate(streams: &Streams) {
    let scaling = Some(ScalingPolicy::EventRate { target: 1, factor: 2, min_segments: 1 });
    let update = StreamUpdate { index: streams.index.clone(), scaling, retention: None, tags: None };
    patiently::<UpdateStream>(&streams.bus, &(), &update).await.unwrap();
}

async fn until(streams: &Streams, what: &str, enough: impl Fn(usize) -> bool) -> usize {
    eventually(what, LONG, async || {
        let count = streams.describe().await?.segments.len();
        ensure!(enough(count), "{count} segments");
        Ok(count)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn s06_writers_and_a_reader_follow_automatic_scaling_up_and_down() {
    let stage = Stage::new("following", 1).await;
    by_rate(&stage.streams).await;
    let mut reader = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    let background = Background::start(&stage.client, &stage.streams, 2, 10).await;
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some((segment, batch)) = reader.next(Duration::from_secs(2)).await.unwrap() {
            seen.extend(Seen::of(segment, &batch).unwrap());
        }
        (reader, seen)
    });
    let most = until(&stage.streams, "it splits", |count| count >= 3).await;
    let counts = background.finish().await;
    until(&stage.streams, "it merges when nothing comes", |count| count < most).await;
    let (mut reader, mut seen) = following.await.unwrap();
    let all: u64 = counts.values().sum();
    seen.extend(read(&mut reader, all - seen.len() as u64).await);
    assert_eq!(in_order(&seen), counts);
    assert_exact(&witness(&stage.client, &stage.streams).await, &counts);
    stage.streams.check_epochs().await.unwrap();
}

/// One transaction of 20 events.
async fn transact(client: &Client, streams: &Streams, name: &str) {
    let transaction = client.begin_transaction(streams.index.clone(), Duration::from_secs(30)).await.unwrap();
    for number in 0..20u64 {
        let of = format!("{name}.{}", number % 10);
        drop(transaction.write(Some(&key(&of)), event(&format!("{of} {}", number / 10))).await.unwrap());
    }
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn s05_the_segment_count_moves_with_transactions() {
    let stage = Stage::new("transacting", 1).await;
    by_rate(&stage.streams).await;
    let mut names = Vec::new();
    let mut up = async |most: usize| {
        eventually("transactions split it", LONG, async || {
            let name = format!("t{}", names.len());
            transact(&stage.client, &stage.streams, &name).await;
            names.push(name);
            let count = stage.streams.describe().await?.segments.len();
            ensure!(count >= most, "{count} segments");
            Ok(())
        })
        .await
        .unwrap();
    };
    up(2).await;
    until(&stage.streams, "it merges when nothing comes", |count| count == 1).await;
    // Up again; the mute and cool-down of both decisions are over by then.
    sleep(Duration::from_millis(500)).await;
    up(2).await;
    let counts: Counts = names.iter().flat_map(|name| (0..10).map(move |key| (format!("{name}.{key}"), 2))).collect();
    assert_exact(&witness(&stage.client, &stage.streams).await, &counts);
    stage.streams.check_epochs().await.unwrap();
}
