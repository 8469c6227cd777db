//! Tests of rows as conditions of SQL. Pure.
//!
//! Every name stands in `"`, every text in `'`, both doubled inside, so no text of a request ever becomes SQL.

use query::ColumnKind;
use serde_json::Value;
use types::Severity;

use super::{
    clause::{Edge, Test},
    field::{Field, Fields, Typed, quoted},
    moment,
    words::{escaped, glob_regex},
};

/// Conditions in a row; with more they stand in parentheses by halves, so that what nests is not as deep as what is long.
const IN_A_ROW: usize = 8;

/// The condition that a row passes.
pub(crate) fn condition(test: &Test, fields: &Fields) -> String {
    match test {
        Test::Everything => "TRUE".to_owned(),
        Test::Nothing => "FALSE".to_owned(),
        Test::Words { words, least } => of(fields, &Field::Message, |column| {
            let tests: Vec<String> = words.iter().map(|word| word_in(column, word)).collect();
            if *least >= tests.len() { joined(&tests, "AND") } else { at_least(&tests, *least) }
        }),
        Test::Phrase { words, open } => of(fields, &Field::Message, |column| {
            let words: Vec<String> = words.iter().map(|word| escaped(word)).collect();
            let end = if *open { "" } else { r"\b" };
            matches(&column.sql, &format!(r"(?i)\b{}{end}", words.join(r"\b\W+\b")))
        }),
        Test::OneOf { field, values, any_case } => of(fields, field, |column| one_of(field, column, values, *any_case)),
        Test::Between { field, from, to } => of(fields, field, |column| between(column, from.as_ref(), to.as_ref())),
        Test::Within { field, from, until } => of(fields, field, |column| {
            let from = from.map(|at| format!("{} >= {}", column.sql, moment::sql(at)));
            let until = until.map(|at| format!("{} < {}", column.sql, moment::sql(at)));
            all(from.into_iter().chain(until), &column.sql)
        }),
        Test::Exists(field) => of(fields, field, |column| format!("{} IS NOT NULL", column.sql)),
        Test::Like { field, glob, any_case } => of(fields, field, |column| like(field, column, glob, *any_case)),
        Test::Matches { field, regex, any_case } => of(fields, field, |column| {
            let flags = if *any_case || *field == Field::Message { "(?is)" } else { "(?s)" };
            let whole = if *field == Field::Message { regex.clone() } else { format!("^(?:{regex})$") };
            matches(&column.text(), &format!("{flags}{whole}"))
        }),
        Test::At(places) => {
            let one = |place: &types::Position| {
                format!("\"_segment\" = {} AND \"_offset\" = {}", quoted(&place.segment.to_string()), place.offset)
            };
            joined(&places.iter().map(one).collect::<Vec<_>>(), "OR")
        }
        Test::All(tests) => joined(&tests.iter().map(|test| condition(test, fields)).collect::<Vec<_>>(), "AND"),
        Test::Any { of, least } => {
            let tests: Vec<String> = of.iter().map(|test| condition(test, fields)).collect();
            at_least(&tests, *least)
        }
        Test::Not(test) => format!("({}) IS NOT TRUE", condition(test, fields)),
    }
}

/// A condition on a field; what nobody has passes none.
fn of(fields: &Fields, field: &Field, make: impl FnOnce(&Typed) -> String) -> String {
    fields.typed(field).map_or_else(|| "FALSE".to_owned(), |column| make(&column))
}

/// Conditions in parentheses with a word between them.
pub(crate) fn joined(tests: &[String], word: &str) -> String {
    match tests {
        [] => if word == "AND" { "TRUE" } else { "FALSE" }.to_owned(),
        [one] => one.clone(),
        few if few.len() <= IN_A_ROW => {
            few.iter().map(|test| format!("({test})")).collect::<Vec<_>>().join(&format!(" {word} "))
        }
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            format!("({}) {word} ({})", joined(left, word), joined(right, word))
        }
    }
}

fn at_least(tests: &[String], least: usize) -> String {
    if least <= 1 {
        return joined(tests, "OR");
    }
    format!("{} >= {least}", sum(tests))
}

/// How many of them hold.
fn sum(tests: &[String]) -> String {
    match tests {
        [one] => format!("CASE WHEN {one} THEN 1 ELSE 0 END"),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            format!("({} + {})", sum(left), sum(right))
        }
    }
}

fn all(tests: impl Iterator<Item = String>, column: &str) -> String {
    let tests: Vec<String> = tests.collect();
    if tests.is_empty() { format!("{column} IS NOT NULL") } else { tests.join(" AND ") }
}

fn matches(column: &str, regex: &str) -> String {
    format!("{column} ~ {}", quoted(regex))
}

fn word_in(column: &Typed, word: &str) -> String {
    matches(&column.sql, &format!(r"(?i)\b{}\b", escaped(word)))
}

fn one_of(field: &Field, column: &Typed, values: &[Value], any_case: bool) -> String {
    let mut constants: Vec<String> = Vec::new();
    for value in values {
        let text = shown(value);
        let constant = match column.kind {
            // Severities are words of ours, however an agent wrote them.
            _ if is_severity(field, column) => text.parse::<Severity>().ok().map(|severity| quoted(severity.as_str())),
            ColumnKind::Integer | ColumnKind::Number => number(value).map(sql_number),
            ColumnKind::Boolean => text.parse::<bool>().ok().map(|flag| flag.to_string()),
            ColumnKind::Time => None,
            ColumnKind::Text | ColumnKind::Other if any_case => Some(quoted(&text.to_lowercase())),
            ColumnKind::Text | ColumnKind::Other => Some(quoted(&text)),
        };
        constants.extend(constant);
    }
    let sql = if any_case && column.kind == ColumnKind::Text && !is_severity(field, column) {
        format!("lower({})", column.sql)
    } else {
        column.sql.clone()
    };
    constants.sort_unstable();
    constants.dedup();
    match constants.as_slice() {
        [] => "FALSE".to_owned(),
        [one] => format!("{sql} = {one}"),
        several => format!("{sql} IN ({})", several.join(", ")),
    }
}

/// Also `level`, where nothing else is called so.
fn is_severity(field: &Field, column: &Typed) -> bool {
    *field == Field::Severity || column.sql == "\"severity\""
}

fn between(column: &Typed, from: Option<&Edge>, to: Option<&Edge>) -> String {
    let one = |edge: &Edge, above: bool| {
        let sign = match (above, edge.included) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        match column.kind {
            ColumnKind::Integer | ColumnKind::Number => match number(&edge.value) {
                Some(number) => format!("{} {sign} {}", column.sql, sql_number(number)),
                None => "FALSE".to_owned(),
            },
            // What came as text in one event may be a number in all others.
            ColumnKind::Text if edge.value.is_number() => match number(&edge.value) {
                Some(number) => format!("{} {sign} {}", column.number(), sql_number(number)),
                None => "FALSE".to_owned(),
            },
            _ => format!("{} {sign} {}", column.text(), quoted(&shown(&edge.value))),
        }
    };
    let from = from.map(|edge| one(edge, true));
    let to = to.map(|edge| one(edge, false));
    all(from.into_iter().chain(to), &column.sql)
}

fn like(field: &Field, column: &Typed, glob: &str, any_case: bool) -> String {
    if !glob.is_empty() && glob.chars().all(|c| c == '*') {
        return format!("{} IS NOT NULL", column.sql);
    }
    if *field == Field::Message {
        let (begin, end) = (glob.starts_with(['*', '?']), glob.ends_with(['*', '?']));
        let begin = if begin { "" } else { r"\b" };
        let end = if end { "" } else { r"\b" };
        let inner = glob_regex(glob.trim_start_matches('*').trim_end_matches('*'), r"\w*", r"\w");
        return matches(&column.sql, &format!("(?i){begin}{inner}{end}"));
    }
    let glob = if is_severity(field, column) { glob.to_lowercase() } else { glob.to_owned() };
    let flags = if any_case { "(?is)" } else { "(?s)" };
    matches(&column.text(), &format!("{flags}^{}$", glob_regex(&glob, ".*", ".")))
}

/// A value as text.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number, exact where it is whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Whole(i64),
    Decimal(f64),
}

fn number(value: &Value) -> Option<Number> {
    let text = shown(value);
    if let Ok(whole) = text.parse() {
        return Some(Number::Whole(whole));
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Decimal)
}

fn sql_number(number: Number) -> String {
    match number {
        Number::Whole(number) if number < 0 => format!("({number})"),
        Number::Whole(number) => number.to_string(),
        Number::Decimal(number) => decimal(number),
    }
}

/// A finite number; a sign must not meet another.
pub(crate) fn decimal(number: f64) -> String {
    if number < 0.0 { format!("({number:?})") } else { format!("{number:?}") }
}

/// A query that is read at 2026-01-02T03:04:05Z.
#[cfg(test)]
pub(crate) fn reading() -> super::clause::Reading {
    super::clause::Reading::new(types::Timestamp::from_millis(1_767_323_045_000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::field::tests::some, *};

    fn sql(query: Value) -> String {
        let test = reading().query(&query).unwrap_or_else(|refused| panic!("{query}: {refused}"));
        let sql = condition(&test, &some());
        let text = format!("SELECT * FROM shop WHERE {sql}");
        query::parse_select(&text).unwrap_or_else(|found| panic!("{text}: {found}"));
        sql
    }

    #[test]
    fn queries_become_conditions() {
        for (query, expected) in [
            (json!({"match_all": {}}), "TRUE"),
            (json!({"term": {"host.name": "it's"}}), "\"host.name\" = 'it''s'"),
            (
                json!({"term": {"host.name.keyword": {"value": "A", "case_insensitive": true}}}),
                "lower(\"host.name\") = 'a'",
            ),
            (json!({"terms": {"took": [1, "2", "x", -3]}}), "\"took\" IN ((-3), 1, 2)"),
            (json!({"term": {"ok": true}}), "\"ok\" = true"),
            (json!({"term": {"log.level": "ERROR"}}), "\"severity\" = 'error'"),
            (json!({"term": {"level": "warning"}}), "\"severity\" = 'warn'"),
            (json!({"term": {"nothing": "x"}}), "FALSE"),
            (json!({"exists": {"field": "host.name"}}), "\"host.name\" IS NOT NULL"),
            (
                json!({"match": {"message": "Time-out of"}}),
                r#"("_msg" ~ '(?i)\btime\b') OR ("_msg" ~ '(?i)\bout\b') OR ("_msg" ~ '(?i)\bof\b')"#,
            ),
            (
                json!({"match": {"message": {"query": "a b", "operator": "AND"}}}),
                r#"("_msg" ~ '(?i)\ba\b') AND ("_msg" ~ '(?i)\bb\b')"#,
            ),
            (json!({"match_phrase": {"message": "timed out"}}), r#""_msg" ~ '(?i)\btimed\b\W+\bout\b'"#),
            (json!({"match_phrase_prefix": {"message": "tim"}}), r#""_msg" ~ '(?i)\btim'"#),
            (json!({"match": {"host.name": "a b"}}), "\"host.name\" = 'a b'"),
            (json!({"prefix": {"host.name": "a.*"}}), r#""host.name" ~ '(?s)^a\.\*.*$'"#),
            (json!({"wildcard": {"message": {"value": "time*"}}}), r#""_msg" ~ '(?i)\btime'"#),
            (json!({"regexp": {"host.name": "a[0-9]+@"}}), r#""host.name" ~ '(?s)^(?:a[0-9]+.*)$'"#),
            (json!({"range": {"took": {"gt": 5, "lte": "7.5"}}}), "\"took\" > 5 AND \"took\" <= 7.5"),
            (
                json!({"range": {"@timestamp": {"gte": "2026-01-02", "lte": "2026-01-02"}}}),
                "\"_time\" >= TIMESTAMP '2026-01-02 00:00:00' AND \"_time\" < TIMESTAMP '2026-01-03 00:00:00'",
            ),
            (
                json!({"range": {"@timestamp": {"gt": 1000, "lt": 2000, "format": "epoch_millis"}}}),
                "\"_time\" >= TIMESTAMP '1970-01-01 00:00:01.001' AND \"_time\" < TIMESTAMP '1970-01-01 00:00:02'",
            ),
            (json!({"range": {"@timestamp": {"gte": "now-15m/m"}}}), "\"_time\" >= TIMESTAMP '2026-01-02 02:49:00'"),
            (json!({"ids": {"values": ["7-0-1-42", "x"]}}), "\"_segment\" = '7-0-1' AND \"_offset\" = 42"),
            (json!({"bool": {"must_not": {"exists": {"field": "took"}}}}), "(\"took\" IS NOT NULL) IS NOT TRUE"),
            (
                json!({"bool": {"should": [{"term": {"took": 1}}, {"term": {"took": 2}}], "filter": [{"term": {"ok": true}}]}}),
                "\"ok\" = true",
            ),
            (
                json!({"bool": {"should": [{"term": {"took": 1}}, {"term": {"took": 2}}, {"term": {"took": 3}}], "minimum_should_match": 2}}),
                "(CASE WHEN \"took\" = 1 THEN 1 ELSE 0 END + (CASE WHEN \"took\" = 2 THEN 1 ELSE 0 END + CASE WHEN \"took\" = 3 THEN 1 ELSE 0 END)) >= 2",
            ),
            (json!({"constant_score": {"filter": {"term": {"took": 1}}}}), "\"took\" = 1"),
            (
                json!({"multi_match": {"query": "a", "fields": ["message", "host.name^2"]}}),
                r#"("_msg" ~ '(?i)\ba\b') OR ("host.name" = 'a')"#,
            ),
            (
                json!({"multi_match": {"query": "a b", "type": "phrase", "lenient": true}}),
                r#""_msg" ~ '(?i)\ba\b\W+\bb\b'"#,
            ),
            (
                json!({"query_string": {"query": "-level:error +took:>=5", "analyze_wildcard": true}}),
                "(\"took\" >= 5) AND ((\"severity\" = 'error') IS NOT TRUE)",
            ),
        ] {
            assert_eq!(sql(query.clone()), expected, "{query}");
        }
    }

    #[test]
    fn long_queries_are_not_deep() {
        let clause = |i: usize| json!({"match_phrase": {"host.name": format!("pod {i}")}});
        let many: Vec<Value> = (0..600).map(clause).collect();
        sql(json!({"bool": {"should": many.clone(), "minimum_should_match": 1}}));
        sql(json!({"bool": {"should": many[..200].to_vec(), "minimum_should_match": 3}}));
        let deep = (0..15).fold(
            json!({"term": {"took": 1}}),
            |inner, i| json!({"bool": {"must": [inner, {"term": {"took": i}}], "must_not": {"term": {"took": 99}}}}),
        );
        sql(deep);
    }
}
