//! What a stream forgets by itself, and what it keeps for its subscribers.

use anyhow::Result;
use testkit::{World, eventually};
use types::StreamCut;
use wire::coordinator::{
    Consumed, CreateGroup, CutKind, GroupConfig, GroupRetention, NewStream, ReportConsumed, RetentionChange,
    RetentionPolicy, StreamUpdate, UpdateStream,
};

use crate::stage::{EVENT_BYTES, SOON, caller, coordinator, create, described, index, new, split_first, store_doors};

#[actix_rt::test]
async fn a_stream_keeps_no_more_than_the_most_and_no_less_than_the_least() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &["coordinator.retention_interval=100ms"]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let retention = Some(RetentionPolicy::Size { min_bytes: 100, max_bytes: Some(3_000) });
    let mut stream = create(&host, &NewStream { retention, ..new("shop", 2) }).await?;
    for round in 0..3 {
        // Writers go on until something went; then they rest.
        let before = stream.head.clone();
        eventually(SOON, async || {
            for there in &stream.segments {
                store.lock().unwrap().append(there.segment, "event");
            }
            described(&host, "shop").await.unwrap().head != before
        })
        .await;
        let kept = || store.lock().unwrap().readable(stream.stream) * EVENT_BYTES;
        eventually(SOON, async || (100..=3_000).contains(&kept())).await;
        // The same through scales.
        stream = split_first(&host, &described(&host, "shop").await?).await?;
        assert_eq!(stream.epoch, round + 1);
    }
    assert!(stream.head.0.values().any(|offset| *offset > 0), "{:?}", stream.head);
    // What lies wholly before the head is gone, with its predecessors.
    let first = types::SegmentId { stream: stream.stream, epoch: 0, number: 0 };
    eventually(SOON, async || {
        for there in &described(&host, "shop").await.unwrap().segments {
            store.lock().unwrap().append(there.segment, "event");
        }
        !store.lock().unwrap().segments.contains_key(&first)
    })
    .await;
    leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn nothing_goes_that_a_subscriber_still_wants() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &["coordinator.retention_interval=100ms"]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let retention = Some(RetentionChange::By(RetentionPolicy::Size { min_bytes: 0, max_bytes: None }));
    let stream = create(&host, &new("shop", 2)).await?;
    let group = GroupConfig {
        group: "readers".parse()?,
        scope: "team".parse()?,
        from: [(index("shop"), CutKind::Unbounded)].into(),
        to: [].into(),
        checkpoint_ms: 0,
        retention: GroupRetention::Manual,
    };
    let readers = host.bus.call::<CreateGroup>(&(), &group).await?;
    for there in stream.segments.iter().cycle().take(40) {
        store.lock().unwrap().append(there.segment, "event");
    }
    let update = StreamUpdate { index: index("shop"), scaling: None, retention, tags: None };
    host.bus.call::<UpdateStream>(&(), &update).await?;
    let (a, b) = (stream.segments[0].segment, stream.segments[1].segment);
    let consumed = |first, second| Consumed {
        group: readers.config.group.clone(),
        generation: readers.generation,
        index: index("shop"),
        cut: StreamCut([(a, first), (b, second)].into()),
    };
    for (first, second) in [(3, 7), (12, 7), (20, 20)] {
        host.bus.call::<ReportConsumed>(&(), &consumed(first, second)).await?;
        let wanted = consumed(first, second).cut;
        eventually(SOON, async || described(&host, "shop").await.unwrap().head == wanted).await;
        let starts = || [a, b].map(|segment| store.lock().unwrap().segments[&segment].start);
        eventually(SOON, async || starts() == [first, second]).await;
    }
    let back = host.bus.call::<ReportConsumed>(&(), &consumed(1, 1)).await;
    assert!(back.is_ok(), "a report that is late changes nothing");
    assert_eq!(store.lock().unwrap().readable(stream.stream), 0);
    leader.stop().await?;
    Ok(())
}
