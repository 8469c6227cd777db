//! Scopes, streams and reader groups.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use types::KeyRange;
use wire::{
    coordinator::{CreateGroup, CreateStream, CutKind, GroupConfig, NewStream, ScaleStream},
    views::{QUOTAS, Quota},
};

use crate::{
    Fixture, PASSWORD,
    stage::{SOON, described, everything, index},
    stream,
};

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

#[actix_rt::test]
async fn scopes_live_and_end_by_the_statuses_of_the_interface() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    let create = json!({ "scopeName": "other" });
    assert_eq!(rest.ask(Method::POST, "/scopes", create.clone()).await, (201, json!({ "scopeName": "other" })));
    let (status, refused) = rest.ask(Method::POST, "/scopes", create).await;
    assert_eq!((status, &refused["code"], &refused["kind"]), (409, &json!("Conflict"), &json!("KeyExists")));
    assert_eq!(rest.ask(Method::POST, "/scopes", json!({ "scopeName": "a.b" })).await.0, 400);
    assert_eq!(rest.ask(Method::POST, "/scopes", json!({ "scope": "a" })).await.0, 400);
    let (_, all) = rest.get("/scopes").await;
    assert_eq!(names(&all["scopes"], "scopeName"), ["other", "team"]);
    assert_eq!(rest.get("/scopes/team").await, (200, json!({ "scopeName": "team" })));
    let (status, missing) = rest.get("/scopes/nobody").await;
    assert_eq!((status, &missing["kind"], &missing["lb_code"]), (404, &json!("UnknownScope"), &json!("LB-1035")));
    rest.ask(Method::POST, "/scopes/team/streams", stream("shop", 1)).await;
    assert_eq!(rest.ask(Method::DELETE, "/scopes/team", Value::Null).await.0, 412);
    assert_eq!(rest.ask(Method::DELETE, "/scopes/other", Value::Null).await, (204, Value::Null));
    assert_eq!(rest.ask(Method::DELETE, "/scopes/other", Value::Null).await.0, 404);
    assert_eq!(rest.get("/nothing").await.0, 404);
    rest.stop().await
}

#[actix_rt::test]
async fn a_scope_holds_as_many_streams_as_the_plan_of_its_instance_says() -> Result<()> {
    let rest = Fixture::start().await?;
    // A service instance, as the index-provisioner makes it.
    let tags = vec!["instance-7f3a".parse()?];
    let shop = NewStream { tags, ..NewStream::fixed("team".parse()?, index("shop"), 1) };
    rest.host.bus.call_within::<CreateStream>(&(), &shop, SOON).await?;
    let streams = "/scopes/team/streams";
    assert_eq!(rest.ask(Method::POST, streams, stream("one", 1)).await.0, 201, "without a quota there is no limit");
    let quotas = rest.host.bus.bucket(QUOTAS, None, 1).await?;
    quotas.put("shop", wire::encode(&Quota { streams: Some(2), ..Quota::default() })).await?;
    let (status, refused) = rest.ask(Method::POST, streams, stream("two", 1)).await;
    assert_eq!(
        (status, &refused["kind"], &refused["lb_code"]),
        (429, &json!("QuotaStreams"), &json!("LB-1091")),
        "{refused}"
    );
    assert!(refused["message"].as_str().unwrap().contains("scope team may hold 2 streams"), "{refused}");
    // Whoever is let in by its own tag would have no limit.
    let mut claimed = stream("two", 1);
    claimed["streamTags"] = json!(["instance-7f3b"]);
    assert_eq!(rest.ask(Method::POST, streams, claimed).await.0, 400);
    // Another instance of the scope is let in and brings its own room; a better plan helps at once.
    let next =
        NewStream { tags: vec!["instance-7f3b".parse()?], ..NewStream::fixed("team".parse()?, index("next"), 1) };
    rest.host.bus.call_within::<CreateStream>(&(), &next, SOON).await?;
    quotas.put("next", wire::encode(&Quota { streams: Some(2), ..Quota::default() })).await?;
    assert_eq!(rest.ask(Method::POST, streams, stream("two", 1)).await.0, 201);
    assert_eq!(rest.ask(Method::POST, streams, stream("three", 1)).await.0, 429);
    rest.stop().await
}

#[actix_rt::test]
async fn streams_are_created_changed_sealed_and_deleted() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.with_scope("other").await;
    let streams = "/scopes/team/streams";
    let body = json!({
        "streamName": "shop",
        "scalingPolicy": { "type": "BY_RATE_IN_EVENTS_PER_SEC", "targetRate": 100, "scaleFactor": 2, "minSegments": 2 },
        "retentionPolicy": { "type": "LIMITED_DAYS", "value": 0, "timeBasedRetention": { "days": 1, "hours": 6, "minutes": 0 } },
        "streamTags": ["red"],
    });
    let (status, shop) = rest.ask(Method::POST, streams, body.clone()).await;
    assert_eq!((status, &shop["scopeName"], &shop["streamName"]), (201, &json!("team"), &json!("shop")), "{shop}");
    assert_eq!((&shop["scalingPolicy"], &shop["retentionPolicy"]), (&body["scalingPolicy"], &body["retentionPolicy"]));
    assert_eq!(shop["tags"], json!(["red"]));
    assert_eq!(rest.store.lock().unwrap().segments.len(), 2);
    assert_eq!(rest.ask(Method::POST, streams, body).await.0, 409);
    assert_eq!(rest.ask(Method::POST, "/scopes/other/streams", stream("shop", 1)).await.0, 409, "another scope's");
    assert_eq!(rest.ask(Method::POST, "/scopes/nobody/streams", stream("till", 1)).await.0, 404);
    assert_eq!(rest.ask(Method::POST, streams, stream("No Name", 1)).await.0, 400);
    let (status, refused) = rest.ask(Method::POST, streams, stream("till", 65)).await;
    assert_eq!((status, &refused["kind"]), (400, &json!("InvalidPolicy")));
    assert_eq!(rest.ask(Method::POST, streams, stream("till", 1)).await.0, 201);

    assert_eq!(rest.get("/scopes/team/streams/shop").await, (200, shop));
    assert_eq!(rest.get("/scopes/other/streams/shop").await.0, 404);
    let listed = async |query: &str| {
        let (status, list) = rest.get(&format!("{streams}{query}")).await;
        (status, names(&list["streams"], "streamName"))
    };
    assert_eq!(listed("").await, (200, vec!["shop".to_owned(), "till".to_owned()]));
    assert_eq!(listed("?filter_type=tag&filter_value=red").await, (200, vec!["shop".to_owned()]));
    assert_eq!(listed("?filter_type=showInternalStreams").await, (200, vec![]));
    assert_eq!(rest.get(&format!("{streams}?filter_type=other")).await.0, 400);

    let change = json!({ "scalingPolicy": { "type": "FIXED_NUM_SEGMENTS", "minSegments": 2 }, "streamTags": ["blue"] });
    let (status, changed) = rest.ask(Method::PUT, "/scopes/team/streams/shop", change.clone()).await;
    assert_eq!((status, &changed["tags"], &changed["retentionPolicy"]), (200, &json!(["blue"]), &Value::Null));
    assert_eq!(rest.ask(Method::PUT, "/scopes/team/streams/none", change).await.0, 404);

    let state = |word: &str| json!({ "streamState": word });
    let path = "/scopes/team/streams/shop/state";
    assert_eq!(rest.ask(Method::DELETE, "/scopes/team/streams/shop", Value::Null).await.0, 412, "not sealed");
    assert_eq!(rest.ask(Method::PUT, path, state("OPEN")).await.0, 400);
    assert_eq!(rest.ask(Method::PUT, path, state("SEALED")).await, (200, state("SEALED")));
    assert!(described(&rest.host, "shop").await.unwrap().sealed);
    assert_eq!(rest.ask(Method::DELETE, "/scopes/team/streams/shop", Value::Null).await, (204, Value::Null));
    assert_eq!(rest.ask(Method::DELETE, "/scopes/team/streams/shop", Value::Null).await.0, 404);
    rest.stop().await
}

#[actix_rt::test]
async fn the_base_path_of_the_interface_is_served_too() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    let (status, _) = rest.ask(Method::POST, "/v1/scopes/team/streams", stream("shop", 2)).await;
    assert_eq!(status, 201);
    for path in ["/scopes", "/scopes/team/streams/shop", "/scopes/team/readergroups", "/health/status/nats"] {
        let (status, there) = rest.get(path).await;
        assert_eq!((status, rest.get(&format!("/v1{path}")).await), (200, (200, there)), "{path}");
    }
    let (status, missing) = rest.get("/v1/nothing").await;
    assert_eq!((status, &missing["kind"]), (404, &json!("UnknownPath")));
    assert_eq!(rest.ask_as((0, None), Method::GET, "/v1/scopes", Value::Null).await.0, 401);
    rest.stop().await
}

#[actix_rt::test]
async fn a_change_of_policy_brings_the_segments_that_it_asks_for() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.ask(Method::POST, "/scopes/team/streams", stream("shop", 1)).await;
    let put = async |kind: &str, least: u64| {
        let mut policy = json!({ "type": kind, "minSegments": least });
        if kind != "FIXED_NUM_SEGMENTS" {
            policy["targetRate"] = json!(10);
            policy["scaleFactor"] = json!(2);
        }
        rest.ask(Method::PUT, "/scopes/team/streams/shop", json!({ "scalingPolicy": policy })).await
    };
    for (kind, least, segments, epoch) in [
        ("FIXED_NUM_SEGMENTS", 3, 3, 1),
        ("FIXED_NUM_SEGMENTS", 3, 3, 1),
        ("BY_RATE_IN_EVENTS_PER_SEC", 2, 3, 1),
        ("BY_RATE_IN_EVENTS_PER_SEC", 70, 70, 2),
        ("FIXED_NUM_SEGMENTS", 2, 2, 3),
    ] {
        let (status, changed) = put(kind, least).await;
        assert_eq!((status, &changed["scalingPolicy"]["minSegments"]), (200, &json!(least)), "{changed}");
        let there = described(&rest.host, "shop").await.unwrap();
        assert_eq!((there.segments.len(), there.epoch), (segments, epoch), "{kind} {least}");
    }
    assert_eq!(put("FIXED_NUM_SEGMENTS", 10_001).await.0, 400);
    rest.ask(Method::PUT, "/scopes/team/streams/shop/state", json!({ "streamState": "SEALED" })).await;
    let (status, refused) = put("FIXED_NUM_SEGMENTS", 5).await;
    assert_eq!((status, &refused["kind"]), (409, &json!("StreamSealed")));
    assert_eq!(put("FIXED_NUM_SEGMENTS", 2).await.0, 200, "what asks for nothing new is taken");
    rest.stop().await
}

#[actix_rt::test]
async fn scaling_events_tell_every_epoch() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.ask(Method::POST, "/scopes/team/streams", stream("shop", 1)).await;
    let present = described(&rest.host, "shop").await?;
    let scale = everything(&present, &KeyRange::split_evenly(2));
    rest.host.bus.call_within::<ScaleStream>(&(), &scale, SOON).await?;
    let path = "/scopes/team/streams/shop/scaling-events";
    let (status, list) = rest.get(&format!("{path}?from=0&to={}", i64::MAX)).await;
    let events = list["scalingEvents"].as_array().unwrap();
    let numbers = |event: &Value| -> Vec<u64> {
        event["segmentList"].as_array().unwrap().iter().map(|s| s["number"].as_u64().unwrap()).collect()
    };
    assert_eq!((status, events.iter().map(numbers).collect::<Vec<_>>()), (200, vec![vec![0], vec![1, 2]]));
    assert_eq!((&events[1]["splits"], &events[1]["segmentList"][1]["keyStart"]), (&json!(1), &json!(0.5)));
    let opened = events[1]["timestamp"].as_i64().unwrap();
    assert_eq!(events[1]["segmentList"][0]["startTime"], json!(opened));
    let (_, later) = rest.get(&format!("{path}?from={}&to={}", opened + 1, opened + 1)).await;
    assert_eq!(later["scalingEvents"], json!([events[1]]), "the one that holds");
    assert_eq!(rest.get(path).await.0, 400);
    assert_eq!(rest.get(&format!("{path}?from=9&to=1")).await.0, 400);
    assert_eq!(rest.get("/scopes/team/streams/none/scaling-events?from=0&to=1").await.0, 404);
    rest.stop().await
}

#[actix_rt::test]
async fn reader_groups_are_listed_described_and_deleted() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.ask(Method::POST, "/scopes/team/streams", stream("shop", 1)).await;
    let config = GroupConfig {
        group: "readers".parse()?,
        scope: "team".parse()?,
        from: [(index("shop"), CutKind::Unbounded)].into(),
        to: Default::default(),
        checkpoint_ms: 0,
        retention: Default::default(),
    };
    let group = rest.host.bus.call_within::<CreateGroup>(&(), &config, SOON).await?;
    let groups = "/scopes/team/readergroups";
    assert_eq!(rest.get(groups).await, (200, json!({ "readerGroups": [{ "readerGroupName": "readers" }] })));
    let shown = |online: Value| json!({ "scopeName": "team", "readerGroupName": "readers", "streamList": ["shop"], "onlineReaderIds": online });
    let path = format!("{groups}/readers");
    assert_eq!(rest.get(&path).await, (200, shown(json!([]))));
    // What readers write down, as far as it is looked at.
    let documents = rest.host.bus.bucket(wire::views::GROUPS, None, 1).await?;
    let document = json!({ "stamps": [1], "body": { "generation": 1, "readers": { "r-1": { "session": 7 } } } });
    documents.put(&format!("readers.{}", group.generation), wire::encode(&document)).await?;
    assert_eq!(rest.get(&path).await, (200, shown(json!(["r-1"]))));
    assert_eq!(rest.get("/scopes/other/readergroups/readers").await.0, 404);
    assert_eq!(rest.ask(Method::DELETE, &path, Value::Null).await, (204, Value::Null));
    assert_eq!(rest.ask(Method::DELETE, &path, Value::Null).await.0, 404);
    assert_eq!(rest.get(&path).await.0, 404);
    rest.stop().await
}

#[actix_rt::test]
async fn a_replica_that_does_not_lead_serves_too() -> Result<()> {
    let mut rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.add_replica("b", true).await?;
    let root = (1, Some(("root", PASSWORD)));
    let (status, made) = rest.ask_as(root, Method::POST, "/scopes/team/streams", stream("shop", 3)).await;
    assert_eq!((status, &made["scalingPolicy"]["minSegments"]), (201, &json!(3)), "{made}");
    testkit::eventually(SOON, async || {
        rest.ask_as(root, Method::GET, "/scopes/team/streams/shop", Value::Null).await == (200, made.clone())
    })
    .await;
    let (_, leader) = rest.ask_as(root, Method::GET, "/health/details/leader", Value::Null).await;
    assert_eq!((&leader["leads"], &leader["replica"]), (&json!("false"), &json!("a")));
    rest.stop().await
}
