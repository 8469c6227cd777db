//! Random histories of a graph, and what holds in every one of them.

use proptest::prelude::*;

use super::{
    tests::{at, by_hash, first, present, scale, split},
    *,
};

/// One step of a random history, by numbers that find their meaning in the graph at hand.
#[derive(Debug, Clone)]
enum Step {
    Scale { from: usize, count: usize, into: u64 },
    Crash,
    Truncate { ups: Vec<usize>, offset: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<usize>(), 1usize..4, 1u64..5).prop_map(|(from, count, into)| Step::Scale { from, count, into }),
        1 => Just(Step::Crash),
        2 => (prop::collection::vec(any::<usize>(), 6), 0u64..9)
            .prop_map(|(ups, offset)| Step::Truncate { ups, offset }),
    ]
}

/// A cut that readers can have reached: from the head on, segments are read to their ends one by one.
fn reached(graph: &Graph, ups: &[usize], offset: u64) -> StreamCut {
    let mut cut = graph.head_cut();
    for up in ups {
        let ids: Vec<SegmentId> = cut.0.keys().copied().collect();
        let from = ids[up % ids.len()];
        let next = graph.successors(from);
        // A successor that follows several needs them all.
        let needs: BTreeSet<SegmentId> = next.iter().flat_map(|n| n.predecessors.iter().copied()).collect();
        let fits = next.iter().all(|n| n.predecessors.iter().all(|p| cut.0.contains_key(p)));
        let whole =
            needs.iter().all(|p| graph.successors(*p).iter().all(|s| next.iter().any(|n| n.segment == s.segment)));
        if !next.is_empty() && fits && whole {
            cut.0.retain(|segment, _| !needs.contains(segment));
            cut.0.extend(next.iter().map(|n| (n.segment, offset)));
        }
    }
    cut
}

fn check(graph: &Graph) -> Result<(), TestCaseError> {
    let ranges: Vec<KeyRange> = graph.present().map(|s| s.range).collect();
    prop_assert!(KeyRange::cover_once(&ranges), "present");
    let head = graph.by_range(&graph.head_cut()).unwrap();
    prop_assert!(KeyRange::cover_once(&head.iter().map(|s| s.range).collect::<Vec<_>>()), "head");
    for node in graph.nodes(None) {
        prop_assert_eq!(node.sealed_in.is_none(), graph.is_present(node.segment));
        prop_assert_eq!(node.sealed_in.is_none(), node.successors.is_empty());
        for next in &node.successors {
            let next = graph.node(*next).expect("a successor is there");
            prop_assert!(next.predecessors.contains(&node.segment) && next.range.overlaps(node.range));
            prop_assert_eq!(Some(next.segment.epoch), node.sealed_in);
        }
        for before in &node.predecessors {
            prop_assert!(graph.node(*before).expect("a predecessor is there").successors.contains(&node.segment));
        }
    }
    // The segments of a key form a chain from the head to the present, each following the one before.
    for hash in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let mut path: Vec<&SegmentNode> = graph.nodes(None).filter(|n| n.range.contains(hash)).collect();
        path.sort_by_key(|n| n.segment.epoch);
        prop_assert!(path.windows(2).all(|w| w[0].successors.contains(&w[1].segment)));
        prop_assert!(graph.head_cut().0.contains_key(&path[0].segment));
        prop_assert_eq!(path.last().map(|n| n.segment), graph.route(hash).map(|s| s.segment));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_history_keeps_the_rules(count in 1u32..6, steps in prop::collection::vec(step(), 1..25)) {
        let mut graph = first(count);
        let mut cuts = vec![graph.head_cut()];
        for step in steps {
            match step {
                Step::Scale { from, count, into } => {
                    let present = present(&graph);
                    let from = from % present.len();
                    let ended = &present[from..(from + count).min(present.len())];
                    let seal: Vec<SegmentId> = ended.iter().map(|s| s.segment).collect();
                    let whole = KeyRange { first: ended[0].range.first, last: ended[ended.len() - 1].range.last };
                    let ranges = split(whole, into);
                    let scaling = scale(&mut graph, &seal, &ranges);
                    prop_assert!(graph.was_scaled(&seal, &ranges));
                    prop_assert_eq!(scaling.created.len(), ranges.len());
                }
                // What is read back is what was written, also while a scale is on its way.
                Step::Crash => {
                    let whole = present(&graph)[0];
                    let scaling = graph.plan(&[whole.segment], &[whole.range], by_hash).unwrap();
                    graph.begin(&scaling);
                    let mut again: Graph = wire::decode(&wire::encode(&graph)).unwrap();
                    prop_assert_eq!(&again, &graph);
                    graph.open(scaling.epoch, at(9));
                    again.open(scaling.epoch, at(9));
                    prop_assert_eq!(&again, &graph);
                }
                Step::Truncate { ups, offset } => {
                    let cut = reached(&graph, &ups, offset);
                    prop_assert!(graph.is_at_or_after(&cut, &graph.head_cut()).unwrap());
                    if let Some(planned) = graph.plan_truncation(&cut).unwrap() {
                        let before = graph.len();
                        let loss = graph.truncate(&planned);
                        prop_assert_eq!(before - loss.delete.len(), graph.len());
                        prop_assert!(loss.delete.iter().all(|p| graph.node(p.segment).is_none()));
                    }
                    prop_assert_eq!(graph.plan_truncation(&cut).unwrap(), None);
                    cuts.push(cut);
                }
            }
            check(&graph)?;
        }
        // Cuts that were heads lie at or before the present head, and the earlier of two is before both.
        let head = graph.head_cut();
        let end = reached(&graph, &[1, 0, 3, 2, 5, 4, 7], 3);
        for cut in &cuts {
            prop_assert!(graph.is_at_or_after(&head, cut).unwrap());
            let lower = graph.earlier(cut, &end).unwrap();
            prop_assert!(graph.is_at_or_after(cut, &lower).unwrap() && graph.is_at_or_after(&end, &lower).unwrap());
        }
    }
}
