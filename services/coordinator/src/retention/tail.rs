//! Where streams end: asked of the stores that hold their segments.

use bus::Bus;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use types::{Offset, SegmentId};
use wire::{
    Problem,
    segment_store::{DescribeSegment, SegmentName, SegmentPlace},
};

use crate::graph::Graph;

/// Calls to segment-store that one measurement has in flight.
const CALLS_MAX: usize = 16;

/// How much a segment has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The segment.
    pub segment: SegmentId,
    /// The next offset to be given.
    pub end: Offset,
    /// Payload bytes of all its events, truncated ones included.
    pub bytes: u64,
}

/// The present segments.
pub(crate) fn present(graph: &Graph) -> Vec<SegmentPlace> {
    graph.present().map(|there| SegmentPlace { segment: there.segment, container: there.container }).collect()
}

/// Measures segments, in the order given.
///
/// Those that are sealed meanwhile do not harm: their ends cover the key space once as they did when they were named.
pub(crate) async fn measure(bus: &Bus, places: &[SegmentPlace]) -> Result<Vec<Measured>, Problem> {
    let calls = places.iter().map(|place| async move {
        let info = bus.call::<DescribeSegment>(&place.container, &SegmentName { segment: place.segment }).await?;
        Ok(Measured { segment: place.segment, end: info.end, bytes: info.bytes })
    });
    stream::iter(calls).buffered(CALLS_MAX).try_collect().await
}
