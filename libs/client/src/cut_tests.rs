use super::*;
use crate::testing::{graph, segment};

fn cut(places: &[(u32, u32, Offset)]) -> StreamCut {
    StreamCut(places.iter().map(|(epoch, number, offset)| (segment(*epoch, *number), *offset)).collect())
}

#[test]
fn only_a_cut_at_which_a_reader_can_stand_is_valid() {
    let graph = graph();
    let crossed = |before, after| Err(CutError::Crossed { before, after });
    for (name, places, expected) in [
        ("the beginning", vec![(0, 0, 0), (0, 1, 0), (0, 2, 0)], Ok(())),
        ("before and after a merge", vec![(1, 3, 7), (0, 2, 1)], Ok(())),
        ("after a split", vec![(2, 4, 7), (2, 5, 0), (0, 2, 9)], Ok(())),
        ("a gap", vec![(1, 3, 7)], Err(CutError::Cover)),
        ("an overlap", vec![(0, 0, 7), (1, 3, 0), (0, 2, 0)], Err(CutError::Cover)),
        ("nothing", vec![], Err(CutError::Cover)),
        ("a child beside its grandparent", vec![(2, 5, 0), (0, 0, 3), (0, 2, 0)], {
            crossed(segment(0, 0), segment(2, 5))
        }),
        ("the other child", vec![(2, 4, 0), (0, 1, 3), (0, 2, 0)], crossed(segment(0, 1), segment(2, 4))),
        ("a stranger", vec![(9, 9, 0)], Err(CutError::Unknown(segment(9, 9)))),
    ] {
        assert_eq!(graph.check(&cut(&places)), expected, "{name}");
    }
}

#[test]
fn cuts_are_compared_key_by_key() {
    let graph = graph();
    let begin = [(0, 0, 0), (0, 1, 0), (0, 2, 0)];
    for (a, b, expected) in [
        (&begin[..], &begin[..], Some(Ordering::Equal)),
        (&begin, &[(0, 0, 4), (0, 1, 0), (0, 2, 0)], Some(Ordering::Less)),
        (&[(1, 3, 0), (0, 2, 0)], &begin, Some(Ordering::Greater)),
        (&[(1, 3, 0), (0, 2, 0)], &[(0, 0, 4), (0, 1, 0), (0, 2, 8)], None),
        (&[(2, 4, 0), (2, 5, 0), (0, 2, 8)], &[(1, 3, 99), (0, 2, 8)], Some(Ordering::Greater)),
        (&[(2, 4, 0), (2, 5, 5), (0, 2, 8)], &[(2, 4, 3), (2, 5, 3), (0, 2, 8)], None),
    ] {
        assert_eq!(graph.compare(&cut(a), &cut(b)), Ok(expected), "{a:?} {b:?}");
        assert_eq!(graph.compare(&cut(b), &cut(a)), Ok(expected.map(Ordering::reverse)), "{b:?} {a:?}");
    }
}

#[test]
fn a_join_is_the_later_place_of_every_key_and_what_is_gone_lies_before() {
    let graph = graph();
    for (a, b, expected) in [
        (&[(0, 0, 4), (0, 1, 1), (0, 2, 8)][..], &[(1, 3, 0), (0, 2, 3)][..], &[(1, 3, 0), (0, 2, 8)][..]),
        (&[(2, 4, 2), (2, 5, 0), (0, 2, 1)], &[(1, 3, 9), (0, 2, 5)], &[(2, 4, 2), (2, 5, 0), (0, 2, 5)]),
        (&[(0, 0, 4), (0, 1, 1), (0, 2, 8)], &[(0, 0, 1), (0, 1, 2), (0, 2, 8)], &[(0, 0, 4), (0, 1, 2), (0, 2, 8)]),
    ] {
        assert_eq!(graph.join(&cut(a), &cut(b)), cut(expected));
        assert_eq!(graph.join(&cut(b), &cut(a)), cut(expected));
        assert_eq!(graph.check(&cut(expected)), Ok(()));
    }
    let rest =
        SegmentGraph::new(graph.nodes.values().filter(|n| n.segment.epoch > 0 || n.segment.number == 2).cloned());
    let gone = cut(&[(0, 0, 4), (0, 1, 1), (0, 2, 8)]);
    assert_eq!(rest.join(&gone, &cut(&[(1, 3, 2), (0, 2, 3)])), cut(&[(1, 3, 2), (0, 2, 8)]));
    assert_eq!(rest.roots(&cut(&[(1, 3, 2)])), cut(&[(1, 3, 2), (0, 2, 0)]));
}

#[test]
fn what_lies_between_two_cuts_is_whole_segments_and_two_ragged_edges() {
    let graph = graph();
    let (from, to) = (cut(&[(0, 0, 4), (0, 1, 1), (0, 2, 8)]), cut(&[(2, 4, 2), (2, 5, 0), (0, 2, 9)]));
    let found = graph.between(&from, &to).unwrap();
    let short: Vec<_> = found.iter().map(|(p, from, to)| (p.segment.epoch, p.segment.number, *from, *to)).collect();
    let expected = [(0, 0, 4, None), (0, 1, 1, None), (0, 2, 8, Some(9)), (1, 3, 0, None), (2, 4, 0, Some(2))];
    assert_eq!(short[..5], expected);
    assert_eq!(short[5..], [(2, 5, 0, Some(0))]);
    assert_eq!(graph.between(&to, &from), Err(CutError::Backwards));
}

#[test]
fn behind_a_cut_is_what_follows_one_of_its_segments() {
    let graph = graph();
    let end = cut(&[(1, 3, 5), (0, 2, 9)]);
    for (epoch, number, expected) in [(0, 0, false), (0, 2, false), (1, 3, false), (2, 4, true), (2, 5, true)] {
        assert_eq!(graph.is_behind(segment(epoch, number), &end), expected, "{epoch}-{number}");
    }
}
