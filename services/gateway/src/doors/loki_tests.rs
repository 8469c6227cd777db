//! What clients of Loki send.

use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value as Json, json};

use super::*;
use crate::doors::event::Identity;

const ROOM: Bounds = Bounds { events_max: 100, bytes_max: 1 << 20 };

fn all(batch: &Batch) -> Vec<Json> {
    batch.events.iter().map(|event| serde_json::from_str(&ingest::raw::escape(&event.payload)).unwrap()).collect()
}

fn taken(body: &str) -> Vec<Json> {
    let batch = events_of(body, Form::Json).unwrap();
    assert_eq!(batch.refused_count, 0, "{:?}", batch.refused);
    all(&batch)
}

/// Seconds, nanoseconds, line and metadata.
type Entry<'a> = (u64, u64, &'a [u8], &'a [(&'a str, &'a str)]);

/// As promtail writes it, not yet packed.
pub(crate) fn push_request(labels: &str, entries: &[Entry<'_>]) -> Vec<u8> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let pair = |(name, value): &(&str, &str)| messages::Pair { name: bytes(name), value: bytes(value) };
    let entry = |(seconds, nanos, line, metadata): &Entry<'_>| {
        let (seconds, nanos) = (i64::try_from(*seconds).unwrap(), i32::try_from(*nanos).unwrap());
        let metadata = metadata.iter().map(pair).collect();
        let timestamp = Some(messages::Time { seconds, nanos });
        messages::Entry { timestamp, line: Bytes::copy_from_slice(line), metadata }.encode_to_vec().into()
    };
    let stream = messages::Stream { labels: bytes(labels), entries: entries.iter().map(entry).collect() };
    // The number of the stream, which is not looked at.
    let stream = [stream.encode_to_vec(), vec![3 << 3, 17]].concat().into();
    messages::PushRequest { streams: vec![stream] }.encode_to_vec()
}

fn events_of(body: impl AsRef<[u8]>, form: Form) -> Result<Batch, BodyError> {
    events(&Bytes::copy_from_slice(body.as_ref()), form, ROOM)
}

#[test]
fn json_of_every_client() {
    // python-logging-loki
    let found = taken(
        r#"{"streams": [{"stream": {"logger": "app", "severity": "error", "version": "1"}, "values": [["1767323045123456789", "it broke"]]}]}"#,
    );
    let expected = json!({"_time": "2026-01-02T03:04:05.123456789Z", "logger": "app", "severity": "error", "version": "1", "_msg": "it broke"});
    assert_eq!(found, [expected]);
    // loki-logger-handler: unknown keys; metadata
    let found = taken(
        r#"{"streams":[{"stream":{"app":"a"},"values":[["1767323045000000000","x",{"trace_id":"7","app":"b"}]],"message_in_json_format":false,"loki_metadata":{}}]}"#,
    );
    let expected =
        json!({"_time": "2026-01-02T03:04:05Z", "app": "a", "trace_id": "7", "app_extracted": "b", "_msg": "x"});
    assert_eq!(found, [expected]);
    // pino-loki: lines are JSON
    let found = taken(
        r#"{"streams":[{"stream":{"app":"a"},"values":[["1767323045000000000","{\"level\":30,\"time\":1767323045000,\"msg\":\"hello\",\"req\":{\"id\":1}}"]]}]}"#,
    );
    let expected = json!({"_time": "2026-01-02T03:04:05Z", "app": "a", "level": 30, "time": 1_767_323_045_000_u64, "msg": "hello", "req": {"id": 1}});
    assert_eq!(found, [expected]);
    // What stands where is nobody's promise; numbers are taken as times too.
    let found = taken(r#"{"x":1,"streams":[{"values":[[1,"x"]],"stream":{"n":1}},{"stream":{},"values":null}]}"#);
    assert_eq!(found, [json!({"_time": "1970-01-01T00:00:00.000000001Z", "n": "1", "_msg": "x"})]);
    // The legacy path.
    let found =
        taken(r#"{"streams":[{"labels":"{app=\"a\"}","entries":[{"ts":"2026-01-02T04:04:05.5+01:00","line":"x"}]}]}"#);
    assert_eq!(found, [json!({"_time": "2026-01-02T03:04:05.5Z", "app": "a", "_msg": "x"})]);
    assert!(taken(r#"{"streams":[]}"#).is_empty());
}

#[test]
fn protobuf_as_promtail_sends_it() {
    let body = push_request(
        r#"{app="a", path="C:\\x\t\"y\"",utf="\u00e4\xc3\xa4"}"#,
        &[(1_767_323_045, 5, b"one", &[("trace", "t")]), (1_767_323_046, 0, b"t\xffwo", &[])],
    );
    let batch = events_of(&body, Form::Protobuf).unwrap();
    let labels = |more: Json| {
        let mut all = json!({"app": "a", "path": "C:\\x\t\"y\"", "utf": "ää"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(
        all(&batch),
        [
            labels(json!({"_time": "2026-01-02T03:04:05.000000005Z", "trace": "t", "_msg": "one"})),
            labels(json!({"_time": "2026-01-02T03:04:06Z", "_msg": "t\u{f7ff}wo"})),
        ]
    );
    let identities: Vec<_> = batch.events.iter().map(|event| event.identity).collect();
    assert_eq!(identities, [Identity::Dated, Identity::None], "of one whole second may be two that are alike");
    let other = events_of(push_request(r#"{app="b"}"#, &[(1, 0, b"x", &[])]), Form::Protobuf).unwrap();
    assert_eq!(batch.events[0].key, batch.events[1].key);
    assert_ne!(batch.events[0].key, other.events[0].key, "each stream keeps its own order");
}

#[test]
fn what_fits_no_event_is_refused_before_it_is_read() {
    let long = "x".repeat(EVENT_BYTES_MAX);
    let bodies = [
        push_request("{}", &[(1, 1, b"", &[("a", &long)]), (1, 1, b"y", &[])]),
        push_request(&format!("{{a=\"{long}\"}}"), &[(1, 1, b"x", &[])]),
    ];
    for (body, taken) in bodies.into_iter().zip([1, 0]) {
        let batch = events_of(body, Form::Protobuf).unwrap();
        assert_eq!((batch.events.len(), batch.refused_count), (taken, 1));
        assert!(batch.refused[0].why.contains("larger than the largest event"), "{:?}", batch.refused);
    }
}

#[test]
fn bytes_in_another_encoding_come_through() {
    let body = b"{\"streams\":[{\"stream\":{\"app\":\"caf\xe9\"},\"values\":[[\"1\",\"{\\\"msg\\\":\\\"\xff\\\"}\"],[\"2\",\"\xe4\xc3\xa4\"]]}]}";
    let batch = events_of(body, Form::Json).unwrap();
    assert!(batch.events[1].payload.ends_with(b"\"_msg\":\"\xe4\xc3\xa4\"}"));
    let found = all(&batch);
    assert_eq!([&found[0]["app"], &found[0]["msg"]], ["caf\u{f7e9}", "\u{f7ff}"]);
    assert_eq!(found[1]["_msg"], "\u{f7e4}ä");
}

#[test]
fn one_bad_line_does_not_take_the_others_along() {
    let body = json!({"streams": [
        {"stream": {}, "values": [["soon", "a"], ["1"], ["2", "good"], ["3", "x".repeat(2 << 20)]]},
        {"labels": "app=a", "entries": [{"ts": "2026-01-02T03:04:05Z", "line": "b"}]},
    ]});
    let batch = events(&body.to_string().into(), Form::Json, Bounds { bytes_max: 4 << 20, ..ROOM }).unwrap();
    assert_eq!((batch.events.len(), batch.refused_count), (1, 4));
    let why: Vec<_> = batch.refused.iter().map(|refused| (refused.number, refused.why.as_str())).collect();
    assert_eq!(why[0], (0, "\"soon\" is no time in nanoseconds"));
    assert_eq!(why[1], (1, "a value is a time and a line"));
    assert!(why[2].1.contains("of the largest event"), "{why:?}");
    assert_eq!(why[3], (4, "\"app=a\" are no labels; write {name=\"value\"}"));
}

#[test]
fn bodies_that_never_will_be_anything() {
    for wrong in ["", "{", "[]", r#"{"streams":{}}"#, r#"{"streams":[3]}"#, r#"{"streams":[{"values":[3]}]}"#] {
        assert!(matches!(events_of(wrong, Form::Json), Err(BodyError::Malformed(_))), "{wrong}");
    }
    assert!(matches!(events_of(b"{\"streams\"", Form::Protobuf), Err(BodyError::Malformed(_))));
    // Labels that are repeated in each line.
    let entries: [Entry<'_>; 50] = [(1, 1, b"", &[]); 50];
    let wide = push_request(&format!("{{a=\"{}\"}}", "x".repeat(50_000)), &entries);
    assert!(matches!(events_of(wide, Form::Protobuf), Err(BodyError::TooMuch(_))));
}

#[test]
fn label_texts() {
    for (text, fits) in [
        ("{}", true),
        (" { a = \"b\" , } ", true),
        (r#"{a="}{,="}"#, true),
        (r#"{"dotted.name"="b"}"#, true),
        ("", false),
        ("{", false),
        ("{a}", false),
        ("{a=b}", false),
        ("{a=\"b}", false),
        ("{=\"b\"}", false),
        ("{a=\"b\" c=\"d\"}", false),
        (r#"{a="C:\q"}"#, true),
        (r#"{a="\u12"}"#, false),
    ] {
        assert_eq!(label_text(text, &mut Labels::default()).is_ok(), fits, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,40}") {
        for form in [Form::Protobuf, Form::Json] {
            if let Ok(batch) = events_of(&bytes, form) {
                prop_assert!(batch.events.len() <= bytes.len());
            }
        }
        let body = push_request(&format!("{{a={text:?}}}"), &[(1, 1, text.as_bytes(), &[(&text, &text)])]);
        prop_assert!(events_of(&body, Form::Protobuf).is_ok());
    }
}
