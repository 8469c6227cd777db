//! The job manager through its doors: real NATS and objects; coordinator, segment store and task worker are fakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod scene;

use types::{SegmentId, StreamCut};
use wire::{
    job_manager::{JobStatus, StartAt, TaskStatus},
    task_worker::Deployment,
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

#[actix_rt::test]
async fn a_job_cannot_begin_at_a_cut_that_its_source_does_not_have() {
    let scene = Scene::start(&[]).await.unwrap();
    let partial = StartAt::Cut(cut(&[(segment(0, 0), 3)]));
    assert_eq!(scene.submit(partial).await.unwrap_err().kind, "InvalidCut");
    let whole = StartAt::Cut(cut(&[(segment(0, 0), 3), (segment(0, 1), 1)]));
    scene.submit(whole).await.unwrap();
    assert_eq!(scene.deployed(1).await.cut, cut(&[(segment(0, 0), 3), (segment(0, 1), 1)]));
}
