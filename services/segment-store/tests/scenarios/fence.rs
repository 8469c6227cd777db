//! What a deposed coordinator has sent comes too late.

use bus::as_leader;
use types::{ContainerId, Generation, SegmentId};
use wire::{
    Code, Outcome,
    segment_store::{
        CreateSegment, DeleteSegment, DescribeSegment, NewSegment, SealSegment, SegmentName, Truncate, TruncateSegment,
    },
};

use crate::stage::{LONG, Stage, TAIL_ONLY};

#[actix::test]
async fn effects_of_a_deposed_leader_are_refused() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let stream = stage.stream("shop", 1, 1).await;
    let (there, name) = (stream.segments[0], SegmentName { segment: stream.segments[0].segment });
    let late = SegmentId { stream: 1, epoch: 1, number: 9 };
    let new = NewSegment {
        segment: late,
        index: "shop".parse().unwrap(),
        predecessors: Vec::new(),
        transactional: false,
        origin: None,
    };
    // Any two segments of one container will do.
    let container: ContainerId = there.container;
    let create = |leader| as_leader(Generation(leader), stage.bus.call_within::<CreateSegment>(&container, &new, LONG));
    create(1).await.unwrap();
    as_leader(Generation(2), stage.bus.call::<DeleteSegment>(&container, &SegmentName { segment: late }))
        .await
        .unwrap();
    let refused = create(1).await.unwrap_err();
    assert_eq!((refused.code, refused.kind.as_str(), refused.outcome), (Code::Fenced, "Deposed", Outcome::NotApplied));
    let truncate = Truncate { segment: there.segment, before: 0 };
    let first = Generation(1);
    for refused in [
        as_leader(first, stage.bus.call::<SealSegment>(&container, &name)).await.err(),
        as_leader(first, stage.bus.call::<DeleteSegment>(&container, &name)).await.err(),
        as_leader(first, stage.bus.call::<TruncateSegment>(&container, &truncate)).await.err(),
    ] {
        assert_eq!(refused.unwrap().kind, "Deposed");
    }
    // Nothing of it happened, and everybody else is served.
    let info = stage.bus.call::<DescribeSegment>(&container, &name).await.unwrap();
    assert!(!info.sealed);
    let gone = stage.bus.call::<DescribeSegment>(&container, &SegmentName { segment: late }).await.unwrap_err();
    assert_eq!(gone.kind, "UnknownSegment");
    let sealed = as_leader(Generation(3), stage.bus.call::<SealSegment>(&container, &name)).await.unwrap();
    assert!(sealed.sealed);
}
