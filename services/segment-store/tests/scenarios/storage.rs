//! Tier 2 over time: compaction, garbage, orphans, and what must hold when objects are not what they were.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::SegmentReader;
use testkit::eventually;
use types::{Offset, SegmentId};
use wire::{
    Empty, Outcome,
    coordinator::SegmentRange,
    segment_store::{
        CreateSegment, DeleteSegment, FlushContainer, NewSegment, ReadFrom, ReadSegment, SealSegment, SegmentInfo,
        SegmentName,
    },
};

use crate::stage::{EAGER, LONG, Stage, TAIL_ONLY, assert_exact, counter, events, noise, read, rows};

/// Chunks at once, and what was replaced stays.
const HOARDING: &[&str] = &["segment_store.flush_interval=100ms", "segment_store.garbage_delay=1h"];
/// Chunks at once, and what nothing names goes soon.
const TIDY: &[&str] = &[
    "segment_store.flush_interval=100ms",
    "segment_store.garbage_delay=100ms",
    "segment_store.snapshot_frames=5",
    "common.lease_ttl=1s",
];

/// Appends one event at a time and waits for each to be a chunk of its own; all are of one day, for compaction keeps days apart.
async fn trickle(stage: &Stage, segment: SegmentRange, numbers: std::ops::Range<u64>) {
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    for n in numbers {
        let event = format!("{{\"time\":\"2026-01-02T03:04:05Z\",\"msg\":\"e {n}\",\"n\":{n}}}");
        writer.append(segment, n + 1, &[event.into()]).await.unwrap();
        eventually(LONG, async || info(stage, segment).await.tail_from == n + 1).await;
    }
}

async fn info(stage: &Stage, segment: SegmentRange) -> SegmentInfo {
    stage.client.describe(segment).await.unwrap()
}

async fn all(stage: &Stage, segment: SegmentRange, count: u64) -> Vec<(Offset, String)> {
    read(&mut stage.client.reader(segment, 0), count).await
}

/// Whether the objects of the index are those that the segment names, and no others.
async fn only_named(stage: &Stage, segment: SegmentRange) -> bool {
    let named: Vec<String> = info(stage, segment).await.chunks.into_iter().map(|chunk| chunk.key).collect();
    stage.objects("chunks/shop").await == named
}

async fn seal(stage: &Stage, segment: SegmentRange) {
    let name = SegmentName { segment: segment.segment };
    stage.bus.call::<SealSegment>(&segment.container, &name).await.unwrap();
}

async fn replace(stage: &Stage, key: &str, bytes: &'static [u8]) {
    stage.objects.delete(key).await.unwrap();
    stage.objects.put_if_absent(key, Bytes::from_static(bytes)).await.unwrap();
}

#[actix::test]
async fn a_trickle_becomes_few_chunks_and_a_slow_reader_still_finds_the_old_ones() {
    let mut stage = Stage::with_store(HOARDING).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    trickle(&stage, segment, 0..7).await;
    let request = ReadFrom { segment: segment.segment, from: 0, bytes_max: 1 << 20, wait_ms: 0 };
    let told = stage.bus.call::<ReadSegment>(&segment.container, &request).await.unwrap().chunks;
    assert_eq!(told.len(), 7);
    trickle(&stage, segment, 7..20).await;
    eventually(LONG, async || info(&stage, segment).await.chunks.len() <= 6).await;
    let now = info(&stage, segment).await.chunks;
    assert!(now.windows(2).all(|pair| pair[0].to == pair[1].from), "{now:?}");
    assert!(told.iter().all(|old| !now.contains(old)), "they were merged");
    for old in &told {
        let bytes = stage.objects.get(&old.key).await.unwrap();
        assert_eq!(rows(&chunk::read(bytes).unwrap()), [(old.from, format!("e {}", old.from))]);
    }
    assert_exact(&all(&stage, segment, 20).await, "e", 20);
    seal(&stage, segment).await;
    eventually(LONG, async || info(&stage, segment).await.chunks.len() == 1).await;
    let only = info(&stage, segment).await.chunks.remove(0);
    assert_eq!(only.time_min, only.time_max, "the hour of the test is no reason for a second chunk");
    // The next owner collects what this one left.
    stage.stop("a").await;
    stage.start("a", TIDY).await;
    eventually(LONG, async || only_named(&stage, segment).await).await;
    assert_exact(&all(&stage, segment, 20).await, "e", 20);
}

#[actix::test]
async fn a_reader_sees_every_event_once_while_its_chunks_are_merged_and_collected() {
    let stage = Stage::with_store(TIDY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let slow = async |mut reader: SegmentReader| {
        let mut seen = Vec::new();
        while seen.len() < 40 {
            seen.extend(read(&mut reader, 1).await);
            tokio::task::yield_now().await;
        }
        seen
    };
    let (seen, ()) = tokio::join!(slow(stage.client.reader(segment, 0)), trickle(&stage, segment, 0..40));
    assert_exact(&seen, "e", 40);
    eventually(LONG, async || only_named(&stage, segment).await).await;
    assert!(info(&stage, segment).await.chunks.len() <= 14);
    assert_exact(&all(&stage, segment, 40).await, "e", 40);
}

#[actix::test]
async fn objects_that_no_state_named_go_and_others_stay() {
    let stage = Stage::with_store(TIDY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    trickle(&stage, segment, 0..3).await;
    let folder = format!("chunks/shop/{}/", segment.segment);
    let put = async |name: &str| {
        let key = format!("{folder}{name}");
        stage.objects.put_if_absent(&key, Bytes::from_static(b"lost")).await.unwrap();
        key
    };
    let lost = put("00000000000000000000-G1-lost.parquet").await;
    let zombie = put("00000000000000000900-G0-zombie.parquet").await;
    let later = put("00000000000000000000-G2-later.parquet").await;
    let foreign = put("notes.txt").await;
    eventually(LONG, async || {
        let left = stage.objects(&folder).await;
        !left.contains(&lost) && !left.contains(&zombie)
    })
    .await;
    let left = stage.objects(&folder).await;
    assert!(left.contains(&later), "a later owner may be about to name it");
    assert!(left.contains(&foreign), "nobody knows what it is");
    assert_exact(&all(&stage, segment, 3).await, "e", 3);
}

#[actix::test]
async fn what_comes_late_into_the_folder_of_a_deleted_segment_goes_too() {
    let stage = Stage::with_store(TIDY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    trickle(&stage, segment, 0..2).await;
    let name = SegmentName { segment: segment.segment };
    stage.bus.call::<DeleteSegment>(&segment.container, &name).await.unwrap();
    // Put by an owner that does not know yet; until nobody can be like that, the folder is left alone.
    let late = format!("chunks/shop/{}/00000000000000000002-G1-late.parquet", segment.segment);
    stage.objects.put_if_absent(&late, Bytes::from_static(b"late")).await.unwrap();
    eventually(LONG, async || stage.objects("chunks/shop").await.is_empty()).await;
}

#[actix::test]
async fn who_was_told_of_a_chunk_finds_it_after_its_segment_was_truncated_away() {
    let delay = Duration::from_secs(3);
    let set = [TIDY, &["segment_store.garbage_delay=3s"]].concat();
    let mut stage = Stage::with_store(&set).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    trickle(&stage, segment, 0..5).await;
    let told = info(&stage, segment).await.chunks;
    // A truncation of the stream deletes the segments that lie before its cut.
    let (begun, name) = (Instant::now(), SegmentName { segment: segment.segment });
    stage.bus.call::<DeleteSegment>(&segment.container, &name).await.unwrap();
    // The next owner knows from the log when that was.
    stage.stop("a").await;
    stage.start("a", &set).await;
    for chunk in &told {
        let bytes = stage.objects.get(&chunk.key).await.unwrap();
        assert_eq!(rows(&chunk::read(bytes).unwrap()), [(chunk.from, format!("e {}", chunk.from))]);
    }
    let left = async || stage.objects("chunks/shop").await.len();
    eventually(LONG, async || left().await < told.len()).await;
    assert!(begun.elapsed() >= delay, "objects went after {:?}", begun.elapsed());
    eventually(LONG, async || left().await == 0).await;
}

#[actix::test]
async fn a_chunk_that_was_named_for_a_moment_stays_for_its_time() {
    // A frame waits long enough for a truncation to come into the frame that commits the chunk.
    let set = [HOARDING, &["segment_store.frame_linger=100ms"]].concat();
    let stage = Stage::with_store(&set).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let described =
        async || stage.bus.call::<wire::segment_store::DescribeContainer>(&segment.container, &Empty {}).await.unwrap();
    let mut named = 0;
    for n in 0..50 {
        let before = stage.objects("chunks/shop").await.len();
        writer.append(segment, n + 1, &events("e", n..n + 1)).await.unwrap();
        eventually(LONG, async || stage.objects("chunks/shop").await.len() > before).await;
        let truncate = wire::segment_store::Truncate { segment: segment.segment, before: n + 1 };
        stage.bus.call::<wire::segment_store::TruncateSegment>(&segment.container, &truncate).await.unwrap();
        named = described().await.garbage_count;
        if named > 0 {
            break;
        }
    }
    assert!(named > 0, "no chunk was ever committed before its truncation");
    let garbage = stage.objects("chunks/shop").await;
    assert_eq!(garbage.len() as u64, named, "{garbage:?}");
}

#[actix::test]
async fn a_chunk_that_is_gone_is_named_to_its_readers_and_everything_else_goes_on() {
    let stage = Stage::with_store(HOARDING).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    trickle(&stage, segment, 0..5).await;
    let chunks = info(&stage, segment).await.chunks;
    stage.objects.delete(&chunks[1].key).await.unwrap();
    replace(&stage, &chunks[3].key, b"rubbish").await;
    let mut reader = stage.client.reader(segment, 0);
    let first = reader.next(Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(rows(&[first]), [(0, "e 0".to_owned())]);
    let gone = reader.next(Duration::ZERO).await.unwrap_err();
    assert!(gone.message.contains(&chunks[1].key), "{gone}");
    let damaged = stage.client.reader(segment, 3).next(Duration::ZERO).await.unwrap_err();
    assert!(damaged.message.contains(&chunks[3].key), "{damaged}");
    // Appends, flushes and compaction around the holes go on.
    trickle(&stage, segment, 5..30).await;
    eventually(LONG, async || info(&stage, segment).await.chunks.len() <= 14).await;
    let now = info(&stage, segment).await.chunks;
    assert!(now.contains(&chunks[1]) && now.contains(&chunks[3]), "a hole is never merged away: {now:?}");
    let rest = read(&mut stage.client.reader(segment, 4), 26).await;
    assert_eq!((rest.len(), rest[0].0, rest[25].0), (26, 4, 29));
}

#[actix::test]
async fn a_damaged_snapshot_is_survived_and_the_loss_of_all_is_not_hidden() {
    let mut stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let folder = format!("snap/segment-store/{}/", segment.container);
    let log = stage.log(segment.container).await;
    let mut count = 0;
    while log.read(0, 1).await.unwrap().first().is_none_or(|record| record.seq <= 10) {
        writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap();
        count += 10;
        assert!(count < 20_000, "the log is never purged");
    }
    stage.stop("a").await;
    let parts = stage.objects(&folder).await.into_iter().filter(|key| key.contains("part-"));
    let newest = parts.max().unwrap();
    replace(&stage, &newest, b"rubbish").await;
    stage.start("a", EAGER).await;
    writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap();
    count += 10;
    assert_exact(&all(&stage, segment, count).await, "e", count);
    stage.stop("a").await;
    for key in stage.objects(&folder).await {
        stage.objects.delete(&key).await.unwrap();
    }
    // The log begins behind what is missing: to begin anew would hide the loss.
    let damages = || counter("lb_segment_store_damages_total");
    let before = damages();
    stage.start("a", EAGER).await;
    let refused = writer.append(segment, count + 1, &events("e", count..count + 1)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::NotApplied, "{refused}");
    assert_eq!(refused.kind, "ContainerReadOnly", "{refused}");
    assert!(damages() > before, "an alarm");
}

#[actix::test]
async fn a_snapshot_older_than_what_is_left_of_the_log_is_refused() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, 1, &events("e", 0..5)).await.unwrap();
    stage.stop("a").await;
    stage.start("a", TAIL_ONLY).await;
    for n in 5..10 {
        writer.append(segment, n + 1, &events("e", n..n + 1)).await.unwrap();
    }
    let log = stage.log(segment.container).await;
    let kept: Vec<String> = stage.objects("snap").await;
    stage.stop("a").await;
    // Somebody purges the log behind the back of its owner, and the snapshot that it wrote at its end is lost.
    let last = log.read(0, usize::MAX).await.unwrap().last().unwrap().seq;
    log.purge_below(last).await.unwrap();
    for key in stage.objects("snap").await.iter().filter(|key| !kept.contains(key)) {
        stage.objects.delete(key).await.unwrap();
    }
    let damages = || counter("lb_segment_store_damages_total");
    let before = damages();
    stage.start("a", TAIL_ONLY).await;
    let refused = writer.append(segment, 11, &events("e", 10..11)).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("ContainerReadOnly", Outcome::NotApplied), "{refused}");
    assert!(damages() > before, "an alarm");
}

#[actix::test]
async fn a_log_that_cannot_be_purged_throttles_and_recovers() {
    // The log holds twice the tail; a file stands where the snapshots have to be.
    let set =
        &["segment_store.flush_interval=100ms", "segment_store.flush_bytes=64KiB", "segment_store.tail_bytes_max=1MiB"];
    let mut stage = Stage::with_store(set).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    stage.objects.put_if_absent("snap", Bytes::from_static(b"in the way")).await.unwrap();
    let mut count = 0;
    let refused = loop {
        let mut block = wire::block::BlockBuilder::new();
        assert!(block.push(types::Timestamp::from_millis(1), 0, &noise(count, 40_000)));
        let append = wire::segment_store::Append {
            segment: segment.segment,
            writer: "w1".parse().unwrap(),
            first_event_number: count + 1,
            block: block.finish(),
            expected_end: None,
        };
        match stage.bus.call::<wire::segment_store::AppendEvents>(&segment.container, &append).await {
            Ok(_) => count += 1,
            Err(problem) if problem.message.contains("log is nearly full") => break problem,
            // The storage writer needs a moment.
            Err(problem) => assert_eq!(problem.kind, "Throttled", "{problem}"),
        }
        assert!(count < 1_000, "never throttled");
    };
    assert_eq!((refused.kind.as_str(), refused.outcome), ("Throttled", Outcome::NotApplied));
    assert!(count > 30, "{count}");
    stage.objects.delete("snap").await.unwrap();
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, count + 1, &[noise(count, 40_000)]).await.unwrap();
    assert_exact(&all(&stage, segment, count + 1).await, "e", count + 1);
    // However far it was purged: without its snapshots it does not look like a new one.
    stage.stop("a").await;
    for key in stage.objects("snap").await {
        stage.objects.delete(&key).await.unwrap();
    }
    stage.start("a", set).await;
    let refused = writer.append(segment, count + 2, &[noise(count + 1, 40_000)]).await.unwrap_err();
    assert_eq!(refused.kind, "ContainerReadOnly", "{refused}");
}

#[actix::test]
async fn an_idle_segment_does_not_hold_the_log() {
    let stage = Stage::with_store(TIDY).await;
    let stream = stage.stream("shop", 1, 32).await;
    let same = |a: &SegmentRange, b: &SegmentRange| a.container == b.container && a.segment != b.segment;
    let idle = stream.segments[0];
    let busy = *stream.segments.iter().find(|other| same(&idle, other)).expect("32 segments in 8 containers");
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(idle, 1, &events("e", 0..1)).await.unwrap();
    let log = stage.log(idle.container).await;
    let first = log.read(0, 1).await.unwrap()[0].seq;
    let mut count = 0;
    while log.read(0, 1).await.unwrap().first().is_none_or(|record| record.seq <= first + 5) {
        writer.append(busy, count + 1, &events("e", count..count + 1)).await.unwrap();
        count += 1;
        assert!(count < 20_000, "the log is never purged");
    }
    assert_exact(&all(&stage, idle, 1).await, "e", 1);
}

#[actix::test]
async fn a_flush_on_demand_moves_everything_whatever_the_rule_says() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let stream = stage.stream("shop", 1, 16).await;
    let container = stream.segments[0].container;
    let ours: Vec<_> = stream.segments.iter().filter(|segment| segment.container == container).copied().collect();
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    for segment in &ours {
        writer.append(*segment, 1, &events("e", 0..3)).await.unwrap();
    }
    let shadow = NewSegment {
        segment: SegmentId { number: 0x8000_0001, ..ours[0].segment },
        index: "shop".parse().unwrap(),
        predecessors: Vec::new(),
        transactional: true,
        origin: None,
    };
    stage.bus.call::<CreateSegment>(&container, &shadow).await.unwrap();
    let open = SegmentRange { segment: shadow.segment, ..ours[0] };
    writer.append(open, 1, &events("t", 0..2)).await.unwrap();
    let folder = format!("snap/segment-store/{container}/");
    assert!(stage.objects(&folder).await.is_empty());
    let flushed = stage.bus.call_within::<FlushContainer>(&container, &Empty {}, LONG).await.unwrap();
    for segment in &ours {
        let info = info(&stage, *segment).await;
        assert_eq!((info.tail_from, info.end), (3, 3));
    }
    assert_eq!(flushed.chunk_count, ours.len() as u64);
    assert_eq!(info(&stage, open).await.tail_from, 0, "an open transaction stays where it is");
    assert!(stage.objects(&folder).await.iter().any(|key| key.ends_with("manifest.lb")));
}
