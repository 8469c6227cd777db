//! The Open Service Broker API.

use anyhow::{Result, ensure};
use logboom_tests::Answer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::row::{Row, Section, Seen, World};

const FRESH: &str = "/v2/service_instances/never";

pub(crate) fn section() -> Section {
    Section {
        title: "The broker",
        words: "The Open Service Broker API 2.17: statuses and reserved error words are the specification's.",
        rows: requests().into_iter().chain(states()).collect(),
    }
}

/// A provision call with some of its members changed; it must create nothing.
async fn provision(world: &World, change: Value) -> Result<Seen> {
    let mut body = world.api().provision_body(json!({ "index": "never" })).await?;
    if let (Some(body), Value::Object(change)) = (body.as_object_mut(), change) {
        body.extend(change);
    }
    let answer = world.api().osb(Method::PUT, FRESH, Some(&body)).await?;
    let there = world.api().osb(Method::GET, FRESH, None).await?;
    ensure!(there.status == 404, "an instance was created");
    Ok(Seen::http(&answer))
}

async fn osb(world: &World, method: Method, path: &str, body: Option<Value>) -> Result<Seen> {
    Ok(Seen::http(&world.api().osb(method, path, body.as_ref()).await?))
}

async fn ids(world: &World) -> Result<String> {
    let (service, plan) = world.api().plan().await?;
    Ok(format!("service_id={service}&plan_id={plan}"))
}

fn requests() -> Vec<Row> {
    vec![
        Row {
            input: "no credentials",
            answer: "401 Unauthorized",
            says: &["the credentials of the platform are missing or wrong"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let url = format!("{}/v2/catalog", w.api().broker);
                    let request = w.api().bare(Method::GET, &url).header("X-Broker-API-Version", "2.17");
                    Ok(Seen::http(&Answer::of(request).await?))
                })
            },
        },
        Row {
            input: "no `X-Broker-API-Version`, or one before 2.11",
            answer: "412 PreconditionFailed",
            says: &["X-Broker-API-Version must be 2.11 or a later 2.x"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let ask = |version: Option<&str>| {
                        let url = format!("{}/v2/catalog", w.api().broker);
                        let request =
                            w.api().bare(Method::GET, &url).basic_auth("admin", Some(&w.api().broker_password));
                        Answer::of(match version {
                            Some(version) => request.header("X-Broker-API-Version", version),
                            None => request,
                        })
                    };
                    let old = Seen::http(&ask(Some("2.9")).await?);
                    ensure!(old.answer == "412 PreconditionFailed", "2.9 was answered {}", old.answer);
                    Ok(Seen::http(&ask(None).await?))
                })
            },
        },
        Row {
            input: "a body that is not JSON",
            answer: "400 BadRequest",
            says: &["the body is not JSON"],
            then: "nothing is created",
            run: |w| {
                Box::pin(async {
                    Ok(Seen::http(&Answer::of(w.api().broker(Method::PUT, FRESH).body("{\"service_id\"")).await?))
                })
            },
        },
        Row {
            input: "a provision call without `space_guid`",
            answer: "400 BadRequest",
            says: &["space_guid is required and must not be empty"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "space_guid": "" }))),
        },
        Row {
            input: "a plan that is not in the catalog",
            answer: "400 BadRequest",
            says: &["plan_id is not a plan of this service"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "plan_id": "gold" }))),
        },
        Row {
            input: "a parameter that the plan's schema does not know",
            answer: "400 BadRequest",
            says: &["parameters", "segmnets"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "parameters": { "segmnets": 4 } }))),
        },
        Row {
            input: "65 segments",
            answer: "400 BadRequest",
            says: &["parameters/segments", "64"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "parameters": { "segments": 65 } }))),
        },
        Row {
            input: "a default alert rule with a condition about a column that its query does not have",
            answer: "400 BadRequest",
            says: &["parameters/alerts/0/condition: the query has no aggregate m (line 1, column 1)"],
            then: "nothing is created",
            run: |w| {
                let query = "SELECT count(*) AS n FROM tumble({index}, INTERVAL '1m') GROUP BY window_start";
                let rule = json!({ "name": "a", "when": "query", "query": query, "condition": "m > 1" });
                Box::pin(provision(w, json!({ "parameters": { "alerts": [rule] } })))
            },
        },
        Row {
            input: "a plan that keeps events on more servers than the installation has",
            answer: "400 BadRequest",
            says: &["the plan durable needs 3 copies of each event, and this installation keeps 1"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "plan_id": "a78aa8e3-d992-48c9-89ec-3d4b6eb41954" }))),
        },
        Row {
            input: "a wanted `maintenance_info` version that is not the plan's",
            answer: "422 MaintenanceInfoConflict",
            says: &["the plan has version 1.0.0; reload the catalog"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "maintenance_info": { "version": "0.9.0" } }))),
        },
        Row {
            input: "a method that a path does not have",
            answer: "405 MethodNotAllowed",
            says: &["POST is not possible here"],
            then: "`Allow` lists those that it has",
            run: |w| Box::pin(osb(w, Method::POST, "/v2/catalog", None)),
        },
    ]
}

fn states() -> Vec<Row> {
    vec![
        Row {
            input: "the id of a service instance with other parameters",
            answer: "409 InstanceDiffers",
            says: &["exists with a different service, plan, parameters, organization or space"],
            then: "the instance stays as it is",
            run: |w| {
                Box::pin(async {
                    let body = w.api().provision_body(json!({ "index": "mine", "segments": 8 })).await?;
                    osb(w, Method::PUT, "/v2/service_instances/mine-instance", Some(body)).await
                })
            },
        },
        Row {
            input: "an index name that another service instance has",
            answer: "400 IndexNameTaken",
            says: &["the name mine is taken by another service instance; choose another one"],
            then: "nothing is created",
            run: |w| Box::pin(provision(w, json!({ "parameters": { "index": "mine" } }))),
        },
        Row {
            input: "a binding of a service instance that does not exist",
            answer: "404 UnknownInstance",
            says: &["there is no service instance never"],
            then: "no credentials are issued",
            run: |w| {
                Box::pin(async {
                    let (service, plan) = w.api().plan().await?;
                    let body = json!({ "service_id": service, "plan_id": plan });
                    osb(w, Method::PUT, &format!("{FRESH}/service_bindings/b"), Some(body)).await
                })
            },
        },
        Row {
            input: "the id of a service binding with another role",
            answer: "409 BindingDiffers",
            says: &["exists with a different instance, service, plan or parameters"],
            then: "the binding stays as it is",
            run: |w| {
                Box::pin(async {
                    let (service, plan) = w.api().plan().await?;
                    let body = json!({ "service_id": service, "plan_id": plan, "parameters": { "role": "write" } });
                    let path = format!("/v2/service_instances/mine-instance/service_bindings/{}", w.reader.id);
                    osb(w, Method::PUT, &path, Some(body)).await
                })
            },
        },
        Row {
            input: "unbinding or deprovisioning without `service_id`",
            answer: "400 BadRequest",
            says: &["service_id is required and must not be empty"],
            then: "nothing is deleted",
            run: |w| Box::pin(osb(w, Method::DELETE, "/v2/service_instances/mine-instance", None)),
        },
        Row {
            input: "unbinding what is not bound",
            answer: "410 Gone",
            says: &["there is no such service binding"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let path = format!("/v2/service_instances/mine-instance/service_bindings/never?{}", ids(w).await?);
                    osb(w, Method::DELETE, &path, None).await
                })
            },
        },
        Row {
            input: "deprovisioning what is not there",
            answer: "410 Gone",
            says: &["there is no such service instance"],
            then: "",
            run: |w| Box::pin(async { osb(w, Method::DELETE, &format!("{FRESH}?{}", ids(w).await?), None).await }),
        },
    ]
}
