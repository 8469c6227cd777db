//! What an index is beyond its name: retention, scaling, quotas, what becomes of its events, and what it may adopt.

use testkit::eventually;
use wire::{
    Problem,
    coordinator::{NewStream, RetentionPolicy, ScalingPolicy},
    index_provisioner::{IndexChange, IndexDescription, Reclaim, UpdateIndex},
    views::{QUOTAS, Quota},
};

use super::*;

const DAY_MS: u64 = 86_400_000;

struct Stage {
    world: World,
    host: Host,
    coordinator: Coordinator,
    provisioner: InProcess,
}

impl Stage {
    async fn start() -> Result<Self> {
        let world = World::start().await?;
        let host = Host::connect(Service::Gateway, world.common("test", &[])?).await?;
        let (coordinator, provisioner) = (Coordinator::open(&host).await?, provisioner(&world, "a").await?);
        Ok(Self { world, host, coordinator, provisioner })
    }

    async fn create(&self, options: IndexOptions) -> Result<IndexDescription, Problem> {
        let new = NewIndex { options, ..index("i", Some("shop")) };
        self.host.bus.call_within::<CreateIndex>(&(), &new, SOON).await
    }

    async fn update(&self, days: Option<u32>, options: IndexOptions) -> Result<IndexDescription, Problem> {
        let change = IndexChange { instance: "i".parse().unwrap(), retention_days: days, options, order: 0 };
        self.host.bus.call_within::<UpdateIndex>(&(), &change, SOON).await
    }

    async fn delete(&self) -> Result<(), Problem> {
        let name = InstanceName { instance: "i".parse().unwrap(), order: 0 };
        self.host.bus.call_within::<DeleteIndex>(&(), &name, SOON).await.map(drop)
    }

    /// Another replica takes over; something happens while nobody leads.
    async fn next_leader(self, name: &str, between: impl AsyncFnOnce(&Coordinator) -> Result<()>) -> Result<Self> {
        let Self { world, host, coordinator, provisioner } = self;
        provisioner.stop().await?;
        between(&coordinator).await?;
        let provisioner = super::provisioner(&world, name).await?;
        Ok(Self { world, host, coordinator, provisioner })
    }

    async fn quotas(&self) -> Bucket {
        self.host.bus.bucket(QUOTAS, None, 1).await.unwrap()
    }

    async fn quota(&self, index: &str) -> Option<Quota> {
        self.quotas().await.get(index).await.unwrap().map(|entry| decode(&entry.value).unwrap())
    }
}

fn reclaim(reclaim: Reclaim) -> IndexOptions {
    IndexOptions { reclaim, ..IndexOptions::default() }
}

#[actix_rt::test]
async fn options_reach_the_stream_and_the_quotas_and_can_be_changed() -> Result<()> {
    let stage = Stage::start().await?;
    let scaling = ScalingPolicy::EventRate { target: 100, factor: 2, min_segments: 1 };
    let quota = Quota { bytes_per_day: Some(5), queries: Some(2), ..Quota::default() };
    let options = IndexOptions { bytes_max: Some(9), scaling, quota, ..IndexOptions::default() };
    let created = stage.create(options.clone()).await?;
    assert_eq!(stage.create(options.clone()).await?, created);
    let there = stage.coordinator.stream("shop").unwrap();
    assert_eq!(there.retention, Some(RetentionPolicy::TimeAndSize { ms: 7 * DAY_MS, bytes: 9 }));
    assert_eq!((there.scaling, stage.quota("shop").await), (scaling, Some(quota)));

    // A change that fails on its way is made when it can be; the caller's repeat finds it made.
    stage.coordinator.fail(2);
    let changed = stage.update(Some(1), IndexOptions::default()).await?;
    assert_eq!((changed.retention_days, changed.options), (Some(1), IndexOptions::default()));
    let there = stage.coordinator.stream("shop").unwrap();
    assert_eq!(there.retention, Some(RetentionPolicy::Time { min_ms: DAY_MS, max_ms: Some(DAY_MS) }));
    assert_eq!((there.scaling, stage.quota("shop").await), (ScalingPolicy::Fixed, None));
    stage.update(None, IndexOptions::default()).await?;
    assert_eq!(stage.coordinator.stream("shop").unwrap().retention, None);

    let changes = stage.coordinator.changes();
    let wrong = ScalingPolicy::EventRate { target: 0, factor: 2, min_segments: 1 };
    let backend = [("sourcetype".to_owned(), "x".to_owned())].into();
    for (refused, kind) in [
        (stage.update(None, IndexOptions { scaling: wrong, ..IndexOptions::default() }).await, "BackendRefused"),
        (stage.update(None, IndexOptions { backend, ..IndexOptions::default() }).await, "BackendRefused"),
        (stage.update(Some(0), IndexOptions::default()).await, "InvalidPolicy"),
    ] {
        assert_eq!(refused.unwrap_err().kind, kind);
    }
    let unknown =
        IndexChange { instance: "x".parse()?, retention_days: None, options: IndexOptions::default(), order: 0 };
    let refused = stage.host.bus.call::<UpdateIndex>(&(), &unknown).await.unwrap_err();
    assert_eq!(refused.kind, "UnknownInstance");
    assert_eq!(stage.coordinator.changes(), changes, "nothing was changed");
    stage.update(None, options).await?;
    stage.delete().await?;
    assert_eq!((stage.coordinator.is_empty(), stage.quota("shop").await), (true, None));
    stage.provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_new_leader_ends_a_change_and_makes_quotas_true() -> Result<()> {
    let stage = Stage::start().await?;
    let quota = |queries| IndexOptions { quota: Quota { queries, ..Quota::default() }, ..IndexOptions::default() };
    stage.create(quota(Some(3))).await?;
    stage.coordinator.fail(u32::MAX);
    let change = IndexChange { instance: "i".parse()?, retention_days: Some(9), options: quota(Some(4)), order: 0 };
    stage.host.bus.call::<UpdateIndex>(&(), &change).await.unwrap_err();
    // It begins as described: the change is not made yet.
    let listed = stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes;
    assert_eq!((listed[0].retention_days, stage.quota("shop").await.unwrap().queries), (Some(7), Some(3)));
    let quotas = stage.quotas().await;
    let second = stage.next_leader("b", async |coordinator| {
        quotas.put("ghost", "x").await?;
        coordinator.fail(0);
        Ok(())
    });
    let stage = second.await?;
    eventually(SOON, async || matches!(quotas.get("ghost").await, Ok(None))).await;
    eventually(SOON, async || stage.quota("shop").await.is_some_and(|quota| quota.queries == Some(4))).await;
    let changed = stage.host.bus.call_within::<UpdateIndex>(&(), &change, SOON).await?;
    assert_eq!(changed.retention_days, Some(9));
    let stage = stage.next_leader("c", async |_| Ok(quotas.delete("shop").await?)).await?;
    eventually(SOON, async || stage.quota("shop").await.is_some()).await;
    stage.provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn events_end_as_the_reclaim_policy_says() -> Result<()> {
    let stage = Stage::start().await?;
    stage.create(reclaim(Reclaim::Fail)).await?;
    let issued = stage.host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Admin, None)).await?;
    stage.coordinator.hold(1);
    let refused = stage.delete().await.unwrap_err();
    assert!(refused.kind == "NotEmpty" && refused.code == Code::Conflict, "{refused}");
    assert_eq!(stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes.len(), 1);
    assert!(tokens(&stage.host).await?.get(&token_key(&issued)).await?.is_some(), "nothing was changed");
    stage.coordinator.hold(0);
    stage.delete().await?;
    assert!(stage.coordinator.is_empty());

    stage.coordinator.hold(1);
    stage.create(reclaim(Reclaim::Retain)).await?;
    let issued = stage.host.bus.call::<IssueCredentials>(&(), &binding("b", Role::Admin, None)).await?;
    stage.delete().await?;
    assert!(stage.coordinator.stream("shop").unwrap().tags.is_empty(), "it belongs to nobody");
    assert!(tokens(&stage.host).await?.get(&token_key(&issued)).await?.is_none());
    // Not even the same instance gets it back unasked.
    assert_eq!(stage.create(reclaim(Reclaim::Retain)).await.unwrap_err().kind, "ForeignResource");
    let adopt = IndexOptions { adopt: true, ..reclaim(Reclaim::Delete) };
    stage.create(adopt.clone()).await?;
    assert_eq!(stage.create(adopt).await?.options.reclaim, Reclaim::Delete);
    stage.delete().await?;
    assert!(stage.coordinator.is_empty());
    stage.provisioner.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_stream_of_somebody_else_is_left_alone() -> Result<()> {
    let stage = Stage::start().await?;
    let (scope, name) = ("team".parse()?, "shop".parse()?);
    let label = "blue".parse::<types::Tag>()?;
    stage.coordinator.put(NewStream { tags: vec![label.clone()], ..NewStream::fixed(scope, name, 4) });
    assert_eq!(stage.create(IndexOptions::default()).await.unwrap_err().kind, "ForeignResource");
    stage.delete().await?;
    let there = stage.coordinator.stream("shop").unwrap();
    assert_eq!((there.tags, there.retention), (vec![label.clone()], None));

    // Adopting it keeps its own labels.
    let adopt = IndexOptions { adopt: true, ..IndexOptions::default() };
    stage.create(adopt.clone()).await?;
    let there = stage.coordinator.stream("shop").unwrap();
    assert!(there.tags.len() == 2 && there.tags.contains(&label) && there.retention.is_some());
    // Another instance does not get it, not even to adopt it.
    let other = NewIndex { options: adopt, ..index("j", Some("shop")) };
    let refused = stage.host.bus.call::<CreateIndex>(&(), &other).await.unwrap_err();
    assert_eq!(refused.kind, "IndexNameTaken");
    stage.provisioner.stop().await?;
    Ok(())
}
