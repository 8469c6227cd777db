//! A real nats-server as a child of the test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bus::{
    SystemClock,
    keys::{self, Keyring, ServerSpec, UserSpec},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use types::Clock;

/// How long a server may take to say on which port it listens.
const START_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lanes of the tenants' account: one for each container of the default settings.
const LANE_COUNT: u16 = 8;
const MAX_PAYLOAD: u64 = 8 << 20;

/// A nats-server in operator mode with JetStream, on loopback, in a directory of its own; it ends with this value.
///
/// Its files are not synced at every write: tests kill processes, they do not cut the power.
pub struct Nats {
    dir: TempDir,
    keyring: Keyring,
    child: Option<Child>,
    port: u16,
    starts: u32,
}

impl Nats {
    /// Starts a server with fresh keys on a free port.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lb-nats-").tempdir()?;
        let now = SystemClock.now();
        let keyring = Keyring::generate(now)?;
        let creds = [
            (
                "platform.creds",
                keys::issue_creds(|key| UserSpec::platform("platform", key), &keyring.platform_seed, now)?,
            ),
            (
                "tenants.creds",
                keys::issue_creds(|key| UserSpec::front_door("tenants", key), &keyring.tenants_seed, now)?,
            ),
            ("system.creds", keys::issue_creds(|key| UserSpec::system("system", key), &keyring.system_seed, now)?),
            ("operator.seed", keyring.operator_seed.clone()),
            ("tenants.seed", keyring.tenants_seed.clone()),
        ];
        for (name, text) in creds {
            fs::write(dir.path().join(name), text)?;
        }
        let mut nats = Self { dir, keyring, child: None, port: 0, starts: 0 };
        nats.restart().await?;
        Ok(nats)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Text of the credentials of the platform account.
    pub fn platform_creds(&self) -> Result<String> {
        self.read("platform.creds")
    }

    /// Text of the credentials of the tenants' account, as the front door has them.
    pub fn tenants_creds(&self) -> Result<String> {
        self.read("tenants.creds")
    }

    /// Text of the credentials of the system account.
    pub fn system_creds(&self) -> Result<String> {
        self.read("system.creds")
    }

    /// The keys of operator and accounts.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A file with a secret: `platform.creds`, `tenants.creds`, `system.creds`, `operator.seed` or `tenants.seed`.
    pub fn secret_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// Kills the server as if its machine had crashed, but for what the operating system still writes.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill nats-server")?;
            child.wait().context("wait for nats-server")?;
        }
        Ok(())
    }

    /// Kills the server and deletes everything that JetStream stored, as if its disk was lost.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(self.dir.path().join("jetstream")).context("delete JetStream's files")
    }

    /// Starts the server again, on the same port and files; kills it first if it runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.starts += 1;
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let ports = format!("ports-{}", self.starts);
        fs::create_dir_all(at(&ports))?;
        let spec = ServerSpec {
            name: "test".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            store_dir: at("jetstream"),
            resolver_dir: at("resolver"),
            sync_interval: "2m".to_owned(),
            max_payload: MAX_PAYLOAD,
            lane_count: LANE_COUNT,
            ports_dir: Some(at(&ports)),
        };
        fs::write(at("nats.conf"), keys::server_config(&self.keyring, &spec)?)?;
        let log = fs::File::options().create(true).append(true).open(at("server.log"))?;
        let server = server_path()?;
        let child = Command::new(&server)
            .arg("--config")
            .arg(at("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", server.display()))?;
        self.child = Some(child);
        self.port = self.await_port(Path::new(&at(&ports))).await?;
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
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("nats-server ended with {status}:\n{}", self.log());
            }
            ensure!(begun.elapsed() < START_MAX, "nats-server does not listen after {START_MAX:?}:\n{}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.secret_path(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "nats-server could not be ended");
        }
    }
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
    let upper = here.ancestors().map(|dir| dir.join(".tools/bin/nats-server"));
    let paths = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&paths).map(|dir| dir.join("nats-server")).collect::<Vec<_>>();
    upper.chain(on_path).find(|path| path.is_file()).context(
        "there is no nats-server: set LB_NATS_SERVER to its path, put it at .tools/bin/nats-server, or install it on PATH",
    )
}

#[cfg(test)]
mod tests {
    use bus::{Bus, BusOptions};

    use super::*;

    #[test]
    fn the_port_is_read_from_the_ports_file() {
        assert_eq!(port_of(r#"{"nats":["nats://127.0.0.1:43211"],"monitoring":null}"#), Some(43211));
        for odd in ["", "{", r#"{"nats":[]}"#] {
            assert_eq!(port_of(odd), None);
        }
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_on_its_port_with_its_data() {
        let mut nats = Nats::start().await.unwrap();
        let options = BusOptions {
            url: nats.url(),
            creds: Some(nats.platform_creds().unwrap()),
            name: "test/a".to_owned(),
            inbox_prefix: None,
        };
        let bus = Bus::connect(options).await.unwrap();
        let bucket = bus.bucket("kept", None, 1).await.unwrap();
        bucket.put("key", "value").await.unwrap();
        let (url, pid) = (nats.url(), nats.pid().unwrap());
        nats.kill().unwrap();
        assert_eq!(nats.pid(), None);
        crate::eventually(Duration::from_secs(5), async || !bus.is_connected()).await;
        nats.restart().await.unwrap();
        assert_eq!(nats.url(), url);
        assert_ne!(nats.pid(), Some(pid));
        crate::eventually(
            Duration::from_secs(8),
            async || matches!(bucket.get("key").await, Ok(Some(entry)) if entry.value == "value"),
        )
        .await;
    }
}
