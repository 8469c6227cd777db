//! Start and drain of one service.

use std::{future::Future, marker::PhantomData, time::Duration};

use actix::{Arbiter, System};
use futures::{FutureExt, future::LocalBoxFuture};
use serde::{Deserialize, Deserializer};
use settings::{Common, Section, Settings};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{interval, timeout},
};
use types::ReplicaId;

use crate::{Host, StartError, certificate, metrics, probe};

/// The longest drain; what is in flight after it is cut off. Kubernetes waits 30 s by default.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often the service's own thread shows that it is not stuck.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// One service of the house.
pub trait Service: Sized + 'static {
    /// The one word: argument, subject, metric prefix, Kubernetes name.
    const NAME: wire::Service;
    /// Its section of the settings.
    type Config: Section + Send + 'static;

    /// Starts the service; when it returns, the service takes work.
    ///
    /// It runs on the service's own actix thread, so the future and what it begins there need not be `Send`.
    fn start(config: Self::Config, host: Host) -> impl Future<Output = Result<Running, StartError>>;
}

/// A started service: how it drains.
pub struct Running {
    drain: LocalBoxFuture<'static, ()>,
}

impl Running {
    /// A service that drains by this future: it is awaited once [`Host::stop`] is cancelled, closes the doors and ends when nothing
    /// is in flight. Tasks of [`Host::spawn`] and ledgers drain after it by themselves.
    pub fn new(drain: impl Future<Output = ()> + 'static) -> Self {
        Self { drain: drain.boxed_local() }
    }

    /// A service that has nothing of its own to drain.
    pub fn idle() -> Self {
        Self::new(std::future::ready(()))
    }
}

/// Runs one service until SIGTERM, SIGINT or its own failure, and drains it.
///
/// `replica` overrides the settings. Telemetry is the caller's, and begins before.
/// Errors: whatever kept it from starting or made it end; after a signal only a drain that was cut off.
pub fn run<S: Service>(settings: Settings, replica: Option<ReplicaId>) -> Result<(), StartError> {
    System::new().block_on(async move {
        let io = |source| StartError::Io { what: "signals cannot be received".to_owned(), source };
        let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
        let mut service = tokio::select! {
            started = start_in_process::<S>(&settings, replica) => started?,
            // Nothing was promised to anybody yet.
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = service.ended() => "its own end",
        };
        tracing::info!(service = %S::NAME, signal, "service stops");
        service.stop().await
    })
}

/// A service that runs on a thread of this process.
pub struct InProcess {
    host: Host,
    arbiter: Arbiter,
    done: oneshot::Receiver<Result<(), StartError>>,
    result: Option<Result<(), StartError>>,
}

impl InProcess {
    /// The service's host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Waits until the service ends by itself.
    pub async fn ended(&mut self) {
        if self.result.is_none() {
            self.result =
                Some((&mut self.done).await.unwrap_or_else(|_| Err(StartError::other("the service's thread ended"))));
        }
    }

    /// Drains the service and ends its thread.
    pub async fn stop(mut self) -> Result<(), StartError> {
        self.host.stop.cancel();
        self.ended().await;
        self.arbiter.stop();
        self.result.unwrap_or(Ok(()))
    }
}

/// Starts a service on an actix Arbiter of its own and waits until it takes work. Must be called where actix runs.
pub async fn start_in_process<S: Service>(
    settings: &Settings,
    replica: Option<ReplicaId>,
) -> Result<InProcess, StartError> {
    let mut common = settings.section::<Common>()?;
    let config = settings.section::<S::Config>()?;
    let probes = settings.section::<Probes<S::Config>>()?.probe_address;
    if let Some(replica) = replica {
        common.replica = replica.to_string();
    }
    metrics::register_all();
    let (started, starting) = oneshot::channel();
    let (end, done) = oneshot::channel();
    let arbiter = Arbiter::try_new()
        .map_err(|source| StartError::Io { what: "a thread for the service cannot be started".to_owned(), source })?;
    arbiter.spawn_fn(move || {
        drop(actix_rt::spawn(async move {
            match begin::<S>(common, config, &probes).await {
                Ok((host, running, probes)) => {
                    // Nobody waits for it any more when the start was given up; it then drains at once.
                    if started.send(Ok(host.clone())).is_ok() {
                        host.stop.cancelled().await;
                    }
                    let drained = drain::<S>(&host, running).await;
                    if let Some(probes) = probes {
                        probes.stop(false).await;
                    }
                    let result = host.take_failure().map_or(drained, Err);
                    drop(end.send(result));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        }));
    });
    match starting.await {
        Ok(Ok(host)) => Ok(InProcess { host, arbiter, done, result: None }),
        Ok(Err(error)) => {
            arbiter.stop();
            Err(error)
        }
        Err(_) => Err(StartError::other("the service's thread ended before the service had started")),
    }
}

async fn begin<S: Service>(
    common: Common,
    config: S::Config,
    probe_address: &str,
) -> Result<(Host, Running, Option<actix_web::dev::ServerHandle>), StartError> {
    let host = Host::connect(S::NAME, common).await?;
    drop(actix_rt::spawn(beat(host.clone())));
    host.spawn("certificate", certificate::follow(host.clone(), host.tls.clone(), certificate::OWN));
    let probes = match probe_address {
        "" => None,
        address => Some(probe::serve(&host, address)?),
    };
    tracing::info!(service = %S::NAME, replica = %host.replica, "service starts");
    let running = S::start(config, host.clone()).await?;
    host.ready(true);
    tracing::info!(service = %S::NAME, replica = %host.replica, "service is ready");
    Ok((host, running, probes))
}

async fn drain<S: Service>(host: &Host, running: Running) -> Result<(), StartError> {
    let drain = async {
        host.ready(false);
        host.stop.cancel();
        running.drain.await;
        host.drain().await;
    };
    match timeout(DRAIN_MAX, drain).await {
        Ok(()) => {
            tracing::info!(service = %S::NAME, replica = %host.replica, "service drained");
            Ok(())
        }
        Err(_) => Err(StartError::DrainTimeout { service: S::NAME }),
    }
}

async fn beat(host: Host) {
    let mut ticks = interval(BEAT_EVERY);
    loop {
        ticks.tick().await;
        host.beat();
    }
}

/// The one key that the frame reads from the section of every service.
struct Probes<C> {
    probe_address: String,
    section: PhantomData<C>,
}

impl<'de, C> Deserialize<'de> for Probes<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Key {
            #[serde(default)]
            probe_address: String,
        }
        Key::deserialize(deserializer).map(|key| Self { probe_address: key.probe_address, section: PhantomData })
    }
}

impl<C: Section> Section for Probes<C> {
    const NAME: &'static str = C::NAME;
}
