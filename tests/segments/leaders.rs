//! What coordinators do by themselves, with one, two and three of them.

use std::time::Duration;

use anyhow::ensure;
use logboom_tests::{Cluster, Options, Streams, eventually, patiently};
use tokio::time::{Instant, sleep};
use wire::coordinator::{RetentionChange, RetentionPolicy, StreamUpdate, UpdateStream};

use crate::{
    numbered::{LONG, Numbered},
    retention::left,
    shared::HASTE,
};

const STREAMS: usize = 4;
/// Events of a round: about 1.7 kB, far above the 700 bytes that a stream may keep.
const EVENTS: u64 = 120;
/// More often than retention is looked after.
const BETWEEN: Duration = Duration::from_millis(150);

/// Who leads; never more than one.
async fn leader(cluster: &Cluster, coordinators: &[&str]) -> anyhow::Result<String> {
    let mut leaders = Vec::new();
    for name in coordinators {
        let metrics = cluster.metrics(name).await?;
        let leads = metrics.lines().any(|line| line == "lb_host_leader{service=\"coordinator\"} 1");
        leaders.extend(leads.then(|| (*name).to_owned()));
    }
    ensure!(leaders.len() == 1, "{leaders:?} lead");
    Ok(leaders.remove(0))
}

/// Writes little by little, so that there are cuts to truncate at, until most of what was written is gone.
async fn kept(streams: &Streams, numbered: &mut Numbered) -> anyhow::Result<()> {
    let before: u64 = numbered.counts.values().sum();
    let begun = Instant::now();
    loop {
        numbered.write("k", 5, 4).await;
        let written = numbered.counts.values().sum::<u64>() - before;
        let (left, _) = left(streams).await?;
        if written >= EVENTS && left <= EVENTS / 2 {
            return Ok(());
        }
        ensure!(begun.elapsed() < LONG, "{left} events of {} are left after {written} more", streams.index);
        sleep(BETWEEN).await;
    }
}

/// Pravega spreads buckets of streams over its controllers, each owned once. Here one leader owns them all: with every number of
/// coordinators there is exactly one, and each stream is kept within its policy, also after the leader died.
#[tokio::test]
async fn s25_every_stream_is_kept_by_one_coordinator_whatever_their_number() {
    let mut cluster = Cluster::start_with(Options::storage(3, 1).set(HASTE)).await.unwrap();
    let client = cluster.client("gateway/leaders").await.unwrap();
    let bus = cluster.bus("gateway/leaders").await.unwrap();
    let mut all = Vec::new();
    for number in 0..STREAMS {
        let streams = Streams::create(&bus, &format!("kept-{number}"), 1).await.unwrap();
        let retention = Some(RetentionChange::By(RetentionPolicy::Size { min_bytes: 200, max_bytes: Some(700) }));
        let update = StreamUpdate { index: streams.index.clone(), scaling: None, retention, tags: None };
        patiently::<UpdateStream>(&bus, &(), &update).await.unwrap();
        let numbered = Numbered::open(&client, &streams, "writer").await;
        all.push((streams, numbered));
    }
    let mut alive = vec!["coordinator/a", "coordinator/b", "coordinator/c"];
    loop {
        let leader = eventually("one leads", LONG, async || leader(&cluster, &alive).await).await.unwrap();
        for (streams, numbered) in &mut all {
            kept(streams, numbered).await.unwrap_or_else(|error| panic!("{} coordinators: {error:#}", alive.len()));
        }
        assert_eq!(self::leader(&cluster, &alive).await.unwrap(), leader);
        if alive.len() == 1 {
            break;
        }
        cluster.kill9(&leader).unwrap();
        alive.retain(|name| *name != leader);
    }
    cluster.check().unwrap();
}
