//! The leader ends after every single effect of every kind of work, and the next one brings it to its end.

use anyhow::Result;
use host::{Host, InProcess};
use testkit::{World, eventually};
use types::{KeyRange, StreamCut};
use wire::{
    Problem,
    coordinator::{
        CreateStream, DeleteScope, DeleteStream, ScaleStream, ScopeDeletion, SealStream, StreamDescription, TruncateAt,
        TruncateStream,
    },
};

use crate::stage::{
    Effect, SOON, Shared, caller, coordinator, described, everything, index, name, new, shown, store_doors, views,
    whole,
};

/// A coordinator that is replaced again and again, and its store.
struct Scene {
    world: World,
    host: Host,
    store: Shared,
    leader: InProcess,
    leaders: usize,
}

impl Scene {
    async fn start() -> Result<(Self, Vec<bus::Door>)> {
        let world = World::start().await?;
        let leader = coordinator(&world, "r0").await?;
        let host = caller(&world).await?;
        let (store, doors) = store_doors(&host).await?;
        Ok((Self { world, host, store, leader, leaders: 1 }, doors))
    }

    /// Lets the store break after `effects`, asks, replaces the leader, repairs the store.
    async fn interrupted<F>(self, effects: usize, mute: bool, ask: impl FnOnce(Host) -> F) -> Result<Self>
    where
        F: Future<Output = Result<(), Problem>>,
    {
        {
            let mut store = self.store.lock().unwrap();
            (store.patience, store.mute, store.refused) = (Some(effects), mute, 0);
            store.log.clear();
        }
        let refused = ask(self.host.clone()).await.unwrap_err();
        assert_eq!(refused.kind, "Broken");
        let next = coordinator(&self.world, &format!("r{}", self.leaders)).await?;
        self.leader.stop().await?;
        assert!(self.store.lock().unwrap().refused > 0);
        self.store.lock().unwrap().patience = None;
        Ok(Self { leader: next, leaders: self.leaders + 1, ..self })
    }

    async fn create(&self, index: &str, segments: u16) -> Result<StreamDescription> {
        Ok(self.host.bus.call_within::<CreateStream>(&(), &new("team", index, segments), SOON).await?)
    }

    /// What is described, once it is as wanted and shown; nobody has asked again meanwhile.
    async fn settled(&self, index: &str, wanted: impl Fn(&StreamDescription) -> bool) -> Result<StreamDescription> {
        eventually(SOON, async || shown(&self.host, index).await.is_some_and(|shown| wanted(&shown))).await;
        let there = described(&self.host, index).await?;
        assert_eq!(shown(&self.host, index).await.as_ref(), Some(&there));
        Ok(there)
    }
}

#[actix_rt::test]
async fn a_scale_is_ended_by_the_next_leader_wherever_the_first_one_ended() -> Result<()> {
    let (mut scene, _doors) = Scene::start().await?;
    let mut before = scene.create("shop", 2).await?;
    // Two are sealed and one is created, then one is sealed and two are created.
    for (effects, mute) in [(0, false), (1, false), (1, true), (2, true), (3, true)] {
        let ranges = if before.segments.len() == 2 { vec![whole()] } else { KeyRange::split_evenly(2) };
        let scale = everything(&before, &ranges);
        let asked = scale.clone();
        scene = scene
            .interrupted(effects, mute, |host| async move {
                host.bus.call_within::<ScaleStream>(&(), &asked, SOON).await.map(drop)
            })
            .await?;
        let after = scene.settled("shop", |shown| shown.epoch == before.epoch + 1).await?;
        assert_eq!(after.segments.iter().map(|s| s.range).collect::<Vec<_>>(), ranges, "after {effects}");
        assert_eq!(scene.host.bus.call::<ScaleStream>(&(), &scale).await?, after, "whoever asked may ask again");
        let store = scene.store.lock().unwrap();
        let open = store.segments.values().filter(|s| !s.sealed).count();
        assert_eq!(open, after.segments.len(), "one epoch, with its segments only");
        let created = store.log.iter().position(|e| matches!(e, Effect::Create(_))).unwrap();
        let sealed = store.log[..created].iter().filter(|e| matches!(e, Effect::Seal(_)));
        assert!(sealed.count() >= before.segments.len(), "{:?}", store.log);
        before = after.clone();
    }
    scene.leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_truncation_and_a_seal_are_ended_by_the_next_leader() -> Result<()> {
    let (mut scene, _doors) = Scene::start().await?;
    let names = ["a", "b", "c", "d"];
    // One is truncated, two are deleted.
    for (index_name, (effects, mute)) in names.iter().zip([(0, false), (1, true), (2, true), (3, true)]) {
        let first = scene.create(index_name, 2).await?;
        let opened = scene.host.bus.call::<ScaleStream>(&(), &everything(&first, &[whole()])).await?;
        let merged = opened.segments[0].segment;
        let begin = TruncateAt { index: index(index_name), cut: StreamCut([(merged, 6)].into()) };
        let asked = begin.clone();
        scene = scene
            .interrupted(effects, mute, |host| async move {
                host.bus.call_within::<TruncateStream>(&(), &asked, SOON).await.map(drop)
            })
            .await?;
        let after = scene.settled(index_name, |shown| shown.head == begin.cut).await?;
        let left = || scene.store.lock().unwrap().names().iter().filter(|s| s.stream == after.stream).count();
        eventually(SOON, async || left() == 1).await;
        assert_eq!(scene.store.lock().unwrap().segments[&merged].start, 6);
        assert_eq!(scene.host.bus.call::<TruncateStream>(&(), &begin).await?, after);
    }
    let first = scene.create("e", 2).await?;
    scene = scene
        .interrupted(1, true, |host| async move {
            host.bus.call_within::<SealStream>(&(), &name("e"), SOON).await.map(drop)
        })
        .await?;
    let after = scene.settled("e", |shown| shown.sealed).await?;
    let sealed = |s: &wire::coordinator::SegmentRange| scene.store.lock().unwrap().segments[&s.segment].sealed;
    assert!(first.segments.iter().all(sealed) && after.epoch == 0);
    scene.leader.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn creations_and_deletions_are_ended_by_the_next_leader() -> Result<()> {
    let (mut scene, _doors) = Scene::start().await?;
    scene = scene
        .interrupted(1, true, |host| async move {
            host.bus.call_within::<CreateStream>(&(), &new("team", "a", 2), SOON).await.map(drop)
        })
        .await?;
    let first = scene.settled("a", |_| true).await?;
    // A deletion takes along what a scale has begun and not ended.
    scene = scene
        .interrupted(3, true, |host| async move {
            let scale = everything(&first, &KeyRange::split_evenly(3));
            host.bus.call_within::<ScaleStream>(&(), &scale, SOON).await.map(drop)
        })
        .await?;
    for (effects, mute) in [(0, false), (1, true), (2, true)] {
        scene = scene
            .interrupted(effects, mute, |host| async move {
                host.bus.call_within::<DeleteStream>(&(), &name("a"), SOON).await.map(drop)
            })
            .await?;
        eventually(SOON, async || scene.store.lock().unwrap().segments.is_empty()).await;
        eventually(SOON, async || scene.create("a", 2).await.is_ok()).await;
    }
    scene.create("b", 2).await?;
    let delete = ScopeDeletion { scope: "team".parse()?, recursive: true };
    let asked = delete.clone();
    scene =
        scene
            .interrupted(2, true, |host| async move {
                host.bus.call_within::<DeleteScope>(&(), &asked, SOON).await.map(drop)
            })
            .await?;
    eventually(SOON, async || scene.store.lock().unwrap().segments.is_empty()).await;
    eventually(
        SOON,
        async || matches!(views(&scene.host).await.unwrap().list("stream.").await, Ok(all) if all.is_empty()),
    )
    .await;
    scene.host.bus.call_within::<DeleteScope>(&(), &delete, SOON).await?;
    eventually(SOON, async || scene.create("a", 1).await.is_ok()).await;
    scene.leader.stop().await?;
    Ok(())
}
