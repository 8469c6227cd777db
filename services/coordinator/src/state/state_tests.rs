use super::*;
use host::ControlState;
use types::{ContainerId, StreamCut, Tag};
use wire::coordinator::{RetentionChange, RetentionPolicy, ScalingPolicy, StreamUpdate};

use graph::{CutError, ScaleError};

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn new(scope: &str, index: &str, segment_count: u16) -> NewStream {
    let (scope, index) = (scope.parse().unwrap(), index.parse().unwrap());
    NewStream { retention_days: Some(7), ..NewStream::fixed(scope, index, segment_count) }
}

fn run(state: &mut State, at: i64, command: Command) -> Result<Vec<Event>, CoordinatorError> {
    let at = Timestamp::from_millis(at);
    let events = state.decide(command, at)?;
    events.iter().for_each(|event| state.apply(event, at));
    Ok(events)
}

pub(super) fn installed() -> State {
    let mut state = State::default();
    run(&mut state, 0, Command::Install { container_count: 8 }).unwrap();
    state
}

fn with_live(index: &str) -> State {
    let mut state = installed();
    run(&mut state, 1, Command::BeginStream(new("a", index, 2))).unwrap();
    run(&mut state, 2, Command::EndStream { stream: 0, index: index.parse().unwrap() }).unwrap();
    state
}

#[test]
fn creation_is_begun_once_and_compared_afterwards() {
    let mut state = with_live("shop");
    for (asked, expected) in [
        (new("a", "shop", 2), Ok(vec![])),
        (new("b", "shop", 2), Err(CoordinatorError::IndexNameTaken { index: "shop".parse().unwrap() })),
        (
            new("a", "shop", 3),
            Err(CoordinatorError::StreamDiffers { scope: "a".parse().unwrap(), index: "shop".parse().unwrap() }),
        ),
        (new("a", "other", 0), Err(CoordinatorError::SegmentCount(0))),
        (new("a", "other", 65), Err(CoordinatorError::SegmentCount(65))),
    ] {
        assert_eq!(run(&mut state, 3, Command::BeginStream(asked.clone())), expected, "{asked:?}");
    }
    let fresh = State::default().decide(Command::BeginStream(new("a", "x", 1)), Timestamp::from_nanos(0));
    assert_eq!(fresh, Err(CoordinatorError::NotInstalled));
}

#[test]
fn a_scope_holds_no_more_streams_than_its_instances_bring_room_for() {
    let mut state = with_live("shop");
    let beside = |index: &str, most| Command::BeginStreamBeside { new: new("a", index, 1), most };
    let full = |most| Err(CoordinatorError::ScopeFull { scope: "a".parse().unwrap(), most });
    assert_eq!(run(&mut state, 3, beside("one", 1)), full(1));
    assert_eq!(run(&mut state, 3, beside("one", 2)).unwrap().len(), 1);
    assert_eq!(run(&mut state, 3, beside("two", 2)), full(2), "what is being created counts");
    assert_eq!(run(&mut state, 3, beside("one", 2)), Ok(vec![]), "a repeat is no more");
    run(&mut state, 4, Command::BeginDeletion { index: "one".parse().unwrap() }).unwrap();
    assert_eq!(run(&mut state, 4, beside("two", 2)), full(2), "what is being deleted is there");
    run(&mut state, 5, Command::EndDeletion { stream: 1 }).unwrap();
    assert_eq!(run(&mut state, 6, beside("two", 2)).unwrap().len(), 1);
    // Other scopes, and the streams of further instances, have nothing to do with it.
    let elsewhere = Command::BeginStreamBeside { new: new("b", "three", 1), most: 1 };
    assert_eq!(run(&mut state, 7, elsewhere).unwrap().len(), 1);
    assert_eq!(run(&mut state, 7, Command::BeginStream(new("a", "instance", 1))).unwrap().len(), 1);
}

#[test]
fn a_stream_is_seen_only_between_its_creation_and_its_deletion() {
    let shop: IndexName = "shop".parse().unwrap();
    let mut state = installed();
    run(&mut state, 1, Command::BeginStream(new("a", "shop", 4))).unwrap();
    assert_eq!((state.pending().count(), state.live().count()), (1, 0));
    assert_eq!(state.describe(&shop), Err(CoordinatorError::UnknownIndex(shop.clone())));
    run(&mut state, 2, Command::EndStream { stream: 0, index: shop.clone() }).unwrap();
    let there = state.describe(&shop).unwrap();
    assert_eq!((there.segments.len(), there.created), (4, Timestamp::from_millis(1)));
    assert!(there.segments.windows(2).all(|w| w[0].range.last + 1 == w[1].range.first));
    assert!(there.segments.iter().all(|s| s.container == s.segment.container(8)));
    run(&mut state, 3, Command::BeginDeletion { index: shop.clone() }).unwrap();
    assert_eq!((state.pending().count(), state.live().count()), (1, 0));
    let again = run(&mut state, 4, Command::BeginStream(new("a", "shop", 4)));
    assert_eq!(again, Err(CoordinatorError::BeingDeleted(shop.clone())));
    let late = run(&mut state, 4, Command::EndStream { stream: 0, index: shop.clone() });
    assert_eq!(late, Err(CoordinatorError::Deleted(shop.clone())));
    run(&mut state, 5, Command::EndDeletion { stream: 0 }).unwrap();
    assert_eq!(state.stream(&shop), None);
}

#[test]
fn repeats_change_nothing_and_numbers_never_return() {
    let shop: IndexName = "shop".parse().unwrap();
    let mut state = with_live("shop");
    assert_eq!(run(&mut state, 3, Command::EndStream { stream: 0, index: shop.clone() }), Ok(vec![]));
    assert_eq!(run(&mut state, 3, Command::EndDeletion { stream: 0 }), Ok(vec![]));
    assert_eq!(run(&mut state, 3, Command::Install { container_count: 8 }), Ok(vec![]));
    run(&mut state, 4, Command::BeginDeletion { index: shop.clone() }).unwrap();
    assert_eq!(run(&mut state, 4, Command::BeginDeletion { index: shop.clone() }), Ok(vec![]));
    run(&mut state, 5, Command::EndDeletion { stream: 0 }).unwrap();
    assert_eq!(run(&mut state, 6, Command::BeginDeletion { index: shop }), Ok(vec![]));
    let again = run(&mut state, 7, Command::BeginStream(new("b", "shop", 1))).unwrap();
    assert!(matches!(again[..], [Event::StreamBegun { stream: 1, .. }]), "{again:?}");
}

#[test]
fn the_number_of_containers_is_for_ever() {
    let refused = run(&mut installed(), 1, Command::Install { container_count: 16 });
    assert_eq!(refused, Err(CoordinatorError::ContainerCountChanged { installed: 8, wanted: 16 }));
}

#[test]
fn balance_waits_for_its_interval_and_orphans_do_not() {
    let store = |name: &str| Store { replica: name.parse().unwrap(), started: Timestamp::from_nanos(1) };
    let place = |stores: &[Store]| Command::Place { stores: stores.to_vec(), rebalance_min_interval: INTERVAL };
    let mut state = installed();
    let (a, b, c) = (store("a"), store("b"), store("c"));
    for (at, stores, moved) in [
        (0, vec![a.clone()], 8),
        (10, vec![a.clone()], 0),
        (20, vec![a.clone(), b.clone()], 4),
        (30, vec![a.clone(), b.clone(), c.clone()], 0),
        (1_020, vec![a.clone(), b.clone(), c.clone()], 2),
        (1_030, vec![b.clone(), c.clone()], 3),
        (1_040, vec![], 8),
    ] {
        let events = run(&mut state, at, place(&stores)).unwrap();
        let changed: usize = events
            .iter()
            .map(|event| match event {
                Event::ContainersPlaced(changes) => changes.placed.len() + changes.vacated.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(changed, moved, "at {at}");
        let placed = if stores.is_empty() { 0 } else { 8 };
        assert_eq!(state.placement().assignments.len(), placed);
    }
}

#[test]
fn the_state_reads_what_it_writes() {
    let mut state = with_live("shop");
    let stores = vec![Store { replica: "a".parse().unwrap(), started: Timestamp::from_nanos(1) }];
    run(&mut state, 3, Command::Place { stores, rebalance_min_interval: INTERVAL }).unwrap();
    assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state);
}

pub(super) fn index() -> IndexName {
    "shop".parse().unwrap()
}

fn id(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 0, epoch, number }
}

pub(super) fn scale(seal: &[SegmentId], ranges: &[KeyRange]) -> Command {
    let (seal, ranges) = (seal.to_vec(), ranges.to_vec());
    Command::BeginScale { index: index(), seal, ranges, containers: None, for_commit: false }
}

fn whole() -> KeyRange {
    KeyRange { first: 0, last: u64::MAX }
}

fn present(state: &State) -> Vec<SegmentRange> {
    state.describe(&index()).unwrap().segments
}

#[test]
fn one_scale_at_a_time_and_a_repeat_of_it_changes_nothing() {
    let mut state = with_live("shop");
    let halves = KeyRange::split_evenly(2);
    let merge = scale(&[id(0, 0), id(0, 1)], &[whole()]);
    let begun = run(&mut state, 3, merge.clone()).unwrap();
    assert!(matches!(&begun[..], [Event::ScaleBegun { stream: 0, scaling }] if scaling.epoch == 1), "{begun:?}");
    assert_eq!((state.describe(&index()).unwrap().epoch, state.pending().count()), (0, 1));
    let busy = Err(CoordinatorError::ScaleInProgress(index()));
    assert_eq!(run(&mut state, 4, scale(&[id(0, 0)], &halves[..1])), busy);
    assert_eq!(run(&mut state, 4, Command::BeginSeal { index: index() }), busy);
    assert_eq!(run(&mut state, 4, Command::EndScale { stream: 0, epoch: 2 }), Ok(vec![]));
    run(&mut state, 5, Command::EndScale { stream: 0, epoch: 1 }).unwrap();
    let merged = present(&state);
    assert_eq!((merged.len(), merged[0].segment, merged[0].range), (1, id(1, 2), whole()));
    for repeat in [merge.clone(), Command::EndScale { stream: 0, epoch: 1 }] {
        assert_eq!(run(&mut state, 6, repeat), Ok(vec![]));
    }
    assert_eq!(state.pending().count(), 0);
    let gone = CoordinatorError::InvalidScale(ScaleError::NotPresent(id(0, 0)));
    assert_eq!(run(&mut state, 7, scale(&[id(0, 0)], &halves[..1])), Err(gone));
    let containers = Some(vec![ContainerId(5), ContainerId(6)]);
    let (seal, ranges) = (vec![id(1, 2)], halves.clone());
    let placed = Command::BeginScale { index: index(), seal, ranges, containers, for_commit: true };
    run(&mut state, 8, placed).unwrap();
    run(&mut state, 9, Command::EndScale { stream: 0, epoch: 2 }).unwrap();
    assert_eq!(present(&state).iter().map(|s| s.container.0).collect::<Vec<_>>(), [5, 6]);
    // It was done, whatever became of its segments since.
    assert_eq!(run(&mut state, 9, merge), Ok(vec![]));
    let one = Command::BeginScale {
        index: index(),
        seal: vec![id(2, 3)],
        ranges: halves[..1].to_vec(),
        containers: Some(vec![]),
        for_commit: true,
    };
    let counts = ScaleError::Containers { containers: 0, ranges: 1 };
    assert_eq!(run(&mut state, 10, one), Err(CoordinatorError::InvalidScale(counts)));
}

#[test]
fn a_sealed_stream_neither_scales_nor_opens_again() {
    let mut state = with_live("shop");
    let seal = Command::BeginSeal { index: index() };
    assert_eq!(run(&mut state, 3, seal.clone()), Ok(vec![Event::SealBegun { stream: 0 }]));
    assert_eq!((state.describe(&index()).unwrap().sealed, state.pending().count()), (false, 1));
    let refused = Err(CoordinatorError::StreamSealed(index()));
    assert_eq!(run(&mut state, 3, scale(&[id(0, 0), id(0, 1)], &[whole()])), refused);
    run(&mut state, 4, Command::EndSeal { stream: 0 }).unwrap();
    assert_eq!((state.describe(&index()).unwrap().sealed, state.pending().count()), (true, 0));
    for repeat in [seal, Command::EndSeal { stream: 0 }] {
        assert_eq!(run(&mut state, 5, repeat), Ok(vec![]));
    }
    assert_eq!(run(&mut state, 6, scale(&[id(0, 0), id(0, 1)], &[whole()])), refused);
    let cut = StreamCut([(id(0, 0), 3), (id(0, 1), 0)].into());
    assert_eq!(run(&mut state, 7, Command::BeginTruncation { index: index(), cut }).unwrap().len(), 1, "it can forget");
}

#[test]
fn truncations_add_up_until_their_effects_are_done() {
    let mut state = with_live("shop");
    let cut = |a: u64, b: u64| StreamCut([(id(0, 0), a), (id(0, 1), b)].into());
    let truncate = |cut: StreamCut| Command::BeginTruncation { index: index(), cut };
    run(&mut state, 3, truncate(cut(3, 0))).unwrap();
    run(&mut state, 4, truncate(cut(1, 5))).unwrap();
    assert_eq!(state.describe(&index()).unwrap().head, cut(3, 5));
    let pending = state.stream(&index()).unwrap().truncation().unwrap().clone();
    assert_eq!((pending.number, pending.loss.truncate.len()), (2, 2));
    // The end of the first one says nothing of the second.
    assert_eq!(run(&mut state, 5, Command::EndTruncation { stream: 0, number: 1 }), Ok(vec![]));
    run(&mut state, 5, Command::EndTruncation { stream: 0, number: 2 }).unwrap();
    assert_eq!((state.pending().count(), run(&mut state, 6, truncate(cut(3, 5)))), (0, Ok(vec![])));
    let unknown = run(&mut state, 6, truncate(StreamCut([(id(4, 4), 1)].into())));
    assert_eq!(unknown, Err(CoordinatorError::InvalidCut(CutError::Unknown(id(4, 4)))));
}

#[test]
fn a_deleted_stream_names_every_segment_that_a_store_may_have() {
    let mut state = with_live("shop");
    run(&mut state, 3, scale(&[id(0, 0), id(0, 1)], &[whole()])).unwrap();
    run(&mut state, 3, Command::EndScale { stream: 0, epoch: 1 }).unwrap();
    let cut = StreamCut([(id(1, 2), 0)].into());
    run(&mut state, 4, Command::BeginTruncation { index: index(), cut }).unwrap();
    run(&mut state, 5, scale(&[id(1, 2)], &KeyRange::split_evenly(2))).unwrap();
    run(&mut state, 6, Command::BeginDeletion { index: index() }).unwrap();
    let places = state.stream(&index()).unwrap().places();
    let named: std::collections::BTreeSet<u32> = places.iter().map(|p| p.segment.number).collect();
    assert_eq!(named, (0..5).collect());
    for late in [Command::BeginSeal { index: index() }, scale(&[id(1, 2)], &[whole()])] {
        assert_eq!(run(&mut state, 7, late), Err(CoordinatorError::UnknownIndex(index())));
    }
}

#[test]
fn an_update_changes_what_it_names_and_a_repeated_creation_still_fits() {
    let mut state = with_live("shop");
    let keep = |update: StreamUpdate| Command::UpdateStream(update);
    let nothing = || StreamUpdate { index: index(), scaling: None, retention: None, tags: None };
    assert_eq!(run(&mut state, 3, keep(nothing())), Ok(vec![]));
    let by_rate = ScalingPolicy::EventRate { target: 100, factor: 2, min_segments: 1 };
    let tags: Vec<Tag> = vec!["blue".parse().unwrap()];
    run(&mut state, 4, keep(StreamUpdate { scaling: Some(by_rate), tags: Some(tags.clone()), ..nothing() })).unwrap();
    let there = state.describe(&index()).unwrap();
    assert_eq!((there.scaling, there.tags, there.retention_days), (by_rate, tags, Some(7)));
    run(&mut state, 5, keep(StreamUpdate { retention: Some(RetentionChange::Forever), ..nothing() })).unwrap();
    assert_eq!(state.describe(&index()).unwrap().retention_days, None, "everything is kept");
    assert_eq!(run(&mut state, 6, Command::BeginStream(new("a", "shop", 2))), Ok(vec![]));
    let bad_rate = ScalingPolicy::DataRate { target_kib: 0, factor: 2, min_segments: 1 };
    let upside_down = RetentionPolicy::Size { min_bytes: 9, max_bytes: Some(8) };
    let many = (0..17).map(|n| format!("t{n}").parse().unwrap()).collect();
    for bad in [
        StreamUpdate { scaling: Some(bad_rate), ..nothing() },
        StreamUpdate { retention: Some(RetentionChange::By(upside_down)), ..nothing() },
        StreamUpdate { tags: Some(many), ..nothing() },
        StreamUpdate { tags: Some(vec!["a".parse().unwrap(); 2]), ..nothing() },
    ] {
        let refused = run(&mut state, 7, keep(bad.clone()));
        assert!(matches!(refused, Err(CoordinatorError::InvalidPolicy(_))), "{bad:?} {refused:?}");
    }
}

#[test]
fn a_scope_goes_when_it_is_empty_or_with_everything_in_it() {
    let mut state = with_live("shop");
    let scope = |name: &str| -> ScopeName { name.parse().unwrap() };
    let create = |name: &str| Command::CreateScope { scope: scope(name) };
    let delete = |name: &str, recursive| Command::BeginScopeDeletion { scope: scope(name), recursive };
    run(&mut state, 3, create("empty")).unwrap();
    assert_eq!(run(&mut state, 3, create("empty")), Ok(vec![]));
    assert_eq!(run(&mut state, 3, create("a")), Ok(vec![]), "made by its stream");
    assert_eq!(state.scopes(None).count(), 2);
    let refused = CoordinatorError::ScopeNotEmpty { scope: scope("a"), stream_count: 1 };
    assert_eq!(run(&mut state, 4, delete("a", false)), Err(refused));
    run(&mut state, 4, delete("a", true)).unwrap();
    for late in [create("a"), Command::BeginStream(new("a", "late", 1))] {
        assert_eq!(run(&mut state, 5, late), Err(CoordinatorError::ScopeBeingDeleted(scope("a"))));
    }
    assert_eq!(run(&mut state, 5, Command::EndScopeDeletion { scope: scope("a") }), Ok(vec![]), "there is a stream");
    run(&mut state, 6, Command::BeginDeletion { index: index() }).unwrap();
    run(&mut state, 6, Command::EndDeletion { stream: 0 }).unwrap();
    for name in ["a", "empty"] {
        run(&mut state, 7, delete(name, false)).unwrap();
        run(&mut state, 7, Command::EndScopeDeletion { scope: scope(name) }).unwrap();
        assert_eq!(run(&mut state, 8, delete(name, true)), Ok(vec![]), "not there");
    }
    assert_eq!(state.scopes(None).count(), 0);
}

/// Written by the first version, which knew neither scopes nor epochs; it must decode for ever.
const FIRST_EVENTS: &[u8] =
    b"\x96\x81\xa9Installed\x81\xafcontainer_count\x08\x81\xabStreamBegun\x82\xa6stream\x00\xa3new\x84\
      \xa5scope\xa4team\xa5index\xa4shop\xadsegment_count\x02\xaeretention_days\x07\x81\xadStreamCreat\
      ed\x81\xa6stream\x00\x81\xb0ContainersPlaced\x83\xa6placed\x91\x82\xa9container\x00\xa5owner\x82\
      \xa5store\x82\xa7replica\xa3one\xa7started\x01\xaageneration\x01\xa7vacated\x90\xaarebalanced\
      \xc2\x81\xb3StreamDeletionBegun\x81\xa6stream\x00\x81\xadStreamDeleted\x81\xa6stream\x00";
const FIRST_STATE: &[u8] =
    b"\x85\xafcontainer_count\x08\xabnext_stream\x01\xa7streams\x81\x00\x82\xabdescription\x87\xa6stre\
      am\x00\xa5scope\xa4team\xa5index\xa4shop\xa5epoch\x00\xa8segments\x92\x83\xa7segment\xa50-0-0\
      \xa9container\x03\xa5range\x82\xa5first\x00\xa4last\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\x83\xa7s\
      egment\xa50-0-1\xa9container\x06\xa5range\x82\xa5first\xcf\x80\x00\x00\x00\x00\x00\x00\x00\xa4la\
      st\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa7created\x05\xaeretention_days\x07\xa5phase\xa4Live\xa8\
      by_index\x81\xa4shop\x00\xa6placed\x84\xa7version\x01\xa6owners\x81\x00\x82\xa5store\x82\xa7repl\
      ica\xa3one\xa7started\x01\xaageneration\x01\xabgenerations\x81\x00\x01\xaarebalanced\xc0";

#[test]
fn the_first_journal_and_the_first_state_still_read() {
    let events: Vec<Event> = wire::decode(FIRST_EVENTS).unwrap();
    assert_eq!(events.len(), 6);
    let at = Timestamp::from_nanos(5);
    let mut replayed = State::default();
    events[..4].iter().for_each(|event| replayed.apply(event, at));
    let mut restored: State = wire::decode(FIRST_STATE).unwrap();
    for state in [&mut replayed, &mut restored] {
        let there = state.describe(&index()).unwrap();
        assert_eq!((there.segments.len(), there.retention_days, there.created), (2, Some(7), at));
        assert_eq!((state.scopes(None).count(), state.placement().assignments.len()), (1, 1));
        assert_eq!(run(state, 6, Command::BeginStream(new("team", "shop", 2))), Ok(vec![]));
        run(state, 7, scale(&[id(0, 0), id(0, 1)], &[whole()])).unwrap();
        run(state, 8, Command::EndScale { stream: 0, epoch: 1 }).unwrap();
        assert_eq!(present(state)[0].segment, id(1, 2));
        assert_eq!(wire::decode::<State>(&wire::encode(&*state)).unwrap(), *state);
        events[4..].iter().for_each(|event| state.apply(event, at));
        assert_eq!(state.stream(&index()), None);
    }
}
