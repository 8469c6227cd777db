//! Three servers: what one `Nats` promises, and the ways in which a part of them fails.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::time::Duration;

use bus::{Bus, BusOptions, LogOptions, RecordKind};
use testkit::{NatsCluster, eventually};
use types::{ContainerId, Generation};
use wire::segment_store::OwnerRecord;

/// An election takes up to 9 s, and may have to be repeated.
const ELECTED: Duration = Duration::from_secs(40);

async fn connect(nats: &NatsCluster, url: String) -> Bus {
    let creds = Some(nats.platform_creds().unwrap());
    Bus::connect(BusOptions { url, creds, name: "test/a".to_owned(), ..BusOptions::default() }).await.unwrap()
}

async fn has(bucket: &bus::Bucket, key: &str, value: &str) {
    eventually(ELECTED, async || matches!(bucket.get(key).await, Ok(Some(entry)) if entry.value == value)).await;
}

async fn keeps(bucket: &bus::Bucket, key: &str, value: &'static str) {
    eventually(ELECTED, async || bucket.put(key, value).await.is_ok()).await;
}

#[tokio::test]
async fn a_connection_goes_on_with_the_servers_that_are_left() {
    let mut nats = NatsCluster::start(3).await.unwrap();
    let bus = connect(&nats, nats.url()).await;
    let bucket = bus.bucket("kept", None, 3).await.unwrap();
    keeps(&bucket, "key", "value").await;
    // One of the three is the one that it is connected to.
    for n in 0..3 {
        let (url, pid) = (nats.url_of(n), nats.pid(n).unwrap());
        nats.kill(n).unwrap();
        assert_eq!(nats.pid(n), None);
        has(&bucket, "key", "value").await;
        nats.restart(n).await.unwrap();
        assert_eq!(nats.url_of(n), url);
        assert_ne!(nats.pid(n), Some(pid));
        eventually(ELECTED, async || matches!(nats.is_whole("KV_kept").await, Ok(true))).await;
    }
    // A server that was away when it was written has it all the same.
    let aside = connect(&nats, nats.url_of(1)).await;
    let beside = aside.bucket("kept", None, 3).await.unwrap();
    has(&beside, "key", "value").await;
    nats.check().unwrap();
}

#[tokio::test]
async fn a_leader_steps_down_is_paused_loses_its_disk_and_nothing_is_lost() {
    let mut nats = NatsCluster::start(3).await.unwrap();
    let bus = connect(&nats, nats.url()).await;
    let bucket = bus.bucket("kept", None, 3).await.unwrap();
    keeps(&bucket, "a", "before").await;
    let leader = nats.leader_of("KV_kept").await.unwrap().unwrap();
    nats.step_down("KV_kept").await.unwrap();
    eventually(ELECTED, async || nats.leader_of("KV_kept").await.is_ok_and(|now| now.is_some_and(|n| n != leader)))
        .await;

    let leader = nats.leader_of("KV_kept").await.unwrap().unwrap();
    nats.pause(leader).unwrap();
    keeps(&bucket, "b", "without its leader").await;
    nats.resume(leader).unwrap();
    eventually(ELECTED, async || matches!(nats.is_whole("KV_kept").await, Ok(true))).await;
    assert_ne!(nats.leader_of("KV_kept").await.unwrap(), Some(leader), "who was stopped comes back as a follower");

    let leader = nats.leader_of("KV_kept").await.unwrap().unwrap();
    nats.wipe(leader).unwrap();
    nats.restart(leader).await.unwrap();
    eventually(ELECTED, async || matches!(nats.is_whole("KV_kept").await, Ok(true))).await;
    for (key, value) in [("a", "before"), ("b", "without its leader")] {
        has(&bucket, key, value).await;
    }
    assert!(nats.streams().await.unwrap().contains(&"KV_kept".to_owned()));
}

#[tokio::test]
async fn a_damaged_block_of_one_copy_does_not_reach_a_reader() {
    let mut nats = NatsCluster::start(3).await.unwrap();
    let bus = connect(&nats, nats.url()).await;
    let log = bus.container_log(ContainerId(0), LogOptions { replicas: 3, bytes_max: 1 << 30 }).await.unwrap();
    let record = OwnerRecord { generation: Generation(1), replica: "a".parse().unwrap() };
    let owner = log.claim(&record).await.unwrap();
    for n in 0..20u8 {
        log.append(owner, RecordKind::Frame, &format!("f{n}"), vec![n; 4_000].into()).await.unwrap();
    }
    let leader = nats.leader_of("T1_0").await.unwrap().unwrap();
    let follower = (leader + 1) % 3;
    assert!(nats.corrupt_block(follower, "T1_0").unwrap_err().to_string().contains("kill it first"));
    nats.kill(follower).unwrap();
    let block = nats.corrupt_block(follower, "T1_0").unwrap();
    assert!(block.ends_with("1.blk"), "{}", block.display());
    nats.restart_harmed(follower, ELECTED).await.unwrap();
    let records = log.read(0, 1 << 20).await.unwrap();
    let firsts: Vec<u8> = records.iter().filter(|r| r.kind == RecordKind::Frame).map(|r| r.payload[0]).collect();
    assert_eq!(firsts, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_server_is_a_cluster_too() {
    let mut nats = NatsCluster::start(1).await.unwrap();
    let bus = connect(&nats, nats.url()).await;
    let bucket = bus.bucket("kept", None, 1).await.unwrap();
    keeps(&bucket, "key", "value").await;
    assert_eq!(nats.leader_of("KV_kept").await.unwrap(), Some(0));
    nats.kill(0).unwrap();
    nats.restart(0).await.unwrap();
    has(&bucket, "key", "value").await;
    nats.wipe(0).unwrap();
    nats.restart(0).await.unwrap();
    eventually(ELECTED, async || nats.leader_of("KV_kept").await.is_err()).await;
}
