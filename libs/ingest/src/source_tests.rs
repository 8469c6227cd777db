//! Sources, windows and envelopes.

use proptest::prelude::*;
use types::{Severity, Timestamp};

use crate::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, RawEvent, Record, Source, Value, Window, parse, raw};

/// 2026-01-02 03:04:05 UTC.
const T: Timestamp = Timestamp::from_millis(1_767_323_045_000);
const NEAR: Timestamp = Timestamp::from_millis(1_767_323_045_250);

fn read(payload: &str) -> Record<'_> {
    parse(RawEvent { payload: payload.as_bytes(), received: NEAR })
}

fn check(payload: &str, time: Timestamp, severity: Option<Severity>, message: &str, fields: &[(&str, Value<'_>)]) {
    let record = read(payload);
    assert_eq!((record.time, record.severity, record.message.as_ref()), (time, severity, message), "{payload}");
    for (name, value) in fields {
        assert_eq!(record.field(name), Some(value), "{name} of {payload}");
    }
    assert!(fields.len() == record.fields.len(), "{payload}: {:?}", record.fields);
}

#[test]
fn envelopes_of_container_runtimes() {
    let out = ("stream", Value::from("stdout"));
    check("2026-01-02T03:04:05.000Z stdout F said", T, None, "said", std::slice::from_ref(&out));
    check("2026-01-02T04:04:05+01:00 stderr F", T, None, "", &[("stream", "stderr".into())]);
    check(
        "2026-01-02T03:04:05.25Z stdout F 2026-01-02 03:04:05,000 WARN slow",
        T,
        Some(Severity::Warn),
        "2026-01-02 03:04:05,000 WARN slow",
        &[out.clone(), ("envelope_time", Value::Int(NEAR.nanos()))],
    );
    check(
        r#"2026-01-02T03:04:05Z stdout F {"level":"error","msg":"m","stream":"video"}"#,
        T,
        Some(Severity::Error),
        "m",
        &[("level", "error".into()), ("stream", "video".into())],
    );
    // The line states another time far from its envelope's: it speaks of something else, or its clock is wrong.
    check(
        "2026-01-02T03:04:05Z stdout F 2019-05-05 01:01:01 x",
        T,
        None,
        "2019-05-05 01:01:01 x",
        std::slice::from_ref(&out),
    );
    check(
        r#"2026-01-02T03:04:05Z stdout F {"ts":"2019-05-05T01:01:01Z","msg":"x"}"#,
        T,
        None,
        "x",
        &[out.clone(), ("ts", "2019-05-05T01:01:01Z".into())],
    );
    check("2026-01-02T03:04:05Z stdout P half", T, None, "half", &[out.clone(), ("partial", Value::Bool(true))]);
    check(
        r#"{"log":"{\"n\":1,\"level\":\"warn\"}\n","stream":"stdout","time":"2026-01-02T03:04:05Z","attrs":{"tag":"x"}}"#,
        T,
        Some(Severity::Warn),
        r#"{"n":1,"level":"warn"}"#,
        &[out, ("n", Value::Int(1)), ("level", "warn".into()), ("attrs.tag", "x".into())],
    );
    // Not an envelope after all: an object like any other.
    check(
        r#"{"log":"said\n","stream":"stdout","time":"2026-01-02T03:04:05Z","kubernetes":{"pod":"p"}}"#,
        T,
        None,
        "said",
        &[("stream", "stdout".into()), ("kubernetes.pod", "p".into())],
    );
}

/// A shipper that knows nothing of its lines sends them as they are.
#[test]
fn a_message_may_begin_with_the_time_that_no_key_states() {
    for (payload, time) in [
        (r#"{"log":"2026-01-02 03:04:05,000 WARN slow","host":"h"}"#, T),
        (r#"{"message":"[Fri Jan 02 03:04:05.000 2026] [error] x"}"#, T),
        (r#"{"message":"2020-05-05 01:01:01 x","@timestamp":"2026-01-02T03:04:05Z"}"#, T),
        (r#"{"message":"restored the copy of 2020-05-05 01:01:01"}"#, NEAR),
        (r#"{"message":"1767323045 bytes came"}"#, NEAR),
        (r#"{"message":"1767323045.5 s"}"#, NEAR),
        (r#"{"2020-05-05T01:01:01Z":1}"#, NEAR),
        ("b=2020-05-05T01:01:01Z c=1", NEAR),
    ] {
        assert_eq!(read(payload).time, time, "{payload}");
    }
    let late = r#"{"message":"2019-05-05 01:01:01 x"}"#;
    assert_eq!(Source::new(Window::SANE).parse(RawEvent { payload: late.as_bytes(), received: NEAR }).time, NEAR);
}

#[test]
fn structured_data_of_syslog() {
    let line = r#"<165>1 2026-01-02T03:04:05Z h app - ID47 [ex@1 iut="3" t="a \"b\" \] \c"][o@1] text"#;
    check(
        line,
        T,
        Some(Severity::Info),
        line,
        &[
            ("host", "h".into()),
            ("app", "app".into()),
            ("msgid", "ID47".into()),
            ("ex@1.iut", "3".into()),
            ("ex@1.t", r#"a "b" ] \c"#.into()),
        ],
    );
    let nil = "<11>1 - - - - - -";
    check(nil, NEAR, Some(Severity::Error), nil, &[]);
    let odd = "<14>1 2026-01-02T03:04:05Z h a 1 - [broken text";
    check(odd, T, Some(Severity::Info), odd, &[("host", "h".into()), ("app", "a".into()), ("pid", Value::Int(1))]);
    let dated = "<14>2026-01-02T03:04:05Z h a[1]: x";
    check(dated, T, Some(Severity::Info), dated, &[("host", "h".into()), ("app", "a".into()), ("pid", Value::Int(1))]);
}

#[test]
fn what_an_envelope_holds_is_bounded() {
    let params = |count: usize| (0..count).map(|n| format!(" p{n}=\"\"")).collect::<String>();
    let line = format!("<14>1 - h a 1 - [{}{}] x", "i".repeat(200), params(5_000));
    let record = read(&line);
    let size: usize = record.fields.iter().map(|(name, value)| name.len() + format!("{value:?}").len()).sum();
    assert!(size < FIELDS_MAX * FIELD_NAME_BYTES_MAX && record.fields.len() == FIELDS_MAX, "{size}");
    assert_eq!(record.message, line);
    assert_eq!(read(&format!("<14>1 - h a 1 - [{}{}] x", "i".repeat(2_000), params(9))).fields.len(), 3);
    let attrs = (0..5_000).map(|n| format!("\"a{n}\":1")).collect::<Vec<_>>().join(",");
    let line = format!(r#"{{"log":"x\n","stream":"stdout","time":"2026-01-02T03:04:05Z","attrs":{{{attrs}}}}}"#);
    let record = read(&line);
    assert_eq!((record.message.as_ref(), record.time), ("x", T));
    assert!(record.fields.len() <= FIELDS_MAX + 1);
}

#[test]
fn times_outside_the_window_are_not_believed_and_not_lost() {
    let mut source = Source::new(Window::SANE);
    let mut check = |payload: &str, time: Timestamp, field: Option<(&str, &str)>| {
        let record = source.parse(RawEvent { payload: payload.as_bytes(), received: NEAR });
        assert_eq!(record.time, time, "{payload}");
        if let Some((name, value)) = field {
            assert_eq!(record.field(name), Some(&Value::from(value)), "{payload}");
        } else {
            assert_eq!(record.message, payload);
        }
    };
    check("2026-01-02 03:04:05 x", T, None);
    check("2025-12-01 03:04:05 x", NEAR, None);
    check("2026-01-02 04:04:05 from the future", NEAR, None);
    check(r#"{"ts":"2100-01-02T03:04:05Z","msg":"x"}"#, NEAR, Some(("ts", "2100-01-02T03:04:05Z")));
    check(r#"{"ts":"2026-01-02T03:04:05Z","n":"x"}"#, T, Some(("n", "x")));
    check("1970-01-02 03:04:05 a=1 b=2 msg=said", NEAR, None);
    check("10.0.0.1 - - [01/Jan/2020:03:04:05 +0000] \"GET / HTTP/1.1\" 200 1", NEAR, Some(("method", "GET")));
}

#[test]
fn numeric_levels_are_read_by_source() {
    let level = |source: &mut Source, number: i64| {
        let payload = format!("{{\"level\":{number},\"msg\":\"m\"}}");
        source.parse(RawEvent { payload: payload.as_bytes(), received: NEAR }).severity
    };
    let (mut pino, mut otel) = (Source::new(Window::ANY), Source::new(Window::ANY));
    assert_eq!(level(&mut pino, 30), Some(Severity::Info));
    assert_eq!(level(&mut otel, 9), Some(Severity::Info));
    assert_eq!((level(&mut pino, 20), level(&mut otel, 20)), (Some(Severity::Debug), Some(Severity::Error)));
    assert_eq!(read(r#"{"PRIORITY":"4","MESSAGE":"m"}"#).severity, Some(Severity::Warn));
    assert_eq!(read(r#"{"priority":"high","msg":"m"}"#).field("priority"), Some(&"high".into()));
}

proptest! {
    /// What a source has seen changes how fast a line is read, not what is read.
    #[test]
    fn a_source_reads_what_anyone_reads(lines in proptest::collection::vec(line(), 0..30)) {
        let mut source = Source::new(Window::ANY);
        for line in &lines {
            let event = RawEvent { payload: line, received: NEAR };
            prop_assert_eq!(source.parse(event), parse(event), "{}", String::from_utf8_lossy(line));
        }
    }

    /// The message of a text is the text; bytes that are none can be told.
    #[test]
    fn no_byte_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut text = b"~ ".to_vec();
        text.extend(&bytes);
        let record = parse(RawEvent { payload: &text, received: NEAR });
        let ends = text.iter().rev().take_while(|b| matches!(b, b'\n' | b'\r')).count();
        let back = raw::unescape(&record.message);
        prop_assert_eq!(back.as_ref(), &text[..text.len() - ends]);
    }

    /// Any bytes where parsers look closest.
    #[test]
    fn nothing_makes_it_fail(head in 0..HEADS.len(), cut in 0..60usize, tail in proptest::collection::vec(any::<u8>(), 0..60)) {
        let head = HEADS[head].as_bytes();
        let mut payload = head[..cut.min(head.len())].to_vec();
        payload.extend(tail);
        let mut source = Source::new(Window::SANE);
        for received in [Timestamp::MIN, Timestamp::default(), NEAR, Timestamp::MAX] {
            source.parse(RawEvent { payload: &payload, received });
        }
    }
}

const HEADS: [&str; 16] = [
    "2026-01-02T03:04:05.123Z stdout F 2026-01-02 03:04:05 x",
    "2026-01-02 03:04:05,123 INFO x",
    "[02/Jan/2026:03:04:05 +0000] \"GET / HTTP/1.1\" 200 1",
    "1.2.3.4 - - [02/Jan/2026:03:04:05 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"-\"",
    "<34>1 2026-01-02T03:04:05Z h a 1 - [x@1 a=\"b\"] m",
    "<34>Jan  2 03:04:05 host app[1]: error",
    "E0102 03:04:05.000001       1 a.go:1] \"m\" k=\"v\"",
    "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}",
    "{\"ts\":1767323045.5,\"level\":30,\"msg\":\"m\"}",
    "ts=2026-01-02T03:04:05Z level=warn a=\"b\"",
    "[Fri Jan 02 03:04:05.123 2026] [error] x",
    "Jan 2, 2026 3:04:05 AM x",
    "- 1767323045 2026.01.02 R02 FATAL x",
    "1767323045000 x",
    "01/02/2026 03:04:05 x",
    "(2026.01.02 03:04:05) x",
];

const PREFIXES: [&str; 8] = ["", "[", "- ", " ", "x ", "\n", "9", "(("];
const TAILS: [&[u8]; 5] = [b"", b" WARN y", b" 2026-01-02 03:04:05", b"\xe9", b"9"];

/// Levels in tens are the one thing that a source reads in its own way, and no head has others.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let parts = (0..PREFIXES.len(), 0..HEADS.len(), 0..TAILS.len());
    parts.prop_map(|(prefix, head, tail)| [PREFIXES[prefix].as_bytes(), HEADS[head].as_bytes(), TAILS[tail]].concat())
}
