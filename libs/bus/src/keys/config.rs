//! The configuration of a server that trusts our operator.

use serde_json::json;

use super::{
    Keyring,
    claims::{AccountSpec, account_jwt},
    jwt::sign,
    public_key,
};
use crate::BusError;

/// What a server needs to know besides the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// The server's name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its port; 0 lets it choose one and write it to `ports_dir`.
    pub port: u16,
    /// Directory of the JetStream files.
    pub store_dir: String,
    /// Directory in which it keeps account claims.
    pub resolver_dir: String,
    /// How many bytes all streams together may reserve; `None` lets the server take three quarters of what its disk has
    /// free when it starts.
    pub max_file_store: Option<u64>,
    /// How often JetStream syncs its files: `always` or a duration such as `2m`.
    pub sync_interval: String,
    /// The largest message in bytes.
    pub max_payload: u64,
    /// Lanes of the tenants' account.
    pub lane_count: u16,
    /// Directory to which it writes the ports that it chose.
    pub ports_dir: Option<String>,
    /// Its certificate; `None` speaks plain text.
    pub tls: Option<TlsSpec>,
}

/// Where a server finds its certificate; it reads the files again at SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSpec {
    /// The certificate chain.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Whose certificates clients must show; `None` asks for none.
    pub clients_of: Option<String>,
}

/// The part of `nats.conf` with which a server speaks TLS, and nothing else, to its clients.
fn tls_config(spec: &TlsSpec) -> String {
    let mut text = format!("tls {{\n  cert_file: {}\n  key_file: {}\n", quoted(&spec.certificate), quoted(&spec.key));
    if let Some(ca) = &spec.clients_of {
        text += &format!("  ca_file: {}\n  verify: true\n", quoted(ca));
    }
    text + "}\n"
}

/// What a server needs to know of its cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The cluster's name; the same on every server.
    pub name: String,
    /// Where the others reach this server: `address:port`.
    pub listen: String,
    /// Where every server of the cluster listens, this one included.
    pub routes: Vec<String>,
    /// By what the servers know each other; the same on every server.
    pub password: String,
}

impl std::fmt::Debug for ClusterSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, listen, routes, password: _ } = self;
        f.debug_struct("ClusterSpec").field("name", name).field("listen", listen).field("routes", routes).finish()
    }
}

/// The user of the routes between servers; it opens nothing else.
const ROUTE_USER: &str = "route";

/// The part of `nats.conf` that makes a server one of a cluster, to be added to [`server_config`].
///
/// The servers of a cluster have different names and one key ring.
pub fn cluster_config(spec: &ClusterSpec) -> String {
    let password = &spec.password;
    let routes: Vec<String> =
        spec.routes.iter().map(|route| quoted(&format!("nats://{ROUTE_USER}:{password}@{route}"))).collect();
    format!(
        "cluster {{\n  name: {}\n  listen: {}\n  authorization {{ user: {ROUTE_USER}, password: {} }}\n  routes: [{}]\n}}\n",
        quoted(&spec.name),
        quoted(&spec.listen),
        quoted(password),
        routes.join(", ")
    )
}

/// The text of `nats.conf`: operator mode with three accounts, JetStream on.
///
/// The same ring and spec give the same text. Claims pushed later stay in `resolver_dir` and win over what is
/// preloaded.
pub fn server_config(ring: &Keyring, spec: &ServerSpec) -> Result<String, BusError> {
    let system = public_key(&ring.system_seed)?;
    let (platform, tenants) = (public_key(&ring.platform_seed)?, public_key(&ring.tenants_seed)?);
    let operator = sign(
        &public_key(&ring.operator_seed)?,
        "logboom",
        json!({ "type": "operator", "version": 2, "system_account": system }),
        &ring.operator_seed,
        ring.created,
        None,
    )?;
    let accounts = [
        AccountSpec::system(system.clone()),
        AccountSpec::platform(platform),
        AccountSpec::tenants(tenants, spec.lane_count, Vec::new()),
    ];
    let port = if spec.port == 0 { -1 } else { i32::from(spec.port) };
    let mut text = format!(
        "server_name: {}\nhost: {}\nport: {port}\nmax_payload: {}\n",
        quoted(&spec.name),
        quoted(&spec.address),
        spec.max_payload
    );
    if let Some(dir) = &spec.ports_dir {
        text += &format!("ports_file_dir: {}\n", quoted(dir));
    }
    text += &spec.tls.as_ref().map(tls_config).unwrap_or_default();
    text += &format!(
        "jetstream {{\n  store_dir: {}\n  sync_interval: {}\n",
        quoted(&spec.store_dir),
        quoted(&spec.sync_interval)
    );
    if let Some(bytes) = spec.max_file_store {
        text += &format!("  max_file_store: {bytes}\n");
    }
    text += "}\n";
    text += &format!("operator: {operator}\nsystem_account: {system}\n");
    text += &format!(
        "resolver {{\n  type: full\n  dir: {}\n  allow_delete: true\n  interval: \"2m\"\n}}\nresolver_preload {{\n",
        quoted(&spec.resolver_dir)
    );
    for account in &accounts {
        let jwt = account_jwt(account, &ring.operator_seed, ring.created)?;
        text += &format!("  {}: {jwt}\n", account.public_key);
    }
    Ok(text + "}\n")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use types::Timestamp;

    use super::*;

    #[test]
    fn the_same_ring_gives_the_same_text() {
        let ring = Keyring::generate(Timestamp::from_millis(1)).unwrap();
        let spec = ServerSpec {
            name: "n".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 0,
            store_dir: "/var/x".to_owned(),
            resolver_dir: "/var/y".to_owned(),
            max_file_store: None,
            sync_interval: "always".to_owned(),
            max_payload: 1 << 23,
            lane_count: 4,
            ports_dir: None,
            tls: None,
        };
        let text = server_config(&ring, &spec).unwrap();
        assert_eq!(text, server_config(&ring, &spec).unwrap());
        assert!(text.contains("port: -1\n") && !text.contains(&ring.operator_seed) && !text.contains("tls"));
        assert!(!text.contains("max_file_store"));
        let roomy = ServerSpec { max_file_store: Some(1 << 30), ..spec.clone() };
        let text = server_config(&ring, &roomy).unwrap();
        assert!(text.contains("  sync_interval: \"always\"\n  max_file_store: 1073741824\n}\n"), "{text}");
        let tls = |clients_of| TlsSpec { certificate: "/c".to_owned(), key: "/k".to_owned(), clients_of };
        let secured = |clients_of| ServerSpec { tls: Some(tls(clients_of)), ..spec.clone() };
        let text = server_config(&ring, &secured(None)).unwrap();
        assert!(text.contains("tls {\n  cert_file: \"/c\"\n  key_file: \"/k\"\n}\n"), "{text}");
        let text = server_config(&ring, &secured(Some("/a".to_owned()))).unwrap();
        assert!(text.contains("  ca_file: \"/a\"\n  verify: true\n}\n"), "{text}");
    }

    #[test]
    fn a_cluster_names_its_routes_and_does_not_print_its_password() {
        let spec = ClusterSpec {
            name: "c".to_owned(),
            listen: "127.0.0.1:1".to_owned(),
            routes: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
            password: "sesame".to_owned(),
        };
        let text = cluster_config(&spec);
        assert!(text.contains("nats://route:sesame@127.0.0.1:2") && text.contains("listen: \"127.0.0.1:1\""), "{text}");
        assert!(!format!("{spec:?}").contains("sesame"));
    }
}
