use super::*;
use host::ControlState;

pub(super) fn id<T: std::str::FromStr<Err = types::Invalid>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn wanted(index: &str) -> Wanted {
    Wanted {
        scope: id("sp"),
        index: id(index),
        backend: "own".into(),
        segment_count: 1,
        retention_days: None,
        options: IndexOptions::default(),
        alerts: Vec::new(),
    }
}

pub(super) fn provision(instance: &str, index: &str, plan: &str) -> Command {
    let request = InstanceRequest {
        service_id: "s".into(),
        plan_id: plan.into(),
        organization_guid: "o".into(),
        space_guid: "sp".into(),
        parameters: "{}".into(),
    };
    let (wanted, seconds_max) = (wanted(index), Some(100));
    let new = NewInstance { request, wanted, identity: None, maintenance: None, context: None, seconds_max };
    Command::Provision { id: id(instance), new: Box::new(new) }
}

pub(super) fn bind(instance: &str, binding: &str, plan: &str) -> Command {
    let request = BindingRequest {
        instance: id(instance),
        service_id: "s".into(),
        plan_id: plan.into(),
        parameters: "{}".into(),
        predecessor: None,
    };
    let new = NewBind { request, role: Role::Admin, ttl_seconds: Some(50), identity: None, seconds_max: Some(100) };
    Command::Bind { id: id(binding), new: Box::new(new) }
}

/// An update that has seen the present operation.
pub(super) fn update(state: &State, instance: &str, plan: &str, days: u32) -> Command {
    let there = state.instance(&id(instance));
    let index = there.map_or("none".to_owned(), |i| i.wanted.index.to_string());
    let to = Change {
        plan_id: plan.into(),
        parameters: format!(r#"{{"retention_days":{days}}}"#),
        maintenance: None,
        context: None,
        wanted: Wanted { retention_days: Some(days), ..wanted(&index) },
    };
    let seen = there.map_or_else(String::new, Instance::seen);
    Command::Update { id: id(instance), seen, to: Box::new(to), identity: None, seconds_max: Some(100) }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

pub(super) fn run_at(state: &mut State, now: Timestamp, command: Command) -> Result<Vec<Event>, BrokerError> {
    let events = state.decide(command, now)?;
    events.iter().for_each(|event| state.apply(event, now));
    Ok(events)
}

pub(super) fn run(state: &mut State, command: Command) -> Result<Vec<Event>, BrokerError> {
    run_at(state, at(1), command)
}

/// What an effect would say at the end of the work that is under way.
pub(super) fn work_of(state: &State, instance: &str) -> Option<String> {
    state.instance(&id(instance)).and_then(|there| work_token(there.phase, &there.operation))
}

pub(super) fn end(state: &mut State, instance: &str, failure: Option<&str>) {
    let token = work_of(state, instance).unwrap();
    run(
        state,
        Command::EndInstance { id: id(instance), token, failure: failure.map(str::to_owned), kind: String::new() },
    )
    .unwrap();
}

pub(super) fn end_binding(state: &mut State, instance: &str, binding: &str) {
    let there = state.binding(&id(instance), &id(binding)).unwrap();
    let token = work_token(there.phase, &there.operation).unwrap();
    run(state, Command::EndBinding { id: id(binding), token, failure: None }).unwrap();
}

pub(super) fn live() -> State {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    end(&mut state, "i", None);
    state
}

#[test]
fn a_repeat_finds_the_instance_and_a_difference_is_refused() {
    let mut state = State::default();
    assert_eq!(run(&mut state, provision("i", "shop", "p")).unwrap().len(), 1);
    for phase in ["beginning", "live"] {
        assert_eq!(run(&mut state, provision("i", "shop", "p")), Ok(vec![]), "{phase}");
        let differs = run(&mut state, provision("i", "shop", "q"));
        assert_eq!(differs, Err(BrokerError::InstanceDiffers(id("i"))), "{phase}");
        let taken = run(&mut state, provision("j", "shop", "p"));
        assert_eq!(taken, Err(BrokerError::IndexNameTaken(id("shop"))), "{phase}");
        if phase == "beginning" {
            end(&mut state, "i", None);
        }
    }
}

/// Nobody asks the alerter about what cannot have rules, and nothing that may have been made is forgotten.
#[test]
fn it_is_known_whether_the_alerter_may_have_rules() {
    let with = |command: Command, count: usize| {
        let rule = |n: usize| DefaultRule {
            name: format!("r{n}"),
            query: String::new(),
            condition: String::new(),
            webhook: None,
            summary: String::new(),
        };
        let rules = || (0..count).map(rule).collect();
        match command {
            Command::Update { id, seen, mut to, identity, seconds_max } => {
                to.wanted.alerts = rules();
                Command::Update { id, seen, to, identity, seconds_max }
            }
            Command::Provision { id, mut new } => {
                new.wanted.alerts = rules();
                Command::Provision { id, new }
            }
            other => other,
        }
    };
    let alerted = |state: &State| state.instance(&id("i")).unwrap().is_alerted();
    let mut state = live();
    assert!(!alerted(&state));
    for (days, rules, failure, (begun, ended)) in [
        (1, 0, None, (false, false)),
        (2, 1, Some("no"), (true, true)),
        (3, 2, None, (true, true)),
        (4, 0, Some("no"), (true, true)),
        (5, 0, None, (true, false)),
    ] {
        let command = with(update(&state, "i", "p", days), rules);
        run(&mut state, command).unwrap();
        assert_eq!(alerted(&state), begun, "{days}");
        end(&mut state, "i", failure);
        assert_eq!(alerted(&state), ended, "{days}");
    }
    // Half an update is undone: what it may have made is gone then.
    let command = with(update(&state, "i", "p", 6), 1);
    run(&mut state, command).unwrap();
    let token = state.instance(&id("i")).unwrap().operation.token.clone();
    end(&mut state, "i", Some("no"));
    run(&mut state, Command::EndRestore { id: id("i"), token }).unwrap();
    assert!(!alerted(&state));
    let mut other = State::default();
    run(&mut other, with(provision("i", "shop", "p"), 1)).unwrap();
    run(&mut other, Command::Deprovision(id("i"))).unwrap();
    assert!(alerted(&other), "the creation may have made some");
}

#[test]
fn deprovisioning_wins_over_provisioning() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    assert_eq!(run(&mut state, Command::Deprovision(id("i"))), Ok(vec![]));
    assert_eq!(run(&mut state, provision("i", "shop", "p")), Err(BrokerError::Busy("i".into())));
    // The late result of the provisioning changes nothing.
    let late = Command::EndInstance { id: id("i"), token: "provision-0".into(), failure: None, kind: String::new() };
    assert_eq!(run(&mut state, late), Ok(vec![]));
    assert_eq!(state.instance(&id("i")).unwrap().phase, Phase::Ending);
    end(&mut state, "i", None);
    assert_eq!(state.instance(&id("i")), None);
    let ended = state.ended_instance(&id("i")).unwrap();
    assert_eq!((ended.operation.token.as_str(), &ended.failure), ("deprovision-1", &None));
    // The id and the name are free again.
    assert_eq!(run(&mut state, provision("i", "shop", "q")).unwrap().len(), 1);
    assert_eq!(state.ended_instance(&id("i")), None);
}

#[test]
fn a_failed_provisioning_leaves_only_its_result() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    end(&mut state, "i", Some("no"));
    assert_eq!(state.instance(&id("i")), None);
    let ended = state.ended_instance(&id("i")).unwrap();
    assert_eq!((ended.operation.kind, ended.failure.as_deref()), (Kind::Provision, Some("no")));
    assert_eq!(run(&mut state, provision("j", "shop", "p")).unwrap().len(), 1);
}

#[test]
fn a_binding_is_compared_before_its_plan_is_checked() {
    let mut state = live();
    assert_eq!(run(&mut state, bind("i", "b", "q")), Err(BrokerError::PlanMismatch(id("i"))));
    assert_eq!(run(&mut state, bind("j", "b", "p")), Err(BrokerError::UnknownInstance(id("j"))));
    assert_eq!(run(&mut state, bind("i", "b", "p")).unwrap().len(), 1);
    assert_eq!(run(&mut state, bind("i", "b", "p")), Ok(vec![]));
    for other in [bind("i", "b", "q"), bind("j", "b", "p")] {
        assert_eq!(run(&mut state, other), Err(BrokerError::BindingDiffers(id("b"))));
    }
    end_binding(&mut state, "i", "b");
    run(&mut state, Command::Unbind(id("i"), id("b"))).unwrap();
    assert_eq!(run(&mut state, bind("i", "b", "p")), Err(BrokerError::Busy("b".into())));
    end_binding(&mut state, "i", "b");
    assert_eq!(state.ended_binding(&id("b")).unwrap().operation.kind, Kind::Unbind);
}

#[test]
fn an_instance_takes_its_bindings_along() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    assert_eq!(run(&mut state, bind("i", "c", "p")), Err(BrokerError::Busy("i".into())));
    end(&mut state, "i", None);
    assert_eq!(state.bindings().count(), 0);
    assert!(state.ended_binding(&id("b")).is_some());
}

#[test]
fn a_binding_belongs_to_its_instance() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    assert_eq!(state.binding(&id("j"), &id("b")), None);
    assert_eq!(run(&mut state, Command::Unbind(id("j"), id("b"))), Ok(vec![]));
}

#[test]
fn the_state_reads_what_it_writes() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    end_binding(&mut state, "i", "b");
    run(&mut state, Command::Unbind(id("i"), id("b"))).unwrap();
    end_binding(&mut state, "i", "b");
    assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state);
}

#[test]
fn an_update_counts_when_it_has_ended() {
    let mut state = live();
    let change = update(&state, "i", "q", 9);
    assert_eq!(run(&mut state, change.clone()).unwrap().len(), 1);
    // The same again is under way already, whatever it has seen; anything else has to wait.
    assert_eq!(run(&mut state, change.clone()), Ok(vec![]));
    let other = update(&state, "i", "q", 10);
    assert_eq!(run(&mut state, other.clone()), Err(BrokerError::Busy("i".into())));
    let there = state.instance(&id("i")).unwrap();
    assert_eq!((there.phase, there.plan_id(), there.wanted.retention_days), (Phase::Updating, "p", None));
    // A repeat of the provisioning is compared with what was asked for at first.
    assert_eq!(run(&mut state, provision("i", "shop", "p")), Ok(vec![]));
    end(&mut state, "i", None);
    let there = state.instance(&id("i")).unwrap();
    assert_eq!((there.phase, there.plan_id(), there.wanted.retention_days), (Phase::Live, "q", Some(9)));
    assert_eq!((there.parameters(), there.restores()), (r#"{"retention_days":9}"#, false));
    assert_eq!(run(&mut state, provision("i", "shop", "p")), Ok(vec![]));
    assert_eq!(run(&mut state, provision("i", "shop", "q")), Err(BrokerError::InstanceDiffers(id("i"))));
    // What was made of an older state would undo what came between.
    assert_eq!(run(&mut state, other), Err(BrokerError::Busy("i".into())));
    let again = update(&state, "i", "q", 9);
    assert_eq!(run(&mut state, again), Ok(vec![]), "it is so already");
    let none = update(&state, "none", "q", 9);
    assert_eq!(run(&mut state, none), Err(BrokerError::UnknownInstance(id("none"))));
}

#[test]
fn a_failed_update_is_undone_and_leaves_the_instance_as_it_was() {
    let mut state = live();
    let change = update(&state, "i", "q", 9);
    run(&mut state, change).unwrap();
    end(&mut state, "i", Some("no"));
    let there = state.instance(&id("i")).unwrap().clone();
    assert_eq!((there.phase, there.plan_id(), there.wanted.retention_days), (Phase::Live, "p", None));
    let token = there.operation.token.clone();
    assert_eq!(there.operation.failure, Some(Failure { reason: "no".into(), repeatable: false, kind: String::new() }));
    assert!(there.restores());
    let restored = Command::EndRestore { id: id("i"), token };
    assert_eq!(run(&mut state, restored.clone()).unwrap().len(), 1);
    assert_eq!(run(&mut state, restored), Ok(vec![]));
    assert!(!state.instance(&id("i")).unwrap().restores());
}

#[test]
fn a_context_changes_without_an_operation() {
    let mut state = live();
    let Command::Update { id: instance, seen, mut to, .. } = update(&state, "i", "p", 1) else { unreachable!() };
    (to.parameters, to.wanted, to.context) = ("{}".into(), wanted("shop"), Some(r#"{"a":1}"#.into()));
    let change = Command::Update { id: instance, seen, to, identity: None, seconds_max: None };
    assert!(matches!(run(&mut state, change.clone()).unwrap()[..], [Event::ContextUpdated { .. }]));
    assert_eq!(run(&mut state, change), Ok(vec![]));
    assert_eq!(state.instance(&id("i")).unwrap().terms.context.as_deref(), Some(r#"{"a":1}"#));
}

#[test]
fn what_takes_too_long_is_given_up() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    run(&mut state, bind("i", "b", "p")).unwrap();
    assert_eq!(run_at(&mut state, at(100), Command::Sweep), Ok(vec![]));
    assert_eq!(run_at(&mut state, at(101), Command::Sweep).unwrap().len(), 3);
    let there = state.instance(&id("i")).unwrap();
    assert_eq!((there.phase, there.operation.ended), (Phase::Ending, true));
    assert!(state.bindings().next().is_none(), "of a binding there is nothing to remove yet");
    assert!(there.operation.failure.as_ref().unwrap().reason.contains("100 s"));
    // The creation that may still be running ends nothing; the removal does.
    let created = Command::EndInstance { id: id("i"), token: "provision-0".into(), failure: None, kind: String::new() };
    assert_eq!(run(&mut state, created), Ok(vec![]));
    end(&mut state, "i", None);
    assert!(state.instance(&id("i")).is_none() && state.bindings().next().is_none());
    let ended = state.ended_instance(&id("i")).unwrap();
    assert_eq!(ended.operation.token, "provision-0");
    assert!(ended.failure.as_ref().unwrap().contains("given up"));
    assert!(state.ended_binding(&id("b")).unwrap().failure.is_some());
    // An update leaves what was there.
    let mut state = live();
    let change = update(&state, "i", "q", 9);
    run(&mut state, change).unwrap();
    assert_eq!(run_at(&mut state, at(101), Command::Sweep).unwrap().len(), 1);
    let there = state.instance(&id("i")).unwrap();
    assert!(there.phase == Phase::Live && there.restores() && there.operation.failure.as_ref().unwrap().repeatable);
}

#[test]
fn a_deletion_of_what_was_given_up_has_its_own_token() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    run_at(&mut state, at(101), Command::Sweep).unwrap();
    assert_eq!(run(&mut state, Command::Deprovision(id("i"))).unwrap().len(), 1);
    assert_eq!(run(&mut state, Command::Deprovision(id("i"))), Ok(vec![]));
    end(&mut state, "i", None);
    let ended = state.ended_instance(&id("i")).unwrap();
    assert_eq!((ended.operation.kind, &ended.failure), (Kind::Deprovision, &None));
}

#[test]
fn a_deletion_that_is_refused_leaves_a_usable_instance() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    end_binding(&mut state, "i", "b");
    let change = update(&state, "i", "q", 9);
    run(&mut state, change).unwrap();
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    end(&mut state, "i", Some("it holds events"));
    let there = state.instance(&id("i")).unwrap();
    assert_eq!((there.phase, there.plan_id(), there.operation.ended), (Phase::Live, "p", true));
    assert!(there.restores(), "half the update may have happened");
    assert_eq!(state.binding(&id("i"), &id("b")).unwrap().phase, Phase::Live);
    assert_eq!(run(&mut state, Command::Deprovision(id("i"))).unwrap().len(), 1);
    // What never could be used is gone all the same.
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    end(&mut state, "i", Some("it holds events"));
    assert_eq!(state.instance(&id("i")), None);
    assert_eq!(state.ended_instance(&id("i")).unwrap().failure, None);
}

#[test]
fn a_binding_whose_instance_is_not_made_yet_ends_at_once() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    for binding in ["b", "c"] {
        run(&mut state, bind("i", binding, "p")).unwrap();
    }
    let unbind = |binding: &str| Command::Unbind(id("i"), id(binding));
    assert_eq!(run(&mut state, unbind("b")).unwrap().len(), 2);
    assert_eq!(state.binding(&id("i"), &id("b")), None);
    let ended = state.ended_binding(&id("b")).unwrap();
    assert_eq!((ended.operation.kind, &ended.failure), (Kind::Unbind, &None));
    // Also while what is not made is being removed; and one that may have credentials is revoked first.
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    assert_eq!(run(&mut state, unbind("c")).unwrap().len(), 2);
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    assert_eq!(run(&mut state, unbind("b")).unwrap().len(), 1);
    assert_eq!(state.binding(&id("i"), &id("b")).unwrap().phase, Phase::Ending);
}

#[test]
fn bindings_that_a_refused_deletion_has_revoked_are_gone() {
    let mut state = live();
    for binding in ["b", "c", "d"] {
        run(&mut state, bind("i", binding, "p")).unwrap();
    }
    ["b", "c"].iter().for_each(|binding| end_binding(&mut state, "i", binding));
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    let lose = || Command::LoseBindings { instance: id("i"), bindings: vec![id("b"), id("d"), id("none")] };
    // One that is still being made has nothing to lose: its credentials are issued when the instance can be used again.
    assert_eq!(run(&mut state, lose()).unwrap().len(), 1);
    assert_eq!(run(&mut state, lose()), Ok(vec![]));
    end(&mut state, "i", Some("it holds events"));
    assert_eq!(state.binding(&id("i"), &id("b")), None);
    assert!(state.ended_binding(&id("b")).unwrap().failure.as_ref().unwrap().contains("bind again"));
    let phase = |binding: &str| state.binding(&id("i"), &id(binding)).unwrap().phase;
    assert_eq!((phase("c"), phase("d")), (Phase::Live, Phase::Beginning));
}

#[test]
fn credentials_of_an_instance_that_ends_are_told_no_more() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    end_binding(&mut state, "i", "b");
    run(&mut state, rotate("c", "b")).unwrap();
    let usable = |state: &State| state.usable_binding(&id("i"), &id("b"), at(1)).is_some();
    assert!(usable(&state));
    assert_eq!(run(&mut state, bind("i", "b", "p")), Ok(vec![]), "a repeat finds it");
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    assert!(!usable(&state));
    for repeat in [bind("i", "b", "p"), rotate("c", "b")] {
        assert_eq!(run(&mut state, repeat), Err(BrokerError::Busy("i".into())));
    }
    // Refused: it is what it was.
    end(&mut state, "i", Some("it holds events"));
    assert!(usable(&state));
    assert_eq!(run(&mut state, bind("i", "b", "p")), Ok(vec![]));
}

#[test]
fn a_binding_waits_for_its_instance_and_fails_with_it() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    assert_eq!(run(&mut state, bind("i", "b", "p")).unwrap().len(), 1);
    end(&mut state, "i", Some("taken"));
    let reason = state.ended_binding(&id("b")).unwrap().failure.clone().unwrap();
    assert!(reason.contains("taken"), "{reason}");
    let mut state = live();
    let change = update(&state, "i", "q", 9);
    run(&mut state, change).unwrap();
    for (binding, plan) in [("b", "p"), ("c", "q")] {
        assert_eq!(run(&mut state, bind("i", binding, plan)).unwrap().len(), 1, "of the old plan or the new one");
    }
    assert_eq!(run(&mut state, bind("i", "d", "r")), Err(BrokerError::PlanMismatch(id("i"))));
}

fn rotate(binding: &str, predecessor: &str) -> Command {
    let (id, instance, predecessor) = (id(binding), id("i"), id(predecessor));
    Command::Rotate { id, instance, predecessor, identity: None, seconds_max: None }
}

#[test]
fn a_rotation_copies_a_live_binding() {
    let mut state = live();
    assert_eq!(run(&mut state, rotate("c", "b")), Err(BrokerError::PredecessorUnusable(id("b"))));
    run(&mut state, bind("i", "b", "p")).unwrap();
    assert_eq!(run(&mut state, rotate("c", "b")), Err(BrokerError::PredecessorUnusable(id("b"))), "it is being made");
    end_binding(&mut state, "i", "b");
    assert_eq!(run(&mut state, rotate("c", "b")).unwrap().len(), 1);
    assert_eq!(run(&mut state, rotate("c", "b")), Ok(vec![]));
    assert_eq!(run(&mut state, rotate("c", "x")), Err(BrokerError::BindingDiffers(id("c"))));
    assert_eq!(run(&mut state, bind("i", "c", "p")), Err(BrokerError::BindingDiffers(id("c"))));
    assert_eq!(run(&mut state, rotate("b", "b")), Err(BrokerError::BindingDiffers(id("b"))));
    let (old, new) = (state.bindings[&id::<BindingId>("b")].clone(), state.bindings[&id::<BindingId>("c")].clone());
    assert_eq!(
        (new.role, new.ttl_seconds, &new.request.parameters),
        (old.role, old.ttl_seconds, &old.request.parameters)
    );
    assert_eq!(old.phase, Phase::Live, "both are valid");
    // One that is over is no predecessor, even before it is ended.
    assert_eq!(run_at(&mut state, at(51), rotate("d", "b")), Err(BrokerError::PredecessorUnusable(id("b"))));
}

#[test]
fn a_binding_ends_by_itself() {
    let mut state = live();
    run(&mut state, bind("i", "b", "p")).unwrap();
    end_binding(&mut state, "i", "b");
    assert_eq!(state.bindings[&id::<BindingId>("b")].expires(), Some(at(51)));
    assert_eq!(run_at(&mut state, at(50), Command::Sweep), Ok(vec![]));
    assert_eq!(run_at(&mut state, at(51), bind("i", "b", "p")), Err(BrokerError::Busy("b".into())));
    let swept = run_at(&mut state, at(51), Command::Sweep).unwrap();
    assert!(matches!(swept[..], [Event::UnbindBegun { .. }]));
    assert_eq!(run_at(&mut state, at(52), Command::Sweep), Ok(vec![]));
    end_binding(&mut state, "i", "b");
    assert_eq!(state.ended_binding(&id("b")).unwrap().operation.kind, Kind::Unbind);
}

/// As the first version wrote them; they must be read for ever.
#[test]
fn the_first_events_still_read() {
    let old = r#"[
        {"ProvisionBegun":{"id":"i","number":0,"request":{"service_id":"s","plan_id":"p","organization_guid":"o",
            "space_guid":"sp","parameters":"{}"},"wanted":{"scope":"sp","index":"shop","backend":"own","segment_count":1,
            "retention_days":7},"identity":null}},
        {"InstanceEnded":{"id":"i","failure":null}},
        {"BindBegun":{"id":"b","number":1,"request":{"instance":"i","service_id":"s","plan_id":"p","parameters":"{}"},
            "role":"write","ttl_seconds":null,"identity":null}},
        {"BindingEnded":{"id":"b","failure":null}},
        {"UnbindBegun":{"id":"b","number":2}},
        {"DeprovisionBegun":{"id":"i","number":3}}
    ]"#;
    let events: Vec<Event> = serde_json::from_str(old).unwrap();
    let mut state = State::default();
    events.iter().for_each(|event| state.apply(event, at(1)));
    let there = state.instance(&id("i")).unwrap();
    assert_eq!((there.phase, there.wanted.retention_days, &there.terms), (Phase::Ending, Some(7), &Terms::default()));
    assert_eq!(there.operation.token, "deprovision-3");
    // As the journal has them.
    let read: Vec<Event> = wire::decode(&wire::encode(&events)).unwrap();
    assert_eq!(read, events);
}
