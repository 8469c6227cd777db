//! `logboom publish`, `query` and `tail`.

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use futures::StreamExt;
use reqwest::{Method, header};
use serde_json::Value;

use super::{Api, Connection};
use crate::screen::Screen;

/// Lines sent in one request: a few hundred kilobytes of usual logs.
const LINES_A_REQUEST: usize = 2_000;

/// Where queries are answered.
const QUERY: &str = "/api/v1/query";

/// Sends lines to an index.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  logboom publish shop app.log\n  kubectl logs -f pod/web | logboom publish shop")]
pub(crate) struct PublishArgs {
    /// Index
    index: String,
    /// File to send; standard input when absent
    file: Option<PathBuf>,
}

/// Runs one query.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  logboom query 'SELECT severity, count(*) FROM shop GROUP BY severity'\n  logboom query --index shop --saved slow\n  logboom query --format parquet --out errors.parquet 'SELECT * FROM shop.errors'\n  logboom query --language pipe 'index:shop since:1d | stats count by service | into index daily'\n  logboom query --language pipe 'index:shop since:1h error | top 5 service'\n  logboom query --format csv 'SELECT _time, _msg FROM shop LIMIT 10' > rows.csv"
)]
pub(crate) struct QueryArgs {
    /// Text; `-` reads it from standard input
    #[arg(required_unless_present = "saved")]
    text: Option<String>,
    /// Language of the text [default: sql]
    #[arg(long, value_parser = ["sql", "pipe", "logql"], conflicts_with = "saved")]
    language: Option<String>,
    /// Index that is read where the text names none
    #[arg(long)]
    index: Option<String>,
    /// Run the saved search of this name, of the library of --index
    #[arg(long, value_name = "NAME", requires = "index", conflicts_with = "text")]
    saved: Option<String>,
    /// Where the range begins that LogQL, or a search that does not say so, looks at: RFC 3339, or for example -1h
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// Where it ends
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Form of the answer
    #[arg(long, default_value = "table", value_parser = ["table", "json", "csv", "ndjson", "arrow", "parquet"])]
    format: String,
    /// Write the answer to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Follows an index.
#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Index
    index: String,
    /// Begin with the first event kept instead of the next
    #[arg(long)]
    from_start: bool,
}

impl PublishArgs {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        let bytes = self.file.as_ref().and_then(|f| std::fs::metadata(f).ok()).map(|m| m.len());
        let input: Box<dyn Read + Send> = match &self.file {
            Some(path) => {
                Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            None => Box::new(std::io::stdin()),
        };
        let bar = match (screen.is_watched(), bytes) {
            (false, _) => indicatif::ProgressBar::hidden(),
            (true, Some(bytes)) => indicatif::ProgressBar::new(bytes),
            (true, None) => indicatif::ProgressBar::new_spinner(),
        };
        let run = uuid::Uuid::new_v4();
        let (mut accepted, mut rejected, mut part) = (0u64, 0u64, 0u64);
        let mut lines = std::io::BufReader::new(input).split(b'\n');
        loop {
            let batch: Vec<Vec<u8>> = lines.by_ref().take(LINES_A_REQUEST).collect::<Result<_, _>>()?;
            if batch.is_empty() {
                break;
            }
            let sent: u64 = batch.iter().map(|l| l.len() as u64 + 1).sum();
            let path = format!("/api/v1/indexes/{}/ingest", self.index);
            let response = api
                .gateway(Method::POST, &path)
                // The key makes a repeated request harmless.
                .header("Idempotency-Key", format!("{run}-{part}"))
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .body(as_ndjson(&batch))
                .send()
                .await?;
            let status = response.status();
            let answer: Value = response.json().await.unwrap_or(Value::Null);
            if !status.is_success() && answer["rejected_count"].is_null() {
                anyhow::bail!("{status}: {}", answer["error"]["message"].as_str().unwrap_or("no answer to read"));
            }
            accepted += answer["accepted"].as_u64().unwrap_or(0);
            rejected += answer["rejected_count"].as_u64().unwrap_or(0);
            part += 1;
            bar.inc(sent);
        }
        bar.finish_and_clear();
        if screen.is_json() {
            screen.value(&serde_json::json!({ "accepted": accepted, "rejected": rejected }));
        } else {
            screen.line(format_args!("{accepted} events are durable in {}, {rejected} were rejected", self.index));
        }
        anyhow::ensure!(rejected == 0, "{rejected} lines were rejected");
        Ok(())
    }
}

/// Lines that are JSON objects go as they are; any other line becomes the message of one.
fn as_ndjson(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.iter().filter(|l| !l.is_empty()) {
        let is_object = serde_json::from_slice::<serde_json::Map<String, Value>>(line).is_ok();
        if is_object {
            out.extend_from_slice(line);
        } else {
            let text = String::from_utf8_lossy(line);
            out.extend_from_slice(serde_json::json!({ "_msg": text }).to_string().as_bytes());
        }
        out.push(b'\n');
    }
    out
}

impl QueryArgs {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        let (body, chosen) = self.body(&api).await?;
        if self.out.is_some() || !matches!(self.format.as_str(), "table" | "json") {
            return self.export(&api, &body, screen).await;
        }
        let answer = api.ask(Method::POST, QUERY, Some(&body)).await?;
        if screen.is_json() || self.format == "json" {
            screen.value(&answer);
            return Ok(());
        }
        let columns: Vec<String> = answer["columns"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().or(c.as_str()).map(str::to_owned))
            .collect();
        let there = |name: &&str| columns.iter().any(|column| column == name);
        let mut names: Vec<&str> = chosen.iter().map(String::as_str).filter(there).collect();
        if names.is_empty() {
            names = columns.iter().map(String::as_str).collect();
        }
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        let cells = rows.iter().map(|row| names.iter().enumerate().map(|(i, n)| shown(row, i, n)).collect()).collect();
        screen.table(&names, cells);
        let cut = if answer["truncated"] == true { ", cut at the limit" } else { "" };
        screen.line(format_args!("({} rows in {} ms{cut})", rows.len(), answer["elapsed_ms"]));
        Ok(())
    }
}

impl QueryArgs {
    /// The body of the request, and the columns that a saved search shows.
    async fn body(&self, api: &Api) -> anyhow::Result<(Value, Vec<String>)> {
        let mut body = serde_json::json!({ "index": self.index });
        let mut shown = Vec::new();
        if let (Some(name), Some(index)) = (&self.saved, &self.index) {
            let saved = api.ask(Method::GET, &format!("/api/v1/indexes/{index}/saved/{name}"), None).await?;
            for member in ["text", "language", "from", "to"] {
                body[member] = saved[member].clone();
            }
            shown = saved["columns"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
        } else {
            let text = self.text.clone().unwrap_or_default();
            body["text"] = if text == "-" { std::io::read_to_string(std::io::stdin())? } else { text }.into();
            body["language"] = self.language.clone().unwrap_or_else(|| "sql".to_owned()).into();
        }
        for (member, given) in [("from", &self.from), ("to", &self.to)] {
            if let Some(given) = given {
                body[member] = given.clone().into();
            }
        }
        Ok((body, shown))
    }

    /// Writes the answer as a file, or to standard output.
    async fn export(&self, api: &Api, body: &Value, screen: Screen) -> anyhow::Result<()> {
        let binary = matches!(self.format.as_str(), "arrow" | "parquet");
        if binary && self.out.is_none() && std::io::stdout().is_terminal() {
            anyhow::bail!("{} is not for a terminal: write it to a file with --out", self.format);
        }
        let form = match self.format.as_str() {
            "ndjson" => "jsonl",
            "table" => "csv",
            form => form,
        };
        let request = api.gateway(Method::POST, &format!("{QUERY}?format={form}")).json(body);
        let (bytes, cut) = api.bytes(request).await?;
        match &self.out {
            Some(path) => {
                std::fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
                screen.line(format_args!("{} bytes are in {}", bytes.len(), path.display()));
            }
            // A closed pipe ends the writing silently, as `head` expects.
            None => drop(std::io::stdout().write_all(&bytes)),
        }
        anyhow::ensure!(
            !cut,
            "the answer was cut at the gateway's limit: narrow the query, or raise gateway.query_rows_max"
        );
        Ok(())
    }
}

/// A cell of a row that came as an object or as an array.
fn shown(row: &Value, place: usize, name: &str) -> String {
    match row.get(name).or_else(|| row.get(place)) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace('\n', "⏎"),
        Some(other) => other.to_string(),
    }
}

impl TailArgs {
    /// Runs the tool until it is stopped.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        let from = if self.from_start { "earliest" } else { "latest" };
        let path = format!("/api/v1/indexes/{}/tail?from={from}", self.index);
        let response = api.gateway(Method::GET, &path).send().await?;
        if !response.status().is_success() {
            anyhow::bail!("{}: {}", response.status(), response.text().await.unwrap_or_default());
        }
        let mut bytes = response.bytes_stream();
        let mut pending = Vec::new();
        // The gateway sends a heartbeat at least this often; silence means that it is gone.
        while let Ok(Some(part)) = tokio::time::timeout(Duration::from_secs(60), bytes.next()).await {
            pending.extend_from_slice(&part?);
            while let Some(end) = pending.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data:") {
                    show_row(screen, data);
                }
            }
        }
        anyhow::bail!("the gateway ended the tail")
    }
}

fn show_row(screen: Screen, data: &[u8]) {
    let Ok(row) = serde_json::from_slice::<Value>(data) else { return };
    if screen.is_json() {
        screen.line(&row);
    } else {
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        screen.line(format_args!("{} {:5} {}", text("_time"), text("severity"), text("_msg")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_become_messages_and_objects_stay() {
        let lines = [b"{\"a\":1}".to_vec(), b"plain \"x\"".to_vec(), b"".to_vec(), b"[1]".to_vec()];
        let text = String::from_utf8(as_ndjson(&lines)).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"_msg\":\"plain \\\"x\\\"\"}\n{\"_msg\":\"[1]\"}\n");
    }
}
