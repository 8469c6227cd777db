//! The fields of one event: names, limits, and which keys mean time, message and severity.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};
use types::{Severity, Timestamp};

use crate::{
    Record, Value,
    severity::{self, Scale},
    source::Context,
    time,
};

/// The most fields of one event; what comes later goes to [`REST_COLUMN`].
pub const FIELDS_MAX: usize = 200;

/// The longest field name in bytes; a field with a longer one goes to [`REST_COLUMN`].
pub const FIELD_NAME_BYTES_MAX: usize = 256;

/// The column that keeps, as the text of one JSON object, the fields that no column of their own holds.
pub const REST_COLUMN: &str = "_attrs";

/// Keys with a meaning, best first within each kind.
const KNOWN: [&str; 19] = [
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
    "PRIORITY",
    "priority",
];
/// The longest of them.
const KNOWN_BYTES_MAX: usize = 15;
const TIMES: std::ops::Range<usize> = 0..5;
const MESSAGES: std::ops::Range<usize> = 5..9;
const SEVERITIES: std::ops::Range<usize> = 9..19;

/// The place of a key in [`KNOWN`].
fn known(name: &str) -> Option<usize> {
    let first = *name.as_bytes().first()?;
    let candidate =
        matches!(first, b'_' | b'@' | b't' | b'm' | b'l' | b's' | b'p' | b'P') && name.len() <= KNOWN_BYTES_MAX;
    if candidate { KNOWN.iter().position(|key| key.len() == name.len() && *key == name) } else { None }
}

/// Fields for which there is room at once.
const FIELDS_EXPECTED: usize = 16;

/// Collects the fields of one event; of a name given twice the last value stays.
pub(crate) struct Fields<'a> {
    list: Vec<(Cow<'a, str>, Value<'a>)>,
    known: [Option<Value<'a>>; KNOWN.len()],
    rest: Map<String, Json>,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self { list: Vec::with_capacity(FIELDS_EXPECTED), known: Default::default(), rest: Map::new() }
    }
}

/// What to take where no key says it.
pub(crate) struct Fallback<'a> {
    pub(crate) time: Option<Timestamp>,
    pub(crate) message: &'a str,
}

impl<'a> Fields<'a> {
    pub(crate) fn insert(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        match known(&name) {
            Some(rank) => self.known[rank] = Some(value),
            None => self.keep(name, value),
        }
    }

    /// Whether the members of an object of that name become fields: else names could take far more room than the event.
    pub(crate) fn flattens(&self, name: &str) -> bool {
        name.is_empty() || (name.len() <= FIELD_NAME_BYTES_MAX && self.list.len() < FIELDS_MAX)
    }

    /// Keeps an object, or what is left of one, among the rest.
    pub(crate) fn keep_whole(&mut self, name: Cow<'a, str>, members: Map<String, Json>) {
        if !members.is_empty() {
            self.rest.insert(name.into_owned(), Json::Object(members));
        }
    }

    /// Keeps a field under its name whatever the name means elsewhere.
    pub(crate) fn keep(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        if name.len() > FIELD_NAME_BYTES_MAX {
            self.rest.insert(name.into_owned(), to_json(value));
            return;
        }
        let renamed = column_name(&name);
        let column = renamed.as_deref().unwrap_or(&name);
        if let Some((_, slot)) = self.list.iter_mut().find(|(known, _)| known.len() == column.len() && known == column)
        {
            *slot = value;
        } else if self.list.len() < FIELDS_MAX {
            self.list.push((renamed.map_or(name, Cow::Owned), value));
        } else {
            self.rest.insert(name.into_owned(), to_json(value));
        }
    }

    /// Makes the record: takes time, message and severity out of their keys and closes the fields.
    pub(crate) fn finish(mut self, fallback: &Fallback<'a>, context: &mut Context) -> Record<'a> {
        let time = TIMES.into_iter().find_map(|rank| {
            let time = context.admit(read_time(self.known[rank].as_ref()?, context.received)?)?;
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
        let time = time.or(fallback.time).or_else(|| context.leading(message.as_deref()?));
        let severity = self.severity(context.scale());
        for (rank, name) in KNOWN.into_iter().enumerate() {
            if let Some(value) = self.known[rank].take() {
                self.keep(Cow::Borrowed(name), value);
            }
        }
        let message = message.map_or(Cow::Borrowed(fallback.message), trim_end);
        Record {
            time: time.unwrap_or(context.received),
            severity: severity.or_else(|| severity::in_text(&message, false)),
            message,
            fields: self.close(),
        }
    }

    /// The fields kept so far, those without a column in [`REST_COLUMN`].
    pub(crate) fn close(mut self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        if !self.rest.is_empty() {
            let text = Json::Object(self.rest).to_string();
            self.list.push((Cow::Borrowed(REST_COLUMN), Value::Text(text.into())));
        }
        self.list
    }

    fn severity(&mut self, scale: &mut Scale) -> Option<Severity> {
        let (rank, found) = SEVERITIES.into_iter().find_map(|rank| {
            read_severity(KNOWN[rank], self.known[rank].as_ref()?, scale).map(|found| (rank, found))
        })?;
        // The column of that name says it; the spelling of `level` and its kin is worth keeping.
        if KNOWN[rank] == "severity"
            && matches!(&self.known[rank], Some(Value::Text(text)) if text.parse::<i64>().is_err())
        {
            self.known[rank] = None;
        }
        Some(found)
    }
}

fn trim_end(text: Cow<'_, str>) -> Cow<'_, str> {
    let ends = ['\n', '\r'];
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(ends)),
        Cow::Owned(mut text) => {
            text.truncate(text.trim_end_matches(ends).len());
            Cow::Owned(text)
        }
    }
}

fn read_time(value: &Value<'_>, received: Timestamp) -> Option<Timestamp> {
    match value {
        Value::Int(number) => time::epoch(*number),
        Value::Float(number) => time::epoch_float(*number),
        Value::Text(text) => time::whole(text, received),
        Value::Bool(_) => None,
    }
}

fn read_severity(key: &str, value: &Value<'_>, scale: &mut Scale) -> Option<Severity> {
    match value {
        // Syslog's scale, as journald writes it; other programs mean other things by a priority.
        Value::Int(number) if key.eq_ignore_ascii_case("priority") => severity::of_syslog(*number),
        Value::Text(text) => match text.parse() {
            Ok(number) => read_severity(key, &Value::Int(number), scale),
            Err(_) => text.parse().ok(),
        },
        Value::Int(number) if key == "severity_number" => severity::of_otel(*number),
        Value::Int(number) => scale.read(*number),
        Value::Float(_) | Value::Bool(_) => None,
    }
}

/// The column of a field, where it has another name: names that begin with `_`, and `severity`, belong to the platform, so
/// `_x` becomes `field_x`, `severity` becomes `field_severity` and the empty name `field_`.
fn column_name(name: &str) -> Option<String> {
    if name.starts_with('_') {
        Some(format!("field{name}"))
    } else if name == "severity" || name.is_empty() {
        Some(format!("field_{name}"))
    } else {
        None
    }
}

/// A JSON value as a field: lists and objects as their text.
pub(crate) fn to_field(value: Json) -> Value<'static> {
    match value {
        Json::Bool(flag) => Value::Bool(flag),
        Json::String(text) => Value::Text(text.into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(decimal)) if !number.is_u64() => Value::Float(decimal),
            _ => Value::Text(number.to_string().into()),
        },
        other => Value::Text(other.to_string().into()),
    }
}

pub(crate) fn to_json(value: Value<'_>) -> Json {
    match value {
        Value::Bool(flag) => flag.into(),
        Value::Int(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Text(text) => text.into(),
    }
}
