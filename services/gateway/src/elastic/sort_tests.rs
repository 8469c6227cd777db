use super::{super::field::tests::some, *};

#[test]
fn orders_and_pages() {
    for (sort, order, after, behind) in [
        (json!([]), "\"_time\" DESC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST", None, ""),
        (
            json!([{"@timestamp": {"order": "desc", "unmapped_type": "boolean"}}, {"_doc": "desc"}]),
            "\"_time\" DESC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST",
            Some(json!([1_767_323_045_120_i64, "1767323045120000007:7-0-1:42"])),
            "(\"_time\" < TIMESTAMP '2026-01-02 03:04:05.120000007') OR \
             ((\"_time\" = TIMESTAMP '2026-01-02 03:04:05.120000007') AND (\"_segment\" < '7-0-1')) OR \
             ((\"_time\" = TIMESTAMP '2026-01-02 03:04:05.120000007') AND (\"_segment\" = '7-0-1') AND (\"_offset\" < 42))",
        ),
        (
            json!("@timestamp"),
            "\"_time\" ASC NULLS LAST, \"_segment\" ASC NULLS LAST, \"_offset\" ASC NULLS LAST",
            Some(json!(["1767323045120"])),
            "\"_time\" > TIMESTAMP '2026-01-02 03:04:05.120999999'",
        ),
        (
            json!(["_score", {"took": {"order": "asc", "missing": "_first"}}, "@timestamp"]),
            "\"took\" ASC NULLS FIRST, date_trunc('millisecond', \"_time\") ASC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST",
            Some(json!([1.0, null, 1000])),
            "(\"took\" IS NOT NULL) OR ((\"took\" IS NULL) AND (date_trunc('millisecond', \"_time\") > TIMESTAMP '1970-01-01 00:00:01'))",
        ),
        (
            json!({"host.name": "desc"}),
            "\"host.name\" DESC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST",
            Some(json!(["it's"])),
            "(\"host.name\" < 'it''s' OR \"host.name\" IS NULL)",
        ),
    ] {
        let read = Sort::read(Some(&sort)).unwrap();
        assert_eq!(read.order(&some()), order, "{sort}");
        if let Some(after) = after {
            assert_eq!(read.behind(&read.after(&after).unwrap(), &some()), behind, "{sort}");
        }
    }
}

#[test]
fn what_is_no_order_is_refused() {
    for (sort, words) in [
        (json!([{"took": "up"}]), "Unknown SortOrder [up]"),
        (json!([{"took": {"nested": {}}}]), "nested"),
        (json!([{"_script": {}}]), "_script"),
        (json!([["a"]]), "must be a text"),
    ] {
        assert!(Sort::read(Some(&sort)).unwrap_err().reason.contains(words), "{sort}");
    }
    let sort = Sort::read(Some(&json!(["took", "_doc"]))).unwrap();
    for after in [json!(1), json!([1]), json!([1, 2]), json!([[], "1:1-1-1:1"]), json!([1, "x"])] {
        assert!(sort.after(&after).is_err(), "{after}");
    }
}
