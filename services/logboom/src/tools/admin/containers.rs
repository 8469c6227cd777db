//! Containers: where they are, how they are, and their flush.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use types::ContainerId;
use wire::{
    Empty, Problem,
    coordinator::DescribePlacement,
    segment_store::{ContainerInfo, DescribeContainer, FlushContainer},
    views::Placement,
};

use super::{Admin, refused};

/// Containers asked at once.
const ASKED_MAX: usize = 16;
/// Containers flushed at once: each writes chunks as fast as it can.
const FLUSHED_MAX: usize = 2;
/// How long one flush may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(600);

const COLUMNS: [&str; 10] =
    ["container", "replica", "generation", "frames", "segments", "chunks", "tail", "log", "garbage", "damage"];

fn row(info: &ContainerInfo) -> Value {
    json!({
        "container": info.container.0, "replica": info.replica, "generation": info.generation.0,
        "frames": info.frame_number, "segments": info.segment_count, "chunks": info.chunk_count,
        "tail": info.tail_bytes, "log": info.log_bytes, "garbage": info.garbage_count, "damage": info.damage,
    })
}

impl Admin {
    pub(super) async fn placement(&self) -> anyhow::Result<Placement> {
        Ok(self.call::<DescribePlacement>(&(), &Empty {}).await?)
    }

    /// Whoever does not answer is shown as damaged: that is what one looks for.
    pub(super) async fn containers(&self) -> anyhow::Result<()> {
        let placement = self.placement().await?;
        let rows = (0..placement.container_count).map(ContainerId).map(|container| {
            let owner = placement.assignments.iter().find(|a| a.container == container);
            async move {
                let Some(owner) = owner else {
                    return json!({ "container": container.0, "damage": "no living segment-store owns it" });
                };
                match self.host.bus.call::<DescribeContainer>(&container, &Empty {}).await {
                    Ok(info) => row(&info),
                    Err(problem) => json!({
                        "container": container.0, "replica": owner.replica, "generation": owner.generation.0,
                        "damage": problem.to_string(),
                    }),
                }
            }
        });
        let rows: Vec<Value> = stream::iter(rows).buffered(ASKED_MAX).collect().await;
        self.screen.rows(&rows, &COLUMNS);
        Ok(())
    }

    /// `None` is every container.
    pub(super) async fn flush(&self, only: Option<ContainerId>) -> anyhow::Result<()> {
        let flushed = self.flush_each(&self.wanted(only).await?).await;
        let rows: Vec<Value> = flushed.iter().filter_map(|info| info.as_ref().ok()).map(row).collect();
        self.screen.rows(&rows, &COLUMNS);
        // What was flushed is flushed; the first that was not decides the end.
        match flushed.into_iter().find_map(Result::err) {
            Some(problem) => Err(refused(problem).into()),
            None => Ok(()),
        }
    }

    /// One container, or every one.
    pub(super) async fn wanted(&self, only: Option<ContainerId>) -> anyhow::Result<Vec<ContainerId>> {
        let count = self.placement().await?.container_count;
        if let Some(container) = only {
            anyhow::ensure!(container.0 < count, "there are containers 0 to {}", count.saturating_sub(1));
        }
        Ok(only.map_or_else(|| (0..count).map(ContainerId).collect(), |container| vec![container]))
    }

    /// Moves every event of these containers to object storage.
    pub(super) async fn flush_all(&self, containers: &[ContainerId]) -> anyhow::Result<()> {
        match self.flush_each(containers).await.into_iter().find_map(Result::err) {
            Some(problem) => Err(refused(problem).into()),
            None => Ok(()),
        }
    }

    async fn flush_each(&self, wanted: &[ContainerId]) -> Vec<Result<ContainerInfo, Problem>> {
        let bar = self.bar(wanted.len(), "flushing");
        let flushed = wanted.iter().copied().map(|container| {
            let bar = &bar;
            async move {
                let info = self.host.bus.call_within::<FlushContainer>(&container, &Empty {}, FLUSH_WITHIN).await;
                bar.inc(1);
                info
            }
        });
        let flushed = stream::iter(flushed).buffered(FLUSHED_MAX).collect().await;
        bar.finish_and_clear();
        flushed
    }
}
