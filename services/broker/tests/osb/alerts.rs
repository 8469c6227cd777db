//! Default alert rules: they come, change and go with their instance.

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;
use wire::{
    alerter::Rule,
    broker::{AbandonInstance, Abandonment},
    index_provisioner::Reclaim,
};

use crate::{Fixture, SERVICE, SMALL, SOON, ids, instance, provision_body};

fn asked(alerts: Value) -> Value {
    provision_body(json!({ "index": "shop", "alerts": alerts }))
}

fn update(alerts: Value) -> Value {
    json!({ "service_id": SERVICE, "parameters": { "alerts": alerts } })
}

/// All rules: the last part of their names, and their conditions.
fn rules(f: &Fixture) -> Vec<(String, String)> {
    let backend = f.backend.lock().unwrap();
    let name = |rule: &Rule| rule.rule.as_str().rsplit('-').next().unwrap_or_default().to_owned();
    let mut all: Vec<_> = backend.rules.values().map(|rule| (name(rule), rule.condition.clone())).collect();
    all.sort();
    all
}

/// A rule that somebody makes by hand, like one that is there.
fn make_by_hand(f: &Fixture, name: &str, index: &str) -> Result<()> {
    let mut backend = f.backend.lock().unwrap();
    let like = backend.rules.values().next().cloned().unwrap();
    let rule = Rule { rule: name.parse()?, index: index.parse()?, ..like };
    backend.rules.insert(rule.rule.clone(), rule);
    Ok(())
}

fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, condition)| ((*name).to_owned(), (*condition).to_owned())).collect()
}

#[actix_rt::test]
async fn default_rules_come_change_and_go_with_their_instance() -> Result<()> {
    let f = Fixture::start().await?;
    let path = instance("i");
    let body = asked(json!([
        { "name": "errors", "when": "error_count", "above": 100, "webhook": "https://hooks.example/e" },
        { "name": "oom", "when": "text", "text": "out of memory" },
    ]));
    for status in [201, 200] {
        assert_eq!(f.ask("PUT", &path, Some(&body)).await.0, status);
        assert_eq!(rules(&f), named(&[("errors", "errors > 100"), ("oom", "seen > 0")]));
    }
    let own = f.backend.lock().unwrap().rules.values().next().cloned().unwrap();
    assert_eq!((own.index.as_str(), own.webhook.as_deref()), ("shop", Some("https://hooks.example/e")));
    // What users make by hand on the same index changes with nothing, and goes with the index: its name may become another's.
    make_by_hand(&f, "by-hand", "shop")?;
    let hand = ("hand", "errors > 100");

    let to = update(json!([{ "name": "errors", "when": "error_count", "above": 7 }]));
    assert_eq!(f.ask("PATCH", &path, Some(&to)).await.0, 200);
    assert_eq!(rules(&f), named(&[("errors", "errors > 7"), hand]));
    let (status, body) = f.ask("GET", &path, None).await;
    assert_eq!((status, &body["parameters"]["alerts"][0]["above"]), (200, &json!(7)));
    // A refusal for good leaves what was there.
    f.backend.lock().unwrap().refused_days = Some(9);
    let mut refused = update(json!([{ "name": "many", "when": "error_share", "above": 0.1 }]));
    refused["parameters"]["retention_days"] = json!(9);
    assert_eq!(f.ask("PATCH", &path, Some(&refused)).await.0, 400);
    eventually(SOON, async || rules(&f) == named(&[("errors", "errors > 7"), hand])).await;

    make_by_hand(&f, "by-another", "bank")?;
    let another = ("another", "errors > 100");
    assert_eq!(f.ask("DELETE", &format!("{path}{}", ids(SMALL)), None).await.0, 200);
    assert_eq!(rules(&f), named(&[another]));
    let orders = f.backend.lock().unwrap().orders.clone();
    assert!(orders.is_sorted() && orders[0] > 0 && orders[0] < orders[orders.len() - 1], "{orders:?}");
    f.stop().await
}

#[actix_rt::test]
async fn a_rule_that_cannot_be_is_refused_before_anything_is_begun() -> Result<()> {
    let f = Fixture::start().await?;
    let query = |query: &str, condition: &str| json!([{ "name": "a", "when": "query", "query": query, "condition": condition }]);
    let good = "SELECT count(*) AS n FROM tumble({index}, INTERVAL '1m') GROUP BY window_start";
    for (alerts, words) in [
        (json!([{ "name": "a", "when": "luck" }]), "parameters/alerts/0/when"),
        (json!([{ "name": "a", "when": "error_share" }]), "parameters/alerts/0/above: is needed"),
        (
            query("SELECT * FROM {index}", "n > 1"),
            "parameters/alerts/0/query: a rule needs a query with windows (line 1",
        ),
        (query(good, "m > 1"), "parameters/alerts/0/condition: the query has no aggregate m (line 1"),
        (query(good, "n > many"), "parameters/alerts/0/condition: expected a number, found many (line 1, column 5)"),
        (query(&good.replace("{index}", "bank"), "n > 1"), "parameters/alerts/0/query: it reads bank"),
    ] {
        let (status, body) = f.ask("PUT", &instance("i"), Some(&asked(alerts))).await;
        let said = body["description"].as_str().unwrap_or_default();
        assert!(status == 400 && said.starts_with(words), "{status} {said}");
    }
    assert!(f.backend.lock().unwrap().orders.is_empty(), "nothing was begun");
    f.stop().await
}

#[actix_rt::test]
async fn an_index_that_cannot_have_its_rules_is_taken_back() -> Result<()> {
    let f = Fixture::start().await?;
    f.backend.lock().unwrap().rules_max = Some(0);
    let alerts = json!([{ "name": "errors", "when": "error_count" }]);
    let (status, body) = f.ask("PUT", &instance("i"), Some(&asked(alerts.clone()))).await;
    assert!(status == 400 && body["description"].as_str().unwrap().contains("as many rules"), "{status} {body}");
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    // What was there before is not deleted for want of a rule.
    let mut adopting = asked(alerts.clone());
    adopting["parameters"]["adopt_existing"] = json!(true);
    assert_eq!(f.ask("PUT", &instance("j"), Some(&adopting)).await.0, 400);
    assert_eq!(f.backend.lock().unwrap().updates[0].options.reclaim, Reclaim::Retain);
    assert!(f.backend.lock().unwrap().indexes.is_empty());
    // An alerter that does not answer is waited for.
    {
        let mut backend = f.backend.lock().unwrap();
        (backend.rules_max, backend.rules_stuck) = (None, true);
    }
    let path = format!("{}?accepts_incomplete=true", instance("k"));
    assert_eq!(f.ask("PUT", &path, Some(&asked(alerts))).await.0, 202);
    f.backend.lock().unwrap().rules_stuck = false;
    let operation = format!("{}/last_operation", instance("k"));
    eventually(SOON, async || f.ask("GET", &operation, None).await.1["state"] == "succeeded").await;
    assert_eq!(rules(&f).len(), 1);
    f.stop().await
}

#[actix_rt::test]
async fn an_adopted_index_is_taken_back_however_often_it_takes() -> Result<()> {
    let f = Fixture::start().await?;
    {
        let mut backend = f.backend.lock().unwrap();
        (backend.rules_max, backend.rules_stay) = (Some(1), 2);
    }
    let mut body = asked(json!([
        { "name": "errors", "when": "error_count" },
        { "name": "oom", "when": "text", "text": "out of memory" },
    ]));
    body["parameters"]["adopt_existing"] = json!(true);
    let (status, body) = f.ask("PUT", &instance("i"), Some(&body)).await;
    assert!(status == 400 && body["description"].as_str().unwrap().contains("as many rules"), "{status} {body}");
    assert_eq!(rules(&f), named(&[]));
    {
        let backend = f.backend.lock().unwrap();
        assert!(backend.indexes.is_empty() && backend.rules_stay == 0);
    }
    f.stop().await
}

#[actix_rt::test]
async fn rules_on_a_forgotten_index_go_with_it() -> Result<()> {
    let f = Fixture::start_with(None, &["broker.reconcile_interval=100ms"]).await?;
    let body = asked(json!([{ "name": "errors", "when": "error_count" }]));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    make_by_hand(&f, "by-hand", "shop")?;
    make_by_hand(&f, "by-another", "bank")?;
    // An alerter that is late costs a look, not the rules' end.
    f.backend.lock().unwrap().rules_stay = 1;
    let forget = Abandonment { instance: "i".parse()?, delete: false, force: true, by: "olga".to_owned() };
    f.host.bus.call::<AbandonInstance>(&(), &forget).await?;
    eventually(SOON, async || f.backend.lock().unwrap().indexes.is_empty()).await;
    assert_eq!(rules(&f), named(&[("another", "errors > 0")]));
    assert_eq!(f.backend.lock().unwrap().rules_stay, 0);
    f.stop().await
}

#[actix_rt::test]
async fn an_index_that_never_was_made_costs_nobody_his_rules() -> Result<()> {
    let f = Fixture::start().await?;
    let body = asked(json!([{ "name": "errors", "when": "error_count" }]));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    // Somebody else's, of whom only the provisioner knows.
    make_by_hand(&f, "by-another", "bank")?;
    f.backend.lock().unwrap().stuck = true;
    let mut body = asked(json!([{ "name": "errors", "when": "error_count" }]));
    body["parameters"]["index"] = json!("bank");
    assert_eq!(f.ask("PUT", &format!("{}?accepts_incomplete=true", instance("j")), Some(&body)).await.0, 202);
    assert_eq!(f.ask("DELETE", &format!("{}{}", instance("j"), ids(SMALL)), None).await.0, 200);
    assert_eq!(rules(&f), named(&[("another", "errors > 0"), ("errors", "errors > 0")]));
    f.stop().await
}
