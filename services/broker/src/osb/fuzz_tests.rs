//! The checks before every route, with whatever comes: each gives an answer that a client can read.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    catalog::{BUILT_IN, Catalog},
    desk::Asked,
    osb::{Answer, Body, HEADERS, Request, canonical, gate},
};

/// A refusal that every client can read.
fn check(refusal: &Answer) -> Result<(), TestCaseError> {
    prop_assert!((400..500).contains(&refusal.status), "{}", refusal.status);
    let body: Value = serde_json::from_str(&refusal.body).unwrap();
    for key in ["error", "description"] {
        let text = body[key].as_str().unwrap_or_default();
        prop_assert!(!text.is_empty() && text.chars().count() <= 255, "{}", refusal.body);
    }
    Ok(())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_head_is_admitted_or_refused(
        method in "[A-Z]{1,8}",
        path in prop_oneof![any::<String>(), "(/(v2|catalog|service_instances|service_bindings|last_operation|%[0-9a-f]{2}|[^/]{0,9})){0,6}"],
        query in any::<String>(),
        headers in prop::collection::vec(prop_oneof!["2\\.1[0-9]", any::<String>()], 4),
    ) {
        let headers: BTreeMap<_, _> = HEADERS.iter().map(|name| (*name).to_owned()).zip(headers).collect();
        let request = Request { method, path, query, headers, body: Bytes::new(), ..Request::default() };
        for field in ["operation", "service_id"] {
            drop(request.query(field));
        }
        if let Err(refusal) = request.accepts_incomplete() {
            check(&refusal)?;
        }
        match Asked::admit(request) {
            Ok(asked) => prop_assert!(asked.version.minor >= 11),
            Err(refusal) => check(&refusal)?,
        }
    }

    #[test]
    fn every_body_is_an_object_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), value in json()) {
        for bytes in [bytes, value.to_string().into_bytes()] {
            let body = match Body::parse(&bytes) {
                Ok(body) => body,
                Err(refusal) => {
                    check(&refusal)?;
                    continue;
                }
            };
            let refusals = [body.required("a").err(), body.object("b").err(), body.parameters().err(), body.names_app().err()];
            refusals.iter().flatten().try_for_each(check)?;
        }
        let text = canonical(&value);
        prop_assert_eq!(&canonical(&serde_json::from_str(&text).unwrap()), &text, "canonical is canonical");
    }

    #[test]
    fn every_parameter_fits_or_is_refused_by_its_path(parameters in json()) {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        let small = catalog.find("0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10", "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01").unwrap();
        let checks = [small.check_provision(&parameters), small.check_update(&parameters), small.check_bind(&parameters)];
        for complaint in checks.into_iter().filter_map(Result::err) {
            prop_assert!(complaint.starts_with("parameters"), "{complaint}");
        }
    }

    #[test]
    fn every_answer_stays_an_object_behind_the_gate(body in json(), minor in 11u32..20) {
        let body = if body.is_object() { body } else { serde_json::json!({ "metadata": body }) };
        let gated = gate(Answer::of(200, &body), crate::Version { minor });
        prop_assert!(serde_json::from_str::<Value>(&gated.body).unwrap().is_object());
    }
}
