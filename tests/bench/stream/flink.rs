//! Flink, as PyPI's `apache-flink-libraries` brings it: one job manager and one task manager on loopback, with a configuration of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use logboom_tests::{Process, Usage, Workdir, eventually, free_port, root, search_path, tools, usage};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{PARALLELISM, RUN_MAX};

/// How long the cluster may take to have its slots, and the client to be ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// What the classes reach into, as Flink's own scripts allow it.
const OPENED: [&str; 12] = [
    "java.lang",
    "java.net",
    "java.io",
    "java.nio",
    "sun.nio.ch",
    "java.lang.reflect",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
];
/// Memory, as Flink's scripts would reckon it: 2 GiB of heap for tasks.
const MEMORY: &str = "\
jobmanager.memory.heap.size: 512m
jobmanager.memory.off-heap.size: 128m
jobmanager.memory.jvm-metaspace.size: 256m
jobmanager.memory.jvm-overhead.min: 192m
jobmanager.memory.jvm-overhead.max: 192m
taskmanager.cpu.cores: 2
taskmanager.memory.task.heap.size: 2g
taskmanager.memory.task.off-heap.size: 0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
";

/// A running cluster and its client.
pub(super) struct Flink {
    client: Client,
    tasks: Process,
    jobs: Process,
    // Last: the directory goes after the processes.
    dir: Workdir,
}

struct Client {
    _child: Child,
    statements: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// CPU time of both processes so far, and the task manager's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) tasks: Usage,
    pub(super) jobs: Usage,
}

impl Flink {
    /// Starts one; what is missing for that is the error.
    pub(super) async fn start() -> Result<Self> {
        crate::index::install("tools/install-flink")?;
        let java = search_path("java").context("there is no java on PATH")?;
        let dir = Workdir::new("flink")?;
        let (rpc, rest) = (free_port()?, free_port()?);
        configure(dir.path(), rpc, rest)?;
        let mut jobs = spawn(
            &java,
            dir.path(),
            "jobs",
            "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
            &["-Xmx512m"],
        )?;
        let mut tasks = spawn(
            &java,
            dir.path(),
            "tasks",
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            &["-Xms2176m", "-Xmx2176m", "-XX:MaxDirectMemorySize=256m"],
        )?;
        // The HTTP client asks for a TLS provider even where it speaks plain HTTP; who comes second may fail.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build()?;
        let overview = format!("http://127.0.0.1:{rest}/overview");
        let ready = eventually("Flink has its slots", READY_WITHIN, async || {
            jobs.check()?;
            tasks.check()?;
            let overview: Value = http.get(&overview).send().await?.json().await?;
            ensure!(overview["slots-available"] == PARALLELISM, "{overview}");
            Ok(())
        });
        ready.await.with_context(|| format!("last words of Flink:\n{}\n{}", jobs.last_words(), tasks.last_words()))?;
        let client = Client::start(&java, dir.path(), rest).await?;
        Ok(Self { client, tasks, jobs, dir })
    }

    /// Runs one statement; the answer to an INSERT is how long its job took.
    pub(super) async fn sql(&mut self, sql: &str) -> Result<f64> {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        self.client.statements.write_all(format!("{sql}\n").as_bytes()).await?;
        self.client.statements.flush().await?;
        let answer: Value = serde_json::from_str(&self.client.line().await?)?;
        match answer["seconds"].as_f64() {
            Some(seconds) => Ok(seconds),
            None => bail!("{}", answer["error"].as_str().unwrap_or("Flink says nothing")),
        }
    }

    pub(super) fn used(&self) -> Result<Used> {
        Ok(Used { tasks: usage(self.tasks.pid())?, jobs: usage(self.jobs.pid())? })
    }

    /// An empty folder for what a job writes.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Client {
    async fn start(java: &Path, dir: &Path, rest: u16) -> Result<Self> {
        let mut child = tokio::process::Command::new(java)
            .args(opened())
            .args(["-XX:TieredStopAtLevel=1", "-cp", &jars()?])
            .arg(root().join("tests/bench/stream/Submit.java"))
            .args([rest.to_string(), PARALLELISM.to_string()])
            .arg(dir.join("checkpoints"))
            .arg(RUN_MAX.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("client.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let statements = child.stdin.take().context("no pipe to java")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe from java")?).lines();
        let mut client = Self { _child: child, statements, answers };
        let ready = tokio::time::timeout(READY_WITHIN, client.line()).await.context("Flink's client is not ready")?;
        let words = || fs::read_to_string(dir.join("client.log")).unwrap_or_default();
        ensure!(ready.with_context(words)? == "\"ready\"", "Flink's client did not start");
        Ok(client)
    }

    /// The next JSON value; what its libraries print besides is not for us.
    async fn line(&mut self) -> Result<String> {
        loop {
            let line = self.answers.next_line().await?.context("Flink's client has ended")?;
            if line.starts_with(['{', '"']) {
                return Ok(line);
            }
        }
    }
}

fn configure(dir: &Path, rpc: u16, rest: u16) -> Result<()> {
    for folder in ["conf", "temporary", "checkpoints"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let own = format!(
        "jobmanager.rpc.address: 127.0.0.1\njobmanager.rpc.port: {rpc}\njobmanager.bind-host: 127.0.0.1\n\
         rest.address: 127.0.0.1\nrest.port: {rest}\nrest.bind-address: 127.0.0.1\n\
         taskmanager.host: 127.0.0.1\ntaskmanager.bind-host: 127.0.0.1\ntaskmanager.numberOfTaskSlots: {PARALLELISM}\n\
         io.tmp.dirs: {}\n{MEMORY}",
        dir.join("temporary").display(),
    );
    Ok(fs::write(dir.join("conf/config.yaml"), own)?)
}

fn spawn(java: &Path, dir: &Path, name: &str, class: &str, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(java);
    command.args(opened()).args(["-XX:+UseG1GC", "-XX:MaxMetaspaceSize=256m"]).args(more).args(["-cp", &jars()?]);
    command.arg(class).arg("-c").arg(dir.join("conf")).current_dir(dir);
    Process::spawn(name, &mut command, &dir.join(format!("{name}.log")))
}

fn opened() -> Vec<String> {
    OPENED.iter().map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")).collect()
}

fn jars() -> Result<String> {
    let lib = tools().join("flink/lib");
    let lib = lib.canonicalize().with_context(|| format!("no jars in {}", lib.display()))?;
    Ok(format!("{}/*", lib.display()))
}
