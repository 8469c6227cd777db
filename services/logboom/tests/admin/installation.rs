//! A standalone installation in a directory of its own, and what an operator does with it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use arrow::{array::AsArray, array::RecordBatch, datatypes::Int64Type};
use bus::{Bus, BusOptions};
use client::{Client, WriterOptions};
use serde_json::Value;
use store::Objects;
use types::{ContainerId, IndexName, KeyRange, RoutingKey, SegmentId};
use wire::coordinator::SegmentRange;

const LONG: Duration = Duration::from_secs(60);
/// Keys of the events that tests write.
const KEYS: u64 = 16;

/// Events of a segment by offset.
pub(crate) type Events = BTreeMap<SegmentId, Vec<(i64, String)>>;

pub(crate) struct Installation {
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Settings besides those that every installation has.
    set: Vec<String>,
    /// The environment of tools.
    environment: Vec<(&'static str, String)>,
}

impl Installation {
    /// Starts everything in a fresh directory.
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new(), Vec::new()).await
    }

    /// The same with further settings, and tools with an environment.
    pub(crate) async fn start_with(set: Vec<String>, environment: Vec<(&'static str, String)>) -> Self {
        let dir = tempfile::Builder::new().prefix("lb-admin-").tempdir().unwrap();
        let mut installation = Self { dir, process: None, set, environment };
        installation.run().await;
        installation
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Below the local state.
    pub(crate) fn objects_dir(&self) -> PathBuf {
        self.data().join("state/objects")
    }

    /// Starts what is stopped.
    pub(crate) async fn run(&mut self) {
        std::fs::create_dir_all(self.data()).unwrap();
        let port = || testkit::free_port().unwrap();
        let (gateway, broker) = (port(), port());
        let log = std::fs::File::create(self.dir.path().join("standalone.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_logboom"));
        command.args(["standalone", "--data"]).arg(self.data()).args(["--set", "nats.port=0"]);
        for set in [
            format!("gateway.address=127.0.0.1:{gateway}"),
            format!("broker.address=127.0.0.1:{broker}"),
            format!("broker.gateway_url=http://127.0.0.1:{gateway}"),
        ] {
            command.args(["--set", &set]);
        }
        for set in &self.set {
            command.args(["--set", set]);
        }
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        testkit::eventually(LONG, async || self.data().join("run.json").is_file() || self.has_ended()).await;
        assert!(!self.has_ended(), "{}", self.said());
    }

    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("standalone.log")).unwrap_or_default()
    }

    /// Lets everything drain and end.
    pub(crate) async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        assert!(Command::new("kill").arg(process.id().to_string()).status().unwrap().success());
        testkit::eventually(LONG, async || process.try_wait().unwrap().is_some()).await;
    }

    /// Runs the binary with this installation.
    pub(crate) fn tool(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logboom"));
        command.arg("--data").arg(self.data()).args(args).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    }

    /// Runs an admin command that must succeed, and answers its JSON.
    #[track_caller]
    pub(crate) fn admin(&self, args: &[&str]) -> Value {
        let output = self.tool(&[&["--json", "admin"], args].concat());
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stderr), self.said());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Runs an admin command that must fail with a code, and answers what it said.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> String {
        let output = self.tool(&[&["--json", "admin"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }

    #[track_caller]
    pub(crate) fn create(&self, index: &str) {
        let output = self.tool(&["index", "create", index, "--segments", "2"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// The number of events that SQL counts.
    #[track_caller]
    pub(crate) fn count(&self, index: &str) -> u64 {
        let output = self.tool(&["--json", "query", &format!("SELECT count(*) AS n FROM {index}")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = &answer["rows"][0];
        row["n"].as_u64().or(row[0].as_u64()).unwrap_or_else(|| panic!("no count in {answer}"))
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(self.bus().await, self.objects())
    }

    /// A connection of the platform.
    pub(crate) async fn bus(&self) -> Bus {
        let run: Value = serde_json::from_slice(&std::fs::read(self.data().join("run.json")).unwrap()).unwrap();
        let options = BusOptions {
            url: run["nats_url"].as_str().unwrap().to_owned(),
            creds: Some(std::fs::read_to_string(self.data().join("keys/platform.creds")).unwrap()),
            name: "test/admin".into(),
            ..BusOptions::default()
        };
        Bus::connect(options).await.unwrap()
    }

    pub(crate) fn objects(&self) -> Objects {
        Objects::open(self.objects_dir().to_str().unwrap()).unwrap()
    }

    /// Writes numbered events with keys, each once, and waits until they are stored.
    pub(crate) async fn write(&self, index: &str, writer: &str, numbers: std::ops::Range<u64>) {
        let client = self.client().await;
        let options = WriterOptions::new(writer.parse().unwrap());
        let writer = client.event_writer(index.parse().unwrap(), options).await.unwrap();
        for n in numbers {
            let key = RoutingKey::new(&format!("key-{}", n % KEYS)).unwrap();
            let event = format!("{{\"msg\":\"key-{} event {n:06}\",\"n\":{n}}}", n % KEYS);
            drop(writer.write(Some(&key), event.into()).await.unwrap());
        }
        writer.flush().await.unwrap();
    }

    /// Every event of an index, by segment.
    pub(crate) async fn events(&self, index: &str) -> Events {
        let client = self.client().await;
        let mut events = Events::new();
        for row in self.admin(&["segments", index]).as_array().unwrap() {
            let segment: SegmentId = row["segment"].as_str().unwrap().parse().unwrap();
            let container = ContainerId(u16::try_from(row["container"].as_u64().unwrap()).unwrap());
            let (start, end) = (row["start"].as_u64().unwrap(), row["end"].as_u64().unwrap());
            let range = KeyRange::split_evenly(1)[0];
            let mut reader = client.reader(SegmentRange { segment, container, range }, start);
            let seen = events.entry(segment).or_default();
            while (seen.len() as u64) < end - start {
                let batch = reader.next(Duration::from_secs(10)).await.unwrap();
                seen.extend(rows(&batch.unwrap_or_else(|| panic!("{} of {} events", seen.len(), end - start))));
            }
        }
        events
    }

    /// Keys of chunks, by key.
    pub(crate) async fn chunk_keys(&self, index: &str) -> Vec<String> {
        let listed = self.objects().list(&format!("chunks/{index}/"), 10_000).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// Reads the whole stream through its epochs: every key's events must come in order, each once.
    pub(crate) async fn assert_key_order(&self, index: &str, count: u64) {
        let client = self.client().await;
        let index: IndexName = index.parse().unwrap();
        let head = client.heads(&index).await.unwrap();
        let mut reader = client.stream_reader(&index, Some(head), None).await.unwrap();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        let mut seen = 0;
        while seen < count {
            let next = reader.next(Duration::from_secs(10)).await.unwrap();
            let (_, batch) = next.unwrap_or_else(|| panic!("{seen} of {count} events"));
            for (_, message) in rows(&batch) {
                let (key, number) = message.split_once(" event ").unwrap();
                let before = last.insert(key.to_owned(), number.to_owned());
                assert!(before.as_deref() < Some(number), "{key}: {number} after {before:?}");
                seen += 1;
            }
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Its nats-server is its child and ends with it only if it may drain.
            Command::new("kill").arg(process.id().to_string()).status().ok();
            process.wait().ok();
        }
    }
}

pub(crate) fn sum(events: &Events) -> u64 {
    events.values().map(|segment| segment.len() as u64).sum()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Removes what a lost machine takes with it, but for the objects.
pub(crate) fn lose_jetstream_and_local_state(data: &Path) {
    std::fs::remove_dir_all(data.join("nats")).unwrap();
    for entry in std::fs::read_dir(data.join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "objects" {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

fn rows(batch: &RecordBatch) -> Vec<(i64, String)> {
    let offsets = batch["_offset"].as_primitive::<Int64Type>().values();
    let messages = batch["_msg"].as_string::<i32>();
    offsets.iter().copied().zip(messages.iter().map(|message| message.unwrap_or_default().to_owned())).collect()
}
