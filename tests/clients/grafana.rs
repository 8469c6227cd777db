//! Who asks as if we were Loki: Grafana's own requests, a websocket, and `logcli` unmodified.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use logboom_tests::{Answer, Standalone};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{guide, tool};

/// Lines that are there before anybody asks.
const LINES: i64 = 60;
const SECOND: i64 = 1_000_000_000;
/// Long enough for anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// An installation with an index, and its keys.
struct Loki {
    up: Standalone,
    base: Url,
    token: String,
    /// When the first line was written, in nanoseconds.
    first: i64,
}

impl Loki {
    async fn start() -> Self {
        let up = Standalone::start().await.unwrap();
        let credentials = guide::credentials(&up, "explored").await;
        let base = Url::parse(credentials["loki_url"].as_str().unwrap()).unwrap().join("/").unwrap();
        let token = credentials["token"].as_str().unwrap().to_owned();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        Self { up, base, token, first: (now - 2 * LINES) * SECOND }
    }

    /// Stores lines of two streams; times repeat, so that pages end within one instant.
    async fn push(&self, numbers: std::ops::Range<i64>) {
        let value = |i: i64| json!([(self.first + i / 3 * SECOND).to_string(), format!("level=info line {i}")]);
        let stream = |app: &str, odd: i64| {
            let values: Vec<Value> = numbers.clone().filter(|i| i % 2 == odd).map(value).collect();
            json!({ "stream": { "app": app, "team": "shop" }, "values": values })
        };
        let body = json!({ "streams": [stream("a", 0), stream("b", 1)] });
        let url = self.base.join("loki/api/v1/push").unwrap();
        let push = self.up.api.bare(Method::POST, url.as_str()).bearer_auth(&self.token).json(&body);
        let answer = Answer::of(push).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text);
    }

    async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Value {
        let url = Url::parse_with_params(self.base.join(path).unwrap().as_str(), parameters).unwrap();
        let asked = self.up.api.bare(Method::GET, url.as_str()).basic_auth("grafana", Some(&self.token));
        let answer = asked.header("X-Loki-Response-Encoding-Flags", "categorize-labels");
        Answer::of(answer).await.unwrap().ok().unwrap()
    }

    /// What logcli prints.
    async fn logcli(&self, logcli: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(logcli);
        command.args(["--quiet", "--addr", self.base.as_str().trim_end_matches('/'), "--bearer-token", &self.token]);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grafana_and_logcli_read_what_was_pushed() {
    let loki = Loki::start().await;
    loki.push(0..LINES).await;
    grafana(&loki).await;
    websocket(&loki).await;
    let Some(logcli) = tool::logcli() else { return };
    pages(&loki, &logcli).await;
    commands(&loki, &logcli).await;
    tail(&loki, &logcli).await;
}

/// The requests of "Save & test" and of Explore.
async fn grafana(loki: &Loki) {
    let health = ("query", "vector(1)+vector(1)".to_owned());
    let health = loki.get("loki/api/v1/query", &[health, ("time", "4000000000".into())]).await;
    assert_eq!(health["data"]["result"], json!([{ "metric": {}, "value": [4_000_000_000_u64, "2"] }]));
    let range = [("start", loki.first.to_string()), ("end", (loki.first + LINES * SECOND).to_string())];
    let ask = |query: &str| [vec![("query", query.to_owned())], range.to_vec()].concat();
    let lines = [ask("{app=\"a\"} |= \"line\""), vec![("limit", "1000".into()), ("direction", "backward".into())]];
    let lines = loki.get("loki/api/v1/query_range", &lines.concat()).await;
    let values = lines["data"]["result"][0]["values"].as_array().unwrap();
    assert_eq!((values.len(), &values[0][1]), (30, &json!("level=info line 58")), "{lines}");
    assert!(values[0][2]["structuredMetadata"]["detected_level"].is_string(), "{lines}");
    let histogram = "sum by (level, detected_level) (count_over_time({team=\"shop\"} | drop __error__[30s]))";
    let histogram =
        loki.get("loki/api/v1/query_range", &[ask(histogram), vec![("step", "30000ms".into())]].concat()).await;
    let points = histogram["data"]["result"][0]["values"].as_array().unwrap();
    let counted: u64 = points.iter().map(|point| point[1].as_str().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 60, "{histogram}");
}

/// A tail through a real connection, which a request in memory cannot upgrade.
async fn websocket(loki: &Loki) {
    let address = format!("{}:{}", loki.base.host_str().unwrap(), loki.base.port().unwrap());
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /loki/api/v1/tail?query=%7Bapp%3D%22a%22%7D&limit=3 HTTP/1.1\r\nHost: logboom\r\nAuthorization: Bearer {}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        loki.token
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let mut until = async |text: &str| {
        while !String::from_utf8_lossy(&heard).contains(text) {
            let count = timeout(PATIENCE, connection.read_buf(&mut heard)).await.expect("silence").unwrap();
            assert!(count > 0, "closed after {}", String::from_utf8_lossy(&heard));
        }
    };
    until("\r\n\r\n").await;
    until("line 58").await;
    loki.push(LINES..LINES + 2).await;
    until("line 60").await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.starts_with("HTTP/1.1 101") && heard.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{heard}");
    assert!(heard.contains("line 54") && !heard.contains("line 52") && !heard.contains("line 61"), "{heard}");
}

/// Every line once and in order, in both directions, however pages are cut.
async fn pages(loki: &Loki, logcli: &Path) {
    let line = |i: i64| format!("level=info line {i}");
    let expected: Vec<String> = (0..LINES).filter(|i| i % 2 == 0).map(line).collect();
    for (direction, batch) in [("--forward", "7"), ("--forward", "1000"), ("--no-forward", "7"), ("--no-forward", "30")]
    {
        let query = ["query", "{app=\"a\"} !~ \"line 6[0-9]\"", "--since=1h", "--limit=500", "--output=raw", direction];
        let out = loki.logcli(logcli, &[&query[..], &["--batch", batch]].concat()).await;
        let mut found: Vec<String> = out.lines().map(|line| line.trim().to_owned()).collect();
        if direction == "--no-forward" {
            found.reverse();
        }
        assert_eq!(found, expected, "{direction} {batch}");
    }
}

/// One of each command.
async fn commands(loki: &Loki, logcli: &Path) {
    let labels = loki.logcli(logcli, &["labels"]).await;
    assert!(
        ["app", "team", "detected_level"].iter().all(|label| labels.lines().any(|line| line.trim() == *label)),
        "{labels}"
    );
    let values = loki.logcli(logcli, &["labels", "app"]).await;
    assert_eq!(values.split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
    let series = loki.logcli(logcli, &["series", "{team=\"shop\"}"]).await;
    assert_eq!(series.lines().filter(|line| line.contains("app=\"")).count(), 2, "{series}");
    let instant = loki.logcli(logcli, &["instant-query", "sum by (app) (count_over_time({team=\"shop\"}[1h]))"]).await;
    let counts: Value = serde_json::from_str(&instant).unwrap();
    assert_eq!(counts.as_array().unwrap().len(), 2, "{instant}");
    assert!(counts.as_array().unwrap().iter().all(|one| one["value"][1] == "31"), "{instant}");
    let stats = loki.logcli(logcli, &["stats", "{team=\"shop\"}", "--since=1h"]).await;
    assert!(stats.contains("entries: 62"), "{stats}");
    let volume = loki.logcli(logcli, &["volume", "{team=\"shop\"}", "--since=1h"]).await;
    assert!(volume.contains("\"app\": \"a\"") || volume.contains("\"app\":\"a\""), "{volume}");
    let fields = loki.logcli(logcli, &["detected-fields", "{team=\"shop\"}", "--since=1h"]).await;
    assert!(fields.contains("detected_level"), "{fields}");
}

/// A line that is written while logcli listens.
async fn tail(loki: &Loki, logcli: &Path) {
    let mut child = tokio::process::Command::new(logcli)
        .args(["--quiet", "--addr", loki.base.as_str().trim_end_matches('/'), "--bearer-token", &loki.token])
        .args(["query", "{app=\"a\"}", "--tail", "--limit=2", "--output=raw"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || timeout(PATIENCE, lines.next_line()).await.expect("logcli is silent").unwrap().unwrap();
    assert_eq!(next().await.trim(), "level=info line 58");
    assert_eq!(next().await.trim(), "level=info line 60");
    loki.push(100..102).await;
    assert_eq!(next().await.trim(), "level=info line 100");
}
