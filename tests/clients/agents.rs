//! Unmodified clients of Loki, Elasticsearch, Splunk and OpenTelemetry: the Python examples of `docs/guide/agents`, run as they stand.

use std::{path::Path, process::Command};

use logboom_tests::{Answer, Standalone, Workdir, free_port};
use reqwest::Method;
use serde_json::{Value, json};

use super::{guide, tool};

/// A page, how many examples it has, and how many events there are after each ran twice: one where the event has an id.
const PAGES: [(&str, usize, usize); 4] =
    [("loki", 1, 2), ("elasticsearch", 1, 1), ("splunk", 1, 2), ("opentelemetry", 2, 4)];

fn ran(python: &Path, script: &str, dir: &Workdir, credentials: &Value) -> String {
    let output = guide::run(Command::new(python).args(["-c", script]), dir, credentials);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    format!("{out}{err}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_other_log_stores_send_here() {
    let Some(python) = tokio::task::spawn_blocking(tool::agents_python).await.unwrap() else { return };
    let grpc = format!("127.0.0.1:{}", free_port().unwrap());
    let listens = format!("gateway.otlp_grpc_address={grpc}");
    let up = Standalone::start_with(&[&listens, &format!("broker.grpc_public_address={grpc}")]).await.unwrap();
    for (page, examples, events) in PAGES {
        let credentials = guide::credentials(&up, page).await;
        let scripts = guide::blocks_of(&format!("agents/{page}.md"), "python");
        assert_eq!(scripts.len(), examples, "{page}");
        // Where what was stored can be read in the same words, that example comes behind.
        let reads = if page == "elasticsearch" { guide::blocks_of("elasticsearch.md", "python") } else { Vec::new() };
        let python = python.clone();
        let words = tokio::task::spawn_blocking(move || {
            let dir = Workdir::new(page).unwrap();
            let twice = scripts.iter().flat_map(|script| [script, script]).chain(&reads);
            twice.map(|script| ran(&python, script, &dir, &credentials)).collect::<String>()
        });
        let words = words.await.unwrap();
        let found = up.api.sql(&format!("SELECT _msg, severity FROM {page}")).await.unwrap();
        assert_eq!(found.len(), events, "{page}: {words}");
        for row in 0..events {
            assert!(found.text(row, "_msg").unwrap().ends_with("it broke"), "{page}: {found:?}");
            assert_eq!(found.text(row, "severity").unwrap(), "error", "{page}");
        }
    }
}

/// What a client sends must not be lost nor doubled because its answer was.
#[tokio::test]
async fn a_push_that_is_sent_again_is_stored_once() {
    let up = Standalone::start().await.unwrap();
    let credentials = guide::credentials(&up, "again").await;
    let key = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let body = json!({"streams": [{"stream": {"app": "a"}, "values": [["1767323045000000001", "one"], ["1767323045000000002", "two"]]}]});
    for _ in 0..2 {
        let push = up.api.bare(Method::POST, &key("loki_url")).basic_auth("any", Some(key("token"))).json(&body);
        let answer = Answer::of(push).await.unwrap();
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    }
    assert_eq!(up.api.count("SELECT count(*) AS n FROM again").await.unwrap(), 2);
    let exact = up.api.sql("SELECT _msg FROM again WHERE app = 'a' ORDER BY _time").await.unwrap();
    assert_eq!([0, 1].map(|row| exact.text(row, "_msg").unwrap()), ["one", "two"]);
}
