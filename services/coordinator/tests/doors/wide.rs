//! The widest stream through the doors: all its segments replaced again and again, while nothing outgrows a message.

use std::{env, time::Duration};

use anyhow::Result;
use testkit::{World, eventually};
use types::{KeyRange, StreamCut};
use wire::{
    Service,
    coordinator::{CreateStream, ListSegments, ScaleStream, SegmentNode, SegmentsOf, TruncateAt, TruncateStream},
    encode,
    views::stream_key,
};

use crate::stage::{SOON, caller, coordinator, described, everything, index, new, shown, store_doors, views};

/// Segments and scales of all of them, unless `LB_WIDE_SEGMENTS` says how many of the former: 10 000 of them are scaled ten times, which
/// takes minutes.
const SEGMENTS: u32 = 300;
const SCALES: u32 = 3;
/// What a scale of everything may take.
const WITHIN: Duration = Duration::from_secs(600);
/// What one message may have: half of a journal entry's bound, itself half of what NATS servers are configured to.
const MESSAGE_BYTES: usize = host::ENTRY_BYTES_MAX / 2;

#[actix_rt::test]
#[allow(clippy::disallowed_methods, reason = "the full size is asked for by an environment variable")]
async fn the_widest_stream_is_scaled_ten_times_and_truncated() -> Result<()> {
    let wide = env::var("LB_WIDE_SEGMENTS").ok().map(|text| text.parse::<u32>().unwrap());
    let (count, scales) = wide.map_or((SEGMENTS, SCALES), |count| (count, 10));
    let world = World::start().await?;
    let leader = coordinator(&world, "a").await?;
    let host = caller(&world).await?;
    let (store, _doors) = store_doors(&host).await?;
    let mut present = host.bus.call_within::<CreateStream>(&(), &new("team", "wide", 64), SOON).await?;
    for epoch in 1..=1 + scales {
        let scale = everything(&present, &KeyRange::split_evenly(count));
        present = host.bus.call_within::<ScaleStream>(&(), &scale, WITHIN).await?;
        assert_eq!((present.epoch, present.segments.len()), (epoch, usize::try_from(count)?));
    }
    let all = async || -> Result<Vec<SegmentNode>> {
        let mut nodes: Vec<SegmentNode> = Vec::new();
        loop {
            let after = nodes.last().map(|node| node.segment);
            let page = SegmentsOf { index: index("wide"), after, limit: 1_000 };
            let page = host.bus.call_within::<ListSegments>(&(), &page, SOON).await?;
            nodes.extend(page.segments);
            if !page.more {
                return Ok(nodes);
            }
        }
    };
    assert_eq!(all().await?.len(), 64 + usize::try_from(count * (1 + scales))?);
    assert_eq!(
        store.lock().unwrap().segments.values().filter(|segment| !segment.sealed).count(),
        present.segments.len()
    );

    // The next leader knows the same, and shows it.
    let next = coordinator(&world, "b").await?;
    leader.stop().await?;
    assert_eq!(described(&host, "wide").await?, present);
    assert_eq!(shown(&host, "wide").await.as_ref(), Some(&present));
    let cut = StreamCut(present.segments.iter().map(|there| (there.segment, 4)).collect());
    let truncate = TruncateAt { index: index("wide"), cut };
    present = host.bus.call_within::<TruncateStream>(&(), &truncate, WITHIN).await?;
    assert_eq!(all().await?.len(), present.segments.len());
    eventually(SOON, async || store.lock().unwrap().segments.len() == present.segments.len()).await;

    let view = views(&host).await?.get(&stream_key(&index("wide"))).await?.unwrap().value.len();
    let journal = host.bus.journal(Service::Coordinator, 1).await?;
    let (mut after, mut entry) = (journal.first_seq().await?.saturating_sub(1), 0);
    while after < journal.last_seq().await? {
        for record in journal.read(after, host::ENTRY_BYTES_MAX).await? {
            (after, entry) = (record.seq, entry.max(record.payload.len()));
        }
    }
    assert_eq!(view, encode(&present).len());
    assert!(view < MESSAGE_BYTES && entry < MESSAGE_BYTES, "view {view}, largest entry {entry} bytes");
    next.stop().await?;
    Ok(())
}
