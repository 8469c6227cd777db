//! Logboom: NDJSON over HTTP in, SQL over HTTP out.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use logboom_tests::{Answer, Api, Standalone, Table, Workdir};
use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    corpus::{Corpus, RARE_WORD},
    question::{LAST, PART, PHRASE, Question, REGEX, TOP},
    store::{self, Store},
};

pub(super) const INDEX: &str = "bench";
/// Requests that are under way at once.
const CONNECTIONS: usize = 4;
const SEGMENTS: u16 = 4;
/// Pauses after which a request that was told to come later comes again, and the number of times.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const TRIES_MAX: u32 = 1_000;
/// What no chunk names any more is deleted soon, so that the disk shows what is needed.
const SETTINGS: [&str; 1] = ["segment_store.garbage_delay=5s"];

/// One standalone with its nats-server.
pub(super) struct Ours {
    up: Option<Standalone>,
    door: Door,
    needle: String,
    // Last: the directory goes after the process.
    dir: Workdir,
}

/// What is needed to send and to ask, also beside the rest.
#[derive(Clone)]
pub(super) struct Door {
    api: Api,
    write: String,
    read: String,
}

impl Ours {
    pub(super) async fn start(needle: &str) -> Result<Self> {
        let dir = Workdir::new("index")?;
        let up = Standalone::start_on(dir.path(), &SETTINGS).await?;
        up.api.provision(INDEX, SEGMENTS).await?;
        let write = up.api.bind(INDEX, "write").await?.token;
        let read = up.api.bind(INDEX, "read").await?.token;
        let door = Door { api: up.api.clone(), write, read };
        Ok(Self { up: Some(up), door, needle: needle.to_owned(), dir })
    }

    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Another index, and what is needed to send to it.
    pub(super) async fn beside(&self, index: &str) -> Result<Door> {
        self.door.api.provision(index, SEGMENTS).await?;
        let write = self.door.api.bind(index, "write").await?.token;
        Ok(Door { write, ..self.door.clone() })
    }

    pub(super) fn sql(&self, question: Question) -> String {
        sql(question, &self.needle)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Door {
    /// Sends all lines, at most so many a second.
    pub(super) async fn send(&self, index: &str, corpus: &Corpus, pace: Option<f64>) -> Result<()> {
        let (begun, per_line) = (Instant::now(), pace.map(|rate| 1.0 / rate));
        let mut before = 0;
        let batches = corpus.batches()?.enumerate().map(|(number, batch)| {
            let batch = batch?;
            let due = per_line.map(|each| begun + Duration::from_secs_f64(before as f64 * each));
            let lines = batch.iter().filter(|byte| **byte == b'\n').count();
            before += lines;
            anyhow::Ok((number, batch, lines, due))
        });
        stream::iter(batches)
            .map(|batch| async move {
                let (number, batch, lines, due) = batch?;
                if let Some(due) = due {
                    sleep_until(due).await;
                }
                self.post(index, &format!("batch-{number}"), batch, lines).await
            })
            .buffered(CONNECTIONS)
            .try_collect::<()>()
            .await
    }

    /// Sends lines until they are durable.
    pub(super) async fn post(&self, index: &str, key: &str, batch: Vec<u8>, lines: usize) -> Result<()> {
        let path = format!("/api/v1/indexes/{index}/ingest?routing_key_field=pod");
        let batch = bytes::Bytes::from(batch);
        for _ in 0..TRIES_MAX {
            let request = self.api.gateway(Method::POST, &path, &self.write);
            let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").header("Idempotency-Key", key);
            let answer = Answer::of(request.body(batch.clone())).await?;
            if matches!(answer.status, 429 | 503) {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            let answer = answer.ok()?;
            ensure!(answer["accepted"] == lines, "{lines} lines were answered {answer}");
            return Ok(());
        }
        bail!("{key} was told to come later {TRIES_MAX} times")
    }

    /// Asks; the status with the answer as it came.
    pub(super) async fn ask(&self, sql: &str) -> Result<(u16, String)> {
        let request = self.api.gateway(Method::POST, "/api/v1/sql", &self.read).json(&json!({ "sql": sql }));
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The one number of an answer.
    pub(super) async fn count(&self, sql: &str) -> Result<i64> {
        let (status, text) = self.ask(sql).await?;
        ensure!(status == 200, "answered {status}: {text}");
        Table::of(&serde_json::from_str(&text)?).number(0, "n")
    }
}

impl Store for Ours {
    fn name(&self) -> &'static str {
        "logboom"
    }

    async fn pids(&mut self) -> Result<Vec<u32>> {
        let Some(up) = &mut self.up else { return Ok(Vec::new()) };
        Ok(vec![up.process().pid(), up.nats_pid().await?])
    }

    async fn ingest(&mut self, corpus: &Corpus) -> Result<()> {
        self.door.send(INDEX, corpus, None).await
    }

    async fn disk(&mut self) -> Result<Vec<(&'static str, u64)>> {
        let parts = [("chunks", "state/objects"), ("tail and journals", "nats")];
        Ok(parts.map(|(name, dir)| (name, store::bytes_below(&self.part(dir)))).to_vec())
    }

    async fn ask(&mut self, question: Question) -> Result<String> {
        let (status, text) = self.door.ask(&self.sql(question)).await?;
        ensure!(status == 200, "{} was answered {status}: {text}", question.name());
        Ok(text)
    }

    fn rows(&self, question: Question, answer: &str) -> Result<Vec<String>> {
        rows(question, answer)
    }

    async fn restart(&mut self) -> Result<()> {
        if let Some(up) = self.up.take() {
            up.stop().await?;
        }
        let up = Standalone::start_on(self.dir.path(), &SETTINGS).await?;
        self.door.api = up.api.clone();
        self.up = Some(up);
        store::calm(&self.pids().await?).await?;
        // What the start has read is as cold as the rest.
        store::evict(self.dir.path())
    }
}

/// The columns of the answer; a time comes first where there is one.
fn columns(question: Question) -> &'static [&'static str] {
    match question {
        Question::Trace | Question::RareWord => &["_time", "_msg"],
        Question::Levels => &["severity", "n"],
        Question::Histogram => &["_time", "severity", "n"],
        Question::Pods => &["pod", "n"],
        Question::Last => &["_time"],
        Question::Phrase | Question::Regex | Question::Part | Question::Distinct => &["n"],
    }
}

fn sql(question: Question, needle: &str) -> String {
    let row = "SELECT _time, severity, service, pod, namespace, host, trace_id, _msg FROM";
    let minute = "date_trunc('minute', _time)";
    match question {
        Question::Trace => format!("{row} {INDEX} WHERE trace_id = '{needle}'"),
        Question::RareWord => format!(r"{row} {INDEX} WHERE _msg ~ '\b{RARE_WORD}\b'"),
        Question::Phrase => format!(r"SELECT count(*) AS n FROM {INDEX} WHERE _msg ~ '\b{PHRASE}\b'"),
        Question::Levels => format!("SELECT severity, count(*) AS n FROM {INDEX} GROUP BY severity"),
        Question::Histogram => {
            format!("SELECT {minute} AS _time, severity, count(*) AS n FROM {INDEX} GROUP BY {minute}, severity")
        }
        Question::Pods => format!(
            "SELECT pod, count(*) AS n FROM {INDEX} WHERE severity = 'error' GROUP BY pod ORDER BY n DESC, pod LIMIT {TOP}"
        ),
        Question::Regex => format!("SELECT count(*) AS n FROM {INDEX} WHERE _msg ~ '{REGEX}'"),
        Question::Last => format!("{row} {INDEX} WHERE severity = 'error' ORDER BY _time DESC LIMIT {LAST}"),
        Question::Part => format!("SELECT count(*) AS n FROM {INDEX} WHERE contains(_msg, '{PART}')"),
        Question::Distinct => format!("SELECT count(DISTINCT trace_id) AS n FROM {INDEX}"),
    }
}

/// Rows of an answer of the SQL door.
pub(super) fn rows(question: Question, answer: &str) -> Result<Vec<String>> {
    let answer: Value = serde_json::from_str(answer)?;
    ensure!(answer["truncated"] == false, "the answer was cut");
    let table = Table::of(&answer);
    let row = |row: usize| -> Result<String> {
        let cell = |column: &&str| match *column {
            "_time" => store::nanos(&table.text(row, column)?),
            column => table.text(row, column),
        };
        Ok(columns(question).iter().map(cell).collect::<Result<Vec<_>>>()?.join("\t"))
    };
    (0..table.len()).map(row).collect()
}
