//! The host: what a service is given.

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{Bus, BusOptions, SystemClock};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use settings::{Common, Secret};
use store::Objects;
use tls::{Files, Tls};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use types::{Clock, ReplicaId, Timestamp};
use wire::{Service, views::Member};

use crate::{Announcement, IndexKeyring, StartError, certificate, secret};

/// Closures of [`Host::cpu`] that run at once; others wait. Two: the machine has other work.
const CPU_AT_ONCE_MAX: usize = 2;
/// Silence of the service's own thread after which it no longer counts as alive.
const LIVE_SILENCE_MAX: Duration = Duration::from_secs(30);

type Closer = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// What a service is given: its name, its connections, the clock, and the frame around it.
#[derive(Clone)]
pub struct Host {
    /// The service.
    pub service: Service,
    /// This replica of it.
    pub replica: ReplicaId,
    /// The connection in the platform account.
    pub bus: Bus,
    /// What every service shares.
    pub common: Common,
    /// Object storage; objects of encrypted indexes are sealed and opened on their way.
    pub objects: Objects,
    /// The keys of encrypted indexes.
    pub index_keys: IndexKeyring,
    /// Certificate and authorities of the process; follows its files once the service runs.
    pub tls: Tls,
    /// The only way to learn the time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the service has to stop taking work.
    pub stop: CancellationToken,
    shared: Arc<Shared>,
}

struct Shared {
    started: Timestamp,
    tenants: OnceCell<Bus>,
    tasks: TaskTracker,
    cpu: Semaphore,
    ready: AtomicBool,
    conditions: Mutex<BTreeMap<&'static str, String>>,
    notes: Mutex<BTreeMap<&'static str, String>>,
    beat: Mutex<Instant>,
    failed: Mutex<Option<StartError>>,
    closers: Mutex<Vec<Closer>>,
}

impl Host {
    /// Connects a replica of a service: resolves its secrets, reaches NATS, opens object storage.
    ///
    /// [`crate::run`] does this for services; tools and tests call it themselves. An empty `common.replica` takes the host's name.
    pub async fn connect(service: Service, common: Common) -> Result<Self, StartError> {
        // HTTP clients of services panic without one; if the process has chosen already, its choice stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let replica = secret::replica(&common.replica)?;
        let tls = certificate::tls_of(&common)?;
        let objects = Objects::open_trusting(&absolute(common.object_store())?, tls.outward())?;
        let creds = secret::resolve(&common.nats_creds)?;
        let bus = Bus::connect(bus_options(&common, &tls, format!("{service}/{replica}"), creds)).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let index_keys = IndexKeyring::new(bus.clone(), common.journal_replicas, common.encryption_keys.clone());
        let objects = objects.with_keys(Arc::new(index_keys.clone()));
        let shared = Shared {
            started: clock.now(),
            tenants: OnceCell::new(),
            tasks: TaskTracker::new(),
            cpu: Semaphore::new(CPU_AT_ONCE_MAX),
            ready: AtomicBool::new(false),
            conditions: Mutex::default(),
            notes: Mutex::default(),
            beat: Mutex::new(Instant::now()),
            failed: Mutex::default(),
            closers: Mutex::default(),
        };
        let stop = CancellationToken::new();
        let shared = Arc::new(shared);
        Ok(Self { service, replica, bus, common, objects, index_keys, tls, clock, stop, shared })
    }

    /// This replica's own directory for state that can be rebuilt.
    pub fn data_dir(&self) -> PathBuf {
        self.common.data_dir.join(self.service.as_str()).join(self.replica.as_str())
    }

    /// When this process began its work as this replica.
    pub fn started(&self) -> Timestamp {
        self.shared.started
    }

    /// The connection in the tenants' account, made at the first use.
    ///
    /// Without credentials for it the platform connection serves, which is for development only.
    pub async fn tenants(&self) -> Result<Bus, StartError> {
        let connect = || async {
            let Some(creds) = self.secret(&self.common.tenants_creds)? else { return Ok(self.bus.clone()) };
            self.connect_as(creds).await
        };
        self.shared.tenants.get_or_try_init(connect).await.cloned()
    }

    /// One more connection to the same servers, with the text of other credentials.
    pub async fn connect_as(&self, creds: String) -> Result<Bus, StartError> {
        let name = format!("{}/{}", self.service, self.replica);
        Ok(Bus::connect(bus_options(&self.common, &self.tls, name, Some(creds))).await?)
    }

    /// Certificate and authorities for a party of which a setting names authorities of its own; `""` gives those of the process.
    ///
    /// The file is followed as the process's own are, and what is wrong with it is told under `setting`. Without a certificate: it
    /// is for connections to strangers.
    pub fn trusting(&self, setting: &'static str, ca: &str) -> Result<Tls, StartError> {
        if ca.is_empty() {
            return Ok(self.tls.clone());
        }
        let files = Files { ca: Some(PathBuf::from(ca)), ..Files::default() };
        let tls = Tls::open(files).map_err(|error| StartError::other(format_args!("{setting}: {error}")))?;
        self.spawn(setting, certificate::follow(self.clone(), tls.clone(), setting));
        Ok(tls)
    }

    /// The secret that a setting refers to; `None` if the setting is `""`.
    pub fn secret(&self, secret: &Secret) -> Result<Option<String>, StartError> {
        secret::resolve(secret)
    }

    /// Says whether the replica takes work; shown by `/readyz`.
    pub fn ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
    }

    /// Sets or clears a named reason for not being ready.
    pub fn condition(&self, name: &'static str, reason: Option<String>) {
        let mut conditions = self.shared.conditions.lock();
        match reason {
            Some(reason) => drop(conditions.insert(name, reason)),
            None => drop(conditions.remove(name)),
        }
    }

    /// What its service says keeps it from its work, by name.
    pub fn conditions(&self) -> BTreeMap<String, String> {
        self.shared.conditions.lock().iter().map(|(name, reason)| ((*name).to_owned(), reason.clone())).collect()
    }

    /// Sets or clears a named remark of `/readyz` that does not take the replica out of service.
    pub fn note(&self, name: &'static str, remark: Option<String>) {
        let mut notes = self.shared.notes.lock();
        match remark {
            Some(remark) => drop(notes.insert(name, remark)),
            None => drop(notes.remove(name)),
        }
    }

    pub(crate) fn notes(&self) -> BTreeMap<&'static str, String> {
        self.shared.notes.lock().clone()
    }

    /// Why the replica is not ready; empty when it is.
    pub fn unready_reasons(&self) -> BTreeMap<String, String> {
        let mut reasons = self.conditions();
        if self.stop.is_cancelled() {
            reasons.insert("service".to_owned(), "draining".to_owned());
        } else if !self.shared.ready.load(Ordering::Relaxed) {
            reasons.insert("service".to_owned(), "starting".to_owned());
        }
        if !self.bus.is_connected() {
            reasons.insert("nats".to_owned(), "disconnected".to_owned());
        }
        reasons
    }

    /// Enters the replica among the living members of its service and keeps it there until the announcement is dropped or withdrawn.
    pub async fn announce(&self, member: Member) -> Result<Announcement, StartError> {
        Announcement::start(self, member).await
    }

    /// Runs a task that a drain waits for; it has to end by itself soon after [`Host::stop`]. A panic aborts the process.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.shared.tasks.spawn(traced(name, task)));
    }

    /// The same for a task that must stay on the service's own thread.
    ///
    /// Bounds: only where actix runs, which is inside [`crate::Service::start`] and what it began.
    pub fn spawn_local<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(self.shared.tasks.spawn_local(traced(name, task)));
    }

    /// Computes something that takes longer than about 500 us without holding up the actors of this thread.
    pub async fn cpu<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // The semaphore is never closed, and the pool only refuses when the runtime is gone together with whoever waits here.
        let _permit = self.shared.cpu.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the service because it cannot do its work any more; the first reason is what [`crate::run`] answers.
    pub fn fail(&self, reason: StartError) {
        tracing::error!(service = %self.service, replica = %self.replica, %reason, "service gives up");
        self.shared.failed.lock().get_or_insert(reason);
        self.stop.cancel();
    }

    /// Drains in the mirror order of the start: no work is taken, tasks end, ledgers snapshot and give their lease back.
    ///
    /// [`crate::run`] does this for services, with [`crate::DRAIN_MAX`] as its bound.
    pub async fn drain(&self) {
        self.ready(false);
        self.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let closers = std::mem::take(&mut *self.shared.closers.lock());
        for close in closers.into_iter().rev() {
            close().await;
        }
        if let Some(tenants) = self.shared.tenants.get() {
            tenants.flush().await;
        }
        self.bus.flush().await;
    }

    pub(crate) fn on_drain(&self, close: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static) {
        self.shared.closers.lock().push(Box::new(close));
    }

    pub(crate) fn take_failure(&self) -> Option<StartError> {
        self.shared.failed.lock().take()
    }

    pub(crate) fn beat(&self) {
        *self.shared.beat.lock() = Instant::now();
    }

    pub(crate) fn is_live(&self) -> bool {
        self.shared.beat.lock().elapsed() < LIVE_SILENCE_MAX
    }
}

/// Believes the authorities that are named, and nobody without TLS then; else those of the system, where the server speaks TLS.
fn bus_options(common: &Common, tls: &Tls, name: String, creds: Option<String>) -> BusOptions {
    let named = tls.client();
    let plain_allowed = named.is_none();
    let tls = Some(named.unwrap_or_else(|| tls.outward()));
    BusOptions { url: common.nats_url.clone(), creds, name, inbox_prefix: None, tls, plain_allowed }
}

async fn traced(name: &'static str, task: impl Future<Output = ()>) {
    tracing::debug!(task = name, "task begins");
    task.await;
    tracing::debug!(task = name, "task ended");
}

/// A `file:` location below a relative data directory is meant relative to where the process runs.
fn absolute(url: String) -> Result<String, StartError> {
    match url.strip_prefix("file://").filter(|path| !path.starts_with('/')) {
        Some(relative) => {
            let path = std::path::absolute(relative)
                .map_err(|source| StartError::Io { what: format!("object store {url}"), source })?;
            Ok(format!("file://{}", path.display()))
        }
        None => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_object_directory_becomes_absolute() {
        let made = absolute("file://.logboom/objects".into()).unwrap();
        assert!(made.starts_with("file:///") && made.ends_with("/.logboom/objects"), "{made}");
        for same in ["file:///data/objects", "s3://bucket/prefix"] {
            assert_eq!(absolute(same.into()).unwrap(), same);
        }
    }
}
