//! What holds the log back no longer than it must: open transactions that last, and snapshots when nothing happens.

use testkit::eventually;
use types::{Generation, SegmentId};
use wire::{
    Empty,
    coordinator::SegmentRange,
    segment_store::{
        ContainerInfo, CreateSegment, DescribeContainer, Merge, MergeSegment, Merged, NewSegment, OwnerRecord,
    },
};

use crate::stage::{LONG, Stage, assert_exact, counter, noise, read};

/// A log of 2 MiB, of which nothing is needed for long.
const SMALL: &[&str] =
    &["segment_store.flush_interval=100ms", "segment_store.flush_bytes=64KiB", "segment_store.tail_bytes_max=1MiB"];
/// Bytes of one event: three transactions of four events are below half of a tail.
const EVENT: usize = 30_000;

async fn begin(stage: &Stage, parent: SegmentRange, number: u32) -> SegmentRange {
    let segment = SegmentId { number: 0x8000_0000 + number, ..parent.segment };
    let index = "shop".parse().unwrap();
    let new = NewSegment { segment, index, predecessors: Vec::new(), transactional: true, origin: None };
    stage.bus.call::<CreateSegment>(&parent.container, &new).await.unwrap();
    SegmentRange { segment, ..parent }
}

async fn describe(stage: &Stage, segment: SegmentRange) -> ContainerInfo {
    stage.bus.call::<DescribeContainer>(&segment.container, &Empty {}).await.unwrap()
}

async fn first_seq(stage: &Stage, segment: SegmentRange) -> u64 {
    stage.log(segment.container).await.read(0, 1).await.unwrap()[0].seq
}

async fn fill(stage: &Stage, to: SegmentRange, writer: &str, numbers: std::ops::Range<u64>) {
    let writer = stage.client.writer("shop".parse().unwrap(), writer.parse().unwrap());
    for n in numbers {
        writer.append(to, n + 1, &[noise(n, EVENT)]).await.unwrap();
    }
}

/// Four logs full of other events.
const TRAFFIC: u64 = 300;

#[actix::test]
async fn an_open_transaction_neither_holds_the_log_nor_is_lost_with_its_owner() {
    let mut stage = Stage::with_store(SMALL).await;
    stage.start("b", SMALL).await;
    let parent = stage.stream("shop", 1, 1).await.segments[0];
    let (kept, ended) = (begin(&stage, parent, 1).await, begin(&stage, parent, 2).await);
    fill(&stage, kept, "t", 0..4).await;
    fill(&stage, ended, "u", 0..4).await;
    let opened = describe(&stage, parent).await.applied_seq;
    let before = counter("lb_segment_store_carried_blocks_total");
    fill(&stage, parent, "w", 0..TRAFFIC).await;
    assert!(counter("lb_segment_store_carried_blocks_total") > before, "nothing was carried");
    let full = describe(&stage, parent).await.log_bytes;
    assert!(full <= 2 << 20, "the log holds {full} bytes");
    eventually(LONG, async || first_seq(&stage, parent).await > opened).await;
    // The owner dies without a word: another one restores a snapshot and replays.
    let log = stage.log(parent.container).await;
    let ghost = OwnerRecord { generation: Generation(2), replica: "ghost".parse().unwrap() };
    log.claim(&ghost).await.unwrap();
    let nothing = SegmentId { number: 0x8000_0009, ..parent.segment };
    let probe = Merge { segment: parent.segment, source: nothing };
    let fenced = stage.bus.call::<MergeSegment>(&parent.container, &probe).await.unwrap_err();
    // Or a chunk of its own has told it before, and its doors are closed.
    assert!(
        matches!(fenced.kind.as_str(), "Fenced" | "NoResponders"),
        "it learns from its log that another owner came, and writes no snapshot any more: {fenced}"
    );
    stage.place(|_| ("b".into(), 3)).await;
    eventually(LONG, async || {
        let info = stage.bus.call::<DescribeContainer>(&parent.container, &Empty {}).await;
        info.is_ok_and(|info| info.replica.as_str() == "b")
    })
    .await;
    let end = stage.client.describe(parent).await.unwrap().end;
    assert_eq!(end, TRAFFIC);
    // What is open may still grow, and is carried on by the new owner.
    fill(&stage, kept, "t", 4..6).await;
    fill(&stage, parent, "w", TRAFFIC..2 * TRAFFIC).await;
    let merge = Merge { segment: parent.segment, source: kept.segment };
    let merged = stage.bus.call::<MergeSegment>(&parent.container, &merge).await.unwrap();
    assert_eq!(merged, Merged { from: 2 * TRAFFIC, count: 6, repeated: false });
    let seen = read(&mut stage.client.reader(parent, 0), 2 * TRAFFIC + 6).await;
    let (own, of_transaction) = seen.split_at(usize::try_from(2 * TRAFFIC).unwrap());
    assert_exact(own, "e", 2 * TRAFFIC);
    let texts: Vec<_> = of_transaction.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(texts, (0..6).map(|n| format!("e {n}")).collect::<Vec<_>>());
    // The other one still waits, and what was merged goes to Tier 2 as everything else.
    eventually(LONG, async || {
        let info = stage.client.describe(parent).await.unwrap();
        info.tail_from == info.end
    })
    .await;
    assert_eq!(stage.client.describe(ended).await.unwrap().end, 4);
}

/// Far below what the log may hold by default, and above what it keeps at rest.
const RESTED_BYTES: u64 = 8 << 20;

#[actix::test]
async fn a_log_at_rest_lets_go_of_what_is_in_tier_2() {
    let stage = Stage::with_store(&["segment_store.flush_interval=100ms"]).await;
    let parent = stage.stream("shop", 1, 1).await.segments[0];
    fill(&stage, parent, "w", 0..TRAFFIC * 2).await;
    assert!(describe(&stage, parent).await.log_bytes > RESTED_BYTES);
    eventually(LONG, async || describe(&stage, parent).await.log_bytes <= RESTED_BYTES).await;
    let end = stage.client.describe(parent).await.unwrap().end;
    assert_eq!(end, TRAFFIC * 2);
}
