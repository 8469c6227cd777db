//! Where the doors are, and how to knock.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use reqwest::{Method, StatusCode, header};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tls::{Files, Tls};

/// What `standalone` writes into its data directory when it is ready, so that the tools find it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunFile {
    /// The gateway's base URL.
    pub(crate) gateway_url: String,
    /// The broker's base URL.
    pub(crate) broker_url: String,
    /// The NATS URL for applications.
    pub(crate) nats_url: String,
    /// The authorities that signed their certificates; `None` in plain text.
    #[serde(default)]
    pub(crate) ca: Option<PathBuf>,
    /// The process.
    pub(crate) pid: u32,
}

impl RunFile {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("run.json")
    }

    /// Writes the file beside its place and moves it there, so that a reader never sees half of it.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = Self::path(data_dir);
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&beside, &path)?;
        Ok(())
    }

    /// Reads the file, if there is one.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(data_dir)).ok()?).ok()
    }

    /// Removes the file at the end of a run.
    pub(crate) fn remove(data_dir: &Path) {
        // A file that is already gone is what we want.
        let _gone = std::fs::remove_file(Self::path(data_dir));
    }
}

/// Where to knock and with which credentials.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// Data directory of a local `logboom standalone`, from which addresses and tokens are read
    #[arg(long, global = true, default_value = ".logboom", env = "LOGBOOM_DATA")]
    pub(crate) data: PathBuf,
    /// Base URL of the gateway
    #[arg(long, global = true, env = "LOGBOOM_GATEWAY")]
    pub(crate) gateway: Option<String>,
    /// Token of a binding, or the admin token
    #[arg(long, global = true, env = "LOGBOOM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Base URL of the broker
    #[arg(long, global = true, env = "LOGBOOM_BROKER")]
    pub(crate) broker: Option<String>,
    /// `user:password` for the broker
    #[arg(long, global = true, env = "LOGBOOM_BROKER_AUTH", hide_env_values = true)]
    pub(crate) broker_auth: Option<String>,
    /// Authorities (PEM) that signed the certificates of https and tls addresses; without it those of the system
    #[arg(long, global = true, env = "LOGBOOM_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A refusal by a door, or a failure to reach it; decides the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The door answered with an error.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What the door said.
        message: String,
    },
    /// The door could not be reached.
    #[error(
        "cannot reach {url}: {source}\n  is it running? `./justw up` starts everything; --gateway and --broker name other addresses, --ca the authority behind their certificates"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A broker is to be asked, and none is known.
    #[error("no broker is known: nothing runs here (start it with `./justw up`), or name it with --broker")]
    NoBroker,
    /// NATS could not be reached.
    #[error(
        "cannot reach NATS at {url}: {reason}\n  is it running? `./justw up` starts everything; --settings, or --nats and --creds, name another installation"
    )]
    NoNats {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
}

impl Connection {
    /// The doors of this connection: flags first, then what a local standalone wrote down.
    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        let run = RunFile::read(&self.data);
        let missing = |what: &str| {
            format!(
                "no {what} is known: nothing runs in {} (start it with `./justw up`), or name it with a flag",
                self.data.display()
            )
        };
        let gateway = self.gateway.clone().or_else(|| run.as_ref().map(|r| r.gateway_url.clone()));
        let broker = self.broker.clone().or_else(|| run.as_ref().map(|r| r.broker_url.clone()));
        let read = |name: &str| std::fs::read_to_string(self.data.join("keys").join(name)).ok();
        let token = self.token.clone().or_else(|| read("admin.token"));
        let password = read("broker.password").map(|p| format!("admin:{}", p.trim()));
        let ca = self.ca.clone().or_else(|| run.as_ref().and_then(|r| r.ca.clone()));
        let tls = trusting(ca)?;
        Ok(Api {
            http: http_client(tls.as_deref())?,
            tls,
            gateway: gateway.with_context(|| missing("gateway"))?,
            // Those that only publish or query are told of a gateway and of no broker.
            broker: broker.unwrap_or_default(),
            token: token.map(|t| t.trim().to_owned()).with_context(|| missing("token"))?,
            broker_auth: self.broker_auth.clone().or(password).unwrap_or_default(),
        })
    }
}

/// A client's side of TLS that trusts these authorities and no other.
fn trusting(ca: Option<PathBuf>) -> anyhow::Result<Option<Arc<ClientConfig>>> {
    Ok(Tls::open(Files { ca, ..Files::default() }).context("--ca")?.client())
}

fn http_client(tls: Option<&ClientConfig>) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(std::time::Duration::from_secs(5)).no_proxy();
    let builder = match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls.clone()),
        None => builder,
    };
    builder.build().context("cannot set up the HTTP client")
}

/// The public HTTP doors.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    /// Whom connections to NATS trust; `None` trusts the authorities of the system.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The gateway's base URL.
    pub(crate) gateway: String,
    /// The broker's base URL; empty where none is known.
    pub(crate) broker: String,
    /// Bearer token for the gateway.
    pub(crate) token: String,
    broker_auth: String,
}

impl Api {
    /// The doors of a local standalone.
    pub(crate) fn at(run: &RunFile, token: &str, broker_auth: &str) -> anyhow::Result<Self> {
        let tls = trusting(run.ca.clone())?;
        Ok(Self {
            http: http_client(tls.as_deref())?,
            tls,
            gateway: run.gateway_url.clone(),
            broker: run.broker_url.clone(),
            token: token.to_owned(),
            broker_auth: broker_auth.to_owned(),
        })
    }

    /// The same doors with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request to the gateway.
    pub(crate) fn gateway(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.gateway)).bearer_auth(&self.token)
    }

    /// Asks the gateway and reads a JSON answer.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ToolError> {
        let mut request = self.gateway(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await.map(|(_, value)| value)
    }

    /// Sends a request of its own kind and reads a JSON answer.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, ToolError> {
        answer(request).await.map(|(_, value)| value)
    }

    /// Sends a request and answers the bytes, and whether they are only a part.
    pub(crate) async fn bytes(&self, request: reqwest::RequestBuilder) -> Result<(Vec<u8>, bool), ToolError> {
        let unreachable = |source| ToolError::Unreachable { url: self.gateway.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let cut = response.headers().get("x-truncated").is_some_and(|value| value == "true");
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok((bytes.to_vec(), cut));
        }
        let text = String::from_utf8_lossy(&bytes);
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Err(ToolError::Refused { status, message: refusal(status, &value, &text) })
    }

    /// Runs one SQL query.
    pub(crate) async fn sql(&self, text: &str) -> Result<Value, ToolError> {
        self.ask(Method::POST, "/api/v1/sql", Some(&serde_json::json!({ "sql": text }))).await
    }

    /// Makes an OSB call and reads status and body.
    pub(crate) async fn osb(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), ToolError> {
        if self.broker.is_empty() {
            return Err(ToolError::NoBroker);
        }
        let (user, password) = self.broker_auth.split_once(':').unwrap_or((self.broker_auth.as_str(), ""));
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.broker))
            .basic_auth(user, Some(password))
            .header("X-Broker-API-Version", "2.17");
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }
}

/// Sends a request and reads a JSON answer; anything but 2xx is a refusal with the door's own words.
async fn answer(request: reqwest::RequestBuilder) -> Result<(StatusCode, Value), ToolError> {
    let (client, request) = request.build_split();
    let request = request.map_err(|source| ToolError::Unreachable { url: "the given URL".to_owned(), source })?;
    let url = request.url().to_string();
    let unreachable = |source| ToolError::Unreachable { url: url.clone(), source };
    let response = client.execute(request).await.map_err(unreachable)?;
    let status = response.status();
    let is_json =
        response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("json"));
    let text = response.text().await.map_err(unreachable)?;
    let value: Value = if is_json { serde_json::from_str(&text).unwrap_or(Value::Null) } else { Value::Null };
    if status.is_success() {
        return Ok((status, value));
    }
    Err(ToolError::Refused { status, message: refusal(status, &value, &text) })
}

/// The words of a refusal: a caret picture where there is one, else message or OSB description.
fn refusal(status: StatusCode, value: &Value, text: &str) -> String {
    let words = ["/error/rendered", "/error/message", "/description", "/error"]
        .iter()
        .find_map(|path| value.pointer(path).and_then(Value::as_str));
    match words {
        Some(words) => format!("{} ({status})", words.trim_end()),
        None => format!("{status}: {}", text.chars().take(300).collect::<String>()),
    }
}
