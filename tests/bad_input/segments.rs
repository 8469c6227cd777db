//! Streams, segments and transactions, asked for over the platform's own calls.

use std::{fs, time::Duration};

use anyhow::{Result, bail};
use bus::{Bus, BusOptions};
use logboom_tests::{Streams, eventually, patiently};
use types::{KeyRange, SegmentId, StreamCut, Timestamp};
use wire::{
    Call, Problem,
    block::BlockBuilder,
    coordinator::{
        BeginTransaction, CommitTransaction, DescribeStream, NewTransaction, Scale, ScaleStream, SealStream,
        SegmentRange, StreamName, TransactionName, TruncateAt, TruncateStream,
    },
    segment_store::{Append, AppendEvents, ReadFrom, ReadSegment, Truncate, TruncateSegment},
};

use crate::row::{Row, Section, Seen, World};

pub(crate) fn section() -> Section {
    Section {
        title: "Streams and segments",
        words: "Calls of services and of programs that link the client: each refusal has a code and a kind, and says whether anything \
                was applied. A 4xx never was.",
        rows: names().into_iter().chain(segments()).chain(streams()).collect(),
    }
}

async fn bus(world: &World) -> Result<Bus> {
    let creds = Some(fs::read_to_string(world.up.data().join("keys/platform.creds"))?);
    let url = world.api().nats_url.clone();
    Ok(Bus::connect(BusOptions { url, creds, name: "gateway/bad-input".to_owned(), ..BusOptions::default() }).await?)
}

/// A stream with two segments that only these rows use.
async fn stream(world: &World, name: &str) -> Result<(Streams, Vec<SegmentRange>)> {
    let streams = Streams::create(&bus(world).await?, name, 2).await?;
    let segments = streams.describe().await?.segments;
    Ok((streams, segments))
}

/// The refusal of a call; that it succeeds is the mistake.
async fn refused<C: Call>(bus: &Bus, key: &C::Key, request: &C::Request) -> Result<Seen> {
    match patiently::<C>(bus, key, request).await {
        Ok(_) => bail!("{} was answered", C::NAME),
        Err(problem) => Ok(seen(&problem)),
    }
}

fn seen(problem: &Problem) -> Seen {
    let text = format!("{} ({:?})", problem.message, problem.outcome);
    Seen { answer: format!("{} {}", problem.code.status(), problem.kind), text }
}

fn append(segment: SegmentId, first_event_number: u64, expected_end: Option<u64>) -> Append {
    let mut block = BlockBuilder::new();
    block.push(Timestamp::from_millis(1), 0, b"{\"msg\":\"one\"}");
    let writer = "bad-input".parse().unwrap();
    Append { segment, writer, first_event_number, block: block.finish(), expected_end }
}

fn read(segment: SegmentId, from: u64) -> ReadFrom {
    ReadFrom { segment, from, bytes_max: 1 << 16, wait_ms: 0 }
}

fn names() -> Vec<Row> {
    vec![
        Row {
            input: "a stream that does not exist",
            answer: "404 UnknownIndex",
            says: &["nowhere"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let name = StreamName { index: "nowhere".parse()? };
                    refused::<DescribeStream>(&bus(w).await?, &(), &name).await
                })
            },
        },
        Row {
            input: "a segment that does not exist",
            answer: "404 UnknownSegment",
            says: &["NotApplied"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "unknown-segment").await?;
                    let ghost = SegmentId { number: 77, ..segments[0].segment };
                    refused::<AppendEvents>(&streams.bus, &segments[0].container, &append(ghost, 1, None)).await
                })
            },
        },
    ]
}

fn segments() -> Vec<Row> {
    vec![
        Row {
            input: "an append that leaves a gap in its writer's event numbers",
            answer: "409 EventNumberGap",
            says: &["NotApplied"],
            then: "ask for the last number and send what lies above it",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "gap").await?;
                    let SegmentRange { segment, container, .. } = segments[0];
                    refused::<AppendEvents>(&streams.bus, &container, &append(segment, 5, None)).await
                })
            },
        },
        Row {
            input: "a conditional append behind another end",
            answer: "409 ConditionFailed",
            says: &["NotApplied"],
            then: "read on and decide again",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "condition").await?;
                    let SegmentRange { segment, container, .. } = segments[0];
                    refused::<AppendEvents>(&streams.bus, &container, &append(segment, 1, Some(9))).await
                })
            },
        },
        Row {
            input: "an append to a sealed segment",
            answer: "409 SegmentSealed",
            says: &["NotApplied"],
            then: "a repeat of what it has is answered as before",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "sealed-segment").await?;
                    let SegmentRange { segment, container, .. } = segments[0];
                    patiently::<AppendEvents>(&streams.bus, &container, &append(segment, 1, None)).await?;
                    streams.split(0).await?;
                    let repeat = patiently::<AppendEvents>(&streams.bus, &container, &append(segment, 1, None)).await?;
                    anyhow::ensure!(repeat.duplicate_count == 1, "{repeat:?}");
                    refused::<AppendEvents>(&streams.bus, &container, &append(segment, 2, None)).await
                })
            },
        },
        Row {
            input: "a read of what was truncated",
            answer: "404 Truncated",
            says: &["1"],
            then: "readers go on at the head of the stream",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "truncated-read").await?;
                    let SegmentRange { segment, container, .. } = segments[0];
                    patiently::<AppendEvents>(&streams.bus, &container, &append(segment, 1, None)).await?;
                    let before = Truncate { segment, before: 1 };
                    patiently::<TruncateSegment>(&streams.bus, &container, &before).await?;
                    refused::<ReadSegment>(&streams.bus, &container, &read(segment, 0)).await
                })
            },
        },
        Row {
            input: "a truncation beyond the end of a segment",
            answer: "400 BeyondEnd",
            says: &["NotApplied"],
            then: "nothing is truncated",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "beyond").await?;
                    let SegmentRange { segment, container, .. } = segments[0];
                    refused::<TruncateSegment>(&streams.bus, &container, &Truncate { segment, before: 8 }).await
                })
            },
        },
    ]
}

fn streams() -> Vec<Row> {
    vec![
        Row {
            input: "a cut that does not cover the key space",
            answer: "400 InvalidCut",
            says: &["NotApplied"],
            then: "nothing is truncated",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "half-a-cut").await?;
                    let cut = StreamCut([(segments[0].segment, 0)].into());
                    let request = TruncateAt { index: streams.index.clone(), cut };
                    refused::<TruncateStream>(&streams.bus, &(), &request).await
                })
            },
        },
        Row {
            input: "a scale whose new ranges overlap",
            answer: "400 InvalidScale",
            says: &["NotApplied"],
            then: "no segment is sealed",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "overlap").await?;
                    let KeyRange { first, last } = segments[0].range;
                    let ranges = vec![KeyRange { first, last }, KeyRange { first: last - 1, last }];
                    let request = Scale { index: streams.index.clone(), seal: vec![segments[0].segment], ranges };
                    refused::<ScaleStream>(&streams.bus, &(), &request).await
                })
            },
        },
        Row {
            input: "a scale of a sealed stream",
            answer: "409 StreamSealed",
            says: &["sealed"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (streams, segments) = stream(w, "sealed-stream").await?;
                    let name = StreamName { index: streams.index.clone() };
                    patiently::<SealStream>(&streams.bus, &(), &name).await?;
                    let ranges = vec![segments[0].range];
                    let request = Scale { index: streams.index.clone(), seal: vec![segments[0].segment], ranges };
                    refused::<ScaleStream>(&streams.bus, &(), &request).await
                })
            },
        },
        Row {
            input: "the commit of a transaction whose lease ran out",
            answer: "409 TransactionOver",
            says: &["lease", "NotApplied"],
            then: "its events are never seen; the writer begins another one",
            run: |w| {
                Box::pin(async {
                    let (streams, _) = stream(w, "expired").await?;
                    let new = NewTransaction { index: streams.index.clone(), lease_ms: 1_000 };
                    let begun = patiently::<BeginTransaction>(&streams.bus, &(), &new).await?;
                    let name = TransactionName { index: streams.index.clone(), transaction: begun.transaction };
                    eventually("it runs out", Duration::from_secs(20), async || {
                        let now = patiently::<wire::coordinator::DescribeTransaction>(&streams.bus, &(), &name).await?;
                        anyhow::ensure!(now.reason.is_some(), "it is {:?}", now.phase);
                        Ok(())
                    })
                    .await?;
                    refused::<CommitTransaction>(&streams.bus, &(), &name).await
                })
            },
        },
    ]
}
