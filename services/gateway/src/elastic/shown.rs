//! What of an event a hit shows: its source, single fields, and marks in its texts. Pure.

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use types::Severity;

use super::{
    field::{Fields, name, nested, shown},
    highlight::Highlight,
    moment::Format,
    refused::{Refused, flag, known, listed, object, text, texts},
    words::is_like,
};

/// Patterns of fields of one request.
pub(super) const PATTERNS_MAX: usize = 1_024;

/// What a hit shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    source: Option<Source>,
    fields: Vec<(String, Option<Format>)>,
    pub(crate) highlight: Option<Highlight>,
    version: bool,
    sequence: bool,
}

/// Which fields are in the source.
#[derive(Debug, Clone, PartialEq, Default)]
struct Source {
    includes: Vec<[String; 2]>,
    excludes: Vec<[String; 2]>,
}

impl Source {
    fn has(&self, field: &str) -> bool {
        let in_it = |[whole, inside]: &[String; 2]| is_like(whole, field) || is_like(inside, field);
        (self.includes.is_empty() || self.includes.iter().any(in_it)) && !self.excludes.iter().any(in_it)
    }
}

/// Patterns, each with one of what is in an object of that name.
fn with_inside(patterns: Vec<String>) -> Vec<[String; 2]> {
    let inside = |pattern: &String| format!("{}.*", pattern.trim_end_matches(".*"));
    patterns.into_iter().map(|pattern| [inside(&pattern), pattern]).collect()
}

impl Shown {
    /// Reads the members of a body that say it.
    pub(crate) fn read(members: &Map<String, Value>) -> Result<Self, Refused> {
        let source = match members.get("_source") {
            None | Some(Value::Null | Value::Bool(true)) => Some(Source::default()),
            Some(Value::Bool(false)) => None,
            Some(Value::Object(given)) => {
                known(given, &["includes", "excludes", "include", "exclude"], "_source")?;
                let either = |one: &str, other: &str| {
                    given.get(one).or_else(|| given.get(other)).map_or(Ok(Vec::new()), |list| texts(list, one))
                };
                let (includes, excludes) = (either("includes", "include")?, either("excludes", "exclude")?);
                Some(Source { includes: with_inside(includes), excludes: with_inside(excludes) })
            }
            Some(given) => {
                let includes = texts(given, "_source")?;
                match includes.as_slice() {
                    [word] if word == "false" => None,
                    [word] if word == "true" => Some(Source::default()),
                    _ => Some(Source { includes: with_inside(includes), excludes: Vec::new() }),
                }
            }
        };
        let mut fields = Vec::new();
        for member in ["fields", "docvalue_fields"] {
            for one in members.get(member).map_or(&[][..], listed) {
                fields.push(match one {
                    Value::Object(given) => {
                        known(given, &["field", "format", "include_unmapped"], member)?;
                        let field =
                            given.get("field").ok_or_else(|| Refused::parsing(format!("[{member}] needs a field")))?;
                        let format = given.get("format").filter(|format| !format.is_null());
                        let format = format.map(|format| Format::all(&text(format, "format")?)).transpose()?;
                        (text(field, member)?, format.and_then(|all| all.into_iter().next()))
                    }
                    name => (text(name, member)?, None),
                });
            }
        }
        let patterns = source.as_ref().map_or(0, |source| source.includes.len() + source.excludes.len());
        if patterns + fields.len() > PATTERNS_MAX {
            return Err(Refused::illegal(format!("more than {PATTERNS_MAX} fields and patterns of fields")));
        }
        let flagged = |name: &str| members.get(name).map_or(Ok(false), |value| flag(value, name));
        Ok(Self {
            source,
            fields,
            highlight: members
                .get("highlight")
                .map(|given| Highlight::read(object(given, "highlight")?))
                .transpose()?,
            version: flagged("version")?,
            sequence: flagged("seq_no_primary_term")?,
        })
    }

    /// Whether something of the column is shown.
    fn needs(&self, field: &str) -> bool {
        self.source.as_ref().is_some_and(|source| source.has(field))
            || self.fields.iter().any(|(pattern, _)| is_like(plain(pattern), field))
            || self.highlight.as_ref().is_some_and(|highlight| highlight.wants(field))
    }

    /// The columns of which a hit is made.
    pub(crate) fn columns(&self, fields: &Fields) -> Vec<String> {
        let mut columns: Vec<String> = ["_time", "_segment", "_offset"].map(name).into();
        if self.source.as_ref().is_some_and(|source| source.includes.is_empty() && source.excludes.is_empty()) {
            return vec!["*".to_owned()];
        }
        if self.source.is_some() && fields.has("_attrs") {
            columns.push(name("_attrs"));
        }
        for (field, column, _) in fields.named() {
            if column != "_time" && self.needs(&field) {
                columns.push(name(column));
            }
        }
        columns
    }

    /// A hit, all but its order.
    pub(crate) fn hit(&self, row: &Map<String, Value>, index: &str) -> Map<String, Value> {
        let id = |column: &str| row.get(column).map(super::condition::shown).unwrap_or_default();
        let mut hit = Map::new();
        hit.insert("_index".to_owned(), index.into());
        hit.insert("_id".to_owned(), format!("{}-{}", id("_segment"), id("_offset")).into());
        if self.version {
            hit.insert("_version".to_owned(), 1.into());
        }
        if self.sequence {
            hit.insert("_seq_no".to_owned(), row.get("_offset").cloned().unwrap_or_default());
            hit.insert("_primary_term".to_owned(), 1.into());
        }
        if let Some(source) = &self.source {
            hit.insert("_source".to_owned(), source_of(row, source));
        }
        let fields = self.fields_of(row);
        if !fields.is_empty() {
            hit.insert("fields".to_owned(), Value::Object(fields));
        }
        let marked = self.highlight.as_ref().map(|highlight| highlight.of(row));
        if let Some(marked) = marked.filter(|marked| !marked.is_empty()) {
            hit.insert("highlight".to_owned(), Value::Object(marked));
        }
        hit
    }

    fn fields_of(&self, row: &Map<String, Value>) -> Map<String, Value> {
        let mut fields = Map::new();
        for (column, value) in row.iter().filter(|(_, value)| !value.is_null()) {
            let Some(field) = shown(column) else { continue };
            for (pattern, format) in &self.fields {
                if field.starts_with('#') || !is_like(plain(pattern), &field) {
                    continue;
                }
                let value = match (instant(column, value), format) {
                    (Some(nanos), Some(format)) => format.shown(nanos, &TimeZone::UTC).into(),
                    (Some(nanos), None) => super::moment::iso(nanos).into(),
                    (None, _) => value.clone(),
                };
                // A pattern in many spellings is the same field.
                let called = if plain(pattern) == field { pattern.clone() } else { field.clone() };
                fields.insert(called, json!([value]));
            }
        }
        fields
    }
}

/// A pattern without the end that says that a text is meant as a whole.
fn plain(pattern: &str) -> &str {
    pattern.strip_suffix(".keyword").unwrap_or(pattern)
}

/// The nanoseconds of a column of instants.
pub(crate) fn instant(column: &str, value: &Value) -> Option<i64> {
    if !matches!(column, "_time" | "_received") {
        return None;
    }
    nanos(value)
}

/// The nanoseconds of an instant as a result shows it.
pub(crate) fn nanos(value: &Value) -> Option<i64> {
    let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// The event as an agent might have sent it: names with points as objects in objects, lists as lists.
fn source_of(row: &Map<String, Value>, source: &Source) -> Value {
    let mut object = Map::new();
    let mut put = |field: &str, value: Value| {
        if source.has(field) {
            place(&mut object, field, value);
        }
    };
    for (column, value) in row.iter().filter(|(_, value)| !value.is_null()) {
        if column.starts_with('#') || matches!(column.as_str(), "_received" | "_index") {
            continue;
        }
        // What an agent called its level says the same in another spelling.
        let said = value.as_str().filter(|_| column == "log.level").and_then(|word| word.parse::<Severity>().ok());
        if said.is_some_and(|said| row.get("severity").is_some_and(|severity| severity == said.as_str())) {
            continue;
        }
        if column == "_attrs" {
            let rest: Option<Map<String, Value>> = value.as_str().and_then(|text| serde_json::from_str(text).ok());
            for (field, value) in rest.unwrap_or_default() {
                put(&field, value);
            }
            continue;
        }
        let Some(field) = shown(column) else { continue };
        match (instant(column, value), value.as_str()) {
            (Some(nanos), _) => {
                put(
                    &field,
                    Format::all("strict_date_optional_time_nanos").map_or(Value::Null, |formats| {
                        formats.first().map_or(Value::Null, |format| format.shown(nanos, &TimeZone::UTC).into())
                    }),
                );
            }
            (None, Some(text)) if column != "_msg" && text.starts_with('[') && text.ends_with(']') => {
                put(&field, serde_json::from_str(text).unwrap_or_else(|_| value.clone()));
            }
            _ => put(&field, value.clone()),
        }
    }
    Value::Object(object)
}

/// Puts a value where its name says; where another value stands in the way under the name as it is.
fn place(object: &mut Map<String, Value>, field: &str, value: Value) {
    if let Some((first, rest)) = nested(field) {
        let inner = object.entry(first).or_insert_with(|| json!({}));
        if let Value::Object(inner) = inner {
            return place(inner, rest, value);
        }
    }
    match object.get_mut(field) {
        Some(Value::Object(there)) if value.is_object() => {
            let Value::Object(more) = value else { return };
            there.extend(more);
        }
        // `a` beside `a.b`: what is there first keeps the name.
        Some(Value::Object(_)) => {
            object.insert(format!("{field}."), value);
        }
        _ => {
            object.insert(field.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::field::POINTS_MAX, *};

    fn row() -> Map<String, Value> {
        let row = json!({
            "_time": "2026-01-02T03:04:05.123456789Z", "_received": "2026-01-02T03:04:06Z", "_msg": "it broke",
            "severity": "error", "_segment": "7-0-1", "_offset": 42, "host.name": "a", "host.ip": null,
            "tags": "[\"x\",1]", "_attrs": "{\"deep\":{\"er\":1}}", "took": 5, "#s0": 5,
        });
        row.as_object().unwrap().clone()
    }

    fn hit(body: Value) -> Value {
        Value::Object(Shown::read(body.as_object().unwrap()).unwrap().hit(&row(), "shop"))
    }

    #[test]
    fn sources_are_as_agents_send_them() {
        let whole = json!({
            "@timestamp": "2026-01-02T03:04:05.123456789Z", "message": "it broke", "log": {"level": "error"},
            "host": {"name": "a"}, "tags": ["x", 1], "deep": {"er": 1}, "took": 5,
        });
        assert_eq!(hit(json!({})), json!({"_index": "shop", "_id": "7-0-1-42", "_source": whole}));
        for (source, shown) in [
            (json!(["host", "took"]), json!({"host": {"name": "a"}, "took": 5})),
            (json!("ho*"), json!({"host": {"name": "a"}})),
            (json!({"includes": ["t*", "log"], "excludes": ["tags"]}), json!({"took": 5, "log": {"level": "error"}})),
        ] {
            assert_eq!(hit(json!({"_source": source}))["_source"], shown, "{source}");
        }
        assert_eq!(hit(json!({"_source": false})), json!({"_index": "shop", "_id": "7-0-1-42"}));
    }

    #[test]
    fn names_of_many_points_stay_as_they_are() {
        for (points, is_flat) in [(1, false), (POINTS_MAX, false), (POINTS_MAX + 1, true), (100_000, true)] {
            let name = format!("a{}", ".b".repeat(points));
            let rest = Value::from_iter([(name.clone(), json!(1))]).to_string();
            let row = json!({"_time": null, "_attrs": rest});
            let hit = Shown::read(&Map::new()).unwrap().hit(row.as_object().unwrap(), "shop");
            assert_eq!(hit["_source"].get(&name).is_some(), is_flat, "{points}");
            assert_eq!(hit["_source"].get("a").is_some(), !is_flat, "{points}");
        }
    }

    #[test]
    fn single_fields_are_lists() {
        let fields = json!({
            "_source": false, "seq_no_primary_term": true,
            "fields": ["host.*", {"field": "@timestamp", "format": "epoch_millis"}],
            "docvalue_fields": ["log.level", "host.name.keyword", "nothing"],
        });
        let expected = json!({
            "_index": "shop", "_id": "7-0-1-42", "_seq_no": 42, "_primary_term": 1,
            "fields": {"host.name": ["a"], "@timestamp": ["1767323045123"], "log.level": ["error"], "host.name.keyword": ["a"]},
        });
        assert_eq!(hit(fields), expected);
    }

    #[test]
    fn only_columns_that_are_shown_are_read() {
        let read = |body: Value| {
            Shown::read(body.as_object().unwrap()).unwrap().columns(&super::super::field::tests::some()).join(",")
        };
        assert_eq!(read(json!({})), "*");
        assert_eq!(read(json!({"_source": false})), "\"_time\",\"_segment\",\"_offset\"");
        assert_eq!(read(json!({"_source": false, "fields": ["took"]})), "\"_time\",\"_segment\",\"_offset\",\"took\"");
        let some = read(json!({"_source": ["host"]}));
        assert_eq!(some, "\"_time\",\"_segment\",\"_offset\",\"_attrs\",\"host\",\"host.name\"");
    }
}
