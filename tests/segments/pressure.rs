//! Tier 2 that is away, and a log that is long: what users of Pravega complained about.

use std::time::Duration;

use anyhow::ensure;
use client::WriterOptions;
use logboom_tests::{Bucket, BucketFaults, Cluster, Options, Tmpfs, Workdir, eventually, patiently};
use tokio::time::{Instant, timeout};
use wire::segment_store::{DescribeSegment, SegmentName};

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

/// A nats-server closes connections whose clients do not read fast enough. It does so in the middle of a recovery, again and again,
/// while the link is slow; when it is not, the recovery goes on where it was.
#[tokio::test]
async fn a_recovery_survives_that_its_connection_is_closed_as_too_slow() {
    let set = [
        "segment_store.flush_interval=1h",
        "segment_store.flush_bytes=256MiB",
        "segment_store.snapshot_frames=1000000",
    ];
    let options =
        Options { fragile: true, nats_config: "write_deadline: \"200ms\"\n".to_owned(), ..Options::storage(1, 1) };
    let mut cluster = Cluster::start_with(options.set(HASTE).set(&set)).await.unwrap();
    let (client, streams) = on(&cluster, "slow", 1).await;
    let writer = client.event_writer(streams.index.clone(), WriterOptions::new("w".parse().unwrap())).await.unwrap();
    // What hardly compresses, so that the log is about as long as what is written: 24 MB. One answer to its reader, of up to
    // 8 MiB, is then more than the server's socket takes, which the kernel lets grow to 4 MiB.
    let filler: Vec<String> = (0..6_000u64).map(|n| crate::bytes::noise(n, 4_000)).collect();
    for (number, filler) in filler.into_iter().enumerate() {
        let payload = format!("{{\"msg\":\"k {number}\",\"filler\":\"{filler}\"}}");
        drop(writer.write(Some(&key("k")), payload.into()).await.unwrap());
    }
    timeout(LONG, writer.flush()).await.expect("written").unwrap();
    cluster.kill9("segment-store/a").unwrap();
    cluster.link("segment-store/a").unwrap().slow(Duration::from_millis(150));
    cluster.spawn("segment-store/a").unwrap();
    eventually("the connection is closed", LONG, async || {
        ensure!(cluster.nats.log(0).contains("Slow Consumer"), "nobody is too slow");
        Ok(())
    })
    .await
    .unwrap();
    cluster.link("segment-store/a").unwrap().mend();
    cluster.wait_until_ready("segment-store/a").await.unwrap();
    assert_exact(&witness(&client, &streams).await, &Counts::from([("k".to_owned(), 6_000)]));
    cluster.check().unwrap();
}

/// Each request to object storage takes longer than anybody waits for it, and is done all the same: events go on, what is not in
/// Tier 2 waits, and what was stored without an answer is there once.
#[tokio::test]
async fn object_storage_that_takes_half_a_minute_delays_tier_2_and_nobody_else() {
    let bucket = Bucket::serve().await.unwrap();
    let options = Options { bucket: Some(bucket.clone()), ..Options::storage(1, 1) };
    let mut cluster = Cluster::start_with(options.set(HASTE)).await.unwrap();
    let (client, streams) = on(&cluster, "waiting", 2).await;
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    bucket.set(BucketFaults { delay: Duration::from_secs(31), ..BucketFaults::default() });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(35) {
        let asked = Instant::now();
        numbered.write("k", 8, 5).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "writers wait for object storage");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Everything that is read comes from the tail.
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    assert!(bucket.slow.load(std::sync::atomic::Ordering::Relaxed) > 0, "nothing had to wait");
    bucket.set(BucketFaults::default());
    for segment in streams.describe().await.unwrap().segments {
        eventually("everything is in Tier 2", LONG, async || {
            let name = SegmentName { segment: segment.segment };
            let info = patiently::<DescribeSegment>(&streams.bus, &segment.container, &name).await?;
            ensure!(info.tail_from == info.end && !info.chunks.is_empty(), "{info:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    cluster.check().unwrap();
}
