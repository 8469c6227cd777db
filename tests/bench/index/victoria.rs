//! VictoriaLogs: NDJSON over HTTP in, LogsQL over HTTP out.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use logboom_tests::{Process, Workdir, eventually, free_port, search_path};
use serde_json::Value;

use super::{
    corpus::{Corpus, RARE_WORD},
    question::{LAST, PART, PHRASE, Question, REGEX, TOP},
    store::{self, Store},
};

/// Requests that are under way at once, as for ours.
const CONNECTIONS: usize = 4;
const READY_WITHIN: Duration = Duration::from_secs(30);
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// One server.
pub(super) struct Victoria {
    process: Process,
    url: String,
    http: reqwest::Client,
    needle: String,
    // Last: the directory goes after the process.
    dir: Workdir,
}

impl Victoria {
    /// Starts one on fresh data.
    pub(super) async fn start(needle: &str) -> Result<Self> {
        let dir = Workdir::new("victoria-logs")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let (process, url) = start(&dir, &http).await?;
        Ok(Self { process, url, http, needle: needle.to_owned(), dir })
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), parameters)?;
        let response = self.http.get(url).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path} was answered {status}: {text}");
        Ok(text)
    }
}

async fn start(dir: &Workdir, http: &reqwest::Client) -> Result<(Process, String)> {
    let program = search_path("victoria-logs").context("victoria-logs is not there")?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut command = Command::new(program);
    command
        .arg(format!("-storageDataPath={}", dir.path().join("store").display()))
        .arg(format!("-httpListenAddr={address}"))
        // By default it drops what is older than a week without a word.
        .arg("-retentionPeriod=100y");
    let process = Process::spawn("victoria-logs", &mut command, &dir.path().join("victoria-logs.log"))?;
    let url = format!("http://{address}");
    eventually("victoria-logs", READY_WITHIN, async || {
        http.get(format!("{url}/health")).send().await?.error_for_status()?;
        Ok(())
    })
    .await?;
    Ok((process, url))
}

impl Store for Victoria {
    fn name(&self) -> &'static str {
        "VictoriaLogs"
    }

    async fn pids(&mut self) -> Result<Vec<u32>> {
        Ok(vec![self.process.pid()])
    }

    async fn ingest(&mut self, corpus: &Corpus) -> Result<()> {
        let url = format!(
            "{}/insert/jsonline?_stream_fields=namespace,service,pod&_time_field=_time&_msg_field=_msg",
            self.url
        );
        let (url, http) = (&url, &self.http);
        stream::iter(corpus.batches()?)
            .map(|batch| async move {
                http.post(url).body(batch?).send().await?.error_for_status()?;
                anyhow::Ok(())
            })
            .buffered(CONNECTIONS)
            .try_collect::<()>()
            .await
    }

    async fn finish(&mut self) -> Result<()> {
        self.get("/internal/force_flush", &[]).await?;
        self.get("/internal/force_merge", &[]).await.map(drop)
    }

    async fn disk(&mut self) -> Result<Vec<(&'static str, u64)>> {
        Ok(vec![("store", store::bytes_below(&self.dir.path().join("store")))])
    }

    async fn ask(&mut self, question: Question) -> Result<String> {
        let query = logsql(question, &self.needle);
        let last = LAST.to_string();
        let mut parameters = vec![("query", query.as_str())];
        if question == Question::Last {
            // Its own way to the newest lines, which is quicker than to sort.
            parameters.push(("limit", &last));
        }
        self.get("/select/logsql/query", &parameters).await
    }

    fn rows(&self, question: Question, answer: &str) -> Result<Vec<String>> {
        let row = |line: &str| -> Result<String> {
            let row: Value = serde_json::from_str(line)?;
            let cell = |column: &&str| {
                let text = row[*column].as_str().with_context(|| format!("{line} has no {column}"))?;
                if *column == "_time" { store::nanos(text) } else { Ok(text.to_owned()) }
            };
            Ok(columns(question).iter().map(cell).collect::<Result<Vec<_>>>()?.join("\t"))
        };
        let mut rows = answer.lines().map(row).collect::<Result<Vec<_>>>()?;
        if question == Question::Last {
            // It gives the newest lines in no order; as many digits make texts compare as numbers.
            rows.sort_unstable_by(|one, other| other.cmp(one));
        }
        Ok(rows)
    }

    async fn restart(&mut self) -> Result<()> {
        self.process.terminate(ENDED_WITHIN).await?;
        (self.process, self.url) = start(&self.dir, &self.http).await?;
        store::calm(&[self.process.pid()]).await?;
        store::evict(self.dir.path())
    }
}

fn columns(question: Question) -> &'static [&'static str] {
    match question {
        Question::Trace | Question::RareWord => &["_time", "_msg"],
        Question::Levels => &["level", "n"],
        Question::Histogram => &["_time", "level", "n"],
        Question::Pods => &["pod", "n"],
        Question::Last => &["_time"],
        Question::Phrase | Question::Regex | Question::Part | Question::Distinct => &["n"],
    }
}

fn logsql(question: Question, needle: &str) -> String {
    let row = "fields _time, level, service, pod, namespace, host, trace_id, _msg";
    match question {
        Question::Trace => format!("trace_id:=\"{needle}\" | {row}"),
        Question::RareWord => format!("{RARE_WORD} | {row}"),
        Question::Phrase => format!("\"{PHRASE}\" | stats count() n"),
        Question::Levels => "* | stats by (level) count() n".to_owned(),
        Question::Histogram => "* | stats by (_time:1m, level) count() n".to_owned(),
        Question::Pods => format!("level:=error | stats by (pod) count() n | sort by (n desc, pod) limit {TOP}"),
        Question::Regex => format!("~\"{REGEX}\" | stats count() n"),
        Question::Last => format!("level:=error | {row}"),
        Question::Part => format!("~\"{PART}\" | stats count() n"),
        Question::Distinct => "* | stats count_uniq(trace_id) n".to_owned(),
    }
}
