use query::parse_select;

use super::*;

fn of(text: &str) -> Option<Counts> {
    Counts::of(&parse_select(text).unwrap(), &[])
}

#[test]
fn what_screens_ask_is_recognised() {
    for text in [
        "SELECT count(*) FROM shop",
        "SELECT count(*) AS n FROM shop WHERE _time >= TIMESTAMP '2026-01-02 03:04:05' AND _time < '2026-01-03'",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity",
        "SELECT count(1) AS n, shop.severity FROM shop GROUP BY 2 ORDER BY n DESC LIMIT 3",
        "SELECT date_trunc('minute', _time) AS _time, severity, count(*) AS n FROM shop \
         GROUP BY date_trunc('minute', _time), severity",
        "SELECT date_bin(INTERVAL '250 milliseconds', _time, TIMESTAMP '2026-01-02 03:04:05') AS b, count(*) AS n \
         FROM \"shop\" WHERE (severity IN ('error', 'fatal')) AND severity IS NOT NULL GROUP BY 1 ORDER BY 1, 2 DESC",
        "SELECT date_trunc('hour', _time) AS hour, count(*) AS n FROM shop GROUP BY hour ORDER BY count(*)",
        "WITH \"P1\" AS (SELECT \"severity\" AS \"severity\", count(*) AS \"count\" FROM \"shop\" GROUP BY 1) \
         SELECT * FROM \"P1\" ORDER BY \"severity\" ASC NULLS LAST LIMIT 101",
    ] {
        assert!(of(text).is_some(), "{text}");
    }
    let week = unit_step("week").unwrap();
    // 2026-01-02 is a Friday; its week began on 2025-12-29.
    assert_eq!(week.start(1_767_323_045 * SECOND), Some(1_766_966_400 * SECOND));
    let step = Step { width: 60, origin: 30 };
    assert_eq!([-31, -30, 29, 30].map(|at| step.start(at)), [-90, -30, -30, 30].map(Some));
    assert_eq!(step.start(i64::MIN), None);
}

#[test]
fn anything_else_is_not() {
    for text in [
        "SELECT count(*) FROM shop WHERE severity = 'error' OR _time < '2026-01-03'",
        "SELECT count(*) FROM shop WHERE service = 'cart'",
        "SELECT count(*) FROM shop WHERE _time < now()",
        "SELECT count(*) FROM shop WHERE severity < 'error'",
        "SELECT count(*) FROM shop a",
        "SELECT count(*) FROM shop, shop b",
        "SELECT count(*) FROM (SELECT * FROM shop LIMIT 5) x",
        "SELECT count(_msg) AS n FROM shop",
        "SELECT count(DISTINCT severity) AS n FROM shop",
        "SELECT count(*) FILTER (WHERE severity = 'error') AS n FROM shop",
        "SELECT count(*) OVER () AS n FROM shop",
        "SELECT count(1) FROM shop",
        "SELECT severity FROM shop GROUP BY severity",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity HAVING count(*) > 5",
        "SELECT DISTINCT severity, count(*) AS n FROM shop GROUP BY severity",
        "SELECT date_trunc('month', _time) AS t, count(*) AS n FROM shop GROUP BY 1",
        "SELECT date_trunc('minute', _time) AS t, count(*) AS n FROM shop GROUP BY date_trunc('hour', _time)",
        "SELECT date_trunc('minute', _received) AS t, count(*) AS n FROM shop GROUP BY 1",
        "SELECT date_trunc('minute', _time) AS _time, count(*) AS n FROM shop GROUP BY _time",
        "SELECT date_bin(INTERVAL '1 month', _time) AS t, count(*) AS n FROM shop GROUP BY 1",
        "SELECT severity, count(*) AS n FROM shop GROUP BY ROLLUP (severity)",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity ORDER BY upper(severity)",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity LIMIT 5 OFFSET 2",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity UNION ALL SELECT 'x', 5",
        "WITH a AS (SELECT count(*) AS n FROM shop) SELECT n + 1 AS m FROM a",
        "WITH a AS (SELECT severity, count(*) AS n FROM shop GROUP BY 1 LIMIT 2) SELECT * FROM a",
        "WITH a AS (SELECT severity AS s, count(*) AS n FROM shop GROUP BY severity) SELECT * FROM a ORDER BY severity",
        "WITH a AS (SELECT severity, count(*) AS n FROM shop GROUP BY severity) SELECT * FROM a ORDER BY count(*)",
        "SELECT severity AS n, count(*) AS n FROM shop GROUP BY 1",
        "SELECT count(*), count(*) FROM shop",
        "SELECT 1 AS x FROM shop",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}
