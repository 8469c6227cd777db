//! The examples of `docs/guide/credentials.md` that can be run here, run as they stand there.

use std::{
    path::Path,
    process::{Command, Output},
};

use logboom_tests::{Answer, Standalone, Workdir, root};
use reqwest::Method;
use serde_json::{Value, json};

use super::tool;

/// The code of the guide in a language, block by block.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    blocks_of("credentials.md", language)
}

/// The code of one page in a language, block by block.
pub(crate) fn blocks_of(page: &str, language: &str) -> Vec<String> {
    let guide = std::fs::read_to_string(root().join("docs/guide").join(page)).unwrap();
    let fence = format!("```{language}\n");
    let begun = guide.split(&fence).skip(1);
    begun.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs a program with the keys of a binding as variables, as the guide says.
pub(crate) fn run(command: &mut Command, dir: &Workdir, credentials: &Value) -> Output {
    command.current_dir(dir.path()).env("HOME", dir.path());
    for (key, value) in credentials.as_object().unwrap() {
        command.env(key.to_uppercase(), value.as_str().unwrap());
    }
    command.env("NATS_CREDS_FILE", dir.path().join("nats.creds")).output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.trim().to_owned()
}

/// Binds and answers all keys.
pub(crate) async fn credentials(up: &Standalone, index: &str) -> Value {
    up.api.provision(index, 1).await.unwrap();
    let (service, plan) = up.api.plan().await.unwrap();
    let body = json!({ "service_id": service, "plan_id": plan, "parameters": { "role": "admin" } });
    let path = format!("/v2/service_instances/{index}-instance/service_bindings/{index}-guide");
    let bound = Answer::of(up.api.broker(Method::PUT, &path).json(&body)).await.unwrap().ok().unwrap();
    bound["credentials"].clone()
}

#[tokio::test]
async fn the_examples_of_the_guide_do_what_they_say() {
    let python = tool::python();
    let up = Standalone::start().await.unwrap();
    let credentials = credentials(&up, "guided").await;
    let dir = Workdir::new("guide").unwrap();
    std::fs::write(dir.path().join("nats.creds"), credentials["nats_creds"].as_str().unwrap()).unwrap();
    std::fs::write(dir.path().join("lines.ndjson"), "{\"msg\":\"one\"}\n{\"msg\":\"two\"}\n").unwrap();

    let script = dir.path().join("publish.py");
    std::fs::write(&script, blocks("python").first().unwrap()).unwrap();
    let acknowledged = said(&run(Command::new(&python).arg(&script), &dir, &credentials));
    assert!(acknowledged.parse::<u64>().is_ok(), "{acknowledged}");
    assert_eq!(up.api.count("SELECT count(*) AS n FROM guided").await.unwrap(), 1);

    let nats = tool::nats_command();
    let mut ran = 0;
    for block in blocks("sh") {
        if block.starts_with("nats ") && nats.is_none() {
            continue;
        }
        let script = dir.path().join("example.sh");
        std::fs::write(&script, &block).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.arg(&script);
        if let Some(path) = nats.as_deref().and_then(Path::parent) {
            let before = std::env::var("PATH").unwrap_or_default();
            shell.env("PATH", format!("{}:{before}", path.display()));
        }
        // Twice: what has an id or an idempotency key is stored once.
        let [first, again] = [0, 1].map(|_| said(&run(&mut shell, &dir, &credentials)));
        assert!(!first.is_empty() && !again.is_empty(), "{block}");
        ran += 1;
    }
    assert!(ran >= 2, "the guide has examples for a shell");
    // One event of Python and of `nats`, which have the same id, and two lines.
    assert_eq!(up.api.count("SELECT count(*) AS n FROM guided").await.unwrap(), 3);
    // A program has every key that the guide promises for our own store.
    for key in ["index", "role", "nats_url", "http_url", "ingest_url", "nats_creds", "nats_jwt", "nats_seed", "subject"]
        .into_iter()
        .chain(["inbox_prefix", "alerts_subject", "token"])
    {
        assert!(credentials[key].is_string(), "{key} is missing");
    }
}
