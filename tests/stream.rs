//! Continuous jobs on real processes against an independent recomputation: every kind, at parallelism 1, 2 and 4, calm, with a task
//! worker killed, with the job manager killed, and after rescaling.
//!
//! The input is half out of order, some of it late and some of it from the future. What must come out is reckoned row by row by
//! `logboom_tests::recompute` from the rows as the index keeps them: no row may be missing, come twice or differ.
//! What this release refuses is listed as *not covered*, by name; the list is asserted, so whoever builds something has to cover it here.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, tells what it did, and starts processes"
)]

#[path = "stream/kinds.rs"]
mod kinds;
#[path = "stream/scene.rs"]
mod scene;

use std::collections::BTreeSet;

use logboom_tests::{
    Workdir,
    event_files::Mix,
    eventually,
    recompute::{Input, Judge, Row},
};
use types::hash64;

use crate::{
    kinds::{DELAY_MS, KINDS, Kind, NOT_COVERED},
    scene::{CAUGHT_UP_WITHIN, INDEX, Scene},
};

const PARALLELISM: [u16; 3] = [1, 2, 4];
/// Half of a wave: four seconds of event time.
const HALF: usize = 200;
const WORKER: &str = "task-worker/a";
const LEADER: &str = "job-manager/a";

/// Nothing that is built is left out here, and nothing that is not is believed to be covered.
async fn the_list_is_right(scene: &Scene) {
    let mut refused = BTreeSet::new();
    for kind in KINDS {
        let answer = scene.submit(&format!("probe-{}", kind.word()), &kind.text(INDEX, "probe"), 1).await;
        if let Err(error) = answer {
            println!("stream: {} is refused: {error:#}", kind.name);
            refused.insert(kind.name);
        } else {
            scene.cancel(&format!("probe-{}", kind.word())).await;
        }
    }
    let files =
        "INSERT INTO probe SELECT mark FROM files('file:///nowhere', format => 'ndjson', schema => 'mark text')";
    if let Err(error) = scene.submit("probe-files", files, 1).await {
        println!("stream: files source is refused: {error:#}");
        refused.insert("files source");
    } else {
        scene.cancel("probe-files").await;
    }
    // A job that nobody looks at any more.
    scene.submit("probe-rescale", &KINDS[0].text(INDEX, "probe"), 1).await.unwrap();
    if !scene.rescale("probe-rescale", 2).await {
        refused.insert("rescale");
    }
    scene.cancel("probe-rescale").await;
    let names: Vec<&str> = refused.iter().copied().collect();
    // Shown even where all is well.
    if !names.is_empty() {
        println!("SKIPPED: jobs that this release refuses and no test covers: {}", names.join(", "));
    }
    assert_eq!(refused, BTreeSet::from(NOT_COVERED), "what is refused (left) is what NOT_COVERED says");
}

/// Every job's rows are what a recomputation gives, sooner or later.
async fn settled(scene: &Scene, kinds: &[&Kind], when: &str) {
    let input = scene.waves.input(DELAY_MS).await.unwrap();
    for kind in kinds {
        let expected = (kind.recompute)(&input);
        for parallelism in PARALLELISM {
            let job = kind.job(parallelism);
            let found = eventually(&format!("{job} {when}"), CAUGHT_UP_WITHIN, async || {
                let found = kind.found(scene.api(), &job).await?;
                expected.complaint(&found).map_or(Ok(()), |complaint| Err(anyhow::anyhow!(complaint)))
            })
            .await;
            if let Err(error) = found {
                panic!("{error:#}\nof {} rows; the job: {}", expected.count(), scene.describe(&job).await);
            }
        }
        let key = expected.rows.keys().flatten().find(|cell| cell.starts_with('k')).expect("a row with its key");
        let lie = (kind.recompute)(&input.only(|row| row.key != *key));
        let found = kind.found(scene.api(), &kind.job(1)).await.unwrap();
        assert!(lie.complaint(&found).is_some(), "{}: a recomputation without a key is not noticed", kind.name);
        println!("stream: {}: {} rows and {} late ones {when}", kind.name, expected.count(), expected.late);
        assert!(expected.count() > 0 && expected.late > 0, "there is something to compare, and something late");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_equals_its_recomputation_whatever_happens() {
    let mut scene = Scene::start(&[]).await;
    the_list_is_right(&scene).await;
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| kind.is_built()).collect();
    for kind in &kinds {
        for parallelism in PARALLELISM {
            let job = kind.job(parallelism);
            scene.api().provision(&job, 1).await.unwrap();
            scene.submit(&job, &kind.text(INDEX, &job), parallelism).await.unwrap();
        }
    }
    scene.waves.publish(3 * HALF).await.unwrap();
    scene.waves.end().await.unwrap();
    settled(&scene, &kinds, "while all is calm").await;
    let input = scene.waves.input(DELAY_MS).await.unwrap();
    let late: u64 = kinds.iter().map(|kind| (kind.recompute)(&input).late * PARALLELISM.len() as u64).sum();
    assert_eq!(scene.late().await, late, "every late row is counted, once a job");
    assert!(input.skewed > 0, "a row from the future was there, and moved nothing");

    // In the middle of open windows, with rows on their way.
    scene.checkpointed().await;
    scene.waves.publish(HALF).await.unwrap();
    scene.cluster.kill9(WORKER).unwrap();
    scene.waves.publish(HALF).await.unwrap();
    scene.waves.end().await.unwrap();
    scene.cluster.restart(WORKER).await.unwrap();
    settled(&scene, &kinds, "after the kill of a worker").await;

    let attempts = scene.numbers("attempt").await;
    scene.waves.publish(HALF).await.unwrap();
    scene.cluster.kill9(LEADER).unwrap();
    scene.waves.publish(HALF).await.unwrap();
    scene.waves.end().await.unwrap();
    scene.cluster.restart(LEADER).await.unwrap();
    settled(&scene, &kinds, "after the kill of the job manager").await;
    assert_eq!(scene.numbers("attempt").await, attempts, "a new leader leaves running tasks alone");

    if !NOT_COVERED.contains(&"rescale") {
        for parallelism in [4, 1] {
            scene.waves.publish(HALF).await.unwrap();
            for kind in &kinds {
                assert!(scene.rescale(&kind.job(2), parallelism).await);
            }
            scene.waves.publish(HALF).await.unwrap();
            scene.waves.end().await.unwrap();
            settled(&scene, &kinds, &format!("after rescaling from 2 to {parallelism}")).await;
        }
    }
    scene.cluster.check().unwrap();
}

/// Rows of the files: enough for several windows over two files.
const FILE_ROWS: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_interleave_equal_their_recomputation() {
    if NOT_COVERED.contains(&"files source") {
        return;
    }
    let dir = Workdir::new("events").unwrap();
    let scene = Scene::start(&[&format!("task_worker.files_dir={}", dir.path().display())]).await;
    let mix = Mix { rate: 50, late: 60, future: 0, ..Mix::rough(11, FILE_ROWS, 12) };
    let paths = mix.write(dir.path(), |_| {}).unwrap();
    // A split is named by the hash of its path below the directory of the setting.
    let split = |file: u64| hash64(paths[usize::try_from(file).unwrap()].file_name().unwrap().as_encoded_bytes());
    let rows = mix.rows().into_iter().map(|row| Row { split: split(row.split), ..row });
    let splits: Vec<u64> = (0..mix.files).map(split).collect();
    let input = Input::of(Judge { delay: DELAY_MS, max_future_skew: 0 }, &splits, rows).ended();
    let from = format!(
        "files('file://{}', format => 'ndjson', time => 'time', corrupt => 'drop', \
         schema => 'time timestamp, key bigint, value bigint, mark text, id bigint')",
        dir.path().display()
    );
    for kind in KINDS.iter().filter(|kind| kind.is_built()) {
        let expected = (kind.recompute)(&input);
        for parallelism in PARALLELISM {
            let job = kind.job(parallelism);
            scene.api().provision(&job, 1).await.unwrap();
            scene.submit(&job, &kind.text(&from, &job), parallelism).await.unwrap();
            scene.finished(&job).await;
            let found = kind.found(scene.api(), &job).await.unwrap();
            assert_eq!(expected.complaint(&found), None, "{job} of {} rows", expected.count());
        }
    }
}
