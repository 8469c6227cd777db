//! The fields of one event: names, limits, and which keys mean time, message and severity.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use types::{LogRecord, Severity, Timestamp, Value};

use crate::{severity, time};

/// The most fields of one event; what comes later goes to [`REST_COLUMN`].
pub const FIELDS_MAX: usize = 200;

/// The longest field name in bytes; a field with a longer one goes to [`REST_COLUMN`].
pub const FIELD_NAME_BYTES_MAX: usize = 256;

/// The column that keeps, as the text of one JSON object, the fields that no column of their own holds.
pub const REST_COLUMN: &str = "_attrs";

/// Keys with a meaning, best first within each kind.
const KNOWN: [&str; 17] = [
    "_time",
    "time",
    "timestamp",
    "ts",
    "@timestamp",
    "_msg",
    "msg",
    "message",
    "log",
    "severity",
    "level",
    "lvl",
    "levelname",
    "severity_text",
    "log.level",
    "loglevel",
    "severity_number",
];
const TIMES: std::ops::Range<usize> = 0..5;
const MESSAGES: std::ops::Range<usize> = 5..9;
const SEVERITIES: std::ops::Range<usize> = 9..17;

fn known(name: &str) -> Option<usize> {
    let candidate = matches!(name.as_bytes().first(), Some(b'_' | b'@' | b't' | b'm' | b'l' | b's'));
    if candidate { KNOWN.iter().position(|key| *key == name) } else { None }
}

/// Collects the fields of one event; of a name given twice the last value stays.
#[derive(Default)]
pub(crate) struct Fields {
    map: BTreeMap<String, Value>,
    known: [Option<Value>; KNOWN.len()],
    rest: Map<String, Json>,
}

/// What to take where no key says it.
pub(crate) struct Fallback<'a> {
    pub(crate) time: Option<Timestamp>,
    pub(crate) received: Timestamp,
    pub(crate) message: &'a str,
}

impl Fields {
    pub(crate) fn insert(&mut self, name: &str, value: Value) {
        match known(name) {
            Some(rank) => self.known[rank] = Some(value),
            None => self.keep(name, value),
        }
    }

    fn keep(&mut self, name: &str, value: Value) {
        if name.len() <= FIELD_NAME_BYTES_MAX {
            let column = column_name(name);
            if let Some(slot) = self.map.get_mut(column.as_ref()) {
                *slot = value;
                return;
            }
            if self.map.len() < FIELDS_MAX {
                self.map.insert(column.into_owned(), value);
                return;
            }
        }
        self.rest.insert(name.to_owned(), to_json(value));
    }

    /// Makes the record: takes time, message and severity out of their keys and closes the fields.
    pub(crate) fn finish(mut self, fallback: &Fallback<'_>) -> LogRecord {
        let time = TIMES.into_iter().find_map(|rank| {
            let time = read_time(self.known[rank].as_ref()?, fallback.received)?;
            self.known[rank] = None;
            Some(time)
        });
        let message = MESSAGES.into_iter().find_map(|rank| match self.known[rank].take() {
            Some(Value::Text(text)) => Some(text),
            other => {
                self.known[rank] = other;
                None
            }
        });
        let severity = self.severity();
        for (rank, name) in KNOWN.iter().enumerate() {
            if let Some(value) = self.known[rank].take() {
                self.keep(name, value);
            }
        }
        if !self.rest.is_empty() {
            let text = Json::Object(std::mem::take(&mut self.rest)).to_string();
            self.map.insert(REST_COLUMN.to_owned(), Value::Text(text));
        }
        let message = message.map_or_else(|| fallback.message.to_owned(), trim_end);
        LogRecord {
            time: time.or(fallback.time).unwrap_or(fallback.received),
            severity: severity.or_else(|| severity::in_text(&message, false)),
            message,
            fields: self.map,
        }
    }

    fn severity(&mut self) -> Option<Severity> {
        let (rank, found) = SEVERITIES
            .into_iter()
            .find_map(|rank| read_severity(KNOWN[rank], self.known[rank].as_ref()?).map(|found| (rank, found)))?;
        // The column of that name says it; the spelling of `level` and its kin is worth keeping.
        if KNOWN[rank] == "severity" && matches!(self.known[rank], Some(Value::Text(_))) {
            self.known[rank] = None;
        }
        Some(found)
    }
}

fn trim_end(mut text: String) -> String {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text
}

fn read_time(value: &Value, received: Timestamp) -> Option<Timestamp> {
    match value {
        Value::Int(number) => time::epoch(*number),
        Value::Float(number) => time::epoch_float(*number),
        Value::Text(text) => time::whole(text, received),
        Value::Bool(_) => None,
    }
}

fn read_severity(key: &str, value: &Value) -> Option<Severity> {
    match value {
        Value::Text(text) => text.parse().ok(),
        Value::Int(number) if key == "severity_number" => severity::of_otel(*number),
        Value::Int(number) => severity::of_level(*number),
        Value::Float(_) | Value::Bool(_) => None,
    }
}

/// The column of a field: names that begin with `_`, and `severity`, belong to the platform, so `_x` becomes
/// `field_x`, `severity` becomes `field_severity` and the empty name `field_`.
fn column_name(name: &str) -> std::borrow::Cow<'_, str> {
    if name.starts_with('_') {
        format!("field{name}").into()
    } else if name == "severity" || name.is_empty() {
        format!("field_{name}").into()
    } else {
        name.into()
    }
}

pub(crate) fn to_json(value: Value) -> Json {
    match value {
        Value::Bool(flag) => flag.into(),
        Value::Int(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Text(text) => text.into(),
    }
}
