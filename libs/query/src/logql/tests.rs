use std::collections::BTreeMap;

use proptest::prelude::*;
use types::Timestamp;

use super::*;
use crate::{Column, ColumnKind, Surroundings};

fn logs(text: &str) -> Plan {
    match parse_logql(text).unwrap_or_else(|found| panic!("{}", found.render(text))) {
        Logql::Logs(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn metric(text: &str) -> Metric {
    match parse_logql(text).unwrap_or_else(|found| panic!("{}", found.render(text))) {
        Logql::Metric(metric) => metric,
        other => panic!("{other:?}"),
    }
}

pub(super) fn surroundings() -> (Surroundings, LogqlRange) {
    let index: types::IndexName = "shop".parse().unwrap();
    let text = ["_msg", "severity", "_segment", "service", "http.status", "odd"];
    let mut columns: Vec<Column> =
        text.iter().map(|name| Column { name: (*name).to_owned(), kind: ColumnKind::Text }).collect();
    columns.push(Column { name: "_time".to_owned(), kind: ColumnKind::Time });
    columns.push(Column { name: "_offset".to_owned(), kind: ColumnKind::Integer });
    columns.push(Column { name: "latency_ms".to_owned(), kind: ColumnKind::Integer });
    let columns = BTreeMap::from([(index.clone(), columns)]);
    let around = Surroundings { now: Timestamp::from_millis(1_000_000), columns, rows_max: 100 };
    let range = LogqlRange {
        indexes: vec![index],
        start: Timestamp::from_millis(0),
        end: Timestamp::from_millis(600_000),
        step: Duration::from_secs(60),
        labels: vec!["service".to_owned()],
    };
    (around, range)
}

#[test]
fn log_queries_become_plans() {
    for (text, plan) in [
        ("{}", "*"),
        (r#"{app="shop"}"#, r#"app="shop""#),
        (r#"{app="shop", env!="dev",pod=~"a|b",x!~"c.*",}"#, r#"app="shop" -env="dev" pod~"^(?:a|b)$" -x~"^(?:c.*)$""#),
        (r#"{app="", env!="", x=~".+", y=~".*"}"#, r#"-app=* env=* x=*"#),
        (
            r#"{a="b"} |= "err\"or" != `deb"ug` |~ `\d+` !~ "x""#,
            r#"a="b" *"err\"or"* -*"deb\"ug"* _msg~"\\d+" -_msg~"x""#,
        ),
        (r#"{a="b"} |= "x" or "y" != "z" or "w""#, r#"a="b" (*"x"* or *"y"*) -(*"z"* or *"w"*)"#),
        (r#"{a="b"} |= """#, r#"a="b""#),
        (r#"{a="b"} |> "<_> took <_>ms" !> "ok""#, r#"a="b" _msg~".* took .*ms" -_msg~"ok""#),
        (
            r#"{a="b"} | json | status >= 500 | c="d" or (e!="f" and g=~"h")"#,
            r#"a="b" | parse json | search status>=500 (c="d" or -e="f" g~"^(?:h)$")"#,
        ),
        (
            r#"{a="b"} | json x="y.z", w | logfmt --strict | unpack | decolorize"#,
            r#"a="b" | let x = y.z, w = w | parse logfmt | parse json"#,
        ),
        (r#"{a="b"} | latency > 5s, size <= 10KB, n = 1.5"#, r#"a="b" latency>5s size<=10KB n=1.5"#),
        (r#"{a="b"} | addr = ip("10.0.0.0/8")"#, r#"a="b" addr in 10.0.0.0/8"#),
        (
            r#"{a="b"} | pattern "<ip> - <_>" | ip != "" | regexp "(?P<x>y)""#,
            r#"a="b" | parse "<ip> - <_>" | search ip=* | rex "(?P<x>y)""#,
        ),
        (
            r#"{a="b"} | line_format "{{.x}} {y} {{ .z }}" |= "q""#,
            r#"a="b" | format "{x} {{y}} {z}" as _msg | search *"q"*"#,
        ),
        (r#"{a="b"} | label_format x=y, z="{{.w}}!""#, r#"a="b" | rename y as x | format "{w}!" as z"#),
        (r#"{a="b"} | drop __error__, __error_details__"#, r#"a="b""#),
        (
            r#"{a="b"} | drop x, __error__ | keep y"#,
            r#"a="b" | drop x | keep _time, _received, _msg, severity, _segment, _offset, y"#,
        ),
        (r#"{a="b"} | __error__="" | detected_level="error""#, r#"a="b" detected_level="error""#),
    ] {
        assert_eq!(logs(text).to_string(), plan, "{text}");
    }
}

#[test]
fn metric_queries_become_trees() {
    let Metric::Binary { op, left, right, .. } = metric("vector(1)+vector(1)") else { panic!() };
    assert_eq!((op, *left, *right), (MetricOperator::Plus, Metric::Vector(1.0), Metric::Vector(1.0)));

    let explore = r#"sum by (level, detected_level) (count_over_time({app="shop"} |= "x" | drop __error__[5m]))"#;
    let Metric::Aggregate { function, grouping, of, count } = metric(explore) else { panic!() };
    let labels = vec!["level".to_owned(), "detected_level".to_owned()];
    assert_eq!((function, count), (VectorFunction::Sum, None));
    assert_eq!(grouping, Some(Grouping { without: false, labels }));
    let Metric::Range(range) = *of else { panic!() };
    assert_eq!((range.function, range.range), (RangeFunction::Count, Duration::from_secs(300)));
    assert_eq!(range.logs.to_string(), r#"app="shop" *"x"*"#);

    let Metric::Range(range) =
        metric(r#"quantile_over_time(0.95, {a="b"} | json | unwrap duration(took) | x > 1 [1m] offset -1h) by (c)"#)
    else {
        panic!()
    };
    assert_eq!(range.unwrap, Some(Unwrap { label: "took".into(), unit: Unit::Duration }));
    assert_eq!((range.quantile, range.offset), (Some(0.95), -3_600_000_000_000));
    assert_eq!(range.grouping.map(|grouping| grouping.labels), Some(vec!["c".to_owned()]));

    for text in [
        r#"rate({a="b"}[1m])"#,
        r#"rate(({a="b"} |= "c")[1m])"#,
        r#"rate({a="b"}[1m] |= "c")"#,
        r#"topk(3, sum(rate({a="b"}[1m])) by (c)) "#,
        r#"sum without(a) (bytes_rate({a="b"}[1m])) / on(c) sum by (c) (rate({a="b"}[1m])) > bool 0.5"#,
        r#"100 * sum(rate({a="b"}|="x"[5m])) / sum(rate({a="b"}[5m]))"#,
        "2 ^ 3 ^ 2",
        "-1.5e3 + 2",
        r#"absent_over_time({a="b"}[5m])"#,
        r#"sort_desc(sum by (x) (sum_over_time({a="b"} | unwrap y [5m])))"#,
    ] {
        metric(text);
    }
    let Metric::Binary { op, right, .. } = metric("1 + 2 * 3") else { panic!() };
    assert!(op == MetricOperator::Plus && matches!(*right, Metric::Binary { op: MetricOperator::Times, .. }));
}

#[test]
fn complaints_point_at_the_place() {
    for (text, column, words) in [
        ("", 1, "empty"),
        ("{a=b}", 4, "expected a text in quotes, found b}"),
        ("{a}", 3, "expected one of"),
        ("{a=\"b\"", 7, "expected a comma or the closing }"),
        ("{a=\"b\"} |= x", 12, "expected a text in quotes"),
        ("{a=\"b\"} | json |", 17, "expected a label"),
        ("{a=\"b\"} | x >", 14, "expected a value"),
        ("count_over_tim({a=\"b\"}[5m])", 1, "expected a selector, a function"),
        ("rate({a=\"b\"})", 13, "expected [ and a range"),
        ("rate({a=\"b\"}[5])", 14, "expected a span of time"),
        ("sum_over_time({a=\"b\"}[5m])", 15, "computes with the value of a label"),
        ("topk(0.5, rate({a=\"b\"}[5m]))", 6, "whole number"),
        ("label_replace(x)", 1, "not yet here: label_replace"),
        ("{a=\"b\"} | line_format \"{{ if .x }}\"", 23, "not yet here: templates"),
        ("{a=\"b\"} x", 9, "expected the end"),
        ("sum(rate({a=\"b\"}[5m])) * on(a) group_left sum(rate({a=\"b\"}[5m]))", 32, "not yet here: group_left"),
    ] {
        let found = parse_logql(text).expect_err(text);
        assert_eq!((found.line, found.column), (1, column), "{}", found.render(text));
        assert!(found.message.contains(words), "{}", found.render(text));
    }
}

#[test]
fn lowering_is_one_statement() {
    let (around, range) = surroundings();
    let plan = logs(r#"{service="a", nothing!="x"} |= "it's" | json | latency_ms > 5 | http_status = "500""#);
    let select = lower_logs(&plan, "", &around, &range, true).unwrap();
    assert!(select.text.contains("contains(\"_msg\", 'it''s')"), "{}", select.text);
    assert!(select.text.contains("\"http.status\" = '500'"), "{}", select.text);
    assert!(
        select.text.ends_with(
            "ORDER BY \"_time\" ASC NULLS LAST, \"_segment\" ASC NULLS LAST, \"_offset\" ASC NULLS LAST LIMIT 101"
        ),
        "{}",
        select.text
    );
    for text in [
        "vector(1)+vector(1)",
        "1 > 2",
        "vector(1) > 2",
        "topk(1, rate({}[5m]))",
        "sum by (level, detected_level) (count_over_time({} | drop __error__[1m]))",
    ] {
        let found = lower_metric(&metric(text), text, &around, &range);
        assert!(found.is_ok(), "{text}: {found:?}");
    }
    for (text, words) in [
        ("rate({}[5m]) and rate({}[5m])", "not yet here: and"),
        ("sum by (a) (rate({}[5m])) / sum by (b) (rate({}[5m]))", "a is not a label of both sides"),
        ("rate({}[100d])", "at most 1000 times the step"),
    ] {
        let found = lower_metric(&metric(text), text, &around, &range).unwrap_err();
        assert!(found.message.contains(words), "{text}: {found}");
    }
    let many = LogqlRange { step: Duration::from_millis(1), ..range };
    let found = lower_metric(&Metric::Vector(1.0), "", &around, &many).unwrap_err();
    assert!(found.message.contains("11000 are the most"), "{found}");
}

fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "{",
        "}",
        "{a=\"b\"}",
        "{}",
        "(",
        ")",
        "[",
        "]",
        "[5m]",
        "[5m] offset 1h",
        "|",
        "|=",
        "!=",
        "|~",
        "\"x\"",
        "`y`",
        "\"",
        "json",
        "logfmt",
        "unwrap x",
        "unwrap duration(x)",
        "| json",
        "| x > 5",
        "| drop a",
        "line_format",
        "label_format",
        "a=",
        "or",
        "and",
        ",",
        "rate(",
        "count_over_time(",
        "sum",
        "sum by (a) (",
        "topk(2,",
        "by (a)",
        "without (b)",
        "vector(1)",
        "+",
        "/",
        "^",
        ">",
        "bool",
        "on (a)",
        "1.5",
        "-2",
        "quantile_over_time(0.5,",
        "ip(\"10.0.0.0/8\")",
        "é",
        "\u{0}",
        "__error__",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_text_breaks_anything(pieces in prop::collection::vec(piece(), 0..12)) {
        let text = pieces.join(" ");
        let (around, range) = surroundings();
        match parse_logql(&text) {
            Err(found) => prop_assert!(found.render(&text).contains('^')),
            Ok(Logql::Logs(plan)) => {
                let written = plan.to_string();
                let again = crate::parse_pipe(&written).map_err(|found| TestCaseError::fail(found.render(&written)))?;
                prop_assert_eq!(again, plan.clone(), "{:?} -> {:?}", text, written);
                drop(lower_logs(&plan, &text, &around, &range, false));
            }
            Ok(Logql::Metric(metric)) => drop(lower_metric(&metric, &text, &around, &range)),
        }
    }
}
