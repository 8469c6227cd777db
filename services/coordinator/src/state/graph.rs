//! The segments of one stream through all its epochs. Pure.

mod cut;
mod restored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use types::{ContainerId, KeyRange, SegmentId, StreamCut, Timestamp};
use wire::{
    coordinator::{EpochRecord, SegmentNode, SegmentRange},
    segment_store::SegmentPlace,
};

pub use cut::{CutError, Loss};
pub use restored::{RESTORED_SEGMENTS_MAX, RestoreError};

/// Present segments of one stream: their description takes about 1 MiB then, which one message and one view still carry.
pub const SEGMENTS_PRESENT_MAX: usize = 10_000;

/// Segments of one stream that are remembered, ended ones included; about 300 bytes each. Truncation makes room.
pub const SEGMENTS_KEPT_MAX: usize = 250_000;

/// Segments that commits of transactions may begin beyond [`SEGMENTS_KEPT_MAX`]: an epoch for the transaction and one as it was before.
/// Without it a commit that was decided could wait for room for ever, and every scale with it.
pub const COMMIT_ROOM: usize = 2 * SEGMENTS_PRESENT_MAX;

/// Epochs of one stream whose record is kept; the oldest records go first, their segments stay.
pub const EPOCHS_KEPT_MAX: usize = 10_000;

/// Segment numbers from here on belong to transactions.
pub const NUMBERS_MAX: u32 = 1 << 31;

/// Why segments cannot be replaced as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// Nothing to end, or nothing to begin.
    #[error("name at least one segment to end and one range to begin")]
    Empty,
    /// Not one of the present segments, or named twice.
    #[error("segment {0} is not present or is named twice; list the present segments again")]
    NotPresent(SegmentId),
    /// The keys before and after are not the same.
    #[error("the new ranges do not cover once what the ended segments cover")]
    Ranges,
    /// One container for each range.
    #[error("{containers} containers were given for {ranges} ranges")]
    Containers {
        /// How many containers.
        containers: usize,
        /// How many ranges.
        ranges: usize,
    },
    /// [`SEGMENTS_PRESENT_MAX`].
    #[error("the stream would have {0} segments; at most {SEGMENTS_PRESENT_MAX} are possible")]
    TooManyPresent(usize),
    /// [`SEGMENTS_KEPT_MAX`].
    #[error("the stream remembers {0} segments, ended ones included, of at most {SEGMENTS_KEPT_MAX}; truncate it")]
    TooManyKept(usize),
    /// [`NUMBERS_MAX`].
    #[error("the stream has used up its segment numbers; write to a new index, this one keeps its present segments")]
    NumbersUsedUp,
}

/// Segments that are being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// The epoch that opens when all is done.
    pub epoch: u32,
    /// Segments that end, by range.
    pub seal: Vec<SegmentId>,
    /// Segments that begin, by range.
    pub created: Vec<SegmentRange>,
}

/// The segments of one stream through all its epochs.
///
/// Present segments cover the key space once. Every other segment was replaced by its successors, which cover at least its keys,
/// so that the segments which had one key form a chain. What a truncation left behind is no longer in it.
/// Bounds: [`SEGMENTS_PRESENT_MAX`], [`SEGMENTS_KEPT_MAX`], [`COMMIT_ROOM`], [`EPOCHS_KEPT_MAX`]. A scale costs as much as it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    stream: u32,
    epoch: u32,
    next_number: u32,
    nodes: BTreeMap<SegmentId, SegmentNode>,
    /// By the first hash of the range.
    present: BTreeMap<u64, SegmentRange>,
    records: VecDeque<EpochRecord>,
    scaling: Option<Scaling>,
    /// Empty until the first truncation.
    head: StreamCut,
}

impl Graph {
    /// The first epoch, of the given segments.
    pub(crate) fn first(stream: u32, segments: Vec<SegmentRange>, at: Timestamp) -> Self {
        let node = |s: &SegmentRange| SegmentNode {
            segment: s.segment,
            container: s.container,
            range: s.range,
            sealed_in: None,
            predecessors: Vec::new(),
            successors: Vec::new(),
        };
        let next_number = segments.iter().map(|s| s.segment.number + 1).max().unwrap_or(0);
        let nodes = segments.iter().map(|s| (s.segment, node(s))).collect();
        let present = segments.iter().map(|s| (s.range.first, *s)).collect();
        let first = EpochRecord { epoch: 0, at, sealed: Vec::new(), created: segments, splits: 0, merges: 0 };
        let (records, head) = (VecDeque::from([first]), StreamCut::default());
        Self { stream, epoch: 0, next_number, nodes, present, records, scaling: None, head }
    }

    /// The number of the stream.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// The present epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The present segments by range; they cover the key space once.
    pub fn present(&self) -> impl ExactSizeIterator<Item = &SegmentRange> {
        self.present.values()
    }

    /// The present segment for a place in the hash space.
    pub fn route(&self, hash: u64) -> Option<&SegmentRange> {
        self.present.range(..=hash).next_back().map(|(_, segment)| segment)
    }

    /// Whether the segment is one of the present ones.
    pub fn is_present(&self, segment: SegmentId) -> bool {
        self.nodes.get(&segment).is_some_and(|node| self.present_at(node))
    }

    fn present_at(&self, node: &SegmentNode) -> bool {
        self.present.get(&node.range.first).is_some_and(|there| there.segment == node.segment)
    }

    /// A segment with its neighbours.
    pub fn node(&self, segment: SegmentId) -> Option<&SegmentNode> {
        self.nodes.get(&segment)
    }

    /// Segments behind `after` by id, ended ones included.
    pub fn nodes(&self, after: Option<SegmentId>) -> impl Iterator<Item = &SegmentNode> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.nodes.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, node)| node)
    }

    /// How many segments are remembered.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no segment, which never is the case in a stream.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What follows a segment, each with everything that it follows.
    pub fn successors(&self, segment: SegmentId) -> Vec<&SegmentNode> {
        let ids = self.nodes.get(&segment).map_or(&[][..], |node| &node.successors);
        ids.iter().filter_map(|id| self.nodes.get(id)).collect()
    }

    /// Records of epochs from one on.
    pub fn epochs(&self, from: u32) -> impl Iterator<Item = &EpochRecord> {
        self.records.range(self.records.partition_point(|record| record.epoch < from)..)
    }

    /// The number of the next segment.
    pub fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Gives no number below this one any more.
    pub(crate) fn number_from(&mut self, number: u32) {
        self.next_number = self.next_number.max(number.min(NUMBERS_MAX / 2));
    }

    /// How many segments the commit of a transaction may begin.
    pub fn commit_room(&self) -> usize {
        let numbers = usize::try_from(NUMBERS_MAX - self.next_number.min(NUMBERS_MAX)).unwrap_or(usize::MAX);
        (SEGMENTS_KEPT_MAX + COMMIT_ROOM).saturating_sub(self.nodes.len()).min(numbers)
    }

    /// Refuses a scale that somebody asks for and that would take what commits need.
    pub(crate) fn check_room(&self, begun: usize) -> Result<(), ScaleError> {
        let kept = self.nodes.len();
        if kept + begun > SEGMENTS_KEPT_MAX {
            return Err(ScaleError::TooManyKept(kept));
        }
        if self.commit_room() < begun + COMMIT_ROOM { Err(ScaleError::NumbersUsedUp) } else { Ok(()) }
    }

    /// The scale that was begun and whose epoch is not open yet.
    pub fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// Where a segment is.
    pub fn place(&self, segment: SegmentId) -> Option<SegmentPlace> {
        self.nodes.get(&segment).map(|node| SegmentPlace { segment, container: node.container })
    }

    /// Every segment that may exist in a store: remembered ones, and those of a scale that has not ended.
    pub fn places(&self) -> Vec<SegmentPlace> {
        let begun = self.scaling.iter().flat_map(|scaling| &scaling.created);
        let begun = begun.map(|s| SegmentPlace { segment: s.segment, container: s.container });
        let kept = self.nodes.values().map(|n| SegmentPlace { segment: n.segment, container: n.container });
        kept.chain(begun).collect()
    }

    /// The segments that the scale begins, each with the ended ones that it follows.
    pub fn beginnings(&self) -> Vec<(SegmentRange, Vec<SegmentPlace>)> {
        let Some(scaling) = &self.scaling else { return Vec::new() };
        let ended = self.ranges(&scaling.seal);
        let mut all: Vec<_> = scaling.created.iter().map(|created| (*created, Vec::new())).collect();
        each_overlap(&ended, &scaling.created, |old, new| {
            all[new].1.push(SegmentPlace { segment: ended[old].segment, container: ended[old].container });
        });
        all
    }

    fn ranges(&self, segments: &[SegmentId]) -> Vec<SegmentRange> {
        segments.iter().filter_map(|id| self.nodes.get(id)).map(SegmentNode::segment_range).collect()
    }

    /// Checks a scale and says what it begins; changes nothing.
    pub(crate) fn plan(
        &self,
        seal: &[SegmentId],
        ranges: &[KeyRange],
        container: impl Fn(usize, SegmentId) -> ContainerId,
    ) -> Result<Scaling, ScaleError> {
        if seal.is_empty() || ranges.is_empty() {
            return Err(ScaleError::Empty);
        }
        let mut named = BTreeSet::new();
        for segment in seal {
            if !named.insert(*segment) || !self.is_present(*segment) {
                return Err(ScaleError::NotPresent(*segment));
            }
        }
        let mut ended = self.ranges(seal);
        ended.sort_unstable_by_key(|s| s.range);
        let before: Vec<KeyRange> = ended.iter().map(|s| s.range).collect();
        // The order that the caller gave decides which container belongs to which range.
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_unstable_by_key(|i| ranges[*i]);
        let after: Vec<KeyRange> = order.iter().map(|i| ranges[*i]).collect();
        match (joined(&before), joined(&after)) {
            (Some(before), Some(after)) if before == after => {}
            _ => return Err(ScaleError::Ranges),
        }
        let present = self.present.len() - seal.len() + ranges.len();
        if present > SEGMENTS_PRESENT_MAX {
            return Err(ScaleError::TooManyPresent(present));
        }
        if ranges.len() > self.commit_room() {
            let (kept, most) = (self.nodes.len(), SEGMENTS_KEPT_MAX + COMMIT_ROOM);
            let full = kept + ranges.len() > most;
            return Err(if full { ScaleError::TooManyKept(kept) } else { ScaleError::NumbersUsedUp });
        }
        let epoch = self.epoch + 1;
        let created = (self.next_number..).zip(order).map(|(number, asked)| {
            let segment = SegmentId { stream: self.stream, epoch, number };
            SegmentRange { segment, container: container(asked, segment), range: ranges[asked] }
        });
        let created = created.collect();
        Ok(Scaling { epoch, seal: ended.iter().map(|s| s.segment).collect(), created })
    }

    /// Whether exactly this scale was done already.
    pub(crate) fn was_scaled(&self, seal: &[SegmentId], ranges: &[KeyRange]) -> bool {
        let first = seal.first().and_then(|segment| self.nodes.get(segment));
        let Some(epoch) = first.and_then(|node| node.sealed_in) else { return false };
        let from = SegmentId { stream: self.stream, epoch, number: 0 };
        let to = SegmentId { number: u32::MAX, ..from };
        let begun: Vec<&SegmentNode> = self.nodes.range(from..=to).map(|(_, node)| node).collect();
        let ended: BTreeSet<SegmentId> = begun.iter().flat_map(|node| node.predecessors.iter().copied()).collect();
        let wanted: BTreeSet<SegmentId> = seal.iter().copied().collect();
        let mut asked = ranges.to_vec();
        asked.sort_unstable();
        let mut there: Vec<KeyRange> = begun.iter().map(|node| node.range).collect();
        there.sort_unstable();
        ended == wanted && asked == there
    }

    /// Takes in that a scale was begun.
    pub(crate) fn begin(&mut self, scaling: &Scaling) {
        let last = scaling.created.iter().map(|s| s.segment.number + 1).max();
        self.next_number = self.next_number.max(last.unwrap_or(0));
        self.scaling = Some(scaling.clone());
    }

    /// Takes in that the begun epoch is open.
    pub(crate) fn open(&mut self, epoch: u32, at: Timestamp) {
        let Some(scaling) = self.scaling.take_if(|scaling| scaling.epoch == epoch) else { return };
        let ended = self.ranges(&scaling.seal);
        for created in &scaling.created {
            let (segment, container, range) = (created.segment, created.container, created.range);
            let (predecessors, successors) = (Vec::new(), Vec::new());
            let node = SegmentNode { segment, container, range, sealed_in: None, predecessors, successors };
            self.nodes.insert(segment, node);
        }
        for old in &ended {
            self.present.remove(&old.range.first);
            if let Some(node) = self.nodes.get_mut(&old.segment) {
                node.sealed_in = Some(epoch);
            }
        }
        self.present.extend(scaling.created.iter().map(|created| (created.range.first, *created)));
        let (mut split, mut merged) = (vec![0u32; ended.len()], vec![0u32; scaling.created.len()]);
        each_overlap(&ended, &scaling.created, |old, new| {
            (split[old], merged[new]) = (split[old] + 1, merged[new] + 1);
            let (before, after) = (ended[old].segment, scaling.created[new].segment);
            if let Some(node) = self.nodes.get_mut(&before) {
                node.successors.push(after);
            }
            if let Some(node) = self.nodes.get_mut(&after) {
                node.predecessors.push(before);
            }
        });
        let several = |counts: &[u32]| u32::try_from(counts.iter().filter(|n| **n > 1).count()).unwrap_or(u32::MAX);
        let (splits, merges) = (several(&split), several(&merged));
        let record = EpochRecord { epoch, at, sealed: scaling.seal, created: scaling.created, splits, merges };
        self.records.push_back(record);
        if self.records.len() > EPOCHS_KEPT_MAX {
            self.records.pop_front();
        }
        self.epoch = epoch;
    }
}

/// Sorted ranges with neighbours joined; `None` if two of them overlap or one is upside down.
fn joined(sorted: &[KeyRange]) -> Option<Vec<KeyRange>> {
    let mut joined: Vec<KeyRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            _ if range.first > range.last => return None,
            Some(last) if range.first <= last.last => return None,
            Some(last) if last.last + 1 == range.first => last.last = range.last,
            _ => joined.push(*range),
        }
    }
    Some(joined)
}

/// Calls for every pair that shares a key; both sides are sorted and disjoint, so there are fewer pairs than segments.
fn each_overlap(left: &[SegmentRange], right: &[SegmentRange], mut found: impl FnMut(usize, usize)) {
    let (mut l, mut r) = (0, 0);
    while l < left.len() && r < right.len() {
        let (a, b) = (left[l].range, right[r].range);
        if a.overlaps(b) {
            found(l, r);
        }
        if a.last <= b.last {
            l += 1;
        } else {
            r += 1;
        }
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "graph_history_tests.rs"]
mod history_tests;
