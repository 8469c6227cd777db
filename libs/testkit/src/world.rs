//! A world for one test: servers, directories, settings, secrets.

use std::{fs, path::PathBuf};

use anyhow::Result;
use settings::{Common, Layers, Settings};
use tempfile::TempDir;

use crate::Nats;

/// A nats-server, object storage in a directory, and the settings and secrets that services need to live in it.
pub struct World {
    /// The server.
    pub nats: Nats,
    dir: TempDir,
}

impl World {
    /// Starts a world of its own, which ends with this value.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lb-world-").tempdir()?;
        fs::write(dir.path().join("binding.secret"), "a secret of a world that lives for one test only")?;
        fs::write(dir.path().join("broker.password"), "open sesame")?;
        Ok(Self { nats: Nats::start().await?, dir })
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
        layers.set.extend(set.iter().map(|&one| one.to_owned()));
        Ok(Settings::load(layers)?)
    }

    /// The settings that every service shares, for a replica in this world.
    pub fn common(&self, replica: &str, set: &[&str]) -> Result<Common> {
        Ok(self.settings(replica, set)?.section()?)
    }
}
