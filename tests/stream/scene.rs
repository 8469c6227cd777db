//! An installation, the index that events are published to, and the jobs that read it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use logboom_tests::{Api, Cluster, Options, eventually, waves::Waves};
use serde_json::{Value, json};
use wire::job_manager::{RescaleJob, RescaleOf};

/// Where events are published.
pub(crate) const INDEX: &str = "events";
const SEGMENTS: u16 = 4;
const SEED: u64 = 7;
/// How long jobs may take to answer everything, a recovery among it.
pub(crate) const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) waves: Waves,
}

impl Scene {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let set = ["gateway.query_rows_max=1000000", "task_worker.slots=64", "job_manager.checkpoint_interval=300ms"];
        let cluster = Cluster::start_with(Options::default().set(&set).set(more)).await.unwrap();
        let waves = Waves::start(&cluster.api, INDEX, SEGMENTS, SEED).await.unwrap();
        cluster.api.provision("probe", 1).await.unwrap();
        Self { cluster, waves }
    }

    pub(crate) fn api(&self) -> &Api {
        &self.cluster.api
    }

    pub(crate) async fn submit(&self, job: &str, text: &str, parallelism: u16) -> Result<()> {
        let body = json!({ "job": job, "text": text, "start": "earliest", "parallelism": parallelism });
        self.api().ask(reqwest::Method::POST, "/api/v1/jobs", Some(&body)).await?.ok().map(drop)
    }

    pub(crate) async fn cancel(&self, job: &str) {
        let path = format!("/api/v1/jobs/{job}");
        self.api().ask(reqwest::Method::DELETE, &path, None).await.unwrap();
    }

    pub(crate) async fn describe(&self, job: &str) -> String {
        self.api().job(job).await.map_or_else(|error| format!("{error:#}"), |job| job.to_string())
    }

    /// Waits until a job has come to the end of what it reads.
    pub(crate) async fn finished(&self, job: &str) {
        eventually("the job is finished", CAUGHT_UP_WITHIN, async || {
            let found = self.api().job(job).await?;
            ensure!(found["status"] == "finished", "{found}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Late rows that the workers have counted.
    pub(crate) async fn late(&self) -> u64 {
        let mut late = 0.0;
        for worker in self.cluster.replicas().iter().filter(|name| name.starts_with("task-worker")) {
            let metrics = self.cluster.metrics(worker).await.unwrap();
            let lines = metrics.lines().filter(|line| line.starts_with("lb_task_worker_rows_late_total"));
            late += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        format!("{late:.0}").parse().unwrap()
    }

    async fn running(&self) -> Result<Vec<Value>> {
        let list = self.api().ask(reqwest::Method::GET, "/api/v1/jobs", None).await?.ok()?;
        let jobs = list["jobs"].as_array().context("a list of jobs")?;
        Ok(jobs.iter().filter(|job| job["status"] == "running").cloned().collect())
    }

    /// A number of every job that runs.
    pub(crate) async fn numbers(&self, name: &str) -> BTreeMap<String, u64> {
        let jobs = self.running().await.unwrap();
        jobs.iter().map(|job| (job["job"].to_string(), job[name].as_u64().unwrap_or(0))).collect()
    }

    /// Waits until every running job has a checkpoint of what was published.
    pub(crate) async fn checkpointed(&self) {
        let before = self.numbers("checkpoint").await;
        eventually("a checkpoint of every job", CAUGHT_UP_WITHIN, async || {
            let now = self.numbers("checkpoint").await;
            let waits = before.iter().find(|(job, number)| now.get(*job).is_none_or(|now| now <= number));
            ensure!(waits.is_none(), "{waits:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Gives a job another parallelism, and waits until it runs with it; false where that is not built.
    pub(crate) async fn rescale(&self, job: &str, parallelism: u16) -> bool {
        let bus = self.cluster.bus("gateway/stream-tests").await.unwrap();
        let order = RescaleOf { job: job.parse().unwrap(), parallelism };
        match bus.call::<RescaleJob>(&(), &order).await {
            Err(refused) if refused.kind == "NotBuilt" => return false,
            answer => drop(answer.unwrap()),
        }
        eventually("the job runs with its new parallelism", CAUGHT_UP_WITHIN, async || {
            let found = self.api().job(job).await?;
            // The job manager may know how to, and a worker not.
            if found["failure"].as_str().is_some_and(|failure| failure.contains("NotBuilt")) {
                return Ok(false);
            }
            ensure!(found["status"] == "running" && found["parallelism"] == parallelism, "{found}");
            Ok(true)
        })
        .await
        .unwrap()
    }
}
