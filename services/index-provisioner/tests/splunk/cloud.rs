//! Splunk Cloud: everything is accepted at once and shows later.

use super::*;

#[actix_rt::test]
async fn a_stack_is_asked_until_it_shows_what_was_asked_for() -> Result<()> {
    let stage = Stage::cloud().await?;
    stage.splunk.with(|s| s.faults.polls = 10_000);
    stage.create_in_vain(shop()).await;
    assert!(
        stage.host.bus.call::<ListIndexes>(&(), &IndexesOf::default()).await?.indexes.is_empty(),
        "it is not ready yet"
    );
    stage.splunk.with(standin::Inner::hurry);
    stage.create(shop()).await?;
    stage.splunk.with(|s| {
        assert_eq!((s.indexes["shop"].mib, s.indexes["shop"].kept), (0, 7));
        s.faults.polls = 3;
    });
    let options = IndexOptions { bytes_max: Some(1), ..IndexOptions::default() };
    assert_eq!(stage.update(30, options).await?.retention_days, Some(30));
    stage.splunk.with(|s| assert_eq!((s.indexes["shop"].mib, s.indexes["shop"].kept), (1, 30)));

    stage.splunk.with(|s| s.faults.late_tokens = 2);
    let admin = stage.bind("b", Role::Admin).await?;
    assert_eq!(stage.publish(&admin["hec_token"], "shop").await, 200);
    assert_eq!(stage.login(&admin["username"], &admin["password"]).await, 200);
    stage.unbind("b").await?;
    assert_eq!(stage.publish(&admin["hec_token"], "shop").await, 403);
    stage.delete("i").await?;
    assert!(stage.splunk.with(|splunk| splunk.is_empty()));
    stage.end().await
}
