use std::{collections::BTreeMap, time::Duration};

use types::DurationText;

use crate::{
    AggregateFunction as F, AggregateSpec, Error, Frame, OperatorSpec, OverSpec, Setting,
    drive::{Row, by_order, each_way, rows},
};

fn over(frame: Frame) -> OperatorSpec {
    let of = |function, name| AggregateSpec::of(function, "value", name);
    let aggregates = vec![
        AggregateSpec::count_all("n"),
        of(F::Count, "present"),
        of(F::Sum, "total"),
        of(F::Avg, "mean"),
        of(F::Min, "least"),
        of(F::Max, "most"),
        AggregateSpec::of(F::Max, "_time", "last"),
    ];
    OperatorSpec::Over(OverSpec { keys: vec!["key".into()], aggregates, frame })
}

const COLUMNS: [&str; 11] =
    ["_time", "key", "_split", "_offset", "n", "present", "total", "mean", "least", "most", "last"];

/// What each row must show, frame by frame.
fn expected(rows: &[Row], within: impl Fn(&[Row]) -> usize) -> Vec<String> {
    let mut of_key = BTreeMap::<String, Vec<Row>>::new();
    let shown = |row: Row| {
        let before = of_key.entry(row.key.clone()).or_default();
        before.push(row.clone());
        let frame = &before[before.len() - within(before)..];
        let values: Vec<i64> = frame.iter().filter_map(|row| row.value).collect();
        let or_null = |value: Option<String>| value.unwrap_or("null".to_owned());
        let some = |value: i64| (!values.is_empty()).then(|| value.to_string());
        let total: i64 = values.iter().sum();
        let mean = (!values.is_empty()).then(|| format!("{:?}", total as f64 / values.len() as f64));
        [
            format!("{} {} {} {}", row.time, row.key, row.split, row.offset),
            format!("{} {} {} {}", frame.len(), values.len(), or_null(some(total)), or_null(mean)),
            or_null(values.iter().min().map(i64::to_string)),
            or_null(values.iter().max().map(i64::to_string)),
            frame.iter().map(|row| row.time).max().unwrap().to_string(),
        ]
        .join(" ")
    };
    by_order(rows).into_iter().map(shown).collect()
}

fn check(spec: &OperatorSpec, rows: &[Row], expected: &[String]) {
    let late = rows.iter().filter(|row| !row.in_time()).count() as u64;
    each_way(spec, &["key"], rows, |found, how| {
        let (mut texts, mut expected) = (found.texts(&COLUMNS), expected.to_vec());
        if !how.contains("1 subtasks, then []") {
            texts.sort();
            expected.sort();
        }
        for (found, wanted) in texts.iter().zip(&expected) {
            assert_eq!(found, wanted, "{how}");
        }
        assert_eq!((texts.len(), found.late), (expected.len(), late), "{how}");
    });
}

#[test]
fn over_all_rows_before() {
    let rows = rows(1, 1_500, 20);
    check(&over(Frame::Unbounded), &rows, &expected(&rows, <[Row]>::len));
}

#[test]
fn over_some_rows_before() {
    for (seed, before) in [(2, 0), (3, 1), (4, 5), (5, 10_000)] {
        let rows = rows(seed, 2_000, 20);
        check(
            &over(Frame::Rows(before)),
            &rows,
            &expected(&rows, |all| all.len().min(usize::try_from(before).unwrap() + 1)),
        );
    }
}

#[test]
fn over_a_range_of_time() {
    for (seed, keys, millis) in [(6, 20, 30), (7, 2_000, 3), (8, 5, 0)] {
        let rows: Vec<Row> = rows(seed, 3_000, keys)
            .into_iter()
            .map(|row| {
                let far = |time: i64| time.saturating_mul(1_000_000);
                Row { time: far(row.time), watermark: far(row.watermark), ..row }
            })
            .collect();
        let before = i64::try_from(millis * 1_000_000).unwrap();
        let within = |all: &[Row]| {
            let now = all.last().unwrap().time;
            all.iter().rev().take_while(|row| row.time >= now - before).count()
        };
        let spec = over(Frame::Range(DurationText(Duration::from_millis(millis))));
        check(&spec, &rows, &expected(&rows, within));
    }
}

#[test]
fn each_rule_of_a_specification_is_named() {
    let sum = AggregateSpec::of(F::Sum, "value", "total");
    let wrong = |aggregates: Vec<AggregateSpec>, frame| {
        let spec = OperatorSpec::Over(OverSpec { keys: Vec::new(), aggregates, frame });
        match spec.build(Setting::alone("over")) {
            Err(Error::Spec { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    assert!(wrong(Vec::new(), Frame::Unbounded).contains("at least one"));
    assert!(wrong(vec![sum.clone(), sum.clone()], Frame::Unbounded).contains("two output columns"));
    assert!(wrong(vec![sum.clone()], Frame::Rows(u64::MAX)).contains("at most"));
    let taken = OverSpec {
        keys: Vec::new(),
        aggregates: vec![AggregateSpec { name: "key".into(), ..sum }],
        frame: Frame::Rows(1),
    };
    let mut operator = OperatorSpec::Over(taken).build(Setting::alone("over")).unwrap();
    let error = operator.process(0, &crate::drive::batch(&rows(1, 5, 2)), &mut crate::Out::default()).unwrap_err();
    assert!(error.to_string().contains("choose another name"), "{error}");
}
