//! A real nats-server as a child of the test.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use bus::{
    SystemClock,
    keys::{self, Keyring, ServerSpec, TlsSpec},
};
use serde_json::json;
use tempfile::TempDir;
use types::Clock;

use crate::{
    question, secrets,
    server::{FILE_STORE_MAX, Server},
};

/// Lanes of the tenants' account: one for each container of the default settings.
pub(crate) const LANE_COUNT: u16 = 8;
pub(crate) const MAX_PAYLOAD: u64 = 8 << 20;

/// A nats-server in operator mode with JetStream, on loopback, in a directory of its own; it ends with this value.
///
/// Its files are not synced at every write: tests kill processes, they do not cut the power.
pub struct Nats {
    server: Server,
    keyring: Keyring,
    tls: Option<TlsSpec>,
    // Last: the directory goes after the server.
    dir: TempDir,
}

impl Nats {
    /// Starts a server with fresh keys on a free port.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same with a certificate; clients connect to `tls://`.
    pub async fn start_with(tls: Option<TlsSpec>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lb-nats-").tempdir()?;
        let keyring = Keyring::generate(SystemClock.now())?;
        secrets::write(&keyring, dir.path())?;
        let server = Server::new(dir.path().to_owned(), dir.path().join("jetstream"), 0)?;
        let mut nats = Self { server, keyring, tls, dir };
        nats.restart().await?;
        Ok(nats)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        let url = self.server.url();
        if self.tls.is_some() { url.replacen("nats://", "tls://", 1) } else { url }
    }

    /// Has the server read its certificate again.
    pub fn reload(&self) -> Result<()> {
        self.server.reload()
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
        self.server.pid()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Deletes a stream of the platform's account behind everyone's back.
    pub async fn delete_stream(&self, name: &str) -> Result<()> {
        let subject = format!("$JS.API.STREAM.DELETE.{name}");
        let answer = question::ask(self.server.port(), &self.platform_creds()?, &subject, &json!({})).await?;
        ensure!(answer["success"] == true, "{subject}: {answer}");
        Ok(())
    }

    /// Kills the server as if its machine had crashed, but for what the operating system still writes.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Kills the server and deletes everything that JetStream stored, as if its disk was lost.
    pub fn wipe(&mut self) -> Result<()> {
        self.server.wipe()
    }

    /// Starts the server again, on the same port and files; kills it first if it runs.
    pub async fn restart(&mut self) -> Result<()> {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let (store_dir, resolver_dir, keyring, tls) =
            (at("jetstream"), at("resolver"), &self.keyring, self.tls.clone());
        self.server
            .start(|ports, port| {
                let spec = ServerSpec {
                    name: "test".to_owned(),
                    address: "127.0.0.1".to_owned(),
                    port,
                    store_dir,
                    resolver_dir,
                    max_file_store: FILE_STORE_MAX,
                    sync_interval: "2m".to_owned(),
                    max_payload: MAX_PAYLOAD,
                    lane_count: LANE_COUNT,
                    ports_dir: Some(ports.to_owned()),
                    tls,
                };
                Ok(keys::server_config(keyring, &spec)?)
            })
            .await
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.secret_path(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::{Bus, BusOptions};

    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_on_its_port_with_its_data() {
        let mut nats = Nats::start().await.unwrap();
        let options = BusOptions {
            url: nats.url(),
            creds: Some(nats.platform_creds().unwrap()),
            name: "test/a".to_owned(),
            ..BusOptions::default()
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
