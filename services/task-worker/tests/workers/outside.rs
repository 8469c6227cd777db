//! Sources and sinks besides an index, in the loop of a worker: files, made-up rows, streams of JetStream, requests.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use bus::{Bus, BusOptions};
use flow::{
    ColumnSpec, Connector, Corrupt, EpochUnit, EventTime, ExecutionGraph, FileFormat, Hidden, JobGraph, NexmarkTable,
    OperatorSpec, SinkSpec, SourceSpec, SourceStart, ValueType,
};
use serde_json::Value;
use testkit::eventually;
use types::{DurationText, Timestamp};

use crate::{
    BASE, receiver, rfc3339,
    scene::{Scene, segment},
    vertex,
};

const WITHIN: Duration = Duration::from_secs(30);
/// Checkpoints that are taken before something has to have happened.
const CHECKPOINTS_MAX: u64 = 500;

fn read(from: Connector) -> OperatorSpec {
    let column = |name: &str, kind| ColumnSpec { name: name.to_owned(), kind };
    let schema = match from {
        Connector::Index { .. } | Connector::Nexmark { .. } => Vec::new(),
        _ => vec![column("k", ValueType::Integer), column("b", ValueType::Boolean), column("t", ValueType::Text)],
    };
    OperatorSpec::Read(SourceSpec {
        from,
        time: EventTime {
            column: None,
            unit: EpochUnit::Millis,
            delay: DurationText(Duration::ZERO),
            max_future_skew: None,
            idle_after: None,
            max_drift: None,
        },
        schema,
        columns: None,
        hidden: Hidden { watermark: true, place: true },
        corrupt: Corrupt::Fail,
    })
}

/// Rows at a pace, so that there is time to break something.
fn made(rows: u64) -> Connector {
    Connector::Datagen { seed: 7, rows: Some(rows), per_second: Some(1_500), splits: 3 }
}

fn graph(source: Connector, sink: SinkSpec, parallelism: u32) -> JobGraph {
    let operators = vec![read(source), OperatorSpec::Write(sink)];
    JobGraph { vertices: vec![vertex("rows", operators, parallelism)], ..JobGraph::default() }
}

fn files(format: FileFormat) -> SinkSpec {
    SinkSpec::Files { url: "out".to_owned(), format, roll_bytes: Some(20_000), roll_after: None }
}

/// The rows in files that have their names.
fn rows(dir: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    let Ok(entries) = fs::read_dir(dir.join("out")) else { return rows };
    for entry in entries {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            // It may go while a new attempt begins.
            let text = fs::read_to_string(path).unwrap_or_default();
            rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    rows
}

/// How many rows there are, and how many different times; made-up rows have different ones.
fn counts(rows: &[Value]) -> (usize, usize) {
    (rows.len(), rows.iter().map(|row| row["_time"].as_str().unwrap()).collect::<BTreeSet<_>>().len())
}

/// Takes and commits checkpoints until something holds; the number of the last one.
async fn checkpoints(scene: &Scene, execution: &ExecutionGraph, from: u64, holds: impl Fn() -> bool) -> u64 {
    for checkpoint in from..from + CHECKPOINTS_MAX {
        scene.checkpoint(execution, checkpoint).await.unwrap();
        scene.commit(execution, checkpoint).await.unwrap();
        if holds() {
            return checkpoint;
        }
    }
    panic!("{CHECKPOINTS_MAX} checkpoints were not enough; failures: {:?}", scene.failures());
}

#[actix_rt::test]
async fn files_hold_each_row_once_after_the_loss_of_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let set = format!("task_worker.files_dir={}", dir.path().display());
    let mut scene = Scene::start().await.unwrap();
    scene.worker_with("a", &[&set]).await.unwrap();
    let graph = graph(made(3_000), files(FileFormat::Ndjson), 2);
    let first = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    let last = checkpoints(&scene, &first, 1, || rows(dir.path()).len() > 300).await;
    scene.kill("a");
    assert!(rows(dir.path()).len() < 3_000, "it was killed in the middle");

    scene.worker_with("b", &[&set]).await.unwrap();
    let second = Scene::place(&graph, 2, &["b"]);
    scene.deploy(&second, Some(last)).await.unwrap();
    scene.until_finished(&second).await;
    assert_eq!(counts(&rows(dir.path())), (3_000, 3_000));
    let unnamed = fs::read_dir(dir.path().join("out")).unwrap();
    let unnamed = unnamed.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(unnamed, 0);

    // What was written is read again, in another format.
    let from = Connector::Files { url: "out".to_owned(), format: FileFormat::Ndjson, bounded: true };
    let to =
        SinkSpec::Files { url: "columns".to_owned(), format: FileFormat::Parquet, roll_bytes: None, roll_after: None };
    let third = Scene::place(&crate::outside::graph(from, to, 2), 3, &["b"]);
    scene.deploy(&third, None).await.unwrap();
    scene.until_finished(&third).await;
    let from = Connector::Files { url: "columns".to_owned(), format: FileFormat::Parquet, bounded: true };
    let to = SinkSpec::Files { url: "back".to_owned(), format: FileFormat::Ndjson, roll_bytes: None, roll_after: None };
    let fourth = Scene::place(&crate::outside::graph(from, to, 1), 4, &["b"]);
    scene.deploy(&fourth, None).await.unwrap();
    scene.until_finished(&fourth).await;
    fs::remove_dir_all(dir.path().join("out")).unwrap();
    fs::rename(dir.path().join("back"), dir.path().join("out")).unwrap();
    assert_eq!(counts(&rows(dir.path())), (3_000, 3_000));
}

#[actix_rt::test]
async fn an_index_is_read_with_its_columns_from_where_the_checkpoint_is() {
    let dir = tempfile::tempdir().unwrap();
    let set = format!("task_worker.files_dir={}", dir.path().display());
    let mut scene = Scene::start().await.unwrap();
    scene.worker_with("a", &[&set]).await.unwrap();
    let publish = |scene: &Scene, numbers: std::ops::Range<i64>| {
        for number in numbers {
            let time = BASE * 1_000 + number;
            let json = serde_json::json!({"_time": rfc3339(time), "id": number, "other": "x"}).to_string();
            scene.publish(segment(1, u32::try_from(number % 2).unwrap()), Timestamp::from_millis(time), json);
        }
    };
    let index = Connector::Index { index: "shop".parse().unwrap(), start: SourceStart::Oldest };
    let mut graph = graph(index, files(FileFormat::Ndjson), 2);
    if let Some(OperatorSpec::Read(spec)) = graph.vertices[0].operators.first_mut() {
        spec.columns = Some(vec!["id".to_owned()]);
    }
    publish(&scene, 0..200);
    let first = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    let last = checkpoints(&scene, &first, 1, || rows(dir.path()).len() == 200).await;
    publish(&scene, 200..300);
    scene.kill("a");
    scene.worker_with("b", &[&set]).await.unwrap();
    let second = Scene::place(&graph, 2, &["b"]);
    scene.deploy(&second, Some(last)).await.unwrap();
    publish(&scene, 300..400);
    checkpoints(&scene, &second, last + 1, || rows(dir.path()).len() >= 400).await;
    let found: Vec<Value> = rows(dir.path());
    let ids: BTreeSet<i64> = found.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!((found.len(), ids), (400, (0..400).collect()));
    assert!(found.iter().all(|row| row.get("other").is_none() && row.get("_wm").is_none()));
}

#[actix_rt::test]
async fn a_stream_holds_each_row_once_and_is_read_from_where_the_checkpoint_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::start().await.unwrap();
    let creds = scene.world.nats.secret_path("tenants.creds");
    let set = [
        format!("task_worker.files_dir={}", dir.path().display()),
        format!("task_worker.jetstream_creds=file:{}", creds.display()),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let creds = Some(scene.world.nats.tenants_creds().unwrap());
    let bus = Bus::connect(BusOptions { url: scene.world.nats.url(), creds, ..BusOptions::default() }).await.unwrap();
    bus.ensure_alerts(1).await.unwrap();
    scene.worker_with("a", &set).await.unwrap();
    let out = graph(made(2_000), SinkSpec::JetStream { subject: "alerts.rows.{b}".to_owned() }, 2);
    let first = Scene::place(&out, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    let stored = async || bus.read_stream("ALERTS", "alerts.rows.*", 0).unwrap().next().await.is_ok();
    scene.checkpoint(&first, 1).await.unwrap();
    eventually(WITHIN, stored).await;
    let second = Scene::place(&out, 2, &["a"]);
    scene.deploy(&second, Some(1)).await.unwrap();
    scene.until_finished(&second).await;

    let stream =
        Connector::JetStream { stream: "ALERTS".to_owned(), subject: String::new(), format: FileFormat::Ndjson };
    let back = graph(stream, files(FileFormat::Ndjson), 1);
    let third = Scene::place(&back, 3, &["a"]);
    scene.deploy(&third, None).await.unwrap();
    let last = checkpoints(&scene, &third, 2, || rows(dir.path()).len() >= 2_000).await;
    assert_eq!(counts(&rows(dir.path())), (2_000, 2_000));
    let fourth = Scene::place(&back, 4, &["a"]);
    let more = r#"{"_time": "2030-01-01T00:00:00Z", "k": 1, "b": true, "t": "more"}"#;
    bus.publish_record("alerts.rows.more", "more", more.into()).await.unwrap();
    scene.deploy(&fourth, Some(last)).await.unwrap();
    checkpoints(&scene, &fourth, last + 1, || rows(dir.path()).len() > 2_000).await;
    assert_eq!(counts(&rows(dir.path())), (2_001, 2_001));
    assert_eq!(scene.failures(), Vec::new());
}

#[actix_rt::test]
async fn a_receiver_with_bad_days_gets_each_row_under_its_number() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let secrets = tempfile::tempdir().unwrap();
    fs::write(secrets.path().join("token"), "Bearer abc\n").unwrap();
    let (address, received) = receiver::receive().await;
    let set = [
        format!("task_worker.http_prefixes={address}/rows"),
        format!("task_worker.http_headers_dir={}", secrets.path().display()),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let mut scene = Scene::start().await.unwrap();
    scene.worker_with("a", &set).await.unwrap();
    let headers = [("Authorization".to_owned(), "file:token".to_owned())].into();
    let graph = graph(made(3_000), SinkSpec::Http { url: format!("{address}/rows/all"), headers }, 2);
    let first = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    let last = checkpoints(&scene, &first, 1, || received.lock().rows.len() > 300).await;
    // What is sent behind the checkpoint is sent again.
    let known = received.lock().rows.len();
    eventually(WITHIN, async || received.lock().rows.len() > known + 100).await;
    scene.kill("a");
    scene.worker_with("b", &set).await.unwrap();
    let second = Scene::place(&graph, 2, &["b"]);
    scene.deploy(&second, Some(last)).await.unwrap();
    scene.until_finished(&second).await;
    let received = received.lock();
    let times: BTreeSet<String> = received
        .rows
        .values()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["_time"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((received.rows.len(), times.len()), (3_000, 3_000));
    assert!(received.repeated > 0 && received.authorized > 0 && received.requests > 7);
}

#[actix_rt::test]
async fn nexmark_runs_and_what_the_settings_do_not_allow_is_refused_with_their_names() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let nexmark = |table| Connector::Nexmark { table, seed: 1, events: Some(5_000), rate: 10_000, splits: 3 };
    for (attempt, (table, sink)) in
        (1u32..).zip([(NexmarkTable::Bid, SinkSpec::Blackhole), (NexmarkTable::Person, SinkSpec::Stdout)])
    {
        let execution = Scene::place(&graph(nexmark(table), sink, 2), attempt, &["a"]);
        scene.deploy(&execution, None).await.unwrap();
        scene.until_finished(&execution).await;
    }
    let format = FileFormat::Ndjson;
    let stream = Connector::JetStream { stream: "ALERTS".to_owned(), subject: String::new(), format };
    let from = Connector::Files { url: "/etc".to_owned(), format: FileFormat::Ndjson, bounded: true };
    let http = SinkSpec::Http { url: "http://169.254.169.254/".to_owned(), headers: <_>::default() };
    let out = SinkSpec::JetStream { subject: "alerts.x".to_owned() };
    for (attempt, (from, to, setting)) in (3u32..).zip([
        (from, SinkSpec::Blackhole, "task_worker.files_dir"),
        (made(1), files(FileFormat::Parquet), "task_worker.files_dir"),
        (stream, SinkSpec::Blackhole, "task_worker.jetstream_creds"),
        (made(1), out, "task_worker.jetstream_creds"),
        (made(1), http, "task_worker.http_prefixes"),
    ]) {
        let execution = Scene::place(&graph(from, to, 1), attempt, &["a"]);
        scene.deploy(&execution, None).await.unwrap();
        scene
            .until(&format!("{setting} is named"), |told| {
                told.tasks.iter().any(|r| match &r.status {
                    wire::job_manager::TaskStatus::Failed(reason) => r.attempt == attempt && reason.contains(setting),
                    _ => false,
                })
            })
            .await;
    }
}
