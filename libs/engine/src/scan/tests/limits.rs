//! Queries that ask for more than they may have: an error that says so, or the right answer within it.

use super::*;

const MIB: usize = 1 << 20;

/// More than a hundred chunks, one after the other.
async fn many() -> Arc<Table> {
    let mut table = Table::new();
    let mut dice = Dice(7);
    for chunk in 0..104 {
        let batch = rows(&mut dice, 0, chunk * 120, 120, Kind::Integers);
        table.add(0, &batch, 0).await;
    }
    Arc::new(table)
}

async fn ask(table: &Arc<Table>, text: &str, limits: Limits) -> Result<ResultSet, EngineError> {
    let source = Arc::clone(table) as Arc<dyn TableSource>;
    run_select(&parse_select(text).unwrap(), vec![("shop".parse().unwrap(), source)], limits).await
}

#[tokio::test]
async fn a_hundred_chunks_within_64_mib() {
    let table = many().await;
    let limits = Limits { memory_bytes: 64 * MIB, timeout: Duration::from_secs(60), ..Limits::default() };
    for text in [
        "SELECT trace_id, count(*) AS c, max(_msg) AS m FROM shop GROUP BY trace_id ORDER BY c DESC, trace_id",
        "SELECT count(DISTINCT _msg) AS n FROM shop",
        "SELECT _msg, _offset FROM shop ORDER BY _msg, _offset LIMIT 50",
        "SELECT _offset FROM shop WHERE _msg ~ 'pipe-7 took [0-9]+' ORDER BY _time DESC, _offset",
    ] {
        let found = ask(&table, text, limits).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(lines(&found), table.plainly(text).await, "{text}");
        assert!(found.stats.scan.chunks >= 104, "{text}");
    }
}

#[tokio::test]
async fn what_needs_more_memory_says_so_and_order_by_time_needs_little() {
    let table = many().await;
    let limits = Limits { memory_bytes: MIB, timeout: Duration::from_secs(60), ..Limits::default() };
    for text in [
        "SELECT _msg, trace_id, service, severity, _offset FROM shop ORDER BY _msg",
        "SELECT _msg, trace_id, count(*) FROM shop GROUP BY 1, 2",
        "SELECT a._msg FROM shop a JOIN shop b ON a.service = b.service ORDER BY a._msg",
    ] {
        let found = ask(&table, text, limits).await;
        assert!(matches!(found, Err(EngineError::Memory(_))), "{text}: {:?}", found.map(|rows| rows.row_count()));
    }
    // All rows would not fit, but they are given as they come.
    let text = "SELECT _msg, trace_id, service, severity, _offset FROM shop ORDER BY _time DESC, _offset";
    let found = ask(&table, text, Limits { rows_max: 2_000, ..limits }).await.unwrap();
    assert_eq!((found.row_count(), found.truncated), (2_000, true));
    assert!(found.stats.scan.row_groups_read < 60, "it ends when there are enough: {:?}", found.stats.scan);
    assert_eq!(lines(&found), table.plainly(text).await[..2_000]);
}

#[tokio::test]
async fn patterns_that_explode_do_not() {
    let table = minutes().await;
    let limits = Limits { timeout: Duration::from_secs(20), ..Limits::default() };
    // Matching takes time in proportion to the text, whatever the pattern.
    let nested = format!("SELECT count(*) AS n FROM shop WHERE _msg ~ '{}$'", "(n*)*".repeat(40));
    assert_eq!(lines(&ask(&table, &nested, limits).await.unwrap()), [r#"{"n":600}"#]);
    for pattern in ["((a{1000}){1000}){1000}", r"(\pL{1000}){100}", "(x+x+)+y("] {
        let text = format!("SELECT count(*) FROM shop WHERE _msg ~ '{pattern}'");
        let found = ask(&table, &text, limits).await.unwrap_err();
        let EngineError::Query(found) = found else { panic!("{pattern}: {found:?}") };
        assert!(found.message.contains("regular expression"), "{pattern}: {found}");
    }
}
