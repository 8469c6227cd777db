//! Stream cuts against the graph of a stream's segments: which are valid, which lies before which, and where a stream begins and ends.

mod text;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use futures::{StreamExt, TryStreamExt, stream};
use types::{IndexName, KeyRange, Offset, SegmentId, StreamCut};
use wire::{
    Code, Problem,
    coordinator::{ListSegments, ListSuccessors, SegmentNode, SegmentRange, SegmentsOf, SuccessorsOf},
    segment_store::{DescribeSegment, SegmentInfo, SegmentName, SegmentPlace},
};

pub use text::{EventPointer, cut_from_text, cut_to_text};

use crate::Client;

/// Segments asked for at once.
const PAGE: u32 = 1_000;
/// Segments of a stream that a client can hold: ten thousand, scaled a hundred times.
pub const GRAPH_SEGMENTS_MAX: usize = 1_000_000;
/// Segments described at once; a door holds 256 requests of all its callers.
const DESCRIBED_AT_ONCE: usize = 32;
/// How often the tails are asked for again because the stream scaled meanwhile.
const TAIL_TRIES_MAX: u32 = 5;

/// Why a cut is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// A segment that the stream does not have, or has no more.
    #[error("segment {0} is not in the stream: the cut is of another stream, or lies before the stream's head")]
    Unknown(SegmentId),
    /// Keys that no segment or several segments of the cut hold.
    #[error("the cut's segments do not cover the key space once: take cuts as they were given, do not assemble them")]
    Cover,
    /// Two segments that follow one another.
    #[error("segment {after} of the cut follows segment {before} of the cut: nobody can have read as far as that")]
    Crossed {
        /// The earlier one.
        before: SegmentId,
        /// The later one.
        after: SegmentId,
    },
    /// Two cuts in the wrong order.
    #[error("the range ends before it begins")]
    Backwards,
    /// A text that is not a cut or pointer.
    #[error("{what} cannot be read: {reason}")]
    Text {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        reason: &'static str,
    },
}

impl From<CutError> for Problem {
    fn from(error: CutError) -> Self {
        Self::bad_request("InvalidCut", error)
    }
}

/// The segments of a stream that are still there, sealed ones included, with who follows whom.
#[derive(Debug, Clone, Default)]
pub struct SegmentGraph {
    nodes: BTreeMap<SegmentId, SegmentNode>,
}

/// A segment of a cut with its keys.
type Ranged = (KeyRange, SegmentId, Offset);

impl SegmentGraph {
    /// A graph of these segments.
    pub fn new(nodes: impl IntoIterator<Item = SegmentNode>) -> Self {
        Self { nodes: nodes.into_iter().map(|node| (node.segment, node)).collect() }
    }

    /// A segment; `None` if it is not there, or no more.
    pub fn node(&self, segment: SegmentId) -> Option<&SegmentNode> {
        self.nodes.get(&segment)
    }

    /// Where a segment is.
    ///
    /// Errors: `Unknown`.
    pub fn place(&self, segment: SegmentId) -> Result<SegmentPlace, CutError> {
        let node = self.nodes.get(&segment).ok_or(CutError::Unknown(segment))?;
        Ok(SegmentPlace { segment, container: node.container })
    }

    /// The cut of the segments that follow nothing, at the offsets that `known` names, else at 0.
    pub fn roots(&self, known: &StreamCut) -> StreamCut {
        let first = self.nodes.values().filter(|node| !node.predecessors.iter().any(|p| self.nodes.contains_key(p)));
        StreamCut(first.map(|node| (node.segment, known.offset(node.segment))).collect())
    }

    /// Checks that a reader can stand at a cut: its segments cover the key space once, and none follows another.
    ///
    /// Offsets are not looked at: only the segment store knows how far a segment goes.
    pub fn check(&self, cut: &StreamCut) -> Result<(), CutError> {
        let ranges: Vec<KeyRange> = self.ranged(cut)?.iter().map(|(range, ..)| *range).collect();
        if !KeyRange::cover_once(&ranges) {
            return Err(CutError::Cover);
        }
        let crossed = self.after(cut.0.keys().copied()).into_iter().find(|s| cut.0.contains_key(s));
        let Some(after) = crossed else { return Ok(()) };
        let earlier = cut.0.keys().copied().find(|s| self.after([*s]).contains(&after));
        Err(CutError::Crossed { before: earlier.unwrap_or(after), after })
    }

    /// How two cuts lie: `Less` if `a` is nowhere behind `b`; `None` if each is behind the other for some keys.
    ///
    /// Errors: `Unknown`.
    pub fn compare(&self, a: &StreamCut, b: &StreamCut) -> Result<Option<Ordering>, CutError> {
        let mut all = Ordering::Equal;
        for (x, y) in pairs(&self.ranged(a)?, &self.ranged(b)?) {
            match (all, order(x, y)) {
                (_, Ordering::Equal) => {}
                (Ordering::Equal, one) => all = one,
                (known, one) if known == one => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Of two cuts the later place for every key; segments that are not in the graph lie before everything that is.
    pub fn join(&self, a: &StreamCut, b: &StreamCut) -> StreamCut {
        let (a, b) = (self.ranged_known(a), self.ranged_known(b));
        let mut joined: BTreeMap<SegmentId, Offset> = BTreeMap::new();
        for (_, segment, offset) in a.iter().chain(&b) {
            let known = joined.entry(*segment).or_insert(*offset);
            *known = (*known).max(*offset);
        }
        for (x, y) in pairs(&a, &b) {
            match x.1.epoch.cmp(&y.1.epoch) {
                Ordering::Less => joined.remove(&x.1),
                Ordering::Greater => joined.remove(&y.1),
                Ordering::Equal => None,
            };
        }
        StreamCut(joined)
    }

    /// Whether a segment lies wholly behind a cut; a segment of the cut does not.
    pub fn is_behind(&self, segment: SegmentId, cut: &StreamCut) -> bool {
        let Some(node) = self.nodes.get(&segment) else { return false };
        let of_cut = self.ranged_known(cut);
        !cut.0.contains_key(&segment)
            && (of_cut.is_empty() || pairs(&[(node.range, segment, 0)], &of_cut).any(|(x, y)| y.1.epoch < x.1.epoch))
    }

    /// The segments with anything between two valid cuts, each with where it begins and, in the later cut, ends.
    ///
    /// Errors: `Backwards`, `Unknown`.
    pub fn between(
        &self,
        from: &StreamCut,
        to: &StreamCut,
    ) -> Result<Vec<(SegmentPlace, Offset, Option<Offset>)>, CutError> {
        match self.compare(from, to)? {
            Some(Ordering::Less | Ordering::Equal) => {}
            _ => return Err(CutError::Backwards),
        }
        let mut found = Vec::new();
        let mut seen: BTreeSet<SegmentId> = from.0.keys().copied().collect();
        let mut next: Vec<SegmentId> = seen.iter().copied().collect();
        while let Some(segment) = next.pop() {
            let node = self.nodes.get(&segment).ok_or(CutError::Unknown(segment))?;
            let end = to.0.get(&segment).copied();
            if end.is_none() {
                next.extend(node.successors.iter().filter(|s| self.nodes.contains_key(s) && seen.insert(**s)));
            }
            found.push((self.place(segment)?, from.offset(segment), end));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Everything that follows any of the segments.
    fn after(&self, segments: impl IntoIterator<Item = SegmentId>) -> BTreeSet<SegmentId> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<SegmentId> = segments.into_iter().collect();
        while let Some(segment) = next.pop() {
            let Some(node) = self.nodes.get(&segment) else { continue };
            next.extend(node.successors.iter().filter(|s| self.nodes.contains_key(s) && seen.insert(**s)));
        }
        seen
    }

    /// The segments of a cut in the order of their keys.
    fn ranged(&self, cut: &StreamCut) -> Result<Vec<Ranged>, CutError> {
        let one = |(segment, offset): (&SegmentId, &Offset)| {
            let node = self.nodes.get(segment).ok_or(CutError::Unknown(*segment))?;
            Ok((node.range, *segment, *offset))
        };
        let mut ranged = cut.0.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        ranged.sort_unstable();
        Ok(ranged)
    }

    fn ranged_known(&self, cut: &StreamCut) -> Vec<Ranged> {
        let known = |(s, o): (&SegmentId, &Offset)| self.nodes.get(s).map(|node| (node.range, *s, *o));
        let mut ranged: Vec<Ranged> = cut.0.iter().filter_map(known).collect();
        ranged.sort_unstable();
        ranged
    }
}

/// How two places for the same key lie: its segments are one after the other, each of a later epoch.
fn order(x: &Ranged, y: &Ranged) -> Ordering {
    x.1.epoch.cmp(&y.1.epoch).then(x.2.cmp(&y.2))
}

/// The pairs that share keys; each side is in the order of keys, without overlaps in itself.
fn pairs<'a>(a: &'a [Ranged], b: &'a [Ranged]) -> impl Iterator<Item = (&'a Ranged, &'a Ranged)> {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
            if x.0.last <= y.0.last {
                i += 1;
            }
            if y.0.last <= x.0.last {
                j += 1;
            }
            if x.0.overlaps(y.0) {
                return Some((x, y));
            }
        }
        None
    })
}

/// What comes behind the end of a sealed segment.
#[derive(Debug)]
pub(crate) enum Follows {
    /// These, each with everything that it follows.
    Segments(Vec<SegmentNode>),
    /// Nobody knows yet: the scale that sealed it has not opened its epoch.
    NotYet,
    /// Nothing: the stream is sealed.
    Nothing,
    /// The segment was truncated away.
    Gone,
}

impl Client {
    /// The graph of a stream's segments.
    ///
    /// Bounds: [`GRAPH_SEGMENTS_MAX`]. Errors: NotFound `UnknownIndex`.
    pub async fn graph(&self, index: &IndexName) -> Result<SegmentGraph, Problem> {
        let mut nodes = BTreeMap::new();
        let mut after = None;
        loop {
            let request = SegmentsOf { index: index.clone(), after, limit: PAGE };
            let page = self.bus.call::<ListSegments>(&(), &request).await?;
            after = page.segments.last().map(|node| node.segment);
            nodes.extend(page.segments.into_iter().map(|node| (node.segment, node)));
            if nodes.len() > GRAPH_SEGMENTS_MAX {
                let message = format_args!("stream {index} has more than {GRAPH_SEGMENTS_MAX} segments: truncate it");
                return Err(Problem::throttled("TooManySegments", message));
            }
            if !page.more || after.is_none() {
                return Ok(SegmentGraph { nodes });
            }
        }
    }

    /// One segment of a stream, however old; `None` if it is not there, or no more.
    pub async fn locate(&self, index: &IndexName, segment: SegmentId) -> Result<Option<SegmentNode>, Problem> {
        let after = match segment {
            SegmentId { number: 1.., .. } => Some(SegmentId { number: segment.number - 1, ..segment }),
            SegmentId { epoch: 1.., .. } => Some(SegmentId { epoch: segment.epoch - 1, number: u32::MAX, ..segment }),
            _ => None,
        };
        let request = SegmentsOf { index: index.clone(), after, limit: 1 };
        let page = self.bus.call::<ListSegments>(&(), &request).await?;
        Ok(page.segments.into_iter().find(|node| node.segment == segment))
    }

    /// The cut before the first event that is still there.
    pub async fn heads(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        let stream = self.stream_now(index).await?;
        if stream.epoch == 0 {
            let first = stream.segments.iter().map(|s| (s.segment, stream.head.offset(s.segment)));
            return Ok(StreamCut(first.collect()));
        }
        Ok(self.graph(index).await?.roots(&stream.head))
    }

    /// The cut behind the last event that was acknowledged before the call.
    pub async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        let mut stream = self.stream(index).await?;
        for _ in 0..TAIL_TRIES_MAX {
            let infos = self.describe_all(stream.segments.iter().map(SegmentRange::place)).await;
            // A description of late may miss that the stream scaled: then the present end is in other segments.
            let stale = match &infos {
                Ok(infos) => infos.iter().any(|info| info.sealed) && !stream.sealed,
                Err(problem) => problem.code == Code::NotFound,
            };
            if stale {
                let now = self.stream_now(index).await?;
                if now.epoch != stream.epoch {
                    stream = now;
                    continue;
                }
            }
            return Ok(StreamCut(infos?.iter().map(|info| (info.segment, info.end)).collect()));
        }
        let message = format_args!("stream {index} scales faster than its ends can be asked for");
        Err(Problem::unavailable("StreamScales", message))
    }

    /// The event at a pointer: a batch of one row.
    ///
    /// Errors: NotFound `NoSuchEvent` when it was truncated or never was; `UnknownIndex`.
    pub async fn fetch_event(&self, pointer: &EventPointer) -> Result<arrow::array::RecordBatch, Problem> {
        let absent = |why: &str| Problem::not_found("NoSuchEvent", format_args!("event {pointer}: {why}"));
        let position = pointer.position;
        let Some(node) = self.locate(&pointer.index, position.segment).await? else {
            return Err(absent("its segment is not there any more"));
        };
        let mut reader = self.reader(node.segment_range(), position.offset);
        match reader.next(std::time::Duration::ZERO).await {
            Ok(Some(batch)) => Ok(batch.slice(0, 1)),
            Ok(None) => Err(absent("the segment does not go as far")),
            Err(problem) if problem.kind == "Truncated" => Err(absent("it was truncated")),
            Err(problem) if problem.kind == "UnknownSegment" => Err(absent("its segment is not there any more")),
            Err(problem) => Err(problem),
        }
    }

    /// Checks a cut against the stream as it is now, see [`SegmentGraph::check`].
    pub async fn check_cut(&self, index: &IndexName, cut: &StreamCut) -> Result<(), Problem> {
        Ok(self.graph(index).await?.check(cut)?)
    }

    /// What follows a segment that is sealed and was read to its end.
    pub(crate) async fn follows(&self, index: &IndexName, segment: SegmentId) -> Result<Follows, Problem> {
        let request = SuccessorsOf { index: index.clone(), segment };
        let found = match self.bus.call::<ListSuccessors>(&(), &request).await {
            Ok(found) => found.segments,
            Err(problem) if problem.kind == "UnknownSegment" => return Ok(Follows::Gone),
            Err(problem) => return Err(problem),
        };
        if !found.is_empty() {
            return Ok(Follows::Segments(found));
        }
        let stream = self.stream_now(index).await?;
        let present = stream.segments.iter().any(|s| s.segment == segment);
        if present {
            return Ok(if stream.sealed { Follows::Nothing } else { Follows::NotYet });
        }
        Ok(if self.locate(index, segment).await?.is_some() { Follows::NotYet } else { Follows::Gone })
    }

    /// Describes a segment by its place.
    pub(crate) async fn describe_place(&self, place: SegmentPlace) -> Result<SegmentInfo, Problem> {
        self.bus.call::<DescribeSegment>(&place.container, &SegmentName { segment: place.segment }).await
    }

    /// Describes many segments, a few at a time.
    pub(crate) async fn describe_all(
        &self,
        places: impl IntoIterator<Item = SegmentPlace>,
    ) -> Result<Vec<SegmentInfo>, Problem> {
        let asked = places.into_iter().map(|place| self.describe_place(place));
        stream::iter(asked.collect::<Vec<_>>()).buffered(DESCRIBED_AT_ONCE).try_collect().await
    }
}

/// Where a segment is, from what else is known of it.
pub(crate) trait Placed {
    /// The segment and its container.
    fn place(&self) -> SegmentPlace;
}

impl Placed for SegmentRange {
    fn place(&self) -> SegmentPlace {
        SegmentPlace { segment: self.segment, container: self.container }
    }
}

impl Placed for SegmentNode {
    fn place(&self) -> SegmentPlace {
        SegmentPlace { segment: self.segment, container: self.container }
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
