//! Moving a cut over segments that are sealed and read to their ends.

use std::collections::{BTreeMap, BTreeSet};

use types::{IndexName, Offset, SegmentId, StreamCut};
use wire::{Problem, segment_store::SegmentPlace};

use crate::{Client, SegmentGraph, frontier::Frontier};

/// What a look at a cut gave.
#[derive(Debug, PartialEq, Eq)]
struct Advanced {
    /// As far as is certain.
    cut: StreamCut,
    /// Segments with successors whose ends have to be known to go on.
    unknown: BTreeSet<SegmentId>,
}

impl Client {
    /// The cut with the successors of every segment that it stands at the end of, in place of that segment.
    ///
    /// It names exactly the segments from which whoever has read up to the cut goes on. A successor is entered when everything
    /// that it follows was read to its end, together with all that share a predecessor with it; until then finished segments
    /// stay, at their ends. A segment that the stream does not have stays as it is, for its reader to be told.
    /// Bounds: one description per sealed segment passed. Errors: `UnknownIndex`; whatever is transient.
    pub async fn advance(&self, index: &IndexName, cut: &StreamCut) -> Result<StreamCut, Problem> {
        let graph = self.graph(index).await?;
        let mut ends = BTreeMap::new();
        let Advanced { cut: same, unknown } = advance(&graph, &StreamCut::default(), cut, &ends);
        if unknown.is_empty() {
            return Ok(same);
        }
        let head = self.stream_now(index).await?.head.clone();
        loop {
            let Advanced { cut, unknown } = advance(&graph, &head, cut, &ends);
            if unknown.is_empty() {
                return Ok(cut);
            }
            let places: Result<Vec<SegmentPlace>, _> =
                unknown.into_iter().map(|segment| graph.place(segment)).collect();
            ends.extend(self.describe_all(places?).await?.into_iter().map(|info| (info.segment, info.end)));
        }
    }
}

/// Follows the graph as far as the known ends of segments lead.
fn advance(graph: &SegmentGraph, head: &StreamCut, from: &StreamCut, ends: &BTreeMap<SegmentId, Offset>) -> Advanced {
    let (mut frontier, mut open, mut unknown) = (Frontier::default(), from.0.clone(), BTreeSet::new());
    let mut next: Vec<SegmentId> = open.keys().copied().collect();
    while let Some(segment) = next.pop() {
        let Some(&offset) = open.get(&segment) else { continue };
        let followers = graph.node(segment).map(|node| node.successors.iter()).into_iter().flatten();
        let followers: Vec<_> = followers.filter_map(|successor| graph.node(*successor)).cloned().collect();
        if followers.is_empty() {
            continue;
        }
        match ends.get(&segment) {
            None => {
                unknown.insert(segment);
                continue;
            }
            Some(&end) if offset < end => continue,
            Some(_) => open.remove(&segment),
        };
        for place in frontier.complete(segment, offset, &followers) {
            open.entry(place.segment).or_insert_with(|| head.offset(place.segment));
            next.push(place.segment);
        }
    }
    open.extend(frontier.ends());
    Advanced { cut: StreamCut(open), unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{graph, segment};

    type Places<'a> = &'a [((u32, u32), Offset)];

    fn cut(places: Places<'_>) -> StreamCut {
        StreamCut(places.iter().map(|((epoch, number), offset)| (segment(*epoch, *number), *offset)).collect())
    }

    fn check(from: Places<'_>, ends: Places<'_>, head: Places<'_>, wanted: Places<'_>, unknown: &[(u32, u32)]) {
        let found = advance(&graph(), &cut(head), &cut(from), &cut(ends).0);
        let unknown = unknown.iter().map(|(epoch, number)| segment(*epoch, *number)).collect();
        assert_eq!(found, Advanced { cut: cut(wanted), unknown }, "from {from:?} with ends {ends:?}");
    }

    #[test]
    fn a_cut_moves_over_what_was_read_to_its_end_and_no_further() {
        let begin: Places<'_> = &[((0, 0), 5), ((0, 1), 7), ((0, 2), 9)];
        // Nothing is known of the sealed ones; the open one is never asked for.
        check(begin, &[], &[], begin, &[(0, 0), (0, 1)]);
        // One of two that merge is read to its end: it stays, at its end.
        check(begin, &[((0, 0), 5), ((0, 1), 8)], &[], begin, &[]);
        // Both are: the successor stands for them, and has to be asked for in its turn.
        let both: Places<'_> = &[((0, 0), 5), ((0, 1), 7)];
        check(begin, both, &[], &[((0, 2), 9), ((1, 3), 0)], &[(1, 3)]);
        // It holds events: it is to be read.
        let behind: Places<'_> = &[((0, 0), 5), ((0, 1), 7), ((1, 3), 2)];
        check(begin, behind, &[], &[((0, 2), 9), ((1, 3), 0)], &[]);
        // It is empty, or truncated to its end: its own successors are.
        let empty: Places<'_> = &[((0, 0), 5), ((0, 1), 7), ((1, 3), 0)];
        check(begin, empty, &[], &[((0, 2), 9), ((2, 4), 0), ((2, 5), 0)], &[]);
        let head: Places<'_> = &[((1, 3), 2), ((2, 5), 4)];
        check(begin, behind, head, &[((0, 2), 9), ((2, 4), 0), ((2, 5), 4)], &[]);
    }

    #[test]
    fn what_the_stream_does_not_have_stays_for_its_reader_to_be_told() {
        check(&[((7, 70), 3), ((0, 2), 1)], &[], &[], &[((7, 70), 3), ((0, 2), 1)], &[]);
    }

    #[test]
    fn moving_twice_gives_the_same_and_the_result_is_a_cut() {
        let ends = cut(&[((0, 0), 5), ((0, 1), 7), ((1, 3), 0)]).0;
        for known in [1, 2, 3] {
            let ends: BTreeMap<_, _> = ends.iter().take(known).map(|(s, o)| (*s, *o)).collect();
            let begin = cut(&[((0, 0), 5), ((0, 1), 7), ((0, 2), 9)]);
            let once = advance(&graph(), &StreamCut::default(), &begin, &ends).cut;
            assert_eq!(graph().check(&once), Ok(()), "{once:?}");
            assert_eq!(advance(&graph(), &StreamCut::default(), &once, &ends).cut, once);
        }
    }
}
