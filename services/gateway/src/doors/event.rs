//! What a door makes of a body: events, each one JSON object, in one buffer.

use std::{borrow::Cow, collections::HashSet, ops::Range, sync::Arc};

use bytes::Bytes;
use ingest::raw;
use serde_json::value::RawValue;
use types::{EVENT_BYTES_MAX, RoutingKey, Timestamp, hash64};

use super::json::{self, is_text, quote, quote_bytes};

/// Events that were not taken and are named; others are only counted.
const REFUSED_NAMED_MAX: usize = 100;
/// What a name has behind it that is already taken by a label.
const EXTRACTED: &str = "_extracted";
/// The longest JSON value that is read as a time; no layout is as long.
const TIME_BYTES_MAX: usize = 64;
const NANOS: i64 = 1_000_000_000;
/// Names under which the platform looks for the text of an event.
const MESSAGES: [&str; 4] = ["_msg", "msg", "message", "log"];

/// Why a body is no list of events. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It never will be.
    #[error("{0}")]
    Malformed(String),
    /// Smaller ones are.
    #[error("{0}")]
    TooMuch(String),
}

impl BodyError {
    pub(crate) fn malformed(why: impl ToString) -> Self {
        Self::Malformed(why.to_string())
    }
}

/// What one body may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Events; each costs some 100 bytes besides its text.
    pub(crate) events_max: usize,
    /// Bytes of all events: labels are repeated in each, so that they can be many times the body. Those written for events that
    /// turned out too large count as well.
    pub(crate) bytes_max: usize,
}

/// By what a repeat of an event is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nothing: a repeat is another event.
    None,
    /// It carries its sender's own time, so that an equal body is the same body sent again.
    Dated,
    /// The sender gave it an id.
    Named(u128),
}

impl Identity {
    /// Of an event with, or without, its sender's own time.
    ///
    /// Only an instant with a part of a second tells events apart: two that are alike may well be of one whole second.
    pub(crate) fn of_time(time: Option<Timestamp>) -> Self {
        if time.is_some_and(|time| time.nanos() % NANOS != 0) { Self::Dated } else { Self::None }
    }

    /// Of an event that says its time in a member with this value.
    pub(crate) fn of_value(value: &RawValue) -> Self {
        if value.get().len() > TIME_BYTES_MAX {
            return Self::None;
        }
        let object = format!("{{\"_time\":{}}}", value.get());
        // What is no time becomes the time of receipt, and that is a whole second.
        let received = Timestamp::from_nanos(0);
        let time = ingest::parse(ingest::RawEvent { payload: object.as_bytes(), received }).time;
        Self::of_time(Some(time))
    }
}

/// Keeps the order of events that share it; clones share one.
pub(crate) type Key = Arc<RoutingKey>;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// One JSON object, whose texts may hold bytes that are not UTF-8.
    pub(crate) payload: Bytes,
    pub(crate) identity: Identity,
    pub(crate) key: Option<Key>,
}

/// An event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its place among the events of the body, from 0.
    pub(crate) number: usize,
    pub(crate) why: String,
}

/// The events of a body.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order of the body.
    pub(crate) events: Vec<Event>,
    /// The first of them that are too large or malformed.
    pub(crate) refused: Vec<Refused>,
    pub(crate) refused_count: u64,
}

/// Fields by name, as JSON; those that many events share are made once and stand beside those of each event.
#[derive(Debug, Default)]
pub(crate) struct Labels<'a> {
    beside: Option<&'a Labels<'a>>,
    names: HashSet<String>,
    json: Vec<u8>,
}

impl<'a> Labels<'a> {
    /// None yet, to stand in one event with those others.
    pub(crate) fn beside(others: &'a Labels<'a>) -> Self {
        Self { beside: Some(others), ..Self::default() }
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.beside.is_some_and(|others| others.has(name))
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.begin(name);
        quote(&mut self.json, value);
    }

    /// Adds what is JSON already.
    pub(crate) fn json(&mut self, name: &str, value: &str) {
        self.begin(name);
        self.json.extend_from_slice(value.as_bytes());
    }

    /// A name that is taken, or that is the platform's, becomes another one; taken twice, the last value counts.
    fn begin(&mut self, name: &str) {
        let taken = self.has(name) || matches!(name, "_time" | "_msg");
        let name = if taken { Cow::Owned(format!("{name}{EXTRACTED}")) } else { Cow::Borrowed(name) };
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        quote(&mut self.json, &name);
        self.json.push(b':');
        self.names.insert(name.into_owned());
    }

    /// Their bytes with all that they stand beside.
    fn bytes(&self) -> usize {
        self.json.len() + self.beside.map_or(0, Labels::bytes)
    }

    /// A key that keeps the order of all events with these labels, what they stand beside left out.
    pub(crate) fn key(&self) -> Option<Key> {
        RoutingKey::new(&format!("{:016x}", hash64(&self.json))).ok().map(Arc::new)
    }
}

/// The text of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message<'a> {
    /// A line. Where it is a JSON object its members become fields, as everywhere on the platform.
    Line(&'a [u8]),
    /// A JSON value.
    Json(&'a str),
}

/// An event to be.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// The sender's own time.
    pub(crate) time: Option<Timestamp>,
    pub(crate) labels: &'a Labels<'a>,
    pub(crate) message: Message<'a>,
    pub(crate) key: Option<&'a Key>,
}

#[derive(Debug)]
enum Place {
    Written(Range<usize>),
    Given(Bytes),
}

/// Gathers the events of one body.
#[derive(Debug)]
pub(crate) struct Events {
    bounds: Bounds,
    /// What is written holds characters that stand for bytes.
    unescapes: bool,
    out: Vec<u8>,
    given_bytes: usize,
    /// Written for events that turned out too large.
    wasted_bytes: usize,
    list: Vec<(Place, Identity, Option<Key>)>,
    refused: Vec<Refused>,
    refused_count: u64,
}

impl Events {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (list, refused) = (Vec::new(), Vec::new());
        Self {
            bounds,
            unescapes: false,
            out: Vec::new(),
            given_bytes: 0,
            wasted_bytes: 0,
            list,
            refused,
            refused_count: 0,
        }
    }

    /// Of a body that is read as the text which [`raw::escape`] makes of it: bytes that are not UTF-8 are bytes again in the events.
    pub(crate) fn of_text(text: &str, body: &[u8], bounds: Bounds) -> Self {
        // Whatever is escaped becomes longer.
        Self { unescapes: text.len() != body.len(), ..Self::new(bounds) }
    }

    /// Events so far, those included that were not taken.
    pub(crate) fn count(&self) -> usize {
        self.list.len() + usize::try_from(self.refused_count).unwrap_or(usize::MAX)
    }

    /// Takes note that the next event is not taken.
    pub(crate) fn refuse(&mut self, why: impl ToString) -> Result<(), BodyError> {
        let number = self.next()?;
        self.refused_count += 1;
        if self.refused.len() < REFUSED_NAMED_MAX {
            self.refused.push(Refused { number, why: why.to_string() });
        }
        Ok(())
    }

    /// The number of the next event. Errors: there are as many as there may be.
    fn next(&self) -> Result<usize, BodyError> {
        let (count, max) = (self.count(), self.bounds.events_max);
        if count >= max {
            return Err(BodyError::TooMuch(format!("the body has more than {max} events; send it in parts")));
        }
        Ok(count)
    }

    /// Adds an event that is one JSON object already; says whether it was taken.
    pub(crate) fn give(&mut self, payload: Bytes, identity: Identity, key: Option<Key>) -> Result<bool, BodyError> {
        if payload.len() > EVENT_BYTES_MAX {
            self.refuse(too_long(payload.len()))?;
            return Ok(false);
        }
        self.next()?;
        self.given_bytes += payload.len();
        self.list.push((Place::Given(payload), identity, key));
        self.within().map(|()| true)
    }

    /// Adds an event under the sender's id, or none; says whether it was taken.
    pub(crate) fn push(&mut self, draft: &Draft<'_>, named: Option<u128>) -> Result<bool, BodyError> {
        let text = match draft.message {
            Message::Line(line) => line.len(),
            Message::Json(value) => value.len(),
        };
        // Before anything is written: what is far too long would be written for nothing, for each event again.
        let least = text + draft.labels.bytes();
        if least > EVENT_BYTES_MAX {
            self.refuse(too_long(least))?;
            return Ok(false);
        }
        self.next()?;
        let start = self.out.len();
        write(&mut self.out, draft);
        if self.unescapes {
            let written = self.out.split_off(start);
            self.out.extend_from_slice(&raw::unescape(&String::from_utf8_lossy(&written)));
        }
        let length = self.out.len() - start;
        if length > EVENT_BYTES_MAX {
            self.out.truncate(start);
            self.wasted_bytes += length;
            self.refuse(too_long(length))?;
            return self.within().map(|()| false);
        }
        let identity = named.map_or_else(|| Identity::of_time(draft.time), Identity::Named);
        self.list.push((Place::Written(start..self.out.len()), identity, draft.key.cloned()));
        self.within().map(|()| true)
    }

    fn within(&self) -> Result<(), BodyError> {
        let max = self.bounds.bytes_max;
        if self.out.len() + self.given_bytes + self.wasted_bytes > max {
            let message = format!("the events of the body, each with its labels, exceed {max} bytes; send it in parts");
            return Err(BodyError::TooMuch(message));
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn finish(self) -> Batch {
        let out = Bytes::from(self.out);
        let event = |(place, identity, key)| {
            let payload = match place {
                Place::Written(range) => out.slice(range),
                Place::Given(payload) => payload,
            };
            Event { payload, identity, key }
        };
        let events = self.list.into_iter().map(event).collect();
        Batch { events, refused: self.refused, refused_count: self.refused_count }
    }
}

fn too_long(bytes: usize) -> String {
    format!("{bytes} bytes, labels included, are more than the {EVENT_BYTES_MAX} bytes of the largest event")
}

fn write(out: &mut Vec<u8>, draft: &Draft<'_>) {
    let mut object = Object { out, is_empty: true };
    object.out.push(b'{');
    if let Some(time) = draft.time {
        object.name("_time");
        quote(object.out, &rfc3339(time));
    }
    object.labels(draft.labels);
    match draft.message {
        Message::Line(line) => match std::str::from_utf8(line) {
            Ok(text) => object.line(text, draft),
            Err(_) => {
                object.name("_msg");
                quote_bytes(object.out, line);
            }
        },
        Message::Json(value) => object.line(value, draft),
    }
    object.out.push(b'}');
}

struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    fn comma(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }

    fn name(&mut self, name: &str) {
        self.comma();
        quote(self.out, name);
        self.out.push(b':');
    }

    fn labels(&mut self, labels: &Labels<'_>) {
        if let Some(others) = labels.beside {
            self.labels(others);
        }
        if !labels.json.is_empty() {
            self.comma();
            self.out.extend_from_slice(&labels.json);
        }
    }

    fn line(&mut self, text: &str, draft: &Draft<'_>) {
        let members = if text.trim_start().starts_with('{') { members_of(text) } else { None };
        let Some(members) = members else {
            self.name("_msg");
            quote(self.out, text);
            return;
        };
        let has_message = members.iter().any(|(name, value)| MESSAGES.contains(&name.as_ref()) && is_text(value));
        if !has_message {
            self.name("_msg");
            quote(self.out, text);
        }
        for (name, value) in members {
            let ours = (draft.time.is_some() && name == "_time") || (!has_message && name == "_msg");
            if ours || draft.labels.has(&name) {
                self.name(&format!("{name}{EXTRACTED}"));
            } else {
                self.name(&name);
            }
            self.out.extend_from_slice(value.get().as_bytes());
        }
    }
}

/// The members of a text that is one JSON object.
fn members_of(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut members = Vec::new();
    let read = json::members(text, |name, value| {
        members.push((name, value));
        Ok(())
    });
    read.ok().map(|()| members)
}

/// Exact to the nanosecond, and never mistaken for another unit.
fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
