//! Points of the checklist that no other room of these tests proves.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::eventually;

use super::{APP, APP_PLAN, CATALOG, SEALED, SLOW, SLOW_PLAN};
use crate::{Fixture, SERVICE, SMALL, SOON, STANDARD, answer, bind_body, binding, ids, instance, provision_body};

const API: &str = "X-Broker-API-Version";
const ASYNC: &str = "accepts_incomplete=true";
const OFTEN: &str = "broker.reload_interval=100ms";

/// The descriptions that clients compare letter by letter.
const ASYNC_REQUIRED: &str = "This service plan requires client support for asynchronous service operations.";
const REQUIRES_APP: &str = "This service supports generation of credentials through binding an application only.";
const CONCURRENCY: &str = "The Service Broker does not support concurrent requests that mutate the same resource.";

fn of(service: &str, plan: &str) -> Value {
    let mut body = provision_body(json!({}));
    (body["service_id"], body["plan_id"]) = (json!(service), json!(plan));
    body
}

fn said(refused: &(u16, Value)) -> (u16, &str, &str) {
    (refused.0, refused.1["error"].as_str().unwrap(), refused.1["description"].as_str().unwrap())
}

#[actix_rt::test]
async fn several_credentials_are_valid_at_once_and_change_without_a_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("credentials");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("basic cf:one\nbearer kube:t0ken\n");
    let set = format!("broker.credentials=file:{}", path.display());
    let f = Fixture::start_with(None, &[&set, OFTEN]).await?;
    let basic = |name: &'static str, password: &'static str| {
        let request = f.bare(0, "GET", "/v2/catalog").basic_auth(name, Some(password)).header(API, "2.17");
        async move { answer(request).await.0 }
    };
    let bearer = |token: &'static str| {
        let request = f.bare(0, "GET", "/v2/catalog").bearer_auth(token).header(API, "2.17");
        async move { answer(request).await.0 }
    };
    assert_eq!((basic("admin", "open sesame").await, basic("cf", "one").await, bearer("t0ken").await), (200, 200, 200));
    assert_eq!((basic("cf", "open sesame").await, basic("admin", "one").await, bearer("one").await), (401, 401, 401));
    // A rotation: both are valid, then the new one alone.
    write("basic cf:one\nbasic cf:two\n");
    eventually(SOON, async || basic("cf", "two").await == 200).await;
    assert_eq!((basic("cf", "one").await, bearer("t0ken").await), (200, 401));
    write("basic cf:two\n");
    eventually(SOON, async || basic("cf", "one").await == 401).await;
    assert_eq!(basic("cf", "two").await, 200);
    // What cannot be read changes nothing.
    write("cf:three\n");
    eventually(SOON, async || telemetry::render().contains("outcome=\"credentials refused\"")).await;
    assert_eq!((basic("cf", "two").await, basic("admin", "open sesame").await), (200, 200));
    f.stop().await
}

#[actix_rt::test]
async fn unknown_fields_are_ignored_at_every_level() -> Result<()> {
    let f = Fixture::start().await?;
    let more = json!({ "unknown": { "deep": [1, null] }, "labels": {} });
    let mut body = provision_body(json!({}));
    for key in ["unknown", "context", "maintenance_info", "metadata", "previous_values"] {
        body[key] = more.clone();
    }
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    let update = json!({
        "service_id": SERVICE, "unknown": more, "context": more, "maintenance_info": more, "previous_values": more,
    });
    assert_eq!(f.ask("PATCH", &instance("i"), Some(&update)).await.0, 200);
    let mut bind = bind_body(json!({}));
    for key in ["unknown", "context", "bind_resource", "metadata"] {
        bind[key] = more.clone();
    }
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind)).await.0, 201);
    let query = format!("{}&unknown=1&also[]=2", ids(SMALL));
    assert_eq!(f.ask("DELETE", &format!("{}{query}", binding("i", "b")), None).await.0, 200);
    f.stop().await
}

#[actix_rt::test]
async fn ids_may_be_any_text() -> Result<()> {
    let f = Fixture::start().await?;
    let long = "l".repeat(1000);
    let odd = ["a%2Fb", "a.b", "%C3%A9%20%25", "*", "a%00b", &long];
    for (number, id) in odd.iter().enumerate() {
        let (path, bound) = (instance(id), binding(id, id));
        let body = provision_body(json!({ "index": format!("odd{number}") }));
        assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 201, "{id}");
        assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 200, "{id}");
        assert_eq!(f.ask("GET", &path, None).await.0, 200, "{id}");
        assert_eq!(f.ask("PUT", &bound, Some(&bind_body(json!({})))).await.0, 201, "{id}");
        assert_eq!(f.ask("GET", &bound, None).await.0, 200, "{id}");
    }
    assert_eq!(f.backend.lock().unwrap().indexes.len(), odd.len(), "each is another instance");
    // The encoding does not matter, and an encoded slash does not split.
    assert_eq!(f.ask("GET", &instance("%61%2fb"), None).await.0, 200);
    assert_eq!(f.ask("GET", &instance("a/b"), None).await.0, 404);
    for id in odd {
        assert_eq!(f.ask("DELETE", &format!("{}{}", binding(id, id), ids(SMALL)), None).await.0, 200, "{id}");
        assert_eq!(f.ask("DELETE", &format!("{}{}", instance(id), ids(SMALL)), None).await.0, 200, "{id}");
        assert_eq!(f.ask("DELETE", &format!("{}{}", instance(id), ids(SMALL)), None).await.0, 410, "{id}");
    }
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}

/// What strict clients of a version know; anything else is an error to them.
fn known(of_plan: bool, minor: u32) -> BTreeSet<&'static str> {
    let of_service = [
        (11, "id name description tags requires bindable metadata dashboard_client plan_updateable plans"),
        (14, "instances_retrievable bindings_retrievable"),
        (16, "allow_context_updates"),
    ];
    let of_plans = [
        (11, "id name description metadata free bindable"),
        (13, "schemas"),
        (15, "plan_updateable maximum_polling_duration maintenance_info"),
        (17, "binding_rotatable"),
    ];
    let rows: &[(u32, &'static str)] = if of_plan { &of_plans } else { &of_service };
    rows.iter().filter(|(since, _)| *since <= minor).flat_map(|(_, words)| words.split(' ')).collect()
}

#[actix_rt::test]
async fn the_catalog_is_what_strict_clients_take() -> Result<()> {
    let f = Fixture::start_with(None, &["broker.offerings="]).await?;
    for minor in [11, 12, 13, 14, 15, 16, 17, 18, 100] {
        let request = f.bare(0, "GET", "/v2/catalog").basic_auth("admin", Some("open sesame"));
        let (status, catalog) = answer(request.header(API, format!("2.{minor}"))).await;
        assert_eq!(status, 200, "2.{minor}");
        assert_eq!(catalog.as_object().unwrap().len(), 1);
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        let services = catalog["services"].as_array().unwrap();
        assert_eq!(services.len(), 3);
        for service in services {
            check_entry(service, &known(false, minor), &mut ids);
            assert!(names.insert(service["name"].as_str().unwrap()) && service["bindable"].is_boolean());
            let plans = service["plans"].as_array().unwrap();
            let mut of_plans = BTreeSet::new();
            assert!(!plans.is_empty());
            for plan in plans {
                check_entry(plan, &known(true, minor), &mut ids);
                assert!(of_plans.insert(plan["name"].as_str().unwrap()) && plan["free"].is_boolean());
                for pointer in ["service_instance/create", "service_instance/update", "service_binding/create"] {
                    let Some(schema) = plan.pointer(&format!("/schemas/{pointer}/parameters")) else {
                        assert!(minor < 13, "{pointer} at 2.{minor}");
                        continue;
                    };
                    assert!(schema["$schema"].is_string() && schema.to_string().len() <= 64 * 1024);
                }
            }
        }
    }
    f.stop().await
}

fn check_entry<'a>(entry: &'a Value, known: &BTreeSet<&str>, ids: &mut BTreeSet<&'a str>) {
    let entry = entry.as_object().unwrap();
    let newer: Vec<_> = entry.keys().filter(|key| !known.contains(key.as_str())).collect();
    assert!(newer.is_empty(), "{newer:?}");
    for key in ["id", "name", "description"] {
        assert!(!entry[key].as_str().unwrap().is_empty());
    }
    let plain = |s: &str| s.len() <= 63 && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    assert!(plain(entry["id"].as_str().unwrap()) && plain(entry["name"].as_str().unwrap()));
    assert!(ids.insert(entry["id"].as_str().unwrap()), "ids are unique in the whole catalog");
}

#[actix_rt::test]
async fn an_asynchronous_plan_is_worked_on_behind_a_token() -> Result<()> {
    let mut f = Fixture::start_with(Some(CATALOG), &[]).await?;
    f.add_replica("b").await?;
    let (path, body) = (instance("slow"), of(SLOW, SLOW_PLAN));
    let create = format!("{path}?{ASYNC}");
    let query = format!("?service_id={SLOW}&plan_id={SLOW_PLAN}");
    // 36: nothing is created.
    for replica in [0, 1] {
        for path in [path.clone(), format!("{path}?accepts_incomplete=false")] {
            let refused = f.ask_at(replica, "PUT", &path, Some(&body)).await;
            assert_eq!(said(&refused), (422, "AsyncRequired", ASYNC_REQUIRED));
        }
    }
    assert_eq!(f.ask("GET", &format!("{path}/last_operation"), None).await.0, 404);
    assert_eq!(f.ask("DELETE", &format!("{path}{query}"), None).await.0, 410);
    // 35, 37, 40: the same token from whoever is asked.
    f.backend.lock().unwrap().stuck = true;
    let (status, accepted) = f.ask_at(0, "PUT", &create, Some(&body)).await;
    let token = accepted["operation"].as_str().unwrap().to_owned();
    assert_eq!((status, accepted["dashboard_url"].is_string()), (202, true));
    assert!(token.len() <= 10_000);
    assert_eq!(f.ask_at(1, "PUT", &create, Some(&body)).await, (202, accepted));
    // 43, 45, 81 to 85: in progress, whatever the platform takes for the token.
    for hint in ["", "?operation=provision", &format!("?operation={token}"), "?plan_id=other&service_id=other"] {
        for replica in [0, 1] {
            let (status, body) = f.ask_at(replica, "GET", &format!("{path}/last_operation{hint}"), None).await;
            assert_eq!((status, body["state"].as_str()), (200, Some("in progress")), "{hint}");
        }
        assert_eq!(f.ask("GET", &path, None).await.0, 404);
    }
    let polled = f.request(0, "GET", &format!("{path}/last_operation")).send().await?;
    assert!(polled.headers()["retry-after"].to_str()?.parse::<u64>()? >= 1);
    f.backend.lock().unwrap().stuck = false;
    ended(&f, &format!("{path}/last_operation?operation={token}")).await;
    // 44, 37: it can be fetched at once, and the repeat is complete.
    assert_eq!(f.ask_at(1, "GET", &path, None).await.0, 200);
    assert_eq!(f.ask_at(1, "PUT", &create, Some(&body)).await.0, 200);
    // 62, 65: a binding can be had synchronously, also of a plan that is slow.
    let bind = json!({ "service_id": SLOW, "plan_id": SLOW_PLAN });
    assert_eq!(f.ask_at(1, "PUT", &binding("slow", "b"), Some(&bind)).await.0, 201);
    f.backend.lock().unwrap().issues_stuck = true;
    let (status, accepted) = f.ask("PUT", &format!("{}?{ASYNC}", binding("slow", "c")), Some(&bind)).await;
    f.backend.lock().unwrap().issues_stuck = false;
    assert!(status == 202 && accepted["operation"].is_string() && accepted.get("credentials").is_none(), "{accepted}");
    ended(&f, &format!("{}/last_operation", binding("slow", "c"))).await;
    assert!(f.ask("GET", &binding("slow", "c"), None).await.1["credentials"]["token"].is_string());
    // 75, 76, 87
    let refused = f.ask_at(1, "DELETE", &format!("{path}{query}"), None).await;
    assert_eq!(said(&refused), (422, "AsyncRequired", ASYNC_REQUIRED));
    f.backend.lock().unwrap().deletions_stuck = true;
    let (status, accepted) = f.ask_at(1, "DELETE", &format!("{path}{query}&{ASYNC}"), None).await;
    assert_eq!(status, 202);
    f.backend.lock().unwrap().deletions_stuck = false;
    let token = accepted["operation"].as_str().unwrap();
    let poll = |hint: String| {
        let (f, path) = (&f, format!("{path}/last_operation{hint}"));
        async move { f.ask_at(1, "GET", &path, None).await.0 }
    };
    eventually(SOON, async || poll(format!("?operation={token}")).await == 410).await;
    assert_eq!((poll(String::new()).await, poll("?operation=deprovision".into()).await), (200, 200));
    assert_eq!(f.ask("DELETE", &format!("{path}{query}&{ASYNC}"), None).await.0, 410);
    f.stop().await
}

async fn ended(f: &Fixture, path: &str) {
    let succeeded = async || f.ask("GET", path, None).await.1["state"] == "succeeded";
    eventually(SOON, succeeded).await;
}

#[actix_rt::test]
async fn a_wanted_maintenance_version_is_the_plans() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    let path = instance("i");
    for (plan, info, status) in [
        (SMALL, json!({ "version": "1.2.4" }), 422),
        (STANDARD, json!({ "version": "1.2.3" }), 422),
        (SMALL, json!({ "version": 7 }), 400),
        (SMALL, json!([]), 400),
    ] {
        let mut body = of(SERVICE, plan);
        body["maintenance_info"] = info;
        let refused = f.ask("PUT", &path, Some(&body)).await;
        assert_eq!(refused.0, status, "{body}");
        assert!(status == 400 || refused.1["error"] == "MaintenanceInfoConflict");
        assert_eq!(f.ask("DELETE", &format!("{path}{}", ids(plan)), None).await.0, 410, "nothing was created");
    }
    for (id, info) in [("i", json!({ "version": "1.2.3" })), ("j", json!({})), ("k", json!({ "description": "d" }))] {
        let mut body = of(SERVICE, SMALL);
        body["maintenance_info"] = info;
        assert_eq!(f.ask("PUT", &instance(id), Some(&body)).await.0, 201, "{body}");
    }
    let (_, there) = f.ask("GET", &path, None).await;
    assert_eq!(there["maintenance_info"]["version"], "1.2.3");
    let old = f.bare(0, "GET", &path).basic_auth("admin", Some("open sesame")).header(API, "2.14");
    assert!(answer(old).await.1.get("maintenance_info").is_none());
    f.stop().await
}

#[actix_rt::test]
async fn what_is_being_deprovisioned_takes_nothing_and_says_why() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    let (path, body) = (instance("i"), provision_body(json!({})));
    assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, 201);
    f.backend.lock().unwrap().deletions_stuck = true;
    let delete = format!("{path}{}&{ASYNC}", ids(SMALL));
    let (status, accepted) = f.ask("DELETE", &delete, None).await;
    assert_eq!(status, 202);
    // 75: the same token.
    assert_eq!(f.ask("DELETE", &delete, None).await, (202, accepted));
    // 41, 53
    let refused = f.ask("PUT", &path, Some(&body)).await;
    assert_eq!(said(&refused), (422, "ConcurrencyError", CONCURRENCY));
    let refused = f.ask("PATCH", &path, Some(&json!({ "service_id": SERVICE, "plan_id": STANDARD }))).await;
    assert_eq!(said(&refused), (422, "ConcurrencyError", CONCURRENCY));
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    f.backend.lock().unwrap().deletions_stuck = false;
    eventually(SOON, async || f.ask("DELETE", &delete, None).await.0 == 410).await;
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}

#[actix_rt::test]
async fn offerings_may_need_an_application_and_plans_may_not_be_bindable() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[]).await?;
    assert_eq!(f.ask("PUT", &instance("app"), Some(&of(APP, APP_PLAN))).await.0, 201);
    let path = binding("app", "b");
    let mut bind = json!({ "service_id": APP, "plan_id": APP_PLAN });
    // 63
    for resource in [json!({}), json!({ "app_guid": "" }), json!({ "route": "r" })] {
        bind["bind_resource"] = resource;
        let refused = f.ask("PUT", &path, Some(&bind)).await;
        assert_eq!(said(&refused), (422, "RequiresApp", REQUIRES_APP));
    }
    assert_eq!(f.ask("GET", &path, None).await.0, 404);
    bind["bind_resource"] = json!({ "app_guid": "a" });
    assert_eq!(f.ask("PUT", &path, Some(&bind)).await.0, 201);
    // 61
    assert_eq!(f.ask("PUT", &instance("sealed"), Some(&of(SERVICE, SEALED))).await.0, 201);
    let bind = json!({ "service_id": SERVICE, "plan_id": SEALED });
    assert_eq!(f.ask("PUT", &binding("sealed", "b"), Some(&bind)).await.0, 400);
    // 24: a platform can know it before.
    let (_, catalog) = f.ask("GET", "/v2/catalog", None).await;
    let plans = catalog["services"][0]["plans"].as_array().unwrap();
    assert_eq!(plans.iter().find(|plan| plan["id"] == SEALED).unwrap()["bindable"], false);
    f.stop().await
}

#[actix_rt::test]
async fn a_plan_that_leaves_the_catalog_serves_its_instances() -> Result<()> {
    let f = Fixture::start_with(Some(CATALOG), &[OFTEN]).await?;
    assert_eq!(f.ask("PUT", &instance("i"), Some(&provision_body(json!({})))).await.0, 201);
    let file = f.world.data_dir().with_file_name("catalog.yaml");
    let offered = async || {
        let (_, catalog) = f.ask("GET", "/v2/catalog", None).await;
        catalog["services"][0]["plans"].as_array().unwrap().iter().any(|plan| plan["id"] == SMALL)
    };
    // 22: what breaks a rule is not taken.
    std::fs::write(&file, CATALOG.replace("name: small", "name: Small"))?;
    eventually(SOON, async || telemetry::render().contains("outcome=\"catalog refused\"")).await;
    assert!(offered().await);
    let (from, to) = (CATALOG.find("      - id: 5f0a").unwrap(), CATALOG.find("      - id: 8c7d").unwrap());
    std::fs::write(&file, format!("{}{}", &CATALOG[..from], &CATALOG[to..]))?;
    eventually(SOON, async || !offered().await).await;
    // 32, 79: no new ones, and everything for those that are there.
    assert_eq!(f.ask("PUT", &instance("j"), Some(&provision_body(json!({})))).await.0, 400);
    assert_eq!(f.ask("PUT", &instance("i"), Some(&provision_body(json!({})))).await.0, 200);
    assert_eq!(f.ask("GET", &instance("i"), None).await.0, 200);
    assert_eq!(f.ask("PUT", &binding("i", "b"), Some(&bind_body(json!({})))).await.0, 201);
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("i"), ids(SMALL)), None).await.0, 200);
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    f.stop().await
}

#[actix_rt::test]
async fn requests_for_one_instance_are_answered_one_after_the_other() -> Result<()> {
    let mut f = Fixture::start().await?;
    f.add_replica("b").await?;
    assert_eq!(f.ask_at(1, "GET", &instance("i"), None).await.0, 404);
    // 92, 97: sixteen requests that want two different things, over both replicas.
    let bodies = [provision_body(json!({ "index": "one" })), provision_body(json!({ "index": "two" }))];
    let path = instance("i");
    let asks = (0..16).map(|n| f.ask_at(n % 2, "PUT", &path, Some(&bodies[n / 2 % 2])));
    let answers: Vec<(u16, Value)> = stream::iter(asks).buffer_unordered(16).collect().await;
    let count = |status: u16| answers.iter().filter(|(s, _)| *s == status).count();
    assert_eq!((count(201), count(200), count(409)), (1, 7, 8), "{answers:?}");
    assert_eq!(f.backend.lock().unwrap().creations, 1);
    f.stop().await
}

#[actix_rt::test]
async fn the_published_document_needs_credentials_and_no_version() -> Result<()> {
    let f = Fixture::start().await?;
    assert_eq!(answer(f.bare(0, "GET", "/openapi.json")).await.0, 401);
    let (status, document) = answer(f.bare(0, "GET", "/openapi.json").basic_auth("admin", Some("open sesame"))).await;
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.0.3")));
    // 59: our own answers are in it, where the specification is silent.
    let update = &document["paths"]["/v2/service_instances/{instance_id}"]["patch"]["responses"];
    assert!(update.get("404").is_some());
    f.stop().await
}
