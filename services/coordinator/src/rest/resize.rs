//! As many segments as a policy asks for. Pure.

use types::KeyRange;
use wire::coordinator::{Scale, ScalingPolicy, StreamDescription};

/// The scale that a change of policy entails, as in Pravega: all segments anew and of the same width, where a fixed number is another
/// one, or the least is more than there are.
pub(crate) fn entailed(stream: &StreamDescription, policy: ScalingPolicy, min_segments: u16) -> Option<Scale> {
    let (there, wanted) = (stream.segments.len(), usize::from(min_segments));
    let as_it_is = if policy == ScalingPolicy::Fixed { there == wanted } else { there >= wanted };
    (!as_it_is).then(|| Scale {
        index: stream.index.clone(),
        seal: stream.segments.iter().map(|segment| segment.segment).collect(),
        ranges: KeyRange::split_evenly(min_segments.into()),
    })
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, SegmentId, Timestamp};
    use wire::coordinator::SegmentRange;

    use super::*;

    #[test]
    fn a_fixed_number_is_met_and_a_least_number_is_reached() {
        let segments = (0..).zip(KeyRange::split_evenly(3)).map(|(number, range)| {
            let segment = SegmentId { stream: 1, epoch: 0, number };
            SegmentRange { segment, container: ContainerId(0), range }
        });
        let (scope, index) = ("team".parse().unwrap(), "shop".parse().unwrap());
        let stream = StreamDescription::new((1, Timestamp::default()), scope, index, segments.collect());
        let by_rate = ScalingPolicy::EventRate { target: 1, factor: 2, min_segments: 1 };
        for (policy, min_segments, expected) in [
            (ScalingPolicy::Fixed, 3, None),
            (ScalingPolicy::Fixed, 2, Some(2)),
            (ScalingPolicy::Fixed, 5, Some(5)),
            (by_rate, 2, None),
            (by_rate, 3, None),
            (by_rate, 4, Some(4)),
        ] {
            let scale = entailed(&stream, policy, min_segments);
            assert_eq!(scale.as_ref().map(|scale| scale.ranges.len()), expected, "{policy:?} {min_segments}");
            assert!(scale.is_none_or(|scale| scale.seal.len() == 3 && KeyRange::cover_once(&scale.ranges)));
        }
    }
}
