//! Joins against a recomputation pair by pair, whatever happens on the way.

use std::{sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use types::{DurationText, Timestamp};

use super::*;
use crate::{
    Change, Error, ErrorPolicy, Operator, OperatorSpec, Out, Setting,
    kept::drive::{Row, each_way, in_order, rows, texts},
};

const HOWS: [JoinType; 6] =
    [JoinType::Inner, JoinType::Left, JoinType::Right, JoinType::Full, JoinType::Semi, JoinType::Anti];

fn side(names: [&str; 2]) -> JoinSide {
    let columns = ["key", "id"].into_iter().zip(names).map(|(column, name)| (column.to_owned(), name.to_owned()));
    JoinSide { keys: vec!["key".into()], columns: columns.collect(), types: Vec::new() }
}

fn spec(kind: JoinKind, how: JoinType) -> JoinSpec {
    JoinSpec { kind, how, left: side(["key", "left"]), right: side(["right_key", "right"]) }
}

fn shown(row: Option<&Row>) -> String {
    row.map_or("- -".to_owned(), |row| format!("{} {}", row.key.as_deref().unwrap_or("-"), row.id()))
}

fn same_key(left: &Row, right: &Row) -> bool {
    left.key.is_some() && left.key == right.key
}

/// What comes out of all rows that can meet, given which of them do; `time` is that of two rows, or of one.
fn joined(
    how: JoinType,
    (lefts, rights): (&[&Row], &[&Row]),
    meet: impl Fn(&Row, &Row) -> bool,
    time: impl Fn(Option<&Row>, Option<&Row>) -> String,
) -> Vec<String> {
    let mut out = Vec::new();
    for left in lefts {
        let partners: Vec<&&Row> = rights.iter().filter(|right| same_key(left, right) && meet(left, right)).collect();
        let alone = || format!("{} {}", time(Some(left), None), shown(Some(left)));
        match how {
            JoinType::Semi => out.extend((!partners.is_empty()).then(alone)),
            JoinType::Anti => out.extend(partners.is_empty().then(alone)),
            _ => {
                let pair = |right: &&&Row| {
                    format!("{} {} {}", time(Some(left), Some(right)), shown(Some(left)), shown(Some(right)))
                };
                out.extend(partners.iter().map(pair));
            }
        }
        if partners.is_empty() && matches!(how, JoinType::Left | JoinType::Full) {
            out.push(format!("{} {}", alone(), shown(None)));
        }
    }
    for right in rights.iter().filter(|_| matches!(how, JoinType::Right | JoinType::Full)) {
        if !lefts.iter().any(|left| same_key(left, right) && meet(left, right)) {
            out.push(format!("{} {} {}", time(None, Some(right)), shown(None), shown(Some(right))));
        }
    }
    out
}

#[test]
fn rows_of_an_interval_meet() {
    for (lower_ms, upper_ms) in [(-4, 9), (0, 0), (3, 12), (-15, -2)] {
        for (seed, how) in (0..).zip(HOWS) {
            let rows = rows(seed, 2, 500, 6);
            let (lefts, rights) = (in_order(&rows, 0), in_order(&rows, 1));
            let time = |left: Option<&Row>, right: Option<&Row>| {
                left.into_iter().chain(right).map(|row| row.time).max().unwrap().to_string()
            };
            let near = |left: &Row, right: &Row| (lower_ms..=upper_ms).contains(&(right.time - left.time));
            let expected = joined(how, (&lefts, &rights), near, time);
            let spec = OperatorSpec::Join(spec(JoinKind::Interval { lower_ms, upper_ms }, how));
            each_way(&spec, None, &rows, &expected, &format!("{how:?} {lower_ms}..{upper_ms}"));
        }
    }
}

#[test]
fn rows_of_a_window_meet() {
    let ms = |n: i64| DurationText(Duration::from_millis(n.unsigned_abs()));
    let (size, step) = (12, 4);
    let hop = |time: i64| {
        let last = time.div_euclid(step) * step;
        (0..size / step).map(|n| (last - n * step, last - n * step + size)).collect::<Vec<_>>()
    };
    let tumble = |time: i64| vec![(time.div_euclid(size) * size, (time.div_euclid(size) + 1) * size)];
    let cumulate = |time: i64| {
        let start = time.div_euclid(size) * size;
        (1..=size / step).map(|n| (start, start + n * step)).filter(|(_, end)| time < *end).collect::<Vec<_>>()
    };
    type Windows<'a> = &'a dyn Fn(i64) -> Vec<(i64, i64)>;
    let shapes: [(WindowShape, Windows<'_>); 3] = [
        (WindowShape::Tumble { size: ms(size), offset: ms(0) }, &tumble),
        (WindowShape::Hop { size: ms(size), slide: ms(step), offset: ms(0) }, &hop),
        (WindowShape::Cumulate { size: ms(size), step: ms(step), offset: ms(0) }, &cumulate),
    ];
    for (shape, windows) in shapes {
        for (seed, how) in (10..).zip(HOWS) {
            let rows = rows(seed, 2, 300, 4);
            let (lefts, rights) = (in_order(&rows, 0), in_order(&rows, 1));
            let mut all: Vec<(i64, i64)> = rows.iter().flat_map(|row| windows(row.time)).collect();
            all.sort_unstable();
            all.dedup();
            let mut expected = Vec::new();
            for window in all {
                let within = |rows: &[&Row]| -> Vec<Row> {
                    let within = rows.iter().filter(|row| windows(row.time).contains(&window));
                    within.map(|row| (*row).clone()).collect()
                };
                let (lefts, rights) = (within(&lefts), within(&rights));
                let (lefts, rights): (Vec<&Row>, Vec<&Row>) = (lefts.iter().collect(), rights.iter().collect());
                let time = |_: Option<&Row>, _: Option<&Row>| format!("{} {} {}", window.1 - 1, window.0, window.1);
                expected.extend(joined(how, (&lefts, &rights), |_, _| true, time));
            }
            let spec = OperatorSpec::Join(spec(JoinKind::Window(shape), how));
            each_way(&spec, None, &rows, &expected, &format!("{how:?} {shape:?}"));
        }
    }
}

#[test]
fn a_row_meets_the_version_of_its_time() {
    for changes in [None, Some(1)] {
        for (seed, how) in (20..).zip([JoinType::Inner, JoinType::Left, JoinType::Semi, JoinType::Anti]) {
            let rows = rows(seed, 2, 700, 9);
            let (lefts, rights) = (in_order(&rows, 0), in_order(&rows, 1));
            let change = |row: &Row| changes.map_or(Change::Insert, |_| Change::of(row.change).unwrap());
            let version = |left: &Row| {
                let mut known = rights.iter().filter(|r| r.time <= left.time && same_key(left, r));
                let last = known.rfind(|right| change(right) != Change::UpdateBefore);
                last.filter(|right| change(right) != Change::Delete)
            };
            let meet = |left: &Row, right: &Row| version(left).is_some_and(|version| version.id() == right.id());
            let time = |left: Option<&Row>, _: Option<&Row>| left.unwrap().time.to_string();
            let expected = joined(how, (&lefts, &rights), meet, time);
            let spec = OperatorSpec::Join(spec(JoinKind::Temporal, how));
            each_way(&spec, changes, &rows, &expected, &format!("{how:?}, changes {changes:?}"));
        }
    }
}

fn table(keys: &[Option<&str>], names: &[&str]) -> RecordBatch {
    let text = |values: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let names = names.iter().map(|name| Some(*name)).collect();
    RecordBatch::try_from_iter_with_nullable([("key", text(keys.to_vec()), true), ("id", text(names), true)]).unwrap()
}

fn timed(batch: &RecordBatch, time: i64) -> RecordBatch {
    let n = batch.num_rows();
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("_time".into(), Arc::new(TimestampNanosecondArray::from(vec![time * 1_000_000; n]))),
        ("_offset".into(), Arc::new((0..i64::try_from(n).unwrap()).collect::<Int64Array>())),
    ];
    let schema = batch.schema();
    columns.extend(schema.fields().iter().zip(batch.columns()).map(|(f, array)| (f.name().clone(), Arc::clone(array))));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

#[test]
fn a_lookup_finds_all_rows_of_a_key() {
    let people = table(&[Some("x"), Some("y"), None, Some("x")], &["X1", "Y1", "N", "X2"]);
    let batch = timed(&table(&[Some("y"), None, Some("x"), Some("z")], &["1", "2", "3", "4"]), 5);
    let cases: [(JoinType, &[&str]); 4] = [
        (JoinType::Inner, &["5 0 y 1 y Y1", "5 2 x 3 x X1", "5 2 x 3 x X2"]),
        (JoinType::Left, &["5 0 y 1 y Y1", "5 1 - 2 - -", "5 2 x 3 x X1", "5 2 x 3 x X2", "5 3 z 4 - -"]),
        (JoinType::Semi, &["5 0 y 1", "5 2 x 3"]),
        (JoinType::Anti, &["5 1 - 2", "5 3 z 4"]),
    ];
    for (how, expected) in cases {
        let spec = spec(JoinKind::Lookup { table: "people".into() }, how);
        let rows = Arc::new(LookupTable::new(&spec, &people).unwrap());
        let mut operator = LookupJoin::new(spec, Setting::alone("lookup"), Box::new(rows)).unwrap();
        let mut out = Out::new(ErrorPolicy::Fail, true);
        operator.process(0, &batch, &mut out).unwrap();
        let found: Vec<String> = out.take().iter().flat_map(|(_, batch)| texts(batch)).collect();
        assert_eq!(found, expected, "{how:?}");
    }
}

#[test]
fn a_side_without_rows_has_the_types_that_were_told() {
    let mut told = spec(JoinKind::Interval { lower_ms: 0, upper_ms: 0 }, JoinType::Left);
    told.right.types = vec![ValueType::Text, ValueType::Integer];
    let mut operator = JoinOperator::new(told, Setting::alone("join")).unwrap();
    let mut out = Out::new(ErrorPolicy::Fail, true);
    operator.process(0, &timed(&table(&[Some("x")], &["1"]), 5), &mut out).unwrap();
    operator.watermark(Timestamp::MAX, &mut out).unwrap();
    let given = out.take();
    assert_eq!(texts(&given[0].1), ["5 x 1 - -"]);
    let schema = given[0].1.schema();
    assert_eq!(schema.field_with_name("right").unwrap().data_type(), &arrow::datatypes::DataType::Int64);
}

#[test]
fn state_has_a_limit_and_goes_with_time() {
    let spec = spec(JoinKind::Interval { lower_ms: -5, upper_ms: 5 }, JoinType::Full);
    let batch = |time| timed(&table(&[Some("x"), Some("y")], &["1", "2"]), time);
    let mut out = Out::new(ErrorPolicy::Fail, true);
    let small = Setting { state_bytes_max: 50, ..Setting::alone("join") };
    let refused = JoinOperator::new(spec.clone(), small).unwrap().process(0, &batch(1), &mut out);
    assert!(matches!(refused, Err(Error::StateTooLarge { .. })), "{refused:?}");
    let mut operator = JoinOperator::new(spec, Setting::alone("join")).unwrap();
    let mut most = 0;
    for time in 0..10_000 {
        operator.process(usize::try_from(time).unwrap() % 2, &batch(time), &mut out).unwrap();
        operator.watermark(Timestamp::from_millis(time), &mut out).unwrap();
        most = most.max(operator.bytes());
    }
    // Whole batches of up to 8192 rows go at once.
    assert!(most < 2_500_000, "{most} bytes");
    operator.watermark(Timestamp::MAX, &mut out).unwrap();
    assert_eq!(operator.bytes(), 0);
}

#[test]
fn what_contradicts_itself_is_refused() {
    type Break = fn(&mut JoinSpec);
    let cases: &[(&str, Break)] = &[
        ("give as many", |spec| spec.left.keys.clear()),
        ("rename one", |spec| spec.right.columns[0].1 = "left".into()),
        ("rename one", |spec| spec.right.columns[0].1 = "_time".into()),
        ("one for each", |spec| spec.left.types = vec![ValueType::Text]),
        ("the engine's", |spec| spec.left.keys[0] = "_hash".into()),
        ("the lesser one", |spec| spec.kind = JoinKind::Interval { lower_ms: 2, upper_ms: 1 }),
        ("within 73 years", |spec| spec.kind = JoinKind::Interval { lower_ms: i64::MIN, upper_ms: 1 }),
        ("use inner", |spec| (spec.kind, spec.how) = (JoinKind::Temporal, JoinType::Right)),
        ("windows by time", |spec| spec.kind = JoinKind::Window(WindowShape::Count { rows: 3 })),
    ];
    for (wanted, spoil) in cases {
        let mut spec = spec(JoinKind::Interval { lower_ms: 0, upper_ms: 1 }, JoinType::Inner);
        spec.validate().unwrap();
        spoil(&mut spec);
        let found = spec.validate().unwrap_err().to_string();
        assert!(found.contains(wanted), "{found:?} does not say {wanted:?}");
    }
    let spec = spec(JoinKind::Interval { lower_ms: 0, upper_ms: 1 }, JoinType::Inner);
    let mut operator = JoinOperator::new(spec, Setting::alone("join")).unwrap();
    let mut out = Out::new(ErrorPolicy::Fail, true);
    operator.process(0, &timed(&table(&[Some("x")], &["1"]), 5), &mut out).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let numbers = RecordBatch::try_from_iter([("key", Arc::clone(&numbers)), ("id", numbers)]).unwrap();
    let refused = operator.process(1, &timed(&numbers, 5), &mut out).unwrap_err().to_string();
    assert!(refused.contains("Utf8 as \"key\" on the left side"), "{refused}");
}
