//! How long an event takes: `cargo test --release -p flow --test speed -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one is there to print"
)]

use std::{sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};
use flow::{
    AggregateFunction, AggregateSpec, ErrorPolicy, Operator, OperatorSpec, Out, Phase, Setting, WindowPlan,
    WindowShape, WindowSpec,
};
use types::{DurationText, Timestamp};

const BATCH: u64 = 8_192;
const BATCHES: u64 = 120;

/// Half of the rows up to five seconds out of order, a thousand seconds' worth in all.
fn batches(keys: u64) -> Vec<RecordBatch> {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    let mut event = 0;
    let mut row = move || {
        event += 1;
        let back = if random(2) == 0 { random(5_000) } else { 0 };
        let time = (event / 100 + 10_000 - back) * 1_000_000;
        (time.cast_signed(), random(keys).cast_signed(), random(1_000).cast_signed())
    };
    (0..BATCHES)
        .map(|_| {
            let rows: Vec<(i64, i64, i64)> = (0..BATCH).map(|_| row()).collect();
            let ints = |of: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
            };
            let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0));
            RecordBatch::try_from_iter([
                ("_time", Arc::new(times) as ArrayRef),
                ("k", ints(|row| row.1)),
                ("v", ints(|row| row.2)),
            ])
            .unwrap()
        })
        .collect()
}

fn measure(what: &str, keys: u64, batches: &[RecordBatch], specs: &[OperatorSpec]) {
    let mut operators: Vec<_> = specs.iter().map(|spec| spec.build(Setting::alone("window")).unwrap()).collect();
    let (mut out, mut results) = (Out::new(ErrorPolicy::Fail, false), 0);
    let began = std::time::Instant::now();
    let mut deliver = |operators: &mut Vec<Box<dyn Operator>>, out: &mut Out, rows: Vec<RecordBatch>, watermark| {
        let mut rows = rows;
        for operator in operators.iter_mut() {
            rows.drain(..).for_each(|batch| operator.process(0, &batch, out).unwrap());
            operator.watermark(watermark, out).unwrap();
            rows = out.take().into_iter().map(|(_, batch)| batch).collect();
        }
        results += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    };
    for (n, batch) in (0u64..).zip(batches) {
        let watermark = Timestamp::from_millis((n * BATCH / 100 + 10_000 - 5_000).cast_signed());
        deliver(&mut operators, &mut out, vec![batch.clone()], watermark);
    }
    deliver(&mut operators, &mut out, Vec::new(), Timestamp::MAX);
    let nanos = began.elapsed().as_nanos() as f64 / (BATCH * BATCHES) as f64;
    assert!(results > 0 && out.counts().late == 0);
    println!("{what:<32} {keys:>7} keys {nanos:>7.1} ns an event, {results} results");
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    use AggregateFunction as F;
    for keys in [1_000, 100_000] {
        let batches = batches(keys);
        let (keyed, size) = (vec!["k".to_owned()], DurationText(Duration::from_secs(10)));
        let aggregates = vec![
            AggregateSpec::count_all("n"),
            AggregateSpec::of(F::Sum, "v", "s"),
            AggregateSpec::of(F::Avg, "v", "a"),
        ];
        let old = WindowSpec { keys: keyed.clone(), aggregates: aggregates.clone(), size, early: None };
        let plan = |shape, phase| OperatorSpec::Window(WindowPlan { shape, phase, ..WindowPlan::from(old.clone()) });
        let zero = DurationText::default();
        let tumble = WindowShape::Tumble { size, offset: zero };
        let hop = WindowShape::Hop { size, slide: DurationText(Duration::from_secs(1)), offset: zero };
        measure("tumble of older graphs", keys, &batches, &[OperatorSpec::WindowAggregate(old.clone())]);
        measure("tumble", keys, &batches, &[plan(tumble, Phase::Whole)]);
        measure("tumble in two phases", keys, &batches, &[plan(tumble, Phase::Local), plan(tumble, Phase::Global)]);
        measure("hop of 10 panes", keys, &batches, &[plan(hop, Phase::Whole)]);
        let session = WindowShape::Session { gap: DurationText(Duration::from_millis(100)) };
        measure("session", keys, &batches, &[plan(session, Phase::Whole)]);
    }
}
