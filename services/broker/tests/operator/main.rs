//! The operator against a real API server: with the rights of the manifests and no others, on a real nats-server, with a provisioner of
//! a few lines behind the broker.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "../shared/behind.rs"]
mod behind;
mod cluster;

use cluster::{BINDINGS, Bed, GRACE, INDEXES, SECRETS};
use data_encoding::BASE64;
use reqwest::Method;
use serde_json::json;

/// One API server for all of them, since it takes seconds to start; each leaves nothing behind.
#[actix_rt::test]
async fn a_cluster_is_served() {
    let Some(mut bed) = Bed::start().await else { return };
    bed.add_replica("a").await;
    the_guide_is_right(&bed).await;
    an_index_is_provisioned_changed_and_deprovisioned(&mut bed).await;
    a_binding_becomes_a_secret_and_goes_with_it(&mut bed).await;
    credentials_are_exchanged_by_the_clock(&mut bed).await;
    a_secret_of_somebody_else_is_never_touched(&mut bed).await;
    the_next_leader_goes_on(&mut bed).await;
    bed.stop().await;
}

/// The objects that the guide shows are taken, and become what it says.
async fn the_guide_is_right(bed: &Bed) {
    let guide = include_str!("../../../../docs/guide/operator.md");
    let objects: String = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    bed.apply(&objects);
    bed.wait_for(INDEXES, "shop-logs", "Ready").await;
    bed.wait_for(BINDINGS, "shop-app", "Ready").await;
    bed.delete(BINDINGS, "shop-app").await;
    bed.delete(INDEXES, "shop-logs").await;
    bed.wait_until_gone(BINDINGS, "shop-app").await;
    bed.wait_until_gone(INDEXES, "shop-logs").await;
    assert!(bed.backend.lock().unwrap().is_empty());
}

async fn an_index_is_provisioned_changed_and_deprovisioned(bed: &mut Bed) {
    let uid =
        bed.create(INDEXES, json!({"name": "logs"}), json!({"plan": "small", "parameters": {"index": "shop"}})).await;
    let ready = bed.wait_for(INDEXES, "logs", "Ready").await;
    assert_eq!(ready["status"]["index"], "shop");
    assert!(ready["status"]["dashboard_url"].is_null() && ready["status"]["dashboardUrl"].is_string(), "{ready}");
    assert_eq!(ready["status"]["observedGeneration"], 1);
    let namespace = bed.api.get("/api/v1/namespaces/shop").await.unwrap();
    let scope = bed.backend.lock().unwrap().indexes[&uid.parse().unwrap()].scope.to_string();
    assert_eq!(namespace["metadata"]["uid"], scope, "the namespace is the tenant");

    // Wrong in the eyes of the broker, of the catalog, and of the API server itself.
    bed.create(INDEXES, json!({"name": "wrong"}), json!({"plan": "small", "parameters": {"segments": 1_000}})).await;
    let refused = bed.wait_for(INDEXES, "wrong", "ProvisionRefused").await;
    assert!(refused["status"]["conditions"][0]["message"].as_str().unwrap().contains("segments"), "{refused}");
    bed.create(INDEXES, json!({"name": "huge"}), json!({"plan": "huge"})).await;
    bed.wait_for(INDEXES, "huge", "UnknownPlan").await;
    let (status, answer) = bed.try_create(INDEXES, json!({"name": "no"}), json!({"plan": 7})).await;
    assert_eq!(status, 422, "{answer}");
    // A correction is looked at at once.
    bed.patch(INDEXES, "wrong", json!({"spec": {"parameters": {"segments": 2}}})).await;
    bed.wait_for(INDEXES, "wrong", "Ready").await;

    for name in ["logs", "wrong", "huge"] {
        bed.delete(INDEXES, name).await;
        bed.wait_until_gone(INDEXES, name).await;
    }
    assert!(bed.backend.lock().unwrap().is_empty());
}

async fn a_binding_becomes_a_secret_and_goes_with_it(bed: &mut Bed) {
    // The binding first: it waits for its index.
    let uid = bed.create(BINDINGS, json!({"name": "app"}), json!({"indexRef": {"name": "logs"}, "ttl": "1h"})).await;
    bed.wait_for(BINDINGS, "app", "IndexNotFound").await;
    bed.create(INDEXES, json!({"name": "logs"}), json!({"plan": "small"})).await;
    let ready = bed.wait_for(BINDINGS, "app", "Ready").await;
    assert_eq!(ready["status"]["secretName"], "app");
    let secret = bed.get(SECRETS, "app").await.unwrap();
    let value = |key: &str| String::from_utf8(BASE64.decode(secret["data"][key].as_str().unwrap().as_bytes()).unwrap());
    assert_eq!(value("token").unwrap(), format!("lbt_{uid}"));
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["uid"], &owner["kind"]), (&json!(uid), &json!("LogBinding")));

    // Whoever spoils the Secret sees it mended at the next look.
    bed.patch(SECRETS, "app", json!({"stringData": {"token": "spoilt"}})).await;
    bed.nudge(BINDINGS, "app").await;
    bed.wait_for_token("app", &format!("lbt_{uid}")).await;
    // Another role: other credentials. Pods still have the old ones, which are revoked at once only with the object.
    bed.patch(BINDINGS, "app", json!({"spec": {"role": "read"}})).await;
    bed.wait_for_token("app", &format!("lbt_{uid}-2")).await;
    let replaced_at = bed.replaced_at("app").await;
    let revoked_at = bed.backend.lock().unwrap().revoked.get(&uid.parse().unwrap()).copied();
    assert!(revoked_at.is_none_or(|at| at.duration_since(replaced_at).unsigned_abs() >= GRACE), "{revoked_at:?}");
    bed.delete(BINDINGS, "app").await;
    bed.wait_until_gone(BINDINGS, "app").await;
    assert!(bed.backend.lock().unwrap().bindings.is_empty());
    assert!(bed.get(SECRETS, "app").await.is_none(), "no garbage collector is there: the operator did it");
    bed.delete(INDEXES, "logs").await;
    bed.wait_until_gone(INDEXES, "logs").await;
    assert!(bed.backend.lock().unwrap().is_empty());
}

/// Long before they end others are in the Secret.
async fn credentials_are_exchanged_by_the_clock(bed: &mut Bed) {
    bed.create(INDEXES, json!({"name": "logs"}), json!({"plan": "small"})).await;
    let uid =
        bed.create(BINDINGS, json!({"name": "turning"}), json!({"indexRef": {"name": "logs"}, "ttl": "2s"})).await;
    bed.wait_until_done(&format!("issue {uid}-2")).await;
    bed.delete(BINDINGS, "turning").await;
    bed.wait_until_gone(BINDINGS, "turning").await;
    bed.delete(INDEXES, "logs").await;
    bed.wait_until_gone(INDEXES, "logs").await;
    assert!(bed.backend.lock().unwrap().is_empty());
}

async fn a_secret_of_somebody_else_is_never_touched(bed: &mut Bed) {
    bed.create(INDEXES, json!({"name": "logs"}), json!({"plan": "small"})).await;
    bed.wait_for(INDEXES, "logs", "Ready").await;
    let theirs =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app"}, "stringData": {"key": "theirs"}});
    let before = bed.api.create("/api/v1/namespaces/shop/secrets", &theirs).await.unwrap();
    bed.create(BINDINGS, json!({"name": "app"}), json!({"indexRef": {"name": "logs"}})).await;
    bed.wait_for(BINDINGS, "app", "SecretTaken").await;
    assert!(bed.backend.lock().unwrap().bindings.is_empty(), "no credentials are made for nothing");
    bed.delete(BINDINGS, "app").await;
    bed.wait_until_gone(BINDINGS, "app").await;
    assert_eq!(bed.get(SECRETS, "app").await.unwrap(), before);
    bed.delete(SECRETS, "app").await;

    // In a namespace that gave no right to its Secrets the object says what is missing.
    bed.forbid_secrets().await;
    bed.create(BINDINGS, json!({"name": "other"}), json!({"indexRef": {"name": "logs"}})).await;
    let told = bed.wait_for(BINDINGS, "other", "SecretForbidden").await;
    assert!(
        told["status"]["conditions"][0]["message"].as_str().unwrap().contains("logboom-operator-secrets"),
        "{told}"
    );
    bed.delete(BINDINGS, "other").await;
    bed.wait_until_gone(BINDINGS, "other").await;
    bed.allow_secrets();
    bed.delete(INDEXES, "logs").await;
    bed.wait_until_gone(INDEXES, "logs").await;
}

/// What is half done when the leader goes is done by the next one, and nothing twice.
async fn the_next_leader_goes_on(bed: &mut Bed) {
    bed.create(INDEXES, json!({"name": "logs"}), json!({"plan": "small"})).await;
    let old = bed.create(BINDINGS, json!({"name": "turning"}), json!({"indexRef": {"name": "logs"}})).await;
    bed.wait_for_token("turning", &format!("lbt_{old}")).await;
    bed.add_replica("b").await;
    bed.backend.lock().unwrap().stuck = true;
    let late = bed.create(INDEXES, json!({"name": "late"}), json!({"plan": "small"})).await;
    bed.wait_for(INDEXES, "late", "Provisioning").await;
    // Other credentials are in the Secret, and those before them are in their time of grace.
    bed.patch(BINDINGS, "turning", json!({"spec": {"role": "read"}})).await;
    bed.wait_for_token("turning", &format!("lbt_{old}-2")).await;
    let replaced_at = bed.replaced_at("turning").await;
    bed.stop_first().await;
    bed.backend.lock().unwrap().stuck = false;
    bed.wait_for(INDEXES, "late", "Ready").await;
    let uid = bed.create(BINDINGS, json!({"name": "app"}), json!({"indexRef": {"name": "late"}})).await;
    bed.wait_for(BINDINGS, "app", "Ready").await;
    let (status, events) = bed.ask(Method::GET, "/apis/events.k8s.io/v1/namespaces/shop/events", None).await;
    assert_eq!(status, 200);
    let ready = |event: &&serde_json::Value| event["reason"] == "Ready" && event["regarding"]["name"] == "late";
    assert_eq!(events["items"].as_array().unwrap().iter().filter(ready).count(), 1, "only the leader writes: {events}");

    bed.wait_until_done(&format!("revoke {old}")).await;
    let backend = bed.backend.clone();
    let revoked_at = backend.lock().unwrap().revoked[&old.parse().unwrap()];
    let worked_on = revoked_at.duration_since(replaced_at).unsigned_abs();
    assert!(worked_on >= GRACE, "the former credentials were revoked {worked_on:?} after they were replaced");
    let history = backend.lock().unwrap().history.clone();
    let before = |one: String, other: String| {
        let place = |step: &String| history.iter().position(|done| done == step);
        assert!(place(&one).is_some() && place(&one) < place(&other), "{one} before {other} in {history:?}");
    };
    before(format!("issue {old}-2"), format!("create {late}"));
    before(format!("create {late}"), format!("issue {uid}"));
    before(format!("issue {old}-2"), format!("revoke {old}"));
    for done in [format!("create {late}"), format!("issue {old}-2")] {
        assert_eq!(history.iter().filter(|one| **one == done).count(), 1, "{done} in {history:?}");
    }

    // An index that goes takes its service bindings along; the objects notice.
    bed.delete(INDEXES, "late").await;
    bed.wait_for(BINDINGS, "app", "IndexNotFound").await;
    for name in ["app", "turning"] {
        bed.delete(BINDINGS, name).await;
        bed.wait_until_gone(BINDINGS, name).await;
    }
    bed.delete(INDEXES, "logs").await;
    bed.wait_until_gone(INDEXES, "logs").await;
    assert!(bed.backend.lock().unwrap().is_empty());
}
