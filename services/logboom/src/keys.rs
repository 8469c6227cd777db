//! `logboom keys init`: everything secret of an installation, made once, and the server configuration made from it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bus::{
    SystemClock,
    keys::{Keyring, ServerSpec, UserSpec, issue_creds, public_key, server_config},
};
use types::Clock;

use crate::{screen::Screen, tools::index::write_private};

/// Keys and accounts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeysCommand {
    /// Make operator, accounts (system, platform, tenants), credentials and secrets; what exists is kept
    Init {
        /// Where to write; the files are readable by their owner only
        #[arg(long, default_value = "keys")]
        dir: PathBuf,
        /// Port of the nats-server that nats.conf describes
        #[arg(long, default_value_t = 4222)]
        port: u16,
        /// Address of the nats-server that nats.conf describes
        #[arg(long, default_value = "127.0.0.1")]
        address: String,
        /// Containers of the installation, which is also the number of front-door lanes
        #[arg(long, default_value_t = 8)]
        container_count: u16,
        /// When JetStream syncs: `always` or a duration such as `2m`
        #[arg(long, default_value = "always")]
        sync_interval: String,
    },
}

impl KeysCommand {
    /// Runs the tool.
    pub(crate) fn run(self, screen: Screen) -> anyhow::Result<()> {
        let Self::Init { dir, port, address, container_count, sync_interval } = self;
        let keys = KeyDir::open_or_create(&dir)?;
        let server = NatsServer {
            address,
            port,
            store_dir: keys.dir.join("jetstream"),
            sync_interval,
            max_payload: MAX_PAYLOAD,
            container_count,
        };
        keys.write_server_config(&server)?;
        keys.write_settings(&server)?;
        screen.line(format_args!(
            "{} holds keys, credentials, nats.conf and logboom.toml\nnext: nats-server --config {}",
            keys.dir.display(),
            keys.path("nats.conf").display()
        ));
        Ok(())
    }
}

/// The nats-server default of 1 MiB is less than an event of 1 MiB with its headers.
const MAX_PAYLOAD: u64 = 8 << 20;

/// A directory with the secrets of an installation.
#[derive(Debug, Clone)]
pub(crate) struct KeyDir {
    /// Its absolute path.
    pub(crate) dir: PathBuf,
}

/// What a nats-server of an installation needs to know.
#[derive(Debug, Clone)]
pub(crate) struct NatsServer {
    /// Where it listens.
    pub(crate) address: String,
    /// On which port.
    pub(crate) port: u16,
    /// Where JetStream keeps its files.
    pub(crate) store_dir: PathBuf,
    /// When JetStream syncs.
    pub(crate) sync_interval: String,
    /// The largest message.
    pub(crate) max_payload: u64,
    /// Lanes of the front door.
    pub(crate) container_count: u16,
}

impl KeyDir {
    /// Opens the directory and makes what is missing; repeating it changes nothing.
    pub(crate) fn open_or_create(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let keys = Self { dir: dir.canonicalize()? };
        let ring = keys.keyring()?;
        let now = SystemClock.now();
        keys.keep("operator.seed", || Ok(ring.operator_seed.clone()))?;
        keys.keep("tenants.seed", || Ok(ring.tenants_seed.clone()))?;
        keys.keep("platform.creds", || {
            Ok(issue_creds(|key| UserSpec::platform("platform", key), &ring.platform_seed, now)?)
        })?;
        keys.keep("tenants.creds", || {
            Ok(issue_creds(|key| UserSpec::front_door("front-door", key), &ring.tenants_seed, now)?)
        })?;
        keys.keep("system.creds", || Ok(issue_creds(|key| UserSpec::system("system", key), &ring.system_seed, now)?))?;
        for name in ["binding.secret", "broker.password", "admin.token"] {
            keys.keep(name, || Ok(random_hex()))?;
        }
        // Fails early, and in words, when a ring was damaged by hand.
        public_key(&ring.tenants_seed).context("keyring.json is damaged")?;
        Ok(keys)
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn keep(&self, name: &str, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        let path = self.path(name);
        if !path.exists() {
            write_private(&path, &make()?)?;
        }
        Ok(())
    }

    fn keyring(&self) -> anyhow::Result<Keyring> {
        let path = self.path("keyring.json");
        if !path.exists() {
            let ring = Keyring::generate(SystemClock.now())?;
            write_private(&path, &serde_json::to_string_pretty(&ring)?)?;
        }
        let text = std::fs::read_to_string(&path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes nats.conf.
    pub(crate) fn write_server_config(&self, server: &NatsServer) -> anyhow::Result<PathBuf> {
        let spec = ServerSpec {
            name: "logboom".to_owned(),
            address: server.address.clone(),
            port: server.port,
            store_dir: server.store_dir.display().to_string(),
            resolver_dir: self.path("resolver").display().to_string(),
            sync_interval: server.sync_interval.clone(),
            max_payload: server.max_payload,
            lane_count: server.container_count,
            ports_dir: None,
        };
        let path = self.path("nats.conf");
        write_private(&path, &server_config(&self.keyring()?, &spec)?)?;
        Ok(path)
    }

    /// The settings that name every secret, for `--settings`.
    pub(crate) fn settings_toml(&self, server: &NatsServer) -> String {
        let file = |name: &str| format!("\"file:{}\"", self.path(name).display());
        format!(
            "# Written by `logboom keys init`; the secrets stand in the files named here.\n\
             [common]\nnats_url = \"nats://{address}:{port}\"\nnats_creds = {platform}\ntenants_creds = {tenants}\n\
             container_count = {containers}\n\n\
             [gateway]\nadmin_token = {admin}\n\n\
             [broker]\npassword = {password}\nnats_public_url = \"nats://{address}:{port}\"\n\n\
             [index_provisioner]\noperator_seed = {operator}\naccount_seed = {account}\nsystem_creds = {system}\n\
             binding_secret = {binding}\n",
            address = server.address,
            port = server.port,
            containers = server.container_count,
            platform = file("platform.creds"),
            tenants = file("tenants.creds"),
            admin = file("admin.token"),
            password = file("broker.password"),
            operator = file("operator.seed"),
            account = file("tenants.seed"),
            system = file("system.creds"),
            binding = file("binding.secret"),
        )
    }

    fn write_settings(&self, server: &NatsServer) -> anyhow::Result<()> {
        write_private(&self.path("logboom.toml"), &self.settings_toml(server))
    }
}

/// 256 random bits as text.
fn random_hex() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::open_or_create(dir.path()).unwrap();
        let read = |keys: &KeyDir| std::fs::read_to_string(keys.path("platform.creds")).unwrap();
        let before = read(&keys);
        assert_eq!(read(&KeyDir::open_or_create(dir.path()).unwrap()), before);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
    }
}
