//! The number of segments follows the load: S5, with minutes of a fifth of a second.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use host::Host;
use testkit::{World, eventually};
use tokio::time::Instant;
use types::{ContainerId, Generation, KeyRange, SegmentId};
use wire::{
    coordinator::{NewStream, ScalingPolicy, StreamDescription},
    segment_store::{ContainerLoad, ContainerLoaded, SegmentLoad},
};

use crate::stage::{SOON, caller, coordinator, create, described, new, store_doors};

/// How often owners tell.
const TELL_EVERY: Duration = Duration::from_millis(30);

/// Tells what loads on whole streams do to their segments.
struct Teller {
    counts: BTreeMap<SegmentId, f64>,
    last: Instant,
}

impl Teller {
    async fn tell(&mut self, host: &Host, loads: &[(&StreamDescription, f64)]) {
        let passed = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let mut told = BTreeMap::<ContainerId, Vec<SegmentLoad>>::new();
        let each = loads.iter().flat_map(|(stream, rate)| stream.segments.iter().map(move |there| (there, rate)));
        for (there, rate) in each {
            let part = (there.range.last - there.range.first) as f64 / u64::MAX as f64;
            let count = self.counts.entry(there.segment).or_insert(0.0);
            *count += rate * part * passed;
            let events = format!("{count:.0}").parse().unwrap();
            let load = SegmentLoad { segment: there.segment, events, bytes: 0 };
            told.entry(there.container).or_default().push(load);
        }
        for (container, segments) in told {
            let load = ContainerLoad { container, generation: Generation(1), at: host.clock.now(), segments };
            host.bus.tell::<ContainerLoaded>(&container, &load).await;
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

#[actix_rt::test]
async fn segments_are_split_under_a_load_and_merged_after_it() -> Result<()> {
    let world = World::start().await?;
    let leader = coordinator(&world, "a", &["coordinator.autoscale_minute=200ms"]).await?;
    let host = caller(&world).await?;
    let (_store, _doors) = store_doors(&host).await?;
    let scaling = ScalingPolicy::EventRate { target: 1_000, factor: 4, min_segments: 1 };
    create(&host, &NewStream { scaling, ..new("shop", 1) }).await?;
    let fixed = create(&host, &new("fixed", 1)).await?;
    let mut teller = Teller { counts: BTreeMap::new(), last: Instant::now() };
    for (rate, least, most) in [(2_500.0, 3, 4), (0.0, 1, 1), (2_500.0, 3, 4)] {
        eventually(SOON, async || {
            let there = described(&host, "shop").await.unwrap();
            teller.tell(&host, &[(&there, rate), (&fixed, 100_000.0)]).await;
            (least..=most).contains(&there.segments.len())
        })
        .await;
        let there = described(&host, "shop").await?;
        let ranges: Vec<_> = there.segments.iter().map(|s| s.range).collect();
        assert!(KeyRange::cover_once(&ranges));
    }
    assert_eq!(described(&host, "fixed").await?.epoch, 0, "only by hand");
    leader.stop().await?;
    Ok(())
}
