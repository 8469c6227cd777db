//! The nats-server child of `standalone` and `walk`.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use tls::Tls;

/// How long the child may take to listen: it replays its streams first.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running nats-server; ends with its owner.
#[derive(Debug)]
pub(crate) struct NatsChild {
    child: Child,
    pid_file: PathBuf,
}

/// Finds the server binary: the setting, then `.tools/bin` beside the working directory, then PATH.
pub(crate) fn find_server(setting: &str) -> anyhow::Result<PathBuf> {
    if !setting.is_empty() {
        let path = PathBuf::from(setting);
        anyhow::ensure!(path.is_file(), "nats.server_path is {setting}, but there is no such file");
        return Ok(path);
    }
    let tools = Path::new(".tools/bin/nats-server");
    if tools.is_file() {
        return Ok(tools.to_owned());
    }
    #[allow(clippy::disallowed_methods, reason = "PATH is the system's, not a setting of ours")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|p| p.is_file()).context(
        "nats-server was not found in .tools/bin nor on PATH: run `./justw tools`, or set nats.server_path to a nats-server 2.15 binary",
    )
}

impl NatsChild {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts the server and waits until it answers on its port.
    pub(crate) fn start(server: &Path, config: &Path, log: &Path, address: &str) -> anyhow::Result<Self> {
        end_orphan(config)?;
        anyhow::ensure!(
            std::net::TcpStream::connect(address).is_err(),
            "something listens on {address} already: stop it, or choose another port with --set nats.port=0"
        );
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(server)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // Ctrl-C on the terminal reaches our group only: the server must outlive the services that drain into it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", server.display()))?;
        let mut running = Self { child, pid_file: pid_file(config) };
        std::fs::write(&running.pid_file, running.child.id().to_string())?;
        running.wait_until_ready(address, log)?;
        Ok(running)
    }

    #[allow(clippy::disallowed_methods, reason = "waits for another process in wall time")]
    fn wait_until_ready(&mut self, address: &str, log: &Path) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                let words = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<_> = words.lines().rev().take(3).collect();
                anyhow::bail!(
                    "nats-server ended with {status}: {}",
                    last.into_iter().rev().collect::<Vec<_>>().join(" | ")
                );
            }
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("nats-server does not listen on {address} after {READY_WITHIN:?}; see {}", log.display())
    }
}

/// Where the process number of the child is kept, so that a later start finds one whose owner was killed.
fn pid_file(config: &Path) -> PathBuf {
    config.with_extension("pid")
}

/// Ends the server of an owner that was killed: it holds the port and the files that the next one needs.
#[allow(clippy::disallowed_methods, reason = "waits for another process in wall time")]
fn end_orphan(config: &Path) -> anyhow::Result<()> {
    let Ok(text) = std::fs::read_to_string(pid_file(config)) else { return Ok(()) };
    let Ok(pid) = text.trim().parse::<u32>() else { return Ok(()) };
    let config = config.display().to_string();
    // A number may have gone to another process since: only one that runs with our own configuration is ours.
    let is_ours = || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&b| b == 0).any(|word| word == config.as_bytes())
    };
    if !is_ours() {
        return Ok(());
    }
    tracing::warn!(pid, "nats-server of an earlier run still lives; it is ended");
    terminate(pid)?;
    let begun = Instant::now();
    while is_ours() {
        anyhow::ensure!(
            begun.elapsed() < READY_WITHIN,
            "nats-server {pid} of an earlier run does not end; end it by hand"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Has the server read its certificate again whenever its files have changed and fit together.
///
/// What is wrong with files that do not fit is told by the services, which look at the same ones.
pub(crate) async fn follow_certificate(pid: u32, tls: Tls, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let look = tls.clone();
        if let Ok(Ok(true)) = tokio::task::spawn_blocking(move || look.reload()).await
            && let Err(error) = signal(pid, "HUP")
        {
            tracing::error!(%error, "nats-server could not be told of its new certificate");
        }
    }
}

/// Asks a process of ours to end (SIGTERM).
pub(crate) fn terminate(pid: u32) -> std::io::Result<()> {
    signal(pid, "TERM")
}

/// The shell's own `kill`: a small container has no other.
fn signal(pid: u32, name: &str) -> std::io::Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} \"$0\""), &pid.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("process {pid} is not there"))) }
}

impl Drop for NatsChild {
    fn drop(&mut self) {
        // SIGTERM lets it write its last state; it is our own child, by pid.
        if terminate(self.child.id()).is_err() {
            let _gone = self.child.kill();
        }
        let _reaped = self.child.wait();
        let _gone = std::fs::remove_file(&self.pid_file);
    }
}
