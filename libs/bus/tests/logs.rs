//! Journals and container logs on a real server: fences, repeats, reading, purging.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use bus::{AppendError, Bus, BusError, ClaimError, ContainerLog, Journal, LOG_HEADROOM_BYTES, LogOptions, RecordKind};
use bytes::Bytes;
use support::{Server, soon};
use types::{ContainerId, Generation};
use wire::{Service, segment_store::OwnerRecord};

async fn journal(bus: &Bus) -> Journal {
    bus.journal(Service::Coordinator, 1).await.unwrap()
}

async fn read_all(journal: &Journal, mut after: u64, bytes_max: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let records = soon("read", journal.read(after, bytes_max)).await.unwrap();
        let Some(last) = records.last() else { return seqs };
        after = last.seq;
        seqs.extend(records.iter().map(|r| r.seq));
    }
}

#[tokio::test]
async fn only_who_has_seen_everything_may_append() {
    let server = Server::open();
    let (leader, zombie) = (journal(&server.bus("a").await).await, journal(&server.bus("b").await).await);
    assert_eq!((leader.first_seq().await.unwrap(), leader.last_seq().await.unwrap()), (1, 0));
    assert!(leader.read(0, 1000).await.unwrap().is_empty());

    assert_eq!(leader.append(0, "e1", b"one".to_vec()).await, Ok(1));
    assert_eq!(leader.append(1, "e2", b"two".to_vec()).await, Ok(2));
    assert_eq!(zombie.append(1, "z1", b"lie".to_vec()).await, Err(AppendError::Fenced { last: 2 }));
    assert_eq!(zombie.append(7, "z2", b"lie".to_vec()).await, Err(AppendError::Fenced { last: 2 }));
    // The same event again, as after an answer that was lost: stored once.
    assert_eq!(leader.append(1, "e2", b"two".to_vec()).await, Ok(2));
    let records = zombie.read(0, 1000).await.unwrap();
    let seen: Vec<_> = records.iter().map(|r| (r.seq, r.id.as_str(), &r.payload[..])).collect();
    assert_eq!(seen, [(1, "e1", &b"one"[..]), (2, "e2", &b"two"[..])]);
}

#[tokio::test]
async fn of_racing_leaders_one_wins_each_place() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let journal = journal(&bus).await;
    let racers = (0..4u32).map(|racer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let (mut last, mut won) = (0, Vec::new());
            for attempt in 0..50 {
                match journal.append(last, &format!("{racer}-{attempt}"), vec![0]).await {
                    Ok(seq) => {
                        won.push(seq);
                        last = seq;
                    }
                    Err(AppendError::Fenced { last: real }) => last = real,
                    Err(error) => panic!("{error}"),
                }
            }
            won
        })
    });
    let mut won: Vec<u64> = futures::future::join_all(racers).await.into_iter().flat_map(Result::unwrap).collect();
    won.sort_unstable();
    let count = journal.last_seq().await.unwrap();
    assert!(count >= 50);
    assert_eq!(won, (1..=count).collect::<Vec<_>>());
}

#[tokio::test]
async fn reading_is_complete_with_gaps_large_events_and_small_bites() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let journal = journal(&bus).await;
    for n in 0..40u64 {
        // Two of them are larger than a third of what a reader asks for at once.
        let size = if n % 20 == 7 { 3 << 20 } else { 10 };
        assert_eq!(journal.append(n, &format!("e{n}"), vec![7; size]).await, Ok(n + 1));
    }
    assert_eq!(read_all(&journal, 0, 1).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(read_all(&journal, 0, 100).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(read_all(&journal, 0, 64 << 20).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(read_all(&journal, 38, 1000).await, [39, 40]);
    assert!(read_all(&journal, 40, 1000).await.is_empty() && read_all(&journal, 99, 1000).await.is_empty());

    journal.purge_below(31).await.unwrap();
    assert_eq!(journal.first_seq().await.unwrap(), 31);
    assert_eq!(read_all(&journal, 5, 1000).await, (31..=40).collect::<Vec<_>>());
    // The last event stays whatever is asked, and with it the fence.
    journal.purge_below(1000).await.unwrap();
    assert_eq!(read_all(&journal, 0, 1000).await, [40]);
    assert_eq!(journal.append(0, "steal", vec![1]).await, Err(AppendError::Fenced { last: 40 }));
    assert_eq!(journal.append(40, "next", vec![1]).await, Ok(41));
}

#[tokio::test]
async fn a_follower_sees_what_was_there_and_what_comes() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let journal = journal(&bus).await;
    for n in 0..3u64 {
        journal.append(n, &format!("e{n}"), vec![1]).await.unwrap();
    }
    let mut follower = journal.follow(1);
    for seq in [2, 3] {
        assert_eq!(soon("event", follower.next()).await.unwrap().seq, seq);
    }
    // Cancelled while nothing comes, it loses nothing.
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_millis(20), follower.next()).await.is_err());
    }
    for n in 3..2000u64 {
        journal.append(n, &format!("e{n}"), vec![1]).await.unwrap();
        if n % 100 == 0 {
            while let Ok(record) = tokio::time::timeout(Duration::from_millis(1), follower.next()).await {
                record.unwrap();
            }
        }
    }
    let mut last = 0;
    while last < 2000 {
        let seq = soon("event", follower.next()).await.unwrap().seq;
        assert!(last == 0 || seq == last + 1, "{last} then {seq}");
        last = seq;
    }
}

fn owner(generation: u64, replica: &str) -> OwnerRecord {
    OwnerRecord { generation: Generation(generation), replica: replica.parse().unwrap() }
}

async fn log(bus: &Bus, bytes_max: u64) -> ContainerLog {
    bus.container_log(ContainerId(5), LogOptions { replicas: 1, bytes_max }).await.unwrap()
}

async fn append(log: &ContainerLog, owner: u64, id: &str, size: usize) -> Result<u64, AppendError> {
    log.append(owner, RecordKind::Frame, id, Bytes::from(vec![1; size])).await
}

#[tokio::test]
async fn an_owner_that_was_replaced_cannot_append() {
    let server = Server::open();
    let (one, two) = (log(&server.bus("a").await, 1 << 30).await, log(&server.bus("b").await, 1 << 30).await);
    assert_eq!(one.owner().await.unwrap(), None);
    let first = one.claim(&owner(1, "a")).await.unwrap();
    assert_eq!(append(&one, first, "a1", 10).await, Ok(first + 1));
    assert_eq!(append(&one, first, "a1", 10).await, Ok(first + 1), "a repeat is stored once");

    let second = two.claim(&owner(2, "b")).await.unwrap();
    assert_eq!(append(&one, first, "a2", 10).await, Err(AppendError::Fenced { last: second }));
    let operation = one.append(first, RecordKind::Operation, "a3", Bytes::from_static(b"x")).await;
    assert_eq!(operation, Err(AppendError::Fenced { last: second }));
    assert_eq!(one.claim(&owner(1, "a")).await, Err(ClaimError::Superseded(owner(2, "b"))));
    assert_eq!(one.claim(&owner(2, "a")).await, Err(ClaimError::Superseded(owner(2, "b"))));
    assert_eq!(one.owner().await.unwrap(), Some((second, owner(2, "b"))));

    // The same replica after a restart: its former life is fenced.
    let again = two.claim(&owner(2, "b")).await.unwrap();
    assert!(again > second);
    assert_eq!(append(&two, second, "b1", 10).await, Err(AppendError::Fenced { last: again }));
    let seq = two.append(again, RecordKind::Operation, "b2", Bytes::from_static(b"op")).await.unwrap();

    let records = one.read(0, 1 << 20).await.unwrap();
    let kinds: Vec<_> = records.iter().map(|r| (r.seq, r.kind)).collect();
    assert_eq!(kinds, [(first + 1, RecordKind::Frame), (seq, RecordKind::Operation)]);
}

#[tokio::test]
async fn a_purge_leaves_the_fence_and_the_order() {
    let server = Server::open();
    let log = log(&server.bus("a").await, 1 << 30).await;
    let first = log.claim(&owner(1, "a")).await.unwrap();
    let mut last = 0;
    for n in 0..20 {
        last = append(&log, first, &format!("f{n}"), 100).await.unwrap();
    }
    log.purge_below(last - 3).await.unwrap();
    let seqs: Vec<u64> = log.read(0, 1 << 20).await.unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(seqs, (last - 3..=last).collect::<Vec<_>>());
    log.purge_below(last + 1).await.unwrap();
    assert!(soon("end", log.read(0, 1 << 20)).await.unwrap().is_empty());
    assert_eq!(log.last_seq().await.unwrap(), last);
    // Only the owner's record is left, and it still fences.
    let second = log.claim(&owner(2, "b")).await.unwrap();
    assert_eq!(append(&log, first, "late", 1).await, Err(AppendError::Fenced { last: second }));
    assert!(soon("end behind an owner", log.read(last, 1 << 20)).await.unwrap().is_empty());
    assert_eq!(append(&log, second, "next", 1).await, Ok(second + 1));
    assert_eq!(log.read(0, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_log_says_so_and_lets_the_purge_begin() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let log = log(&bus, 100_000).await;
    let first = log.claim(&owner(1, "a")).await.unwrap();
    let mut stored = 0;
    let full = loop {
        match append(&log, first, &format!("f{stored}"), 10_000).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, AppendError::Full);
    assert!((8..=10).contains(&stored), "{stored}");
    // What leads out of it still works: operations and a new owner.
    let second = log.claim(&owner(2, "a")).await.unwrap();
    let seq = log.append(second, RecordKind::Operation, "op", Bytes::from(vec![0; 20_000])).await.unwrap();
    log.purge_below(seq).await.unwrap();
    append(&log, second, "after", 10_000).await.unwrap();

    // The server's own limit is told as the same thing.
    let mut refused = None;
    for n in 0..6 {
        let payload = Bytes::from(vec![0; 7 << 20]);
        match log.append(second, RecordKind::Operation, &format!("big{n}"), payload).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused, Some(AppendError::Full));
}

#[tokio::test]
async fn records_are_kept_once_and_alerts_have_a_home() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let nowhere = tokio::time::timeout(Duration::from_millis(300), bus.publish_record("alerts.i.r", "1", Bytes::new()));
    assert!(nowhere.await.is_err(), "it goes on trying while there is no stream");
    bus.ensure_alerts(1).await.unwrap();
    bus.ensure_alerts(1).await.unwrap();
    let mut heard = bus.subscribe_raw("alerts.i.>").await.unwrap();
    let seq = bus.publish_record("alerts.i.r", "t-1", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(bus.publish_record("alerts.i.r", "t-1", Bytes::from_static(b"x")).await.unwrap(), seq);
    assert_eq!(soon("alert", heard.next()).await.unwrap().subject, "alerts.i.r");
}

#[tokio::test]
async fn a_log_is_opened_again_where_the_disk_has_no_room_for_a_second_one() {
    // The reservation of one log with its reserve fits, that of two does not.
    let server = Server::with("max_payload: 8MB\n", "max_file_store: 50MB\n");
    let options = LogOptions { replicas: 1, bytes_max: 1 << 20 };
    let first = server.bus("a").await.container_log(ContainerId(0), options).await.unwrap();
    let again = server.bus("b").await.container_log(ContainerId(0), options).await.unwrap();
    assert_eq!(first.last_seq().await.unwrap(), again.last_seq().await.unwrap());
    let refused = server.bus("c").await.container_log(ContainerId(1), options).await.unwrap_err();
    let room = (1 << 20) + LOG_HEADROOM_BYTES;
    let BusError::NoRoom { stream, asked, reserved, .. } = &refused else { panic!("{refused}") };
    assert_eq!((stream.as_str(), *asked, *reserved), ("stream T1_1", room, Some(room)));
    let text = refused.to_string();
    assert!(text.contains("33 MiB") && text.contains("10047"), "{text}");
}

#[tokio::test]
async fn a_log_that_cannot_have_more_room_goes_on_with_what_it_has() {
    let server = Server::with("max_payload: 8MB\n", "max_file_store: 50MB\n");
    let bus = server.bus("a").await;
    let first = log(&bus, 100_000).await.claim(&owner(1, "a")).await.unwrap();
    // Wanted is more than there is.
    let log = log(&bus, 1 << 30).await;
    let mut stored = 0;
    while append(&log, first, &format!("f{stored}"), 10_000).await.is_ok() {
        stored += 1;
    }
    assert!((8..=10).contains(&stored), "{stored}");
    log.append(first, RecordKind::Operation, "op", Bytes::from(vec![0; 1 << 20])).await.unwrap();
}

#[tokio::test]
async fn a_log_that_may_hold_less_than_it_does_loses_nothing() {
    let server = Server::open();
    let bus = server.bus("a").await;
    let large = log(&bus, 1 << 30).await;
    let first = large.claim(&owner(1, "a")).await.unwrap();
    for n in 0..8 {
        append(&large, first, &format!("f{n}"), 6 << 20).await.unwrap();
    }
    // 48 MiB are there, 33 MiB would be all that it may have.
    let small = log(&bus, 1 << 20).await;
    let kept = small.read(0, 64 << 20).await.unwrap();
    assert_eq!(kept.len(), 8);
    assert_eq!(append(&small, first, "more", 10).await, Err(AppendError::Full));
    // What leads out of it still works.
    let first = small.claim(&owner(2, "b")).await.unwrap();
    small.append(first, RecordKind::Operation, "op", Bytes::from_static(b"x")).await.unwrap();
    small.purge_below(kept[7].seq + 1).await.unwrap();
    append(&log(&bus, 1 << 20).await, first, "after", 10).await.unwrap();
}
