//! Elasticsearch's bulk, translated: pairs of an action and a document.

use bytes::Bytes;
use types::{EVENT_BYTES_MAX, RoutingKey};
use wire::block::message_id;

use super::{
    event::{Batch, BodyError, Bounds, Draft, Events, Identity, Key, Labels, Message},
    json::{members, quote, shown},
};

/// The longest `_id` of Elasticsearch.
const ID_BYTES_MAX: usize = 512;
/// The longest name of an index of Elasticsearch.
const INDEX_BYTES_MAX: usize = 255;
/// Actions of one request: each is answered in some 100 bytes, however short it is.
const ACTIONS_MAX: usize = 1 << 18;
/// Where a document says its own time; without one a repeat cannot be told from another document.
const TIMES: [&str; 5] = ["@timestamp", "timestamp", "time", "ts", "_time"];

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Index,
    Update,
    Delete,
}

impl Verb {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "create" => Self::Create,
            "index" => Self::Index,
            "update" => Self::Update,
            "delete" => Self::Delete,
            _ => return None,
        })
    }

    /// As Elasticsearch calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Index => "index",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What is answered about one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) verb: Verb,
    /// The index that the action names.
    pub(crate) index: Option<Box<str>>,
    pub(crate) id: Option<Box<str>>,
    /// Why its document is not stored.
    pub(crate) refused: Option<String>,
}

/// A bulk request.
#[derive(Debug)]
pub(crate) struct Bulk {
    pub(crate) batch: Batch,
    /// One for each action, in their order.
    pub(crate) items: Vec<Item>,
}

/// Whether an index may have this name in a path: it is answered, and hashed, for each action again.
pub(crate) fn is_index(name: &str) -> bool {
    name.len() <= INDEX_BYTES_MAX && !name.chars().any(char::is_control)
}

/// The documents of a bulk request, each as it is; what is no JSON object becomes a text.
///
/// A blank line and `_type` are passed over, as old shippers write them. A document that has an `_id` is known by it and its index:
/// for `create` by these alone, for `index`, which replaces, also by the document. `of_path` serves where an action names no index.
///
/// Bounds: [`ACTIONS_MAX`], those included that are refused.
pub(crate) fn bulk(body: &Bytes, of_path: Option<&str>, bounds: Bounds) -> Result<Bulk, BodyError> {
    let mut events = Events::new(Bounds { events_max: bounds.events_max.min(ACTIONS_MAX), ..bounds });
    let mut items = Vec::new();
    let mut lines = (1..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    while let Some((number, line)) = lines.next() {
        let Action { mut item, key } = action(number, line)?;
        if item.verb == Verb::Delete {
            refuse(&mut events, &mut item, "a log takes no deletions")?;
            items.push(item);
            continue;
        }
        let Some((_, document)) = lines.next() else {
            return Err(BodyError::Malformed(format!("line {number} is an action without a document")));
        };
        if item.verb == Verb::Update {
            refuse(&mut events, &mut item, "a log takes no updates")?;
        } else {
            let document = body.slice_ref(document.trim_ascii());
            let index = item.index.as_deref().or(of_path).unwrap_or("");
            if !add(&mut events, (&item, index), &document, key)? {
                item.refused =
                    Some(format!("the document is larger than the {EVENT_BYTES_MAX} bytes of the largest event"));
            }
        }
        items.push(item);
    }
    if items.is_empty() {
        return Err(BodyError::malformed("request body is required"));
    }
    Ok(Bulk { batch: events.finish(), items })
}

fn refuse(events: &mut Events, item: &mut Item, why: &str) -> Result<(), BodyError> {
    item.refused = Some(why.to_owned());
    events.refuse(why)
}

struct Action {
    item: Item,
    key: Option<Key>,
}

/// `{"create": {"_index": .., "_id": .., "routing": ..}}`.
fn action(number: usize, line: &[u8]) -> Result<Action, BodyError> {
    let wrong = |why: &str| BodyError::Malformed(format!("Malformed action/metadata line [{number}], {why}"));
    let text = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
    let mut found = None;
    let read = members(text, |name, meta| {
        let verb = Verb::of(&name).ok_or_else(|| wrong("expected create or index"))?;
        let mut item = Item { verb, index: None, id: None, refused: None };
        let mut key = None;
        members(meta.get(), |name, value| {
            let given = || Some(shown(value).into_owned()).filter(|text| value.get() != "null" && !text.is_empty());
            match name.as_ref() {
                "_index" => item.index = given().map(Into::into),
                "_id" => item.id = given().map(Into::into),
                "routing" | "_routing" => key = given().and_then(|text| RoutingKey::new(&text).ok()).map(Into::into),
                _ => {}
            }
            Ok(())
        })?;
        if item.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return Err(wrong("_id is longer than 512 bytes"));
        }
        if found.replace(Action { item, key }).is_some() {
            return Err(wrong("expected one action"));
        }
        Ok(())
    });
    match read {
        Err(BodyError::Malformed(why)) if !why.starts_with("Malformed") => Err(wrong(&why)),
        Err(other) => Err(other),
        Ok(()) => found.ok_or_else(|| wrong("expected an action")),
    }
}

fn add(
    events: &mut Events,
    (item, index): (&Item, &str),
    document: &Bytes,
    key: Option<Key>,
) -> Result<bool, BodyError> {
    let named = item.id.as_deref().map(|id| match item.verb {
        Verb::Create => message_id(&format!("es/create/{index:?}/{id}")),
        // Another document under the same id would replace it there; in a log it is another event.
        _ => message_id(&format!("es/index/{index:?}/{id}/{:x}", message_id(&String::from_utf8_lossy(document)))),
    });
    let mut dated = Identity::None;
    let is_object = members(&ingest::raw::escape(document), |name, value| {
        if dated == Identity::None && TIMES.contains(&name.as_ref()) {
            dated = Identity::of_value(value);
        }
        Ok(())
    });
    if is_object.is_ok() {
        return events.give(document.clone(), named.map_or(dated, Identity::Named), key);
    }
    let message = Message::Line(document);
    let draft = Draft { time: None, labels: &Labels::default(), message, key: key.as_ref() };
    events.push(&draft, named)
}

/// The answer to a bulk request that was stored, in the order of keys that shippers look for in the text.
///
/// `index` and `id` serve where an action names none.
pub(crate) fn answer(items: &[Item], took_ms: u64, index: &str, id: impl Fn(usize) -> String) -> Vec<u8> {
    let errors = items.iter().any(|item| item.refused.is_some());
    let mut out = format!("{{\"took\":{took_ms},\"errors\":{errors},\"items\":[").into_bytes();
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"{}\":{{\"_index\":", item.verb.as_str()).as_bytes());
        quote(&mut out, item.index.as_deref().unwrap_or(index));
        out.extend_from_slice(b",\"_id\":");
        match &item.id {
            Some(id) => quote(&mut out, id),
            None => quote(&mut out, &id(number)),
        }
        match &item.refused {
            None => out.extend_from_slice(b",\"status\":201}}"),
            Some(why) => {
                out.extend_from_slice(
                    b",\"status\":400,\"error\":{\"type\":\"illegal_argument_exception\",\"reason\":",
                );
                quote(&mut out, why);
                out.extend_from_slice(b"}}}");
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// The one index that all actions name; `of_path` serves where an action names none. Errors: they name several.
pub(crate) fn one_index<'a>(items: &'a [Item], of_path: Option<&'a str>) -> Result<Option<&'a str>, BodyError> {
    let mut named = items.iter().map(|item| item.index.as_deref().or(of_path));
    let first = named.next().flatten();
    match named.find(|name| *name != first) {
        Some(_) => Err(BodyError::malformed("the actions name several indexes; send one index a request")),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROOM: Bounds = Bounds { events_max: 10, bytes_max: 3 << 20 };

    fn read(body: impl Into<Bytes>) -> Result<Bulk, BodyError> {
        bulk(&body.into(), None, ROOM)
    }

    fn texts(bulk: &Bulk) -> Vec<String> {
        bulk.batch.events.iter().map(|event| ingest::raw::escape(&event.payload).into_owned()).collect()
    }

    #[test]
    fn bodies_of_every_client() {
        // elasticsearch-py
        let py = read("{\"index\":{\"_index\":\"logs\",\"_id\":\"1\"}}\n{\"@timestamp\":\"2026-01-02T03:04:05Z\",\"message\":\"a\"}\n").unwrap();
        assert_eq!(texts(&py), [r#"{"@timestamp":"2026-01-02T03:04:05Z","message":"a"}"#]);
        assert!(matches!(py.batch.events[0].identity, Identity::Named(_)));
        assert_eq!(one_index(&py.items, Some("path")), Ok(Some("logs")));
        // rsyslog: a type, and a blank line at the end
        let rsyslog = read("{\"index\":{\"_index\": \"system\",\"_type\":\"events\"}}\n{\"msg\":\"a\"}\n\n").unwrap();
        assert_eq!(
            (texts(&rsyslog), rsyslog.batch.events[0].identity),
            (vec![r#"{"msg":"a"}"#.to_owned()], Identity::None)
        );
        // Fluent Bit and Vector: nothing but the verb; no newline at the end
        let vector = read("{\"create\":{}}\r\n{\"timestamp\":\"2026-01-02T03:04:05.25Z\"}\r\n{\"create\":{\"_id\":null,\"routing\":\"k\"}}\n{\"b\":1}").unwrap();
        assert_eq!(texts(&vector), [r#"{"timestamp":"2026-01-02T03:04:05.25Z"}"#, r#"{"b":1}"#]);
        assert_eq!(vector.batch.events[0].identity, Identity::Dated);
        assert_eq!(vector.batch.events[1].key.as_ref().unwrap().as_str(), "k");
        assert_eq!(one_index(&vector.items, None), Ok(None));
        assert_eq!(one_index(&vector.items, Some("path")), Ok(Some("path")));
    }

    #[test]
    fn odd_documents_are_kept() {
        let odd = read(
            &b"{\"create\":{}}\nno json\n{\"create\":{}}\n[1]\n{\"create\":{\"_id\":\"x\"}}\n{\"a\":\"\xff\"}\n"[..],
        )
        .unwrap();
        assert_eq!(odd.batch.refused_count, 0);
        assert_eq!(texts(&odd), [r#"{"_msg":"no json"}"#, r#"{"_msg":"[1]"}"#, "{\"a\":\"\u{f7ff}\"}"]);
    }

    #[test]
    fn an_id_is_known_by_what_it_means() {
        let id = |verb: &str, id: &str, document: &str| {
            read(format!("{{\"{verb}\":{{\"_id\":\"{id}\"}}}}\n{document}\n")).unwrap().batch.events[0].identity
        };
        assert_eq!(id("create", "1", "{}"), id("create", "1", "{\"a\":1}"), "there is one document of an id");
        assert_ne!(id("create", "1", "{}"), id("create", "2", "{}"));
        assert_eq!(id("index", "1", "{}"), id("index", "1", "{}"), "sent again");
        assert_ne!(id("index", "1", "{}"), id("index", "1", "{\"a\":1}"), "a later state is not lost");
    }

    #[test]
    fn an_id_is_one_of_its_index() {
        let id = |of_path, verb: &str, index: &str, id: &str| {
            let body = format!("{{\"{verb}\":{{\"_index\":{index},\"_id\":\"{id}\"}}}}\n{{}}\n");
            bulk(&body.into(), of_path, ROOM).unwrap().batch.events[0].identity
        };
        for verb in ["create", "index"] {
            let in_a = id(None, verb, "\"a\"", "1");
            assert_eq!(in_a, id(Some("a"), verb, "null", "1"), "{verb}: the path says the same");
            assert_eq!(in_a, id(Some("b"), verb, "\"a\"", "1"), "{verb}: the action counts");
            assert_ne!(in_a, id(None, verb, "\"b\"", "1"), "{verb}");
            assert_ne!(in_a, id(Some("b"), verb, "null", "1"), "{verb}");
            assert_ne!(id(None, verb, "\"a\"", "b/1"), id(None, verb, "\"a/b\"", "1"), "{verb}");
        }
    }

    #[test]
    fn only_an_instant_makes_a_document_dated() {
        for (document, identity) in [
            (r#"{"@timestamp":"2026-01-02T03:04:05.25Z"}"#, Identity::Dated),
            (r#"{"time":"soon","ts":1767323045123}"#, Identity::Dated),
            (r#"{"@timestamp":"2026-01-02T03:04:05Z"}"#, Identity::None),
            (r#"{"time":17.5}"#, Identity::None),
            (r#"{"ts":null}"#, Identity::None),
            (r#"{"at":"2026-01-02T03:04:05.25Z"}"#, Identity::None),
        ] {
            let found = read(format!("{{\"create\":{{}}}}\n{document}\n")).unwrap().batch.events[0].identity;
            assert_eq!(found, identity, "{document}");
        }
    }

    #[test]
    fn names_of_paths_are_short() {
        let long = "x".repeat(256);
        for (name, fits) in [("logs-app", true), (&long[1..], true), (long.as_str(), false), ("a\u{1}", false)] {
            assert_eq!(is_index(name), fits, "{name:?}");
        }
    }

    #[test]
    fn every_action_is_answered_in_its_place() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX));
        let body = format!(
            "{{\"create\":{{\"_index\":\"i\",\"_id\":\"x\"}}}}\n{{}}\n{{\"delete\":{{\"_id\":\"y\"}}}}\n{{\"update\":{{}}}}\n{{}}\n\
             {{\"index\":{{}}}}\n{long}\n{{\"index\":{{}}}}\n{{}}\n"
        );
        let bulk = read(body).unwrap();
        assert_eq!((bulk.batch.events.len(), bulk.batch.refused_count), (2, 3));
        let text = String::from_utf8(answer(&bulk.items, 3, "own", |n| format!("n{n}"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(text.starts_with(
            r#"{"took":3,"errors":true,"items":[{"create":{"_index":"i","_id":"x","status":201}},{"delete":{"_index":"own","_id":"y","status":400,"error":{"type":"illegal_argument_exception","reason":"a log takes no deletions"}}},"#
        ));
        let statuses: Vec<_> = json["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].clone())
            .collect();
        assert_eq!(json!(statuses), json!([201, 400, 400, 400, 201]));
        assert_eq!(json["items"][4], json!({"index": {"_index": "own", "_id": "n4", "status": 201}}));
        let fine = answer(&bulk.items[..1], 0, "own", |_| String::new());
        assert_eq!(fine, br#"{"took":0,"errors":false,"items":[{"create":{"_index":"i","_id":"x","status":201}}]}"#);
    }

    #[test]
    fn requests_that_are_refused_whole() {
        for (body, why) in [
            ("", "request body is required"),
            ("\n\n", "request body is required"),
            ("{}\n{}\n", "Malformed action/metadata line [1], expected an action"),
            ("x\n{}\n", "Malformed action/metadata line [1], expected"),
            ("{\"create\":3}\n{}\n", "Malformed action/metadata line [1], invalid type"),
            ("{\"create\":{}}\n{}\n{\"drop\":{}}\n", "Malformed action/metadata line [3], expected create or index"),
            ("{\"create\":{},\"index\":{}}\n{}\n", "Malformed action/metadata line [1], expected one action"),
            ("{\"create\":{}}\n", "line 1 is an action without a document"),
        ] {
            let refused = read(body).map(|_| ()).unwrap_err();
            assert!(matches!(&refused, BodyError::Malformed(said) if said.starts_with(why)), "{body:?}: {refused}");
        }
        for (action, bounds) in [("{\"create\":{}}\n{}\n", ROOM), ("{\"delete\":{}}\n", ROOM)] {
            let bulk = |count: usize| super::bulk(&action.repeat(count).into(), None, bounds);
            assert_eq!(bulk(bounds.events_max).unwrap().items.len(), bounds.events_max);
            assert!(matches!(bulk(bounds.events_max + 1), Err(BodyError::TooMuch(_))), "{action}");
        }
        let (most, roomy) = (ACTIONS_MAX, Bounds { events_max: usize::MAX, ..ROOM });
        let refused = bulk(&"{\"delete\":{}}\n".repeat(most + 1).into(), None, roomy).unwrap_err();
        assert!(refused.to_string().contains(&format!("more than {most} events")), "{refused}");
        let two = read("{\"create\":{\"_index\":\"a\"}}\n{}\n{\"create\":{\"_index\":\"b\"}}\n{}\n").unwrap();
        assert!(one_index(&two.items, None).is_err());
    }
}
