//! `logboom keys`: everything secret of an installation, made once, and the server configuration made from it.

mod certificates;
mod cluster;
mod renewal;

use std::path::{Path, PathBuf};

use anyhow::Context;
use bus::{
    SystemClock,
    keys::{
        CLAIMS_UPDATES, Keyring, ServerSpec, TlsSpec, UserSpec, creds_may_subscribe, issue_creds, public_key,
        server_config,
    },
};
use data_encoding::BASE64;
use tls::Files;
use types::Clock;
use wire::delegation::OUTER_FILTER;

pub(crate) use self::certificates::{CertificateDir, Outcome};
use self::cluster::ClusterArgs;
use crate::{screen::Screen, tools::index::write_private};

/// How long a certificate lives that nobody said anything about.
pub(crate) const CERTIFICATE_DAYS: u32 = 365;

const INIT_EXAMPLES: &str = "Examples:
  logboom keys init --dir keys                              plain text on loopback
  logboom keys init --dir keys --tls --host logs.example    TLS on every connection, with an authority of its own
  logboom keys init --kubernetes                            in a pod, such as that of the Job in k8s/base/keys";

const TLS_EXAMPLES: &str = "Examples:
  logboom keys tls --dir keys/tls                           for this machine only
  logboom keys tls --dir keys/tls --host logs.example --host '*.logboom.svc'
  logboom keys tls --dir keys/tls                           later, for example once a week: renews for the same hosts
  logboom keys tls --kubernetes --host '*.logboom.svc'      in a pod, such as that of k8s/components/certificates
Running processes take up what is new by themselves; give others ca.pem to trust, and keep ca.key to yourself.";

/// Keys and accounts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeysCommand {
    /// Make operator, accounts (system, platform, tenants), credentials and secrets; what exists is kept
    #[command(after_help = INIT_EXAMPLES)]
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
        /// Also make certificates, below `tls`, and settings with which everything speaks TLS
        #[arg(long, conflicts_with = "kubernetes")]
        tls: bool,
        /// Host name or address that the certificate is for besides this machine; may be given several times
        #[arg(long = "host", value_name = "NAME", requires = "tls")]
        hosts: Vec<String>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Make a private authority and a certificate, or renew what ends soon; what is good is kept
    #[command(after_help = TLS_EXAMPLES)]
    Tls {
        /// Where to write; the files are readable by their owner only
        #[arg(long, default_value = "keys/tls")]
        dir: PathBuf,
        /// Host name or address that the certificate is for besides this machine; may be given several times. Without any: those of
        /// the last time
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Days that a new certificate lives
        #[arg(long, default_value_t = CERTIFICATE_DAYS)]
        days: u32,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

impl KeysCommand {
    /// Runs the tool.
    pub(crate) fn run(self, screen: Screen) -> anyhow::Result<()> {
        let (dir, port, address, container_count, sync_interval, tls, mut hosts, cluster) = match self {
            Self::Init { dir, port, address, container_count, sync_interval, tls, hosts, cluster } => {
                (dir, port, address, container_count, sync_interval, tls, hosts, cluster)
            }
            Self::Tls { dir, hosts, days, cluster } if cluster.kubernetes => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let outcome = runtime.block_on(renewal::renew(&cluster, &dir, &hosts, days))?;
                screen.line(format_args!("Secret {}: {}", renewal::CERTIFICATE, told(outcome)));
                return Ok(());
            }
            Self::Tls { dir, hosts, days, .. } => return renew(&dir, &hosts, days, screen),
        };
        let make = || {
            let keys = KeyDir::open_or_create(&dir)?;
            let certificates = keys.certificates();
            if tls {
                hosts.push(reachable(&address).to_owned());
                certificates.ensure(&hosts, CERTIFICATE_DAYS, SystemClock.now())?;
            }
            let server = NatsServer {
                address,
                port,
                store_dir: keys.dir.join("jetstream"),
                max_file_store: None,
                sync_interval,
                max_payload: MAX_PAYLOAD,
                container_count,
                tls: tls.then(|| certificates.files()),
            };
            keys.write_server_config(&server)?;
            keys.write_settings(&server)?;
            anyhow::Ok(keys)
        };
        if cluster.kubernetes {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(cluster::keep(&cluster, &dir, make))?;
            screen.line(format_args!("the namespace holds the Secrets {}", cluster::NAMES.join(", ")));
            return Ok(());
        }
        let keys = make()?;
        screen.line(format_args!(
            "{} holds keys, credentials, nats.conf and logboom.toml\nnext: nats-server --config {}",
            keys.dir.display(),
            keys.path("nats.conf").display()
        ));
        Ok(())
    }
}

/// Makes or renews the certificate, and says how long it is good.
fn renew(dir: &Path, hosts: &[String], days: u32, screen: Screen) -> anyhow::Result<()> {
    let certificates = CertificateDir::at(dir);
    let outcome = certificates.ensure(hosts, days, SystemClock.now())?;
    let files = certificates.files();
    let ends = tls::Tls::open(files.clone())?.expires().unwrap_or_default();
    let day = jiff::Timestamp::from_millisecond(ends.millis())?.strftime("%F");
    screen.line(format_args!("{}; it is good until {day}, for {}", told(outcome), certificates.hosts(&[])?.join(", ")));
    screen.line(format_args!("[common]\n{}", tls_settings(&files).trim_end()));
    Ok(())
}

fn told(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Kept => "the certificate is kept",
        Outcome::Issued => "the certificate is a new one",
        Outcome::Announced => {
            "the certificate is kept; a new authority is trusted beside its own: run this again in a day, and it signs"
        }
        Outcome::Founded => "the certificate is a new one, of a new authority",
    }
}

/// The settings that name these files.
fn tls_settings(files: &Files) -> String {
    let mut text = String::new();
    for (key, scheme, path) in
        [("tls_certificate", "", &files.certificate), ("tls_key", "file:", &files.key), ("tls_ca", "", &files.ca)]
    {
        if let Some(path) = path {
            text += &format!("{key} = \"{scheme}{}\"\n", path.display());
        }
    }
    text
}

/// Under which address a process on this machine reaches what listens on all of them.
pub(crate) fn reachable(address: &str) -> &str {
    match address {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        other => other,
    }
}

/// How a process on this machine reaches what listens at `host:port`.
pub(crate) fn local_url(scheme: &str, address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    match reachable(host.trim_matches(['[', ']'])) {
        host if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
        host => format!("{scheme}://{host}:{port}"),
    }
}

/// The file of the master keys, which wrap the keys of encrypted indexes.
pub(crate) const ENCRYPTION_KEYS: &str = "encryption.keys";

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
    /// How many bytes all streams may reserve; `None` is three quarters of what is free.
    pub(crate) max_file_store: Option<u64>,
    /// When JetStream syncs.
    pub(crate) sync_interval: String,
    /// The largest message.
    pub(crate) max_payload: u64,
    /// Lanes of the front door.
    pub(crate) container_count: u16,
    /// Its certificate, which is that of everything else too; `None` speaks plain text.
    pub(crate) tls: Option<Files>,
}

impl NatsServer {
    /// Where clients on this machine connect.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "tls" } else { "nats" };
        local_url(scheme, &format!("{}:{}", self.address, self.port))
    }

    /// Producers have no certificate; they show who they are by their credentials.
    fn tls_spec(&self) -> Option<TlsSpec> {
        let files = self.tls.as_ref()?;
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Some(TlsSpec { certificate: text(&files.certificate), key: text(&files.key), clients_of: None })
    }
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
        // Those that an older release made do not hear the calls of programs outside.
        keys.renew(
            "tenants.creds",
            |creds| creds_may_subscribe(creds, OUTER_FILTER),
            || Ok(issue_creds(|key| UserSpec::front_door("front-door", key), &ring.tenants_seed, now)?),
        )?;
        // Nor do they hear what others say of accounts.
        keys.renew(
            "system.creds",
            |creds| creds_may_subscribe(creds, CLAIMS_UPDATES),
            || Ok(issue_creds(|key| UserSpec::system("system", key), &ring.system_seed, now)?),
        )?;
        for name in ["binding.secret", "broker.password", "admin.token"] {
            keys.keep(name, || Ok(random_hex()))?;
        }
        keys.keep(ENCRYPTION_KEYS, master_key)?;
        // Fails early, and in words, when a ring was damaged by hand.
        public_key(&ring.tenants_seed).context("keyring.json is damaged")?;
        Ok(keys)
    }

    /// The certificates, whether they are there or not.
    pub(crate) fn certificates(&self) -> CertificateDir {
        CertificateDir::at(&self.dir.join("tls"))
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn keep(&self, name: &str, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        self.renew(name, |_| true, make)
    }

    /// Keeps what is there and still good.
    fn renew(
        &self,
        name: &str,
        good: impl FnOnce(&str) -> bool,
        make: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let path = self.path(name);
        if !path.exists() || !good(&std::fs::read_to_string(&path)?) {
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
            max_file_store: server.max_file_store,
            sync_interval: server.sync_interval.clone(),
            max_payload: server.max_payload,
            lane_count: server.container_count,
            ports_dir: None,
            tls: server.tls_spec(),
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
             [common]\nnats_url = \"{url}\"\nnats_creds = {platform}\ntenants_creds = {tenants}\n\
             encryption_keys = {encryption}\n\
             container_count = {containers}\n{tls}\n\
             [gateway]\nadmin_token = {admin}\n\n\
             [broker]\npassword = {password}\nnats_public_url = \"{url}\"\n{gateway}\n\
             [index_provisioner]\noperator_seed = {operator}\naccount_seed = {account}\nsystem_creds = {system}\n\
             binding_secret = {binding}\n",
            url = server.url(),
            tls = server.tls.as_ref().map(tls_settings).unwrap_or_default(),
            gateway = server.tls.as_ref().map(|_| "gateway_url = \"https://127.0.0.1:7700\"\n").unwrap_or_default(),
            containers = server.container_count,
            platform = file("platform.creds"),
            tenants = file("tenants.creds"),
            encryption = file(ENCRYPTION_KEYS),
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

/// A keyring of one master key.
fn master_key() -> anyhow::Result<String> {
    let bytes: [u8; 32] = rand::random();
    Ok(format!("k1:{}\n", BASE64.encode(&bytes)))
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
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (address, expected) in [
            ("127.0.0.1:4222", "tls://127.0.0.1:4222"),
            ("0.0.0.0:1", "tls://127.0.0.1:1"),
            (":::1", "tls://[::1]:1"),
            ("[::]:1", "tls://[::1]:1"),
            ("logs.example:7700", "tls://logs.example:7700"),
        ] {
            assert_eq!(local_url("tls", address), expected, "{address}");
        }
    }

    #[test]
    fn credentials_of_an_older_release_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::open_or_create(dir.path()).unwrap();
        let ring = keys.keyring().unwrap();
        let front_door = |key| UserSpec { sub_allow: vec!["lane.>".to_owned()], ..UserSpec::front_door("old", key) };
        let system = |key| UserSpec { sub_allow: vec!["_INBOX.>".to_owned()], ..UserSpec::system("old", key) };
        let now = SystemClock.now();
        for (name, needed, older) in [
            ("tenants.creds", OUTER_FILTER, issue_creds(front_door, &ring.tenants_seed, now)),
            ("system.creds", CLAIMS_UPDATES, issue_creds(system, &ring.system_seed, now)),
        ] {
            let (older, read) = (older.unwrap(), || std::fs::read_to_string(keys.path(name)).unwrap());
            assert!(creds_may_subscribe(&read(), needed) && !creds_may_subscribe(&older, needed), "{name}");
            write_private(&keys.path(name), &older).unwrap();
            KeyDir::open_or_create(dir.path()).unwrap();
            let newer = read();
            assert!(newer != older && creds_may_subscribe(&newer, needed), "{name}");
            KeyDir::open_or_create(dir.path()).unwrap();
            assert_eq!(read(), newer);
        }
    }

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
