//! Logboom: an installation of one process per service, of which the task worker is measured.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use logboom_tests::{Cluster, Options, Usage, eventually, usage};
use reqwest::Method;
use serde_json::json;
use settings::DEFAULTS;

use super::{Cell, Digest, PARALLELISM, Prepared, Question, RUN_MAX, agree, digest, questions};

/// The process that runs the tasks, and the one that leads jobs.
const WORKER: &str = "task-worker/a";
const LEADER: &str = "job-manager/a";

pub(super) struct Ours {
    cluster: Cluster,
    jobs: u32,
}

impl Ours {
    /// Starts one whose worker may read and write below a folder.
    pub(super) async fn start(data: &Path) -> Result<Self> {
        let mut options = Options::one_each().set(&["job_manager.checkpoint_interval=1s"]);
        // A release that knows no files has no such setting, and says so of each question.
        if DEFAULTS.contains("\nfiles_dir = ") {
            options = options.set(&[&format!("task_worker.files_dir={}", data.display())]);
        }
        Ok(Self { cluster: Cluster::start_with(options).await?, jobs: 0 })
    }

    /// A first run, whose answer is compared; the second is measured.
    pub(super) async fn measure(&mut self, question: &Question, prepared: &Prepared, data: &Path) -> Result<Cell> {
        let folder = data.join("written");
        std::fs::create_dir_all(&folder)?;
        self.run(&questions::ours(question, data, Some(&folder))).await?;
        let found = digest(&folder, question, Digest::take_json)?;
        std::fs::remove_dir_all(&folder)?;
        agree(question, prepared, found)?;
        let before = self.used()?;
        let wall = self.run(&questions::ours(question, data, None)).await?;
        let after = self.used()?;
        let seconds = |place: usize| (after[place].cpu_micros - before[place].cpu_micros) as f64 / 1e6;
        Ok(Cell { cpu: seconds(0), leader_cpu: seconds(1), wall, rss_kib: after[0].rss_kib })
    }

    fn used(&mut self) -> Result<[Usage; 2]> {
        Ok([usage(self.cluster.process(WORKER)?.pid())?, usage(self.cluster.process(LEADER)?.pid())?])
    }

    /// Runs a job to its end; answers how long that took.
    async fn run(&mut self, sql: &str) -> Result<f64> {
        self.jobs += 1;
        let (api, job) = (&self.cluster.api, format!("bench-{}", self.jobs));
        let begun = tokio::time::Instant::now();
        let body = json!({ "job": job, "text": sql, "start": "earliest", "parallelism": PARALLELISM });
        let answer = api.ask(Method::POST, "/api/v1/jobs", Some(&body)).await?;
        if answer.status >= 300 {
            let message = answer.body["error"]["message"].as_str().unwrap_or(&answer.text);
            bail!("refused: {}: {message}", answer.kind());
        }
        let ended = eventually("the job has ended", RUN_MAX, async || {
            // Each look costs a little CPU, which the figure includes; so there are few.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let found = api.job(&job).await?;
            let status = found["status"].as_str().unwrap_or_default().to_owned();
            ensure!(matches!(status.as_str(), "finished" | "failed"), "it is {found}");
            Ok((status, found))
        })
        .await;
        let wall = begun.elapsed().as_secs_f64();
        match ended {
            Ok((status, _)) if status == "finished" => Ok(wall),
            Ok((_, found)) => bail!("the job failed: {found}"),
            Err(error) => {
                let path = format!("/api/v1/jobs/{job}");
                api.ask(Method::DELETE, &path, None).await?;
                Err(error)
            }
        }
    }
}
