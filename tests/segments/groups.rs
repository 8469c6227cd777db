//! Reader groups: every event for one reader, checkpoints, resets, dead readers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use client::{Delivered, GroupOptions, GroupReader, ReaderGroup};
use logboom_tests::{Seen, Streams, eventually};
use tokio::task::JoinHandle;
use wire::coordinator::{CutKind, GroupConfig, GroupRetention};

use crate::{
    numbered::{Background, Counts, LONG, Numbered, assert_exact, witness},
    shared::Stage,
};

/// What a reader was given, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given {
    Event(Seen),
    Checkpoint(String),
    Truncated,
    End,
}

pub(crate) fn config(streams: &Streams, name: &str, from: CutKind) -> GroupConfig {
    GroupConfig {
        group: name.parse().unwrap(),
        scope: "tests".parse().unwrap(),
        from: [(streams.index.clone(), from)].into(),
        to: Default::default(),
        checkpoint_ms: 0,
        retention: GroupRetention::None,
    }
}

fn quick() -> GroupOptions {
    GroupOptions { refresh: Duration::from_millis(200), ..GroupOptions::default() }
}

/// Readers of a group, each on a task of its own, until they are stopped.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<Given>>>,
}

impl Readers {
    pub(crate) async fn start(group: &ReaderGroup, count: u32) -> Self {
        let mut readers = Self { stop: Arc::default(), count: Arc::default(), tasks: Vec::new() };
        for number in 0..count {
            let reader = group.reader(format!("r{number}").parse().unwrap(), quick()).await.unwrap();
            let (stop, count) = (readers.stop.clone(), readers.count.clone());
            readers.tasks.push(on_a_thread(reader, stop, count));
        }
        readers
    }

    /// Waits until so many events came to all of them together.
    pub(crate) async fn have(&self, count: u64) {
        eventually("the readers have it", LONG, async || {
            let there = self.count.load(Ordering::Relaxed);
            ensure!(there >= count, "{there} of {count} events");
            Ok(())
        })
        .await
        .unwrap();
    }

    pub(crate) async fn finish(self) -> Vec<Vec<Given>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.unwrap());
        }
        all
    }
}

/// Each reader has a thread of its own, as in a process of its own.
fn on_a_thread(reader: GroupReader, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> JoinHandle<Vec<Given>> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(follow(reader, stop, count)))
}

async fn follow(mut reader: GroupReader, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Vec<Given> {
    let mut given = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match reader.next(Duration::from_millis(100)).await {
            Ok(Some(Delivered::Events { segment, first, batch, .. })) => {
                let seen = Seen::of(segment, &batch).unwrap();
                assert_eq!(seen[0].offset, first);
                count.fetch_add(seen.len() as u64, Ordering::Relaxed);
                given.extend(seen.into_iter().map(Given::Event));
            }
            Ok(Some(Delivered::Checkpoint(name))) => given.push(Given::Checkpoint(name)),
            Ok(Some(Delivered::Truncated { .. })) => given.push(Given::Truncated),
            Ok(Some(Delivered::EndOfData)) => given.push(Given::End),
            Ok(_) => {}
            Err(problem) => assert!(problem.is_transient(), "{problem}"),
        }
    }
    reader.close().await.unwrap();
    given
}

pub(crate) fn events(given: &[Vec<Given>]) -> Vec<Seen> {
    let events =
        given.iter().flatten().filter_map(|one| if let Given::Event(seen) = one { Some(seen.clone()) } else { None });
    events.collect()
}

/// Every event of the stream came to one reader, once.
pub(crate) fn assert_shared(given: &[Vec<Given>], expected: &[Seen]) {
    let seen = events(given);
    let places: BTreeSet<_> = seen.iter().map(|one| (one.segment, one.offset)).collect();
    assert_eq!(places.len(), seen.len(), "nothing came twice");
    let all: BTreeSet<_> = seen.into_iter().collect();
    let expected: BTreeSet<_> = expected.iter().cloned().collect();
    assert!(all == expected, "missing: {:?}", expected.difference(&all).take(5).collect::<Vec<_>>());
}

#[tokio::test]
async fn s15_a_group_goes_on_at_a_checkpoint_and_at_a_generated_cut() {
    let stage = Stage::new("checkpoints", 4).await;
    let index = &stage.streams.index;
    let background = Background::start(&stage.client, &stage.streams, 2, 6).await;
    let group = stage.client.create_group(&config(&stage.streams, "first", CutKind::Unbounded)).await.unwrap();
    let readers = Readers::start(&group, 3).await;
    readers.have(100).await;
    let cuts = group.initiate_checkpoint("noon", LONG).await.unwrap();
    readers.have(300).await;
    let generated = group.generate_stream_cuts(LONG).await.unwrap();
    let at_call = readers.count.load(Ordering::Relaxed);
    let counts = background.finish().await;
    let total: u64 = counts.values().sum();
    readers.have(total).await;
    eventually("nothing is unread", LONG, async || {
        let bytes = group.unread_bytes().await?;
        ensure!(bytes == 0, "{bytes} bytes are unread");
        Ok(())
    })
    .await
    .unwrap();
    let given = readers.finish().await;
    let all = witness(&stage.client, &stage.streams).await;
    assert_exact(&all, &counts);
    assert_shared(&given, &all);
    assert_eq!(group.last_checkpoint().await.unwrap().map(|(name, _)| name).as_deref(), Some("noon"));

    // Whatever came to a reader before its checkpoint is not given again; everything else is.
    let before: BTreeSet<Seen> = given
        .iter()
        .flat_map(|of_one| of_one.iter().take_while(|one| **one != Given::Checkpoint("noon".to_owned())))
        .filter_map(|one| if let Given::Event(seen) = one { Some(seen.clone()) } else { None })
        .collect();
    assert!(
        given.iter().all(|of_one| of_one.contains(&Given::Checkpoint("noon".to_owned()))),
        "every reader passed it"
    );
    let again = |name: &'static str, cut: CutKind| {
        let (client, config) = (stage.client.clone(), config(&stage.streams, name, cut));
        async move {
            let group = client.create_group(&config).await.unwrap();
            Readers::start(&group, 2).await
        }
    };
    let second = again("second", CutKind::At(cuts[index].clone())).await;
    second.have(total - before.len() as u64).await;
    let rest: BTreeSet<Seen> = events(&second.finish().await).into_iter().collect();
    assert!(rest.is_disjoint(&before) && rest.len() + before.len() == all.len());

    let third = again("third", CutKind::At(generated[index].clone())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest = events(&third.finish().await).len() as u64;
    assert!(rest <= total - 300 && rest >= total.saturating_sub(at_call) / 2, "{rest} of {total} after {at_call}");
    for name in ["first", "second", "third"] {
        stage.client.delete_group(&name.parse().unwrap()).await.unwrap();
    }
}

/// Readers come and go, the stream splits and merges: each event comes to one of them, and those of a key in order.
#[tokio::test]
async fn each_event_comes_to_one_reader_while_readers_come_and_go() {
    let stage = Stage::new("sharing", 3).await;
    let group = stage.client.create_group(&config(&stage.streams, "sharing", CutKind::Unbounded)).await.unwrap();
    let background = Background::start(&stage.client, &stage.streams, 2, 6).await;
    let readers = Readers::start(&group, 3).await;
    stage.streams.split(0).await.unwrap();
    readers.have(60).await;
    // One joins and leaves again.
    let guest = group.reader("guest".parse().unwrap(), quick()).await.unwrap();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), readers.count.clone());
    let visiting = on_a_thread(guest, stop.clone(), count);
    stage.streams.merge(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let guest = visiting.await.unwrap();
    let counts = background.finish().await;
    readers.have(counts.values().sum()).await;
    let mut given = readers.finish().await;
    given.push(guest);
    let all = witness(&stage.client, &stage.streams).await;
    assert_exact(&all, &counts);
    assert_shared(&given, &all);
    stage.client.delete_group(&"sharing".parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_dead_readers_segments_go_on_at_the_position_that_is_known() {
    let stage = Stage::new("orphans", 4).await;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 12, 10).await;
    let group = stage.client.create_group(&config(&stage.streams, "orphans", CutKind::Unbounded)).await.unwrap();
    let mut dying = group.reader("dying".parse().unwrap(), quick()).await.unwrap();
    let mut taken = Vec::new();
    while taken.is_empty() {
        if let Some(Delivered::Events { segment, batch, .. }) = dying.next(LONG).await.unwrap() {
            taken.extend(Seen::of(segment, &batch).unwrap().into_iter().map(Given::Event));
        }
    }
    let last = dying.position();
    drop(dying);
    let heir = Readers::start(&group, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(heir.count.load(Ordering::Relaxed), 0, "what a living reader has is nobody else's");
    assert!(group.reader_offline(&"dying".parse().unwrap(), Some(&last)).await.unwrap());
    heir.have(120 - taken.len() as u64).await;
    let mut given = heir.finish().await;
    given.push(taken);
    assert_shared(&given, &witness(&stage.client, &stage.streams).await);
}

/// The second half of S11: a group is reset to other cuts; its old readers are told.
#[tokio::test]
async fn s11_a_group_is_reset_to_a_range_and_to_the_beginning() {
    let stage = Stage::new("resetting", 2).await;
    let index = &stage.streams.index;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    let mut cuts = Vec::new();
    for round in 0..4 {
        cuts.push(stage.client.tails(index).await.unwrap());
        numbered.write("k", 5, 6).await;
        if round == 1 {
            stage.streams.split(1).await.unwrap();
        }
    }
    let group = stage.client.create_group(&config(&stage.streams, "resetting", CutKind::Unbounded)).await.unwrap();
    let mut old = group.reader("old".parse().unwrap(), quick()).await.unwrap();
    let mut ranged = config(&stage.streams, "resetting", CutKind::At(cuts[1].clone()));
    ranged.to = [(index.clone(), CutKind::At(cuts[3].clone()))].into();
    let group = group.reset(&ranged).await.unwrap();
    let told = eventually("the old reader is told", LONG, async || match old.next(Duration::from_millis(50)).await {
        Ok(given) => anyhow::bail!("it was given {given:?}"),
        Err(problem) => Ok(problem.kind),
    });
    assert_eq!(told.await.unwrap(), "ReinitializationRequired");
    let readers = Readers::start(&group, 2).await;
    readers.have(60).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let given = readers.finish().await;
    assert!(given.iter().flatten().any(|one| *one == Given::End), "the end of the range is told");
    let all = witness(&stage.client, &stage.streams).await;
    let within = |seen: &&Seen| (6..18).contains(&seen.numbered().unwrap().1);
    assert_shared(&given, &all.iter().filter(within).cloned().collect::<Vec<_>>());
    let group = group.reset(&config(&stage.streams, "resetting", CutKind::Unbounded)).await.unwrap();
    let readers = Readers::start(&group, 1).await;
    readers.have(120).await;
    assert_shared(&readers.finish().await, &all);
    assert_exact(&all, &Counts::from_iter((0..5).map(|n| (format!("k{n}"), 24))));
}

#[tokio::test]
async fn a_group_is_told_of_a_truncation_and_goes_on_behind_it() {
    let stage = Stage::new("overtaken", 2).await;
    let index = &stage.streams.index;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 6, 5).await;
    let group = stage.client.create_group(&config(&stage.streams, "overtaken", CutKind::Unbounded)).await.unwrap();
    let cut = stage.client.tails(index).await.unwrap();
    stage.streams.truncate(cut).await.unwrap();
    numbered.write("k", 6, 5).await;
    let readers = Readers::start(&group, 1).await;
    readers.have(30).await;
    let given = readers.finish().await;
    assert_eq!(given[0].iter().filter(|one| **one == Given::Truncated).count(), 1, "{given:?}");
    assert_shared(&given, &witness(&stage.client, &stage.streams).await);
}
