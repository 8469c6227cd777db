use std::collections::BTreeSet;

use host::ControlState;
use proptest::prelude::*;
use wire::coordinator::{Lookup, LookupColumn, LookupKind, NewStream, View};

use super::*;
use crate::{Command as StateCommand, Event as StateEvent};

fn installed() -> State {
    let mut state = State::default();
    run(&mut state, StateCommand::Install { container_count: 8 }, 0).unwrap();
    create(&mut state, "shop");
    create(&mut state, "bank");
    state
}

fn run(state: &mut State, command: StateCommand, at: i64) -> Result<Vec<StateEvent>, CoordinatorError> {
    let at = Timestamp::from_millis(at);
    let events = state.decide(command, at)?;
    events.iter().for_each(|event| state.apply(event, at));
    Ok(events)
}

fn create(state: &mut State, index: &str) {
    let new = NewStream::fixed("team".parse().unwrap(), index.parse().unwrap(), 1);
    let begun = run(state, StateCommand::BeginStream(new.clone()), 0).unwrap();
    let [StateEvent::StreamBegun { stream, .. }] = begun[..] else { panic!("{begun:?}") };
    run(state, StateCommand::EndStream { stream, index: new.index }, 0).unwrap();
}

fn delete_index(state: &mut State, index: &str, at: i64) {
    let begun = run(state, StateCommand::BeginDeletion { index: index.parse().unwrap() }, at).unwrap();
    let [StateEvent::StreamDeletionBegun { stream }] = begun[..] else { panic!("{begun:?}") };
    run(state, StateCommand::EndDeletion { stream }, at).unwrap();
}

fn view(text: &str) -> ItemBody {
    ItemBody::View(View { text: text.to_owned(), language: TextLanguage::Sql, title: String::new() })
}

fn saved(text: &str) -> ItemBody {
    let language = TextLanguage::Logql;
    ItemBody::Saved(SavedSearch {
        text: text.to_owned(),
        language,
        title: String::new(),
        from: None,
        to: None,
        columns: Vec::new(),
    })
}

fn lookup(place: UploadPlace) -> ItemBody {
    let columns = vec![LookupColumn { name: "host".to_owned(), kind: LookupKind::Text }];
    ItemBody::Lookup(Lookup { place, digest: "00".to_owned(), bytes: 9, rows: 1, columns, title: String::new() })
}

fn put(state: &mut State, name: &str, body: ItemBody, expected: Expected, at: i64) -> Result<usize, CoordinatorError> {
    let (index, name) = ("shop".parse().unwrap(), name.parse().unwrap());
    let change = ItemChange { index, name, body, expected };
    run(state, StateCommand::Library(Command::Put(change)), at).map(|events| events.len())
}

fn delete(state: &mut State, name: &str, kind: ItemKind, expected: Expected) -> Result<usize, CoordinatorError> {
    let removal = ItemRemoval { index: "shop".parse().unwrap(), name: name.parse().unwrap(), kind, expected };
    run(state, StateCommand::Library(Command::Delete(removal)), 5).map(|events| events.len())
}

fn reserve(state: &mut State, at: i64) -> UploadPlace {
    let reserved = run(state, StateCommand::Library(Command::Reserve("shop".parse().unwrap())), at).unwrap();
    let [StateEvent::Library(Event::Reserved { place })] = reserved[..] else { panic!("{reserved:?}") };
    place
}

fn version(state: &State, name: &str) -> Option<u64> {
    let place = ItemPlace { index: "shop".parse().unwrap(), name: name.parse().unwrap() };
    state.library().describe(state, &place).ok().map(|item| item.version)
}

fn kind_of(error: CoordinatorError) -> String {
    wire::Problem::from(error).kind
}

#[test]
fn a_change_happens_to_the_version_that_it_expects() {
    let mut state = installed();
    assert_eq!(put(&mut state, "errors", view("SELECT 1"), Expected::Absent, 1), Ok(1));
    let first = version(&state, "errors").unwrap();
    assert_eq!(put(&mut state, "errors", view("SELECT 1"), Expected::Absent, 2), Ok(0), "a repeat");
    let refused = put(&mut state, "errors", view("SELECT 2"), Expected::Absent, 2).unwrap_err();
    assert_eq!(kind_of(refused), "ItemChanged");
    assert_eq!(put(&mut state, "errors", view("SELECT 2"), Expected::Version(first), 2), Ok(1));
    let second = version(&state, "errors").unwrap();
    assert!(second > first);
    assert_eq!(put(&mut state, "errors", view("SELECT 2"), Expected::Version(first), 2), Ok(0), "a repeat of that");
    for (expected, kind) in [(Expected::Version(first), ItemKind::View), (Expected::Version(second), ItemKind::Saved)] {
        assert_eq!(kind_of(delete(&mut state, "errors", kind, expected).unwrap_err()), "ItemChanged");
    }
    assert_eq!(delete(&mut state, "errors", ItemKind::Saved, Expected::Any), Ok(0), "no saved search of that name");
    assert_eq!(delete(&mut state, "errors", ItemKind::View, Expected::Version(second)), Ok(1));
    assert_eq!(delete(&mut state, "errors", ItemKind::View, Expected::Any), Ok(0));
    assert_eq!(put(&mut state, "errors", view("SELECT 1"), Expected::Any, 9), Ok(1));
    assert!(version(&state, "errors").unwrap() > second, "versions never return");
}

#[test]
fn rules_are_kept_and_limits_said() {
    let mut state = installed();
    put(&mut state, "taken", view("SELECT 1"), Expected::Any, 1).unwrap();
    let long = "x".repeat(TITLE_BYTES_MAX + 1);
    let titled = ItemBody::View(View { text: "x".to_owned(), language: TextLanguage::Pipe, title: long });
    let logql = ItemBody::View(View { text: "{}".to_owned(), language: TextLanguage::Logql, title: String::new() });
    let foreign = UploadPlace { stream: 0, number: 77 };
    for (name, body, kind) in [
        ("taken", saved("{}"), "ItemKindDiffers"),
        ("v", view(" \n"), "InvalidItem"),
        ("v", view(&"x".repeat(LIBRARY_TEXT_MAX + 1)), "InvalidItem"),
        ("v", titled, "InvalidItem"),
        ("v", logql, "InvalidItem"),
        ("v", lookup(foreign), "UploadExpired"),
    ] {
        assert_eq!(kind_of(put(&mut state, name, body, Expected::Any, 1).unwrap_err()), kind);
    }
    for n in 1..ITEMS_MAX {
        put(&mut state, &format!("v{n}"), saved("{a=\"b\"}"), Expected::Any, 1).unwrap();
    }
    assert_eq!(kind_of(put(&mut state, "more", view("x"), Expected::Any, 1).unwrap_err()), "TooManyItems");
    assert_eq!(put(&mut state, "v1", saved("{c=\"d\"}"), Expected::Any, 1), Ok(1), "a replacement always has room");
    let index: IndexName = "shop".parse().unwrap();
    let after = "v98".parse().unwrap();
    let names: Vec<String> =
        state.library().list((0, &index), None, Some(&after)).map(|i| i.name.to_string()).collect();
    assert_eq!(names, ["v99"]);
    assert_eq!(state.library().list((0, &index), Some(ItemKind::View), None).count(), 1);
}

#[test]
fn a_table_is_collected_when_nothing_names_it() {
    let mut state = installed();
    let delay = Duration::from_secs(10);
    let due = |state: &State, at| state.library().due(Timestamp::from_millis(at), delay);
    let (one, two, never) = (reserve(&mut state, 0), reserve(&mut state, 0), reserve(&mut state, 0));
    put(&mut state, "hosts", lookup(one), Expected::Any, 1).unwrap();
    assert_eq!(put(&mut state, "hosts", lookup(one), Expected::Any, 2), Ok(0), "a repeat");
    put(&mut state, "hosts", lookup(two), Expected::Any, 1_000).unwrap();
    assert_eq!(due(&state, 10_999), []);
    assert_eq!(due(&state, 11_000), [one]);
    let again = put(&mut state, "again", lookup(one), Expected::Any, 1_000).unwrap_err();
    assert_eq!(kind_of(again), "UploadExpired", "what leaves never comes back");
    assert_eq!(run(&mut state, StateCommand::Library(Command::Expire), 599_999).unwrap(), []);
    run(&mut state, StateCommand::Library(Command::Expire), 600_000).unwrap();
    assert_eq!(due(&state, 700_000), [one, never]);
    // What is named is not collected, whoever says so.
    run(&mut state, StateCommand::Library(Command::Collected(vec![one, two, never])), 700_000).unwrap();
    assert_eq!(due(&state, i64::from(i32::MAX)), []);
    assert!(version(&state, "hosts").is_some());
    let open = reserve(&mut state, 800_000);
    delete_index(&mut state, "shop", 900_000);
    assert_eq!(version(&state, "hosts"), None);
    assert_eq!(due(&state, 910_000), [two, open], "with its index goes everything, what is being uploaded too");
    assert_eq!(state.library().count(), 0);
    let bank = StateCommand::Library(Command::Collected(vec![two, open]));
    run(&mut state, bank, 910_000).unwrap();
    assert!(state.library().leaving.is_empty() && state.library().libraries.is_empty());
}

#[test]
fn the_title_of_a_lookup_changes_and_its_table_stays() {
    let mut state = installed();
    let place = reserve(&mut state, 0);
    let titled = |title: &str, digest: &str| match lookup(place) {
        ItemBody::Lookup(of) => ItemBody::Lookup(Lookup { title: title.to_owned(), digest: digest.to_owned(), ..of }),
        other => other,
    };
    put(&mut state, "hosts", titled("Who", "00"), Expected::Any, 1).unwrap();
    let first = version(&state, "hosts");
    assert_eq!(put(&mut state, "hosts", titled("Whose", "00"), Expected::Any, 2), Ok(1));
    assert!(version(&state, "hosts") > first);
    assert_eq!(
        state.library().due(Timestamp::from_millis(i64::from(i32::MAX)), Duration::ZERO),
        [],
        "it is still named"
    );
    for (name, digest) in [("hosts", "01"), ("other", "00")] {
        let refused = put(&mut state, name, titled("Who", digest), Expected::Any, 3).unwrap_err();
        assert_eq!(kind_of(refused), "UploadExpired", "a place holds one table of one lookup");
    }
    assert_eq!(delete(&mut state, "hosts", ItemKind::Lookup, Expected::Any), Ok(1));
    assert_eq!(state.library().due(Timestamp::from_millis(10), Duration::ZERO), [place]);
}

#[test]
fn no_index_closes_the_libraries_of_all() {
    let mut state = installed();
    let large = || view(&"x".repeat(LIBRARY_TEXT_MAX));
    for n in 0..BYTES_MAX / LIBRARY_TEXT_MAX {
        put(&mut state, &format!("v{n}"), large(), Expected::Any, 1).unwrap();
    }
    assert_eq!(kind_of(put(&mut state, "more", view("x"), Expected::Any, 1).unwrap_err()), "TooManyItems");
    assert_eq!(put(&mut state, "v0", view("x"), Expected::Any, 1), Ok(1), "what gets smaller has room");
    assert_eq!(put(&mut state, "more", view("x"), Expected::Any, 1), Ok(1));

    let reserve_in = |state: &mut State, index: &str| {
        run(state, StateCommand::Library(Command::Reserve(index.parse().unwrap())), 1).map(|events| events.len())
    };
    for _ in 0..PLACES_OF_INDEX_MAX {
        assert_eq!(reserve_in(&mut state, "shop"), Ok(1));
    }
    assert_eq!(kind_of(reserve_in(&mut state, "shop").unwrap_err()), "TooManyItems");
    run(&mut state, StateCommand::Library(Command::Expire), 700_000).unwrap();
    assert_eq!(kind_of(reserve_in(&mut state, "shop").unwrap_err()), "TooManyItems", "what leaves counts too");
    assert_eq!(reserve_in(&mut state, "bank"), Ok(1), "others have their own");
}

#[derive(Debug, Clone)]
enum Act {
    Reserve,
    Put(u8, u8),
    View(u8),
    Delete(u8),
    Pass,
    Collect,
    DropIndex,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Reserve),
        6 => (0u8..4, 0u8..8).prop_map(|(name, place)| Act::Put(name, place)),
        1 => (0u8..4).prop_map(Act::View),
        3 => (0u8..4).prop_map(Act::Delete),
        2 => Just(Act::Pass),
        3 => Just(Act::Collect),
        1 => Just(Act::DropIndex),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    /// Every place that was ever given is in one state at a time, and what an item names is in storage.
    #[test]
    fn a_place_is_uploaded_named_leaving_or_gone(acts in acts()) {
        let mut state = installed();
        let (mut stored, mut given) = (BTreeSet::new(), Vec::new());
        let mut now = 0;
        for act in acts {
            now += 1_000;
            match act {
                Act::Reserve => {
                    let place = reserve(&mut state, now);
                    prop_assert!(stored.insert(place), "a place is given once");
                    given.push(place);
                }
                Act::Put(name, place) => {
                    let Some(place) = given.get(usize::from(place)).copied() else { continue };
                    let _refused = put(&mut state, &format!("n{name}"), lookup(place), Expected::Any, now);
                }
                Act::View(name) => {
                    let _refused = put(&mut state, &format!("n{name}"), view("SELECT 1"), Expected::Any, now);
                }
                Act::Delete(name) => {
                    delete(&mut state, &format!("n{name}"), ItemKind::Lookup, Expected::Any).unwrap();
                }
                Act::Pass => now += 300_000,
                Act::Collect => {
                    run(&mut state, StateCommand::Library(Command::Expire), now).unwrap();
                    let due = state.library().due(Timestamp::from_millis(now), Duration::from_secs(60));
                    stored.retain(|place| !due.contains(place));
                    run(&mut state, StateCommand::Library(Command::Collected(due)), now).unwrap();
                }
                Act::DropIndex => {
                    delete_index(&mut state, "shop", now);
                    create(&mut state, "shop");
                    given.clear();
                }
            }
            let of = state.library();
            let uploads = of.libraries.iter().flat_map(|(stream, of)| of.uploads.keys().map(|number| (*stream, *number)));
            let named = of.libraries.values().flat_map(|of| of.items.values()).filter_map(|kept| match &kept.body {
                ItemBody::Lookup(lookup) => Some((lookup.place.stream, lookup.place.number)),
                _ => None,
            });
            let leaving = of.leaving.iter().flat_map(|(stream, of)| of.keys().map(|number| (*stream, *number)));
            let all: Vec<(u32, u64)> = uploads.chain(named).chain(leaving).collect();
            let distinct: BTreeSet<UploadPlace> = all.iter().map(|(stream, number)| UploadPlace { stream: *stream, number: *number }).collect();
            prop_assert_eq!(distinct.len(), all.len(), "one state at a time");
            prop_assert_eq!(&distinct, &stored, "what is in storage is known, and what is known is there");
        }
    }
}
