//! Pravega's paths on real processes: what is made over REST carries events.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use logboom_tests::{Answer, Cluster, Options, Streams, Workdir, eventually, free_port, logboom};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    numbered::{LONG, Numbered, assert_exact, witness},
    shared::HASTE,
};

const PASSWORD: &str = "open sesame";

/// A line of the password file, made with the command that an administrator would use.
fn password_line(user: &str, acl: &str) -> String {
    let mut command = Command::new(logboom().unwrap());
    command.args(["admin", "password", user, "--acl", acl]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

struct Rest {
    http: reqwest::Client,
    url: String,
}

impl Rest {
    async fn ask_as(&self, user: &str, method: Method, path: &str, body: Value) -> anyhow::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).basic_auth(user, Some(PASSWORD));
        if !body.is_null() {
            request = request.json(&body);
        }
        Answer::of(request.timeout(Duration::from_secs(20))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let answer = self.ask_as("root", method, path, body).await.unwrap();
        (answer.status, answer.body)
    }

    /// Asks until the coordinator leads.
    async fn soon(&self, method: Method, path: &str, body: Value) -> Value {
        eventually("the coordinator answers", LONG, async || {
            self.ask_as("root", method.clone(), path, body.clone()).await?.ok()
        })
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn s23_what_is_made_over_rest_carries_events_scales_and_outlives_its_coordinator() {
    let dir = Workdir::new("rest").unwrap();
    let (port, passwords) = (free_port().unwrap(), dir.path().join("passwords"));
    let lines = [password_line("root", "prn::*,READ_UPDATE"), password_line("ann", "prn::/scope:others,READ")];
    std::fs::write(&passwords, lines.concat()).unwrap();
    let set = [
        format!("coordinator.rest_address=127.0.0.1:{port}"),
        format!("coordinator.rest_password_file=file:{}", passwords.display()),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start_with(Options::storage(1, 1).set(HASTE).set(&set)).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let rest = Rest { http, url: format!("http://127.0.0.1:{port}") };

    rest.soon(Method::POST, "/scopes", json!({ "scopeName": "team" })).await;
    let fixed = json!({ "type": "FIXED_NUM_SEGMENTS", "minSegments": 2 });
    let new = json!({ "streamName": "orders", "scalingPolicy": fixed, "streamTags": ["red"] });
    let made = rest.soon(Method::POST, "/scopes/team/streams", new.clone()).await;
    assert_eq!((&made["scopeName"], &made["tags"]), (&json!("team"), &json!(["red"])));
    assert_eq!(rest.ask(Method::POST, "/scopes/team/streams", new).await.0, 409);
    let refused = rest.ask_as("ann", Method::GET, "/scopes/team", Value::Null).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.text);

    let client = cluster.client("gateway/rest").await.unwrap();
    let streams = Streams::of(&cluster.bus("gateway/rest").await.unwrap(), "orders").unwrap();
    let mut numbered = Numbered::open(&client, &streams, "writer").await;
    numbered.write("k", 8, 5).await;
    streams.split(0).await.unwrap();
    numbered.write("k", 8, 5).await;
    let events = "/scopes/team/streams/orders/scaling-events?from=0&to=9223372036854775807";
    let (status, scaled) = rest.ask(Method::GET, events, Value::Null).await;
    assert_eq!((status, scaled["scalingEvents"].as_array().unwrap().len()), (200, 2), "{scaled}");

    cluster.kill9("coordinator/a").unwrap();
    cluster.restart("coordinator/a").await.unwrap();
    let shown = rest.soon(Method::GET, "/scopes/team/streams/orders", Value::Null).await;
    assert_eq!((&shown["tags"], &shown["scalingPolicy"]["minSegments"]), (&json!(["red"]), &json!(3)), "{shown}");
    assert_eq!(rest.soon(Method::GET, events, Value::Null).await, scaled);
    let path = "/scopes/team/streams/orders";
    assert_eq!(rest.ask(Method::DELETE, path, Value::Null).await.0, 412, "it is not sealed");
    let sealed = json!({ "streamState": "SEALED" });
    assert_eq!(rest.soon(Method::PUT, &format!("{path}/state"), sealed.clone()).await, sealed);
    assert_exact(&witness(&client, &streams).await, &numbered.counts);
    assert_eq!(rest.ask(Method::DELETE, path, Value::Null).await.0, 204);
    assert_eq!(rest.ask(Method::DELETE, "/scopes/team", Value::Null).await.0, 204);
    assert_eq!(rest.ask(Method::GET, "/scopes/team", Value::Null).await.0, 404);
    cluster.check().unwrap();
}
