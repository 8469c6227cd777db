//! The files that count while the broker runs: its catalog, and the credentials of platforms.

use std::time::Duration;

use host::{Host, Seen, StartError, Watch};
use settings::Secret;
use tokio::time::{MissedTickBehavior, interval};

use crate::{Config, catalog::Shelf, metrics, osb::Admission, seal::SealingKeys};

/// What is read from files, and where the broker's requests find it.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) shelf: Shelf,
    pub(crate) admission: Admission,
    /// These are read once.
    pub(crate) keys: SealingKeys,
    host: Host,
    username: String,
    password: Secret,
    credentials: Secret,
}

impl Files {
    /// Reads them for the first time; what is wrong then keeps the broker from starting.
    pub(crate) fn open(config: &Config, host: &Host) -> Result<Self, StartError> {
        let keys = host.secret(&config.sealing_keys)?.unwrap_or_default();
        let keys = SealingKeys::parse(&keys).map_err(StartError::other)?;
        let copies = host.common.journal_replicas;
        let shelf = Shelf::open(&config.catalog_path, config.offered(), keys.can_seal(), copies);
        let shelf = shelf.map_err(StartError::other)?;
        let (password, list) = texts(host, &config.password, &config.credentials)?;
        let admission = Admission::new(&config.username, password, list).map_err(StartError::other)?;
        Ok(Self {
            shelf,
            admission,
            keys,
            host: host.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            credentials: config.credentials.clone(),
        })
    }

    /// Looks at them again and again. What is good is used from then on; what is not is told once, and the former stays in use.
    pub(crate) async fn follow(self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut catalog, mut credentials) = (Watch::default(), Watch::default());
        loop {
            tokio::select! {
                () = self.host.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let files = self.clone();
            let (shelf, admission) = self.host.cpu(move || (files.shelf(), files.admission())).await;
            self.tell("catalog", catalog.look(shelf));
            self.tell("credentials", credentials.look(admission));
        }
    }

    fn shelf(&self) -> Result<bool, String> {
        self.shelf.reload().map_err(|error| error.to_string())
    }

    fn admission(&self) -> Result<bool, String> {
        let (password, list) =
            texts(&self.host, &self.password, &self.credentials).map_err(|error| error.to_string())?;
        self.admission.take(&self.username, password, list).map_err(|error| error.to_string())
    }

    fn tell(&self, what: &'static str, seen: Seen) {
        match seen {
            Seen::Same => {}
            Seen::Mended => self.host.note(what, None),
            Seen::Changed => {
                metrics::RELOADS.with(&format!("{what} taken")).inc();
                self.host.note(what, None);
                tracing::info!(what, "file changed, its contents are used from now on");
            }
            Seen::Broken(reason) => {
                metrics::RELOADS.with(&format!("{what} refused")).inc();
                tracing::error!(what, %reason, "file changed and cannot be used, its former contents stay in use");
                self.host.note(what, Some(format!("a new file cannot be used, the former stays in use: {reason}")));
            }
        }
    }
}

fn texts(host: &Host, password: &Secret, credentials: &Secret) -> Result<(String, String), StartError> {
    Ok((host.secret(password)?.unwrap_or_default(), host.secret(credentials)?.unwrap_or_default()))
}
