//! Tables and synchronizers with many writers, and a server that is killed in the middle.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::time::Duration;

use client::{Apply, RowChange, RowCondition, StateSynchronizer, TablePage};
use serde::{Deserialize, Serialize};
use stage::{LONG, Stage};
use tokio::task::JoinSet;
use types::{ScopeName, Token};

fn scope() -> ScopeName {
    "test".parse().unwrap()
}

fn name(text: &str) -> Token {
    Token::new(text).unwrap()
}

#[tokio::test]
async fn conditions_hold_and_each_failure_has_its_name() {
    let stage = Stage::new().await;
    let table = stage.client.table(&scope(), &name("carts")).await.unwrap();
    let first = table.insert(b"k", b"a", "1").await.unwrap();
    assert_eq!(table.insert(b"k", b"a", "2").await.unwrap_err().kind, "KeyExists");
    let second = table.replace(b"k", b"a", "2", first).await.unwrap();
    assert!(second > first);
    assert_eq!(table.replace(b"k", b"a", "3", first).await.unwrap_err().kind, "BadKeyVersion");
    assert_eq!(table.replace(b"k", b"b", "3", first).await.unwrap_err().kind, "KeyDoesNotExist");
    assert_eq!(table.remove_at(b"k", b"a", first).await.unwrap_err().kind, "BadKeyVersion");
    assert_eq!(table.put(b"", b"a", "x").await.unwrap_err().kind, "InvalidKey");
    assert_eq!(table.put(b"k", b"a", vec![0; 300 << 10]).await.unwrap_err().kind, "TooLarge");
    let found = table.get(b"k", b"a").await.unwrap().unwrap();
    assert_eq!((&found.value[..], found.version), (&b"2"[..], second));

    // Removed and there again: what was known of it does not fit by accident.
    table.remove_at(b"k", b"a", second).await.unwrap();
    assert!(!table.exists(b"k", b"a").await.unwrap());
    assert!(
        stage.bus.bucket("lb_tables", None, 1).await.unwrap().list("").await.unwrap().is_empty(),
        "nothing is left"
    );
    assert!(table.insert(b"k", b"a", "2").await.unwrap() > second);
    assert_eq!(table.replace(b"k", b"a", "3", second).await.unwrap_err().kind, "BadKeyVersion");
    table.remove(b"k", b"nowhere").await.unwrap();

    // What would grow too large under one key is refused whole.
    let large = || vec![7; 250 << 10];
    let parts: Vec<_> = (0..5).map(|n| RowChange::put(format!("part-{n}"), large())).collect();
    assert_eq!(table.change(b"big", &parts).await.unwrap_err().kind, "TooLarge");
    assert_eq!(table.get_all(b"big", &[b"part-0", b"part-4"]).await.unwrap(), [None, None]);
    table.change(b"big", &parts[..4]).await.unwrap();
    assert_eq!(table.get_all(b"big", &[b"part-0", b"part-4"]).await.unwrap().iter().flatten().count(), 1);
}

#[tokio::test]
async fn pages_are_in_order_and_leave_nothing_out() {
    let stage = Stage::new().await;
    let client = &stage.client;
    let (table, other) =
        (client.table(&scope(), &name("t")).await.unwrap(), client.table(&scope(), &name("t2")).await.unwrap());
    let mut expected = Vec::new();
    for primary in [&b"a"[..], b"ab", b"b", b"\xff\x00"] {
        for secondary in [&b""[..], b"x1", b"x2", b"y"] {
            table.put(primary, secondary, [primary, secondary].concat()).await.unwrap();
            expected.push((primary.to_vec(), secondary.to_vec()));
        }
    }
    other.put(b"a", b"x1", "other").await.unwrap();
    for limit in [1, 3, 5, 16, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let TablePage { entries, next } = table.entries(after.as_ref(), limit).await.unwrap();
            assert!(entries.len() <= limit);
            assert!(entries.iter().all(|e| e.value == [&e.primary[..], &e.secondary[..]].concat()));
            found.extend(entries.into_iter().map(|e| (e.primary.to_vec(), e.secondary.to_vec())));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    let page = table.iterate(b"ab", b"x", None, 1).await.unwrap();
    assert_eq!(page.next.unwrap().1, "x1");
    let page = table.iterate(b"ab", b"x", Some(b"x1"), 5).await.unwrap();
    assert_eq!((page.entries.len(), &page.entries[0].secondary[..], page.next), (1, &b"x2"[..], None));
    client.delete_table(&scope(), &name("t")).await.unwrap();
    assert!(table.entries(None, 10).await.unwrap().entries.is_empty());
    assert_eq!(other.get(b"a", b"x1").await.unwrap().unwrap().value, "other");
}

#[tokio::test]
async fn eight_writers_count_exactly_although_the_server_dies() {
    let mut stage = Stage::new().await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let table = stage.client.table(&scope(), &name("counters")).await.unwrap();
        tasks.spawn(async move {
            for _ in 0..25 {
                loop {
                    let there = table.get(b"count", b"").await;
                    let Ok(there) = there else { continue };
                    let (count, condition) = match there {
                        None => (0, RowCondition::Absent),
                        Some(there) => (number(&there.value), RowCondition::Version(there.version)),
                    };
                    let change = RowChange::put(b"", (count + 1).to_string()).on(condition);
                    match table.change(b"count", &[change]).await {
                        Ok(versions) => {
                            assert_eq!(versions.len(), 1);
                            break;
                        }
                        Err(problem) if problem.kind == "BadKeyVersion" || problem.kind == "KeyExists" => {
                            // Whoever is told that nothing happened can rely on it.
                            assert_eq!(problem.outcome, wire::Outcome::NotApplied, "{problem}");
                        }
                        Err(problem) => panic!("{problem}"),
                    }
                }
            }
        });
    }
    let table = stage.client.table(&scope(), &name("counters")).await.unwrap();
    testkit::eventually(LONG, async || {
        table.get(b"count", b"").await.unwrap().is_some_and(|there| number(&there.value) > 20)
    })
    .await;
    stage.world.nats.restart().await.unwrap();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(number(&table.get(b"count", b"").await.unwrap().unwrap().value), 200);
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Log(Vec<(u8, u32)>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Said(u8, u32);

impl Apply<Said> for Log {
    fn apply(&mut self, said: &Said) {
        self.0.push((said.0, said.1));
    }
}

async fn replica(stage: &Stage) -> StateSynchronizer<Log, Said> {
    stage.client.synchronizer(&scope(), &name("log"), Log::default()).await.unwrap()
}

#[tokio::test]
async fn replicas_see_every_update_once_in_one_order_through_compaction_and_a_restart() {
    let mut stage = Stage::new().await;
    let mut tasks = JoinSet::new();
    for who in 0..4u8 {
        let mut own = replica(&stage).await;
        tasks.spawn(async move {
            let mut said = 0;
            while said < 60 {
                // Decided on a state that contains everything before it: each says its numbers in order.
                let next = own.update(|log| {
                    let last = log.0.iter().filter(|(name, _)| *name == who).count();
                    said = u32::try_from(last).unwrap();
                    (said < 60).then(|| vec![Said(who, said), Said(who, said + 1)])
                });
                next.await.unwrap();
                if said % 20 == 0 {
                    own.compact().await.unwrap();
                }
            }
            own.fetch().await.unwrap().clone()
        });
    }
    let mut late = replica(&stage).await;
    testkit::eventually(LONG, async || late.fetch().await.unwrap().0.len() > 30).await;
    stage.world.nats.restart().await.unwrap();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let all = replica(&stage).await;
    for who in 0..4u8 {
        let said: Vec<u32> = all.state().0.iter().filter(|(name, _)| *name == who).map(|(_, said)| *said).collect();
        assert_eq!(said, (0..60).collect::<Vec<_>>(), "{who}");
    }
    late.fetch().await.unwrap();
    assert_eq!((late.state(), late.revision()), (all.state(), 240));
}

#[tokio::test]
async fn a_replica_waits_for_others_and_notices_that_it_was_replaced() {
    let stage = Stage::new().await;
    let (mut a, mut b) = (replica(&stage).await, replica(&stage).await);
    assert!(!b.changed(Duration::from_millis(50)).await.unwrap());
    assert!(!a.update(|_| None).await.unwrap());
    let (updated, changed) = tokio::join!(a.update(|_| Some(vec![Said(1, 1)])), b.changed(LONG));
    assert!(updated.unwrap() && changed.unwrap());
    assert_eq!((b.state(), b.revision()), (a.state(), 1));

    stage.client.delete_synchronizer(&scope(), &name("log")).await.unwrap();
    assert_eq!(b.fetch().await.unwrap_err().kind, "UnknownSynchronizer");
    let mut again = replica(&stage).await;
    again.update(|_| Some(vec![Said(2, 2), Said(2, 3)])).await.unwrap();
    assert_eq!(b.fetch().await.unwrap(), &Log(vec![(2, 2), (2, 3)]), "nothing of the one that was removed");
    assert_eq!(b.revision(), 2);

    let large = again.update(|_| Some(vec![Said(0, 0); 400_000]));
    assert_eq!(large.await.unwrap_err().kind, "TooLarge");
}
