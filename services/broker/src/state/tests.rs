use super::*;
use host::ControlState;
use proptest::prelude::*;

fn id<T: std::str::FromStr<Err = types::Invalid>>(text: &str) -> T {
    text.parse().unwrap()
}

fn provision(instance: &str, index: &str, plan: &str) -> Command {
    let request = InstanceRequest {
        service_id: "s".into(),
        plan_id: plan.into(),
        organization_guid: "o".into(),
        space_guid: "sp".into(),
        parameters: "{}".into(),
    };
    let wanted =
        Wanted { scope: id("sp"), index: id(index), backend: "own".into(), segment_count: 1, retention_days: None };
    Command::Provision { id: id(instance), request, wanted, identity: None }
}

fn bind(instance: &str, binding: &str, plan: &str) -> Command {
    let request = BindingRequest {
        instance: id(instance),
        service_id: "s".into(),
        plan_id: plan.into(),
        parameters: "{}".into(),
    };
    Command::Bind { id: id(binding), request, role: Role::Admin, ttl_seconds: None, identity: None }
}

fn run(state: &mut State, command: Command) -> Result<Vec<Event>, BrokerError> {
    let at = Timestamp::from_millis(1_000);
    let events = state.decide(command, at)?;
    events.iter().for_each(|event| state.apply(event, at));
    Ok(events)
}

fn end(state: &mut State, instance: &str, failure: Option<&str>) {
    let token = state.instance(&id(instance)).unwrap().operation.token.clone();
    run(state, Command::EndInstance { id: id(instance), token, failure: failure.map(str::to_owned) }).unwrap();
}

fn end_binding(state: &mut State, instance: &str, binding: &str) {
    let token = state.binding(&id(instance), &id(binding)).unwrap().operation.token.clone();
    run(state, Command::EndBinding { id: id(binding), token, failure: None }).unwrap();
}

fn live() -> State {
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

#[test]
fn deprovisioning_wins_over_provisioning() {
    let mut state = State::default();
    run(&mut state, provision("i", "shop", "p")).unwrap();
    run(&mut state, Command::Deprovision(id("i"))).unwrap();
    assert_eq!(run(&mut state, Command::Deprovision(id("i"))), Ok(vec![]));
    assert_eq!(run(&mut state, provision("i", "shop", "p")), Err(BrokerError::Busy("i".into())));
    // The late result of the provisioning changes nothing.
    let late = Command::EndInstance { id: id("i"), token: "provision-0".into(), failure: None };
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

proptest! {
    #[test]
    fn every_history_keeps_the_rules(steps in prop::collection::vec((0u8..8, 0u8..3, 0u8..3, any::<bool>()), 1..60)) {
        let mut state = State::default();
        let mut tokens = std::collections::BTreeSet::new();
        for (kind, a, b, fails) in steps {
            let (instance, binding) = (format!("i{a}"), format!("b{b}"));
            let failure = fails.then(|| "no".to_owned());
            let command = match kind {
                0 | 1 => provision(&instance, &format!("n{b}"), "p"),
                2 => bind(&instance, &binding, "p"),
                3 => Command::Deprovision(id(&instance)),
                4 => Command::Unbind(id(&instance), id(&binding)),
                5 | 6 => match state.instance(&id(&instance)) {
                    // What ends never fails: it is repeated until it succeeds.
                    Some(i) => Command::EndInstance {
                        id: id(&instance),
                        token: i.operation.token.clone(),
                        failure: failure.filter(|_| i.phase != Phase::Ending),
                    },
                    None => continue,
                },
                _ => match state.bindings.get(&id::<BindingId>(&binding)) {
                    Some(b) => Command::EndBinding { id: id(&binding), token: b.operation.token.clone(), failure: None },
                    None => continue,
                },
            };
            for event in run(&mut state, command).unwrap_or_default() {
                if let Event::ProvisionBegun { number, .. } | Event::BindBegun { number, .. }
                    | Event::DeprovisionBegun { number, .. } | Event::UnbindBegun { number, .. } = event
                {
                    prop_assert!(tokens.insert(number), "operation {} stands twice", number);
                }
            }
            prop_assert_eq!(state.by_index.len(), state.instances.len());
            for (id, instance) in &state.instances {
                prop_assert_eq!(&state.by_index[&instance.wanted.index], id);
                prop_assert_eq!(instance.operation.ended, instance.phase == Phase::Live);
                prop_assert!(state.ended_instance(id).is_none());
            }
            for (id, binding) in &state.bindings {
                prop_assert!(state.instances.contains_key(&binding.request.instance));
                prop_assert!(state.ended_binding(id).is_none());
            }
        }
    }
}
