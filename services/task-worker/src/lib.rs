//! The task worker: runs tasks of jobs in slots.
//!
//! Owns the life of an attempt's tasks on one worker: sources that read segments and decide lateness, windows behind aligned
//! barriers, sinks that give each row once, and the parts of checkpoints from which all of that goes on.
//! Deliberately does not know: SQL texts, where tasks should run, when a checkpoint begins or is complete, or what an alert
//! is; the job manager and the alerter do.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = settings::Settings::load(settings::Layers::default())?;
//! host::run::<task_worker::TaskWorker>(settings, None)?;
//! # Ok(())
//! # }
//! ```

mod api;
mod attempt;
mod blocks;
mod chain;
mod checkpoint;
mod config;
mod edges;
mod error;
mod metrics;
mod name;
mod part;
mod report;
mod retry;
mod run;
mod sink;
mod source;
mod split;
mod task;
mod threads;
mod window;
mod worker;

use std::sync::Arc;

use client::Client;
use exchange::{Exchange, Options, Secure};
use host::{Host, Running, StartError};
use wire::views::{MEMBERS, Member};

pub use config::Config;
pub use error::Error;

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct TaskWorker;

impl host::Service for TaskWorker {
    const NAME: wire::Service = wire::Service::TaskWorker;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let threads = threads::Threads::start(config.slots)?;
        let (address, advertised) = config.addresses().map_err(StartError::other)?;
        let secret = name::exchange_secret(host.secret(&host.common.nats_creds)?.as_deref());
        let secure = secure(&host)?;
        let options = Options { advertised, secure, ..Options::default() };
        let bound = threads.run(async move { Exchange::bind_with(address, &secret, options).await }).await?;
        let exchange = bound.map_err(StartError::other)?;
        host.listens("exchange", address);
        let jetstream = match host.secret(&config.jetstream_creds)? {
            Some(creds) => Some(host.connect_as(creds).await?),
            None => None,
        };
        let shared = task::Shared {
            jetstream,
            posts: Arc::new(sink::Posts::open(&host, &config)?),
            replica: host.replica.clone(),
            bus: host.bus.clone(),
            members: host.bus.bucket(MEMBERS, Some(host.common.lease_ttl.0), host.common.journal_replicas).await?,
            objects: host.objects.clone(),
            client: Client::new(host.bus.clone(), host.objects.clone()),
            exchange: exchange.clone(),
            files_dir: config.files_dir.clone().into(),
            board: metrics::Board::default(),
        };
        let figures = report::figures(host.bus.clone(), host.replica.clone(), shared.board.clone());
        let figures = tokio_util::task::AbortOnDropHandle::new(threads.handle().spawn(figures));
        let worker = worker::Worker::new(shared, host.started(), config.slots, threads.handle());
        let (doors, open) = api::open(&host, &worker).await?;
        let member = Member {
            service: wire::Service::TaskWorker,
            replica: host.replica.clone(),
            started: host.started(),
            exchange_address: Some(exchange.local_addr().to_string()),
            slots: config.slots,
            unready: <_>::default(),
        };
        // Behind the doors: whoever sees the member may deploy to it.
        let announcement = host.announce(member).await?;
        Ok(Running::new(async move {
            announcement.withdraw().await;
            doors.close_all().await;
            drop(open);
            worker.stop().await;
            drop(figures);
            if let Err(error) = threads.run(exchange.shutdown()).await {
                tracing::warn!(%error, "exchange not shut down in order");
            }
        }))
    }
}

/// Workers know each other by their certificates, so one without authorities to compare them with could not tell.
fn secure(host: &Host) -> Result<Option<Secure>, StartError> {
    match (host.tls.peers(), host.tls.server()) {
        (Some(peers), _) => Ok(Some(Secure { server: peers.server, client: peers.client })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(StartError::other(
            "common.tls_ca is not set: workers show each other their certificates, and it names the authority that signed them",
        )),
    }
}
