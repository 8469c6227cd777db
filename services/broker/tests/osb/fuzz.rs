//! Requests that nobody would write, over HTTP: none is answered 5xx, each answer is a JSON object, and a refusal changes nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, answer, instance};

/// Requests that are made.
const REQUESTS: usize = 500;

/// One request.
#[derive(Debug, Clone)]
struct Odd {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        select(vec![
            json!(0),
            json!(-1),
            json!(315_360_001),
            json!(1.5),
            json!(1e300),
            json!(u64::MAX),
            json!(i64::MIN)
        ]),
        "\\PC{0,12}".prop_map(Value::from),
        select(vec![json!(""), json!("\u{0}"), json!("x".repeat(300)), json!("true"), json!(SERVICE), json!(SMALL)]),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec(("[a-z_]{0,10}", inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
    .boxed()
}

/// A right value for most fields of most bodies, and now and then anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let right = [
        ("service_id", json!(SERVICE)),
        ("plan_id", json!(SMALL)),
        ("organization_guid", json!("org")),
        ("space_guid", json!("space")),
        ("parameters", json!({})),
        ("context", json!({ "platform": "kubernetes" })),
        ("maintenance_info", json!({})),
        ("bind_resource", json!({})),
        ("previous_values", json!({})),
    ];
    let parameters =
        ["index", "segments", "retention_days", "max_bytes", "scaling", "reclaim_policy", "role", "ttl_seconds"];
    let changed: Vec<&str> = right.iter().map(|(key, _)| *key).chain(["predecessor_binding_id", "app_guid"]).collect();
    let fields = vec((select(changed), anything()), 0..3);
    let deep = vec((select(parameters.to_vec()), anything()), 0..3);
    let without = vec(select(right.iter().map(|(key, _)| *key).collect::<Vec<_>>()), 0..2);
    let object = (fields, deep, without, any::<bool>()).prop_map(move |(fields, deep, without, plan)| {
        let mut body: Map<String, Value> = right.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        if plan {
            body.insert("plan_id".into(), json!(STANDARD));
        }
        body.insert("parameters".into(), Value::Object(deep.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()));
        body.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
        without.iter().for_each(|key| drop(body.remove(*key)));
        Value::Object(body).to_string().into_bytes()
    });
    let object = object.boxed();
    let torn = object.clone().prop_flat_map(|text| (0..text.len()).prop_map(move |at| text[..at].to_vec()));
    prop_oneof![
        6 => object,
        1 => anything().prop_map(|value| value.to_string().into_bytes()),
        1 => torn,
        1 => vec(any::<u8>(), 0..200),
        1 => Just("[".repeat(5_000).into_bytes()),
    ]
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn path() -> impl Strategy<Value = String> {
    let id = prop_oneof![3 => select(vec!["i", "j", "k"]).prop_map(str::to_owned), 1 => "\\PC{1,9}".prop_map(|id| encoded(&id))];
    let bound =
        prop_oneof![3 => select(vec!["b", "c"]).prop_map(str::to_owned), 1 => "\\PC{1,9}".prop_map(|id| encoded(&id))];
    let right = (id, proptest::option::of(bound), prop::bool::weighted(0.15)).prop_map(|(id, bound, last)| {
        let bound = bound.map(|bound| format!("/service_bindings/{bound}")).unwrap_or_default();
        format!("/v2/service_instances/{id}{bound}{}", if last { "/last_operation" } else { "" })
    });
    let words =
        vec!["v2", "v1", "service_instances", "service_bindings", "last_operation", "catalog", "i", "", "%zz", "%"];
    let odd = vec(select(words), 0..6).prop_map(|words| format!("/{}", words.join("/")));
    let field = select(vec![
        "accepts_incomplete=true",
        "accepts_incomplete=false",
        "accepts_incomplete=maybe",
        "operation=x",
        "operation=%FF",
        "service_id=",
        "=&=&&",
        "%00=%00",
        concat!("service_id=0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10", "&plan_id=5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01"),
    ]);
    let path = prop_oneof![8 => right, 1 => odd, 1 => Just("/v2/catalog".to_owned())];
    (path, vec(field, 0..3)).prop_map(|(path, fields)| format!("{path}?{}", fields.join("&")))
}

fn odd_request() -> impl Strategy<Value = Odd> {
    let visible = || vec(prop_oneof![8 => 0x2b..0x7f_u8, 1 => 0x80..0xff_u8], 0..40);
    let version = prop_oneof![
        8 => Just(b"2.17".to_vec()),
        1 => select(vec!["2.11", "2.14", "", "2.9", "3.0", "2.99999999999", "2.-1"]).prop_map(|v| v.as_bytes().to_vec()),
        1 => visible(),
    ];
    let identity = prop_oneof![
        8 => Just(b"kubernetes eyJ1c2VybmFtZSI6ImR1a2UifQ==".to_vec()),
        1 => visible(),
    ];
    let method = select(vec!["GET", "PUT", "PUT", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "QUERY", "PURGE"]);
    (method, path(), version, identity, visible(), body()).prop_map(|(method, path, version, identity, other, body)| {
        Odd {
            method,
            path,
            headers: vec![
                ("X-Broker-API-Version", version),
                ("X-Broker-API-Originating-Identity", identity),
                ("X-Broker-API-Request-Identity", other.clone()),
                ("If-None-Match", other),
            ],
            body,
        }
    })
}

#[actix_rt::test]
async fn whatever_is_sent_is_answered_and_what_is_refused_changes_nothing() -> Result<()> {
    let f = Fixture::start().await?;
    // A leader answers from here on.
    assert_eq!(f.ask("GET", &instance("i"), None).await.0, 404);
    let journal = f.host.bus.journal(wire::Service::Broker, 1).await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut seen = BTreeMap::<u16, usize>::new();
    for _ in 0..REQUESTS {
        let odd = odd_request().new_tree(&mut runner).unwrap().current();
        let (before, backend) = (journal.last_seq().await?, f.backend.lock().unwrap().indexes.clone());
        let mut request = f.bare(0, odd.method, &odd.path).basic_auth("admin", Some("open sesame"));
        for (name, value) in &odd.headers {
            request = request.header(*name, reqwest::header::HeaderValue::from_bytes(value)?);
        }
        let (status, body) = answer(request.body(odd.body.clone()).timeout(SOON)).await;
        assert!(status < 500, "{odd:?}\nwas answered {status}: {body}");
        if status >= 400 {
            assert_eq!(journal.last_seq().await?, before, "{odd:?}\nwas refused with {status} and changed something");
            assert_eq!(f.backend.lock().unwrap().indexes, backend);
            let only = ["error", "description", "instance_usable", "update_repeatable"];
            assert!(body.as_object().unwrap().keys().all(|key| only.contains(&key.as_str())), "{body}");
            let word = body["error"].as_str().unwrap();
            assert!(word.chars().all(char::is_alphanumeric), "{word:?} is one word in camel case");
        }
        *seen.entry(status).or_default() += 1;
    }
    // The requests were not so odd that all of them met the same check.
    for status in [200, 201, 400, 404, 405, 410, 412] {
        assert!(seen.contains_key(&status), "no request was answered {status}: {seen:?}");
    }
    f.stop().await
}
