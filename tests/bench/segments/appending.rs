//! How many events go in, what each costs, how long each takes.

use std::time::Duration;

use anyhow::Result;
use client::EventWriter;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior};

use super::setting::{Setting, Span, keys, lines};
use crate::{
    figure::{Figure, Figures, Goal},
    publishing,
};

/// Payload of one run: it stays below what a store keeps before object storage has to follow.
const RUN_BYTES: usize = 256 << 20;
/// Events of one call.
const BATCH: usize = 4_096;
/// How long latency is measured.
const LATENCY_FOR: Duration = Duration::from_secs(10);
/// Steps in which a steady load is sent.
const TICK: Duration = Duration::from_millis(2);

/// Durable appends, and their latency at half of the rate.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let mut setting = Setting::start(1, &[]).await?;
    let mut rate = 0.0;
    for (bytes, goal, cost) in [(300, 500_000.0, Some(4.0)), (100, 1_000_000.0, None)] {
        let index = format!("append-{bytes}");
        let writer = setting.stream(&index, 4).await?;
        fill(&writer, bytes, 20_000).await?;
        let count = RUN_BYTES / bytes;
        let span = Span::begin(&mut setting)?;
        fill(&writer, bytes, count).await?;
        let (wall, cpu) = span.end(&mut setting)?;
        let measured = count as f64 / wall.as_secs_f64();
        let name = format!("client, durable, {bytes} B");
        figures.add("segments", &Figure::new(&name, measured, "events/s").goal(Goal::AtLeast(goal)));
        let figure = Figure::new(format!("{name}: CPU of all"), cpu / count as f64, "µs/event");
        let goal = cost.map(Goal::AtMost);
        figures.add("segments", &Figure { goal, ..figure });
        if bytes == 300 {
            rate = measured;
        }
        drop(writer);
        setting.delete(&index).await?;
    }
    let writer = setting.stream("latency", 4).await?;
    let all = latency(&writer, rate / 2.0).await?;
    let what = format!("append to ack at {:.0}/s", rate / 2.0);
    figures.add_durations("segments", &what, &all, Some(Goal::AtMost(40.0)))
}

/// Writes and waits until all is durable.
pub(crate) async fn fill(writer: &EventWriter, bytes: usize, count: usize) -> Result<()> {
    let (keys, lines) = (keys(), lines(bytes));
    let mut receipts = Vec::new();
    for from in (0..count).step_by(BATCH) {
        let events = (from..count.min(from + BATCH)).map(|n| (keys.get(n % keys.len()), &lines[n % lines.len()]));
        receipts.push(writer.write_batch(events).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// Events of a steady load up to an instant.
#[allow(clippy::cast_possible_truncation, reason = "below 2^53")]
pub(crate) fn so_far(rate: f64, since: Duration) -> usize {
    (rate * since.as_secs_f64()) as usize
}

/// Sends at a steady rate and measures one event of each step, from its turn and not from when it got it.
async fn latency(writer: &EventWriter, rate: f64) -> Result<Vec<Duration>> {
    let (keys, lines) = (keys(), lines(300));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut sent) = (Instant::now(), 0usize);
    let mut waiting = FuturesUnordered::new();
    let mut all = Vec::new();
    while begun.elapsed() < LATENCY_FOR {
        tokio::select! {
            biased;
            Some(took) = waiting.next() => all.push(took?),
            due = ticks.tick() => {
                let upto = so_far(rate, due - begun);
                let events = (sent..upto).map(|n| (keys.get(n % keys.len()), &lines[n % lines.len()]));
                drop(writer.write_batch(events).await?);
                sent = upto.max(sent);
                let receipt = writer.write(keys.first(), lines[0].clone()).await?;
                waiting.push(async move { receipt.await.map(|_| due.elapsed()) });
            }
        }
    }
    while let Some(took) = waiting.next().await {
        all.push(took?);
    }
    Ok(all)
}

/// Single JetStream publishes against plain JetStream, synced at every write and lazily.
pub(crate) async fn publish(figures: &mut Figures) -> Result<()> {
    publishing::against_plain(figures).await
}
