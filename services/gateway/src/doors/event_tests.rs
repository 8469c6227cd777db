use super::*;

const ROOM: Bounds = Bounds { events_max: 10, bytes_max: 3 << 20 };

fn payload(batch: &Batch, at: usize) -> String {
    ingest::raw::escape(&batch.events[at].payload).into_owned()
}

fn shown(message: Message<'_>, time: Option<Timestamp>) -> String {
    let mut shared = Labels::default();
    shared.text("app", "a\"b");
    let mut own = Labels::beside(&shared);
    own.text("app", "c");
    let mut events = Events::new(ROOM);
    assert!(events.push(&Draft { time, labels: &own, message, key: None }, None).unwrap());
    payload(&events.finish(), 0)
}

#[test]
fn lines_become_objects() {
    let time = Some(Timestamp::from_nanos(1_767_323_045_123_456_789));
    for (line, expected) in [
        ("plain \u{1}\n", r#""_msg":"plain \u0001\n""#),
        ("{broken", r#""_msg":"{broken""#),
        (r#"{"level":30,"msg":"hi","app":{"x":1}}"#, r#""level":30,"msg":"hi","app_extracted":{"x":1}"#),
        (r#"{"a":1,"_time":2}"#, r#""_msg":"{\"a\":1,\"_time\":2}","a":1,"_time_extracted":2"#),
        (r#"{"_msg":1}"#, r#""_msg":"{\"_msg\":1}","_msg_extracted":1"#),
        ("{}", r#""_msg":"{}""#),
    ] {
        let expected =
            format!(r#"{{"_time":"2026-01-02T03:04:05.123456789Z","app":"a\"b","app_extracted":"c",{expected}}}"#);
        let found = shown(Message::Line(line.as_bytes()), time);
        assert_eq!(found, expected, "{line}");
        serde_json::from_str::<serde_json::Value>(&found).unwrap();
    }
    assert_eq!(
        shown(Message::Line(b"a\xffb"), None),
        "{\"app\":\"a\\\"b\",\"app_extracted\":\"c\",\"_msg\":\"a\u{f7ff}b\"}"
    );
    assert_eq!(shown(Message::Json("[1]"), None), r#"{"app":"a\"b","app_extracted":"c","_msg":"[1]"}"#);
}

#[test]
fn the_platform_understands_them() {
    let time = Timestamp::from_nanos(1_767_323_045_123_456_789);
    let received = Timestamp::from_millis(1);
    let json = shown(Message::Line(br#"{"level":"warn","time":1,"msg":"hi"}"#), Some(time));
    let record = ingest::parse(ingest::RawEvent { payload: json.as_bytes(), received });
    assert_eq!((record.time, record.message.as_ref(), record.severity), (time, "hi", Some(types::Severity::Warn)));
    let plain = shown(Message::Line(b"ERROR it broke"), None);
    let record = ingest::parse(ingest::RawEvent { payload: plain.as_bytes(), received });
    assert_eq!((record.time, record.message.as_ref()), (received, "ERROR it broke"));
    assert_eq!(record.field("app"), Some(&ingest::Value::Text("a\"b".into())));
}

#[test]
fn only_a_part_of_a_second_tells_events_apart() {
    let of = |text: &str| Identity::of_value(serde_json::from_str(text).unwrap());
    for dated in [
        "\"2026-01-02T03:04:05.25Z\"",
        "\"2026-01-02 03:04:05,250\"",
        "1767323045123",
        "1767323045.25",
        "\"1767323045.25\"",
        "1767323045123456789",
    ] {
        assert_eq!(of(dated), Identity::Dated, "{dated}");
    }
    let long = format!("\"{}2026-01-02T03:04:05.25Z\"", " ".repeat(100));
    for none in [
        "\"2026-01-02T03:04:05Z\"",
        "\"2026-01-02T03:04:05.000Z\"",
        "1767323045",
        "1767323045000",
        "1.5",
        "17",
        "true",
        "null",
        "\"0.25 s\"",
        "\"soon\"",
        "{\"time\":1767323045123}",
        "[1767323045123]",
        long.as_str(),
    ] {
        assert_eq!(of(none), Identity::None, "{none}");
    }
}

#[test]
fn bounds_hold() {
    let mut wide = Labels::default();
    wide.text("wide", &"x".repeat(1_000));
    let draft = |line| Draft { time: None, labels: &wide, message: Message::Line(line), key: None };
    let mut events = Events::new(Bounds { events_max: 3, bytes_max: 3 << 20 });
    let long = vec![b'x'; EVENT_BYTES_MAX - 500];
    assert!(!events.push(&draft(&long), None).unwrap());
    // Short enough until it is escaped.
    let dense = vec![1; EVENT_BYTES_MAX / 5];
    assert!(!events.push(&draft(&dense), None).unwrap());
    assert!(events.push(&draft(b"short"), None).unwrap());
    let refused = events.push(&draft(b"one more"), None).unwrap_err();
    assert!(matches!(&refused, BodyError::TooMuch(why) if why.contains("more than 3 events")), "{refused}");
    let batch = events.finish();
    assert_eq!((batch.events.len(), batch.refused_count), (1, 2));
    assert_eq!(batch.refused.iter().map(|refused| refused.number).collect::<Vec<_>>(), [0, 1]);

    let mut events = Events::new(Bounds { events_max: 1 << 20, bytes_max: 3 << 20 });
    let fit = (0..100).take_while(|_| events.push(&draft(&dense), None).is_ok()).count();
    assert_eq!((fit, events.count()), (2, 3), "what is written in vain counts");

    let mut events = Events::new(Bounds { events_max: 1 << 20, bytes_max: 10_000 });
    let fit = (0..100).take_while(|_| events.push(&draft(b""), None).is_ok()).count();
    assert_eq!(fit, 9, "each costs its labels");
    let mut events = Events::new(Bounds { events_max: 1 << 20, bytes_max: 10 });
    assert!(events.give(Bytes::from_static(b"{\"a\":1}"), Identity::None, None).unwrap());
    assert!(events.give(Bytes::from_static(b"{\"a\":1}"), Identity::None, None).is_err());
}
