//! The manifests on a real API server: what it takes, what each ServiceAccount may do, and the way from `kubectl apply -k` to a log line.
//!
//! No kubelet, scheduler or controller is there; where one would act, a test says so and does what it would do. Without Go, or without
//! Go's module proxy, what needs the programs of Kubernetes is skipped with a word on standard error and in the summary of
//! `./justw test`, or fails with `LOGBOOM_REQUIRE_KUBERNETES=1`.
#![allow(clippy::unwrap_used, reason = "a test panics, also in what its functions call")]
#![allow(clippy::disallowed_methods, reason = "tests start processes")]

#[path = "kubernetes/bed.rs"]
mod bed;
#[path = "kubernetes/built.rs"]
mod built;
#[path = "kubernetes/certificates.rs"]
mod certificates;
#[path = "kubernetes/dashboard.rs"]
mod dashboard;
#[path = "kubernetes/keys.rs"]
mod keys;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/network.rs"]
mod network;
#[path = "kubernetes/rights.rs"]
mod rights;
#[path = "kubernetes/routes.rs"]
mod routes;
#[path = "kubernetes/walk.rs"]
mod walk;
#[path = "kubernetes/workers.rs"]
mod workers;

/// One API server for all of them, since it takes seconds to start; each goes on with what the one before has applied.
#[tokio::test]
async fn a_cluster_takes_everything() {
    let Some(bed) = bed::Bed::start().await else { return };
    Box::pin(walk::the_guide_goes_from_apply_to_a_log_line(&bed)).await;
    Box::pin(keys::the_job_makes_the_secrets_once_however_often_it_runs(&bed)).await;
    Box::pin(manifests::everything_is_taken_and_a_second_time_changes_nothing(&bed)).await;
    Box::pin(certificates::the_job_makes_certificates_and_renews_them(&bed)).await;
    Box::pin(rights::each_account_may_do_what_its_service_needs_and_nothing_more(&bed)).await;
    Box::pin(workers::task_workers_follow_the_slots_that_jobs_want(&bed)).await;
}
