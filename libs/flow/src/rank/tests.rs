use std::{collections::BTreeMap, time::Duration};

use types::{DurationText, Timestamp};

use crate::{
    ChangelogMode, DedupSpec, Error, ErrorPolicy, Keep, OperatorSpec, Out, Setting, SortKey, TopNSpec,
    drive::{Found, Row, WINDOW, batch, by_order, each_way, rows, texts},
};

fn top(limit: u64) -> TopNSpec {
    TopNSpec {
        keys: vec!["window_end".into(), "key".into()],
        order: vec![SortKey { column: "value".into(), descending: true, nulls_first: false }],
        limit,
        rank: Some("rank".into()),
        windowed: true,
        mode: ChangelogMode::Append,
    }
}

/// What top-N of windows must give, in the order of windows and keys.
fn top_of(rows: &[Row], limit: usize) -> Vec<String> {
    let mut of = BTreeMap::<(i64, &str), Vec<&Row>>::new();
    let rows = by_order(rows);
    rows.iter().for_each(|row| of.entry(((row.time.div_euclid(WINDOW) + 1) * WINDOW, &row.key)).or_default().push(row));
    let mut expected = Vec::new();
    for ((end, key), mut rows) in of {
        rows.sort_by_key(|row| (row.value.is_none(), std::cmp::Reverse(row.value), row.place()));
        for (rank, row) in rows.into_iter().take(limit).enumerate() {
            let value = row.value.map_or("null".to_owned(), |value| value.to_string());
            expected.push(format!("{} {end} {key} {value} {} {} {}", end - 1, row.split, row.offset, rank + 1));
        }
    }
    expected
}

#[test]
fn the_first_rows_of_windows() {
    let columns = ["_time", "window_end", "key", "value", "_split", "_offset", "rank"];
    for (seed, limit) in [(1, 1), (2, 3), (3, 1_000)] {
        let rows = rows(seed, 1_500, 7);
        let expected = top_of(&rows, usize::try_from(limit).unwrap());
        let late = rows.iter().filter(|row| !row.in_time()).count() as u64;
        assert!(late > 20 && expected.len() > 100);
        let spec = OperatorSpec::TopN(top(limit));
        each_way(&spec, &["window_end", "key"], &rows, |found, how| {
            let mut texts = found.texts(&columns);
            if !how.contains("1 subtasks, then []") {
                texts.sort();
                let mut expected = expected.clone();
                expected.sort();
                assert_eq!(texts, expected, "{how}");
            } else {
                assert_eq!(texts, expected, "in this order: {how}");
            }
            assert_eq!(found.late, late, "{how}");
        });
    }
}

/// The first rows of keys in the order of rows, where a key is forgotten after a time.
fn first_of(rows: &[Row], ttl: i64) -> Vec<String> {
    let mut since = BTreeMap::<String, i64>::new();
    let mut expected = Vec::new();
    for row in by_order(rows) {
        if since.get(&row.key).is_none_or(|since| row.time - since >= ttl) {
            since.insert(row.key.clone(), row.time);
            expected.push(format!("{} {} {} {}", row.time, row.key, row.split, row.offset));
        }
    }
    expected
}

#[test]
fn the_first_row_of_each_key() {
    for (seed, keys, ttl) in [(1, 9, None), (2, 2_500, None), (3, 5, Some(2)), (4, 2_500, Some(1))] {
        let rows = rows(seed, 4_000, keys);
        // A time to live is whole milliseconds, and the times of these rows are nanoseconds.
        let stretched: Vec<Row> = rows
            .iter()
            .map(|row| {
                let far = |time: i64| time.saturating_mul(100_000);
                Row { time: far(row.time), watermark: far(row.watermark), ..row.clone() }
            })
            .collect();
        let expected = first_of(&stretched, ttl.map_or(i64::MAX, |ttl| ttl * 1_000_000));
        let ttl = ttl.map(|ttl| DurationText(Duration::from_millis(u64::try_from(ttl).unwrap())));
        let spec = OperatorSpec::Deduplicate(DedupSpec { keys: vec!["key".into()], keep: Keep::First, ttl });
        let late = stretched.iter().filter(|row| !row.in_time()).count() as u64;
        each_way(&spec, &["key"], &stretched, |found, how| {
            let mut texts = found.texts(&["_time", "key", "_split", "_offset"]);
            let mut expected = expected.clone();
            if !how.contains("1 subtasks, then []") {
                texts.sort();
                expected.sort();
            }
            assert_eq!(texts, expected, "{how}");
            assert_eq!(found.late, late, "{how}");
        });
    }
}

#[test]
fn each_rule_of_a_specification_is_named() {
    let wrong = |spec: OperatorSpec| match spec.build(Setting::alone("top")) {
        Err(Error::Spec { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(wrong(OperatorSpec::TopN(top(0))).contains("1 to 10000"));
    assert!(wrong(OperatorSpec::TopN(TopNSpec { order: Vec::new(), ..top(1) })).contains("order by"));
    assert!(
        wrong(OperatorSpec::TopN(TopNSpec { mode: ChangelogMode::Upsert, ..top(1) })).contains("leave the mode out")
    );
    assert!(wrong(OperatorSpec::TopN(TopNSpec { windowed: false, ..top(1) })).contains("upsert or retract"));
    let dedup = DedupSpec { keys: Vec::new(), keep: Keep::First, ttl: None };
    assert!(wrong(OperatorSpec::Deduplicate(dedup)).contains("key"));
}

#[test]
fn state_is_bounded() {
    let spec = OperatorSpec::TopN(top(1_000));
    let mut operator = spec.build(Setting { state_bytes_max: 20_000, ..Setting::alone("top") }).unwrap();
    let error = operator.process(0, &batch(&rows(1, 1_000, 10)), &mut Out::default()).unwrap_err();
    assert!(matches!(error, Error::StateTooLarge { limit: 20_000, .. }), "{error}");
}

/// What top-N over everything shows at the end: key, rank, value, place.
fn ranked(rows: &[Row], limit: usize) -> BTreeMap<String, String> {
    let mut of = BTreeMap::<&str, Vec<&Row>>::new();
    let rows = by_order(rows);
    rows.iter().for_each(|row| of.entry(&row.key).or_default().push(row));
    let mut expected = BTreeMap::new();
    for (key, mut rows) in of {
        rows.sort_by_key(|row| (row.value.is_none(), std::cmp::Reverse(row.value), row.place()));
        for (rank, row) in rows.into_iter().take(limit).enumerate() {
            let value = row.value.map_or("null".to_owned(), |value| value.to_string());
            expected.insert(format!("{key} {}", rank + 1), value);
        }
    }
    expected
}

#[test]
fn the_first_rows_of_everything_as_they_change() {
    for (seed, limit, mode) in [(1, 1, ChangelogMode::Upsert), (2, 4, ChangelogMode::Retract)] {
        let rows = rows(seed, 1_500, 30);
        let spec = TopNSpec { keys: vec!["key".into()], windowed: false, mode, ..top(limit) };
        let expected = ranked(&rows, usize::try_from(limit).unwrap());
        let late = rows.iter().filter(|row| !row.in_time()).count() as u64;
        each_way(&OperatorSpec::TopN(spec), &["key"], &rows, |found, how| {
            // Rows of one value may replace each other, and their times say which.
            let found_rows = materialised(found, &["key", "rank"], &["value"]);
            assert_eq!(found_rows, expected, "{how}");
            assert_eq!(found.late, late);
        });
    }
}

/// What is there after all changes.
fn materialised(found: &Found, key: &[&str], columns: &[&str]) -> BTreeMap<String, String> {
    let mut there = BTreeMap::<String, String>::new();
    for batch in &found.batches {
        let changes = texts(batch, &["_change"]);
        for ((change, key), row) in changes.iter().zip(texts(batch, key)).zip(texts(batch, columns)) {
            match change.as_str() {
                "0" => assert_eq!(there.insert(key, row), None),
                "1" => assert_eq!(there.get(&key), Some(&row)),
                "2" => assert!(there.insert(key, row).is_some()),
                _ => assert_eq!(there.remove(&key), Some(row)),
            }
        }
    }
    there
}

#[test]
fn rows_without_a_rank_come_and_go() {
    let rows = rows(3, 2_000, 10);
    let spec = TopNSpec {
        keys: vec!["key".into()],
        windowed: false,
        mode: ChangelogMode::Retract,
        rank: None,
        order: vec![SortKey { column: "_time".into(), descending: true, nulls_first: false }],
        limit: 3,
    };
    let mut expected = BTreeMap::<String, u64>::new();
    let mut of = BTreeMap::<String, Vec<Row>>::new();
    by_order(&rows).into_iter().for_each(|row| of.entry(row.key.clone()).or_default().push(row));
    for rows in of.values_mut() {
        rows.sort_by_key(|row| (std::cmp::Reverse(row.time), row.place()));
        for row in rows.iter().take(3) {
            let value = row.value.map_or("null".to_owned(), |value| value.to_string());
            *expected.entry(format!("{} {value}", row.key)).or_default() += 1;
        }
    }
    each_way(&OperatorSpec::TopN(spec), &["key"], &rows, |found, how| {
        let mut there = BTreeMap::<String, u64>::new();
        for batch in &found.batches {
            for (change, row) in texts(batch, &["_change"]).iter().zip(texts(batch, &["key", "value"])) {
                let count = there.entry(row).or_default();
                match change.as_str() {
                    "0" => *count += 1,
                    "3" => *count -= 1,
                    other => panic!("change {other}"),
                }
            }
        }
        there.retain(|_, count| *count > 0);
        assert_eq!(there, expected, "{how}");
    });
}

#[test]
fn what_goes_makes_room_for_the_next() {
    let spec = TopNSpec { keys: Vec::new(), windowed: false, mode: ChangelogMode::Retract, ..top(2) };
    let mut operator = OperatorSpec::TopN(spec).build(Setting::alone("top")).unwrap();
    let row = |time, value, change| Row {
        split: 0,
        offset: time,
        time,
        watermark: 0,
        key: "k".into(),
        value: Some(value),
        change: Some(change),
    };
    let mut out = Out::new(ErrorPolicy::Fail, false);
    let mut at = |watermark, rows: &[Row]| {
        operator.process(0, &batch(rows), &mut out).unwrap();
        operator.watermark(Timestamp::from_nanos(watermark), &mut out).unwrap();
        let given = out.take();
        given.iter().flat_map(|(_, batch)| texts(batch, &["rank", "value", "_change"])).collect::<Vec<_>>()
    };
    assert_eq!(at(10, &[row(1, 5, 0), row(2, 9, 0), row(3, 7, 0)]), ["1 9 0", "2 7 0"]);
    assert_eq!(at(20, &[row(12, 9, 3)]), ["1 9 1", "1 7 2", "2 7 1", "2 5 2"], "the third one was kept");
    assert_eq!(at(30, &[row(22, 7, 1), row(23, 6, 2), row(24, 5, 3)]), ["1 7 1", "1 6 2", "2 5 3"]);
}

#[test]
fn the_last_row_of_each_key() {
    for (seed, keys, ttl) in [(1, 9, None), (2, 2_500, None), (4, 2_500, Some(1))] {
        let far = |time: i64| time.saturating_mul(100_000);
        let rows: Vec<Row> = rows(seed, 4_000, keys)
            .into_iter()
            .map(|row| Row { time: far(row.time), watermark: far(row.watermark), ..row })
            .collect();
        let mut expected = BTreeMap::new();
        for row in by_order(&rows) {
            let value = row.value.map_or("null".to_owned(), |value| value.to_string());
            expected.insert(row.key, format!("{} {value}", row.time));
        }
        let ttl = ttl.map(|ttl| DurationText(Duration::from_millis(ttl)));
        let spec = OperatorSpec::Deduplicate(DedupSpec { keys: vec!["key".into()], keep: Keep::Last, ttl });
        each_way(&spec, &["key"], &rows, |found, how| {
            let mut there = BTreeMap::new();
            for batch in &found.batches {
                let changes = texts(batch, &["_change"]);
                let rows = texts(batch, &["_time", "value"]);
                for ((change, key), row) in changes.iter().zip(texts(batch, &["key"])).zip(rows) {
                    let old = if change == "1" { None } else { there.insert(key.clone(), row) };
                    // Without a time to live a key is inserted once.
                    assert!(ttl.is_some() || (change == "0") == old.is_none() || change == "1", "{key} {how}");
                }
            }
            assert_eq!(there, expected, "{how}");
        });
    }
}
