//! PATCH: plans, parameters, upgrades, contexts; and what becomes of an update that fails, is overtaken or loses its leader.

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;

use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, answer, bind_body, binding, ids, instance, provision_body};

const ASYNC: &str = "accepts_incomplete=true";

/// Plans that can and cannot be left, bound, or upgraded.
const CATALOG: &str = r#"
services:
  - id: s
    name: s
    description: For transitions
    backend: own
    plan_updateable: true
    allow_context_updates: true
    plans:
      - { id: p, name: p, description: Can be left, maintenance_info: { version: "2.0.0" }, defaults: { retention_days: 3 } }
      - { id: q, name: q, description: Can be left too, maintenance_info: { version: "3.1.0" }, defaults: { retention_days: 5 } }
      - { id: stays, name: stays, description: Cannot be left, plan_updateable: false }
      - { id: unbound, name: unbound, description: Cannot be bound, bindable: false }
"#;

async fn with_instance(plan: &str) -> Result<Fixture> {
    let f = Fixture::start_with(Some(CATALOG), &["broker.reload_interval=100ms"]).await?;
    assert_eq!(f.ask("PUT", &instance("i"), Some(&of(plan))).await.0, 201);
    Ok(f)
}

fn of(plan: &str) -> Value {
    json!({ "service_id": "s", "plan_id": plan, "organization_guid": "o", "space_guid": "sp" })
}

async fn shop() -> Result<Fixture> {
    let f = Fixture::start().await?;
    let body = provision_body(json!({ "index": "shop", "segments": 2, "retention_days": 9 }));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    Ok(f)
}

fn days(days: u32) -> Value {
    json!({ "service_id": SERVICE, "parameters": { "retention_days": days } })
}

/// The days that the back-end keeps, and how often it was changed.
fn kept(f: &Fixture) -> (Option<u32>, usize) {
    let backend = f.backend.lock().unwrap();
    (backend.indexes[&"i".parse().unwrap()].retention_days, backend.updates.len())
}

async fn state(f: &Fixture, replica: usize, query: &str) -> Value {
    let path = format!("{}/last_operation{query}", instance("i"));
    let (status, body) = f.ask_at(replica, "GET", &path, None).await;
    assert_eq!(status, 200);
    body
}

#[actix_rt::test]
async fn an_update_request_is_checked() -> Result<()> {
    let f = shop().await?;
    let path = instance("i");
    for (body, expected) in [
        // 49
        (json!({}), 400),
        (json!({ "service_id": "" }), 400),
        (json!({ "service_id": "other" }), 400),
        (json!({ "service_id": SERVICE, "plan_id": "other" }), 400),
        (json!({ "service_id": SERVICE, "plan_id": 7 }), 400),
        (json!({ "service_id": SERVICE, "parameters": [] }), 400),
        (json!({ "service_id": SERVICE, "context": "x" }), 400),
        (json!({ "service_id": SERVICE, "parameters": { "retention_days": 0 } }), 400),
        (json!({ "service_id": SERVICE, "parameters": { "max_bytes": 1 } }), 400),
        (json!({ "service_id": SERVICE, "parameters": { "unknown": 1 } }), 400),
        // What is fixed cannot be asked for.
        (json!({ "service_id": SERVICE, "parameters": { "index": "other" } }), 400),
        (json!({ "service_id": SERVICE, "parameters": { "segments": 3 } }), 400),
        // 53
        (json!({ "service_id": SERVICE, "maintenance_info": { "version": "9.9.9" } }), 422),
        // 50, 52, 54: without effect.
        (json!({ "service_id": SERVICE }), 200),
        (json!({ "service_id": SERVICE, "plan_id": SMALL, "previous_values": {}, "maintenance_info": {} }), 200),
        (json!({ "service_id": SERVICE, "previous_values": { "plan_id": "" }, "unknown": [1] }), 200),
        (json!({ "service_id": SERVICE, "parameters": { "retention_days": 9 } }), 200),
        (json!({ "service_id": SERVICE, "maintenance_info": { "version": "1.0.0" } }), 200),
    ] {
        let (status, answer) = f.ask("PATCH", &path, Some(&body)).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(status != 200 || answer == json!({}), "{answer}");
    }
    // 14, 57: nothing was applied.
    assert_eq!(kept(&f), (Some(9), 0));
    // 59
    assert_eq!(f.ask("PATCH", &instance("none"), Some(&days(1))).await.0, 404);
    f.stop().await
}

#[actix_rt::test]
async fn plan_and_parameters_are_changed() -> Result<()> {
    let f = shop().await?;
    let path = instance("i");
    // 51, 52, 50: the parameters stay, what they do not say comes from the new plan.
    let to_standard = json!({ "service_id": SERVICE, "plan_id": STANDARD, "previous_values": { "plan_id": SMALL } });
    assert_eq!(f.ask("PATCH", &path, Some(&to_standard)).await, (200, json!({})));
    let (_, fetched) = f.ask("GET", &path, None).await;
    let same = json!({ "index": "shop", "segments": 2, "retention_days": 9 });
    assert_eq!((&fetched["plan_id"], &fetched["parameters"]), (&json!(STANDARD), &same));
    {
        let backend = f.backend.lock().unwrap();
        let options = &backend.updates[0].options;
        assert_eq!((options.quota.queries, options.bytes_max), (Some(256), None), "the plan's");
    }
    // The same again changes nothing.
    assert_eq!(f.ask("PATCH", &path, Some(&to_standard)).await, (200, json!({})));
    assert_eq!(kept(&f), (Some(9), 1));
    // Parameters alone: what is fixed stays, what is left out is the plan's.
    assert_eq!(f.ask("PATCH", &path, Some(&days(40))).await.0, 200);
    assert_eq!(kept(&f), (Some(40), 2));
    let nothing = json!({ "service_id": SERVICE, "parameters": {} });
    assert_eq!(f.ask("PATCH", &path, Some(&nothing)).await.0, 200);
    assert_eq!(kept(&f), (Some(30), 3));
    let (_, fetched) = f.ask("GET", &path, None).await;
    assert_eq!(fetched["parameters"], json!({ "index": "shop", "segments": 2 }));
    assert_eq!(state(&f, 0, "?operation=update").await["state"], "succeeded");
    // 38: a repeat of the provisioning is compared with what was asked for at first, and undoes nothing.
    let original = provision_body(json!({ "index": "shop", "segments": 2, "retention_days": 9 }));
    assert_eq!(f.ask("PUT", &path, Some(&original)).await.0, 200);
    let mut patched = provision_body(json!({ "index": "shop", "segments": 2 }));
    patched["plan_id"] = json!(STANDARD);
    assert_eq!(f.ask("PUT", &path, Some(&patched)).await.0, 409);
    assert_eq!(kept(&f), (Some(30), 3));
    // Bindings are of the new plan.
    let mut bind = bind_body(json!({}));
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind)).await.0, 400);
    bind["plan_id"] = json!(STANDARD);
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind)).await.0, 201);
    f.stop().await
}

#[actix_rt::test]
async fn a_plan_is_left_only_where_it_may_be() -> Result<()> {
    let f = with_instance("stays").await?;
    let to = |plan: &str| json!({ "service_id": "s", "plan_id": plan });
    // 51
    let (status, refused) = f.ask("PATCH", &instance("i"), Some(&to("p"))).await;
    assert_eq!(
        (status, &refused["update_repeatable"], &refused["instance_usable"]),
        (422, &json!(false), &json!(true))
    );
    let old = f.bare(0, "PATCH", &instance("i")).basic_auth("admin", Some("open sesame"));
    let (status, refused) = answer(old.header("X-Broker-API-Version", "2.15").json(&to("p"))).await;
    assert!(status == 422 && refused.get("update_repeatable").is_none(), "30: older clients do not know the word");
    // 58
    assert_eq!(f.ask("PUT", &instance("j"), Some(&of("p"))).await.0, 201);
    let bind = json!({ "service_id": "s", "plan_id": "p" });
    assert_eq!(f.ask("PUT", &binding("j", "b"), Some(&bind)).await.0, 201);
    assert_eq!(f.ask("PATCH", &instance("j"), Some(&to("unbound"))).await.0, 422);
    let unbind = format!("{}?service_id=s&plan_id=p", binding("j", "b"));
    assert_eq!(f.ask("DELETE", &unbind, None).await.0, 200);
    assert_eq!(f.ask("PATCH", &instance("j"), Some(&to("unbound"))).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn a_smaller_plan_must_fit_what_was_asked_for() -> Result<()> {
    let f = Fixture::start().await?;
    let mut body = provision_body(json!({ "retention_days": 365 }));
    body["plan_id"] = json!(STANDARD);
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    // 58: the plan gives less than the instance has.
    let smaller = json!({ "service_id": SERVICE, "plan_id": SMALL });
    let (status, refused) = f.ask("PATCH", &instance("i"), Some(&smaller)).await;
    assert_eq!((status, &refused["update_repeatable"]), (422, &json!(false)), "{refused}");
    let fits = json!({ "service_id": SERVICE, "plan_id": SMALL, "parameters": { "retention_days": 30 } });
    assert_eq!(f.ask("PATCH", &instance("i"), Some(&fits)).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn an_upgrade_and_a_context_are_updates_of_their_own() -> Result<()> {
    let f = with_instance("p").await?;
    let path = instance("i");
    let version = async |f: &Fixture| f.ask("GET", &path, None).await.1["maintenance_info"]["version"].clone();
    assert_eq!(version(&f).await, "2.0.0");
    // 56: the version comes with the plan.
    let moved = json!({ "service_id": "s", "plan_id": "q", "maintenance_info": { "version": "3.1.0" } });
    assert_eq!(f.ask("PATCH", &path, Some(&moved)).await.0, 200);
    assert_eq!((version(&f).await, kept(&f)), (json!("3.1.0"), (Some(5), 1)));
    // 39, 53: that of another plan.
    let wrong = json!({ "service_id": "s", "maintenance_info": { "version": "2.0.0" } });
    let (status, refused) = f.ask("PATCH", &path, Some(&wrong)).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("MaintenanceInfoConflict")));
    // 55: no operation, nothing is asked of the back-end.
    let operation = state(&f, 0, "").await;
    let renamed = json!({ "service_id": "s", "context": { "platform": "kubernetes", "instance_name": "new" } });
    assert_eq!(f.ask("PATCH", &path, Some(&renamed)).await, (200, json!({})));
    assert_eq!((state(&f, 0, "").await, kept(&f).1), (operation, 1));
    f.stop().await
}

#[actix_rt::test]
async fn an_upgrade_follows_the_catalog() -> Result<()> {
    let f = with_instance("p").await?;
    let path = instance("i");
    let newer = CATALOG.replace("2.0.0", "2.1.0").replace("retention_days: 3", "retention_days: 4");
    std::fs::write(f.world.data_dir().with_file_name("catalog.yaml"), newer)?;
    let upgrade = json!({ "service_id": "s", "maintenance_info": { "version": "2.1.0" } });
    // 56: as soon as the new catalog is in force.
    eventually(SOON, async || f.ask("PATCH", &path, Some(&upgrade)).await.0 == 200).await;
    let (_, fetched) = f.ask("GET", &path, None).await;
    assert_eq!((&fetched["maintenance_info"]["version"], kept(&f)), (&json!("2.1.0"), (Some(4), 1)));
    assert_eq!(f.ask("PATCH", &path, Some(&upgrade)).await.0, 200);
    assert_eq!(kept(&f).1, 1, "it is upgraded already");
    f.stop().await
}

#[actix_rt::test]
async fn an_update_under_way_is_left_alone() -> Result<()> {
    let f = shop().await?;
    f.backend.lock().unwrap().updates_stuck = true;
    let path = format!("{}?{ASYNC}", instance("i"));
    let (status, accepted) = f.ask("PATCH", &path, Some(&days(60))).await;
    assert_eq!((status, accepted["operation"].is_string()), (202, true));
    // 52: the same token; 53, 91: only another change is refused.
    assert_eq!(f.ask("PATCH", &path, Some(&days(60))).await, (202, accepted));
    let (status, refused) = f.ask("PATCH", &path, Some(&days(61))).await;
    assert_eq!((status, refused["error"].as_str()), (422, Some("ConcurrencyError")));
    // 46
    assert_eq!(f.ask("GET", &instance("i"), None).await.1["error"], "ConcurrencyError");
    // 85: the old plan is only a hint.
    let query = format!("?service_id={SERVICE}&plan_id={STANDARD}&operation=update");
    assert_eq!(state(&f, 0, &query).await["state"], "in progress");
    // 37: it is provisioned all the same, and can be used.
    let original = provision_body(json!({ "index": "shop", "segments": 2, "retention_days": 9 }));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&original)).await.0, 200);
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind_body(json!({})))).await.0, 201);
    f.backend.lock().unwrap().updates_stuck = false;
    eventually(SOON, async || state(&f, 0, "").await["state"] == "succeeded").await;
    assert_eq!(f.ask("GET", &instance("i"), None).await.1["parameters"]["retention_days"], 60);
    f.stop().await
}

#[actix_rt::test]
async fn a_failed_update_leaves_what_was_there() -> Result<()> {
    let f = shop().await?;
    f.backend.lock().unwrap().refused_days = Some(66);
    let (status, refused) = f.ask("PATCH", &instance("i"), Some(&days(66))).await;
    // 57, 88
    assert_eq!(
        (status, &refused["instance_usable"], &refused["update_repeatable"]),
        (400, &json!(true), &json!(false))
    );
    let failed = state(&f, 0, "").await;
    assert_eq!((&failed["state"], &failed["instance_usable"]), (&json!("failed"), &json!(true)));
    assert!(failed["description"].as_str().unwrap().contains("so many days"), "{failed}");
    let (status, fetched) = f.ask("GET", &instance("i"), None).await;
    assert_eq!((status, &fetched["parameters"]["retention_days"]), (200, &json!(9)));
    // Half of it was done, and is undone.
    eventually(SOON, async || kept(&f) == (Some(9), 2)).await;
    assert_eq!(f.ask("PATCH", &instance("i"), Some(&days(12))).await.0, 200);
    assert_eq!(kept(&f), (Some(12), 3));
    f.stop().await
}

#[actix_rt::test]
async fn deletion_wins_over_an_update() -> Result<()> {
    let f = shop().await?;
    f.backend.lock().unwrap().updates_stuck = true;
    assert_eq!(f.ask("PATCH", &format!("{}?{ASYNC}", instance("i")), Some(&days(60))).await.0, 202);
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 200);
    f.backend.lock().unwrap().updates_stuck = false;
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    assert_eq!(f.ask("PATCH", &instance("i"), Some(&days(60))).await.0, 404);
    f.stop().await
}

#[actix_rt::test]
async fn an_update_survives_the_death_of_its_leader() -> Result<()> {
    let mut f = Fixture::empty(None, &[]).await?;
    f.add_mortal("a").await?;
    f.add_replica("b").await?;
    let body = provision_body(json!({ "index": "shop", "retention_days": 9 }));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    f.backend.lock().unwrap().updates_stuck = true;
    let path = format!("{}?{ASYNC}", instance("i"));
    let (status, accepted) = f.ask("PATCH", &path, Some(&days(60))).await;
    assert_eq!(status, 202);
    f.cut("a");
    // 89: the same operation under the next leader, who finishes it.
    eventually(SOON, async || f.try_at(1, "PATCH", &path, Some(&days(60))).await == Some((202, accepted.clone())))
        .await;
    f.backend.lock().unwrap().updates_stuck = false;
    eventually(SOON, async || state(&f, 1, "").await["state"] == "succeeded").await;
    assert_eq!(kept(&f).0, Some(60));
    f.stop().await
}
