use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Aggregate, AggregateFunction, KeyColumn, parse_condition, parse_select};

fn windowed(text: &str) -> (Continuous, Windowed) {
    let read = parse_continuous(text).unwrap_or_else(|found| panic!("{}", found.render(text)));
    let Shape::Windowed(window) = read.shape.clone() else { panic!("{text} is not windowed") };
    (read, window)
}

#[test]
fn the_main_query_reads() {
    let (read, window) = windowed(
        "INSERT INTO \"shop-errors\" SELECT service, http.status AS status, window_start, window_end AS until, count(*) AS n,\n\
         max(latency_ms), avg(bytes / 1024) AS kib\n\
         FROM tumble(\"shop-frontend\", INTERVAL '10 seconds', watermark delay INTERVAL '5' SECOND)\n\
         WHERE severity IN ('error', 'fatal') AND http.status >= 500\n\
         GROUP BY service, http.status, window_start, window_end;",
    );
    assert_eq!(read.insert_into.as_ref().map(|i| i.as_str()), Some("shop-errors"));
    assert_eq!(read.source.as_str(), "shop-frontend");
    assert_eq!(read.filter.as_deref(), Some("severity IN ('error', 'fatal') AND \"http.status\" >= 500"));
    assert_eq!((window.size, window.delay), (Duration::from_secs(10), Duration::from_secs(5)));
    let key = |name: &str, expr: &str| KeyColumn { name: name.into(), expr: expr.into() };
    assert_eq!(window.keys, [key("service", "service"), key("status", "\"http.status\"")]);
    assert_eq!((window.window_start.as_deref(), window.window_end.as_deref()), (Some("window_start"), Some("until")));
    let aggregate = |name: &str, function, argument: Option<&str>| Aggregate {
        name: name.into(),
        function,
        argument: argument.map(str::to_owned),
    };
    assert_eq!(
        window.aggregates,
        [
            aggregate("n", AggregateFunction::Count, None),
            aggregate("max_latency_ms", AggregateFunction::Max, Some("latency_ms")),
            aggregate("kib", AggregateFunction::Avg, Some("bytes / 1024")),
        ]
    );
    let columns = read.row_columns().into_iter().map(|c| (c.name, c.expr)).collect::<Vec<_>>();
    let column = |name: &str, expr: &str| (name.to_owned(), expr.to_owned());
    assert_eq!(
        columns,
        [
            column("service", "CAST((service) AS TEXT)"),
            column("status", "CAST((\"http.status\") AS TEXT)"),
            column("max_latency_ms", "TRY_CAST((latency_ms) AS DOUBLE)"),
            column("kib", "TRY_CAST((bytes / 1024) AS DOUBLE)"),
        ]
    );
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Continuous>(&json).unwrap(), read);
}

#[test]
fn keys_may_be_grouped_by_name_or_expression() {
    for group in ["upper(service)", "s"] {
        let (_, window) = windowed(&format!(
            "SELECT upper(service) AS s, count(x) FROM tumble(shop, INTERVAL '1 minute') GROUP BY {group}, window_start"
        ));
        assert_eq!((window.keys[0].expr.as_str(), window.aggregates[0].name.as_str()), ("upper(service)", "count_x"));
        assert_eq!(window.delay, crate::DELAY_DEFAULT);
        assert_eq!(window.window_start, None);
    }
    let (read, window) = windowed("SELECT count(*) FROM tumble(shop, INTERVAL '1s') GROUP BY window_start");
    assert_eq!((read.filter, window.keys.len(), window.aggregates[0].name.as_str()), (None, 0, "count"));
}

#[test]
fn stateless_queries_read() {
    let read = parse_continuous("INSERT INTO x SELECT _msg, upper(service) AS svc FROM shop WHERE severity = 'error'")
        .unwrap();
    let column = |name: &str, expr: &str| OutputColumn { name: name.into(), expr: expr.into() };
    let columns = vec![column("_msg", "_msg"), column("svc", "upper(service)")];
    assert_eq!(read.shape, Shape::Stateless { columns });
    let all = parse_continuous("SELECT * FROM shop WHERE a > 1").unwrap();
    assert_eq!(all.shape, Shape::Stateless { columns: vec![] });
}

#[test]
fn complaints_point_at_the_place() {
    const T: &str = "FROM tumble(shop, INTERVAL '1 s')";
    for (text, line, column, words, help) in [
        ("", 1, 1, "empty", ""),
        ("DELETE FROM shop", 1, 1, "does not begin with DELETE", "INSERT INTO"),
        ("INSERT shop SELECT 1", 1, 8, "INTO is missing", ""),
        ("INSERT INTO shop-errors SELECT a FROM x", 1, 13, "double quotes", "\"shop-errors\""),
        ("INSERT INTO x VALUES (1)", 1, 15, "does not begin with VALUES", "SELECT"),
        ("SELECT a FROM shop-errors", 1, 15, "double quotes", ""),
        ("SELECT count(*) FROM shop", 1, 8, "needs a window", "tumble"),
        ("SELECT a FROM shop GROUP BY a", 1, 29, "GROUP BY needs a window", "tumble"),
        ("SELECT a + 1 FROM shop", 1, 8, "needs a name", "AS <name>"),
        ("SELECT a, a FROM shop", 1, 11, "two columns have the name a", ""),
        ("SELECT a AS _time FROM shop", 1, 13, "column of the platform", "alias"),
        ("SELECT *, a FROM shop", 1, 8, "not possible among other columns", ""),
        ("SELECT a FROM shop WHERE count(*) > 1", 1, 26, "aggregate", "WHERE"),
        ("SELECT a FROM shop WHERE x IN (SELECT 1)", 1, 26, "subqueries", ""),
        ("SELECT a FROM shop, b", 1, 1, "reads one index", ""),
        ("SELECT a FROM shop JOIN b ON true", 1, 25, "joins", ""),
        ("SELECT a FROM shop AS t", 1, 23, "alias is not needed", ""),
        ("SELECT a FROM shop ORDER BY a", 1, 1, "ORDER BY is not possible", ""),
        ("SELECT a FROM shop LIMIT 5", 1, 1, "LIMIT is not possible", ""),
        ("SELECT DISTINCT a FROM shop", 1, 1, "DISTINCT", ""),
        ("SELECT a FROM shop UNION SELECT 1", 1, 1, "without UNION", ""),
        (&format!("SELECT a {T} GROUP BY a, window_start"), 1, 1, "needs an aggregate", "count(*)"),
        (&format!("SELECT count(*) {T}"), 1, 1, "window is not grouped by", "window_start"),
        (&format!("SELECT a, count(*) {T} GROUP BY a"), 1, 63, "window is not grouped by", ""),
        (
            &format!("SELECT a, count(*) {T} GROUP BY window_start"),
            1,
            8,
            "neither an aggregate nor grouped by",
            "add a",
        ),
        (&format!("SELECT a, count(*) {T} GROUP BY a, b, window_start"), 1, 66, "not selected", "add b"),
        (&format!("SELECT a, count(*) {T} GROUP BY a, window_strat"), 1, 66, "not selected", "window_start"),
        (
            &format!("SELECT count(*) {T} GROUP BY window_start HAVING count(*) > 1"),
            1,
            80,
            "HAVING is not",
            "condition",
        ),
        (&format!("SELECT count(DISTINCT a) {T} GROUP BY window_start"), 1, 8, "no DISTINCT", ""),
        (&format!("SELECT median(a) {T} GROUP BY window_start"), 1, 8, "median is not available", "avg"),
        (&format!("SELECT sum(a)/count(*) AS x {T} GROUP BY window_start"), 1, 8, "cannot stand inside", "own"),
        (&format!("SELECT sum() {T} GROUP BY window_start"), 1, 8, "one argument", ""),
        (
            "SELECT count(*)\nFROM tumbel(shop, INTERVAL '1 s') GROUP BY window_start",
            2,
            6,
            "no table function",
            "tumble?",
        ),
        (
            "SELECT count(*) FROM hop(shop, INTERVAL '1 s') GROUP BY window_start",
            1,
            22,
            "no table function",
            "only tumble",
        ),
        ("SELECT count(*) FROM tumble(shop) GROUP BY window_start", 1, 33, "a comma and the window's size", ""),
        ("SELECT count(*) FROM tumble(shop, '1 s') GROUP BY window_start", 1, 35, "INTERVAL", ""),
        (
            "SELECT count(*) FROM tumble(shop, INTERVAL '1 parsec') GROUP BY window_start",
            1,
            44,
            "not a duration",
            "days",
        ),
        ("SELECT count(*) FROM tumble(shop, INTERVAL '0 s') GROUP BY window_start", 1, 44, "a window lasts from", ""),
        (
            "SELECT count(*) FROM tumble(shop, INTERVAL '1 s', INTERVAL '1 s') GROUP BY window_start",
            1,
            51,
            "WATERMARK",
            "",
        ),
        (
            "SELECT count(*) FROM tumble(shop, INTERVAL '1 s', watermark delay INTERVAL '2 days') GROUP BY window_start",
            1,
            76,
            "a watermark delay lasts",
            "",
        ),
        ("SELECT count(*) FROM tumble(Shop, INTERVAL '1 s') GROUP BY window_start", 1, 29, "not an index name", "shop"),
        ("SELECT count(*) FROM tumble(a-b, INTERVAL '1 s') GROUP BY window_start", 1, 29, "double quotes", "\"a-b\""),
        ("SELECT count(*) FROM tumble(shop, INTERVAL '1 s'", 1, 49, "the text ends here", ""),
    ] {
        let found = parse_continuous(text).expect_err(text);
        assert!(found.message.contains(words), "{text}: {found}");
        assert_eq!((found.line, found.column), (line, column), "{text}: {found}");
        assert!(found.help.clone().unwrap_or_default().contains(help), "{text}: {found:?}");
    }
}

fn soup() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "SELECT",
        "INSERT",
        "INTO",
        "FROM",
        "tumble",
        "(",
        ")",
        ",",
        "shop",
        "\"a-b\"",
        "a",
        "b.c",
        "INTERVAL",
        "'10 seconds'",
        "watermark",
        "delay",
        "WHERE",
        "GROUP BY",
        "window_start",
        "count(*)",
        "sum(",
        "AS",
        "n",
        ">",
        "100",
        "-",
        "*",
        "NOT",
        "CASE",
        "WHEN",
        "END",
        "IN",
        "'x",
        "\"",
        "--",
        ";",
        "WITH",
        "UNION",
        "ORDER BY",
        "LIMIT",
        "[",
        "]",
        "::",
        "text",
        "$$",
        "BETWEEN",
        "AND",
        "NULL",
        "EXISTS",
        "JOIN",
        "ON",
        "ä",
        "/*",
        "E'\\",
        "1e",
        "0x",
        ".",
        "{",
        "}",
        "OVER",
        "CAST(",
        "AT TIME ZONE",
    ]);
    proptest::collection::vec(words, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_panics_and_every_complaint_can_be_shown(text in prop_oneof![soup(), "\\PC{0,60}", ".{0,60}"]) {
        for found in [
            parse_select(&text).err(),
            parse_continuous(&text).err(),
            parse_condition(&text).err(),
        ].into_iter().flatten() {
            prop_assert!(found.line >= 1 && found.column >= 1);
            prop_assert!(found.render(&text).contains('^'));
        }
    }

    #[test]
    fn what_is_read_can_be_read_again(text in soup()) {
        if let Ok(select) = parse_select(&text) {
            let again = parse_select(&select.statement().to_string());
            prop_assert_eq!(again.map(|s| s.tables), Ok(select.tables));
        }
    }
}
