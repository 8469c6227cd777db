//! The client of an application: with the credentials of a service binding, from outside the platform.

use std::fmt;

use bus::{Bus, BusError, BusOptions};
use serde::Deserialize;
use types::{BindingId, IndexName};
use wire::{delegation::Bearer, views::Role};

use crate::Client;

/// What an application is handed when it is bound, as far as the client needs it; made from the `credentials` of the binding, whose
/// other keys it leaves alone.
///
/// Credentials that were issued before clients could use them do not open the doors: fetch the binding again, it has better ones.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct BindingCredentials {
    /// Where to connect: one URL or several separated by commas, as an installation of several servers hands them out.
    pub nats_url: String,
    /// Text of a `.creds` file.
    pub nats_creds: String,
    /// The index.
    pub index: IndexName,
    /// What the binding may do.
    pub role: Role,
    /// Where answers arrive; it names the binding.
    pub inbox_prefix: String,
}

impl fmt::Debug for BindingCredentials {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nats_url, nats_creds: _, index, role, inbox_prefix } = self;
        f.debug_struct("BindingCredentials")
            .field("nats_url", nats_url)
            .field("index", index)
            .field("role", role)
            .field("inbox_prefix", inbox_prefix)
            .finish_non_exhaustive()
    }
}

impl BindingCredentials {
    fn bearer(&self) -> Result<Bearer, BusError> {
        let malformed = |reason: String| BusError::Malformed { what: "inbox_prefix of a binding".to_owned(), reason };
        let binding = self.inbox_prefix.strip_prefix("_INBOX.");
        let binding =
            binding.ok_or_else(|| malformed(format!("{:?} does not begin with _INBOX.", self.inbox_prefix)))?;
        let binding: BindingId = binding.parse().map_err(|e: types::Invalid| malformed(e.to_string()))?;
        Ok(Bearer { index: self.index.clone(), binding, role: self.role })
    }
}

impl Client {
    /// Connects with a binding's credentials; of the options the name and what concerns TLS count.
    ///
    /// Everything goes to the binding's index only, and as far as its role allows: writers and transactions need one that may
    /// write, readers one that may read. Reader groups, synchronizers, tables and time notes are the platform's own.
    /// When the binding is unbound the connection ends at once, whatever was granted before.
    ///
    /// Errors: `Connect`, at once when the credentials are revoked or malformed.
    ///
    /// ```no_run
    /// use bus::BusOptions;
    /// use client::{BindingCredentials, Client, WriterOptions};
    ///
    /// # async fn example(credentials: BindingCredentials) -> Result<(), Box<dyn std::error::Error>> {
    /// let options = BusOptions { name: "shop/importer".into(), ..BusOptions::default() };
    /// let client = Client::connect_with_binding(&credentials, options).await?;
    /// let writer = client.event_writer(credentials.index.clone(), WriterOptions::new("importer-1".parse()?)).await?;
    /// writer.write(None, "once, whatever fails in between".into()).await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with_binding(credentials: &BindingCredentials, options: BusOptions) -> Result<Self, BusError> {
        let bearer = credentials.bearer()?;
        let (url, creds) = (credentials.nats_url.clone(), Some(credentials.nats_creds.clone()));
        let bus = Bus::connect_with_binding(BusOptions { url, creds, ..options }, bearer).await?;
        Ok(Self::over(bus, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(inbox_prefix: &str) -> BindingCredentials {
        BindingCredentials {
            nats_url: "nats://127.0.0.1:4222".to_owned(),
            nats_creds: "SUSECRET".to_owned(),
            index: "shop".parse().unwrap(),
            role: Role::Write,
            inbox_prefix: inbox_prefix.to_owned(),
        }
    }

    #[test]
    fn credentials_name_their_binding_and_hide_their_secret() {
        let bearer = credentials("_INBOX.b-1").bearer().unwrap();
        assert_eq!(bearer.subjects(), "ext.v1.shop.b-1.write.>");
        for odd in ["", "_INBOX.", "_INBOX.b.c", "_INBOX.*", "inbox.b"] {
            assert!(credentials(odd).bearer().is_err(), "{odd}");
        }
        assert!(!format!("{:?}", credentials("_INBOX.b-1")).contains("SECRET"));
    }
}
