//! One row: what is sent, what must come back, and what stands afterwards.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use futures::future::LocalBoxFuture;
use logboom_tests::{Answer, Api, Binding, Standalone, Workdir, logboom};
use serde_json::Value;
use wire::views::Quota;

/// The rows of one door.
pub(crate) struct Section {
    /// Heading in the guide.
    pub(crate) title: &'static str,
    /// What holds for all rows.
    pub(crate) words: &'static str,
    pub(crate) rows: Vec<Row>,
}

pub(crate) type Check = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<Seen>>;

/// One row of the guide, which is one check.
pub(crate) struct Row {
    /// What is sent, in Markdown.
    pub(crate) input: &'static str,
    /// The answer in short: `400 InvalidQuery`, `exit 1`, …
    pub(crate) answer: &'static str,
    /// Parts that its text must have.
    pub(crate) says: &'static [&'static str],
    /// What stands afterwards, or what to do; checked where `run` can.
    pub(crate) then: &'static str,
    pub(crate) run: Check,
}

impl Row {
    /// How an answer differs from the row.
    pub(crate) fn differs(&self, seen: &Seen) -> Option<String> {
        let missing: Vec<_> = self.says.iter().filter(|part| !seen.text.contains(**part)).collect();
        let same = seen.answer == self.answer;
        (!same || !missing.is_empty()).then(|| {
            format!("expected {:?} with {missing:?}, got {:?} saying:\n    {}", self.answer, seen.answer, seen.text)
        })
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answer: String,
    pub(crate) text: String,
}

impl Seen {
    /// An HTTP answer: status and kind; its texts and places as plain text.
    pub(crate) fn http(answer: &Answer) -> Self {
        let error = &answer.body["error"];
        let mut text = String::new();
        if let (Some(line), Some(column)) = (error["line"].as_u64(), error["column"].as_u64()) {
            text += &format!("line {line}, column {column}\n");
        }
        for lines in [&answer.body["rejected"], &error["rejected"]] {
            for one in lines.as_array().into_iter().flatten() {
                text += &format!("line {}: {}\n", one["line"], one["reason"].as_str().unwrap_or_default());
            }
        }
        let parts = [&error["message"], &error["help"], &error["rendered"], &answer.body["description"]];
        parts.into_iter().filter_map(Value::as_str).for_each(|part| text += &format!("{part}\n"));
        if text.is_empty() {
            text.clone_from(&answer.text);
        }
        Self { answer: format!("{} {}", answer.status, answer.kind()).trim().to_owned(), text }
    }

    /// The end of a process: exit code and what it said on standard error.
    pub(crate) fn exit(command: &mut Command) -> Result<Self> {
        let output = command.output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().map_or_else(|| "a signal".to_owned(), |code| format!("exit {code}"));
        Ok(Self { answer: code, text: said(&output.stderr) + &said(&output.stdout) })
    }
}

/// An installation with two indexes that belong to different tenants.
pub(crate) struct World {
    pub(crate) up: Standalone,
    /// All rights on `mine`.
    pub(crate) admin: Binding,
    pub(crate) reader: Binding,
    pub(crate) writer: Binding,
    dir: Workdir,
}

/// An index whose plan allows 10 bytes a day and no queries.
pub(crate) const SMALL: &str = "small";
/// The largest ingest body of this installation: small, so that a test can exceed it quickly.
pub(crate) const BODY_MAX: usize = 4 << 20;

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let up = Standalone::start_with(&["gateway.ingest_body_max=4MiB"]).await?;
        for index in ["mine", "theirs", "sums", SMALL] {
            up.api.provision(index, 2).await?;
        }
        up.limit(SMALL, Quota { bytes_per_day: Some(10), queries: Some(0), ..Quota::default() }).await?;
        let (admin, reader) = (up.api.bind("mine", "admin").await?, up.api.bind("mine", "read").await?);
        let writer = up.api.bind("mine", "write").await?;
        // Queries need columns to be misspelt.
        let line = "{\"time\":\"2026-01-01T00:00:00Z\",\"level\":\"info\",\"msg\":\"first\",\"service\":\"cart\"}\n";
        up.api.ingest("mine", &admin.token, line).await?.ok()?;
        Ok(Self { up, admin, reader, writer, dir: Workdir::new("bad-input")? })
    }

    pub(crate) fn api(&self) -> &Api {
        &self.up.api
    }

    /// Events that are in `mine`.
    pub(crate) async fn kept(&self) -> Result<i64> {
        self.api().count("SELECT count(*) AS n FROM mine").await
    }

    /// A directory that does not exist yet.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, in a directory without anything that it could find.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(logboom()?);
        command.args(args).current_dir(self.dir.path());
        Ok(command)
    }
}
