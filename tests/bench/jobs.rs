//! How fast a windowed job goes through what is kept.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Standalone, event, eventually};
use serde_json::json;

use crate::{
    figure::{Figure, Figures, Goal, Meter},
    publishing::samples,
};

const EVENTS: u64 = 100_000;
const SPAN: Duration = Duration::from_secs(1_200);
const WITHIN: Duration = Duration::from_secs(300);

pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let mut up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    up.api.provision("bench_sums", 1).await?;
    let start = Timestamp::now() - SignedDuration::from_mins(60);
    samples(&up, "bench", start, SPAN, EVENTS).await?;
    let publisher = up.api.bind("bench", "write").await?.publisher().await?;
    let later = start + SPAN + SignedDuration::from_mins(10);
    for (software, _) in ingest::sample::SOFTWARE {
        let payload = event(later, "marker", "info", "time goes on", json!({}));
        publisher.until_acked(&format!("logs.bench.{software}"), &format!("marker-{software}"), payload).await?;
    }
    let expected = up.api.count("SELECT count(*) AS n FROM bench WHERE duration_ms IS NOT NULL").await?;
    let meter = Meter::start(&mut up).await?;
    let sql = "INSERT INTO bench_sums SELECT service, window_start, count(*) AS n, sum(duration_ms) AS total \
               FROM tumble(bench, INTERVAL '10 seconds', watermark delay INTERVAL '10 seconds') \
               WHERE duration_ms IS NOT NULL GROUP BY service, window_start";
    up.api.submit_job("bench-sums", sql, "earliest").await?;
    eventually("every window", WITHIN, async || {
        // Each look costs a little CPU, which the figure includes; so there are few.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let counted = up.api.sql("SELECT sum(n) AS n FROM bench_sums").await?.number(0, "n")?;
        ensure!(counted == expected, "{counted} of {expected} events");
        Ok(())
    })
    .await?;
    let cost = meter.stop()?;
    let rate = EVENTS as f64 / cost.wall.as_secs_f64();
    figures.add("job", &Figure::new("events read, windows written", rate, "events/s"));
    let per_core = EVENTS as f64 / (cost.logboom_micros / 1e6);
    figures
        .add("job", &Figure::new("events per CPU second of logboom", per_core, "events/s").goal(Goal::AtLeast(3.2e6)));
    Ok(())
}
