//! Windows by count, and rows of windows before they end.

use std::{collections::BTreeMap, time::Duration};

use types::{DurationText, Timestamp};

use super::*;
use crate::{
    ErrorPolicy, Operator, OperatorSpec, Out, Setting, StateBlock, StoredBlock,
    drive::{Chance, Row, batch, by_order, each_way, rows, texts},
};

#[test]
fn windows_by_count_take_rows_in_their_order() {
    for (seed, keys, count) in [(1, 9, 5), (2, 3, 1), (3, 1_500, 2)] {
        let plan = WindowPlan {
            keys: vec!["key".into()],
            aggregates: vec![
                AggregateSpec::count_all("n"),
                AggregateSpec::of(AggregateFunction::Sum, "value", "total"),
            ],
            shape: WindowShape::Count { rows: count },
            lateness: DurationText::default(),
            emit: Default::default(),
            early: None,
            phase: Phase::Whole,
        };
        let rows = rows(seed, 3_000, keys);
        let mut open = BTreeMap::<String, Vec<Row>>::new();
        let mut expected = Vec::new();
        for row in by_order(&rows) {
            let window = open.entry(row.key.clone()).or_default();
            window.push(row);
            if window.len() == usize::try_from(count).unwrap() {
                let (first, last) = (window[0].time, window[window.len() - 1].time);
                let some: Vec<i64> = window.iter().filter_map(|row| row.value).collect();
                let total = if some.is_empty() { "null".to_owned() } else { some.iter().sum::<i64>().to_string() };
                expected.push(format!("{last} {first} {} {} {count} {total}", last + 1, window[0].key));
                window.clear();
            }
        }
        let late = rows.iter().filter(|row| !row.in_time()).count() as u64;
        each_way(&OperatorSpec::Window(plan), &["key"], &rows, |found, how| {
            let mut texts = found.texts(&["_time", "window_start", "window_end", "key", "n", "total"]);
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

fn plan(shape: WindowShape, emit: Emit, early: Option<EarlyFire>) -> WindowPlan {
    let total = AggregateSpec::of(AggregateFunction::Sum, "value", "total");
    WindowPlan {
        keys: vec!["key".into()],
        aggregates: vec![AggregateSpec::count_all("n"), total],
        shape,
        lateness: DurationText::default(),
        emit,
        early,
        phase: Phase::Whole,
    }
}

fn ms(millis: u64) -> DurationText {
    DurationText(Duration::from_millis(millis))
}

/// Rows of one split, with times in milliseconds.
fn of_one_split(seed: u64) -> Vec<Row> {
    let far = |time: i64| time.saturating_mul(1_000_000);
    let rows = rows(seed, 3_000, 12).into_iter().filter(|row| row.split == 0);
    rows.map(|row| Row { time: far(row.time), watermark: far(row.watermark), ..row }).collect()
}

fn restored(spec: &OperatorSpec, operator: &mut dyn Operator) -> Box<dyn Operator> {
    let stored = |block: StateBlock| StoredBlock {
        table: block.table,
        groups: block.groups,
        time: block.time,
        bytes: block.content.encode().unwrap().into(),
    };
    let blocks: Vec<StoredBlock> = operator.snapshot().unwrap().into_iter().map(stored).collect();
    let mut other = spec.build(Setting::alone("window")).unwrap();
    other.restore(&blocks).unwrap();
    other
}

#[test]
fn by_the_clock_windows_tell_what_they_hold_and_end_as_they_would() {
    const KEY: [&str; 3] = ["window_start", "window_end", "key"];
    let hop = WindowShape::Hop { size: ms(60), slide: ms(20), offset: DurationText::default() };
    for seed in 0..4 {
        let rows = of_one_split(seed);
        let quiet = OperatorSpec::Window(plan(hop, Emit::OnClose, None));
        let spec = OperatorSpec::Window(plan(hop, Emit::Every(ms(5)), None));
        let (mut silent, mut telling) =
            (quiet.build(Setting::alone("window")).unwrap(), spec.build(Setting::alone("window")).unwrap());
        let (mut expected, mut there) = (BTreeMap::new(), BTreeMap::new());
        let (mut chance, mut now, mut early) = (Chance::new(seed), 0, 0);
        let follow = |out: &mut Out, there: &mut BTreeMap<String, String>| {
            let mut count = 0;
            for (_, batch) in out.take() {
                let values = texts(&batch, &["n", "total"]);
                for ((key, row), change) in texts(&batch, &KEY).into_iter().zip(values).zip(texts(&batch, &["_change"]))
                {
                    let old = there.insert(key.clone(), row.clone());
                    assert_ne!(old.as_ref(), Some(&row), "only what differs is told: {key}");
                    assert_eq!(if old.is_some() { "2" } else { "0" }, change, "{key}");
                    count += 1;
                }
            }
            count
        };
        let mut next = 0;
        while next < rows.len() {
            let until = (next + 1 + usize::try_from(chance.below(30)).unwrap()).min(rows.len());
            let watermark = rows.get(until).map_or(i64::MAX, |row| row.watermark);
            let mut out = Out::new(ErrorPolicy::Fail, false);
            for operator in [&mut silent, &mut telling] {
                operator.process(0, &batch(&rows[next..until]), &mut out).unwrap();
            }
            silent.watermark(Timestamp::from_nanos(watermark), &mut out).unwrap();
            for (_, batch) in out.take() {
                expected.extend(texts(&batch, &KEY).into_iter().zip(texts(&batch, &["n", "total"])));
            }
            telling.watermark(Timestamp::from_nanos(watermark), &mut out).unwrap();
            follow(&mut out, &mut there);
            now += i64::try_from(chance.below(4)).unwrap() * 1_000_000;
            let due = telling.timer(Timestamp::from_nanos(now), &mut out).unwrap().unwrap();
            assert!(due.nanos() > now);
            early += follow(&mut out, &mut there);
            if chance.below(12) == 0 {
                // What was told is told again where it is not known any more, but never inserted twice.
                telling = restored(&spec, telling.as_mut());
                let mut again = Out::new(ErrorPolicy::Fail, false);
                telling.timer(Timestamp::from_nanos(now), &mut again).unwrap();
                telling.timer(Timestamp::from_nanos(now + 5_000_000), &mut again).unwrap();
                for (_, batch) in again.take() {
                    for (change, key) in texts(&batch, &["_change"]).iter().zip(texts(&batch, &KEY)) {
                        assert_eq!(change == "2", there.contains_key(&key));
                    }
                    there.extend(texts(&batch, &KEY).into_iter().zip(texts(&batch, &["n", "total"])));
                }
            }
            next = until;
        }
        assert!(early > 50, "{early}");
        assert_eq!(there, expected);
    }
}

#[test]
fn a_threshold_is_told_as_windows_always_told_it() {
    const COLUMNS: [&str; 6] = ["window_start", "window_end", "key", "n", "total", "_early"];
    let early = EarlyFire { aggregate: 0, op: EarlyOp::AtLeast, threshold: 4.0 };
    let shape = WindowShape::Tumble { size: ms(60), offset: DurationText::default() };
    let spec = OperatorSpec::Window(plan(shape, Emit::OnClose, Some(early)));
    let WindowPlan { keys, aggregates, .. } = plan(shape, Emit::OnClose, None);
    let old = OperatorSpec::WindowAggregate(WindowSpec { keys, aggregates, size: ms(60), early: Some(early) });
    for seed in 0..4 {
        // In order, for the older operator does not look at what a row says of its split.
        let mut rows = of_one_split(seed);
        rows.sort_by_key(Row::place);
        rows.iter_mut().for_each(|row| row.watermark = i64::MIN);
        let (mut one, mut other) =
            (spec.build(Setting::alone("window")).unwrap(), old.build(Setting::alone("window")).unwrap());
        let (mut chance, mut next, mut crossed) = (Chance::new(seed), 0, 0);
        while next < rows.len() {
            let until = (next + 1 + usize::try_from(chance.below(30)).unwrap()).min(rows.len());
            let watermark = Timestamp::from_nanos(rows.get(until).map_or(i64::MAX, |row| row.time));
            let mut given = [&mut one, &mut other].map(|operator| {
                let mut out = Out::new(ErrorPolicy::Fail, false);
                operator.process(0, &batch(&rows[next..until]), &mut out).unwrap();
                operator.watermark(watermark, &mut out).unwrap();
                out.take().iter().flat_map(|(_, batch)| texts(batch, &COLUMNS)).collect::<Vec<_>>()
            });
            assert_eq!(given[0], given[1]);
            crossed += given[0].drain(..).filter(|row| row.ends_with("true")).count();
            if chance.below(6) == 0 {
                one = restored(&spec, one.as_mut());
            }
            next = until;
        }
        assert!(crossed > 20, "{crossed}");
    }
}
