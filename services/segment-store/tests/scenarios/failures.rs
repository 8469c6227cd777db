//! What must hold when something fails.

use std::time::Duration;

use bus::RecordKind;
use bytes::Bytes;
use testkit::eventually;
use types::{ContainerId, Generation, SegmentId};
use wire::{
    Code, Outcome,
    block::BlockBuilder,
    segment_store::{
        Append, AppendEvents, CreateSegment, DescribeSegment, DescribeWriter, DescribeWriters, Merge, MergeSegment,
        NewSegment, OwnerRecord, ReadFrom, ReadSegment, SealSegment, SegmentName, SegmentPlace, Truncate,
        TruncateSegment, WriterName,
    },
};

use crate::stage::{EAGER, LONG, Stage, TAIL_ONLY, assert_exact, events, read};

#[actix::test]
async fn a_restarted_store_has_everything_and_knows_repeats() {
    for set in [TAIL_ONLY, EAGER] {
        let mut stage = Stage::with_store(set).await;
        let segment = stage.stream("shop", 1, 1).await.segments[0];
        let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
        writer.append(segment, 1, &events("e", 0..50)).await.unwrap();
        writer.append(segment, 51, &events("e", 50..100)).await.unwrap();
        stage.stop("a").await;
        stage.start("a", set).await;
        let again = writer.append(segment, 51, &events("e", 50..100)).await.unwrap();
        assert_eq!((again.duplicate_count, again.offsets[0]), (100 - 50, Some(50)), "{set:?}");
        writer.append(segment, 101, &events("e", 100..150)).await.unwrap();
        assert_exact(&read(&mut stage.client.reader(segment, 0), 150).await, "e", 150);
    }
}

#[actix::test]
async fn a_container_moves_while_it_is_written_and_read() {
    let mut stage = Stage::with_store(EAGER).await;
    stage.start("b", EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    const COUNT: u64 = 1_500;
    let writing = {
        let writer = writer.clone();
        tokio::spawn(async move {
            for first in (0..COUNT).step_by(10) {
                writer.append(segment, first + 1, &events("e", first..first + 10)).await.unwrap();
            }
        })
    };
    let mut reader = stage.client.reader(segment, 0);
    let reading = tokio::spawn(async move { read(&mut reader, COUNT).await });
    for generation in 2..6 {
        let end = stage.client.describe(segment).await.unwrap().end;
        let replica = if generation % 2 == 0 { "b" } else { "a" };
        stage.place(|_| (replica.into(), generation)).await;
        eventually(LONG, async || stage.client.describe(segment).await.is_ok_and(|i| i.end > end || i.end == COUNT))
            .await;
    }
    writing.await.unwrap();
    assert_exact(&reading.await.unwrap(), "e", COUNT);
    assert_exact(&read(&mut stage.client.reader(segment, 0), COUNT).await, "e", COUNT);
}

#[actix::test]
async fn a_superseded_owner_steps_down_and_its_append_is_nowhere() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    stage.start("b", TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, 1, &events("e", 0..10)).await.unwrap();
    // Somebody claims the container, and `a` is not told.
    let log = stage.log(segment.container).await;
    let ghost = OwnerRecord { generation: Generation(2), replica: "ghost".parse().unwrap() };
    log.claim(&ghost).await.unwrap();
    let mut block = BlockBuilder::new();
    block.push(types::Timestamp::from_millis(1), 0, b"{\"msg\":\"zombie\"}");
    let append = Append {
        segment: segment.segment,
        writer: "w2".parse().unwrap(),
        first_event_number: 1,
        block: block.finish(),
        expected_end: None,
    };
    let fenced = stage.bus.call::<AppendEvents>(&segment.container, &append).await.unwrap_err();
    assert_eq!((fenced.code, fenced.outcome), (Code::Fenced, Outcome::NotApplied), "{fenced}");
    // Its doors are closed: nobody is there until a new owner comes.
    let probe = || stage.bus.call_within::<AppendEvents>(&segment.container, &append, Duration::from_millis(300));
    eventually(LONG, async || probe().await.is_err_and(|p| p.kind == "NoResponders")).await;
    stage.place(|_| ("b".into(), 3)).await;
    writer.append(segment, 11, &events("e", 10..20)).await.unwrap();
    assert_exact(&read(&mut stage.client.reader(segment, 0), 20).await, "e", 20);
}

#[actix::test]
async fn an_owner_that_lost_its_container_never_says_that_a_segment_does_not_exist() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let known = stage.stream("shop", 1, 1).await.segments[0];
    let container = known.container;
    // A later owner has it, and `a` has not heard of that owner.
    let ghost = OwnerRecord { generation: Generation(2), replica: "ghost".parse().unwrap() };
    stage.log(container).await.claim(&ghost).await.unwrap();
    let segment = SegmentId { number: 9, ..known.segment };
    let name = SegmentName { segment };
    let mut block = BlockBuilder::new();
    assert!(block.push(types::Timestamp::from_millis(1), 0, b"{}"));
    let (writer, block) = ("w1".parse().unwrap(), block.finish());
    let append = Append { segment, writer, first_event_number: 1, block, expected_end: None };
    let of = WriterName { segment, writer: "w1".parse().unwrap() };
    let from = ReadFrom { segment, from: 0, bytes_max: 1 << 20, wait_ms: 0 };
    let merge = Merge { segment, source: SegmentId { number: 10, ..segment } };
    let bus = &stage.bus;
    let answers = [
        ("describe", bus.call::<DescribeSegment>(&container, &name).await.err()),
        ("writer", bus.call::<DescribeWriter>(&container, &of).await.err()),
        ("writers", bus.call::<DescribeWriters>(&container, &name).await.err()),
        ("read", bus.call::<ReadSegment>(&container, &from).await.err()),
        ("seal", bus.call::<SealSegment>(&container, &name).await.err()),
        ("truncate", bus.call::<TruncateSegment>(&container, &Truncate { segment, before: 0 }).await.err()),
        ("append", bus.call::<AppendEvents>(&container, &append).await.err()),
    ];
    for (what, answer) in answers {
        let problem = answer.unwrap();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::Fenced, "Fenced"), "{what}: {problem}");
    }
    // A new segment elsewhere must not begin as if its predecessor had been deleted.
    let elsewhere = (0..8).map(ContainerId).find(|other| *other != container).unwrap();
    let (next, predecessor) = (SegmentId { epoch: 1, number: 11, ..segment }, SegmentPlace { segment, container });
    let (index, predecessors) = ("shop".parse().unwrap(), vec![predecessor]);
    let new = NewSegment { segment: next, index, predecessors, transactional: false, origin: None };
    let silent = bus.call_within::<CreateSegment>(&elsewhere, &new, Duration::from_secs(2)).await.unwrap_err();
    assert_ne!(silent.kind, "SegmentDeleted", "{silent}");
    assert!(bus.call::<DescribeSegment>(&elsewhere, &SegmentName { segment: next }).await.is_err(), "it was created");
    let merged = bus.call::<MergeSegment>(&container, &merge).await.unwrap_err();
    assert_eq!(merged.kind, "Fenced", "{merged}");
}

#[actix::test]
async fn a_crash_of_nats_loses_nothing_acknowledged() {
    let mut stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    const COUNT: u64 = 1_000;
    let (progress, mut seen) = tokio::sync::watch::channel(0);
    let writing = tokio::spawn(async move {
        for first in (0..COUNT).step_by(10) {
            writer.append(segment, first + 1, &events("e", first..first + 10)).await.unwrap();
            progress.send_replace(first);
        }
    });
    for kill_at in [200, 500, 700] {
        seen.wait_for(|at| *at >= kill_at).await.unwrap();
        stage.world.nats.kill().unwrap();
        stage.world.nats.restart().await.unwrap();
    }
    writing.await.unwrap();
    assert_exact(&read(&mut stage.client.reader(segment, 0), COUNT).await, "e", COUNT);
}

#[actix::test]
async fn an_append_without_answer_is_found_in_the_log_again() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let pid = stage.world.nats.pid().unwrap().to_string();
    let signal = |name: &str| {
        let script = format!("kill {name} \"$0\"");
        assert!(std::process::Command::new("sh").args(["-c", &script, &pid]).status().unwrap().success());
    };
    // Far more than one frame, so that the owner has something to append whenever the server stops.
    const COUNT: u64 = 200;
    let pad = "x".repeat(60_000);
    let appends: Vec<_> = (0..COUNT)
        .map(|n| {
            let writer = stage.client.writer("shop".parse().unwrap(), format!("w{n}").parse().unwrap());
            let event = Bytes::from(format!("{{\"msg\":\"e {n}\",\"pad\":\"{pad}\"}}"));
            tokio::spawn(async move { writer.append(segment, 1, &[event]).await })
        })
        .collect();
    eventually(LONG, async || stage.client.describe(segment).await.unwrap().end > 0).await;
    signal("-STOP");
    // Longer than the owner tries its append.
    tokio::time::sleep(Duration::from_secs(12)).await;
    signal("-CONT");
    for append in appends {
        append.await.unwrap().unwrap();
    }
    let resyncs =
        telemetry::render().lines().find_map(|l| l.strip_prefix("lb_segment_store_resyncs_total ")?.parse().ok());
    assert!(resyncs.unwrap_or(0u64) > 0, "every append was answered");
    let seen = read(&mut stage.client.reader(segment, 0), COUNT).await;
    let mut texts: Vec<_> = seen.iter().map(|(_, text)| text.clone()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((texts.len() as u64, stage.client.describe(segment).await.unwrap().end), (COUNT, COUNT), "each once");
    // The log alone, without any snapshot, says the same.
    stage.stop("a").await;
    for key in stage.objects("snap").await {
        stage.objects.delete(&key).await.unwrap();
    }
    stage.start("a", TAIL_ONLY).await;
    assert_eq!(read(&mut stage.client.reader(segment, 0), COUNT).await, seen);
    let writer = stage.client.writer("shop".parse().unwrap(), "last".parse().unwrap());
    assert_eq!(writer.append(segment, 1, &events("e", 0..1)).await.unwrap().offsets, [Some(COUNT)]);
}

#[actix::test]
async fn the_log_is_purged_and_a_new_owner_needs_only_what_is_left() {
    let mut stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let log = stage.log(segment.container).await;
    let purged = async || log.read(0, 1).await.unwrap().first().is_none_or(|record| record.seq > 10);
    let mut count = 0;
    while !purged().await {
        writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap();
        count += 10;
        assert!(count < 20_000, "the log is never purged");
    }
    stage.start("b", EAGER).await;
    stage.place(|_| ("b".into(), 2)).await;
    let last = writer.append(segment, count - 9, &events("e", count - 10..count)).await.unwrap();
    assert_eq!(last.duplicate_count, 10);
    writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap();
    assert_exact(&read(&mut stage.client.reader(segment, 0), count + 10).await, "e", count + 10);
}

#[actix::test]
async fn a_damaged_log_makes_the_container_read_only_and_says_so() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, 1, &events("e", 0..10)).await.unwrap();
    stage.stop("a").await;
    let log = stage.log(segment.container).await;
    let (owner_seq, _) = log.owner().await.unwrap().unwrap();
    log.append(owner_seq, RecordKind::Frame, "rubbish", Bytes::from_static(b"rubbish")).await.unwrap();
    stage.start("a", TAIL_ONLY).await;
    assert_exact(&read(&mut stage.client.reader(segment, 0), 10).await, "e", 10);
    let refused = writer.append(segment, 11, &events("e", 10..20)).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("ContainerReadOnly", Outcome::NotApplied), "{refused}");
    let other = (0..8).map(ContainerId).find(|c| *c != segment.container).unwrap();
    let record = OwnerRecord { generation: Generation(1), replica: "a".parse().unwrap() };
    assert_eq!(stage.log(other).await.owner().await.unwrap().unwrap().1, record, "the others go on");
}

#[actix::test]
async fn a_log_that_began_anew_is_not_mistaken_for_the_one_of_the_snapshot() {
    let mut stage = Stage::with_store(EAGER).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let snapshots = format!("snap/segment-store/{}/", segment.container);
    let mut count = 0;
    while stage.objects(&snapshots).await.is_empty() {
        writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap();
        count += 10;
        assert!(count < 20_000, "there is never a snapshot");
    }
    stage.stop("a").await;
    stage.world.nats.delete_stream(&format!("T1_{}", segment.container)).await.unwrap();
    stage.start("a", EAGER).await;
    let refused = writer.append(segment, count + 1, &events("e", count..count + 10)).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("ContainerReadOnly", Outcome::NotApplied), "{refused}");
    assert!(refused.message.contains("it is another log"), "{refused}");
}

#[actix::test]
async fn writers_wait_while_object_storage_is_away_and_nothing_is_lost() {
    let set = &[
        "segment_store.flush_interval=100ms",
        "segment_store.flush_bytes=64KiB",
        "segment_store.tail_bytes_max=1MiB",
        "segment_store.appends_in_flight_max=4",
    ];
    let stage = Stage::with_store(set).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    // A file stands where the folder of the chunks has to be.
    stage.objects.put_if_absent("chunks", Bytes::from_static(b"in the way")).await.unwrap();
    let pad = "x".repeat(10_000);
    let make = |n: u64| Bytes::from(format!("{{\"msg\":\"e {n}\",\"pad\":\"{pad}\"}}"));
    let append = |n: u64| {
        let mut block = BlockBuilder::new();
        assert!(block.push(types::Timestamp::from_millis(1), 0, &make(n)));
        let (segment, writer) = (segment.segment, "w1".parse().unwrap());
        Append { segment, writer, first_event_number: n + 1, block: block.finish(), expected_end: None }
    };
    let mut count = 0;
    let refused = loop {
        match stage.bus.call::<AppendEvents>(&segment.container, &append(count)).await {
            Ok(_) => count += 1,
            Err(problem) => break problem,
        }
        assert!(count < 1_000, "never throttled");
    };
    assert_eq!((refused.code, refused.outcome), (Code::Throttled, Outcome::NotApplied), "{refused}");
    assert!(count > 50, "{count}");
    stage.objects.delete("chunks").await.unwrap();
    let writer = stage.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    writer.append(segment, count + 1, &[make(count)]).await.unwrap();
    assert_exact(&read(&mut stage.client.reader(segment, 0), count + 1).await, "e", count + 1);
}
