//! Processes that die, stores that come and go, a log that has lost its quorum.

use std::time::Duration;

use logboom_tests::{Cluster, Options, eventually};
use tokio::time::{Instant, sleep, timeout};
use wire::coordinator::CutKind;

use crate::{
    groups::{Readers, assert_shared, config},
    numbered::{Background, LONG, Numbered, assert_exact, event, key, read, witness},
    shared::{HASTE, on},
};

/// Five writers, five readers; stores 3 -> 2 -> 1, coordinators 2 -> 1.
#[tokio::test]
async fn s01_what_was_written_is_read_while_stores_and_coordinators_become_fewer() {
    let mut cluster = Cluster::start_with(Options::storage(2, 3).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "fewer", 5).await;
    let background = Background::start(&client, &streams, 5, 4).await;
    let group = client.create_group(&config(&streams, "fewer", CutKind::Unbounded)).await.unwrap();
    let readers = Readers::start(&group, 5).await;
    for victim in ["segment-store/a", "coordinator/a", "segment-store/c"] {
        sleep(Duration::from_secs(1)).await;
        cluster.kill9(victim).unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    let counts = background.finish().await;
    readers.have(counts.values().sum()).await;
    let all = witness(&client, &streams).await;
    assert_exact(&all, &counts);
    assert_shared(&readers.finish().await, &all);
    cluster.check().unwrap();
}

#[tokio::test]
async fn s03_order_per_key_through_scaling_and_failovers() {
    let mut cluster = Cluster::start_with(Options::storage(2, 2).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "ordered", 2).await;
    let background = Background::start(&client, &streams, 3, 5).await;
    for (round, victim) in
        ["segment-store/b", "coordinator/a", "segment-store/a", "coordinator/b"].into_iter().enumerate()
    {
        sleep(Duration::from_millis(300)).await;
        cluster.kill9(victim).unwrap();
        let scaled = if round % 2 == 1 { streams.merge(round).await } else { streams.split(round).await };
        scaled.unwrap();
        cluster.restart(victim).await.unwrap();
    }
    let counts = background.finish().await;
    let first = witness(&client, &streams).await;
    assert_exact(&first, &counts);
    // Other owners give every event the same place.
    cluster.kill9("segment-store/a").unwrap();
    cluster.restart("segment-store/a").await.unwrap();
    let mut again = witness(&client, &streams).await;
    let mut first = first;
    first.sort();
    again.sort();
    assert_eq!(first, again);
    streams.check_epochs().await.unwrap();
    cluster.check().unwrap();
}

/// Two of three servers are gone: nothing is acknowledged; they come back: everything goes on, and nothing is there twice.
#[tokio::test]
async fn s07_without_a_quorum_writes_stop_and_then_go_on() {
    let mut cluster = Cluster::start_with(Options::storage(1, 1).nats(3).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "quorum", 1).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    numbered.write("k", 3, 10).await;
    let stream = streams.describe().await.unwrap();
    let log = format!("T1_{}", stream.segments[0].container);
    let leader = cluster.nats.leader_of(&log).await.unwrap().unwrap();
    for n in (0..3).filter(|n| *n != leader) {
        cluster.nats.kill(n).unwrap();
    }
    let receipt = numbered.writer.write(Some(&key("k0")), event("k0 10")).await.unwrap();
    let acknowledged = timeout(Duration::from_secs(5), receipt.clone().into_future()).await;
    assert!(acknowledged.is_err(), "acknowledged by one of three: {acknowledged:?}");
    for n in (0..3).filter(|n| *n != leader) {
        cluster.nats.restart(n).await.unwrap();
    }
    timeout(LONG, receipt.into_future()).await.expect("it goes on").unwrap();
    *numbered.counts.get_mut("k0").unwrap() += 1;
    numbered.write("k", 3, 5).await;
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    cluster.check().unwrap();
}

/// The nats-server that says where streams are created dies while an installation creates its own.
#[tokio::test]
async fn streams_are_created_although_who_places_them_dies_meanwhile() {
    let mut cluster = Cluster::launch(Options::storage(1, 1).nats(3).set(HASTE)).await.unwrap();
    let begun = eventually("creation has begun", LONG, async || {
        let streams = cluster.nats.streams().await?;
        anyhow::ensure!(!streams.is_empty(), "there are none yet");
        Ok(streams.len())
    })
    .await
    .unwrap();
    let leader = cluster.nats.meta_leader().await.unwrap().expect("somebody places streams");
    cluster.nats.kill(leader).unwrap();
    cluster.nats.restart(leader).await.unwrap();
    cluster.wait_until_all_ready().await.unwrap();
    let (client, streams) = on(&cluster, "created", 4).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    numbered.write("k", 8, 5).await;
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    let all = cluster.nats.streams().await.unwrap().len();
    assert!(begun < all, "all {all} streams were there already");
    cluster.check().unwrap();
}

/// Coordinators 2, 1, 0: without any, what is open goes on, and what needs one says so in words.
#[tokio::test]
async fn s09_without_a_coordinator_the_data_flows_and_calls_say_what_is_missing() {
    let mut cluster = Cluster::start_with(Options::storage(2, 1).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "headless", 2).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    let mut reader = client.stream_reader(&streams.index, None, None).await.unwrap();
    numbered.write("k", 6, 5).await;
    let mut seen = read(&mut reader, 30).await;
    cluster.kill9("coordinator/a").unwrap();
    eventually("the other one leads", LONG, async || Ok(client.tails(&streams.index).await?)).await.unwrap();
    cluster.kill9("coordinator/b").unwrap();
    numbered.write("k", 6, 5).await;
    seen.extend(read(&mut reader, 30).await);
    assert_exact(&seen, &numbered.counts);
    let begun = Instant::now();
    let refused = client.begin_transaction(streams.index.clone(), Duration::from_secs(10)).await.unwrap_err();
    assert!(begun.elapsed() < LONG, "it gives up");
    assert!(refused.to_string().len() > 20, "it says what is missing: {refused}");
    cluster.restart("coordinator/a").await.unwrap();
    streams.split(0).await.unwrap();
    numbered.write("k", 6, 5).await;
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
}

/// The owner of every container changes twice, then the address of everything behind NATS is another: clients find it.
#[tokio::test]
async fn s26_clients_find_their_way_when_everything_has_moved() {
    let mut cluster = Cluster::start_with(Options::storage(1, 2).set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "moving", 4).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    let mut reader = client.stream_reader(&streams.index, None, None).await.unwrap();
    let mut seen = Vec::new();
    for (gone, back) in [("segment-store/a", "segment-store/b"), ("segment-store/b", "segment-store/a")] {
        cluster.kill9(gone).unwrap();
        numbered.write("k", 8, 5).await;
        seen.extend(read(&mut reader, 40).await);
        cluster.restart(gone).await.unwrap();
        cluster.wait_until_ready(back).await.unwrap();
    }
    // A server that was killed: every connection and subscription is another one afterwards.
    cluster.nats.kill(0).unwrap();
    let writing = tokio::spawn(async move {
        numbered.write("k", 8, 5).await;
        numbered
    });
    sleep(Duration::from_millis(500)).await;
    cluster.nats.restart(0).await.unwrap();
    let numbered = timeout(LONG, writing).await.expect("it goes on").unwrap();
    seen.extend(read(&mut reader, 40).await);
    assert_exact(&seen, &numbered.counts);
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    cluster.check().unwrap();
}
