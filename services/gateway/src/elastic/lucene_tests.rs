use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{
        condition::{condition, reading},
        field::tests::some,
    },
    *,
};

fn sql(query: &str, more: Value) -> String {
    let mut body = json!({ "query": query });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kind = if body.get("simple").is_some() { "simple_query_string" } else { "query_string" };
    body.as_object_mut().unwrap().remove("simple");
    let test = reading().query(&json!({ kind: body })).unwrap_or_else(|refused| panic!("{query}: {refused}"));
    condition(&test, &some()).replace(r"(?i)\b", "").replace(r"\b", "")
}

#[test]
fn texts_of_grafana_and_kibana() {
    for (query, expected) in [
        ("*", "TRUE"),
        ("*:*", "TRUE"),
        ("a", "\"_msg\" ~ 'a'"),
        ("a b", "(\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')"),
        ("a AND b OR c", "(\"_msg\" ~ 'a') AND (\"_msg\" ~ 'b')"),
        ("(a OR b) AND NOT c", "((\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')) AND ((\"_msg\" ~ 'c') IS NOT TRUE)"),
        ("a && !b", "(\"_msg\" ~ 'a') AND ((\"_msg\" ~ 'b') IS NOT TRUE)"),
        ("NOT a", "(\"_msg\" ~ 'a') IS NOT TRUE"),
        ("host.name:\"web shop\"", "\"host.name\" = 'web shop'"),
        ("host.name:web\\ shop", "\"host.name\" = 'web shop'"),
        ("host.name:(a OR b)", "(\"host.name\" = 'a') OR (\"host.name\" = 'b')"),
        ("host.name:web*", "\"host.name\" ~ '(?s)^web.*$'"),
        ("host.name:/web[0-9]\\/x/", "\"host.name\" ~ '(?s)^(?:web[0-9]/x)$'"),
        ("host.name:*", "\"host.name\" IS NOT NULL"),
        ("_exists_:took", "\"took\" IS NOT NULL"),
        ("took:[1 TO 5}", "\"took\" >= 1 AND \"took\" < 5"),
        ("took:[* TO 5]", "\"took\" <= 5"),
        ("took:>=5 AND took:<7", "(\"took\" >= 5) AND (\"took\" < 7)"),
        ("took:\"5\"", "\"took\" = 5"),
        ("level:error AND \"timed out\"", "(\"severity\" = 'error') AND (\"_msg\" ~ 'timed\\W+out')"),
        ("message:(+a -b)", "(\"_msg\" ~ 'a') AND ((\"_msg\" ~ 'b') IS NOT TRUE)"),
        (
            "@timestamp:[2026-01-01 TO 2026-01-02}",
            "\"_time\" >= TIMESTAMP '2026-01-01 00:00:00' AND \"_time\" < TIMESTAMP '2026-01-02 00:00:00'",
        ),
        ("@timestamp:>\"2026-01-01T00:00:00Z\"", "\"_time\" >= TIMESTAMP '2026-01-01 00:00:01'"),
        ("a^2 b", "(\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')"),
        ("ANDROID", "\"_msg\" ~ 'android'"),
    ] {
        assert_eq!(sql(query, json!({})), expected, "{query}");
    }
    let every = json!({"default_operator": "AND"});
    assert_eq!(sql("a b", every.clone()), "(\"_msg\" ~ 'a') AND (\"_msg\" ~ 'b')");
    assert_eq!(sql("a OR b", every), "(\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')");
    let fields = json!({"fields": ["host.name", "message"]});
    assert_eq!(sql("x", fields), "(\"host.name\" = 'x') OR (\"_msg\" ~ 'x')");
    assert_eq!(
        sql("a b c", json!({"minimum_should_match": "100%"})),
        "(\"_msg\" ~ 'a') AND (\"_msg\" ~ 'b') AND (\"_msg\" ~ 'c')"
    );
}

#[test]
fn wrong_texts_are_refused_with_a_place() {
    for (query, words) in [
        ("a AND", "expected a term at column 6"),
        ("OR a", "a term before an operator"),
        ("(a", "expected [)]"),
        ("a)", "an operator or a field at column 2"),
        ("\"a", "expected [\"]"),
        ("took:[1 5]", "expected [TO]"),
        ("took:", "expected a term"),
        ("a~2", "fuzziness"),
        ("\"a b\"~2", "slop"),
        ("host.*:x", "pattern host.*"),
        ("@timestamp:soon", "failed to parse date field"),
    ] {
        let refused = reading().query(&json!({"query_string": {"query": query}})).expect_err(query);
        assert!(refused.reason.contains(words), "{query}: {refused}");
    }
}

#[test]
fn simple_texts_are_never_wrong() {
    for (query, expected) in [
        ("a + b", "(\"_msg\" ~ 'a') AND (\"_msg\" ~ 'b')"),
        ("a | b", "(\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')"),
        ("a b", "(\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')"),
        ("a + -b", "(\"_msg\" ~ 'a') AND ((\"_msg\" ~ 'b') IS NOT TRUE)"),
        ("\"timed out\"", "\"_msg\" ~ 'timed\\W+out'"),
        ("tim*", "\"_msg\" ~ 'tim'"),
        ("(a | b) + c", "((\"_msg\" ~ 'a') OR (\"_msg\" ~ 'b')) AND (\"_msg\" ~ 'c')"),
        ("((\"", "FALSE"),
        (") a", "\"_msg\" ~ 'a'"),
        ("", "FALSE"),
    ] {
        assert_eq!(sql(query, json!({"simple": true})), expected, "{query}");
    }
}

#[test]
fn operators_in_turn_are_no_deeper_than_parentheses() {
    let read = |query: String| reading().query(&json!({"simple_query_string": {"query": query}}));
    for query in ["a | ", "a + ", "a -"] {
        let test = read(query.repeat(500)).unwrap_or_else(|refused| panic!("{query}: {refused}"));
        assert!(!condition(&test, &some()).is_empty());
    }
    let refused = read("a + b | ".repeat(250)).unwrap_err();
    assert!(refused.reason.contains("nested depth"), "{refused}");
}

proptest! {
    /// Whatever is written, it is refused or becomes one condition that SQL reads.
    #[test]
    fn any_text_is_a_condition_or_refused(query in r#"([a-z*?:()\[\]"'/~^+\-!|&<>=\\ ]|AND|OR|NOT|TO|@timestamp:|took:){0,24}"#, every: bool) {
        for kind in ["query_string", "simple_query_string"] {
            let operator = if every { "AND" } else { "OR" };
            let body = json!({ kind: { "query": query, "default_operator": operator } });
            if let Ok(test) = reading().query(&body) {
                let text = format!("SELECT * FROM shop WHERE {}", condition(&test, &some()));
                let read = query::parse_select(&text);
                prop_assert!(read.is_ok(), "{query}: {text}: {}", read.unwrap_err());
            } else {
                prop_assert!(kind == "query_string", "{query}");
            }
        }
    }
}
