use serde_json::json;

use super::{super::condition::reading, *};

fn read(query: Value) -> Result<Test, Refused> {
    reading().query(&query)
}

#[test]
fn what_is_not_there_is_named() {
    let deep = (0..40).fold(json!({"match_all": {}}), |inner, _| json!({"bool": {"must": inner}}));
    let many: Vec<Value> = (0..=CLAUSES_MAX).map(|_| json!({"match_all": {}})).collect();
    let values: Vec<usize> = (0..=TERMS_MAX).collect();
    for (query, kind, words) in [
        (json!([]), "parsing_exception", "[query] must be an object"),
        (json!({}), "parsing_exception", "must not be empty"),
        (json!({"a": {}, "b": {}}), "parsing_exception", "[b]"),
        (json!({"script": {}}), "parsing_exception", "unknown query [script]"),
        (json!({"fuzzy": {"a": "b"}}), "parsing_exception", "[fuzzy]"),
        (json!({"bool": {"musst": []}}), "parsing_exception", "[musst]"),
        (json!({"term": {"a": [1]}}), "parsing_exception", "a value of a term"),
        (json!({"terms": {"a": {"index": "x"}}}), "illegal_argument_exception", "terms lookup"),
        (json!({"terms": {"a": values}}), "illegal_argument_exception", "[4096]"),
        (json!({"match_phrase": {"message": {"query": "a b", "slop": 2}}}), "illegal_argument_exception", "[slop]"),
        (json!({"match": {"message": {"query": "a", "fuzziness": "AUTO"}}}), "parsing_exception", "[fuzziness]"),
        (json!({"match": {"message": {"query": "a", "operator": "xor"}}}), "illegal_argument_exception", "[xor]"),
        (json!({"range": {"@timestamp": {"gte": "soon"}}}), "parsing_exception", "failed to parse date field [soon]"),
        (json!({"range": {"@timestamp": {"gte": 1, "time_zone": "Mars"}}}), "illegal_argument_exception", "Mars"),
        (json!({"range": {"took": {"gte": {}}}}), "parsing_exception", "a bound"),
        (json!({"regexp": {"a": "x~y"}}), "illegal_argument_exception", "operator ~"),
        (json!({"regexp": {"a": "x".repeat(1_001)}}), "illegal_argument_exception", "[1000]"),
        (json!({"query_string": {"query": "a AND"}}), "parsing_exception", "expected a term"),
        (json!({"bool": {"must": many}}), "too_many_nested_clauses", "1024"),
        (deep, "illegal_argument_exception", "depth"),
    ] {
        let refused = read(query.clone()).expect_err(&query.to_string());
        assert_eq!(refused.kind, kind, "{query}: {refused}");
        assert!(refused.reason.contains(words), "{refused}");
    }
}

#[test]
fn so_many_must_match() {
    for (given, of, expected) in [
        (json!(2), 5, 2),
        (json!("2"), 5, 2),
        (json!(-1), 5, 4),
        (json!("50%"), 5, 2),
        (json!("-25%"), 4, 3),
        (json!(9), 5, 6),
        (json!(0), 5, 0),
    ] {
        assert_eq!(least(&given, of).unwrap(), expected, "{given} of {of}");
    }
    assert!(least(&json!("2<75%"), 3).is_err());
}

#[test]
fn a_term_of_the_message_is_one_word() {
    let word = |word: &str| Test::Words { words: vec![word.to_owned()], least: 1 };
    assert_eq!(read(json!({"term": {"message": "error"}})).unwrap(), word("error"));
    assert_eq!(read(json!({"term": {"message": "Error"}})).unwrap(), Test::Nothing);
    assert_eq!(
        read(json!({"term": {"message": {"value": "Error", "case_insensitive": true}}})).unwrap(),
        word("error")
    );
    assert_eq!(read(json!({"term": {"message": "two words"}})).unwrap(), Test::Nothing);
    let whole = Test::OneOf { field: Field::MessageWhole, values: vec![json!("two words")], any_case: false };
    assert_eq!(read(json!({"term": {"message.keyword": "two words"}})).unwrap(), whole);
}

#[test]
fn regular_expressions_of_lucene_are_ours() {
    for (lucene, ours) in [
        ("a.b*", "a.b*"),
        ("^a$", "\\^a\\$"),
        ("a@b", "a.*b"),
        ("[a&&b[]+", "[a\\&\\&b\\[]+"),
        ("\"a.b\"c", "a\\.bc"),
        ("\\d\\.\\/", "\\d\\./"),
    ] {
        assert_eq!(regex(lucene).unwrap(), ours, "{lucene}");
    }
}
