//! Bind, fetch, unbind.

use anyhow::Result;
use serde_json::{Value, json};
use wire::views::Role;

use crate::{Fixture, SERVICE, SMALL, STANDARD, answer, bind_body, binding, ids, instance, provision_body};

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
    assert_eq!(f.ask("PUT", &binding("i", "a.b"), Some(&bind_body(json!({})))).await.0, 400);
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
    ] {
        assert_eq!(credentials[key], value, "{key}");
    }
    assert!(credentials.as_object().unwrap().values().all(Value::is_string), "credentials are flat");
    assert_eq!(bound["endpoints"], json!([{ "host": "127.0.0.1", "ports": ["4222"], "protocol": "tcp" }]));
    assert_eq!(bound["metadata"]["expires_at"], "2030-01-01T00:00:00.000Z");
    let made = f.backend.lock().unwrap().bindings[&"b".parse()?].clone();
    assert_eq!((made.role, made.ttl_seconds), (Role::Write, Some(60)));
    assert_eq!(f.ask("PUT", &path, Some(&bind_body(parameters.clone()))).await, (200, bound.clone()));
    // 30: older clients refuse newer fields.
    let old = f.bare(0, "GET", &path).basic_auth("admin", Some("open sesame")).header("X-Broker-API-Version", "2.15");
    let (_, old) = answer(old).await;
    assert!(old.get("endpoints").is_none() && old.get("metadata").is_none());
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
