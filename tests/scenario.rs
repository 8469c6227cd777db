//! The main job, as the user of one machine sees it: `logboom walk`, and a second `up` that goes on with the same data.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, shows what it saw, and starts processes"
)]

#[path = "scenario/encrypted.rs"]
mod encrypted;

use std::{process::Command, time::Duration};

use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Api, Binding, Process, Standalone, Workdir, event, eventually, logboom, nats_server};
use reqwest::Method;
use serde_json::json;

const WALK_WITHIN: Duration = Duration::from_secs(300);

/// Provision, bind, publish, query, job, alert, unbind: every step of the walk compares its result with what was published.
#[tokio::test]
async fn the_walk_ends_with_every_result_right() {
    let dir = Workdir::new("walk").unwrap();
    let mut command = Command::new(logboom().unwrap());
    command.args(["walk", "--events", "20000"]).current_dir(dir.path());
    // The walk takes no settings: the environment is how its user names another server.
    command.env("LOGBOOM__NATS__SERVER_PATH", nats_server().unwrap()).env("TMPDIR", dir.path());
    let log = dir.path().join("walk.log");
    let mut walk = Process::spawn("walk", &mut command, &log).unwrap();
    let status = walk.wait(WALK_WITHIN).await.unwrap();
    println!("{}", walk.log());
    assert!(status.success(), "the walk ended with {status}");
    assert!(walk.log().contains(" 0 wrong"), "the walk says how many steps were wrong");
}

const BEFORE: u32 = 1_500;
const AFTER: u32 = 700;
/// Event time of the first run; the second run's lies an hour later, so that no window holds events of both.
fn day(hour: i64) -> Timestamp {
    "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hour)
}

/// Publishes numbered events over 100 s of event time, then one per key that lets every window close.
async fn publish(binding: &Binding, run: &str, count: u32, start: Timestamp) {
    let publisher = binding.publisher().await.unwrap();
    let events = (0..count).map(|number| {
        let at = start + SignedDuration::from_millis(i64::from(number) * 100_000 / i64::from(count));
        let key = number % 8;
        let payload = event(at, &format!("svc-{key}"), "info", "counted", json!({ "amount": number }));
        (format!("logs.again.k{key}"), format!("{run}-{number}"), payload)
    });
    publisher.all(64, events.collect::<Vec<_>>()).await.unwrap();
    let later = start + SignedDuration::from_secs(170);
    let markers = (0..8).map(|key| {
        (
            format!("logs.again.k{key}"),
            format!("{run}-marker-{key}"),
            event(later, "marker", "info", "time goes on", json!({})),
        )
    });
    publisher.all(8, markers.collect::<Vec<_>>()).await.unwrap();
}

/// Waits until the job has told as many events as were published, and checks that its sums are right.
async fn check_sums(api: &Api, counts: &[u32]) {
    let events: i64 = counts.iter().map(|&n| i64::from(n)).sum();
    let amounts: i64 = counts.iter().map(|&n| i64::from(n) * i64::from(n - 1) / 2).sum();
    eventually("the job's sums", Duration::from_secs(90), async || {
        let table = api.sql("SELECT sum(n) AS events, sum(total) AS amounts, count(*) AS n FROM again_sums").await?;
        let found = (table.number(0, "events")?, table.number(0, "amounts")?);
        anyhow::ensure!(found == (events, amounts), "found {found:?}, expected {:?}", (events, amounts));
        Ok(())
    })
    .await
    .unwrap();
}

/// An instance that brings rules along: the first event makes one fire, and nothing is left of them behind it.
async fn default_rules_fire_and_go_with_their_instance(api: &Api) {
    let alerts = json!([
        { "name": "errors", "when": "error_count" },
        { "name": "share", "when": "error_share", "above": 0.5 },
        { "name": "disk", "when": "text", "text": "disk's full" },
        { "name": "own", "when": "query", "condition": "n > 1000",
          "query": "SELECT service, count(*) AS n FROM tumble({index}, INTERVAL '1 minute') GROUP BY service, window_start" },
    ]);
    let path = "/v2/service_instances/watched-1";
    let body = api.provision_body(json!({ "index": "watched-logs", "segments": 2, "alerts": alerts })).await.unwrap();
    api.osb(Method::PUT, path, Some(&body)).await.unwrap().ok().unwrap();
    let line = json!({ "time": day(0).to_string(), "severity": "error", "message": "the disk's full again" });
    api.ingest("watched-logs", &api.admin_token, line.to_string()).await.unwrap().ok().unwrap();
    let rules = async || api.ask(Method::GET, "/api/v1/rules", None).await?.ok();
    eventually("two rules that fire", Duration::from_secs(30), async || {
        let there = rules().await?;
        let all = there["rules"].as_array().cloned().unwrap_or_default();
        let fires = |rule: &&serde_json::Value| rule["instances"][0]["state"] == "firing";
        let mut firing: Vec<&str> = all.iter().filter(fires).filter_map(|r| r["rule"]["rule"].as_str()).collect();
        firing.sort_unstable();
        let names: Vec<_> = firing.iter().filter_map(|name| name.rsplit('-').next()).collect();
        anyhow::ensure!(all.len() == 4 && names == ["disk", "errors"], "there is {there}");
        Ok(())
    })
    .await
    .unwrap();
    let (service, plan) = api.plan().await.unwrap();
    let path = format!("{path}?service_id={service}&plan_id={plan}");
    api.osb(Method::DELETE, &path, None).await.unwrap().ok().unwrap();
    assert_eq!(rules().await.unwrap()["rules"], json!([]));
}

/// Stops by SIGTERM, starts again on the same data: nothing is lost, nothing counted twice, the job goes on by itself.
#[tokio::test]
async fn a_second_up_goes_on_with_the_same_data() {
    let dir = Workdir::new("again").unwrap();
    let first = Standalone::start_on(dir.path(), &[]).await.unwrap();
    first.api.provision("again", 4).await.unwrap();
    first.api.provision("again_sums", 1).await.unwrap();
    let binding = first.api.bind("again", "admin").await.unwrap();
    let sql = "INSERT INTO again_sums SELECT service, window_start, count(*) AS n, sum(amount) AS total \
               FROM tumble(again, INTERVAL '10 seconds', watermark delay INTERVAL '30 seconds') \
               WHERE amount IS NOT NULL GROUP BY service, window_start";
    first.api.submit_job("again-sums", sql, "earliest").await.unwrap();
    default_rules_fire_and_go_with_their_instance(&first.api).await;
    publish(&binding, "first", BEFORE, day(0)).await;
    check_sums(&first.api, &[BEFORE]).await;
    let count = "SELECT count(*) AS n FROM again";
    assert_eq!(first.api.count(count).await.unwrap(), i64::from(BEFORE) + 8);
    let (status, words) = first.stop().await.unwrap();
    assert!(status.success(), "SIGTERM ended it with {status}:\n{words}");
    assert!(words.contains("drained"), "it says that it has drained:\n{words}");

    let second = Standalone::start_on(dir.path(), &[]).await.unwrap();
    let api = &second.api;
    assert_eq!(
        api.count(count).await.unwrap(),
        i64::from(BEFORE) + 8,
        "what was acknowledged is there after the restart"
    );
    // The same binding, on the new port: credentials outlive the process.
    let binding = Binding { nats_url: api.nats_url.clone(), ..binding };
    let repeated = binding.publisher().await.unwrap().once("logs.again.k3", "first-3", "repeated").await.unwrap();
    assert!(repeated.duplicate, "a message id of before the restart is still known: {repeated:?}");
    publish(&binding, "second", AFTER, day(1)).await;
    assert_eq!(api.count(count).await.unwrap(), i64::from(BEFORE + AFTER) + 16);
    check_sums(api, &[BEFORE, AFTER]).await;
    let job = api.job("again-sums").await.unwrap();
    assert_eq!(job["status"], "running", "{job}");
    let (status, words) = second.stop().await.unwrap();
    assert!(status.success(), "SIGTERM ended it with {status}:\n{words}");
}

/// A standalone that was killed leaves its nats-server behind; the next one ends it and takes over its data.
#[tokio::test]
async fn a_killed_up_is_no_obstacle_to_the_next() {
    let dir = Workdir::new("orphan").unwrap();
    let mut first = Standalone::start_on(dir.path(), &[]).await.unwrap();
    first.api.provision("kept", 1).await.unwrap();
    let pid_file = dir.path().join("keys/nats.pid");
    let orphan = std::fs::read_to_string(&pid_file).unwrap();
    // A process that has ended may stay listed until somebody asks for its status; it has no command line any more.
    let lives = || std::fs::read(format!("/proc/{orphan}/cmdline")).is_ok_and(|line| !line.is_empty());
    first.process().kill9().unwrap();
    assert!(lives(), "the server outlives its killed owner");

    let second = Standalone::start_on(dir.path(), &[]).await.unwrap();
    assert!(!lives(), "the orphan was ended");
    assert_eq!(second.api.count("SELECT count(*) AS n FROM kept").await.unwrap(), 0, "the index is still there");
    second.stop().await.unwrap();
}
