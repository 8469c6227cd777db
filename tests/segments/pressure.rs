//! Tier 2 that is away, and a log that is long: what users of Pravega complained about.

use std::time::Duration;

use client::WriterOptions;
use logboom_tests::{Cluster, Options, Tmpfs, Workdir};
use tokio::time::{Instant, timeout};

use crate::{
    numbered::{Counts, LONG, Numbered, assert_exact, key, witness},
    shared::{HASTE, on},
};

/// pravega #6688, #6451: Tier 2 is absent. Writers are slowed down and then held at the limit of what is not tiered; nobody is lost,
/// and when it is back they go on.
#[tokio::test]
async fn without_tier_2_writers_are_held_and_then_go_on() {
    let dir = Workdir::new("tier-2").unwrap();
    let Some(disk) = Tmpfs::mount(&dir.path().join("objects"), 256) else {
        println!("SKIPPED: a tmpfs can only be mounted by root");
        return;
    };
    let set = ["segment_store.tail_bytes_max=1MiB", "segment_store.flush_bytes=64KiB"];
    let options = Options { objects: Some(disk.path().to_owned()), ..Options::storage(1, 1) };
    let mut cluster = Cluster::start_with(options.set(HASTE).set(&set)).await.unwrap();
    let (client, streams) = on(&cluster, "held", 1).await;
    disk.read_only().await.unwrap();
    let mut writer = WriterOptions::new("flood".parse().unwrap());
    writer.bytes_max = 4 << 20;
    let writer = client.event_writer(streams.index.clone(), writer).await.unwrap();
    let filler = "x".repeat(4_000);
    let mut receipts = Vec::new();
    for number in 0..750u64 {
        let payload = format!("{{\"msg\":\"k {number}\",\"filler\":\"{filler}\"}}");
        receipts.push(writer.write(Some(&key("k")), payload.into()).await.unwrap());
    }
    let flushed = timeout(Duration::from_secs(4), writer.flush()).await;
    assert!(flushed.is_err(), "3 MB were all taken where 1 MiB may wait");
    let taken = receipts.iter().filter(|receipt| matches!(receipt.now(), Some(Ok(_)))).count();
    assert!((50..500).contains(&taken), "{taken} events of 4 kB were taken");
    disk.writable().unwrap();
    timeout(LONG, writer.flush()).await.expect("they go on").unwrap();
    let counts = Counts::from([("k".to_owned(), 750)]);
    assert_exact(&witness(&client, &streams).await, &counts);
    cluster.check().unwrap();
    drop(cluster);
    drop(disk);
}

/// pravega #3931, #3783: a long log makes a long outage. The owner dies with everything untiered; how long writes stop is printed.
#[tokio::test]
async fn a_long_log_is_replayed_and_nothing_of_it_is_missing() {
    let set = [
        "segment_store.flush_interval=1h",
        "segment_store.flush_bytes=256MiB",
        "segment_store.snapshot_frames=1000000",
    ];
    let mut cluster = Cluster::start_with(Options::storage(1, 1).set(HASTE).set(&set)).await.unwrap();
    let (client, streams) = on(&cluster, "long", 2).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    for _ in 0..20 {
        numbered.write("k", 20, 100).await;
    }
    for _ in 0..2 {
        cluster.kill9("segment-store/a").unwrap();
        let begun = Instant::now();
        cluster.spawn("segment-store/a").unwrap();
        numbered.write("k", 20, 1).await;
        println!("40,000 untiered events: writes stopped for {} ms", begun.elapsed().as_millis());
        cluster.wait_until_ready("segment-store/a").await.unwrap();
    }
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    cluster.check().unwrap();
}
