//! A Go shop: several services that write one JSON object per event.

use types::Severity::{self, Debug, Error, Info, Warn};

use super::{
    Facts,
    fill::fill,
    rng::{Rng, Zipf},
    stamp::Civil,
};

const SERVICES: [&str; 8] = ["checkout", "cart", "catalog", "payment", "search", "shipping", "account", "email"];

/// Severity, message, status and what else the event says, commonest first.
const FINE: [(Severity, &str, u16, &str); 13] = [
    (Info, "request served", 200, r#""method":"GET","path":"/api/v1/items/{id}""#),
    (Debug, "cache hit", 200, r#""key":"item:{id}","ttl_s":{small}"#),
    (Info, "cart updated", 200, r#""cart_id":"{hex}","items":{small}"#),
    (Info, "order placed", 201, r#""order_id":{id},"amount":{ms},"currency":"EUR""#),
    (Debug, "query executed", 200, r#""table":"{table}","rows":{small}"#),
    (Info, "payment authorised", 200, r#""order_id":{id},"provider":{"name":"acme-pay","attempt":1}"#),
    (Info, "session started", 200, r#""session":"{trace}","mfa":true"#),
    (Info, "message published", 202, r#""subject":"orders.{word}","bytes":{bytes}"#),
    (Info, "price recalculated", 200, r#""sku":"{word}-{small}","rules":["vat","season"]"#),
    (Warn, "slow dependency", 200, r#""dependency":"{workload}","threshold_ms":250"#),
    (Info, "user signed in", 200, r#""user":"{user}","remote":"{ip}:{port}""#),
    (Debug, "feature flag evaluated", 200, r#""flag":"new-{word}","enabled":false"#),
    (Info, "parcel label printed", 201, r#""parcel":"P{id}","weight_kg":{ms}"#),
];

const FAILING: [(Severity, &str, u16, &str); 7] = [
    (Error, "upstream request failed", 502, r#""upstream":"{workload}","error":"connection reset by peer""#),
    (Error, "payment declined by provider", 402, r#""order_id":{id},"error":"insufficient funds""#),
    (Warn, "retrying call", 503, r#""dependency":"{workload}","attempt":{small}"#),
    (Error, "context deadline exceeded", 504, r#""method":"POST","path":"/api/v1/orders/{id}""#),
    (Warn, "rate limit reached", 429, r#""remote":"{ip}:{port}""#),
    (Error, "database transaction rolled back", 500, r#""table":"{table}","error":"deadlock detected""#),
    (Error, "panic recovered", 500, r#""error":"index out of range [{small}]""#),
];

pub(super) fn line(rng: &mut Rng, zipf: &Zipf, time: Civil, failing: bool) -> (String, Facts) {
    let service = zipf.pick(rng, &SERVICES);
    let (severity, message, status, more) = zipf.pick(rng, if failing { &FAILING[..] } else { &FINE[..] });
    // A product of two draws has the long tail of latencies.
    let slowest = if failing { 90 } else { 22 };
    let duration = 1 + rng.below(slowest) * rng.below(slowest);
    let mut out = String::with_capacity(320);
    out.push_str(&format!(
        r#"{{"time":"{}","level":"{severity}","service":"{service}","msg":"{message}","trace_id":""#,
        time.rfc3339_nanos()
    ));
    fill(rng, r#"{trace}","#, &mut out);
    out.push_str(&format!(r#""duration_ms":{duration},"user_id":"#));
    fill(rng, "{id},", &mut out);
    out.push_str(&format!(r#""status":{status},"#));
    fill_json(rng, more, &mut out);
    out.push('}');
    let duration_ms = i64::try_from(duration).unwrap_or(0);
    (out, Facts { severity: Some(severity), service: Some(service), duration_ms })
}

/// Fills a template in which `{"` opens an object rather than a hole.
fn fill_json(rng: &mut Rng, template: &str, out: &mut String) {
    match template.split_once("{\"") {
        Some((before, object)) => {
            fill(rng, before, out);
            out.push_str("{\"");
            out.push_str(object);
        }
        None => fill(rng, template, out),
    }
}
