//! How long appends stand still when a store dies.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use logboom_tests::patiently;
use tokio::time::{Instant, sleep};
use wire::{
    Empty,
    coordinator::{DescribePlacement, SegmentRange},
    segment_store::DescribeContainer,
};

use super::{appending::fill, setting::Setting};
use crate::figure::{Figure, Figures, Goal};

/// Payload that is in Tier 1 only when the store dies.
const UNTIERED_BYTES: usize = 256 << 20;
/// How often a container is asked whether it serves.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// What the figure gives up after.
const WITHIN: Duration = Duration::from_secs(60);

/// kill -9 of the store that owns most, until every container takes appends again.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let set = ["segment_store.flush_interval=1h", "segment_store.flush_bytes=256MiB"];
    let mut setting = Setting::start(2, &set).await?;
    let writer = setting.stream("recovery", 32).await?;
    fill(&writer, 300, UNTIERED_BYTES / 300).await?;
    writer.close().await?;
    let placement = patiently::<DescribePlacement>(&setting.bus, &(), &Empty {}).await?;
    let victim = placement.assignments.first().context("no container is placed")?.replica.clone();
    let owned = placement.assignments.iter().filter(|a| a.replica == victim);
    let lost: Vec<_> = owned.map(|a| (a.container, a.generation)).collect();
    let segments = setting.client.stream(&"recovery".parse()?).await?.segments.clone();
    setting.cluster.kill9(&format!("segment-store/{victim}"))?;
    let begun = Instant::now();
    let bus = &setting.bus;
    let serving = lost.iter().map(|(container, generation)| async move {
        while begun.elapsed() < WITHIN {
            let asked = bus.call_within::<DescribeContainer>(container, &Empty {}, Duration::from_millis(200));
            if asked.await.is_ok_and(|info| info.generation > *generation) {
                return anyhow::Ok(begun.elapsed());
            }
            sleep(ASK_EVERY).await;
        }
        anyhow::bail!("container {container} does not serve again")
    });
    let all = try_join_all(serving).await?;
    let longest = all.iter().max().copied().unwrap_or_default().as_secs_f64();
    prove(&setting, &segments).await?;
    let what = format!("kill -9 to all {} containers serving, 256 MiB", lost.len());
    figures.add("segments", &Figure::new(what, longest, "s").goal(Goal::AtMost(3.0)));
    Ok(())
}

/// Everything takes an append.
async fn prove(setting: &Setting, segments: &[SegmentRange]) -> Result<()> {
    let writer = setting.client.writer("recovery".parse()?, "prove".parse()?);
    for segment in segments {
        writer
            .append(*segment, writer.resume(*segment).await? + 1, &[Bytes::from_static(b"{\"msg\":\"after\"}")])
            .await?;
    }
    Ok(())
}
