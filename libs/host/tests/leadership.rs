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

use host::{ControlState, Free, Turns, run_effects, while_leading};
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
    assert_eq!(a.ledger.confirm().await.unwrap_err().kind, "NotLeader");
    a.reaches(4).await;
    a.leads().await;
    a.ledger.confirm().await.unwrap();
    assert_eq!(a.ledger.submit(Command::Add(-1)).await.unwrap_err().kind, "Negative");
}

/// What a leader asks itself every second must not cost the journal a question each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_finds_nothing_to_do_for_by_itself_asks_nobody() {
    let mut world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    assert_eq!(a.ledger.submit_own(Command::Add(1)).await.unwrap().len(), 2, "what happens is journaled all the same");
    a.ledger.confirm().await.unwrap();
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    let first = journal.read(0, 1).await.unwrap().remove(0);
    journal.append(1, "another", first.payload.to_vec()).await.unwrap();
    assert_eq!(a.ledger.submit_own(Command::Add(0)).await.unwrap(), [], "it does not learn of the other leader so");
    assert_eq!(a.ledger.confirm().await.unwrap_err().kind, "NotLeader");
    a.leads().await;
    world.nats.kill().unwrap();
    assert_eq!(a.ledger.submit_own(Command::Add(0)).await.unwrap(), []);
    assert_eq!(a.ledger.submit_own(Command::Add(-1)).await.unwrap_err().kind, "Negative");
}

/// What was counted since: something that a state must not say is not there.
fn counted(sum: i64) -> impl Fn(&Tally) -> Result<i64, Problem> {
    move |tally| match tally.sum >= sum {
        true => Ok(tally.sum),
        false => Err(Problem::not_found("Unknown", format_args!("{} is less than {sum}", tally.sum))),
    }
}

/// A leader whose time is over finds what the next one did, instead of saying that it is not there; and so does its listing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_leader_finds_what_the_next_one_did() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    a.add(1).await;
    let journal = a.host.bus.journal(Tally::SERVICE, 1).await.unwrap();
    let first = journal.read(0, 1).await.unwrap().remove(0);
    journal.append(1, "another 1", first.payload.to_vec()).await.unwrap();
    assert_eq!(a.ledger.look(counted(1)).await.unwrap(), 1, "what is there is answered as it is known here");
    assert_eq!(a.ledger.look(counted(2)).await.unwrap(), 2);
    a.leads().await;
    journal.append(2, "another 2", first.payload.to_vec()).await.unwrap();
    a.ledger.whole().await.unwrap();
    assert_eq!(a.state().sum, 3);
    a.leads().await;
    assert_eq!(a.ledger.look(counted(4)).await.unwrap_err().kind, "Unknown", "now that is sure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_behind_does_not_say_that_something_is_not_there() {
    let world = World::start().await.unwrap();
    let a = Process::leader(&world, "a", &[]).await;
    let b = Process::start(&world, "b", &[]).await.unwrap();
    a.add(1).await;
    b.reaches(1).await;
    let go_on = b.pause();
    a.add(10).await;
    assert_eq!(b.state().sum, 1);
    let ledger = b.ledger.clone();
    let looked = tokio::spawn(async move { (ledger.look(counted(11)).await, ledger.whole().await) });
    tokio::task::yield_now().await;
    drop(go_on);
    let (found, whole) = looked.await.unwrap();
    assert_eq!((found.unwrap(), whole), (11, Ok(())));
    assert_eq!(b.ledger.look(counted(12)).await.unwrap_err().kind, "Unknown");
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
                    let look = |state: &Tally, free: &mut Free<'_, i64>| {
                        state.begun.iter().for_each(|(id, n)| free.offer("lane", id, id.clone(), *n));
                    };
                    run_effects(ledger, token, &Turns::default(), look, |id, n| {
                        let count = {
                            let mut runs = runs.lock().unwrap();
                            let those = runs.entry(id.clone()).or_default();
                            those.push(replica);
                            those.len()
                        };
                        async move {
                            // The third of each fails once even where effects succeed.
                            if succeeds && (n != 3 || count > 2) {
                                Ok(Some(Command::End(id)))
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
