//! Reader groups through their doors.

use anyhow::Result;
use testkit::World;
use types::StreamCut;
use wire::{
    coordinator::{
        CreateGroup, CutKind, DeleteGroup, DescribeGroup, GroupConfig, GroupRetention, GroupsOf, ListGroups,
        NamedGroup, ResetGroup,
    },
    views::GROUPS,
};

use crate::stage::{caller, coordinator, create, index, new, split_first, store_doors};

#[actix_rt::test]
async fn a_group_begins_at_the_tail_as_it_was() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &[]).await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let stream = create(&host, &new("shop", 2)).await?;
    let append = |segment| store.lock().unwrap().append(segment, "event");
    let (a, b) = (stream.segments[0].segment, stream.segments[1].segment);
    [a, a, b].into_iter().for_each(append);
    let asked = GroupConfig {
        group: "readers".parse()?,
        scope: "team".parse()?,
        from: [(index("shop"), CutKind::Tail)].into(),
        to: [].into(),
        checkpoint_ms: 30_000,
        retention: GroupRetention::None,
    };
    let created = host.bus.call::<CreateGroup>(&(), &asked).await?;
    let tail = CutKind::At(StreamCut([(a, 2), (b, 1)].into()));
    assert_eq!((created.generation, &created.config.from[&index("shop")]), (1, &tail));
    append(a);
    assert_eq!(host.bus.call::<CreateGroup>(&(), &asked).await?, created, "the tail as it was when it was created");
    let named = NamedGroup { group: "readers".parse()? };
    assert_eq!(host.bus.call::<DescribeGroup>(&(), &named).await?, created);
    let of = GroupsOf { scope: Some("team".parse()?), ..GroupsOf::default() };
    assert_eq!(host.bus.call::<ListGroups>(&(), &of).await?.groups, vec![created]);

    let documents = host.bus.bucket(GROUPS, None, 1).await?;
    documents.put("readers.1", "held by readers").await?;
    let scaled = split_first(&host, &stream).await?;
    let reset = host.bus.call::<ResetGroup>(&(), &asked).await?;
    let ends = scaled.segments.iter().map(|s| (s.segment, u64::from(s.segment == b)));
    let tail = CutKind::At(StreamCut(ends.collect()));
    assert_eq!((reset.generation, &reset.config.from[&index("shop")]), (2, &tail), "of the present epoch");
    assert!(documents.get("readers.1").await?.is_none(), "nobody reads under it any more");
    let other = GroupConfig { checkpoint_ms: 0, ..asked };
    assert_eq!(host.bus.call::<CreateGroup>(&(), &other).await.unwrap_err().kind, "GroupDiffers");
    host.bus.call::<DeleteGroup>(&(), &named).await?;
    host.bus.call::<DeleteGroup>(&(), &named).await?;
    assert_eq!(host.bus.call::<DescribeGroup>(&(), &named).await.unwrap_err().kind, "UnknownGroup");
    leader.stop().await?;
    Ok(())
}
