//! Writers: batches, several with one stream, idle segments, a producer that floods.

use std::{collections::BTreeSet, time::Duration};

use client::WriterOptions;
use futures::future::join_all;
use logboom_tests::patiently;
use wire::segment_store::{DescribeSegment, SegmentName};

use crate::{
    numbered::{Counts, LONG, Numbered, assert_exact, key, witness},
    shared::Stage,
};

#[tokio::test]
async fn a_batch_is_stored_in_order_and_once() {
    let stage = Stage::new("batches", 4).await;
    let mut writers = Vec::new();
    for n in 0..3 {
        writers.push(Numbered::open(&stage.client, &stage.streams, &format!("w{n}")).await);
    }
    let each = writers.iter_mut().enumerate().map(async |(n, writer)| {
        for _ in 0..5 {
            writer.write(&format!("w{n}."), 7, 40).await;
        }
        writer.counts.clone()
    });
    let counts: Counts = join_all(each).await.into_iter().flatten().collect();
    assert_eq!(counts.values().sum::<u64>(), 3 * 5 * 7 * 40);
    assert_exact(&witness(&stage.client, &stage.streams).await, &counts);
}

#[tokio::test]
async fn a_segment_that_was_idle_takes_and_gives_events_at_once() {
    let stage = Stage::new("idle", 2).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    let mut reader = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    numbered.write("k", 1, 1).await;
    let mut seen = crate::numbered::read(&mut reader, 1).await;
    // Everything goes to Tier 2 and the log is purged; several leases and parked reads run out.
    let stream = stage.streams.describe().await.unwrap();
    let busy = stream.route(Some(&key("k0"))).unwrap();
    logboom_tests::eventually("the event is in Tier 2", LONG, async || {
        let name = SegmentName { segment: busy.segment };
        let info = patiently::<DescribeSegment>(&stage.streams.bus, &busy.container, &name).await?;
        anyhow::ensure!(info.tail_from == info.end && !info.chunks.is_empty(), "{info:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(reader.next(Duration::from_secs(3)).await.unwrap().is_none(), "nothing is invented");
    numbered.write("k", 1, 1).await;
    seen.extend(crate::numbered::read(&mut reader, 1).await);
    assert_exact(&seen, &numbered.counts);
}

/// A producer that does not wait for anything: memory is bounded, nothing is lost, and another writer is not starved.
#[tokio::test]
async fn a_producer_that_floods_is_slowed_down_and_harms_nobody() {
    let stage = Stage::new("flood", 2).await;
    let mut options = WriterOptions::new("flood".parse().unwrap());
    options.bytes_max = 1 << 20;
    let flood = stage.client.event_writer(stage.streams.index.clone(), options).await.unwrap();
    let filler = "x".repeat(2_000);
    let flooding = tokio::spawn(async move {
        let mut most = 0;
        for number in 0..6_000u64 {
            let payload = format!("{{\"msg\":\"flood {number}\",\"filler\":\"{filler}\"}}");
            drop(flood.write(Some(&key("flood")), payload.into()).await.unwrap());
            most = most.max(flood.backlog().memory_bytes);
        }
        flood.flush().await.unwrap();
        most
    });
    let mut other = Numbered::open(&stage.client, &stage.streams, "other").await;
    for _ in 0..10 {
        other.write("o", 4, 5).await;
    }
    let most = flooding.await.unwrap();
    assert!(most <= 3 << 20, "{most} bytes waited in memory");
    let mut counts = other.counts.clone();
    counts.insert("flood".to_owned(), 6_000);
    assert_exact(&witness(&stage.client, &stage.streams).await, &counts);
}

/// A client that asks for events and never fetches them holds up nobody.
#[tokio::test]
async fn a_reader_that_stops_reading_holds_up_nobody() {
    let stage = Stage::new("stuck", 1).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    let mut stuck = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    numbered.write("k", 4, 1).await;
    let mut seen = crate::numbered::read(&mut stuck, 4).await;
    for _ in 0..10 {
        numbered.write("k", 4, 50).await;
    }
    assert_exact(&witness(&stage.client, &stage.streams).await, &numbered.counts);
    seen.extend(crate::numbered::read(&mut stuck, 2_000).await);
    assert_exact(&seen, &numbered.counts);
}

/// Numbers of a writer go on where the stream has them, also in another process.
#[tokio::test]
async fn a_writer_that_comes_back_under_its_name_goes_on() {
    let stage = Stage::new("resumed", 2).await;
    let mut first = Numbered::open(&stage.client, &stage.streams, "same").await;
    first.write("k", 5, 10).await;
    first.writer.clone().close().await.unwrap();
    stage.streams.split(0).await.unwrap();
    let client = stage.cluster.client("gateway/second").await.unwrap();
    let mut second = Numbered::open(&client, &stage.streams, "same").await;
    second.counts = first.counts.clone();
    second.write("k", 5, 10).await;
    let seen = witness(&stage.client, &stage.streams).await;
    assert_exact(&seen, &second.counts);
    let places: BTreeSet<_> = seen.iter().map(|one| (one.segment, one.offset)).collect();
    assert_eq!(places.len(), seen.len());
}
