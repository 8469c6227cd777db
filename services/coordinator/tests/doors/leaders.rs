//! Leaders that were deposed: what they send says whose it is, and what they write into views is put right.

use anyhow::Result;
use testkit::{World, eventually};
use types::{Generation, KeyRange, Tag};
use wire::{
    coordinator::{CreateStream, DeleteStream, ScaleStream, SealStream, StreamDescription, TruncateAt, TruncateStream},
    encode,
    views::stream_key,
};

use crate::stage::{
    SOON, caller, coordinator, described, everything, index, name, new, shown, store_doors, views, whole,
};

#[actix_rt::test]
async fn every_effect_says_which_leader_sent_it() -> Result<()> {
    let world = World::start().await?;
    let first = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let leaders = || std::mem::take(&mut store.lock().unwrap().leaders);
    let shop = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 2), SOON).await?;
    assert_eq!(leaders(), [Some(Generation(1))].into());
    let second = coordinator(&world, "b").await?;
    first.stop().await?;
    let merged = host.bus.call_within::<ScaleStream>(&(), &everything(&shop, &[whole()]), SOON).await?;
    let cut = types::StreamCut(merged.segments.iter().map(|there| (there.segment, 3)).collect());
    host.bus.call::<TruncateStream>(&(), &TruncateAt { index: index("shop"), cut }).await?;
    host.bus.call::<SealStream>(&(), &name("shop")).await?;
    host.bus.call::<DeleteStream>(&(), &name("shop")).await?;
    assert_eq!(leaders(), [Some(Generation(2))].into(), "creations, seals, truncations and deletions");
    second.stop().await?;
    Ok(())
}

/// Whatever a deposed leader still writes: it was about to rewrite the views as it knew them.
#[actix_rt::test]
async fn views_that_a_deposed_leader_turns_back_are_put_right() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (_, _doors) = store_doors(&host).await?;
    for index in ["scaled", "tagged", "hidden", "gone"] {
        host.bus.call_within::<CreateStream>(&(), &new("team", index, 2), SOON).await?;
    }
    let (before, gone) = (described(&host, "scaled").await?, described(&host, "gone").await?);
    let scaled = host.bus.call::<ScaleStream>(&(), &everything(&before, &KeyRange::split_evenly(3))).await?;
    host.bus.call::<DeleteStream>(&(), &name("gone")).await?;
    let tagged = described(&host, "tagged").await?;

    let bucket = views(&host).await?;
    let put = async |stream: &StreamDescription| bucket.put(&stream_key(&stream.index), encode(stream)).await;
    // A stream that a later leader has made: whoever does not know it must leave it alone.
    let number = described(&host, "hidden").await?.stream + 100;
    let younger = StreamDescription { stream: number, index: index("younger"), ..before.clone() };
    put(&younger).await?;
    put(&before).await?;
    put(&StreamDescription { tags: vec!["old".parse::<Tag>()?], ..tagged.clone() }).await?;
    put(&gone).await?;
    bucket.delete(&stream_key(&index("hidden"))).await?;

    eventually(SOON, async || shown(&host, "scaled").await == Some(scaled.clone())).await;
    eventually(SOON, async || shown(&host, "tagged").await == Some(tagged.clone())).await;
    eventually(SOON, async || shown(&host, "gone").await.is_none()).await;
    let hidden = described(&host, "hidden").await?;
    eventually(SOON, async || shown(&host, "hidden").await == Some(hidden.clone())).await;
    assert_eq!(shown(&host, "younger").await, Some(younger.clone()));

    // The same where nobody led meanwhile: the next leader finds it.
    leader.stop().await?;
    put(&before).await?;
    put(&gone).await?;
    bucket.delete(&stream_key(&index("hidden"))).await?;
    let next = coordinator(&world, "b").await?;
    // Doors open only when the views are true.
    host.bus.call_within::<SealStream>(&(), &name("tagged"), SOON).await?;
    assert_eq!(shown(&host, "scaled").await, Some(scaled));
    assert_eq!((shown(&host, "gone").await, shown(&host, "hidden").await), (None, Some(hidden)));
    assert_eq!(shown(&host, "younger").await, Some(younger));
    next.stop().await?;
    Ok(())
}
