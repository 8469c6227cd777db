//! Which segment takes a row of a writer, under which number, while the target index is scaled.
//!
//! A writer numbers its rows from 1 in each segment, and a replay has to give each row the segment and the number that it had
//! before. Which moment a scale falls into is chance; what a sealed segment holds of the writer is not: that number never changes
//! again. So each writer keeps targets of its own, and a row goes to the earliest target for its key that is not used up:
//!
//! - a target that is sealed with `end` as the writer's last number takes rows up to that number - they are stored already -
//!   and is then used up;
//! - its successors take what follows, and count on from the highest number that any of *their* predecessors holds of the writer.
//!   The segment store begins there too. What a successor itself holds is never asked for: in a replay it holds rows that come again.
//!
//! A segment that follows several targets gets rows of all of them in one order, which must be the order of the rows. So
//! before anything is sent to it, every target that it follows is known to be sealed, with its last number.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use client::SegmentGraph;
use futures::future::try_join_all;
use types::{KeyRange, SegmentId};
use wire::{
    Problem,
    coordinator::{SegmentNode, SegmentRange},
};

use crate::{error::TaskError, metrics::rows, part::Numbers};

/// What a writer's targets ask of the segments of an index.
pub(crate) trait Segments {
    /// Appends the writer's events under numbers from `first` on, and says how many were there already; `None` when the
    /// segment is sealed, and then a part of the events may be stored.
    async fn append(&self, segment: SegmentRange, first: u64, events: &[Bytes]) -> Result<Option<u64>, TaskError>;
    /// The writer's last number in a segment.
    async fn last(&self, segment: SegmentRange) -> Result<u64, TaskError>;
    /// The stream's segments at a time when the sealed one has successors.
    async fn behind(&self, sealed: SegmentId) -> Result<SegmentGraph, TaskError>;
}

/// The targets of one writer.
///
/// Open ones never overlap, and all together hold every key. Bounds: the stream's present segments, and sealed ones that a
/// replay has not reached the end of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets(BTreeMap<SegmentId, Target>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    segment: SegmentRange,
    /// The number of the last row that is stored.
    last: u64,
    /// The writer's last number in it for ever, once it is known to be sealed.
    end: Option<u64>,
}

impl Target {
    fn is_used_up(&self) -> bool {
        self.end.is_some_and(|end| self.last >= end)
    }
}

/// A row on its way: its place among the rows of the call, its key's place in the hash space, and itself.
type Row = (usize, u64, Bytes);

/// Rows for one open target, under consecutive numbers.
struct Run {
    segment: SegmentRange,
    first: u64,
    rows: Vec<Row>,
    events: Vec<Bytes>,
}

impl Targets {
    /// Targets that are taken for open until they answer otherwise.
    fn counting(segments: impl IntoIterator<Item = (SegmentRange, u64)>) -> Self {
        let target = |(segment, last): (SegmentRange, u64)| (segment.segment, Target { segment, last, end: None });
        Self(segments.into_iter().map(target).collect())
    }

    /// Targets as a checkpoint left them; what is missing of them is replaced by segments of `present`.
    ///
    /// A segment that was truncated away answers for nothing any more. In its place come the present segments of its keys,
    /// behind what they hold of the writer: nothing is lost, but rows that were written between the checkpoint and its end may
    /// come twice. `sparse` is a checkpoint of a release that left out segments without rows.
    pub(crate) async fn restore<S: Segments>(
        segments: &S,
        numbers: &Numbers,
        graph: &SegmentGraph,
        present: &[SegmentRange],
        sparse: bool,
    ) -> Result<Self, TaskError> {
        let known = numbers.iter().filter_map(|(s, last)| Some((graph.node(*s)?.segment_range(), *last)));
        let (mut targets, replacing) = Self::counting(known).without_gaps(present);
        for segment in replacing {
            let first_of_its_keys = graph.node(segment.segment).is_some_and(|node| node.predecessors.is_empty());
            let last = if sparse && first_of_its_keys { 0 } else { segments.last(segment).await? };
            targets.0.insert(segment.segment, Target { segment, last, end: None });
        }
        Ok(targets)
    }

    /// The targets that can stay, and the present segments for the keys that they leave.
    fn without_gaps(mut self, present: &[SegmentRange]) -> (Self, Vec<SegmentRange>) {
        loop {
            let gaps = uncovered(self.0.values().map(|target| target.segment.range));
            let replacing = present.iter().filter(|s| gaps.iter().any(|gap| gap.overlaps(s.range)));
            let replacing: Vec<SegmentRange> = replacing.copied().collect();
            let before = self.0.len();
            // A target whose keys another one would share goes too, else two would count the same rows.
            self.0.retain(|_, target| !replacing.iter().any(|s| s.range.overlaps(target.segment.range)));
            if self.0.len() == before {
                return (self, replacing);
            }
        }
    }

    /// The last number in each target, also in those without rows: a replay has to begin with the same targets.
    pub(crate) fn numbers(&self) -> Numbers {
        self.0.iter().map(|(segment, target)| (*segment, target.last)).collect()
    }

    /// Appends rows, each with its key's place in the hash space; when it returns all of them are durable.
    ///
    /// Returns how many were stored before. Order: per target as given. Bounds: one round per epoch that the targets are behind.
    pub(crate) async fn append<S: Segments>(
        &mut self,
        segments: &S,
        events: impl IntoIterator<Item = (u64, Bytes)>,
    ) -> Result<u64, TaskError> {
        let mut rest: Vec<Row> =
            events.into_iter().enumerate().map(|(place, (hash, event))| (place, hash, event)).collect();
        let mut repeated = 0;
        while !rest.is_empty() {
            while let Some(behind) = self.behind_another() {
                self.settle(segments, behind).await?;
            }
            let (runs, stored) = self.assign(std::mem::take(&mut rest))?;
            repeated += stored;
            let appends = runs.iter().map(|run| segments.append(run.segment, run.first, &run.events));
            let answers = try_join_all(appends).await?;
            let mut refused = Vec::new();
            for (run, answer) in runs.into_iter().zip(answers) {
                let segment = run.segment.segment;
                match (answer, self.0.get_mut(&segment)) {
                    (Some(known), Some(target)) => {
                        repeated += known;
                        target.last += rows(run.events.len());
                    }
                    _ => {
                        refused.push(segment);
                        rest.extend(run.rows);
                    }
                }
            }
            // What was refused goes on together and in the order of the rows, wherever it goes.
            rest.sort_unstable_by_key(|(place, ..)| *place);
            for segment in refused {
                self.settle(segments, segment).await?;
            }
        }
        self.shed();
        Ok(repeated)
    }

    /// Gives each row to its target: sealed ones count what they hold, open ones get runs. Also how many were stored already.
    fn assign(&mut self, rest: Vec<Row>) -> Result<(Vec<Run>, u64), TaskError> {
        let mut runs: BTreeMap<SegmentId, Run> = BTreeMap::new();
        let mut stored = 0;
        for row in rest {
            let hash = row.1;
            let holds = |target: &&mut Target| target.segment.range.contains(hash) && !target.is_used_up();
            let Some(target) = self.0.values_mut().find(holds) else {
                let problem =
                    Problem::unavailable("NoSegment", format_args!("no segment takes the key at {hash:016x}"));
                return Err(TaskError::Call { what: "routing results", problem });
            };
            if target.end.is_some() {
                target.last += 1;
                stored += 1;
                continue;
            }
            let (segment, first) = (target.segment, target.last + 1);
            let empty = || Run { segment, first, rows: Vec::new(), events: Vec::new() };
            let run = runs.entry(segment.segment).or_insert_with(empty);
            run.events.push(row.2.clone());
            run.rows.push(row);
        }
        Ok((runs.into_values().collect(), stored))
    }

    /// The earliest target that is taken for open though another one follows it.
    fn behind_another(&self) -> Option<SegmentId> {
        let overtaken = |target: &Target| {
            let others = self.0.values();
            let mut later = others.filter(|other| other.segment.segment.epoch > target.segment.segment.epoch);
            target.end.is_none() && later.any(|other| other.segment.range.overlaps(target.segment.range))
        };
        self.0.values().find(|target| overtaken(target)).map(|target| target.segment.segment)
    }

    /// Takes a target for sealed, and its successors for targets.
    async fn settle<S: Segments>(&mut self, segments: &S, sealed: SegmentId) -> Result<(), TaskError> {
        let Some(target) = self.0.get(&sealed).filter(|target| target.end.is_none()).copied() else { return Ok(()) };
        let graph = segments.behind(sealed).await?;
        let end = segments.last(target.segment).await?;
        let successors = graph.node(sealed).into_iter().flat_map(|node| &node.successors);
        for node in successors.filter_map(|successor| graph.node(*successor)) {
            if let Entry::Vacant(place) = self.0.entry(node.segment) {
                let (segment, last) = (node.segment_range(), begin(segments, &graph, node).await?);
                place.insert(Target { segment, last, end: None });
            }
        }
        if let Some(target) = self.0.get_mut(&sealed) {
            target.end = Some(end.max(target.last));
        }
        Ok(())
    }

    /// Forgets targets that are used up, unless an earlier one is not: it would bring them back, and they would count again.
    fn shed(&mut self) {
        let mut kept: Vec<KeyRange> = Vec::new();
        self.0.retain(|_, target| {
            let range = target.segment.range;
            let needed = !target.is_used_up() || kept.iter().any(|earlier| earlier.overlaps(range));
            if needed {
                kept.push(range);
            }
            needed
        });
    }
}

/// The number behind which a writer begins in a segment: the highest that it has in any predecessor, all of which are sealed.
async fn begin<S: Segments>(segments: &S, graph: &SegmentGraph, node: &SegmentNode) -> Result<u64, TaskError> {
    let known = node.predecessors.iter().filter_map(|predecessor| graph.node(*predecessor));
    let known: Vec<SegmentRange> = known.map(SegmentNode::segment_range).collect();
    let mut last = 0;
    for predecessor in &known {
        last = segments.last(*predecessor).await?.max(last);
    }
    // A predecessor that is gone may have had more. What the segment has begins no lower; a row may then come twice.
    if uncovered(known.iter().map(|s| s.range)).iter().any(|gap| gap.overlaps(node.range)) {
        last = segments.last(node.segment_range()).await?.max(last);
    }
    Ok(last)
}

/// The parts of the key space that no range holds.
fn uncovered(ranges: impl Iterator<Item = KeyRange>) -> Vec<KeyRange> {
    let mut ranges: Vec<KeyRange> = ranges.collect();
    ranges.sort_unstable();
    let (mut gaps, mut next) = (Vec::new(), Some(0));
    for range in ranges {
        let Some(first) = next else { break };
        if range.first > first {
            gaps.push(KeyRange { first, last: range.first - 1 });
        }
        next = range.last.checked_add(1).map(|behind| behind.max(first));
    }
    gaps.extend(next.map(|first| KeyRange { first, last: u64::MAX }));
    gaps
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
