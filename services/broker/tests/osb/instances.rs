//! Provision, fetch, update, deprovision, last operation; restarts and two replicas.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;

use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, ids, instance, provision_body};

const ASYNC: &str = "accepts_incomplete=true";

/// How long the broker waits before it hands out an operation.
const PATIENCE: Duration = Duration::from_secs(5);

fn shop() -> Value {
    provision_body(json!({ "index": "shop", "segments": 2 }))
}

async fn last_operation(f: &Fixture, replica: usize, id: &str, query: &str) -> (u16, String) {
    let (status, body) = f.ask_at(replica, "GET", &format!("{}/last_operation{query}", instance(id)), None).await;
    (status, body["state"].as_str().unwrap_or("-").to_owned())
}

fn is(status: u16, state: &str) -> (u16, String) {
    (status, state.to_owned())
}

#[actix_rt::test]
async fn a_provision_request_is_checked() -> Result<()> {
    let f = Fixture::start().await?;
    // 31: missing or empty.
    for key in ["service_id", "plan_id", "organization_guid", "space_guid"] {
        let mut body = shop();
        body[key] = json!("");
        assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 400, "{key}");
        body.as_object_mut().unwrap().remove(key);
        assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 400, "{key}");
    }
    // 32, 33
    for (key, value, says) in [
        ("service_id", json!("other"), "service_id"),
        ("plan_id", json!(SERVICE), "plan_id"),
        ("parameters", json!({ "segments": 65 }), "parameters/segments"),
        ("parameters", json!({ "index": "Shop" }), "parameters/index"),
        ("parameters", json!({ "size": 1 }), "parameters"),
    ] {
        let mut body = shop();
        body[key] = value;
        let (status, answer) = f.ask("PUT", &instance("i"), Some(&body)).await;
        assert_eq!(status, 400);
        assert!(answer["description"].as_str().unwrap().contains(says), "{answer}");
    }
    // 39
    let mut body = shop();
    body["maintenance_info"] = json!({ "version": "9.9.9" });
    let (status, answer) = f.ask("PUT", &instance("i"), Some(&body)).await;
    assert_eq!((status, answer["error"].as_str()), (422, Some("MaintenanceInfoConflict")));
    // 14: nothing of all this left a trace.
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 410);
    assert_eq!(f.backend.lock().unwrap().creations, 0);
    f.stop().await
}

#[actix_rt::test]
async fn an_instance_lives_and_ends() -> Result<()> {
    let f = Fixture::start().await?;
    let path = instance("i");
    assert_eq!(last_operation(&f, 0, "i", "").await, is(404, "-"));
    // 35, 40
    let (status, created) = f.ask("PUT", &path, Some(&shop())).await;
    assert_eq!((status, created["dashboard_url"].as_str()), (201, Some("http://logs.example.org/?index=shop")));
    {
        let backend = f.backend.lock().unwrap();
        let wanted = &backend.indexes[&"i".parse()?];
        assert_eq!((wanted.scope.as_str(), wanted.segment_count, wanted.retention_days), ("space", 2, Some(7)));
    }
    // 37, and key order does not matter
    let text = r#"{"parameters":{"segments":2,"index":"shop"},"space_guid":"space","organization_guid":"org"}"#;
    let mut same: Value = serde_json::from_str(text)?;
    (same["service_id"], same["plan_id"]) = (json!(SERVICE), json!(SMALL));
    assert_eq!(f.ask("PUT", &path, Some(&same)).await, (200, created));
    // 38
    for (key, value) in [
        ("plan_id", json!(STANDARD)),
        ("parameters", json!({ "index": "shop" })),
        ("organization_guid", json!("other")),
        ("space_guid", json!("other")),
    ] {
        let mut body = shop();
        body[key] = value;
        assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 409, "{key}");
    }
    // 44, 47, 81
    let (status, fetched) = f.ask("GET", &format!("{path}?service_id=x&plan_id=y"), None).await;
    assert_eq!((status, &fetched["plan_id"], &fetched["parameters"]["segments"]), (200, &json!(SMALL), &json!(2)));
    assert_eq!(last_operation(&f, 0, "i", "?operation=provision").await, is(200, "succeeded"));
    // Another instance cannot have the name; a refusal for good is 400.
    assert_eq!(f.ask("PUT", &instance("j"), Some(&shop())).await.0, 400);
    // 74: for instances the ids come first, even if there is none.
    for path in [path.clone(), instance("none"), format!("{path}?service_id=&plan_id=x")] {
        assert_eq!(f.ask("DELETE", &path, None).await.0, 400, "{path}");
    }
    // 75
    let delete = format!("{path}{}", ids(SMALL));
    assert_eq!(f.ask("DELETE", &delete, None).await, (200, json!({})));
    assert_eq!(f.ask("DELETE", &delete, None).await.0, 410);
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    // 87
    assert_eq!(last_operation(&f, 0, "i", "").await, is(200, "succeeded"));
    assert_eq!(last_operation(&f, 0, "i", "?operation=deprovision").await, is(200, "succeeded"));
    assert_eq!(last_operation(&f, 0, "i", "?operation=deprovision-1").await, is(410, "-"));
    // 42
    assert_eq!(f.ask("PUT", &path, Some(&shop())).await.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn deletion_wins_over_a_provisioning_under_way() -> Result<()> {
    let f = Fixture::start().await?;
    f.backend.lock().unwrap().stuck = true;
    let (path, create) = (instance("i"), format!("{}?{ASYNC}", instance("i")));
    // 35: it takes longer than a platform should wait.
    let (status, accepted) = f.ask("PUT", &create, Some(&shop())).await;
    assert_eq!((status, accepted["dashboard_url"].is_string()), (202, true));
    // 37: the same token at once.
    assert_eq!(f.ask("PUT", &create, Some(&shop())).await, (202, accepted));
    assert_eq!(f.ask("PUT", &create, Some(&provision_body(json!({})))).await.0, 409);
    // 43, 45, 81
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    assert_eq!(last_operation(&f, 0, "i", "?operation=whatever").await, is(200, "in progress"));
    // 77, 80, 94
    let begun = std::time::Instant::now();
    assert_eq!(f.ask("DELETE", &format!("{path}{}&{ASYNC}", ids(SMALL)), None).await.0, 200);
    assert!(begun.elapsed() < PATIENCE, "a deletion does not wait for a creation that cannot succeed");
    f.backend.lock().unwrap().stuck = false;
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    assert_eq!(f.ask("PUT", &instance("other"), Some(&shop())).await.0, 201, "the name is free again");
    let left: Vec<String> = f.backend.lock().unwrap().indexes.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["other"]);
    f.stop().await
}

#[actix_rt::test]
async fn what_fails_for_good_is_said_and_leaves_nothing() -> Result<()> {
    let f = Fixture::start().await?;
    f.backend.lock().unwrap().taken.insert("shop".into());
    // Synchronously: 400 with the reason, not the words that make a platform try for a week.
    let (status, refused) = f.ask("PUT", &instance("i"), Some(&shop())).await;
    assert_eq!(status, 400);
    assert!(refused["description"].as_str().unwrap().contains("taken"), "{refused}");
    // 88
    assert_eq!(last_operation(&f, 0, "i", "").await, is(200, "failed"));
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 410);
    f.backend.lock().unwrap().taken.clear();
    assert_eq!(f.ask("PUT", &instance("i"), Some(&shop())).await.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn operations_survive_a_restart() -> Result<()> {
    let mut f = Fixture::start().await?;
    f.backend.lock().unwrap().stuck = true;
    let create = format!("{}?{ASYNC}", instance("i"));
    let (status, accepted) = f.ask("PUT", &create, Some(&shop())).await;
    assert_eq!(status, 202);
    f.stop_replica(0).await?;
    std::fs::remove_dir_all(f.world.data_dir())?;
    f.add_replica("b").await?;
    // 89: the same operation, which ends under the new leader.
    assert_eq!(f.ask("PUT", &create, Some(&shop())).await, (202, accepted));
    f.backend.lock().unwrap().stuck = false;
    eventually(SOON, async || last_operation(&f, 0, "i", "").await == is(200, "succeeded")).await;
    assert_eq!(f.ask("PUT", &create, Some(&shop())).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn every_replica_answers_and_a_race_makes_one_instance() -> Result<()> {
    let mut f = Fixture::start().await?;
    f.add_replica("b").await?;
    let (path, body) = (instance("i"), shop());
    // 97
    let (one, two) = futures::join!(f.ask_at(0, "PUT", &path, Some(&body)), f.ask_at(1, "PUT", &path, Some(&body)));
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!((statuses, one.1 == two.1), ([200, 201], true));
    assert_eq!(f.backend.lock().unwrap().creations, 1);
    for replica in [0, 1] {
        assert_eq!(f.ask_at(replica, "GET", &path, None).await.0, 200);
        assert_eq!(last_operation(&f, replica, "i", "").await, is(200, "succeeded"));
    }
    // The other one takes over.
    f.stop_replica(0).await?;
    assert_eq!(f.ask("DELETE", &format!("{path}{}", ids(SMALL)), None).await.0, 200);
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}
