//! A server in operator mode with keys of its own, and applications at it.

use std::time::Duration;

use bus::{
    Bus, SystemClock,
    keys::{
        AccountSpec, Keyring, ServerSpec, UserSpec, account_jwt, creds_file, derive_user, issue_creds, public_key,
        server_config, user_jwt,
    },
};
use types::{Clock, Timestamp};
use wire::{delegation::Bearer, views::Role};

use super::{Server, free_port, soon};

pub const LANES: u16 = 4;

pub struct Installation {
    pub server: Server,
    pub ring: Keyring,
}

impl Installation {
    pub fn begin() -> Self {
        // Claims count whole seconds: what is pushed later must not look older.
        let ring = Keyring::generate(SystemClock.now() - Duration::from_secs(60)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let spec = ServerSpec {
            name: "n1".to_owned(),
            address: "127.0.0.1".to_owned(),
            port,
            store_dir: path("js"),
            resolver_dir: path("jwt"),
            max_file_store: None,
            sync_interval: "always".to_owned(),
            max_payload: 8 << 20,
            lane_count: LANES,
            ports_dir: None,
            tls: None,
        };
        let text = server_config(&ring, &spec).unwrap();
        Self { server: Server::from_text(dir, port, &text), ring }
    }

    pub async fn front_door(&self) -> Bus {
        let creds =
            issue_creds(|key| UserSpec::front_door("front", key), &self.ring.tenants_seed, SystemClock.now()).unwrap();
        self.server.bus_with("segment-store/s-0", Some(creds), None).await
    }

    pub async fn platform(&self) -> Bus {
        let creds = issue_creds(|key| UserSpec::platform("p", key), &self.ring.platform_seed, SystemClock.now());
        self.server.bus_with("coordinator/c-0", Some(creds.unwrap()), None).await
    }

    /// Credentials of a binding, and its public key.
    pub fn binding(&self, index: &str, binding: &str, info: &str) -> (String, String) {
        self.bind(&bearer(index, binding, Role::Admin), info)
    }

    pub fn bind(&self, bearer: &Bearer, info: &str) -> (String, String) {
        let user = derive_user(&[9; 32], info).unwrap();
        let spec = UserSpec::binding(&bearer.index, &bearer.binding, bearer.role, user.public.clone());
        let jwt = user_jwt(&spec, &self.ring.tenants_seed, SystemClock.now()).unwrap();
        (creds_file(&jwt, &user.seed), user.public)
    }

    pub async fn revoke(&self, user: &str, at: Timestamp) {
        let creds = issue_creds(|key| UserSpec::system("sys", key), &self.ring.system_seed, SystemClock.now()).unwrap();
        let system = self.server.bus_with("index-provisioner/p-0", Some(creds), None).await;
        let account = public_key(&self.ring.tenants_seed).unwrap();
        let spec = AccountSpec::tenants(account, LANES, vec![(user.to_owned(), at)]);
        let jwt = account_jwt(&spec, &self.ring.operator_seed, at).unwrap();
        system.push_account_claims(&jwt).await.unwrap();
        system.push_account_claims(&jwt).await.unwrap();
    }
}

pub fn bearer(index: &str, binding: &str, role: Role) -> Bearer {
    Bearer { index: index.parse().unwrap(), binding: binding.parse().unwrap(), role }
}

/// A client as any application would use one, with the complaints that it hears.
pub async fn application(
    server: &Server,
    creds: &str,
    binding: &str,
) -> Result<(async_nats::Client, tokio::sync::mpsc::Receiver<String>), async_nats::ConnectError> {
    let (tell, told) = tokio::sync::mpsc::channel(64);
    let client = async_nats::ConnectOptions::with_credentials(creds)
        .unwrap()
        .custom_inbox_prefix(format!("_INBOX.{binding}"))
        .event_callback(move |event| {
            let tell = tell.clone();
            async move {
                tell.send(event.to_string()).await.ok();
            }
        })
        .connect(server.url())
        .await?;
    Ok((client, told))
}

pub async fn hears(told: &mut tokio::sync::mpsc::Receiver<String>, words: &str) -> String {
    soon(words, async {
        loop {
            let event = told.recv().await.expect("no more events").to_lowercase();
            if event.contains(words) {
                return event;
            }
        }
    })
    .await
}
