//! Windows of every shape against a recomputation row by row, whatever happens on the way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use proptest::prelude::*;
use types::{DurationText, Timestamp};

use super::*;
use crate::{
    ErrorPolicy, FaultKind, KeyGroups, Operator, OperatorSpec, Out, Port, Setting, StateBlock, StoredBlock, ValueType,
    key_groups_of, scatter,
};

const MILLI: i64 = 1_000_000;
/// How far the watermark of a split is behind its newest row, in milliseconds.
const DELAY: i64 = 7;

#[derive(Debug, Clone)]
struct Event {
    time: i64,
    k: Option<&'static str>,
    n: Option<i64>,
    f: Option<i64>,
    s: Option<&'static str>,
}

/// An event with the watermark of its split before it.
type Judged = (Event, i64);

fn judged(events: &[Event]) -> Vec<Judged> {
    let mut watermark = i64::MIN;
    events
        .iter()
        .map(|event| {
            let before = watermark;
            watermark = watermark.max(event.time - DELAY);
            (event.clone(), before)
        })
        .collect()
}

fn batch(rows: &[Judged]) -> RecordBatch {
    let instants = |of: fn(&Judged) -> i64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row).saturating_mul(MILLI))).collect::<TimestampNanosecondArray>())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_time", instants(|row| row.0.time)),
        ("_wm", instants(|row| row.1)),
        ("k", Arc::new(rows.iter().map(|row| row.0.k).collect::<StringArray>())),
        ("n", Arc::new(rows.iter().map(|row| row.0.n).collect::<Int64Array>())),
        // Quarters are exact, and so is every sum of them, in any order.
        ("f", Arc::new(rows.iter().map(|row| row.0.f.map(|f| f as f64 / 4.0)).collect::<Float64Array>())),
        ("s", Arc::new(rows.iter().map(|row| row.0.s).collect::<StringArray>())),
        ("b", Arc::new(rows.iter().map(|row| row.0.n.map(|n| n > 0)).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ms(millis: i64) -> DurationText {
    DurationText(Duration::from_millis(millis.unsigned_abs()))
}

fn plan(shape: WindowShape, lateness: i64, keys: &[&str]) -> WindowPlan {
    use AggregateFunction as F;
    WindowPlan {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        aggregates: vec![
            AggregateSpec::count_all("rows"),
            AggregateSpec::of(F::Count, "n", "ns"),
            AggregateSpec::of(F::Sum, "n", "n_sum"),
            AggregateSpec::of(F::Avg, "n", "n_avg"),
            AggregateSpec::of(F::Sum, "f", "f_sum"),
            AggregateSpec::of(F::Min, "f", "f_min"),
            AggregateSpec::of(F::Max, "n", "n_max"),
            AggregateSpec::of(F::Min, "s", "s_min"),
            AggregateSpec::of(F::Max, "_time", "t_max"),
            AggregateSpec::of(F::Max, "b", "b_max"),
        ],
        shape,
        lateness: ms(lateness),
        emit: Emit::OnClose,
        early: None,
        phase: Phase::Whole,
    }
}

fn tumble(size: i64) -> WindowShape {
    WindowShape::Tumble { size: ms(size), offset: ms(3) }
}

/// What the windows of a list of rows answer, in the order of the columns.
fn answer(start: i64, end: i64, key: Option<&str>, rows: &[&Event]) -> String {
    let ns: Vec<i64> = rows.iter().filter_map(|e| e.n).collect();
    let fs: Vec<f64> = rows.iter().filter_map(|e| e.f).map(|f| f as f64 / 4.0).collect();
    fn show<T: std::fmt::Debug>(value: Option<T>) -> String {
        value.map_or("-".to_owned(), |value| format!("{value:?}"))
    }
    let sum: i64 = ns.iter().sum();
    [
        format!("{start}..{end}"),
        show(key),
        rows.len().to_string(),
        ns.len().to_string(),
        show((!ns.is_empty()).then_some(sum)),
        show((!ns.is_empty()).then(|| sum as f64 / ns.len() as f64)),
        show((!fs.is_empty()).then(|| fs.iter().sum::<f64>())),
        show(fs.iter().copied().min_by(f64::total_cmp)),
        show(ns.iter().max()),
        show(rows.iter().filter_map(|e| e.s).min()),
        show(rows.iter().map(|e| e.time).max()),
        show(ns.iter().map(|n| *n > 0).max()),
    ]
    .join("|")
}

/// The windows that an instant lies in, by the definition of each shape.
fn windows_of(shape: WindowShape, time: i64) -> Vec<(i64, i64)> {
    let millis = |d: DurationText| i64::try_from(d.0.as_millis()).unwrap();
    let all = |starts: Vec<i64>, size: i64| -> Vec<(i64, i64)> {
        starts.into_iter().map(|s| (s, s + size)).filter(|(s, e)| (*s..*e).contains(&time)).collect()
    };
    let around = |unit: i64, offset: i64, size: i64| -> Vec<i64> {
        (-200..200).map(|i| i * unit + offset).filter(|s| *s <= time && *s + size > time).collect()
    };
    match shape {
        WindowShape::Tumble { size, offset } => all(around(millis(size), millis(offset), millis(size)), millis(size)),
        WindowShape::Hop { size, slide, offset } => {
            all(around(millis(slide), millis(offset), millis(size)), millis(size))
        }
        WindowShape::Cumulate { size, step, offset } => {
            let start = around(millis(size), millis(offset), millis(size))[0];
            let ends = (1..=millis(size) / millis(step)).map(|i| start + i * millis(step));
            ends.filter(|end| *end > time).map(|end| (start, end)).collect()
        }
        WindowShape::Session { .. } | WindowShape::Count { .. } => unreachable!("not by time alone"),
    }
}

type Expected = (Vec<String>, u64);

/// Row by row, window by window, in the order in which they fire.
fn recompute(plan: &WindowPlan, splits: &[Vec<Judged>]) -> Expected {
    let lateness = i64::try_from(plan.lateness.0.as_millis()).unwrap();
    let (mut late, mut windows) = (0, BTreeMap::<(i64, i64, Option<&str>), Vec<&Judged>>::new());
    for row in splits.iter().flatten() {
        let mut of_row = windows_of(plan.shape, row.0.time);
        of_row.retain(|(_, end)| end + lateness > row.1);
        late += u64::from(of_row.is_empty());
        for (start, end) in of_row {
            windows.entry((start, end, row.0.k)).or_default().push(row);
        }
    }
    let mut out = Vec::new();
    for ((start, end, key), rows) in &windows {
        let first: Vec<&Event> = rows.iter().filter(|row| *end > row.1).map(|row| &row.0).collect();
        if !first.is_empty() {
            out.push((*end, *end, *key, answer(*start, *end, *key, &first)));
        }
        if first.len() < rows.len() {
            let all: Vec<&Event> = rows.iter().map(|row| &row.0).collect();
            out.push((*end + lateness, *end, *key, answer(*start, *end, *key, &all)));
        }
    }
    out.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    (out.into_iter().map(|row| row.3).collect(), late)
}

fn recompute_sessions(gap: i64, splits: &[Vec<Judged>]) -> Expected {
    let mut of_key = BTreeMap::<Option<&str>, Vec<&Event>>::new();
    let mut late = 0;
    for (event, watermark) in splits.iter().flatten() {
        if event.time < *watermark { late += 1 } else { of_key.entry(event.k).or_default().push(event) }
    }
    let mut out = Vec::new();
    for (key, mut events) in of_key {
        events.sort_by_key(|event| event.time);
        for session in events.chunk_by(|a, b| b.time - a.time <= gap) {
            let (first, end) = (session[0].time, session[session.len() - 1].time + gap);
            out.push((end, key, answer(first, end, key, session)));
        }
    }
    out.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    (out.into_iter().map(|row| row.2).collect(), late)
}

/// The output rows as text.
fn texts(batch: &RecordBatch) -> Vec<String> {
    use arrow::{
        array::AsArray,
        datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType},
    };
    let cell = |name: &str, row: usize| {
        let array = batch.column_by_name(name).unwrap();
        if array.is_null(row) {
            return "-".to_owned();
        }
        match array.data_type() {
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
            DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
            DataType::Boolean => array.as_boolean().value(row).to_string(),
            _ => (array.as_primitive::<TimestampNanosecondType>().value(row) / MILLI).to_string(),
        }
    };
    let names = ["k", "rows", "ns", "n_sum", "n_avg", "f_sum", "f_min", "n_max", "s_min", "t_max", "b_max"];
    (0..batch.num_rows())
        .map(|row| {
            let window = format!("{}..{}", cell("window_start", row), cell("window_end", row));
            let last = batch.column_by_name("_time").unwrap().as_primitive::<TimestampNanosecondType>().value(row);
            let end = batch.column_by_name("window_end").unwrap().as_primitive::<TimestampNanosecondType>().value(row);
            assert_eq!(last, end - 1);
            std::iter::once(window).chain(names.map(|name| cell(name, row))).collect::<Vec<_>>().join("|")
        })
        .collect()
}

fn stored(blocks: Vec<StateBlock>) -> Vec<StoredBlock> {
    let store = |b: StateBlock| StoredBlock {
        table: b.table,
        groups: b.groups,
        time: b.time,
        bytes: b.content.encode().unwrap().into(),
    };
    blocks.into_iter().map(store).collect()
}

/// What happens on the way: a snapshot behind that step, then so many steps that are lost, then so many subtasks.
#[derive(Debug, Clone, Copy)]
struct Loss {
    after: usize,
    lost: usize,
    subtasks: usize,
}

struct Run<'a> {
    plan: &'a WindowPlan,
    two_phases: bool,
    splits: &'a [Vec<Judged>],
    next: Vec<usize>,
    locals: Vec<Box<dyn Operator>>,
    subtasks: Vec<Box<dyn Operator>>,
    rows: Vec<String>,
    late: u64,
}

fn build(plan: &WindowPlan, phase: Phase, groups: std::ops::Range<u16>) -> Box<dyn Operator> {
    let spec = OperatorSpec::Window(WindowPlan { phase, ..plan.clone() });
    spec.build(Setting { key_groups: groups, ..Setting::alone("window") }).unwrap()
}

impl<'a> Run<'a> {
    fn new(plan: &'a WindowPlan, two_phases: bool, splits: &'a [Vec<Judged>], subtasks: usize) -> Self {
        let mut run = Self {
            plan,
            two_phases,
            splits,
            next: vec![0; splits.len()],
            locals: Vec::new(),
            subtasks: Vec::new(),
            rows: Vec::new(),
            late: 0,
        };
        run.start(subtasks);
        run
    }

    fn start(&mut self, subtasks: usize) {
        let phase = if self.two_phases { Phase::Global } else { Phase::Whole };
        self.subtasks = (0..subtasks).map(|n| build(self.plan, phase, key_groups_of(n, subtasks))).collect();
        self.locals = match self.two_phases {
            true => self.splits.iter().map(|_| build(self.plan, Phase::Local, 0..256)).collect(),
            false => Vec::new(),
        };
    }

    fn take(&mut self, out: &mut Out) -> Vec<RecordBatch> {
        self.late += out.counts().late;
        let given = std::mem::replace(out, Out::new(ErrorPolicy::Fail, true)).take();
        given.into_iter().filter(|(port, _)| port.is_main()).map(|(_, batch)| batch).collect()
    }

    /// Some rows of a split, and the watermark; false at the end.
    fn step(&mut self, pick: &prop::sample::Index, size: usize) -> bool {
        let open: Vec<usize> = (0..self.splits.len()).filter(|n| self.next[*n] < self.splits[*n].len()).collect();
        let mut out = Out::new(ErrorPolicy::Fail, true);
        if !open.is_empty() {
            let split = open[pick.index(open.len())];
            let until = (self.next[split] + size).min(self.splits[split].len());
            let mut rows = vec![batch(&self.splits[split][self.next[split]..until])];
            self.next[split] = until;
            if let Some(local) = self.locals.get_mut(split) {
                local.process(0, &rows[0], &mut out).unwrap();
                rows = self.take(&mut out);
            }
            for rows in &rows {
                let parts = scatter(rows, &self.plan.keys, self.subtasks.len()).unwrap();
                for (subtask, part) in self.subtasks.iter_mut().zip(parts) {
                    part.into_iter().for_each(|part| subtask.process(0, &part, &mut out).unwrap());
                }
            }
        }
        let of_split = |n: usize| self.splits[n].get(self.next[n]).map_or(i64::MAX, |row| row.1);
        let watermark = (0..self.splits.len()).map(of_split).min().unwrap().saturating_mul(MILLI);
        for subtask in &mut self.subtasks {
            subtask.watermark(Timestamp::from_nanos(watermark), &mut out).unwrap();
        }
        let given = self.take(&mut out);
        self.rows.extend(given.iter().flat_map(texts));
        !open.is_empty()
    }

    fn finish(mut self, picks: &[prop::sample::Index], sizes: &[usize], loss: Option<Loss>) -> Expected {
        let (mut picks, mut sizes) = (picks.iter().cycle(), sizes.iter().cycle());
        let mut steps = |run: &mut Self, count: usize| {
            (0..count).take_while(|_| run.step(picks.next().unwrap(), *sizes.next().unwrap())).count()
        };
        if let Some(loss) = loss {
            steps(&mut self, loss.after);
            let blocks: Vec<StateBlock> = self.subtasks.iter_mut().flat_map(|s| s.snapshot().unwrap()).collect();
            let (next, rows, late) = (self.next.clone(), self.rows.clone(), self.late);
            steps(&mut self, loss.lost);
            // They are encoded behind what is lost, and must not have changed with it.
            let blocks = stored(blocks);
            (self.next, self.rows, self.late) = (next, rows, late);
            self.start(loss.subtasks);
            for (n, subtask) in self.subtasks.iter_mut().enumerate() {
                let groups = KeyGroups::from(key_groups_of(n, loss.subtasks));
                let own: Vec<StoredBlock> = blocks.iter().filter(|b| b.groups.meets(groups)).cloned().collect();
                subtask.restore(&own).unwrap();
            }
        }
        steps(&mut self, usize::MAX);
        (self.rows, self.late)
    }
}

fn arb_event() -> impl Strategy<Value = Event> {
    let keys = prop::sample::select(vec![None, Some("a"), Some("b"), Some("a longer key"), Some("")]);
    let texts = prop::sample::select(vec![None, Some("x"), Some("yy"), Some("")]);
    (0i64..80, keys, prop::option::weighted(0.9, -50i64..50), prop::option::weighted(0.9, -9i64..9), texts)
        .prop_map(|(time, k, n, f, s)| Event { time, k, n, f, s })
}

fn shapes() -> Vec<(WindowShape, i64)> {
    let hop = |size, slide| WindowShape::Hop { size: ms(size), slide: ms(slide), offset: ms(1) };
    let cumulate = |size, step| WindowShape::Cumulate { size: ms(size), step: ms(step), offset: ms(2) };
    let session = WindowShape::Session { gap: ms(4) };
    vec![
        (tumble(10), 0),
        (tumble(5), 6),
        (hop(9, 3), 0),
        (hop(24, 3), 0),
        (hop(24, 3), 5),
        (hop(10, 10), 0),
        (cumulate(12, 4), 0),
        (cumulate(30, 3), 0),
        (cumulate(30, 3), 4),
        (session, 0),
        (WindowShape::Session { gap: ms(1) }, 0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_shape_answers_what_its_rows_say(
        events in prop::collection::vec(prop::collection::vec(arb_event(), 0..40), 1..4),
        sizes in prop::collection::vec(1usize..12, 1..5),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        (after, lost) in (0usize..20, 0usize..6),
        before in prop::sample::select(vec![1usize, 2, 4]),
        subtasks in prop::sample::select(vec![1usize, 2, 4]),
    ) {
        let splits: Vec<Vec<Judged>> = events.iter().map(|split| judged(split)).collect();
        for (shape, lateness) in shapes() {
            let plan = plan(shape, lateness, &["k"]);
            let session = match shape { WindowShape::Session { gap } => Some(gap), _ => None };
            let wanted = match session {
                Some(gap) => recompute_sessions(i64::try_from(gap.0.as_millis()).unwrap(), &splits),
                None => recompute(&plan, &splits),
            };
            let loss = Loss { after, lost, subtasks };
            let calm = Run::new(&plan, false, &splits, 1).finish(&picks, &sizes, None);
            prop_assert_eq!(&calm, &wanted, "{:?}, in order", shape);
            // One subtask gives the same rows in the same order after a loss; several the same rows.
            let again = Run::new(&plan, false, &splits, 1).finish(&picks, &sizes, Some(Loss { subtasks: 1, ..loss }));
            prop_assert_eq!(&again, &wanted, "{:?}, in order, after {:?}", shape, loss);
            let mut sorted = wanted.clone();
            sorted.0.sort();
            for two_phases in [false, true] {
                let mut found = Run::new(&plan, two_phases, &splits, before).finish(&picks, &sizes, Some(loss));
                found.0.sort();
                prop_assert_eq!(&found, &sorted, "{:?}, {} phases, {:?} from {}", shape, 1 + u8::from(two_phases), loss, before);
            }
        }
    }
}

fn rows_of(time: i64, values: &[(&'static str, i64)]) -> RecordBatch {
    let event = |(k, n): &(&'static str, i64)| Event { time, k: Some(k), n: Some(*n), f: None, s: None };
    batch(&values.iter().map(event).map(|event| (event, i64::MIN)).collect::<Vec<_>>())
}

#[test]
fn a_sum_beyond_its_type_is_a_fault_of_its_row() {
    let plan = plan(tumble(10), 0, &["k"]);
    let rows = rows_of(5, &[("a", i64::MAX), ("a", 1), ("b", i64::MIN), ("b", -1), ("b", 1), ("c", 7)]);
    let fired = |errors: ErrorPolicy| {
        let mut operator = build(&plan, Phase::Whole, 0..256);
        let mut out = Out::new(errors, false);
        operator.process(0, &rows, &mut out).unwrap();
        let told = operator.watermark(Timestamp::MAX, &mut out);
        (told, out.counts().clone(), out.take())
    };
    let (told, ..) = fired(ErrorPolicy::Fail);
    let told = told.unwrap_err();
    assert!(
        matches!(&told, Error::Fault { kind: FaultKind::Overflow, detail, .. } if detail.contains("n_sum")),
        "{told}"
    );
    let sums = |given: &[(Port, RecordBatch)], port: Port| -> Vec<String> {
        let of_port = given.iter().filter(|(found, _)| *found == port);
        of_port.flat_map(|(_, batch)| texts(batch)).map(|row| row.split('|').nth(4).unwrap().to_owned()).collect()
    };
    let (told, counts, given) = fired(ErrorPolicy::Null);
    assert!(told.is_ok());
    // What passes the ends on the way is no fault: the sum is.
    assert_eq!(sums(&given, Port::Main), ["-".to_owned(), i64::MIN.to_string(), "7".to_owned()]);
    assert_eq!(counts.faults, 1);
    let (told, counts, given) = fired(ErrorPolicy::DeadLetter);
    assert!(told.is_ok());
    assert_eq!(sums(&given, Port::Main), [i64::MIN.to_string(), "7".to_owned()]);
    let dead: Vec<&RecordBatch> = given.iter().filter(|(port, _)| *port == Port::DeadLetter).map(|(_, b)| b).collect();
    assert_eq!((dead.len(), dead[0].num_rows(), counts.faults), (1, 1, 1));
    assert!(format!("{:?}", dead[0]).contains(r#"\"k\":\"a\""#), "{:?}", dead[0]);
}

#[test]
fn without_keys_the_first_subtask_has_everything() {
    for shape in [tumble(10), WindowShape::Session { gap: ms(5) }] {
        let plan = WindowPlan { aggregates: vec![AggregateSpec::count_all("n")], ..plan(shape, 0, &[]) };
        let mut first = build(&plan, Phase::Whole, key_groups_of(0, 4));
        let mut out = Out::new(ErrorPolicy::Fail, false);
        first.process(0, &rows_of(5, &[("a", 1), ("b", 1)]), &mut out).unwrap();
        let mut again = build(&plan, Phase::Whole, key_groups_of(0, 2));
        again.restore(&stored(first.snapshot().unwrap())).unwrap();
        assert_eq!(again.view(0, 10).unwrap().unwrap().num_rows(), 1, "live state");
        again.watermark(Timestamp::MAX, &mut out).unwrap();
        let given = out.take();
        let counts = given[0].1.column_by_name("n").unwrap();
        assert_eq!(counts.as_ref(), &Int64Array::from(vec![2]) as &dyn Array);
        assert_eq!(again.view(0, 10).unwrap().unwrap().num_rows(), 0);
    }
}

#[test]
fn a_block_that_did_not_change_is_the_same_one() {
    let plan = plan(tumble(10), 0, &["k"]);
    let mut operator = build(&plan, Phase::Whole, 0..256);
    let mut out = Out::new(ErrorPolicy::Fail, false);
    operator.process(0, &rows_of(5, &[("a", 1)]), &mut out).unwrap();
    operator.process(0, &rows_of(15, &[("a", 1)]), &mut out).unwrap();
    let of = |operator: &mut Box<dyn Operator>| -> Vec<(Option<Timestamp>, u64)> {
        let blocks = operator.snapshot().unwrap();
        blocks.into_iter().filter(|b| b.table != "clock").map(|b| (b.time, b.edition)).collect()
    };
    let first = of(&mut operator);
    operator.process(0, &rows_of(15, &[("b", 1)]), &mut out).unwrap();
    let second = of(&mut operator);
    assert_eq!((first.len(), first[0]), (2, second[0]));
    assert!(first[1].0 == second[1].0 && first[1].1 < second[1].1);
    assert!(operator.bytes() > 0);
    operator.watermark(Timestamp::MAX, &mut out).unwrap();
    assert_eq!((operator.bytes(), of(&mut operator).len()), (0, 0), "what has fired is gone");
}

#[test]
fn state_of_other_windows_is_refused() {
    let (mine, mut out) = (plan(tumble(10), 0, &["k"]), Out::new(ErrorPolicy::Fail, false));
    let blocks_at = |watermark: i64, out: &mut Out| {
        let mut operator = build(&mine, Phase::Whole, 0..256);
        operator.process(0, &rows_of(50, &[("a", 1)]), out).unwrap();
        operator.watermark(Timestamp::from_millis(watermark), out).unwrap();
        stored(operator.snapshot().unwrap())
    };
    let blocks = blocks_at(1, &mut out);
    let others = [
        plan(tumble(20), 0, &["k"]),
        plan(tumble(10), 1, &["k"]),
        plan(tumble(10), 0, &["s"]),
        WindowPlan { aggregates: mine.aggregates[1..].to_vec(), ..mine.clone() },
    ];
    for other in others {
        let found = build(&other, Phase::Whole, 0..256).restore(&blocks);
        assert!(matches!(found, Err(Error::Snapshot(_))), "{other:?}");
    }
    let mut mixed = blocks.clone();
    mixed.extend(blocks_at(2, &mut out));
    assert!(matches!(build(&mine, Phase::Whole, 0..256).restore(&mixed), Err(Error::Snapshot(_))));
    let cut: Vec<StoredBlock> =
        blocks.iter().map(|b| StoredBlock { bytes: b.bytes.slice_with_length(0, 40), ..b.clone() }).collect();
    assert!(build(&mine, Phase::Whole, 0..256).restore(&cut).is_err());
    assert!(build(&mine, Phase::Whole, 0..256).restore(&blocks).is_ok());
}

#[test]
fn state_has_a_budget() {
    for shape in [tumble(10), WindowShape::Session { gap: ms(5) }] {
        let spec = OperatorSpec::Window(plan(shape, 0, &["k"]));
        let mut operator = spec.build(Setting { state_bytes_max: 500, ..Setting::alone("window") }).unwrap();
        let mut out = Out::new(ErrorPolicy::Fail, false);
        operator.process(0, &rows_of(5, &[("a", 1)]), &mut out).unwrap();
        let many: Vec<(&'static str, i64)> = ["b", "c", "d", "e", "f"].map(|k| (k, 1)).to_vec();
        let told = operator.process(0, &rows_of(5, &many), &mut out).unwrap_err();
        assert!(matches!(told, Error::StateTooLarge { limit: 500, .. }), "{told}");
    }
}

#[test]
fn plans_and_types_are_checked() {
    let hop = |size, slide| WindowShape::Hop { size: ms(size), slide: ms(slide), offset: ms(0) };
    let cases = [
        (plan(hop(10, 3), 0, &["k"]), "whole steps"),
        (plan(hop(0, 3), 0, &["k"]), "out of range"),
        (plan(WindowShape::Session { gap: ms(0) }, 0, &["k"]), "out of range"),
        (plan(WindowShape::Session { gap: ms(4) }, 1, &["k"]), "no lateness"),
        (plan(tumble(10), 0, &["rows"]), "two output columns"),
        (WindowPlan { aggregates: Vec::new(), ..plan(tumble(10), 0, &[]) }, "computes nothing"),
    ];
    for (plan, wanted) in cases {
        let told = OperatorSpec::Window(plan).build(Setting::alone("window")).unwrap_err().to_string();
        assert!(told.contains(wanted), "{told:?} does not say {wanted:?}");
    }
    let mut out = Out::new(ErrorPolicy::Fail, false);
    let declared = |function, column: &str, kind| WindowPlan {
        aggregates: vec![AggregateSpec { kind: Some(kind), ..AggregateSpec::of(function, column, "x") }],
        ..plan(tumble(10), 0, &["k"])
    };
    // A whole number is a float where a float was declared; a text is no number.
    let mut floats = build(&declared(AggregateFunction::Sum, "n", ValueType::Float), Phase::Whole, 0..256);
    floats.process(0, &rows_of(5, &[("a", 1)]), &mut out).unwrap();
    floats.watermark(Timestamp::MAX, &mut out).unwrap();
    assert_eq!(*out.take()[0].1.column_by_name("x").unwrap().data_type(), arrow::datatypes::DataType::Float64);
    let mut texts = build(&declared(AggregateFunction::Sum, "s", ValueType::Integer), Phase::Whole, 0..256);
    let some = batch(&[(Event { time: 1, k: None, n: None, f: None, s: Some("x") }, i64::MIN)]);
    assert!(matches!(texts.process(0, &some, &mut out), Err(Error::ColumnType { .. })));
    let mut sum = plan(tumble(10), 0, &["k"]);
    sum.aggregates = vec![AggregateSpec::of(AggregateFunction::Sum, "s", "x")];
    assert!(matches!(build(&sum, Phase::Whole, 0..256).process(0, &some, &mut out), Err(Error::ColumnType { .. })));
}

/// Rows behind what an idle split let fire are late, told by nobody but the operator.
#[test]
fn what_comes_behind_a_window_is_late() {
    let row = |time: i64| batch(&[(Event { time, k: Some("a"), n: Some(1), f: None, s: None }, i64::MIN)]);
    for (shape, late) in [(tumble(10), 12), (WindowShape::Session { gap: ms(5) }, 19)] {
        let mut operator = build(&plan(shape, 0, &["k"]), Phase::Whole, 0..256);
        let mut out = Out::new(ErrorPolicy::Fail, true);
        operator.watermark(Timestamp::from_millis(20), &mut out).unwrap();
        operator.process(0, &row(late), &mut out).unwrap();
        operator.process(0, &row(20), &mut out).unwrap();
        let given = out.take();
        assert_eq!((given.len(), given[0].0, out.counts().late), (1, Port::Late, 1));
    }
}

#[test]
fn rows_that_can_still_come_hold_the_watermark_behind() {
    let at = |shape, lateness, told: i64| {
        build(&plan(shape, lateness, &["k"]), Phase::Whole, 0..256).hold(Timestamp::from_millis(told)).nanos()
    };
    assert_eq!(at(tumble(10), 0, 50), 50 * MILLI);
    assert_eq!(at(tumble(10), 7, 50), 43 * MILLI);
    assert_eq!(at(WindowShape::Session { gap: ms(5) }, 0, 50), 50 * MILLI - 1);
    let operator = build(&plan(tumble(10), 7, &["k"]), Phase::Whole, 0..256);
    assert_eq!(operator.hold(Timestamp::MAX), Timestamp::MAX);
}
