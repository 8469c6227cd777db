//! Scopes, tags and policies.

use anyhow::Result;
use testkit::World;
use types::{ScopeName, Tag};
use wire::{
    Code,
    coordinator::{
        CreateScope, CreateStream, DeleteScope, ListScopes, ListStreams, NewStream, RetentionChange, RetentionPolicy,
        ScalingPolicy, ScopeDeletion, ScopeRef, ScopesOf, StreamUpdate, StreamsOf, UpdateStream,
    },
    views::{SYNCHRONIZERS, TABLES},
};

use crate::stage::{SOON, caller, coordinator, described, index, new, shown, store_doors};

fn scope(name: &str) -> ScopeName {
    name.parse().unwrap()
}

#[actix_rt::test]
async fn scopes_are_created_listed_and_deleted_with_what_is_in_them() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    for _ in 0..2 {
        host.bus.call_within::<CreateScope>(&(), &ScopeRef { scope: scope("empty") }, SOON).await?;
    }
    for (scope, index) in [("team", "shop"), ("team", "till"), ("other", "cars")] {
        host.bus.call::<CreateStream>(&(), &new(scope, index, 2)).await?;
    }
    let synchronizers = host.bus.bucket(SYNCHRONIZERS, None, 1).await?;
    let tables = host.bus.bucket(TABLES, None, 1).await?;
    for key in ["team.counter", "team2.counter"] {
        synchronizers.put(key, "1").await?;
        tables.put(&format!("{key}.aa"), "1").await?;
    }
    let names =
        async || -> Result<Vec<ScopeName>> { Ok(host.bus.call::<ListScopes>(&(), &ScopesOf::default()).await?.scopes) };
    assert_eq!(names().await?, [scope("empty"), scope("other"), scope("team")]);
    let delete = |name: &str, recursive| ScopeDeletion { scope: scope(name), recursive };
    let refused = host.bus.call::<DeleteScope>(&(), &delete("team", false)).await.unwrap_err();
    assert_eq!((refused.code, refused.kind.as_str()), (Code::Conflict, "ScopeNotEmpty"));
    for _ in 0..2 {
        host.bus.call::<DeleteScope>(&(), &delete("team", true)).await?;
        host.bus.call::<DeleteScope>(&(), &delete("empty", false)).await?;
    }
    assert_eq!(names().await?, [scope("other")]);
    assert_eq!(store.lock().unwrap().segments.len(), 2, "those of the other scope");
    assert_eq!(shown(&host, "till").await, None);
    assert_eq!(described(&host, "shop").await.unwrap_err().kind, "UnknownIndex");
    for (bucket, rest) in [(synchronizers, "team2.counter"), (tables, "team2.counter.aa")] {
        let left: Vec<String> = bucket.list("").await?.into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [rest]);
    }
    host.bus.call::<CreateStream>(&(), &new("team", "shop", 1)).await?;
    coordinator.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn policies_and_tags_change_and_streams_are_found_by_them() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (_, _doors) = store_doors(&host).await?;
    let (red, blue): (Tag, Tag) = ("red".parse()?, "blue".parse()?);
    let tagged = NewStream { tags: vec![red.clone()], ..new("team", "shop", 1) };
    host.bus.call_within::<CreateStream>(&(), &tagged, SOON).await?;
    host.bus.call::<CreateStream>(&(), &new("other", "cars", 1)).await?;
    let scaling = ScalingPolicy::EventRate { target: 1_000, factor: 2, min_segments: 1 };
    let retention = RetentionPolicy::Size { min_bytes: 1, max_bytes: Some(9) };
    let update = StreamUpdate {
        index: index("shop"),
        scaling: Some(scaling),
        retention: Some(RetentionChange::By(retention)),
        tags: Some(vec![blue.clone(), red.clone()]),
    };
    let updated = host.bus.call::<UpdateStream>(&(), &update).await?;
    assert_eq!((updated.scaling, updated.retention, updated.tags.len()), (scaling, Some(retention), 2));
    assert_eq!(shown(&host, "shop").await, Some(updated.clone()));
    assert_eq!(host.bus.call::<UpdateStream>(&(), &update).await?, updated);
    assert_eq!(host.bus.call::<CreateStream>(&(), &tagged).await?, updated, "as it was asked for at first");
    let found = async |scope: Option<&str>, tag: Option<&Tag>| -> Result<Vec<String>> {
        let of = StreamsOf { scope: scope.map(self::scope), tag: tag.cloned(), ..StreamsOf::default() };
        let list = host.bus.call::<ListStreams>(&(), &of).await?.streams;
        Ok(list.into_iter().map(|s| s.index.to_string()).collect())
    };
    assert_eq!(found(None, None).await?, ["shop", "cars"]);
    assert_eq!(found(Some("other"), None).await?, ["cars"]);
    assert_eq!(found(None, Some(&blue)).await?, ["shop"]);
    assert_eq!(found(Some("other"), Some(&red)).await?, Vec::<String>::new());
    let none = ScalingPolicy::DataRate { target_kib: 0, factor: 2, min_segments: 1 };
    let bad = StreamUpdate { scaling: Some(none), ..update };
    let refused = host.bus.call::<UpdateStream>(&(), &bad).await.unwrap_err();
    assert_eq!((refused.code, refused.kind.as_str()), (Code::BadRequest, "InvalidPolicy"));
    coordinator.stop().await?;
    Ok(())
}
