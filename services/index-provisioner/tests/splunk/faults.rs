//! What goes wrong between Splunk and us.

use testkit::eventually;

use super::{
    standin::{Break, Faults, Index, Role as SplunkRole},
    *,
};

/// A life from the first request to the last. The bus repeats what may succeed later.
async fn life(stage: &Stage) -> Result<()> {
    stage.create(shop()).await?;
    stage.bind("b", Role::Admin).await?;
    stage.update(9, IndexOptions::default()).await?;
    stage.splunk.with(|s| {
        let counts = (s.indexes.len(), s.tokens.len(), s.users.len(), s.roles.len());
        assert_eq!(counts, (1, 1, 1, 2), "each once");
        assert_eq!(s.indexes["shop"].kept, 9 * 86_400);
    });
    stage.unbind("b").await?;
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()), "nothing is left");
    Ok(())
}

#[actix_rt::test]
async fn a_life_goes_on_wherever_it_is_broken() -> Result<()> {
    let stage = Stage::enterprise().await?;
    life(&stage).await?;
    let changes = u32::try_from(stage.splunk.with(|s| s.changes.len()))?;
    assert_eq!(changes, 11, "mark, index, token, role, user, change, and five deletions");
    for kind in [Break::Before, Break::After] {
        for at in 0..changes {
            stage.splunk.with(|s| s.faults.breaks = Some((at, kind)));
            life(&stage).await.map_err(|error| error.context(format!("{kind:?} at {at}")))?;
            assert!(stage.splunk.with(|s| s.faults.breaks.is_none()), "{kind:?} at {at} never came");
        }
    }
    stage.end().await
}

#[actix_rt::test]
async fn what_was_begun_is_ended_by_the_next_leader() -> Result<()> {
    let stage = Stage::enterprise().await?;
    // The mark was made; then Splunk went away.
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "data/indexes", 503)));
    stage.create_in_vain(shop()).await;
    let stage = stage.restart().await?;
    stage.splunk.with(|s| assert_eq!((s.roles.len(), s.indexes.len()), (1, 0)));
    stage.splunk.with(|s| s.faults = Faults::default());
    eventually(SOON, async || stage.splunk.with(|s| s.indexes.contains_key("shop"))).await;
    stage.create(shop()).await?;
    // A deletion of what never was ready takes what there is of it.
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "data/indexes", 503)));
    stage.create_in_vain(index("j", "other", IndexOptions::default())).await;
    assert!(stage.splunk.with(|s| s.roles.contains_key("lb-index-other")));
    stage.delete("j").await?;
    assert!(stage.splunk.with(|s| !s.roles.contains_key("lb-index-other")));
    stage.splunk.with(|s| s.faults = Faults::default());
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}

#[actix_rt::test]
async fn a_refusal_for_good_leaves_nothing_and_says_why() -> Result<()> {
    let stage = Stage::enterprise().await?;
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "data/indexes", 403)));
    let refused = stage.create(shop()).await.unwrap_err();
    assert!(refused.kind == "BackendRefused" && refused.message.contains("You are not allowed"), "{refused}");
    assert!(stage.splunk.with(|splunk| splunk.is_empty()), "the mark went too");
    assert!(stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes.is_empty());
    stage.splunk.with(|s| s.faults = Faults::default());
    stage.create(shop()).await?;
    // A change that is refused leaves what was there.
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "data/indexes/shop", 400)));
    assert_eq!(stage.update(9, IndexOptions::default()).await.unwrap_err().kind, "BackendRefused");
    let listed = stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes;
    assert_eq!(listed[0].retention_days, Some(7));
    // So does a binding: what there was of it goes with the next sweep.
    stage.splunk.with(|s| s.faults.refuse = Some(("POST", "authentication/users", 400)));
    assert_eq!(stage.bind("b", Role::Admin).await.unwrap_err().kind, "BackendRefused");
    eventually(SOON, async || stage.splunk.with(|s| s.tokens.is_empty() && s.roles.len() == 1)).await;
    stage.splunk.with(|s| s.faults = Faults::default());
    eventually(SOON, async || stage.bind("b", Role::Admin).await.is_ok()).await;
    stage.end().await
}

#[actix_rt::test]
async fn maintenance_slowness_and_nonsense_pass() -> Result<()> {
    let stage = Stage::enterprise().await?;
    for fault in [
        Faults { maintenance: u32::MAX, ..Faults::default() },
        Faults { slow: (u32::MAX, Duration::from_secs(2)), ..Faults::default() },
        Faults { endless: u32::MAX, ..Faults::default() },
    ] {
        stage.splunk.with(|s| s.faults = fault);
        stage.create_in_vain(shop()).await;
        stage.splunk.with(|s| s.faults = Faults::default());
        life(&stage).await?;
    }
    stage.splunk.with(|s| s.faults.late_tokens = 2);
    life(&stage).await?;
    // A session that ended is begun again without anybody noticing.
    stage.create(shop()).await?;
    stage.splunk.with(|s| s.sessions.clear());
    stage.bind("b", Role::Admin).await?;
    stage.delete("i").await?;
    // What another attempt of ours made meanwhile is adopted: the mark says so.
    stage.splunk.with(|s| {
        s.indexes.insert("shop".into(), Index::default());
        let role = SplunkRole { filter: "logboom_instance=i".into(), ..SplunkRole::default() };
        s.roles.insert("lb-index-shop".into(), role);
    });
    stage.create(shop()).await?;
    stage.splunk.with(|s| assert_eq!(s.indexes["shop"].kept, 7 * 86_400));
    stage.end().await
}
