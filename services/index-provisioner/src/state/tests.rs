use super::*;
use host::ControlState;
use proptest::prelude::*;
use wire::{
    index_provisioner::{IndexOptions, Reclaim},
    views::Role,
};

fn index(instance: &str, name: &str, segment_count: u16) -> Command {
    let (instance, scope) = (instance.parse().unwrap(), "team".parse().unwrap());
    let new = NewIndex {
        instance,
        scope,
        index: None,
        backend: OWN.into(),
        segment_count,
        retention_days: None,
        options: IndexOptions::default(),
        order: 0,
    };
    Command::BeginIndex { new, index: name.parse().unwrap() }
}

fn binding(instance: &str, binding: &str, role: Role, ttl_seconds: Option<u64>, issued: Timestamp) -> Command {
    let new = NewBinding { instance: instance.parse().unwrap(), binding: binding.parse().unwrap(), role, ttl_seconds };
    Command::BeginBinding { new, issued, public_key: format!("U-{binding}-{}", issued.nanos()) }
}

fn change(instance: &str, days: u32) -> Command {
    let options = IndexOptions { reclaim: Reclaim::Retain, adopt: true, ..IndexOptions::default() };
    Command::BeginUpdate(IndexChange {
        instance: instance.parse().unwrap(),
        retention_days: Some(days),
        options,
        order: 0,
    })
}

fn run(state: &mut State, seconds: i64, command: Command) -> Result<Vec<Event>, ProvisionerError> {
    let at = Timestamp::from_millis(seconds * 1000);
    let events = state.decide(command, at)?;
    events.iter().for_each(|event| state.apply(event, at));
    Ok(events)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn live() -> State {
    let mut state = State::default();
    run(&mut state, 1, index("i", "shop", 2)).unwrap();
    run(&mut state, 2, Command::EndIndex("i".parse().unwrap())).unwrap();
    state
}

fn bound(ttl_seconds: Option<u64>) -> State {
    let mut state = live();
    run(&mut state, 3, binding("i", "b", Role::Write, ttl_seconds, at(3))).unwrap();
    run(&mut state, 3, Command::EndBinding("b".parse().unwrap())).unwrap();
    state
}

#[test]
fn an_index_is_begun_once_and_compared_afterwards() {
    let mut state = live();
    for (command, expected) in [
        (index("i", "shop", 2), Ok(vec![])),
        (index("i", "shop", 3), Err(ProvisionerError::InstanceDiffers("i".parse().unwrap()))),
        (index("i", "other", 2), Err(ProvisionerError::InstanceDiffers("i".parse().unwrap()))),
        (index("j", "shop", 2), Err(ProvisionerError::IndexNameTaken("shop".parse().unwrap()))),
        (index("j", "other", 65), Err(ProvisionerError::SegmentCount(65))),
        (index("j", "other", 0), Err(ProvisionerError::SegmentCount(0))),
    ] {
        assert_eq!(run(&mut state, 4, command.clone()), expected, "{command:?}");
    }
}

/// Of a broker that leads no more: it stood still before it sent what it had begun.
#[test]
fn what_comes_late_is_refused() {
    let create = |order: u64, days: Option<u32>| {
        let Command::BeginIndex { new, index } = index("i", "shop", 2) else { panic!() };
        Command::BeginIndex { new: NewIndex { order, retention_days: days, ..new }, index }
    };
    let update = |order: u64, days: u32| {
        let Command::BeginUpdate(to) = change("i", days) else { panic!() };
        Command::BeginUpdate(IndexChange { order, ..to })
    };
    let id = || -> InstanceId { "i".parse().unwrap() };
    let (delete, gone) = (|order| Command::BeginDeletion(id(), order), || Command::EndDeletion(id()));
    let late = || Err(ProvisionerError::Superseded(id()));
    let mut state = State::default();
    assert_eq!(run(&mut state, 1, create(3, None)).unwrap().len(), 2);
    run(&mut state, 1, Command::EndIndex(id())).unwrap();
    assert_eq!(run(&mut state, 1, create(3, None)), Ok(vec![]), "a repeat is none");
    // A change that nobody knows of was given up, and what was there is wanted again: the change must not come behind it.
    let same = IndexChange { instance: id(), retention_days: None, options: IndexOptions::default(), order: 6 };
    let ordered = |order| Ok(vec![Event::Ordered { instance: id(), order }]);
    assert_eq!(run(&mut state, 2, Command::BeginUpdate(same)), ordered(6));
    assert_eq!(run(&mut state, 2, update(5, 9)), late());
    // Deleted and made anew: the deletion does not come twice, nor the creation.
    run(&mut state, 3, delete(7)).unwrap();
    run(&mut state, 3, gone()).unwrap();
    assert_eq!(run(&mut state, 3, create(3, None)), late());
    run(&mut state, 4, create(9, Some(5))).unwrap();
    assert_eq!(run(&mut state, 4, delete(7)), late());
    // A deletion of what never was is remembered too; and whoever does not count is not held up.
    run(&mut state, 5, delete(0)).unwrap();
    run(&mut state, 5, gone()).unwrap();
    assert_eq!(run(&mut state, 5, delete(12)), ordered(12));
    assert_eq!(run(&mut state, 5, create(11, None)), late());
    let age = i64::try_from(order::ORDER_AGE.as_secs()).unwrap();
    assert_eq!(run(&mut state, 5 + age, create(1, None)).unwrap().len(), 2, "after an hour it is forgotten");
}

#[test]
fn an_abandoned_index_frees_its_name() {
    let mut state = State::default();
    run(&mut state, 1, index("i", "shop", 2)).unwrap();
    run(&mut state, 2, Command::AbandonIndex("i".parse().unwrap())).unwrap();
    assert_eq!(run(&mut state, 3, index("j", "shop", 2)).unwrap().len(), 1);
    // What lives is never abandoned.
    assert_eq!(run(&mut live(), 3, Command::AbandonIndex("i".parse().unwrap())), Ok(vec![]));
}

#[test]
fn a_binding_is_begun_once_and_compared_afterwards() {
    let mut state = bound(None);
    let differs = || Err(ProvisionerError::BindingDiffers("b".parse().unwrap()));
    for (command, expected) in [
        (binding("i", "b", Role::Write, None, at(9)), Ok(vec![])),
        (binding("i", "b", Role::Read, None, at(9)), differs()),
        (binding("i", "b", Role::Write, Some(5), at(9)), differs()),
        (binding("j", "b", Role::Write, None, at(9)), differs()),
        (binding("j", "c", Role::Write, None, at(9)), Err(ProvisionerError::UnknownInstance("j".parse().unwrap()))),
        (binding("i", "c", Role::Write, Some(0), at(9)), Err(ProvisionerError::TtlSeconds(0))),
    ] {
        assert_eq!(run(&mut state, 9, command.clone()), expected, "{command:?}");
    }
    // A repeat does not change what the secrets are derived from.
    assert_eq!(state.binding(&"b".parse().unwrap()).unwrap().description.created, at(3));
}

#[test]
fn a_revoked_key_is_kept_until_its_token_would_have_ended() {
    let mut state = bound(Some(10));
    run(&mut state, 5, Command::BeginRevocation("b".parse().unwrap())).unwrap();
    assert_eq!(state.revocations(), vec![("U-b-3000000000".into(), at(5))]);
    let again = run(&mut state, 5, binding("i", "b", Role::Write, Some(10), at(5)));
    assert_eq!(again, Err(ProvisionerError::BeingRevoked("b".parse().unwrap())));
    assert_eq!(run(&mut state, 6, Command::BeginRevocation("b".parse().unwrap())), Ok(vec![]));
    run(&mut state, 6, Command::EndRevocations(vec!["b".parse().unwrap()])).unwrap();
    assert_eq!(state.binding(&"b".parse().unwrap()), None);
    assert_eq!(run(&mut state, 12, Command::Sweep), Ok(vec![]));
    run(&mut state, 13, Command::Sweep).unwrap();
    assert!(state.revocations().is_empty());
}

#[test]
fn a_binding_ends_by_itself() {
    let mut state = bound(Some(10));
    assert_eq!(run(&mut state, 12, Command::Sweep), Ok(vec![]));
    let events = run(&mut state, 13, Command::Sweep).unwrap();
    assert_eq!(events, vec![Event::RevocationBegun("b".parse().unwrap())]);
}

#[test]
fn deleting_an_index_revokes_its_bindings() {
    let mut state = bound(None);
    run(&mut state, 4, binding("i", "c", Role::Read, None, at(4))).unwrap();
    run(&mut state, 5, Command::BeginDeletion("i".parse().unwrap(), 0)).unwrap();
    assert_eq!(state.revocations().len(), 2);
    assert!(state.bindings().all(|b| b.phase == BindingPhase::Revoking));
    let late = run(&mut state, 5, binding("i", "d", Role::Read, None, at(5)));
    assert_eq!(late, Err(ProvisionerError::NotReady("i".parse().unwrap())));
    assert_eq!(run(&mut state, 5, Command::BeginDeletion("i".parse().unwrap(), 0)), Ok(vec![]));
    run(&mut state, 6, Command::EndDeletion("i".parse().unwrap())).unwrap();
    assert_eq!((state.indexes().count(), state.bindings().count(), state.revocations().len()), (0, 0, 2));
}

#[test]
fn a_change_is_begun_once_and_shows_when_it_is_made() {
    let (i, mut state) = ("i".parse::<InstanceId>().unwrap(), bound(None));
    let days = |state: &State| state.index(&i).unwrap().description.retention_days;
    assert_eq!(run(&mut state, 4, change("j", 5)), Err(ProvisionerError::UnknownInstance("j".parse().unwrap())));
    assert_eq!(run(&mut state, 4, change("i", 5)).unwrap().len(), 1);
    assert_eq!((days(&state), state.index(&i).unwrap().wanted().retention_days), (None, Some(5)));
    assert_eq!(run(&mut state, 5, change("i", 5)), Ok(vec![]), "a repeat goes on with it");
    assert_eq!(run(&mut state, 5, change("i", 6)), Err(ProvisionerError::BeingUpdated(i.clone())));
    // It can be used meanwhile.
    run(&mut state, 5, binding("i", "c", Role::Read, None, at(5))).unwrap();
    run(&mut state, 6, Command::EndUpdate(i.clone())).unwrap();
    assert_eq!(days(&state), Some(5));
    assert!(!state.index(&i).unwrap().description.options.adopt, "adoption is of the beginning");
    assert_eq!(run(&mut state, 7, change("i", 5)), Ok(vec![]));
    run(&mut state, 8, change("i", 6)).unwrap();
    run(&mut state, 9, Command::AbandonUpdate(i.clone())).unwrap();
    assert_eq!((days(&state), state.index(&i).unwrap().update.clone()), (Some(5), None));
    for late in [Command::EndUpdate(i.clone()), Command::AbandonUpdate(i.clone())] {
        assert_eq!(run(&mut state, 9, late), Ok(vec![]));
    }
    run(&mut state, 10, Command::BeginDeletion(i.clone(), 0)).unwrap();
    assert_eq!(run(&mut state, 10, change("i", 7)), Err(ProvisionerError::NotReady(i)));
}

#[test]
fn a_deletion_that_met_events_leaves_the_index_without_bindings() {
    let (i, mut state) = ("i".parse::<InstanceId>().unwrap(), bound(None));
    run(&mut state, 4, change("i", 5)).unwrap();
    run(&mut state, 5, Command::BeginDeletion(i.clone(), 0)).unwrap();
    run(&mut state, 6, Command::AbandonDeletion(i.clone())).unwrap();
    assert_eq!(state.index(&i).unwrap().phase, Phase::Live);
    assert_eq!((state.bindings().count(), state.revocations().len()), (0, 1), "a revoked key stays revoked");
    assert!(state.index(&i).unwrap().update.is_some(), "the change goes on");
    assert_eq!(run(&mut state, 7, Command::AbandonDeletion(i.clone())), Ok(vec![]));
    // What never could be used goes in any case.
    let mut state = State::default();
    run(&mut state, 1, index("i", "shop", 2)).unwrap();
    run(&mut state, 2, Command::BeginDeletion(i.clone(), 0)).unwrap();
    assert_eq!(run(&mut state, 3, Command::AbandonDeletion(i)), Ok(vec![]));
}

/// The goal is 10 000 instances with 20 000 bindings; all of them may be revoked one day, and the servers take 8 MB.
#[test]
fn twenty_thousand_bindings_fit_and_their_revocations_reach_the_servers() {
    let mut state = live();
    for number in 0..20_000 {
        run(&mut state, 3, binding("i", &format!("b{number}"), Role::Write, None, at(3))).unwrap();
    }
    let ring = bus::keys::Keyring::generate(at(1)).unwrap();
    let bytes = |count: usize| {
        let revocations = (0..count).map(|n| (format!("U{n:055}"), at(1_700_000_000))).collect();
        let account = bus::keys::public_key(&ring.tenants_seed).unwrap();
        let spec = bus::keys::AccountSpec::tenants(account, 256, revocations);
        bus::keys::account_jwt(&spec, &ring.operator_seed, at(1_700_000_000)).unwrap().len()
    };
    let (none, some) = (bytes(0), bytes(1_000));
    let all = none + (some - none) * KEYS_MAX / 1_000;
    assert!(all < 6_000_000, "{all} bytes");
}

#[test]
fn listings_go_on_behind_what_they_showed_last() {
    let mut state = live();
    for name in ["a", "c", "b"] {
        run(&mut state, 3, binding("i", name, Role::Read, None, at(3))).unwrap();
    }
    let names = |after: Option<&str>| -> Vec<String> {
        let after = after.map(|id| id.parse().unwrap());
        state.bindings_behind(after.as_ref()).map(|b| b.description.binding.to_string()).collect()
    };
    assert_eq!(
        (names(None), names(Some("a"))),
        (vec!["a".into(), "b".into(), "c".into()], vec!["b".into(), "c".into()])
    );
    assert_eq!(names(Some("bb")), ["c"], "behind one that is gone by now");
    assert_eq!(state.indexes_behind(Some(&"i".parse().unwrap())).count(), 0);
    assert_eq!(state.indexes_behind(None).count(), 1);
}

#[test]
fn bindings_without_a_user_revoke_no_key() {
    let mut state = live();
    let Command::BeginBinding { new, issued, .. } = binding("i", "b", Role::Write, None, at(3)) else { panic!() };
    run(&mut state, 3, Command::BeginBinding { new, issued, public_key: String::new() }).unwrap();
    run(&mut state, 4, Command::BeginRevocation("b".parse().unwrap())).unwrap();
    assert!(state.revocations().is_empty());
}

#[test]
fn options_have_bounds() {
    let with = |retention_days, options| {
        let Command::BeginIndex { new, index } = index("i", "shop", 1) else { panic!() };
        Command::BeginIndex { new: NewIndex { retention_days, options, ..new }, index }
    };
    let backend = |entries: usize, chars: usize| IndexOptions {
        backend: (0..entries).map(|n| (format!("k{n}"), "ä".repeat(chars))).collect(),
        ..IndexOptions::default()
    };
    let bytes = |bytes_max| IndexOptions { bytes_max, ..IndexOptions::default() };
    for (days, options, fits) in [
        (Some(1), bytes(Some(1)), true),
        (Some(0), bytes(None), false),
        (None, bytes(Some(0)), false),
        (None, backend(16, 255), true),
        (None, backend(17, 1), false),
        (None, backend(1, 256), false),
    ] {
        let decided = State::default().decide(with(days, options.clone()), at(1));
        assert_eq!(decided.is_ok(), fits, "{days:?} {options:?}");
    }
}

#[test]
fn an_index_is_archived_into_a_bucket_of_its_own_scope_that_stays_as_long() {
    let wanted = |instance: &str, name: &str, backend: &str, scope: &str, archive: Option<&str>| {
        let Command::BeginIndex { new, index } = index(instance, name, 1) else { panic!() };
        let options = IndexOptions { archive_to: archive.map(|a| a.parse().unwrap()), ..IndexOptions::default() };
        let new = NewIndex { backend: backend.into(), scope: scope.parse().unwrap(), options, ..new };
        Command::BeginIndex { new, index }
    };
    let end = |instance: &str| Command::EndIndex(instance.parse().unwrap());
    let delete = |instance: &str| Command::BeginDeletion(instance.parse().unwrap(), 0);
    let mut state = State::default();
    let create = |state: &mut State, command: Command, instance: &str| {
        run(state, 1, command).unwrap();
        run(state, 1, end(instance)).unwrap();
    };
    create(&mut state, wanted("s1", "theirs", "s3", "other", None), "s1");
    create(&mut state, wanted("o1", "plain", "own", "team", None), "o1");
    run(&mut state, 1, wanted("s2", "cold", "s3", "team", None)).unwrap();
    let missing = |archive: &str| ProvisionerError::NoArchive {
        archive: archive.parse().unwrap(),
        scope: "team".parse().unwrap(),
    };
    for archive in ["nowhere", "theirs", "plain", "cold"] {
        let refused = run(&mut state, 2, wanted("i", "shop", "own", "team", Some(archive)));
        assert_eq!(refused, Err(missing(archive)), "not there, another scope's, no bucket, and one that is being made");
    }
    run(&mut state, 2, end("s2")).unwrap();
    let splunk = run(&mut state, 2, wanted("i", "shop", "splunk", "team", Some("cold")));
    assert_eq!(splunk, Err(ProvisionerError::NotArchivable("splunk".into())));
    create(&mut state, wanted("i", "shop", "own", "team", Some("cold")), "i");
    // As an update, and away again.
    let to = |archive: Option<&str>| {
        let options = IndexOptions { archive_to: archive.map(|a| a.parse().unwrap()), ..IndexOptions::default() };
        Command::BeginUpdate(IndexChange { instance: "o1".parse().unwrap(), retention_days: None, options, order: 0 })
    };
    let done = || Command::EndUpdate("o1".parse().unwrap());
    assert_eq!(run(&mut state, 3, to(Some("theirs"))), Err(missing("theirs")));
    run(&mut state, 3, to(Some("cold"))).unwrap();
    let in_use =
        |users: &str| Err(ProvisionerError::ArchiveInUse { archive: "cold".parse().unwrap(), users: users.to_owned() });
    assert_eq!(run(&mut state, 3, delete("s2")), in_use("shop, plain"), "one that is on its way counts too");
    run(&mut state, 3, done()).unwrap();
    assert_eq!(run(&mut state, 4, delete("s2")), in_use("shop, plain"));
    run(&mut state, 4, to(None)).unwrap();
    assert_eq!(run(&mut state, 4, delete("s2")), in_use("shop, plain"), "chunks go there until it has ended");
    run(&mut state, 4, done()).unwrap();
    run(&mut state, 5, delete("i")).unwrap();
    assert_eq!(run(&mut state, 5, delete("s2")), in_use("shop"));
    run(&mut state, 5, Command::EndDeletion("i".parse().unwrap())).unwrap();
    assert_eq!(run(&mut state, 5, delete("s2")).unwrap().len(), 1);
    assert_eq!(run(&mut state, 6, delete("s2")), Ok(vec![]), "a repeat changes nothing");
    assert_eq!(run(&mut state, 6, to(Some("cold"))), Err(missing("cold")));
}

/// Written before indexes had options, changes or other back-ends; it must replay for ever.
#[test]
fn the_first_journal_still_replays() {
    let old = |event: &[(&str, &str)]| event.iter().map(|(k, v)| format!(r#""{k}":{v}"#)).collect::<Vec<_>>().join(",");
    let description = old(&[
        ("instance", r#""i""#),
        ("scope", r#""team""#),
        ("index", r#""shop""#),
        ("backend", r#""own""#),
        ("segment_count", "2"),
        ("retention_days", "7"),
        ("created", "5"),
    ]);
    let events = [
        format!(r#"{{"IndexBegun":{{{description}}}}}"#),
        r#"{"IndexCreated":"i"}"#.to_owned(),
        r#"{"BindingBegun":{"description":{"binding":"b","instance":"i","index":"shop","role":"write","created":6,"expires":null},
            "ttl_seconds":null,"public_key":"U"}}"#
            .to_owned(),
        r#"{"BindingIssued":"b"}"#.to_owned(),
    ];
    let mut state = State::default();
    for event in events {
        let event: Event = serde_json::from_str(&event).unwrap();
        state.apply(&event, at(1));
    }
    let index = state.index(&"i".parse().unwrap()).unwrap();
    assert_eq!(
        (index.phase, index.was_live, &index.description.options),
        (Phase::Live, true, &IndexOptions::default())
    );
    // A snapshot of that time knows neither changes nor whether an index could ever be used.
    let snapshot = format!(
        r#"{{"indexes":{{"i":{{"description":{{{description}}},"phase":"Live"}}}},"by_index":{{"shop":"i"}},"bindings":{{}},"revocations":{{}}}}"#
    );
    let restored: State = serde_json::from_str(&snapshot).unwrap();
    let there = restored.index(&"i".parse().unwrap()).unwrap();
    assert_eq!((there.was_live, &there.update), (true, &None));
}

#[test]
fn the_state_reads_what_it_writes() {
    let mut state = bound(Some(10));
    run(&mut state, 4, change("i", 5)).unwrap();
    run(&mut state, 5, Command::BeginRevocation("b".parse().unwrap())).unwrap();
    assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state);
}

proptest! {
    #[test]
    fn names_belong_to_one_instance_and_keys_to_one_binding(
        steps in prop::collection::vec((0u8..13, 0u8..3, 0u8..3, prop::option::of(1u64..20)), 1..80),
    ) {
        let mut state = State::default();
        for (seconds, (kind, a, b, ttl)) in (1i64..).zip(steps) {
            let (instance, bound) = (format!("i{a}"), format!("b{b}"));
            let (i, bind): (InstanceId, BindingId) = (instance.parse().unwrap(), bound.parse().unwrap());
            let revoked = state.revocations();
            let command = match kind {
                0 => index(&instance, &format!("n{b}"), 1),
                1 => Command::EndIndex(i),
                2 => Command::AbandonIndex(i),
                3 => Command::BeginDeletion(i, 0),
                4 => Command::EndDeletion(i),
                5 => binding(&instance, &bound, Role::Admin, ttl, at(seconds)),
                6 => Command::EndBinding(bind),
                7 => Command::BeginRevocation(bind),
                8 => Command::EndRevocations(vec![bind]),
                9 => change(&instance, u32::from(b) + 1),
                10 => Command::EndUpdate(i),
                11 => Command::AbandonUpdate(i),
                _ => Command::AbandonDeletion(i),
            };
            // A refusal is fine; a panic or a broken rule is not.
            run(&mut state, seconds, command).ok();
            for (name, instance) in &state.by_index {
                prop_assert_eq!(&state.indexes[instance].description.index, name);
            }
            prop_assert_eq!(state.by_index.len(), state.indexes.len());
            for index in state.indexes() {
                prop_assert!(index.was_live || (index.phase != Phase::Live && index.update.is_none()));
                let (is, wanted) = (&index.description, index.wanted());
                prop_assert_eq!((&is.instance, &is.index, &is.scope), (&wanted.instance, &wanted.index, &wanted.scope));
                // Nobody is let in before or after.
                let usable = index.phase == Phase::Live;
                let in_use = |b: &Binding| b.phase != BindingPhase::Revoking;
                prop_assert!(usable || !state.bindings_of(&is.instance).any(in_use));
            }
            for b in state.bindings() {
                prop_assert!(state.indexes.contains_key(&b.description.instance));
                let is_revoked = state.revocations.contains_key(&b.public_key);
                prop_assert_eq!(is_revoked, b.phase == BindingPhase::Revoking);
            }
            prop_assert!(revoked.iter().all(|(key, _)| state.revocations.contains_key(key)));
        }
    }
}
