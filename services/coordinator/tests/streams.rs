//! The coordinator through its doors, on a real nats-server, with a segment-store of a few lines behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use bus::{Bucket, Door, Doors};
use coordinator::Coordinator;
use host::{Host, InProcess, start_in_process};
use testkit::{World, eventually};
use types::{SegmentId, Timestamp};
use wire::{
    Code, Empty, Service,
    coordinator::{
        CreateStream, DeleteStream, DescribePlacement, DescribeStream, ListStreams, NewStream, StreamDescription,
        StreamName, StreamsOf,
    },
    decode,
    segment_store::{CreateSegment, DeleteSegment},
    views::{Member, PLACEMENT_KEY, Placement, VIEWS},
};

const SOON: Duration = Duration::from_secs(20);

type Segments = Arc<Mutex<BTreeSet<SegmentId>>>;

async fn coordinator(world: &World, replica: &str) -> Result<InProcess> {
    let settings = world.settings(replica, &["common.lease_ttl=1s", "coordinator.rebalance_min_interval=100ms"])?;
    Ok(start_in_process::<Coordinator>(&settings, None).await?)
}

/// Keeps the names of segments and nothing else.
async fn store_doors(host: &Host) -> Result<(Segments, Vec<Door>)> {
    let segments = Segments::default();
    let doors = Doors::new(&host.bus, Service::SegmentStore, &host.replica);
    let (created, deleted) = (segments.clone(), segments.clone());
    let create = doors
        .serve::<CreateSegment, _, _>(None, move |incoming| {
            created.lock().unwrap().insert(incoming.request.segment);
            async { Ok(Empty {}) }
        })
        .await?;
    let delete = doors
        .serve::<DeleteSegment, _, _>(None, move |incoming| {
            deleted.lock().unwrap().remove(&incoming.request.segment);
            async { Ok(Empty {}) }
        })
        .await?;
    Ok((segments, vec![create, delete]))
}

async fn views(host: &Host) -> Result<Bucket> {
    Ok(host.bus.bucket(VIEWS, None, 1).await?)
}

fn new(scope: &str, index: &str, segment_count: u16) -> NewStream {
    let (scope, index) = (scope.parse().unwrap(), index.parse().unwrap());
    NewStream { retention_days: Some(7), ..NewStream::fixed(scope, index, segment_count) }
}

fn name(index: &str) -> StreamName {
    StreamName { index: index.parse().unwrap() }
}

#[actix_rt::test]
async fn a_stream_is_created_shown_found_again_and_deleted() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
    let (segments, _doors) = store_doors(&host).await?;
    let created = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 4), SOON).await?;
    assert_eq!((created.segments.len(), created.epoch), (4, 0));
    let expected: BTreeSet<SegmentId> = created.segments.iter().map(|s| s.segment).collect();
    assert_eq!(*segments.lock().unwrap(), expected);

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
    assert!(segments.lock().unwrap().is_empty());
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
    let (segments, _doors) = store_doors(&host).await?;
    eventually(SOON, async || matches!(views.get("stream.shop").await, Ok(Some(_)))).await;
    assert_eq!(segments.lock().unwrap().len(), 2);
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
