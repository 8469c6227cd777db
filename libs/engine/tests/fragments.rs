//! A query by fragments answers what the same query answers over all rows at once, however the rows are split.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::SchemaRef,
};
use engine::{
    EngineError, Fragment, FragmentRows, Limits, Piece, Rows, Scatter, Scattered, TableSource, Whole, batches_of,
    run_fragment, run_scattered, run_select, schema_of, schema_to_ipc,
};
use futures::{StreamExt, stream, stream::BoxStream};
use ingest::merge_schemas;
use parking_lot::Mutex;
use proptest::prelude::*;
use query::parse_select;
use tokio::runtime::{Builder, Runtime};
use types::IndexName;
use wire::Problem;

const SECOND: i64 = 1_000_000_000;
/// 2026-01-02T03:04:00Z
const BASE: i64 = 1_767_323_040 * SECOND;

/// Queries that are cut; `true` where the order of their rows is part of the answer.
const CUT: [(&str, bool); 37] = [
    ("SELECT count(*) AS n FROM shop", false),
    ("SELECT count(n) AS n, sum(n) AS s, min(n) AS lo, max(n) AS hi, avg(n) AS a FROM shop", false),
    ("SELECT count(*), sum(n), avg(n), min(_msg) FROM shop WHERE service = 'nobody'", false),
    ("SELECT service, count(*) AS n FROM shop GROUP BY service", false),
    ("SELECT service, severity, count(*) AS n, avg(\"took.ms\") AS a FROM shop GROUP BY service, severity", false),
    ("SELECT service, sum(n) AS s FROM shop WHERE severity = 'error' GROUP BY service HAVING sum(n) > 3", false),
    ("SELECT service, count(*) AS n FROM shop GROUP BY service ORDER BY n DESC, service LIMIT 2", true),
    ("SELECT date_bin(INTERVAL '10 seconds', _time) AS t, severity, count(*) AS n FROM shop GROUP BY 1, 2", false),
    ("SELECT date_trunc('minute', _time) AS t, max(n) - min(n) AS span FROM shop GROUP BY 1 ORDER BY 1", true),
    ("SELECT count(*) FILTER (WHERE severity = 'error') * 100 / count(*) AS share FROM shop", false),
    ("SELECT service, avg(n) FILTER (WHERE n > 2) AS a, min(severity) AS d FROM shop GROUP BY service", false),
    ("SELECT count(DISTINCT service) AS d FROM shop", false),
    ("SELECT severity, count(DISTINCT service) AS d FROM shop GROUP BY severity", false),
    (
        "SELECT count(DISTINCT service) AS d, count(*) AS n, count(DISTINCT \"took.ms\") AS t, avg(n) AS a FROM shop WHERE ok",
        false,
    ),
    (
        "SELECT severity, count(DISTINCT severity) AS s, count(DISTINCT n % 3) AS d, sum(n) AS t, max(_msg) AS m FROM shop GROUP BY severity",
        false,
    ),
    ("SELECT DISTINCT severity, ok FROM shop", false),
    ("SELECT upper(service) AS s, count(*) AS n FROM shop WHERE _msg LIKE '%rok%' GROUP BY upper(service)", false),
    ("SELECT CASE WHEN n > 3 THEN 'big' ELSE 'small' END AS size, count(*) AS n FROM shop GROUP BY 1", false),
    ("SELECT sum(n * n) AS a, sum(n * 2) AS b, max(n + 1) AS c FROM shop WHERE n + 1 > 2", false),
    ("SELECT service AS __0, count(*) AS __1 FROM shop GROUP BY service", false),
    (
        "SELECT 'it''s' AS a, \"took.ms\" AS b, count(*) AS n FROM shop WHERE _msg <> 'it''s' GROUP BY \"took.ms\"",
        false,
    ),
    ("WITH e AS (SELECT service, n FROM shop WHERE ok) SELECT service, max(n) AS m FROM e GROUP BY service", false),
    (
        "SELECT e.s, sum(e.c) AS t FROM (SELECT service AS s, n AS c FROM shop AS x WHERE x.n < 5) AS e GROUP BY e.s",
        false,
    ),
    ("SELECT avg(c) AS a FROM (SELECT service, count(*) AS c FROM shop GROUP BY service) AS per", false),
    (
        "SELECT a.service, a.n, b.m FROM (SELECT service, count(*) AS n FROM shop GROUP BY service) AS a JOIN (SELECT service, max(_offset) AS m FROM shop GROUP BY service) AS b ON a.service = b.service",
        false,
    ),
    ("SELECT _offset, _msg FROM shop WHERE severity = 'error' LIMIT 1000", false),
    ("SELECT _offset FROM shop WHERE _msg ~ '^(Broken|pipe)' AND service IN ('cart', 'web') LIMIT 65536", false),
    ("SELECT _offset, n FROM shop WHERE n IS NULL OR NOT ok LIMIT 1000", false),
    ("SELECT 'x' AS x FROM shop LIMIT 4", false),
    ("SELECT ok FROM shop WHERE ok LIMIT 4", false),
    ("SELECT _offset, service FROM shop WHERE severity IS NOT NULL ORDER BY _time DESC, _offset LIMIT 5", true),
    ("SELECT _offset + 1 AS next, n FROM shop ORDER BY n ASC NULLS FIRST, _offset LIMIT 7", true),
    ("SELECT * FROM shop ORDER BY _offset DESC LIMIT 3", true),
    ("SELECT _offset FROM shop WHERE service = 'web' ORDER BY _offset LIMIT 65536", true),
    ("SELECT _offset FROM shop WHERE ok ORDER BY _offset LIMIT 3 OFFSET 2", true),
    (
        "SELECT count(*) AS n FROM shop WHERE _time >= '2026-01-02T03:04:05' AND _time < TIMESTAMP '2026-01-02T03:04:31.5'",
        false,
    ),
    ("SELECT count(*) AS n FROM shop WHERE n BETWEEN 1 AND 4 AND \"took.ms\" > 0.25 AND service NOT LIKE 'c%'", false),
];

/// Queries that need whole rows, and why.
const WHOLE: [(&str, Whole); 16] = [
    ("SELECT count(*) AS n FROM (SELECT n FROM shop LIMIT 4) AS few", Whole::Shape),
    ("SELECT count(DISTINCT service) FILTER (WHERE ok) AS d, count(*) AS n FROM shop", Whole::Aggregate),
    ("SELECT sum(DISTINCT n) AS d, count(*) AS n FROM shop", Whole::Aggregate),
    ("SELECT count(DISTINCT n), count(DISTINCT ok), count(DISTINCT _msg), count(*) FROM shop", Whole::Aggregate),
    ("SELECT * FROM shop", Whole::AllRows),
    ("SELECT _offset, _msg FROM shop WHERE severity = 'error'", Whole::AllRows),
    ("SELECT _offset FROM shop WHERE ok LIMIT 65537", Whole::AllRows),
    ("SELECT _offset FROM shop WHERE service = 'web' ORDER BY _offset", Whole::AllRows),
    ("SELECT * FROM shop WHERE severity = 'info' ORDER BY _time DESC LIMIT 100001", Whole::AllRows),
    ("SELECT _offset FROM shop ORDER BY _time LIMIT 100001", Whole::AllRows),
    ("SELECT median(n) AS m FROM shop", Whole::Aggregate),
    ("SELECT service, array_agg(n) AS all FROM shop GROUP BY service", Whole::Aggregate),
    ("SELECT count(*) FROM shop WHERE random() < 0.5", Whole::Shape),
    ("SELECT _offset, row_number() OVER (ORDER BY _offset) AS place FROM shop", Whole::Shape),
    ("SELECT a._offset FROM shop AS a JOIN shop AS b ON a._offset = b.n", Whole::Shape),
    ("SELECT n FROM shop WHERE ok UNION ALL SELECT _offset FROM shop WHERE NOT ok", Whole::Shape),
];

fn index() -> IndexName {
    "shop".parse().unwrap()
}

/// One row: its second, service, severity, message, `n`, `took.ms` in quarters, `ok`.
type Row = (i64, Option<usize>, Option<usize>, usize, Option<i64>, Option<i64>, Option<bool>);

fn row() -> impl Strategy<Value = Row> {
    let third = |of: std::ops::Range<usize>| proptest::option::weighted(0.8, of);
    let n = proptest::option::weighted(0.7, 0..7_i64);
    (0..90_i64, third(0..4), third(0..3), 0..5_usize, n.clone(), n, proptest::option::of(any::<bool>()))
}

/// A batch as it comes of inference: the types of `n`, and which columns there are, differ from batch to batch.
fn batch(rows: &[Row], from: usize, kind: usize) -> RecordBatch {
    const SERVICES: [&str; 4] = ["cart", "web", "größe", "it's"];
    const MESSAGES: [&str; 5] = ["Broken pipe", "broken", "pipe-7 broken", "it's", ""];
    let texts =
        |of: &dyn Fn(&Row) -> Option<&'static str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let times = || Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| BASE + r.0 * SECOND)));
    let offsets = (from..).take(rows.len()).map(|n| i64::try_from(n).unwrap());
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("_time", times(), false),
        ("_received", times(), false),
        ("_msg", texts(&|r| Some(MESSAGES[r.3])), false),
        ("severity", texts(&|r| r.2.map(|s| ["info", "error", "warn"][s])), true),
        ("_segment", texts(&|_| Some("1-0-0")), false),
        ("_offset", Arc::new(Int64Array::from_iter_values(offsets)), false),
        ("service", texts(&|r| r.1.map(|s| SERVICES[s])), true),
        ("ok", Arc::new(rows.iter().map(|r| r.6).collect::<BooleanArray>()), true),
    ];
    let quarters = |of: Option<i64>| of.map(|n| n as f64 / 4.0);
    columns.push(("took.ms", Arc::new(rows.iter().map(|r| quarters(r.5)).collect::<Float64Array>()), true));
    match kind {
        0 => {}
        1 => columns.push(("n", Arc::new(rows.iter().map(|r| r.4.map(|n| n as f64)).collect::<Float64Array>()), true)),
        _ => columns.push(("n", Arc::new(rows.iter().map(|r| r.4).collect::<Int64Array>()), true)),
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Parts of a table in this process; what goes to a part and comes from it goes through bytes.
#[derive(Debug)]
struct Split {
    schema: SchemaRef,
    parts: Vec<Vec<RecordBatch>>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Split {
    fn new(parts: Vec<Vec<RecordBatch>>) -> Self {
        let schemas: Vec<SchemaRef> = parts.iter().flatten().map(RecordBatch::schema).collect();
        let schema = Arc::new(merge_schemas(schemas.iter().map(AsRef::as_ref)));
        Self { schema, parts, texts: Arc::default() }
    }

    fn all(&self) -> Vec<RecordBatch> {
        self.parts.iter().flatten().cloned().collect()
    }
}

impl Scatter for Split {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(&self, fragment: Arc<Fragment>) -> BoxStream<'static, Result<FragmentRows, EngineError>> {
        self.texts.lock().push(fragment.text.clone());
        let parts = stream::iter(self.parts.clone());
        let answer = move |part: Vec<RecordBatch>| {
            let fragment = Arc::clone(&fragment);
            async move {
                let schema = schema_of(&schema_to_ipc(&fragment.schema)?)?;
                let fragment = Fragment { schema, ..(*fragment).clone() };
                let pieces = part.into_iter().map(Piece::Rows).collect();
                let result = run_fragment(&fragment, &index(), pieces, Limits::default()).await?;
                let bytes = result.to_ipc_stream()?;
                let answer_bytes = Some(bytes.len() as u64);
                Ok(FragmentRows { batches: batches_of(&bytes)?, stats: result.stats, answer_bytes })
            }
        };
        parts.then(answer).boxed()
    }
}

fn runtime() -> Runtime {
    // Planning takes stack, as on the threads of queries.
    Builder::new_multi_thread().worker_threads(1).thread_stack_size(16 << 20).enable_all().build().unwrap()
}

fn on<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(work)).unwrap()
}

fn rows_of(result: &engine::ResultSet, ordered: bool) -> (Vec<engine::ResultColumn>, Vec<String>) {
    let mut rows: Vec<String> = result.to_json_rows().unwrap().iter().map(|row| row.get().to_owned()).collect();
    if !ordered {
        rows.sort_unstable();
    }
    (result.columns(), rows)
}

async fn scattered(text: &str, split: Arc<Split>) -> Result<Scattered, EngineError> {
    let select = parse_select(text).unwrap();
    let texts = Arc::clone(&split.texts);
    let answer = run_scattered(&select, vec![(index(), split)], Limits::default()).await;
    if let Ok(Scattered::Answered(result)) = &answer {
        assert!(result.stats.fragments.beside > 0, "{text} ran in fragments: {:?}", texts.lock());
    }
    answer
}

async fn check(text: &'static str, ordered: bool, split: Arc<Split>) {
    let select = parse_select(text).unwrap();
    let source: Arc<dyn TableSource> = Arc::new(Rows::new(split.all()));
    let direct = run_select(&select, vec![(index(), source)], Limits::default()).await.unwrap();
    let texts = Arc::clone(&split.texts);
    match scattered(text, split).await.unwrap() {
        Scattered::Answered(result) => {
            assert_eq!(rows_of(&result, ordered), rows_of(&direct, ordered), "{text} by {:?}", texts.lock());
        }
        Scattered::Whole(why) => panic!("{text} is not cut: {why:?}"),
    }
}

fn split() -> impl Strategy<Value = Split> {
    let piece = (proptest::collection::vec(row(), 0..9), 0..3_usize);
    proptest::collection::vec(proptest::collection::vec(piece, 1..3), 1..4).prop_map(|parts| {
        let mut from = 0;
        let mut piece = |(rows, kind): (Vec<Row>, usize)| {
            from += rows.len();
            batch(&rows, from - rows.len(), kind)
        };
        let mut parts: Vec<Vec<RecordBatch>> =
            parts.into_iter().map(|part| part.into_iter().map(&mut piece).collect()).collect();
        // So that there is a column `n` whatever the dice say.
        parts[0].push(batch(&[(3, Some(0), None, 0, Some(3), Some(1), Some(true))], from, 2));
        Split::new(parts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn fragments_answer_what_the_whole_answers(split in split()) {
        let (runtime, parts) = (runtime(), split.parts);
        let mut wrong = Vec::new();
        for (text, ordered) in CUT {
            let split = Arc::new(Split::new(parts.clone()));
            let checked = runtime.block_on(runtime.spawn(check(text, ordered, split)));
            wrong.extend(checked.err().map(|error| error.to_string()));
        }
        prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn few() -> Arc<Split> {
    let rows: Vec<Row> = (0..20).map(|n| (n, Some(1), Some(1), 0, Some(n % 5), Some(n), Some(n % 2 == 0))).collect();
    Arc::new(Split::new(vec![vec![batch(&rows[..7], 0, 2)], vec![batch(&rows[7..], 7, 2)]]))
}

#[test]
fn what_needs_whole_rows_says_why_and_runs_nothing() {
    let runtime = runtime();
    for (text, expected) in WHOLE {
        let split = few();
        match on(&runtime, {
            let split = Arc::clone(&split);
            async move { scattered(text, split).await }
        })
        .unwrap()
        {
            Scattered::Whole(why) => assert_eq!(why, expected, "{text}"),
            Scattered::Answered(_) => panic!("{text} was cut: {:?}", split.texts.lock()),
        }
        assert!(split.texts.lock().is_empty(), "{text}");
    }
}

#[test]
fn a_fragment_is_one_text_that_asks_for_parts() {
    let split = few();
    let text = r#"SELECT service, avg("took.ms") AS a, count("took.ms") AS c, sum("took.ms") AS s FROM shop WHERE ok GROUP BY service"#;
    let answer = on(&runtime(), {
        let split = Arc::clone(&split);
        async move { scattered(text, split).await }
    });
    let Scattered::Answered(result) = answer.unwrap() else { panic!("it is cut") };
    let stats = result.stats;
    assert_eq!((stats.rows_scanned, stats.fragments.beside, stats.fragments.here), (20, 2, 0));
    assert!(stats.fragments.answer_bytes > 0 && result.row_count() == 1);
    let texts = split.texts.lock();
    let [said] = texts.as_slice() else { panic!("{texts:?}") };
    assert!(said.contains("GROUP BY 1") && said.contains("\"ok\"") && !said.to_lowercase().contains("avg("), "{said}");
    assert_eq!(said.matches(" AS \"__").count(), 3, "a part that two need is asked for once: {said}");
}

/// A table of which every part fails.
#[derive(Debug)]
struct Broken(SchemaRef, &'static str);

impl Scatter for Broken {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn run(&self, _: Arc<Fragment>) -> BoxStream<'static, Result<FragmentRows, EngineError>> {
        let problem = Problem::unavailable(self.1, "chunk x cannot be fetched");
        stream::iter([Err(EngineError::Source(problem))]).boxed()
    }
}

#[test]
fn an_error_of_a_fragment_is_that_of_the_query() {
    let runtime = runtime();
    let split = few();
    let broken = Arc::new(Broken(split.schema(), "ChunkUnreadable"));
    let failed = on(&runtime, async move {
        let select = parse_select("SELECT count(*) FROM shop").unwrap();
        run_scattered(&select, vec![(index(), broken)], Limits::default()).await.unwrap_err()
    });
    assert!(matches!(&failed, EngineError::Source(problem) if problem.kind == "ChunkUnreadable"), "{failed:?}");

    let small = Limits { scan_bytes: 10, ..Limits::default() };
    let failed = on(&runtime, async move {
        let select = parse_select("SELECT sum(n) FROM shop").unwrap();
        run_scattered(&select, vec![(index(), split)], small).await.unwrap_err()
    });
    assert!(matches!(&failed, EngineError::Source(problem) if problem.kind == "QueryScanTooLarge"), "{failed:?}");

    let wrong = on(&runtime, async move { scattered("SELECT nope FROM shop", few()).await.unwrap_err() });
    assert!(matches!(&wrong, EngineError::Query(found) if found.message.contains("nope")), "{wrong:?}");
}

#[test]
fn a_query_of_which_a_fragment_is_too_large_is_given_up_and_has_not_failed() {
    let large = Arc::new(Broken(few().schema(), "FragmentTooLarge"));
    let ended = on(&runtime(), async move {
        let select = parse_select("SELECT service, count(*) FROM shop GROUP BY service").unwrap();
        run_scattered(&select, vec![(index(), large)], Limits::default()).await.unwrap()
    });
    assert!(matches!(ended, Scattered::Whole(Whole::TooLarge)), "{ended:?}");
}
