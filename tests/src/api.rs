//! The public HTTP doors of an installation, as a platform and its users knock on them.

use std::{sync::Once, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, RequestBuilder, header};
use serde_json::{Value, json};

use crate::{Binding, Table};

/// A request longer than this is a hang.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Less than the servers keep what is idle, so that no request goes into a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// Gateway and broker with the secrets of their administrator.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    /// Base URL of the gateway.
    pub gateway: String,
    /// Base URL of the broker.
    pub broker: String,
    /// NATS URL for applications.
    pub nats_url: String,
    /// The administrator's token.
    pub admin_token: String,
    /// The broker's password; its user is `admin`.
    pub broker_password: String,
}

/// What a door answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, as JSON where it is some.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// Reads a response to its end.
    pub async fn of(request: RequestBuilder) -> Result<Self> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self { status, body, text })
    }

    /// The name of the failure: `error.kind` of the gateway, `error` of the broker.
    pub fn kind(&self) -> &str {
        let error = &self.body["error"];
        error["kind"].as_str().or(error.as_str()).unwrap_or_default()
    }

    /// The body if the request succeeded.
    pub fn ok(self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "answered {}: {}", self.status, self.text);
        Ok(self.body)
    }
}

impl Api {
    /// Doors at known addresses.
    pub fn new(gateway: &str, broker: &str, nats_url: &str, admin_token: &str, broker_password: &str) -> Result<Self> {
        static TLS: Once = Once::new();
        // The HTTP client asks for a TLS provider even where it speaks plain HTTP; who comes second may fail.
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().timeout(REQUEST_WITHIN).pool_idle_timeout(IDLE_MAX).build()?,
            gateway: gateway.to_owned(),
            broker: broker.to_owned(),
            nats_url: nats_url.to_owned(),
            admin_token: admin_token.trim().to_owned(),
            broker_password: broker_password.trim().to_owned(),
        })
    }

    /// A request without credentials.
    pub fn bare(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// A request to the gateway with a token.
    pub fn gateway(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.bare(method, &format!("{}{path}", self.gateway)).bearer_auth(token)
    }

    /// Asks the gateway as administrator.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = self.gateway(method, path, &self.admin_token);
        Answer::of(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Runs one query as administrator; the answer may be a refusal.
    pub async fn try_sql(&self, text: &str) -> Result<Answer> {
        self.ask(Method::POST, "/api/v1/sql", Some(&json!({ "sql": text }))).await
    }

    /// Runs one query as administrator.
    pub async fn sql(&self, text: &str) -> Result<Table> {
        let answer = self.try_sql(text).await?.ok().with_context(|| text.to_owned())?;
        Ok(Table::of(&answer))
    }

    /// The one number, named `n`, of a query's one row.
    pub async fn count(&self, text: &str) -> Result<i64> {
        self.sql(text).await?.number(0, "n")
    }

    /// Posts lines to an index.
    pub async fn ingest(&self, index: &str, token: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        let path = format!("/api/v1/indexes/{index}/ingest");
        let request = self.gateway(Method::POST, &path, token).header(header::CONTENT_TYPE, "application/x-ndjson");
        Answer::of(request.body(body)).await
    }

    /// A request to the broker, with all that the specification asks for.
    pub fn broker(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, &format!("{}{path}", self.broker))
            .basic_auth("admin", Some(&self.broker_password))
            .header("X-Broker-API-Version", "2.17")
    }

    /// Calls the broker.
    pub async fn osb(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = self.broker(method, path);
        Answer::of(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Ids of the offering `log-index` and its plan `standard`.
    pub async fn plan(&self) -> Result<(String, String)> {
        let catalog = self.osb(Method::GET, "/v2/catalog", None).await?.ok()?;
        let named = |list: &Value, name: &str| {
            list.as_array().into_iter().flatten().find(|item| item["name"] == name).cloned().unwrap_or(Value::Null)
        };
        let service = named(&catalog["services"], "log-index");
        let plan = named(&service["plans"], "standard");
        let id = |value: &Value| value["id"].as_str().map(str::to_owned).context("the catalog has no plan standard");
        Ok((id(&service)?, id(&plan)?))
    }

    /// The body of a provision call.
    pub async fn provision_body(&self, parameters: Value) -> Result<Value> {
        let (service, plan) = self.plan().await?;
        Ok(json!({
            "service_id": service, "plan_id": plan, "parameters": parameters,
            "organization_guid": "org", "space_guid": "space", "context": { "platform": "tests" },
        }))
    }

    /// Provisions an index; its service instance is named after it.
    pub async fn provision(&self, index: &str, segments: u16) -> Result<()> {
        let body = self.provision_body(json!({ "index": index, "segments": segments })).await?;
        let answer = self.osb(Method::PUT, &instance_path(index), Some(&body)).await?;
        ensure!(matches!(answer.status, 200 | 201), "provision answered {}: {}", answer.status, answer.text);
        Ok(())
    }

    /// Binds to an index.
    pub async fn bind(&self, index: &str, role: &str) -> Result<Binding> {
        let (service, plan) = self.plan().await?;
        let id = uuid::Uuid::new_v4().to_string();
        let body = json!({ "service_id": service, "plan_id": plan, "parameters": { "role": role } });
        let path = format!("{}/service_bindings/{id}", instance_path(index));
        let answer = self.osb(Method::PUT, &path, Some(&body)).await?;
        ensure!(answer.status == 201, "bind answered {}: {}", answer.status, answer.text);
        Binding::of(&id, index, &answer.body["credentials"])
    }

    /// Unbinds.
    pub async fn unbind(&self, binding: &Binding) -> Result<()> {
        let (service, plan) = self.plan().await?;
        let path = format!(
            "{}/service_bindings/{}?service_id={service}&plan_id={plan}",
            instance_path(&binding.index),
            binding.id
        );
        self.osb(Method::DELETE, &path, None).await?.ok().map(drop)
    }

    /// Submits a continuous job.
    pub async fn submit_job(&self, job: &str, sql: &str, from: &str) -> Result<Value> {
        let body = json!({ "job": job, "sql": sql, "start": from });
        self.ask(Method::POST, "/api/v1/jobs", Some(&body)).await?.ok()
    }

    /// Describes a job.
    pub async fn job(&self, job: &str) -> Result<Value> {
        self.ask(Method::GET, &format!("/api/v1/jobs/{job}"), None).await?.ok()
    }

    /// Creates or replaces an alert rule; the members of `body` are those of the API.
    pub async fn put_rule(&self, rule: &str, body: &Value) -> Result<Value> {
        self.ask(Method::PUT, &format!("/api/v1/rules/{rule}"), Some(body)).await?.ok()
    }
}

/// Where an index's service instance is found.
pub fn instance_path(index: &str) -> String {
    format!("/v2/service_instances/{index}-instance")
}
