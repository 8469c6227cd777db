//! What has no end: lines of a megabyte, ten thousand keys, keys that change type, times far away. All of it is taken, at
//! a cost that is named, and nothing of it is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, TimestampNanosecondType},
};
use ingest::{
    BASE_COLUMNS, COLUMNS_MAX, FIELD_NAME_BYTES_MAX, FIELDS_MAX, REST_COLUMN, RawEvent, Record, Source, Value, Window,
    conform, merge_schemas, parse,
    template::{Dictionary, LINE_BYTES_MAX, WHOLE},
    to_batch,
};
use types::{EVENT_BYTES_MAX, SegmentId, Timestamp};

const SEGMENT: SegmentId = SegmentId { stream: 7, epoch: 1, number: 3 };
/// 2026-01-02 03:04:05 UTC.
const RECEIVED: Timestamp = Timestamp::from_millis(1_767_323_045_000);

/// What an envelope adds to the fields of its line: stream, time, whether it goes on, and 32 attributes.
const ENVELOPE_FIELDS_MAX: usize = 35;

fn event(payload: &[u8]) -> RawEvent<'_> {
    RawEvent { payload, received: RECEIVED }
}

fn batch<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> RecordBatch {
    to_batch(SEGMENT, 0, payloads.into_iter().map(event))
}

/// The bytes that a record holds.
fn size(record: &Record<'_>) -> usize {
    let of = |value: &Value<'_>| if let Value::Text(text) = value { text.len() } else { size_of::<Value<'_>>() };
    record.message.len() + record.fields.iter().map(|(name, value)| name.len() + of(value)).sum::<usize>()
}

/// The largest event that begins with `head`, goes on with what `part` gives for 0, 1, 2, …, and ends with `tail`.
fn largest(head: &str, tail: &str, part: impl Fn(usize) -> String) -> Vec<u8> {
    let mut line = head.to_owned();
    for number in 0.. {
        let next = part(number);
        if line.len() + next.len() + tail.len() > EVENT_BYTES_MAX {
            break;
        }
        line.push_str(&next);
    }
    (line + tail).into_bytes()
}

#[test]
fn the_largest_events_of_every_format_are_taken_whole() {
    let same = |part: &'static str| move |_| part.to_owned();
    for payload in [
        largest("", "", same("x")),
        largest("", "", same("2026-01-02 03:04:05 ERROR ")),
        largest("2026-01-02 03:04:05 ERROR failed", "", same("\n\tat a.B.c(B.java:1)")),
        largest("{\"msg\":\"", "\"}", same("x")),
        largest("{\"msg\":\"", "\"}", same("\\u00e9\\n")),
        largest("{\"a\":1", "}", |n| format!(",\"key{n}\":{n}")),
        largest("{\"a\":[1", "]}", same(",[{}]")),
        largest("{\"a\":{\"b\":{\"c\":1", "}}}", |n| format!(",\"k{n}\":{{\"x\":{n}}}")),
        largest("{\"a\":", "", same("{\"a\":")),
        largest("ts=2026-01-02T03:04:05Z", "", |n| format!(" k{n}={n}")),
        largest("a=1 b=2", "", same(" c=3 d=4 stray")),
        largest("<34>1 2026-01-02T03:04:05Z h a 1 - [id", "] said", |n| format!(" p{n}=\"{n}\"")),
        largest("<34>Jan  2 03:04:05 host app[1]: ", "", same("error ")),
        largest("E0102 03:04:05.000001       1 a.go:1] \"m\"", "", |n| format!(" k{n}=\"{n}\"")),
        largest("1.2.3.4 - - [02/Jan/2026:03:04:05 +0000] \"GET /", " HTTP/1.1\" 200 1", same("x")),
        largest("2026-01-02T03:04:05Z stdout F {\"a\":1", "}", |n| format!(",\"key{n}\":{n}")),
        largest("{\"log\":\"", "\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}", same("\\u00e9")),
        vec![0xff; EVENT_BYTES_MAX],
        "\u{f7e9}".repeat(EVENT_BYTES_MAX / 3).into_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        assert!(payload.len() <= EVENT_BYTES_MAX && payload.len() > EVENT_BYTES_MAX - 64, "{shown}");
        let record = parse(event(&payload));
        assert!(
            record.fields.len() <= FIELDS_MAX + 1 + ENVELOPE_FIELDS_MAX,
            "{} fields of {shown}",
            record.fields.len()
        );
        // A byte that is no text takes three; a line and its fields hold it twice.
        let most = payload.len() * 4 + FIELDS_MAX * FIELD_NAME_BYTES_MAX;
        assert!(size(&record) <= most, "{} bytes of {shown}", size(&record));
        assert_eq!(Source::new(Window::ANY).parse(event(&payload)), record, "{shown}");
        let rows = batch([payload.as_slice()]);
        assert_eq!((rows.num_rows(), rows["_msg"].as_string::<i32>().value(0)), (1, record.message.as_ref()));
        let mut dictionary = Dictionary::default();
        let mined = dictionary.learn(&record.message);
        let (pattern, variables) = (mined.pattern, mined.variables().collect::<Vec<_>>());
        assert_eq!(pattern == WHOLE, record.message.len() > LINE_BYTES_MAX, "{shown}");
        assert_eq!(dictionary.pattern(pattern).unwrap().rebuild(variables).as_deref(), Some(record.message.as_ref()));
    }
}

#[test]
fn ten_thousand_keys_are_a_thousand_columns_and_the_rest() {
    let payloads: Vec<_> = (0..2_000)
        .map(|row| {
            let members: Vec<_> = (0..5).map(|n| format!("\"key{}\":{n}", row * 5 + n)).collect();
            format!("{{{},\"msg\":\"m\"}}", members.join(",")).into_bytes()
        })
        .collect();
    let rows = batch(payloads.iter().map(Vec::as_slice));
    assert_eq!((rows.num_rows(), rows.num_columns()), (2_000, COLUMNS_MAX));
    let mut seen = BTreeSet::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()).skip(BASE_COLUMNS.len()) {
        if field.name() != REST_COLUMN {
            assert_eq!((field.data_type(), column.len() - column.null_count()), (&DataType::Int64, 1));
            seen.insert(field.name().clone());
        }
    }
    for text in rows[REST_COLUMN].as_string::<i32>().iter().flatten() {
        let rest: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        for (name, value) in rest {
            let number: i64 = name.strip_prefix("key").unwrap().parse().unwrap();
            assert_eq!(value, number % 5);
            assert!(seen.insert(name), "each is in one place");
        }
    }
    assert_eq!(seen.len(), 10_000);
}

/// Every order of the items.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut others = items.to_vec();
        let first = others.remove(at);
        all.extend(orders(&others).into_iter().map(|rest| [vec![first.clone()], rest].concat()));
    }
    all
}

#[test]
fn a_key_that_changes_type_keeps_every_value_in_whatever_order_they_come() {
    let values = ["1", "2.5", "true", "\"x\"", "[1]"];
    let expected = |value: &str| value.trim_matches('"').to_owned();
    for order in orders(&values) {
        let payloads: Vec<_> = order.iter().map(|value| format!("{{\"v\":{value},\"msg\":\"m\"}}")).collect();
        let together = batch(payloads.iter().map(String::as_bytes));
        // As it is when each lies in a chunk of its own.
        let apart: Vec<_> = payloads.iter().map(|payload| batch([payload.as_bytes()])).collect();
        let schemas: Vec<_> = apart.iter().map(RecordBatch::schema).collect();
        let schema = Arc::new(merge_schemas(schemas.iter().map(AsRef::as_ref)));
        assert_eq!(schema, together.schema(), "{order:?}");
        for (row, value) in order.iter().enumerate() {
            let alone = conform(&apart[row], &schema).unwrap();
            assert_eq!(alone["v"].as_string::<i32>().value(0), expected(value), "{order:?}");
            // Whole numbers that met decimal ones before they met a text have a point.
            let found = together["v"].as_string::<i32>().value(row);
            assert!(found == expected(value) || found == format!("{value}.0"), "{found} in {order:?}");
        }
    }
}

#[test]
fn times_far_away_are_believed_by_one_window_and_kept_as_text_by_the_other() {
    const SECOND: i64 = 1_000_000_000;
    for (payload, nanos) in [
        ("1970-01-01T00:00:00Z x", Some(0)),
        ("2100-01-01 00:00:00,000 INFO x", Some(4_102_444_800 * SECOND)),
        ("[01/Jan/2100:00:00:00 +0000] x", Some(4_102_444_800 * SECOND)),
        (r#"{"ts":4102444800,"msg":"x"}"#, Some(4_102_444_800 * SECOND)),
        (r#"{"ts":4102444800000,"msg":"x"}"#, Some(4_102_444_800 * SECOND)),
        (r#"{"ts":9223372036854775807,"msg":"x"}"#, Some(i64::MAX)),
        // Too small to be told from a count, beyond what 64 bits of nanoseconds hold, and before all logs.
        (r#"{"ts":0,"msg":"x"}"#, None),
        (r#"{"ts":-1,"msg":"x"}"#, None),
        (r#"{"ts":1e300,"msg":"x"}"#, None),
        ("2263-01-01T00:00:00Z x", None),
        ("9999-12-31T23:59:59Z x", None),
        ("1969-12-31 23:59:59 x", None),
        ("0001-01-01T00:00:00Z x", None),
    ] {
        let believed = nanos.map_or(RECEIVED, Timestamp::from_nanos);
        let record = parse(event(payload.as_bytes()));
        assert_eq!(record.time, believed, "{payload}");
        let rows = batch([payload.as_bytes()]);
        assert_eq!(rows["_time"].as_primitive::<TimestampNanosecondType>().value(0), believed.nanos());
        assert_eq!(rows["_received"].as_primitive::<TimestampNanosecondType>().value(0), RECEIVED.nanos());
        let careful = Source::new(Window::SANE).parse(event(payload.as_bytes()));
        assert_eq!(careful.time, RECEIVED, "{payload}");
        assert!(careful.message == payload || careful.field("ts").is_some(), "{payload} still says what it said");
    }
}

/// A source is as large after a million lines as before the first: it holds nothing that grows.
#[test]
fn what_is_kept_of_a_source_has_a_fixed_size() {
    fn is_plain<T: Copy>(_: &T) -> usize {
        size_of::<T>()
    }
    assert!(is_plain(&Source::new(Window::SANE)) <= 64);
}
