//! A world for one test: servers, directories, settings, secrets.

use std::{fs, path::PathBuf};

use anyhow::Result;
use settings::{Common, Layers, Settings};
use tempfile::TempDir;

use crate::{Certificates, Nats};

/// A nats-server, object storage in a directory, and the settings and secrets that services need to live in it.
pub struct World {
    /// The server.
    pub nats: Nats,
    /// The certificates of everything in it; `None` in a world that speaks plain text.
    pub certificates: Option<Certificates>,
    dir: TempDir,
}

impl World {
    /// Starts a world of its own, which ends with this value.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same with a certificate on every connection; the server asks its clients for theirs.
    pub async fn start_tls() -> Result<Self> {
        Self::start_with(Some(Certificates::make()?)).await
    }

    async fn start_with(certificates: Option<Certificates>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lb-world-").tempdir()?;
        fs::write(dir.path().join("binding.secret"), "a secret of a world that lives for one test only")?;
        fs::write(dir.path().join("broker.password"), "open sesame")?;
        let nats = Nats::start_with(certificates.as_ref().map(Certificates::server)).await?;
        Ok(Self { nats, certificates, dir })
    }

    /// Directory of the local state of all services.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Location of the object storage.
    pub fn objects_url(&self) -> String {
        format!("file://{}", self.dir.path().join("objects").display())
    }

    /// Settings of a replica in this world: defaults, connections, secrets, then `set` (`section.key=value`).
    pub fn settings(&self, replica: &str, set: &[&str]) -> Result<Settings> {
        let nats = |name: &str| format!("file:{}", self.nats.secret_path(name).display());
        let own = |name: &str| format!("file:{}", self.dir.path().join(name).display());
        let mut layers = Layers::default();
        for (key, value) in [
            ("common.nats_url", self.nats.url()),
            ("common.nats_creds", nats("platform.creds")),
            ("common.tenants_creds", nats("tenants.creds")),
            ("common.replica", replica.to_owned()),
            ("common.data_dir", self.data_dir().display().to_string()),
            ("common.object_store_url", self.objects_url()),
            ("index_provisioner.operator_seed", nats("operator.seed")),
            ("index_provisioner.account_seed", nats("tenants.seed")),
            ("index_provisioner.system_creds", nats("system.creds")),
            ("index_provisioner.binding_secret", own("binding.secret")),
            ("broker.password", own("broker.password")),
        ] {
            layers.set.push(format!("{key}={value}"));
        }
        layers.set.extend(self.certificates.iter().flat_map(Certificates::settings));
        layers.set.extend(set.iter().map(|&one| one.to_owned()));
        Ok(Settings::load(layers)?)
    }

    /// The settings that every service shares, for a replica in this world.
    pub fn common(&self, replica: &str, set: &[&str]) -> Result<Common> {
        Ok(self.settings(replica, set)?.section()?)
    }
}
