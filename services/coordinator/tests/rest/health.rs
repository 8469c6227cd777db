//! The tree of health.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use types::Timestamp;
use wire::{Service, views::Member};

use crate::{Fixture, stage::SOON};

#[actix_rt::test]
async fn the_tree_tells_what_is_missing() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    assert_eq!(rest.ask_as((0, None), Method::GET, "/ping", Value::Null).await, (200, Value::Null));
    let (status, health) = rest.get("/health").await;
    assert_eq!((status, &health["name"], &health["status"]), (200, &json!("coordinator"), &json!("DOWN")), "{health}");
    assert_eq!((&health["liveness"], &health["readiness"]), (&json!(true), &json!(false)));
    let children: Vec<&String> = health["children"].as_object().unwrap().keys().collect();
    assert_eq!(children, ["containers", "journal", "leader", "nats", "segment-stores"]);
    for (path, expected) in [
        ("/health/status/nats", json!("UP")),
        ("/health/status/journal", json!("UP")),
        ("/health/status/leader", json!("UP")),
        ("/health/status/containers", json!("DOWN")),
        ("/health/readiness/segment-stores", json!(false)),
        ("/health/liveness/segment-stores", json!(true)),
        ("/health/liveness", json!(true)),
        ("/health/readiness", json!(false)),
    ] {
        assert_eq!(rest.ask_as((0, None), Method::GET, path, Value::Null).await, (200, expected), "{path}");
    }
    assert_eq!(rest.get("/health/weather").await.0, 404);
    assert_eq!(rest.get("/health/status/weather").await.0, 404);

    // A store appears, and everything is placed.
    let replica: types::ReplicaId = "store-1".parse()?;
    let started = Timestamp::from_nanos(1);
    let member = Member {
        service: Service::SegmentStore,
        replica,
        started,
        exchange_address: None,
        slots: 0,
        unready: <_>::default(),
    };
    let bus = rest.host.bus.clone();
    let store = host::Host::connect(Service::SegmentStore, rest.world.common("store-1", &[])?).await?;
    let announced = store.announce(member).await?;
    testkit::eventually(SOON, async || rest.get("/health/status").await == (200, json!("UP"))).await;
    assert_eq!(rest.get("/health/readiness").await, (200, json!(true)));
    let (_, stores) = rest.get("/health/details/segment-stores").await;
    assert_eq!(stores, json!({ "alive": "1", "replicas": "store-1" }));
    let (_, shown) = rest.ask_as((0, None), Method::GET, "/health/segment-stores", Value::Null).await;
    assert_eq!((&shown["status"], &shown["details"]), (&json!("UP"), &json!({})), "details are not for everybody");
    drop((announced, bus));
    rest.stop().await
}

#[actix_rt::test]
async fn a_leader_that_cannot_serve_says_why() -> Result<()> {
    let mut rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.stop_last().await?;
    // What was installed cannot be changed; the message names the setting.
    rest.add_replica_with("b", true, &["common.container_count=16"]).await?;
    testkit::eventually(SOON, async || rest.get("/health/status/leader").await == (200, json!("DOWN"))).await;
    let (_, leader) = rest.get("/health/details/leader").await;
    let reason = leader["reason"].as_str().unwrap();
    assert!(reason.contains("ContainerCountChanged") && reason.contains("common.container_count"), "{reason}");
    assert_eq!(rest.get("/health/readiness").await, (200, json!(false)));
    let (_, root) = rest.get("/health/details").await;
    assert_eq!(root["leading"], leader["reason"], "the probes say it too");
    rest.stop().await
}
