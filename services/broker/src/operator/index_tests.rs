//! Each row is an object, an answer, and what follows from both.

use serde_json::json;

use super::*;

const UID: &str = "0d1f0d5e-0000-4000-8000-000000000001";

fn catalog() -> Value {
    json!({"services": [{"name": "log-index", "id": "s", "plans": [{"name": "small", "id": "p1"}, {"name": "standard", "id": "p2"}]}]})
}

fn place() -> Place {
    Place { organization: "cluster".into(), space: "space".into(), namespace: "shop".into(), name: "logs".into() }
}

fn object(finalized: bool, status: Value) -> LogIndex {
    let finalizers = if finalized { json!([FINALIZER]) } else { json!([]) };
    serde_json::from_value(json!({
        "apiVersion": "logboom.io/v1alpha1", "kind": "LogIndex",
        "metadata": {"name": "logs", "namespace": "shop", "uid": UID, "generation": 3, "finalizers": finalizers},
        "spec": {"plan": "small", "parameters": {"index": "shop"}},
        "status": status,
    }))
    .unwrap()
}

fn deleted(mut object: LogIndex) -> LogIndex {
    object.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    object
}

fn next(object: &LogIndex, last: Option<(Question, Said)>) -> Next {
    let (catalog, place) = (catalog(), place());
    let case = IndexCase {
        object,
        catalog: &catalog,
        place: Some(&place),
        index: Some("shop"),
        now: Timestamp::from_millis(0),
    };
    case.next(last.as_ref())
}

fn applied() -> Value {
    json!({"serviceId": "s", "planId": "p1", "parameters": {"index": "shop"}})
}

fn done(is_new: bool) -> Said {
    Said::Done { is_new, body: json!({"dashboard_url": "http://console/?index=shop"}) }
}

/// What is asked, or what is said and how long it then rests.
fn shown(step: &Next) -> String {
    let word = |status: &LogIndexStatus| {
        let ready = status.conditions.last();
        ready.map_or_else(|| "-".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message))
    };
    match step {
        Step::Locate => "locate".into(),
        Step::Ask(question, ask) => format!("{question:?} {} {}?{}", ask.method, ask.path, ask.query),
        Step::Finalizer(wanted) => format!("finalizer {wanted}"),
        Step::Save(status) => {
            let operation = status.operation.as_ref().map_or("-", |operation| operation.verb.as_str());
            format!("save applied={} operation={operation}", status.applied.is_some())
        }
        Step::Rest(status, after) => format!("rest {after:?} {}", word(status)),
        Step::Pause(status, after) => format!("pause {after:?} {}", word(status)),
    }
}

fn check(object: &LogIndex, last: Option<(Question, Said)>, expected: &str) {
    let step = shown(&next(object, last.clone()));
    assert!(step.starts_with(expected), "{last:?}\n  gives    {step}\n  expected {expected}");
}

#[test]
fn a_new_object_is_held_before_anything_is_asked_for() {
    check(&object(false, json!({})), None, "finalizer true");
    let path = format!("/v2/service_instances/{UID}");
    check(&object(true, json!({})), None, &format!("Provision PUT {path}?accepts_incomplete=true"));
    let Step::Ask(_, ask) = next(&object(true, json!({})), None) else { panic!("nothing is asked") };
    let body = ask.body.unwrap();
    assert_eq!((&body["service_id"], &body["plan_id"]), (&json!("s"), &json!("p1")));
    assert_eq!((&body["organization_guid"], &body["space_guid"]), (&json!("cluster"), &json!("space")));
    assert_eq!(body["parameters"], json!({"index": "shop"}));
    assert_eq!(body["context"]["namespace"], "shop");
}

#[test]
fn where_it_is_must_be_known_to_provision_and_only_then() {
    let (catalog, new, old) = (catalog(), object(true, json!({})), object(true, json!({"applied": applied()})));
    let case =
        |object| IndexCase { object, catalog: &catalog, place: None, index: None, now: Timestamp::from_millis(0) };
    assert_eq!(case(&new).next(None), Step::Locate);
    assert!(matches!(case(&old).next(None), Step::Ask(Question::Fetch, _)));
}

#[test]
fn answers_to_a_provision_request() {
    for (said, expected) in [
        (done(true), "save applied=true operation=-"),
        // There already: whether it is as it was asked for first, or was changed since, is made sure of.
        (done(false), "Update PATCH"),
        (Said::Differs("other".into()), "Update PATCH"),
        (Said::Accepted("op".into()), "rest 1s Provisioning"),
        (Said::Refused("the name shop is taken".into()), "pause 60s ProvisionRefused: the name shop is taken"),
        (Said::Later("no leader".into()), "rest 5s BrokerUnavailable: no leader"),
        (Said::Absent, "rest 5s BrokerUnavailable"),
    ] {
        check(&object(true, json!({})), Some((Question::Provision, said)), expected);
    }
}

#[test]
fn an_operation_is_awaited_and_its_failure_told() {
    let status = |verb: &str| json!({"applied": applied(), "operation": {"verb": verb, "token": "op-7"}});
    let waiting = object(true, status("provision"));
    check(&waiting, None, &format!("Operation GET /v2/service_instances/{UID}/last_operation?operation=op-7"));
    let state = |state: &str| Said::Done { is_new: false, body: json!({"state": state, "description": "disk full"}) };
    for (verb, said, expected) in [
        ("provision", state("in progress"), "rest 1s -"),
        ("provision", state("succeeded"), "save applied=true operation=-"),
        ("provision", Said::Absent, "save applied=true operation=-"),
        ("provision", Said::Later("no leader".into()), "rest 5s -"),
        ("provision", state("failed"), "pause 60s ProvisionFailed: disk full; change the spec"),
        ("update", state("failed"), "pause 60s UpdateFailed: disk full"),
    ] {
        check(&object(true, status(verb)), Some((Question::Operation, said)), expected);
    }
    let failed = next(&waiting, Some((Question::Operation, state("failed"))));
    let Step::Pause(status, _) = failed else { panic!("{failed:?}") };
    assert_eq!((status.operation, status.applied), (None, None), "it is asked for again from the beginning");
}

#[test]
fn what_the_spec_says_is_kept() {
    let same = object(true, json!({"applied": applied()}));
    check(&same, None, &format!("Fetch GET /v2/service_instances/{UID}?"));
    check(&same, Some((Question::Fetch, done(false))), "rest 300s Ready");
    // Somebody else deprovisioned it: it is made again.
    check(&same, Some((Question::Fetch, Said::Absent)), "save applied=false");
    let Step::Rest(status, _) = next(&same, Some((Question::Fetch, done(false)))) else { panic!("no rest") };
    assert_eq!(status.index.as_deref(), Some("shop"));
    assert_eq!(status.dashboard_url.as_deref(), Some("http://console/?index=shop"));
    assert_eq!((status.observed_generation, status.conditions[0].status.as_str()), (Some(3), "True"));

    let mut other = same.clone();
    other.spec.plan = "standard".into();
    check(&other, None, &format!("Update PATCH /v2/service_instances/{UID}?accepts_incomplete=true"));
    for (said, expected) in [
        (done(false), "save applied=true operation=-"),
        (Said::Accepted("op".into()), "rest 1s Updating"),
        (Said::Absent, "save applied=false"),
        (Said::Refused("standard is not an upgrade".into()), "pause 60s UpdateRefused: standard is not an upgrade"),
        (Said::Later("busy".into()), "rest 5s"),
    ] {
        check(&other, Some((Question::Update, said)), expected);
    }
    let Step::Save(status) = next(&other, Some((Question::Update, done(false)))) else { panic!("not saved") };
    assert_eq!(status.applied.unwrap().plan_id, "p2");
}

#[test]
fn a_plan_that_is_not_there_is_named() {
    let mut wrong = object(true, json!({}));
    wrong.spec.plan = "huge".into();
    check(&wrong, None, "rest 60s UnknownPlan: there is no plan \"huge\"; there is small, standard");
}

#[test]
fn a_broker_without_a_leader_changes_no_word() {
    let ready =
        json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "m", "lastTransitionTime": "t"});
    let well = object(true, json!({"applied": applied(), "conditions": [ready]}));
    check(&well, Some((Question::Fetch, Said::Later("no leader".into()))), "rest 5s Ready: m");
}

#[test]
fn a_deleted_object_goes_when_the_broker_has_forgotten_it() {
    let going = deleted(object(true, json!({"applied": applied()})));
    let query = "accepts_incomplete=true&service_id=s&plan_id=p1";
    check(&going, None, &format!("Deprovision DELETE /v2/service_instances/{UID}?{query}"));
    for (said, expected) in [
        (done(false), "finalizer false"),
        (Said::Absent, "finalizer false"),
        (Said::Accepted("op".into()), "rest 1s Deprovisioning"),
        (Said::Refused("not empty".into()), "pause 60s DeprovisionRefused: not empty"),
        (Said::Later("no leader".into()), "rest 5s"),
    ] {
        check(&going, Some((Question::Deprovision, said)), expected);
    }
    check(&deleted(object(false, json!({}))), None, "rest 300s");
}

#[test]
fn a_deletion_wins_over_what_is_under_way() {
    let status = json!({"applied": applied(), "operation": {"verb": "provision", "token": "op"}});
    check(&deleted(object(true, status)), None, "Deprovision DELETE");
    // Of one that nobody provisioned, and whose plan nobody knows, the broker must hear all the same.
    let mut unknown = deleted(object(true, json!({})));
    unknown.spec.plan = "gone".into();
    check(
        &unknown,
        None,
        &format!("Deprovision DELETE /v2/service_instances/{UID}?accepts_incomplete=true&service_id=unknown"),
    );
}

#[test]
fn a_deprovision_that_fails_is_told_and_begun_again() {
    let status = json!({"applied": applied(), "operation": {"verb": "deprovision", "token": "op"}});
    let going = deleted(object(true, status));
    check(&going, None, "Operation GET");
    let failed =
        Said::Done { is_new: false, body: json!({"state": "failed", "description": "the bucket is not empty"}) };
    check(&going, Some((Question::Operation, failed.clone())), "pause 60s DeprovisionFailed: the bucket is not empty");
    let Step::Pause(status, _) = next(&going, Some((Question::Operation, failed))) else { panic!("no pause") };
    let again = LogIndex { status: Some(status), ..going.clone() };
    check(&again, None, "Deprovision DELETE");
    check(&going, Some((Question::Operation, Said::Absent)), "finalizer false");
}
