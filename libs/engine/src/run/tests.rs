use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use query::parse_select;
use types::Timestamp;

use super::*;
use crate::{ChunkPiece, Chunks, Piece, Rows};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-02T03:04:00Z
const BASE: i64 = 1_767_323_040 * SECOND;

fn batch(first: i64, rows: i64, more: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let times =
        || Arc::new(TimestampNanosecondArray::from_iter_values((first..first + rows).map(|i| BASE + i * SECOND)));
    let text = |value: &str| Arc::new(StringArray::from_iter_values((0..rows).map(|_| value))) as ArrayRef;
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("_time", times()),
        ("_received", times()),
        ("_msg", text("hello")),
        ("severity", text(if first % 20 == 0 { "error" } else { "info" })),
        ("_segment", text("1-0-0")),
        ("_offset", Arc::new(Int64Array::from_iter_values(first..first + rows))),
    ];
    columns.extend(more);
    RecordBatch::try_from_iter(columns).unwrap()
}

fn shop() -> Vec<RecordBatch> {
    let ints = |n: i64| Arc::new(Int64Array::from_iter_values(0..n)) as ArrayRef;
    let texts = |n: usize| Arc::new(StringArray::from(vec!["x"; n])) as ArrayRef;
    vec![
        batch(0, 10, vec![("latency", ints(10)), ("userId", texts(10))]),
        batch(10, 10, vec![("http.status", ints(10)), ("latency", ints(10))]),
        batch(20, 5, vec![("userId", ints(5))]),
    ]
}

const LIMITS: Limits =
    Limits { rows_max: 1_000, memory_bytes: 64 << 20, timeout: Duration::from_secs(20), scan_bytes: u64::MAX };

async fn run(text: &str, tables: Vec<(&str, Vec<RecordBatch>)>, limits: Limits) -> Result<ResultSet, EngineError> {
    let tables = tables
        .into_iter()
        .map(|(name, batches)| (name.parse().unwrap(), Arc::new(Rows::new(batches)) as Arc<dyn TableSource>));
    run_select(&parse_select(text)?, tables.collect(), limits).await
}

fn rows(result: &ResultSet) -> String {
    result.to_json_rows().unwrap().iter().map(|row| row.get().to_owned()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn batches_of_different_schemas_are_one_table() {
    for (text, expected) in [
        ("SELECT count(*) AS n, count(latency) AS l, count(http.status) AS h FROM shop", r#"{"n":25,"l":20,"h":10}"#),
        ("SELECT sum(latency) AS s, avg(latency) AS a FROM shop", r#"{"s":90,"a":4.5}"#),
        (
            "SELECT \"userId\", count(*) FROM shop GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2",
            "{\"userId\":\"x\",\"count(*)\":10}\n{\"userId\":null,\"count(*)\":10}",
        ),
        ("SELECT _time, _offset FROM shop WHERE userId = '4'", r#"{"_time":"2026-01-02T03:04:24Z","_offset":24}"#),
        ("SELECT max(_offset) AS m FROM shop WHERE _time < '2026-01-02T03:04:05Z'", r#"{"m":4}"#),
        (
            "SELECT date_bin(INTERVAL '20 seconds', _time) AS t, severity, count(*) AS n FROM shop GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 2",
            "{\"t\":\"2026-01-02T03:04:00Z\",\"severity\":\"error\",\"n\":10}\n{\"t\":\"2026-01-02T03:04:00Z\",\"severity\":\"info\",\"n\":10}",
        ),
        (
            "SELECT a._offset, b._offset FROM shop a JOIN shop b ON a._offset = b._offset WHERE a._offset = 3",
            r#"{"_offset":3,"_offset_2":3}"#,
        ),
        ("WITH late AS (SELECT * FROM shop WHERE _offset > 20) SELECT count(*) AS n FROM late", r#"{"n":4}"#),
        ("SELECT upper(severity) AS s FROM shop ORDER BY s LIMIT 1", r#"{"s":"ERROR"}"#),
        ("SELECT 1 AS one", r#"{"one":1}"#),
    ] {
        let result = run(text, vec![("shop", shop())], LIMITS).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(rows(&result), expected, "{text}");
    }
}

#[tokio::test]
async fn an_index_without_rows_has_the_columns_of_the_platform() {
    let result = run("SELECT * FROM shop", vec![("shop", vec![])], LIMITS).await.unwrap();
    let names: Vec<String> = result.columns().into_iter().map(|column| column.name).collect();
    assert_eq!(names, ["_time", "_received", "_msg", "severity", "_segment", "_offset"]);
    assert_eq!(result.row_count(), 0);
    assert_eq!(result.to_csv().unwrap(), b"_time,_received,_msg,severity,_segment,_offset\n");
    let count = run("SELECT count(*) AS n FROM shop", vec![("shop", vec![])], LIMITS).await.unwrap();
    assert_eq!(rows(&count), r#"{"n":0}"#);
}

#[tokio::test]
async fn limits_bite() {
    let cut = run("SELECT _offset FROM shop", vec![("shop", shop())], Limits { rows_max: 7, ..LIMITS }).await.unwrap();
    assert_eq!((cut.row_count(), cut.truncated), (7, true));
    let whole =
        run("SELECT _offset FROM shop", vec![("shop", shop())], Limits { rows_max: 25, ..LIMITS }).await.unwrap();
    assert_eq!((whole.row_count(), whole.truncated), (25, false));
    assert_eq!(whole.stats.rows_scanned, 25);

    let text = "SELECT a._offset FROM shop a, shop b, shop c, shop d, shop e, shop f ORDER BY 1";
    let slow = run(
        text,
        vec![("shop", shop())],
        Limits { timeout: Duration::from_millis(200), memory_bytes: 8 << 30, ..LIMITS },
    )
    .await;
    assert!(matches!(slow, Err(EngineError::Timeout(_))), "{slow:?}");
    let wide = run(text, vec![("shop", shop())], Limits { memory_bytes: 1 << 20, ..LIMITS }).await;
    assert!(matches!(wide, Err(EngineError::Memory(_))), "{wide:?}");
}

#[tokio::test]
async fn rows_that_share_a_buffer_are_counted_once() {
    // Counted whole for each of its 500 slices, the one buffer would be a hundred times the limit.
    let whole = batch(0, 5_000, vec![]);
    let slices: Vec<RecordBatch> = (0..500).map(|i| whole.slice(i * 10, 10)).collect();
    let limits = Limits { rows_max: 10_000, memory_bytes: 2 << 20, ..LIMITS };
    let result = run("SELECT * FROM shop", vec![("shop", slices)], limits).await.unwrap();
    assert_eq!((result.row_count(), result.truncated), (5_000, false));
    assert!(result.stats.bytes_scanned < 1 << 20, "{:?}", result.stats);
    let small = Limits { memory_bytes: 100_000, ..limits };
    let cut = run("SELECT * FROM shop", vec![("shop", vec![whole])], small).await.unwrap();
    assert!(cut.truncated, "a result is cut at the bytes as well");
}

#[tokio::test]
async fn complaints_point_at_the_place() {
    for (text, line, column, message, help) in [
        ("SELECT sevrity FROM shop", 1, 8, "there is no column sevrity", "did you mean severity?"),
        ("SELECT *\nFROM shop WHERE userid = 'x'", 2, 17, "there is no column userid", "did you mean userId?"),
        ("SELECT nothing_like_it FROM shop", 1, 8, "there is no column", "the columns are _msg"),
        ("SELECT 1 + _msg2 FROM shop", 1, 12, "there is no column _msg2", "_msg?"),
        ("SELECT frobnicate(_msg) FROM shop", 1, 8, "Invalid function 'frobnicate'", ""),
        ("SELECT cont(_msg) FROM shop", 1, 8, "Invalid function 'cont'", "did you mean"),
        ("SELECT _msg FROM shop GROUP BY severity", 1, 8, "_msg", ""),
        ("SELECT _offset FROM shop a JOIN shop b ON true", 1, 8, "in more than one table", "<table>._offset"),
        ("SELECT * FROM shap", 1, 15, "shap", ""),
        ("SELECT CAST(_msg AS INT) FROM shop", 1, 1, "hello", ""),
    ] {
        let found = run(text, vec![("shop", shop())], LIMITS).await.expect_err(text);
        let EngineError::Query(found) = found else { panic!("{text}: {found:?}") };
        assert!(found.message.contains(message), "{text}: {found:?}");
        assert_eq!((found.line, found.column), (line, column), "{text}: {found:?}");
        assert!(found.help.clone().unwrap_or_default().contains(help), "{text}: {found:?}");
    }
}

#[tokio::test]
async fn a_problem_of_a_source_arrives_as_it_is() {
    #[derive(Debug)]
    struct Broken(Piece);

    impl TableSource for Broken {
        fn pieces(&self) -> Vec<Piece> {
            vec![self.0.clone()]
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let chunks = Chunks::new(store::Objects::open(&format!("file://{}", directory.path().display())).unwrap());
    let (time_min, time_max) = (Timestamp::MIN, Timestamp::MAX);
    let chunk = wire::segment_store::ChunkMeta { key: "gone".into(), from: 0, to: 9, bytes: 99, time_min, time_max };
    let segment = types::SegmentId { stream: 1, epoch: 0, number: 0 };
    let source = Arc::new(Broken(Piece::Chunk(ChunkPiece { chunks, segment, chunk, from: 0 })));
    let tables = vec![("shop".parse().unwrap(), source as Arc<dyn TableSource>)];
    let found = run_select(&parse_select("SELECT max(_time) FROM shop").unwrap(), tables, LIMITS).await.unwrap_err();
    assert!(matches!(&found, EngineError::Source(problem) if problem.kind == "ChunkUnreadable"), "{found:?}");
}

#[test]
fn the_deepest_text_does_not_overflow_a_stack() {
    // The parser takes at most so many operators; this is the shape that nests them all.
    let text = format!("SELECT {} AS x FROM shop LIMIT 1", vec!["latency"; query::OPERATORS_MAX - 6].join(" + "));
    let deep = std::thread::Builder::new().stack_size(8 << 20).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&text, vec![("shop", shop())], LIMITS)).map(|result| result.row_count())
    });
    assert_eq!(deep.unwrap().join().unwrap().unwrap(), 1);
}

#[tokio::test]
async fn results_are_written_in_three_ways() {
    let text = "SELECT _time, _msg, latency FROM shop WHERE _offset IN (9, 20) ORDER BY _offset";
    let result = run(text, vec![("shop", shop())], LIMITS).await.unwrap();
    let kinds: Vec<String> = result.columns().into_iter().map(|column| column.kind).collect();
    assert_eq!(kinds, ["timestamp", "text", "integer"]);
    assert_eq!(
        String::from_utf8(result.to_csv().unwrap()).unwrap(),
        "_time,_msg,latency\n2026-01-02T03:04:09Z,hello,9\n2026-01-02T03:04:20Z,hello,\n"
    );
    let stream = result.to_ipc_stream().unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}
