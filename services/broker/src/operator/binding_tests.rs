//! Each row is an object, a Secret and an answer, and what follows from them; a walk plays a whole life against a broker in memory.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const UID: &str = "0d1f0d5e-0000-4000-8000-000000000002";
const INSTANCE: &str = "0d1f0d5e-0000-4000-8000-000000000001";

fn index() -> LogIndex {
    serde_json::from_value(json!({
        "apiVersion": "logboom.io/v1alpha1", "kind": "LogIndex",
        "metadata": {"name": "logs", "namespace": "shop", "uid": INSTANCE},
        "spec": {"plan": "small"},
        "status": {"applied": {"serviceId": "s", "planId": "p1", "parameters": {}}},
    }))
    .unwrap()
}

fn object(spec: Value, status: Value) -> LogBinding {
    let mut all = json!({"indexRef": {"name": "logs"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "logboom.io/v1alpha1", "kind": "LogBinding",
        "metadata": {"name": "app", "namespace": "shop", "uid": UID, "generation": 1, "finalizers": [FINALIZER]},
        "spec": all, "status": status,
    }))
    .unwrap()
}

fn deleted(mut object: LogBinding) -> LogBinding {
    object.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    object
}

fn bound(id: &str) -> Value {
    json!({"id": id, "instance": INSTANCE, "serviceId": "s", "planId": "p1", "role": "write"})
}

fn credentials(id: &str) -> Value {
    json!({"credentials": {"token": id, "ports": [1, 2], "odd key!": true}})
}

/// A Secret with the credentials of `token` that says it holds those of the service binding `holds`.
fn held(holds: &str, token: &str) -> Held {
    let values = flat(&credentials(token));
    let values = values.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
    Held::Ours { holds: Some(holds.replace('u', UID)), values }
}

fn done(body: Value) -> Said {
    Said::Done { is_new: false, body }
}

fn shown(next: &Next) -> String {
    let ids = |status: &LogBindingStatus| {
        status.bindings.iter().map(|b| b.id.replace(UID, "u")).collect::<Vec<_>>().join(",")
    };
    let word = |status: &LogBindingStatus| {
        status.conditions.last().map_or_else(|| "-".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message))
    };
    match next {
        Next::PutSecret { holds, values } => format!("put {} {values:?}", holds.replace(UID, "u")),
        Next::DeleteSecret => "delete".into(),
        Next::Step(Step::Locate) => "locate".into(),
        Next::Step(Step::Ask(_, ask)) => {
            let rotates = |body: &Value| if body["predecessor_binding_id"] == UID { " after u" } else { " alone" };
            let body = ask.body.as_ref().map_or("", rotates);
            let path = ask.path.replace(UID, "u").replace(INSTANCE, "i").replace("/v2/service_instances/", "");
            format!("{} {path}{body}", ask.method)
        }
        Next::Step(Step::Finalizer(wanted)) => format!("finalizer {wanted}"),
        Next::Step(Step::Save(status)) => format!("save {} begun={}", ids(status), status.begun),
        Next::Step(Step::Rest(status, after)) => format!("rest {after:?} {}", word(status)),
        Next::Step(Step::Pause(status, after)) => format!("pause {after:?} {}", word(status)),
    }
}

fn next(object: &LogBinding, index: Option<&LogIndex>, held: &Held, last: Option<(Question, Said)>) -> Next {
    looked_at(object, index, held, last, true)
}

fn looked_at(
    object: &LogBinding,
    index: Option<&LogIndex>,
    held: &Held,
    last: Option<(Question, Said)>,
    may_exchange: bool,
) -> Next {
    at(0, Duration::ZERO, object, index, held, last, may_exchange)
}

/// The same at a time, with a time of grace.
fn at(
    seconds: i64,
    grace: Duration,
    object: &LogBinding,
    index: Option<&LogIndex>,
    held: &Held,
    last: Option<(Question, Said)>,
    may_exchange: bool,
) -> Next {
    let now = Timestamp::from_millis(seconds * 1_000);
    BindingCase { object, index, held, may_exchange, ttl_min: Duration::from_secs(30), grace, now }.next(last.as_ref())
}

fn check(object: &LogBinding, held: &Held, last: Option<(Question, Said)>, expected: &str) {
    let step = shown(&next(object, Some(&index()), held, last.clone()));
    assert!(step.starts_with(expected), "{last:?}\n  gives    {step}\n  expected {expected}");
}

#[test]
fn a_service_binding_is_remembered_before_it_is_asked_for() {
    let mut new = object(json!({"role": "read", "ttl": "2h"}), json!({}));
    new.metadata.finalizers = None;
    check(&new, &Held::Nothing, None, "finalizer true");
    let new = object(json!({"role": "read", "ttl": "2h"}), json!({}));
    check(&new, &Held::Nothing, None, "save u begun=1");
    let Next::Step(Step::Save(status)) = next(&new, Some(&index()), &Held::Nothing, None) else { panic!("not saved") };
    let remembered = LogBinding { status: Some(status), ..new };
    check(&remembered, &Held::Nothing, None, "GET i/service_bindings/u");
    let absent = Some((Question::FetchBinding, Said::Absent));
    let asked = next(&remembered, Some(&index()), &Held::Nothing, absent);
    let Next::Step(Step::Ask(Question::Bind, ask)) = asked else { panic!("{}", shown(&asked)) };
    assert_eq!(ask.body.unwrap()["parameters"], json!({"role": "read", "ttl_seconds": 7_200}));
}

#[test]
fn credentials_go_into_the_secret_and_stay_there() {
    let begun = object(json!({}), json!({"begun": 1, "bindings": [bound(UID)]}));
    let fetched = || Some((Question::FetchBinding, done(credentials("a"))));
    let all = r#"put u {"odd_key_": "true", "ports": "[1,2]", "token": "a"}"#;
    check(&begun, &Held::Nothing, fetched(), all);
    // Whoever changed it sees it changed back.
    check(&begun, &held("u", "b"), fetched(), all);
    check(&begun, &held("u-2", "a"), fetched(), all);
    check(&begun, &held("u", "a"), fetched(), "rest 300s Ready: the Secret app holds the credentials");
    check(&begun, &held("u", "a"), Some((Question::FetchBinding, done(json!({})))), "rest 5s BrokerUnavailable");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let fresh = object(json!({}), json!({}));
    let none = next(&fresh, None, &Held::Nothing, None);
    assert!(shown(&none).starts_with("rest 300s IndexNotFound: there is no LogIndex logs"));
    let mut beginning = index();
    beginning.status.as_mut().unwrap().operation = Some(OperationRef { verb: "provision".into(), token: "op".into() });
    assert!(shown(&next(&fresh, Some(&beginning), &Held::Nothing, None)).starts_with("rest 300s IndexNotReady"));
    check(&fresh, &Held::Foreign, None, "rest 60s SecretTaken: the Secret app is there");
    check(&fresh, &Held::Forbidden("no".into()), None, "rest 60s SecretForbidden: no; bind the ClusterRole");
    check(
        &object(json!({"ttl": "10s"}), json!({})),
        &Held::Nothing,
        None,
        "rest 300s InvalidTtl: ttl must be at least 30s",
    );
    let named = object(json!({"secretName": "creds"}), json!({}));
    check(&named, &Held::Foreign, None, "rest 60s SecretTaken: the Secret creds is there");
}

#[test]
fn answers_to_a_bind_request() {
    let begun = object(json!({}), json!({"begun": 1, "bindings": [bound(UID)]}));
    for (said, expected) in [
        (done(credentials("a")), "put "),
        (Said::Accepted("op".into()), "rest 1s Binding"),
        (Said::Refused("no such role".into()), "pause 60s BindRefused: no such role"),
        (Said::Differs("other".into()), "pause 60s BindRefused: other"),
        (Said::Absent, "rest 5s IndexNotReady"),
        (Said::Later("busy".into()), "rest 5s BrokerUnavailable: busy"),
    ] {
        check(&begun, &Held::Nothing, Some((Question::Bind, said)), expected);
    }
    let operation = json!({"verb": "bind", "token": "op"});
    let waiting = object(json!({}), json!({"begun": 1, "bindings": [bound(UID)], "operation": operation}));
    check(&waiting, &Held::Nothing, None, "GET i/service_bindings/u/last_operation");
    for (state, expected) in
        [("in progress", "rest 1s"), ("failed", "pause 60s BindFailed: full"), ("succeeded", "save u begun=1")]
    {
        let said = done(json!({"state": state, "description": "full"}));
        check(&waiting, &Held::Nothing, Some((Question::Operation, said)), expected);
    }
}

#[test]
fn credentials_are_exchanged_before_they_end() {
    let life = |ends: &str| {
        let mut body = credentials("a");
        body["metadata"] = json!({"expires_at": ends});
        Some((Question::FetchBinding, done(body)))
    };
    let old = object(
        json!({"ttl": "30m"}),
        json!({"begun": 1, "bindings": [{"id": UID, "instance": INSTANCE, "serviceId": "s", "planId": "p1", "role": "write", "ttl": "30m"}]}),
    );
    // Now is 1970: 20 minutes are two thirds of its life, 10 minutes one third.
    check(&old, &held("u", "a"), life("1970-01-01T00:20:00.0Z"), "rest 300s Ready");
    check(&old, &held("u", "a"), life("1970-01-01T00:12:00.0Z"), "rest 120s Ready");
    check(&old, &held("u", "a"), life("1970-01-01T00:10:00.0Z"), "save u,u-2 begun=2");
    let mut body = credentials("a");
    body["metadata"] = json!({"expires_at": "1970-01-01T09:00:00Z", "renew_before": "1970-01-01T00:00:00Z"});
    check(&old, &held("u", "a"), Some((Question::FetchBinding, done(body))), "save u,u-2 begun=2");
    // Into the Secret first, whatever a clock says; and only one exchange in one look.
    check(&old, &Held::Nothing, life("1969-01-01T00:00:00Z"), "put ");
    let step = looked_at(&old, Some(&index()), &held("u", "a"), life("1969-01-01T00:00:00Z"), false);
    assert!(shown(&step).starts_with("pause 10s Ready"), "{}", shown(&step));
    // One that was in use and is gone is not brought back under its id.
    check(&old, &held("u", "a"), Some((Question::FetchBinding, Said::Absent)), "save u,u-2 begun=2");
}

#[test]
fn a_successor_takes_over_before_its_predecessor_goes() {
    let second = format!("{UID}-2");
    let two = object(json!({}), json!({"begun": 2, "bindings": [bound(UID), bound(&second)]}));
    check(&two, &held("u", "a"), Some((Question::FetchBinding, Said::Absent)), "PUT i/service_bindings/u-2 after u");
    // The predecessor has ended: without one.
    check(
        &two,
        &held("u", "a"),
        Some((Question::Rotate, Said::Refused("expired".into()))),
        "PUT i/service_bindings/u-2 alone",
    );
    check(&two, &held("u", "a"), Some((Question::Rotate, done(credentials("b")))), "put ");
    // The Secret holds it: that is said first.
    let there = || Some((Question::FetchBinding, done(credentials("b"))));
    check(&two, &held("u-2", "b"), there(), "save u,u-2 begun=2");
    let Next::Step(Step::Save(status)) = next(&two, Some(&index()), &held("u-2", "b"), there()) else {
        panic!("not saved")
    };
    let two = LogBinding { status: Some(status), ..two };
    check(&two, &held("u-2", "b"), there(), "DELETE i/service_bindings/u");
    for (said, expected) in [
        (Said::Accepted("op".into()), "rest 1s Ready"),
        (Said::Refused("no".into()), "pause 60s Ready"),
        (Said::Later("no".into()), "rest 5s Ready"),
        (Said::Absent, "save u-2 begun=2"),
    ] {
        check(&two, &held("u-2", "b"), Some((Question::Unbind(UID.into()), said)), expected);
    }
    check(&two, &held("u-2", "b"), Some((Question::Unbind(UID.into()), done(json!({})))), "save u-2 begun=2");
    // Another role is no rotation.
    let other = object(json!({"role": "read"}), json!({"begun": 1, "bindings": [bound(UID)]}));
    check(&other, &held("u", "a"), None, "save u,u-2 begun=2");
    let mut read = bound(&second);
    read["role"] = json!("read");
    let other = object(json!({"role": "read"}), json!({"begun": 2, "bindings": [bound(UID), read]}));
    check(&other, &held("u", "a"), Some((Question::FetchBinding, Said::Absent)), "PUT i/service_bindings/u-2 alone");
}

/// What becomes of two service bindings, of which the Secret holds the second, at a time and with a grace of ten minutes.
fn graced(seconds: i64, replaced_at: Option<&str>, body: Value) -> (String, Option<LogBindingStatus>) {
    let second = format!("{UID}-2");
    let mut first = bound(UID);
    first["replacedAt"] = json!(replaced_at);
    let two = object(json!({}), json!({"begun": 2, "bindings": [first, bound(&second)]}));
    let said = Some((Question::FetchBinding, done(body)));
    let mut step = at(seconds, Duration::from_secs(600), &two, Some(&index()), &held("u-2", "b"), said.clone(), true);
    // What is to be said is said first; what counts is what follows.
    if let Next::Step(Step::Save(status)) = &step
        && status.bindings.len() == 2
    {
        let saved = LogBinding { status: Some(status.clone()), ..two };
        step = at(seconds, Duration::from_secs(600), &saved, Some(&index()), &held("u-2", "b"), said, true);
    }
    let status = match &step {
        Next::Step(Step::Save(status) | Step::Rest(status, _)) => Some(status.clone()),
        _ => None,
    };
    (shown(&step), status)
}

#[test]
fn a_predecessor_works_on_for_a_while() {
    let (replaced, minute) = (Some("1970-01-01T00:01:00Z"), 60);
    for (seconds, replaced_at, expected) in [
        // It is remembered since when, and that is not forgotten by whoever looks next.
        (minute, None, "rest 300s Ready"),
        (minute, replaced, "rest 300s Ready"),
        (minute + 599, replaced, "rest 1s Ready"),
        (minute + 600, replaced, "DELETE i/service_bindings/u"),
        // A clock that was wrong lets it live for one more grace, not for ever.
        (minute, Some("2999-01-01T00:00:00Z"), "rest 300s Ready"),
        (minute, Some("nonsense"), "rest 300s Ready"),
    ] {
        let (step, status) = graced(seconds, replaced_at, credentials("b"));
        assert!(step.starts_with(expected), "{seconds} {replaced_at:?}: {step}");
        let at = status.and_then(|status| status.bindings[0].replaced_at.clone());
        assert!(at.is_none_or(|at| at == "1970-01-01T00:01:00Z"), "{seconds} {replaced_at:?}");
    }
    // It holds up no exchange.
    let mut ending = credentials("b");
    ending["metadata"] = json!({"expires_at": "1970-01-01T01:00:00Z", "renew_before": "1970-01-01T00:01:30Z"});
    assert!(graced(89, replaced, ending.clone()).0.starts_with("rest 1s Ready"));
    // Nor does it when its grace is over: the broker might not take it back.
    for seconds in [90, 60 + 600] {
        let (step, status) = graced(seconds, replaced, ending.clone());
        assert!(step.starts_with("save u,u-2,u-3 begun=3"), "{seconds}: {step}");
        assert_eq!(status.unwrap().bindings.last().unwrap().replaced_at, None);
    }
}

#[test]
fn a_predecessor_goes_also_while_there_is_nothing_to_bind_to() {
    let second = format!("{UID}-2");
    let mut first = bound(UID);
    first["replacedAt"] = json!("1970-01-01T00:01:00Z");
    let mut two = object(json!({}), json!({"begun": 2, "bindings": [first, bound(&second)]}));
    let looked = |two: &LogBinding, seconds, holds: &str| {
        at(seconds, Duration::from_secs(600), two, None, &held(holds, "b"), None, true)
    };
    assert!(shown(&looked(&two, 659, "u-2")).starts_with("rest 300s IndexNotFound"));
    // Why nothing goes on is said first.
    let Next::Step(Step::Save(status)) = looked(&two, 660, "u-2") else { panic!("not said") };
    assert_eq!(status.conditions.last().unwrap().reason, "IndexNotFound");
    two.status = Some(status);
    assert!(shown(&looked(&two, 660, "u-2")).starts_with("DELETE i/service_bindings/u"));
    assert!(shown(&looked(&two, 660, "u")).starts_with("rest 300s IndexNotFound"), "the Secret holds it");
}

#[test]
fn of_too_many_the_first_that_was_replaced_goes() {
    let mut all: Vec<Value> = ["", "-2", "-3", "-4"].map(|end| bound(&format!("{UID}{end}"))).into();
    let check = |all: &[Value], holds: &str, expected: &str| {
        let full = object(json!({"role": "read"}), json!({"begun": 4, "bindings": all}));
        let step = at(60, Duration::from_secs(600), &full, Some(&index()), &held(holds, "x"), None, true);
        assert_eq!(shown(&step).trim_end_matches(" alone"), expected);
    };
    check(&all, "u", "DELETE i/service_bindings/u-2");
    for (place, second) in [(0, 10), (1, 20)] {
        all[place]["replacedAt"] = json!(format!("1970-01-01T00:00:{second}Z"));
    }
    // The third never was in the Secret.
    check(&all, "u-4", "DELETE i/service_bindings/u-3");
    all[2]["replacedAt"] = json!("1970-01-01T00:00:30Z");
    check(&all, "u-4", "DELETE i/service_bindings/u");
}

#[test]
fn a_deleted_object_takes_everything_with_it() {
    let second = format!("{UID}-2");
    let status = json!({"begun": 2, "bindings": [bound(UID), bound(&second)]});
    let going = deleted(object(json!({}), status));
    check(&going, &held("u", "a"), None, "DELETE i/service_bindings/u");
    for (said, expected) in [
        (done(json!({})), "save u-2 begun=2"),
        (Said::Absent, "save u-2 begun=2"),
        (Said::Accepted("op".into()), "rest 1s Unbinding"),
        (Said::Refused("no".into()), "pause 60s UnbindRefused: no"),
        (Said::Later("no leader".into()), "rest 5s"),
    ] {
        check(&going, &held("u", "a"), Some((Question::Unbind(UID.into()), said)), expected);
    }
    let unbound = deleted(object(json!({}), json!({"begun": 2})));
    check(&unbound, &held("u", "a"), None, "delete");
    check(&unbound, &Held::Nothing, None, "finalizer false");
    // Somebody else's stays, and one that may not be seen goes with its owner.
    check(&unbound, &Held::Foreign, None, "finalizer false");
    check(&unbound, &Held::Forbidden("no".into()), None, "finalizer false");
}

/// A broker, a Secret and an API server in memory; steps may be lost in between, as in a crash.
struct Play {
    object: LogBinding,
    /// The id that it says, and its values.
    secret: Option<(String, BTreeMap<String, String>)>,
    live: BTreeMap<String, Role>,
    /// Until when what was in the Secret has to work.
    promised: BTreeMap<String, i64>,
    seconds: i64,
}

const GRACE_SECONDS: i64 = 600;

use kubernetes::Role;

impl Play {
    fn answer(&mut self, question: &Question, ask: &Ask) -> Said {
        let id = ask.path.rsplit('/').next().unwrap().to_owned();
        match question {
            Question::FetchBinding => match self.live.get(&id) {
                Some(_) => done(credentials(&id)),
                None => Said::Absent,
            },
            Question::Bind | Question::Rotate => {
                let role = self.object.spec.role;
                self.live.insert(id.clone(), role);
                done(credentials(&id))
            }
            Question::Unbind(id) => {
                let is_full = self.object.status.as_ref().is_some_and(|status| status.bindings.len() >= BINDINGS_MAX);
                let may_go = is_full || self.object.metadata.deletion_timestamp.is_some();
                let until = self.promised.get(id).copied().unwrap_or_default();
                assert!(may_go || until <= self.seconds, "{id} was to work until {until}, it is {}", self.seconds);
                match self.live.remove(id) {
                    Some(_) => done(json!({})),
                    None => Said::Absent,
                }
            }
            other => panic!("{other:?} is not asked for a binding"),
        }
    }

    /// Looks at the object until it rests, or `steps` are done: then the operator dies.
    fn look(&mut self, steps: usize) -> bool {
        let mut last = None;
        let begun = |object: &LogBinding| object.status.as_ref().map_or(0, |status| status.begun);
        let before = begun(&self.object);
        for _ in 0..steps {
            let held = match &self.secret {
                None => Held::Nothing,
                Some((holds, values)) => Held::Ours {
                    holds: Some(holds.clone()),
                    values: values.iter().map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect(),
                },
            };
            let index = index();
            let may_exchange = begun(&self.object) == before;
            let grace = Duration::from_secs(GRACE_SECONDS.unsigned_abs());
            let step = at(self.seconds, grace, &self.object, Some(&index), &held, last.clone(), may_exchange);
            let answered = last.take();
            match step {
                Next::PutSecret { holds, values } => {
                    if let Some((before, _)) = self.secret.replace((holds, values)) {
                        self.promised.insert(before, self.seconds + GRACE_SECONDS);
                    }
                    last = answered;
                }
                Next::DeleteSecret => self.secret = None,
                Next::Step(Step::Ask(question, ask)) => last = Some((question.clone(), self.answer(&question, &ask))),
                Next::Step(Step::Save(status)) => self.object.status = Some(status),
                Next::Step(Step::Finalizer(_)) => {
                    self.object.metadata.finalizers = None;
                    return true;
                }
                Next::Step(Step::Rest(status, _) | Step::Pause(status, _)) => {
                    self.object.status = Some(status);
                    return true;
                }
                Next::Step(Step::Locate) => panic!("a binding needs no place"),
            }
            // What is in the Secret works at any time.
            if self.object.metadata.deletion_timestamp.is_none() {
                let token = self.secret.as_ref().map(|(_, values)| values["token"].clone());
                assert!(token.is_none_or(|token| self.live.contains_key(&token)), "the Secret holds dead credentials");
            }
        }
        false
    }
}

proptest! {
    /// Roles change and the operator dies at any step: what was in the Secret works for the time of grace; at the end there is one
    /// service binding, of the right role, and it is in the Secret; after a deletion there is nothing.
    #[test]
    fn nothing_is_lost_and_nothing_is_left(steps in prop::collection::vec((0_usize..12, 0_u8..3, 0_i64..400), 1..20)) {
        let mut play = Play {
            object: object(json!({}), json!({})), secret: None, live: BTreeMap::new(), promised: BTreeMap::new(), seconds: 0,
        };
        for (steps, role, later) in steps {
            play.seconds += later;
            play.object.spec.role = [Role::Write, Role::Read, Role::Admin][usize::from(role)];
            play.look(steps);
        }
        prop_assert!((0..10).any(|_| play.look(32)));
        play.seconds += GRACE_SECONDS;
        prop_assert!((0..10).any(|_| play.look(32)));
        let status = play.object.status.clone().unwrap();
        let current = status.bindings.last().unwrap().id.clone();
        prop_assert_eq!(status.bindings.len(), 1);
        prop_assert_eq!(play.live.clone().into_iter().collect::<Vec<_>>(), vec![(current.clone(), play.object.spec.role)]);
        prop_assert_eq!(&play.secret.as_ref().unwrap().1["token"], &current);
        play.object = deleted(play.object.clone());
        prop_assert!((0..10).any(|_| play.look(32)));
        prop_assert!(play.live.is_empty() && play.secret.is_none() && play.object.metadata.finalizers.is_none());
    }
}
