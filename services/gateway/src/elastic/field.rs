//! Which name of Elasticsearch's is which column of ours. Pure.

use std::collections::BTreeMap;

use query::{Column, ColumnKind};
use serde_json::{Map, Value, json};
use types::IndexName;

use super::words::is_like;

/// What stands behind a name that one of the table below has taken.
const EXTRACTED: &str = "_extracted";
/// Points of a name that become objects in objects: readers have no room for more.
pub(super) const POINTS_MAX: usize = 32;

/// Names with a meaning, and what else they may be called.
const MEANT: [(&str, &str, Field); 4] = [
    ("@timestamp", "_time", Field::Time),
    ("message", "_msg", Field::Message),
    ("log.level", "severity", Field::Severity),
    ("_received", "_received", Field::Received),
];

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    /// The time of an event.
    Time,
    /// When it came.
    Received,
    /// Its text, of which words are looked for.
    Message,
    /// The same text as a whole.
    MessageWhole,
    Severity,
    /// Where it lies.
    Id,
    Index,
    /// A column of this name.
    Column(String),
}

impl Field {
    /// What the name means, whatever columns there are.
    pub(crate) fn of(name: &str) -> Self {
        let whole = name.strip_suffix(".keyword");
        let plain = whole.unwrap_or(name);
        if let Some((_, _, field)) = MEANT.iter().find(|(name, other, _)| plain == *name || plain == *other) {
            return if *field == Self::Message && whole.is_some() { Self::MessageWhole } else { field.clone() };
        }
        match name {
            "_id" => Self::Id,
            "_index" => Self::Index,
            _ => Self::Column(match name.strip_suffix(EXTRACTED) {
                Some(taken) if is_taken(taken) => taken.to_owned(),
                _ => name.to_owned(),
            }),
        }
    }

    /// Whether its values are instants.
    pub(crate) fn is_time(&self) -> bool {
        matches!(self, Self::Time | Self::Received)
    }
}

fn is_taken(name: &str) -> bool {
    MEANT.iter().any(|(known, _, _)| *known == name)
}

/// A value in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) sql: String,
    pub(crate) kind: ColumnKind,
}

impl Typed {
    fn new(sql: impl Into<String>, kind: ColumnKind) -> Self {
        Self { sql: sql.into(), kind }
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        if self.kind == ColumnKind::Text { self.sql.clone() } else { format!("CAST({} AS TEXT)", self.sql) }
    }

    /// As a number, null where it is none; instants are milliseconds.
    pub(crate) fn number(&self) -> String {
        match self.kind {
            ColumnKind::Integer | ColumnKind::Number => format!("CAST({} AS DOUBLE)", self.sql),
            ColumnKind::Boolean => format!("CAST(CAST({} AS INT) AS DOUBLE)", self.sql),
            ColumnKind::Time => format!("CAST(CAST({} AS BIGINT) / 1000000 AS DOUBLE)", self.sql),
            ColumnKind::Text | ColumnKind::Other => format!("TRY_CAST({} AS DOUBLE)", self.sql),
        }
    }
}

/// The object of a name with points, and what it is called in there; `None` where the name stays as it is.
pub(super) fn nested(name: &str) -> Option<(&str, &str)> {
    let parts = name.split_once('.').filter(|(first, rest)| !first.is_empty() && !rest.is_empty());
    parts.filter(|_| name.matches('.').nth(POINTS_MAX).is_none())
}

/// A name in SQL.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The columns of what is asked.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    columns: BTreeMap<String, ColumnKind>,
    /// All rows.
    relation: String,
    /// What gives the name of a row's index.
    index: String,
}

impl Fields {
    /// Of indexes with these columns; a column of two kinds is text.
    pub(crate) fn of(all: &BTreeMap<IndexName, Vec<Column>>) -> Self {
        let mut columns: BTreeMap<String, ColumnKind> = BTreeMap::new();
        for column in all.values().flatten() {
            let kind = columns.entry(column.name.clone()).or_insert(column.kind);
            let numbers = [*kind, column.kind].iter().all(|k| matches!(k, ColumnKind::Integer | ColumnKind::Number));
            if *kind != column.kind {
                *kind = if numbers { ColumnKind::Number } else { ColumnKind::Text };
            }
        }
        let mut indexes = all.keys();
        if let (Some(one), None) = (indexes.next(), indexes.next()) {
            return Self { columns, relation: name(one.as_str()), index: quoted(one.as_str()) };
        }
        let part = |(index, own): (&IndexName, &Vec<Column>)| {
            let value = |(column, kind): (&String, &ColumnKind)| {
                let of = sql_type(*kind);
                let value = match own.iter().find(|known| known.name == *column) {
                    Some(known) if known.kind == *kind => name(column),
                    Some(_) => format!("CAST({} AS {of})", name(column)),
                    None => format!("CAST(NULL AS {of})"),
                };
                format!("{value} AS {}", name(column))
            };
            let list: Vec<String> = columns.iter().map(value).collect();
            let (from, index) = (name(index.as_str()), quoted(index.as_str()));
            format!("SELECT {index} AS \"_index\", {} FROM {from}", list.join(", "))
        };
        let parts: Vec<String> = all.iter().map(part).collect();
        Self { columns, relation: format!("({})", parts.join(" UNION ALL ")), index: name("_index") }
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// The relation to select from.
    pub(crate) fn from(&self) -> String {
        if self.relation.starts_with('(') { format!("{} AS \"#b\"", self.relation) } else { self.relation.clone() }
    }

    /// The same, called `#b`.
    pub(crate) fn aliased(&self) -> String {
        format!("{} AS \"#b\"", self.relation)
    }

    /// What gives the name of a row's index.
    pub(crate) fn index(&self) -> &str {
        &self.index
    }

    /// The value of a field; `None` where no event has it.
    pub(crate) fn typed(&self, field: &Field) -> Option<Typed> {
        let own = |column: &str| self.columns.get(column).map(|kind| Typed::new(name(column), *kind));
        match field {
            Field::Time => own("_time"),
            Field::Received => own("_received"),
            Field::Message | Field::MessageWhole => own("_msg"),
            Field::Severity => own("severity"),
            Field::Id => Some(Typed::new("(\"_segment\" || '-' || CAST(\"_offset\" AS TEXT))", ColumnKind::Text)),
            Field::Index => Some(Typed::new(self.index.clone(), ColumnKind::Text)),
            Field::Column(column) => own(column)
                .or_else(|| own(column.strip_suffix(".keyword")?))
                .or_else(|| if column == "level" { own("severity") } else { None }),
        }
    }

    /// The fields as Elasticsearch calls them, with their columns.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, &str, ColumnKind)> {
        self.columns.iter().filter_map(|(column, kind)| Some((shown(column)?, column.as_str(), *kind)))
    }
}

fn sql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Other => "TEXT",
        ColumnKind::Integer => "BIGINT",
        ColumnKind::Number => "DOUBLE",
        ColumnKind::Boolean => "BOOLEAN",
        ColumnKind::Time => "TIMESTAMP",
    }
}

/// How a column is called; `None` where it tells only where an event lies, or holds many fields.
pub(crate) fn shown(column: &str) -> Option<String> {
    if let Some((shown, _, _)) = MEANT.iter().find(|(_, own, _)| *own == column) {
        return Some((*shown).to_owned());
    }
    match column {
        "_segment" | "_offset" | "_attrs" => None,
        taken if is_taken(taken) => Some(format!("{taken}{EXTRACTED}")),
        plain => Some(plain.to_owned()),
    }
}

/// The type that Elasticsearch's clients are told.
pub(crate) fn type_of(column: &str, kind: ColumnKind) -> &'static str {
    match kind {
        _ if column == "_msg" => "text",
        ColumnKind::Time => "date",
        ColumnKind::Integer => "long",
        ColumnKind::Number => "double",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Text | ColumnKind::Other => "keyword",
    }
}

/// The answer to `_mapping` about one index: objects in objects, as its agents sent them.
pub(crate) fn mapping(fields: &Fields) -> Value {
    let mut properties = Map::new();
    for (name, column, kind) in fields.named() {
        let mut of = json!({ "type": type_of(column, kind) });
        if column == "_msg" {
            of["fields"] = json!({ "keyword": { "type": "keyword" } });
        }
        put_mapping(&mut properties, &name, of);
    }
    json!({ "mappings": { "properties": properties } })
}

fn put_mapping(properties: &mut Map<String, Value>, name: &str, of: Value) {
    if let Some((first, rest)) = nested(name) {
        let inner = properties.entry(first).or_insert_with(|| json!({ "properties": {} }));
        if let Some(Value::Object(inner)) = inner.get_mut("properties") {
            return put_mapping(inner, rest, of);
        }
    }
    // Also where `a` and `a.b` both are fields, which Elasticsearch does not have.
    properties.insert(name.to_owned(), of);
}

/// The answer to `_field_caps` for patterns.
pub(crate) fn capabilities(fields: &Fields, patterns: &[String]) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, of: &str, metadata: bool| {
        if patterns.iter().any(|pattern| is_like(pattern, name)) {
            let caps =
                json!({ "type": of, "metadata_field": metadata, "searchable": true, "aggregatable": of != "text" });
            all.insert(name.to_owned(), json!({ of: caps }));
        }
    };
    for (name, of) in [("_id", "_id"), ("_index", "_index")] {
        put(name, of, true);
    }
    for (name, column, kind) in fields.named() {
        put(&name, type_of(column, kind), false);
        if column == "_msg" {
            put("message.keyword", "keyword", false);
        }
    }
    Value::Object(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The fields of an index with some columns of every kind.
    pub(crate) fn some() -> Fields {
        let column = |(name, kind): (&str, ColumnKind)| Column { name: name.to_owned(), kind };
        let columns = [
            ("_time", ColumnKind::Time),
            ("_received", ColumnKind::Time),
            ("_msg", ColumnKind::Text),
            ("severity", ColumnKind::Text),
            ("_segment", ColumnKind::Text),
            ("_offset", ColumnKind::Integer),
            ("host.name", ColumnKind::Text),
            ("host", ColumnKind::Text),
            ("took", ColumnKind::Integer),
            ("ratio", ColumnKind::Number),
            ("ok", ColumnKind::Boolean),
            ("message", ColumnKind::Text),
            ("_attrs", ColumnKind::Text),
        ];
        let own = columns.map(column).to_vec();
        Fields::of(&BTreeMap::from([("shop".parse().unwrap(), own)]))
    }

    #[test]
    fn names_mean_columns() {
        let fields = some();
        for (name, sql) in [
            ("@timestamp", Some("\"_time\"")),
            ("message", Some("\"_msg\"")),
            ("message.keyword", Some("\"_msg\"")),
            ("message_extracted", Some("\"message\"")),
            ("log.level", Some("\"severity\"")),
            ("level", Some("\"severity\"")),
            ("host.name", Some("\"host.name\"")),
            ("host.name.keyword", Some("\"host.name\"")),
            ("nothing", None),
            ("_index", Some("'shop'")),
        ] {
            assert_eq!(fields.typed(&Field::of(name)).map(|typed| typed.sql).as_deref(), sql, "{name}");
        }
        assert_eq!(Field::of("message.keyword"), Field::MessageWhole);
    }

    #[test]
    fn clients_are_told_types() {
        let mapping = mapping(&some());
        let properties = &mapping["mappings"]["properties"];
        assert_eq!(properties["@timestamp"], json!({ "type": "date" }));
        assert_eq!(properties["message"]["fields"]["keyword"]["type"], "keyword");
        assert_eq!(properties["log"]["properties"]["level"], json!({ "type": "keyword" }));
        assert_eq!(properties["host"]["type"], "keyword");
        assert_eq!((&properties["took"]["type"], &properties["ok"]["type"]), (&json!("long"), &json!("boolean")));
        let caps = capabilities(&some(), &["mess*".to_owned(), "took".to_owned()]);
        assert_eq!(caps["message"]["text"]["aggregatable"], false);
        assert_eq!(caps["took"]["long"]["aggregatable"], true);
        let mut names: Vec<_> = caps.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["message", "message.keyword", "message_extracted", "took"]);
    }

    #[test]
    fn mappings_are_not_deeper_than_readers_go() {
        for (points, is_flat) in [(POINTS_MAX, false), (POINTS_MAX + 1, true)] {
            let name = format!("a{}", ".b".repeat(points));
            let column = Column { name: name.clone(), kind: ColumnKind::Text };
            let mapping = mapping(&Fields::of(&BTreeMap::from([("shop".parse().unwrap(), vec![column])])));
            assert_eq!(mapping["mappings"]["properties"].get(&name).is_some(), is_flat, "{points}");
        }
    }

    #[test]
    fn several_indexes_are_one_relation() {
        let own = |kind| vec![Column { name: "took".to_owned(), kind }];
        let all = BTreeMap::from([
            ("a".parse().unwrap(), own(ColumnKind::Integer)),
            ("b".parse().unwrap(), own(ColumnKind::Text)),
        ]);
        let fields = Fields::of(&all);
        assert_eq!(
            fields.from(),
            "(SELECT 'a' AS \"_index\", CAST(\"took\" AS TEXT) AS \"took\" FROM \"a\" \
             UNION ALL SELECT 'b' AS \"_index\", \"took\" AS \"took\" FROM \"b\") AS \"#b\""
        );
    }
}
