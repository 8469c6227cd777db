//! A job that runs: how soon a window's result is there, and how soon results come again when a worker dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Cluster, Options, Publisher, event, eventually};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::SUITE;
use crate::figure::{Figures, Goal};

/// Results that are waited for.
const RESULTS: usize = 300;
const RESULT_MAX: Goal = Goal::AtMost(50.0);
/// Workers that are killed, one after the other.
const KILLS: usize = 5;
const AGAIN_MAX: Goal = Goal::AtMost(2_000.0);
const WITHIN: Duration = Duration::from_secs(60);
/// The pause between two events while a worker is dead.
const PACE: Duration = Duration::from_millis(20);

pub(super) async fn run(figures: &mut Figures) -> Result<()> {
    let options = Options::default().set(&["job_manager.checkpoint_interval=1s", "gateway.query_rows_max=1000000"]);
    let cluster = Cluster::start_with(options).await?;
    cluster.api.provision("beats", 1).await?;
    cluster.api.provision("beats_sums", 1).await?;
    let sql = "INSERT INTO beats_sums SELECT window_start, count(*) AS n FROM tumble(beats, INTERVAL '1 second', \
               watermark delay INTERVAL '0 seconds') GROUP BY window_start";
    cluster.api.submit_job("beats", sql, "earliest").await?;
    let publisher = cluster.api.bind("beats", "write").await?.publisher().await?;
    let mut beats = Beats { cluster, publisher, start: Timestamp::now() - SignedDuration::from_hours(1), sent: 0 };
    beats.beat().await?;
    beats.warm().await?;
    let mut waits = Vec::new();
    for _ in 0..RESULTS {
        let begun = Instant::now();
        beats.beat().await?;
        beats.answered(beats.sent - 1).await?;
        waits.push(begun.elapsed());
    }
    figures.add_durations(SUITE, "publish of the passing event to the result found", &waits, Some(RESULT_MAX))?;
    let mut outages = Vec::new();
    for _ in 0..KILLS {
        outages.push(beats.outage().await?);
    }
    figures.add_durations(SUITE, "kill -9 of the worker to the next result", &outages, Some(AGAIN_MAX))
}

/// One event in each second of event time: each closes the window of the one before.
struct Beats {
    cluster: Cluster,
    publisher: Publisher,
    start: Timestamp,
    sent: i64,
}

impl Beats {
    async fn beat(&mut self) -> Result<()> {
        let at = self.start + SignedDuration::from_secs(self.sent);
        let payload = event(at, "beat", "info", "time goes on", json!({}));
        self.publisher.until_acked("logs.beats.one", &format!("beat-{}", self.sent), payload).await?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until so many windows are answered.
    async fn answered(&self, windows: i64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let there = self.cluster.api.count("SELECT count(*) AS n FROM beats_sums").await?;
            if there >= windows {
                return Ok(());
            }
            ensure!(begun.elapsed() < WITHIN, "{there} of {windows} windows are answered");
        }
    }

    async fn warm(&mut self) -> Result<()> {
        for _ in 0..20 {
            self.beat().await?;
        }
        self.answered(self.sent - 1).await
    }

    /// Kills the worker that has the job's tasks, and waits for the result of an event that was published afterwards.
    async fn outage(&mut self) -> Result<Duration> {
        let found = eventually("the job is placed", WITHIN, async || {
            let job = self.cluster.api.job("beats").await?;
            ensure!(job["status"] == "running", "{job}");
            let replica = job["tasks"][0][1].as_str().context("a task stands on no worker")?;
            Ok(format!("task-worker/{replica}"))
        });
        let worker = found.await?;
        let begun = Instant::now();
        self.cluster.kill9(&worker)?;
        let wanted = self.sent;
        let there = loop {
            self.beat().await?;
            let count = self.cluster.api.count("SELECT count(*) AS n FROM beats_sums").await?;
            if count >= wanted {
                break begun.elapsed();
            }
            ensure!(begun.elapsed() < WITHIN, "{count} of {wanted} windows are answered");
            sleep(PACE).await;
        };
        self.cluster.restart(&worker).await?;
        self.answered(self.sent - 1).await?;
        Ok(there)
    }
}
