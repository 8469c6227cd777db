//! Where a tail stands in the graph of a stream's segments. Pure.
//!
//! A segment is begun only when everything that it follows was read to its end; so the rows of a key come in their order
//! through any number of splits and merges. The positions of all segments that are being read, and of those that ended
//! while a successor still waits for others, are a cut from which a later tail goes on.

use std::collections::{BTreeMap, BTreeSet};

use types::{KeyRange, Offset, Position, SegmentId, StreamCut};
use wire::coordinator::{SegmentNode, SegmentRange};

/// A cut leaves keys out, so that it is none of this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the position leaves out a part of the index: begin at `earliest` or `latest`")]
pub(crate) struct Gap;

/// How far a tail is.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    places: BTreeMap<SegmentId, Place>,
    /// Segments that were read and may yet be named as what follows one of `places`, which begins again at its end when a
    /// cut is gone on from. Bounds: those that follow a place.
    passed: BTreeMap<SegmentId, KeyRange>,
}

#[derive(Debug)]
struct Place {
    segment: SegmentRange,
    offset: Offset,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// It is being read.
    Reading,
    /// It was read to its end, and these of its successors still wait for others.
    Waiting(BTreeSet<SegmentId>),
    /// It was read to its end, and nothing will follow. It stays, so that the cut is still one.
    Last,
}

/// What is to be done after a look at the whole graph.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arranged {
    /// Places in segments that are there no more: they were truncated.
    pub(crate) lost: Vec<Position>,
    /// Segments to read now.
    pub(crate) begun: Vec<SegmentRange>,
}

impl Walk {
    /// Stands at a cut; keys that it leaves out are read from their first event that is there.
    pub(crate) fn open(nodes: &[SegmentNode], cut: &StreamCut) -> Result<(Self, Arranged), Gap> {
        let mut walk = Self::default();
        let mut lost: Vec<Position> =
            cut.0.iter().map(|(segment, offset)| Position { segment: *segment, offset: *offset }).collect();
        let mut begun = Vec::new();
        for node in nodes {
            if let Some(offset) = cut.0.get(&node.segment) {
                walk.begin(node.segment_range(), *offset);
                begun.push(node.segment_range());
            }
        }
        lost.retain(|position| !walk.places.contains_key(&position.segment));
        let mut arranged = walk.arrange(nodes)?;
        arranged.begun.splice(..0, begun);
        arranged.lost = lost;
        Ok((walk, arranged))
    }

    /// Looks at the whole graph again: forgets what is there no more, and begins what waited only for that.
    pub(crate) fn arrange(&mut self, nodes: &[SegmentNode]) -> Result<Arranged, Gap> {
        let listed: BTreeSet<SegmentId> = nodes.iter().map(|node| node.segment).collect();
        let gone = |(segment, place): (&SegmentId, &Place)| {
            let unread = place.stage == Stage::Reading && !listed.contains(segment);
            unread.then_some(Position { segment: *segment, offset: place.offset })
        };
        let lost = self.places.iter().filter_map(gone).collect();
        self.places.retain(|segment, _| listed.contains(segment));
        self.passed = behind(nodes, self.places.keys());
        let ripe = |node: &&SegmentNode| {
            let mut before = node.predecessors.iter().filter(|segment| listed.contains(segment));
            self.is_new(node.segment) && before.all(|segment| self.is_read(*segment))
        };
        let begun: Vec<SegmentRange> = nodes.iter().filter(ripe).map(SegmentNode::segment_range).collect();
        begun.iter().for_each(|segment| self.begin(*segment, 0));
        // What waits for others is read later.
        let later = nodes.iter().filter(|node| self.is_new(node.segment)).map(|node| node.range);
        if covers(self.places.values().map(|place| place.segment.range).chain(later)) {
            Ok(Arranged { lost, begun })
        } else {
            Err(Gap)
        }
    }

    /// The positions after what was read.
    pub(crate) fn cut(&self) -> StreamCut {
        StreamCut(self.places.iter().map(|(segment, place)| (*segment, place.offset)).collect())
    }

    /// The position in a segment.
    pub(crate) fn offset(&self, segment: SegmentId) -> Offset {
        self.places.get(&segment).map_or(0, |place| place.offset)
    }

    /// Whether the segment is one of those that are being read or waited for.
    pub(crate) fn holds(&self, segment: SegmentId) -> bool {
        self.places.contains_key(&segment)
    }

    /// Takes note of how far a segment was read.
    pub(crate) fn reached(&mut self, segment: SegmentId, offset: Offset) {
        if let Some(place) = self.places.get_mut(&segment) {
            place.offset = offset;
        }
    }

    /// A segment was read to its end; answers which of those that follow it are to be read now.
    pub(crate) fn ended(&mut self, segment: SegmentId, successors: &[SegmentNode]) -> Vec<SegmentRange> {
        let waiting = successors.iter().map(|node| node.segment).filter(|node| self.is_new(*node)).collect();
        let Some(place) = self.places.get_mut(&segment) else { return Vec::new() };
        place.stage = if successors.is_empty() { Stage::Last } else { Stage::Waiting(waiting) };
        let ripe = |node: &&SegmentNode| {
            self.is_new(node.segment) && node.predecessors.iter().all(|segment| self.is_read(*segment))
        };
        let begun: Vec<SegmentRange> = successors.iter().filter(ripe).map(SegmentNode::segment_range).collect();
        begun.iter().for_each(|segment| self.begin(*segment, 0));
        self.forget_followed();
        begun
    }

    fn begin(&mut self, segment: SegmentRange, offset: Offset) {
        for place in self.places.values_mut() {
            if let Stage::Waiting(successors) = &mut place.stage {
                successors.remove(&segment.segment);
            }
        }
        self.forget_followed();
        self.places.insert(segment.segment, Place { segment, offset, stage: Stage::Reading });
    }

    /// Drops segments whose successors have all begun.
    fn forget_followed(&mut self) {
        let followed = |place: &Place| matches!(&place.stage, Stage::Waiting(successors) if successors.is_empty());
        let over = self.places.iter().filter(|(_, place)| followed(place));
        self.passed.extend(over.map(|(segment, place)| (*segment, place.segment.range)));
        self.places.retain(|_, place| !followed(place));
        let places = &self.places;
        let follows = |segment: &SegmentId, range: &KeyRange| {
            places.iter().any(|(before, place)| before.epoch < segment.epoch && place.segment.range.overlaps(*range))
        };
        self.passed.retain(|segment, range| follows(segment, range));
    }

    fn is_new(&self, segment: SegmentId) -> bool {
        !self.places.contains_key(&segment) && !self.passed.contains_key(&segment)
    }

    fn is_read(&self, segment: SegmentId) -> bool {
        self.passed.contains_key(&segment)
            || self.places.get(&segment).is_some_and(|place| place.stage != Stage::Reading)
    }
}

/// Everything that these segments follow, themselves left out.
fn behind<'a>(nodes: &[SegmentNode], segments: impl Iterator<Item = &'a SegmentId>) -> BTreeMap<SegmentId, KeyRange> {
    let by_id: BTreeMap<SegmentId, &SegmentNode> = nodes.iter().map(|node| (node.segment, node)).collect();
    let mut open: Vec<SegmentId> = segments.copied().collect();
    let here: BTreeSet<SegmentId> = open.iter().copied().collect();
    let mut behind = BTreeMap::new();
    while let Some(segment) = open.pop() {
        let before = by_id.get(&segment).map(|node| node.predecessors.as_slice()).unwrap_or_default();
        for node in before.iter().filter_map(|before| by_id.get(before)) {
            if behind.insert(node.segment, node.range).is_none() {
                open.push(node.segment);
            }
        }
    }
    behind.retain(|segment, _| !here.contains(segment));
    behind
}

/// Whether every key is in one of the ranges.
fn covers(ranges: impl Iterator<Item = KeyRange>) -> bool {
    let mut sorted: Vec<KeyRange> = ranges.collect();
    sorted.sort_unstable();
    // The first key that is in none of those seen; `None` when there is no such key.
    let mut next = Some(0u64);
    for range in sorted {
        match next {
            Some(key) if range.first > key => return false,
            Some(key) if range.last >= key => next = range.last.checked_add(1),
            _ => {}
        }
    }
    next.is_none()
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
