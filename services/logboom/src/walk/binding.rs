//! Credentials as an application gets them, and their end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bus::{Bus, BusOptions};
use reqwest::Method;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::INDEX;
use crate::tools::Api;

/// How soon an unbound application must be cut off.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);

/// A service binding.
#[derive(Debug)]
pub(crate) struct Binding {
    id: String,
    instance: String,
    /// Token for HTTP.
    pub(crate) token: String,
    creds: String,
    inbox_prefix: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Binding {
    /// Binds over OSB.
    pub(crate) async fn create(
        api: &Api,
        ids: &(String, String),
        index: &str,
        role: &str,
    ) -> anyhow::Result<(Self, String)> {
        let id = uuid::Uuid::new_v4().to_string();
        let instance = format!("cli-{index}");
        let body = json!({ "service_id": ids.0, "plan_id": ids.1, "parameters": { "role": role } });
        let path = format!("/v2/service_instances/{instance}/service_bindings/{id}");
        let (status, answer) = api.osb(Method::PUT, &path, Some(&body)).await?;
        ensure!(status.as_u16() == 201, "bind answered {status}");
        let text = |key: &str| -> anyhow::Result<String> {
            let value =
                answer["credentials"][key].as_str().with_context(|| format!("the credentials have no {key}"))?;
            Ok(value.to_owned())
        };
        let binding = Self {
            id,
            instance,
            token: text("token")?,
            creds: text("nats_creds")?,
            inbox_prefix: text("inbox_prefix")?,
            tls: api.tls.clone(),
        };
        let count = answer["credentials"].as_object().map_or(0, serde_json::Map::len);
        Ok((binding, format!("{role} credentials with {count} keys, subject {}", text("subject")?)))
    }

    /// Connects to NATS as the application would.
    pub(crate) async fn connect(&self, nats_url: &str) -> anyhow::Result<Bus> {
        let options = BusOptions {
            url: nats_url.to_owned(),
            creds: Some(self.creds.clone()),
            name: "walk".to_owned(),
            inbox_prefix: Some(self.inbox_prefix.clone()),
            tls: self.tls.clone(),
            ..BusOptions::default()
        };
        Bus::connect(options).await.context("the binding's credentials do not open NATS")
    }

    async fn unbind(&self, api: &Api, ids: &(String, String)) -> anyhow::Result<()> {
        let path = format!(
            "/v2/service_instances/{}/service_bindings/{}?service_id={}&plan_id={}",
            self.instance, self.id, ids.0, ids.1
        );
        api.osb(Method::DELETE, &path, None).await.map(drop).map_err(Into::into)
    }
}

/// A second binding publishes, is unbound, and can no longer publish, neither over NATS nor over HTTP.
pub(crate) async fn cut_off(api: &Api, ids: &(String, String), nats_url: &str) -> anyhow::Result<((), String)> {
    let (binding, _) = Binding::create(api, ids, INDEX, "write").await?;
    let bus = binding.connect(nats_url).await?;
    let subject = format!("logs.{INDEX}");
    bus.publish_record(&subject, "before", "{\"msg\":\"still bound\"}".into()).await.context("a bound application")?;
    binding.unbind(api, ids).await?;
    tokio::time::sleep(CUT_OFF_WITHIN).await;
    ensure!(!bus.is_connected(), "the connection of an unbound application was not cut");
    // It tries to come back for as long as it is asked to publish; one more second shows that it cannot.
    let again = bus.publish_record(&subject, "after", "{\"msg\":\"unbound\"}".into());
    let published = tokio::time::timeout(CUT_OFF_WITHIN, again).await;
    ensure!(!matches!(published, Ok(Ok(_))), "an unbound application could still publish over NATS");
    let path = format!("/api/v1/indexes/{INDEX}/ingest");
    let response = api.with_token(&binding.token).gateway(Method::POST, &path).body("{\"msg\":\"x\"}\n").send().await?;
    let status = response.status();
    let _body: Value = response.json().await.unwrap_or_default();
    ensure!(status.as_u16() == 401, "an unbound token was answered {status} instead of 401");
    Ok(((), "NATS cut the connection, HTTP answers 401".to_owned()))
}
