//! Operations that take too long, are refused, or leave something behind; offerings that are asynchronous.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;
use types::InstanceId;

use crate::{Fixture, SMALL, SOON, bind_body, binding, ids, instance, provision_body};

const ASYNC: &str = "accepts_incomplete=true";

/// One offering whose operations are awaited by the platform, with a plan that gives up soon.
const CATALOG: &str = r#"
services:
  - id: slow
    name: slow
    description: Takes its time
    backend: own
    asynchronous: true
    plan_updateable: true
    plans:
      - { id: patient, name: patient, description: Waits }
      - { id: hasty, name: hasty, description: Gives up, maximum_polling_duration: 3 }
"#;

fn slow(plan: &str) -> Value {
    json!({ "service_id": "slow", "plan_id": plan, "organization_guid": "o", "space_guid": "sp" })
}

fn of_slow(path: String, plan: &str) -> String {
    format!("{path}?service_id=slow&plan_id={plan}")
}

async fn operation(f: &Fixture, path: &str, token: &str) -> (u16, Value) {
    f.ask("GET", &format!("{path}/last_operation?operation={token}"), None).await
}

#[actix_rt::test]
async fn an_asynchronous_offering_needs_a_platform_that_waits() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    let (path, body) = (instance("i"), slow("patient"));
    let accepting = format!("{path}?{ASYNC}");
    // 36, 53, 76
    let (status, refused) = f.ask("PUT", &path, Some(&body)).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("AsyncRequired")));
    assert_eq!(f.ask("GET", &path, None).await.0, 404, "nothing was created");
    // 35: what is done at once may be told at once, so nothing is.
    f.backend.lock().unwrap().stuck = true;
    let (status, accepted) = f.ask("PUT", &accepting, Some(&body)).await;
    assert_eq!(status, 202);
    f.backend.lock().unwrap().stuck = false;
    let token = accepted["operation"].as_str().unwrap().to_owned();
    eventually(SOON, async || operation(&f, &path, &token).await.1["state"] == "succeeded").await;
    // 44, 72: available at once.
    assert_eq!(f.ask("GET", &path, None).await.0, 200);
    for (method, url) in [("PATCH", path.clone()), ("DELETE", of_slow(path.clone(), "patient"))] {
        let (status, refused) = f.ask(method, &url, Some(&json!({ "service_id": "slow", "plan_id": "hasty" }))).await;
        assert_eq!((status, refused["error"].as_str()), (422, Some("AsyncRequired")), "{method}");
    }
    // A binding can always be had synchronously.
    let bind = json!({ "service_id": "slow", "plan_id": "patient" });
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind)).await.0, 201);
    f.backend.lock().unwrap().issues_stuck = true;
    let (status, accepted) = f.ask("PUT", &format!("{}?{ASYNC}", binding("i", "c")), Some(&bind)).await;
    assert!(status == 202 && accepted.get("credentials").is_none(), "{accepted}");
    f.backend.lock().unwrap().issues_stuck = false;
    let token = accepted["operation"].as_str().unwrap().to_owned();
    eventually(SOON, async || operation(&f, &binding("i", "c"), &token).await.1["state"] == "succeeded").await;
    assert_eq!(f.ask("GET", &binding("i", "c"), None).await.0, 200);
    // 75, 87
    let delete = format!("{}&{ASYNC}", of_slow(path.clone(), "patient"));
    f.backend.lock().unwrap().deletions_stuck = true;
    let (status, accepted) = f.ask("DELETE", &delete, None).await;
    assert_eq!(status, 202);
    f.backend.lock().unwrap().deletions_stuck = false;
    let token = accepted["operation"].as_str().unwrap().to_owned();
    eventually(SOON, async || operation(&f, &path, &token).await.0 == 410).await;
    assert_eq!(operation(&f, &path, "deprovision").await.1["state"], "succeeded");
    assert_eq!(f.ask("DELETE", &delete, None).await.0, 410);
    f.stop().await
}

#[actix_rt::test]
async fn what_takes_longer_than_its_plan_allows_is_given_up() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    f.backend.lock().unwrap().stuck = true;
    let path = instance("i");
    let create = format!("{path}?{ASYNC}");
    assert_eq!(f.ask("PUT", &create, Some(&slow("hasty"))).await.0, 202);
    // 90, 88
    eventually(SOON, async || operation(&f, &path, "provision").await.1["state"] == "failed").await;
    let (_, failed) = operation(&f, &path, "provision").await;
    assert!(failed["description"].as_str().unwrap().contains("3 s"), "{failed}");
    assert_eq!((&failed["instance_usable"], &failed["update_repeatable"]), (&json!(false), &json!(false)));
    let delete = format!("{}&{ASYNC}", of_slow(path.clone(), "hasty"));
    eventually(SOON, async || f.ask("DELETE", &delete, None).await.0 == 410).await;
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    // A binding too; its instance stays.
    f.backend.lock().unwrap().stuck = false;
    assert!([201, 202].contains(&f.ask("PUT", &create, Some(&slow("hasty"))).await.0));
    eventually(SOON, async || f.ask("GET", &path, None).await.0 == 200).await;
    f.backend.lock().unwrap().issues_stuck = true;
    let bind = format!("{}?{ASYNC}", binding("i", "b"));
    assert_eq!(f.ask("PUT", &bind, Some(&json!({ "service_id": "slow", "plan_id": "hasty" }))).await.0, 202);
    eventually(SOON, async || operation(&f, &binding("i", "b"), "bind").await.1["state"] == "failed").await;
    f.stop().await
}

#[actix_rt::test]
async fn an_update_that_is_given_up_may_be_repeated() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    let (path, accepting) = (instance("i"), format!("{}?{ASYNC}", instance("i")));
    assert_eq!(f.ask("PUT", &accepting, Some(&slow("patient"))).await.0, 202);
    eventually(SOON, async || f.ask("GET", &path, None).await.0 == 200).await;
    f.backend.lock().unwrap().updates_stuck = true;
    let to = json!({ "service_id": "slow", "plan_id": "hasty" });
    assert_eq!(f.ask("PATCH", &accepting, Some(&to)).await.0, 202);
    eventually(SOON, async || operation(&f, &path, "update").await.1["state"] == "failed").await;
    let (_, failed) = operation(&f, &path, "update").await;
    assert_eq!((&failed["instance_usable"], &failed["update_repeatable"]), (&json!(true), &json!(true)));
    assert_eq!(f.ask("GET", &path, None).await.1["plan_id"], "patient");
    f.backend.lock().unwrap().updates_stuck = false;
    assert_eq!(f.ask("PATCH", &accepting, Some(&to)).await.0, 202);
    eventually(SOON, async || f.ask("GET", &path, None).await.1["plan_id"] == "hasty").await;
    f.stop().await
}

#[actix_rt::test]
async fn a_deletion_that_is_refused_leaves_a_usable_instance() -> Result<()> {
    let f = Fixture::start().await?;
    assert_eq!(f.ask("PUT", &instance("i"), Some(&provision_body(json!({ "reclaim_policy": "fail" })))).await.0, 201);
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind_body(json!({})))).await.0, 201);
    f.backend.lock().unwrap().not_empty = true;
    let delete = format!("{}{}", instance("i"), ids(SMALL));
    let (status, refused) = f.ask("DELETE", &delete, None).await;
    // 11: the word for a deletion that failed.
    assert_eq!((status, refused["error"].as_str(), &refused["instance_usable"]), (422, Some("NotEmpty"), &json!(true)));
    let (status, failed) = operation(&f, &instance("i"), "deprovision").await;
    // 88: and neither 400 nor 410, which would be the end of it.
    assert_eq!((status, &failed["state"], &failed["instance_usable"]), (200, &json!("failed"), &json!(true)));
    for path in [instance("i"), binding("i", "b")] {
        assert_eq!(f.ask("GET", &path, None).await.0, 200, "{path}");
    }
    // Each reason has a word of its own.
    {
        let mut backend = f.backend.lock().unwrap();
        (backend.not_empty, backend.archive_in_use) = (false, true);
    }
    let (status, refused) = f.ask("DELETE", &delete, None).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("ArchiveInUse")));
    f.backend.lock().unwrap().archive_in_use = false;
    assert_eq!(f.ask("DELETE", &delete, None).await, (200, json!({})));
    f.stop().await
}

#[actix_rt::test]
async fn bindings_that_a_refused_deletion_has_cost_their_credentials_are_gone() -> Result<()> {
    let f = Fixture::start().await?;
    assert_eq!(f.ask("PUT", &instance("i"), Some(&provision_body(json!({ "reclaim_policy": "fail" })))).await.0, 201);
    for id in ["b", "c"] {
        assert_eq!(f.ask("PUT", &binding("i", id), Some(&bind_body(json!({})))).await.0, 201);
    }
    f.backend.lock().unwrap().late_events = true;
    let (status, refused) = f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("NotEmpty")));
    assert_eq!(f.ask("GET", &instance("i"), None).await.0, 200);
    // Broker and provisioner agree, binding by binding.
    assert_eq!(f.ask("GET", &binding("i", "c"), None).await.0, 200);
    let lost = binding("i", "b");
    assert_eq!(f.ask("GET", &lost, None).await.0, 404);
    let (status, ended) = operation(&f, &lost, "bind").await;
    assert_eq!((status, &ended["state"]), (200, &json!("failed")));
    assert!(ended["description"].as_str().unwrap().contains("bind again"), "{ended}");
    assert_eq!(f.ask("DELETE", &format!("{lost}{}", ids(SMALL)), None).await.0, 410);
    assert_eq!(f.ask("PUT", &lost, Some(&bind_body(json!({})))).await.0, 201, "it can be had again");
    f.stop().await
}

const TWO: &str = r#"
services:
  - { id: far, name: far, description: Hangs, backend: splunk, asynchronous: true,
      plans: [{ id: far-plan, name: plan, description: Any }] }
  - { id: near, name: near, description: Answers, backend: own,
      plans: [{ id: near-plan, name: plan, description: Any }] }
"#;

#[actix_rt::test]
async fn a_back_end_that_hangs_holds_up_nobody_but_itself() -> Result<()> {
    let f = Fixture::start_with(Some(TWO), &[]).await?;
    f.backend.lock().unwrap().hanging.insert("splunk".into());
    let of = |name: &str| json!({ "service_id": name, "plan_id": format!("{name}-plan"), "organization_guid": "o", "space_guid": "sp" });
    // More than there are places.
    for number in 0..20 {
        let path = format!("{}?{ASYNC}", instance(&format!("far-{number}")));
        assert_eq!(f.ask("PUT", &path, Some(&of("far"))).await.0, 202);
    }
    let near = tokio::time::timeout(Duration::from_secs(5), f.ask("PUT", &instance("near"), Some(&of("near")))).await;
    assert_eq!(near?.0, 201, "a call that hangs is given up after eight seconds");
    f.stop().await
}

#[actix_rt::test]
async fn a_deletion_converges_however_often_it_fails() -> Result<()> {
    let f = Fixture::start().await?;
    assert_eq!(f.ask("PUT", &instance("i"), Some(&provision_body(json!({})))).await.0, 201);
    f.backend.lock().unwrap().deletions_stuck = true;
    let delete = format!("{}{}&{ASYNC}", instance("i"), ids(SMALL));
    let (status, accepted) = f.ask("DELETE", &delete, None).await;
    assert_eq!(status, 202);
    // 75, 41: the same token; nothing else can be done to it.
    assert_eq!(f.ask("DELETE", &delete, None).await, (202, accepted));
    let (status, refused) = f.ask("PUT", &instance("i"), Some(&provision_body(json!({})))).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("ConcurrencyError")));
    f.backend.lock().unwrap().deletions_stuck = false;
    eventually(SOON, async || f.ask("DELETE", &delete, None).await.0 == 410).await;
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}

#[actix_rt::test]
async fn what_was_left_is_removed_and_what_is_foreign_is_not() -> Result<()> {
    let f = Fixture::start_with(None, &["broker.reconcile_interval=100ms"]).await?;
    for id in ["i", "j"] {
        assert_eq!(f.ask("PUT", &instance(id), Some(&provision_body(json!({})))).await.0, 201);
    }
    for id in ["b", "c"] {
        assert_eq!(f.ask("PUT", &binding("j", id), Some(&bind_body(json!({})))).await.0, 201);
    }
    let late = f.backend.lock().unwrap().indexes[&"i".parse::<InstanceId>()?].clone();
    let late_binding = f.backend.lock().unwrap().bindings[&"b".parse()?].clone();
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 200);
    assert_eq!(f.ask("DELETE", &format!("{}{}", binding("j", "b"), ids(SMALL)), None).await.0, 200);
    {
        // 94, 95: a creation that comes after the deletion that overtook it; and what somebody else made.
        let mut backend = f.backend.lock().unwrap();
        let mut foreign = late.clone();
        (foreign.instance, foreign.index) = ("foreign".parse()?, Some("foreign".parse()?));
        backend.indexes.insert(late.instance.clone(), late);
        backend.indexes.insert(foreign.instance.clone(), foreign);
        backend.bindings.insert(late_binding.binding.clone(), late_binding);
    }
    eventually(SOON, async || {
        let backend = f.backend.lock().unwrap();
        let left: Vec<&str> = backend.indexes.keys().map(InstanceId::as_str).collect();
        left == ["foreign", "j"] && backend.bindings.keys().map(|id| id.as_str()).eq(["c"])
    })
    .await;
    assert_eq!(f.ask("GET", &binding("j", "c"), None).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn a_deletion_survives_the_death_of_its_leader() -> Result<()> {
    let mut f = Fixture::empty(None, &[]).await?;
    f.add_mortal("a").await?;
    f.add_replica("b").await?;
    f.backend.lock().unwrap().stuck = true;
    let create = format!("{}?{ASYNC}", instance("i"));
    assert_eq!(f.ask("PUT", &create, Some(&provision_body(json!({})))).await.0, 202);
    f.backend.lock().unwrap().deletions_stuck = true;
    let delete = format!("{}{}&{ASYNC}", instance("i"), ids(SMALL));
    let (status, accepted) = f.ask("DELETE", &delete, None).await;
    assert_eq!(status, 202);
    f.cut("a");
    // 75, 89
    eventually(SOON, async || f.try_at(1, "DELETE", &delete, None).await == Some((202, accepted.clone()))).await;
    f.backend.lock().unwrap().stuck = false;
    f.backend.lock().unwrap().deletions_stuck = false;
    eventually(SOON, async || f.try_at(1, "DELETE", &delete, None).await.is_some_and(|(status, _)| status == 410))
        .await;
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}

#[actix_rt::test]
async fn a_leader_whose_time_is_over_says_of_nothing_that_it_is_not_there() -> Result<()> {
    let mut f = Fixture::empty(None, &[]).await?;
    f.add_mortal("a").await?;
    let create = |id: &str| format!("{}?{ASYNC}", instance(id));
    assert_eq!(f.ask("PUT", &create("gone"), Some(&provision_body(json!({})))).await.0, 201);
    let delete = format!("{}{}&{ASYNC}", instance("gone"), ids(SMALL));
    let (status, _) = f.ask("DELETE", &delete, None).await;
    assert_eq!(status, 200);
    f.backend.lock().unwrap().stuck = true;
    assert_eq!(f.ask("PUT", &create("new"), Some(&provision_body(json!({})))).await.0, 202);
    // From here on somebody else may lead; it cannot know.
    f.cut("a");
    let poll = |path: String, token: &str| format!("{path}/last_operation?operation={token}");
    let reads = [
        ("GET", poll(instance("none"), "provision"), None),
        ("GET", poll(binding("new", "none"), "bind"), None),
        // Its own token, so that it would be 410.
        ("GET", poll(instance("gone"), "deprovision-1"), None),
        ("GET", instance("new"), None),
        ("PATCH", instance("none"), Some(json!({ "service_id": crate::SERVICE }))),
        ("PUT", binding("none", "b"), Some(json!({ "predecessor_binding_id": "c" }))),
    ];
    let fixture = &f;
    let asks = reads.iter().map(|(method, path, body)| async move {
        let request = fixture.request(0, method, path);
        let request = body.iter().fold(request, |request, body| request.json(body));
        (path, crate::answer(request).await.0)
    });
    for (path, status) in futures::future::join_all(asks).await {
        assert_eq!(status, 503, "{path}");
    }
    f.stop().await
}
