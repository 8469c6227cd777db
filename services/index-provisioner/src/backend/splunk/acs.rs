//! The Admin Config Service of a Splunk Cloud stack. It answers 202 and works on; what came of it shows in the next look.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use types::IndexName;
use wire::{Problem, index_provisioner::IndexDescription};

use super::{
    client::{Client, Reply},
    names,
};

/// The service, for one stack.
#[derive(Clone)]
pub(super) struct Acs {
    client: Client,
    base: String,
    token: Arc<str>,
}

impl Acs {
    pub(super) fn new(client: Client, base: String, token: String) -> Self {
        Self { client, base, token: token.into() }
    }

    /// MiB and days of an index, if it is there.
    pub(super) async fn index(&self, index: &IndexName) -> Result<Option<(u64, u64)>, Problem> {
        let found = self.look(&format!("indexes/{index}"), "look for an index").await?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Ok(found.map(|body| (number(&body["maxDataSizeMB"]), number(&body["searchableDays"]))))
    }

    /// Asks for an index; one that is being made already is as good.
    pub(super) async fn create_index(&self, index: &IndexDescription) -> Result<(), Problem> {
        let (mib, days) = names::cloud_limits(index);
        let body = json!({
            "name": index.index.as_str(), "datatype": "event", "maxDataSizeMB": mib, "searchableDays": days,
        });
        self.create("indexes", body, "create an index", "").await
    }

    pub(super) async fn edit_index(&self, index: &IndexDescription) -> Result<(), Problem> {
        let ((mib, days), what) = (names::cloud_limits(index), "change an index");
        let body = json!({"maxDataSizeMB": mib, "searchableDays": days});
        let path = format!("indexes/{}", index.index);
        self.ask(Method::PATCH, &path, Some(body), what).await?.good(what, "").map(drop)
    }

    pub(super) async fn delete_index(&self, index: &IndexName) -> Result<(), Problem> {
        self.delete(&format!("indexes/{index}"), "delete an index").await
    }

    /// The value of a HEC token.
    pub(super) async fn token(&self, name: &str) -> Result<Option<String>, Problem> {
        let found = self.look(&format!("inputs/http-event-collectors/{name}"), "look for a HEC token").await?;
        Ok(found.map(|body| body["http-event-collector"]["token"].as_str().unwrap_or_default().to_owned()))
    }

    pub(super) async fn create_token(
        &self,
        name: &str,
        token: &str,
        index: &IndexName,
        sourcetype: Option<&str>,
    ) -> Result<(), Problem> {
        let body = json!({
            "name": name, "token": token, "defaultIndex": index.as_str(), "allowedIndexes": [index.as_str()],
            "defaultSourcetype": sourcetype.unwrap_or(""), "disabled": false, "useAck": false,
        });
        self.create("inputs/http-event-collectors", body, "create a HEC token", token).await
    }

    pub(super) async fn delete_token(&self, name: &str) -> Result<(), Problem> {
        self.delete(&format!("inputs/http-event-collectors/{name}"), "delete a HEC token").await
    }

    async fn look(&self, path: &str, what: &str) -> Result<Option<Value>, Problem> {
        let reply = self.ask(Method::GET, path, None, what).await?;
        if reply.status == 404 { Ok(None) } else { reply.good(what, "").map(|reply| Some(reply.body)) }
    }

    async fn create(&self, path: &str, body: Value, what: &str, hidden: &str) -> Result<(), Problem> {
        let reply = self.ask(Method::POST, path, Some(body), what).await?;
        if reply.status == 409 { Ok(()) } else { reply.good(what, hidden).map(drop) }
    }

    async fn delete(&self, path: &str, what: &str) -> Result<(), Problem> {
        let reply = self.ask(Method::DELETE, path, Some(json!({})), what).await?;
        if reply.status == 404 { Ok(()) } else { reply.good(what, "").map(drop) }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>, what: &str) -> Result<Reply, Problem> {
        let request = self.client.request(method, format!("{}/{path}", self.base));
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        self.client.send(request, what).await
    }
}
