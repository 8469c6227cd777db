//! Secrets are planted everywhere they may come by, and then looked for where they must not be.

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
};

use anyhow::Result;
use serde_json::{Value, json};
use testkit::eventually;

use crate::{Fixture, SOON, answer, bind_body, binding, conformance::CATALOG, instance, provision_body};

/// What every line of the log of this process is appended to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        // Everything that the broker says, also what nobody would see by default.
        let filter = tracing_subscriber::EnvFilter::new("info,broker=trace,host=debug,bus=debug");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        lines
    })
}

/// Secrets by the way they come in; none of them is part of another.
const PLANTED: [(&str, &str); 9] = [
    ("the password", "plant-password-1"),
    ("a further password", "plant-further-2"),
    ("a bearer token", "plant-bearer-3"),
    ("a wrong password", "plant-wrong-4"),
    ("a secret parameter", "plant-parameter-5"),
    ("a secret parameter that does not fit", "plant-misfit-6"),
    ("a secret in the wrong place", "plant-misplaced-7"),
    ("a line of credentials that is wrong", "plant-line-8"),
    ("credentials of a binding", "lbt_plant-binding-9"),
];

fn planted(number: usize) -> &'static str {
    PLANTED[number - 1].1
}

/// Nothing of what was planted is in a text.
fn check(text: &str, place: &str) {
    for (what, secret) in PLANTED {
        assert!(!text.contains(secret), "{what} is in {place}");
        // A password also travels in base64; whoever has that has it.
        let encoded = data_encoding::BASE64.encode(format!("admin:{secret}").as_bytes());
        assert!(!text.contains(&encoded), "{what} is in {place} as base64");
    }
}

#[actix_rt::test]
async fn secrets_are_in_no_log_no_metric_and_no_error() -> Result<()> {
    let lines = lines();
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("password", planted(1).to_owned());
    write("credentials", format!("basic cf:{}\nbearer kube:{}\n", planted(2), planted(3)));
    let file = |name: &str| format!("broker.{name}=file:{}", dir.path().join(name).display());
    let set = [file("password"), file("credentials"), "broker.reload_interval=100ms".to_owned()];
    let f = Fixture::start_with(Some(CATALOG), &set.each_ref().map(String::as_str)).await?;
    let request = |method: &str, path: &str| {
        let request = f.bare(0, method, path).basic_auth("admin", Some(planted(1)));
        request.header("X-Broker-API-Version", "2.17")
    };
    let mut errors = String::new();
    // The credentials of platforms, right and wrong.
    for (admitted, request) in [
        (true, f.bare(0, "GET", "/v2/catalog").basic_auth("cf", Some(planted(2)))),
        (true, f.bare(0, "GET", "/v2/catalog").bearer_auth(planted(3))),
        (false, f.bare(0, "GET", "/v2/catalog").basic_auth("admin", Some(planted(4)))),
        (false, f.bare(0, "GET", "/v2/catalog").bearer_auth(planted(4))),
    ] {
        let (status, body) = answer(request.header("X-Broker-API-Version", "2.17")).await;
        assert_eq!(status == 200, admitted, "{body}");
        errors += &body.to_string();
    }
    // Parameters: one that is kept, one that does not fit its schema, one where no secret is expected.
    let ready = || async { answer(request("GET", &instance("none"))).await.0 == 404 };
    eventually(SOON, async || ready().await).await;
    let put = |id: &str, parameters: Value| {
        let request = request("PUT", &instance(id)).json(&provision_body(parameters));
        async move { answer(request).await }
    };
    assert_eq!(put("i", json!({ "index": "shop", "key": planted(5) })).await.0, 201);
    for parameters in [
        json!({ "key": [planted(6)] }),
        json!({ "key": planted(6).repeat(40) }),
        json!({ "segments": planted(6) }),
        json!({ "index": { "deep": planted(6) } }),
        json!({ "other": planted(7) }),
        json!([planted(7)]),
    ] {
        let (status, body) = put("j", parameters).await;
        assert_eq!(status, 400, "{body}");
        errors += &body.to_string();
    }
    for body in [format!("{{\"x\": {}", planted(7)), format!("\"{}\"", planted(7)), format!("{}: 1", planted(7))] {
        let (status, body) = answer(request("PUT", &instance("j")).body(body)).await;
        assert_eq!(status, 400);
        errors += &body.to_string();
    }
    // 48: what is shown of an instance is not the secret.
    let (_, shown) = answer(request("GET", &instance("i"))).await;
    assert_eq!(
        (shown["parameters"]["key"].as_str(), shown["parameters"]["index"].as_str()),
        (Some("***"), Some("shop"))
    );
    errors += &shown.to_string();
    let (status, _) = put("i", json!({ "index": "shop", "key": planted(5) })).await;
    assert_eq!(status, 200, "a repeat is found to be one");
    let (status, differs) = put("i", json!({ "index": "shop", "key": planted(6) })).await;
    assert_eq!(status, 409);
    errors += &differs.to_string();
    // The credentials of a binding go to whoever binds, and nowhere else.
    let bind = request("PUT", &binding("i", "plant-binding-9"));
    let (status, bound) = answer(bind.json(&bind_body(json!({})))).await;
    assert_eq!((status, bound["credentials"]["token"].as_str()), (201, Some(planted(9))));
    // A file that is spoilt is told of without its lines.
    write("credentials", format!("basic cf:{}\nnonsense {}\n", planted(2), planted(8)));
    let told = |text: &str| String::from_utf8_lossy(&lines.0.lock().unwrap()).contains(text);
    eventually(SOON, async || told("line 2: must be")).await;
    // Neither is what is stored: the journal, of which snapshots and local copies are made.
    let journal = f.host.bus.journal(wire::Service::Broker, 1).await?;
    let mut stored = String::new();
    for entry in journal.read(0, 1 << 20).await?.iter() {
        stored += &String::from_utf8_lossy(&entry.payload);
    }
    assert!(stored.contains("sealed:k1:") && stored.contains("shop"), "the journal is the broker's");
    check(&stored, "the journal");
    f.stop().await?;
    check(&errors, "an answer");
    let log = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(log.contains("request served"), "the log is the broker's");
    check(&log, "the log");
    let metrics = telemetry::render();
    assert!(metrics.contains("lb_broker_requests_total"));
    check(&metrics, "the metrics");
    Ok(())
}
