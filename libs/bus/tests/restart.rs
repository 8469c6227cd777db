//! A server that is killed and comes back: everything goes on.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use bus::{Change, Doors, LogOptions, RecordKind};
use bytes::Bytes;
use support::{Server, eventually, soon};
use types::{ContainerId, Generation};
use wire::{
    Service,
    coordinator::{ContainerMoved, ListStreams, StreamList, StreamsOf},
    segment_store::OwnerRecord,
    views::Placement,
};

#[tokio::test]
async fn everything_goes_on_after_the_server_was_killed() {
    let mut server = Server::open();
    let (bus, other) = (server.bus("coordinator/c-0").await, server.bus("gateway/g-0").await);
    let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse().unwrap());
    let _door = doors.serve::<ListStreams, _, _>(None, |_| async { Ok(StreamList::default()) }).await.unwrap();
    let mut notices = other.listen::<ContainerMoved>().await.unwrap();
    let journal = bus.journal(Service::Coordinator, 1).await.unwrap();
    let log = bus.container_log(ContainerId(1), LogOptions { replicas: 1, bytes_max: 1 << 30 }).await.unwrap();
    let bucket = bus.bucket("lb_test", None, 1).await.unwrap();
    let owner = log.claim(&OwnerRecord { generation: Generation(1), replica: "s-0".parse().unwrap() }).await.unwrap();
    let mut follower = journal.follow(0);
    let mut watch = bucket.watch("");
    assert_eq!(soon("ready", watch.next()).await, Change::Ready);

    let (mut last, mut log_last) = (0, 0);
    for round in 0..3u32 {
        for n in 0..5 {
            last = journal.append(last, &format!("e{round}.{n}"), vec![1]).await.unwrap();
            let frame = log.append(owner, RecordKind::Frame, &format!("f{round}.{n}"), Bytes::from_static(b"f")).await;
            log_last = frame.unwrap();
            assert_eq!(soon("followed", follower.next()).await.unwrap().seq, last);
        }
        let revision = bucket.put(&format!("k{round}"), "v").await.unwrap();
        let change = soon("watched", watch.next()).await;
        assert!(matches!(change, Change::Key { entry: Some(e), .. } if e.revision == revision));
        server.kill();
        if round == 1 {
            eventually("the loss is noticed", async || !bus.is_connected()).await;
        }
        // Begun while the server is away, done when it is back.
        let (journal, other) = (journal.clone(), other.clone());
        let appending = tokio::spawn(async move { journal.append(last, &format!("away{round}"), vec![2]).await });
        let calling = tokio::spawn(async move { other.call::<ListStreams>(&(), &StreamsOf::default()).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.start();
        last = soon("append", appending).await.unwrap().unwrap();
        soon("call", calling).await.unwrap().unwrap();
        assert_eq!(soon("followed", follower.next()).await.unwrap().seq, last);
    }
    let placement = Placement { version: 9, ..Placement::default() };
    eventually("the teller is back", async || bus.is_connected() && other.is_connected()).await;
    // The listener subscribes again by itself; until then a notice is lost, as notices may be.
    eventually("a notice", async || {
        bus.tell::<ContainerMoved>(&ContainerId(1), &placement).await;
        let heard = tokio::time::timeout(Duration::from_millis(100), notices.next()).await;
        heard.is_ok_and(|notice| notice == Some(placement.clone()))
    })
    .await;

    // Nothing that was acknowledged is lost, nothing is there twice.
    let mut after = 0;
    let mut ids = Vec::new();
    loop {
        let records = journal.read(after, 100).await.unwrap();
        let Some(record) = records.last() else { break };
        after = record.seq;
        ids.extend(records.into_iter().map(|r| r.id));
    }
    assert_eq!(ids.len(), 18);
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 18);
    assert_eq!(log.read(0, 1 << 20).await.unwrap().len(), 15);
    assert_eq!(log.last_seq().await.unwrap(), log_last);
    assert_eq!(bucket.list("").await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_vanished_while_the_server_was_away_is_told_by_the_watch() {
    let mut server = Server::open();
    let bus = server.bus("a").await;
    let bucket = bus.bucket("lb_test", Some(Duration::from_secs(1)), 1).await.unwrap();
    bucket.put("gone", "1").await.unwrap();
    let mut watch = bucket.watch("");
    assert!(matches!(soon("value", watch.next()).await, Change::Key { entry: Some(_), .. }));
    assert_eq!(soon("ready", watch.next()).await, Change::Ready);
    server.kill();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.start();
    let change = soon("the loss", watch.next()).await;
    assert_eq!(change, Change::Key { key: "gone".to_owned(), entry: None });
}

#[tokio::test]
async fn a_call_to_a_server_that_stays_away_says_that_nothing_happened() {
    let mut server = Server::open();
    let bus = server.bus("a").await;
    server.kill();
    eventually("the loss is noticed", async || !bus.is_connected()).await;
    let problem =
        bus.call_within::<ListStreams>(&(), &StreamsOf::default(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((problem.kind.as_str(), problem.outcome), ("Disconnected", wire::Outcome::NotApplied));
    let late = bus.journal(Service::Broker, 1);
    server.start();
    soon("the journal", late).await.unwrap();
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_stands_once() {
    let mut server = Server::open();
    let bus = server.bus("a").await;
    let journal = bus.journal(Service::Coordinator, 1).await.unwrap();
    let log = bus.container_log(ContainerId(1), LogOptions { replicas: 1, bytes_max: 1 << 30 }).await.unwrap();
    let owner = log.claim(&OwnerRecord { generation: Generation(1), replica: "s-0".parse().unwrap() }).await.unwrap();
    let (enough, mut stop) = tokio::sync::watch::channel(false);
    let appending = tokio::spawn({
        let (journal, log) = (journal.clone(), log.clone());
        async move {
            let mut count = 0u64;
            while !*stop.borrow_and_update() {
                let id = format!("e{count}");
                assert_eq!(journal.append(count, &id, vec![1]).await, Ok(count + 1));
                // The first record is the owner's.
                assert_eq!(
                    log.append(owner, RecordKind::Frame, &id, Bytes::from_static(b"x")).await,
                    Ok(owner + count + 1)
                );
                count += 1;
            }
            count
        }
    });
    for round in 0..6u64 {
        // Long enough to be in the middle of it, each time at another place.
        tokio::time::sleep(Duration::from_millis(40 + 7 * round)).await;
        server.kill();
        server.start();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    enough.send(true).unwrap();
    let count = soon("the last append", appending).await.unwrap();
    assert!(count > 20, "{count}");
    assert_eq!(journal.last_seq().await.unwrap(), count);
    assert_eq!(log.last_seq().await.unwrap(), owner + count);
}
