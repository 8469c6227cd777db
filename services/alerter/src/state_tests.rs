use host::ControlState;

use super::*;

const S: i64 = 1_000_000_000;

fn rule() -> Rule {
    Rule {
        rule: "errors".parse().unwrap(),
        index: "shop".parse().unwrap(),
        query: "SELECT service, window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') \
                GROUP BY service, window_start"
            .into(),
        condition: "n > 2".into(),
        webhook: Some("http://127.0.0.1:1/".into()),
        summary: String::new(),
    }
}

fn row(window: i64, service: &str, n: f64, early: bool) -> ObservedRow {
    ObservedRow {
        window_start: Timestamp::from_nanos(window * 10 * S),
        window_end: Timestamp::from_nanos((window + 1) * 10 * S),
        labels: BTreeMap::from([("service".into(), service.into())]),
        values: BTreeMap::from([("n".into(), n)]),
        early,
    }
}

fn told(watermark: i64, rows: Vec<ObservedRow>) -> Observation {
    Observation {
        rule: "errors".parse().unwrap(),
        attempt: 1,
        subtask: 0,
        watermark: Timestamp::from_nanos(watermark * S),
        rows,
    }
}

fn with_rule() -> State {
    let mut state = State::default();
    run(&mut state, Command::Put(rule()));
    state
}

fn run(state: &mut State, command: Command) -> Vec<Event> {
    let events = state.decide(command, Timestamp::from_nanos(1)).unwrap();
    for event in &events {
        state.apply(event, Timestamp::from_nanos(1));
    }
    events
}

fn changes(events: &[Event]) -> Vec<(AlertState, u64)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Changed { change, .. } => Some((change.state, change.transition)),
            _ => None,
        })
        .collect()
}

#[test]
fn it_fires_at_the_row_that_crosses_and_resolves_once() {
    let mut state = with_rule();
    let fired = run(&mut state, Command::Observe(told(0, vec![row(0, "a", 3.0, true)])));
    assert_eq!(changes(&fired), [(AlertState::Firing, 1)]);
    let again = run(&mut state, Command::Observe(told(10, vec![row(0, "a", 9.0, false)])));
    assert!(changes(&again).is_empty(), "the window's final row tells nothing new");
    let below = run(&mut state, Command::Observe(told(20, vec![row(1, "a", 1.0, false)])));
    assert_eq!(changes(&below), [(AlertState::Resolved, 2)]);
    assert_eq!(state.outbox.len(), 4, "subject and webhook for each of two transitions");
}

#[test]
fn silence_resolves_when_the_watermark_passes_a_whole_window() {
    let mut state = with_rule();
    run(&mut state, Command::Observe(told(0, vec![row(0, "a", 3.0, true)])));
    assert!(changes(&run(&mut state, Command::Observe(told(19, vec![])))).is_empty());
    assert_eq!(changes(&run(&mut state, Command::Observe(told(20, vec![])))), [(AlertState::Resolved, 2)]);
}

#[test]
fn a_replay_changes_nothing() {
    let mut state = with_rule();
    let story = [
        told(0, vec![row(0, "a", 3.0, true)]),
        told(10, vec![row(0, "a", 5.0, false), row(0, "b", 1.0, false)]),
        told(20, vec![row(1, "a", 4.0, false)]),
        told(40, vec![row(2, "a", 0.0, false)]),
    ];
    for part in &story {
        run(&mut state, Command::Observe(part.clone()));
    }
    let before = state.next_notification;
    for part in &story {
        assert!(changes(&run(&mut state, Command::Observe(part.clone()))).is_empty(), "{part:?}");
    }
    assert_eq!(state.next_notification, before);
}

#[test]
fn firing_goes_on_while_windows_hold() {
    let mut state = with_rule();
    for window in 0..5 {
        let watermark = (window + 1) * 10;
        let events = run(&mut state, Command::Observe(told(watermark, vec![row(window, "a", 7.0, false)])));
        assert_eq!(changes(&events).len(), usize::from(window == 0), "window {window}");
    }
}

#[test]
fn label_sets_do_not_touch_each_other() {
    let mut state = with_rule();
    let events = run(&mut state, Command::Observe(told(10, vec![row(0, "a", 3.0, false), row(0, "b", 4.0, false)])));
    assert_eq!(changes(&events).len(), 2);
    let events = run(&mut state, Command::Observe(told(20, vec![row(1, "b", 4.0, false)])));
    assert_eq!(changes(&events), [(AlertState::Resolved, 2)], "only a resolves");
}

#[test]
fn replacing_a_rule_leaves_its_old_job_to_be_cancelled() {
    let mut state = with_rule();
    assert!(run(&mut state, Command::Put(rule())).is_empty(), "the same again changes nothing");
    let mut other = rule();
    other.condition = "n > 5".into();
    run(&mut state, Command::Put(other));
    assert_eq!(state.orphans.len(), 1);
    assert!(!state.rules.values().next().unwrap().submitted);
    let orphan = state.orphans.first().cloned().unwrap();
    run(&mut state, Command::JobGone(orphan));
    assert!(state.orphans.is_empty());
}

#[test]
fn a_condition_must_name_a_column_of_its_query() {
    let mut bad = rule();
    bad.condition = "m > 2".into();
    assert!(State::default().decide(Command::Put(bad), Timestamp::from_nanos(1)).is_err());
}

#[test]
fn a_group_without_a_value_does_not_hold() {
    let mut state = with_rule();
    run(&mut state, Command::Observe(told(0, vec![row(0, "a", 3.0, true)])));
    let events = run(&mut state, Command::Observe(told(20, vec![row(1, "a", f64::NAN, false)])));
    assert_eq!(changes(&events), [(AlertState::Resolved, 2)]);
    let mut nothing = row(2, "a", 0.0, false);
    nothing.values.clear();
    assert!(run(&mut state, Command::Observe(told(30, vec![nothing]))).is_empty());
}

#[test]
fn a_full_rule_forgets_the_longest_resolved_label_set() {
    let mut state = with_rule();
    let names: Vec<String> = (0..=INSTANCES_MAX).map(|i| format!("s{i}")).collect();
    for part in names[..INSTANCES_MAX].chunks(1000) {
        let rows = part.iter().map(|n| row(0, n, 3.0, true)).collect();
        run(&mut state, Command::Observe(told(0, rows)));
    }
    let full = run(&mut state, Command::Observe(told(0, vec![row(0, &names[INSTANCES_MAX], 3.0, true)])));
    assert!(changes(&full).is_empty(), "nothing resolved: no room");
    run(&mut state, Command::Observe(told(20, vec![])));
    let room = run(&mut state, Command::Observe(told(20, vec![row(3, &names[INSTANCES_MAX], 3.0, true)])));
    assert_eq!(changes(&room), [(AlertState::Firing, 1)]);
}

#[test]
fn rules_are_listed_in_pages_that_can_be_sent_however_many_label_sets_they_have() {
    const SETS: usize = 2_000;
    let mut state = with_rule();
    let name = |n: usize| format!("{n}-{}", "x".repeat(200));
    let rows = (0..SETS).map(|n| row(0, &name(n), 3.0, false)).collect();
    run(&mut state, Command::Observe(told(10, rows)));
    let rows = (1..SETS).map(|n| row(1, &name(n), 0.0, false)).collect();
    run(&mut state, Command::Observe(told(19, rows)));
    let described = state.describe(&rule().rule).unwrap();
    assert_eq!(usize::try_from(described.instance_count).unwrap(), SETS);
    assert!((100..SETS).contains(&described.instances.len()), "{}", described.instances.len());
    let firing = described.instances.iter().take_while(|instance| instance.state == AlertState::Firing).count();
    assert_eq!((firing, described.pending_count > 0), (1, true), "what fires is not cut off");

    let wide = state.rules.values().next().unwrap().clone();
    for n in 0..20 {
        let mut other = wide.clone();
        other.rule.rule = format!("rule-{n}").parse().unwrap();
        state.rules.insert(other.rule.rule.clone(), other);
    }
    let (mut wanted, mut found) = (RulesOf::default(), Vec::new());
    loop {
        let page = state.page(&wanted).unwrap();
        assert!(wire::encode(&page).len() < 1 << 20 && !page.rules.is_empty());
        found.extend(page.rules.into_iter().map(|rule| rule.rule.rule));
        wanted.after = found.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(found, state.rules.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn a_rule_belongs_to_the_index_that_it_watches() {
    let mut state = with_rule();
    let foreign = Rule { index: "bank".parse().unwrap(), query: rule().query.replace("shop", "bank"), ..rule() };
    let refused = state.decide(Command::Put(foreign), Timestamp::from_nanos(1)).unwrap_err();
    assert!(matches!(refused, Error::RuleTaken(_)), "{refused}");
    let named = |index: Option<&str>| RuleName { rule: rule().rule, index: index.map(|name| name.parse().unwrap()) };
    assert!(run(&mut state, Command::Delete(named(Some("bank")))).is_empty(), "another tenant's stays");
    let of = |index: &str| RulesOf { index: Some(index.parse().unwrap()), ..RulesOf::default() };
    assert_eq!((state.page(&of("shop")).unwrap().rules.len(), state.page(&of("bank")).unwrap().rules.len()), (1, 0));
    let mut other = state.clone();
    assert_eq!(run(&mut state, Command::Delete(named(Some("shop")))).len(), 1);
    assert_eq!(run(&mut other, Command::Delete(named(None))).len(), 1);
}

/// Why what an observation does not change must be made sure of: a leader that does not know the rule has nothing to say.
#[test]
fn rows_of_a_rule_that_is_not_known_change_nothing() {
    let observed = Command::Observe(told(10, vec![row(0, "a", 9.0, false)]));
    assert!(run(&mut State::default(), observed).is_empty());
}
