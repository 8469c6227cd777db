//! Who may do what.

use anyhow::Result;
use coordinator::password_line;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{Fixture, PASSWORD, stage::SOON, stream};

#[actix_rt::test]
async fn each_user_may_what_the_file_says() -> Result<()> {
    let rest = Fixture::start().await?;
    rest.with_scope("team").await;
    rest.with_scope("other").await;
    for name in ["shop", "till"] {
        rest.ask(Method::POST, "/scopes/team/streams", stream(name, 1)).await;
    }
    let lines = [
        password_line("root", PASSWORD, "prn::*,READ_UPDATE")?,
        password_line("ann", "a", "prn::/scope:team,READ;prn::/scope:team/stream:shop,READ_UPDATE;prn::/,READ")?,
        password_line("bob", "b", "")?,
    ];
    std::fs::write(&rest.passwords, lines.join("\n"))?;
    let ann = (0, Some(("ann", "a")));
    testkit::eventually(SOON, async || rest.ask_as(ann, Method::GET, "/scopes", Value::Null).await.0 == 200).await;
    let seal = json!({ "streamState": "SEALED" });
    for (user, method, path, body, expected) in [
        (Some(("ann", "a")), Method::GET, "/scopes/team", Value::Null, 200),
        (Some(("ann", "a")), Method::GET, "/scopes/other", Value::Null, 403),
        (Some(("ann", "a")), Method::GET, "/scopes/nobody", Value::Null, 403),
        (Some(("ann", "a")), Method::POST, "/scopes", json!({ "scopeName": "x" }), 403),
        (Some(("ann", "a")), Method::POST, "/scopes/team/streams", stream("x", 1), 403),
        (Some(("ann", "a")), Method::GET, "/scopes/team/streams/till", Value::Null, 403),
        (Some(("ann", "a")), Method::PUT, "/scopes/team/streams/till/state", seal.clone(), 403),
        (Some(("ann", "a")), Method::PUT, "/scopes/team/streams/shop/state", seal, 200),
        (Some(("ann", "a")), Method::GET, "/health/details", Value::Null, 403),
        (Some(("ann", "b")), Method::GET, "/scopes/team", Value::Null, 401),
        (Some(("eve", "a")), Method::GET, "/scopes/team", Value::Null, 401),
        (Some(("bob", "b")), Method::GET, "/scopes", Value::Null, 403),
        (None, Method::GET, "/scopes", Value::Null, 401),
        (None, Method::GET, "/ping", Value::Null, 200),
        (None, Method::GET, "/health/status", Value::Null, 200),
    ] {
        let (status, answer) = rest.ask_as((0, user), method.clone(), path, body).await;
        assert_eq!(status, expected, "{user:?} {method} {path}: {answer}");
    }
    let (_, scopes) = rest.ask_as(ann, Method::GET, "/scopes", Value::Null).await;
    assert_eq!(scopes, json!({ "scopes": [{ "scopeName": "team" }] }), "others are not shown");
    let (_, streams) = rest.ask_as(ann, Method::GET, "/scopes/team/streams", Value::Null).await;
    assert_eq!(
        (streams["streams"].as_array().unwrap().len(), &streams["streams"][0]["streamName"]),
        (1, &json!("shop"))
    );
    rest.stop().await
}

#[actix_rt::test]
async fn a_changed_file_counts_and_a_bad_one_does_not() -> Result<()> {
    let rest = Fixture::start().await?;
    let status = async |user, password| {
        let user = (0, Some((user, password)));
        rest.ask_as(user, Method::GET, "/scopes", Value::Null).await.0
    };
    assert_eq!(status("root", PASSWORD).await, 200);
    let root = |password| password_line("root", password, "prn::*,READ_UPDATE");
    std::fs::write(&rest.passwords, format!("{}\nann:plain:prn::*,READ", root("new")?))?;
    let counted = |line: &str| telemetry::render().contains(line);
    let refused = "lb_coordinator_rest_password_files_total{result=\"refused\"}";
    testkit::eventually(SOON, async || counted(refused)).await;
    assert_eq!(status("root", "new").await, 401);
    assert!(counted("lb_coordinator_rest_refused_total{reason=\"wrong\"}"), "failed attempts are counted");
    assert_eq!(status("root", PASSWORD).await, 200);
    std::fs::write(&rest.passwords, root("newer")?)?;
    testkit::eventually(SOON, async || status("root", "newer").await == 200).await;
    assert_eq!(status("root", PASSWORD).await, 401, "what was proven once is forgotten with the file");
    std::fs::remove_file(&rest.passwords)?;
    assert_eq!(status("root", "newer").await, 200);
    rest.stop().await
}

#[actix_rt::test]
async fn without_a_password_file_only_ping_and_health_answer() -> Result<()> {
    let mut rest = Fixture::start().await?;
    rest.add_replica("b", false).await?;
    for (path, expected) in [("/ping", 200), ("/health", 200), ("/health/details", 401), ("/scopes", 401)] {
        let (status, answer) = rest.ask_as((1, Some(("root", PASSWORD))), Method::GET, path, Value::Null).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    rest.stop().await
}
