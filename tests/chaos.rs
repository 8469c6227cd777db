//! Real processes killed under load, and then the debts collected: every acknowledged event, every window, every alert, exactly once.
//!
//! Three tests. In one a whole installation with a job and a rule loses every process at least once: `LB_SEED` chooses the order and
//! the moments, `LB_SECONDS` how long it goes on (60). In the other `LB_SEEDS` short schedules, from `LB_SEED` on, strike what keeps
//! streams, on one nats-server or on three: the same seed gives the same schedule. Without `LB_SEEDS` a few fixed seeds are run.
//! In the third (`stream.rs`) seeds strike an installation with continuous jobs.
//! What is done and what not is told in `docs/guide/faults.md`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, tells what it did, and starts processes"
)]

#[path = "chaos/arena.rs"]
mod arena;
#[path = "chaos/fault.rs"]
mod fault;
#[path = "chaos/inject.rs"]
mod inject;
#[path = "chaos/kills.rs"]
mod kills;
#[path = "stream/kinds.rs"]
mod kinds;
#[path = "chaos/load.rs"]
mod load;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/promise.rs"]
mod promise;
#[path = "chaos/schedule.rs"]
mod schedule;
#[path = "chaos/stream.rs"]
mod stream;
#[path = "chaos/summary.rs"]
mod summary;
#[path = "chaos/traffic.rs"]
mod traffic;
#[path = "chaos/trial.rs"]
mod trial;

use std::{env, sync::Arc, time::Duration};

use logboom_tests::{Cluster, Options, Webhook, event};
use serde_json::json;
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking, time::Instant};

use crate::{
    arena::Arena,
    load::{Load, Sent},
    oracle::Oracle,
    schedule::{Ground, Schedule},
    summary::Summary,
};

/// What everybody calls a seed that nobody has chosen.
const SEED: u64 = 2026;
const SECONDS: u64 = 60;
/// What is run among the other tests: every kind of fault comes.
pub(crate) const SEEDS: [u64; 10] = [14, 15, 287, 6393, 1598, 2697, 3098, 3428, 18960, 12];
/// Installations at once: in a trial much is waited for.
const ARENAS: usize = 2;

pub(crate) const INDEX: &str = "chaos";
pub(crate) const SUMS: &str = "chaos_sums";
const RULE: &str = "chaos-alarm";
/// The length of the windows of job and rule.
pub(crate) const WINDOW_SECONDS: i64 = 5;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

/// An oracle that cannot say no proves nothing: one event that was never acknowledged must be missed everywhere.
async fn notices_a_lie(cluster: &Cluster, sent: &[Sent]) {
    let mut lie = sent.to_vec();
    let steady = lie.iter_mut().find(|of_key| !of_key.alarm).unwrap();
    let last = *steady.events.last().unwrap();
    steady.events.push(last);
    let oracle = Oracle { cluster, sent: &lie };
    let missing = oracle.events().await.unwrap_err().to_string();
    assert!(missing.contains("acknowledged, and missing"), "{missing}");
    let wrong = oracle.windows().await.unwrap_err().to_string();
    assert!(wrong.contains("a recomputation gives"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_every_process() {
    let (seed, seconds) = (number("LB_SEED", SEED), number("LB_SECONDS", SECONDS));
    println!("chaos: LB_SEED={seed} LB_SECONDS={seconds}");
    let mut cluster =
        Cluster::start_with(Options { set: vec!["gateway.query_rows_max=1000000".to_owned()], ..Options::default() })
            .await
            .unwrap();
    let api = cluster.api.clone();
    api.provision(INDEX, 4).await.unwrap();
    api.provision(SUMS, 1).await.unwrap();
    let binding = api.bind(INDEX, "admin").await.unwrap();
    let webhook = Webhook::start().await.unwrap();
    // Publishers repeat for up to a minute and a half, so an event may be that late; the delay is longer.
    let window = format!("tumble({INDEX}, INTERVAL '{WINDOW_SECONDS} seconds', watermark delay INTERVAL '5 minutes')");
    let job = format!(
        "INSERT INTO {SUMS} SELECT service, window_start, count(*) AS n, sum(amount) AS total FROM {window} \
         WHERE amount IS NOT NULL GROUP BY service, window_start"
    );
    api.submit_job("chaos-sums", &job, "earliest").await.unwrap();
    let query =
        format!("SELECT service, count(*) AS n FROM {window} WHERE severity = 'error' GROUP BY service, window_start");
    let rule =
        json!({ "index": INDEX, "query": query, "condition": "n > 10", "webhook": webhook.url, "summary": "chaos" });
    api.put_rule(RULE, &rule).await.unwrap();

    let begun = Instant::now();
    let load = Load::start(&binding, seed).await.unwrap();
    let kills = kills::run(&mut cluster, seed, Duration::from_secs(seconds)).await.unwrap();
    let sent = load.finish().await.unwrap();
    let events: usize = sent.iter().map(|of_key| of_key.events.len()).sum();
    println!(
        "chaos: {events} events of {} keys acknowledged, {kills} kills, {:.0} s",
        sent.len(),
        begun.elapsed().as_secs_f32()
    );
    load::close_windows(&binding, &sent).await.unwrap();

    let oracle = Oracle { cluster: &cluster, sent: &sent };
    let events = oracle.events().await.unwrap();
    println!("chaos: {events} events found exactly once, each key in order");
    let windows = oracle.windows().await.unwrap();
    println!("chaos: {windows} windows equal their recomputation");
    let alarms = oracle.alerts(&webhook).await.unwrap();
    println!("chaos: {alarms} alarms fired once and resolved once");
    notices_a_lie(&cluster, &sent).await;
    let fresh = event(jiff::Timestamp::now(), "fresh", "info", "still alive", json!({ "id": "fresh" }));
    binding.publisher().await.unwrap().until_acked(&format!("logs.{INDEX}"), "fresh", fresh).await.unwrap();
    let count = format!("SELECT count(*) AS n FROM {INDEX} WHERE id = 'fresh'");
    assert_eq!(api.count(&count).await.unwrap(), 1, "a fresh event passes");
    cluster.check().unwrap();
}

/// The seeds to run: those that were asked for, else the fixed ones.
fn seeds() -> Vec<u64> {
    match number("LB_SEEDS", 0) {
        0 => SEEDS.to_vec(),
        count => {
            let first = number("LB_SEED", 1);
            (first..first + count).collect()
        }
    }
}

/// Runs schedules one after another in the same installation, each with all that the others have left behind.
async fn run(ground: Ground, schedules: Vec<Schedule>) -> Summary {
    let (mut summary, mut arena) = (Summary::default(), None);
    for schedule in &schedules {
        let (seed, hash) = (schedule.seed, schedule.hash());
        println!("chaos: seed {seed} is schedule {hash:016x} on {ground:?}: {:?}", schedule.steps);
        let mut here = match arena.take() {
            Some(arena) => arena,
            None => Arena::start(ground).await.unwrap(),
        };
        let outcome = here.run(schedule).await;
        println!("chaos: seed {seed}: {} events acknowledged in {}", outcome.acknowledged, outcome.times);
        if outcome.broken.is_empty() {
            arena = Some(here);
        } else {
            println!("chaos: seed {seed} broke a promise: {:#?}", outcome.broken);
            println!("chaos: data and logs are kept in {}", here.keep().display());
        }
        summary.add(schedule, outcome);
    }
    summary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_seed_keeps_its_promises() {
    let (begun, schedules) = (Instant::now(), seeds().into_iter().map(Schedule::of).collect::<Vec<_>>());
    let (turns, mut running) = (Arc::new(Semaphore::new(ARENAS)), Vec::new());
    for ground in Ground::ALL {
        let here: Vec<_> = schedules.iter().filter(|schedule| schedule.ground == ground).cloned().collect();
        let (turns, runtime) = (Arc::clone(&turns), Handle::current());
        // A thread of its own: much of what is done to processes blocks.
        running.push(spawn_blocking(move || {
            runtime.block_on(async {
                let _turn = turns.acquire_owned().await.unwrap();
                run(ground, here).await
            })
        }));
    }
    let mut summary = Summary::default();
    for one in running {
        summary.merge(one.await.unwrap());
    }
    println!("chaos: {} s by the clock\n{}", begun.elapsed().as_secs(), summary.text());
    assert!(summary.broken.is_empty(), "broken promises:\n{}", summary.text());
}
