//! Splunk's HTTP event collector, translated: JSON objects one behind the other, or raw lines.

use std::{borrow::Cow, collections::HashSet};

use ingest::{Joiner, Partials};
use serde_json::{Deserializer, value::RawValue};
use types::Timestamp;

use super::{
    event::{Batch, BodyError, Bounds, Draft, Events, Key, Labels, Message},
    json::{each, is_text, members, seconds, shown},
};

/// What Splunk answers, by its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Success,
    TokenRequired,
    InvalidAuthorization,
    InvalidToken,
    NoData,
    InvalidData,
    IncorrectIndex,
    Busy,
    ChannelMissing,
    InvalidChannel,
    EventRequired,
    EventBlank,
    Healthy,
}

impl Code {
    /// The number, the status and the text.
    pub(crate) fn said(self) -> (u16, u16, &'static str) {
        match self {
            Self::Success => (0, 200, "Success"),
            Self::TokenRequired => (2, 401, "Token is required"),
            Self::InvalidAuthorization => (3, 401, "Invalid authorization"),
            Self::InvalidToken => (4, 403, "Invalid token"),
            Self::NoData => (5, 400, "No data"),
            Self::InvalidData => (6, 400, "Invalid data format"),
            Self::IncorrectIndex => (7, 400, "Incorrect index"),
            Self::Busy => (9, 503, "Server is busy"),
            Self::ChannelMissing => (10, 400, "Data channel is missing"),
            Self::InvalidChannel => (11, 400, "Invalid data channel"),
            Self::EventRequired => (12, 400, "Event field is required"),
            Self::EventBlank => (13, 400, "Event field cannot be blank"),
            Self::Healthy => (17, 200, "HEC is healthy"),
        }
    }
}

/// What a request says about all its events, unless one says it itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) host: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) sourcetype: Option<String>,
    pub(crate) index: Option<String>,
    pub(crate) time: Option<String>,
}

/// The events of a request.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) batch: Batch,
    /// The index that all events name.
    pub(crate) index: Option<String>,
    /// The first that is not one: its place from 0, and why. Those before it, and what is readable behind it, are taken.
    pub(crate) bad: Option<(usize, Code)>,
}

/// The events of a body of JSON objects, with or without anything between them, or in arrays.
pub(crate) fn events(body: &[u8], defaults: &Defaults, bounds: Bounds) -> Result<Taken, BodyError> {
    let text = ingest::raw::escape(body);
    let mut reads = Reads {
        events: Events::of_text(&text, body, bounds),
        defaults,
        last: None,
        indexes: HashSet::new(),
        bad: None,
    };
    let mut values = Deserializer::from_str(text.trim_start_matches('\u{feff}')).into_iter::<&RawValue>();
    loop {
        match values.next() {
            None => break,
            Some(Ok(value)) if value.get().starts_with('[') => each(value.get(), |one| reads.take(one))?,
            Some(Ok(value)) => reads.take(value)?,
            Some(Err(error)) => {
                // Nobody can tell where the next one would begin.
                reads.refuse(Code::InvalidData, &error.to_string())?;
                break;
            }
        }
    }
    let mut indexes = reads.indexes.into_iter();
    let index = indexes.next().filter(|_| indexes.next().is_none()).flatten();
    Ok(Taken { batch: reads.events.finish(), index, bad: reads.bad })
}

/// The events of a body of lines: a stack trace is one, and so are the pieces of a line that a container runtime cut.
pub(crate) fn raw(body: &[u8], defaults: &Defaults, bounds: Bounds) -> Result<Taken, BodyError> {
    let mut events = Events::new(bounds);
    let mut bad = None;
    let about = About::new(&Defaults::default(), defaults, None)?;
    let time = defaults.time.as_deref().and_then(seconds);
    joined(body, |line| {
        let draft = Draft { time, labels: &about.labels, message: Message::Line(line), key: about.key.as_ref() };
        let number = events.count();
        if !events.push(&draft, None)? {
            bad = bad.or(Some((number, Code::InvalidData)));
        }
        Ok(())
    })?;
    Ok(Taken { batch: events.finish(), index: defaults.index.clone(), bad })
}

/// Gives each event of a body of lines; blank lines are none.
fn joined(body: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), BodyError>) -> Result<(), BodyError> {
    // The whole body is here, so that no line is waited for and every moment is the same.
    let now = Timestamp::MIN;
    let (mut partials, mut joiner, mut lines, mut events) =
        (Partials::default(), Joiner::default(), Vec::new(), Vec::new());
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        partials.push(line, now, &mut lines);
        lines.drain(..).for_each(|line| joiner.push(&line, now, &mut events));
        events.drain(..).try_for_each(|event| each(&event))?;
    }
    partials.finish(&mut lines);
    lines.drain(..).for_each(|line| joiner.push(&line, now, &mut events));
    joiner.finish(&mut events);
    events.iter().try_for_each(|event| each(event))
}

/// Host, source and so on of events, which most often are those of the event before.
struct About {
    said: Defaults,
    fields: Option<String>,
    labels: Labels<'static>,
    key: Option<Key>,
}

impl About {
    fn new(said: &Defaults, defaults: &Defaults, fields: Option<&RawValue>) -> Result<Self, BodyError> {
        let mut labels = Labels::default();
        for (name, own, default) in [
            ("host", &said.host, &defaults.host),
            ("source", &said.source, &defaults.source),
            ("sourcetype", &said.sourcetype, &defaults.sourcetype),
            ("index", &said.index, &defaults.index),
        ] {
            if let Some(value) = own.as_ref().or(default.as_ref()) {
                labels.text(name, value);
            }
        }
        let key = labels.key();
        if let Some(fields) = fields {
            members(fields.get(), |name, value| {
                labels.json(&name, value.get());
                Ok(())
            })?;
        }
        Ok(Self { said: said.clone(), fields: fields.map(|fields| fields.get().to_owned()), labels, key })
    }

    fn is_of(&self, said: &Defaults, fields: Option<&RawValue>) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a == b;
        same(&self.said.host, &said.host)
            && same(&self.said.source, &said.source)
            && same(&self.said.sourcetype, &said.sourcetype)
            && same(&self.said.index, &said.index)
            && self.fields.as_deref() == fields.map(RawValue::get)
    }
}

struct Reads<'d> {
    events: Events,
    defaults: &'d Defaults,
    last: Option<About>,
    /// Those that events name, or that the request names for them; of more than two it is only known that they are several.
    indexes: HashSet<Option<String>>,
    bad: Option<(usize, Code)>,
}

impl Reads<'_> {
    fn refuse(&mut self, code: Code, why: &str) -> Result<(), BodyError> {
        let number = self.events.count();
        self.events.refuse(why)?;
        self.bad = self.bad.or(Some((number, code)));
        Ok(())
    }

    /// `{"time", "host", "source", "sourcetype", "index", "event", "fields"}`.
    fn take(&mut self, value: &RawValue) -> Result<(), BodyError> {
        let (mut said, mut time, mut event, mut fields) = (Defaults::default(), None, None, None);
        let read = members(value.get(), |name, value| {
            let text = || Some(shown(value).into_owned()).filter(|_| value.get() != "null");
            match name.as_ref() {
                "time" => time = seconds(&shown(value)),
                "event" => event = Some(value),
                "fields" => fields = Some(value).filter(|value| value.get().starts_with('{')),
                "host" => said.host = text(),
                "source" => said.source = text(),
                "sourcetype" => said.sourcetype = text(),
                "index" => said.index = text(),
                _ => {}
            }
            Ok(())
        });
        if let Err(error) = read {
            return self.refuse(Code::InvalidData, &error.to_string());
        }
        let Some(event) = event.filter(|event| event.get() != "null") else {
            return self.refuse(Code::EventRequired, "the event is missing");
        };
        if event.get() == "\"\"" {
            return self.refuse(Code::EventBlank, "the event is blank");
        }
        self.add(&said, time, event, fields)
    }

    fn add(
        &mut self,
        said: &Defaults,
        time: Option<Timestamp>,
        event: &RawValue,
        fields: Option<&RawValue>,
    ) -> Result<(), BodyError> {
        let about = match self.last.take().filter(|about| about.is_of(said, fields)) {
            Some(about) => about,
            None => {
                if self.indexes.len() < 2 {
                    self.indexes.insert(said.index.clone().or_else(|| self.defaults.index.clone()));
                }
                About::new(said, self.defaults, fields)?
            }
        };
        let text: Cow<'_, str> = shown(event);
        let message = if is_text(event) { Message::Line(text.as_bytes()) } else { Message::Json(event.get()) };
        let number = self.events.count();
        let draft = Draft { time, labels: &about.labels, message, key: about.key.as_ref() };
        if !self.events.push(&draft, None)? {
            self.bad = self.bad.or(Some((number, Code::InvalidData)));
        }
        self.last = Some(about);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::doors::event::Identity;

    const ROOM: Bounds = Bounds { events_max: 100, bytes_max: 4 << 20 };

    fn all(taken: &Taken) -> Vec<Value> {
        taken
            .batch
            .events
            .iter()
            .map(|event| serde_json::from_str(&ingest::raw::escape(&event.payload)).unwrap())
            .collect()
    }

    fn read(body: &str) -> Taken {
        events(body.as_bytes(), &Defaults::default(), ROOM).unwrap()
    }

    #[test]
    fn bodies_of_every_client() {
        // splunk-handler: a number as text, nothing between the objects
        let found = read(
            r#"{"event": "a", "host": "h", "index": "main", "source": "s", "sourcetype": "text", "time": "1795325538.229"}{"event":"b","time":1795325538.5,"host":"h"}"#,
        );
        let first = json!({"_time": "2026-11-22T05:32:18.229Z", "host": "h", "source": "s", "sourcetype": "text", "index": "main", "_msg": "a"});
        assert_eq!(
            (all(&found), found.bad),
            (vec![first, json!({"_time": "2026-11-22T05:32:18.5Z", "host": "h", "_msg": "b"})], None)
        );
        // splunk-logging: an object as the event, with a severity
        let found = read(
            "{\"time\":\"1795325538.229\",\"event\":{\"message\":\"hi\",\"severity\":\"info\",\"host\":\"inner\"},\"host\":\"h\"}\n\n{\"event\":\"no time\",\"fields\":{\"n\":1,\"list\":[\"a\"]}}",
        );
        let expected = [
            json!({"_time": "2026-11-22T05:32:18.229Z", "host": "h", "message": "hi", "severity": "info", "host_extracted": "inner"}),
            json!({"n": 1, "list": ["a"], "_msg": "no time"}),
        ];
        assert_eq!(all(&found), expected);
        let identities: Vec<_> = found.batch.events.iter().map(|event| event.identity).collect();
        assert_eq!(identities, [Identity::Dated, Identity::None]);
        // Arrays, and values that are neither text nor object.
        assert_eq!(all(&read("[{\"event\":1},{\"event\":[true]}]")), [json!({"_msg": "1"}), json!({"_msg": "[true]"})]);
    }

    #[test]
    fn the_first_bad_event_is_named_and_the_others_are_taken() {
        for (body, taken, bad) in [
            ("", 0, None),
            (" \n", 0, None),
            (r#"{"event":"a"}{"host":"h"}{"event":"b"}"#, 2, Some((1, Code::EventRequired))),
            (r#"{"event":"a"}{"event":""}{"event":null}"#, 1, Some((1, Code::EventBlank))),
            (r#"{"event":"a"}{"event":"b"#, 1, Some((1, Code::InvalidData))),
            (r#"{"event":"a"} plain {"event":"b"}"#, 1, Some((1, Code::InvalidData))),
            (r#""text"{"event":"a"}"#, 1, Some((0, Code::InvalidData))),
        ] {
            let found = read(body);
            assert_eq!((found.batch.events.len(), found.bad), (taken, bad), "{body}");
        }
        let long = format!(r#"{{"event":"a"}}{{"event":"{}"}}{{"event":"b"}}"#, "x".repeat(2 << 20));
        let found = read(&long);
        assert_eq!((found.batch.events.len(), found.bad), (2, Some((1, Code::InvalidData))));
    }

    #[test]
    fn an_index_is_what_all_events_name() {
        let defaults = Defaults { index: Some("d".into()), ..Defaults::default() };
        for (body, index) in [
            (r#"{"event":"a","index":"i"}{"event":"b","index":"i"}"#, Some("i")),
            (r#"{"event":"a"}"#, Some("d")),
            (r#"{"event":"a","index":"i"}{"event":"b"}"#, None),
            (r#"{"event":"a","index":"i"}{"event":"b","index":"j"}{"event":"c","index":"k"}"#, None),
        ] {
            assert_eq!(events(body.as_bytes(), &defaults, ROOM).unwrap().index.as_deref(), index, "{body}");
        }
    }

    #[test]
    fn raw_lines() {
        let defaults = Defaults { host: Some("h".into()), time: Some("1795325538".into()), ..Defaults::default() };
        let found = raw(b"one\r\n\n{\"level\":\"warn\",\"msg\":\"two\"}\nthr\xffee", &defaults, ROOM).unwrap();
        let time = "2026-11-22T05:32:18Z";
        let expected = [
            json!({"_time": time, "host": "h", "_msg": "one"}),
            json!({"_time": time, "host": "h", "level": "warn", "msg": "two"}),
            json!({"_time": time, "host": "h", "_msg": "thr\u{f7ff}ee"}),
        ];
        assert_eq!(all(&found), expected);
    }

    #[test]
    fn raw_lines_that_belong_together_are_one_event() {
        let body = b"2026-01-02 03:04:05 ERROR failed\njava.io.IOException: gone\n\tat a.B.c(B.java:1)\r\nnext\n\
                     2026-01-02T03:04:05Z stdout P one \n2026-01-02T03:04:05Z stdout F line\n";
        let found = raw(body, &Defaults::default(), ROOM).unwrap();
        let expected = [
            json!({"_msg": "2026-01-02 03:04:05 ERROR failed\njava.io.IOException: gone\n\tat a.B.c(B.java:1)"}),
            json!({"_msg": "next"}),
            json!({"_msg": "2026-01-02T03:04:05Z stdout F one line"}),
        ];
        assert_eq!(all(&found), expected);
    }

    #[test]
    fn one_source_keeps_its_order() {
        let found =
            read(r#"{"event":"a","host":"h"}{"event":"b","host":"h","fields":{"x":1}}{"event":"c","host":"i"}"#);
        let keys: Vec<_> = found.batch.events.iter().map(|event| event.key.clone().unwrap()).collect();
        assert!(keys[0] == keys[1] && keys[1] != keys[2]);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let json = events(&bytes, &Defaults::default(), ROOM);
            prop_assert!(json.is_ok_and(|taken| taken.batch.events.len() <= bytes.len()));
            prop_assert!(raw(&bytes, &Defaults::default(), ROOM).is_ok());
        }
    }
}
