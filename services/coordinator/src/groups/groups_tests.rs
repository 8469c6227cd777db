use host::ControlState;
use types::{KeyRange, SegmentId};
use wire::coordinator::NewStream;

use super::*;
use crate::{Command as StateCommand, Event as StateEvent};

/// Two streams of two segments each in scope `team`: `shop` is 0, `cart` is 1; and `theirs` in another scope.
fn state() -> State {
    let mut state = State::default();
    run(&mut state, StateCommand::Install { container_count: 8 }).unwrap();
    for (stream, scope, index) in [(0, "team", "shop"), (1, "team", "cart"), (2, "other", "theirs")] {
        let index: IndexName = index.parse().unwrap();
        let new = NewStream::fixed(scope.parse().unwrap(), index.clone(), 2);
        run(&mut state, StateCommand::BeginStream(new)).unwrap();
        run(&mut state, StateCommand::EndStream { stream, index }).unwrap();
    }
    state
}

fn run(state: &mut State, command: StateCommand) -> Result<Vec<StateEvent>, CoordinatorError> {
    let now = Timestamp::from_millis(5);
    let events = state.decide(command, now)?;
    events.iter().for_each(|event| state.apply(event, now));
    Ok(events)
}

fn ask(state: &mut State, command: Command) -> Result<usize, CoordinatorError> {
    run(state, StateCommand::Groups(command)).map(|events| events.len())
}

fn name(text: &str) -> GroupName {
    text.parse().unwrap()
}

fn index(text: &str) -> IndexName {
    text.parse().unwrap()
}

/// A cut of the first epoch of a stream of two segments.
fn cut(stream: u32, first: u64, second: u64) -> StreamCut {
    let segment = |number| SegmentId { stream, epoch: 0, number };
    StreamCut([(segment(0), first), (segment(1), second)].into())
}

fn config(group: &str, from: &[(&str, CutKind)], retention: GroupRetention) -> GroupConfig {
    let from = from.iter().map(|(name, kind)| (index(name), kind.clone())).collect();
    let (group, scope, to) = (name(group), "team".parse().unwrap(), BTreeMap::new());
    GroupConfig { group, scope, from, to, checkpoint_ms: 30_000, retention }
}

fn plain(group: &str) -> GroupConfig {
    config(group, &[("shop", CutKind::Unbounded)], GroupRetention::AtCheckpoint)
}

fn wanted(config: &GroupConfig) -> Wanted {
    Wanted { config: config.clone(), tails: BTreeMap::from([(index("shop"), cut(0, 7, 8))]) }
}

fn create(state: &mut State, config: &GroupConfig) -> Result<usize, CoordinatorError> {
    ask(state, Command::Create(wanted(config)))
}

fn report(state: &mut State, group: &str, generation: u64, cut: StreamCut) -> Result<usize, CoordinatorError> {
    let (group, index) = (name(group), index("shop"));
    ask(state, Command::Report(Consumed { group, generation, index, cut }))
}

fn bound(state: &State) -> Option<StreamCut> {
    state.groups().lower_bound(&index("shop"), state.graph(&index("shop")).unwrap())
}

#[test]
fn a_group_is_created_once_and_compared_afterwards() {
    let mut state = state();
    assert_eq!(create(&mut state, &plain("g")), Ok(1));
    assert_eq!(create(&mut state, &plain("g")), Ok(0), "a repeat changes nothing");
    let other = GroupConfig { checkpoint_ms: 1, ..plain("g") };
    assert_eq!(create(&mut state, &other), Err(GroupError::Differs(name("g")).into()));
    let there = state.groups().describe(&name("g")).unwrap();
    assert_eq!((there.generation, there.created, there.config), (1, Timestamp::from_millis(5), plain("g")));
    assert_eq!(ask(&mut state, Command::Delete(name("g"))), Ok(1));
    assert_eq!(ask(&mut state, Command::Delete(name("g"))), Ok(0));
    assert_eq!(state.groups().describe(&name("g")), Err(GroupError::Unknown(name("g"))));
}

#[test]
fn a_tail_is_given_when_the_group_begins() {
    let mut state = state();
    let mut asked = config("g", &[("shop", CutKind::Tail)], GroupRetention::None);
    asked.to.insert(index("shop"), CutKind::Tail);
    assert_eq!(create(&mut state, &asked), Ok(1));
    let given = CutKind::At(cut(0, 7, 8));
    let there = state.groups().describe(&name("g")).unwrap().config;
    assert_eq!((&there.from[&index("shop")], &there.to[&index("shop")]), (&given, &given));
    // The repeat says `Tail` again, and the tail is another one by now.
    assert_eq!(ask(&mut state, Command::Create(Wanted { config: asked, tails: BTreeMap::new() })), Ok(0));
}

#[test]
fn generations_of_a_name_never_return() {
    let mut state = state();
    create(&mut state, &plain("g")).unwrap();
    report(&mut state, "g", 1, cut(0, 1, 1)).unwrap();
    let next = config("g", &[("shop", CutKind::Unbounded), ("cart", CutKind::Unbounded)], GroupRetention::None);
    assert_eq!(ask(&mut state, Command::Reset(wanted(&next))), Ok(1));
    let there = state.groups().describe(&name("g")).unwrap();
    assert_eq!((there.generation, there.consumed.len(), there.config), (2, 0, next));
    ask(&mut state, Command::Delete(name("g"))).unwrap();
    create(&mut state, &plain("g")).unwrap();
    assert_eq!(
        state.groups().describe(&name("g")).unwrap().generation,
        3,
        "readers of the former group left documents"
    );
    let nobody = Command::Reset(wanted(&plain("nobody")));
    assert_eq!(ask(&mut state, nobody), Err(GroupError::Unknown(name("nobody")).into()));
}

#[test]
fn a_configuration_has_rules() {
    let at = |cut: StreamCut| ("shop", CutKind::At(cut));
    let many: Vec<String> = (0..17).map(|n| format!("i{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), CutKind::Unbounded)).collect();
    let mut end = plain("g");
    end.to.insert(index("cart"), CutKind::Unbounded);
    let half = StreamCut([(SegmentId { stream: 0, epoch: 0, number: 0 }, 5)].into());
    let kind_of = |config: &GroupConfig| wire::Problem::from(create(&mut state(), config).unwrap_err()).kind;
    for (config, kind, why) in [
        (config("g", &[], GroupRetention::None), "InvalidGroup", "nothing to read"),
        (config("g", &many, GroupRetention::None), "InvalidGroup", "too much to read"),
        (end, "InvalidGroup", "an end without a beginning"),
        (config("g", &[("nobody", CutKind::Unbounded)], GroupRetention::None), "UnknownIndex", "not there"),
        (config("g", &[("theirs", CutKind::Unbounded)], GroupRetention::None), "UnknownIndex", "of another tenant"),
        (config("g", &[at(half)], GroupRetention::None), "InvalidCut", "half of the keys"),
        (config("g", &[at(cut(1, 0, 0))], GroupRetention::None), "InvalidCut", "segments of another stream"),
    ] {
        assert_eq!(kind_of(&config), kind, "{why}");
    }
}

#[test]
fn consumption_only_goes_on() {
    let mut state = state();
    create(&mut state, &plain("g")).unwrap();
    assert_eq!(report(&mut state, "g", 1, cut(0, 5, 5)), Ok(1));
    for (back, why) in [(cut(0, 5, 5), "the same"), (cut(0, 4, 5), "back"), (cut(0, 9, 4), "here on, there back")] {
        assert_eq!(report(&mut state, "g", 1, back), Ok(0), "{why}");
    }
    assert_eq!(report(&mut state, "g", 1, cut(0, 5, 6)), Ok(1));
    assert_eq!(state.groups().describe(&name("g")).unwrap().consumed[&index("shop")], cut(0, 5, 6));
    let half = StreamCut([(SegmentId { stream: 0, epoch: 0, number: 0 }, 5)].into());
    let kind = |refused: Result<usize, CoordinatorError>| wire::Problem::from(refused.unwrap_err()).kind;
    assert_eq!(kind(report(&mut state, "g", 1, half)), "InvalidCut");
    assert_eq!(kind(report(&mut state, "g", 2, cut(0, 7, 7))), "GroupReset", "a reader of another generation");
    assert_eq!(kind(report(&mut state, "nobody", 1, cut(0, 7, 7))), "UnknownGroup");
}

#[test]
fn the_slowest_subscriber_is_the_bound() {
    let mut state = state();
    assert_eq!(bound(&state), None, "nobody subscribes");
    create(&mut state, &config("reader", &[("shop", CutKind::Unbounded)], GroupRetention::None)).unwrap();
    report(&mut state, "reader", 1, cut(0, 1, 1)).unwrap();
    assert_eq!(bound(&state), None, "who only reads holds nothing back");
    create(&mut state, &plain("a")).unwrap();
    assert_eq!(bound(&state), Some(cut(0, 0, 0)), "who has told nothing stands where it began");
    report(&mut state, "a", 1, cut(0, 9, 2)).unwrap();
    create(&mut state, &config("b", &[("shop", CutKind::At(cut(0, 3, 3)))], GroupRetention::Manual)).unwrap();
    assert_eq!(bound(&state), Some(cut(0, 3, 2)), "the least of both for every key");
    // One reader is in the next epoch, the other is not.
    let first = SegmentId { stream: 0, epoch: 0, number: 0 };
    let half = KeyRange::split_evenly(2)[0];
    let quarters = KeyRange::split_evenly(4);
    let (index_of, seal) = (index("shop"), vec![first]);
    assert_eq!((quarters[0].first, quarters[1].last), (half.first, half.last));
    let (ranges, containers, for_commit) = (quarters[..2].to_vec(), None, false);
    run(&mut state, StateCommand::BeginScale { index: index_of, seal, ranges, containers, for_commit }).unwrap();
    run(&mut state, StateCommand::EndScale { stream: 0, epoch: 1 }).unwrap();
    let child = |number| SegmentId { stream: 0, epoch: 1, number };
    let second = SegmentId { stream: 0, epoch: 0, number: 1 };
    let ahead = StreamCut([(child(2), 4), (child(3), 0), (second, 2)].into());
    report(&mut state, "a", 1, ahead.clone()).unwrap();
    assert_eq!(bound(&state), Some(cut(0, 3, 2)));
    ask(&mut state, Command::Delete(name("b"))).unwrap();
    assert_eq!(bound(&state), Some(ahead));
    ask(&mut state, Command::Reset(wanted(&config("a", &[("cart", CutKind::Unbounded)], GroupRetention::Manual))))
        .unwrap();
    assert_eq!(bound(&state), None, "it reads something else now");
}

#[test]
fn groups_go_with_their_scope_and_forget_deleted_streams() {
    let mut state = state();
    create(&mut state, &plain("g")).unwrap();
    report(&mut state, "g", 1, cut(0, 5, 5)).unwrap();
    run(&mut state, StateCommand::BeginDeletion { index: index("shop") }).unwrap();
    run(&mut state, StateCommand::EndDeletion { stream: 0 }).unwrap();
    assert!(
        state.groups().describe(&name("g")).unwrap().consumed.is_empty(),
        "the name may come to mean another stream"
    );
    assert_eq!(state.groups().list(Some(&"team".parse().unwrap()), None).count(), 1);
    assert_eq!(state.groups().list(Some(&"team".parse().unwrap()), Some(&name("g"))).count(), 0, "behind the last");
    assert_eq!(state.groups().list(Some(&"other".parse().unwrap()), None).count(), 0);
    assert!(state.groups().has_any(&"team".parse().unwrap()));
    let mut groups = state.groups().clone();
    groups.forget_scope(&"team".parse().unwrap());
    assert_eq!((groups.list(None, None).count(), groups.subscribers.len(), groups.generations_gone), (0, 0, 1));
}

/// The most places that any answer about a group names, each as long as it can be.
#[test]
fn the_largest_group_fits_into_one_answer() {
    let cut = |stream: u32, places: usize| {
        let segment = |number| SegmentId { stream: u32::MAX - stream, epoch: u32::MAX, number: u32::MAX - number };
        StreamCut((0..u32::try_from(places).unwrap()).map(|n| (segment(n), u64::MAX)).collect())
    };
    let (most, indexes) = (PLACES_MAX / INDEXES_MAX, u32::try_from(INDEXES_MAX).unwrap());
    let cuts: BTreeMap<IndexName, StreamCut> = (0..indexes).map(|n| (index(&format!("i-{n}")), cut(n, most))).collect();
    let from: Vec<_> = cuts.iter().map(|(index, cut)| (index.as_str(), CutKind::At(cut.clone()))).collect();
    let config = config("g", &from, GroupRetention::Manual);
    let group = Group { asked: config.clone(), config, generation: 1, created: Timestamp::default(), consumed: cuts };
    let bytes = wire::encode(&group.describe()).len();
    assert!(bytes < 1 << 20, "{bytes}");
}

#[test]
fn cuts_of_a_group_name_only_so_many_places() {
    let mut state = state();
    let places = PLACES_MAX / 3 + 1;
    // Three streams of the widest kind that fit one by one, and not together.
    let names = ["a", "b", "c"];
    let mut cuts = BTreeMap::new();
    for (stream, name) in (3..).zip(names) {
        let new = NewStream::fixed("team".parse().unwrap(), index(name), 1);
        run(&mut state, StateCommand::BeginStream(new)).unwrap();
        run(&mut state, StateCommand::EndStream { stream, index: index(name) }).unwrap();
        let seal = vec![SegmentId { stream, epoch: 0, number: 0 }];
        let ranges = KeyRange::split_evenly(u32::try_from(places).unwrap());
        let scale = StateCommand::BeginScale { index: index(name), seal, ranges, containers: None, for_commit: false };
        run(&mut state, scale).unwrap();
        run(&mut state, StateCommand::EndScale { stream, epoch: 1 }).unwrap();
        let present = state.graph(&index(name)).unwrap().present().map(|there| (there.segment, 0));
        cuts.insert(name, StreamCut(present.collect()));
    }
    let at = |name: &str| (name.to_owned(), CutKind::At(cuts[name].clone()));
    let all: Vec<_> = names.map(at).into();
    let all: Vec<_> = all.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect();
    let group = || name("g");
    let too_many = |places| Err(GroupError::TooManyPlaces { group: group(), places }.into());
    assert_eq!(create(&mut state, &config("g", &all, GroupRetention::Manual)), too_many(3 * places));
    let open: Vec<_> = names.iter().map(|name| (*name, CutKind::Unbounded)).collect();
    create(&mut state, &config("g", &open, GroupRetention::Manual)).unwrap();
    let report = |state: &mut State, name: &str| {
        let consumed = Consumed { group: group(), generation: 1, index: index(name), cut: cuts[name].clone() };
        ask(state, Command::Report(consumed))
    };
    assert_eq!((report(&mut state, "a"), report(&mut state, "b")), (Ok(1), Ok(1)));
    assert_eq!(report(&mut state, "c"), too_many(3 * places));
    assert_eq!(report(&mut state, "a"), Ok(0), "a repeat is none too many");
}

#[test]
fn groups_have_a_limit() {
    let mut groups = Groups::default();
    for n in 0..GROUPS_MAX {
        let config = plain(&format!("g{n}"));
        groups.apply(&Event::Created { asked: config.clone(), config, generation: 1 }, Timestamp::default());
    }
    let refused = groups.decide(&state(), Command::Create(wanted(&plain("more"))), Timestamp::default());
    assert_eq!(refused, Err(GroupError::TooMany.into()));
    assert_eq!(wire::decode::<Groups>(&wire::encode(&groups)).unwrap(), groups);
}
