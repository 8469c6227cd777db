//! Filters that operators make narrower while they run leave out nothing that is wanted.

use super::*;

/// Chunks without a column `n`, and then some that have it.
async fn late() -> Arc<Table> {
    let (mut table, mut dice) = (Table::new(), Dice(5));
    for chunk in 0..12 {
        let kind = if chunk < 6 { Kind::Without } else { Kind::Integers };
        table.add(0, &rows(&mut dice, 0, chunk * 50, 50, kind), 0).await;
    }
    Arc::new(table)
}

#[tokio::test]
async fn the_least_of_one_column_says_nothing_of_another() {
    let table = late().await;
    for text in [
        "SELECT min(n) AS a, min(_msg) AS b FROM shop",
        "SELECT max(_msg) AS a, max(n + 1) AS b FROM shop",
        "SELECT max(_msg) FILTER (WHERE severity IS NULL) AS a, min(n) AS b, max(_time) AS c FROM shop",
    ] {
        assert_eq!(lines(&table.ask(text).await.unwrap()), table.plainly(text).await, "{text}");
    }
}

#[tokio::test]
async fn the_first_of_each_part_of_a_window_are_all_there() {
    let table = late().await;
    for (window, limit) in [
        (
            "count(*) OVER (PARTITION BY severity ORDER BY _msg, _offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING)",
            100,
        ),
        ("row_number() OVER (PARTITION BY severity ORDER BY _msg, _offset)", 100),
        ("sum(_offset) OVER (ORDER BY _msg, _offset ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)", 20),
    ] {
        let text = format!("SELECT _offset, {window} AS w FROM shop");
        let all = table.plainly(&text).await;
        let found = lines(&table.ask(&format!("{text} LIMIT {limit}")).await.unwrap());
        assert_eq!(found.len(), limit, "{text}");
        assert!(found.iter().all(|row| all.contains(row)), "{text}: {found:?}");
    }
}

#[tokio::test]
async fn an_order_by_what_is_computed_is_kept() {
    let table = late().await;
    for order in
        ["n * 2 - _offset, _offset", "_offset % 7, n + _offset DESC, n, _offset", "length(_msg), _msg, _offset"]
    {
        let text = format!("SELECT _offset, n FROM shop WHERE service = 'web' ORDER BY {order} LIMIT 9");
        assert_eq!(lines(&table.ask(&text).await.unwrap()), table.plainly(&text).await, "{text}");
        let text = format!("SELECT a._offset, n FROM (SELECT * FROM shop) AS a ORDER BY {order} LIMIT 5 OFFSET 3");
        assert_eq!(lines(&table.ask(&text).await.unwrap()), table.plainly(&text).await, "{text}");
    }
}

#[tokio::test]
async fn some_groups_of_rows_that_come_in_order_are_some_groups() {
    let table = late().await;
    let newest = "SELECT *, row_number() OVER (PARTITION BY trace_id ORDER BY _time DESC, _offset) AS r FROM shop";
    let last = "SELECT * FROM shop ORDER BY _time DESC, _offset LIMIT 25";
    for groups in [
        format!("SELECT DISTINCT trace_id FROM ({newest}) AS s WHERE r = 1"),
        format!("SELECT DISTINCT _time, _offset FROM ({last}) AS s"),
        format!(
            "SELECT a, b FROM (SELECT trace_id AS a, _offset AS b FROM ({newest}) AS s WHERE r = 1 UNION \
             SELECT trace_id AS a, _offset AS b FROM ({last}) AS s WHERE trace_id = '00000000000000000000000000000014') AS u"
        ),
    ] {
        let all = table.plainly(&groups).await;
        let found = lines(&table.ask(&format!("{groups} LIMIT 1")).await.unwrap());
        assert_eq!(found.len(), all.len().min(1), "{groups}");
        assert!(found.iter().all(|row| all.contains(row)), "{groups}: {found:?}");
    }
}
