use host::ControlState;
use types::KeyRange;
use wire::coordinator::{NewStream, SegmentRange};

use super::*;
use crate::{Command as StateCommand, Event as StateEvent};

fn graph() -> Graph {
    let segments = (0..).zip(KeyRange::split_evenly(2)).map(|(number, range)| {
        let segment = SegmentId { stream: 0, epoch: 0, number };
        SegmentRange { segment, container: segment.container(8), range }
    });
    Graph::first(0, segments.collect(), Timestamp::default())
}

fn segment(number: u32) -> SegmentId {
    SegmentId { stream: 0, epoch: 0, number }
}

fn cut(first: u64, second: u64) -> StreamCut {
    StreamCut([(segment(0), first), (segment(1), second)].into())
}

/// Six tail cuts, ten seconds and a hundred bytes from one to the next: cut n is at offsets (10n, 10n) with 100n bytes before it.
fn six() -> Vec<Recorded> {
    let recorded = |n: u64| Recorded {
        at: Timestamp::from_millis(i64::try_from(n).unwrap() * 10_000),
        bytes: n * 100,
        places: vec![(segment(0), n * 10), (segment(1), n * 10)],
    };
    (1..=6).map(recorded).collect()
}

fn time(min_s: u64, max_s: Option<u64>) -> RetentionPolicy {
    RetentionPolicy::Time { min_ms: min_s * 1_000, max_ms: max_s.map(|s| s * 1_000) }
}

fn size(min_bytes: u64, max_bytes: Option<u64>) -> RetentionPolicy {
    RetentionPolicy::Size { min_bytes, max_bytes }
}

fn either(s: u64, bytes: u64) -> RetentionPolicy {
    RetentionPolicy::TimeAndSize { ms: s * 1_000, bytes }
}

/// At 65 s, when 650 bytes are there: cut n is 65 - 10n seconds old and leaves 650 - 100n bytes.
fn picked(policy: RetentionPolicy, consumed: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (cuts, graph, now) = (six(), graph(), Timestamp::from_millis(65_000));
    let consumed = consumed.map(|(first, second)| cut(first, second));
    let (bytes, truncated_bytes, consumed) = (650, 0, consumed.as_ref());
    let picked = Situation { policy, cuts: &cuts, bytes, truncated_bytes, now, consumed, graph: &graph }.pick()?;
    Some((picked.offset(segment(0)), picked.offset(segment(1))))
}

#[test]
fn without_subscribers_the_policy_decides() {
    for (policy, expected, why) in [
        (time(60, None), None, "nothing is old enough"),
        (time(55, None), Some((10, 10)), "the first cut is just old enough"),
        (time(20, None), Some((40, 40)), "the youngest cut that leaves the least"),
        (time(20, Some(20)), Some((40, 40)), "days: least and most are the same"),
        (time(20, Some(40)), Some((40, 40)), "everything older than the least goes"),
        (either(20, 600), Some((40, 40)), "too old comes first"),
        (either(60, 350), Some((30, 30)), "too much comes first"),
        (either(20, 250), Some((40, 40)), "both at once"),
        (either(60, 700), None, "neither too old nor too much"),
        (size(700, None), None, "there is not even the least"),
        (size(600, None), None, "no cut leaves the least"),
        (size(200, None), Some((40, 40)), "closest to the least and above it"),
        (size(200, Some(700)), Some((40, 40)), "between least and most: closest to the least"),
        (size(200, Some(500)), Some((20, 20)), "above the most: closest to it and below it"),
        (size(210, Some(240)), Some((40, 40)), "no cut lies between: above the least"),
        (size(0, Some(0)), Some((60, 60)), "all that is remembered goes"),
    ] {
        assert_eq!(picked(policy, None), expected, "{policy:?}: {why}");
    }
}

/// The five cases of consumption against the limits, and those without a cut to go to.
#[test]
fn subscribers_decide_between_least_and_most() {
    for (policy, consumed, expected, why) in [
        // i. Within the limits: exactly what was consumed.
        (time(20, Some(50)), (25, 33), (25, 33), "time: within"),
        (time(20, None), (5, 2), (5, 2), "time: nothing forces a slow one"),
        (size(200, Some(600)), (21, 28), (21, 28), "size: within"),
        (size(200, None), (5, 2), (5, 2), "size: nothing forces a slow one"),
        // ii. It would leave less than the least.
        (time(20, Some(50)), (58, 59), (40, 40), "time: the least stays"),
        (size(200, Some(600)), (58, 59), (40, 40), "size: the least stays"),
        // iii. It would leave more than the most.
        (time(20, Some(30)), (15, 18), (40, 40), "time: the oldest cut that leaves no more than the most"),
        (time(20, Some(45)), (5, 5), (20, 20), "time: the same where the limit falls on a cut"),
        (size(200, Some(300)), (15, 18), (40, 40), "size: the oldest cut that leaves no more than the most"),
        (size(200, Some(450)), (5, 5), (20, 20), "size: the same where the limit falls on a cut"),
        // iv. It overlaps with the least: the first cut before it.
        (time(20, Some(60)), (35, 45), (30, 30), "time: partly consumed beyond the least"),
        (size(200, Some(600)), (35, 55), (30, 30), "size: partly consumed beyond the least"),
        // v. It overlaps with the most.
        (time(10, Some(40)), (15, 25), (20, 20), "time: what is too old goes and no more"),
        (size(100, Some(440)), (25, 35), (25, 35), "size: more than the most stays only until the next cut"),
    ] {
        assert_eq!(picked(policy, Some(consumed)), Some(expected), "{policy:?} {consumed:?}: {why}");
    }
    for (policy, consumed, why) in [
        (time(60, Some(90)), (30, 30), "nothing is old enough to go"),
        (size(700, Some(900)), (30, 30), "there is not even the least"),
        (time(20, None), (5, 45), "overlaps, and no cut lies before it"),
    ] {
        assert_eq!(picked(policy, Some(consumed)), None, "{policy:?} {consumed:?}: {why}");
    }
}

fn run(state: &mut State, at_s: i64, command: StateCommand) -> Vec<StateEvent> {
    let now = Timestamp::from_millis(at_s * 1_000);
    let events = state.decide(command, now).unwrap();
    events.iter().for_each(|event| state.apply(event, now));
    events
}

fn shop() -> IndexName {
    "shop".parse().unwrap()
}

fn with_policy(retention: Option<RetentionPolicy>) -> State {
    let mut state = State::default();
    run(&mut state, 0, StateCommand::Install { container_count: 8 });
    let new = NewStream { retention, ..NewStream::fixed("team".parse().unwrap(), shop(), 2) };
    run(&mut state, 0, StateCommand::BeginStream(new));
    run(&mut state, 0, StateCommand::EndStream { stream: 0, index: shop() });
    state
}

fn measured(ends: &[(SegmentId, u64)]) -> Vec<Measured> {
    ends.iter().map(|(segment, end)| Measured { segment: *segment, end: *end, bytes: end * 10 }).collect()
}

fn record(state: &mut State, at_s: i64, ends: &[(SegmentId, u64)]) -> usize {
    let command = Command::Record { index: shop(), measured: measured(ends) };
    run(state, at_s, StateCommand::Retention(command)).len()
}

#[test]
fn a_cut_is_remembered_only_if_it_is_worth_it() {
    let both = |end| [(segment(0), end), (segment(1), end)];
    let mut state = with_policy(None);
    assert_eq!(record(&mut state, 1, &both(5)), 0, "without a policy");
    let mut state = with_policy(Some(time(1_000, None)));
    assert_eq!(record(&mut state, 1, &both(5)), 1);
    assert_eq!(record(&mut state, 100, &both(5)), 0, "an idle stream costs nothing");
    assert_eq!(record(&mut state, 10, &both(6)), 0, "less than one per cent of what is kept anyway");
    assert_eq!(record(&mut state, 11, &both(6)), 1);
    let mut state = with_policy(Some(size(10_000, None)));
    assert_eq!(record(&mut state, 1, &both(5)), 1);
    assert_eq!(record(&mut state, 100, &both(9)), 0, "80 bytes of 10 000");
    assert_eq!(record(&mut state, 100, &both(10)), 1);
    let mut state = with_policy(Some(either(1_000, 10_000)));
    assert_eq!(record(&mut state, 1, &both(5)), 1);
    assert_eq!(record(&mut state, 10, &both(9)), 0, "neither a step in time nor one in bytes");
    assert_eq!(record(&mut state, 11, &both(9)), 1, "a step in time");
    assert_eq!(record(&mut state, 12, &both(14)), 1, "a step in bytes");
}

#[test]
fn days_stand_for_a_policy() {
    let mut stream = with_policy(None).describe(&shop()).unwrap();
    assert_eq!(policy_of(&stream), None);
    stream.retention_days = Some(7);
    let week = 7 * 24 * 60 * 60 * 1_000;
    assert_eq!(policy_of(&stream), Some(RetentionPolicy::Time { min_ms: week, max_ms: Some(week) }));
    stream.retention = Some(size(1, None));
    assert_eq!(policy_of(&stream), Some(size(1, None)), "the policy counts");
}

#[test]
fn bytes_are_counted_through_a_scale() {
    let mut state = with_policy(Some(size(1, None)));
    record(&mut state, 1, &[(segment(0), 10), (segment(1), 10)]);
    let quarters = KeyRange::split_evenly(4);
    let (seal, ranges, containers, for_commit) = (vec![segment(0)], quarters[..2].to_vec(), None, false);
    run(&mut state, 2, StateCommand::BeginScale { index: shop(), seal, ranges, containers, for_commit });
    run(&mut state, 2, StateCommand::EndScale { stream: 0, epoch: 1 });
    let child = |number| SegmentId { stream: 0, epoch: 1, number };
    let (seal, ranges, containers, for_commit) = (vec![child(2)], vec![quarters[0]], None, false);
    run(&mut state, 3, StateCommand::BeginScale { index: shop(), seal, ranges, containers, for_commit });
    run(&mut state, 3, StateCommand::EndScale { stream: 0, epoch: 2 });
    let grandchild = SegmentId { stream: 0, epoch: 2, number: 4 };
    let graph = state.graph(&shop()).unwrap();
    let named: std::collections::BTreeSet<_> =
        state.retention().to_measure(graph).into_iter().map(|place| place.segment).collect();
    assert_eq!(
        named,
        [segment(0), segment(1), child(2), child(3), grandchild].into(),
        "also what began and ended between"
    );
    // 3 more in the first segment before it was sealed, 2 in its first child, 1 in each other one.
    let ends = [(segment(1), 11), (child(3), 1), (grandchild, 1), (segment(0), 13), (child(2), 2)];
    assert_eq!(record(&mut state, 4, &ends), 1);
    assert_eq!(state.retention().bytes(0, &measured(&ends)), 280, "200 before, 80 since");
    let graph = state.graph(&shop()).unwrap();
    assert_eq!(state.retention().to_measure(graph).len(), 3, "the ended ones are counted by now");
    // A round that looked before the last epoch opened says nothing.
    assert_eq!(record(&mut state, 5, &[(segment(1), 30), (child(2), 30), (child(3), 30)]), 0);
}

#[test]
fn passed_cuts_are_forgotten_and_never_picked_again() {
    let both = |end| [(segment(0), end), (segment(1), end)];
    let policy = size(100, Some(300));
    let mut state = with_policy(Some(policy));
    for (at, end) in [(1, 10), (2, 20), (3, 30)] {
        assert_eq!(record(&mut state, at, &both(end)), 1);
    }
    let pick = |state: &State, end| {
        let graph = state.graph(&shop()).unwrap();
        state.retention().pick((graph, policy), &measured(&both(end)), None, Timestamp::from_millis(4_000))
    };
    assert_eq!(pick(&state, 30), Some(cut(20, 20)), "600 bytes are there: 200 stay");
    run(&mut state, 4, StateCommand::BeginTruncation { index: shop(), cut: cut(20, 20) });
    assert_eq!(run(&mut state, 4, StateCommand::Retention(Command::Forget { index: shop() })).len(), 1);
    assert_eq!(state.retention().cut_count(0), 1);
    assert_eq!(pick(&state, 30), None, "200 bytes are there, and no cut leaves the least");
    assert_eq!(run(&mut state, 4, StateCommand::Retention(Command::Forget { index: shop() })).len(), 0);
    // An idle stream: its last tail is its head, and is not remembered again.
    run(&mut state, 5, StateCommand::BeginTruncation { index: shop(), cut: cut(30, 30) });
    run(&mut state, 5, StateCommand::Retention(Command::Forget { index: shop() }));
    assert_eq!((state.retention().cut_count(0), record(&mut state, 6, &both(30))), (0, 0));
    assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state);
    run(&mut state, 7, StateCommand::BeginDeletion { index: shop() });
    run(&mut state, 7, StateCommand::EndDeletion { stream: 0 });
    assert_eq!(*state.retention(), Retained::default());
}

#[test]
fn a_subscriber_beyond_the_tail_consumed_up_to_the_tail() {
    let both = |end| [(segment(0), end), (segment(1), end)];
    let policy = size(0, None);
    let mut state = with_policy(Some(policy));
    record(&mut state, 1, &both(10));
    let graph = state.graph(&shop()).unwrap();
    let now = Timestamp::from_millis(2_000);
    let picked = state.retention().pick((graph, policy), &measured(&both(10)), Some(&cut(99, 4)), now);
    assert_eq!(picked, Some(cut(10, 4)), "a cut that no truncation could carry out");
}

#[test]
fn remembered_cuts_have_a_limit() {
    let mut retained = Retained::default();
    for n in 0..=u64::try_from(CUTS_MAX).unwrap() {
        let tail = measured(&[(segment(0), n), (segment(1), n)]);
        let at = Timestamp::from_millis(i64::try_from(n).unwrap());
        retained.apply(&Event::CutRecorded { stream: 0, tail, bytes: n }, at);
    }
    let cuts = &retained.streams[&0].cuts;
    assert_eq!(cuts.len(), 751, "every second one of the older half is gone");
    let bytes: Vec<_> = cuts.iter().map(|cut| cut.bytes).collect();
    assert_eq!((&bytes[..3], &bytes[748..]), (&[0, 2, 4][..], &[998, 999, 1_000][..]));
    assert!(bytes.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn wide_streams_remember_fewer_cuts() {
    let mut retained = Retained::default();
    let width = 10_000;
    let places = |retained: &Retained| retained.streams[&0].cuts.iter().map(|cut| cut.places.len()).sum::<usize>();
    for n in 0..3 * u64::try_from(PLACES_MAX / width).unwrap() {
        let ends: Vec<_> = (0..u32::try_from(width).unwrap()).map(|number| (segment(number), n)).collect();
        let event = Event::CutRecorded { stream: 0, tail: measured(&ends), bytes: n };
        assert!(wire::encode(&event).len() < host::ENTRY_BYTES_MAX / 2);
        retained.apply(&event, Timestamp::from_millis(i64::try_from(n).unwrap()));
        assert!(places(&retained) <= PLACES_MAX, "{n}");
    }
    let cuts = &retained.streams[&0].cuts;
    assert!((8..=PLACES_MAX / width).contains(&cuts.len()), "{}", cuts.len());
    assert_eq!((cuts[0].bytes, cuts[cuts.len() - 1].bytes), (0, 59), "the oldest and the newest stay");
}
