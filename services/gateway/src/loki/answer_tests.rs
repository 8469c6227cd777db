use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, TimestampNanosecondArray};
use query::{ColumnKind, Logql, parse_logql};

use super::*;

fn column(name: &str) -> Column {
    Column { name: name.to_owned(), kind: ColumnKind::Text }
}

fn rows() -> RecordBatch {
    let text = |values: [Option<&str>; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([
        ("_time", Arc::new(TimestampNanosecondArray::from(vec![3, 2, 1])) as ArrayRef, false),
        ("_msg", text([Some("c"), Some("b"), Some("a")]), false),
        ("severity", text([Some("error"), None, Some("info")]), true),
        ("_offset", Arc::new(Int64Array::from(vec![2, 1, 0])) as ArrayRef, false),
        ("app", text([Some("x"), Some("x"), None]), true),
        ("http.status", Arc::new(Int64Array::from(vec![Some(500), Some(500), None])) as ArrayRef, true),
        ("new", Arc::new(BooleanArray::from(vec![Some(true), None, None])) as ArrayRef, true),
    ])
    .unwrap()
}

fn read(streams: &[&str], limit: usize) -> Vec<Line> {
    let own = ["_time", "_msg", "severity", "_offset", "app", "http.status"].map(column);
    let streams: Vec<String> = streams.iter().map(|label| (*label).to_owned()).collect();
    lines(&[rows().slice(0, 1), rows().slice(1, 2)], &own, &streams, limit).unwrap()
}

#[test]
fn fields_are_labels_metadata_or_parsed() {
    let categorized = streams(read(&["app"], 3), true);
    assert_eq!(
        categorized,
        json!([
            { "stream": { "app": "x" }, "values": [
                ["3", "c", { "structuredMetadata": { "detected_level": "error", "http_status": "500" }, "parsed": { "new": "true" } }],
                ["2", "b", { "structuredMetadata": { "detected_level": "unknown", "http_status": "500" } }],
            ] },
            { "stream": {}, "values": [["1", "a", { "structuredMetadata": { "detected_level": "info" } }]] },
        ])
    );
    let flat = streams(read(&["app"], 2), false);
    assert_eq!(
        flat,
        json!([
            { "stream": { "app": "x", "detected_level": "error", "http_status": "500", "new": "true" }, "values": [["3", "c"]] },
            { "stream": { "app": "x", "detected_level": "unknown", "http_status": "500" }, "values": [["2", "b"]] },
        ])
    );
    let levels = streams(read(&["detected_level", "level"], 1), true);
    assert_eq!(levels[0]["stream"], json!({ "detected_level": "error", "level": "error" }));
}

#[test]
fn lines_of_one_stream_keep_their_order() {
    let line = |time, app: &str| Line {
        time,
        text: time.to_string(),
        stream: Labels::from([("app".to_owned(), app.to_owned())]),
        ..Line::default()
    };
    let found = streams(vec![line(9, "a"), line(8, "b"), line(7, "a")], false);
    assert_eq!(
        found,
        json!([
            { "stream": { "app": "a" }, "values": [["9", "9"], ["7", "7"]] },
            { "stream": { "app": "b" }, "values": [["8", "8"]] },
        ])
    );
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    for (nanos, number, expected) in [
        (1_767_323_045_000_000_000, 2.0, json!([1_767_323_045, "2"])),
        (1_767_323_045_250_000_000, 0.1, json!([1_767_323_045.25, "0.1"])),
        (0, f64::NAN, json!([0, "NaN"])),
        (0, f64::INFINITY, json!([0, "+Inf"])),
        (0, f64::NEG_INFINITY, json!([0, "-Inf"])),
        (0, 1e21, json!([0, "1000000000000000000000"])),
    ] {
        assert_eq!(point(nanos, number), expected);
    }
}

#[test]
fn the_order_of_an_instant_is_that_of_the_metric() {
    let metric = |text: &str| match parse_logql(text).unwrap() {
        Logql::Metric(metric) => metric,
        Logql::Logs(_) => panic!("{text}"),
    };
    let one = |name: &str, number| Series {
        labels: Labels::from([("n".to_owned(), name.to_owned())]),
        points: vec![(0, number)],
    };
    for (text, order) in [
        ("sort(rate({}[1m]))", "bca"),
        ("sort_desc(rate({}[1m]))", "acb"),
        ("topk(3, rate({}[1m]))", "acb"),
        ("sum(rate({}[1m]))", "abc"),
    ] {
        let mut all = [one("a", 3.0), one("b", 1.0), one("c", 2.0)];
        arrange(&metric(text), &mut all);
        assert_eq!(all.iter().map(|one| one.labels["n"].as_str()).collect::<String>(), order, "{text}");
    }
    assert!(is_scalar(&metric("1 + 2")) && !is_scalar(&metric("vector(1) + 1")));
}
