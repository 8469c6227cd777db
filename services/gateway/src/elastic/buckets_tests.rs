use serde_json::{Value, json};

use super::{
    super::{aggregation, condition::reading, field::tests::some},
    *,
};

/// The statements of a tree, whole ones.
fn statements(aggs: &Value) -> Vec<String> {
    let aggregations = aggregation::read(&reading(), aggs).unwrap_or_else(|refused| panic!("{aggs}: {refused}"));
    let query = Test::Everything;
    let plan = Plan::new(&query, &aggregations, reading().now);
    let levels =
        (0..plan.levels.len()).filter(|level| plan.asks(*level)).map(|level| plan.statement(level, &some()).unwrap());
    let all: Vec<String> =
        levels.chain((0..plan.hits.len()).map(|n| plan.hits_statement(n, &some()).unwrap())).collect();
    for sql in &all {
        query::parse_select(sql).unwrap_or_else(|found| panic!("{sql}: {found}"));
    }
    all
}

#[test]
fn aggregations_are_statements() {
    for (aggs, expected) in [
        (
            json!({"2": {"date_histogram": {"field": "@timestamp", "fixed_interval": "15s"}, "aggs": {"1": {"avg": {"field": "took"}}}}}),
            vec![
                "SELECT date_bin(INTERVAL '15000 milliseconds', \"_time\", TIMESTAMP '1970-01-01 00:00:00') AS \"#k1\", count(*) AS \"#n\", \
                 avg(CAST(\"took\" AS DOUBLE)) AS \"#m0_0\" FROM \"shop\" WHERE TRUE GROUP BY 1",
            ],
        ),
        (
            json!({"a": {"avg": {"field": "nothing"}}}),
            vec!["SELECT count(*) AS \"#n\", avg(CAST(NULL AS DOUBLE)) AS \"#m0_0\" FROM \"shop\" WHERE TRUE"],
        ),
        (
            json!({"d": {"date_histogram": {"field": "@timestamp", "calendar_interval": "1d", "time_zone": "+01:00", "offset": "6h"}}}),
            vec![
                "SELECT date_trunc('day', (\"_time\" + INTERVAL '-18000000 milliseconds')) AS \"#k1\", count(*) AS \"#n\" \
                 FROM \"shop\" WHERE TRUE GROUP BY 1",
            ],
        ),
        (
            json!({"f": {"filters": {"filters": {"a": {"term": {"took": 1}}, "b": {"match_all": {}}}}}}),
            vec![
                "SELECT count(*) AS \"#n\" FROM \"shop\" WHERE \"took\" = 1",
                "SELECT count(*) AS \"#n\" FROM \"shop\" WHERE TRUE",
            ],
        ),
        (
            json!({"t": {"terms": {"field": "host.name", "order": {"m": "asc"}}, "aggs": {"m": {"max": {"field": "took"}}}}}),
            vec![
                "SELECT * FROM (SELECT *, sum(\"#n\") OVER () AS \"#t\", row_number() OVER (ORDER BY \"#m0_0\" ASC NULLS LAST, \"#k1\" ASC) AS \"#r\" \
                 FROM (SELECT \"host.name\" AS \"#k1\", count(*) AS \"#n\", max(CAST(\"took\" AS DOUBLE)) AS \"#m0_0\" FROM \"shop\" \
                 WHERE (\"host.name\") IS NOT NULL GROUP BY 1) AS \"#g\") AS \"#w\" WHERE \"#r\" <= 10 ORDER BY \"#r\"",
            ],
        ),
    ] {
        assert_eq!(statements(&aggs), expected, "{aggs}");
    }
    // Inner buckets join those around them.
    let terms = json!({"a": {"terms": {"field": "host", "size": 3}, "aggs": {"b": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1m"}}}}});
    let found = statements(&terms);
    assert!(
        found[1].contains("JOIN (SELECT * FROM (") && found[1].contains("ON (\"host\") = \"#p\".\"#k1\" WHERE"),
        "{}",
        found[1]
    );
}

#[test]
fn buckets_of_time_follow_clocks() {
    // In Berlin clocks go forward on 2026-03-29 at 01:00 UTC.
    let aggs = json!({"d": {"date_histogram": {"field": "@timestamp", "calendar_interval": "day", "time_zone": "Europe/Berlin"}}});
    let aggregations = aggregation::read(&reading(), &aggs).unwrap();
    let query = reading().query(&json!({"range": {"@timestamp": {"gte": "2026-03-28", "lt": "2026-03-31"}}})).unwrap();
    let sql = Plan::new(&query, &aggregations, reading().now).statement(1, &some()).unwrap();
    let shift = "CASE WHEN \"_time\" < TIMESTAMP '2026-03-29 01:00:00' THEN INTERVAL '3600000 milliseconds' ELSE INTERVAL '7200000 milliseconds' END";
    assert!(sql.contains(shift), "{sql}");
    let Kind::Keys(Keys::Dates(dates)) = &aggregations[0].kind else { panic!("{aggregations:?}") };
    let at = |text: &str| i64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond()).unwrap();
    let start = floor(dates, at("2026-03-28T23:30:00Z")).unwrap();
    assert_eq!(unshifted(dates, start), Some(at("2026-03-28T23:00:00Z")));
    assert_eq!(unshifted(dates, next(dates, start).unwrap()), Some(at("2026-03-29T22:00:00Z")), "a day of 23 hours");
}

#[test]
fn what_is_no_aggregation_is_named() {
    let deep = (0..6).fold(json!({}), |inner, _| json!({"a": {"terms": {"field": "host"}, "aggs": inner}}));
    // Three times seven filters, of which each is asked again for each of those around it.
    let seven: serde_json::Map<String, Value> = (0..7).map(|i| (i.to_string(), json!({"match_all": {}}))).collect();
    let nested = (0..3).fold(json!({}), |inner, _| json!({"a": {"filters": {"filters": seven}, "aggs": inner}}));
    let many: serde_json::Map<String, Value> =
        (0..70).map(|i| (i.to_string(), json!({"avg": {"field": "took"}}))).collect();
    for (aggs, words) in [
        (json!([]), "[aggs] must be an object"),
        (json!({"a": {}}), "Missing definition"),
        (json!({"a": {"terms": {"field": "x"}, "avg": {"field": "x"}}}), "two aggregation type"),
        (json!({"a": {"derivative": {"buckets_path": "x"}}}), "[derivative]"),
        (json!({"a": {"terms": {"field": "x", "min_doc_count": 0}}}), "min_doc_count 0"),
        (json!({"a": {"terms": {"script": "x"}}}), "[script]"),
        (json!({"a": {"terms": {"field": "x", "order": {"m": "asc"}}}}), "Cannot find a metric [m]"),
        (json!({"a": {"date_histogram": {"field": "took", "fixed_interval": "1s"}}}), "it is no date"),
        (json!({"a": {"date_histogram": {"field": "@timestamp"}}}), "Invalid interval"),
        (json!({"a": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1w"}}}), "[1w]"),
        (json!({"a": {"date_histogram": {"field": "@timestamp", "calendar_interval": "2d"}}}), "calendar interval"),
        (json!({"a": {"histogram": {"field": "took", "interval": 0}}}), ">0"),
        (
            json!({"a": {"avg": {"field": "took"}, "aggs": {"b": {"avg": {"field": "took"}}}}}),
            "cannot accept sub-aggregations",
        ),
        (json!({"a": {"percentiles": {"field": "took", "percents": [101]}}}), "percents"),
        (json!({"a": {"top_hits": {"size": 101}}}), "too large"),
        (json!({"a>b": {"avg": {"field": "took"}}}), "Invalid aggregation name"),
        (Value::Object(many), "more than 64"),
        (nested, "more than 64"),
        (deep, "deeper than 4"),
    ] {
        let refused = aggregation::read(&reading(), &aggs).expect_err(&aggs.to_string());
        assert!(refused.reason.contains(words), "{aggs}: {refused}");
    }
}
