//! Epochs, transactions, truncation, conditions: what the coordinator and clients build on.

use std::time::Duration;

use bytes::Bytes;
use testkit::eventually;
use types::{Clock, Generation, SegmentId};
use wire::{
    Code, Problem,
    block::BlockBuilder,
    coordinator::SegmentRange,
    segment_store::{
        Append, AppendEvents, Appended, ContainerLoaded, CreateSegment, DeleteSegment, DescribeContainer,
        DescribeWriters, ListContainerSegments, Merge, MergeSegment, Merged, NewSegment, OwnerRecord, PageOf, ReadFrom,
        ReadSegment, SealSegment, SegmentName, SegmentPlace, Truncate, TruncateSegment,
    },
};

use crate::stage::{EAGER, LONG, Stage, TAIL_ONLY, assert_exact, events, read};

fn shadow_of(parent: SegmentRange, number: u32) -> SegmentRange {
    // In the container of its parent, whatever its own id says.
    SegmentRange { segment: SegmentId { number: 0x8000_0000 + number, ..parent.segment }, ..parent }
}

fn place(segment: SegmentRange) -> SegmentPlace {
    SegmentPlace { segment: segment.segment, container: segment.container }
}

async fn create(stage: &Stage, segment: SegmentRange, predecessors: &[SegmentRange]) -> Result<(), Problem> {
    let transactional = segment.segment.number >= 0x8000_0000;
    let predecessors = predecessors.iter().map(|p| place(*p)).collect();
    let (segment_id, index) = (segment.segment, "shop".parse().unwrap());
    let new = NewSegment { segment: segment_id, index, predecessors, transactional, origin: None };
    stage.bus.call::<CreateSegment>(&segment.container, &new).await.map(drop)
}

async fn seal(stage: &Stage, segment: SegmentRange) -> u64 {
    let name = SegmentName { segment: segment.segment };
    stage.bus.call::<SealSegment>(&segment.container, &name).await.unwrap().end
}

async fn merge(stage: &Stage, into: SegmentRange, source: SegmentRange) -> Result<Merged, Problem> {
    let merge = Merge { segment: into.segment, source: source.segment };
    stage.bus.call::<MergeSegment>(&into.container, &merge).await
}

async fn append_with_ids(
    stage: &Stage,
    (to, writer): (SegmentRange, &str),
    (first, expected_end): (u64, Option<u64>),
    sent: &[(u128, Bytes)],
) -> Result<Appended, Problem> {
    let mut block = BlockBuilder::new();
    let now = bus::SystemClock.now();
    sent.iter().for_each(|(id, payload)| assert!(block.push(now, *id, payload)));
    let append = Append {
        segment: to.segment,
        writer: writer.parse().unwrap(),
        first_event_number: first,
        block: block.finish(),
        expected_end,
    };
    stage.bus.call::<AppendEvents>(&to.container, &append).await
}

async fn tiered(stage: &Stage, segment: SegmentRange, to: u64) {
    eventually(LONG, async || stage.client.describe(segment).await.is_ok_and(|i| i.tail_from == to)).await;
}

/// Takes the container away from its owner in the way of a crash: nothing is handed over, no snapshot is written.
async fn wrest(stage: &mut Stage, segment: SegmentRange, replica: &str, generation: u64) {
    let ghost = OwnerRecord { generation: Generation(generation), replica: "ghost".parse().unwrap() };
    stage.log(segment.container).await.claim(&ghost).await.unwrap();
    // The former owner learns it from its next append, whatever that is.
    let probe = append_with_ids(stage, (segment, "probe"), (1, None), &[(0, Bytes::from_static(b"{}"))]).await;
    assert!(probe.is_err(), "{probe:?}");
    stage.place(|_| (replica.into(), generation + 1)).await;
}

#[actix::test]
async fn a_writer_goes_on_in_the_successor_of_two_segments() {
    let mut stage = Stage::empty().await;
    stage.start("a", EAGER).await;
    stage.start("b", EAGER).await;
    // Neighbours belong to different owners, so that writers' numbers travel over the bus as well as directly.
    stage.place(|n| (if n % 2 == 0 { "a" } else { "b" }.into(), 1)).await;
    let mut number = 1;
    let stream = loop {
        let stream = stage.stream("shop", number, 2).await;
        if stream.segments[0].container.0 % 2 != stream.segments[1].container.0 % 2 {
            break stream;
        }
        number += 1;
    };
    let (left, right) = (stream.segments[0], stream.segments[1]);
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(left, 1, &events("e", 0..10)).await.unwrap();
    writer.append(right, 1, &events("f", 0..4)).await.unwrap();
    append_with_ids(&stage, (right, "w2"), (1, None), &[(77, "{}".into())]).await.unwrap();
    let segment = SegmentId { epoch: 1, number: 2, ..left.segment };
    let next = SegmentRange { segment, ..left };
    seal(&stage, left).await;
    let early = create(&stage, next, &[left, right]).await.unwrap_err();
    assert_eq!((early.code, early.kind.as_str()), (Code::Conflict, "NotSealed"));
    seal(&stage, right).await;
    let gone = SegmentRange { segment: SegmentId { number: 99, ..left.segment }, ..right };
    create(&stage, next, &[left, gone, right]).await.unwrap();
    assert_eq!(writer.resume(next).await.unwrap(), 10, "the larger of both");
    let name = SegmentName { segment: next.segment };
    let open = stage.bus.call::<DescribeWriters>(&next.container, &name).await.unwrap_err();
    assert_eq!(open.kind, "NotSealed", "what may still change is told to nobody");
    assert_eq!(stage.client.writer("shop".parse().unwrap(), "w2".parse().unwrap()).resume(next).await.unwrap(), 1);
    let sealed = writer.append(left, 11, &events("e", 10..11)).await.unwrap_err();
    assert_eq!(sealed.kind, "SegmentSealed");
    let repeat = writer.append(next, 10, &events("e", 9..12)).await.unwrap();
    assert_eq!((repeat.offsets, repeat.duplicates), (vec![None, Some(0), Some(1)], vec![0]));
    let repeat = append_with_ids(&stage, (next, "w3"), (1, None), &[(77, "{}".into())]).await.unwrap();
    assert_eq!((repeat.duplicate_count, repeat.offsets), (1, vec![None]), "a producer's repeat too");
    // What the successor knows is its own now.
    for old in [left, right] {
        stage.bus.call::<DeleteSegment>(&old.container, &SegmentName { segment: old.segment }).await.unwrap();
    }
    create(&stage, next, &[left, right]).await.unwrap();
    wrest(&mut stage, next, "b", 2).await;
    eventually(LONG, async || writer.resume(next).await.is_ok_and(|last| last == 12)).await;
    assert_eq!(writer.append(next, 11, &events("e", 10..12)).await.unwrap().offsets, [Some(0), Some(1)]);
}

#[actix::test]
async fn a_transaction_survives_its_owner_and_is_read_whole_or_not_at_all() {
    let mut stage = Stage::with_store(EAGER).await;
    stage.start("b", EAGER).await;
    let parent = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let (shadow, dropped) = (shadow_of(parent, 1), shadow_of(parent, 2));
    create(&stage, shadow, &[]).await.unwrap();
    create(&stage, dropped, &[]).await.unwrap();
    writer.append(parent, 1, &events("e", 0..5)).await.unwrap();
    for first in [5, 6, 7] {
        writer.append(shadow, first - 4, &events("e", first..first + 1)).await.unwrap();
    }
    writer.append(dropped, 1, &events("never", 0..3)).await.unwrap();
    tiered(&stage, parent, 5).await;
    wrest(&mut stage, parent, "b", 2).await;
    writer.append(shadow, 3, &events("e", 7..9)).await.unwrap();
    let request = ReadFrom { segment: shadow.segment, from: 0, bytes_max: 1 << 20, wait_ms: 0 };
    let hidden = stage.bus.call::<ReadSegment>(&shadow.container, &request).await.unwrap_err();
    assert_eq!((hidden.code, hidden.kind.as_str()), (Code::Conflict, "Transactional"));
    let info = stage.client.describe(shadow).await.unwrap();
    assert!(info.transactional && info.end == 4 && info.tail_from == 0 && info.chunks.is_empty(), "{info:?}");
    let mut reader = stage.client.reader(parent, 0);
    assert_exact(&read(&mut reader, 5).await, "e", 5);
    assert_eq!(reader.next(Duration::ZERO).await.unwrap(), None);
    let merged = merge(&stage, parent, shadow).await.unwrap();
    assert_eq!(merged, Merged { from: 5, count: 4, repeated: false });
    wrest(&mut stage, parent, "a", 4).await;
    eventually(LONG, async || merge(&stage, parent, shadow).await.is_ok_and(|m| m.repeated && m.from == 5)).await;
    let name = SegmentName { segment: dropped.segment };
    stage.bus.call::<DeleteSegment>(&dropped.container, &name).await.unwrap();
    assert_eq!(merge(&stage, parent, dropped).await.unwrap_err().kind, "UnknownSegment");
    writer.append(parent, 6, &events("e", 9..12)).await.unwrap();
    assert_exact(&read(&mut stage.client.reader(parent, 0), 12).await, "e", 12);
    tiered(&stage, parent, 12).await;
    assert_exact(&read(&mut stage.client.reader(parent, 0), 12).await, "e", 12);
    let late = shadow_of(parent, 3);
    create(&stage, late, &[]).await.unwrap();
    seal(&stage, parent).await;
    assert_eq!(merge(&stage, parent, late).await.unwrap_err().kind, "SegmentSealed");
}

#[actix::test]
async fn a_merged_transaction_that_only_the_log_has_is_put_back_where_it_belongs() {
    let set = ["segment_store.flush_interval=1h", "segment_store.snapshot_frames=1"];
    let mut stage = Stage::with_store(&set).await;
    stage.start("b", &set).await;
    let parent = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let shadow = shadow_of(parent, 1);
    create(&stage, shadow, &[]).await.unwrap();
    // The transaction's events are older than those that stand before them.
    writer.append(shadow, 1, &events("e", 2..4)).await.unwrap();
    writer.append(parent, 1, &events("e", 0..2)).await.unwrap();
    merge(&stage, parent, shadow).await.unwrap();
    writer.append(parent, 3, &events("e", 4..6)).await.unwrap();
    assert_eq!(stage.client.describe(parent).await.unwrap().tail_from, 0, "nothing is in Tier 2");
    // A graceful move writes a snapshot after all of it, so that the tail comes from the log and the places from there.
    stage.place(|_| ("b".into(), 2)).await;
    assert_exact(&read(&mut stage.client.reader(parent, 0), 6).await, "e", 6);
    wrest(&mut stage, parent, "a", 3).await;
    assert_exact(&read(&mut stage.client.reader(parent, 0), 6).await, "e", 6);
}

#[actix::test]
async fn a_creation_that_comes_behind_a_deletion_is_refused_by_every_owner() {
    let set = [EAGER, &["segment_store.garbage_delay=100ms", "common.lease_ttl=1s"]].concat();
    let mut stage = Stage::with_store(&set).await;
    stage.start("b", &set).await;
    let first = stage.stream("shop", 1, 1).await.segments[0];
    let next = SegmentRange { segment: SegmentId { epoch: 1, number: 1, ..first.segment }, ..first };
    let refused = async |segment: SegmentRange| {
        let problem = create(&stage, segment, &[]).await.unwrap_err();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::Conflict, "SegmentDeleted"), "{problem}");
    };
    let delete = async |segment: SegmentRange| {
        let name = SegmentName { segment: segment.segment };
        stage.bus.call::<DeleteSegment>(&segment.container, &name).await.unwrap();
    };
    // The deletion overtakes a creation that a deposed coordinator sent before.
    delete(next).await;
    refused(next).await;
    // What was there does not come back either, long after its objects are gone.
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(first, 1, &events("e", 0..3)).await.unwrap();
    tiered(&stage, first, 3).await;
    delete(first).await;
    eventually(LONG, async || stage.objects("chunks/shop").await.is_empty()).await;
    refused(first).await;
    let beside = SegmentRange { segment: SegmentId { number: 7, ..first.segment }, ..first };
    create(&stage, beside, &[]).await.unwrap();
    wrest(&mut stage, beside, "b", 2).await;
    eventually(LONG, async || stage.client.describe(beside).await.is_ok()).await;
    for segment in [first, next] {
        let problem = create(&stage, segment, &[]).await.unwrap_err();
        assert_eq!(problem.kind, "SegmentDeleted", "{problem}");
    }
}

#[actix::test]
async fn truncated_events_are_never_read_again() {
    let mut stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    for first in [0, 10, 20] {
        writer.append(segment, first + 1, &events("e", first..first + 10)).await.unwrap();
        let to = first + 10;
        eventually(LONG, async || stage.client.describe(segment).await.unwrap().tail_from == to).await;
    }
    let bus = stage.bus.clone();
    let truncate = async |before: u64| {
        let request = Truncate { segment: segment.segment, before };
        bus.call::<TruncateSegment>(&segment.container, &request).await
    };
    let beyond = truncate(31).await.unwrap_err();
    assert_eq!((beyond.code, beyond.kind.as_str()), (Code::BadRequest, "BeyondEnd"));
    let before = stage.client.describe(segment).await.unwrap();
    let info = truncate(15).await.unwrap();
    assert_eq!((info.start, info.end, info.bytes), (15, 30, before.bytes));
    assert!(info.chunks[0].from <= 15 && info.chunks[0].to > 15, "{:?}", info.chunks);
    assert!(info.truncated_bytes > 0 && info.truncated_bytes < info.bytes, "{info:?}");
    assert_eq!(truncate(3).await.unwrap().start, 15, "the start only grows");
    let request = |from| ReadFrom { segment: segment.segment, from, bytes_max: 1 << 20, wait_ms: 0 };
    let gone = stage.bus.call::<ReadSegment>(&segment.container, &request(14)).await.unwrap_err();
    assert_eq!((gone.code, gone.kind.as_str()), (Code::NotFound, "Truncated"));
    let seen = read(&mut stage.client.reader(segment, 15), 15).await;
    assert_eq!((seen[0].clone(), seen.len()), ((15, "e 15".to_owned()), 15));
    stage.stop("a").await;
    stage.start("a", EAGER).await;
    eventually(LONG, async || stage.client.describe(segment).await.is_ok_and(|i| i.start == 15)).await;
    let gone = stage.bus.call::<ReadSegment>(&segment.container, &request(14)).await.unwrap_err();
    assert_eq!(gone.kind, "Truncated");
    assert_eq!(
        writer.append(segment, 1, &events("e", 0..10)).await.unwrap().duplicate_count,
        10,
        "and never stored again"
    );
    let all = truncate(30).await.unwrap();
    assert_eq!((all.start, all.chunks.len(), all.truncated_bytes), (30, 0, all.bytes));
    writer.append(segment, 31, &events("e", 30..31)).await.unwrap();
    assert_eq!(read(&mut stage.client.reader(segment, 30), 1).await, [(30, "e 30".to_owned())]);
}

#[actix::test]
async fn of_two_clients_exactly_one_wins_each_offset() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    const COUNT: u64 = 60;
    let race = async |name: &str| {
        let (mut won, mut end, mut lost) = (Vec::new(), 0, 0);
        while end < COUNT {
            let number = won.len() as u64 + 1;
            let event = [(0, Bytes::from(format!("{{\"msg\":\"{name} {end}\"}}")))];
            match append_with_ids(&stage, (segment, name), (number, Some(end)), &event).await {
                Ok(appended) => {
                    assert_eq!(appended.offsets, [Some(end)]);
                    won.push(end);
                    end += 1;
                }
                Err(problem) => {
                    assert_eq!((problem.code, problem.kind.as_str()), (Code::Conflict, "ConditionFailed"));
                    lost += 1;
                    end = stage.client.describe(segment).await.unwrap().end;
                }
            }
        }
        (won, lost)
    };
    let ((left, left_lost), (right, right_lost)) = tokio::join!(race("left"), race("right"));
    let mut all: Vec<_> = left.iter().chain(&right).copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>(), "one each");
    assert!(left_lost + right_lost > 0, "they did race");
    for (offset, text) in read(&mut stage.client.reader(segment, 0), COUNT).await {
        let winner = if left.contains(&offset) { "left" } else { "right" };
        assert_eq!(text, format!("{winner} {offset}"));
    }
    let event = [(0, Bytes::from_static(b"{}"))];
    let repeat = append_with_ids(&stage, (segment, "left"), (1, Some(7)), &event).await;
    assert_eq!(repeat.unwrap().duplicate_count, 1, "what is stored needs no condition");
}

#[actix::test]
async fn appends_are_slowed_down_before_they_are_refused() {
    let set = [
        "segment_store.flush_interval=1h",
        "segment_store.flush_bytes=1MiB",
        "segment_store.tail_bytes_max=1MiB",
        "segment_store.frame_linger=0ms",
    ];
    let stage = Stage::with_store(&set).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    // 700 KiB: below three quarters, so that nothing goes to Tier 2; (700 - 512) / (921 - 512) of 50 ms.
    writer.append(segment, 1, &[Bytes::from("x".repeat(700 << 10))]).await.unwrap();
    for number in 2..5 {
        let begun = std::time::Instant::now();
        writer.append(segment, number, &events("e", number..number + 1)).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
    }
    let container = stage.bus.call::<DescribeContainer>(&segment.container, &wire::Empty {}).await.unwrap();
    assert!(container.tail_bytes > 700 << 10, "the tail stayed as it was");
}

#[actix::test]
async fn a_container_says_what_it_has_and_takes() {
    let set = ["segment_store.flush_interval=1h", "segment_store.load_interval=100ms"];
    let stage = Stage::with_store(&set).await;
    let first = stage.stream("shop", 1, 1).await.segments[0];
    let mut loads = stage.bus.listen::<ContainerLoaded>().await.unwrap();
    // All in the container of the first, so that there is something to list.
    let segments: Vec<_> =
        (1..6).map(|number| SegmentRange { segment: SegmentId { number, ..first.segment }, ..first }).collect();
    for segment in &segments {
        create(&stage, *segment, &[]).await.unwrap();
    }
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer
        .append(segments[2], 1, &[Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{\"b\":22}")])
        .await
        .unwrap();
    let told = tokio::time::timeout(LONG, loads.next()).await.unwrap().unwrap();
    assert_eq!((told.container, told.generation, told.segments.len()), (first.container, Generation(1), 1));
    assert_eq!(
        (told.segments[0].segment, told.segments[0].events, told.segments[0].bytes),
        (segments[2].segment, 2, 15)
    );
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let page = PageOf { after, limit: 4 };
        let page = stage.bus.call::<ListContainerSegments>(&first.container, &page).await.unwrap();
        assert!(page.segments.len() <= 4);
        listed.extend(page.segments.iter().map(|s| s.segment.number));
        after = page.segments.last().map(|s| s.segment);
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, [0, 1, 2, 3, 4, 5]);
    let info = stage.bus.call::<DescribeContainer>(&first.container, &wire::Empty {}).await.unwrap();
    assert_eq!((info.replica.as_str(), info.generation, info.segment_count), ("a", Generation(1), 6));
    assert!(info.tail_bytes > 0 && info.log_bytes > 0 && info.frame_number > 0 && info.damage.is_none(), "{info:?}");
}
