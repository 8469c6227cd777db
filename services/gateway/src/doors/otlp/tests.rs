//! What exporters send.

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{self as common, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use types::{EVENT_BYTES_MAX, Severity};

use super::*;
use crate::doors::event::Identity;

const ROOM: Bounds = Bounds { events_max: 100, bytes_max: 4 << 20 };

fn events_of(body: impl AsRef<[u8]>, form: Form) -> Result<Batch, BodyError> {
    events(&Bytes::copy_from_slice(body.as_ref()), form, ROOM)
}

fn all(batch: &Batch) -> Vec<Json> {
    batch.events.iter().map(|event| serde_json::from_str(&ingest::raw::escape(&event.payload)).unwrap()).collect()
}

fn one(value: Value) -> common::AnyValue {
    common::AnyValue { value: Some(value) }
}

fn text(value: &str) -> common::AnyValue {
    one(Value::StringValue(value.to_owned()))
}

fn list(values: Vec<common::AnyValue>) -> common::AnyValue {
    one(Value::ArrayValue(common::ArrayValue { values }))
}

fn map(name: &str, value: common::AnyValue) -> common::AnyValue {
    one(Value::KvlistValue(common::KeyValueList { values: vec![pair(name, value)] }))
}

fn pair(name: &str, value: common::AnyValue) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// As the Python exporter writes it: one resource, one scope.
fn request(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope { name: "my.logger".into(), version: "1.0".into(), ..Default::default() };
    let scope = ScopeLogs { scope: Some(scope), log_records, ..Default::default() };
    let resource = Resource { attributes: vec![pair("service.name", text("shop"))], ..Default::default() };
    let resource = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }
}

/// A request with one record in bytes of whatever kind.
fn around(record: Vec<u8>) -> Vec<u8> {
    let scope = messages::ScopeLogs { scope: None, log_records: vec![record.into()] }.encode_to_vec();
    let resource = messages::ResourceLogs { resource: Bytes::new(), scope_logs: vec![scope.into()] }.encode_to_vec();
    messages::Request { resource_logs: vec![resource.into()] }.encode_to_vec()
}

fn record() -> LogRecord {
    LogRecord {
        time_unix_nano: 1_767_323_045_123_456_789,
        observed_time_unix_nano: 1_767_323_046_000_000_000,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(text("it broke")),
        attributes: vec![
            pair("n", one(Value::IntValue(-5))),
            pair("list", list(vec![text("a"), one(Value::IntValue(-5))])),
            pair("map", map("x", one(Value::DoubleValue(1.5)))),
            pair("level", text("debug")),
            pair("service.name", text("other")),
        ],
        trace_id: vec![0xab; 16],
        span_id: vec![0; 8],
        ..LogRecord::default()
    }
}

fn of(request: &ExportLogsServiceRequest) -> Batch {
    events_of(request.encode_to_vec(), Form::Protobuf).unwrap()
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
    let batch = of(&request(vec![record()]));
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
    let from_json = events_of(body.to_string(), Form::Json).unwrap();
    assert_eq!(all(&from_json), [expected()]);
    assert_eq!(from_json.events[0].key, batch.events[0].key);
    let received = Timestamp::from_millis(1);
    let record = ingest::parse(ingest::RawEvent { payload: &batch.events[0].payload, received });
    assert_eq!(record.severity, Some(Severity::Error), "the number decides, whatever an attribute says");
}

#[test]
fn bodies_of_every_kind() {
    let without_origin = |batch: &Batch| {
        assert_eq!(batch.events[0].identity, Identity::None, "it has no time");
        let mut found = all(batch).remove(0);
        let origin = ["service.name", "scope.name", "scope.version"];
        found.as_object_mut().unwrap().retain(|name, _| !origin.contains(&name.as_str()));
        found
    };
    let with = |body: Option<common::AnyValue>| {
        without_origin(&of(&request(vec![LogRecord { body, ..LogRecord::default() }])))
    };
    assert_eq!(with(Some(text("plain"))), json!({"_msg": "plain"}));
    assert_eq!(with(Some(text("{\"msg\":\"inner\",\"a\":1}"))), json!({"msg": "inner", "a": 1}));
    assert_eq!(with(Some(map("msg", text("m")))), json!({"msg": "m"}));
    assert_eq!(with(Some(one(Value::BoolValue(true)))), json!({"_msg": "true"}));
    assert_eq!(with(Some(one(Value::DoubleValue(f64::NAN)))), json!({"_msg": "\"NaN\""}));
    assert_eq!(with(Some(one(Value::BytesValue(b"\xff\x00".to_vec())))), json!({"_msg": "\"/wA=\""}));
    assert_eq!((with(None), with(Some(common::AnyValue::default()))), (json!({"_msg": ""}), json!({"_msg": ""})));
    // Fluent Bit sends what it was given, in whatever encoding.
    let latin = |bytes| Some(messages::AnyValue { kind: Some(messages::Kind::Text(Bytes::from_static(bytes))) });
    let attributes = vec![messages::KeyValue { key: Bytes::from_static(b"k\xff"), value: latin(b"v\xff") }];
    let bytes = messages::LogRecord { body: latin(b"a\xff"), attributes, ..Default::default() }.encode_to_vec();
    let found = without_origin(&events_of(around(bytes), Form::Protobuf).unwrap());
    assert_eq!(found, json!({"_msg": "a\u{f7ff}", "k\u{fffd}": "v\u{fffd}"}));
}

#[test]
fn a_body_with_many_members_is_read_once_and_the_first_counts() {
    let with = |body: &str| {
        let body = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{body}}}]}}]}}]}}");
        all(&events_of(body, Form::Json).unwrap())[0]["_msg"].clone()
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
        deep = list(vec![deep]);
    }
    let batch = of(&request(vec![LogRecord { body: Some(deep), ..LogRecord::default() }]));
    let text = all(&batch)[0]["_msg"].as_str().unwrap().to_owned();
    assert_eq!(text, format!("{}null{}", "[".repeat(33), "]".repeat(33)));
    let json = format!("{}1{}", "{\"arrayValue\":{\"values\":[".repeat(1_000), "]}}".repeat(1_000));
    let json = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{json}}}]}}]}}]}}");
    assert_eq!(all(&events_of(json, Form::Json).unwrap())[0]["_msg"], json!(text));
}

#[test]
fn what_is_too_large_is_told_and_the_others_stand() {
    let long = |bytes| LogRecord { body: Some(text(&"x".repeat(bytes))), ..LogRecord::default() };
    // One that is too long with its labels, and one that is so without them.
    let batch = of(&request(vec![record(), long(EVENT_BYTES_MAX - 50), long(2 << 20)]));
    assert_eq!((batch.events.len(), batch.refused_count), (1, 2));
    let answer = ExportLogsServiceResponse::decode(&*response(Form::Protobuf, &batch)).unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 2);
    assert!(partial.error_message.contains("of the largest event"), "{partial:?}");
    let said: Json = serde_json::from_slice(&response(Form::Json, &batch)).unwrap();
    assert_eq!(said["partialSuccess"]["rejectedLogRecords"], json!("2"));
    let whole = Batch::default();
    assert_eq!((response(Form::Protobuf, &whole), response(Form::Json, &whole)), (Vec::new(), b"{}".to_vec()));
    assert_eq!(status(Form::Protobuf, 3, "no"), [8, 3, 18, 2, b'n', b'o']);
}

#[test]
fn attributes_that_fit_no_event_are_not_read() {
    let mut request = request(vec![record(), record()]);
    let resource = request.resource_logs[0].resource.as_mut().unwrap();
    resource.attributes.push(pair("a", text(&"x".repeat(EVENT_BYTES_MAX))));
    request.resource_logs.push(ResourceLogs {
        scope_logs: vec![ScopeLogs { log_records: vec![record()], ..Default::default() }],
        ..Default::default()
    });
    let batch = of(&request);
    assert_eq!((batch.events.len(), batch.refused_count), (1, 2), "the records of another resource stand");
}

#[test]
fn severities_by_name() {
    let of = |text: &str| {
        let body =
            format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"severityNumber\":{text}}}]}}]}}]}}");
        all(&events_of(body, Form::Json).unwrap())[0]["severity_number"].clone()
    };
    let cases = [("13", json!(13)), ("\"13\"", json!(13)), ("\"SEVERITY_NUMBER_WARN2\"", json!(14)), ("0", Json::Null)];
    for (text, number) in cases.into_iter().chain([("\"SEVERITY_NUMBER_WARN9\"", Json::Null), ("99", Json::Null)]) {
        assert_eq!(of(text), number, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for body in [bytes.clone(), around(bytes)] {
            for form in [Form::Protobuf, Form::Json] {
                if let Ok(batch) = events_of(&body, form) {
                    prop_assert!(batch.events.len() <= body.len());
                }
            }
        }
    }
}
