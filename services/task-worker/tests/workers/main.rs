//! Task workers through their doors: real NATS, real exchange, real objects; the services around them are fakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod outside;
mod receiver;
mod scaling;
mod scene;

use std::{collections::BTreeMap, time::Duration};

use flow::{
    AggregateFunction, AggregateSpec, EarlyFire, EarlyOp, Edge, JobGraph, OperatorSpec, Projection, SourceStart, Uid,
    Vertex, WindowSpec,
};
use types::{DurationText, Timestamp};
use wire::Code;

use crate::scene::{Scene, segment};

const BASE: i64 = 1_700_000_000;
const WINDOW: i64 = 10;
const DELAY: i64 = 2;

/// Count and sum by window start and key.
type Totals = BTreeMap<(String, String), (u64, f64)>;

/// One event of a split: milliseconds after the base, key, size.
#[derive(Debug, Clone, Copy)]
struct Event {
    split: u32,
    millis: i64,
    key: u64,
    bytes: u32,
}

/// Events of two splits whose times run on, out of order by up to 30 s, so that some are late.
///
/// Split 1 is 40 s behind: what is late in split 0 falls into windows that are still open, so that only the split's own
/// watermark can drop it.
fn events(count: u64) -> Vec<Event> {
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..count)
        .map(|i| {
            let split = u32::try_from(random(2)).unwrap();
            let behind = if random(8) == 0 { random(30_000) } else { random(1_500) };
            let behind = i64::try_from(behind).unwrap() + 40_000 * i64::from(split);
            let millis = i64::try_from(i * 250).unwrap() - behind;
            Event { split, millis, key: random(9), bytes: u32::try_from(random(100)).unwrap() }
        })
        .collect()
}

fn publish(scene: &Scene, events: &[Event]) {
    for event in events {
        let time = BASE * 1_000 + event.millis;
        let json = serde_json::json!({"_time": rfc3339(time), "k": format!("key-{}", event.key), "bytes": event.bytes});
        scene.publish(segment(1, event.split), Timestamp::from_millis(time), json.to_string());
    }
}

/// Milliseconds as the platform writes them; the base lies on a day whose date is known.
fn rfc3339(millis: i64) -> String {
    // 1 700 000 000 is 2023-11-14T22:13:20Z, and the tests stay within that hour and the next.
    let of_day = millis - 1_699_920_000_000;
    let (seconds, rest) = (of_day / 1_000, of_day % 1_000);
    let text = format!("2023-11-14T{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if rest == 0 { format!("{text}Z") } else { format!("{text}.{rest:03}Z") }
}

/// What the job must give, reckoned row by row.
fn oracle(events: &[Event]) -> Totals {
    reckon(events).0
}

/// The same, and how many rows were late.
fn reckon(events: &[Event]) -> (Totals, usize) {
    let mut out = Totals::new();
    let mut late_rows = 0;
    let mut watermarks = [i64::MIN; 2];
    for event in events {
        let millis = BASE * 1_000 + event.millis;
        let start = millis.div_euclid(WINDOW * 1_000) * WINDOW * 1_000;
        let watermark = &mut watermarks[usize::try_from(event.split).unwrap()];
        let late = start + WINDOW * 1_000 <= *watermark;
        *watermark = (*watermark).max(millis - DELAY * 1_000);
        late_rows += usize::from(late);
        if !late && event.bytes >= 10 {
            let (count, sum) = out.entry((rfc3339(start), format!("key-{}", event.key))).or_insert((0, 0.0));
            *count += 1;
            *sum += f64::from(event.bytes);
        }
    }
    // Only windows that both splits have passed have closed.
    let closed = watermarks[0].min(watermarks[1]).div_euclid(WINDOW * 1_000) * WINDOW * 1_000;
    out.retain(|(start, _), _| *start < rfc3339(closed));
    (out, late_rows)
}

fn source(window: bool) -> OperatorSpec {
    let seconds = |n: i64| DurationText(Duration::from_secs(n.unsigned_abs()));
    OperatorSpec::Source {
        index: "shop".parse().unwrap(),
        start: SourceStart::Oldest,
        delay: seconds(DELAY),
        max_future_skew: seconds(300),
        // Never within most tests: which split falls silent would be chance.
        idle_after: seconds(600),
        window: window.then(|| seconds(WINDOW)),
    }
}

fn project(columns: &[(&str, &str)]) -> OperatorSpec {
    let columns = columns.iter().map(|(sql, name)| Projection { sql: (*sql).into(), name: (*name).into() });
    OperatorSpec::Project { columns: columns.collect() }
}

fn filter() -> OperatorSpec {
    OperatorSpec::Filter { sql: "bytes >= 10".into() }
}

fn vertex(name: &str, operators: Vec<OperatorSpec>, parallelism: u32) -> Vertex {
    Vertex { uid: Uid::default(), name: name.into(), operators, parallelism }
}

fn windowed(early: Option<EarlyFire>, behind: Vec<OperatorSpec>) -> JobGraph {
    let window = OperatorSpec::WindowAggregate(WindowSpec {
        keys: vec!["k".into()],
        aggregates: vec![AggregateSpec::count_all("n"), AggregateSpec::of(AggregateFunction::Sum, "size", "total")],
        size: DurationText(Duration::from_secs(WINDOW.unsigned_abs())),
        early,
    });
    let columns = project(&[("CAST(k AS TEXT)", "k"), ("TRY_CAST(bytes AS DOUBLE)", "size")]);
    let fed = std::iter::once(window).chain(behind).collect();
    JobGraph {
        vertices: vec![vertex("source", vec![source(true), filter(), columns], 2), vertex("window", fed, 2)],
        edges: vec![Edge::hash(0, 1, vec!["k".into()])],
        ..JobGraph::default()
    }
}

fn sums() -> JobGraph {
    let columns = project(&[("window_start", "window_start"), ("k", "k"), ("n", "n"), ("total", "total")]);
    windowed(None, vec![columns, OperatorSpec::SinkIndex { index: "sums".parse().unwrap() }])
}

/// Results as the oracle has them; a window that was written twice fails the test.
fn found(scene: &Scene) -> Totals {
    let mut found = BTreeMap::new();
    for row in scene.results() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        assert_eq!(row["_time"], row["window_start"]);
        let figures = (row["n"].as_u64().unwrap(), row["total"].as_f64().unwrap());
        let twice = found.insert((text("window_start"), text("k")), figures);
        assert!(twice.is_none(), "{row} was written twice");
    }
    found
}

#[actix_rt::test]
async fn results_are_exact_after_the_loss_of_a_worker() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    scene.worker("b").await.unwrap();
    let mut all = events(1_200);
    // Late by what its split had seen before the checkpoint, and by nothing else.
    all[400] = Event { split: 0, millis: 400 * 250 - 25_000, key: 1, bytes: 50 };
    assert!(reckon(&all).1 - reckon(&all[..400]).1 > 20, "some rows are late behind the checkpoint");
    let graph = sums();

    // Both workers feed each other. A checkpoint in the middle of open windows.
    publish(&scene, &all[..400]);
    let first = Scene::place(&graph, 1, &["a", "b"]);
    assert_eq!(first.tasks.iter().filter(|t| t.worker.as_str() == "b").count(), 2);
    scene.deploy(&first, None).await.unwrap();
    scene.until_results(oracle(&all[..400]).len()).await;
    scene.checkpoint(&first, 1).await.unwrap();

    // What follows is written in part, then lost from memory with worker b; the windows of the late row are still open.
    publish(&scene, &all[400..470]);
    scene.until_results(oracle(&all[..470]).len()).await;
    scene.kill("b");
    scene
        .until("a tells that its peer is gone", |told| {
            told.tasks.iter().any(|r| matches!(&r.status, wire::job_manager::TaskStatus::Failed(_)))
        })
        .await;
    assert!(scene.failures().iter().all(|(attempt, _)| *attempt == 1), "{:?}", scene.failures());

    // A new worker takes the place of the lost one, from the checkpoint.
    scene.worker("c").await.unwrap();
    let second = Scene::place(&graph, 2, &["a", "c"]);
    scene.deploy(&second, Some(1)).await.unwrap();
    publish(&scene, &all[470..]);
    let wanted = oracle(&all);
    scene.until_results(wanted.len()).await;
    // The next checkpoint says that nothing is on its way any more.
    scene.checkpoint(&second, 2).await.unwrap();
    assert_eq!(found(&scene), wanted);
    let told = scene.told.lock();
    assert!(told.gaps.is_empty(), "{:?}", told.gaps);
    assert!(told.repeated > 0, "the second attempt repeats what the first wrote behind the checkpoint");
}

#[actix_rt::test]
async fn rows_without_a_window_are_written_once_and_in_the_order_of_their_split() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let all = events(600);
    let columns =
        project(&[("CAST(k AS TEXT)", "k"), ("bytes", "bytes"), ("_segment", "split"), ("_offset", "number")]);
    let sink = OperatorSpec::SinkIndex { index: "sums".parse().unwrap() };
    let graph = JobGraph {
        vertices: vec![vertex("rows", vec![source(false), filter(), columns, sink], 1)],
        ..JobGraph::default()
    };
    let passing = |events: &[Event]| events.iter().filter(|e| e.bytes >= 10).count();

    publish(&scene, &all[..200]);
    let first = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    scene.until_results(passing(&all[..200])).await;
    scene.checkpoint(&first, 1).await.unwrap();
    publish(&scene, &all[200..400]);
    scene.until_results(passing(&all[..400])).await;

    // The newer attempt ends the older one by itself.
    let second = Scene::place(&graph, 2, &["a"]);
    scene.deploy(&second, Some(1)).await.unwrap();
    publish(&scene, &all[400..]);
    scene.until_results(passing(&all)).await;
    scene.checkpoint(&second, 2).await.unwrap();

    let results = scene.results();
    assert_eq!(results.len(), passing(&all));
    for split in [0, 1] {
        let name = segment(1, split).to_string();
        let numbers: Vec<u64> =
            results.iter().filter(|r| r["split"] == name.as_str()).map(|r| r["number"].as_u64().unwrap()).collect();
        let wanted = all.iter().filter(|e| e.split == split).zip(0u64..).filter(|(e, _)| e.bytes >= 10).map(|(_, n)| n);
        assert_eq!(numbers, wanted.collect::<Vec<_>>(), "split {split}");
    }
    assert_eq!(scene.failures(), Vec::new());
    let told = scene.told.lock();
    assert!(told.repeated > 0 && told.gaps.is_empty(), "{} repeated, gaps {:?}", told.repeated, told.gaps);
}

#[actix_rt::test]
async fn a_rule_hears_early_rows_closed_windows_and_the_watermark() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let early = Some(EarlyFire { aggregate: 0, op: EarlyOp::AtLeast, threshold: 3.0 });
    let graph = windowed(early, vec![OperatorSpec::SinkAlerts { rule: "busy".parse().unwrap() }]);
    let event = |split, seconds: i64, key, bytes| Event { split, millis: seconds * 1_000, key, bytes };
    scene.deploy(&Scene::place(&graph, 1, &["a"]), None).await.unwrap();
    let of = |told: &scene::Told, early: bool| {
        let rows = told.observations.iter().flat_map(|o| &o.rows).filter(|row| row.early == early);
        rows.map(|r| (r.window_start.millis() / 1_000 - BASE, r.labels["k"].clone(), r.values["n"])).collect::<Vec<_>>()
    };

    publish(&scene, &[1, 2, 3, 4].map(|s| event(0, s, 1, 50)));
    scene.until("the third row is told at once", |told| of(told, true) == [(0, "key-1".to_owned(), 3.0)]).await;
    assert!(of(&scene.told.lock(), false).is_empty());

    publish(&scene, &[event(0, 13, 9, 1), event(1, 12, 9, 1)]);
    scene
        .until("the window closes with all of its rows", |told| of(told, false) == [(0, "key-1".to_owned(), 4.0)])
        .await;
    publish(&scene, &[event(0, 43, 9, 1), event(1, 42, 9, 1)]);
    let told_to = |told: &scene::Told, subtask| {
        let mine = told.observations.iter().filter(|o| o.subtask == subtask);
        mine.map(|o| o.watermark).max().is_some_and(|w| w >= Timestamp::from_millis((BASE + 40) * 1_000))
    };
    scene.until("both subtasks tell that empty windows closed", |told| told_to(told, 0) && told_to(told, 1)).await;
    let told = scene.told.lock();
    for subtask in [0, 1] {
        let marks: Vec<Timestamp> =
            told.observations.iter().filter(|o| o.subtask == subtask).map(|o| o.watermark).collect();
        assert!(marks.is_sorted(), "{marks:?}");
    }
}

#[actix_rt::test]
async fn splits_without_rows_and_sources_without_splits_hold_nothing_back() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let mut graph = sums();
    // Four sources for two segments, of which one stays empty.
    graph.vertices.iter_mut().for_each(|v| v.parallelism = 4);
    if let Some(OperatorSpec::Source { idle_after, .. }) = graph.vertices[0].operators.first_mut() {
        *idle_after = DurationText(Duration::from_millis(300));
    }
    publish(&scene, &[1, 2, 13].map(|s| Event { split: 0, millis: s * 1_000, key: 1, bytes: 50 }));
    let execution = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&execution, None).await.unwrap();
    scene.until_results(1).await;
    assert_eq!(found(&scene), Totals::from([((rfc3339(BASE * 1_000), "key-1".into()), (2, 100.0))]));
    scene.checkpoint(&execution, 1).await.unwrap();
    assert_eq!(scene.failures(), Vec::new());
}

#[actix_rt::test]
async fn orders_that_do_not_fit_are_refused() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let a = "a".parse().unwrap();
    let graph = sums();
    let execution = |attempt| Scene::place(&graph, attempt, &["a"]);
    let order = scene.deployment(&execution(2), &a, None).await.unwrap();
    let kind = |answer: Result<wire::Empty, wire::Problem>| {
        answer.map_or_else(|problem| (problem.code, problem.kind), |_| panic!("taken"))
    };

    let other = types::Timestamp::from_millis(1);
    let stale = wire::task_worker::Deployment { worker_started: other, ..order.clone() };
    assert_eq!(kind(scene.order_deploy(&a, &stale).await), (Code::Conflict, "WorkerRestarted".to_owned()));
    let broken = wire::task_worker::Deployment { graph: "nonsense".into(), ..order.clone() };
    assert_eq!(kind(scene.order_deploy(&a, &broken).await), (Code::BadRequest, "BadPlan".to_owned()));
    let mut wide = graph.clone();
    wide.vertices.iter_mut().for_each(|v| v.parallelism = 5);
    let offers = [flow::FreeSlots { worker: a.clone(), free: 9 }];
    let wide = flow::ExecutionGraph::place(wide, 2, &offers).unwrap();
    let wide = scene.deployment(&wide, &a, None).await.unwrap();
    assert_eq!(kind(scene.order_deploy(&a, &wide).await), (Code::Conflict, "NoSlots".to_owned()));
    assert_eq!(kind(scene.order_barrier(&a, 2, 1).await), (Code::Conflict, "AttemptOver".to_owned()));

    scene.order_deploy(&a, &order).await.unwrap();
    scene.order_deploy(&a, &order).await.unwrap();
    scene.order_barrier(&a, 2, 1).await.unwrap();
    let older = scene.deployment(&execution(1), &a, None).await.unwrap();
    assert_eq!(kind(scene.order_deploy(&a, &older).await), (Code::Conflict, "AttemptOver".to_owned()));
    scene.cancel(&a, 1).await.unwrap();
    scene.order_barrier(&a, 2, 2).await.expect("a newer attempt outlives the end of an older one");
    scene.cancel(&a, 2).await.unwrap();
    scene.cancel(&a, 2).await.expect("ending what has ended succeeds");
    assert_eq!(kind(scene.order_deploy(&a, &order).await), (Code::Conflict, "AttemptOver".to_owned()));
    let again =
        wire::task_worker::Deployment { submission: 2, ..scene.deployment(&execution(1), &a, None).await.unwrap() };
    // Wider than half of the slots: it fits only if the ended attempt gave its own back.
    scene.order_deploy(&a, &again).await.expect("what is submitted again is another job");
    assert_eq!(scene.failures(), Vec::new());
}
