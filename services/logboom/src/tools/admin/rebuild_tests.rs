//! Streams put together from chunks.

use types::Timestamp;

use super::*;

fn id(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 4, epoch, number }
}

fn part_of(count: u32, which: usize) -> KeyRange {
    KeyRange::split_evenly(count)[which]
}

fn chunk(segment: SegmentId, range: Option<KeyRange>, from: Offset, to: Offset) -> Found {
    Found {
        key: format!("{segment}/{from}-{to}"),
        segment,
        from,
        to,
        bytes: 10,
        time_min: Timestamp::MIN,
        time_max: Timestamp::MAX,
        origin: range.map(|range| ("team".parse().unwrap(), range)),
    }
}

fn segments(found: Vec<Found>) -> Vec<(SegmentId, KeyRange, bool)> {
    let outcome = rebuild(found, &BTreeMap::new()).unwrap();
    outcome.segments.iter().map(|s| (s.segment, s.range, s.sealed)).collect()
}

fn parts(found: Vec<Found>, root: bool) -> (Offset, Vec<(Option<String>, Offset, Offset)>) {
    let (start, parts) = cover(found, root);
    (start, parts.into_iter().map(|p| (p.chunk.map(|c| c.key), p.from, p.to)).collect())
}

#[test]
fn the_farthest_chunk_holds_what_several_hold() {
    let all = |list: &[(Offset, Offset)]| list.iter().map(|(f, t)| chunk(id(0, 0), None, *f, *t)).collect::<Vec<_>>();
    let key = |f: Offset, t: Offset| Some(format!("4-0-0/{f}-{t}"));
    let merged = all(&[(0, 10), (10, 20), (0, 20), (20, 30), (20, 30)]);
    assert_eq!(parts(merged, true), (0, vec![(key(0, 20), 0, 20), (key(20, 30), 20, 30)]));
    let crossing = all(&[(0, 10), (5, 25), (20, 30)]);
    let expected = vec![(key(0, 10), 0, 10), (key(5, 25), 10, 25), (key(20, 30), 25, 30)];
    assert_eq!(parts(crossing, true), (0, expected));
    let torn = all(&[(5, 10), (30, 40)]);
    assert_eq!(
        parts(torn.clone(), true),
        (5, vec![(key(5, 10), 5, 10), (None, 10, 30), (key(30, 40), 30, 40)]),
        "one that follows nothing may have been truncated"
    );
    assert_eq!(parts(torn, false).1[0], (None, 0, 5), "one that follows others begins with its first event");
    assert_eq!(parts(Vec::new(), true), (0, vec![]));
}

#[test]
fn epochs_and_ranges_tell_the_order() {
    let (all, left, right) = (part_of(1, 0), part_of(2, 0), part_of(2, 1));
    let found =
        vec![chunk(id(1, 2), Some(right), 0, 3), chunk(id(0, 0), Some(all), 0, 9), chunk(id(1, 1), Some(left), 0, 4)];
    assert_eq!(segments(found), [(id(0, 0), all, true), (id(1, 1), left, false), (id(1, 2), right, false)]);
}

#[test]
fn a_segment_without_a_chunk_is_put_back_where_it_must_have_been() {
    let (all, left, right) = (part_of(1, 0), part_of(2, 0), part_of(2, 1));
    let sibling = vec![chunk(id(0, 0), Some(all), 0, 9), chunk(id(1, 1), Some(left), 0, 4)];
    assert_eq!(
        segments(sibling),
        [(id(0, 0), all, true), (id(1, 1), left, false), (id(1, 2), right, false)],
        "the other half of a split"
    );
    let merge = vec![chunk(id(0, 0), Some(left), 0, 9), chunk(id(1, 2), Some(all), 0, 4)];
    assert_eq!(
        segments(merge),
        [(id(0, 0), left, true), (id(0, 1), right, true), (id(1, 2), all, false)],
        "the other half of a merge"
    );
    let first = vec![chunk(id(0, 1), Some(right), 0, 9)];
    assert_eq!(segments(first), [(id(0, 0), left, false), (id(0, 1), right, false)], "one of the first epoch");
    let between = vec![chunk(id(0, 0), Some(all), 0, 9), chunk(id(2, 3), Some(all), 0, 4)];
    assert_eq!(segments(between), [(id(0, 0), all, true), (id(2, 3), all, false)], "a whole epoch without events");
    let truncated = vec![chunk(id(5, 9), Some(left), 40, 50), chunk(id(6, 10), Some(right), 0, 7)];
    assert_eq!(segments(truncated), [(id(5, 9), left, false), (id(6, 10), right, false)]);
}

#[test]
fn chunks_of_before_tell_the_ranges_of_a_first_epoch_by_their_numbers_and_no_others() {
    let halves = vec![chunk(id(0, 0), None, 0, 9), chunk(id(0, 1), None, 0, 9)];
    assert_eq!(segments(halves), [(id(0, 0), part_of(2, 0), false), (id(0, 1), part_of(2, 1), false)]);
    let scaled = vec![chunk(id(0, 0), None, 0, 9), chunk(id(1, 1), None, 0, 9), chunk(id(1, 2), None, 0, 9)];
    let silent = rebuild(scaled.clone(), &BTreeMap::new()).unwrap_err();
    assert!(silent.contains("4-1-1") && silent.contains("--range"), "{silent}");
    let told = BTreeMap::from([(id(1, 1), part_of(2, 0)), (id(1, 2), part_of(2, 1))]);
    let outcome = rebuild(scaled, &told).unwrap();
    let sealed: Vec<_> = outcome.segments.iter().map(|s| (s.range, s.sealed)).collect();
    assert_eq!(sealed, [(part_of(1, 0), true), (part_of(2, 0), false), (part_of(2, 1), false)]);
}

#[test]
fn contradictions_are_told() {
    let two = vec![chunk(id(0, 0), Some(part_of(1, 0)), 0, 9), chunk(id(0, 0), Some(part_of(2, 0)), 9, 12)];
    assert!(rebuild(two, &BTreeMap::new()).unwrap_err().contains("different ranges"));
    let same = vec![chunk(id(0, 0), Some(part_of(1, 0)), 0, 9), chunk(id(0, 1), Some(part_of(2, 0)), 0, 9)];
    assert!(rebuild(same, &BTreeMap::new()).unwrap_err().contains("share keys"));
}

#[test]
fn what_is_left_of_a_range() {
    let range = KeyRange { first: 10, last: 20 };
    let of = |list: &[(u64, u64)]| list.iter().map(|(first, last)| KeyRange { first: *first, last: *last }).collect();
    for (covered, left) in [
        (vec![], vec![(10, 20)]),
        (vec![(0, 9), (21, 30)], vec![(10, 20)]),
        (vec![(0, 12), (15, 15), (19, 40)], vec![(13, 14), (16, 18)]),
        (vec![(10, 20)], vec![]),
    ] {
        let (covered, left): (Vec<KeyRange>, Vec<KeyRange>) = (of(&covered), of(&left));
        assert_eq!(minus(range, &covered), left, "{covered:?}");
    }
    let whole = KeyRange { first: 0, last: u64::MAX };
    assert_eq!(minus(whole, &[KeyRange { first: 5, last: u64::MAX }]), [KeyRange { first: 0, last: 4 }]);
}
