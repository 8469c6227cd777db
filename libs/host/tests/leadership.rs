//! Who leads, and that nothing is lost or doubled when that changes.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod tally;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use host::{ControlState, run_effects, while_leading};
use tally::{Command, Process, Tally};
use testkit::{World, eventually};
use tokio::time::Instant;
use wire::{Outcome, Problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced_within_three_seconds_and_nothing_is_lost() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    for n in 1..=20 {
        a.add(n).await;
    }
    b.reaches(20).await;
    assert_eq!(b.state(), a.state(), "a follower is warm");
    let refused = b.ledger.submit(Command::Add(1)).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("NotLeader", Outcome::NotApplied));
    assert!(refused.is_transient());

    let expected = a.state();
    let died = Instant::now();
    a.kill();
    eventually(Duration::from_secs(5), async || b.ledger.is_leader()).await;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(b.state(), expected);
    b.add(7).await;
    assert_eq!(b.state().sum, 217);
    assert_eq!(b.state().log.len(), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_in_good_order_is_replaced_at_once() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    a.add(5).await;
    let late = a.ledger.clone();
    a.drain().await;
    let gone = Instant::now();
    b.leads().await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    assert_eq!(late.submit(Command::Add(1)).await.unwrap_err().kind, "NotLeader");
    assert_eq!(b.state().sum, 5);
    let kept = b.host.objects.list("snap/alerter", 10).await.unwrap();
    assert_eq!(kept.len(), 2, "a drain leaves a snapshot: {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_refused_skipped_or_journaled_once() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    assert_eq!(a.ledger.submit(Command::Add(-1)).await.unwrap_err().kind, "Negative");
    assert_eq!(a.ledger.submit(Command::Add(0)).await.unwrap(), []);
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    assert_eq!(journal.last_seq().await.unwrap(), 0, "nothing happened, nothing is journaled");
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let ledger = a.ledger.clone();
            tokio::spawn(async move { ledger.submit(Command::Add(1)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!((a.state().sum, journal.last_seq().await.unwrap()), (50, 50));
    let times: Vec<_> = a.state().log.iter().map(|(_, at)| *at).collect();
    assert!(times.is_sorted(), "the journal's time never steps back");
}

/// Two that believe to lead are harmless: the fence stops the one that has not seen everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_leader_is_fenced_catches_up_and_loses_nothing() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    a.add(1).await;
    // Somebody else appends behind the leader's back: the first entry again, as another leader would write it.
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    let first = journal.read(0, 1).await.unwrap().remove(0);
    journal.append(1, "another", first.payload.to_vec()).await.unwrap();
    let terms = AtomicUsize::new(0);
    let mut leadership = a.ledger.leadership();
    leadership.mark_unchanged();
    let refused = a.ledger.submit(Command::Add(10)).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.outcome), ("NotLeader", Outcome::NotApplied));
    eventually(Duration::from_secs(5), async || {
        terms.fetch_add(usize::from(leadership.has_changed().unwrap()), Ordering::Relaxed);
        terms.load(Ordering::Relaxed) > 0 && a.ledger.is_leader()
    })
    .await;
    assert_eq!((a.state().sum, a.seq()), (2, 2), "the other's entry was taken in, the refused one was not");
    a.add(10).await;
    assert_eq!((a.state().sum, a.seq()), (12, 3));
}

/// What appends nothing meets no fence: a refusal and a "nothing to do" of a leader whose time is over must not be believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_leader_does_not_refuse_what_it_cannot_know() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    let begun = a.ledger.submit(Command::Begin("x".to_owned(), 1)).await.unwrap();
    assert_eq!(begun.len(), 1);
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    let first = journal.read(0, 1).await.unwrap().remove(0);
    for (seq, command) in [(1, Command::Add(-1)), (2, Command::Add(0))] {
        a.leads().await;
        // Another leader goes on behind its back.
        journal.append(seq, &format!("another {seq}"), first.payload.to_vec()).await.unwrap();
        let refused = a.ledger.submit(command).await.unwrap_err();
        assert_eq!((refused.kind.as_str(), refused.outcome), ("NotLeader", Outcome::NotApplied));
    }
    a.leads().await;
    journal.append(3, "another 3", first.payload.to_vec()).await.unwrap();
    let unknown = || Err::<(), _>(Problem::not_found("Unknown", "there is none"));
    assert_eq!(a.ledger.sure(unknown()).await.unwrap_err().kind, "NotLeader");
    a.reaches(4).await;
    a.leads().await;
    assert_eq!(a.ledger.sure(unknown()).await.unwrap_err().kind, "Unknown");
    assert_eq!(a.ledger.submit(Command::Add(-1)).await.unwrap_err().kind, "Negative");
}

/// Every command that was answered happened once; one with an unknown outcome happened at most once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_survive_the_crash_of_nats() {
    let mut world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    a.add(1).await;
    world.nats.kill().unwrap();
    let (ledger, other) = (a.ledger.clone(), b.ledger.clone());
    let through = tokio::spawn(async move {
        // As a caller does: the same command again, wherever the leader is, while it certainly did not happen.
        for round in 0.. {
            let ledger = if round % 2 == 0 { &ledger } else { &other };
            match ledger.submit(Command::Add(100)).await {
                Ok(_) => return true,
                Err(problem) if problem.outcome == Outcome::Unknown => return false,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        unreachable!()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.nats.restart().await.unwrap();
    let answered = through.await.unwrap();
    eventually(Duration::from_secs(10), async || a.ledger.is_leader() || b.ledger.is_leader()).await;
    let journal = b.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    eventually(Duration::from_secs(5), async || a.seq() == b.seq() && a.seq() == journal.last_seq().await.unwrap())
        .await;
    assert_eq!(a.state(), b.state());
    let hundreds = a.state().log.iter().filter(|(n, _)| *n == 100).count();
    assert!(hundreds == 1 || (hundreds == 0 && !answered), "{hundreds} {answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_repeated_until_they_end_also_by_the_next_leader() {
    let world = World::start().await.unwrap();
    let runs: Arc<Mutex<BTreeMap<String, Vec<&'static str>>>> = Arc::default();
    let terms = Arc::new(AtomicUsize::new(0));
    let begin = |process: &Process, replica: &'static str, succeeds: bool| {
        let (ledger, runs, terms) = (process.ledger.clone(), Arc::clone(&runs), Arc::clone(&terms));
        process.host.spawn("effects", async move {
            while_leading(&ledger, |token| {
                terms.fetch_add(1, Ordering::Relaxed);
                let (ledger, runs) = (&ledger, Arc::clone(&runs));
                async move {
                    let pending = |state: &Tally| state.begun.iter().map(|(id, n)| (id.clone(), *n)).collect();
                    run_effects(ledger, token, pending, |id, n| {
                        let count = {
                            let mut runs = runs.lock().unwrap();
                            let those = runs.entry(id.clone()).or_default();
                            those.push(replica);
                            those.len()
                        };
                        async move {
                            // The third of each fails once even where effects succeed.
                            if succeeds && (n != 3 || count > 2) {
                                Ok(Command::End(id))
                            } else {
                                Err(Problem::unavailable("Outside", "does not answer"))
                            }
                        }
                    })
                    .await;
                }
            })
            .await;
        });
    };
    let a = Process::leader(&world, "a", &[]).await;
    {
        let _inside = a.enter();
        begin(&a, "a", false);
    }
    let b = Process::start(&world, "b", &[]).await.unwrap();
    {
        let _inside = b.enter();
        begin(&b, "b", true);
    }
    for n in 1..=30 {
        a.ledger.submit(Command::Begin(format!("e{n}"), n)).await.unwrap();
    }
    eventually(Duration::from_secs(5), async || runs.lock().unwrap().len() >= 16).await;
    assert!(a.state().ended.is_empty());
    a.drain().await;
    eventually(Duration::from_secs(8), async || b.state().ended.len() == 30).await;
    assert!(b.state().begun.is_empty());
    assert_eq!(terms.load(Ordering::Relaxed), 2, "each led once");
    let runs = runs.lock().unwrap();
    assert!(runs.values().all(|by| by.last() == Some(&"b")), "{runs:?}");
    assert!(runs["e3"].len() > 2);
}
