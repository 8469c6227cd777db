//! The HTTP front door: ingest, SQL, live tail, jobs, rules and the console.
//!
//! Owns: the HTTP API under `/api/v1`, who may call what of it, and the console page at `/`.
//! Deliberately does not know: where events are kept, how jobs run, what a rule means. It keeps no state: any number of
//! replicas may stand behind one address, and a restart loses nothing but open connections.
//!
//! Doors: HTTP on `gateway.address`, and where they are set gRPC (OTLP, Flight SQL) and syslog; none on the bus. Bounds, failures and how to look inside: see `README.md`.
//!
//! ```no_run
//! let settings = settings::Settings::load(settings::Layers::default())?;
//! host::run::<gateway::Gateway>(settings, None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answers;
mod api;
mod auth;
mod body;
mod complete;
mod config;
mod console;
mod doors;
mod elastic;
mod error;
mod explore;
mod export;
mod flight;
mod flink;
mod grpc;
mod histogram;
mod indexes;
mod ingest_lines;
mod into;
mod jobs;
mod language;
mod library;
mod loki;
mod metrics;
mod platform;
mod quota;
mod request;
mod rules;
mod scatter;
mod sockets;
mod sql;
mod stream;
mod syslog;
mod table;
mod tail;

use std::{sync::Arc, time::Duration};

use actix_web::HttpServer;
use host::{Host, Quotas, Running, StartError};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

pub use config::Config;

use crate::{api::Door, auth::Auth, platform::Remote, sockets::ListenError};

/// Threads that take connections; bodies are decoded and queries run elsewhere.
const HTTP_THREADS: usize = 2;

/// Connections of one of them; others wait to be accepted. Each costs little until it has sent a request.
const CONNECTIONS_MAX: usize = 4_096;

/// How long a connection may be silent between two requests: agents send every few seconds, and proxies in front of this door keep
/// connections for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a drain waits for requests in flight; below the host's own bound. Silent connections count as well, so that a drain takes
/// this long wherever an agent keeps one.
const DRAIN_SECONDS: u64 = 5;

/// The service.
#[derive(Debug)]
pub struct Gateway;

impl host::Service for Gateway {
    const NAME: wire::Service = wire::Service::Gateway;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let admin = host.secret(&config.admin_token)?;
        let tokens = host.bus.bucket(wire::views::TOKENS, None, host.common.journal_replicas).await?;
        let auth = Auth::new(admin.as_deref(), Arc::new(tokens), Arc::clone(&host.clock));
        let runtime = sql::runtime()
            .map_err(|source| StartError::Io { what: "threads for queries cannot be started".to_owned(), source })?;
        let threads = Threads(Some(runtime));
        let platform = Arc::new(Remote::new(&host, config.chunk_cache).await?);
        let quotas = Quotas::open(&host).await?;
        let door = Door::new(config.clone(), (auth, quotas), platform, &host, threads.handle()?);
        let runtime = grpc::threads()
            .map_err(|source| StartError::Io { what: "threads for gRPC cannot be started".to_owned(), source })?;
        let grpc_threads = Threads(Some(runtime));
        let listening = listen(&door, &host, grpc_threads.handle()?).await?;
        let unusable = |source| StartError::Address { address: config.address.clone(), source };
        let listeners = answers::listeners(&config.address).map_err(unusable)?;
        let mut server = HttpServer::new(move || api::app(door.clone()))
            .workers(HTTP_THREADS)
            .max_connections(CONNECTIONS_MAX)
            .keep_alive(KEEP_ALIVE)
            .shutdown_timeout(DRAIN_SECONDS)
            .disable_signals();
        for listener in listeners {
            server = match host.https() {
                Some(tls) => server.listen_rustls_0_23(listener, tls),
                None => server.listen(listener),
            }
            .map_err(unusable)?;
        }
        for bound in server.addrs() {
            host.listens("gateway", bound);
        }
        let server = server.run();
        let handle = server.handle();
        drop(actix_rt::spawn(server));
        Ok(Running::new(async move {
            listening.close();
            let within = Duration::from_secs(DRAIN_SECONDS);
            let (_, ended) = tokio::join!(handle.stop(true), tokio::time::timeout(within, listening.wait()));
            if ended.is_err() {
                tracing::warn!(tasks = listening.len(), "connections of syslog or gRPC did not end in time");
            }
            // In-flight queries and calls have been answered or cut off.
            drop((grpc_threads, threads));
        }))
    }
}

/// Opens what is not HTTP; what it does ends soon after the host stops.
async fn listen(door: &Door, host: &Host, grpc_threads: Handle) -> Result<TaskTracker, StartError> {
    let (tasks, tls) = (TaskTracker::new(), host.tls.server());
    let failed = |error| match error {
        ListenError::Address { address, source } => StartError::Address { address, source },
        error @ ListenError::NoCertificate(_) => StartError::other(error),
    };
    grpc::open(door, tls.clone(), &tasks, grpc_threads).await.map_err(failed)?;
    syslog::open(door, host.secret(&door.config.syslog_token)?, tls, &tasks).await.map_err(failed)?;
    Ok(tasks)
}

/// Threads of their own, for queries or for gRPC. They end without being waited for: a runtime must not block the thread that drops it,
/// neither after a drain nor when a start goes wrong.
struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn handle(&self) -> Result<Handle, StartError> {
        let runtime = self.0.as_ref().ok_or_else(|| StartError::other("the threads have ended"))?;
        Ok(runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod fake;
