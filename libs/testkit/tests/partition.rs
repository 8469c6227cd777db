//! Links that break: that they carry everything, so that who is parted is parted.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::time::Duration;

use bus::{Bucket, Bus, BusOptions};
use testkit::{NatsCluster, NatsOptions, Way, eventually};

/// An election takes up to 9 s, and may have to be repeated.
const ELECTED: Duration = Duration::from_secs(40);
/// Longer than a write takes, shorter than an election.
const NOT_YET: Duration = Duration::from_millis(1_500);

async fn connect(nats: &NatsCluster, url: String) -> Bus {
    let creds = Some(nats.platform_creds().unwrap());
    Bus::connect(BusOptions { url, creds, name: "test/a".to_owned(), ..BusOptions::default() }).await.unwrap()
}

/// A bucket with three copies, as soon as all servers know each other.
async fn kept(bus: &Bus) -> Bucket {
    let mut bucket = None;
    eventually(ELECTED, async || {
        bucket = bus.bucket("kept", None, 3).await.ok();
        bucket.is_some()
    })
    .await;
    bucket.unwrap()
}

#[tokio::test]
async fn a_leader_that_is_parted_acknowledges_nothing_and_is_replaced() {
    let options = NatsOptions { proxied_routes: true, ..NatsOptions::default() };
    let nats = NatsCluster::start_with(3, options).await.unwrap();
    let bucket = kept(&connect(&nats, nats.url()).await).await;
    eventually(ELECTED, async || bucket.put("key", "before").await.is_ok()).await;
    let leader = nats.leader_of("KV_kept").await.unwrap().unwrap();
    let beside = connect(&nats, nats.url_of(leader)).await.bucket("kept", None, 3).await.unwrap();
    let across = connect(&nats, nats.url_of((leader + 1) % 3)).await.bucket("kept", None, 3).await.unwrap();
    for way in [Way::Out, Way::Back] {
        nats.hold_routes(leader, way);
    }
    let alone = tokio::time::timeout(NOT_YET, beside.put("key", "alone")).await;
    assert!(!matches!(alone, Ok(Ok(_))), "one of three has acknowledged a write");
    eventually(ELECTED, async || across.put("other", "by the others").await.is_ok()).await;
    nats.mend_routes();
    eventually(ELECTED, async || matches!(nats.is_whole("KV_kept").await, Ok(true))).await;
    assert_ne!(nats.leader_of("KV_kept").await.unwrap(), Some(leader), "who was parted comes back as a follower");
    eventually(ELECTED, async || matches!(beside.get("other").await, Ok(Some(_)))).await;
    assert!(nats.meta_leader().await.unwrap().is_some());
}

#[tokio::test]
async fn a_link_carries_everything_of_its_client_and_nothing_of_others() {
    let nats = NatsCluster::start(1).await.unwrap();
    let link = nats.link().await.unwrap();
    let (far, near) = (connect(&nats, link.url()).await, connect(&nats, nats.url()).await);
    let (far, near) = (far.bucket("kept", None, 1).await.unwrap(), near.bucket("kept", None, 1).await.unwrap());
    far.put("key", "one").await.unwrap();
    link.hold(Way::Back);
    let unanswered = tokio::time::timeout(NOT_YET, far.put("key", "two")).await;
    assert!(!matches!(unanswered, Ok(Ok(_))), "an answer has passed");
    eventually(NOT_YET, async || near.get("key").await.unwrap().unwrap().value == "two").await;
    link.cut();
    link.mend();
    eventually(ELECTED, async || matches!(far.get("key").await, Ok(Some(entry)) if entry.value == "two")).await;
}

#[tokio::test]
async fn a_flood_is_dropped_and_the_servers_go_on() {
    let options = NatsOptions { api_queue_max: 64, ..NatsOptions::default() };
    let nats = NatsCluster::start_with(3, options).await.unwrap();
    let bucket = kept(&connect(&nats, nats.url()).await).await;
    eventually(ELECTED, async || bucket.put("key", "value").await.is_ok()).await;
    assert!(nats.flood_api(0, 5_000).await.unwrap(), "nothing was dropped:\n{}", nats.log(1));
    nats.reload_tenants().await.unwrap();
    eventually(ELECTED, async || matches!(bucket.get("key").await, Ok(Some(_)))).await;
}
