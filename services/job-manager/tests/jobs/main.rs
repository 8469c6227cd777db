//! The job manager through its doors: real NATS and objects; coordinator, segment store and task worker are fakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod scene;

use std::time::{Duration, Instant};

use types::{SegmentId, StreamCut};
use wire::{
    job_manager::{
        DeleteSavepoint, JobName, JobStatus, ListSavepoints, RescaleJob, RescaleOf, SavepointName, SavepointOf,
        SavepointsOf, ShowCheckpoints, ShowExceptions, StartAt, StopJob, StopOf, TakeSavepoint, TaskStatus,
    },
    task_worker::{BarrierKind, Deployment},
};

use crate::scene::{Scene, segment};

fn cut(places: &[(SegmentId, u64)]) -> StreamCut {
    StreamCut(places.iter().copied().collect())
}

fn attempts(deployments: &[Deployment]) -> Vec<u32> {
    deployments.iter().map(|deployment| deployment.attempt).collect()
}

#[actix_rt::test]
async fn a_job_whose_source_is_scaled_goes_on_in_another_attempt_and_that_is_no_failure() {
    // Not one failure is allowed.
    let scene = Scene::start(&["job_manager.restarts_max=0"]).await.unwrap();
    scene.submit(StartAt::Earliest).await.unwrap();
    let (left, right) = (segment(0, 0), segment(0, 1));
    let first = scene.deployed(1).await;
    assert_eq!(first.cut, cut(&[(left, 0), (right, 0)]));

    // Both merge into one. One is read to its end; that is not enough.
    scene.told.lock().ends = [(left, 7), (right, 5)].into();
    scene.told.lock().read = cut(&[(left, 7), (right, 3)]);
    let [merged] = scene.scale(&[left, right], 1)[..] else { panic!("one segment follows") };
    scene.finished(&first, 0).await;
    scene.checkpoints(3).await;
    assert_eq!(attempts(&scene.told.lock().deployments), [1]);

    // Both are: the checkpoint that says so is the beginning of the next attempt, at once.
    scene.told.lock().read = cut(&[(left, 7), (right, 5)]);
    let second = scene.deployed(2).await;
    assert_eq!(second.cut, cut(&[(merged, 0)]));
    assert_eq!(second.restore.len(), first_tasks(&first), "the state of every task goes with it");
    scene.until("the second attempt runs", |job| (job.status, job.attempt) == (JobStatus::Running, 2)).await;
    assert_eq!(scene.describe().await.unwrap().failure, None);

    // What follows is split; a segment that is empty is passed over.
    scene.told.lock().read = cut(&[(merged, 4)]);
    scene.told.lock().ends.insert(merged, 4);
    let parts = scene.scale(&[merged], 2);
    let [part, other] = parts[..] else { panic!("two segments follow") };
    let behind = scene.scale(&[part], 1)[0];
    scene.finished(&second, 0).await;
    let third = scene.deployed(3).await;
    assert_eq!(third.cut, cut(&[(behind, 0), (other, 0)]));
    assert_eq!(scene.describe().await.unwrap().failure, None);
}

fn first_tasks(deployment: &Deployment) -> usize {
    wire::decode::<flow::ExecutionGraph>(&deployment.graph).unwrap().tasks.len()
}

#[actix_rt::test]
async fn a_failure_is_one_even_while_the_source_is_scaled() {
    let scene = Scene::start(&["job_manager.restarts_max=5"]).await.unwrap();
    scene.submit(StartAt::Earliest).await.unwrap();
    let first = scene.deployed(1).await;
    let (left, right) = (segment(0, 0), segment(0, 1));
    scene.told.lock().read = cut(&[(left, 2), (right, 1)]);
    scene.checkpoints(2).await;
    scene.told.lock().ends = [(left, 2), (right, 1)].into();
    scene.scale(&[left], 2);
    scene.report(&first, 0, TaskStatus::Failed("a disk is full".into())).await;
    let second = scene.deployed(2).await;
    // The next attempt begins with what there is now, whatever made it necessary.
    assert_eq!(second.cut.0.len(), 3);
    assert!(!second.cut.0.contains_key(&left));
    assert_eq!(scene.describe().await.unwrap().failure.as_deref(), Some("a disk is full"));
}

/// Within this after the death of a worker the tasks run again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

#[actix_rt::test]
async fn the_tasks_of_a_dead_worker_run_again_within_two_seconds() {
    // With a peer that tells of it, and with none; the dead one is still among the members all the while.
    for told_by_a_peer in [true, false] {
        let mut scene = Scene::with_workers(&["v", "w"], &[]).await.unwrap();
        scene.submit(StartAt::Earliest).await.unwrap();
        let first = scene.deployed(1).await;
        scene.checkpoints(1).await;
        let both = [(1, "v".to_owned()), (1, "w".to_owned())];
        assert_eq!(scene.told.lock().took, both.into());
        scene.kill("v");
        let killed = Instant::now();
        if told_by_a_peer {
            let lost = "task 1-1 on w: connection to task worker 127.0.0.1:7702 was lost: connection reset";
            scene.report(&first, 3, TaskStatus::Failed(lost.into())).await;
        }
        let second = scene.deployed(2).await;
        let took = killed.elapsed();
        assert!(took < RECOVERED_WITHIN, "{took:?} until the next attempt, told by a peer: {told_by_a_peer}");
        assert!(!second.restore.is_empty(), "it goes on from the checkpoint");
        assert!(!scene.told.lock().took.contains(&(2, "v".to_owned())));
        scene.until("it runs", |job| (job.status, job.attempt) == (JobStatus::Running, 2)).await;
    }
}

#[actix_rt::test]
async fn a_job_cannot_begin_at_a_cut_that_its_source_does_not_have() {
    let scene = Scene::start(&[]).await.unwrap();
    let partial = StartAt::Cut(cut(&[(segment(0, 0), 3)]));
    assert_eq!(scene.submit(partial).await.unwrap_err().kind, "InvalidCut");
    let whole = StartAt::Cut(cut(&[(segment(0, 0), 3), (segment(0, 1), 1)]));
    scene.submit(whole).await.unwrap();
    assert_eq!(scene.deployed(1).await.cut, cut(&[(segment(0, 0), 3), (segment(0, 1), 1)]));
}

/// The parallelism of a deployment's first vertex, and how many entries of state each of its tasks begins with.
fn shape(deployment: &Deployment) -> (u32, Vec<usize>) {
    let execution: flow::ExecutionGraph = wire::decode(&deployment.graph).unwrap();
    let tasks = 0..u32::try_from(execution.tasks.len()).unwrap();
    let of = |task| deployment.restore.iter().filter(|restore| restore.task == task).count();
    (execution.graph.vertices[0].parallelism, tasks.map(of).collect())
}

#[actix_rt::test]
async fn a_job_is_given_another_parallelism_at_a_stop_savepoint_and_counts_its_writers_anew() {
    let scene = Scene::start(&["job_manager.restarts_max=0"]).await.unwrap();
    scene.submit(StartAt::Earliest).await.unwrap();
    let first = scene.deployed(1).await;
    scene.checkpoints(1).await;
    assert_eq!((shape(&first).0, first.generation), (2, 0));

    let rescale = async |parallelism| {
        let job = "job".parse().unwrap();
        scene.call::<RescaleJob>(&RescaleOf { job, parallelism }).await
    };
    rescale(4).await.unwrap();
    let wide = scene.deployed(2).await;
    assert_eq!(wide.generation, 1);
    assert_eq!(shape(&wide), (4, vec![1, 1, 0, 0, 1]), "every part goes with it");
    scene.until("it runs", |job| (job.status, job.attempt) == (JobStatus::Running, 2)).await;
    let described = scene.describe().await.unwrap();
    assert_eq!((described.parallelism, described.generation, described.failure), (4, 1, None));
    assert_eq!(scene.told.lock().barriers.iter().filter(|kind| **kind == BarrierKind::Stop).count(), 1);
    assert!(wide.checkpoint > first.checkpoint);

    scene.checkpoints(1).await;
    rescale(1).await.unwrap();
    let narrow = scene.deployed(3).await;
    assert_eq!((narrow.generation, shape(&narrow)), (2, (1, vec![4, 1])));
    scene.until("it runs", |job| (job.status, job.attempt) == (JobStatus::Running, 3)).await;
    assert_eq!(rescale(1).await.unwrap().attempt, 3, "the same parallelism is nothing to do");
    assert_eq!(rescale(0).await.unwrap_err().kind, "InvalidParallelism");
    assert_eq!(rescale(65).await.unwrap_err().kind, "InvalidParallelism");
}

#[actix_rt::test]
async fn a_job_that_cannot_be_stopped_goes_on() {
    let scene = Scene::start(&["job_manager.restarts_max=0"]).await.unwrap();
    scene.told.lock().refuses = true;
    scene.submit(StartAt::Earliest).await.unwrap();
    scene.deployed(1).await;
    scene.checkpoints(1).await;
    scene.call::<RescaleJob>(&RescaleOf { job: "job".parse().unwrap(), parallelism: 4 }).await.unwrap();
    let second = scene.deployed(2).await;
    assert_eq!((second.generation, shape(&second).0), (0, 2));
    scene.until("it runs", |job| (job.status, job.attempt) == (JobStatus::Running, 2)).await;
    let failure = scene.describe().await.unwrap().failure.unwrap();
    assert!(failure.contains("could not be stopped"), "{failure}");
    scene.checkpoints(2).await;
}

#[actix_rt::test]
async fn savepoints_stay_and_a_suspended_job_goes_on() {
    let scene = Scene::start(&["job_manager.checkpoints_kept=2"]).await.unwrap();
    scene.submit(StartAt::Earliest).await.unwrap();
    scene.deployed(1).await;
    let name = |name: &str| SavepointName { job: "job".parse().unwrap(), name: name.to_owned() };
    let take = async |savepoint| scene.call::<TakeSavepoint>(&SavepointOf { savepoint }).await;
    let before = take(name("before")).await.unwrap();
    assert_eq!(take(name("before")).await.unwrap(), before, "a repeat answers the same one");
    assert_eq!(take(name("Before")).await.unwrap_err().kind, "InvalidSavepoint");
    assert!(scene.told.lock().barriers.contains(&BarrierKind::Savepoint));

    // However many checkpoints follow, two of them and the savepoint are there.
    scene.checkpoints(6).await;
    let cleaned = async || scene.folders().await.len() <= 4;
    tokio::time::timeout(Duration::from_secs(30), testkit::eventually(Duration::from_secs(60), cleaned)).await.unwrap();
    assert!(scene.folders().await.contains(&before.checkpoint));
    let job = JobName { job: "job".parse().unwrap() };
    let history = scene.call::<ShowCheckpoints>(&job).await.unwrap();
    assert!(history.completed >= 7 && history.checkpoints.len() >= 7, "{history:?}");
    assert!(history.checkpoints.iter().any(|run| run.savepoint.as_deref() == Some("before")), "{history:?}");

    let stop = StopOf { savepoint: name("stopped"), drain: false };
    scene.call::<StopJob>(&stop).await.unwrap();
    scene.until("it stands", |job| job.status == JobStatus::Suspended).await;
    let at = scene.describe().await.unwrap().checkpoint.unwrap();
    let listed = scene.call::<ListSavepoints>(&SavepointsOf { job: job.job.clone() }).await.unwrap().savepoints;
    assert_eq!(listed.iter().map(|one| one.name.name.as_str()).collect::<Vec<_>>(), ["before", "stopped"]);
    assert_eq!(listed[1].checkpoint, at);
    let wide = scene.call::<RescaleJob>(&RescaleOf { job: job.job.clone(), parallelism: 4 }).await;
    assert_eq!(wide.unwrap_err().kind, "JobSuspended");
    let again = scene.submit(StartAt::Earliest).await.unwrap();
    assert_eq!(again.status, JobStatus::Scheduling, "the same submission lets it go on");
    assert_eq!(scene.deployed(2).await.checkpoint, at);
    scene.call::<DeleteSavepoint>(&name("before")).await.unwrap();
    scene.call::<DeleteSavepoint>(&name("before")).await.unwrap();
    scene.checkpoints(2).await;
    let gone = async || !scene.folders().await.contains(&before.checkpoint);
    tokio::time::timeout(Duration::from_secs(30), testkit::eventually(Duration::from_secs(60), gone)).await.unwrap();

    scene.call::<StopJob>(&StopOf { savepoint: name("last"), drain: true }).await.unwrap();
    scene.until("it is finished", |job| job.status == JobStatus::Finished).await;
    assert!(scene.told.lock().barriers.contains(&BarrierKind::Drain));
    assert_eq!(take(name("late")).await.unwrap_err().kind, "JobOver");
    let pinned = async || scene.folders().await.len() == 2;
    tokio::time::timeout(Duration::from_secs(30), testkit::eventually(Duration::from_secs(60), pinned)).await.unwrap();
}

#[actix_rt::test]
async fn a_new_leader_leaves_running_tasks_alone() {
    let mut scene = Scene::with_workers(&["v", "w"], &[]).await.unwrap();
    scene.submit(StartAt::Earliest).await.unwrap();
    scene.deployed(1).await;
    scene.checkpoints(2).await;
    let mut last = scene.describe().await.unwrap().checkpoint.unwrap();
    for leader in ["n", "o", "p"] {
        scene.manage(leader).await.unwrap();
        scene.until("checkpoints go on", |job| job.checkpoint.unwrap_or(0) > last + 1).await;
        last = scene.describe().await.unwrap().checkpoint.unwrap();
    }
    let described = scene.describe().await.unwrap();
    assert_eq!((described.attempt, described.status, described.failure), (1, JobStatus::Running, None));
    let restarts = scene.told.lock().took.iter().filter(|(attempt, _)| *attempt > 1).count();
    assert_eq!(restarts, 0);
    let exceptions = scene.call::<ShowExceptions>(&JobName { job: "job".parse().unwrap() }).await.unwrap().exceptions;
    assert!(exceptions.is_empty(), "{exceptions:?}");
}
