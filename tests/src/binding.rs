//! Credentials of a service binding, used as an application would.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use async_nats::{Client, ConnectOptions};
use serde_json::Value;

use crate::Publisher;

/// What an application is handed when it is bound.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The service binding.
    pub id: String,
    /// The index.
    pub index: String,
    /// Token for HTTP.
    pub token: String,
    /// Text of a `.creds` file.
    pub creds: String,
    /// The prefix that the client's inboxes must have.
    pub inbox_prefix: String,
    /// Where to connect.
    pub nats_url: String,
    /// Where to publish.
    pub subject: String,
}

impl Binding {
    /// Reads the credentials of a bind answer.
    pub(crate) fn of(id: &str, index: &str, credentials: &Value) -> Result<Self> {
        let text = |key: &str| {
            credentials[key].as_str().map(str::to_owned).with_context(|| format!("the credentials have no {key}"))
        };
        Ok(Self {
            id: id.to_owned(),
            index: index.to_owned(),
            token: text("token")?,
            creds: text("nats_creds")?,
            inbox_prefix: text("inbox_prefix")?,
            nats_url: text("nats_url")?,
            subject: text("subject")?,
        })
    }

    /// Options of a client with these credentials.
    pub fn options(&self) -> Result<ConnectOptions> {
        Ok(ConnectOptions::with_credentials(&self.creds)?
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(Duration::from_secs(5))
            .name("tests"))
    }

    /// A connected client; an installation may name several servers.
    pub async fn connect(&self) -> Result<Client> {
        let servers: Vec<&str> = self.nats_url.split(',').collect();
        self.options()?.connect(servers).await.context("the binding's credentials do not open NATS")
    }

    /// A publisher on a connection of its own.
    pub async fn publisher(&self) -> Result<Publisher> {
        Ok(Publisher::new(self.connect().await?))
    }

    /// Writes the credentials to a file, for clients that want one.
    pub fn write_creds(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.creds).with_context(|| format!("cannot write {}", path.display()))
    }
}
