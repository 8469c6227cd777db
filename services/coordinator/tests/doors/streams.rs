//! Streams from their creation to their deletion, and where the containers are.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use host::Host;
use testkit::{World, eventually};
use types::{SegmentId, Timestamp};
use wire::{
    Code, Empty, Service,
    coordinator::{
        CreateStream, DeleteStream, DescribePlacement, DescribeStream, ListStreams, StreamDescription, StreamsOf,
    },
    decode,
    views::{Member, PLACEMENT_KEY, Placement},
};

use crate::stage::{SOON, coordinator, name, new, store_doors, views};

#[actix_rt::test]
async fn a_stream_is_created_shown_found_again_and_deleted() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let (store, _doors) = store_doors(&host).await?;
    let created = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 4), SOON).await?;
    assert_eq!((created.segments.len(), created.epoch), (4, 0));
    let expected: BTreeSet<SegmentId> = created.segments.iter().map(|s| s.segment).collect();
    assert_eq!(store.lock().unwrap().names(), expected);

    let views = views(&host).await?;
    let shown = views.get("stream.shop").await?.expect("the view is written before the answer");
    assert_eq!(decode::<StreamDescription>(&shown.value)?, created);
    assert_eq!(host.bus.call::<CreateStream>(&(), &new("team", "shop", 4)).await?, created);
    assert_eq!(host.bus.call::<DescribeStream>(&(), &name("shop")).await?, created);
    assert_eq!(host.bus.call::<ListStreams>(&(), &StreamsOf::default()).await?.streams, vec![created]);
    for (request, kind) in [(new("other", "shop", 4), "IndexNameTaken"), (new("team", "shop", 5), "StreamDiffers")] {
        let refused = host.bus.call::<CreateStream>(&(), &request).await.unwrap_err();
        assert_eq!((refused.code, refused.kind.as_str()), (Code::Conflict, kind));
    }

    host.bus.call::<DeleteStream>(&(), &name("shop")).await?;
    host.bus.call::<DeleteStream>(&(), &name("shop")).await?;
    assert!(store.lock().unwrap().segments.is_empty());
    assert!(views.get("stream.shop").await?.is_none());
    let gone = host.bus.call::<DescribeStream>(&(), &name("shop")).await.unwrap_err();
    assert_eq!((gone.code, gone.kind.as_str()), (Code::NotFound, "UnknownIndex"));
    coordinator.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn what_was_begun_is_ended_by_the_next_leader() -> Result<()> {
    let world = World::start().await?;
    let first = coordinator(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let views = views(&host).await?;
    // Nobody owns the containers: the intent is journaled, the segments are not there.
    let waiting = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 2), Duration::from_secs(3)).await;
    assert!(waiting.unwrap_err().is_transient());
    assert!(views.get("stream.shop").await?.is_none());
    first.stop().await?;
    // What is local may vanish at any time.
    std::fs::remove_dir_all(world.data_dir())?;
    let second = coordinator(&world, "b").await?;
    let (store, _doors) = store_doors(&host).await?;
    eventually(SOON, async || matches!(views.get("stream.shop").await, Ok(Some(_)))).await;
    assert_eq!(store.lock().unwrap().segments.len(), 2);
    second.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn views_are_made_true_by_a_new_leader() -> Result<()> {
    let world = World::start().await?;
    let first = coordinator(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let (_, _doors) = store_doors(&host).await?;
    let shop = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 1), SOON).await?;
    first.stop().await?;
    let views = views(&host).await?;
    views.delete("stream.shop").await?;
    views.put("stream.ghost", wire::encode(&shop)).await?;
    let second = coordinator(&world, "b").await?;
    eventually(SOON, async || {
        let there = matches!(views.get("stream.shop").await, Ok(Some(_)));
        there && matches!(views.get("stream.ghost").await, Ok(None))
    })
    .await;
    second.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn containers_follow_the_living() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = Host::connect(Service::SegmentStore, world.common("test", &["common.lease_ttl=1s"])?).await?;
    let views = views(&host).await?;
    let member = |replica: &str, started: i64| Member {
        service: Service::SegmentStore,
        replica: replica.parse().unwrap(),
        started: Timestamp::from_nanos(started),
        exchange_address: None,
        slots: 0,
        unready: <_>::default(),
    };
    let shown = async || -> Placement {
        let entry = views.get(PLACEMENT_KEY).await.ok().flatten();
        entry.map(|e| decode(&e.value).unwrap()).unwrap_or_default()
    };
    let count = |placement: &Placement, replica: &str| {
        placement.assignments.iter().filter(|a| a.replica.as_str() == replica).count()
    };
    let one = host.announce(member("one", 1)).await?;
    eventually(SOON, async || count(&shown().await, "one") == 8).await;
    let two = host.announce(member("two", 1)).await?;
    eventually(SOON, async || (count(&shown().await, "one"), count(&shown().await, "two")) == (4, 4)).await;
    one.withdraw().await;
    eventually(SOON, async || count(&shown().await, "two") == 8).await;
    // The same name in a new process: every container gets a new generation.
    let before = shown().await;
    drop(two);
    let _two = host.announce(member("two", 2)).await?;
    eventually(SOON, async || {
        let after = shown().await;
        let newer = |a: &wire::views::Assignment| {
            before.assignments.iter().all(|b| a.container != b.container || a.generation > b.generation)
        };
        count(&after, "two") == 8 && after.assignments.iter().all(newer)
    })
    .await;
    let asked = host.bus.call::<DescribePlacement>(&(), &Empty {}).await?;
    assert_eq!(asked, shown().await);
    coordinator.stop().await?;
    Ok(())
}
