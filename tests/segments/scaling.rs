//! Scaling by hand under load, and many times.

use std::{env, time::Duration};

use types::KeyRange;

use crate::{
    numbered::{Background, Numbered, assert_exact, in_order, read, witness},
    shared::Stage,
};

/// Scales of a stream with many segments, and of one with few: `LB_SCALES` multiplies them up to Pravega's 10 x 10,000 and 1,010 x 10.
fn scales() -> u32 {
    env::var("LB_SCALES").map_or(1, |text| text.parse().expect("LB_SCALES is a whole number"))
}

#[tokio::test]
async fn s24_many_segments_and_many_scales_end_in_a_right_graph() {
    // All segments at once, again and again.
    let wide = Stage::new("wide", 64).await;
    for _ in 0..2 * scales() {
        let stream = wide.streams.describe().await.unwrap();
        let all = stream.segments.iter().map(|segment| segment.segment).collect();
        wide.streams.scale(all, KeyRange::split_evenly(64)).await.unwrap();
    }
    assert_eq!(wide.streams.check_epochs().await.unwrap(), 1 + 2 * scales());
    assert_eq!(wide.streams.nodes().await.unwrap().len(), usize::try_from(64 * (1 + 2 * scales())).unwrap());

    // One after another, with events in between.
    let deep = Stage::new("deep", 2).await;
    let mut numbered = Numbered::open(&deep.client, &deep.streams, "writer").await;
    for round in 0..usize::try_from(30 * scales()).unwrap() {
        if round % 2 == 0 {
            deep.streams.split(round).await.unwrap()
        } else {
            deep.streams.merge(round).await.unwrap()
        };
        if round % 5 == 0 {
            numbered.write("k", 4, 3).await;
        }
    }
    assert_eq!(deep.streams.check_epochs().await.unwrap(), 1 + 30 * scales());
    assert_exact(&witness(&deep.client, &deep.streams).await, &numbered.counts);
    let tails = deep.client.tails(&deep.streams.index).await.unwrap();
    deep.streams.truncate(tails).await.unwrap();
    let (nodes, stream) = (deep.streams.nodes().await.unwrap(), deep.streams.describe().await.unwrap());
    let mut left: Vec<_> = nodes.iter().map(|node| node.segment).collect();
    let mut present: Vec<_> = stream.segments.iter().map(|segment| segment.segment).collect();
    left.sort_unstable();
    present.sort_unstable();
    assert_eq!(left, present, "what lies before the cut has left the graph");
    assert!(witness(&deep.client, &deep.streams).await.is_empty());
    numbered.write("k", 4, 1).await;
    assert_eq!(witness(&deep.client, &deep.streams).await.len(), 4);
}

/// pravega #1059, #2576, #4411, #2790, #4072: writers stuck in a race with a seal.
#[tokio::test]
async fn writers_and_readers_follow_scales_that_never_stop() {
    let stage = Stage::new("races", 1).await;
    let background = Background::start(&stage.client, &stage.streams, 3, 4).await;
    let mut reader = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..12 {
        if round % 3 == 2 {
            stage.streams.merge(round).await.unwrap()
        } else {
            stage.streams.split(round).await.unwrap()
        };
        while let Some((segment, batch)) = reader.next(Duration::from_millis(20)).await.unwrap() {
            seen.extend(logboom_tests::Seen::of(segment, &batch).unwrap());
        }
    }
    let counts = background.finish().await;
    let all: u64 = counts.values().sum();
    seen.extend(read(&mut reader, all - seen.len() as u64).await);
    assert_eq!(in_order(&seen), counts);
    assert_exact(&witness(&stage.client, &stage.streams).await, &counts);
    stage.streams.check_epochs().await.unwrap();
}
