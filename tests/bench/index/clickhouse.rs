//! ClickHouse, as PyPI's `chdb-core` brings it: in a process of its own, asked through a pipe.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail, ensure};
use logboom_tests::{Workdir, root, tools};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    corpus::{Corpus, RARE_WORD},
    question::{LAST, PART, PHRASE, Question, REGEX, TOP},
    store::{self, Store},
};

/// How its messages are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Text,
    Bloom,
}

/// One table, ordered by service and time.
pub(super) struct ClickHouse {
    variant: Variant,
    python: PathBuf,
    needle: String,
    process: Option<Session>,
    // Last: the directory goes after the process.
    dir: Workdir,
}

struct Session {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Session {
    async fn start(python: &PathBuf, dir: &Workdir) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(root().join("tests/bench/index/clickhouse.py"))
            .arg(dir.path().join("store"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("clickhouse.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let questions = child.stdin.take().context("no pipe to python")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe from python")?).lines();
        let mut session = Self { child, questions, answers };
        ensure!(session.line().await? == "\"ready\"", "chdb did not start");
        Ok(session)
    }

    async fn line(&mut self) -> Result<String> {
        self.answers.next_line().await?.context("the process of chdb has ended")
    }

    async fn ask(&mut self, sql: &str) -> Result<String> {
        self.questions.write_all(format!("{}\n", serde_json::to_string(sql)?).as_bytes()).await?;
        self.questions.flush().await?;
        let answer = self.line().await?;
        if answer.starts_with('{') {
            bail!("{sql}: {answer}");
        }
        Ok(answer)
    }
}

impl ClickHouse {
    /// Starts one with an empty table.
    pub(super) async fn start(variant: Variant, needle: &str) -> Result<Self> {
        let python = tools().join("chdb/bin/python");
        let dir = Workdir::new("clickhouse")?;
        let process = Some(Session::start(&python, &dir).await?);
        let mut started = Self { variant, python, needle: needle.to_owned(), process, dir };
        started.sql(&started.table()).await?;
        Ok(started)
    }

    async fn sql(&mut self, sql: &str) -> Result<String> {
        self.process.as_mut().context("chdb is not running")?.ask(sql).await
    }

    fn table(&self) -> String {
        let words = match self.variant {
            Variant::Text => "text(tokenizer = splitByNonAlpha)",
            Variant::Bloom => "tokenbf_v1(32768, 3, 0) GRANULARITY 1",
        };
        let low: Vec<String> = ["level", "service", "pod", "namespace", "host"]
            .map(|name| format!("{name} LowCardinality(String)"))
            .to_vec();
        format!(
            "CREATE TABLE logs (_time DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)), {}, trace_id FixedString(16) CODEC(ZSTD(1)), \
             _msg String CODEC(ZSTD(1)), INDEX traces trace_id TYPE bloom_filter(0.001) GRANULARITY 1, INDEX words _msg TYPE {words}) \
             ENGINE = MergeTree PARTITION BY toDate(_time) ORDER BY (service, _time)",
            low.join(", ")
        )
    }
}

impl Store for ClickHouse {
    fn name(&self) -> &'static str {
        match self.variant {
            Variant::Text => "ClickHouse, text index",
            Variant::Bloom => "ClickHouse, bloom",
        }
    }

    async fn pids(&mut self) -> Result<Vec<u32>> {
        Ok(self.process.iter().filter_map(|session| session.child.id()).collect())
    }

    /// Its best way in: one statement that reads the file.
    async fn ingest(&mut self, corpus: &Corpus) -> Result<()> {
        let text = ["_time", "level", "service", "pod", "namespace", "host", "trace_id", "_msg"];
        let columns: Vec<String> = text.iter().map(|name| format!("{name} String")).collect();
        let insert = format!(
            "INSERT INTO logs SELECT parseDateTime64BestEffort(_time, 9, 'UTC'), level, service, pod, namespace, host, \
             unhex(trace_id), _msg FROM file('{}', JSONEachRow, '{}')",
            corpus.path.display(),
            columns.join(", ")
        );
        self.sql(&insert).await.map(drop)
    }

    async fn disk(&mut self) -> Result<Vec<(&'static str, u64)>> {
        // Superseded parts stay for minutes and are none of the store's needs.
        let answer = self.sql("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'logs'").await?;
        let rows: Vec<Vec<Value>> = serde_json::from_str(&answer)?;
        let bytes = rows.first().and_then(|row| cell(row.first()?).parse().ok()).context("no size of the parts")?;
        Ok(vec![("active parts", bytes)])
    }

    async fn ask(&mut self, question: Question) -> Result<String> {
        let sql = sql(question, &self.needle, self.variant);
        self.sql(&sql).await
    }

    fn rows(&self, _: Question, answer: &str) -> Result<Vec<String>> {
        let rows: Vec<Vec<Value>> = serde_json::from_str(answer)?;
        Ok(rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("\t")).collect())
    }

    async fn restart(&mut self) -> Result<()> {
        if let Some(Session { mut child, questions, .. }) = self.process.take() {
            // It ends with its input.
            drop(questions);
            child.wait().await?;
        }
        let session = Session::start(&self.python, &self.dir).await?;
        store::calm(&session.child.id().into_iter().collect::<Vec<_>>()).await?;
        self.process = Some(session);
        store::evict(self.dir.path())
    }
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn sql(question: Question, needle: &str, variant: Variant) -> String {
    let time = "toUnixTimestamp64Nano(_time)";
    let row = "level, service, pod, namespace, host, hex(trace_id)";
    // The rows are fetched whole; what is compared of them comes out.
    let rows =
        |columns: &str, rest: &str| format!("SELECT {columns} FROM (SELECT _time, _msg, {row} FROM logs {rest})");
    let both = format!("{time}, _msg");
    let words = |text: &str| match variant {
        Variant::Text => format!("hasAllTokens(_msg, '{text}')"),
        Variant::Bloom => {
            text.split(' ').map(|word| format!("hasToken(_msg, '{word}')")).collect::<Vec<_>>().join(" AND ")
        }
    };
    match question {
        Question::Trace => rows(&both, &format!("WHERE trace_id = unhex('{needle}')")),
        Question::RareWord => rows(&both, &format!("WHERE {}", words(RARE_WORD))),
        Question::Phrase => {
            format!(r"SELECT count() FROM logs WHERE {} AND match(_msg, '\\b{PHRASE}\\b')", words(PHRASE))
        }
        Question::Levels => "SELECT level, count() FROM logs GROUP BY level".to_owned(),
        Question::Histogram => {
            "SELECT toUnixTimestamp(toStartOfMinute(_time)) * 1000000000 AS minute, level, count() FROM logs GROUP BY minute, level"
                .to_owned()
        }
        Question::Pods => format!(
            "SELECT pod, count() AS n FROM logs WHERE level = 'error' GROUP BY pod ORDER BY n DESC, pod LIMIT {TOP}"
        ),
        Question::Regex => format!("SELECT count() FROM logs WHERE match(_msg, '{REGEX}')"),
        Question::Last => rows(time, &format!("WHERE level = 'error' ORDER BY _time DESC LIMIT {LAST}")),
        Question::Part => format!("SELECT count() FROM logs WHERE position(_msg, '{PART}') > 0"),
        Question::Distinct => "SELECT uniqExact(trace_id) FROM logs".to_owned(),
    }
}
