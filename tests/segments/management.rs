//! Streams and scopes: creating, describing, sealing, deleting, and what is refused.

use std::collections::BTreeSet;

use client::{WriteCause, WriterOptions};
use logboom_tests::{Streams, patiently};
use types::{KeyRange, StreamCut, Tag};
use wire::{
    Code, Empty,
    coordinator::{
        CreateScope, CreateStream, DeleteScope, DeleteStream, DescribePlacement, DescribeStream, ListScopes,
        ListStreams, NewStream, ScaleStream, ScopeDeletion, ScopeRef, ScopesOf, SealStream, StreamName, StreamUpdate,
        StreamsOf, TruncateAt, TruncateStream, UpdateStream,
    },
};

use crate::{
    numbered::{Numbered, assert_exact, event, key, read, witness},
    shared::{Stage, installation},
};

#[tokio::test]
async fn s10_segments_are_spread_over_the_stores_and_readable() {
    let stage = Stage::new("spread", 10).await;
    let placement = patiently::<DescribePlacement>(&stage.streams.bus, &(), &Empty {}).await.unwrap();
    let stream = stage.streams.describe().await.unwrap();
    let owners: BTreeSet<_> = stream
        .segments
        .iter()
        .filter_map(|segment| placement.assignments.iter().find(|at| at.container == segment.container))
        .map(|at| at.replica.clone())
        .collect();
    assert_eq!(owners.len(), 2, "ten segments are on both stores: {placement:?}");
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 40, 5).await;
    let seen = witness(&stage.client, &stage.streams).await;
    assert_exact(&seen, &numbered.counts);
    assert_eq!(seen.iter().map(|one| one.segment).collect::<BTreeSet<_>>().len(), 10, "every segment has events");
}

#[tokio::test]
async fn s22_scopes_and_streams_three_rounds_and_everything_invalid() {
    let cluster = installation().await;
    let bus = cluster.bus("gateway/segments").await.unwrap();
    for round in 0..3 {
        let scope: types::ScopeName = "managed".parse().unwrap();
        let named = |index: &str| StreamName { index: index.parse().unwrap() };
        patiently::<CreateScope>(&bus, &(), &ScopeRef { scope: scope.clone() }).await.unwrap();
        patiently::<CreateScope>(&bus, &(), &ScopeRef { scope: scope.clone() }).await.unwrap();
        let tag: Tag = "blue".parse().unwrap();
        for index in ["managed-a", "managed-b"] {
            let mut new = NewStream::fixed(scope.clone(), index.parse().unwrap(), 2);
            new.tags = if index.ends_with('a') { vec![tag.clone()] } else { Vec::new() };
            let created = patiently::<CreateStream>(&bus, &(), &new).await.unwrap();
            assert_eq!(patiently::<CreateStream>(&bus, &(), &new).await.unwrap(), created, "round {round}");
            new.segment_count = 3;
            let differs = patiently::<CreateStream>(&bus, &(), &new).await.unwrap_err();
            assert_eq!((differs.code, differs.kind.as_str()), (Code::Conflict, "StreamDiffers"));
        }
        let tagged = StreamsOf { scope: Some(scope.clone()), tag: Some(tag.clone()), ..StreamsOf::default() };
        let names = async |of: &StreamsOf| {
            let list = patiently::<ListStreams>(&bus, &(), of).await.unwrap();
            list.streams.into_iter().map(|stream| stream.index.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&tagged).await, ["managed-a"]);
        let retag =
            StreamUpdate { index: "managed-b".parse().unwrap(), scaling: None, retention: None, tags: Some(vec![tag]) };
        patiently::<UpdateStream>(&bus, &(), &retag).await.unwrap();
        assert_eq!(names(&tagged).await, ["managed-a", "managed-b"]);
        let deletion = |recursive| ScopeDeletion { scope: scope.clone(), recursive };
        let full = patiently::<DeleteScope>(&bus, &(), &deletion(false)).await.unwrap_err();
        assert_eq!(full.kind, "ScopeNotEmpty");
        patiently::<DeleteStream>(&bus, &(), &named("managed-a")).await.unwrap();
        patiently::<DeleteStream>(&bus, &(), &named("managed-a")).await.unwrap();
        patiently::<DeleteScope>(&bus, &(), &deletion(true)).await.unwrap();
        for index in ["managed-a", "managed-b"] {
            let gone = patiently::<DescribeStream>(&bus, &(), &named(index)).await.unwrap_err();
            assert_eq!((gone.code, gone.kind.as_str()), (Code::NotFound, "UnknownIndex"), "round {round}");
        }
        let scopes = patiently::<ListScopes>(&bus, &(), &ScopesOf::default()).await.unwrap().scopes;
        assert!(!scopes.contains(&scope), "round {round}: {scopes:?}");
    }
    let missing = patiently::<SealStream>(&bus, &(), &StreamName { index: "nowhere".parse().unwrap() }).await;
    assert_eq!(missing.unwrap_err().kind, "UnknownIndex");
}

#[tokio::test]
async fn s22_cuts_and_scales_that_do_not_cover_the_key_space_are_refused() {
    let stage = Stage::new("covering", 4).await;
    let stream = stage.streams.describe().await.unwrap();
    let index = stage.streams.index.clone();
    let all: Vec<_> = stream.segments.iter().map(|segment| segment.segment).collect();
    let quarter = stream.segments[0].range;
    let cases = [
        (vec![], vec![quarter]),
        (vec![all[0]], vec![]),
        (vec![all[0]], vec![quarter, quarter]),
        (vec![all[0]], vec![KeyRange { first: quarter.first, last: quarter.last - 1 }]),
        (vec![all[0], all[2]], vec![KeyRange { first: quarter.first, last: stream.segments[2].range.last }]),
    ];
    for (seal, ranges) in cases {
        let scale = wire::coordinator::Scale { index: index.clone(), seal, ranges };
        let refused = patiently::<ScaleStream>(&stage.streams.bus, &(), &scale).await.unwrap_err();
        assert_eq!(refused.kind, "InvalidScale", "{scale:?}: {refused}");
    }
    for cut in [StreamCut([(all[0], 0)].into()), StreamCut(all.iter().map(|segment| (*segment, 7)).collect())] {
        let truncate = TruncateAt { index: index.clone(), cut };
        let refused = patiently::<TruncateStream>(&stage.streams.bus, &(), &truncate).await.unwrap_err();
        assert_eq!(refused.kind, "InvalidCut", "{truncate:?}: {refused}");
    }
    // The empty cut is the head: nothing goes.
    let after = stage.streams.truncate(StreamCut::default()).await.unwrap();
    let as_before = (stream.epoch, stream.segments, stream.head);
    assert_eq!((after.epoch, after.segments, after.head), as_before, "nothing of it was begun");
}

#[tokio::test]
async fn a_sealed_stream_is_read_to_its_end_and_takes_nothing() {
    let stage = Stage::new("sealed", 2).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 6, 5).await;
    let name = StreamName { index: stage.streams.index.clone() };
    let sealed = patiently::<SealStream>(&stage.streams.bus, &(), &name).await.unwrap();
    assert!(sealed.sealed);
    assert_eq!(patiently::<SealStream>(&stage.streams.bus, &(), &name).await.unwrap(), sealed);
    let refused = async {
        let receipt = numbered.writer.write(Some(&key("k0")), event("k0 9")).await?;
        receipt.await
    };
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused.cause, WriteCause::StreamSealed(_)), "{refused:?}");
    let fresh =
        stage.client.event_writer(stage.streams.index.clone(), WriterOptions::new("late".parse().unwrap())).await;
    assert!(fresh.is_err(), "a new writer is refused at once");
    let mut reader = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    let seen = read(&mut reader, u64::MAX).await;
    assert!(reader.is_finished());
    assert_exact(&seen, &numbered.counts);
}

#[tokio::test]
async fn a_stream_that_is_created_again_begins_empty() {
    let stage = Stage::new("again", 2).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 4, 10).await;
    let mut reader = stage.client.stream_reader(&stage.streams.index, None, None).await.unwrap();
    let first = stage.streams.describe().await.unwrap();
    let name = StreamName { index: stage.streams.index.clone() };
    patiently::<DeleteStream>(&stage.streams.bus, &(), &name).await.unwrap();
    let lost = loop {
        // What it has under way may still come; then it must be told, and not wait for ever.
        match reader.next(std::time::Duration::from_secs(5)).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a reader of a deleted stream waits for events"),
            Err(problem) => break problem,
        }
    };
    assert_eq!(lost.code, Code::NotFound, "{lost}");
    let again = Streams::create(&stage.streams.bus, "again", 2).await.unwrap();
    assert_ne!(again.describe().await.unwrap().stream, first.stream);
    assert_exact(&witness(&stage.client, &again).await, &Default::default());
    let mut fresh = Numbered::open(&stage.cluster.client("gateway/again").await.unwrap(), &again, "writer").await;
    fresh.write("k", 4, 3).await;
    assert_exact(&witness(&stage.client, &again).await, &fresh.counts);
}
