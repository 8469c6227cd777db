//! The writers against containers and a coordinator that the tests play, over a real server.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use client::{Client, EventWriter, SpillOptions, WriteCause, WriterOptions};
use fake::{Stage, key};
use testkit::eventually;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use wire::{Outcome, Problem, coordinator::TransactionPhase};

const LONG: Duration = Duration::from_secs(30);

fn options(writer: &str) -> WriterOptions {
    WriterOptions::new(writer.parse().unwrap())
}

async fn open(client: &Client, options: WriterOptions) -> EventWriter {
    client.event_writer("shop".parse().unwrap(), options).await.unwrap()
}

fn event(key: usize, number: usize) -> Bytes {
    format!("key-{key}:{number}").into()
}

/// Writes `numbers` for every key, one by one.
async fn write(writer: &EventWriter, keys: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for n in 0..keys {
            drop(writer.write(Some(&key(n)), event(n, number)).await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_receipt_says_where_its_event_is() {
    let stage = Stage::new(4).await;
    let writer = open(&stage.client, options("w")).await;
    let stream = stage.client.stream(&"shop".parse().unwrap()).await.unwrap();
    let mut receipts = Vec::new();
    for n in 0..40 {
        receipts.push((n, writer.write(Some(&key(n)), event(n, 0)).await.unwrap()));
    }
    let keyless = writer.write(None, "of no key".into()).await.unwrap();
    for (n, receipt) in receipts {
        let position = timeout(LONG, receipt).await.unwrap().unwrap().unwrap();
        assert_eq!(position.segment, stream.route(Some(&key(n))).unwrap().segment);
        let segments = stage.store.segments.lock().unwrap();
        let stored = &segments[&position.segment].events[usize::try_from(position.offset).unwrap()];
        assert_eq!(*stored, event(n, 0));
    }
    assert_eq!(keyless.await.unwrap().unwrap().segment, stream.route(None).unwrap().segment);
    let (keys, texts): (Vec<_>, Vec<_>) = (0..2_000).map(|n| (key(n), event(n, 1))).unzip();
    let batch = writer.write_batch(keys.iter().map(Some).zip(&texts)).await.unwrap();
    assert_eq!(batch.len(), 2_000);
    timeout(LONG, batch).await.unwrap().unwrap();
    writer.close().await.unwrap();
    assert_eq!(stage.store.events().len(), 2_041);
    // Blocks, not events, are appended.
    assert!(stage.store.appends.load(Ordering::Relaxed) < 200, "{:?}", stage.store.appends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_come_from_any_iterator_in_any_task() {
    let stage = Stage::new(1).await;
    let writer = open(&stage.client, options("w")).await;
    let events: Vec<_> = (0..10).map(|n| (key(0), event(0, n))).collect();
    let writing = tokio::spawn(async move {
        let batch = writer.write_batch(events.iter().map(|(key, event)| (Some(key), event))).await;
        (writer, batch)
    });
    let (writer, batch) = writing.await.unwrap();
    batch.unwrap().await.unwrap();
    writer.close().await.unwrap();
    stage.store.assert_exact(1, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_and_exactness_survive_scaling_and_lost_answers() {
    for in_flight_max in [1, 4] {
        let stage = Stage::new(2).await;
        stage.store.lose_one_in.store(5, Ordering::Relaxed);
        let options = WriterOptions { block_bytes_max: 1_024, in_flight_max, ..options("w") };
        let writer = open(&stage.client, options).await;
        let mut written = 0;
        for (round, segments) in [5, 1, 3, 2].into_iter().enumerate() {
            write(&writer, 20, written..written + 50).await;
            let open_epoch = stage.store.scale(segments);
            write(&writer, 20, written + 50..written + 100).await;
            written += 100;
            if round == 1 {
                // While the epoch is not open, nothing is lost and writing goes on.
                eventually(LONG, async || writer.backlog().memory_bytes > 0).await;
            }
            open_epoch();
        }
        timeout(LONG, writer.close()).await.unwrap().unwrap();
        stage.store.assert_exact(20, written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_lives_through_the_loss_of_the_server() {
    let mut stage = Stage::new(3).await;
    let writer = open(&stage.client, options("w")).await;
    write(&writer, 6, 0..100).await;
    stage.world.nats.kill().unwrap();
    write(&writer, 6, 100..200).await;
    assert!(writer.backlog().memory_bytes > 0);
    stage.world.nats.restart().await.unwrap();
    write(&writer, 6, 200..300).await;
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    stage.store.assert_exact(6, 300);
}

/// A log loses its leader for up to 10 s; meanwhile producers go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_leader_costs_disk_and_not_memory_or_events() {
    const PAUSE: Duration = Duration::from_secs(8);
    const MEMORY: usize = 4 << 20;
    let stage = Stage::new(2).await;
    let dir = tempfile::tempdir().unwrap();
    let spill = SpillOptions { dir: dir.path().to_owned(), bytes_max: 256 << 20 };
    let options = WriterOptions { bytes_max: MEMORY, spill: Some(spill), ..options("w") };
    let writer = open(&stage.client, options).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    // 10 MB/s: 200 events of 1 000 bytes every 20 ms.
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, filler) = (Instant::now(), "x".repeat(980));
    let (mut rounds, mut spilled_max, mut waited_max) = (0, 0, Duration::ZERO);
    while begun.elapsed() < PAUSE {
        ticks.tick().await;
        let texts: Vec<_> =
            (0..200).map(|n| (key(n % 20), format!("key-{}:{} {filler}", n % 20, rounds * 10 + n / 20))).collect();
        let before = Instant::now();
        drop(writer.write_batch(texts.iter().map(|(key, text)| (Some(key), text))).await.unwrap());
        waited_max = waited_max.max(before.elapsed());
        let backlog = writer.backlog();
        assert!(backlog.memory_bytes <= MEMORY + 2_000, "{backlog:?}");
        spilled_max = spilled_max.max(backlog.spilled_bytes);
        rounds += 1;
    }
    assert!(spilled_max > 20 << 20, "{spilled_max} bytes were spilled");
    let files = std::fs::read_dir(dir.path().join("w.spill")).unwrap().count();
    assert!(files > 2, "{files} files");
    stage.store.paused.store(false, Ordering::Relaxed);
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    stage.store.assert_exact(20, rounds * 10);
    // The engine ends behind the last acknowledgement, and the directory with it.
    eventually(LONG, async || !dir.path().join("w.spill").exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spilled_finds_its_successors() {
    let stage = Stage::new(1).await;
    let dir = tempfile::tempdir().unwrap();
    let spill = SpillOptions { dir: dir.path().to_owned(), bytes_max: 64 << 20 };
    let options = WriterOptions { bytes_max: 1 << 20, spill: Some(spill), ..options("w") };
    let writer = open(&stage.client, options).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    write(&writer, 50, 0..1_000).await;
    assert!(writer.backlog().spilled_bytes > 1 << 20, "{:?}", writer.backlog());
    stage.store.scale(4)();
    stage.store.paused.store(false, Ordering::Relaxed);
    write(&writer, 50, 1_000..1_100).await;
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    stage.store.assert_exact(50, 1_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_spill_writing_waits_and_goes_on() {
    let stage = Stage::new(1).await;
    let options = WriterOptions { bytes_max: 64 << 10, ..options("w") };
    let writer = open(&stage.client, options).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    let other = writer.clone();
    let writing = tokio::spawn(async move { write(&other, 10, 0..1_000).await });
    eventually(LONG, async || writer.backlog().memory_bytes >= 64 << 10).await;
    assert!(!writing.is_finished());
    stage.store.paused.store(false, Ordering::Relaxed);
    timeout(LONG, writing).await.unwrap().unwrap();
    writer.close().await.unwrap();
    stage.store.assert_exact(10, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_events_to_another_writer_of_the_same_name() {
    let stage = Stage::new(1).await;
    let first = open(&stage.client, options("same")).await;
    let second = open(&stage.client, options("same")).await;
    first.write(None, "first 1".into()).await.unwrap().await.unwrap();
    // It goes on behind what the segment has, as after a restart.
    second.write(None, "second 1".into()).await.unwrap().await.unwrap();
    // The first still counts for itself: its number is taken, and its event is not there.
    first.write(None, "first 2".into()).await.unwrap().await.unwrap_err();
    let events = stage.store.events();
    assert_eq!(events, ["first 1", "second 1"]);
    let refused = first.write(None, "first 3".into()).await.unwrap_err();
    assert!(matches!(refused.cause, WriteCause::WriterIdInUse { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_is_told_to_everybody_who_waits() {
    let stage = Stage::new(2).await;
    let options = WriterOptions { give_up_after: Duration::from_secs(1), ..options("w") };
    let writer = open(&stage.client, options).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    let receipts =
        [writer.write(Some(&key(1)), event(1, 0)).await.unwrap(), writer.write(None, event(2, 0)).await.unwrap()];
    for receipt in receipts {
        let error = timeout(LONG, receipt).await.unwrap().unwrap_err();
        assert_eq!(error.outcome, Outcome::NotApplied, "it was always refused");
        let WriteCause::GaveUp { last: Some(Problem { kind, .. }), .. } = &error.cause else { panic!("{error}") };
        assert_eq!(kind, "ContainerUnavailable");
    }
    assert!(writer.flush().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_ends_its_writers_and_bad_options_are_refused() {
    let stage = Stage::new(2).await;
    let writer = open(&stage.client, options("w")).await;
    drop(stage.store.scale(1));
    stage.store.stream.lock().unwrap().as_mut().unwrap().sealed = true;
    let receipt = writer.write(None, "late".into()).await.unwrap();
    let error = timeout(LONG, receipt).await.unwrap().unwrap_err();
    assert!(matches!(error.cause, WriteCause::StreamSealed(_)) && error.outcome == Outcome::NotApplied, "{error}");
    for bad in [
        WriterOptions { bytes_max: 1, ..options("w") },
        WriterOptions { block_bytes_max: 2 << 20, ..options("w") },
        WriterOptions { in_flight_max: 0, ..options("w") },
        WriterOptions { linger: Duration::from_secs(61), ..options("w") },
    ] {
        let refused = stage.client.event_writer("shop".parse().unwrap(), bad).await.unwrap_err();
        assert!(matches!(refused.cause, WriteCause::Options(_)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    let stage = Stage::new(3).await;
    stage.store.lose_one_in.store(2, Ordering::Relaxed);
    let index: types::IndexName = "shop".parse().unwrap();
    let committed = stage.client.begin_transaction(index.clone(), Duration::from_secs(30)).await.unwrap();
    let aborted = stage.client.begin_transaction(index.clone(), Duration::from_secs(30)).await.unwrap();
    for number in 0..30 {
        for n in 0..10 {
            drop(committed.write(Some(&key(n)), event(n, number)).await.unwrap());
            drop(aborted.write(Some(&key(n)), "never".into()).await.unwrap());
        }
    }
    committed.flush().await.unwrap();
    aborted.flush().await.unwrap();
    assert!(stage.store.events().is_empty());
    let id = committed.id();
    assert_eq!(committed.status().await.unwrap(), TransactionPhase::Open);
    timeout(LONG, committed.commit()).await.unwrap().unwrap();
    timeout(LONG, aborted.abort()).await.unwrap().unwrap();
    stage.store.assert_exact(10, 30);
    assert_eq!(stage.client.transaction_phase(index, id).await.unwrap(), TransactionPhase::Committed);
}

/// A transaction whose lease ran out says so, to whoever writes as to whoever commits.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_is_told() {
    let stage = Stage::new(2).await;
    let begin = async || {
        let index = "shop".parse().unwrap();
        stage.client.begin_transaction(index, Duration::from_millis(300)).await.unwrap()
    };
    let pinged = begin().await;
    eventually(LONG, async || stage.store.pings.load(Ordering::Relaxed) >= 3).await;
    drop(pinged.write(None, "x".into()).await.unwrap());
    pinged.flush().await.unwrap();
    stage.store.end(pinged.id(), TransactionPhase::Aborted, Some("lease expired"));
    // The next ping hears of it, and then everybody does.
    eventually(LONG, async || match pinged.write(None, "x".into()).await {
        Ok(_) => false,
        Err(refused) => {
            let WriteCause::TransactionOver { reason, phase, .. } = &refused.cause else { panic!("{refused}") };
            assert_eq!((reason.as_deref(), *phase), (Some("lease expired"), TransactionPhase::Aborted));
            true
        }
    })
    .await;
    let refused = pinged.commit().await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::NotApplied);
    assert!(refused.to_string().contains("lease expired"), "{refused}");

    // Without a ping in between, the coordinator refuses the commit.
    let index: types::IndexName = "shop".parse().unwrap();
    let unpinged = stage.client.begin_transaction(index, Duration::from_secs(600)).await.unwrap();
    drop(unpinged.write(None, "x".into()).await.unwrap());
    unpinged.flush().await.unwrap();
    stage.store.end(unpinged.id(), TransactionPhase::Aborted, Some("lease expired"));
    let refused = timeout(LONG, unpinged.commit()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("lease expired"), "{refused}");
    assert!(stage.store.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_appends_on_one_condition_one_succeeds() {
    let stage = Stage::new(1).await;
    // Every second append is stored and not answered: a repeat must not take it for somebody else's.
    stage.store.lose_one_in.store(2, Ordering::Relaxed);
    let segment = stage.client.stream(&"shop".parse().unwrap()).await.unwrap().route(None).unwrap();
    let objects = store::Objects::open(&stage.world.objects_url()).unwrap();
    let others: Vec<_> = (0..3).map(|_| Client::new(stage.bus.clone(), objects.clone())).collect();
    for expected in 0..5u64 {
        let events = [Bytes::from(format!("state {expected}"))];
        let tries = others.iter().map(|client| client.append_if(segment, expected, &events));
        let done = timeout(LONG, futures::future::join_all(tries)).await.unwrap();
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        for refused in done.into_iter().filter_map(Result::err) {
            let WriteCause::ConditionFailed { end, .. } = refused.cause else { panic!("{refused}") };
            assert_eq!((end, refused.outcome), (expected + 1, Outcome::NotApplied));
        }
    }
    assert_eq!(stage.store.events().len(), 5);
    let large = [Bytes::from(vec![0; (1 << 20) + 1])];
    let refused = stage.client.append_if(segment, 5, &large).await.unwrap_err();
    assert!(matches!(refused.cause, WriteCause::EventTooLarge { .. }), "{refused}");
    let many = vec![Bytes::from(vec![0; 300 << 10]); 4];
    let refused = stage.client.append_if(segment, 5, &many).await.unwrap_err();
    assert!(matches!(refused.cause, WriteCause::BlockTooLarge { .. }), "{refused}");
}
