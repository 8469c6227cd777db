use super::*;

fn plan(text: &str) -> StreamPlan {
    parse_stream(text).unwrap_or_else(|found| panic!("{}", found.render(text)))
}

/// The steps in one word each, with the inputs that are not the step before.
fn words_of(plan: &StreamPlan) -> String {
    let word = |node: &Node| match node {
        Node::Read { .. } => "read",
        Node::Filter { .. } => "filter",
        Node::Project { .. } => "project",
        Node::Window { .. } => "window",
        Node::Group { .. } => "group",
        Node::Over { .. } => "over",
        Node::Top { .. } => "top",
        Node::Deduplicate { .. } => "dedup",
        Node::Join { .. } => "join",
        Node::Sequence { .. } => "sequence",
    };
    let one = |(place, node): (usize, &Node)| {
        let inputs = node.inputs();
        let shown = inputs.len() > 1 || inputs.iter().any(|input| *input + 1 != place);
        let inputs: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        format!("{}{}", word(node), if shown { format!("({})", inputs.join(",")) } else { String::new() })
    };
    plan.nodes.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
}

fn projected(plan: &StreamPlan, place: usize) -> Vec<String> {
    let Some(Node::Project { columns, .. }) = plan.nodes.get(place) else { panic!("{:?}", plan.nodes.get(place)) };
    columns.iter().map(|column| format!("{}: {}", column.name, column.expr)).collect()
}

pub(super) const FILES: &str = "files('file:///in', format => 'ndjson', time => 'time', corrupt => 'drop', \
                     schema => 'time timestamp, key bigint, value bigint, mark text, id bigint')";
const DELAY: &str = "watermark delay INTERVAL '2 seconds'";
const SUMS: &str = "SELECT key, window_start, window_end, count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS most \
                    FROM {w} WHERE value IS NOT NULL GROUP BY key, window_start, window_end";

/// Every kind of query, over an index and over files.
#[test]
fn every_kind_reads() {
    for from in ["events", FILES] {
        let windows = [
            "tumble({from}, INTERVAL '5 seconds', {delay})",
            "hop({from}, INTERVAL '2 seconds', INTERVAL '6 seconds', {delay})",
            "cumulate({from}, INTERVAL '2 seconds', INTERVAL '6 seconds', {delay})",
            "session({from}, INTERVAL '300 milliseconds', {delay})",
        ];
        let mut all: Vec<(String, &str)> =
            windows.iter().map(|w| (SUMS.replace("{w}", w), "read filter project window project")).collect();
        for (select, steps) in [
            (
                "SELECT a.key, a.id AS left_id, b.id AS right_id FROM stream({from}, {delay}) AS a JOIN stream({from}, {delay}) AS b \
                 ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '200 milliseconds' WHERE a.mark = 'login' AND b.mark = 'error'",
                "read filter project filter(0) project join(2,4) project",
            ),
            (
                "SELECT window_start, window_end, key, rank, value, id FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, key \
                 ORDER BY value DESC) AS rank FROM tumble({from}, INTERVAL '5 seconds', {delay}) WHERE value IS NOT NULL) WHERE rank <= 2",
                "read filter project top project",
            ),
            (
                "SELECT key, _time AS at, id FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY _time) AS rank \
                 FROM stream({from}, {delay}) WHERE value IS NOT NULL) WHERE rank = 1",
                "read filter project dedup project",
            ),
            (
                "SELECT key, _time AS at, id, sum(value) OVER (PARTITION BY key ORDER BY _time ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS total \
                 FROM stream({from}, {delay}) WHERE value IS NOT NULL",
                "read filter project over project",
            ),
            (
                "SELECT key, first_time AS at, last_time AS until FROM sequence({from}, INTERVAL '1 second', a => mark = 'login', \
                 b => mark = 'error', {delay}) GROUP BY key",
                "read project sequence project",
            ),
            ("SELECT mark FROM {from}", "read project"),
            (
                "SELECT key, count(*) AS n, max(value) AS most FROM {from} GROUP BY key HAVING count(*) > 3",
                "read project group filter project",
            ),
        ] {
            all.push((select.to_owned(), steps));
        }
        for (select, steps) in all {
            let into = if steps.contains("group") { "stdout()" } else { "\"tumble-1\"" };
            let text = format!("INSERT INTO {into} {select}").replace("{from}", from).replace("{delay}", DELAY);
            let found = plan(&text);
            assert_eq!(words_of(&found), steps, "{text}");
            let Node::Read { delay, .. } = &found.nodes[0] else { panic!("{text}") };
            assert_eq!(delay.as_secs(), if text.contains("watermark") { 2 } else { 1 }, "{text}");
        }
    }
}

#[test]
fn types_are_those_of_a_schema_or_never_vary() {
    let text = SUMS.replace("{w}", "hop({from}, INTERVAL '2 s', INTERVAL '6 s')");
    let of = |from: &str| plan(&format!("INSERT INTO o {}", text.replace("{from}", from)));
    assert_eq!(projected(&of(FILES), 2), ["key: key", "value: value"]);
    assert_eq!(projected(&of("events"), 2), ["key: CAST((key) AS TEXT)", "value: TRY_CAST((value) AS DOUBLE)"]);
    let (files, index) = (of(FILES), of("events"));
    let kinds = |plan: &StreamPlan| match &plan.nodes[3] {
        Node::Window { aggregates, .. } => aggregates.iter().map(|a| a.kind).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kinds(&files)[1..], [Some(ValueKind::Integer); 3]);
    assert_eq!(kinds(&index)[1..], [Some(ValueKind::Float); 3]);
    // What is compared with a number comes out as one; the rest is text.
    let over = plan(
        "INSERT INTO o SELECT k, v, CASE WHEN v > 3 THEN 'much' END AS much, w, count(*) OVER (PARTITION BY k ORDER BY _time) AS n FROM shop",
    );
    assert_eq!(projected(&over, 1), ["k: CAST((k) AS TEXT)", "v: TRY_CAST((v) AS DOUBLE)", "w: CAST((w) AS TEXT)"]);
    let odd = format!(
        "INSERT INTO o SELECT sum(mark) AS s, window_start FROM tumble({FILES}, INTERVAL '1 s') GROUP BY window_start"
    );
    let found = parse_stream(&odd).unwrap_err();
    assert!(found.message.contains("mark is text, and no number"), "{found}");
}

#[test]
fn what_is_said_twice_is_one_step() {
    let hop = "(SELECT k, window_start, window_end, count(*) AS n FROM hop(shop, INTERVAL '2 s', INTERVAL '10 s') GROUP BY k, window_start, window_end)";
    let found = plan(&format!(
        "INSERT INTO o SELECT a.k, a.n FROM {hop} AS a JOIN (SELECT window_start, window_end, max(n) AS most FROM {hop} AS c \
         GROUP BY window_start, window_end) AS m ON a.window_start = m.window_start AND a.window_end = m.window_end AND a.n >= m.most"
    ));
    assert_eq!(words_of(&found), "read project window project project window project join(3,6) filter project");
    let Node::Join { within: Within::Window(window), left, .. } = &found.nodes[7] else {
        panic!("{:?}", found.nodes[7])
    };
    assert_eq!((window.kind, window.size.as_secs(), left.keys.len()), (WindowKind::Tumble, 2, 2));
    // The begin of a window that hops is reckoned from its end.
    assert_eq!(
        projected(&found, 6)[0],
        "window_start: _time + INTERVAL '1 nanosecond' - INTERVAL '10000 milliseconds'"
    );
    let named = plan(&format!(
        "INSERT INTO o WITH h AS {hop} SELECT x.k, y.n FROM h AS x JOIN h AS y ON x.window_end = y.window_end AND x.k = y.k"
    ));
    assert_eq!(words_of(&named), "read project window project project project(3) join(4,5) project");
}

#[test]
fn an_input_has_the_delay_that_is_said_for_it() {
    let found = plan(
        "INSERT INTO o SELECT b.id, m.most FROM shop AS b JOIN (SELECT window_start, window_end, max(price) AS most \
         FROM tumble(shop, INTERVAL '10 s', watermark delay INTERVAL '4 s', idle after INTERVAL '1 h') GROUP BY window_start, window_end) AS m \
         ON b.price = m.most AND b._time BETWEEN m.window_start AND m.window_end",
    );
    let reads: Vec<(u64, u64)> = found
        .nodes
        .iter()
        .filter_map(|node| match node {
            Node::Read { delay, idle, .. } => Some((delay.as_secs(), idle.unwrap().as_secs())),
            _ => None,
        })
        .collect();
    assert_eq!(reads, [(4, 3_600)], "one source with one delay");
    let join = found.nodes.iter().find_map(|node| match node {
        Node::Join { within, .. } => Some(*within),
        _ => None,
    });
    // The time of a result is the last nanosecond of its window, so bounds are a little wide, and a filter is exact.
    assert_eq!(join, Some(Within::Interval { lower_ms: -1, upper_ms: 10_000 }));
    assert!(words_of(&found).ends_with("join(4,5) filter project"), "{}", words_of(&found));
}

#[test]
fn joins_are_bounded_by_what_their_conditions_say() {
    for (on, lower, upper, exact) in [
        ("b._time BETWEEN a._time - INTERVAL '1 s' AND a._time + INTERVAL '2 s'", -1_000, 2_000, true),
        ("a._time <= b._time AND b._time <= a._time + INTERVAL '2 s'", 0, 2_000, true),
        ("a._time >= b._time AND a._time - INTERVAL '5 s' <= b._time", -5_000, 0, true),
        ("a._time = b._time", 0, 0, true),
        ("b._time > a._time AND b._time < a._time + INTERVAL '2 s'", 0, 2_000, false),
        (
            "a._time BETWEEN b._time AND b._time + INTERVAL '3 s' AND b._time >= a._time - INTERVAL '1 s'",
            -1_000,
            0,
            true,
        ),
    ] {
        let found = plan(&format!("INSERT INTO o SELECT a.x FROM l AS a JOIN r AS b ON a.k = b.user AND {on}"));
        let Some(Node::Join { within, left, right, .. }) =
            found.nodes.iter().find(|node| matches!(node, Node::Join { .. }))
        else {
            panic!("{on}")
        };
        assert_eq!(*within, Within::Interval { lower_ms: lower, upper_ms: upper }, "{on}");
        assert_eq!(
            (left.keys.as_slice(), right.keys.as_slice()),
            (["k".to_owned()].as_slice(), ["user".to_owned()].as_slice())
        );
        assert_eq!(words_of(&found).contains("filter"), !exact, "{on}: {}", words_of(&found));
    }
}

#[test]
fn clauses_and_sinks_are_read() {
    let text = "INSERT INTO files('out', format => 'csv', roll_after => INTERVAL '1 minute') SELECT a FROM shop ON ERROR INTO dead;\n\
                INSERT INTO http('https://x/y', headers => 'A: b\nC: d') SELECT k, window_start, count(*) AS n \
                FROM tumble(shop, INTERVAL '1 s', lateness INTERVAL '5 s') GROUP BY k, window_start LATE INTO jetstream('late.{k}');";
    let found = plan(text);
    assert_eq!(found.on_error, OnError::Into(Target::Index("dead".parse().unwrap())));
    let [files, http] = found.outputs.as_slice() else { panic!("{:?}", found.outputs) };
    assert!(matches!(&files.target, Some(Target::Files { format: Format::Csv { delimiter: ',', header: true }, .. })));
    let Some(Target::Http { headers, .. }) = &http.target else { panic!("{http:?}") };
    assert_eq!((headers["A"].as_str(), headers["C"].as_str()), ("b", "d"));
    assert_eq!(http.late_into, Some(Target::JetStream { subject: "late.{k}".to_owned() }));
    assert_eq!((found.reads().len(), found.writes().len(), found.reaches_out()), (1, 1, true));
    let emit = plan(
        "INSERT INTO stdout() SELECT window_start, count(*) AS n FROM tumble(shop, INTERVAL '1 m') GROUP BY window_start EMIT EVERY INTERVAL '1 s'",
    );
    assert!(emit.outputs[0].changes);
    let condition = "INSERT INTO o SELECT a FROM l AS x JOIN error AS y ON error = y.k AND x._time = y._time";
    assert!(parse_stream(condition).unwrap_err().message.contains("which table has error?"), "it is none about errors");
}

#[test]
fn sequences_have_steps_and_measures() {
    let found = plan(
        "INSERT INTO o SELECT k, a.ip AS ip, last(b.code) AS code, count(b) AS n, first_time AS at, last_time - first_time AS took \
         FROM sequence(shop, INTERVAL '1 minute', a => x = 1, b => times(y = 2, 2, 5), c => absent(z = 3), overlap => true, gaps => false) GROUP BY k",
    );
    let Some(Node::Sequence { steps, measures, overlap, gaps, .. }) = found.nodes.get(2) else {
        panic!("{}", words_of(&found))
    };
    let steps: Vec<_> = steps.iter().map(|s| (s.name.as_str(), s.least, s.most, s.absent)).collect();
    assert_eq!(steps, [("a", 1, 1, false), ("b", 2, 5, false), ("c", 1, 1, true)]);
    assert_eq!((*overlap, *gaps), (true, false));
    let measures: Vec<_> = measures.iter().map(|m| (m.step.as_str(), &m.value)).collect();
    let column = |name: &str| name.to_owned();
    assert_eq!(
        measures,
        [
            ("a", &MeasuredValue::First(column("ip"))),
            ("b", &MeasuredValue::Last(column("code"))),
            ("b", &MeasuredValue::Count),
            ("a", &MeasuredValue::First(column("_time"))),
            ("b", &MeasuredValue::Last(column("_time"))),
        ]
    );
}

/// What an older release reads, this one reads too.
#[test]
fn what_was_continuous_is_continuous() {
    for text in [
        "INSERT INTO x SELECT _msg, upper(service) AS svc FROM shop WHERE severity = 'error'",
        "INSERT INTO x SELECT * FROM \"shop-a\" WHERE a > 1",
        "INSERT INTO \"shop-errors\" SELECT service, http.status AS status, window_start, window_end AS until, count(*) AS n, max(latency_ms), \
         avg(bytes / 1024) AS kib FROM tumble(\"shop-frontend\", INTERVAL '10 seconds', watermark delay INTERVAL '5' SECOND) \
         WHERE severity IN ('error', 'fatal') AND http.status >= 500 GROUP BY service, http.status, window_start, window_end;",
        "INSERT INTO x SELECT upper(service) AS s, count(x) FROM tumble(shop, INTERVAL '1 minute') GROUP BY s, window_start",
    ] {
        assert!(crate::parse_continuous(text).is_ok(), "{text}");
        plan(text);
    }
}

/// The guide's examples are what it says.
#[test]
fn the_guide_reads() {
    let guide = include_str!("../../../../docs/guide/streams-sql.md");
    let blocks: Vec<&str> = guide.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 8, "there are {} examples", blocks.len());
    for text in blocks {
        plan(text);
    }
}
