//! Which offsets of a stream an export takes. Pure.

use std::collections::BTreeSet;

use types::{Offset, SegmentId};
use wire::{coordinator::SegmentNode, segment_store::SegmentInfo};

use super::archive::{Planned, Window};

/// A segment with its chunks, and where the cut ends it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) node: SegmentNode,
    pub(super) info: SegmentInfo,
    /// The offset after the last event of the export.
    pub(super) end: Offset,
    /// Whether the stream was sealed at the cut. What its container says now may be of a scale that came since.
    pub(super) sealed: bool,
}

/// The offsets to take of each segment.
///
/// A stream is a chain of segments for each key, so a part of it begins and ends somewhere in each chain: segments that end
/// before the window are left out, unless something that follows them cannot be without them; the first that stays begins
/// at its first chunk of the window, those behind it begin at their beginning; each ends behind its last chunk of the
/// window. So every chunk that touches the window is taken, and with it what lies between two such chunks.
pub(super) fn select(segments: &[Known], window: Window) -> Vec<Planned> {
    let gone = before(segments, window);
    let stays = |segment: &SegmentId| !gone.contains(segment);
    let planned = segments.iter().filter(|known| stays(&known.node.segment)).map(|known| {
        let Known { node, info, end, sealed } = known;
        let first = !node.predecessors.iter().any(stays);
        let start = if first { begin(known, window) } else { info.start };
        let end = match window.until {
            None => *end,
            Some(until) => {
                let last = info.chunks.iter().rfind(|chunk| chunk.time_min < until);
                last.map_or(start, |chunk| chunk.to.min(*end)).max(start)
            }
        };
        let whole = u128::from(info.end - info.start).max(1);
        let bytes = u128::from(info.bytes.saturating_sub(info.truncated_bytes)) * u128::from(end - start) / whole;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Planned {
            segment: node.segment,
            range: node.range,
            sealed: node.sealed_in.is_some() || *sealed,
            start,
            end,
            bytes,
        }
    });
    planned.collect()
}

/// A segment that a restore could not make again, and how many files it would have.
pub(super) fn too_large(segments: &[Known], planned: &[Planned], files_max: usize) -> Option<(SegmentId, usize)> {
    let files = |known: &Known, planned: &Planned| {
        let held = known.info.chunks.iter().filter(|chunk| chunk.to > planned.start && chunk.from < planned.end);
        held.count()
    };
    planned.iter().find_map(|planned| {
        let known = segments.iter().find(|known| known.node.segment == planned.segment)?;
        let count = files(known, planned);
        (count > files_max).then_some((planned.segment, count))
    })
}

/// The first offset of the window; the end if there is none.
fn begin(known: &Known, window: Window) -> Offset {
    let Some(from) = window.from else { return known.info.start };
    let first = known.info.chunks.iter().find(|chunk| chunk.time_max >= from);
    first.map_or(known.end, |chunk| chunk.from).clamp(known.info.start, known.end)
}

/// Segments that end before the window and can be left out: with all that they follow, and so that whatever follows them
/// follows nothing else that stays.
fn before(segments: &[Known], window: Window) -> BTreeSet<SegmentId> {
    let over = |known: &&Known| known.node.sealed_in.is_some() && begin(known, window) >= known.end;
    let mut gone: BTreeSet<SegmentId> = match window.from {
        Some(_) => segments.iter().filter(over).map(|known| known.node.segment).collect(),
        None => BTreeSet::new(),
    };
    loop {
        let mut kept = BTreeSet::new();
        for Known { node, .. } in segments {
            let lost = |segment: &SegmentId| gone.contains(segment);
            if lost(&node.segment) && !node.predecessors.iter().all(lost) {
                kept.insert(node.segment);
            }
            if node.predecessors.iter().any(lost) && !node.predecessors.iter().all(lost) {
                kept.extend(node.predecessors.iter().copied());
            }
        }
        let count = gone.len();
        gone.retain(|segment| !kept.contains(segment));
        if gone.len() == count {
            return gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, KeyRange, Timestamp};
    use wire::segment_store::ChunkMeta;

    use super::*;

    fn id(epoch: u32, number: u32) -> SegmentId {
        SegmentId { stream: 1, epoch, number }
    }

    /// A segment with a chunk of ten events for each time.
    fn known(epoch: u32, number: u32, follows: &[SegmentId], sealed: bool, times: &[i64]) -> Known {
        let node = SegmentNode {
            segment: id(epoch, number),
            container: ContainerId(0),
            range: KeyRange::split_evenly(1)[0],
            sealed_in: sealed.then_some(epoch + 1),
            predecessors: follows.to_vec(),
            successors: Vec::new(),
        };
        let chunks = (0u64..).zip(times).map(|(n, at)| ChunkMeta {
            key: format!("{n}"),
            from: n * 10,
            to: n * 10 + 10,
            bytes: 1,
            time_min: Timestamp::from_nanos(*at),
            time_max: Timestamp::from_nanos(*at + 9),
        });
        let end = times.len() as u64 * 10;
        let info = SegmentInfo {
            segment: node.segment,
            index: "shop".parse().unwrap(),
            start: 0,
            tail_from: end,
            end,
            sealed,
            chunks: chunks.collect(),
            bytes: end * 100,
            truncated_bytes: 0,
            transactional: false,
        };
        Known { node, info, end, sealed: false }
    }

    fn window(from: Option<i64>, until: Option<i64>) -> Window {
        Window { from: from.map(Timestamp::from_nanos), until: until.map(Timestamp::from_nanos) }
    }

    fn taken(segments: &[Known], from: Option<i64>, until: Option<i64>) -> Vec<(u32, u64, u64)> {
        select(segments, window(from, until)).iter().map(|p| (p.segment.number, p.start, p.end)).collect()
    }

    #[test]
    fn a_window_takes_what_touches_it_and_what_lies_between() {
        let one = [known(0, 0, &[], false, &[100, 200, 50, 300, 400])];
        assert_eq!(taken(&one, None, None), [(0, 0, 50)]);
        assert_eq!(taken(&one, Some(205), None), [(0, 10, 50)]);
        assert_eq!(taken(&one, None, Some(60)), [(0, 0, 30)], "one of the window stands behind others");
        assert_eq!(taken(&one, Some(205), Some(301)), [(0, 10, 40)]);
        assert_eq!(taken(&one, Some(1_000), None), [(0, 50, 50)], "nothing, but the place is kept");
        assert_eq!(taken(&one, None, Some(10)), [(0, 0, 0)]);
        assert_eq!(select(&one, window(Some(205), None))[0].bytes, 4_000);
    }

    #[test]
    fn a_cut_in_a_chunk_is_kept() {
        let mut one = [known(0, 0, &[], false, &[100, 200])];
        one[0].end = 15;
        one[0].info.start = 3;
        assert_eq!(taken(&one, None, None), [(0, 3, 15)]);
        assert_eq!(taken(&one, Some(0), Some(1_000)), [(0, 3, 15)]);
    }

    #[test]
    fn what_a_restore_could_not_make_again_is_seen() {
        let two = [known(0, 0, &[], false, &[100, 200]), known(0, 1, &[], false, &[100, 200, 300, 400])];
        let large = |from, until, max| too_large(&two, &select(&two, window(from, until)), max);
        assert_eq!(large(None, None, 4), None);
        assert_eq!(large(None, None, 3), Some((id(0, 1), 4)));
        assert_eq!(large(None, None, 1), Some((id(0, 0), 2)));
        assert_eq!(large(Some(200), Some(400), 2), None, "a part of the time fits");
    }

    #[test]
    fn what_ends_before_the_window_is_left_out_unless_others_need_it() {
        let split = [
            known(0, 0, &[], true, &[100]),
            known(1, 1, &[id(0, 0)], true, &[200]),
            known(1, 2, &[id(0, 0)], true, &[300]),
            known(2, 3, &[id(1, 1), id(1, 2)], false, &[250, 400]),
        ];
        assert_eq!(taken(&split, Some(350), None), [(3, 10, 20)], "all before the merge is over");
        assert_eq!(
            taken(&split, Some(305), None),
            [(1, 10, 10), (2, 0, 10), (3, 0, 20)],
            "the merge follows one that stays, so the other stays too, without events"
        );
        assert_eq!(taken(&split, Some(150), None), [(1, 0, 10), (2, 0, 10), (3, 0, 20)]);
        assert_eq!(taken(&split, None, Some(150)), [(0, 0, 10), (1, 0, 0), (2, 0, 0), (3, 0, 0)]);
    }
}
