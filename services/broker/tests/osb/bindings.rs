//! Bind, fetch, unbind.

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;
use wire::views::Role;

use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, answer, bind_body, binding, ids, instance, provision_body};

async fn with_instance() -> Result<Fixture> {
    let f = Fixture::start().await?;
    let body = provision_body(json!({ "index": "shop" }));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    Ok(f)
}

#[actix_rt::test]
async fn a_bind_request_is_checked() -> Result<()> {
    let f = with_instance().await?;
    let path = binding("i", "b");
    // 60
    for key in ["service_id", "plan_id"] {
        for value in [json!(""), json!(null), json!("unknown")] {
            let mut body = bind_body(json!({}));
            body[key] = value;
            assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 400, "{body}");
        }
    }
    // 64
    for parameters in [json!({ "role": "root" }), json!({ "ttl_seconds": 0 }), json!({ "x": 1 })] {
        assert_eq!(f.ask("PUT", &path, Some(&bind_body(parameters))).await.0, 400);
    }
    // 62, and the plan must be the instance's.
    assert_eq!(f.ask("PUT", &binding("none", "b"), Some(&bind_body(json!({})))).await.0, 404);
    let mut other = bind_body(json!({}));
    other["plan_id"] = json!(STANDARD);
    assert_eq!(f.ask("PUT", &path, Some(&other)).await.0, 400);
    // 66: once it exists, a difference is 409 before anything else is looked at.
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(json!({})))).await.0, 201);
    assert_eq!(f.ask("PUT", &path, Some(&other)).await.0, 409);
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(json!({ "role": "read" })))).await.0, 409);
    f.stop().await
}

#[actix_rt::test]
async fn a_binding_lives_and_ends() -> Result<()> {
    let f = with_instance().await?;
    let path = binding("i", "b");
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    // 65, 69, 70
    let parameters = json!({ "role": "write", "ttl_seconds": 60 });
    let (status, bound) = f.ask("PUT", &path, Some(&bind_body(parameters.clone()))).await;
    assert_eq!(status, 201);
    let credentials = &bound["credentials"];
    for (key, value) in [
        ("token", "lbt_b"),
        ("nats_url", "nats://127.0.0.1:4222"),
        ("http_url", "http://logs.example.org"),
        ("ingest_url", "http://logs.example.org/api/v1/indexes/shop/ingest"),
        ("loki_url", "http://logs.example.org/loki/api/v1/push"),
        ("otlp_url", "http://logs.example.org/v1/logs"),
        ("hec_url", "http://logs.example.org"),
        ("hec_token", "lbt_b"),
    ] {
        assert_eq!(credentials[key], value, "{key}");
    }
    assert!(credentials.as_object().unwrap().values().all(Value::is_string), "credentials are flat");
    assert_eq!(bound["endpoints"], json!([{ "host": "127.0.0.1", "ports": ["4222"], "protocol": "tcp" }]));
    let (end, renew) = (bound["metadata"]["expires_at"].as_str().unwrap(), &bound["metadata"]["renew_before"]);
    assert_eq!((credentials["expires_at"].as_str(), end.len(), end.ends_with('Z')), (Some(end), 24, true));
    assert!(renew.as_str().unwrap() < end, "{bound}");
    let made = f.backend.lock().unwrap().bindings[&"b".parse()?].clone();
    assert_eq!((made.role, made.ttl_seconds), (Role::Write, Some(60)));
    assert_eq!(f.backend.lock().unwrap().issues, 1, "what was issued is what is answered");
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(parameters.clone()))).await, (200, bound.clone()));
    assert_eq!(f.backend.lock().unwrap().issues, 2, "it was kept nowhere");
    // 30: older clients refuse newer fields.
    let old = f.bare(0, "GET", &path).basic_auth("admin", Some("open sesame")).header("X-Broker-API-Version", "2.15");
    let (_, old) = answer(old).await;
    assert!(old.get("endpoints").is_none() && old.get("metadata").is_none());
    let old = f.bare(0, "GET", &path).basic_auth("admin", Some("open sesame")).header("X-Broker-API-Version", "2.16");
    let (_, old) = answer(old).await;
    assert_eq!(old["metadata"], json!({ "expires_at": end }));
    // 72
    let (status, fetched) = f.ask("GET", &path, None).await;
    assert_eq!((status, &fetched["credentials"], &fetched["parameters"]), (200, credentials, &parameters));
    assert_eq!(f.ask("GET", &binding("other", "b"), None).await.0, 404);
    let (status, operation) = f.ask("GET", &format!("{path}/last_operation"), None).await;
    assert_eq!((status, operation["state"].as_str()), (200, Some("succeeded")));
    // 73: whether it exists comes first, unlike for instances.
    assert_eq!(f.ask("DELETE", &path, None).await.0, 400);
    assert_eq!(f.ask("DELETE", &binding("i", "none"), None).await.0, 410);
    assert_eq!(f.ask("DELETE", &format!("{}{}", binding("other", "b"), ids(SMALL)), None).await.0, 410);
    let delete = format!("{path}{}", ids(SMALL));
    assert_eq!(f.ask("DELETE", &delete, None).await, (200, json!({})));
    assert!(f.backend.lock().unwrap().bindings.is_empty(), "dead when the answer goes out");
    assert_eq!(f.ask("DELETE", &delete, None).await.0, 410);
    // The id can be used again, with other parameters.
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(json!({})))).await.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn deprovisioning_takes_bindings_along() -> Result<()> {
    let f = with_instance().await?;
    for id in ["b", "c"] {
        assert_eq!(f.ask("PUT", &binding("i", id), Some(&bind_body(json!({})))).await.0, 201);
    }
    // 67: each is revocable alone.
    assert_eq!(f.ask("DELETE", &format!("{}{}", binding("i", "c"), ids(SMALL)), None).await.0, 200);
    assert_eq!(f.ask("GET", &binding("i", "b"), None).await.0, 200);
    // 78
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 200);
    assert_eq!(f.ask("GET", &binding("i", "b"), None).await.0, 404);
    assert_eq!(f.ask("DELETE", &format!("{}{}", binding("i", "b"), ids(SMALL)), None).await.0, 410);
    assert!(f.backend.lock().unwrap().bindings.is_empty());
    f.stop().await
}

#[actix_rt::test]
async fn a_bind_waits_for_its_instance() -> Result<()> {
    let f = Fixture::start().await?;
    f.backend.lock().unwrap().stuck = true;
    let create = format!("{}?accepts_incomplete=true", instance("i"));
    assert_eq!(f.ask("PUT", &create, Some(&provision_body(json!({})))).await.0, 202);
    let (path, body) = (binding("i", "b"), json!({ "service_id": SERVICE, "plan_id": SMALL }));
    let release = async {
        // The bind is on its way or about to be; either way it has to succeed.
        tokio::task::yield_now().await;
        f.backend.lock().unwrap().stuck = false;
    };
    // 62: a platform may take anything but success for the end.
    let (bound, ()) = futures::join!(f.ask("PUT", &path, Some(&body)), release);
    assert_eq!(bound.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn an_unbind_does_not_wait_for_its_instance() -> Result<()> {
    let f = Fixture::start().await?;
    f.backend.lock().unwrap().stuck = true;
    let wait = "accepts_incomplete=true";
    assert_eq!(f.ask("PUT", &format!("{}?{wait}", instance("i")), Some(&provision_body(json!({})))).await.0, 202);
    let path = binding("i", "b");
    assert_eq!(f.ask("PUT", &format!("{path}?{wait}"), Some(&bind_body(json!({})))).await.0, 202);
    // 73: with and without a platform that waits.
    assert_eq!(f.ask("DELETE", &format!("{path}{}&{wait}", ids(SMALL)), None).await, (200, json!({})));
    assert_eq!(f.ask("DELETE", &format!("{path}{}", ids(SMALL)), None).await.0, 410);
    f.backend.lock().unwrap().stuck = false;
    eventually(SOON, async || f.ask("GET", &instance("i"), None).await.0 == 200).await;
    assert_eq!(f.backend.lock().unwrap().issues, 0, "nobody ever asked for its credentials");
    f.stop().await
}

#[actix_rt::test]
async fn a_bind_is_handed_out_as_an_operation_when_it_takes_long() -> Result<()> {
    let f = with_instance().await?;
    f.backend.lock().unwrap().issues_stuck = true;
    let (path, body) = (binding("i", "b"), bind_body(json!({})));
    let accepting = format!("{path}?accepts_incomplete=true");
    let (status, accepted) = f.ask("PUT", &accepting, Some(&body)).await;
    assert!(status == 202 && accepted.get("credentials").is_none(), "{accepted}");
    // 65, 37, 72
    assert_eq!(f.ask("PUT", &accepting, Some(&body)).await, (202, accepted.clone()));
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    f.backend.lock().unwrap().issues_stuck = false;
    let token = accepted["operation"].as_str().unwrap();
    let poll = format!("{path}/last_operation?operation={token}");
    eventually(SOON, async || f.ask("GET", &poll, None).await.1["state"] == "succeeded").await;
    // 72: at once.
    assert_eq!(f.ask("GET", &path, None).await.1["credentials"]["token"], "lbt_b");
    assert_eq!(f.ask("PUT", &accepting, Some(&body)).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn a_binding_is_rotated() -> Result<()> {
    let f = with_instance().await?;
    let (old, new) = (binding("i", "old"), binding("i", "new"));
    let parameters = json!({ "role": "write", "ttl_seconds": 600.0 });
    assert_eq!(f.ask("PUT", &old, Some(&bind_body(parameters.clone()))).await.0, 201);
    // 71: the body says nothing else.
    let rotation = json!({ "predecessor_binding_id": "old" });
    for body in [
        json!({ "predecessor_binding_id": "none" }),
        json!({ "predecessor_binding_id": "a.b" }),
        json!({ "predecessor_binding_id": 7 }),
    ] {
        assert_eq!(f.ask("PUT", &new, Some(&body)).await.0, 400, "{body}");
    }
    assert_eq!(f.ask("PUT", &binding("none", "new"), Some(&rotation)).await.0, 404);
    // Older platforms do not know the word, so they have left something out.
    let older = f.bare(0, "PUT", &new).basic_auth("admin", Some("open sesame")).header("X-Broker-API-Version", "2.16");
    assert_eq!(answer(older.json(&rotation)).await.0, 400);
    let (status, rotated) = f.ask("PUT", &new, Some(&rotation)).await;
    assert_eq!((status, rotated["credentials"]["token"].as_str()), (201, Some("lbt_new")));
    assert_eq!(f.ask("PUT", &new, Some(&rotation)).await, (200, rotated));
    assert_eq!(f.ask("PUT", &new, Some(&bind_body(parameters.clone()))).await.0, 409);
    let made = f.backend.lock().unwrap().bindings[&"new".parse()?].clone();
    assert_eq!((made.role, made.ttl_seconds), (Role::Write, Some(600)));
    // Both are valid until the old one is unbound.
    for path in [&old, &new] {
        let (status, fetched) = f.ask("GET", path, None).await;
        assert_eq!((status, &fetched["parameters"]), (200, &parameters), "{path}");
    }
    assert_eq!(f.ask("DELETE", &format!("{old}{}", ids(SMALL)), None).await.0, 200);
    assert_eq!(f.ask("GET", &new, None).await.0, 200);
    let again = f.ask("PUT", &binding("i", "newer"), Some(&rotation)).await;
    assert_eq!(again.0, 400, "the predecessor is gone");
    f.stop().await
}

#[actix_rt::test]
async fn a_binding_ends_by_itself() -> Result<()> {
    let f = with_instance().await?;
    let path = binding("i", "b");
    let body = bind_body(json!({ "ttl_seconds": 2 }));
    assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 201);
    eventually(SOON, async || f.ask("GET", &path, None).await.0 == 404).await;
    eventually(SOON, async || f.backend.lock().unwrap().bindings.is_empty()).await;
    let delete = format!("{path}{}", ids(SMALL));
    eventually(SOON, async || f.ask("DELETE", &delete, None).await.0 == 410).await;
    // 71
    let rotation = json!({ "predecessor_binding_id": "b" });
    assert_eq!(f.ask("PUT", &binding("i", "c"), Some(&rotation)).await.0, 400);
    // The id can be used again.
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(json!({})))).await.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn credentials_can_be_fetched_from_the_next_leader() -> Result<()> {
    let mut f = Fixture::empty(None, &[]).await?;
    f.add_mortal("a").await?;
    f.add_replica("b").await?;
    let body = provision_body(json!({ "index": "shop" }));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    let path = binding("i", "b");
    let (_, bound) = f.ask("PUT", &path, Some(&bind_body(json!({ "role": "read" })))).await;
    f.cut("a");
    eventually(SOON, async || f.try_at(1, "GET", &path, None).await.is_some()).await;
    // 72, 89
    let (status, fetched) = f.ask_at(1, "GET", &path, None).await;
    assert_eq!((status, &fetched["credentials"]), (200, &bound["credentials"]));
    f.stop().await
}
