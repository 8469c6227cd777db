//! The job manager asks for task workers as jobs want slots, with the rights of its ServiceAccount and no others.

use std::{fs, path::PathBuf, time::Duration};

use logboom_tests::{Standalone, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, NAMESPACE},
    built::built,
};

const SOON: Duration = Duration::from_secs(60);

/// A kubeconfig of the ServiceAccount as its pod has it: it prefers the namespace of the pod.
async fn kubeconfig(bed: &Bed) -> PathBuf {
    let token = bed.api.token(NAMESPACE, "job-manager").await.unwrap();
    let path = bed.api.kubeconfig(&token).unwrap();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["contexts"][0]["context"]["namespace"] = json!(NAMESPACE);
    fs::write(&path, config.to_string()).unwrap();
    path
}

async fn wait_for_workers(bed: &Bed, wanted: u64) {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/task-worker/scale");
    eventually("the number of task workers", SOON, async || {
        let scale = bed.api.get(&path).await?;
        anyhow::ensure!(scale["spec"]["replicas"] == wanted, "{wanted} are wanted: {scale}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Two that count the same workers would undo each other's work.
#[tokio::test]
async fn the_component_takes_the_autoscaler_of_task_workers_away() {
    let Some(all) = built("k8s/overlays/prod", &["elastic"]).await else { return };
    let autoscaled = all.iter().filter(|one| one["kind"] == "HorizontalPodAutoscaler");
    assert!(autoscaled.map(|one| &one["metadata"]["name"]).eq(["gateway"]));
}

/// The base is there with every component.
pub(crate) async fn task_workers_follow_the_slots_that_jobs_want(bed: &Bed) {
    wait_for_workers(bed, 1).await;
    let set = [
        "job_manager.resources=kubernetes".to_owned(),
        format!("job_manager.resources_kubeconfig={}", kubeconfig(bed).await.display()),
        "job_manager.resources_workers_max=3".to_owned(),
        "job_manager.resources_cooldown=1s".to_owned(),
        "job_manager.resources_shrink_after=1s".to_owned(),
        "task_worker.slots=2".to_owned(),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let services = Standalone::start_with(&set).await.unwrap();
    let api = &services.api;
    for index in ["shop", "rates"] {
        api.provision(index, 4).await.unwrap();
    }
    let count = |job: &str| {
        format!(
            "INSERT INTO rates SELECT service, window_start, count(*) AS {job} \
             FROM tumble(shop, INTERVAL '1 second') GROUP BY service, window_start"
        )
    };
    let submit = async |job: &str| {
        let body = json!({"job": job, "sql": count(job), "parallelism": 4});
        api.ask(Method::POST, "/api/v1/jobs", Some(&body)).await.unwrap().ok().unwrap();
    };
    // Four slots of two workers; the one that there is has two. No pod comes here, so the job waits on.
    submit("first").await;
    wait_for_workers(bed, 2).await;
    // Eight slots would want four workers, one more than there may be.
    submit("second").await;
    wait_for_workers(bed, 3).await;
    for job in ["first", "second"] {
        api.ask(Method::DELETE, &format!("/api/v1/jobs/{job}"), None).await.unwrap().ok().unwrap();
    }
    wait_for_workers(bed, 1).await;
}
