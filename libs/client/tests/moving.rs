//! An owner of containers dies under those who ask it: how long they wait, counted from when the next one serves.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use client::{EventWriter, WriterOptions};
use stage::{
    LONG,
    writing::{CONTAINERS, Owner, Writing, key},
};
use testkit::eventually;
use tokio::time::{Instant, sleep, timeout};
use types::{ContainerId, Generation};
use wire::{
    coordinator::{ContainerMoved, DescribePlacement},
    views::{Assignment, Placement},
};

/// How long nobody owns the containers.
const OUTAGE: Duration = Duration::from_millis(400);
/// Within this everybody must be served by an owner that is there: a pause between two attempts, and a slow machine.
const SOON: Duration = Duration::from_millis(1_200);

fn placement(version: u64) -> Placement {
    let assign = |container| Assignment {
        container: ContainerId(container),
        replica: "a".parse().unwrap(),
        generation: Generation(version),
    };
    Placement { version, container_count: CONTAINERS, assignments: (0..CONTAINERS).map(assign).collect() }
}

/// A stage with a first owner, a writer that has written to it, and a coordinator that counts who asks where containers are.
async fn begin() -> (Writing, Owner, EventWriter, Arc<AtomicU64>) {
    let mut stage = Writing::unowned(2).await;
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let answer = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(placement(1))
    };
    stage.serve::<DescribePlacement>(None, answer).await;
    let owner = Owner::serve(&stage).await;
    let writer = stage.client.event_writer("shop".parse().unwrap(), WriterOptions::new("w".parse().unwrap()));
    let writer = writer.await.unwrap();
    for n in 0..8 {
        writer.write(Some(&key(n)), format!("key-{n}:0").into()).await.unwrap().await.unwrap();
    }
    // It listens before it asks.
    eventually(LONG, async || asked.load(Ordering::Relaxed) > 0).await;
    (stage, owner, writer, asked)
}

/// Lets the owner die with an append of every segment in its hands, and answers how long they waited for the next one.
async fn die(stage: &Writing, owner: Owner, writer: &EventWriter, number: usize, told: bool) -> (Owner, Duration) {
    owner.dying.store(true, Ordering::Relaxed);
    let mut receipts = Vec::new();
    for n in 0..8 {
        receipts.push(writer.write(Some(&key(n)), format!("key-{n}:{number}").into()).await.unwrap());
    }
    eventually(LONG, async || owner.taken.load(Ordering::Relaxed) >= 2).await;
    drop(owner);
    sleep(OUTAGE).await;
    if told {
        stage.bus.tell::<ContainerMoved>(&ContainerId(0), &placement(u64::try_from(number).unwrap() + 1)).await;
    }
    let next = Owner::serve(stage).await;
    let serves = Instant::now();
    for receipt in receipts {
        timeout(LONG, receipt).await.unwrap().unwrap();
    }
    (next, serves.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_an_owner_that_died_is_asked_again_when_its_container_moved() {
    let (stage, mut owner, writer, _) = begin().await;
    for number in 1..4 {
        let waited;
        (owner, waited) = die(&stage, owner, &writer, number, true).await;
        assert!(waited < SOON, "waited {waited:?} for an owner that was there");
    }
    writer.close().await.unwrap();
    stage.store.assert_exact(8, 4);
}

/// A notice may get lost.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_notice_it_is_asked_again_after_a_short_time() {
    let (stage, owner, writer, _) = begin().await;
    let (_owner, waited) = die(&stage, owner, &writer, 1, false).await;
    assert!(waited < Duration::from_millis(2_500) + SOON, "waited {waited:?}");
    assert!(waited > Duration::from_secs(1), "it was not the short time that ended the wait: {waited:?}");
    writer.close().await.unwrap();
    stage.store.assert_exact(8, 2);
}

/// The other two who append: with numbers of one's own, and on a condition.
#[tokio::test(flavor = "multi_thread")]
async fn appends_with_numbers_and_conditions_follow_as_well() {
    let (stage, owner, _writer, _) = begin().await;
    let segment = stage.client.stream(&"shop".parse().unwrap()).await.unwrap().route(Some(&key(0))).unwrap();
    let end = stage.store.segments.lock().unwrap()[&segment.segment].events.len() as u64;
    owner.dying.store(true, Ordering::Relaxed);
    let client = stage.client.clone();
    let conditional = tokio::spawn(async move { client.append_if(segment, end, &["only if".into()]).await });
    eventually(LONG, async || owner.taken.load(Ordering::Relaxed) >= 1).await;
    let numbered = stage.client.writer("shop".parse().unwrap(), "n".parse().unwrap());
    let other = tokio::spawn(async move { numbered.append(segment, 1, &["one".into(), "two".into()]).await });
    eventually(LONG, async || owner.taken.load(Ordering::Relaxed) >= 2).await;
    drop(owner);
    stage.bus.tell::<ContainerMoved>(&ContainerId(0), &placement(2)).await;
    let _owner = Owner::serve(&stage).await;
    let serves = Instant::now();
    let appended = timeout(LONG, other).await.unwrap().unwrap().unwrap();
    assert_eq!(appended.offsets.len(), 2);
    // Whichever came first: it succeeded, or it says what the end was.
    match timeout(LONG, conditional).await.unwrap().unwrap() {
        Ok(appended) => assert_eq!(appended.offsets, [Some(end)]),
        Err(error) => assert!(error.is_condition_failed(), "{error}"),
    }
    assert!(serves.elapsed() < SOON, "waited {:?}", serves.elapsed());
}
