//! `logboom keys init --kubernetes`: the secrets of an installation as Secrets of the namespace that the pod runs in.
//!
//! What is there is kept and nothing is ever written over, so that any number of runs, also at once and cut short anywhere, end with
//! the secrets of the first. The ServiceAccount needs `create` of Secrets and `get` of these five.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use bus::{SystemClock, keys::Keyring};
use data_encoding::BASE64;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tls::{Files, Tls};
use types::Clock;

use super::{ENCRYPTION_KEYS, KeyDir, master_key, random_hex};
use crate::tools::{ToolError, index::write_private};

/// The root of trust, which no pod but this one reads.
const KEYRING: &str = "logboom-keyring";
/// What the services and nats-server mount, each its own part.
const KEYS: &str = "logboom-keys";
/// What a platform presents to the broker, in the form of the service catalog.
const BROKER: &str = "logboom-broker";
/// The master keys of encrypted indexes.
const ENCRYPTION: &str = "logboom-encryption";
/// By what the servers of NATS know each other.
const ROUTES: &str = "logboom-routes";
/// All of them.
pub(super) const NAMES: [&str; 5] = [KEYRING, KEYS, ENCRYPTION, BROKER, ROUTES];
/// The files of [`KEYS`].
const FILES: [&str; 9] = [
    "platform.creds",
    "tenants.creds",
    "system.creds",
    "operator.seed",
    "tenants.seed",
    "binding.secret",
    "broker.password",
    "admin.token",
    "nats.conf",
];
/// How long the API server may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Where the API server is, as every pod is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// In a pod: keep everything as Secrets of its namespace; what is there and good is kept
    #[arg(long)]
    pub(super) kubernetes: bool,
    /// Where the token of the pod's ServiceAccount is mounted
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount", hide = true)]
    service_account: PathBuf,
    /// Address of the API server
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    kubernetes_host: Option<String>,
    /// Port of the API server
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value = "443", hide = true)]
    kubernetes_port: String,
}

/// The data of one Secret.
pub(super) type Data = BTreeMap<String, String>;

/// A Secret as it was read.
pub(super) struct Kept {
    /// What it holds.
    pub(super) data: Data,
    object: Value,
}

/// The Secrets of one namespace.
pub(super) struct Secrets {
    http: Client,
    url: String,
    token: String,
}

/// Has the Secrets there are, and makes those that are missing from what `make` writes into its directory.
pub(super) async fn keep(
    args: &ClusterArgs,
    dir: &std::path::Path,
    make: impl FnOnce() -> anyhow::Result<KeyDir>,
) -> anyhow::Result<()> {
    let secrets = Secrets::of(args)?;
    let keys = match secrets.get(KEYS).await? {
        Some(keys) => keys,
        None => {
            let path = dir.join("keyring.json");
            let own = std::fs::read_to_string(&path).ok();
            let wish = match own.clone() {
                Some(text) => text,
                None => serde_json::to_string_pretty(&Keyring::generate(SystemClock.now())?)?,
            };
            let kept = secrets.ensure(KEYRING, &Data::from([("keyring.json".to_owned(), wish)])).await?;
            let ring = kept.get("keyring.json").with_context(|| format!("Secret {KEYRING} has no keyring.json"))?;
            ensure!(
                own.is_none_or(|own| own == *ring),
                "{} is of another installation than Secret {KEYRING}: take an empty directory",
                path.display()
            );
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            write_private(&path, ring)?;
            let made = make()?;
            let read = |name: &str| Ok((name.to_owned(), std::fs::read_to_string(made.path(name))?));
            secrets.ensure(KEYS, &FILES.into_iter().map(read).collect::<anyhow::Result<_>>()?).await?
        }
    };
    let password = keys.get("broker.password").with_context(|| format!("Secret {KEYS} has no broker.password"))?;
    let broker = [("username", "admin"), ("password", password.trim())];
    let routes = [("username", "route".to_owned()), ("password", route_password())];
    secrets.ensure(ENCRYPTION, &Data::from([(ENCRYPTION_KEYS.to_owned(), master_key()?)])).await?;
    secrets.ensure(BROKER, &broker.map(|(key, value)| (key.to_owned(), value.to_owned())).into()).await?;
    secrets.ensure(ROUTES, &routes.map(|(key, value)| (key.to_owned(), value)).into()).await?;
    Ok(())
}

/// It begins with a letter, since nats-server reads what looks like a number as one.
fn route_password() -> String {
    format!("r{}", random_hex())
}

impl Secrets {
    pub(super) fn of(args: &ClusterArgs) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = args.service_account.join(name);
            std::fs::read_to_string(&path).map(|text| text.trim().to_owned()).with_context(|| {
                format!("--kubernetes is for a pod with a ServiceAccount: cannot read {}", path.display())
            })
        };
        let host = args.kubernetes_host.as_deref().context("--kubernetes: KUBERNETES_SERVICE_HOST is not set")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let (token, namespace) = (read("token")?, read("namespace")?);
        let tls = Tls::open(Files { ca: Some(args.service_account.join("ca.crt")), ..Files::default() })?;
        let tls = (*tls.client().context("the ServiceAccount has no ca.crt")?).clone();
        let http = Client::builder().no_proxy().timeout(ANSWER_MAX).tls_backend_preconfigured(tls).build()?;
        let url = format!("https://{host}:{}/api/v1/namespaces/{namespace}/secrets", args.kubernetes_port);
        Ok(Self { http, url, token })
    }

    /// What is there, else what is wished for: of several that ask at once one creates, and all get the same.
    async fn ensure(&self, name: &str, wish: &Data) -> anyhow::Result<Data> {
        if let Some(kept) = self.get(name).await? {
            return Ok(kept);
        }
        match self.ask(Method::POST, &self.url, Some(&fresh(name, wish))).await? {
            (StatusCode::CONFLICT, _) => {
                self.get(name).await?.with_context(|| format!("Secret {name} came and went; run this again"))
            }
            (status, _) if status.is_success() => Ok(wish.clone()),
            (status, answer) => Err(refused(status, &answer)),
        }
    }

    /// Makes a Secret, or exchanges what is in it; labels and annotations of others stay. What is the same is not written.
    ///
    /// Errors: `Refused` if somebody else has made or changed it since it was read.
    pub(super) async fn put(&self, name: &str, there: Option<Kept>, wish: &Data) -> anyhow::Result<()> {
        let (method, url, object) = match there {
            Some(there) if there.data == *wish => return Ok(()),
            Some(mut there) => {
                let encoded = wish.iter().map(|(key, text)| (key.clone(), BASE64.encode(text.as_bytes()).into()));
                there.object["data"] = Value::Object(encoded.collect());
                (Method::PUT, format!("{}/{name}", self.url), there.object)
            }
            None => (Method::POST, self.url.clone(), fresh(name, wish)),
        };
        let (status, answer) = self.ask(method, &url, Some(&object)).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status, &answer)) }
    }

    async fn get(&self, name: &str) -> anyhow::Result<Option<Data>> {
        Ok(self.read(name).await?.map(|kept| kept.data))
    }

    /// A Secret, if it is there.
    pub(super) async fn read(&self, name: &str) -> anyhow::Result<Option<Kept>> {
        let (status, answer) = self.ask(Method::GET, &format!("{}/{name}", self.url), None).await?;
        match status {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => return Err(refused(status, &answer)),
            _ => {}
        }
        let data = answer["data"].as_object().into_iter().flatten();
        let text = |(key, value): (&String, &Value)| {
            let bytes = BASE64.decode(value.as_str().unwrap_or_default().as_bytes())?;
            Ok((key.clone(), String::from_utf8(bytes)?))
        };
        let data = data.map(text).collect::<anyhow::Result<_>>().with_context(|| format!("Secret {name}"))?;
        Ok(Some(Kept { data, object: answer }))
    }

    async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.context("cannot reach the API server")?;
        Ok((answer.status(), answer.json().await.context("the API server does not answer in JSON")?))
    }
}

/// A Secret that is not there yet.
fn fresh(name: &str, wish: &Data) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": wish,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "logboom"}},
    })
}

/// The API server's own words: they name who may not do what, and never what is in a Secret.
fn refused(status: StatusCode, answer: &Value) -> anyhow::Error {
    let message = answer["message"].as_str().unwrap_or("the API server refused, and does not say why").to_owned();
    ToolError::Refused { status, message }.into()
}
