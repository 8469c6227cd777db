use super::*;
use wire::coordinator::StreamDescription;

pub(super) fn at(n: u32) -> Timestamp {
    Timestamp::from_nanos(i64::from(n))
}

pub(super) fn first(count: u32) -> Graph {
    let segments = (0..).zip(KeyRange::split_evenly(count)).map(|(number, range)| {
        let segment = SegmentId { stream: 7, epoch: 0, number };
        SegmentRange { segment, container: segment.container(8), range }
    });
    Graph::first(7, segments.collect(), at(0))
}

fn id(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 7, epoch, number }
}

fn cut(places: &[(SegmentId, u64)]) -> StreamCut {
    StreamCut(places.iter().copied().collect())
}

pub(super) fn by_hash(_: usize, segment: SegmentId) -> ContainerId {
    segment.container(8)
}

pub(super) fn scale(graph: &mut Graph, seal: &[SegmentId], ranges: &[KeyRange]) -> Scaling {
    let scaling = graph.plan(seal, ranges, by_hash).unwrap();
    graph.begin(&scaling);
    graph.open(scaling.epoch, at(scaling.epoch));
    scaling
}

/// The present segments in order of their ranges.
pub(super) fn present(graph: &Graph) -> Vec<SegmentRange> {
    graph.present().copied().collect()
}

/// Ranges that cover the same keys as one: `count` of about the same size.
pub(super) fn split(range: KeyRange, count: u64) -> Vec<KeyRange> {
    let step = (range.last - range.first) / count;
    let edge = |i: u64| range.first + i * step;
    (0..count)
        .map(|i| KeyRange { first: edge(i), last: if i + 1 == count { range.last } else { edge(i + 1) - 1 } })
        .collect()
}

/// Half of the key space, a quarter and so on: 0-1-2-3 split evenly, then 0 and 1 become one, which is split into three.
fn three_epochs() -> (Graph, Vec<KeyRange>) {
    let mut graph = first(4);
    let quarters = KeyRange::split_evenly(4);
    let half = KeyRange { first: 0, last: quarters[1].last };
    scale(&mut graph, &[id(0, 1), id(0, 0)], &[half]);
    let thirds = split(half, 3);
    scale(&mut graph, &[id(1, 4)], &thirds);
    (graph, thirds)
}

#[test]
fn a_scale_names_present_segments_and_covers_their_keys_once() {
    let graph = first(4);
    let q = KeyRange::split_evenly(4);
    let half = KeyRange { first: 0, last: q[1].last };
    let upside_down = KeyRange { first: q[0].last, last: 0 };
    let apart = [q[0], q[2]];
    for (seal, ranges, expected) in [
        (vec![], vec![q[0]], Some(ScaleError::Empty)),
        (vec![id(0, 0)], vec![], Some(ScaleError::Empty)),
        (vec![id(0, 9)], vec![q[0]], Some(ScaleError::NotPresent(id(0, 9)))),
        (vec![id(0, 0), id(0, 0)], vec![q[0]], Some(ScaleError::NotPresent(id(0, 0)))),
        (vec![id(0, 0)], vec![q[1]], Some(ScaleError::Ranges)),
        (vec![id(0, 0)], vec![half], Some(ScaleError::Ranges)),
        (vec![id(0, 0)], vec![q[0], q[0]], Some(ScaleError::Ranges)),
        (vec![id(0, 0)], vec![upside_down], Some(ScaleError::Ranges)),
        (vec![id(0, 0), id(0, 1)], vec![q[0]], Some(ScaleError::Ranges)),
        (vec![id(0, 0), id(0, 2)], vec![half], Some(ScaleError::Ranges)),
        (vec![id(0, 0), id(0, 2)], apart.to_vec(), None),
        (vec![id(0, 0)], vec![q[0]], None),
        (vec![id(0, 1), id(0, 0)], vec![half], None),
        (vec![id(0, 3)], split(q[3], 5).into_iter().rev().collect(), None),
    ] {
        assert_eq!(graph.plan(&seal, &ranges, by_hash).err(), expected, "{seal:?} {ranges:?}");
    }
}

#[test]
fn a_scale_tells_what_follows_what() {
    let (graph, thirds) = three_epochs();
    assert_eq!((graph.epoch(), graph.len(), graph.present().len()), (2, 8, 5));
    let half = graph.node(id(1, 4)).unwrap();
    assert_eq!((half.predecessors.clone(), half.sealed_in), (vec![id(0, 0), id(0, 1)], Some(2)));
    assert_eq!(half.successors, vec![id(2, 5), id(2, 6), id(2, 7)]);
    assert_eq!(graph.node(id(0, 0)).unwrap().successors, vec![id(1, 4)]);
    let third = graph.successors(id(1, 4))[1];
    assert_eq!((third.range, third.predecessors.clone(), third.sealed_in), (thirds[1], vec![id(1, 4)], None));
    assert!(graph.successors(id(0, 3)).is_empty(), "open");
    assert_eq!(graph.route(thirds[1].last).unwrap().segment, id(2, 6));
    let of = |r: &EpochRecord| (r.epoch, r.at, r.sealed.len(), r.created.len(), r.splits, r.merges);
    let rows: Vec<_> = graph.epochs(0).map(of).collect();
    assert_eq!(rows, [(0, at(0), 0, 4, 0, 0), (1, at(1), 2, 1, 0, 1), (2, at(2), 1, 3, 1, 0)]);
    assert_eq!(graph.epochs(1).map(|record| record.epoch).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_epoch_opens_only_after_it_was_begun() {
    let mut graph = first(2);
    let q = KeyRange::split_evenly(2);
    graph.open(1, at(1));
    assert_eq!(graph, first(2));
    let scaling = graph.plan(&[id(0, 0)], &split(q[0], 2), by_hash).unwrap();
    graph.begin(&scaling);
    assert_eq!((graph.epoch(), graph.len(), graph.places().len()), (0, 2, 4), "begun segments may exist in a store");
    let follows: Vec<_> = graph.beginnings().into_iter().map(|(b, p)| (b.segment, p[0].segment, p.len())).collect();
    assert_eq!(follows, [(id(1, 2), id(0, 0), 1), (id(1, 3), id(0, 0), 1)]);
    graph.open(2, at(2));
    assert_eq!(graph.epoch(), 0);
    graph.open(1, at(2));
    assert_eq!((graph.epoch(), graph.scaling()), (1, None));
}

#[test]
fn the_given_containers_follow_the_ranges_as_they_were_named() {
    let graph = first(1);
    let mut ranges = split(KeyRange { first: 0, last: u64::MAX }, 3);
    ranges.reverse();
    let scaling = graph.plan(&[id(0, 0)], &ranges, |asked, _| ContainerId(u16::try_from(asked).unwrap())).unwrap();
    let found: Vec<_> = scaling.created.iter().map(|s| (s.range.first, s.container.0, s.segment.number)).collect();
    let (a, b, c) = (ranges[2].first, ranges[1].first, ranges[0].first);
    assert_eq!(found, [(a, 2, 1), (b, 1, 2), (c, 0, 3)]);
}

#[test]
fn a_scale_that_was_done_is_recognised_and_nothing_else() {
    let (graph, thirds) = three_epochs();
    let half = graph.node(id(1, 4)).unwrap().range;
    for (seal, ranges, done) in [
        (vec![id(0, 0), id(0, 1)], vec![half], true),
        (vec![id(0, 1), id(0, 0)], vec![half], true),
        (vec![id(1, 4)], thirds.iter().rev().copied().collect(), true),
        (vec![id(1, 4)], thirds[1..].to_vec(), false),
        (vec![id(0, 0)], vec![half], false),
        (vec![id(0, 0), id(0, 1)], thirds.clone(), false),
        (vec![id(0, 3)], vec![half], false),
        (vec![], vec![], false),
    ] {
        assert_eq!(graph.was_scaled(&seal, &ranges), done, "{seal:?}");
    }
}

#[test]
fn a_cut_covers_the_keys_once_with_segments_that_are_there() {
    let (graph, _) = three_epochs();
    let all = |rest: &[(SegmentId, u64)]| {
        let mut places = vec![(id(0, 2), 0), (id(0, 3), 9)];
        places.extend(rest);
        cut(&places)
    };
    let children = [(id(2, 5), 1), (id(2, 6), 2), (id(2, 7), 0)];
    for (given, expected) in [
        (all(&[(id(0, 0), 3), (id(0, 1), 0)]), None),
        (all(&[(id(1, 4), 3)]), None),
        (all(&children), None),
        (all(&children[1..]), Some(CutError::Cover)),
        (all(&[(id(0, 0), 3)]), Some(CutError::Cover)),
        (all(&[(id(1, 4), 3), (id(2, 5), 0)]), Some(CutError::Cover)),
        (all(&[(id(3, 8), 3)]), Some(CutError::Unknown(id(3, 8)))),
        (all(&[(id(0, 0x8000_0000), 3)]), Some(CutError::Unknown(id(0, 0x8000_0000)))),
    ] {
        assert_eq!(graph.plan_truncation(&given).err(), expected, "{given:?}");
    }
    assert_eq!(graph.plan_truncation(&StreamCut::default()), Ok(None), "the empty cut is the head");
}

#[test]
fn a_cut_stands_at_one_place_of_every_key() {
    // 0 and 1 become one, which becomes two again: whoever reads in 3 has read all of 2, hence all of 1.
    let mut graph = first(2);
    let halves = KeyRange::split_evenly(2);
    scale(&mut graph, &[id(0, 0), id(0, 1)], &[KeyRange { first: 0, last: u64::MAX }]);
    scale(&mut graph, &[id(1, 2)], &halves);
    let torn = cut(&[(id(2, 3), 1), (id(0, 1), 1)]);
    assert_eq!(graph.plan_truncation(&torn), Err(CutError::Order(id(0, 1))));
    assert!(graph.plan_truncation(&cut(&[(id(2, 3), 1), (id(2, 4), 1)])).unwrap().is_some());
}

#[test]
fn a_truncation_takes_away_what_lies_before() {
    let (mut graph, _) = three_epochs();
    let begin = cut(&[(id(1, 4), 3), (id(0, 2), 5), (id(0, 3), 0)]);
    let planned = graph.plan_truncation(&begin).unwrap().unwrap();
    let loss = graph.truncate(&planned);
    assert_eq!(loss.truncate, [(id(1, 4), 3), (id(0, 2), 5)].into());
    assert_eq!(loss.delete.iter().map(|p| p.segment).collect::<Vec<_>>(), [id(0, 0), id(0, 1)]);
    assert_eq!(graph.node(id(1, 4)).unwrap().predecessors, vec![]);
    assert_eq!((graph.len(), graph.head()), (6, &begin));
    // Back again: what is still there keeps its start, what is gone stays gone.
    let back = cut(&[(id(0, 0), 1), (id(0, 1), 1), (id(0, 2), 6), (id(0, 3), 0)]);
    assert_eq!(graph.resolve(&back), Ok(cut(&[(id(1, 4), 3), (id(0, 2), 6), (id(0, 3), 0)])));
    assert_eq!(graph.plan_truncation(&begin), Ok(None));
    // Records of epochs of which nothing is left go, from the first on.
    let end = cut(&[(id(2, 5), 0), (id(2, 6), 0), (id(2, 7), 0), (id(0, 2), 6), (id(0, 3), 4)]);
    let loss = graph.truncate(&graph.plan_truncation(&end).unwrap().unwrap());
    assert_eq!(loss.delete.iter().map(|p| p.segment).collect::<Vec<_>>(), [id(1, 4)]);
    assert_eq!(loss.truncate, [(id(0, 2), 6), (id(0, 3), 4)].into());
    let rows = |g: &Graph| g.epochs(0).map(|r| r.epoch).collect::<Vec<_>>();
    assert_eq!(rows(&graph), [0, 1, 2], "segments of epoch 0 are still there");
    let quarters = KeyRange::split_evenly(4);
    scale(&mut graph, &[id(0, 2)], &quarters[2..3]);
    scale(&mut graph, &[id(0, 3)], &quarters[3..]);
    let end = cut(&[(id(2, 5), 0), (id(2, 6), 0), (id(2, 7), 0), (id(3, 8), 0), (id(4, 9), 0)]);
    graph.truncate(&graph.plan_truncation(&end).unwrap().unwrap());
    assert_eq!((rows(&graph), graph.len()), (vec![2, 3, 4], 5));
    assert!(graph.is_at_or_after(&end, &back).unwrap(), "cuts before the head stand at the head");
}

#[test]
fn cuts_are_compared_key_by_key() {
    let (graph, _) = three_epochs();
    let (a, b) = ((id(0, 2), 4), (id(0, 3), 4));
    let old = cut(&[(id(0, 0), 9), (id(0, 1), 9), a, b]);
    let merged = cut(&[(id(1, 4), 0), a, b]);
    let ahead = cut(&[(id(1, 4), 0), (id(0, 2), 5), b]);
    let aside = cut(&[(id(1, 4), 0), (id(0, 2), 3), b]);
    for (one, other, after) in [
        (&merged, &old, true),
        (&old, &merged, false),
        (&ahead, &merged, true),
        (&aside, &old, false),
        (&old, &old, true),
    ] {
        assert_eq!(graph.is_at_or_after(one, other), Ok(after), "{one:?} {other:?}");
    }
    assert!(graph.is_at_or_after(&old, &StreamCut::default()).unwrap());
    let lower = graph.earlier(&aside, &old).unwrap();
    assert_eq!(lower, cut(&[(id(0, 0), 9), (id(0, 1), 9), (id(0, 2), 3), b]));
}

#[test]
fn ten_thousand_segments_ten_times_and_ten_segments_a_thousand_times() {
    let mut wide = first(64);
    let all = KeyRange::split_evenly(u32::try_from(SEGMENTS_PRESENT_MAX).unwrap());
    let whole: Vec<SegmentId> = present(&wide).iter().map(|s| s.segment).collect();
    let too_many = KeyRange::split_evenly(u32::try_from(SEGMENTS_PRESENT_MAX).unwrap() + 1);
    assert_eq!(wide.plan(&whole, &too_many, by_hash), Err(ScaleError::TooManyPresent(SEGMENTS_PRESENT_MAX + 1)));
    for _ in 0..10 {
        let seal: Vec<SegmentId> = present(&wide).iter().map(|s| s.segment).collect();
        scale(&mut wide, &seal, &all);
    }
    assert_eq!((wide.epoch(), wide.present().len(), wide.len()), (10, 10_000, 100_064));
    let (one, other) = (present(&wide)[0], present(&wide)[1]);
    // A scale touches what it changes: of 100 064 nodes these.
    let before = wide.clone();
    let scaled = scale(&mut wide, &[one.segment, other.segment], &[one.range, other.range]);
    let touched = before.nodes.iter().filter(|(id, node)| wide.nodes[*id] != **node).count();
    assert_eq!((touched, scaled.created.len(), wide.len()), (2, 2, 100_066));
    let head = StreamCut(present(&wide).iter().map(|s| (s.segment, 0)).collect());
    let loss = wide.truncate(&wide.plan_truncation(&head).unwrap().unwrap());
    assert_eq!((loss.delete.len(), wide.len(), wide.records.len()), (90_066, 10_000, 2));

    let mut long = first(10);
    for _ in 0..1_010 {
        let seal: Vec<SegmentId> = present(&long).iter().map(|s| s.segment).collect();
        scale(&mut long, &seal, &KeyRange::split_evenly(10));
    }
    assert_eq!((long.epoch(), long.len(), long.epochs(1_000).count()), (1_010, 10_110, 11));
    let middle = long.nodes(None).filter(|n| n.segment.epoch == 500).map(|n| (n.segment, 7));
    let middle = StreamCut(middle.collect());
    let loss = long.truncate(&long.plan_truncation(&middle).unwrap().unwrap());
    assert_eq!((loss.delete.len(), loss.truncate.len(), long.len()), (5_000, 10, 5_110));
    assert_eq!(long.epochs(0).next().unwrap().epoch, 500);
}

#[test]
fn the_most_segments_fit_into_one_message() {
    let segment = SegmentId { stream: u32::MAX, epoch: u32::MAX, number: NUMBERS_MAX - 1 };
    let range = KeyRange { first: u64::MAX - 1, last: u64::MAX };
    let segments = vec![SegmentRange { segment, container: ContainerId(u16::MAX), range }; SEGMENTS_PRESENT_MAX];
    let (scope, index) = ("s".parse().unwrap(), "i".parse().unwrap());
    let head = (0..u32::try_from(SEGMENTS_PRESENT_MAX).unwrap())
        .map(|n| (SegmentId { number: NUMBERS_MAX - 1 - n, ..segment }, u64::MAX));
    let new = StreamDescription::new((0, at(0)), scope, index, segments);
    let described = StreamDescription { head: StreamCut(head.collect()), ..new };
    let bytes = wire::encode(&described).len();
    assert!(bytes < 2 * 1024 * 1024, "{bytes}");
    let seal = described.head.0.keys().copied().collect();
    let scaling = Scaling { epoch: u32::MAX, seal, created: described.segments };
    let bytes = wire::encode(&crate::Event::ScaleBegun { stream: u32::MAX, scaling }).len();
    assert!(bytes < host::ENTRY_BYTES_MAX / 2, "{bytes}");
}

/// Ten thousand segments replaced by as many, each of which begins in the middle of one and ends in the middle of the next.
#[test]
fn every_answer_about_the_widest_stream_can_be_sent() {
    let mut wide = first(64);
    let count = u32::try_from(SEGMENTS_PRESENT_MAX).unwrap();
    let (even, one_less) = (KeyRange::split_evenly(count), KeyRange::split_evenly(count - 1));
    let halves = KeyRange::split_evenly(2 * (count - 1));
    let (low, high) = (halves[0], halves[halves.len() - 1]);
    let middles = halves[1..halves.len() - 1].chunks(2);
    let middles = middles.map(|pair| KeyRange { first: pair[0].first, last: pair[1].last });
    let shifted: Vec<KeyRange> = [low].into_iter().chain(middles).chain([high]).collect();
    for ranges in [&one_less, &shifted, &one_less, &vec![KeyRange { first: 0, last: u64::MAX }], &even] {
        let seal: Vec<SegmentId> = present(&wide).iter().map(|s| s.segment).collect();
        scale(&mut wide, &seal, ranges);
    }
    let largest = |sizes: &mut dyn Iterator<Item = usize>| sizes.max().unwrap();
    let records = largest(&mut wide.epochs(0).map(|record| wire::encode(record).len()));
    let nodes = largest(&mut wide.nodes(None).map(|node| wire::encode(node).len()));
    let following = |node: &SegmentNode| {
        let segments = wide.successors(node.segment).into_iter().cloned().collect();
        wire::encode(&wire::coordinator::SegmentNodes { segments, more: false }).len()
    };
    let joint = wide.nodes(None).find(|node| node.successors.len() == SEGMENTS_PRESENT_MAX).unwrap();
    let sizes = [records, nodes, following(joint)];
    assert!(sizes.iter().all(|bytes| *bytes < host::ENTRY_BYTES_MAX / 2), "{sizes:?}");
}

#[test]
fn what_a_commit_needs_is_kept_for_commits() {
    let mut graph = first(1);
    let whole = [KeyRange { first: 0, last: u64::MAX }];
    // Wide and narrow by turns: the limit comes sooner so.
    let even = KeyRange::split_evenly(u32::try_from(SEGMENTS_PRESENT_MAX).unwrap());
    while graph.check_room(even.len()).is_ok() {
        let seal: Vec<SegmentId> = present(&graph).iter().map(|s| s.segment).collect();
        scale(&mut graph, &seal, &even);
    }
    assert_eq!(graph.check_room(even.len()), Err(ScaleError::TooManyKept(graph.len())));
    assert_eq!((SEGMENTS_KEPT_MAX - graph.len()) / even.len(), 0);
    // A commit may still open an epoch of its own and one as it was before.
    for ranges in [&even, &even] {
        let seal: Vec<SegmentId> = present(&graph).iter().map(|s| s.segment).collect();
        assert!(graph.commit_room() >= ranges.len());
        scale(&mut graph, &seal, ranges);
    }
    let seal: Vec<SegmentId> = present(&graph).iter().map(|s| s.segment).collect();
    assert_eq!(graph.plan(&seal, &even, by_hash), Err(ScaleError::TooManyKept(graph.len())), "and that is the end");
    assert_eq!(graph.check_room(1), Err(ScaleError::TooManyKept(graph.len())));
    // Truncation makes room again.
    let head = StreamCut(present(&graph).iter().map(|s| (s.segment, 0)).collect());
    graph.truncate(&graph.plan_truncation(&head).unwrap().unwrap());
    assert_eq!((graph.check_room(even.len()), graph.commit_room()), (Ok(()), SEGMENTS_KEPT_MAX + COMMIT_ROOM - 10_000));

    let mut old = first(1);
    old.next_number = NUMBERS_MAX - u32::try_from(COMMIT_ROOM).unwrap();
    assert_eq!((old.check_room(1), old.commit_room()), (Err(ScaleError::NumbersUsedUp), COMMIT_ROOM));
    scale(&mut old, &[id(0, 0)], &whole);
    old.next_number = NUMBERS_MAX;
    assert_eq!(old.commit_room(), 0);
}
