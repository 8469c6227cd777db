//! A request for hits and aggregations, and its statements. Pure.

use serde_json::{Map, Value, json};
use types::Timestamp;

use super::{
    aggregation::{self, Aggregation},
    clause::{Reading, Test, operator_is_and},
    condition::{condition, joined},
    field::Fields,
    lucene,
    refused::{Refused, count, flag, known, object, texts},
    shown::{PATTERNS_MAX, Shown},
    sort::{After, Sort},
};

/// How deep pages go, as in Elasticsearch.
pub(crate) const WINDOW_MAX: usize = 10_000;
/// Hits that are counted where nothing is said.
const COUNTED: u64 = 10_000;
/// The longest pattern of a request for the capabilities of fields.
const PATTERN_BYTES_MAX: usize = 1_024;

/// What changes nothing here: how Elasticsearch is to go about it, or what is off anyway.
const IGNORED: [&str; 9] = [
    "timeout",
    "terminate_after",
    "stored_fields",
    "stats",
    "track_scores",
    "indices_boost",
    "preference",
    "profile",
    "explain",
];

/// What is answered.
const MEMBERS: [&str; 17] = [
    "query",
    "post_filter",
    "from",
    "size",
    "sort",
    "search_after",
    "track_total_hits",
    "_source",
    "fields",
    "docvalue_fields",
    "highlight",
    "aggs",
    "aggregations",
    "version",
    "seq_no_primary_term",
    "min_score",
    "runtime_mappings",
];

/// What is refused unless it is off.
const ABSENT: [&str; 11] =
    ["script_fields", "suggest", "rescore", "collapse", "pit", "slice", "knn", "rank", "retriever", "ext", "scroll"];

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Search {
    pub(crate) query: Test,
    hits: Test,
    from: usize,
    pub(crate) size: usize,
    pub(crate) sort: Sort,
    after: Option<After>,
    pub(crate) count: Counted,
    pub(crate) shown: Shown,
    pub(crate) aggregations: Vec<Aggregation>,
}

/// Which hits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    All,
    UpTo(u64),
    None,
}

impl Search {
    /// Reads a body, and what the query string of the request says besides.
    pub(crate) fn read(body: &Value, uri: &[(String, String)], now: Timestamp) -> Result<Self, Refused> {
        let mut members = object(body, "search")?.clone();
        let query = from_uri(&mut members, uri)?;
        for (name, value) in &members {
            let off = matches!(value, Value::Null | Value::Bool(false))
                || value == "false"
                || value.as_object().is_some_and(Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            match name.as_str() {
                "profile" | "explain" | "runtime_mappings" if !off => return Err(Refused::absent(name)),
                name if IGNORED.contains(&name) || MEMBERS.contains(&name) => {}
                name if !ABSENT.contains(&name) => {
                    return Err(Refused::parsing(format!("unknown key [{name}] in the search")));
                }
                name if !off => return Err(Refused::absent(name)),
                _ => {}
            }
        }
        let reading = Reading::new(now);
        let asked = |name: &str| members.get(name).filter(|query| !query.is_null()).map(|query| reading.query(query));
        let mut tests = vec![asked("query").unwrap_or(Ok(Test::Everything))?];
        if let Some(query) = query {
            tests.push(lucene::plain(&reading, &query.text, &query.fields, query.every)?);
        }
        let query = Test::all(tests);
        let post = asked("post_filter").unwrap_or(Ok(Test::Everything))?;
        // All hits have the score 1.
        let hits = match members.get("min_score").and_then(Value::as_f64) {
            Some(least) if least > 1.0 => Test::Nothing,
            _ => Test::all(vec![query.clone(), post]),
        };
        let number = |name: &str, default| members.get(name).map_or(Ok(default), |value| count(value, name));
        let (from, size) = (number("from", 0)?, number("size", 10)?);
        if from.saturating_add(size) > WINDOW_MAX {
            let reason = format!(
                "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{}]; page with search_after",
                from.saturating_add(size)
            );
            return Err(Refused::illegal(reason));
        }
        let sort = Sort::read(members.get("sort").filter(|sort| !sort.is_null()))?;
        let after = members.get("search_after").filter(|after| !after.is_null());
        let after = after.map(|after| sort.after(after)).transpose()?;
        if after.is_some() && from > 0 {
            return Err(Refused::illegal("`from` parameter must be set to 0 when `search_after` is used."));
        }
        let counted = match members.get("track_total_hits") {
            None | Some(Value::Null) => Counted::UpTo(COUNTED),
            Some(Value::Number(number)) => Counted::UpTo(number.as_u64().unwrap_or(COUNTED)),
            Some(Value::String(text)) if text.parse::<u64>().is_ok() => Counted::UpTo(text.parse().unwrap_or(COUNTED)),
            Some(given) if flag(given, "track_total_hits")? => Counted::All,
            Some(_) => Counted::None,
        };
        let mut shown = Shown::read(&members)?;
        if let Some(highlight) = &mut shown.highlight {
            highlight.look_for(&hits);
        }
        let aggregations = match (members.get("aggs"), members.get("aggregations")) {
            (Some(_), Some(_)) => {
                return Err(Refused::parsing("Found two aggregation trees: [aggs] and [aggregations]"));
            }
            (None, None) => Vec::new(),
            (Some(given), _) | (_, Some(given)) => aggregation::read(&reading, given)?,
        };
        Ok(Self { query, hits, from, size, sort, after, count: counted, shown, aggregations })
    }

    /// Whether it begins with the first hit.
    pub(crate) fn is_first_page(&self) -> bool {
        self.from == 0 && self.after.is_none()
    }

    /// The statement of the hits.
    pub(crate) fn hits(&self, fields: &Fields) -> String {
        let mut columns = self.shown.columns(fields);
        columns.push(format!("{} AS \"#index\"", fields.index()));
        columns.extend(self.sort.columns(fields));
        let mut tests = vec![condition(&self.hits, fields)];
        tests.extend(self.after.as_ref().map(|after| self.sort.behind(after, fields)));
        let order = self.sort.order(fields);
        let skip = if self.from > 0 { format!(" OFFSET {}", self.from) } else { String::new() };
        format!(
            "SELECT {} FROM {}{} ORDER BY {order} LIMIT {}{skip}",
            columns.join(", "),
            fields.from(),
            filtered(&tests),
            self.size
        )
    }

    /// The statement that counts hits; those above a bound as one.
    pub(crate) fn total(&self, fields: &Fields) -> String {
        let tests = filtered(&[condition(&self.hits, fields)]);
        let from = fields.from();
        match self.count {
            Counted::UpTo(most) => {
                let most = most.saturating_add(1);
                format!("SELECT count(*) AS \"n\" FROM (SELECT \"_offset\" FROM {from}{tests} LIMIT {most}) AS \"#h\"")
            }
            Counted::All | Counted::None => format!("SELECT count(*) AS \"n\" FROM {from}{tests}"),
        }
    }
}

fn filtered(tests: &[String]) -> String {
    let tests: Vec<String> = tests.iter().filter(|test| *test != "TRUE").cloned().collect();
    if tests.is_empty() { String::new() } else { format!(" WHERE {}", joined(&tests, "AND")) }
}

/// The query of a query string.
struct UriQuery {
    text: String,
    fields: Vec<String>,
    every: bool,
}

/// Takes over what the query string says; it counts more than the body.
fn from_uri(members: &mut Map<String, Value>, uri: &[(String, String)]) -> Result<Option<UriQuery>, Refused> {
    let mut query = None;
    let (mut fields, mut every) = (Vec::new(), false);
    let mut source: Option<Map<String, Value>> = None;
    for (name, value) in uri {
        let list = || value.split(',').map(|one| json!(one)).collect::<Value>();
        match name.as_str() {
            "q" => query = Some(value.clone()),
            "df" => fields = vec![value.clone()],
            "default_operator" => every = operator_is_and(value)?,
            "from" | "size" | "track_total_hits" | "version" | "seq_no_primary_term" | "explain" => {
                members.insert(name.clone(), value.as_str().into());
            }
            "sort" => {
                let one = |key: &str| match key.rsplit_once(':') {
                    Some((field, order)) => json!({ field: order }),
                    None => json!(key),
                };
                members.insert(name.clone(), value.split(',').map(one).collect());
            }
            "_source" | "docvalue_fields" => {
                members.insert(name.clone(), list());
            }
            "_source_includes" | "_source_excludes" | "_source_include" | "_source_exclude" => {
                let name = name.trim_start_matches("_source_");
                source.get_or_insert_default().insert(format!("{}s", name.trim_end_matches('s')), list());
            }
            "scroll" => {
                let reason =
                    "[scroll] is not supported here: sort by [@timestamp] and [_doc], and page with search_after";
                return Err(Refused::illegal(reason));
            }
            "typed_keys" if flag(&value.as_str().into(), name)? => return Err(Refused::absent("typed_keys")),
            _ => {}
        }
    }
    if let Some(source) = source {
        members.insert("_source".to_owned(), Value::Object(source));
    }
    Ok(query.map(|text| UriQuery { text, fields, every }))
}

/// The query of a request that only counts.
pub(crate) fn count_query(body: &Value, uri: &[(String, String)], now: Timestamp) -> Result<Search, Refused> {
    known(object(body, "count")?, &["query"], "count")?;
    let mut search = Search::read(body, uri, now)?;
    search.count = Counted::All;
    Ok(search)
}

/// The patterns of a request for the capabilities of fields.
pub(crate) fn patterns(body: &Value, uri: &[(String, String)]) -> Result<Vec<String>, Refused> {
    let members = object(body, "field_caps")?;
    known(members, &["fields", "index_filter", "runtime_mappings"], "field_caps")?;
    let uri = uri.iter().find(|(name, _)| name == "fields").map(|(_, fields)| fields);
    let patterns: Vec<String> = match (uri, members.get("fields")) {
        (Some(fields), _) => fields.split(',').map(str::to_owned).collect(),
        (None, Some(fields)) => texts(fields, "fields")?,
        (None, None) => return Err(Refused::illegal("specified fields can't be null or empty")),
    };
    if patterns.len() > PATTERNS_MAX {
        return Err(Refused::illegal(format!("more than {PATTERNS_MAX} patterns of fields")));
    }
    // Each is compared with every field.
    if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return Err(Refused::illegal(format!("a pattern of fields is longer than {PATTERN_BYTES_MAX} bytes")));
    }
    Ok(patterns)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
