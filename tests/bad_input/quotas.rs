//! What a plan does not allow, and what belongs to somebody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logboom_tests::{Answer, Binding, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::row::{Row, SMALL, Section, Seen, World};

/// A change of a plan reaches every door in much less.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn section() -> Section {
    Section {
        title: "Quotas, and the indexes of others",
        words: "The index `small` takes 10 bytes a day and answers no queries. [Quotas](quotas.md) says how exactly they are counted.",
        rows: small().into_iter().chain(foreign()).collect(),
    }
}

async fn binding(world: &World) -> Result<Binding> {
    world.api().bind(SMALL, "admin").await
}

/// Asks until the quota is known at the door.
async fn refused(mut ask: impl AsyncFnMut() -> Result<Seen>) -> Result<Seen> {
    eventually("a refusal", KNOWN_WITHIN, async || {
        let seen = ask().await?;
        ensure!(seen.answer.starts_with("429"), "answered {}: {}", seen.answer, seen.text);
        Ok(seen)
    })
    .await
}

fn small() -> Vec<Row> {
    vec![
        Row {
            input: "lines above what a day takes",
            answer: "429 QuotaBytes",
            says: &["log index small takes 10 bytes on a day of UTC, and these are 14: send less at once"],
            then: "none of them is kept; above what is left of the day there is a `Retry-After`, here no time helps",
            run: |w| {
                Box::pin(async {
                    let own = binding(w).await?;
                    let seen = refused(async || {
                        let lines = "{\"a\":1}\n{\"a\":2}\n";
                        Ok(Seen::http(&w.api().ingest(SMALL, &own.token, lines).await?))
                    })
                    .await?;
                    let kept = w.api().count("SELECT count(*) AS n FROM small").await?;
                    ensure!(kept == 0, "{kept} events are there");
                    Ok(seen)
                })
            },
        },
        Row {
            input: "the same with `js.publish()`",
            answer: "429 (10002)",
            says: &["QuotaBytes: log index small takes 10 bytes on a day of UTC, and these are 19: send less at once"],
            then: "nothing is kept; without a reply subject nobody is told",
            run: |w| {
                Box::pin(async {
                    let client = binding(w).await?.connect().await?;
                    refused(async || {
                        let reply = client.request("logs.small", "more than ten bytes".into()).await;
                        let ack: Value = serde_json::from_slice(&reply.context("no acknowledgement")?.payload)?;
                        let error = &ack["error"];
                        let text = error["description"].as_str().unwrap_or_default().to_owned();
                        Ok(Seen { answer: format!("{} ({})", error["code"], error["err_code"]), text })
                    })
                    .await
                })
            },
        },
        Row {
            input: "one query more than the plan allows",
            answer: "429 QuotaQueries",
            says: &["log index small answers 0 queries at the same time: wait for one to end"],
            then: "so are tails, histograms, jobs and rules",
            run: |w| {
                Box::pin(async {
                    let own = binding(w).await?;
                    let body = json!({ "sql": "SELECT * FROM small" });
                    let asked = |method: Method, path: &str| w.api().gateway(method, path, &own.token);
                    let seen = refused(async || {
                        Ok(Seen::http(&Answer::of(asked(Method::POST, "/api/v1/sql").json(&body)).await?))
                    })
                    .await?;
                    let tail = Answer::of(asked(Method::GET, "/api/v1/indexes/small/tail")).await?;
                    ensure!(tail.kind() == "QuotaQueries", "a tail was answered {}: {}", tail.status, tail.text);
                    Ok(seen)
                })
            },
        },
    ]
}

async fn ask(world: &World, method: Method, path: &str, body: Option<Value>) -> Result<Seen> {
    let request = world.api().gateway(method, path, &world.admin.token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    Ok(Seen::http(&Answer::of(request).await?))
}

const FOREIGN: &[&str] = &["this token is for the index mine, not for theirs"];

fn foreign() -> Vec<Row> {
    vec![
        Row {
            input: "the tail of another tenant's index",
            answer: "403 ForeignIndex",
            says: FOREIGN,
            then: "",
            run: |w| Box::pin(ask(w, Method::GET, "/api/v1/indexes/theirs/tail", None)),
        },
        Row {
            input: "its histogram",
            answer: "403 ForeignIndex",
            says: FOREIGN,
            then: "",
            run: |w| Box::pin(ask(w, Method::GET, "/api/v1/indexes/theirs/histogram", None)),
        },
        Row {
            input: "a job that reads it",
            answer: "403 ForeignIndex",
            says: FOREIGN,
            then: "no job is started",
            run: |w| {
                Box::pin(async {
                    let body = json!({ "job": "spy", "sql": "INSERT INTO mine SELECT _msg FROM theirs" });
                    let seen = ask(w, Method::POST, "/api/v1/jobs", Some(body)).await?;
                    ensure!(w.api().job("spy").await.is_err(), "the job was started");
                    Ok(seen)
                })
            },
        },
        Row {
            input: "a job that writes to it",
            answer: "403 ForeignIndex",
            says: FOREIGN,
            then: "no job is started",
            run: |w| {
                Box::pin(async {
                    let body = json!({ "job": "vandal", "sql": "INSERT INTO theirs SELECT _msg FROM mine" });
                    let seen = ask(w, Method::POST, "/api/v1/jobs", Some(body)).await?;
                    ensure!(w.api().job("vandal").await.is_err(), "the job was started");
                    Ok(seen)
                })
            },
        },
        Row {
            input: "a rule about it",
            answer: "403 ForeignIndex",
            says: FOREIGN,
            then: "no rule is created",
            run: |w| {
                Box::pin(async {
                    let query = "SELECT count(*) AS n FROM tumble(theirs, INTERVAL '1 s') GROUP BY window_start";
                    let body = json!({ "query": query, "condition": "n > 1" });
                    ask(w, Method::PUT, "/api/v1/rules/spy", Some(body)).await
                })
            },
        },
    ]
}
