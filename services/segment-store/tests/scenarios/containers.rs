//! Appends, reads, Tier 2, life and death of segments.

use std::time::Duration;

use bytes::Bytes;
use testkit::eventually;
use types::{EVENT_BYTES_MAX, SegmentId};
use wire::{
    Code, Empty,
    segment_store::{
        DeleteSegment, DescribeContainer, DescribeSegment, ReadFrom, ReadSegment, SealSegment, SegmentName,
    },
};

use crate::stage::{EAGER, LONG, Stage, TAIL_ONLY, assert_exact, events, read};

#[actix::test]
async fn an_append_is_read_and_its_repeat_is_not() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    assert_eq!(writer.resume(segment).await.unwrap(), 0);
    let first = writer.append(segment, 1, &events("e", 0..3)).await.unwrap();
    assert_eq!((first.offsets, first.duplicate_count), (vec![Some(0), Some(1), Some(2)], 0));
    let again = writer.append(segment, 1, &events("e", 0..3)).await.unwrap();
    assert_eq!((again.offsets, again.duplicate_count), (vec![Some(0), Some(1), Some(2)], 3));
    let overlap = writer.append(segment, 3, &events("e", 2..5)).await.unwrap();
    assert_eq!((overlap.offsets, overlap.duplicates), (vec![Some(2), Some(3), Some(4)], vec![0]));
    assert_eq!(writer.resume(segment).await.unwrap(), 5);
    let gap = writer.append(segment, 9, &events("e", 8..9)).await.unwrap_err();
    assert_eq!((gap.code, gap.kind.as_str()), (Code::Conflict, "EventNumberGap"));
    let mut reader = stage.client.reader(segment, 0);
    assert_exact(&read(&mut reader, 5).await, "e", 5);
    assert_eq!(reader.next(Duration::ZERO).await.unwrap(), None);
    assert_eq!(stage.client.tails(&"shop".parse().unwrap()).await.unwrap().offset(segment.segment), 5);
    assert_eq!(stage.client.heads(&"shop".parse().unwrap()).await.unwrap().offset(segment.segment), 0);
}

#[actix::test]
async fn what_is_wrong_is_said() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let mut segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let large = writer.append(segment, 1, &[Bytes::from(vec![0; EVENT_BYTES_MAX + 1])]).await.unwrap_err();
    assert_eq!(large.kind, "EventTooLarge");
    assert_eq!(stage.client.stream(&"none".parse().unwrap()).await.unwrap_err().kind, "UnknownIndex");
    segment.segment = SegmentId { number: 99, ..segment.segment };
    assert_eq!(writer.append(segment, 1, &events("e", 0..1)).await.unwrap_err().kind, "UnknownSegment");
    assert_eq!(stage.client.reader(segment, 0).next(Duration::ZERO).await.unwrap_err().kind, "UnknownSegment");
}

#[actix::test]
async fn a_parked_read_wakes_when_an_event_comes() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let mut reader = stage.client.reader(segment, 0);
    let parked =
        async { reader.next(Duration::from_secs(10)).await.unwrap().expect("woken, not timed out").num_rows() };
    let append = async {
        tokio::task::yield_now().await;
        writer.append(segment, 1, &events("e", 0..1)).await.unwrap();
    };
    let begun = std::time::Instant::now();
    let (rows, ()) = tokio::join!(parked, append);
    assert_eq!(rows, 1);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[actix::test]
async fn a_reader_sees_every_event_once_while_events_move_to_tier_2() {
    let stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    const COUNT: u64 = 3_000;
    let writing = async {
        for first in (0..COUNT).step_by(20) {
            writer.append(segment, first + 1, &events("e", first..first + 20)).await.unwrap();
        }
    };
    let mut live = stage.client.reader(segment, 0);
    let ((), seen) = tokio::join!(writing, read(&mut live, COUNT));
    assert_exact(&seen, "e", COUNT);
    let info = || stage.client.describe(segment);
    eventually(LONG, async || info().await.unwrap().tail_from == COUNT).await;
    let info = info().await.unwrap();
    assert!(info.chunks.windows(2).all(|w| w[0].to == w[1].from));
    // Chunks that were merged meanwhile stay for a while.
    let kept = async || {
        let chunks = stage.client.describe(segment).await.unwrap().chunks.len() as u64;
        let container = stage.bus.call::<DescribeContainer>(&segment.container, &Empty {}).await.unwrap();
        chunks + container.garbage_count
    };
    eventually(LONG, async || stage.objects("chunks/shop").await.len() as u64 == kept().await).await;
    assert!(kept().await > 1, "it all came as one chunk");
    assert_exact(&read(&mut stage.client.reader(segment, 0), COUNT).await, "e", COUNT);
    let middle = read(&mut stage.client.reader(segment, 1_234), COUNT - 1_234).await;
    assert_eq!(middle.first(), Some(&(1_234, "e 1234".to_owned())));
    assert_eq!(middle.len() as u64, COUNT - 1_234);
}

#[actix::test]
async fn one_answer_keeps_to_its_size() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let large: Vec<Bytes> = (0..5).map(|_| Bytes::from("x".repeat(200 << 10))).collect();
    writer.append(segment, 1, &large).await.unwrap();
    let request = ReadFrom { segment: segment.segment, from: 0, bytes_max: 500 << 10, wait_ms: 0 };
    let answer = stage.bus.call::<ReadSegment>(&segment.container, &request).await.unwrap();
    assert_eq!((answer.from, answer.next, answer.end), (0, 2, 5));
    assert!(answer.columns.len() <= 500 << 10);
    let tiny = ReadFrom { bytes_max: 1, ..request };
    assert_eq!(stage.bus.call::<ReadSegment>(&segment.container, &tiny).await.unwrap().next, 1, "at least one event");
    assert_eq!(read(&mut stage.client.reader(segment, 0), 5).await.len(), 5);
}

#[actix::test]
async fn a_sealed_segment_ends() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, 1, &events("e", 0..2)).await.unwrap();
    let name = SegmentName { segment: segment.segment };
    let sealed = stage.bus.call::<SealSegment>(&segment.container, &name).await.unwrap();
    assert_eq!((sealed.sealed, sealed.end), (true, 2));
    assert!(stage.bus.call::<SealSegment>(&segment.container, &name).await.unwrap().sealed, "again is fine");
    let refused = writer.append(segment, 3, &events("e", 2..3)).await.unwrap_err();
    assert_eq!(refused.kind, "SegmentSealed");
    assert_eq!(writer.append(segment, 1, &events("e", 0..2)).await.unwrap().duplicate_count, 2, "a repeat is known");
    let mut reader = stage.client.reader(segment, 0);
    assert_exact(&read(&mut reader, 2).await, "e", 2);
    assert_eq!(reader.next(Duration::from_secs(10)).await.unwrap(), None);
    assert!(reader.at_end());
    // Sealed events go to Tier 2 at once, although the interval is an hour.
    eventually(LONG, async || stage.client.describe(segment).await.unwrap().tail_from == 2).await;
}

#[actix::test]
async fn a_deleted_segment_takes_its_objects_with_it() {
    let soon = ["segment_store.garbage_delay=100ms", "common.lease_ttl=1s"];
    let stage = Stage::with_store(&[EAGER, &soon].concat()).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, 1, &events("e", 0..2)).await.unwrap();
    eventually(LONG, async || !stage.objects("chunks/shop").await.is_empty()).await;
    let name = SegmentName { segment: segment.segment };
    stage.bus.call::<DeleteSegment>(&segment.container, &name).await.unwrap();
    stage.bus.call::<DeleteSegment>(&segment.container, &name).await.unwrap();
    let gone = stage.bus.call::<DescribeSegment>(&segment.container, &name).await.unwrap_err();
    assert_eq!(gone.kind, "UnknownSegment");
    eventually(LONG, async || stage.objects("chunks/shop").await.is_empty()).await;
}
