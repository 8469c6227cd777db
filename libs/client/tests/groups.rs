//! Reader groups on a real bucket: shares, scaling, checkpoints, death, reset, ends, retention.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use client::{Delivered, GroupOptions, GroupReader, ReaderGroup};
use futures::future::join_all;
use stage::{
    LONG,
    reading::{EVENT_BYTES, Reading, events},
};
use testkit::eventually;
use types::{IndexName, Offset, SegmentId, StreamCut};
use wire::{
    Problem,
    coordinator::{CutKind, GroupConfig, GroupRetention},
};

type Events = Vec<(SegmentId, Offset)>;

fn config(indexes: &[&IndexName]) -> GroupConfig {
    GroupConfig {
        group: "g".parse().unwrap(),
        scope: "test".parse().unwrap(),
        from: indexes.iter().map(|index| ((*index).clone(), CutKind::Unbounded)).collect(),
        to: BTreeMap::new(),
        checkpoint_ms: 0,
        retention: GroupRetention::None,
    }
}

fn often() -> GroupOptions {
    GroupOptions { refresh: Duration::from_millis(50), reader_timeout: None }
}

async fn reader(group: &ReaderGroup, name: &str) -> GroupReader {
    group.reader(name.parse().unwrap(), often()).await.unwrap()
}

/// A reader and what it was given.
struct Seen {
    reader: GroupReader,
    events: Events,
    checkpoints: Vec<(String, usize)>,
    ended: bool,
    truncated: usize,
}

impl Seen {
    async fn new(group: &ReaderGroup, name: &str) -> Self {
        let reader = reader(group, name).await;
        Self { reader, events: vec![], checkpoints: vec![], ended: false, truncated: 0 }
    }

    /// Takes what comes, a moment long.
    async fn step(&mut self) -> Result<(), Problem> {
        match self.reader.next(Duration::from_millis(20)).await? {
            Some(Delivered::Events { segment, first, batch, .. }) => {
                let new = events(segment, &batch);
                assert_eq!(new[0].1, first);
                self.events.extend(new);
            }
            Some(Delivered::Checkpoint(name)) => self.checkpoints.push((name, self.events.len())),
            Some(Delivered::EndOfData) => self.ended = true,
            Some(Delivered::Truncated { .. }) => self.truncated += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Lets all readers read until the check holds.
async fn until(all: &mut [Seen], mut check: impl FnMut(&[Seen]) -> bool) {
    eventually(LONG, async || {
        for done in join_all(all.iter_mut().map(Seen::step)).await {
            done.unwrap();
        }
        check(all)
    })
    .await;
}

fn count(all: &[Seen]) -> usize {
    all.iter().map(|seen| seen.events.len()).sum()
}

fn shares(all: &[Seen]) -> Vec<usize> {
    all.iter().map(|seen| seen.reader.position().len()).collect()
}

/// Every event of the index once, and the order of each reader's segments right.
fn assert_exact(stage: &Reading, index: &IndexName, all: &[Seen]) {
    let mut found: Events = all.iter().flat_map(|seen| seen.events.iter().copied()).collect();
    let total = found.len();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), total, "an event was given twice");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), stage.events(index));
}

#[tokio::test]
async fn readers_share_segments_evenly_through_scaling_and_every_event_goes_to_one() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 4);
    stage.append_all(&shop, 30);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut notices = group.notices();
    let mut all = vec![Seen::new(&group, "a").await];
    assert_eq!(shares(&all), [4]);
    until(&mut all, |all| count(all) >= 20).await;
    all.push(Seen::new(&group, "b").await);
    until(&mut all, |all| shares(all) == [2, 2]).await;
    all.push(Seen::new(&group, "c").await);
    until(&mut all, |all| count(all) == 120 && shares(all).iter().all(|n| (1..=2).contains(n))).await;

    // Four become one, one becomes five.
    let one = stage.scale(&shop, &stage.present(&shop), 1);
    stage.append_all(&shop, 20);
    let five = stage.scale(&shop, &one, 5);
    stage.append_all(&shop, 20);
    until(&mut all, |all| count(all) == 240 && shares(all).iter().sum::<usize>() == 5).await;
    until(&mut all, |all| shares(all).iter().all(|n| (1..=2).contains(n))).await;
    assert_exact(&stage, &shop, &all);
    for seen in &all {
        let of_five = seen.events.iter().position(|(segment, _)| five.contains(segment));
        let later = &seen.events[of_five.unwrap_or(seen.events.len())..];
        assert!(later.iter().all(|(segment, _)| five.contains(segment)), "successors come after all they follow");
    }
    eventually(LONG, async || {
        let notice = notices.borrow_and_update().clone();
        notice.segment_count == 5 && notice.readers.len() == 3 && !notice.end_of_data
    })
    .await;

    // One goes; the others get its segments and go on where it was.
    let gone = all.remove(0);
    let kept = gone.events.clone();
    gone.reader.close().await.unwrap();
    stage.append_all(&shop, 10);
    let before = kept.len();
    until(&mut all, |all| count(all) + before == 290).await;
    let mut found: Events = all.iter().flat_map(|seen| seen.events.clone()).chain(kept).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), stage.events(&shop));
    assert_eq!(group.reader("b".parse().unwrap(), often()).await.err().unwrap().kind, "ReaderExists");
}

#[tokio::test]
async fn a_group_that_begins_at_a_checkpoint_gets_exactly_what_came_behind_it() {
    let stage = Reading::new().await;
    let (shop, bar) = (stage.stream("shop", 3), stage.stream("bar", 1));
    stage.append_all(&shop, 40);
    stage.append_all(&bar, 40);
    let mut config = config(&[&shop, &bar]);
    config.retention = GroupRetention::AtCheckpoint;
    let group = stage.client.create_group(&config).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await, Seen::new(&group, "b").await];
    until(&mut all, |all| count(all) > 40).await;
    let asked = {
        let group = group.clone();
        tokio::spawn(async move { group.initiate_checkpoint("first", LONG).await })
    };
    until(&mut all, |all| asked.is_finished() && all.iter().all(|seen| seen.checkpoints.len() == 1)).await;
    let cuts = asked.await.unwrap().unwrap();
    assert_eq!(group.last_checkpoint().await.unwrap().unwrap(), ("first".to_owned(), cuts.clone()));

    // What each was given before it was handed the checkpoint, and nothing else, lies before the cuts.
    let mut before = BTreeSet::new();
    for seen in &all {
        assert_eq!(seen.checkpoints[0].0, "first");
        before.extend(seen.events[..seen.checkpoints[0].1].iter().copied());
    }
    let all_events: BTreeSet<_> = stage.events(&shop).into_iter().chain(stage.events(&bar)).collect();
    let offset = |segment: SegmentId| cuts[if segment.stream == 1 { &shop } else { &bar }].offset(segment);
    let expected = all_events.iter().filter(|(segment, at)| *at < offset(*segment));
    assert_eq!(before, expected.copied().collect());
    assert!(cuts.iter().all(|(index, cut)| cut.0.len() == stage.present(index).len()));
    let told = stage.truth.lock().unwrap().consumed.iter().map(|c| (c.index.clone(), c.cut.clone())).collect();
    assert_eq!(cuts, told, "retention is held back there");

    // After a scale, from the checkpoint on.
    stage.scale(&shop, &stage.present(&shop), 2);
    stage.append_all(&shop, 10);
    config.from = cuts.into_iter().map(|(index, cut)| (index, CutKind::At(cut))).collect();
    let group = group.reset(&config).await.unwrap();
    for seen in &mut all {
        assert_eq!(until_error(&mut seen.reader).await.kind, "ReinitializationRequired");
        assert_eq!(seen.reader.next(Duration::ZERO).await.unwrap_err().kind, "ReinitializationRequired");
    }
    let mut all = vec![Seen::new(&group, "a").await];
    let rest = all_events.len() - before.len() + 20;
    until(&mut all, |all| count(all) >= rest).await;
    until(&mut all, |_| true).await;
    let found: BTreeSet<_> = all[0].events.iter().copied().collect();
    assert_eq!((found.len(), all[0].events.len()), (rest, rest));
    assert!(found.is_disjoint(&before));

    stage.client.delete_group(&config.group).await.unwrap();
    assert_eq!(until_error(&mut all[0].reader).await.kind, "ReinitializationRequired");
    assert_eq!(stage.client.reader_group(&config.group).await.err().unwrap().kind, "UnknownGroup");
}

async fn until_error(reader: &mut GroupReader) -> Problem {
    let mut failed = None;
    eventually(LONG, async || {
        failed = reader.next(Duration::from_millis(50)).await.err();
        failed.is_some()
    })
    .await;
    failed.unwrap()
}

#[tokio::test]
async fn what_a_dead_reader_did_not_tell_is_given_again_and_nothing_else() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 30);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut dead = Seen::new(&group, "dead").await;
    until(std::slice::from_mut(&mut dead), |all| count(all) > 10).await;

    // With its position nothing is repeated.
    let last = dead.reader.position();
    drop(dead.reader);
    assert!(group.reader_offline(&"dead".parse().unwrap(), Some(&last)).await.unwrap());
    assert!(!group.reader_offline(&"dead".parse().unwrap(), None).await.unwrap());
    let mut second = Seen::new(&group, "second").await;
    until(std::slice::from_mut(&mut second), |all| count(all) > 20).await;
    let both: BTreeSet<_> = dead.events.iter().chain(&second.events).copied().collect();
    assert_eq!(both.len(), dead.events.len() + second.events.len());

    // Without, what it told last counts: at least everything before its last batch is not repeated.
    let told = group.readers().await.unwrap().remove(&"second".parse().unwrap()).unwrap();
    drop(second.reader);
    assert_eq!(group.expire_readers(Duration::from_secs(3600)).await.unwrap(), []);
    assert!(group.reader_offline(&"second".parse().unwrap(), None).await.unwrap());
    let mut third = vec![Seen::new(&group, "third").await];
    assert_eq!(third[0].reader.position(), told);
    let rest = told.values().map(|offset| 30 - usize::try_from(*offset).unwrap()).sum::<usize>();
    until(&mut third, |all| count(all) == rest).await;
    let all: BTreeSet<_> = both.iter().chain(&third[0].events).copied().collect();
    assert_eq!(all, stage.events(&shop));
}

#[tokio::test]
async fn a_reader_that_is_taken_for_dead_stops_and_a_checkpoint_does_not_wait_for_it() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 10);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut silent = reader(&group, "silent").await;
    let options = GroupOptions { reader_timeout: Some(Duration::from_millis(400)), ..often() };
    let awake = group.reader("awake".parse().unwrap(), options).await.unwrap();
    let mut awake = vec![Seen { reader: awake, events: vec![], checkpoints: vec![], ended: false, truncated: 0 }];
    let asked = {
        let group = group.clone();
        tokio::spawn(async move { group.initiate_checkpoint("c", LONG).await })
    };
    until(&mut awake, |all| asked.is_finished() && count(all) == 20).await;
    let cuts = asked.await.unwrap().unwrap();
    assert_eq!(cuts[&shop].0.len(), 2);
    assert_eq!(until_error(&mut silent).await.kind, "ReaderOffline");
    assert_eq!(silent.next(Duration::ZERO).await.unwrap_err().kind, "ReaderOffline");
    assert_eq!(silent.close().await.unwrap_err().kind, "ReaderOffline");
    let unanswered = group.generate_stream_cuts(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(unanswered.kind, "CheckpointUnknown", "nobody calls next");
}

#[tokio::test]
async fn a_bounded_group_ends_and_knows_how_much_is_left() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 10);
    let from = stage.client.tails(&shop).await.unwrap();
    stage.append_all(&shop, 5);
    stage.scale(&shop, &stage.present(&shop), 1);
    stage.append_all(&shop, 8);
    let to = stage.client.tails(&shop).await.unwrap();
    let merged = stage.present(&shop)[0];
    stage.append_all(&shop, 100);
    let mut config = config(&[]);
    config.from = [(shop.clone(), CutKind::At(from.clone()))].into();
    config.to = [(shop.clone(), CutKind::At(to.clone()))].into();
    let group = stage.client.create_group(&config).await.unwrap();
    assert_eq!(group.unread_bytes().await.unwrap(), 18 * EVENT_BYTES);
    assert_eq!(group.stream_cuts().await.unwrap()[&shop], from);
    let notices = group.notices();
    let mut all = vec![Seen::new(&group, "a").await, Seen::new(&group, "b").await];
    until(&mut all, |all| all.iter().all(|seen| seen.ended)).await;
    assert_eq!(count(&all), 18);
    assert_eq!(all.iter().flat_map(|s| &s.events).filter(|(s, _)| *s == merged).count(), 8);
    assert_eq!(group.stream_cuts().await.unwrap()[&shop], to);
    assert_eq!(group.unread_bytes().await.unwrap(), 0);
    eventually(LONG, async || notices.borrow().end_of_data).await;

    // Another that has no end, and where a cut is asked for while it reads.
    config.to.clear();
    let group = group.reset(&config).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await];
    until(&mut all, |all| count(all) == 118).await;
    let at = all[0].reader.position();
    let asked = {
        let group = group.clone();
        tokio::spawn(async move { group.generate_stream_cuts(LONG).await })
    };
    until(&mut all, |_| asked.is_finished()).await;
    assert_eq!(asked.await.unwrap().unwrap()[&shop], StreamCut(at));
    assert!(all[0].checkpoints.is_empty(), "nobody sees it");
    assert_eq!(group.unread_bytes().await.unwrap(), 0);
    stage.append_all(&shop, 7);
    stage.seal_stream(&shop);
    assert_eq!(group.unread_bytes().await.unwrap(), 7 * EVENT_BYTES);
    until(&mut all, |all| all[0].ended).await;
    assert_eq!(count(&all), 125);
    let cut = stage.client.tails(&shop).await.unwrap();
    group.update_retention_cut(&shop, &cut).await.unwrap();
    assert_eq!(stage.truth.lock().unwrap().consumed.last().map(|c| (c.cut.clone(), c.generation)), Some((cut, 2)));
}

#[tokio::test]
async fn a_lagging_group_goes_on_at_the_head_and_says_so() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 5);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await, Seen::new(&group, "b").await];
    until(&mut all, |all| count(all) == 10 && shares(all) == [1, 1]).await;
    // While nobody reads.
    stage.append_all(&shop, 45);
    let [a, b] = stage.present(&shop)[..] else { panic!() };
    let merged = stage.scale(&shop, &[a, b], 1)[0];
    stage.append(&shop, merged, 50);
    stage.truncate(&shop, &StreamCut([(a, 49), (b, 48)].into()));
    until(&mut all, |all| all.iter().map(|seen| seen.truncated).sum::<usize>() == 2).await;
    // Those two read on; the next truncation takes both segments away.
    stage.truncate(&shop, &StreamCut([(merged, 45)].into()));
    until(&mut all, |all| all.iter().flat_map(|seen| &seen.events).any(|event| *event == (merged, 49))).await;
    let mut of_merged: Events = all.iter().flat_map(|s| s.events.clone()).filter(|(s, _)| *s == merged).collect();
    of_merged.sort_unstable();
    of_merged.retain(|(_, offset)| *offset >= 45);
    assert_eq!(of_merged, (45..50).map(|offset| (merged, offset)).collect::<Events>());
    stage.append(&shop, merged, 5);
    until(&mut all, |all| all.iter().flat_map(|seen| &seen.events).any(|event| *event == (merged, 54))).await;
}

#[tokio::test]
async fn a_group_from_cuts_that_are_truncated_begins_at_the_head_and_ends_where_it_should() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 10);
    let (from, first) = (stage.client.heads(&shop).await.unwrap(), stage.client.tails(&shop).await.unwrap());
    let merged = stage.scale(&shop, &stage.present(&shop), 1)[0];
    stage.append(&shop, merged, 10);
    let to = stage.client.tails(&shop).await.unwrap();
    stage.append(&shop, merged, 10);
    stage.truncate(&shop, &StreamCut([(merged, 4)].into()));
    let at = |cut: &StreamCut| [(shop.clone(), CutKind::At(cut.clone()))].into();
    let mut config = GroupConfig { from: at(&from), to: at(&to), ..config(&[]) };
    let group = stage.client.create_group(&config).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await];
    until(&mut all, |all| all[0].ended).await;
    assert_eq!(all[0].events, (4..10).map(|offset| (merged, offset)).collect::<Events>());
    config.to = at(&first);
    let group = group.reset(&config).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await];
    until(&mut all, |all| all[0].ended).await;
    assert_eq!(count(&all), 0, "everything up to the end is gone");
}

#[tokio::test]
async fn automatic_checkpoints_come_by_themselves_and_a_reader_closes_where_it_says() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 1);
    stage.append_all(&shop, 20);
    let segment = stage.present(&shop)[0];
    let config = GroupConfig { checkpoint_ms: 100, retention: GroupRetention::AtCheckpoint, ..config(&[&shop]) };
    let group = stage.client.create_group(&config).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await];
    until(&mut all, |all| all[0].checkpoints.len() >= 3 && count(all) == 20).await;
    assert!(all[0].checkpoints.iter().all(|(name, _)| name.starts_with("auto-")));
    until(&mut all, |_| stage.truth.lock().unwrap().consumed.iter().any(|c| c.cut.offset(segment) == 20)).await;
    let seen = all.remove(0);
    seen.reader.close_at(&[(segment, 12)].into()).await.unwrap();
    assert_eq!(group.stream_cuts().await.unwrap()[&shop].offset(segment), 12);
    let mut all = vec![Seen::new(&group, "a").await];
    until(&mut all, |all| count(all) == 8).await;
    assert_eq!(all[0].events[0], (segment, 12));
}

#[tokio::test]
async fn a_killed_server_costs_no_event_and_repeats_none() {
    let mut stage = Reading::new().await;
    let shop = stage.stream("shop", 3);
    stage.append_all(&shop, 40);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut all = vec![Seen::new(&group, "a").await, Seen::new(&group, "b").await];
    until(&mut all, |all| count(all) > 20).await;
    stage.world.nats.restart().await.unwrap();
    stage.scale(&shop, &stage.present(&shop)[..2], 1);
    stage.append_all(&shop, 40);
    // Errors in between are told, and a later call goes on.
    eventually(LONG, async || {
        join_all(all.iter_mut().map(Seen::step)).await.into_iter().flatten().for_each(drop);
        count(&all) >= 200
    })
    .await;
    until(&mut all, |_| true).await;
    assert_exact(&stage, &shop, &all);
}

#[tokio::test]
async fn a_checkpoint_is_passed_only_after_the_reader_was_handed_it() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 1);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let mut reader = reader(&group, "a").await;
    let unfinished = group.initiate_checkpoint("c", Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((unfinished.kind.as_str(), unfinished.outcome), ("CheckpointUnknown", wire::Outcome::Unknown));
    assert_eq!(group.initiate_checkpoint("c", LONG).await.unwrap_err().kind, "CheckpointExists");
    let gained = stage.present(&shop);
    let first = reader.next(LONG).await.unwrap();
    assert_eq!(first, Some(Delivered::Rebalanced { gained, released: vec![] }), "it was queued before");
    assert_eq!(reader.next(LONG).await.unwrap(), Some(Delivered::Checkpoint("c".to_owned())));
    assert_eq!(group.last_checkpoint().await.unwrap(), None);
    assert_eq!(reader.next(Duration::from_millis(20)).await.unwrap(), None);
    assert_eq!(group.last_checkpoint().await.unwrap().unwrap().0, "c");
}

#[tokio::test]
async fn many_readers_that_come_at_once_and_a_coordinator_that_is_away_do_no_harm() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 24);
    stage.append_all(&shop, 10);
    let group = stage.client.create_group(&config(&[&shop])).await.unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("r{n}")).collect();
    let mut all = join_all(names.iter().map(|name| Seen::new(&group, name))).await;
    until(&mut all, |all| shares(all) == [2; 12] && count(all) == 240).await;

    // While nobody says what follows a sealed segment, the others are read.
    let sealed = stage.present(&shop)[0];
    stage.truth.lock().unwrap().away = true;
    stage.seal(&shop, &[sealed]);
    stage.present(&shop)[1..].iter().for_each(|segment| stage.append(&shop, *segment, 5));
    until(&mut all, |all| count(all) == 240 + 23 * 5).await;
    stage.truth.lock().unwrap().away = false;
    let next = stage.scale(&shop, &[sealed], 2);
    next.iter().for_each(|segment| stage.append(&shop, *segment, 1));
    until(&mut all, |all| count(all) == 240 + 23 * 5 + 2).await;
    assert_exact(&stage, &shop, &all);
}
