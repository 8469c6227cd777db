//! Queries over chunks and rows in memory answer what the same queries answer over plain batches without any of it.

use std::time::Duration;

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampNanosecondArray},
    datatypes::DataType,
};
use datafusion::{common::TableReference, datasource::MemTable, error::DataFusionError};
use futures::TryStreamExt;
use proptest::prelude::*;
use query::{Select, parse_select};
use store::Objects;
use tempfile::TempDir;
use types::{Offset, SegmentId};
use wire::segment_store::ChunkMeta;

use super::*;
use crate::{
    ChunkPiece, Chunks, EngineError, Limits, ResultColumn, ResultSet, TableSource, plans::logical, run::run_select,
    session::session,
};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-02T03:04:00Z
const BASE: i64 = 1_767_323_040 * SECOND;
const WORDS: [&str; 6] = ["broken", "Broken", "pipe-7", "blk_42", "größe", "a.b"];
const SEVERITIES: [Option<&str>; 4] = [Some("info"), Some("error"), Some("warn"), None];

/// A small generator: equal seeds give equal rows.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }
}

fn segment(number: u32) -> SegmentId {
    SegmentId { stream: 1, epoch: 0, number }
}

/// What the column `n` is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Without,
    Floats,
    Integers,
}

/// Some rows of a segment; the columns of its fields and their types are not always the same.
fn rows(dice: &mut Dice, number: u32, from: Offset, count: usize, kind: Kind) -> RecordBatch {
    let from = i64::try_from(from).unwrap();
    let mut column = |of: &mut dyn FnMut(&mut Dice, i64) -> Option<String>| -> ArrayRef {
        Arc::new((0..i64::try_from(count).unwrap()).map(|i| of(dice, i)).collect::<StringArray>())
    };
    let message = column(&mut |dice, i| Some(format!("{} took {i} {} ms", dice.of(&WORDS), dice.of(&WORDS))));
    let severity = column(&mut |dice, _| dice.of(&SEVERITIES).map(str::to_owned));
    let service = column(&mut |dice, _| Some(dice.of(&["cart", "web"]).to_owned()));
    let trace = column(&mut |dice, _| Some(format!("{:032x}", dice.roll(40))));
    let name = column(&mut |_, _| Some(segment(number).to_string()));
    let times = || {
        let mut dice = Dice(u64::try_from(from).unwrap() + u64::from(number));
        let at = (0..count).map(|i| BASE + (from + i64::try_from(i).unwrap()) * SECOND + dice.roll(90) as i64 * SECOND);
        Arc::new(TimestampNanosecondArray::from_iter_values(at)) as ArrayRef
    };
    let mut columns = vec![
        ("_time", times()),
        ("_received", times()),
        ("_msg", message),
        ("severity", severity),
        ("_segment", name),
        ("_offset", Arc::new((from..from + i64::try_from(count).unwrap()).collect::<Int64Array>()) as ArrayRef),
        ("service", service),
        ("trace_id", trace),
    ];
    match kind {
        Kind::Without => {}
        Kind::Floats => {
            let values = (0..count).map(|_| (dice.roll(5) > 0).then(|| dice.roll(50) as f64 / 2.0));
            columns.push(("n", Arc::new(values.collect::<Float64Array>())));
        }
        Kind::Integers => {
            let values = (0..count).map(|_| (dice.roll(5) > 0).then(|| dice.roll(50) as i64 - 25));
            columns.push(("n", Arc::new(values.collect::<Int64Array>())));
        }
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A table with its objects.
#[derive(Debug)]
struct Table {
    pieces: Vec<Piece>,
    /// Every row that counts.
    batches: Vec<RecordBatch>,
    chunks: Chunks,
    _directory: TempDir,
}

impl TableSource for Table {
    fn pieces(&self) -> Vec<Piece> {
        self.pieces.clone()
    }
}

impl Table {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", directory.path().display())).unwrap();
        Self { pieces: Vec::new(), batches: Vec::new(), chunks: Chunks::new(objects), _directory: directory }
    }

    /// Adds a chunk, of which the first rows are truncated.
    async fn add(&mut self, number: u32, batch: &RecordBatch, truncated: usize) {
        let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
        let from = Offset::try_from(offsets.value(0)).unwrap();
        let (time_min, time_max) = times(batch);
        let encoded = chunk::write(segment(number), from, std::slice::from_ref(batch)).unwrap();
        let rows = u64::try_from(batch.num_rows()).unwrap();
        let bytes = u64::try_from(encoded.bytes.len()).unwrap();
        let key = format!("{number}/{from}");
        self.chunks.objects().put_if_absent(&key, encoded.bytes).await.unwrap();
        let chunk = ChunkMeta { key, from, to: from + rows, bytes, time_min, time_max };
        let from = from + u64::try_from(truncated).unwrap();
        self.pieces.push(Piece::Chunk(ChunkPiece {
            chunks: self.chunks.clone(),
            segment: segment(number),
            chunk,
            from,
        }));
        self.batches.push(batch.slice(truncated, batch.num_rows() - truncated));
    }

    /// Two segments of fewer chunks than that, and a tail each.
    async fn random(seed: u64, chunks: u64) -> Self {
        let (mut table, mut dice) = (Self::new(), Dice(seed));
        for number in 0..2 {
            let mut from = 0;
            for chunk in 0..dice.roll(chunks) {
                let count = 1 + usize::try_from(dice.roll(60)).unwrap();
                let kind = dice.of(&[Kind::Without, Kind::Floats, Kind::Integers]);
                let truncated = if chunk == 0 { usize::try_from(dice.roll(3)).unwrap().min(count - 1) } else { 0 };
                table.add(number, &rows(&mut dice, number, from, count, kind), truncated).await;
                from += u64::try_from(count).unwrap();
            }
            // The last one is always there, so that there always is a column `n`.
            if number == 1 || dice.roll(4) > 0 {
                let count = 1 + usize::try_from(dice.roll(30)).unwrap();
                let tail = rows(&mut dice, number, from, count, Kind::Integers);
                table.pieces.push(Piece::Rows(tail.clone()));
                table.batches.push(tail);
            }
        }
        table
    }

    async fn ask(self: &Arc<Self>, text: &str) -> Result<ResultSet, EngineError> {
        let source = Arc::clone(self) as Arc<dyn TableSource>;
        run_select(&parse_select(text)?, vec![("shop".parse().unwrap(), source)], Limits::default()).await
    }

    /// The same query by DataFusion alone, over one batch.
    async fn plainly(&self, text: &str) -> Vec<String> {
        self.plain(&parse_select(text).unwrap()).await.unwrap().1
    }

    /// The same with its columns; an error where it cannot be answered.
    async fn plain(&self, select: &Select) -> Result<(Vec<ResultColumn>, Vec<String>), DataFusionError> {
        let schema = Arc::new(ingest::merge_schemas(
            self.batches.iter().map(|b| b.schema()).collect::<Vec<_>>().iter().map(AsRef::as_ref),
        ));
        let batches = self.batches.iter().map(|batch| ingest::conform(batch, &schema).unwrap()).collect();
        let context = session(64 << 20).unwrap();
        let memory = MemTable::try_new(schema, vec![batches]).unwrap();
        context.register_table(TableReference::bare("shop"), Arc::new(memory)).unwrap();
        let plan = logical(&context, select).await?;
        let stream = context.execute_logical_plan(plan).await?.execute_stream().await?;
        let schema = stream.schema();
        let result = ResultSet::new(&schema, stream.try_collect().await?, false)?;
        Ok((result.columns(), lines(&result)))
    }
}

fn lines(result: &ResultSet) -> Vec<String> {
    result.to_json_rows().unwrap().iter().map(|row| row.get().to_owned()).collect()
}

fn at(seconds: i64) -> String {
    let time = jiff(BASE + seconds * SECOND);
    format!("TIMESTAMP '{time}'")
}

/// `2026-01-02 03:04:05` of nanoseconds on that day.
fn jiff(nanos: i64) -> String {
    let of_day = nanos.div_euclid(SECOND).rem_euclid(86_400);
    format!("2026-01-02 {:02}:{:02}:{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// Some condition.
fn condition(dice: &mut Dice, depth: u64) -> String {
    if depth > 0 && dice.roll(2) == 0 {
        let (one, other) = (condition(dice, depth - 1), condition(dice, depth - 1));
        return match dice.roll(4) {
            0 | 1 => format!("{one} AND {other}"),
            2 => format!("({one} OR {other})"),
            _ => format!("({one}) IS NOT TRUE AND {other}"),
        };
    }
    let (word, number, second) = (dice.of(&WORDS), dice.roll(60) as i64 - 30, dice.roll(300) as i64);
    match dice.roll(22) {
        0 => "severity = 'error'".to_owned(),
        1 => "severity IN ('warn', 'fatal')".to_owned(),
        2 => "severity IS NULL".to_owned(),
        3 => format!("n > {number}"),
        4 => format!("n = {number}"),
        5 => format!("n <= {number}.5"),
        6 => "n IS NULL".to_owned(),
        7 => "n IS NOT NULL".to_owned(),
        8 => format!("contains(_msg, '{word}')"),
        9 => format!("_msg LIKE '%{word}%'"),
        10 => format!("_msg ILIKE '%{word}%'"),
        11 => format!(r"_msg ~ '\b{word}\b'"),
        12 => format!(r"_msg ~ '(?i)\b{word}\b'"),
        13 => format!("_msg ~ '^{word} took [0-9]*{} '", number.abs() % 10),
        14 => format!("_msg NOT LIKE '%{word}%'"),
        15 => "service <> 'web'".to_owned(),
        16 => format!("_time >= {}", at(second)),
        17 => format!("_time < {}", at(second)),
        18 => format!("_time BETWEEN {} AND {}", at(second), at(second + 60)),
        19 => format!("trace_id = '{:032x}'", second % 50),
        20 => format!("_offset % 3 = {}", second % 3),
        _ => format!("_offset < {}", second / 2),
    }
}

fn question(dice: &mut Dice) -> String {
    let found = condition(dice, 3);
    let limit = 1 + dice.roll(20);
    let (from, to) = (dice.roll(300) as i64, dice.roll(300) as i64);
    let severities = dice.of(&[
        "severity IS NULL",
        "severity <> 'info'",
        "severity IN ('warn', 'error')",
        "severity NOT IN ('warn', 'error')",
        "severity IS NOT NULL",
    ]);
    match dice.roll(15) {
        0 => format!("SELECT * FROM shop WHERE {found} ORDER BY _segment, _offset"),
        1 => format!("SELECT count(*) AS n FROM shop WHERE {found}"),
        2 => format!("SELECT _msg, _time FROM shop WHERE {found} ORDER BY _time DESC, _segment, _offset LIMIT {limit}"),
        3 => format!("SELECT _offset, n FROM shop WHERE {found} ORDER BY _time, _segment, _offset LIMIT {limit}"),
        4 => format!("SELECT severity, count(*) AS n FROM shop WHERE {found} GROUP BY severity ORDER BY severity"),
        5 => format!("SELECT severity, count(*) AS n FROM shop GROUP BY severity ORDER BY severity LIMIT {limit}"),
        6 => format!(
            "SELECT date_trunc('minute', _time) AS t, severity, count(*) AS n FROM shop \
             WHERE _time >= {} AND _time < {} GROUP BY 1, 2 ORDER BY 1, 2",
            at(from),
            at(to)
        ),
        7 => format!("SELECT max(_offset) AS a, min(_time) AS b, max(n) AS c FROM shop WHERE {found}"),
        8 => format!(
            "SELECT a._offset AS x, b._offset AS y, a._segment AS s, b._segment AS t FROM shop a JOIN shop b \
             ON a.trace_id = b.trace_id WHERE a.severity = 'error' AND b._offset < {limit} ORDER BY x, y, s, t"
        ),
        9 => format!(
            "SELECT _segment, _offset, n FROM shop WHERE {found} ORDER BY _time {0}, _segment {0}, _offset {0}",
            dice.of(&["ASC NULLS LAST", "DESC NULLS LAST"])
        ),
        10 => format!(
            "SELECT _msg, _offset FROM shop WHERE {found} ORDER BY _time DESC, _offset, _segment LIMIT {limit} OFFSET 3"
        ),
        11 => format!(
            "SELECT count(*) AS n, severity FROM shop WHERE {severities} AND _time BETWEEN {} AND {} \
             GROUP BY 2 ORDER BY n DESC, severity {} LIMIT {limit}",
            at(from),
            at(from + 100),
            dice.of(&["ASC", "DESC", "ASC NULLS FIRST", "DESC NULLS LAST"])
        ),
        13 => {
            let column = dice.of(&["trace_id", "_msg", "severity"]);
            format!("SELECT count(DISTINCT {column}) AS n FROM shop WHERE {found}")
        }
        12 => format!("SELECT count(*) AS n FROM shop WHERE {severities} AND {} <= _time", at(from)),
        _ => format!(
            "SELECT date_bin(INTERVAL '{} seconds', _time, {}) AS t, count(*) AS n FROM shop \
             WHERE _time <= {} AND severity = 'error' GROUP BY 1 ORDER BY 1",
            10 * (1 + from % 20),
            at(to % 120),
            at(from)
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn pushed_down_or_not_the_answer_is_the_same(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let table = Arc::new(Table::random(seed, 4).await);
            let mut dice = Dice(!seed);
            for _ in 0..6 {
                let text = question(&mut dice);
                let expected = table.plainly(&text).await;
                // The second time with what is known from the first.
                for _ in 0..2 {
                    let found = table.ask(&text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
                    assert_eq!(lines(&found), expected, "{text}");
                }
            }
        });
    }
}

/// Ten chunks of a minute each, one after the other.
async fn minutes() -> Arc<Table> {
    let mut table = Table::new();
    for minute in 0..10i64 {
        let mut dice = Dice(u64::try_from(minute).unwrap());
        let batch = rows(&mut dice, 0, u64::try_from(minute).unwrap() * 60, 60, Kind::Without);
        let time = |second: i64| BASE + (minute * 60 + second) * SECOND;
        let times = Arc::new(TimestampNanosecondArray::from_iter_values((0..60).map(time))) as ArrayRef;
        let needle = (0..60).map(|i| Some(if (minute, i) == (4, 7) { "quarkbeacon" } else { "nothing here" }));
        let needle = Arc::new(needle.collect::<StringArray>()) as ArrayRef;
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let column = match field.name().as_str() {
                "_time" => Arc::clone(&times),
                "_msg" => Arc::clone(&needle),
                _ => Arc::clone(column),
            };
            (field.name().clone(), column)
        });
        let columns: Vec<(String, ArrayRef)> = columns.collect();
        table.add(0, &RecordBatch::try_from_iter(columns).unwrap(), 0).await;
    }
    Arc::new(table)
}

#[tokio::test]
async fn what_cannot_matter_is_not_read() {
    let table = minutes().await;
    for (text, rows, stats) in [
        (format!("SELECT _msg FROM shop WHERE _time >= {}", at(480)), 120, [8, 0, 0, 0, 0]),
        ("SELECT _msg FROM shop WHERE contains(_msg, 'quarkbeacon')".to_owned(), 1, [0, 9, 0, 0, 9]),
        (r"SELECT _msg FROM shop WHERE _msg ~ '\bquarkbeacon\b'".to_owned(), 1, [0, 9, 0, 0, 9]),
        ("SELECT _msg FROM shop WHERE _offset = 130".to_owned(), 1, [0, 9, 0, 0, 9]),
        ("SELECT _msg FROM shop ORDER BY _time DESC LIMIT 5".to_owned(), 5, [0, 0, 0, 7, 0]),
        ("SELECT _msg FROM shop WHERE _offset < 200 ORDER BY _time DESC LIMIT 5".to_owned(), 5, [0, 6, 0, 1, 6]),
        ("SELECT severity, count(*) FROM shop GROUP BY severity".to_owned(), 4, [0, 0, 10, 0, 0]),
        (format!("SELECT count(*) FROM shop WHERE _time < {}", at(150)), 1, [7, 0, 2, 0, 0]),
        ("SELECT count(*) FROM shop".to_owned(), 1, [0, 0, 0, 0, 0]),
        ("SELECT severity, count(*) FROM shop GROUP BY severity LIMIT 0".to_owned(), 0, [0, 0, 0, 0, 0]),
    ] {
        let found = table.ask(&text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let scan = found.stats.scan;
        let counts = [
            scan.chunks_by_time,
            scan.chunks_by_index,
            scan.chunks_counted,
            // As many as are read at the same time are not left out.
            scan.chunks_by_order.min(stats[3]),
            scan.row_groups_by_index,
        ];
        assert_eq!((found.row_count(), counts), (rows, stats), "{text}: {scan:?}");
    }
    let found = table.ask("SELECT count(*) AS n FROM shop").await.unwrap();
    assert_eq!((lines(&found), found.stats.rows_scanned), (vec![r#"{"n":600}"#.to_owned()], 0));
}

#[tokio::test]
async fn columns_are_fetched_once_and_only_those_that_are_named() {
    let table = minutes().await;
    let all = table.ask("SELECT * FROM shop").await.unwrap().stats;
    let one = table.ask("SELECT severity FROM shop").await.unwrap().stats;
    assert_eq!((all.rows_scanned, one.rows_scanned), (600, 600));
    assert!(one.scan.chunk_bytes_read < all.scan.chunk_bytes_read, "{one:?} {all:?}");
    assert!(all.scan.chunk_bytes_fetched >= all.scan.chunk_bytes_read, "{all:?}");
    assert_eq!(one.scan.chunk_bytes_fetched, 0, "kept in memory: {one:?}");
}

#[tokio::test]
async fn a_query_that_reads_too_much_says_so() {
    let table = minutes().await;
    let source = || vec![("shop".parse().unwrap(), Arc::clone(&table) as Arc<dyn TableSource>)];
    let limits = Limits { scan_bytes: 2_000, timeout: Duration::from_secs(20), ..Limits::default() };
    let select = parse_select("SELECT * FROM shop").unwrap();
    let found = run_select(&select, source(), limits).await.unwrap_err();
    assert!(matches!(&found, EngineError::Source(problem) if problem.kind == "QueryScanTooLarge"), "{found:?}");
    let counted = parse_select("SELECT severity, count(*) FROM shop GROUP BY severity").unwrap();
    assert_eq!(run_select(&counted, source(), limits).await.unwrap().row_count(), 4);
}

#[tokio::test]
async fn a_query_that_nobody_waits_for_ends() {
    let table = minutes().await;
    let clones = || Arc::strong_count(table.chunks.kept());
    let before = clones();
    let endless =
        "SELECT count(*) FROM shop a, shop b, shop c, shop d WHERE a._msg <> b._msg AND c.severity <> d.severity";
    let query = tokio::spawn({
        let table = Arc::clone(&table);
        async move { table.ask(endless).await.map(|result| result.row_count()) }
    });
    let begun = async {
        while clones() <= before {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("it reads");
    query.abort();
    assert!(query.await.is_err_and(|error| error.is_cancelled()), "it was not at its end");
    let ended = async {
        while clones() > before {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("nothing of it is left");
}

#[tokio::test]
async fn a_filter_that_fails_is_the_queries_fault() {
    let table = minutes().await;
    let found = table.ask("SELECT _msg FROM shop WHERE CAST(_msg AS INT) = 5").await.unwrap_err();
    assert!(matches!(&found, EngineError::Query(found) if found.message.contains("nothing here")), "{found:?}");
    let other = "SELECT _msg FROM shop WHERE severity = 'none of these' AND CAST(_msg AS INT) = 5";
    assert_eq!(table.ask(other).await.unwrap().row_count(), 0, "no row is left to fail on");
}

#[tokio::test]
async fn a_chunk_that_is_not_what_it_was_named_for_is_refused() {
    let mut table = Arc::into_inner(minutes().await).unwrap();
    let Some(Piece::Chunk(piece)) = table.pieces.first_mut() else { panic!("a chunk") };
    piece.segment = segment(9);
    let found = Arc::new(table).ask("SELECT max(_msg) FROM shop").await.unwrap_err();
    assert!(found.to_string().contains("was named for"), "{found}");
}

#[tokio::test]
async fn chunks_of_each_version_are_read_and_damage_is_found() {
    let files: [&[u8]; 2] =
        [include_bytes!("../../../chunk/testdata/v1.parquet"), include_bytes!("../../../chunk/testdata/v2.parquet")];
    for file in files {
        for broken in [false, true] {
            let mut table = Table::new();
            let mut bytes = file.to_vec();
            let info = chunk::info(&bytes.clone().into()).unwrap();
            // Somewhere in the first column of the first row group.
            bytes[60] ^= u8::from(broken);
            let chunk = ChunkMeta {
                key: "old".into(),
                from: info.first,
                to: info.last + 1,
                bytes: u64::try_from(bytes.len()).unwrap(),
                time_min: info.time_min,
                time_max: info.time_max,
            };
            table.chunks.objects().put_if_absent("old", bytes.into()).await.unwrap();
            // The first of its ten errors is truncated.
            let (chunks, from) = (table.chunks.clone(), info.first + 10);
            table.pieces.push(Piece::Chunk(ChunkPiece { chunks, segment: info.segment, chunk, from }));
            match (broken, Arc::new(table).ask("SELECT * FROM shop WHERE severity = 'error'").await) {
                (false, Ok(found)) => assert_eq!(found.row_count(), 9, "version {}", info.version),
                (true, Err(EngineError::Source(_))) => {}
                (_, found) => panic!("version {}, broken {broken}: {found:?}", info.version),
            }
        }
    }
}

mod differential;
mod dynamic;
mod limits;
mod memory;
mod streams;

#[test]
fn columns_of_a_table_that_was_cut_are_folded_and_looked_at() {
    // A table with more columns than there can be keeps the rest as JSON in one column.
    let wide = |from: usize| {
        let columns = (from..from + 700).map(|i| (format!("f{i}"), Arc::new(Int64Array::from(vec![1])) as ArrayRef));
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let (one, other) = (wide(0), wide(600));
    let table = Arc::new(ingest::merge_schemas([one.schema().as_ref(), other.schema().as_ref()]));
    assert!(!table.metadata().is_empty(), "it was cut");
    let rest = table.index_of(ingest::REST_COLUMN).unwrap();
    let view = View::new(&table, &[rest]).unwrap();
    assert_eq!(view.names(), None, "every column may go into it");
    let plain = View::new(&table, &[table.index_of("f1").unwrap()]).unwrap();
    assert_eq!(plain.names(), Some(vec!["f1".to_owned()]));
    assert_eq!(plain.schema.field(0).data_type(), &DataType::Int64);
}
