//! One nats-server child: its files, its signals, its port.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// How long a server may take to say on which port it listens.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to end in order.
const END_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A nats-server in a directory of its own; it is killed, by its id, with this value.
pub(crate) struct Server {
    dir: PathBuf,
    store_dir: PathBuf,
    child: Option<Child>,
    port: u16,
    starts: u32,
    paused: bool,
}

impl Server {
    /// A server that has not been started yet; port 0 lets it choose one at its first start.
    pub(crate) fn new(dir: PathBuf, store_dir: PathBuf, port: u16) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, store_dir, child: None, port, starts: 0, paused: false })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn answers(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    pub(crate) fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.paused = false;
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill nats-server")?;
            child.wait().context("wait for nats-server")?;
        }
        Ok(())
    }

    /// Asks it to end, which it does when its files are as they should be, and waits for that.
    pub(crate) async fn terminate(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let begun = Instant::now();
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
                break;
            }
            ensure!(begun.elapsed() < END_MAX, "nats-server does not end within {END_MAX:?}:\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(&self.store_dir).context("delete JetStream's files")
    }

    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal("STOP")?;
        self.paused = true;
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<()> {
        self.signal("CONT")?;
        self.paused = false;
        Ok(())
    }

    pub(crate) fn reload(&self) -> Result<()> {
        self.signal("HUP")
    }

    /// Fails if the server has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("nats-server ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// Starts it with a configuration made for its directories of the moment: where to write its port, and which one it has.
    pub(crate) async fn start(&mut self, config: impl FnOnce(&str, u16) -> Result<String>) -> Result<()> {
        self.kill()?;
        self.starts += 1;
        let ports = self.dir.join(format!("ports-{}", self.starts));
        fs::create_dir_all(&ports)?;
        let file = self.dir.join("nats.conf");
        fs::write(&file, config(&ports.display().to_string(), self.port)?)?;
        let log = fs::File::options().create(true).append(true).open(self.dir.join("server.log"))?;
        let server = server_path()?;
        let child = Command::new(&server)
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", server.display()))?;
        self.child = Some(child);
        self.port = self.await_port(&ports).await?;
        Ok(())
    }

    /// The server writes the ports that it chose once it listens.
    async fn await_port(&mut self, ports: &Path) -> Result<u16> {
        let begun = Instant::now();
        loop {
            for entry in fs::read_dir(ports)? {
                let text = fs::read_to_string(entry?.path()).unwrap_or_default();
                // A file that is being written is not yet JSON.
                if let Some(port) = port_of(&text) {
                    return Ok(port);
                }
            }
            self.check()?;
            ensure!(begun.elapsed() < START_MAX, "nats-server does not listen after {START_MAX:?}:\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().context("nats-server does not run")?.to_string();
        // The shell's own `kill`: a small container has no other.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} \"$0\""), &pid]).status()?;
        ensure!(sent.success(), "nats-server (pid {pid}) could not be sent SIG{name}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "nats-server could not be ended");
        }
    }
}

/// What streams may reserve: more than any disk has. They reserve their largest size, and a test fills hardly any of it.
pub(crate) const FILE_STORE_MAX: Option<u64> = Some(1 << 40);

/// A configuration with a bound on API requests that wait; 0 is the server's own.
pub(crate) fn with_queue(config: &str, api_queue_max: u32) -> String {
    if api_queue_max == 0 {
        return config.to_owned();
    }
    config.replacen("jetstream {\n", &format!("jetstream {{\n  request_queue_limit: {api_queue_max}\n"), 1)
}

fn port_of(text: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(text).ok()?;
    let url = ports.get("nats")?.get(0)?.as_str()?;
    url.rsplit_once(':')?.1.parse().ok()
}

/// The nats-server binary.
#[allow(clippy::disallowed_methods, reason = "tests have no settings of their own")]
pub fn server_path() -> Result<PathBuf> {
    if let Some(set) = env::var_os("LB_NATS_SERVER") {
        let path = PathBuf::from(set);
        ensure!(path.is_file(), "LB_NATS_SERVER is {}, which is not a file", path.display());
        return Ok(path);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pinned = env::var_os("LOGBOOM_TOOLS").map(|tools| PathBuf::from(tools).join("bin/nats-server"));
    let upper = here.ancestors().map(|dir| dir.join(".tools/bin/nats-server"));
    let paths = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&paths).map(|dir| dir.join("nats-server")).collect::<Vec<_>>();
    pinned
        .into_iter()
        .chain(upper)
        .chain(on_path)
        .find(|path| path.is_file())
        .context("there is no nats-server: run `./justw tools`, set LB_NATS_SERVER to its path, or install it on PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_ports_file() {
        assert_eq!(port_of(r#"{"nats":["nats://127.0.0.1:43211"],"monitoring":null}"#), Some(43211));
        for odd in ["", "{", r#"{"nats":[]}"#] {
            assert_eq!(port_of(odd), None);
        }
    }
}
