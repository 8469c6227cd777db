//! A real nats-server for the tests of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod installation;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bus::{Bus, BusOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// A server on a port and directories of its own; killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    pub dir: TempDir,
}

impl Server {
    /// JetStream without credentials.
    pub fn open() -> Self {
        Self::with("max_payload: 8MB\n", "")
    }

    /// JetStream with further lines at the top and inside its block.
    pub fn with(top: &str, jetstream: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = format!(
            "host: 127.0.0.1\nport: {port}\n{top}\njetstream {{ store_dir: {:?}, {jetstream} }}\n",
            dir.path().join("js")
        );
        Self::from_text(dir, port, &text)
    }

    /// Runs with a complete configuration.
    pub fn from_text(dir: TempDir, port: u16, text: &str) -> Self {
        std::fs::write(dir.path().join("nats.conf"), text).unwrap();
        let child = spawn(dir.path());
        Self { child, port, dir }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the process without giving it a chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same port and files.
    pub fn start(&mut self) {
        self.child = spawn(self.dir.path());
    }

    pub async fn bus(&self, name: &str) -> Bus {
        self.bus_with(name, None, None).await
    }

    pub async fn bus_with(&self, name: &str, creds: Option<String>, inbox_prefix: Option<String>) -> Bus {
        Bus::connect(BusOptions {
            url: self.url(),
            creds,
            name: name.to_owned(),
            inbox_prefix,
            ..BusOptions::default()
        })
        .await
        .unwrap()
    }

    /// The server's own log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- nats-server\n{}", self.log());
        }
    }
}

pub fn free_port() -> u16 {
    free_ports::<1>()[0]
}

/// Ports that differ: each is held until all are chosen.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(binary())
        .arg("-c")
        .arg(dir.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("nats-server starts")
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LB_NATS_SERVER") {
        return path.into();
    }
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server");
    if ours.exists() {
        return ours;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.exists())
        .expect("no nats-server: set LB_NATS_SERVER, or put one into .tools/bin or into PATH")
}

/// Waits until a question is answered with yes, at most 10 s.
pub async fn eventually(what: &str, mut question: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !question().await {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for something that must come, at most 10 s.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("never: {what}"))
}
