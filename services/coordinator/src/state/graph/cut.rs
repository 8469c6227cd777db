//! Stream cuts: which are valid, which of two is further, and what a truncation leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use types::{KeyRange, Offset, SegmentId, StreamCut};
use wire::{
    coordinator::{SegmentNode, SegmentRange},
    segment_store::SegmentPlace,
};

use super::{Graph, each_overlap};

/// Why a cut is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// It names a segment that never was.
    #[error("segment {0} is not one of this stream")]
    Unknown(SegmentId),
    /// It leaves keys out or names them twice.
    #[error("the ranges of its segments do not cover the key space once")]
    Cover,
    /// It stands in a segment and at the same time behind its end.
    #[error("segment {0} comes before another segment of the cut, which therefore cannot have been reached")]
    Order(SegmentId),
    /// A segment is shorter.
    #[error("segment {segment} ends at {end}, before {offset}")]
    BeyondEnd {
        /// The segment.
        segment: SegmentId,
        /// Its end.
        end: Offset,
        /// What the cut says.
        offset: Offset,
    },
}

/// What a truncation takes out of the stores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Segments that begin later.
    pub truncate: BTreeMap<SegmentId, Offset>,
    /// Segments that are gone.
    pub delete: Vec<SegmentPlace>,
}

impl Graph {
    /// The first events that are there, as remembered: a segment that is not named is there from its beginning.
    pub fn head(&self) -> &StreamCut {
        &self.head
    }

    /// The first events that are there, with every segment named.
    pub fn head_cut(&self) -> StreamCut {
        if !self.head.0.is_empty() {
            return self.head.clone();
        }
        let first = self.nodes.values().take_while(|node| node.segment.epoch == 0);
        StreamCut(first.map(|node| (node.segment, 0)).collect())
    }

    /// Checks a cut and gives it as it is now: what was truncated meanwhile stands at the head. The empty cut is the head.
    ///
    /// The order of its segments is not checked here but where a truncation is planned.
    pub fn resolve(&self, cut: &StreamCut) -> Result<StreamCut, CutError> {
        let mut known = BTreeMap::new();
        let mut gone = cut.0.is_empty();
        for (segment, offset) in &cut.0 {
            if self.nodes.contains_key(segment) {
                known.insert(*segment, (*offset).max(self.head.offset(*segment)));
            } else if self.is_gone(*segment) {
                gone = true;
            } else {
                return Err(CutError::Unknown(*segment));
            }
        }
        if gone {
            let taken = self.by_range(&StreamCut(known.clone()))?;
            for head in self.by_range(&self.head_cut())? {
                let near = taken.partition_point(|s| s.range.last < head.range.first);
                if taken.get(near).is_none_or(|s| !s.range.overlaps(head.range)) {
                    known.insert(head.segment, self.head.offset(head.segment));
                }
            }
        }
        let resolved = StreamCut(known);
        let ranges: Vec<KeyRange> = self.by_range(&resolved)?.iter().map(|s| s.range).collect();
        if KeyRange::cover_once(&ranges) { Ok(resolved) } else { Err(CutError::Cover) }
    }

    /// Whether a cut is at or after another one, for every key; both must be valid.
    pub fn is_at_or_after(&self, cut: &StreamCut, other: &StreamCut) -> Result<bool, CutError> {
        let (cut, other) = (self.resolve(cut)?, self.resolve(other)?);
        let (ours, theirs) = (self.by_range(&cut)?, self.by_range(&other)?);
        let mut after = true;
        each_overlap(&ours, &theirs, |a, b| {
            let (a, b) = (ours[a].segment, theirs[b].segment);
            after &= place(a, &cut) >= place(b, &other);
        });
        Ok(after)
    }

    /// The cut that for every key is the earlier of two; both must be valid.
    pub fn earlier(&self, cut: &StreamCut, other: &StreamCut) -> Result<StreamCut, CutError> {
        let (cut, other) = (self.resolve(cut)?, self.resolve(other)?);
        let (ours, theirs) = (self.by_range(&cut)?, self.by_range(&other)?);
        let mut earlier = BTreeMap::new();
        each_overlap(&ours, &theirs, |a, b| {
            let (a, b) = (ours[a].segment, theirs[b].segment);
            let (segment, offset) =
                if place(a, &cut) <= place(b, &other) { (a, cut.offset(a)) } else { (b, other.offset(b)) };
            earlier.insert(segment, offset);
        });
        Ok(StreamCut(earlier))
    }

    /// Checks a new head and gives it as it is now; `None` if nothing would go.
    pub(crate) fn plan_truncation(&self, cut: &StreamCut) -> Result<Option<StreamCut>, CutError> {
        let cut = self.resolve(cut)?;
        if cut == self.head_cut() {
            return Ok(None);
        }
        let mut seen = BTreeSet::new();
        let mut before = self.predecessors(cut.0.keys());
        while let Some(segment) = before.pop() {
            if cut.0.contains_key(&segment) {
                return Err(CutError::Order(segment));
            }
            if seen.insert(segment) {
                before.extend(self.predecessors([&segment].into_iter()));
            }
        }
        Ok(Some(cut))
    }

    /// Takes in a new head, which was checked, and says what has to go.
    pub(crate) fn truncate(&mut self, cut: &StreamCut) -> Loss {
        let grown = cut.0.iter().filter(|(segment, offset)| **offset > self.head.offset(**segment));
        let mut loss = Loss { truncate: grown.map(|(s, o)| (*s, *o)).collect(), delete: Vec::new() };
        let mut before = self.predecessors(cut.0.keys());
        for segment in cut.0.keys() {
            if let Some(node) = self.nodes.get_mut(segment) {
                node.predecessors.clear();
            }
        }
        while let Some(segment) = before.pop() {
            if let Some(node) = self.nodes.remove(&segment) {
                loss.delete.push(SegmentPlace { segment, container: node.container });
                before.extend(node.predecessors);
            }
        }
        loss.delete.sort_unstable();
        self.head = cut.clone();
        // A record of segments that are all gone tells nothing to anybody.
        while self.records.len() > 1 {
            let told = |s: &SegmentRange| self.nodes.contains_key(&s.segment);
            if self.records.front().is_some_and(|record| record.created.iter().any(told)) {
                break;
            }
            self.records.pop_front();
        }
        loss
    }

    /// Whether a segment was there once and is truncated.
    fn is_gone(&self, segment: SegmentId) -> bool {
        let begun = self.scaling.iter().flat_map(|s| &s.created).any(|s| s.segment == segment);
        let given = segment.stream == self.stream && segment.number < self.next_number;
        given && !begun && segment.epoch <= self.epoch && !self.head.0.is_empty()
    }

    pub(super) fn by_range(&self, cut: &StreamCut) -> Result<Vec<SegmentRange>, CutError> {
        let range = |segment: &SegmentId| {
            self.nodes.get(segment).map(SegmentNode::segment_range).ok_or(CutError::Unknown(*segment))
        };
        let mut ranges = cut.0.keys().map(range).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable_by_key(|s| s.range);
        Ok(ranges)
    }

    fn predecessors<'a>(&self, segments: impl Iterator<Item = &'a SegmentId>) -> Vec<SegmentId> {
        let nodes = segments.filter_map(|segment| self.nodes.get(segment));
        nodes.flat_map(|node| node.predecessors.iter().copied()).collect()
    }
}

/// Orders the places that one key passes: of two segments that share a key the later one has the higher epoch.
fn place(segment: SegmentId, cut: &StreamCut) -> (u32, Offset) {
    (segment.epoch, cut.offset(segment))
}
