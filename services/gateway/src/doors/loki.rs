//! Loki's push, translated: streams of lines under labels.

mod messages;

use std::borrow::Cow;

use bytes::Bytes;
use ingest::raw;
use serde_json::value::RawValue;
use types::{EVENT_BYTES_MAX, Timestamp};

use super::{
    event::{Batch, BodyError, Bounds, Draft, Events, Labels, Message},
    json::{each, members, shown},
    protobuf::decode,
};

/// What is said of what fits no event.
const LARGER: &str = "larger than the largest event, 1 MiB";

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Also that of the legacy path.
    Json,
    /// `PushRequest`, out of its snappy block.
    Protobuf,
}

/// The lines of a push. A line is one event; its labels and metadata are fields, and the labels its routing key.
pub(crate) fn events(body: &Bytes, form: Form, bounds: Bounds) -> Result<Batch, BodyError> {
    match form {
        Form::Json => {
            let text = raw::escape(body);
            let mut events = Events::of_text(&text, body, bounds);
            members(&text, |name, value| match name.as_ref() {
                "streams" => each(value.get(), |stream| json_stream(&mut events, stream.get())),
                _ => Ok(()),
            })?;
            Ok(events.finish())
        }
        Form::Protobuf => {
            let mut events = Events::new(bounds);
            let push: messages::PushRequest = decode(body.clone())?;
            push.streams.into_iter().try_for_each(|stream| stream_of(&mut events, stream))?;
            Ok(events.finish())
        }
    }
}

/// `{"stream": {..}, "values": [[ns, line, {metadata}?]]}`, or as it once was: `{"labels": "{..}", "entries": [{ts, line}]}`.
fn json_stream(events: &mut Events, stream: &str) -> Result<(), BodyError> {
    let (mut labels, mut wrong) = (Labels::default(), None);
    let (mut values, mut entries) = (None, None);
    members(stream, |name, value| {
        match name.as_ref() {
            "stream" => add(&mut labels, value)?,
            "labels" => wrong = label_text(&shown(value), &mut labels).err(),
            "values" => values = Some(value),
            "entries" => entries = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    let mut adds = Adds { events, key: labels.key(), labels: &labels, wrong };
    if let Some(values) = values {
        each(values.get(), |value| adds.value(value))?;
    }
    if let Some(entries) = entries {
        each(entries.get(), |entry| adds.entry(entry))?;
    }
    Ok(())
}

/// Adds the members of an object to labels.
fn add(labels: &mut Labels<'_>, object: &RawValue) -> Result<(), BodyError> {
    members(object.get(), |name, value| {
        labels.text(&name, &shown(value));
        Ok(())
    })
}

/// Adds the lines of one stream.
struct Adds<'e, 'l> {
    events: &'e mut Events,
    labels: &'l Labels<'l>,
    key: Option<super::event::Key>,
    /// What is wrong with the labels.
    wrong: Option<String>,
}

impl Adds<'_, '_> {
    fn value(&mut self, value: &RawValue) -> Result<(), BodyError> {
        let (mut place, mut time, mut line) = (0, None, None);
        let mut own = Labels::beside(self.labels);
        each(value.get(), |part| {
            match place {
                0 => time = Some(shown(part)),
                1 => line = Some(part),
                2 if part.get() != "null" => add(&mut own, part)?,
                _ => {}
            }
            place += 1;
            Ok(())
        })?;
        let (Some(time), Some(line)) = (time, line) else {
            return self.events.refuse("a value is a time and a line");
        };
        match time.parse() {
            Ok(nanos) => self.push(Timestamp::from_nanos(nanos), shown(line).as_bytes(), &own),
            Err(_) => self.events.refuse(format_args!("{time:?} is no time in nanoseconds")),
        }
    }

    fn entry(&mut self, entry: &RawValue) -> Result<(), BodyError> {
        let (mut time, mut line) = (Cow::Borrowed(""), Cow::Borrowed(""));
        members(entry.get(), |name, value| {
            match name.as_ref() {
                "ts" | "timestamp" => time = shown(value),
                "line" => line = shown(value),
                _ => {}
            }
            Ok(())
        })?;
        let nanos = time.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        match nanos {
            Some(nanos) => self.push(Timestamp::from_nanos(nanos), line.as_bytes(), &Labels::beside(self.labels)),
            None => self.events.refuse(format_args!("{time:?} is no time")),
        }
    }

    fn push(&mut self, time: Timestamp, line: &[u8], own: &Labels<'_>) -> Result<(), BodyError> {
        if let Some(wrong) = &self.wrong {
            return self.events.refuse(wrong);
        }
        let (message, key) = (Message::Line(line), self.key.as_ref());
        let draft = Draft { time: Some(time), labels: own, message, key };
        self.events.push(&draft, None).map(|_| ())
    }
}

fn stream_of(events: &mut Events, stream: Bytes) -> Result<(), BodyError> {
    let messages::Stream { labels: text, entries } = decode(stream)?;
    let mut labels = Labels::default();
    let wrong = match text.len() <= EVENT_BYTES_MAX {
        true => label_text(&String::from_utf8_lossy(&text), &mut labels).err(),
        false => Some(format!("its labels are {LARGER}")),
    };
    let mut adds = Adds { events, key: labels.key(), labels: &labels, wrong };
    entries.into_iter().try_for_each(|entry| entry_of(&mut adds, entry))
}

fn entry_of(adds: &mut Adds<'_, '_>, entry: Bytes) -> Result<(), BodyError> {
    if entry.len() > EVENT_BYTES_MAX {
        return adds.events.refuse(format_args!("it is {LARGER}"));
    }
    let messages::Entry { timestamp, line, metadata } = decode(entry)?;
    let messages::Time { seconds, nanos } = timestamp.unwrap_or_default();
    let mut own = Labels::beside(adds.labels);
    for pair in metadata {
        own.text(&String::from_utf8_lossy(&pair.name), &String::from_utf8_lossy(&pair.value));
    }
    match seconds.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos.into())) {
        Some(time) => adds.push(Timestamp::from_nanos(time), &line, &own),
        None => adds.events.refuse(format_args!("{seconds} s is no time between the years 1678 and 2261")),
    }
}

/// Reads `{name="value", …}` with the escapes of Go.
fn label_text(text: &str, labels: &mut Labels<'_>) -> Result<(), String> {
    let wrong = || {
        let shown: String = text.chars().take(100).collect();
        format!("{shown:?} are no labels; write {{name=\"value\"}}")
    };
    let mut rest = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?.trim();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or_else(wrong)?;
        let behind = behind.trim_start().strip_prefix('"').ok_or_else(wrong)?;
        let (value, behind) = unquoted(behind).ok_or_else(wrong)?;
        let name = name.trim().trim_matches('"');
        if name.is_empty() || name.contains(['{', '}', ',', '"']) {
            return Err(wrong());
        }
        labels.text(name, &value);
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return Err(wrong()),
        };
    }
    Ok(())
}

/// A string behind its opening quote, and what stands behind the closing one.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((String::from_utf8_lossy(&value).into_owned(), &text[at + 1..])),
            '\\' => {
                let (_, escape) = chars.next()?;
                let digits = match escape {
                    'n' => b'\n'.into(),
                    't' => b'\t'.into(),
                    'r' => b'\r'.into(),
                    'a' => 7.into(),
                    'b' => 8.into(),
                    'f' => 12.into(),
                    'v' => 11.into(),
                    '\\' | '"' | '\'' => u8::try_from(escape).ok()?.into(),
                    'x' => Escape::Digits(2),
                    'u' => Escape::Digits(4),
                    'U' => Escape::Digits(8),
                    // Some clients escape nothing but quotes.
                    other => {
                        value.push(b'\\');
                        value.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                };
                match digits {
                    Escape::Byte(byte) => value.push(byte),
                    Escape::Digits(count) => {
                        let digits: String = chars.by_ref().take(count).map(|(_, char)| char).collect();
                        let number = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == count)?;
                        match u8::try_from(number) {
                            // A byte of a text, not a character.
                            Ok(byte) if count == 2 => value.push(byte),
                            _ => value.extend_from_slice(char::from_u32(number)?.to_string().as_bytes()),
                        }
                    }
                }
            }
            other => value.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

enum Escape {
    Byte(u8),
    /// So many hexadecimal digits follow.
    Digits(usize),
}

impl From<u8> for Escape {
    fn from(byte: u8) -> Self {
        Self::Byte(byte)
    }
}

#[cfg(test)]
#[path = "loki_tests.rs"]
pub(crate) mod tests;
