use proptest::prelude::*;

use super::{
    super::{
        buckets::Plan,
        field::tests::some,
        gather::{Gathered, Unanswered},
    },
    *,
};

const NOW: Timestamp = Timestamp::from_nanos(1_767_323_045_000_000_000);

fn read(body: Value, uri: &[(&str, &str)]) -> Result<Search, Refused> {
    let uri: Vec<(String, String)> =
        uri.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Search::read(&body, &uri, NOW)
}

#[test]
fn searches_are_statements() {
    let newest = "ORDER BY \"_time\" DESC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST";
    for (body, uri, hits, total) in [
        (
            json!({}),
            vec![],
            format!("SELECT *, 'shop' AS \"#index\" FROM \"shop\" {newest} LIMIT 10"),
            "SELECT count(*) AS \"n\" FROM (SELECT \"_offset\" FROM \"shop\" LIMIT 10001) AS \"#h\"",
        ),
        (
            json!({"query": {"term": {"took": 1}}, "from": 20, "track_total_hits": true, "_source": false}),
            vec![("size", "5")],
            format!("SELECT \"_time\", \"_segment\", \"_offset\", 'shop' AS \"#index\" FROM \"shop\" WHERE \"took\" = 1 {newest} LIMIT 5 OFFSET 20"),
            "SELECT count(*) AS \"n\" FROM \"shop\" WHERE \"took\" = 1",
        ),
        (
            json!({"query": {"term": {"took": 1}}, "post_filter": {"term": {"ok": true}}, "sort": "took", "track_total_hits": 5}),
            vec![("q", "host:a"), ("_source_includes", "took")],
            "SELECT \"_time\", \"_segment\", \"_offset\", \"_attrs\", \"took\", 'shop' AS \"#index\", \"took\" AS \"#s0\" FROM \"shop\" \
             WHERE (\"took\" = 1) AND (\"host\" = 'a') AND (\"ok\" = true) \
             ORDER BY \"took\" ASC NULLS LAST, \"_segment\" ASC NULLS LAST, \"_offset\" ASC NULLS LAST LIMIT 10".to_owned(),
            "SELECT count(*) AS \"n\" FROM (SELECT \"_offset\" FROM \"shop\" WHERE (\"took\" = 1) AND (\"host\" = 'a') AND (\"ok\" = true) LIMIT 6) AS \"#h\"",
        ),
    ] {
        let search = read(body.clone(), &uri).unwrap();
        assert_eq!(search.hits(&some()), hits, "{body}");
        assert_eq!(search.total(&some()), total, "{body}");
    }
}

#[test]
fn what_is_off_is_no_matter() {
    let body = json!({
        "script_fields": {}, "profile": false, "timeout": "30s", "stored_fields": ["*"], "runtime_mappings": {}, "explain": false,
        "track_scores": true, "suggest": null,
    });
    let uri = [("preference", "x"), ("request_cache", "true"), ("scroll_size", "1"), ("explain", "false")];
    assert!(read(body, &uri).is_ok());
    for (body, uri, words) in [
        (json!({"size": 10_001}), vec![], "10000"),
        (json!({"from": 9_999, "size": 2}), vec![], "search_after"),
        (json!({"size": -1}), vec![], "[size]"),
        (json!({"script_fields": {"a": {}}}), vec![], "[script_fields]"),
        (json!({"pit": {"id": "x"}}), vec![], "[pit]"),
        (json!({"collapse": {"field": "a"}}), vec![], "[collapse]"),
        (json!({"quer": {}}), vec![], "[quer]"),
        (json!({"search_after": [1]}), vec![], "Sort must contain"),
        (json!({"sort": ["took"], "search_after": [1, 2]}), vec![], "search_after has 2 value(s) but sort has 1."),
        (json!({"sort": ["took"], "search_after": [1], "from": 1}), vec![], "`from`"),
        (json!({}), vec![("scroll", "5m")], "search_after"),
        (json!({}), vec![("typed_keys", "true")], "[typed_keys]"),
        (json!([]), vec![], "must be an object"),
        (json!({"track_total_hits": "maybe"}), vec![], "[track_total_hits]"),
    ] {
        let refused = read(body.clone(), &uri).expect_err(&body.to_string());
        assert!(refused.reason.contains(words), "{body}: {refused}");
    }
}

/// Names and values that bodies are made of, and some that they are not made of.
fn value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "query",
        "bool",
        "must",
        "should",
        "must_not",
        "filter",
        "term",
        "terms",
        "range",
        "match",
        "match_phrase",
        "exists",
        "field",
        "query_string",
        "gte",
        "lt",
        "format",
        "epoch_millis",
        "@timestamp",
        "message",
        "host.name",
        "took",
        "_id",
        "aggs",
        "date_histogram",
        "fixed_interval",
        "1m",
        "calendar_interval",
        "1d",
        "time_zone",
        "Europe/Berlin",
        "avg",
        "filters",
        "histogram",
        "interval",
        "extended_bounds",
        "min",
        "max",
        "order",
        "_count",
        "_key",
        "desc",
        "size",
        "from",
        "sort",
        "_doc",
        "search_after",
        "now-15m/m",
        "'; DROP TABLE",
        "a\"b",
        "top_hits",
        "percentiles",
        "missing",
        "ranges",
        "to",
        "track_total_hits",
        "_source",
        "fields",
        "highlight",
        "minimum_should_match",
        "50%",
        "wildcard",
        "regexp",
        "a[",
        "*",
        "1",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-100_i64..100).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        words.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((words.clone(), inner), 0..4).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

/// Whatever a body is, it is refused, or its statements are SQL.
pub(crate) fn holds(body: &Value) -> Result<(), String> {
    let Ok(search) = Search::read(body, &[], NOW) else { return Ok(()) };
    let plan = Plan::new(&search.query, &search.aggregations, NOW);
    let mut all = vec![search.hits(&some()), search.total(&some())];
    all.extend((0..plan.levels.len()).filter_map(|level| plan.statement(level, &some()).ok()));
    all.extend((0..plan.hits.len()).filter_map(|number| plan.hits_statement(number, &some()).ok()));
    for sql in all {
        query::parse_select(&sql).map_err(|found| format!("{body}: {sql}: {found}"))?;
    }
    let rows = |count: usize| vec![Vec::new(); count];
    let nothing = Gathered::new(&plan, rows(plan.levels.len()), rows(plan.hits.len()), &|_| Ok(()));
    drop(nothing.answer());
    Ok(())
}

#[test]
fn buckets_without_rows_are_bounded() {
    for (interval, min, max, buckets) in [
        (1e-300, 1e308, 1e308, None),
        (1e-300, -1e308, 1e308, None),
        (1.0, 0.0, 65_535.0, None),
        (1.0, 0.0, 65_534.0, Some(65_535)),
        (1.0, 9_007_199_254_740_992.0, 9_007_199_254_740_996.0, Some(3)),
    ] {
        let bounds = json!({"min": min, "max": max});
        let histogram = json!({"field": "took", "interval": interval, "min_doc_count": 0, "extended_bounds": bounds});
        let search = read(json!({"aggs": {"h": {"histogram": histogram}}}), &[]).unwrap();
        let plan = Plan::new(&search.query, &search.aggregations, NOW);
        let answer = Gathered::new(&plan, vec![Vec::new(); plan.levels.len()], Vec::new(), &|_| Ok(())).answer();
        match (answer, buckets) {
            (Ok(answer), Some(count)) => assert_eq!(answer["h"]["buckets"].as_array().unwrap().len(), count),
            (Err(Unanswered::Refused(refused)), None) => {
                assert_eq!(refused.kind, "too_many_buckets_exception", "{interval} {max}");
            }
            (answer, _) => panic!("{interval} {max}: {answer:?}"),
        }
    }
}

#[test]
fn what_buckets_repeat_is_paid_for_before_it_is_made() {
    let long = "x".repeat(100_000);
    for inner in [
        json!({"p": {"percentiles": {"field": "took", "percents": (1..=32).collect::<Vec<_>>()}}}),
        json!({ &long: {"avg": {"field": "took"}} }),
        json!({"a": {"avg": {"field": "took"}, "meta": {"said": [long]}}}),
        json!({"f": {"filters": {"filters": { &long: {"match_all": {}} }}}}),
        json!({"f": {"filters": {"filters": [{"match_all": {}}], "other_bucket_key": &long}}}),
    ] {
        let histogram =
            json!({"field": "took", "interval": 1, "min_doc_count": 0, "extended_bounds": {"min": 0, "max": 60_000}});
        let body = json!({"size": 0, "aggs": {"h": {"histogram": histogram, "aggs": inner}}});
        let search = read(body, &[]).unwrap();
        let plan = Plan::new(&search.query, &search.aggregations, NOW);
        let (asked, most) = (std::cell::Cell::new(0), 1 << 20);
        let pay = |bytes| {
            asked.set(asked.get() + bytes);
            if asked.get() > most { Err(Unanswered::Full) } else { Ok(()) }
        };
        let answer = Gathered::new(&plan, vec![Vec::new(); plan.levels.len()], Vec::new(), &pay).answer();
        assert!(matches!(answer, Err(Unanswered::Full)), "{inner}");
    }
}

#[test]
fn names_of_fields_are_repeated_as_they_are() {
    let fields = ["took", "took.keyword", "t?ok", "to?k", "\\took", "t*"];
    let search = read(json!({"_source": false, "fields": fields}), &[]).unwrap();
    let hit = search.shown.hit(json!({"took": 5}).as_object().unwrap(), "shop");
    assert_eq!(hit["fields"], json!({"took": [5], "took.keyword": [5]}));
}

#[test]
fn patterns_of_fields_are_bounded() {
    let many = |count: usize, length: usize| patterns(&json!({"fields": vec!["x".repeat(length); count]}), &[]);
    assert!(many(1_024, 1_024).is_ok());
    assert!(many(1_025, 1).unwrap_err().reason.contains("more than 1024"));
    assert!(many(1, 1_025).unwrap_err().reason.contains("1024 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_body_is_sql_or_refused(
        query in value(), sort in value(), aggs in value(), kind in prop::sample::select(vec!["terms", "date_histogram", "range", "filters", "histogram", "top_hits", "bool", "term", "range", "query_string", "match"]),
        rest in value(),
    ) {
        let some = json!({ kind: query.clone() });
        for body in [
            rest.clone(),
            json!({ "query": some.clone(), "sort": sort.clone(), "_source": rest.clone() }),
            json!({ "query": { kind: { "@timestamp": query.clone(), "field": sort.clone() } } }),
            json!({ "aggs": { "a": some, "b": { kind: { "field": "@timestamp", "interval": rest.clone(), "ranges": [query] } } } }),
            json!({ "aggs": aggs, "highlight": rest, "sort": sort, "size": 0 }),
        ] {
            let held = holds(&body);
            prop_assert!(held.is_ok(), "{}", held.unwrap_err());
        }
    }
}
