//! Answers that are shown while they grow.

use futures::StreamExt;

use super::*;
use crate::{Part, run_select_stream};

fn stream(table: &Arc<Table>, text: &str) -> impl futures::Stream<Item = Result<Part, EngineError>> + use<> {
    let source = Arc::clone(table) as Arc<dyn TableSource>;
    let tables = vec![("shop".parse().unwrap(), source)];
    run_select_stream(parse_select(text).unwrap(), tables, Limits { rows_max: 10_000, ..Limits::default() })
}

/// Rows as they came, the parts that replace all before them, and the last part.
async fn parts(table: &Arc<Table>, text: &str) -> (Vec<String>, usize, Result<crate::End, EngineError>) {
    let (mut rows, mut partial, mut is_first) = (Vec::new(), 0, true);
    let mut parts = Box::pin(stream(table, text));
    while let Some(part) = parts.next().await {
        match part {
            Ok(Part::Columns(columns)) => assert!(!columns.is_empty() && std::mem::take(&mut is_first), "once"),
            Ok(Part::Rows(more)) => rows.extend(lines(&more)),
            Ok(Part::Partial(_)) => partial += 1,
            Ok(Part::Progress(progress)) => {
                assert!(progress.bytes <= progress.bytes_total && progress.chunks <= progress.chunks_total);
            }
            Ok(Part::End(end)) => {
                assert!(parts.next().await.is_none(), "the last part");
                return (rows, partial, Ok(end));
            }
            Err(error) => {
                assert!(parts.next().await.is_none(), "the last part");
                return (rows, partial, Err(error));
            }
        }
    }
    panic!("{text} has no end")
}

#[tokio::test]
async fn a_stream_gives_what_an_answer_gives() {
    let table = minutes().await;
    for text in [
        "SELECT _offset, severity FROM shop WHERE severity = 'error' ORDER BY _time DESC, _offset DESC",
        "SELECT severity, count(*) AS n FROM shop GROUP BY severity ORDER BY severity",
        "SELECT service, count(*) AS n, max(_offset) AS m FROM shop GROUP BY service ORDER BY service",
        "SELECT service, count(DISTINCT trace_id) AS n FROM shop GROUP BY service ORDER BY service",
        "SELECT count(DISTINCT trace_id) AS n, min(_time) AS t FROM shop",
        "SELECT trace_id, count(*) AS n FROM shop GROUP BY trace_id HAVING count(*) > 1 ORDER BY n DESC, trace_id LIMIT 7",
        "SELECT a._offset FROM shop a JOIN shop b ON a._offset = b._offset + 1 ORDER BY 1",
        "SELECT _offset FROM shop WHERE false",
        // Of each trace its newest event: windows and limits are of all rows, however many chunks they are in.
        "WITH a AS (SELECT severity, row_number() OVER (PARTITION BY trace_id ORDER BY _time DESC) AS r FROM shop), \
         b AS (SELECT severity FROM a WHERE r = 1) \
         SELECT severity, count(*) AS n FROM b GROUP BY severity ORDER BY severity",
        "WITH a AS (SELECT * FROM shop LIMIT 70) SELECT count(*) AS n FROM a WHERE _offset >= 0",
        "WITH a AS (SELECT * FROM shop ORDER BY _msg, _offset DESC LIMIT 70) SELECT min(_offset) AS n FROM a",
    ] {
        let (rows, _, end) = parts(&table, text).await;
        let end = end.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rows, table.plainly(text).await, "{text}");
        assert_eq!((end.row_count, end.truncated), (rows.len(), false), "{text}");
    }
    let wrong = parts(&table, "SELECT nothing FROM shop").await.2;
    assert!(matches!(wrong, Err(EngineError::Query(_))), "{wrong:?}");
}

#[tokio::test]
async fn the_first_rows_come_before_the_last_chunk_is_read() {
    let table = minutes().await;
    // Their ends are known, the oldest one is gone: what comes before it is shown all the same.
    table.ask("SELECT severity, count(*) FROM shop GROUP BY severity").await.unwrap();
    table.chunks.objects().delete("0/0").await.unwrap();
    let (rows, _, end) = parts(&table, "SELECT _offset FROM shop ORDER BY _time DESC").await;
    assert!(matches!(&end, Err(EngineError::Source(problem)) if problem.kind == "ChunkUnreadable"), "{end:?}");
    assert!(rows.len() >= 8 * 60, "{} rows", rows.len());
    let newest = (0..rows.len()).map(|i| format!("{{\"_offset\":{}}}", 599 - i));
    assert!(rows.iter().cloned().eq(newest), "newest first");
}

#[tokio::test]
async fn a_stream_that_nobody_takes_ends_its_query() {
    let table = minutes().await;
    let clones = || Arc::strong_count(table.chunks.kept());
    let before = clones();
    let mut parts = Box::pin(stream(&table, "SELECT * FROM shop a, shop b, shop c"));
    while !matches!(parts.next().await, Some(Ok(Part::Rows(_)))) {}
    assert!(clones() > before, "it reads");
    drop(parts);
    let ended = async {
        while clones() > before {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("nothing of it is left");
}

#[tokio::test]
async fn an_aggregate_grows_by_parts() {
    let table = minutes().await;
    let mut counts = Vec::new();
    for rows in grown(&table, "SELECT count(*) AS n, max(_msg) AS m FROM shop WHERE _offset >= 0").await {
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        let digits: String = row.chars().filter(char::is_ascii_digit).collect();
        counts.push(digits.parse::<u64>().unwrap());
    }
    assert!(counts.len() > 1 && counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&600));
    // The newest rows are read first, so that all averages fall: what was last before is not where it ends now.
    let text = "SELECT trace_id, avg(_offset) AS a FROM shop GROUP BY trace_id ORDER BY a DESC, trace_id LIMIT 5";
    let answers = grown(&table, text).await;
    assert!(answers.len() > 1 && answers[0] != answers[answers.len() - 1], "{answers:?}");
    assert_eq!(answers.last(), Some(&table.plainly(text).await));
}

/// What an aggregate is after each part.
async fn grown(table: &Arc<Table>, text: &str) -> Vec<Vec<String>> {
    use crate::{partial::Partial, plans::Ready, provider::Tables};
    let source = Arc::clone(table) as Arc<dyn TableSource>;
    let select = parse_select(text).unwrap();
    let scanned = Arc::new(Scanned::new(u64::MAX, "shop"));
    let tables = Tables::open(&[("shop".parse().unwrap(), source)], scanned).await.unwrap();
    let ready = Ready::new(&select, tables, 64 << 20).await.unwrap();
    let mut partial = Partial::of(&ready.plan, &ready.task).expect("ten chunks are parts");
    let mut answers = Vec::new();
    while !partial.is_whole() {
        partial.read().await.unwrap();
        let rows: Vec<RecordBatch> = partial.answer().unwrap().try_collect().await.unwrap();
        answers.push(lines(&ResultSet::new(&partial.schema(), rows, false).unwrap()));
    }
    answers
}

/// What is computed of rows in order is dealt out to no threads: it would be in no order behind them.
#[tokio::test]
async fn columns_that_are_computed_come_in_order_too() {
    let mut table = Table::new();
    table.add(0, &rows(&mut Dice(3), 0, 0, 50, Kind::Integers), 0).await;
    let table = Arc::new(table);
    for text in [
        "SELECT upper(_msg) AS m, _offset FROM shop WHERE n > 0 ORDER BY _time DESC, _offset LIMIT 20",
        "WITH a AS (SELECT concat(service, _msg) AS m, _time, _offset FROM shop) \
         SELECT m, _offset FROM a WHERE contains(m, 'web') ORDER BY _time, _offset LIMIT 30",
        "SELECT _offset + 1 AS o FROM shop ORDER BY _time DESC, _offset",
    ] {
        let found = table.ask(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(lines(&found), table.plainly(text).await, "{text}");
        assert_eq!(parts(&table, text).await.0, lines(&found), "{text}");
    }
}
