//! Epochs, cuts and the end of a stream.

use std::collections::BTreeSet;

use anyhow::Result;
use testkit::World;
use types::{KeyRange, SegmentId, StreamCut};
use wire::{
    Code,
    coordinator::{
        CreateStream, EpochsOf, ListEpochs, ListSegments, ListSuccessors, Scale, ScaleStream, SealStream, SegmentsOf,
        SuccessorsOf, TruncateAt, TruncateStream,
    },
};

use crate::stage::{
    Effect, SOON, caller, coordinator, described, everything, index, name, new, shown, store_doors, whole,
};

#[actix_rt::test]
async fn a_scale_seals_then_creates_then_opens_the_epoch() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let first = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 2), SOON).await?;
    let (a, b) = (first.segments[0].segment, first.segments[1].segment);
    let third = u64::MAX / 3;
    let ranges = [
        KeyRange { first: 0, last: third - 1 },
        KeyRange { first: third, last: 2 * third - 1 },
        KeyRange { first: 2 * third, last: u64::MAX },
    ];
    let scale = everything(&first, &ranges);
    let opened = host.bus.call::<ScaleStream>(&(), &scale).await?;
    assert_eq!((opened.epoch, opened.segments.len()), (1, 3));
    assert_eq!(opened.segments.iter().map(|s| s.range).collect::<Vec<_>>(), ranges);
    assert_eq!(shown(&host, "shop").await, Some(opened.clone()), "the view is written before the answer");
    let log = store.lock().unwrap().log.clone();
    let sealed = |e: &Effect| matches!(e, Effect::Seal(_));
    assert_eq!((log.len(), log[2..4].iter().all(sealed)), (7, true), "{log:?}");
    let middle = opened.segments[1].segment;
    let before: BTreeSet<SegmentId> =
        store.lock().unwrap().segments[&middle].new.predecessors.iter().map(|p| p.segment).collect();
    assert_eq!(before, [a, b].into());

    assert_eq!(host.bus.call::<ScaleStream>(&(), &scale).await?, opened, "a repeat");
    assert_eq!(store.lock().unwrap().log.len(), 7, "does nothing");
    let gap = Scale { ranges: ranges[1..].to_vec(), ..everything(&opened, &[]) };
    for (bad, code, kind) in [
        (gap, Code::BadRequest, "InvalidScale"),
        (everything(&first, &[whole()]), Code::BadRequest, "InvalidScale"),
        (Scale { index: index("ghost"), ..scale.clone() }, Code::NotFound, "UnknownIndex"),
    ] {
        let refused = host.bus.call::<ScaleStream>(&(), &bad).await.unwrap_err();
        assert_eq!((refused.code, refused.kind.as_str()), (code, kind));
    }

    let of = |after, limit| SegmentsOf { index: index("shop"), after, limit };
    let page = host.bus.call::<ListSegments>(&(), &of(None, 2)).await?;
    assert_eq!((page.segments.iter().map(|s| s.segment).collect::<Vec<_>>(), page.more), (vec![a, b], true));
    let rest = host.bus.call::<ListSegments>(&(), &of(Some(b), 1_000)).await?;
    assert_eq!((rest.segments.len(), rest.more), (3, false));
    let refused = host.bus.call::<ListSegments>(&(), &of(None, 0)).await.unwrap_err();
    assert_eq!(refused.kind, "InvalidPage");
    let after = |segment| SuccessorsOf { index: index("shop"), segment };
    let follow = host.bus.call::<ListSuccessors>(&(), &after(a)).await?.segments;
    assert_eq!((follow.len(), follow[1].predecessors.clone()), (2, vec![a, b]));
    assert!(host.bus.call::<ListSuccessors>(&(), &after(middle)).await?.segments.is_empty(), "open");
    let epochs = host.bus.call::<ListEpochs>(&(), &EpochsOf { index: index("shop"), from: 1, limit: 9 }).await?;
    assert_eq!((epochs.epochs.len(), epochs.epochs[0].splits, epochs.epochs[0].merges), (1, 2, 1));
    coordinator.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn scales_of_one_stream_come_one_after_the_other() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let first = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 8), SOON).await?;
    let scales = first.segments.iter().map(|s| {
        let middle = s.range.first + (s.range.last - s.range.first) / 2;
        let ranges =
            vec![KeyRange { first: s.range.first, last: middle }, KeyRange { first: middle + 1, last: s.range.last }];
        Scale { index: index("shop"), seal: vec![s.segment], ranges }
    });
    // Each twice: the second one finds it done.
    let scales: Vec<Scale> = scales.flat_map(|scale| [scale.clone(), scale]).collect();
    let calls = scales.iter().map(|scale| host.bus.call_within::<ScaleStream>(&(), scale, SOON));
    for done in futures::future::join_all(calls).await {
        done?;
    }
    let there = described(&host, "shop").await?;
    assert_eq!((there.epoch, there.segments.len()), (8, 16));
    let ranges: Vec<KeyRange> = there.segments.iter().map(|s| s.range).collect();
    assert!(KeyRange::cover_once(&ranges));
    assert_eq!(shown(&host, "shop").await, Some(there));
    assert_eq!(store.lock().unwrap().log.len(), 8 + 8 + 16);
    coordinator.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_stream_begins_later_and_later() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let first = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 2), SOON).await?;
    let (a, b) = (first.segments[0].segment, first.segments[1].segment);
    let opened = host.bus.call::<ScaleStream>(&(), &everything(&first, &[whole()])).await?;
    let merged = opened.segments[0].segment;
    let cut = |places: &[(SegmentId, u64)]| TruncateAt {
        index: index("shop"),
        cut: StreamCut(places.iter().copied().collect()),
    };
    let begun = host.bus.call::<TruncateStream>(&(), &cut(&[(a, 3), (b, 10)])).await?;
    assert_eq!(begun.head, cut(&[(a, 3), (b, 10)]).cut);
    assert_eq!(shown(&host, "shop").await, Some(begun));
    let starts = || store.lock().unwrap().segments.values().map(|s| s.start).collect::<Vec<_>>();
    assert_eq!(starts(), [3, 10, 0]);
    for bad in [cut(&[(a, 3)]), cut(&[(merged, 11)]), cut(&[(merged, 0), (a, 1)])] {
        let refused = host.bus.call::<TruncateStream>(&(), &bad).await.unwrap_err();
        assert_eq!((refused.code, refused.kind.as_str()), (Code::BadRequest, "InvalidCut"), "{bad:?}");
    }
    let begun = host.bus.call::<TruncateStream>(&(), &cut(&[(merged, 4)])).await?;
    assert_eq!(store.lock().unwrap().names(), [merged].into(), "what lies wholly before is deleted");
    // Back again changes nothing.
    let log = store.lock().unwrap().log.len();
    for back in [cut(&[(a, 3), (b, 10)]), cut(&[(merged, 1)]), cut(&[(merged, 4)])] {
        assert_eq!(host.bus.call::<TruncateStream>(&(), &back).await?, begun);
    }
    assert_eq!((starts(), store.lock().unwrap().log.len()), (vec![4], log));
    let page = SegmentsOf { index: index("shop"), after: None, limit: 9 };
    let nodes = host.bus.call::<ListSegments>(&(), &page).await?.segments;
    assert_eq!((nodes.len(), nodes[0].predecessors.len()), (1, 0), "truncated ones are left out");
    coordinator.stop().await?;
    Ok(())
}

#[actix_rt::test]
async fn a_sealed_stream_stays_sealed() -> Result<()> {
    let world = World::start().await?;
    let coordinator = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let first = host.bus.call_within::<CreateStream>(&(), &new("team", "shop", 2), SOON).await?;
    let sealed = host.bus.call::<SealStream>(&(), &name("shop")).await?;
    assert!(sealed.sealed && store.lock().unwrap().segments.values().all(|s| s.sealed));
    assert_eq!(host.bus.call::<SealStream>(&(), &name("shop")).await?, sealed);
    assert_eq!(shown(&host, "shop").await, Some(sealed.clone()));
    let refused = host.bus.call::<ScaleStream>(&(), &everything(&first, &[whole()])).await.unwrap_err();
    assert_eq!((refused.code, refused.kind.as_str()), (Code::Conflict, "StreamSealed"));
    assert_eq!(host.bus.call::<CreateStream>(&(), &new("team", "shop", 2)).await?, sealed);
    coordinator.stop().await?;
    Ok(())
}
