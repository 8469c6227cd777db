//! What agents of other log stores send, and senders of syslog.

use std::collections::BTreeMap;

use bytes::Bytes;
use ingest::{RawEvent, parse};
use serde_json::Value;
use types::{EVENT_BYTES_MAX, Timestamp};

use crate::{
    doors::{
        elastic,
        event::{Batch, BodyError, Bounds},
        hec, jsonline, loki, otlp,
    },
    syslog::{
        frame::{Framer, MESSAGE_BYTES_MAX, Piece},
        token::{self, Token},
    },
};

/// Small, so that what is too much is met.
const BOUNDS: Bounds = Bounds { events_max: 64, bytes_max: 16 << 10 };

/// Every event is one JSON object that the platform understands, within the bounds; a refusal says why.
fn check(read: Result<&Batch, &BodyError>) {
    let batch = match read {
        Ok(batch) => batch,
        Err(BodyError::Malformed(why) | BodyError::TooMuch(why)) => return assert!(!why.is_empty()),
    };
    assert!(batch.events.len() <= BOUNDS.events_max);
    assert!(batch.events.iter().map(|event| event.payload.len()).sum::<usize>() <= BOUNDS.bytes_max);
    assert!(u64::try_from(batch.refused.len()).is_ok_and(|named| named <= batch.refused_count));
    assert!(batch.refused.iter().all(|refused| !refused.why.is_empty()));
    for event in &batch.events {
        assert!(event.payload.len() <= EVENT_BYTES_MAX);
        let text = ingest::raw::escape(&event.payload);
        assert!(serde_json::from_str::<BTreeMap<String, Value>>(&text).is_ok(), "{text}");
        let received = Timestamp::from_nanos(1_795_341_600_000_000_000);
        drop(parse(RawEvent { payload: &event.payload, received }));
    }
}

/// A body of Loki's push, as JSON and as a protocol buffer.
pub fn door_loki(data: &[u8]) {
    for form in [loki::Form::Json, loki::Form::Protobuf] {
        check(loki::events(&Bytes::copy_from_slice(data), form, BOUNDS).as_ref());
    }
}

/// A body of Elasticsearch's bulk: each action is answered in its place.
pub fn door_elastic(data: &[u8]) {
    let bulk = elastic::bulk(&Bytes::copy_from_slice(data), Some("i"), BOUNDS);
    check(bulk.as_ref().map(|bulk| &bulk.batch));
    if let Ok(bulk) = bulk {
        let answer: Value =
            serde_json::from_slice(&elastic::answer(&bulk.items, 1, "i", |n| n.to_string())).expect("JSON");
        assert_eq!(answer["items"].as_array().map(Vec::len), Some(bulk.items.len()));
        let refused = bulk.items.iter().filter(|item| item.refused.is_some()).count();
        assert_eq!(bulk.batch.events.len() + refused, bulk.items.len());
        drop(elastic::one_index(&bulk.items, None));
    }
}

/// A body of Splunk's event collector, as objects and as raw lines.
pub fn door_hec(data: &[u8]) {
    for read in [hec::events, hec::raw] {
        let taken = read(data, &hec::Defaults::default(), BOUNDS);
        check(taken.as_ref().map(|taken| &taken.batch));
        assert!(taken.is_err() || taken.is_ok_and(|taken| taken.bad.is_some() == (taken.batch.refused_count > 0)));
    }
}

/// A body of OpenTelemetry, as JSON and as a protocol buffer.
pub fn door_otlp(data: &[u8]) {
    for form in [otlp::Form::Json, otlp::Form::Protobuf] {
        let batch = otlp::events(&Bytes::copy_from_slice(data), form, BOUNDS);
        check(batch.as_ref());
        if let Ok(batch) = batch {
            drop(otlp::response(form, &batch));
        }
    }
}

/// A line with the names of the members, and a body of lines of JSON.
pub fn door_jsonline(data: &[u8]) {
    let (names, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or_default());
    let names = String::from_utf8_lossy(names);
    let mut names = names.split('&');
    let mut next = || names.next().unwrap_or("_msg");
    let fields = jsonline::Fields::new(next(), next(), next(), next());
    check(jsonline::events(&Bytes::copy_from_slice(body), &fields, BOUNDS).as_ref());
}

/// A connection of syslog that comes in pieces of any size: the same messages, whatever the sizes; and of each its token.
pub fn syslog_stream(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let pieces = read_in(data, usize::from(*size).max(1));
    let (messages, whole) = read_in(data, data.len().max(1));
    assert!(pieces == (messages.clone(), whole));
    for Piece { text, goes_on: _ } in messages {
        assert!(!text.is_empty() && text.len() <= MESSAGE_BYTES_MAX);
        let length = text.len();
        let (kept, token) = token::taken(text);
        assert!(kept.len() <= length && token != Token::Given(String::new()));
    }
}

fn read_in(data: &[u8], size: usize) -> (Vec<Piece>, bool) {
    let (mut framer, mut messages) = (Framer::new(), Vec::new());
    for piece in data.chunks(size) {
        framer.buffer().extend_from_slice(piece);
        loop {
            match framer.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    match framer.finish() {
        Ok(rest) => {
            messages.extend(rest);
            (messages, true)
        }
        Err(_) => (messages, false),
    }
}
