//! What was asked of a chunk before is not asked again, and answers stay the same.

use super::*;

/// The answer, and the row groups that were read for it and those that were not for what is known of them.
async fn ask(table: &Arc<Table>, text: &str) -> (Vec<String>, u64, u64) {
    let found = table.ask(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let answer = lines(&found);
    assert_eq!(answer, table.plainly(text).await, "{text}");
    (answer, found.stats.scan.row_groups_read, found.stats.scan.row_groups_by_memory)
}

#[tokio::test]
async fn the_same_conditions_are_asked_once() {
    let table = minutes().await;
    let count = "SELECT count(*) AS n FROM shop WHERE _msg LIKE '%here%' AND severity <> 'info'";
    let (answer, read, known) = ask(&table, count).await;
    assert_eq!((read, known), (10, 0));
    assert_eq!(ask(&table, count).await, (answer, 0, 10));
    // Rows are read where there are some, and nothing is asked of them.
    let rows = "SELECT _msg, _offset FROM shop WHERE _msg LIKE '%here%' AND severity <> 'info' ORDER BY _offset";
    assert_eq!(ask(&table, rows).await.1, 10);
    // Others are other conditions.
    let other = count.replace("here", "nothing");
    assert_eq!((ask(&table, &other).await.1, ask(&table, &other).await.2), (10, 10));
    // Of no row there is nothing to read either.
    let none = "SELECT _msg FROM shop WHERE length(_msg) = 1";
    assert_eq!(ask(&table, none).await, (Vec::new(), 10, 0));
    assert_eq!(ask(&table, none).await, (Vec::new(), 0, 10));
}

#[tokio::test]
async fn a_window_that_moves_asks_anew_at_its_edges_only() {
    let table = minutes().await;
    let count = |from, to| {
        let (from, to) = (at(from), at(to));
        format!("SELECT count(*) AS n FROM shop WHERE _msg LIKE '%here%' AND _time >= {from} AND _time < {to}")
    };
    // The second minute and the last but one in part, six between them.
    assert_eq!(ask(&table, &count(90, 510)).await, (vec![r#"{"n":419}"#.to_owned()], 8, 0));
    assert_eq!(ask(&table, &count(90, 510)).await, (vec![r#"{"n":419}"#.to_owned()], 2, 6));
    assert_eq!(ask(&table, &count(100, 490)).await, (vec![r#"{"n":389}"#.to_owned()], 2, 6));
    // Two whole minutes more.
    assert_eq!(ask(&table, &count(60, 540)).await.1, 2);
    assert_eq!(ask(&table, "SELECT count(*) AS n FROM shop WHERE _msg LIKE '%here%'").await.2, 8);
    // Whole minutes alone, and nothing else that is asked.
    let all = format!("SELECT max(_offset) AS n FROM shop WHERE _time >= {} AND {} > _time", at(120), at(240));
    assert_eq!(ask(&table, &all).await, (vec![r#"{"n":239}"#.to_owned()], 2, 0));
}

#[tokio::test]
async fn what_is_truncated_is_not_what_was_asked() {
    let mut table = Table::new();
    table.add(0, &rows(&mut Dice(1), 0, 0, 40, Kind::Without), 0).await;
    let table = Arc::new(table);
    let count = "SELECT count(*) AS n FROM shop WHERE service <> 'web'";
    let whole = ask(&table, count).await.0;
    assert_eq!(ask(&table, count).await, (whole.clone(), 0, 1));
    let mut pieces = table.pieces();
    let Some(Piece::Chunk(piece)) = pieces.first_mut() else { panic!("a chunk") };
    piece.from = 25;
    let batches = vec![table.batches[0].slice(25, 15)];
    let directory = tempfile::tempdir().unwrap();
    let cut = Arc::new(Table { pieces, batches, chunks: table.chunks.clone(), _directory: directory });
    for _ in 0..2 {
        let (answer, read, known) = ask(&cut, count).await;
        assert_ne!(answer, whole);
        assert_eq!((read, known), (1, 0));
    }
    assert_eq!(ask(&table, count).await, (whole, 0, 1));
}
