//! Clients with a binding's credentials: those of Rust, Python, Go, Java and Node and the `nats` command, all unmodified, and our own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skips, and starts processes"
)]

#[path = "clients/agents.rs"]
mod agents;
#[path = "clients/flight.rs"]
mod flight;
#[path = "clients/grafana.rs"]
mod grafana;
#[path = "clients/guide.rs"]
mod guide;
#[path = "clients/languages.rs"]
mod languages;
#[path = "clients/outside.rs"]
mod outside;
#[path = "clients/promtail.rs"]
mod promtail;
#[path = "clients/syslog.rs"]
mod syslog;
#[path = "clients/tool.rs"]
mod tool;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::{Client, Event, connection::State};
use futures::StreamExt;
use logboom_tests::{Binding, Publisher, Standalone, Workdir, eventually};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::Instant,
};

/// How soon an unbound application must be cut off.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);
/// How long a publish waits for an acknowledgement that must not come.
const REFUSED_AFTER: Duration = Duration::from_millis(1500);

/// Two tenants on one installation.
async fn two_tenants() -> (Standalone, Binding) {
    let up = Standalone::start().await.unwrap();
    for index in ["mine", "theirs"] {
        up.api.provision(index, 2).await.unwrap();
    }
    let binding = up.api.bind("mine", "admin").await.unwrap();
    (up, binding)
}

/// A client, and what the server has complained about.
async fn watched(binding: &Binding) -> (Client, Arc<Mutex<Vec<String>>>) {
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&complaints);
    let options = binding.options().unwrap().event_callback(move |event| {
        if let Event::ServerError(error) = event {
            kept.lock().push(error.to_string());
        }
        async {}
    });
    (options.connect(&binding.nats_url).await.unwrap(), complaints)
}

/// Waits for the one complaint that an overstep must bring, which says all of these words.
async fn complains(complaints: &Mutex<Vec<String>>, words: &[&str]) {
    eventually(&words.join(" "), Duration::from_secs(5), async || {
        let mut all = complaints.lock();
        anyhow::ensure!(all.iter().any(|one| words.iter().all(|word| one.contains(word))), "heard {all:?}");
        all.clear();
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn async_nats_publishes_and_is_confined_to_its_index() {
    let (up, binding) = two_tenants().await;
    let (client, complaints) = watched(&binding).await;
    let publisher = Publisher::new(client.clone());

    let ack = publisher.once("logs.mine", "one", "first").await.unwrap();
    assert!(!ack.duplicate && !ack.stream.is_empty(), "{ack:?}");
    let again = publisher.once("logs.mine", "one", "first").await.unwrap();
    assert!(again.duplicate, "the same Nats-Msg-Id is recognised: {again:?}");
    let keyed = publisher.once("logs.mine.cart-7", "two", "{\"msg\":\"second\"}").await.unwrap();
    assert!(!keyed.duplicate, "{keyed:?}");
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 2);

    // Neither another index, by its subject or by a lane behind it, nor somebody's alerts may be written. The server
    // maps `logs.*` to a lane before it looks at the permission, hence the lane in its words.
    for (subject, named) in [
        ("logs.theirs", ".theirs\""),
        ("logs.theirs.cart-7", ".theirs.cart-7\""),
        ("lane.0.theirs", "\"lane.0.theirs\""),
        ("alerts.mine.fake", "\"alerts.mine.fake\""),
        ("$JS.API.STREAM.NAMES", "\"$JS.API.STREAM.NAMES\""),
    ] {
        let refused = tokio::time::timeout(REFUSED_AFTER, publisher.once(subject, subject, "intruder")).await;
        assert!(!matches!(refused, Ok(Ok(_))), "{subject} was acknowledged");
        complains(&complaints, &["Permissions Violation for Publish", named]).await;
    }
    // Nor may the lanes, everything, or another tenant's alerts and answers be heard.
    let inbox = format!("{}.>", up.api.bind("theirs", "admin").await.unwrap().inbox_prefix);
    for subject in ["alerts.theirs.>", "lane.>", "logs.>", ">", "_INBOX.>", &inbox].map(str::to_owned) {
        let mut heard = client.subscribe(subject.clone()).await.unwrap();
        client.flush().await.unwrap();
        complains(&complaints, &["Permissions Violation for Subscription", &format!("\"{subject}\"")]).await;
        let nothing = tokio::time::timeout(Duration::from_millis(50), heard.next()).await;
        assert!(!matches!(nothing, Ok(Some(_))), "{subject} was heard");
    }
    assert_eq!(client.connection_state(), State::Connected, "a refusal does not end the connection");
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 2);
    assert_eq!(up.api.count("SELECT count(*) AS n FROM theirs").await.unwrap(), 0);
}

#[tokio::test]
async fn roles_are_kept_apart() {
    let (up, _) = two_tenants().await;
    let (reader, complaints) = watched(&up.api.bind("mine", "read").await.unwrap()).await;
    let refused = tokio::time::timeout(REFUSED_AFTER, Publisher::new(reader).once("logs.mine", "r", "x")).await;
    assert!(!matches!(refused, Ok(Ok(_))), "a reader has published");
    complains(&complaints, &["Permissions Violation for Publish", ".mine\""]).await;
    let (writer, complaints) = watched(&up.api.bind("mine", "write").await.unwrap()).await;
    Publisher::new(writer.clone()).once("logs.mine", "w", "x").await.unwrap();
    let _alerts = writer.subscribe("alerts.mine.>").await.unwrap();
    complains(&complaints, &["Permissions Violation for Subscription", "\"alerts.mine.>\""]).await;
}

#[tokio::test]
async fn async_nats_is_cut_off_when_it_is_unbound() {
    let (up, binding) = two_tenants().await;
    let other = up.api.bind("mine", "write").await.unwrap();
    let publisher = binding.publisher().await.unwrap();
    publisher.once("logs.mine", "before", "bound").await.unwrap();
    up.api.unbind(&binding).await.unwrap();
    let unbound = Instant::now();
    eventually("the connection ends", CUT_OFF_WITHIN, async || {
        let state = publisher.client().connection_state();
        anyhow::ensure!(state != State::Connected, "it is {state}");
        Ok(())
    })
    .await
    .unwrap();
    println!("async-nats: cut off {} ms after unbind had answered", unbound.elapsed().as_millis());
    assert!(binding.connect().await.is_err(), "a revoked user may not come back");
    let ingest = up.api.ingest("mine", &binding.token, "{\"msg\":\"x\"}\n").await.unwrap();
    assert_eq!(ingest.status, 401, "{}", ingest.text);
    other.publisher().await.unwrap().once("logs.mine", "other", "still bound").await.unwrap();
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 2);
}

/// The README's Python program, with what it may not do, and its end.
#[tokio::test]
async fn nats_py_publishes_and_is_cut_off_when_it_is_unbound() {
    let python = tool::python();
    let (up, binding) = two_tenants().await;
    let dir = Workdir::new("nats-py").unwrap();
    let creds = dir.path().join("mine.creds");
    binding.write_creds(&creds).unwrap();
    let mut child = tokio::process::Command::new(python)
        .arg(logboom_tests::root().join("tests/clients/publish.py"))
        .args([binding.nats_url.as_str(), &creds.display().to_string(), &binding.inbox_prefix])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line =
            tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("the program is silent");
        serde_json::from_str(&line.unwrap().expect("the program ended early")).unwrap()
    };
    let did = next().await;
    assert_eq!(did["published"], "mine", "{did}");
    assert_eq!((&did["duplicate_first"], &did["duplicate_again"]), (&Value::Bool(false), &Value::Bool(true)), "{did}");
    for (what, subject) in [("publish", ".theirs"), ("publish", "lane.0.theirs"), ("subscription", "alerts.theirs.>")] {
        let heard = did["violations"].to_string().to_lowercase();
        assert!(heard.contains(what) && heard.contains(subject), "{subject} was not refused: {did}");
    }
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 1);
    up.api.unbind(&binding).await.unwrap();
    let unbound = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let after = next().await["cut_off_at"].as_f64().unwrap() - unbound;
    println!("nats-py: cut off {:.0} ms after unbind had answered", after * 1000.0);
    assert!(after < CUT_OFF_WITHIN.as_secs_f64(), "cut off after {after} s");
    assert_eq!(next().await["published_after"], false);
    assert!(child.wait().await.unwrap().success());
}

/// The README's shell command, and its end.
#[tokio::test]
async fn the_nats_command_publishes_and_is_cut_off_when_it_is_unbound() {
    let Some(nats) = tool::nats_command() else { return };
    let (up, binding) = two_tenants().await;
    let dir = Workdir::new("nats-command").unwrap();
    let creds = dir.path().join("mine.creds");
    binding.write_creds(&creds).unwrap();
    let run = |subject: &str, id: &str| {
        let mut command = Command::new(&nats);
        command.args(["--server", &binding.nats_url, "--creds"]).arg(&creds);
        command.args(["--inbox-prefix", &binding.inbox_prefix, "--timeout", "3s", "request", "--raw"]);
        // Contexts of whoever runs the test must not reach it.
        command
            .args(["--header", &format!("Nats-Msg-Id:{id}"), subject, "hello from the shell"])
            .env("HOME", dir.path());
        command.output().unwrap()
    };
    let answer = |id: &str| -> Value {
        let output = run("logs.mine", id);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
    };
    let first = answer("shell-1");
    assert!(first["seq"].is_u64() && first["error"].is_null(), "{first}");
    assert_eq!(answer("shell-1")["duplicate"], true);
    // The command takes a refused publish for one that nobody answers, and ends with 0 all the same.
    let refused = run("logs.theirs", "shell-2");
    assert!(refused.stdout.is_empty(), "another index may not be written: {refused:?}");
    assert_eq!(up.api.count("SELECT count(*) AS n FROM theirs").await.unwrap(), 0);
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 1);
    up.api.unbind(&binding).await.unwrap();
    tokio::time::sleep(CUT_OFF_WITHIN).await;
    assert!(!run("logs.mine", "shell-3").status.success(), "an unbound user may not publish");
    assert_eq!(up.api.count("SELECT count(*) AS n FROM mine").await.unwrap(), 1);
}
