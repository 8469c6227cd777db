use std::{sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampNanosecondArray,
    },
    compute::concat_batches,
    datatypes::{Float64Type, Int64Type},
    util::pretty::pretty_format_batches,
};
use proptest::prelude::*;
use types::{DurationText, Timestamp};

use super::*;
use crate::{Combined, SplitWatermark};

fn spec() -> WindowSpec {
    use AggregateFunction as F;
    WindowSpec {
        keys: vec!["k".into(), "b".into()],
        aggregates: vec![
            AggregateSpec::count_all("n"),
            AggregateSpec::of(F::Count, "v", "vs"),
            AggregateSpec::of(F::Sum, "i", "i_sum"),
            AggregateSpec::of(F::Sum, "v", "v_sum"),
            AggregateSpec::of(F::Avg, "v", "v_avg"),
            AggregateSpec::of(F::Min, "v", "v_min"),
            AggregateSpec::of(F::Max, "i", "i_max"),
        ],
        size: DurationText(Duration::from_millis(10)),
        early: None,
    }
}

#[derive(Debug, Clone)]
struct Event {
    time: i64,
    k: Option<&'static str>,
    b: Option<bool>,
    i: i64,
    v: Option<f64>,
}

fn batch(events: &[Event]) -> RecordBatch {
    RecordBatch::try_from_iter([
        (
            "_time",
            Arc::new(events.iter().map(|e| Some(e.time * 1_000_000)).collect::<TimestampNanosecondArray>()) as ArrayRef,
        ),
        ("k", Arc::new(events.iter().map(|e| e.k).collect::<StringArray>())),
        ("b", Arc::new(events.iter().map(|e| e.b).collect::<BooleanArray>())),
        ("i", Arc::new(events.iter().map(|e| e.i).collect::<Int64Array>())),
        ("v", Arc::new(events.iter().map(|e| e.v).collect::<Float64Array>())),
    ])
    .unwrap()
}

fn event(time: i64, k: &'static str, i: i64) -> Event {
    Event { time, k: Some(k), b: None, i, v: Some(i as f64) }
}

/// Every output row as text, with floats by their bits.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut out = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| match c.as_primitive_opt::<Float64Type>() {
                Some(f) if f.is_valid(row) => format!("{:016x}", f.value(row).to_bits()),
                _ => arrow::util::display::array_value_to_string(c, row).unwrap(),
            });
            out.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    out
}

#[test]
fn windows_fire_in_end_and_key_order() {
    let mut state = TumblingState::new(spec()).unwrap();
    let events = [
        event(25, "b", 1),
        event(3, "b", 2),
        Event { time: 4, k: None, b: Some(true), i: 7, v: None },
        event(9, "a", 3),
        event(3, "b", -5),
        event(12, "z", 1),
    ];
    assert!(state.update(&batch(&events)).unwrap().is_none());
    assert_eq!((state.groups(), state.open_windows()), (5, 3));
    assert!(state.advance(Timestamp::from_millis(9)).unwrap().is_empty());
    let fired = state.advance(Timestamp::from_millis(20)).unwrap();
    let wanted = "\
+-------------------------+-------------------------+---+------+---+----+-------+-------+-------+-------+-------+
| window_start            | window_end              | k | b    | n | vs | i_sum | v_sum | v_avg | v_min | i_max |
+-------------------------+-------------------------+---+------+---+----+-------+-------+-------+-------+-------+
| 1970-01-01T00:00:00     | 1970-01-01T00:00:00.010 |   | true | 1 | 0  | 7     |       |       |       | 7     |
| 1970-01-01T00:00:00     | 1970-01-01T00:00:00.010 | a |      | 1 | 1  | 3     | 3.0   | 3.0   | 3.0   | 3     |
| 1970-01-01T00:00:00     | 1970-01-01T00:00:00.010 | b |      | 2 | 2  | -3    | -3.0  | -1.5  | -5.0  | 2     |
| 1970-01-01T00:00:00.010 | 1970-01-01T00:00:00.020 | z |      | 1 | 1  | 1     | 1.0   | 1.0   | 1.0   | 1     |
+-------------------------+-------------------------+---+------+---+----+-------+-------+-------+-------+-------+";
    assert_eq!(pretty_format_batches(&fired).unwrap().to_string(), wanted);
    state.update(&batch(&[event(19, "late", 1), event(20, "in time", 1)])).unwrap();
    assert_eq!((state.late_rows(), state.groups()), (1, 2));
    assert!(state.advance(Timestamp::from_millis(5)).unwrap().is_empty(), "never back");
    assert_eq!(state.watermark(), Timestamp::from_millis(20));
    assert_eq!(rows(&state.advance(Timestamp::MAX).unwrap()).len(), 2);
    assert_eq!((state.groups(), state.open_windows()), (0, 0));
}

#[test]
fn without_keys_everything_is_one_group() {
    let spec = WindowSpec { keys: vec![], aggregates: vec![AggregateSpec::count_all("n")], ..spec() };
    let mut state = TumblingState::new(spec.clone()).unwrap();
    state.update(&batch(&[event(1, "a", 1), event(2, "b", 1), event(11, "a", 1)])).unwrap();
    let mut state = TumblingState::restore(spec, &state.snapshot().unwrap()).unwrap();
    let fired = state.advance(Timestamp::MAX).unwrap();
    assert_eq!((fired.len(), fired[0].num_columns()), (1, 3));
    assert_eq!(fired[0].column(2).as_primitive::<Int64Type>().values().to_vec(), [2, 1]);
}

#[test]
fn a_sum_stays_within_its_type() {
    let mut state = TumblingState::new(spec()).unwrap();
    let huge = [event(1, "a", i64::MAX), event(1, "a", i64::MAX), event(1, "b", i64::MIN), event(1, "b", -1)];
    state.update(&batch(&huge)).unwrap();
    state.update(&batch(&[event(2, "c", i64::MAX), event(2, "c", 5), event(2, "c", -6)])).unwrap();
    let fired = state.advance(Timestamp::MAX).unwrap();
    let sums = fired[0].column_by_name("i_sum").unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(sums, [i64::MAX, i64::MIN, i64::MAX - 1]);
}

#[test]
fn groups_are_bounded() {
    let mut state = TumblingState::new(spec()).unwrap().with_groups_max(2);
    state.update(&batch(&[event(1, "a", 1), event(11, "a", 1), event(1, "a", 1)])).unwrap();
    let more = batch(&[event(21, "a", 1)]);
    assert!(matches!(state.update(&more), Err(Error::TooManyGroups { limit: 2 })));
    let mut state = TumblingState::new(spec()).unwrap().with_groups_max(2);
    state.update(&batch(&[event(1, "a", 1), event(11, "a", 1)])).unwrap();
    state.advance(Timestamp::from_millis(10)).unwrap();
    state.update(&more).unwrap();
}

#[test]
fn many_groups_fire_in_pages() {
    let names: Vec<String> = (0..20_000).map(|i| format!("key-{i:05}")).collect();
    let n = names.len();
    let input = RecordBatch::try_from_iter([
        ("_time", Arc::new(TimestampNanosecondArray::from(vec![1; n])) as ArrayRef),
        ("k", Arc::new(names.iter().rev().map(|k| Some(k.as_str())).collect::<StringArray>())),
        ("b", Arc::new(BooleanArray::from(vec![None; n]))),
        ("i", Arc::new(Int64Array::from(vec![1; n]))),
        ("v", Arc::new(Float64Array::from(vec![0.5; n]))),
    ])
    .unwrap();
    let mut state = TumblingState::new(spec()).unwrap();
    state.update(&input).unwrap();
    state.update(&input).unwrap();
    let fired = state.advance(Timestamp::MAX).unwrap();
    assert!(fired.iter().all(|b| b.num_rows() <= 8_192));
    let keys: Vec<String> = fired
        .iter()
        .flat_map(|b| b.column(2).as_string::<i32>().iter().map(|k| k.unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(keys, names);
    let counts = fired.iter().flat_map(|b| b.column(4).as_primitive::<Int64Type>().values().to_vec());
    assert!(counts.into_iter().all(|n| n == 2));
}

#[test]
fn bad_batches_are_named() {
    let good = batch(&[event(1, "a", 1)]);
    let without = |name: &str| {
        let keep: Vec<usize> = (0..good.num_columns()).filter(|i| good.schema().field(*i).name() != name).collect();
        good.project(&keep).unwrap()
    };
    for name in ["_time", "k", "v"] {
        let found = TumblingState::new(spec()).unwrap().update(&without(name)).unwrap_err();
        assert!(matches!(&found, Error::NoColumn { column, .. } if column == name), "{found}");
    }
    let mut columns = good.columns().to_vec();
    columns[0] = Arc::new(TimestampNanosecondArray::from(vec![None::<i64>]));
    let names = good.schema();
    let with = |columns: Vec<ArrayRef>| {
        RecordBatch::try_from_iter(names.fields().iter().map(|f| f.name()).zip(columns)).unwrap()
    };
    let found = TumblingState::new(spec()).unwrap().update(&with(columns.clone())).unwrap_err();
    assert!(matches!(found, Error::NullTime { row: 0, .. }), "{found}");
    columns[0] = Arc::clone(good.column(0));
    columns[3] = Arc::new(StringArray::from(vec!["text"]));
    let found = TumblingState::new(spec()).unwrap().update(&with(columns.clone())).unwrap_err();
    assert!(matches!(&found, Error::ColumnType { column, .. } if column == "i"), "{found}");
    columns[3] = Arc::new(Float64Array::from(vec![1.5]));
    let mut state = TumblingState::new(spec()).unwrap();
    state.update(&good).unwrap();
    let found = state.update(&with(columns)).unwrap_err().to_string();
    assert!(found.contains("as in the first batch"), "{found}");
}

#[test]
fn an_early_row_comes_once_at_the_crossing_row() {
    let early = |op| Some(EarlyFire { aggregate: 0, op, threshold: 2.0 });
    let events = [event(1, "a", 10), event(2, "b", 1), event(3, "a", 20), event(4, "a", 40), event(11, "a", 1)];
    for (op, crossing) in [(EarlyOp::AtLeast, (2, 30)), (EarlyOp::Above, (3, 70))] {
        for cut in 0..=events.len() {
            let spec = WindowSpec { early: early(op), ..spec() };
            let mut state = TumblingState::new(spec.clone()).unwrap();
            let mut found: Vec<RecordBatch> = state.update(&batch(&events[..cut])).unwrap().into_iter().collect();
            let mut state = TumblingState::restore(spec, &state.snapshot().unwrap()).unwrap();
            found.extend(state.update(&batch(&events[cut..])).unwrap());
            let found = concat_batches(&found[0].schema(), &found).unwrap();
            assert_eq!(found.num_rows(), 1, "cut at {cut}");
            let int = |name: &str| found.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
            assert_eq!((int("n"), int("i_sum")), crossing, "cut at {cut}");
            assert!(found.column_by_name(EARLY_COLUMN).unwrap().as_boolean().value(0));
            let last = state.advance(Timestamp::MAX).unwrap();
            let marks = last[0].column_by_name(EARLY_COLUMN).unwrap().as_boolean();
            assert_eq!((marks.len(), marks.true_count()), (3, 0));
        }
    }
}

#[test]
fn a_snapshot_knows_what_it_is() {
    let state = TumblingState::new(spec()).unwrap();
    let bytes = state.snapshot().unwrap();
    assert_eq!(TumblingState::restore(spec(), &bytes).unwrap().groups(), 0);
    let other = WindowSpec { keys: vec!["k".into()], ..spec() };
    assert!(matches!(TumblingState::restore(other, &bytes), Err(Error::Snapshot(_))));
    assert!(TumblingState::restore(spec(), b"not arrow").is_err());
    assert!(TumblingState::restore(spec(), &[]).is_err());
    // Anyone with Arrow reads it.
    let mut state = TumblingState::new(spec()).unwrap();
    state.update(&batch(&[event(1, "a", 4), event(1, "a", 6)])).unwrap();
    let bytes = state.snapshot().unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let stored: Vec<RecordBatch> = reader.map(|b| b.unwrap()).collect();
    assert_eq!(stored[0].column_by_name("v_sum.sum").unwrap().as_primitive::<Float64Type>().value(0), 10.0);
}

/// Few groups and values of very different size, so that a sum that rounds on the way shows it.
fn arb_event() -> impl Strategy<Value = Event> {
    let keys = prop::sample::select(vec![None, Some("a")]);
    let flags = prop::sample::select(vec![None, Some(true)]);
    let fraction = any::<i32>().prop_map(|i| f64::from(i) / 3.0);
    let values = prop::option::weighted(0.9, prop_oneof![fraction, Just(1e15), Just(-1e15), Just(1e-15)]);
    (0i64..40, keys, flags, -100i64..100, values).prop_map(|(time, k, b, i, v)| Event { time, k, b, i, v })
}

/// What one source subtask sends on its channel.
#[derive(Debug, Clone)]
enum Item {
    Rows(Vec<Event>),
    Watermark(Timestamp),
}

/// Runs one split through its watermark, cut into batches of the given sizes.
fn split(events: &[Event], sizes: &[usize]) -> Vec<Item> {
    let mut watermark = SplitWatermark::new(Duration::from_millis(15));
    let (mut items, mut rest, mut sizes) = (Vec::new(), events, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        let kept = now.iter().filter(|e| {
            let time = Timestamp::from_millis(e.time);
            !watermark.late(time, time, window_end(time, spec().size))
        });
        items.push(Item::Rows(kept.cloned().collect()));
        items.push(Item::Watermark(watermark.watermark()));
        rest = later;
    }
    items
}

/// Feeds the operator in one interleaving; `crash` says where it is thrown away and restored.
fn run(splits: &[Vec<Item>], picks: &[prop::sample::Index], crash: Option<usize>) -> Vec<String> {
    let mut state = TumblingState::new(spec()).unwrap();
    let mut combined = Combined::new(splits.len());
    let mut next = vec![0; splits.len()];
    let mut fired = Vec::new();
    let mut picks = picks.iter().cycle();
    for step in 0.. {
        let open: Vec<usize> = (0..splits.len()).filter(|i| next[*i] <= splits[*i].len()).collect();
        if open.is_empty() {
            break;
        }
        if crash == Some(step) {
            let bytes = state.snapshot().unwrap();
            state = TumblingState::restore(spec(), &bytes).unwrap();
            assert_eq!(state.snapshot().unwrap(), bytes);
        }
        let i = open[picks.next().unwrap().index(open.len())];
        let risen = match splits[i].get(next[i]) {
            Some(Item::Rows(events)) => {
                state.update(&batch(events)).unwrap();
                None
            }
            Some(Item::Watermark(watermark)) => combined.watermark(i, *watermark),
            None => combined.finish(i),
        };
        next[i] += 1;
        if let Some(watermark) = risen {
            fired.extend(state.advance(watermark).unwrap());
        }
    }
    assert_eq!((state.late_rows(), state.groups()), (0, 0));
    rows(&fired)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// The heart of determinism: neither interleaving, nor batch sizes, nor a restart in between changes one bit.
    #[test]
    fn every_interleaving_emits_the_same_rows(
        events in prop::collection::vec(prop::collection::vec(arb_event(), 0..30), 1..4),
        sizes in prop::collection::vec(prop::collection::vec(1usize..7, 1..5), 2),
        picks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..60), 2),
        crash in 0usize..40,
    ) {
        let of = |n: usize| -> Vec<Vec<Item>> { events.iter().map(|e| split(e, &sizes[n])).collect() };
        let one = run(&of(0), &picks[0], None);
        let other = run(&of(1), &picks[1], None);
        let restarted = run(&of(0), &picks[0], Some(crash));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(&one, &restarted);
        // Every row that was in time is counted once.
        let kept: usize = of(0).iter().flatten().map(|i| match i { Item::Rows(e) => e.len(), Item::Watermark(_) => 0 }).sum();
        let counted: usize = one.iter().map(|r| r.split('|').nth(4).unwrap().parse::<usize>().unwrap()).sum();
        prop_assert_eq!(counted, kept);
    }
}
