use proptest::prelude::*;

use super::{tests::FILES, *};

/// What cannot be continuous: where, why, and what would be.
#[test]
fn complaints_point_at_the_place_and_say_what_would_work() {
    let mut wrong = String::new();
    for (text, place, words, help) in [
        ("", (1, 1), "empty", "SELECT"),
        ("INSERT INTO o", (1, 1), "SELECT is missing", "INSERT INTO"),
        ("UPDATE x SET a = 1", (1, 1), "does not begin with UPDATE", "INSERT"),
        ("SELEC a FROM x", (1, 1), "does not begin with SELEC", "did you mean SELECT?"),
        ("INSERT INTO fils('x') SELECT a FROM x", (1, 13), "rows cannot go to fils", "did you mean files?"),
        ("INSERT INTO o SELECT a FROM x\nORDER BY a", (2, 10), "ORDER BY is not possible", "row_number()"),
        ("INSERT INTO o SELECT a FROM x LIMIT 3", (1, 37), "LIMIT is not possible", "row_number()"),
        ("INSERT INTO o SELECT DISTINCT a FROM x", (1, 15), "remember every row for ever", "GROUP BY"),
        (
            "INSERT INTO o SELECT a FROM x UNION ALL SELECT a FROM y",
            (1, 15),
            "without UNION",
            "one INSERT for each part",
        ),
        ("INSERT INTO o SELECT a FROM x, y", (1, 32), "pair every row with every other", "JOIN"),
        ("INSERT INTO o SELECT a FROM tumbel(x, INTERVAL '1 s')", (1, 29), "no table function tumbel", "tumble?"),
        ("INSERT INTO o SELECT a FROM x-y", (1, 29), "double quotes", "\"x-y\""),
        (
            "INSERT INTO o SELECT count(*) AS n FROM hop(x, INTERVAL '2 s', INTERVAL '5 s') GROUP BY window_start",
            (1, 41),
            "no multiple",
            "hop",
        ),
        (
            "INSERT INTO o SELECT count(*) AS n FROM hop(x, INTERVAL '2 s') GROUP BY window_start",
            (1, 41),
            "needs the window's size",
            "hop",
        ),
        (
            "INSERT INTO o SELECT count(*) AS n FROM hop(x, INTERVAL '1 ms', INTERVAL '5 s') GROUP BY window_start",
            (1, 57),
            "lasts from 100ms",
            "",
        ),
        (
            "INSERT INTO o SELECT count(*) AS n FROM session(x, INTERVAL '1 s', lateness INTERVAL '1 s') GROUP BY window_start",
            (1, 68),
            "has no argument lateness",
            "",
        ),
        (
            "INSERT INTO o SELECT count(*) AS n FROM tumble(x, INTERVAL '1 s', watermark dela INTERVAL '1 s') GROUP BY window_start",
            (1, 77),
            "expected DELAY",
            "watermark delay",
        ),
        (
            "INSERT INTO o SELECT k, count(*) AS n FROM tumble(x, INTERVAL '1 s') GROUP BY k",
            (1, 79),
            "window is not grouped by",
            "window_start",
        ),
        (
            "INSERT INTO o SELECT count(*) AS n FROM cumulate(x, INTERVAL '1 s', INTERVAL '2 s') GROUP BY window_start",
            (1, 94),
            "window is not grouped by",
            "window_end",
        ),
        (
            "INSERT INTO o SELECT k, v, count(*) AS n FROM tumble(x, INTERVAL '1 s') GROUP BY k, window_start",
            (1, 25),
            "v is neither an aggregate nor grouped by",
            "add v",
        ),
        ("INSERT INTO o SELECT a FROM tumble(x, INTERVAL '1 s')", (1, 15), "neither grouped nor ranked", "stream(…)"),
        (
            "INSERT INTO o SELECT a, count(*) AS n FROM tumble(x, INTERVAL '1 s') WHERE window_end > 3 GROUP BY a, window_start",
            (1, 76),
            "before they are in a window",
            "HAVING",
        ),
        ("INSERT INTO o SELECT k, count(*) AS n FROM x GROUP BY k", (1, 55), "changes with every row", "tumble"),
        ("INSERT INTO o SELECT count(*) AS n FROM x", (1, 15), "changes with every row", "stdout()"),
        (
            "INSERT INTO o SELECT median(a) AS n, window_start FROM tumble(x, INTERVAL '1 s') GROUP BY window_start",
            (1, 22),
            "median is not available",
            "avg",
        ),
        (
            "INSERT INTO o SELECT count(DISTINCT a) AS n, window_start FROM tumble(x, INTERVAL '1 s') GROUP BY window_start",
            (1, 22),
            "no DISTINCT",
            "inside this one",
        ),
        ("INSERT INTO o SELECT a + 1 FROM x", (1, 22), "needs a name", "AS <name>"),
        ("INSERT INTO o SELECT a, b AS a FROM x", (1, 25), "two columns have the name a", "alias"),
        ("INSERT INTO o SELECT a AS _time FROM x", (1, 27), "column of the platform", "alias"),
        ("INSERT INTO o SELECT b FROM (SELECT a FROM x) AS t", (1, 22), "there is no column b", "there are a"),
        ("INSERT INTO o SELECT valu FROM {files}", (1, 22), "there is no column valu", "did you mean value?"),
        ("INSERT INTO o SELECT a FROM x WHERE a IN (SELECT b FROM y)", (1, 37), "asked again for every row", "JOIN"),
        ("INSERT INTO o SELECT a FROM x WHERE count(*) > 3", (1, 37), "cannot stand here", "HAVING"),
        (
            "INSERT INTO o SELECT a FROM x WHERE row_number() OVER (PARTITION BY a ORDER BY b) = 1",
            (1, 37),
            "SELECT list only",
            "",
        ),
        (
            "INSERT INTO o SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) AS r FROM x",
            (1, 25),
            "a rank without end",
            "r <= 3",
        ),
        (
            "INSERT INTO o SELECT * FROM (SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) AS r FROM x) WHERE a > 1",
            (1, 40),
            "a rank without end",
            "r <= 3",
        ),
        (
            "INSERT INTO o SELECT a FROM (SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) AS r FROM x) WHERE r <= 2",
            (1, 40),
            "changes with every row",
            "stdout()",
        ),
        (
            "INSERT INTO o SELECT a FROM (SELECT *, row_number() OVER (PARTITION BY a ORDER BY b) AS r FROM tumble(x, INTERVAL '1 s')) WHERE r <= 2",
            (1, 40),
            "not among what it is partitioned by",
            "window_end",
        ),
        (
            "INSERT INTO o SELECT a FROM (SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY b) AS r FROM hop(x, INTERVAL '1 s', INTERVAL '2 s')) WHERE r <= 2",
            (1, 40),
            "tumbling windows only",
            "query inside",
        ),
        (
            "INSERT INTO o SELECT k, sum(v) OVER (PARTITION BY k ORDER BY v) AS s FROM x",
            (1, 62),
            "go by time",
            "ORDER BY _time",
        ),
        (
            "INSERT INTO o SELECT k, sum(v) OVER (PARTITION BY k ORDER BY _time ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM x",
            (1, 25),
            "has not come yet",
            "CURRENT ROW",
        ),
        ("INSERT INTO o SELECT a.x FROM l AS a JOIN r AS b ON a.k = b.k", (1, 53), "kept for ever", "BETWEEN"),
        (
            "INSERT INTO o SELECT a.x FROM l AS a JOIN r AS b ON a.k = b.k AND b._time >= a._time",
            (1, 53),
            "without an upper bound",
            "BETWEEN",
        ),
        (
            "INSERT INTO o SELECT a.x FROM l AS a JOIN r AS b ON a.k = b.k AND b._time BETWEEN a._time AND a._time - INTERVAL '1 s'",
            (1, 53),
            "no two rows",
            "",
        ),
        (
            "INSERT INTO o SELECT x FROM l AS a JOIN r AS b ON a.k = b.k AND a._time = b._time",
            (1, 22),
            "which table has x?",
            "a.x",
        ),
        (
            "INSERT INTO o SELECT c.x FROM l AS a JOIN r AS b ON a.k = b.k AND a._time = b._time",
            (1, 22),
            "not one of the joined tables",
            "a and b",
        ),
        (
            "INSERT INTO o SELECT a.x FROM l AS a LEFT JOIN r AS b ON a.k = b.k AND a._time = b._time AND a.v > b.v",
            (1, 94),
            "only an inner join",
            "around",
        ),
        ("INSERT INTO o SELECT a.x FROM l AS a CROSS JOIN r AS b", (1, 49), "has JOIN", ""),
        (
            "INSERT INTO o SELECT a.x FROM l AS a JOIN r AS b ON a._time = b._time JOIN s AS c ON a._time = c._time",
            (1, 76),
            "joins two tables",
            "inside",
        ),
        (
            "INSERT INTO o SELECT a.k FROM tumble(l, INTERVAL '1 s') AS a JOIN tumble(r, INTERVAL '2 s') AS b ON a.k = b.k AND a.window_end = b.window_end",
            (1, 101),
            "the same on both sides",
            "window_start",
        ),
        (
            "INSERT INTO o SELECT window_end, max(n) AS m FROM (SELECT k, window_end, count(*) AS n FROM tumble(x, INTERVAL '1 s', lateness INTERVAL '1 s') GROUP BY k, window_end) GROUP BY window_end",
            (1, 177),
            "answers twice",
            "lateness",
        ),
        (
            "INSERT INTO o SELECT k FROM sequence(x, INTERVAL '1 s', a => y = 1) GROUP BY k, z HAVING z > 1",
            (1, 90),
            "has no HAVING",
            "around",
        ),
        (
            "INSERT INTO o SELECT q FROM sequence(x, INTERVAL '1 s', a => y = 1) GROUP BY k",
            (1, 22),
            "neither grouped by nor of a step",
            "first_time",
        ),
        (
            "INSERT INTO o SELECT k FROM sequence(x, INTERVAL '1 s') GROUP BY k",
            (1, 15),
            "from 1 to 16 steps",
            "a => <condition>",
        ),
        (
            "INSERT INTO o SELECT k FROM sequence(x, INTERVAL '1 s', a => absent(y = 1)) GROUP BY k",
            (1, 57),
            "begins with a row that is there",
            "",
        ),
        ("INSERT INTO o SELECT a FROM x LATE INTO l", (1, 31), "nothing comes too late", ""),
        ("INSERT INTO o SELECT a FROM x EMIT EVERY INTERVAL '1 s'", (1, 31), "about windows", "tumble"),
        (
            "INSERT INTO o SELECT window_start, count(*) AS n FROM tumble(x, INTERVAL '1 s') GROUP BY window_start EMIT EVERY INTERVAL '1 s'",
            (1, 90),
            "changes with every row",
            "stdout()",
        ),
        ("INSERT INTO o SELECT a FROM x ON ERROR SKIP", (1, 40), "ON ERROR says", "ON ERROR FAIL"),
        (
            "INSERT INTO o SELECT a FROM x ON ERROR FAIL; INSERT INTO o SELECT a FROM x ON ERROR NULL",
            (1, 76),
            "one for all statements",
            "",
        ),
        (
            "INSERT INTO o SELECT a FROM files('x', schema => 'a text', corrupt => 'dead_letter')",
            (1, 15),
            "does not say where",
            "ON ERROR INTO",
        ),
        ("INSERT INTO o SELECT a FROM files('x', schema => 'a txt')", (1, 50), "there is no type txt", "bigint"),
        (
            "INSERT INTO o SELECT a FROM files('x', schema => 'a text', time => 'b')",
            (1, 68),
            "no column b",
            "timestamp",
        ),
        (
            "INSERT INTO o SELECT a FROM files('x', schema => 'a text', time => 'a')",
            (1, 68),
            "holds the event time",
            "timestamp",
        ),
        ("INSERT INTO o SELECT a FROM files('x', formt => 'csv')", (1, 40), "has no argument formt", "format?"),
        ("INSERT INTO o SELECT a FROM datagen(rows => 3)", (1, 29), "needs the columns", "schema"),
        ("INSERT INTO o SELECT a FROM nexmark('bids')", (1, 37), "no kind of events bids", "bid"),
        ("INSERT INTO http('ftp://x') SELECT a FROM x", (1, 18), "not the URL", "http("),
        ("INSERT INTO http('http://x', headers => 'oops') SELECT a FROM x", (1, 41), "not a header", "name: value"),
        (
            "INSERT INTO stdout() SELECT window_start, count(*) AS n FROM tumble(x, INTERVAL '1 s') GROUP BY window_start HAVING count(*) > 1 EMIT EVERY INTERVAL '1 s'",
            (1, 130),
            "windows that are written",
            "HAVING",
        ),
        (
            "INSERT INTO stdout() SELECT k, count(*) AS n FROM (SELECT k, window_end FROM tumble(x, INTERVAL '1 s', lateness INTERVAL '1 s') GROUP BY k, window_end) GROUP BY k",
            (1, 162),
            "answers twice",
            "lateness",
        ),
    ] {
        let text = text.replace("{files}", FILES);
        let found = match parse_stream(&text) {
            Err(found) => found,
            Ok(plan) => panic!("{text}: {plan:?}"),
        };
        let right = found.message.contains(words)
            && (found.line, found.column) == place
            && found.help.clone().unwrap_or_default().contains(help);
        if !right {
            wrong.push_str(&format!("{place:?} {words:?} {help:?}:\n{}\n", found.render(&text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn soup() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "SELECT",
        "INSERT INTO",
        "FROM",
        "tumble(",
        "hop(",
        "session(",
        "sequence(",
        "stream(",
        "files(",
        "(",
        ")",
        ",",
        "shop",
        "a",
        "a.b",
        "b._time",
        "INTERVAL '1 s'",
        "watermark delay",
        "lateness",
        "WHERE",
        "GROUP BY",
        "window_start",
        "window_end",
        "count(*)",
        "sum(a)",
        "AS",
        "n",
        "JOIN",
        "ON",
        "a.k = b.k",
        "BETWEEN",
        "AND",
        "row_number()",
        "OVER (PARTITION BY a ORDER BY _time)",
        "<= 2",
        "*",
        "LATE INTO",
        "EMIT EVERY",
        "ON ERROR",
        "NULL",
        ";",
        "'x'",
        "a => b = 1",
        "schema => 'a text'",
        "stdout()",
        "WITH",
        "HAVING",
        "UNION",
        "=>",
        ".",
        "ä",
        "'",
        "/*",
        "CASE",
        "END",
        "IN",
        "-",
        "3",
    ]);
    proptest::collection::vec(words, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_panics_and_every_complaint_can_be_shown(text in prop_oneof![soup(), "\\PC{0,60}"]) {
        if let Err(found) = parse_stream(&text) {
            prop_assert!(found.line >= 1 && found.column >= 1);
            prop_assert!(found.render(&text).contains('^'));
        }
    }
}
