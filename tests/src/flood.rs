//! Two tenants of one installation: one floods, the other publishes now and then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use futures::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval};
use wire::views::Quota;

use crate::{Binding, Standalone};

/// How often the quiet tenant publishes.
const QUIET_EVERY: Duration = Duration::from_millis(10);
/// What the flood's index may take in a second.
const QUOTA: u32 = 500;
/// What the flood sends at a time, and how often: 20,000 events a second, forty times its quota.
const FLOOD_AT_ONCE: u64 = 100;
const FLOOD_EVERY: Duration = Duration::from_millis(5);

/// What was seen.
#[derive(Debug)]
pub struct Flood {
    /// How long the quiet tenant waited for each acknowledgement while it was alone.
    pub alone: Vec<Duration>,
    /// The same beside the flood.
    pub beside: Vec<Duration>,
    /// Events that the flood sent.
    pub sent: u64,
    /// Those that were taken.
    pub taken: u64,
    /// Those that were refused by the quota.
    pub refused: u64,
}

impl Flood {
    /// Measures an installation of its own, with so many publishes alone and as many beside the flood.
    pub async fn measure(publishes: usize) -> Result<Self> {
        let up = Standalone::start().await?;
        for index in ["quiet", "loud"] {
            up.api.provision(index, 4).await?;
        }
        up.limit("loud", Quota { events_per_second: Some(QUOTA), ..Quota::default() }).await?;
        let (quiet, loud) = (up.api.bind("quiet", "write").await?, up.api.bind("loud", "write").await?);
        // The first events open files and learn columns.
        publish(&quiet, publishes / 4).await?;
        let alone = publish(&quiet, publishes).await?;
        let counts = Arc::new(Counts::default());
        let flooding = tokio::spawn(flood(loud, Arc::clone(&counts)));
        let beside = publish(&quiet, publishes).await;
        ensure!(!flooding.is_finished(), "the flood ended before it was measured");
        flooding.abort();
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let (sent, taken, refused) = (count(&counts.sent), count(&counts.taken), count(&counts.refused));
        Ok(Self { alone, beside: beside?, sent, taken, refused })
    }

    /// What 99 of 100 waited no longer for.
    pub fn p99(waits: &[Duration]) -> Duration {
        let mut sorted = waits.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
    }
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

async fn publish(binding: &Binding, count: usize) -> Result<Vec<Duration>> {
    let publisher = binding.publisher().await?;
    let mut ticks = interval(QUIET_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waits = Vec::with_capacity(count);
    for n in 0..count {
        ticks.tick().await;
        let (id, begun) = (uuid::Uuid::new_v4().to_string(), Instant::now());
        publisher.once(&format!("{}.k{}", binding.subject, n % 8), &id, "{\"msg\":\"now and then\"}").await?;
        waits.push(begun.elapsed());
    }
    Ok(waits)
}

/// Sends without waiting for answers, which are counted as they come; ends by being aborted.
async fn flood(binding: Binding, counts: Arc<Counts>) -> Result<()> {
    let client = binding.connect().await?;
    let inbox = format!("{}.flood", binding.inbox_prefix);
    let mut answers = client.subscribe(inbox.clone()).await?;
    let sending = async {
        let mut ticks = interval(FLOOD_EVERY);
        loop {
            ticks.tick().await;
            for n in 0..FLOOD_AT_ONCE {
                let (subject, event) = (format!("{}.k{n}", binding.subject), "{\"msg\":\"more and more\"}");
                client.publish_with_reply(subject, inbox.clone(), event.into()).await?;
                counts.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let counting = async {
        while let Some(answer) = answers.next().await {
            let over = String::from_utf8_lossy(&answer.payload).contains("QuotaRate");
            let count = if over { &counts.refused } else { &counts.taken };
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        sent = sending => sent,
        () = counting => Ok(()),
    }
}
