//! What exporters send.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use types::Severity;

use super::*;
use crate::doors::{
    event::Identity,
    protobuf::{Value, fields},
};

const ROOM: Bounds = Bounds { events_max: 100, bytes_max: 4 << 20 };

fn all(batch: &Batch) -> Vec<Json> {
    batch.events.iter().map(|event| serde_json::from_str(&ingest::raw::escape(&event.payload)).unwrap()).collect()
}

fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(field, bytes)| put_bytes(&mut out, *field, bytes));
    out
}

fn text(value: &str) -> Vec<u8> {
    message(&[(1, value.as_bytes())])
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    message(&[(1, name.as_bytes()), (2, value)])
}

fn fixed(out: &mut Vec<u8>, field: u8, nanos: u64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&nanos.to_le_bytes());
}

/// As the Python exporter writes it: one resource, one scope.
fn request(records: &[Vec<u8>]) -> Vec<u8> {
    let resource = message(&[(1, &pair("service.name", &text("shop")))]);
    let mut scope = message(&[(1, &message(&[(1, b"my.logger"), (2, b"1.0")]))]);
    records.iter().for_each(|record| put_bytes(&mut scope, 2, record));
    message(&[(1, &message(&[(1, &resource), (2, &scope)]))])
}

fn record() -> Vec<u8> {
    let mut out = Vec::new();
    fixed(&mut out, 1, 1_767_323_045_123_456_789);
    fixed(&mut out, 11, 1_767_323_046_000_000_000);
    put_field(&mut out, 2, 17);
    put_bytes(&mut out, 3, b"ERROR");
    put_bytes(&mut out, 5, &text("it broke"));
    let mut int = Vec::new();
    put_field(&mut int, 3, (-5_i64).cast_unsigned());
    let mut double = Vec::new();
    fixed(&mut double, 4, 1.5_f64.to_bits());
    let list = message(&[(5, &message(&[(1, &text("a")), (1, &int)]))]);
    let map = message(&[(6, &message(&[(1, &pair("x", &double))]))]);
    let attributes =
        [("n", &int), ("list", &list), ("map", &map), ("level", &text("debug")), ("service.name", &text("other"))];
    attributes.iter().for_each(|(name, value)| put_bytes(&mut out, 6, &pair(name, value)));
    put_bytes(&mut out, 9, &[0xab; 16]);
    put_bytes(&mut out, 10, &[0; 8]);
    out
}

fn expected() -> Json {
    json!({
        "_time": "2026-01-02T03:04:05.123456789Z", "service.name": "shop", "scope.name": "my.logger", "scope.version": "1.0",
        "severity": "error", "severity_number": 17, "severity_text": "ERROR", "trace_id": "ab".repeat(16), "n": -5,
        "list": ["a", -5], "map": {"x": 1.5}, "level": "debug", "service.name_extracted": "other", "_msg": "it broke",
    })
}

#[test]
fn both_forms_say_the_same() {
    let batch = events(&request(&[record()]), Form::Protobuf, ROOM).unwrap();
    assert_eq!(all(&batch), [expected()]);
    assert_eq!(batch.events[0].identity, Identity::Dated);
    let attribute = |name: &str, value: Json| json!({"key": name, "value": value});
    let body = json!({"resourceLogs": [{
        "scopeLogs": [{
            "logRecords": [{
                "timeUnixNano": "1767323045123456789", "observedTimeUnixNano": 1_767_323_046_000_000_000_u64,
                "severityNumber": "SEVERITY_NUMBER_ERROR", "severityText": "ERROR", "body": {"stringValue": "it broke"},
                "attributes": [
                    attribute("n", json!({"intValue": "-5"})),
                    attribute("list", json!({"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": -5}]}})),
                    attribute("map", json!({"kvlistValue": {"values": [attribute("x", json!({"doubleValue": 1.5}))]}})),
                    attribute("level", json!({"stringValue": "debug"})),
                    attribute("service.name", json!({"stringValue": "other"})),
                ],
                "traceId": "AB".repeat(16), "spanId": "0".repeat(16), "flags": 0,
            }],
            "scope": {"name": "my.logger", "version": "1.0"},
        }],
        "resource": {"attributes": [attribute("service.name", json!({"stringValue": "shop"}))]},
    }]});
    let from_json = events(body.to_string().as_bytes(), Form::Json, ROOM).unwrap();
    assert_eq!(all(&from_json), [expected()]);
    assert_eq!(from_json.events[0].key, batch.events[0].key);
    let received = Timestamp::from_millis(1);
    let record = ingest::parse(ingest::RawEvent { payload: &batch.events[0].payload, received });
    assert_eq!(record.severity, Some(Severity::Error), "the number decides, whatever an attribute says");
}

#[test]
fn bodies_of_every_kind() {
    let with = |body: Vec<u8>| {
        let batch = events(&request(&[message(&[(5, &body)])]), Form::Protobuf, ROOM).unwrap();
        assert_eq!(batch.events[0].identity, Identity::None, "it has no time");
        let mut found = all(&batch).remove(0);
        let origin = ["service.name", "scope.name", "scope.version"];
        found.as_object_mut().unwrap().retain(|name, _| !origin.contains(&name.as_str()));
        found
    };
    let flag = vec![2 << 3, 1];
    assert_eq!(with(text("plain")), json!({"_msg": "plain"}));
    assert_eq!(with(text("{\"msg\":\"inner\",\"a\":1}")), json!({"msg": "inner", "a": 1}));
    assert_eq!(with(message(&[(6, &message(&[(1, &pair("msg", &text("m")))]))])), json!({"msg": "m"}));
    assert_eq!(with(flag), json!({"_msg": "true"}));
    assert_eq!(with(message(&[(7, b"\xff\x00")])), json!({"_msg": "\"/wA=\""}));
    assert_eq!(with(message(&[(1, b"a\xff")])), json!({"_msg": "a\u{f7ff}"}));
    assert_eq!(with(Vec::new()), json!({"_msg": ""}));
}

#[test]
fn a_body_with_many_members_is_read_once_and_the_first_counts() {
    let with = |body: &str| {
        let body = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{body}}}]}}]}}]}}");
        all(&events(body.as_bytes(), Form::Json, ROOM).unwrap())[0]["_msg"].clone()
    };
    assert_eq!(with(r#"{"stringValue":"a","intValue":1}"#), json!("a"));
    assert_eq!(with(r#"{"intValue":1,"stringValue":"a"}"#), json!("1"));
    assert_eq!((with("{}"), with("null")), (json!(""), json!("")));
    // Read anew for each member this would take minutes.
    assert_eq!(with(&format!("{{{}\"b\":2}}", "\"a\":1,".repeat(50_000))), json!("1"));
}

#[test]
fn deep_values_end() {
    let mut deep = text("bottom");
    for _ in 0..1_000 {
        deep = message(&[(5, &message(&[(1, &deep)]))]);
    }
    let batch = events(&request(&[message(&[(5, &deep)])]), Form::Protobuf, ROOM).unwrap();
    let text = all(&batch)[0]["_msg"].as_str().unwrap().to_owned();
    assert_eq!(text, format!("{}null{}", "[".repeat(33), "]".repeat(33)));
    let json = format!("{}1{}", "{\"arrayValue\":{\"values\":[".repeat(1_000), "]}}".repeat(1_000));
    let json = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{json}}}]}}]}}]}}");
    assert_eq!(all(&events(json.as_bytes(), Form::Json, ROOM).unwrap())[0]["_msg"], json!(text));
}

#[test]
fn what_is_too_large_is_told_and_the_others_stand() {
    let long = message(&[(5, &text(&"x".repeat(2 << 20)))]);
    let batch = events(&request(&[record(), long]), Form::Protobuf, ROOM).unwrap();
    assert_eq!((batch.events.len(), batch.refused_count), (1, 1));
    let answer = response(Form::Protobuf, &batch);
    let Some(Ok((1, Value::Bytes(partial)))) = fields(&answer).next() else { panic!("{answer:?}") };
    let parts: Vec<_> = fields(partial).map(Result::unwrap).collect();
    assert_eq!(parts[0], (1, Value::Number(1)));
    let said: Json = serde_json::from_slice(&response(Form::Json, &batch)).unwrap();
    assert_eq!(said["partialSuccess"]["rejectedLogRecords"], json!("1"));
    let whole = Batch::default();
    assert_eq!((response(Form::Protobuf, &whole), response(Form::Json, &whole)), (Vec::new(), b"{}".to_vec()));
    assert_eq!(status(Form::Protobuf, 3, "no"), [8, 3, 18, 2, b'n', b'o']);
}

#[test]
fn severities_by_name() {
    let of = |text: &str| {
        let body =
            format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"severityNumber\":{text}}}]}}]}}]}}");
        all(&events(body.as_bytes(), Form::Json, ROOM).unwrap())[0]["severity_number"].clone()
    };
    let cases = [("13", json!(13)), ("\"13\"", json!(13)), ("\"SEVERITY_NUMBER_WARN2\"", json!(14)), ("0", Json::Null)];
    for (text, number) in cases.into_iter().chain([("\"SEVERITY_NUMBER_WARN9\"", Json::Null), ("99", Json::Null)]) {
        assert_eq!(of(text), number, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for body in [bytes.clone(), request(&[bytes])] {
            for form in [Form::Protobuf, Form::Json] {
                if let Ok(batch) = events(&body, form, ROOM) {
                    prop_assert!(batch.events.len() <= body.len());
                }
            }
        }
    }
}
