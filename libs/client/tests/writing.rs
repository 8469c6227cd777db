//! The writers against containers and a coordinator that the tests play, over a real server.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use client::{Client, EventWriter, NoteTime, SpillOptions, WriteCause, WriterOptions};
use stage::{
    LONG,
    writing::{Owner, Writing, key},
};
use testkit::eventually;
use tokio::time::timeout;
use wire::{Outcome, Problem, coordinator::TransactionPhase};

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
    let stage = Writing::new(4).await;
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
    let stage = Writing::new(1).await;
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
        let stage = Writing::new(2).await;
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
    let mut stage = Writing::new(3).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn without_spill_writing_waits_and_goes_on() {
    let stage = Writing::new(1).await;
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
    let stage = Writing::new(1).await;
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
    let stage = Writing::new(2).await;
    let options = WriterOptions { give_up_after: Duration::from_secs(1), ..options("w") };
    let writer = open(&stage.client, options).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    let receipts =
        [writer.write(Some(&key(1)), event(1, 0)).await.unwrap(), writer.write(None, event(2, 0)).await.unwrap()];
    for receipt in receipts {
        let error = timeout(LONG, receipt).await.unwrap().unwrap_err();
        let WriteCause::GaveUp { last: Some(Problem { kind, .. }), .. } = &error.cause else { panic!("{error}") };
        assert_eq!(kind, "ContainerUnavailable");
    }
    assert!(writer.flush().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_ends_its_writers_and_bad_options_are_refused() {
    let stage = Writing::new(2).await;
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
        WriterOptions {
            in_flight_max: 2,
            spill: Some(SpillOptions { dir: "anywhere".into(), bytes_max: 1 << 20 }),
            ..options("w")
        },
        WriterOptions {
            note_time: Some(NoteTime::of_clock(Duration::ZERO).every(Duration::from_secs(60))),
            ..options("w")
        },
        WriterOptions { linger: Duration::from_secs(61), ..options("w") },
    ] {
        let refused = stage.client.event_writer("shop".parse().unwrap(), bad).await.unwrap_err();
        assert!(matches!(refused.cause, WriteCause::Options(_)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    let stage = Writing::new(3).await;
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
    let stage = Writing::new(2).await;
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
    let stage = Writing::new(1).await;
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

/// A condition is decided once, however often the caller loses his patience: what he dropped may be stored or arrive later, and is
/// never taken for what he appends next.
#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_append_that_was_dropped_is_nobody_elses() {
    let stage = Writing::unowned(1).await;
    let segment = stage.client.stream(&"shop".parse().unwrap()).await.unwrap().route(None).unwrap();
    let client = &stage.client;
    let append = async |expected: u64, text: String| {
        let events = [Bytes::from(text)];
        timeout(LONG, client.append_if(segment, expected, &events)).await.unwrap()
    };
    let owner = Owner::serve(&stage).await;
    append(0, "0".into()).await.unwrap();
    // Two are dropped while they are under way: one is on its way for ever, one waits behind it.
    owner.dying.store(true, Ordering::Relaxed);
    let events = [Bytes::from("dropped")];
    let (one, other) = (client.append_if(segment, 1, &events), client.append_if(segment, 1, &events));
    let mut both = Box::pin(futures::future::join(one, other));
    let taken = async { eventually(LONG, async || owner.taken.load(Ordering::Relaxed) >= 1).await };
    tokio::select! {
        _ = &mut both => panic!("nobody answered"),
        () = taken => drop(both),
    }
    drop(owner);
    let _owner = Owner::serve(&stage).await;
    append(1, "1".into()).await.unwrap();
    assert_eq!(stage.store.events(), ["0", "1"]);

    // What was dropped arrives before the next one, or behind it; a repeat of it would be taken for this one.
    for (expected, arrives_first) in [(2u64, true), (3, false)] {
        stage.store.lose_one_in.store(1, Ordering::Relaxed);
        let dropped = [Bytes::from(format!("dropped {expected}"))];
        let count = stage.store.events().len();
        {
            let mut lost = Box::pin(client.append_if(segment, expected, &dropped));
            let stored = async { eventually(LONG, async || stage.store.events().len() > count).await };
            tokio::select! {
                _ = &mut lost => panic!("its answer was lost"),
                () = stored => {}
            }
        }
        stage.store.lose_one_in.store(0, Ordering::Relaxed);
        if arrives_first {
            let refused = append(expected, "too late".into()).await.unwrap_err();
            let WriteCause::ConditionFailed { end, .. } = refused.cause else { panic!("{refused}") };
            assert_eq!(end, expected + 1);
        } else {
            append(expected + 1, "next".into()).await.unwrap();
        }
    }
    assert_eq!(stage.store.events(), ["0", "1", "dropped 2", "dropped 3", "next"]);
}
