//! The audit of every kind of change, with who wanted it.

use anyhow::Result;
use data_encoding::BASE64;
use serde_json::{Value, json};
use testkit::eventually;
use wire::{
    broker::{AuditEntry, Stage},
    decode, subjects,
};

use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, answer, bind_body, binding, ids, instance, provision_body};

async fn entries(f: &Fixture) -> Vec<AuditEntry> {
    let mut found = Vec::new();
    let Ok(mut reader) = f.host.bus.audit(subjects::AUDIT, |_| false).await else { return found };
    loop {
        let read = reader.read().await.unwrap_or_default();
        if read.is_empty() {
            return found;
        }
        found.extend(read.iter().map(|record| decode::<AuditEntry>(&record.payload).unwrap()));
    }
}

#[actix_rt::test]
async fn every_mutation_is_audited_with_its_identity() -> Result<()> {
    let f = Fixture::start().await?;
    assert_eq!(f.ask("GET", &instance("none"), None).await.0, 404);
    let (path, bound, rotated) = (instance("i"), binding("i", "b"), binding("i", "c"));
    let update = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let rotation = json!({ "predecessor_binding_id": "b" });
    let (unbind, end) = (format!("{bound}{}", ids(SMALL)), format!("{path}{}", ids(SMALL)));
    // Every kind of change, each taken and each refused.
    let mutations: Vec<(&str, &str, &str, Option<Value>, u16)> = vec![
        ("provision", "PUT", &path, Some(provision_body(json!({}))), 201),
        ("provision", "PUT", &path, Some(provision_body(json!({ "segments": 2 }))), 409),
        ("bind", "PUT", &bound, Some(bind_body(json!({}))), 201),
        ("bind", "PUT", &bound, Some(bind_body(json!({ "role": "read" }))), 409),
        ("bind", "PUT", &rotated, Some(rotation), 201),
        ("update", "PATCH", &path, Some(update), 200),
        ("update", "PATCH", &path, Some(json!({ "service_id": "other" })), 400),
        ("unbind", "DELETE", &unbind, None, 200),
        ("unbind", "DELETE", &unbind, None, 410),
        ("deprovision", "DELETE", &path, None, 400),
        ("deprovision", "DELETE", &end, None, 200),
        ("deprovision", "DELETE", &end, None, 410),
    ];
    let user = |number: usize| json!({ "username": format!("user-{number}") }).to_string();
    for (number, (action, method, url, body, status)) in mutations.iter().enumerate() {
        let identity = format!("kubernetes {}", BASE64.encode(user(number).as_bytes()));
        let mut request = f.request(0, method, url).header("X-Broker-API-Originating-Identity", identity);
        request = request.header("X-Broker-API-Request-Identity", format!("request-{number}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let (answered, said) = answer(request).await;
        assert_eq!(answered, *status, "{action} {method} {url}: {said}");
    }
    let count = mutations.len();
    eventually(SOON, async || entries(&f).await.len() == 2 * count).await;
    let all = entries(&f).await;
    for (number, (action, _, url, _, status)) in mutations.iter().enumerate() {
        let of: Vec<_> = all.iter().filter(|entry| entry.request_identity == format!("request-{number}")).collect();
        let [asked, answered] = of[..] else { panic!("{action} {url}: {of:?}") };
        assert_eq!((asked.stage, answered.stage, answered.status), (Stage::Asked, Stage::Answered, Some(*status)));
        for entry in of {
            assert_eq!((entry.action.as_str(), entry.instance.as_str()), (*action, "i"));
            assert_eq!((entry.platform.as_str(), &entry.user), ("kubernetes", &user(number)));
            assert_eq!((entry.credential.as_str(), entry.via.as_str()), ("admin", "osb"));
            let id = url.split("service_bindings/").nth(1).and_then(|rest| rest.split('?').next());
            assert_eq!(entry.binding.as_deref(), id, "{url}");
        }
    }
    f.stop().await
}
