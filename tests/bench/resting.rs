//! How soon it is ready, and how much memory it takes.

use std::time::Duration;

use anyhow::Result;
use logboom_tests::{Standalone, Workdir, usage};
use tokio::time::sleep;

use crate::{
    figure::{Figure, Figures, Goal},
    publishing::samples,
};

/// Quiet time before memory at rest is read.
const REST: Duration = Duration::from_secs(10);
const EVENTS: u64 = 100_000;

/// From the start of the process until every service takes work: on nothing, and on what a first run has left.
pub(crate) async fn start(figures: &mut Figures) -> Result<()> {
    let dir = Workdir::new("start")?;
    let first = Standalone::start_on(dir.path(), &[]).await?;
    let millis = |up: &Standalone| up.ready_after.as_secs_f64() * 1_000.0;
    figures.add("start", &Figure::new("standalone on fresh data until ready", millis(&first), "ms"));
    first.api.provision("bench", 4).await?;
    samples(&first, "bench", jiff::Timestamp::now() - Duration::from_secs(600), Duration::from_secs(600), 20_000)
        .await?;
    first.stop().await?;
    let second = Standalone::start_on(dir.path(), &[]).await?;
    figures.add("start", &Figure::new("standalone on 20000 events until ready", millis(&second), "ms"));
    second.stop().await?;
    Ok(())
}

/// Resident memory of the eight services in one process, and of its nats-server.
pub(crate) async fn memory(figures: &mut Figures) -> Result<()> {
    let mut up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    sleep(REST).await;
    let pids = [up.process().pid(), up.nats_pid().await?];
    let read = || -> Result<[f64; 2]> {
        Ok([usage(pids[0])?.rss_kib as f64 / 1_024.0, usage(pids[1])?.rss_kib as f64 / 1_024.0])
    };
    let rest = read()?;
    figures.add("rss", &Figure::new("logboom standalone at rest", rest[0], "MiB"));
    figures.add("rss", &Figure::new("nats-server at rest", rest[1], "MiB"));
    let load =
        samples(&up, "bench", jiff::Timestamp::now() - Duration::from_secs(600), Duration::from_secs(600), EVENTS);
    let mut most = rest;
    tokio::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => break done?,
            () = sleep(Duration::from_millis(50)) => {
                let now = read()?;
                most = [most[0].max(now[0]), most[1].max(now[1])];
            }
        }
    }
    let figure = Figure::new("logboom standalone, most while publishing", most[0], "MiB");
    figures.add("rss", &figure.goal(Goal::AtMost(512.0)));
    figures.add("rss", &Figure::new("nats-server, most while publishing", most[1], "MiB"));
    Ok(())
}
