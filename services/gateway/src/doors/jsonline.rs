//! Lines of JSON as VictoriaLogs takes them: the request says which members are the text, the time and the stream.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use ingest::raw;
use serde_json::value::RawValue;
use types::{RoutingKey, hash64};

use super::{
    event::{Batch, BodyError, Bounds, Events, Identity, Key},
    json::{members, quote, shown},
};

/// Names in one parameter; others are passed over.
const NAMES_MAX: usize = 100;

/// Which members of a line are what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// The text is the first of these that is there and not empty.
    message: Vec<String>,
    /// The time, in the same way.
    time: Vec<String>,
    /// Lines that have these in common keep their order.
    stream: Vec<String>,
    /// These are left out.
    ignored: Vec<String>,
}

impl Fields {
    /// Each as names with commas between them.
    pub(crate) fn new(message: &str, time: &str, stream: &str, ignored: &str) -> Self {
        let names = |list: &str| -> Vec<String> {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.take(NAMES_MAX).map(str::to_owned).collect()
        };
        Self { message: names(message), time: names(time), stream: names(stream), ignored: names(ignored) }
    }
}

/// The lines of a body, each one JSON object; blank ones are passed over, and what is no object is refused for itself.
pub(crate) fn events(body: &Bytes, fields: &Fields, bounds: Bounds) -> Result<Batch, BodyError> {
    let mut events = Events::new(bounds);
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        match read(line, fields) {
            Ok(Read { renamed, identity, key }) => {
                let payload = renamed.map_or_else(|| body.slice_ref(line), Bytes::from);
                events.give(payload, identity, key)?;
            }
            Err(why) => events.refuse(why)?,
        }
    }
    Ok(events.finish())
}

struct Read {
    /// The line with other names, where they are others.
    renamed: Option<Vec<u8>>,
    identity: Identity,
    key: Option<Key>,
}

type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

fn read(line: &[u8], fields: &Fields) -> Result<Read, String> {
    let text = raw::escape(line);
    let mut all: Members<'_> = Vec::new();
    members(&text, |name, value| {
        all.push((name, value));
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    let chosen = [first(&all, &fields.message), first(&all, &fields.time)];
    let identity = chosen[1].map_or(Identity::None, |at| Identity::of_value(all[at].1));
    let key = key(&all, &fields.stream);
    let named = |place: Option<usize>, name: &str| place.is_none_or(|at| all[at].0 == name);
    let is_ignored = |name: &str| fields.ignored.iter().any(|ignored| ignored == name);
    let as_it_is =
        named(chosen[0], "_msg") && named(chosen[1], "_time") && !all.iter().any(|(name, _)| is_ignored(name));
    let renamed = (!as_it_is).then(|| raw::unescape(&renamed(&all, chosen, is_ignored)).into_owned());
    Ok(Read { renamed, identity, key })
}

/// The first of some names that is there with a value.
fn first(all: &Members<'_>, names: &[String]) -> Option<usize> {
    let there = |name: &String| {
        all.iter().position(|(known, value)| known == name && !matches!(value.get(), "null" | "\"\"" | "0" | "\"0\""))
    };
    names.iter().find_map(there)
}

fn key(all: &Members<'_>, names: &[String]) -> Option<Key> {
    let mut joined = Vec::new();
    for name in names {
        if let Some((_, value)) = all.iter().find(|(known, _)| known == name) {
            quote(&mut joined, name);
            quote(&mut joined, &shown(value));
        }
    }
    if joined.is_empty() { None } else { RoutingKey::new(&format!("{:016x}", hash64(&joined))).ok().map(Arc::new) }
}

/// The object with the names that the platform knows; a member that has such a name already gets another one.
fn renamed(all: &Members<'_>, [message, time]: [Option<usize>; 2], is_ignored: impl Fn(&str) -> bool) -> String {
    let mut out = Vec::from(b"{");
    for (at, (name, value)) in all.iter().enumerate() {
        let taken = |place: Option<usize>, own: &str| place.is_some() && name == own;
        let name = match () {
            () if message == Some(at) => "_msg",
            () if time == Some(at) => "_time",
            () if is_ignored(name) => continue,
            () if taken(message, "_msg") => "_msg_extracted",
            () if taken(time, "_time") => "_time_extracted",
            () => name.as_ref(),
        };
        if out.len() > 1 {
            out.push(b',');
        }
        quote(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Bounds = Bounds { events_max: 10, bytes_max: 3 << 20 };

    fn taken(body: &str, fields: &Fields) -> Batch {
        events(&Bytes::copy_from_slice(body.as_bytes()), fields, ROOM).unwrap()
    }

    fn check(fields: &Fields, line: &str, expected: &str, identity: Identity) {
        let batch = taken(line, fields);
        assert_eq!(batch.events[0].payload, expected, "{line}");
        assert_eq!(batch.events[0].identity, identity, "{line}");
    }

    #[test]
    fn members_are_what_the_request_says() {
        let plain = Fields::new("", "_time", "", "");
        check(&plain, r#"{"_msg":"a","x":1}"#, r#"{"_msg":"a","x":1}"#, Identity::None);
        check(&plain, r#" {"_time":1,"_msg":"a"} "#, r#"{"_time":1,"_msg":"a"}"#, Identity::None);
        let millis = r#"{"_time":1767323045123,"_msg":"a"}"#;
        check(&plain, millis, millis, Identity::Dated);
        let named = Fields::new("log.text, text", "ts", "", "secret");
        for (line, expected, identity) in [
            (
                r#"{"log.text":"a","ts":"2026-01-02T03:04:05.25Z"}"#,
                r#"{"_msg":"a","_time":"2026-01-02T03:04:05.25Z"}"#,
                Identity::Dated,
            ),
            (r#"{"text":"a","ts":"05.25"}"#, r#"{"_msg":"a","_time":"05.25"}"#, Identity::None),
            (r#"{"text":"a","log.text":"","secret":{"x":1}}"#, r#"{"_msg":"a","log.text":""}"#, Identity::None),
            (r#"{"text":"a","_msg":"b","_time":7}"#, r#"{"_msg":"a","_msg_extracted":"b","_time":7}"#, Identity::None),
            (r#"{"ts":0,"te\u0078t":"a"}"#, r#"{"ts":0,"_msg":"a"}"#, Identity::None),
            (r#"{}"#, r#"{}"#, Identity::None),
        ] {
            check(&named, line, expected, identity);
        }
    }

    #[test]
    fn streams_keep_their_order() {
        let fields = Fields::new("", "", "app,host", "");
        let batch = taken(
            "{\"app\":\"a\",\"host\":\"h\"}\n{\"host\":\"h\",\"n\":1,\"app\":\"a\"}\n{\"app\":\"b\"}\n{\"x\":1}\n",
            &fields,
        );
        let keys: Vec<_> = batch.events.iter().map(|event| event.key.clone()).collect();
        assert_eq!(keys[0], keys[1]);
        assert!(keys[0].is_some() && keys[2].is_some() && keys[0] != keys[2] && keys[3].is_none());
    }

    #[test]
    fn one_bad_line_does_not_take_the_others_along() {
        let batch = taken("{\"a\":1}\n\nno json\n[1]\r\n{\"a\":2}\r\n", &Fields::default());
        assert_eq!((batch.events.len(), batch.refused_count), (2, 2));
        assert_eq!(batch.events[1].payload, "{\"a\":2}");
        let latin = Bytes::from_static(b"{\"log\":\"caf\xe9\"}");
        let kept = events(&latin, &Fields::new("log", "", "", ""), ROOM).unwrap();
        assert_eq!(kept.events[0].payload, &b"{\"_msg\":\"caf\xe9\"}"[..]);
        assert!(batch.refused[0].why.contains("line 1 column"), "{:?}", batch.refused);
        let many = Bytes::from("{}\n".repeat(11));
        assert!(matches!(events(&many, &Fields::default(), ROOM), Err(BodyError::TooMuch(_))));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_an_object(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            pairs in proptest::collection::vec(("(a|b|_msg|_time)", "[ -~]{0,5}"), 0..6),
        ) {
            let object = pairs.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect::<Vec<_>>().join(",");
            let fields = Fields::new("a", "b", "a", "_time");
            for body in [bytes, format!("{{{object}}}").into_bytes()] {
                for event in events(&body.into(), &fields, ROOM).unwrap().events {
                    let text = raw::escape(&event.payload);
                    prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok());
                }
            }
        }
    }
}
