//! Every history that commands can make keeps the rules.

use std::collections::BTreeSet;

use host::ControlState;
use proptest::prelude::*;

use super::{tests::*, *};

/// A command, on which of three instances and bindings, whether work fails, and how many seconds later.
type Step = (u8, u8, u8, bool, i64);

fn command(state: &State, (kind, a, b, fails, _): Step) -> Option<Command> {
    let (instance, binding) = (format!("i{a}"), format!("b{b}"));
    let failure = fails.then(|| "no".to_owned());
    Some(match kind {
        0 | 1 => provision(&instance, &format!("n{b}"), "p"),
        2 => bind(&instance, &binding, if fails { "q" } else { "p" }),
        3 => Command::Deprovision(id(&instance)),
        4 => Command::Unbind(id(&instance), id(&binding)),
        5..=7 => {
            Command::EndInstance { id: id(&instance), token: work_of(state, &instance)?, failure, kind: String::new() }
        }
        8 | 9 => {
            let there = state.bindings.get(&id::<BindingId>(&binding))?;
            let token = work_token(there.phase, &there.operation)?;
            // What ends never fails: it is repeated until it succeeds.
            let failure = failure.filter(|_| there.phase == Phase::Beginning);
            Command::EndBinding { id: id(&binding), token, failure }
        }
        10 => update(state, &instance, if fails { "q" } else { "p" }, u32::from(b)),
        11 => {
            let token = state.instance(&id(&instance))?.operation.token.clone();
            Command::EndRestore { id: id(&instance), token }
        }
        12 => {
            let (id, instance, predecessor) = (id(&binding), id(&instance), id(&format!("b{}", (b + 1) % 3)));
            Command::Rotate { id, instance, predecessor, identity: None, seconds_max: Some(100) }
        }
        // An end that comes late: of an operation that may be over.
        13 => Command::EndInstance { id: id(&instance), token: format!("provision-{b}"), failure, kind: String::new() },
        14 => Command::Retry(id(&instance)),
        15 => Command::Abandon { id: id(&instance), force: fails },
        16 => Command::LoseBindings { instance: id(&instance), bindings: vec![id(&binding)] },
        _ => Command::Sweep,
    })
}

fn number(event: &Event) -> Option<u64> {
    match event {
        Event::ProvisionBegun { number, .. }
        | Event::UpdateBegun { number, .. }
        | Event::BindBegun { number, .. }
        | Event::DeprovisionBegun { number, .. }
        | Event::UnbindBegun { number, .. } => Some(*number),
        _ => None,
    }
}

fn check_instances(state: &State) {
    assert_eq!(state.by_index.len(), state.instances.len());
    for (id, there) in &state.instances {
        assert_eq!(&state.by_index[&there.wanted.index], id, "a name belongs to one instance");
        assert!(state.ended_instance(id).is_none(), "what is there has not ended");
        // One operation at a time, and what is under way is what the phase says.
        let kind = there.operation.kind;
        match there.phase {
            Phase::Beginning => assert!(kind == Kind::Provision && !there.operation.ended),
            Phase::Updating => assert!(kind == Kind::Update && !there.operation.ended),
            Phase::Live => assert!(there.operation.ended),
            Phase::Ending => assert!(
                (kind == Kind::Deprovision && !there.operation.ended)
                    || (kind == Kind::Provision && there.operation.failure.is_some())
            ),
        }
        assert_eq!(there.change.is_some(), there.phase == Phase::Updating);
        assert!(!there.unmade || matches!(there.phase, Phase::Beginning | Phase::Ending), "what can be used was made");
    }
}

fn check_bindings(state: &State) {
    for (id, there) in &state.bindings {
        assert!(state.instances.contains_key(&there.request.instance), "no binding outlives its instance");
        assert!(state.ended_binding(id).is_none(), "what is there has not ended");
        let kind = there.operation.kind;
        match there.phase {
            Phase::Beginning => assert!(kind == Kind::Bind && !there.operation.ended),
            Phase::Live => assert!(kind == Kind::Bind && there.operation.ended && there.operation.failure.is_none()),
            Phase::Ending => assert!(
                (kind == Kind::Unbind && !there.operation.ended)
                    || (kind == Kind::Bind && there.operation.failure.is_some())
            ),
            Phase::Updating => panic!("bindings are not updated"),
        }
    }
}

/// Once a deletion is asked for, only its own end brings the instance back, and only as it was.
fn check_deletion(before: &State, after: &State, events: &[Event]) {
    for (id, there) in before.instances.iter().filter(|(_, i)| i.operation.kind == Kind::Deprovision) {
        if there.phase != Phase::Ending {
            continue;
        }
        match after.instance(id) {
            None => {}
            Some(now) if now.phase == Phase::Ending => assert_eq!(now.operation, there.operation),
            Some(now) => {
                let refused = |e: &Event| matches!(e, Event::InstanceEnded { id: i, failure: Some(_), .. } if i == id);
                assert!(events.iter().any(refused) && now.phase == Phase::Live);
                assert_eq!((now.plan_id(), &now.wanted), (there.plan_id(), &there.wanted));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_history_keeps_the_rules(
        steps in prop::collection::vec((0u8..18, 0u8..3, 0u8..3, any::<bool>(), 0i64..30), 1..80),
    ) {
        let mut state = State::default();
        let (mut numbers, mut journal, mut now) = (BTreeSet::new(), Vec::new(), at(0));
        for step in steps {
            now = now + Duration::from_secs(step.4.unsigned_abs());
            let Some(command) = command(&state, step) else { continue };
            let before = state.clone();
            let events = match run_at(&mut state, now, command) {
                Ok(events) => events,
                Err(_) => {
                    prop_assert_eq!(&state, &before, "a refusal changes nothing");
                    continue;
                }
            };
            for number in events.iter().filter_map(number) {
                prop_assert!(numbers.insert(number), "operation {} stands twice", number);
            }
            check_instances(&state);
            check_bindings(&state);
            check_deletion(&before, &state, &events);
            journal.extend(events.into_iter().map(|event| (event, now)));
        }
        let stored: Vec<(Event, Timestamp)> = wire::decode(&wire::encode(&journal)).unwrap();
        let mut replayed = State::default();
        stored.iter().for_each(|(event, at)| replayed.apply(event, *at));
        prop_assert_eq!(&replayed, &state, "a replay gives the same state");
        prop_assert_eq!(wire::decode::<State>(&wire::encode(&state)).unwrap(), state, "and so does the stored state");
    }
}
