//! How soon and how fast events come out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use arrow::{array::AsArray, datatypes::Int64Type};
use client::{Client, SegmentReader};
use futures::future::try_join_all;
use tokio::time::{Instant, MissedTickBehavior};
use wire::{Empty, coordinator::SegmentRange, segment_store::FlushContainer};

use super::{
    appending::{fill, so_far},
    setting::{Setting, Span, keys},
};
use crate::figure::{Figure, Figures, Goal};

/// Events per second of the tail figure.
const RATE: usize = 10_000;
/// How long it is measured.
const TAIL_FOR: Duration = Duration::from_secs(10);
/// Steps in which the load is sent.
const TICK: Duration = Duration::from_millis(1);
/// Payload of the catch-up figure.
const CATCH_UP_BYTES: usize = 128 << 20;

fn nanos() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// From the call of `write` until a reader has the event as a row.
pub(crate) async fn tail(figures: &mut Figures) -> Result<()> {
    let setting = Setting::start(1, &[]).await?;
    let writer = setting.stream("tail", 1).await?;
    let segment = setting.client.stream(&"tail".parse()?).await?.segments[0];
    let total = RATE * usize::try_from(TAIL_FOR.as_secs())?;
    let reader = Client::new(setting.cluster.bus("bench-reader").await?, setting.cluster.store()?).reader(segment, 0);
    let reading = tokio::spawn(follow(reader, total));
    let keys = keys();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < total {
        let due = ticks.tick().await;
        let upto = total.min(so_far(RATE as f64, due - begun));
        let at = nanos()?;
        let events = (sent..upto).map(|n| (keys.get(n % keys.len()), format!("{{\"at\":{at},\"msg\":\"event {n}\"}}")));
        drop(writer.write_batch(events).await?);
        sent = upto.max(sent);
    }
    let all = reading.await??;
    figures.add_durations("segments", "write to tail reader at 10000/s", &all, Some(Goal::AtMost(30.0)))
}

async fn follow(mut reader: SegmentReader, total: usize) -> Result<Vec<Duration>> {
    let mut all = Vec::with_capacity(total);
    while all.len() < total {
        let batch = reader.next(Duration::from_secs(20)).await?.context("the tail fell silent")?;
        let now = nanos()?;
        let sent = batch.column_by_name("at").context("no column at")?.as_primitive::<Int64Type>();
        all.extend(sent.values().iter().map(|at| Duration::from_nanos(u64::try_from(now - at).unwrap_or(0))));
    }
    Ok(all)
}

/// Reads everything, from the tail and from chunks.
pub(crate) async fn catch_up(figures: &mut Figures) -> Result<()> {
    let set = ["segment_store.flush_interval=1h", "segment_store.flush_bytes=256MiB"];
    let mut setting = Setting::start(1, &set).await?;
    let writer = setting.stream("history", 4).await?;
    let count = CATCH_UP_BYTES / 300;
    fill(&writer, 300, count).await?;
    let segments = setting.client.stream(&"history".parse()?).await?.segments.clone();
    measure(figures, &mut setting, "catch-up from the tail", &segments, count).await?;
    for segment in &segments {
        setting.bus.call_within::<FlushContainer>(&segment.container, &Empty {}, Duration::from_secs(120)).await?;
    }
    measure(figures, &mut setting, "catch-up from chunks", &segments, count).await
}

async fn measure(
    figures: &mut Figures,
    setting: &mut Setting,
    what: &str,
    segments: &[SegmentRange],
    count: usize,
) -> Result<()> {
    // A client of its own: nothing is in its caches.
    let client = setting.cluster.client("bench-reader").await?;
    let span = Span::begin(setting)?;
    let read = try_join_all(segments.iter().map(|segment| drain(client.reader(*segment, 0)))).await?;
    let (wall, cpu) = span.end(setting)?;
    ensure!(read.iter().sum::<usize>() == count, "{read:?} of {count} events were read");
    figures.add("segments", &Figure::new(what, count as f64 / wall.as_secs_f64(), "events/s"));
    let per_core = count as f64 / (cpu / 1e6);
    let figure = Figure::new(format!("{what}, per CPU s of all"), per_core, "events/s");
    figures.add("segments", &figure.goal(Goal::AtLeast(1_000_000.0)));
    Ok(())
}

async fn drain(mut reader: SegmentReader) -> Result<usize> {
    let mut rows = 0;
    while let Some(batch) = reader.next(Duration::ZERO).await? {
        rows += batch.num_rows();
    }
    Ok(rows)
}
