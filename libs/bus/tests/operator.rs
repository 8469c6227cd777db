//! Operator mode on a real server: what a binding may do, and how it ends.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::Duration;

use bus::{
    Bus, BusOptions, SystemClock,
    keys::{AccountSpec, Keyring, UserSpec, account_jwt, issue_creds, public_key},
};
use futures::StreamExt;
use support::{
    eventually,
    installation::{Installation, LANES, application, hears},
    soon,
};
use types::{Clock, LaneId};

#[tokio::test]
async fn a_binding_publishes_to_its_index_and_nowhere_else() {
    let place = Installation::begin();
    let front = place.front_door().await;
    let mut lanes = Vec::new();
    for n in 0..LANES {
        let mut lane = front.lane(LaneId(n)).await.unwrap();
        let front = front.clone();
        lanes.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(event) = lane.next().await {
                seen.push((n, event.index.to_string(), event.routing_key.as_ref().map(|k| k.as_str().to_owned())));
                if let Some(reply) = &event.reply {
                    if event.payload == "bad" {
                        front.refuse(reply, 503, 10077, "too much").await;
                    } else {
                        front.ack(reply, "shop", 100 + u64::from(n), event.message_id.is_some()).await;
                    }
                }
            }
            seen
        }));
    }
    let (creds, _) = place.binding("shop", "b1", "b1");
    let (client, mut told) = application(&place.server, &creds, "b1").await.unwrap();

    // JetStream's publish of an unmodified client, with and without a key.
    let stream = async_nats::jetstream::new(client.clone());
    let ack = stream.publish("logs.shop", "x".into()).await.unwrap().await.unwrap();
    assert!(ack.stream == "shop" && ack.sequence >= 100 && !ack.duplicate);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", "m1");
    headers.insert("Lb-Routing-Key", "other key");
    let publish = stream.publish_with_headers("logs.shop.cart", headers, "x".into()).await.unwrap();
    assert!(publish.await.unwrap().duplicate);
    for n in 0..20 {
        for _ in 0..3 {
            stream.publish(format!("logs.shop.k{n}"), "x".into()).await.unwrap().await.unwrap();
        }
    }
    let refused = stream.publish("logs.shop", "bad".into()).await.unwrap().await.unwrap_err();
    assert!(std::error::Error::source(&refused).unwrap().to_string().contains("too much"), "{refused:?}");

    // What is mapped is judged, and complained about, under the name that it is mapped to.
    for (subject, words) in [
        ("logs.other", ".other\""),
        ("logs.other.k", ".other.k\""),
        ("lane.0.other", "lane.0.other\""),
        ("lane.0.other.k", "lane.0.other.k\""),
        ("logs.shop.a.b", "logs.shop.a.b\""),
        ("alerts.shop.r", "alerts.shop.r\""),
        ("$JS.API.INFO", "$js.api.info\""),
    ] {
        client.publish(subject, "x".into()).await.unwrap();
        let complaint = hears(&mut told, "permissions violation for publish").await;
        assert!(complaint.ends_with(words), "{subject}: {complaint}");
    }
    for subject in ["lane.>", "logs.shop", "alerts.other.>", "_INBOX.b2.>", "_INBOX.>", ">"] {
        let _forbidden = client.subscribe(subject).await.unwrap();
        hears(&mut told, "permissions violation for subscription").await;
    }

    // Alerts reach it.
    front.ensure_alerts(1).await.unwrap();
    let mut alerts = client.subscribe("alerts.shop.>").await.unwrap();
    client.flush().await.unwrap();
    stream.publish("logs.shop", "sync".into()).await.unwrap().await.unwrap();
    front.publish_record("alerts.shop.r1", "t1", "fire".into()).await.unwrap();
    assert_eq!(soon("alert", alerts.next()).await.unwrap().payload, "fire");

    front.close().await;
    let mut seen = Vec::new();
    for lane in lanes {
        seen.extend(soon("lane to end", lane).await.unwrap());
    }
    assert!(seen.iter().all(|(_, index, _)| index == "shop"), "{seen:?}");
    assert!(seen.iter().any(|(_, _, key)| key.as_deref() == Some("other key")));
    let mut used = std::collections::BTreeSet::new();
    for n in 0..20 {
        let key = format!("k{n}");
        let of_key: Vec<u16> = seen.iter().filter(|s| s.2.as_ref() == Some(&key)).map(|s| s.0).collect();
        assert_eq!(of_key.len(), 3, "{key}");
        assert!(of_key.iter().all(|&lane| lane == of_key[0]), "{key} met several lanes");
        used.insert(of_key[0]);
    }
    assert_eq!(used.len(), usize::from(LANES), "keys spread over all lanes");
}

#[tokio::test]
async fn a_revoked_binding_is_cut_off_and_a_new_key_works() {
    let mut place = Installation::begin();
    let (old, key) = place.binding("shop", "b1", "b1/1");
    let (other, _) = place.binding("shop", "b2", "b2/1");
    let (client, mut told) = application(&place.server, &old, "b1").await.unwrap();
    let (bystander, _) = application(&place.server, &other, "b2").await.unwrap();
    client.publish("logs.shop", "x".into()).await.unwrap();

    place.revoke(&key, SystemClock.now()).await;
    hears(&mut told, "disconnected").await;
    eventually("refused", async || application(&place.server, &old, "b1").await.is_err()).await;
    assert_eq!(bystander.connection_state(), async_nats::connection::State::Connected);
    let refused =
        Bus::connect(BusOptions { url: place.server.url(), creds: Some(old.clone()), ..Default::default() }).await;
    assert!(refused.unwrap_err().to_string().contains("revoked"));

    let (new, _) = place.binding("shop", "b1", "b1/2");
    application(&place.server, &new, "b1").await.unwrap();

    // The preloaded claims of the configuration do not bring the old key back.
    place.server.kill();
    place.server.start();
    eventually("the new key works again", async || application(&place.server, &new, "b1").await.is_ok()).await;
    assert!(application(&place.server, &old, "b1").await.is_err());
}

#[tokio::test]
async fn the_accounts_are_apart_and_both_have_jetstream() {
    let place = Installation::begin();
    let creds = issue_creds(|key| UserSpec::platform("p", key), &place.ring.platform_seed, SystemClock.now()).unwrap();
    let platform = place.server.bus_with("coordinator/c-0", Some(creds), None).await;
    let front = place.front_door().await;
    let journal = platform.journal(wire::Service::Coordinator, 1).await.unwrap();
    assert_eq!(journal.append(0, "e1", vec![1]).await, Ok(1));
    let bucket = platform.bucket("lb_test", Some(Duration::from_secs(5)), 1).await.unwrap();
    bucket.put("k", "v").await.unwrap();
    front.ensure_alerts(1).await.unwrap();

    let mut heard = platform.subscribe_raw("alerts.>").await.unwrap();
    front.publish_record("alerts.shop.r1", "t1", "fire".into()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), heard.next()).await.is_err());

    let forged = account_jwt(
        &AccountSpec::tenants(public_key(&place.ring.tenants_seed).unwrap(), LANES, Vec::new()),
        &Keyring::generate(SystemClock.now()).unwrap().operator_seed,
        SystemClock.now(),
    )
    .unwrap();
    let creds = issue_creds(|key| UserSpec::system("s", key), &place.ring.system_seed, SystemClock.now()).unwrap();
    let system = place.server.bus_with("index-provisioner/p-0", Some(creds), None).await;
    // The server itself would store them and lock everybody out after its next start.
    assert!(matches!(system.push_account_claims(&forged).await, Err(bus::BusError::Refused { .. })));
    let account = AccountSpec::tenants(public_key(&place.ring.tenants_seed).unwrap(), LANES, Vec::new());
    let signed = |at| account_jwt(&account, &place.ring.operator_seed, at).unwrap();
    system.push_account_claims(&signed(SystemClock.now())).await.unwrap();
    let older = signed(SystemClock.now() - Duration::from_secs(30));
    assert!(matches!(system.push_account_claims(&older).await, Err(bus::BusError::Refused { .. })));
}
