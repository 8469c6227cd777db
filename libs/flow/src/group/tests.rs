use std::{collections::BTreeMap, time::Duration};

use types::{DurationText, Timestamp};

use crate::{
    AggregateFunction as F, AggregateSpec, Change, ChangelogMode, Error, ErrorPolicy, GroupSpec, OperatorSpec, Out,
    Setting,
    drive::{Chance, Found, Row, batch, by_order, each_way, rows, texts},
};

const RESULTS: [&str; 6] = ["n", "present", "total", "mean", "least", "most"];

fn group(mode: ChangelogMode, ttl: Option<u64>) -> OperatorSpec {
    let of = |function, name| AggregateSpec::of(function, "value", name);
    let aggregates = vec![
        AggregateSpec::count_all("n"),
        of(F::Count, "present"),
        of(F::Sum, "total"),
        of(F::Avg, "mean"),
        of(F::Min, "least"),
        of(F::Max, "most"),
    ];
    let ttl = ttl.map(|millis| DurationText(Duration::from_millis(millis)));
    OperatorSpec::GroupAggregate(GroupSpec { keys: vec!["key".into()], aggregates, mode, ttl })
}

/// What the values of a key come to.
fn result(values: &[Option<i64>]) -> String {
    let some: Vec<i64> = values.iter().flatten().copied().collect();
    let total: i64 = some.iter().sum();
    let or_null = |text: String| if some.is_empty() { "null".to_owned() } else { text };
    let mean = or_null(format!("{:?}", total as f64 / some.len() as f64));
    let end = |end: Option<&i64>| or_null(end.map(i64::to_string).unwrap_or_default());
    let total = or_null(total.to_string());
    format!("{} {} {total} {mean} {} {}", values.len(), some.len(), end(some.iter().min()), end(some.iter().max()))
}

/// What is there after all changes, each of which must be one of what was there before.
pub(crate) fn followed(found: &Found, mode: ChangelogMode, key: &[&str], columns: &[&str]) -> BTreeMap<String, String> {
    let mut there = BTreeMap::<String, String>::new();
    for batch in &found.batches {
        let codes: Vec<i8> = texts(batch, &["_change"]).iter().map(|code| code.parse().unwrap()).collect();
        let rows: Vec<(String, String)> = texts(batch, key).into_iter().zip(texts(batch, columns)).collect();
        for (place, ((key, row), code)) in rows.iter().zip(&codes).enumerate() {
            let known = there.get(key);
            match Change::of(*code).unwrap() {
                Change::Insert => {
                    there.insert(key.clone(), row.clone());
                }
                Change::UpdateBefore => {
                    assert_eq!((mode, known), (ChangelogMode::Retract, Some(row)));
                    assert_eq!(codes[place + 1], Change::UpdateAfter.code(), "right behind each other");
                    assert_eq!(&rows[place + 1].0, key);
                }
                Change::UpdateAfter => {
                    assert!(known.is_some_and(|known| known != row), "{key}: {row}");
                    assert_eq!(
                        mode == ChangelogMode::Retract,
                        place > 0 && codes[place - 1] == Change::UpdateBefore.code()
                    );
                    there.insert(key.clone(), row.clone());
                }
                Change::Delete => assert_eq!(there.remove(key).as_ref(), Some(row)),
            }
        }
    }
    there
}

#[test]
fn results_follow_their_rows() {
    for (seed, mode) in [(1, ChangelogMode::Upsert), (2, ChangelogMode::Retract)] {
        let rows = rows(seed, 1_500, 40);
        let mut of_key = BTreeMap::<String, Vec<Option<i64>>>::new();
        rows.iter().for_each(|row| of_key.entry(row.key.clone()).or_default().push(row.value));
        let expected: BTreeMap<String, String> = of_key.iter().map(|(key, rows)| (key.clone(), result(rows))).collect();
        each_way(&group(mode, None), &["key"], &rows, |found, how| {
            assert_eq!(followed(found, mode, &["key"], &RESULTS), expected, "{how}");
            assert_eq!(found.late, 0, "no row is too late for all of time");
        });
    }
}

/// Rows that come, and some that go again later, in the order of each split.
fn changing(seed: u64) -> Vec<Row> {
    let mut chance = Chance::new(seed);
    let mut there: Vec<Row> = Vec::new();
    let mut all = Vec::new();
    for row in rows(seed, 1_500, 30) {
        let gone = there.iter().position(|old| old.split == row.split && chance.below(40) == 0);
        let mut row = Row { change: Some(0), ..row };
        match gone {
            Some(place) => {
                let old = there.swap_remove(place);
                let change = if chance.below(2) == 0 { Change::Delete } else { Change::UpdateBefore };
                row = Row { key: old.key, value: old.value, change: Some(change.code()), ..row };
            }
            None => there.push(row.clone()),
        }
        all.push(row);
    }
    // One key loses everything.
    for (old, n) in there.iter().filter(|row| row.key == "k7").cloned().collect::<Vec<_>>().iter().zip(1..) {
        let last = all.iter().filter(|row| row.split == old.split).max_by_key(|row| row.offset).unwrap().clone();
        all.push(Row { key: old.key.clone(), value: old.value, change: Some(3), offset: last.offset + n, ..last });
    }
    all
}

#[test]
fn what_was_taken_away_does_not_count() {
    for (seed, mode) in [(3, ChangelogMode::Upsert), (4, ChangelogMode::Retract)] {
        let rows = changing(seed);
        let mut of_key = BTreeMap::<String, Vec<Option<i64>>>::new();
        for row in &rows {
            let values = of_key.entry(row.key.clone()).or_default();
            match row.change {
                Some(0) => values.push(row.value),
                _ => {
                    let place = values.iter().position(|value| *value == row.value).unwrap();
                    values.remove(place);
                }
            }
        }
        assert!(of_key["k7"].is_empty());
        let there = of_key.iter().filter(|(_, rows)| !rows.is_empty());
        let expected: BTreeMap<String, String> = there.map(|(key, rows)| (key.clone(), result(rows))).collect();
        each_way(&group(mode, None), &["key"], &rows, |found, how| {
            assert_eq!(followed(found, mode, &["key"], &RESULTS), expected, "{how}");
        });
    }
}

#[test]
fn a_key_is_forgotten_after_its_time() {
    for (seed, keys, millis) in [(5, 30, 4), (6, 2_500, 2)] {
        let far = |time: i64| time.saturating_mul(100_000);
        let rows: Vec<Row> = rows(seed, 4_000, keys)
            .into_iter()
            .map(|row| Row { time: far(row.time), watermark: far(row.watermark), ..row })
            .collect();
        let ttl = i64::try_from(millis * 1_000_000).unwrap();
        let mut of_key = BTreeMap::<String, (i64, Vec<Option<i64>>)>::new();
        let mut forgotten = 0;
        for row in by_order(&rows) {
            let (since, values) = of_key.entry(row.key.clone()).or_insert((row.time, Vec::new()));
            if row.time - *since >= ttl {
                values.clear();
                forgotten += 1;
            }
            *since = row.time;
            values.push(row.value);
        }
        assert!(forgotten > 10);
        let late = rows.iter().filter(|row| !row.in_time()).count() as u64;
        let expected: BTreeMap<String, String> = of_key.iter().map(|(key, of)| (key.clone(), result(&of.1))).collect();
        each_way(&group(ChangelogMode::Upsert, Some(millis)), &["key"], &rows, |found, how| {
            assert_eq!(followed(found, ChangelogMode::Upsert, &["key"], &RESULTS), expected, "{how}");
            assert_eq!(found.late, late, "{how}");
        });
    }
}

#[test]
fn a_result_comes_once_for_each_key_and_watermark_in_the_order_of_keys() {
    let mut operator = group(ChangelogMode::Retract, None).build(Setting::alone("group")).unwrap();
    let mut out = Out::new(ErrorPolicy::Fail, false);
    let row = |time, key: &str, value| Row {
        split: 0,
        offset: time,
        time,
        watermark: 0,
        key: key.into(),
        value: Some(value),
        change: None,
    };
    let mut at = |watermark, rows: &[Row]| {
        operator.process(0, &batch(rows), &mut out).unwrap();
        operator.watermark(Timestamp::from_nanos(watermark), &mut out).unwrap();
        let given = out.take();
        given.iter().flat_map(|(_, batch)| texts(batch, &["_time", "key", "total", "_change"])).collect::<Vec<_>>()
    };
    assert_eq!(at(10, &[row(2, "b", 1), row(1, "a", 1), row(3, "b", 2)]), ["1 a 1 0", "3 b 3 0"]);
    assert_eq!(at(20, &[row(12, "b", 0), row(5, "a", 4)]), ["10 a 1 1", "10 a 5 2", "12 b 3 1", "12 b 3 2"]);
    assert_eq!(at(30, &[row(21, "b", 5), row(22, "b", -5), row(22, "c", 0)]).last().unwrap(), "22 c 0 0");
    assert!(operator.view(1, 1).unwrap().is_some_and(|shown| texts(&shown, &["key", "n"]) == ["b 5"]));
}

#[test]
fn a_sum_beyond_64_bits_is_a_fault() {
    let row = |offset, value| Row {
        split: 0,
        offset,
        time: offset,
        watermark: 0,
        key: "a".into(),
        value: Some(value),
        change: None,
    };
    let rows = [row(1, i64::MAX), row(2, 1)];
    for policy in [ErrorPolicy::Fail, ErrorPolicy::Null, ErrorPolicy::DeadLetter] {
        let setting = Setting { errors: policy, ..Setting::alone("group") };
        let mut operator = group(ChangelogMode::Upsert, None).build(setting).unwrap();
        let mut out = Out::new(policy, false);
        operator.process(0, &batch(&rows[..1]), &mut out).unwrap();
        operator.watermark(Timestamp::from_nanos(2), &mut out).unwrap();
        operator.process(0, &batch(&rows[1..]), &mut out).unwrap();
        let last = operator.watermark(Timestamp::from_nanos(9), &mut out);
        let given: Vec<String> = out
            .take()
            .iter()
            .filter(|(port, _)| port.is_main())
            .flat_map(|(_, b)| texts(b, &["total", "_change"]))
            .collect();
        let first = format!("{} 0", i64::MAX);
        match policy {
            ErrorPolicy::Fail => assert!(matches!(last, Err(Error::Fault { .. }))),
            ErrorPolicy::Null => assert_eq!(given, [first, "null 2".into()]),
            ErrorPolicy::DeadLetter => assert_eq!(given, [first, format!("{} 3", i64::MAX)]),
        }
        assert_eq!(out.counts().faults, 1);
    }
}

#[test]
fn each_rule_of_a_specification_is_named() {
    let wrong = |change: fn(&mut GroupSpec)| {
        let OperatorSpec::GroupAggregate(mut spec) = group(ChangelogMode::Upsert, None) else { panic!() };
        change(&mut spec);
        match OperatorSpec::GroupAggregate(spec).build(Setting::alone("group")) {
            Err(Error::Spec { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    assert!(wrong(|spec| spec.mode = ChangelogMode::Append).contains("upsert or retract"));
    assert!(wrong(|spec| spec.aggregates.clear()).contains("at least one"));
    assert!(wrong(|spec| spec.aggregates[0].name = "key".into()).contains("two output columns"));
    assert!(wrong(|spec| spec.aggregates[1].column = None).contains("needs a column"));
}
