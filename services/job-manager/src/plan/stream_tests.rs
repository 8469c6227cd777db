use flow::{Hidden, JoinKind, Phase};
use query::parse_stream;
use query::stream::Target;

use super::*;

/// The graph of a text at parallelism 2, which keeps every rule.
fn graph(text: &str) -> JobGraph {
    let read = parse_stream(text).unwrap_or_else(|found| panic!("{}", found.render(text)));
    let outputs: Vec<Target> = read.outputs.iter().map(|output| output.target.clone().unwrap()).collect();
    let graph = stream::graph(&read, &outputs, 2);
    match graph.clone().with_uids() {
        // What is not built yet is refused by name; the rules hold for the rest.
        Ok(_) | Err(flow::Error::NotBuilt(_)) => graph,
        Err(found) => panic!("{text}\n{}\n{found}", explained(&graph)),
    }
}

/// Words of the chains, and edges as `from>to how`.
fn drawn(text: &str) -> (Vec<String>, Vec<String>) {
    let graph = graph(text);
    let chain = |vertex: &Vertex| {
        let words: Vec<&str> = vertex.operators.iter().map(OperatorSpec::word).collect();
        format!("{} x{}", words.join(", "), vertex.parallelism)
    };
    let edge = |edge: &flow::Edge| {
        let how = match &edge.partition {
            flow::Partition::Forward => "=".to_owned(),
            flow::Partition::Hash { columns } => columns.join(","),
        };
        let port = if edge.port.is_main() { String::new() } else { format!(" {:?}", edge.port) };
        format!("{}>{} {how}{port}", edge.from, edge.to)
    };
    (graph.vertices.iter().map(chain).collect(), graph.edges.iter().map(edge).collect())
}

fn check(text: &str, vertices: &[&str], edges: &[&str]) {
    let (found, between) = drawn(text);
    assert_eq!(
        (found, between),
        (vertices.iter().map(ToString::to_string).collect(), edges.iter().map(ToString::to_string).collect()),
        "{text}"
    );
}

fn operators(text: &str) -> Vec<OperatorSpec> {
    graph(text).vertices.into_iter().flat_map(|vertex| vertex.operators).collect()
}

const FILES: &str = "files('file:///in', format => 'ndjson', time => 'time', schema => 'time timestamp, key bigint, value bigint, mark text, id bigint')";

#[test]
fn windows_are_fed_by_their_keys_or_reckoned_before_rows_meet() {
    for from in ["shop", FILES] {
        for window in [
            "hop({}, INTERVAL '2 s', INTERVAL '6 s')",
            "cumulate({}, INTERVAL '2 s', INTERVAL '6 s')",
            "session({}, INTERVAL '1 s')",
            "tumble({}, INTERVAL '5 s', lateness INTERVAL '1 s')",
        ] {
            let window = window.replace("{}", from);
            check(
                &format!(
                    "INSERT INTO o SELECT key, window_start, window_end, sum(value) AS total FROM {window} WHERE value > 1 GROUP BY key, window_start, window_end"
                ),
                &["source, filter, project x2", "window, project, index sink x2"],
                &["0>1 key"],
            );
        }
    }
    check(
        "INSERT INTO o SELECT window_end, max(value) AS most FROM hop(shop, INTERVAL '2 s', INTERVAL '6 s') GROUP BY window_end, window_start",
        &["source, project, local window x2", "window, project, index sink x1"],
        &["0>1 "],
    );
}

#[test]
fn a_source_reads_what_is_used_and_hides_what_is_needed() {
    let source = |text: &str| match operators(text).remove(0) {
        OperatorSpec::Read(spec) => spec,
        other => panic!("{other:?}"),
    };
    let hop = source(
        "INSERT INTO o SELECT key, window_start, sum(value) AS v FROM hop(shop, INTERVAL '1 s', INTERVAL '2 s', watermark delay INTERVAL '7 s') WHERE http.status > 1 GROUP BY key, window_start",
    );
    assert_eq!(hop.columns, Some(["http.status", "key", "value"].map(str::to_owned).to_vec()));
    assert_eq!(hop.hidden, Hidden { watermark: true, place: false });
    assert_eq!((hop.time.delay.0.as_secs(), hop.time.max_future_skew), (7, Some(DurationText(flow::MAX_FUTURE_SKEW))));
    let over = source(&format!(
        "INSERT INTO o SELECT key, sum(value) OVER (PARTITION BY key ORDER BY _time) AS v FROM {FILES}"
    ));
    assert_eq!(over.hidden, Hidden { watermark: true, place: true });
    assert_eq!((over.time.column.as_deref(), over.time.idle_after, over.schema.len()), (Some("time"), None, 5));
    let all = source("INSERT INTO blackhole() SELECT * FROM shop WHERE a > 1");
    assert_eq!((all.columns, all.hidden), (None, Hidden::default()));
    let none = source(
        "INSERT INTO blackhole() SELECT window_start, count(*) AS n FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start",
    );
    assert_eq!(none.columns, Some(Vec::new()));
}

#[test]
fn what_goes_by_order_meets_by_its_key() {
    check(
        "INSERT INTO o SELECT window_start, window_end, key, rank, value, id FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, key \
         ORDER BY value DESC) AS rank FROM tumble(shop, INTERVAL '5 s') WHERE value IS NOT NULL) WHERE rank <= 2",
        &["source, filter, project x2", "top, project, index sink x2"],
        &["0>1 window_start,window_end,key"],
    );
    check(
        "INSERT INTO o SELECT key, _time AS at, id FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY _time) AS rank FROM stream(shop)) WHERE rank = 1",
        &["source, project x2", "dedup, project, index sink x2"],
        &["0>1 key"],
    );
    check(
        "INSERT INTO o SELECT key, id, sum(value) OVER (PARTITION BY key ORDER BY _time ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS total FROM stream(shop)",
        &["source, project x2", "over, project, index sink x2"],
        &["0>1 key"],
    );
    check(
        "INSERT INTO o SELECT key, first_time AS at, last_time AS until FROM sequence(shop, INTERVAL '1 second', a => mark = 'login', b => mark = 'error') GROUP BY key",
        &["source, project x2", "pattern, project, index sink x2"],
        &["0>1 key"],
    );
}

#[test]
fn rows_that_have_met_by_other_keys_meet_anew() {
    check(
        "INSERT INTO o SELECT key, window_end, n FROM (SELECT key, window_end, n, row_number() OVER (PARTITION BY key, window_end ORDER BY n DESC) AS r \
         FROM (SELECT key, mark, window_end, count(*) AS n FROM tumble(shop, INTERVAL '5 s') GROUP BY key, window_end, mark)) WHERE r = 1",
        &["source, project x2", "window, project, project x2", "top, project, index sink x2"],
        &["0>1 key,mark", "1>2 key,window_end"],
    );
    check(
        "INSERT INTO o SELECT key, window_end, r, n FROM (SELECT key, window_end, n, row_number() OVER (PARTITION BY key, window_end ORDER BY n DESC) AS r \
         FROM (SELECT key, window_end, count(*) AS n FROM tumble(shop, INTERVAL '5 s') GROUP BY key, window_end)) WHERE r <= 3",
        &["source, project x2", "window, project, project x2", "top, project, index sink x2"],
        &["0>1 key", "1>2 key,window_end"],
    );
    // Another value under the same name: they meet anew.
    let (vertices, _) = drawn(
        "INSERT INTO o SELECT key, window_end, r FROM (SELECT key, window_end, row_number() OVER (PARTITION BY key, window_end ORDER BY n DESC) AS r \
         FROM (SELECT upper(key) AS key, window_end, n FROM (SELECT key, window_end, count(*) AS n FROM tumble(shop, INTERVAL '5 s') GROUP BY key, window_end))) WHERE r <= 3",
    );
    assert_eq!(vertices.len(), 3, "{vertices:?}");
}

#[test]
fn joins_have_two_inputs_in_their_order() {
    let text = "INSERT INTO o SELECT a.key, a.id AS left_id, b.id AS right_id FROM stream(shop) AS a JOIN stream(shop) AS b \
                ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '200 milliseconds' WHERE a.mark = 'login' AND b.mark = 'error'";
    check(
        text,
        &["source x2", "filter, project x2", "filter, project x2", "join, project, index sink x2"],
        &["0>1 =", "0>2 =", "1>3 key", "2>3 key"],
    );
    let join = operators(text).into_iter().find_map(|operator| match operator {
        OperatorSpec::Join(join) => Some(join),
        _ => None,
    });
    assert_eq!(join.unwrap().kind, JoinKind::Interval { lower_ms: 0, upper_ms: 200 });
    // Another key on the right is hashed by its own name.
    check(
        "INSERT INTO o SELECT a.id, b.id AS other FROM left AS a LEFT JOIN right AS b ON a.key = b.user AND b._time BETWEEN a._time - INTERVAL '1 s' AND a._time",
        &["source, project x2", "source, project x2", "join, project, index sink x2"],
        &["0>2 key", "1>2 user"],
    );
    check(
        "INSERT INTO o SELECT a.key, a.window_start, a.id, b.id AS other FROM tumble(left, INTERVAL '5 s') AS a JOIN tumble(right, INTERVAL '5 s') AS b \
         ON a.key = b.key AND a.window_start = b.window_start AND a.window_end = b.window_end",
        &["source, project x2", "source, project x2", "join, project, project, index sink x2"],
        &["0>2 key", "1>2 key"],
    );
    // The same rows on both sides are told apart.
    check(
        "INSERT INTO o SELECT a.key, b.key AS other FROM stream(shop) AS a JOIN stream(shop) AS b ON a.key = b.key AND a._time = b._time",
        &["source, project x2", "project x2", "join, project, index sink x2"],
        &["0>1 =", "0>2 key", "1>2 key"],
    );
}

const NEXMARK_5: &str = "INSERT INTO blackhole() SELECT a.auction, a.num FROM (SELECT auction, window_start, window_end, count(*) AS num \
    FROM hop(nexmark('bid'), INTERVAL '2 seconds', INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') GROUP BY auction, window_start, window_end) AS a \
    JOIN (SELECT window_start, window_end, max(num) AS maxn FROM (SELECT auction, window_start, window_end, count(*) AS num FROM hop(nexmark('bid'), \
    INTERVAL '2 seconds', INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') GROUP BY auction, window_start, window_end) AS c \
    GROUP BY window_start, window_end) AS m ON a.window_start = m.window_start AND a.window_end = m.window_end AND a.num >= m.maxn";

#[test]
fn what_is_asked_twice_is_done_once() {
    check(
        NEXMARK_5,
        &[
            "source, project x2",
            "window, project x2",
            "project, local window x2",
            "window, project x1",
            "join, filter, project, blackhole sink x2",
        ],
        &["0>1 auction", "1>2 =", "2>3 ", "1>4 window_start,window_end", "3>4 window_start,window_end"],
    );
    check(
        "INSERT INTO blackhole() SELECT b.auction, b.price FROM nexmark('bid') AS b JOIN (SELECT window_start, window_end, max(price) AS maxprice \
         FROM tumble(nexmark('bid'), INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') GROUP BY window_start, window_end) AS m \
         ON b.price = m.maxprice AND b._time BETWEEN m.window_start AND m.window_end",
        &[
            "source x2",
            "project x2",
            "project, local window x2",
            "window, project x1",
            "join, filter, project, blackhole sink x2",
        ],
        &["0>1 =", "0>2 =", "2>3 ", "1>4 price", "3>4 maxprice"],
    );
}

#[test]
fn statements_share_what_has_state_and_keep_the_order_of_what_has_none() {
    let sums = |into: &str, key: &str| {
        format!(
            "INSERT INTO {into} SELECT {key}, window_start, count(*) AS n FROM hop(shop, INTERVAL '1 s', INTERVAL '2 s') GROUP BY {key}, window_start"
        )
    };
    check(
        &format!("{}; {}; INSERT INTO c SELECT id FROM shop;", sums("a", "key"), sums("b", "mark")),
        &[
            "source x2",
            "project x2",
            "window, project, index sink x2",
            "project x2",
            "window, project, index sink x2",
            "source, project, index sink x2",
        ],
        &["0>1 =", "1>2 key", "0>3 =", "3>4 mark"],
    );
    let new = tests::job(&format!("{}; {}", sums("a", "key"), sums("shop", "mark")));
    assert!(plan(&new, 2).unwrap_err().to_string().contains("feed itself"));
}

#[test]
fn late_rows_and_dead_letters_go_aside() {
    check(
        "INSERT INTO o SELECT key, window_start, count(*) AS n FROM hop(shop, INTERVAL '1 s', INTERVAL '2 s') GROUP BY key, window_start LATE INTO late ON ERROR INTO dead",
        &["source, project x2", "window, project, index sink x2", "index sink x1", "index sink x1"],
        &["0>1 key", "1>2  Late", "0>3  DeadLetter", "1>3  DeadLetter"],
    );
    // Of two phases it is the first that finds a row late.
    check(
        "INSERT INTO o SELECT window_start, count(*) AS n FROM hop(shop, INTERVAL '1 s', INTERVAL '2 s') GROUP BY window_start LATE INTO files('late')",
        &["source, project, local window x2", "window, project, index sink x1", "files sink x1"],
        &["0>1 ", "0>2  Late"],
    );
    let graph = graph(
        "INSERT INTO o SELECT window_start, count(*) AS n FROM hop(shop, INTERVAL '1 s', INTERVAL '2 s') GROUP BY window_start",
    );
    let phases = graph.vertices.iter().flat_map(|vertex| &vertex.operators).filter_map(|operator| match operator {
        OperatorSpec::Window(window) => Some(window.phase),
        _ => None,
    });
    assert_eq!(phases.collect::<Vec<_>>(), [Phase::Local, Phase::Global]);
}

#[test]
fn results_that_change_go_where_they_can() {
    check(
        "INSERT INTO stdout() SELECT key, count(*) AS n FROM shop GROUP BY key HAVING count(*) > 3",
        &["source, project x2", "group, filter, project, stdout sink x2"],
        &["0>1 key"],
    );
    let mut new = tests::job("SELECT key, count(*) AS n FROM shop GROUP BY key");
    new.sink = Some(Sink::Index("o".parse().unwrap()));
    assert!(plan(&new, 1).unwrap_err().to_string().contains("cannot take back"));
    new.sink = Some(Sink::Alerts("r".parse().unwrap()));
    assert!(plan(&new, 1).unwrap_err().to_string().contains("alert rule"));
}

#[test]
fn a_graph_is_told_in_words() {
    let text = explained(&graph(NEXMARK_5));
    for line in [
        "0 source x2 []",
        "    source: nexmark bid, seed 1, columns auction, watermark delay 4s",
        "    window: hop 2s of 10s by auction: num = countall",
        "    -> 4 by window_start, window_end",
        "    -> 3 all to one subtask",
        "    join: inner on window_start = window_start, window_end = window_end, tumble 2s",
        "    blackhole sink:",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
}

/// What an older release planned is planned as it did, to the byte: jobs that run have it in journals and savepoints.
#[test]
fn old_queries_keep_their_graphs() {
    for (text, expected) in
        [(tests::SUMS, OLD_SUMS), ("INSERT INTO b SELECT _msg, upper(a.b) AS x FROM shop WHERE n > 1", OLD_ROWS)]
    {
        let planned = classic::plan(parse_continuous(text).unwrap(), &tests::job(text), 2).unwrap();
        assert_eq!(serde_json::to_string(&planned.graph).unwrap(), expected, "{text}");
    }
}

const OLD_SUMS: &str = concat!(
    r#"{"vertices":[{"uid":"006b0fadd09d33d6","name":"source","operators":[{"source":{"index":"shop","#,
    r#""start":"oldest","delay":"1s","max_future_skew":"5m","idle_after":"2s","window":"10s"}},"#,
    r#"{"filter":{"sql":"severity = 'error'"}},{"project":{"columns":[{"sql":"CAST((service) AS TEXT)","#,
    r#""name":"service"},{"sql":"TRY_CAST((bytes) AS DOUBLE)","name":"total"}]}}],"parallelism":2},"#,
    r#"{"uid":"ee952503b127ec5c","name":"window","operators":[{"window_aggregate":{"keys":["service"],"#,
    r#""aggregates":[{"function":"count_all","name":"n"},{"function":"sum","column":"total","name":"total"}],"#,
    r#""size":"10s"}},{"project":{"columns":[{"sql":"\"window_start\"","name":"window_start"},{"sql":"\"service\"","#,
    r#""name":"service"},{"sql":"\"n\"","name":"n"},{"sql":"\"total\"","name":"total"}]}},"#,
    r#"{"sink_index":{"index":"sums"}}],"parallelism":2}],"edges":[{"from":0,"to":1,"#,
    r#""partition":{"hash":{"columns":["service"]}}}]}"#,
);

const OLD_ROWS: &str = concat!(
    r#"{"vertices":[{"uid":"40db19e91d50b54a","name":"rows","operators":[{"source":{"index":"shop","start":"oldest","#,
    r#""delay":"1s","max_future_skew":"5m","idle_after":"2s"}},{"filter":{"sql":"n > 1"}},"#,
    r#"{"project":{"columns":[{"sql":"_msg","name":"_msg"},{"sql":"upper(\"a.b\")","name":"x"}]}},"#,
    r#"{"sink_index":{"index":"b"}}],"parallelism":2}],"edges":[]}"#,
);
