//! Operators' tools and the audit, on real brokers in two replicas with a provisioner that does what the test tells it to.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, also outside of its test functions, and starts processes"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Result, ensure};
use data_encoding::BASE64;
use futures::{StreamExt, stream};
use logboom_tests::{Answer, Api, Cluster, Options, StandIn, eventually, logboom, root};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use types::InstanceId;

const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = "0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10";
const SMALL: &str = "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01";
const REPLICAS: [&str; 2] = ["broker/a", "broker/b"];

struct Fixture {
    cluster: Cluster,
    stand_in: StandIn,
}

/// A request of a platform: who is behind it, and under which name the platform knows it.
#[derive(Clone, Copy)]
struct Platform<'a> {
    user: &'a str,
    request: &'a str,
}

impl Fixture {
    async fn start(set: &[&str]) -> Result<Self> {
        let options = Options::brokers(2).set(&["common.lease_ttl=1s"]).set(set);
        let mut cluster = Cluster::launch(options).await?;
        let stand_in = StandIn::start(&cluster.steady_bus("stand-in").await?).await?;
        cluster.wait_until_all_ready().await?;
        Ok(Self { cluster, stand_in })
    }

    fn api(&self, replica: usize) -> Api {
        self.cluster.broker(REPLICAS[replica]).unwrap()
    }

    /// Asks a replica until a leader has the word, as a platform does.
    async fn ask(&self, api: &Api, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        eventually(path, SOON, async || {
            let answer = api.osb(method.clone(), path, body).await?;
            ensure!(answer.status != 503, "no leader");
            Ok(answer)
        })
        .await
    }

    async fn provision(&self, instance: &str) -> Result<u16> {
        let path = format!("/v2/service_instances/{instance}?accepts_incomplete=true");
        Ok(self.ask(&self.api(0), Method::PUT, &path, Some(&provision_body(instance))).await?.status)
    }

    /// Runs the binary on this installation.
    fn tool(&self, args: &[&str]) -> Output {
        let keys = self.cluster.dir().join("keys");
        let mut command = Command::new(logboom().unwrap());
        command.current_dir(self.cluster.dir()).env("USER", "olga");
        command.args(["--json", "broker", "--settings"]).arg(keys.join("logboom.toml"));
        command.args(["--nats", &self.cluster.nats.url(), "--creds"]).arg(keys.join("platform.creds"));
        command.args(args).output().unwrap()
    }

    #[track_caller]
    fn said(&self, args: &[&str]) -> Value {
        let output = self.tool(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}"))
    }

    /// A command that must end with this code; answers everything that it said.
    #[track_caller]
    fn refused(&self, code: i32, args: &[&str]) -> String {
        let output = self.tool(args);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    fn stuck(&self, instance: &str, stuck: bool) {
        let id: InstanceId = instance.parse().unwrap();
        self.stand_in.with(|made| if stuck { made.stuck.insert(id) } else { made.stuck.remove(&id) });
    }
}

fn provision_body(index: &str) -> Value {
    json!({
        "service_id": SERVICE, "plan_id": SMALL, "organization_guid": "org", "space_guid": "space",
        "parameters": { "index": index },
    })
}

fn column<'a>(rows: &'a Value, name: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap_or("-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stuck_is_seen_retried_and_abandoned() -> Result<()> {
    let f = Fixture::start(&[]).await?;
    for instance in ["one", "two"] {
        assert_eq!(f.provision(instance).await?, 201);
    }
    let binding = "/v2/service_instances/one/service_bindings/b1";
    let body = json!({ "service_id": SERVICE, "plan_id": SMALL, "parameters": { "role": "read" } });
    assert_eq!(f.ask(&f.api(1), Method::PUT, binding, Some(&body)).await?.status, 201);
    let listed = f.said(&["list"]);
    assert_eq!(column(&listed, "instance"), ["one", "two"]);
    assert_eq!((column(&listed, "plan")[0], column(&listed, "phase")[0]), ("log-index/small", "live"));
    assert_eq!(listed[0]["bindings"], 1);
    let shown = f.said(&["show", "one"]);
    assert_eq!((&shown["bindings"][0]["binding"], &shown["bindings"][0]["role"]), (&json!("b1"), &json!("read")));
    let said = f.said(&["show", "one"]).to_string();
    assert!(!said.contains("lbt_") && !said.contains("parameters"), "neither secrets nor parameters: {said}");

    // A back-end under maintenance: the reason is seen, and a retry ends the pause.
    f.stuck("three", true);
    assert_eq!(f.provision("three").await?, 202);
    eventually("six attempts", SOON, async || {
        ensure!(f.stand_in.with(|made| made.put_off_count) >= 6, "fewer");
        Ok(())
    })
    .await?;
    let pending = f.said(&["list", "--pending"]);
    assert_eq!(column(&pending, "instance"), ["three"]);
    let problem = f.said(&["show", "three"])["problem"].as_str().unwrap_or_default().to_owned();
    assert!(problem.contains("under maintenance"), "{problem}");
    f.stuck("three", false);
    let begun = Instant::now();
    let retried = f.said(&["retry", "three"]);
    assert!(column(&retried, "operations")[0].starts_with("provision-"), "{retried}");
    eventually("the instance", SOON, async || {
        ensure!(f.said(&["show", "three"])["phase"] == "live", "not yet");
        Ok(())
    })
    .await?;
    // The pause after six failures is more than six seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "a retry does not wait: {:?}", begun.elapsed());
    assert!(f.refused(3, &["retry", "three"]).contains("LB-3028"));
    assert!(f.refused(3, &["retry", "nobody"]).contains("LB-3001"));
    assert_eq!(f.said(&["retry", "--all"]), json!([]));

    // What cannot be deprovisioned is forgotten, and its platform sees it gone.
    f.stuck("two", true);
    let path = format!("/v2/service_instances/two?accepts_incomplete=true&service_id={SERVICE}&plan_id={SMALL}");
    let gone = f.ask(&f.api(1), Method::DELETE, &path, None).await?;
    assert_eq!(gone.status, 202);
    assert!(f.refused(1, &["abandon", "two"]).contains("--yes"));
    assert_eq!(f.said(&["abandon", "two", "--yes"])["outcome"], "forgotten");
    assert_eq!(f.said(&["show", "two"])["phase"], "gone");
    let poll = "/v2/service_instances/two/last_operation";
    assert_eq!(f.ask(&f.api(1), Method::GET, poll, None).await?.body["state"], "succeeded");
    // What is in use is not forgotten by mistake; with --delete it is deprovisioned.
    assert!(f.refused(3, &["abandon", "one", "--yes"]).contains("LB-3029"));
    f.said(&["abandon", "one", "--delete", "--yes"]);
    eventually("the deprovisioning", SOON, async || {
        ensure!(f.stand_in.with(|made| !made.indexes.contains_key(&"one".parse().unwrap())), "not yet");
        Ok(())
    })
    .await?;
    let audited = f.said(&["audit"]);
    let tools: Vec<_> = audited.as_array().unwrap().iter().filter(|row| row["via"] == "tools").collect();
    assert!(tools.iter().all(|row| row["credential"] == "olga"), "{audited}");
    for (action, outcome) in
        [("retry", "200"), ("retry", "409 NothingPending"), ("abandon", "200"), ("deprovision", "200")]
    {
        assert!(tools.iter().any(|row| row["action"] == action && row["outcome"] == outcome), "{action} in {audited}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_are_rotated_and_instances_upgraded() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let catalog = dir.path().join("catalog.yaml");
    let built_in = fs::read_to_string(root().join("services/broker/catalog.yaml"))?;
    fs::write(&catalog, &built_in)?;
    let path = format!("broker.catalog_path={}", catalog.display());
    let f = Fixture::start(&[&path, "broker.reload_interval=100ms"]).await?;
    for instance in ["one", "two", "three"] {
        assert_eq!(f.provision(instance).await?, 201);
    }
    let binding = |id: &str| format!("/v2/service_instances/one/service_bindings/{id}");
    let body = json!({ "service_id": SERVICE, "plan_id": SMALL, "parameters": { "role": "write" } });
    assert_eq!(f.ask(&f.api(0), Method::PUT, &binding("old"), Some(&body)).await?.status, 201);
    let made = f.said(&["rotate", "one", "old", "--as", "new"]);
    assert_eq!(
        (&made["binding"], &made["predecessor"], &made["role"]),
        (&json!("new"), &json!("old"), &json!("write"))
    );
    let tokens = [binding("old"), binding("new")].map(|path| async {
        let api = f.api(1);
        let path = path;
        f.ask(&api, Method::GET, &path, None).await.unwrap().body["credentials"]["token"].clone()
    });
    let tokens = futures::future::join_all(tokens).await;
    assert_eq!(tokens, ["lbt_old", "lbt_new"], "both are valid");
    assert!(f.refused(3, &["rotate", "one", "nobody"]).contains("LB-3002"));

    assert_eq!(f.said(&["upgrade-all"]), json!([]), "there is nothing to upgrade");
    fs::write(&catalog, built_in.replace("version: \"1.0.0\"", "version: \"1.1.0\""))?;
    eventually("the catalog", SOON, async || {
        ensure!(f.said(&["list", "--upgradable"]).as_array().unwrap().len() == 3, "not yet");
        Ok(())
    })
    .await?;
    f.stand_in.with(|made| made.refused.insert("two".parse().unwrap()));
    let said = f.refused(1, &["upgrade-all"]);
    assert!(said.contains("1 of 3 instances were not upgraded"), "{said}");
    assert!(said.contains("does not want this change"), "it says why: {said}");
    assert_eq!(column(&f.said(&["list", "--upgradable"]), "instance"), ["two"]);
    f.stand_in.with(|made| made.refused.clear());
    let upgraded = f.said(&["upgrade-all"]);
    assert_eq!((column(&upgraded, "instance"), column(&upgraded, "outcome")), (vec!["two"], vec!["upgraded"]));
    assert!(column(&f.said(&["list"]), "version").iter().all(|version| *version == "1.1.0"));
    Ok(())
}

/// Sends one mutation; `None` if no answer came, which a killed replica gives.
async fn send(api: &Api, (method, path, body): &Mutation, platform: Platform<'_>) -> Option<u16> {
    let user = BASE64.encode(json!({ "username": platform.user }).to_string().as_bytes());
    let mut request = api.broker(method.clone(), path);
    request = request.header("X-Broker-API-Originating-Identity", format!("kubernetes {user}"));
    request = request.header("X-Broker-API-Request-Identity", platform.request);
    if let Some(body) = body {
        request = request.json(body);
    }
    Answer::of(request).await.ok().map(|answer| answer.status)
}

type Mutation = (Method, String, Option<Value>);

/// Every kind of mutation, accepted ones and refused ones.
fn mutation(n: usize) -> Mutation {
    let instance = format!("i{}", n / 4);
    let path = format!("/v2/service_instances/{instance}");
    match n % 4 {
        0 => (Method::PUT, path, Some(provision_body(&instance))),
        1 => {
            let body = json!({ "service_id": SERVICE, "plan_id": SMALL });
            (Method::PUT, format!("{path}/service_bindings/b{n}"), Some(body))
        }
        2 => (Method::PUT, path, Some(json!({ "service_id": "unknown" }))),
        _ => (Method::PATCH, path, Some(json!({ "service_id": SERVICE, "parameters": { "retention_days": 3 } }))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_is_complete_through_a_killed_leader() -> Result<()> {
    const MUTATIONS: usize = 160;
    let mut f = Fixture::start(&[]).await?;
    assert_eq!(f.provision("first").await?, 201);
    let leader = f.cluster.leader("broker").await?;
    let survivor = REPLICAS.iter().position(|name| *name != leader).unwrap();
    let (to_leader, to_survivor) = (f.cluster.broker(&leader)?, f.api(survivor));
    // Half of them go to the leader itself and are never repeated when it does not answer: what became of them only the journal knows.
    let sending = stream::iter(0..MUTATIONS).map(|n| {
        let api = if n % 8 < 4 { to_leader.clone() } else { to_survivor.clone() };
        async move {
            let (user, request) = (format!("user-{n}"), format!("request-{n}"));
            let platform = Platform { user: &user, request: &request };
            let begun = Instant::now();
            let mut status = send(&api, &mutation(n), platform).await;
            // Nobody leads for a moment: a platform repeats that.
            while status == Some(503) && begun.elapsed() < SOON {
                status = send(&api, &mutation(n), platform).await;
            }
            (n, status)
        }
    });
    let mut answers = BTreeMap::new();
    let mut sending = std::pin::pin!(sending.buffered(4));
    while let Some((n, status)) = sending.next().await {
        answers.insert(n, status);
        if n == MUTATIONS / 2 {
            f.cluster.kill9(&leader)?;
        }
    }
    let answered: BTreeSet<usize> =
        answers.iter().filter(|(_, status)| status.is_some_and(|s| s < 500)).map(|(n, _)| *n).collect();
    assert!(answered.len() > MUTATIONS / 3, "the test proves something only with answers: {answers:?}");
    let statuses: BTreeSet<u16> = answers.values().flatten().copied().collect();
    assert!(statuses.contains(&201) && statuses.contains(&400), "accepted and refused ones: {statuses:?}");
    assert!(answers.values().any(|status| status.is_none()), "nothing was lost with the leader");
    eventually("another leader", SOON, async || {
        let output = f.tool(&["list"]);
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
    .await?;

    let audit = f.said(&["audit", "--since", "1h"]);
    let mut entries: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in audit.as_array().unwrap() {
        entries.entry(row["request"].as_str().unwrap()).or_default().push(row);
    }
    for n in &answered {
        let found = entries.get(format!("request-{n}").as_str()).unwrap_or_else(|| panic!("mutation {n} has no entry"));
        let (method, path, _) = mutation(*n);
        for row in found {
            assert_eq!(row["user"], format!("user-{n}"), "{row}");
            assert_eq!(
                (&row["platform"], &row["credential"], &row["via"]),
                (&json!("kubernetes"), &json!("admin"), &json!("osb"))
            );
            assert!(path.contains(row["instance"].as_str().unwrap()), "{row}");
            assert!(method != Method::PATCH || row["action"] == "update", "{row}");
        }
        assert!(!found.iter().any(|row| row.to_string().contains("retention_days")), "no parameters");
    }
    // Whatever the journal has somebody wanted, also what was never answered.
    for instance in column(&f.said(&["list"]), "instance") {
        let wanted = |row: &&Value| row["instance"] == instance && row["action"] == "provision";
        let known = audit.as_array().unwrap().iter().find(wanted).unwrap_or_else(|| panic!("nobody wanted {instance}"));
        assert!(instance == "first" || known["user"].as_str().is_some_and(|user| user.starts_with("user-")), "{known}");
    }
    let one = f.said(&["audit", "--instance", "i0"]);
    assert!(!one.as_array().unwrap().is_empty() && column(&one, "instance").iter().all(|instance| *instance == "i0"));
    assert_eq!(f.said(&["audit", "--since", "2199-01-01T00:00:00Z"]), json!([]));
    Ok(())
}
