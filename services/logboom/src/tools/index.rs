//! `logboom index` and `logboom bindings`: the broker's door, as a platform would use it.

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};

use super::Connection;
use crate::screen::Screen;

/// Log indexes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum IndexCommand {
    /// Create a log index (an OSB provision call)
    Create {
        /// Name: 1 to 63 of a-z 0-9 - _
        name: String,
        /// Plan of the catalog
        #[arg(long, default_value = "standard")]
        plan: String,
        /// Segments of its stream
        #[arg(long)]
        segments: Option<u16>,
        /// Days to keep events
        #[arg(long)]
        retention_days: Option<u32>,
        /// Seal what it has in object storage with a key of its own, which is destroyed with the index
        #[arg(long)]
        encrypted: bool,
    },
    /// List log indexes
    List,
    /// Delete a log index with all its events (an OSB deprovision call)
    Delete {
        /// Name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Credentials for a log index.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BindingsCommand {
    /// List live bindings, without secrets
    List,
    /// Create a binding and print its credentials (an OSB bind call)
    Create {
        /// Index
        index: String,
        /// What the bearer may do
        #[arg(long, default_value = "admin", value_parser = ["write", "read", "admin"])]
        role: String,
        /// Write the NATS credentials to this file, for `nats --creds` and client libraries
        #[arg(long)]
        creds: Option<std::path::PathBuf>,
    },
    /// Revoke a binding: its live connections are cut (an OSB unbind call)
    Delete {
        /// Binding id
        binding: String,
    },
}

/// Service and plan ids of the catalog's `log-index` offering.
pub(crate) async fn plan_ids(api: &super::Api, plan: &str) -> anyhow::Result<(String, String)> {
    let (_, catalog) = api.osb(Method::GET, "/v2/catalog", None).await?;
    let services = catalog["services"].as_array().cloned().unwrap_or_default();
    let service = services
        .iter()
        .find(|s| s["name"] == "log-index")
        .with_context(|| format!("the catalog of {} has no offering log-index", api.broker))?;
    let plans = service["plans"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = plans.iter().filter_map(|p| p["name"].as_str()).collect();
    let found = plans
        .iter()
        .find(|p| p["name"] == plan)
        .with_context(|| format!("there is no plan {plan:?}; the catalog has {}", names.join(", ")))?;
    let id = |v: &Value| v["id"].as_str().unwrap_or_default().to_owned();
    Ok((id(service), id(found)))
}

/// Service and plan ids of an instance that is there, whatever plan it has.
async fn ids_of(api: &super::Api, instance: &str) -> anyhow::Result<(String, String)> {
    let (_, found) = api.osb(Method::GET, &format!("/v2/service_instances/{instance}"), None).await?;
    let id = |key: &str| found[key].as_str().map(str::to_owned);
    id("service_id").zip(id("plan_id")).with_context(|| format!("the broker does not name the plan of {instance}"))
}

/// The body of an OSB provision call for an index of that name.
pub(crate) fn provision_body(ids: &(String, String), parameters: Value) -> Value {
    json!({
        "service_id": ids.0, "plan_id": ids.1, "parameters": parameters,
        "organization_guid": "local", "space_guid": "local",
        "context": { "platform": "logboom-cli" },
    })
}

/// The instance that owns an index.
pub(crate) async fn instance_of(api: &super::Api, index: &str) -> anyhow::Result<Value> {
    let list = api.ask(Method::GET, "/api/v1/indexes", None).await?;
    let rows = list["indexes"].as_array().cloned().unwrap_or_default();
    rows.into_iter()
        .find(|row| row["index"] == index)
        .with_context(|| format!("there is no index {index:?}; `logboom index list` shows those there are"))
}

impl IndexCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::Create { name, plan, segments, retention_days, encrypted } => {
                let ids = plan_ids(&api, &plan).await?;
                let mut parameters = json!({ "index": name });
                if let Some(n) = segments {
                    parameters["segments"] = json!(n);
                }
                if let Some(n) = retention_days {
                    parameters["retention_days"] = json!(n);
                }
                if encrypted {
                    parameters["encryption"] = json!(true);
                }
                let path = format!("/v2/service_instances/cli-{name}");
                let (status, answer) = api.osb(Method::PUT, &path, Some(&provision_body(&ids, parameters))).await?;
                match screen.is_json() {
                    true => screen.value(&answer),
                    false if status.as_u16() == 201 => screen.line(format_args!("index {name} created")),
                    false => screen.line(format_args!("index {name} exists already with these parameters")),
                }
            }
            Self::List => {
                let list = api.ask(Method::GET, "/api/v1/indexes", None).await?;
                let rows = list["indexes"].as_array().cloned().unwrap_or_default();
                screen.rows(&rows, &["index", "scope", "backend", "segment_count", "retention_days", "instance"]);
            }
            Self::Delete { name, yes } => {
                anyhow::ensure!(yes, "this deletes every event of {name} for ever; repeat with --yes");
                let row = instance_of(&api, &name).await?;
                let instance = row["instance"].as_str().unwrap_or_default();
                let ids = ids_of(&api, instance).await?;
                let path = format!("/v2/service_instances/{instance}?service_id={}&plan_id={}", ids.0, ids.1);
                api.osb(Method::DELETE, &path, None).await?;
                screen.line(format_args!("index {name} deleted"));
            }
        }
        Ok(())
    }
}

impl BindingsCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::List => {
                let list = api.ask(Method::GET, "/api/v1/bindings", None).await?;
                let rows = list["bindings"].as_array().cloned().unwrap_or_default();
                screen.rows(&rows, &["binding", "index", "role", "instance"]);
            }
            Self::Create { index, role, creds } => {
                let row = instance_of(&api, &index).await?;
                let instance = row["instance"].as_str().unwrap_or_default();
                let ids = ids_of(&api, instance).await?;
                let binding = uuid::Uuid::new_v4();
                let body = json!({ "service_id": ids.0, "plan_id": ids.1, "parameters": { "role": role } });
                let path = format!("/v2/service_instances/{instance}/service_bindings/{binding}");
                let (_, mut answer) = api.osb(Method::PUT, &path, Some(&body)).await?;
                answer["binding"] = json!(binding.to_string());
                if let Some(path) = creds {
                    write_private(&path, answer["credentials"]["nats_creds"].as_str().unwrap_or_default())?;
                    screen.line(format_args!("binding {binding}: NATS credentials are in {}", path.display()));
                } else {
                    screen.value(&answer);
                }
            }
            Self::Delete { binding } => {
                let list = api.ask(Method::GET, "/api/v1/bindings", None).await?;
                let rows = list["bindings"].as_array().cloned().unwrap_or_default();
                let row = rows
                    .iter()
                    .find(|row| row["binding"] == binding.as_str())
                    .with_context(|| format!("there is no live binding {binding:?}"))?;
                let instance = row["instance"].as_str().unwrap_or_default();
                let ids = ids_of(&api, instance).await?;
                let path = format!(
                    "/v2/service_instances/{instance}/service_bindings/{binding}?service_id={}&plan_id={}",
                    ids.0, ids.1
                );
                api.osb(Method::DELETE, &path, None).await?;
                screen.line(format_args!("binding {binding} revoked"));
            }
        }
        Ok(())
    }
}

/// Writes a secret so that only its owner can read it.
pub(crate) fn write_private(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
