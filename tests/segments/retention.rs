//! Retention by size, by time, and by what groups have consumed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use logboom_tests::{Streams, eventually, patiently};
use types::{GroupName, StreamCut};
use wire::{
    coordinator::{
        Consumed, CreateGroup, CutKind, DeleteGroup, GroupConfig, GroupDescription, GroupRetention, NamedGroup,
        ReportConsumed, RetentionChange, RetentionPolicy, StreamUpdate, UpdateStream,
    },
    segment_store::{DescribeSegment, SegmentName},
};

use crate::{
    numbered::{LONG, Numbered, witness},
    shared::Stage,
};

async fn keep(streams: &Streams, retention: Option<RetentionPolicy>) {
    let change = retention.map_or(RetentionChange::Forever, RetentionChange::By);
    let update = StreamUpdate { index: streams.index.clone(), scaling: None, retention: Some(change), tags: None };
    let updated = patiently::<UpdateStream>(&streams.bus, &(), &update).await.unwrap();
    assert_eq!(updated.retention, retention, "the update holds when it is answered");
}

/// How many events the stream still has, and how many it ever had.
pub(crate) async fn left(streams: &Streams) -> anyhow::Result<(u64, u64)> {
    let (mut left, mut all) = (0, 0);
    for node in streams.nodes().await? {
        let name = SegmentName { segment: node.segment };
        let info = patiently::<DescribeSegment>(&streams.bus, &node.container, &name).await?;
        left += info.end - info.start;
        all += info.end;
    }
    Ok((left, all))
}

async fn group(streams: &Streams, name: &str) -> GroupDescription {
    let config = GroupConfig {
        group: name.parse().unwrap(),
        scope: "tests".parse().unwrap(),
        from: BTreeMap::from([(streams.index.clone(), CutKind::Unbounded)]),
        to: BTreeMap::new(),
        checkpoint_ms: 0,
        retention: GroupRetention::Manual,
    };
    patiently::<CreateGroup>(&streams.bus, &(), &config).await.unwrap()
}

async fn consumed(streams: &Streams, of: &GroupDescription, cut: StreamCut) {
    let (group, generation): (GroupName, u64) = (of.config.group.clone(), of.generation);
    let report = Consumed { group, generation, index: streams.index.clone(), cut };
    patiently::<ReportConsumed>(&streams.bus, &(), &report).await.unwrap();
}

#[tokio::test]
async fn s13_retention_by_size_and_by_time() {
    let stage = Stage::new("by-size", 1).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    // An event is about 14 bytes of payload: 4 kB are some 300 events.
    keep(&stage.streams, Some(RetentionPolicy::Size { min_bytes: 2_000, max_bytes: Some(4_000) })).await;
    for _ in 0..8 {
        numbered.write("k", 5, 20).await;
        tokio::time::sleep(Duration::from_millis(350)).await;
    }
    let (rest, _) = eventually("the head moves", LONG, async || {
        let (rest, all) = left(&stage.streams).await?;
        ensure!(all == 800 && rest < 400, "{rest} of {all} are left");
        Ok((rest, all))
    })
    .await
    .unwrap();
    assert!(rest * 14 >= 2_000, "{rest} events are less than what must stay");
    keep(&stage.streams, None).await;
    assert_eq!(witness(&stage.client, &stage.streams).await.len() as u64, left(&stage.streams).await.unwrap().0);

    let stage = Stage::new("by-time", 2).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    keep(&stage.streams, Some(RetentionPolicy::Time { min_ms: 500, max_ms: Some(1_500) })).await;
    numbered.write("old", 5, 20).await;
    eventually("everything old goes", LONG, async || {
        let (rest, _) = left(&stage.streams).await?;
        ensure!(rest == 0, "{rest} are left");
        Ok(())
    })
    .await
    .unwrap();
    keep(&stage.streams, None).await;
    numbered.write("new", 5, 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(left(&stage.streams).await.unwrap(), (20, 120), "without a policy nothing goes");
    assert_eq!(witness(&stage.client, &stage.streams).await.len(), 20);
}

#[tokio::test]
async fn s14_retention_never_passes_the_slowest_subscriber_inside_its_maximum() {
    let stage = Stage::new("consumed", 2).await;
    let (streams, index) = (&stage.streams, &stage.streams.index);
    let mut numbered = Numbered::open(&stage.client, streams, "writer").await;
    let (slow, fast) = (group(streams, "slow").await, group(streams, "fast").await);
    keep(streams, Some(RetentionPolicy::Time { min_ms: 1, max_ms: None })).await;
    let mut cuts = Vec::new();
    for round in 0..4 {
        numbered.write("k", 4, 10).await;
        cuts.push(stage.client.tails(index).await.unwrap());
        if round == 1 {
            // During scaling too.
            streams.split(0).await.unwrap();
        }
    }
    // The fast one alone frees nothing.
    consumed(streams, &fast, cuts[3].clone()).await;
    consumed(streams, &slow, cuts[0].clone()).await;
    eventually("what the slow one has consumed goes", LONG, async || {
        let (rest, _) = left(streams).await?;
        ensure!(rest <= 120, "{rest} are left");
        Ok(())
    })
    .await
    .unwrap();
    // Several rounds of the retention loop: not one event more.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(witness(&stage.client, streams).await.len(), 120, "40 were consumed by both");
    // A cut before the last one changes nothing; the next one frees what lies before it.
    consumed(streams, &slow, cuts[2].clone()).await;
    eventually("more goes", LONG, async || {
        let (there, _) = left(streams).await?;
        ensure!(there == 40, "{there} are left");
        Ok(())
    })
    .await
    .unwrap();
    // A stuck subscriber holds nothing back beyond the maximum.
    keep(streams, Some(RetentionPolicy::Time { min_ms: 1, max_ms: Some(700) })).await;
    eventually("everything goes", LONG, async || {
        let (rest, _) = left(streams).await?;
        ensure!(rest == 0, "{rest} are left");
        Ok(())
    })
    .await
    .unwrap();
    for name in ["slow", "fast"] {
        patiently::<DeleteGroup>(&streams.bus, &(), &NamedGroup { group: name.parse().unwrap() }).await.unwrap();
    }
}
